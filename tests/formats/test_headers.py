"""Header names as Go writes them, merging, and what clients may see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.formats.headers import canonical, filter_response, merge, to_map, to_raw


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("content-type", "Content-Type"),
        ("CONTENT-TYPE", "Content-Type"),
        ("x-CPA-trace-ID", "X-Cpa-Trace-Id"),
        ("te", "Te"),
        ("x-3d-a1b", "X-3d-A1b"),
        ("a.b-c_d", "A.b-C_d"),
        ("x--y-", "X--Y-"),
        ("", ""),
        ("bad name", "bad name"),
        ("bad:name", "bad:name"),
        ("naïve", "naïve"),
    ],
)
def test_names_are_canonicalised_as_in_go(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_maps_keep_order_and_repeats() -> None:
    raw = ((b"x-b", b"1"), (b"x-a", "é".encode()), (b"x-b", b"2"), (b"x-c", b"\xe9"))
    headers = to_map(raw)
    assert headers == {"X-B": ["1", "2"], "X-A": ["é"], "X-C": ["é"]}
    assert to_raw(headers) == (
        (b"x-b", b"1"),
        (b"x-b", b"2"),
        (b"x-a", "é".encode()),
        (b"x-c", "é".encode()),
    )


def test_a_plugin_cannot_smuggle_headers() -> None:
    assert to_raw({"X-A": ["1\r\nset-cookie: x"], "bad name": ["1"], "X-B": []}) == ((b"x-a", b"1  set-cookie: x"),)


def test_merging_clears_first_and_then_replaces() -> None:
    current = {"X-Keep": ["1"], "X-Gone": ["1"], "X-New": ["old", "old2"], "X-Empty": ["1"]}
    merged = merge(
        current,
        clear=["x-gone", "x-new"],
        replace={"x-new": ["a", "b"], "x-empty": [], "X-NULL": None, "x-gone": ["2"]},
    )
    assert merged == {"X-Keep": ["1"], "X-New": ["a", "b"], "X-Gone": ["2"]}
    assert current["X-New"] == ["old", "old2"]


REMOVED = [
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "x-listed", "set-cookie", "content-length", "content-encoding", "access-control-allow-origin",
    "access-control-allow-credentials", "access-control-max-age", "x-cpa-trace-id", "x-litellm-key", "helicone-id",
    "x-portkey-a", "cf-aig-b", "x-kong-c", "x-bt-d", "date", "x-accel-buffering",
]  # fmt: skip


@pytest.mark.parametrize("name", REMOVED)
def test_headers_of_the_connection_and_of_gateways_are_removed(name: str) -> None:
    listing = (b"connection", b"close, X-Listed")
    raw = ((b"x-keep", b"1"), (name.encode(), b"close, x-listed"), listing, (b"retry-after", b"3"))
    assert filter_response(raw) == ((b"x-keep", b"1"), (b"retry-after", b"3"))


@given(st.lists(st.tuples(st.binary(max_size=10), st.binary(max_size=10)), max_size=5))
def test_any_headers_survive(raw: list[tuple[bytes, bytes]]) -> None:
    assert set(filter_response(raw)) <= set(raw)
    for name, value in to_raw(to_map(raw)):
        assert name == name.lower()
        assert not set(b"\r\n\0") & set(value)
