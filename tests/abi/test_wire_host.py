"""Host calls: every example of the contract, both directions."""

import pytest

from cpa.abi import wire_host
from cpa.abi.codec import codec
from cpa.abi.envelope import decode_host_request, encode_host_reply
from cpa.abi.methods import HOST_METHODS, Method
from tests.abi.examples import HOST_REPLIES, HOST_REQUESTS, Example


def _name(example: Example) -> str:
    return f"{example.section}-{example.method.name}"


@pytest.mark.parametrize("example", HOST_REQUESTS, ids=_name)
def test_requests_are_understood(example: Example) -> None:
    """As plugins write them, and as we write them for fakes."""
    assert decode_host_request(example.method, example.text) == example.value
    written = codec(example.method.request).encode(example.value)
    assert decode_host_request(example.method, written) == example.value


@pytest.mark.parametrize("example", HOST_REPLIES, ids=_name)
def test_replies_are_written_exactly(example: Example) -> None:
    """Byte for byte."""
    assert encode_host_reply(example.method, example.value) == example.text


@pytest.mark.parametrize("method", HOST_METHODS.values(), ids=lambda method: method.name)
def test_zero_replies(method: Method[object, object]) -> None:
    """What is always there and what is left out (2.5 and chapter 5)."""
    texts = {
        "host.http.do": b'{"StatusCode":0,"Headers":null,"Body":null}',
        "host.http.do_stream": b'{"status_code":0,"stream_id":""}',
        "host.http.stream_read": b"{}",
        "host.model.execute": b'{"status_code":0,"headers":null,"body":null}',
        "host.model.execute_stream": b'{"status_code":0,"headers":null,"stream_id":""}',
        "host.model.stream_read": b'{"payload":null,"error":"","done":false}',
        "host.auth.list": b'{"files":[]}',
        "host.auth.get": b'{"auth_index":"","json":null}',
        "host.auth.get_runtime": b'{"auth":{"name":"",%b}}'
        % b",".join(
            b'"%b":"0001-01-01T00:00:00Z"' % name
            for name in (b"modtime", b"updated_at", b"created_at", b"last_refresh", b"next_retry_after")
        ),
        "host.auth.save": b'{"name":"","path":""}',
    }
    expected = b'{"ok":true,"result":%b}' % texts.get(method.name, b"{}")
    assert encode_host_reply(method, method.reply()) == expected


def test_nested_http_request_replaces_the_outer_one() -> None:
    """5.3: if present, all outer fields are ignored, the scope excepted."""
    outer = codec(wire_host.HostHttpRequest).read(
        b'{"method":"PUT","url":"a","body":"YQ==","host_callback_id":"1","request":{"url":"b","headers":{"A":["1"]}}}'
    )
    assert outer.effective() == wire_host.HostHttpRequest(method="GET", url="b", headers={"A": ["1"]}, scope_id="1")
    assert wire_host.HostHttpRequest(url="a").effective() == wire_host.HostHttpRequest(method="GET", url="a")
