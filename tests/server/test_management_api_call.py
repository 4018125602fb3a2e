"""``POST /api-call``: tokens in headers and nowhere else, the right way out, bounded answers, no consequences."""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from cpa.credentials.model import Credential
from cpa.errors import UpstreamTimeout
from cpa.server.management.api_call import token_of
from cpa.upstream import outbound
from tests.e2e.scripted import ScriptedProvider, scripted_provider
from tests.e2e.test_credentials import EMPTY, MANAGEMENT_KEY, google, running
from tests.proxy import CONFIG, PROVIDER_KEY, RunningProxy, running_proxy
from tests.server.sites import KEY, operator
from tests.upstream.proxies_fake import open_http_proxy

FAIL_S = 120
CALL = "/v0/management/api-call"
COOLING = CONFIG.replace("disable-cooling: true", "disable-cooling: false")
MANAGED = f"remote-management: {{secret-key: {KEY}}}\n"


@asynccontextmanager
async def calling() -> AsyncIterator[tuple[RunningProxy, httpx.AsyncClient, ScriptedProvider]]:
    """A proxy, its operator, and somebody to be called."""
    with trio.fail_after(FAIL_S):
        async with scripted_provider() as provider, running_proxy(config=COOLING, extra=MANAGED) as proxy:
            provider.says(b"hello", content_type="text/plain")
            async with operator(proxy) as client:
                yield proxy, client, provider


def index_of(proxy: RunningProxy, provider: str) -> str:
    """The handle of a credential of that provider."""
    return next(found.index for found in proxy.app.state.runtime.credentials if found.provider == provider)


async def ask(client: httpx.AsyncClient, **wish: Any) -> tuple[int, Any]:
    """Status and body."""
    reply = await client.post(CALL, json=wish)
    return reply.status_code, reply.json()


async def test_a_call_with_a_key_in_its_header() -> None:
    """Only there: neither address nor body get it. What comes back is told with Go's names of headers."""
    async with calling() as (proxy, client, provider):
        provider.says(b"caf\xc3\xa9 \xff", status=418, headers=(("x-odd-NAME", "1"), ("x-odd-name", "2")))
        status, body = await ask(
            client,
            auth_index=index_of(proxy, "claude"),
            method="post",
            url=f"{provider.url}/path?x=$TOKEN$",
            header={"Authorization": "Bearer $TOKEN$", "x-twice": "$TOKEN$,$TOKEN$", "Content-Length": "999"},
            data="body $TOKEN$ é",
        )
        assert status == 200
        assert (body["status_code"], body["body"]) == (418, "café \ufffd")
        assert body["header"]["X-Odd-Name"] == ["1", "2"]
        assert "truncated" not in body
        [asked] = provider.requests
        assert asked.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
        assert asked.headers["x-twice"] == f"{PROVIDER_KEY},{PROVIDER_KEY}"
        assert asked.body == "body $TOKEN$ é".encode()
        assert PROVIDER_KEY not in asked.target
        assert asked.headers["host"] == provider.url.removeprefix("http://")


WRONG: tuple[tuple[object, str], ...] = (
    ("x", "invalid body"),
    ([], "invalid body"),
    ({}, "missing method"),
    ({"method": " "}, "missing method"),
    ({"method": "GET"}, "missing url"),
    ({"method": "GET", "url": ""}, "missing url"),
    ({"method": "G T", "url": "http://h/"}, "invalid method"),
    ({"method": "CONNECT", "url": "http://h/"}, "invalid method"),
    ({"method": "GET", "url": "example.test"}, "invalid url"),
    ({"method": "GET", "url": "ftp://example.test/"}, "invalid url"),
    ({"method": "GET", "url": "file:///etc/passwd"}, "invalid url"),
    ({"method": "GET", "url": "http:///x"}, "invalid url"),
    ({"method": "GET", "url": "http://h:99999/"}, "invalid url"),
    ({"method": "GET", "url": "http://a\x00b/"}, "invalid url"),
    ({"method": "GET", "url": "http://user:secret@127.0.0.1:1/"}, "invalid url: user and password belong into a"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "proxy_url": "nonsense"}, "invalid proxy_url"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "proxy_url": "ftp://u:secret@h"}, "invalid proxy_url"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "header": {"A": "$TOKEN$"}}, "auth token not found"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "auth_index": "nobody"}, "auth token not found"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "header": ["A"]}, "invalid body: header must be an object"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "header": {"A": 1}}, "invalid body: header must be an object"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "header": {"A B": "x"}}, "invalid header"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "header": {"A": "x\r\nB: secret"}}, "invalid header"),
    ({"method": "GET", "url": "http://127.0.0.1:1/", "data": {}}, "invalid body: data must be a text"),
    ({"method": 5, "url": "http://127.0.0.1:1/"}, "invalid body: method must be a text"),
)


