"""Streams between plugins and the host: those that plugins read (model, HTTP) and those that they fill (executor).

Theory of operation. A stream that a plugin reads is a task (`ReadStream.run`) that holds the source's context open and
hands over one piece per read through a channel without buffer: a plugin that does not read stops the source. The task
lives in the nursery of the call scope named at opening, else in that of the host services. Closing cancels the task, so
that an execution ends as cancelled, and wakes readers at once, before the task has unwound.

A stream that a plugin fills is a queue without a task. Before the host begins to consume, it takes any number of chunks
within `MAX_QUEUED_BYTES`: a plugin that emits before it returns from ``executor.execute_stream`` must not wait for the
host, which waits for it.

All ids are unguessable and of one plugin; another plugin's use is an error.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs
import trio

from cpa.abi.envelope import HostCallError
from cpa.errors import CpaError, UpstreamError
from cpa.host.scopes import Caller, CallScope, ScopeEnded, new_id
from cpa.observability.log import get_logger
from cpa.types import PluginId

H = TypeVar("H")
log = get_logger()

QUEUED_CHUNKS: Final = 16
"""Chunks of an executor stream that wait for the client, once it is being served (plugin-abi appendix A)."""
MAX_QUEUED_BYTES: Final = 8 << 20
"""The same in bytes, at any time: many streams at once must fit in memory. One larger chunk alone always fits."""
MAX_READ_STREAMS: Final = 1024
"""Of one kind that one plugin may have open: each holds a connection to a provider."""
SHOWN_ID_CHARS: Final = 64
"""Of an unknown id in an error text: it is whatever the plugin wrote."""


class ExecutorStreamError(UpstreamError):
    """A plugin's executor reported an error in its stream. It has no status of its own (plugin-abi 5.7)."""

    http_status = 500
    code = "plugin_stream_error"


def foreign(kind: str) -> HostCallError:
    """For a stream id that is another plugin's."""
    return HostCallError(f"{kind} belongs to another plugin", http_status=403)


# --- streams that plugins read ---------------------------------------------------------------------------------------


@attrs.frozen
class Opened(Generic[H]):
    """What a source gives: its head, and its pieces, none of them empty."""

    head: H
    pieces: AsyncIterator[bytes]


Source: TypeAlias = Callable[[], AbstractAsyncContextManager[Opened[H]]]
"""Opens what is to be read. Raises: CpaError, also while pieces are read."""


@attrs.define(eq=False, kw_only=True)
class ReadStream:
    """One stream that a plugin reads; made by `ReadStreams.open`."""

    id: str
    caller: Caller
    scope: CallScope | None
    _channel: tuple[trio.MemorySendChannel[bytes], trio.MemoryReceiveChannel[bytes]] = attrs.field(
        factory=lambda: trio.open_memory_channel[bytes](0), init=False, repr=False
    )
    _task: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)
    _readers: set[trio.CancelScope] = attrs.field(factory=set, init=False, repr=False)
    _error: CpaError | None = attrs.field(default=None, init=False)
    _started: bool = attrs.field(default=False, init=False)

    async def run(self, source: Source[Any], *, task_status: trio.TaskStatus[Any]) -> None:
        """Feed readers until the source ends or the stream is closed. Raises: CpaError only before it has started."""
        send, _ = self._channel
        with send, self._task:
            try:
                async with source() as opened:
                    self._started = True
                    task_status.started(opened.head)
                    async for piece in opened.pieces:
                        await send.send(piece)
            except CpaError as exc:
                if not self._started:
                    raise
                self._error = exc
            except Exception:  # supervised: a bug behind one stream must not end the nursery of all
                if not self._started:
                    raise
                log.exception("stream.crashed", plugin_id=self.caller.plugin_id)
                self._error = CpaError("internal error")

    async def read(self) -> bytes | None:
        """The next piece, None at the end or when the stream is closed meanwhile.

        Raises: the source's CpaError, once; ScopeEnded when the stream's scope closes meanwhile.
        """
        with trio.CancelScope() as waiting:
            self._readers.add(waiting)
            try:
                return await self._channel[1].receive()
            except trio.EndOfChannel:
                pass
            finally:
                self._readers.discard(waiting)
        if waiting.cancelled_caught and self.scope is not None and self.scope.closed:
            raise ScopeEnded
        error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def close(self) -> None:
        """Cancel the source and wake readers. Idempotent; never blocks."""
        self._task.cancel()
        for waiting in self._readers:
            waiting.cancel()


