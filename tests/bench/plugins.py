"""What plugins cost: a call, a streamed chunk, having none, and the workers themselves.

Each part opens what it needs, then measures all that it compares once per round, in an order that rotates. Parts come
one after the other: what idles during a measurement is only what it is compared with.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import attrs
import msgspec
import psutil

from cpa.config.schema import Isolation
from tests.bench import libraries, machine, payloads, processes, scenarios, workers
from tests.bench.client import LoadError
from tests.bench.figures import Layout, Section
from tests.bench.libraries import Language
from tests.bench.load import Job, Outcome
from tests.bench.machine import Cores, cpu_seconds
from tests.bench.plugin_calls import CallJob, CallOutcome, Level
from tests.bench.processes import START_S, Child, Generator
from tests.bench.record import Record
from tests.bench.scenarios import PAUSE_S, Figure, Scale

PROCESS_LIMIT = 1.5
"""Issue 3: a call of a plugin in a process of its own takes at most this many times one of a plugin inside ours."""
LIMITED_BYTES = 64 << 10
"""Up to this size of a body."""
UNPLUGGED_LIMIT = 1.05
"""Issue 3: without plugins a proxy pays nothing. Two runs of the same program differ by as much."""
WORKER_LIMIT_KB = 12 << 10
START_LIMIT_S = 3.0
"""Issue 3, as above; for 40 workers."""

EVENT_TOLERANCE = 0.01
"""See `__main__.EVENT_TOLERANCE`."""

Round = Callable[[int], None]
"""Measures everything of a part once; told the number of the round, from 0."""


@attrs.frozen(kw_only=True)
class Variant:
    """Stream interceptors of one kind."""

    count: int
    schema: int

    @property
    def key(self) -> str:
        """Part of the figures' keys."""
        return f"plugin.chunk.{self.count}.schema{self.schema}"

    def __str__(self) -> str:
        return f"{self.count} plugin{'s' if self.count > 1 else ''}, schema {self.schema}"


VARIANTS = tuple(Variant(count=count, schema=schema) for count in (1, 4) for schema in (1, 3))


@attrs.frozen(kw_only=True)
class Environment:
    """What all parts use.

    Attributes:
      folder: for libraries; empty at first.
      variants, languages: what to measure.
    """

    scale: Scale
    cores: Cores
    generator: Generator
    provider_port: int
    record: Record
    folder: Path
    provider_pid: int = 0
    variants: Sequence[Variant] = VARIANTS
    languages: Sequence[Language] = tuple(Language)


@attrs.frozen(kw_only=True)
class Part:
    """One table and where its values come from.

    Attributes:
      rounds: no more than so many.
      needs: a program without which it is left out.
    """

    name: str
    section: Section
    open: Callable[[Environment], AbstractContextManager[Round]]
    rounds: int = 3
    needs: str = ""


def rotated(names: Sequence[str], number: int) -> list[str]:
    """*names*, beginning with another one in each round."""
    return [names[(at + number) % len(names)] for at in range(len(names))]


# --- calls -----------------------------------------------------------------------------------------------------------

CALLS = Layout(
    name="Plugin calls",
    systems=("bare", "inline", "process"),
    base="bare",
    spreads=(("process", "inline"), ("process", "bare"), ("inline", "bare")),
    absolute=("process", "inline", "bare"),
    judged="process",
    against="inline",
)
SIZES = {1 << 10: "1 KB", 64 << 10: "64 KB", 1 << 20: "1 MB"}
LEVELS = (Level.TRANSPORT, Level.HOST)


def call_figure(level: Level, size: int) -> Figure:
    """Time of a call; at the host's level the bare call's is the same as at the transport's."""
    return Figure(
        key=f"plugin.call.{level}.{size}",
        title=f"call at the {level}'s level, {SIZES[size]}",
        unit="µs",
        limit=PROCESS_LIMIT if size <= LIMITED_BYTES else 0.0,
    )


CALL_SECTION = Section(layout=CALLS, figures=tuple(call_figure(level, size) for level in LEVELS for size in SIZES))


