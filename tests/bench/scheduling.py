"""What it costs to choose a credential, with 1, 100 and 10,000 of them, and how much memory each one takes.

In this process, in processor time: nothing but the scheduler is measured. A selection is what every request pays: its
beginning, a pick, the success, the end. Indexes are made before; how long that takes is a figure of its own.
"""

import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from time import process_time_ns
from typing import Final

from cpa.config.schema import Strategy
from cpa.credentials.model import Credential
from cpa.errors import UpstreamStatusError
from cpa.formats.names import Format
from cpa.scheduling.scheduler import ConfiguredScheduler, Scheduling
from cpa.scheduling.settings import SchedulingSettings
from cpa.testing.fakes import FakeAnswer, FakeExecutor
from cpa.types import Candidate, SelectionAsk
from tests.bench.figures import Layout, Section
from tests.bench.record import Record
from tests.bench.scenarios import Figure, Scale

SIZES: Final = (1, 100, 10_000)
LIMIT: Final = 3.0
"""Issue 5: 10,000 credentials cost at most three times what one costs."""
NAME: Final = "scheduling: selection"
SELECTIONS: Final = 2000
ROUNDS: Final = 3
PROVIDERS: Final = ("claude", "openai-compatible-farm")
EXECUTOR: Final = FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([b"{}"]))
BODY: Final = b'{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hello"}]}'


def system(size: int) -> str:
    """Name of a pool of that size."""
    return f"{size:,}"


LAYOUT: Final = Layout(
    name="Selection of a credential",
    systems=tuple(map(system, SIZES)),
    base=system(1),
    spreads=((system(10_000), system(1)), (system(100), system(1))),
    absolute=tuple(map(system, SIZES)),
    judged=system(10_000),
    against=system(1),
)


def credentials(size: int, *, providers: int = 1) -> tuple[Candidate, ...]:
    """So many ways to serve a model, with five different weights."""
    return tuple(
        Candidate(
            credential=Credential(
                id=f"{PROVIDERS[number % providers]}:apikey:{number:012x}",
                provider=PROVIDERS[number % providers],
                label="bench",
                weight=1 + number % 5,
            ),
            model="m",
            executor=EXECUTOR,
        )
        for number in range(size)
    )


CASES: Final[Mapping[str, tuple[SchedulingSettings, int]]] = {
    "round-robin": (SchedulingSettings(), 1),
    "round-robin, two providers": (SchedulingSettings(), 2),
    "weighted": (SchedulingSettings(strategy=Strategy.WEIGHTED_ROUND_ROBIN), 1),
    "fill-first": (SchedulingSettings(strategy=Strategy.FILL_FIRST), 1),
    "session affinity": (SchedulingSettings(affinity=True), 1),
}
FAILING: Final = "round-robin, every tenth request fails and the next credential serves it"
BUILD: Final = Figure(key="scheduling.index", title="making the index, per credential", unit="µs")
MEMORY: Final = Figure(key="scheduling.memory", title="memory of the index, per credential", unit="bytes")
COOLING: Final = Figure(key="scheduling.cooling", title="memory of a cooldown", unit="bytes")


def figure(case: str) -> Figure:
    """Time of one selection."""
    return Figure(key=f"scheduling.{case}", title=f"one selection, {case}", unit="µs", limit=LIMIT)


SECTION: Final = Section(layout=LAYOUT, figures=(*map(figure, (*CASES, FAILING)), BUILD, MEMORY, COOLING))


def ask(number: int = 0) -> SelectionAsk:
    """A request; of one of 64 sessions."""
    return SelectionAsk(
        model="m", format=Format.OPENAI, headers=((b"session-id", b"session-%d" % (number % 64)),), body=BODY
    )


ASKS: Final = tuple(map(ask, range(64)))


def served(scheduler: ConfiguredScheduler, pool: Sequence[Candidate], asked: SelectionAsk) -> None:
    """One selection that succeeds at once."""
    selection = scheduler.select(pool, asked, executors=scheduler.executors(pool))
    selection.pick()
    selection.succeeded()
    selection.close()


def failed_over(scheduler: ConfiguredScheduler, pool: Sequence[Candidate], error: UpstreamStatusError) -> None:
    """One whose first attempt fails."""
    selection = scheduler.select(pool, ASKS[0], executors=scheduler.executors(pool))
    selection.pick()
    selection.failed(error)
    if selection.pick() is not None:
        selection.succeeded()
    selection.close()


def time_us(count: int, run: Callable[[int], None]) -> float:
    """Of one of *count* runs, of this process alone."""
    begun = process_time_ns()
    for number in range(count):
        run(number)
    return (process_time_ns() - begun) / count / 1000


def measure(scale: Scale, record: Record, *, only: str = "") -> None:
    """All rounds, if the name contains *only*."""
    if only not in NAME:
        return
    for number in record.numbers(ROUNDS):
        record.say(NAME, number)
        for size in SIZES[number % len(SIZES) :] + SIZES[: number % len(SIZES)]:
            measure_size(size, record)


def measure_size(size: int, record: Record, *, selections: int = SELECTIONS) -> None:
    """All figures of one size of pool, once."""
    for case, (settings, providers) in CASES.items():
        pool = credentials(size, providers=providers)
        scheduler = Scheduling().configured(settings)
        served(scheduler, pool, ASKS[0])
        record.keep(
            figure(case).key,
            system(size),
            time_us(selections, lambda n, s=scheduler, p=pool: served(s, p, ASKS[n % 64])),  # type: ignore[misc]
        )
    measure_failing(size, record, selections)
    measure_memory(size, record)


def measure_failing(size: int, record: Record, selections: int) -> None:
    """Credentials leave the index and come back. With one of them the cooldown ends with the next request."""
    pool, error = credentials(size), UpstreamStatusError(status=503, headers=(), body=b"{}", provider_format="openai")
    scheduler = Scheduling().configured(SchedulingSettings(transient_s=0.001, transient_default=False))

    def run(number: int) -> None:
        if number % 10:
            served(scheduler, pool, ASKS[0])
        else:
            failed_over(scheduler, pool, error)

    run(1)
    record.keep(figure(FAILING).key, system(size), time_us(selections, run))


def measure_memory(size: int, record: Record) -> None:
    """What an index of them takes, in time and memory, and what it takes that all of them cool."""
    pool = credentials(size)
    scheduling = Scheduling()
    scheduler = scheduling.configured(SchedulingSettings())
    begun = process_time_ns()
    scheduling.pool(pool, scheduler.executors(pool), "timed")
    record.keep(BUILD.key, system(size), (process_time_ns() - begun) / 1000 / size)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        scheduling.pool(pool, scheduler.executors(pool), "m")
        indexed = tracemalloc.get_traced_memory()[0]
        error = UpstreamStatusError(status=401, headers=(), body=b"{}", provider_format="openai")
        selection = scheduler.select(pool, ASKS[0], executors=scheduler.executors(pool))
        while selection.pick() is not None:
            selection.failed(error)
        cooling = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    record.keep(MEMORY.key, system(size), (indexed - before) / size)
    record.keep(COOLING.key, system(size), (cooling - indexed) / size)
