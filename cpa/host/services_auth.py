"""`host.auth.*`: credential files for plugins (plugin-abi 5.6).

A file's runtime state is that of the credentials which the running proxy made of it; for a file that it uses for none,
it is what the file says. Counters are absent until something counts.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from cpa.abi.envelope import HostCallError
from cpa.abi.kinds import ZERO_TIME
from cpa.abi.wire import Empty
from cpa.abi.wire_host import (
    AuthEntry,
    AuthGetReply,
    AuthIndexRequest,
    AuthListReply,
    AuthRuntimeReply,
    AuthSaveReply,
    AuthSaveRequest,
)
from cpa.credentials.files import CredentialFile, CredentialFiles
from cpa.credentials.model import Credential
from cpa.host.accounts import Accounts
from cpa.host.scopes import Caller
from cpa.observability.log import get_logger

T = TypeVar("T")
log = get_logger()

MAX_THREADS: Final = 4
"""Files are read and written by this many threads at a time; more would only wait for the same disk."""


class AuthService:
    """Answers `host.auth.*`. *directory* tells where the files are now; a reload may move them.

    Attributes:
      accounts: the credentials of the running proxy; None before there are any.
    """

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self.accounts: Accounts | None = None
        self._present: tuple[Path, CredentialFiles] | None = None
        self._limiter = trio.CapacityLimiter(MAX_THREADS)

    async def list(self, caller: Caller, request: Empty) -> AuthListReply:
        """`host.auth.list`. Raises: CredentialFileError."""
        files = await self._run(self.files().list)
        return AuthListReply(files=tuple(found for file in files for found in self._entries(file)))

    async def get(self, caller: Caller, request: AuthIndexRequest) -> AuthGetReply:
        """`host.auth.get`: the file as it is on disk. Raises: CredentialFileError."""
        index = required(request)
        path, data = await self._run(partial(self._read, index))
        return AuthGetReply(auth_index=index, name=path.name, path=str(path), json=data)

    async def get_runtime(self, caller: Caller, request: AuthIndexRequest) -> AuthRuntimeReply:
        """`host.auth.get_runtime`. Raises: CredentialFileError."""
        index = required(request)
        files = await self._run(self.files().list)
        for file in files:
            for found in self._entries(file):
                if found.auth_index == index:
                    return AuthRuntimeReply(auth=found)
        raise HostCallError(f"auth runtime info not found for auth_index {index}", http_status=404)

    async def save(self, caller: Caller, request: AuthSaveRequest) -> AuthSaveReply:
        """`host.auth.save`. Raises: CredentialFileError."""
        path = await self._run(partial(self.files().save, request.name, request.json))
        log.info("auth.saved", plugin_id=caller.plugin_id, name=request.name)
        if self.accounts is not None:
            self.accounts.changed()  # not awaited: the plugin that calls may be the one to be asked about the file
        return AuthSaveReply(name=request.name, path=str(path))

    def files(self) -> CredentialFiles:
        """Those of the present directory."""
        directory = self._directory()
        if self._present is None or self._present[0] != directory:
            self._present = (directory, CredentialFiles(directory))
        return self._present[1]

    def _credentials(self, file: CredentialFile) -> tuple[Credential, ...]:
        """What the proxy made of *file*."""
        known = self.accounts.snapshot.credentials if self.accounts is not None else ()
        return tuple(credential for credential in known if credential.path == str(file.path))

    def _entries(self, file: CredentialFile) -> tuple[AuthEntry, ...]:
        """What plugins see of *file*: each of its credentials, or at least itself."""
        of_file = entry(file)
        return tuple(self._entry(of_file, credential) for credential in self._credentials(file)) or (of_file,)

    def _entry(self, of_file: AuthEntry, credential: Credential) -> AuthEntry:
        assert self.accounts is not None
        state = self.accounts.state(credential)
        return msgspec.structs.replace(
            of_file,
            id=credential.id,
            auth_index=credential.index,
            provider=credential.provider,
            label=credential.label,
            status=state.status,
            status_message=state.message,
            disabled=credential.disabled,
            last_refresh=state.last_refresh or ZERO_TIME,
            next_retry_after=state.next_retry_after or ZERO_TIME,
            priority=credential.priority,
        )

    def _read(self, index: str) -> tuple[Path, bytes]:
        """The file of that index, also by that of one of several credentials in it. Blocking."""
        files = self.files()
        known = self.accounts.snapshot.credentials if self.accounts is not None else ()
        path = next((credential.path for credential in known if credential.virtual and credential.index == index), "")
        if path:
            index = next((file.index for file in files.list() if str(file.path) == path), index)
        return files.read(index)

    async def _run(self, work: Callable[[], T]) -> T:
        """*work* in a thread; waited for even when cancelled, as half a second of disk is not worth a stray thread."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


def required(request: AuthIndexRequest) -> str:
    """The index. Raises: HostCallError when it is empty."""
    index = request.auth_index.strip()
    if not index:
        raise HostCallError("auth_index is required")
    return index


def entry(file: CredentialFile) -> AuthEntry:
    """What plugins see of *file*: nothing secret."""
    email = file.text("email")
    return AuthEntry(
        id=file.name,
        auth_index=file.index,
        name=file.name,
        type=file.type or file.provider,
        provider=file.provider,
        label=file.text("label") or email or file.provider,
        status="disabled" if file.disabled else "active",
        disabled=file.disabled,
        source="file",
        path=str(file.path),
        size=file.size_bytes,
        modtime=file.modified,
        updated_at=file.modified,
        created_at=file.modified,
        email=email,
        project_id=file.text("project_id"),
        account_type="oauth" if email else "",
        account=email,
        priority=file.integer("priority"),
        note=file.text("note"),
        websockets=file.members.get("websockets") is True,
    )
