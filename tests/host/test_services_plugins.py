"""Host calls of a compiled plugin, in a worker process and inline: from its threads to the services and back."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from cpa.abi.transport import PluginTransport, Unwind
from cpa.config.schema import Isolation
from cpa.host.scopes import Caller, CallScope, InboundContext
from cpa.host.streams import QUEUED_CHUNKS
from cpa.types import PluginId
from tests.abi.support import Compiler, Harness
from tests.host.hosting import ALICE, Host, b64, open_host, result
from tests.host.test_services_model import asking, stalled

ISOLATIONS = pytest.mark.parametrize("isolation", list(Isolation), ids=[item.value for item in Isolation])


@asynccontextmanager
async def plugin(
    isolation: Isolation, folder: Path, host: Host, *, arrived: Callable[[], None] = lambda: None
) -> AsyncIterator[PluginTransport]:
    """``behave.c``, whose method ``host`` makes the host call that its request names; *arrived* hears of each."""
    path = await trio.to_thread.run_sync(Compiler(folder), "behave")

    async def handler(method: bytes, payload: bytes) -> bytes:
        arrived()
        return await host.services.handle(ALICE, method, payload)

    async with Harness(isolation)(path, handler=handler, plugin_id="alice") as transport:
        yield transport


async def ask(transport: PluginTransport, method: str, members: Any, *, unwind: Unwind | None = None) -> bytes:
    """The envelope that the plugin got from the host."""
    payload = method.encode() + b"\n" + json.dumps(members).encode()
    reply = await transport.call("host", payload, unwind=unwind)
    status, _, envelope = reply.body.partition(b" ")
    assert (reply.rc, status) == (0, b"0")
    return envelope


@ISOLATIONS
async def test_a_host_call_comes_back(isolation: Isolation, tmp_path: Path) -> None:
    """Results as well as errors have return value 0 and an envelope."""
    async with open_host() as host, plugin(isolation, tmp_path, host) as alice:
        assert await ask(alice, "host.log", {"message": "ready"}) == b'{"ok":true,"result":{}}'
        assert (
            json.loads(await ask(alice, "host.magic", {}))["error"]["message"] == "unsupported host callback host.magic"
        )
        assert result(await ask(alice, "host.model.execute", asking()))["status_code"] == 200


@ISOLATIONS
async def test_a_plugin_blocked_in_a_read_hears_that_its_scope_closed(isolation: Isolation, tmp_path: Path) -> None:
    """From the closing to the plugin's own answer to its call, its threads included; median of several."""
    times: list[float] = []
    arrivals, waiting = trio.open_memory_channel[None](1)

    async def close(scope: CallScope) -> None:
        await waiting.receive()
        await trio.testing.wait_all_tasks_blocked()
        times.append(trio.current_time())
        scope.close()

    async with (
        open_host() as host,
        plugin(isolation, tmp_path, host, arrived=lambda: arrivals.send_nowait(None)) as alice,
    ):
        for _ in range(9):
            async with host.services.scopes.open(ALICE) as scope, trio.open_nursery() as nursery:
                stream_id = await stalled(host, scope.id)
                nursery.start_soon(close, scope)
                envelope = await ask(alice, "host.model.stream_read", {"stream_id": stream_id})
                times[-1] = trio.current_time() - times[-1]
                assert json.loads(envelope)["error"]["http_status"] == 499
    print(f"plugin back in ms: median {sorted(times)[4] * 1e3:.3f}, largest {max(times) * 1e3:.3f}")
    assert sorted(times)[4] < 0.01


@ISOLATIONS
async def test_a_cancelled_request_lets_the_plugin_return(isolation: Isolation, tmp_path: Path) -> None:
    """The client leaves while the plugin waits for a nested execution: its call ends by itself."""
    async with open_host() as host, plugin(isolation, tmp_path, host) as alice:
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                context = InboundContext(callers=(PluginId("bob"),))
                async with host.services.scopes.open(ALICE, context) as scope:
                    members = asking(headers={"X-Mock-First-Byte": ["60000"]}, host_callback_id=scope.id)
                    await ask(alice, "host.model.execute", members, unwind=scope.unwind)

            nursery.start_soon(serve)
            await host.proxy.mock.wait_requests(1)
            nursery.cancel_scope.cancel()
        assert (alice.in_flight, alice.abandoned, alice.late_replies) == (0, 0, 0)
        await host.proxy.mock.wait_for(lambda mock: mock.active_responses == 0)


@ISOLATIONS
async def test_emits_of_a_plugin_reach_a_slow_client(isolation: Isolation, tmp_path: Path) -> None:
    """More of them than the queue holds, from as many of its threads; aborting frees them all."""
    async with open_host() as host, plugin(isolation, tmp_path, host) as alice:
        with host.services.executor_streams.open(Caller(plugin_id=ALICE)) as stream:
            async with trio.open_nursery() as nursery:
                envelopes: list[bytes] = []

                async def emit(number: int) -> None:
                    members = {"stream_id": stream.id, "payload": b64(b"%d" % number)}
                    envelopes.append(await ask(alice, "host.stream.emit", members))

                await stream.emit(b"first")
                assert await anext(stream) == b"first"
                for number in range(2 * QUEUED_CHUNKS):
                    nursery.start_soon(emit, number)
                got = {await anext(stream) for _ in range(QUEUED_CHUNKS + 4)}
                assert len(got) == QUEUED_CHUNKS + 4
                stream.abort()
        refused = [envelope for envelope in envelopes if not json.loads(envelope)["ok"]]
        assert len(envelopes) == 2 * QUEUED_CHUNKS
        assert len(refused) <= QUEUED_CHUNKS - 4
        assert all(b"is not open" in envelope for envelope in refused)
