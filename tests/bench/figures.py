"""From measured values to ratios, verdicts, a table and a result file."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import attrs

from tests.bench.processes import SYSTEMS
from tests.bench.scenarios import Figure

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Figure key → system → one value per round; added latencies are still whole ones."""


@attrs.frozen
class Spread:
    """Median and range of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of one or more values."""
        found = sorted(values)
        return cls(median(found), found[0], found[-1])

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


def number(value: float) -> str:
    """Three digits or so; no negative zero."""
    value = 0.0 if abs(value) < 0.005 else value
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def values_of(figure: Figure, system: str, samples: Samples) -> list[float]:
    """One value per round; an added latency is the difference to the direct call of the same round."""
    values = list(samples.get(figure.key, {}).get(system, ()))
    if figure.added and system != "direct":
        direct = samples[figure.key]["direct"]
        return [value - base for value, base in zip(values, direct, strict=True)]
    return values


def ratio(figure: Figure, system: str, base: str, samples: Samples) -> Spread | None:
    """*system* over *base*, round by round; None where there is nothing to compare.

    An added latency over ``direct`` is a multiple of the whole direct call.
    """
    pairs = list(zip(values_of(figure, system, samples), values_of(figure, base, samples), strict=False))
    if not pairs or any(below <= 0 for _, below in pairs):
        return None
    return Spread.of(above / below for above, below in pairs)


@attrs.frozen(kw_only=True)
class Verdict:
    """One comparison with the acceptance's limit."""

    title: str
    ratio: float
    limit: float

    @property
    def passed(self) -> bool:
        """The median is within the limit."""
        return self.ratio <= self.limit

    def __str__(self) -> str:
        word = "pass" if self.passed else "FAIL"
        return f"{word}  {self.title}: {self.ratio:.2f} x baseline (limit {self.limit:g})"


def verdicts(figures: Iterable[Figure], samples: Samples) -> list[Verdict]:
    """All comparisons that have a limit."""
    found = []
    for figure in figures:
        against = ratio(figure, "cpa", "baseline", samples) if figure.limit else None
        if against is not None:
            found.append(Verdict(title=figure.title, ratio=against.median, limit=figure.limit))
    return found


def table(figures: Iterable[Figure], samples: Samples) -> str:
    """Markdown: ratios first, CPA's own value last."""
    rows = [
        ["figure", "better", "CPA / direct", "CPA / floor", "CPA / baseline", "floor / baseline", "CPA (absolute)"],
        ["---", "---", "---:", "---:", "---:", "---:", "---:"],
    ]
    for figure in figures:
        ratios = [ratio(figure, "cpa", base, samples) for base in ("direct", "floor", "baseline")]
        floor = ratio(figure, "floor", "baseline", samples)
        own = values_of(figure, "cpa", samples)
        rows.append(
            [
                figure.title,
                "more" if figure.more else "less",
                *("" if spread is None else str(spread) for spread in ratios),
                "" if floor is None else number(floor.median),
                f"{number(median(own))} {figure.unit}" if own else "",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(line(row, widths) for row in rows)


def line(row: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a Markdown table, aligned for the eye."""
    cells = []
    for column, (text, width) in enumerate(zip(row, widths, strict=True)):
        if set(text) <= {"-", ":"} and text:
            text = "-" * (width - 1) + (":" if text.endswith(":") else "-")
        cells.append(text.rjust(width) if column >= 2 else text.ljust(width))
    return "| " + " | ".join(cells) + " |"


def as_json(figures: Iterable[Figure], samples: Samples) -> list[dict[str, object]]:
    """Everything, for the result file."""
    found: list[dict[str, object]] = []
    for figure in figures:
        values = {name: values_of(figure, name, samples) for name in SYSTEMS}
        ratios = {
            f"{name}/{base}": spread
            for name, base in (("cpa", "direct"), ("cpa", "floor"), ("cpa", "baseline"), ("floor", "baseline"))
            if (spread := ratio(figure, name, base, samples)) is not None
        }
        found.append(
            {
                "key": figure.key,
                "title": figure.title,
                "unit": figure.unit,
                "better": "more" if figure.more else "less",
                "ratios": {key: rounded(attrs.asdict(spread)) for key, spread in ratios.items()},
                "values": {name: [significant(value) for value in each] for name, each in values.items() if each},
            }
        )
    return found


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Four digits: more would be noise."""
    return {key: significant(value) for key, value in values.items()}


def significant(value: float) -> float:
    """*value* with four digits."""
    return float(f"{value:.4g}")
