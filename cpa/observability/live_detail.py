"""One request in full, as management tells it: its stages and steps in order, its losses, its attempts."""

from collections.abc import Callable

import msgspec

from cpa.observability.live import LiveRequest
from cpa.observability.live_changes import lines_of
from cpa.pipeline.stage import StageKind
from cpa.pipeline.trace import AttemptRecord, StageRecord, StepRecord
from cpa.types import JsonObject, JsonValue

REQUEST_KINDS = frozenset(
    {
        *(StageKind.MODEL_ROUTE, StageKind.INTERCEPT_BEFORE, StageKind.SCHEDULER_PICK, StageKind.INTERCEPT_AFTER),
        *(StageKind.REQUEST_NORMALIZE, StageKind.REQUEST_TRANSLATE, StageKind.THINKING_APPLY),
    }
)
PLUGIN_STEP = "plugin: "


def detail(request: LiveRequest, redact: Callable[[str], str]) -> JsonObject:
    """*request* with all that is known of it. Compares what was kept of bodies: some milliseconds per MB.

    *redact*: hides secrets in a text.
    """
    trace = request.trace
    rows = [
        *((step.started, _step(step, request, redact)) for step in trace.steps),
        *((stage.started, _stage(stage, request, redact)) for stage in trace.stages.values()),
    ]
    rows.sort(key=lambda row: row[0])
    told: JsonObject = msgspec.to_builtins(request.summary())
    # In this order: the summary has the numbers of both under the same names.
    told["stages"] = [row for _, row in rows]
    told["losses"] = [
        {"path": redact(loss.path), "reason": str(loss.kind) + (f": {redact(loss.note)}" if loss.note else "")}
        for loss in trace.losses
    ]
    told["attempts"] = [_attempt(attempt, redact) for attempt in trace.attempts]
    return told


def _stage(record: StageRecord, request: LiveRequest, redact: Callable[[str], str]) -> JsonObject:
    side = "request" if record.kind in REQUEST_KINDS else "stream" if request.stream else "response"
    return {
        "stage": record.kind.value,
        "plugin": record.plugin_id,
        "step": None,
        "chain": None,
        "side": side,
        "calls": record.calls,
        "duration-us": round(record.duration_s * 1e6),
        "outcome": "failed" if record.failed else "complete",
        "reason": redact(record.reason),
        "changed": record.changed,
        "changes": _lines(record, redact),
    }


def _step(record: StepRecord, request: LiveRequest, redact: Callable[[str], str]) -> JsonObject:
    return {
        "stage": "step",
        "plugin": record.step.removeprefix(PLUGIN_STEP) if record.step.startswith(PLUGIN_STEP) else None,
        "step": redact(record.step),
        "chain": record.chain or None,
        "side": "stream" if record.side == "response" and request.stream else record.side,
        "calls": record.calls,
        "duration-us": round(record.duration_s * 1e6),
        "outcome": "skipped" if record.skipped else "failed" if record.failed else "complete",
        "reason": record.skipped,
        "changed": record.changed,
        "changes": _lines(record, redact),
    }


def _lines(record: StageRecord | StepRecord, redact: Callable[[str], str]) -> list[JsonValue]:
    return list(lines_of(tuple(record.kept), redact=redact))


def _attempt(record: AttemptRecord, redact: Callable[[str], str]) -> JsonObject:
    return {
        "credential": record.credential or None,
        "credential-id": record.credential_id or None,
        "provider": record.provider,
        "model": record.model,
        "status": record.status or None,
        "error": redact(record.error) or None,
        "duration-ms": None if record.duration_s is None else round(record.duration_s * 1000, 1),
        "why": record.why,
    }
