"""The 15 host calls (plugin-abi chapter 5): one entry for all plugins, bytes in, an envelope out.

Theory of operation. A transport runs `HostServices.handle` as a task per host call. Decoding and encoding follow the
methods table; what happens is in `services_http`, `services_model`, `services_auth`, `streams` and below. Whatever goes
wrong becomes an error envelope here, in one place; only cancellation leaves it, and then the transport answers.

Calls in progress are bounded per plugin, and what is too much is refused, never queued: a host call may have to wait
for another one of the same plugin (nested executions, emits that wait for a reader), so a queue could deadlock.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import attrs
import trio

from cpa.abi import methods
from cpa.abi.envelope import (
    HostCallError,
    decode_host_request,
    encode_host_error,
    encode_host_reply,
    find_host_method,
)
from cpa.abi.methods import Method
from cpa.abi.wire import Empty
from cpa.abi.wire_host import LogRequest, StreamCloseRequest, StreamEmitRequest
from cpa.config.schema import Config
from cpa.errors import CpaError
from cpa.host.accounts import Accounts
from cpa.host.scopes import Caller, ScopeRegistry, open_scopes
from cpa.host.services_auth import AuthService
from cpa.host.services_http import HttpService
from cpa.host.services_model import ModelService, error_text
from cpa.host.streams import ExecutorStreams, ReadStreams
from cpa.observability.log import get_logger
from cpa.observability.log import request_id as log_trace_id
from cpa.pipeline.runner import Services
from cpa.types import JsonObject, PluginId
from cpa.upstream.client import UpstreamClients

log = get_logger()

MAX_HOST_CALLS: Final = 2048
"""Host calls of one plugin that may wait at once. Each holds a thread of the plugin, so more are a fault of its own."""
MAX_LOG_CHARS: Final = 8 << 10
"""Of a plugin's log message; the log itself bounds its fields."""
MAX_LOG_FIELDS: Final = 32

Waiting: TypeAlias = Callable[[Caller, Any], Awaitable[Any]]
Immediate: TypeAlias = Callable[[Caller, Any], Any]


