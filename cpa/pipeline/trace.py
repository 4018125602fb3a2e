"""What each stage and each step of an execution did and how long it took, and what its attempts came to.

Kept for every execution, so that an operator can look at it afterwards: sums per stage, not one record per call, or a
stream of a thousand chunks would have thousands. What a stage changed is kept only when somebody looks (`Trace.keep`):
the bodies before and after it, bounded, which whoever shows them compares.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Final, TypeAlias

import attrs
import msgspec

from cpa.formats.headers import HeaderMap
from cpa.pipeline.stage import Registration, StageKind
from cpa.translation.context import Context
from cpa.translation.loss import Loss
from cpa.types import PluginId

MAX_STEPS: Final = 256
"""Of one execution: a chain has a handful, but every attempt goes through all of it."""
MAX_ATTEMPTS: Final = 64
MAX_KEPT: Final = 3
"""Changes of one stage or step that are kept; those of a stream's later chunks tell what the first ones told."""
MAX_KEPT_BYTES: Final = 1 << 20
"""A larger body is not kept, only its size."""
ROOM_BYTES: Final = 4 << 20
"""For all that is kept of one execution."""
MAX_REASON_CHARS: Final = 300
MAX_LOSSES: Final = 100
"""Kept of an execution that has ended; a body may be made to lose thousands of things."""


@attrs.frozen
class Kept:
    """One change: a body, or headers, before and after. Of a body that was too large only its size is there."""

    before: "bytes | int | HeaderMap" = attrs.field(repr=False)
    after: "bytes | int | HeaderMap" = attrs.field(repr=False)


@attrs.define(eq=False)
class Room:
    """What may still be kept of one execution."""

    left_bytes: int = ROOM_BYTES

    def body(self, before: bytes, after: bytes) -> Kept:
        """A change of a body."""
        size = len(before) + len(after)
        if size > self.left_bytes or max(len(before), len(after)) > MAX_KEPT_BYTES:
            return Kept(len(before), len(after))
        self.left_bytes -= size
        return Kept(before, after)


@attrs.define(kw_only=True, eq=False)
class StageRecord:
    """All calls of one plugin's stage in an execution.

    Attributes:
      started: perf_counter of the first call.
      calls, failed, changed: how often it ran, failed, and left something else than it got.
      duration_s: of all calls together, waiting included.
      reason: of the last failure, or how it ended the request. May hold whatever a plugin says.
    """

    kind: StageKind
    plugin_id: PluginId
    started: float
    calls: int = 0
    failed: int = 0
    changed: int = 0
    duration_s: float = 0.0
    reason: str = ""
    kept: list[Kept] = attrs.field(factory=list, repr=False)


@attrs.define(kw_only=True, eq=False)
class StepRecord:
    """One step of a chain in one attempt. A step of a stream is called once per event and has one record.

    Attributes:
      chain: its name; empty = the standard order.
      side: ``request`` or ``response``; step: as it is written, with its setting.
      started: perf_counter of its beginning.
      calls, changed: how often it ran, and how often something was different afterwards.
      skipped: why it did not run, e.g. that its plugin is not there.
      duration_s: of all calls together, waiting included.
    """

    chain: str
    side: str
    step: str
    started: float = attrs.field(factory=perf_counter)
    calls: int = 0
    changed: int = 0
    failed: bool = False
    skipped: str = ""
    duration_s: float = 0.0
    kept: list[Kept] = attrs.field(factory=list, repr=False)
    _watch: "Watch | None" = attrs.field(default=None, repr=False, alias="watch")
    _room: Room | None = attrs.field(default=None, repr=False, alias="room")

    def note(self, before: bytes, after: bytes, duration_s: float) -> None:
        """One call is over."""
        self.calls += 1
        self.duration_s += duration_s
        if before is not after and before != after:
            self.changed += 1
            if self._room is not None and len(self.kept) < MAX_KEPT:
                self.kept.append(self._room.body(before, after))
        if self._watch is not None:
            self._watch(self, before, after)


