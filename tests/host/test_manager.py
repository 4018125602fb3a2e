"""The lives of plugins: scripted ones, with a clock of the test's own."""

import errno
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import trio
import trio.testing

from cpa.abi import methods
from cpa.abi.envelope import PluginCallError, encode_error
from cpa.abi.errors import PluginClosed, PluginCrashed, PluginLoadError
from cpa.abi.transport import HostCallHandler
from cpa.abi.wire import (
    Capabilities,
    Empty,
    ExecuteRequest,
    PluginMetadata,
    RegisterReply,
    RequestTransformRequest,
)
from cpa.config.schema import Isolation, PluginEntry, PluginsConfig, freeze
from cpa.host.discovery import Discovery, discover
from cpa.host.generation import PluginTimeout
from cpa.host.manager import ManagerLimits, PluginManager, open_plugins
from cpa.host.plugin import LivePlugin, PluginState, PluginStatus, PluginUnavailable
from cpa.host.restarts import FUSE_CRASHES, GOOD_WHILE_S
from cpa.types import PluginId
from tests.host.support import METADATA, NORMALIZER, NOTHING, FakeOpener, FakeTransport, no_host_calls

NORMALIZE = methods.REQUEST_NORMALIZE
ASK = RequestTransformRequest(from_format="openai", to_format="claude", model="m")


def entry(yaml: str = "enabled: true\n", **changes: Any) -> PluginEntry:
    """An enabled plugin."""
    return attrs.evolve(PluginEntry(enabled=True, config_yaml=yaml), **changes)


async def passing(reached: Callable[[], bool], step_s: float = 0.01) -> None:
    """Let the test's own time pass until *reached*."""
    while not reached():  # noqa: ASYNC110 - no event: it is time that has to pass
        await trio.sleep(step_s)


@attrs.define(eq=False)
class Stage:
    """A folder of fakes and what the manager said of it."""

    folder: Path
    opener: FakeOpener
    manager: PluginManager
    changes: list[tuple[LivePlugin, ...]]

    def put(self, *names: str) -> None:
        """Make or replace libraries."""
        for name in names:
            fresh = self.folder / "fresh"
            fresh.write_bytes(name.encode())
            fresh.rename(self.folder / f"{name}.so")

    def config(self, **configs: PluginEntry) -> PluginsConfig:
        """Settings of plugins in our folder."""
        return PluginsConfig(enabled=True, dir=self.folder, configs=configs)

    async def apply(self, **configs: PluginEntry) -> None:
        """The same, applied."""
        await self.manager.apply(self.config(**configs))

    def state(self, plugin_id: str = "a") -> PluginStatus:
        """Of one plugin."""
        return next(status for status in self.manager.states() if status.id == plugin_id)

    def live(self, plugin_id: str = "a") -> LivePlugin:
        """One plugin of the snapshot."""
        return next(plugin for plugin in self.manager.snapshot() if plugin.id == plugin_id)

    def fate(self, number: int) -> str | None:
        """Death of a copy; asked anew, whatever was known of it."""
        return self.opener.opened[number].death

    async def until(self, state: PluginState, plugin_id: str = "a") -> None:
        """Let time pass until a plugin is in *state*."""
        await passing(lambda: self.state(plugin_id).state is state)


async def find_here(folder: Path, configs: Mapping[str, PluginEntry]) -> Discovery:
    """Without a thread: the clock would jump while it works."""
    await trio.lowlevel.checkpoint()
    return discover(folder, configs)


@asynccontextmanager
async def staged(
    folder: Path, prepare: Callable[[FakeTransport], None] = lambda transport: None, **limits: Any
) -> AsyncIterator[Stage]:
    """A manager over fakes; the error of a test is not grouped."""
    opener = FakeOpener(prepare)
    changes: list[tuple[LivePlugin, ...]] = []
    error: BaseException | None = None

    def handler_for(plugin_id: PluginId, number: int) -> HostCallHandler:
        return no_host_calls

    async with open_plugins(
        opener,
        handler_for=handler_for,
        on_change=lambda: changes.append(manager.snapshot()),
        limits=ManagerLimits(**limits),
        find=find_here,
    ) as manager:
        try:
            yield Stage(folder, opener, manager, changes)
        except (AssertionError, PluginUnavailable) as exc:
            error = exc
    if error is not None:
        raise error


