"""The table of methods against the contract's own lists."""

import pytest

from cpa.abi import methods, wire
from cpa.abi.codec import Message
from cpa.abi.methods import HOST_METHODS, METHODS, PLUGIN_METHODS, Direction, Method, Policy, TimeoutClass, methods_of
from cpa.pipeline.stage import POLICIES, StageKind

SCOPED = {
    "model.for_auth",
    "auth.login.start",
    "auth.login.poll",
    "auth.refresh",
    "model.route",
    "executor.execute",
    "executor.execute_stream",
    "executor.count_tokens",
    "executor.http_request",
    "request.intercept_before",
    "request.intercept_after",
    "request.complete",
    "response.intercept_after",
    "response.intercept_stream_chunk",
    "thinking.apply",
    "management.handle",
}
UNSCOPED = {
    "plugin.register",
    "plugin.reconfigure",
    "plugin.shutdown",
    "model.register",
    "model.static",
    "auth.identifier",
    "frontend_auth.identifier",
    "executor.identifier",
    "thinking.identifier",
    "auth.parse",
    "frontend_auth.authenticate",
    "scheduler.pick",
    "request.translate",
    "request.normalize",
    "response.translate",
    "response.normalize_before",
    "response.normalize_after",
    "usage.handle",
    "command_line.register",
    "command_line.execute",
    "management.register",
}
HOST = {
    "host.http.do",
    "host.http.do_stream",
    "host.http.stream_read",
    "host.http.stream_close",
    "host.model.execute",
    "host.model.execute_stream",
    "host.model.stream_read",
    "host.model.stream_close",
    "host.auth.list",
    "host.auth.get",
    "host.auth.get_runtime",
    "host.auth.save",
    "host.stream.emit",
    "host.stream.close",
    "host.log",
}
CAPABILITIES = {
    "model_registrar": {"model.register"},
    "model_provider": {"model.static", "model.for_auth"},
    "auth_provider": {"auth.identifier", "auth.parse", "auth.login.start", "auth.login.poll", "auth.refresh"},
    "frontend_auth_provider": {"frontend_auth.identifier", "frontend_auth.authenticate"},
    "scheduler": {"scheduler.pick"},
    "model_router": {"model.route"},
    "executor": {
        *("executor.identifier", "executor.execute", "executor.execute_stream", "executor.count_tokens"),
        "executor.http_request",
    },
    "request_translator": {"request.translate"},
    "request_normalizer": {"request.normalize"},
    "request_interceptor": {"request.intercept_before", "request.intercept_after"},
    "request_lifecycle_plugin": {"request.complete"},
    "response_translator": {"response.translate"},
    "response_before_translator": {"response.normalize_before"},
    "response_after_translator": {"response.normalize_after"},
    "response_interceptor": {"response.intercept_after"},
    "response_stream_interceptor": {"response.intercept_stream_chunk"},
    "thinking_applier": {"thinking.identifier", "thinking.apply"},
    "usage_plugin": {"usage.handle"},
    "command_line_plugin": {"command_line.register", "command_line.execute"},
    "management_api": {"management.register", "management.handle"},
}


def test_the_names_are_the_contracts() -> None:
    """37 host to plugin, 15 plugin to host (Appendix A)."""
    assert {row.name for row in PLUGIN_METHODS} == SCOPED | UNSCOPED
    assert set(HOST_METHODS) == HOST
    assert len(PLUGIN_METHODS) == 37
    assert len(HOST_METHODS) == 15
    assert set(METHODS) == SCOPED | UNSCOPED | HOST


def test_scopes_are_the_contracts() -> None:
    """The table of 4.0."""
    assert {row.name for row in METHODS.values() if row.scoped} == SCOPED
    assert [row.name for row in METHODS.values() if row.streamed] == ["executor.execute_stream"]


def test_capabilities_are_the_contracts() -> None:
    """The table of 3.5."""
    assert set(CAPABILITIES) == set(wire.SWITCHES)
    for capability, names in CAPABILITIES.items():
        assert {row.name for row in methods_of(capability)} == names


def test_shutdown_is_never_sent() -> None:
    """4.15: the C function is the only notice."""
    assert [row.name for row in METHODS.values() if not row.sent] == ["plugin.shutdown"]


def test_only_executions_have_no_deadline() -> None:
    """Whatever else a plugin does should not take 30 s. Pages may wait for executions of their own."""
    unlimited = {row.name for row in PLUGIN_METHODS if row.timeout is TimeoutClass.NONE}
    assert unlimited == CAPABILITIES["executor"] - {"executor.identifier"}
    assert {row.name for row in PLUGIN_METHODS if row.timeout is TimeoutClass.LONG} == {"management.handle"}
    assert TimeoutClass.LONG.seconds == 600
    assert TimeoutClass.NONE.seconds is None
    assert TimeoutClass.SHORT.seconds == 30


@pytest.mark.parametrize("kind", list(StageKind))
def test_policies_are_the_pipelines(kind: StageKind) -> None:
    """`abi` may not import the pipeline, so the values are compared here."""
    assert METHODS[kind.value].policy.value == POLICIES[kind].value


@pytest.mark.parametrize("row", METHODS.values(), ids=lambda row: row.name)
def test_rows_are_complete(row: Method[object, object]) -> None:
    """A constant, message classes, a complaint for host calls."""
    constant = row.name.upper().replace(".", "_")
    assert getattr(methods, constant) is row
    assert issubclass(row.request, Message)
    assert issubclass(row.reply, Message)
    is_host_call = row.direction is Direction.HOST_CALL
    assert row.name.startswith("host.") == is_host_call
    assert bool(row.complaint) == is_host_call
    if is_host_call:
        assert row.policy is Policy.ADDRESSED


def test_tables_cannot_be_changed() -> None:
    """They are shared by all plugins."""
    with pytest.raises(TypeError):
        METHODS["x"] = methods.HOST_LOG  # type: ignore[index]
