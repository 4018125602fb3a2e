"""One client request to the model API, from its head to the last byte of its answer."""

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from random import getrandbits
from time import localtime, perf_counter, strftime, time

import attrs
import trio

from cpa.credentials.model import Credential
from cpa.errors import (
    CpaError,
    LimitExceeded,
    NoCredential,
    RawHeaders,
    Rejected,
    RequestError,
    UpstreamError,
    UpstreamStatusError,
    UpstreamStreamError,
)
from cpa.formats import headers as http
from cpa.formats.errors import from_exception, render_error, render_upstream_error
from cpa.formats.json import is_json
from cpa.formats.names import Format
from cpa.formats.streams import FrameContext, error_frames, keepalive_frame
from cpa.observability.live import LiveRequest
from cpa.observability.log import get_logger, request_id
from cpa.observability.request_log import RequestRecord
from cpa.pipeline.answer import Answer, AnswerStream
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.rules import query_map
from cpa.pipeline.runner import open_answer
from cpa.pipeline.stage import AuthCall
from cpa.server.access import Principal, refusal
from cpa.server.body import ClientGone, Receive, linger, read_body
from cpa.server.responder import STREAM_HEADERS, Responder
from cpa.server.routes import ClientHead, Framing, ModelRoute, Reshape
from cpa.server.state import Runtime, ServerState
from cpa.types import TraceId

log = get_logger()

CLIENT_CLOSED_REQUEST = 499
"""What logs and metrics call a client that left; it never reaches one."""
JSON_TYPE: RawHeaders = ((b"content-type", b"application/json"),)
REQUEST_IDS = frozenset({b"request-id", b"x-request-id", b"openai-request-id", b"anthropic-request-id"})
"""Headers by which a vendor's support finds a failed request."""
KEPT_OPEN: RawHeaders = ((b"connection", b"keep-alive"),)
CODEX_CLIENTS = ("codex desktop", "codex-tui", "codex_cli_rs", "codex_exec")
"""In User-Agent or Originator: clients that act on `response.failed` only (proxy 1.11)."""
CUT_CODES = frozenset({"upstream_error", "empty_stream"})
"""Of stream errors that no provider reported, but that translation found: the answer was not complete."""
OWN_STREAM_HEADERS = frozenset(name for name, _ in STREAM_HEADERS)
GUARD_BODY = (
    b'{"error":"unsafe_example_api_key","message":"the configuration still holds a client key of the example file '
    b'(your-api-key-1, -2 or -3): replace it in api-keys, the server picks the change up by itself"}'
)


