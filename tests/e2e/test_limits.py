"""Limits of client keys from the outside: who is refused, in which words, and for how long."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import httpx
import pytest
import trio

from cpa.config.load import parse_config
from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.runner import open_answer
from cpa.pipeline.stage import InterceptRequestCall, Registration, StageKind
from cpa.types import Operation, PluginId
from cpa.usage.identity import client_id
from cpa.usage.limit_store import Span
from tests.e2e.wire import CHAT, CLAUDE, GEMINI, WIRES, Wire
from tests.proxy import CLIENT_KEY, CONFIG, RunningProxy, running_proxy

FAIL_S = 60


def limits(text: str, *more: str) -> str:
    """YAML of `limits.clients`."""
    return "limits:\n  clients:\n" + "".join(f"    - {{{item}}}\n" for item in (text, *more))


async def ask(proxy: RunningProxy, wire: Wire = CHAT, *, slow_ms: int = 0) -> httpx.Response:
    """One whole answer or refusal; the provider's first byte takes *slow_ms*."""
    async with proxy.client() as client:
        return await wire.post(client, headers={"x-mock-first-byte": str(slow_ms)})


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_the_refusal_is_a_429_of_the_clients_protocol_with_the_time_of_the_reset(wire: Wire) -> None:
    """In body and header; nothing reached the provider."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=limits("requests-per-minute: 2")) as proxy:
            assert [(await ask(proxy, wire)).status_code for _ in range(2)] == [200, 200]
            refused = await ask(proxy, wire)
            assert proxy.mock.total_requests == 2
    assert refused.status_code == 429
    error = wire.error_of(refused.content)
    assert "limit requests-per-minute: 2 of 2; it resets at " in error["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert CLIENT_KEY not in refused.text
    if wire is CLAUDE:
        assert error["type"] == "rate_limit_error"
    elif wire is GEMINI:
        assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
        assert error["details"][0]["retryDelay"] == f"{refused.headers['retry-after']}s"
    else:
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")


async def test_of_many_at_once_exactly_as_many_pass_as_may() -> None:
    """Judged and counted in one step."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=limits("requests-per-day: 7")) as proxy:
            found: Counter[int] = Counter()

            async def one() -> None:
                found[(await ask(proxy, slow_ms=50)).status_code] += 1

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(one)
            assert found == {200: 7, 429: 13}
            assert proxy.mock.total_requests == 7


async def test_a_limit_that_never_resets_says_so() -> None:
    """Clients shall not try again."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=limits("requests-total: 1")) as proxy:
            assert (await ask(proxy)).status_code == 200
            refused = await ask(proxy)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert "retry-after" not in refused.headers
    assert "it does not reset" in refused.text


async def test_tokens_count_as_the_provider_counts_them() -> None:
    """The request that uses up the last of them is served; the next one is not."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as probe:
            cost = (await ask(probe)).json()["usage"]["total_tokens"]
        async with running_proxy(extra=limits(f"tokens-per-minute: {cost + 1}")) as proxy:
            statuses = [(await ask(proxy)).status_code for _ in range(3)]
            assert statuses == [200, 200, 429]


async def test_tokens_of_running_requests_are_reserved() -> None:
    """Neither does a second one start before the first has ended, nor is anything left reserved afterwards."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=limits("tokens-per-day: 1000, tokens-per-minute: 1000")) as proxy:
            async with trio.open_nursery() as nursery:

                async def first() -> None:
                    assert (await ask(proxy, slow_ms=600)).status_code == 200

                nursery.start_soon(first)
                await proxy.mock.wait_requests(1)
                refused = await ask(proxy)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "are taken by running requests" in refused.text
            assert (await ask(proxy)).status_code == 200


async def test_clients_that_leave_give_their_reservation_back() -> None:
    """Whatever becomes of a request."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=limits("max-concurrent: 1")) as proxy:
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    seen = proxy.mock.total_requests
                    nursery.start_soon(partial(ask, proxy, slow_ms=600_000))
                    await proxy.mock.wait_requests(seen + 1)
                    refused = await ask(proxy)
                    assert refused.status_code == 429
                    assert "limit max-concurrent: 1 of 1" in refused.text
                    nursery.cancel_scope.cancel()
                await proxy.mock.requests[-1].wait_closed_by_client()
                store = proxy.app.state.usage.limiter.store
                while store.held(client_id(CLIENT_KEY).id).running:  # noqa: ASYNC110  # of leaving no event tells
                    await trio.sleep(0.01)
            assert (await ask(proxy)).status_code == 200


async def test_limits_hold_for_the_keys_that_they_name() -> None:
    """The first item that has a key counts; each key has its own; others have none."""
    keys = "api-keys: [guest-one, guest-two, friend-key-one]\n"
    text = keys + limits('keys: ["guest-*"], requests-per-minute: 1', 'keys: ["*-two"], requests-per-minute: 9')
    config = CONFIG.replace("api-keys: [{client_key}]\n", "")
    with trio.fail_after(FAIL_S):
        async with running_proxy(config=config, extra=text) as proxy:
            found: dict[str, list[int]] = {}
            for key in ("guest-one", "guest-two", "friend-key-one"):
                async with proxy.client(key=key) as client:
                    found[key] = [(await CHAT.post(client, headers={})).status_code for _ in range(2)]
    assert found == {"guest-one": [200, 429], "guest-two": [200, 429], "friend-key-one": [200, 200]}