@contextmanager
def open_calls(env: Environment) -> Iterator[Round]:
    """One process that calls the echo plugin in all ways. Raises: StartError."""
    library = libraries.compile_echo(env.folder / "echo.so")
    argv = (sys.executable, "-m", "tests.bench.plugin_calls", str(library))
    with processes.running("plugin calls", argv, core=env.cores.subject) as child:

        def median_us(level: Level, size: int, isolation: Isolation = Isolation.PROCESS) -> float:
            job = CallJob(level=level, isolation=isolation, body_bytes=size, seconds=env.scale.call_s)
            child.write(msgspec.json.encode(job) + b"\n")
            return msgspec.json.decode(child.line(START_S), type=CallOutcome).median_s * 1e6

        def measure(number: int) -> None:
            for size in SIZES:
                for system in rotated(CALLS.systems, number):
                    if system == "bare":
                        value = median_us(Level.BARE, size)
                        for level in LEVELS:
                            env.record.keep(call_figure(level, size).key, system, value)
                        continue
                    for level in LEVELS:
                        value = median_us(level, size, Isolation(system))
                        env.record.keep(call_figure(level, size).key, system, value)

        yield measure


# --- chunks ----------------------------------------------------------------------------------------------------------

CHUNKS = Layout(
    name="Stream interceptors",
    systems=("none", "inline", "process"),
    base="none",
    spreads=(("process", "inline"), ("process", "none"), ("inline", "none")),
    absolute=("process", "inline", "none"),
    judged="process",
    against="inline",
)


def chunk_figures(variant: Variant) -> tuple[Figure, ...]:
    """CPU per chunk in two kinds of streams, with and without that of the workers; time per chunk of a lone stream."""
    key = variant.key
    return (
        Figure(key=f"{key}.paced.proxy", title=f"{variant}: CPU per paced chunk, proxy", unit="µs"),
        Figure(key=f"{key}.paced.all", title=f"{variant}: CPU per paced chunk, proxy and workers", unit="µs"),
        Figure(key=f"{key}.burst.proxy", title=f"{variant}: CPU per chunk at full speed, proxy", unit="µs"),
        Figure(key=f"{key}.burst.all", title=f"{variant}: CPU per chunk at full speed, proxy and workers", unit="µs"),
        Figure(
            key=f"{key}.time",
            title=f"{variant}: added time per chunk of a lone stream",
            unit="µs",
            added=True,
            limit=PROCESS_LIMIT,
        ),
    )


CHUNK_SECTION = Section(
    layout=CHUNKS, figures=tuple(figure for variant in VARIANTS for figure in chunk_figures(variant))
)


@attrs.frozen(kw_only=True)
class ChunkValues:
    """Of one proxy in one round, all per chunk and in seconds."""

    paced_proxy: float
    paced_workers: float
    burst_proxy: float
    burst_workers: float
    time: float


def plugins_text(folder: Path, count: int, isolation: Isolation) -> str:
    """The configuration's section with plugins ``p1`` to ``p<count>`` of *folder*."""
    entries = "".join(f"    p{number}: {{enabled: true, priority: {number}}}\n" for number in range(1, count + 1))
    return f"plugins:\n  enabled: true\n  dir: {folder}\n  isolation: {isolation}\n  configs:\n{entries}"


def expect_plugins(child: Child, count: int) -> None:
    """Raises: LoadError unless that many interceptors took part in a stream."""
    connection = HTTPConnection("127.0.0.1", child.port, timeout=START_S)
    try:
        head = {"authorization": f"Bearer {payloads.CLIENT_KEY}", "content-type": "application/json"}
        body = payloads.chat_body(payloads.PLUGIN_BURST_MODEL, stream=True)
        connection.request("POST", payloads.PATH, body=body, headers=head)
        answer = connection.getresponse()
        answer.read()
        found = sum(answer.headers[f"X-Bench-{number}"] == "yes" for number in range(1, count + 2))
    finally:
        connection.close()
    if answer.status != 200 or found != count:
        raise LoadError(f"{child.name}: status {answer.status}, expected {count} plugins, found {found}")


