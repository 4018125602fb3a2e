"""The application log: structlog in front, one line per event, bytes to a `LogSink`.

Theory of operation. Loggers are structlog's lazy proxies, safe to make at import; they share one processor whose
settings `configure_logging` replaces, so a reload changes level and format of all of them at once. The processor makes
every value plain and free of secrets (`redact.plain`), renders one line, and masks the known secrets in it. stdlib
logging of the libraries comes the same way. Nothing here waits: the sink does.

Console lines are the contract's: ``[2026-10-01 10:00:00] [a1b2c3d4] [info ] [file.py:42] message key=value…``.
"""

import logging
import re
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from os.path import basename
from time import localtime, strftime, time
from types import FrameType, TracebackType
from typing import Literal, TypeAlias, cast

import msgspec
import structlog

from cpa.formats.redaction import mask_query, mask_url, redact_text
from cpa.observability.redact import KnownSecrets, Plain, plain
from cpa.observability.sink import LogSink

LogFormat = Literal["console", "json"]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Trace id (8 hex digits) of the inbound request that this task works for; empty = none. Tasks inherit it."""

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
_PADDED = {"debug": "debug", "info": "info ", "warn": "warn ", "error": "error"}
MAX_REMEMBERED_CHARS = 512
"""Of the texts of an access line; longer ones are looked at anew each time, or strangers would fill the memory."""
MAX_TRACEBACK_CHARS = 32 * 1024
"""Exception groups of exception groups grow without limit; the start and the end of a traceback tell the story."""

# C0 and C1 controls, line and paragraph separators, bidirectional overrides, lone surrogates: what could forge a line,
# drive a terminal or break the encoder.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NEEDS_QUOTES = re.compile(r"[\s\"=\[\]]|^$")
_SURROGATES = re.compile("[\ud800-\udfff]")
# The libraries' own handlers would write past the sink.
_FOREIGN_LOGGERS = ("hypercorn.error", "hypercorn.access", "quart.app", "quart.serving", "httpx", "httpcore", "trio")


class BoundLogger(structlog.BoundLoggerBase):
    """What `get_logger` gives: an event in a few words and its data as fields. Never raises for strange values."""

    def debug(self, event: str, **fields: object) -> None:
        """For those who look for a fault; off unless ``debug: true``."""
        if _renderer.level <= DEBUG:
            self._proxy_to_logger("debug", event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """What an operator likes to see."""
        if _renderer.level <= INFO:
            self._proxy_to_logger("info", event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something an operator should look at."""
        self._proxy_to_logger("warn", event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Something failed that should not; ``exc_info=True`` or an exception adds the traceback."""
        self._proxy_to_logger("error", event, **fields)

    def exception(self, event: str, **fields: object) -> None:
        """`error` with the traceback of the exception that is being handled."""
        fields.setdefault("exc_info", True)
        self._proxy_to_logger("error", event, **fields)

    def is_enabled_for(self, level: int) -> bool:
        """Whether lines of *level* (`DEBUG`, `INFO`, …) are written: to save the making of expensive fields."""
        return _renderer.level <= level


class _SinkLogger:
    """What structlog calls last: all levels are one write."""

    def write(self, line: bytes) -> None:
        sink = _renderer.sink
        if sink is not None:
            sink.write(line)
        else:  # before configuration, e.g. in a tool or a test
            sys.stderr.write(line.decode("utf-8", "backslashreplace"))

    debug = info = warn = error = write


class _Renderer:
    """The one processor: an event's fields in, one line of bytes out."""

    def __init__(self) -> None:
        self.level = INFO
        self.json = False
        self.sink: LogSink | None = None
        self.secrets = KnownSecrets()
        self._harmless: set[str] = set()
        self._second = -1
        self._second_text = ""

    def __call__(self, logger: object, method: str, fields: structlog.typing.EventDict) -> bytes:
        # logger method ← _proxy_to_logger ← _process_event ← here; helpers of this module are skipped.
        frame: FrameType | None = sys._getframe(4)
        while frame is not None and frame.f_globals is _GLOBALS:
            frame = frame.f_back
        where = f"{basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame is not None else "?"
        event = fields.pop("event", "")
        exc_info = fields.pop("exc_info", None)
        return self.line(method, where, event, fields, _exc_info(exc_info) if exc_info else None)

    def line(
        self, level: str, where: str, event: object, fields: structlog.typing.EventDict, exc: ExcInfo | None = None
    ) -> bytes:
        """One complete line (console: more with a traceback), redacted, with its line end."""
        secrets = self.secrets
        trace = secrets.redact_text(_traceback(exc)) if exc is not None else ""
        text = self._event(event if isinstance(event, str) else str(event))
        values = {name: plain(name, value, secrets) for name, value in fields.items()}
        encoded = self.secrets.mask_in((self._json if self.json else self._console)(level, where, text, values, trace))
        if self.sink is not None:
            self.sink.recent.add(level, text, encoded)
        return encoded

    def access(
        self, level: str, where: str, status: int, latency_ms: float, client: str, method: str, path: str
    ) -> bytes:
        """The line that `line` makes of these fields, in one go where nothing in them has to be hidden."""
        shown_client = shown_method = shown_path = None
        if len(client) + len(method) + len(path) <= MAX_REMEMBERED_CHARS:
            shown_client, shown_method, shown_path = _harmless(client), _harmless(method), _harmless(path)
        if (
            shown_client is None
            or shown_method is None
            or shown_path is None
            or (self.json and not (client + method + path).isascii())
        ):
            fields = {"status": status, "latency_ms": latency_ms, "client": client, "method": method, "path": path}
            return self.line(level, where, "request", fields)
        now = time()
        second = int(now)
        stamp = self._second_text if second == self._second else self._stamp(second)
        if self.json:
            text = _encode_access(
                _AccessLine(
                    f"{stamp}.{int((now - second) * 1000):03d}Z",
                    *(level, "request", request_id.get(), where, status, latency_ms, client, method, path),
                )
            )
        else:
            text = (
                f"[{stamp}] [{request_id.get() or '--------'}] [{_PADDED[level]}] [{where}] request status={status}"
                f" latency_ms={latency_ms:.6g} client={shown_client} method={shown_method} path={shown_path}"
            ).encode("utf-8", "backslashreplace")
        encoded = self.secrets.mask_in(text + b"\n")
        if self.sink is not None:
            self.sink.recent.add(level, "request", encoded)
        return encoded

    def _event(self, event: str) -> str:
        # Events are constants of the program; what varies is a field. So those that proved harmless are remembered.
        if event in self._harmless:
            return event
        text = str(plain("", event, self.secrets))
        if text == event and len(event) <= 64 and len(self._harmless) < 512:
            self._harmless.add(event)
        return text

    def _console(self, level: str, where: str, event: str, fields: dict[str, Plain], trace: str) -> bytes:
        stamp = self._stamp(int(time()))
        line = f"[{stamp}] [{request_id.get() or '--------'}] [{_PADDED[level]}] [{where}] {_escape(event)}"
        for name, value in fields.items():
            line += f" {_escape(name)}={_console_value(value)}"
        for piece in trace.splitlines():
            # Indented, so that no text of an exception can pass as the head of another line.
            line += "\n    " + _escape(piece)
        return line.encode("utf-8", "backslashreplace") + b"\n"

    def _json(self, level: str, where: str, event: str, fields: dict[str, Plain], trace: str) -> bytes:
        now = time()
        second = int(now)
        record: dict[str, Plain] = {
            "ts": f"{self._stamp(second)}.{int((now - second) * 1000):03d}Z",
            "level": level,
            "event": event,
            "request_id": request_id.get(),
            "caller": where,
        }
        for name, value in fields.items():
            record[f"{name}_" if name in record else name] = value
        if trace:
            record["exception"] = trace
        try:
            return msgspec.json.encode(record) + b"\n"
        except UnicodeEncodeError:  # lone surrogates, from undecodable file names and the like
            return msgspec.json.encode(_without_surrogates(record)) + b"\n"

    def _stamp(self, second: int) -> str:
        if second != self._second:  # formatting a date costs as much as the rest of the line
            if self.json:
                text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            else:
                text = strftime("%Y-%m-%d %H:%M:%S", localtime(second))
            self._second, self._second_text = second, text
        return self._second_text

    def configure(self, *, json: bool, debug: bool, sink: LogSink, secrets: KnownSecrets) -> None:
        self.level = DEBUG if debug else INFO
        self.json = json
        self.sink = sink
        self.secrets = secrets
        self._second = -1  # the stamp is of the other format


def _escape_character(match: re.Match[str]) -> str:
    code = ord(match[0])
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _escape(text: str) -> str:
    return _UNSAFE.sub(_escape_character, text)


def _console_value(value: Plain) -> str:
    if isinstance(value, str):
        if _NEEDS_QUOTES.search(value) is None:
            return _escape(value)
        return '"' + _escape(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, dict)):
        return _escape(msgspec.json.encode(_without_surrogates(value)).decode())
    return str(value)


