"""Same protocol on both sides: bytes go through as they are, and what breaks is told in the client's own protocol."""

import gzip
import json
import socket
import struct
from typing import Any

import httpx
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpa.formats.names import Format
from cpa.formats.streams import open_reader
from cpa.testing.mock import refusing_port
from tests.e2e.sdk import BROKEN, RECUT, with_fault
from tests.e2e.wire import CHAT, CLAUDE, GEMINI, RESPONSES, WIRES, Wire, sent_by
from tests.proxy import CLIENT_KEY, running_proxy

TIMEOUT_S = 30.0
MEGABYTE = 1 << 20
wires = pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])

ODD = (
    b' {\t"zz unknown" : {"b":1, "a":[123456789012345678901234567890, -0.0, 1.10, 1E+5, 1e-7]},\r\n'
    b'"gr\xc3\xbc\xc3\x9fe":"\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x99\x82 \\u4f60 \\/ \\u0041 /",'
    b'"twice":1,  "twice":2, "lone":"\\ud83d and \\udc00","empty":{ },"none":null ,'
    b'"max_tokens" : 99,"@MEMBER@" :@CONVERSATION@,"model":\n"@MODEL@" ,"last":[ ]}\n'
)


def odd_body(wire: Wire, model: str) -> bytes:
    """Everything that a re-serialised body would lose."""
    conversation = json.dumps(wire.conversation("grüße 👋 \ud800"))
    return (
        ODD.replace(b"@MEMBER@", wire.member.encode())
        .replace(b"@CONVERSATION@", conversation.encode())
        .replace(b"@MODEL@", model.encode())
    )


async def arrived(wire: Wire, body: bytes, *, model: str = "") -> bytes:
    """The body that reaches the provider when a client sends *body*."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await client.post(wire.url(stream=False, model=model), content=body)
            assert answer.status_code == 200, answer.text
            assert answer.content == sent_by(proxy.mock.requests[-1])
            return proxy.mock.requests[-1].body


# --- requests ------------------------------------------------------------------------------------------------------


@wires
async def test_an_odd_body_arrives_byte_for_byte(wire: Wire) -> None:
    """Unknown members, order, blanks, big integers, escapes, lone surrogates and repeated keys are the client's."""
    body = odd_body(wire, f"mock-{wire.name}-unrenamed")
    assert await arrived(wire, body, model=f"mock-{wire.name}-unrenamed") == body


@wires
async def test_a_renamed_body_differs_in_the_model_only(wire: Wire) -> None:
    """An alias is spliced; where the path has the model, the body is left alone whatever it says."""
    expected = odd_body(wire, wire.name if wire.format is Format.GEMINI else f"mock-{wire.name}")
    assert await arrived(wire, odd_body(wire, wire.name)) == expected


