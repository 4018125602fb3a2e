"""`StateStore` over Redis: a local view that hears of the changes of others."""

from collections.abc import Callable, Iterator, Sequence
from secrets import token_hex
from typing import Any, Final

import msgspec

from cpa.scheduling.store import Clock, Entry, Key, Listener, MemoryStore, Space
from cpa.state.link import MAX_BATCH, Client, answered

MAX_WAITING: Final = 50_000
"""Changes that wait to be sent. Beyond, the session begins anew, which sends everything anyhow."""

WRITE: Final = """
local known = redis.call('HGET', KEYS[1], 'written')
if known and tonumber(known) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'written', ARGV[1], 'message', ARGV[2])
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[2])
return 1
"""
"""The later write wins, also in here: a process that comes back with old news, or with everybody's, changes nothing."""
MAX_SKEW_S: Final = 3600.0
"""Writes from further in the future come from a broken clock, and would win for ever."""
MAX_LIFE_S: Final = 10 * 366 * 86400.0


class _Message(msgspec.Struct, array_like=True, frozen=True):
    """One change. *value*: as its space encodes it; None = the key was dropped."""

    origin: str
    space: str
    key: tuple[str, ...]
    written_unix: float
    expires_unix: float
    value: bytes | None


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Message)


class SharedStore:
    """A `StateStore` that is a `Part` of a link.

    Args:
      changed: called when there is something to send.
      spaces: which are shared; others stay local.
    """

    name = "state"

    def __init__(self, *, clock: Clock, prefix: str, spaces: Sequence[Space], changed: Callable[[], None]) -> None:
        self._local = MemoryStore(clock)
        self._clock = clock
        self._prefix = prefix
        self._spaces = {space.name: space for space in spaces}
        self._changed = changed
        self._origin = token_hex(8)
        self._waiting: dict[tuple[str, Key], Entry] = {}
        self._overflow = False
        self._hearing = False
        for space in spaces:
            self._local.subscribe(space, self._noting(space))

    def get(self, space: Space, key: Key) -> Any | None:
        """See `StateStore`."""
        return self._local.get(space, key)

    def put(self, space: Space, key: Key, value: object, *, expires_unix: float) -> None:
        """See `StateStore`."""
        self._local.put(space, key, value, expires_unix=expires_unix)

    def drop(self, space: Space, key: Key) -> None:
        """See `StateStore`."""
        self._local.drop(space, key)

    def items(self, space: Space) -> Iterator[tuple[Key, Any]]:
        """See `StateStore`."""
        return self._local.items(space)

    def subscribe(self, space: Space, listener: Listener) -> None:
        """See `StateStore`."""
        self._local.subscribe(space, listener)

    def _noting(self, space: Space) -> Listener:
        def note(key: Key, entry: Entry) -> None:
            if self._hearing:
                return
            self._waiting[space.name, key] = entry
            if len(self._waiting) > MAX_WAITING:
                self._overflow = True
                self._waiting.clear()
            self._changed()

        return note

    async def begin(self, client: Client) -> None:
        """See `Part`. Writes that are later than what others know are sent again."""
        self._overflow = False
        keys = [key async for key in client.scan_iter(match=f"{self._prefix}:{self.name}:*", count=MAX_BATCH)]
        for start in range(0, len(keys), MAX_BATCH):
            async with client.pipeline(transaction=False, raise_on_error=False) as pipeline:
                answers = [pipeline.hget(key, "message") for key in keys[start : start + MAX_BATCH]]
            for answer in answers:
                if isinstance(message := await answered(answer), bytes):
                    self.hear(message)
        self._waiting = {
            (space.name, key): entry for space in self._spaces.values() for key, entry in self._local.entries(space)
        }

    async def send(self, client: Client) -> None:
        """See `Part`."""
        if self._overflow:
            await self.begin(client)
        script = client.register_script(WRITE)
        now = self._clock()
        while self._waiting:
            batch = list(self._waiting.items())[:MAX_BATCH]
            async with client.pipeline(transaction=False, raise_on_error=False) as pipeline:
                for (space, key), entry in batch:
                    if entry.expires_unix > now:
                        script(self._keys(space, key), self._arguments(space, key, entry), client=pipeline)
            for place, entry in batch:
                if self._waiting.get(place) is entry:
                    del self._waiting[place]

    def _keys(self, space: str, key: Key) -> list[bytes]:
        return [b":".join((f"{self._prefix}:{self.name}:{space}".encode(), _encoder.encode(key)))]

    def _arguments(self, space: str, key: Key, entry: Entry) -> list[bytes]:
        value = None if entry.value is None else self._spaces[space].encode(entry.value)
        message = _Message(self._origin, space, key, entry.written_unix, entry.expires_unix, value)
        return [
            repr(entry.written_unix).encode(),
            _encoder.encode(message),
            str(int(entry.expires_unix * 1000)).encode(),
            f"{self._prefix}:{self.name}".encode(),
        ]

    def hear(self, message: bytes) -> None:
        """See `Part`."""
        try:
            found = _decoder.decode(message)
            space = self._spaces[found.space]
            value = None if found.value is None else space.decode(found.value)
        except (msgspec.DecodeError, ValueError, KeyError):
            return  # of another version, or not ours
        now = self._clock()
        in_time = found.written_unix <= now + MAX_SKEW_S and now < found.expires_unix <= now + MAX_LIFE_S
        if found.origin == self._origin or not in_time:
            return
        self._hearing = True
        try:
            entry = Entry(value=value, expires_unix=found.expires_unix, written_unix=found.written_unix)
            self._local.apply(space, found.key, entry)
        finally:
            self._hearing = False