async def test_enabled_plugins_are_registered_and_ordered(tmp_path: Path, autojump_clock: object) -> None:
    """By priority, then id; others are disabled with a reason, and a library that is missing is a failure."""
    async with staged(tmp_path) as stage:
        stage.put("b", "a", "C", "top", "off", "new")
        await stage.apply(
            a=entry(), b=entry(), C=entry(), top=entry(priority=5), off=PluginEntry(priority=9), gone=entry()
        )
        assert [plugin.id for plugin in stage.manager.snapshot()] == ["top", "C", "a", "b"]
        top = stage.live("top")
        assert (top.priority, top.generation, top.metadata, top.capabilities) == (5, 1, METADATA, NORMALIZER)
        assert top.schema_version == 3
        assert await top.call(NORMALIZE, ASK) is not None
        assert {status.id: (status.state, status.reason) for status in stage.manager.states()} == {
            "C": ("registered", ""),
            "a": ("registered", ""),
            "b": ("registered", ""),
            "gone": ("failed", f"no library in {tmp_path}"),
            "new": ("disabled", "plugins.configs.new is missing"),
            "off": ("disabled", "plugins.configs.off.enabled is not true"),
            "top": ("registered", ""),
        }
        status = stage.state("top")
        assert (status.path, status.pid, status.enabled) == (str(tmp_path / "top.so"), 4711, True)
        assert (status.isolation, status.metadata, status.schema_version) == (Isolation.PROCESS, METADATA, 3)
        opened = list(stage.opener.opened)
        assert Path(opened[0].path).is_absolute()
        assert {file.id for file in stage.manager.discovery.selected} == {"a", "b", "C", "top", "off", "new"}
    assert stage.changes[-1] == ()
    assert [transport.death for transport in opened] == ["closed"] * 4
    assert {transport.grace_s for transport in opened} == {2.0}


async def test_settings_go_over_as_they_are_and_only_when_they_changed(tmp_path: Path, autojump_clock: object) -> None:
    """`plugin.reconfigure` is not repeated for nothing (plugin-abi 10, 8)."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry("mode: 1\n"))
        await stage.apply(a=entry("mode: 1\n"))
        await stage.apply(a=entry("mode: 2\n"))
        assert stage.opener.last.calls == ["plugin.register", "plugin.reconfigure"]
        assert [request.config_yaml.data for request in stage.opener.last.settings] == [b"mode: 1\n", b"mode: 2\n"]
        assert len(stage.opener.opened) == 1
        # Said to those who keep answers of the plugin: other settings may lead to others.
        (first,), (second,) = stage.changes
        assert first.settings != second.settings
        assert first == attrs.evolve(second, settings=first.settings)


@pytest.mark.parametrize(("highest", "offers"), [(3, [3]), (2, [3, 2]), (1, [3, 2, 1])])
async def test_the_schema_is_negotiated_downwards(
    tmp_path: Path, autojump_clock: object, highest: int, offers: list[int]
) -> None:
    """A refusal that names it leads to the next lower one; reconfiguring starts where registering ended."""

    def prepare(transport: FakeTransport) -> None:
        transport.highest_schema = highest
        transport.reply = msgspec.structs.replace(transport.reply, schema_version=highest)

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        assert stage.live().schema_version == highest
        await stage.apply(a=entry("x: 1\n"))
        assert [request.schema_version for request in stage.opener.last.settings] == [*offers, highest]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (RegisterReply(schema_version=4, metadata=METADATA, capabilities=NORMALIZER), "plugin schema version 4"),
        (RegisterReply(metadata=METADATA), "plugin declares no capability"),
        (
            RegisterReply(metadata=METADATA, capabilities=Capabilities(frontend_auth_provider_exclusive=True)),
            "plugin declares no capability",
        ),
        (
            RegisterReply(metadata=PluginMetadata(name="a", version=" "), capabilities=NORMALIZER),
            "plugin metadata are invalid: Version, Author, GitHubRepository blank",
        ),
    ],
)
async def test_registrations_are_judged(
    tmp_path: Path, autojump_clock: object, reply: RegisterReply, reason: str
) -> None:
    """What is no registration leaves the plugin out; its copy is ended."""

    def prepare(transport: FakeTransport) -> None:
        transport.reply = reply

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        assert stage.state().state is PluginState.FAILED
        assert stage.state().reason.startswith(reason)
        assert stage.state().pid == 0
        assert stage.opener.last.death == "closed"
        assert stage.manager.snapshot() == ()


async def test_schema_zero_means_one(tmp_path: Path, autojump_clock: object) -> None:
    """The member may be absent (plugin-abi 3.2)."""

    def prepare(transport: FakeTransport) -> None:
        transport.reply = msgspec.structs.replace(transport.reply, schema_version=0)

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        assert stage.live().schema_version == 1


async def test_identifiers_are_asked_once_per_registration(tmp_path: Path, autojump_clock: object) -> None:
    """Trimmed; a blank or failing one is absent; those of capabilities that are not declared are not asked for."""

    def prepare(transport: FakeTransport) -> None:
        declared = Capabilities(executor=True, thinking_applier=True, auth_provider=True)
        transport.reply = msgspec.structs.replace(transport.reply, capabilities=declared)

        async def fail(payload: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            return encode_error("not today")

        transport.answers["auth.identifier"] = fail

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        keys = stage.live().identifiers
        assert (keys.executor, keys.thinking, keys.auth, keys.frontend_auth) == (
            "executor.identifier",
            "thinking.identifier",
            "",
            "",
        )
        await stage.apply(a=entry("x: 1\n"))
        assert stage.opener.last.calls.count("executor.identifier") == 2
        assert "frontend_auth.identifier" not in stage.opener.last.calls


async def test_a_first_failure_is_tried_again_with_the_next_apply(tmp_path: Path, autojump_clock: object) -> None:
    """With `plugin.register`, as often as somebody asks; never by itself (plugin-abi 10, 9)."""

    def prepare(transport: FakeTransport) -> None:
        transport.refuses = "no licence" if len(stage.opener.opened) < 3 else ""

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        assert stage.state().reason == "plugin.register: no licence"
        await trio.sleep(1000)
        assert len(stage.opener.opened) == 1
        await stage.apply(a=entry())
        assert len(stage.opener.opened) == 2
        stage.manager.rearm("a")
        await stage.until(PluginState.REGISTERED)
        assert {call for copy in stage.opener.opened for call in copy.calls} == {"plugin.register"}


async def test_inside_the_proxy_a_failure_is_not_repeated_without_reason(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Each attempt leaves a library in memory."""

    def prepare(transport: FakeTransport) -> None:
        transport.refuses = "no"

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        for _ in range(3):
            await stage.apply(a=entry(isolation=Isolation.INLINE))
        assert len(stage.opener.opened) == 1
        await stage.apply(a=entry("x: 1\n", isolation=Isolation.INLINE))
        assert len(stage.opener.opened) == 2


