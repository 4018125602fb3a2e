"""Two proxies on one Redis act as one: cooldowns, sessions and limits; and they do without it while it is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from cpa.testing.mock import MockProvider, open_mock
from tests.proxy import RunningProxy, running_proxy
from tests.state.redis import RedisServer, redis_server

FAIL_S = 120
CONFIG = """
host: 127.0.0.1
port: 0
proxy-url: direct
auth-dir: {auth_dir}
api-keys: [{client_key}]
remote-management: {{secret-key: manage}}
state: {{backend: redis, url: '%s'}}
limits: {{clients: [{{keys: ['*'], requests-per-day: 12}}]}}
routing: {{session-affinity: true}}
max-retry-interval: 0
claude-api-key:
  - {{api-key: limited, base-url: '{provider}', headers: {{X-Mock-Status: 429, X-Mock-Retry-After: 100}},
      models: [{{name: mock-claude, alias: lonely}}]}}
  - {{api-key: one, base-url: '{provider}', models: [{{name: mock-claude, alias: pool}}]}}
  - {{api-key: two, base-url: '{provider}', models: [{{name: mock-claude, alias: pool}}]}}
  - {{api-key: three, base-url: '{provider}', models: [{{name: mock-claude, alias: pool}}]}}
"""


@asynccontextmanager
async def two_proxies(server: RedisServer) -> AsyncIterator[tuple[MockProvider, RunningProxy, RunningProxy]]:
    """Of the same configuration, with one provider."""
    config = CONFIG % server.url
    async with (
        open_mock() as mock,
        running_proxy(config=config, provider_url=mock.url) as first,
        running_proxy(config=config, provider_url=mock.url) as second,
    ):
        yield mock, first, second


async def ask(proxy: RunningProxy, model: str, *, session: str = "") -> httpx.Response:
    """One request."""
    body: dict[str, Any] = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    async with proxy.client(headers={"X-Session-ID": session} if session else None) as client:
        return await client.post("/v1/messages", json=body)


async def known(proxy: RunningProxy, **expected: int) -> None:
    """Wait until management counts that many cooldowns or sessions; it asks no provider."""
    async with proxy.client(key="manage") as client:
        while True:
            found = (await client.get("/v0/management/cooldowns")).json()
            counts = {"cooldowns": len(found["cooldowns"]), "sessions": found["sessions"]}
            if all(counts[name] == count for name, count in expected.items()):
                return
            await trio.sleep(0.005)


async def counted(proxy: RunningProxy, requests: int) -> None:
    """Wait until management says that the client made so many requests today."""
    async with proxy.client(key="manage") as client:
        while True:
            [listed] = (await client.get("/v0/management/limits")).json()["clients"]
            [limit] = listed["limits"]
            if limit["used"] == requests:
                return
            await trio.sleep(0.005)


async def test_a_cooldown_of_one_is_one_of_all(tmp_path: Path) -> None:
    """The provider is asked once; the other proxy's client hears when to come back."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, two_proxies(server) as (mock, first, second):
            assert (await ask(first, "lonely")).status_code == 429
            began = trio.current_time()
            await known(second, cooldowns=1)
            print(f"agreed after {(trio.current_time() - began) * 1000:.0f} ms")
            refused = await ask(second, "lonely")
            assert refused.status_code == 429
            assert 50 < int(refused.headers["retry-after"]) <= 100
            assert len(mock.requests) == 1


async def test_a_session_stays_with_its_credential_wherever_it_comes_in(tmp_path: Path) -> None:
    """The provider's cache is where the first request went."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, two_proxies(server) as (mock, first, second):
            for number in range(3):
                assert (await ask(first, "pool", session=f"session-{number}")).status_code == 200
            bound = [request.header(b"authorization") for request in mock.requests]
            assert len(set(bound)) == 3
            await known(second, sessions=3)
            for number in range(3):
                assert (await ask(second, "pool", session=f"session-{number}")).status_code == 200
            assert [request.header(b"authorization") for request in list(mock.requests)[3:]] == bound


async def test_limits_are_of_all_together_and_redis_may_go_away(tmp_path: Path) -> None:
    """No request is lost over it; each proxy counts on, and what they counted is added up when it is back."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, two_proxies(server) as (_, first, second):
            for proxy in (first, second):
                for _ in range(3):
                    assert (await ask(proxy, "pool")).status_code == 200
            # What is under way when Redis dies may be counted twice; here nothing is.
            for proxy in (first, second):
                await counted(proxy, 6)
            server.stop()
            for proxy in (first, second):
                for _ in range(2):
                    assert (await ask(proxy, "pool")).status_code == 200
            await server.start()
            for proxy in (first, second):
                await counted(proxy, 10)
            for number, proxy in enumerate((first, second), 1):
                assert (await ask(proxy, "pool")).status_code == 200
                await counted(second if proxy is first else first, 10 + number)
            for proxy in (first, second):
                assert (await ask(proxy, "pool")).status_code == 429