async def test_limits_survive_a_restart(tmp_path: Path) -> None:
    """The ledger keeps them; also for keys whose records are long gone."""
    extra = limits("requests-per-day: 2, requests-total: 9") + f"usage: {{ledger: {{path: {tmp_path}/l.sqlite3}}}}\n"
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=extra) as proxy:
            assert [(await ask(proxy)).status_code for _ in range(2)] == [200, 200]
        async with running_proxy(extra=extra) as proxy:
            assert (await ask(proxy)).status_code == 429
        async with running_proxy(extra=extra.replace("per-day: 2", "per-day: 3")) as proxy:
            assert [(await ask(proxy)).status_code for _ in range(2)] == [200, 429]


async def test_reloads_take_up_limits_and_forget_nothing() -> None:
    """A raised limit lets in at once; what was used counts on."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=limits("requests-per-minute: 1")) as proxy:
            usage = proxy.app.state.usage

            async def reload(text: str) -> None:
                await usage.configure(parse_config(text, file="c.yaml").config, managed=False)

            assert [(await ask(proxy)).status_code for _ in range(2)] == [200, 429]
            await reload(limits("requests-per-minute: 2"))
            assert [(await ask(proxy)).status_code for _ in range(2)] == [200, 429]
            await reload("port: 0")
            assert (await ask(proxy)).status_code == 200
            await reload(limits("requests-per-minute: 2"))
            assert (await ask(proxy)).status_code == 429


async def test_what_plugins_ask_for_within_a_request_counts_for_its_client_and_is_no_request() -> None:
    """Its tokens do, under the client's key; the limit of one request does not stop it."""
    nested_answers: list[bytes] = []

    async def ask_within(call: InterceptRequestCall) -> None:
        nested = ModelRequest(
            format=Format.OPENAI,
            operation=Operation.GENERATE,
            model="gpt",
            stream=False,
            body=CHAT.body(),
            principal=call.execution.principal,
            trace_id=call.execution.trace_id,
            callers=(PluginId("asker"),),
        )
        async with open_answer(nested, proxy.app.state.runtime.services) as answer:
            nested_answers.append(answer.body)

    stage = Registration(kind=StageKind.INTERCEPT_BEFORE, plugin_id=PluginId("asker"), stage=ask_within)
    extra = limits("requests-per-minute: 1, max-concurrent: 1, tokens-per-day: 100000")
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=extra, registrations=[stage]) as proxy:
            answer = await ask(proxy)
            refused = await ask(proxy)
            count = proxy.app.state.usage.limiter.store.count(client_id(CLIENT_KEY).id, Span.DAY, time())
    assert (answer.status_code, refused.status_code) == (200, 429)
    cost = sum(json.loads(body)["usage"]["total_tokens"] for body in (answer.content, *nested_answers))
    assert len(nested_answers) == 1
    assert (count.requests, count.tokens) == (1, cost)


async def test_a_stream_is_refused_by_its_status() -> None:
    """Before anything was sent; bodies are the same as for whole answers."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=limits("requests-per-minute: 1")) as proxy, proxy.client() as client:
            first = await CHAT.post(client, stream=True, headers={})
            refused = await CHAT.post(client, stream=True, headers={})
    assert (first.status_code, refused.status_code) == (200, 429)
    found: Any = json.loads(refused.content)
    assert found["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_models_that_a_key_may_not_use_are_refused_and_not_listed(wire: Wire) -> None:
    """In the client's protocol, before anything is counted; a thinking suffix is no way around it."""
    extra = limits("keys: [other], requests-per-day: 1", "allowed-models: ['nothing-*', MOCK-none]")
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=extra) as proxy:
            refused = await ask(proxy, wire)
            assert refused.status_code == 403
            assert "this client key may not use model" in wire.error_of(refused.content)["message"]
            async with proxy.client() as client:
                assert (await client.get("/v1/models")).json()["data"] == []
                assert (await client.get("/v1beta/models")).json()["models"] == []
                assert (await client.get("/v1/models/gpt")).status_code == 404
            assert proxy.mock.total_requests == 0
            assert (await ask(proxy, wire)).status_code == 403


async def test_a_key_uses_the_models_that_it_may_use() -> None:
    """By pattern, whatever their case; lists show these and no others."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=limits("allowed-models: ['G*t']")) as proxy, proxy.client() as client:
            said = [{"role": "user", "content": "hello"}]
            for model in ("gpt", "gpt(high)"):
                answer = await client.post("/v1/chat/completions", json={"model": model, "messages": said})
                assert answer.status_code == 200, answer.text
            listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
            assert listed == ["gpt"]
            assert (await client.get("/v1/models/gpt")).status_code == 200
            answer = await client.post("/v1/messages", json={"model": "claude", "max_tokens": 1, "messages": said})
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
