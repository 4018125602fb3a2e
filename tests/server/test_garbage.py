"""Requests leave nothing for the garbage collector: their bodies go with the answer, not thousands of requests on."""

import gc
from collections import Counter

import pytest
import trio
import trio.testing

from tests.server.wire import CHAT, CHAT_STREAM, FAIL_S, connect, post, serving

REQUESTS = 20


@pytest.mark.parametrize("body", [CHAT, CHAT_STREAM], ids=["whole", "stream"])
async def test_what_served_a_request_is_in_no_cycle(body: bytes) -> None:
    """Of our own objects: those of libraries, of the provider and of the test are counted by nobody."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                for _ in range(3):
                    await wire.send(post(body))
                    assert (await wire.reply()).status == 200
                gc.collect()
                gc.set_debug(gc.DEBUG_SAVEALL)
                try:
                    for _ in range(REQUESTS):
                        await wire.send(post(body))
                        assert (await wire.reply()).status == 200
                    await trio.testing.wait_all_tasks_blocked()
                    gc.collect()
                    found = Counter(type(item).__module__ + "." + type(item).__qualname__ for item in gc.garbage)
                finally:
                    gc.set_debug(0)
                    gc.garbage.clear()
    ours = {name: count for name, count in found.items() if name.startswith("cpa.") and "testing" not in name}
    assert {name: count for name, count in ours.items() if count >= REQUESTS} == {}
