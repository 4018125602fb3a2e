"""`python -m tests.bench`: measure CPA against the direct call, the floor and the baseline; see docs/performance.md."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import FrameType

import attrs

from tests.bench import (
    budgets,
    figures,
    machine,
    panel,
    parts,
    plugins,
    processes,
    redact,
    results,
    scheduling,
    targets,
    translation,
    usage,
)
from tests.bench.client import LoadError
from tests.bench.figures import FORWARDING, Section, Verdict
from tests.bench.forwarding import Contest, added_memory
from tests.bench.machine import Cores
from tests.bench.processes import FORWARDERS, ROOT, Child, Generator, has_uvicorn
from tests.bench.record import PartsFailed, Record, Samples
from tests.bench.scenarios import FIGURES, FULL, IDLE, QUICK, SCENARIOS, Scale, idle_job

LIMIT_S = 690.0
"""A whole run takes less than twelve minutes: after this time each part has one round."""
IDLE_ROUNDS = 2
TRANSLATION_ROUNDS = 2
"""Both differ little from round to round, and take long."""
SECTIONS = (
    Section(layout=FORWARDING, figures=FIGURES),
    *parts.SECTIONS,
    *plugins.SECTIONS,
    scheduling.SECTION,
    *usage.SECTIONS,
    redact.SECTION,
    panel.SECTION,
    *translation.SECTIONS,
)


def measure(scale: Scale, only: str = "") -> Samples:
    """A whole run, or the part whose names contain *only*.

    Raises: PartsFailed with what the others have found; LoadError, StartError when there was nothing to measure with.
    """
    cores = machine.pick_cores()
    record = Record(scale.rounds, limit_s=LIMIT_S)
    scheduling.measure(scale, record, only=only)
    if only and only in scheduling.NAME:
        return record.done()  # nothing else has such a name, and needs the processes below
    with ExitStack() as stack:
        provider = stack.enter_context(processes.provider(cores))
        generator = stack.enter_context(processes.generator(cores))
        if any(only in name for name in (*(scenario.name for scenario in SCENARIOS), IDLE.title)):
            with record.surviving("forwarding"):
                measure_forwarding(scale, cores, generator, provider, record, only)
        parts.measure(scale, cores, generator, provider, record, only=only)
        plugins.measure(scale, cores, generator, provider.port, record, only=only)
        usage.measure(scale, cores, generator, provider.port, record, only=only)
        with record.surviving("redact"):
            redact.measure(scale, cores, generator, provider.port, record, only=only)
        panel.measure(scale, cores, generator, provider.port, record, only=only)
    # Alone: nothing else of the bench runs now.
    rounds = scale.rounds if only else min(scale.rounds, TRANSLATION_ROUNDS)
    translation.measure(attrs.evolve(scale, rounds=rounds), record, only=only)
    return record.done()


def measure_forwarding(
    scale: Scale, cores: Cores, generator: Generator, provider: Child, record: Record, only: str
) -> None:
    """All rounds of CPA beside other forwarders. Raises: LoadError, StartError."""
    names = [name for name in FORWARDERS if name != "uvicorn" or has_uvicorn(scale.environment)]
    if "uvicorn" not in names:
        record.say("no environment with uvicorn, uvloop, httptools and aiohttp: that forwarder is left out")
    wanted = [scenario for scenario in SCENARIOS if only in scenario.name]

    def open_system(name: str) -> AbstractContextManager[Child]:
        return processes.system(name, cores, provider.port, scale.environment)

    with ExitStack() as stack:
        children = {"direct": provider}
        for name in names:
            children[name] = stack.enter_context(open_system(name))
        contest = Contest(scale=scale, generator=generator, record=record, children=children)
        contest.warm_up()
        for number in record.numbers():
            contest.round(number, wanted)
            if only in IDLE.title and number < IDLE_ROUNDS:
                record.say(IDLE.title, number)
                for name in names:
                    with open_system(name) as fresh:
                        held = idle_job(fresh.port, scale.idle_streams)
                        record.keep(IDLE.key, name, added_memory(fresh, generator, held))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of minutes: a smoke test, not a result")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds instead of the usual number")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="scenarios whose names contain TEXT; no result without --output"
    )
    parser.add_argument(
        "--long", action="store_true", help="with what takes minutes by itself: memory over 100,000 requests"
    )
    parser.add_argument(
        "--environment",
        type=Path,
        default=ROOT / ".peers",
        metavar="DIR",
        help="virtual environment of the peers, made by `make bench-peers`; without it their forwarder is left out",
    )
    parser.add_argument("--write-budgets", action="store_true", help="what layers cost now becomes their budget")
    parser.add_argument("--check", action="store_true", help="exit 1 when a limit or a layer's budget is exceeded")
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
    """All that has a limit, and the layers' budgets."""
    sections = measured_sections(samples)
    limits = [verdict for each in sections for verdict in figures.verdicts(each.figures, samples, each.layout)]
    return [*limits, *budgets.judge(samples, budgets.read())]


def raise_exit(number: int, frame: FrameType | None) -> None:
    """End like Ctrl-C does, so that the processes are ended too."""
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None, *, measure: Callable[[Scale, str], Samples] = measure) -> int:
    """Run. Returns: the exit code: 0, 1 for a limit exceeded under ``--check``, 2 when a part failed."""
    options = parse(argv)
    scale = attrs.evolve(QUICK if options.quick else FULL, long=options.long, environment=options.environment)
    if options.rounds:
        scale = attrs.evolve(scale, rounds=options.rounds)
    before = machine.describe()
    say = partial(print, flush=True)
    say(f"{before['cpu']}, {before['cores']} cores, Python {before['python']}, load average {before['load_average']}")
    failed = ""
    try:
        samples = measure(scale, options.only)
    except PartsFailed as exc:
        samples, failed = exc.samples, str(exc)
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
    wanted = [verdict for section in SECTIONS for verdict in targets.judge(samples, section.layout, section.figures)]
    if wanted:
        say("\nTargets:")
    for verdict in wanted:
        say(f"    {verdict}")
    if options.write_budgets:
        budgets.write(samples)
        say(f"written: {budgets.PATH}")
    output = options.output or (None if options.quick or options.only else results.PATH)
    if output is not None:
        sections = measured_sections(samples)
        part = bool(options.only)
        results.write(output, scale, samples, before, sections, acceptance=found, targets=wanted, part=part)
        say(f"written: {output}")
    if failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 2
    return int(options.check and not all(verdict.passed for verdict in found))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, raise_exit)
    sys.exit(main())
