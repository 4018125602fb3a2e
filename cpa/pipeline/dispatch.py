"""The dispatch policies: how the stages of one kind share a call.

The one place where a stage's exception is caught, whatever it is: a stage is somebody else's code, and its failure must
cost one exchange at most. Async, but free of any event loop: it only awaits stages.
"""

from collections.abc import Iterable
from time import perf_counter
from typing import Any, Final

import attrs
import structlog

from cpa.errors import CpaError, RequestTooLarge, RequiredPluginDown, StageError
from cpa.pipeline.stage import OnError, Registration, StageKind, TransformCall
from cpa.pipeline.trace import MAX_REASON_CHARS, Trace

log = structlog.get_logger(__name__)

GATES: Final = frozenset({StageKind.INTERCEPT_BEFORE, StageKind.INTERCEPT_AFTER})
"""Stages that may refuse a request: a client must not get past them by sending more than they can be shown."""


SERVER_FAULT: Final = 500


class KnownOutage:
    """Mixed into errors that were reported where they began: each request that meets them has nothing to add."""


async def ask(entry: Registration, call: Any, trace: Trace) -> Any:
    """The answer of one stage, or None when it has nothing to say or failed and may be skipped.

    Raises: StageError, or the stage's own CpaError, when it failed and its owner's exchanges are to fail with it;
      RequestTooLarge where a stage of `GATES` cannot be shown the request.
    """
    record = trace.stage(entry)
    record.calls += 1
    started = perf_counter()
    try:
        result = await entry.stage(call)
    except Exception as exc:
        known = isinstance(exc, CpaError)
        record.duration_s += perf_counter() - started
        record.failed += 1
        record.reason = (str(exc) if known else type(exc).__name__)[:MAX_REASON_CHARS]
        if isinstance(exc, RequestTooLarge) and entry.kind in GATES:
            raise
        if entry.on_error is OnError.FAIL and isinstance(exc, CpaError):
            if exc.as_said or exc.http_status < SERVER_FAULT or entry.kind is StageKind.SCHEDULER_PICK:
                raise  # a plugin's own words, which the client is meant to hear (plugin-abi 4.5)
            if isinstance(exc, RequiredPluginDown):
                raise
            say = log.debug if isinstance(exc, KnownOutage) else log.warning
            say("stage.refused", stage=entry.kind, plugin_id=entry.plugin_id, error=str(exc))
            raise RequiredPluginDown(entry.plugin_id) from exc
        if entry.on_error is OnError.FAIL:
            raise StageError(stage=entry.kind, plugin_id=entry.plugin_id, detail=type(exc).__name__) from exc
        told: dict[str, object] = {"error": str(exc)} if known else {"exc_info": exc}
        say = log.debug if isinstance(exc, KnownOutage) else log.warning
        say("stage.failed", stage=entry.kind, plugin_id=entry.plugin_id, **told)
        return None
    record.duration_s += perf_counter() - started
    return result


async def first_result(entries: Iterable[Registration], call: Any, trace: Trace) -> tuple[Registration, Any] | None:
    """The first stage that answers, with its answer."""
    for entry in entries:
        result = await ask(entry, call, trace)
        if result is not None:
            return entry, result
    return None


async def fold_body(entries: Iterable[Registration], call: TransformCall, trace: Trace) -> bytes:
    """Each stage transforms what the one before it left; an empty answer leaves it as it is."""
    for entry in entries:
        body = await ask(entry, call, trace)
        if body:
            if body != call.body:
                trace.changed(entry, call.body, body)
            call = attrs.evolve(call, body=body)
    return call.body


async def first_body(entries: Iterable[Registration], call: TransformCall, trace: Trace) -> bytes | None:
    """The first non-empty answer."""
    for entry in entries:
        body: bytes | None = await ask(entry, call, trace)
        if body:
            if body != call.body:
                trace.changed(entry, call.body, body)
            return body
    return None
