"""Usage in four dialects: each of them to each (translation 3.4)."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.jsontypes import JsonObject
from cpa.translation import usage
from cpa.translation.ir import Tokens

Reader = Callable[[bytes], Tokens]
READERS: dict[str, Reader] = {
    "A": usage.from_claude,
    "C": usage.from_chat,
    "R": usage.from_responses,
    "G": usage.from_gemini,
}
WRITERS: dict[str, Callable[[Tokens], JsonObject]] = {
    "A": usage.to_claude,
    "C": usage.to_chat,
    "R": usage.to_responses,
    "G": usage.to_gemini,
}
SAME_TURN: dict[str, JsonObject] = {
    "A": {
        "input_tokens": 120,
        "cache_read_input_tokens": 800,
        "cache_creation_input_tokens": 80,
        "output_tokens": 60,
        "output_tokens_details": {"thinking_tokens": 25},
    },
    "C": {
        "prompt_tokens": 1000,
        "completion_tokens": 60,
        "total_tokens": 1060,
        "prompt_tokens_details": {"cached_tokens": 800, "cache_write_tokens": 80},
        "completion_tokens_details": {"reasoning_tokens": 25},
    },
    "R": {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 800, "cache_write_tokens": 80},
        "output_tokens": 60,
        "output_tokens_details": {"reasoning_tokens": 25},
        "total_tokens": 1060,
    },
    "G": {
        "promptTokenCount": 1000,
        "cachedContentTokenCount": 800,
        "candidatesTokenCount": 35,
        "thoughtsTokenCount": 25,
        "totalTokenCount": 1060,
    },
}
FROM_GEMINI: dict[str, JsonObject] = {
    # Gemini knows no cache writes: what was written is read as fresh.
    "A": {
        "input_tokens": 200,
        "cache_read_input_tokens": 800,
        "output_tokens": 60,
        "output_tokens_details": {"thinking_tokens": 25},
    },
    "C": SAME_TURN["C"] | {"prompt_tokens_details": {"cached_tokens": 800}},
    "R": SAME_TURN["R"] | {"input_tokens_details": {"cached_tokens": 800, "cache_write_tokens": 0}},
    "G": SAME_TURN["G"],
}


def raw(value: object) -> bytes:
    return msgspec.json.encode(value)


@pytest.mark.parametrize("source", READERS)
@pytest.mark.parametrize("target", WRITERS)
def test_the_same_turn_in_four_dialects(source: str, target: str) -> None:
    """The example of 3.4, all sixteen ways."""
    tokens = READERS[source](raw(SAME_TURN[source]))
    expected = FROM_GEMINI if source == "G" else SAME_TURN
    assert WRITERS[target](tokens) == expected[target]


def test_cached_tokens_are_not_part_of_claudes_input() -> None:
    """Corpus 147: 30 of 50 were cached."""
    tokens = usage.from_chat(
        raw({"prompt_tokens": 50, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 30}})
    )
    assert usage.to_claude(tokens) == {"input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 20}


def test_thoughts_are_part_of_the_completion() -> None:
    """Corpus 148: Gemini leaves them out of its candidates."""
    tokens = usage.from_gemini(raw({"promptTokenCount": 9, "candidatesTokenCount": 35, "thoughtsTokenCount": 25}))
    assert usage.to_chat(tokens) == {
        "prompt_tokens": 9,
        "completion_tokens": 60,
        "total_tokens": 69,
        "completion_tokens_details": {"reasoning_tokens": 25},
    }


def test_no_usage_gives_responses_all_required_members() -> None:
    """Corpus 159: zeros, with both details objects."""
    assert usage.to_responses(Tokens()) == {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
    assert usage.to_claude(Tokens()) == {"input_tokens": 0, "output_tokens": 0}


def test_prompts_of_geminis_tools_are_input_elsewhere() -> None:
    """They are not in its own prompt count."""
    tokens = usage.from_gemini(
        raw({"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 18})
    )
    assert usage.to_chat(tokens) == {"prompt_tokens": 15, "completion_tokens": 3, "total_tokens": 18}
    assert usage.to_claude(tokens)["input_tokens"] == 15
    assert usage.to_responses(tokens)["input_tokens"] == 15
    assert usage.to_gemini(tokens) == {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 5,
        "candidatesTokenCount": 3,
        "totalTokenCount": 18,
    }


def test_claude_states_input_first_and_output_last() -> None:
    """Corpus 146: what the second event leaves out, or calls null, holds."""
    start = usage.from_claude(
        raw(
            {"input_tokens": 120, "cache_read_input_tokens": 800, "cache_creation_input_tokens": 80, "output_tokens": 1}
        )
    )
    end = usage.from_claude(raw({"output_tokens": 60, "input_tokens": None, "cache_read_input_tokens": None}), start)
    assert (end.input, end.cached, end.cache_write, end.output) == (1000, 800, 80, 60)


@pytest.mark.parametrize(
    ("delta", "total"),
    [
        ({"input_tokens": 130}, 1010),
        ({"cache_read_input_tokens": 900}, 1100),
        ({"cache_creation_input_tokens": 0}, 920),
        ({"input_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3}, 6),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 20}}, 1040),
    ],
)
def test_parts_of_claudes_input_add_up_over_events(delta: JsonObject, total: int) -> None:
    """Any of the three may be stated anew; the others keep their values."""
    start = usage.from_claude(
        raw({"input_tokens": 120, "cache_read_input_tokens": 800, "cache_creation_input_tokens": 80})
    )
    assert usage.from_claude(raw(delta), start).input == total


def test_geminis_output_adds_up_over_frames() -> None:
    """Thoughts are counted in frames before there is a candidate, and may be left out of later ones."""
    first = usage.from_gemini(raw({"promptTokenCount": 9, "thoughtsTokenCount": 25}))
    assert (first.output, first.reasoning) == (25, 25)
    second = usage.from_gemini(raw({"promptTokenCount": 9, "candidatesTokenCount": 35}), first)
    assert (second.output, second.reasoning) == (60, 25)
    third = usage.from_gemini(raw({"thoughtsTokenCount": 30}), second)
    assert (third.output, third.reasoning) == (65, 30)


@pytest.mark.parametrize(
    ("reader", "obj"),
    [
        (
            usage.from_chat,
            {"prompt_tokens": 1, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 40}},
        ),
        (
            usage.from_responses,
            {"input_tokens": 1, "output_tokens": 10, "output_tokens_details": {"reasoning_tokens": 40}},
        ),
    ],
)
def test_reasoning_larger_than_output_was_left_out_of_it(reader: Reader, obj: JsonObject) -> None:
    """Some compatible servers exclude it."""
    tokens = reader(raw(obj))
    assert (tokens.output, tokens.reasoning) == (50, 40)


def test_the_split_of_cache_writes_survives() -> None:
    """Five minutes and an hour cost differently."""
    obj = {
        "input_tokens": 10,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3},
        "output_tokens": 5,
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
        "service_tier": "priority",
        "speed": "fast",
    }
    tokens = usage.from_claude(raw(obj))
    assert (tokens.input, tokens.cache_write_5m, tokens.cache_write_1h, tokens.searches) == (17, 4, 3, 2)
    assert usage.to_claude(tokens) == obj


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ({"service_tier": "standard"}, "default"),
        ({"service_tier": "priority"}, "priority"),
        ({"service_tier": "batch"}, ""),
        ({"service_tier": "standard", "speed": "fast"}, "fast"),
        ({}, ""),
    ],
)
def test_tiers_of_answers(said: JsonObject, tier: str) -> None:
    """2.12, the way back."""
    assert usage.answer_tier(usage.from_claude(raw(said))) == tier


@pytest.mark.parametrize(
    "extra",
    [
        {"prompt_tokens_details": {"cached_tokens": 8}},
        {"cached_tokens": 8},
        {"prompt_cache_hit_tokens": 8},
        {"prompt_tokens_details": {"cached_tokens": None}, "prompt_cache_hit_tokens": 8},
    ],
)
def test_compatible_servers_have_names_of_their_own(extra: JsonObject) -> None:
    """For what was read from cache."""
    assert usage.from_chat(raw({"prompt_tokens": 9, "completion_tokens": 1} | extra)).cached == 8


def test_modalities() -> None:
    """Audio passes between Chat and Gemini; images are counted."""
    tokens = usage.from_gemini(
        raw(
            {
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}, {"modality": "AUDIO", "tokenCount": 4}],
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
            }
        )
    )
    assert (tokens.audio_input, tokens.audio_output, tokens.image_output) == (4, None, 1290)
    assert usage.to_chat(tokens)["prompt_tokens_details"] == {"audio_tokens": 4}


def test_a_total_alone_is_not_lost() -> None:
    """Servers that say nothing else."""
    assert usage.to_chat(usage.from_chat(b'{"total_tokens":7}'))["total_tokens"] == 7


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"x"',
        b"\xff",
        b'{"prompt_tokens":"9","input_tokens":-1,"promptTokenCount":1.5,"output_tokens":true,"completion_tokens":1e300}',
        b'{"prompt_tokens_details":[],"input_tokens_details":5,"output_tokens_details":"x","cache_creation":null}',
        b'{"candidatesTokensDetails":{},"promptTokensDetails":[1,null,{"modality":"AUDIO"}]}',
        b'{"input_tokens":123456789012345678901234567890}',
    ],
)
def test_nonsense_is_the_same_as_nothing(reader: Reader, nonsense: bytes) -> None:
    """Usage is information: no answer fails for it."""
    assert reader(nonsense) == Tokens()


def test_whole_floats_are_counts() -> None:
    """Some servers are written in languages that have nothing else."""
    assert usage.from_chat(b'{"prompt_tokens":9.0}').input == 9


def test_what_is_not_stated_erases_nothing() -> None:
    """Usage is cumulative."""
    old = Tokens(input=5, cached=2, tier="standard")
    merged = usage.merge(old, Tokens(output=3, cached=0))
    assert merged == Tokens(input=5, cached=0, output=3, tier="standard")
    assert old == Tokens(input=5, cached=2, tier="standard")


COUNTS = st.integers(0, 1 << 40)


@settings(max_examples=60, deadline=None)
@given(
    fresh=COUNTS,
    cached=COUNTS,
    written=COUNTS,
    visible=COUNTS,
    reasoning=st.one_of(st.none(), COUNTS),
)
def test_each_dialect_reads_what_it_wrote(
    fresh: int, cached: int, written: int, visible: int, reasoning: int | None
) -> None:
    """L1 for usage; Gemini has no place for cache writes."""
    tokens = Tokens(
        input=fresh + cached + written,
        cached=cached,
        cache_write=written,
        output=visible + (reasoning or 0),
        reasoning=reasoning,
    )
    for name, write in WRITERS.items():
        again = READERS[name](raw(write(tokens)))
        assert (again.input, again.cached, again.output) == (tokens.input, tokens.cached, tokens.output)
        assert again.reasoning == (tokens.reasoning or 0 if name == "R" else tokens.reasoning)
        assert again.cache_write == (None if name == "G" else written)
