"""One interface to a loaded plugin, wherever it runs.

`open_process` (process.py) runs the library in a worker process, `open_inline` (inline.py) in this one. Both behave the
same: any number of calls at once, host calls delivered to an async handler, a cancelled call abandoned without waiting
for the plugin, an orderly end with a deadline. Neither restarts anything: that is the manager's business.

`process` contains what a plugin does wrong: a crash or an exit ends its own calls, and whatever hangs can be killed.
`inline` cannot: a crash ends the proxy, a hung call keeps its thread. In both, a plugin that reports a longer reply
than the memory it gives has undefined behaviour: no host can notice that, it reads (and frees) what it is told. In a
worker it mostly ends as a crash or as a reply with foreign bytes of the plugin's own memory.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Literal, Protocol, TypeAlias

import attrs
import trio

from cpa.abi.frames import MAX_BODY_BYTES, MAX_METHOD_BYTES
from cpa.config.schema import Isolation, LimitsConfig

HostCallHandler: TypeAlias = Callable[[bytes, bytes], Awaitable[bytes]]
"""``await handler(method, payload)`` answers one host call with an envelope; both arguments as the plugin gave them.

It runs as a task of its own in the nursery that the opener passed in. It must not raise: what rises ends that nursery.
In any case, cancellation included, the plugin is answered: without a result its call returns 1.
"""

Unwind: TypeAlias = Callable[[], float]
"""Called when the caller of a plugin call is cancelled: lets go of whatever the plugin may be waiting for in the host;
returns the seconds that the plugin then has to come back. Must not block or raise."""

LogStream = Literal["stdout", "stderr", "transport"]
LogLine: TypeAlias = Callable[[LogStream, str], None]
"""``log_line(stream, text)`` hears what the plugin prints, line by line, and what the transport has to say; must not
block. Inline plugins print where the proxy does, so only ``transport`` occurs there."""

BODIES_FACTOR = 2.7
"""Two bodies in one message, each in base64 (×4/3): a client's request as it came and as it is now."""

MEMBERS_BYTES = 16 * 1024 * 1024
"""For everything else in a message: headers, credentials, the history of a stream."""


def largest_message(body_bytes: int) -> int:
    """Size of the messages that let requests of up to *body_bytes* reach a plugin, as far as frames can carry them."""
    return min(MAX_BODY_BYTES, int(body_bytes * BODIES_FACTOR) + MEMBERS_BYTES)


DEFAULT_MAX_BODY_BYTES = largest_message(LimitsConfig().body_bytes)
"""For the largest request that the server accepts unless configured otherwise."""

DEFAULT_MAX_CALLS = 256
"""Calls that run in one worker at once, not counting as many as there are host calls in progress. Each costs a thread;
more of them wait their turn in order."""

DEFAULT_START_S = 20.0
"""Library constructors and init run in it; Go runtimes need 30 ms, a machine that swaps needs seconds."""

DEFAULT_CLOSE_GRACE_S = 5.0
"""For running calls and the plugin's shutdown() when the context of a transport is left."""


@attrs.frozen(kw_only=True)
class TransportLimits:
    """Sizes in bytes, times in seconds.

    Attributes:
      max_body_bytes: largest request and reply, in both directions.
      max_calls: see `DEFAULT_MAX_CALLS`; `process` only.
      start_s: from the start to a successful init.
      close_grace_s: used by the context; `PluginTransport.aclose` takes its own.
    """

    max_body_bytes: int = attrs.field(
        default=DEFAULT_MAX_BODY_BYTES, validator=[attrs.validators.ge(2), attrs.validators.le(MAX_BODY_BYTES)]
    )
    max_calls: int = attrs.field(default=DEFAULT_MAX_CALLS, validator=attrs.validators.ge(1))
    start_s: float = attrs.field(default=DEFAULT_START_S, validator=attrs.validators.gt(0))
    close_grace_s: float = attrs.field(default=DEFAULT_CLOSE_GRACE_S, validator=attrs.validators.ge(0))


@attrs.frozen(kw_only=True)
class PluginReply:
    """What a plugin returned, not interpreted (plugin-abi 1.13). *body* is empty for none."""

    rc: int
    body: bytes


@attrs.frozen(kw_only=True)
class LeftBehind:
    """A call that the plugin still runs, or has not begun, and for which nobody waits any more.

    Attributes:
      started, since: by the Trio clock: when it was made, and when it was given up.
    """

    method: str
    started: float
    since: float


class PluginTransport(Protocol):
    """A loaded plugin. Made by `open_process` or `open_inline`, which also end it.

    Attributes:
      plugin_id: whose.
      isolation: where it runs.
      pid: process in which it runs.
      max_calls: calls that run in it at once; None = any number.
      died: set once, when the plugin can no longer be used: crashed, killed or closed.
      death: why, e.g. ``killed by signal 11 (SIGSEGV)``; ``closed`` after an orderly end; None while it lives.
      late_replies: replies of abandoned calls that were dropped.
    """

    plugin_id: str
    isolation: Isolation
    pid: int
    max_calls: int | None
    died: trio.Event
    death: str | None

    @property
    def in_flight(self) -> int:
        """Calls that the plugin has not answered, abandoned ones included."""
        ...

    @property
    def abandoned(self) -> int:
        """Those of `in_flight` for which nobody waits any more."""
        ...

    def left_behind(self) -> Sequence[LeftBehind]:
        """The calls that `abandoned` counts, oldest first."""
        ...

    @property
    def late_replies(self) -> int:
        """See above."""
        ...

    async def call(self, method: str, payload: bytes, *, unwind: Unwind | None = None) -> PluginReply:
        """Call *method* (1 to 255 bytes of UTF-8, no NUL) with a JSON object and wait for the plugin.

        Raises: PluginClosed; PluginCrashed (`process` only); PluginRequestTooLarge; PluginReplyTooLarge.
        Cancellation: at once, also while the plugin works; it is not told. With *unwind*, not before the plugin has
        come back or its time is over. Before anything was sent if cancelled already.
        """
        ...

    async def aclose(self, grace_s: float) -> None:
        """End the plugin: no new calls, waiting host calls return 1, running calls may finish, then shutdown().

        After *grace_s* seconds whatever still runs is killed (`process`) or left behind (`inline`), and calls that
        still wait end with PluginClosed. Idempotent; a second caller waits for the first. Shielded: takes up to
        *grace_s* even when cancelled.
        """
        ...

    def kill(self, reason: str) -> None:
        """End the worker at once, without shutdown(); *reason* becomes part of `death`. Inline: does nothing."""
        ...


@lru_cache(maxsize=256)
def method_name(method: str) -> bytes:
    """*method* as it goes to the plugin. Raises: ValueError: a bug of the caller."""
    name = method.encode()
    if not 0 < len(name) <= MAX_METHOD_BYTES or b"\0" in name:
        raise ValueError(f"expected a method name of 1 to {MAX_METHOD_BYTES} bytes without NUL, got {method!r}")
    return name
