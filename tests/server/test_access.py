"""Who may use the proxy: the five places of a key, their order, the guard against the example's keys, and plugins."""

import json
from typing import Any

import attrs
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from cpa.config.load import parse_config
from cpa.formats.names import Format
from cpa.pipeline.stage import AuthCall, AuthResult, Registration, StageKind
from cpa.server.access import Access, Principal, candidates
from cpa.types import PluginId, SelectionAsk
from tests.proxy import CLIENT_KEY, running_proxy
from tests.server.wire import CHAT, FAIL_S, connect, post, serving

KEYS = ("key-a", "key-b", "schlüssel")
ROUTES = {
    "/v1/chat/completions": "gpt",
    "/v1/completions": "gpt",
    "/v1/responses": "responses",
    "/backend-api/codex/responses": "responses",
    "/v1/messages": "claude",
    "/v1/messages/count_tokens": "claude",
    "/v1beta/models/gemini:generateContent": "gemini",
    "/v1/models/gemini:generateContent": "gemini",
}
LISTS = ("/v1/models", "/v1beta/models", "/v1/models/gpt", "/v1beta/models/models/gpt")


def shape_of(body: bytes) -> str:
    """Which protocol's error *body* is."""
    error = json.loads(body)["error"]
    if json.loads(body).get("type") == "error":
        return "claude"
    return "gemini" if "status" in error else "openai"


def body_for(model: str) -> dict[str, Any]:
    """A body that every protocol can read."""
    return {
        "model": model,
        "max_tokens": 5,
        "prompt": "a",
        "input": "a",
        "messages": [{"role": "user", "content": "a"}],
        "contents": [{"parts": [{"text": "a"}]}],
    }


@pytest.mark.parametrize(
    ("headers", "query", "source"),
    [
        ([(b"authorization", b"Bearer key-a")], b"", "authorization"),
        ([(b"authorization", b"bEARER   key-a ")], b"", "authorization"),
        ([(b"authorization", b"key-a")], b"", "authorization"),
        ([(b"x-goog-api-key", b"key-a")], b"", "x-goog-api-key"),
        ([(b"x-api-key", b" key-a")], b"", "x-api-key"),
        ([], b"key=key-a", "query-key"),
        ([], b"alt=sse&key=key%2Da", "query-key"),
        ([], b"auth_token=key-a", "query-auth-token"),
        ([(b"x-api-key", b"key-a"), (b"x-goog-api-key", b"key-b")], b"", "x-goog-api-key"),
        ([(b"x-api-key", b"wrong"), (b"authorization", b"Bearer wrong")], b"key=x&key=key-a", "query-key"),
        ([(b"authorization", b"Bearer wrong"), (b"authorization", b"Bearer key-a")], b"", "authorization"),
    ],
)
def test_key_is_found_in_every_place_in_order(headers: list[tuple[bytes, bytes]], query: bytes, source: str) -> None:
    """SDKs differ in where they put it; a wrong value in one place does not spoil a right one in another."""
    found = Access(KEYS).check(headers, query)
    assert found is not None
    assert (found.key, found.source) == ("key-b" if b"key-b" in dict(headers).values() else "key-a", source)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([], b""),
        ([(b"authorization", b"")], b"key="),
        ([(b"authorization", b"Bearer ")], b""),
        ([(b"authorization", b"Basic key-a")], b""),
        ([(b"authorization", b"Bearer Key-A")], b""),
        ([(b"authorization", b"Bearer key-a,key-b")], b""),
        ([(b"x-api-key", b"Bearer key-a")], b""),
        ([(b"cookie", b"key-a"), (b"x-auth", b"key-a")], b"token=key-a"),
        ([(b"authorization", b"Bearer \xff\xfe")], b"key=%ff%fe"),
    ],
)
def test_anything_else_is_no_key(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    """Close is not enough, and no bytes make the check fail."""
    assert Access(KEYS).check(headers, query) is None


def test_keys_beyond_ascii_work() -> None:
    """As UTF-8, which is what clients send for them."""
    assert Access(KEYS).check([(b"x-api-key", "schlüssel".encode())], b"") is not None
    assert Access(KEYS).check([], b"key=schl%C3%BCssel") is not None


def test_accepted_clients_print_no_key() -> None:
    """They are in tracebacks' locals."""
    found = Access(KEYS).check([(b"x-api-key", b"key-a")], b"")
    assert repr(found) == "Principal(source='x-api-key')"
    ask = SelectionAsk(model="m", format=Format.OPENAI, principal="key-a", body=b"key-a", headers=((b"a", b"key-a"),))
    assert "key-a" not in repr(ask)


def test_without_keys_everybody_is_welcome() -> None:
    """Documented behaviour, also for clients that bring some key."""
    assert Access(()).check([], b"") == Principal()
    assert Access(()).check([(b"x-api-key", b"whatever")], b"") == Principal()


@pytest.mark.parametrize("path", ROUTES)
async def test_refusal_is_in_the_protocol_of_the_route(path: str) -> None:
    """A flat object, as the Go original answers, is nothing that an SDK can show."""
    expected = "claude" if "messages" in path else "gemini" if "gemini" in path else "openai"
    async with running_proxy() as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            for headers, text in (({}, "Missing API key"), ({"x-api-key": "wrong"}, "Invalid API key")):
                reply = await client.post(path, json=body_for(ROUTES[path]), headers=headers)
                assert reply.status_code == 401
                assert shape_of(reply.content) == expected
                assert text in reply.text
                assert "wrong" not in reply.text
            reply = await client.post(path, json=body_for(ROUTES[path]), headers={"x-goog-api-key": CLIENT_KEY})
            assert reply.status_code == 200
            reply = await client.post(f"{path}?key={CLIENT_KEY}", json=body_for(ROUTES[path]))
            assert reply.status_code == 200
            assert proxy.mock.total_requests == 2


@pytest.mark.parametrize("path", LISTS)
async def test_model_lists_want_a_key_too(path: str) -> None:
    """They tell what the operator pays for."""
    async with running_proxy() as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers={"authorization": CLIENT_KEY})).status_code == 200


