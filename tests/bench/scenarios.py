"""What is measured: each scenario is one job for every system in turn, and the figures that come out of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import quantiles

import attrs

from cpa.formats.names import Format
from tests.bench import payloads
from tests.bench.load import Job, Outcome
from tests.bench.sessions import session_body

CONCURRENCIES = (1, 32, 128)
STREAMS = 64
AGENTS = 4
SIZES = {payloads.AGENT_BODY_BYTES: "300 KB", 1 << 20: "1 MB"}


@attrs.frozen(kw_only=True)
class Scale:
    """How much of everything.

    Attributes:
      rounds: each measures all systems once, interleaved.
      seconds, warmup_s: of each measurement by time.
      idle_streams: for memory.
      repeats: of the measurements by count.
      call_s: of each kind of plugin call.
      workers: how many are started at once.
      long: with what takes minutes by itself.
      environment: virtual environment of the peers, None or missing = without their forwarder.
      paced_streams, burst_streams, lone_streams: through proxies with plugins, the last ones one after the other. Four
        plugins of schema 1 keep up with the first on one core.
    """

    rounds: int
    seconds: float
    warmup_s: float
    idle_streams: int
    repeats: int
    call_s: float = 0.2
    workers: int = 40
    paced_streams: int = 8
    burst_streams: int = 10
    lone_streams: int = 7
    long: bool = False
    environment: Path | None = None


FULL = Scale(rounds=5, seconds=0.9, warmup_s=0.25, idle_streams=1000, repeats=2)
QUICK = Scale(rounds=1, seconds=0.7, warmup_s=0.2, idle_streams=300, repeats=1, call_s=0.1)


@attrs.frozen(kw_only=True)
class Figure:
    """One number per system and round.

    Attributes:
      more: a larger number is the better one.
      added: what a forwarder adds to the direct call; its value is the difference.
      limit: the acceptance's factor over the baseline; 0 = none.
    """

    key: str
    title: str
    unit: str
    more: bool = False
    added: bool = False
    limit: float = 0.0


@attrs.frozen(kw_only=True)
class Scenario:
    """Attributes:
    job: for a port and a pid.
    figures: what `values` gives; CPU figures are missing for the direct call, which has no process of its own.
    plain: the job of systems that cannot translate, None = the same.
    systems: who takes part; empty = all.
    """

    name: str
    job: Callable[[Scale, int, int], Job]
    figures: tuple[Figure, ...]
    values: Callable[[Outcome], Mapping[str, float]]
    plain: Callable[[Scale, int, int], Job] | None = None
    systems: frozenset[str] = frozenset()

    def job_for(self, system: str, scale: Scale, port: int, pid: int) -> Job:
        """What *system* is asked to do."""
        job = self.plain if self.plain is not None and system in PLAIN else self.job
        return job(scale, port, pid)


PLAIN = frozenset({"direct", "floor", "uvicorn", "baseline"})
"""They forward bytes, in one protocol."""
TRANSLATORS = frozenset({"floor", "cpa", "litellm"})
"""Who translates, and what forwarding the same body costs."""
CPU_LIMIT = 1.5
"""Issue 2: CPU per request and per chunk at most this many times the baseline's."""


