"""The usage queue: what collectors find in it, for how long, and what listeners get instead."""

import json
from typing import Any

import pytest
import trio

from cpa.usage import queue as module
from cpa.usage.identity import client_id
from cpa.usage.queue import MAX_BEHIND, REFRESH, SUPPORT_REFRESH, TooManySubscribers, Topic, UsageQueue
from cpa.usage.record import ClientFacts, Failure, Tokens, UsageRecord
from cpa.usage.wire import queue_record
from tests.usage.support import record

FAIL_S = 30
CLIENT = ClientFacts(
    address="127.0.0.1",
    path="/v1/chat/completions",
    headers=((b"user-agent", b"curl/8"), (b"x-forwarded-for", b"1.2.3.4"), (b"authorization", b"Bearer secret")),
)


class Clock:
    """Seconds of a test."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def on(clock: Clock | None = None, retention_s: float = 60) -> UsageQueue:
    """One that is switched on."""
    made = UsageQueue(clock=clock or Clock())
    made.configure(enabled=True, retention_s=retention_s)
    return made


def ids(found: list[bytes]) -> list[str]:
    """Of the records in *found*."""
    return [json.loads(item)["request_id"] for item in found]


def numbered(number: int, **more: Any) -> UsageRecord:
    """A record that is found again."""
    return record(number, trace_id=f"t{number}", **more)


def test_a_record_has_every_member_of_the_contract_and_no_key() -> None:
    """Proxy 7.3, with the client as label and digest."""
    tokens = Tokens(input_tokens=120, output_tokens=50, reasoning_tokens=30, cache_read_tokens=100, total_tokens=200)
    made = numbered(1, tokens=tokens, client=CLIENT, response_headers=((b"x-request-id", b"r1"),))
    found = json.loads(queue_record(made))
    assert found == {
        "timestamp": "2026-08-22T10:00:00.000Z",
        "latency_ms": 1900,
        "ttft_ms": 400,
        "source": "gemini-apikey[9f86d081]",
        "auth_index": "9f86d081884c7d65",
        "client_ip": "127.0.0.1",
        "x_forwarded_for": "1.2.3.4",
        "user_agent": "curl/8",
        "tokens": {
            "input_tokens": 120,
            "output_tokens": 50,
            "reasoning_tokens": 30,
            "cached_tokens": 100,
            "cache_read_tokens": 100,
            "cache_read_tokens_present": True,
            "cache_creation_tokens": 0,
            "total_tokens": 200,
        },
        "failed": False,
        "generate": True,
        "fail": {"status_code": 0, "body": ""},
        "response_headers": {"X-Request-Id": ["r1"]},
        "accounting_version": 2,
        "token_breakdown": {
            "schema_version": 2,
            "quality": "complete",
            "total_tokens": 200,
            "input": {"total": 120, "uncached": 20, "cache_read": 100, "cache_write": 0},
            "output": {"total": 80, "non_reasoning": 50, "reasoning": 30},
            "unclassified_tokens": 0,
        },
        "provider": "gemini",
        "executor_type": "GeminiExecutor",
        "model": "gemini-2.5-pro",
        "alias": "pro",
        "endpoint": "POST /v1/chat/completions",
        "auth_type": "apikey",
        "api_key": f"clie...ests[{client_id('client-key-of-the-tests').id[:8]}]",
        "request_id": "t1",
        "reasoning_effort": "",
        "service_tier": "auto",
    }


@pytest.mark.parametrize(
    ("fmt", "tokens", "expected"),
    [
        (
            "claude",
            Tokens(input_tokens=5, output_tokens=3, cache_read_tokens=10, cache_creation_tokens=2, total_tokens=20),
            ("complete", 17, 3, 0),
        ),
        ("openai", Tokens(input_tokens=5, output_tokens=3, reasoning_tokens=2, total_tokens=8), ("complete", 5, 3, 0)),
        ("openai", Tokens(input_tokens=5, output_tokens=3, total_tokens=9), ("inconsistent", 5, 3, 0)),
        ("openai", Tokens(total_tokens=9), ("unclassified", 0, 0, 9)),
        ("acme", Tokens(), ("complete", 0, 0, 0)),
    ],
    ids=["claude", "openai", "inconsistent", "unclassified", "nothing"],
)  # fmt: skip
def test_the_breakdown_means_the_same_for_every_provider(
    fmt: str, tokens: Tokens, expected: tuple[str, int, int, int]
) -> None:
    """Cache and reasoning are inside its sums."""
    found = json.loads(queue_record(numbered(1, provider_format=fmt, tokens=tokens)))["token_breakdown"]
    assert (
        found["quality"], found["input"]["total"], found["output"]["total"], found["unclassified_tokens"]
    ) == expected  # fmt: skip


def test_estimates_are_told_apart() -> None:
    """They are in no count of the provider's."""
    made = numbered(1, estimated=Tokens(input_tokens=1, output_tokens=2, total_tokens=3))
    found = json.loads(queue_record(made))
    assert found["estimated_tokens"] == {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    assert found["tokens"]["total_tokens"] == 0


def test_the_oldest_come_first_and_are_gone_then() -> None:
    """Whoever asks for more gets what there is."""
    made = on()
    for number in range(5):
        made.append(numbered(number))
    assert ids(made.pop(1)) == ["t0"]
    assert ids(made.pop(3)) == ["t1", "t2", "t3"]
    assert ids(made.pop(99)) == ["t4"]
    assert made.pop(1) == []


def test_records_expire() -> None:
    """To the second, also while nobody asks."""
    clock = Clock()
    made = on(clock, retention_s=60)
    made.append(numbered(0))
    clock.now += 30
    made.append(numbered(1))
    clock.now += 31
    assert len(made) == 1
    assert ids(made.pop(9)) == ["t1"]
    made.configure(enabled=True, retention_s=10)
    made.append(numbered(2))
    clock.now += 11
    made.append(numbered(3))
    assert ids(made.pop(9)) == ["t3"]


def test_switched_off_it_keeps_nothing() -> None:
    """Neither old records nor new ones."""
    made = on()
    made.append(numbered(0))
    made.configure(enabled=False, retention_s=60)
    made.append(numbered(1))
    made.configure(enabled=True, retention_s=60)
    assert made.pop(9) == []


@pytest.mark.parametrize(("bound", "value"), [("MAX_RECORDS", 3), ("MAX_BYTES", 2500)], ids=["count", "bytes"])
def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    """The oldest make room, and are counted."""
    monkeypatch.setattr(module, bound, value)
    made = on()
    for number in range(10):
        made.append(numbered(number))
    kept = ids(made.pop(99))
    assert 0 < len(kept) <= 3
    assert kept[-1] == "t9"
    assert made.dropped == 10 - len(kept)


async def test_listeners_get_records_instead_of_the_queue() -> None:
    """All of them; those of errors get failures only, and leave the queue alone."""
    made = on()
    failure = Failure(status=429, body="slow")
    with trio.fail_after(FAIL_S):
        with made.subscribe(Topic.ERRORS) as errors:
            made.append(numbered(0))
            made.append(numbered(1, failed=True, failure=failure))
            assert ids(made.pop(9)) == ["t0", "t1"]
            event = json.loads(await errors.receive())
        with made.subscribe(Topic.USAGE) as first, made.subscribe(Topic.USAGE) as second:
            made.append(numbered(2))
            made.refreshed()
            for channel in (first, second):
                assert await channel.receive() == SUPPORT_REFRESH
                assert ids([await channel.receive()]) == ["t2"]
                assert await channel.receive() == REFRESH
            assert made.pop(9) == []
        made.append(numbered(3))
        assert ids(made.pop(9)) == ["t3"]
    assert event == {
        "timestamp": "2026-08-22T10:00:00.000Z",
        "provider": "gemini",
        "model": "gemini-2.5-pro",
        "auth_id": "gemini:apikey:0a1b2c3d4e5f",
        "auth_index": "9f86d081884c7d65",
        "status_code": 429,
        "body": "slow",
        "code": "",
        "retryable": True,
        "auth_status": {"status": "error"},
    }


async def test_a_slow_listener_is_let_go() -> None:
    """It reads what it has, then the end; records go into the queue again."""
    made = on()
    with trio.fail_after(FAIL_S), made.subscribe(Topic.USAGE) as channel:
        for number in range(MAX_BEHIND + 1):
            made.append(numbered(number))
        found = [item async for item in channel]
        assert len(found) == MAX_BEHIND
        assert ids(made.pop(9)) == [f"t{MAX_BEHIND}"]  # the one before it found the listener full


async def test_switching_off_ends_subscriptions() -> None:
    """And there are no new ones."""
    made = on()
    with trio.fail_after(FAIL_S), made.subscribe(Topic.USAGE) as channel:
        made.configure(enabled=False, retention_s=60)
        assert [item async for item in channel] == [SUPPORT_REFRESH]
    with pytest.raises(TooManySubscribers), made.subscribe(Topic.USAGE):
        pytest.fail("it is off")


async def test_listeners_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds messages."""
    monkeypatch.setattr(module, "MAX_SUBSCRIBERS", 1)
    made = on()
    with made.subscribe(Topic.USAGE), pytest.raises(TooManySubscribers), made.subscribe(Topic.ERRORS):
        pytest.fail("too many")
    with made.subscribe(Topic.ERRORS):
        made.append(numbered(1))
