"""Bar charts as SVG: a few shapes and texts, readable on a light and on a dark page."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final

import attrs

from tests.bench.figures import number

WIDTH: Final = 760
LABEL: Final = 150
VALUE: Final = 150
BAR: Final = 18
GAP: Final = 6
GROUP_GAP: Final = 16
TOP: Final = 54
CHARACTER: Final = 6.6
"""Of the text's 12 px, a generous estimate: fonts differ, and nothing may be cut."""
COLOURS: Final = {
    "cpa": "#2563eb",
    "floor": "#64748b",
    "uvicorn": "#0d9488",
    "baseline": "#a16207",
    "litellm": "#dc2626",
    "direct": "#94a3b8",
}
"""Each has enough contrast on white and on black."""
OTHER: Final = "#7c3aed"
STYLE: Final = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2937}"
    ".t{font-weight:600;font-size:14px}.s{fill:#4b5563}.a{stroke:#9ca3af;stroke-width:1}"
    "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.s{fill:#9ca3af}.a{stroke:#6b7280}}"
)


@attrs.frozen(kw_only=True)
class Bar:
    """One value; *low* and *high* are its range. *system* gives the colour."""

    system: str
    label: str
    value: float
    low: float
    high: float


@attrs.frozen(kw_only=True)
class Group:
    """Bars that belong together, under a title; empty = none."""

    title: str
    bars: Sequence[Bar]


@attrs.frozen(kw_only=True)
class Chart:
    """A title, what is measured, and the groups.

    Attributes:
      logarithmic: for values that differ by more than a factor of twenty or so; bars then begin at a power of ten.
    """

    title: str
    unit: str
    groups: Sequence[Group]
    logarithmic: bool = False


@attrs.frozen
class Scale:
    """From values to pixels."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, chart: Chart) -> "Scale":
        """So that all bars of *chart* fit."""
        bars = [bar for group in chart.groups for bar in group.bars]
        high = max((bar.high for bar in bars), default=1.0) or 1.0
        positive = [bar.low for bar in bars if bar.low > 0] or [high / 10]
        if not chart.logarithmic:
            return cls(0.0, high, logarithmic=False)
        low = floor(log10(min(positive)))
        return cls(float(low), float(max(ceil(log10(high)), low + 1)), logarithmic=True)

    def __call__(self, value: float) -> float:
        room = WIDTH - LABEL - VALUE
        if self.logarithmic:
            value = log10(value) if value > 0 else self.low
        return min(max(0.0, (value - self.low) / (self.high - self.low)), 1.0) * room


def draw(chart: Chart) -> str:
    """The SVG document."""
    scale = Scale.of(chart)
    note = f"{chart.unit}, logarithmic scale" if chart.logarithmic else chart.unit
    parts = [text(8, 22, chart.title, "t"), text(8, 41, f"{note}; line: range of the rounds", "s")]
    at = float(TOP)
    for group in chart.groups:
        if group.title:
            parts.append(text(8, at + 12, group.title))
            at += BAR + 2
        top = at
        for bar in group.bars:
            parts += draw_bar(bar, scale, at)
            at += BAR + GAP
        parts.append(f'<line class="a" x1="{LABEL}" x2="{LABEL}" y1="{top - 2}" y2="{at - GAP + 2}"/>')
        at += GROUP_GAP
    height = int(at)
    title = escape(chart.title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{title}"><title>{title}</title><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def draw_bar(bar: Bar, scale: Scale, at: float) -> list[str]:
    """Label, bar, range and value."""
    middle = at + BAR / 2
    end = LABEL + max(scale(bar.value), 1.5)
    low, high = LABEL + scale(bar.low), LABEL + scale(bar.high)
    colour = COLOURS.get(bar.system, OTHER)
    return [
        text(LABEL - 8, middle + 4, bar.label, anchor="end"),
        f'<rect x="{LABEL}" y="{at:.1f}" width="{end - LABEL:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line class="a" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>',
        text(max(end, high) + 6, middle + 4, number(bar.value)),
    ]


def text(x: float, y: float, value: str, style: str = "", anchor: str = "") -> str:
    """One line of text; what would leave the picture is made narrower, not cut."""
    room = x - 4 if anchor else WIDTH - x - 4
    fitted = f' textLength="{room:.0f}" lengthAdjust="spacingAndGlyphs"' if len(value) * CHARACTER > room else ""
    kind = f' class="{style}"' if style else ""
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}{where}{fitted}>{escape(value)}</text>'
