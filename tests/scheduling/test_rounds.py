"""Rounds, waits, probes and last words (proxy 4.1, 4.4 [B], 4.6, 4.8)."""

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.schema import ErrorAction, RequestScopedError, Strategy
from cpa.errors import NoCredential, UpstreamConnectError, UpstreamHungUp, UpstreamTimeout
from cpa.scheduling.rounds import Rounds, go_seconds
from cpa.scheduling.settings import SchedulingSettings
from cpa.types import Candidate
from tests.scheduling.support import EXECUTOR, World, candidates, credential, failure, tried

NEVER_WAIT = SchedulingSettings(max_retry_interval_s=0)
UNCOOLED = SchedulingSettings(disable_cooling=True)


def refusal(selection: Rounds) -> NoCredential:
    """Why nobody could be asked."""
    error = selection.refusal()
    assert isinstance(error, NoCredential)
    return error


@pytest.mark.parametrize("status", [401, 402, 403, 404, 408, 429, 500, 502, 503, 504, 529])
def test_failures_of_credentials_ask_each_one_once(status: int) -> None:
    """In a round."""
    selection = World(candidates("a", "b", "c"), NEVER_WAIT).select()
    assert tried(selection, failure(status)) == list("abc")


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_faults_of_the_request_end_it_at_once(status: int) -> None:
    """And nobody is marked."""
    world = World(candidates("a", "b"))
    selection, error = world.select(), failure(status)
    assert tried(selection, error) == ["a"]
    assert selection.pause() is None
    assert selection.refusal() is error
    assert not list(world.scheduling.health.open_windows())


@pytest.mark.parametrize("error", [UpstreamHungUp("cut"), UpstreamTimeout("slow")])
def test_broken_connections_rotate_without_a_trace_and_without_another_round(error: Any) -> None:
    """They say nothing of the credential (4.3 no. 6), and have no status."""
    world = World(candidates("a", "b"))
    selection = world.select()
    assert tried(selection, error) == ["a", "b"]
    assert selection.pause() is None
    assert not list(world.scheduling.health.open_windows())


def test_refused_connections_cool_as_any_error_does() -> None:
    """Nobody was there: that may last."""
    world = World(candidates("a"))
    selection = world.select()
    tried(selection, UpstreamConnectError("refused"))  # type: ignore[arg-type]  # any error will do
    assert [record.kind for _, _, record in world.scheduling.health.open_windows()] == ["transient"]


def test_without_cooldowns_rounds_follow_each_other_at_once() -> None:
    """R = 3: four rounds."""
    world = World(candidates("a", "b"), UNCOOLED)
    selection, rounds = world.select(), []
    while True:
        rounds.append(tried(selection, failure(500)))
        pause = selection.pause()
        if pause is None:
            break
        assert pause == 0
    assert rounds == [["a", "b"]] * 4


@pytest.mark.parametrize("status", [401, 402, 404, 529])
def test_some_statuses_end_after_one_round(status: int) -> None:
    """Only those of 4.6 are worth another."""
    selection = World(candidates("a"), UNCOOLED).select()
    tried(selection, failure(status))
    assert selection.pause() is None


def test_a_round_waits_for_the_nearest_recovery() -> None:
    """1 s, 2 s, 4 s: the windows of quota without a hint."""
    world = World(candidates("a"))
    selection, pauses = world.select(), []
    while True:
        assert tried(selection, failure(429)) == ["a"]
        pause = selection.pause()
        if pause is None:
            break
        pauses.append(pause)
        world.clock.advance(pause)
    assert pauses == [1, 2, 4]


def test_waits_have_jitter_but_never_more_than_the_longest_wait() -> None:
    """A quarter of the wait, two seconds, the limit: whatever is least."""
    for hint, longest, expected in [("4", 30, 5), ("20", 30, 22), ("29", 30, 30)]:
        world = World(candidates("a"), SchedulingSettings(max_retry_interval_s=longest))
        world.scheduling.jitter = lambda: 1.0
        selection = world.select()
        tried(selection, failure(429, retry_after=hint))
        assert selection.pause() == pytest.approx(expected)


