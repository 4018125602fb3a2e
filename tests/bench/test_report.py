"""Verdicts, tables and charts say what was measured, and nothing else."""

import re
from math import nan
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import budgets, capacity, figures, parts, peers, report, results, steady_memory, targets, translation
from tests.bench.__main__ import SECTIONS
from tests.bench.charts import CHARACTER, WIDTH, Bar, Chart, Group, draw
from tests.bench.figures import FORWARDING, Section
from tests.bench.peers import PEERS
from tests.bench.processes import Child
from tests.bench.record import Record, Samples
from tests.bench.sampling import Layer, innermost, shares
from tests.bench.scenarios import FIGURES, FULL, QUICK

SAMPLES: Samples = {
    "small.cpu.32": {
        "floor": [100.0, 110.0],
        "uvicorn": [200.0, 210.0],
        "baseline": [900.0] * 2,
        "cpa": [250.0, 350.0],
    },
    "paced.delay.p50": {"direct": [50.0, 60.0], "floor": [90.0, 100.0], "cpa": [130.0, 180.0]},
    "budget.request.pipeline": {"floor": [100.0], "cpa": [200.0]},
    "budget.request.upstream": {"floor": [100.0], "cpa": [50.0]},
}


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_targets_are_judged_by_ratios_of_rounds_and_by_what_is_added() -> None:
    """A target without values is not judged."""
    found = {str(verdict) for verdict in targets.judge(SAMPLES, FORWARDING, FIGURES)}

    assert found == {
        "pass  CPU per small request, c=32: 2.84 x floor (limit 3)",
        "FAIL  CPU per small request, c=32 (stretch): 1.46 x uvicorn (limit 1)",
        "pass  added delay of a chunk, median, 64 paced streams: 100 µs (limit 100)",
    }


def test_a_peer_that_failed_in_a_round_leaves_its_place() -> None:
    """Otherwise its next round would be divided by another system's last one."""
    samples = {"small.cpu.32": {"cpa": [1.0, 2.0, 4.0], "litellm": [nan, 200.0, 200.0], "floor": [1.0, 1.0, 1.0]}}
    figure = next(figure for figure in FIGURES if figure.key == "small.cpu.32")

    spread = figures.ratio(figure, "litellm", "cpa", samples, PEERS)
    [row] = figures.as_json([figure], samples, PEERS)
    verdicts = targets.judge(samples, PEERS, peers.FIGURES)

    assert spread == figures.Spread(75.0, 50.0, 100.0)
    assert row["values"]["litellm"] == [200.0, 200.0]
    assert [(verdict.unit, verdict.least, verdict.passed) for verdict in verdicts] == [
        ("x CPA", True, True),
        ("x floor", False, True),
    ]


@pytest.mark.parametrize(("budget", "passed"), [(2.0, True), (1.5, True), (1.4, False)])
def test_a_layer_over_its_budget_is_named(budget: float, passed: bool) -> None:
    """Within what two runs of the same program differ by, it is not."""
    [verdict] = budgets.judge(SAMPLES, {"budget.request.pipeline": budget, "budget.chunk.pipeline": 1.0})

    assert verdict.passed is passed
    assert verdict.title == "budget: CPU per small request, c=32: pipeline"


def test_budgets_are_what_a_run_has_found(tmp_path: Path) -> None:
    """Written once, read by every later run."""
    path = tmp_path / "budgets.json"

    assert budgets.read(path) == {}
    budgets.write(SAMPLES, path)

    assert budgets.read(path) == {"budget.request.pipeline": 2.0, "budget.request.upstream": 0.5}


def test_committed_budgets_belong_to_figures() -> None:
    """A renamed layer would else have none, in silence."""
    assert budgets.read().keys() <= {figure.key for figure in budgets.FIGURES}


@pytest.mark.parametrize(
    ("files", "layer"),
    [
        (["/site/msgspec/__init__.py", "/x/cpa/pipeline/runner.py", "/x/cpa/server/routes.py"], Layer.PIPELINE),
        (["/site/trio/_core/_run.py", "/site/trio/_socket.py", "/x/cpa/upstream/connection.py"], Layer.UPSTREAM),
        (["/x/cpa/server/access.py"], Layer.ACCESS),
        (["/x/cpa/observability/log.py", "/x/cpa/server/gateway.py"], Layer.USAGE),
        (["/site/trio/_core/_run.py", "/home/cpa/tests/bench/serve_cpa.py"], Layer.LOOP),
    ],
)
def test_a_stack_belongs_to_its_innermost_layer(files: list[str], layer: Layer) -> None:
    """Libraries serve whoever calls them."""
    assert innermost(files) is layer


def test_shares_are_of_the_whole() -> None:
    """Also of none."""
    found = shares({Layer.SERVER: 3, Layer.LOOP: 1})

    assert found[Layer.SERVER.value] == 0.75
    assert sum(found.values()) == 1
    assert sum(shares({}).values()) == 0


