"""Credential files: JSON objects at the top level of ``auth-dir``, one credential each (proxy 3.4).

Everything in here is blocking file I/O: callers run it in a thread. A name never leads out of the directory, a file is
replaced whole or not at all, and neither file nor directory is for other users' eyes.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import time_ns
from typing import Final

import attrs
import msgspec

from cpa.credentials.from_config import auth_index
from cpa.credentials.members import FileSettings, renamed, settings_of
from cpa.credentials.writing import (
    FILE_MODE,
    MAX_FILE_BYTES,
    CredentialFileError,
    UnreadableFile,
    locked,
    read_regular,
    write_atomically,
)
from cpa.types import JsonObject, JsonValue

__all__ = [
    "DIRECTORY_MODE",
    "FILE_MODE",
    "MAX_FILE_BYTES",
    "CredentialFile",
    "CredentialFileError",
    "CredentialFiles",
    "SkippedFile",
    "check_name",
    "check_weight",
    "write_atomically",
]

DIRECTORY_MODE: Final = 0o700
MAX_WEIGHT: Final = 1_000_000
"""As in the configuration file."""
MAX_NAME_BYTES: Final = 255
"""Of one path component on every file system in use."""
UNKNOWN_PROVIDER: Final = "unknown"
"""Provider of a file that names none."""

MAX_SKIPPED: Final = 1000
"""Files that are named as left out; who has more has another problem."""
SETTLED_NS: Final = 2_000_000_000
"""A file that was written so shortly before it was read may be written again without its time changing: file systems
count in steps of some milliseconds, network drives in whole seconds."""
STALE_S: Final = 3600.0
"""Age of scratch files of processes that were killed, after which they are removed."""

_SUFFIX: Final = ".json"
_SCRATCH = re.compile(r"\.[0-9a-f]{16}\.tmp")
_BAD_NAME = re.compile(r"[/\\:\x00-\x1f\x7f]|[\ud800-\udfff]")
"""Separators, drives and streams of any system, and what no file name of ours should hold."""


@attrs.frozen(kw_only=True)
class CredentialFile:
    """One file as it was read last. Times are UTC.

    Attributes:
      path: absolute.
      index: by which plugins and management calls name it; stable over restarts.
      type: as the file says; ``provider`` is the same in lower case, `UNKNOWN_PROVIDER` if it says nothing.
      members: the whole object.
      raw: its text.
      digest: SHA-256 of that.
      settings: what it asks of the proxy.
    """

    name: str
    path: Path
    index: str
    type: str
    provider: str
    size_bytes: int
    modified: datetime
    members: Mapping[str, JsonValue] = attrs.field(repr=False)
    raw: bytes = attrs.field(repr=False)
    digest: str = attrs.field(repr=False)
    settings: FileSettings = attrs.field(factory=FileSettings, repr=False)

    @property
    def disabled(self) -> bool:
        """The operator has taken it out of use."""
        return self.members.get("disabled") is True

    def text(self, name: str) -> str:
        """A string member without blanks around it, or empty."""
        value = self.members.get(name)
        return value.strip() if isinstance(value, str) else ""

    def integer(self, name: str) -> int:
        """An integer member, also written as a string; 0 otherwise."""
        value = self.members.get(name)
        if isinstance(value, bool) or not isinstance(value, int | str):
            return 0
        try:
            number = int(value)
        except ValueError:
            return 0
        return number if abs(number) < 2**63 else 0


@attrs.frozen(kw_only=True)
class SkippedFile:
    """A file in the directory that is no usable credential.

    Attributes:
      name: as it may be shown: what cannot be printed is escaped.
      reason: ``expected …, got …``; never shows content.
      broken: it exists, but holds no whole JSON object; what it said before may be all that is left of it.
    """

    name: str
    path: Path
    reason: str
    broken: bool = False


@attrs.frozen
class _Seen:
    """A file's identity at the time of its reading: as long as it is the same, so is the content."""

    identity: tuple[int, int, int, int]
    file: CredentialFile


