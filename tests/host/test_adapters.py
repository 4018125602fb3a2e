"""Failures of plugins as the pipeline sees them; what stages ask and answer is tested with compiled plugins."""

import pytest
from structlog.testing import capture_logs

from cpa.abi.errors import PluginError, PluginRequestTooLarge
from cpa.errors import RequestTooLarge
from cpa.host.adapters import registrations
from cpa.host.plugin import PluginState, PluginUnavailable
from cpa.host.scopes import open_scopes
from tests.host.plugin_fakes import ScriptedCopy, live
from tests.pipeline.support import execute, full

METHODS = ("request.intercept_before", "request.intercept_after")


def too_large(method: str) -> PluginRequestTooLarge:
    """As transports raise it."""
    return PluginRequestTooLarge(plugin_id="a", method=method, size_bytes=11, limit_bytes=10)


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_that_an_interceptor_cannot_be_shown_goes_no_further(method: str) -> None:
    """413, and no provider saw it."""
    provider = full()
    plugin = live("a", ScriptedCopy({method: too_large(method)}), request_interceptor=True)
    async with open_scopes() as scopes:
        with pytest.raises(RequestTooLarge) as caught:
            await execute(provider, registrations(plugin, scopes))
        assert len(scopes) == 0
    assert caught.value.http_status == 413
    assert caught.value.message == f"request is too large for {method} of plugin a"
    assert provider.calls == []


@pytest.mark.parametrize("method", METHODS)
async def test_an_interceptor_that_fails_otherwise_is_passed_over(method: str) -> None:
    """As every stage."""
    provider = full()
    plugin = live("a", ScriptedCopy({method: PluginError("broken", plugin_id="a")}), request_interceptor=True)
    async with open_scopes() as scopes:
        result = await execute(provider, registrations(plugin, scopes))
    assert result.body == b'{"id":"r1"}'
    assert len(provider.calls) == 1


async def test_requests_say_nothing_of_a_plugin_that_is_down() -> None:
    """Its slot has said it once, with the reason."""
    down = PluginUnavailable(plugin_id="a", state=PluginState.RESTARTING, reason="killed")
    plugin = live("a", ScriptedCopy({"request.intercept_before": down}), request_interceptor=True)
    async with open_scopes() as scopes:
        with capture_logs() as lines:
            await execute(full(), registrations(plugin, scopes))
    assert [(line["event"], line["log_level"]) for line in lines] == [("stage.failed", "debug")]


async def test_a_normalizer_that_cannot_be_shown_a_request_is_passed_over() -> None:
    """It decides nothing."""
    provider = full()
    copy = ScriptedCopy({"request.normalize": too_large("request.normalize")})
    async with open_scopes() as scopes:
        await execute(provider, registrations(live("a", copy, request_normalizer=True), scopes))
    assert copy.count("request.normalize") == 1
    assert len(provider.calls) == 1
