"""Names and origins that browsers send along."""

import pytest

from cpa.server.management.guard import foreign_host, foreign_site, is_loopback
from cpa.server.routes import ClientHead


def head(method: str = "GET", peer: str = "127.0.0.1", **headers: str) -> ClientHead:
    raw = tuple((name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items())
    return ClientHead(method=method, path="/", headers=raw, peer=peer)


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_which_addresses_are_this_machine(address: str, ours: bool) -> None:
    """Names are none: they mean what somebody says."""
    assert is_loopback(address) is ours


@pytest.mark.parametrize(
    ("host", "foreign"),
    [
        ("localhost", False),
        ("localhost:8317", False),
        ("LOCALHOST.:8317", False),
        ("127.0.0.1:8317", False),
        ("127.0.0.2", False),
        ("[::1]:8317", False),
        ("proxy.example.org:8317", False),
        ("Proxy.Example.org", False),
        ("evil.example", True),
        ("evil.example:8317", True),
        ("127.0.0.1.evil.example", True),
        ("localhost.evil.example", True),
        ("xlocalhost", True),
        ("10.0.0.1", True),
        ("0.0.0.0:8317", True),
        ("localhost@evil.example", True),
        ("127.0.0.1:8317:80", True),
        ("[::1", True),
        ("local host", True),
        (":8317", True),
        ("é", True),
    ],
)
def test_names_that_a_client_of_this_machine_may_use(host: str, foreign: bool) -> None:
    """Its own, and the one that it listens on."""
    assert foreign_host(head(host=host), own_name="proxy.example.org") is foreign


def test_an_unset_name_is_nobodys() -> None:
    """An empty listening host means all addresses, not all names."""
    assert foreign_host(head(host=":80"), own_name="")
    assert not foreign_host(head(host="localhost"), own_name="")


def test_who_is_not_of_this_machine_and_who_says_nothing_are_not_asked() -> None:
    """The former are judged by the remote rule; browsers always say."""
    assert not foreign_host(head(peer="203.0.113.9", host="evil.example"), own_name="")
    assert not foreign_host(head(), own_name="")
    assert not foreign_host(head(host=""), own_name="")


def test_every_host_header_counts() -> None:
    """A second one must not hide behind the first."""
    two = ClientHead(
        method="GET", path="/", headers=((b"host", b"localhost"), (b"host", b"evil.example")), peer="127.0.0.1"
    )
    assert foreign_host(two, own_name="")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "CUSTOM"])
@pytest.mark.parametrize(
    ("origin", "foreign"),
    [
        ("http://localhost:8317", False),
        ("https://LOCALHOST:8317", False),
        ("http://localhost", True),
        ("http://localhost:3000", True),
        ("http://127.0.0.1:8317", True),
        ("https://evil.example", True),
        ("null", True),
        ("file://localhost:8317", True),
        ("localhost:8317", True),
    ],
)
def test_changes_come_from_our_own_pages_or_from_programs(method: str, origin: str, foreign: bool) -> None:
    """Host and port must be those that the browser believes to talk to."""
    assert foreign_site(head(method, host="localhost:8317", origin=origin)) is foreign
    assert not foreign_site(head(method, host="localhost:8317"))
    assert not foreign_site(head("GET", host="localhost:8317", origin=origin))


@pytest.mark.parametrize(
    ("site", "foreign"),
    [("cross-site", True), ("same-site", True), ("same-origin", False), ("none", False), ("", False)],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_browsers_say_of_the_asking_page_counts_for_every_method(method: str, site: str, foreign: bool) -> None:
    """Five images in a page of another site must not lock the operator out."""
    assert foreign_site(head(method, sec_fetch_site=site)) is foreign
