"""One attempt: interceptors, translation, the call, the answer on its way back (plugin-abi 6.2 to 6.5)."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import attrs
import structlog
import trio

from cpa.errors import (
    RawHeaders,
    UpstreamStatusError,
)
from cpa.formats import headers as http
from cpa.formats.headers import HeaderMap
from cpa.formats.json import splice_model
from cpa.formats.names import Format
from cpa.formats.redaction import hide
from cpa.formats.streams import open_reader
from cpa.formats.thinking import split_suffix
from cpa.pipeline.answer import JSON_HEADERS, Answer, AnswerStream
from cpa.pipeline.applying import RequestSteps
from cpa.pipeline.chains import By, Compiled, standard
from cpa.pipeline.dispatch import ask
from cpa.pipeline.exchange import Event
from cpa.pipeline.payload import Chosen, force_model
from cpa.pipeline.rules import (
    OPERATION_FORMATS,
    check_answer,
    client_headers,
)
from cpa.pipeline.running import Running
from cpa.pipeline.stage import (
    InterceptResponseCall,
    InterceptResponseResult,
    StageKind,
    ThinkingCall,
)
from cpa.pipeline.stream import AnswerContext, ChunkStages, transform_full
from cpa.pipeline.translating import (
    answer_hops,
    estimated_tokens,
    has_envelope,
    loss_header,
    request_hops,
    translate_body,
)
from cpa.pipeline.unfolding import as_stream, with_stream
from cpa.translation.context import Context
from cpa.translation.counting import (
    COUNTED_BY_PROVIDER,
    count_reply,
    count_request,
    find_count,
    read_count,
)
from cpa.translation.fetching import fill, wanted
from cpa.translation.ir import IRRequest
from cpa.translation.registry import Fold
from cpa.types import (
    AttemptAccount,
    Candidate,
    FetchedMedia,
    Operation,
    Selection,
    UpstreamAnswer,
    UpstreamCall,
    Wire,
)

log = structlog.get_logger(__name__)

NOT_COUNTED_STATUSES = frozenset({404, 405, 501})
"""What hosts answer that have no endpoint for token counts."""
FORMATS_WITH_MODEL_IN_BODY = frozenset({Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX, Format.CLAUDE})
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


@attrs.frozen(kw_only=True, slots=False)  # see `ModelRequest`
class Prepared:
    """A request on its way to one candidate, after interception and translation.

    Attributes:
      folded: the provider streams although the client does not.
    """

    candidate: Candidate
    wire: Wire
    headers: RawHeaders
    original: bytes
    body: tuple[bytes, ...]
    chain: Compiled
    hops: tuple[Context, ...]
    answer: tuple[Context, ...]
    folded: bool = False

    @property
    def asked(self) -> Context | None:
        """What has read the client's request, if it was translated."""
        return self.hops[0] if self.hops else None


