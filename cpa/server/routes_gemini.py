"""Gemini's generateContent family, where the path names the model and the action."""

from urllib.parse import parse_qsl

from cpa.config.schema import Config
from cpa.errors import MalformedRequest, RawHeaders, UnknownRoute, UpstreamProtocolError
from cpa.formats.json import is_json
from cpa.formats.names import Format
from cpa.formats.units import to_units
from cpa.pipeline.exchange import ModelRequest
from cpa.server.responder import STREAM_HEADERS
from cpa.server.routes import ClientHead, ModelRoute
from cpa.types import Operation

PREFIXES = ("/v1beta/models/", "/v1/models/")
"""The vendor's newer SDKs use the second one."""
ACTIONS = {
    "generateContent": (Operation.GENERATE, False),
    "streamGenerateContent": (Operation.GENERATE, True),
    "countTokens": (Operation.COUNT_TOKENS, False),
}

BLANKS = b" \t\r\n\xef\xbb\xbf"
"""What may stand before a JSON object; the byte order mark is no blank, but some senders write it."""


def split(path: str) -> tuple[str, str] | None:
    """Model and action of a path below one of `PREFIXES`; the last colon divides them. None for other paths."""
    for prefix in PREFIXES:
        if path.startswith(prefix) and ":" in path:
            model, _, action = path[len(prefix) :].rpartition(":")
            return model, action
    return None


def parse(head: ClientHead, body: bytes) -> ModelRequest:
    """A Gemini request; its action says whether it streams."""
    model, action = split(head.path) or ("", "")
    if not model or action not in ACTIONS:
        known = ", ".join(ACTIONS)
        raise UnknownRoute(f"unknown action {action!r}: expected models/MODEL:ACTION with one of {known}")
    if not body[:64].lstrip(BLANKS).startswith(b"{"):
        raise MalformedRequest("request body: expected a JSON object")
    operation, stream = ACTIONS[action]
    return head.request(Format.GEMINI, operation, body, model=model, stream=stream)


class ArrayFraming:
    """A stream as one JSON array, an element an event; see `cpa.server.routes.Framing`.

    It works on the events that all clients of the protocol get, after the last stage, so that plugins and normalizers
    see the same whatever a client asked for. Line breaks that keep the connection alive are white space in an array.
    """

    headers: RawHeaders = (
        (b"content-type", b"application/json"),
        *(pair for pair in STREAM_HEADERS if pair[0] != b"content-type"),
    )

    def __init__(self) -> None:
        self._started = False

    def frames(self, block: bytes) -> bytes:
        """See `Framing`; one element that is not JSON would make the whole answer unreadable."""
        out = []
        for element in to_units(Format.GEMINI, block):
            if not is_json(element):
                raise UpstreamProtocolError("a stream event is not valid JSON")
            out += [b",\n" if self._started else b"[", element]
            self._started = True
        return b"".join(out)

    def end(self) -> bytes:
        """See `Framing`."""
        return b"]" if self._started else b"[]"

    def failure(self, block: bytes, *, told: bool) -> bytes:
        """See `Framing`.

        The array stays open when an answer was cut off: who reads it whole must not find it complete. One that holds
        nothing but the error is closed, and so is one whose provider gave the error instead of the rest.
        """
        closed = told or not self._started
        try:
            return self.frames(block) + (b"]" if closed else b"")
        except UpstreamProtocolError:
            return b""  # an error that is no JSON cannot be told here; the open array tells that something was wrong


def framing(head: ClientHead, config: Config) -> ArrayFraming | None:
    """How a stream goes to this client: events if it asks for them, or if the operator wants them for all."""
    if not config.streaming.gemini_json_array:
        return None
    asked = parse_qsl(head.query.decode("latin-1"))
    return None if any(name in ("alt", "$alt") and value == "sse" for name, value in asked) else ArrayFraming()


GEMINI = ModelRoute(pattern="/v1beta/models/{model}:{action}", format=Format.GEMINI, parse=parse, framing=framing)
