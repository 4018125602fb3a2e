"""Request logs: per request a file that shows what came in, what went to providers, what came back, what went out.

Theory of operation. A request's `RequestRecord` only keeps references, in sync methods; `finish` decides whether there
will be a file and hands the record to one writer task, through a queue bounded in items and bytes that drops when it is
full. Files are written in a thread of a limiter of its own. With ``request-log: false`` nothing but references to
buffers that the request holds anyway is kept, and these are let go as soon as the answer turns out to be no error.
With ``request-log: true`` bodies beyond 1 MiB go to a nameless spool file, through the same queue, while they pass.
"""

import secrets as random_source
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from operator import is_
from pathlib import Path
from time import time
from typing import Final, Protocol

import attrs
import trio

from cpa.errors import RawHeaders
from cpa.observability.log import get_logger
from cpa.observability.redact import KnownSecrets
from cpa.observability.request_log_file import (
    MAX_CAPTURE_BYTES,
    Attempt,
    Capture,
    RecordData,
    has_header,
    prune_errors,
    stamp,
    write_record,
)

MEMORY_BYTES: Final = 1024 * 1024
"""Of each body, kept in memory; the rest is spooled (request-log on) or cut (off)."""
MAX_QUEUED_JOBS: Final = 256
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
CLOSE_GRACE_S: Final = 2.0
"""Longest wait for the queue to be written at the end; disks may hang."""
DEFAULT_ERROR_FILES: Final = 10
NOT_LOGGED: Final = ("/v0/management", "/management")

_log = get_logger()


def _error_files(count: int) -> int:
    return count if count >= 0 else DEFAULT_ERROR_FILES


@attrs.frozen(kw_only=True)
class RequestLogSettings:
    """What the configuration says about request logs.

    Attributes:
      directory: where the files go; created with mode 0700 when needed.
      enabled: a file for each request (``request-log``); else only for errors.
      commercial: no request logs at all (``commercial-mode``).
      error_files: newest ``error-*.log`` that are kept; 0 = all; negative = 10.
      version: of this program, for the files.
    """

    directory: Path
    enabled: bool = False
    commercial: bool = False
    error_files: int = attrs.field(default=DEFAULT_ERROR_FILES, converter=_error_files)
    version: str = ""


class RequestRecord(Protocol):
    """What the layers report about one request. All methods are cheap, sync, and never raise.

    Buffers are kept by reference and must not change afterwards. `finish` must be called, and is the end.
    """

    @property
    def active(self) -> bool:
        """False: nothing more is recorded; callers may save the making of arguments."""
        ...

    def request_body(self, *buffers: bytes) -> None:
        """The client's body, or a part of it, as received or decoded."""
        ...

    def attempt(
        self, *, url: str, method: str, headers: RawHeaders, body: Sequence[bytes] = (), auth: str = ""
    ) -> None:
        """A request to a provider starts; what follows belongs to it. *auth*: a label, never a key."""
        ...

    def attempt_response(self, status: int, headers: RawHeaders) -> None:
        """The head of the provider's answer."""
        ...

    def attempt_body(self, chunk: bytes) -> None:
        """A piece of the provider's answer, decoded."""
        ...

    def attempt_error(self, text: str) -> None:
        """The attempt failed without a (complete) answer."""
        ...

    def response(self, status: int, headers: RawHeaders) -> None:
        """The head of our answer."""
        ...

    def response_chunk(self, chunk: bytes) -> None:
        """A piece of our answer; call it after the client got it."""
        ...

    def websocket_message(self, direction: str, data: bytes) -> None:
        """A message of a WebSocket session; the file gets a timeline instead of the response."""
        ...

    def finish(self, status: int, *, canceled: bool = False) -> None:
        """The request is over. *canceled*: the client went away (499). Further calls do nothing."""
        ...


class NullRecord:
    """For requests that are not logged; one for all of them."""

    active = False

    def request_body(self, *buffers: bytes) -> None:
        """Nothing."""

    def attempt(
        self, *, url: str, method: str, headers: RawHeaders, body: Sequence[bytes] = (), auth: str = ""
    ) -> None:
        """Nothing."""

    def attempt_response(self, status: int, headers: RawHeaders) -> None:
        """Nothing."""

    def attempt_body(self, chunk: bytes) -> None:
        """Nothing."""

    def attempt_error(self, text: str) -> None:
        """Nothing."""

    def response(self, status: int, headers: RawHeaders) -> None:
        """Nothing."""

    def response_chunk(self, chunk: bytes) -> None:
        """Nothing."""

    def websocket_message(self, direction: str, data: bytes) -> None:
        """Nothing."""

    def finish(self, status: int, *, canceled: bool = False) -> None:
        """Nothing."""


NO_RECORD: Final = NullRecord()


