"""The load generator: one process, one thread, sockets under epoll, nothing per request that can be done before.

It shares its core with the mock provider, so what it spends bounds what can be measured. That is why it is neither Trio
nor an HTTP library: answers are recognised by their length or their last chunk. Jobs come as JSON lines on standard
input, outcomes go out as JSON lines.
"""

import gc
import select
import socket
import sys
from collections.abc import Callable
from time import perf_counter, sleep

import attrs
import msgspec

from tests.bench.machine import cpu_seconds

RECEIVE_BYTES = 256 << 10
LAST_CHUNK = b"\r\n0\r\n\r\n"
PATIENCE_S = 30.0
"""Without any progress for so long something hangs."""
OPENING_AT_ONCE = 64
"""Streams that are being opened at a time: fewer than any listener's backlog."""


class LoadError(Exception):
    """A system gave a wrong answer, or none."""


@attrs.frozen(kw_only=True)
class Job:
    """What to do.

    Attributes:
      request: complete bytes of one HTTP request.
      connections: each sends a request, awaits the answer, sends the next one.
      seconds: go on for so long after *warmup_s*, and after every connection had an answer; 0 = by count.
      requests: 0 = by time, else so many in all, without warm-up.
      spread_s: the first requests are sent over this time, evenly.
      hold_events: 0, or: open one stream per connection and report when each had so many events; keep them open until
        the next line.
      pid: whose CPU time is wanted, 0 = nobody's.
    """

    port: int
    request: bytes
    connections: int
    seconds: float = 0.0
    warmup_s: float = 0.0
    requests: int = 0
    spread_s: float = 0.0
    hold_events: int = 0
    pid: int = 0


@attrs.frozen(kw_only=True)
class Outcome:
    """What happened within the measured time. *events* and *size_bytes* count bodies, framing included."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    requests: int = 0
    events: int = 0
    size_bytes: int = 0
    latencies_s: list[float] = attrs.field(factory=list, repr=False)
    error: str = ""


class Client:
    """One connection: writes its request, recognises the end of the answer."""

    __slots__ = ("_head", "_last", "_left", "_request", "events", "fd", "sent_at", "size_bytes", "sock", "unsent")

    def __init__(self, port: int, request: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.sock.fileno()
        self.sent_at = 0.0
        self.unsent = memoryview(b"")
        self._request = request
        self._reset()

    def _reset(self) -> None:
        self.events = 0
        self.size_bytes = 0
        self._head = b""
        self._left = -1  # body bytes to come; -1 = head not complete, -2 = chunked
        self._last = b""

    def ask(self) -> None:
        """Send the request, as much of it as fits."""
        self._reset()
        self.sent_at = perf_counter()
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
        return self.feed(data)

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
        self.size_bytes += len(data)
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                raise LoadError(f"{-self._left} bytes too many")
            return self._left == 0
        self.events += data.count(b"\n\n")
        if self._last[-1:] == b"\n" and data[:1] == b"\n":
            self.events += 1
        self._last = data[-7:] if len(data) >= 7 else (self._last + data)[-7:]
        # Nothing inside an event stream looks like this: JSON escapes its line breaks.
        return self._last == LAST_CHUNK

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


class Crowd:
    """All connections of one job under one epoll object."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}

    def add(self, client: Client) -> None:
        """Watch *client* and send its request."""
        self._clients[client.fd] = client
        self._epoll.register(client.fd, select.EPOLLIN)
        self.ask(client)

    def ask(self, client: Client) -> None:
        """Send a request on *client*."""
        client.ask()
        if len(client.unsent):
            self._epoll.modify(client.fd, select.EPOLLIN | select.EPOLLOUT)

    def turn(self, done: Callable[[Client], None]) -> None:
        """Wait, read what there is, call *done* for every complete answer. Raises: LoadError."""
        ready = self._epoll.poll(PATIENCE_S)
        if not ready:
            raise LoadError(f"no progress for {PATIENCE_S:g} s")
        for fd, mask in ready:
            client = self._clients[fd]
            if mask & select.EPOLLOUT:
                client.flush()
                if not len(client.unsent):
                    self._epoll.modify(fd, select.EPOLLIN)
            if mask & ~select.EPOLLOUT and client.receive():
                done(client)

    def close(self) -> None:
        """Close all connections."""
        self._epoll.close()
        for client in self._clients.values():
            client.sock.close()


