"""Sums and latencies over time: what a chart is made of, and that it stays small."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.observability.live_series import KEPT_S, MAX_CELL, MAX_MINUTES, MAX_POINTS, MIN_CELL, STEP_S, Histogram, Series


class Clock:
    """Unix seconds as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def busy(clock: Clock, *, steps: int, per_step: int = 1) -> Series:
    """A series with traffic in each of *steps* steps, the last of which is now."""
    series = Series(clock)
    for _ in range(steps):
        for _ in range(per_step):
            series.add(failed=False, duration_s=0.1, first_byte_s=0.05)
        clock.now += STEP_S
    clock.now -= STEP_S
    return series


@pytest.mark.parametrize("seconds", [0.0002, 0.001, 0.0123, 0.25, 1.0, 59.0, 600.0])
def test_latencies_are_told_within_six_per_cent(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    found = histogram.percentile_ms(0.5)
    assert found is not None
    assert found == pytest.approx(seconds * 1000, rel=0.065, abs=0.06)


def test_percentiles_are_of_all_that_was_counted() -> None:
    histogram = Histogram()
    assert histogram.percentile_ms(0.5) is None
    for number in range(1, 101):
        histogram.add(number / 100)
    other = Histogram()
    other.add(100.0)
    assert histogram.percentile_ms(0.5) == pytest.approx(500, rel=0.13)
    assert histogram.percentile_ms(0.95) == pytest.approx(950, rel=0.13)
    histogram.merge(other)
    assert histogram.percentile_ms(1.0) == pytest.approx(100_000, rel=0.07)
    assert histogram.count == 101


def test_times_that_are_none_do_no_harm() -> None:
    """A clock may stand still or go back between two looks."""
    histogram = Histogram()
    histogram.add(0.0)
    histogram.add(-5.0)
    assert histogram.percentile_ms(0.5) is not None


def test_points_are_the_steps_with_traffic() -> None:
    clock = Clock()
    series = Series(clock)
    series.add(failed=True, duration_s=1.0, first_byte_s=None)
    clock.now += 3 * STEP_S
    series.add(failed=False, duration_s=1.0, first_byte_s=0.5)
    series.tokens(7, 9)
    chart = series.chart(1)
    assert [(point.time, point.requests, point.errors) for point in chart.points] == [
        (1_800_000_000, 1, 1),
        (1_800_000_030, 1, 0),
    ]
    assert (chart.points[0].first_byte_p50_ms, chart.points[0].output_tokens) == (None, 0)
    assert (chart.step_s, chart.requests, chart.errors, chart.input_tokens, chart.output_tokens) == (10, 2, 1, 7, 9)


def test_what_goes_on_in_the_present_step_is_seen_at_once() -> None:
    """Only points of the past are made once."""
    clock = Clock()
    series = Series(clock)
    for count in (1, 2, 3):
        series.add(failed=False, duration_s=0.1, first_byte_s=None)
        assert [point.requests for point in series.chart(60).points] == [count]


def test_long_times_are_told_in_wider_steps_with_the_same_sums() -> None:
    clock = Clock()
    series = busy(clock, steps=1000, per_step=2)
    for minutes in (1, 59, 60, 61, 120, MAX_MINUTES):
        chart = series.chart(minutes)
        assert len(chart.points) <= MAX_POINTS + 1
        wanted = min(1000, minutes * 60 // STEP_S)
        assert chart.requests == sum(point.requests for point in chart.points) == 2 * wanted
        assert [point.time for point in chart.points] == sorted(point.time for point in chart.points)
        assert chart.step_s == STEP_S * math.ceil(minutes * 6 / MAX_POINTS)


def test_a_day_is_kept_and_no_more() -> None:
    """However long the proxy runs."""
    clock = Clock()
    series = busy(clock, steps=KEPT_S // STEP_S + 500)
    assert len(series._buckets) == KEPT_S // STEP_S
    assert series.chart(MAX_MINUTES).requests == KEPT_S // STEP_S
    clock.now += 2 * KEPT_S
    assert series.chart(MAX_MINUTES).points == ()
    series.add(failed=False, duration_s=0.1, first_byte_s=None)
    assert len(series._buckets) == 1


def test_a_clock_that_is_set_back_costs_nothing_but_its_own_time() -> None:
    clock = Clock()
    series = busy(clock, steps=10)
    clock.now -= 3600
    series.add(failed=False, duration_s=0.1, first_byte_s=None)
    assert series.chart(60).requests == 1
    clock.now += 3600
    assert series.chart(90).requests == 11


@given(st.floats(0.0001, 1e6))
def test_cells_are_twelve_per_cent_wide(seconds: float) -> None:
    """They are searched for, not computed; the sum of two processes must mean the same times."""
    histogram = Histogram()
    histogram.add(seconds)
    [cell] = histogram.cells
    assert 1.125**cell * 0.999999 <= seconds * 1000 <= 1.125 ** (cell + 1) * 1.000001


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e9, float("inf")])
def test_times_beyond_all_cells_are_in_the_last(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    assert list(histogram.cells) == [MAX_CELL if seconds > 1 else MIN_CELL]
