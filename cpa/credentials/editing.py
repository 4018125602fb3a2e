"""What operators do to the files of a credential folder, by name (proxy 6.7). Everything in here is blocking file I/O.

A name never leads out of the folder: neither by itself (`check_name`) nor through a link. A link is removed or replaced
as a link; it is read and edited through only while it stays inside, as Kubernetes mounts files.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from cpa.credentials.files import CredentialFiles, check_name
from cpa.credentials.patching import patched_text
from cpa.credentials.writing import CredentialFileError, locked, read_regular, rewrite
from cpa.types import JsonValue

SUFFIX: Final = ".json"
BOM: Final = b"\xef\xbb\xbf"
NOT_FOUND: Final = "auth file not found"
INVALID_NAME: Final = "invalid name"
NOT_JSON_NAME: Final = "file must be .json"
"""Texts of the contract."""

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
"""Names that mean devices to Windows, where a shared folder may be read as well."""


@attrs.frozen(kw_only=True)
class Failed:
    """A file of several that could not be dealt with."""

    name: str
    error: str
    status: int = 400


def checked_name(name: str) -> str:
    """*name* if it is a bare name of a credential file. Raises: CredentialFileError in the contract's words."""
    if not name or name != name.strip() or "/" in name or "\\" in name or ":" in name or name.strip(".") == "":
        raise CredentialFileError(INVALID_NAME)
    if not name.lower().endswith(SUFFIX):
        raise CredentialFileError(NOT_JSON_NAME)
    try:
        check_name(name)
    except (CredentialFileError, UnicodeEncodeError):
        raise CredentialFileError(INVALID_NAME) from None
    return name


def checked_new_name(name: str) -> str:
    """*name* if a file may be made under it: also one that can be shown, and that means no device anywhere."""
    checked_name(name)
    if not name.isprintable() or _DEVICE.match(name):
        raise CredentialFileError(INVALID_NAME)
    return name


def save_new(files: CredentialFiles, name: str, data: bytes) -> None:
    """Keep what an operator uploaded, whole or not at all; a file of that name is replaced.

    Raises: CredentialFileError; nothing was changed then.
    """
    files.save(checked_new_name(name), data.removeprefix(BOM))


def save_all(files: CredentialFiles, uploads: Mapping[str, bytes]) -> tuple[Failed, ...]:
    """`save_new` for each. Returns: those that could not be kept."""
    return _each(uploads, lambda name: save_new(files, name, uploads[name]))


def place_of(directory: Path, name: str) -> Path:
    """Where the content of the file *name* is. Raises: CredentialFileError 404 for none, or one outside."""
    path = directory / checked_name(name)
    try:
        if stat.S_ISLNK(path.lstat().st_mode):
            path = Path(os.path.realpath(path, strict=True))
            if not path.is_relative_to(os.path.realpath(directory)):
                raise CredentialFileError(NOT_FOUND, http_status=404)
        if not stat.S_ISREG(path.stat().st_mode):
            raise CredentialFileError(NOT_FOUND, http_status=404)
    except (OSError, RuntimeError):  # gone, or a ring of links
        raise CredentialFileError(NOT_FOUND, http_status=404) from None
    return path


def content_of(directory: Path, name: str) -> bytes:
    """The file as it is, whatever it holds. Raises: CredentialFileError."""
    path = place_of(directory, name)
    try:
        return read_regular(path)[0]
    except FileNotFoundError:
        raise CredentialFileError(NOT_FOUND, http_status=404) from None
    except OSError as exc:
        raise CredentialFileError(f"failed to read auth file: {exc.strerror}", http_status=500) from exc


def patch_file(directory: Path, name: str, fields: Mapping[str, JsonValue]) -> bool:
    """Change members of a file, see `patched_text`; edits that others make at the same time stay.

    Returns: whether there was anything to change. Raises: CredentialFileError; the file is as others left it then.
    """
    path = place_of(directory, name)
    before: list[bytes] = []

    def change(text: bytes) -> bytes:
        before.append(text)
        return patched_text(text, fields)

    try:
        return rewrite(path, change) != before[0]
    except FileNotFoundError:
        raise CredentialFileError(NOT_FOUND, http_status=404) from None
    except OSError as exc:
        raise CredentialFileError(f"failed to write auth file: {exc.strerror}", http_status=500) from exc


def delete_file(directory: Path, name: str) -> None:
    """Remove a file, or the link of that name. Raises: CredentialFileError."""
    path = directory / checked_name(name)
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            raise CredentialFileError(NOT_FOUND, http_status=404)
        with locked(directory):  # whoever renews a token of it right now comes to an end first
            path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        raise CredentialFileError(NOT_FOUND, http_status=404) from None
    except OSError as exc:
        raise CredentialFileError(f"failed to remove auth file: {exc.strerror}", http_status=500) from exc


def delete_all(directory: Path) -> tuple[int, tuple[Failed, ...]]:
    """Remove every credential file of the folder. Returns: how many, and those that resisted. Raises:
    CredentialFileError when the folder cannot be read."""
    try:
        with locked(directory), os.scandir(directory) as entries:
            paths = [
                Path(entry.path)
                for entry in entries
                if entry.name.lower().endswith(SUFFIX) and not entry.is_dir(follow_symlinks=False)
            ]
            failed: list[Failed] = []
            for path in sorted(paths):
                try:
                    path.unlink(missing_ok=True)
                except OSError as exc:
                    error = f"failed to remove auth file: {exc.strerror}"
                    failed.append(Failed(name=path.name, error=error, status=500))
    except FileNotFoundError:
        return 0, ()
    except OSError as exc:
        raise CredentialFileError(f"failed to read auth dir: {exc.strerror}", http_status=500) from exc
    return len(paths) - len(failed), tuple(failed)


def delete_each(directory: Path, names: tuple[str, ...]) -> tuple[Failed, ...]:
    """`delete_file` for each. Returns: those that are still there, or never were."""
    return _each(names, lambda name: delete_file(directory, name))


def _each(names: "Mapping[str, bytes] | tuple[str, ...]", work: Callable[[str], None]) -> tuple[Failed, ...]:
    failed: list[Failed] = []
    for name in names:
        try:
            work(name)
        except CredentialFileError as exc:
            failed.append(Failed(name=name, error=exc.message, status=exc.http_status))
    return tuple(failed)