@pytest.mark.parametrize(("longest", "hint"), [(30, "31"), (0, "1")])
def test_a_wait_that_does_not_fit_is_not_begun(longest: int, hint: str) -> None:
    """Zero never waits."""
    selection = World(candidates("a"), SchedulingSettings(max_retry_interval_s=longest)).select()
    error = failure(429, retry_after=hint)
    tried(selection, error)
    assert selection.pause() is None
    assert selection.refusal() is error


def test_nobody_waits_when_another_one_is_ready() -> None:
    """`max-retry-credentials` left one over."""
    world = World(candidates("a", "b"), SchedulingSettings(max_retry_credentials=1))
    selection = world.select()
    assert tried(selection, failure(429, retry_after="5")) == ["a"]
    assert selection.pause() == 0
    assert tried(selection, failure(429, retry_after="7")) == ["b"]
    assert selection.pause() == 5


def test_without_cooldowns_the_errors_own_time_is_waited_for() -> None:
    """4.6: the error's own retry time is used the same way."""
    selection = World(candidates("a"), UNCOOLED).select()
    tried(selection, failure(429, retry_after="3"))
    assert selection.pause() == 3


def test_rounds_are_for_those_who_still_have_some() -> None:
    """`request-retry` of a credential counts, also 0."""
    pool = candidates(credential("a", request_retry=0), credential("b", request_retry=2), credential("c"))
    selection = World(pool, attrs.evolve(UNCOOLED, request_retry=1)).select()
    assert tried(selection, failure(500)) == ["a", "b", "c"]
    assert selection.pause() == 0
    assert sorted(tried(selection, failure(500))) == ["b", "c"]
    assert selection.pause() == 0
    assert tried(selection, failure(500)) == ["b"]
    assert selection.pause() is None


def test_an_operators_stop_ends_the_rounds_too() -> None:
    """4.7."""
    rule = RequestScopedError(status=503, match=("maintenance",), action=ErrorAction.STOP)
    world = World(candidates(credential("a", error_rules=(rule,)), "b"), UNCOOLED)
    selection = world.select()
    assert tried(selection, failure(503, b"maintenance tonight")) == ["a"]
    assert selection.pause() is None


# --- nobody is left ------------------------------------------------------------------------------------------------


def test_exhausted_quota_everywhere_is_a_429_with_the_earliest_recovery() -> None:
    """Proxy 1.15, member by member."""
    world = World(candidates("a", "b"))
    world.fail(failure(429, b'{"error":{"message":"slow down"}}', retry_after="100"), "big")
    world.fail(failure(429, b'{"error":{"message":"slow down"}}', retry_after="59"), "big")
    selection = world.select("big")
    assert selection.pick() is None
    assert selection.pause() is None
    error = refusal(selection)
    assert (error.http_status, error.code, error.retry_after_s) == (429, "model_cooldown", 59)
    assert str(error) == "All credentials for model big are cooling down via provider p"
    assert dict(error.details) == {
        "model": "big",
        "provider": "p",
        "reset_time": "59s",
        "reset_seconds": 59,
        "last_upstream_error": "429 slow down",
    }


def test_several_providers_are_not_named_in_a_429() -> None:
    """`provider` appears only if there is one."""
    world = World(candidates("a", credential("b", provider="q")))
    for _ in range(2):
        world.fail(failure(429, retry_after="100"))
    selection = world.select()
    assert selection.pick() is None
    assert "provider" not in refusal(selection).details
    assert str(refusal(selection)) == "All credentials for model m are cooling down"


def test_other_reasons_make_it_a_503() -> None:
    """One that is refused is enough."""
    world = World(candidates("a", "b"))
    world.fail(failure(401))
    world.fail(failure(429, retry_after="100"))
    selection = world.select()
    assert selection.pick() is None
    error = refusal(selection)
    assert (error.http_status, error.code, error.retry_after_s) == (503, "auth_unavailable", 100)
    assert str(error) == "auth_unavailable: no auth available (providers=p, model=m)"


def test_short_cooldowns_are_waited_for_instead_of_refused() -> None:
    """A request that comes while everybody cools for a second is served after that second."""
    world = World(candidates("a"))
    world.fail(failure(429))
    selection = world.select()
    assert selection.pick() is None
    assert selection.pause() == 1
    world.clock.advance(1)
    assert selection.pick() is not None


