"""The scenarios of scenarios.py for several systems in turn: what both benches have in common."""

from collections.abc import Mapping, Sequence
from math import nan

import attrs

from tests.bench import machine, payloads
from tests.bench.client import LoadError
from tests.bench.load import Job, Outcome
from tests.bench.processes import Child, Generator
from tests.bench.record import Record
from tests.bench.scenarios import Scale, Scenario

WARM_REQUESTS = 200
EVENT_TOLERANCE = 0.01
"""The load generator misses the end of an event that a read cuts in two."""
PEER_TOLERANCE = 0.05
"""Peers write a stream's first and last events in their own way."""
SAID = 200
"""Characters of a peer's error that are shown."""
TRIES = 2
"""A peer that breaks an answer off gets another chance, unless it had as many in a round before."""


@attrs.frozen(kw_only=True)
class Contest:
    """The systems of one run, all alive.

    Attributes:
      children: by name; the direct call's is the provider. Their order is that of the first round.
      peers: those of *children* that are not ours: what fails is told and left out.
    """

    scale: Scale
    generator: Generator
    record: Record
    children: Mapping[str, Child]
    peers: frozenset[str] = frozenset()
    _failed: set[tuple[str, str]] = attrs.field(factory=set, init=False)

    def warm_up(self) -> None:
        """Load everybody's code and fill the pools."""
        for name, child in self.children.items():
            self.attempt(name, warm_up(child.port, payloads.SMALL_MODEL, stream=False))
            self.attempt(name, warm_up(child.port, payloads.BURST_MODEL, stream=True))

    def round(self, number: int, scenarios: Sequence[Scenario]) -> None:
        """Measure *scenarios* once; the order of the systems rotates. Raises: LoadError, StartError."""
        names = list(self.children)
        order = [names[(at + number) % len(names)] for at in range(len(names))]
        for scenario in scenarios:
            self.record.say(scenario.name, number)
            self.measure(scenario, [name for name in order if not scenario.systems or name in scenario.systems])

    def measure(self, scenario: Scenario, names: Sequence[str]) -> None:
        """One scenario, once for each of *names*. Raises: LoadError, StartError."""
        outcomes: dict[str, Outcome] = {}
        for name in names:
            child = self.children[name]
            pid = 0 if name == "direct" else child.pid
            job = scenario.job_for(name, self.scale, child.port, pid)
            outcome = self.attempt(name, job, tries=1 if (scenario.name, name) in self._failed else TRIES)
            if outcome is not None:
                outcomes[name] = outcome
            else:
                self._failed.add((scenario.name, name))
        check(scenario, outcomes, self.peers)
        failed = {figure.key: nan for figure in scenario.figures}
        for name in names:
            # Every round has its place, so that ratios are formed within one.
            values = scenario.values(outcomes[name]) if name in outcomes else failed
            for key, value in values.items():
                if name != "direct" or ".cpu" not in key:
                    self.record.keep(key, name, value)

    def attempt(self, name: str, job: Job, *, tries: int = TRIES) -> Outcome | None:
        """Do *job*; None for a peer that fails at it every time. Raises: LoadError, StartError."""
        if name not in self.peers:
            return self.generator.run(job)
        for _ in range(tries):
            self.children[name].drain()
            try:
                return self.generator.run(job)
            except LoadError as exc:
                self.record.say(f"{name} failed: {str(exc)[:SAID]}")
        return None


def warm_up(port: int, model: str, *, stream: bool) -> Job:
    """Load the code and fill the pools."""
    request = payloads.http_request(payloads.chat_body(model, stream=stream))
    return Job(port=port, request=request, connections=8, requests=8 if stream else WARM_REQUESTS)


def check(scenario: Scenario, outcomes: Mapping[str, Outcome], peers: frozenset[str] = frozenset()) -> None:
    """All systems must have delivered the same. Raises: LoadError.

    Events are not comparable where only some translate, and stamped chunks are there in any protocol.
    """
    if not outcomes:
        return
    what = "events" if scenario.plain is None else "chunks"

    def per_answer(outcome: Outcome) -> float:
        return (outcome.events if scenario.plain is None else len(outcome.delays_s)) / outcome.requests

    first = "direct" if "direct" in outcomes else next(iter(outcomes))
    expected = per_answer(outcomes[first])
    for name, outcome in outcomes.items():
        found = per_answer(outcome)
        tolerance = PEER_TOLERANCE if name in peers else EVENT_TOLERANCE
        if abs(found - expected) > expected * tolerance:
            raise LoadError(f"{scenario.name}: {name} gave {found:g} {what} per answer, {first} {expected:g}")


def added_memory(child: Child, generator: Generator, held: Job) -> float:
    """KB per idle stream of the fresh process *child*: one that has served would reuse what it holds."""
    generator.run(warm_up(child.port, payloads.SMALL_MODEL, stream=False))
    generator.run(warm_up(child.port, payloads.BURST_MODEL, stream=True))
    before = machine.memory_kb(child.pid)
    with generator.hold(held):
        return (machine.memory_kb(child.pid) - before) / held.connections
