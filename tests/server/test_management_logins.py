"""Signing in at a plugin's provider over HTTP: the URL, the browser's way back, the poll, the credential."""

import json
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from cpa.server import gateway
from tests.proxy import RunningProxy
from tests.server.sites import KEY, Site, build, operator, page, proxy_with

FAIL_S = 120
BASE = "/v0/management"
LOGIN = Site(
    id="login",
    login=True,
    routes=[{"Method": "GET", "Path": "/acme-auth-url"}, {"Method": "GET", "Path": "/other-auth-url"}],
    pages={"/v0/management/other-auth-url": page(b"a plain route")},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, built."""
    made = tmp_path_factory.mktemp("plugins")
    build(made, LOGIN)
    return made


async def start(client: httpx.AsyncClient, method: str = "GET") -> str:
    """Begin a sign-in. Returns: its state."""
    reply = await client.request(method, f"{BASE}/acme-auth-url")
    assert reply.status_code == 200
    body = reply.json()
    assert list(body) == ["status", "url", "state"]
    assert (body["status"], body["url"]) == ("ok", "https://login.example.org/?x=1")
    state = body["state"]
    assert isinstance(state, str)
    return state


async def poll(client: httpx.AsyncClient, state: str) -> Any:
    """What get-auth-status says."""
    return (await client.get(f"{BASE}/get-auth-status", params={"state": state})).json()


def callback_file(proxy: RunningProxy, state: str) -> Path:
    """Where the code goes."""
    return proxy.directory / f".oauth-acme-{state}.oauth"


async def test_a_sign_in_from_url_to_credential(folder: Path) -> None:
    """The browser needs no key; what it brought is gone when the credential is saved."""
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client, proxy.client(key=None) as browser:
        with trio.fail_after(FAIL_S):
            state = await start(client)
            assert await poll(client, state) == {"status": "wait"}
            reply = await browser.get(f"{BASE}/oauth-callback", params={"state": state, "code": "c<o>de"})
            assert reply.status_code == 200
            assert reply.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            assert "access-control-allow-origin" not in reply.headers
            file = callback_file(proxy, state)
            assert file.read_bytes() == b'{"code":"c<o>de","state":"' + state.encode() + b'","error":""}'
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert await poll(client, state) == {"status": "ok"}
            assert await poll(client, state) == {"status": "ok"}
            saved = json.loads((proxy.directory / "acme-me.json").read_bytes())
            assert saved == {"code": "c<o>de", "state": state, "error": "", "type": "acme"}
            assert not file.exists()
            reply = await browser.get(f"{BASE}/oauth-callback", params={"state": state, "code": "again"})
            assert reply.status_code == 404
            assert not file.exists()


async def test_an_error_is_final(folder: Path) -> None:
    """The provider's refusal reaches the plugin, the plugin's word the operator, again and again."""
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            state = await start(client)
            reply = await client.get(f"{BASE}/oauth-callback", params={"state": state, "error": "access_denied"})
            assert reply.status_code == 200
            for _ in range(2):
                assert await poll(client, state) == {"status": "error", "error": "access denied"}
            assert not callback_file(proxy, state).exists()


@pytest.mark.parametrize("form", [True, False], ids=["form", "json"])
async def test_callbacks_can_be_posted_also_by_the_providers_page(folder: Path, form: bool) -> None:
    """Some providers answer with a form that posts itself: another site's page, and right all the same."""
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client, proxy.client(key=None) as browser:
        with trio.fail_after(FAIL_S):
            state = await start(client)
            sent = {"state": state, "code": "posted"}
            foreign = {"origin": "https://login.example.org", "sec-fetch-site": "cross-site"}
            url = f"{BASE}/oauth-callback"
            if form:
                reply = await browser.post(url, data=sent, headers=foreign)
            else:
                reply = await browser.post(url, json=sent, headers=foreign)
            assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
            assert json.loads(callback_file(proxy, state).read_bytes())["code"] == "posted"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 400),
        ({"state": "s-1"}, 400),
        ({"code": "x"}, 400),
        ({"state": "never-began", "code": "x"}, 404),
        ({"state": "../../x", "code": "x"}, 400),
        ({"state": "a/b", "code": "x"}, 400),
        ({"state": "a..b", "code": "x"}, 400),
        ({"state": "a" * 129, "code": "x"}, 400),
        ({"state": "s\x00", "code": "x"}, 400),
    ],
)
async def test_callbacks_of_no_pending_sign_in_write_nothing(folder: Path, query: dict[str, str], status: int) -> None:
    """Anybody can send here."""
    async with proxy_with(folder, LOGIN) as proxy, proxy.client(key=None) as browser:
        with trio.fail_after(FAIL_S):
            assert (await browser.get(f"{BASE}/oauth-callback", params=query)).status_code == status
            reply = await browser.post(f"{BASE}/oauth-callback", json=query)
            assert reply.status_code == status
            assert set(reply.json()) == {"error"}
            assert not list(proxy.directory.rglob("*.oauth"))


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"state":1,"code":2}', b"\xff"])
async def test_callback_bodies_can_be_anything(folder: Path, body: bytes) -> None:
    """Junk is refused, not failed over."""
    async with proxy_with(folder, LOGIN) as proxy, proxy.client(key=None) as browser:
        with trio.fail_after(FAIL_S):
            for kind in ("application/json", "application/x-www-form-urlencoded"):
                headers = {"content-type": kind}
                reply = await browser.post(f"{BASE}/oauth-callback", content=body, headers=headers)
                assert reply.status_code == 400
            many = "&".join(f"a{number}=1" for number in range(100))
            headers = {"content-type": "application/x-www-form-urlencoded"}
            reply = await browser.post(f"{BASE}/oauth-callback", content=many, headers=headers)
            assert reply.status_code == 400
            reply = await browser.post(f"{BASE}/oauth-callback", content=bytes(100_000))
            assert reply.status_code == 413


