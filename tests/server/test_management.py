"""The management API from the outside: who gets in, what answers look like, where it does not exist."""

import json
from pathlib import Path

import attrs
import bcrypt
import httpx
import pytest
import trio

from cpa.host.management import PluginManagement
from cpa.server import http
from cpa.server.management import keys as keys_module
from cpa.version import VERSION
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy
from tests.server.h2_client import h2_client
from tests.server.sites import KEY, operator, proxy_with
from tests.server.wire import connect

FAIL_S = 120
LIST = "/v0/management/plugins"
EVERYTHING = (
    ("GET", LIST),
    ("GET", "/v0/management"),
    ("GET", "/v0/management/"),
    ("GET", "/v0/management/nowhere"),
    ("POST", "/v0/management/plugins/a/rearm"),
    ("GET", "/v0/management/acme-auth-url"),
    ("GET", "/v0/management/get-auth-status?state=a"),
    ("GET", "/v0/management/oauth-callback?state=a&code=b"),
    ("POST", "/v0/management/oauth-callback"),
    ("DELETE", "/v0/management/oauth-session?state=a"),
)


def error_of(reply: httpx.Response) -> str:
    """The text of an error, which is all that there is."""
    body = reply.json()
    assert set(body) == {"error"}
    text = body["error"]
    assert isinstance(text, str)
    return text


async def test_without_a_secret_there_is_no_management() -> None:
    """Nothing tells that there could be one; pages of plugins are not part of it."""
    async with running_proxy() as proxy, proxy.client(key="anything") as client:
        with trio.fail_after(FAIL_S):
            for method, path in EVERYTHING:
                reply = await client.request(method, path)
                assert (reply.status_code, reply.content) == (404, b""), path
                assert not [name for name in reply.headers if name.startswith(("x-cpa", "access-control"))]


async def test_every_endpoint_but_the_callback_wants_the_key(tmp_path: Path) -> None:
    """Known or not, one cannot tell from outside."""
    for method, path in EVERYTHING:
        if "oauth-callback" in path:
            continue
        async with proxy_with(tmp_path) as proxy, proxy.client(key=None) as client:
            with trio.fail_after(FAIL_S):
                reply = await client.request(method, path)
                assert (reply.status_code, error_of(reply)) == (401, "missing management key"), path


async def test_keys_by_header(tmp_path: Path) -> None:
    """Bearer, bare, and the header of its own; client keys are no management keys, nor the other way round."""
    async with proxy_with(tmp_path) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            for headers in (
                {"authorization": f"Bearer {KEY}"},
                {"authorization": KEY},
                {"x-management-key": KEY},
            ):
                assert (await client.get(LIST, headers=headers)).status_code == 200
            for wrong in ((b"authorization", f"Bearer {CLIENT_KEY}".encode()), (b"x-management-key", "é".encode())):
                reply = await client.get(LIST, headers=[wrong])
                assert (reply.status_code, error_of(reply)) == (401, "invalid management key")
            reply = await client.get(f"{LIST}?key={KEY}&auth_token={KEY}", headers={"x-api-key": KEY})
            assert (reply.status_code, error_of(reply)) == (401, "missing management key")
            assert (await client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})).status_code == 401


async def test_answers_carry_the_version_and_are_private(tmp_path: Path) -> None:
    """Also refusals; and no other site may read them."""
    async with proxy_with(tmp_path) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            for reply in (
                await client.get(LIST),
                await client.get(LIST, headers={"authorization": "Bearer wrong"}),
                await client.get("/v0/management/nowhere"),
            ):
                assert reply.headers["x-cpa-version"] == VERSION
                assert reply.headers["x-cpa-commit"]
                assert reply.headers["x-cpa-build-date"]
                assert reply.headers["x-cpa-support-plugin"] == "1"
                assert reply.headers["cache-control"] == "no-store"
                assert reply.headers["x-content-type-options"] == "nosniff"
                assert reply.headers["cross-origin-resource-policy"] == "same-origin"
                assert reply.headers["content-type"] == "application/json"
                assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_preflights_of_other_sites_are_not_granted(tmp_path: Path) -> None:
    """204 as everywhere, without a word of CORS; the model API has it."""
    async with proxy_with(tmp_path) as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            asked = {"origin": "https://evil.example", "access-control-request-method": "PUT"}
            for path in (LIST, "/v0/resource/plugins/a/b"):
                reply = await client.options(path, headers=asked)
                assert reply.status_code == 204
                assert "access-control-allow-origin" not in reply.headers
            assert (await client.options("/v1/models", headers=asked)).headers["access-control-allow-origin"] == "*"


