"""Token counts, in four dialects (translation 3.4).

In the IR *input* is everything that the model read (cache included), *output* everything that it wrote (reasoning
included). Claude states what it read from cache beside its input, and Gemini its thoughts beside its output, each
possibly in another event of a stream than the rest of the sum: therefore readers get what was said *before*, and give
back the state after. Nothing here raises: nonsense in usage is the same as none.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from cpa.formats.json import JsonError, decode
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.ir import Tokens

MAX_USAGE_BYTES: Final = 64 * 1024
"""Largest usage object that is read; real ones have a few hundred bytes."""
MAX_COUNT: Final = 1 << 53
"""Larger counts are nonsense."""

TIERS_OF_CLAUDE: Final = frozenset({"standard", "priority"})
_CHAT_TIERS: Final[Mapping[str, str]] = {"standard": "default"}
_GEMINI_AUDIO, _GEMINI_IMAGE = "AUDIO", "IMAGE"


def from_chat(obj: bytes, before: Tokens | None = None) -> Tokens:
    """Of ``usage``, with the spellings of compatible servers. Members that it leaves out are those of *before*."""
    usage = _members(obj)
    read, wrote = _object(usage.get("prompt_tokens_details")), _object(usage.get("completion_tokens_details"))
    return merge(
        before,
        Tokens(
            input=_count(usage.get("prompt_tokens")),
            cached=_first(
                read.get("cached_tokens"),
                usage.get("cached_tokens"),
                usage.get("prompt_cache_hit_tokens"),
                usage.get("cache_read_input_tokens"),
            ),
            cache_write=_first(read.get("cache_write_tokens"), usage.get("cache_creation_input_tokens")),
            output=_generated(usage.get("completion_tokens"), wrote.get("reasoning_tokens")),
            reasoning=_count(wrote.get("reasoning_tokens")),
            total=_count(usage.get("total_tokens")),
            audio_input=_count(read.get("audio_tokens")),
            audio_output=_count(wrote.get("audio_tokens")),
            image_output=_count(wrote.get("image_tokens")),
        ),
    )


def from_responses(obj: bytes, before: Tokens | None = None) -> Tokens:
    """Of ``usage``. Members that it leaves out are those of *before*."""
    usage = _members(obj)
    read, wrote = _object(usage.get("input_tokens_details")), _object(usage.get("output_tokens_details"))
    return merge(
        before,
        Tokens(
            input=_count(usage.get("input_tokens")),
            cached=_count(read.get("cached_tokens")),
            cache_write=_count(read.get("cache_write_tokens")),
            output=_generated(usage.get("output_tokens"), wrote.get("reasoning_tokens")),
            reasoning=_count(wrote.get("reasoning_tokens")),
            total=_count(usage.get("total_tokens")),
        ),
    )


def from_claude(obj: bytes, before: Tokens | None = None) -> Tokens:
    """Of ``usage``. Members that it leaves out are those of *before*: pass what the stream said so far."""
    usage = _members(obj)
    old = before or _NOTHING
    split = _object(usage.get("cache_creation"))
    fresh, cached = _count(usage.get("input_tokens")), _count(usage.get("cache_read_input_tokens"))
    for_5m, for_1h = _count(split.get("ephemeral_5m_input_tokens")), _count(split.get("ephemeral_1h_input_tokens"))
    written = _count(usage.get("cache_creation_input_tokens"))
    if written is None and (for_5m is not None or for_1h is not None):
        written = (for_5m or 0) + (for_1h or 0)
    total_input: int | None = None
    if (fresh, cached, written) != (None, None, None):
        # The parts that this event leaves out are those that were stated before.
        if fresh is None and old.input is not None:
            fresh = max(0, old.input - (old.cached or 0) - (old.cache_write or 0))
        now_cached = cached if cached is not None else old.cached
        now_written = written if written is not None else old.cache_write
        total_input = (fresh or 0) + (now_cached or 0) + (now_written or 0)
    thinking = _object(usage.get("output_tokens_details")).get("thinking_tokens")
    tier, speed = usage.get("service_tier"), usage.get("speed")
    return merge(
        before,
        Tokens(
            input=total_input,
            cached=cached,
            cache_write=written,
            cache_write_5m=for_5m,
            cache_write_1h=for_1h,
            output=_generated(usage.get("output_tokens"), thinking),
            reasoning=_count(thinking),
            searches=_count(_object(usage.get("server_tool_use")).get("web_search_requests")),
            tier=tier if isinstance(tier, str) and tier in TIERS_OF_CLAUDE else "",
            speed=speed if speed == "fast" else "",
        ),
    )


def from_gemini(obj: bytes, before: Tokens | None = None) -> Tokens:
    """Of ``usageMetadata``. Members that it leaves out are those of *before*: pass what the stream said so far."""
    usage = _members(obj)
    old = before or _NOTHING
    visible, thoughts = _count(usage.get("candidatesTokenCount")), _count(usage.get("thoughtsTokenCount"))
    output: int | None = None
    if (visible, thoughts) != (None, None):
        if visible is None:
            visible = max(0, (old.output or 0) - (old.reasoning or 0))
        output = visible + (thoughts if thoughts is not None else old.reasoning or 0)
    return merge(
        before,
        Tokens(
            input=_count(usage.get("promptTokenCount")),
            cached=_count(usage.get("cachedContentTokenCount")),
            tool_prompt=_count(usage.get("toolUsePromptTokenCount")),
            output=output,
            reasoning=thoughts,
            total=_count(usage.get("totalTokenCount")),
            audio_input=_modality(usage.get("promptTokensDetails"), _GEMINI_AUDIO),
            audio_output=_modality(usage.get("candidatesTokensDetails"), _GEMINI_AUDIO),
            image_output=_modality(usage.get("candidatesTokensDetails"), _GEMINI_IMAGE),
        ),
    )


def to_chat(tokens: Tokens) -> JsonObject:
    """``usage``; what is unknown is left out of the details, and these if they are empty."""
    read, wrote = _prompt(tokens), tokens.output or 0
    usage: JsonObject = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": _total(tokens)}
    details = _known(
        cached_tokens=tokens.cached, cache_write_tokens=tokens.cache_write, audio_tokens=tokens.audio_input
    )
    if details:
        usage["prompt_tokens_details"] = details
    details = _known(reasoning_tokens=tokens.reasoning, audio_tokens=tokens.audio_output)
    if details:
        usage["completion_tokens_details"] = details
    return usage


def to_responses(tokens: Tokens) -> JsonObject:
    """``usage`` with both details objects and all their members, which the vendor's types require."""
    return {
        "input_tokens": _prompt(tokens),
        "input_tokens_details": {"cached_tokens": tokens.cached or 0, "cache_write_tokens": tokens.cache_write or 0},
        "output_tokens": tokens.output or 0,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning or 0},
        "total_tokens": _total(tokens),
    }


