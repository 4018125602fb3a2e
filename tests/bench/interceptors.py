"""Stream interceptors in processes of their own against the bare round trips that they need.

A lone stream: nothing overlaps, so what plugins add to a chunk is what its calls take, one after the other. How many
bytes each call and each reply has is written down by the plugin, in a stream that is not measured; pingpong.py then
sends as many.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from cpa.abi.frames import HEADER
from cpa.abi.methods import RESPONSE_INTERCEPT_STREAM_CHUNK
from cpa.config.schema import Isolation
from tests.bench import libraries, payloads, processes
from tests.bench.client import LoadError
from tests.bench.figures import Layout, Section
from tests.bench.pingpong import PingJob, PingOutcome
from tests.bench.plugins import (
    Environment,
    Part,
    Round,
    check_chunks,
    expect_plugins,
    lone_job,
    plugins_text,
    rotated,
    time_per_chunk,
)
from tests.bench.processes import START_S, Child
from tests.bench.scenarios import Figure

COUNTS: Final = (1, 4)
SCHEMA: Final = 3
FRAME_BYTES: Final = HEADER.size + len(RESPONSE_INTERCEPT_STREAM_CHUNK.name)
"""What goes around a call's payload; around a reply's a little less."""
SYSTEMS: Final = ("none", "bare", "blocking", "process")
LAYOUT: Final = Layout(
    name="Interceptors against bare round trips",
    systems=SYSTEMS,
    base="none",
    spreads=(("process", "bare"), ("process", "blocking")),
    absolute=("process", "bare", "blocking", "none"),
    judged="process",
)


def figure(count: int) -> Figure:
    """Time that so many plugins add to a chunk."""
    plugins = f"{count} plugin{'s' if count > 1 else ''} in processes"
    return Figure(key=f"interceptors.{count}", title=f"{plugins}: added time per chunk of a lone stream", unit="µs")


@contextmanager
def open_proxies(env: Environment) -> Iterator[Round]:
    """Proxies with no, one and four plugins, and the bare pairs. Raises: StartError, LoadError."""
    folder = env.folder / "interceptors"
    folder.mkdir()
    for number in range(1, max(COUNTS) + 1):
        libraries.compile_echo(folder / f"p{number}.so", schema=SCHEMA, mark=str(number), intercepts=True)
    sizes = record_sizes(env)
    program = libraries.compile_pong(env.folder / "pong")
    with ExitStack() as stack:
        proxies = {0: stack.enter_context(processes.proxy(env.cores, env.provider_port, name="cpa without"))}
        for count in COUNTS:
            text = plugins_text(folder, count, Isolation.PROCESS)
            child = stack.enter_context(processes.proxy(env.cores, env.provider_port, text, f"cpa with {count}"))
            expect_plugins(child, count)
            proxies[count] = child
        argv = (sys.executable, "-m", "tests.bench.pingpong", str(program))
        bare = stack.enter_context(processes.running("ping-pong", argv, core=env.cores.subject))
        yield lambda number: measure(env, proxies, bare, sizes, number)


def record_sizes(env: Environment) -> list[tuple[int, int]]:
    """Bytes of the calls and replies of all chunks of a stream, frames included. Raises: StartError, LoadError."""
    folder = env.folder / "recording"
    folder.mkdir()
    record = env.folder / "sizes"
    libraries.compile_echo(folder / "p1.so", schema=SCHEMA, mark="1", intercepts=True, record=record)
    text = plugins_text(folder, 1, Isolation.PROCESS)
    with processes.proxy(env.cores, env.provider_port, text, "cpa that records") as child:
        expect_plugins(child, 1)
        record.write_bytes(b"")
        env.generator.run(lone_job(env.scale, child))
    found = read_sizes(record, env.scale.lone_streams)
    if len(found) < payloads.PLUGIN_CHUNKS:
        raise LoadError(f"expected at least {payloads.PLUGIN_CHUNKS} calls in a stream, the plugin had {len(found)}")
    return found


def read_sizes(record: Path, streams: int) -> list[tuple[int, int]]:
    """The last stream's lines of *record*: all *streams* have as many."""
    lines = [tuple(map(int, line.split())) for line in record.read_text().splitlines()]
    last = lines[-(len(lines) // streams) :]
    return [(request + FRAME_BYTES, reply + FRAME_BYTES) for request, reply in last]


def measure(
    env: Environment, proxies: Mapping[int, Child], bare: Child, sizes: list[tuple[int, int]], number: int
) -> None:
    """Everything once. Raises: LoadError, StartError."""
    names = [str(count) for count in proxies]
    outcomes = {}
    for name in rotated(names, number):
        child = proxies[int(name)]
        outcomes[name] = env.generator.run(lone_job(env.scale, child))
    check_chunks({"none": outcomes["0"], **outcomes})
    without = time_per_chunk(outcomes["0"])
    per_answer = outcomes["0"].events / outcomes["0"].requests
    for count in COUNTS:
        key = figure(count).key
        env.record.keep(key, "none", without * 1e6)
        env.record.keep(key, "process", (time_per_chunk(outcomes[str(count)]) - without) * 1e6)
        for system, blocking in (("bare", False), ("blocking", True)):
            job = PingJob(sizes=sizes, plugins=count, repeats=env.scale.lone_streams, blocking=blocking)
            bare.write(msgspec.json.encode(job) + b"\n")
            outcome = msgspec.json.decode(bare.line(START_S), type=PingOutcome)
            env.record.keep(key, system, median(outcome.streams_s) / per_answer * 1e6)


PART: Final = Part(
    name="interceptors against bare round trips",
    section=Section(layout=LAYOUT, figures=tuple(map(figure, COUNTS))),
    open=open_proxies,
    needs="gcc",
)
