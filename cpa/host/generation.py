"""One loaded copy of a plugin's library, from its start to its end.

Theory of operation. `Generation.run` is the task that owns the transport: it opens it, greets the plugin, reports that
it is ready, and then waits to be retired or for the plugin to die. Calls cost no task. Those that have a hard deadline
have a cancel scope; the soft one costs a comparison: a single watching task per generation sleeps until the oldest
running call is due, and is woken early only by a call that is due before that.

A generation that was retired takes no calls any more except through `hold`, which is how a stream that began on it ends
on it. When nobody uses it any longer, or when its time is over, it is shut down.

A call that was given up, by its deadline or because its caller left, goes on inside the plugin, on a thread of its own.
One that does not come back within the grace time is stuck. A worker is killed for a stuck call that is past its hard
deadline, and for many stuck calls: executors have no deadline, and the last thread of the worker would be gone. Nothing
can be done about a library in our own process but to say so.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Protocol, TypeVar

import attrs
import trio

from cpa.abi.envelope import decode_reply, encode_request
from cpa.abi.errors import PluginClosed, PluginError, PluginLoadError
from cpa.abi.methods import (
    DEFAULT_TIMEOUT_S,
    METHODS,
    PLUGIN_RECONFIGURE,
    PLUGIN_REGISTER,
    Method,
    TimeoutClass,
)
from cpa.abi.transport import HostCallHandler, LeftBehind, LogLine, LogStream, PluginTransport, Unwind
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
    """Seconds, and a number of calls.

    Attributes:
      soft_s: a call that takes longer is mentioned in the log.
      soft_execution_s: the same for methods that have no hard deadline of their own: whole model answers.
      hang_grace_s: what a call that was given up has to come back before it counts as stuck. Longer than the 0.5 s that
        calls get to unwind when their callers leave: what only computes for a while is no trouble.
      stuck_calls: more of them, or `STUCK_SHARE` of its threads, and the worker is killed.
      shutdown_s: for the plugin's C shutdown, and for calls that were not drained before.
    """

    soft_s: float = 5.0
    soft_execution_s: float = 300.0
    hang_grace_s: float = 5.0
    stuck_calls: int = 32
    shutdown_s: float = 2.0


DEFAULT_LIMITS: Final = GenerationLimits()

STUCK_SHARE: Final = 0.75
"""Of a worker's threads: the rest would not last until somebody notices."""