async def test_wishes_that_make_no_sense() -> None:
    """Each with its reason; what may be a secret is not repeated."""
    async with calling() as (_, client, _provider):
        for wish, error in WRONG:
            reply = await client.post(CALL, json=wish)
            assert reply.status_code == 400, wish
            assert reply.json()["error"].startswith(error), wish
            assert "secret" not in reply.text
        assert (await client.post(CALL, content=b"{")).json() == {"error": "invalid body"}
        assert (await client.post(CALL, content=b" " * (9 << 20))).status_code == 413


async def test_a_call_that_fails_changes_nothing_for_the_credential() -> None:
    """502 with the reason, or the provider's own status; no cooldown, no count, no answer followed elsewhere."""
    async with calling() as (proxy, client, provider):
        index = index_of(proxy, "claude")
        token = {"X-Key": "$TOKEN$"}
        status, body = await ask(client, auth_index=index, method="GET", url="http://127.0.0.1:1/", header=token)
        assert (status, body["error"]) == (502, "request failed")
        assert "127.0.0.1:1" in body["message"]
        assert PROVIDER_KEY not in body["message"]
        for code in (401, 429, 500):
            provider.says(b"no", status=code)
            status, body = await ask(client, auth_index=index, method="GET", url=provider.url, header=token)
            assert (status, body["status_code"]) == (200, code)
        provider.says(b"", status=302, headers=(("location", f"{provider.url}/elsewhere"),))
        status, body = await ask(client, auth_index=index, method="GET", url=provider.url, header=token)
        assert (body["status_code"], body["header"]["Location"]) == (302, [f"{provider.url}/elsewhere"])
        assert [asked.target for asked in provider.requests] == ["/"] * 4
        provider.says(b"half", broken=True)
        assert (await ask(client, method="GET", url=provider.url))[0] == 502
        cooldowns = (await client.get("/v0/management/cooldowns")).json()["cooldowns"]
        assert cooldowns == []
        listed = (await client.get("/v0/management/credentials")).json()["credentials"]
        assert {(entry["success"], entry["failed"]) for entry in listed} == {(0, 0)}


async def test_answers_are_bounded_and_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut is said."""
    monkeypatch.setattr(outbound, "ANSWER_BYTES", 1000)
    async with calling() as (proxy, client, provider):
        provider.says(b"x" * 600, b"y" * 600)
        _, body = await ask(client, method="GET", url=provider.url)
        assert body["body"] == "x" * 600 + "y" * 400
        assert (body["truncated"], body["truncated_at_bytes"]) == (True, 1000)
        provider.says(b"x" * 1000)
        _, body = await ask(client, method="GET", url=provider.url)
        assert (len(body["body"]), "truncated" in body) == (1000, False)
        provider.says(gzip.compress(b"packed"), headers=(("content-encoding", "gzip"),))
        _, body = await ask(client, method="GET", url=provider.url, header={"Accept-Encoding": "gzip"})
        assert body["body"] == "packed"
        provider.says(gzip.compress(b"z" * (10 << 20)), headers=(("content-encoding", "gzip"),))
        status, body = await ask(client, method="GET", url=provider.url)
        assert status == 502
        _, body = await ask(client, method="HEAD", url=f"{proxy.mock.url}/v1/models")
        assert (body["status_code"], body["body"]) == (401, "")


async def test_the_proxy_of_the_call_then_of_the_credential_then_the_global_one() -> None:
    """And ``direct`` past all of them; one that is wrong does not fall back."""
    async with scripted_provider() as target:
        port = httpx.URL(target.url).port
        assert port is not None
        async with open_http_proxy(port) as own, open_http_proxy(port) as shared, open_http_proxy(port) as one_off:
            extra = f"""
proxy-url: http://127.0.0.1:{shared.port}
claude-api-key:
  - {{api-key: {PROVIDER_KEY}, base-url: "{target.url}", proxy-url: "http://127.0.0.1:{own.port}"}}
