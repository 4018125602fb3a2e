"""Drives an execution through a plan: the whole request path of plugin-abi 6.2 in order.

`open_answer` is the one entry, for clients and for nested executions alike. It is a context: inside it the provider's
connection is open, and leaving it, however, closes that connection, settles the outcome and announces it. There is no
task in here; a cancelled caller cancels whatever is being awaited.

::

    runner.py     routing, interceptors before, the outcome; running.py is what the parts share
    attempts.py   one attempt after the other, until there is an answer
    asking.py     one attempt
"""

from datetime import UTC, datetime
from random import getrandbits
from types import TracebackType

import attrs
import structlog
import trio

from cpa.errors import CpaError, NoCredential, Rejected, RequestError, UnknownModel, UnsupportedFormat
from cpa.formats import headers as http
from cpa.formats.facts import request_facts
from cpa.pipeline.answer import Answer
from cpa.pipeline.attempts import Attempts
from cpa.pipeline.dispatch import ask
from cpa.pipeline.exchange import OUTCOMES, Event, Exchange, ModelRequest
from cpa.pipeline.rules import COMPLETION_STATUS, TRANSFORMS, base_metadata, query_map
from cpa.pipeline.running import Running
from cpa.pipeline.services import CompletionSink as CompletionSink
from cpa.pipeline.services import Services as Services
from cpa.pipeline.services import Watched
from cpa.pipeline.stage import CompletionCall, Outcome, RouteCall, RouteResult, StageKind, TargetKind
from cpa.pipeline.trace import Trace
from cpa.types import (
    AttemptObserver,
    Candidate,
    Execution,
    JsonObject,
    Operation,
    PluginId,
    RequestId,
    Wire,
    WireLog,
)

log = structlog.get_logger(__name__)

COMPLETION_WAIT_S = 5.0
"""How long an ended exchange waits for a place among the running completion events before it gives up, loudly."""


def open_answer(
    request: ModelRequest,
    services: Services,
    *,
    observer: AttemptObserver | None = None,
    wire_log: WireLog | None = None,
    trace: Trace | None = None,
) -> "OpenAnswer":
    """Execute *request* and keep its answer open: ``async with open_answer(…) as answer``.

    Args:
      trace: where to note what is done; None = as `Services.watcher` says.

    Raises: CpaError before the first byte of an answer is in hand; later ones come out of `Answer.stream`.
    Cancellation: closes the provider's connection at once and ends the execution as cancelled.
    """
    return OpenAnswer(Run(request=request, services=services, observer=observer, wire_log=wire_log, trace=trace))


def new_request_id() -> RequestId:
    """A random UUID (RFC 9562, version 4). It names a request in logs and to plugins and opens nothing, so that it need
    not be unguessable: a system call less."""
    text = f"{getrandbits(128):032x}"
    return RequestId(f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[getrandbits(2)]}{text[17:20]}-{text[20:]}")


