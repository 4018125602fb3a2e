"""What the server's handlers share: one snapshot that a reload swaps, and services that outlive it."""

import attrs
import trio

from cpa.config.editing import ConfigEditor
from cpa.config.schema import Config
from cpa.credentials.activity import Activity
from cpa.credentials.model import Credential
from cpa.host.plugins import PluginHost
from cpa.models.registry import ModelRegistry
from cpa.observability.live import Live
from cpa.observability.metrics import Metrics
from cpa.observability.request_log import RequestLogs
from cpa.observability.sink import LogSink
from cpa.pipeline.runner import Services
from cpa.scheduling.scheduler import ConfiguredScheduler
from cpa.server.access import TEMPLATE_KEYS, Access
from cpa.server.management.keys import ManagementKeys
from cpa.server.management.panel_files import PanelFiles
from cpa.server.websocket_transcript import SessionMemory
from cpa.upstream.outbound import OutboundCalls
from cpa.usage.service import UsageServices


@attrs.frozen(kw_only=True)
class Runtime:
    """Everything that one configuration means to a request; a request keeps the one it started with.

    Attributes:
      scheduler: that of *services*, for those who want to look into it.
      credentials: all, disabled ones too.
      activity: how these fare; outlives configurations.
    """

    config: Config
    access: Access
    models: ModelRegistry
    services: Services
    scheduler: ConfiguredScheduler | None = None
    credentials: tuple[Credential, ...] = ()
    activity: Activity = attrs.field(factory=Activity)

    @property
    def guarded(self) -> bool:
        """Client keys of the sample configuration are in use: the model API stays shut."""
        return not TEMPLATE_KEYS.isdisjoint(self.config.api_keys)


@attrs.define(kw_only=True, eq=False)
class ServerState:
    """Attributes:
    runtime: the present snapshot; the only thing in here that changes.
    keys: who may manage.
    usage: what counts and limits.
    plugins: None until the plugin host runs.
    editor: of the configuration file; None without one.
    panel: files of the control panel.
    live: what is going on, for those who watch.
    draining: set when the server ends; what would never end by itself ends then.
    ready: the first snapshot is in place and the listeners are open.
    sockets: what WebSocket sessions have said.
    log_sink: where the application log goes; None where somebody else cares for it.
    outbound: operators' own calls to providers; None where there are no connections.
    """

    runtime: Runtime
    metrics: Metrics
    request_logs: RequestLogs
    keys: ManagementKeys = attrs.field(factory=ManagementKeys)
    usage: UsageServices = attrs.field(factory=UsageServices)
    live: Live = attrs.field(factory=Live)
    plugins: PluginHost | None = None
    editor: ConfigEditor | None = None
    panel: PanelFiles = attrs.field(factory=PanelFiles)
    ready: bool = False
    draining: trio.Event = attrs.field(factory=trio.Event)
    sockets: SessionMemory = attrs.field(factory=SessionMemory)
    log_sink: LogSink | None = None
    outbound: OutboundCalls | None = None
