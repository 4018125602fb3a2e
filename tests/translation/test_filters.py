"""Stop sequences for providers that know none (translation 2.4)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.translation.filters import MAX_EXACT_CHARS, MAX_STOPS, StopGuard, open_stop_guard
from cpa.translation.ir import (
    BlockKind,
    Close,
    Delta,
    End,
    IREvent,
    Open,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)

from .support import make_context, make_request


def run(guard: StopGuard, *events: IREvent) -> list[IREvent]:
    return [event for given in events for event in guard.feed(given)]


def text_events(*pieces: str, kind: BlockKind = BlockKind.TEXT) -> list[IREvent]:
    return [
        Start(id="x"),
        Open(b=0, kind=kind),
        *(Delta(b=0, s=piece) for piece in pieces),
        Close(b=0),
        Stop(reason=StopReason.STOP),
        End(),
    ]


def text_of(events: list[IREvent], b: int = 0) -> str:
    return "".join(event.s for event in events if isinstance(event, Delta) and event.b == b)


def stop_of(events: list[IREvent]) -> Stop:
    (stop,) = [event for event in events if isinstance(event, Stop)]
    return stop


def test_a_sequence_across_deltas() -> None:
    """Corpus 87: cut before the match, an ordinary end, and the provider may be cancelled."""
    guard = StopGuard(["END"], estimated_input=11)
    events = run(guard, *text_events("fo", "o E", "ND b", "ar"))
    assert text_of(events) == "foo "
    assert guard.stopped
    assert events[-4:] == [
        Close(b=0),
        Usage(tokens=Tokens(input=11, output=3, estimated=True)),
        Stop(reason=StopReason.STOP_SEQUENCE, sequence="END"),
        End(),
    ]


def test_nothing_follows_the_match() -> None:
    """What the provider still sends is swallowed."""
    guard = StopGuard(["x"])
    run(guard, *text_events("axb"))
    assert guard.feed(Delta(b=0, s="more")) == []
    assert guard.feed(End()) == []


def test_only_what_may_begin_a_sequence_waits() -> None:
    """Text that cannot be one goes out at once."""
    guard = StopGuard(["END"])
    run(guard, Start(), Open(b=0, kind=BlockKind.TEXT))
    assert guard.feed(Delta(b=0, s="hello")) == [Delta(b=0, s="hello")]
    assert guard.feed(Delta(b=0, s=" E")) == [Delta(b=0, s=" ")]
    assert guard.feed(Delta(b=0, s="N")) == []
    assert guard.feed(Delta(b=0, s="NE")) == [Delta(b=0, s="ENN")]
    assert guard.feed(Close(b=0)) == [Delta(b=0, s="E"), Close(b=0)]
    assert not guard.stopped


def test_no_sequence_changes_nothing() -> None:
    """The answer ends as the provider ends it."""
    guard = StopGuard(["END"])
    events = run(guard, *text_events("the E", "N"))
    assert text_of(events) == "the EN"
    assert stop_of(events).reason is StopReason.STOP
    assert not guard.stopped


@pytest.mark.parametrize("kind", [BlockKind.REASONING, BlockKind.TOOL, BlockKind.CUSTOM_TOOL, BlockKind.REFUSAL])
def test_only_text_is_searched(kind: BlockKind) -> None:
    """Vendors do not stop in reasoning or arguments either."""
    events = text_events("an END here", kind=kind)
    assert run(StopGuard(["END"]), *events) == events


def test_the_first_to_be_completed_wins() -> None:
    """As in a model, which stops when a sequence is complete, not when one may have begun."""
    guard = StopGuard(["xaby", "ab"])
    events = run(guard, *text_events("1xaby2"))
    assert (text_of(events), stop_of(events).sequence) == ("1x", "ab")


def test_the_longer_of_two_that_end_together() -> None:
    """More of the text is the sequence's."""
    events = run(StopGuard(["b", "ab"]), *text_events("1ab2"))
    assert (text_of(events), stop_of(events).sequence) == ("1", "ab")


