"""What clients see when providers fail, and which credentials were asked: a table, over pools of 1, 3 and 50.

In each pool all credentials but the last fail in the same way; their priorities make the order known. Waits between
rounds are switched off, so that nothing takes real time; rounds are tested where clocks stand still.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from cpa.testing.mock import open_mock
from tests.proxy import RunningProxy, running_proxy

POOLS = (1, 3, 50)
DEADLINE_S = 90
HEAD = """
host: 127.0.0.1
port: 0
proxy-url: direct
{auth_dir}
api-keys: [{{client_key}}]
remote-management: {{{{secret-key: manage}}}}
max-retry-interval: 0
{settings}
claude-api-key:
{entries}
"""


@attrs.frozen(kw_only=True)
class Row:
    """One way to fail.

    Attributes:
      orders: for the mock, by header.
      alone: status that the client sees from the pool of one.
      rotates: others are asked, and the last one answers.
      again: status of a second request to the pool of one; *asks*: whether its credential is asked then.
      inside: the error comes inside the stream, whose head says 200.
    """

    name: str
    orders: Mapping[str, str]
    alone: int
    rotates: bool = True
    again: int = 0
    asks: bool = True
    stream: bool = False
    inside: bool = False


def status(code: int, **fields: Any) -> Row:
    """A plain answer with that status."""
    return Row(name=str(code), orders={"X-Mock-Status": str(code)}, alone=code, **fields)


def fault(name: str, *, at: int | None = None, **fields: Any) -> Row:
    """One of the mock's faults in a stream."""
    orders = {"X-Mock-Fault": name} | ({} if at is None else {"X-Mock-At": str(at)})
    fields.setdefault("alone", 502)
    return Row(name=name if at is None else f"{name}-at-{at}", orders=orders, stream=True, **fields)


TABLE = (
    # The credential is at fault: the next one is asked, and this one not again for half an hour.
    status(401, again=503, asks=False),
    status(402, again=503, asks=False),
    status(403, again=503, asks=False),
    status(404, again=503, asks=False),
    # Quota: the client hears when to come back.
    status(429),
    Row(
        name="429-with-hint",
        orders={"X-Mock-Status": "429", "X-Mock-Retry-After": "100"},
        alone=429,
        again=429,
        asks=False,
    ),
    # It may pass: the only credential is probed.
    status(408, again=408),
    status(500, again=500),
    status(502, again=502),
    status(503, again=503),
    status(504, again=504),
    status(529, again=529),
    attrs.evolve(status(500, again=500), name="500-stream", stream=True),
    attrs.evolve(status(401, again=503, asks=False), name="401-stream", stream=True),
    # The request is at fault: nobody else is asked.
    status(400, rotates=False, again=400),
    status(409, rotates=False, again=409),
    status(413, rotates=False, again=413),
    status(422, rotates=False, again=422),
    # The connection breaks: the next one is asked, nobody is marked.
    fault("close-before-headers", again=502),
    fault("reset-headers", again=502),
    fault("reset", at=0, again=502),
    fault("cut", at=0, again=502),
    # A 200 without an answer.
    fault("empty", again=502),
    fault("inband-error", at=0, again=502),
    # After the first byte nothing is retried.
    fault("cut", at=3, alone=200, rotates=False, inside=True, again=200),
    fault("inband-error", at=3, alone=200, rotates=False, inside=True, again=200),
)


def entry(proxy_pool: int, number: int, orders: Mapping[str, str]) -> str:
    """A credential of the pool of that size; the first number has the highest priority."""
    return (
        f"  - {{{{api-key: key-of-pool-{proxy_pool}-number-{number:02}, base-url: '{{provider}}', priority: {-number}, "
        f"headers: {{{{{', '.join(f'{name}: {json.dumps(value)}' for name, value in orders.items())}}}}}, "
        f"models: [{{{{name: mock-claude, alias: pool-{proxy_pool}}}}}]}}}}"
    )


@asynccontextmanager
async def pools(
    orders: Mapping[str, str], settings: str = "", *, auth_dir: str = "auth-dir: {auth_dir}", **more: Any
) -> AsyncIterator[RunningProxy]:
    """A proxy with the three pools. *settings*, *auth_dir*: lines of the configuration."""
    entries = [
        entry(size, number, orders if number < size - 1 or size == 1 else {})
        for size in POOLS
        for number in range(size)
    ]
    config = HEAD.format(settings=settings, auth_dir=auth_dir, entries="\n".join(entries))
    with trio.fail_after(DEADLINE_S):
        async with running_proxy(config=config, keyless=True, **more) as proxy:
            yield proxy


