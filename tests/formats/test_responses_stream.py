"""The Responses framer: checking, separating, repairing, ending."""

import json

import pytest

from cpa.errors import UpstreamProtocolError
from cpa.formats.names import Format
from cpa.formats.responses_stream import TERMINAL, ResponsesReader, separate
from cpa.formats.sse import parse_event, split_events


def frame(kind: str, **members: object) -> bytes:
    """One Responses event."""
    payload = json.dumps({"type": kind, **members}, separators=(",", ":"))
    return f"event: {kind}\ndata: {payload}\n\n".encode()


def bare(kind: str, **members: object) -> bytes:
    """The same without its `event:` line."""
    return frame(kind, **members).partition(b"\n")[2]


CREATED = frame("response.created", sequence_number=0, response={"id": "r", "error": None, "output": []})
DELTA = frame("response.output_text.delta", sequence_number=1, item_id="m", delta='"error" response.failed')
ITEM = frame("response.output_item.done", sequence_number=2, output_index=0, item={"id": "m", "type": "message"})
COMPLETED = frame(
    "response.completed", sequence_number=3, response={"id": "r", "error": None, "output": [{"id": "m"}], "usage": None}
)
STREAM = CREATED + DELTA + ITEM + COMPLETED

LIMIT = {"code": "rate_limit_x", "message": "m"}
UNSAID = "upstream reported an error without a message"


def run(*chunks: bytes, fmt: Format = Format.CODEX) -> tuple[bytes, ResponsesReader]:
    """What the client gets, and the reader."""
    reader = ResponsesReader(fmt)
    out = b"".join(reader.feed(chunk) for chunk in chunks) + reader.finish()
    return out, reader


