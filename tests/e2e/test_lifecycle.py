"""The program as a process: start, signals, reloads, end. Its clients and its provider are in the test."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from cpa.testing.mock import MockProvider, open_mock
from tests.server.wire import CHAT, CHAT_STREAM, Hangup, Wire, connect, head

FAIL_S = 120
"""A start takes a second on a busy machine."""
DONE = b"data: [DONE]\n\n"
CONFIG = """\
host: 127.0.0.1
port: 0
auth-dir: {directory}
proxy-url: direct
api-keys: [{key}]
limits: {{shutdown-grace-seconds: {grace}}}
openai-compatibility:
  - name: mock
    base-url: {provider}/v1
    api-key-entries: [{{api-key: {provider_key}}}]
    headers: {{X-Mock-Chunks: $X-Mock-Chunks, X-Mock-Delay: $X-Mock-Delay, X-Mock-First-Byte: $X-Mock-First-Byte}}
    models: [{{name: mock-gpt, alias: {model}}}]
{extra}
"""


@attrs.define(kw_only=True)
class Program:
    """A running ``cpa serve``.

    Attributes:
      lines: of its output so far.
      config: the file it serves.
    """

    process: trio.Process
    config: Path
    mock: MockProvider
    url: str = ""
    lines: list[str] = attrs.field(factory=list)
    _changes: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def read(self) -> None:
        """Collect its output to the end."""
        rest = b""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [line.decode() for line in lines]
            self._changes.unpark_all()

    async def line(self, *words: str) -> str:
        """The first line with all *words*, once it is there."""
        while True:
            for line in self.lines:
                if all(word in line for word in words):
                    return line
            await self._changes.park()

    async def lines_with(self, word: str, *, count: int) -> None:
        """Wait for so many lines with *word*."""
        while sum(word in line for line in self.lines) < count:
            await self._changes.park()

    def write(self, **changes: object) -> None:
        """Replace the configuration, as editors and `kubectl` do it: by a rename."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(config_text(self.config.parent, self.mock, **changes))
        os.replace(fresh, self.config)

    async def chat(self, *, key: str = "first", model: str = "gpt") -> int:
        """Status of one request."""
        async with connect(self.url) as wire:
            await wire.send(request(CHAT.replace(b'"gpt"', b'"%s"' % model.encode()), key=key))
            return (await wire.reply()).status


def config_text(directory: Path, mock: MockProvider, **changes: object) -> str:
    """`CONFIG` with its defaults and *changes*."""
    fields: dict[str, object] = {"key": "first", "grace": 20, "model": "gpt", "provider_key": "one", "extra": ""}
    return CONFIG.format(directory=directory, provider=mock.url, **(fields | changes))


def request(body: bytes, *, key: str = "first", orders: tuple[str, ...] = ()) -> bytes:
    """A chat request with *key*."""
    return head(headers=[f"authorization: Bearer {key}", *orders], length=len(body), key=False) + body


@asynccontextmanager
async def program(directory: Path, *, fail_s: float = FAIL_S, **changes: object) -> AsyncIterator[Program]:
    """``cpa serve`` with a configuration file, ready, in front of a mock provider; killed at the end."""
    config = directory / "config.yaml"
    async with open_mock() as mock:
        config.write_text(config_text(directory, mock, **changes))
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "cpa", "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        running = Program(process=process, config=config, mock=mock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.read)
            try:
                with trio.fail_after(fail_s):
                    running.url = (await running.line("listening on")).split()[-1]
                    yield running
            except BaseException:
                print(*running.lines, sep="\n")  # pytest shows it with the failure
                raise
            finally:
                if process.returncode is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def streaming(running: Program, *, chunks: int, delay_ms: int, key: str = "first") -> AsyncIterator[Wire]:
    """A stream whose first piece has come."""
    async with connect(running.url) as wire:
        orders = (f"x-mock-chunks: {chunks}", f"x-mock-delay: {delay_ms}")
        await wire.send(request(CHAT_STREAM, key=key, orders=orders))
        assert (await wire.head()).status == 200
        assert await wire.chunk()
        yield wire


async def is_refused(url: str) -> bool:
    """Nobody accepts connections there."""
    try:
        async with connect(url):
            return False
    except OSError:
        return True


async def rest_of(wire: Wire) -> bytes:
    """What is left of a stream, however it ends."""
    pieces = []
    try:
        while piece := await wire.chunk():
            pieces.append(piece)
    except (Hangup, trio.BrokenResourceError):
        pieces.append(b"<cut>")
    return b"".join(pieces)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_running_streams_finish_after_a_signal(tmp_path: Path, number: int) -> None:
    """A deployment must not cut anybody's answer; new clients go to the next instance; idle ones are let go."""
    async with program(tmp_path) as running, connect(running.url) as idle:
        async with streaming(running, chunks=40, delay_ms=20) as wire:
            running.process.send_signal(number)
            await running.line("server.draining")
            assert await idle.rest() == b""
            assert await is_refused(running.url)
            assert (await rest_of(wire)).endswith(DONE)
        assert await running.process.wait() == 0


async def test_past_the_grace_the_stream_is_cut_and_the_end_is_clean(tmp_path: Path) -> None:
    """Nobody may hold the end up for ever; it is no failure either."""
    async with program(tmp_path, grace=0.3) as running:
        async with streaming(running, chunks=100_000, delay_ms=20) as wire:
            running.process.send_signal(signal.SIGTERM)
            rest = await rest_of(wire)
            assert rest.endswith(b"<cut>")
            assert DONE not in rest
        assert await running.process.wait() == 0
        await running.mock.requests[0].wait_closed_by_client()
        assert not any("Traceback" in line for line in running.lines)


