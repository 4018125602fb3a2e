"""The two real transports as one opener. Apart from the rest because it needs the compiled extension."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import trio

from cpa.abi.inline import open_inline
from cpa.abi.memory import keep_freed_memory
from cpa.abi.process import open_process
from cpa.abi.transport import HostCallHandler, LogLine, PluginTransport, TransportLimits, largest_message
from cpa.config.schema import Isolation
from cpa.host.generation import TransportOpener


def native_opener(
    config_path: Path, limits: TransportLimits | None = None, *, body_bytes: int | None = None
) -> TransportOpener:
    """What loads compiled plugins.

    Args:
      config_path: made absolute; plugins read it from the worker's command line.
      limits: None = the transports' own. Their grace for closing plays no part: generations close them before.
      body_bytes: ``limits.body-bytes``, the largest request that the server accepts: messages are limited so that it
        reaches plugins. None = as in *limits*. Plugins that are loaded keep theirs when the setting changes.
    """
    keep_freed_memory()
    used = limits or TransportLimits()
    if body_bytes is not None:
        used = attrs.evolve(used, max_body_bytes=largest_message(body_bytes))
    config = str(config_path.absolute())

    def opener(
        path: str,
        *,
        plugin_id: str,
        isolation: Isolation,
        handler: HostCallHandler,
        nursery: trio.Nursery,
        log_line: LogLine,
    ) -> AbstractAsyncContextManager[PluginTransport]:
        if isolation is Isolation.INLINE:
            return open_inline(
                path, plugin_id=plugin_id, handler=handler, nursery=nursery, log_line=log_line, limits=used
            )
        return open_process(
            path,
            plugin_id=plugin_id,
            config_path=config,
            handler=handler,
            nursery=nursery,
            log_line=log_line,
            limits=used,
        )

    return opener
