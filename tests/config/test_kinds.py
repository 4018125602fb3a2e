"""Durations as Go writes them."""

import pytest

from cpa.config.kinds import duration_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("0", 0.0), ("+0", 0.0), ("1h", 3600.0), ("30m", 1800.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("90s", 90.0)],
        *[("100ms", 0.1), ("1us", 1e-6), ("1µs", 1e-6), ("1ns", 1e-9), (".5s", 0.5), ("1.s", 1.0), ("-2m", -120.0)],
        *[("1h1m1s1ms", 3661.001), ("2562047h", 2562047 * 3600.0)],
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_seconds(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "-", "+", "1", "h", "1 h", "1h ", "1d", "1H", "--1s", ".s", "2562048h", "1h30", "١s"]
)
def test_no_durations(text: str) -> None:
    assert duration_seconds(text) is None