async def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice does not want to wait; the exit code says that it was not the graceful way."""
    async with program(tmp_path) as running:
        async with streaming(running, chunks=100_000, delay_ms=20) as wire:
            running.process.send_signal(signal.SIGINT)
            await running.line("server.draining")
            running.process.send_signal(signal.SIGINT)
            assert (await rest_of(wire)).endswith(b"<cut>")
        assert await running.process.wait() == 130
        assert not any("Traceback" in line for line in running.lines)


async def test_signal_without_clients_ends_without_delay(tmp_path: Path) -> None:
    """The grace is for those who run."""
    async with program(tmp_path) as running, connect(running.url) as wire:  # kept alive, idle
        await wire.send(request(CHAT))
        assert (await wire.reply()).status == 200
        told = trio.current_time()
        running.process.send_signal(signal.SIGTERM)
        assert await running.process.wait() == 0
        assert trio.current_time() - told < 5


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_signals_are_understood_from_the_first_moment_on(tmp_path: Path, number: int) -> None:
    """Whoever waits for the announcement may send one at once; an unprepared process would die of it."""
    async with program(tmp_path) as running:
        running.process.send_signal(number)
        if number == signal.SIGHUP:
            assert await running.chat() == 200
            running.process.send_signal(signal.SIGTERM)
        assert await running.process.wait() == 0


def by_signal(running: Program) -> None:
    """Reload as an operator does."""
    running.process.send_signal(signal.SIGHUP)


def by_itself(running: Program) -> None:
    """The file is watched."""


@pytest.mark.parametrize("trigger", [by_signal, by_itself])
async def test_reload_swaps_keys_and_leaves_streams_alone(tmp_path: Path, trigger: Callable[[Program], None]) -> None:
    """The new key works, the old one does not, and what runs goes on, even on a connection that stays."""
    async with program(tmp_path) as running:
        async with streaming(running, chunks=100, delay_ms=20) as wire:
            assert await running.chat(key="second") == 401
            running.write(key="second")
            trigger(running)
            await running.line("config.reloaded")
            assert await running.chat(key="second") == 200
            assert await running.chat(key="first") == 401
            assert (await rest_of(wire)).endswith(DONE)
            await wire.send(request(CHAT, key="second"))
            assert (await wire.reply()).status == 200
            await wire.send(request(CHAT))
            assert (await wire.reply()).status == 401
        assert not any("first" in line or "second" in line for line in running.lines)


async def test_requests_in_flight_keep_the_configuration_they_began_with(tmp_path: Path) -> None:
    """Model, provider and its key: one that waits for its first byte is served though all of these are gone."""
    async with program(tmp_path) as running, connect(running.url) as wire:
        await wire.send(request(CHAT, orders=("x-mock-first-byte: 1500",)))
        await running.mock.wait_requests(1)
        running.write(key="second", model="other", provider_key="two")
        await running.line("config.reloaded")
        assert await running.chat(key="second", model="gpt") == 400
        assert await running.chat(key="second", model="other") == 200
        assert running.mock.requests[-1].header(b"authorization") == b"Bearer two"
        assert (await wire.reply()).status == 200
        assert running.mock.requests[0].header(b"authorization") != b"Bearer two"


@pytest.mark.parametrize("trigger", [by_signal, by_itself])
async def test_broken_file_changes_nothing_and_is_reported(tmp_path: Path, trigger: Callable[[Program], None]) -> None:
    """Each problem with its line; the next good file is taken."""
    async with program(tmp_path) as running:
        running.write(key="second", extra="request-retry: many\ndebug: perhaps")
        trigger(running)
        line = await running.line("config.refused")
        number = len(config_text(tmp_path, running.mock).splitlines())
        assert f"config.yaml:{number}: request-retry: expected" in line
        assert f"config.yaml:{number + 1}: debug: expected" in line
        assert await running.chat(key="first") == 200
        assert await running.chat(key="second") == 401
        running.config.unlink()
        running.process.send_signal(signal.SIGHUP)
        await running.line("config.refused", "No such file")
        assert await running.chat(key="first") == 200
        running.write(key="third")
        trigger(running)
        await running.line("config.reloaded")
        assert await running.chat(key="third") == 200


async def test_settings_that_need_a_restart_are_named(tmp_path: Path) -> None:
    """They are not in force, and an operator who is not told looks for the reason elsewhere."""
    async with program(tmp_path) as running:
        running.write(key="second", extra="commercial-mode: true\nworkers: 2")
        await running.line("config.restart_needed", "commercial-mode")
        await running.line("config.reloaded")
        assert await running.chat(key="second") == 200


async def test_reload_while_draining_harms_nothing(tmp_path: Path) -> None:
    """A signal is a signal, whatever goes on."""
    async with program(tmp_path) as running:
        async with streaming(running, chunks=60, delay_ms=20) as wire:
            running.process.send_signal(signal.SIGTERM)
            await running.line("server.draining")
            running.write(key="second")
            running.process.send_signal(signal.SIGHUP)
            assert (await rest_of(wire)).endswith(DONE)
        assert await running.process.wait() == 0
