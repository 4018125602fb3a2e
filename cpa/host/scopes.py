"""Call scopes: what a plugin call lends to the host calls that the plugin makes for it (plugin-abi 5.2).

Theory of operation. The adapter opens a scope around a plugin call and sends its id along. Host calls that name the id
run in the scope's context: with the client's headers and trace id, cancelled with the client's request. Model and HTTP
streams opened under it are tasks in its nursery. The scope ends with the block that opened it, so that an adapter keeps
it for an asynchronous executor stream by staying in that block until the stream has ended.

Most calls open nothing, and chunk interceptors are called for every chunk: a scope gets its nursery when something is
opened under it, in a task that the registry's owner keeps, and the end of the block waits for that task.

Host calls are tasks of the transport, not of the scope: closing the scope must wake a call with an answer for the
plugin's thread, not merely make it vanish. Each therefore waits inside `Bounds.enter`, which turns the end of its scope
into a `ScopeEnded`, while any other cancellation passes through it.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from secrets import token_hex
from typing import Final

import attrs
import trio

from cpa.abi.envelope import HostCallError
from cpa.formats.headers import HeaderMap
from cpa.observability.log import request_id as log_trace_id
from cpa.pipeline.exchange import NO_TRACE
from cpa.types import Execution, PluginId, RequestId, TraceId

NO_REQUEST: Final = RequestId("")

ID_BYTES: Final = 16
"""Random bytes of scope and stream ids: plugins must not find those of others by trying."""
UNWIND_S: Final = 0.5
"""How long a plugin may take to return once its scope was closed under it (design.md 4)."""


class ScopeEnded(HostCallError):
    """The plugin call, request or plugin that this host call worked for has ended."""

    http_status = 499
    default_message = "canceled: the call that this host call belongs to has ended"


def new_id() -> str:
    """An id that cannot be guessed: lower-case hex, as plugins with simple parsers like it."""
    return token_hex(ID_BYTES)


@attrs.frozen(kw_only=True)
class Caller:
    """Which loaded copy of which plugin makes a host call."""

    plugin_id: PluginId
    generation: int = 0


@attrs.frozen(kw_only=True)
class InboundContext:
    """What host calls inherit of the request that led to them.

    Attributes:
      headers, query: the client's.
      trace_id: of the inbound HTTP request; empty when none.
      request_id: of the execution; empty outside of any.
      callers: plugins whose nested calls led to this execution, outermost first, without the plugin being called.
      path: route pattern of the inbound request.
      principal: the client's key after authentication.
      execution: which the plugin was called for; None outside of any.
    """

    headers: HeaderMap = attrs.field(factory=dict, repr=False)
    query: HeaderMap = attrs.field(factory=dict, repr=False)
    trace_id: TraceId = NO_TRACE
    request_id: RequestId = NO_REQUEST
    callers: tuple[PluginId, ...] = ()
    path: str = ""
    principal: str = attrs.field(default="", repr=False)
    execution: Execution | None = attrs.field(default=None, repr=False, eq=False)


BACKGROUND: Final = InboundContext()
"""The neutral context of host calls that name no scope, or one that is gone."""


class Bounds:
    """Host calls that end together."""

    __slots__ = ("_scopes", "ended")

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self.ended = False

    def __len__(self) -> int:
        """Calls inside `enter`."""
        return len(self._scopes)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Raises: ScopeEnded when `end` is called meanwhile and the block waits, or was called before."""
        if self.ended:
            raise ScopeEnded
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise ScopeEnded

    def end(self) -> None:
        """Wake all that are inside; nobody enters any more."""
        self.ended = True
        for scope in self._scopes:
            scope.cancel()


