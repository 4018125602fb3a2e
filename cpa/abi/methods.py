"""The one table of the contract's methods: who calls whom, with what, and what holds for the call.

`METHODS` has all 37 names of host → plugin calls (`plugin.shutdown` is reserved and never sent) and all 15 of
plugin → host calls. Each row is also a constant, which carries the types::

    reply: BodyReply = decode_reply(REQUEST_NORMALIZE, code, data)
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import attrs

from cpa.abi import wire, wire_host

Q = TypeVar("Q")
R = TypeVar("R")

DEFAULT_TIMEOUT_S: Final = 30.0
"""Hard deadline of a plugin call unless configured: far above what any method but an execution needs."""


PAGE_TIMEOUT_S: Final = 600.0
"""The same for pages and management routes, which may run whole model calls; anybody may ask for a page."""


class Direction(StrEnum):
    """Who calls."""

    PLUGIN_CALL = "host_to_plugin"
    HOST_CALL = "plugin_to_host"


class Policy(StrEnum):
    """How several plugins share one occasion to call. The first three are those of the pipeline, by the same values."""

    FOLD = "fold"
    """each sees what the one before it left"""
    FIRST_RESULT = "first_result"
    """asked in order until one answers"""
    BROADCAST = "broadcast"
    """all are told, nobody answers"""
    ADDRESSED = "addressed"
    """meant for one plugin: asked of each for itself, or of the one that owns a key"""


class TimeoutClass(StrEnum):
    """Which hard deadline a call has when the configuration names none."""

    NONE = "none"
    SHORT = "short"
    LONG = "long"

    @property
    def seconds(self) -> float | None:
        """The deadline, or None for no limit."""
        return {TimeoutClass.SHORT: DEFAULT_TIMEOUT_S, TimeoutClass.LONG: PAGE_TIMEOUT_S}.get(self)


@attrs.frozen(kw_only=True)
class Method(Generic[Q, R]):
    """One row.

    Attributes:
      capability: switch that makes the host call it; empty for lifecycle methods and host calls.
      scoped: the call has a scope, whose id the request carries as ``host_callback_id``.
      streamed: the request carries a ``stream_id``.
      sent: False for the reserved name.
      complaint: what a host call's error text begins with when its request cannot be decoded (Appendix B).
      empty_request: whether no bytes at all are a request.
    """

    name: str
    direction: Direction
    request: type[Q]
    reply: type[R]
    capability: str = ""
    policy: Policy = Policy.ADDRESSED
    timeout: TimeoutClass = TimeoutClass.SHORT
    scoped: bool = False
    streamed: bool = False
    sent: bool = True
    complaint: str = ""
    empty_request: bool = False


_rows: list[Method[Any, Any]] = []


def _plugin(
    name: str,
    capability: str,
    request: type[Q],
    reply: type[R],
    *,
    policy: Policy = Policy.ADDRESSED,
    timeout: TimeoutClass = TimeoutClass.SHORT,
    scoped: bool = False,
    streamed: bool = False,
    sent: bool = True,
) -> Method[Q, R]:
    row = Method(
        name=name,
        direction=Direction.PLUGIN_CALL,
        request=request,
        reply=reply,
        capability=capability,
        policy=policy,
        timeout=timeout,
        scoped=scoped,
        streamed=streamed,
        sent=sent,
    )
    _rows.append(row)
    return row


def _host(name: str, request: type[Q], reply: type[R], complaint: str, *, empty_request: bool = False) -> Method[Q, R]:
    row = Method(
        name=name,
        direction=Direction.HOST_CALL,
        request=request,
        reply=reply,
        # Reads and executions wait for others; their scope ends them, not a clock.
        timeout=TimeoutClass.NONE,
        complaint=complaint,
        empty_request=empty_request,
    )
    _rows.append(row)
    return row


# --- host → plugin ---------------------------------------------------------------------------------------------------

PLUGIN_REGISTER = _plugin("plugin.register", "", wire.RegisterRequest, wire.RegisterReply)
PLUGIN_RECONFIGURE = _plugin("plugin.reconfigure", "", wire.RegisterRequest, wire.RegisterReply)
PLUGIN_SHUTDOWN = _plugin("plugin.shutdown", "", wire.Empty, wire.Empty, sent=False)

MODEL_REGISTER = _plugin("model.register", "model_registrar", wire.PluginRequest, wire.RegisteredModelsReply)
MODEL_STATIC = _plugin("model.static", "model_provider", wire.StaticModelsRequest, wire.ModelsReply)
MODEL_FOR_AUTH = _plugin(
    "model.for_auth",
    "model_provider",
    wire.AuthModelsRequest,
    wire.ModelsReply,
    policy=Policy.FIRST_RESULT,
    scoped=True,
)

AUTH_IDENTIFIER = _plugin("auth.identifier", "auth_provider", wire.Empty, wire.IdentifierReply)
AUTH_PARSE = _plugin(
    "auth.parse", "auth_provider", wire.AuthParseRequest, wire.AuthParseReply, policy=Policy.FIRST_RESULT
)
AUTH_LOGIN_START = _plugin(
    "auth.login.start", "auth_provider", wire.LoginStartRequest, wire.LoginStartReply, scoped=True
)
AUTH_LOGIN_POLL = _plugin("auth.login.poll", "auth_provider", wire.LoginPollRequest, wire.LoginPollReply, scoped=True)
AUTH_REFRESH = _plugin("auth.refresh", "auth_provider", wire.RefreshRequest, wire.RefreshReply, scoped=True)

FRONTEND_AUTH_IDENTIFIER = _plugin(
    "frontend_auth.identifier", "frontend_auth_provider", wire.Empty, wire.IdentifierReply
)
FRONTEND_AUTH_AUTHENTICATE = _plugin(
    "frontend_auth.authenticate",
    "frontend_auth_provider",
    wire.FrontendAuthRequest,
    wire.FrontendAuthReply,
    policy=Policy.FIRST_RESULT,
)
SCHEDULER_PICK = _plugin("scheduler.pick", "scheduler", wire.PickRequest, wire.PickReply, policy=Policy.FIRST_RESULT)
MODEL_ROUTE = _plugin(
    "model.route", "model_router", wire.RouteRequest, wire.RouteReply, policy=Policy.FIRST_RESULT, scoped=True
)

EXECUTOR_IDENTIFIER = _plugin("executor.identifier", "executor", wire.Empty, wire.IdentifierReply)
EXECUTOR_EXECUTE = _plugin(
    "executor.execute",
    "executor",
    wire.ExecuteRequest,
    wire.ExecuteReply,
    timeout=TimeoutClass.NONE,
    scoped=True,
)
EXECUTOR_EXECUTE_STREAM = _plugin(
    "executor.execute_stream",
    "executor",
    wire.ExecuteRequest,
    wire.ExecuteStreamReply,
    timeout=TimeoutClass.NONE,
    scoped=True,
    streamed=True,
)
EXECUTOR_COUNT_TOKENS = _plugin(
    "executor.count_tokens",
    "executor",
    wire.ExecuteRequest,
    wire.ExecuteReply,
    timeout=TimeoutClass.NONE,
    scoped=True,
)
EXECUTOR_HTTP_REQUEST = _plugin(
    "executor.http_request",
    "executor",
    wire.ExecutorHttpRequest,
    wire.HttpReply,
    timeout=TimeoutClass.NONE,
    scoped=True,
)

REQUEST_TRANSLATE = _plugin(
    "request.translate",
    "request_translator",
    wire.RequestTransformRequest,
    wire.BodyReply,
    policy=Policy.FIRST_RESULT,
)
REQUEST_NORMALIZE = _plugin(
    "request.normalize", "request_normalizer", wire.RequestTransformRequest, wire.BodyReply, policy=Policy.FOLD
)
RESPONSE_NORMALIZE_BEFORE = _plugin(
    "response.normalize_before",
    "response_before_translator",
    wire.ResponseTransformRequest,
    wire.BodyReply,
    policy=Policy.FOLD,
)
RESPONSE_TRANSLATE = _plugin(
    "response.translate",
    "response_translator",
    wire.ResponseTransformRequest,
    wire.BodyReply,
    policy=Policy.FIRST_RESULT,
)
RESPONSE_NORMALIZE_AFTER = _plugin(
    "response.normalize_after",
    "response_after_translator",
    wire.ResponseTransformRequest,
    wire.BodyReply,
    policy=Policy.FOLD,
)

REQUEST_INTERCEPT_BEFORE = _plugin(
    "request.intercept_before",
    "request_interceptor",
    wire.InterceptRequest,
    wire.InterceptReply,
    policy=Policy.FOLD,
    scoped=True,
)
REQUEST_INTERCEPT_AFTER = _plugin(
    "request.intercept_after",
    "request_interceptor",
    wire.InterceptRequest,
    wire.InterceptReply,
    policy=Policy.FOLD,
    scoped=True,
)
REQUEST_COMPLETE = _plugin(
    "request.complete",
    "request_lifecycle_plugin",
    wire.CompletionRequest,
    wire.Empty,
    policy=Policy.BROADCAST,
    scoped=True,
)
RESPONSE_INTERCEPT_AFTER = _plugin(
    "response.intercept_after",
    "response_interceptor",
    wire.InterceptResponseRequest,
    wire.InterceptResponseReply,
    policy=Policy.FOLD,
    scoped=True,
)
RESPONSE_INTERCEPT_STREAM_CHUNK = _plugin(
    "response.intercept_stream_chunk",
    "response_stream_interceptor",
    wire.InterceptChunkRequest,
    wire.InterceptChunkReply,
    policy=Policy.FOLD,
    scoped=True,
)

THINKING_IDENTIFIER = _plugin("thinking.identifier", "thinking_applier", wire.Empty, wire.IdentifierReply)
THINKING_APPLY = _plugin(
    "thinking.apply",
    "thinking_applier",
    wire.ThinkingRequest,
    wire.BodyReply,
    policy=Policy.FIRST_RESULT,
    scoped=True,
)
USAGE_HANDLE = _plugin("usage.handle", "usage_plugin", wire.UsageRequest, wire.Empty, policy=Policy.BROADCAST)

COMMAND_LINE_REGISTER = _plugin("command_line.register", "command_line_plugin", wire.PluginRequest, wire.FlagsReply)
COMMAND_LINE_EXECUTE = _plugin(
    "command_line.execute", "command_line_plugin", wire.CommandLineRequest, wire.CommandLineReply
)
MANAGEMENT_REGISTER = _plugin(
    "management.register", "management_api", wire.ManagementRegisterRequest, wire.ManagementRegisterReply
)
MANAGEMENT_HANDLE = _plugin(
    "management.handle",
    "management_api",
    wire.ManagementRequest,
    wire.HttpReply,
    timeout=TimeoutClass.LONG,
    scoped=True,
)

# --- plugin → host ---------------------------------------------------------------------------------------------------

HOST_HTTP_DO = _host("host.http.do", wire_host.HostHttpRequest, wire_host.HostHttpReply, "decode host http request")
HOST_HTTP_DO_STREAM = _host(
    "host.http.do_stream", wire_host.HostHttpRequest, wire_host.HostHttpStreamReply, "decode host http request"
)
HOST_HTTP_STREAM_READ = _host(
    "host.http.stream_read",
    wire_host.StreamRef,
    wire_host.HttpStreamReadReply,
    "decode host http stream read request",
)
HOST_HTTP_STREAM_CLOSE = _host(
    "host.http.stream_close", wire_host.StreamRef, wire.Empty, "decode host http stream close request"
)
HOST_MODEL_EXECUTE = _host(
    "host.model.execute",
    wire_host.HostModelRequest,
    wire_host.HostModelReply,
    "decode host model execution request",
)
HOST_MODEL_EXECUTE_STREAM = _host(
    "host.model.execute_stream",
    wire_host.HostModelRequest,
    wire_host.HostModelStreamReply,
    "decode host model execution stream request",
)
HOST_MODEL_STREAM_READ = _host(
    "host.model.stream_read",
    wire_host.StreamRef,
    wire_host.ModelStreamReadReply,
    "decode host model execution stream request",
)
HOST_MODEL_STREAM_CLOSE = _host(
    "host.model.stream_close", wire_host.StreamRef, wire.Empty, "decode host model execution stream request"
)
HOST_AUTH_LIST = _host(
    "host.auth.list", wire.Empty, wire_host.AuthListReply, "decode host auth list request", empty_request=True
)
HOST_AUTH_GET = _host(
    "host.auth.get", wire_host.AuthIndexRequest, wire_host.AuthGetReply, "decode host auth get request"
)
HOST_AUTH_GET_RUNTIME = _host(
    "host.auth.get_runtime",
    wire_host.AuthIndexRequest,
    wire_host.AuthRuntimeReply,
    "decode host auth get runtime request",
)
HOST_AUTH_SAVE = _host(
    "host.auth.save", wire_host.AuthSaveRequest, wire_host.AuthSaveReply, "decode host auth save request"
)
HOST_STREAM_EMIT = _host("host.stream.emit", wire_host.StreamEmitRequest, wire.Empty, "decode stream emit request")
HOST_STREAM_CLOSE = _host("host.stream.close", wire_host.StreamCloseRequest, wire.Empty, "decode stream close request")
HOST_LOG = _host("host.log", wire_host.LogRequest, wire.Empty, "decode host log request")

METHODS: Final[Mapping[str, Method[Any, Any]]] = MappingProxyType({row.name: row for row in _rows})
"""All rows by wire name."""
PLUGIN_METHODS: Final = tuple(row for row in _rows if row.direction is Direction.PLUGIN_CALL)
"""The 37 that the host calls."""
HOST_METHODS: Final[Mapping[str, Method[Any, Any]]] = MappingProxyType(
    {row.name: row for row in _rows if row.direction is Direction.HOST_CALL}
)
"""The 15 that plugins call."""


def methods_of(capability: str) -> tuple[Method[Any, Any], ...]:
    """What the host may call on a plugin that declares *capability*."""
    return tuple(row for row in PLUGIN_METHODS if row.capability == capability)
