"""Credentials from files, and which models and providers plugins serve: always known, never asked for by a request.

Theory of operation. One task computes an `AccountsSnapshot` from the live plugins, the configuration and the credential
folder, whenever one of these may have changed. It computes in rounds (`questions.py`): with the plugins' answers as far
as they are there, again when all that is missing has come. A plugin that hangs is not waited for longer than
`PATIENCE_S`: the picture without it is put in force, and completed later. Putting in force is one assignment and
`on_change`.

Every file is offered to plugins first. What no plugin wants is a credential if its type is one that the proxy serves
by itself (`account_folder.py`) or that a plugin executes.
"""

from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

import attrs
import trio

from cpa.abi import wire
from cpa.config.schema import Config
from cpa.credentials.files import CredentialFile, CredentialFileError
from cpa.credentials.model import Credential
from cpa.host.account_calls import OwnModels, Parsed, ask_own, ask_static, parse
from cpa.host.account_folder import FolderEntry, WatchedFolder
from cpa.host.account_order import by_path, concerned, identity, infos_of, parsers, tell_changes
from cpa.host.account_renewal import Renewal, TokenIssue, changed_since, no_tokens, same_token
from cpa.host.account_snapshot import AccountsSnapshot, AccountState
from cpa.host.auth_data import credential_of_file, host_summary, save_refreshed
from cpa.host.plugin import LivePlugin
from cpa.host.plugin_models import (
    NO_MODELS,
    Native,
    StaticModels,
    cards_of,
    claims,
    has_static_models,
    serves_credentials_of,
)
from cpa.host.questions import Failed, Questions
from cpa.host.refresh import Refresher, utc_now
from cpa.host.scopes import ScopeRegistry
from cpa.models.plugins import PluginModels
from cpa.observability.log import get_logger
from cpa.types import PluginId

log = get_logger()

PATIENCE_S: Final = 1.0
"""How long a plugin that does not answer keeps the answers of others from being put in force."""
TAKE_OVER_S: Final = 5.0
"""How long the new content of a file may take to be in force."""
SYNC_WAIT_S: Final = 10.0
"""How long those wait who want everything to be in force, such as the start of the server."""


