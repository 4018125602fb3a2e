"""The chunk stages of one stream: normalizers, translators and interceptors between a provider's events and a client's.

One object per stream, made only when a stage wants to see chunks; without one, events pass as the bytes they came as.
The order is plugin-abi 6.4 and 6.5: normalize_before per provider unit, normalize_after and the interceptors per client
frame, one head call with index -1 before the first frame.
"""

from collections import deque
from collections.abc import Iterable
from time import perf_counter

import attrs

from cpa.errors import UpstreamStreamError
from cpa.formats import headers as http
from cpa.formats.errors import WireError
from cpa.formats.headers import HeaderMap
from cpa.formats.names import Format
from cpa.formats.units import (
    end_frame,
    ends_stream,
    frame_unit,
    from_provider_units,
    provider_end_unit,
    provider_units,
    to_units,
)
from cpa.pipeline.applying import LiveStep, live_steps, translators_of
from cpa.pipeline.chains import NATIVE_IDENTITY, STANDARD, BodyStep, By, Compiled, Edit
from cpa.pipeline.dispatch import ask, first_body
from cpa.pipeline.plan import Plan
from cpa.pipeline.stage import (
    InterceptChunkCall,
    InterceptChunkResult,
    Registration,
    StageKind,
    TransformCall,
)
from cpa.pipeline.steps.values import Side, StepContext
from cpa.pipeline.trace import StepRecord, Trace
from cpa.pipeline.translating import Relay, translate_body
from cpa.translation.context import Context
from cpa.types import Execution

HISTORY_CHUNKS = 64
"""plugin-abi appendix A: what interceptors may look back on."""
HISTORY_BYTES = 1 << 20


class History:
    """Chunks already delivered, oldest first, at most `HISTORY_CHUNKS` and `HISTORY_BYTES` in all."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size_bytes = 0
        self._snapshot: tuple[bytes, ...] = ()
        self._changed = False

    def append(self, chunk: bytes) -> None:
        """Remember *chunk* and forget from the front what is too much; a chunk beyond the limit empties it."""
        self._changed = True
        self._chunks.append(chunk)
        self._size_bytes += len(chunk)
        while self._chunks and (len(self._chunks) > HISTORY_CHUNKS or self._size_bytes > HISTORY_BYTES):
            self._size_bytes -= len(self._chunks.popleft())

    def snapshot(self) -> tuple[bytes, ...]:
        """The chunks, oldest first; the same object until there is another one, so that it is encoded once for all."""
        if self._changed:
            self._snapshot, self._changed = tuple(self._chunks), False
        return self._snapshot


@attrs.frozen(kw_only=True)
class AnswerContext:
    """What response stages are told about the request that led to this answer.

    Attributes:
      source: the provider's protocol; a plugin's need not be known. ``target``: the client's.
      native: see `cpa.types.Wire`.
      translation: what translates the answer natively, first what meets the provider's bytes; empty where these will
        do, or plugins have to.
      chain: whose steps the answer goes through.
      original_request: the client's body after interception; ``request_body``: what the provider got.
    """

    execution: Execution
    plan: Plan
    trace: Trace
    source: str
    target: Format
    native: bool
    translation: tuple[Context, ...]
    model: str
    requested_model: str
    request_headers: HeaderMap
    original_request: bytes
    request_body: bytes
    chain: Compiled = STANDARD

    @property
    def untouched(self) -> bool:
        """The answer is a plugin's and already what the client wants: no transform sees it (plugin-abi 4.7.2)."""
        return not self.native and self.source == self.target

    @property
    def units(self) -> bool:
        """Chunks come as units of a plugin's executor, except Responses events for a client that wants those: plugins
        may cut them as they like, and they have to be put together like a provider's bytes (plugin-abi 6.16)."""
        relayed = self.target is Format.OPENAI_RESPONSE and self.source in (Format.OPENAI_RESPONSE, Format.CODEX)
        return not self.native and not relayed

    def live(self, steps: tuple[BodyStep, ...], *, here: str, stream: bool) -> tuple[LiveStep, ...]:
        """*steps*, ready for bodies in the protocol *here*. Raises: RequiredPluginDown."""
        return live_steps(
            steps,
            chain=self.chain.name,
            plan=self.plan,
            trace=self.trace,
            context=StepContext(
                format=here,
                side=Side.RESPONSE,
                client=self.target,
                provider=self.source,
                model=self.model,
                requested_model=self.requested_model,
                stream=stream,
                execution=self.execution,
            ),
            call=lambda body: self.transform(body, stream=stream),
        )

    @property
    def native_route(self) -> bool:
        """No plugin has to translate: we do, or nothing has to be done."""
        by = self.chain.translate.by
        if by is By.STANDARD:
            return bool(self.translation) or (self.target, self.source) in NATIVE_IDENTITY
        return by is not By.PLUGIN

    def record(self) -> StepRecord:
        """The record of the translation."""
        return self.trace.step(chain=self.chain.name, side=Side.RESPONSE, step=self.chain.translate.label)

    def transform(self, body: bytes, *, stream: bool) -> TransformCall:
        """The call of a response transform for *body*."""
        return TransformCall(
            execution=self.execution,
            from_format=self.source,
            to_format=self.target,
            model=self.model,
            stream=stream,
            body=body,
            original_request=self.original_request,
            translated_request=self.request_body,
        )


