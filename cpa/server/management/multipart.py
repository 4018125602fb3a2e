"""Forms with files (``multipart/form-data``), as browsers and curl send them: a body in, its files and fields out.

The parsing is werkzeug's. It is fed in small pieces, so that what it keeps and what it searches stay small as well.
Blocking computing of up to some 10 ms per megabyte: run it in a thread.
"""

import re
from typing import Final

import attrs
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData, State

from cpa.errors import MalformedRequest, RequestTooLarge

MAX_PARTS: Final = 5000
"""Files and fields of one form. Whoever has more accounts sends several forms."""
MAX_HEAD_BYTES: Final = 16 << 10
"""Of one part, or of what stands before the first one; names and types have some hundred bytes."""
MAX_BOUNDARY: Final = 200
"""The standard says 70."""
_ESCAPED: Final = re.compile(r"\\[\\\"]")
_STEP_BYTES: Final = 16 << 10


@attrs.frozen(kw_only=True)
class Part:
    """One field.

    Attributes:
      name: of the field.
      filename: as the client calls the file, not to be trusted; None = it is no file.
    """

    name: str
    filename: str | None = None
    data: bytes = attrs.field(repr=False)


def is_form(content_type: bytes) -> bool:
    """Whether *content_type* says that the body is such a form."""
    return content_type.partition(b";")[0].strip().lower() == b"multipart/form-data"


def parse_form(content_type: bytes, body: bytes) -> tuple[Part, ...]:
    """The parts of *body*, in order.

    Raises: MalformedRequest when it is no whole form; RequestTooLarge for too many parts.
    """
    _, options = parse_options_header(content_type.decode("latin-1"))
    boundary = options.get("boundary", "")
    if not boundary or len(boundary) > MAX_BOUNDARY or not boundary.isascii():
        raise MalformedRequest("invalid multipart body: expected a boundary in the content type")
    decoder = MultipartDecoder(boundary.encode("ascii"), max_parts=MAX_PARTS)
    parts = _Parts()
    try:
        for start in range(0, len(body), _STEP_BYTES):
            decoder.receive_data(body[start : start + _STEP_BYTES])
            _drain(decoder, parts)
            if decoder.state in (State.PREAMBLE, State.PART) and len(decoder.buffer) > MAX_HEAD_BYTES:
                raise MalformedRequest("invalid multipart body: expected shorter headers of its parts")
        decoder.receive_data(None)
        _drain(decoder, parts)
    except RequestEntityTooLarge as exc:
        raise RequestTooLarge(f"expected at most {MAX_PARTS} files and fields in one form") from exc
    except ValueError as exc:  # of a text that is none, or ends too early
        raise MalformedRequest("invalid multipart body: expected a whole form") from exc
    return tuple(parts.found)


@attrs.define(eq=False)
class _Parts:
    """Puts events together."""

    found: list[Part] = attrs.field(factory=list)
    _open: Field | File | None = None
    _pieces: list[bytes] = attrs.field(factory=list)

    def take(self, event: Event) -> None:
        if isinstance(event, (Field, File)):
            self._open, self._pieces = event, []
        elif isinstance(event, Data) and self._open is not None:
            self._pieces.append(event.data)
            if not event.more_data:
                filename = filename_of(self._open) if isinstance(self._open, File) else None
                self.found.append(Part(name=self._open.name or "", filename=filename, data=b"".join(self._pieces)))
                self._open = None


def filename_of(file: File) -> str:
    """The file's name as its client wrote it.

    Some clients escape backslashes, browsers do not: there, those of ``..\\x`` are the name's own, and a parser that
    takes them for escapes makes a harmless looking name of it.
    """
    disposition = file.headers.get("content-disposition", "")
    if "\\" not in _ESCAPED.sub("", disposition):
        return file.filename
    _, options = parse_options_header(disposition.replace("\\", "\\\\"))
    return options.get("filename", file.filename)


def _drain(decoder: MultipartDecoder, parts: _Parts) -> None:
    """Raises: ValueError; RequestEntityTooLarge."""
    while not isinstance(event := decoder.next_event(), (NeedData, Epilogue)):
        parts.take(event)
