"""Readers of Chat, Claude and Gemini streams, and the frames that the proxy adds itself."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import UpstreamConnectError, UpstreamProtocolError, UpstreamStatusError
from cpa.formats.errors import WireError
from cpa.formats.names import Format
from cpa.formats.sse import parse_event
from cpa.formats.streams import FrameContext, StreamReader, error_frames, keepalive_frame, open_reader


def frame(value: object, event: str = "") -> bytes:
    """One event with compact JSON."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def chat(text: str = "", finish: str | None = None) -> bytes:
    """One Chat chunk."""
    return frame(
        {
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
        }
    )


def claude(kind: str, **members: object) -> bytes:
    """One Claude event."""
    return frame({"type": kind, **members}, kind)


def gemini(text: str, finish: str | None = None) -> bytes:
    """One Gemini chunk."""
    candidate: dict[str, object] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return frame({"candidates": [candidate]})


DONE = b"data: [DONE]\n\n"
USAGE = frame({"choices": [], "usage": {"total_tokens": 3}})
TRICKY = (
    'say "error" or {"error":{"message":"x"}} [DONE] message_stop "finish_reason":"stop" event: error '
    '"finishReason":"STOP"'
)

CHAT = chat("a") + chat(TRICKY) + chat("", "stop") + USAGE + DONE
CLAUDE = (
    claude("message_start", message={"id": "m", "content": []})
    + claude("ping")
    + claude("content_block_delta", index=0, delta={"type": "text_delta", "text": TRICKY})
    + claude("message_delta", delta={"stop_reason": "end_turn"})
    + claude("message_stop")
)
GEMINI = gemini("a") + gemini(TRICKY) + gemini("", "STOP") + frame({"usageMetadata": {"totalTokenCount": 3}})
STREAMS = {Format.OPENAI: CHAT, Format.CLAUDE: CLAUDE, Format.GEMINI: GEMINI}
FORMATS = list(STREAMS)


def run(reader: StreamReader, *chunks: bytes) -> bytes:
    """Everything the client gets."""
    out = b"".join(reader.feed(chunk) for chunk in chunks)
    return out + reader.finish()


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_good_stream_passes_byte_for_byte(fmt: Format, end: bytes) -> None:
    """Also when its text looks like errors and ends."""
    stream = STREAMS[fmt].replace(b"\n", end)
    whole, single = open_reader(fmt), open_reader(fmt)
    assert run(whole, stream) == stream
    assert run(single, *(stream[i : i + 1] for i in range(len(stream)))) == stream
    for reader in (whole, single):
        assert reader.terminal
        assert reader.fault is None


@pytest.mark.parametrize("fmt", FORMATS)
def test_whole_chunks_are_handed_on_as_they_are(fmt: Format) -> None:
    """No copy on the hot path, neither for plain chunks nor for those that had to be looked into."""
    reader = open_reader(fmt)
    plain = {Format.OPENAI: chat("x"), Format.CLAUDE: claude("ping"), Format.GEMINI: gemini("x")}[fmt]
    looked_into = plain.replace(b"x", b'an error\\" in text')
    for chunk in (plain, plain, plain * 3, looked_into, looked_into * 2):
        assert reader.feed(chunk) is chunk
    assert not reader.terminal


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_empty_stream_is_an_error(fmt: Format) -> None:
    for chunks in ((), (b": waiting\n\n",), (b"\n",), (b"<html>busy</html>\n\n",), (b"data:\n\n",)):
        with pytest.raises(UpstreamProtocolError, match="closed before first payload") as caught:
            run(open_reader(fmt), *chunks)
        assert caught.value.code == "empty_stream"
        assert caught.value.http_status == 502


