"""``workers: N``: several processes behind one port, watched over by one that serves nobody."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import trio

from tests.e2e.test_lifecycle import DONE, Program, program, rest_of, streaming
from tests.server.wire import connect

FAIL_S = 90
"""Three programs start one after the other, which takes its time on a busy machine."""
WORKERS = "workers: 2\nmetrics: {enabled: true}"


@asynccontextmanager
async def group(directory: Path) -> AsyncIterator[Program]:
    """A supervisor with two workers, both of which serve; neither is left at the end."""
    with trio.fail_after(FAIL_S):
        async with program(directory, fail_s=FAIL_S, extra=WORKERS) as running:
            members = workers_of(running)
            try:
                assert len(members) == 2
                yield running
            finally:
                running.process.kill()
                with trio.CancelScope(shield=True):
                    for member in members:
                        await ended(member)


def workers_of(running: Program) -> list[psutil.Process]:
    """Those that are alive."""
    return psutil.Process(running.process.pid).children()


async def metrics(running: Program) -> str:
    """As whichever worker shows them."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{running.url}/metrics", headers={"authorization": "Bearer first"})).text


async def ended(member: psutil.Process) -> None:
    """Wait for its end: without its supervisor it has another parent, of which nothing is known here."""
    try:
        fd = os.pidfd_open(member.pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


async def test_one_port_is_served_by_each(tmp_path: Path) -> None:
    """It is announced once, when all are ready; what one does not take, the other does."""
    async with group(tmp_path) as running:
        assert sum("listening on" in line for line in running.lines) == 1
        assert sum("worker.ready" in line for line in running.lines) == 2
        first, second = workers_of(running)
        for busy in (first, second):
            busy.suspend()
            assert [await running.chat() for _ in range(5)] == [200] * 5
            busy.resume()
        assert 'status="200",stream="false"} 10.0' in await metrics(running)
        async with streaming(running, chunks=100_000, delay_ms=20):
            assert "cpa_open_streams 1.0" in await metrics(running)


async def test_worker_that_dies_is_replaced_and_the_other_serves_on(tmp_path: Path) -> None:
    """Only what ran in it is lost."""
    async with group(tmp_path) as running:
        victim, other = workers_of(running)
        victim.suspend()
        async with streaming(running, chunks=60, delay_ms=20) as wire:
            victim.kill()
            assert [await running.chat() for _ in range(5)] == [200] * 5
            assert str(victim.pid) in await running.line("worker.ready", str(victim.pid))
            await running.line("worker.ended", "code=-9")
            assert (await rest_of(wire)).endswith(DONE)
        await running.lines_with("worker.ready", count=3)
        assert {member.pid for member in workers_of(running)} > {other.pid}
        assert len(workers_of(running)) == 2


async def test_a_signal_drains_all(tmp_path: Path) -> None:
    """As with one process: running streams finish, idle clients are let go, and a reload before that reached all."""
    async with group(tmp_path) as running:
        running.write(key="second", extra=WORKERS)
        running.process.send_signal(signal.SIGHUP)
        await running.lines_with("config.reloaded", count=2)
        for member in workers_of(running):
            member.suspend()
            assert await running.chat(key="second") == 200
            assert await running.chat(key="first") == 401
            member.resume()
        async with streaming(running, chunks=40, delay_ms=20, key="second") as wire, connect(running.url) as idle:
            running.process.send_signal(signal.SIGTERM)
            assert await idle.rest() == b""
            assert (await rest_of(wire)).endswith(DONE)
        assert await running.process.wait() == 0
        assert sum("server.draining" in line for line in running.lines) == 2
        assert not any("Traceback" in line for line in running.lines)


async def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice does not want to wait."""
    async with group(tmp_path) as running:
        async with streaming(running, chunks=100_000, delay_ms=20) as wire:
            running.process.send_signal(signal.SIGINT)
            await running.line("workers.draining")
            running.process.send_signal(signal.SIGINT)
            assert (await rest_of(wire)).endswith(b"<cut>")
        assert await running.process.wait() == 130


async def test_workers_do_not_outlive_their_supervisor(tmp_path: Path) -> None:
    """Nobody would pass on signals any more; what runs may finish. `group` waits for their end."""
    async with group(tmp_path) as running, streaming(running, chunks=20, delay_ms=20) as wire:
        running.process.kill()
        assert (await rest_of(wire)).endswith(DONE)


@pytest.mark.parametrize("sockets", ["1:2", "x", "1:99:98", "-1:2:3"])
async def test_workers_need_a_supervisor(tmp_path: Path, sockets: str) -> None:
    """Whoever starts one by hand is told so, without a traceback."""
    config = tmp_path / "config.yaml"
    config.write_text("port: 0\n")
    with trio.fail_after(FAIL_S):
        done = await trio.run_process(
            [sys.executable, "-m", "cpa", "worker", "--config", str(config), "--place", sockets],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    assert b"place" in done.stderr or b"cannot listen" in done.stderr
