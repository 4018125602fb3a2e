"""The state of the proxy in one answer: traffic over time, plugins, credentials."""

from typing import Final

from cpa.host.plugin import PluginState
from cpa.observability.live_series import MAX_MINUTES, Point
from cpa.server.management.calls import Answer, ManagementCall, error_answer, json_answer
from cpa.types import JsonObject
from cpa.version import VERSION

DEFAULT_MINUTES: Final = 60


async def overview(call: ManagementCall) -> Answer:
    """``GET /overview?minutes=``: what happened in the last minutes (1 to a day), and what is there now.

    Points have the requests that ended within their step; steps without any are left out. Percentiles are null without
    data. With several workers this is the one that answers.
    """
    asked = call.query("minutes") or str(DEFAULT_MINUTES)
    if not (asked.isascii() and asked.isdigit() and len(asked) < 10 and 1 <= int(asked) <= MAX_MINUTES):
        return error_answer(400, f"minutes must be from 1 to {MAX_MINUTES}")
    live = call.live
    chart = live.series.chart(int(asked))
    return json_answer(
        {
            "version": VERSION,
            "uptime-s": round(live.series.clock() - live.started_unix, 1),
            "started-at": round(live.started_unix, 3),
            "running": live.running,
            "step-s": chart.step_s,
            "points": [_told(point) for point in chart.points],
            "totals": {
                "requests": chart.requests,
                "errors": chart.errors,
                "input-tokens": chart.input_tokens,
                "output-tokens": chart.output_tokens,
            },
            "plugins": _plugins(call),
            "credentials": _credentials(call),
        }
    )


def _told(point: Point) -> JsonObject:
    return {
        "time": point.time,
        "requests": point.requests,
        "errors": point.errors,
        "input-tokens": point.input_tokens,
        "output-tokens": point.output_tokens,
        "latency-p50-ms": point.latency_p50_ms,
        "latency-p95-ms": point.latency_p95_ms,
        "first-byte-p50-ms": point.first_byte_p50_ms,
    }


def _plugins(call: ManagementCall) -> JsonObject:
    states = [] if call.plugins is None else [status.state for status in call.plugins.manager.states()]
    broken = (PluginState.FAILED, PluginState.FUSED)
    return {"registered": states.count(PluginState.REGISTERED), "failed": sum(state in broken for state in states)}


def _credentials(call: ManagementCall) -> JsonObject:
    """A credential with any open window counts as cooling, be it for one model only."""
    scheduler = call.runtime.scheduler
    cooling = set() if scheduler is None else {name for name, _, _ in scheduler.scheduling.health.open_windows()}
    credentials = call.runtime.credentials
    disabled = sum(credential.disabled for credential in credentials)
    cool = sum(credential.id in cooling for credential in credentials if not credential.disabled) if cooling else 0
    return {"ready": len(credentials) - disabled - cool, "cooling": cool, "disabled": disabled}