class AttemptRecord(msgspec.Struct, kw_only=True, eq=False):
    """One attempt with one credential.

    Attributes:
      credential, provider: label and provider key; model: the provider's name of it.
      provider_format: protocol of the provider; empty until the request was prepared.
      why: how it was chosen.
      started: perf_counter; duration_s: None while it runs. A stream's attempt lasts as long as the stream.
      status: 200, or what the error means; 0 while it runs and for a client that left.
    """

    credential: str
    credential_id: str
    provider: str
    model: str
    why: str
    provider_format: str = ""
    started: float = msgspec.field(default_factory=perf_counter)
    duration_s: float | None = None
    status: int = 0
    error: str = ""

    def ended(self, status: int, error: str = "") -> None:
        """It is over; only the first call counts."""
        if self.duration_s is None:
            self.duration_s = perf_counter() - self.started
            self.status, self.error = status, error[:MAX_REASON_CHARS] if error else ""


Watch: TypeAlias = Callable[[StepRecord, bytes, bytes], None]
"""Is shown what a step got and what it left, call by call."""


@attrs.define(eq=False)
class Trace:
    """Attributes:
    stages: by plugin and kind, in the order of their first calls.
    attempts: oldest first.
    input_tokens, output_tokens: of all attempts, as far as they were counted; None = nobody counted.
    watch: is shown all bodies, for `cpa translate --steps`.
    room: what may be kept of changes; None = nothing, nobody looks.
    """

    stages: dict[tuple[PluginId, StageKind], StageRecord] = attrs.field(factory=dict)
    attempts: deque[AttemptRecord] = attrs.field(factory=partial(deque[AttemptRecord], (), MAX_ATTEMPTS))
    input_tokens: int | None = None
    output_tokens: int | None = None
    watch: Watch | None = None
    room: Room | None = None
    _losses: list[list[Loss]] = attrs.field(factory=list)
    _settled: tuple[Loss, ...] | None = None
    _steps: deque[StepRecord] | None = None  # most executions have none

    @property
    def steps(self) -> Sequence[StepRecord]:
        """Of its chains, oldest first."""
        return () if self._steps is None else self._steps

    def stage(self, entry: Registration) -> StageRecord:
        """The record of *entry*, which is being called."""
        key = (entry.plugin_id, entry.kind)
        record = self.stages.get(key)
        if record is None:
            record = StageRecord(kind=entry.kind, plugin_id=entry.plugin_id, started=perf_counter())
            self.stages[key] = record
        return record

    def changed(self, entry: Registration, before: bytes, after: bytes) -> None:
        """*entry* left another body than it got."""
        record = self.stage(entry)
        record.changed += 1
        if self.room is not None and len(record.kept) < MAX_KEPT:
            record.kept.append(self.room.body(before, after))

    def headers_changed(self, entry: Registration, before: HeaderMap, after: HeaderMap) -> None:
        """*entry* left other headers."""
        if self.room is not None:
            record = self.stage(entry)
            if len(record.kept) < MAX_KEPT:
                record.kept.append(Kept(before, after))

    def step(self, *, chain: str, side: str, step: str) -> StepRecord:
        """Begin the record of a step."""
        record = StepRecord(chain=chain, side=side, step=step, watch=self.watch, room=self.room)
        if self._steps is None:
            self._steps = deque(maxlen=MAX_STEPS)
        self._steps.append(record)
        return record

    def translated_by(self, contexts: Sequence[Context]) -> None:
        """*contexts* translate in the present attempt; what they lose is this execution's loss."""
        for context in contexts:
            if not any(context.losses is known for known in self._losses):
                self._losses.append(context.losses)

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What was lost so far, each thing once; of an execution that has ended at most `MAX_LOSSES`."""
        if self._settled is not None:
            return self._settled
        return tuple(dict.fromkeys(loss for losses in self._losses for loss in losses))

    def settle(self) -> None:
        """The execution is over: hold no more than is worth showing."""
        self._settled = self.losses[:MAX_LOSSES] if self._losses or self._settled else ()
        self._losses.clear()

    def used(self, input_tokens: int, output_tokens: int) -> None:
        """An attempt cost so much."""
        self.input_tokens = (self.input_tokens or 0) + input_tokens
        self.output_tokens = (self.output_tokens or 0) + output_tokens

    @property
    def kept_bytes(self) -> int:
        """Size of what was kept of changes."""
        return 0 if self.room is None else ROOM_BYTES - self.room.left_bytes

    def forget_bodies(self) -> None:
        """Let go what was kept of changes."""
        self.room = None  # what still runs keeps nothing more
        for stage in self.stages.values():
            stage.kept.clear()
        for step in self.steps:
            step.kept.clear()
