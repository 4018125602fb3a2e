"""Where the state of scheduling lives: one Protocol, so that replicas can share it, and the store in memory.

The Protocol is made for asynchronous replication. Every read is answered at once from a local view; a write changes the
local view at once and travels later, if at all. Nobody waits for a network between looking at a pool and choosing from
it, and a network that is away costs agreement, not requests. Two replicas that write the same key agree in the end: the
later write wins, by the wall clock of the writer (`Entry.written_unix`), and dropping a key is a write as well. So all
values are such that losing the older of two costs little: a cooldown that ends early, a session that moves.

A replicating store hands what it hears from others to `MemoryStore.apply` and subscribes to hear what is written here.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, TypeAlias

import attrs

Key: TypeAlias = tuple[str, ...]
"""Of one value within its space."""
Clock: TypeAlias = Callable[[], float]
"""Unix seconds: states outlive processes and travel between machines."""
Listener: TypeAlias = Callable[[Key, "Entry"], None]
"""Hears of every change of a space, also of those that came from elsewhere; must not raise."""

TOMBSTONE_S: Final = 60.0
"""How long a dropped key is remembered, so that an older write that comes late does not bring it back."""
SWEEP_EVERY: Final = 1024
"""Writes between two sweeps for what has expired."""


@attrs.frozen(kw_only=True)
class Space:
    """One kind of state.

    Attributes:
      name: part of the keys of shared stores.
      encode, decode: a value to bytes and back. *decode* raises ValueError for what is none; bytes may come from
        anywhere.
      max_entries: the least recently written go when there are more.
    """

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    max_entries: int


@attrs.frozen(kw_only=True)
class Entry:
    """A value with what replication needs. *value* is immutable; None = the key was dropped."""

    value: Any
    expires_unix: float
    written_unix: float


class StateStore(Protocol):
    """Keeps small immutable values until they expire. Nothing in here waits or raises."""

    def get(self, space: Space, key: Key) -> Any | None:
        """The value of *key* as this process knows it; None when there is none, or it has expired."""
        ...

    def put(self, space: Space, key: Key, value: object, *, expires_unix: float) -> None:
        """Set *key*; everybody else learns of it soon."""
        ...

    def drop(self, space: Space, key: Key) -> None:
        """Forget *key*; everybody else soon does, too."""
        ...

    def items(self, space: Space) -> Iterator[tuple[Key, Any]]:
        """All that has not expired. A snapshot: writes meanwhile do no harm."""
        ...

    def subscribe(self, space: Space, listener: Listener) -> None:
        """Call *listener* after each change of *space*, for as long as the store lives."""
        ...


class MemoryStore:
    """A `StateStore` of one process, and the local view of those that replicate."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[str, OrderedDict[Key, Entry]] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._writes = 0

    def get(self, space: Space, key: Key) -> Any | None:
        """See `StateStore`."""
        entries = self._entries.get(space.name)
        entry = None if entries is None else entries.get(key)
        return None if entry is None or entry.expires_unix <= self._clock() else entry.value

    def put(self, space: Space, key: Key, value: object, *, expires_unix: float) -> None:
        """See `StateStore`."""
        self.apply(space, key, Entry(value=value, expires_unix=expires_unix, written_unix=self._clock()))

    def drop(self, space: Space, key: Key) -> None:
        """See `StateStore`."""
        if key in self._entries.get(space.name, ()):
            now = self._clock()
            self.apply(space, key, Entry(value=None, expires_unix=now + TOMBSTONE_S, written_unix=now))

    def items(self, space: Space) -> Iterator[tuple[Key, Any]]:
        """See `StateStore`."""
        now = self._clock()
        found = [
            (key, entry.value)
            for key, entry in self._entries.get(space.name, {}).items()
            if entry.value is not None and entry.expires_unix > now
        ]
        return iter(found)

    def entries(self, space: Space) -> list[tuple[Key, Entry]]:
        """All that has not expired, with what was dropped lately: what somebody who knows nothing needs to hear."""
        now = self._clock()
        return [(key, entry) for key, entry in self._entries.get(space.name, {}).items() if entry.expires_unix > now]

    def subscribe(self, space: Space, listener: Listener) -> None:
        """See `StateStore`."""
        self._listeners.setdefault(space.name, []).append(listener)

    def apply(self, space: Space, key: Key, entry: Entry) -> bool:
        """Take *entry* unless a later one is known. Returns: whether it was taken."""
        entries = self._entries.setdefault(space.name, OrderedDict())
        known = entries.get(key)
        if known is not None and known.written_unix > entry.written_unix:
            return False
        entries[key] = entry
        entries.move_to_end(key)
        self._writes += 1
        if self._writes % SWEEP_EVERY == 0:
            self.sweep()
        while len(entries) > space.max_entries:
            entries.popitem(last=False)
        for listener in self._listeners.get(space.name, ()):
            listener(key, entry)
        return True

    def sweep(self) -> None:
        """Let go of all that has expired."""
        now = self._clock()
        for entries in self._entries.values():
            for key in [key for key, entry in entries.items() if entry.expires_unix <= now]:
                del entries[key]

    def __len__(self) -> int:
        """Entries held, expired and dropped ones included."""
        return sum(map(len, self._entries.values()))