class LiveRecord:
    """A request that may get a file; made by `RequestLogs.begin`."""

    __slots__ = ("_data", "_errors_only", "_limit", "_logs", "_settings", "active")

    def __init__(self, logs: "RequestLogs", settings: RequestLogSettings, data: RecordData) -> None:
        self._logs = logs
        self._settings = settings
        self._data = data
        self._errors_only = not settings.enabled
        self._limit = MEMORY_BYTES if self._errors_only else MAX_CAPTURE_BYTES
        self.active = True

    def request_body(self, *buffers: bytes) -> None:
        """See `RequestRecord`."""
        if not self.active:
            return
        data = self._data
        # References, not copies: up to the full limit even when only errors are logged, whatever the body is.
        limit = MAX_CAPTURE_BYTES if self._errors_only or not data.multipart else 0
        for buffer in buffers:
            self._add(data.body, buffer, limit)

    def attempt(
        self, *, url: str, method: str, headers: RawHeaders, body: Sequence[bytes] = (), auth: str = ""
    ) -> None:
        """See `RequestRecord`."""
        if not self.active:
            return
        capture, chunks = Capture(), self._data.body.chunks
        attempt = Attempt(started_unix=time(), url=url, method=method, headers=headers, auth=auth, body=capture)
        self._data.attempts.append(attempt)
        # A body that passes as it came costs nothing to keep; translated ones would pile up with each retry.
        limit = MAX_CAPTURE_BYTES if len(body) == len(chunks) and all(map(is_, body, chunks)) else self._limit
        for buffer in body:
            self._add(capture, buffer, limit)

    def attempt_response(self, status: int, headers: RawHeaders) -> None:
        """See `RequestRecord`."""
        if self.active and self._data.attempts:
            attempt = self._data.attempts[-1]
            attempt.status, attempt.response_headers, attempt.responded_unix = status, headers, time()

    def attempt_body(self, chunk: bytes) -> None:
        """See `RequestRecord`."""
        if self.active and self._data.attempts:
            attempt = self._data.attempts[-1]
            if not self._errors_only or attempt.status >= 400:
                self._add(attempt.response, chunk, self._limit)

    def attempt_error(self, text: str) -> None:
        """See `RequestRecord`."""
        if self.active:
            self._data.errors.append((time(), text))

    def response(self, status: int, headers: RawHeaders) -> None:
        """See `RequestRecord`."""
        if not self.active:
            return
        if self._errors_only and status < 400:
            self._discard()  # a stream may run for an hour: let the request's buffers go now
        else:
            self._data.status, self._data.response_headers = status, headers

    def response_chunk(self, chunk: bytes) -> None:
        """See `RequestRecord`."""
        if self.active:
            self._add(self._data.response, chunk, self._limit)

    def websocket_message(self, direction: str, data: bytes) -> None:
        """See `RequestRecord`."""
        if self.active and not self._errors_only:
            head = f"Timestamp: {stamp(time())}\nEvent: {direction}\n".encode("utf-8", "backslashreplace")
            self._add(self._data.timeline, head + data + b"\n\n", MAX_CAPTURE_BYTES)

    def finish(self, status: int, *, canceled: bool = False) -> None:
        """See `RequestRecord`."""
        if not self.active:
            return
        if self._errors_only and (status < 400 or status == 499 or canceled):
            self._discard()
            return
        self.active = False
        self._data.status, self._data.canceled = status, canceled
        if self._errors_only and self._data.multipart:  # where all requests are logged, nothing of it was kept
            for capture in (self._data.body, *(attempt.body for attempt in self._data.attempts)):
                capture.forget()
        self._logs._submit_record(self._data, self._settings)

    def _discard(self) -> None:
        self.active = False
        if not self._errors_only:  # else nothing of it is in a spool
            self._logs._abandon(self._data)
        self._data = _EMPTY

    def _add(self, capture: Capture, chunk: bytes, limit_bytes: int) -> None:
        capture.add(chunk, limit_bytes)
        if not self._errors_only and capture.memory_bytes > MEMORY_BYTES:
            self._logs._submit_spool(capture, self._settings.directory)


_EMPTY: Final = RecordData(started_unix=0, method="", path="", query="", headers=(), trace_id="", transport="")


@attrs.frozen(kw_only=True)
class _SpoolJob:
    capture: Capture
    chunks: Sequence[bytes]
    directory: Path
    size_bytes: int


@attrs.frozen(kw_only=True)
class _WriteJob:
    record: RecordData
    settings: RequestLogSettings
    size_bytes: int


