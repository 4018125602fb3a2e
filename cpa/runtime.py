"""Snapshots of all that requests need, built from a configuration; swapped in whole at reloads."""

from collections.abc import Iterable, Mapping, Sequence
from time import time

import attrs

from cpa.config.schema import Config
from cpa.credentials.activity import Activity
from cpa.credentials.from_config import credentials_from_config, provider_key
from cpa.credentials.model import API_KEY, FROM_CONFIG, Credential
from cpa.host.plugin_models import Native
from cpa.host.plugins import PluginHost
from cpa.models.profiles import profile_of
from cpa.models.registry import ModelRegistry
from cpa.observability.log import get_logger
from cpa.pipeline.chains import Compiled, of_config
from cpa.pipeline.compiling import compile_chains
from cpa.pipeline.completions import Completions
from cpa.pipeline.payload import payload_of
from cpa.pipeline.plan import Plan
from cpa.pipeline.runner import Services
from cpa.pipeline.services import Watcher
from cpa.pipeline.stage import Registration, StageKind
from cpa.pipeline.translating import TranslationServices
from cpa.scheduling.scheduler import Scheduling
from cpa.scheduling.settings import SchedulingSettings
from cpa.server.access import Access
from cpa.server.state import Runtime
from cpa.translation.context import TranslationSettings
from cpa.translation.signatures import SignatureCache
from cpa.translation.store import ResponseStore
from cpa.types import Accounts, Executor
from cpa.upstream.client import UpstreamClients
from cpa.upstream.executor import UpstreamSettings, executors
from cpa.upstream.media import MediaFetcher

log = get_logger()

COMPATIBLE_PROVIDER = provider_key("")
"""Provider key of endpoints that speak OpenAI's protocol and have no name."""


@attrs.define(kw_only=True, eq=False)
class RuntimeBuilder:
    """Makes snapshots; holds what survives a reload.

    Attributes:
      watcher: is told of executions that plugins start.
      registrations: stages of in-process Python code.
      chains: of in-process Python code; they come before those of configurations.
      plugins: whose stages join them.
      signatures, responses: what translation keeps for clients that cannot, or do not want to.
      activity: how credentials fare.
      held: key and storage of each credential of a file when the last snapshot was made.
      fetcher: gets media that clients name by address, for those snapshots whose configuration wants it.
    """

    clients: UpstreamClients
    completions: Completions
    scheduling: Scheduling
    plugins: PluginHost
    accounts: Accounts
    watcher: Watcher | None = None
    registrations: tuple[Registration, ...] = ()
    chains: tuple[Compiled, ...] = ()
    signatures: SignatureCache = attrs.field(factory=SignatureCache)
    responses: ResponseStore = attrs.field(factory=ResponseStore)
    activity: Activity = attrs.field(factory=Activity)
    held: dict[str, tuple[str, bytes]] = attrs.field(factory=dict, repr=False, init=False)
    fetcher: MediaFetcher = attrs.field(init=False)

    @fetcher.default
    def _new_fetcher(self) -> MediaFetcher:
        return MediaFetcher(self.clients)

    def build(self, config: Config) -> Runtime:
        """The snapshot of *config*."""
        accounts = self.plugins.accounts.snapshot
        credentials = (*credentials_from_config(config), *accounts.credentials)
        native = native_executors(self.clients, config, credentials)
        by_provider = {**self.plugins.executors(), **native}
        for credential in accounts.credentials:
            if credential.base_url:  # of a plugin that leaves the execution to us (plugin-abi 4.3.4)
                by_provider.setdefault(credential.provider, native[COMPATIBLE_PROVIDER])
        for provider in {c.provider for c in credentials if c.source == FROM_CONFIG} - set(by_provider):
            log.warning("provider.unsupported", provider=provider, hint="its credentials are not used yet")
        models = ModelRegistry(
            credentials,
            by_provider,
            plugin_models=accounts.models,
            excluded_by_provider=config.oauth_excluded_models,
            aliases_by_provider=config.oauth_model_alias,
            force_prefix=config.force_model_prefix,
            created_unix=int(time()),
        )
        # They were judged when the configuration was read: this raises nothing.
        configured = compile_chains(map(of_config, config.pipeline.chains), where="pipeline.chains")
        plan = Plan.build(self.registrations + self.plugins.registrations(), (*self.chains, *configured))
        self.activity.present(credential.id for credential in credentials)
        self._forget_refusals(accounts.credentials)
        self.scheduling.present(credential.id for credential in credentials if not credential.disabled)
        scheduler = self.scheduling.configured(SchedulingSettings.of(config))
        return Runtime(
            scheduler=scheduler,
            credentials=credentials,
            activity=self.activity,
            config=config,
            access=self._access(config, plan),
            models=models,
            services=Services(
                plan=plan,
                models=models,
                scheduler=scheduler,
                completions=self.completions,
                passthrough_headers=config.passthrough_headers,
                max_event_bytes=config.limits.sse_event_bytes,
                nested_depth=config.limits.nested_depth,
                translation=TranslationServices(
                    settings=TranslationSettings(**attrs.asdict(config.translation)),
                    profile_of=profile_of,
                    signatures=self.signatures.of_tenant,
                    responses=self.responses.of_tenant,
                    fetcher=self.fetcher,
                ),
                accounts=self.accounts,
                refresher=self.plugins.accounts,
                attempted=self._attempted,
                direct=self.plugins.direct(),
                payload=payload_of(config),
                thinking_of=models.thinking,
                answer_name=models.answer_name,
                watcher=self.watcher,
            ),
        )

    def _forget_refusals(self, from_files: Iterable[Credential]) -> None:
        """What a provider said of a key or a token does not hold for the one that took its place (proxy 3.5, 3.7).

        Those of the configuration have other ids when they have other keys.
        """
        known, self.held = self.held, {c.id: (c.api_key, c.storage_json) for c in from_files}
        for credential in from_files:
            before = known.get(credential.id)
            if before is None or before == self.held[credential.id] or not self.scheduling.health.known(credential.id):
                continue
            if credential.kind != API_KEY:
                self.scheduling.health.renewed(credential.id)
            elif before[0] != credential.api_key:
                self.scheduling.health.reset(credential.id)

    def _attempted(self, credential: Credential, ok: bool) -> None:
        self.activity.note(credential.id, ok=ok)

    def _access(self, config: Config, plan: Plan) -> Access:
        """Keys, then plugins; an exclusive plugin decides alone."""
        providers = plan.of(StageKind.FRONTEND_AUTH)
        exclusive = self.plugins.exclusive_auth()
        if exclusive is None:
            return Access(config.api_keys, providers)
        return Access((), tuple(entry for entry in providers if entry.plugin_id == exclusive))


def native_executors(
    clients: UpstreamClients, config: Config, credentials: Iterable[Credential]
) -> Mapping[str, Executor]:
    """Who serves *credentials* without a plugin, by provider key."""
    found = {credential.provider for credential in credentials}
    return executors(clients, UpstreamSettings.of(config), {*found, COMPATIBLE_PROVIDER})


def native_parts(clients: UpstreamClients, config: Config, from_files: Sequence[Credential]) -> Native:
    """What needs no plugin, of *config* and the credentials that were read *from_files*."""
    configured = credentials_from_config(config)
    credentials = (*configured, *from_files)
    by_provider = native_executors(clients, config, credentials)
    models = ModelRegistry(credentials, by_provider, force_prefix=config.force_model_prefix)
    return Native(
        providers=frozenset(by_provider),
        models=frozenset(card.id for card in models.cards),
        credential_ids=frozenset(credential.id for credential in configured),
    )
