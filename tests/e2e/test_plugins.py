"""Compiled plugins in a running proxy: what an operator sees when one works, and when one dies."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cpa.config.schema import Isolation
from tests.e2e.wire import CHAT, WIRES, Wire
from tests.proxy import RunningProxy, running_proxy

FAIL_S = 120
SOURCE = Path(__file__).parent / "plugins" / "tag.c"
HEADERS = Path("cpa/abi")


@pytest.fixture(scope="module")
def plugin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin, as an operator would have it."""
    folder = tmp_path_factory.mktemp("plugins")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-I{HEADERS}", str(SOURCE), "-o", str(folder / "tag.so")],
        check=True,
    )
    return folder


@asynccontextmanager
async def proxy_with(folder: Path, isolation: Isolation) -> AsyncIterator[RunningProxy]:
    """A proxy with the plugin, and with one that is not there: it must not keep the others from starting."""
    extra = f"""
plugins:
  enabled: true
  dir: {folder}
  configs:
    tag: {{enabled: true, priority: 3, isolation: {isolation}}}
    missing: {{enabled: true}}
"""
    async with running_proxy(extra=extra) as proxy:
        yield proxy


@pytest.mark.parametrize("isolation", list(Isolation), ids=str)
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_compiled_plugin_tags_answers_whole_and_streamed(
    plugin_dir: Path, isolation: Isolation, wire: Wire
) -> None:
    """Loaded, registered and called, in a process of its own and inside the proxy; bodies stay what they were."""
    with trio.fail_after(FAIL_S):
        async with proxy_with(plugin_dir, isolation) as proxy, proxy.client() as client:
            for stream in (False, True):
                answer = await wire.post(client, stream=stream, headers={})
                assert answer.status_code == 200
                assert answer.headers["x-tagged"] == "yes"
                assert wire.terminal in answer.content or not stream


@pytest.mark.parametrize("isolation", list(Isolation), ids=str)
async def test_a_plugin_may_end_a_request_with_an_answer_of_its_own(plugin_dir: Path, isolation: Isolation) -> None:
    """No provider is asked."""
    with trio.fail_after(FAIL_S):
        async with proxy_with(plugin_dir, isolation) as proxy, proxy.client() as client:
            body = {"messages": [{"role": "user", "content": "x"}]}
            assert (await client.post(CHAT.path, json={**body, "model": "gpt"})).status_code == 200
            asked = proxy.mock.total_requests
            answer = await client.post(CHAT.path, json={**body, "model": "mock-gpt-unrenamed"})
            assert (answer.status_code, answer.content) == (451, b'{"error":"no"}')
            assert proxy.mock.total_requests == asked


async def test_libraries_that_come_and_change_are_noticed(plugin_dir: Path, tmp_path: Path) -> None:
    """Nobody has to touch the configuration: not for a first library, nor for a newer one, nor for its removal."""
    library = (plugin_dir / "tag.so").read_bytes()

    def put(name: str) -> None:
        scratch = tmp_path / f".{name}.part"
        scratch.write_bytes(library)
        scratch.rename(tmp_path / name)

    with trio.fail_after(FAIL_S):
        async with proxy_with(tmp_path, Isolation.PROCESS) as proxy:

            async def until(state: str, version: str, generation: int) -> None:
                while True:
                    [now] = [s for s in proxy.app.plugins.manager.states() if s.id == "tag"]
                    if (now.state, now.version, now.generation) == (state, version, generation):
                        return
                    await trio.lowlevel.checkpoint()

            await until("failed", "", 0)
            put("tag.so")
            await until("registered", "", 1)
            put("tag-v2.so")
            await until("registered", "2", 2)
            (tmp_path / "tag-v2.so").unlink()
            await until("registered", "", 3)
            (tmp_path / "tag.so").unlink()
            await until("failed", "", 0)


async def test_a_killed_worker_costs_its_own_calls_and_comes_back(plugin_dir: Path) -> None:
    """Answers go on without the tag, and with it again once the worker is back; nothing is left over."""
    with trio.fail_after(FAIL_S):
        async with proxy_with(plugin_dir, Isolation.PROCESS) as proxy, proxy.client() as client:
            [status] = [s for s in proxy.app.plugins.manager.states() if s.id == "tag"]
            assert status.pid
            os.kill(status.pid, signal.SIGKILL)
            tagged = False
            while not tagged:
                answer = await CHAT.post(client, headers={})
                assert answer.status_code == 200
                tagged = answer.headers.get("x-tagged") == "yes"
            [after] = [s for s in proxy.app.plugins.manager.states() if s.id == "tag"]
            assert after.pid != status.pid
            pid = after.pid
        assert pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
