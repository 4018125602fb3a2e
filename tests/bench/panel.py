"""What an open control panel costs: a reader of the stream of requests, and somebody who asks for the overview.

At 200 requests a second, which is what the issue asks for; and, for comparison, as many as the proxy can serve, where
each of thousands of requests a second is told to the reader three times.
"""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench import payloads, processes, scenarios
from tests.bench.client import LoadError
from tests.bench.figures import Layout, Section
from tests.bench.load import Job
from tests.bench.machine import Cores
from tests.bench.plugins import Environment, Part, Round, rotated, run_part
from tests.bench.processes import Child, Generator
from tests.bench.record import Record
from tests.bench.scenarios import QUICK, Figure, Scale

RATE: Final = 200
SECONDS: Final = 5.0
"""Of one measurement: three overviews fall into it."""
POLL_S: Final = 2.0
LIMIT: Final = 1.05
"""Issue 7: the panel costs at most a twentieth. Two runs of the same program differ by as much."""
CONCURRENCY: Final = 32
KEY: Final = "management-key-of-the-bench"
HEADERS: Final = {"X-Management-Key": KEY}
SYSTEMS: Final = ("shut", "again", "open")
LAYOUT: Final = Layout(
    name="The control panel",
    systems=SYSTEMS,
    base="shut",
    spreads=(("open", "shut"), ("again", "shut")),
    absolute=("open", "shut"),
    judged="open",
    against="shut",
    control=("again", "shut"),
)
CPU: Final = Figure(key="panel.cpu", title=f"CPU per small request, {RATE} a second", unit="µs", limit=LIMIT)
SERVED: Final = Figure(key="panel.rate", title=f"requests served per second, {RATE} asked for", unit="/s", more=True)
FULL_CPU: Final = Figure(key="panel.full.cpu", title=f"CPU per small request, c={CONCURRENCY}", unit="µs")
FULL_RATE: Final = Figure(
    key="panel.full.rate", title=f"requests served per second, c={CONCURRENCY}", unit="/s", more=True
)


class Panel:
    """What a browser with the panel does; on threads of the harness, which has nothing else to do meanwhile.

    Attributes:
      events: read from the stream.
    """

    def __init__(self, port: int) -> None:
        self.events = self.polls = 0
        self._port = port
        self._stop = threading.Event()
        self._stream = HTTPConnection("127.0.0.1", port, timeout=processes.START_S)
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._poll)]

    def __enter__(self) -> "Panel":
        self._stream.request("GET", "/v0/management/requests/stream", headers=HEADERS)
        self._reply = self._stream.getresponse()
        if self._reply.status != 200:
            raise LoadError(f"the stream of requests answered {self._reply.status}")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        if self._stream.sock is not None:
            self._stream.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._stream.close()

    def _read(self) -> None:
        with suppress(IncompleteRead):  # the end that `__exit__` makes
            while data := self._reply.read1(1 << 16):
                self.events += data.count(b"event: request")

    def _poll(self) -> None:
        polls = HTTPConnection("127.0.0.1", self._port, timeout=processes.START_S)
        while not self._stop.is_set():
            polls.request("GET", "/v0/management/overview", headers=HEADERS)
            polls.getresponse().read()
            self.polls += 1
            self._stop.wait(POLL_S)
        polls.close()


@contextmanager
def open_proxies(env: Environment) -> Iterator[Round]:
    """Three equal proxies; one of them will be watched. Raises: StartError."""
    text = f"remote-management: {{secret-key: {KEY}}}\n"
    with ExitStack() as stack:
        proxies = {
            name: stack.enter_context(processes.proxy(env.cores, env.provider_port, text, f"cpa {name}"))
            for name in SYSTEMS
        }
        yield lambda number: measure_proxies(env, proxies, number)


def measure_proxies(env: Environment, proxies: Mapping[str, Child], number: int) -> None:
    """A steady stream of requests, then as many as can be. Raises: LoadError."""
    for name in rotated(SYSTEMS, number):
        with ExitStack() as stack:
            child = proxies[name]
            panel = stack.enter_context(Panel(child.port)) if name == "open" else None
            steady = env.generator.run(steady_job(env.scale, child))
            env.record.keep(CPU.key, name, steady.cpu_s / steady.requests * 1e6)
            env.record.keep(SERVED.key, name, steady.requests / steady.seconds)
            full = env.generator.run(scenarios.small(CONCURRENCY).job(env.scale, child.port, child.pid))
            env.record.keep(FULL_CPU.key, name, full.cpu_s / full.requests * 1e6)
            env.record.keep(FULL_RATE.key, name, full.requests / full.seconds)
            if panel is not None and panel.events < steady.requests:
                raise LoadError(f"the panel was told of {panel.events} events, expected {3 * steady.requests} and more")


def steady_job(scale: Scale, child: Child) -> Job:
    """`RATE` small requests a second."""
    count = int(RATE * (SECONDS if scale is not QUICK else 1.0))
    request = payloads.http_request(payloads.chat_body(payloads.SMALL_MODEL, stream=False))
    return Job(
        port=child.port, request=request, connections=count, requests=count, spread_s=count / RATE, pid=child.pid
    )


PART = Part(
    name="panel",
    section=Section(layout=LAYOUT, figures=(CPU, SERVED, FULL_CPU, FULL_RATE)),
    open=open_proxies,
    rounds=2,
)
SECTION = PART.section


def measure(
    scale: Scale, cores: Cores, generator: Generator, provider_port: int, record: Record, *, only: str = ""
) -> None:
    """All rounds, if the part's name contains *only*. Raises: LoadError, StartError."""
    if only not in PART.name:
        return
    with TemporaryDirectory(prefix="cpa-bench-") as directory:
        run_part(
            Environment(
                scale=scale,
                cores=cores,
                generator=generator,
                provider_port=provider_port,
                record=record,
                folder=Path(directory),
            ),
            PART,
        )
