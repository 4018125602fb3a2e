"""Streams that plugins read and streams that they fill."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from cpa.abi.envelope import HostCallError
from cpa.errors import CpaError, UpstreamError, UpstreamProtocolError
from cpa.host import streams as module
from cpa.host.scopes import Caller, ScopeEnded, ScopeRegistry
from cpa.host.streams import (
    MAX_QUEUED_BYTES,
    QUEUED_CHUNKS,
    ExecutorStream,
    ExecutorStreamError,
    ExecutorStreams,
    Opened,
    ReadStreams,
)
from tests.host.hosting import ALICE, BOB

CALLER = Caller(plugin_id=ALICE)


@attrs.define(eq=False)
class Pieces:
    """A source by script: an error is raised where it stands, an event is waited for. Counts what is open and read."""

    script: list[bytes | CpaError | trio.Event]
    fails: CpaError | None = None
    open: int = 0
    taken: int = 0
    cancelled: int = 0

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Opened[str]]:
        """See `Source`."""
        await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise self.fails
        self.open += 1
        try:
            yield Opened("head", self)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while self.script:
            piece = self.script.pop(0)
            self.taken += 1
            if isinstance(piece, CpaError):
                raise piece
            if isinstance(piece, trio.Event):
                await piece.wait()
            else:
                return piece
        raise StopAsyncIteration


@asynccontextmanager
async def reading() -> AsyncIterator[ReadStreams]:
    """A registry with a nursery of its own."""
    async with trio.open_nursery() as nursery:
        yield ReadStreams(nursery, kind="model stream")
        nursery.cancel_scope.cancel()


async def read_all(streams: ReadStreams, stream_id: str) -> list[bytes]:
    """Every piece up to the end."""
    pieces = []
    while (piece := await streams.read(stream_id, ALICE)) is not None:
        pieces.append(piece)
    return pieces


# --- streams that plugins read ---------------------------------------------------------------------------------------


async def test_pieces_come_in_order_and_then_the_end() -> None:
    """After which the id means nothing."""
    pieces = Pieces([b"a", b"b", b"c"])
    async with reading() as streams:
        stream_id, head = await streams.open(CALLER, None, pieces.source)
        assert head == "head"
        assert await read_all(streams, stream_id) == [b"a", b"b", b"c"]
        assert pieces.open == 0
        assert len(streams) == 0
        with pytest.raises(KeyError):
            await streams.read(stream_id, ALICE)


async def test_not_reading_stops_the_source() -> None:
    """Back-pressure reaches the provider: one piece waits in hand, no more."""
    pieces = Pieces([b"x"] * 100)
    async with reading() as streams:
        stream_id, _ = await streams.open(CALLER, None, pieces.source)
        await trio.testing.wait_all_tasks_blocked()
        assert pieces.taken == 1
        await streams.read(stream_id, ALICE)
        await trio.testing.wait_all_tasks_blocked()
        assert pieces.taken == 2


async def test_a_failed_start_is_the_openers_error() -> None:
    """Nothing stays registered."""
    async with reading() as streams:
        with pytest.raises(UpstreamProtocolError):
            await streams.open(CALLER, None, Pieces([], fails=UpstreamProtocolError("no")).source)
        assert len(streams) == 0


async def test_a_late_error_is_told_once_after_what_came_before() -> None:
    """Then the stream is over."""
    async with reading() as streams:
        stream_id, _ = await streams.open(CALLER, None, Pieces([b"a", UpstreamError("cut")]).source)
        assert await streams.read(stream_id, ALICE) == b"a"
        with pytest.raises(UpstreamError, match="cut"):
            await streams.read(stream_id, ALICE)
        with pytest.raises(KeyError):
            await streams.read(stream_id, ALICE)


async def test_a_bug_behind_a_stream_ends_that_stream_only() -> None:
    """Its reader hears of an error; what else lives in the nursery goes on."""

    class Broken:
        def __aiter__(self) -> "Broken":
            return self

        async def __anext__(self) -> bytes:
            await trio.lowlevel.checkpoint()
            raise RuntimeError("secret detail")

    @asynccontextmanager
    async def source() -> AsyncIterator[Opened[str]]:
        await trio.lowlevel.checkpoint()
        yield Opened("head", Broken())

    async with reading() as streams:
        other, _ = await streams.open(CALLER, None, Pieces([b"a"]).source)
        with capture_logs() as lines:
            stream_id, _ = await streams.open(CALLER, None, source)
            with pytest.raises(CpaError, match="internal error"):
                await streams.read(stream_id, ALICE)
        assert [line["event"] for line in lines] == ["stream.crashed"]
        assert await read_all(streams, other) == [b"a"]


async def test_closing_cancels_the_source_and_ends_a_blocked_read() -> None:
    """An execution that its reader gives up ends as cancelled, not as failed."""
    pieces = Pieces([trio.Event()])
    async with reading() as streams:
        stream_id, _ = await streams.open(CALLER, None, pieces.source)
        got: list[bytes | None] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                got.append(await streams.read(stream_id, ALICE))

            nursery.start_soon(read)
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            streams.close(stream_id, ALICE)
            streams.close(stream_id, ALICE)
        assert got == [None, None]
        await trio.testing.wait_all_tasks_blocked()
        assert (pieces.open, pieces.cancelled) == (0, 1)
        assert len(streams) == 0


async def test_a_closing_scope_closes_its_streams_and_fails_blocked_reads(scopes: ScopeRegistry) -> None:
    """The plugin hears why; its stream is gone before the scope's block is left."""
    pieces = Pieces([trio.Event()])
    async with reading() as streams, trio.open_nursery() as nursery:
        failed: list[float] = []

        async def read(stream_id: str) -> None:
            with pytest.raises(ScopeEnded):
                await streams.read(stream_id, ALICE)
            failed.append(trio.current_time())

        async with scopes.open(ALICE) as scope:
            stream_id, _ = await streams.open(CALLER, scope, pieces.source)
            nursery.start_soon(read, stream_id)
            await trio.testing.wait_all_tasks_blocked()
            closed = trio.current_time()
        assert pieces.open == 0
        assert len(streams) == 0
        await trio.testing.wait_all_tasks_blocked()
        assert failed[0] - closed < 0.01


