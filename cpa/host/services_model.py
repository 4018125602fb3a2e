"""`host.model.*`: model executions that plugins start (plugin-abi 5.5).

A nested execution is an ordinary one: `open_answer` with the calling plugin at the end of the chain of callers, whose
router, interceptors and completion events it does not meet. What the plugin leaves out comes from its scope's request.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlencode

import attrs
import trio

from cpa.abi.envelope import HostCallError
from cpa.abi.wire import Empty
from cpa.abi.wire_host import (
    HostModelReply,
    HostModelRequest,
    HostModelStreamReply,
    ModelStreamReadReply,
    StreamRef,
)
from cpa.errors import CpaError, Rejected, UpstreamStatusError
from cpa.formats.headers import HeaderMap, to_map, to_raw
from cpa.formats.json import JsonError, encode
from cpa.formats.names import ALIASES, Format
from cpa.formats.paths import Document, compile_path
from cpa.formats.units import to_units
from cpa.host.scopes import Caller, InboundContext, ScopeRegistry
from cpa.host.streams import Opened, ReadStreams
from cpa.pipeline.answer import AnswerStream
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.runner import Services, open_answer
from cpa.types import NESTED_CALLS, Operation

NESTED_SOURCE: Final = "plugin_host_model_callback"
"""``source`` in the metadata of nested executions (plugin-abi 6.11)."""
OK: Final = 200
MODEL: Final = compile_path("model")
STREAM: Final = compile_path("stream")

_NAMES: Final = {**ALIASES, **{fmt.value: fmt for fmt in Format}}


@attrs.frozen(kw_only=True, eq=False)
class ModelService:
    """Answers `host.model.*`. *current* gives the snapshot in force, None before there is one."""

    current: Callable[[], Services | None]
    scopes: ScopeRegistry
    streams: ReadStreams

    async def execute(self, caller: Caller, ask: HostModelRequest) -> HostModelReply:
        """`host.model.execute`. Raises: HostCallError; CpaError of the execution, see `error_text`."""
        if ask.stream:
            raise HostCallError("host.model.execute requires stream=false")
        services = self._services()
        scope = self.scopes.find(ask.scope_id, caller.plugin_id)
        with self.scopes.working(caller, scope) as context:
            async with open_answer(nested(ask, caller, context), services) as answer:
                return HostModelReply(status_code=OK, headers=to_map(answer.headers) or None, body=answer.body)

    async def execute_stream(self, caller: Caller, ask: HostModelRequest) -> HostModelStreamReply:
        """`host.model.execute_stream`: returns with the first frames in hand, or their error.

        Raises: as `execute`; HostCallError for a scope that has ended, whose stream nobody would close.
        """
        if not ask.stream:
            raise HostCallError("host.model.execute_stream requires stream=true")
        services = self._services()
        scope = self.scopes.find(ask.scope_id, caller.plugin_id)
        if scope is None and ask.scope_id:
            raise HostCallError("host_callback_id is unknown or has expired", http_status=410)
        with self.scopes.working(caller, scope) as context:
            request = nested(ask, caller, context)
            stream_id, headers = await self.streams.open(caller, scope, lambda: opened(request, services))
        return HostModelStreamReply(status_code=OK, headers=headers, stream_id=stream_id)

    async def stream_read(self, caller: Caller, ask: StreamRef) -> ModelStreamReadReply:
        """`host.model.stream_read`. Raises: ScopeEnded; HostCallError for no id or another plugin's stream."""
        if not ask.stream_id:
            raise HostCallError("model stream id is required")
        try:
            unit = await self.streams.read(ask.stream_id, caller.plugin_id)
        except KeyError:
            return ModelStreamReadReply(done=True)
        except HostCallError:
            raise
        except CpaError as exc:
            return ModelStreamReadReply(error=error_text(exc), done=True)
        return ModelStreamReadReply(done=True) if unit is None else ModelStreamReadReply(payload=unit)

    def stream_close(self, caller: Caller, ask: StreamRef) -> Empty:
        """`host.model.stream_close`. Raises: HostCallError for another plugin's stream."""
        self.streams.close(ask.stream_id, caller.plugin_id)
        return Empty()

    def _services(self) -> Services:
        services = self.current()
        if services is None:
            raise HostCallError("host model executor is unavailable", http_status=503)
        return services


@asynccontextmanager
async def opened(request: ModelRequest, services: Services) -> AsyncIterator[Opened[HeaderMap | None]]:
    """A streaming execution as a source of units (plugin-abi 6.16)."""
    async with open_answer(request, services) as answer:
        assert answer.stream is not None, "asked for a stream"
        yield Opened(to_map(answer.headers) or None, Units(answer.format, answer.stream))


class Units:
    """The units of a stream of frames, one by one."""

    def __init__(self, fmt: Format, frames: AnswerStream) -> None:
        self._format = fmt
        self._frames = frames
        self._units: Iterator[bytes] = iter(())

    def __aiter__(self) -> "Units":
        return self

    async def __anext__(self) -> bytes:
        while True:
            for unit in self._units:
                await trio.lowlevel.checkpoint()
                return unit
            self._units = iter(to_units(self._format, await self._frames.__anext__()))


def nested(ask: HostModelRequest, caller: Caller, context: InboundContext) -> ModelRequest:
    """The execution that a plugin asks for. Raises: HostCallError."""
    entry = parse_format(ask.entry_protocol, "entry_protocol")
    leaving = parse_format(ask.exit_protocol, "exit_protocol") if ask.exit_protocol.strip() else entry
    if context.execution is not None:  # not for what is refused: whoever is accounted for elsewhere has run
        context.execution.memory[NESTED_CALLS] = True
    return ModelRequest(
        format=entry,
        operation=Operation.GENERATE,
        model=ask.model,
        stream=ask.stream,
        body=agreeing(ask.body, entry, ask),
        headers=to_raw(ask.headers or context.headers),
        query=urlencode(ask.query or context.query, doseq=True).encode("ascii"),
        path=context.path,
        alt=ask.alt,
        principal=context.principal,
        peer="" if context.execution is None else context.execution.peer,
        trace_id=context.trace_id,
        callers=(*context.callers, caller.plugin_id),
        exit_format=leaving,
        extra_metadata={"source": NESTED_SOURCE},
    )


def agreeing(body: bytes, entry: Format, ask: HostModelRequest) -> bytes:
    """*body* with the model and the mode that the call names beside it: providers read the body only."""
    if entry is Format.GEMINI:
        return body
    try:
        document = Document(body)
    except JsonError:
        return body  # whoever it is for will say so
    model = encode(ask.model)
    if document.get(MODEL) != model:
        document.set(MODEL, model)
    if (document.get(STREAM) == b"true") is not ask.stream:
        document.set(STREAM, encode(ask.stream))
    return document.dump()


def parse_format(name: str, member: str) -> Format:
    """The protocol of that name or alias. Raises: HostCallError naming the *member* that has it."""
    fmt = _NAMES.get(name.strip().lower())
    if fmt is None:
        known = ", ".join(Format)
        raise HostCallError(f"unknown {member} {name[:64]!r}: expected one of {known}")
    return Format.OPENAI_RESPONSE if fmt is Format.CODEX else fmt  # clients speak its parent


def error_text(exc: CpaError) -> str:
    """What a plugin reads of a failure: a provider's or interceptor's own body where there is one."""
    body = exc.body if isinstance(exc, UpstreamStatusError | Rejected) else exc.message.encode("utf-8", "replace")
    text = body.decode("utf-8", "replace").strip()
    return text or f"model execution failed with status {exc.http_status}"
