"""`python -m tests.bench.peers` (`make bench-peers`): CPA beside LiteLLM's proxy, one worker each, the same provider.

LiteLLM runs from a virtual environment of its own as its documents say, with telemetry off. All are measured in turn by
the jobs of scenarios.py. What a peer delivers is compared with the direct call, more loosely than elsewhere: it may
write a stream's first and last events in its own way. What it fails at is told and left out.
"""

import argparse
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import attrs
import msgspec

from tests.bench import figures, machine, payloads, processes, results, targets
from tests.bench.client import LoadError
from tests.bench.figures import Layout
from tests.bench.forwarding import Contest, added_memory, warm_up
from tests.bench.machine import Cores
from tests.bench.processes import ROOT, Child, StartError, has_uvicorn
from tests.bench.record import Record
from tests.bench.scenarios import (
    AGENT_DIRECTIONS,
    FULL,
    IDLE,
    LARGE,
    PACED,
    QUICK,
    TRANSLATED,
    Figure,
    Scale,
    agent,
    idle_job,
    small,
    steady,
)

SYSTEMS = ("direct", "floor", "uvicorn", "cpa", "litellm")
LIMIT_S = 960.0
"""After this time no round begins; one takes two or three minutes, so that a run takes less than twenty."""
START_S = 120.0
"""LiteLLM imports for half a minute on a busy machine."""
STEP_S = 0.02
LEFT_OUT = frozenset({"litellm"})
"""What it fails at under load has no value, and is told; ours has to succeed."""
PEERS = Layout(
    name="Peers",
    systems=SYSTEMS,
    base="direct",
    spreads=(("litellm", "cpa"), ("cpa", "floor"), ("cpa", "uvicorn")),
    absolute=("cpa", "litellm"),
    judged="cpa",
)
START = Figure(key="start.cpu", title="CPU time from the start to the first answer", unit="s")
MEMORY = Figure(key="start.kb", title="memory after the first requests", unit="KB")
SCENARIOS = (
    small(1),
    small(32),
    small(128),
    steady(),
    PACED,
    TRANSLATED,
    agent(),
    *AGENT_DIRECTIONS,
    *LARGE,
)
FIGURES = (*(figure for scenario in SCENARIOS for figure in scenario.figures), IDLE, START, MEMORY)
MODELS = (payloads.SMALL_MODEL, payloads.PACED_MODEL, payloads.BURST_MODEL, payloads.IDLE_MODEL)


def litellm_config(provider_port: int) -> str:
    """The same models, client key and providers as CPA has; JSON is YAML."""
    host = f"http://127.0.0.1:{provider_port}"
    bases = {f"openai/{model}": f"{host}/v1" for model in MODELS}
    # Its documents: Messages for a model of `openai/` become Responses, for one of any other kind Chat Completions.
    others = (payloads.MESSAGES_MODEL, payloads.MESSAGES_PACED_MODEL)
    bases |= {f"hosted_vllm/{model}": f"{host}/v1" for model in others}
    bases |= {f"anthropic/{payloads.CLAUDE_MODEL}": host, f"gemini/{payloads.GEMINI_MODEL}": f"{host}/v1beta"}
    models = [
        {
            "model_name": name.partition("/")[2],
            "litellm_params": {"model": name, "api_base": base, "api_key": payloads.PROVIDER_KEY},
        }
        for name, base in bases.items()
    ]
    return msgspec.json.encode(
        {
            "model_list": models,
            "general_settings": {"master_key": payloads.CLIENT_KEY},
            "litellm_settings": {"telemetry": False, "num_retries": 0},
            "router_settings": {"disable_cooldowns": True},
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
        child.drain(wait_s=STEP_S)


@contextmanager
def system(name: str, environment: Path, cores: Cores, provider: Child) -> Iterator[Child]:
    """One of `SYSTEMS`."""
    if name == "direct":
        yield provider
    elif name == "litellm":
        with litellm(environment, cores, provider.port) as child:
            yield child
    else:
        with processes.system(name, cores, provider.port, environment) as child:
            yield child


def measure(scale: Scale, environment: Path, only: str = "") -> Record:
    """A whole run: all systems live through it, and take turns. What fails is in the record's failures.

    Raises: LoadError, StartError when there was nothing to measure with.
    """
    cores, record = machine.pick_cores(), Record(scale.rounds, limit_s=LIMIT_S)
    names = [name for name in SYSTEMS if name != "uvicorn" or has_uvicorn(environment)]
    with ExitStack() as stack:
        provider = stack.enter_context(processes.provider(cores))
        generator = stack.enter_context(processes.generator(cores))
        children: dict[str, Child] = {}
        for name in names:
            record.say(f"starting {name}")
            with record.surviving(name):
                child = stack.enter_context(system(name, environment, cores, provider))
                first = warm_up(child.port, payloads.SMALL_MODEL, stream=False)
                generator.run(attrs.evolve(first, requests=1, connections=1))
                if name != "direct":
                    record.keep(START.key, name, machine.cpu_seconds(child.pid))
                children[name] = child
        contest = Contest(scale=scale, generator=generator, record=record, children=children, peers=LEFT_OUT)
        contest.warm_up()
        forwarders = [name for name in children if name != "direct"]
        for name in forwarders:
            record.keep(MEMORY.key, name, machine.memory_kb(children[name].pid))
        with record.surviving("scenarios"):
            for number in record.numbers():
                contest.round(number, [scenario for scenario in SCENARIOS if only in scenario.name])
        if only in IDLE.title:
            for name in forwarders:
                record.say(f"{IDLE.title}: starting a fresh {name}")
                with record.surviving(f"{IDLE.title}, {name}"), system(name, environment, cores, provider) as fresh:
                    held = idle_job(fresh.port, scale.idle_streams)
                    record.keep(IDLE.key, name, added_memory(fresh, generator, held))
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Returns: the exit code: 0, or 2 when a system was not there or a part failed; the others are told of."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a smoke test, not a result")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds instead of the usual number")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose names contain TEXT")
    parser.add_argument("--environment", type=Path, default=ROOT / ".peers", help="virtual environment with LiteLLM")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="result file (default: bench/results.json for whole runs)"
    )
    options = parser.parse_args(argv)
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = attrs.evolve(scale, rounds=options.rounds)
    say = partial(print, flush=True)
    before = machine.describe()
    say(f"{before['cpu']}, {before['cores']} cores, Python {before['python']}, load average {before['load_average']}")
    try:
        record = measure(scale, options.environment, options.only)
    except (LoadError, StartError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    measured = figures.Section(layout=PEERS, figures=FIGURES).measured(record.samples)
    say(f"### {PEERS.name}")
    say(figures.table(measured.figures, record.samples, PEERS))
    say()
    found = targets.judge(record.samples, PEERS, FIGURES)
    for verdict in found:
        say(f"    {verdict}")
    output = options.output or (None if options.quick or options.only else results.PATH)
    if output is not None:
        results.write_peers(output, scale, record.samples, before, [measured], found)
        say(f"written: {output}")
    for failure in record.failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 2 if record.failures else 0


if __name__ == "__main__":
    sys.exit(main())