async def test_refused_settings_leave_the_last_good_registration(tmp_path: Path, autojump_clock: object) -> None:
    """The plugin stays, says why, and is asked again when somebody applies (plugin-abi 10, 7)."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry("good: 1\n"))
        stage.opener.last.refuses = "bad mode"
        await stage.apply(a=entry("bad: 1\n"))
        status = stage.state()
        assert (status.state, status.generation) == (PluginState.REGISTERED, 1)
        assert status.reason == "plugin.reconfigure: bad mode; the previous settings stay in force"
        await stage.live().call(NORMALIZE, ASK)
        stage.opener.last.refuses = ""
        await stage.apply(a=entry("good: 1\n"))  # it may have taken half of the bad ones
        assert stage.state().reason == ""
        assert stage.opener.last.settings[-1].config_yaml.data == b"good: 1\n"
        assert len(stage.opener.last.settings) == 3


async def test_a_plugin_that_crashes_over_new_settings_comes_back_with_the_old(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Also when it cannot even register with them."""

    def prepare(transport: FakeTransport) -> None:
        async def crash_when_bad(payload: bytes) -> bytes:
            if b"YmFk" in payload:
                transport.die()
                await trio.sleep_forever()
            return await transport._default("plugin.register")(payload)

        transport.answers["plugin.register"] = transport.answers["plugin.reconfigure"] = crash_when_bad

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry("good"))
        await stage.apply(a=entry("bad"))
        await trio.sleep(5)
        assert stage.state().state is PluginState.REGISTERED
        assert stage.state().reason == "it did not start with the new ones; the previous settings stay in force"
        assert stage.opener.last.settings[-1].config_yaml.data == b"good"


async def test_a_crash_that_only_met_new_settings_does_not_cost_them(tmp_path: Path, autojump_clock: object) -> None:
    """They are what the plugin starts with next."""

    async def crash(payload: bytes) -> bytes:
        stage.opener.last.die("killed by signal 9 (SIGKILL)")
        return await trio.sleep_forever()

    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry("old"))
        stage.opener.last.answers["plugin.reconfigure"] = crash
        await stage.apply(a=entry("new"))
        await stage.until(PluginState.REGISTERED)
        assert stage.opener.last.settings[-1].config_yaml.data == b"new"
        assert stage.state().reason == ""


async def test_a_plugin_that_dies_while_it_drains_is_nobodys_crash(tmp_path: Path, autojump_clock: object) -> None:
    """Its calls fail; the new generation is not touched."""
    async with staged(tmp_path) as stage, trio.open_nursery() as nursery:
        stage.put("a")
        await stage.apply(a=entry())
        old, plugin = stage.opener.last, stage.live()
        old.answers["request.normalize"] = hang

        async def call() -> None:
            with pytest.raises(PluginCrashed):
                await plugin.call(NORMALIZE, ASK)

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        stage.put("a")
        await stage.apply(a=entry())
        old.die()
        await trio.sleep(100)
        assert (stage.state().state, stage.state().generation) == (PluginState.REGISTERED, 2)
        assert len(stage.opener.opened) == 2


async def test_no_descriptors_are_a_failure_like_others(tmp_path: Path, autojump_clock: object) -> None:
    """An operating system that refuses must not end the proxy."""

    def prepare(transport: FakeTransport) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        assert stage.state().reason == "cannot start: [Errno 24] Too many open files"


async def test_switching_off_does_not_wait_for_a_plugin_that_thinks_about_settings(
    tmp_path: Path, autojump_clock: object
) -> None:
    """What it is doing is abandoned, then it ends."""
    async with staged(tmp_path) as stage, trio.open_nursery() as nursery:
        stage.put("a")
        await stage.apply(a=entry())
        stage.opener.last.answers["plugin.reconfigure"] = hang
        nursery.start_soon(stage.manager.apply, stage.config(a=entry("x: 1\n")))
        await passing(lambda: "plugin.reconfigure" in stage.opener.last.calls)
        begin = trio.current_time()
        await stage.apply(a=PluginEntry())
        await stage.opener.last.died.wait()
        assert trio.current_time() - begin < 1