def test_the_last_providers_error_is_the_answer() -> None:
    """Never a made-up one when a provider was reached."""
    world = World(candidates("a", "b"), NEVER_WAIT)
    selection = world.select()
    errors = [failure(500), failure(429)]
    for error in errors:
        assert selection.pick() is not None
        assert selection.failed(error)
    assert selection.pick() is None
    assert selection.pause() is None
    assert selection.refusal() is errors[1]


def test_go_prints_durations_so() -> None:
    """Clients read `reset_time`."""
    assert [go_seconds(s) for s in (1, 59, 60, 3600, 3723)] == ["1s", "59s", "1m0s", "1h0m0s", "1h2m3s"]


# --- probes --------------------------------------------------------------------------------------------------------


def test_one_transient_error_of_the_only_credential_is_no_outage() -> None:
    """Whoever comes next asks it, and a success ends the cooldown."""
    world = World(candidates("a"))
    world.fail(failure(500))
    assert world.scheduling.health.blocked("a", "m") is not None
    assert world.serve() == "a"
    assert world.scheduling.health.blocked("a", "m") is None


def test_one_request_probes_at_a_time() -> None:
    """The others hear 503 until it is back."""
    world = World(candidates("a"))
    world.fail(failure(500))
    first, second = world.select(), world.select()
    assert first.pick() is not None
    assert second.pick() is None
    assert (refusal(second).http_status, refusal(second).retry_after_s) == (503, 1)  # not the rest of the minute
    first.close()
    third = world.select()
    assert third.pick() is not None
    third.close()
    assert len(world.scheduling.probes) == 0


def test_a_failed_probe_does_not_prolong_the_window() -> None:
    """It is a concurrent failure."""
    world = World(candidates("a"))
    world.fail(failure(500))
    until = world.scheduling.health.blocked("a", "m")
    world.clock.advance(30)
    world.fail(failure(500))
    assert world.scheduling.health.blocked("a", "m") == until


def test_quota_and_refusals_are_not_probed() -> None:
    """Asking again would be answered the same."""
    for status in (401, 403, 404, 429):
        world = World(candidates("a"), NEVER_WAIT)
        world.fail(failure(status))
        assert world.select().pick() is None


def test_a_request_goes_on_to_probe_the_others() -> None:
    """No client sees an error that another credential could have served."""
    world = World(candidates("a", "b", "c"), NEVER_WAIT)
    tried(world.select(), failure(500))
    selection = world.select()
    assert tried(selection, failure(500)) == list("abc")


# --- pools of models, streams --------------------------------------------------------------------------------------


def pooled() -> tuple[Candidate, ...]:
    """Two credentials with two models each under one alias."""
    a, b = credential("a"), credential("b")
    return tuple(Candidate(credential=c, model=m, executor=EXECUTOR) for c in (a, b) for m in ("one", "two"))


def pairs(selection: Rounds, error: Any) -> list[tuple[str, str]]:
    """(credential, model) of every attempt."""
    found = []
    while (picked := selection.pick()) is not None:
        found.append((picked.credential.id, picked.model))
        if not selection.failed(error):
            break
    return found


def test_the_next_model_of_a_pool_comes_before_the_next_credential() -> None:
    """And does not count as another credential."""
    world = World(pooled(), SchedulingSettings(max_retry_credentials=2, max_retry_interval_s=0))
    assert pairs(world.select(), failure(503)) == [("a", "one"), ("a", "two"), ("b", "one"), ("b", "two")]


def test_a_pools_cooled_model_is_skipped_and_its_health_kept_by_model() -> None:
    """The credential is ready as long as one of its models is."""
    world = World(pooled(), NEVER_WAIT)
    selection = world.select()
    selection.pick()
    selection.failed(failure(400, b"model not supported"))
    selection.close()
    assert pairs(world.select(), failure(429)) == [("b", "one"), ("b", "two"), ("a", "two")]


