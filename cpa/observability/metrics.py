"""Prometheus metrics, in a registry of our own.

Labels have few values on purpose: protocols are an enum, providers come from the configuration (and are counted), and
neither models nor keys nor paths of clients ever become one; each label value is a time series that lives for ever.
Children are looked up in plain dicts, so that a request costs a few microseconds.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cpa.observability.counts import Growing, Moving, Observing, OwnCounter, OwnGauge, OwnHistogram

MAX_PROVIDERS: Final = 200
"""Distinct provider labels; what comes later is ``other``."""
MAX_PROTOCOLS: Final = 24
"""The same for protocols: far more than there are."""
OTHER: Final = "other"
DURATION_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds. Answers of models take from tenths of a second to minutes."""
FIRST_BYTE_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

SHARED_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable: where the processes of one port keep their metrics, so that each shows those of all. The
library reads it when it is imported."""


class Metrics(Protocol):
    """What the layers report. All methods are sync, cheap, and safe in any order; call them in the Trio thread."""

    @property
    def enabled(self) -> bool:
        """False: reports go nowhere; callers may save the making of arguments."""
        ...

    def request_started(self) -> None:
        """A client request begins; each one ends with `request_finished`."""
        ...

    def request_finished(
        self,
        *,
        protocol: str,
        provider: str,
        status: int,
        stream: bool,
        duration_s: float,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """It ended. *provider*: the last one tried, empty = none; bytes: of the bodies, client side."""
        ...

    def first_byte(self, provider: str, seconds: float) -> None:
        """The first piece of a provider's answer went to the client, *seconds* after the request began."""
        ...

    def stream_opened(self) -> None:
        """A streamed answer begins; each one ends with `stream_closed`."""
        ...

    def stream_closed(self) -> None:
        """It ended."""
        ...

    def attempt(self, provider: str, status: int) -> None:
        """A provider was tried; 0 = no answer."""
        ...

    def client_disconnected(self, protocol: str) -> None:
        """A client left before its answer was complete."""
        ...

    def config_reloaded(self, *, ok: bool) -> None:
        """A reload succeeded or was refused."""
        ...

    def watch_connections(self, count_open: Callable[[], int], count_idle: Callable[[], int]) -> None:
        """Where to read the numbers of connections to providers; the first counts the idle ones too."""
        ...

    def watch_dropped(self, log_lines: Callable[[], int], request_logs: Callable[[], int]) -> None:
        """Where to read how many log lines and request logs were dropped since the start."""
        ...

    def render(self) -> tuple[bytes, str]:
        """The exposition and its content type. About a millisecond per hundred series."""
        ...


