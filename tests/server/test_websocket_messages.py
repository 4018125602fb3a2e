"""Clients' messages, and the host's own: what is taken, inherited, refused, and in which shape errors are told."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import MalformedRequest, NoCredential, UnknownModel
from cpa.server.websocket_messages import (
    error_event,
    labelled,
    read_message,
    stream_error,
    told_error,
    warm_up_events,
)
from cpa.server.websocket_transcript import read_items

FIRST = {"type": "response.create", "model": "m", "input": [], "instructions": "i", "tools": [1], "metadata": {"a": 1}}


def message(**members: object) -> bytes:
    """A message as JSON."""
    return json.dumps(members).encode()


def values(members: object) -> object:
    """Undecoded members as values."""
    return json.loads(msgspec.json.encode(members))


def test_the_envelope_stays_here() -> None:
    """The body has the client's members in their order, the input given, and asks for a stream."""
    found = read_message(
        message(
            type="response.create", model="m", previous_response_id="r", input=[1], stream=False, generate=True,
            stream_id="s", temperature=0.5,
        ),
        before=None,
    )  # fmt: skip
    assert (found.model, found.previous, found.generate, found.stream_id) == ("m", "r", True, b'"s"')
    body = found.body(read_items(b'["a",{"b": 1}]'))
    assert json.loads(body) == {"model": "m", "temperature": 0.5, "input": ["a", {"b": 1}], "stream": True}
    assert b'{"b": 1}' in body  # byte for byte


def test_creates_inherit_model_and_instructions_and_appends_all() -> None:
    """What a message says itself counts more; what belongs to one answer only is not inherited."""
    before = read_message(json.dumps({**FIRST, "generate": False}).encode(), before=None).members
    create = read_message(message(type="response.create", input=[]), before=before)
    assert values(create.members) == {"model": "m", "instructions": "i"}
    other = read_message(message(type="response.create", model="n", instructions=None, input=[]), before=before)
    assert values(other.members) == {"model": "n", "instructions": None}
    append = read_message(message(type="response.append", input=[2], tools=[3]), before=before)
    assert values(append.members) == {"model": "m", "instructions": "i", "tools": [3]}
    assert append.generate


@pytest.mark.parametrize("stream_id", [5, "x" * 257, []], ids=["number", "long", "list"])
def test_names_of_lanes_are_short_texts(stream_id: object) -> None:
    """They are repeated in every event."""
    with pytest.raises(MalformedRequest, match=r"^stream_id: expected a string of at most 256 characters"):
        read_message(json.dumps({**FIRST, "stream_id": stream_id}).encode(), before=None)


def test_events_are_labelled_without_being_read() -> None:
    """In front, so that nothing is copied but once."""
    assert labelled(b'{"a":1}', b'"s"') == b'{"stream_id":"s","a":1}'
    assert labelled(b"{}", b'"s"') == b'{"stream_id":"s"}'
    assert labelled(b'{"a":1}', b"") == b'{"a":1}'
    assert labelled(b"[1]", b'"s"') == b"[1]"


def test_errors_of_our_own() -> None:
    """Status, type, code, message and param; headers are always an object."""
    assert json.loads(error_event(UnknownModel("x"))) == {
        "type": "error",
        "status": 400,
        "error": {
            "message": "unknown provider for model x",
            "type": "invalid_request_error",
            "code": "model_not_found",
            "param": "model",
        },
        "headers": {},
    }
    assert json.loads(error_event(NoCredential("none")))["status"] == 503


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error":{"message":"m","type":"t","code":null,"plan":"p"}}', {"message": "m", "type": "t", "plan": "p"}),
        (b'{"error":{"message":"m","type":5}}', {"message": "m", "type": "invalid_request_error"}),
        (b'{"error":"m"}', {"message": "m", "type": "invalid_request_error"}),
        (b'{"type":"error","error":{"type":"not_found_error","message":"m"}}', {"message": "m"}),
        (b"plain", {"message": "plain", "type": "invalid_request_error"}),
        (b"", {"type": "invalid_request_error"}),
        (b"[]", {"type": "invalid_request_error"}),
    ],
    ids=["members", "type", "text", "claude", "plain", "empty", "list"],
)
def test_answers_over_http_become_events(body: bytes, error: dict[str, object]) -> None:
    """With what the failing side said beside, and with the headers that mean something here."""
    headers = ((b"content-type", b"text/plain"), (b"content-length", b"9"), (b"retry-after", b"7"), (b"x-a", b"\xff"))
    event = json.loads(told_error(418, headers, body))
    assert (event["type"], event["status"]) == ("error", 418)
    assert event["headers"] == {"retry-after": "7", "x-a": "\xff"}
    assert {name: event["error"][name] for name in error} == error
    assert event["error"]["message"]


def test_errors_amid_an_answer_keep_their_number() -> None:
    """Both shapes that streams over HTTP have."""
    plain = b'{"type":"error","code":"c","message":"m","sequence_number":7}'
    codex = (
        b'{"type":"response.failed","sequence_number":7,'
        b'"response":{"status":"failed","error":{"type":"server_error","code":"c","message":"m"}}}'
    )
    for data in (plain, codex):
        event = json.loads(stream_error(502, data))
        assert (event["status"], event["sequence_number"], event["error"]["message"]) == (502, 7, "m")
        assert event["error"]["type"] == "server_error"
    assert json.loads(stream_error(502, b"garbage"))["status"] == 502


def test_warm_ups_have_ids_of_their_own() -> None:
    """And echo what they were asked."""
    found = read_message(json.dumps(FIRST).encode(), before=None)
    (first, events), (second, _) = warm_up_events(found), warm_up_events(found)
    assert first != second
    assert first.startswith("resp_prewarm_")
    created, completed = map(json.loads, events)
    assert [event["sequence_number"] for event in (created, completed)] == [0, 1]
    assert created["response"]["status"] == "in_progress"
    assert completed["response"] == {
        **created["response"],
        "status": "completed",
        "completed_at": completed["response"]["completed_at"],
        "usage": completed["response"]["usage"],
    }
    assert (completed["response"]["model"], completed["response"]["instructions"]) == ("m", "i")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
NAMES = ("type", "model", "input", "previous_response_id", "generate", "stream_id", "conversation", "instructions")


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), anything | st.sampled_from(["response.create", "response.append"])),
    st.booleans(),
    st.binary(max_size=3),
)
def test_any_message_is_taken_or_refused(members: dict[str, object], later: bool, noise: bytes) -> None:
    """And nothing else happens."""
    before = read_message(json.dumps(FIRST).encode(), before=None).members if later else None
    for data in (json.dumps(members).encode(), json.dumps(members).encode() + noise, noise):
        try:
            found = read_message(data, before=before)
        except MalformedRequest:
            continue
        assert found.model
        body = json.loads(found.body(found.items))
        assert body["stream"] is True
        assert isinstance(body["input"], list)
