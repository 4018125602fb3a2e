"""TLS from the configuration: both protocols by ALPN, hostile handshakes, and key pairs that cannot be used."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
import trustme

from cpa.app import open_app
from cpa.config.load import parse_config
from cpa.errors import StartError
from cpa.server import listener
from cpa.starting import Options
from tests.server.h2_client import h2_client
from tests.server.wire import CHAT, CHAT_STREAM, FAIL_S, Serving, Wire, connect, head, post, serving


def write_pair(directory: Path, authority: trustme.CA) -> str:
    """A server's certificate and key in *directory*. Returns: the configuration that names them."""
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(directory / "cert.pem", append=number > 0)
    return f"tls: {{enable: true, cert: {directory / 'cert.pem'}, key: {directory / 'key.pem'}}}"


@asynccontextmanager
async def tls_proxy(directory: Path, *, extra: str = "") -> AsyncIterator[tuple[Serving, ssl.SSLContext]]:
    """A proxy with TLS, and the context of a client that trusts it."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with serving(extra=f"{write_pair(directory, authority)}\n{extra}") as proxy:
        yield proxy, context


@asynccontextmanager
async def connect_tls(
    proxy: Serving, context: ssl.SSLContext, *protocols: str
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """A connection that offers *protocols*."""
    context.set_alpn_protocols(list(protocols))
    where = urlsplit(proxy.url)
    assert where.port is not None
    plain = await trio.open_tcp_stream("127.0.0.1", where.port)
    stream = trio.SSLStream(plain, context, server_hostname="127.0.0.1", https_compatible=True)
    try:
        await stream.do_handshake()
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def test_http_1_1_over_tls(tmp_path: Path) -> None:
    """What SDKs use."""
    async with tls_proxy(tmp_path) as (proxy, context):
        assert proxy.url.startswith("https://")
        with trio.fail_after(FAIL_S):
            async with connect_tls(proxy, context, "http/1.1") as stream:
                wire = Wire(stream)
                await wire.send(post())
                assert (await wire.reply()).status == 200
                await wire.send(post(CHAT_STREAM))
                assert (await wire.reply()).body.endswith(b"data: [DONE]\n\n")
                await wire.send(post(headers=["connection: close"]))
                assert (await wire.reply()).status == 200
                assert await wire.rest() == b""
            await proxy.quiet()


async def test_h2_over_tls_by_alpn(tmp_path: Path) -> None:
    """Offered both, the server takes HTTP/2; one exchange given up leaves the others alone."""
    async with tls_proxy(tmp_path) as (proxy, context):
        with trio.fail_after(FAIL_S):
            async with connect_tls(proxy, context, "h2", "http/1.1") as stream:
                assert stream.selected_alpn_protocol() == "h2"
                async with h2_client(stream) as client:
                    orders = {"x-mock-first-byte": "600000"}
                    given_up = await client.request("POST", "/v1/chat/completions", body=CHAT, headers=orders)
                    await proxy.mock.wait_requests(1)
                    await client.reset(given_up)
                    await proxy.mock.requests[0].wait_closed_by_client()
                    stream_id = await client.request("POST", "/v1/chat/completions", body=CHAT_STREAM)
                    assert (await client.answer(stream_id)).body.endswith(b"data: [DONE]\n\n")
            await proxy.quiet()


async def test_leaving_over_tls_cancels_the_provider(tmp_path: Path) -> None:
    """Also when the client leaves without a closing alert."""
    async with tls_proxy(tmp_path) as (proxy, context):
        with trio.fail_after(FAIL_S):
            async with connect_tls(proxy, context, "http/1.1") as stream:
                await stream.send_all(post(headers=["x-mock-first-byte: 600000"]))
                await proxy.mock.wait_requests(1)
            left = trio.current_time()
            await proxy.mock.requests[0].wait_closed_by_client()
            assert trio.current_time() - left < 2
            await proxy.quiet()


async def test_plain_http_and_garbage_on_the_tls_port_harm_nobody(tmp_path: Path) -> None:
    """Scanners try everything."""
    async with tls_proxy(tmp_path) as (proxy, context):
        with trio.fail_after(FAIL_S):
            for data in (head("GET", "/healthz"), b"\x00" * 1000, b"\x16\x03\x01"):
                async with connect(proxy.url) as wire:
                    await wire.send(data)
                    if not data.startswith(b"\x16"):
                        await wire.rest()
            async with connect_tls(proxy, context, "http/1.1") as stream:
                wire = Wire(stream)
                await wire.send(head("GET", "/healthz"))
                assert (await wire.reply()).status == 200
            await proxy.quiet()


async def test_handshake_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that connects and says nothing holds a connection for that long and no longer."""
    monkeypatch.setattr(listener, "TLS_HANDSHAKE_S", 0.1)
    async with tls_proxy(tmp_path) as (proxy, _):
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                assert await wire.rest() == b""
            await proxy.quiet()


async def test_half_a_head_over_tls_is_answered_408(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline holds on every kind of connection."""
    monkeypatch.setattr(listener, "SWEEP_S", 0.02)
    async with tls_proxy(tmp_path, extra="limits: {header-seconds: 0.1}") as (proxy, context):
        with trio.fail_after(FAIL_S):
            async with connect_tls(proxy, context, "http/1.1") as stream:
                wire = Wire(stream)
                await wire.send(b"GET /healthz HTT")
                assert (await wire.reply()).status == 408
            await proxy.quiet()


@pytest.mark.parametrize("broken", ["no certificate", "no key", "not PEM", "another key"])
async def test_unusable_pair_is_fatal_at_start_and_named(tmp_path: Path, broken: str) -> None:
    """An operator who reads ``PEM lib (_ssl.c:3900)`` does not know which file is meant."""
    config = write_pair(tmp_path, trustme.CA())
    match broken:
        case "no certificate":
            (tmp_path / "cert.pem").unlink()
        case "no key":
            (tmp_path / "key.pem").unlink()
        case "not PEM":
            (tmp_path / "cert.pem").write_text("hello")
        case "another key":
            trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(tmp_path / "key.pem")
    with pytest.raises(StartError) as caught:
        async with open_app(parse_config(config, file="test.yaml"), options=Options(port=0)):
            pytest.fail("it started")
    assert str(tmp_path / "cert.pem") in str(caught.value)
    assert str(tmp_path / "key.pem") in str(caught.value)
