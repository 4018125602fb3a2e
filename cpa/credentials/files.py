"""Credential files: JSON objects at the top level of ``auth-dir``, one credential each (proxy 3.4).

Everything in here is blocking file I/O: callers run it in a thread. A name never leads out of the directory, a file is
replaced whole or not at all, and neither file nor directory is for other users' eyes.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Final

import attrs
import msgspec

from cpa.credentials.from_config import auth_index
from cpa.errors import CredentialError
from cpa.types import JsonObject, JsonValue

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
MAX_FILE_BYTES: Final = 1 << 20
"""A credential with certificates and a long list of models has some 20 KiB."""
MAX_WEIGHT: Final = 1_000_000
"""As in the configuration file."""
MAX_NAME_BYTES: Final = 255
"""Of one path component on every file system in use."""
UNKNOWN_PROVIDER: Final = "unknown"
"""Provider of a file that names none."""

_SUFFIX: Final = ".json"
_BAD_NAME = re.compile(r"[/\\:\x00-\x1f\x7f]|[\ud800-\udfff]")
"""Separators, drives and streams of any system, and what no file name of ours should hold."""


class CredentialFileError(CredentialError):
    """A credential file cannot be read or written; the text is the contract's (plugin-abi Appendix B)."""

    http_status = 400
    code = "auth_file"
    retryable = False


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


@attrs.frozen
class _Seen:
    """A file's identity at the time of its reading: as long as it is the same, so is the content."""

    inode: int
    modified_ns: int
    size_bytes: int
    file: CredentialFile


class CredentialFiles:
    """The files of one directory. Thread-safe: each method changes shared state in single assignments."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(os.path.abspath(directory))
        self._seen: dict[Path, _Seen] = {}
        self._by_index: dict[str, Path] = {}

    def list(self) -> tuple[CredentialFile, ...]:
        """Every readable credential file, by lower-case name. A missing directory has none.

        Files that hold no JSON object, or too much, are left out. Raises: CredentialFileError.
        """
        try:
            found = list(self._scan())
        except FileNotFoundError:
            found = []
        except OSError as exc:
            raise CredentialFileError(f"failed to read auth dir: {exc.strerror}", http_status=500) from exc
        seen = {item.file.path: item for item in found}
        # A file that just became unreadable is still known by its index, so that the error can say what happened.
        lost = {index: path for index, path in self._by_index.items() if path not in seen and path.exists()}
        self._by_index = lost | {item.file.index: item.file.path for item in found}
        self._seen = seen
        return tuple(sorted((item.file for item in found), key=lambda file: (file.name.lower(), file.name)))

    def _scan(self) -> Iterator[_Seen]:
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if not entry.name.lower().endswith(_SUFFIX) or _BAD_NAME.search(entry.name):
                    continue
                # A file that is replaced or removed right now is a matter for the next look.
                with suppress(OSError, ValueError, RecursionError):
                    seen = self._look(Path(entry.path))
                    if seen is not None:
                        yield seen

    def _look(self, path: Path) -> _Seen | None:
        """The file at *path*, from memory if unchanged. Raises: OSError; ValueError for anything but JSON."""
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            return None
        known = self._seen.get(path)
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        if known is not None and (known.inode, known.modified_ns, known.size_bytes) == identity:
            return known
        raw = path.read_bytes()
        value: JsonValue = msgspec.json.decode(raw)
        if not isinstance(value, dict):
            return None
        kind = value.get("type")
        kind = kind.strip() if isinstance(kind, str) else ""
        provider = kind.lower() or UNKNOWN_PROVIDER
        file = CredentialFile(
            name=path.name,
            path=path,
            index=auth_index(f"{provider}:{path}"),
            type=kind,
            provider=provider,
            size_bytes=status.st_size,
            modified=datetime.fromtimestamp(status.st_mtime, UTC),
            members=value,
            raw=raw,
            digest=hashlib.sha256(raw).hexdigest(),
        )
        return _Seen(*identity, file)

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


def write_atomically(path: Path, data: bytes) -> None:
    """Replace *path* by a file with *data*, mode `FILE_MODE`, on disk when this returns. Raises: OSError."""
    # In the same directory, or it could not be renamed; without the suffix, or it would be taken for a credential.
    scratch = path.with_name(f".{token_hex(8)}.tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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
