"""A plugin inside the proxy's process: for trusted plugins and for debugging.

Theory of operation. Calls run on Trio's worker threads, each with a limiter of its own: under a shared one, calls that
wait for host calls that make calls would deadlock. The thread copies and frees the reply itself, so an abandoned call
cleans up after itself whenever it comes back. Host calls wait in C (inline.c); one task takes them out of the queue
when the wake-up descriptor says so and starts a task for each. No thread of a plugin ever runs Python.

That task is shielded from cancellation until `aclose` has ended the library, so that calls which are still running can
ask the host while they finish.
"""

import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import trio

from cpa.abi.errors import PluginClosed, PluginError, PluginLoadError, PluginRequestTooLarge
from cpa.abi.native import NativeLibrary
from cpa.abi.transport import (
    HostCallHandler,
    LeftBehind,
    LogLine,
    PluginReply,
    TransportLimits,
    Unwind,
    method_name,
)
from cpa.config.schema import Isolation


@attrs.define(eq=False, slots=True)
class _Call:
    """One call and its thread; *lock* guards both flags, which two threads look at."""

    method: str
    started: float
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    abandoned: bool = False
    returned: bool = False
    on_return: Callable[[], None] | None = None  # from the worker thread


@attrs.define(eq=False, slots=True)
class _Abandoned:
    """The abandoned calls that still run, and how many came back; changed from worker threads."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    running: dict[_Call, LeftBehind] = attrs.field(factory=dict)
    late: int = 0


@attrs.define(eq=False, slots=True, kw_only=True)
class InlineTransport:
    """See `PluginTransport`; the context of `open_inline` owns it. `kill` does nothing, `died` is set by `aclose`."""

    plugin_id: str
    _library: NativeLibrary
    _handler: HostCallHandler
    _host_nursery: trio.Nursery
    _log_line: LogLine
    _limits: TransportLimits

    isolation: Isolation = Isolation.INLINE
    pid: int = attrs.field(factory=os.getpid)
    max_calls: int | None = None
    died: trio.Event = attrs.field(factory=trio.Event)
    death: str | None = None

    _closing: bool = False
    _drained: trio.Event = attrs.field(factory=trio.Event)
    _abandoned: _Abandoned = attrs.field(factory=_Abandoned)
    _scopes: set[trio.CancelScope] = attrs.field(factory=set)
    _serving: trio.CancelScope = attrs.field(factory=lambda: trio.CancelScope(shield=True))

    @property
    def in_flight(self) -> int:
        """Calls inside the plugin."""
        return self._library.in_flight

    @property
    def abandoned(self) -> int:
        """Those of them that nobody waits for."""
        return len(self._abandoned.running)

    def left_behind(self) -> Sequence[LeftBehind]:
        """See `PluginTransport.left_behind`."""
        with self._abandoned.lock:
            return tuple(self._abandoned.running.values())

    @property
    def late_replies(self) -> int:
        """Abandoned calls that came back."""
        return self._abandoned.late

    async def call(self, method: str, payload: bytes, *, unwind: Unwind | None = None) -> PluginReply:
        """See `PluginTransport.call`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        name = method_name(method)
        limit = self._limits.max_body_bytes
        if len(payload) > limit:
            raise PluginRequestTooLarge(
                plugin_id=self.plugin_id, method=method, size_bytes=len(payload), limit_bytes=limit
            )
        if self._closing:
            raise PluginClosed(plugin_id=self.plugin_id)
        call = _Call(method, trio.current_time())
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await trio.to_thread.run_sync(
                    self._run, call, name, payload, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
                )
            except trio.Cancelled:
                if unwind is not None and not scope.cancel_called:
                    await self._unwound(call, unwind())
                raise
            finally:
                self._scopes.discard(scope)
                self._abandon(call)
        raise PluginClosed(plugin_id=self.plugin_id)  # aclose() cancelled the scope

    def _run(self, call: _Call, name: bytes, payload: bytes) -> PluginReply:
        """On a worker thread."""
        try:
            rc, body = self._library.call(name, payload)
            return PluginReply(rc=rc, body=body)
        finally:
            with call.lock:
                call.returned = True
                late = call.abandoned
            if call.on_return is not None:
                with suppress(trio.RunFinishedError):
                    call.on_return()
            if late:
                with self._abandoned.lock:
                    del self._abandoned.running[call]
                    self._abandoned.late += 1

    async def _unwound(self, call: _Call, grace_s: float) -> None:
        """Wait up to *grace_s* seconds for the thread of a cancelled call to come back."""
        back, token = trio.Event(), trio.lowlevel.current_trio_token()
        with call.lock:
            if call.returned:
                return
            call.on_return = partial(token.run_sync_soon, back.set)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + grace_s):
            await back.wait()

    def _abandon(self, call: _Call) -> None:
        """Note the call if its thread is not back yet."""
        with self._abandoned.lock, call.lock:
            if not call.returned:
                call.abandoned = True
                now = trio.current_time()
                self._abandoned.running[call] = LeftBehind(method=call.method, started=call.started, since=now)

    async def aclose(self, grace_s: float) -> None:
        """See `PluginTransport.aclose`."""
        with trio.CancelScope(shield=True):
            if self._closing:
                await self.died.wait()
                return
            self._closing = True
            self._library.close()
            self._library.fail_host_calls()
            closed = False
            with trio.move_on_after(grace_s):
                await self._drained.wait()
                await trio.to_thread.run_sync(
                    self._library.shutdown, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
                )
                closed = True
            self._end("closed" if closed else f"did not end within {grace_s:g} s")
            await trio.lowlevel.checkpoint()

    def _end(self, death: str) -> None:
        self._closing = True
        self._serving.cancel()
        self.death = death
        for scope in self._scopes:
            scope.cancel()
        self.died.set()

    def kill(self, reason: str) -> None:
        """Nothing can be done to a library in our own process."""
        self._log_line("transport", f"cannot be killed inside the proxy: {reason}")

    async def load(self, path: str) -> PluginError | None:
        """Open and initialise the library on a thread; what went wrong, or None."""
        try:
            with trio.move_on_after(self._limits.start_s):
                await trio.to_thread.run_sync(
                    self._library.load, os.fsencode(path), abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
                )
                return None
        except PluginLoadError as exc:
            return exc
        text = f"cliproxy_plugin_init did not return within {self._limits.start_s:g} s"
        return PluginLoadError(text, plugin_id=self.plugin_id)

    async def serve(self) -> None:
        """Deliver host calls until the end. Runs in the nursery of `open_inline`."""
        try:
            with self._serving:
                while True:
                    await trio.lowlevel.wait_readable(self._library.wake_fd)
                    while (request := self._library.next_host_call()) is not None:
                        name = f"host call {request[1].decode('utf-8', 'replace')} of {self.plugin_id}"
                        self._host_nursery.start_soon(self._answer, *request, name=name)
                    if self._closing and self._library.in_flight == 0:
                        self._drained.set()
        finally:
            self._library.end()

    async def _answer(self, call_id: int, method: bytes, payload: bytes) -> None:
        """One host call: a task of the nursery that was passed in."""
        status, body = 1, b""
        try:
            answer = await self._handler(method, payload)
            if len(answer) <= self._limits.max_body_bytes:
                status, body = 0, answer
            else:
                self._log_line("transport", f"answer of {len(answer)} bytes to a host call is too large: dropped")
        finally:
            self._library.answer(call_id, status, body)


@asynccontextmanager
async def open_inline(
    path: str,
    *,
    plugin_id: str,
    handler: HostCallHandler,
    nursery: trio.Nursery,
    log_line: LogLine,
    limits: TransportLimits | None = None,
) -> AsyncIterator[InlineTransport]:
    """Run the library *path* (absolute) in this process and end it with the block; see `open_process`.

    Raises: PluginLoadError, AbiMismatch.
    Ownership: the library itself and about 2 KB stay until the process ends: code that may still run cannot be
    unmapped.
    """
    limits = limits or TransportLimits()
    transport = InlineTransport(
        plugin_id=plugin_id,
        library=NativeLibrary(plugin_id=plugin_id, max_body=limits.max_body_bytes),
        handler=handler,
        host_nursery=nursery,
        log_line=log_line,
        limits=limits,
    )
    failure: PluginError | None = None
    loaded = False
    async with trio.open_nursery() as tasks:
        tasks.start_soon(transport.serve, name=f"host calls of {plugin_id}")
        try:
            failure = await transport.load(path)
            if failure is None:
                loaded = True
                yield transport
        finally:
            await transport.aclose(limits.close_grace_s if loaded else 0)
    if failure is not None:
        raise failure
