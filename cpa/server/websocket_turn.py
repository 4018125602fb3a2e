"""One message of a WebSocket session as one request to ``POST /v1/responses``.

Everything that holds for the request over HTTP holds for the message: keys and limits, pipeline, plugins, usage,
metrics, request logs, and what a client's leaving does. So a turn plays the client's HTTP connection towards
`ModelCall`: it gives the request, and takes the answer apart into events.
"""

import re
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final

import attrs
import msgspec
import trio
from wsproto.frame_protocol import CloseReason

from cpa.errors import (
    CpaError,
    ExecutorError,
    MalformedRequest,
    RawHeaders,
    RequestError,
    Unauthenticated,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamStreamError,
)
from cpa.formats.names import Format
from cpa.formats.sse import event_data, split_events
from cpa.observability.request_log import RequestRecord
from cpa.pipeline.exchange import ModelRequest
from cpa.server.call import ModelCall, serve_call
from cpa.server.responder import STREAM_HEADERS, Responder
from cpa.server.routes import ClientHead, ModelRoute
from cpa.server.routes_responses import parse_responses
from cpa.server.state import ServerState
from cpa.server.websocket_frames import ClientSocket
from cpa.server.websocket_messages import error_event, labelled, stream_error, told_error
from cpa.server.websocket_transcript import Item, read_item, read_items
from cpa.types import JsonValue

CREDENTIAL_STATUSES: Final = frozenset({401, 402, 403, 407, 408, 429})
"""Of a provider's answer: they speak of who pays, not of what was asked."""
TURN_STATE: Final = b"x-codex-turn-state"
_NOTABLE = re.compile(rb"response\.(?:completed|incomplete|done|failed|output_item\.done)")
"""In an event that may have to be looked into; all others pass unread."""
_ENDS = frozenset({"response.completed", "response.incomplete", "response.done"})
_ITEM_DONE = "response.output_item.done"
_UNSET = msgspec.Raw(b"")


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    item: msgspec.Raw = _UNSET
    response: msgspec.Raw = _UNSET


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    object: str | None = None
    output: msgspec.Raw = _UNSET


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_response = msgspec.json.Decoder(_Response).decode


def is_request_fault(exc: CpaError) -> bool:
    """Whether the client asked wrongly, so that its session is as good as before; else providers or we are at fault."""
    if isinstance(exc, UpstreamStatusError | UpstreamStreamError | ExecutorError):
        return 400 <= exc.http_status < 500 and exc.http_status not in CREDENTIAL_STATUSES
    return isinstance(exc, RequestError) and exc.http_status < 500


class TurnRecord:
    """The record of a request that also hears what providers say of the turn.

    Attributes:
      active: always, for the latter.
      turn_state: `TURN_STATE` of the last good answer, or empty.
    """

    active = True

    def __init__(self, record: RequestRecord) -> None:
        self.turn_state = b""
        self.request_body = record.request_body
        self.attempt = record.attempt
        self.attempt_body = record.attempt_body
        self.attempt_error = record.attempt_error
        self.response = record.response
        self.response_chunk = record.response_chunk
        self.websocket_message = record.websocket_message
        self.finish = record.finish
        self._attempt_response = record.attempt_response

    def attempt_response(self, status: int, headers: RawHeaders) -> None:
        """See `RequestRecord`."""
        self._attempt_response(status, headers)
        if 200 <= status < 300:
            self.turn_state = next((value for name, value in headers if name.lower() == TURN_STATE), b"")


