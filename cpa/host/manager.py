"""All plugins: which there shall be, from configuration and folder; what they are, for the rest of the proxy.

`open_plugins` owns the tasks: one per plugin that is wanted (`slot.py`) and one per loaded copy (`generation.py`).
`apply` only says what is wanted and waits until everybody tried once. A plugin that hangs while it loads delays its own
slot and the caller of `apply`, neither traffic nor other plugins: each takes part as soon as it is registered.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import trio

from cpa.abi.transport import HostCallHandler
from cpa.config.schema import Isolation, PluginEntry, PluginsConfig
from cpa.host.discovery import Discovery, PluginFile, discover, pinned_version
from cpa.host.generation import DEFAULT_LIMITS, Generation, GenerationLimits, TransportOpener
from cpa.host.plugin import LivePlugin, PluginStatus, Target
from cpa.host.slot import PluginSlot
from cpa.observability.log import get_logger
from cpa.types import PluginId

log = get_logger()

STARTS_AT_ONCE: Final = max(4, 2 * (os.cpu_count() or 1))
"""Workers that load at the same time: their runtimes start on all processors, but others need those as well."""


@attrs.frozen(kw_only=True)
class ManagerLimits:
    """Seconds, except *starts_at_once*.

    Attributes:
      drain_s: what a copy that was replaced or switched off gets to finish its calls and streams; long, because model
        answers are, and because nobody waits for it.
      close_drain_s: the same when the proxy ends.
    """

    drain_s: float = 600.0
    close_drain_s: float = 5.0
    starts_at_once: int = STARTS_AT_ONCE
    generation: GenerationLimits = DEFAULT_LIMITS


Finder: TypeAlias = Callable[[Path, Mapping[str, PluginEntry]], Awaitable[Discovery]]
"""``await finder(folder, configs)``: see `discovery.discover`."""


async def find_plugins(folder: Path, configs: Mapping[str, PluginEntry]) -> Discovery:
    """`discovery.discover` on a thread: folders may lie on slow disks. Cancellation: at once."""
    return await trio.to_thread.run_sync(discover, folder, configs, abandon_on_cancel=True)


def _nothing() -> None:
    pass


def _nothing_of(plugin_id: PluginId, number: int, reason: str) -> None:
    pass


@attrs.define(eq=False, slots=True, kw_only=True)
class PluginManager:
    """See `open_plugins`."""

    _opener: TransportOpener
    _handler_for: Callable[[PluginId, int], HostCallHandler]
    _on_end: Callable[[PluginId, int, str], None]
    _on_change: Callable[[], None]
    _find: Finder
    _limits: ManagerLimits
    _slot_tasks: trio.Nursery
    _generation_tasks: trio.Nursery

    _slots: dict[str, PluginSlot] = attrs.field(factory=dict)
    _generations: set[Generation] = attrs.field(factory=set)
    _snapshot: tuple[LivePlugin, ...] = ()
    _missed: tuple[PluginId, ...] = ()
    _discovery: Discovery = attrs.field(factory=Discovery)
    _order: trio.Lock = attrs.field(factory=trio.Lock)
    _inline: set[PluginId] = attrs.field(factory=set)
    _left: trio.Event = attrs.field(factory=trio.Event)
    _together: bool = False
    _closed: bool = False
    _process_starts: trio.CapacityLimiter = attrs.field(init=False)
    _inline_starts: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))  # plugin-abi 9.1

    def __attrs_post_init__(self) -> None:
        self._process_starts = trio.CapacityLimiter(self._limits.starts_at_once)

    def snapshot(self) -> tuple[LivePlugin, ...]:
        """Plugins that take part, highest priority first, then by id bytewise. Replaced as a whole, never changed."""
        return self._snapshot

    def missed(self) -> tuple[PluginId, ...]:
        """Plugins with ``on-error: fail`` that should take part and do not, by id: no request may be served."""
        return self._missed

    def states(self) -> tuple[PluginStatus, ...]:
        """Every plugin that was found or is configured, by id bytewise."""
        return tuple(slot.status() for _, slot in sorted(self._slots.items()))

    @property
    def discovery(self) -> Discovery:
        """What the last `apply` found; empty while ``plugins.enabled`` is false."""
        return self._discovery

    async def apply(self, config: PluginsConfig) -> None:
        """Make *config* and the content of its folder true; returns when every plugin was tried once.

        Never raises because of a plugin or a folder: see `states`, and `discovery` for warnings.
        Concurrency: applies are ordered; a later one overrides an earlier one that still waits for a plugin.
        Cancellation: at once; what is wanted stays wanted and is done in the background.
        """
        # The order is that of calls. The lock covers the look at the folder, no call of a plugin.
        async with self._order:
            found = Discovery()
            if config.enabled:
                found = await self._find(config.dir, config.configs)
            tried = [] if self._closed else self._aim(config, found)
        for event in tried:
            await event.wait()
        self._forget()

    def rearm(self, plugin_id: str) -> bool:
        """Start a fused, failed or waiting plugin now, without waiting for it. False: no such plugin."""
        slot = self._slots.get(plugin_id)
        if slot is not None:
            slot.rearm()
        return slot is not None

    async def reload(self, plugin_id: str) -> bool:
        """Load another copy of a plugin's library, and wait until that was tried; `states` says what became of it.

        False: no such plugin, or it is not wanted. Cancellation: it is done in the background.
        """
        slot = self._slots.get(plugin_id)
        if slot is None or not slot.target.wanted or not slot.busy:
            await trio.lowlevel.checkpoint()
            return False
        await slot.reload().wait()
        return True

    def stays_loaded(self, plugin_id: str) -> bool:
        """The library is part of this process, for as long as that lives."""
        return plugin_id in self._inline

    async def unload(self, plugin_id: str, *, patience_s: float) -> None:
        """End a plugin, until the next `apply` that wants it; waits *patience_s* at most for its running calls, which
        go on in any case: a copy is nobody's file."""
        slot = self._slots.get(plugin_id)
        if slot is not None and slot.busy:
            await slot.set_target(attrs.evolve(slot.target, wanted=False, why_not="it is being deleted")).wait()
        with trio.move_on_after(patience_s):
            while any(generation.plugin_id == plugin_id for generation in self._generations):
                await self._left.wait()

    # ---- inside ----

    def _aim(self, config: PluginsConfig, found: Discovery) -> list[trio.Event]:
        """One step: every slot learns what is wanted of it, and the snapshot changes at most once."""
        for warning in found.warnings:
            log.warning("plugins folder", text=warning)
        self._discovery = found
        files = {file.id: file for file in found.selected}
        tried = []
        self._together = True
        for plugin_id in {*self._slots, *files, *config.configs}:
            target = _target(plugin_id, config, files.get(PluginId(plugin_id)), found)
            slot = self._slots.get(plugin_id)
            if slot is None:
                slot = self._slots[plugin_id] = PluginSlot(
                    plugin_id=PluginId(plugin_id),
                    drain_s=self._limits.drain_s,
                    on_change=self._publish,
                    load=self._load,
                )
            tried.append(slot.set_target(target))
            slot.start(self._slot_tasks)
        self._together = False
        self._publish()
        return tried

    def _forget(self) -> None:
        """Drop slots of plugins that are neither there nor configured any more."""
        for plugin_id, slot in list(self._slots.items()):
            if not slot.busy and slot.target.file is None and not slot.target.configured:
                del self._slots[plugin_id]

    def _publish(self) -> None:
        if self._together or self._closed:
            return
        live = [slot.live for slot in self._slots.values() if slot.live is not None]
        snapshot = tuple(sorted(live, key=lambda plugin: (-plugin.priority, plugin.id)))
        missed = tuple(sorted(slot.plugin_id for slot in self._slots.values() if slot.missed))
        if (snapshot, missed) != (self._snapshot, self._missed):
            self._snapshot, self._missed = snapshot, missed
            self._on_change()

    async def _load(
        self,
        *,
        plugin_id: PluginId,
        number: int,
        file: PluginFile,
        isolation: Isolation,
        config_yaml: bytes,
        timeout_s: float | None,
        on_death: Callable[[], None],
    ) -> Generation:
        """See `slot.Loader`."""
        generation = Generation(
            plugin_id=plugin_id,
            number=number,
            file=file,
            isolation=isolation,
            config_yaml=config_yaml,
            timeout_s=timeout_s,
            on_death=on_death,
            opener=self._opener,
            handler=self._handler_for(plugin_id, number),
            limits=self._limits.generation,
        )
        if isolation is Isolation.INLINE:
            self._inline.add(plugin_id)
        async with self._inline_starts if isolation is Isolation.INLINE else self._process_starts:
            await self._generation_tasks.start(self._keep, generation, name=f"{plugin_id} generation {number}")
        return generation

    async def _keep(self, generation: Generation, *, task_status: trio.TaskStatus[None]) -> None:
        self._generations.add(generation)
        try:
            await generation.run(task_status=task_status)
        finally:
            self._generations.discard(generation)
            left, self._left = self._left, trio.Event()
            left.set()
            self._on_end(generation.plugin_id, generation.number, generation.end_reason)

    def _close(self) -> None:
        """No calls any more; every copy ends when it is not in use, or its time is over."""
        self._together = True
        for slot in self._slots.values():
            slot.close()
        self._together = False
        self._publish()
        self._closed = True
        self._slot_tasks.cancel_scope.cancel()
        for generation in self._generations:
            generation.retire(self._limits.close_drain_s)