@wires
async def test_a_megabyte_of_messages_arrives_byte_for_byte(wire: Wire) -> None:
    """Size changes nothing; agents send such bodies every turn."""
    body = wire.body(text="größer 🙂 " * (MEGABYTE // 12))
    assert len(body) > MEGABYTE
    expected = body.replace(b'"model":"%s"' % wire.name.encode(), b'"model":"mock-%s"' % wire.name.encode())
    assert await arrived(wire, body) == expected


@wires
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_a_chunked_or_compressed_body_arrives_plain(wire: Wire, coding: str) -> None:
    """How a client's HTTP wraps a body is undone, the body itself is not touched."""
    body = odd_body(wire, wire.name)
    sent = gzip.compress(body) if coding == "gzip" else body

    async def pieces() -> Any:
        for start in range(0, len(sent), 100):
            yield sent[start : start + 100]

    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await client.post(wire.url(stream=False), content=pieces(), headers={"content-encoding": coding})
            assert answer.status_code == 200
            expected = odd_body(wire, wire.name if wire.format is Format.GEMINI else f"mock-{wire.name}")
            assert proxy.mock.requests[-1].body == expected
            assert proxy.mock.requests[-1].header(b"content-encoding") is None


TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('\ud800\udfff"\\/\u2028 é🙂'), max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    before=st.dictionaries(TEXTS.map("x".__add__), VALUES, max_size=4),
    after=st.dictionaries(TEXTS.map("y".__add__), VALUES, max_size=4),
    indent=st.sampled_from([None, 0, 3]),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\r\n ")]),
    wire=st.sampled_from([CHAT, RESPONSES, CLAUDE]),
)
async def test_any_body_arrives_with_only_the_model_changed(
    before: dict[str, object], after: dict[str, object], indent: int | None, separators: tuple[str, str], wire: Wire
) -> None:
    """Whatever stands around the model, in whatever writing."""

    def body(model: str) -> bytes:
        members = {**before, "model": model, wire.member: wire.conversation("x"), "max_tokens": 9, **after}
        return json.dumps(members, indent=indent, separators=separators).encode()

    assert await arrived(wire, body(wire.name)) == body(f"mock-{wire.name}")


# --- answers -------------------------------------------------------------------------------------------------------


@wires
@pytest.mark.parametrize("stream", [False, True])
async def test_ten_megabytes_come_back_byte_for_byte(wire: Wire, stream: bool) -> None:
    """Nothing is buffered away, re-serialised or lost, streamed or not."""
    headers = {"X-Mock-Chunks": "2560", "X-Mock-Chunk-Bytes": "4096"}
    with trio.fail_after(120):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=stream, headers=headers)
            expected = sent_by(proxy.mock.requests[-1])
            assert answer.status_code == 200
            assert len(expected) > 10 * MEGABYTE
            # Not `==` in the assertion: a difference of 10 MB would take minutes to show.
            same = answer.content == expected
            assert same


@wires
@pytest.mark.parametrize("think", [False, True])
async def test_a_stream_comes_back_byte_for_byte(wire: Wire, think: bool) -> None:
    """With the headers of an event stream."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=True, headers={"X-Mock-Think": "1"} if think else {})
            assert answer.content == sent_by(proxy.mock.requests[-1])
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["cache-control"] == "no-cache"
            assert wire.terminal in answer.content


@wires
@pytest.mark.parametrize("fault", RECUT)
async def test_a_recut_stream_comes_back_byte_for_byte(wire: Wire, fault: str) -> None:
    """Split characters, split and merged frames and CRLF are nobody's business in passthrough."""
    headers = {"X-Mock-Fault": fault, "X-Mock-Chunks": "6", "X-Mock-Delay": "0"}
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=True, headers=headers)
            assert answer.content == sent_by(proxy.mock.requests[-1])


@wires
async def test_each_piece_is_flushed_when_it_comes(wire: Wire) -> None:
    """A client sees an event while the provider is still waiting before the next."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy:
            request = raw_request(wire, with_fault("stall", 2))
            async with await trio.open_tcp_stream(*proxy.address) as client:
                await client.send_all(request)
                await proxy.mock.wait_requests(1)
                *_, last = sent_by(proxy.mock.requests[-1]).removesuffix(b"\n\n").split(b"\n\n")
                got = b""
                while last not in got:
                    got += await client.receive_some()
                assert proxy.mock.active_responses == 1


# --- failures before the answer ------------------------------------------------------------------------------------


@wires
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_connection_is_a_502(wire: Wire, stream: bool) -> None:
    """In the client's protocol."""
    with trio.fail_after(TIMEOUT_S):
        async with refusing_port() as port, running_proxy(provider_url=f"http://127.0.0.1:{port}") as proxy:
            async with proxy.client() as client:
                answer = await wire.post(client, stream=stream, headers={})
            assert answer.status_code == 502
            assert answer.headers["content-type"] == "application/json"
            wire.error_of(answer.content)