@pytest.mark.parametrize(
    ("fmt", "chunks", "last"),
    [
        (Format.OPENAI, (chat("a"), chat("b")), "data"),
        (Format.OPENAI, (chat("a"), b": c\n\n"), "data"),
        (Format.CLAUDE, (claude("message_start"), claude("ping")), "ping"),
        (
            Format.CLAUDE,
            (claude("message_start") + claude("message_delta"), claude("message_stop")[:-9]),
            "message_delta",
        ),
        (Format.GEMINI, (gemini("a"),), "data"),
        (Format.OPENAI, (chat("a"), chat("", "")), "data"),
    ],
)
def test_a_stream_that_stops_early_is_an_error(fmt: Format, chunks: tuple[bytes, ...], last: str) -> None:
    """Agents would act on half a plan if it ended well."""
    with pytest.raises(UpstreamProtocolError) as caught:
        run(open_reader(fmt), *chunks)
    assert caught.value.message == f"upstream stream closed before a terminal event (last event: {last})"


def test_chat_needs_a_finish_reason_or_done() -> None:
    finished = chat("a") + chat("", "stop") + USAGE
    assert run(open_reader(Format.OPENAI), finished) == finished + DONE
    assert run(open_reader(Format.OPENAI), chat("a") + DONE) == chat("a") + DONE
    spaced = b'data: {"choices": [{"delta": {}, "finish_reason" : "length"}]}\n\n'
    assert run(open_reader(Format.OPENAI), chat("a"), spaced) == chat("a") + spaced + DONE


@pytest.mark.parametrize("rest", [b"", USAGE[:-10], b"data: [DO", b"\n"])
def test_a_complete_answer_ends_well_however_the_connection_ended(rest: bytes) -> None:
    """After the finish reason only the end mark is missing; `finish` gives it also after a broken connection."""
    reader = open_reader(Format.OPENAI)
    out = reader.feed(chat("a") + chat("", "stop") + rest)
    assert (reader.terminal, reader.done) == (True, False)
    assert (out + reader.finish()).replace(b"\n\n\n", b"\n\n") == chat("a") + chat("", "stop") + DONE
    assert reader.done
    assert reader.finish() == b""
    for fmt, stream in ((Format.GEMINI, gemini("a", "STOP")), (Format.CLAUDE, CLAUDE)):
        reader = open_reader(fmt)
        assert reader.feed(stream) == stream
        assert reader.terminal
        assert reader.finish() == b""


