"""The worker itself, driven by raw frames: its end, and what it does about a host that breaks the rules."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from cpa.abi import frames
from cpa.abi.frames import Frame, FrameDecoder, Kind
from cpa.abi.process import WORKER
from tests.abi.support import HEADERS, Compiler, feed

BROKEN, LATE = 70, 71
LIMIT = 10_000


@attrs.define(eq=False)
class Bare:
    """A worker process and our end of its socket."""

    process: subprocess.Popen[str]
    sock: socket.socket
    decoder: FrameDecoder
    waiting: list[Frame] = attrs.field(factory=list)

    def frame(self) -> Frame | None:
        """The next frame, or None at the end."""
        while not self.waiting:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:  # it ended with something of ours unread
                return None
            if not data:
                return None
            self.waiting.extend(feed(self.decoder, data))
        return self.waiting.pop(0)

    def send(self, kind: Kind, *, id: int = 0, status: int = 0, method: bytes = b"", body: bytes = b"") -> None:
        """One frame."""
        self.sock.sendall(frames.header(kind, id=id, status=status, method=method, body_len=len(body)) + method + body)

    def hello(self, path: str, *, parent_pid: int = 0, grace_ms: int = 5000) -> None:
        """As the transport sends it."""
        self.sock.sendall(
            frames.hello(
                plugin_id="acme",
                path=path,
                max_body=LIMIT,
                max_calls=4,
                parent_pid=parent_pid or os.getpid(),
                eof_grace_ms=grace_ms,
            )
        )

    def end(self) -> tuple[int, str, str]:
        """Status and output of the exit."""
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err


@contextmanager
def bare() -> Iterator[Bare]:
    """A fresh worker."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with (
        ours,
        subprocess.Popen(
            ["cpa", "-config", "/etc/cpa.yaml"],
            executable=str(WORKER),
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        theirs.close()
        try:
            yield Bare(process, ours, FrameDecoder(max_body=LIMIT))
        finally:
            process.kill()


@contextmanager
def ready(path: str, *, grace_ms: int = 5000) -> Iterator[Bare]:
    """A worker with its plugin loaded."""
    with bare() as worker:
        worker.hello(path, grace_ms=grace_ms)
        frame = worker.frame()
        assert frame is not None
        assert (frame.kind, frame.id, frame.status) == (Kind.READY, worker.process.pid, 1)
        yield worker


def test_the_end_of_the_stream_shuts_the_plugin_down(library: Compiler) -> None:
    """A host that closes without a farewell still means an orderly end."""
    with ready(library("behave")) as worker:
        worker.sock.close()
        assert worker.end() == (0, "shutdown ran, 0 inside\n", "")


def test_the_end_of_the_stream_has_a_deadline(library: Compiler) -> None:
    """Nobody is left who would kill it."""
    with ready(library("behave"), grace_ms=100) as worker:
        worker.send(Kind.CALL, id=1, method=b"hang", body=b"{}")
        worker.sock.close()
        assert worker.end() == (LATE, "", "")


def test_a_shutdown_is_answered_and_refuses_calls(library: Compiler) -> None:
    """Calls that were sent before the host knew get the contract's error."""
    with ready(library("behave")) as worker:
        worker.send(Kind.CALL, id=1, method=b"host", body=b"wait")
        call = worker.frame()
        assert call is not None
        assert (call.kind, call.method) == (Kind.HOST_CALL, b"wait")
        worker.send(Kind.SHUTDOWN, status=5000)
        worker.send(Kind.CALL, id=2, method=b"echo", body=b"{}")
        worker.send(Kind.SHUTDOWN, status=1)
        seen = []
        while (frame := worker.frame()) is not None:
            seen.append((frame.kind, frame.id, frame.status, frame.body))
        assert (Kind.REPLY, 1, 0, b"1 ") in seen
        assert (Kind.BYE, 0, 0, b"") in seen
        assert {frame[2] for frame in seen if frame[1] == 2} <= {frames.Refusal.CLOSED}  # or the exit came first
        assert worker.end()[:2] == (0, "shutdown ran, 0 inside\n")


def test_an_answer_that_nobody_waits_for_is_dropped(library: Compiler) -> None:
    """Its call was failed meanwhile."""
    with ready(library("behave")) as worker:
        worker.send(Kind.HOST_REPLY, id=77, body=b"late")
        worker.send(Kind.CALL, id=1, method=b"echo", body=b"{}")
        reply = worker.frame()
        assert reply is not None
        assert (reply.kind, reply.body) == (Kind.REPLY, b"{}")


def test_an_orphan_does_not_start(library: Compiler) -> None:
    """The host died before the worker could ask to be told of it."""
    with bare() as worker:
        worker.hello(library("behave"), parent_pid=1)
        assert worker.frame() is None
        assert worker.end()[0] == 0


HEADER = frames.HEADER


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER.pack(4, 2, 1, 0, 1, 0), "frame of version 2, expected 1"),
        (HEADER.pack(4, 1, 256, 0, 1, 0), "method name of 256 bytes, at most 255 are allowed"),
        (HEADER.pack(4, 1, 1, 0, 1, LIMIT + 1), "body of 10001 bytes, at most 10000 are allowed"),
        (HEADER.pack(4, 1, 1, 0, 1, 2**63), "body of 9223372036854775808 bytes, at most 10000 are allowed"),
        (HEADER.pack(4, 1, 0, 0, 1, 0), "a call without a method"),
        (HEADER.pack(8, 1, 1, 0, 1, 0), "a host reply with a method"),
        (HEADER.pack(9, 1, 0, -1, 0, 0), "malformed shutdown"),
        (HEADER.pack(9, 1, 0, 0, 0, 1), "malformed shutdown"),
        (HEADER.pack(1, 1, 0, 0, 0, 0), "frame of unexpected kind 1"),
        (HEADER.pack(200, 1, 0, 0, 0, 0), "frame of unexpected kind 200"),
    ],
)
def test_a_broken_rule_ends_the_worker_with_a_message(library: Compiler, data: bytes, message: str) -> None:
    """Nothing is guessed, and nothing is allocated for a length that is not allowed."""
    with ready(library("behave")) as worker:
        worker.sock.sendall(data)
        assert worker.end() == (BROKEN, "", f"cpa-plugin-worker: {message}\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (frames.header(Kind.CALL, method=b"x") + b"x", "expected a hello"),
        (frames.header(Kind.HELLO, body_len=24) + bytes(24), "expected a hello"),
        (frames.header(Kind.HELLO, body_len=25) + bytes(24) + b"/", "hello with impossible limits"),
        (frames.header(Kind.HELLO, body_len=10**6), "body of 1000000 bytes, at most 65536 are allowed"),
    ],
)
def test_a_broken_hello_ends_the_worker_with_a_message(data: bytes, message: str) -> None:
    """So does whoever starts it by hand."""
    with bare() as worker:
        worker.sock.sendall(data)
        assert worker.end() == (BROKEN, "", f"cpa-plugin-worker: {message}\n")


