"""What was used, as operators read it: counted however an exchange ended, and kept over restarts."""

import json
from typing import Any

import httpx
import pytest
import trio

from cpa.formats.estimate import estimate_text
from cpa.usage.identity import client_id
from tests.e2e.wire import CHAT, RESPONSES, WIRES, Wire
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy
from tests.server.wire import connect, post

FAIL_S = 120
MANAGEMENT_KEY = "management-key-of-the-tests"
MANAGED = f"remote-management: {{secret-key: {MANAGEMENT_KEY}}}\n"
CHUNKS = 6
PIECE_BYTES = 40


async def managed(proxy: RunningProxy, path: str) -> httpx.Response:
    """An operator's question."""
    async with proxy.client(key=MANAGEMENT_KEY) as client:
        return await client.get(f"/v0/management{path}")


async def usage(proxy: RunningProxy, query: str = "") -> Any:
    """Sums of the ledger."""
    response = await managed(proxy, f"/usage{query}")
    assert response.status_code == 200, response.text
    return response.json()


async def attempts(proxy: RunningProxy, count: int) -> list[dict[str, Any]]:
    """The newest records, oldest first, once there are *count*: an exchange may end a little after its answer."""
    while True:
        found = (await managed(proxy, "/usage/attempts")).json()["attempts"]
        if len(found) >= count:
            rows: list[dict[str, Any]] = found[::-1]
            return rows
        await trio.sleep(0.02)


def text_of(wire: Wire, events: bytes) -> str:
    """What a model wrote in *events* of a stream."""
    found = []
    for line in events.decode().splitlines():
        if not line.startswith("data: {"):
            continue
        value = json.loads(line.removeprefix("data: "))
        match wire.name:
            case "gpt":
                found += [choice["delta"].get("content") or "" for choice in value["choices"]]
            case "responses":
                found += [value["delta"]] if value["type"] == "response.output_text.delta" else []
            case "claude":
                found += [value["delta"].get("text", "")] if value["type"] == "content_block_delta" else []
            case "gemini":
                found += [part["text"] for part in value["candidates"][0]["content"]["parts"]]
    return "".join(found)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_whole_and_streamed_answers_are_counted_as_their_providers_say(wire: Wire) -> None:
    """One row per attempt, and sums by whatever one may ask for."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy:
            async with proxy.client() as client:
                for stream in (False, True):
                    response = await wire.post(client, stream=stream, headers={})
                    assert response.status_code == 200
            whole, streamed = await attempts(proxy, 2)
            found = await usage(proxy)
    for row in (whole, streamed):
        assert row["total_tokens"] == row["input_tokens"] + row["output_tokens"] > 0
        assert (row["failed"], row["incomplete"]) == (False, False)
        assert (row["alias"], row["model"], row["key"]) == (wire.name, f"mock-{wire.name}", client_id(CLIENT_KEY).id)
        assert row["ttft_ms"] <= row["latency_ms"]
    assert whole["estimated_tokens"] == 0
    assert found["totals"]["attempts"] == 2
    assert found["totals"]["total_tokens"] == whole["total_tokens"] + streamed["total_tokens"]
    for name in ("key", "model", "provider", "credential", "day"):
        assert [row["total_tokens"] for row in found[f"by_{name}"]] == [found["totals"]["total_tokens"]]
    assert found["by_key"][0]["label"] == "clie...ests"
    assert CLIENT_KEY not in json.dumps(found)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_client_that_leaves_at_any_chunk_pays_for_what_it_got(wire: Wire) -> None:
    """Issue 5: cancel at every chunk index; what the provider did not count is estimated from the delivered text."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy:
            got = []
            for pieces in range(CHUNKS):
                got.append(await leave(proxy, wire, pieces))
            rows = await attempts(proxy, CHUNKS)
            found = await usage(proxy)
    for events, row in zip(got, rows, strict=True):
        delivered = estimate_text(text_of(wire, events))
        assert row["incomplete"], row
        assert row["output_tokens"] >= delivered, row
        if wire in (CHAT, RESPONSES):  # these say nothing before their end
            assert row["output_tokens"] == delivered, row
            assert (row["estimated_tokens"] > 0) == (delivered > 0)
    counts = [row["output_tokens"] for row in rows]
    assert counts == sorted(set(counts))  # each got more than the one before
    assert found["totals"]["output_tokens"] == sum(row["output_tokens"] for row in rows)
    assert found["totals"]["incomplete"] == CHUNKS


async def leave(proxy: RunningProxy, wire: Wire, pieces: int) -> bytes:
    """Read so many pieces of text, after which the provider stalls, and go. Returns: the events."""
    seen = proxy.mock.total_requests
    orders = [
        *(f"x-mock-chunks: {CHUNKS}", f"x-mock-chunk-bytes: {PIECE_BYTES}"),
        *("x-mock-fault: stall", f"x-mock-at: {pieces + 1}"),  # the first write opens the stream
    ]
    async with connect(proxy.url) as connection:
        await connection.send(post(wire.body(stream=True), wire.url(stream=True), headers=orders))
        await proxy.mock.wait_requests(seen + 1)
        events = b""
        if pieces:
            await connection.head()
            while len(text_of(wire, events).encode()) < pieces * PIECE_BYTES:
                events += await connection.chunk()
    await proxy.mock.requests[-1].wait_closed_by_client()
    return events
