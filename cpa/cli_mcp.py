"""`cpa mcp-host`: what an agent starts as an MCP server, so that it can call the tools of the client it works for.

Standard input and output are the agent's; the other side is the Unix socket of the plugin that runs the agent
(docs/codex-cli.md). An agent that nobody started through the proxy finds no plugin and gets no tools: that is no error,
because the registration stays in the agent's configuration.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from cpa.errors import StartError
from cpa.mcp.frames import FrameError, FrameReader
from cpa.mcp.server import MAX_LINE_BYTES, McpServer, Said

SOCKET: Final = "CPA_MCP_SOCKET"
AGENT_ID: Final = "CPA_MCP_AGENT_ID"
CONNECT_S: Final = 5.0
"""For a plugin on this machine to say which tools there are; agents wait ten seconds for the whole start."""
READ_BYTES: Final = 64 << 10
GONE: Final = "the proxy has ended this turn"


def run_mcp_host(options: argparse.Namespace) -> int:
    """Run the command. Returns: the exit code. Raises: StartError."""
    socket = options.socket or os.environ.get(SOCKET, "")
    agent_id = options.agent_id or os.environ.get(AGENT_ID, "")
    if not socket or not agent_id:
        missing = f"--socket or {SOCKET}" if not socket else f"--agent-id or {AGENT_ID}"
        options.usage_error(f"expected {missing}: agents are told by the proxy's plugin")
    for descriptor in (0, 1):
        try:
            os.fstat(descriptor)
        except OSError as exc:
            raise StartError(f"mcp-host: descriptor {descriptor} is closed: expected an agent behind it") from exc
    trio.run(serve, Path(socket), agent_id)
    return 0


async def serve(socket: Path, agent_id: str) -> None:
    """Serve the agent on standard input and output until it closes its side."""
    host = _Host(server=McpServer(agent_id), output=trio.lowlevel.FdStream(os.dup(1)))
    async with host.output, trio.lowlevel.FdStream(os.dup(0)) as source, trio.open_nursery() as nursery:
        await nursery.start(host.follow_plugin, socket)
        await host.follow_agent(source)
        nursery.cancel_scope.cancel()


@attrs.define(eq=False, kw_only=True)
class _Host:
    """Moves bytes between both sides and the server, which has all the rules."""

    server: McpServer
    output: trio.lowlevel.FdStream
    plugin: trio.SocketStream | None = attrs.field(default=None, init=False)
    _writing: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _sending: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def follow_agent(self, source: trio.lowlevel.FdStream) -> None:
        """Answer the agent's lines until there are no more."""
        buffer = bytearray()
        skipping = False
        while data := await source.receive_some(READ_BYTES):
            buffer += data
            *lines, rest = buffer.split(b"\n")
            for line in lines:
                await self.say(self.server.too_long() if skipping else self.server.receive_line(bytes(line)))
                skipping = False
            skipping = skipping or len(rest) > MAX_LINE_BYTES
            buffer = bytearray() if skipping else rest

    async def follow_plugin(
        self, socket: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Pass results on. Ready once it is known which tools there are, or that there is no plugin."""
        started = False

        def ready() -> None:
            nonlocal started
            if not started:
                started = True
                task_status.started()

        reason = GONE
        try:
            await self._converse(socket, ready)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, FrameError) as exc:
            reason = f"{GONE}: {exc}" if isinstance(exc, FrameError) else GONE
            complain(f"no tools of a client: {exc or type(exc).__name__}")
        ready()
        self.plugin = None
        await self.say(self.server.disconnect(reason))

    async def _converse(self, socket: Path, ready: Callable[[], None]) -> None:
        reader = FrameReader()
        with trio.fail_after(CONNECT_S) as patience:
            async with await trio.open_unix_socket(socket) as stream:
                await stream.send_all(self.server.hello())
                self.plugin = stream
                while data := await stream.receive_some(READ_BYTES):
                    for frame in reader.feed(data):
                        await self.say(self.server.receive_frame(frame))
                    if self.server.connected:
                        patience.deadline = float("inf")
                        ready()

    async def say(self, said: Said) -> None:
        """Send what the server has to say, whole lines and frames at a time."""
        if said.frames and self.plugin is not None:
            async with self._sending:
                # Whoever reads from it notices its end, and answers what waits.
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.plugin.send_all(said.frames)
        if said.lines:
            async with self._writing:
                # The agent is going; its closed input ends us.
                with suppress(trio.BrokenResourceError):
                    await self.output.send_all(said.lines)


def complain(message: str) -> None:
    """One line on standard error, which agents keep in their logs."""
    sys.stderr.write(f"cpa mcp-host: {message}\n")
    sys.stderr.flush()