ROLE = frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
AZURE = frame({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
NULLS = frame({"choices": [{"delta": {"role": "assistant", "content": None, "refusal": None, "tool_calls": []}}]})
CALL = frame({"choices": [{"delta": {"role": "assistant", "tool_calls": [{"index": 0, "id": "c"}]}}]})
RESPONSE = [
    frame({"type": f"response.{kind}", "response": {"id": "r", "error": None}}, f"response.{kind}")
    for kind in ("created", "queued", "in_progress")
]
BEGINNINGS: list[tuple[Format, list[bytes], bytes]] = [
    (Format.OPENAI, [b": c\n\n", ROLE, AZURE, NULLS, chat("")], chat("x")),
    (Format.OPENAI, [], CALL),
    (Format.OPENAI, [ROLE], chat("", "stop")),
    (Format.OPENAI, [], b"data: text\n\n"),
    (Format.CLAUDE, [claude("message_start", message={"id": "m"}), claude("ping")], claude("content_block_start")),
    (Format.CLAUDE, [], claude("message_delta")),
    (Format.GEMINI, [b"\n"], gemini("")),
    (Format.OPENAI_RESPONSE, [b": c\n\n", *RESPONSE], frame({"type": "response.output_item.added"})),
    (Format.CODEX, RESPONSE[:1], frame({"type": "response.completed", "response": {"output": []}})),
]


@pytest.mark.parametrize(("fmt", "beginning", "event"), BEGINNINGS)
def test_a_stream_is_substantial_with_its_first_real_event(fmt: Format, beginning: list[bytes], event: bytes) -> None:
    """Many failures are a provider's second frame; the head of the answer can wait for it (translation.md 4.1)."""
    apart, whole = open_reader(fmt), open_reader(fmt)
    for start in beginning:
        apart.feed(start)
        assert not apart.substantial
    assert apart.feed(event).endswith(event)
    assert apart.substantial
    assert whole.feed(b"".join([*beginning, event])).endswith(event)
    assert whole.substantial


def test_a_fault_after_the_beginning_leaves_a_stream_without_substance() -> None:
    """Its status can still be told."""
    for fmt, start in ((Format.OPENAI, ROLE), (Format.CLAUDE, claude("message_start")), (Format.CODEX, RESPONSE[0])):
        reader = open_reader(fmt)
        assert run(reader, start + OVERLOADED) == start
        assert reader.fault is not None
        assert not reader.substantial


def test_a_substantial_stream_is_not_examined_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hot path: plain chunks are not even cut into events."""
    readers = [(fmt, open_reader(fmt)) for fmt in FORMATS]
    for fmt, reader in readers:
        reader.feed(STREAMS[fmt][: STREAMS[fmt].index(b"\n\n") + 2] + claude("content_block_start"))
    monkeypatch.setattr("cpa.formats.streams.split_events", None)
    monkeypatch.setattr("cpa.formats.streams.event_data", None)
    for fmt, reader in readers:
        plain = {Format.OPENAI: chat("x"), Format.CLAUDE: claude("ping"), Format.GEMINI: gemini("x")}[fmt]
        assert reader.substantial
        assert reader.feed(plain) is plain


def test_nothing_follows_done() -> None:
    reader = open_reader(Format.OPENAI)
    assert reader.feed(chat("a") + DONE + chat("late") + DONE) == chat("a") + DONE
    assert reader.done
    assert reader.feed(chat("later")) == b""
    assert reader.finish() == b""


def test_done_alone_is_not_an_answer() -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        open_reader(Format.OPENAI).feed(DONE)
    assert caught.value.code == "empty_stream"


def test_the_last_event_needs_no_blank_line() -> None:
    assert run(open_reader(Format.OPENAI), chat("a") + b"data: [DONE]") == chat("a") + DONE
    assert run(open_reader(Format.OPENAI), chat("a", "stop").rstrip()) == chat("a", "stop") + DONE
    assert run(open_reader(Format.CLAUDE), CLAUDE.rstrip()) == CLAUDE
    assert run(open_reader(Format.GEMINI), gemini("a", "STOP")[:-1]) == gemini("a", "STOP")


def test_a_fragment_at_the_end_is_dropped() -> None:
    assert run(open_reader(Format.OPENAI), chat("a", "stop") + USAGE[:-10]) == chat("a", "stop") + DONE


def test_comments_wait_for_the_first_payload() -> None:
    """Until it comes, an error can still get its real status."""
    reader = open_reader(Format.OPENAI)
    assert reader.feed(b": waiting\n\n") == b""
    assert reader.feed(chat("a")) == b": waiting\n\n" + chat("a")
    assert reader.feed(b": still here\n\n") == b": still here\n\n"


def test_comments_are_not_held_without_limit() -> None:
    reader = open_reader(Format.CLAUDE)
    comment = b": " + b"x" * 40000 + b"\n\n"
    assert reader.feed(comment) == b""
    assert reader.feed(comment) == comment * 2


def test_gemini_ends_with_a_finish_or_a_block_reason() -> None:
    blocked = frame({"promptFeedback": {"blockReason": "SAFETY"}})
    assert run(open_reader(Format.GEMINI), blocked) == blocked
    with pytest.raises(UpstreamProtocolError):
        run(open_reader(Format.GEMINI), frame({"promptFeedback": {"blockReason": None}, "candidates": []}))


def told(text: bytes) -> list[bytes]:
    """The lines that are not blank: all that Google's SDKs look at."""
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize(
    "junk", [b": comment\n\n", b"event: ping\n\n", b"data: [DONE]\n\n", b"id: 1\n\n", b":\n\n: x\n\n", b"data:\n\n"]
)
def test_gemini_clients_are_spared_what_breaks_them(junk: bytes) -> None:
    good, last = gemini("data: a"), gemini("b", "STOP")
    for chunks in ((good, junk, last), (good + junk + last,), (junk + good, junk + last), (good + junk, last + junk)):
        assert told(run(open_reader(Format.GEMINI), *chunks)) == told(good + last)


def test_gemini_events_are_rewritten_only_when_they_must() -> None:
    last = gemini("a", "STOP")
    for event in (b"event: message\n" + last, last.replace(b"data: ", b"data:"), b": c\n" + last, b"id: 1\r\n" + last):
        assert run(open_reader(Format.GEMINI), gemini("x"), event) == gemini("x") + last
        assert run(open_reader(Format.GEMINI), gemini("x") + event) == gemini("x") + last


# --- faults ---

PLAIN = "upstream answered a stream request with plain JSON"
OVERLOADED = claude("error", error={"type": "overloaded_error", "message": "Overloaded"})
FAULTS = [
    (Format.OPENAI, frame({"error": {"message": "m", "type": "t", "code": "c"}}), 502, "m", "c", "t"),
    (Format.OPENAI, frame({"error": {"message": "m", "code": 429}}), 429, "m", "", ""),
    (Format.OPENAI, frame({"error": {"message": "m", "code": "rate_limit_x"}}), 429, "m", "rate_limit_x", ""),
    (Format.OPENAI, frame({"error": "text"}), 502, "text", "", ""),
    (Format.OPENAI, frame({"error": {"message": "m"}, "status_code": 503, "choices": []}), 503, "m", "", ""),
    (Format.OPENAI, frame({"code": "x", "message": "m"}), 502, "m", "x", ""),
    (Format.OPENAI, b'event: error\ndata: {"message": "m", "status": "504"}\n\n', 504, "m", "", ""),
    (Format.OPENAI, b'event:error\ndata: {"message": "m"}\n\n', 502, "m", "", ""),
    (Format.OPENAI, frame({"type": "error"}), 502, "upstream reported an error without a message", "", ""),
    (Format.CLAUDE, OVERLOADED, 529, "Overloaded", "", "overloaded_error"),
    (Format.CLAUDE, claude("error", error={"type": "api_error", "message": "m"}), 502, "m", "", "api_error"),
    (Format.GEMINI, frame({"error": {"code": 429, "message": "m", "status": "EXHAUSTED"}}), 429, "m", "", "EXHAUSTED"),
    (Format.GEMINI, b'data: {"error": {"message": "m", "status": "UNAVAILABLE"}}\r\n\r\n', 503, "m", "", "UNAVAILABLE"),
    (Format.OPENAI, frame({"error": {"message": '{"error":{"message":"inner","code":"c"}}'}}), 502, "inner", "c", ""),
    (Format.OPENAI, frame({"error": {"message": "m", "status": 200, "code": 700}}), 502, "m", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("fmt", "event", "status", "message", "code", "kind"), FAULTS)
@pytest.mark.parametrize("started", [False, True])
def test_errors_inside_a_stream_are_found(
    fmt: Format, event: bytes, status: int, message: str, code: str, kind: str, started: bool
) -> None:
    first = STREAMS[fmt][: STREAMS[fmt].index(b"\n\n") + 2] if started else b""
    for chunks in ((first + event + DONE,), (first, event, DONE), tuple(bytes([b]) for b in first + event)):
        reader = open_reader(fmt)
        assert run(reader, *chunks) == first
        fault = reader.fault
        assert fault is not None
        assert (fault.status, fault.message, fault.code, fault.type) == (status, message, code, kind)
        assert fault.frame == event
        assert reader.done


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("started", [False, True])
def test_an_error_event_reaches_gemini_clients_in_the_form_they_read(started: bool, end: bytes) -> None:
    """Google's SDKs fail on `event:` lines, on comments, and on `data:` without a space."""
    reader = open_reader(Format.GEMINI)
    first = gemini("a") if started else b""
    event = b': c\nevent: error\ndata:{"error":{"code":503,"message":"m"}}\n\n'.replace(b"\n", end)
    assert run(reader, first + event) == first
    assert reader.fault is not None
    assert reader.fault.frame == b'data: {"error":{"code":503,"message":"m"}}' + end * 2


def test_the_body_of_a_fault_is_the_provider_s() -> None:
    """So that it can be a real HTTP error as long as nothing was sent."""
    for fmt, event, *_ in FAULTS:
        reader = open_reader(fmt)
        run(reader, event)
        assert reader.fault is not None
        body = json.loads(reader.fault.body)
        assert body["error"]
        payload = parse_event(event).data
        assert payload is not None
        if isinstance(json.loads(payload).get("error"), dict):
            assert reader.fault.body == payload


def test_a_null_error_is_none() -> None:
    values: tuple[object, ...] = (None, {}, "", False)
    for value in values:
        chunk = frame({"error": value, "choices": [{"delta": {"content": "x"}}], "code": None})
        reader = open_reader(Format.OPENAI)
        assert reader.feed(chunk) is chunk
        assert reader.fault is None


@pytest.mark.parametrize("fmt", [*FORMATS, Format.OPENAI_RESPONSE])
@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (b'{"error":{"message":"no","code":"rate_limit_exceeded"}}', 429, "no"),
        (b'{"error":{"message":"no","code":429}}\n', 429, "no"),
        (b'{\n  "error": {\n    "message": "no",\n    "code": 503\n  }\n}\n', 503, "no"),
        (b'[{"error":{"code":503,"message":"no"}}]', 503, "no"),
        (b'{"error":{"message":"no"}}\n{"error":{"message":"more"}}\n\n', 502, "no"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"no"}}\r\n\r\n', 529, "no"),
        (b'{"id":"x","choices":[{"message":{"content":"hi"}}]}', 502, PLAIN),
        (b'[{"candidates":[]}]', 502, PLAIN),
        (b"{nonsense", 502, PLAIN),
    ],
)  # fmt: skip
def test_json_in_place_of_a_stream_is_a_fault(fmt: Format, text: bytes, status: int, message: str) -> None:
    for chunks in ((text,), tuple(bytes([b]) for b in text)):
        reader = open_reader(fmt)
        assert run(reader, *chunks) == b""
        assert reader.fault is not None
        assert (reader.fault.status, reader.fault.message, reader.fault.frame) == (status, message, b"")
        assert json.loads(reader.fault.body)