@contextmanager
def open_chunks(env: Environment) -> Iterator[Round]:
    """A proxy without plugins, and one for each variant and isolation. Raises: StartError, LoadError."""
    with ExitStack() as stack:
        proxies = {"none": stack.enter_context(processes.proxy(env.cores, env.provider_port, name="cpa without"))}
        for schema in {variant.schema for variant in env.variants}:
            folder = env.folder / f"schema{schema}"
            folder.mkdir()
            for number in range(1, max(variant.count for variant in env.variants) + 1):
                target = folder / f"p{number}.so"
                libraries.compile_echo(target, schema=schema, mark=str(number), intercepts=True)
            for variant in env.variants:
                for isolation in Isolation if variant.schema == schema else ():
                    text = plugins_text(folder, variant.count, isolation)
                    name = f"{variant.key}.{isolation}"
                    child = stack.enter_context(processes.proxy(env.cores, env.provider_port, text, name))
                    expect_plugins(child, variant.count)
                    proxies[name] = child

        def measure(number: int) -> None:
            values = measure_chunks(env, {name: proxies[name] for name in rotated(list(proxies), number)})
            for variant in env.variants:
                for system in CHUNKS.systems:
                    found = values[system if system == "none" else f"{variant.key}.{system}"]
                    for key, value in values_of(found).items():
                        env.record.keep(f"{variant.key}.{key}", system, value * 1e6)

        yield measure


def values_of(found: ChunkValues) -> Mapping[str, float]:
    """By the last part of the figures' keys."""
    return {
        "paced.proxy": found.paced_proxy,
        "paced.all": found.paced_proxy + found.paced_workers,
        "burst.proxy": found.burst_proxy,
        "burst.all": found.burst_proxy + found.burst_workers,
        "time": found.time,
    }


def measure_chunks(env: Environment, proxies: Mapping[str, Child]) -> Mapping[str, ChunkValues]:
    """Each job for all *proxies* in turn. Raises: LoadError unless all gave the same number of chunks."""
    paced, burst, lone = (
        {name: run_job(env, child, job(env.scale, child)) for name, child in proxies.items()}
        for job in (paced_job, burst_job, lone_job)
    )
    for found in (paced, burst, lone):
        check_chunks({name: outcome for name, (outcome, _) in found.items()})
    return {
        name: ChunkValues(
            paced_proxy=paced[name][0].cpu_s / paced[name][0].events,
            paced_workers=paced[name][1] / paced[name][0].events,
            burst_proxy=burst[name][0].cpu_s / burst[name][0].events,
            burst_workers=burst[name][1] / burst[name][0].events,
            time=time_per_chunk(lone[name][0]),
        )
        for name in proxies
    }


def time_per_chunk(outcome: Outcome) -> float:
    """Of the median stream: the whole takes so little time that one interruption would be most of it."""
    return median(outcome.latencies_s) / (outcome.events / outcome.requests)


def run_job(env: Environment, child: Child, job: Job) -> tuple[Outcome, float]:
    """What happened, and the CPU seconds that the proxy's workers spent on it: without calls they spend none."""
    pids = [worker.pid for worker in psutil.Process(child.pid).children()]
    before = sum(map(cpu_seconds, pids))
    outcome = env.generator.run(job)
    return outcome, sum(map(cpu_seconds, pids)) - before


def stream_request(model: str) -> bytes:
    """A request of 20 KB for a stream."""
    return payloads.http_request(payloads.agent_body(model, payloads.PLUGIN_BODY_BYTES, stream=True))


def paced_job(scale: Scale, child: Child) -> Job:
    """Every chunk comes by itself."""
    return Job(
        port=child.port,
        request=stream_request(payloads.PLUGIN_PACED_MODEL),
        connections=scale.paced_streams,
        requests=scale.paced_streams,
        spread_s=PAUSE_S,
        pid=child.pid,
    )


