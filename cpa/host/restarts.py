"""When a plugin that crashed starts again, and when it does not any more. Arithmetic; the clock is the caller's."""

from collections import deque
from typing import Final

import attrs

FIRST_BACKOFF_S: Final = 0.1
"""A crashed plugin is back within a second, and a proxy with a broken one does not spin."""
MAX_BACKOFF_S: Final = 30.0
FUSE_CRASHES: Final = 5
FUSE_WINDOW_S: Final = 60.0
"""So many process deaths in so many seconds: whatever is wrong does not go away by starting again."""
GOOD_WHILE_S: Final = 60.0
"""After so long without a crash, the next one is the first again."""


@attrs.define(eq=False, slots=True)
class Restarts:
    """The memory of one plugin's crashes. All times in seconds of one clock.

    Attributes:
      due: when the next attempt may begin.
    """

    due: float = 0
    _attempts: int = 0
    _crashes: deque[float] = attrs.field(factory=deque)

    def crashed(self, now: float) -> bool:
        """Count a crash; True when the fuse blows."""
        self._crashes.append(now)
        while self._crashes[0] <= now - FUSE_WINDOW_S:
            self._crashes.popleft()
        return len(self._crashes) >= FUSE_CRASHES

    def back_off(self, now: float) -> float:
        """Put the next attempt off, further each time; by how much."""
        # The exponent is bounded before it is used: a plugin may refuse for years.
        delay_s = min(FIRST_BACKOFF_S * 2.0 ** min(self._attempts, 32), MAX_BACKOFF_S)
        self._attempts += 1
        self.due = now + delay_s
        return delay_s

    def forgive(self) -> None:
        """Forget everything."""
        self.due = 0
        self._attempts = 0
        self._crashes.clear()
