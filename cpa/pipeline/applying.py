"""Applies the steps of chains: to whole bodies, to events of streams, and a request's from end to end.

Async, but free of any event loop: it only awaits stages and the functions of embedders.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from inspect import isawaitable
from time import perf_counter

import attrs
import structlog

from cpa.errors import CpaError, NoTranslator, RequiredPluginDown, StageError
from cpa.formats.names import SAME_WIRE, Format
from cpa.formats.sse import event_data, split_events
from cpa.formats.units import from_provider_units, provider_units
from cpa.pipeline.chains import (
    NATIVE_IDENTITY,
    STANDARD,
    BodyStep,
    By,
    Compiled,
    Edit,
    PayloadStep,
    PluginStep,
    Translate,
)
from cpa.pipeline.dispatch import first_body, fold_body
from cpa.pipeline.payload import Chosen
from cpa.pipeline.plan import Plan
from cpa.pipeline.stage import OnError, Registration, StageKind, TransformCall
from cpa.pipeline.steps.values import Side, StepContext
from cpa.pipeline.trace import StepRecord, Trace
from cpa.translation.context import Context
from cpa.translation.counting import unwrap_count_request
from cpa.translation.fetching import fetches
from cpa.translation.ir import IRRequest
from cpa.translation.registry import read_request, write_request
from cpa.types import Execution, Operation

log = structlog.get_logger(__name__)

_OF_ANSWERS = (StageKind.RESPONSE_NORMALIZE_BEFORE, StageKind.RESPONSE_NORMALIZE_AFTER)
_OBJECT = b"{"
_SERVER_FAULT = 500


async def run_edit(step: Edit, body: bytes, context: StepContext, record: StepRecord) -> bytes:
    """What *step* makes of *body*. Raises: StageError for a function that fails, or the CpaError that it raises."""
    started = perf_counter()
    try:
        made = step.call(body, context)
        result: object = await made if isawaitable(made) else made
    except Exception as exc:
        record.failed = True
        if isinstance(exc, CpaError):
            raise
        raise StageError(stage=f"{context.side} step", plugin_id=step.label, detail=type(exc).__name__) from exc
    if result is None:
        result = body
    if not isinstance(result, bytes):
        record.failed = True
        raise StageError(stage=f"{context.side} step", plugin_id=step.label, detail="it did not return bytes")
    record.note(body, result, perf_counter() - started)
    return result


async def edit_events(step: Edit, block: bytes, context: StepContext, record: StepRecord) -> bytes:
    """*block*, whole events, after *step* has seen the data of each; the same object when nothing has changed."""
    out: list[bytes] = []
    changed = False
    for event in split_events(block):
        data = event_data(event)
        if data is None or not data.lstrip().startswith(_OBJECT):  # comments and end marks are nobody's content
            out.append(event)
            continue
        edited = await run_edit(step, data, context, record)
        if edited == data:
            out.append(event)
            continue
        changed = True
        if edited:
            out.append(with_data(event, data, edited))
    return b"".join(out) if changed else block


def with_data(event: bytes, data: bytes, new: bytes) -> bytes:
    """*event* with other data; its name and the like stay."""
    # Line breaks are only between the tokens of JSON; within one line of data there may be none.
    new = new.replace(b"\r", b" ").replace(b"\n", b" ")
    if data in event:
        return event.replace(data, new, 1) if b"data:" in event else b"data: " + new + b"\n\n"
    others = [line + b"\n" for line in event.splitlines() if line and not line.startswith(b"data")]
    return b"".join((*others, b"data: ", new, b"\n\n"))


@attrs.frozen(kw_only=True, eq=False)
class LiveStep:
    """One step of one exchange, with all that it needs."""

    step: BodyStep
    entries: tuple[Registration, ...]
    context: StepContext
    record: StepRecord
    trace: Trace
    call: Callable[[bytes], TransformCall]

    async def whole(self, body: bytes) -> bytes:
        """A whole body; nothing can remove it."""
        return (await self._edited(body) if isinstance(self.step, Edit) else await self.folded(body)) or body

    async def unit(self, unit: bytes) -> bytes:
        """One unit of a stream: bare JSON, or the text of an event. Empty when it is not to be delivered."""
        if not isinstance(self.step, Edit):
            return await self.folded(unit)
        if unit.lstrip().startswith(_OBJECT):
            return await self._edited(unit)
        return await edit_events(self.step, unit, self.context, self.record)

    async def block(self, block: bytes) -> bytes:
        """Whole events of a provider."""
        if isinstance(self.step, Edit):
            return await edit_events(self.step, block, self.context, self.record)
        fmt = self.context.format
        return from_provider_units(fmt, [await self.folded(unit) for unit in provider_units(fmt, block)])

    async def folded(self, body: bytes) -> bytes:
        """What plugins leave of *body*. Raises: RequiredPluginDown."""
        started = perf_counter()
        try:
            result = await fold_body(self.entries, self.call(body), self.trace)
        except CpaError as exc:
            self.record.failed = True
            required = isinstance(self.step, PluginStep) and self.step.required
            if required and exc.http_status >= _SERVER_FAULT:
                raise RequiredPluginDown(self.entries[0].plugin_id) from exc
            raise
        self.record.note(body, result, perf_counter() - started)
        return result

    async def _edited(self, body: bytes) -> bytes:
        assert isinstance(self.step, Edit)
        return await run_edit(self.step, body, self.context, self.record)


def live_steps(
    steps: Iterable[BodyStep],
    *,
    chain: str,
    plan: Plan,
    trace: Trace,
    context: StepContext,
    call: Callable[[bytes], TransformCall],
) -> tuple[LiveStep, ...]:
    """Those of *steps* that have something to do in an exchange. Raises: RequiredPluginDown."""
    found = []
    for step in steps:
        entries: tuple[Registration, ...] = ()
        if isinstance(step, PluginStep):
            entries = entries_of(step, plan, chain=chain, trace=trace, side=context.side)
            if not entries:
                continue
        found.append(
            LiveStep(
                step=step,
                entries=entries,
                context=attrs.evolve(context, memory={}),
                record=trace.step(chain=chain, side=context.side, step=step.label),
                trace=trace,
                call=call,
            )
        )
    return tuple(found)


def entries_of(step: PluginStep, plan: Plan, *, chain: str, trace: Trace, side: Side) -> tuple[Registration, ...]:
    """The stages that *step* means. One plugin that is not there is said aloud. Raises: RequiredPluginDown."""
    entries = plan.of(step.kind)
    if not step.plugin_id:
        return entries
    named = tuple(entry for entry in entries if entry.plugin_id == step.plugin_id)
    if step.required:
        named = tuple(attrs.evolve(entry, on_error=OnError.FAIL) for entry in named)
    if named or (step.paired and any(e.plugin_id == step.plugin_id for kind in _OF_ANSWERS for e in plan.of(kind))):
        return named
    if step.required:
        raise RequiredPluginDown(step.plugin_id)
    log.warning("chain.step_skipped", chain=chain, step=step.label, plugin_id=step.plugin_id, stage=step.kind)
    trace.step(chain=chain, side=side, step=step.label).skipped = "the plugin is not there"
    return ()


def translators_of(translate: Translate, plan: Plan, kind: StageKind) -> tuple[Registration, ...]:
    """The plugins' translators that *translate* may ask."""
    entries = plan.of(kind)
    if translate.by is By.STANDARD:
        return entries
    return tuple(entry for entry in entries if entry.plugin_id == translate.plugin_id)