def test_a_call_before_the_plugin_is_ready_is_refused(library: Compiler) -> None:
    """There is no function to call yet."""
    with bare() as worker:
        worker.hello(library("starts", "-DCASE=8"))
        worker.send(Kind.CALL, id=1, method=b"echo")
        assert worker.end() == (BROKEN, "", "cpa-plugin-worker: a call before the plugin is ready\n")


def test_started_without_a_socket_it_says_so() -> None:
    """Somebody typed its name."""
    result = subprocess.run(
        ["cpa"], executable=str(WORKER), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (
        BROKEN,
        "cpa-plugin-worker: cannot read: Socket operation on non-socket\n",
    )


def test_no_descriptor_is_inherited(library: Compiler) -> None:
    """Apart from 0, 1, 2 and the socket, whoever starts it; 0 is empty."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Path("/dev/null").open() as extra:
        process = subprocess.Popen(["cpa"], executable=str(WORKER), stdin=theirs.fileno(), pass_fds=[extra.fileno()])
        worker = Bare(process, ours, FrameDecoder(max_body=LIMIT))  # type: ignore[arg-type]
        worker.hello(library("behave"))
        ours.settimeout(10)
        assert worker.frame() is not None
        folder = Path(f"/proc/{process.pid}/fd")
        assert {int(fd.name) for fd in folder.iterdir()} == {0, 1, 2, 64}
        assert (folder / "0").readlink() == Path("/dev/null")
        process.send_signal(signal.SIGKILL)
        process.wait()


def constants(source: str, prefix: str) -> dict[str, int]:
    """Enumerators of a C source by name, without *prefix*."""
    text = (HEADERS / source).read_text()
    return {name: int(value) for name, value in re.findall(rf"\b{prefix}(\w+) = (\d+)", text)}


def test_both_sides_number_alike() -> None:
    """frames.py and worker.c are written by hand."""
    assert constants("worker.c", "FRAME_") == {kind.name: int(kind) for kind in Kind}
    assert constants("worker.c", "REFUSED_") == {item.name: int(item) for item in frames.Refusal}
    failures = {name: n for name, n in constants("shim.h", "CPA_").items() if name in frames.LoadFailure.__members__}
    assert failures == {item.name: int(item) for item in frames.LoadFailure}
