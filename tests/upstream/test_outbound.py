"""Operators' own calls: a proxy that only one of them uses is gone with it, however it ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from cpa.errors import UpstreamConnectError, UpstreamError, UpstreamTimeout
from cpa.upstream.client import UpstreamClients, open_clients
from cpa.upstream.outbound import InvalidHeader, InvalidProxy, InvalidUrl, OutboundCall, OutboundCalls
from cpa.upstream.proxied import ProxiedTransport
from tests.e2e.scripted import scripted_provider
from tests.upstream.proxies_fake import FakeProxy, open_http_proxy

FAIL_S = 60


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[ProxiedTransport]:
    """Transports to proxies that were closed."""
    found: list[ProxiedTransport] = []
    close = ProxiedTransport.aclose

    async def noted(transport: ProxiedTransport) -> None:
        await close(transport)
        found.append(transport)

    monkeypatch.setattr(ProxiedTransport, "aclose", noted)
    return found


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[UpstreamClients, FakeProxy, OutboundCall]]:
    """Clients, a proxy in front of a provider, and a call through it."""
    with trio.fail_after(FAIL_S):
        async with scripted_provider() as provider, open_clients() as clients:
            provider.says(b"ok")
            async with open_http_proxy(int(provider.url.rpartition(":")[2])) as proxy:
                call = OutboundCall(method="GET", url=provider.url, proxy_url=f"http://127.0.0.1:{proxy.port}")
                yield clients, proxy, call


async def test_a_proxy_for_one_call_is_closed_behind_it(closed: list[ProxiedTransport]) -> None:
    """Also when it refuses, when time is up, and when nobody waits any more."""
    async with proxied() as (clients, proxy, call):
        calls = OutboundCalls(clients=clients)
        reply = await calls.send(call)
        assert (reply.status, reply.body, len(closed)) == (200, b"ok", 1)
        proxy.garbage = True
        with pytest.raises(UpstreamError):
            await calls.send(call)
        assert len(closed) == 2
        proxy.garbage, proxy.stall = False, True
        with pytest.raises(UpstreamTimeout):
            await OutboundCalls(clients=clients, timeout_s=0.5).send(call)
        assert len(closed) == 3
        known = len(proxy.targets)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.send, call)
            while len(proxy.targets) == known:  # noqa: ASYNC110 - from outside there is nothing else to see
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert len(closed) == 4
        assert clients.stats().clients == 1


async def test_pooled_clients_stay(closed: list[ProxiedTransport]) -> None:
    """Of the configuration's proxies, and the direct one."""
    async with proxied() as (clients, proxy, call):
        calls = OutboundCalls(clients=clients)
        clients.client_for(call.proxy_url, "")
        assert (await calls.send(call)).body == b"ok"
        for direct in ("direct", "NONE"):
            other = OutboundCall(method="GET", url=call.url, proxy_url=direct, global_proxy="http://127.0.0.1:1")
            assert (await calls.send(other)).body == b"ok"
        assert len(proxy.targets) == 1
        assert closed == []


async def test_what_cannot_be_sent() -> None:
    """Before anything is opened; nothing that may be secret is repeated."""
    with trio.fail_after(FAIL_S):
        async with open_clients() as clients:
            calls = OutboundCalls(clients=clients)
            url = "http://127.0.0.1:1/"
            for call, error in (
                (OutboundCall(method="GET", url="secret"), InvalidUrl),
                (OutboundCall(method="GET", url="gopher://secret/"), InvalidUrl),
                (OutboundCall(method="GET", url=url, proxy_url="secret"), InvalidProxy),
                (OutboundCall(method="GET", url=url, headers=((b"a b", b"secret"),)), InvalidHeader),
                (OutboundCall(method="GET", url=url, headers=((b"a", b"secret\n"),)), InvalidHeader),
                (OutboundCall(method="GET", url=url, credential_proxy="secret"), UpstreamConnectError),
            ):
                with pytest.raises(error) as refused:
                    await calls.send(call)
                if error is not UpstreamConnectError:  # which names the setting, and its value without passwords
                    assert "secret" not in str(refused.value)
                assert "secret" not in repr(call)
