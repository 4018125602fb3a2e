"""What the proxy is doing and has just done: the running requests, the last ones, and who watches them.

Theory of operation. A request has one `LiveRequest` from its head to the end of its answer, and so has each execution
that a plugin starts; it refers to the execution's `Trace` and is rendered only when somebody looks. The last
`MAX_ENDED` stay. Every change has a number, so that whoever asks again asks for what is new. Readers of the stream have
bounded buffers: a slow one loses the oldest summaries, and is told how many.

While somebody watches (a reader of the stream, or someone who looked at a request within `LOOK_S`), traces keep the
bodies before and after each change, `MAX_KEPT_BYTES` in all; otherwise they keep none, and the cost of it all is some
microseconds per request and nothing per chunk.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from time import monotonic, perf_counter
from typing import Final

import attrs
import msgspec
import trio

from cpa.observability.live_series import Series
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.stage import Outcome
from cpa.pipeline.trace import Room, Trace
from cpa.types import RequestId

MAX_ENDED: Final = 500
MAX_KEPT_BYTES: Final = 32 << 20
"""Of bodies before and after changes, of all requests; the oldest make room."""
LOOK_S: Final = 30.0
"""Somebody who looked at a request may look at the next one."""
MAX_WAITING: Final = 1024
"""Summaries that wait for one reader, 300 bytes each: some seconds of a busy proxy."""
MAX_ERROR_CHARS: Final = 300
CLIENT_LEFT: Final = 499


class LiveState(StrEnum):
    """Where a request stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    """its client left before the end"""


class Summary(msgspec.Struct, frozen=True, rename="kebab", gc=False):
    """A request in one line, as management tells it. Times in Unix seconds and milliseconds."""

    id: str
    time: float
    client: str
    protocol: str
    model: str
    provider: str | None
    provider_format: str | None
    provider_model: str | None
    credential: str | None
    stream: bool
    state: str
    status: int | None
    error: str | None
    duration_ms: float
    first_byte_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    stages: int
    losses: int
    nested: bool


@attrs.define(kw_only=True, eq=False)
class LiveRequest:
    """One request, or one execution that a plugin started.

    Attributes:
      id: of a request the one that logs have, of an execution its own.
      number: of its beginning; revision: of its last change.
      client: label of its key, never the key.
      known: model and protocol have been read; before that it is told to nobody.
      nested: a plugin started it.
    """

    id: str
    number: int
    protocol: str
    trace: Trace
    revision: int = 0
    time_unix: float = attrs.field(factory=time.time)
    started: float = attrs.field(factory=perf_counter)
    client: str = ""
    model: str = ""
    stream: bool = False
    known: bool = False
    nested: bool = False
    state: LiveState = LiveState.RUNNING
    status: int | None = None
    error: str = ""
    duration_s: float | None = None
    first_byte_s: float | None = None
    _owner: "Live" = attrs.field(repr=False)

    def understood(self, request: ModelRequest) -> None:
        """It is a request for a model; from here on it can be seen."""
        self.client = self._owner.label(request.principal)
        self.model, self.stream, self.protocol = request.model, request.stream, request.format
        self.known = True
        self._owner.changed(self)

    def first_byte(self) -> None:
        """Its answer begins; only the first call counts."""
        if self.first_byte_s is None:
            self.first_byte_s = perf_counter() - self.started
            self._owner.changed(self)

    def finished(self, status: int, error: str = "") -> None:
        """It is over; only the first call counts. *status*: what its client got, `CLIENT_LEFT` for one that left."""
        if self.state is not LiveState.RUNNING:
            return
        self.duration_s, self.status = perf_counter() - self.started, status
        if status == CLIENT_LEFT:
            self.state = LiveState.ABORTED
        elif status >= 400 or status == 0:
            self.state = LiveState.FAILED
        else:
            self.state = LiveState.DONE
        self.error = error[:MAX_ERROR_CHARS]
        self._owner.over(self)

    def ended(self, outcome: Outcome, error: BaseException | None) -> None:
        """See `cpa.pipeline.services.Watched`: an execution without a client of its own."""
        if outcome is Outcome.SUCCEEDED:
            self.finished(200)
        elif outcome is Outcome.CANCELED:
            self.finished(CLIENT_LEFT)
        else:
            self.finished(getattr(error, "http_status", 500), str(error) if error is not None else "")

    def summary(self) -> Summary:
        """As it is now."""
        trace = self.trace
        attempt = trace.attempts[-1] if trace.attempts else None
        duration_s = self.duration_s if self.duration_s is not None else perf_counter() - self.started
        return Summary(
            id=self.id,
            time=round(self.time_unix, 3),
            client=self.client,
            protocol=self.protocol,
            model=self.model,
            provider=None if attempt is None else attempt.provider,
            provider_format=None if attempt is None else attempt.provider_format or None,
            provider_model=None if attempt is None else attempt.model,
            credential=None if attempt is None else attempt.credential,
            stream=self.stream,
            state=self.state.value,
            status=self.status,
            error=self._owner.redact(self.error) if self.error else None,
            duration_ms=round(duration_s * 1000, 1),
            first_byte_ms=None if self.first_byte_s is None else round(self.first_byte_s * 1000, 1),
            input_tokens=trace.input_tokens,
            output_tokens=trace.output_tokens,
            stages=len(trace.stages) + len(trace.steps),
            losses=len(trace.losses),
            nested=self.nested,
        )


class Reader:
    """One reader of the stream; from `Live.read`."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._some = trio.Event()

    def put(self, summary: bytes) -> None:
        """One more; the oldest makes room."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(summary)
        self._some.set()

    async def wait(self) -> None:
        """Until there is something to take."""
        await self._some.wait()

    def take(self) -> tuple[list[bytes], int]:
        """All that waits, as JSON, oldest first, and how many were lost before it."""
        taken, lost = list(self._waiting), self._lost
        self._waiting.clear()
        self._lost, self._some = 0, trio.Event()
        return taken, lost