@attrs.define(eq=False, kw_only=True)
class Accounts:
    """See `open_accounts`.

    Attributes:
      snapshot: what is in force.
    """

    _plugins: Callable[[], Sequence[LivePlugin]]
    _scopes: ScopeRegistry
    _config: Callable[[], Config]
    _native: Callable[[Config, Sequence[Credential]], Native]
    _on_change: Callable[[], None]
    _issue: TokenIssue
    _clock: Callable[[], datetime]
    _nursery: trio.Nursery

    snapshot: AccountsSnapshot = attrs.field(factory=AccountsSnapshot, init=False)
    _questions: Questions = attrs.field(init=False)
    _refresher: Refresher = attrs.field(init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    _replaced: trio.Event = attrs.field(factory=trio.Event, init=False)
    _asked: int = attrs.field(default=0, init=False)
    _settled: int = attrs.field(default=0, init=False)
    _progress: trio.Event = attrs.field(factory=trio.Event, init=False)
    _stale: bool = attrs.field(default=False, init=False)

    _host: wire.HostSummary = attrs.field(factory=wire.HostSummary, init=False)
    _host_version: int = attrs.field(default=0, init=False)
    _folder: WatchedFolder = attrs.field(init=False)
    _renewal: Renewal = attrs.field(init=False)

    _built_in: dict[tuple[Path, str], Credential] = attrs.field(factory=dict, init=False)
    _bases: dict[str, Credential] = attrs.field(factory=dict, init=False)  # by id: as read, before refreshes
    _refreshed: dict[Credential, Credential] = attrs.field(factory=dict, init=False)  # by what was read
    _told: set[Hashable] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._questions = Questions(self._nursery, on_idle=self._look_again)
        self._folder = WatchedFolder(nursery=self._nursery, on_change=self.changed)
        self._renewal = Renewal(
            plugins=self._plugins,
            scopes=self._scopes,
            host=lambda: self._host,
            entry=lambda credential: self._folder.entry(credential.path),
            issue=self._issue,
            clock=self._clock,
        )
        self._refresher = Refresher(
            nursery=self._nursery,
            credentials=self._refreshable,
            refresh=self._refresh,
            read_at=self._read_at,
            workers=lambda: self._config().auth_auto_refresh_workers,
            clock=self._clock,
        )

    # ---- for the rest of the proxy ----

    def changed(self) -> None:
        """Plugins, configuration or files may have changed: look, soon. Never blocks."""
        self._asked += 1
        self._stale = True
        self._wake.set()

    async def synchronise(self, *, wait_s: float = SYNC_WAIT_S) -> bool:
        """`changed`, and wait until what there is now is in force. Returns: False if that takes longer than *wait_s*.

        Do not await it inside a plugin's call: that plugin may have to be asked.
        """
        self.changed()
        target = self._asked
        with trio.move_on_after(wait_s):
            while self._settled < target:
                await self._progress.wait()
        return self._settled >= target

    async def refresh(self, credential: Credential) -> Credential | None:
        """See `cpa.types.Refresher`."""
        present = self.snapshot.credential(credential.id)
        if present is None or present.disabled or not self._renewal.possible(present):
            await trio.lowlevel.checkpoint()
            return None
        if not same_token(present, credential):
            await trio.lowlevel.checkpoint()
            return present
        if not await self._refresher.refresh_now(present):
            return None
        renewed = self.snapshot.credential(credential.id)
        return None if renewed is None or renewed is present or renewed.disabled else renewed

    async def refresh_now(self, credential_id: str) -> bool:
        """Have a plugin renew a credential that a provider refused; many at once share one attempt.

        Returns: whether it was renewed, now or a moment ago; the new one is in `snapshot` then. False for those that
          nobody can renew. Cancellation: what was begun goes on.
        """
        credential = self.snapshot.credential(credential_id)
        if credential is None or credential.disabled or not self._renewal.possible(credential):
            await trio.lowlevel.checkpoint()
            return False
        return await self._refresher.refresh_now(credential)

    def state(self, credential: Credential) -> AccountState:
        """How *credential* is, as far as its refreshes say."""
        known = self._refresher.state(credential.id)
        status = "error" if known.problem else "refreshing" if known.running else "active"
        if credential.disabled:
            return AccountState(status="disabled", last_refresh=known.succeeded)
        return AccountState(
            status=status,
            message=known.problem,
            unavailable=known.stopped,
            last_refresh=known.succeeded,
            next_retry_after=known.again if known.problem else None,
        )

    def file_of(self, credential: Credential) -> CredentialFile | None:
        """The file that *credential* was read from, as it was read last."""
        entry = self._folder.entry(credential.path)
        return entry.file if entry is not None else None

    @property
    def listed(self) -> tuple[CredentialFile, ...]:
        """Every file of the folder that holds a JSON object, used or not, by lower-case name."""
        return tuple(entry.file for entry in self._folder.seen.entries)

    def close(self) -> None:
        """Give back what is held of the folder; the tasks are ending."""
        self._renewal.close()

    # ---- the task ----

    async def run(self) -> None:
        """Keep `snapshot` up to date until cancelled."""
        self._nursery.start_soon(self._refresher.run, name="accounts:refresh")
        serial, patient_until = 0, trio.current_time()
        await self._wake.wait()
        while True:
            self._wake = trio.Event()
            if self._stale:
                self._stale, serial = False, self._asked
                if not self._questions.running:
                    patient_until = trio.current_time() + PATIENCE_S
                await self._look()
            snapshot = self._compute()
            waiting = self._questions.running > 0
            if not waiting or trio.current_time() >= patient_until:
                self._put_in_force(snapshot)
                patient_until = trio.current_time() + PATIENCE_S
            if not waiting and not self._stale:
                self._settled = serial
                self._progress.set()
                self._progress = trio.Event()
            with trio.move_on_at(min(self._questions.retry_at, patient_until) if waiting else self._questions.retry_at):
                await self._wake.wait()

    def _look_again(self) -> None:
        self._wake.set()

    async def _look(self) -> None:
        """Find out what configuration and folder say."""
        config = self._config()
        summary = host_summary(config)
        if summary != self._host:
            self._host, self._host_version = summary, self._host_version + 1
        await self._folder.look(config.auth_dir)

    # ---- one round ----

    def _compute(self) -> AccountsSnapshot:
        self._questions.begin_round()
        told, self._told = self._told, set()
        try:
            return self._assemble(told)
        finally:
            self._questions.end_round()

    def _assemble(self, told: set[Hashable]) -> AccountsSnapshot:
        plugins = tuple(plugin for plugin in self._plugins() if concerned(plugin))
        statics = [(plugin, self._static(plugin)) for plugin in plugins]
        read: list[Credential] = []
        rest: list[FolderEntry] = []
        for entry in self._folder.seen.entries:
            parsed = self._parsed(plugins, entry.file)
            if parsed is None:
                rest.append(entry)
            else:
                read.extend(parsed)
        read.extend(entry.credential for entry in rest if entry.credential is not None)
        # Without plugins nobody claims anything, and no id can be that of another credential.
        native = self._native(self._config(), read) if plugins else Native()
        claimed = claims(statics, native)
        read.extend(self._of_rest(rest, claimed.executors, told))
        self._bases = dict(self._unique(sorted(read, key=by_path), native.credential_ids, told))
        known = self._renewal.known_tokens(rest) | self._refreshed
        self._refreshed = {base: new for base, new in known.items() if self._bases.get(base.id) is base}
        own = [self._own(statics, self._refreshed.get(base, base)) for base in self._bases.values()]
        infos = {(group.provider, info.id): info for group, info in infos_of(claimed.models, statics)}
        models = list(claimed.models)
        for plugin, answer in own:
            if plugin is not None and answer.infos is not None:
                provider, identifier = answer.credential.provider, answer.credential.id
                cards = cards_of(answer.infos)
                models.append(
                    PluginModels(plugin_id=plugin.id, provider=provider, cards=cards, credential_id=identifier)
                )
                for info in answer.infos:
                    infos.setdefault((provider, info.id), info)
        return AccountsSnapshot(
            credentials=tuple(answer.credential for _, answer in own),
            models=tuple(models),
            executors=MappingProxyType(dict(claimed.executors)),
            infos=MappingProxyType(infos),
        )

    def _static(self, plugin: LivePlugin) -> StaticModels:
        if not has_static_models(plugin.capabilities):
            return NO_MODELS
        answer = self._questions.answer(
            ("static", identity(plugin), self._host_version),
            subject=("static", plugin.id),
            plugin_id=plugin.id,
            ask=partial(ask_static, plugin, self._host),
        )
        return NO_MODELS if answer is None or isinstance(answer, Failed) else answer

    def _parsed(self, plugins: Iterable[LivePlugin], file: CredentialFile) -> tuple[Credential, ...] | None:
        """What plugins make of *file*; None = it is none of theirs."""
        for plugin in parsers(plugins, file):
            key, subject = self._parse_key(plugin, file.path, file.digest)
            answer: Parsed | Failed | None = self._questions.answer(
                key, subject=subject, plugin_id=plugin.id, ask=partial(parse, plugin, file, self._host)
            )
            if answer is None:
                return ()  # nobody knows yet
            if isinstance(answer, Failed):
                return None
            if answer.handled:
                if file.disabled and answer.digest != file.digest:  # what is known is of an earlier content
                    return ()
                return answer.credentials
        return None

    def _parse_key(self, plugin: LivePlugin, path: Path, digest: str) -> tuple[Hashable, Hashable]:
        return ("parse", identity(plugin), path, digest, self._host_version), ("parse", plugin.id, path)

    def _of_rest(
        self, entries: Iterable[FolderEntry], executors: Mapping[str, PluginId], told: set[Hashable]
    ) -> Iterator[Credential]:
        """Credentials of files that neither plugins nor the proxy itself parse but whose provider a plugin executes."""
        known, self._built_in = self._built_in, {}
        for entry in entries:
            file = entry.file
            if entry.credential is not None:
                continue
            if entry.why_not:
                self._warn_once(told, ("bad", file.path, file.digest), file=file.name, reason=entry.why_not)
                continue
            if file.provider not in executors or not file.type:
                self._tell_once(told, ("unused", file.path, file.digest), file=file.name, type=file.type)
                continue
            credential = known.get((file.path, file.digest))
            if credential is None:
                try:
                    credential = credential_of_file(file)
                except CredentialFileError as exc:
                    self._warn_once(told, ("bad", file.path, file.digest), file=file.name, reason=exc.message)
                    continue
            self._built_in[file.path, file.digest] = credential
            yield credential

    def _unique(
        self, credentials: Iterable[Credential], taken: frozenset[str], told: set[Hashable]
    ) -> Iterator[tuple[str, Credential]]:
        seen = set(taken)
        for credential in credentials:
            if credential.id in seen:
                self._tell_once(told, ("twice", credential.id, credential.path), auth_id=credential.id, reason="twice")
            else:
                seen.add(credential.id)
                yield credential.id, credential

    def _warn_once(self, told: set[Hashable], key: Hashable, **fields: object) -> None:
        if key not in told and key not in self._told:
            log.warning("credential file is not used", **fields)
        self._told.add(key)

    def _tell_once(self, told: set[Hashable], key: Hashable, **fields: object) -> None:
        if key not in told and key not in self._told:
            log.debug("credential file is not used", **fields)
        self._told.add(key)

    def _own(
        self, statics: Iterable[tuple[LivePlugin, StaticModels]], credential: Credential
    ) -> tuple[LivePlugin | None, OwnModels]:
        """The models of *credential*, and the plugin that named them."""
        nothing = OwnModels(asked=credential, credential=credential, infos=None)
        if credential.disabled:
            return None, nothing
        for plugin, static in statics:
            if not serves_credentials_of(plugin, credential.provider, static):
                continue
            answer: OwnModels | Failed | None = self._questions.answer(
                ("own", identity(plugin), credential, self._host_version),
                subject=("own", plugin.id, credential.id),
                plugin_id=plugin.id,
                ask=partial(ask_own, plugin, self._scopes, credential, self._host),
            )
            if answer is None or isinstance(answer, Failed):
                return plugin, attrs.evolve(nothing, infos=())
            if answer.infos is not None:
                # An answer of before must not bring back what the credential was then.
                return plugin, answer if answer.asked is credential else attrs.evolve(nothing, infos=answer.infos)
        return None, nothing

    def _put_in_force(self, snapshot: AccountsSnapshot) -> None:
        if not snapshot.same(self.snapshot):
            tell_changes(self.snapshot, snapshot)
            self.snapshot = snapshot
            self._replaced.set()
            self._replaced = trio.Event()
            self._on_change()
            self._refresher.wake()

    # ---- refreshing ----

    def _refreshable(self) -> Sequence[Credential]:
        return [found for found in self.snapshot.credentials if self._renewal.possible(found)]

    def _read_at(self, credential: Credential) -> datetime:
        file = self.file_of(credential)
        return file.modified if file is not None else self._clock()

    async def _refresh(self, old: Credential) -> datetime | None:
        """See `Refresher`."""
        file = self._renewal.kept_in(old)
        async with self._renewal.alone(file):
            if file is not None and await changed_since(file):
                await self._take_over(old)
                return None
            return await self._refresh_alone(old)

    async def _take_over(self, old: Credential) -> None:
        """Another process has renewed *old*, or somebody edited it: what the file says now counts."""
        log.info("credential was changed meanwhile", auth_id=old.id, provider=old.provider)
        self.changed()
        with trio.move_on_after(TAKE_OVER_S):
            while self.snapshot.credential(old.id) is old:
                await self._replaced.wait()

    async def _refresh_alone(self, old: Credential) -> datetime | None:
        renewed = await self._renewal.renew(old)
        self._replace(old, renewed.result.credential)
        if renewed.keeper is not None and renewed.file is not None:
            # What was issued is lost if it is not kept now: the old tokens may be void.
            with trio.CancelScope(shield=True):
                await self._keep(renewed.keeper, renewed.file, old, renewed.result.credential)
        return renewed.result.wanted

    def _replace(self, old: Credential, new: Credential) -> None:
        """Put *new* in the place of *old* at once, unless something else stands there already."""
        present = self.snapshot.credentials
        if any(found is old for found in present):
            base = self._bases.get(old.id)
            if base is not None:
                self._refreshed[base] = new
            credentials = tuple(new if found is old else found for found in present)
            self._put_in_force(attrs.evolve(self.snapshot, credentials=credentials))
        self._wake.set()

    async def _keep(self, plugin: LivePlugin, file: CredentialFile, old: Credential, new: Credential) -> None:
        save = partial(save_refreshed, file.path, before=file.members, old=old.storage_json, new=new.storage_json)
        try:
            content = await trio.to_thread.run_sync(save)
        except CredentialFileError as exc:
            log.error("refreshed credential cannot be kept", file=file.name, reason=exc.message)
            return
        if content == new.storage_json:
            # Our own change of the file: what it holds is known, including what the plugin said beside it.
            digest = sha256(content).hexdigest()
            key, subject = self._parse_key(plugin, file.path, digest)
            self._questions.know(key, subject, Parsed(digest=digest, handled=True, credentials=(new,)))
        self.changed()


@asynccontextmanager
async def open_accounts(
    *,
    plugins: Callable[[], Sequence[LivePlugin]],
    scopes: ScopeRegistry,
    config: Callable[[], Config],
    native: Callable[[Config, Sequence[Credential]], Native],
    on_change: Callable[[], None],
    issue: TokenIssue = no_tokens,
    clock: Callable[[], datetime] = utc_now,
) -> AsyncIterator[Accounts]:
    """The accounts while the block runs; call `Accounts.changed` or `synchronise` when something may have changed.

    Args:
      plugins: those that take part, in their order.
      config: what is in force.
      native: what needs no plugin, given the credentials that plugins read from files.
      on_change: called, synchronously, after each change of `Accounts.snapshot`; must not block or raise.
      issue: gets tokens for service accounts.
      clock: wall clock with zone.

    Ownership: calls in progress, refreshes and the watch of the folder end with the block; a refreshed credential that
      has just come is kept first. What the block raises arrives in a group.
    """
    with ExitStack() as last:
        async with trio.open_nursery() as nursery:
            accounts = Accounts(
                plugins=plugins,
                scopes=scopes,
                config=config,
                native=native,
                on_change=on_change,
                issue=issue,
                clock=clock,
                nursery=nursery,
            )
            last.callback(accounts.close)  # behind the last refresh
            nursery.start_soon(accounts.run, name="accounts")
            try:
                yield accounts
            finally:
                nursery.cancel_scope.cancel()
