"""Cooldowns that outlive a restart: one ``.cds`` file per credential in the auth directory (proxy 4.9).

`cooldown_file` and `read_cooldowns` are the format, pure; `open_saver` is the task that writes. A file is written when
the set of its credential's open windows has changed, and goes when there are none. What cannot be read is ignored, and
what it claims is bounded: anybody who can write there could otherwise lock a credential out for years.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog
import trio

from cpa.credentials.writing import CredentialFileError, read_regular, write_atomically
from cpa.formats.json import JsonError, decode, encode
from cpa.jsontypes import JsonObject, JsonValue
from cpa.scheduling.failures import Kind
from cpa.scheduling.health import MAX_LEVEL, MAX_MESSAGE, UNSUPPORTED_S, WHOLE, Health, HealthBook

log = structlog.get_logger(__name__)

SUFFIX: Final = ".cds"
VERSION: Final = 1
MAX_NAME_BYTES: Final = 200
MAX_FILES: Final = 20_000
MAX_MODELS: Final = 10_000
"""Records of one file."""
GATHER_S: Final = 0.2
"""Changes within this time are written together."""
STALE_S: Final = 60.0
"""How often files are looked for whose windows have ended by themselves."""
CLOSE_S: Final = 5.0
"""For what is still to be written at the end."""
ERROR_STATUSES: Final = range(100, 600)


def file_name(credential_id: str) -> str:
    """Of a credential's file: its id, with all that some system minds in names written as ``%XX``."""
    name = quote(credential_id, safe="-_. ").replace("~", "%7E")
    name = "%2E" + name[1:] if name.startswith(".") else name
    if len(name) > MAX_NAME_BYTES:
        name = f"{name[:MAX_NAME_BYTES].rpartition('%')[0]}-{_digest(credential_id)}"
    return name + SUFFIX


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cooldown_file(credential_id: str, windows: Mapping[str, Health], *, now_unix: float) -> bytes:
    """The content of the file, as upstream writes it. *windows*: open ones by model."""
    provider = next((record.provider for record in windows.values()), "")
    records: list[JsonValue] = [_record(credential_id, model, record) for model, record in windows.items()]
    return encode(
        {
            "version": VERSION,
            "auth_id": credential_id,
            "provider": provider,
            "updated_at": _stamp(max((record.updated_unix for record in windows.values()), default=now_unix)),
            "records": records,
        }
    )


def _record(credential_id: str, model: str, record: Health) -> JsonObject:
    until = _stamp(record.until_unix)
    found: JsonObject = {
        "provider": record.provider,
        "auth_id": credential_id,
        "model": model,
        "status": "cooling",
        "next_retry_after": until,
        "reason": record.kind.value,
        "quota": {
            "exceeded": record.quota,
            "reason": record.kind.value if record.quota else "",
            "next_recover_at": until if record.quota else None,
            "backoff_level": record.level,
        },
        "last_error": {"code": "", "message": record.message, "retryable": False, "http_status": record.status},
        "updated_at": _stamp(record.updated_unix),
    }
    if record.forced:
        found["forced"] = True
    return found


def read_cooldowns(data: bytes, *, now_unix: float, max_s: float = UNSUPPORTED_S) -> Iterator[tuple[str, str, Health]]:
    """(credential id, model, record) of each window in *data* that is still open; nothing for what is no such file.

    *max_s*: no window ends later than this from now.
    """
    try:
        value = decode(data)
    except JsonError:
        return
    if not isinstance(value, dict) or value.get("version") != VERSION or isinstance(value.get("version"), bool):
        return
    credential_id, records = value.get("auth_id"), value.get("records")
    if not isinstance(credential_id, str) or not credential_id or not isinstance(records, list):
        return
    for record in records[:MAX_MODELS]:
        if isinstance(record, dict) and (found := _health(record, now_unix, max_s)) is not None:
            model = record.get("model", WHOLE)
            if isinstance(model, str):
                yield credential_id, model, found