def _ignore(record: object) -> None:
    """Traces have the sums."""


@attrs.define(kw_only=True, eq=False)
class Live:
    """All of it; one for each process.

    Attributes:
      enabled: somebody could ask; without management nobody can, and nothing is noted.
      label: what stands for a client's key; redact: hides secrets in a text.
      series: what happened over time.
    """

    enabled: bool = True
    label: Callable[[str], str] = lambda principal: "" if not principal else "key"
    redact: Callable[[str], str] = lambda text: text
    series: Series = attrs.field(factory=Series)
    started_unix: float = attrs.field(factory=time.time)
    _instance: str = attrs.field(factory=lambda: secrets.token_hex(4))
    _begun: int = 0
    _revision: int = 0
    _running: dict[int, LiveRequest] = attrs.field(factory=dict)
    _ended: deque[LiveRequest] = attrs.field(factory=deque)
    _readers: set[Reader] = attrs.field(factory=set)
    _looked_until: float = 0.0
    _kept_bytes: int = 0

    # ---- for those who report ----

    def begin(self, request_id: str, protocol: str) -> LiveRequest | None:
        """A client's request arrives; None = nobody can look at it. Each one ends with `LiveRequest.finished`."""
        if not self.enabled:
            return None
        self._begun += 1
        trace = Trace(room=Room() if self.watched else None)
        request = LiveRequest(id=request_id, number=self._begun, protocol=protocol, trace=trace, owner=self)
        self._running[request.number] = request
        return request

    def begun(self, request: ModelRequest, request_id: RequestId) -> LiveRequest | None:
        """See `cpa.pipeline.services.Watcher`."""
        live = self.begin(request_id, request.format)
        if live is not None:
            live.nested = True
            live.understood(request)
        return live

    def changed(self, request: LiveRequest) -> None:
        """*request* has come on; whoever reads is told."""
        self._revision += 1
        request.revision = self._revision
        if self._readers:
            summary = msgspec.json.encode(request.summary())
            for reader in self._readers:
                reader.put(summary)

    def over(self, request: LiveRequest) -> None:
        """*request* has ended."""
        self._running.pop(request.number, None)
        trace = request.trace
        trace.settle()
        assert request.duration_s is not None
        if not request.nested:
            self.series.add(
                failed=request.state is LiveState.FAILED,
                duration_s=request.duration_s,
                first_byte_s=request.first_byte_s,
                input_tokens=trace.input_tokens or 0,
                output_tokens=trace.output_tokens or 0,
            )
        elif trace.input_tokens is not None:  # its time is part of the request that led to it, as its client sees it
            self.series.tokens(trace.input_tokens, trace.output_tokens or 0)
        self._ended.append(request)
        if trace.room is not None:
            self._kept_bytes += trace.kept_bytes
        if len(self._ended) > MAX_ENDED:
            eldest = self._ended.popleft().trace
            if eldest.room is not None:
                self._kept_bytes -= eldest.kept_bytes
        if self._kept_bytes:
            self._make_room()
        self.changed(request)

    def _make_room(self) -> None:
        limit = MAX_KEPT_BYTES if self.watched else 0
        for request in self._ended:
            if self._kept_bytes <= limit:
                return
            self._kept_bytes -= request.trace.kept_bytes
            request.trace.forget_bodies()

    # ---- for those who look ----

    @property
    def watched(self) -> bool:
        """Somebody reads the stream, or has looked at a request a moment ago."""
        if self._readers:
            return True
        if self._looked_until and monotonic() >= self._looked_until:
            self._looked_until = 0.0
        return self._looked_until > 0.0

    @property
    def taps(self) -> tuple[Callable[[object], None], ...]:
        """Hears of what attempts cost, and does nothing: that somebody listens is why it is counted at all."""
        return (_ignore,) if self.watched else ()

    @property
    def running(self) -> int:
        """Requests that run, and executions that plugins started."""
        return len(self._running)

    def look(self, request_id: str) -> LiveRequest | None:
        """The request of that id, the newest one if there are several; None = it is not known (any more)."""
        self._looked_until = monotonic() + LOOK_S
        for request in reversed((*self._ended, *self._running.values())):
            if request.id == request_id and (request.known or request.state is not LiveState.RUNNING):
                return request
        return None

    def recent(self, *, limit: int, after: str = "") -> tuple[tuple[LiveRequest, ...], str]:
        """Requests in the order of their beginnings, and the cursor behind them.

        Args:
          after: a cursor: those that have changed since, the ones that changed first; empty, or of another process: the
            newest ones.
        """
        seen = self._seen(after)
        found = [request for request in self._all() if request.revision > seen]
        if seen:
            found.sort(key=lambda request: request.revision)
            chosen = found[:limit]
            last = chosen[-1].revision if chosen else seen
        else:
            found.sort(key=lambda request: request.number)
            chosen, last = found[-limit:], self._revision
        return tuple(sorted(chosen, key=lambda request: request.number)), f"{self._instance}-{last}"

    def _all(self) -> Iterable[LiveRequest]:
        yield from self._ended
        yield from (request for request in self._running.values() if request.known)

    def _seen(self, cursor: str) -> int:
        instance, _, number = cursor.partition("-")
        if instance != self._instance or not (number.isascii() and number.isdigit() and len(number) < 19):
            return 0
        return int(number)

    @property
    def readers(self) -> int:
        """Of the stream."""
        return len(self._readers)

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Be told of all that begins, comes on and ends while the block runs."""
        reader = Reader()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            self._looked_until = max(self._looked_until, monotonic() + LOOK_S)
