"""Management and plugin pages over HTTP: one request from its head to the last byte of its answer.

Order of checks (proxy 6.1, plugin-abi 7.3): is there a key at all, whose browser asks, the key; then the native
endpoints, sign-in pages, plugins' routes. Only then the body is read. Pages of plugins need no key.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import attrs
import trio

from cpa.config.editing import Author
from cpa.config.schema import Config
from cpa.errors import CpaError, RawHeaders
from cpa.host.management import Endpoint
from cpa.observability.log import get_logger
from cpa.server.body import ClientGone, Receive, declared_length, linger, read_body
from cpa.server.management import logins, panel
from cpa.server.management.calls import Answer, Feed, ManagementCall, coded_error, error_answer, text_answer
from cpa.server.management.guard import foreign_host, foreign_site
from cpa.server.management.pages import serve_resource
from cpa.server.management.paths import is_management
from cpa.server.management.plugin_routes import serve_route
from cpa.server.management.routes import SMALL_BODY_BYTES, NativeRoute, find_native
from cpa.server.responder import Responder
from cpa.server.routes import ClientHead
from cpa.server.state import Runtime, ServerState
from cpa.version import BUILD_DATE, COMMIT, VERSION

log = get_logger()

T = TypeVar("T")

VERSION_HEADERS: Final = (
    (b"x-cpa-version", VERSION.encode()),
    (b"x-cpa-commit", COMMIT.encode()),
    (b"x-cpa-build-date", BUILD_DATE.encode()),
)
PRIVATE: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every management answer, unless it says otherwise."""
NOT_FOUND: Final = Answer(status=404)
WITHOUT_LENGTH: Final = frozenset({204, 304})
"""Statuses whose answers end with their heads."""
FOREIGN_HOST: Final = text_answer(
    "this name is not one of this machine: use localhost, 127.0.0.1 or the configured host\n", status=403
)


