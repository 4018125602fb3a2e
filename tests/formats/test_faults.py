"""What counts as an error inside a stream; the readers' tests show it at work."""

import pytest

from cpa.errors import UpstreamProtocolError
from cpa.formats.faults import bare_fault, has_error, make_fault, probe, protocol_fault
from cpa.formats.names import Format


@pytest.mark.parametrize(
    ("data", "event", "expected"),
    [
        (b'{"error":{"message":"m"}}', "", True),
        (b'{"error":"m"}', "", True),
        (b'{"type":"error"}', "", True),
        (b'{"type":"response.failed"}', "", True),
        (b'{"message":"m"}', "error", True),
        (b'{"response":{"error":{"code":"c"}}}', "", True),
        (b'{"code":5,"message":"m"}', "", True),
        (b'{"error":null}', "", False),
        (b'{"response":{"error":null}}', "", False),
        (b'{"response":"error"}', "", False),
        (b'{"code":"c","message":{"id":"m"}}', "", False),
        (b'{"code":"c","message":"m","choices":[{}]}', "", False),
        (b'{"content":{"error":1}}', "", False),
        (b'{"text":"\\"error\\":1"}', "", False),
        (b'{"type":"error_report"}', "", False),
        (b'{"error":1,"text":"\\ud83d"}', "", True),
    ],
)
def test_only_members_of_the_event_itself_count(data: bytes, event: str, expected: bool) -> None:
    seen = probe(data)
    assert seen is not None
    assert has_error(seen, event) is expected


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"{", b"\xff"])
def test_what_is_no_object_is_not_probed(data: bytes) -> None:
    assert probe(data) is None


def test_an_error_without_the_shape_of_a_body_gets_one() -> None:
    fault = make_fault(Format.CLAUDE, b'{"code":"x","message":"m"}', frame=b"data: {}\r\n\r\n\r\n")
    assert fault.body == b'{"type":"error","error":{"type":"api_error","message":"m"}}'
    assert fault.frame == b"data: {}\r\n\r\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_secrets_in_a_fault_reach_nobody(end: bytes) -> None:
    """Neither as a body nor as a frame; the frame stays one event with its name."""
    data = b'{"error":{"message":"bad key sk-abcDEF123456"}}'
    clean = b'{"error":{"message":"bad key [redacted]"}}'
    fault = make_fault(Format.OPENAI, data, frame=b"event: error" + end + b"data:" + data + end * 2)
    assert fault.body == clean
    assert fault.frame == b"event: error" + end + b"data: " + clean + end * 2
    assert bare_fault(Format.OPENAI, data).body == clean
    text = make_fault(Format.OPENAI, b"no: sk-abcDEF123456", frame=b"event: error\ndata: no: sk-abcDEF123456\n\n")
    assert text.frame == b"event: error\ndata: no: [redacted]\n\n"
    assert b"abcDEF" not in text.body


def test_the_first_line_of_several_is_the_error() -> None:
    fault = bare_fault(Format.GEMINI, b'{"error":{"code":500,"message":"m"}}\n{"x":1}')
    assert (fault.status, fault.body) == (500, b'{"error":{"code":500,"message":"m"}}')


def test_findings_of_our_own_look_like_faults() -> None:
    fault = protocol_fault(Format.GEMINI, UpstreamProtocolError("cut", code="empty_stream"))
    assert (fault.status, fault.code) == (502, "empty_stream")
    assert fault.body == b'{"error":{"code":502,"message":"cut","status":"UNAVAILABLE"}}'
