"""Drives an execution through a plan: the whole request path of plugin-abi 6.2 in order.

`open_answer` is the one entry, for clients and for nested executions alike. It is a context: inside it the provider's
connection is open, and leaving it, however, closes that connection, settles the outcome and announces it. There is no
task in here; a cancelled caller cancels whatever is being awaited.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

import attrs
import structlog
import trio

from cpa.credentials.model import Credential
from cpa.errors import (
    CpaError,
    NoCredential,
    NoTranslator,
    RawHeaders,
    Rejected,
    RequestError,
    UnknownModel,
    UpstreamError,
    UpstreamStatusError,
    UpstreamStreamError,
)
from cpa.formats import headers as http
from cpa.formats.headers import HeaderMap
from cpa.formats.json import splice_model
from cpa.formats.names import SAME_WIRE, Format
from cpa.formats.redaction import hide
from cpa.formats.streams import StreamReader, open_reader
from cpa.pipeline.dispatch import ask, first_body, fold_body
from cpa.pipeline.exchange import OUTCOMES, Event, Exchange, ModelRequest
from cpa.pipeline.plan import Plan
from cpa.pipeline.rules import (
    COMPLETION_STATUS,
    base_metadata,
    check_answer,
    client_headers,
    may_rotate,
    query_map,
    rejection,
)
from cpa.pipeline.stage import (
    CompletionCall,
    Execution,
    InterceptRequestCall,
    InterceptRequestResult,
    InterceptResponseCall,
    InterceptResponseResult,
    PickCall,
    PickCandidate,
    PickResult,
    Registration,
    RouteCall,
    RouteResult,
    StageKind,
    TargetKind,
    TransformCall,
)
from cpa.pipeline.stream import NATIVE_IDENTITY, AnswerContext, ChunkStages, transform_full
from cpa.pipeline.trace import Trace
from cpa.types import (
    AttemptObserver,
    Candidate,
    ModelResolver,
    RequestId,
    Scheduler,
    UpstreamAnswer,
    UpstreamCall,
    WireLog,
)

log = structlog.get_logger(__name__)

START_HOLD_S = 2.0
"""How long start events wait for what follows them (translation 4.1)."""
TAIL_S = 10.0
"""How long an answered stream may be silent before it counts as ended. Longer than translation 4.1's 2 s: when several
choices were asked for, the first one's end is seen while others still think."""
COMPLETION_WAIT_S = 5.0
"""How long an ended exchange waits for a place among the running completion events before it gives up, loudly."""
FORMATS_WITH_MODEL_IN_BODY = frozenset({Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX, Format.CLAUDE})
JSON_HEADERS: RawHeaders = ((b"content-type", b"application/json"),)
FULL_RESPONSE_STAGES = (
    StageKind.RESPONSE_NORMALIZE_BEFORE,
    StageKind.RESPONSE_TRANSLATE,
    StageKind.RESPONSE_NORMALIZE_AFTER,
    StageKind.INTERCEPT_RESPONSE,
)
CHUNK_STAGES = (
    StageKind.RESPONSE_NORMALIZE_BEFORE,
    StageKind.RESPONSE_TRANSLATE,
    StageKind.RESPONSE_NORMALIZE_AFTER,
    StageKind.INTERCEPT_CHUNK,
)


class CompletionSink(Protocol):
    """Runs completion events outside the exchange that caused them, so that its client does not wait."""

    async def submit(self, call: CompletionCall, entries: Sequence[Registration]) -> None:
        """Take *call* over; waits only while too many are running."""
        ...


@attrs.frozen(kw_only=True)
class Services:
    """All that an execution needs; one immutable snapshot per configuration, kept by the executions it started.

    Attributes:
      passthrough_headers: a provider's response headers reach the client.
      max_event_bytes: largest event of a provider's stream.
      nested_depth: executions inside one another; deeper ones are a loop.
    """

    plan: Plan
    models: ModelResolver
    scheduler: Scheduler
    completions: CompletionSink
    passthrough_headers: bool = False
    max_event_bytes: int = 50 << 20
    nested_depth: int = 8


@attrs.define(kw_only=True, eq=False)
class Answer:
    """What the client gets: either a whole *body* or a *stream* of wire frames.

    Attributes:
      headers: for the client, lower-case names, without those of the connection.
      credential: who served it.
      format: the client's protocol; ``stream`` raises CpaError on failures after its first frames.
    """

    format: Format
    headers: RawHeaders
    credential: Credential
    body: bytes = attrs.field(default=b"", repr=False)
    stream: "AnswerStream | None" = None