@attrs.define(kw_only=True, eq=False)
class HostServices:
    """What plugins may ask of the host; made by `open_host_services`.

    Attributes:
      scopes: shared with the adapters, which open one per plugin call.
      executor_streams: likewise; one per ``executor.execute_stream``.
      http_streams, model_streams: what plugins read at present.
    """

    scopes: ScopeRegistry
    executor_streams: ExecutorStreams
    http_streams: ReadStreams
    model_streams: ReadStreams
    _http: HttpService
    _model: ModelService
    _auth: AuthService
    _running: Counter[PluginId] = attrs.field(factory=Counter, init=False)
    _waiting: Mapping[str, Waiting] = attrs.field(init=False)
    _immediate: Mapping[str, Immediate] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._waiting = {
            methods.HOST_HTTP_DO.name: self._http.do,
            methods.HOST_HTTP_DO_STREAM.name: self._http.do_stream,
            methods.HOST_HTTP_STREAM_READ.name: self._http.stream_read,
            methods.HOST_MODEL_EXECUTE.name: self._model.execute,
            methods.HOST_MODEL_EXECUTE_STREAM.name: self._model.execute_stream,
            methods.HOST_MODEL_STREAM_READ.name: self._model.stream_read,
            methods.HOST_AUTH_LIST.name: self._auth.list,
            methods.HOST_AUTH_GET.name: self._auth.get,
            methods.HOST_AUTH_GET_RUNTIME.name: self._auth.get_runtime,
            methods.HOST_AUTH_SAVE.name: self._auth.save,
            methods.HOST_STREAM_EMIT.name: self._emit,
        }
        self._immediate = {
            methods.HOST_HTTP_STREAM_CLOSE.name: self._http.stream_close,
            methods.HOST_MODEL_STREAM_CLOSE.name: self._model.stream_close,
            methods.HOST_STREAM_CLOSE.name: self._close,
            methods.HOST_LOG.name: self._log,
        }

    async def handle(self, plugin_id: PluginId, method: bytes, payload: bytes, *, generation: int = 0) -> bytes:
        """Answer one host call of *plugin_id*.

        Args:
          method, payload: as the plugin gave them; any bytes.
          generation: which loaded copy of the plugin calls; what it opens ends with `close_owner` of the same.

        Returns: an envelope, whatever happens. Cancellation: leaves nothing open.
        """
        try:
            row = find_host_method(method.decode("utf-8", "replace"))
            request = decode_host_request(row, payload)
            reply = await self._call(row, Caller(plugin_id=plugin_id, generation=generation), request)
            return encode_host_reply(row, reply)
        except CpaError as exc:
            return encode_host_error(error_text(exc), http_status=exc.http_status, retryable=exc.retryable)
        except Exception:  # the edge to plugins: a bug of ours costs this host call, not the proxy
            log.exception("host_call.crashed", plugin_id=plugin_id, method=method[:64].decode("utf-8", "replace"))
            return encode_host_error("internal error", http_status=500)

    async def _call(self, row: Method[Any, Any], caller: Caller, request: Any) -> Any:
        immediate = self._immediate.get(row.name)
        if immediate is not None:
            await trio.lowlevel.checkpoint()
            return immediate(caller, request)
        if self._running[caller.plugin_id] >= MAX_HOST_CALLS:
            error = HostCallError(f"more than {MAX_HOST_CALLS} host calls at once", http_status=503)
            error.retryable = True
            raise error
        self._running[caller.plugin_id] += 1
        try:
            return await self._waiting[row.name](caller, request)
        finally:
            self._running[caller.plugin_id] -= 1
            if not self._running[caller.plugin_id]:
                del self._running[caller.plugin_id]

    def attach(self, accounts: Accounts) -> None:
        """Let `host.auth.*` show and change these accounts."""
        self._auth.accounts = accounts

    def running(self, plugin_id: PluginId) -> int:
        """Host calls of that plugin which are waiting."""
        return self._running.get(plugin_id, 0)

    def close_owner(self, plugin_id: PluginId, *, generation: int = 0, reason: str = "") -> None:
        """A loaded copy of a plugin is gone: end what it has open. Never blocks.

        Streams without scope close, host calls without scope wake with an error, executor streams end with *reason*
        after what was emitted. Scopes belong to the plugin calls, which end on their own.
        """
        caller = Caller(plugin_id=plugin_id, generation=generation)
        self.scopes.end_background(caller)
        self.http_streams.close_owner(caller)
        self.model_streams.close_owner(caller)
        self.executor_streams.close_owner(caller, reason or f"plugin {plugin_id} has ended")

    async def _emit(self, caller: Caller, ask: StreamEmitRequest) -> Empty:
        """`host.stream.emit`."""
        if not ask.stream_id:
            raise HostCallError("stream id is required")
        if ask.error:
            await trio.lowlevel.checkpoint()
            self.executor_streams.fail(ask.stream_id, caller.plugin_id, ask.error)
        else:
            await self.executor_streams.emit(ask.stream_id, caller.plugin_id, ask.payload)
        return Empty()

    def _close(self, caller: Caller, ask: StreamCloseRequest) -> Empty:
        """`host.stream.close`."""
        self.executor_streams.close(ask.stream_id, caller.plugin_id, ask.error)
        return Empty()

    def _log(self, caller: Caller, ask: LogRequest) -> Empty:
        """`host.log`. The message is data, as are the fields: a plugin cannot pass for the host."""
        scope = self.scopes.find(ask.scope_id, caller.plugin_id)
        message = ask.message.strip()[:MAX_LOG_CHARS] or "plugin log"
        fields: JsonObject = {name: value for name, value in ask.fields.items() if name.strip()}
        if len(fields) > MAX_LOG_FIELDS:
            fields = dict(list(fields.items())[:MAX_LOG_FIELDS])
        extra: dict[str, object] = {"fields": fields} if fields else {}
        token = log_trace_id.set(scope.context.trace_id) if scope is not None else None
        try:
            match ask.level.strip().lower():
                case "info":
                    log.info("plugin.log", plugin_id=caller.plugin_id, message=message, **extra)
                case "warn" | "warning":
                    log.warning("plugin.log", plugin_id=caller.plugin_id, message=message, **extra)
                case "error":
                    log.error("plugin.log", plugin_id=caller.plugin_id, message=message, **extra)
                case _:
                    log.debug("plugin.log", plugin_id=caller.plugin_id, message=message, **extra)
        finally:
            if token is not None:
                log_trace_id.reset(token)
        return Empty()


@asynccontextmanager
async def open_host_services(
    *,
    clients: UpstreamClients,
    config: Callable[[], Config],
    current: Callable[[], Services | None],
) -> AsyncIterator[HostServices]:
    """The host calls of all plugins while the block runs.

    Args:
      config: the configuration in force: proxy, limits and auth-dir of each call.
      current: the pipeline's snapshot in force; None while there is none.

    Ownership: streams without scope are tasks in here and end with the block; end the plugins before.
    """
    async with open_scopes() as registry, trio.open_nursery() as nursery:
        http_streams = ReadStreams(nursery, kind="http stream")
        model_streams = ReadStreams(nursery, kind="model stream")
        services = HostServices(
            scopes=registry,
            executor_streams=ExecutorStreams(),
            http_streams=http_streams,
            model_streams=model_streams,
            http=HttpService(clients=clients, config=config, scopes=registry, streams=http_streams),
            model=ModelService(current=current, scopes=registry, streams=model_streams),
            auth=AuthService(lambda: config().auth_dir),
        )
        try:
            yield services
        finally:
            nursery.cancel_scope.cancel()
