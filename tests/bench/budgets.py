"""What each layer of the proxy may cost, as a multiple of what the whole floor costs in the same run.

The layers' parts come from samples (sampling.py), their sum from the process's CPU clock. ``budgets.json`` has what was
found when it was last written; ``--check`` fails when a layer takes more than that by more than noise, and names it.
``--write-budgets`` writes it anew.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs
import msgspec

from tests.bench import figures, payloads, processes, scenarios
from tests.bench.figures import Layout, Samples, Section, Verdict
from tests.bench.forwarding import added_memory, warm_up
from tests.bench.plugins import Environment, Part, Round
from tests.bench.processes import START_S, Child
from tests.bench.sampling import Layer
from tests.bench.scenarios import Figure
from tests.bench.serve_cpa import SAMPLED

PATH: Final = Path(__file__).with_name("budgets.json")
TOLERANCE: Final = 1.3
SLACK: Final = 0.15
"""A layer may take this many times its budget and this part of the floor: what five runs of the same program differ by,
mostly where a layer has few samples."""
ROUNDS: Final = 3
SAMPLED_S: Final = 3.0
IDLE_STREAMS: Final = 200
"""`tracemalloc` makes the proxy slow while it opens them."""
WHOLE: Final = "whole"
LAYOUT: Final = Layout(
    name="Budgets by layer",
    systems=("cpa", "floor"),
    base="floor",
    spreads=(("cpa", "floor"),),
    absolute=("cpa", "floor"),
    judged="cpa",
    against="floor",
)
KINDS: Final = {
    "request": ("CPU per small request, c=32", "µs"),
    "chunk": (f"CPU per chunk, {scenarios.STREAMS} paced streams", "µs"),
    "stream": ("memory per idle stream, allocated by Python", "KB"),
}
Budgets = Mapping[str, float]
"""Figure key → multiple of the floor."""


def figure(kind: str, layer: str) -> Figure:
    """One row; *layer* may be the whole."""
    title, unit = KINDS[kind]
    return Figure(key=f"budget.{kind}.{layer}", title=f"{title}: {layer}", unit=unit)


FIGURES: Final = tuple(figure(kind, layer) for kind in KINDS for layer in (*(each.value for each in Layer), WHOLE))


def order(child: Child, text: str) -> Mapping[str, float]:
    """Have sampling.py do what *text* says. Raises: StartError."""
    child.write(text.encode() + b"\n")
    return msgspec.json.decode(child.line(START_S), type=dict[str, float])


@contextmanager
def open_proxies(env: Environment) -> Iterator[Round]:
    """The floor and a proxy that can be asked. Raises: StartError."""
    with ExitStack() as stack:
        floor = stack.enter_context(processes.system("floor", env.cores, env.provider_port))
        cpa = stack.enter_context(processes.proxy(env.cores, env.provider_port, name="cpa", options=(SAMPLED,)))
        for child in (floor, cpa):
            env.generator.run(warm_up(child.port, payloads.SMALL_MODEL, stream=False))
            env.generator.run(warm_up(child.port, payloads.BURST_MODEL, stream=True))

        def measure(number: int) -> None:
            measure_cpu(env, floor, cpa)
            measure_memory(env)

        yield measure


def measure_cpu(env: Environment, floor: Child, cpa: Child) -> None:
    """Requests and chunks. Raises: LoadError, StartError."""
    scale = attrs.evolve(env.scale, seconds=min(SAMPLED_S, 3 * env.scale.seconds))
    jobs = (("request", "small.cpu.32", scenarios.small(32)), ("chunk", "paced.cpu", scenarios.PACED))
    for kind, key, scenario in jobs:
        needed = scenario.values(env.generator.run(scenario.job(env.scale, floor.port, floor.pid)))[key]
        order(cpa, "cpu start")
        outcome = env.generator.run(scenario.job(scale, cpa.port, cpa.pid))
        parts = order(cpa, "cpu stop")
        keep(env, kind, {layer: part * scenario.values(outcome)[key] for layer, part in parts.items()}, needed)


def measure_memory(env: Environment) -> None:
    """Idle streams of fresh processes. Raises: LoadError, StartError."""
    with processes.system("floor", env.cores, env.provider_port) as fresh:
        needed = added_memory(fresh, env.generator, scenarios.idle_job(fresh.port, IDLE_STREAMS))
    with processes.proxy(env.cores, env.provider_port, name="cpa", options=(SAMPLED,)) as fresh:
        env.generator.run(warm_up(fresh.port, payloads.BURST_MODEL, stream=True))
        order(fresh, "memory start")
        with env.generator.hold(scenarios.idle_job(fresh.port, IDLE_STREAMS)):
            parts = order(fresh, "memory stop")
    keep(env, "stream", {layer: part / IDLE_STREAMS / 1024 for layer, part in parts.items()}, needed)


def keep(env: Environment, kind: str, parts: Mapping[str, float], needed: float) -> None:
    """All layers and their sum, each beside the whole floor."""
    for layer, value in {**parts, WHOLE: sum(parts.values())}.items():
        env.record.keep(figure(kind, layer).key, "cpa", value)
        env.record.keep(figure(kind, layer).key, "floor", needed)


def read(path: Path = PATH) -> Budgets:
    """What is committed; nothing where there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, float]) if path.exists() else {}


def found(samples: Samples) -> Budgets:
    """The medians of a run."""
    spreads = {each.key: figures.ratio(each, "cpa", "floor", samples, LAYOUT) for each in FIGURES}
    return {key: figures.significant(spread.median) for key, spread in spreads.items() if spread is not None}


def write(samples: Samples, path: Path = PATH) -> None:
    """Commit to what a run has found."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found(samples)), indent=1) + b"\n")


def judge(samples: Samples, budgets: Budgets) -> list[Verdict]:
    """Each layer that was measured and has a budget."""
    now = found(samples)
    return [
        Verdict(
            title=f"budget: {each.title}",
            value=now[each.key],
            unit="x floor",
            limit=budgets[each.key] * TOLERANCE + SLACK,
        )
        for each in FIGURES
        if each.key in now and each.key in budgets
    ]


PART: Final = Part(name="budgets", section=Section(layout=LAYOUT, figures=FIGURES), open=open_proxies, rounds=ROUNDS)
