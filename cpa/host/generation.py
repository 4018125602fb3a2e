"""One loaded copy of a plugin's library, from its start to its end.

Theory of operation. `Generation.run` is the task that owns the transport: it opens it, greets the plugin, reports that
it is ready, and then waits to be retired or for the plugin to die. Calls cost no task. Those that have a hard deadline
have a cancel scope; the soft one costs a comparison: a single watching task per generation sleeps until the oldest
running call is due, and is woken early only by a call that is due before that.

A generation that was retired takes no calls any more except through `hold`, which is how a stream that began on it ends
on it. When nobody uses it any longer, or when its time is over, it is shut down.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Protocol, TypeVar

import attrs
import trio

from cpa.abi.envelope import decode_reply, encode_request
from cpa.abi.errors import PluginClosed, PluginError, PluginLoadError
from cpa.abi.methods import DEFAULT_TIMEOUT_S, PLUGIN_RECONFIGURE, PLUGIN_REGISTER, Method, TimeoutClass
from cpa.abi.transport import HostCallHandler, LogLine, LogStream, PluginTransport, Unwind
from cpa.config.schema import Isolation
from cpa.host.discovery import PluginFile
from cpa.host.registration import Registration, greet
from cpa.observability.log import get_logger
from cpa.types import PluginId

Q = TypeVar("Q")
R = TypeVar("R")

log = get_logger()


class PluginTimeout(PluginError):
    """A call did not return before its hard deadline; it was abandoned.

    Attributes:
      method: wire name.
      timeout_s: the deadline.
    """

    http_status = 504
    code = "plugin_timeout"
    retryable = True

    def __init__(self, *, plugin_id: str, method: str, timeout_s: float) -> None:
        super().__init__(f"plugin {plugin_id} did not answer {method} within {timeout_s:g} s", plugin_id=plugin_id)
        self.method = method
        self.timeout_s = timeout_s


@attrs.frozen(kw_only=True)
class GenerationLimits:
    """Seconds.

    Attributes:
      soft_s: a call that takes longer is mentioned in the log.
      soft_execution_s: the same for methods that have no hard deadline of their own: whole model answers.
      hang_grace_s: after a hard deadline, before the worker is killed.
      shutdown_s: for the plugin's C shutdown, and for calls that were not drained before.
    """

    soft_s: float = 5.0
    soft_execution_s: float = 300.0
    hang_grace_s: float = 5.0
    shutdown_s: float = 2.0


DEFAULT_LIMITS: Final = GenerationLimits()


class TransportOpener(Protocol):
    """`cpa.abi.process.open_process` and `cpa.abi.inline.open_inline` behind one name; see `opening.py`."""

    def __call__(
        self,
        path: str,
        *,
        plugin_id: str,
        isolation: Isolation,
        handler: HostCallHandler,
        nursery: trio.Nursery,
        log_line: LogLine,
    ) -> AbstractAsyncContextManager[PluginTransport]:
        """The context that loads the library *path* (absolute) and ends it. Raises: PluginError."""
        ...


@attrs.define(eq=False, slots=True)
class _Running:
    """A call in progress. Times by the Trio clock; *due* is when it becomes slow, infinite once that was said."""

    method: str
    started: float
    due: float


@attrs.define(eq=False, slots=True, kw_only=True)
class Generation:
    """One loaded copy.

    Attributes:
      number: of this plugin's copies, from 1; every load that succeeds makes a new one.
      config_yaml: with which it registered, or was last reconfigured successfully.
      timeout_s: the operator's hard deadline for its calls, 0 = none; None = each method's own.
      on_death: called when the plugin ends without being retired.
    """

    plugin_id: PluginId
    number: int
    file: PluginFile
    isolation: Isolation
    config_yaml: bytes = attrs.field(repr=False)
    timeout_s: float | None
    on_death: Callable[[], None]
    _opener: TransportOpener
    _handler: HostCallHandler
    _limits: GenerationLimits = DEFAULT_LIMITS

    _transport: PluginTransport | None = None
    _registration: Registration | None = None
    _users: int = 0
    _retired: trio.Event = attrs.field(factory=trio.Event)
    _unused: trio.Event = attrs.field(factory=trio.Event)
    _tasks: trio.Nursery | None = None
    _running: set[_Running] = attrs.field(factory=set)
    _next_look: float = math.inf
    _look: trio.Event = attrs.field(factory=trio.Event)

    # ---- for callers ----

    @property
    def registration(self) -> Registration:
        """The last good one; there is one as soon as `run` has reported that it started."""
        assert self._registration is not None
        return self._registration

    @property
    def transport(self) -> PluginTransport:
        """The plugin itself; there is one as soon as `run` has reported that it started."""
        assert self._transport is not None
        return self._transport

    @property
    def pid(self) -> int:
        """Process in which it runs."""
        return self.transport.pid

    @property
    def died(self) -> trio.Event:
        """Set when the plugin can no longer be used."""
        return self.transport.died

    @property
    def death(self) -> str | None:
        """Why; None while it lives."""
        return self.transport.death

    @property
    def end_reason(self) -> str:
        """For those whose work on this copy was cut off."""
        death = self._transport.death if self._transport is not None else None
        return f"plugin {self.plugin_id} has ended: {death or 'it was not loaded'}"

    @property
    def in_flight(self) -> int:
        """Calls and holds."""
        return self._users

    async def call(
        self,
        method: Method[Q, R],
        request: Q,
        /,
        *,
        scope_id: str = "",
        stream_id: str = "",
        unwind: Unwind | None = None,
        retired: bool = False,
    ) -> R:
        """Call the plugin and understand its answer.

        Args:
          scope_id, stream_id: ids of the call, for methods that carry them.
          unwind: see `PluginTransport.call`.
          retired: go through even when the generation is retired; for those who hold it.

        Raises:
          PluginCallError, PluginReplyError: what it answered.
          PluginTimeout: the hard deadline passed. The call is abandoned; a worker in which abandoned calls are still
            stuck after the grace time is killed.
          PluginClosed: retired. PluginCrashed, PluginRequestTooLarge, PluginReplyTooLarge: see the transport.
        Cancellation: at once; the plugin is not told and goes on. With *unwind*, when that lets it.
        """
        if self._retired.is_set() and not retired:
            raise PluginClosed(plugin_id=self.plugin_id)
        payload = encode_request(method, request, scope_id=scope_id, stream_id=stream_id)
        timeout_s = method.timeout.seconds if self.timeout_s is None else self.timeout_s or None
        return await self._exchange(method, payload, timeout_s, unwind)

    @contextmanager
    def hold(self) -> Iterator["HeldPlugin"]:
        """Keep this copy alive while the block runs, also when another one takes its place, within the drain time."""
        self._users += 1
        try:
            yield HeldPlugin(self)
        finally:
            self._leave()

    # ---- for its owner ----

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load, greet, serve until retired or dead, end. Reports when the plugin is registered.

        Raises: PluginError when it cannot be loaded or registered; afterwards nothing.
        Cancellation: ends the plugin without draining, within the limit for shutdown.
        """
        failure: PluginError | None = None
        async with trio.open_nursery() as host_calls:
            try:
                async with self._opener(
                    str(self.file.path.absolute()),
                    plugin_id=self.plugin_id,
                    isolation=self.isolation,
                    handler=self._handler,
                    nursery=host_calls,
                    log_line=self._log_line,
                ) as transport:
                    self._transport = transport
                    try:
                        failure = await self._serve(task_status)
                    finally:
                        await transport.aclose(self._limits.shutdown_s)
            # From opening, that is: what the block raises would be grouped, so it returns failures.
            except PluginError as exc:
                failure = exc
            except OSError as exc:  # no descriptors left
                failure = PluginLoadError(f"cannot start: {exc}", plugin_id=self.plugin_id)
            host_calls.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def retire(self, drain_s: float) -> None:
        """No new calls; end when nobody uses it, after *drain_s* seconds in any case. A later call may shorten that."""
        self._retired.set()
        if self._users == 0:
            self._unused.set()
        if self._tasks is not None:
            scope = self._tasks.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + drain_s)

    async def reconfigure(self, config_yaml: bytes) -> None:
        """Hand over new settings. If that fails, the last good registration stays.

        Raises: PluginError.
        """
        self._registration = await greet(
            self._greeting_call,
            PLUGIN_RECONFIGURE,
            config_yaml,
            plugin_id=self.plugin_id,
            highest=self.registration.offered,
        )
        self.config_yaml = config_yaml

    # ---- inside ----

    async def _serve(self, task_status: trio.TaskStatus[None]) -> PluginError | None:
        async with trio.open_nursery() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._mention_slow_calls, name=f"slow calls of {self.plugin_id}")
            try:
                self._registration = await greet(
                    self._greeting_call, PLUGIN_REGISTER, self.config_yaml, plugin_id=self.plugin_id
                )
            except PluginError as exc:
                tasks.cancel_scope.cancel()
                return exc
            task_status.started()
            tasks.start_soon(self._watch_death, name=f"death of {self.plugin_id}")
            await self._retired.wait()
            await self._unused.wait()
            tasks.cancel_scope.cancel()
        self._tasks = None
        # The scope's deadline is that of draining: passing it is an end like the others.
        if self._users and self.death is None:
            log.warning("plugin is ended with calls in progress", **self._names(), calls=self._users)
        return None

    async def _watch_death(self) -> None:
        await self.died.wait()
        if not self._retired.is_set():
            self.on_death()
            self._retired.set()
        self._unused.set()  # whoever still holds it learns from its calls

    async def _greeting_call(self, method: Method[Q, R], request: Q, /) -> R:
        # Without a limit, a plugin could keep the whole configuration from being applied.
        return await self._exchange(method, encode_request(method, request), self.timeout_s or DEFAULT_TIMEOUT_S)

    async def _exchange(
        self, method: Method[Any, R], payload: bytes, timeout_s: float | None, unwind: Unwind | None = None
    ) -> R:
        running = self._begin(method)
        try:
            if timeout_s is None:
                reply = await self.transport.call(method.name, payload, unwind=unwind)
            else:
                with trio.CancelScope(deadline=running.started + timeout_s) as scope:
                    reply = await self.transport.call(method.name, payload, unwind=unwind)
                if scope.cancelled_caught:
                    self._give_up(method.name, timeout_s)
                    raise PluginTimeout(plugin_id=self.plugin_id, method=method.name, timeout_s=timeout_s)
        finally:
            self._end(running)
        return decode_reply(method, reply.rc, reply.body)

    def _begin(self, method: Method[Any, Any]) -> _Running:
        self._users += 1
        now = trio.current_time()
        unlimited = method.timeout is TimeoutClass.NONE
        due = now + (self._limits.soft_execution_s if unlimited else self._limits.soft_s)
        running = _Running(method.name, now, due)
        self._running.add(running)
        if due < self._next_look:
            self._next_look = due
            self._look.set()
        return running

    def _end(self, running: _Running) -> None:
        self._running.discard(running)
        if running.due == math.inf:
            log.info("slow plugin call ended", **self._names(), method=running.method, seconds=_age(running))
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if self._users == 0 and self._retired.is_set():
            self._unused.set()

    async def _mention_slow_calls(self) -> None:
        while True:
            self._look = trio.Event()
            with trio.move_on_at(self._next_look):
                await self._look.wait()
            now = trio.current_time()
            for running in self._running:
                if running.due <= now:
                    log.warning("plugin call is slow", **self._names(), method=running.method, seconds=_age(running))
                    running.due = math.inf
            self._next_look = min((running.due for running in self._running), default=math.inf)

    def _give_up(self, method: str, timeout_s: float) -> None:
        log.warning("plugin call is abandoned", **self._names(), method=method, seconds=timeout_s)
        if self._tasks is not None and self.isolation is Isolation.PROCESS:
            self._tasks.start_soon(self._kill_if_stuck, method, timeout_s, name=f"grace of {method}:{self.plugin_id}")

    async def _kill_if_stuck(self, method: str, timeout_s: float) -> None:
        # The transport counts abandoned calls but does not tell them apart. Fewer late replies than there were
        # abandoned calls prove that one of those is stuck; others that came back later can hide it until the next time.
        transport = self.transport
        stuck, replies = transport.abandoned, transport.late_replies
        with trio.move_on_after(self._limits.hang_grace_s):
            await transport.died.wait()
        came_back = transport.late_replies - replies
        if transport.death is None and transport.abandoned and came_back < stuck:
            transport.kill(f"hung in {method} for more than {timeout_s + self._limits.hang_grace_s:g} s")

    def _log_line(self, stream: LogStream, text: str) -> None:
        if stream == "transport":
            log.warning("plugin transport", **self._names(), text=text)
        else:
            log.info("plugin output", **self._names(), stream=stream, text=text)

    def _names(self) -> dict[str, object]:
        return {"plugin": self.plugin_id, "generation": self.number}


def _age(running: _Running) -> float:
    return round(trio.current_time() - running.started, 3)


@attrs.frozen
class HeldPlugin:
    """One copy of a plugin, kept for work that must begin and end on the same copy."""

    _generation: Generation

    @property
    def generation(self) -> int:
        """Its number."""
        return self._generation.number

    @property
    def died(self) -> trio.Event:
        """Set when the copy can no longer be used: chunks that were to come do not."""
        return self._generation.died

    @property
    def death(self) -> str | None:
        """Why; None while it lives."""
        return self._generation.death

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
        """See `Generation.call`."""
        return await self._generation.call(
            method, request, scope_id=scope_id, stream_id=stream_id, unwind=unwind, retired=True
        )
