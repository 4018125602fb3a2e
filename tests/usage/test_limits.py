"""Limits by the clock: what is counted when, what is reserved, and when a client may come back."""

from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.schema import ClientLimits
from cpa.errors import LimitExceeded
from cpa.usage import limit_store
from cpa.usage.identity import client_id
from cpa.usage.limit_store import Held, MemoryLimitStore, Span
from cpa.usage.limits import NOT_LIMITED, OUTPUT_TOKENS, Limiter
from cpa.usage.record import Tokens
from cpa.usage.writing import Charge
from tests.usage.support import record

NOON = datetime(2026, 11, 21, 12, 0, 10, tzinfo=UTC).timestamp()
KEY = "client-key-of-the-tests"
BODY = b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":100}'


class Clock:
    """Wall clock of a test."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def limiter(clock: Clock, *limits: ClientLimits, store: MemoryLimitStore | None = None) -> Limiter:
    """With *limits*."""
    made = Limiter(store, clock=clock)
    made.configure(limits)
    return made


def ask(made: Limiter, key: str = KEY, body: bytes = BODY) -> str:
    """One short request. Returns: "" or the refusal."""
    try:
        with made.admit(key, body):
            return ""
    except LimitExceeded as exc:
        return exc.message


def refusal(made: Limiter, key: str = KEY) -> LimitExceeded:
    """Of a request that must be refused."""
    with pytest.raises(LimitExceeded) as caught:
        made.admit(key, BODY)
    return caught.value


def test_a_minute_begins_with_its_first_request() -> None:
    """And ends sixty seconds later, to the second."""
    clock = Clock()
    made = limiter(clock, ClientLimits(requests_per_minute=2))
    assert [ask(made), ask(made)] == ["", ""]
    clock.now += 20.5
    error = refusal(made)
    assert error.message == (
        "client key clie...ests has used up its limit requests-per-minute: 2 of 2; "
        "it resets at 2026-11-21T12:01:10Z, in 40 s"
    )
    assert (error.http_status, error.code, error.retry_after_s, error.retryable) == (
        429,
        "rate_limit_exceeded",
        40,
        True,
    )
    clock.now += 39.4
    assert refusal(made).retry_after_s == 1
    clock.now += 0.1
    assert ask(made) == ""


def test_a_day_is_one_of_utc() -> None:
    """It resets at midnight."""
    clock = Clock()
    made = limiter(clock, ClientLimits(requests_per_day=1))
    assert ask(made) == ""
    assert refusal(made).retry_after_s == 12 * 3600 - 10
    clock.now = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    assert ask(made) == ""


def test_a_total_never_resets() -> None:
    """Neither time nor code invite another try."""
    clock = Clock()
    made = limiter(clock, ClientLimits(requests_total=1))
    assert ask(made) == ""
    clock.now += 1e9
    error = refusal(made)
    assert (error.retry_after_s, error.code, error.retryable) == (None, "insufficient_quota", False)


def test_the_limit_that_lasts_longest_is_told() -> None:
    """Who comes back when it resets is let in."""
    clock = Clock()
    made = limiter(clock, ClientLimits(requests_per_minute=1, requests_per_day=1, max_concurrent=9))
    assert ask(made) == ""
    assert "limit requests-per-day: 1 of 1" in refusal(made).message


def test_refused_requests_count_nowhere() -> None:
    """Somebody who hammers does not lengthen anything."""
    clock = Clock()
    made = limiter(clock, ClientLimits(requests_per_minute=1, requests_per_day=3))
    ask(made)
    for _ in range(10):
        refusal(made)
    assert made.store.count(client_id(KEY).id, Span.DAY, clock()).requests == 1


def test_tokens_are_reserved_and_then_counted_as_they_were() -> None:
    """Prompt and answer while it runs; afterwards what the record says, of every attempt."""
    clock = Clock()
    made = limiter(clock, ClientLimits(tokens_per_day=1000))
    client = client_id(KEY).id
    with made.admit(KEY, BODY):
        assert made.store.held(client) == Held(running=1, tokens=105)
        made.record(record(1, tokens=Tokens(input_tokens=3, output_tokens=4, total_tokens=7)))
        made.record(record(2, tokens=Tokens(total_tokens=10), estimated=Tokens(output_tokens=5, total_tokens=5)))
    assert made.store.held(client) == Held()
    assert [made.store.count(client, span, clock()).tokens for span in Span] == [22, 22, 22]


def test_requests_without_a_bound_reserve_a_usual_answer() -> None:
    """And none reserves more than its whole limit, or it could never run."""
    clock = Clock()
    made = limiter(clock, ClientLimits(tokens_total=10_000))
    with made.admit(KEY, b"{}"):
        assert made.store.held(client_id(KEY).id).tokens == OUTPUT_TOKENS
    made = limiter(clock, ClientLimits(tokens_total=10_000, tokens_per_minute=50))
    with made.admit(KEY, BODY):
        assert made.store.held(client_id(KEY).id).tokens == 50
        assert refusal(made).retry_after_s == 1.0
    assert ask(made) == ""


def test_the_last_request_may_need_more_than_was_left() -> None:
    """Nobody knows before; the next one is refused until the reset."""
    clock = Clock()
    made = limiter(clock, ClientLimits(tokens_per_minute=50))
    assert ask(made) == ""
    made.record(record(1, tokens=Tokens(total_tokens=49)))
    assert ask(made) == ""
    made.record(record(2, tokens=Tokens(total_tokens=500)))
    assert "limit tokens-per-minute: 549 of 50" in refusal(made).message
    clock.now += 60
    assert ask(made) == ""


def test_a_stream_that_ends_later_counts_in_the_span_of_its_end() -> None:
    """What was paid is not forgotten because a minute was over."""
    clock = Clock()
    made = limiter(clock, ClientLimits(tokens_per_minute=50))
    with made.admit(KEY, BODY):
        clock.now += 3600
        made.record(record(1, tokens=Tokens(total_tokens=60)))
    assert refusal(made).retry_after_s == 60


def test_a_clock_that_is_set_back_blocks_nobody() -> None:
    """Spans that lie in the future are none."""
    clock = Clock()
    made = limiter(clock, ClientLimits(requests_per_minute=1, requests_per_day=1))
    ask(made)
    clock.now -= 86_400 * 3
    assert ask(made) == ""


def test_whoever_is_not_named_costs_nothing() -> None:
    """The same object for everybody, and no counter."""
    clock = Clock()
    made = limiter(clock, ClientLimits(keys=("guest-*", "one"), requests_total=1))
    assert made.admit(KEY, BODY) is NOT_LIMITED
    assert made.admit("gues", BODY) is NOT_LIMITED
    assert ask(made, "guest-") == ask(made, "one") == ask(made, "guest-a") == ""
    assert refusal(made, "guest-a")
    made.record(record(1))
    assert made.store.count(client_id(KEY).id, Span.TOTAL, clock()).tokens == 0
    made.configure(())
    assert not made.active
    assert made.admit("one", BODY) is NOT_LIMITED


def test_patterns_are_texts_but_for_their_stars() -> None:
    """Keys hold dots and brackets."""
    clock = Clock()
    made = limiter(clock, ClientLimits(keys=("a.b[*]",), requests_total=1))
    assert made.admit("axb[1]", BODY) is NOT_LIMITED
    assert made.admit("a.b[\n]", BODY) is not NOT_LIMITED


def test_running_requests_are_given_back_however_they_end() -> None:
    """By exceptions too; never below nothing."""
    clock = Clock()
    made = limiter(clock, ClientLimits(max_concurrent=2))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(made.admit(KEY, BODY))
        assert "limit max-concurrent: 2 of 2 are taken by running requests" in refusal(made).message
    with pytest.raises(KeyError), made.admit(KEY, BODY):
        raise KeyError
    assert made.store.held(client_id(KEY).id) == Held()


def test_what_is_added_is_told_for_the_ledger() -> None:
    """Every span, with where it began, so that a restart goes on there."""
    clock, told = Clock(), list[Charge]()
    made = limiter(clock, ClientLimits(requests_per_day=2), store=MemoryLimitStore(told.extend))
    ask(made)
    assert {(item.span, item.start_s, item.requests, item.tokens) for item in told} == {
        ("minute", int(NOON), 1, 0),
        ("day", int(NOON) // 86_400 * 86_400, 1, 0),
        ("total", 0, 1, 0),
    }
    store = MemoryLimitStore()
    store.restore([*told, Charge(client="x", span="from a later version", start_s=0, requests=1, tokens=1)])
    again = limiter(clock, ClientLimits(requests_per_day=2), store=store)
    assert ask(again) == ""
    assert refusal(again)


def test_restoring_leaves_what_was_counted_meanwhile() -> None:
    """A reload that brings the first limits must not undo anything."""
    store = MemoryLimitStore()
    store.add("c", requests=5, now=NOON)
    store.restore([Charge(client="c", span="total", start_s=0, requests=1, tokens=1)])
    assert store.count("c", Span.TOTAL, NOON).requests == 5


def test_clients_are_forgotten_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was away longest, unless it is being served."""
    monkeypatch.setattr(limit_store, "MAX_CLIENTS", 3)
    store = MemoryLimitStore()
    store.hold("running", running=1, tokens=1)
    for name in "abc":
        store.add(name, requests=1, now=NOON)
    assert len(store) == 3
    assert [store.count(name, Span.TOTAL, NOON).requests for name in "abc"] == [0, 1, 1]
    assert store.held("running") == Held(running=1, tokens=1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 90), st.integers(0, 60)), max_size=30))
def test_no_span_ever_has_more_requests_than_allowed(steps: list[tuple[bool, int, int]]) -> None:
    """Whatever the order of arrivals, ends and time."""
    clock = Clock()
    made = limiter(clock, ClientLimits(requests_per_minute=3, tokens_per_minute=100, max_concurrent=2))
    client = client_id(KEY).id
    running = ExitStack()
    with running:
        for arrives, seconds, tokens in steps:
            clock.now += seconds
            if not arrives:
                running.pop_all().close()
                made.record(record(1, tokens=Tokens(total_tokens=tokens)))
                continue
            try:
                running.enter_context(made.admit(KEY, b'{"max_tokens":40}'))
            except LimitExceeded:
                continue
            count, held = made.store.count(client, Span.MINUTE, clock()), made.store.held(client)
            assert count.requests <= 3
            assert held.running <= 2
            assert count.tokens + held.tokens < 100 + 40
    assert made.store.held(client) == Held()
