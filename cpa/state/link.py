"""The connection to Redis: it may come and go, and nobody waits for it.

Theory of operation. What is shared lives in local views (`Part`), which answer at once. One task keeps a connection: it
subscribes first, then every part takes what is there and sends what it has, and from then on each side only sends
changes. Whatever breaks ends the session: the parts go on by themselves, and the next session begins from the start, so
that nothing depends on which messages were lost.
"""

import math
from collections.abc import Awaitable
from typing import Final, Protocol

import anyio
import attrs
import trio
from coredis import Redis
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from cpa.observability.log import get_logger

log = get_logger()

FIRST_WAIT_S: Final = 0.1
MAX_WAIT_S: Final = 5.0
CONNECT_S: Final = 5.0
ANSWER_S: Final = 10.0
"""Longest wait for an answer; a server that is slower than this is as good as away."""
MAX_BATCH: Final = 500
"""Commands that are sent before the answers are read."""

GONE: Final = (RedisError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
"""How a connection ends: some of it are the errors of what coredis is built on."""

Client = Redis[bytes]


class Part(Protocol):
    """Something that is shared. All methods are called by the link's task alone, one at a time."""

    @property
    def name(self) -> str:
        """Of its messages."""
        ...

    async def begin(self, client: Client) -> None:
        """A session begins: take what is there, and see that `send` sends all that is here."""
        ...

    async def send(self, client: Client) -> None:
        """Send what has changed here; at once when nothing has."""
        ...

    def hear(self, message: bytes) -> None:
        """Somebody changed something. *message* may be anything."""
        ...


@attrs.define(eq=False)
class RedisLink:
    """Keeps *parts* in step with others while `run` runs.

    Attributes:
      url: ``redis://``, ``rediss://`` or ``unix://``; may hold a password.
      prefix: of all keys and channels.
      parts: in the order in which they send.
      connected: a session is on.
    """

    url: str = attrs.field(repr=False)
    prefix: str = "cpa"
    parts: list[Part] = attrs.field(factory=list)
    connected: bool = False
    _change: trio.Event = attrs.field(factory=trio.Event)
    _turns: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def changed(self) -> None:
        """A part has something to send. Costs next to nothing; call it as often as it is so."""
        self._change.set()

    async def wait_connected(self) -> None:
        """Wait for a session; at once when there is one."""
        while not self.connected:
            await self._turns.park()

    async def run(self) -> None:
        """Keep a session for ever. Cancel it to end."""
        wait_s, told = FIRST_WAIT_S, False
        while True:
            try:
                await self._session()
            except* GONE as group:
                error: BaseException = group
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                ending = trio.current_effective_deadline() == -math.inf
                if (self.connected or not told) and not ending:
                    log.warning("state.away", error=str(error), hint="going on with what this process knows")
                if self.connected:
                    wait_s = FIRST_WAIT_S
                told = True
            except* Exception as group:
                # A supervisor's edge: whatever a library makes of a strange server costs the session, not the proxy.
                log.error("state.failed", exc_info=group)
            finally:
                self.connected = False
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_WAIT_S)

    async def _session(self) -> None:
        channels = {f"{self.prefix}:{part.name}".encode(): part for part in self.parts}
        async with (
            Redis.from_url(
                self.url,
                decode_responses=False,
                connect_timeout=CONNECT_S,
                stream_timeout=ANSWER_S,
                # A lost answer is a lost session: what to send again is known here, not there.
                retry_policy=NoRetryPolicy(),
            ) as client,
            client.pubsub(
                channels=list(channels), ignore_subscribe_messages=True, retry_policy=NoRetryPolicy()
            ) as subscription,
            trio.open_nursery() as nursery,
        ):

            async def listen() -> None:
                async for message in subscription:
                    part = channels.get(_bytes(message["channel"]))
                    if part is not None:
                        part.hear(_bytes(message["data"]))

            nursery.start_soon(listen)
            for part in self.parts:
                await part.begin(client)
            self.connected = True
            self._turns.unpark_all()
            log.info("state.shared", parts=[part.name for part in self.parts])
            while True:
                self._change = trio.Event()
                for part in self.parts:
                    await part.send(client)
                await self._change.wait()


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def answered(answer: Awaitable[object]) -> object:
    """An answer out of a pipeline that does not raise; None where the command failed: its key is something else."""
    try:
        return await answer
    except RedisError:
        return None