class _AccessLine(msgspec.Struct, gc=False):
    """As `_Renderer._json` writes it."""

    ts: str
    level: str
    event: str
    request_id: str
    caller: str
    status: int
    latency_ms: float
    client: str
    method: str
    path: str


_encode_access = msgspec.json.Encoder().encode


@lru_cache(maxsize=1024)
def _harmless(value: str) -> str | None:
    """*value* as console lines show it under an ordinary name; None where something in it may be a secret."""
    return None if redact_text(value) != value else _console_value(value)


_file_name = lru_cache(maxsize=64)(basename)


def _without_surrogates(value: Plain) -> Plain:
    if isinstance(value, str):
        return _SURROGATES.sub(_escape_character, value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_SURROGATES.sub(_escape_character, key): _without_surrogates(item) for key, item in value.items()}
    return value


def _exc_info(given: object) -> ExcInfo | None:
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    if isinstance(given, tuple):
        return cast("ExcInfo", given) if given and given[0] is not None else None
    found = sys.exc_info()
    return found if found[0] is not None else None


def _traceback(exc: ExcInfo) -> str:
    text = "".join(traceback.format_exception(*exc)).rstrip("\n")
    if len(text) > MAX_TRACEBACK_CHARS:
        half = MAX_TRACEBACK_CHARS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text


