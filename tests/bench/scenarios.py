"""What is measured: each scenario is one job for every system in turn, and the figures that come out of it."""

from collections.abc import Callable, Mapping
from statistics import quantiles

import attrs

from tests.bench import payloads
from tests.bench.load import Job, Outcome

CONCURRENCIES = (1, 32, 128)
STREAMS = 64


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


FULL = Scale(rounds=5, seconds=1.2, warmup_s=0.25, idle_streams=1000, repeats=2)
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
    """

    name: str
    job: Callable[[Scale, int, int], Job]
    figures: tuple[Figure, ...]
    values: Callable[[Outcome], Mapping[str, float]]


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


def streams(name: str, title: str, model: str, *, spread_s: float, paced: bool) -> Scenario:
    """`STREAMS` streams at a time."""
    request = payloads.http_request(payloads.chat_body(model, stream=True))

    def job(scale: Scale, port: int, pid: int) -> Job:
        repeats = 1 if paced else scale.repeats
        return Job(
            port=port,
            request=request,
            connections=STREAMS,
            requests=STREAMS * repeats,
            spread_s=spread_s,
            pid=pid,
        )

    def values(outcome: Outcome) -> Mapping[str, float]:
        return {
            f"{name}.cpu": outcome.cpu_s / outcome.events * 1e6,
            f"{name}.rate": outcome.events / outcome.seconds,
        }

    cpu = Figure(key=f"{name}.cpu", title=f"CPU per chunk, {title}", unit="µs", limit=CPU_LIMIT)
    rate = Figure(key=f"{name}.rate", title=f"chunks per second, {title}", unit="/s", more=True)
    # Paced streams come at the provider's rate whatever forwards them.
    figures = (cpu,) if paced else (cpu, rate)
    return Scenario(name=f"streams, {title}", job=job, figures=figures, values=values)


def agent() -> Scenario:
    """Large request bodies, small answers."""
    request = payloads.http_request(payloads.agent_body(payloads.SMALL_MODEL))

    def job(scale: Scale, port: int, pid: int) -> Job:
        return Job(port=port, request=request, connections=4, seconds=scale.seconds, warmup_s=scale.warmup_s, pid=pid)

    def values(outcome: Outcome) -> Mapping[str, float]:
        return {
            "agent.cpu": outcome.cpu_s / outcome.requests * 1e6,
            "agent.p50": percentiles(outcome.latencies_s)[0] * 1e6,
        }

    figures = (
        Figure(key="agent.cpu", title="CPU per request with a 300 KB body, c=4", unit="µs"),
        Figure(key="agent.p50", title="added latency of a 300 KB body, median, c=4", unit="µs", added=True),
    )
    return Scenario(name="300 KB agent body", job=job, figures=figures, values=values)


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
BURST = streams("burst", f"{STREAMS} streams at full speed", payloads.BURST_MODEL, spread_s=0.0, paced=False)
PACED = streams("paced", f"{STREAMS} paced streams", payloads.PACED_MODEL, spread_s=PAUSE_S, paced=True)
SCENARIOS = (
    *map(small, CONCURRENCIES),
    PACED,
    BURST,
    agent(),
    big(),
)
FIGURES = (*(figure for scenario in SCENARIOS for figure in scenario.figures), IDLE)


def idle_job(port: int, count: int) -> Job:
    """*count* streams that have begun and then wait."""
    request = payloads.http_request(payloads.chat_body(payloads.IDLE_MODEL, stream=True))
    return Job(port=port, request=request, connections=count, hold_events=payloads.IDLE_EVENTS)