async def test_codes_are_bounded(folder: Path) -> None:
    """A pending state is no licence to fill the disk."""
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            state = await start(client)
            reply = await client.post(f"{BASE}/oauth-callback", json={"state": state, "code": "x" * 9000})
            assert reply.status_code == 404
            assert not callback_file(proxy, state).exists()


async def test_a_sign_in_can_be_given_up(folder: Path) -> None:
    """Its file goes with it; giving up twice is no error."""
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            state = await start(client)
            await client.get(f"{BASE}/oauth-callback", params={"state": state, "code": "c"})
            assert callback_file(proxy, state).exists()
            for _ in range(2):
                reply = await client.delete(f"{BASE}/oauth-session", params={"state": state})
                assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
            assert not callback_file(proxy, state).exists()
            reply = await client.get(f"{BASE}/get-auth-status", params={"state": state})
            assert (reply.status_code, reply.json()["status"]) == (404, "error")


async def test_bad_states_are_refused(folder: Path) -> None:
    """Wherever one is expected."""
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            for state in ("", "a b", "a..b", "a" * 129):
                reply = await client.get(f"{BASE}/get-auth-status", params={"state": state})
                assert (reply.status_code, reply.json()) == (400, {"status": "error", "error": "invalid state"})
                reply = await client.delete(f"{BASE}/oauth-session", params={"state": state})
                assert (reply.status_code, reply.json()) == (400, {"error": "invalid state"})


async def test_any_method_starts_a_sign_in_before_plugin_routes_are_looked_at(folder: Path) -> None:
    """A route of that name is a plain one only where nobody signs in."""
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            states = [await start(client, method) for method in ("GET", "POST", "PUT", "CUSTOM")]
            assert len(set(states)) == 4
            assert (await client.get(f"{BASE}/other-auth-url")).text == "a plain route"
            for name in ("Acme", "acme%2Fx", "", "codex", "anthropic"):
                assert (await client.get(f"{BASE}/{name}-auth-url")).status_code == 404


async def test_the_list_says_who_signs_in_where(folder: Path) -> None:
    """As the plugin identifies itself."""
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            [entry] = (await client.get(f"{BASE}/plugins")).json()["plugins"]
            assert (entry["supports_oauth"], entry["oauth_provider"]) == (True, "acme")
            assert entry["capabilities"] == ["auth_provider", "management_api"]


async def test_sign_in_endpoints_want_the_key(folder: Path) -> None:
    """All but the callback."""
    async with proxy_with(folder, LOGIN) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            for method, path in (
                ("GET", f"{BASE}/acme-auth-url"),
                ("GET", f"{BASE}/get-auth-status?state=a"),
                ("DELETE", f"{BASE}/oauth-session?state=a"),
            ):
                assert (await client.request(method, path)).status_code == 401


async def test_codes_are_not_logged(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A code is as good as a key until it is used."""
    lines: list[str] = []
    monkeypatch.setattr(gateway, "log_access", lambda **line: lines.append(str(line)))
    async with proxy_with(folder, LOGIN) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            state = await start(client)
            await client.get(f"{BASE}/oauth-callback", params={"state": state, "code": "canary-of-the-code"})
            await poll(client, state)
    text = "".join((*lines, *capsys.readouterr()))
    assert "/v0/management/oauth-callback" in text
    assert "canary-of-the-code" not in text
    assert KEY not in text
