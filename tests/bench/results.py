"""The result file: what a run has measured, with the rounds' values. `make bench-peers` has a part of its own in it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tests.bench import figures
from tests.bench.figures import Samples, Section, Verdict
from tests.bench.processes import ROOT
from tests.bench.scenarios import Scale

PATH = ROOT / "bench" / "results.json"
PEERS = "peers"
"""Member of the result file with the run beside peers, which has figures of the same keys."""
ROWS = {"acceptance": "title", "targets": "title", "figures": "key"}
"""Lists of a result, and what their rows are known by."""


def write(
    path: Path,
    scale: Scale,
    samples: Samples,
    machine: Mapping[str, object],
    sections: Sequence[Section],
    *,
    acceptance: Iterable[Verdict],
    targets: Iterable[Verdict],
    part: bool = False,
) -> None:
    """Write *path*. With *part*, figures that were not measured now stay in it."""
    new = result(scale, samples, machine, sections, acceptance=acceptance, targets=targets)
    old = read(path)
    if part and old:
        new = merged(old, new)
    elif PEERS in old:
        new[PEERS] = old[PEERS]
    save(path, new)


def write_peers(
    path: Path,
    scale: Scale,
    samples: Samples,
    machine: Mapping[str, object],
    sections: Sequence[Section],
    targets: Iterable[Verdict],
) -> None:
    """Write the part of *path* that is about peers."""
    save(path, {**read(path), PEERS: result(scale, samples, machine, sections, acceptance=(), targets=targets)})


def result(
    scale: Scale,
    samples: Samples,
    machine: Mapping[str, object],
    sections: Sequence[Section],
    *,
    acceptance: Iterable[Verdict],
    targets: Iterable[Verdict],
) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "machine": dict(machine),
        "rounds": scale.rounds,
        "acceptance": [verdict.as_json() for verdict in acceptance],
        "targets": [verdict.as_json() for verdict in targets],
        "figures": [row for section in sections for row in figures.as_json(section.figures, samples, section.layout)],
    }


def read(path: Path) -> dict[str, Any]:
    """What is in *path*, nothing when it is not there."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.exists() else {}


def save(path: Path, result: Mapping[str, object]) -> None:
    """Readable for people and for diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """*old* with the figures and verdicts of *new* in the place of its own."""
    result = dict(old)
    for name, key in ROWS.items():
        replaced = {row[key] for row in new[name]}
        result[name] = [row for row in old.get(name, ()) if row[key] not in replaced] + new[name]
    return result
