"""Signs of life on idle answers, and failures after the answer has begun: each in the client's own protocol."""

import json
from collections.abc import Iterator

import attrs
import pytest
import trio

from cpa.config.schema import StreamingConfig
from tests.server.wire import FAIL_S, Serving, connect, post, serving

INTERVAL_S = 0.1
STREAMS = {
    "openai": ("/v1/chat/completions", b'{"model":"gpt","stream":true,"messages":[{"role":"user","content":"a"}]}'),
    "completions": ("/v1/completions", b'{"model":"gpt","stream":true,"prompt":"a"}'),
    "responses": ("/v1/responses", b'{"model":"responses","stream":true,"input":"a"}'),
    "claude": (
        "/v1/messages",
        b'{"model":"claude","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"a"}]}',
    ),
    "gemini": ("/v1beta/models/gemini:streamGenerateContent?alt=sse", b'{"contents":[{"parts":[{"text":"a"}]}]}'),
}
FRAMES = {
    "openai": b": keep-alive\n\n",
    "completions": b": keep-alive\n\n",
    "responses": b": keep-alive\n\n",
    "claude": b'event: ping\ndata: {"type":"ping"}\n\n',
    "gemini": b"\n",
}
WHOLE = {
    "openai": (STREAMS["openai"][0], STREAMS["openai"][1].replace(b'"stream":true,', b"")),
    "claude": (STREAMS["claude"][0], STREAMS["claude"][1].replace(b'"stream":true,', b"")),
    "gemini": ("/v1beta/models/gemini:generateContent", STREAMS["gemini"][1]),
}
each_stream = pytest.mark.parametrize("protocol", STREAMS)


def keep_alive(proxy: Serving, *, early: bool = False, nonstream: bool = False) -> None:
    """Signs of life at an interval that the configuration, which counts whole seconds, does not have."""
    state = proxy.app.state
    streaming = StreamingConfig(
        keepalive_seconds=0 if nonstream else INTERVAL_S,  # type: ignore[arg-type]
        keepalive_before_first_chunk=early,
    )
    interval = INTERVAL_S if nonstream else 0
    config = attrs.evolve(state.runtime.config, streaming=streaming, nonstream_keepalive_interval=interval)
    state.runtime = attrs.evolve(state.runtime, config=config)


def events(body: bytes) -> Iterator[tuple[str, bytes]]:
    """(event, data) of each event; comments and blank frames are none."""
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            yield fields.get("event", ""), fields.get("data", "").encode()


@each_stream
async def test_idle_streams_get_signs_of_life_that_mean_nothing(protocol: str) -> None:
    """Between the provider's events, never inside one; Google's SDKs fail on comments, so Gemini gets none."""
    path, body = STREAMS[protocol]
    async with serving() as proxy:
        keep_alive(proxy)
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=["x-mock-chunks: 3", "x-mock-delay: 350"]))
                reply = await wire.head()
                assert reply.headers["content-type"] == "text/event-stream"
                pieces = [piece async for piece in wire.chunks()]
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=["x-mock-chunks: 3"]))
                quiet = (await wire.reply()).body
    signs = [piece for piece in pieces if piece == FRAMES[protocol]]
    assert len(signs) >= 3
    answer = b"".join(piece for piece in pieces if piece != FRAMES[protocol])
    assert len(list(events(answer))) == len(list(events(quiet)))
    if protocol == "gemini":
        assert b":" not in b"".join(line[:5] for line in b"".join(pieces).split(b"\n") if not line.startswith(b"data:"))


@each_stream
async def test_nothing_is_sent_before_the_first_chunk_unless_asked_for(protocol: str) -> None:
    """As long as nothing was sent a failure has its real status."""
    path, body = STREAMS[protocol]
    async with serving() as proxy:
        keep_alive(proxy)
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=["x-mock-first-byte: 350", "x-mock-status: 429"]))
                reply = await wire.reply()
                assert reply.status == 429
                assert "error" in json.loads(reply.body)


