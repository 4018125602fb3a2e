"""`python -m tests.bench`: measure CPA against the direct call, the floor and the baseline; see docs/performance.md."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from types import FrameType

import attrs
import msgspec

from tests.bench import figures, machine, payloads, processes
from tests.bench.load import Job, LoadError, Outcome
from tests.bench.machine import Cores
from tests.bench.processes import FORWARDERS, ROOT, SYSTEMS, Child, Generator
from tests.bench.scenarios import FIGURES, FULL, IDLE, QUICK, SCENARIOS, Scale, Scenario, idle_job

WARM_REQUESTS = 200
EVENT_TOLERANCE = 0.01
"""The load generator misses the end of an event that a read cuts in two."""

Samples = dict[str, dict[str, list[float]]]


class Bench:
    """One run: the processes that live through it, and what was measured so far."""

    def __init__(self, scale: Scale, cores: Cores, generator: Generator, provider: Child) -> None:
        self.scale = scale
        self.cores = cores
        self.generator = generator
        self.provider = provider
        self.samples: Samples = {}
        self.started = monotonic()

    def round(self, number: int, ports: dict[str, Child], only: str) -> None:
        """Measure everything once whose name contains *only*; the order of the systems rotates."""
        order = [SYSTEMS[(at + number) % len(SYSTEMS)] for at in range(len(SYSTEMS))]
        for scenario in SCENARIOS:
            if only not in scenario.name:
                continue
            self.say(number, scenario.name)
            outcomes = {name: self.generator.run(self.job(scenario, ports[name], name)) for name in order}
            check(scenario, outcomes)
            for name, outcome in outcomes.items():
                for key, value in scenario.values(outcome).items():
                    if outcome.cpu_s or ".cpu" not in key:
                        self.keep(key, name, value)
        if only in IDLE.title:
            self.say(number, IDLE.title)
            for name in order:
                if name in FORWARDERS:
                    self.keep(IDLE.key, name, self.memory(name))

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

    def keep(self, key: str, name: str, value: float) -> None:
        """Remember one value."""
        self.samples.setdefault(key, {}).setdefault(name, []).append(value)

    def say(self, number: int, what: str) -> None:
        """One line of progress."""
        elapsed = monotonic() - self.started
        print(f"[{elapsed:5.0f} s] round {number + 1} of {self.scale.rounds}: {what}", file=sys.stderr, flush=True)


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
    with ExitStack() as stack:
        provider = stack.enter_context(processes.provider(cores))
        generator = stack.enter_context(processes.generator(cores))
        ports = {"direct": provider}
        for name in FORWARDERS:
            ports[name] = stack.enter_context(processes.system(name, cores, provider.port))
        for child in ports.values():
            generator.run(warm_up(child.port, payloads.SMALL_MODEL, stream=False))
            generator.run(warm_up(child.port, payloads.BURST_MODEL, stream=True))
        bench = Bench(scale, cores, generator, provider)
        for number in range(scale.rounds):
            bench.round(number, ports, only)
        return bench.samples


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, about 40 s: a smoke test, not a result")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds instead of the usual number")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="scenarios whose names contain TEXT; writes no result"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when an acceptance limit is exceeded")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="result file (default: bench/results.json, for whole runs)"
    )
    return parser.parse_args(argv)


def write(path: Path, scale: Scale, samples: Samples, before: dict[str, object]) -> None:
    """The result file."""
    measured = [figure for figure in FIGURES if figure.key in samples]
    result = {
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "machine": before,
        "rounds": scale.rounds,
        "acceptance": [
            {"title": verdict.title, "ratio": figures.significant(verdict.ratio), "limit": verdict.limit}
            | {"passed": verdict.passed}
            for verdict in figures.verdicts(measured, samples)
        ],
        "figures": figures.as_json(measured, samples),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


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
    measured = [figure for figure in FIGURES if figure.key in samples]
    say(figures.table(measured, samples))
    say()
    found = figures.verdicts(measured, samples)
    for verdict in found:
        say(str(verdict))
    output = options.output or (None if options.quick or options.only else ROOT / "bench" / "results.json")
    if output is not None:
        write(output, scale, samples, before)
        say(f"written: {output}")
    return int(options.check and not all(verdict.passed for verdict in found))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, raise_exit)
    sys.exit(main())
