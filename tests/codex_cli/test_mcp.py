"""`cpa mcp-host` by itself: the rules of MCP, of the frames, and of its command line."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from cpa.cli import main
from cpa.mcp.frames import MAX_FRAME_BYTES, Frame, FrameError, FrameReader, encode_frame
from cpa.mcp.server import MAX_CALLS, McpServer

TOOL: dict[str, Any] = {"name": "t", "inputSchema": {"type": "object"}}


def line(**message: object) -> bytes:
    """One of the agent's."""
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


def connected() -> McpServer:
    """A server whose plugin has said what there is."""
    server = McpServer("agent")
    server.receive_frame(Frame(type="welcome", tools=[TOOL]))
    return server


def told(lines: bytes | bytearray) -> list[dict[str, Any]]:
    """What was said to the agent."""
    assert lines.endswith(b"\n") or not lines
    return [json.loads(part) for part in lines.splitlines()]


def test_the_handshake() -> None:
    server = connected()
    [answer] = told(
        server.receive_line(line(id=0, method="initialize", params={"protocolVersion": "2024-11-05"})).lines
    )
    assert answer["result"]["protocolVersion"] == "2024-11-05"
    assert "tools" in answer["result"]["capabilities"]
    [answer] = told(
        server.receive_line(line(id="x", method="initialize", params={"protocolVersion": "2030-01-01"})).lines
    )
    assert (answer["id"], answer["result"]["protocolVersion"]) == ("x", "2025-06-18")
    assert not server.receive_line(line(method="notifications/initialized")).lines
    assert told(server.receive_line(line(id=1, method="ping")).lines) == [{"jsonrpc": "2.0", "id": 1, "result": {}}]
    assert told(server.receive_line(line(id=2, method="tools/list")).lines)[0]["result"] == {"tools": [TOOL]}


@pytest.mark.parametrize(
    ("text", "number", "code"),
    [
        (b"{", None, -32700),
        (b'"\xff"', None, -32700),
        (b"[" * 100_000, None, -32700),
        (b"[]", None, -32600),
        (b"7", None, -32600),
        (b'{"id": 1}', 1, -32600),
        (b'{"id": null, "method": "ping"}', None, -32600),
        (b'{"id": true, "method": "ping"}', None, -32600),
        (b'{"id": 1, "method": "resources/list"}', 1, -32601),
        (b'{"id": 1, "method": "ping", "params": []}', 1, -32602),
        (b'{"id": 1, "method": "tools/call", "params": {}}', 1, -32602),
        (b'{"id": 1, "method": "tools/call", "params": {"name": "t", "arguments": []}}', 1, -32602),
    ],
)
def test_what_is_wrong_is_answered(text: bytes, number: int | None, code: int) -> None:
    said = connected().receive_line(text)
    [answer] = told(said.lines)
    assert (answer["id"], answer["error"]["code"], said.frames) == (number, code, b"")


def test_calls_go_through_and_come_back() -> None:
    """In any order; cancelled ones are forgotten, those of a plugin that is gone fail."""
    server = connected()
    frames = [
        server.receive_line(
            line(id=number, method="tools/call", params={"name": "t", "arguments": {"n": number}})
        ).frames
        for number in (7, 8, 9, 10)
    ]
    sent = [next(iter(FrameReader().feed(frame))) for frame in frames]
    assert [(frame.type, frame.name, json.loads(bytes(frame.arguments))) for frame in sent] == [
        ("call", "t", {"n": number}) for number in (7, 8, 9, 10)
    ]
    content = [{"type": "text", "text": "eight"}]
    [answer] = told(server.receive_frame(Frame(type="result", id=sent[1].id, content=content)).lines)
    assert (answer["id"], answer["result"]) == (8, {"content": content, "isError": False})
    assert not server.receive_frame(Frame(type="result", id=sent[1].id)).lines  # a second time
    assert not server.receive_frame(Frame(type="result", id=99)).lines
    cancelled = server.receive_line(line(method="notifications/cancelled", params={"requestId": 9})).frames
    assert next(iter(FrameReader().feed(cancelled))) == Frame(type="cancel", id=sent[2].id)
    failed = told(server.disconnect("gone").lines)
    assert [(answer["id"], answer["result"]["isError"]) for answer in failed] == [(7, True), (10, True)]
    [after] = told(server.receive_line(line(id=11, method="tools/call", params={"name": "t"})).lines)
    assert after["result"]["isError"] is True


