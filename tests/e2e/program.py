"""The program `cpa` as its users run it: a process of its own, its output, its exit code."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

ROOT = Path(__file__).resolve().parents[2]
CPA = (str(Path(sys.executable).with_name("cpa")),)
MODULE = (sys.executable, "-m", "cpa")
READY = "listening on "
TIMEOUT_S = 60.0
"""Starting an interpreter with all imports takes a second on an idle machine, and test machines are not idle."""

FOREIGN = ("CPA_CONFIG", "MANAGEMENT_PASSWORD", "WRITABLE_PATH", "writable_path")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would change the program's doings, and with *extra*."""
    kept = {
        name: value for name, value in os.environ.items() if name not in FOREIGN and not name.lower().endswith("_proxy")
    }
    return {**kept, **(extra or {})}


@attrs.frozen(kw_only=True)
class Result:
    """A program that has ended."""

    code: int
    out: str
    err: str


async def run(
    *arguments: str, command: Sequence[str] = CPA, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Result:
    """Run a command to its end."""
    with trio.fail_after(TIMEOUT_S):
        done = await trio.run_process(
            [*command, *arguments],
            cwd=cwd,
            env=environment(env),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


@attrs.define(kw_only=True, eq=False)
class Running:
    """A program that serves; made by `serving`.

    Attributes:
      url: from its readiness line.
      output: all it has written to standard output and standard error so far.
    """

    process: trio.Process
    url: str = ""
    output: bytearray = attrs.field(factory=bytearray)
    _grown: trio.Condition = attrs.field(factory=trio.Condition)
    _ended: bool = False

    @property
    def lines(self) -> list[str]:
        """Complete lines of the output."""
        return self.output.decode().split("\n")[:-1]

    async def collect(self) -> None:
        """Take in what the program writes until it closes its end."""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            async with self._grown:
                self.output += data
                self._grown.notify_all()
        async with self._grown:
            self._ended = True
            self._grown.notify_all()

    async def wait_line(self, text: str) -> str:
        """The first line that contains *text*, once it is written."""
        return await self.wait_match(re.escape(text))

    async def wait_match(self, pattern: str) -> str:
        """The first line in which the regular expression *pattern* is found, once it is written."""
        async with self._grown:
            while True:
                for line in self.lines:
                    if re.search(pattern, line):
                        return line
                assert not self._ended, f"ended without a line with {pattern!r}: {self.output.decode()}"
                await self._grown.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end. Returns: the exit code."""
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def serving(
    *arguments: str, command: Sequence[str] = CPA, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """Start a command and wait for its readiness line; whatever is left of it at the end is killed."""
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process,
                [*command, *arguments],
                cwd=cwd,
                env=environment(env),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            process: trio.Process = await nursery.start(start)
            running = Running(process=process)
            nursery.start_soon(running.collect)
            try:
                line = await running.wait_line(READY)
                running.url = line.partition(READY)[2]
                yield running
            finally:
                process.kill()
