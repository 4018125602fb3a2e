"""From measured values to ratios, verdicts, a table and a result file."""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from statistics import median
from typing import Any

import attrs

from tests.bench.processes import SYSTEMS
from tests.bench.scenarios import Figure

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Figure key → system → one value per round; added latencies are still whole ones."""


@attrs.frozen(kw_only=True)
class Layout:
    """What a group of figures compares, and how its table looks.

    Attributes:
      systems: all that are measured.
      base: what `Figure.added` is added to.
      spreads, medians: columns, each the first system's value over the second's; the latter without their range.
      absolute: columns with the values themselves.
      judged: whose value has a limit. With *against*, its ratio to that system.
      control: a pair that ought to be equal. Where its ratio goes beyond the limit, the limit follows: that is noise.
    """

    name: str
    systems: tuple[str, ...]
    base: str
    spreads: tuple[tuple[str, str], ...]
    medians: tuple[tuple[str, str], ...] = ()
    absolute: tuple[str, ...]
    judged: str
    against: str = ""
    control: tuple[str, str] | None = None


NAMES = {"cpa": "CPA", "litellm": "LiteLLM"}
FORWARDING = Layout(
    name="Forwarding",
    systems=SYSTEMS,
    base="direct",
    spreads=(("cpa", "floor"), ("cpa", "uvicorn"), ("cpa", "baseline")),
    medians=(("cpa", "direct"), ("floor", "baseline")),
    absolute=("cpa", "floor"),
    judged="cpa",
    against="baseline",
)


@attrs.frozen(kw_only=True)
class Section:
    """One table."""

    layout: Layout
    figures: tuple[Figure, ...]

    def measured(self, samples: Samples) -> "Section":
        """Only the figures that there are values of."""
        return attrs.evolve(self, figures=tuple(figure for figure in self.figures if figure.key in samples))


@attrs.frozen
class Spread:
    """Median and range of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of one or more values, failed rounds beside."""
        found = sorted(value for value in values if not isnan(value))
        return cls(median(found), found[0], found[-1])

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


def number(value: float) -> str:
    """Three digits or so; no negative zero."""
    value = 0.0 if abs(value) < 0.005 else value
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def values_of(figure: Figure, system: str, samples: Samples, layout: Layout = FORWARDING) -> list[float]:
    """One value per round, NaN where it failed; an added latency is the difference to the base of the same round."""
    values = list(samples.get(figure.key, {}).get(system, ()))
    if values and figure.added and system != layout.base:
        base = samples[figure.key][layout.base]
        return [value - below for value, below in zip(values, base, strict=True)]
    return values


def ratio(figure: Figure, system: str, base: str, samples: Samples, layout: Layout = FORWARDING) -> Spread | None:
    """*system* over *base*, round by round; None where there is nothing to compare.

    An added latency over the layout's base is a multiple of the whole time of that.
    """
    found = (values_of(figure, name, samples, layout) for name in (system, base))
    pairs = [pair for pair in zip(*found, strict=False) if not any(map(isnan, pair))]
    if not pairs or any(below <= 0 for _, below in pairs):
        return None
    return Spread.of(above / below for above, below in pairs)


@attrs.frozen(kw_only=True)
class Verdict:
    """One comparison with a limit, a lower one with *least*. *unit* is ``x <system>`` for a ratio."""

    title: str
    value: float
    unit: str
    limit: float
    least: bool = False

    @property
    def passed(self) -> bool:
        """The median is within the limit."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        word = "pass" if self.passed else "FAIL"
        limit = f"{'at least' if self.least else 'limit'} {round(self.limit, 2):,g}"
        return f"{word}  {self.title}: {number(self.value)} {self.unit} ({limit})"

    def as_json(self) -> dict[str, object]:
        """For the result file."""
        return {
            "title": self.title,
            "ratio" if self.unit.startswith("x ") else "value": significant(self.value),
            "unit": self.unit,
            "limit": round(self.limit, 4),
            **({"least": True} if self.least else {}),
            "passed": self.passed,
        }


