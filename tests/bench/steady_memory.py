"""Whether memory stays what it is while many requests go by, one in ten of which is abandoned by its client."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.bench import machine, payloads, processes
from tests.bench.figures import Layout, Section
from tests.bench.load import Job
from tests.bench.plugins import Environment, Part, Round
from tests.bench.scenarios import QUICK, Figure

CONCURRENCY: Final = 32
NAME: Final = "memory-flat"
STEP: Final = 10_000
STEPS: Final = 10
QUICK_STEP: Final = 500
LAYOUT: Final = Layout(
    name="Memory over 100,000 requests",
    systems=("cpa",),
    base="cpa",
    spreads=(),
    absolute=("cpa",),
    judged="cpa",
)
EARLY: Final = Figure(key="memory.early", title="memory after 10,000 requests", unit="MB")
LATE: Final = Figure(key="memory.late", title="memory after 100,000 requests", unit="MB")
GROWTH: Final = Figure(key="memory.growth", title="memory after 100,000 over that after 10,000 requests", unit="x")


def job(port: int, requests: int) -> Job:
    """Small requests; each tenth client asks for a stream and leaves when it has begun."""
    return Job(
        port=port,
        request=payloads.http_request(payloads.chat_body(payloads.SMALL_MODEL, stream=False)),
        leaver=payloads.http_request(payloads.chat_body(payloads.PACED_MODEL, stream=True)),
        connections=CONCURRENCY,
        requests=requests,
    )


@contextmanager
def open_memory(env: Environment) -> Iterator[Round]:
    """One proxy. Raises: StartError."""
    step = STEP if env.scale.idle_streams > QUICK.idle_streams else QUICK_STEP
    with processes.proxy(env.cores, env.provider_port) as child:

        def measure(number: int) -> None:
            found = []
            for at in range(STEPS):
                env.generator.run(job(child.port, step))
                found.append(machine.memory_kb(child.pid) * 1024 / 1e6)
                env.record.say(f"{NAME}: {found[-1]:.1f} MB after {(at + 1) * step:,} requests")
            env.record.keep(EARLY.key, "cpa", found[0])
            env.record.keep(LATE.key, "cpa", found[-1])
            env.record.keep(GROWTH.key, "cpa", found[-1] / found[0])

        yield measure


PART: Final = Part(name=NAME, section=Section(layout=LAYOUT, figures=(EARLY, LATE, GROWTH)), open=open_memory, rounds=1)
