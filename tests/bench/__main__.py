"""`python -m tests.bench`: measure CPA against the direct call, the floor and the baseline; see docs/performance.md."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import msgspec

from tests.bench import figures, machine, panel, payloads, plugins, processes, redact, scheduling, translation, usage
from tests.bench.figures import FORWARDING, Section, Verdict
from tests.bench.load import Job, LoadError, Outcome
from tests.bench.machine import Cores
from tests.bench.processes import FORWARDERS, ROOT, SYSTEMS, Child, Generator
from tests.bench.record import Record, Samples
from tests.bench.scenarios import FIGURES, FULL, IDLE, QUICK, SCENARIOS, Scale, Scenario, idle_job

WARM_REQUESTS = 200
EVENT_TOLERANCE = 0.01
"""The load generator misses the end of an event that a read cuts in two."""

SECTIONS = (
    Section(layout=FORWARDING, figures=FIGURES),
    *plugins.SECTIONS,
    scheduling.SECTION,
    *usage.SECTIONS,
    redact.SECTION,
    panel.SECTION,
    *translation.SECTIONS,
)


class Bench:
    """The forwarding part of a run: the processes that live through it, and what was measured so far."""

    def __init__(self, scale: Scale, cores: Cores, generator: Generator, provider: Child, record: Record) -> None:
        self.scale = scale
        self.cores = cores
        self.generator = generator
        self.provider = provider
        self.record = record

    def round(self, number: int, ports: dict[str, Child], only: str) -> None:
        """Measure everything once whose name contains *only*; the order of the systems rotates."""
        order = [SYSTEMS[(at + number) % len(SYSTEMS)] for at in range(len(SYSTEMS))]
        for scenario in SCENARIOS:
            if only not in scenario.name:
                continue
            self.record.say(scenario.name, number)
            outcomes = {name: self.generator.run(self.job(scenario, ports[name], name)) for name in order}
            check(scenario, outcomes)
            for name, outcome in outcomes.items():
                for key, value in scenario.values(outcome).items():
                    if outcome.cpu_s or ".cpu" not in key:
                        self.record.keep(key, name, value)
        if only in IDLE.title:
            self.record.say(IDLE.title, number)
            for name in order:
                if name in FORWARDERS:
                    self.record.keep(IDLE.key, name, self.memory(name))

    def job(self, scenario: Scenario, child: Child, name: str) -> Job:
        """The scenario's job for one system."""
        return scenario.job(self.scale, child.port, child.pid if name in FORWARDERS else 0)

    def memory(self, name: str) -> float:
        """KB per idle stream of a fresh process: one that has served before would reuse what it holds."""
        count = self.scale.idle_streams
        with processes.system(name, self.cores, self.provider.port) as child:
            self.generator.run(warm_up(child.port, payloads.SMALL_MODEL, stream=False))
            self.generator.run(warm_up(child.port, payloads.BURST_MODEL, stream=True))
            before = machine.memory_kb(child.pid)
            with self.generator.hold(idle_job(child.port, count)):
                return (machine.memory_kb(child.pid) - before) / count


def warm_up(port: int, model: str, *, stream: bool) -> Job:
    """Load the code and fill the pools."""
    request = payloads.http_request(payloads.chat_body(model, stream=stream))
    return Job(port=port, request=request, connections=8, requests=8 if stream else WARM_REQUESTS)


def check(scenario: Scenario, outcomes: dict[str, Outcome]) -> None:
    """All systems must have delivered the same. Raises: LoadError."""
    expected = outcomes["direct"].events / outcomes["direct"].requests
    for name, outcome in outcomes.items():
        found = outcome.events / outcome.requests
        if abs(found - expected) > expected * EVENT_TOLERANCE:
            raise LoadError(f"{scenario.name}: {name} gave {found:g} events per answer, direct {expected:g}")