def verdicts(figures: Iterable[Figure], samples: Samples, layout: Layout = FORWARDING) -> list[Verdict]:
    """All comparisons that have a limit."""
    judged = (verdict_of(figure, samples, layout) for figure in figures if figure.limit)
    return [verdict for verdict in judged if verdict is not None]


def verdict_of(figure: Figure, samples: Samples, layout: Layout) -> Verdict | None:
    """None without values."""
    limit = figure.limit
    if layout.control is not None and (noise := ratio(figure, *layout.control, samples, layout)) is not None:
        limit = max(limit, noise.high)
    if layout.against:
        spread = ratio(figure, layout.judged, layout.against, samples, layout)
        unit = f"x {layout.against}"
    else:
        values = [value for value in values_of(figure, layout.judged, samples, layout) if not isnan(value)]
        spread = Spread.of(values) if values else None
        unit = figure.unit
    return None if spread is None else Verdict(title=figure.title, value=spread.median, unit=unit, limit=limit)


def table(figures: Iterable[Figure], samples: Samples, layout: Layout = FORWARDING) -> str:
    """Markdown: ratios first, absolute values last."""
    return rendered(as_json(figures, samples, layout), layout)


def rendered(rows: Sequence[Mapping[str, Any]], layout: Layout) -> str:
    """Markdown from what `as_json` gave; columns without any value are left out."""
    pairs = [
        pair for pair in (*layout.spreads, *layout.medians) if any("/".join(pair) in row["ratios"] for row in rows)
    ]
    names = [name for name in layout.absolute if any(name in row["values"] for row in rows)]
    ratios = [f"{shown(above)} / {shown(below)}" for above, below in pairs]
    head = ["figure", "better", *ratios, *(f"{shown(name)}{' (absolute)' if ratios else ''}" for name in names)]
    lines = [head, ["---", "---", *("---:" for _ in head[2:])]]
    for row in rows:
        cells = [row["title"], row["better"]]
        for pair in pairs:
            ratio = row["ratios"].get("/".join(pair))
            spread = None if ratio is None else Spread(**ratio)
            cells.append("" if spread is None else number(spread.median) if pair in layout.medians else str(spread))
        for name in names:
            values = row["values"].get(name)
            cells.append(f"{number(median(values))} {row['unit']}" if values else "")
        lines.append(cells)
    widths = [max(len(row[column]) for row in lines) for column in range(len(head))]
    return "\n".join(line(row, widths) for row in lines)


def shown(system: str) -> str:
    """A system's name in the head of a column."""
    return NAMES.get(system, system)


def line(row: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a Markdown table, aligned for the eye."""
    cells = []
    for column, (text, width) in enumerate(zip(row, widths, strict=True)):
        if set(text) <= {"-", ":"} and text:
            text = "-" * (width - 1) + (":" if text.endswith(":") else "-")
        cells.append(text.rjust(width) if column >= 2 else text.ljust(width))
    return "| " + " | ".join(cells) + " |"


def as_json(figures: Iterable[Figure], samples: Samples, layout: Layout = FORWARDING) -> list[dict[str, Any]]:
    """Everything, for the result file."""
    found: list[dict[str, Any]] = []
    for figure in figures:
        values = {
            name: [value for value in values_of(figure, name, samples, layout) if not isnan(value)]
            for name in layout.systems
        }
        ratios = {
            f"{name}/{base}": spread
            for name, base in (*layout.spreads, *layout.medians)
            if (spread := ratio(figure, name, base, samples, layout)) is not None
        }
        found.append(
            {
                "key": figure.key,
                "title": figure.title,
                "unit": figure.unit,
                "better": "more" if figure.more else "less",
                "ratios": {key: rounded(attrs.asdict(spread)) for key, spread in ratios.items()},
                "values": {name: list(map(significant, each)) for name, each in values.items() if each},
            }
        )
    return found


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Four digits: more would be noise."""
    return {key: significant(value) for key, value in values.items()}


def significant(value: float) -> float:
    """*value* with four digits."""
    return float(f"{value:.4g}")
