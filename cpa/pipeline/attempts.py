"""The attempts of one execution: whom the scheduler picks, how each one fares, when there is another (proxy 4).

Who may be tried, in which order and for how long is the scheduler's business (`cpa.types.Selection`); in here is what
waits: plugins that schedule, providers, renewals, the pause between two rounds. A client that leaves ends any of these
at once, and nothing is learnt from it.
"""

from collections.abc import Sequence
from types import TracebackType

import attrs
import structlog
import trio

from cpa.credentials.model import Credential
from cpa.errors import CpaError, NoTranslator, UnsupportedFormat, UpstreamError
from cpa.formats import headers as http
from cpa.pipeline.answer import Answer
from cpa.pipeline.asking import Asking, Prepared
from cpa.pipeline.dispatch import ask
from cpa.pipeline.exchange import Event, State
from cpa.pipeline.rules import can, cannot, harmless, may_rotate
from cpa.pipeline.running import Running
from cpa.pipeline.stage import PickCall, PickCandidate, PickResult, StageKind
from cpa.pipeline.trace import AttemptRecord
from cpa.types import (
    NESTED_CALLS,
    AttemptAccount,
    AttemptObserver,
    Candidate,
    Executor,
    JsonObject,
    Operation,
    Selection,
    SelectionAsk,
)

log = structlog.get_logger(__name__)

STRATEGIES = frozenset({"round-robin", "fill-first"})
"""Built-in ones that a plugin may name (plugin-abi 4.5)."""
OK = 200
UNAUTHORIZED = 401
SESSION_KEY = "execution_session_id"
PIN_KEY = "pinned_auth_id"
"""Members of the request's own metadata (plugin-abi 6.11)."""


