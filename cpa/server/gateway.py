"""The model and management APIs as plain ASGI, in front of the Quart application that serves everything else.

Quart buffers request bodies without back-pressure and spends as much on a request as the rest of the path does, so the
hot routes are handlers over a thin interface (`ClientHead` and bytes in, `Responder` out) that need no framework.
Order of the layers is proxy 1.4: access log, exceptions, CORS, template-key guard, authentication, handler.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

from cpa.errors import RawHeaders
from cpa.formats.errors import render_error
from cpa.formats.names import Format
from cpa.observability.log import log_access
from cpa.server import routes_claude, routes_embeddings, routes_gemini, routes_openai, routes_responses
from cpa.server.body import Receive
from cpa.server.call import serve_call
from cpa.server.http1 import EXTENSION, Exchange
from cpa.server.listener import Connection
from cpa.server.management.paths import POLLED, SECRET_QUERIES, is_served
from cpa.server.peers import client_of
from cpa.server.responder import CORS, Responder, Send
from cpa.server.routes import ClientHead, ModelRoute, Routes
from cpa.server.state import ServerState

if TYPE_CHECKING:
    from cpa.server.management.site import ManagementSite

Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

EXACT: Routes = {
    **routes_openai.ROUTES,
    **routes_responses.ROUTES,
    **routes_claude.ROUTES,
    **routes_embeddings.ROUTES,
}
HEALTH = "/healthz"
PLAIN_PATHS = frozenset({HEALTH, "/metrics", "/v1/models", "/v1beta/models"})
"""Of no model API, and clients may write with a slash at its end."""
QUIET_PATHS = frozenset({HEALTH, "/metrics"})
"""Asked every few seconds by machines; their access lines would drown the others."""


def find_route(path: str, method: str) -> ModelRoute | None:
    """The model route of *path*, or None. Ids of models may hold colons too: who reads one asks for no action."""
    route = EXACT.get(path)
    if route is not None:
        return route
    found = routes_gemini.split(path)
    if found is None or (method in ("GET", "HEAD") and found[1] not in routes_gemini.ACTIONS):
        return None
    return routes_gemini.GEMINI


def is_known(path: str) -> bool:
    """Something is served at *path*."""
    return path in PLAIN_PATHS or find_route(path, "POST") is not None


class Gateway:
    """ASGI middleware: serves both APIs itself and passes on the rest, with CORS and an access line for both."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._inner: AsgiApp | None = None
        self._site: Callable[..., ManagementSite] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        trusted = self._state.runtime.config.trusted_proxies
        if trusted and (client := scope.get("client")):
            scope["client"] = (client_of(client[0], scope["headers"], trusted), client[1])
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await (await self._framework())(scope, receive, send)

    async def _framework(self) -> AsgiApp:
        """The Quart application, which is imported and made for its first request.

        On a thread, as everything that is imported late: what runs is held up by milliseconds, not by all of it.
        """
        if self._inner is None:
            self._inner = await trio.to_thread.run_sync(framework, self._state)
        return self._inner

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        path, method = scope["path"], scope["method"]
        client = scope["client"]
        peer = client[0] if client else ""
        connection: Connection = scope["state"]["connection"]
        managed = is_served(path)
        direct: Exchange | None = scope["extensions"].get(EXTENSION)
        responder = Responder(send=send, hold=connection.hold, cors=() if managed else CORS, direct=direct)
        try:
            route = find_route(path, method)
            if method == "OPTIONS":
                await responder.start(204, ())
                await responder.end()
            elif route is not None:
                await self._model(route, scope, receive, responder, peer)
            elif path == HEALTH:
                await self._health(responder, method)
            elif managed:
                await self._manage(scope, receive, responder, peer)
            elif path.endswith("/") and scope["raw_path"].endswith(b"/") and is_known(path.rstrip("/")):
                await redirect(scope, responder)
            else:
                await (await self._framework())(scope, receive, with_cors(responder))
        finally:
            status = responder.told or responder.status
            if path not in QUIET_PATHS and not (path in POLLED and method == "GET" and status == 200):
                log_access(
                    status=status,
                    duration_s=perf_counter() - started,
                    client=peer,
                    method=method,
                    path=path,
                    query="" if path in SECRET_QUERIES else scope["query_string"].decode("latin-1"),
                )

    async def _health(self, responder: Responder, method: str) -> None:
        """Say whether the proxy is ready; without a framework, which whoever waits for the start would wait for too."""
        ready = self._state.ready
        status, body = (200, b'{"status":"ok"}') if ready else (503, b'{"status":"starting"}')
        headers: RawHeaders = ((b"content-type", b"application/json"),)
        if method not in ("GET", "HEAD"):
            status, body = render_error(Format.OPENAI, status=405, message="Method Not Allowed")
            headers = (*headers, (b"allow", b"GET, HEAD, OPTIONS"))
        await responder.start(status, (*headers, (b"content-length", b"%d" % len(body))))
        if method != "HEAD":
            await responder.write(body)
        await responder.end()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        from cpa.server import websocket  # most proxies never see one

        if scope["path"] in websocket.PATHS:
            client = scope["client"]
            head = client_head({**scope, "method": "GET"}, client[0] if client else "")
            await websocket.serve_websocket(scope, receive, send, state=self._state, head=head)
        elif scope["path"].endswith("/") and scope["path"].rstrip("/") in websocket.PATHS:
            await receive()
            await websocket.reject(send, 301, ((b"location", location_of(scope)),), b"")
        else:
            await refuse_websocket(receive, send)

    async def _manage(self, scope: Scope, receive: Receive, responder: Responder, peer: str) -> None:
        """Serve the management API or a plugin's page."""
        server = scope["server"]
        if self._site is None:
            self._site = await trio.to_thread.run_sync(management)  # most proxies are never managed over HTTP
        site = self._site(
            state=self._state,
            head=client_head(scope, peer),
            receive=receive,
            responder=responder,
            abort=scope["state"]["connection"].abort,
            server_port=server[1] or 0 if server else 0,
        )
        await site.run()

    async def _model(self, route: ModelRoute, scope: Scope, receive: Receive, responder: Responder, peer: str) -> None:
        """Serve a model route."""
        connection: Connection = scope["state"]["connection"]
        direct: Exchange | None = scope["extensions"].get(EXTENSION)
        await serve_call(
            self._state,
            route=route,
            head=client_head(scope, peer),
            receive=receive,
            body=None if direct is None else direct.body(),
            responder=responder,
            abort=connection.abort,
            when_left=connection.when_left if connection.watched and direct is not None else None,
        )


