"""Counters, gauges and histograms of one process: the library's names and exposition, a fifth of its cost.

Theory of operation. The library's values may be changed by any thread: each change is three calls and a lock, and an
observation walks through the bounds. Ours are changed by one thread only (`metrics.Metrics` says so), so that a change
is an addition; they become the library's families when somebody scrapes. Where several processes share their metrics,
which the library does with files, its own classes take the place of these, which have the same constructors.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Growing(Protocol):
    """One series of a counter."""

    def inc(self, amount: float = 1) -> None:
        """Add *amount*, >= 0."""
        ...


class Observing(Protocol):
    """One series of a histogram."""

    def observe(self, amount: float) -> None:
        """Count one of that size."""
        ...


class Moving(Protocol):
    """A gauge without labels."""

    def inc(self, amount: float = 1) -> None:
        """Add *amount*."""
        ...

    def dec(self, amount: float = 1) -> None:
        """Take *amount* away."""
        ...


class Count:
    """One number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """See `Growing`."""
        self.value += amount


class Sizes:
    """How many were at most so large.

    Attributes:
      cells: for each bound those that no smaller one holds; the last for what is larger than all.
      total: of all sizes.
    """

    __slots__ = ("_bounds", "cells", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.cells = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, amount: float) -> None:
        """See `Observing`."""
        self.total += amount
        self.cells[bisect_left(self._bounds, amount)] += 1


class OwnCounter(Collector):
    """As `prometheus_client.Counter` with labels."""

    def __init__(self, name: str, documentation: str, labelnames: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._documentation, self._labelnames = name, documentation, labelnames
        self._children: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The series of these labels; made when it is asked for first."""
        return self._children.setdefault(values, Count())

    def collect(self) -> Iterator[Metric]:
        """For the library."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for values, child in self._children.items():
            family.add_metric(values, child.value)
        yield family


class OwnHistogram(Collector):
    """As `prometheus_client.Histogram` with labels. *buckets*: upper bounds, rising, without the infinite one."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        registry: CollectorRegistry,
        *,
        buckets: Sequence[float],
    ) -> None:
        self._name, self._documentation, self._labelnames = name, documentation, labelnames
        self._bounds = tuple(buckets)
        self._told = [*map(floatToGoString, buckets), "+Inf"]
        self._children: dict[tuple[str, ...], Sizes] = {}
        registry.register(self)

    def labels(self, *values: str) -> Sizes:
        """The series of these labels; made when it is asked for first."""
        return self._children.setdefault(values, Sizes(self._bounds))

    def collect(self) -> Iterator[Metric]:
        """For the library."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for values, child in self._children.items():
            buckets, count = [], 0
            for bound, more in zip(self._told, child.cells, strict=True):
                count += more
                buckets.append((bound, count))
            family.add_metric(values, buckets, child.total)
        yield family


class OwnGauge(Collector):
    """As `prometheus_client.Gauge` without labels."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._value = 0.0
        registry.register(self)

    def inc(self, amount: float = 1) -> None:
        """See `Moving`."""
        self._value += amount

    def dec(self, amount: float = 1) -> None:
        """See `Moving`."""
        self._value -= amount

    def collect(self) -> Iterator[Metric]:
        """For the library."""
        yield GaugeMetricFamily(self._name, self._documentation, self._value)
