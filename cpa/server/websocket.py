"""Responses over WebSocket (proxy 1.12): the session of one connection.

Messages are served one after another; each is one request to the model API (`websocket_turn`), whose input the session
completes from what was said before (`websocket_transcript`). It ends when the client leaves, when nothing is asked for
too long, when the server drains, and after a failure that is not the client's.
"""

import math
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

import attrs
import trio
from wsproto.frame_protocol import CloseReason

from cpa.credentials.model import Credential
from cpa.errors import RawHeaders, RequestError
from cpa.formats import headers as http
from cpa.formats.errors import from_exception, render_error
from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import Format
from cpa.observability.log import get_logger, log_access, request_id
from cpa.pipeline.rules import query_map
from cpa.pipeline.stage import AuthCall
from cpa.server.access import refusal
from cpa.server.body import Receive
from cpa.server.call import GUARD_BODY, JSON_TYPE
from cpa.server.listener import Connection
from cpa.server.responder import CORS, Send
from cpa.server.routes import ClientHead
from cpa.server.routes_responses import CODEX_PATHS, RESPONSES
from cpa.server.state import Runtime, ServerState
from cpa.server.websocket_frames import ClientSocket, take_over
from cpa.server.websocket_messages import (
    ClientMessage,
    Members,
    error_event,
    labelled,
    read_message,
    warm_up_events,
)
from cpa.server.websocket_transcript import Conversation, Item, ToolCalls, repaired
from cpa.server.websocket_turn import TURN_STATE, Turn
from cpa.types import TraceId

log = get_logger()

PATHS: Final = frozenset({RESPONSES.pattern, CODEX_PATHS[0].pattern})
SWITCHING: Final = 101
SESSION_HEADERS: Final = (b"x-client-request-id", b"x-codex-turn-metadata", b"session-id", b"session_id")
"""Where clients name the session that outlives a connection, in this order."""
MAX_SESSION_BYTES: Final = 256
OF_HANDSHAKE: Final = frozenset(
    {b"connection", b"upgrade", b"content-length", b"transfer-encoding", b"content-encoding"}
)
"""Headers that say nothing of the requests that follow; nor do those that begin with ``sec-websocket-``."""
NOBODY: Final = Credential(id="", provider="", label="warm-up")
"""Who pays for warm-ups."""


async def serve_websocket(
    scope: MutableMapping[str, Any], receive: Receive, send: Send, *, state: ServerState, head: ClientHead
) -> None:
    """Serve a WebSocket's ASGI scope for `PATHS`: handshake, session, close. *head*: of the handshake."""
    connection: Connection = scope["state"]["connection"]
    socket = take_over(scope, connection)
    if socket is None:
        return
    started, status = perf_counter(), SWITCHING
    try:
        await receive()
        try:
            principal = await admit(state.runtime, head)
        except RequestError as exc:
            status = exc.http_status
            await reject(send, *refused(state.runtime, exc))
            return
        turn_state = head.header(TURN_STATE)
        echo: RawHeaders = ((TURN_STATE, turn_state),) if turn_state else ()
        await send(socket.accept((*CORS, *echo)))
        if socket.early:
            socket.fail(CloseReason.PROTOCOL_ERROR, "frames came before the handshake was answered")
        session = Session(
            state=state,
            socket=socket,
            head=request_head(head),
            conversation=state.sockets.begin(),
            calls=state.sockets.tool_calls(principal, session_of(head)),
            principal=principal,
        )
        try:
            await session.run(connection.server.terminated.wait)
        finally:
            state.sockets.end(session.conversation)
    finally:
        socket.over()
        log_access(
            status=status,
            duration_s=perf_counter() - started,
            client=head.peer,
            method="GET",
            path=head.path,
            query=head.query.decode("latin-1"),
        )