def test_json_in_the_middle_of_a_stream_is_a_fault() -> None:
    reader = open_reader(Format.OPENAI)
    assert run(reader, chat("a") + b'{"error":{"message":"no","code":500}}\n\n') == chat("a")
    assert reader.fault is not None
    assert reader.fault.status == 500


def test_an_event_over_the_limit_is_an_error() -> None:
    for fmt in (*FORMATS, Format.CODEX):
        with pytest.raises(UpstreamProtocolError, match="more than 64 bytes"):
            open_reader(fmt, max_event_bytes=64).feed(b"data: " + b"x" * 64)


# --- laws ---

PIECES = [
    chat("a"), chat(TRICKY), chat("", "stop"), USAGE, DONE, claude("message_start"), claude("message_stop"),
    OVERLOADED,
    gemini("a"), gemini("b", "STOP"), b": c\n\n", b"data: x", b"\n\n", b"event: error\n",
    b'{"error":{"message":"m"}}\n',
    b"data:{}\n\n", b"data: {\n", b"data: }\n\n", b"\xff\n\n", b'data: {"code":"1","message":"m"}\n\n',
    b"[1]\n\n", b"id: 1\n",
    frame({"type": "response.created", "response": {"id": "r", "error": None}}, "response.created"),
    frame({"type": "response.completed", "response": {"output": []}}, "response.completed"),
]  # fmt: skip