def test_other_open_blocks_are_closed() -> None:
    """Half a call is marked; text of another block is complete as it is (E7)."""
    guard = StopGuard(["END"])
    events = run(
        guard,
        Start(),
        Open(b=0, kind=BlockKind.TEXT),
        Delta(b=0, s="one E"),
        Open(b=1, kind=BlockKind.TOOL),
        Delta(b=1, s='{"a"'),
        Open(b=2, kind=BlockKind.TEXT),
        Delta(b=2, s="two END"),
    )
    assert text_of(events, 0) == "one E"
    assert text_of(events, 2) == "two "
    assert [event for event in events if isinstance(event, Close)] == [
        Close(b=2),
        Close(b=0),
        Close(b=1, incomplete=True),
    ]
    assert isinstance(events[-1], End)


def test_blocks_are_searched_each_for_itself() -> None:
    """A sequence does not reach over a boundary."""
    guard = StopGuard(["END"])
    events = run(
        guard,
        Start(),
        Open(b=0, kind=BlockKind.TEXT),
        Delta(b=0, s="E"),
        Close(b=0),
        Open(b=1, kind=BlockKind.TEXT),
        Delta(b=1, s="ND"),
        Close(b=1),
        Stop(reason=StopReason.STOP),
        End(),
    )
    assert not guard.stopped
    assert (text_of(events, 0), text_of(events, 1)) == ("E", "ND")


def test_stated_usage_is_kept_in_the_estimate() -> None:
    """Providers that say their input first."""
    guard = StopGuard(["END"], estimated_input=1)
    events = run(guard, Start(), Usage(tokens=Tokens(input=500, cached=400, output=1)), *text_events("12345678END")[1:])
    usage = [event.tokens for event in events if isinstance(event, Usage)][-1]
    assert usage == Tokens(input=500, cached=400, output=3, estimated=True)


def test_sequences_of_any_script() -> None:
    """Characters are not bytes."""
    events = run(StopGuard(["终止", "🛑"]), *text_events("一二终", "三终", "止四"))
    assert text_of(events) == "一二终三"
    assert stop_of(events).sequence == "终止"
    assert text_of(run(StopGuard(["终止", "🛑"]), *text_events("a", "🛑b"))) == "a"


STOPS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(stops=STOPS, pieces=st.lists(st.text("abc", min_size=1, max_size=5), max_size=8), pad=st.booleans())
def test_how_text_is_cut_makes_no_difference(stops: list[str], pieces: list[str], pad: bool) -> None:
    """L3, against the plain definition: the shortest beginning of the text that ends in a sequence."""
    if pad:  # so long that the other way of holding back is used
        stops = [*stops, "c" * (MAX_EXACT_CHARS + 1)]
    whole = "".join(pieces)
    expected, sequence = whole, ""
    for end in range(1, len(whole) + 1):
        matches = [stop for stop in stops if whole[:end].endswith(stop)]
        if matches:
            sequence = max(matches, key=len)
            expected = whole[: end - len(sequence)]
            break
    guard = StopGuard(stops)
    events = run(guard, *text_events(*pieces))
    assert text_of(events) == expected
    assert guard.stopped is bool(sequence)
    assert stop_of(events).sequence == sequence
    assert all(event.s for event in events if isinstance(event, Delta))
    assert sum(isinstance(event, Close) for event in events) == 1
    assert isinstance(events[-1], End)


def test_a_guard_for_a_request() -> None:
    """None where there is nothing to guard."""
    ctx, request = make_context(), make_request()
    assert open_stop_guard(request, ctx) is None
    request.sampling.stop = ["", "END"]
    guard = open_stop_guard(request, ctx)
    assert guard is not None
    assert text_of(run(guard, *text_events("a END"))) == "a "
    assert ctx.losses == []


def test_too_many_sequences_are_said() -> None:
    """Each costs a search per delta."""
    ctx, request = make_context(), make_request()
    request.sampling.stop = [f"s{n}" for n in range(MAX_STOPS + 1)]
    assert open_stop_guard(request, ctx) is not None
    assert [loss.path for loss in ctx.losses] == ["stop"]
