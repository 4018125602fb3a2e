"""One connection of the mock provider.

One task per connection reads, answers, reads again, on a non-blocking socket without the checkpoints that a Trio
socket has in every call. Only an answer that pauses gets a second task, which watches for the client's leaving: an
answer without pauses finds that out by its own sends.
"""

import socket
import struct
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET

import attrs
import trio

from cpa.formats.names import Format
from cpa.testing.mock.http import CONTINUE, READ_BYTES, Request, RequestReader
from cpa.testing.mock.record import RecordedRequest
from cpa.testing.mock.render import Ending, error_answer
from cpa.testing.mock.state import MockState, Plan, frame

MAX_PIPELINED_BYTES = 1 << 20
"""What a client may send while an answer pauses; one that sends more is treated as gone."""
LINGER_S = 1.0
"""How long a refused client may go on sending before the connection is closed under it."""
_SENDS_PER_CHECKPOINT = 16
"""A plain send to a socket with room costs a fifth of one that lets the scheduler run; nobody waits for 16 of them."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@attrs.define(eq=False, slots=True)
class Connection:
    """One client. `serve` is its task; nothing else touches it but the watcher that `serve` starts."""

    _state: MockState
    _sock: socket.socket
    _id: int
    _pending: bytearray = attrs.field(factory=bytearray, init=False)
    _gone: bool = attrs.field(default=False, init=False)
    _sends: int = attrs.field(default=0, init=False)

    async def serve(self) -> None:
        """Answer requests until either side has had enough. The caller closes the socket."""
        reader = RequestReader()
        while True:
            while not reader.ready:
                if reader.refusal:
                    await self._refuse(reader.refusal)
                    return
                data = await self._read()
                if not data:
                    return
                reader.feed(data)
                if reader.wants_continue:
                    reader.wants_continue = False
                    if not reader.ready and not reader.refusal and not await self._send(CONTINUE):
                        return
            if not await self._respond(reader.ready.popleft()):
                return

    async def _read(self) -> bytes:
        """The next bytes, empty at the end of the connection."""
        if self._pending:
            data = bytes(self._pending[:READ_BYTES])
            del self._pending[:READ_BYTES]
            return data
        return await self._receive()

    async def _receive(self) -> bytes:
        """The next bytes from the socket, empty at the end. A checkpoint."""
        while True:
            try:
                # Waiting first: a client's next bytes are hardly ever there already, and a failed read costs more.
                await trio.lowlevel.wait_readable(self._sock)
                return self._sock.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def _send(self, data: bytes) -> bool:
        """Send all of *data*; False if the client is gone. A checkpoint now and then, and whenever it blocks."""
        self._sends += 1
        if not self._sends % _SENDS_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint()
        sent = 0
        while True:
            try:
                sent += self._sock.send(memoryview(data)[sent:] if sent else data)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)
            except OSError:
                return False
            if sent == len(data):
                return True

    async def _respond(self, request: Request) -> bool:
        """Answer *request*; True if the connection can go on."""
        state = self._state
        state.total_requests += 1
        state.active_responses += 1
        record = self._record(request)
        state.changes.notify()
        try:
            plan = state.plan(request)
            whole = await (self._paced(plan) if plan.pauses else self._at_once(plan))
        finally:
            state.active_responses -= 1
            state.changes.notify()
        if record is not None:
            if whole:
                record.mark_answered()
            else:
                record.mark_closed()
        if plan.ending in (Ending.RESET, Ending.RESET_HEADERS):
            self._sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
        return whole and plan.ending is Ending.COMPLETE and b"connection: close\r\n" not in plan.head

    def _record(self, request: Request) -> RecordedRequest | None:
        state = self._state
        if state.recorder is None:
            return None
        record = RecordedRequest(
            method=request.method,
            target=request.target,
            headers=request.headers,
            body=request.body,
            connection_id=self._id,
            received_at=trio.current_time(),
            changes=state.changes,
        )
        state.recorder.add(record)
        return record

    async def _at_once(self, plan: Plan) -> bool:
        """Send *plan*; the head goes out with the first write. True if all was sent."""
        head = plan.head
        for write in plan.writes:
            if not await self._send(head + write if head else write):
                return False
            head = b""
        return await self._send(head) if head else True

    async def _paced(self, plan: Plan) -> bool:
        """Send *plan* with its pauses, watching for the client's leaving."""
        whole = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            whole = await self._slowly(plan)
            nursery.cancel_scope.cancel()
        return whole and not self._gone

    async def _slowly(self, plan: Plan) -> bool:
        if plan.first_byte_s:
            await trio.sleep(plan.first_byte_s)
        head = plan.head
        for write in plan.writes:
            if plan.delay_s and not head:
                await trio.sleep(plan.delay_s)
            if not await self._send(head + write if head else write):
                return False
            head = b""
        if head and not await self._send(head):
            return False
        if plan.ending is Ending.STALL:
            await trio.sleep_forever()
        return True

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel *scope* when the client leaves; keep what it sends meanwhile."""
        while len(self._pending) < MAX_PIPELINED_BYTES and (data := await self._receive()):
            self._pending += data
        self._gone = True
        scope.cancel()

    async def _refuse(self, status: int) -> None:
        """Say what is wrong, then close without losing the answer to a reset: unread bytes would cause one."""
        request = Request(
            method="", target="", headers=[], body=b"", keep_alive=False, chunked_ok=True, websocket=False
        )
        plan = frame(error_answer(Format.OPENAI, status, "mock provider: unreadable or oversized request"), request)
        if not await self._at_once(plan):
            return
        try:
            self._sock.shutdown(SHUT_WR)
        except OSError:
            return
        with trio.move_on_after(LINGER_S):
            while await self._receive():
                pass
