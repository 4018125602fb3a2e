"""`python -m tests.bench.report`: tables and charts of the result file into docs/performance.md, between its markers.

``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->`` enclose what is replaced; all other text stays as it is. A part
that the result file does not have stays as well.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs

from tests.bench import figures, peers, results
from tests.bench.__main__ import SECTIONS
from tests.bench.charts import Bar, Chart, Group, draw
from tests.bench.figures import Section, number
from tests.bench.processes import ROOT

PAGE: Final = ROOT / "docs" / "performance.md"
CHARTS: Final = ROOT / "docs" / "performance"
Row = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Sketch:
    """A chart to be made of figures: their keys with the titles of their groups, and whose values are shown."""

    name: str
    title: str
    keys: Mapping[str, str]
    systems: Sequence[str]
    of_peers: bool = False
    logarithmic: bool = False


ALL: Final = ("floor", "uvicorn", "cpa", "litellm")
OURS: Final = ("floor", "uvicorn", "baseline", "cpa")
SKETCHES: Final = (
    Sketch(
        name="requests",
        title="CPU time per request",
        keys={
            "small.cpu.32": "small request, 32 at a time",
            "agent.cpu": "300 KB body, same protocol",
            "agent.chat-claude.300.cpu": "300 KB body, OpenAI to Anthropic",
            "agent.claude-chat.300.cpu": "300 KB body, Anthropic to OpenAI",
        },
        systems=ALL,
        of_peers=True,
        logarithmic=True,
    ),
    Sketch(
        name="rates",
        title="Requests per second, one worker on one core",
        keys={"small.rate.1": "1 at a time", "small.rate.32": "32 at a time", "small.rate.128": "128 at a time"},
        systems=ALL,
        of_peers=True,
        logarithmic=True,
    ),
    Sketch(
        name="streams",
        title="CPU time per streamed chunk, 64 streams of 100 chunks a second",
        keys={"paced.cpu": "passed through", "translated.cpu": "Anthropic client, OpenAI provider (others forward)"},
        systems=ALL,
        of_peers=True,
        logarithmic=True,
    ),
    Sketch(
        name="latency",
        title="Added latency at 400 requests a second",
        keys={"steady.p50": "median", "steady.p99": "99th percentile"},
        systems=OURS,
        logarithmic=True,
    ),
    Sketch(
        name="delay",
        title="Added delay of a chunk, 64 streams of 100 chunks a second",
        keys={"paced.delay.p50": "median", "paced.delay.p99": "99th percentile"},
        systems=OURS,
        logarithmic=True,
    ),
    Sketch(name="memory", title="Memory per idle stream", keys={"idle.kb": ""}, systems=ALL, of_peers=True),
    Sketch(
        name="capacity",
        title="Streams of 25 chunks a second with no chunk later than 100 ms",
        keys={"stall.streams": ""},
        systems=OURS,
    ),
)


def slug(name: str) -> str:
    """A section's name as part of a marker."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def replaced(page: str, name: str, content: str) -> str:
    """*page* with *content* between the markers of *name*; unchanged where it has none."""
    start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    pattern = re.compile(re.escape(start) + r".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{start}\n{content}\n{end}", page)


def table_of(section: Section, rows: Sequence[Row]) -> str:
    """The section's table, empty without rows of it."""
    keys = {figure.key for figure in section.figures}
    found = [row for row in rows if row["key"] in keys]
    return figures.rendered(found, section.layout) if found else ""


def verdicts_of(rows: Sequence[Row]) -> str:
    """What was wanted and what was found, as a table."""
    lines = ["| target | wanted | found | |", "| --- | ---: | ---: | --- |"]
    for row in rows:
        unit = str(row["unit"])
        value = number(row["ratio"] if unit.startswith("x ") else row["value"])
        sign = "≥" if row.get("least") else "≤"
        found = f"{value} {unit}"
        lines.append(f"| {row['title']} | {sign} {row['limit']:g} | {found} | {'met' if row['passed'] else 'missed'} |")
    return "\n".join(lines) if rows else ""


def run_of(result: Row) -> str:
    """When and on what."""
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items())
    caution = " One round is a smoke test, not a result." if result["rounds"] == 1 else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, CPython {machine['python']}; "
        f"{packages}. {result['rounds']} round(s), finished {result['finished']}, "
        f"load average before: {machine['load_average']:.2f}.{caution}"
    )


def chart_of(sketch: Sketch, rows: Sequence[Row]) -> Chart | None:
    """None when nothing of it was measured."""
    by_key = {row["key"]: row for row in rows}
    groups = []
    for key, title in sketch.keys.items():
        values = by_key[key]["values"] if key in by_key else {}
        bars = [bar_of(name, values[name]) for name in sketch.systems if name in values]
        if bars:
            groups.append(Group(title=title, bars=bars))
    if not groups:
        return None
    unit = str(by_key[next(key for key in sketch.keys if key in by_key)]["unit"])
    return Chart(title=sketch.title, unit=unit, groups=groups, logarithmic=sketch.logarithmic)


def bar_of(system: str, values: Sequence[float]) -> Bar:
    """The median and the range of the rounds."""
    return Bar(system=system, label=figures.shown(system), value=median(values), low=min(values), high=max(values))


def contents(result: Row) -> dict[str, str]:
    """What goes between which markers."""
    found = {"run": run_of(result), "targets": verdicts_of(result.get("targets", ()))}
    for section in SECTIONS:
        found[slug(section.layout.name)] = table_of(section, result["figures"])
    if beside := result.get(results.PEERS):
        found["peers-run"] = run_of(beside)
        found["peers-targets"] = verdicts_of(beside.get("targets", ()))
        found["peers"] = table_of(Section(layout=peers.PEERS, figures=peers.FIGURES), beside["figures"])
    return {name: content for name, content in found.items() if content}


def charts(result: Row) -> dict[str, str]:
    """SVG documents by file name."""
    beside = result.get(results.PEERS, {}).get("figures", ())
    found = {}
    for sketch in SKETCHES:
        chart = chart_of(sketch, beside if sketch.of_peers and beside else result["figures"])
        if chart is not None:
            found[f"{sketch.name}.svg"] = draw(chart)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Write. Returns: the exit code: 0, or 2 without results."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=results.PATH, metavar="FILE", help="result file")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="page with markers")
    parser.add_argument("--charts", type=Path, default=CHARTS, metavar="DIR", help="where charts go")
    options = parser.parse_args(argv)
    result = results.read(options.results)
    if not result.get("figures"):
        print(f"report: nothing in {options.results}: run `make bench` first", file=sys.stderr)
        return 2
    page = options.page.read_text(encoding="utf-8")
    for name, content in contents(result).items():
        page = replaced(page, name, content)
    options.page.write_text(page, encoding="utf-8")
    options.charts.mkdir(parents=True, exist_ok=True)
    for name, document in charts(result).items():
        (options.charts / name).write_text(document, encoding="utf-8")
    print(f"written: {options.page}, {options.charts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
