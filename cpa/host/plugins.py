"""The plugin host as the application sees it: plugins in, stages out."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path

import attrs
import trio

from cpa.abi.errors import PluginLoadError
from cpa.abi.transport import HostCallHandler, LogLine, PluginTransport
from cpa.config.schema import Config, Isolation, PluginsConfig
from cpa.config.watch import watch_files
from cpa.credentials.model import Credential
from cpa.host.accounts import Accounts, open_accounts
from cpa.host.adapters import refusal, registrations
from cpa.host.discovery import folders, this_platform
from cpa.host.executors import PluginExecutor
from cpa.host.generation import TransportOpener
from cpa.host.logins import Logins
from cpa.host.management import PluginManagement, ReservedRoute, open_plugin_management
from cpa.host.manager import PluginManager, open_plugins
from cpa.host.plugin import LivePlugin
from cpa.host.plugin_models import ModelScope, Native, scope_of
from cpa.host.services import HostServices, open_host_services
from cpa.host.usage import usage_sink
from cpa.pipeline.runner import Services
from cpa.pipeline.stage import Registration
from cpa.types import Candidate, PluginId
from cpa.upstream.client import UpstreamClients
from cpa.upstream.tokens import TokenIssuers
from cpa.usage.collector import Sink


@attrs.define(kw_only=True, eq=False)
class PluginHost:
    """Loaded plugins and the services that they may call; made by `open_plugin_host`."""

    manager: PluginManager
    services: HostServices
    management: PluginManagement
    logins: Logins
    accounts: Accounts
    _config: Callable[[], Config]
    _watched: tuple[bool, Path] | None = attrs.field(default=None, init=False)
    _look: trio.Event = attrs.field(factory=trio.Event, init=False)
    _sinks_of: tuple[LivePlugin, ...] = attrs.field(default=(), init=False)
    _sinks: tuple[Sink, ...] = attrs.field(default=(), init=False)

    async def apply(self, config: PluginsConfig) -> None:
        """Bring the plugins in line with *config* and the files that are there now.

        One that cannot be loaded is reported and left out.
        """
        if self._watched != (config.enabled, config.dir):
            self._look.set()
        await self.manager.apply(config)
        await self.accounts.synchronise()
        await self.management.settle()

    async def watch(self) -> None:
        """Apply the configuration again whenever libraries come, go or change, until cancelled."""

        async def changed() -> None:
            await self.apply(self._config().plugins)

        while True:
            self._look = trio.Event()
            config = self._config().plugins
            self._watched = (config.enabled, config.dir)
            async with trio.open_nursery() as nursery:
                machine = this_platform()
                for folder in folders(config.dir, machine) if config.enabled else ():
                    watching = partial(watch_files, folder, suffix=machine.extension, on_change=changed)
                    await nursery.start(watching, name=f"plugins:watch:{folder.name}")
                if config.enabled:
                    await changed()  # what came before the watch began was seen by nobody
                await self._look.wait()
                nursery.cancel_scope.cancel()

    async def accounts_changed(self) -> None:
        """A credential was saved: returns when it is in force, or after `SYNC_WAIT_S`. Never inside a plugin's call."""
        await self.accounts.synchronise()

    @property
    def supported(self) -> bool:
        """Whether this installation can load plugins at all."""
        return can_load_plugins()

    def registrations(self) -> tuple[Registration, ...]:
        """The stages of all plugins that take part now."""
        scopes = self.services.scopes
        info = self.accounts.snapshot.info
        return (
            *(refusal(plugin_id) for plugin_id in self.manager.missed()),
            *(entry for plugin in self.manager.snapshot() for entry in registrations(plugin, scopes, info)),
        )

    def direct(self) -> Mapping[PluginId, Candidate]:
        """What a router may choose by the name of a plugin: its executor, without a credential (plugin-abi 4.6)."""
        return {
            plugin.id: Candidate(
                credential=Credential(id="", provider=plugin.id, label=plugin.id),
                model="",
                executor=self._executor(plugin, plugin.identifiers.executor.lower()),
                executor_key=plugin.identifiers.executor.lower(),
            )
            for plugin in self.manager.snapshot()
            if plugin.capabilities.executor
            and plugin.identifiers.executor
            and scope_of(plugin.capabilities) is not ModelScope.OAUTH
        }

    def executors(self) -> Mapping[str, PluginExecutor]:
        """Provider keys that plugins execute."""
        live = {plugin.id: plugin for plugin in self.manager.snapshot()}
        return {
            provider: self._executor(live[plugin_id], provider)
            for provider, plugin_id in self.accounts.snapshot.executors.items()
            if plugin_id in live
        }

    def _executor(self, plugin: LivePlugin, provider: str) -> PluginExecutor:
        return PluginExecutor(
            plugin,
            provider=provider,
            scopes=self.services.scopes,
            streams=self.services.executor_streams,
            translates=self._translates,
            renew=self._renew,
        )

    async def _renew(self, credential: Credential) -> Credential | None:
        if await self.accounts.refresh_now(credential.id):
            return self.accounts.snapshot.credential(credential.id)
        return None

    def _translates(self) -> bool:
        return any(plugin.capabilities.response_translator for plugin in self.manager.snapshot())

    def usage_sinks(self) -> tuple[Sink, ...]:
        """The plugins that want to hear of usage. Cheap: it is asked for every attempt."""
        snapshot = self.manager.snapshot()
        if snapshot is not self._sinks_of:
            self._sinks_of = snapshot
            self._sinks = tuple(usage_sink(plugin) for plugin in snapshot if plugin.capabilities.usage_plugin)
        return self._sinks

    def exclusive_auth(self) -> PluginId | None:
        """The plugin that alone decides who is a client (plugin-abi 6.6); the snapshot is in priority order."""
        for plugin in self.manager.snapshot():
            can = plugin.capabilities
            if can.frontend_auth_provider and can.frontend_auth_provider_exclusive:
                return plugin.id
        return None