def framework(state: ServerState) -> AsgiApp:
    """The Quart application; takes a fifth of a start to import."""
    from cpa.server.http import make_app

    return make_app(state)  # type: ignore[return-value]  # Hypercorn's types of the same protocol are narrower


def management() -> "Callable[..., ManagementSite]":
    """What serves the management API; fifty modules."""
    from cpa.server.management.site import ManagementSite

    return ManagementSite


def client_head(scope: Scope, peer: str) -> ClientHead:
    """The head of an HTTP request."""
    return ClientHead(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"],
        headers=scope["headers"],
        peer=peer,
        http_version=scope["http_version"],
    )


def with_cors(responder: Responder) -> Send:
    """A send for the inner application that notes the status and lets every origin read."""

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            responder.status = message["status"]
            message = {**message, "headers": [*message["headers"], *responder.cors]}
        await responder.send(message)

    return send


async def redirect(scope: Scope, responder: Responder) -> None:
    """To the path without the slash at its end; 307 keeps method and body."""
    status = 301 if scope["method"] == "GET" else 307
    await responder.whole(status, ((b"location", location_of(scope)),), b"")


def location_of(scope: Scope) -> bytes:
    """Path and query without the slash."""
    query: bytes = b"?" + scope["query_string"] if scope["query_string"] else b""
    location: bytes = scope["raw_path"].rstrip(b"/") + query
    return location


async def refuse_websocket(receive: Receive, send: Send) -> None:
    """426: clients that prefer WebSockets then use HTTP at once, where other answers make them try for seconds."""
    await receive()
    body = b'{"error":{"message":"WebSocket is not offered here, use HTTP","type":"invalid_request_error"}}'
    await send(
        {
            "type": "websocket.http.response.start",
            "status": 426,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *CORS],
        }
    )
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