class ChunkStages:
    """Applies the chunk stages of one stream.

    Attributes:
      headers: response headers as the interceptors left them so far.
    """

    def __init__(self, context: AnswerContext, *, headers: HeaderMap) -> None:
        callers = context.execution.callers
        self._context = context
        self._units = context.units
        self._history = History()
        self._index = 0
        self._opened = False
        self.headers = headers
        chain = context.chain
        # A streamed answer from a Claude credential to a Claude client never meets the transforms (plugin-abi 6.4),
        # unless a chain says so.
        bypassed = context.untouched or (context.source == Format.CLAUDE and context.target is Format.CLAUDE)
        bypassed = bypassed and not chain.custom
        self._session = Relay(context.translation) if context.translation else None
        self._native = bypassed or context.native_route
        kind = StageKind.RESPONSE_TRANSLATE
        self._translators = () if self._native else translators_of(chain.translate, context.plan, kind)
        before = () if bypassed else context.live(chain.before, here=context.source, stream=True)
        # Up to the last edit, steps get whole events; plugins behind it get units one by one, on their way further.
        cut = max((index + 1 for index, live in enumerate(before) if isinstance(live.step, Edit)), default=0)
        self._head, self._before = before[:cut], before[cut:]
        self._translation = context.record() if self._session is not None or self._translators else None
        self._after = () if bypassed else context.live(chain.after, here=context.target, stream=True)
        self._interceptors = context.plan.of(StageKind.INTERCEPT_CHUNK, callers)

    @property
    def idle(self) -> bool:
        """No stage wants to see this stream: its events may pass as bytes."""
        translated = self._units or self._session is not None
        steps = self._head or self._before or self._after
        return self._native and not translated and not (steps or self._interceptors)

    @property
    def ended(self) -> bool:
        """The client has all that it will get, whatever the provider still sends."""
        return self._session is not None and self._session.ended

    @property
    def next_sequence(self) -> int | None:
        """Number of the next event of a Responses stream that we write; None where the provider writes it."""
        return None if self._session is None else self._session.next_sequence

    def failure(self, error: WireError) -> bytes:
        """*error* as the last event of a stream that we write and that says at its end what it was; else empty."""
        return b"" if self._session is None else self._session.failure(error)

    async def feed(self, block: bytes) -> bytes:
        """Frames for the client from the provider's whole events in *block*; empty when all were dropped.

        From a plugin's executor, *block* is one unit.
        """
        source, target = self._context.source, self._context.target
        block = await self._headed(block)
        if not block:
            return b""
        if self._session is not None:
            return await self._translated(self._session, block)
        if self._units:
            plain = self._native and not self._context.chain.custom
            return await self._deliver([block if plain else await self._translate(block)])
        if not self._native:
            return await self._deliver([await self._translate(unit) for unit in provider_units(source, block)])
        return await self._deliver(to_units(target, await self._normalized(block)))

    async def before(self, block: bytes) -> bytes:
        """Whole events of the provider after all steps before the translation, for whoever translates otherwise."""
        block = await self._headed(block)
        return await self._normalized(block) if block else b""

    async def _headed(self, block: bytes) -> bytes:
        for live in self._head:
            if block:
                block = await (live.unit(block) if self._units else live.block(block))
        return block

    async def _normalized(self, block: bytes) -> bytes:
        if not self._before:
            return block
        units = [await self._normalize(unit) for unit in provider_units(self._context.source, block)]
        return from_provider_units(self._context.source, units)

    async def _translated(self, session: Relay, block: bytes) -> bytes:
        """Frames by native translation. Raises: UpstreamStreamError for an error that only the translator sees."""
        block = await (self._normalize(block) if self._units else self._normalized(block))
        started = perf_counter()
        frames = session.feed_unit(block) if self._units else session.feed(block)
        if self._translation is not None:
            self._translation.note(block, frames, perf_counter() - started)
        if session.error is not None:
            error = session.error
            raise UpstreamStreamError(error.message, status=error.status, code=error.code, frame=b"")
        return await self._client_side(frames)

    async def _client_side(self, frames: bytes) -> bytes:
        """Frames that a translator made, after the client-side stages."""
        if not frames or not (self._after or self._interceptors):
            return frames
        end = end_frame(self._context.target) if ends_stream(self._context.target, frames) else b""
        return await self._deliver(to_units(self._context.target, frames)) + end

    async def finish(self) -> bytes:
        """The last frames of a clean end, with the client's own end mark."""
        if self._session is not None:
            frames = await self._client_side(self._session.finish())
            if self._session.error is not None:
                error = self._session.error
                raise UpstreamStreamError(error.message, status=error.status, code=error.code, frame=b"")
            await self.open()
            return frames
        end = provider_end_unit(self._context.source, units=self._units)
        frames = b""
        if end is not None and not self._native:
            translated = await self._translate(end)
            frames = await self._deliver([translated] if translated != end else [])
        elif end is not None and self._before:
            await self._normalize(end)
        await self.open()
        return frames + end_frame(self._context.target)

    async def _normalize(self, unit: bytes) -> bytes:
        for live in self._before:
            unit = await live.folded(unit)
        return unit

    async def _translate(self, unit: bytes) -> bytes:
        """A provider's unit as one frame of the client's format; unchanged when no plugin knows it."""
        unit = await self._normalize(unit)
        if self._translation is None:
            return unit
        started = perf_counter()
        call = self._context.transform(unit, stream=True)
        translated = await first_body(self._translators, call, self._context.trace) or unit
        self._translation.note(unit, translated, perf_counter() - started)
        return translated

    async def _deliver(self, units: Iterable[bytes]) -> bytes:
        """Frames from *units* in the client's format, after the client-side stages."""
        frames = []
        for unit in units:
            for live in self._after:
                if unit:
                    unit = await live.unit(unit)
            delivered = await self._intercept(unit) if unit and self._interceptors else unit
            if delivered:
                frames.append(frame_unit(self._context.target, delivered))
        return b"".join(frames)

    async def open(self) -> None:
        """The head call, once, before the first frame or at a clean end without any."""
        if self._opened:
            return
        self._opened = True
        for entry in self._interceptors:
            result = await ask(entry, self._call(b"", index=-1), self._context.trace)
            if result is not None:
                self._merge(result)

    async def _intercept(self, unit: bytes) -> bytes:
        """The unit as the interceptors leave it; empty when dropped."""
        await self.open()
        index = self._index
        self._index += 1
        for entry in self._interceptors:
            result: InterceptChunkResult | None = await ask(entry, self._call(unit, index=index), self._context.trace)
            if result is None:
                continue
            self._merge(result)
            if result.drop:
                self._context.trace.changed(entry, unit, b"")
                return b""
            if result.body and result.body != unit:
                self._context.trace.changed(entry, unit, result.body)
                unit = result.body
        self._history.append(unit)
        return unit

    def _merge(self, result: InterceptChunkResult) -> None:
        if result.headers or result.clear_headers:
            self.headers = http.merge(self.headers, clear=result.clear_headers, replace=result.headers)

    def _call(self, body: bytes, *, index: int) -> InterceptChunkCall:
        context = self._context
        return InterceptChunkCall(
            execution=context.execution,
            source_format=context.target,
            model=context.model,
            requested_model=context.requested_model,
            request_headers=context.request_headers,
            response_headers=self.headers,
            original_request=context.original_request,
            request_body=context.request_body,
            body=body,
            history=self._history.snapshot(),
            chunk_index=index,
        )


async def transform_full(context: AnswerContext, body: bytes) -> bytes:
    """A complete body through its chain; plugins translate only where no native route exists."""
    chain = context.chain
    if context.untouched and not chain.custom:
        return body
    for live in context.live(chain.before, here=context.source, stream=False):
        body = await live.whole(body)
    started, before = perf_counter(), body
    translators: tuple[Registration, ...] = ()
    if not context.native_route:
        translators = translators_of(chain.translate, context.plan, StageKind.RESPONSE_TRANSLATE)
    if context.translation:
        body = translate_body(body, context.translation)
    elif translators:
        body = await first_body(translators, context.transform(body, stream=False), context.trace) or body
    if context.translation or translators:
        context.record().note(before, body, perf_counter() - started)
    for live in context.live(chain.after, here=context.target, stream=False):
        body = await live.whole(body)
    return body
