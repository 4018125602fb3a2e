"""Twenty plugins in C, Rust and Go behind two hundred open streams, while some of them lose their processes."""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from cpa.config.schema import Isolation
from cpa.host.plugin import PluginState
from tests.e2e.wire import CHAT, sent_by
from tests.native.build import NativeBuilder
from tests.native.hosting import PluginFolder, nothing_left, status, until
from tests.proxy import RunningProxy

FAIL_S = 120
STREAMS = 200
CHUNKS = 4
"""Pieces of text in each stream; the mock adds an opening and an end."""
PAUSE_MS = 1000
"""Between writes of a stream: long enough that all streams are open before the first one is over."""
BACK_S = 20
"""The requirement is one second on an idle machine; test machines are not idle."""

STREAMING = "response_stream_interceptor"
KINDS = (STREAMING, "request_interceptor", "request_lifecycle_plugin", "request_normalizer")
"""What plugins do, in turns: five of each."""


@attrs.frozen
class Plugin:
    """One of the twenty."""

    id: str
    kind: str

    @property
    def mark(self) -> str:
        """The member that it adds."""
        return f"x_{self.id}"


def install(folder: PluginFolder, native: NativeBuilder) -> list[Plugin]:
    """Seven in C, six in Rust, seven in Go."""
    libraries = {"c": native.c("marker"), "rust": native.rust("rusty"), "go": native.go("tagger")}
    plugins = []
    for index in range(20):
        language = ("c", "go", "rust")[index % 3]
        plugin = Plugin(f"{language}{index}", KINDS[index % 4])
        folder.add(plugin.id, libraries[language], marker=plugin.mark, capabilities=plugin.kind, priority=index)
        plugins.append(plugin)
    return plugins


@attrs.define(eq=False)
class Streams:
    """Clients that all read at the same time."""

    client: httpx.AsyncClient
    bodies: dict[int, bytes] = attrs.field(factory=dict)

    async def read(self, number: int) -> None:
        """One stream, to its end."""
        answer = await self.client.post(
            CHAT.path,
            content=CHAT.body(stream=True, text=f"stream {number}"),
            headers={"X-Mock-Chunks": str(CHUNKS), "X-Mock-Delay": str(PAUSE_MS)},
        )
        assert answer.status_code == 200
        self.bodies[number] = answer.content


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    """The objects of a stream."""
    return [json.loads(text) for text in re.findall(rb"data: (\{.*\})", body)]


def without_marks(chunk: dict[str, Any]) -> dict[str, Any]:
    """What the provider sent."""
    return {name: value for name, value in chunk.items() if not name.startswith("x_")}


async def test_killed_workers_cost_nothing_but_their_own_calls(tmp_path: Path, native: NativeBuilder) -> None:
    """All streams end whole, with the marks of all others in every piece; who died is back soon; nothing stays."""
    folder = PluginFolder(tmp_path)
    plugins = install(folder, native)
    streaming = [plugin for plugin in plugins if plugin.kind == STREAMING]
    victims = [next(plugin for plugin in streaming if plugin.id.startswith(name)) for name in ("c", "rust", "go")]
    limits = httpx.Limits(max_connections=STREAMS, max_keepalive_connections=0)
    with trio.fail_after(FAIL_S):
        async with (
            nothing_left(),
            folder.proxy(Isolation.PROCESS) as proxy,
            httpx.AsyncClient(
                base_url=proxy.url, headers=proxy.client().headers, timeout=None, trust_env=False, limits=limits
            ) as client,
        ):
            before = {plugin.id: registered(proxy, plugin.id) for plugin in plugins}
            assert len(set(before.values())) == 20
            streams = Streams(client)
            async with trio.open_nursery() as nursery:
                for number in range(STREAMS):
                    nursery.start_soon(streams.read, number)
                # Not "as many are running": on a slow machine the first one may end when the last begins.
                await proxy.mock.wait_for(lambda mock: mock.total_requests == STREAMS)
                assert len(streams.bodies) < STREAMS
                for victim in victims:
                    nursery.start_soon(kill, proxy, victim.id)
            check_bodies(proxy, streams, plugins, victims)
            # And they take part again.
            again = Streams(client)
            await again.read(STREAMS)
            assert all(
                {plugin.mark for plugin in streaming} <= chunk.keys() for chunk in chunks_of(again.bodies[STREAMS])
            )
            after = {plugin.id: registered(proxy, plugin.id) for plugin in plugins}
            assert {name for name, pid in after.items() if before[name] != pid} == {victim.id for victim in victims}
            await until(lambda: len(proxy.app.plugins.services.scopes) == 0)


def registered(proxy: RunningProxy, plugin_id: str) -> int:
    """The process of a plugin that works."""
    seen = status(proxy, plugin_id)
    assert seen.state is PluginState.REGISTERED
    assert seen.pid
    return seen.pid


async def kill(proxy: RunningProxy, plugin_id: str) -> None:
    """Kill a plugin's process and wait until it is registered again."""
    pid = status(proxy, plugin_id).pid

    def back() -> bool:
        seen = status(proxy, plugin_id)
        return seen.state is PluginState.REGISTERED and seen.pid not in (0, pid)

    killed = trio.current_time()
    os.kill(pid, signal.SIGKILL)
    with trio.fail_after(BACK_S):
        await until(back)
    print(f"{plugin_id} was back after {(trio.current_time() - killed) * 1000:.0f} ms")


def check_bodies(proxy: RunningProxy, streams: Streams, plugins: list[Plugin], victims: list[Plugin]) -> None:
    """Every stream is what the provider sent, with the marks of everybody who was there."""
    expected = {request_number(request.body): sent_by(request) for request in proxy.mock.requests}
    assert len(streams.bodies) == len(expected) == STREAMS
    killed = {victim.mark for victim in victims}
    others = {plugin.mark for plugin in plugins if plugin.kind == STREAMING} - killed
    present: Counter[str] = Counter()
    for number, body in streams.bodies.items():
        chunks = chunks_of(body)
        assert body.endswith(b"data: [DONE]\n\n")
        assert [without_marks(chunk) for chunk in chunks] == chunks_of(expected[number])
        for chunk in chunks:
            assert others <= chunk.keys()
            present.update(killed & chunk.keys())
    assert set(present) == killed
    in_requests = {plugin.mark for plugin in plugins if plugin.kind in ("request_interceptor", "request_normalizer")}
    for request in proxy.mock.requests:
        assert in_requests <= json.loads(request.body).keys()


def request_number(body: bytes) -> int:
    """Of which stream a request to the provider is."""
    found = re.search(rb"stream (\d+)", body)
    assert found
    return int(found[1])
