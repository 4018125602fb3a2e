"""Which file, or which key of the configuration, an operator means by a name (proxy 6.7)."""

from pathlib import Path
from typing import Final

import attrs

from cpa.credentials.editing import INVALID_NAME, NOT_FOUND, SUFFIX, checked_name
from cpa.credentials.files import CredentialFile, CredentialFileError
from cpa.credentials.model import FROM_CONFIG, Credential
from cpa.errors import CpaError
from cpa.host.account_folder import absolute
from cpa.host.accounts import Accounts
from cpa.server.management.calls import ManagementCall

VIRTUAL: Final = "this credential is one of several of one file: edit the file that it comes from"


class NotRunning(CpaError):
    """The plugin host, which owns the credentials, has not begun or has ended."""

    http_status = 503
    default_message = "credentials are not there yet"


@attrs.frozen(kw_only=True)
class Target:
    """What a name means.

    Attributes:
      file: name of the file; empty for a key of the configuration.
      credential: the one that was named by its own id; None = the file, whatever was made of it.
    """

    file: str = ""
    credential: Credential | None = None


def accounts_of(call: ManagementCall) -> Accounts:
    """The credentials that are in force. Raises: NotRunning."""
    if call.plugins is None:
        raise NotRunning
    return call.plugins.accounts


def folder_of(call: ManagementCall) -> Path:
    """Where the files are, absolute."""
    return absolute(call.runtime.config.auth_dir)


def find_target(call: ManagementCall, name: str, index: str = "", *, with_config: bool = False) -> Target:
    """What one name means, see `Targets.find`. Raises: CredentialFileError, NotRunning."""
    return Targets(call).find(name, index, with_config=with_config)


class Targets:
    """Finds what names mean at one moment; made once for many of them. Raises: NotRunning."""

    def __init__(self, call: ManagementCall) -> None:
        self._folder = str(folder_of(call))
        self._credentials = call.runtime.credentials
        self._by_id = {credential.id: credential for credential in reversed(call.runtime.credentials)}
        self._listed = {file.name: file for file in accounts_of(call).listed}

    def find(self, name: str, index: str = "", *, with_config: bool = False) -> Target:
        """What *name* means: a file's name or full path, or the id of a credential.

        Names of files come first: a plugin may call one of several credentials of a file like the file.

        Args:
          index: must be that of the file or the credential, unless empty.
          with_config: keys of the configuration may be meant.

        Raises: CredentialFileError 400 for a senseless name, 404 for nobody's, 409 for one of several credentials of a
          file.
        """
        if name.startswith("/"):
            name = _name_of_path(self._folder, name)
        by_id = self._by_id.get(name)
        if by_id is not None and by_id.source == FROM_CONFIG:
            if not with_config or index not in ("", by_id.index):
                raise CredentialFileError(NOT_FOUND, http_status=404)
            return Target(credential=by_id)
        listed = self._listed.get(name)
        if listed is None and by_id is not None and by_id.path:
            return _of_credential(by_id, index)
        name = self._file_name(name)
        listed = self._listed.get(name)
        if index and (listed is None or not self._is_index(listed, index)):
            raise CredentialFileError(NOT_FOUND, http_status=404)
        return Target(file=name)

    def _file_name(self, name: str) -> str:
        """*name* as a file's, which may be given without its suffix. Raises: CredentialFileError."""
        whole = checked_name(name if name.lower().endswith(SUFFIX) else f"{name}{SUFFIX}")
        if whole != name and whole not in self._listed:
            raise CredentialFileError(NOT_FOUND, http_status=404)
        return whole

    def _is_index(self, file: CredentialFile, index: str) -> bool:
        """Whether *index* is that of *file*, or of the one credential in it. Raises: CredentialFileError."""
        of_file = (found for found in self._credentials if found.path == str(file.path))
        named = next((found for found in of_file if found.index == index), None)
        if named is not None and named.virtual:
            raise CredentialFileError(VIRTUAL, http_status=409)
        return named is not None or file.index == index


def _of_credential(credential: Credential, index: str) -> Target:
    """One credential, named by an id that is no file's name. Raises: CredentialFileError."""
    if index not in ("", credential.index):
        raise CredentialFileError(NOT_FOUND, http_status=404)
    if credential.virtual:
        raise CredentialFileError(VIRTUAL, http_status=409)
    return Target(file=Path(credential.path).name, credential=credential)


def _name_of_path(own_folder: str, path: str) -> str:
    """The file's name in a full path, as lists show it. Raises: CredentialFileError for a file elsewhere."""
    folder, _, name = path.rpartition("/")
    if folder != own_folder:
        raise CredentialFileError(INVALID_NAME)
    return name
