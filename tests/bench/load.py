"""The load generator: one process, one thread, sockets under epoll, nothing per request that can be done before.

It shares its core with the provider, so what it spends bounds what can be measured. That is why it is neither Trio
nor an HTTP library: answers are recognised by their length or their last chunk. Jobs come as JSON lines on standard
input, outcomes go out as JSON lines.
"""

import gc
import select
import sys
from collections.abc import Callable
from time import perf_counter, process_time

import attrs
import msgspec

from tests.bench.client import PATIENCE_S, Client, LoadError
from tests.bench.machine import cpu_seconds
from tests.bench.timing import precise_timers, wait

OPENING_AT_ONCE = 64
"""Streams that are being opened at a time: fewer than any listener's backlog."""
MOST_OPEN = 1000
"""Connections of a job at a rate; what is due beyond that waits, and its waiting counts."""


@attrs.frozen(kw_only=True)
class Job:
    """What to do.

    Attributes:
      request: complete bytes of one HTTP request.
      connections: each sends a request, awaits the answer, sends the next one.
      seconds: go on for so long after *warmup_s*, and after every connection had an answer, and until there are as many
        answers as connections; 0 = by count.
      requests: 0 = by time, else so many in all, without warm-up.
      spread_s: the first requests are sent over this time, evenly.
      rate: so many requests a second, whatever becomes of them: an open loop. Needs *requests*; *connections* are
        opened before, more when they are needed. Latency counts from the time when a request was due.
      leaver: request of every tenth client of a job by count; it leaves when its answer begins. Empty = nobody leaves.
      hold_events: 0, or: open one stream per connection and report when each had so many events; keep them open until
        the next line.
      pid: whose CPU time is wanted, 0 = nobody's. *pids*: more of them.
    """

    port: int
    request: bytes
    connections: int
    seconds: float = 0.0
    warmup_s: float = 0.0
    requests: int = 0
    spread_s: float = 0.0
    rate: float = 0.0
    leaver: bytes = b""
    hold_events: int = 0
    pid: int = 0
    pids: list[int] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class Outcome:
    """What happened within the measured time. *events* and *size_bytes* count bodies, framing included.

    Attributes:
      delays_s: of all stamped chunks, from the provider to the client.
      first_s: of each answer, until the first bytes of its body.
      own_cpu_s: what the generator itself has used.
    """

    seconds: float = 0.0
    cpu_s: float = 0.0
    own_cpu_s: float = 0.0
    requests: int = 0
    events: int = 0
    size_bytes: int = 0
    latencies_s: list[float] = attrs.field(factory=list, repr=False)
    delays_s: list[float] = attrs.field(factory=list, repr=False)
    first_s: list[float] = attrs.field(factory=list, repr=False)
    error: str = ""


class Crowd:
    """All connections of one job under one epoll object."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def watch(self, client: Client) -> None:
        """Watch *client*, which may ask later."""
        self._clients[client.fd] = client
        self._epoll.register(client.fd, select.EPOLLIN)

    def add(self, client: Client) -> None:
        """Watch *client* and send its request."""
        self.watch(client)
        self.ask(client)

    def drop(self, client: Client) -> None:
        """Close *client*'s connection."""
        del self._clients[client.fd]
        self._epoll.unregister(client.fd)
        client.sock.close()

    def ask(self, client: Client, due_at: float = 0.0) -> None:
        """Send a request on *client*."""
        client.ask(due_at)
        if len(client.unsent):
            self._epoll.modify(client.fd, select.EPOLLIN | select.EPOLLOUT)

    def turn(self, done: Callable[[Client], None], within_s: float = PATIENCE_S) -> None:
        """Wait, read what there is, call *done* for every complete answer. Raises: LoadError."""
        ready = wait(self._epoll, min(within_s, PATIENCE_S))
        if not ready and within_s >= PATIENCE_S:
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

    def __init__(self, job: Job) -> None:
        self._pids = [*job.pids, *([job.pid] if job.pid else [])]
        self.open = False
        self.events = self.size_bytes = 0
        self.latencies_s: list[float] = []
        self._delays_ns: list[list[int]] = []
        self._first_s: list[float] = []
        self._started = self._cpu = self._own = 0.0

    def start(self) -> None:
        """Begin to count."""
        self.open = True
        self._cpu = sum(map(cpu_seconds, self._pids))
        self._own = process_time()
        self._started = perf_counter()

    def add(self, client: Client) -> None:
        """An answer is complete."""
        if self.open:
            self.latencies_s.append(perf_counter() - client.due_at)
            self.events += client.events
            self.size_bytes += client.size_bytes
            if client.delays_ns:
                self._first_s.append(client.first_at - client.due_at)
                self._delays_ns.append(client.delays_ns)

    def stop(self) -> Outcome:
        """The counts so far."""
        seconds = perf_counter() - self._started
        own_cpu_s = process_time() - self._own
        return Outcome(
            seconds=seconds,
            cpu_s=sum(map(cpu_seconds, self._pids)) - self._cpu,
            own_cpu_s=own_cpu_s,
            requests=len(self.latencies_s),
            events=self.events,
            size_bytes=self.size_bytes,
            latencies_s=self.latencies_s,
            delays_s=[delay / 1e9 for delays in self._delays_ns for delay in delays],
            first_s=self._first_s,
        )


