"""``workers: 2`` on two cores against ``workers: 1`` on one of them.

The load generator and the provider need a core as well, and there are only two. So the load is one that costs the proxy
much more than them: agent bodies of 1 MB that are translated. Their share of the CPU is measured and shown; what it
takes from the second worker is part of the result.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import attrs
import psutil

from cpa.formats.names import Format
from tests.bench import payloads, processes
from tests.bench.figures import Layout, Section
from tests.bench.load import Job
from tests.bench.machine import cpu_seconds
from tests.bench.plugins import Environment, Part, Round, rotated
from tests.bench.processes import Child
from tests.bench.scenarios import Figure, Scale
from tests.bench.sessions import session_body

CONNECTIONS: Final = 8
SECONDS: Final = 3.0
BODY_BYTES: Final = 1 << 20
SYSTEMS: Final = ("one", "two")
WORKERS: Final = {"one": 1, "two": 2}
LAYOUT: Final = Layout(
    name="More than one core",
    systems=SYSTEMS,
    base="one",
    spreads=(("two", "one"),),
    absolute=("two", "one"),
    judged="two",
)
RATE: Final = Figure(
    key="workers.rate", title="requests per second, 1 MB body, Anthropic → OpenAI, c=8", unit="/s", more=True
)
CPU: Final = Figure(key="workers.cpu", title="CPU per request, all workers", unit="µs")
SHARE: Final = Figure(key="workers.share", title="share of the CPU used that generator and provider took", unit="%")


def job(scale: Scale, child: Child, pids: list[int]) -> Job:
    """More connections than workers, so that none waits for work."""
    body = session_body(Format.CLAUDE, payloads.SMALL_MODEL, BODY_BYTES)
    return Job(
        port=child.port,
        request=payloads.http_request(body, payloads.CLAUDE_PATH),
        connections=CONNECTIONS,
        seconds=min(SECONDS, 3 * scale.seconds),
        warmup_s=scale.warmup_s,
        pids=pids,
    )


@contextmanager
def open_proxies(env: Environment) -> Iterator[Round]:
    """One proxy with a worker on its core, one with two on both. Raises: StartError."""
    with ExitStack() as stack:
        proxies: dict[str, Child] = {}
        for name in SYSTEMS:
            cores = env.cores if WORKERS[name] == 1 else attrs.evolve(env.cores, subject=None)
            text = f"workers: {WORKERS[name]}\n"
            proxies[name] = stack.enter_context(
                processes.proxy(cores, env.provider_port, text, f"cpa with {WORKERS[name]}")
            )
        yield lambda number: measure(env, proxies, number)


def measure(env: Environment, proxies: Mapping[str, Child], number: int) -> None:
    """Both, once. Raises: LoadError."""
    for name in rotated(SYSTEMS, number):
        child = proxies[name]
        family = [child.pid, *(each.pid for each in psutil.Process(child.pid).children(recursive=True))]
        before = cpu_seconds(env.provider_pid)
        outcome = env.generator.run(job(env.scale, child, family))
        helpers = outcome.own_cpu_s + cpu_seconds(env.provider_pid) - before
        env.record.keep(RATE.key, name, outcome.requests / outcome.seconds)
        env.record.keep(CPU.key, name, outcome.cpu_s / outcome.requests * 1e6)
        env.record.keep(SHARE.key, name, 100 * helpers / (helpers + outcome.cpu_s))


PART: Final = Part(
    name="workers on two cores", section=Section(layout=LAYOUT, figures=(RATE, CPU, SHARE)), open=open_proxies
)