@each_stream
async def test_early_signs_of_life_commit_the_answer(protocol: str) -> None:
    """For those who asked for them: slow first tokens do not run into a client's timeout."""
    path, body = STREAMS[protocol]
    async with serving() as proxy:
        keep_alive(proxy, early=True)
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=["x-mock-first-byte: 350"]))
                reply = await wire.head()
                assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
                pieces = [piece async for piece in wire.chunks()]
                assert pieces[0] == pieces[1] == FRAMES[protocol]
                assert len(list(events(b"".join(pieces)))) > 1


@each_stream
async def test_failure_after_an_early_sign_of_life_is_told_in_band(protocol: str) -> None:
    """The status is gone; the error is an event of the protocol and the stream ends."""
    path, body = STREAMS[protocol]
    async with serving() as proxy:
        keep_alive(proxy, early=True)
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=["x-mock-first-byte: 250", "x-mock-status: 429"]))
                reply = await wire.reply()
                assert reply.status == 200
                check_error(protocol, list(events(reply.body))[-1])
                assert b"[DONE]" not in reply.body


@each_stream
@pytest.mark.parametrize("fault", ["reset", "cut", "eof", "inband-error"])
async def test_failure_in_the_middle_is_told_in_band(protocol: str, fault: str) -> None:
    """A stream must never end as if it were complete: agents would act on half a plan."""
    path, body = STREAMS[protocol]
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=[f"x-mock-fault: {fault}", "x-mock-chunks: 5"]))
                reply = await wire.reply()
                assert reply.status == 200
                found = list(events(reply.body))
                assert len(found) > 1
                check_error(protocol, found[-1])
                assert b"[DONE]" not in reply.body
                await wire.send(post(body, path))  # and the connection goes on
                assert (await wire.reply()).status == 200


def check_error(protocol: str, last: tuple[str, bytes]) -> None:
    """*last* is an error event of *protocol*."""
    event, data = last
    found = json.loads(data)
    match protocol:
        case "claude":
            assert event == "error"
            assert found["type"] == "error"
            assert found["error"]["message"]
        case "gemini":
            assert event == ""
            assert isinstance(found["error"]["code"], int)
            assert found["error"]["status"]
        case "responses":
            assert event == found["type"]
            assert event in ("error", "response.failed")
        case _:
            assert event == ""
            assert found["error"]["message"]
            assert found["error"]["type"]


async def test_codex_clients_get_response_failed() -> None:
    """They act on nothing else."""
    path, body = STREAMS["responses"]
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                headers = ["x-mock-fault: reset", "x-mock-chunks: 5", "user-agent: codex_cli_rs/0.169.0"]
                await wire.send(post(body, path, headers=headers))
                event, data = list(events((await wire.reply()).body))[-1]
                assert event == "response.failed"
                assert json.loads(data)["sequence_number"] > 1


@pytest.mark.parametrize("protocol", WHOLE)
async def test_whole_answers_may_be_preceded_by_line_ends(protocol: str) -> None:
    """JSON parsers pass over them; the operator chose that the status is 200 from then on."""
    path, body = WHOLE[protocol]
    async with serving() as proxy:
        keep_alive(proxy, nonstream=True)
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=["x-mock-first-byte: 350"]))
                reply = await wire.reply()
                assert reply.status == 200
                assert reply.headers["content-type"] == "application/json"
                assert reply.body.startswith(b"\n\n")
                assert "error" not in json.loads(reply.body)
                await wire.send(post(body, path, headers=["x-mock-first-byte: 350", "x-mock-status: 503"]))
                reply = await wire.reply()
                assert reply.status == 200
                assert reply.body.startswith(b"\n\n")
                assert "error" in json.loads(reply.body)
                await wire.send(post(body, path))
                reply = await wire.reply()
                assert not reply.body.startswith(b"\n")
                assert reply.headers["content-length"] == str(len(reply.body))


async def test_signs_of_life_end_with_a_client_that_leaves() -> None:
    """They are a task of the exchange, nothing more."""
    path, body = STREAMS["openai"]
    async with serving() as proxy:
        keep_alive(proxy, early=True)
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=["x-mock-first-byte: 600000"]))
                await wire.head()
                assert await wire.chunk() == FRAMES["openai"]
            await proxy.mock.requests[0].wait_closed_by_client()
            await proxy.quiet()
