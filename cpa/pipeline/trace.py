"""What each stage of an execution did and how long it took."""

from collections import deque
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


@attrs.define(eq=False)
class Trace:
    """The last `MAX_RECORDS` stage calls of one execution, oldest first."""

    records: deque[StageRecord] = attrs.field(factory=lambda: deque(maxlen=MAX_RECORDS))
