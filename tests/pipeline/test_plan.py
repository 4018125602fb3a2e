"""Ordering of registrations."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cpa.pipeline.plan import Plan
from cpa.pipeline.stage import POLICIES, SKIPPED_FOR_CALLERS, StageKind
from cpa.types import PluginId
from tests.pipeline.support import register

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,5}", fullmatch=True)


@given(st.lists(st.tuples(st.sampled_from(StageKind), IDS, st.integers(-5, 5)), max_size=20))
def test_order_is_by_priority_then_id_whatever_the_order_of_registration(entries: list[tuple[Any, str, int]]) -> None:
    """Every kind is sorted for itself and nothing is lost."""
    plan = Plan.build(register(kind, plugin, priority=priority) for kind, plugin, priority in entries)
    for kind in StageKind:
        mine = [(entry.plugin_id, entry.priority) for entry in plan.of(kind)]
        expected = [(plugin, priority) for k, plugin, priority in entries if k is kind]
        assert mine == sorted(expected, key=lambda item: (-item[1], item[0].encode()))


def test_callers_are_left_out_only_where_the_contract_says_so() -> None:
    """plugin-abi 6.14: a plugin's normalizers and schedulers also serve its own nested executions."""
    plan = Plan.build(register(kind, "p") for kind in StageKind)
    for kind in StageKind:
        left_out = not plan.of(kind, (PluginId("p"),))
        assert left_out == (kind in SKIPPED_FOR_CALLERS)
        assert plan.of(kind, (PluginId("q"),)) == plan.of(kind)


def test_every_kind_has_a_policy() -> None:
    """The tables grow together."""
    assert set(POLICIES) == set(StageKind)
