"""What a stage is: its kinds, what it is called with, what it may answer.

A stage is an async callable. It takes one frozen call value and returns a result or None for "nothing to say". A native
plugin reaches the pipeline only in this shape; the tests use plain Python functions. Names of kinds are the wire names
of the plugin contract, whose chapters 4 and 6 fix what each call holds and in which order the kinds run.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from cpa.config.schema import OnError as OnError
from cpa.formats.headers import HeaderMap
from cpa.formats.thinking import Thinking
from cpa.types import Execution, PluginId


class StageKind(StrEnum):
    """Every point of the request path that a plugin can fill, in the order of that path."""

    FRONTEND_AUTH = "frontend_auth.authenticate"
    MODEL_ROUTE = "model.route"
    INTERCEPT_BEFORE = "request.intercept_before"
    SCHEDULER_PICK = "scheduler.pick"
    INTERCEPT_AFTER = "request.intercept_after"
    REQUEST_NORMALIZE = "request.normalize"
    REQUEST_TRANSLATE = "request.translate"
    THINKING_APPLY = "thinking.apply"
    RESPONSE_NORMALIZE_BEFORE = "response.normalize_before"
    RESPONSE_TRANSLATE = "response.translate"
    RESPONSE_NORMALIZE_AFTER = "response.normalize_after"
    INTERCEPT_RESPONSE = "response.intercept_after"
    INTERCEPT_CHUNK = "response.intercept_stream_chunk"
    REQUEST_COMPLETE = "request.complete"
    USAGE_HANDLE = "usage.handle"


class Policy(StrEnum):
    """How the stages of one kind share a call."""

    FOLD = "fold"
    """each sees what the one before it left"""
    FIRST_RESULT = "first_result"
    """asked in order until one answers"""
    BROADCAST = "broadcast"
    """all are told, nobody answers"""


POLICIES: Mapping[StageKind, Policy] = {
    StageKind.FRONTEND_AUTH: Policy.FIRST_RESULT,
    StageKind.MODEL_ROUTE: Policy.FIRST_RESULT,
    StageKind.INTERCEPT_BEFORE: Policy.FOLD,
    StageKind.SCHEDULER_PICK: Policy.FIRST_RESULT,
    StageKind.INTERCEPT_AFTER: Policy.FOLD,
    StageKind.REQUEST_NORMALIZE: Policy.FOLD,
    StageKind.REQUEST_TRANSLATE: Policy.FIRST_RESULT,
    StageKind.THINKING_APPLY: Policy.FIRST_RESULT,
    StageKind.RESPONSE_NORMALIZE_BEFORE: Policy.FOLD,
    StageKind.RESPONSE_TRANSLATE: Policy.FIRST_RESULT,
    StageKind.RESPONSE_NORMALIZE_AFTER: Policy.FOLD,
    StageKind.INTERCEPT_RESPONSE: Policy.FOLD,
    StageKind.INTERCEPT_CHUNK: Policy.FOLD,
    StageKind.REQUEST_COMPLETE: Policy.BROADCAST,
    StageKind.USAGE_HANDLE: Policy.BROADCAST,
}

SKIPPED_FOR_CALLERS = frozenset(
    {
        StageKind.MODEL_ROUTE,
        StageKind.INTERCEPT_BEFORE,
        StageKind.INTERCEPT_AFTER,
        StageKind.INTERCEPT_RESPONSE,
        StageKind.INTERCEPT_CHUNK,
        StageKind.REQUEST_COMPLETE,
    }
)
"""Kinds in which a plugin does not meet the executions that it started itself (plugin-abi 6.14)."""


Stage = Callable[[Any], Awaitable[Any]]
"""``async (call) -> result | None``; which classes, the kind says (`CALLS`)."""


@attrs.frozen(kw_only=True)
class Registration:
    """One stage of one owner.

    Attributes:
      priority: larger runs first; ties go by plugin id, bytewise ascending.
      provider: for kinds that one provider key owns (thinking); empty otherwise.
    """

    kind: StageKind
    plugin_id: PluginId
    stage: Stage
    priority: int = 0
    on_error: OnError = OnError.SKIP
    provider: str = ""


@attrs.frozen(kw_only=True)
class AuthCall:
    """`frontend_auth.authenticate`: may this client use the proxy? There is no execution yet."""

    method: str
    path: str
    headers: HeaderMap
    query: HeaderMap
    body: bytes


@attrs.frozen(kw_only=True)
class AuthResult:
    """An accepted client. *principal* stands for its key in records; *metadata* is attached to the request."""

    principal: str
    metadata: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class RouteCall:
    """`model.route`: before model and credential resolution."""

    execution: Execution
    source_format: str
    requested_model: str
    stream: bool
    headers: HeaderMap
    query: HeaderMap
    body: bytes
    available_providers: tuple[str, ...]


class TargetKind(StrEnum):
    """What a router may choose."""

    SELF = "self"
    EXECUTOR = "executor"
    PROVIDER = "provider"


@attrs.frozen(kw_only=True)
class RouteResult:
    """A handled answer of `model.route`. For `PROVIDER`, *model* replaces the requested one unless blank."""

    target_kind: TargetKind
    target: str = ""
    model: str = ""
    reason: str = ""


@attrs.frozen(kw_only=True)
class PickCandidate:
    """A credential as a plugin scheduler may see it: nothing secret."""

    id: str
    provider: str
    priority: int
    attributes: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class PickCall:
    """`scheduler.pick`: one credential for one attempt. Candidates are of the highest priority tier and untried."""

    execution: Execution
    providers: tuple[str, ...]
    model: str
    stream: bool
    headers: HeaderMap
    candidates: tuple[PickCandidate, ...]


@attrs.frozen(kw_only=True)
class PickResult:
    """A handled answer of `scheduler.pick`: a candidate's id, or else the name of a built-in strategy."""

    credential_id: str = ""
    delegate: str = ""


