"""What the parts of one execution share while it runs."""

from collections.abc import Sequence

import attrs

from cpa.errors import RawHeaders
from cpa.formats import headers as http
from cpa.formats.names import SAME_WIRE, carries
from cpa.formats.thinking import Thinking, split_suffix
from cpa.pipeline.chains import By, Compiled, choose, standard
from cpa.pipeline.dispatch import ask
from cpa.pipeline.exchange import Exchange, ModelRequest
from cpa.pipeline.plan import Plan
from cpa.pipeline.rules import OPERATION_FORMATS, rejection
from cpa.pipeline.services import Services
from cpa.pipeline.stage import InterceptRequestCall, InterceptRequestResult, Registration, StageKind
from cpa.pipeline.trace import Trace
from cpa.types import Candidate, Execution, Wire, WireLog


@attrs.define(kw_only=True, eq=False)
class Running:
    """One execution: what was asked, and what has become of it.

    Attributes:
      model: as routed. headers, body: as interceptors left them.
      thinking: what the body says of reasoning.
    """

    request: ModelRequest
    services: Services
    plan: Plan
    execution: Execution
    wire_log: WireLog | None
    model: str
    headers: RawHeaders
    body: bytes = attrs.field(repr=False)
    thinking: Thinking | None = None
    exchange: Exchange = attrs.field(factory=Exchange)
    trace: Trace = attrs.field(factory=Trace)

    def wish(self, candidate: Candidate) -> Thinking | None:
        """What the client, or the operator on its behalf, wants of reasoning: names count more than bodies (2.5)."""
        return self.services.thinking_of(candidate, self.model) or self.thinking

    async def intercept(
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
                ended = rejection(result, entry)
                self.trace.stage(entry).reason = f"ended the request with status {ended.http_status}"
                raise ended
            if result.headers or result.clear_headers:
                before, current = current, http.merge(current, clear=result.clear_headers, replace=result.headers)
                self.trace.headers_changed(entry, before, current)
            if result.body and result.body != body:
                self.trace.changed(entry, body, result.body)
                body = result.body
        return http.to_raw(current), body

    def chain(self, wire: Wire) -> Compiled:
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

    def carries(self, wire: Wire) -> bool:
        """Bodies of the client get to a provider that speaks *wire*."""
        if wire.input == self.request.format and not self.plan.chains:
            return True
        carrier, source = self.chain(wire).carrier, self.request.format
        translators = self.plan.of(StageKind.REQUEST_TRANSLATE)
        if carrier.by is By.STANDARD:
            return bool(translators) or carries(source, wire.input)
        if carrier.by is By.PLUGIN:
            named = any(entry.plugin_id == carrier.plugin_id for entry in translators)
            return named or source == wire.input or (source, wire.input) in SAME_WIRE
        return carries(source, wire.input)

    def has(self, *kinds: StageKind) -> bool:
        return not self.plan.empty and any(self.plan.of(kind, self.request.callers) for kind in kinds)
