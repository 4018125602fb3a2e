"""Completion events run here, after and apart from the exchanges that caused them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from cpa.pipeline.dispatch import ask
from cpa.pipeline.stage import CompletionCall, Registration
from cpa.pipeline.trace import Trace

MAX_RUNNING = 256
"""Completion calls at a time. An exchange that ends while as many run waits for a place."""
DRAIN_S = 5.0
"""How long running calls may take when the program ends."""


class Completions:
    """See `cpa.pipeline.runner.CompletionSink`; made by `open_completions`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._slots = trio.Semaphore(MAX_RUNNING)

    async def submit(self, call: CompletionCall, entries: Sequence[Registration]) -> None:
        """Tell all *entries* at the same time; waits only while too many calls are running."""
        for entry in entries:
            await self._slots.acquire()
            self._nursery.start_soon(self._tell, entry, call, name=f"{entry.kind}:{entry.plugin_id}")

    async def _tell(self, entry: Registration, call: CompletionCall) -> None:
        try:
            await ask(entry, call, Trace())
        finally:
            self._slots.release()


@asynccontextmanager
async def open_completions() -> AsyncIterator[Completions]:
    """The service while the block runs; what is under way at its end gets `DRAIN_S` more."""
    async with trio.open_nursery() as nursery:
        yield Completions(nursery)
        nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S