def body(pool: int, *, stream: bool, text: str = "hello") -> bytes:
    """A request to a pool."""
    message = {"role": "user", "content": text}
    return json.dumps({"model": f"pool-{pool}", "max_tokens": 16, "stream": stream, "messages": [message]}).encode()


async def send(client: httpx.AsyncClient, pool: int, *, stream: bool) -> httpx.Response:
    """One request, its answer read whole."""
    return await client.post("/v1/messages", content=body(pool, stream=stream))


def asked(proxy: RunningProxy) -> list[int]:
    """Numbers of the credentials that were asked since the last look."""
    found = [(request.header(b"authorization") or b"").decode() for request in proxy.mock.requests]
    proxy.mock.forget()
    return [int(key.rpartition("-")[2]) for key in found]


def without_retries(numbers: list[int]) -> list[int]:
    """A reused connection that ends before any byte is retried once on a fresh one, which is no attempt of its own."""
    return [number for number, _ in groupby(numbers)]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_failover(row: Row) -> None:
    """One row of the table."""
    async with pools(row.orders) as proxy, proxy.client() as client:
        for size in POOLS:
            answer = await send(client, size, stream=row.stream)
            if size == 1:
                assert answer.status_code == row.alone, answer.text
                assert without_retries(asked(proxy)) == [0]
            elif row.rotates:
                assert answer.status_code == 200, answer.text
                assert without_retries(asked(proxy)) == list(range(size))
                assert "error" not in answer.text.partition("\n")[0]
            else:
                assert answer.status_code == row.alone
                assert asked(proxy) == [0]
            if row.inside:
                assert "event: error" in answer.text
        if row.again:
            answer = await send(client, 1, stream=row.stream)
            assert answer.status_code == status_for_claude(row.again, row.asks), answer.text
            assert without_retries(asked(proxy)) == ([0] if row.asks else [])
            if not row.asks:
                assert int(answer.headers["retry-after"]) > 0


def status_for_claude(code: int, from_provider: bool) -> int:
    """Claude's clients know no 503 of ours (translation 5.3)."""
    return 529 if code == 503 and not from_provider else code


async def test_rotated_credentials_are_not_asked_again_by_the_next_request() -> None:
    """The second request goes straight to the one that answers."""
    async with pools({"X-Mock-Status": "403"}) as proxy, proxy.client() as client:
        await send(client, 50, stream=False)
        assert len(asked(proxy)) == 50
        assert (await send(client, 50, stream=False)).status_code == 200
        assert asked(proxy) == [49]


async def test_without_cooling_nobody_is_forgotten() -> None:
    """`disable-cooling`: every request begins at the beginning."""
    async with pools({"X-Mock-Status": "403"}, "disable-cooling: true") as proxy, proxy.client() as client:
        for _ in range(2):
            assert (await send(client, 3, stream=False)).status_code == 200
            assert asked(proxy) == [0, 1, 2]


async def test_rounds_without_waits() -> None:
    """`request-retry` more rounds, `max-retry-credentials` in each."""
    settings = "disable-cooling: true\nrequest-retry: 2\nmax-retry-credentials: 2"
    async with pools({"X-Mock-Status": "500"}, settings) as proxy, proxy.client() as client:
        assert (await send(client, 50, stream=False)).status_code == 500
        assert asked(proxy) == [0, 1] * 3


async def test_bootstrap_retries_of_streams() -> None:
    """A stream may begin anew while nothing has reached the client."""
    settings = "streaming: {{bootstrap-retries: 2}}\nrequest-retry: 0"
    orders = {"X-Mock-Fault": "cut", "X-Mock-At": "0"}
    async with pools(orders, settings) as proxy, proxy.client() as client:
        assert (await send(client, 1, stream=True)).status_code == 502
        assert asked(proxy) == [0, 0, 0]


