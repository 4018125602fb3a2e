"""Request bodies under limits: size as sent, size and ratio as decoded, and time."""

import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import trio

from cpa.config.schema import LimitsConfig
from cpa.errors import MalformedRequest, RawHeaders, RequestTimeout, RequestTooLarge
from cpa.formats.coding import CodingError, DecodedTooLarge, Decoder, codings
from cpa.formats.json import is_json

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
"""ASGI's receive."""

MIN_BYTES_PER_S = 16 << 10
"""A body may take ``limits.body-seconds`` plus a second for each of these: slow lines may
upload, slow attackers not."""
DECODE_STEP_BYTES = 32 << 10
"""Text of this size decodes in about a millisecond."""
LINGER_BYTES = 32 << 20
LINGER_S = 5.0
"""After an early refusal the rest of the body is read and dropped within these bounds, so that a client which writes
before it reads gets to see the answer."""


class ClientGone(Exception):
    """The client closed its connection before its request was complete. Nobody is there to be told."""


async def read_body(
    headers: RawHeaders, receive: Receive, limits: LimitsConfig, *, ready: bytes | None = None
) -> bytes:
    """The whole body, content codings undone. *ready*: all that `receive` would give, if it is there already.

    Raises: RequestTooLarge, RequestTimeout, MalformedRequest, ClientGone.
    """
    if ready is None:
        declared = declared_length(headers)
        if declared is not None and declared > limits.body_bytes:
            raise too_large(limits)
        body = await _received(receive, limits)
    elif len(ready) > limits.body_bytes:
        raise too_large(limits)
    else:
        body = ready
    coding = [value for name, value in headers if name == b"content-encoding"]
    return await decode(body, b",".join(coding).decode("latin-1"), limits) if coding else body


async def _received(receive: Receive, limits: LimitsConfig) -> bytes:
    """What *receive* gives. Raises: as `read_body`."""
    pieces: list[bytes] = []
    size_bytes = 0
    started = trio.current_time()
    while True:
        allowed_s = limits.body_seconds + size_bytes / MIN_BYTES_PER_S if limits.body_seconds else math.inf
        if trio.current_time() - started > allowed_s:
            raise RequestTimeout(
                f"the request body did not arrive in time: {size_bytes} bytes in {limits.body_seconds:g} s"
            )
        # What came since this deadline was set may allow more: then it is set again. Nothing is lost by that.
        with trio.move_on_at(started + allowed_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece = message.get("body", b"")
                if piece:
                    size_bytes += len(piece)
                    if size_bytes > limits.body_bytes:
                        raise too_large(limits)
                    pieces.append(piece)
                if not message.get("more_body", False):
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def decode(body: bytes, coding: str, limits: LimitsConfig) -> bytes:
    """*body* without its content codings.

    A coding that is unknown or wrong is forgiven when the raw bytes already are JSON: some clients label plain
    bodies wrongly. Decoding goes in steps, between which other clients are served.
    Raises: RequestTooLarge, MalformedRequest.
    """
    names = codings(coding)
    if not names:
        return body
    try:
        decoder = Decoder(
            names, max_bytes=limits.body_bytes, max_ratio=limits.decompression_ratio, whole_bytes=len(body)
        )
        pieces = []
        for start in range(0, len(body), DECODE_STEP_BYTES):
            pieces.append(decoder.feed(body[start : start + DECODE_STEP_BYTES]))
            await trio.lowlevel.checkpoint()
        pieces.append(decoder.finish())
        return b"".join(pieces)
    except DecodedTooLarge as exc:
        raise RequestTooLarge(str(exc)) from exc
    except CodingError as exc:
        if is_json(body):
            return body
        raise MalformedRequest(f"Invalid request: body is not {coding}: {exc}") from exc


async def linger(receive: Receive) -> bool:
    """Read what the client still sends of a refused request and drop it.

    Returns: whether it came to its end; if not, the connection is not worth keeping.
    """
    left = LINGER_BYTES
    with trio.move_on_after(LINGER_S):
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return True
    return False


def declared_length(headers: RawHeaders) -> int | None:
    """The ``Content-Length``, which the HTTP parser has already judged."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def too_large(limits: LimitsConfig) -> RequestTooLarge:
    """The refusal of a body beyond the limit."""
    return RequestTooLarge(f"request body is larger than {limits.body_bytes} bytes (limits.body-bytes)")
