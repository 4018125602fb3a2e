"""Waiting for sockets with the precision of microseconds, for the load generator and the provider. Linux only."""

import ctypes
import select

PR_SET_TIMERSLACK = 29
"""See prctl(2)."""


def precise_timers() -> None:
    """Let this process wake up when it asked to, not up to 50 µs later."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def wait(epoll: select.epoll, seconds: float | None) -> list[tuple[int, int]]:
    """What is ready within *seconds*; None = however long it takes.

    epoll counts in milliseconds, select in microseconds; an epoll object is itself something to select.
    """
    if seconds is None or seconds > 0:
        ready, _, _ = select.select([epoll], [], [], seconds)
        if not ready:
            return []
    return epoll.poll(0)