@attrs.frozen(kw_only=True)
class RequestSteps:
    """A request's way through a chain.

    Attributes:
      hops: what translates natively, one after the other; empty where nothing does.
      rules: the payload rules that may concern the request, as far as can be told without its body.
      fetch: puts media in the place of their addresses; None = they stay.
    """

    chain: Compiled
    plan: Plan
    trace: Trace
    execution: Execution
    source: Format
    target: str
    model: str
    requested_model: str
    stream: bool
    operation: Operation
    hops: tuple[Context, ...]
    rules: Callable[[], Chosen | None]
    fetch: Callable[[IRRequest, Context], Awaitable[None]] | None = None

    async def run(self, pieces: Sequence[bytes]) -> tuple[bytes, ...]:
        """The body for the provider; as pieces, the very same ones if nothing has to be done.

        What is no conversation, e.g. a count of tokens, is only translated and shown to plugins: what caps answers or
        adds to requests is refused there.

        Raises: NoTranslator, MalformedRequest, Untranslatable, RequiredPluginDown, what functions raise.
        """
        body = tuple(pieces)
        # What the model's name asks for is written natively, whoever might translate else: then plugins come last.
        steps = STANDARD.request if self.hops and not self.chain.custom else self.chain.request
        edited = self.operation is Operation.GENERATE
        here: str = self.source
        for step in steps:
            if isinstance(step, Translate):
                body = await self._translated(step, body)
                here = self.target
            elif isinstance(step, PayloadStep):
                body = self._ruled(step, body) if edited else body
            elif edited or not isinstance(step, Edit):
                body = await self._applied(step, body, here)
        return body

    async def _applied(self, step: BodyStep, body: tuple[bytes, ...], here: str) -> tuple[bytes, ...]:
        if isinstance(step, PluginStep) and not step.plugin_id and not self.plan.of(step.kind):
            return body
        context = StepContext(
            format=here,
            side=Side.REQUEST,
            client=self.source,
            provider=self.target,
            model=self.model,
            requested_model=self.requested_model,
            stream=self.stream,
            operation=self.operation,
            execution=self.execution,
        )
        live = live_steps(
            (step,), chain=self.chain.name, plan=self.plan, trace=self.trace, context=context, call=self._call
        )
        for one in live:
            body = (await one.whole(b"".join(body)),)
        return body

    def _ruled(self, step: PayloadStep, body: tuple[bytes, ...]) -> tuple[bytes, ...]:
        chosen = self.rules()
        if chosen is None:
            return body
        record = self.trace.step(chain=self.chain.name, side=Side.REQUEST, step=step.label)
        started = perf_counter()
        whole = b"".join(body)
        result = chosen.apply(whole, original=whole)
        record.note(whole, result, perf_counter() - started)
        return (result,)

    async def _translated(self, step: Translate, body: tuple[bytes, ...]) -> tuple[bytes, ...]:
        pair = (self.source, self.target)
        same = self.source == self.target or pair in SAME_WIRE
        native = step.by is not By.PLUGIN and (pair in NATIVE_IDENTITY or bool(self.hops))
        translators = () if native else translators_of(step, self.plan, StageKind.REQUEST_TRANSLATE)
        if not self.hops and not translators:
            if same:
                return body
            raise NoTranslator(source=self.source, target=self.target, model=self.requested_model)
        started = perf_counter()
        whole = before = b"".join(body)
        record = self.trace.step(chain=self.chain.name, side=Side.REQUEST, step=step.label)
        if self.hops and self.operation is Operation.COUNT_TOKENS:
            whole = unwrap_count_request(self.source, whole)
        for hop in self.hops:
            request = read_request(whole, hop)
            if self.fetch is not None and fetches(hop):
                await self.fetch(request, hop)
            whole = write_request(request, hop)
        if translators:
            made = await first_body(translators, self._call(whole), self.trace)
            if made is None and not same:
                raise NoTranslator(source=self.source, target=self.target, model=self.requested_model)
            whole = made or whole
        record.note(before, whole, perf_counter() - started)
        return (whole,)

    def _call(self, body: bytes) -> TransformCall:
        return TransformCall(
            execution=self.execution,
            from_format=self.source,
            to_format=self.target,
            model=self.model,
            stream=self.stream,
            body=body,
        )