def outcome(fmt: Format, chunks: list[bytes]) -> tuple[object, ...]:
    """All that a caller can see of a whole stream."""
    reader = open_reader(fmt)
    out: list[bytes] = []
    error = ""
    try:
        out.extend(reader.feed(chunk) for chunk in chunks)
        out.append(reader.finish())
    except UpstreamProtocolError as exc:
        error = f"{exc.code}: {exc.message}"
    relayed = b"".join(out)
    # Blank lines after an event go out with it or with what follows, and after an error nothing follows.
    relayed = relayed.rstrip() if error or reader.fault else relayed
    return relayed, error, reader.fault, reader.terminal, reader.next_sequence()


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from([*FORMATS, Format.OPENAI_RESPONSE]),
    st.lists(st.sampled_from(PIECES), max_size=7),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 2000), max_size=10),
)
def test_any_cut_gives_the_same_outcome(fmt: Format, pieces: list[bytes], end: bytes, places: list[int]) -> None:
    stream = b"".join(pieces).replace(b"\n", end)
    bounds = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    assert outcome(fmt, [stream[a:b] for a, b in pairwise(bounds)]) == outcome(fmt, [stream])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*FORMATS, Format.CODEX]), st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_give_frames_or_a_protocol_error(fmt: Format, chunks: list[bytes]) -> None:
    """`outcome` lets every other exception through."""
    out, error, fault, terminal, _ = outcome(fmt, chunks)
    assert error or fault or terminal
    assert isinstance(out, bytes)


