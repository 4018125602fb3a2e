"""Errors that a provider reports inside a stream that it answered with 200."""

import attrs
import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import WireError, error_object, read_error_value, redact, redact_json
from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import Format
from cpa.formats.sse import parse_event
from cpa.types import JsonValue

_UNSET = msgspec.Raw(b"")
_FAULT_TYPES = frozenset({"error", "response.error", "response.failed"})
_NOTHING = frozenset({b"", b"null", b"{}", b'""', b"false"})
NOT_A_STREAM = "upstream answered a stream request with plain JSON"


@attrs.frozen(kw_only=True)
class StreamFault:
    """A provider's error inside its stream.

    Attributes:
      status: 400..599, what the provider said or its error name means, else 502.
      message, code, type: as the provider wrote them, not redacted; code and type may be empty.
      body: the error as a JSON body of the provider's protocol, for an answer with the real status while nothing has
        been sent to the client. Redacted.
      frame: the event as the provider sent it, with one blank line, for a stream that has begun; empty when it was no
        event. Redacted: with secrets in it, its data is written anew.
      error: the same in neutral form.
    """

    status: int
    message: str
    code: str
    type: str
    body: bytes
    frame: bytes
    error: WireError


class _ResponseProbe(msgspec.Struct, gc=False):
    error: msgspec.Raw = _UNSET
    output: msgspec.Raw = _UNSET


class Probe(msgspec.Struct, gc=False):
    """The members of a stream event that decide what becomes of it; all others are skipped."""

    type: msgspec.Raw = _UNSET
    error: msgspec.Raw = _UNSET
    code: msgspec.Raw = _UNSET
    message: msgspec.Raw = _UNSET
    response: msgspec.Raw = _UNSET
    choices: msgspec.Raw = _UNSET
    candidates: msgspec.Raw = _UNSET
    promptFeedback: msgspec.Raw = _UNSET

    @property
    def name(self) -> str:
        """The type, when it is a plain string."""
        raw = bytes(self.type)
        return raw[1:-1].decode("utf-8", "replace") if raw.startswith(b'"') else ""


_decode_probe = msgspec.json.Decoder(Probe).decode
_decode_response = msgspec.json.Decoder(_ResponseProbe).decode


def probe(data: bytes) -> Probe | None:
    """Look at one event's data; None when it is not a JSON object."""
    try:
        return _decode_probe(data)
    except (ValueError, RecursionError):
        try:
            # Again without what strict decoders dislike; rare, so the cost does not matter.
            return _decode_probe(encode(decode(data)))
        except (ValueError, RecursionError):
            return None


def response_probe(raw: msgspec.Raw) -> _ResponseProbe:
    """The `response` member of a Responses event; empty when it is no object."""
    try:
        return _decode_response(raw)
    except (ValueError, RecursionError):
        return _ResponseProbe()


def is_nothing(raw: msgspec.Raw) -> bool:
    """Whether a member is absent, null, false or empty."""
    return bytes(raw) in _NOTHING


def has_error(seen: Probe, event_name: str) -> bool:
    """Whether an event reports an error; `"error": null` does not, and text inside strings never does."""
    name = seen.name or event_name
    if name in _FAULT_TYPES or not is_nothing(seen.error):
        return True
    if not is_nothing(seen.response) and not is_nothing(response_probe(seen.response).error):
        return True
    return (
        not is_nothing(seen.code)
        and bytes(seen.message).startswith(b'"')
        and is_nothing(seen.choices)
        and is_nothing(seen.candidates)
    )


def make_fault(fmt: Format, data: bytes, *, frame: bytes) -> StreamFault:
    """Describe the error that *data*, an event of a provider that speaks *fmt*, reports."""
    try:
        value = decode(data)
    except JsonError:
        value = {"message": data[:4096].decode("utf-8", "replace")}
    line_end = b"\r\n" if b"\r\n" in frame else b"\r" if b"\r" in frame else b"\n"
    clean = redact_json(data)
    if clean is not data:
        name = redact(parse_event(frame).event).encode()
        lines = [b"event: " + name] if name else []
        lines += [b"data: " + line for line in clean.splitlines()]
        frame = line_end.join(lines)
    return _fault(fmt, value, data, frame.strip(b"\r\n") + line_end * 2)


def bare_fault(fmt: Format, data: bytes) -> StreamFault:
    """Describe JSON that came in place of an event stream: an error, or an answer that is of no use here."""
    for text in (data, data.partition(b"\n")[0]):
        try:
            value = decode(text)
        except JsonError:
            continue
        first = value[0] if isinstance(value, list) and value else value
        seen = probe(encode(first))
        if seen is not None and has_error(seen, ""):
            return _fault(fmt, value, text, b"")
    return protocol_fault(fmt, UpstreamProtocolError(NOT_A_STREAM))


def protocol_fault(fmt: Format, exc: UpstreamProtocolError) -> StreamFault:
    """Our own finding about a stream, in the form of a fault."""
    error = WireError(status=exc.http_status, message=exc.message, code=exc.code)
    return StreamFault(
        status=error.status,
        message=error.message,
        code=error.code,
        type="",
        body=encode(error_object(fmt, error)[1]),
        frame=b"",
        error=error,
    )


def _fault(fmt: Format, value: JsonValue, data: bytes, frame: bytes) -> StreamFault:
    error = read_error_value(value)
    if not error.message:
        error = attrs.evolve(error, message="upstream reported an error without a message")
    return StreamFault(
        status=error.status,
        message=error.message,
        code=error.code,
        type=error.type,
        body=redact_json(_body(fmt, value, data, error)),
        frame=frame,
        error=error,
    )


def _body(fmt: Format, value: JsonValue, data: bytes, error: WireError) -> bytes:
    """The HTTP body of a fault: the provider's own bytes where they have the shape of one."""
    item = value[0] if isinstance(value, list) and value else value
    if isinstance(item, dict) and isinstance(item.get("error"), dict | str) and item.get("error"):
        return data
    response = item.get("response") if isinstance(item, dict) else None
    inner = response.get("error") if isinstance(response, dict) else None
    if isinstance(inner, dict) and inner:
        return encode({"error": inner})
    return encode(error_object(fmt, error)[1])
