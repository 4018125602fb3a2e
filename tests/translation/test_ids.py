"""Ids and times of answers (translation 3.1)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.formats.names import Format
from cpa.translation import ids
from cpa.translation.context import Context

from .support import NOW, counting_ids, make_context


@pytest.mark.parametrize(
    ("client", "answer_id"),
    [
        (Format.OPENAI, "chatcmpl-9x"),
        (Format.OPENAI_RESPONSE, "resp_9x"),
        (Format.CODEX, "resp_9x"),
        (Format.CLAUDE, "msg_9x"),
        (Format.GEMINI, "9x"),
    ],
)
@pytest.mark.parametrize("provider_id", ["chatcmpl-9x", "resp_9x", "msg_9x", "gen-9x", "9x", "9.x", "msg_9 x"])
def test_prefix_belongs_to_the_client(client: Format, answer_id: str, provider_id: str) -> None:
    """SDKs and users tell objects by it."""
    assert ids.answer_id(provider_id, client, make_context()) == answer_id


@pytest.mark.parametrize("provider_id", ["", "msg_", "::::", "é"])
def test_an_id_is_made_up_where_there_is_none(provider_id: str) -> None:
    """24 characters."""
    assert ids.answer_id(provider_id, Format.CLAUDE, make_context()) == "msg_" + counting_ids()()


def test_made_up_ids_are_random() -> None:
    """Two answers never share one."""
    ctx = make_context()
    assert ids.answer_id("", Format.OPENAI, ctx) != ids.answer_id("", Format.OPENAI, ctx)


@given(st.text(max_size=300), st.sampled_from(list(Format)))
def test_any_id_becomes_one_that_all_take(provider_id: str, client: Format) -> None:
    """Providers may send anything."""
    answer_id = ids.answer_id(provider_id, client, make_context())
    assert re.fullmatch(re.escape(ids.PREFIXES[client]) + r"[A-Za-z0-9_-]{1,60}", answer_id)


@pytest.mark.parametrize(
    ("client", "prefix"), [(Format.CLAUDE, "toolu_"), (Format.OPENAI, "call_"), (Format.GEMINI, "call_")]
)
def test_call_ids(client: Format, prefix: str) -> None:
    """For calls to which the provider gave none."""
    assert ids.call_id(make_context(client=client)) == prefix + counting_ids()()


@pytest.mark.parametrize(
    ("stated", "created"),
    [
        (1_700_000_000, 1_700_000_000),
        (1_700_000_000.9, 1_700_000_000),
        (1_700_000_000_123, 1_700_000_000),
        (0, int(NOW)),
        (-5, int(NOW)),
        (1e300, int(NOW)),
        (0.5, 1),
    ],
)
def test_created_is_never_zero(stated: float, created: int) -> None:
    """Corpus 162: the provider's time, else now."""
    assert ids.created_unix(stated, make_context()) == created


@pytest.mark.parametrize(
    ("text", "unix"),
    [
        ("2026-02-03T04:05:06Z", 1_770_091_506),
        ("2026-02-03T04:05:06.123456789Z", 1_770_091_506),
        ("2026-02-03T04:05:06+01:00", 1_770_087_906),
        ("2026-02-03t04:05:06z", 1_770_091_506),
        ("2026-02-03T04:05:06", 1_770_091_506),
        ("yesterday", 0),
        ("", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("2" * 10_000, 0),
    ],
)
def test_times_of_gemini(text: str, unix: int) -> None:
    """RFC 3339 with up to nine digits of a second."""
    assert ids.parse_time(text) == unix


def test_times_go_both_ways() -> None:
    """In UTC."""
    assert ids.format_time(1_770_091_506) == "2026-02-03T04:05:06Z"
    assert ids.parse_time(ids.format_time(1)) == 1


def test_context_decides_who_makes_ids() -> None:
    """Tests and replays need their own."""
    ctx: Context = make_context()
    ctx.new_id = lambda: "fixed"
    assert ids.answer_id("", Format.GEMINI, ctx) == "fixed"