@attrs.frozen(kw_only=True)
class InterceptRequestCall:
    """`request.intercept_before` (``to_format`` empty) and `request.intercept_after`."""

    execution: Execution
    source_format: str
    to_format: str
    model: str
    requested_model: str
    stream: bool
    headers: HeaderMap
    body: bytes


@attrs.frozen(kw_only=True)
class InterceptRequestResult:
    """Header changes, a new body (empty = unchanged), or the end of the exchange."""

    headers: HeaderMap = attrs.field(factory=dict)
    clear_headers: tuple[str, ...] = ()
    body: bytes = b""
    terminate: bool = False
    status_code: int = 0
    response_headers: HeaderMap = attrs.field(factory=dict)
    response_body: bytes = b""


@attrs.frozen(kw_only=True)
class TransformCall:
    """The five transforms: ``request.normalize|translate`` and ``response.normalize_*|translate``.

    *original_request* and *translated_request* are filled for responses only.
    """

    execution: Execution
    from_format: str
    to_format: str
    model: str
    stream: bool
    body: bytes
    original_request: bytes = b""
    translated_request: bytes = b""


@attrs.frozen(kw_only=True)
class ThinkingCall:
    """`thinking.apply`: write what the client asked for into *body*, in the provider's protocol. Answer: a new body, or
    none. *model* is the provider's name of it."""

    execution: Execution
    provider: str
    model: str
    thinking: Thinking
    body: bytes


@attrs.frozen(kw_only=True)
class InterceptResponseCall:
    """`response.intercept_after`: a successful, complete answer."""

    execution: Execution
    source_format: str
    model: str
    requested_model: str
    request_headers: HeaderMap
    response_headers: HeaderMap
    original_request: bytes
    request_body: bytes
    body: bytes


@attrs.frozen(kw_only=True)
class InterceptResponseResult:
    """Header changes and a new body (empty = unchanged). The status cannot be changed."""

    headers: HeaderMap = attrs.field(factory=dict)
    clear_headers: tuple[str, ...] = ()
    body: bytes = b""


@attrs.frozen(kw_only=True)
class InterceptChunkCall:
    """`response.intercept_stream_chunk`: index -1 for the head (no body), then 0, 1, 2 … for every non-empty chunk.

    Attributes:
      history: chunks already delivered, oldest first, within the limits of `stream.History`.
    """

    execution: Execution
    source_format: str
    model: str
    requested_model: str
    request_headers: HeaderMap
    response_headers: HeaderMap
    original_request: bytes
    request_body: bytes
    body: bytes
    history: tuple[bytes, ...]
    chunk_index: int


@attrs.frozen(kw_only=True)
class InterceptChunkResult:
    """Header changes (heard until the head is sent), a new chunk (empty = unchanged), or its removal."""

    headers: HeaderMap = attrs.field(factory=dict)
    clear_headers: tuple[str, ...] = ()
    body: bytes = b""
    drop: bool = False


class Outcome(StrEnum):
    """How an execution ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"


@attrs.frozen(kw_only=True)
class CompletionCall:
    """`request.complete`: exactly once per execution that reached interception. *status_code* is 0 when cancelled."""

    execution: Execution
    source_format: str
    model: str
    requested_model: str
    stream: bool
    outcome: Outcome
    status_code: int
    error: str
    started_at: datetime
    completed_at: datetime