class Asking:
    """One attempt after the other of one execution: from a candidate to its answer.

    Attributes:
      selection: hears of the error that ends an answer after its first frames; None where nobody chooses.
    """

    def __init__(self, run: Running) -> None:
        self.run = run
        self.selection: Selection | None = None
        self._fetched: dict[str, FetchedMedia] = {}
        self._opened: AbstractAsyncContextManager[UpstreamAnswer] | None = None

    async def ask(self, candidate: Candidate, open_account: Callable[[Prepared], AttemptAccount | None]) -> Answer:
        """The answer of *candidate*. A stream's connection stays open until `leave`.

        *open_account*: begins the account of an attempt that may cost something.
        Raises: UpstreamError, Rejected, StageError; then nothing is open.
        """
        run, request = self.run, self.run.request
        prepared = self._untouched(candidate) or await self._prepare(candidate)
        call = UpstreamCall(
            credential=candidate.credential,
            execution=run.execution,
            wire=prepared.wire,
            operation=request.operation,
            model=candidate.model,
            stream=request.stream,
            body=prepared.body,
            client_headers=prepared.headers,
            original=prepared.original,
            query=request.query,
            alt=request.alt,
            log=run.wire_log,
        )
        if request.operation is Operation.COUNT_TOKENS and prepared.wire.native:
            return await self._counted(prepared, call)
        account = open_account(prepared)
        if request.stream:
            return await self._open_stream(prepared, call, account)
        return await self._whole(prepared, call, account)

    async def leave(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close what the answer left open; *exc* is why, as a context manager gets it. Raises: what closing raises."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.__aexit__(kind, exc, traceback)

    async def _open_stream(self, prepared: Prepared, call: UpstreamCall, account: AttemptAccount | None) -> Answer:
        opened = prepared.candidate.executor.open(call)
        upstream = await opened.__aenter__()
        try:
            if account is not None:
                account.response_headers = upstream.headers
            streamed: UpstreamAnswer = upstream
            if prepared.wire.native:
                streamed = await as_stream(upstream, prepared.wire.output, prepared.body)
            answer = await self._streamed(prepared, streamed, account)
        except BaseException as exc:
            await opened.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        self._opened = opened
        return answer

    async def _whole(self, prepared: Prepared, call: UpstreamCall, account: AttemptAccount | None) -> Answer:
        """An answer in one piece. The provider's connection is in its pool again before the client gets a byte."""
        candidate, request = prepared.candidate, self.run.request
        if prepared.folded:
            async with candidate.executor.open(attrs.evolve(call, stream=True)) as upstream:
                body = await self._fold(prepared, upstream, account)
            wire = attrs.evolve(prepared.wire, output=request.answer_format)
            prepared = attrs.evolve(prepared, answer=(), wire=wire, chain=prepared.chain.after_only)
        else:
            async with candidate.executor.open(call) as upstream:
                body = await upstream.read()
            if account is not None:
                account.body(body)
        if account is not None:
            account.response_headers = upstream.headers
        if prepared.wire.native:
            check_answer(Format(prepared.wire.output), body, candidate.credential)
        if request.operation is Operation.COUNT_TOKENS and prepared.answer:
            # Of a plugin's executor in another format: a number is no answer that could be translated.
            tokens = find_count(body)
            if tokens is not None:
                body = count_reply(request.answer_format, tokens)
                prepared = attrs.evolve(prepared, answer=(), chain=standard(request.format, prepared.wire.input))
        return await self._full(prepared, upstream.headers, body)

    async def _fold(self, prepared: Prepared, upstream: UpstreamAnswer, account: AttemptAccount | None) -> bytes:
        """The whole answer out of a stream, of providers that do nothing but stream. Raises: UpstreamError."""
        upstream = await as_stream(upstream, prepared.wire.output, ())
        # No context for the answer: it leaves in the provider's own protocol, whatever that of the request was.
        own = (attrs.evolve(hop, client=self.run.request.answer_format) for hop in prepared.hops[-1:])
        first, *rest = prepared.answer or own
        source = prepared.wire.output
        reader, fold = open_reader(source, max_event_bytes=self.run.services.max_event_bytes), Fold(first)
        seen = prepared.chain.custom or self.run.has(StageKind.RESPONSE_NORMALIZE_BEFORE)
        stages = ChunkStages(self._context(prepared), headers={}) if seen else None
        blocks = upstream.chunks()
        while not (reader.done or reader.fault):
            try:
                block = reader.feed(await anext(blocks))
            except StopAsyncIteration:
                block = reader.finish()
                reader.done = True
            if block and account is not None:
                account.feed(block)
            fold.feed(await stages.before(block) if stages is not None and block else block)
        fault = reader.fault
        if fault is not None:
            body = hide(fault.body, prepared.candidate.credential.secrets())
            raise UpstreamStatusError(status=fault.status, headers=JSON_HEADERS, body=body, provider_format=source)
        await upstream.drain()
        return translate_body(fold.result(), rest)

    async def _counted(self, prepared: Prepared, call: UpstreamCall) -> Answer:
        """A token count: the provider's where it counts, else an estimate; never an error (translation Part 6)."""
        asked, provider = prepared.asked, Format(prepared.wire.output)
        # What chains do to answers is not meant for numbers.
        plain = attrs.evolve(prepared, answer=(), chain=standard(self.run.request.format, prepared.wire.input))
        if asked is None or provider in COUNTED_BY_PROVIDER:
            if asked is not None:
                body = count_request(provider, b"".join(prepared.body), call.model)
                call = attrs.evolve(call, body=(body,))
            try:
                async with prepared.candidate.executor.open(call) as upstream:
                    reply = await upstream.read()
                if asked is not None:
                    reply = count_reply(self.run.request.answer_format, read_count(provider, reply))
                return await self._full(plain, upstream.headers, reply)
            except UpstreamStatusError as exc:
                if exc.status not in NOT_COUNTED_STATUSES:
                    raise
        tokens = estimated_tokens(
            self.run.request, prepared.candidate, self.run.services.translation, asked=asked, body=prepared.original
        )
        answer = await self._full(plain, JSON_HEADERS, count_reply(self.run.request.answer_format, tokens))
        answer.headers = (*answer.headers, (b"x-token-count", b"estimate"))
        return answer

    def _untouched(self, candidate: Candidate) -> Prepared | None:
        """The request as it came but for the model's name, where nothing is to see or change it; None = there may be
        somebody. What this says must be what `_prepare` would say."""
        run, request, model = self.run, self.run.request, candidate.model
        if not run.services.untouched or request.operation is not Operation.GENERATE:
            return None
        wire, body = candidate.executor.wire(request.format), run.body
        own = wire.native and wire.input == request.format and wire.output == request.answer_format
        if not own or run.services.thinking_of(candidate, run.model) is not None or has_envelope(body):
            return None
        if run.trace.attempts:
            run.trace.attempts[-1].provider_format = wire.input
        renamed = model != request.model and request.format in FORMATS_WITH_MODEL_IN_BODY
        return Prepared(
            candidate=candidate,
            wire=wire,
            headers=run.headers,
            original=body,
            body=splice_model(body, model) if renamed else (body,),
            chain=standard(request.format, wire.input),
            hops=(),
            answer=(),
        )

    async def _prepare(self, candidate: Candidate) -> Prepared:
        """Interceptors of this attempt, then translation. Results are not carried over to the next attempt."""
        wire = candidate.executor.wire(self.run.request.format)
        headers, body = self.run.headers, self.run.body
        entries = self.run.plan.of(StageKind.INTERCEPT_AFTER, self.run.request.callers)
        if entries:
            headers, body = await self.run.intercept(
                entries, model=candidate.model, to_format=wire.input, headers=headers, body=body
            )
        services = self.run.services.translation
        # What names say of reasoning is written into bodies anew; these pass as they are.
        verbatim = self.run.request.operation in OPERATION_FORMATS
        named = None if verbatim else self.run.services.thinking_of(candidate, self.run.model)
        chain = self.run.chain(wire)
        sealed = not verbatim and has_envelope(body)
        hops = request_hops(
            self.run.request, candidate, wire, services, step=chain.carrier, thinking=named, sealed=sealed
        )
        for hop in hops:
            hop.whole = chain.translate.by is By.PLUGIN
        self.run.trace.translated_by(hops)
        if self.run.trace.attempts:
            self.run.trace.attempts[-1].provider_format = wire.input
        pieces = await self._translate(wire, candidate, body, chain, hops)
        answer = answer_hops(self.run.request, candidate, wire, services, step=chain.translate, asked=hops, body=body)
        self.run.trace.translated_by(answer)
        pieces = await self._think(wire, candidate, pieces)
        folded = self._folds(wire, chain, hops, answer)
        losses = [str(loss) for hop in hops for loss in hop.losses]
        if losses:
            log.debug("translation.loss", request_id=self.run.execution.request_id, losses=losses)
        return Prepared(
            candidate=candidate,
            wire=wire,
            headers=headers,
            original=body,
            body=with_stream(pieces) if folded and hops[-1].folds else pieces,
            chain=chain,
            hops=hops,
            answer=answer,
            folded=folded,
        )

    def _folds(self, wire: Wire, chain: Compiled, hops: tuple[Context, ...], answer: tuple[Context, ...]) -> bool:
        """Whether the whole answer is made of a stream: the dialect knows nothing else (translation 2.19), or it may
        take long, is translated anyway, and no plugin expects to see the provider's whole body."""
        # Where nothing was translated, the client's own bytes go out, which ask for a whole answer.
        last = hops[-1] if hops else None
        if last is None or last.stream or not wire.native or self.run.request.operation is not Operation.GENERATE:
            return False
        watched = chain.custom or self.run.has(StageKind.RESPONSE_NORMALIZE_BEFORE)
        return last.provider is Format.CODEX or (last.folds and bool(answer) and not watched)

    async def _think(self, wire: Wire, candidate: Candidate, pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The body with the client's thinking setting, for providers that plugins play."""
        wish = self.run.wish(candidate)
        entry = None if wire.native or wish is None else self.run.plan.thinking(candidate.provider)
        if entry is None or wish is None:
            return pieces
        call = ThinkingCall(
            execution=self.run.execution,
            provider=candidate.provider,
            model=candidate.model,
            thinking=wish,
            body=b"".join(pieces),
        )
        body: bytes | None = await ask(entry, call, self.run.trace)
        if body and body != call.body:
            self.run.trace.changed(entry, call.body, body)
        return (body,) if body else pieces

    def _rules(self, wire: Wire, candidate: Candidate) -> Chosen | None:
        """The operator's payload rules that may concern an attempt (proxy 2.8)."""
        if not self.run.services.payload:
            return None
        split = split_suffix(self.run.request.model)
        return self.run.services.payload.select(
            upstream_model=candidate.model,
            requested_model=self.run.request.model if split is None else split[0],
            requested_full=self.run.request.model,
            protocol=wire.input,
            client_protocol=self.run.request.format,
            headers=self.run.request.headers,
        )

    async def _translate(
        self, wire: Wire, candidate: Candidate, body: bytes, chain: Compiled, hops: tuple[Context, ...]
    ) -> tuple[bytes, ...]:
        """The body after the steps of *chain* (plugin-abi 6.3 for the standard ones).

        Bytes stay bytes: if nothing else is to be done, only the model's name is spliced, and only if it differs.
        """
        source, model, requested = self.run.request.format, candidate.model, self.run.request.model
        own = not wire.native and source == wire.input
        if own and not chain.custom:
            return (body,)  # a plugin's executor is told the model beside the body (plugin-abi 4.7.2)
        pieces: tuple[bytes, ...] = (body,)
        if hops:
            await trio.lowlevel.checkpoint()
        elif not own and source in FORMATS_WITH_MODEL_IN_BODY and model != requested:
            pieces = splice_model(body, model)
        # Payload rules are for native providers, unless a chain has them.
        ruled = wire.native or chain.custom
        steps = RequestSteps(
            chain=chain,
            plan=self.run.plan,
            trace=self.run.trace,
            execution=self.run.execution,
            source=source,
            target=wire.input,
            model=model,
            requested_model=requested,
            stream=self.run.request.stream,
            operation=self.run.request.operation,
            hops=hops,
            rules=lambda: self._rules(wire, candidate) if ruled else None,
            fetch=None if self.run.services.translation.fetcher is None else self._fetch,
        )
        return await steps.run(pieces)

    async def _fetch(self, request: IRRequest, ctx: Context) -> None:
        """Media in the place of their addresses, once for all attempts. Raises: MalformedRequest."""
        places, fetcher = wanted(request), self.run.services.translation.fetcher
        missing = list(dict.fromkeys(place.media.url for place in places if place.media.url not in self._fetched))
        if missing and fetcher is not None:
            found = await fetcher.fetch(missing, allowed=ctx.settings.gemini_url_media_allow)
            self._fetched.update(zip(missing, found, strict=True))
        fill(places, self._fetched)

    def _context(self, prepared: Prepared) -> AnswerContext:
        return AnswerContext(
            execution=self.run.execution,
            plan=self.run.plan,
            trace=self.run.trace,
            source=prepared.wire.output,
            target=self.run.request.answer_format,
            native=prepared.wire.native,
            translation=prepared.answer,
            model=prepared.candidate.model,
            requested_model=self.run.request.model,
            request_headers=http.to_map(prepared.headers),
            original_request=prepared.original,
            request_body=b"".join(prepared.body),
            chain=prepared.chain,
        )

    async def _full(self, prepared: Prepared, upstream_headers: RawHeaders, body: bytes) -> Answer:
        current: HeaderMap | None = None
        if prepared.answer or prepared.chain.custom or self.run.has(*FULL_RESPONSE_STAGES):
            context = self._context(prepared)
            body = await transform_full(context, body)
            current = http.to_map(upstream_headers)
            for entry in self.run.plan.of(StageKind.INTERCEPT_RESPONSE, self.run.request.callers):
                call = InterceptResponseCall(
                    execution=self.run.execution,
                    source_format=context.target,
                    model=context.model,
                    requested_model=context.requested_model,
                    request_headers=context.request_headers,
                    response_headers=current,
                    original_request=context.original_request,
                    request_body=context.request_body,
                    body=body,
                )
                result: InterceptResponseResult | None = await ask(entry, call, self.run.trace)
                if result is not None:
                    before, current = current, http.merge(current, clear=result.clear_headers, replace=result.headers)
                    if before != current:
                        self.run.trace.headers_changed(entry, before, current)
                    if result.body and result.body != body:
                        self.run.trace.changed(entry, body, result.body)
                        body = result.body
        forced = self.run.services.answer_name(prepared.candidate, self.run.model)
        if forced:
            body = force_model(body, forced)
        self.run.exchange.advance(Event.COMMIT)
        self.run.exchange.advance(Event.SUCCEED)
        return self._answer(prepared, upstream_headers, current, body=body)

    async def _streamed(self, prepared: Prepared, upstream: UpstreamAnswer, account: AttemptAccount | None) -> Answer:
        stages: ChunkStages | None = None
        wire, units = prepared.wire, False
        if not wire.native or prepared.answer or prepared.chain.custom or self.run.has(*CHUNK_STAGES):
            context = self._context(prepared)
            units = context.units
            stages = ChunkStages(context, headers=http.to_map(upstream.headers))
            if stages.idle:
                stages = None
        stream = AnswerStream(
            answer=upstream,
            reader=open_reader(
                wire.output, max_event_bytes=self.run.services.max_event_bytes, units=units, open_end=not wire.native
            ),
            exchange=self.run.exchange,
            stages=stages,
            source=wire.output,
            translated=bool(prepared.answer),
            account=account,
            credential=prepared.candidate.credential,
            forced_model=self.run.services.answer_name(prepared.candidate, self.run.model),
            selection=self.selection,
        )
        await stream.prefetch()
        self.run.exchange.advance(Event.COMMIT)
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
        headers = client_headers(upstream_headers, current, passthrough=self.run.services.passthrough_headers)
        asked = prepared.asked
        if asked is not None and asked.settings.report_losses:
            told = loss_header(prepared.hops)
            headers = (*headers, (b"x-cpa-loss", told)) if told else headers
        return Answer(
            format=self.run.request.answer_format,
            headers=headers,
            credential=prepared.candidate.credential,
            body=body,
            stream=stream,
        )
