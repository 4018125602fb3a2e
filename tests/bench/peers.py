"""`python -m tests.bench.peers` (`make bench-peers`): CPA beside LiteLLM's proxy, one worker each, the same provider.

LiteLLM runs from a virtual environment of its own as its documents say, with telemetry off. All are measured in turn by
the jobs of scenarios.py. What a peer delivers is compared with the direct call, more loosely than elsewhere: it may
write a stream's first and last events in its own way.
"""

import argparse
import os
import select
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import attrs
import msgspec

from tests.bench import figures, machine, payloads, processes
from tests.bench.__main__ import warm_up
from tests.bench.figures import Layout
from tests.bench.load import Job, LoadError, Outcome
from tests.bench.machine import Cores
from tests.bench.processes import ROOT, Child, Generator, StartError
from tests.bench.record import Record
from tests.bench.scenarios import FULL, PACED, QUICK, Figure, Scale, Scenario, agent, small

SYSTEMS = ("direct", "floor", "cpa", "litellm")
EVENT_TOLERANCE = 0.05
START_S = 120.0
"""LiteLLM imports for half a minute on a busy machine."""
STEP_S = 0.02
TRIES = 3
PEERS = Layout(
    name="Peers",
    systems=SYSTEMS,
    base="direct",
    spreads=(("litellm", "cpa"), ("cpa", "floor")),
    absolute=("cpa", "litellm"),
    judged="cpa",
)
START = Figure(key="start.cpu", title="CPU time from the start to the first answer", unit="s")
MEMORY = Figure(key="start.kb", title="memory after the first requests", unit="KB")
SCENARIOS = (small(32), PACED, agent())
FIGURES = (*(figure for scenario in SCENARIOS for figure in scenario.figures), START, MEMORY)
MODELS = (payloads.SMALL_MODEL, payloads.PACED_MODEL)


def litellm_config(provider_port: int) -> str:
    """The same models, client key and provider as CPA has; JSON is YAML."""
    models = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"openai/{model}",
                "api_base": f"http://127.0.0.1:{provider_port}/v1",
                "api_key": payloads.PROVIDER_KEY,
            },
        }
        for model in MODELS
    ]
    return msgspec.json.encode(
        {
            "model_list": models,
            "general_settings": {"master_key": payloads.CLIENT_KEY},
            "litellm_settings": {"telemetry": False, "num_retries": 0},
        }
    ).decode()


@contextmanager
def litellm(environment: Path, cores: Cores, provider_port: int) -> Iterator[Child]:
    """LiteLLM's proxy in front of the provider. Raises: StartError."""
    program = environment / "bin" / "litellm"
    if not program.exists():
        raise StartError(f"{program} is not there: `make bench-peers` installs it")
    with socket.socket() as probe, tempfile.TemporaryDirectory(prefix="cpa-bench-") as directory:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = Path(directory) / "config.yaml"
        config.write_text(litellm_config(provider_port))
        argv = (
            *("env", "LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_TELEMETRY=False", "LITELLM_LOG=ERROR"),
            *(str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
            *("--num_workers", "1", "--telemetry", "False"),
        )
        with processes.running("litellm", argv, core=cores.subject) as child:
            child.port = port
            wait_open(child)
            yield child


def wait_open(child: Child) -> None:
    """Until it accepts connections. Raises: StartError."""
    deadline = monotonic() + START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", child.port)) == 0:
                return
        if child.process.poll() is not None or monotonic() > deadline:
            raise StartError(f"{child.name} does not listen: {child.complaints()}")
        drain(child, wait_s=STEP_S)


def drain(child: Child, wait_s: float = 0.0) -> None:
    """Drop what it prints, so that it never waits for a reader; what comes within *wait_s* too."""
    assert child.process.stdout is not None
    stream = child.process.stdout.fileno()
    while select.select([stream], [], [], wait_s)[0] and os.read(stream, 1 << 16):
        pass


@contextmanager
def system(name: str, environment: Path, cores: Cores, provider: Child) -> Iterator[Child]:
    """One of `SYSTEMS`."""
    if name == "direct":
        yield provider
    elif name == "litellm":
        with litellm(environment, cores, provider.port) as child:
            yield child
    else:
        with processes.system(name, cores, provider.port) as child:
            yield child


def measure(scale: Scale, environment: Path) -> Record:
    """A whole run: all systems live through it, and take turns. Raises: LoadError, StartError."""
    cores, record = machine.pick_cores(), Record(scale.rounds)
    with ExitStack() as stack:
        provider = stack.enter_context(processes.provider(cores))
        generator = stack.enter_context(processes.generator(cores))
        children: dict[str, Child] = {}
        for name in SYSTEMS:
            record.say(f"starting {name}")
            child = children[name] = stack.enter_context(system(name, environment, cores, provider))
            warm = warm_up(child.port, payloads.SMALL_MODEL, stream=False)
            generator.run(attrs.evolve(warm, requests=1, connections=1))
            if name != "direct":
                record.keep(START.key, name, machine.cpu_seconds(child.pid))
            generator.run(warm)
            generator.run(warm_up(child.port, payloads.PACED_MODEL, stream=True))
            if name != "direct":
                record.keep(MEMORY.key, name, machine.memory_kb(child.pid))
        for number in range(scale.rounds):
            for scenario in SCENARIOS:
                record.say(scenario.name, number)
                take_turns(scenario, scale, children, generator, record)
    return record


def take_turns(
    scenario: Scenario, scale: Scale, children: Mapping[str, Child], generator: Generator, record: Record
) -> None:
    """One scenario for each system. Raises: LoadError, StartError."""
    expected = 0.0
    for name, child in children.items():
        job = scenario.job(scale, child.port, child.pid if name != "direct" else 0)
        outcome = insist(child, job, generator, record) if name == "litellm" else generator.run(job)
        if outcome is None:
            continue
        found = outcome.events / outcome.requests
        expected = expected or found
        if abs(found - expected) > expected * EVENT_TOLERANCE:
            raise LoadError(f"{scenario.name}: {name} gave {found:g} events per answer, direct {expected:g}")
        for key, value in scenario.values(outcome).items():
            if outcome.cpu_s or ".cpu" not in key:
                record.keep(key, name, value)


def insist(child: Child, job: Job, generator: Generator, record: Record) -> Outcome | None:
    """A peer that breaks an answer off gets some more chances, and each failure is told. Raises: StartError."""
    for _ in range(TRIES):
        drain(child)
        try:
            return generator.run(job)
        except LoadError as exc:
            record.say(f"{child.name} failed: {exc}")
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Returns: the exit code: 0, or 2 when a system failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a smoke test, not a result")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds instead of the usual number")
    parser.add_argument("--environment", type=Path, default=ROOT / ".peers", help="virtual environment with LiteLLM")
    options = parser.parse_args(argv)
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = attrs.evolve(scale, rounds=options.rounds)
    say = partial(print, flush=True)
    before = machine.describe()
    say(f"{before['cpu']}, {before['cores']} cores, Python {before['python']}, load average {before['load_average']}")
    try:
        record = measure(scale, options.environment)
    except (LoadError, StartError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    say(figures.table(FIGURES, record.samples, PEERS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
