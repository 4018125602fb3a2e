"""The plugin host as the application sees it: plugins in, stages out."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from cpa.abi.errors import PluginLoadError
from cpa.abi.transport import HostCallHandler, LogLine, PluginTransport
from cpa.config.schema import Config, Isolation, PluginsConfig
from cpa.host.adapters import registrations
from cpa.host.generation import TransportOpener
from cpa.host.manager import PluginManager, open_plugins
from cpa.host.services import HostServices, open_host_services
from cpa.pipeline.runner import Services
from cpa.pipeline.stage import Registration
from cpa.types import PluginId
from cpa.upstream.client import UpstreamClients


@attrs.define(kw_only=True, eq=False)
class PluginHost:
    """Loaded plugins and the services that they may call; made by `open_plugin_host`."""

    manager: PluginManager
    services: HostServices

    async def apply(self, config: PluginsConfig) -> None:
        """Bring the plugins in line with *config*; one that cannot be loaded is reported and left out."""
        await self.manager.apply(config)

    def registrations(self) -> tuple[Registration, ...]:
        """The stages of all plugins that take part now."""
        scopes = self.services.scopes
        return tuple(entry for plugin in self.manager.snapshot() for entry in registrations(plugin, scopes))

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
) -> AsyncIterator[PluginHost]:
    """A host without plugins; `PluginHost.apply` brings them, the end of the block ends them.

    Args:
      config, current: what is in force, for host calls.
      on_change: called, synchronously, after the stages may have changed.
      config_path: what workers are told on their command line.
    """
    host: PluginHost | None = None
    copies: dict[PluginId, int] = {}

    def handler_for(plugin_id: PluginId) -> HostCallHandler:
        assert host is not None
        return partial(host.services.handle, plugin_id)

    def changed() -> None:
        assert host is not None
        now = {plugin.id: plugin.generation for plugin in host.manager.snapshot()}
        for plugin_id, generation in copies.items():
            if now.get(plugin_id) != generation:
                host.services.close_owner(plugin_id, reason=f"plugin {plugin_id} was restarted or has ended")
        copies.clear()
        copies.update(now)
        on_change()

    async with (
        open_host_services(clients=clients, config=config, current=current) as services,
        open_plugins(lazy_opener(config_path), handler_for=handler_for, on_change=changed) as manager,
    ):
        host = PluginHost(manager=manager, services=services)
        yield host


def lazy_opener(config_path: Path) -> TransportOpener:
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
        return native_opener(config_path)(
            path, plugin_id=plugin_id, isolation=isolation, handler=handler, nursery=nursery, log_line=log_line
        )

    return opener
