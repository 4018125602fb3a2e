"""Who asks, behind proxies."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from cpa.server.peers import UNKNOWN, client_of
from tests.proxy import running_proxy
from tests.server.wire import FAIL_S

TRUSTED = ("127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("203.0.113.9", ["127.0.0.1"], "203.0.113.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9", "10.1.2.3"], "203.0.113.9"),
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["203.0.113.9:1234"], "203.0.113.9"),
        ("127.0.0.1", ["[2001:db9::1]:443"], "2001:db9::1"),
        ("2001:db8::7", ["2001:db9::1"], "2001:db9::1"),
        ("::ffff:127.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["127.0.0.1, nonsense"], UNKNOWN),
        ("127.0.0.1", [""], UNKNOWN),
        ("127.0.0.1", ["127.0.0.1, "], UNKNOWN),
    ],
)
def test_the_client_is_the_last_one_that_nobody_trusts(peer: str, values: list[str], client: str) -> None:
    """Whatever stands before it in the header was said by strangers."""
    headers = [(b"x-forwarded-for", value.encode()) for value in values]
    expected = peer if values == [""] else client  # an empty header names nobody
    assert client_of(peer, headers, TRUSTED) == expected


@given(st.binary(max_size=60))
def test_nobody_becomes_local_by_what_it_says(value: bytes) -> None:
    """Behind a trusted proxy that adds the address it saw."""
    headers = [(b"x-forwarded-for", value + b", 203.0.113.9")]
    assert client_of("127.0.0.1", headers, TRUSTED) == "203.0.113.9"
    assert client_of("203.0.113.9", [(b"x-forwarded-for", value)], TRUSTED) == "203.0.113.9"
    assert client_of("127.0.0.1", [(b"x-forwarded-for", value)], ()) == "127.0.0.1"


@pytest.mark.parametrize("trusted", [True, False])
async def test_management_and_metrics_are_local_only_for_those_who_are(trusted: bool) -> None:
    """Without trusted proxies the header says nothing."""
    extra = "remote-management: {secret-key: manage}\nmetrics: {enabled: true}\n"
    extra += "trusted-proxies: [127.0.0.1]\n" * trusted
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=extra) as proxy, proxy.client(key="manage") as client:
            remote = {"x-forwarded-for": "203.0.113.9"}
            for path, refused in (("/v0/management/plugins", 403), ("/metrics", 404)):
                assert (await client.get(path)).status_code == 200
                assert (await client.get(path, headers=remote)).status_code == (refused if trusted else 200), path