def test_a_fault_of_the_request_ends_a_pool() -> None:
    """At once."""
    assert pairs(World(pooled()).select(), failure(400)) == [("a", "one")]


def test_streams_may_begin_anew_as_often_as_configured() -> None:
    """`bootstrap-retries`; whole answers do not."""
    settings = SchedulingSettings(bootstrap_retries=2, request_retry=0, disable_cooling=True)
    for stream, expected in ((True, 3), (False, 1)):
        selection = World(candidates("a"), settings).select(stream=stream)
        count = 0
        while True:
            count += len(tried(selection, UpstreamHungUp("cut")))  # type: ignore[arg-type]  # any error will do
            if selection.pause() is None:
                break
        assert count == expected


def test_streams_do_not_begin_anew_after_a_404() -> None:
    """Only after errors that may pass (4.8)."""
    selection = World(candidates("a"), attrs.evolve(UNCOOLED, bootstrap_retries=5)).select(stream=True)
    tried(selection, failure(404))
    assert selection.pause() is None


def test_pins_and_preferences() -> None:
    """A pin is the only one that may be used; a preference the first one that is."""
    world = World(candidates("a", "b", "c"), NEVER_WAIT)
    assert tried(world.select(pin="b"), failure(500)) == ["b"]
    assert world.served(3, preferred={"p": "c"}) == ["c", "c", "c"]
    world.fail(failure(429), preferred={"p": "c"})
    assert world.serve(preferred={"p": "c"}) in ("a", "b")


def test_after_the_first_byte_the_credential_is_marked_and_nothing_is_tried() -> None:
    """Except for a broken connection."""
    world = World(candidates("a", "b"))
    selection = world.select()
    selection.pick()
    selection.succeeded()
    assert not selection.failed(failure(500), committed=True)
    assert world.scheduling.health.blocked("a", "m") is not None


def test_a_client_that_leaves_touches_nothing() -> None:
    """Neither success nor failure, and the probe is free again."""
    world = World(candidates("a"))
    world.fail(failure(500))
    before = list(world.scheduling.health.open_windows())
    selection = world.select()
    selection.pick()
    selection.close()
    assert list(world.scheduling.health.open_windows()) == before
    assert len(world.scheduling.probes) == 0


STEPS = st.lists(
    st.one_of(
        st.sampled_from([200, 200, 400, 401, 404, 429, 500, 503]),
        st.sampled_from([0.5, 1.0, 30.0, 61.0, 1900.0]),
        st.just("reset"),
        st.just("hold"),
    ),
    max_size=25,
)


@given(
    steps=STEPS,
    strategy=st.sampled_from(Strategy),
    weight=st.integers(0, 2),
    cooling=st.booleans(),
    pin=st.sampled_from(["", "a", "b"]),
)
@settings(max_examples=150, deadline=None)
def test_one_alone_is_picked_as_one_of_many_would_be(
    steps: list[int | float | str], strategy: Strategy, weight: int, cooling: bool, pin: str
) -> None:
    """Pools of one look at no tiers and no turns; cooldowns, probes, rounds and pins are the same."""

    def course(*, long_way: bool) -> list[object]:
        configured = SchedulingSettings(strategy=strategy, disable_cooling=not cooling, request_retry=1)
        world = World(candidates(credential("a", weight=weight)), configured)
        seen: list[object] = []
        held: list[Rounds] = []
        for step in steps:
            if isinstance(step, float):
                world.clock.advance(step)
                continue
            if step == "reset":
                world.scheduling.health.reset("a")
                continue
            selection = world.select(pin=pin)
            if long_way:
                selection._pool._only = None
            picked = selection.pick()
            seen.append(picked is None)
            if step == "hold":  # a probe is on its way, which others have to know
                held.append(selection)
            elif picked is not None and step == 200:
                selection.succeeded()
            elif picked is not None:
                seen.append(selection.failed(failure(int(step))))
                seen.append(selection.pause())
                seen.append(selection.pick() is None)
            if step != "hold":
                seen.append(type(selection.refusal()))
                selection.close()
            seen.append(sorted(world.scheduling.health.of("a")))
        for selection in held:
            selection.close()
        return seen

    assert course(long_way=False) == course(long_way=True)
