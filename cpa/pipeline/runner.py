"""Drives an execution through a plan: the whole request path of plugin-abi 6.2 in order.

`open_answer` is the one entry, for clients and for nested executions alike. It is a context: inside it the provider's
connection is open, and leaving it, however, closes that connection, settles the outcome and announces it. There is no
task in here; a cancelled caller cancels whatever is being awaited.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
    UnsupportedFormat,
    UpstreamError,
    UpstreamStatusError,
)
from cpa.formats import headers as http
from cpa.formats.facts import request_facts
from cpa.formats.headers import HeaderMap
from cpa.formats.json import splice_model
from cpa.formats.names import SAME_WIRE, Format, carries
from cpa.formats.redaction import hide
from cpa.formats.streams import open_reader
from cpa.formats.thinking import Thinking, split_suffix
from cpa.pipeline.answer import JSON_HEADERS, Answer, AnswerStream
from cpa.pipeline.applying import RequestSteps
from cpa.pipeline.chains import By, Compiled, choose, standard
from cpa.pipeline.dispatch import ask
from cpa.pipeline.exchange import OUTCOMES, Event, Exchange, ModelRequest, State
from cpa.pipeline.payload import Chosen, Payload, force_model
from cpa.pipeline.plan import Plan
from cpa.pipeline.rules import (
    COMPLETION_STATUS,
    OPERATION_FORMATS,
    TRANSFORMS,
    base_metadata,
    can,
    cannot,
    check_answer,
    client_headers,
    harmless,
    may_rotate,
    query_map,
    rejection,
)
from cpa.pipeline.stage import (
    CompletionCall,
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
    ThinkingCall,
)
from cpa.pipeline.stream import AnswerContext, ChunkStages, transform_full
from cpa.pipeline.trace import Trace
from cpa.pipeline.translating import (
    TranslationServices,
    answer_hops,
    estimated_tokens,
    loss_header,
    request_hops,
    translate_body,
)
from cpa.translation.context import Context
from cpa.translation.counting import (
    COUNTED_BY_PROVIDER,
    count_reply,
    count_request,
    read_count,
)
from cpa.translation.registry import Fold
from cpa.types import (
    NESTED_CALLS,
    Accounts,
    AttemptAccount,
    AttemptObserver,
    Candidate,
    Execution,
    JsonObject,
    ModelResolver,
    Operation,
    PluginId,
    RequestId,
    Scheduler,
    UpstreamAnswer,
    UpstreamCall,
    Wire,
    WireLog,
)

log = structlog.get_logger(__name__)

STRATEGIES = frozenset({"round-robin", "fill-first"})
"""Built-in ones that a plugin may name (plugin-abi 4.5)."""
NOT_COUNTED_STATUSES = frozenset({404, 405, 501})
"""What hosts answer that have no endpoint for token counts."""
COMPLETION_WAIT_S = 5.0
"""How long an ended exchange waits for a place among the running completion events before it gives up, loudly."""
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


class CompletionSink(Protocol):
    """Runs completion events outside the exchange that caused them, so that its client does not wait."""

    async def submit(self, call: CompletionCall, entries: Sequence[Registration]) -> None:
        """Take *call* over; waits only while too many are running."""
        ...


def suffix_wish(candidate: Candidate, model: str) -> Thinking | None:
    """A `Services.thinking_of` that knows no configured names."""
    split = split_suffix(model)
    return None if split is None else split[1]


def no_forced_name(candidate: Candidate, model: str) -> str:
    """A `Services.answer_name` that knows no configured names."""
    return ""


@attrs.frozen(kw_only=True)
class Services:
    """All that an execution needs; one immutable snapshot per configuration, kept by the executions it started.

    Attributes:
      passthrough_headers: a provider's response headers reach the client.
      max_event_bytes: largest event of a provider's stream.
      nested_depth: executions inside one another; deeper ones are a loop.
      translation: what translating needs.
      accounts: told of every attempt that generates something.
      payload: the operator's rules for bodies that go to native providers.
      thinking_of: what names say of reasoning when a candidate serves the model of that name.
      answer_name: how answers of a candidate call the model of that name; empty = as the provider does.
      direct: plugins whose executor a router may choose, each with what it runs on: no credential.
    """

    plan: Plan
    models: ModelResolver
    scheduler: Scheduler
    completions: CompletionSink
    passthrough_headers: bool = False
    max_event_bytes: int = 50 << 20
    nested_depth: int = 8
    translation: TranslationServices = attrs.field(factory=TranslationServices)
    accounts: Accounts | None = None
    direct: Mapping[PluginId, Candidate] = attrs.field(factory=dict)
    payload: Payload = attrs.field(factory=Payload)
    thinking_of: Callable[[Candidate, str], Thinking | None] = suffix_wish
    answer_name: Callable[[Candidate, str], str] = no_forced_name


@attrs.frozen(kw_only=True)
class Prepared:
    """A request on its way to one candidate, after interception and translation."""

    candidate: Candidate
    wire: Wire
    headers: RawHeaders
    original: bytes
    body: tuple[bytes, ...]
    chain: Compiled
    hops: tuple[Context, ...]
    answer: tuple[Context, ...]

    @property
    def asked(self) -> Context | None:
        """What has read the client's request, if it was translated."""
        return self.hops[0] if self.hops else None

    @property
    def folded(self) -> bool:
        """The provider streams although the client does not: the dialect knows nothing else (translation 2.19)."""
        # Where nothing was translated, the client's own bytes go out, which ask for a whole answer.
        last = self.hops[-1] if self.hops else None
        return last is not None and last.provider is Format.CODEX and not last.stream and self.wire.native


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
    run.describe(candidates[0])
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
        run.close_account(None)
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
        self.plan = services.plan.without(TRANSFORMS) if request.operation is Operation.EMBED else services.plan
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
        self.thinking: Thinking | None = None
        self._plays_provider = False
        self._attempt: Credential | None = None
        self._account: AttemptAccount | None = None
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
            candidates = self._routed(result, entry.plugin_id)
            if candidates:
                return candidates
            log.warning(
                "route.invalid", plugin_id=entry.plugin_id, target_kind=result.target_kind, target=result.target
            )
        return models.resolve(request.model)

    def _wish(self, candidate: Candidate) -> Thinking | None:
        """What the client, or the operator on its behalf, wants of reasoning: names count more than bodies (2.5)."""
        return self.services.thinking_of(candidate, self.model) or self.thinking

    def describe(self, first: Candidate) -> None:
        """Tell the metadata what plugins may know of a routed request (plugin-abi 6.11). *first*: of its candidates."""
        if self.plan.empty:
            return
        facts = request_facts(self.request.format, self.request.body)
        self.thinking = facts.thinking
        known: JsonObject = {"service_tier": facts.service_tier, "generate": facts.generate}
        wish = self._wish(first)
        if wish is not None:
            known["reasoning_effort"] = wish.effort
        self.execution = attrs.evolve(self.execution, metadata=self.execution.metadata | known)

    def _routed(self, result: RouteResult, router: PluginId) -> tuple[Candidate, ...]:
        """Candidates of a router's choice; none when the choice cannot be followed and the next router is asked."""
        if result.target_kind is not TargetKind.PROVIDER:
            chosen = router if result.target_kind is TargetKind.SELF else PluginId(result.target)
            direct = self.services.direct.get(chosen)
            if direct is None or self._wire(direct) is None:
                return ()
            return (attrs.evolve(direct, model=self.request.model),)
        if result.target not in self.services.models.providers():
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
        pool: list[Candidate] = []
        while True:
            # The next model of a pool is tried before its credential is given up (proxy 2.4).
            chosen = pool or left
            candidate = chosen[0] if pool or left[0].credential.anonymous else await self._pick(left)
            left.remove(candidate)
            pool = [other for other in left if other.credential is candidate.credential]
            self.exchange.advance(Event.ATTEMPT)
            self._select(candidate.credential)
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

    def _select(self, credential: Credential) -> None:
        """Note whose attempt this is, also for the plugins."""
        self._attempt = credential
        if not credential.anonymous:
            selected: JsonObject = {"selected_auth_id": credential.id, "selected_auth_index": credential.index}
            self.execution = attrs.evolve(self.execution, metadata=self.execution.metadata | selected)

    def _routable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those of *candidates* whose protocol the client's can be carried to. Raises: NoTranslator when none is."""
        source = self.request.format
        found, target, refusal, unable = [], "", None, False
        for candidate in candidates:
            try:
                wire = candidate.executor.wire(source)
            except UnsupportedFormat as exc:
                refusal = exc
                continue
            target = target or wire.input
            if not can(self.request.operation, wire):
                unable = True
            elif self._carries(wire):
                found.append(candidate)
        if not found and refusal is not None and not target:
            raise refusal
        if not found and unable:
            raise cannot(self.request.operation, self.request.model)
        if not found:
            raise NoTranslator(source=source, target=target, model=self.request.model)
        return found

    def _wire(self, candidate: Candidate) -> Wire | None:
        """What *candidate* speaks for this client; None when it cannot serve it."""
        try:
            return candidate.executor.wire(self.request.format)
        except UnsupportedFormat:
            return None

    def attempt_ended(self, error: CpaError | None) -> None:
        """Tell observer and log how the running attempt ended, once; a stream's ends with the stream."""
        self.close_account(error)
        credential, self._attempt = self._attempt, None
        if credential is None:
            return
        if self.wire_log is not None and error is not None:
            self.wire_log.attempt_error(str(error))
        if self.observer is not None:
            self.observer.attempt_ended(credential, error)

    def _open_account(self, prepared: Prepared) -> AttemptAccount | None:
        """Note what this attempt costs, if anybody wants to know; counting tokens costs nothing."""
        accounts = self.services.accounts
        if accounts is None or not accounts.wanted or self.request.operation is Operation.COUNT_TOKENS:
            return None
        self._account = accounts.attempt(
            credential=prepared.candidate.credential,
            model=prepared.candidate.model,
            alias=self.request.model,
            principal=self.request.principal,
            request_format=self.request.format,
            provider_format=prepared.wire.output,
            request_body=prepared.original,
            request_id=self.execution.request_id,
            trace_id=self.execution.trace_id,
        )
        self._plays_provider = not prepared.wire.native
        return self._account

    def close_account(self, error: CpaError | None) -> None:
        """End the account of the present attempt, if there is one."""
        account, self._account = self._account, None
        if account is None:
            return
        if self._plays_provider and NESTED_CALLS in self.execution.memory:
            return  # the plugin let others do the work, which was accounted for there (plugin-abi 4.12)
        account.finish(error, complete=error is None and self.exchange.state is State.SUCCEEDED)

    async def _pick(self, left: Sequence[Candidate]) -> Candidate:
        """Plugin schedulers in order until one decides, then the built-in one.

        Upstream asks the first one only; its documentation says otherwise (plugin-abi chapter 10, no. 15).
        """
        best = max(candidate.credential.priority for candidate in left)
        tier: dict[str, Candidate] = {}
        for candidate in left:
            if candidate.credential.priority == best:
                tier.setdefault(candidate.credential.id, candidate)  # of a pool, one model after the other
        strategy = ""
        for entry in self.plan.of(StageKind.SCHEDULER_PICK):
            call = PickCall(
                execution=self.execution,
                providers=tuple(dict.fromkeys(c.credential.provider for c in tier.values())),
                model=self.model,
                stream=self.request.stream,
                headers=http.to_map(self.headers),
                candidates=tuple(
                    PickCandidate(
                        id=key, provider=c.credential.provider, priority=best, attributes=harmless(c.credential)
                    )
                    for key, c in tier.items()
                ),
            )
            result: PickResult | None = await ask(entry, call, self.trace)
            if result is None:
                continue
            if result.credential_id in tier:
                return tier[result.credential_id]
            strategy = result.delegate
            if strategy not in STRATEGIES:
                log.warning("scheduler.invalid", plugin_id=entry.plugin_id, delegate=strategy)
                strategy = ""
            break
        picked = self.services.scheduler.pick(
            [c.credential for c in tier.values()], model=self.model, strategy=strategy
        )
        return tier[picked.id]

    @asynccontextmanager
    async def _open_attempt(self, candidate: Candidate) -> AsyncIterator[Answer]:
        prepared = await self._prepare(candidate)
        call = UpstreamCall(
            credential=candidate.credential,
            execution=self.execution,
            wire=prepared.wire,
            operation=self.request.operation,
            model=candidate.model,
            stream=self.request.stream,
            body=prepared.body,
            client_headers=prepared.headers,
            original=prepared.original,
            query=self.request.query,
            alt=self.request.alt,
            log=self.wire_log,
        )
        if self.request.operation is Operation.COUNT_TOKENS and prepared.wire.native:
            yield await self._counted(prepared, call)
            return
        account = self._open_account(prepared)
        if not self.request.stream:
            if prepared.folded:
                async with candidate.executor.open(attrs.evolve(call, stream=True)) as upstream:
                    body = await self._fold(prepared, upstream, account)
                wire = attrs.evolve(prepared.wire, output=self.request.answer_format)
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
            # The provider's connection is back in its pool before the client gets its first byte.
            yield await self._full(prepared, upstream.headers, body)
            return
        async with candidate.executor.open(call) as upstream:
            if account is not None:
                account.response_headers = upstream.headers
            yield await self._streamed(prepared, upstream, account)

    async def _fold(self, prepared: Prepared, upstream: UpstreamAnswer, account: AttemptAccount | None) -> bytes:
        """The whole answer out of a stream, of providers that do nothing but stream. Raises: UpstreamError."""
        # No context for the answer: a Responses client, whose request was written anew because of its model's suffix.
        first, *rest = prepared.answer or prepared.hops[-1:]
        source = prepared.wire.output
        reader, fold = open_reader(source, max_event_bytes=self.services.max_event_bytes), Fold(first)
        seen = prepared.chain.custom or self._has(StageKind.RESPONSE_NORMALIZE_BEFORE)
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
        plain = attrs.evolve(prepared, answer=(), chain=standard(self.request.format, prepared.wire.input))
        if asked is None or provider in COUNTED_BY_PROVIDER:
            if asked is not None:
                body = count_request(provider, b"".join(prepared.body), call.model)
                call = attrs.evolve(call, body=(body,))
            try:
                async with prepared.candidate.executor.open(call) as upstream:
                    reply = await upstream.read()
                if asked is not None:
                    reply = count_reply(self.request.answer_format, read_count(provider, reply))
                return await self._full(plain, upstream.headers, reply)
            except UpstreamStatusError as exc:
                if exc.status not in NOT_COUNTED_STATUSES:
                    raise
        tokens = estimated_tokens(
            self.request, prepared.candidate, self.services.translation, asked=asked, body=prepared.original
        )
        answer = await self._full(plain, JSON_HEADERS, count_reply(self.request.answer_format, tokens))
        answer.headers = (*answer.headers, (b"x-token-count", b"estimate"))
        return answer

    async def _prepare(self, candidate: Candidate) -> Prepared:
        """Interceptors of this attempt, then translation. Results are not carried over to the next attempt."""
        wire = candidate.executor.wire(self.request.format)
        headers, body = self.headers, self.body
        entries = self.plan.of(StageKind.INTERCEPT_AFTER, self.request.callers)
        if entries:
            headers, body = await self._intercept(
                entries, model=candidate.model, to_format=wire.input, headers=headers, body=body
            )
        services = self.services.translation
        # What names say of reasoning is written into bodies anew; these pass as they are.
        verbatim = self.request.operation in OPERATION_FORMATS
        named = None if verbatim else self.services.thinking_of(candidate, self.model)
        chain = self._chain(wire)
        hops = request_hops(self.request, candidate, wire, services, step=chain.carrier, thinking=named)
        pieces = await self._translate(wire, candidate, body, chain, hops)
        answer = answer_hops(self.request, candidate, wire, services, step=chain.translate, asked=hops, body=body)
        losses = [str(loss) for hop in hops for loss in hop.losses]
        if losses:
            log.debug("translation.loss", request_id=self.execution.request_id, losses=losses)
        return Prepared(
            candidate=candidate,
            wire=wire,
            headers=headers,
            original=body,
            body=await self._think(wire, candidate, pieces),
            chain=chain,
            hops=hops,
            answer=answer,
        )

    def _chain(self, wire: Wire) -> Compiled:
        """The steps for a provider that speaks *wire*. Chains are for conversations that everybody can read."""
        source, model = self.request.format, self.request.model
        if not self.plan.chains or self.request.operation in OPERATION_FORMATS:
            return standard(source, wire.input)
        split = split_suffix(model)
        return choose(
            self.plan.chains,
            source=source,
            target=wire.input,
            models=(model,) if split is None else (model, split[0]),
            principal=self.request.principal,
        )

    def _carries(self, wire: Wire) -> bool:
        """Bodies of the client get to a provider that speaks *wire*."""
        carrier, source = self._chain(wire).carrier, self.request.format
        translators = self.plan.of(StageKind.REQUEST_TRANSLATE)
        if carrier.by is By.STANDARD:
            return bool(translators) or carries(source, wire.input)
        if carrier.by is By.PLUGIN:
            named = any(entry.plugin_id == carrier.plugin_id for entry in translators)
            return named or source == wire.input or (source, wire.input) in SAME_WIRE
        return carries(source, wire.input)

    async def _think(self, wire: Wire, candidate: Candidate, pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The body with the client's thinking setting, for providers that plugins play."""
        wish = self._wish(candidate)
        entry = None if wire.native or wish is None else self.plan.thinking(candidate.provider)
        if entry is None or wish is None:
            return pieces
        call = ThinkingCall(
            execution=self.execution,
            provider=candidate.provider,
            model=candidate.model,
            thinking=wish,
            body=b"".join(pieces),
        )
        body: bytes | None = await ask(entry, call, self.trace)
        return (body,) if body else pieces

    def _rules(self, wire: Wire, candidate: Candidate) -> Chosen | None:
        """The operator's payload rules that may concern an attempt (proxy 2.8)."""
        if not self.services.payload:
            return None
        split = split_suffix(self.request.model)
        return self.services.payload.select(
            upstream_model=candidate.model,
            requested_model=self.request.model if split is None else split[0],
            requested_full=self.request.model,
            protocol=wire.input,
            client_protocol=self.request.format,
            headers=self.request.headers,
        )

    async def _translate(
        self, wire: Wire, candidate: Candidate, body: bytes, chain: Compiled, hops: tuple[Context, ...]
    ) -> tuple[bytes, ...]:
        """The body after the steps of *chain* (plugin-abi 6.3 for the standard ones).

        Bytes stay bytes: if nothing else is to be done, only the model's name is spliced, and only if it differs.
        """
        source, model, requested = self.request.format, candidate.model, self.request.model
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
            plan=self.plan,
            trace=self.trace,
            execution=self.execution,
            source=source,
            target=wire.input,
            model=model,
            requested_model=requested,
            stream=self.request.stream,
            operation=self.request.operation,
            hops=hops,
            rules=lambda: self._rules(wire, candidate) if ruled else None,
        )
        return await steps.run(pieces)

    def _context(self, prepared: Prepared) -> AnswerContext:
        return AnswerContext(
            execution=self.execution,
            plan=self.plan,
            trace=self.trace,
            source=prepared.wire.output,
            target=self.request.answer_format,
            native=prepared.wire.native,
            translation=prepared.answer,
            model=prepared.candidate.model,
            requested_model=self.request.model,
            request_headers=http.to_map(prepared.headers),
            original_request=prepared.original,
            request_body=b"".join(prepared.body),
            chain=prepared.chain,
        )

    def _has(self, *kinds: StageKind) -> bool:
        return any(self.plan.of(kind, self.request.callers) for kind in kinds)

    async def _full(self, prepared: Prepared, upstream_headers: RawHeaders, body: bytes) -> Answer:
        current: HeaderMap | None = None
        if prepared.answer or prepared.chain.custom or self._has(*FULL_RESPONSE_STAGES):
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
        forced = self.services.answer_name(prepared.candidate, self.model)
        if forced:
            body = force_model(body, forced)
        self.exchange.advance(Event.COMMIT)
        self.exchange.advance(Event.SUCCEED)
        return self._answer(prepared, upstream_headers, current, body=body)

    async def _streamed(self, prepared: Prepared, upstream: UpstreamAnswer, account: AttemptAccount | None) -> Answer:
        stages: ChunkStages | None = None
        wire, units = prepared.wire, False
        if not wire.native or prepared.answer or prepared.chain.custom or self._has(*CHUNK_STAGES):
            context = self._context(prepared)
            units = context.units
            stages = ChunkStages(context, headers=http.to_map(upstream.headers))
            if stages.idle:
                stages = None
        stream = AnswerStream(
            answer=upstream,
            reader=open_reader(
                wire.output, max_event_bytes=self.services.max_event_bytes, units=units, open_end=not wire.native
            ),
            exchange=self.exchange,
            stages=stages,
            source=wire.output,
            translated=bool(prepared.answer),
            account=account,
            credential=prepared.candidate.credential,
            forced_model=self.services.answer_name(prepared.candidate, self.model),
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
        headers = client_headers(upstream_headers, current, passthrough=self.services.passthrough_headers)
        asked = prepared.asked
        if asked is not None and asked.settings.report_losses:
            told = loss_header(prepared.hops)
            headers = (*headers, (b"x-cpa-loss", told)) if told else headers
        return Answer(
            format=self.request.answer_format,
            headers=headers,
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