async def test_a_replaced_library_gets_a_new_generation_first(tmp_path: Path, autojump_clock: object) -> None:
    """Calls that run finish on the old copy, later ones go to the new one, then the old one is shut down."""
    began, finish = trio.Event(), trio.Event()

    def prepare(transport: FakeTransport) -> None:
        async def wait(payload: bytes) -> bytes:
            began.set()
            await finish.wait()
            return NOTHING

        if len(stage.opener.opened) == 1:
            transport.answers["request.normalize"] = wait

    async with staged(tmp_path, prepare) as stage, trio.open_nursery() as nursery:
        stage.put("a")
        await stage.apply(a=entry())
        plugin = stage.live()
        nursery.start_soon(plugin.call, NORMALIZE, ASK)
        await began.wait()
        stage.put("a")
        await stage.apply(a=entry())
        old, new = stage.opener.opened
        assert (stage.state().generation, stage.live().generation) == (2, 2)
        await plugin.call(NORMALIZE, ASK)  # who has the old value reaches the new copy
        assert new.calls == ["plugin.register", "request.normalize"]
        assert stage.fate(0) is None
        finish.set()
        await old.died.wait()
        assert stage.fate(0) == "closed"
        assert old.grace_s == 2.0


async def test_an_old_generation_is_not_drained_for_ever(tmp_path: Path, autojump_clock: object) -> None:
    """And those who hold it can call it until then."""
    async with staged(tmp_path, drain_s=100.0) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        old = stage.opener.last
        with stage.live().hold() as held:
            stage.put("a")
            await stage.apply(a=entry())
            swapped = trio.current_time()
            await held.call(NORMALIZE, ASK)
            assert (held.generation, held.death) == (1, None)
            await held.died.wait()
            assert trio.current_time() - swapped == pytest.approx(100)
            assert held.death == "closed"
            with pytest.raises(PluginClosed):
                await held.call(NORMALIZE, ASK)
        assert old.calls == ["plugin.register", "request.normalize"]


async def test_a_failed_upgrade_keeps_the_old_generation(tmp_path: Path, autojump_clock: object) -> None:
    """Nothing that worked is given up; settings still reach the old copy, and after a crash its file is used."""

    def prepare(transport: FakeTransport) -> None:
        if transport.path.endswith("a-v2.so") and broken:
            raise PluginLoadError("missing cliproxy_plugin_init", plugin_id="a")

    broken = True
    async with staged(tmp_path, prepare) as stage:
        stage.put("a-v1")
        await stage.apply(a=entry())
        stage.put("a-v2")
        await stage.apply(a=entry("x: 1\n"))
        status = stage.state()
        assert (status.state, status.generation, status.version) == (PluginState.REGISTERED, 1, "1")
        assert status.reason.endswith("failed: missing cliproxy_plugin_init; generation 1 stays in force")
        first = stage.opener.opened[0]
        assert first.calls == ["plugin.register", "plugin.reconfigure"]
        first.die()
        await stage.until(PluginState.RESTARTING)
        await stage.until(PluginState.REGISTERED)
        assert stage.opener.last.path.endswith("a-v1.so")
        broken = False
        await stage.apply(a=entry("x: 1\n"))
        status = stage.state()
        assert (status.version, status.reason, status.generation) == ("2", "", 3)