def to_claude(tokens: Tokens) -> JsonObject:
    """``usage``; cache members when they are known, be they zero."""
    usage: JsonObject = {"input_tokens": max(0, _prompt(tokens) - (tokens.cached or 0) - (tokens.cache_write or 0))}
    usage |= _known(
        cache_read_input_tokens=tokens.cached,
        cache_creation_input_tokens=tokens.cache_write,
    )
    if tokens.cache_write_5m is not None or tokens.cache_write_1h is not None:
        usage["cache_creation"] = {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m or 0,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h or 0,
        }
    usage["output_tokens"] = tokens.output or 0
    if tokens.reasoning is not None:
        usage["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    if tokens.searches is not None:
        usage["server_tool_use"] = {"web_search_requests": tokens.searches, "web_fetch_requests": 0}
    if tokens.tier in TIERS_OF_CLAUDE:
        usage["service_tier"] = tokens.tier
    if tokens.speed == "fast":
        usage["speed"] = tokens.speed
    return usage


def to_gemini(tokens: Tokens) -> JsonObject:
    """``usageMetadata``; what is unknown is left out."""
    usage: JsonObject = {"promptTokenCount": tokens.input or 0}
    usage |= _known(cachedContentTokenCount=tokens.cached, toolUsePromptTokenCount=tokens.tool_prompt)
    usage["candidatesTokenCount"] = max(0, (tokens.output or 0) - (tokens.reasoning or 0))
    usage |= _known(thoughtsTokenCount=tokens.reasoning)
    usage["totalTokenCount"] = _total(tokens)
    return usage


def answer_tier(tokens: Tokens) -> str:
    """``service_tier`` of an answer in the protocols of OpenAI (2.12); empty = leave it out."""
    return "fast" if tokens.speed == "fast" else _CHAT_TIERS.get(tokens.tier, tokens.tier)


def merge(old: Tokens | None, new: Tokens) -> Tokens:
    """*new* over *old*: what is not stated never erases what was. Always a value of its own."""
    if old is None:
        return msgspec.structs.replace(new)
    merged = msgspec.structs.replace(old)
    for name in Tokens.__struct_fields__:
        value = getattr(new, name)
        if value is not None and value != "":
            setattr(merged, name, value)
    return merged


# --- details ---------------------------------------------------------------------------------------------------------

_NOTHING = Tokens()


def _prompt(tokens: Tokens) -> int:
    """What the other protocols count as input: only Gemini keeps the prompts of its own tools apart."""
    return (tokens.input or 0) + (tokens.tool_prompt or 0)


def _total(tokens: Tokens) -> int:
    if tokens.input is None and tokens.output is None:
        return tokens.total or 0
    return _prompt(tokens) + (tokens.output or 0)


def _generated(output: JsonValue, reasoning: JsonValue) -> int | None:
    """Output with reasoning in it: some compatible servers leave it out, which shows when it is the larger one."""
    whole, part = _count(output), _count(reasoning)
    return whole + part if whole is not None and part is not None and part > whole else whole


def _members(obj: bytes) -> JsonObject:
    if len(obj) > MAX_USAGE_BYTES:
        return {}
    try:
        return _object(decode(obj))
    except JsonError:
        return {}


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _count(value: JsonValue) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT else None


def _first(*values: JsonValue) -> int | None:
    return next((count for value in values if (count := _count(value)) is not None), None)


def _modality(details: JsonValue, modality: str) -> int | None:
    """The count of *modality* in one of Gemini's lists of details."""
    if not isinstance(details, list):
        return None
    entries = [entry for entry in details if isinstance(entry, dict) and entry.get("modality") == modality]
    return _count(entries[0].get("tokenCount")) if entries else None


def _known(**counts: int | None) -> JsonObject:
    return {name: count for name, count in counts.items() if count is not None}