class RequestLogs:
    """The service; made by `open_request_logs`, used from the Trio thread only."""

    def __init__(self, settings: RequestLogSettings, *, secrets: KnownSecrets, max_jobs: int = MAX_QUEUED_JOBS) -> None:
        self._settings = settings
        self._secrets = secrets
        self._limiter = trio.CapacityLimiter(1)  # files in order; and other threads keep their own tokens
        self._send, self._receive = trio.open_memory_channel[_SpoolJob | _WriteJob](max_jobs)
        self._queued_bytes = 0
        self._abandoned: deque[Capture] = deque()
        self._done = trio.Event()
        self._reported = 0
        self.dropped = 0
        """Records lost since the start because the writer could not keep up or the disk refused."""

    def configure(self, settings: RequestLogSettings) -> None:
        """Use *settings* for requests that begin from now on."""
        self._settings = settings

    def begin(
        self,
        *,
        method: str,
        path: str,
        headers: RawHeaders,
        query: str = "",
        trace_id: str = "",
        transport: str = "http",
    ) -> RequestRecord:
        """The record of a request; `NO_RECORD` for those that are never logged.

        Args:
          path: decoded; *query*: raw, without ``?``.
          trace_id: 8 hex digits, or empty.
          transport: of the client, ``http`` or ``websocket``.
        """
        settings = self._settings
        if settings.commercial or (path.startswith(NOT_LOGGED) and _is_below(path)):
            return NO_RECORD
        if method == "GET" and not has_header(headers, b"upgrade", b"websocket"):
            return NO_RECORD
        return LiveRecord(self, settings, RecordData(time(), method, path, query, headers, trace_id, transport))

    def _submit_record(self, record: RecordData, settings: RequestLogSettings) -> None:
        size = sum(capture.memory_bytes for capture in record.captures())
        if not record.trace_id:
            record.trace_id = random_source.token_hex(4)
        if not self._submit(_WriteJob(record=record, settings=settings, size_bytes=size)):
            self.dropped += 1
            self._abandon(record)

    def _submit_spool(self, capture: Capture, directory: Path) -> None:
        size = capture.memory_bytes
        if not self._submit(_SpoolJob(capture=capture, chunks=capture.take(), directory=directory, size_bytes=size)):
            capture.give_up(size)

    def _submit(self, job: _SpoolJob | _WriteJob) -> bool:
        if self._queued_bytes + job.size_bytes > MAX_QUEUED_BYTES:
            return False
        try:
            self._send.send_nowait(job)
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            return False
        self._queued_bytes += job.size_bytes
        return True

    def _abandon(self, record: RecordData) -> None:
        for capture in record.captures():
            capture.closed = True
            if capture.spool is not None:  # the writer may be using it at this moment: it closes it
                self._abandoned.append(capture)

    async def serve(self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until the queue is closed and empty; shielded, ended early by the scope that it starts with."""
        with trio.CancelScope(shield=True) as scope:
            task_status.started(scope)
            try:
                async for job in self._receive:
                    await self._process(job)
            finally:
                self._give_up_queued()
                self._receive.close()
                self._done.set()

    def _give_up_queued(self) -> None:
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                job = self._receive.receive_nowait()
                if isinstance(job, _WriteJob):
                    self.dropped += 1
                    self._abandon(job.record)
                else:
                    self._abandoned.append(job.capture)
        self._close_abandoned()

    async def _process(self, job: _SpoolJob | _WriteJob) -> None:
        try:
            work = partial(self._spool, job) if isinstance(job, _SpoolJob) else partial(self._write, job)
            # Abandoned only past the grace time at the very end: a hung disk must not keep the process.
            await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        except (OSError, ValueError) as exc:  # a full disk; a text that cannot be rendered
            if isinstance(job, _SpoolJob):
                job.capture.give_up(job.size_bytes)
            else:
                self.dropped += 1
            _log.warning("request log could not be written", error=exc)
        finally:
            self._queued_bytes -= job.size_bytes
            if isinstance(job, _SpoolJob) and job.capture.closed:  # abandoned while it was being spooled
                job.capture.close()
        self._close_abandoned()
        if self.dropped > self._reported:
            _log.warning("request logs dropped", count=self.dropped - self._reported)
            self._reported = self.dropped

    def _spool(self, job: _SpoolJob) -> None:
        job.capture.append_to_spool(job.chunks, job.directory)

    def _write(self, job: _WriteJob) -> None:
        settings = job.settings
        error = not settings.enabled
        try:
            write_record(
                job.record,
                directory=settings.directory,
                version=settings.version,
                error=error,
                secrets=self._secrets,
            )
            if error:
                prune_errors(settings.directory, settings.error_files)
        finally:
            for capture in job.record.captures():
                capture.close()

    def _close_abandoned(self) -> None:
        while self._abandoned:
            self._abandoned.popleft().close()

    async def drain(self) -> None:
        """Take no more records, wait until all are written. One checkpoint at least; idempotent."""
        self._send.close()
        await self._done.wait()


def _is_below(path: str) -> bool:
    return any(path == root or path.startswith(root + "/") for root in NOT_LOGGED)


@asynccontextmanager
async def open_request_logs(
    settings: RequestLogSettings,
    *,
    secrets: KnownSecrets | None = None,
    max_jobs: int = MAX_QUEUED_JOBS,
    close_grace_s: float = CLOSE_GRACE_S,
) -> AsyncIterator[RequestLogs]:
    """The service while the block runs; at its end, also when cancelled, what is queued gets *close_grace_s* more."""
    async with trio.open_nursery() as nursery:
        logs = RequestLogs(settings, secrets=secrets or KnownSecrets(), max_jobs=max_jobs)
        writer: trio.CancelScope = await nursery.start(logs.serve, name="request-logs")
        try:
            yield logs
        finally:
            with trio.move_on_after(close_grace_s, shield=True):
                await logs.drain()
            writer.cancel()
