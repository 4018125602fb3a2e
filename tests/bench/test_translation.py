"""The translation part of the bench, at its smallest."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cpa.formats.names import Format
from tests.bench import __main__ as bench
from tests.bench import figures, translation
from tests.bench import translation_bodies as bodies
from tests.bench.record import Record, Samples
from tests.bench.scenarios import Scale

TINY = Scale(rounds=1, seconds=0, warmup_s=0, idle_streams=1, repeats=1)
SMALL = {"300 KB": 40_000}


def test_every_direction_gets_its_figures() -> None:
    """A figure without values would be missing from the table, and nobody would notice."""
    record = Record(TINY.rounds)

    translation.measure(TINY, record, sizes=SMALL)

    expected = {
        figure.key: section.layout.systems
        for section in translation.SECTIONS
        for figure in section.figures
        if "1mb" not in figure.key
    }
    assert len(expected) == 48
    assert {key: tuple(values) for key, values in record.samples.items()} == expected
    assert all(values[0] > 0 for systems in record.samples.values() for values in systems.values())


def test_parts_are_chosen_by_name_and_judged() -> None:
    """`--only events` must not take minutes."""
    record = Record(TINY.rounds)

    translation.measure(TINY, record, only="translation: events", sizes=SMALL)
    translation.measure(TINY, record, only="small.cpu", sizes=SMALL)

    [verdict, *more] = figures.verdicts(translation.EVENT_SECTION.figures, record.samples, translation.EVENTS)
    assert len(more) == 11
    assert (verdict.unit, verdict.limit) == ("µs", 20.0)
    assert len(record.samples) == 12


@pytest.mark.parametrize("client", bodies.CLIENTS)
def test_sessions_are_about_as_large_as_said_and_the_same_each_time(client: Format) -> None:
    """Figures of two runs are to be compared."""
    body = bodies.write_body(bodies.make_session(300_000, 24), client)

    assert body == bodies.write_body(bodies.make_session(300_000, 24), client)
    assert 270_000 < len(body) < 360_000
    assert isinstance(msgspec.json.decode(body), dict)


@pytest.mark.parametrize("provider", bodies.CLIENTS)
def test_streams_have_an_event_per_piece(provider: Format) -> None:
    """Costs are per event: a handful of large ones would look expensive, empty ones cheap."""
    events = bodies.stream_events(provider)

    assert bodies.TEXT_DELTAS + 1 < len(events) < 400
    assert b"piece 99 of it" in b"".join(events)


def test_a_part_of_the_bench_replaces_its_own_results_only(tmp_path: Path) -> None:
    """Whole runs take minutes; a part that is measured again must not lose the others."""

    def measured(value: float) -> Callable[[Scale, str], Samples]:
        events = {figure.key: {"cpa": [value]} for figure in translation.EVENT_SECTION.figures}
        return lambda scale, only: events if only else {**events, "small.cpu.1": {"baseline": [1.0], "cpa": [value]}}

    output = tmp_path / "results.json"
    bench.main(["--output", str(output)], measure=measured(30.0))
    bench.main(["--only", "translation", "--output", str(output)], measure=measured(10.0))

    result = msgspec.json.decode(output.read_bytes())
    values = {row["key"]: row["values"]["cpa"] for row in result["figures"]}
    assert values.pop("small.cpu.1") == [30.0]
    assert len(values) == 12
    assert set(map(tuple, values.values())) == {(10.0,)}
    assert len(result["acceptance"]) == 13
    assert [row["passed"] for row in result["acceptance"]].count(True) == 12
