"""What requests ask for beside their answer."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.formats.facts import MAX_WORD_BYTES, NO_FACTS, RequestFacts, request_facts
from cpa.formats.names import Format
from cpa.formats.thinking import effort_of_budget, of_word

CHAT, RESPONSES, CODEX = Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX
CLAUDE, GEMINI = Format.CLAUDE, Format.GEMINI


def facts(fmt: Format, **members: Any) -> RequestFacts:
    """Of a body with *members* between others."""
    return request_facts(fmt, json.dumps({"model": "m", "messages": [], **members, "stream": True}).encode())


def thinking_config(**members: Any) -> dict[str, Any]:
    """Gemini's."""
    return {"generationConfig": {"temperature": 1, "thinkingConfig": members}}


@pytest.mark.parametrize(
    ("fmt", "members", "effort"),
    [
        (CHAT, {}, ""),
        (CHAT, {"reasoning_effort": "high"}, "high"),
        (CHAT, {"reasoning_effort": " High "}, "high"),
        (CHAT, {"reasoning_effort": "none"}, "none"),
        (CHAT, {"reasoning_effort": None}, ""),
        (CHAT, {"reasoning_effort": 3}, ""),
        (CHAT, {"reasoning_effort": "x" * MAX_WORD_BYTES}, ""),
        (CHAT, {"reasoning": {"effort": "high"}}, ""),
        (RESPONSES, {"reasoning": {"effort": "low", "summary": "auto"}}, "low"),
        (RESPONSES, {"reasoning": {"summary": "auto"}}, ""),
        (RESPONSES, {"reasoning": "low"}, ""),
        (RESPONSES, {"reasoning": None}, ""),
        (CODEX, {"reasoning": {"effort": "xhigh"}}, "xhigh"),
        (CLAUDE, {}, ""),
        (CLAUDE, {"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "none"),
        (CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        (CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 10000}}, "high"),
        (CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": "many"}}, "auto"),
        (CLAUDE, {"thinking": {"type": "enabled"}}, "auto"),
        (CLAUDE, {"thinking": {"type": "adaptive"}}, "auto"),
        (CLAUDE, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max"),
        (CLAUDE, {"thinking": {"type": "between_tools"}}, ""),
        (CLAUDE, {"output_config": {"effort": "medium"}}, "medium"),
        (GEMINI, {}, ""),
        (GEMINI, thinking_config(thinkingLevel="LOW"), "low"),
        (GEMINI, thinking_config(thinkingBudget=-1), "auto"),
        (GEMINI, thinking_config(thinkingBudget=0), "none"),
        (GEMINI, thinking_config(thinkingBudget=8192), "medium"),
        (GEMINI, thinking_config(thinkingBudget=-7), ""),
        (GEMINI, thinking_config(thinkingLevel="high", thinkingBudget=5), "high"),
        (GEMINI, thinking_config(includeThoughts=True), ""),
        (GEMINI, {"generation_config": {"thinking_config": {"thinking_level": "minimal"}}}, "minimal"),
        (GEMINI, {"generation_config": {"thinking_config": {"thinking_budget": 100000}}}, "xhigh"),
        (GEMINI, {"reasoning_effort": "high"}, ""),
    ],
)
def test_effort_is_read_where_each_protocol_has_it(fmt: Format, members: dict[str, Any], effort: str) -> None:
    """Proxy 2.6; budgets count as their levels."""
    assert facts(fmt, **members).reasoning_effort == effort


@pytest.mark.parametrize(
    ("budget", "level"),
    [
        (-2, ""),
        (-1, "auto"),
        (0, "none"),
        (1, "minimal"),
        (512, "minimal"),
        (513, "low"),
        (1024, "low"),
        (1025, "medium"),
        (8192, "medium"),
        (8193, "high"),
        (24576, "high"),
        (24577, "xhigh"),
        (10**9, "xhigh"),
    ],
)
def test_budgets_have_levels(budget: int, level: str) -> None:
    """Upper bounds are inclusive."""
    assert effort_of_budget(budget) == level


@pytest.mark.parametrize("fmt", list(Format), ids=str)
def test_tier_and_generate_have_the_same_name_everywhere(fmt: Format) -> None:
    """``auto`` unless the request says otherwise; only an explicit false switches generation off."""
    assert facts(fmt) == NO_FACTS == RequestFacts(thinking=None, service_tier="auto", generate=True)
    assert facts(fmt, service_tier="flex").service_tier == "flex"
    for nothing in ("", None, 7, ["flex"], "x" * MAX_WORD_BYTES):
        assert facts(fmt, service_tier=nothing).service_tier == "auto"
    assert not facts(fmt, generate=False).generate
    others: tuple[Any, ...] = (True, None, 0, "false", [])
    for other in others:
        assert facts(fmt, generate=other).generate
    assert facts(fmt, nested={"generate": False, "service_tier": "flex"}) == NO_FACTS


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b'"x"', b"{", b'{"generate":false', b"[" * 100_000])
def test_what_is_no_object_asks_for_nothing(body: bytes) -> None:
    """Bodies are strangers' work."""
    for fmt in Format:
        assert request_facts(fmt, body) == NO_FACTS


def test_what_strict_decoders_refuse_is_read_all_the_same() -> None:
    """A byte order mark, and half a surrogate pair."""
    body = b"\xef\xbb\xbf" + rb'{"text":"\ud83d","generate":false,"reasoning_effort":"low"}'
    assert request_facts(CHAT, body) == RequestFacts(thinking=of_word("low"), generate=False)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(list(Format)),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.dictionaries(
            st.sampled_from(
                [
                    "generate",
                    "service_tier",
                    "reasoning",
                    "reasoning_effort",
                    "effort",
                    "thinking",
                    "type",
                    "budget_tokens",
                    "output_config",
                    "generationConfig",
                    "thinkingConfig",
                    "thinkingBudget",
                    "thinkingLevel",
                ]
            ),
            inner,
        ),
    ),
)
def test_no_request_makes_it_fail(fmt: Format, value: Any) -> None:
    """Members of the right name with anything in them."""
    found = request_facts(fmt, json.dumps(value).encode())
    assert len(found.reasoning_effort) <= MAX_WORD_BYTES
    assert found.service_tier
