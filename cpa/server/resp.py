"""The usage queue over the Redis protocol, on the port of everything else (proxy 7.5).

For collectors that were made for deployed proxies: they authenticate with the management key, pop records, or listen.
The listener hands over connections that begin like this protocol; HTTP never does.
"""

from typing import Final

import attrs
import trio

from cpa.observability.log import get_logger
from cpa.server import resp_codec as resp
from cpa.server.resp_codec import RespError, RespReader
from cpa.server.routes import ClientHead
from cpa.server.state import ServerState
from cpa.usage.queue import TooManySubscribers, Topic, UsageQueue

log = get_logger()

RECEIVE_BYTES: Final = 4096
LOGIN_S: Final = 10.0
"""For the key to come, as for the first byte of any connection."""
IDLE_S: Final = 300.0
"""A client that neither asks nor listens; pools ask more often."""
SEND_S: Final = 30.0
"""A client that takes nothing for so long is gone."""
KEYS: Final = frozenset({b"usage", b"queue"})
"""Names of the list; both are the same one."""
MAX_POPPED: Final = 10_000


@attrs.frozen
class _Ends(Exception):
    """The session is over; *words* go out first."""

    words: bytes = b""


@attrs.define(kw_only=True, eq=False)
class RespSession:
    """Serves one connection; `run` returns when either side ends it.

    *first*: bytes that were read already. Ownership: the stream stays the caller's.
    """

    state: ServerState
    stream: trio.abc.Stream
    peer: str
    first: bytes
    _reader: RespReader = attrs.field(factory=RespReader, init=False)
    _trusted: bool = attrs.field(default=False, init=False)
    _topics: dict[Topic, trio.CancelScope] = attrs.field(factory=dict, init=False)
    _sending: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _login_by: float = attrs.field(factory=lambda: trio.current_time() + LOGIN_S, init=False)

    @property
    def _queue(self) -> UsageQueue:
        return self.state.usage.queue

    @property
    def _managed(self) -> bool:
        return self.state.keys.enabled(self.state.runtime.config.remote_management)

    async def run(self) -> None:
        """Serve the connection. Raises: trio.BrokenResourceError, trio.TooSlowError when the client is gone."""
        async with trio.open_nursery() as nursery:
            try:
                data = self.first
                while data and self._managed:
                    for command in self._reader.feed(data):
                        await self._answer(command, nursery)
                    data = await self._receive()
            except RespError as exc:
                await self._send(resp.error(f"Protocol error: {exc}"))
            except _Ends as end:
                await self._send(end.words)
            nursery.cancel_scope.cancel()

    async def _receive(self) -> bytes:
        """The next bytes; empty at the end, and of a client that says nothing for too long."""
        idle_s = float("inf") if self._topics else IDLE_S
        with trio.move_on_at(trio.current_time() + idle_s if self._trusted else self._login_by):
            return bytes(await self.stream.receive_some(RECEIVE_BYTES))
        return b""

    async def _send(self, data: bytes) -> None:
        if data:
            with trio.fail_after(SEND_S):
                async with self._sending:
                    await self.stream.send_all(data)

    async def _answer(self, command: tuple[bytes, ...], nursery: trio.Nursery) -> None:
        name, arguments = command[0].upper(), command[1:]
        if name == b"QUIT":
            raise _Ends(resp.OK)
        if name == b"AUTH":
            await self._send(await self._login(arguments))
        elif not self._trusted:
            await self._send(resp.error("Authentication required.", code="NOAUTH"))
        elif name == b"SUBSCRIBE":
            await self._subscribe(arguments, nursery)
        elif name == b"UNSUBSCRIBE":
            await self._send(self._unsubscribe(arguments))
        elif name == b"PING":
            await self._send(self._ping(arguments))
        elif self._topics:
            await self._send(resp.error("only SUBSCRIBE, UNSUBSCRIBE, PING and QUIT are allowed in this context"))
        elif name in (b"LPOP", b"RPOP"):
            await self._send(self._pop(arguments))
        else:
            await self._send(resp.error(f"unknown command '{name[:32].decode('ascii', 'replace')}'"))

    async def _login(self, arguments: tuple[bytes, ...]) -> bytes:
        """Check the key, by the rules and the bans of the management API."""
        if len(arguments) not in (1, 2):
            return resp.error("wrong number of arguments for 'auth' command")
        head = ClientHead(method="AUTH", path="", headers=((b"x-management-key", arguments[-1]),), peer=self.peer)
        refusal = await self.state.keys.refusal(self.state.runtime.config.remote_management, head)
        if refusal is not None:
            self._trusted = False
            return resp.error(refusal.text)
        self._trusted = True
        return resp.OK

    def _pop(self, arguments: tuple[bytes, ...]) -> bytes:
        """Both ends give the oldest records: deployed collectors use either."""
        if len(arguments) not in (1, 2):
            return resp.error("wrong number of arguments")
        if arguments[0].lower() not in KEYS:
            return resp.error("unknown key: expected usage or queue")
        if len(arguments) == 1:
            return next((resp.bulk(item) for item in self._queue.pop(1)), resp.NIL)
        if not arguments[1].isdigit() or len(arguments[1]) > 9:
            return resp.error("value is out of range, must be positive")
        return resp.array(map(resp.bulk, self._queue.pop(min(int(arguments[1]), MAX_POPPED))))

    def _ping(self, arguments: tuple[bytes, ...]) -> bytes:
        text = arguments[0] if arguments else b""
        if self._topics:
            return resp.array((resp.bulk(b"pong"), resp.bulk(text)))
        return resp.bulk(text) if text else resp.PONG

    async def _subscribe(self, arguments: tuple[bytes, ...], nursery: trio.Nursery) -> None:
        if not arguments:
            await self._send(resp.error("wrong number of arguments for 'subscribe' command"))
        for argument in arguments:
            try:
                topic = Topic(argument.decode("ascii", "replace"))
            except ValueError:
                await self._send(resp.error("unknown channel: expected usage or errors"))
                continue
            if topic in self._topics:
                await self._send(self._frame(b"subscribe", topic))
            elif not await nursery.start(self._listen, topic, nursery.cancel_scope, name=f"resp:{topic}"):
                await self._send(resp.error("usage statistics are disabled, or too many listen already"))

    async def _listen(
        self, topic: Topic, session: trio.CancelScope, *, task_status: trio.TaskStatus[bool] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Pass on the messages of *topic*; the session ends when there will be no more."""
        try:
            with trio.CancelScope() as scope, self._queue.subscribe(topic) as messages:
                self._topics[topic] = scope
                try:
                    await self._send(self._frame(b"subscribe", topic))
                    task_status.started(True)
                    async for message in messages:
                        parts = (b"message", topic.encode(), message)
                        await self._send(resp.array(map(resp.bulk, parts)))
                finally:
                    if self._topics.get(topic) is scope:  # not of one that came after it
                        del self._topics[topic]
        except TooManySubscribers:
            task_status.started(False)
            return
        if not scope.cancelled_caught:
            session.cancel()

    def _unsubscribe(self, arguments: tuple[bytes, ...]) -> bytes:
        given = {argument.decode("ascii", "replace") for argument in arguments}
        frames = []
        for topic in [topic for topic in self._topics if not given or topic in given]:
            self._topics.pop(topic).cancel()
            frames.append(self._frame(b"unsubscribe", topic))
        nothing = resp.array((resp.bulk(b"unsubscribe"), resp.NIL, resp.integer(len(self._topics))))
        return b"".join(frames) or nothing

    def _frame(self, kind: bytes, topic: Topic) -> bytes:
        return resp.array((resp.bulk(kind), resp.bulk(topic.encode()), resp.integer(len(self._topics))))


async def serve_resp(state: ServerState, stream: trio.abc.Stream, peer: str, first: bytes) -> None:
    """Serve one connection that began with *first*; returns when it is over. The stream stays the caller's.

    Raises: groups of trio.BrokenResourceError and trio.TooSlowError when the client is gone.
    """
    await RespSession(state=state, stream=stream, peer=peer, first=first).run()