async def test_another_isolation_is_another_generation(tmp_path: Path, autojump_clock: object) -> None:
    """Per plugin or for all."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        await stage.manager.apply(attrs.evolve(stage.config(a=entry()), isolation=Isolation.INLINE))
        assert [copy.isolation for copy in stage.opener.opened] == [Isolation.PROCESS, Isolation.INLINE]
        assert stage.state().isolation is Isolation.INLINE


async def test_switching_off_ends_a_plugin_and_on_starts_it(tmp_path: Path, autojump_clock: object) -> None:
    """One plugin, all of them, or the file taken away; nothing stays resident unseen (plugin-abi 10, 13)."""
    async with staged(tmp_path) as stage:
        stage.put("a", "b")
        await stage.apply(a=entry(), b=entry())
        plugin = stage.live()
        first = next(copy for copy in stage.opener.opened if copy.plugin_id == "a")
        await stage.apply(a=PluginEntry(), b=entry())
        await first.died.wait()
        assert (stage.state().state, stage.state().pid, stage.state().generation) == (PluginState.DISABLED, 0, 0)
        with pytest.raises(PluginUnavailable, match="plugin a is disabled"):
            await plugin.call(NORMALIZE, ASK)
        await stage.apply(a=entry(), b=entry())
        assert [item.id for item in stage.manager.snapshot()] == ["a", "b"]
        await stage.manager.apply(attrs.evolve(stage.config(a=entry(), b=entry()), enabled=False))
        assert stage.manager.snapshot() == ()
        assert stage.state().reason == "plugins.enabled is false"
        await stage.apply(a=entry(), b=entry())
        (tmp_path / "a.so").unlink()
        await stage.apply(a=entry(), b=entry())
        assert stage.state().state is PluginState.FAILED
        assert [item.id for item in stage.manager.snapshot()] == ["b"]
        await stage.apply(b=entry())
        assert [status.id for status in stage.manager.states()] == ["b"]


async def test_a_loaded_plugin_outlives_a_pin_that_no_file_has(tmp_path: Path, autojump_clock: object) -> None:
    """It is kept in force with its old path (plugin-abi 1.5)."""
    raw: Any = freeze({"store": {"version": "7"}})
    async with staged(tmp_path) as stage:
        stage.put("a-v1")
        await stage.apply(a=entry())
        await stage.apply(a=entry(raw=raw))
        assert (stage.state().state, stage.state().version) == (PluginState.REGISTERED, "1")
        await stage.apply(a=PluginEntry(raw=raw))
        assert stage.state().state is PluginState.DISABLED


async def test_a_new_priority_is_one_step(tmp_path: Path, autojump_clock: object) -> None:
    """No snapshot shows half of a reordering."""
    async with staged(tmp_path) as stage:
        stage.put("a", "b")
        await stage.apply(a=entry(), b=entry())
        del stage.changes[:]
        await stage.apply(a=entry(priority=-1), b=entry(priority=1))
        assert [[plugin.id for plugin in snapshot] for snapshot in stage.changes] == [["b", "a"]]


async def test_a_crash_fails_its_calls_and_the_plugin_comes_back(tmp_path: Path, autojump_clock: object) -> None:
    """Calls meanwhile fail at once and may be tried again; the snapshot keeps the plugin."""

    async def crash(payload: bytes) -> bytes:
        stage.opener.last.die()
        return await trio.sleep_forever()

    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        plugin = stage.live()
        stage.opener.last.answers["request.normalize"] = crash
        with pytest.raises(PluginCrashed):
            await plugin.call(NORMALIZE, ASK)
        with pytest.raises(PluginUnavailable) as caught:
            await plugin.call(NORMALIZE, ASK)
        assert caught.value.retryable
        assert (caught.value.state, caught.value.reason) == ("restarting", "killed by signal 11 (SIGSEGV)")
        assert stage.manager.snapshot() == (plugin,)
        died = trio.current_time()
        await stage.until(PluginState.REGISTERED)
        assert trio.current_time() - died < 2
        await plugin.call(NORMALIZE, ASK)
        assert (plugin.generation, stage.live().generation) == (1, 2)
        assert stage.opener.last.calls == ["plugin.register", "request.normalize"]


async def crash_until_fused(stage: Stage) -> list[float]:
    """Times between restarts."""
    times = []
    for _ in range(FUSE_CRASHES - 1):
        await stage.until(PluginState.REGISTERED)
        died = trio.current_time()
        stage.opener.last.die()
        await stage.until(PluginState.RESTARTING)
        await stage.until(PluginState.REGISTERED)
        times.append(trio.current_time() - died)
    stage.opener.last.die()
    await stage.until(PluginState.FUSED)
    return times


async def test_a_plugin_that_crashes_again_and_again_is_fused(tmp_path: Path, autojump_clock: object) -> None:
    """Later each time, then not at all, until somebody arms it, or something is different."""
    async with staged(tmp_path) as stage:
        stage.put("a", "b")
        await stage.apply(a=entry(), b=entry())
        plugin = stage.live()
        await crash_until_fused_named(stage)
        assert stage.state().reason.startswith("crashed 5 times within 60 s, the last time: killed by signal 11")
        assert [item.id for item in stage.manager.snapshot()] == ["b"]
        opened = len(stage.opener.opened)
        await stage.apply(a=entry(), b=entry())
        await trio.sleep(1000)
        assert len(stage.opener.opened) == opened
        with pytest.raises(PluginUnavailable, match="plugin a is fused"):
            await plugin.call(NORMALIZE, ASK)
        assert stage.manager.rearm("a")
        await stage.until(PluginState.REGISTERED)
        assert not stage.manager.rearm("nobody")


async def crash_until_fused_named(stage: Stage) -> None:
    """With another plugin beside it; its delays double."""
    times = []
    for _ in range(FUSE_CRASHES):
        copy = next(item for item in reversed(stage.opener.opened) if item.plugin_id == "a")
        died = trio.current_time()
        copy.die()
        await passing(lambda: stage.state().state is PluginState.RESTARTING, 0.001)
        await passing(lambda: stage.state().state is not PluginState.RESTARTING, 0.001)
        times.append(trio.current_time() - died)
    assert times[:-1] == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=0.02)


@pytest.mark.parametrize("how", ["file", "settings", "switch"])
async def test_a_change_rearms_a_fused_plugin(tmp_path: Path, autojump_clock: object, how: str) -> None:
    """Another library, other settings, off and on."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        await crash_until_fused(stage)
        match how:
            case "file":
                stage.put("a")
                await stage.apply(a=entry())
            case "settings":
                await stage.apply(a=entry("x: 1\n"))
            case _:
                await stage.apply(a=PluginEntry())
                await stage.apply(a=entry())
        assert stage.state().state is PluginState.REGISTERED


