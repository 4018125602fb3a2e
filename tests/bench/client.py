"""One connection of the load generator: writes requests, recognises the end of answers, reads the chunks' stamps."""

import re
import socket
from time import monotonic_ns, perf_counter

RECEIVE_BYTES = 256 << 10
LAST_CHUNK = b"\r\n0\r\n\r\n"
PATIENCE_S = 20.0
"""Without any progress for so long something hangs."""
STAMP = re.compile(rb"@(\d{19})")
STAMP_BYTES = 20
"""See provider.py."""


class LoadError(Exception):
    """A system gave a wrong answer, or none."""


class Client:
    """One connection.

    Attributes:
      due_at: when the request should have been sent, by the plan; what latency is counted from.
      first_at: when the first bytes of the body came; 0 = not yet.
      delays_ns: of the stamped chunks of the answer, from being written by the provider to being read here.
      leaves: goes away when the answer begins.
    """

    __slots__ = (
        "_head",
        "_last",
        "_left",
        "_request",
        "_tail",
        "delays_ns",
        "due_at",
        "events",
        "fd",
        "first_at",
        "leaves",
        "size_bytes",
        "sock",
        "unsent",
    )

    def __init__(self, port: int, request: bytes, *, leaves: bool = False) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.sock.setblocking(False)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.sock.fileno()
        self.due_at = 0.0
        self.unsent = memoryview(b"")
        self.leaves = leaves
        self._request = request
        self._reset()

    def _reset(self) -> None:
        self.events = 0
        self.size_bytes = 0
        self.first_at = 0.0
        self.delays_ns: list[int] = []
        self._head = b""
        self._left = -1  # body bytes to come; -1 = head not complete, -2 = chunked
        self._last = b""
        self._tail = b""

    def ask(self, due_at: float = 0.0) -> None:
        """Send the request, as much of it as fits; it was due at *due_at*, 0 = now."""
        self._reset()
        self.due_at = due_at or perf_counter()
        sent = self.sock.send(self._request)
        if sent < len(self._request):
            self.unsent = memoryview(self._request)[sent:]

    def flush(self) -> None:
        """Send more of what did not fit."""
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return

    def receive(self) -> bool:
        """Read once. Returns: the answer is complete. Raises: LoadError."""
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise LoadError(f"the connection failed: {exc}") from exc
        if not data:
            raise LoadError(f"closed after {self.size_bytes} bytes of body, head {self._head[:200]!r}")
        return self.feed(data) or self.leaves

    def feed(self, data: bytes) -> bool:
        """Take *data*. Returns: the answer is complete. Raises: LoadError."""
        if self._left == -1:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return False
            self._read_head(data, end)
            data = data[end + 4 :]
        if not self.first_at and data:
            self.first_at = perf_counter()
        self.size_bytes += len(data)
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                raise LoadError(f"{-self._left} bytes too many")
            return self._left == 0
        self._read_stamps(data)
        self.events += data.count(b"\n\n")
        if self._last[-1:] == b"\n" and data[:1] == b"\n":
            self.events += 1
        self._last = data[-7:] if len(data) >= 7 else (self._last + data)[-7:]
        # Nothing inside an event stream looks like this: JSON escapes its line breaks.
        return self._last == LAST_CHUNK

    def _read_stamps(self, data: bytes) -> None:
        now = monotonic_ns()
        data = self._tail + data
        end = 0
        for match in STAMP.finditer(data):
            self.delays_ns.append(now - int(match[1]))
            end = match.end()
        cut = data.rfind(b"@", max(end, len(data) - STAMP_BYTES + 1))
        self._tail = data[cut:] if cut >= 0 else b""

    def _read_head(self, data: bytes, end: int) -> None:
        head = data[:end].lower() + b"\r\n"
        if not head.startswith(b"http/1.1 200"):
            raise LoadError(f"expected status 200, got {data[: end + 300]!r}")
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._left = int(head[at + 17 : head.index(b"\r\n", at + 2)])
        elif head.find(b"\r\ntransfer-encoding: chunked") >= 0:
            self._left = -2
        else:
            raise LoadError(f"neither length nor chunks: {data[:end]!r}")
        self._last = b"\r\n"