@attrs.define(kw_only=True, eq=False)
class Turn:
    """Asks one message and sends its answer; `run` it once. Plays the client's connection, and its `Framing`.

    Attributes:
      message: what the client sent.
      body: of the request, as over HTTP; *head*: the same.
      pins, metadata: see `ModelRequest`.
      call, record: once it has begun.
      complete: the answer came to its end; *response_id* and *output* are its own.
      output: its items.
    """

    state: ServerState
    socket: ClientSocket
    head: ClientHead
    message: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    stream_id: bytes = b""
    pins: Mapping[str, str] = attrs.field(factory=dict)
    metadata: Mapping[str, JsonValue] = attrs.field(factory=dict)
    headers: RawHeaders = STREAM_HEADERS
    call: ModelCall | None = None
    record: TurnRecord | None = None
    complete: bool = False
    response_id: str = ""
    output: tuple[Item, ...] = ()
    _given: int = 0
    _status: int = 0
    _answer_headers: RawHeaders = ()
    _streamed: bool = False
    _whole: bytearray = attrs.field(factory=bytearray)
    _done: list[Item] = attrs.field(factory=list)
    _failing: bool = False
    _ended: bool = False
    _told_by_provider: bool = False
    _aborted: bool = False

    async def run(self, pattern: str) -> None:
        """Returns when the client has the whole answer, or has left. Raises nothing but cancellation."""
        await serve_call(
            self.state,
            route=ModelRoute(
                pattern=pattern, format=Format.OPENAI_RESPONSE, parse=self._parse, framing=lambda head, config: self
            ),
            head=self.head,
            receive=self._receive,
            responder=Responder(send=self._send, cors=()),
            abort=self._abort,
            transport="websocket",
            watch=self._watch,
        )
        if not (self._ended or self.socket.left.is_set()):
            # Over HTTP the end of the stream says that nothing follows; here only an event does.
            self._aborted = True
            await self._say(error_event(UpstreamProtocolError("the answer ended without a last event")))

    @property
    def ending(self) -> tuple[CloseReason, str] | None:
        """How the session is to be closed, now that the client was told of the failure; None when it goes on."""
        error = None if self.call is None else self.call.error
        if isinstance(error, Unauthenticated):
            return CloseReason.POLICY_VIOLATION, "the key is not valid any more"
        if self._aborted or (error is not None and not self._told_by_provider and not is_request_fault(error)):
            return CloseReason.INTERNAL_ERROR, "the answer failed, and not by the client's fault"
        return None

    @property
    def refused(self) -> bool:
        """The client asked wrongly: it is as if it had not asked."""
        error = None if self.call is None else self.call.error
        # An interceptor's own answer is an error only inside.
        return error is not None and not (self.complete or self._told_by_provider) and is_request_fault(error)

    @property
    def status(self) -> int:
        """Of the answer, for logs."""
        return 0 if self.call is None else self.call.status

    # --- towards the call: the request ---

    def _watch(self, call: ModelCall, record: RequestRecord) -> RequestRecord:
        self.call, self.record = call, TurnRecord(record)
        self.record.websocket_message("request", self.message)
        return self.record

    def _parse(self, head: ClientHead, body: bytes) -> ModelRequest:
        return attrs.evolve(parse_responses(head, body), pins=self.pins, extra_metadata=self.metadata)

    async def _receive(self) -> MutableMapping[str, Any]:
        # The end comes apart, so that also who refuses the body finds it.
        if self._given < 2:
            self._given += 1
            await trio.lowlevel.checkpoint()
            body = self.body if self._given == 1 else b""
            return {"type": "http.request", "body": body, "more_body": self._given == 1}
        await self.socket.left.wait()
        return {"type": "http.disconnect"}

    def _abort(self) -> None:
        self._aborted = True

    # --- towards the call: the answer ---

    def frames(self, block: bytes) -> bytes:
        """See `Framing`."""
        return block

    def end(self) -> bytes:
        """See `Framing`."""
        return b""

    def failure(self, block: bytes, *, told: bool) -> bytes:
        """See `Framing`."""
        self._failing = True
        return block

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self._status, self._answer_headers = message["status"], message["headers"]
            kind = next((value for name, value in self._answer_headers if name.lower() == b"content-type"), b"")
            self._streamed = self._status < 300 and kind.startswith(b"text/event-stream")
        elif self._streamed:
            await self._relay(message["body"])
        else:
            self._whole += message["body"]
            if not message["more_body"]:
                self._ended = True
                await self._say(*self._whole_answer(bytes(self._whole)))

    async def _relay(self, block: bytes) -> None:
        if not block:
            return
        events = [data for event in split_events(block) if (data := (event_data(event) or b"").strip())]
        if not events:  # a comment, which keeps the connection open
            await self.socket.ping()
            return
        await self._say(*(self._seen(event) for event in events if event != b"[DONE]"))

    async def _say(self, *events: bytes) -> None:
        await self.socket.send(*(labelled(event, self.stream_id) for event in events))
        if self.record is not None:
            for event in events:
                self.record.websocket_message("response", event)

    def _seen(self, data: bytes) -> bytes:
        """*data*, an event, as the client is to get it; notes what the session needs of it."""
        if not self._failing and _NOTABLE.search(data) is None:
            return data
        try:
            event = _decode_event(data)
            response = _decode_response(event.response) if event.response else _Response()
        except (ValueError, RecursionError):
            event, response = _Event(), _Response()
        if self._failing:
            self._ended = True
            # A provider's own last word on its answer is an event like any other, and the session goes on.
            self._told_by_provider = event.type == "response.failed" and bool(response.id)
            return data if self._told_by_provider or self.call is None else stream_error(self.call.status, data)
        if event.type == _ITEM_DONE and event.item:
            self._done.append(read_item(bytes(event.item)))
        elif event.type in _ENDS:
            self._finish(response)
        elif event.type == "response.failed":
            self._ended = True
        return data

    def _finish(self, response: "_Response") -> None:
        self.complete = self._ended = True
        self.response_id = response.id or ""
        with suppress(MalformedRequest):
            self.output = read_items(bytes(response.output))
        self.output = self.output or tuple(self._done)

    def _whole_answer(self, body: bytes) -> tuple[bytes, ...]:
        """Events that say what a whole answer says: an error, or what an interceptor answered by itself."""
        if self._status >= 300:
            return (told_error(self._status, self._answer_headers, body),)
        try:
            response = _decode_response(body)
        except (ValueError, RecursionError):
            response = _Response()
        if response.object != "response":
            told = b'{"error":{"message":"the answer of an interceptor is no response"}}'
            return (told_error(502, (), told),)
        self._finish(response)
        return tuple(
            b'{"type":"response.%s","sequence_number":%d,"response":%s}' % (kind, number, body)
            for number, kind in enumerate((b"created", b"completed"))
        )
