"""Heads that are kept: they are what rendering anew would give, and the same whichever way they leave."""

import gc
import ssl
import weakref
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.credentials.model import Credential
from cpa.errors import CpaError, UnknownRoute, UpstreamConnectError
from cpa.testing.fakes import execution
from cpa.types import Operation, UpstreamCall, Wire
from cpa.upstream import heads as heads_module
from cpa.upstream.client import UpstreamClients
from cpa.upstream.dialects import COMPATIBLE, DIALECTS, Dialect
from cpa.upstream.heads import Head, Heads
from cpa.upstream.http1 import OutgoingRequest, encode_request
from cpa.upstream.proxies import EnvironmentProxies

ALL: Mapping[str, Dialect] = {**DIALECTS, "openai-compatible-x": COMPATIBLE}
CLIENTS = UpstreamClients(
    ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    connect_seconds=1,
    keepalive_idle_seconds=1,
    environment=EnvironmentProxies(),
)
"""Opens nothing."""
WITH_KEY = Credential(id="k", provider="p", label="k", api_key="sk-1", base_url="http://127.0.0.1:9/base")
CREDENTIALS = (
    WITH_KEY,
    Credential(id="n", provider="p", label="n", base_url="https://api.anthropic.com"),
    Credential(id="a", provider="p", label="a", api_key="sk-2", base_url="https://api.anthropic.com"),
    Credential(
        id="h",
        provider="p",
        label="h",
        api_key="sk-3",
        base_url="http://[::1]:8080/größe",
        headers={"X-Team": "größe", "X-Copy": "$X-Client", "User-Agent": "$User-Agent", "Host": "inner.test"},
    ),
    Credential(
        id="f",
        provider="p",
        label="f",
        api_key="sk-4",
        base_url="https://h.test/v1?x=1",
        headers={"Content-Length": "7", "Transfer-Encoding": "chunked", "Accept": "x/y"},
    ),
)


def make_call(credential: Credential = WITH_KEY, **changes: Any) -> UpstreamCall:
    call = UpstreamCall(
        credential=credential,
        execution=execution(),
        wire=Wire(input="openai", output="openai"),
        operation=Operation.GENERATE,
        model="m",
        stream=False,
        body=(b"{}",),
        client_headers=(),
    )
    return attrs.evolve(call, **changes)


def make_heads(dialect: Dialect = COMPATIBLE) -> Heads:
    return Heads(dialect, CLIENTS, "")


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"anthropic-version", b"anthropic-beta", b"user-agent", b"x-client", b"host", b"accept"]),
        st.sampled_from([b"", b"a", b"a b", b"\xff\xc3\xbc", b"x" * 5000]),
    ),
    max_size=4,
).map(tuple)
BODIES = st.lists(
    st.sampled_from([b"", b"{}", b'{"betas":["b-1","b-2"]}', b'{"x":"\\"betas\\""}', b"\xff", b"x" * 40_000]),
    max_size=2,
).map(tuple)
CALLS = st.builds(
    make_call,
    st.sampled_from(CREDENTIALS),
    operation=st.sampled_from(Operation),
    model=st.sampled_from(["m", "a/b c", "ü\r\n", "m" * 5000]),
    stream=st.booleans(),
    query=st.sampled_from([b"", b"alt=sse", b"$alt=json;a", b"key=secret"]),
    client_headers=HEADERS,
    body=BODIES,
)


def on_wire(outgoing: OutgoingRequest) -> bytes:
    assert outgoing.buffers is not None
    return b"".join((outgoing.head, *outgoing.buffers))


def sent(heads: Heads, call: UpstreamCall) -> tuple[bytes, str, object] | str:
    """What *call* becomes on the wire, or why it does not."""
    try:
        head, body = heads.of(call)
    except CpaError as exc:
        return f"{type(exc).__name__}: {exc}"
    straight = head.outgoing(body)
    assert on_wire(straight) == on_wire(encode_request(head.request(body)))
    assert straight.length == len(b"".join(body))
    assert on_wire(straight).split(b"\r\n\r\n", 1)[1] == b"".join(body)
    lines = straight.head.split(b"\r\n")[1:-2]
    assert lines == [b"%b: %b" % header for header in head.all_headers(len(b"".join(body)))]
    return on_wire(straight), head.url_text, head.origin


