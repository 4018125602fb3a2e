"""Stop reasons in four dialects (translation 3.3)."""

import pytest

from cpa.translation import stops
from cpa.translation.ir import StopReason as S

ROWS = [
    # IR, Claude, Chat, Responses, Gemini: the table of 3.3
    (S.STOP, "end_turn", "stop", ("completed", ""), "STOP"),
    (S.STOP_SEQUENCE, "stop_sequence", "stop", ("completed", ""), "STOP"),
    (S.TOOL_USE, "tool_use", "tool_calls", ("completed", ""), "STOP"),
    (S.MAX_TOKENS, "max_tokens", "length", ("incomplete", "max_output_tokens"), "MAX_TOKENS"),
    (S.CONTEXT_FULL, "model_context_window_exceeded", "length", ("incomplete", "max_output_tokens"), "MAX_TOKENS"),
    (S.REFUSAL, "refusal", "content_filter", ("incomplete", "content_filter"), "SAFETY"),
    (S.PAUSE, "pause_turn", "stop", ("completed", ""), "STOP"),
    (S.MALFORMED_CALL, "end_turn", "stop", ("completed", ""), "MALFORMED_FUNCTION_CALL"),
    (S.OTHER, "end_turn", "stop", ("completed", ""), "OTHER"),
]


@pytest.mark.parametrize(("reason", "claude", "chat", "responses", "gemini"), ROWS, ids=[row[0] for row in ROWS])
def test_every_reason_in_every_dialect(
    reason: S, claude: str, chat: str, responses: tuple[str, str], gemini: str
) -> None:
    """The rows of the table."""
    assert stops.to_claude(reason) == claude
    assert stops.to_chat(reason) == chat
    assert stops.to_responses(reason) == responses
    assert stops.to_gemini(reason) == gemini


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("end_turn", S.STOP),
        ("stop_sequence", S.STOP_SEQUENCE),
        ("tool_use", S.TOOL_USE),
        ("max_tokens", S.MAX_TOKENS),
        ("model_context_window_exceeded", S.CONTEXT_FULL),
        ("refusal", S.REFUSAL),
        ("pause_turn", S.PAUSE),
        ("something_new", S.OTHER),
    ],
)
def test_claude(said: str, reason: S) -> None:
    """Unknown reasons end an answer like any other."""
    assert stops.from_claude(said) is reason


@pytest.mark.parametrize(
    ("said", "blocks", "reason"),
    [
        ("stop", {}, S.STOP),
        ("stop", {"has_tools": True}, S.TOOL_USE),
        ("stop", {"has_refusal": True}, S.REFUSAL),
        ("stop", {"has_refusal": True, "has_text": True}, S.STOP),
        ("length", {"has_tools": True}, S.MAX_TOKENS),
        ("tool_calls", {"has_tools": True}, S.TOOL_USE),
        ("function_call", {"has_tools": True}, S.TOOL_USE),
        ("tool_calls", {}, S.STOP),
        ("content_filter", {}, S.REFUSAL),
        ("end_turn", {}, S.STOP),
        ("eos", {}, S.STOP),
        ("eos_token", {"has_tools": True}, S.TOOL_USE),
        ("stop_sequence", {}, S.STOP),
        ("max_tokens", {}, S.MAX_TOKENS),
        ("safety", {}, S.REFUSAL),
        ("something_new", {}, S.OTHER),
        ("error", {}, None),
    ],
)
def test_chat(said: str, blocks: dict[str, bool], reason: S | None) -> None:
    """A call that the limit cut keeps the limit as its reason, so that clients know (rule 1)."""
    assert stops.from_chat(said, **blocks) is reason


@pytest.mark.parametrize(
    ("status", "detail", "output", "reason"),
    [
        ("completed", "", {}, S.STOP),
        ("completed", "", {"has_calls": True}, S.TOOL_USE),
        ("completed", "", {"only_refusal": True}, S.REFUSAL),
        ("", "", {}, S.STOP),
        ("incomplete", "max_output_tokens", {}, S.MAX_TOKENS),
        ("incomplete", "max_output_tokens", {"has_calls": True}, S.MAX_TOKENS),
        ("incomplete", "max_messages", {}, S.MAX_TOKENS),
        ("incomplete", "content_filter", {}, S.REFUSAL),
        ("incomplete", "steered", {}, S.STOP),
        ("incomplete", "", {}, S.OTHER),
        ("cancelled", "", {}, S.CANCELLED),
        ("failed", "", {}, None),
        ("in_progress", "", {}, None),
        ("queued", "", {}, None),
    ],
)
def test_responses(status: str, detail: str, output: dict[str, bool], reason: S | None) -> None:
    """What is not finished is no success."""
    assert stops.from_responses(status, detail, **output) is reason


GEMINI = {
    S.STOP: ["STOP", "stop"],
    S.MAX_TOKENS: ["MAX_TOKENS"],
    S.REFUSAL: [
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
    ],
    S.MALFORMED_CALL: [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
    ],
    S.OTHER: ["LANGUAGE", "OTHER", "NO_IMAGE", "IMAGE_OTHER", "FINISH_REASON_UNSPECIFIED", "SOMETHING_NEW"],
}


@pytest.mark.parametrize(
    ("said", "reason"), [(said, reason) for reason, all_said in GEMINI.items() for said in all_said]
)
def test_gemini(said: str, reason: S) -> None:
    """All that the vendor defines."""
    assert stops.from_gemini(said) is reason


def test_clients_that_know_functions_only() -> None:
    """A legacy Chat client gets the legacy reason."""
    assert stops.to_chat(S.TOOL_USE, legacy_functions=True) == "function_call"
    assert stops.to_chat(S.STOP, legacy_functions=True) == "stop"


def test_refusal_in_words_is_no_filter() -> None:
    """Rule 3: with refusal content the vendor ends normally; a filter's stop has none (corpus 134, 135)."""
    assert stops.to_chat(S.REFUSAL, has_refusal=True) == "stop"
    assert stops.to_responses(S.REFUSAL, has_refusal=True) == ("completed", "")
    assert stops.to_chat(S.REFUSAL) == "content_filter"


def test_own_reasons_survive_their_own_protocol() -> None:
    """L1, as far as a protocol tells them apart."""
    for reason in S:
        if stops.to_claude(reason) != "end_turn":
            assert stops.from_claude(stops.to_claude(reason)) is reason
        again = stops.from_gemini(stops.to_gemini(reason))
        assert stops.to_gemini(again) == stops.to_gemini(reason)
        status, detail = stops.to_responses(reason)
        round_trip = stops.from_responses(status, detail)
        assert round_trip is not None
        assert stops.to_responses(round_trip) == (status, detail)


def test_cancelled() -> None:
    """Only Responses has a word for it; the normalizer makes an error of it for all."""
    assert stops.to_responses(S.CANCELLED) == ("cancelled", "")
    assert S.CANCELLED in stops.INCOMPLETE
    assert S.TOOL_USE not in stops.INCOMPLETE