def _health(record: JsonObject, now_unix: float, max_s: float) -> Health | None:
    quota, error = record.get("quota"), record.get("last_error")
    quota = quota if isinstance(quota, dict) else {}
    error = error if isinstance(error, dict) else {}
    until = _unix(record.get("next_retry_after")) or _unix(quota.get("next_recover_at"))
    if until is None or until <= now_unix:
        return None
    reason = record.get("reason")
    try:
        kind = Kind(reason) if isinstance(reason, str) else Kind.TRANSIENT
    except ValueError:
        kind = Kind.QUOTA if quota.get("exceeded") is True else Kind.TRANSIENT
    level, status, message = quota.get("backoff_level"), error.get("http_status"), error.get("message")
    provider = record.get("provider")
    return Health(
        until_unix=min(until, now_unix + max_s),
        kind=kind,
        level=min(level, MAX_LEVEL) if type(level) is int and level > 0 else 0,
        status=status if type(status) is int and status in ERROR_STATUSES else 0,
        message=message[:MAX_MESSAGE] if isinstance(message, str) else "",
        updated_unix=min(_unix(record.get("updated_at")) or now_unix, now_unix),
        forced=record.get("forced") is True,
        provider=provider if isinstance(provider, str) else "",
    )


def _stamp(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unix(value: JsonValue) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value[:64])
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# --- files -----------------------------------------------------------------------------------------------------------


def restore(health: HealthBook, directory: Path) -> int:
    """Take the open windows of all files in *directory*; files without any go. Blocking. Returns: how many windows."""
    count = 0
    for path in _files(directory):
        try:
            data, _ = read_regular(path)
        except (OSError, CredentialFileError) as exc:
            log.warning("cooldowns.unreadable", file=path.name, error=str(exc))
            continue
        found = list(read_cooldowns(data, now_unix=health.now()))
        for credential_id, model, record in found:
            health.restore(credential_id, model, record)
        count += len(found)
        if not found:
            _remove(path)
    return count


def _files(directory: Path) -> Iterable[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)[:MAX_FILES]
    except OSError:
        return ()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, data)
    except (OSError, CredentialFileError) as exc:
        log.warning("cooldowns.unsaved", file=path.name, error=str(exc))


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


class Saver:
    """Writes what has changed; made by `open_saver`. *directory*: where to, None = it is switched off."""

    def __init__(self, health: HealthBook, directory: Callable[[], Path | None]) -> None:
        self._health = health
        self._directory = directory
        self._changed: set[str] = set()
        self._wake = trio.Event()
        self._kept: dict[Path, bytes] = {}
        health.subscribe(self._note)

    def _note(self, credential_id: str) -> None:
        self._changed.add(credential_id)
        self._wake.set()

    async def run(self) -> None:
        """Write changes until cancelled."""
        while True:
            with trio.move_on_after(STALE_S):
                await self._wake.wait()
                await trio.sleep(GATHER_S)
            self._wake = trio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Write what has changed, and remove what has ended. Cancellation: a file is whole or untouched."""
        directory, changed = self._directory(), self._changed
        self._changed = set()
        if directory is None:
            return
        ended = {path for path in self._kept if path.parent != directory}
        for path in ended:
            del self._kept[path]
        now = self._health.now()
        open_ids = {credential_id for credential_id, _, _ in self._health.open_windows()}
        names = {file_name(credential_id): credential_id for credential_id in changed | open_ids}
        gone = [path for path in self._kept if names.get(path.name, "") not in open_ids]
        for name, credential_id in names.items():
            windows = self._health.of(credential_id)
            path = directory / name
            if not windows:
                gone.append(path)
                continue
            data = cooldown_file(credential_id, windows, now_unix=now)
            if self._kept.get(path) != data:
                await trio.to_thread.run_sync(partial(_write, path, data))
                self._kept[path] = data
        for path in dict.fromkeys(gone):
            self._kept.pop(path, None)
            await trio.to_thread.run_sync(partial(_remove, path))


@asynccontextmanager
async def open_saver(health: HealthBook, directory: Callable[[], Path | None]) -> AsyncIterator[Saver]:
    """Restore what was saved in *directory*, then keep its files up to date while the block runs.

    Args:
      directory: asked before each write, so that a reload may switch; None = nothing is saved or restored.
    """
    where = directory()
    saver = Saver(health, directory)
    if where is not None:
        count = await trio.to_thread.run_sync(partial(restore, health, where))
        if count:
            log.info("cooldowns.restored", windows=count)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saver.run, name="save-cooldowns")
        try:
            yield saver
        finally:
            nursery.cancel_scope.cancel()
            with trio.move_on_after(CLOSE_S, shield=True):
                await saver.flush()
