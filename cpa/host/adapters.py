"""Plugins as stages: each declared capability of a live plugin becomes registrations of the pipeline.

Nothing but mapping: a call value of `cpa.pipeline.stage` to a message of the contract, the answer back. Calls that the
contract marks so carry the id of a scope, which lives exactly as long as the call. A failing call raises; the
pipeline decides what that means.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from cpa.abi import methods, wire
from cpa.abi.errors import PluginRequestTooLarge
from cpa.abi.kinds import B64, NO_BYTES, Blobs
from cpa.abi.methods import Method
from cpa.abi.transport import Unwind
from cpa.errors import RequestTooLarge, RequiredPluginDown
from cpa.formats import headers as http
from cpa.host.registration import Identifiers
from cpa.host.scopes import InboundContext, ScopeRegistry
from cpa.pipeline.rules import query_map
from cpa.pipeline.stage import (
    AuthCall,
    AuthResult,
    CompletionCall,
    InterceptChunkCall,
    InterceptChunkResult,
    InterceptRequestCall,
    InterceptRequestResult,
    InterceptResponseCall,
    InterceptResponseResult,
    OnError,
    PickCall,
    PickResult,
    Registration,
    RouteCall,
    RouteResult,
    StageKind,
    TargetKind,
    ThinkingCall,
    TransformCall,
)
from cpa.types import Execution, PluginId

Q = TypeVar("Q")
R = TypeVar("R")

NO_INFO: Final = wire.ModelInfo()
SCHEMA_WITHOUT_CHUNK_BODIES = 3
"""From this schema on, chunk calls (index 0 and up) carry no request bodies."""


class PluginClient(Protocol):
    """What adapters need of a live plugin; `manager.LivePlugin` is one."""

    @property
    def id(self) -> PluginId:
        """Its id."""
        ...

    @property
    def priority(self) -> int:
        """Larger runs first."""
        ...

    @property
    def metadata(self) -> wire.PluginMetadata:
        """As it registered."""
        ...

    @property
    def capabilities(self) -> wire.Capabilities:
        """As it registered."""
        ...

    @property
    def schema_version(self) -> int:
        """1 to 3."""
        ...

    @property
    def identifiers(self) -> Identifiers:
        """Its provider keys."""
        ...

    @property
    def on_error(self) -> OnError:
        """What it means for requests when it fails."""
        ...

    async def call(
        self,
        method: Method[Q, R],
        request: Q,
        /,
        *,
        scope_id: str = "",
        stream_id: str = "",
        unwind: Unwind | None = None,
    ) -> R:
        """Call it. Raises: CpaError."""
        ...


InfoOf: TypeAlias = Callable[[str, str], wire.ModelInfo | None]
"""``info(provider, model)``: what a plugin said of a model, None when nothing is known."""

NATIVE_THINKING: Final = frozenset(
    {"gemini", "claude", "openai", "codex", "antigravity", "kimi", "xai", "interactions"}
)
"""Provider keys whose thinking settings no plugin writes (plugin-abi 4.11)."""


def nothing_known(provider: str, model: str) -> None:
    """An `InfoOf` for when there are no accounts."""


def registrations(
    plugin: PluginClient, scopes: ScopeRegistry, info_of: InfoOf = nothing_known
) -> Iterator[Registration]:
    """The stages that *plugin* fills."""
    stages = PluginStages(plugin, scopes, info_of)
    key = plugin.identifiers.thinking.lower()
    if plugin.capabilities.thinking_applier and key and key not in NATIVE_THINKING:
        yield Registration(
            kind=StageKind.THINKING_APPLY,
            plugin_id=plugin.id,
            priority=plugin.priority,
            stage=stages.think,
            on_error=plugin.on_error,
            provider=key,
        )
    can = plugin.capabilities
    declared: tuple[tuple[bool, StageKind, Callable[[Any], Awaitable[Any]]], ...] = (
        (can.frontend_auth_provider, StageKind.FRONTEND_AUTH, stages.authenticate),
        (can.model_router, StageKind.MODEL_ROUTE, stages.route),
        (can.request_interceptor, StageKind.INTERCEPT_BEFORE, stages.intercept_before),
        (can.scheduler, StageKind.SCHEDULER_PICK, stages.pick),
        (can.request_interceptor, StageKind.INTERCEPT_AFTER, stages.intercept_after),
        (can.request_normalizer, StageKind.REQUEST_NORMALIZE, stages.request_transform(methods.REQUEST_NORMALIZE)),
        (can.request_translator, StageKind.REQUEST_TRANSLATE, stages.request_transform(methods.REQUEST_TRANSLATE)),
        (
            can.response_before_translator,
            StageKind.RESPONSE_NORMALIZE_BEFORE,
            stages.response_transform(methods.RESPONSE_NORMALIZE_BEFORE),
        ),
        (
            can.response_translator,
            StageKind.RESPONSE_TRANSLATE,
            stages.response_transform(methods.RESPONSE_TRANSLATE),
        ),
        (
            can.response_after_translator,
            StageKind.RESPONSE_NORMALIZE_AFTER,
            stages.response_transform(methods.RESPONSE_NORMALIZE_AFTER),
        ),
        (can.response_interceptor, StageKind.INTERCEPT_RESPONSE, stages.intercept_response),
        (can.response_stream_interceptor, StageKind.INTERCEPT_CHUNK, stages.intercept_chunk),
        (can.request_lifecycle_plugin, StageKind.REQUEST_COMPLETE, stages.complete),
    )
    for active, kind, stage in declared:
        if active:
            # A scheduler that fails denies the request (plugin-abi 4.5); every other stage is passed over, unless the
            # operator says otherwise. Who may use the proxy is decided by all providers of access together.
            strict = plugin.on_error is OnError.FAIL and kind is not StageKind.FRONTEND_AUTH
            on_error = OnError.FAIL if strict or kind is StageKind.SCHEDULER_PICK else OnError.SKIP
            yield Registration(kind=kind, plugin_id=plugin.id, priority=plugin.priority, stage=stage, on_error=on_error)


BEFORE_ALL: Final = 1 << 62
"""Priority above all that a configuration can give."""


def refusal(plugin_id: PluginId) -> Registration:
    """The stage that stands for a plugin which requests may not do without and which is not there: it ends them.

    What the plugin would do is unknown while it is not loaded, so every request is one that it might have wanted.
    """

    async def refuse(call: InterceptRequestCall) -> None:
        raise RequiredPluginDown(plugin_id)

    return Registration(
        kind=StageKind.INTERCEPT_BEFORE,
        plugin_id=plugin_id,
        stage=refuse,
        priority=BEFORE_ALL,
        on_error=OnError.FAIL,
    )


class PluginStages:
    """The stages of one plugin."""

    def __init__(self, plugin: PluginClient, scopes: ScopeRegistry, info_of: InfoOf) -> None:
        self._plugin = plugin
        self._scopes = scopes
        self._info_of = info_of

    async def _scoped(self, execution: Execution, method: Method[Q, R], request: Q) -> R:
        """Call *method* inside a scope of its own, whose id the plugin is told."""
        async with self._scopes.open(self._plugin.id, inbound(execution)) as scope:
            return await self._plugin.call(method, request, scope_id=scope.id, unwind=scope.unwind)

    async def authenticate(self, call: AuthCall) -> AuthResult | None:
        """`frontend_auth.authenticate`."""
        reply = await self._plugin.call(
            methods.FRONTEND_AUTH_AUTHENTICATE,
            wire.FrontendAuthRequest(
                method=call.method, path=call.path, headers=call.headers, query=call.query, body=B64(call.body)
            ),
        )
        return AuthResult(principal=reply.principal, metadata=reply.metadata) if reply.authenticated else None

    async def route(self, call: RouteCall) -> RouteResult | None:
        """`model.route`."""
        reply = await self._scoped(
            call.execution,
            methods.MODEL_ROUTE,
            wire.RouteRequest(
                plugin=self._plugin.metadata,
                plugin_id=self._plugin.id,
                source_format=call.source_format,
                requested_model=call.requested_model,
                stream=call.stream,
                headers=call.headers,
                query=call.query,
                body=encoded(call.execution, call.body),
                metadata=call.execution.metadata,
                available_providers=call.available_providers,
            ),
        )
        kind = reply.target_kind.strip().lower()
        if not reply.handled or kind not in set(TargetKind):
            return None
        target = reply.target.strip()
        return RouteResult(
            target_kind=TargetKind(kind),
            target=target.lower() if kind == TargetKind.PROVIDER else target,
            model=reply.model,
            reason=reply.reason,
        )

    async def pick(self, call: PickCall) -> PickResult | None:
        """`scheduler.pick`."""
        reply = await self._plugin.call(
            methods.SCHEDULER_PICK,
            wire.PickRequest(
                plugin=self._plugin.metadata,
                provider=call.providers[0] if len(call.providers) == 1 else "",
                providers=call.providers,
                model=call.model,
                stream=call.stream,
                options=wire.PickOptions(headers=call.headers, metadata=call.execution.metadata),
                candidates=tuple(
                    wire.PickCandidate(
                        id=candidate.id,
                        provider=candidate.provider,
                        priority=candidate.priority,
                        status="active",
                        attributes=dict(candidate.attributes),
                    )
                    for candidate in call.candidates
                ),
            ),
        )
        if not reply.handled:
            return None
        return PickResult(credential_id=reply.auth_id.strip(), delegate=reply.delegate.strip())

    async def intercept_before(self, call: InterceptRequestCall) -> InterceptRequestResult:
        """`request.intercept_before`. Raises: RequestTooLarge."""
        return await self._intercept(methods.REQUEST_INTERCEPT_BEFORE, call)

    async def intercept_after(self, call: InterceptRequestCall) -> InterceptRequestResult:
        """`request.intercept_after`. Raises: RequestTooLarge."""
        return await self._intercept(methods.REQUEST_INTERCEPT_AFTER, call)

    async def _intercept(
        self, method: Method[wire.InterceptRequest, wire.InterceptReply], call: InterceptRequestCall
    ) -> InterceptRequestResult:
        request = wire.InterceptRequest(
            request_id=call.execution.request_id,
            trace_id=call.execution.trace_id,
            source_format=call.source_format,
            to_format=call.to_format,
            model=call.model,
            requested_model=call.requested_model,
            stream=call.stream,
            headers=call.headers,
            body=encoded(call.execution, call.body),
            metadata=call.execution.metadata,
        )
        try:
            reply = await self._scoped(call.execution, method, request)
        except PluginRequestTooLarge as exc:  # a policy that cannot see the request has not agreed to it
            raise RequestTooLarge(f"request is too large for {method.name} of plugin {self._plugin.id}") from exc
        return InterceptRequestResult(
            headers=reply.headers,
            clear_headers=reply.clear_headers,
            body=reply.body,
            terminate=reply.terminate,
            status_code=reply.status_code,
            response_headers=reply.response_headers,
            response_body=reply.response_body,
        )

    def request_transform(
        self, method: Method[wire.RequestTransformRequest, wire.BodyReply]
    ) -> Callable[[TransformCall], Awaitable[bytes]]:
        """The stage of a request transform. No scope: it runs in a neutral context."""

        async def transform(call: TransformCall) -> bytes:
            request = wire.RequestTransformRequest(
                from_format=call.from_format,
                to_format=call.to_format,
                model=call.model,
                stream=call.stream,
                body=encoded(call.execution, call.body),
            )
            try:
                reply = await self._plugin.call(method, request)
            except PluginRequestTooLarge as exc:
                raise RequestTooLarge(f"request is too large for {method.name} of plugin {self._plugin.id}") from exc
            return reply.body

        return transform

    def response_transform(
        self, method: Method[wire.ResponseTransformRequest, wire.BodyReply]
    ) -> Callable[[TransformCall], Awaitable[bytes]]:
        """The stage of a response transform; the request's bodies are encoded once for all its calls."""

        async def transform(call: TransformCall) -> bytes:
            reply = await self._plugin.call(
                method,
                wire.ResponseTransformRequest(
                    from_format=call.from_format,
                    to_format=call.to_format,
                    model=call.model,
                    stream=call.stream,
                    original_request=encoded(call.execution, call.original_request),
                    translated_request=encoded(call.execution, call.translated_request),
                    # Lines between events are empty, and there; plugins in C and Rust refuse a body that is missing.
                    body=B64(call.body, present=True),
                ),
            )
            return reply.body

        return transform

    async def think(self, call: ThinkingCall) -> bytes:
        """`thinking.apply`."""
        thinking = call.thinking
        reply = await self._scoped(
            call.execution,
            methods.THINKING_APPLY,
            wire.ThinkingRequest(
                provider=call.provider,
                model=self._info_of(call.provider, call.model) or NO_INFO,
                config=wire.ThinkingConfig(mode=thinking.mode, budget=thinking.budget, level=thinking.level),
                body=B64(call.body),
            ),
        )
        return reply.body

    async def intercept_response(self, call: InterceptResponseCall) -> InterceptResponseResult:
        """`response.intercept_after`."""
        reply = await self._scoped(
            call.execution,
            methods.RESPONSE_INTERCEPT_AFTER,
            wire.InterceptResponseRequest(
                request_id=call.execution.request_id,
                source_format=call.source_format,
                model=call.model,
                requested_model=call.requested_model,
                stream=False,
                request_headers=call.request_headers,
                response_headers=call.response_headers,
                original_request=encoded(call.execution, call.original_request),
                request_body=encoded(call.execution, call.request_body),
                body=B64(call.body),
                status_code=200,
                metadata=call.execution.metadata,
            ),
        )
        return InterceptResponseResult(headers=reply.headers, clear_headers=reply.clear_headers, body=reply.body)

    async def intercept_chunk(self, call: InterceptChunkCall) -> InterceptChunkResult:
        """`response.intercept_stream_chunk`."""
        bare = call.chunk_index >= 0 and self._plugin.schema_version >= SCHEMA_WITHOUT_CHUNK_BODIES
        reply = await self._scoped(
            call.execution,
            methods.RESPONSE_INTERCEPT_STREAM_CHUNK,
            wire.InterceptChunkRequest(
                request_id=call.execution.request_id,
                source_format=call.source_format,
                model=call.model,
                requested_model=call.requested_model,
                request_headers=call.request_headers,
                response_headers=call.response_headers,
                original_request=NO_BYTES if bare else encoded(call.execution, call.original_request),
                request_body=NO_BYTES if bare else encoded(call.execution, call.request_body),
                body=B64(call.body),
                history=encoded_history(call.execution, call.history),
                chunk_index=call.chunk_index,
                metadata=call.execution.metadata,
            ),
        )
        return InterceptChunkResult(
            headers=reply.headers, clear_headers=reply.clear_headers, body=reply.body, drop=reply.drop
        )

    async def complete(self, call: CompletionCall) -> None:
        """`request.complete`."""
        await self._scoped(
            call.execution,
            methods.REQUEST_COMPLETE,
            wire.CompletionRequest(
                request_id=call.execution.request_id,
                trace_id=call.execution.trace_id,
                source_format=call.source_format,
                model=call.model,
                requested_model=call.requested_model,
                stream=call.stream,
                outcome=call.outcome,
                status_code=call.status_code,
                error=call.error,
                started_at=call.started_at,
                completed_at=call.completed_at,
                metadata=call.execution.metadata,
            ),
        )


