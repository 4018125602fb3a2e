"""The usage queue over the Redis protocol, on the proxy's port (proxy 7.5), beside HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from cpa.config.load import parse_config
from tests.e2e.test_usage import MANAGED, MANAGEMENT_KEY, managed
from tests.e2e.wire import CHAT
from tests.proxy import RunningProxy, running_proxy
from tests.server.wire import Wire, connect

FAIL_S = 60
COLLECTED = MANAGED + "usage-statistics-enabled: true\n"


def command(*words: str) -> bytes:
    """As clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)


async def reply(wire: Wire) -> Any:
    """The next reply: str for lines, int, bytes or None for strings, list."""
    line = (await wire.until(b"\r\n"))[:-2].decode()
    match line[0]:
        case "+" | "-":
            return line
        case ":":
            return int(line[1:])
        case "$":
            size = int(line[1:])
            return None if size < 0 else (await wire.exactly(size + 2))[:-2]
        case _:
            return [await reply(wire) for _ in range(int(line[1:]))]


async def say(wire: Wire, *words: str) -> Any:
    """A command and its reply."""
    await wire.send(command(*words))
    return await reply(wire)


@asynccontextmanager
async def collector(proxy: RunningProxy) -> AsyncIterator[Wire]:
    """A connection that is let in."""
    async with connect(proxy.url) as wire:
        assert await say(wire, "AUTH", MANAGEMENT_KEY) == "+OK"
        yield wire


async def answered(proxy: RunningProxy, waiting: int) -> None:
    """One request, and its record in the queue."""
    async with proxy.client() as client:
        assert (await CHAT.post(client, headers={})).status_code == 200
    with trio.fail_after(FAIL_S):
        while len(proxy.app.state.usage.queue) < waiting:  # noqa: ASYNC110  # of records no event tells
            await trio.sleep(0.01)


async def test_records_are_popped_by_either_name_and_from_either_end() -> None:
    """Oldest first; each once."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=COLLECTED) as proxy, collector(proxy) as wire:
            assert await say(wire, "LPOP", "usage") is None
            assert await say(wire, "RPOP", "queue", "5") == []
            for number in range(1, 4):
                await answered(proxy, number)
            first = json.loads(await say(wire, "lpop", "queue"))
            rest = [json.loads(item) for item in await say(wire, "RPOP", "usage", "9")]
            assert (first["alias"], first["endpoint"]) == ("gpt", "POST /v1/chat/completions")
            times = [first["timestamp"], *(item["timestamp"] for item in rest)]
            assert times == sorted(times)
            assert len(times) == 3
            assert (await say(wire, "LPOP", "elsewhere")).startswith("-ERR unknown key")
            assert (await say(wire, "LPOP", "usage", "-1")).startswith("-ERR value is out of range")
            assert await say(wire, "PING") == "+PONG"
            assert (await say(wire, "FLUSHALL")).startswith("-ERR unknown command")
            assert await say(wire, "QUIT") == "+OK"
            assert await wire.rest() == b""


async def test_http_pops_the_same_queue() -> None:
    """And wants a count above zero."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=COLLECTED) as proxy:
            for number in range(1, 4):
                await answered(proxy, number)
            for wrong in ("0", "-1", "x", "1.5"):
                refused = await managed(proxy, f"/usage-queue?count={wrong}")
                assert (refused.status_code, refused.json()) == (400, {"error": "count must be a positive integer"})
            assert len((await managed(proxy, "/usage-queue")).json()) == 1
            assert len((await managed(proxy, "/usage-queue?count=10")).json()) == 2
            assert (await managed(proxy, "/usage-queue?count=10")).json() == []