gemini-api-key:
  - {{api-key: {PROVIDER_KEY}, base-url: "{target.url}"}}
"""
            config = EMPTY.replace("proxy-url: direct\n", "")
            with trio.fail_after(FAIL_S):
                async with (
                    running_proxy(config=config, extra=extra) as proxy,
                    proxy.client(key=MANAGEMENT_KEY) as client,
                ):
                    target.says(b"ok")
                    url = "http://a.test/x"
                    claude, gemini = index_of(proxy, "claude"), index_of(proxy, "gemini")
                    single = f"http://127.0.0.1:{one_off.port}"
                    for wish, via in (
                        ({"auth_index": claude}, own),
                        ({"auth_index": gemini}, shared),
                        ({"auth_index": claude, "proxy_url": single}, one_off),
                    ):
                        status, body = await ask(client, method="GET", url=url, **wish)
                        assert (status, body["body"]) == (200, "ok"), body
                        assert via.targets == [url]
                    for via in (own, shared, one_off):
                        via.targets.clear()
                    status, body = await ask(
                        client, method="GET", url=target.url, proxy_url="direct", auth_index=claude
                    )
                    assert (status, body["body"]) == (200, "ok")
                    one_off.refuse = True
                    status, body = await ask(client, method="GET", url=url, proxy_url=single)
                    assert (status, body["status_code"]) == (200, 403)
                    assert (await ask(client, method="GET", url=url, proxy_url="http://127.0.0.1:1"))[0] == 502
                    assert (own.targets, shared.targets) == ([], [])
                    assert proxy.app._clients.stats().proxied_requests == 0


async def test_sixty_seconds_and_a_client_that_leaves() -> None:
    """The connection to the provider ends with either."""
    async with calling() as (proxy, client, provider):
        assert proxy.app.state.outbound is not None
        assert proxy.app.state.outbound.timeout_s == 60
        provider.says(b"part", held=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, client, method="GET", url=provider.url))
            while not provider.requests:  # noqa: ASYNC110 - from outside there is nothing else to see
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        await provider.left.wait()
        provider.left = trio.Event()
        short = outbound.OutboundCalls(clients=proxy.app._clients, timeout_s=1)
        with pytest.raises(UpstreamTimeout):
            await short.send(outbound.OutboundCall(method="GET", url=provider.url))
        await provider.left.wait()


async def test_a_token_that_is_about_to_end_is_renewed_first() -> None:
    """A service account's lives shorter than the minute; the new one is sent."""
    async with google() as issuer, running() as run:
        issuer.life_s = 60
        run.write("v.json", **issuer.account())
        await run.until(lambda: issuer.issued == 1 and bool(run.credentials[0].api_key))
        wish = {"auth_index": run.credentials[0].index, "method": "GET", "url": f"{issuer.url}/x"}
        async with run.proxy.client(key=MANAGEMENT_KEY) as client:
            status, body = await ask(client, header={"Authorization": "Bearer $TOKEN$"}, **wish)
        assert (status, body["status_code"]) == (200, 200), body
        assert issuer.calls[-1] == "/x"


@pytest.mark.parametrize(
    ("members", "token"),
    [
        ({"api_key": "key"}, "key"),
        ({"metadata": {"access_token": " at "}}, "at"),
        ({"metadata": {"token": "plain"}}, "plain"),
        ({"metadata": {"token": {"access_token": "nested"}}}, "nested"),
        ({"metadata": {"token": {"other": 1}, "access_token": 5}}, ""),
        ({}, ""),
    ],
)
def test_where_tokens_are(members: dict[str, Any], token: str) -> None:
    """Keys first, then what plugins' files call a token."""
    assert token_of(Credential(id="x", provider="p", label="l", **members)) == token


async def test_nobody_without_the_key_and_nobody_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches whatever the proxy reaches."""
    async with calling() as (proxy, client, provider):
        wish = json.dumps({"method": "GET", "url": provider.url})
        async with proxy.client() as anybody:
            assert (await anybody.post(CALL, content=wish)).status_code == 401
        foreign = {"sec-fetch-site": "cross-site"}
        assert (await client.post(CALL, content=wish, headers=foreign)).status_code == 403
        monkeypatch.setattr("cpa.server.management.keys.is_loopback", lambda address: False)
        refused = await client.post(CALL, content=wish)
        assert (refused.status_code, refused.json()) == (403, {"error": "remote management disabled"})
        assert provider.requests == []
