"""Why answers end, in four dialects (translation 3.3).

What cannot be known from a reason alone (`StopReason.TOOL_USE` needs a tool block) the normalizer settles (E8).
"""

from collections.abc import Mapping
from typing import Final

from cpa.translation.ir import StopReason

MALFORMED_NOTE: Final = "[The model made a tool call that could not be read.]"
"""Text for Claude clients, whose protocol has no reason for `StopReason.MALFORMED_CALL`."""

INCOMPLETE: Final = frozenset(
    {
        StopReason.MAX_TOKENS,
        StopReason.CONTEXT_FULL,
        StopReason.REFUSAL,
        StopReason.MALFORMED_CALL,
        StopReason.CANCELLED,
    }
)
"""Reasons that cut what is being written: blocks still open then are incomplete (E7)."""

_CLAUDE: Final[Mapping[str, StopReason]] = {
    "end_turn": StopReason.STOP,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "tool_use": StopReason.TOOL_USE,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.CONTEXT_FULL,
    "refusal": StopReason.REFUSAL,
    "pause_turn": StopReason.PAUSE,
}
_CHAT: Final[Mapping[str, StopReason]] = {
    "stop": StopReason.STOP,
    "length": StopReason.MAX_TOKENS,
    "tool_calls": StopReason.TOOL_USE,
    "function_call": StopReason.TOOL_USE,
    "content_filter": StopReason.REFUSAL,
    # Of compatible servers:
    "end_turn": StopReason.STOP,
    "eos": StopReason.STOP,
    "eos_token": StopReason.STOP,
    "stop_sequence": StopReason.STOP,
    "max_tokens": StopReason.MAX_TOKENS,
    "safety": StopReason.REFUSAL,
}
_GEMINI: Final[Mapping[str, StopReason]] = {
    "STOP": StopReason.STOP,
    "MAX_TOKENS": StopReason.MAX_TOKENS,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "MODEL_ARMOR",
            "ESCALATION",
        ),
        StopReason.REFUSAL,
    ),
    **dict.fromkeys(
        (
            "MALFORMED_FUNCTION_CALL",
            "UNEXPECTED_TOOL_CALL",
            "TOO_MANY_TOOL_CALLS",
            "MISSING_THOUGHT_SIGNATURE",
            "MALFORMED_RESPONSE",
        ),
        StopReason.MALFORMED_CALL,
    ),
}
_INCOMPLETE_REASONS: Final[Mapping[str, StopReason]] = {
    "max_output_tokens": StopReason.MAX_TOKENS,
    "max_messages": StopReason.MAX_TOKENS,
    "content_filter": StopReason.REFUSAL,
    "steered": StopReason.STOP,
}

_TO_CLAUDE: Final[Mapping[StopReason, str]] = {
    StopReason.STOP_SEQUENCE: "stop_sequence",
    StopReason.TOOL_USE: "tool_use",
    StopReason.MAX_TOKENS: "max_tokens",
    StopReason.CONTEXT_FULL: "model_context_window_exceeded",
    StopReason.REFUSAL: "refusal",
    StopReason.PAUSE: "pause_turn",
}
_TO_CHAT: Final[Mapping[StopReason, str]] = {
    StopReason.TOOL_USE: "tool_calls",
    StopReason.MAX_TOKENS: "length",
    StopReason.CONTEXT_FULL: "length",
    StopReason.REFUSAL: "content_filter",
}
_TO_RESPONSES: Final[Mapping[StopReason, tuple[str, str]]] = {
    StopReason.MAX_TOKENS: ("incomplete", "max_output_tokens"),
    StopReason.CONTEXT_FULL: ("incomplete", "max_output_tokens"),
    StopReason.REFUSAL: ("incomplete", "content_filter"),
    StopReason.CANCELLED: ("cancelled", ""),
}
_TO_GEMINI: Final[Mapping[StopReason, str]] = {
    StopReason.MAX_TOKENS: "MAX_TOKENS",
    StopReason.CONTEXT_FULL: "MAX_TOKENS",
    StopReason.REFUSAL: "SAFETY",
    StopReason.MALFORMED_CALL: "MALFORMED_FUNCTION_CALL",
    StopReason.OTHER: "OTHER",
}


def from_claude(reason: str) -> StopReason:
    """Of a non-null ``stop_reason``."""
    return _CLAUDE.get(reason, StopReason.OTHER)


def from_chat(
    reason: str, *, has_tools: bool = False, has_refusal: bool = False, has_text: bool = False
) -> StopReason | None:
    """Of a ``finish_reason`` that is neither null nor empty; None = ``error``, which is an `Err`.

    Args:
      has_tools, has_refusal, has_text: blocks of these kinds that this choice has.
    """
    if reason == "error":
        return None
    found = _CHAT.get(reason, StopReason.OTHER)
    if found is StopReason.TOOL_USE and not has_tools:
        return StopReason.STOP
    if found is StopReason.STOP:
        if has_tools:
            return StopReason.TOOL_USE
        if has_refusal and not has_text:
            return StopReason.REFUSAL
    return found


def from_responses(
    status: str, reason: str = "", *, has_calls: bool = False, only_refusal: bool = False
) -> StopReason | None:
    """Of ``status`` and ``incomplete_details.reason``.

    None = an `Err`: ``failed``, or an answer that is not finished. ``cancelled`` is `StopReason.CANCELLED`, of which
    the normalizer makes an `Err`.

    Args:
      has_calls: the output has call items. *only_refusal*: it has text of no other kind.
    """
    match status:
        case "completed" | "":  # compatible servers leave it out
            if has_calls:
                return StopReason.TOOL_USE
            return StopReason.REFUSAL if only_refusal else StopReason.STOP
        case "incomplete":
            return _INCOMPLETE_REASONS.get(reason, StopReason.OTHER)
        case "cancelled":
            return StopReason.CANCELLED
        case _:
            return None


def from_gemini(reason: str) -> StopReason:
    """Of a non-empty ``finishReason``. Calls are told by their blocks (E8)."""
    return _GEMINI.get(reason.upper(), StopReason.OTHER)


def to_claude(reason: StopReason) -> str:
    """``stop_reason``. With `StopReason.MALFORMED_CALL` goes `MALFORMED_NOTE` as text."""
    return _TO_CLAUDE.get(reason, "end_turn")


def to_chat(reason: StopReason, *, legacy_functions: bool = False, has_refusal: bool = False) -> str:
    """``finish_reason``.

    Args:
      legacy_functions: the client knows ``function_call`` only.
      has_refusal: refusal content was sent, which the vendor ends with ``stop`` (3.3 rule 3).
    """
    if reason is StopReason.REFUSAL and has_refusal:
        return "stop"
    if reason is StopReason.TOOL_USE and legacy_functions:
        return "function_call"
    return _TO_CHAT.get(reason, "stop")


def to_responses(reason: StopReason, *, has_refusal: bool = False) -> tuple[str, str]:
    """``status`` and ``incomplete_details.reason``, which is empty unless incomplete.

    Args:
      has_refusal: refusal content was sent, so that no filter cut the answer.
    """
    if reason is StopReason.REFUSAL and has_refusal:
        return "completed", ""
    return _TO_RESPONSES.get(reason, ("completed", ""))


def to_gemini(reason: StopReason) -> str:
    """``finishReason``."""
    return _TO_GEMINI.get(reason, "STOP")