async def test_a_good_while_makes_a_crash_the_first_again(tmp_path: Path, autojump_clock: object) -> None:
    """So that one a day never fuses."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        for _ in range(3 * FUSE_CRASHES):
            await trio.sleep(GOOD_WHILE_S)
            died = trio.current_time()
            stage.opener.last.die()
            await stage.until(PluginState.RESTARTING)
            await stage.until(PluginState.REGISTERED)
            assert trio.current_time() - died < 2


async def test_refusing_to_come_back_is_no_crash(tmp_path: Path, autojump_clock: object) -> None:
    """It is tried for as long as it takes, at most every thirty seconds (a licence server may be down)."""

    def prepare(transport: FakeTransport) -> None:
        transport.refuses = "" if len(stage.opener.opened) in (1, 12) else "no licence"

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        stage.opener.last.die()
        await stage.until(PluginState.RESTARTING)
        await trio.sleep(50)
        assert (stage.state().state, stage.state().reason) == (PluginState.RESTARTING, "plugin.register: no licence")
        await passing(lambda: stage.state().state is PluginState.REGISTERED, 1)
        assert len(stage.opener.opened) == 12


async def test_a_plugin_that_never_starts_is_fused_too(tmp_path: Path, autojump_clock: object) -> None:
    """A crash in init counts; apply only waits for the first attempt."""

    def prepare(transport: FakeTransport) -> None:
        raise PluginCrashed(plugin_id="a", reason="killed by signal 11 (SIGSEGV)", method="cliproxy_plugin_init")

    async with staged(tmp_path, prepare) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        assert stage.state().state is PluginState.RESTARTING
        await stage.until(PluginState.FUSED)
        assert len(stage.opener.opened) == FUSE_CRASHES
        assert stage.manager.snapshot() == ()


async def hang(payload: bytes) -> bytes:
    """A plugin that does not come back."""
    return await trio.sleep_forever()


@pytest.mark.parametrize(
    ("timeout", "method", "expected"),
    [
        (None, "request.normalize", 30.0),
        (7.0, "request.normalize", 7.0),
        (0.0, "request.normalize", math.inf),
        (None, "executor.execute", math.inf),
        (7.0, "executor.execute", 7.0),
    ],
)
async def test_calls_have_a_hard_deadline(
    tmp_path: Path, autojump_clock: object, timeout: float | None, method: str, expected: float
) -> None:
    """The operator's, else the method's own; zero is none."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry(timeout=timeout))
        stage.opener.last.answers[method] = hang
        begin = trio.current_time()
        caught: list[PluginTimeout] = []
        with trio.move_on_after(1000):
            try:
                if method == "executor.execute":
                    await stage.live().call(methods.EXECUTOR_EXECUTE, ExecuteRequest())
                else:
                    await stage.live().call(NORMALIZE, ASK)
            except PluginTimeout as exc:
                caught.append(exc)
        if math.isinf(expected):
            assert not caught
            assert trio.current_time() - begin == 1000
        else:
            assert (caught[0].http_status, caught[0].method, caught[0].timeout_s) == (504, method, expected)
            assert trio.current_time() - begin == pytest.approx(expected)


async def test_a_worker_that_does_not_come_back_is_killed(tmp_path: Path, autojump_clock: object) -> None:
    """After the grace time; it restarts as after any crash."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry(timeout=2.0))
        hung = stage.opener.last
        hung.answers["request.normalize"] = hang
        with pytest.raises(PluginTimeout):
            await stage.live().call(NORMALIZE, ASK)
        assert stage.fate(0) is None
        begin = trio.current_time()
        await hung.died.wait()
        assert trio.current_time() - begin == pytest.approx(5)
        assert stage.fate(0) == "hung in request.normalize for more than 7 s"
        await stage.until(PluginState.REGISTERED)
        assert stage.state().generation == 2


async def test_a_worker_that_comes_back_late_lives(tmp_path: Path, autojump_clock: object) -> None:
    """Its reply is dropped and that is all."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry(timeout=2.0))
        late = stage.opener.last
        late.answers["request.normalize"] = hang
        with pytest.raises(PluginTimeout):
            await stage.live().call(NORMALIZE, ASK)
        await trio.sleep(1)
        late.left.clear()
        late.late_replies = 1
        await trio.sleep(100)
        assert late.death is None


