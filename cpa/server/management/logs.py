"""The application log and the files of requests (proxy 6.9), and the log's last lines in memory."""

import os
from functools import partial
from pathlib import Path
from typing import Final

import trio

from cpa.observability.log import get_logger, mask_known
from cpa.observability.log_files import MAX_LINES, LogSlice, clear, continued, since, tail
from cpa.observability.recent import LEVELS
from cpa.observability.request_files import PIECE_BYTES, RequestFile, error_files, find_error_file, find_file_of
from cpa.observability.sink import FileDestination, log_directory
from cpa.server.management.auth_file_edits import attachment
from cpa.server.management.calls import Answer, ManagementCall, Write, error_answer, json_answer
from cpa.types import JsonObject, JsonValue

log = get_logger()

DISABLED: Final = error_answer(400, "logging to file disabled")
RECENT_LINES: Final = 200
"""Of an answer, unless more are asked for."""
MAX_RECENT: Final = 2000
_SYNONYMS: Final = {"warning": "warn"}


async def read(call: ManagementCall) -> Answer:
    """``GET /logs?after=&limit=&cursor=``: the log file's lines, the oldest first."""
    if not call.runtime.config.logging_to_file:
        return DISABLED
    asked = call.query("limit")
    limit = whole(asked) if asked else MAX_LINES
    if not limit:
        return error_answer(400, f"invalid limit: expected a whole number greater than 0, got {asked[:32]!r}")
    limit = min(limit, MAX_LINES)
    after, cursor = call.query("after"), call.query("cursor")
    directory = log_folder(call)
    reset = False
    found: LogSlice | None = None
    try:
        if cursor:
            found = await trio.to_thread.run_sync(partial(continued, directory, cursor, limit))
            reset = found is None
        if found is None:
            newest = reset or (asked and not after)
            work = partial(tail, directory, limit) if newest else partial(since, directory, seconds(after), limit)
            found = await trio.to_thread.run_sync(work)
    except OSError as exc:
        return error_answer(500, f"failed to read log files: {exc.strerror}")
    lines: list[JsonValue] = [*found.lines]
    told: JsonObject = {
        "lines": lines,
        "line-count": len(lines),
        "latest-timestamp": found.latest_unix or seconds(after),
        "next-cursor": found.cursor,
    }
    if reset:
        told["cursor-reset"] = True
    if found.cut:
        told["truncated"] = True
    return json_answer(told)


async def delete(call: ManagementCall) -> Answer:
    """``DELETE /logs``: remove the rotated files, empty the active one."""
    if not call.runtime.config.logging_to_file:
        return DISABLED
    try:
        removed = await trio.to_thread.run_sync(clear, log_folder(call))
    except OSError as exc:
        return error_answer(500, f"failed to clear log files: {exc.strerror}")
    log.info("management.logs_cleared", client=call.author.client, known_by=call.author.known_by, removed=removed)
    return json_answer({"success": True, "message": "Logs cleared successfully", "removed": removed})


async def recent(call: ManagementCall) -> Answer:
    """``GET /logs/recent?cursor=&limit=&level=``: the last lines, from memory; nothing where no log is kept."""
    level = _SYNONYMS.get(call.query("level").lower(), call.query("level").lower()) or "info"
    if level not in LEVELS:
        return error_answer(400, f"invalid level: expected one of {', '.join(LEVELS)}")
    asked = call.query("limit")
    limit = whole(asked) if asked else RECENT_LINES
    if not limit:
        return error_answer(400, f"invalid limit: expected a whole number greater than 0, got {asked[:32]!r}")
    await trio.lowlevel.checkpoint()
    if call.log_sink is None:
        return json_answer({"lines": [], "next-cursor": ""})
    found = call.log_sink.recent.read(cursor=call.query("cursor"), limit=min(limit, MAX_RECENT), level=level)
    lines: list[JsonValue] = [
        {
            "time": round(line.time_unix, 3),
            "level": line.level,
            "event": mask_known(line.event),
            "text": line.line.decode("utf-8", "replace").rstrip("\n"),
        }
        for line in found.lines
    ]
    told: JsonObject = {"lines": lines, "next-cursor": found.cursor}
    if found.reset:
        told["cursor-reset"] = True
    return json_answer(told)


async def list_errors(call: ManagementCall) -> Answer:
    """``GET /request-error-logs``: files of failed requests, the newest first; none while all requests are logged."""
    if call.runtime.config.request_log:
        return json_answer({"files": []})
    try:
        found = await trio.to_thread.run_sync(error_files, log_folder(call))
    except OSError as exc:
        return error_answer(500, f"failed to list request error logs: {exc.strerror}")
    files: list[JsonValue] = [
        {"name": file.name, "size": file.size_bytes, "modified": file.modified_unix} for file in found
    ]
    return json_answer({"files": files})


async def error_log(call: ManagementCall) -> Answer:
    """``GET /request-error-logs/{name}``: such a file."""
    name = call.params["name"]
    if "/" in name or "\\" in name:
        return error_answer(400, "invalid log file name")
    return await _file(partial(find_error_file, log_folder(call), name))


async def log_of_request(call: ManagementCall) -> Answer:
    """``GET /request-log-by-id/{id}``: what was kept of the request with that trace id."""
    return await _file(partial(find_file_of, log_folder(call), call.params["id"]))


async def _file(find: "partial[RequestFile | None]") -> Answer:
    """The file that *find* opens: small ones whole, others as they are read."""
    try:
        found = await trio.to_thread.run_sync(find)
        if found is None:
            return error_answer(404, "log file not found")
        try:
            first = await trio.to_thread.run_sync(found.read)
        finally:
            found.close()
    except OSError as exc:
        return error_answer(500, f"failed to read log file: {exc.strerror}")
    headers = attachment(found.name, "text/plain; charset=utf-8")
    if len(first) < PIECE_BYTES:
        return Answer(headers=headers, body=first)

    async def feed(write: Write) -> None:
        again = await trio.to_thread.run_sync(find)  # an answer that nobody sends must not hold a file
        if again is None:
            return
        try:
            while piece := await trio.to_thread.run_sync(again.read):
                await write(piece)
        finally:
            again.close()

    return Answer(headers=headers, feed=feed)


def log_folder(call: ManagementCall) -> Path:
    """Where log files are: those of the running log, which a changed auth-dir does not move."""
    destination = None if call.log_sink is None else call.log_sink.destination
    if isinstance(destination, FileDestination):
        return destination.directory
    return log_directory(os.environ, call.runtime.config.auth_dir)


def whole(text: str) -> int:
    """A whole number greater than 0; 0 = it is none."""
    return min(int(text[:20]), 2**62) if text.isascii() and text.isdecimal() else 0


def seconds(text: str) -> int:
    """Unix seconds; 0 for what is no time, as the contract has it."""
    return whole(text.partition(".")[0])
