"""Pages of docs/ as programs: what a reader would type is what the tests run.

A page is run from top to bottom, in an empty folder, with `cpa` on the PATH and a home of its own. Fenced blocks:

========================================  ==============================================================================
``sh``                                    is run by bash and has to end with 0; variables and the folder stay
``text`` directly below                   lines that the block above has to print, in this order; ``…`` is anything
``yaml`` without a comment                is a configuration without problems and warnings
``<!-- example: WHAT -->`` above          likewise, but it may ask for what has no effect yet
``<!-- file: NAME -->`` above             the block is written to this file
``<!-- terminal: NAME -->`` above         a program that stays; the page goes on once it says that it listens. Another
                                          one in the same terminal comes after the end of the one before
``<!-- log: NAME -->`` above              lines that the program in that terminal prints, sooner or later
``<!-- exit: N -->`` above                the block ends with N
``<!-- not run: REASON -->`` above        the block is not for machines; tests know how many there may be
========================================  ==============================================================================

Below a heading ``### C``, ``### Rust`` or ``### Go`` stands what is for readers who chose this language. The ports 8317
and 8318 stand for free ones.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from cpa.config.load import parse_config
from tests.e2e.program import READY, ROOT, Running, environment

DOCS = ROOT / "docs"
LANGUAGES = {"C": "c", "Rust": "rust", "Go": "go"}
PAGE_S = 400.0
"""For a whole page, compilers included, on a machine that does other things as well."""
BLOCK_S = 200.0
TOLD = 60.0
"""Seconds in which a log line has to come."""

_PARTS = re.compile(
    r"^(?P<level>#{2,3}) (?P<heading>[^\n]+)$"
    r"|^(?:<!-- (?P<key>[a-z ]+): (?P<value>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@attrs.frozen(kw_only=True)
class Block:
    """A fenced block.

    Attributes:
      section: the heading of the second level that it stands below, empty before the first.
      reader: the language that it is for, empty for all.
      key, value: of the comment above it.
      joined: it follows the block before it with nothing in between.
      line: of the page, for messages.
    """

    section: str
    reader: str
    language: str
    text: str
    key: str
    value: str
    joined: bool
    line: int


def parse_blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown *page*, in order."""
    section = reader = ""
    end = 0
    for found in _PARTS.finditer(page):
        if found["heading"] is not None:
            section = found["heading"] if found["level"] == "##" else section
            reader = LANGUAGES.get(found["heading"], "") if found["level"] == "###" else ""
        else:
            yield Block(
                section=section,
                reader=reader,
                language=found["language"],
                text=found["text"],
                key=found["key"] or "",
                value=found["value"] or "",
                joined=end > 0 and not page[end : found.start()].strip(),
                line=page.count("\n", 0, found.start()) + 1,
            )
            end = found.end()


def blocks_of(name: str, *, reader: str = "c", section: str = "") -> list[Block]:
    """What a reader of docs/*name* who chose *reader* goes through, all of it or one *section*."""
    return [
        block
        for block in parse_blocks((DOCS / name).read_text(encoding="utf-8"))
        if block.reader in ("", reader) and section in ("", block.section)
    ]


def pattern_of(line: str) -> str:
    """What finds a *line* of a page: ``…`` is anything within one line."""
    return ".*?".join(re.escape(piece.strip()) for piece in line.split("…"))


def missing_lines(expected: str, output: str) -> list[str]:
    """Lines of *expected* that are not in *output* behind the ones before them."""
    at, missing = 0, []
    for line in filter(None, (line.strip() for line in expected.splitlines())):
        found = re.compile(pattern_of(line)).search(output, at)
        if found is None:
            missing.append(line)
        else:
            at = found.end()
    return missing