class CredentialFiles:
    """The files of one directory. Thread-safe: each method changes shared state in single assignments.

    Attributes:
      skipped: what the last `list` left out, by name; `MAX_SKIPPED` at most.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(os.path.abspath(directory))
        self.skipped: tuple[SkippedFile, ...] = ()
        self._seen: dict[Path, _Seen] = {}
        self._by_index: dict[str, Path] = {}

    def list(self) -> tuple[CredentialFile, ...]:
        """Every readable credential file, by lower-case name. A missing directory has none.

        Files that hold no JSON object, or too much, are left out, see `skipped`. Raises: CredentialFileError.
        """
        skipped: dict[str, SkippedFile] = {}
        try:
            found = list(self._scan(skipped))
        except FileNotFoundError:
            found = []
        except OSError as exc:
            raise CredentialFileError(f"failed to read auth dir: {exc.strerror}", http_status=500) from exc
        seen = {item.file.path: item for item in found}
        # A file that just became unreadable is still known by its index, so that the error can say what happened.
        lost = {index: path for index, path in self._by_index.items() if path not in seen and path.exists()}
        self._by_index = lost | {item.file.index: item.file.path for item in found}
        self._seen = seen
        self.skipped = tuple(skipped[name] for name in sorted(skipped)[:MAX_SKIPPED])
        return tuple(sorted((item.file for item in found), key=lambda file: (file.name.lower(), file.name)))

    def _scan(self, skipped: dict[str, SkippedFile]) -> Iterator[_Seen]:
        def skip(name: str, reason: str, *, broken: bool = False) -> None:
            shown = ascii(name)[1:-1] if _BAD_NAME.search(name) else name
            skipped[name] = SkippedFile(name=shown, path=self.directory / name, reason=reason, broken=broken)

        with os.scandir(self.directory) as entries:
            for entry in entries:
                if not entry.name.lower().endswith(_SUFFIX):
                    if _SCRATCH.fullmatch(entry.name):
                        _sweep(entry)
                    continue
                if _BAD_NAME.search(entry.name):
                    skip(entry.name, "expected a name without control characters and separators of any system")
                    continue
                try:
                    if entry.is_dir():
                        continue
                    if entry.is_symlink() and not self._inside(entry.path):
                        skip(entry.name, "expected a file of this folder, got a link that leads out of it")
                        continue
                    yield self._look(Path(entry.path))
                except FileNotFoundError:
                    continue  # replaced or removed right now: a matter for the next look
                except OSError as exc:
                    skip(entry.name, f"expected a readable file, got: {exc.strerror}", broken=True)
                except UnreadableFile as exc:
                    skip(entry.name, exc.message)
                except CredentialFileError as exc:
                    skip(entry.name, exc.message, broken=True)

    def _inside(self, path: str) -> bool:
        """Kubernetes mounts files as links within their folder; others lead to what nobody meant to be a credential."""
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.directory))

    def _look(self, path: Path) -> _Seen:
        """The file at *path*, from memory if unchanged. Raises: OSError; CredentialFileError."""
        known = self._seen.get(path)
        if known is not None and known.identity == _identity(path.stat()) and not _fresh(known):
            return known
        raw, status = read_regular(path)
        digest = hashlib.sha256(raw).hexdigest()
        if known is not None and known.file.digest == digest:  # touched only, or just not old enough to be trusted
            modified = _modified(status)
            same = known.file if known.file.modified == modified else attrs.evolve(known.file, modified=modified)
            return _Seen(_identity(status), same)
        problem = _problem(raw)
        if problem:
            raise CredentialFileError(f"expected a JSON object, got: {problem}")
        value: JsonObject = msgspec.json.decode(raw)
        kind = value.get("type")
        kind = kind.strip() if isinstance(kind, str) else ""
        provider = kind.lower() or UNKNOWN_PROVIDER
        file = CredentialFile(
            name=path.name,
            path=path,
            index=auth_index(f"{provider}:{path}"),
            type=kind,
            provider=provider,
            size_bytes=len(raw),
            modified=_modified(status),
            members=value,
            raw=raw,
            digest=digest,
            settings=settings_of(renamed(value)),
        )
        return _Seen(_identity(status), file)

    def find(self, index: str) -> CredentialFile | None:
        """The file that goes by *index*. Raises: CredentialFileError."""
        return next((file for file in self.list() if file.index == index), None)

    def read(self, index: str) -> tuple[Path, bytes]:
        """Where the file of that *index* is, and its present content, which is one JSON text.

        Raises: CredentialFileError.
        """
        file = self.find(index)
        path = file.path if file is not None else self._by_index.get(index)
        if path is None:
            raise CredentialFileError(f"auth not found for auth_index {index}", http_status=404)
        try:
            with path.open("rb") as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError as exc:
            raise CredentialFileError(f"auth file not found for auth_index {index}", http_status=404) from exc
        except OSError as exc:
            raise CredentialFileError(f"failed to read auth file: {exc.strerror}", http_status=500) from exc
        if not data.strip():
            raise CredentialFileError(f"auth file is empty for auth_index {index}", http_status=500)
        problem = _problem(data)
        if problem:
            raise CredentialFileError(f"invalid auth file for auth_index {index}: {problem}", http_status=500)
        return path, data

    def save(self, name: str, data: bytes) -> Path:
        """Write *data*, the text of a JSON object, to the file *name* as it is: whole or not at all.

        The directory is made if missing. Raises: CredentialFileError; nothing was changed then.
        """
        check_name(name)
        if not data.strip() or data.strip() == b"null":
            raise CredentialFileError("json is required")
        problem = _problem(data)
        if problem:
            raise CredentialFileError(f"invalid auth json: {problem}")
        members: JsonObject = msgspec.json.decode(data)
        if "weight" in members:
            check_weight(members["weight"])
        path = self.directory / name
        try:
            self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            with locked(self.directory):
                write_atomically(path, data)
        except OSError as exc:
            raise CredentialFileError(f"failed to write auth file: {exc.strerror}", http_status=500) from exc
        return path


def check_name(name: str) -> None:
    """Refuse what is no bare file name, or not one of a credential. Raises: CredentialFileError."""
    stem = name[: -len(_SUFFIX)]
    if not name or name != name.strip() or _BAD_NAME.search(name) or len(name.encode()) > MAX_NAME_BYTES:
        raise CredentialFileError("invalid auth file name")
    if not name.lower().endswith(_SUFFIX):
        raise CredentialFileError("auth file name must end with .json")
    if not stem.strip("."):
        raise CredentialFileError("invalid auth file name")


def check_weight(value: JsonValue) -> None:
    """Refuse a weight that no scheduler could use; absent and null mean the default. Raises: CredentialFileError."""
    if value is None:
        return
    number = value
    if isinstance(number, str):
        try:
            number = int(number.strip())
        except ValueError:
            raise CredentialFileError("invalid auth weight: expected an integer") from None
    if isinstance(number, bool) or not isinstance(number, int):
        raise CredentialFileError("invalid auth weight: expected an integer")
    if number > MAX_WEIGHT:
        raise CredentialFileError(f"invalid auth weight: expected at most {MAX_WEIGHT}, got {number}")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """Content cannot change without one of these, unless within `SETTLED_NS`."""
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _fresh(seen: _Seen) -> bool:
    return abs(time_ns() - seen.identity[1]) < SETTLED_NS


def _modified(status: os.stat_result) -> datetime:
    try:
        return datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):  # somebody set the time of a file to the year 100,000
        return datetime.fromtimestamp(0, UTC)


def _sweep(entry: os.DirEntry[str]) -> None:
    """Remove a scratch file that nobody will rename any more."""
    with suppress(OSError):
        if time_ns() / 1e9 - entry.stat(follow_symlinks=False).st_mtime > STALE_S:
            os.unlink(entry.path)


def _problem(data: bytes) -> str:
    """Why *data* is no credential, or empty. Says nothing of its content."""
    if len(data) > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES} bytes"
    try:
        value = msgspec.json.decode(data)
    except RecursionError:
        return "nested too deeply"
    except ValueError as exc:
        return str(exc)
    return "" if isinstance(value, dict) else "expected a JSON object"