@wires
@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (False, "close-before-headers"),
        (False, "reset-headers"),
        (False, "reset"),
        (False, "cut"),
        (True, "close-before-headers"),
        (True, "reset-headers"),
        (True, "empty"),
    ],
)
async def test_a_provider_that_breaks_off_before_the_answer_is_a_502(wire: Wire, stream: bool, fault: str) -> None:
    """As long as the client has nothing, a failure has a status."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=stream, headers={"X-Mock-Fault": fault})
            assert answer.status_code == 502
            wire.error_of(answer.content)


@pytest.mark.parametrize("wire", [CHAT, CLAUDE, GEMINI], ids=lambda wire: wire.name)
@pytest.mark.parametrize("fault", BROKEN)
async def test_a_stream_that_breaks_in_its_first_event_is_a_502(wire: Wire, fault: str) -> None:
    """Half an event is no answer yet. (Half of the mock's first write of Responses is a whole event.)"""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=True, headers=with_fault(fault, 0))
            assert answer.status_code == 502
            wire.error_of(answer.content)


@wires
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 429, 500, 503, 529])
async def test_a_status_passes_with_its_body_and_retry_after(wire: Wire, stream: bool, status: int) -> None:
    """A provider of the client's own protocol says it best: byte for byte."""
    said = (
        b'{"error" :{"message":"gr\\u00fc\\u00dfe","type":"own_type","code":%d,"status":"OWN"},  "type":"error"}'
        % status
    )
    headers = {"X-Mock-Status": str(status), "X-Mock-Retry-After": "7", "X-Mock-Body": said.decode()}
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=stream, headers=headers)
            assert (answer.status_code, answer.content) == (status, said)
            assert answer.headers["retry-after"] == "7"


@wires
async def test_an_in_band_error_at_the_start_gets_a_real_status(wire: Wire) -> None:
    """Nothing was sent to the client yet, so it need not look for errors in a stream."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=True, headers=with_fault("inband-error", 0))
            assert answer.status_code >= 500
            assert answer.headers["content-type"] == "application/json"
            assert json.loads(answer.content)["error"]["message"] == "mock in-band error"


@wires
@pytest.mark.parametrize("stream", [False, True])
async def test_a_slow_first_byte_is_waited_for(wire: Wire, stream: bool) -> None:
    """The head of a stream goes out with its first event, not before."""
    headers = {"X-Mock-First-Byte": "100"}
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=stream, headers=headers)
            assert answer.status_code == 200
            assert answer.content == sent_by(proxy.mock.requests[-1])


# --- failures inside the answer ------------------------------------------------------------------------------------


def whole_events(data: bytes) -> bytes:
    """*data* up to its last complete event."""
    return data[: data.rfind(b"\n\n") + 2]


@wires
@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("at", [1, 4])
async def test_a_stream_that_breaks_ends_with_an_error(wire: Wire, fault: str, at: int) -> None:
    """Whole events as they came, then one error in the client's protocol, and no sign of success.

    As long as only start events came, nothing was answered yet: the error gets its own status.
    """
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=True, headers=with_fault(fault, at))
            relayed = whole_events(sent_by(proxy.mock.requests[-1]))
            reader = open_reader(wire.format)
            reader.feed(relayed)
            if not reader.substantial:
                assert answer.status_code == 502
                wire.error_of(answer.content)
                return
            assert answer.status_code == 200
            assert answer.content.startswith(relayed)
            wire.in_band_error(answer.content[len(relayed) :])
            assert wire.terminal not in answer.content


@wires
async def test_a_late_in_band_error_is_relayed(wire: Wire) -> None:
    """The provider's own bytes, and nothing after them."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=True, headers=with_fault("inband-error"))
            assert answer.status_code == 200
            assert answer.content == sent_by(proxy.mock.requests[-1])
            assert b"mock in-band error" in answer.content
            assert wire.terminal not in answer.content


async def test_a_chat_stream_without_done_gets_one() -> None:
    """The finish reason was there: the answer is complete, only its formal end is missing."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await CHAT.post(client, stream=True, headers={"X-Mock-Fault": "no-done"})
            assert answer.content == sent_by(proxy.mock.requests[-1]) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("wire", [RESPONSES, CLAUDE, GEMINI], ids=lambda wire: wire.name)
async def test_a_stream_without_its_last_event_ends_with_an_error(wire: Wire) -> None:
    """In these protocols the last event is what says that the answer is complete."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await wire.post(client, stream=True, headers={"X-Mock-Fault": "no-done"})
            sent = sent_by(proxy.mock.requests[-1])
            assert wire.terminal not in sent
            assert answer.content.startswith(sent)
            wire.in_band_error(answer.content[len(sent) :])


# --- clients that leave --------------------------------------------------------------------------------------------


