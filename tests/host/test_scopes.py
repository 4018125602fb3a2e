"""Call scopes: who may use them, what they lend, and how they end."""

import pytest
import trio
import trio.testing

from cpa.abi.envelope import HostCallError
from cpa.errors import UpstreamTimeout
from cpa.host.scopes import (
    BACKGROUND,
    Bounds,
    Caller,
    CallScope,
    InboundContext,
    ScopeEnded,
    ScopeRegistry,
    call_unwinding,
)
from cpa.observability.log import request_id
from cpa.types import TraceId
from tests.host.hosting import ALICE, BOB

CALLER = Caller(plugin_id=ALICE)


async def test_a_scope_is_known_to_its_owner_while_it_is_open() -> None:
    """The id is all that a plugin has; it must be worth something exactly as long as the call."""
    scopes = ScopeRegistry()
    async with scopes.open(ALICE) as scope:
        assert scopes.find(scope.id, ALICE) is scope
        assert len(scopes) == 1
    assert scopes.find(scope.id, ALICE) is None
    assert scope.closed
    assert len(scopes) == 0


async def test_another_plugins_scope_is_an_error_without_its_id() -> None:
    """Upstream accepts foreign ids; error texts travel to logs and pages."""
    scopes = ScopeRegistry()
    async with scopes.open(ALICE) as scope:
        with pytest.raises(HostCallError) as caught:
            scopes.find(scope.id, BOB)
    assert caught.value.http_status == 403
    assert scope.id not in str(caught.value)


async def test_ids_cannot_be_guessed() -> None:
    """Counters can."""
    scopes = ScopeRegistry()
    async with scopes.open(ALICE) as one, scopes.open(ALICE) as other:
        assert one.id != other.id
        assert len(one.id) >= 32
        assert int(one.id, 16) >> 64


@pytest.mark.parametrize("scope_id", ["", "1", "0" * 32])
async def test_unknown_ids_mean_the_background(scope_id: str) -> None:
    """Contract: the call works, without inherited headers and cancellation."""
    scopes = ScopeRegistry()
    assert scopes.find(scope_id, ALICE) is None
    with scopes.working(CALLER, None) as context:
        assert context is BACKGROUND


async def test_a_call_works_in_the_scopes_context() -> None:
    """Headers, trace id and callers are those of the request; log lines carry its id."""
    scopes = ScopeRegistry()
    inbound = InboundContext(trace_id=TraceId("0a0b0c0d"), headers={"X": ["1"]}, callers=(BOB,))
    async with scopes.open(ALICE, inbound) as scope:
        with scopes.working(CALLER, scope) as context:
            assert context is inbound
            assert request_id.get() == "0a0b0c0d"
        assert request_id.get() == ""
        assert "X" not in repr(scope)


async def test_closing_wakes_what_waits_with_an_error_at_once() -> None:
    """A plugin's thread blocked in a host call hears that the request is gone."""
    scopes = ScopeRegistry()
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


async def test_leaving_cancels_tasks_and_calls_closers_once() -> None:
    """What was opened under a scope is gone when the block is left."""
    scopes = ScopeRegistry()
    seen: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("task")

    async with scopes.open(ALICE) as scope:
        scope.nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        kept, dropped = (lambda: seen.append("kept")), (lambda: seen.append("dropped"))
        scope.on_close(kept)
        scope.on_close(dropped)
        scope.forget(dropped)
    assert seen == ["kept", "task"]


async def test_an_error_of_the_block_is_not_wrapped() -> None:
    """Adapters match on what plugin calls raise."""
    scopes = ScopeRegistry()
    with pytest.raises(UpstreamTimeout):
        async with scopes.open(ALICE):
            raise UpstreamTimeout("late")
    assert len(scopes) == 0


async def test_a_cancelled_owner_closes_its_scope() -> None:
    """The client left."""
    scopes = ScopeRegistry()
    with trio.CancelScope() as client:
        async with scopes.open(ALICE) as scope:
            client.cancel()
            await trio.sleep_forever()
    assert scope.closed
    assert len(scopes) == 0


async def test_background_calls_end_with_their_copy_of_the_plugin() -> None:
    """A new copy of the same plugin goes on."""
    scopes = ScopeRegistry()
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


async def test_a_call_that_returns_is_not_disturbed() -> None:
    """The usual case: nothing is cancelled, the scope stays open for a stream that may follow."""
    scopes = ScopeRegistry()
    async with scopes.open(ALICE) as scope:

        async def call() -> int:
            await trio.lowlevel.checkpoint()
            return 7

        assert await call_unwinding(scope, call) == 7
        assert not scope.closed


async def test_a_cancelled_call_may_unwind(autojump_clock: trio.testing.MockClock) -> None:
    """The scope closes first, which lets the plugin return by itself within the grace time."""
    scopes = ScopeRegistry()
    events: list[str] = []
    with trio.CancelScope() as client:
        async with scopes.open(ALICE) as scope:
            scope.on_close(lambda: events.append("closed"))

            async def call() -> None:
                client.cancel()
                await trio.sleep(0.3)
                events.append("returned")

            await call_unwinding(scope, call, grace_s=0.5)
            await trio.lowlevel.checkpoint()
    assert client.cancelled_caught
    assert events == ["closed", "returned"]


async def test_a_cancelled_call_that_hangs_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """A plugin that never returns costs the grace time, no more."""
    scopes = ScopeRegistry()
    started = trio.current_time()
    with trio.CancelScope() as client:
        async with scopes.open(ALICE) as scope:

            async def call() -> None:
                client.cancel()
                await trio.sleep_forever()

            await call_unwinding(scope, call, grace_s=0.5)
    assert client.cancelled_caught
    assert trio.current_time() - started == pytest.approx(0.5)


async def test_an_error_of_an_unwinding_call_rises() -> None:
    """As without it."""
    scopes = ScopeRegistry()

    async def call() -> None:
        await trio.lowlevel.checkpoint()
        raise UpstreamTimeout("late")

    async with scopes.open(ALICE) as scope:
        with pytest.raises(UpstreamTimeout):
            await call_unwinding(scope, call)
        assert not scope.closed


def test_context_keeps_secrets_out_of_its_repr() -> None:
    """Client keys are in the headers."""
    shown = repr(InboundContext(headers={"Authorization": ["Bearer k1"]}, query={"key": ["k2"]}, principal="k3"))
    assert not any(key in shown for key in ("k1", "k2", "k3"))