async def test_clients_key_reaches_no_provider() -> None:
    """Neither in a header nor in the query; the provider gets its own."""
    async with running_proxy() as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            for path, model in ROUTES.items():
                headers = {"x-api-key": CLIENT_KEY, "x-goog-api-key": CLIENT_KEY}
                reply = await client.post(f"{path}?key={CLIENT_KEY}", json=body_for(model), headers=headers)
                assert reply.status_code == 200
            for request in proxy.mock.requests:
                assert CLIENT_KEY not in request.target
                assert all(CLIENT_KEY.encode() not in value for _, value in request.headers)


async def test_example_keys_shut_the_model_api_until_a_reload() -> None:
    """Everybody knows them; the page says what to do, and doing it is enough."""
    async with running_proxy() as proxy, proxy.client(key="your-api-key-2") as client:
        with trio.fail_after(FAIL_S):
            loaded, builder = proxy.app.loaded, proxy.app._builder
            state = proxy.app.state
            shut = attrs.evolve(loaded.config, api_keys=("your-api-key-2", "good"))
            state.runtime = builder.build(shut)
            for method, path in [*(("POST", path) for path in ROUTES), *(("GET", path) for path in LISTS)]:
                reply = await client.request(method, path, json=body_for("gpt"))
                assert reply.status_code == 403, path
                assert reply.headers["x-cpa-safe-mode"] == "example-api-key"
                assert reply.headers["access-control-allow-origin"] == "*"
                assert reply.json()["error"] == "unsafe_example_api_key"
            page = await client.get("/")
            assert page.status_code == 403
            assert "your-api-key-1" in page.text
            assert (await client.get("/healthz")).status_code == 200
            assert proxy.mock.total_requests == 0
            state.runtime = builder.build(attrs.evolve(loaded.config, api_keys=("good",)))
            reply = await client.post("/v1/messages", json=body_for("claude"), headers={"authorization": "Bearer good"})
            assert reply.status_code == 200
            assert (await client.get("/")).json()["message"] == "CLI Proxy API Server"


def auth_plugin(answer: Any, seen: list[AuthCall], *, priority: int = 0, name: str = "auth") -> Registration:
    """A plugin that authenticates by *answer* (a value, or an exception to raise)."""

    async def stage(call: AuthCall) -> AuthResult | None:
        seen.append(call)
        await trio.lowlevel.checkpoint()
        if isinstance(answer, Exception):
            raise answer
        found: AuthResult | None = answer
        return found

    return Registration(kind=StageKind.FRONTEND_AUTH, plugin_id=PluginId(name), stage=stage, priority=priority)