async def test_a_finished_stream_leaves_its_scope(scopes: ScopeRegistry) -> None:
    """A scope that opens thousands of streams in turn keeps none of them."""
    async with reading() as streams, scopes.open(ALICE) as scope:
        for _ in range(3):
            stream_id, _ = await streams.open(CALLER, scope, Pieces([b"a"]).source)
            await read_all(streams, stream_id)
        assert not scope._closers


async def test_nothing_opens_under_a_closed_scope(scopes: ScopeRegistry) -> None:
    """It would live for ever."""
    async with reading() as streams, scopes.open(ALICE) as scope:
        scope.close()
        with pytest.raises(ScopeEnded):
            await streams.open(CALLER, scope, Pieces([b"a"]).source)


async def test_a_scope_that_closes_while_a_stream_opens_wins(scopes: ScopeRegistry) -> None:
    """The stream is not registered; the source is closed."""
    async with reading() as streams, scopes.open(ALICE) as scope:
        pieces = Pieces([b"a"])

        @asynccontextmanager
        async def source() -> AsyncIterator[Opened[str]]:
            async with pieces.source() as opened:
                scope.close()
                yield opened

        with pytest.raises(ScopeEnded):
            await streams.open(CALLER, scope, source)
        await trio.testing.wait_all_tasks_blocked()
        assert pieces.open == 0
        assert len(streams) == 0


async def test_a_cancelled_opener_leaves_nothing_open() -> None:
    """The transport was told to end while the provider was thinking."""
    opening, never = trio.Event(), trio.Event()
    opened: list[str] = []

    @asynccontextmanager
    async def source() -> AsyncIterator[Opened[str]]:
        opened.append("one")
        try:
            opening.set()
            await never.wait()
            yield Opened("", Pieces([]))
        finally:
            opened.pop()

    async with reading() as streams:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streams.open, CALLER, None, source)
            await opening.wait()
            nursery.cancel_scope.cancel()
        assert not opened
        assert len(streams) == 0


async def test_a_source_may_hold_scopes_of_its_own(scopes: ScopeRegistry) -> None:
    """A nested execution by a plugin's executor opens one before the head is known."""
    pieces = Pieces([b"a", b"b"])

    @asynccontextmanager
    async def source() -> AsyncIterator[Opened[str]]:
        async with scopes.open(BOB), pieces.source() as opened:
            yield opened

    async with reading() as streams, scopes.open(ALICE) as scope:
        stream_id, _ = await streams.open(CALLER, scope, source)
        assert await streams.read(stream_id, ALICE) == b"a"
        assert len(scopes) == 2
    assert len(scopes) == 0