def measure(scale: Scale, only: str = "") -> Samples:
    """A whole run, or the part whose names contain *only*. Raises: LoadError, StartError."""
    cores = machine.pick_cores()
    record = Record(scale.rounds)
    scheduling.measure(scale, record, only=only)
    if only and only in scheduling.NAME:
        return record.samples  # nothing else has such a name, and needs the processes below
    with ExitStack() as stack:
        provider = stack.enter_context(processes.provider(cores))
        generator = stack.enter_context(processes.generator(cores))
        if any(only in name for name in (*(scenario.name for scenario in SCENARIOS), IDLE.title)):
            measure_forwarding(Bench(scale, cores, generator, provider, record), only)
        plugins.measure(scale, cores, generator, provider.port, record, only=only)
        usage.measure(scale, cores, generator, provider.port, record, only=only)
        redact.measure(scale, cores, generator, provider.port, record, only=only)
        panel.measure(scale, cores, generator, provider.port, record, only=only)
    translation.measure(scale, record, only=only)  # alone: nothing else of the bench runs now
    return record.samples


def measure_forwarding(bench: Bench, only: str) -> None:
    """All rounds of CPA beside other forwarders. Raises: LoadError, StartError."""
    with ExitStack() as stack:
        ports = {"direct": bench.provider}
        for name in FORWARDERS:
            ports[name] = stack.enter_context(processes.system(name, bench.cores, bench.provider.port))
        for child in ports.values():
            bench.generator.run(warm_up(child.port, payloads.SMALL_MODEL, stream=False))
            bench.generator.run(warm_up(child.port, payloads.BURST_MODEL, stream=True))
        for number in range(bench.scale.rounds):
            bench.round(number, ports, only)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, about 90 s: a smoke test, not a result")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds instead of the usual number")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="scenarios whose names contain TEXT; no result without --output"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when an acceptance limit is exceeded")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="result file (default: bench/results.json, for whole runs; parts replace their own figures in it)",
    )
    return parser.parse_args(argv)


def measured_sections(samples: Samples) -> list[Section]:
    """The tables that have something in them."""
    return [section for each in SECTIONS if (section := each.measured(samples)).figures]


def judge(samples: Samples) -> list[Verdict]:
    """All that has a limit."""
    return [
        verdict
        for section in measured_sections(samples)
        for verdict in figures.verdicts(section.figures, samples, section.layout)
    ]


def write(path: Path, scale: Scale, samples: Samples, before: dict[str, object], *, only: str = "") -> None:
    """The result file. With *only*, figures of other scenarios that are in it stay."""
    result = {
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "machine": before,
        "rounds": scale.rounds,
        "acceptance": [verdict.as_json() for verdict in judge(samples)],
        "figures": [
            row
            for section in measured_sections(samples)
            for row in figures.as_json(section.figures, samples, section.layout)
        ],
    }
    if only and path.exists():
        result = merged(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]), result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """*old* with the figures and verdicts of *new* in the place of its own."""
    result = dict(old)
    for name, key in (("acceptance", "title"), ("figures", "key")):
        replaced = {row[key] for row in new[name]}
        result[name] = [row for row in old[name] if row[key] not in replaced] + new[name]
    return result


def raise_exit(number: int, frame: FrameType | None) -> None:
    """End like Ctrl-C does, so that the processes are ended too."""
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None, *, measure: Callable[[Scale, str], Samples] = measure) -> int:
    """Run. Returns: the exit code: 0, 1 for a limit exceeded under ``--check``, 2 when a system failed."""
    options = parse(argv)
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = attrs.evolve(scale, rounds=options.rounds)
    before = machine.describe()
    say = partial(print, flush=True)
    say(f"{before['cpu']}, {before['cores']} cores, Python {before['python']}, load average {before['load_average']}")
    try:
        samples = measure(scale, options.only)
    except (LoadError, processes.StartError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        return 130
    for section in measured_sections(samples):
        say(f"### {section.layout.name}")
        say(figures.table(section.figures, samples, section.layout))
        say()
    found = judge(samples)
    for verdict in found:
        say(f"    {verdict}")
    output = options.output or (None if options.quick or options.only else ROOT / "bench" / "results.json")
    if output is not None:
        write(output, scale, samples, before, only=options.only)
        say(f"written: {output}")
    return int(options.check and not all(verdict.passed for verdict in found))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, raise_exit)
    sys.exit(main())
