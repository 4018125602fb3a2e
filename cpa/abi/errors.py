"""What can go wrong with a plugin, apart from what it answers.

::

    CpaError
    └ PluginError 502        plugin_id
      ├ PluginLoadError      cannot be opened or initialised; the text is the contract's (plugin-abi 1.9)
      │ └ AbiMismatch        speaks another version of the C interface
      ├ PluginCrashed        its process ended; which way, and in which method
      ├ PluginClosed         `plugin client is closed`: no calls any more
      ├ PluginRequestTooLarge  refused before it was sent
      └ PluginReplyTooLarge    refused before it was read
"""

from cpa.errors import CpaError


class PluginError(CpaError):
    """A plugin failed as a library or as a process.

    Attributes:
      plugin_id: which one.
    """

    http_status = 502
    code = "plugin_error"
    default_message = "plugin failed"

    def __init__(self, message: str = "", *, plugin_id: str) -> None:
        super().__init__(message)
        self.plugin_id = plugin_id


class PluginLoadError(PluginError):
    """The library cannot be used: not opened, no entry point, init failed, table incomplete, or too slow to start."""


class AbiMismatch(PluginLoadError):
    """The plugin's function table has another ABI version than 1."""


class PluginCrashed(PluginError):
    """The plugin's process ended while it was needed.

    Attributes:
      reason: ``killed by signal 11 (SIGSEGV)``, ``exited with status 3``, …
      method: of the call that this error ends; ``cliproxy_plugin_init`` while loading.
    """

    code = "plugin_crashed"
    retryable = True

    def __init__(self, *, plugin_id: str, reason: str, method: str) -> None:
        super().__init__(f"plugin {plugin_id} crashed in {method}: {reason}", plugin_id=plugin_id)
        self.reason = reason
        self.method = method


class PluginClosed(PluginError):
    """The plugin takes no calls any more, or was ended while this one ran."""

    default_message = "plugin client is closed"
    retryable = True


class PluginRequestTooLarge(PluginError):
    """A request above the limit of the transport; nothing was sent."""

    def __init__(self, *, plugin_id: str, method: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"request of {size_bytes} bytes for {method} of plugin {plugin_id} exceeds the limit of {limit_bytes}",
            plugin_id=plugin_id,
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class PluginReplyTooLarge(PluginError):
    """A reply above the limit of the transport; it was freed unread."""

    def __init__(self, *, plugin_id: str, method: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"reply of {size_bytes} bytes to {method} from plugin {plugin_id} exceeds the limit of {limit_bytes}",
            plugin_id=plugin_id,
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