class _StdlibHandler(logging.Handler):
    """Brings the libraries' records into the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= ERROR else "warn" if record.levelno >= WARNING else "info"
        if record.levelno < INFO:
            level = "debug"
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a library's own mistake in its format string
            message = str(record.msg)
        message = _renderer.secrets.mask_text(message)  # our own events are constants; theirs hold anything
        exc = record.exc_info if record.exc_info and record.exc_info[0] is not None else None
        fields: structlog.typing.EventDict = {"logger": record.name}
        _sink_logger.write(_renderer.line(level, f"{record.filename}:{record.lineno}", message, fields, exc))


_GLOBALS = globals()
_renderer = _Renderer()
_sink_logger = _SinkLogger()


def configure_logging(
    *, format: LogFormat = "console", debug: bool = False, sink: LogSink, secrets: KnownSecrets | None = None
) -> None:
    """Send the log of this process to *sink*; call it again at a reload.

    Args:
      debug: level debug instead of info; library messages from info instead of warning.
      secrets: masked wherever they occur; the caller replaces its content at reloads.
    Ownership: *sink* stays the caller's.
    """
    _renderer.configure(json=format == "json", debug=debug, sink=sink, secrets=secrets or KnownSecrets())
    sink.dropped_line = _dropped_line
    structlog.configure(
        processors=[_renderer],
        wrapper_class=BoundLogger,
        logger_factory=lambda *_: _sink_logger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in root.handlers[:]:
        # Ours of before, and what logging.basicConfig made; not what others (test runners) derived from it.
        if isinstance(handler, _StdlibHandler) or type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    root.addHandler(_StdlibHandler())
    root.setLevel(logging.INFO if debug else logging.WARNING)
    for name in _FOREIGN_LOGGERS:
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
        foreign.setLevel(logging.NOTSET)


def _dropped_line(count: int) -> bytes:
    return _renderer.line("warn", "log.py:0", f"{count} log lines dropped", {"count": count})


def mask_known(text: str) -> str:
    """*text* without the secrets that this process's log knows."""
    return _renderer.secrets.mask_text(text)


def get_logger(**fields: object) -> BoundLogger:
    """A logger whose lines all carry *fields*; make one per module, at import."""
    return cast("BoundLogger", structlog.get_logger(**fields))


def log_access(*, status: int, duration_s: float, client: str, method: str, path: str, query: str = "") -> None:
    """Write the access line of one request: error from status 500, warn from 400, else info.

    Args:
      path: as received, percent-encoded or not; *query*: raw, without ``?``, secrets still in it.
    """
    level = "info" if status < 400 else "warn" if status < 500 else "error"
    if status < 400 and _renderer.level > INFO:
        return
    if query:
        path = f"{path}?{mask_query(query)}"
    latency_ms = round(duration_s * 1000, 3)
    sink = _renderer.sink
    if sink is None:  # an embedder's process: what it has made of structlog counts
        log = structlog.get_logger()
        getattr(log, level)("request", status=status, latency_ms=latency_ms, client=client, method=method, path=path)
        return
    caller = sys._getframe(1)
    where = f"{_file_name(caller.f_code.co_filename)}:{caller.f_lineno}"
    # Not by way of structlog: this line is written for every request, and always has these fields.
    sink.write(_renderer.access(level, where, status, latency_ms, client, method, path))


__all__ = [
    "DEBUG",
    "ERROR",
    "INFO",
    "WARNING",
    "BoundLogger",
    "KnownSecrets",
    "LogFormat",
    "LogSink",
    "configure_logging",
    "get_logger",
    "log_access",
    "mask_known",
    "mask_url",
    "request_id",
]