def burst_job(scale: Scale, child: Child) -> Job:
    """Many streams whose chunks come as fast as they are taken."""
    return Job(
        port=child.port,
        request=stream_request(payloads.PLUGIN_BURST_MODEL),
        connections=scale.burst_streams,
        requests=scale.burst_streams,
        pid=child.pid,
    )


def lone_job(scale: Scale, child: Child) -> Job:
    """One stream at a time: nothing overlaps, each chunk waits for its plugins."""
    request = stream_request(payloads.PLUGIN_BURST_MODEL)
    return Job(port=child.port, request=request, connections=1, requests=scale.lone_streams, pid=child.pid)


def check_chunks(outcomes: Mapping[str, Outcome]) -> None:
    """A lost chunk is a bug, not a saving. Raises: LoadError."""
    expected = outcomes["none"].events / outcomes["none"].requests
    for name, outcome in outcomes.items():
        found = outcome.events / outcome.requests
        if abs(found - expected) > expected * EVENT_TOLERANCE:
            raise LoadError(f"{name} gave {found:g} events per answer, a proxy without plugins {expected:g}")


# --- without plugins -------------------------------------------------------------------------------------------------

UNPLUGGED = Layout(
    name="A proxy without plugins",
    systems=("off", "again", "empty"),
    base="off",
    spreads=(("empty", "off"), ("again", "off")),
    absolute=("empty", "off"),
    judged="empty",
    against="off",
    control=("again", "off"),
)
UNPLUGGED_CONCURRENCY = 32
UNPLUGGED_SECTION = Section(
    layout=UNPLUGGED,
    figures=(
        Figure(
            key="plugin.none.request",
            title=f"CPU per small request, c={UNPLUGGED_CONCURRENCY}, plugins on, none there",
            unit="µs",
            limit=UNPLUGGED_LIMIT,
        ),
        Figure(
            key="plugin.none.chunk",
            title=f"CPU per chunk, {scenarios.STREAMS} streams at full speed, plugins on, none there",
            unit="µs",
            limit=UNPLUGGED_LIMIT,
        ),
    ),
)


@contextmanager
def open_unplugged(env: Environment) -> Iterator[Round]:
    """Two equal proxies without a plugin host's work, and one whose plugins folder is empty. Raises: StartError."""
    folder = env.folder / "none"
    folder.mkdir()
    texts = {
        "off": "plugins:\n  enabled: false\n",
        "again": "plugins:\n  enabled: false\n",
        "empty": f"plugins:\n  enabled: true\n  dir: {folder}\n",
    }
    with ExitStack() as stack:
        proxies = {
            name: stack.enter_context(processes.proxy(env.cores, env.provider_port, text, f"cpa {name}"))
            for name, text in texts.items()
        }
        yield lambda number: measure_unplugged(env, proxies, number)


def measure_unplugged(env: Environment, proxies: Mapping[str, Child], number: int) -> None:
    """Small requests and streams, as the forwarding part has them. Raises: LoadError."""
    small = scenarios.small(UNPLUGGED_CONCURRENCY)
    for name in rotated(UNPLUGGED.systems, number):
        child = proxies[name]
        outcome = env.generator.run(small.job(env.scale, child.port, child.pid))
        env.record.keep("plugin.none.request", name, outcome.cpu_s / outcome.requests * 1e6)
    for name in rotated(UNPLUGGED.systems, number):
        child = proxies[name]
        outcome = env.generator.run(scenarios.BURST.job(env.scale, child.port, child.pid))
        env.record.keep("plugin.none.chunk", name, outcome.cpu_s / outcome.events * 1e6)


# --- workers ---------------------------------------------------------------------------------------------------------

WORKERS = Layout(
    name="Workers",
    systems=("above", "worker", "loader"),
    base="loader",
    spreads=(),
    absolute=("above", "worker", "loader"),
    judged="above",
)
KINDS = {"rss": "resident", "pss": "proportional", "uss": "own"}