def small(concurrency: int) -> Scenario:
    """Small chat requests, as many at a time."""
    at = f"c={concurrency}"
    request = payloads.http_request(payloads.chat_body(payloads.SMALL_MODEL, stream=False))

    def job(scale: Scale, port: int, pid: int) -> Job:
        return Job(
            port=port,
            request=request,
            connections=concurrency,
            seconds=scale.seconds,
            warmup_s=scale.warmup_s,
            pid=pid,
        )

    def values(outcome: Outcome) -> Mapping[str, float]:
        p50, p99 = percentiles(outcome.latencies_s)
        return {
            f"small.cpu.{concurrency}": outcome.cpu_s / outcome.requests * 1e6,
            f"small.rate.{concurrency}": outcome.requests / outcome.seconds,
            f"small.p50.{concurrency}": p50 * 1e6,
            f"small.p99.{concurrency}": p99 * 1e6,
        }

    figures = (
        Figure(key=f"small.cpu.{concurrency}", title=f"CPU per small request, {at}", unit="µs", limit=CPU_LIMIT),
        Figure(key=f"small.rate.{concurrency}", title=f"small requests per second, {at}", unit="/s", more=True),
        Figure(key=f"small.p50.{concurrency}", title=f"added latency, median, {at}", unit="µs", added=True),
        Figure(key=f"small.p99.{concurrency}", title=f"added latency, 99th percentile, {at}", unit="µs", added=True),
    )
    return Scenario(name=f"small requests, {at}", job=job, figures=figures, values=values)


RATE = 400
"""Requests a second of the open loop."""


def steady() -> Scenario:
    """Small requests at a fixed rate, whether the ones before were answered or not."""
    at = f"{RATE} requests/s"
    request = payloads.http_request(payloads.chat_body(payloads.SMALL_MODEL, stream=False))

    def job(scale: Scale, port: int, pid: int) -> Job:
        return Job(
            port=port,
            request=request,
            connections=CONCURRENCIES[1],
            requests=int(RATE * 2 * scale.seconds),
            rate=RATE,
            pid=pid,
        )

    def values(outcome: Outcome) -> Mapping[str, float]:
        p50, p99 = percentiles(outcome.latencies_s)
        return {
            "steady.cpu": outcome.cpu_s / outcome.requests * 1e6,
            "steady.p50": p50 * 1e6,
            "steady.p99": p99 * 1e6,
        }

    figures = (
        Figure(key="steady.cpu", title=f"CPU per small request, {at}", unit="µs"),
        Figure(key="steady.p50", title=f"added latency, median, {at}", unit="µs", added=True),
        Figure(key="steady.p99", title=f"added latency, 99th percentile, {at}", unit="µs", added=True),
    )
    return Scenario(name=f"open loop, {at}", job=job, figures=figures, values=values)


def stream_job(request: bytes, *, spread_s: float) -> Callable[[Scale, int, int], Job]:
    """`STREAMS` streams at a time; without *spread_s* some of them one after the other."""

    def job(scale: Scale, port: int, pid: int) -> Job:
        repeats = 1 if spread_s else scale.repeats
        return Job(
            port=port, request=request, connections=STREAMS, requests=STREAMS * repeats, spread_s=spread_s, pid=pid
        )

    return job


def paced(name: str, title: str, request: bytes, *, plain: bytes | None = None) -> Scenario:
    """Streams whose chunks come one by one; how long each took is known."""

    def values(outcome: Outcome) -> Mapping[str, float]:
        delay_p50, delay_p99 = percentiles(outcome.delays_s)
        first_p50, first_p99 = percentiles(outcome.first_s)
        return {
            f"{name}.cpu": outcome.cpu_s / len(outcome.delays_s) * 1e6,
            f"{name}.delay.p50": delay_p50 * 1e6,
            f"{name}.delay.p99": delay_p99 * 1e6,
            f"{name}.first.p50": first_p50 * 1e6,
            f"{name}.first.p99": first_p99 * 1e6,
        }

    figures = (
        Figure(key=f"{name}.cpu", title=f"CPU per chunk, {title}", unit="µs", limit=CPU_LIMIT if plain is None else 0),
        Figure(key=f"{name}.delay.p50", title=f"added delay of a chunk, median, {title}", unit="µs", added=True),
        Figure(key=f"{name}.delay.p99", title=f"added delay of a chunk, 99th, {title}", unit="µs", added=True),
        Figure(key=f"{name}.first.p50", title=f"added time to first byte, median, {title}", unit="µs", added=True),
        Figure(key=f"{name}.first.p99", title=f"added time to first byte, 99th, {title}", unit="µs", added=True),
    )
    return Scenario(
        name=f"streams, {title}",
        job=stream_job(request, spread_s=SPREAD_S),
        plain=None if plain is None else stream_job(plain, spread_s=SPREAD_S),
        systems=frozenset() if plain is None else TRANSLATORS | {"direct"},
        figures=figures,
        values=values,
    )


