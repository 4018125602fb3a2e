"""The lives of compiled plugins, in processes of their own and inside this one."""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
import trio
import trio.testing

from cpa.abi import methods
from cpa.abi.errors import PluginClosed, PluginCrashed
from cpa.abi.transport import HostCallHandler
from cpa.abi.wire import CompletionRequest, RequestTransformRequest, ThinkingRequest, UsageRequest
from cpa.config.schema import Isolation, PluginEntry, PluginsConfig
from cpa.host.generation import GenerationLimits, PluginTimeout
from cpa.host.manager import ManagerLimits, PluginManager, open_plugins
from cpa.host.opening import native_opener
from cpa.host.plugin import LivePlugin, PluginState, PluginStatus
from cpa.types import PluginId
from tests.abi.support import HEADERS

TEST_S = 20.0
"""A hung test ends with an error; nothing here waits for it otherwise."""
SOURCE = Path(__file__).with_name("plugins") / "lifecycle.c"
ASK = RequestTransformRequest(from_format="openai", to_format="claude", model="m")
BOTH = pytest.mark.parametrize("isolation", list(Isolation))

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """``compiled(*flags)``: lifecycle.c built with *flags*, each once."""
    folder = tmp_path_factory.mktemp("lifecycle")

    def build(*flags: str) -> Path:
        target = folder / f"lifecycle{''.join(flags)}.so".replace('"', "")
        if not target.exists():
            command = [
                "gcc",
                "-std=gnu11",
                "-D_GNU_SOURCE",
                "-Wall",
                "-Wextra",
                "-Wno-unused",
                "-O1",
                "-shared",
                "-fPIC",
            ]
            subprocess.run([*command, *flags, f"-I{HEADERS}", str(SOURCE), "-o", str(target)], check=True)
        return target

    return build


@attrs.define(eq=False)
class Bench:
    """A manager over a folder of compiled plugins."""

    folder: Path
    isolation: Isolation
    manager: PluginManager
    host_calls: list[tuple[str, str, str]]
    gate: trio.Event

    def put(self, library: Path, name: str = "a") -> None:
        """Install or replace a library, as package managers do."""
        fresh = self.folder / "fresh"
        shutil.copyfile(library, fresh)
        fresh.rename(self.folder / f"{name}.so")

    async def apply(self, **configs: PluginEntry) -> None:
        """Settings for plugins in our folder."""
        await self.manager.apply(
            PluginsConfig(enabled=True, dir=self.folder, isolation=self.isolation, configs=configs)
        )

    def state(self, plugin_id: str = "a") -> PluginStatus:
        """Of one plugin."""
        return next(status for status in self.manager.states() if status.id == plugin_id)

    def live(self, plugin_id: str = "a") -> LivePlugin:
        """One plugin of the snapshot."""
        return next(plugin for plugin in self.manager.snapshot() if plugin.id == plugin_id)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Returns when *reached*; lets others run meanwhile."""
        while not reached():
            await trio.lowlevel.checkpoint()


def entry(yaml: str = "enabled: true\n", **changes: Any) -> PluginEntry:
    """An enabled plugin."""
    return attrs.evolve(PluginEntry(enabled=True, config_yaml=yaml), **changes)


@asynccontextmanager
async def bench(
    folder: Path, isolation: Isolation = Isolation.PROCESS, limits: ManagerLimits | None = None
) -> AsyncIterator[Bench]:
    """Everything there is of the host below the services. Checks that nothing is left over."""
    here = psutil.Process()
    before = {child.pid for child in here.children()}
    host_calls: list[tuple[str, str, str]] = []
    gate = trio.Event()

    def handler_for(plugin_id: PluginId, number: int) -> HostCallHandler:
        async def answer(method: bytes, payload: bytes) -> bytes:
            host_calls.append((plugin_id, method.decode(), payload.decode()))
            if method == b"wait":
                await gate.wait()
            await trio.lowlevel.checkpoint()
            return b'{"ok":true,"result":{}}'

        return answer

    with trio.fail_after(TEST_S):
        async with open_plugins(
            native_opener(Path("conf/cpa.yaml")), handler_for=handler_for, limits=limits
        ) as manager:
            yield Bench(folder, isolation, manager, host_calls, gate)
    assert {child.pid for child in here.children()} == before


@BOTH
async def test_a_compiled_plugin_lives_and_ends(tmp_path: Path, compiled: Compile, isolation: Isolation) -> None:
    """Registered, called, reconfigured, shut down."""
    async with bench(tmp_path, isolation) as stage:
        stage.put(compiled())
        await stage.apply(a=entry(priority=3))
        plugin = stage.live()
        assert (plugin.priority, plugin.schema_version, plugin.metadata.version) == (3, 2, "1")
        assert plugin.capabilities.declared() == {
            "request_normalizer",
            "thinking_applier",
            "usage_plugin",
            "request_lifecycle_plugin",
        }
        assert plugin.identifiers.thinking == "acme"
        assert (await plugin.call(methods.REQUEST_NORMALIZE, ASK)).body == b""
        status = stage.state()
        assert (status.state, status.isolation) == (PluginState.REGISTERED, isolation)
        assert (status.pid == os.getpid()) == (isolation is Isolation.INLINE)
        await stage.apply(a=entry("bad: true\n"))
        assert stage.state().reason == "plugin.reconfigure: bad settings; the previous settings stay in force"
        await stage.apply(a=entry("good: true\n"))
        assert stage.state().reason == ""
        host_calls = stage.host_calls
    assert host_calls == [("a", "stopped", "1")]


@BOTH
async def test_a_plugin_may_refuse_newer_schemas(tmp_path: Path, compiled: Compile, isolation: Isolation) -> None:
    """It is offered 3, 2, then 1."""
    async with bench(tmp_path, isolation) as stage:
        stage.put(compiled("-DHIGHEST=1"))
        await stage.apply(a=entry())
        assert stage.state().state is PluginState.REGISTERED


@BOTH
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("-DNO_AUTHOR", "plugin metadata are invalid: Author blank"),
        (None, ""),
    ],
)
async def test_what_cannot_be_used_harms_nobody_else(
    tmp_path: Path, compiled: Compile, isolation: Isolation, content: str | None, reason: str
) -> None:
    """A library that is none, or whose registration is none; the plugin beside it runs."""
    async with bench(tmp_path, isolation) as stage:
        if content is None:
            (tmp_path / "a.so").write_bytes(b"no library")
        else:
            stage.put(compiled(content))
        stage.put(compiled(), "b")
        await stage.apply(a=entry(), b=entry())
        assert stage.state().state is PluginState.FAILED
        assert reason in stage.state().reason != ""
        assert [plugin.id for plugin in stage.manager.snapshot()] == ["b"]


@BOTH
async def test_an_upgrade_replaces_a_busy_plugin(tmp_path: Path, compiled: Compile, isolation: Isolation) -> None:
    """The same path with other bytes: the call that waits in the old copy ends there, with the host's answer."""
    answers = []

    async def complete(plugin: LivePlugin) -> None:
        answers.append(await plugin.call(methods.REQUEST_COMPLETE, CompletionRequest()))

    async with bench(tmp_path, isolation) as stage, trio.open_nursery() as nursery:
        stage.put(compiled())
        await stage.apply(a=entry())
        plugin = stage.live()
        nursery.start_soon(complete, plugin)
        await stage.until(lambda: bool(stage.host_calls))
        stage.put(compiled('-DVERSION="2"'))
        await stage.apply(a=entry())
        assert (stage.live().metadata.version, stage.live().generation) == ("2", 2)
        await plugin.call(methods.REQUEST_NORMALIZE, ASK)
        assert not answers
        stage.gate.set()
        await stage.until(lambda: ("a", "stopped", "1") in stage.host_calls)
        assert len(answers) == 1
        (tmp_path / "a.so").write_bytes(b"broken")
        await stage.apply(a=entry())
        assert (stage.state().state, stage.state().generation) == (PluginState.REGISTERED, 2)
        assert "generation 2 stays in force" in stage.state().reason
        await plugin.call(methods.REQUEST_NORMALIZE, ASK)


