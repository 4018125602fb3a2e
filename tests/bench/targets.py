"""What issue 8 wants to be seen, as ratios of one run or as plain numbers. Missing one is told, not an error."""

from collections.abc import Iterable

import attrs

from tests.bench import figures
from tests.bench.figures import Layout, Samples, Spread, Verdict
from tests.bench.scenarios import DIRECTIONS, Figure


@attrs.frozen(kw_only=True)
class Target:
    """The median of a figure's *system*, or its ratio to *against*, is at most *limit*; at least, with *least*."""

    key: str
    system: str = "cpa"
    against: str = ""
    limit: float
    least: bool = False
    note: str = ""


def most(key: str, limit: float, against: str = "floor", note: str = "") -> Target:
    """CPA at most so many times *against*; with an empty one, an absolute limit."""
    return Target(key=key, against=against, limit=limit, note=note)


def litellm(key: str, limit: float, *, rate: bool = False) -> Target:
    """LiteLLM at least so many times CPA, or the reverse for a rate."""
    pair = ("cpa", "litellm") if rate else ("litellm", "cpa")
    return Target(key=key, system=pair[0], against=pair[1], limit=limit, least=True)


TARGETS = (
    litellm("small.cpu.32", 50),
    litellm("small.rate.32", 40, rate=True),
    most("small.cpu.32", 3),
    most("small.cpu.32", 1, "uvicorn", "stretch"),
    most("steady.p50", 2),
    most("steady.p99", 3),
    most("paced.cpu", 1.4),
    most("translated.cpu", 1.8),
    litellm("paced.cpu", 8),
    most("paced.delay.p50", 100, ""),
    most("paced.first.p50", 500, ""),
    Target(key="stall.streams", limit=512, least=True),
    litellm("agent.cpu", 100),
    most("agent.cpu", 1.5),
    *(litellm(f"agent.{direction.key}.300.cpu", 50) for direction in DIRECTIONS),
    most("memory.start", 90, ""),
    most("idle.kb", 30, ""),
    most("memory.growth", 1.05, ""),
    most("startup.time", 2, "imports"),
    Target(key="interceptors.1", system="process", against="bare", limit=1.5),
    Target(key="interceptors.4", system="process", against="bare", limit=1.5),
    Target(key="workers.rate", system="two", against="one", limit=1.7, least=True),
)


def judge(samples: Samples, layout: Layout, shown: Iterable[Figure]) -> list[Verdict]:
    """All targets among the figures *shown* that *layout* has values for."""
    by_key = {figure.key: figure for figure in shown}
    found = []
    for target in TARGETS:
        figure = by_key.get(target.key)
        if figure is None or not samples.get(target.key, {}).get(target.system):
            continue
        if target.against:
            spread = figures.ratio(figure, target.system, target.against, samples, layout)
        else:
            spread = Spread.of(figures.values_of(figure, target.system, samples, layout))
        if spread is None:
            continue
        who = "" if target.system == "cpa" else f"{figures.shown(target.system)}: "
        found.append(
            Verdict(
                title=f"{who}{figure.title}{f' ({target.note})' if target.note else ''}",
                value=spread.median,
                unit=f"x {figures.shown(target.against)}" if target.against else figure.unit,
                limit=target.limit,
                least=target.least,
            )
        )
    return found