async def test_another_plugins_stream_is_an_error() -> None:
    """For reading as for closing."""
    async with reading() as streams:
        stream_id, _ = await streams.open(CALLER, None, Pieces([b"a"]).source)
        with pytest.raises(HostCallError):
            await streams.read(stream_id, BOB)
        with pytest.raises(HostCallError):
            streams.close(stream_id, BOB)
        assert await read_all(streams, stream_id) == [b"a"]


async def test_the_end_of_a_plugin_closes_its_streams_only() -> None:
    """Not those of others, nor of its next copy."""
    sources = [Pieces([b"a", trio.Event()]) for _ in range(3)]
    owners = [Caller(plugin_id=ALICE, generation=1), Caller(plugin_id=ALICE, generation=2), Caller(plugin_id=BOB)]
    async with reading() as streams:
        for owner, pieces in zip(owners, sources, strict=True):
            await streams.open(owner, None, pieces.source)
        streams.close_owner(owners[0])
        await trio.testing.wait_all_tasks_blocked()
        assert [pieces.open for pieces in sources] == [0, 1, 1]
        assert len(streams) == 2


async def test_open_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a connection; a plugin that closes none must not use up all."""
    monkeypatch.setattr(module, "MAX_READ_STREAMS", 2)
    async with reading() as streams:
        for _ in range(2):
            await streams.open(CALLER, None, Pieces([b"a"]).source)
        with pytest.raises(HostCallError, match="more than 2"):
            await streams.open(CALLER, None, Pieces([b"a"]).source)
        await streams.open(Caller(plugin_id=BOB), None, Pieces([b"a"]).source)


# --- streams that plugins fill ---------------------------------------------------------------------------------------


async def consume(stream: ExecutorStream) -> list[bytes]:
    """Every chunk up to the end."""
    return [chunk async for chunk in stream]


async def test_chunks_keep_their_order_and_close_ends_them() -> None:
    """What was queued at the close is delivered."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        for chunk in (b"a", b"", b"b"):
            await streams.emit(stream.id, ALICE, chunk)
        streams.close(stream.id, ALICE)
        assert await consume(stream) == [b"a", b"b"]
    assert len(streams) == 0


async def test_early_chunks_do_not_wait_for_the_host() -> None:
    """A plugin that emits before it returns would deadlock: the host begins only then."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        with trio.fail_after(5):
            for number in range(10 * QUEUED_CHUNKS):
                await stream.emit(b"%d" % number)
        stream.close()
        assert await consume(stream) == [b"%d" % number for number in range(10 * QUEUED_CHUNKS)]


async def test_early_chunks_are_bounded_in_bytes() -> None:
    """And go on once the host consumes."""
    streams = ExecutorStreams()
    chunk = bytes(MAX_QUEUED_BYTES // 2)
    with streams.open(CALLER) as stream:
        sent = 0
        async with trio.open_nursery() as nursery:

            async def emit() -> None:
                nonlocal sent
                for _ in range(4):
                    await stream.emit(chunk)
                    sent += 1
                stream.close()

            nursery.start_soon(emit)
            await trio.testing.wait_all_tasks_blocked()
            assert sent == 2
            assert len(await consume(stream)) == 4


async def test_one_chunk_of_any_size_fits() -> None:
    """Chunk size is unlimited by contract."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        await stream.emit(bytes(MAX_QUEUED_BYTES + 1))
        stream.close()
        assert [len(chunk) for chunk in await consume(stream)] == [MAX_QUEUED_BYTES + 1]


