"""The Quart application: banner, model lists, metrics. The other APIs stand in front of it (gateway.py)."""

from functools import partial
from http import HTTPStatus

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from cpa.errors import RequestError
from cpa.formats import headers as http
from cpa.formats.errors import from_exception, render_error
from cpa.formats.names import Format
from cpa.pipeline.rules import query_map
from cpa.pipeline.stage import AuthCall
from cpa.server.access import Principal, refusal
from cpa.server.call import GUARD_BODY
from cpa.server.routes import ClientHead
from cpa.server.routes_models import list_format, model_list, one_model
from cpa.server.state import ServerState

JSON = "application/json"
BANNER = (
    b'{"message":"CLI Proxy API Server","endpoints":'
    b'["POST /v1/chat/completions","POST /v1/completions","GET /v1/models"]}'
)
GUARD_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>CPA: replace the example keys</title>
<h1>The example client keys are still in use</h1>
<p>The configuration's <code>api-keys</code> contain <code>your-api-key-1</code>, <code>-2</code> or <code>-3</code>.
Everybody knows these, so the model API answers 403 until they are replaced. Edit the file; no restart is needed.</p>
</html>
"""
LOOPBACK = frozenset({"127.0.0.1", "::1"})


def make_app(state: ServerState) -> QuartTrio:
    """What is left to a framework, for *state*."""
    app = QuartTrio("cpa.server", static_folder=None)
    app.url_map.merge_slashes = False  # no redirects but the gateway's

    @app.get("/")
    async def banner() -> Response:
        if state.runtime.guarded:
            return Response(GUARD_PAGE, HTTPStatus.FORBIDDEN, content_type="text/html; charset=utf-8")
        return Response(BANNER, content_type=JSON)

    @app.get("/metrics")
    async def metrics() -> Response:
        if not state.metrics.enabled or not await may_read_metrics(state):
            return Response(b"", HTTPStatus.NOT_FOUND)
        body, content_type = state.metrics.render()
        return Response(body, content_type=content_type)

    @app.get("/v1/models")
    async def models() -> Response:
        return await listing(list_format(client_head()), state)

    @app.get("/v1/models/<path:name>")
    async def model(name: str) -> Response:
        return await single(list_format(client_head()), state, name)

    @app.get("/v1beta/models")
    async def gemini_models() -> Response:
        return await listing(Format.GEMINI, state)

    @app.get("/v1beta/models/<path:name>")
    async def gemini_model(name: str) -> Response:
        return await single(Format.GEMINI, state, name)

    @app.errorhandler(HTTPException)
    async def failed(error: HTTPException) -> Response:
        """Unknown paths have an empty body by contract; for the rest the framework would answer in HTML."""
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        if status == HTTPStatus.NOT_FOUND:
            return Response(b"", status)
        _, body = render_error(Format.OPENAI, status=status, message=error.name)
        allowed = error.valid_methods if isinstance(error, MethodNotAllowed) else None
        headers = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
        return Response(body, status, content_type=JSON, headers=headers)

    return app


def client_head() -> ClientHead:
    """The present Quart request as the model routes see one."""
    scope = request.scope
    client = scope.get("client")
    return ClientHead(
        method=request.method,
        path=scope["path"],
        query=scope["query_string"],
        headers=tuple(scope["headers"]),
        peer=client[0] if client else "",
    )


async def visitor(state: ServerState, fmt: Format) -> Principal | Response:
    """Who asks, or the answer for a client that may not see this."""
    runtime, head = state.runtime, client_head()
    if runtime.guarded:
        return Response(
            GUARD_BODY, HTTPStatus.FORBIDDEN, content_type=JSON, headers={"X-CPA-SAFE-MODE": "example-api-key"}
        )
    principal = runtime.access.check(head.headers, head.query)
    if principal is None:
        call = AuthCall(
            method=head.method, path=head.path, headers=http.to_map(head.headers), query=query_map(head.query), body=b""
        )
        principal = await runtime.access.ask(call)
    return error_response(fmt, refusal(head.headers, head.query)) if principal is None else principal


def error_response(fmt: Format, exc: RequestError) -> Response:
    """*exc* in the client's protocol."""
    error = from_exception(exc)
    status, body = render_error(fmt, status=error.status, message=error.message, code=error.code, param=error.param)
    return Response(body, status, content_type=JSON)


async def listing(fmt: Format, state: ServerState) -> Response:
    """The models that the client may use."""
    asking = await visitor(state, fmt)
    if isinstance(asking, Response):
        return asking
    permits = state.usage.limiter.permits
    cards = [card for card in state.runtime.models.cards if permits(asking.key, card.id)]
    return Response(model_list(fmt, cards), content_type=JSON)


async def single(fmt: Format, state: ServerState, name: str) -> Response:
    """One model, or 404 in the client's protocol."""
    asking = await visitor(state, fmt)
    if isinstance(asking, Response):
        return asking
    permits = partial(state.usage.limiter.permits, asking.key)
    status, body = one_model(fmt, state.runtime.models, name, permits)
    return Response(body, status, content_type=JSON)


async def may_read_metrics(state: ServerState) -> bool:
    """From this machine, or with the management key by the management API's rules."""
    head = client_head()
    if head.peer in LOOPBACK:
        return True
    config = state.runtime.config.remote_management
    return state.keys.enabled(config) and await state.keys.refusal(config, head) is None
