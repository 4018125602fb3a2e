"""What is not a model call: lists, banner, health, metrics, CORS, redirects, and paths that do not exist."""

import json

import pytest
import trio

from cpa.server.responder import CORS
from tests.proxy import running_proxy
from tests.server.wire import FAIL_S, connect, head, serving

MODELS = {name for kind in ("gpt", "responses", "claude", "gemini") for name in (kind, f"mock-{kind}-unrenamed")}


async def test_model_lists_come_in_three_shapes() -> None:
    """Told by the headers that only one vendor's clients send; each lists everything."""
    async with running_proxy() as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            openai = (await client.get("/v1/models")).json()
            assert openai["object"] == "list"
            assert {model["id"] for model in openai["data"]} == MODELS
            assert [model["id"] for model in openai["data"]] == sorted(MODELS)
            for headers in ({"anthropic-version": "2023-06-01"}, {"user-agent": "claude-cli/2.1 (external)"}):
                claude = (await client.get("/v1/models", headers=headers)).json()
                assert claude["has_more"] is False
                assert {model["id"] for model in claude["data"]} == MODELS
                assert all(model["type"] == "model" for model in claude["data"])
            for path, headers in (("/v1beta/models", {}), ("/v1/models", {"x-goog-api-client": "genai"})):
                gemini = (await client.get(path, headers=headers)).json()
                assert {model["name"] for model in gemini["models"]} == {f"models/{name}" for name in MODELS}


async def test_single_models_and_misses() -> None:
    """In the shape of whoever asks."""
    async with running_proxy() as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get("/v1/models/gpt")).json()["id"] == "gpt"
            for path in ("/v1beta/models/gpt", "/v1beta/models/models/gpt"):
                assert (await client.get(path)).json()["name"] == "models/gpt"
            assert (await client.get("/v1/models/gpt", headers={"anthropic-version": "x"})).json()["type"] == "model"
            miss = await client.get("/v1/models/nothing")
            assert miss.status_code == 404
            assert miss.json()["error"]["code"] == "model_not_found"
            miss = await client.get("/v1beta/models/nothing")
            assert miss.status_code == 404
            assert miss.json() == {"error": {"message": "Not Found", "type": "not_found"}}
            miss = await client.get("/v1/models/nothing", headers={"anthropic-version": "x"})
            assert miss.status_code == 404
            assert miss.json()["type"] == "error"


async def test_banner_and_health_want_no_key() -> None:
    """Whoever starts the proxy looks there first."""
    async with running_proxy() as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get("/")).json() == {
                "message": "CLI Proxy API Server",
                "endpoints": ["POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models"],
            }
            health = await client.get("/healthz")
            assert (health.status_code, health.json()) == (200, {"status": "ok"})
            proxy.app.state.ready = False
            assert (await client.get("/healthz")).status_code == 503
            proxy.app.state.ready = True


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/healthz"),
        ("GET", "/v1/models"),
        ("GET", "/v1/messages"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/"),
        ("POST", "/v1/models"),
        ("GET", "/nowhere"),
        ("OPTIONS", "/v1/messages"),
        ("OPTIONS", "/nowhere"),
    ],
)
@pytest.mark.parametrize("with_key", [True, False])
async def test_cors_headers_are_on_every_answer(method: str, path: str, with_key: bool) -> None:
    """Browser clients see only a network error when a refusal lacks them."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head(method, path, length=0, key=with_key))
                reply = await wire.reply()
                for name, value in CORS:
                    assert reply.headers[name.decode()] == value.decode(), (reply.status, name)


async def test_preflights_end_with_204_before_anything_else() -> None:
    """A browser sends no key with them."""
    async with running_proxy() as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            for path in ("/v1/chat/completions", "/v1/models", "/", "/nowhere", "/v1/messages/"):
                reply = await client.options(path)
                assert (reply.status_code, reply.content) == (204, b""), path
                assert "content-length" not in reply.headers or reply.headers["content-length"] == "0"


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("POST", "/v1/messages/", 307, "/v1/messages"),
        ("POST", "/v1/chat/completions/?a=1&b=%20", 307, "/v1/chat/completions?a=1&b=%20"),
        ("GET", "/v1/messages/", 301, "/v1/messages"),
        ("GET", "/v1/models/", 301, "/v1/models"),
        ("GET", "/v1beta/models/?key=a", 301, "/v1beta/models?key=a"),
        ("GET", "/healthz/", 301, "/healthz"),
        ("HEAD", "/healthz/", 307, "/healthz"),
    ],
)
async def test_a_slash_at_the_end_is_redirected_away(method: str, path: str, status: int, location: str) -> None:
    """307 keeps method and body; clients of the original rely on it."""
    async with running_proxy() as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            reply = await client.request(method, path)
            assert (reply.status_code, reply.headers["location"]) == (status, location)


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/audio/speech", "/v1/messages/x", "/%00", "/v1/messages%2F"])
async def test_unknown_paths_are_404_without_a_body(path: str) -> None:
    """As the original answers."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for method in ("GET", "POST"):
                async with connect(proxy.url) as wire:
                    await wire.send(head(method, path, length=0))
                    reply = await wire.reply()
                    assert (reply.status, reply.body) == (404, b"")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1beta/models/gemini:generateContent"])
async def test_wrong_methods_are_405_in_the_protocol(path: str) -> None:
    """With the method that is meant, as HTTP wants it."""
    async with running_proxy() as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            for method in ("GET", "PUT", "DELETE"):
                reply = await client.request(method, path)
                assert reply.status_code == 405
                assert reply.headers["allow"] == "POST"
                assert "POST" in json.loads(reply.content)["error"]["message"]
            reply = await client.post("/v1/models")
            assert reply.status_code == 405
            assert "GET" in reply.headers["allow"]


async def test_unknown_gemini_actions_are_404_in_googles_shape() -> None:
    """The original answers 200 with nothing, which clients take for an empty answer."""
    async with running_proxy() as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            reply = await client.post("/v1beta/models/gemini:fly", json={})
            assert reply.status_code == 404
            assert reply.json()["error"]["status"] == "NOT_FOUND"


async def test_metrics_are_off_unless_asked_for() -> None:
    """They tell who uses what."""
    async with running_proxy() as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get("/metrics")).status_code == 404


async def test_metrics_are_for_this_machine_or_the_management_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a header says of where the client is."""
    from cpa.server import http

    extra = "metrics: {enabled: true}\nremote-management: {secret-key: management-secret}"
    async with running_proxy(extra=extra) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.get("/metrics")
            assert reply.status_code == 200
            assert "# TYPE" in reply.text
            monkeypatch.setattr(http, "LOOPBACK", frozenset())
            for headers, status in (
                ({}, 404),
                ({"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1"}, 404),
                ({"authorization": "Bearer wrong"}, 404),
                ({"authorization": "Bearer management-secret"}, 200),
                ({"x-management-key": "management-secret"}, 200),
                ({"x-management-key": b"\xc3\xa9"}, 404),
            ):
                assert (await client.get("/metrics", headers=headers)).status_code == status, headers
