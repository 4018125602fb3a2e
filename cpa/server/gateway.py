"""The model and management APIs as plain ASGI, in front of the Quart application that serves everything else.

Quart buffers request bodies without back-pressure and spends as much on a request as the rest of the path does, so the
hot routes are handlers over a thin interface (`ClientHead` and bytes in, `Responder` out) that need no framework.
Order of the layers is proxy 1.4: access log, exceptions, CORS, template-key guard, authentication, handler.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

from cpa.host.management import MANAGEMENT
from cpa.observability.log import log_access
from cpa.server import routes_claude, routes_embeddings, routes_gemini, routes_openai, routes_responses, websocket
from cpa.server.body import Receive
from cpa.server.call import serve_call
from cpa.server.listener import Connection
from cpa.server.management import client_keys
from cpa.server.management.logins import CALLBACK
from cpa.server.management.site import ManagementSite, is_served
from cpa.server.peers import client_of
from cpa.server.responder import CORS, Responder, Send
from cpa.server.routes import ClientHead, ModelRoute, Routes
from cpa.server.state import ServerState

Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

EXACT: Routes = {
    **routes_openai.ROUTES,
    **routes_responses.ROUTES,
    **routes_claude.ROUTES,
    **routes_embeddings.ROUTES,
}
PLAIN_PATHS = frozenset({"/healthz", "/metrics", "/v1/models", "/v1beta/models"})
"""What the inner application serves and clients may write with a slash at its end."""
SECRET_QUERIES = frozenset({CALLBACK, client_keys.PATH})
"""Whose parameters may be secret without being called so: the code of a sign-in, a client key that is deleted."""
QUIET_PATHS = frozenset({"/healthz", "/metrics"})
"""Asked every few seconds by machines; their access lines would drown the others."""
POLLED_PATHS = frozenset(
    f"{MANAGEMENT}/{name}"
    for name in (
        *("overview", "requests", "requests/stream", "routes", "limits", "credentials", "plugins", "logs/recent"),
        "cooldowns",
    )
)
"""Asked every few seconds by the control panel, which shows the log too. Refusals are written."""


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

    def __init__(self, inner: AsgiApp, state: ServerState) -> None:
        self._inner = inner
        self._state = state

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
            await self._inner(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        path, method = scope["path"], scope["method"]
        client = scope["client"]
        peer = client[0] if client else ""
        connection: Connection = scope["state"]["connection"]
        managed = is_served(path)
        responder = Responder(send=send, hold=connection.hold, cors=() if managed else CORS)
        status = 0
        try:
            route = find_route(path, method)
            if method == "OPTIONS":
                await responder.start(204, ())
                await responder.end()
            elif route is not None:
                status = await self._model(route, scope, receive, responder, peer)
            elif managed:
                await self._manage(scope, receive, responder, peer)
            elif path.endswith("/") and scope["raw_path"].endswith(b"/") and is_known(path.rstrip("/")):
                await redirect(scope, responder)
            else:
                await self._inner(scope, receive, with_cors(responder))
        finally:
            status = status or responder.status
            if path not in QUIET_PATHS and not (path in POLLED_PATHS and method == "GET" and status == 200):
                log_access(
                    status=status,
                    duration_s=perf_counter() - started,
                    client=peer,
                    method=method,
                    path=path,
                    query="" if path in SECRET_QUERIES else scope["query_string"].decode("latin-1"),
                )

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        site = ManagementSite(
            state=self._state,
            head=client_head(scope, peer),
            receive=receive,
            responder=responder,
            abort=scope["state"]["connection"].abort,
            server_port=server[1] or 0 if server else 0,
        )
        await site.run()

    async def _model(self, route: ModelRoute, scope: Scope, receive: Receive, responder: Responder, peer: str) -> int:
        """Serve a model route. Returns: the status for the log."""
        head = client_head(scope, peer)
        call = await serve_call(
            self._state,
            route=route,
            head=head,
            receive=receive,
            responder=responder,
            abort=scope["state"]["connection"].abort,
        )
        return call.status


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