@wires
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_providers_work(wire: Wire, stream: bool) -> None:
    """A stalled provider is hung up on as soon as nobody waits any more."""
    headers = with_fault("stall")
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    await wire.post(client, stream=stream, headers=headers)

                nursery.start_soon(ask)
                await proxy.mock.wait_requests(1)
                nursery.cancel_scope.cancel()
            [request] = proxy.mock.requests
            await request.wait_closed_by_client()
            await proxy.mock.wait_for(lambda mock: mock.active_responses == 0)
            # The proxy itself is as good as before.
            assert (await wire.post(client, stream=stream, headers={})).status_code == 200


def raw_request(wire: Wire, headers: dict[str, str]) -> bytes:
    """A streaming request as bytes, for clients that do not read their answer to its end."""
    body = wire.body(stream=True)
    lines = [
        f"POST {wire.url(stream=True)} HTTP/1.1",
        "host: proxy",
        f"authorization: Bearer {CLIENT_KEY}",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@wires
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_client_that_leaves_midway_ends_the_providers_work(wire: Wire, way: str) -> None:
    """The same after the first events were read, whether the client says goodbye or is just gone."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy:
            client = await trio.open_tcp_stream(*proxy.address)
            await client.send_all(raw_request(wire, with_fault("stall")))
            got = b""
            while b"data: " not in got:
                got += await client.receive_some()
            if way == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            left_at = trio.current_time()
            await client.aclose()
            [request] = proxy.mock.requests
            await request.wait_closed_by_client()
            assert request.closed_at is not None
            # 100 ms are promised; the rest is for a busy machine.
            assert request.closed_at - left_at < 1.0


# --- text completions ----------------------------------------------------------------------------------------------


async def test_a_text_completion_is_a_chat_and_back() -> None:
    """proxy.md 1.8: the prompt becomes a message, the message becomes text."""
    body = {"model": "gpt", "prompt": "hello", "max_tokens": 9, "temperature": 0.5, "suffix": "left out"}
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = (await client.post("/v1/completions", json=body)).json()
            [request] = proxy.mock.requests
            assert request.target == "/v1/chat/completions"
            assert json.loads(request.body) == {
                "model": "mock-gpt",
                "messages": [{"role": "user", "content": "hello"}],
                "max_tokens": 9,
                "temperature": 0.5,
            }
            chat = json.loads(sent_by(request))
            assert answer["object"] == "text_completion"
            assert answer["choices"] == [
                {
                    "index": 0,
                    "text": chat["choices"][0]["message"]["content"],
                    "finish_reason": "stop",
                    "logprobs": None,
                }
            ]
            assert answer["usage"] == chat["usage"]


def events_of(stream: bytes) -> list[bytes]:
    return [event.removeprefix(b"data: ") for event in stream.split(b"\n\n") if event]


async def test_a_streamed_text_completion_is_a_streamed_chat_and_back() -> None:
    """Chunks without text, finish reason or usage go; ``[DONE]`` stays."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = {"model": "gpt", "prompt": "hello", "stream": True}
            answer = await client.post("/v1/completions", json=body)
            whole = (await client.post("/v1/completions", json={"model": "gpt", "prompt": "hello"})).json()
            assert answer.headers["content-type"] == "text/event-stream"
            *chunks, done = events_of(answer.content)
            assert done == b"[DONE]"
            choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
            assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
            assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
            assert all(choice["text"] or choice["finish_reason"] for choice in choices)


@pytest.mark.parametrize("fault", [*BROKEN, "inband-error"])
async def test_a_text_completion_that_breaks_ends_with_an_error(fault: str) -> None:
    """As Chat does: an error, and no ``[DONE]``."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = {"model": "gpt", "prompt": "hello", "stream": True}
            answer = await client.post("/v1/completions", json=body, headers=with_fault(fault))
            assert answer.status_code == 200
            *_, last = events_of(answer.content)
            assert json.loads(last)["error"]["message"]
            assert b"[DONE]" not in answer.content


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"model":"gpt"}', b'{"model":"gpt","prompt":[1,2]}', b"no json"])
async def test_a_wrong_text_completion_is_refused(body: bytes) -> None:
    """Before any provider is asked."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer: httpx.Response = await client.post("/v1/completions", content=body)
            assert answer.status_code == 400
            CHAT.error_of(answer.content)
            assert proxy.mock.total_requests == 0