async def test_unknown_endpoints_and_methods_are_404(tmp_path: Path) -> None:
    """Whoever has the key is told in JSON."""
    async with proxy_with(tmp_path) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            for method, path in (
                ("GET", "/v0/management"),
                ("GET", "/v0/management/"),
                ("GET", f"{LIST}/"),
                ("GET", "/v0/management/Plugins"),
                ("HEAD", LIST),
                ("PUT", LIST),
                ("GET", "/v0/management/plugins//rearm"),
                ("POST", "/v0/management/plugins//rearm"),
                ("GET", "/v0/management/plugins/a/settings"),
                ("GET", "/v0/management/codex-auth-url"),
            ):
                reply = await client.request(method, path)
                assert reply.status_code == 404, path
                assert method == "HEAD" or reply.json()["error"] == "not_found"
            # What only begins alike is no management path.
            assert (await client.get("/v0/managementx")).content == b""


async def test_a_ban_hits_loopback_and_every_endpoint(tmp_path: Path) -> None:
    """A right key does not help; health and models are not concerned."""
    async with proxy_with(tmp_path, extra="metrics: {enabled: true}") as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            for _ in range(5):
                assert (await client.get(LIST, headers={"authorization": "Bearer wrong"})).status_code == 401
            reply = await client.get(LIST)
            assert reply.status_code == 403
            assert error_of(reply).startswith("IP banned due to too many failed attempts. Try again in ")
            assert 1700 < int(reply.headers["retry-after"]) <= 1800
            assert (await client.get("/v0/management/nowhere")).status_code == 403
            assert (await client.get("/healthz")).status_code == 200
            async with proxy.client() as user:
                assert (await user.get("/v1/models")).status_code == 200


async def test_a_hashed_key_opens(tmp_path: Path) -> None:
    """As CLIProxyAPI writes it into the file."""
    hashed = bcrypt.hashpw(KEY.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2a$")
    async with proxy_with(tmp_path, secret=hashed) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get(LIST)).status_code == 200
            assert (await client.get(LIST)).status_code == 200
            assert (await client.get(LIST, headers={"authorization": f"Bearer {hashed}"})).status_code == 401


async def test_the_remote_rule_goes_by_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the peer taken for a remote one, no header makes it local."""
    monkeypatch.setattr(keys_module, "is_loopback", lambda address: False)
    claims = {"x-forwarded-for": "127.0.0.1", "x-real-ip": "::1", "forwarded": "for=127.0.0.1"}
    async with proxy_with(tmp_path) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.get(LIST, headers=claims)
            assert (reply.status_code, error_of(reply)) == (403, "remote management disabled")
    async with proxy_with(tmp_path, remote=", allow-remote: true") as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get(LIST)).status_code == 200


async def test_the_environments_password_turns_management_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configured key, and from everywhere."""
    monkeypatch.setenv("MANAGEMENT_PASSWORD", "of-the-environment")
    monkeypatch.setattr(keys_module, "is_loopback", lambda address: False)
    async with proxy_with(tmp_path, secret="") as proxy:
        with trio.fail_after(FAIL_S):
            async with operator(proxy, key="of-the-environment") as client:
                assert (await client.get(LIST)).status_code == 200
            async with proxy.client(key=None) as client:
                assert (await client.get(LIST)).status_code == 401