async def test_emit_waits_for_a_slow_client() -> None:
    """16 chunks may wait once the host consumes."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        sent = 0
        async with trio.open_nursery() as nursery:

            async def emit() -> None:
                nonlocal sent
                for _ in range(100):
                    await stream.emit(b"x")
                    sent += 1
                stream.close()

            await stream.emit(b"x")
            assert await anext(stream) == b"x"
            nursery.start_soon(emit)
            await trio.testing.wait_all_tasks_blocked()
            assert sent == QUEUED_CHUNKS
            await anext(stream)
            await trio.testing.wait_all_tasks_blocked()
            assert sent == QUEUED_CHUNKS + 1
            assert len(await consume(stream)) == 99


@pytest.mark.parametrize(
    "end",
    [lambda stream: stream.close(), lambda stream: stream.abort(), lambda stream: stream.close("gone")],
    ids=["close", "abort", "error"],
)
async def test_blocked_emits_wake_when_the_stream_ends(end: Callable[[ExecutorStream], None]) -> None:
    """All of them, with the contract's text."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        await stream.emit(b"x")
        await anext(stream)
        for _ in range(QUEUED_CHUNKS):
            await stream.emit(b"x")
        texts: list[str] = []
        async with trio.open_nursery() as nursery:

            async def emit() -> None:
                with pytest.raises(HostCallError) as caught:
                    await streams.emit(stream.id, ALICE, b"y")
                texts.append(caught.value.message)

            for _ in range(5):
                nursery.start_soon(emit)
            await trio.testing.wait_all_tasks_blocked()
            end(stream)
        assert texts == [f"stream {stream.id} is not open"] * 5


async def test_many_emitters_lose_nothing() -> None:
    """Plugins emit from any thread."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        async with trio.open_nursery() as nursery:
            got: list[bytes] = []

            async def drain() -> None:
                got.extend(await consume(stream))

            nursery.start_soon(drain)
            async with trio.open_nursery() as emitters:

                async def emit(number: int) -> None:
                    for index in range(50):
                        await streams.emit(stream.id, ALICE, b"%d:%d" % (number, index))

                for number in range(20):
                    emitters.start_soon(emit, number)
            stream.close()
        assert len(got) == len(set(got)) == 1000
        for number in range(20):
            assert [c for c in got if c.startswith(b"%d:" % number)] == [b"%d:%d" % (number, i) for i in range(50)]


async def test_an_emitted_error_is_the_last_thing() -> None:
    """It comes after what was queued; nothing is taken after it."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        await stream.emit(b"a")
        streams.fail(stream.id, ALICE, "backend vanished")
        with pytest.raises(HostCallError):
            await stream.emit(b"b")
        with pytest.raises(HostCallError):
            streams.fail(stream.id, ALICE, "again")
        streams.close(stream.id, ALICE, "too late")
        assert await anext(stream) == b"a"
        with pytest.raises(ExecutorStreamError, match="backend vanished") as caught:
            await anext(stream)
        assert isinstance(caught.value, UpstreamError)
        assert caught.value.http_status == 500
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_cancelled_consumer_aborts_the_stream() -> None:
    """The client left: emits fail from then on, closing stays harmless."""
    streams = ExecutorStreams()
    with trio.CancelScope() as client, streams.open(CALLER) as stream:
        await stream.emit(b"a")
        client.cancel()
        await consume(stream)
    with pytest.raises(HostCallError, match=f"stream {stream.id} is not open"):
        await streams.emit(stream.id, ALICE, b"b")
    streams.close(stream.id, ALICE)
    assert not stream._chunks


async def test_a_cancelled_emit_queues_nothing() -> None:
    """The transport answers for it."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.emit(b"a")
        stream.close()
        assert await consume(stream) == []


async def test_another_plugin_cannot_fill_or_end_a_stream() -> None:
    """It would speak to somebody else's client."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        for attempt in (streams.fail, streams.close):
            with pytest.raises(HostCallError, match="another plugin"):
                attempt(stream.id, BOB, "x")
        with pytest.raises(HostCallError, match="another plugin"):
            await streams.emit(stream.id, BOB, b"x")
        streams.close(stream.id, ALICE)


async def test_the_death_of_a_plugin_ends_its_streams_with_the_reason() -> None:
    """What it had emitted still arrives."""
    streams = ExecutorStreams()
    with streams.open(Caller(plugin_id=ALICE, generation=1)) as stream, streams.open(CALLER) as other:
        await stream.emit(b"a")
        streams.close_owner(Caller(plugin_id=ALICE, generation=1), "killed")
        assert not other.closed
        assert await anext(stream) == b"a"
        with pytest.raises(ExecutorStreamError, match="killed"):
            await anext(stream)


async def test_primitives_are_checkpoints() -> None:
    """Otherwise a busy plugin starves everybody else."""
    streams = ExecutorStreams()
    with streams.open(CALLER) as stream:
        with trio.testing.assert_checkpoints():
            await stream.emit(b"a")
        with trio.testing.assert_checkpoints():
            await anext(stream)