def _target(plugin_id: str, config: PluginsConfig, file: PluginFile | None, found: Discovery) -> Target:
    entry = config.configs.get(plugin_id)
    settings = entry or PluginEntry()
    why_not = ""
    if not config.enabled:
        why_not = "plugins.enabled is false"
    elif entry is None:
        why_not = f"plugins.configs.{plugin_id} is missing"
    elif not entry.enabled:
        why_not = f"plugins.configs.{plugin_id}.enabled is not true"
    wanted = not why_not
    if wanted and file is None:
        why_not = found.why_not(plugin_id) or f"no library in {config.dir}"
    return Target(
        wanted=wanted,
        why_not=why_not,
        file=file,
        keep=bool(pinned_version(entry)),
        isolation=settings.isolation or config.isolation,
        config_yaml=settings.config_yaml.encode("utf-8", "replace"),
        timeout_s=settings.timeout,
        priority=settings.priority,
        enabled=settings.enabled,
        configured=entry is not None,
        on_error=settings.on_error,
    )


@asynccontextmanager
async def open_plugins(
    opener: TransportOpener,
    *,
    handler_for: Callable[[PluginId, int], HostCallHandler],
    on_change: Callable[[], None] = _nothing,
    on_end: Callable[[PluginId, int, str], None] = _nothing_of,
    limits: ManagerLimits | None = None,
    find: Finder = find_plugins,
) -> AsyncIterator[PluginManager]:
    """A manager without plugins; `PluginManager.apply` brings them, the end of the block ends them.

    Args:
      opener: loads libraries; `opening.native_opener` for real ones.
      handler_for: who answers the host calls of a plugin's copy of that number; asked once for each. It must not raise.
      on_change: called, synchronously, after each change of `PluginManager.snapshot` or `PluginManager.missed`; must
        not block or raise.
      on_end: called likewise when a copy of a plugin has ended: its id, its number, why.

    What the block raises arrives in a group.
    Ownership: processes, threads and descriptors are gone when the block has been left, except what inline libraries
      cannot give back. Takes at most the drain time plus twice the shutdown time; when cancelled, only the latter.
    """
    limits = limits or ManagerLimits()
    async with trio.open_nursery() as generations, trio.open_nursery() as slots:
        manager = PluginManager(
            opener=opener,
            handler_for=handler_for,
            on_change=on_change,
            on_end=on_end,
            find=find,
            limits=limits,
            slot_tasks=slots,
            generation_tasks=generations,
        )
        try:
            yield manager
        finally:
            manager._close()