@pytest.mark.parametrize("how", ["abort", "kill"])
async def test_a_worker_that_dies_is_back_within_a_second(tmp_path: Path, compiled: Compile, how: str) -> None:
    """Its calls fail with the signal's name; others' do not notice."""
    async with bench(tmp_path) as stage, trio.open_nursery() as nursery:
        stage.put(compiled())
        stage.put(compiled(), "b")
        await stage.apply(a=entry(), b=entry())
        nursery.start_soon(stage.live("b").call, methods.REQUEST_COMPLETE, CompletionRequest())
        await stage.until(lambda: bool(stage.host_calls))
        plugin, died = stage.live(), trio.current_time()
        with plugin.hold() as held:
            if how == "abort":
                with pytest.raises(PluginCrashed, match=r"SIGABRT"):
                    await plugin.call(methods.USAGE_HANDLE, UsageRequest())
            else:
                os.kill(stage.state().pid, signal.SIGKILL)
            await held.died.wait()
            assert held.death is not None
        await stage.until(lambda: stage.state().state is PluginState.REGISTERED)
        assert trio.current_time() - died < 1
        assert stage.state().generation == 2
        await plugin.call(methods.REQUEST_NORMALIZE, ASK)
        assert stage.state("b").generation == 1
        stage.gate.set()


async def test_a_worker_that_hangs_is_killed_and_comes_back(tmp_path: Path, compiled: Compile) -> None:
    """Past the hard deadline and the grace time."""
    limits = ManagerLimits(generation=GenerationLimits(hang_grace_s=0.05))
    async with bench(tmp_path, limits=limits) as stage:
        stage.put(compiled())
        await stage.apply(a=entry(timeout=0.5))
        pid = stage.state().pid
        with stage.live().hold() as held:
            with pytest.raises(PluginTimeout):
                await stage.live().call(methods.THINKING_APPLY, ThinkingRequest())
            await held.died.wait()
            assert held.death == "hung in thinking.apply for more than 0.55 s"
        await stage.until(lambda: stage.state().state is PluginState.REGISTERED)
        assert not psutil.pid_exists(pid)


