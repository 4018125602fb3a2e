"""The built-in scheduler: fair, deterministic, bounded."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.credentials.model import Credential
from cpa.scheduling import round_robin
from cpa.scheduling.round_robin import RoundRobin
from cpa.types import Scheduler


def credentials(*names: str, provider: str = "p") -> list[Credential]:
    return [Credential(id=name, provider=provider, label=name) for name in names]


def picks(scheduler: Scheduler, candidates: list[Credential], count: int, model: str = "m") -> str:
    """The ids of so many picks in a row."""
    return "".join(scheduler.pick(candidates, model=model).id for _ in range(count))


def test_candidates_take_turns_in_the_order_of_their_ids() -> None:
    """Whatever order they come in: files are reordered, ids are not."""
    scheduler = RoundRobin()
    assert picks(scheduler, credentials("c", "a", "b"), 4) == "abca"
    assert picks(scheduler, credentials("b", "c", "a"), 3) == "bca"


def test_single_candidate_is_picked() -> None:
    """And leaves no trace, for it is the usual case."""
    assert picks(RoundRobin(), credentials("a"), 3) == "aaa"


def test_each_model_has_a_turn_of_its_own() -> None:
    """A busy model does not decide who serves a rare one."""
    scheduler = RoundRobin()
    assert picks(scheduler, credentials("a", "b"), 1, "one") == "a"
    assert picks(scheduler, credentials("a", "b"), 1, "two") == "a"
    assert picks(scheduler, credentials("a", "b"), 2, "one") == "ba"


def test_each_set_of_providers_has_a_turn_of_its_own() -> None:
    """A router that restricts to one provider does not disturb the others."""
    scheduler = RoundRobin()
    ours, theirs = credentials("a", "b"), credentials("c", "d", provider="q")
    assert picks(scheduler, ours, 1) == "a"
    assert picks(scheduler, ours + theirs, 1) == "a"
    assert picks(scheduler, theirs + ours, 2) == "bc"
    assert picks(scheduler, ours, 1) == "b"


def test_picks_over_several_providers_are_spread_per_credential() -> None:
    """Proxy 4.2: a provider with two keys gets two of three requests."""
    mixed = credentials("a", "b") + credentials("c", provider="q")
    assert Counter(picks(RoundRobin(), mixed, 9)) == {"a": 3, "b": 3, "c": 3}


def test_a_failing_credential_does_not_starve_its_neighbour() -> None:
    """Each request tries *a*, which fails, and picks again among the rest: the rest must share the load evenly."""
    scheduler = RoundRobin()
    everybody = credentials("a", "b", "c")
    served: Counter[str] = Counter()
    for _ in range(60):
        left = list(everybody)
        picked = scheduler.pick(left, model="m")
        if picked.id == "a":
            left.remove(picked)
            picked = scheduler.pick(left, model="m")
        served[picked.id] += 1
    assert served == {"b": 30, "c": 30}


def test_a_newcomer_takes_its_place_in_the_turn() -> None:
    """After a reload the turn goes on where it was."""
    scheduler = RoundRobin()
    assert picks(scheduler, credentials("a", "c"), 1) == "a"
    assert picks(scheduler, credentials("a", "b", "c"), 3) == "bca"
    assert picks(scheduler, credentials("b", "c"), 2) == "bc"


@given(st.integers(1, 12), st.integers(1, 60))
def test_nobody_is_picked_twice_more_than_anybody_else(size: int, count: int) -> None:
    """Fairness at every moment, not only in the long run."""
    scheduler = RoundRobin()
    served = Counter({f"{index:02}": 0 for index in range(size)})
    candidates = credentials(*served)
    for _ in range(count):
        served[scheduler.pick(candidates, model="m").id] += 1
    assert max(served.values()) - min(served.values()) <= 1


def test_table_is_bounded_and_forgets_the_eldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that nobody asks for any more do not stay for ever; those in use do."""
    monkeypatch.setattr(round_robin, "MAX_CURSORS", 3)
    scheduler = RoundRobin()
    pair = credentials("a", "b")
    for model in ("one", "two", "three"):
        assert picks(scheduler, pair, 1, model) == "a"
    assert picks(scheduler, pair, 1, "one") == "b"  # used: now the youngest
    assert picks(scheduler, pair, 1, "four") == "a"  # "two" goes
    assert picks(scheduler, pair, 1, "one") == "a"
    assert picks(scheduler, pair, 1, "two") == "a"  # began anew; "three" goes
    assert picks(scheduler, pair, 1, "four") == "b"


def test_every_strategy_means_taking_turns_until_others_exist() -> None:
    """A plugin's delegation to another strategy must not fail."""
    scheduler: Scheduler = RoundRobin()
    assert scheduler.pick(credentials("b", "a"), model="m", strategy="fill-first").id == "a"


def test_fill_first_stays_with_the_first_and_moves_no_cursor() -> None:
    """A plugin scheduler may ask for it, for one pick."""
    scheduler = RoundRobin()
    some = credentials("c", "a", "b")
    assert [scheduler.pick(some, model="m", strategy="fill-first").id for _ in range(3)] == ["a", "a", "a"]
    assert picks(scheduler, some, 2) == "ab"
