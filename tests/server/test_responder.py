"""The order of one answer's pieces when signs of life come in between; time is the test's own."""

from collections.abc import MutableMapping
from typing import Any

import trio
from trio.testing import MockClock

from cpa.server.responder import Responder

HEAD = (200, ((b"content-type", b"text/event-stream"),))


class SlowClient:
    """Takes each message only after a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.messages: list[MutableMapping[str, Any]] = []

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.messages.append(message)
        await trio.sleep(self.seconds)

    @property
    def told(self) -> list[bytes | int]:
        """Statuses and bodies, in order; ``b""`` is the end."""
        return [message.get("status", message.get("body")) for message in self.messages]


async def test_sign_of_life_waits_for_silence(autojump_clock: MockClock) -> None:
    """Whatever is written counts as one."""
    client = SlowClient(0)
    responder = Responder(send=client.send)
    async with trio.open_nursery() as nursery:

        async def keep_alive() -> None:
            await responder.keep_alive(b"ping", 10, head=HEAD)

        nursery.start_soon(keep_alive)
        await trio.sleep(1)
        await responder.start(*HEAD)
        for _ in range(3):
            await responder.write(b"data")
            await trio.sleep(9)
        await trio.sleep(12)
        await responder.end()
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert client.told == [200, b"data", b"data", b"data", b"ping", b"ping", b""]


async def test_nothing_gets_between_head_and_body_of_a_whole_answer(autojump_clock: MockClock) -> None:
    """Its length is announced: one byte more and the connection is broken."""
    client = SlowClient(7)
    responder = Responder(send=client.send)
    async with trio.open_nursery() as nursery:

        async def keep_alive() -> None:
            await responder.keep_alive(b"\n", 5, head=HEAD)

        nursery.start_soon(keep_alive)
        await trio.sleep(4)
        await responder.whole(200, (), b"{}")
        nursery.cancel_scope.cancel()
    assert client.told == [200, b"{}"]
    assert dict(client.messages[0]["headers"])[b"content-length"] == b"2"


async def test_whole_answer_behind_a_sign_of_life_is_only_its_body(autojump_clock: MockClock) -> None:
    """There is one head, and it has gone."""
    client = SlowClient(1)
    responder = Responder(send=client.send)
    async with trio.open_nursery() as nursery:

        async def keep_alive() -> None:
            await responder.keep_alive(b"\n", 5, head=HEAD)

        nursery.start_soon(keep_alive)
        await trio.sleep(5.5)  # the sign's head is on its way
        await responder.whole(503, (), b"{}")
        nursery.cancel_scope.cancel()
    assert client.told == [200, b"\n", b"{}"]
    assert responder.status == 200


async def test_without_a_head_of_its_own_it_says_nothing_first(autojump_clock: MockClock) -> None:
    """The answer's status is open until the answer says it."""
    client = SlowClient(0)
    responder = Responder(send=client.send)
    async with trio.open_nursery() as nursery:

        async def keep_alive() -> None:
            await responder.keep_alive(b"ping", 10, head=None)

        nursery.start_soon(keep_alive)
        await trio.sleep(35)
        assert client.told == []
        await responder.start(429, ())
        await responder.write(b"no")
        await responder.end()
        nursery.cancel_scope.cancel()
    assert client.told == [429, b"no", b""]
