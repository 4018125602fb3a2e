"""The credential folder as the proxy sees it: files, and the credentials of those that need no plugin."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from cpa.config.watch import watch_files
from cpa.credentials.files import DIRECTORY_MODE, CredentialFile, CredentialFileError, CredentialFiles
from cpa.credentials.members import renamed
from cpa.credentials.model import Credential
from cpa.credentials.native import NativeParts, is_native, native_parts
from cpa.credentials.service_account import ServiceAccount
from cpa.host.auth_data import credential_of_file
from cpa.observability.log import get_logger

log = get_logger()

_SUFFIX: Final = ".json"
FOREIGN_TOKENS: Final = "holds no api_key; tokens that a vendor's own program keeps are not used"


@attrs.frozen(kw_only=True, eq=False)
class FolderEntry:
    """One file.

    Attributes:
      credential: what the proxy makes of it by itself; None = nothing, a plugin may.
      account: makes the tokens of *credential*; None for keys.
      why_not: why *credential* is None; empty when the type of the file is none of ours.
    """

    file: CredentialFile
    credential: Credential | None = None
    account: ServiceAccount | None = attrs.field(default=None, repr=False)
    why_not: str = ""


@attrs.frozen(kw_only=True, eq=False)
class Look:
    """What was found.

    Attributes:
      entries: by lower-case name.
      complaints: (file name, what is wrong with it); such a file is left out, or used in part.
    """

    entries: tuple[FolderEntry, ...] = ()
    complaints: tuple[tuple[str, str], ...] = ()


class Folder:
    """See the module. Blocking; one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self.files = CredentialFiles(directory)
        self._known: dict[Path, FolderEntry] = {}

    @property
    def directory(self) -> Path:
        """Absolute."""
        return self.files.directory

    def look(self) -> Look:
        """The folder as it is now. Entries of files that did not change are the same objects as before.

        A file that was a credential and is a broken text now keeps its credential until it is whole again or gone: this
        is what programs leave behind for a moment that write into a file instead of replacing it.
        Raises: CredentialFileError.
        """
        found: dict[Path, FolderEntry] = {}
        for file in self.files.list():
            known = self._known.get(file.path)
            found[file.path] = known if known is not None and known.file is file else entry_of(file)
        complaints: list[tuple[str, str]] = []
        for skipped in self.files.skipped:
            known = self._known.get(skipped.path) if skipped.broken else None
            if known is not None:
                found[skipped.path] = known
                complaints.append((skipped.name, f"{skipped.reason}; what it said before stays in force"))
            else:
                complaints.append((skipped.name, skipped.reason))
        entries = sorted(found.values(), key=lambda entry: (entry.file.name.lower(), entry.file.name))
        complaints.extend(
            (entry.file.name, str(problem)) for entry in entries for problem in entry.file.settings.problems
        )
        self._known = found
        return Look(entries=tuple(entries), complaints=tuple(complaints))


def entry_of(file: CredentialFile) -> FolderEntry:
    """What the proxy makes of *file* by itself."""
    kind = file.type.lower()
    if not is_native(kind):
        return FolderEntry(file=file)
    parts = native_parts(kind, renamed(file.members), file.settings)
    if not isinstance(parts, NativeParts):
        return FolderEntry(file=file, why_not="; ".join(map(str, parts)) or FOREIGN_TOKENS)
    try:
        credential = credential_of_file(file, parts)
    except CredentialFileError as exc:
        return FolderEntry(file=file, why_not=exc.message)
    return FolderEntry(file=file, credential=credential, account=parts.service_account)


@attrs.define(eq=False, kw_only=True)
class WatchedFolder:
    """The present folder, read and watched. *on_change*: something in it may have changed; must not block.

    Attributes:
      seen: what the last `look` found.
    """

    _nursery: trio.Nursery
    _on_change: Callable[[], None]
    seen: Look = attrs.field(factory=Look, init=False)
    _folder: Folder | None = attrs.field(default=None, init=False)
    _watching: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _by_path: dict[str, FolderEntry] = attrs.field(factory=dict, init=False)
    _complained: frozenset[tuple[str, str]] = attrs.field(default=frozenset(), init=False)

    def entry(self, path: str) -> FolderEntry | None:
        """The file at the absolute *path*, as it was read last."""
        return self._by_path.get(path)

    async def look(self, directory: Path) -> None:
        """Read *directory*, which from now on is the folder; what is wrong in it is logged once. Raises nothing."""
        folder = self._folder
        if folder is None or folder.directory != absolute(directory):
            folder = self._folder = await self._move_to(Folder(directory))
        try:
            self.seen = await trio.to_thread.run_sync(folder.look)
        except CredentialFileError as exc:
            log.error("credential folder cannot be read", directory=str(folder.directory), reason=exc.message)
            return
        self._by_path = {str(entry.file.path): entry for entry in self.seen.entries}
        complaints = frozenset(self.seen.complaints)
        for name, reason in sorted(complaints - self._complained):
            log.warning("credential file is not as it should be", file=name, reason=reason)
        self._complained = complaints

    async def _move_to(self, folder: Folder) -> Folder:
        self._watching.cancel()
        self.seen, self._by_path = Look(), {}
        make = partial(folder.directory.mkdir, mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        try:
            await trio.to_thread.run_sync(make)
        except OSError as exc:
            log.warning("credential folder cannot be made", directory=str(folder.directory), reason=exc.strerror)
        # Watched before it is read: what changes in between is seen.
        self._watching = trio.CancelScope()
        await self._nursery.start(self._watch, folder.directory, self._watching, name="accounts:watch")
        return folder

    async def _watch(self, directory: Path, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        async def seen() -> None:
            await trio.lowlevel.checkpoint()
            self._on_change()

        with scope:
            await watch_files(directory, suffix=_SUFFIX, on_change=seen, task_status=task_status)


def absolute(directory: Path) -> Path:
    """*directory* from the root on, links and all."""
    return Path(os.path.abspath(directory))