@attrs.define(eq=False, kw_only=True)
class CallScope:
    """One plugin call with all that it opens on the host; made by `ScopeRegistry.open`, which owns it.

    Attributes:
      id: what the plugin is told; an id says nothing to anybody but *owner*.
      bounds: host calls that work for this scope.
    """

    id: str
    owner: PluginId
    context: InboundContext
    _keeper: trio.Nursery = attrs.field(repr=False)
    _registry: "dict[str, CallScope]" = attrs.field(repr=False)
    bounds: Bounds = attrs.field(factory=Bounds, init=False, repr=False)
    _closers: dict[Callable[[], None], None] = attrs.field(factory=dict, init=False, repr=False)
    _tasks: "_Tasks | None" = attrs.field(default=None, init=False, repr=False)

    @property
    def closed(self) -> bool:
        """Nothing can be opened under it any more."""
        return self.bounds.ended

    async def nursery(self) -> trio.Nursery:
        """For the tasks behind what is opened under the scope. They must not raise. Raises: ScopeEnded."""
        if self._tasks is None:
            self._tasks = tasks = _Tasks()
            self._keeper.start_soon(tasks.keep, name=f"scope:{self.owner}")
        await self._tasks.ready.wait()
        if self.closed or self._tasks.ended.is_set():
            raise ScopeEnded
        return self._tasks.nursery

    def on_close(self, closer: Callable[[], None]) -> None:
        """Have *closer*, which must neither block nor raise, called when the scope closes."""
        self._closers[closer] = None

    def forget(self, closer: Callable[[], None]) -> None:
        """Undo `on_close`; unknown ones are ignored."""
        self._closers.pop(closer, None)

    def close(self) -> None:
        """Forget the id, wake blocked host calls with an error, close what is open. Idempotent; never blocks.

        The plugin call itself goes on: it is the opener's to end.
        """
        if self.closed:
            return
        del self._registry[self.id]
        self.bounds.end()
        while self._closers:
            closer, _ = self._closers.popitem()
            closer()

    def unwind(self) -> float:
        """Close because the caller of the plugin call was cancelled; how many seconds the plugin has to return."""
        self.close()
        return UNWIND_S

    async def aclose(self) -> None:
        """Close, and wait until everything that was opened under the scope has ended. Shielded: all of it is ours."""
        self.close()
        if self._tasks is not None:
            with trio.CancelScope(shield=True):
                await self._tasks.end()


class _Tasks:
    """The nursery of one scope."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.nursery: trio.Nursery
        self.ended = trio.Event()

    async def keep(self) -> None:
        """Hold the nursery open until `end`, or until whoever keeps this task is cancelled."""
        try:
            async with trio.open_nursery() as self.nursery:
                self.ready.set()
                await trio.sleep_forever()
        finally:
            self.ready.set()
            self.ended.set()

    async def end(self) -> None:
        """Cancel the tasks and wait for them."""
        await self.ready.wait()
        self.nursery.cancel_scope.cancel()
        await self.ended.wait()


class OpenScope:
    """The block of one scope. A class, because chunk interceptors enter one for every chunk."""

    __slots__ = ("_registry", "_scope")

    def __init__(self, scope: CallScope, registry: dict[str, CallScope]) -> None:
        self._scope = scope
        self._registry = registry

    async def __aenter__(self) -> CallScope:
        self._registry[self._scope.id] = self._scope
        return self._scope

    async def __aexit__(self, *exc_info: object) -> None:
        await self._scope.aclose()


class ScopeRegistry:
    """The open scopes of all plugins, and the host calls that belong to none; made by `open_scopes`."""

    def __init__(self, keeper: trio.Nursery) -> None:
        self._keeper = keeper
        self._scopes: dict[str, CallScope] = {}
        self._background: dict[Caller, Bounds] = {}

    def __len__(self) -> int:
        """Open scopes."""
        return len(self._scopes)

    def open(self, owner: PluginId, context: InboundContext = BACKGROUND) -> "OpenScope":
        """A scope for a call of *owner* while the block runs; stay in it as long as the call, or its stream, lives.

        Leaving closes the scope first and then waits for what was opened under it to be closed.
        """
        return OpenScope(
            CallScope(id=new_id(), owner=owner, context=context, keeper=self._keeper, registry=self._scopes),
            self._scopes,
        )

    def find(self, scope_id: str, plugin_id: PluginId) -> CallScope | None:
        """The open scope of that id; None for an empty, unknown or expired one.

        Raises: HostCallError when it belongs to another plugin.
        """
        scope = self._scopes.get(scope_id)
        if scope is not None and scope.owner != plugin_id:
            raise HostCallError("host_callback_id belongs to another plugin", http_status=403)
        return scope

    @contextmanager
    def working(self, caller: Caller, scope: CallScope | None) -> Iterator[InboundContext]:
        """What a host call of *caller* runs in: *scope*'s context and lifetime, or those of the plugin itself.

        Raises: ScopeEnded when that lifetime ends while the block waits.
        """
        if scope is None:
            bounds, context = self._background.setdefault(caller, Bounds()), BACKGROUND
        else:
            bounds, context = scope.bounds, scope.context
        token = log_trace_id.set(context.trace_id)
        try:
            with bounds.enter():
                yield context
        finally:
            log_trace_id.reset(token)
            if scope is None and not bounds and self._background.get(caller) is bounds:
                del self._background[caller]

    def end_background(self, caller: Caller) -> None:
        """Wake the host calls of *caller* that belong to no scope with an error."""
        bounds = self._background.pop(caller, None)
        if bounds is not None:
            bounds.end()


@asynccontextmanager
async def open_scopes() -> AsyncIterator[ScopeRegistry]:
    """A registry while the block runs; end the plugins before."""
    async with trio.open_nursery() as keeper:
        try:
            yield ScopeRegistry(keeper)
        finally:
            keeper.cancel_scope.cancel()
