"""Invariants E1 to E9 (translation 0.4), whatever parsers say."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Meta,
    Open,
    PartBreak,
    Ping,
    Provenance,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)
from cpa.translation.normalizer import EMPTY, MALFORMED, TRUNCATED, Normalizer
from cpa.translation.stops import INCOMPLETE

from .support import NOW, make_context

TEXT, TOOL, REASONING = BlockKind.TEXT, BlockKind.TOOL, BlockKind.REASONING
SIG = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="s")


def run(*events: IREvent, finish: bool = True) -> list[IREvent]:
    normalizer = Normalizer(make_context())
    out = normalizer.feed(events)
    return out + (normalizer.finish() if finish else [])


def tool(b: int, call_id: str = "c", choice: int = 0) -> Open:
    return Open(b=b, kind=TOOL, meta=Meta(call_id=call_id, name="f"), choice=choice)


def of_type(events: list[IREvent], kind: type) -> list[IREvent]:
    return [event for event in events if isinstance(event, kind)]


def test_a_good_answer_passes_as_it_is() -> None:
    """But for the stop, which waits for the terminal."""
    events: list[IREvent] = [
        Start(id="x", model="m", created_unix=5),
        Open(b=0, kind=REASONING),
        Delta(b=0, s="hm"),
        SigEvent(b=0, sig=SIG),
        Close(b=0),
        Open(b=1, kind=TEXT),
        Delta(b=1, s="hi"),
        Close(b=1),
        Usage(tokens=Tokens(output=2)),
        Stop(reason=StopReason.STOP),
        End(),
    ]
    assert run(*events) == events


# --- E1 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [Open(b=0, kind=TEXT), Usage(tokens=Tokens(input=1)), SigEvent(b=-1, sig=SIG)],
    ids=["content", "usage", "signature"],
)
def test_a_start_is_made_up(first: IREvent) -> None:
    """From the request."""
    assert run(first, finish=False)[0] == Start(id="", model="provider-name", created_unix=int(NOW))


def test_one_start() -> None:
    """Later ones are ignored; its time is never 0."""
    assert run(Start(id="a", model="m"), Start(id="b"), finish=False) == [
        Start(id="a", model="m", created_unix=int(NOW))
    ]


def test_pings_before_the_start_are_dropped() -> None:
    """Nothing is sent before the answer begins."""
    assert run(Ping(), Start(id="a", created_unix=1), Ping(), finish=False) == [
        Start(id="a", model="provider-name", created_unix=1),
        Ping(),
    ]


# --- E2, E3 ----------------------------------------------------------------------------------------------------------


def test_blocks_are_numbered_as_they_open() -> None:
    """Whatever the provider counted."""
    out = run(
        Start(),
        Open(b=7, kind=TEXT),
        tool(3),
        Delta(b=3, s="{}"),
        Delta(b=7, s="x"),
        Close(b=3),
        Close(b=7),
        Stop(reason=StopReason.TOOL_USE),
        End(),
    )
    assert [event.b for event in out if isinstance(event, Open)] == [0, 1]
    assert [(event.b, event.s) for event in out if isinstance(event, Delta)] == [(1, "{}"), (0, "x")]
    assert [event.b for event in out if isinstance(event, Close)] == [1, 0]


def test_choices_have_blocks_of_their_own() -> None:
    """Both may count from 0; emitters may go by the number alone."""
    out = run(
        Open(b=0, kind=TEXT),
        Open(b=0, kind=TEXT, choice=1),
        Delta(b=0, s="a"),
        Delta(b=0, s="b", choice=1),
        Stop(reason=StopReason.STOP),
        Stop(reason=StopReason.MAX_TOKENS, choice=1),
        End(),
    )
    assert [(event.choice, event.b, event.s) for event in out if isinstance(event, Delta)] == [(0, 0, "a"), (1, 1, "b")]
    assert [(event.choice, event.incomplete) for event in out if isinstance(event, Close)] == [(0, False), (1, True)]
    assert [(event.choice, event.reason) for event in out if isinstance(event, Stop)] == [
        (0, StopReason.STOP),
        (1, StopReason.MAX_TOKENS),
    ]


def test_a_number_used_again_is_another_block() -> None:
    """Providers that send index 0 for everything."""
    out = run(Open(b=0, kind=TEXT), Delta(b=0, s="a"), Close(b=0), Open(b=0, kind=TEXT), Delta(b=0, s="b"))
    assert [event.b for event in out if isinstance(event, Open | Delta)] == [0, 0, 1, 1]


def test_what_is_of_no_open_block_is_ignored() -> None:
    """Before it opens, after it closes, twice."""
    out = run(
        Start(),
        Delta(b=0, s="a"),
        Close(b=0),
        Open(b=0, kind=TEXT),
        Open(b=0, kind=TOOL),
        Close(b=0),
        Close(b=0),
        Delta(b=0, s="b"),
        Ann(b=0, annotation=Annotation(kind="url", start=0, end=1)),
        finish=False,
    )
    assert [type(event) for event in out] == [Start, Open, Close]


def test_calls_without_an_id_get_one() -> None:
    """Without it they cannot be answered; two calls never share one."""
    out = run(tool(0, ""), tool(1, "same"), tool(2, "same"), finish=False)
    ids = [event.meta.call_id for event in out if isinstance(event, Open)]
    assert ids[0].startswith("call_")
    assert ids[1] == "same"
    assert ids[2].startswith("call_")
    assert len(set(ids)) == 3


def test_a_late_signature_still_reaches_the_client() -> None:
    """It belongs to what came before."""
    out = run(Open(b=0, kind=TEXT), Delta(b=0, s="a"), Close(b=0), SigEvent(b=0, sig=SIG), finish=False)
    assert out[-1] == SigEvent(b=-1, sig=Sig(Provenance.CLAUDE, SigKind.THINKING, "s", preceding=True))
    assert SIG.preceding is False


def test_a_signature_of_nothing() -> None:
    """Gemini signs empty parts."""
    assert run(Start(), SigEvent(b=-1, sig=SIG), finish=False)[-1] == SigEvent(b=-1, sig=SIG)


# --- E4, E8 ----------------------------------------------------------------------------------------------------------


def test_content_after_the_stop_is_not_lost() -> None:
    """The stop waits for the terminal."""
    normalizer = Normalizer(make_context())
    normalizer.feed([Open(b=0, kind=TEXT), Delta(b=0, s="a"), Stop(reason=StopReason.STOP)])
    assert normalizer.stopped
    out = normalizer.feed([Delta(b=0, s="b"), Usage(tokens=Tokens(output=1)), End()])
    assert [type(event) for event in out] == [Delta, Usage, Close, Stop, End]


def test_the_first_stop_counts() -> None:
    """At most one per choice."""
    out = run(Stop(reason=StopReason.MAX_TOKENS, detail="a"), Stop(reason=StopReason.STOP), End())
    assert of_type(out, Stop) == [Stop(reason=StopReason.MAX_TOKENS, detail="a")]


@pytest.mark.parametrize(
    ("said", "opened", "reason"),
    [
        (StopReason.TOOL_USE, TEXT, StopReason.STOP),
        (StopReason.STOP, TOOL, StopReason.TOOL_USE),
        (StopReason.STOP, BlockKind.CUSTOM_TOOL, StopReason.TOOL_USE),
        (StopReason.TOOL_USE, TOOL, StopReason.TOOL_USE),
        (StopReason.TOOL_USE, BlockKind.SERVER_CALL, StopReason.STOP),
        (StopReason.MAX_TOKENS, TOOL, StopReason.MAX_TOKENS),
        (StopReason.REFUSAL, TOOL, StopReason.REFUSAL),
        (StopReason.PAUSE, TEXT, StopReason.PAUSE),
        (None, TEXT, StopReason.STOP),
        (None, TOOL, StopReason.TOOL_USE),
    ],
)
def test_calls_decide_about_the_reason(said: StopReason | None, opened: BlockKind, reason: StopReason) -> None:
    """E8; the limit beats calls (3.3 rule 1, corpus 133), and an end without a reason is a plain stop."""
    stop = [Stop(reason=said)] if said else []
    out = run(Open(b=0, kind=opened, meta=Meta(name="f")), Delta(b=0, s="{}"), *stop, End())
    assert [event.reason for event in out if isinstance(event, Stop)] == [reason]


def test_calls_of_one_choice_do_not_change_another() -> None:
    """E8 is per choice."""
    out = run(tool(0, choice=1), Open(b=1, kind=TEXT), Delta(b=1, s="x"), End())
    assert [event.reason for event in out if isinstance(event, Stop)] == [StopReason.STOP, StopReason.TOOL_USE]


# --- E5, E7 and how answers end (4.1) --------------------------------------------------------------------------------


def test_nothing_follows_the_terminal() -> None:
    """Corpus 115."""
    normalizer = Normalizer(make_context())
    out = normalizer.feed([Stop(reason=StopReason.STOP), End(), Open(b=0, kind=TEXT), End()])
    assert isinstance(out[-1], End)
    assert normalizer.ended
    assert normalizer.feed([Start(), Err(status=500, message="x")]) == []
    assert normalizer.finish() == []


def test_no_event_at_all_is_an_error() -> None:
    """Corpus 118: an empty stream, as long as nothing was sent."""
    assert run() == [EMPTY]
    assert EMPTY.status == 502


@pytest.mark.parametrize("events", [[End()], [Start(), End()], [Start(), Usage(tokens=Tokens(input=1)), End()]])
def test_an_end_mark_alone_is_no_success(events: list[IREvent]) -> None:
    """Corpus 116: ``[DONE]`` first."""
    assert run(*events)[-1] == EMPTY


def test_an_empty_answer_that_has_stopped_is_one() -> None:
    """4.6: legal."""
    out = run(Start(), Stop(reason=StopReason.STOP), End())
    assert [type(event) for event in out] == [Start, Stop, End]


def test_a_stream_that_breaks_off_is_truncated() -> None:
    """Corpus 117: never an invented success; blocks are marked, so that emitters leave them open on the wire."""
    out = run(Open(b=0, kind=TEXT), Delta(b=0, s="half"))
    assert out[-2:] == [Close(b=0, incomplete=True, failed=True), TRUNCATED]
    assert TRUNCATED.status == 502


def test_the_end_of_the_stream_after_a_stop_is_the_end() -> None:
    """Providers without an end mark."""
    out = run(Open(b=0, kind=TEXT), Delta(b=0, s="x"), Close(b=0), Stop(reason=StopReason.STOP))
    assert isinstance(out[-1], End)


def test_all_choices_must_have_stopped() -> None:
    """One of two that breaks off is truncated."""
    out = run(Open(b=0, kind=TEXT), Open(b=1, kind=TEXT, choice=1), Stop(reason=StopReason.STOP))
    assert out[-1] == TRUNCATED


def test_an_error_passes_with_what_it_says() -> None:
    """Also before anything else."""
    error = Err(status=529, message="overloaded", code="overloaded", retry_after_s=3)
    assert run(error) == [error]
    assert run(Open(b=0, kind=TEXT), error)[1:] == [
        Open(b=0, kind=TEXT),
        Close(b=0, incomplete=True, failed=True),
        error,
    ]


@pytest.mark.parametrize("reason", [reason for reason in StopReason if reason is not StopReason.CANCELLED])
def test_open_blocks_are_closed_at_the_end(reason: StopReason) -> None:
    """Incomplete when the reason cut them (corpus 125)."""
    out = run(Open(b=0, kind=TEXT), Delta(b=0, s="a"), Stop(reason=reason), End())
    assert of_type(out, Close) == [Close(b=0, incomplete=reason in INCOMPLETE)]
    assert isinstance(out[-1], End)


def test_cancelled_is_an_error() -> None:
    """No protocol but one has a word for it."""
    out = run(Open(b=0, kind=TEXT), Delta(b=0, s="a"), Stop(reason=StopReason.CANCELLED), End())
    error = out[-1]
    assert isinstance(error, Err)
    assert error.status == 499


@pytest.mark.parametrize(
    "content",
    [[], [Open(b=0, kind=TEXT), Close(b=0)], [Open(b=0, kind=REASONING), Delta(b=0, s="let me"), Close(b=0)]],
    ids=["nothing", "no text", "reasoning"],
)
def test_a_call_that_cannot_be_read_alone_is_an_error(content: list[IREvent]) -> None:
    """Corpus 142: an empty success would hide the failure."""
    out = run(Start(), *content, Stop(reason=StopReason.MALFORMED_CALL, detail="bad call"), End())
    error = out[-1]
    assert isinstance(error, Err)
    assert (error.status, error.message) == (502, MALFORMED.message + ": bad call")


def test_a_call_that_cannot_be_read_beside_text_is_a_reason() -> None:
    """The text is an answer."""
    out = run(Open(b=0, kind=TEXT), Delta(b=0, s="x"), Stop(reason=StopReason.MALFORMED_CALL), End())
    assert [type(event) for event in out[-3:]] == [Close, Stop, End]


# --- E6, E9, usage, breaks, citations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("streamed", "final", "deltas"),
    [
        (["ab"], "abcd", ["ab", "cd"]),
        (["ab", "cd"], "abcd", ["ab", "cd"]),
        ([], "abcd", ["abcd"]),
        (["ab"], "xy", ["ab"]),
        (["abcd"], "ab", ["abcd"]),
        (["ab"], "", ["ab"]),
        ([], "", []),
        (["ab"], None, ["ab"]),
    ],
)
@pytest.mark.parametrize("kind", [TEXT, TOOL])
def test_a_final_completes_what_was_streamed(
    kind: BlockKind, streamed: list[str], final: str | None, deltas: list[str]
) -> None:
    """E6: of a contradiction what was streamed is kept; it cannot be taken back."""
    out = run(
        Open(b=0, kind=kind, meta=Meta(call_id="c")),
        *(Delta(b=0, s=piece) for piece in streamed),
        Close(b=0, final=final),
    )
    assert [event.s for event in out if isinstance(event, Delta)] == deltas
    assert Close(b=0) in out


def test_empty_deltas_are_dropped() -> None:
    """E9."""
    assert of_type(run(Open(b=0, kind=TEXT), Delta(b=0, s=""), Delta(b=0, s="a")), Delta) == [Delta(b=0, s="a")]


def test_usage_is_cumulative() -> None:
    """Corpus 146: what a later event leaves out is not forgotten."""
    out = run(
        Start(),
        Usage(tokens=Tokens(input=100, cached=80, output=1)),
        Usage(tokens=Tokens(output=60)),
        finish=False,
    )
    assert out[-1] == Usage(tokens=Tokens(input=100, cached=80, output=60))


def test_part_breaks_stand_between_parts_only() -> None:
    """Corpus 126: none before, none at the end, none twice."""
    out = run(
        Open(b=0, kind=REASONING),
        PartBreak(b=0),
        Delta(b=0, s="a"),
        PartBreak(b=0),
        PartBreak(b=0),
        Delta(b=0, s=""),
        Delta(b=0, s="b"),
        PartBreak(b=0),
        Close(b=0),
        finish=False,
    )
    assert out[2:] == [Delta(b=0, s="a"), PartBreak(b=0), Delta(b=0, s="b"), Close(b=0)]


def test_citations_of_a_whole_block_get_its_length() -> None:
    """3.5: Claude cites by blocks; the others count."""
    whole = Annotation(kind="url", url="u", start=0, end=-1)
    counted = Annotation(kind="url", url="v", start=1, end=2)
    out = run(
        Open(b=0, kind=TEXT),
        Ann(b=0, annotation=whole),
        Delta(b=0, s="ab"),
        Ann(b=0, annotation=counted),
        Delta(b=0, s="c"),
        Close(b=0),
        finish=False,
    )
    assert out[3:] == [
        Ann(b=0, annotation=counted),
        Delta(b=0, s="c"),
        Ann(b=0, annotation=Annotation(kind="url", url="u", start=0, end=3)),
        Close(b=0),
    ]
    assert whole.end == -1


# --- any soup --------------------------------------------------------------------------------------------------------

# Few of each, so that events meet.
BLOCKS = st.sampled_from([0, 0, 1, 2, -1])
CHOICES = st.sampled_from([0, 0, 0, 1])
KINDS = st.sampled_from([TEXT, TOOL, REASONING, REASONING, *BlockKind])
TEXTS = st.sampled_from(["", "a", "bc"])


class Soup(RuleBasedStateMachine):
    """Any events in any order go in; what comes out keeps the invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.normalizer = Normalizer(make_context())
        self.out: list[IREvent] = []

    def feed(self, event: IREvent) -> None:
        self.out += self.normalizer.feed([event])

    @rule(id=TEXTS)
    def start(self, id: str) -> None:
        self.feed(Start(id=id))

    @rule(b=BLOCKS, choice=CHOICES, kind=KINDS, call_id=TEXTS)
    def open(self, b: int, choice: int, kind: BlockKind, call_id: str) -> None:
        self.feed(Open(b=b, kind=kind, meta=Meta(call_id=call_id), choice=choice))

    @rule(b=BLOCKS, choice=CHOICES, text=TEXTS)
    def delta(self, b: int, choice: int, text: str) -> None:
        self.feed(Delta(b=b, s=text, choice=choice))

    @rule(b=BLOCKS, choice=CHOICES)
    def part_break(self, b: int, choice: int) -> None:
        self.feed(PartBreak(b=b, choice=choice))

    @rule(b=BLOCKS, choice=CHOICES)
    def signature(self, b: int, choice: int) -> None:
        self.feed(SigEvent(b=b, sig=SIG, choice=choice))

    @rule(b=BLOCKS, choice=CHOICES, end=st.integers(-1, 2))
    def citation(self, b: int, choice: int, end: int) -> None:
        self.feed(Ann(b=b, annotation=Annotation(kind="url", url="u", start=0, end=end), choice=choice))

    @rule(b=BLOCKS, choice=CHOICES, final=st.one_of(st.none(), st.sampled_from(["", "a", "abc", "bcbcx"])))
    def close(self, b: int, choice: int, final: str | None) -> None:
        self.feed(Close(b=b, final=final, choice=choice))

    @rule(count=st.one_of(st.none(), st.integers(0, 9)))
    def usage(self, count: int | None) -> None:
        self.feed(Usage(tokens=Tokens(output=count)))

    @rule(choice=CHOICES, reason=st.sampled_from(list(StopReason)))
    def stop(self, choice: int, reason: StopReason) -> None:
        self.feed(Stop(reason=reason, choice=choice))

    @rule()
    def ping(self) -> None:
        self.feed(Ping())

    @rule(error=st.booleans(), likely=st.integers(0, 3))
    def terminal(self, error: bool, likely: int) -> None:
        if not likely:
            self.feed(Err(status=500, message="x") if error else End())

    @invariant()
    def holds(self) -> None:
        check(self.out)

    def teardown(self) -> None:
        self.out += self.normalizer.finish()
        check(self.out)
        assert isinstance(self.out[-1], End | Err)