async def test_a_worker_full_of_calls_that_nobody_waits_for_is_killed(tmp_path: Path, compiled: Compile) -> None:
    """None of them has a deadline; the next copy works."""
    limits = ManagerLimits(generation=GenerationLimits(hang_grace_s=0.05))
    async with bench(tmp_path, limits=limits) as stage:
        stage.put(compiled())
        await stage.apply(a=entry(timeout=0.0))
        plugin = stage.live()
        with plugin.hold() as held:
            async with trio.open_nursery() as nursery:
                for _ in range(33):
                    nursery.start_soon(plugin.call, methods.THINKING_APPLY, ThinkingRequest())
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await held.died.wait()
            assert held.death == "33 abandoned calls are stuck: 33 in thinking.apply"
        await stage.until(lambda: stage.state().state is PluginState.REGISTERED)
        await plugin.call(methods.REQUEST_NORMALIZE, ASK)


async def test_stuck_calls_inside_the_proxy_are_shown_while_they_last(tmp_path: Path, compiled: Compile) -> None:
    """Nothing else can be done about them."""
    limits = ManagerLimits(generation=GenerationLimits(hang_grace_s=0.05, shutdown_s=0.1))
    async with bench(tmp_path, Isolation.INLINE, limits) as stage:
        stage.put(compiled())
        await stage.apply(a=entry(timeout=0.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.live().call, methods.REQUEST_COMPLETE, CompletionRequest())
            await stage.until(lambda: bool(stage.host_calls))
            nursery.cancel_scope.cancel()
        await stage.until(lambda: stage.state().reason == "stuck calls: 1 in request.complete")
        stage.gate.set()
        await stage.until(lambda: stage.state().reason == "")
        await stage.live().call(methods.REQUEST_NORMALIZE, ASK)


async def test_a_plugin_that_crashes_or_hangs_while_it_registers(tmp_path: Path, compiled: Compile) -> None:
    """The one starts again, the other has failed; both are reaped."""
    async with bench(tmp_path, limits=ManagerLimits(generation=GenerationLimits(shutdown_s=0.1))) as stage:
        stage.put(compiled("-DCRASH_IN_REGISTER"), "crash")
        stage.put(compiled("-DHANG_IN_REGISTER"), "hang")
        await stage.apply(crash=entry(), hang=entry(timeout=0.2))
        assert stage.state("crash").state is PluginState.RESTARTING
        assert "SIGABRT" in stage.state("crash").reason
        assert stage.state("hang").state is PluginState.FAILED
        assert stage.state("hang").reason == "plugin hang did not answer plugin.register within 0.2 s"


async def test_a_plugin_that_hangs_in_shutdown_does_not_keep_the_proxy(tmp_path: Path, compiled: Compile) -> None:
    """Nor does one with a call that never ends."""
    limits = ManagerLimits(close_drain_s=0.1, generation=GenerationLimits(shutdown_s=0.1))
    async with trio.open_nursery() as nursery:
        async with bench(tmp_path, limits=limits) as stage:
            stage.put(compiled("-DHANG_IN_SHUTDOWN"), "a")
            stage.put(compiled(), "b")
            await stage.apply(a=entry(), b=entry())

            async def hang(plugin: LivePlugin) -> None:
                with pytest.raises((PluginClosed, PluginCrashed)):
                    await plugin.call(methods.THINKING_APPLY, ThinkingRequest())

            nursery.start_soon(hang, stage.live("b"))
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
        assert trio.current_time() - begin < 2


async def test_many_workers_start_and_end(tmp_path: Path, compiled: Compile) -> None:
    """Forty at once; killing half of them loses nothing for good, and no descriptor is left over."""
    before = len(os.listdir("/proc/self/fd"))
    names = [f"p{number}" for number in range(40)]
    async with bench(tmp_path) as stage:
        for name in names:
            stage.put(compiled(), name)
        await stage.apply(**{name: entry() for name in names})
        assert len(stage.manager.snapshot()) == 40
        for name in names[::2]:
            os.kill(stage.state(name).pid, signal.SIGKILL)
        await stage.until(lambda: all(stage.state(name).generation == 2 for name in names[::2]))
        await stage.apply(**{name: entry() for name in names[:10]})
        assert len(stage.manager.snapshot()) == 10
    assert len(os.listdir("/proc/self/fd")) == before


async def test_cancelling_the_proxy_leaves_no_worker(tmp_path: Path, compiled: Compile) -> None:
    """Also with a load in progress, which is killed."""
    with trio.CancelScope() as scope:
        async with bench(tmp_path) as stage, trio.open_nursery() as nursery:
            stage.put(compiled())
            await stage.apply(a=entry())
            stage.put(compiled("-DHANG_IN_REGISTER"), "b")
            config = PluginsConfig(enabled=True, dir=tmp_path, configs={"a": entry(), "b": entry()})
            nursery.start_soon(stage.manager.apply, config)
            await stage.until(lambda: len(psutil.Process().children()) == 2)
            scope.cancel()
    assert scope.cancelled_caught
    assert psutil.Process().children() == []