class Attempts:
    """Drives a selection to its answer; one for each execution."""

    def __init__(self, run: Running, observer: AttemptObserver | None) -> None:
        self.run = run
        self._asking = Asking(run)
        self._observer = observer
        self._selection: Selection | None = None
        self._attempted: Credential | None = None
        self._account: AttemptAccount | None = None
        self._plays_provider = False
        self._renewed: set[str] = set()
        self._why = ""

    async def first_answer(self, candidates: Sequence[Candidate]) -> Answer:
        """Try *candidates* until one answers; a stream's connection stays open until `leave`.

        Raises: UpstreamError: the last provider's, when nothing is left to try or the fault lies in the request;
          NoCredential when nobody could be asked; Rejected, StageError of plugins.
        """
        if candidates[0].credential.anonymous:
            return await self._first_of(self._served(candidates))
        scheduler = self.run.services.scheduler
        executors = self._usable(scheduler.executors(candidates), candidates)
        selection = self._selection = scheduler.select(candidates, self._ask(), executors=executors)
        self._asking.selection = selection
        if selection.metadata:
            execution = self.run.execution
            self.run.execution = attrs.evolve(execution, metadata=execution.metadata | selection.metadata)
        while True:
            candidate = await self._pick(selection)
            if candidate is None:
                pause_s = selection.pause()
                if pause_s is None:
                    raise selection.refusal()
                if pause_s:
                    log.info("attempt.waits", seconds=round(pause_s, 3), model=self.run.model)
                await trio.sleep(pause_s)
                continue
            answer = await self._try(selection, candidate)
            if answer is not None:
                return answer

    async def leave(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the answer's connection; see `Asking.leave`."""
        await self._asking.leave(kind, exc, traceback)

    async def _try(self, selection: Selection, candidate: Candidate) -> Answer | None:
        """The answer of *candidate*; None when something else may be tried. Raises: as `first_answer`."""
        while True:
            try:
                answer = await self._once(candidate)
            except UpstreamError as exc:
                self.ended(exc)
                renewed = await self._renew(selection, candidate, exc)
                if renewed is None and not selection.failed(exc):
                    raise
                provider = candidate.credential.provider
                log.info("attempt.failed", provider=provider, error=str(exc), renewed=renewed is not None)
                self.run.exchange.advance(Event.RETRY)
                if renewed is None:
                    return None
                candidate = attrs.evolve(candidate, credential=renewed)
                self._why = "the same credential, renewed"
            else:
                selection.succeeded()
                return answer

    async def _first_of(self, candidates: Sequence[Candidate]) -> Answer:
        """Executors that need no credential, in order; there is no state to keep of them."""
        for candidate in candidates[:-1]:
            try:
                return await self._once(candidate)
            except UpstreamError as exc:
                if not may_rotate(exc):
                    raise
                self.ended(exc)
                self.run.exchange.advance(Event.RETRY)
        return await self._once(candidates[-1])

    async def _once(self, candidate: Candidate) -> Answer:
        self.run.exchange.advance(Event.ATTEMPT)
        credential = candidate.credential
        self._attempted = credential
        self.run.trace.attempts.append(
            AttemptRecord(
                credential=credential.label,
                credential_id=credential.id,
                provider=credential.provider,
                model=candidate.model,
                why=self._why or "the model is a plugin's own: no credential",
            )
        )
        unread = self.run.plan.empty and candidate.executor.wire(self.run.request.format).native
        if not (credential.anonymous or unread):
            selected: JsonObject = {"selected_auth_id": credential.id, "selected_auth_index": credential.index}
            execution = self.run.execution
            self.run.execution = attrs.evolve(execution, metadata=execution.metadata | selected)
        if self._observer is not None:
            self._observer.attempt_started(credential)
        return await self._asking.ask(candidate, self._open_account)

    async def _renew(self, selection: Selection, candidate: Candidate, error: UpstreamError) -> Credential | None:
        """The same credential with a new token, once in an execution (proxy 3.7); None = that does not help."""
        refresher, credential = self.run.services.refresher, candidate.credential
        if refresher is None or credential.id in self._renewed:
            return None
        if error.http_status != UNAUTHORIZED or not selection.refreshable(error):
            return None
        self._renewed.add(credential.id)
        return await refresher.refresh(credential)

    # --- choosing ----------------------------------------------------------------------------------------------------

    def _ask(self) -> SelectionAsk:
        request = self.run.request
        known = request.extra_metadata
        session, pin = (known.get(SESSION_KEY), known.get(PIN_KEY)) if known else ("", "")
        return SelectionAsk(
            model=self.run.model,
            format=request.format,
            operation=request.operation,
            stream=request.stream,
            headers=request.headers,
            body=request.body,
            principal=request.principal,
            session=session if isinstance(session, str) else "",
            pin=pin if isinstance(pin, str) else "",
            preferred=request.pins,
        )

    async def _pick(self, selection: Selection) -> Candidate | None:
        """Plugin schedulers in order until one decides, then the built-in one.

        Upstream asks the first one only; its documentation says otherwise (plugin-abi chapter 10, no. 15).
        """
        settled = selection.settled
        entries = () if settled else self.run.plan.of(StageKind.SCHEDULER_PICK)
        tier = {choice.credential.id: choice for choice in selection.choices()} if entries else {}
        self._why = "the credential's next model" if settled else "the built-in scheduler's choice"
        if not tier:
            return selection.pick()
        for entry in entries:
            result: PickResult | None = await ask(entry, self._pick_call(tier), self.run.trace)
            if result is None:
                continue
            if result.credential_id in tier:
                self._why = f"the choice of plugin {entry.plugin_id}"
                return selection.pick(credential_id=result.credential_id)
            if result.delegate in STRATEGIES:
                self._why = f"{result.delegate}, as plugin {entry.plugin_id} wants"
                return selection.pick(strategy=result.delegate)
            log.warning("scheduler.invalid", plugin_id=entry.plugin_id, delegate=result.delegate)
            break
        return selection.pick()

    def _pick_call(self, tier: dict[str, Candidate]) -> PickCall:
        return PickCall(
            execution=self.run.execution,
            providers=tuple(dict.fromkeys(choice.credential.provider for choice in tier.values())),
            model=self.run.model,
            stream=self.run.request.stream,
            headers=http.to_map(self.run.headers),
            candidates=tuple(
                PickCandidate(
                    id=key,
                    provider=choice.credential.provider,
                    priority=choice.credential.priority,
                    attributes=harmless(choice.credential),
                )
                for key, choice in tier.items()
            ),
        )

    def _usable(self, executors: Sequence[Executor], candidates: Sequence[Candidate]) -> list[Executor]:
        """Those of *executors* to whose protocol the client's can be carried. Raises: NoTranslator when none is."""
        source, request = self.run.request.format, self.run.request
        found: list[Executor] = []
        target, refusal, unable = "", None, False
        for executor in executors:
            try:
                wire = executor.wire(source)
            except UnsupportedFormat as exc:
                refusal = exc
                continue
            target = target or wire.input
            if not can(request.operation, wire):
                unable = True
            elif self.run.carries(wire):
                found.append(executor)
        if found:
            return found
        if refusal is not None and not target:
            raise refusal
        if unable:
            raise cannot(request.operation, request.model)
        raise NoTranslator(source=source, target=target, model=request.model)

    def _served(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those of *candidates* that can be asked. Raises: as `_usable`."""
        distinct = {id(candidate.executor): candidate.executor for candidate in candidates}
        usable = set(map(id, self._usable(tuple(distinct.values()), candidates)))
        return [candidate for candidate in candidates if id(candidate.executor) in usable]

    # --- what others hear --------------------------------------------------------------------------------------------

    def ended(self, error: CpaError | None) -> None:
        """Tell observer and log how the running attempt ended, once; a stream's ends with the stream."""
        self.close_account(error)
        credential, self._attempted = self._attempted, None
        if credential is None:
            return
        record = self.run.trace.attempts[-1]
        if error is None:
            record.ended(OK)
        else:
            record.ended(error.http_status, str(error))
        if self.run.wire_log is not None and error is not None:
            self.run.wire_log.attempt_error(str(error))
        if self._observer is not None:
            self._observer.attempt_ended(credential, error)
        if self.run.services.attempted is not None and (error is None or isinstance(error, UpstreamError)):
            self.run.services.attempted(credential, error is None)

    def close(self) -> None:
        """Give back what is held."""
        self.close_account(None)
        if self._attempted is not None:  # the client has left
            self.run.trace.attempts[-1].ended(0)
        if self._selection is not None:
            self._selection.close()

    def _open_account(self, prepared: Prepared) -> AttemptAccount | None:
        """Note what this attempt costs, if anybody wants to know; counting tokens costs nothing."""
        run, accounts = self.run, self.run.services.accounts
        if accounts is None or not accounts.wanted or run.request.operation is Operation.COUNT_TOKENS:
            return None
        self._account = accounts.attempt(
            credential=prepared.candidate.credential,
            model=prepared.candidate.model,
            alias=run.request.model,
            principal=run.request.principal,
            request_format=run.request.format,
            provider_format=prepared.wire.output,
            request_body=prepared.original,
            request_id=run.execution.request_id,
            trace_id=run.execution.trace_id,
            execution=run.execution,
            members=run.request.members if prepared.original is run.request.body else None,
        )
        self._plays_provider = not prepared.wire.native
        return self._account

    def close_account(self, error: CpaError | None) -> None:
        """End the account of the present attempt, if there is one."""
        account, self._account = self._account, None
        if account is None:
            return
        if self._plays_provider and NESTED_CALLS in self.run.execution.memory:
            return  # the plugin let others do the work, which was accounted for there (plugin-abi 4.12)
        account.finish(error, complete=error is None and self.run.exchange.state is State.SUCCEEDED)
        self.run.trace.used(*account.counted)