def check(events: list[IREvent]) -> None:
    """E1 to E9 of the beginning of an answer."""
    opened: dict[int, BlockKind] = {}
    choice_of: dict[int, int] = {}
    still_open: set[int] = set()
    broken: set[int] = set()
    streamed: set[int] = set()
    stopped: dict[int, StopReason] = {}
    call_ids: set[str] = set()
    ended = False
    for place, event in enumerate(events):
        assert not ended, "E5"
        if isinstance(event, Start):
            assert place == 0, "E1"
            continue
        if isinstance(event, Err):
            ended = True
            assert not still_open, "E7"
            continue
        assert place > 0, "E1"
        if stopped:
            assert isinstance(event, Usage | Ping | End | Stop), "E4"
        match event:
            case Open():
                assert event.b == len(opened), "E2"
                opened[event.b] = event.kind
                choice_of[event.b] = event.choice
                still_open.add(event.b)
                if event.kind in (TOOL, BlockKind.CUSTOM_TOOL):
                    assert event.meta.call_id
                    assert event.meta.call_id not in call_ids
                    call_ids.add(event.meta.call_id)
            case SigEvent() if event.b == -1:
                pass
            case Delta() | Ann() | SigEvent() | PartBreak() | Close():
                assert event.b in still_open, "E2"
                assert event.choice == choice_of[event.b]
                if isinstance(event, Delta):
                    assert event.s, "E9"
                    streamed.add(event.b)
                    broken.discard(event.b)
                elif isinstance(event, PartBreak):
                    assert event.b in streamed
                    assert event.b not in broken
                    broken.add(event.b)
                elif isinstance(event, Ann):
                    assert event.annotation.end >= 0
                elif isinstance(event, Close):
                    assert event.final is None
                    assert event.b not in broken
                    still_open.discard(event.b)
            case Stop():
                assert event.choice not in stopped, "E4"
                assert event.reason is not StopReason.CANCELLED
                stopped[event.choice] = event.reason
                tools = {opened[b] for b in opened if choice_of[b] == event.choice} & {TOOL, BlockKind.CUSTOM_TOOL}
                if event.reason is StopReason.TOOL_USE:
                    assert tools, "E8"
                assert not (tools and event.reason is StopReason.STOP), "E8"
            case End():
                ended = True
                assert not still_open, "E7"
                assert stopped
            case _:
                pass


TestSoup = Soup.TestCase
TestSoup.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