class Tally:
    """Counts answers while it is open."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.open = False
        self.events = self.size_bytes = 0
        self.latencies_s: list[float] = []
        self._started = self._cpu = 0.0

    def start(self) -> None:
        """Begin to count."""
        self.open = True
        self._cpu = cpu_seconds(self._pid) if self._pid else 0.0
        self._started = perf_counter()

    def add(self, client: Client) -> None:
        """An answer is complete."""
        if self.open:
            self.latencies_s.append(perf_counter() - client.sent_at)
            self.events += client.events
            self.size_bytes += client.size_bytes

    def stop(self) -> Outcome:
        """The counts so far."""
        seconds = perf_counter() - self._started
        cpu_s = cpu_seconds(self._pid) - self._cpu if self._pid else 0.0
        return Outcome(
            seconds=seconds,
            cpu_s=cpu_s,
            requests=len(self.latencies_s),
            events=self.events,
            size_bytes=self.size_bytes,
            latencies_s=self.latencies_s,
        )


def by_time(job: Job, crowd: Crowd) -> Outcome:
    """Keep all connections busy for the job's time."""
    tally = Tally(job.pid)
    warm: set[int] = set()

    def done(client: Client) -> None:
        tally.add(client)
        warm.add(client.fd)
        crowd.ask(client)

    for _ in range(job.connections):
        crowd.add(Client(job.port, job.request))
    begin = perf_counter() + job.warmup_s
    while perf_counter() < begin or len(warm) < job.connections:
        crowd.turn(done)
    tally.start()
    end = perf_counter() + job.seconds
    while perf_counter() < end:
        crowd.turn(done)
    return tally.stop()


def by_count(job: Job, crowd: Crowd) -> Outcome:
    """Send the job's number of requests and await all answers."""
    tally = Tally(job.pid)
    left = job.requests - job.connections

    def done(client: Client) -> None:
        nonlocal left
        tally.add(client)
        if left > 0:
            left -= 1
            crowd.ask(client)

    clients = [Client(job.port, job.request) for _ in range(job.connections)]
    tally.start()
    for client in clients:
        crowd.add(client)
        if job.spread_s:
            sleep(job.spread_s / job.connections)
    while len(tally.latencies_s) < job.requests:
        crowd.turn(done)
    return tally.stop()


def until_open(job: Job, crowd: Crowd) -> Outcome:
    """Open all streams of the job and leave them open. Raises: LoadError."""

    def done(client: Client) -> None:
        raise LoadError("a stream that should idle has ended")

    opening: list[Client] = []
    for number in range(1, job.connections + 1):
        client = Client(job.port, job.request)
        opening.append(client)
        crowd.add(client)
        limit = OPENING_AT_ONCE if number < job.connections else 1
        while len(opening) >= limit:
            crowd.turn(done)
            opening = [client for client in opening if client.events < job.hold_events]
    return Outcome(requests=job.connections)


def perform(job: Job, *, answer: Callable[[Outcome], None], next_line: Callable[[], object]) -> None:
    """Do *job* and *answer* once; a held one ends with the next line."""
    crowd = Crowd()
    try:
        if job.hold_events:
            answer(until_open(job, crowd))
            next_line()
        elif job.requests:
            answer(by_count(job, crowd))
        else:
            answer(by_time(job, crowd))
    except (LoadError, OSError) as exc:
        answer(Outcome(error=str(exc)))
    finally:
        crowd.close()


def main() -> None:
    """Perform jobs until standard input ends."""
    gc.disable()  # there are no cycles worth a pause in the middle of a measurement
    lines, out = sys.stdin.buffer, sys.stdout.buffer

    def answer(outcome: Outcome) -> None:
        out.write(msgspec.json.encode(outcome) + b"\n")
        out.flush()

    while line := lines.readline():
        perform(msgspec.json.decode(line, type=Job), answer=answer, next_line=lines.readline)
        gc.collect()


if __name__ == "__main__":
    main()
