"""What plugins were asked and what they said, so that nobody asks the same thing twice.

Theory of operation. Somebody computes a picture of the world from answers of plugins. He does so in rounds: in each, he
asks `Questions.answer` for all that he needs, gets what is known, and makes do without the rest, which is being asked
for meanwhile. When everything that runs has come back, *on_idle* tells him to begin the next round; its picture may
need other answers. What a round did not ask for is forgotten at its end, calls in progress included.

A question's key says all that its answer depends on, so an answer holds until nobody needs it any more. A failure holds
for `RETRY_S`. Its subject is what the question is about: until there is an answer, and if there is none because the
plugin is not available, the last answer on the subject counts.
"""

import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar

import attrs
import trio

from cpa.abi.envelope import PluginCallError
from cpa.errors import CpaError
from cpa.observability.log import get_logger
from cpa.types import PluginId

T = TypeVar("T")
log = get_logger()

CALLS_AT_ONCE: Final = 4
"""Of one plugin: many serialise them anyway, and its calls for clients come first."""
RETRY_S: Final = 60.0
"""Until a question that failed is asked again without anybody having changed anything."""


@attrs.frozen
class Failed:
    """A plugin that could not answer."""

    error: CpaError


@attrs.define(eq=False, slots=True)
class _Entry:
    subject: Hashable
    answer: Any = None  # None = not yet; a `Failed`, or what was asked for
    scope: trio.CancelScope | None = None  # of the call in progress
    retry_at: float = math.inf  # Trio clock
    needed: bool = True


class Questions:
    """See the module. The tasks of *nursery* are the calls in progress."""

    def __init__(self, nursery: trio.Nursery, *, on_idle: Callable[[], None]) -> None:
        self._nursery = nursery
        self._on_idle = on_idle
        self._entries: dict[Hashable, _Entry] = {}
        self._last: dict[Hashable, Any] = {}  # by subject
        self._limiters: defaultdict[PluginId, trio.CapacityLimiter] = defaultdict(
            lambda: trio.CapacityLimiter(CALLS_AT_ONCE)
        )
        self._running = 0

    @property
    def running(self) -> int:
        """Calls in progress or waiting for their turn."""
        return self._running

    @property
    def retry_at(self) -> float:
        """Trio time at which the next failure wants another round; infinite for never."""
        return min((entry.retry_at for entry in self._entries.values()), default=math.inf)

    def begin_round(self) -> None:
        """From here on, what is needed is asked for."""
        for entry in self._entries.values():
            entry.needed = False

    def end_round(self) -> None:
        """Forget what was not asked for since `begin_round`."""
        for key, entry in list(self._entries.items()):
            if not entry.needed:
                del self._entries[key]
                if entry.scope is not None:
                    entry.scope.cancel()
        subjects = {entry.subject for entry in self._entries.values()}
        for subject in self._last.keys() - subjects:
            del self._last[subject]

    def answer(
        self, key: Hashable, *, subject: Hashable, plugin_id: PluginId, ask: Callable[[], Awaitable[T]]
    ) -> T | Failed | None:
        """The answer to *key*, or the last one on *subject*, as far as it is known; None = it is not yet.

        Args:
          plugin_id: whose turn it is.
          ask: gets the answer, which must not be None. May raise `CpaError`.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(subject)
        entry.needed = True
        unanswered = entry.answer is None or trio.current_time() >= entry.retry_at
        if unanswered and entry.scope is None:
            entry.scope, entry.retry_at = trio.CancelScope(), math.inf
            self._running += 1
            self._nursery.start_soon(self._ask, entry, entry.scope, plugin_id, ask, name=f"ask {plugin_id}")
        known: T | Failed | None = entry.answer
        if known is None or (isinstance(known, Failed) and not isinstance(known.error, PluginCallError)):
            return self._last.get(subject, known)
        return known

    def know(self, key: Hashable, subject: Hashable, answer: object) -> None:
        """Let *answer* be the answer to *key*, as if it had been asked for in this round."""
        self._entries[key] = _Entry(subject, answer)
        self._last[subject] = answer

    async def _ask(
        self, entry: _Entry, scope: trio.CancelScope, plugin_id: PluginId, ask: Callable[[], Awaitable[Any]]
    ) -> None:
        try:
            with scope:
                async with self._limiters[plugin_id]:
                    try:
                        entry.answer = self._last[entry.subject] = await ask()
                    except CpaError as exc:
                        log.warning("plugin gives no answer", plugin=plugin_id, reason=exc.message)
                        entry.answer = Failed(exc)
                        entry.retry_at = trio.current_time() + RETRY_S
        finally:
            entry.scope = None
            self._running -= 1
            if not self._running:
                self._on_idle()