def memory_figure(language: Language, kind: str) -> Figure:
    """*kind* is an attribute of `machine.Memory`."""
    return Figure(
        key=f"plugin.memory.{language.lower()}.{kind}",
        title=f"{KINDS[kind]} memory of a worker, {language}",
        unit="KB",
        limit=WORKER_LIMIT_KB if kind == "rss" else 0.0,
    )


WORKER_SECTION = Section(
    layout=WORKERS, figures=tuple(memory_figure(language, kind) for language in Language for kind in KINDS)
)

START = Layout(
    name="Start",
    systems=("process",),
    base="process",
    spreads=(),
    absolute=("process",),
    judged="process",
)
START_C = Figure(key="plugin.start.c", title="time until 40 plugins are registered, C", unit="s", limit=START_LIMIT_S)
START_MIXED = Figure(
    key="plugin.start.mixed",
    title="time until 40 plugins are registered, C, Rust and Go in turn",
    unit="s",
    limit=START_LIMIT_S,
)
START_SECTION = Section(layout=START, figures=(START_C, START_MIXED))


def build_languages(env: Environment) -> Mapping[Language, Path]:
    """A plugin in each language that can be compiled here; says which cannot. Raises: StartError."""
    folder = env.folder / "languages"
    folder.mkdir(exist_ok=True)
    built = libraries.compile_empty(folder, env.languages)
    for language in env.languages:
        if language not in built:
            env.record.say(f"no compiler for {language}: left out")
    return built


@contextmanager
def open_memory(env: Environment) -> Iterator[Round]:
    """Libraries, and a program that only loads one. Raises: StartError."""
    built = build_languages(env)
    loader = libraries.compile_loader(env.folder / "loader")

    def measure(number: int) -> None:
        with workers.folder_of(env.folder / "weighed", tuple(built.values()), len(built)) as folder:
            found = workers.worker_memory(folder, tuple(built))
        for language, worker in found.items():
            keep_memory(env.record, language, worker, workers.loader_memory(loader, built[language]))

    yield measure


def keep_memory(record: Record, language: Language, worker: machine.Memory, loader: machine.Memory) -> None:
    """What both have, and the difference; kinds that the kernel does not tell are left out."""
    for kind in KINDS:
        key = memory_figure(language, kind).key
        mine, needed = getattr(worker, kind), getattr(loader, kind)
        if mine is not None and needed is not None:
            record.keep(key, "worker", mine)
            record.keep(key, "loader", needed)
            record.keep(key, "above", mine - needed)


@contextmanager
def open_start(env: Environment) -> Iterator[Round]:
    """Libraries for many workers. Raises: StartError."""
    built = build_languages(env)
    count = env.scale.workers

    def measure(number: int) -> None:
        kinds: dict[Figure, tuple[Path, ...]] = {START_C: (built[Language.C],)}
        if len(built) == len(Language):
            kinds[START_MIXED] = tuple(built.values())
        for figure, sources in kinds.items():
            with workers.folder_of(env.folder / "many", sources, count) as folder:
                env.record.keep(figure.key, "process", workers.start_seconds(folder, count))

    yield measure


# --- all -------------------------------------------------------------------------------------------------------------

PARTS = (
    Part(name="plugins: calls", section=CALL_SECTION, open=open_calls, needs="gcc"),
    Part(name="plugins: stream interceptors", section=CHUNK_SECTION, open=open_chunks, needs="gcc"),
    Part(name="plugins: none", section=UNPLUGGED_SECTION, open=open_unplugged),
    Part(name="plugins: memory of workers", section=WORKER_SECTION, open=open_memory, needs="gcc"),
    Part(name="plugins: start of workers", section=START_SECTION, open=open_start, needs="gcc"),
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


def run_part(env: Environment, part: Part) -> None:
    """All rounds of *part*; it fails alone."""
    if part.needs and not shutil.which(part.needs):
        env.record.say(f"{part.name}: no {part.needs} here, left out")
        return
    env.record.say(f"{part.name}: starting")
    with env.record.surviving(part.name), part.open(env) as measure_round:
        for number in env.record.numbers(part.rounds):
            env.record.say(part.name, number)
            measure_round(number)
