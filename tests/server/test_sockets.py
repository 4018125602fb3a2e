"""Listening sockets, bound here or inherited, and where they say they are."""

import socket

import pytest
import trio

from cpa.config.schema import Config
from cpa.server.sockets import address_of, inherited_listeners, listen_addresses, open_listeners
from tests.server.wire import FAIL_S


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:{}"), ("::1", "http://[::1]:{}")])
async def test_addresses_are_urls(host: str, url: str) -> None:
    """What is announced can be pasted into a client, IPv6 too."""
    with trio.fail_after(FAIL_S):
        try:
            [listener] = await open_listeners(Config(), host=host, port=0)
        except OSError:
            pytest.skip(f"no {host} on this machine")
        async with listener:
            bound, port = address_of(listener)
            assert bound == host
            assert listen_addresses([listener], tls=False) == (url.format(port),)
            assert listen_addresses([listener], tls=True) == (url.format(port).replace("http", "https"),)


async def test_inherited_sockets_accept() -> None:
    """A worker serves on what its supervisor bound."""
    with trio.fail_after(FAIL_S):
        bound = socket.create_server(("127.0.0.1", 0))
        [listener] = inherited_listeners(Config(), [bound.detach()])
        async with (
            listener,
            await trio.open_tcp_stream(*address_of(listener)) as client,
            await listener.accept() as peer,
        ):
            await client.send_all(b"hello")
            assert await peer.receive_some() == b"hello"
