"""The event splitter, cut everywhere; and the reading of one event."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import UpstreamProtocolError
from cpa.formats.sse import (
    EventSplitter,
    SseEvent,
    event_data,
    event_name,
    is_bare_json,
    named_data,
    parse_event,
    split_events,
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """*stream* cut at *places* (any order, any size)."""
    bounds = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(bounds)]


def run(splitter: EventSplitter, chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    """The events of all chunks, and the rest."""
    events = [event for chunk in chunks for event in split_events(splitter.feed(chunk))]
    return events, splitter.take_tail()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_end_at_blank_lines(end: bytes) -> None:
    first, second = b"event: a" + end + b"data: 1" + end * 2, b"data: 2" + end * 2
    stream = first + second + b"data: 3"
    assert run(EventSplitter(), [stream]) == ([first, second], b"data: 3")
    assert run(EventSplitter(), [stream[i : i + 1] for i in range(len(stream))]) == ([first, second], b"data: 3")


def test_a_chunk_of_whole_events_is_not_copied() -> None:
    splitter = EventSplitter()
    for chunk in (b"data: 1\n\n", b"data: 1\n\ndata: 2\n\n", b"data: 1\r\n\r\n", b"data: 1\r\r"):
        assert splitter.feed(chunk) is chunk


def test_cr_lf_is_one_line_end() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\r\ndata: 2\r") == b""
    assert splitter.feed(b"\ndata: 3\r\n\r") == b""
    assert splitter.feed(b"\n") == b"data: 1\r\ndata: 2\r\ndata: 3\r\n\r\n"
    assert splitter.take_tail() == b""


def test_a_stream_of_cr_alone_does_not_wait() -> None:
    assert EventSplitter().feed(b"data: 1\r\r") == b"data: 1\r\r"


def test_an_event_over_the_limit_is_an_error() -> None:
    splitter = EventSplitter(max_event_bytes=10)
    assert splitter.feed(b"data: 1234\n\n" * 3) == b"data: 1234\n\n" * 3
    splitter.feed(b"data: 1234")
    with pytest.raises(UpstreamProtocolError, match="more than 10 bytes"):
        splitter.feed(b"5")
    assert splitter.take_tail() == b""


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"data: x", b"event: y", b": c", b"\xff", b""]), max_size=25),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_no_byte_is_lost_however_a_stream_is_cut(pieces: list[bytes], places: list[int]) -> None:
    stream = b"".join(pieces)
    splitter = EventSplitter()
    blocks = [splitter.feed(chunk) for chunk in cut(stream, places)]
    assert b"".join(blocks) + splitter.take_tail() == stream
    for block in blocks:
        assert b"".join(split_events(block)) == block


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.sampled_from([b"data: x", b"event: y", b": c", b"", b"", b"id: 1"]), max_size=25),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_any_cut_gives_the_same_events(end: bytes, lines: list[bytes], places: list[int]) -> None:
    stream = b"".join(line + end for line in lines)
    told = [event for event in run(EventSplitter(), [stream])[0] if event.strip()]
    cut_up = [event for event in run(EventSplitter(), cut(stream, places))[0] if event.strip()]
    assert [parse_event(event) for event in cut_up] == [parse_event(event) for event in told]


EVENTS = [
    (b"data: 1\n\n", SseEvent(data=b"1")),
    (b"data:1\n\n", SseEvent(data=b"1")),
    (b"data:  1\n\n", SseEvent(data=b" 1")),
    (b"data\n\n", SseEvent(data=b"")),
    (b"data: a\ndata: b\n\n", SseEvent(data=b"a\nb")),
    (b"data: a\rdata: b\r\n\n", SseEvent(data=b"a\nb")),
    (b"event: x\r\nid: 7\r\nretry: 10\r\ndata: {}\r\n\r\n", SseEvent(event="x", id="7", retry=10, data=b"{}")),
    (b": one\n:two\n\n", SseEvent(comment=b"one\ntwo")),
    (b": c\ndata: 1\n\n", SseEvent(comment=b"c", data=b"1")),
    (b"\xef\xbb\xbfdata: 1\n\n", SseEvent(data=b"1")),
    (b'{"error": {\n  "a": 1}}\n\n', SseEvent(data=b'{"error": {\n  "a": 1}}')),
    (b"event: x\n\n", SseEvent(event="x")),
    (b"id: 1\ndata: d: e\n\n", SseEvent(id="1", data=b"d: e")),
    (b"retry: soon\nfoo: bar\nmydata: 1\n\n", SseEvent()),
    (b"\n", SseEvent()),
    (b"data: cut", SseEvent(data=b"cut")),
    (b"event: x\ndata: cut", SseEvent(event="x", data=b"cut")),
    (b"event: x\ndata: 1\n\n", SseEvent(event="x", data=b"1")),
    (b"event: \xff\ndata: \xff\n\n", SseEvent(event="\ufffd", data=b"\xff")),
    (b"event: x\nevent: y\ndata: 1\n\n", SseEvent(event="y", data=b"1")),
    (b"event: x\nevent\ndata: 1\n\n", SseEvent(event="", data=b"1")),
    (b"data: 1\nevent: x\n\n", SseEvent(event="x", data=b"1")),
    (b"data: an event: x\n\n", SseEvent(data=b"an event: x")),
    (b"event: x\ndata: " + b"y" * 5000 + b"\n\n", SseEvent(event="x", data=b"y" * 5000)),
]


@pytest.mark.parametrize(("event", "expected"), EVENTS)
def test_one_event_is_read(event: bytes, expected: SseEvent) -> None:
    assert parse_event(event) == expected
    assert event_data(event) == expected.data
    assert event_name(event) == expected.event
    assert named_data(event) == (expected.event, expected.data)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=40)
    | st.lists(
        st.sampled_from([b"data: ", b"data:", b"\n", b"\r", b"event: ", b"event", b"id: ", b"x", b"{", b" "]),
        max_size=12,
    ).map(b"".join)
)
def test_the_quick_ways_to_data_and_name_agree_with_the_whole(event: bytes) -> None:
    for single in split_events(event):
        whole = parse_event(single)
        assert event_data(single) == whole.data
        assert named_data(single) == (event_name(single), event_data(single)) == (whole.event, whole.data)


def test_bare_json_is_told_from_events() -> None:
    assert is_bare_json(b'{"error":1}\n')
    assert is_bare_json(b"\xef\xbb\xbf[1]")
    assert not is_bare_json(b"data: {}")
    assert not is_bare_json(b"<html>")