async def raw(proxy: RunningProxy, method: str, path: str, *headers: str, body: bytes = b"") -> int:
    """The status of a request with exactly these headers."""
    lines = "".join(f"{line}\r\n" for line in headers)
    async with connect(proxy.url) as wire:
        await wire.send(f"{method} {path} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)
        return (await wire.reply()).status


async def test_rebound_names_are_refused_before_keys_are_looked_at(tmp_path: Path) -> None:
    """And are no failures, or any page could lock the operator out."""
    key = f"authorization: Bearer {KEY}"
    async with proxy_with(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            for host in ("evil.example", f"evil.example:{proxy.address[1]}", "10.0.0.1", "127.0.0.1.evil.example"):
                assert await raw(proxy, "GET", LIST, f"host: {host}", key) == 403
                assert await raw(proxy, "GET", LIST, f"host: {host}") == 403
                callback = "/v0/management/oauth-callback?state=a&code=b"
                assert await raw(proxy, "GET", callback, f"host: {host}") == 403
            for host in ("localhost", f"127.0.0.1:{proxy.address[1]}", "[::1]:1", "LocalHost:5"):
                assert await raw(proxy, "GET", LIST, f"host: {host}", key) == 200
            assert len(proxy.app.state.keys.bans) == 0


async def test_pages_of_other_sites_are_refused_before_keys_are_looked_at(tmp_path: Path) -> None:
    """Whatever method, where the browser says so; changes also by their origin."""
    key, host = f"authorization: Bearer {KEY}", "host: localhost:8317"
    rearm = "/v0/management/plugins/nobody/rearm"
    async with proxy_with(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            for _ in range(2):
                for site in ("cross-site", "same-site"):
                    assert await raw(proxy, "GET", LIST, host, f"sec-fetch-site: {site}") == 403
                for origin in ("https://evil.example", "null", "http://localhost:3000"):
                    assert await raw(proxy, "POST", rearm, host, f"origin: {origin}") == 403
                    assert await raw(proxy, "POST", rearm, host, key, f"origin: {origin}") == 403
            assert len(proxy.app.state.keys.bans) == 0
            ours = "origin: http://localhost:8317"
            assert await raw(proxy, "POST", rearm, host, key, ours, "sec-fetch-site: same-origin") == 202
            assert await raw(proxy, "POST", rearm, host, key) == 202


async def test_a_refused_upload_is_told_why_and_not_kept(tmp_path: Path) -> None:
    """The answer comes before the body was sent; nothing of it is read into memory."""
    async with proxy_with(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(
                    b"POST /v0/management/anything HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\n"
                )
                reply = await wire.reply()
                assert reply.status == 401
                assert json.loads(reply.body) == {"error": "missing management key"}
                assert reply.headers["connection"] == "close"


async def test_over_http2_the_same_rules_hold(tmp_path: Path) -> None:
    """The name is in another place; an early refusal harms no other exchange of the connection."""
    async with proxy_with(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                key = {"authorization": f"Bearer {KEY}"}
                for authority, status in (("localhost", 200), ("evil.example", 403)):
                    stream_id = await client.request("GET", LIST, headers={":authority": authority, **key})
                    assert (await client.answer(stream_id)).status == status
                wrong = {":authority": "localhost", "authorization": "Bearer wrong"}
                unfinished = await client.request("POST", LIST, body=bytes(1000), headers=wrong, end=False)
                assert (await client.answer(unfinished)).status == 401
                stream_id = await client.request("GET", LIST, headers={":authority": "localhost", **key})
                exchange = await client.answer(stream_id)
                assert exchange.status == 200
                assert json.loads(exchange.body)["plugins_enabled"] is True


async def test_a_crash_of_ours_is_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word of what it was, and the next request is served."""

    async def broken(self: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("canary")

    async with proxy_with(tmp_path) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            with monkeypatch.context() as patch:
                patch.setattr(PluginManagement, "overview", broken)
                reply = await client.get(LIST)
                assert (reply.status_code, error_of(reply)) == (500, "internal error")
            assert (await client.get(LIST)).status_code == 200


async def test_bodies_of_native_endpoints_are_small(tmp_path: Path) -> None:
    """None of them needs one."""
    async with proxy_with(tmp_path) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.post("/v0/management/plugins/nobody/rearm", content=bytes(70_000))
            assert reply.status_code == 413


async def test_metrics_obey_the_same_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For those who are not of this machine: the key, hashed too, the remote rule, and bans."""
    monkeypatch.setattr(http, "LOOPBACK", frozenset())
    hashed = bcrypt.hashpw(KEY.encode(), bcrypt.gensalt(4)).decode()
    async with (
        proxy_with(tmp_path, secret=hashed, extra="metrics: {enabled: true}") as proxy,
        operator(proxy) as client,
    ):
        with trio.fail_after(FAIL_S):
            assert (await client.get("/metrics")).status_code == 200
            monkeypatch.setattr(keys_module, "is_loopback", lambda address: False)
            assert (await client.get("/metrics")).status_code == 404
            monkeypatch.undo()
            monkeypatch.setattr(http, "LOOPBACK", frozenset())
            for _ in range(5):
                assert (await client.get("/metrics", headers={"authorization": "wrong"})).status_code == 404
            assert (await client.get("/metrics")).status_code == 404
            assert (await client.get(LIST)).status_code == 403


async def test_a_changed_key_is_in_force_at_once(tmp_path: Path) -> None:
    """What a reload swaps is what the next request is judged by; management can come and go."""
    async with proxy_with(tmp_path) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get(LIST)).status_code == 200
            state = proxy.app.state
            for secret, status in (("other", 401), ("", 404), (KEY, 200)):
                management = attrs.evolve(state.runtime.config.remote_management, secret_key=secret)
                state.runtime = attrs.evolve(
                    state.runtime, config=attrs.evolve(state.runtime.config, remote_management=management)
                )
                assert (await client.get(LIST)).status_code == status
