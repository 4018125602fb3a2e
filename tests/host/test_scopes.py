"""Call scopes: who may use them, what they lend, and how they end."""

import pytest
import trio
import trio.testing

from cpa.abi.envelope import HostCallError
from cpa.errors import UpstreamTimeout
from cpa.host.scopes import (
    BACKGROUND,
    UNWIND_S,
    Bounds,
    Caller,
    CallScope,
    InboundContext,
    ScopeEnded,
    ScopeRegistry,
)
from cpa.observability.log import request_id
from cpa.types import TraceId
from tests.host.hosting import ALICE, BOB

CALLER = Caller(plugin_id=ALICE)


async def test_a_scope_is_known_to_its_owner_while_it_is_open(scopes: ScopeRegistry) -> None:
    """The id is all that a plugin has; it must be worth something exactly as long as the call."""
    async with scopes.open(ALICE) as scope:
        assert scopes.find(scope.id, ALICE) is scope
        assert len(scopes) == 1
    assert scopes.find(scope.id, ALICE) is None
    assert scope.closed
    assert len(scopes) == 0


async def test_another_plugins_scope_is_an_error_without_its_id(scopes: ScopeRegistry) -> None:
    """Upstream accepts foreign ids; error texts travel to logs and pages."""
    async with scopes.open(ALICE) as scope:
        with pytest.raises(HostCallError) as caught:
            scopes.find(scope.id, BOB)
    assert caught.value.http_status == 403
    assert scope.id not in str(caught.value)


async def test_ids_cannot_be_guessed(scopes: ScopeRegistry) -> None:
    """Counters can."""
    async with scopes.open(ALICE) as one, scopes.open(ALICE) as other:
        assert one.id != other.id
        assert len(one.id) >= 32
        assert int(one.id, 16) >> 64


@pytest.mark.parametrize("scope_id", ["", "1", "0" * 32])
async def test_unknown_ids_mean_the_background(scope_id: str, scopes: ScopeRegistry) -> None:
    """Contract: the call works, without inherited headers and cancellation."""
    assert scopes.find(scope_id, ALICE) is None
    with scopes.working(CALLER, None) as context:
        assert context is BACKGROUND


async def test_a_call_works_in_the_scopes_context(scopes: ScopeRegistry) -> None:
    """Headers, trace id and callers are those of the request; log lines carry its id."""
    inbound = InboundContext(trace_id=TraceId("0a0b0c0d"), headers={"X": ["1"]}, callers=(BOB,))
    async with scopes.open(ALICE, inbound) as scope:
        with scopes.working(CALLER, scope) as context:
            assert context is inbound
            assert request_id.get() == "0a0b0c0d"
        assert request_id.get() == ""
        assert "X" not in repr(scope)


async def test_closing_wakes_what_waits_with_an_error_at_once(scopes: ScopeRegistry) -> None:
    """A plugin's thread blocked in a host call hears that the request is gone."""
    woken: list[float] = []
    async with trio.open_nursery() as nursery:

        async def wait(scope: CallScope) -> None:
            with pytest.raises(ScopeEnded) as caught, scopes.working(CALLER, scope):
                await trio.sleep_forever()
            woken.append(trio.current_time())
            assert caught.value.http_status == 499

        async with scopes.open(ALICE) as scope:
            for _ in range(10):
                nursery.start_soon(wait, scope)
            await trio.testing.wait_all_tasks_blocked()
            scope.close()
            closed = trio.current_time()
            scope.close()
            await trio.testing.wait_all_tasks_blocked()
            assert len(woken) == 10
            assert max(woken) - closed < 0.01
            with pytest.raises(ScopeEnded), scopes.working(CALLER, scope):
                pass


async def test_other_cancellation_is_not_taken_for_the_scopes_end() -> None:
    """A transport that ends cancels its tasks; swallowing that would keep them alive."""
    bounds = Bounds()
    with trio.CancelScope() as outer:
        outer.cancel()
        with bounds.enter():
            await trio.sleep_forever()
    assert outer.cancelled_caught
    assert not len(bounds)


async def test_leaving_cancels_tasks_and_calls_closers_once(scopes: ScopeRegistry) -> None:
    """What was opened under a scope is gone when the block is left."""
    seen: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("task")

    async with scopes.open(ALICE) as scope:
        (await scope.nursery()).start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        kept, dropped = (lambda: seen.append("kept")), (lambda: seen.append("dropped"))
        scope.on_close(kept)
        scope.on_close(dropped)
        scope.forget(dropped)
    assert seen == ["kept", "task"]


async def test_an_error_of_the_block_is_not_wrapped(scopes: ScopeRegistry) -> None:
    """Adapters match on what plugin calls raise."""
    with pytest.raises(UpstreamTimeout):
        async with scopes.open(ALICE):
            raise UpstreamTimeout("late")
    assert len(scopes) == 0


async def test_a_cancelled_owner_closes_its_scope(scopes: ScopeRegistry) -> None:
    """The client left."""
    with trio.CancelScope() as client:
        async with scopes.open(ALICE) as scope:
            client.cancel()
            await trio.sleep_forever()
    assert scope.closed
    assert len(scopes) == 0


async def test_background_calls_end_with_their_copy_of_the_plugin(scopes: ScopeRegistry) -> None:
    """A new copy of the same plugin goes on."""
    old, new = Caller(plugin_id=ALICE, generation=1), Caller(plugin_id=ALICE, generation=2)
    ended: list[Caller] = []

    async def wait(caller: Caller) -> None:
        try:
            with scopes.working(caller, None):
                await trio.sleep_forever()
        except ScopeEnded:
            ended.append(caller)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, old)
        nursery.start_soon(wait, new)
        await trio.testing.wait_all_tasks_blocked()
        scopes.end_background(old)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [old]
        scopes.end_background(new)
    assert ended == [old, new]
    assert not scopes._background


async def test_unwinding_closes_and_says_how_long_the_plugin_has(scopes: ScopeRegistry) -> None:
    """What a plugin waits for in the host must not keep it from returning when its caller is gone."""
    async with scopes.open(ALICE) as scope:
        assert scope.unwind() == UNWIND_S
        assert scope.closed


async def test_a_scope_that_nothing_was_opened_under_has_no_task(scopes: ScopeRegistry) -> None:
    """Chunk interceptors get one for every chunk."""
    before = len(scopes._keeper.child_tasks)
    async with scopes.open(ALICE):
        assert len(scopes._keeper.child_tasks) == before


async def test_a_closed_scope_gives_no_nursery(scopes: ScopeRegistry) -> None:
    """Nobody would cancel the tasks."""
    async with scopes.open(ALICE) as scope:
        scope.close()
        with pytest.raises(ScopeEnded):
            await scope.nursery()


def test_context_keeps_secrets_out_of_its_repr() -> None:
    """Client keys are in the headers."""
    shown = repr(InboundContext(headers={"Authorization": ["Bearer k1"]}, query={"key": ["k2"]}, principal="k3"))
    assert not any(key in shown for key in ("k1", "k2", "k3"))
