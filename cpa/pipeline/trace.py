"""What each stage and each step of an execution did and how long it took."""

from collections import deque
from collections.abc import Callable
from enum import StrEnum

import attrs

from cpa.pipeline.stage import StageKind
from cpa.types import PluginId

MAX_RECORDS = 256
"""Per execution. A stream calls its chunk stages thousands of times; the last calls tell what the first ones told."""


class StageOutcome(StrEnum):
    """How one call of a stage ended."""

    COMPLETE = "complete"
    FAILED = "failed"


@attrs.frozen
class StageRecord:
    """One call of one stage. *duration_s* is wall time, waiting included."""

    kind: StageKind
    plugin_id: PluginId
    outcome: StageOutcome
    duration_s: float


@attrs.define(kw_only=True, eq=False)
class StepRecord:
    """One step of a chain in one attempt. A step of a stream is called once per event and has one record.

    Attributes:
      chain: its name; empty = the standard order.
      side: ``request`` or ``response``; step: as it is written, with its setting.
      calls, changed: how often it ran, and how often something was different afterwards.
      skipped: why it did not run, e.g. that its plugin is not there.
      duration_s: of all calls together, waiting included.
    """

    chain: str
    side: str
    step: str
    calls: int = 0
    changed: int = 0
    failed: bool = False
    skipped: str = ""
    duration_s: float = 0.0
    _watch: "Watch | None" = attrs.field(default=None, repr=False, alias="watch")

    def note(self, before: bytes, after: bytes, duration_s: float) -> None:
        """One call is over."""
        self.calls += 1
        self.changed += before is not after and before != after
        self.duration_s += duration_s
        if self._watch is not None:
            self._watch(self, before, after)


Watch = Callable[[StepRecord, bytes, bytes], None]
"""Is shown what a step got and what it left, call by call."""


@attrs.define(eq=False)
class Trace:
    """The last `MAX_RECORDS` stage calls of one execution, oldest first, and the steps of its chains.

    Attributes:
      watch: is shown all bodies, for `cpa translate --steps`.
    """

    records: deque[StageRecord] = attrs.field(factory=lambda: deque(maxlen=MAX_RECORDS))
    steps: deque[StepRecord] = attrs.field(factory=lambda: deque(maxlen=MAX_RECORDS))
    watch: Watch | None = None

    def step(self, *, chain: str, side: str, step: str) -> StepRecord:
        """Begin the record of a step."""
        record = StepRecord(chain=chain, side=side, step=step, watch=self.watch)
        self.steps.append(record)
        return record
