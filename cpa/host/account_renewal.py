"""Renewing one credential: by the plugin that owns it, or with a new token of its service account."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from typing import Final, TypeAlias

import attrs
import trio

from cpa.abi import wire
from cpa.abi.errors import PluginError
from cpa.credentials.files import CredentialFile
from cpa.credentials.model import API_KEY, Credential
from cpa.credentials.refresh_lock import RefreshLocks
from cpa.credentials.service_account import ServiceAccount, Token, TokenError, renew_at
from cpa.credentials.writing import CredentialFileError, read_regular
from cpa.host.account_calls import Refreshed, ask_refresh
from cpa.host.account_folder import FolderEntry
from cpa.host.plugin import LivePlugin
from cpa.host.scopes import ScopeRegistry

TokenIssue: TypeAlias = Callable[[ServiceAccount, Credential], Awaitable[Token]]
"""Gets a new token for the account of a credential. Raises: CpaError."""


async def no_tokens(account: ServiceAccount, credential: Credential) -> Token:
    """A `TokenIssue` for whoever has no way to the outside."""
    await trio.lowlevel.checkpoint()
    raise TokenError("tokens of service accounts cannot be had here")


@attrs.frozen(kw_only=True)
class Renewed:
    """Attributes:
    result: the credential now, and when to do it again.
    keeper: the plugin, if what changed belongs into the file; None = it stays in memory.
    file: as it was before.
    """

    result: Refreshed
    keeper: LivePlugin | None = None
    file: CredentialFile | None = None


TURN_S: Final = 60.0
"""How long another process that shares the folder may take with a credential before this one does not care any more."""
TURN_STEP_S: Final = 0.05
"""Between two tries; locks of files wake nobody up."""


async def changed_since(file: CredentialFile) -> bool:
    """Whether the content is another one than it was when *file* was read: somebody else may have renewed it."""
    try:
        content, _ = await trio.to_thread.run_sync(read_regular, file.path)
    except (OSError, CredentialFileError):
        return False  # gone, or no credential any more: whoever keeps the result will say so
    return sha256(content).hexdigest() != file.digest


@attrs.define(eq=False, kw_only=True)
class Renewal:
    """See the module.

    Args:
      entry: the file that a credential was read from.
    """

    _plugins: Callable[[], Sequence[LivePlugin]]
    _scopes: ScopeRegistry
    _host: Callable[[], wire.HostSummary]
    _entry: Callable[[Credential], FolderEntry | None]
    _issue: TokenIssue
    _clock: Callable[[], datetime]
    _tokens: dict[ServiceAccount, Token] = attrs.field(factory=dict, init=False)
    _locks: RefreshLocks | None = attrs.field(default=None, init=False)

    def possible(self, credential: Credential) -> bool:
        """Whether somebody can renew *credential*. Keys are for ever."""
        if credential.kind == API_KEY:
            return False
        return self._account(credential) is not None or self._plugin(credential) is not None

    async def renew(self, old: Credential) -> Renewed:
        """*old*, renewed. Raises: CpaError."""
        account = self._account(old)
        if account is not None:
            token = self._tokens[account] = await self._issue(account, old)
            now = self._clock()
            # It stays in memory: the account can always have another one.
            renewed = Refreshed(credential=with_token(old, token, now=now), wanted=renew_at(token, now=now))
            return Renewed(result=renewed)
        plugin = self._plugin(old)
        if plugin is None:
            raise PluginError(f"no plugin refreshes credentials of {old.provider}", plugin_id="")
        file = self.kept_in(old)
        result = await ask_refresh(plugin, self._scopes, old, self._host())
        return Renewed(result=result, keeper=plugin if file is not None else None, file=file)

    def kept_in(self, credential: Credential) -> CredentialFile | None:
        """The file that a renewed *credential* will be kept in; None = it stays in memory."""
        entry = self._entry(credential)
        if entry is None or credential.virtual or self._account(credential) is not None:
            return None
        return entry.file

    @asynccontextmanager
    async def alone(self, file: CredentialFile | None) -> AsyncIterator[None]:
        """Be the only process that renews the credential of *file*; after `TURN_S` one that does not care any more."""
        if file is None:
            yield
            return
        directory = file.path.parent
        if self._locks is None or self._locks.directory != directory:
            self._locks = RefreshLocks(directory)  # who still holds one of the old folder gives it back himself
        locks = self._locks
        with trio.move_on_after(TURN_S):
            while not locks.take(file.name):  # noqa: ASYNC110 - other processes tell nobody
                await trio.sleep(TURN_STEP_S)
        try:
            yield
        finally:
            locks.give(file.name)

    def close(self) -> None:
        """Give back what is held."""
        if self._locks is not None:
            self._locks.close()

    def known_tokens(self, entries: Iterable[FolderEntry]) -> dict[Credential, Credential]:
        """Those of *entries* that have a token already, with it: an edited file keeps its. Others' are forgotten."""
        now = self._clock()
        found: dict[Credential, Credential] = {}
        accounts = set()
        for entry in entries:
            if entry.account is not None and entry.credential is not None:
                accounts.add(entry.account)
                token = self._tokens.get(entry.account)
                if token is not None and token.expires_unix > now.timestamp():
                    found[entry.credential] = with_token(entry.credential, token, now=now)
        for gone in self._tokens.keys() - accounts:
            del self._tokens[gone]
        return found

    def _plugin(self, credential: Credential) -> LivePlugin | None:
        for plugin in self._plugins():
            if plugin.capabilities.auth_provider and plugin.identifiers.auth.lower() == credential.provider:
                return plugin
        return None

    def _account(self, credential: Credential) -> ServiceAccount | None:
        entry = self._entry(credential) if credential.project else None
        return entry.account if entry is not None else None


def same_token(one: Credential, other: Credential) -> bool:
    """Whether a provider that refuses *one* will refuse *other*, as far as can be known."""
    return one.api_key == other.api_key and one.storage_json == other.storage_json


def with_token(credential: Credential, token: Token, *, now: datetime) -> Credential:
    """*credential*, which a service account pays for, with a token."""
    return attrs.evolve(credential, api_key=token.value, next_refresh_after=renew_at(token, now=now))