async def admit(runtime: Runtime, head: ClientHead) -> str:
    """Whose key the handshake carries. Raises: RequestError 401, or 403 while the sample's keys are in use."""
    if runtime.guarded:
        raise RequestError(
            "the configuration still holds an example key", code="unsafe_example_api_key", http_status=403
        )
    principal = runtime.access.check(head.headers, head.query)
    if principal is None and runtime.access.asks_plugins:
        call = AuthCall(
            method=head.method, path=head.path, headers=http.to_map(head.headers), query=query_map(head.query), body=b""
        )
        principal = await runtime.access.ask(call)
    if principal is None:
        raise refusal(head.headers, head.query)
    return principal.key


def refused(runtime: Runtime, exc: RequestError) -> tuple[int, RawHeaders, bytes]:
    """The answer over HTTP to a handshake that is refused."""
    if runtime.guarded:
        return exc.http_status, (*JSON_TYPE, (b"x-cpa-safe-mode", b"example-api-key")), GUARD_BODY
    error = from_exception(exc)
    status, body = render_error(Format.OPENAI_RESPONSE, status=error.status, message=error.message, code=error.code)
    return status, JSON_TYPE, body


async def reject(send: Send, status: int, headers: RawHeaders, body: bytes) -> None:
    """Answer a handshake over HTTP."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "websocket.http.response.start", "status": status, "headers": [*headers, length, *CORS]})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def request_head(head: ClientHead) -> ClientHead:
    """The head of the requests that a session's messages are."""
    headers = tuple(
        (name, value)
        for name, value in head.headers
        if name not in OF_HANDSHAKE and not name.startswith(b"sec-websocket-")
    )
    typed = any(name == b"content-type" for name, _ in headers)
    return attrs.evolve(head, method="POST", headers=headers if typed else (*headers, *JSON_TYPE), http_version="1.1")


def session_of(head: ClientHead) -> str:
    """The name of the client's session that outlives a connection, or empty."""
    for name in SESSION_HEADERS:
        value = head.header(name).strip()
        if name == b"x-codex-turn-metadata":
            value = _metadata_session(value)
        if value and len(value) <= MAX_SESSION_BYTES:
            return value.decode("latin-1")
    return ""


def _metadata_session(value: bytes) -> bytes:
    try:
        metadata = decode(value)
    except JsonError:
        return b""
    session = metadata.get("session_id") if isinstance(metadata, dict) else None
    return session.encode() if isinstance(session, str) else b""


