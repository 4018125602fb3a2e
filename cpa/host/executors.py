"""Plugin executors (plugin-abi 4.7): a provider, or the target of a router, that a plugin plays.

Theory of operation. `open` stays in the call's scope and holds the copy of the plugin that took the call until the
answer was delivered: an asynchronous stream is fed by the plugin's own threads long after ``executor.execute_stream``
has returned, on that copy and no other. Leaving the block aborts the stream and closes the scope, whatever the plugin
does. A plugin that has ended fails its streams through `HostServices.close_owner`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from http import HTTPStatus
from itertools import takewhile
from typing import Final, TypeAlias

import attrs
import trio

from cpa.abi import methods
from cpa.abi.envelope import PluginCallError
from cpa.abi.errors import PluginClosed, PluginError
from cpa.abi.kinds import B64, NO_BYTES
from cpa.abi.wire import ExecuteRequest, ExecutorHttpRequest, HttpReply
from cpa.credentials.model import Credential
from cpa.errors import ExecutorError, RawHeaders, UnsupportedFormat, UpstreamStatusError
from cpa.formats import headers as http
from cpa.formats.json import is_json
from cpa.formats.names import ALIASES, Format, carries
from cpa.host.adapters import encoded, inbound
from cpa.host.generation import HeldPlugin
from cpa.host.plugin import LivePlugin, PluginUnavailable
from cpa.host.scopes import Caller, CallScope, ScopeRegistry
from cpa.host.streams import ExecutorStream, ExecutorStreamError, ExecutorStreams
from cpa.pipeline.rules import query_map
from cpa.types import Operation, UpstreamCall, Wire

Renewal: TypeAlias = Callable[[Credential], Awaitable[Credential | None]]
JSON_TYPE: Final = ((b"content-type", b"application/json"),)


def format_names(declared: tuple[str, ...]) -> tuple[str, ...]:
    """Formats as a plugin declares them, by their wire names: aliases resolved, blanks and repetitions gone."""
    names = (ALIASES.get(name.strip().lower(), name.strip()) for name in declared)
    return tuple(dict.fromkeys(name for name in names if name.lower() not in ("", "none")))


class PluginExecutor:
    """The executor of one plugin; see `cpa.types.Executor`.

    Args:
      provider: its provider key.
      translates: whether some plugin translates answers (plugin-abi 4.7.2).
      renew: gives a credential that was refused anew, or None when that is not possible.
    """

    def __init__(
        self,
        plugin: LivePlugin,
        *,
        provider: str,
        scopes: ScopeRegistry,
        streams: ExecutorStreams,
        translates: Callable[[], bool] = lambda: False,
        renew: Renewal | None = None,
    ) -> None:
        self._plugin = plugin
        self._provider = provider
        self._scopes = scopes
        self._streams = streams
        self._translates = translates
        self._renew = renew
        self._inputs = format_names(plugin.capabilities.executor_input_formats)
        self._outputs = format_names(plugin.capabilities.executor_output_formats)

    def wire(self, client: Format) -> Wire:
        """The formats of plugin-abi 4.7.2. Raises: UnsupportedFormat."""
        chosen = self._input(client)
        return Wire(input=chosen, output=self._output(client, chosen), native=False)

    def _input(self, client: Format) -> str:
        if not self._inputs:
            raise self._refusal("declares no input formats")
        if client in self._inputs:
            return client
        for name in self._inputs:
            if carries(client, name):
                return name
        raise self._refusal(f'does not support input format "{client}"')

    def _output(self, client: Format, chosen: str) -> str:
        if not self._outputs:
            raise self._refusal("declares no output formats")
        if client in self._outputs:
            return client
        preferred = (chosen, *self._outputs) if chosen in self._outputs else self._outputs
        translates = self._translates()
        for name in preferred:
            if translates or carries(client, name):
                return name
        raise self._refusal(f'does not support output format "{client}"')

    def _refusal(self, reason: str) -> UnsupportedFormat:
        return UnsupportedFormat(f"plugin executor {self._provider} {reason}")

    @asynccontextmanager
    async def open(self, call: UpstreamCall) -> AsyncIterator["PluginAnswer"]:
        """See `cpa.types.Executor`. Raises: ExecutorError; UpstreamStatusError when the plugin's error is JSON.

        A credential that is refused is renewed once (plugin-abi 4.3.4).
        """
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._attempt(call))
            except (ExecutorError, UpstreamStatusError) as exc:
                if exc.http_status != HTTPStatus.UNAUTHORIZED or self._renew is None or call.credential.anonymous:
                    raise
                fresh = await self._renew(call.credential)
                if fresh is None:
                    raise
                answer = await stack.enter_async_context(self._attempt(attrs.evolve(call, credential=fresh)))
            yield answer

    @asynccontextmanager
    async def _attempt(self, call: UpstreamCall) -> AsyncIterator["PluginAnswer"]:
        if call.log is not None:
            call.log.attempt(
                url=f"plugin:{self._plugin.id}", method="POST", headers=(), body=call.body, auth=call.credential.label
            )
        async with self._scopes.open(self._plugin.id, inbound(call.execution)) as scope:
            with ExitStack() as stack:
                try:
                    held = stack.enter_context(self._plugin.hold())
                except PluginUnavailable as exc:
                    raise self._unavailable(exc) from exc
                if call.stream and call.operation is Operation.GENERATE:
                    caller = Caller(plugin_id=self._plugin.id, generation=held.generation)
                    stream = stack.enter_context(self._streams.open(caller))
                    yield await self._start(call, held, scope, stream)
                else:
                    yield await self._execute(call, held, scope)

    async def _execute(self, call: UpstreamCall, held: HeldPlugin, scope: CallScope) -> "PluginAnswer":
        counting = call.operation is Operation.COUNT_TOKENS
        method = methods.EXECUTOR_COUNT_TOKENS if counting else methods.EXECUTOR_EXECUTE
        with self._mapped(call):
            reply = await held.call(method, request_of(call), scope_id=scope.id, unwind=scope.unwind)
        return PluginAnswer(call, http.to_raw(reply.headers), body=reply.payload)

    async def _start(
        self, call: UpstreamCall, held: HeldPlugin, scope: CallScope, stream: ExecutorStream
    ) -> "PluginAnswer":
        with self._mapped(call):
            reply = await held.call(
                methods.EXECUTOR_EXECUTE_STREAM,
                request_of(call),
                scope_id=scope.id,
                stream_id=stream.id,
                unwind=scope.unwind,
            )
        headers = http.to_raw(reply.headers)
        if not reply.chunks:
            return PluginAnswer(call, headers, stream=stream)
        # Inline: stream and scope are over (plugin-abi 4.7.4).
        stream.abort()
        scope.close()
        good = tuple(takewhile(lambda chunk: not chunk.err, reply.chunks))
        error = reply.chunks[len(good)].err if len(good) < len(reply.chunks) else ""
        return PluginAnswer(call, headers, chunks=tuple(chunk.payload for chunk in good if chunk.payload), error=error)

    @contextmanager
    def _mapped(self, call: UpstreamCall) -> Iterator[None]:
        """Failures of the plugin as those of a provider, so that another credential may be tried."""
        try:
            yield
        except PluginCallError as exc:
            message = exc.message.encode("utf-8", "replace")
            status = exc.http_status if exc.http_status >= HTTPStatus.BAD_REQUEST else HTTPStatus.INTERNAL_SERVER_ERROR
            if message.startswith(b"{") and is_json(message):
                raise UpstreamStatusError(
                    status=status, headers=JSON_TYPE, body=message, provider_format=call.wire.output
                ) from exc
            raise ExecutorError(exc.message, http_status=status) from exc
        except (PluginUnavailable, PluginClosed) as exc:
            raise self._unavailable(exc) from exc
        except PluginError as exc:
            raise ExecutorError(exc.message, http_status=exc.http_status) from exc

    def _unavailable(self, cause: PluginError) -> ExecutorError:
        return ExecutorError(
            f"plugin executor {self._provider} is unavailable: {cause.message}", http_status=cause.http_status
        )

    async def http_request(
        self, credential: Credential, *, method: str, url: str, headers: http.HeaderMap, body: bytes, call: UpstreamCall
    ) -> HttpReply:
        """`executor.http_request`: a raw request with *credential*, in the context of *call*. Raises: ExecutorError."""
        request = ExecutorHttpRequest(
            auth_id=credential.id,
            auth_provider=credential.provider,
            method=method,
            url=url,
            headers=headers,
            body=B64(body),
            storage_json=B64(credential.storage_json),
            metadata=credential.metadata,
            attributes=dict(credential.attributes),
        )
        async with self._scopes.open(self._plugin.id, inbound(call.execution)) as scope:
            with self._mapped(call):
                return await self._plugin.call(
                    methods.EXECUTOR_HTTP_REQUEST, request, scope_id=scope.id, unwind=scope.unwind
                )


def request_of(call: UpstreamCall) -> ExecuteRequest:
    """*call* as plugins read it; without a credential its members are empty."""
    credential = call.credential
    body = call.body[0] if len(call.body) == 1 else b"".join(call.body)
    return ExecuteRequest(
        auth_id=credential.id,
        auth_provider="" if credential.anonymous else credential.provider,
        model=call.model,
        format=call.wire.output,
        stream=call.stream,
        alt=call.alt,
        headers=http.to_map(call.client_headers),
        query=query_map(call.query),
        original_request=encoded(call.execution, call.original),
        source_format=call.wire.input,
        payload=encoded(call.execution, body),
        metadata=call.execution.metadata,
        storage_json=B64(credential.storage_json) if credential.storage_json else NO_BYTES,
        auth_metadata=credential.metadata,
        auth_attributes=dict(credential.attributes),
    )


@attrs.define(eq=False)
class PluginAnswer:
    """A plugin's answer; see `cpa.types.UpstreamAnswer`. Chunks are units of the output format (plugin-abi 6.16)."""

    _call: UpstreamCall
    headers: RawHeaders
    _body: bytes = attrs.field(default=b"", kw_only=True, repr=False)
    _chunks: tuple[bytes, ...] = attrs.field(default=(), kw_only=True, repr=False)
    _error: str = attrs.field(default="", kw_only=True)  # after the chunks
    _stream: ExecutorStream | None = attrs.field(default=None, kw_only=True)
    status: int = attrs.field(default=200, init=False)

    def __attrs_post_init__(self) -> None:
        if self._call.log is not None:
            self._call.log.attempt_response(self.status, self.headers)

    async def read(self) -> bytes:
        """The whole body."""
        await trio.lowlevel.checkpoint()
        if self._call.log is not None:
            self._call.log.attempt_body(self._body)
        return self._body

    def chunks(self) -> "PluginAnswer":
        """The chunks as they come. Raises: ExecutorStreamError where the plugin reports an error."""
        return self

    def __aiter__(self) -> "PluginAnswer":
        return self

    async def __anext__(self) -> bytes:
        if self._stream is not None:
            chunk = await anext(self._stream)
        else:
            await trio.lowlevel.checkpoint()
            if not self._chunks:
                error, self._error = self._error, ""
                if error:
                    raise ExecutorStreamError(error)
                raise StopAsyncIteration
            chunk, self._chunks = self._chunks[0], self._chunks[1:]
        if self._call.log is not None:
            self._call.log.attempt_body(chunk)
        return chunk

    async def drain(self) -> None:
        """Nothing follows the end."""
        await trio.lowlevel.checkpoint()
