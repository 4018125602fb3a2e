"""What becomes of a stage that fails."""

from typing import Any

import attrs
import pytest
from structlog.testing import capture_logs

from cpa.errors import CpaError, RequestTooLarge, RequiredPluginDown, StageError
from cpa.pipeline.dispatch import GATES, KnownOutage, ask
from cpa.pipeline.stage import OnError, Registration, StageKind
from cpa.pipeline.trace import Trace
from cpa.types import PluginId


class Outage(CpaError, KnownOutage):
    """Was logged elsewhere."""


def failing(kind: StageKind, error: Exception) -> Registration:
    """A stage that may be skipped and raises *error*."""

    async def stage(call: Any) -> Any:
        raise error

    return Registration(kind=kind, plugin_id=PluginId("a"), stage=stage, priority=0, on_error=OnError.SKIP)


@pytest.mark.parametrize("kind", list(StageKind))
async def test_a_gate_that_cannot_be_shown_a_request_stays_shut(kind: StageKind) -> None:
    """Others are passed over."""
    trace = Trace()
    entry = failing(kind, RequestTooLarge("too large"))
    if kind in GATES:
        with pytest.raises(RequestTooLarge) as caught:
            await ask(entry, None, trace)
        assert caught.value.http_status == 413
    else:
        assert await ask(entry, None, trace) is None
    assert [(record.calls, record.failed) for record in trace.stages.values()] == [(1, 1)]


@pytest.mark.parametrize(
    ("error", "level"),
    [(Outage("down"), "debug"), (CpaError("no"), "warning"), (ValueError("bug"), "warning")],
)
async def test_an_outage_that_is_known_is_not_repeated(error: Exception, level: str) -> None:
    """One line per stage and request, but at the right level."""
    with capture_logs() as lines:
        assert await ask(failing(StageKind.REQUEST_NORMALIZE, error), None, Trace()) is None
    assert [(line["event"], line["log_level"], line["plugin_id"]) for line in lines] == [("stage.failed", level, "a")]


class Words(CpaError):
    """A plugin's own."""

    as_said = True
    http_status = 500


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Outage("down"), RequiredPluginDown),
        (CpaError("no"), RequiredPluginDown),
        (Words("mine"), Words),
        (RequestTooLarge("too large"), RequestTooLarge),
        (ValueError("bug"), StageError),
    ],
)
async def test_a_stage_that_must_not_be_missed_ends_the_request(error: Exception, expected: type[CpaError]) -> None:
    """With 503 and its name when it is away, with its own words when it has any."""
    entry = attrs.evolve(failing(StageKind.REQUEST_NORMALIZE, error), on_error=OnError.FAIL)
    trace = Trace()
    with pytest.raises(expected) as caught:
        await ask(entry, None, trace)
    if expected is RequiredPluginDown:
        assert (caught.value.http_status, caught.value.code, str(caught.value)) == (
            *(503, "plugin_unavailable", "plugin a is required and not available"),
        )
    [record] = trace.stages.values()
    assert (record.failed, bool(record.reason)) == (1, True)
