"""Everything that happens to one plugin id.

Theory of operation. `PluginSlot` has a target, which the manager sets, and a present generation. One task per plugin
compares the two and does what is missing: start, reconfigure, replace, restart after a crash, stop. It is woken by a
new target, by the death of the generation and by `rearm`; nothing else changes the state, so there are no locks. What
the rest of the proxy sees is `live`, one frozen value that is swapped in a single step.

A plugin that worked keeps working: a replacement is loaded and registered beside it first, and settings that it refuses
leave the registration that it had. Process deaths count towards the fuse; a plugin that merely refuses to register
again after a crash is tried for ever, ever more slowly.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from cpa.abi.errors import PluginCrashed, PluginError
from cpa.config.schema import Isolation, OnError
from cpa.host.discovery import PluginFile
from cpa.host.generation import Generation
from cpa.host.plugin import NOTHING_WANTED, LivePlugin, PluginState, PluginStatus, PluginUnavailable, Target
from cpa.host.restarts import FUSE_CRASHES, FUSE_WINDOW_S, GOOD_WHILE_S, Restarts
from cpa.observability.log import get_logger
from cpa.types import PluginId

log = get_logger()


class Loader(Protocol):
    """How a slot gets a generation; the manager's."""

    async def __call__(
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
        """Load and register one copy; it runs until it is retired. Raises: PluginError."""
        ...


@attrs.define(eq=False, slots=True, kw_only=True)
class PluginSlot:
    """One plugin id.

    Attributes:
      live: what takes part; None = nothing does.
      on_change: called after each change of `live`.
      drain_s: what a copy that was replaced or switched off gets to finish.
    """

    plugin_id: PluginId
    drain_s: float
    on_change: Callable[[], None]
    _load: Loader

    target: Target = NOTHING_WANTED
    live: LivePlugin | None = None
    state: PluginState = PluginState.DISABLED
    reason: str = ""
    busy: bool = False  # its task runs

    _present: Generation | None = None
    _number: int = 0
    _file: PluginFile | None = None  # of the last copy that registered
    _good_yaml: bytes | None = None  # with which it worked last
    _bad_yaml: bytes | None = None  # refused by a plugin that worked with others
    _failed_target: Target | None = None  # for which a first load failed
    _failed_upgrade: Target | None = None
    _upgrade_note: str = ""
    _unsettled: bool = False  # a reconfiguration did not succeed: which settings the plugin has is its secret
    _step: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _alive_since: float = math.inf
    _restarts: Restarts = attrs.field(factory=Restarts)
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _waiters: list[trio.Event] = attrs.field(factory=list)
    _revision: int = 0
    _again: bool = False  # somebody wants another copy of the same library

    # ---- for the rest of the proxy ----

    def current(self) -> Generation:
        """The copy in force. Raises: PluginUnavailable."""
        present = self._present
        if present is None or present.death is not None:
            state, reason = self._how()
            raise PluginUnavailable(plugin_id=self.plugin_id, state=state, reason=reason)
        return present

    @property
    def missed(self) -> bool:
        """It is wanted, requests may not do without it, and it does not take part: it could not be loaded, is fused,
        or has not started yet. One that crashed and starts again takes part; its calls fail."""
        return self.live is None and self.target.wanted and self.target.on_error is OnError.FAIL

    def _how(self) -> tuple[PluginState, str]:
        # Between a death and our task's turn, those who look must not see a registered plugin without a process.
        death = self._present.death if self._present is not None else None
        return (PluginState.RESTARTING, death) if death is not None else (self.state, self.reason)

    def status(self) -> PluginStatus:
        """For operators."""
        present, target = self._present, self.target
        file = present.file if present is not None else target.file or self._file
        loaded = present is not None and present.death is None
        state, reason = self._how()
        return PluginStatus(
            id=self.plugin_id,
            path=str(file.path) if file else "",
            version=file.version if file else "",
            state=state,
            reason=_notes(reason, present.trouble) if present is not None else reason,
            generation=self._number if loaded else 0,
            isolation=present.isolation if present is not None else target.isolation,
            pid=present.pid if present is not None and loaded else 0,
            priority=target.priority,
            enabled=target.enabled,
            metadata=self.live.metadata if self.live else None,
            schema_version=self.live.schema_version if self.live else 0,
        )

    # ---- for the manager ----

    def set_target(self, target: Target) -> trio.Event:
        """Say what is wanted; the event is set when that, or a later target, was tried once."""
        old, self.target = self.target, target
        self._bad_yaml = None
        if not target.wanted or _what_runs(old) != _what_runs(target):
            self._forgive()
        if not target.wanted:
            self._step.cancel()  # whatever loads or thinks about settings right now: nobody needs it any more
        if self._present is not None:
            self._present.timeout_s = target.timeout_s
        if self.live is not None:
            self._show(attrs.evolve(self.live, priority=target.priority, on_error=target.on_error))
        self._revision += 1
        tried = trio.Event()
        self._waiters.append(tried)
        self._wake.set()
        return tried

    def rearm(self) -> None:
        """Start a fused, failed or waiting plugin now. No effect on one that runs or is not wanted."""
        self._forgive()
        self._failed_target = self._failed_upgrade = None
        self._revision += 1
        self._wake.set()

    def reload(self) -> trio.Event:
        """Load the library once more, beside the copy that runs, which ends when the new one works. The event is set
        when that was tried. One that does not run is started; one that is not wanted stays as it is."""
        self._again = True
        self.rearm()
        tried = trio.Event()
        self._waiters.append(tried)
        return tried

    def close(self) -> None:
        """The end: nothing takes part any more. Its generations are the manager's to retire."""
        self.state, self.reason = PluginState.DISABLED, "the proxy is ending"
        self._present = None
        self._show(None)

    def start(self, nursery: trio.Nursery) -> None:
        """Let the slot's task run in *nursery*, unless it does. It ends when nothing is wanted any more."""
        if not self.busy:
            self.busy = True
            nursery.start_soon(self._run, name=f"plugin {self.plugin_id}")

    async def _run(self) -> None:
        try:
            while True:
                self._wake = trio.Event()
                revision, due = self._revision, math.inf
                with trio.CancelScope() as self._step:
                    due = await self._converge()
                if self._revision == revision:
                    for tried in self._waiters:
                        tried.set()
                    self._waiters.clear()
                    if not self.target.wanted and self._present is None:
                        return
                with trio.move_on_at(due):
                    await self._wake.wait()
        finally:
            self.busy = False

    # ---- the task ----

    async def _converge(self) -> float:
        """One step towards the target; when to look again without being woken, infinite for never."""
        target = self.target
        self._note_death()
        if not target.wanted:
            self._stop(PluginState.DISABLED, target.why_not)
            return math.inf
        file = target.file or (self._file if target.keep else None)
        if file is None:
            self._stop(PluginState.FAILED, target.why_not)
            return math.inf
        if self.state is PluginState.FUSED:
            return math.inf
        if self._present is not None:
            await self._renew(self._present, target)
            return math.inf
        if trio.current_time() < self._restarts.due:
            return self._restarts.due
        if not self._worth_another_try(self._failed_target):
            return math.inf
        failed, last = self._failed_upgrade, self._file
        if failed is not None and last is not None and _what_runs(failed) == _what_runs(target):
            file = last  # the new library did not work when the old one still did
        await self._start(file)
        return self._restarts.due if self._present is None and self.state is PluginState.RESTARTING else math.inf

    async def _start(self, file: PluginFile) -> None:
        target = self.target
        config_yaml = target.config_yaml
        if config_yaml == self._bad_yaml and self._good_yaml is not None:
            config_yaml = self._good_yaml
        if self.state is not PluginState.RESTARTING:
            self.state, self.reason = PluginState.RESTARTING, "starting"
        try:
            fresh = await self._loaded(file, target, config_yaml)
        except PluginCrashed as exc:
            self._spoil(config_yaml)
            self._count_crash(exc.message)
        except PluginError as exc:
            if self._good_yaml is None:  # never worked: trying again is for the next time somebody changes something
                self._failed_target = target
                self.state, self.reason = PluginState.FAILED, exc.message
                self._show(None)
                log.error("plugin cannot be used", plugin=self.plugin_id, path=str(file.path), reason=exc.message)
            else:
                self._spoil(config_yaml)
                self._back_off(exc.message)
        else:
            note = "" if config_yaml == target.config_yaml else _previous_settings("it did not start with the new ones")
            self._take(fresh, _notes(self._upgrade_note, note))

    async def _renew(self, present: Generation, target: Target) -> None:
        """Bring a running plugin to the target: another copy if it has to be another one, else its settings."""
        again, self._again = self._again, False
        if target.file is None or (_same_copy(present, target) and not again):
            self._upgrade_note, self._failed_upgrade = "", None
        elif self._worth_another_try(self._failed_upgrade) and await self._replace(present, target, target.file):
            return
        if target.config_yaml == self._bad_yaml:
            return
        if target.config_yaml != present.config_yaml or self._unsettled:
            await self._reconfigure(present, target.config_yaml)
        else:
            self.reason = self._upgrade_note

    async def _replace(self, old: Generation, target: Target, file: PluginFile) -> bool:
        try:
            fresh = await self._loaded(file, target, target.config_yaml)
        except PluginError as exc:
            self._upgrade_note = f"upgrade to {file.path} failed: {exc.message}; generation {old.number} stays in force"
            self.reason = self._upgrade_note
            self._failed_upgrade = target
            log.error("plugin upgrade failed", plugin=self.plugin_id, path=str(file.path), reason=exc.message)
            return False
        self._upgrade_note, self._failed_upgrade = "", None
        self._take(fresh, "")
        old.retire(self.drain_s)
        return True

    async def _reconfigure(self, present: Generation, config_yaml: bytes) -> None:
        self._unsettled = True
        try:
            await present.reconfigure(config_yaml)
        except PluginCrashed as exc:  # perhaps over something else: the next start tries these settings once more
            log.warning("plugin crashed over new settings", plugin=self.plugin_id, reason=exc.message)
        except PluginError as exc:
            self._bad_yaml = config_yaml
            self.reason = _notes(self._upgrade_note, _previous_settings(exc.message))
            log.error("plugin refuses its new settings", plugin=self.plugin_id, reason=exc.message)
        else:
            self._take(present, self._upgrade_note)

    async def _loaded(self, file: PluginFile, target: Target, config_yaml: bytes) -> Generation:
        return await self._load(
            plugin_id=self.plugin_id,
            number=self._number + 1,
            file=file,
            isolation=target.isolation,
            config_yaml=config_yaml,
            timeout_s=target.timeout_s,
            on_death=lambda: self._wake.set(),
        )

    def _take(self, generation: Generation, reason: str) -> None:
        """Put *generation*, registered, in force."""
        if generation is not self._present:
            self._alive_since = trio.current_time()
        self._present, self._number, self._file = generation, generation.number, generation.file
        self._good_yaml = generation.config_yaml
        self._failed_target, self._unsettled, self._again = None, False, False
        generation.timeout_s = self.target.timeout_s
        self.state, self.reason = PluginState.REGISTERED, reason
        registration = generation.registration
        self._show(
            LivePlugin(
                id=self.plugin_id,
                priority=self.target.priority,
                generation=generation.number,
                metadata=registration.metadata,
                capabilities=registration.capabilities,
                schema_version=registration.schema_version,
                identifiers=registration.identifiers,
                settings=hashlib.sha256(generation.config_yaml).hexdigest(),
                on_error=self.target.on_error,
                current=self.current,
            )
        )
        log.info("plugin registered", plugin=self.plugin_id, generation=generation.number, pid=generation.pid)

    def _stop(self, state: PluginState, reason: str) -> None:
        present, self._present = self._present, None
        self.state, self.reason = state, reason
        self._good_yaml = None
        self._upgrade_note, self._failed_upgrade = "", None
        self._show(None)
        if present is not None:
            present.retire(self.drain_s)

    def _show(self, live: LivePlugin | None) -> None:
        if live != self.live:
            self.live = live
            self.on_change()

    # ---- crashes ----

    def _note_death(self) -> None:
        present = self._present
        if present is None or present.death is None:
            return
        self._present = None
        if trio.current_time() - self._alive_since >= GOOD_WHILE_S:
            self._forgive()
        self._count_crash(present.death)

    def _count_crash(self, reason: str) -> None:
        if self._restarts.crashed(trio.current_time()):
            self.state = PluginState.FUSED
            self.reason = f"crashed {FUSE_CRASHES} times within {FUSE_WINDOW_S:g} s, the last time: {reason}"
            self._show(None)
            log.error("plugin is fused", plugin=self.plugin_id, reason=self.reason)
        else:
            self._back_off(reason)

    def _back_off(self, reason: str) -> None:
        delay_s = self._restarts.back_off(trio.current_time())
        self.state, self.reason = PluginState.RESTARTING, reason
        log.warning("plugin starts again soon", plugin=self.plugin_id, reason=reason, seconds=delay_s)

    def _forgive(self) -> None:
        self._restarts.forgive()
        if self.state is PluginState.FUSED:
            self.state = PluginState.RESTARTING

    def _spoil(self, config_yaml: bytes) -> None:
        """These settings did not start the plugin: the next attempt is with those that did."""
        if self._good_yaml not in (None, config_yaml):
            self._bad_yaml = config_yaml

    def _worth_another_try(self, failed: Target | None) -> bool:
        """Whether something changed, or somebody asked, since loading failed for *failed*."""
        if failed is None:
            return True
        # Every attempt inside the proxy leaves a copy of the library in memory for ever.
        same = _what_runs(failed) == _what_runs(self.target)
        return failed is not self.target and not (same and self.target.isolation is Isolation.INLINE)


def _what_runs(target: Target) -> tuple[PluginFile | None, Isolation, bytes]:
    return target.file, target.isolation, target.config_yaml


def _same_copy(present: Generation, target: Target) -> bool:
    return present.file == target.file and present.isolation is target.isolation


def _notes(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _previous_settings(reason: str) -> str:
    return f"{reason}; the previous settings stay in force"
