"""Explanations that operators can act on."""

from typing import Any

import pytest

from cpa.config.schema import Strategy
from cpa.scheduling.settings import SchedulingSettings
from cpa.scheduling.why import Explanation, State, explain
from tests.scheduling.support import World, candidates, credential, failure


def why(world: World, name: str, model: str = "m") -> Explanation:
    """Of a credential of the pool."""
    one = next(found.credential for found in world.pool if found.credential.id == name)
    return explain(world.scheduler, one, world.pool, model)


def test_ready_ones_take_their_turn() -> None:
    """The usual state."""
    found = why(World(candidates("a", "b", "c")), "a")
    assert (found.state, found.used, found.window) == (State.READY, True, None)
    assert "in turn with 2 others" in found.reason


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "does not accept"), (402, "payment"), (404, "does not know"), (429, "quota"), (500, "failed")],
)
def test_cooling_ones_say_why_and_until_when(status: int, words: str) -> None:
    """With the status."""
    world = World(candidates("a"))
    world.fail(failure(status))
    found = why(world, "a", "m(high)")
    assert (found.state, found.used) == (State.COOLING, False)
    assert words in found.reason
    assert str(status) in found.reason
    assert found.window is not None
    assert "takes its turn again" in found.next
    assert ("probed" in found.next) is (status == 500)


def test_a_running_probe_is_told() -> None:
    """What comes next depends on it."""
    world = World(candidates("a"))
    world.fail(failure(500))
    selection = world.select()
    selection.pick()
    assert "probing" in why(world, "a").next
    selection.close()


def test_a_window_of_the_whole_credential_is_told_as_such() -> None:
    """All models."""
    world = World(candidates("a"))
    world.fail(failure(429, b'{"error":{"type":"usage_limit_reached"}}', retry_after="90"))
    assert "all models" in why(world, "a", "other").reason


@pytest.mark.parametrize(
    ("fields", "settings", "state"),
    [
        ({"priority": -1}, {}, State.STANDBY),
        ({}, {"strategy": Strategy.FILL_FIRST}, State.STANDBY),
        ({"weight": 0}, {"strategy": Strategy.WEIGHTED_ROUND_ROBIN}, State.NEVER),
        ({"weight": 0}, {}, State.READY),
    ],
)
def test_others_come_first(fields: dict[str, Any], settings: dict[str, Any], state: State) -> None:
    """Priority, strategy, weight."""
    world = World(candidates("a", credential("b", **fields)), SchedulingSettings(**settings))
    assert why(world, "b").state is state


def test_disabled_and_foreign_ones() -> None:
    """Neither is ever asked."""
    world = World(candidates("a"))
    assert explain(world.scheduler, credential("z", disabled=True), world.pool, "m").state is State.DISABLED
    assert explain(world.scheduler, credential("z"), world.pool, "m").state is State.NOT_SERVING
    assert "nobody serves" in explain(world.scheduler, credential("z"), (), "m").reason
