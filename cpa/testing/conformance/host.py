"""The kit's end of host calls: everything a plugin may ask is answered at once, written down and judged.

There is no proxy behind it: logs and streams succeed, lists of credentials are empty, and whatever would leave the
machine or run a model is answered with an error envelope, which a plugin has to live with anyway.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from cpa.abi import methods
from cpa.abi.envelope import (
    EMPTY_RESULT,
    HostCallError,
    decode_host_request,
    encode_host_error,
    encode_host_reply,
    find_host_method,
)
from cpa.abi.wire_host import AuthListReply, StreamCloseRequest, StreamEmitRequest

NO_PROXY: Final = "there is no proxy here: the conformance kit answers this host call with an error"
MAX_RECORDED: Final = 10_000
"""Host calls that are written down; a plugin may make them in a loop."""


@attrs.frozen(kw_only=True)
class HostCall:
    """One call of the host.

    Attributes:
      during: what was being checked: the wire name of a method of the plugin, or empty.
      complaint: what the real host would refuse it for; empty when it is well-formed.
    """

    method: str
    during: str
    complaint: str = ""


@attrs.define(eq=False, kw_only=True)
class KitHost:
    """Answers the host calls of one plugin.

    Attributes:
      calls: in the order of their arrival.
      during: goes into the records of calls.
      nested: awaited inside each host call before it is answered; None = nothing.
      streams: stream id to the event that the plugin's `host.stream.close` sets. Whoever drives a stream puts it here.
      emitted: bytes of payload by stream id, and `chunks` their number.
    """

    calls: list[HostCall] = attrs.field(factory=list)
    during: str = ""
    nested: Callable[[], Awaitable[None]] | None = None
    streams: dict[str, trio.Event] = attrs.field(factory=dict)
    emitted: dict[str, int] = attrs.field(factory=dict)
    chunks: dict[str, int] = attrs.field(factory=dict)

    async def handle(self, method: bytes, payload: bytes) -> bytes:
        """A `HostCallHandler`: answers with an envelope and never raises."""
        name = method.decode("utf-8", "replace")
        complaint = ""
        try:
            answer = self._answer(name, payload)
        except HostCallError as exc:
            complaint = exc.message
            answer = encode_host_error(exc.message)
        if len(self.calls) < MAX_RECORDED:
            self.calls.append(HostCall(method=name, during=self.during, complaint=complaint))
        if self.nested is not None:
            await self.nested()
        await trio.lowlevel.checkpoint()
        return answer

    def _answer(self, name: str, payload: bytes) -> bytes:
        row = find_host_method(name)
        request: Any = decode_host_request(row, payload)
        if isinstance(request, StreamEmitRequest):
            return self._emit(request)
        if isinstance(request, StreamCloseRequest):
            closed = self.streams.get(request.stream_id)
            if closed is not None:
                closed.set()
            return EMPTY_RESULT
        if row is methods.HOST_LOG or row in (methods.HOST_HTTP_STREAM_CLOSE, methods.HOST_MODEL_STREAM_CLOSE):
            return EMPTY_RESULT
        if row is methods.HOST_AUTH_LIST:
            return encode_host_reply(methods.HOST_AUTH_LIST, AuthListReply())
        return encode_host_error(NO_PROXY, http_status=503)

    def _emit(self, request: StreamEmitRequest) -> bytes:
        closed = self.streams.get(request.stream_id)
        if closed is None or closed.is_set():
            # A legal thing to ask, so no complaint: streams end without the plugin's doing.
            return encode_host_error(f"stream {request.stream_id} is not open", http_status=404)
        self.emitted[request.stream_id] = self.emitted.get(request.stream_id, 0) + len(request.payload)
        self.chunks[request.stream_id] = self.chunks.get(request.stream_id, 0) + 1
        return EMPTY_RESULT
