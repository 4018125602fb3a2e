"""What a provider's model takes, so that no emitter ever looks at a model's name (translation 2.0)."""

from enum import StrEnum
from functools import cache

import attrs

from cpa.formats.names import Format


class SamplingRule(StrEnum):
    """Which of temperature, top_p and top_k are accepted."""

    ALL = "all"
    NONE = "none"
    ONE_OF_TEMP_TOP_P = "one_of_temp_top_p"


class CapabilityKind(StrEnum):
    """How a model's reasoning is steered."""

    NONE = "none"
    BUDGET = "budget"
    LEVEL = "level"
    HYBRID = "hybrid"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Capability:
    """A model's reasoning (translation 2.9). Budgets in tokens; *levels* in ascending order."""

    kind: CapabilityKind = CapabilityKind.UNKNOWN
    min: int = 0
    max: int = 0
    zero_ok: bool = True
    dynamic_ok: bool = True
    levels: tuple[str, ...] = ()


class SchemaTier(StrEnum):
    """Which schema dialect a Gemini model takes."""

    JSON = "json"
    OPENAPI = "openapi"


@attrs.frozen(kw_only=True)
class ModelProfile:
    """One model at one provider.

    Attributes:
      max_output: its limit of output tokens; 0 = unknown.
      system_role: how Chat spells operator text of authority ``developer``.
      mid_system: Claude takes ``role: system`` between other messages.
      prefill: the last turn may be the assistant's.
      tool_result_media: media may stand in tool results.
      vendor_host: the vendor's own endpoint, not a compatible one: newest member names, no extras.
      echo_reasoning: Chat hosts that want ``reasoning_content`` back in tool loops.
      native_extras: unknown members of its own family may be sent.
      codex: the Responses dialect of 2.19.
      search_with_functions: Gemini takes googleSearch beside functions.
      json_with_functions: Gemini takes a response format beside functions.
    """

    max_output: int = 0
    sampling: SamplingRule = SamplingRule.ALL
    reasoning: Capability = attrs.field(factory=Capability)
    system_role: str = "system"
    mid_system: bool = False
    prefill: bool = True
    tool_result_media: bool = True
    vendor_host: bool = False
    echo_reasoning: bool = False
    native_extras: bool = True
    codex: bool = False
    schema_tier: SchemaTier = SchemaTier.JSON
    search_with_functions: bool = False
    json_with_functions: bool = False


@cache
def default_profile(provider: Format) -> ModelProfile:
    """What may be assumed of an unknown model of a provider that speaks *provider*."""
    match provider:
        case Format.OPENAI:
            return ModelProfile(tool_result_media=False)
        case Format.CODEX:
            return ModelProfile(codex=True, vendor_host=True)
        case Format.OPENAI_RESPONSE:
            return ModelProfile(vendor_host=True)
        case Format.CLAUDE:
            return ModelProfile(prefill=False, vendor_host=True)
        case Format.GEMINI:
            return ModelProfile(prefill=False, vendor_host=True)
