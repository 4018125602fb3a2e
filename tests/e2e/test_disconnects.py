"""Clients that leave at any point: nothing of them stays behind, and their providers are free at once."""

import gc
import os
import random
from collections import Counter

import pytest
import trio
import trio.testing

from cpa.credentials.model import Credential
from cpa.errors import CpaError
from cpa.pipeline.stage import CompletionCall, Outcome, Registration, StageKind
from cpa.server.call import ModelCall
from cpa.types import PluginId
from tests.server.wire import FAIL_S, Hangup, Serving, connect, head, post, serving

CLIENTS = 500
AT_A_TIME = 50
NOTICED_S = 2.0
"""Between a client's leaving and its provider's knowing it: 0.1 on an idle machine, but test machines are not idle."""
POINTS = ("connecting", "head", "body", "waiting", "streaming", "stalled", "end", "unread")
ROUTES = {
    "gpt": ("/v1/chat/completions", b'{"model":"gpt","stream":true,"messages":[{"role":"user","content":"a"}]}'),
    "responses": ("/v1/responses", b'{"model":"responses","stream":true,"input":"a"}'),
    "claude": (
        "/v1/messages",
        b'{"model":"claude","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"a"}]}',
    ),
    "gemini": ("/v1beta/models/gemini:streamGenerateContent?alt=sse", b'{"contents":[{"parts":[{"text":"a"}]}]}'),
}


def tasks() -> Counter[str]:
    """All tasks of this run by name."""
    names: Counter[str] = Counter()
    root = trio.lowlevel.current_root_task()
    assert root is not None
    left = [root]
    while left:
        task = left.pop()
        names[task.name] += 1
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return names


def open_files() -> int:
    """Of this process, sockets included."""
    return len(os.listdir("/proc/self/fd"))


def alive(kind: type) -> int:
    """Objects of *kind* that something still holds."""
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


async def one_client(proxy: Serving, dice: random.Random) -> str:
    """Connect, get as far as a point chosen at random, leave. Returns: the point."""
    point = dice.choice(POINTS)
    model = dice.choice(list(ROUTES))
    path, body = ROUTES[model]
    orders = {
        "waiting": ["x-mock-first-byte: 600000"],
        "streaming": ["x-mock-chunks: 100000", f"x-mock-delay: {dice.choice((1, 5, 20))}"],
        "stalled": ["x-mock-fault: stall", "x-mock-chunks: 5"],
        "unread": ["x-mock-chunks: 200", "x-mock-chunk-bytes: 20000"],
    }.get(point, [])
    request = post(body, path, headers=orders)
    edge = len(request) - len(body)
    async with connect(proxy.url) as wire:
        if point == "connecting":
            return point
        if point == "head":
            await wire.send(request[: dice.randrange(1, edge)])
            return point
        if point == "body":
            await wire.send(request[: dice.randrange(edge, len(request))])
            return point
        before = proxy.mock.total_requests
        await wire.send(request)
        if point == "waiting":
            await proxy.mock.wait_for(lambda mock: mock.total_requests > before)
        elif point in ("streaming", "stalled"):
            await wire.head()
            for _ in range(dice.randrange(1, 4) if point == "streaming" else 1):
                await wire.chunk()
        elif point == "end":
            await wire.reply()
            if dice.random() < 0.5:
                await wire.send(head()[: dice.randrange(1, 50)])
    return point


async def test_five_hundred_clients_that_leave_anywhere_leave_nothing_behind() -> None:
    """No task, no socket, no exchange and no connection is left, on either side; counted against before."""
    dice = random.Random(20261121)
    # Without the ledger, whose database opens its files when it first has something to write.
    async with serving(extra="usage: {ledger: {enabled: false}}") as proxy:
        with trio.fail_after(120):
            async with connect(proxy.url) as wire:  # whatever is made at first use
                await wire.send(post(ROUTES["gpt"][1]))
                await wire.reply()
            await proxy.quiet()
            before_tasks, before_files = tasks(), open_files()
            idle = proxy.mock.open_connections
            before_calls = alive(ModelCall)
            seen: Counter[str] = Counter()
            turns = trio.CapacityLimiter(AT_A_TIME)

            async def client(seed: int) -> None:
                async with turns:
                    seen[await one_client(proxy, random.Random(seed))] += 1

            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(client, dice.randrange(1 << 30))
            await proxy.quiet()
            await proxy.app._clients.aclose()  # connections that are kept for the next request are no leak
            await proxy.mock.wait_idle()
            await trio.testing.wait_all_tasks_blocked()
            assert sum(seen.values()) == CLIENTS
            assert set(seen) == set(POINTS)
            left = tasks() - before_tasks
            assert not left, left
            assert open_files() <= before_files - 2 * idle
            assert alive(ModelCall) <= before_calls