async def test_why_cooldowns_and_reset() -> None:
    """Operators can see why a credential is not used, and change it."""
    async with pools({"X-Mock-Status": "402"}) as proxy, proxy.client() as client:
        await send(client, 3, stream=False)
        asked(proxy)
        async with proxy.client(key="manage") as manager:
            listed = (await manager.get("/v0/management/cooldowns")).json()["cooldowns"]
            assert [(found["reason"], found["model"]) for found in listed] == [("payment_required", "pool-3")] * 2
            first = listed[0]
            path = f"/v0/management/credentials/{first['id']}/why"
            why = (await manager.get(path, params={"model": "pool-3"})).json()
            assert (why["used"], why["state"], why["cooldown"]["status"]) == (False, "cooling", 402)
            assert 0 < why["cooldown"]["seconds"] <= 1800
            other = (await manager.get(path, params={"model": "pool-50"})).json()
            assert (other["used"], other["state"]) == (False, "not_serving")
            reset = await manager.post("/v0/management/reset-quota", json={"auth_index": first["auth_index"]})
            assert reset.json() == {"status": "ok", "auth_index": first["auth_index"], "models": ["pool-3"]}
            why = (await manager.get(path, params={"model": "pool-3"})).json()
            assert (why["used"], why["cooldown"]) == (True, None)
            wrong = await manager.post("/v0/management/reset-quota", json={"auth_index": "none"})
            assert (wrong.status_code, wrong.json()) == (404, {"error": "auth not found"})
            missing = await manager.post("/v0/management/reset-quota", json={})
            assert (missing.status_code, missing.json()) == (400, {"error": "auth_index is required"})
            assert (await manager.get("/v0/management/credentials/nobody/why")).status_code == 404
        assert (await manager_less(proxy, path)).status_code == 401
        await send(client, 3, stream=False)
        assert len(asked(proxy)) == 2


async def manager_less(proxy: RunningProxy, path: str) -> httpx.Response:
    """A request for *path* without a key."""
    async with proxy.client(key=None) as stranger:
        return await stranger.get(path)


async def test_listed_models_stay_listed_whatever_fails() -> None:
    """2.2 [B]: health is shown elsewhere."""
    async with pools({"X-Mock-Status": "404"}) as proxy, proxy.client() as client:
        before = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
        for size in POOLS:
            await send(client, size, stream=False)
        assert {model["id"] for model in (await client.get("/v1/models")).json()["data"]} == before
        assert before == {"pool-1", "pool-3", "pool-50"}


async def test_exhausted_quota_tells_clients_when_to_come_back() -> None:
    """Proxy 1.15, in OpenAI's shape, from a provider that speaks Claude's."""
    orders = {"X-Mock-Status": "429", "X-Mock-Retry-After": "100"}
    async with pools(orders) as proxy, proxy.client() as client:
        chat = {"model": "pool-1", "messages": [{"role": "user", "content": "hello"}]}
        assert (await client.post("/v1/chat/completions", json=chat)).status_code == 429
        answer = await client.post("/v1/chat/completions", json=chat)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["model"], error["provider"]) == (
            429,
            "model_cooldown",
            "pool-1",
            "claude",
        )
        assert error["reset_seconds"] == int(answer.headers["retry-after"]) <= 100
        assert len(asked(proxy)) == 1


async def test_saved_cooldowns_outlive_a_restart(tmp_path: Path) -> None:
    """`save-cooldown-status`: the next process does not ask what this one knows to be refused."""
    settings = f"save-cooldown-status: true\nauth-dir: {tmp_path}"
    async with open_mock() as mock:  # one for both: ids of credentials depend on where their provider is
        for expected, count in ((402, 1), (529, 1)):
            made = pools({"X-Mock-Status": "402"}, settings, auth_dir="", provider_url=mock.url)
            async with made as proxy, proxy.client() as client:
                assert (await send(client, 1, stream=False)).status_code == expected
                assert len(mock.requests) == count


async def test_a_session_stays_over_a_reload() -> None:
    """`routing.session-affinity`, through the whole program."""
    settings = "routing: {{session-affinity: true}}"
    async with pools({}, settings) as proxy, proxy.client(headers={"Session-Id": "one"}) as client:
        for _ in range(3):
            assert (await send(client, 3, stream=False)).status_code == 200
        state, builder = proxy.app.state, proxy.app._builder
        state.runtime = builder.build(state.runtime.config)
        assert (await send(client, 3, stream=False)).status_code == 200
        assert asked(proxy) == [0] * 4
