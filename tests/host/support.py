"""Plugins in Python behind the transports' interface, for the tests of `cpa.host`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from cpa.abi import methods
from cpa.abi.envelope import decode_request, encode_error, encode_reply
from cpa.abi.errors import PluginClosed, PluginCrashed, PluginError
from cpa.abi.transport import HostCallHandler, LeftBehind, LogLine, PluginReply, Unwind
from cpa.abi.wire import Capabilities, IdentifierReply, PluginMetadata, RegisterReply, RegisterRequest
from cpa.config.schema import Isolation

Answer = Callable[[bytes], Awaitable[bytes]]

METADATA = PluginMetadata(name="Acme", version="1.0", author="Acme Ltd", repository="https://example.org/acme")
NORMALIZER = Capabilities(request_normalizer=True)
NOTHING = b'{"ok":true,"result":{}}'


async def no_host_calls(method: bytes, payload: bytes) -> bytes:
    """For plugins that make none."""
    raise AssertionError(f"unexpected host call {method!r}")


@attrs.define(eq=False)
class FakeTransport:
    """One loaded copy. *answers* by method; without one a method answers with nothing to say."""

    plugin_id: str
    path: str
    isolation: Isolation
    answers: dict[str, Answer] = attrs.field(factory=dict)
    reply: RegisterReply = attrs.field(
        factory=lambda: RegisterReply(schema_version=3, metadata=METADATA, capabilities=NORMALIZER)
    )
    refuses: str = ""  # reason for refusing registrations
    highest_schema: int = 3
    pid: int = 4711
    died: trio.Event = attrs.field(factory=trio.Event)
    death: str | None = None
    late_replies: int = 0
    max_calls: int | None = 256
    left: list[LeftBehind] = attrs.field(factory=list)
    in_flight: int = 0
    calls: list[str] = attrs.field(factory=list)
    settings: list[RegisterRequest] = attrs.field(factory=list)
    grace_s: float | None = None

    @property
    def abandoned(self) -> int:
        """See `PluginTransport`."""
        return len(self.left)

    def left_behind(self) -> list[LeftBehind]:
        """See `PluginTransport.left_behind`."""
        return list(self.left)

    async def call(self, method: str, payload: bytes, *, unwind: Unwind | None = None) -> PluginReply:
        """Answers by script; ends as the transports do when the plugin dies."""
        await trio.lowlevel.checkpoint()
        if self.death is not None:
            raise self._gone(method)
        self.calls.append(method)
        answer = self.answers.get(method) or self._default(method)
        result: list[bytes] = []

        async def run() -> None:
            result.append(await answer(payload))
            nursery.cancel_scope.cancel()

        async def watch() -> None:
            await self.died.wait()
            nursery.cancel_scope.cancel()

        self.in_flight += 1
        started = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                nursery.start_soon(run)
        finally:
            self.in_flight -= 1
            if not result and self.death is None:  # only cancellation ends it so
                self.left.append(LeftBehind(method=method, started=started, since=trio.current_time()))
        if not result:
            raise self._gone(method)
        return PluginReply(rc=0, body=result[0])

    def _gone(self, method: str) -> PluginError:
        if self.death == "closed":
            return PluginClosed(plugin_id=self.plugin_id)
        return PluginCrashed(plugin_id=self.plugin_id, reason=self.death or "", method=method)

    def _default(self, method: str) -> Answer:
        async def registered(payload: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            request = decode_request(methods.PLUGIN_REGISTER, payload)
            self.settings.append(request)
            if request.schema_version > self.highest_schema:
                return encode_error(f"schema version {request.schema_version} is not supported")
            if self.refuses:
                return encode_error(self.refuses)
            return encode_reply(methods.PLUGIN_REGISTER, self.reply)

        async def identifier(payload: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            return encode_reply(methods.EXECUTOR_IDENTIFIER, IdentifierReply(identifier=f" {method} "))

        async def nothing(payload: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            return NOTHING

        if method in ("plugin.register", "plugin.reconfigure"):
            return registered
        return identifier if method.endswith(".identifier") else nothing

    def die(self, reason: str = "killed by signal 11 (SIGSEGV)") -> None:
        """As a worker does."""
        if self.death is None:
            self.death = reason
            self.died.set()

    def kill(self, reason: str) -> None:
        """See `PluginTransport.kill`."""
        self.die(reason)

    async def aclose(self, grace_s: float) -> None:
        """See `PluginTransport.aclose`."""
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        if self.grace_s is None:
            self.grace_s = grace_s
        self.die("closed")


@attrs.define(eq=False)
class FakeOpener:
    """Makes fakes. *prepare* changes a new one before it is loaded, or raises to make loading fail."""

    prepare: Callable[[FakeTransport], None] = lambda transport: None
    opened: list[FakeTransport] = attrs.field(factory=list)
    loading: int = 0
    most_loading: int = 0
    gate: trio.Event | None = None  # loading waits for it

    @asynccontextmanager
    async def __call__(
        self,
        path: str,
        *,
        plugin_id: str,
        isolation: Isolation,
        handler: HostCallHandler,
        nursery: trio.Nursery,
        log_line: LogLine,
    ) -> AsyncIterator[FakeTransport]:
        """See `TransportOpener`."""
        transport = FakeTransport(plugin_id, path, isolation)
        self.loading += 1
        self.most_loading = max(self.loading, self.most_loading)
        try:
            await trio.lowlevel.checkpoint()
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.loading -= 1
        self.opened.append(transport)
        log_line("stderr", f"{plugin_id} loads")
        self.prepare(transport)
        async with trio.open_nursery():  # as the real ones: what rises in the block is grouped
            try:
                yield transport
            finally:
                await transport.aclose(9.0)

    @property
    def last(self) -> FakeTransport:
        """The newest copy."""
        return self.opened[-1]
