"""How long a proxy takes from being started to its first answer, beside the import of the libraries it stands on."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter
from typing import Final

from tests.bench import machine, payloads, processes
from tests.bench.client import LoadError
from tests.bench.figures import Layout, Section
from tests.bench.machine import Cores
from tests.bench.plugins import Environment, Part, Round, rotated
from tests.bench.processes import ROOT, START_S, Child
from tests.bench.scenarios import Figure

BYTECODE: Final = {"PYTHONDONTWRITEBYTECODE": ""}
"""Empty is off: compiling the sources at each start is nobody's start."""
LIBRARIES: Final = "import trio, quart_trio, hypercorn, httpx"
SYSTEMS: Final = ("imports", "floor", "cpa")
LAYOUT: Final = Layout(
    name="Start-up",
    systems=SYSTEMS,
    base="imports",
    spreads=(("cpa", "imports"), ("floor", "imports")),
    absolute=("cpa", "imports", "floor"),
    judged="cpa",
)
TIME: Final = Figure(key="startup.time", title="time from the start to the first answer", unit="ms")
CPU: Final = Figure(key="startup.cpu", title="CPU time from the start to the first answer", unit="ms")
MEMORY: Final = Figure(key="memory.start", title="memory after the first answer", unit="MB")
KIB_PER_MB: Final = 1e6 / 1024
"""The kernel counts in kibibytes."""


@contextmanager
def open_start(env: Environment) -> Iterator[Round]:
    """A configuration; starts that are not measured write the bytecode first, as an installation does."""
    with tempfile.TemporaryDirectory(prefix="cpa-bench-") as directory:
        config = Path(directory) / "config.yaml"
        config.write_text(payloads.config_text(env.provider_port, directory))
        commands = {
            "imports": (sys.executable, "-c", LIBRARIES),
            "floor": (sys.executable, "-m", "tests.bench.floor", "--provider-port", str(env.provider_port)),
            "cpa": (sys.executable, "-m", "cpa", "serve", "--config", str(config)),
        }
        for name in SYSTEMS:
            start(name, commands[name], env.cores)

        def measure(number: int) -> None:
            for name in rotated(SYSTEMS, number):
                for key, value in start(name, commands[name], env.cores).items():
                    env.record.keep(key, name, value)

        yield measure


def start(name: str, command: Sequence[str], cores: Cores) -> Mapping[str, float]:
    """Start once. Returns: values by the figures' keys. Raises: LoadError, StartError."""
    if name == "imports":
        return run_imports(command, cores)
    started = perf_counter()
    with processes.server(name, command, core=cores.subject, environment=BYTECODE) as child:
        ask(child)
        seconds = perf_counter() - started
        cpu_s = machine.cpu_seconds(child.pid)
        found = {TIME.key: seconds * 1e3, CPU.key: cpu_s * 1e3, MEMORY.key: machine.memory_kb(child.pid) / KIB_PER_MB}
    return found


def run_imports(command: Sequence[str], cores: Cores) -> Mapping[str, float]:
    """A fresh interpreter that imports the libraries and ends."""
    started = perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **BYTECODE}) as process:
        if cores.subject is not None:
            os.sched_setaffinity(process.pid, {cores.subject})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LoadError(f"{LIBRARIES!r} ended with {process.returncode}")
    return {TIME.key: seconds * 1e3, CPU.key: (usage.ru_utime + usage.ru_stime) * 1e3}


def ask(child: Child) -> None:
    """One small request. Raises: LoadError unless the answer is 200."""
    connection = HTTPConnection("127.0.0.1", child.port, timeout=START_S)
    try:
        head = {"authorization": f"Bearer {payloads.CLIENT_KEY}", "content-type": "application/json"}
        body = payloads.chat_body(payloads.SMALL_MODEL, stream=False)
        connection.request("POST", payloads.PATH, body=body, headers=head)
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise LoadError(f"{child.name}: the first answer was {answer.status}")


PART: Final = Part(
    name="start-up", section=Section(layout=LAYOUT, figures=(TIME, CPU, MEMORY)), open=open_start, rounds=5
)