class ReadStreams:
    """The open streams of one kind.

    Args:
      nursery: for streams without scope; its owner cancels it at the end.
      kind: ``http stream`` or ``model stream``, for error texts.
    """

    def __init__(self, nursery: trio.Nursery, *, kind: str) -> None:
        self._nursery = nursery
        self._streams: dict[str, ReadStream] = {}
        self._closers: dict[str, Callable[[], None]] = {}
        self.kind = kind

    def __len__(self) -> int:
        """Streams that can be read."""
        return len(self._streams)

    async def open(self, caller: Caller, scope: CallScope | None, source: Source[H]) -> tuple[str, H]:
        """Open *source* under *scope*, or for as long as *caller* lives. Returns: the stream's id and the head.

        Raises: the source's CpaError; ScopeEnded; HostCallError when the plugin has too many open.
        Cancellation: leaves nothing open.
        """
        if sum(stream.caller.plugin_id == caller.plugin_id for stream in self._streams.values()) >= MAX_READ_STREAMS:
            raise HostCallError(f"more than {MAX_READ_STREAMS} open {self.kind}s", http_status=503)
        if scope is not None and scope.closed:
            raise ScopeEnded
        stream = ReadStream(id=new_id(), caller=caller, scope=scope)
        nursery = self._nursery if scope is None else await scope.nursery()
        kept = False
        try:
            head: H = await nursery.start(stream.run, source, name=f"{self.kind}:{caller.plugin_id}")
            if scope is not None and scope.closed:
                raise ScopeEnded
            self._keep(stream)
            kept = True
        finally:
            if not kept:
                stream.close()
        return stream.id, head

    def _keep(self, stream: ReadStream) -> None:
        def closer() -> None:
            self._forget(stream)
            stream.close()

        self._streams[stream.id] = stream
        self._closers[stream.id] = closer
        if stream.scope is not None:
            stream.scope.on_close(closer)

    async def read(self, stream_id: str, plugin_id: PluginId) -> bytes | None:
        """The next piece, None at the end. After the end or an error the id is unknown.

        Raises: as `ReadStream.read`; KeyError for an unknown id; HostCallError for another plugin's.
        """
        stream = self._find(stream_id, plugin_id)
        if stream is None:
            raise KeyError(stream_id)
        piece: bytes | None = None
        try:
            piece = await stream.read()
        except CpaError:
            self._forget(stream)
            raise
        if piece is None:
            self._forget(stream)
        return piece

    def close(self, stream_id: str, plugin_id: PluginId) -> None:
        """Close a stream; unknown ids are ignored. Raises: HostCallError for another plugin's."""
        stream = self._find(stream_id, plugin_id)
        if stream is not None:
            self._forget(stream)
            stream.close()

    def close_owner(self, caller: Caller) -> None:
        """Close what *caller* has open without scope; scopes close theirs."""
        for stream in [s for s in self._streams.values() if s.caller == caller and s.scope is None]:
            self._forget(stream)
            stream.close()

    def _find(self, stream_id: str, plugin_id: PluginId) -> ReadStream | None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.caller.plugin_id != plugin_id:
            raise foreign(self.kind)
        return stream

    def _forget(self, stream: ReadStream) -> None:
        if self._streams.pop(stream.id, None) is not None:
            closer = self._closers.pop(stream.id)
            if stream.scope is not None:
                stream.scope.forget(closer)


# --- streams that plugins fill ---------------------------------------------------------------------------------------


def not_open(stream_id: str) -> HostCallError:
    """For an executor stream that takes nothing (more)."""
    return HostCallError(f"stream {stream_id[:SHOWN_ID_CHARS]} is not open", http_status=404)