@pytest.mark.parametrize("most", [0, 64, 100, 300, 512, 700, 2048, 9999])
def test_the_search_finds_the_largest_step_without_a_stall(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bounded number of measurements."""
    asked: list[int] = []

    def is_free(child: Child, count: int, *unused: object) -> bool:
        asked.append(count)
        return count <= most

    monkeypatch.setattr(capacity, "is_free", is_free)

    found = capacity.search(None, None, Record(1))  # type: ignore[arg-type]  # the fake asks neither

    assert found == max((step for step in capacity.STEPS if step <= most), default=0)
    assert len(asked) <= 7


def test_the_long_part_runs_only_when_asked_for() -> None:
    """It takes minutes."""
    name = steady_memory.NAME

    assert [parts.wanted(name, "", long=long) for long in (False, True)] == [False, True]
    assert parts.wanted(name, name, long=False)
    assert parts.wanted("ablations", "", long=False)


# --- tables and charts ------------------------------------------------------------------------------------------------


def chart(*, logarithmic: bool, values: tuple[float, ...] = (0.0, 0.5, 120.0, 9000.0)) -> Chart:
    """One with long labels and hard values."""
    bars = [Bar(system="cpa", label=f"a rather long label {value}", value=value, low=0, high=value) for value in values]
    groups = [Group(title="a group <with> signs & so on " * 5, bars=bars), Group(title="", bars=bars[:1])]
    return Chart(title="What & why", unit="µs", groups=groups, logarithmic=logarithmic)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_chart_is_an_image_with_everything_inside(logarithmic: bool) -> None:
    """Also zeros on a logarithmic scale, and texts that are too long."""
    document = draw(chart(logarithmic=logarithmic))

    root = ElementTree.fromstring(document)
    space = {"s": "http://www.w3.org/2000/svg"}
    height = float(root.attrib["height"])
    for bar in root.findall("s:rect", space):
        assert 0 <= float(bar.attrib["x"]) + float(bar.attrib["width"]) <= WIDTH
        assert float(bar.attrib["width"]) > 0
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height
    for text in root.findall("s:text", space):
        length = float(text.attrib.get("textLength", len(text.text or "") * CHARACTER))
        start = float(text.attrib["x"]) - (length if text.attrib.get("text-anchor") == "end" else 0)
        assert start >= 0, text.text
        assert start + length <= WIDTH, text.text
    assert "prefers-color-scheme:dark" in document
    assert len(root.findall("s:rect", space)) == 5


def results_file(path: Path) -> Path:
    """Of a run, and one beside peers."""
    sections = [Section(layout=FORWARDING, figures=FIGURES).measured(SAMPLES)]
    machine = {"cpu": "a processor", "cores": 2, "system": "Linux", "python": "3.11.7", "load_average": 0.1}
    wanted = targets.judge(SAMPLES, FORWARDING, FIGURES)
    results.write(path, FULL, SAMPLES, machine, sections, acceptance=(), targets=wanted)
    beside: Samples = {"small.cpu.32": {"cpa": [250.0], "litellm": [7600.0], "floor": [90.0]}}
    shown = [Section(layout=PEERS, figures=peers.FIGURES).measured(beside)]
    results.write_peers(path, QUICK, beside, machine, shown, targets.judge(beside, PEERS, peers.FIGURES))
    return path


def test_a_report_fills_the_page_between_its_markers_and_draws_charts(tmp_path: Path) -> None:
    """Once more changes nothing; what people wrote stays, and so do tables of parts that were not measured."""
    page, charts = tmp_path / "page.md", tmp_path / "charts"
    names = ("run", "targets", "forwarding", "peers", "start-up")
    page.write_text("# Mine\n" + "\n".join(f"<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->" for name in names))
    argv = ["--results", str(results_file(tmp_path / "r.json")), "--page", str(page), "--charts", str(charts)]

    assert report.main(argv) == 0
    once = page.read_text()
    assert report.main(argv) == 0

    assert page.read_text() == once
    assert once.startswith("# Mine\n")
    assert once.count("old") == 1
    assert "| CPU per small request, c=32 " in once
    assert re.search(r"LiteLLM / CPA \|.*30\.4", once, re.DOTALL)
    assert "| CPU per small request, c=32 | ≤ 3 | 2.84 x floor | met |" in once
    assert "a processor" in once
    assert {path.name for path in charts.iterdir()} == {"requests.svg", "delay.svg"}


def test_a_report_without_results_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page stays as it is."""
    assert report.main(["--results", str(tmp_path / "none.json"), "--page", str(tmp_path / "none.md")]) == 2
    assert "run `make bench` first" in capsys.readouterr().err


def test_a_run_keeps_the_part_about_peers_and_a_part_keeps_the_other_figures(tmp_path: Path) -> None:
    """They are measured by another command."""
    path = results_file(tmp_path / "r.json")
    sections = [Section(layout=FORWARDING, figures=FIGURES).measured({"paced.delay.p50": SAMPLES["paced.delay.p50"]})]

    results.write(path, QUICK, SAMPLES, {}, sections, acceptance=(), targets=(), part=True)
    partly = results.read(path)
    results.write(path, QUICK, SAMPLES, {}, sections, acceptance=(), targets=())
    whole = results.read(path)

    assert [row["key"] for row in partly["figures"]] == ["small.cpu.32", "paced.delay.p50"]
    assert [row["key"] for row in whole["figures"]] == ["paced.delay.p50"]
    assert partly["peers"] == whole["peers"]


def test_the_page_has_a_marker_for_every_table() -> None:
    """A table without a marker would be lost."""
    page = report.PAGE.read_text(encoding="utf-8")
    elsewhere = {section.layout.name for section in translation.SECTIONS}
    """Its table is kept by hand, with what belongs to it."""
    names = {report.slug(section.layout.name) for section in SECTIONS if section.layout.name not in elsewhere}

    missing = [
        name
        for name in sorted(names | {"run", "targets", "peers", "peers-run", "peers-targets"})
        if f"<!-- bench:{name} -->" not in page
    ]

    assert missing == []