def burst(name: str, title: str, request: bytes) -> Scenario:
    """Streams as fast as they are taken."""

    def values(outcome: Outcome) -> Mapping[str, float]:
        return {
            f"{name}.cpu": outcome.cpu_s / outcome.events * 1e6,
            f"{name}.rate": outcome.events / outcome.seconds,
        }

    figures = (
        Figure(key=f"{name}.cpu", title=f"CPU per chunk, {title}", unit="µs", limit=CPU_LIMIT),
        Figure(key=f"{name}.rate", title=f"chunks per second, {title}", unit="/s", more=True),
    )
    return Scenario(name=f"streams, {title}", job=stream_job(request, spread_s=0.0), figures=figures, values=values)


def agent(name: str = "agent", size_bytes: int = payloads.AGENT_BODY_BYTES) -> Scenario:
    """Large request bodies, small answers."""
    body = f"{SIZES[size_bytes]} body, c={AGENTS}"
    request = payloads.http_request(payloads.agent_body(payloads.SMALL_MODEL, size_bytes))

    def values(outcome: Outcome) -> Mapping[str, float]:
        return {
            f"{name}.cpu": outcome.cpu_s / outcome.requests * 1e6,
            f"{name}.rate": outcome.requests / outcome.seconds,
            f"{name}.p50": percentiles(outcome.latencies_s)[0] * 1e6,
        }

    figures = (
        Figure(key=f"{name}.cpu", title=f"CPU per request with a {body}", unit="µs"),
        Figure(key=f"{name}.rate", title=f"requests per second with a {body}", unit="/s", more=True),
        Figure(key=f"{name}.p50", title=f"added latency of a {body}, median", unit="µs", added=True),
    )
    return Scenario(name=f"{SIZES[size_bytes]} agent body", job=agent_job(request), figures=figures, values=values)


def agent_job(request: bytes, *, part: float = 1.0) -> Callable[[Scale, int, int], Job]:
    """`AGENTS` at a time, for *part* of the usual time."""

    def job(scale: Scale, port: int, pid: int) -> Job:
        return Job(
            port=port,
            request=request,
            connections=AGENTS,
            seconds=scale.seconds * part,
            warmup_s=scale.warmup_s * part,
            pid=pid,
        )

    return job


@attrs.frozen(kw_only=True)
class Direction:
    """A client's protocol and the provider's."""

    key: str
    title: str
    client: Format
    model: str

    @property
    def path(self) -> str:
        """Where the client asks."""
        return payloads.CLAUDE_PATH if self.client is Format.CLAUDE else payloads.PATH


DIRECTIONS = (
    Direction(key="chat-claude", title="OpenAI → Anthropic", client=Format.OPENAI, model=payloads.CLAUDE_MODEL),
    Direction(key="claude-chat", title="Anthropic → OpenAI", client=Format.CLAUDE, model=payloads.MESSAGES_MODEL),
    Direction(key="chat-gemini", title="OpenAI → Gemini", client=Format.OPENAI, model=payloads.GEMINI_MODEL),
    Direction(key="claude-gemini", title="Anthropic → Gemini", client=Format.CLAUDE, model=payloads.GEMINI_MODEL),
)