GREETINGS: Final = frozenset({PLUGIN_REGISTER.name, PLUGIN_RECONFIGURE.name})


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
    _said_stuck: set[str] = attrs.field(factory=set)  # methods, while calls of them are stuck
    _killed: bool = False
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

    @property
    def trouble(self) -> str:
        """What is wrong with it at this moment, for operators; empty when nothing is."""
        if self._transport is None or self._transport.death is not None:
            return ""
        stuck = self._stuck(trio.current_time())
        return f"stuck calls: {_by_method(stuck)}" if stuck else ""

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
          PluginTimeout: the hard deadline passed. The call is abandoned; the worker is killed if it does not come back
            within the grace time.
          PluginClosed: retired. PluginCrashed, PluginRequestTooLarge, PluginReplyTooLarge: see the transport.
        Cancellation: at once; the plugin is not told and goes on. With *unwind*, when that lets it.
        """
        if self._retired.is_set() and not retired:
            raise PluginClosed(plugin_id=self.plugin_id)
        payload = encode_request(method, request, scope_id=scope_id, stream_id=stream_id)
        return await self._exchange(method, payload, unwind)

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
            tasks.start_soon(self._watch_calls, name=f"slow calls of {self.plugin_id}")
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
        return await self._exchange(method, encode_request(method, request))

    def _hard_s(self, method: Method[Any, Any]) -> float | None:
        """The hard deadline of *method*, None for none."""
        timeout_s = method.timeout.seconds if self.timeout_s is None else self.timeout_s or None
        # Without a limit, a plugin could keep the whole configuration from being applied.
        return DEFAULT_TIMEOUT_S if timeout_s is None and method.name in GREETINGS else timeout_s

    async def _exchange(self, method: Method[Any, R], payload: bytes, unwind: Unwind | None = None) -> R:
        timeout_s = self._hard_s(method)
        running = self._begin(method)
        try:
            if timeout_s is None:
                reply = await self.transport.call(method.name, payload, unwind=unwind)
            else:
                with trio.CancelScope(deadline=running.started + timeout_s) as scope:
                    reply = await self.transport.call(method.name, payload, unwind=unwind)
                if scope.cancelled_caught:
                    log.warning("plugin call is abandoned", **self._names(), method=method.name, seconds=timeout_s)
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
        self._look_at(due)
        return running

    def _end(self, running: _Running) -> None:
        self._running.discard(running)
        if running.due == math.inf:
            log.info("slow plugin call ended", **self._names(), method=running.method, seconds=_age(running))
        if self.transport.abandoned:  # perhaps this one
            self._look_at(trio.current_time() + self._limits.hang_grace_s)
        self._leave()

    def _look_at(self, due: float) -> None:
        """Let the watching task look at the calls then, if it would not before."""
        if due < self._next_look:
            self._next_look = due
            self._look.set()

    def _leave(self) -> None:
        self._users -= 1
        if self._users == 0 and self._retired.is_set():
            self._unused.set()

    async def _watch_calls(self) -> None:
        while True:
            self._look = trio.Event()
            with trio.move_on_at(self._next_look):
                await self._look.wait()
            now = trio.current_time()
            for running in self._running:
                if running.due <= now:
                    log.warning("plugin call is slow", **self._names(), method=running.method, seconds=_age(running))
                    running.due = math.inf
            next_slow = min((running.due for running in self._running), default=math.inf)
            self._next_look = min(next_slow, self._judge_abandoned(now))

    def _judge_abandoned(self, now: float) -> float:
        """Mention stuck calls, and kill the worker if they call for it; when to look again, infinite for never."""
        transport = self.transport
        if transport.death is not None or self._killed:
            return math.inf
        stuck = self._stuck(now)
        methods = {call.method for call in stuck}
        for method in methods - self._said_stuck:
            log.warning("plugin call is stuck", **self._names(), method=method, calls=_by_method(stuck))
        self._said_stuck = methods
        reason = self._unbearable(stuck, now)
        if reason and self.isolation is Isolation.PROCESS:
            self._killed = True
            transport.kill(reason)
            return math.inf
        left = transport.left_behind()
        dues = (due for call in left for due in (self._stuck_at(call), self._hung_at(call)) if due > now)
        return min(dues, default=math.inf)

    def _stuck(self, now: float) -> list[LeftBehind]:
        return [call for call in self.transport.left_behind() if self._stuck_at(call) <= now]

    def _stuck_at(self, call: LeftBehind) -> float:
        return call.since + self._limits.hang_grace_s

    def _hung_at(self, call: LeftBehind) -> float:
        """When it counts as hung even if it is the only one: also a call whose caller left can be past its deadline."""
        hard_s = self._hard_s(METHODS[call.method])
        if hard_s is None:
            return math.inf
        return max(call.since, call.started + hard_s) + self._limits.hang_grace_s

    def _unbearable(self, stuck: list[LeftBehind], now: float) -> str:
        """Why a worker with these stuck calls must be killed; empty when it need not be."""
        for call in stuck:
            if self._hung_at(call) <= now:
                allowed_s = (self._hard_s(METHODS[call.method]) or 0) + self._limits.hang_grace_s
                return f"hung in {call.method} for more than {allowed_s:g} s"
        threads = self.transport.max_calls
        most = self._limits.stuck_calls
        if len(stuck) > most or (threads is not None and len(stuck) >= threads * STUCK_SHARE):
            return f"{len(stuck)} abandoned calls are stuck: {_by_method(stuck)}"
        return ""

    def _log_line(self, stream: LogStream, text: str) -> None:
        if stream == "transport":
            log.warning("plugin transport", **self._names(), text=text)
        else:
            log.info("plugin output", **self._names(), stream=stream, text=text)

    def _names(self) -> dict[str, object]:
        return {"plugin": self.plugin_id, "generation": self.number}


def _by_method(calls: Iterable[LeftBehind]) -> str:
    counts = Counter(call.method for call in calls)
    return ", ".join(f"{count} in {method}" for method, count in sorted(counts.items()))


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
