"""What becomes of a stage that fails."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from cpa.errors import CpaError, RequestTooLarge
from cpa.pipeline.dispatch import GATES, KnownOutage, ask
from cpa.pipeline.stage import OnError, Registration, StageKind
from cpa.pipeline.trace import StageOutcome, Trace
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
    assert [record.outcome for record in trace.records] == [StageOutcome.FAILED]


@pytest.mark.parametrize(
    ("error", "level"),
    [(Outage("down"), "debug"), (CpaError("no"), "warning"), (ValueError("bug"), "warning")],
)
async def test_an_outage_that_is_known_is_not_repeated(error: Exception, level: str) -> None:
    """One line per stage and request, but at the right level."""
    with capture_logs() as lines:
        assert await ask(failing(StageKind.REQUEST_NORMALIZE, error), None, Trace()) is None
    assert [(line["event"], line["log_level"], line["plugin_id"]) for line in lines] == [("stage.failed", level, "a")]
