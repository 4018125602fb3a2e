"""Inline checks, from a process of their own: what crashes there ends a check and not the kit.

The child (`python -m cpa.testing.conformance.child`) makes the checks and tells of them on a pipe, one JSON object per
line. When it dies, the check that it was about is failed, and a new child goes on behind it.

Lines: ``{"began": {check without verdict}}``, ``{"calling": method}``, ``{"ended": {check}}``,
``{"plugin": {summary} or null}`` as the last one.
"""

import json
import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections import deque
from pathlib import Path
from typing import Final

import attrs
import trio

from cpa.config.schema import Isolation
from cpa.testing.conformance.bench import GOOD_REQUEST, KEPT_LINES, Finding, Observer, Planned, Subject
from cpa.testing.conformance.report import Check, PluginSummary, Verdict

MODULE: Final = "cpa.testing.conformance.child"
SILENCE_S: Final = 60.0
"""Beyond two deadlines of a call, how long a child may say nothing: it starts an interpreter, which takes a while."""
READ_BYTES: Final = 64 * 1024
_NOTHING_BEHIND: Final = frozenset({"load", "register", "shutdown"})
"""Checks without which there are no others, and the last one."""


@attrs.define(eq=False, kw_only=True)
class _Child:
    """What is known of a running child. *made*: checks that it told of, the one in which it died included."""

    observer: Observer
    checks: list[Check] = attrs.field(factory=list)
    made: int = 0
    plugin: PluginSummary | None = None
    finished: bool = False
    current: dict[str, str] | None = None
    started: float = 0.0
    method: str = ""

    def hear(self, line: bytes) -> None:
        """Take one line in. Raises: ValueError, KeyError when the child is not ours any more."""
        [(kind, value)] = json.loads(line).items()
        if kind == "began":
            self.current, self.started, self.method = value, trio.current_time(), ""
            self.made += 1
            self.observer.began(_planned(value), Isolation.INLINE)
        elif kind == "calling":
            self.method = str(value)
            self.observer.calling(self.method)
        elif kind == "ended":
            self.take(Check.from_json(value))
        elif kind == "plugin":
            self.plugin = PluginSummary.from_json(value) if value else None
            self.finished = True
        else:
            raise ValueError(f"unknown line {kind!r}")

    def take(self, check: Check) -> None:
        """A check has its verdict."""
        self.current = None
        self.checks.append(check)
        self.observer.ended(check)

    def died(self, how: str, words: str) -> None:
        """The child is gone before its time; how, and what it printed last."""
        current = self.current or {
            "name": "shutdown" if self.method == "shutdown()" else "between checks",
            "capability": "lifecycle",
            "method": "",
            "expected": "the process stays alive",
        }
        self.take(
            Check(
                isolation=Isolation.INLINE,
                name=current["name"],
                capability=current["capability"],
                method=current["method"],
                verdict=Verdict.FAIL,
                expected=current["expected"],
                got=f"{how} in {self.method or current['method'] or current['name']}{words}",
                seconds=trio.current_time() - self.started if self.started else 0.0,
            )
        )


def _planned(members: dict[str, str]) -> Planned:
    async def nowhere(subject: Subject) -> Finding:
        raise AssertionError("this check runs in another process")

    return Planned(
        name=members["name"],
        capability=members["capability"],
        method=members["method"],
        expected=members["expected"],
        run=nowhere,
    )


async def run_separately(
    *, path: Path, plugin_id: str, timeout_s: float, config_yaml: bytes, config_path: Path, observer: Observer
) -> tuple[list[Check], PluginSummary | None]:
    """The inline checks of the library *path* (absolute); see `run.run_here`. Cancellation: kills the child."""
    checks: list[Check] = []
    plugin: PluginSummary | None = None
    while True:
        orders = {
            "path": str(path),
            "plugin_id": plugin_id,
            "timeout_s": timeout_s,
            "config_yaml": b64encode(config_yaml).decode(),
            "config_path": str(config_path),
            "done": [[check.name, check.method] for check in checks],
            "known_to_fail": sorted(
                {check.method for check in checks if check.name == GOOD_REQUEST and check.verdict is Verdict.FAIL}
            ),
        }
        child = await _run_child(orders, observer, SILENCE_S + 2 * timeout_s)
        checks += child.checks
        plugin = child.plugin or plugin
        # A child that brings nothing new would be started for ever.
        if child.finished or not child.made or child.checks[-1].name in _NOTHING_BEHIND:
            return checks, plugin


async def _run_child(orders: dict[str, object], observer: Observer, silence_s: float) -> _Child:
    child = _Child(observer=observer, started=trio.current_time())
    words: deque[str] = deque(maxlen=KEPT_LINES)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    stream = trio.lowlevel.FdStream(reading)
    verdict = ""
    async with stream, trio.open_nursery() as nursery:
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", MODULE, str(writing), json.dumps(orders)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        try:
            assert process.stdout is not None, "it was asked for"
            nursery.start_soon(_keep_words, process.stdout, words)
            verdict = await _listen(stream, child, silence_s)
            if verdict:
                process.kill()
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
        nursery.cancel_scope.deadline = trio.current_time() + 1.0  # a process that the plugin left may hold the pipe
    if not child.finished:
        said = [line for line in words if line.strip()]
        child.died(verdict or _cause(process.returncode), f" ({'; '.join(said)})" if said else "")
    return child


async def _listen(stream: trio.lowlevel.FdStream, child: _Child, silence_s: float) -> str:
    """Hear the child out. Returns: why it has to be killed, or nothing."""
    buffer = b""
    while True:
        with trio.move_on_after(silence_s) as waiting:
            data = await stream.receive_some(READ_BYTES)
        if waiting.cancelled_caught:
            return f"no sign of life for {silence_s:g} s"
        if not data:
            return ""
        *lines, buffer = (buffer + data).split(b"\n")
        try:
            for line in lines:
                child.hear(line)
        except (ValueError, KeyError) as exc:
            return f"wrote into a file that is not its own: {exc}"


async def _keep_words(stream: trio.abc.ReceiveStream, words: deque[str]) -> None:
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        words.extend(line.decode("utf-8", "replace") for line in lines)
        rest = rest[-READ_BYTES:]
    words.extend([rest.decode("utf-8", "replace")] if rest else [])


def _cause(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:  # real-time signals have no names
        return f"killed by signal {-status}"
