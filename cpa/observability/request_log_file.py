"""One request log as a file: what was captured, and how it is written. Blocking; runs in a writer's thread.

File names come from request paths, that is from strangers: everything but ``[A-Za-z0-9._-]`` becomes a dash, and files
are only ever created, never opened if something is there.

What is captured is made for nearly every request, also for those that get no file: msgspec's structs cost a tenth.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from cpa.errors import RawHeaders
from cpa.formats.coding import CodingError, DecodedTooLarge, Decoder, codings
from cpa.formats.redaction import mask_header, mask_query, mask_url
from cpa.observability.redact import KnownSecrets

MAX_CAPTURE_BYTES: Final = 32 * 1024 * 1024
"""Most bytes of one body in a file."""
WINDOW_BYTES: Final = 64 * 1024
"""Bodies are searched for secrets in pieces: one regular expression over megabytes would keep the interpreter lock
from the event loop for as long."""
MAX_NAME_CHARS: Final = 120

_UNSAFE_NAME = re.compile(r"[^A-Za-z0-9._]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Capture(msgspec.Struct, eq=False):
    """A body as far as it was kept: what was spooled to disk first, then *chunks*.

    Attributes:
      seen_bytes: all that passed, kept or not.
      kept_bytes: of these, in the spool and in *chunks*.
      memory_bytes: of these, in *chunks*.
      full: nothing more is kept.
      gap: something that was meant for the spool got lost, so nothing more may be appended to it.
      closed: the record is gone; nothing may be spooled for it any more.
    """

    chunks: list[bytes] = []
    seen_bytes: int = 0
    kept_bytes: int = 0
    memory_bytes: int = 0
    full: bool = False
    gap: bool = False
    closed: bool = False
    spool: IO[bytes] | None = None

    def add(self, chunk: bytes, limit_bytes: int) -> None:
        """Keep a reference to *chunk*, or to what of it fits *limit_bytes* in all."""
        size = len(chunk)
        self.seen_bytes += size
        if self.full:
            return
        room = limit_bytes - self.kept_bytes
        if size > room:
            chunk, size, self.full = bytes(chunk[:room]), room, True
        if size:
            self.chunks.append(chunk)
            self.kept_bytes += size
            self.memory_bytes += size

    def forget(self) -> None:
        """Keep nothing but the size."""
        self.chunks, self.kept_bytes, self.memory_bytes, self.full = [], 0, 0, True

    def take(self) -> list[bytes]:
        """Hand the chunks over, to be spooled."""
        chunks, self.chunks, self.memory_bytes = self.chunks, [], 0
        return chunks

    def give_up(self, lost_bytes: int) -> None:
        """*lost_bytes* that were taken could not be spooled: what is in the file must stay a prefix."""
        self.kept_bytes -= lost_bytes + self.memory_bytes
        self.chunks, self.memory_bytes, self.full, self.gap = [], 0, True, True

    def append_to_spool(self, chunks: Sequence[bytes], directory: Path) -> None:
        """Write *chunks* behind what is in the spool, a nameless file in *directory*. Raises: OSError."""
        if self.closed:
            return
        if self.gap:
            self.kept_bytes -= sum(map(len, chunks))
            return
        if self.spool is None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.spool = tempfile.TemporaryFile(dir=directory, prefix=".spool-")  # noqa: SIM115 - closed by close()
        self.spool.writelines(chunks)

    def close(self) -> None:
        """Free memory and disk; idempotent."""
        self.closed = True
        self.chunks = []
        if self.spool is not None:
            self.spool.close()
            self.spool = None

    def pieces(self) -> Iterator[bytes]:
        """What was kept, in order."""
        if self.spool is not None:
            self.spool.seek(0)
            while piece := self.spool.read(WINDOW_BYTES):
                yield piece
        yield from self.chunks


class Attempt(msgspec.Struct, eq=False):
    """One request to a provider and what came back."""

    started_unix: float
    url: str
    method: str
    headers: RawHeaders
    auth: str
    body: Capture
    responded_unix: float = 0.0
    status: int = 0
    response_headers: RawHeaders = ()
    response: Capture = msgspec.field(default_factory=Capture)


class RecordData(msgspec.Struct, eq=False):
    """All that one file says."""

    started_unix: float
    method: str
    path: str
    query: str
    headers: RawHeaders
    trace_id: str
    transport: str
    upstream_transport: str = "http"
    body: Capture = msgspec.field(default_factory=Capture)
    attempts: list[Attempt] = []
    errors: list[tuple[float, str]] = []
    timeline: Capture = msgspec.field(default_factory=Capture)
    status: int = 0
    canceled: bool = False
    response_headers: RawHeaders = ()
    response: Capture = msgspec.field(default_factory=Capture)

    @property
    def multipart(self) -> bool:
        """Its body is a form with files, of which no more than the size is told."""
        return has_header(self.headers, b"content-type", b"multipart/")

    def captures(self) -> Iterator[Capture]:
        """Every capture in it."""
        yield self.body
        yield self.response
        yield self.timeline
        for attempt in self.attempts:
            yield attempt.body
            yield attempt.response


def has_header(headers: RawHeaders, name: bytes, start: bytes) -> bool:
    """One of *headers* is called *name* and begins with *start*; both in lower case, case does not count."""
    return any(key.lower() == name and value.lower().startswith(start) for key, value in headers)


def file_name(path: str, started_unix: float, trace_id: str, *, error: bool, number: int = 1) -> str:
    """``[error-]<path with dashes>-<YYYY-MM-DDTHHMMSS>-<trace id>.log``, local time; *number* > 1 tells twins apart."""
    stem = _UNSAFE_NAME.sub("-", path)[:MAX_NAME_CHARS].strip("-._") or "root"
    stamp = datetime.fromtimestamp(started_unix).strftime("%Y-%m-%dT%H%M%S")
    ident = _UNSAFE_NAME.sub("-", trace_id)[:32].strip("-.") or "00000000"
    twin = f"-{number}" if number > 1 else ""
    return f"{'error-' if error else ''}{stem}-{stamp}{twin}-{ident}.log"


def write_record(record: RecordData, *, directory: Path, version: str, error: bool, secrets: KnownSecrets) -> Path:
    """Write the file, mode 0600. Raises: OSError; then no file is left behind."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, path = _create(record, directory, secrets, error=error)
    try:
        with open(descriptor, "wb") as file:
            _Writer(file, secrets).record(record, version)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    return path