@pytest.mark.parametrize("model", ROUTES)
@pytest.mark.parametrize("point", ["waiting", "stalled", "streaming"])
async def test_provider_is_free_within_100_ms(model: str, point: str) -> None:
    """It costs money as long as it works; the mock writes down when it lost its client."""
    path, body = ROUTES[model]
    orders = {
        "waiting": ["x-mock-first-byte: 600000"],
        "stalled": ["x-mock-fault: stall", "x-mock-chunks: 5"],
        "streaming": ["x-mock-chunks: 10000", "x-mock-delay: 2"],
    }[point]
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(body, path, headers=orders))
                await proxy.mock.wait_requests(1)
                if point != "waiting":
                    await wire.head()
                    await wire.chunk()
            left_at = trio.current_time()
            request = proxy.mock.requests[0]
            await request.wait_closed_by_client()
            assert request.closed_at is not None
            assert request.closed_at - left_at < NOTICED_S
            await proxy.quiet()


async def test_half_close_counts_as_leaving() -> None:
    """A client that says it will send no more has usually gone; waiting for proof would cost the provider's time."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(ROUTES["gpt"][1], headers=["x-mock-first-byte: 600000"]))
                await proxy.mock.wait_requests(1)
                assert isinstance(wire.stream, trio.SocketStream)
                await wire.stream.send_eof()
                await proxy.mock.requests[0].wait_closed_by_client()
            await proxy.quiet()


async def test_whole_answers_too_are_cancelled() -> None:
    """Not only streams."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                body = ROUTES["gpt"][1].replace(b'"stream":true,', b"")
                await wire.send(post(body, headers=["x-mock-first-byte: 600000"]))
                await proxy.mock.wait_requests(1)
            left_at = trio.current_time()
            await proxy.mock.requests[0].wait_closed_by_client()
            assert trio.current_time() - left_at < NOTICED_S


async def test_leaving_is_no_failure_of_the_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt has no error, the execution ends as cancelled, once, and the next client is served."""
    ended: list[CpaError | None] = []
    completed: list[CompletionCall] = []
    told = trio.Event()
    original = ModelCall.attempt_ended

    def attempt_ended(call: ModelCall, credential: Credential, error: CpaError | None) -> None:
        ended.append(error)
        original(call, credential, error)

    async def complete(call: CompletionCall) -> None:
        completed.append(call)
        told.set()

    monkeypatch.setattr(ModelCall, "attempt_ended", attempt_ended)
    observer = Registration(kind=StageKind.REQUEST_COMPLETE, plugin_id=PluginId("observer"), stage=complete)
    async with serving(registrations=[observer]) as proxy:
        with trio.fail_after(FAIL_S):
            for orders in (["x-mock-first-byte: 600000"], ["x-mock-fault: stall", "x-mock-chunks: 5"]):
                told = trio.Event()
                seen = proxy.mock.total_requests
                async with connect(proxy.url) as wire:
                    await wire.send(post(ROUTES["gpt"][1], headers=orders))
                    await proxy.mock.wait_requests(seen + 1)
                    if "stall" in orders[0]:
                        await wire.head()
                await told.wait()
            assert [call.outcome for call in completed] == [Outcome.CANCELED, Outcome.CANCELED]
            assert all(error is None for error in ended)
            async with connect(proxy.url) as wire:
                await wire.send(post(ROUTES["gpt"][1]))
                assert (await wire.reply()).status == 200


async def test_clients_that_leave_cost_the_others_nothing() -> None:
    """A stream beside a hundred that are broken off arrives whole and unchanged."""
    async with serving() as proxy:
        with trio.fail_after(60):
            orders = ["x-mock-chunks: 100", "x-mock-delay: 5"]
            async with connect(proxy.url) as wire:
                await wire.send(post(ROUTES["gpt"][1], headers=orders[:1]))
                expected = (await wire.reply()).body

            async def rude() -> None:
                async with connect(proxy.url) as wire:
                    await wire.send(post(ROUTES["gpt"][1], headers=orders))
                    await wire.head()

            async with connect(proxy.url) as wire, trio.open_nursery() as nursery:
                await wire.send(post(ROUTES["gpt"][1], headers=orders))
                for _ in range(100):
                    nursery.start_soon(rude)
                try:
                    assert (await wire.reply()).body == expected
                except Hangup:
                    pytest.fail("the stream was cut")
            await proxy.quiet()