@attrs.define(kw_only=True, eq=False)
class Session:
    """What one connection asks and hears.

    Attributes:
      head: of the requests that its messages are.
      calls: tool calls of the client's session.
      pins: the credential that served the first turn, by provider; another one when that one was not used.
      before: members of the last request that was understood.
    """

    state: ServerState
    socket: ClientSocket
    head: ClientHead
    conversation: Conversation
    calls: ToolCalls
    principal: str = attrs.field(repr=False)
    pins: dict[str, str] = attrs.field(factory=dict)
    before: Members | None = None
    _id: str = attrs.field(factory=lambda: str(uuid4()))
    _draining: bool = False
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self, terminated: Callable[[], Awaitable[None]]) -> None:
        """Serve messages until the session is over, then close. *terminated*: returns when the server drains."""
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                await terminated()
                self._draining = True
                self._waiting.cancel()

            nursery.start_soon(drain)
            nursery.start_soon(self.socket.answer_pings)
            code, reason = await self._serve()
            await self.socket.close(code, reason)
            nursery.cancel_scope.cancel()

    async def _serve(self) -> tuple[CloseReason, str]:
        """Returns: how to close."""
        while (data := await self._next()) is not None:
            ending = await self._answer(data)
            if ending is not None:
                return ending
        if self._draining:
            return CloseReason.GOING_AWAY, "the server is stopping"
        return CloseReason.GOING_AWAY, "nothing was asked for too long (limits.websocket-idle-seconds)"

    async def _next(self) -> bytes | None:
        """The next message; None when there will be none."""
        idle_since = trio.current_time()
        while not self._draining:
            idle_s = self.state.runtime.config.limits.websocket_idle_seconds or math.inf
            deadline = max(idle_since, self.socket.heard_at) + idle_s
            with trio.CancelScope(deadline=deadline) as self._waiting:
                return await self.socket.receive()
            if self.socket.heard_at <= idle_since and trio.current_time() >= deadline:
                return None
            idle_since = max(idle_since, self.socket.heard_at)  # a message is on its way
        return None

    async def _answer(self, data: bytes) -> tuple[CloseReason, str] | None:
        """Serve one message. Returns: how to close the session if it is over."""
        started = perf_counter()
        stream_id, status = b"", HTTPStatus.OK.value
        try:
            message = read_message(data, before=self.before)
            stream_id = message.stream_id
            items = self._input(message)
        except RequestError as exc:
            status = exc.http_status
            await self.socket.send(labelled(error_event(exc), stream_id))
            turn = None
        else:
            if message.generate:
                turn = await self._ask(data, message, items)
                status = turn.status
            else:
                turn = None
                await self._warm_up(message, items)
            if turn is None or not turn.refused:
                self.before = message.members
        log_access(
            status=status,
            duration_s=perf_counter() - started,
            client=self.head.peer,
            method="WEBSOCKET",
            path=self.head.path,
        )
        return None if turn is None else turn.ending

    def _input(self, message: ClientMessage) -> tuple[Item, ...]:
        """The whole input of a turn. Raises: RequestError."""
        if message.elsewhere:
            return message.items
        items = self.conversation.extended(message.items, previous=message.previous)
        self.calls.add(message.items)
        return tuple(repaired(items, self.calls))

    async def _ask(self, data: bytes, message: ClientMessage, items: tuple[Item, ...]) -> Turn:
        turn = Turn(
            state=self.state,
            socket=self.socket,
            head=self.head,
            message=data,
            body=message.body(items),
            stream_id=message.stream_id,
            pins=dict(self.pins),
            # Not `pinned_auth_id`, which would be a demand: another credential does when this one cannot (proxy 1.12).
            metadata={"execution_session_id": self._id},
        )
        await turn.run(self.head.path)
        if turn.complete:
            self._keep(message, turn, items)
        return turn

    def _keep(self, message: ClientMessage, turn: Turn, items: tuple[Item, ...]) -> None:
        """The answer is complete: the next message goes on from there."""
        self.calls.add(turn.output)
        if not message.elsewhere:
            self.conversation.keep(turn.response_id, (*items, *turn.output))
            self.state.sockets.touch(self.conversation)
        credential = None if turn.call is None else turn.call.credential
        if credential is not None and not credential.anonymous:
            self.pins[credential.provider] = credential.id
        if turn.record is not None and turn.record.turn_state:
            others = tuple(pair for pair in self.head.headers if pair[0] != TURN_STATE)
            self.head = attrs.evolve(self.head, headers=(*others, (TURN_STATE, turn.record.turn_state)))

    async def _warm_up(self, message: ClientMessage, items: tuple[Item, ...]) -> None:
        """Answer by ourselves, and know the input."""
        response_id, events = warm_up_events(message)
        self.conversation.keep(response_id, items, warmed=items)
        self.state.sockets.touch(self.conversation)
        trace_id = TraceId(secrets.token_hex(4))
        request_id.set(trace_id)
        accounts = self.state.runtime.services.accounts
        if accounts is not None and accounts.wanted:
            body = encode({**message.members, "generate": False})
            account = accounts.attempt(
                credential=NOBODY,
                model=message.model,
                alias=message.model,
                principal=self.principal,
                request_format=Format.OPENAI_RESPONSE,
                provider_format=Format.OPENAI_RESPONSE,
                request_body=body,
                request_id=response_id.removeprefix("resp_prewarm_"),
                trace_id=trace_id,
            )
            account.body(events[1])
            account.finish(None, complete=True)
        await self.socket.send(*(labelled(event, message.stream_id) for event in events))
