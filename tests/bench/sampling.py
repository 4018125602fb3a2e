"""Where a process spends its CPU time and its memory, by layer; runs inside the proxy, on the harness's order.

CPU time: the kernel's timer of CPU time (ITIMER_PROF) interrupts, Python's signal handler looks at the stack. Nothing
is traced, so nothing but these few moments is slower; a process that waits is not sampled. Memory: `tracemalloc`,
between two orders, with the stack of each allocation. What is found belongs to the innermost frame that is in a known
layer: the event loop's work for a socket belongs to whoever waits for the socket, and the rest to the loop.

Orders come as lines on standard input, answers go out as JSON lines: ``cpu start``, ``cpu stop``, ``memory start``,
``memory stop``.
"""

import gc
import signal
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import FrameType
from typing import Final, TextIO

import msgspec
import trio

INTERVAL_S: Final = 0.002
FRAMES: Final = 24
"""Of the stack of each allocation."""


class Layer(StrEnum):
    """What a budget is for."""

    SERVER = "server: HTTP in and out"
    ACCESS = "access and limits"
    PIPELINE = "pipeline"
    UPSTREAM = "upstream"
    USAGE = "usage and log"
    LOOP = "event loop and rest"


_PREFIXES: Final[Mapping[str, Layer]] = {
    "/cpa/server/access": Layer.ACCESS,
    "/cpa/server/peers": Layer.ACCESS,
    "/cpa/server/body": Layer.ACCESS,
    "/cpa/usage/limit": Layer.ACCESS,
    "/cpa/server/": Layer.SERVER,
    "/hypercorn/": Layer.SERVER,
    "/quart": Layer.SERVER,
    "/h11/": Layer.SERVER,
    "/cpa/upstream/": Layer.UPSTREAM,
    "/httpx/": Layer.UPSTREAM,
    "/httpcore/": Layer.UPSTREAM,
    "/cpa/usage/": Layer.USAGE,
    "/cpa/observability/": Layer.USAGE,
    "/structlog/": Layer.USAGE,
    "/cpa/pipeline/": Layer.PIPELINE,
    "/cpa/translation/": Layer.PIPELINE,
    "/cpa/formats/": Layer.PIPELINE,
    "/cpa/scheduling/": Layer.PIPELINE,
    "/cpa/credentials/": Layer.PIPELINE,
    "/cpa/models/": Layer.PIPELINE,
    "/cpa/host/": Layer.PIPELINE,
}
"""The first one that a file's path contains; helpers in none of them belong to who calls them."""
_known: dict[str, Layer | None] = {}


def layer_of(file: str) -> Layer | None:
    """The layer of a source file; None for libraries that serve all."""
    if file not in _known:
        _known[file] = next((layer for prefix, layer in _PREFIXES.items() if prefix in file), None)
    return _known[file]


def innermost(files: Iterable[str]) -> Layer:
    """The layer that a stack belongs to, its innermost file first."""
    for file in files:
        layer = layer_of(file)
        if layer is not None:
            return layer
    return Layer.LOOP


class Sampler:
    """Counts samples of CPU time by layer."""

    def __init__(self) -> None:
        self.counts: Counter[Layer] = Counter()

    def start(self) -> None:
        """Begin. The harness's process has no other use for the signal."""
        self.counts.clear()
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)  # the kernel goes on with interrupted calls by itself
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop(self) -> dict[str, float]:
        """End. Returns: each layer's share."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        return shares(self.counts)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        files = []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        self.counts[innermost(files)] += 1


def shares(counts: Mapping[Layer, float]) -> dict[str, float]:
    """Of the whole."""
    whole = sum(counts.values()) or 1
    return {layer.value: counts.get(layer, 0) / whole for layer in Layer}


def memory_by_layer(before: tracemalloc.Snapshot, after: tracemalloc.Snapshot) -> dict[str, float]:
    """Bytes allocated between the two and still held, by layer."""
    found: Counter[Layer] = Counter()
    for difference in after.compare_to(before, "traceback"):
        # A traceback has its innermost frame last.
        found[innermost(frame.filename for frame in reversed(difference.traceback))] += difference.size_diff
    return {layer.value: float(found[layer]) for layer in Layer}


async def answer_harness(answers: TextIO) -> None:
    """Obey orders until standard input ends."""
    sampler = Sampler()
    snapshot: tracemalloc.Snapshot | None = None
    stream = trio.lowlevel.FdStream(sys.stdin.fileno())
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            found: dict[str, float] = {}
            match line.decode():
                case "cpu start":
                    sampler.start()
                case "cpu stop":
                    found = sampler.stop()
                case "memory start":
                    gc.collect()
                    tracemalloc.start(FRAMES)
                    snapshot = tracemalloc.take_snapshot()
                case "memory stop":
                    assert snapshot is not None
                    gc.collect()
                    found = memory_by_layer(snapshot, tracemalloc.take_snapshot())
                    tracemalloc.stop()
            print(msgspec.json.encode(found).decode(), file=answers)