@asynccontextmanager
async def open_plugin_host(
    *,
    clients: UpstreamClients,
    config: Callable[[], Config],
    current: Callable[[], Services | None],
    on_change: Callable[[], None],
    config_path: Path,
    reserved_route: ReservedRoute = lambda method, path: False,
    native: Callable[[Config, Sequence[Credential]], Native] = lambda config, credentials: Native(),
) -> AsyncIterator[PluginHost]:
    """A host without plugins; `PluginHost.apply` brings them, the end of the block ends them.

    Args:
      config, current: what is in force, for host calls.
      on_change: called, synchronously, after the stages may have changed.
      config_path: what workers are told on their command line.
      reserved_route: management routes that no plugin can have.
      native: what needs no plugin, given the credentials that plugins read from files.
    """
    host: PluginHost | None = None

    def handler_for(plugin_id: PluginId, number: int) -> HostCallHandler:
        assert host is not None
        return partial(host.services.handle, plugin_id, generation=number)

    def ended(plugin_id: PluginId, number: int, reason: str) -> None:
        assert host is not None
        host.services.close_owner(plugin_id, generation=number, reason=reason)

    def changed() -> None:
        assert host is not None
        host.management.refresh()
        host.accounts.changed()
        on_change()

    async with (
        open_host_services(clients=clients, config=config, current=current) as services,
        open_plugins(
            lazy_opener(config_path, config), handler_for=handler_for, on_change=changed, on_end=ended
        ) as manager,
        open_plugin_management(
            manager, scopes=services.scopes, config=lambda: config().plugins, reserved=reserved_route
        ) as management,
        open_accounts(
            plugins=manager.snapshot,
            scopes=services.scopes,
            config=config,
            native=native,
            on_change=on_change,
            issue=TokenIssuers(clients=clients, config=config).issue,
        ) as accounts,
    ):
        services.attach(accounts)
        host = PluginHost(
            manager=manager,
            services=services,
            management=management,
            logins=Logins(plugins=manager.snapshot, scopes=services.scopes, config=config, saved=accounts.synchronise),
            accounts=accounts,
            config=config,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.watch, name="plugins:watch")
            try:
                yield host
            finally:
                nursery.cancel_scope.cancel()


@lru_cache(maxsize=1)
def can_load_plugins() -> bool:
    """Whether the native parts were built; looked up once, at the first question."""
    try:
        from cpa.abi.process import WORKER
    except ImportError:
        return False
    return WORKER.exists()


def lazy_opener(config_path: Path, config: Callable[[], Config] = Config) -> TransportOpener:
    """The opener of compiled plugins, whose machinery is imported with the first of them: most proxies have none."""

    def opener(
        path: str,
        *,
        plugin_id: str,
        isolation: Isolation,
        handler: HostCallHandler,
        nursery: trio.Nursery,
        log_line: LogLine,
    ) -> AbstractAsyncContextManager[PluginTransport]:
        try:
            from cpa.host.opening import native_opener
        except ImportError as exc:
            raise PluginLoadError(f"the plugin host was not built on this machine: {exc}", plugin_id=plugin_id) from exc
        return native_opener(config_path, body_bytes=config().limits.body_bytes)(
            path, plugin_id=plugin_id, isolation=isolation, handler=handler, nursery=nursery, log_line=log_line
        )

    return opener
