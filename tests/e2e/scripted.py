"""A provider that answers with recorded bytes, whatever it is asked, and keeps what it was asked."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import trio


@attrs.frozen(kw_only=True)
class Answer:
    """What the provider says.

    Attributes:
      body: in pieces, each of which is one write.
      broken: the connection is cut behind the last piece, in the middle of the answer.
      held: the answer stays open behind its last piece until the client leaves.
    """

    body: tuple[bytes, ...]
    status: int = 200
    content_type: str = "text/event-stream"
    headers: tuple[tuple[str, str], ...] = ()
    broken: bool = False
    held: bool = False


@attrs.frozen(kw_only=True)
class Asked:
    """One request that the provider got."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


@attrs.define(eq=False)
class ScriptedProvider:
    """Answers every request with `answer`; *requests*: what came, oldest first. *left*: clients that left."""

    url: str = ""
    answer: Answer = Answer(body=())
    requests: list[Asked] = attrs.field(factory=list)
    left: trio.Event = attrs.field(factory=trio.Event)

    def says(self, *body: bytes, **more: Any) -> None:
        """From now on, this."""
        self.answer = Answer(body=body, **more)

    def streams(self, frames: Iterable[bytes], **more: Any) -> None:
        """From now on, a stream of whole events."""
        self.says(b"".join(frames), **more)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while await self._exchange(connection, stream):
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
                return

    async def _exchange(self, connection: h11.Connection, stream: trio.abc.Stream) -> bool:
        head: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert head is not None
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        self.requests.append(Asked(target=head.target.decode(), headers=headers, body=body))
        return await self._reply(connection, stream)

    async def _reply(self, connection: h11.Connection, stream: trio.abc.Stream) -> bool:
        answer = self.answer
        head = h11.Response(
            status_code=answer.status,
            headers=[("content-type", answer.content_type), ("transfer-encoding", "chunked"), *answer.headers],
        )
        await stream.send_all(connection.send(head) or b"")
        for piece in answer.body:
            await stream.send_all(connection.send(h11.Data(data=piece)) or b"")
        if answer.held:
            with trio.move_on_after(20):
                while await stream.receive_some(1):
                    pass
            self.left.set()
            return False
        if answer.broken:
            return False
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        return True


@asynccontextmanager
async def scripted_provider() -> AsyncIterator[ScriptedProvider]:
    """One that listens on 127.0.0.1 while the block runs."""
    provider = ScriptedProvider()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        provider.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, provider.serve, listeners)
        yield provider
        nursery.cancel_scope.cancel()
