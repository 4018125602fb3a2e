"""The load generator and the provider say what really happened: when, how late, how many."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns, perf_counter

import httpx
import msgspec
import pytest

from tests.bench import payloads, processes, steady_memory
from tests.bench.client import Client
from tests.bench.load import Job, Tally
from tests.bench.machine import Cores
from tests.bench.processes import Child, Generator
from tests.bench.provider import Orders, script_for

UNPINNED = Cores(subject=None, others=None)
SMALL = payloads.http_request(payloads.chat_body(payloads.SMALL_MODEL, stream=False))
STREAM = "mock-chunks-7-chunk-bytes-24-delay-ms-1"


@contextmanager
def pair() -> Iterator[tuple[Child, Generator]]:
    """Provider and generator."""
    with processes.provider(UNPINNED) as provider, processes.generator(UNPINNED) as generator:
        yield provider, generator


def fed(data: bytes, step: int) -> Client:
    """A client that got *data* in pieces."""
    client = Client.__new__(Client)
    client._reset()
    for at in range(0, len(data), step):
        client.feed(data[at : at + step])
    return client


@pytest.mark.parametrize("step", [1, 7, 19, 20, 21, 64, 100_000])
@pytest.mark.parametrize("protocol", ["chat", "claude", "gemini"])
def test_every_stamp_is_read_once_however_the_stream_is_cut(protocol: str, step: int) -> None:
    """A stamp that two reads share would else be missing, or a delay too short."""
    script = script_for(protocol, STREAM, stream=True, usage=True)
    second_ago = monotonic_ns() - 10**9
    data = script.opening + b"".join(script.chunk % second_ago for _ in range(7)) + script.closing

    client = fed(data, step)

    assert len(client.delays_ns) == 7
    assert all(10**9 <= delay < 60 * 10**9 for delay in client.delays_ns)


def test_a_late_request_is_late_although_it_was_sent_late() -> None:
    """Coordinated omission: who measures from the sending forgives the system what it made wait."""
    client = Client.__new__(Client)
    client._reset()
    client.due_at = perf_counter() - 5
    tally = Tally(Job(port=1, request=b"", connections=1))
    tally.start()

    tally.add(client)

    assert 5 <= tally.stop().latencies_s[0] < 65


def test_an_open_loop_sends_when_requests_are_due() -> None:
    """Neither before, nor only when another one was answered."""
    with pair() as (provider, generator):
        outcome = generator.run(Job(port=provider.port, request=SMALL, connections=2, requests=60, rate=300))

    assert outcome.requests == len(outcome.latencies_s) == 60
    assert outcome.seconds >= 59 / 300
    assert all(latency > 0 for latency in outcome.latencies_s)


def test_streams_are_timed_from_the_provider_to_the_client() -> None:
    """Both clocks are one."""
    request = payloads.http_request(payloads.chat_body(STREAM, stream=True))
    with pair() as (provider, generator):
        outcome = generator.run(
            Job(port=provider.port, request=request, connections=3, requests=6, spread_s=0.01, pid=provider.pid)
        )

    assert len(outcome.delays_s) == 6 * 7
    assert len(outcome.first_s) == 6
    assert all(0 < delay < outcome.seconds for delay in (*outcome.delays_s, *outcome.first_s))
    assert outcome.own_cpu_s > 0
    assert outcome.cpu_s > 0


def test_each_tenth_client_leaves_and_the_others_are_answered() -> None:
    """Abandoned streams are part of what memory has to survive."""
    with pair() as (provider, generator):
        outcome = generator.run(steady_memory.job(provider.port, 100))

    assert outcome.requests == 90
    assert outcome.events == 0


@pytest.mark.parametrize(
    ("model", "orders"),
    [
        (payloads.SMALL_MODEL, Orders(chunks=5, chunk_bytes=24, delay_s=0, stall_at=0)),
        (payloads.PACED_MODEL, Orders(chunks=200, chunk_bytes=24, delay_s=0.01, stall_at=0)),
        (payloads.MESSAGES_PACED_MODEL, Orders(chunks=200, chunk_bytes=24, delay_s=0.01, stall_at=0)),
        (payloads.IDLE_MODEL, Orders(chunks=8, chunk_bytes=24, delay_s=0, stall_at=2)),
        (payloads.BIG_MODEL, Orders(chunks=640, chunk_bytes=16 << 10, delay_s=0, stall_at=0)),
    ],
)
def test_a_models_name_says_what_the_provider_does(model: str, orders: Orders) -> None:
    """A name that is not understood would measure something else."""
    assert Orders.of(model) == orders


CHAT, CLAUDE = "/v1/chat/completions", "/v1/messages"
GEMINI = "/v1beta/models/mock-chunks-3"


def test_the_provider_speaks_three_protocols_and_refuses_the_rest() -> None:
    """What clients cannot parse would be measured as an error, or worse, as fast."""
    with processes.provider(UNPINNED) as provider, httpx.Client(trust_env=False, timeout=60) as client:

        def post(path: str, body: bytes) -> httpx.Response:
            return client.post(f"http://127.0.0.1:{provider.port}{path}", content=body)

        chat = post(CHAT, payloads.chat_body("mock-chunks-3", stream=False)).json()
        claude = post(CLAUDE, payloads.claude_body("mock-chunks-3", stream=False)).json()
        gemini = post(f"{GEMINI}:generateContent", b"{}").json()
        streams = [
            post(CHAT, payloads.chat_body("mock-chunks-3", stream=True)).text,
            post(CLAUDE, payloads.claude_body("mock-chunks-3", stream=True)).text,
            post(f"{GEMINI}:streamGenerateContent?alt=sse", b"{}").text,
        ]
        models = client.get(f"http://127.0.0.1:{provider.port}/v1/models").json()
        refused = [post(CHAT, b"{}"), post("/v1/responses", payloads.chat_body("mock-gpt", stream=False))]

    assert models == {"object": "list", "data": []}
    assert chat["choices"][0]["message"]["content"]
    assert claude["content"][0]["text"]
    assert gemini["candidates"][0]["content"]["parts"][0]["text"]
    for stream in streams:
        data = re.findall(r"^data: (.*)$", stream, re.MULTILINE)
        events = [msgspec.json.decode(text.encode()) for text in data if text != "[DONE]"]
        assert len(re.findall(r"@\d{19}", stream)) == 3
        assert len(events) >= 4
    assert [answer.status_code for answer in refused] == [400, 400]