# --- frames of our own ---


def test_errors_are_written_in_the_client_s_protocol() -> None:
    error = WireError(status=429, message="slow down, user@example.org", code="", type="")
    blanked = "slow down, [redacted]"
    assert error_frames(Format.OPENAI, error) == frame(
        {"error": {"message": blanked, "type": "rate_limit_error", "code": "rate_limit_exceeded", "param": None}}
    )
    assert error_frames(Format.CLAUDE, error) == frame(
        {"type": "error", "error": {"type": "rate_limit_error", "message": blanked}}, "error"
    )
    assert error_frames(Format.GEMINI, error) == frame(
        {"error": {"code": 429, "message": blanked, "status": "RESOURCE_EXHAUSTED"}}
    )
    assert error_frames(Format.OPENAI_RESPONSE, error, FrameContext(sequence_number=17)) == frame(
        {"type": "error", "code": "rate_limit_exceeded", "message": blanked, "param": None, "sequence_number": 17},
        "error",
    )
    assert error_frames(Format.OPENAI_RESPONSE, error, FrameContext(sequence_number=3, codex_client=True)) == frame(
        {
            "type": "response.failed",
            "sequence_number": 3,
            "response": {
                "status": "failed",
                "error": {"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": blanked},
            },
        },
        "response.failed",
    )


def test_a_broken_stream_is_the_server_s_fault() -> None:
    """An early end must look retryable to Codex, not like a bad request."""
    framed = error_frames(Format.CODEX, UpstreamProtocolError("cut"), FrameContext(codex_client=True))
    error = json.loads(parse_event(framed).data or b"")["response"]["error"]
    assert error == {"type": "server_error", "code": "internal_server_error", "message": "cut"}
    plain = json.loads(parse_event(error_frames(Format.OPENAI_RESPONSE, UpstreamConnectError("no route"))).data or b"")
    assert (plain["code"], plain["sequence_number"]) == ("internal_server_error", 0)


@pytest.mark.parametrize("fmt", list(Format))
def test_every_kind_of_error_becomes_one_event(fmt: Format) -> None:
    reader = open_reader(Format.CLAUDE)
    reader.feed(OVERLOADED)
    assert reader.fault is not None
    status = UpstreamStatusError(
        status=529, headers=(), body=b'{"error":{"message":"Overloaded"}}', provider_format=Format.OPENAI
    )
    for error in (reader.fault, status):
        event = error_frames(fmt, error)
        assert event.endswith(b"\n\n")
        assert event.count(b"\n\n") == 1
        assert b"Overloaded" in event
    again = open_reader(fmt)
    again.feed(error_frames(fmt, reader.fault))
    assert again.fault is not None
    assert again.fault.message == "Overloaded"


def test_idle_streams_are_kept_open_per_protocol() -> None:
    assert keepalive_frame(Format.CLAUDE) == b'event: ping\ndata: {"type":"ping"}\n\n'
    assert keepalive_frame(Format.GEMINI) == b"\n"
    for fmt in (Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX):
        assert keepalive_frame(fmt) == b": keep-alive\n\n"