def test_calls_are_bounded() -> None:
    server = connected()
    for number in range(MAX_CALLS):
        assert server.receive_line(line(id=number, method="tools/call", params={"name": "t"})).frames
    [answer] = told(server.receive_line(line(id="more", method="tools/call", params={"name": "t"})).lines)
    assert answer["error"]["code"] == -32000
    [twice] = told(connected().receive_line(line(id=1, method="nothing")).lines)
    assert twice["id"] == 1


def test_frames_in_any_pieces() -> None:
    frames = [Frame(type="welcome", tools=[TOOL]), Frame(type="result", id=3, content=[{"type": "text", "text": "ü"}])]
    whole = b"".join(map(encode_frame, frames))
    reader = FrameReader()
    assert [frame for at in range(len(whole)) for frame in reader.feed(whole[at : at + 1])] == frames
    assert list(FrameReader().feed(whole)) == frames


@pytest.mark.parametrize("data", [(MAX_FRAME_BYTES + 1).to_bytes(4, "big"), b"\0\0\0\1{", b"\0\0\0\2{}", b"\0\0\0\2[]"])
def test_frames_that_are_none(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed(data))


@asynccontextmanager
async def host(socket: Path) -> AsyncIterator[trio.Process]:
    """The program, as an agent starts it."""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-m", "cpa", "mcp-host", "--socket", str(socket), "--agent-id", "agent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        )
        yield process
        assert process.stdin is not None
        await process.stdin.aclose()
        assert await process.wait() == 0


async def test_the_program_between_an_agent_and_a_plugin() -> None:
    """Hello, tools, a call, its result; and an end when the agent closes its side."""
    with TemporaryDirectory(prefix="cpa-mcp-") as folder, trio.fail_after(60):
        socket = Path(folder) / "s"
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(str(socket))
        listener.listen(1)
        with listener:
            async with host(socket) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                await process.stdin.send_all(line(id=1, method="tools/list") + b"\n" + b"x" * 50_000 + b"\n")
                accepted, _ = await listener.accept()
                stream = trio.SocketStream(accepted)
                reader = FrameReader()
                assert list(reader.feed(await stream.receive_some())) == [
                    Frame(type="hello", version=1, agent_id="agent")
                ]
                await stream.send_all(encode_frame(Frame(type="welcome", version=1, tools=[TOOL])))
                output = b""
                while output.count(b"\n") < 2:
                    output += await process.stdout.receive_some()
                tools, garbage = told(output)
                assert tools["result"] == {"tools": [TOOL]}
                assert garbage["error"]["code"] == -32700
                await process.stdin.send_all(line(id=2, method="tools/call", params={"name": "t"}) + b"\n")
                [call] = reader.feed(await stream.receive_some())
                await stream.aclose()  # the plugin is gone
                [failed] = told(await process.stdout.receive_some())
                assert (call.name, failed["id"], failed["result"]["isError"]) == ("t", 2, True)


async def test_an_agent_that_nobody_started_gets_no_tools() -> None:
    with TemporaryDirectory(prefix="cpa-mcp-") as folder, trio.fail_after(60):
        async with host(Path(folder) / "nobody") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send_all(line(id=1, method="tools/list") + b"\n")
            assert told(await process.stdout.receive_some())[0]["result"] == {"tools": []}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sockets", "x"], "unrecognized arguments: --sockets"),
        (["--sock", "x"], "unrecognized arguments: --sock"),
        ([], "expected --socket or CPA_MCP_SOCKET"),
        (["--socket", "x"], "expected --agent-id or CPA_MCP_AGENT_ID"),
    ],
)
def test_its_command_line(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CPA_MCP_SOCKET", raising=False)
    monkeypatch.delenv("CPA_MCP_AGENT_ID", raising=False)
    with pytest.raises(SystemExit) as left:
        main(["mcp-host", *arguments])
    assert left.value.code == 2
    assert said in capfd.readouterr().err
