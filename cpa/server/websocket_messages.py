"""Messages of Responses over WebSocket: what clients may say, and what the host says by itself (proxy 1.12). Pure."""

from collections.abc import Mapping
from time import time
from typing import Final
from uuid import uuid4

import attrs
import msgspec

from cpa.errors import CpaError, MalformedRequest, RawHeaders
from cpa.formats.errors import error_object, from_exception, read_error
from cpa.formats.json import JsonError, decode, decode_members, encode
from cpa.formats.names import Format
from cpa.server.websocket_transcript import Item, read_items
from cpa.types import JsonObject, JsonValue

CREATE: Final = "response.create"
APPEND: Final = "response.append"
MAX_NAME_CHARS: Final = 256
"""Of ids that clients choose and that are repeated in every event."""
ENVELOPE: Final = ("type", "previous_response_id", "generate", "stream_id", "input", "stream")
"""Members that are not the provider's business, or not as the client wrote them."""
NOT_INHERITED: Final = frozenset({*ENVELOPE, "metadata"})
UNTOLD: Final = frozenset({"content-type", "content-length", "connection", "cache-control", "x-accel-buffering"})
"""Headers that say something of an HTTP answer's body."""
NO_INPUT: Final = msgspec.Raw(b"[]")
NO_USAGE: Final = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}

Members = Mapping[str, msgspec.Raw]
"""Of a JSON object, undecoded."""


@attrs.frozen(kw_only=True)
class ClientMessage:
    """A request for an answer.

    Attributes:
      members: of the request to be made, without those of the envelope; those that it inherits included.
      model: never empty.
      items: of the client's own input.
      previous: id of the answer that it goes on from, or empty.
      generate: False for a warm-up.
      stream_id: the client's name for the answer's events, as JSON, or empty.
      elsewhere: the conversation is kept by the provider.
    """

    members: Members
    model: str
    items: tuple[Item, ...]
    previous: str = ""
    generate: bool = True
    stream_id: bytes = b""
    elsewhere: bool = False

    def body(self, items: tuple[Item, ...]) -> bytes:
        """The body of the request over HTTP that asks the same, with *items* as its input."""
        array = b"[" + b",".join([item.raw for item in items]) + b"]"
        return encode({**self.members, "input": msgspec.Raw(array), "stream": True})


def read_message(data: bytes, *, before: Members | None) -> ClientMessage:
    """Understand a client's message.

    Args:
      before: the members of the connection's last one; None = this is the first.

    Raises: MalformedRequest.
    """
    try:
        members = decode_members(data)
    except JsonError:
        raise MalformedRequest("message: expected one JSON object, got something else") from None
    kind = _string(members, "type")
    if kind not in (CREATE, APPEND):
        raise MalformedRequest(
            f"type: expected {CREATE} or {APPEND}, got {kind[:MAX_NAME_CHARS] or 'none'}", param="type"
        )
    if before is None and kind == APPEND:
        raise MalformedRequest(f"type: expected {CREATE} in the first message, got {APPEND}", param="type")
    given = members.get("input")
    if given is None and before is not None:
        raise MalformedRequest("input: expected an array of items, got none", param="input")
    request = inherited(members, before or {}, everything=kind == APPEND)
    model = _string(request, "model")
    if not model:
        raise MalformedRequest("model: expected a non-empty string, got none", param="model", code="missing_model")
    return ClientMessage(
        members=request,
        model=model,
        items=read_items(bytes(NO_INPUT if given is None else given)),
        previous=_string(members, "previous_response_id"),
        generate=bytes(members.get("generate", b"")) != b"false",
        stream_id=encode(stream_id) if (stream_id := _string(members, "stream_id", limit=MAX_NAME_CHARS)) else b"",
        elsewhere=bytes(members.get("conversation", b"null")) != b"null",
    )


