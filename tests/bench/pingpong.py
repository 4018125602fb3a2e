"""Bare round trips over socket pairs: what a streamed chunk's plugin calls cannot do without.

A process of its own, as the proxy is, with a program in C at the other end of each pair (plugins/pong.c). It sends as
many bytes as the real calls have and awaits as many as they give back, one plugin after the other; nothing is encoded.
Either with Trio's readiness calls, as all must be done that shall not stop other streams, or with blocking sockets.
Jobs come as JSON lines on standard input, outcomes go out as JSON lines.
"""

import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import attrs
import msgspec
import trio

HEAD = struct.Struct("=II")
RECEIVE_BYTES = 256 << 10
MOST_PLUGINS = 4


@attrs.frozen(kw_only=True)
class PingJob:
    """A stream's chunks. *sizes*: bytes of each chunk's call and of its reply. *plugins*: so many calls a chunk."""

    sizes: list[tuple[int, int]]
    plugins: int
    repeats: int
    blocking: bool = False


@attrs.frozen(kw_only=True)
class PingOutcome:
    """*streams_s*: how long all chunks of a stream took, for each of the repetitions."""

    streams_s: list[float]


def frame(request: int, reply: int) -> bytes:
    """A call of that size."""
    return HEAD.pack(request, reply) + b"x" * request


async def exchange(sock: socket.socket, data: bytes, reply: int) -> None:
    """One call, other tasks running meanwhile."""
    sent = 0
    while sent < len(data):
        try:
            sent += sock.send(memoryview(data)[sent:] if sent else data)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
    while reply > 0:
        await trio.lowlevel.wait_readable(sock)
        reply -= len(sock.recv(RECEIVE_BYTES))


async def exchange_blocking(sock: socket.socket, data: bytes, reply: int) -> None:
    """One call, nothing else running."""
    sock.sendall(data)
    while reply > 0:
        reply -= len(sock.recv(RECEIVE_BYTES))


async def perform(job: PingJob, pairs: Sequence[socket.socket]) -> PingOutcome:
    """Do *job*."""
    chosen = pairs[: job.plugins]
    for sock in chosen:
        sock.setblocking(job.blocking)
    call: Callable[[socket.socket, bytes, int], Awaitable[None]] = exchange_blocking if job.blocking else exchange
    frames = [(frame(request, reply), reply) for request, reply in job.sizes]
    times = []
    for _ in range(job.repeats):
        started = perf_counter()
        for data, reply in frames:
            for sock in chosen:
                await call(sock, data, reply)
        times.append(perf_counter() - started)
    return PingOutcome(streams_s=times)


@contextmanager
def pong(program: Path) -> Iterator[socket.socket]:
    """A running *program*; this end of its socket pair."""
    mine, other = socket.socketpair()
    with mine:
        with other:
            process = subprocess.Popen([program], stdin=other.fileno())
        try:
            yield mine
        finally:
            process.kill()
            process.wait()


async def main(program: Path) -> None:
    """Perform jobs until standard input ends."""
    lines, out = sys.stdin.buffer, sys.stdout.buffer
    with pong(program) as one, pong(program) as two, pong(program) as three, pong(program) as four:
        # Reading blocks the loop, on purpose: between two jobs nothing shall happen.
        while line := lines.readline():
            outcome = await perform(msgspec.json.decode(line, type=PingJob), (one, two, three, four))
            out.write(msgspec.json.encode(outcome) + b"\n")
            out.flush()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