@attrs.define(kw_only=True, eq=False)
class ManagementSite:
    """Serves one request; `run` returns when the client has its answer or has left.

    Attributes:
      abort: ends the connection.
      server_port: of the socket that the client came to.
    """

    state: ServerState
    head: ClientHead
    receive: Receive
    responder: Responder
    abort: Callable[[], None]
    server_port: int = 0
    runtime: Runtime = attrs.field(init=False)
    _unread: bool = True

    def __attrs_post_init__(self) -> None:
        self.runtime = self.state.runtime

    async def run(self) -> None:
        """Serve the request. Only cancellation leaves this method as an exception."""
        try:
            answer = await self._answer()
        except ClientGone:
            return
        except CpaError as exc:  # of reading the body
            answer = error_answer(exc.http_status, exc.message)
        except Exception:
            log.exception("management.crashed")
            answer = error_answer(500, "internal error")
        if answer is not None:
            try:
                await self._send(answer)
            except Exception:
                log.exception("management.crashed")
                self.abort()

    async def _answer(self) -> Answer | None:
        """The answer; None when the client has left. Raises: CpaError, ClientGone."""
        head, config = self.head, self.runtime.config
        if not is_management(head.path) and not panel.is_panel(head.path):
            return await self._resource(config)
        if not self.state.keys.enabled(config.remote_management):
            return NOT_FOUND
        if panel.is_panel(head.path):
            return await self._panel(config)
        return await self._management(config)

    async def _panel(self, config: Config) -> Answer | None:
        if config.remote_management.disable_control_panel:
            return NOT_FOUND
        if foreign_host(self.head, own_name=config.host):
            return FOREIGN_HOST
        if not self.state.keys.reachable(config.remote_management, self.head):
            return panel.REMOTE_REFUSED
        return await panel.serve_panel(self.state.panel, self.head)

    async def _resource(self, config: Config) -> Answer | None:
        plugins = self.state.plugins
        endpoint = plugins.management.tables.resources.get(self.head.path) if plugins is not None else None
        if plugins is None or endpoint is None or self.head.method != "GET":
            return NOT_FOUND
        if foreign_host(self.head, own_name=config.host):
            return FOREIGN_HOST
        management = plugins.management
        await self._read(SMALL_BODY_BYTES)
        return await self._while_wanted(lambda: serve_resource(management, endpoint, self.head))

    async def _management(self, config: Config) -> Answer | None:
        found = find_native(self.head.method, self.head.path)
        refused = await self._refused(config, public=found is not None and found[0].public)
        try:
            answer = refused or await self._dispatch(found)
        except CpaError as exc:  # of reading the body, or of a handler that refuses
            answer = error_answer(exc.http_status, exc.message)
        return None if answer is None else self._marked(answer)

    async def _refused(self, config: Config, *, public: bool) -> Answer | None:
        """Why the client may not; *public* endpoints take no key and are reached from other sites."""
        head = self.head
        if foreign_host(head, own_name=config.host):
            return FOREIGN_HOST
        if public:
            return None
        if foreign_site(head):
            return error_answer(403, "pages of other sites may not manage")
        refusal = await self.state.keys.refusal(config.remote_management, head)
        if refusal is None:
            return None
        answer = error_answer(refusal.status, refusal.text)
        if refusal.retry_after_s is None:
            return answer
        return attrs.evolve(answer, headers=(*answer.headers, (b"retry-after", b"%d" % refusal.retry_after_s)))

    async def _dispatch(self, found: tuple[NativeRoute, Mapping[str, str]] | None) -> Answer | None:
        call = ManagementCall(
            head=self.head,
            runtime=self.runtime,
            plugins=self.state.plugins,
            usage=self.state.usage,
            live=self.state.live,
            server_port=self.server_port,
            editor=self.state.editor,
            author=self._author(),
            log_sink=self.state.log_sink,
            outbound=self.state.outbound,
        )
        if found is not None:
            route, params = found
            body = await self._read(route.body_bytes)
            whole = attrs.evolve(call, params=params, body=body)
            return await self._while_wanted(lambda: route.handler(whole))
        provider = logins.login_provider(call)
        if provider:
            await self._read(SMALL_BODY_BYTES)
            return await self._while_wanted(lambda: logins.start(call, provider))
        endpoint = self._plugin_route()
        if endpoint is None or call.plugins is None:
            return coded_error(404, "not_found", "there is no such endpoint")
        return await self._plugin(endpoint)

    def _author(self) -> Author:
        """Whose request it is, without anything of its query: keys may stand there."""
        origin = self.state.keys.origin(self.head)
        return Author(client=self.head.peer, known_by=origin, endpoint=f"{self.head.method} {self.head.path}")

    def _plugin_route(self) -> Endpoint | None:
        plugins = self.state.plugins
        return None if plugins is None else plugins.management.tables.routes.get((self.head.method, self.head.path))

    async def _plugin(self, endpoint: Endpoint) -> Answer | None:
        assert self.state.plugins is not None
        management = self.state.plugins.management
        try:
            body = await self._read(0)
        except CpaError as exc:
            if exc.http_status != 400:  # too large, too slow: the client can do something about those
                raise
            return error_answer(400, "failed to read plugin management request body")
        return await self._while_wanted(lambda: serve_route(management, endpoint, self.head, body))

    async def _read(self, limit_bytes: int) -> bytes:
        """The request's body; *limit_bytes* 0 = what the configuration allows. Raises: CpaError, ClientGone."""
        limits = self.runtime.config.limits
        if limit_bytes:
            limits = attrs.evolve(limits, body_bytes=min(limit_bytes, limits.body_bytes))
        body = await read_body(self.head.headers, self.receive, limits)
        self._unread = False
        return body

    async def _while_wanted(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """The result of *work*, or None when the client left before; what runs for it is cancelled then.

        Raises: CpaError, as *work* does, not in a group.
        """
        results: list[T] = []
        refused: CpaError | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await self.receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                results.append(await work())
            except CpaError as exc:
                refused = exc
            nursery.cancel_scope.cancel()
        if refused is not None:
            raise refused
        return results[0] if results else None

    def _marked(self, answer: Answer) -> Answer:
        """*answer* with what every answer of the management API carries."""
        names = {name for name, _ in answer.headers}
        supported = b"1" if self.state.plugins is not None and self.state.plugins.supported else b"0"
        private = tuple(pair for pair in PRIVATE if pair[0] not in names)
        marks = (*VERSION_HEADERS, (b"x-cpa-support-plugin", supported))
        return attrs.evolve(answer, headers=(*answer.headers, *private, *marks))

    async def _send(self, answer: Answer) -> None:
        """Send it; a client that still sends its request gets to see it."""
        if answer.feed is not None:
            await self._stream(answer, answer.feed)
            return
        body = answer.body  # of an answer to HEAD the server sends the length only
        if answer.status in WITHOUT_LENGTH:
            await self.responder.start(answer.status, answer.headers)
            await self.responder.end()
            return
        if not (self._unread and self.head.http_version.startswith("1") and self._has_body()):
            await self.responder.whole(answer.status, answer.headers, body)
            return
        framing: RawHeaders = ((b"content-length", b"%d" % len(body)), (b"connection", b"close"))
        await self.responder.start(answer.status, (*answer.headers, *framing))
        await self.responder.write(body)
        if await linger(self.receive):
            await self.responder.end()
        else:
            self.abort()

    async def _stream(self, answer: Answer, feed: Feed) -> None:
        """Send what *feed* writes, until it returns, the client leaves or the server drains."""
        gone = writing = False

        async def until_left() -> None:
            nonlocal gone
            while (await self.receive())["type"] != "http.disconnect":
                pass
            gone = True
            nursery.cancel_scope.cancel()

        async def until_drained() -> None:
            await self.state.draining.wait()
            nursery.cancel_scope.cancel()

        async def write(data: bytes) -> None:
            nonlocal writing
            writing = True
            await self.responder.write(data)
            writing = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_left)
            nursery.start_soon(until_drained)
            await self.responder.start(answer.status, answer.headers)
            await feed(write)
            nursery.cancel_scope.cancel()
        if writing:  # part of a piece may be out: nothing can follow it any more
            self.abort()
        elif not gone:
            await self.responder.end()

    def _has_body(self) -> bool:
        return bool(declared_length(self.head.headers)) or bool(self.head.header(b"transfer-encoding"))
