"""A provider that answers by script and fails on demand, for tests, benchmarks and rehearsals.

See ``docs/mock-provider.md`` for what it answers and how to order faults.
"""

from cpa.testing.mock.asks import Ask, AskError, Endpoint, Route, Tool, parse_ask, parse_route
from cpa.testing.mock.record import RecordedRequest, Recorder
from cpa.testing.mock.render import expected_body, render_full, render_stream
from cpa.testing.mock.scenario import BadDirective, Fault, Scenario, apply_headers, parse_model
from cpa.testing.mock.server import MockProvider, open_mock, refusing_port, serve_mock

__all__ = [
    "Ask",
    "AskError",
    "BadDirective",
    "Endpoint",
    "Fault",
    "MockProvider",
    "RecordedRequest",
    "Recorder",
    "Route",
    "Scenario",
    "Tool",
    "apply_headers",
    "expected_body",
    "open_mock",
    "parse_ask",
    "parse_model",
    "parse_route",
    "refusing_port",
    "render_full",
    "render_stream",
    "serve_mock",
]
