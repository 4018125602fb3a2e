"""A real Redis server on a port of its own."""

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

START_S = 60.0


@attrs.define(eq=False)
class RedisServer:
    """A server that can go away and come back, with nothing in it."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(  # noqa: ASYNC220 - it is here to be killed
            [
                *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(self.directory), "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
        )
        with trio.fail_after(START_S):
            while not await self.answers():  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.02)

    async def answers(self) -> bool:
        """It is there."""
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(b"PING\r\n")
                return await stream.receive_some(16) == b"+PONG\r\n"
        except (OSError, trio.BrokenResourceError):
            return False

    def stop(self) -> None:
        """As a machine that loses its power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@asynccontextmanager
async def redis_server(directory: Path) -> AsyncIterator[RedisServer]:
    """A running server. Skips where none is installed; not in continuous integration, which installs it."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed (Debian package redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RedisServer(directory, port)
    try:
        await server.start()
        yield server
    finally:
        server.stop()
