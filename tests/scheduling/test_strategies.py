"""Turns, weights, the first: exact over long runs, whatever happens to whom meanwhile."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.schema import Strategy
from cpa.scheduling import strategies
from cpa.scheduling.settings import SchedulingSettings
from cpa.scheduling.strategies import Cursors
from tests.scheduling.support import World, candidates, credential, failure

FILL = SchedulingSettings(strategy=Strategy.FILL_FIRST)
WEIGHTED = SchedulingSettings(strategy=Strategy.WEIGHTED_ROUND_ROBIN)


def test_credentials_take_turns_in_the_order_of_their_ids() -> None:
    """Whatever order they come in."""
    world = World(candidates("c", "a", "b"))
    assert world.served(7) == list("abcabca")


def test_turns_are_exact_over_a_long_run() -> None:
    """3,000 requests over 50 credentials: 60 each, never one twice before all others."""
    world = World(candidates(*(f"c{number:02}" for number in range(50))))
    served = world.served(3000)
    assert set(Counter(served).values()) == {60}
    assert all(a != b for a, b in pairwise(served))


def test_each_model_has_turns_of_its_own() -> None:
    """A busy model does not decide who serves a rare one; a suffix is no model."""
    world = World(candidates("a", "b"))
    assert [world.serve("one"), world.serve("two"), world.serve("one(high)"), world.serve("two")] == list("aabb")


def test_turns_go_on_over_a_reload() -> None:
    """With new objects and another credential between."""
    world = World(candidates("a", "c"))
    assert world.served(1) == ["a"]
    world.configure(candidates("a", "b", "c"))
    assert world.served(3) == list("bca")


def test_a_blocked_one_leaves_the_turns_and_comes_back() -> None:
    """The others go on as if it had never been there."""
    world = World(candidates("a", "b", "c"))
    assert world.fail(failure(429, retry_after="10")) == "a"
    assert world.served(4) == list("bcbc")
    world.clock.advance(11)
    assert sorted(world.served(3)) == list("abc")


def test_picks_over_several_providers_are_spread_per_credential() -> None:
    """Proxy 4.2: a provider with two of three credentials gets two of three requests, in turns of its own."""
    world = World(candidates("a", "b", credential("z", provider="q")))
    served = world.served(9)
    assert Counter(served) == {"a": 3, "b": 3, "z": 3}
    assert served == list("abzabzabz")


def test_fill_first_stays_with_the_first_until_it_is_blocked() -> None:
    """And returns to it."""
    world = World(candidates("b", "a", "c"), FILL)
    assert world.served(3) == list("aaa")
    assert world.fail(failure(429, retry_after="10")) == "a"
    assert world.served(3) == list("bbb")
    world.clock.advance(11)
    assert world.served(2) == list("aa")


def test_fill_first_takes_providers_in_the_registrys_order() -> None:
    """Not by name: the one with more credentials comes first (proxy 2.4)."""
    world = World(candidates(credential("x", provider="z"), credential("y", provider="z"), "a"), FILL)
    assert world.served(2) == ["x", "x"]


def test_weights_are_smooth() -> None:
    """5, 1, 1: the well-known order, not five in a row and then the others; ties by id."""
    pool = candidates(credential("a", weight=5), credential("b", weight=1), credential("c", weight=1))
    assert World(pool, WEIGHTED).served(14) == list("aabacaa") * 2


@given(st.lists(st.integers(min_value=0, max_value=7), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_weights_are_exact_and_as_the_plain_algorithm_has_them(weights: list[int]) -> None:
    """In every full cycle each one gets its weight; and the order is that of the textbook."""
    names = "abcdef"[: len(weights)]
    world = World(candidates(*(credential(n, weight=w) for n, w in zip(names, weights, strict=True))), WEIGHTED)
    total = sum(weights)
    counters = dict.fromkeys(names, 0)
    expected = []
    for _ in range(2 * total):
        for name, weight in zip(names, weights, strict=True):
            counters[name] += weight
        best = max((n for n, w in zip(names, weights, strict=True) if w), key=lambda n: (counters[n], -ord(n)))
        counters[best] -= total
        expected.append(best)
    assert world.served(2 * total) == expected
    if not total:
        assert world.serve() == ""


def test_weights_of_blocked_ones_do_not_count() -> None:
    """The counters of the others begin anew, because the weights are others."""
    pool = candidates(credential("a", weight=3), credential("b", weight=2), credential("c", weight=1))
    world = World(pool, WEIGHTED)
    assert world.fail(failure(429, retry_after="60")) == "a"
    assert world.served(6) == list("bcbbcb")


def test_only_the_best_priority_with_somebody_ready_takes_part() -> None:
    """Lower ones are spill-over."""
    world = World(candidates(credential("a", priority=0), credential("b", priority=9), credential("c", priority=9)))
    assert world.served(4) == list("bcbc")
    world.fail(failure(429, retry_after="10"))
    world.fail(failure(429, retry_after="20"))
    assert world.served(2) == list("aa")
    world.clock.advance(11)
    assert world.served(2) == list("bb")


def test_a_plugin_may_have_another_strategy_for_one_pick() -> None:
    """plugin-abi 4.5."""
    world = World(candidates("a", "b"))
    assert world.served(1) == ["a"]
    for _ in range(3):
        picked = world.select().pick(strategy="fill-first")
        assert picked is not None
        assert picked.credential.id == "a"


def test_cursors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of models come from clients."""
    monkeypatch.setattr(strategies, "MAX_CURSORS", 3)
    cursors = Cursors()
    for number in range(10):
        cursors.picked((str(number), 0), "a")
        cursors.slot((str(number), 0))
    assert len(cursors) == 6
    assert (cursors.last(("9", 0)), cursors.last(("0", 0))) == ("a", "")


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_whoever_is_picked_is_ready_and_nobody_ready_is_passed_over(data: st.DataObject) -> None:
    """Any order of failures, successes and time: the index agrees with the records, and turns starve nobody."""
    strategy = data.draw(st.sampled_from(list(Strategy)))
    names = "abcdef"
    pool = candidates(*(credential(n, priority=ord(n) % 2, provider="pq"[ord(n) % 3 == 0]) for n in names))
    world = World(pool, SchedulingSettings(strategy=strategy))
    health = world.scheduling.health
    for _ in range(30):
        step = data.draw(st.sampled_from(["serve", "serve", "fail", "wait", "reset"]))
        if step == "wait":
            world.clock.advance(data.draw(st.sampled_from([0.5, 2, 70])))
        elif step == "reset":
            health.reset(data.draw(st.sampled_from(names)))
        else:
            ready = {one.credential.id for one in pool if health.blocked(one.credential.id, "m") is None}
            selection = world.select()
            picked = selection.pick()
            if picked is None:
                assert not ready
                continue
            found = picked.credential.id
            if ready:
                best = max(one.credential.priority for one in pool if one.credential.id in ready)
                assert found in ready
                assert picked.credential.priority == best
            if step == "fail":
                selection.failed(failure(data.draw(st.sampled_from([429, 500, 401]))))
            else:
                selection.succeeded()
            selection.close()