@attrs.define(eq=False, kw_only=True)
class Reader:
    """Somebody who follows a page in *folder*.

    Attributes:
      ports: those of the page to those that are used.
      state: the shell's folder and variables between blocks.
      said: what the last ``sh`` block printed.
    """

    name: str
    folder: Path
    nursery: trio.Nursery
    ports: Mapping[str, str]
    variables: dict[str, str]
    said: str = ""
    terminals: dict[str, Running] = attrs.field(factory=dict)

    @property
    def work(self) -> Path:
        """Where the reader's files are."""
        return self.folder / "work"

    async def follow(self, blocks: Iterable[Block]) -> None:
        """Do what *blocks* say. Raises: AssertionError, naming the page's line."""
        for block in blocks:
            where = f"docs/{self.name}:{block.line}"
            text = re.sub("|".join(self.ports), lambda port: self.ports[port[0]], block.text)
            match block.key, block.language:
                case "not run", _:
                    continue
                case "file", _:
                    (self.work / block.value).write_text(text, encoding="utf-8")
                case "terminal", "sh":
                    await self._start(block.value, text, where)
                case "log", _:
                    await self._told(block.value, text, where)
                case "exit" | "", "sh":
                    await self._run(text, int(block.value or 0), where)
                case "", "text" if block.joined:
                    missing = missing_lines(text, self.said)
                    assert not missing, f"{where}: expected {missing}, got\n{self.said}"
                case "example", "yaml":
                    parse_config(text, file=where)
                case "", "yaml":
                    assert not parse_config(text, file=where).warnings
                case "", "" | "text" | "json" | "c" | "rust" | "go" | "python":
                    continue
                case key, language:
                    raise AssertionError(f"{where}: nobody knows what to do with {key!r} {language!r}")

    async def _run(self, script: str, code: int, where: str) -> None:
        saved = self.folder / "variables"
        # The shell's variables and folder outlive it. What it prints on both streams is in the order of a terminal.
        ending = f'__code=$?; trap - EXIT; env -0 > "{saved}"; exit $__code'
        done = await self._process(["bash", "-ec", f"trap '{ending}' EXIT\n{script}"])
        self.said = done.stdout.decode()
        assert done.returncode == code, f"{where}: ended with {done.returncode}\n{script}\n{self.said}"
        kept = (entry.partition("=") for entry in saved.read_text(encoding="utf-8").split("\0") if entry)
        self.variables = {name: value for name, _, value in kept if name not in ("_", "SHLVL")}

    async def _process(self, command: list[str]) -> "subprocess.CompletedProcess[bytes]":
        with trio.fail_after(BLOCK_S):
            return await trio.run_process(
                command,
                cwd=self.variables.get("PWD", self.work),
                env=self.variables,
                stdin=b"",
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )

    async def _start(self, terminal: str, script: str, where: str) -> None:
        if terminal in self.terminals:
            await self.stop(terminal)
        process: trio.Process = await self.nursery.start(
            partial(
                trio.run_process,
                ["bash", "-c", f"exec {script.strip()}"],
                cwd=self.variables.get("PWD", self.work),
                env=self.variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        )
        running = self.terminals[terminal] = Running(process=process)
        self.nursery.start_soon(running.collect, name=f"{where} {terminal}")
        with trio.fail_after(TOLD):
            await running.wait_line(READY)

    async def _told(self, terminal: str, expected: str, where: str) -> None:
        running = self.terminals[terminal]
        for line in filter(None, (line.strip() for line in expected.splitlines())):
            with trio.move_on_after(TOLD) as waiting:
                await running.wait_match(pattern_of(line))
            assert not waiting.cancelled_caught, f"{where}: expected {line!r}, got\n{running.output.decode()}"

    async def stop(self, terminal: str) -> None:
        """What control-C does."""
        with trio.fail_after(TOLD):
            await self.terminals.pop(terminal).stop(signal.SIGINT)


@asynccontextmanager
async def open_reader(name: str, folder: Path, *, ports: Iterable[int], go_cache: str) -> AsyncIterator[Reader]:
    """A reader of docs/*name*; the programs that still run at the end are killed."""
    home = os.environ.get("HOME", "/")
    tools = {
        "CARGO_HOME": os.environ.get("CARGO_HOME", f"{home}/.cargo"),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", f"{home}/.rustup"),
        "GOCACHE": go_cache,
    }
    (folder / "work").mkdir()
    (folder / "home").mkdir()
    variables = {
        **environment(tools),
        "HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CPA_CHECKOUT": str(ROOT),
        "PWD": str(folder / "work"),
    }
    for inherited in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        variables.pop(inherited, None)
    with trio.fail_after(PAGE_S):
        async with trio.open_nursery() as nursery:
            reader = Reader(
                name=name,
                folder=folder,
                nursery=nursery,
                ports=dict(zip(("8317", "8318"), map(str, ports), strict=False)),
                variables=variables,
            )
            try:
                yield reader
            finally:
                for running in reader.terminals.values():
                    running.process.kill()