class NullMetrics:
    """For when metrics are off."""

    enabled = False

    def request_started(self) -> None:
        """Nothing."""

    def request_finished(
        self,
        *,
        protocol: str,
        provider: str,
        status: int,
        stream: bool,
        duration_s: float,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Nothing."""

    def first_byte(self, provider: str, seconds: float) -> None:
        """Nothing."""

    def stream_opened(self) -> None:
        """Nothing."""

    def stream_closed(self) -> None:
        """Nothing."""

    def attempt(self, provider: str, status: int) -> None:
        """Nothing."""

    def client_disconnected(self, protocol: str) -> None:
        """Nothing."""

    def config_reloaded(self, *, ok: bool) -> None:
        """Nothing."""

    def watch_connections(self, count_open: Callable[[], int], count_idle: Callable[[], int]) -> None:
        """Nothing."""

    def watch_dropped(self, log_lines: Callable[[], int], request_logs: Callable[[], int]) -> None:
        """Nothing."""

    def render(self) -> tuple[bytes, str]:
        """An empty exposition."""
        return b"", CONTENT_TYPE_LATEST


class _Watched(Collector):
    """Numbers that others keep, read when somebody asks."""

    def __init__(self) -> None:
        self.count_open: Callable[[], int] = int
        self.count_idle: Callable[[], int] = int
        self.log_lines: Callable[[], int] = int
        self.request_logs: Callable[[], int] = int

    def collect(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily(
            "cpa_upstream_connections", "Connections to providers; open counts idle ones too.", labels=["state"]
        )
        connections.add_metric(["open"], self.count_open())
        connections.add_metric(["idle"], self.count_idle())
        yield connections
        yield CounterMetricFamily("cpa_log_lines_dropped", "Log lines that nobody took in time.", self.log_lines())
        yield CounterMetricFamily(
            "cpa_request_logs_dropped", "Request logs that were not written.", self.request_logs()
        )


class _PerProvider:
    """The children that one (protocol, provider) needs; made once."""

    __slots__ = ("bytes_in", "bytes_out", "duration")

    def __init__(self, owner: "PrometheusMetrics", protocol: str, provider: str) -> None:
        self.duration = owner.durations.labels(protocol, provider)
        self.bytes_in = owner.request_bytes.labels(protocol, provider)
        self.bytes_out = owner.response_bytes.labels(protocol, provider)


class PrometheusMetrics:
    """`Metrics` that keeps them."""

    enabled = True

    def __init__(self, *, shared: bool | None = None) -> None:
        """*shared*: with the other processes of one port; None = as the environment says."""
        shared = SHARED_DIRECTORY in os.environ if shared is None else shared
        counter, histogram = (Counter, Histogram) if shared else (OwnCounter, OwnHistogram)
        # Otherwise each counter and histogram has a second series that hardly anybody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation here
        registry = self.registry = CollectorRegistry(auto_describe=True)
        both = ("protocol", "provider")
        self.requests = counter(
            "cpa_requests", "Client requests that ended.", (*both, "status", "stream"), registry=registry
        )
        self.durations = histogram(
            "cpa_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            both,
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.first_bytes = histogram(
            "cpa_first_byte_seconds",
            "From the head of a request to the first byte of the provider's answer.",
            ("provider",),
            buckets=FIRST_BYTE_BUCKETS,
            registry=registry,
        )
        self.request_bytes = counter("cpa_request_bytes", "Bodies from clients.", both, registry=registry)
        self.response_bytes = counter("cpa_response_bytes", "Bodies to clients.", both, registry=registry)
        self.attempts = counter(
            "cpa_upstream_attempts", "Requests to providers.", ("provider", "status"), registry=registry
        )
        self.disconnects = counter(
            "cpa_client_disconnects", "Clients that left before the end.", ("protocol",), registry=registry
        )
        self.reloads = counter("cpa_config_reloads", "Configuration reloads.", ("result",), registry=registry)
        gauge = partial(Gauge, multiprocess_mode="livesum") if shared else OwnGauge
        self.in_flight: Moving = gauge("cpa_requests_in_flight", "Client requests being served.", registry=registry)
        self.open_streams: Moving = gauge("cpa_open_streams", "Streamed answers being sent.", registry=registry)
        for result in ("ok", "failed"):
            self.reloads.labels(result)
        self._watched = _Watched()
        registry.register(self._watched)
        ProcessCollector(registry=registry)
        self._providers: set[str] = set()
        self._protocols: set[str] = set()
        self._ended: dict[tuple[str, str, int, bool], Growing] = {}
        self._per_provider: dict[tuple[str, str], _PerProvider] = {}
        self._attempted: dict[tuple[str, int], Growing] = {}
        self._first: dict[str, Observing] = {}

    def _provider(self, name: str) -> str:
        return name if name in self._providers else _bounded(name, self._providers, MAX_PROVIDERS)

    def _protocol(self, name: str) -> str:
        return name if name in self._protocols else _bounded(name, self._protocols, MAX_PROTOCOLS)

    def request_started(self) -> None:
        """See `Metrics`."""
        self.in_flight.inc()

    def request_finished(
        self,
        *,
        protocol: str,
        provider: str,
        status: int,
        stream: bool,
        duration_s: float,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """See `Metrics`."""
        self.in_flight.dec()
        provider, protocol = self._provider(provider), self._protocol(protocol)
        key = (protocol, provider, status, stream)
        ended = self._ended.get(key)
        if ended is None:
            ended = self.requests.labels(protocol, provider, _status(status), "true" if stream else "false")
            self._ended[key] = ended
        ended.inc()
        rest = self._per_provider.get((protocol, provider))
        if rest is None:
            rest = self._per_provider[protocol, provider] = _PerProvider(self, protocol, provider)
        rest.duration.observe(duration_s)
        rest.bytes_in.inc(bytes_in)
        rest.bytes_out.inc(bytes_out)

    def first_byte(self, provider: str, seconds: float) -> None:
        """See `Metrics`."""
        provider = self._provider(provider)
        child = self._first.get(provider)
        if child is None:
            child = self._first[provider] = self.first_bytes.labels(provider)
        child.observe(seconds)

    def stream_opened(self) -> None:
        """See `Metrics`."""
        self.open_streams.inc()

    def stream_closed(self) -> None:
        """See `Metrics`."""
        self.open_streams.dec()

    def attempt(self, provider: str, status: int) -> None:
        """See `Metrics`."""
        provider = self._provider(provider)
        child = self._attempted.get((provider, status))
        if child is None:
            child = self._attempted[provider, status] = self.attempts.labels(provider, _status(status))
        child.inc()

    def client_disconnected(self, protocol: str) -> None:
        """See `Metrics`."""
        self.disconnects.labels(self._protocol(protocol)).inc()

    def config_reloaded(self, *, ok: bool) -> None:
        """See `Metrics`."""
        self.reloads.labels("ok" if ok else "failed").inc()

    def watch_connections(self, count_open: Callable[[], int], count_idle: Callable[[], int]) -> None:
        """See `Metrics`."""
        self._watched.count_open, self._watched.count_idle = count_open, count_idle

    def watch_dropped(self, log_lines: Callable[[], int], request_logs: Callable[[], int]) -> None:
        """See `Metrics`."""
        self._watched.log_lines, self._watched.request_logs = log_lines, request_logs

    def render(self) -> tuple[bytes, str]:
        """See `Metrics`."""
        if SHARED_DIRECTORY not in os.environ:
            return generate_latest(self.registry), CONTENT_TYPE_LATEST
        # Without what only this process knows: connections, dropped lines, its memory.
        of_all = CollectorRegistry()
        multiprocess.MultiProcessCollector(of_all)  # type: ignore[no-untyped-call]
        return generate_latest(of_all), CONTENT_TYPE_LATEST


def forget_process(directory: str, pid: int) -> None:
    """*pid* has ended: what it had in flight is over; what it counted stays. *directory*: `SHARED_DIRECTORY`'s."""
    multiprocess.mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]


def _bounded(name: str, seen: set[str], limit: int) -> str:
    if not name:
        return "none"
    if name not in seen:
        if len(seen) >= limit:
            return OTHER
        seen.add(name)
    return name


def _status(status: int) -> str:
    if status == 0:
        return "none"
    # A provider may send any three digits; 600 to 999 and the like are one series.
    return str(status) if 100 <= status < 600 else OTHER