def inbound(execution: Execution) -> InboundContext:
    """What host calls made for *execution* inherit; made once per execution."""
    known = execution.memory.get(InboundContext)
    if not isinstance(known, InboundContext):
        known = InboundContext(
            headers=http.to_map(execution.headers),
            query=query_map(execution.query),
            trace_id=execution.trace_id,
            request_id=execution.request_id,
            callers=execution.callers,
            path=execution.path,
            principal=execution.principal,
            execution=execution,
        )
        execution.memory[InboundContext] = known
    return known


def encoded_history(execution: Execution, history: tuple[bytes, ...]) -> Blobs:
    """*history* as plugins get it, made once per chunk however many plugins there are."""
    known = execution.memory.get(Blobs)
    if isinstance(known, tuple) and known[0] is history and isinstance(known[1], Blobs):
        return known[1]
    made = Blobs(encoded(execution, chunk) for chunk in history)
    execution.memory[Blobs] = (history, made)
    return made


MAX_ENCODED = 160
"""Bodies remembered per execution: two requests, what transforms made of them, and the history of chunks."""


def encoded(execution: Execution, body: bytes) -> B64:
    """*body* as base64, made once per execution and body object.

    The memory holds the body beside its encoded form, so that its id cannot come to mean another one.
    """
    if not body:
        return NO_BYTES
    known = execution.memory.get(id(body))
    if isinstance(known, B64):
        return known
    if len(execution.memory) >= MAX_ENCODED:
        oldest = next(key for key in execution.memory if isinstance(key, int))
        del execution.memory[oldest]
    made = B64(body)
    execution.memory[id(body)] = made
    return made
