"""A plugin as others see it: what takes part, how it is, what is wanted of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, TypeVar

import attrs

from cpa.abi.errors import PluginError
from cpa.abi.methods import Method
from cpa.abi.transport import Unwind
from cpa.abi.wire import Capabilities, PluginMetadata
from cpa.config.schema import Isolation, OnError
from cpa.host.discovery import PluginFile
from cpa.host.generation import Generation, HeldPlugin
from cpa.host.registration import Identifiers
from cpa.pipeline.dispatch import KnownOutage
from cpa.types import PluginId

Q = TypeVar("Q")
R = TypeVar("R")


class PluginUnavailable(PluginError, KnownOutage):
    """The plugin is not running at the moment: it starts again, was fused, switched off or failed to load."""

    http_status = 503
    code = "plugin_unavailable"
    retryable = True

    def __init__(self, *, plugin_id: str, state: str, reason: str) -> None:
        super().__init__(f"plugin {plugin_id} is {state}" + (f": {reason}" if reason else ""), plugin_id=plugin_id)
        self.state = state
        self.reason = reason


class PluginState(StrEnum):
    """As `GET /v0/management/plugins` says it."""

    REGISTERED = "registered"
    DISABLED = "disabled"
    FAILED = "failed"
    RESTARTING = "restarting"
    FUSED = "fused"


@attrs.frozen(kw_only=True)
class PluginStatus:
    """One plugin as operators see it.

    Attributes:
      path: of the loaded library, else of the one that would be; empty without one.
      reason: why it is not registered; for registered ones what did not work since. Empty when all is well.
      generation: of the loaded copy, 0 when none is.
      pid: 0 when none is.
      enabled: its own switch, whatever ``plugins.enabled`` says.
      metadata: None unless registered once and in use.
    """

    id: PluginId
    path: str
    version: str
    state: PluginState
    reason: str
    generation: int
    isolation: Isolation
    pid: int
    priority: int
    enabled: bool
    metadata: PluginMetadata | None
    schema_version: int


@attrs.frozen(kw_only=True)
class Target:
    """What the configuration and the plugins folder want of one plugin.

    Attributes:
      wanted: it shall run.
      why_not: reason when it shall not, or when there is no *file*.
      file: None = none is there.
      keep: without *file*, a copy that is loaded stays (its version is pinned).
      configured: it has an entry in the configuration.
    """

    wanted: bool
    why_not: str = ""
    file: PluginFile | None = None
    keep: bool = False
    isolation: Isolation = Isolation.PROCESS
    config_yaml: bytes = attrs.field(default=b"", repr=False)
    timeout_s: float | None = None
    priority: int = 0
    enabled: bool = False
    configured: bool = False
    on_error: OnError = OnError.SKIP


NOTHING_WANTED: Final = Target(wanted=False)


@attrs.frozen(kw_only=True)
class LivePlugin:
    """A plugin that takes part. Equal to another one when nothing of it changed that anybody could have built upon.

    It stays usable while a crashed plugin starts again; its calls fail at once then.

    Attributes:
      settings: stands for the settings that it has; other ones may lead to other answers.
      on_error: what it means for requests when it fails.
    """

    id: PluginId
    priority: int
    generation: int
    metadata: PluginMetadata
    capabilities: Capabilities
    schema_version: int
    identifiers: Identifiers
    settings: str = ""
    on_error: OnError = OnError.SKIP
    _current: Callable[[], Generation] = attrs.field(eq=False, repr=False)

    async def call(
        self,
        method: Method[Q, R],
        request: Q,
        /,
        *,
        scope_id: str = "",
        stream_id: str = "",
        unwind: Unwind | None = None,
    ) -> R:
        """Call the copy that is in force now. Raises: PluginUnavailable, and what `Generation.call` raises."""
        return await self._current().call(method, request, scope_id=scope_id, stream_id=stream_id, unwind=unwind)

    @contextmanager
    def hold(self) -> Iterator[HeldPlugin]:
        """The copy that is in force now, for the whole block. Raises: PluginUnavailable."""
        with self._current().hold() as held:
            yield held
