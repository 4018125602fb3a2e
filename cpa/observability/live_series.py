"""What happened over time: sums and latencies in buckets of ten seconds, for a day, in bounded memory.

A bucket exists only where there was traffic, and its histograms have only the cells that were hit: a quiet proxy keeps
nothing, a busy one some 600 bytes per bucket. Latencies are told within 6 %, which is what cells of a width of 12 %
allow; for a chart of a proxy that is far below its noise.
"""

import math
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import attrs

STEP_S: Final = 10
KEPT_S: Final = 24 * 3600
MAX_MINUTES: Final = KEPT_S // 60
MAX_POINTS: Final = 360
"""Of one answer; longer times are told in wider steps."""
CELLS_PER_E: Final = 1 / math.log(1.125)
MIN_CELL: Final = -20
"""Holds all that is shorter than a tenth of a millisecond, too."""
MAX_CELL: Final = 200
"""Half a year."""
EDGES_S: Final = tuple(1.125**cell / 1000 for cell in range(MIN_CELL + 1, MAX_CELL + 1))
"""Where all cells but the first begin: a search among them costs a fifth of a logarithm and what belongs to it."""


@attrs.define(eq=False)
class Histogram:
    """How often a time was in which cell; cell *n* begins at 1.125 to the power of n milliseconds."""

    cells: dict[int, int] = attrs.field(factory=dict)
    count: int = 0

    def add(self, seconds: float) -> None:
        """Count one."""
        cell = MIN_CELL + bisect_right(EDGES_S, seconds)
        self.cells[cell] = self.cells.get(cell, 0) + 1
        self.count += 1

    def merge(self, other: "Histogram") -> None:
        """Count all that *other* has."""
        for cell, count in other.cells.items():
            self.cells[cell] = self.cells.get(cell, 0) + count
        self.count += other.count

    def percentile_ms(self, share: float) -> float | None:
        """The time within which *share* (0..1) of all were; None without any."""
        if not self.count:
            return None
        left = share * self.count
        for cell in sorted(self.cells):
            left -= self.cells[cell]
            if left <= 0:
                break
        return round(math.exp((cell + 0.5) / CELLS_PER_E), 2)


@attrs.define(eq=False)
class Bucket:
    """The requests that ended within one step."""

    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency: Histogram = attrs.field(factory=Histogram)
    first_byte: Histogram = attrs.field(factory=Histogram)

    def merge(self, other: "Bucket") -> None:
        """Add all that *other* has."""
        self.requests += other.requests
        self.errors += other.errors
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.latency.merge(other.latency)
        self.first_byte.merge(other.first_byte)


@attrs.frozen(kw_only=True)
class Point:
    """One bucket as it is shown. Times in Unix seconds and milliseconds; percentiles are None without data."""

    time: int
    requests: int
    errors: int
    input_tokens: int
    output_tokens: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    first_byte_p50_ms: float | None


@attrs.frozen(kw_only=True)
class Chart:
    """The buckets of some time, oldest first; those without traffic are left out. *step_s*: their width."""

    step_s: int
    points: tuple[Point, ...]
    requests: int
    errors: int
    input_tokens: int
    output_tokens: int


@attrs.define(eq=False)
class Series:
    """The last day. *clock*: Unix seconds."""

    clock: Callable[[], float] = time.time
    _buckets: OrderedDict[int, Bucket] = attrs.field(factory=OrderedDict, init=False)
    _shown: dict[int, Point] = attrs.field(factory=dict, init=False)  # of buckets that are over

    def add(
        self,
        *,
        failed: bool,
        duration_s: float,
        first_byte_s: float | None,
        input_tokens: int = 0,
        output_tokens: int = 0,
    ) -> None:
        """A request has ended now. Tokens: see `tokens`."""
        bucket = self._present()
        bucket.requests += 1
        bucket.input_tokens += input_tokens
        bucket.output_tokens += output_tokens
        bucket.errors += failed
        bucket.latency.add(duration_s)
        if first_byte_s is not None:
            bucket.first_byte.add(first_byte_s)

    def tokens(self, input_tokens: int, output_tokens: int) -> None:
        """So much was used, by what is no request of its own."""
        bucket = self._present()
        bucket.input_tokens += input_tokens
        bucket.output_tokens += output_tokens

    def _present(self) -> Bucket:
        number = int(self.clock()) // STEP_S
        return self._buckets.get(number) or self._open(number)

    def _open(self, number: int) -> Bucket:
        oldest = number - KEPT_S // STEP_S
        # A clock that was set back leaves some out of order, which then stay a while longer.
        while self._buckets and (known := next(iter(self._buckets))) <= oldest:
            del self._buckets[known]
            self._shown.pop(known, None)
        while len(self._buckets) >= KEPT_S // STEP_S:
            self._shown.pop(self._buckets.popitem(last=False)[0], None)
        self._shown.pop(number, None)
        bucket = self._buckets[number] = Bucket()
        return bucket

    def chart(self, minutes: int) -> Chart:
        """The last *minutes* (1 to `MAX_MINUTES`), in steps so wide that there are at most `MAX_POINTS`."""
        now = int(self.clock()) // STEP_S
        wide = max(1, math.ceil(minutes * 60 / STEP_S / MAX_POINTS))
        first = now - minutes * 60 // STEP_S + 1
        present = [(number, bucket) for number, bucket in self._buckets.items() if first <= number <= now]
        points = tuple(self._narrow(present, now) if wide == 1 else _wider(present, wide))
        return Chart(
            step_s=STEP_S * wide,
            points=points,
            requests=sum(point.requests for point in points),
            errors=sum(point.errors for point in points),
            input_tokens=sum(point.input_tokens for point in points),
            output_tokens=sum(point.output_tokens for point in points),
        )

    def _narrow(self, present: Iterable[tuple[int, Bucket]], now: int) -> Iterable[Point]:
        """Points of single buckets; those of the past are made once: somebody asks every other second."""
        for number, bucket in sorted(present, key=lambda pair: pair[0]):
            point = self._shown.get(number)
            if point is None:
                point = _point(number * STEP_S, bucket)
                if number < now:
                    self._shown[number] = point
            yield point


def _wider(present: Iterable[tuple[int, Bucket]], wide: int) -> Iterable[Point]:
    merged: dict[int, Bucket] = {}
    for number, bucket in present:
        merged.setdefault(number // wide, Bucket()).merge(bucket)
    return (_point(number * wide * STEP_S, merged[number]) for number in sorted(merged))


def _point(unix: int, bucket: Bucket) -> Point:
    return Point(
        time=unix,
        requests=bucket.requests,
        errors=bucket.errors,
        input_tokens=bucket.input_tokens,
        output_tokens=bucket.output_tokens,
        latency_p50_ms=bucket.latency.percentile_ms(0.5),
        latency_p95_ms=bucket.latency.percentile_ms(0.95),
        first_byte_p50_ms=bucket.first_byte.percentile_ms(0.5),
    )
