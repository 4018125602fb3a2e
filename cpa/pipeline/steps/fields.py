"""Steps on members by path or name: ``set``, ``default``, ``strip``, ``drop-parameters``, ``keep-known-parameters``."""

from collections.abc import Callable, Mapping
from typing import Final

from cpa.config.schema import FrozenJson, thaw
from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.formats.paths import Document, Path, PathError, compile_path
from cpa.pipeline.steps.tree import Members, change, drop, edit_member
from cpa.pipeline.steps.values import BuiltIn, StepContext, WrongSetting, mapping, texts

VALUES: Final = "a mapping of paths to values"
PATHS: Final = "a list of paths"
NAMES: Final = "a list of names of parameters"


def make_set(setting: FrozenJson) -> BuiltIn:
    """``set: {path: value}``."""
    values = _values(setting)

    def edit(document: Document) -> None:
        for path, value in values:
            if path.several or document.get(path) != value:
                document.set(path, value)

    return _with_document(edit)


def make_default(setting: FrozenJson) -> BuiltIn:
    """``default: {path: value}``: only where nothing is, not even a null."""
    values = _values(setting)

    def edit(document: Document) -> None:
        for path, value in values:
            for place in document.places(path):
                if not document.has(place):
                    document.put(place, value)

    return _with_document(edit)


def make_strip(setting: FrozenJson) -> BuiltIn:
    """``strip: [path, …]``."""
    paths = tuple(_path(text, f"[{index}]") for index, text in enumerate(texts(setting, PATHS)))

    def edit(document: Document) -> None:
        for path in paths:
            document.delete(path)

    return _with_document(edit)


def make_drop_parameters(setting: FrozenJson) -> BuiltIn:
    """``drop-parameters: [name, …]``: members of the top level, of Gemini's generation settings too."""
    names = texts(setting, NAMES)

    def edit(members: Members) -> bool:
        dropped = drop(members, *names)
        for holder in ("generationConfig", "generation_config"):
            dropped |= edit_member(members, holder, lambda inner: drop(inner, *names))
        return dropped

    return lambda body, context: change(body, edit)


def make_keep_known(setting: FrozenJson) -> BuiltIn:
    """``keep-known-parameters``: what the protocol's document does not name goes."""

    def step(body: bytes, context: StepContext) -> bytes:
        known = KNOWN.get(context.format)
        if known is None:
            return body
        return change(body, lambda members: drop(members, *[name for name in members if name not in known]))

    return step


def _with_document(edit: Callable[[Document], None]) -> BuiltIn:
    def step(body: bytes, context: StepContext) -> bytes:
        try:
            document = Document(body)
            edit(document)
            return document.dump()
        except (ValueError, RecursionError):
            return body

    return step


def _values(setting: FrozenJson) -> tuple[tuple[Path, bytes], ...]:
    given = mapping(setting, VALUES)
    return tuple((_path(text, ""), encode(thaw(value))) for text, value in given.items())


def _path(text: str, where: str) -> Path:
    try:
        return compile_path(text)
    except PathError as exc:
        raise WrongSetting(f"a path ({exc})", text, path=where) from None


# --- what the protocols know -----------------------------------------------------------------------------------------

_CHAT = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages
    metadata modalities model n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention
    reasoning_effort response_format safety_identifier seed service_tier stop store stream stream_options temperature
    tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
_RESPONSES = """
    background context_management conversation include input instructions max_output_tokens max_tool_calls metadata
    model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature text
    tool_choice tools top_logprobs top_p truncation user
"""
_CLAUDE = """
    cache_control container context_management inference_geo max_tokens mcp_servers messages metadata model
    output_config output_format service_tier speed stop_sequences stream system temperature thinking tool_choice tools
    top_k top_p
"""
_GEMINI = """
    cachedContent contents generationConfig labels model safetySettings serviceTier store systemInstruction toolConfig
    tools cached_content generation_config safety_settings service_tier system_instruction tool_config
"""
KNOWN: Final[Mapping[str, frozenset[str]]] = {
    Format.OPENAI: frozenset(_CHAT.split()),
    Format.OPENAI_RESPONSE: frozenset(_RESPONSES.split()),
    Format.CODEX: frozenset(_RESPONSES.split()) | {"client_metadata"},
    Format.CLAUDE: frozenset(_CLAUDE.split()),
    Format.GEMINI: frozenset(_GEMINI.split()),
}
"""Members of the top level of requests, by the vendors' documents (translation 2.1)."""