def _create(record: RecordData, directory: Path, secrets: KnownSecrets, *, error: bool) -> tuple[int, Path]:
    shown = secrets.redact_text(record.path)  # some client will send its key as part of a path
    number = 1
    while True:
        path = directory / file_name(shown, record.started_unix, record.trace_id, error=error, number=number)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(path, flags, 0o600), path
        except FileExistsError:
            number += 1
            if number > 100:
                raise


def prune_errors(directory: Path, keep: int) -> None:
    """Delete all but the newest *keep* ``error-*.log``; 0 = keep all."""
    if keep <= 0:
        return
    found: list[tuple[int, str]] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith("error-") and entry.name.endswith(".log"):
                with suppress(OSError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
    for _, name in sorted(found, reverse=True)[keep:]:
        with suppress(OSError):
            os.unlink(name)


class _Writer:
    """Writes the sections of one file."""

    def __init__(self, file: IO[bytes], secrets: KnownSecrets) -> None:
        self._file = file
        self._secrets = secrets

    def record(self, record: RecordData, version: str) -> None:
        self._section("REQUEST INFO")
        self._line("Version", version)
        query = mask_query(self._secrets.mask_text(record.query))
        self._line("URL", self._secrets.redact_text(record.path) + (f"?{query}" if query else ""))
        self._line("Method", record.method)
        self._line("Downstream Transport", record.transport)
        self._line("Upstream Transport", record.upstream_transport)
        self._line("Timestamp", stamp(record.started_unix))
        self._section("HEADERS")
        self._headers(record.headers)
        self._section("REQUEST BODY")
        if record.multipart:
            self._text(f"[multipart body of {record.body.seen_bytes} bytes not captured]")
        else:
            self._body(record.body, record.headers)
        for number, attempt in enumerate(record.attempts, 1):
            self._attempt(attempt, number)
        for at_unix, text in record.errors:
            self._section("API ERROR RESPONSE")
            self._line("Timestamp", stamp(at_unix))
            self._text(self._secrets.redact_text(text))
        self._answer(record)

    def _attempt(self, attempt: Attempt, number: int) -> None:
        self._section(f"API REQUEST {number}")
        self._line("Timestamp", stamp(attempt.started_unix))
        self._line("Upstream URL", mask_url(self._secrets.mask_text(attempt.url)))
        self._line("HTTP Method", attempt.method)
        self._line("Auth", self._secrets.redact_text(attempt.auth))
        self._text("\nHeaders:")
        self._headers(attempt.headers)
        self._text("\nBody:")
        self._body(attempt.body, attempt.headers)
        if not attempt.status and not attempt.response.seen_bytes:
            return
        self._section(f"API RESPONSE {number}")
        self._line("Timestamp", stamp(attempt.responded_unix or attempt.started_unix))
        self._line("Status", str(attempt.status))
        self._text("Headers:")
        self._headers(attempt.response_headers)
        self._text("\nBody:")
        self._body(attempt.response, ())  # decoded by whoever read it

    def _answer(self, record: RecordData) -> None:
        if record.timeline.seen_bytes:
            self._section("WEBSOCKET TIMELINE")
            self._body(record.timeline, ())
            return
        self._section("RESPONSE")
        self._line("Status", str(record.status))
        if record.canceled:
            self._text("[the client went away]")
        self._headers(record.response_headers)
        self._text("")
        self._body(record.response, record.response_headers)

    def _section(self, title: str) -> None:
        start = b"\n" if self._file.tell() else b""
        self._file.write(start + f"=== {title} ===\n".encode())

    def _line(self, name: str, value: str) -> None:
        self._text(f"{name}: {_CONTROLS.sub('?', value)}")

    def _text(self, text: str) -> None:
        self._file.write(self._secrets.mask_in(text.encode("utf-8", "backslashreplace")) + b"\n")

    def _headers(self, headers: RawHeaders) -> None:
        for raw_name, raw_value in headers:
            name = raw_name.decode("latin-1")
            value = self._secrets.mask_text(raw_value.decode("utf-8", "backslashreplace"))
            self._line(self._secrets.redact_text(_CONTROLS.sub("?", name)), mask_header(name, value))

    def _body(self, body: Capture, headers: RawHeaders) -> None:
        coding = ", ".join(value.decode("latin-1") for name, value in headers if name.lower() == b"content-encoding")
        pieces, note = _readable(body, codings(coding)) if coding else (body.pieces(), "")
        for piece in _masked(pieces, self._secrets):
            self._file.write(piece)
        self._file.write(b"\n")
        if body.kept_bytes < body.seen_bytes:
            lost = body.seen_bytes - body.kept_bytes
            self._text(f"[truncated: {lost} of {body.seen_bytes} bytes not captured]")
        if note:
            self._text(f"[{note}]")


def stamp(at_unix: float) -> str:
    """Local time with offset, RFC 3339, milliseconds."""
    return datetime.fromtimestamp(at_unix).astimezone().isoformat(timespec="milliseconds")


def _readable(body: Capture, names: Sequence[str]) -> tuple[Iterable[bytes], str]:
    """*body* without its content codings, at most `MAX_CAPTURE_BYTES`, and a note on what went wrong.

    A body that does not decode is shown as it is: whoever captured it may have decoded it before.
    """
    decoded: list[bytes] = []
    try:
        decoder = Decoder(names, max_bytes=MAX_CAPTURE_BYTES)
        for piece in body.pieces():
            decoded.append(decoder.feed(piece))  # noqa: PERF401 - what was decoded before an error is shown
        decoded.append(decoder.finish())
    except DecodedTooLarge:
        return decoded, f"decoded body cut at about {MAX_CAPTURE_BYTES} bytes"
    except CodingError:
        return (decoded, "compressed body cut") if any(decoded) else (body.pieces(), "")
    return decoded, ""


def _masked(pieces: Iterable[bytes], secrets: KnownSecrets) -> Iterator[bytes]:
    """*pieces* regrouped to windows and without secrets, also those that lie across a border."""
    pending = bytearray()
    for piece in pieces:
        for start in range(0, len(piece), WINDOW_BYTES):
            pending += piece[start : start + WINDOW_BYTES]
            if len(pending) >= 2 * WINDOW_BYTES:
                cut = _safe_cut(pending)
                yield secrets.mask_body(bytes(pending[:cut]))
                del pending[:cut]
    if pending:
        yield secrets.mask_body(bytes(pending))


def _safe_cut(window: bytearray) -> int:
    # No key contains a comma, and none stands between a JSON member's name and its value.
    for separator in b',\n" ':
        cut = window.rfind(separator, WINDOW_BYTES)
        if cut >= 0:
            return cut
    return WINDOW_BYTES