def translated(direction: Direction, size_bytes: int) -> Scenario:
    """Large request bodies that have to be carried into another protocol."""
    key = f"agent.{direction.key}.{size_bytes >> 10}"
    body = f"{SIZES[size_bytes]} body, {direction.title}"

    def job(scale: Scale, port: int, pid: int) -> Job:
        # Made when it is wanted: a session of 1 MB takes as long as a measurement.
        marks = direction.model != payloads.GEMINI_MODEL
        body = session_body(direction.client, direction.model, size_bytes, cache_marks=marks)
        return agent_job(payloads.http_request(body, direction.path), part=0.5)(scale, port, pid)

    def values(outcome: Outcome) -> Mapping[str, float]:
        return {
            f"{key}.cpu": outcome.cpu_s / outcome.requests * 1e6,
            f"{key}.rate": outcome.requests / outcome.seconds,
        }

    return Scenario(
        name=f"{SIZES[size_bytes]} agent body, {direction.title}",
        job=job,
        figures=(
            Figure(key=f"{key}.cpu", title=f"CPU per request, {body}", unit="µs"),
            Figure(key=f"{key}.rate", title=f"requests per second, {body}", unit="/s", more=True),
        ),
        values=values,
        systems=TRANSLATORS,
    )


def big() -> Scenario:
    """One long streamed answer at a time."""
    request = payloads.http_request(payloads.chat_body(payloads.BIG_MODEL, stream=True))

    def job(scale: Scale, port: int, pid: int) -> Job:
        return Job(port=port, request=request, connections=1, requests=scale.repeats, pid=pid)

    def values(outcome: Outcome) -> Mapping[str, float]:
        megabytes = outcome.size_bytes / 1e6
        return {"big.cpu": outcome.cpu_s / megabytes * 1e6, "big.rate": megabytes / outcome.seconds}

    figures = (
        Figure(key="big.cpu", title="CPU per MB of a 10 MB streamed answer", unit="µs"),
        Figure(key="big.rate", title="MB per second of a 10 MB streamed answer", unit="MB/s", more=True),
    )
    return Scenario(name="10 MB streamed answer", job=job, figures=figures, values=values)


def percentiles(latencies_s: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    cuts = quantiles(latencies_s, n=100, method="inclusive") if len(latencies_s) > 1 else latencies_s * 99
    return cuts[49], cuts[98]


IDLE = Figure(key="idle.kb", title="memory per idle stream", unit="KB")
PAUSE_S = payloads.CHUNK_PAUSE_MS / 1000
SPREAD_S = 0.7
"""Streams of 2 s are opened one by one over this time, and not in step with their chunks."""
STREAM_REQUEST = payloads.http_request(payloads.chat_body(payloads.PACED_MODEL, stream=True))
BURST = burst(
    "burst",
    f"{STREAMS} streams at full speed",
    payloads.http_request(payloads.chat_body(payloads.BURST_MODEL, stream=True)),
)
PACED = paced("paced", f"{STREAMS} paced streams", STREAM_REQUEST)
TRANSLATED = paced(
    "translated",
    f"{STREAMS} paced streams, Anthropic → OpenAI",
    payloads.http_request(payloads.claude_body(payloads.MESSAGES_PACED_MODEL, stream=True), payloads.CLAUDE_PATH),
    plain=STREAM_REQUEST,
)
AGENT_DIRECTIONS = tuple(translated(direction, payloads.AGENT_BODY_BYTES) for direction in DIRECTIONS)
LARGE = (agent("agent.1024", 1 << 20), *(translated(direction, 1 << 20) for direction in DIRECTIONS))
"""Bodies of 1 MB; only beside peers, where nothing else takes so long."""
SCENARIOS = (
    *map(small, CONCURRENCIES),
    steady(),
    PACED,
    TRANSLATED,
    BURST,
    agent(),
    *AGENT_DIRECTIONS,
    big(),
)
FIGURES = (*(figure for scenario in SCENARIOS for figure in scenario.figures), IDLE)


def idle_job(port: int, count: int) -> Job:
    """*count* streams that have begun and then wait."""
    request = payloads.http_request(payloads.chat_body(payloads.IDLE_MODEL, stream=True))
    return Job(port=port, request=request, connections=count, hold_events=payloads.IDLE_EVENTS)
