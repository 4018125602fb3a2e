"""The usage queue: records for collectors that fetch them, or that listen (proxy 7.4, 7.5).

In memory, bounded by count, bytes and age. While somebody is subscribed to records these go to the subscribers and not
into the queue, as deployed collectors expect.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from time import monotonic
from typing import Final

import attrs
import structlog
import trio

from cpa.usage.record import UsageRecord
from cpa.usage.wire import error_event, queue_record

log = structlog.get_logger(__name__)

MAX_RECORDS: Final = 100_000
MAX_BYTES: Final = 64 << 20
"""What the queue may hold, whatever the retention: an hour of a busy proxy would be gigabytes."""
MAX_BEHIND: Final = 256
"""Messages that a subscriber may be behind (proxy appendix B); then it is let go."""
MAX_SUBSCRIBERS: Final = 64
SUPPORT_REFRESH: Final = b'{"support_refresh":true}'
"""First message on `Topic.USAGE`."""
REFRESH: Final = b'{"refresh":true}'
"""Message when credentials or the configuration changed."""


class Topic(StrEnum):
    """What one may listen to."""

    USAGE = "usage"
    ERRORS = "errors"


@attrs.frozen
class _Item:
    data: bytes
    at: float


class TooManySubscribers(Exception):
    """`MAX_SUBSCRIBERS` listen already, or the queue is off."""


class UsageQueue:
    """See the module. Records are JSON objects, UTF-8.

    Attributes:
      enabled: while it is off nothing is kept, and nobody can listen.
      dropped: records that were pushed out by newer ones before their time.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self.enabled = False
        self.dropped = 0
        self._clock = clock
        self._retention_s = 60.0
        self._items: deque[_Item] = deque()
        self._size_bytes = 0
        self._subscribers: dict[trio.MemorySendChannel[bytes], Topic] = {}

    def __len__(self) -> int:
        """Records in the queue."""
        self._expire()
        return len(self._items)

    def configure(self, *, enabled: bool, retention_s: float) -> None:
        """Take up settings; switching off clears the queue and ends all subscriptions."""
        self.enabled, self._retention_s = enabled, retention_s
        if not enabled:
            self._items.clear()
            self._size_bytes = 0
            for subscriber in list(self._subscribers):
                self._let_go(subscriber)

    def append(self, record: UsageRecord) -> None:
        """Hand *record* to the subscribers, or keep it. Never waits."""
        if not self.enabled:
            return
        if record.failed and Topic.ERRORS in self._subscribers.values():
            self._tell(Topic.ERRORS, error_event(record))
        data = queue_record(record)
        if Topic.USAGE in self._subscribers.values():
            self._tell(Topic.USAGE, data)
            return
        self._expire()
        self._items.append(_Item(data, self._clock()))
        self._size_bytes += len(data)
        while len(self._items) > MAX_RECORDS or self._size_bytes > MAX_BYTES:
            self._size_bytes -= len(self._items.popleft().data)
            self.dropped += 1

    def pop(self, count: int) -> list[bytes]:
        """The oldest records, at most *count*; they are gone then."""
        self._expire()
        found = [self._items.popleft().data for _ in range(min(count, len(self._items)))]
        self._size_bytes -= sum(map(len, found))
        return found

    def refreshed(self) -> None:
        """Credentials or the configuration changed."""
        self._tell(Topic.USAGE, REFRESH)

    @contextmanager
    def subscribe(self, topic: Topic) -> Iterator[trio.MemoryReceiveChannel[bytes]]:
        """Messages of *topic* from now on; they end when the queue is switched off or this listener is too far behind.

        Raises: TooManySubscribers.
        """
        if not self.enabled or len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise TooManySubscribers
        send, receive = trio.open_memory_channel[bytes](MAX_BEHIND)
        self._subscribers[send] = topic
        if topic is Topic.USAGE:
            send.send_nowait(SUPPORT_REFRESH)
        try:
            with receive:
                yield receive
        finally:
            self._let_go(send)

    def _tell(self, topic: Topic, data: bytes) -> None:
        for send, wanted in list(self._subscribers.items()):
            if wanted is not topic:
                continue
            try:
                send.send_nowait(data)
            except trio.WouldBlock:
                log.warning("usage.subscriber_too_slow", behind=MAX_BEHIND)
                self._let_go(send)
            except trio.BrokenResourceError:
                self._let_go(send)

    def _let_go(self, send: trio.MemorySendChannel[bytes]) -> None:
        self._subscribers.pop(send, None)
        send.close()

    def _expire(self) -> None:
        oldest = self._clock() - self._retention_s
        while self._items and self._items[0].at < oldest:
            self._size_bytes -= len(self._items.popleft().data)
