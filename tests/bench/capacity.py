"""The largest number of streams at 25 chunks a second each of which no chunk is late, searched in steps."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.bench import payloads, processes
from tests.bench.client import LoadError
from tests.bench.figures import Layout, Section
from tests.bench.load import Job, Outcome
from tests.bench.plugins import Environment, Part, Round, rotated
from tests.bench.processes import Child, Generator, has_uvicorn
from tests.bench.record import Record
from tests.bench.scenarios import QUICK, Figure

LATE_S: Final = 0.1
STEPS: Final = (64, 128, 256, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
"""What can be found. The search goes up in doubles and then between the last two: at most seven measurements."""
QUICK_STEPS: Final = 3
TRIES: Final = 2
"""One late chunk in tens of thousands can be a neighbour's fault; twice in a row it is not."""
OPENED_PER_S: Final = 400
"""Streams are opened at this rate: a thousand clients do not come in the same moment."""
CHUNKS_S: Final = 4.0
"""How long a stream of `payloads.STALL_MODEL` lasts."""
SYSTEMS: Final = ("direct", "floor", "uvicorn", "cpa")
LAYOUT: Final = Layout(
    name="Stall-free streams",
    systems=SYSTEMS,
    base="direct",
    spreads=(("cpa", "floor"), ("cpa", "uvicorn")),
    absolute=("cpa", "floor", "uvicorn", "direct"),
    judged="cpa",
)
STREAMS: Final = Figure(
    key="stall.streams", title="streams at 25 chunks/s each, no chunk later than 100 ms", unit="streams", more=True
)


def job(child: Child, count: int) -> Job:
    """*count* streams that overlap for seconds, however many they are."""
    request = payloads.http_request(payloads.chat_body(payloads.STALL_MODEL, stream=True))
    spread_s = min(count / OPENED_PER_S, CHUNKS_S * 0.6)
    return Job(port=child.port, request=request, connections=count, requests=count, spread_s=spread_s)


def is_free(child: Child, count: int, generator: Generator, record: Record) -> bool:
    """No chunk of *count* streams was late."""
    for _ in range(TRIES):
        child.drain()
        try:
            outcome = generator.run(job(child, count))
        except LoadError as exc:
            record.say(f"{child.name}, {count} streams: {exc}")
            continue
        record.say(f"{child.name}, {count} streams: latest chunk {max(outcome.delays_s) * 1e3:.0f} ms")
        if is_in_time(outcome):
            return True
    return False


def is_in_time(outcome: Outcome) -> bool:
    """No chunk was late."""
    return max(outcome.delays_s) <= LATE_S


def search(child: Child, generator: Generator, record: Record, steps: tuple[int, ...] = STEPS) -> int:
    """The largest of *steps* without a stall, 0 if none. Takes less than a minute."""
    good, bad, at = -1, len(steps), 0
    while bad - good > 1:
        if is_free(child, steps[at], generator, record):
            good = at
        else:
            bad = at
        at = min(max(good * 2, good + 1, 1), len(steps) - 1) if bad == len(steps) else (good + bad) // 2
    return steps[good] if good >= 0 else 0


@contextmanager
def open_search(env: Environment) -> Iterator[Round]:
    """All systems. Raises: StartError."""
    environment = env.scale.environment
    names = [name for name in SYSTEMS[1:] if name != "uvicorn" or has_uvicorn(environment)]
    steps = STEPS if env.scale.idle_streams > QUICK.idle_streams else STEPS[:QUICK_STEPS]
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(processes.system(name, env.cores, env.provider_port, environment))
            for name in names
        }

        def measure(number: int) -> None:
            for name in rotated(names, number):
                env.record.keep(STREAMS.key, name, search(children[name], env.generator, env.record, steps))

        yield measure


PART: Final = Part(
    name="stall-free streams", section=Section(layout=LAYOUT, figures=(STREAMS,)), open=open_search, rounds=1
)
