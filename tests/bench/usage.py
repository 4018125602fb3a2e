"""What the ledger costs: the proxy with and without it, and how many records it takes in a second."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import trio

from cpa.usage.ledger import LedgerSettings, open_ledger
from cpa.usage.record import ClientFacts, Tokens, UsageRecord
from tests.bench import processes, scenarios
from tests.bench.figures import Layout, Section
from tests.bench.machine import Cores
from tests.bench.plugins import Environment, Part, Round, rotated, run_part
from tests.bench.processes import Child, Generator
from tests.bench.record import Record
from tests.bench.scenarios import Figure, Scale

LEDGER_LIMIT = 1.05
"""Issue 5: the ledger costs at most a twentieth. Two runs of the same program differ by as much."""
CONCURRENCY = 32
RECORDS = 9_000
"""As many as may wait."""

SYSTEMS = ("off", "again", "on")
LAYOUT = Layout(
    name="The usage ledger",
    systems=SYSTEMS,
    base="off",
    spreads=(("on", "off"), ("again", "off")),
    absolute=("on", "off"),
    judged="on",
    against="off",
    control=("again", "off"),
)
REQUEST = Figure(
    key="usage.request", title=f"CPU per small request, c={CONCURRENCY}, ledger on", unit="µs", limit=LEDGER_LIMIT
)
CHUNK = Figure(
    key="usage.chunk",
    title=f"CPU per chunk, {scenarios.STREAMS} paced streams, ledger on",
    unit="µs",
    limit=LEDGER_LIMIT,
)
BURST = Figure(
    key="usage.burst", title=f"CPU per chunk, {scenarios.STREAMS} streams at full speed without usage", unit="µs"
)
"""The worst case: many chunks in a read cost the proxy next to nothing, and their text has to be counted."""
WRITES = Layout(
    name="Ledger writes", systems=("ledger",), base="ledger", spreads=(), absolute=("ledger",), judged="ledger"
)
RATE = Figure(key="usage.writes", title="records written per second", unit="/s", more=True)
COST = Figure(key="usage.write.cpu", title="CPU per record, all threads", unit="µs")


@contextmanager
def open_proxies(env: Environment) -> Iterator[Round]:
    """Two equal proxies without a ledger, and one with it. Raises: StartError."""
    text = {name: f"usage: {{ledger: {{enabled: {str(name == 'on').lower()}}}}}\n" for name in SYSTEMS}
    with ExitStack() as stack:
        proxies = {
            name: stack.enter_context(processes.proxy(env.cores, env.provider_port, text[name], f"cpa {name}"))
            for name in SYSTEMS
        }
        yield lambda number: measure_proxies(env, proxies, number)


def measure_proxies(env: Environment, proxies: Mapping[str, Child], number: int) -> None:
    """Small requests and streams, as the forwarding part has them. Raises: LoadError."""
    small = scenarios.small(CONCURRENCY)
    for name in rotated(SYSTEMS, number):
        outcome = env.generator.run(small.job(env.scale, proxies[name].port, proxies[name].pid))
        env.record.keep(REQUEST.key, name, outcome.cpu_s / outcome.requests * 1e6)
    for name in rotated(SYSTEMS, number):
        for figure, scenario in ((CHUNK, scenarios.PACED), (BURST, scenarios.BURST)):
            outcome = env.generator.run(scenario.job(env.scale, proxies[name].port, proxies[name].pid))
            env.record.keep(figure.key, name, outcome.cpu_s / outcome.events * 1e6)


@contextmanager
def open_writes(env: Environment) -> Iterator[Round]:
    """A ledger in this process."""

    def measure(number: int) -> None:
        with TemporaryDirectory(prefix="cpa-bench-") as directory:
            seconds, cpu_s = trio.run(write, Path(directory) / "ledger.sqlite3", RECORDS)
        env.record.keep(RATE.key, "ledger", RECORDS / seconds)
        env.record.keep(COST.key, "ledger", cpu_s / RECORDS * 1e6)

    yield measure


async def write(path: Path, count: int) -> tuple[float, float]:
    """Seconds and CPU seconds from the first record to the last one's commit."""
    records = [made(number) for number in range(count)]
    async with open_ledger(LedgerSettings(path=path)) as ledger:
        started, cpu = perf_counter(), process_time()
        for record in records:
            ledger.append(record)
        await ledger.flush()
        seconds, cpu_s = perf_counter() - started, process_time() - cpu
        assert (ledger.written, ledger.lost) == (count, 0)
    return seconds, cpu_s


def made(number: int) -> UsageRecord:
    """One of many that differ as much as real ones do."""
    return UsageRecord(
        request_id=f"00000000-0000-4000-8000-{number:012d}",
        trace_id=f"{number:08x}",
        provider="openai-compatible-bench",
        executor_type="OpenAICompatExecutor",
        model=f"model-{number % 5}",
        alias="model",
        principal=f"bench-client-key-{number % 20}",
        credential_id="openai-compatible-bench:apikey:0a1b2c3d4e5f",
        credential_index=f"{number % 10:016x}",
        auth_type="apikey",
        source="bench[00000000]",
        reasoning_effort="",
        service_tier="auto",
        generate=True,
        requested_at=datetime.now(UTC),
        latency_s=1.5,
        ttft_s=0.4,
        failed=False,
        complete=True,
        provider_format="openai",
        tokens=Tokens(input_tokens=1200, output_tokens=300, cache_read_tokens=1000, total_tokens=1500),
        client=ClientFacts(address="127.0.0.1", path="/v1/chat/completions"),
    )


PARTS = (
    Part(name="usage: ledger", section=Section(layout=LAYOUT, figures=(REQUEST, CHUNK, BURST)), open=open_proxies),
    Part(name="usage: writes", section=Section(layout=WRITES, figures=(RATE, COST)), open=open_writes),
)
SECTIONS = tuple(part.section for part in PARTS)


def measure(
    scale: Scale, cores: Cores, generator: Generator, provider_port: int, record: Record, *, only: str = ""
) -> None:
    """All parts whose names contain *only*. Raises: LoadError, StartError."""
    with TemporaryDirectory(prefix="cpa-bench-") as directory:
        env = Environment(
            scale=scale,
            cores=cores,
            generator=generator,
            provider_port=provider_port,
            record=record,
            folder=Path(directory),
        )
        for part in PARTS:
            if only in part.name:
                run_part(env, part)