class OpenAnswer:
    """An execution as a context. A class, not a generator: Trio keeps a book of those, and each costs a dozen calls."""

    __slots__ = ("_answer", "_run")

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._answer: Answer | None = None

    async def __aenter__(self) -> Answer:
        run = self._run
        try:
            candidates = await run.route()
        except BaseException as exc:
            run.unwatch(exc)
            raise
        run.exchange.advance(Event.START)
        try:
            if not run.run.services.untouched:
                run.describe(candidates[0])
                await run.intercept_before()
            answer = self._answer = await run.attempts.first_answer(candidates)
            if run.watched is not None:
                run.watched.first_byte()
        except BaseException as exc:
            await self._end(exc)
            raise
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        attempts, answer = self._run.attempts, self._answer
        if exc is None and answer is not None:
            # Whoever reads a stream may keep its failure to itself.
            attempts.ended(None if answer.stream is None else answer.stream.failure)
        if answer is not None and answer.stream is not None:
            try:
                await attempts.leave(kind, exc, traceback)
            except BaseException as error:
                await self._end(error)
                raise
        await self._end(exc)

    async def _end(self, error: BaseException | None) -> None:
        """Settle the outcome and announce it, however the execution ends."""
        run = self._run
        if isinstance(error, Rejected):
            run.settle(Event.REJECT, error)
        elif isinstance(error, Exception):
            run.settle(Event.FAIL, error)
            if isinstance(error, CpaError):
                run.attempts.ended(error)
        run.settle(Event.CANCEL)
        run.attempts.close()
        run.unwatch(run.error)
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
        trace: Trace | None,
    ) -> None:
        request_id = new_request_id()
        watcher = services.watcher if trace is None else None
        self.watched: Watched | None = None if watcher is None else watcher.begun(request, request_id)
        if self.watched is not None:
            trace = self.watched.trace
        self.run = Running(
            request=request,
            services=services,
            plan=services.plan.without(TRANSFORMS) if request.operation is Operation.EMBED else services.plan,
            execution=Execution(
                request_id=request_id,
                trace_id=request.trace_id,
                callers=request.callers,
                metadata=base_metadata(request),
                headers=request.headers,
                query=request.query,
                path=request.path,
                principal=request.principal,
                peer=request.peer,
            ),
            wire_log=wire_log,
            model=request.model,
            headers=request.headers,
            body=request.body,
            trace=trace or Trace(),
        )
        self.attempts = Attempts(self.run, observer)
        self.error: BaseException | None = None
        self.started_at = datetime.now(UTC)

    @property
    def exchange(self) -> Exchange:
        """Where the execution stands."""
        return self.run.exchange

    @property
    def trace(self) -> Trace:
        """What its stages did."""
        return self.run.trace

    async def route(self) -> tuple[Candidate, ...]:
        """Routers first, then the registry. Raises: UnknownModel, NoCredential, RequestError on a loop."""
        request, models = self.run.request, self.run.services.models
        depth, allowed = len(request.callers), self.run.services.nested_depth
        if depth > allowed:
            raise RequestError(f"nested model calls are {depth} deep, at most {allowed} are allowed")
        for entry in self.run.plan.of(StageKind.MODEL_ROUTE, request.callers):
            call = RouteCall(
                execution=self.run.execution,
                source_format=request.format,
                requested_model=request.model,
                stream=request.stream,
                headers=http.to_map(request.headers),
                query=query_map(request.query),
                body=request.body,
                available_providers=models.providers(),
            )
            result: RouteResult | None = await ask(entry, call, self.run.trace)
            if result is None:
                continue
            candidates = self._routed(result, entry.plugin_id)
            if candidates:
                return candidates
            log.warning(
                "route.invalid", plugin_id=entry.plugin_id, target_kind=result.target_kind, target=result.target
            )
        return models.resolve(request.model)

    def describe(self, first: Candidate) -> None:
        """Tell the metadata what plugins may know of a routed request (plugin-abi 6.11). *first*: of its candidates."""
        if self.run.plan.empty:
            return
        facts = request_facts(self.run.request.format, self.run.request.body, self.run.request.members)
        self.run.thinking = facts.thinking
        known: JsonObject = {"service_tier": facts.service_tier, "generate": facts.generate}
        wish = self.run.wish(first)
        if wish is not None:
            known["reasoning_effort"] = wish.effort
        self.run.execution = attrs.evolve(self.run.execution, metadata=self.run.execution.metadata | known)

    def _routed(self, result: RouteResult, router: PluginId) -> tuple[Candidate, ...]:
        """Candidates of a router's choice; none when the choice cannot be followed and the next router is asked."""
        if result.target_kind is not TargetKind.PROVIDER:
            chosen = router if result.target_kind is TargetKind.SELF else PluginId(result.target)
            direct = self.run.services.direct.get(chosen)
            if direct is None or self._wire(direct) is None:
                return ()
            return (attrs.evolve(direct, model=self.run.request.model),)
        if result.target not in self.run.services.models.providers():
            return ()
        model = result.model.strip() or self.run.request.model
        try:
            candidates = self.run.services.models.resolve(model, provider=result.target)
        except (UnknownModel, NoCredential):
            return ()
        self.run.model = model
        return candidates

    async def intercept_before(self) -> None:
        """`request.intercept_before`: once, chained, may end the execution. Raises: Rejected."""
        entries = self.run.plan.of(StageKind.INTERCEPT_BEFORE, self.run.request.callers)
        if entries:
            self.run.headers, self.run.body = await self.run.intercept(
                entries, model=self.run.model, to_format="", headers=self.run.headers, body=self.run.body
            )

    def _wire(self, candidate: Candidate) -> Wire | None:
        """What *candidate* speaks for this client; None when it cannot serve it."""
        try:
            return candidate.executor.wire(self.run.request.format)
        except UnsupportedFormat:
            return None

    def settle(self, event: Event, error: BaseException | None = None) -> None:
        """End the execution by *event* unless it has ended already."""
        if not self.run.exchange.ended:
            self.run.exchange.advance(event)
        self.error = self.error or error

    def unwatch(self, error: BaseException | None) -> None:
        """Tell whoever watches that it is over."""
        if self.watched is not None:
            self.watched.ended(OUTCOMES.get(self.run.exchange.state, Outcome.FAILED), error)

    async def complete(self) -> None:
        """Announce the outcome. Shielded and bounded: it happens also for a client that has left."""
        entries = self.run.plan.of(StageKind.REQUEST_COMPLETE, self.run.request.callers)
        if not entries:
            return
        outcome = OUTCOMES[self.run.exchange.state]
        call = CompletionCall(
            execution=self.run.execution,
            source_format=self.run.request.format,
            model=self.run.model,
            requested_model=self.run.request.model,
            stream=self.run.request.stream,
            outcome=outcome,
            status_code=COMPLETION_STATUS.get(outcome, getattr(self.error, "http_status", 500)),
            error="" if self.error is None else str(self.error),
            started_at=self.started_at,
            completed_at=datetime.now(UTC),
        )
        with trio.move_on_after(COMPLETION_WAIT_S, shield=True) as scope:
            await self.run.services.completions.submit(call, entries)
        if scope.cancelled_caught:
            log.error("completion.lost", request_id=self.run.execution.request_id, running_for_s=COMPLETION_WAIT_S)