Lines = list[tuple[str, dict[str, object]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What generations log, warnings and information alike."""
    noted: Lines = []

    def note(event: str, **fields: object) -> None:
        noted.append((event, fields))

    monkeypatch.setattr("cpa.host.generation.log.warning", note, raising=False)
    monkeypatch.setattr("cpa.host.generation.log.info", note, raising=False)
    return noted


async def test_what_a_plugin_prints_is_logged_with_its_name(
    tmp_path: Path, autojump_clock: object, lines: Lines
) -> None:
    """And with the copy that said it."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        assert lines == [("plugin output", {"plugin": "a", "generation": 1, "stream": "stderr", "text": "a loads"})]


async def test_slow_calls_are_mentioned_once(tmp_path: Path, autojump_clock: object, lines: Lines) -> None:
    """While they run, by plugin and method, and again with the whole time when they end."""

    async def slow(payload: bytes) -> bytes:
        await trio.sleep(20)
        return NOTHING

    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        await trio.sleep(100)
        stage.opener.last.answers["request.normalize"] = slow
        del lines[:]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.live().call, NORMALIZE, ASK)
            await trio.sleep(4.9)
            assert lines == []
            await trio.sleep(5)
            assert [event for event, _ in lines] == ["plugin call is slow"]
            assert lines[0][1] == {"plugin": "a", "generation": 1, "method": "request.normalize", "seconds": 5.0}
        assert [event for event, _ in lines] == ["plugin call is slow", "slow plugin call ended"]
        assert lines[1][1]["seconds"] == 20.0


async def test_a_cancelled_call_leaves_nothing_behind(tmp_path: Path, autojump_clock: object) -> None:
    """Its generation can be retired at once."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        old = stage.opener.last
        old.answers["request.normalize"] = hang
        with trio.move_on_after(1):
            await stage.live().call(NORMALIZE, ASK)
        begin = trio.current_time()
        await stage.apply(a=PluginEntry())
        await old.died.wait()
        assert trio.current_time() - begin < 1


async def leave(stage: Stage, calls: int, method: methods.Method[Any, Any] = methods.EXECUTOR_EXECUTE) -> None:
    """Make *calls* calls, whose callers leave after a second."""
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            for _ in range(calls):
                nursery.start_soon(stage.live().call, method, method.request())


async def test_many_stuck_calls_kill_a_worker(tmp_path: Path, autojump_clock: object, lines: Lines) -> None:
    """Executors have no deadline: those whose callers left would fill the worker for good."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        hung = stage.opener.last
        hung.answers["executor.execute"] = hung.answers["executor.count_tokens"] = hang
        await leave(stage, 31)
        assert stage.state().reason == ""
        await leave(stage, 1, methods.EXECUTOR_COUNT_TOKENS)
        await trio.sleep(1000)
        assert stage.fate(0) is None
        assert stage.state().reason == "stuck calls: 1 in executor.count_tokens, 31 in executor.execute"
        said = [fields["method"] for event, fields in lines if event == "plugin call is stuck"]
        assert sorted(map(str, said)) == ["executor.count_tokens", "executor.execute"]
        await leave(stage, 1)
        begin = trio.current_time()
        await hung.died.wait()
        assert trio.current_time() - begin == pytest.approx(5)
        assert stage.fate(0) == "33 abandoned calls are stuck: 1 in executor.count_tokens, 32 in executor.execute"
        await stage.until(PluginState.REGISTERED)
        assert (stage.state().generation, stage.state().reason) == (2, "")


async def test_a_small_worker_bears_fewer_stuck_calls(tmp_path: Path, autojump_clock: object) -> None:
    """Three of four threads."""
    async with staged(tmp_path, lambda transport: setattr(transport, "max_calls", 4)) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        hung = stage.opener.last
        hung.answers["executor.execute"] = hang
        await leave(stage, 2)
        await trio.sleep(100)
        assert hung.death is None
        await leave(stage, 1)
        await hung.died.wait()
        assert stage.fate(0) == "3 abandoned calls are stuck: 3 in executor.execute"


async def test_calls_that_come_back_late_are_not_stuck(tmp_path: Path, autojump_clock: object) -> None:
    """Many clients leave at once; the plugin needs a while to see it."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        late = stage.opener.last
        late.answers["executor.execute"] = hang
        await leave(stage, 200)
        await trio.sleep(4)
        late.left.clear()
        await trio.sleep(100)
        assert late.death is None
        await leave(stage, 10)
        await trio.sleep(10)
        assert stage.state().reason == "stuck calls: 10 in executor.execute"
        late.left.clear()
        assert stage.state().reason == ""


async def test_a_call_whose_caller_left_has_its_deadline_too(tmp_path: Path, autojump_clock: object) -> None:
    """What nobody waits for any more does not hang for longer than what somebody waits for."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry(timeout=20.0))
        hung = stage.opener.last
        hung.answers["request.normalize"] = hang
        begin = trio.current_time()
        await leave(stage, 1, NORMALIZE)
        await hung.died.wait()
        assert trio.current_time() - begin == pytest.approx(25)
        assert stage.fate(0) == "hung in request.normalize for more than 25 s"


async def test_inside_the_proxy_stuck_calls_are_only_shown(
    tmp_path: Path, autojump_clock: object, lines: Lines
) -> None:
    """Whatever their number is, and past every deadline."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry(isolation=Isolation.INLINE, timeout=2.0))
        hung = stage.opener.last
        hung.answers["executor.execute"] = hang
        await leave(stage, 40)
        await trio.sleep(100)
        assert hung.death is None
        assert stage.state().state is PluginState.REGISTERED
        assert stage.state().reason == "stuck calls: 40 in executor.execute"
        assert [event for event, _ in lines].count("plugin call is stuck") == 1


async def test_what_a_plugin_reports_reaches_the_caller(tmp_path: Path, autojump_clock: object) -> None:
    """An error of the plugin's never disables it (plugin-abi 6.10)."""

    async def fail(payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return encode_error("quota", http_status=429)

    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        stage.opener.last.answers["request.normalize"] = fail
        with pytest.raises(PluginCallError) as caught:
            await stage.live().call(NORMALIZE, ASK)
        assert caught.value.http_status == 429
        assert stage.state().state is PluginState.REGISTERED


async def test_loading_is_bounded_and_one_that_hangs_delays_nobody(tmp_path: Path, autojump_clock: object) -> None:
    """Others take part as soon as they are registered; libraries inside the proxy load one by one."""
    async with staged(tmp_path, starts_at_once=3) as stage, trio.open_nursery() as nursery:
        names = [f"p{number}" for number in range(8)]
        stage.put(*names)
        await stage.apply(**{name: entry() for name in names})
        assert stage.opener.most_loading == 3
        stage.opener.most_loading = 0
        await stage.apply(**{name: entry(isolation=Isolation.INLINE) for name in names})
        assert stage.opener.most_loading == 1
        stage.put("slow")
        stage.opener.gate = trio.Event()
        configs = {name: entry(isolation=Isolation.INLINE) for name in names}
        nursery.start_soon(stage.manager.apply, stage.config(slow=entry(), **configs))
        await passing(lambda: stage.opener.loading > 0)
        assert (stage.state("slow").state, stage.state("slow").reason) == (PluginState.RESTARTING, "starting")
        await stage.apply(slow=PluginEntry(), **configs)  # nobody wants it any more: loading ends
        assert stage.opener.loading == 0
        assert stage.state("slow").state is PluginState.DISABLED


async def test_applies_are_taken_in_order(tmp_path: Path, autojump_clock: object) -> None:
    """The last word counts, and everybody who asked returns."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(stage.manager.apply, stage.config(a=entry(f"n: {number}\n")))
                await trio.testing.wait_all_tasks_blocked()
        assert stage.opener.last.settings[-1].config_yaml.data == b"n: 19\n"


async def test_a_cancelled_apply_is_finished_in_the_background(tmp_path: Path, autojump_clock: object) -> None:
    """What is wanted stays wanted."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        stage.opener.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.manager.apply, stage.config(a=entry()))
            await passing(lambda: stage.opener.loading > 0)
            nursery.cancel_scope.cancel()
        stage.opener.gate.set()
        await stage.until(PluginState.REGISTERED)


async def test_the_end_drains_within_its_time(tmp_path: Path, autojump_clock: object) -> None:
    """A call that ends is waited for, one that does not is not; new ones are refused."""
    outcomes = []

    async def slow(payload: bytes) -> bytes:
        await trio.sleep(3)
        return NOTHING

    async def call(plugin: LivePlugin) -> None:
        try:
            await plugin.call(NORMALIZE, ASK)
            outcomes.append("done")
        except PluginClosed:
            outcomes.append("closed")

    async with trio.open_nursery() as nursery:
        async with staged(tmp_path) as stage:
            stage.put("a", "b")
            await stage.apply(a=entry(), b=entry())
            for copy in stage.opener.opened:
                copy.answers["request.normalize"] = slow if copy.plugin_id == "a" else hang
            plugin = stage.live()
            nursery.start_soon(call, plugin)
            nursery.start_soon(call, stage.live("b"))
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
        assert trio.current_time() - begin == pytest.approx(5, abs=0.1)
    assert outcomes == ["done", "closed"]
    assert stage.manager.snapshot() == ()
    with pytest.raises(PluginUnavailable):
        await plugin.call(NORMALIZE, ASK)
    await stage.apply(a=entry())
    assert len(stage.opener.opened) == 2


async def test_cancelling_the_proxy_ends_plugins_in_every_state(tmp_path: Path, autojump_clock: object) -> None:
    """Running, waiting to restart and loading ones: nothing is left over."""
    with trio.move_on_after(10) as scope:
        async with staged(tmp_path) as stage:
            stage.put("a", "b", "c")
            await stage.apply(a=entry(), b=entry())
            next(copy for copy in stage.opener.opened if copy.plugin_id == "b").die()
            stage.opener.gate = trio.Event()
            await stage.apply(a=entry(), b=entry(), c=entry())
    assert scope.cancelled_caught
    assert all(copy.death is not None for copy in stage.opener.opened)
    assert stage.opener.loading == 0
    assert trio.current_time() < 20


async def test_calls_and_holds_are_checkpoints(tmp_path: Path, autojump_clock: object) -> None:
    """A call can be cancelled before it begins."""
    async with staged(tmp_path) as stage:
        stage.put("a")
        await stage.apply(a=entry())
        calls = list(stage.opener.last.calls)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stage.live().call(methods.THINKING_IDENTIFIER, Empty())
        assert scope.cancelled_caught
        assert stage.opener.last.calls == calls