def by_time(job: Job, crowd: Crowd) -> Outcome:
    """Keep all connections busy for the job's time."""
    tally = Tally(job)
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
    while perf_counter() < end or len(tally.latencies_s) < job.connections:
        crowd.turn(done)
    return tally.stop()


def by_count(job: Job, crowd: Crowd) -> Outcome:
    """Send the job's number of requests and await all answers. Who leaves counts as answered."""
    tally = Tally(job)
    clients = [Client(job.port, job.request) for _ in range(job.connections)]
    begun = finished = 0

    def begin(client: Client) -> None:
        nonlocal begun
        begun += 1
        if job.leaver and begun % 10 == 0:
            crowd.add(Client(job.port, job.leaver, leaves=True))
            waiting.append(client)
        else:
            crowd.ask(client)

    def done(client: Client) -> None:
        nonlocal finished
        finished += 1
        if client.leaves:
            crowd.drop(client)
            client = waiting.pop()
        else:
            tally.add(client)
        if begun < job.requests:
            begin(client)

    waiting: list[Client] = []
    for client in clients:
        crowd.watch(client)
    tally.start()
    started, pause = perf_counter(), job.spread_s / job.connections
    for number, client in enumerate(clients):
        while (left := started + number * pause - perf_counter()) > 0:
            crowd.turn(done, left)
        begin(client)
    while finished < job.requests:
        crowd.turn(done)
    return tally.stop()


def at_rate(job: Job, crowd: Crowd) -> Outcome:
    """Send requests when they are due, answered or not, and await all answers."""
    idle = [Client(job.port, job.request) for _ in range(job.connections)]
    tally = Tally(job)
    waiting: list[float] = []

    def send(due_at: float) -> None:
        if not idle:
            if len(crowd) >= MOST_OPEN:
                waiting.append(due_at)
                return
            crowd.watch(client := Client(job.port, job.request))
        else:
            client = idle.pop()
        crowd.ask(client, due_at)

    def done(client: Client) -> None:
        tally.add(client)
        idle.append(client)
        if waiting:
            send(waiting.pop(0))

    for client in idle:
        crowd.watch(client)
    tally.start()
    started = perf_counter()
    sent = 0
    while len(tally.latencies_s) < job.requests:
        due_at = started + sent / job.rate
        if sent < job.requests and perf_counter() >= due_at:
            send(due_at)
            sent += 1
        else:
            # After the last one only answers matter; before, an answer that does not come stops nobody.
            crowd.turn(done, due_at - perf_counter() if sent < job.requests else PATIENCE_S)
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
        elif job.rate:
            answer(at_rate(job, crowd))
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
    precise_timers()
    lines, out = sys.stdin.buffer, sys.stdout.buffer

    def answer(outcome: Outcome) -> None:
        out.write(msgspec.json.encode(outcome) + b"\n")
        out.flush()

    while line := lines.readline():
        perform(msgspec.json.decode(line, type=Job), answer=answer, next_line=lines.readline)
        gc.collect()


if __name__ == "__main__":
    main()
