"""What the server's handlers share: one snapshot that a reload swaps, and services that outlive it."""

import attrs

from cpa.config.schema import Config
from cpa.host.plugins import PluginHost
from cpa.models.registry import ModelRegistry
from cpa.observability.metrics import Metrics
from cpa.observability.request_log import RequestLogs
from cpa.pipeline.runner import Services
from cpa.server.access import TEMPLATE_KEYS, Access
from cpa.server.management.keys import ManagementKeys


@attrs.frozen(kw_only=True)
class Runtime:
    """Everything that one configuration means to a request; a request keeps the one it started with."""

    config: Config
    access: Access
    models: ModelRegistry
    services: Services

    @property
    def guarded(self) -> bool:
        """Client keys of the sample configuration are in use: the model API stays shut."""
        return not TEMPLATE_KEYS.isdisjoint(self.config.api_keys)


@attrs.define(kw_only=True, eq=False)
class ServerState:
    """Attributes:
    runtime: the present snapshot; the only thing in here that changes.
    keys: who may manage.
    plugins: None until the plugin host runs.
    ready: the first snapshot is in place and the listeners are open.
    """

    runtime: Runtime
    metrics: Metrics
    request_logs: RequestLogs
    keys: ManagementKeys = attrs.field(factory=ManagementKeys)
    plugins: PluginHost | None = None
    ready: bool = False
