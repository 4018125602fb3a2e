"""Running proxies with compiled plugins, and what tests ask of them from the outside."""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import psutil
import pytest
import trio

from cpa.abi import methods, wire
from cpa.config.schema import Isolation
from cpa.host.plugin import LivePlugin, PluginState, PluginStatus
from tests.proxy import RunningProxy, running_proxy

BOTH = pytest.mark.parametrize("isolation", list(Isolation), ids=str)

Settings: TypeAlias = Mapping[str, object]
"""A plugin's part of the configuration, one line per entry."""


@attrs.define(eq=False)
class PluginFolder:
    """A plugins folder, and the configuration that goes with it."""

    path: Path
    _configs: dict[str, Settings] = attrs.field(factory=dict)

    def add(self, plugin_id: str, library: Path, **settings: object) -> None:
        """Install *library* as *plugin_id*."""
        shutil.copyfile(library, self.path / f"{plugin_id}.so")
        self._configs[plugin_id] = {"enabled": "true", **settings}

    def yaml(self, isolation: Isolation) -> str:
        """For the configuration file. In block style: test plugins read their settings line by line."""
        lines = ["plugins:", "  enabled: true", f"  dir: {self.path}", f"  isolation: {isolation}", "  configs:"]
        for plugin_id, settings in self._configs.items():
            lines.append(f"    {plugin_id}:")
            lines += [f"      {key}: {value}" for key, value in settings.items()]
        return "\n".join(lines)

    @asynccontextmanager
    async def proxy(self, isolation: Isolation, extra: str = "") -> AsyncIterator[RunningProxy]:
        """A proxy with these plugins in front of a mock provider. One error of the block leaves it without groups."""
        try:
            async with running_proxy(extra=f"{self.yaml(isolation)}\n{extra}") as proxy:
                yield proxy
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None  # a dozen nested groups are more than what is printed of one


def status(proxy: RunningProxy, plugin_id: str) -> PluginStatus:
    """How a plugin is, as operators see it."""
    return next(item for item in proxy.app.plugins.manager.states() if item.id == plugin_id)


def live(proxy: RunningProxy, plugin_id: str) -> LivePlugin:
    """A plugin that takes part."""
    return next(item for item in proxy.app.plugins.manager.snapshot() if item.id == plugin_id)


async def until(reached: Callable[[], bool]) -> None:
    """Returns when *reached*; lets others run meanwhile. For use under a deadline."""
    while not reached():
        await trio.lowlevel.checkpoint()


async def until_state(proxy: RunningProxy, plugin_id: str, state: PluginState) -> PluginStatus:
    """The plugin's status once it has that state."""
    await until(lambda: status(proxy, plugin_id).state is state)
    return status(proxy, plugin_id)


async def ask_page(proxy: RunningProxy, plugin_id: str, path: str = "/seen") -> Any:
    """The JSON that a plugin shows on a page, without the HTTP surface in between."""
    reply = await live(proxy, plugin_id).call(
        methods.MANAGEMENT_HANDLE, wire.ManagementRequest(method="GET", path=path)
    )
    return json.loads(reply.body)


@attrs.frozen
class Leftovers:
    """What a process has: nothing of it may be more after a test than before."""

    children: frozenset[int]
    descriptors: tuple[str, ...]

    @classmethod
    def now(cls) -> "Leftovers":
        """A look at this process."""
        links = []
        for name in os.listdir("/proc/self/fd"):
            try:
                links.append(kind_of(os.readlink(f"/proc/self/fd/{name}")))
            except FileNotFoundError:  # that of the listing itself
                continue
        return cls(
            frozenset(child.pid for child in psutil.Process().children(recursive=True)),
            tuple(sorted(links)),
        )

    def more_descriptors(self) -> Counter[str]:
        """What this process has now beyond these."""
        return Counter(type(self).now().descriptors) - Counter(self.descriptors)


def kind_of(link: str) -> str:
    """A descriptor without the number of its socket or pipe."""
    return link.partition(":")[0] if ":[" in link else link


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fails when the block leaves processes, descriptors or temporary files behind."""
    before = Leftovers.now()
    with tempfile.TemporaryDirectory(prefix="cpa-tests-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)  # nobody else's files are in the way there
        patch.setenv("TMPDIR", folder)
        yield
        assert not os.listdir(folder)
    # Less is fine: threads that earlier tests left inside this process may end meanwhile.
    assert Leftovers.now().children <= before.children
    with trio.move_on_after(2.0):  # the thread of a file watcher closes its descriptors after its owner has left
        await until(lambda: not before.more_descriptors())
    more = before.more_descriptors()
    assert not more, more
