"""One process that calls the echo plugin in every way there is, one call after the other.

It holds the library three times: bare, for calls of C through the extension and nothing else; behind each transport;
and as a registered plugin of each isolation. Jobs come as JSON lines on standard input, outcomes go out as JSON lines.
Worker processes inherit its core: caller and plugin take turns on it in both isolations.
"""

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from statistics import median
from time import perf_counter

import attrs
import msgspec
import trio
from structlog.testing import capture_logs

from cpa.abi import methods
from cpa.abi.envelope import decode_reply, encode_host_error, encode_request
from cpa.abi.kinds import B64
from cpa.abi.native import NativeLibrary
from cpa.abi.transport import DEFAULT_MAX_BODY_BYTES, HostCallHandler, PluginTransport
from cpa.abi.wire import RequestTransformRequest
from cpa.config.schema import Isolation, PluginEntry, PluginsConfig
from cpa.host.manager import PluginManager, open_plugins
from cpa.host.opening import native_opener
from cpa.host.plugin import LivePlugin, PluginState
from cpa.types import PluginId

METHOD = methods.REQUEST_NORMALIZE
CONFIG = Path("conf/cpa.yaml")
"""Only its name plays a part: workers have it on their command line."""


class Level(StrEnum):
    """From where the plugin is called."""

    BARE = "bare"
    """the extension's call of C: no thread, no process, nothing that waits"""
    TRANSPORT = "transport"
    """bytes in, bytes out"""
    HOST = "host"
    """values in, values out: what a stage of the pipeline calls"""


@attrs.frozen(kw_only=True)
class CallJob:
    """What to call, and for how long. *body_bytes* is the size of the body before base64."""

    level: Level
    isolation: Isolation = Isolation.PROCESS
    body_bytes: int
    seconds: float


@attrs.frozen(kw_only=True)
class CallOutcome:
    """*median_s* is that of single calls."""

    calls: int
    median_s: float


def body_of(size_bytes: int) -> bytes:
    """A JSON body of that size."""
    return b'{"text":"%b"}' % (b"x" * (size_bytes - 11))


def request_for(body: bytes) -> RequestTransformRequest:
    """A request whose base64 is not made yet."""
    return RequestTransformRequest(
        from_format="openai", to_format="claude", model="mock-gpt", stream=False, body=B64(body)
    )


def check(found: bytes, body: bytes) -> None:
    """Raises: AssertionError when the echo is none."""
    assert found == body, f"expected {len(body)} bytes back, got {len(found)}"


@attrs.frozen(kw_only=True)
class Callers:
    """The library in all its forms."""

    bare: NativeLibrary
    transports: dict[Isolation, PluginTransport]
    plugins: dict[Isolation, LivePlugin]

    async def perform(self, job: CallJob) -> CallOutcome:
        """Do *job*; the first tenth of its time is warm-up."""
        body = body_of(job.body_bytes)
        payload = encode_request(METHOD, request_for(body))
        if job.level is Level.BARE:
            check(decode_reply(METHOD, *self.bare.call(METHOD.name.encode(), payload)).body, body)
            times = self._call_bare(payload, job.seconds)
        elif job.level is Level.TRANSPORT:
            transport = self.transports[job.isolation]
            reply = await transport.call(METHOD.name, payload)
            check(decode_reply(METHOD, reply.rc, reply.body).body, body)
            times = await repeat(lambda: transport.call(METHOD.name, payload), job.seconds)
        else:
            plugin = self.plugins[job.isolation]
            check((await plugin.call(METHOD, request_for(body))).body, body)
            times = await repeat(lambda: plugin.call(METHOD, request_for(body)), job.seconds)
        kept = times[len(times) // 10 :]
        return CallOutcome(calls=len(kept), median_s=median(kept))

    def _call_bare(self, payload: bytes, seconds: float) -> list[float]:
        """Not by way of `repeat`: an await costs as much as such a call."""
        name, times = METHOD.name.encode(), []
        end = (started := perf_counter()) + seconds
        while started < end:
            self.bare.call(name, payload)
            now = perf_counter()
            times.append(now - started)
            started = now
        return times


async def repeat(call: Callable[[], Awaitable[object]], seconds: float) -> list[float]:
    """Duration of each call, one after the other."""
    times = []
    end = (started := perf_counter()) + seconds
    while started < end:
        await call()
        now = perf_counter()
        times.append(now - started)
        started = now
    return times


async def refuse(method: bytes, payload: bytes) -> bytes:
    """The host of plugins that have nothing to ask."""
    await trio.lowlevel.checkpoint()
    return encode_host_error("the benchmark's plugins do not ask")


def handler_for(plugin_id: PluginId, number: int) -> HostCallHandler:
    """See `open_plugins`."""
    return refuse


def plugins_config(folder: Path, isolations: dict[str, Isolation]) -> PluginsConfig:
    """All of *isolations* switched on; the keys are plugin ids."""
    entries = {name: PluginEntry(enabled=True, isolation=isolation) for name, isolation in isolations.items()}
    return PluginsConfig(enabled=True, dir=folder, configs=entries)


def absent(manager: PluginManager) -> str:
    """What keeps plugins from taking part; empty when all do."""
    states = [state for state in manager.states() if state.state is not PluginState.REGISTERED]
    return "; ".join(f"{state.id} is {state.state}: {state.reason}" for state in states)


@asynccontextmanager
async def open_callers(library: Path) -> AsyncIterator[Callers]:
    """The library *library* in all its forms, while the block runs."""
    bare = NativeLibrary(plugin_id="bare", max_body=DEFAULT_MAX_BODY_BYTES)
    bare.load(os.fsencode(library))
    opener = native_opener(CONFIG)
    async with trio.open_nursery() as host_calls, AsyncExitStack() as stack:
        transports = {
            isolation: await stack.enter_async_context(
                opener(
                    str(library),
                    plugin_id=f"echo-{isolation}",
                    isolation=isolation,
                    handler=refuse,
                    nursery=host_calls,
                    log_line=lambda stream, text: None,
                )
            )
            for isolation in Isolation
        }
        # Beside the library: links do not leave a file system.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="calls-", dir=library.parent)))
        ids = {isolation.value: isolation for isolation in Isolation}
        for name in ids:
            await trio.Path(folder / f"{name}.so").hardlink_to(library)
        manager = await stack.enter_async_context(open_plugins(opener, handler_for=handler_for))
        await manager.apply(plugins_config(folder, ids))
        assert not absent(manager), absent(manager)
        live = {ids[plugin.id]: plugin for plugin in manager.snapshot()}
        yield Callers(bare=bare, transports=transports, plugins=live)


async def main(library: Path) -> None:
    """Perform jobs until standard input ends."""
    lines, out = sys.stdin.buffer, sys.stdout.buffer
    async with open_callers(library) as callers:
        # Reading blocks the loop, on purpose: between two jobs nothing shall happen.
        while line := lines.readline():
            outcome = await callers.perform(msgspec.json.decode(line, type=CallJob))
            out.write(msgspec.json.encode(outcome) + b"\n")
            out.flush()


if __name__ == "__main__":
    with capture_logs():  # they would go to standard output as well
        trio.run(main, Path(sys.argv[1]))