async def test_plugins_may_accept_what_the_keys_do_not() -> None:
    """They see the request, body included; the first that answers names the principal."""
    seen: list[AuthCall] = []
    accept = auth_plugin(AuthResult(principal="somebody"), seen)
    async with running_proxy(registrations=[accept]) as proxy, proxy.client(key="unknown") as client:
        with trio.fail_after(FAIL_S):
            reply = await client.post("/v1/messages?x=1", json=body_for("claude"))
            assert reply.status_code == 200
            assert (await client.get("/v1/models")).status_code == 200
    assert [call.path for call in seen] == ["/v1/messages", "/v1/models"]
    assert seen[0].method == "POST"
    assert json.loads(seen[0].body) == body_for("claude")


async def test_plugins_are_not_asked_about_good_keys() -> None:
    """The configuration's keys come first."""
    seen: list[AuthCall] = []
    async with running_proxy(registrations=[auth_plugin(None, seen)]) as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            assert (await client.post("/v1/messages", json=body_for("claude"))).status_code == 200
    assert not seen


@pytest.mark.parametrize("answer", [None, RuntimeError("broken")], ids=["not handled", "failed"])
async def test_plugins_that_do_not_answer_let_nobody_in(answer: Any) -> None:
    """Silence and failure are no consent; with a plugin, empty keys do not mean open either."""
    for extra in ("", "api-keys: []"):
        config = "" if not extra else "host: 127.0.0.1\nport: 0\nauth-dir: {auth_dir}\napi-keys: []\n"
        async with running_proxy(config=config, registrations=[auth_plugin(answer, [])]) as proxy:
            with trio.fail_after(FAIL_S):
                async with proxy.client(key=None) as client:
                    reply = await client.post("/v1/chat/completions", json=body_for("gpt"))
                    assert reply.status_code == 401
                    assert "Missing API key" in reply.text
                    reply = await client.post("/v1/chat/completions", json=body_for("gpt"), headers={"x-api-key": "x"})
                    assert "Invalid API key" in reply.text


async def test_leaving_cancels_a_plugin_that_is_being_asked() -> None:
    """A slow plugin must not work for clients that have gone."""
    asked, cancelled = trio.Event(), trio.Event()

    async def stage(call: AuthCall) -> None:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    slow = Registration(kind=StageKind.FRONTEND_AUTH, plugin_id=PluginId("slow"), stage=stage)
    async with serving(registrations=[slow]) as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(CHAT, key=False))
                await asked.wait()
            left = trio.current_time()
            await cancelled.wait()
            assert trio.current_time() - left < 2
            await proxy.quiet()


async def test_an_open_proxy_serves_without_a_key() -> None:
    """Empty api-keys: no authentication at all, as documented."""
    loaded = parse_config("api-keys: []", file="test.yaml")
    assert Access(loaded.config.api_keys).open
    async with running_proxy(config="host: 127.0.0.1\nport: 0\nauth-dir: {auth_dir}\n") as proxy:
        with trio.fail_after(FAIL_S):
            async with httpx.AsyncClient(base_url=proxy.url, trust_env=False) as client:
                assert (await client.get("/v1/models")).status_code == 200


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-goog-api-key", b"x-api-key", b"accept", b"x-api-keys"]),
            st.sampled_from([b"", b" ", b"Bearer k", b"bearer  k ", b"Bearer ", b"k2", b"\xff", b"Basic x"]),
        ),
        max_size=6,
    )
)
def test_candidates_come_in_the_documented_order(headers: list[tuple[bytes, bytes]]) -> None:
    """By place, and within one place as they came; the place of a key is told to plugins and in records."""
    found = candidates(headers, b"key=q&auth_token=t&key=r")
    expected = []
    for place in ("authorization", "x-goog-api-key", "x-api-key"):
        for name, value in headers:
            text = value.decode("utf-8", "surrogateescape").strip()
            if place == "authorization" and text[:7].lower() == "bearer ":
                text = text[7:].strip()
            if name.decode() == place and text:
                expected.append((place, text))
    assert found == [*expected, ("query-key", "q"), ("query-key", "r"), ("query-auth-token", "t")]