def both(stream: bytes) -> bytes:
    """What the client gets, in one piece and byte by byte alike."""
    whole, _ = run(stream)
    assert run(*(stream[i : i + 1] for i in range(len(stream))))[0] == whole
    return whole


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_good_stream_passes_byte_for_byte(end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    assert both(stream) == stream
    data_only = b"".join(event.partition(b"\n")[2] for event in split_events(STREAM)).replace(b"\n", end)
    assert both(data_only) == data_only


def test_whole_chunks_are_handed_on_as_they_are() -> None:
    reader = ResponsesReader(Format.OPENAI_RESPONSE)
    for chunk in (CREATED, DELTA, DELTA * 3, ITEM):
        assert reader.feed(chunk) is chunk
    assert (reader.terminal, reader.done, reader.next_sequence()) == (False, False, 3)
    assert reader.feed(COMPLETED) is COMPLETED
    assert (reader.terminal, reader.done, reader.next_sequence()) == (True, True, 4)


def test_events_without_blank_lines_are_separated() -> None:
    joined = b"".join(event.rstrip() + b"\n" for event in split_events(STREAM))
    assert both(joined) == STREAM
    data_lines = b"".join(event.partition(b"\n")[2].rstrip() + b"\n" for event in split_events(STREAM))
    assert both(data_lines) == b"".join(event.partition(b"\n")[2] for event in split_events(STREAM))


def test_an_unseparated_event_does_not_wait_for_the_end() -> None:
    reader = ResponsesReader(Format.CODEX)
    first = bare("response.created", response={"id": "r"})
    assert reader.feed(first.rstrip() + b"\n") == b""
    assert reader.feed(bare("response.output_text.delta", delta="x").rstrip()) == first


def test_data_over_several_lines_stays_one_event() -> None:
    event = b'data: {"type":\ndata: "response.created"}\n\n'
    assert both(event + COMPLETED) == event + COMPLETED
    assert separate(event) == [event]
    assert separate(b"data: 1\nid: 7\n\n") == [b"data: 1\nid: 7\n\n"]


@pytest.mark.parametrize(
    "bad", [b"data: {\n\n", b"data: hello\n\n", b'event: x\ndata: {"a":1}}\n\n', b"data: \xff\n\n"]
)
def test_data_that_is_not_json_ends_the_stream(bad: bytes) -> None:
    """What came before is still delivered."""
    reader = ResponsesReader(Format.OPENAI_RESPONSE)
    assert reader.feed(CREATED + bad + COMPLETED) == CREATED
    with pytest.raises(UpstreamProtocolError, match="not valid JSON") as caught:
        reader.feed(COMPLETED)
    assert caught.value.http_status == 502
    with pytest.raises(UpstreamProtocolError, match="not valid JSON"):
        reader.finish()
    with pytest.raises(UpstreamProtocolError, match="not valid JSON"):
        ResponsesReader(Format.OPENAI_RESPONSE).feed(bad)


def test_json_that_strict_decoders_refuse_is_json() -> None:
    odd = b'data: {"type":"response.output_text.delta","delta":"\\ud83d"}\n\n'
    untyped = b"data: [1]\n\ndata: 5\n\n" + b'data: {"type":5}\n\n'
    assert both(CREATED + odd + untyped + COMPLETED) == CREATED + odd + untyped + COMPLETED


@pytest.mark.parametrize("kind", sorted(TERMINAL - {"error", "response.error", "response.failed"}))
def test_nothing_follows_a_terminal_event(kind: str) -> None:
    last = frame(kind, response={"output": [{"id": "m"}]})
    out, reader = run(CREATED + last + DELTA + b"data: nonsense\n\n", b"data: more nonsense\n\n")
    assert out == CREATED + last
    assert reader.terminal
    assert reader.fault is None


@pytest.mark.parametrize(
    ("event", "status", "code", "message"),
    [
        (frame("response.failed", response={"error": LIMIT}), 429, "rate_limit_x", "m"),
        (frame("error", code="server_error", message="m", sequence_number=4), 502, "server_error", "m"),
        (frame("response.error", error={"message": "m", "status": 503}), 503, "", "m"),
        (b'data: {"error":{"message":"m","code":"overloaded"}}\n\n', 529, "overloaded", "m"),
        (b'event: error\ndata: {"detail":"m"}\n\n', 502, "", "m"),
        (b'data: {"code":"x","message":"m"}\n\n', 502, "x", "m"),
        (frame("response.failed", response={"status_code": 500}), 500, "", UNSAID),
    ],
)  # fmt: skip
def test_errors_inside_the_stream_are_faults(event: bytes, status: int, code: str, message: str) -> None:
    for chunks in ((CREATED + event + COMPLETED,), tuple(bytes([b]) for b in CREATED + event)):
        out, reader = run(*chunks)
        assert out == CREATED
        fault = reader.fault
        assert fault is not None
        assert (fault.status, fault.code, fault.message, fault.frame) == (status, code, message, event)
        assert isinstance(json.loads(fault.body)["error"], dict)


def test_the_body_of_a_failed_response_is_its_error() -> None:
    event = frame("response.failed", response={"error": {"code": "invalid_prompt", "message": "m", "x": 1}})
    _, reader = run(CREATED + event)
    assert reader.fault is not None
    assert reader.fault.status == 400
    assert json.loads(reader.fault.body) == {"error": {"code": "invalid_prompt", "message": "m", "x": 1}}


# --- the final answer ---


def item(index: int | None, name: str) -> bytes:
    """A finished item, with or without its place."""
    place = {} if index is None else {"output_index": index}
    return frame("response.output_item.done", item={"id": name, "n": 0}, **place)


@pytest.mark.parametrize("empty", ['"output": []', '"output":[ ]', '"output":null', '"x":1'])
@pytest.mark.parametrize("kind", ["response.completed", "response.done"])
def test_an_empty_answer_is_filled_from_its_items(empty: str, kind: str) -> None:
    """By place, then those without one in order of arrival; a repeated place counts once."""
    last = f'event: {kind}\ndata: {{"type":"{kind}","big":12345678901234567890123,"response":{{"id":"r",{empty}}}}}\n\n'
    items = item(None, "u1") + item(2, "c") + item(0, "old") + item(None, "u2") + item(0, "a")
    out = both(CREATED + items + last.encode())
    assert out.startswith(CREATED + items)
    final = parse_event(out[len(CREATED + items) :])
    assert final.event == kind
    assert final.data is not None
    assert b'"big":12345678901234567890123' in final.data
    payload = json.loads(final.data)
    assert [entry["id"] for entry in payload["response"]["output"]] == ["a", "c", "u1", "u2"]
    assert payload["response"]["id"] == "r"


def test_an_answer_is_repaired_only_when_it_must() -> None:
    empty = frame("response.completed", response={"output": []})
    assert both(CREATED + empty) == CREATED + empty
    incomplete = frame("response.incomplete", response={"output": []})
    assert both(ITEM + incomplete) == ITEM + incomplete
    odd = frame("response.completed", response="nothing")
    assert both(ITEM + odd) == ITEM + odd


def test_items_are_not_kept_without_limit() -> None:
    reader = ResponsesReader(Format.CODEX, max_event_bytes=400)
    for number in range(20):
        reader.feed(item(number, "x" * 50))
    last = frame("response.completed", response={"output": []})
    assert reader.feed(last) is last


# --- the end ---


def test_an_empty_stream_is_an_error() -> None:
    for chunks in ((), (b": c\n\n",), (b"data: [DONE]\n\n",), (CREATED[:-9],)):
        with pytest.raises(UpstreamProtocolError) as caught:
            run(*chunks)
        assert caught.value.message == "upstream stream closed before first payload"
        assert caught.value.code == "empty_stream"


@pytest.mark.parametrize(
    ("stream", "last"),
    [
        (CREATED, "response.created"),
        (CREATED + DELTA + b": c\n\n", "response.output_text.delta"),
        (CREATED + DELTA + COMPLETED[:-20], "response.output_text.delta"),
        (CREATED + b"event: odd\ndata: 1\n\n", "odd"),
        (CREATED + b"data: 1\n\n", "unknown"),
    ],
)
def test_a_stream_that_stops_early_is_an_error(stream: bytes, last: str) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        run(stream)
    assert caught.value.message == f"upstream stream closed before a terminal event (last event: {last})"


def test_the_last_event_needs_no_blank_line() -> None:
    assert both(STREAM.rstrip()) == STREAM
    assert both(STREAM[:-1]) == STREAM


def test_done_and_comments_mean_nothing() -> None:
    assert both(b": c\n\n" + CREATED + b": d\n\n" + COMPLETED) == b": c\n\n" + CREATED + b": d\n\n" + COMPLETED
    without = [line for line in both(CREATED + b"data: [DONE]\n\n" + COMPLETED).splitlines() if line]
    assert without == [line for line in (CREATED + COMPLETED).splitlines() if line]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (frame("x", sequence_number=41), 42),
        (frame("x"), 0),
        (frame("x", sequence_number="7"), 0),
        (frame("x", sequence_number=-1), 0),
        (b"data: 1\n\n", 0),
    ],
)
def test_the_sequence_continues(last: bytes, expected: int) -> None:
    reader = ResponsesReader(Format.CODEX)
    assert reader.next_sequence() == 0
    reader.feed(CREATED + last)
    assert reader.next_sequence() == expected
