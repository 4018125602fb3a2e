"""The benchmark's processes: each pinned to a core, known by its pid, ended however the harness ends."""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO

import attrs
import msgspec

from tests.bench import payloads
from tests.bench.client import LoadError
from tests.bench.load import Job, Outcome
from tests.bench.machine import Cores

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
END_S = 3.0
"""Time to end on SIGTERM before SIGKILL."""
JOB_S = 240.0
"""The slowest peer takes a minute for its streams on a busy machine; without any progress a job ends much earlier."""
NOTHING: Mapping[str, str] = {}


class StartError(Exception):
    """A process did not come up, or went down."""


@attrs.define(eq=False)
class Child:
    """A running process; made by `running`.

    Attributes:
      port: where it listens; 0 for the load generator.
    """

    name: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    port: int = 0

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def line(self, timeout_s: float) -> bytes:
        """Its next line of output. Raises: StartError."""
        assert self.process.stdout is not None
        stream = self.process.stdout.fileno()
        found = bytearray()
        deadline = monotonic() + timeout_s
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - monotonic()))
            data = os.read(stream, 1 << 20) if ready else b""
            if not data:
                why = "ended" if ready else f"said nothing for {timeout_s:g} s"
                raise StartError(f"{self.name} {why}: {self.complaints()}")
            found += data
        return bytes(found)

    def write(self, data: bytes) -> None:
        """To its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def complaints(self) -> str:
        """The end of what it wrote to standard error."""
        self.errors.seek(0)
        return self.errors.read()[-2000:].decode("utf-8", "replace").strip() or "no message"

    def drain(self, wait_s: float = 0.0) -> None:
        """Drop what it prints, so that it never waits for a reader; what comes within *wait_s* too."""
        assert self.process.stdout is not None
        stream = self.process.stdout.fileno()
        while select.select([stream], [], [], wait_s)[0] and os.read(stream, 1 << 16):
            pass

    def stop(self) -> None:
        """End it, gently first."""
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running(
    name: str, argv: Sequence[str], *, core: int | None, environment: Mapping[str, str] = NOTHING
) -> Iterator[Child]:
    """Run *argv* while the block runs, with *environment* beside the harness's.

    Its own session: a Ctrl-C is the harness's business, which then ends it.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        )
        child = Child(name, process, errors)
        try:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            yield child
        finally:
            child.stop()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


@contextmanager
def server(
    name: str, argv: Sequence[str], *, core: int | None, environment: Mapping[str, str] = NOTHING
) -> Iterator[Child]:
    """Run a server and wait until it says where it listens. Raises: StartError."""
    with running(name, argv, core=core, environment=environment) as child:
        line = child.line(START_S)
        child.port = int(line.strip().rpartition(b":")[2])
        yield child


@contextmanager
def provider(cores: Cores) -> Iterator[Child]:
    """The provider, on the load generator's core."""
    argv = (sys.executable, "-m", "tests.bench.provider")
    with server("provider", argv, core=cores.others) as child:
        yield child


SYSTEMS = ("direct", "floor", "uvicorn", "baseline", "cpa")
FORWARDERS = SYSTEMS[1:]


@contextmanager
def system(name: str, cores: Cores, provider_port: int, environment: Path | None = None) -> Iterator[Child]:
    """One of `FORWARDERS` in front of the provider; *environment* is where the packages of peers are."""
    if name == "cpa":
        with proxy(cores, provider_port) as child:
            yield child
    else:
        module = "uvicorn_forwarder" if name == "uvicorn" else name
        python = str(environment / "bin" / "python") if name == "uvicorn" and environment else sys.executable
        argv = (python, "-m", f"tests.bench.{module}", "--provider-port", str(provider_port))
        with server(name, argv, core=cores.subject) as child:
            yield child


def has_uvicorn(environment: Path | None) -> bool:
    """The forwarder of asyncio's fast parts can run."""
    if environment is None or not (environment / "bin" / "python").exists():
        return False
    packages = ("uvicorn", "uvloop", "httptools", "aiohttp")
    found = {path.name for path in environment.glob("lib/python3*/site-packages/*")}
    return found.issuperset(packages)


@contextmanager
def proxy(
    cores: Cores,
    provider_port: int,
    plugins: str = "",
    name: str = "cpa",
    environment: Mapping[str, str] = NOTHING,
    options: Sequence[str] = (),
) -> Iterator[Child]:
    """CPA in front of the provider; *plugins* is the text of its configuration's section. Workers share its core.

    *options* are those of serve_cpa.py.
    """
    with tempfile.TemporaryDirectory(prefix="cpa-bench-") as directory:
        config = Path(directory) / "config.yaml"
        config.write_text(payloads.config_text(provider_port, directory, plugins))
        argv = (sys.executable, "-m", "tests.bench.serve_cpa", str(config), *options)
        with server(name, argv, core=cores.subject, environment=environment) as child:
            yield child


@attrs.define(eq=False)
class Generator:
    """The load generator's process."""

    child: Child

    def run(self, job: Job) -> Outcome:
        """Perform *job*. Raises: LoadError when a system answered wrongly, StartError."""
        self.child.write(msgspec.json.encode(job) + b"\n")
        outcome = msgspec.json.decode(self.child.line(JOB_S), type=Outcome)
        if outcome.error:
            raise LoadError(outcome.error)
        return outcome

    @contextmanager
    def hold(self, job: Job) -> Iterator[None]:
        """Keep the streams of *job* open while the block runs. Raises: LoadError, StartError."""
        self.run(job)
        try:
            yield
        finally:
            self.child.write(b"\n")


@contextmanager
def generator(cores: Cores) -> Iterator[Generator]:
    """The load generator."""
    with running("load generator", (sys.executable, "-m", "tests.bench.load"), core=cores.others) as child:
        yield Generator(child)