@attrs.frozen(kw_only=True)
class Prepared:
    """A request on its way to one candidate, after interception and translation."""

    candidate: Candidate
    headers: RawHeaders
    original: bytes
    body: tuple[bytes, ...]


class AnswerStream:
    """Wire frames for the client, whole events at a time.

    Iterating raises CpaError when the provider fails midway, after which there is nothing more. Frames are a provider's
    own bytes unless a stage changed them.

    Attributes:
      reader: knows the state of the provider's stream.
    """

    def __init__(
        self,
        *,
        answer: UpstreamAnswer,
        reader: StreamReader,
        exchange: Exchange,
        stages: ChunkStages | None,
        source: Format,
        credential: Credential,
    ) -> None:
        self._answer = answer
        self._chunks = answer.chunks()
        self._exchange = exchange
        self._stages = stages
        self._source = source
        self._credential = credential
        self._first = b""
        self._ended = False
        self.reader = reader

    async def prefetch(self) -> None:
        """Have the first deliverable frames in hand. Raises: UpstreamError, when another attempt may still be made.

        Start events say nothing yet: many failures come right behind them. As long as they are all there is, they are
        held back for a moment, so that such a failure is answered with its own status.
        """
        block = await self._read()
        with trio.move_on_after(START_HOLD_S):
            while not (self.reader.substantial or self._ended or self.reader.fault):
                block += await self._read()
        fault = self.reader.fault
        if fault is not None and not self.reader.substantial:
            body = hide(fault.body, self._credential.secrets())
            raise UpstreamStatusError(
                status=fault.status, headers=JSON_HEADERS, body=body, provider_format=self._source
            )
        self._first = await self._through(block) or await self._advance()

    def __aiter__(self) -> "AnswerStream":
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            block = await self._advance()
        except CpaError:
            self._exchange.advance(Event.FAIL)
            raise
        if block:
            return block
        if not self._exchange.ended:
            self._exchange.advance(Event.SUCCEED)
        raise StopAsyncIteration

    async def _advance(self) -> bytes:
        """The next frames, or empty at a clean end. Raises: UpstreamError, StageError."""
        while not self._ended:
            fault = self.reader.fault
            if fault is not None:
                frame = hide(fault.frame, self._credential.secrets())
                raise UpstreamStreamError(fault.message, status=fault.status, code=fault.code, frame=frame)
            block = await self._through(await self._read())
            if block:
                return block
        return b""

    async def _read(self) -> bytes:
        """The provider's next whole events; sets `_ended` at a clean end. Raises: UpstreamError."""
        reader = self.reader
        if reader.done:
            await self._answer.drain()
        elif reader.terminal:
            # What may follow is an end mark or the usage. The answer is complete without: neither a provider that
            # keeps the connection open nor one that breaks it can spoil it any more.
            with trio.move_on_after(TAIL_S), suppress(StopAsyncIteration, UpstreamError):
                return reader.feed(await self._chunks.__anext__())
        else:
            with suppress(StopAsyncIteration):
                return reader.feed(await self._chunks.__anext__())
        block = reader.finish()
        self._ended = reader.fault is None
        return block

    async def _through(self, block: bytes) -> bytes:
        """*block* after the chunk stages, with the client's end mark where they own it."""
        if self._stages is None:
            return block
        block = await self._stages.feed(block) if block else b""
        return block + await self._stages.finish() if self._ended else block


@asynccontextmanager
async def open_answer(
    request: ModelRequest,
    services: Services,
    *,
    observer: AttemptObserver | None = None,
    wire_log: WireLog | None = None,
) -> AsyncIterator[Answer]:
    """Execute *request* and keep its answer open.

    Raises: CpaError before the first byte of an answer is in hand; later ones come out of `Answer.stream`.
    Cancellation: closes the provider's connection at once and ends the execution as cancelled.
    """
    run = Run(request=request, services=services, observer=observer, wire_log=wire_log)
    candidates = await run.route()
    run.exchange.advance(Event.START)
    try:
        async with AsyncExitStack() as stack:
            await run.intercept_before()
            yield await run.attempt(candidates, stack)
            run.attempt_ended(None)
    except Rejected as exc:
        run.settle(Event.REJECT, exc)
        raise
    except Exception as exc:
        run.settle(Event.FAIL, exc)
        if isinstance(exc, CpaError):
            run.attempt_ended(exc)
        raise
    finally:
        run.settle(Event.CANCEL)
        await run.complete()