async def test_listeners_hear_of_records_and_failures_while_they_happen() -> None:
    """The queue stays empty meanwhile; pings are answered in between."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=COLLECTED) as proxy, collector(proxy) as wire:
            assert await say(wire, "SUBSCRIBE", "usage") == [b"subscribe", b"usage", 1]
            assert await reply(wire) == [b"message", b"usage", b'{"support_refresh":true}']
            assert await say(wire, "SUBSCRIBE", "errors") == [b"subscribe", b"errors", 2]
            async with proxy.client() as client:
                assert (await CHAT.post(client, headers={})).status_code == 200
                kind, topic, data = await reply(wire)
                assert (kind, topic, json.loads(data)["failed"]) == (b"message", b"usage", False)
                failed = await CHAT.post(client, headers={"x-mock-status": "400"})
                assert failed.status_code == 400
            found = {}
            for _ in range(2):
                _, topic, data = await reply(wire)
                found[topic] = json.loads(data)
            assert found[b"usage"]["fail"]["status_code"] == found[b"errors"]["status_code"] == 400
            assert await say(wire, "PING") == [b"pong", b""]
            assert (await say(wire, "LPOP", "usage")).startswith("-ERR only SUBSCRIBE")
            assert (await say(wire, "SUBSCRIBE", "nothing")).startswith("-ERR unknown channel")
            assert await say(wire, "UNSUBSCRIBE", "errors") == [b"unsubscribe", b"errors", 1]
            assert await say(wire, "UNSUBSCRIBE") == [b"unsubscribe", b"usage", 0]
            assert await say(wire, "LPOP", "usage") is None


async def test_switching_statistics_off_ends_listeners() -> None:
    """By a reload; nobody can listen then."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=COLLECTED) as proxy, collector(proxy) as wire:
            await say(wire, "SUBSCRIBE", "usage")
            await reply(wire)
            await proxy.app.state.usage.configure(parse_config("port: 0", file="c.yaml").config, managed=True)
            assert await wire.rest() == b""
            async with collector(proxy) as again:
                assert (await say(again, "SUBSCRIBE", "usage")).startswith("-ERR usage statistics are disabled")


async def test_nobody_is_served_without_the_key_and_five_failures_ban() -> None:
    """The counters are those of the management API."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=COLLECTED) as proxy:
            async with connect(proxy.url) as wire:
                for words in (("PING",), ("LPOP", "usage"), ("SUBSCRIBE", "usage"), ("HELLO", "3")):
                    assert await say(wire, *words) == "-NOAUTH Authentication required."
                assert (await say(wire, "AUTH")).startswith("-ERR wrong number")
                for _ in range(3):
                    assert await say(wire, "AUTH", "user", "wrong") == "-ERR invalid management key"
            for _ in range(2):
                async with proxy.client(key="wrong") as client:
                    assert (await client.get("/v0/management/usage")).status_code == 401
            async with connect(proxy.url) as wire:
                assert (await say(wire, "AUTH", MANAGEMENT_KEY)).startswith("-ERR IP banned")


@pytest.mark.parametrize("words", [b"*1\r\n$4\r\nPING\r\n", b"$3\r\n", b"+OK\r\n", b"-x\r\n", b":1\r\n"], ids=range(5))
async def test_without_management_the_connection_is_closed(words: bytes) -> None:
    """At once, and without a word."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, connect(proxy.url) as wire:
            await wire.send(words)
            assert await wire.rest() == b""


async def test_nonsense_ends_the_connection_with_an_error() -> None:
    """Others are not concerned."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=COLLECTED) as proxy, collector(proxy) as other:
            async with connect(proxy.url) as wire:
                await wire.send(b"*1\r\n$99999999\r\n")
                assert (await wire.rest()).startswith(b"-ERR Protocol error")
            assert await say(other, "PING") == "+PONG"


async def test_listeners_do_not_keep_the_program_from_ending() -> None:
    """They have nothing to finish."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=COLLECTED) as proxy, collector(proxy) as wire:
            await say(wire, "SUBSCRIBE", "usage")
            proxy.app.drain()
            await proxy.app.server.ended.wait()
            await wire.rest()


async def test_a_listener_that_leaves_is_forgotten() -> None:
    """Records go into the queue again."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=COLLECTED) as proxy:
            async with collector(proxy) as wire:
                await say(wire, "SUBSCRIBE", "usage")
            queue = proxy.app.state.usage.queue
            while queue._subscribers:  # noqa: ASYNC110  # of leaving no event tells
                await trio.sleep(0.01)
            await answered(proxy, 1)
            assert len(queue.pop(9)) == 1
