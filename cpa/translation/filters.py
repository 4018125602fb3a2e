"""Filters on the events of an answer that stand between normalizer and emitter."""

from collections.abc import Sequence

from cpa.translation.ir import IREvent


class StopGuard:
    """Emulates stop sequences for providers that know none (translation 2.4).

    Attributes:
      stopped: one was found and `End` was given out; the provider's request is to be cancelled.
    """

    def __init__(self, stops: Sequence[str], *, estimated_input: int = 0) -> None:
        self._stops = tuple(stops)
        self.stopped = False

    def feed(self, event: IREvent) -> list[IREvent]:
        """What the emitter gets instead of *event*."""
        return [event]