def inherited(members: Members, before: Members, *, everything: bool) -> Members:
    """The members of a request: its own, and of the one *before* what it leaves out.

    That is the model and the instructions. *everything*: an append has room for its input only, and is to be answered
    under the terms of what it appends to: with its tools, above all.
    """
    names = before if everything else [name for name in ("model", "instructions") if name in before]
    own = {name: value for name, value in members.items() if name not in ENVELOPE}
    return {**{name: before[name] for name in names if name not in NOT_INHERITED}, **own}


def _string(members: Members, name: str, *, limit: int = 0) -> str:
    """A member that is a string, null or absent; empty for the latter two. Raises: MalformedRequest."""
    raw = members.get(name)
    value = None if raw is None else decode(bytes(raw))
    if value is None:
        return ""
    if not isinstance(value, str) or (limit and len(value) > limit):
        wanted = f"a string of at most {limit} characters" if limit else "a string"
        raise MalformedRequest(f"{name}: expected {wanted}", param=name)
    return value


# --- what the host says ----------------------------------------------------------------------------------------------


def labelled(event: bytes, stream_id: bytes) -> bytes:
    """*event*, a JSON object, with the name that the client gave to the answer's events."""
    if not stream_id or not event.startswith(b"{"):
        return event
    rest = event[1:]
    comma = b"" if rest.lstrip().startswith(b"}") else b","
    return b'{"stream_id":' + stream_id + comma + rest


def error_event(exc: CpaError) -> bytes:
    """An error of our own, before there is an answer."""
    status, body = error_object(Format.OPENAI_RESPONSE, from_exception(exc))
    return _error(status, body["error"], ())


def told_error(status: int, headers: RawHeaders, body: bytes) -> bytes:
    """An error answer over HTTP as the event that tells the same."""
    try:
        value = decode(body)
    except JsonError:
        value = None
    detail = value.get("error") if isinstance(value, dict) else None
    _, plain = error_object(Format.OPENAI_RESPONSE, read_error(status, headers, body))
    known = plain["error"]
    if isinstance(detail, dict) and isinstance(known, dict):
        # As the provider wrote it, with what it says of times and plans; but message and type are always there.
        known = known | {name: inner for name, inner in detail.items() if inner is not None and name != "message"}
        if not isinstance(known["type"], str):
            known["type"] = "server_error" if status >= 500 else "invalid_request_error"
    return _error(status, known, headers)


def stream_error(status: int, data: bytes) -> bytes:
    """An error event amid an answer, *data*, in the shape of this transport."""
    try:
        value = decode(data)
    except JsonError:
        value = None
    outer: JsonObject = value if isinstance(value, dict) else {}
    _, body = error_object(Format.OPENAI_RESPONSE, read_error(status, (), data))
    number = outer.get("sequence_number")
    return _error(status, body["error"], (), sequence_number=number if isinstance(number, int) else None)


def _error(status: int, error: JsonValue, headers: RawHeaders, *, sequence_number: int | None = None) -> bytes:
    named = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    told: dict[str, JsonValue] = {name: value for name, value in named if name not in UNTOLD}
    event: JsonObject = {"type": "error", "status": status, "error": error, "headers": told}
    if sequence_number is not None:
        event["sequence_number"] = sequence_number
    return encode(event)


def warm_up_events(message: ClientMessage) -> tuple[str, tuple[bytes, bytes]]:
    """The answer to a warm-up. Returns: its id, and the two events."""
    response_id = f"resp_prewarm_{uuid4()}"
    now = int(time())
    response: dict[str, object] = {
        "id": response_id,
        "object": "response",
        "created_at": now,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": message.members.get("instructions"),
        "max_output_tokens": None,
        "model": message.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": message.previous or None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }
    done = {**response, "status": "completed", "completed_at": now, "usage": NO_USAGE}
    created = encode({"type": "response.created", "sequence_number": 0, "response": response})
    return response_id, (created, encode({"type": "response.completed", "sequence_number": 1, "response": done}))