@attrs.define(eq=False, kw_only=True)
class ExecutorStream:
    """Chunks of one asynchronous ``executor.execute_stream``, on their way from the plugin to one consumer.

    Iterate it once; it raises `ExecutorStreamError` where the plugin reported an error.
    """

    id: str
    caller: Caller
    _chunks: deque[bytes] = attrs.field(factory=deque, init=False, repr=False)
    _size_bytes: int = attrs.field(default=0, init=False)
    _consuming: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _error: str = attrs.field(default="", init=False)
    _emitters: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False, repr=False)
    _consumer: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False, repr=False)

    @property
    def closed(self) -> bool:
        """It takes no chunks any more; queued ones may be left."""
        return self._closed

    async def emit(self, payload: bytes) -> None:
        """Queue *payload*; waits while the queue is full. Empty ones are skipped.

        Raises: HostCallError when the stream is closed, before or meanwhile. Nothing is queued if cancelled.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise not_open(self.id)
            if not payload:
                return
            if self._has_room(len(payload)):
                break
            if not self._consuming:
                log.info("stream.early_chunks", plugin_id=self.caller.plugin_id, size_bytes=self._size_bytes)
            await self._emitters.park()
        self._chunks.append(payload)
        self._size_bytes += len(payload)
        self._consumer.unpark_all()

    def _has_room(self, size_bytes: int) -> bool:
        if not self._chunks:
            return True
        fits = self._size_bytes + size_bytes <= MAX_QUEUED_BYTES
        return fits and (not self._consuming or len(self._chunks) < QUEUED_CHUNKS)

    def close(self, error: str = "") -> None:
        """Take no more chunks; what is queued, and then *error*, is still delivered. Only the first call counts."""
        if self._closed:
            return
        self._closed = True
        self._error = error
        self._emitters.unpark_all()
        self._consumer.unpark_all()

    def abort(self) -> None:
        """Nobody wants it any more: drop what is queued, wake emitters with an error."""
        self.close()
        self._chunks.clear()
        self._size_bytes = 0
        self._error = ""

    def __aiter__(self) -> "ExecutorStream":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        self._consuming = True
        while not self._chunks:
            if self._closed:
                error, self._error = self._error, ""
                if error:
                    raise ExecutorStreamError(error)
                raise StopAsyncIteration
            await self._consumer.park()
        chunk = self._chunks.popleft()
        self._size_bytes -= len(chunk)
        self._emitters.unpark()
        return chunk


class ExecutorStreams:
    """The executor streams that are open."""

    def __init__(self) -> None:
        self._streams: dict[str, ExecutorStream] = {}

    def __len__(self) -> int:
        """Streams whose consumers have not left yet."""
        return len(self._streams)

    @contextmanager
    def open(self, caller: Caller) -> Iterator[ExecutorStream]:
        """A stream for one call of the plugin *caller* while the block runs; leaving it aborts the stream."""
        stream = ExecutorStream(id=new_id(), caller=caller)
        self._streams[stream.id] = stream
        try:
            yield stream
        finally:
            del self._streams[stream.id]
            stream.abort()

    async def emit(self, stream_id: str, plugin_id: PluginId, payload: bytes) -> None:
        """See `ExecutorStream.emit`; unknown ids are closed streams. Raises: HostCallError."""
        stream = self._find(stream_id, plugin_id)
        if stream is None:
            raise not_open(stream_id)
        await stream.emit(payload)

    def fail(self, stream_id: str, plugin_id: PluginId, error: str) -> None:
        """An emit with an error: the stream's last one. Raises: HostCallError when it is not open."""
        stream = self._find(stream_id, plugin_id)
        if stream is None or stream.closed:
            raise not_open(stream_id)
        stream.close(error)

    def close(self, stream_id: str, plugin_id: PluginId, error: str = "") -> None:
        """See `ExecutorStream.close`; unknown ids are ignored. Raises: HostCallError for another plugin's."""
        stream = self._find(stream_id, plugin_id)
        if stream is not None:
            stream.close(error)

    def close_owner(self, caller: Caller, reason: str) -> None:
        """End the streams of *caller*, which is gone, with the error *reason* after what it has emitted."""
        for stream in self._streams.values():
            if stream.caller == caller:
                stream.close(reason)

    def _find(self, stream_id: str, plugin_id: PluginId) -> ExecutorStream | None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.caller.plugin_id != plugin_id:
            raise foreign("stream")
        return stream