@given(st.sampled_from(sorted(ALL)), st.lists(CALLS, min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_kept_heads_are_what_rendering_anew_gives_and_both_ways_send_the_same(
    provider: str, calls: list[UpstreamCall]
) -> None:
    """Whatever was asked before: each call twice, against a memory that is empty."""
    kept = make_heads(ALL[provider])
    for call in (*calls, *calls):
        assert sent(kept, call) == sent(make_heads(ALL[provider]), call)


def test_heads_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = make_heads()
    first, _ = heads.of(make_call())
    assert heads.of(make_call(body=(b"x", b"y"), model="other"))[0] is first
    assert heads.of(make_call(stream=True))[0] is not first
    assert heads.of(make_call(attrs.evolve(WITH_KEY)))[0] is not first


@pytest.mark.parametrize("provider", ["claude", "gemini"])
def test_what_clients_say_is_kept_within_bounds(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_module, "MAX_HEADS", 3)
    heads = make_heads(ALL[provider])

    def head(number: int, size: int = 1) -> Head:
        text = f"{number}" * size
        return heads.of(make_call(model=text, client_headers=((b"user-agent", text.encode()),)))[0]

    made = [head(number) for number in range(3)]
    assert [head(number) for number in range(3)] == made
    assert head(3) is not made[0]
    assert head(0) is not made[0]
    assert head(9, 5000) is not head(9, 5000)


def test_names_that_a_body_moves_into_the_head_stay_with_that_body() -> None:
    heads = make_heads(DIALECTS["claude"])
    with_betas, body = heads.of(make_call(body=(b'{"betas":["b-1"],"a":1}',)))
    assert (dict(with_betas.headers)[b"anthropic-beta"], body) == (b"b-1", (b'{"a":1}',))
    plain, body = heads.of(make_call(body=(b'{"a":1}',)))
    assert b"anthropic-beta" not in dict(plain.headers)
    assert body == (b'{"a":1}',)


def test_refusals_are_not_kept() -> None:
    """A service account without a token, an operation that the provider lacks, a value that would end its line."""
    waiting = Credential(id="v", provider="vertex", label="v", project="p", location="global")
    heads = make_heads(DIALECTS["vertex"])
    for _ in range(2):
        with pytest.raises(CpaError, match="401"):
            heads.of(make_call(waiting))
        with pytest.raises(UnknownRoute):
            heads.of(make_call(operation=Operation.EMBED))
        with pytest.raises(CpaError, match="line break or NUL in the request header x-goog-api-key") as caught:
            heads.of(make_call(attrs.evolve(WITH_KEY, api_key="a\nb")))
        assert "a\nb" not in str(caught.value)
    assert heads.of(make_call(attrs.evolve(waiting, api_key="t")))[0].headers[-2] == (b"authorization", b"Bearer t")


@pytest.mark.parametrize("base_url", ["ftp://h.test", "http://", "https://ü..test"])
def test_addresses_that_cannot_be_called_are_connect_errors(base_url: str) -> None:
    for _ in range(2):
        with pytest.raises(UpstreamConnectError):
            make_heads().of(make_call(attrs.evolve(WITH_KEY, base_url=base_url)))


def test_reprs_show_no_secrets() -> None:
    credential = attrs.evolve(WITH_KEY, api_key="canary", base_url="http://h.test/canary")
    assert "canary" not in repr(make_heads().of(make_call(credential))[0])


def test_a_table_that_is_gone_keeps_no_credential() -> None:
    """Executors are made anew with each configuration; what theirs knew goes with them."""
    credential = attrs.evolve(WITH_KEY)
    heads = make_heads()
    heads.of(make_call(credential))
    seen = weakref.ref(credential)
    del credential, heads
    gc.collect()
    assert seen() is None