class Run:
    """One execution from routing to its completion event."""

    def __init__(
        self,
        *,
        request: ModelRequest,
        services: Services,
        observer: AttemptObserver | None,
        wire_log: WireLog | None,
    ) -> None:
        self.request = request
        self.services = services
        self.plan = services.plan
        self.exchange = Exchange()
        self.trace = Trace()
        self.execution = Execution(
            request_id=RequestId(str(uuid4())),
            trace_id=request.trace_id,
            callers=request.callers,
            metadata=base_metadata(request),
            headers=request.headers,
            query=request.query,
            path=request.path,
            principal=request.principal,
        )
        self.observer = observer
        self.wire_log = wire_log
        self.model = request.model
        self.headers = request.headers
        self.body = request.body
        self.error: BaseException | None = None
        self._attempt: Credential | None = None
        self.started_at = datetime.now(UTC)

    async def route(self) -> tuple[Candidate, ...]:
        """Routers first, then the registry. Raises: UnknownModel, NoCredential, RequestError on a loop."""
        request, models = self.request, self.services.models
        depth, allowed = len(request.callers), self.services.nested_depth
        if depth > allowed:
            raise RequestError(f"nested model calls are {depth} deep, at most {allowed} are allowed")
        for entry in self.plan.of(StageKind.MODEL_ROUTE, request.callers):
            call = RouteCall(
                execution=self.execution,
                source_format=request.format,
                requested_model=request.model,
                stream=request.stream,
                headers=http.to_map(request.headers),
                query=query_map(request.query),
                body=request.body,
                available_providers=models.providers(),
            )
            result: RouteResult | None = await ask(entry, call, self.trace)
            if result is None:
                continue
            candidates = self._routed(result)
            if candidates:
                return candidates
            log.warning(
                "route.invalid", plugin_id=entry.plugin_id, target_kind=result.target_kind, target=result.target
            )
        return models.resolve(request.model)

    def _routed(self, result: RouteResult) -> tuple[Candidate, ...]:
        """Candidates of a router's choice; none when the choice cannot be followed and the next router is asked."""
        if result.target_kind is not TargetKind.PROVIDER or result.target not in self.services.models.providers():
            return ()
        model = result.model.strip() or self.request.model
        try:
            candidates = self.services.models.resolve(model, provider=result.target)
        except (UnknownModel, NoCredential):
            return ()
        self.model = model
        return candidates

    async def intercept_before(self) -> None:
        """`request.intercept_before`: once, chained, may end the execution. Raises: Rejected."""
        entries = self.plan.of(StageKind.INTERCEPT_BEFORE, self.request.callers)
        if entries:
            self.headers, self.body = await self._intercept(
                entries, model=self.model, to_format="", headers=self.headers, body=self.body
            )

    async def _intercept(
        self, entries: Sequence[Registration], *, model: str, to_format: str, headers: RawHeaders, body: bytes
    ) -> tuple[RawHeaders, bytes]:
        current = http.to_map(headers)
        for entry in entries:
            call = InterceptRequestCall(
                execution=self.execution,
                source_format=self.request.format,
                to_format=to_format,
                model=model,
                requested_model=self.request.model,
                stream=self.request.stream,
                headers=current,
                body=body,
            )
            result: InterceptRequestResult | None = await ask(entry, call, self.trace)
            if result is None:
                continue
            if result.terminate:
                raise rejection(result, entry)
            if result.headers or result.clear_headers:
                current = http.merge(current, clear=result.clear_headers, replace=result.headers)
            body = result.body or body
        return http.to_raw(current), body

    async def attempt(self, candidates: Sequence[Candidate], stack: AsyncExitStack) -> Answer:
        """Try candidates until one answers; its connection stays open in *stack*.

        Raises: the last provider's error when no candidate is left or the fault lies in the request.
        """
        left = self._routable(candidates)
        while True:
            candidate = await self._pick(left)
            left.remove(candidate)
            self.exchange.advance(Event.ATTEMPT)
            self._attempt = candidate.credential
            if self.observer is not None:
                self.observer.attempt_started(candidate.credential)
            try:
                return await stack.enter_async_context(self._open_attempt(candidate))
            except UpstreamError as exc:
                if not left or not may_rotate(exc):
                    raise
                self.attempt_ended(exc)
                log.info("attempt.failed", provider=candidate.credential.provider, error=str(exc))
                self.exchange.advance(Event.RETRY)

    def _routable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those of *candidates* whose protocol the client's can be carried to. Raises: NoTranslator when none is."""
        source = self.request.format
        if self.plan.of(StageKind.REQUEST_TRANSLATE):
            return list(candidates)
        found = [c for c in candidates if (source, c.executor.format) in SAME_WIRE]
        if not found:
            raise NoTranslator(source=source, target=candidates[0].executor.format, model=self.request.model)
        return found

    def attempt_ended(self, error: CpaError | None) -> None:
        """Tell observer and log how the running attempt ended, once; a stream's ends with the stream."""
        credential, self._attempt = self._attempt, None
        if credential is None:
            return
        if self.wire_log is not None and error is not None:
            self.wire_log.attempt_error(str(error))
        if self.observer is not None:
            self.observer.attempt_ended(credential, error)

    async def _pick(self, left: Sequence[Candidate]) -> Candidate:
        """A plugin scheduler first (only the highest one), then the built-in one."""
        best = max(candidate.credential.priority for candidate in left)
        tier = {c.credential.id: c for c in left if c.credential.priority == best}
        strategy = ""
        for entry in self.plan.of(StageKind.SCHEDULER_PICK)[:1]:
            call = PickCall(
                execution=self.execution,
                providers=tuple(dict.fromkeys(c.credential.provider for c in tier.values())),
                model=self.model,
                stream=self.request.stream,
                headers=http.to_map(self.headers),
                candidates=tuple(
                    PickCandidate(id=key, provider=c.credential.provider, priority=best) for key, c in tier.items()
                ),
            )
            result: PickResult | None = await ask(entry, call, self.trace)
            if result is not None and result.credential_id in tier:
                return tier[result.credential_id]
            if result is not None:
                strategy = result.delegate
        picked = self.services.scheduler.pick(
            [c.credential for c in tier.values()], model=self.model, strategy=strategy
        )
        return tier[picked.id]

    @asynccontextmanager
    async def _open_attempt(self, candidate: Candidate) -> AsyncIterator[Answer]:
        prepared = await self._prepare(candidate)
        call = UpstreamCall(
            credential=candidate.credential,
            operation=self.request.operation,
            model=candidate.model,
            stream=self.request.stream,
            body=prepared.body,
            client_headers=prepared.headers,
            query=self.request.query,
            log=self.wire_log,
        )
        if not self.request.stream:
            async with candidate.executor.open(call) as upstream:
                body = await upstream.read()
            check_answer(candidate.executor.format, body, candidate.credential)
            # The provider's connection is back in its pool before the client gets its first byte.
            yield await self._full(prepared, upstream.headers, body)
            return
        async with candidate.executor.open(call) as upstream:
            yield await self._streamed(prepared, upstream)

    async def _prepare(self, candidate: Candidate) -> Prepared:
        """Interceptors of this attempt, then translation. Results are not carried over to the next attempt."""
        source, target = self.request.format, candidate.executor.format
        headers, body = self.headers, self.body
        entries = self.plan.of(StageKind.INTERCEPT_AFTER, self.request.callers)
        if entries:
            headers, body = await self._intercept(
                entries, model=candidate.model, to_format=target, headers=headers, body=body
            )
        return Prepared(
            candidate=candidate,
            headers=headers,
            original=body,
            body=await self._translate(source, target, candidate.model, body),
        )

    async def _translate(self, source: Format, target: Format, model: str, body: bytes) -> tuple[bytes, ...]:
        """plugin-abi 6.3. Bytes stay bytes: only the model's name is spliced, and only if it differs."""
        pieces: tuple[bytes, ...] = (body,)
        if source in FORMATS_WITH_MODEL_IN_BODY and model != self.request.model:
            pieces = splice_model(body, model)
        normalizers = self.plan.of(StageKind.REQUEST_NORMALIZE)
        native = (source, target) in NATIVE_IDENTITY
        translators = () if native else self.plan.of(StageKind.REQUEST_TRANSLATE)
        same_wire = (source, target) in SAME_WIRE
        if not same_wire and not translators:
            raise NoTranslator(source=source, target=target, model=self.request.model)
        if not normalizers and not translators:
            return pieces
        call = TransformCall(
            execution=self.execution,
            from_format=source,
            to_format=target,
            model=model,
            stream=self.request.stream,
            body=b"".join(pieces),
        )
        call = attrs.evolve(call, body=await fold_body(normalizers, call, self.trace))
        translated = await first_body(translators, call, self.trace)
        if translated is None and not same_wire:
            raise NoTranslator(source=source, target=target, model=self.request.model)
        return (translated or call.body,)

    def _context(self, prepared: Prepared) -> AnswerContext:
        return AnswerContext(
            execution=self.execution,
            plan=self.plan,
            trace=self.trace,
            source=prepared.candidate.executor.format,
            target=self.request.format,
            model=prepared.candidate.model,
            requested_model=self.request.model,
            request_headers=http.to_map(prepared.headers),
            original_request=prepared.original,
            request_body=b"".join(prepared.body),
        )

    def _has(self, *kinds: StageKind) -> bool:
        return any(self.plan.of(kind, self.request.callers) for kind in kinds)

    async def _full(self, prepared: Prepared, upstream_headers: RawHeaders, body: bytes) -> Answer:
        current: HeaderMap | None = None
        if self._has(*FULL_RESPONSE_STAGES):
            context = self._context(prepared)
            body = await transform_full(context, body)
            current = http.to_map(upstream_headers)
            for entry in self.plan.of(StageKind.INTERCEPT_RESPONSE, self.request.callers):
                call = InterceptResponseCall(
                    execution=self.execution,
                    source_format=context.target,
                    model=context.model,
                    requested_model=context.requested_model,
                    request_headers=context.request_headers,
                    response_headers=current,
                    original_request=context.original_request,
                    request_body=context.request_body,
                    body=body,
                )
                result: InterceptResponseResult | None = await ask(entry, call, self.trace)
                if result is not None:
                    current = http.merge(current, clear=result.clear_headers, replace=result.headers)
                    body = result.body or body
        self.exchange.advance(Event.COMMIT)
        self.exchange.advance(Event.SUCCEED)
        return self._answer(prepared, upstream_headers, current, body=body)

    async def _streamed(self, prepared: Prepared, upstream: UpstreamAnswer) -> Answer:
        stages: ChunkStages | None = None
        if self._has(*CHUNK_STAGES):
            stages = ChunkStages(self._context(prepared), headers=http.to_map(upstream.headers))
            if stages.idle:
                stages = None
        stream = AnswerStream(
            answer=upstream,
            reader=open_reader(prepared.candidate.executor.format, max_event_bytes=self.services.max_event_bytes),
            exchange=self.exchange,
            stages=stages,
            source=prepared.candidate.executor.format,
            credential=prepared.candidate.credential,
        )
        await stream.prefetch()
        self.exchange.advance(Event.COMMIT)
        return self._answer(prepared, upstream.headers, None if stages is None else stages.headers, stream=stream)

    def _answer(
        self,
        prepared: Prepared,
        upstream_headers: RawHeaders,
        current: HeaderMap | None,
        *,
        body: bytes = b"",
        stream: AnswerStream | None = None,
    ) -> Answer:
        return Answer(
            format=self.request.format,
            headers=client_headers(upstream_headers, current, passthrough=self.services.passthrough_headers),
            credential=prepared.candidate.credential,
            body=body,
            stream=stream,
        )

    def settle(self, event: Event, error: BaseException | None = None) -> None:
        """End the execution by *event* unless it has ended already."""
        if not self.exchange.ended:
            self.exchange.advance(event)
        self.error = self.error or error

    async def complete(self) -> None:
        """Announce the outcome. Shielded and bounded: it happens also for a client that has left."""
        entries = self.plan.of(StageKind.REQUEST_COMPLETE, self.request.callers)
        if not entries:
            return
        outcome = OUTCOMES[self.exchange.state]
        call = CompletionCall(
            execution=self.execution,
            source_format=self.request.format,
            model=self.model,
            requested_model=self.request.model,
            stream=self.request.stream,
            outcome=outcome,
            status_code=COMPLETION_STATUS.get(outcome, getattr(self.error, "http_status", 500)),
            error="" if self.error is None else str(self.error),
            started_at=self.started_at,
            completed_at=datetime.now(UTC),
        )
        with trio.move_on_after(COMPLETION_WAIT_S, shield=True) as scope:
            await self.services.completions.submit(call, entries)
        if scope.cancelled_caught:
            log.error("completion.lost", request_id=self.execution.request_id, running_for_s=COMPLETION_WAIT_S)