@attrs.define(kw_only=True, eq=False)
class ModelCall:
    """Serves one request; `run` returns when the client has its answer or has left.

    Attributes:
      body: of the request as it was sent, if it is there already.
      when_left: sets what is called when the client leaves; None = `receive` has to be asked all the time.
      started: perf_counter of its arrival.
      gone: the client left before the end.
      error: what the client was told instead of an answer, or in the middle of one.
      live: what operators see of it; None = nobody can look.
    """

    state: ServerState
    route: ModelRoute
    head: ClientHead
    receive: Receive
    responder: Responder
    record: RequestRecord
    trace_id: TraceId
    abort: Callable[[], None]
    body: bytes | None = attrs.field(default=None, repr=False)
    when_left: Callable[[Callable[[], None] | None], None] | None = None
    started: float = attrs.field(factory=perf_counter)
    runtime: Runtime = attrs.field(init=False)
    gone: bool = False
    error: CpaError | None = None
    provider: str = ""
    request: ModelRequest | None = None
    live: LiveRequest | None = None
    _credential: Credential | None = None
    _stream: AnswerStream | None = None
    _framing: Framing | None = None
    _received: bool = False
    _broken: int = 0

    def __attrs_post_init__(self) -> None:
        self.runtime = self.state.runtime

    @property
    def status(self) -> int:
        """What logs and metrics say of it: a stream that broke counts as what broke it, though its head said 200."""
        if self.gone:
            return CLIENT_CLOSED_REQUEST
        return self._broken or self.responder.status

    @property
    def credential(self) -> Credential | None:
        """The last that was selected."""
        return self._credential

    async def run(self) -> None:
        """Serve the request. Only cancellation leaves this method as an exception."""
        try:
            await self._run()
        except ClientGone:
            self.gone = True
        except Exception:
            log.exception("request.crashed")
            if self.responder.committed:
                self.abort()
            else:
                await self._refuse(CpaError("internal error"))

    async def _run(self) -> None:
        try:
            principal, body = await self._admit()
        except CpaError as exc:
            await self._refuse(exc)
            return
        if self.when_left is None or self._talks_first:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                await self._answer(principal, body, nursery)
                nursery.cancel_scope.cancel()
        else:
            # The common case: no task, no scope. The connection has nothing else to do, so it ends with the exchange.
            self.when_left(self._client_left)
            try:
                await self._answer(principal, body, None)
            finally:
                self.when_left(None)

    @property
    def _talks_first(self) -> bool:
        """There may be signs of life before the answer, for which somebody has to run."""
        config = self.runtime.config
        return config.streaming.keepalive_seconds > 0 or config.nonstream_keepalive_interval > 0

    async def _answer(self, principal: Principal | None, body: bytes, nursery: trio.Nursery | None) -> None:
        try:
            await self._serve(await self._understand(principal, body), nursery)
        except CpaError as exc:
            await self._fail(exc)

    def _client_left(self) -> None:
        if not self.responder.complete:
            self.gone = True
            self.abort()

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel the exchange, its provider's connection included, when the client leaves."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                if not self.responder.complete:
                    self.gone = True
                    scope.cancel()
                return

    async def _admit(self) -> tuple[Principal | None, bytes]:
        """Guard, method, key, body. Returns: whose key it is, None when plugins are to say, and the body.

        Raises: CpaError, ClientGone.
        """
        head, runtime = self.head, self.runtime
        if runtime.guarded:
            raise Rejected(
                status=HTTPStatus.FORBIDDEN,
                headers=(*JSON_TYPE, (b"x-cpa-safe-mode", b"example-api-key")),
                body=GUARD_BODY,
                plugin_id="",
            )
        if head.method != "POST":
            raise RequestError(
                f"{head.method} is not allowed here: expected POST", code="method_not_allowed", http_status=405
            )
        principal = runtime.access.check(head.headers, head.query)
        if principal is None and not runtime.access.asks_plugins:
            raise refusal(head.headers, head.query)
        body = await read_body(head.headers, self.receive, runtime.config.limits, ready=self.body)
        self.body = None  # a stream may last
        self._received = True
        self.record.request_body(body)
        return principal, body

    async def _understand(self, principal: Principal | None, body: bytes) -> ModelRequest:
        """What the pipeline is to execute. Raises: CpaError."""
        if principal is None:
            principal = await self._ask_plugins(body)
        head = self.head
        head.pattern, head.principal, head.trace_id = self.route.pattern, principal.key, self.trace_id
        request = self.request = self.route.parse(head, body)
        if self.live is not None:
            self.live.understood(request)
        if request.stream:
            self._framing = self.route.framing(head, self.runtime.config)
        return request

    async def _ask_plugins(self, body: bytes) -> Principal:
        head = self.head
        call = AuthCall(
            method=head.method,
            path=head.path,
            headers=http.to_map(head.headers),
            query=query_map(head.query),
            body=body,
        )
        found = await self.runtime.access.ask(call)
        if found is None:
            raise refusal(head.headers, head.query)
        return found

    async def _serve(self, request: ModelRequest, nursery: trio.Nursery | None) -> None:
        """Raises: CpaError, which the client has not been told of yet."""
        if not self.state.usage.limiter.permits(request.principal, request.model):
            raise RequestError(
                f"this client key may not use model {request.model}", code="model_not_allowed", http_status=403
            )
        with self.state.usage.limiter.admit(request.principal, request.body):
            if nursery is not None:
                self._keep_alive(request, nursery)
            async with open_answer(
                request,
                self.runtime.services,
                observer=self,
                wire_log=self.record if self.record.active else None,
                trace=None if self.live is None else self.live.trace,
            ) as answer:
                await self._deliver(answer)

    def attempt_started(self, credential: Credential) -> None:
        """See `cpa.types.AttemptObserver`."""
        self._credential = credential
        self.provider = credential.provider

    def attempt_ended(self, credential: Credential, error: CpaError | None) -> None:
        """See `cpa.types.AttemptObserver`."""
        status = HTTPStatus.OK if error is None else getattr(error, "status", 0)
        self.state.metrics.attempt(credential.provider, status)

    def _keep_alive(self, request: ModelRequest, nursery: trio.Nursery) -> None:
        """Start signs of life where the configuration asks for them; one task per request, none otherwise."""
        config = self.runtime.config
        if request.stream and config.streaming.keepalive_seconds > 0:
            early = config.streaming.keepalive_before_first_chunk
            head = (HTTPStatus.OK.value, self._stream_headers) if early else None
            frame, interval_s = keepalive_frame(request.answer_format), config.streaming.keepalive_seconds
        elif not request.stream and config.nonstream_keepalive_interval > 0:
            # Commits status 200 while the outcome is open: the operator asked for exactly that.
            head, frame, interval_s = (HTTPStatus.OK.value, JSON_TYPE), b"\n", config.nonstream_keepalive_interval
        else:
            return

        async def keep_alive() -> None:
            await self.responder.keep_alive(frame, interval_s, head=head)

        nursery.start_soon(keep_alive)

    async def _deliver(self, answer: Answer) -> None:
        """Hand the answer to the client. Raises: CpaError when the provider fails in the middle of its stream."""
        responder, metrics = self.responder, self.state.metrics
        reshape = self.route.reshape() if self.route.reshape is not None else None
        metrics.first_byte(answer.credential.provider, perf_counter() - self.started)
        if self.live is not None:
            self.live.first_byte()
        if answer.stream is None:
            body = answer.body if reshape is None else reshape.full(answer.body)
            await self._whole(HTTPStatus.OK, with_default_type(answer.headers), body)
            return
        self._stream = answer.stream
        metrics.stream_opened()
        try:
            # HTTP/2 forbids the header that HTTP/1 clients of event streams look for.
            kept = KEPT_OPEN if self.head.http_version.startswith("1") else ()
            await self._start(HTTPStatus.OK, (*self._stream_headers, *kept, *without_type(answer.headers)))
            await self._relay(answer.stream, reshape)
            await responder.end()
        finally:
            metrics.stream_closed()

    async def _relay(self, stream: AnswerStream, reshape: Reshape | None) -> None:
        write, record, framing = self.responder.write, self.record, self._framing
        async for block in stream:
            if reshape is not None:
                block = reshape.frames(block)
            if framing is not None:
                block = framing.frames(block)
            if not block:
                continue
            await write(block)
            record.response_chunk(block)
        if framing is not None:
            end = framing.end()
            await write(end)
            record.response_chunk(end)

    @property
    def _stream_headers(self) -> RawHeaders:
        return STREAM_HEADERS if self._framing is None else self._framing.headers

    async def _fail(self, exc: CpaError) -> None:
        """Tell the client in its own protocol: by status while that is open, else inside its stream."""
        self.error = exc
        if isinstance(exc, UpstreamError):
            log.warning("upstream.failed", provider=self.provider, error=str(exc), code=exc.code)
        if not self.responder.committed:
            status, headers, body = self._error_answer(exc)
            await self._whole(status, headers, body)
            return
        self._broken = exc.http_status
        if self.request is not None and self.request.stream:
            frames = self._error_frames(exc)
            if self._framing is not None:
                told = isinstance(exc, UpstreamStreamError) and exc.code not in CUT_CODES
                frames = self._framing.failure(frames, told=told)
            await self.responder.write(frames)
        else:
            await self.responder.write(self._error_answer(exc)[2])
        await self.responder.end()

    def _error_frames(self, exc: CpaError) -> bytes:
        """*exc* inside the client's stream: the provider's own event where the client understands it."""
        context = self._frame_context()
        frame = exc.frame if isinstance(exc, UpstreamStreamError) else b""
        if frame and (not context.codex_client or b'"response.failed"' in frame):
            return frame
        told = b""
        if self._stream is not None and self._framing is None:  # sessions have errors of their own (proxy 1.12)
            told = self._stream.failure_frames(from_exception(public(exc)))
        return told or error_frames(self.route.format, public(exc), context)

    def _frame_context(self) -> FrameContext:
        named = (self.head.header(b"user-agent") + b" " + self.head.header(b"originator")).decode("latin-1").lower()
        return FrameContext(
            sequence_number=self._stream.next_sequence() if self._stream is not None else 0,
            codex_client=any(client in named for client in CODEX_CLIENTS),
        )

    def _error_answer(self, exc: CpaError) -> tuple[int, RawHeaders, bytes]:
        """Status, headers and body of a failure, in the client's protocol."""
        fmt = self.route.format
        if isinstance(exc, Rejected):
            return exc.http_status, exc.headers, exc.body
        if isinstance(exc, UpstreamStatusError):
            reply = render_upstream_error(fmt, Format(exc.provider_format), exc.status, exc.headers, exc.body)
            return reply.status, self._upstream_headers(exc, reply.headers), reply.body
        if exc.as_said and exc.message.startswith("{") and is_json(exc.message.encode("utf-8", "replace")):
            return exc.http_status, JSON_TYPE, exc.message.encode("utf-8", "replace")
        error = from_exception(public(exc))
        status, body = render_error(
            fmt,
            status=error.status,
            message=error.message,
            code=error.code,
            param=error.param,
            retry_after_s=error.retry_after_s,
            details=error.details,
        )
        if exc.as_said:
            status = exc.http_status
        headers = JSON_TYPE
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = (*JSON_TYPE, (b"allow", b"POST"))
        if isinstance(exc, NoCredential | LimitExceeded) and exc.retry_after_s:
            headers = (*JSON_TYPE, (b"retry-after", b"%d" % -(-exc.retry_after_s // 1)))
        return status, headers, body

    def _upstream_headers(self, exc: UpstreamStatusError, own: RawHeaders) -> RawHeaders:
        """*own* and what else of a provider's error answer the client may see: its request id always (proxy 1.16)."""
        passed = http.filter_response(exc.headers)
        if not self.runtime.config.passthrough_headers:
            passed = tuple(pair for pair in passed if pair[0] in REQUEST_IDS)
        names = {name for name, _ in own}
        return (*own, *(pair for pair in passed if pair[0] not in names))

    async def _refuse(self, exc: CpaError) -> None:
        """Answer a request that never reached the pipeline, whose body may still be on its way."""
        self.error = exc
        status, headers, body = self._error_answer(exc)
        if self._received:
            await self._whole(status, headers, body)
            return
        # The answer goes out complete by its length; the exchange ends only after the rest of the request was dropped.
        responder = self.responder
        length = (b"content-length", b"%d" % len(body))
        first_version = self.head.http_version.startswith("1")
        last = ((b"connection", b"close"),) if first_version else ()
        await self._start(status, (*headers, length, *last))
        await responder.write(body)
        self.record.response_chunk(body)
        if await linger(self.receive) or not first_version:
            # Over HTTP/2 the end of the exchange resets its stream, and only that.
            await responder.end()
        else:
            self.abort()

    async def _whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        headers = self._traced(headers)
        self.record.response(status, headers)
        await self.responder.whole(status, headers, body)
        self.record.response_chunk(body)

    async def _start(self, status: int, headers: RawHeaders) -> None:
        headers = self._traced(headers)
        self.record.response(status, headers)
        await self.responder.start(status, headers)

    def _traced(self, headers: RawHeaders) -> RawHeaders:
        """With the trace id, once a credential was selected: local time, the credential's index, this request's id."""
        if self._credential is None or self._credential.anonymous:
            return headers
        return (
            *headers,
            (b"x-cpa-trace-id", f"{stamp(int(time()))}-{self._credential.index}-{self.trace_id}".encode()),
        )


async def serve_call(
    state: ServerState,
    *,
    route: ModelRoute,
    head: ClientHead,
    receive: Receive,
    responder: Responder,
    abort: Callable[[], None],
    body: bytes | None = None,
    when_left: Callable[[Callable[[], None] | None], None] | None = None,
    transport: str = "http",
    watch: Callable[[ModelCall, RequestRecord], RequestRecord] | None = None,
) -> ModelCall:
    """Serve one request under an id of its own, with a request log and in the metrics.

    Args:
      body: see `ModelCall`.
      when_left: see `ModelCall`.
      transport: of the client, for the request log.
      watch: gets the call before it runs and its record, and returns what is to be told instead of that.
    """
    trace_id = TraceId(f"{getrandbits(32):08x}")
    request_id.set(trace_id)
    record = state.request_logs.begin(
        method=head.method,
        path=head.path,
        headers=head.headers,
        query=head.query.decode("latin-1"),
        trace_id=trace_id,
        transport=transport,
    )
    call = ModelCall(
        state=state,
        route=route,
        head=head,
        receive=receive,
        responder=responder,
        record=record,
        trace_id=trace_id,
        abort=abort,
        body=body,
        when_left=when_left,
        live=state.live.begin(trace_id, route.format),
    )
    if watch is not None:
        call.record = watch(call, record)
    metrics = state.metrics
    metrics.request_started()
    try:
        await call.run()
    finally:
        responder.told = call.status
        if call.gone:
            metrics.client_disconnected(route.format)
        metrics.request_finished(
            protocol=route.format,
            provider=call.provider,
            status=call.status,
            stream=call.request is not None and call.request.stream,
            duration_s=perf_counter() - call.started,
            bytes_in=len(call.request.body) if call.request is not None else 0,
            bytes_out=responder.body_bytes,
        )
        record.finish(call.status, canceled=call.gone)
        if call.live is not None:
            call.live.finished(call.status, "" if call.error is None else call.error.message)
    return call


@lru_cache(maxsize=1)
def stamp(now_s: int) -> str:
    """Local time as trace ids have it."""
    return strftime("%Y%m%d%H%M%S", localtime(now_s))


def with_default_type(headers: RawHeaders) -> RawHeaders:
    """*headers*, as JSON unless they say otherwise."""
    for name, _ in headers:
        if name == b"content-type":
            return headers
    return (*JSON_TYPE, *headers)


def without_type(headers: RawHeaders) -> RawHeaders:
    """*headers* without those that an event stream has of its own, whatever a provider called it."""
    return tuple(pair for pair in headers if pair[0] not in OWN_STREAM_HEADERS)


def public(exc: CpaError) -> CpaError:
    """*exc* as clients may hear of it: without hosts and settings of the operator."""
    return CpaError(exc.public_message, code=exc.code, http_status=exc.http_status) if exc.public_message else exc
