"""What plugins serve: the operator's list, their management routes and pages, with compiled plugins and real HTTP."""

import base64
import json
import os
import signal
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from cpa.formats.json import decode
from cpa.host import management
from cpa.server.management.pages import FRAMED_BY_US, POLICY
from cpa.testing.mock import MockProvider
from tests.proxy import RunningProxy
from tests.server.sites import KEY, Site, build, operator, page, proxy_with
from tests.server.wire import connect

FAIL_S = 120
LIST = "/v0/management/plugins"
PAGES = "/v0/resource/plugins/acme"
HTML = "text/html; charset=utf-8"
EVIL = {"z": "<script>alert('1')</script>", "a": ['"&"', 1.50, 12345678901234567890], "<k>": None}
FAILED = '{"ok":false,"error":{"code":"x","message":"secret reason"}}'

ACME = Site(
    id="acme",
    priority=5,
    metadata={
        "Logo": "<logo>",
        "ConfigFields": [
            {"Name": "mode", "Type": "enum", "EnumValues": ["slow", "<quick>"], "Description": "How 'careful' to be"}
        ],
    },
    routes=[
        {"Method": " post ", "Path": "acme/echo"},
        {"Path": "/v0/management/acme/json/"},
        {"Method": "GET", "Path": "/acme/typed"},
        {"Method": "GET", "Path": "/acme/broken"},
        {"Method": "GET", "Path": "/acme/html"},
        {"Method": "GET", "Path": "/acme/fails"},
        {"Method": "GET", "Path": "/acme/strange"},
        {"Method": "GET", "Path": "/acme/headers"},
        {"Method": "DELETE", "Path": "/acme/nothing"},
        {"Method": "GET", "Path": "/shared"},
        {"Method": "GET", "Path": "/plugins"},
        {"Method": "POST", "Path": "/plugins/acme/rearm"},
        {"Method": "PUT", "Path": "/plugins"},
        {"Method": "G ET", "Path": "/acme/method"},
        {"Method": "GET", "Path": "/acme/with blank"},
        {"Method": "GET", "Path": "/acme/:id"},
        {"Method": "GET", "Path": "/acme/*"},
        {"Method": "GET", "Path": "  "},
        {"Method": "GET", "Path": "/v0/management/"},
        {"Method": "GET", "Path": "/plugins/acme/legacy", "Menu": "Old <b>", "Description": "the old way"},
        {"Path": "older", "Menu": " Older "},
        {"Method": "POST", "Path": "/acme/no-legacy", "Menu": "not a page"},
    ],
    resources=[
        {"Path": "/status", "Menu": "Acme", "Description": "Acme's status"},
        {"Path": "v0/resource/plugins/acme/echo/"},
        {"Path": "/plugins/acme/own-policy", "Menu": "  "},
        {"Path": "/bare"},
        {"Path": "/data.json"},
        {"Path": "/picture"},
        {"Path": "/fails"},
        {"Path": "/strange"},
        {"Path": "/crash"},
        {"Path": "/model"},
        {"Path": "/status", "Menu": "Second"},
        {"Path": "/a/../b"},
        {"Path": "/a b"},
        {"Path": "/a:b"},
        {"Path": "/a*"},
        {"Path": "/"},
        {"Path": ""},
        {"Path": "/v0/resource/plugins/acme"},
        {"Path": "/v0/resource/plugins/other/x"},
    ],
    pages={
        "/v0/management/acme/echo": "@echo",
        "/v0/management/acme/json": page(json.dumps(EVIL).encode(), status=201, Content_Type="application/json"),
        "/v0/management/acme/typed": page(b'"<b>"', Content_Type="application/problem+json; charset=utf-8"),
        "/v0/management/acme/broken": page(b'{"a": <b>}'),
        "/v0/management/acme/html": page(b"<p>'hello'</p>", Content_Type=HTML),
        "/v0/management/acme/fails": FAILED,
        "/v0/management/acme/strange": page(b"x", status=99),
        "/v0/management/acme/headers": page(
            b"ok",
            Set_Cookie="a=b",
            Connection="close, X-Hop",
            X_Hop="1",
            Transfer_Encoding="chunked",
            Content_Length="7",
            Access_Control_Allow_Origin="*",
            X_CPA_VERSION="mine",
            X_Kept="yes",
            Cache_Control="max-age=5",
            X_Split="a\r\nSet-Cookie: c=d",
            X_Control="\x01",
        ),
        "/v0/management/acme/nothing": page(b"ignored", status=204),
        "/v0/management/shared": page(b"acme"),
        "/v0/management/plugins": page(b"mine"),
        "/v0/management/plugins/acme/rearm": page(b"mine"),
        "/v0/management/acme/no-legacy": page(b"a route"),
        f"{PAGES}/status": page(b"<p>ok</p>", Content_Type=HTML),
        f"{PAGES}/echo": "@echo",
        f"{PAGES}/own-policy": page(b"<p>ok</p>", Content_Type=HTML, Content_Security_Policy="default-src *"),
        f"{PAGES}/bare": page(b"<!DOCTYPE html><p>ok</p>"),
        f"{PAGES}/data.json": page(
            b'{"b": "<x>", "a": 1}',
            Content_Type="application/json",
            Set_Cookie="a=b",
            Service_Worker_Allowed="/",
            Access_Control_Allow_Origin="*",
        ),
        f"{PAGES}/picture": page(b"\x89PNG\r\n\x1a\n\x00\x00"),
        f"{PAGES}/fails": FAILED,
        f"{PAGES}/strange": page(b"x", status=700),
        f"{PAGES}/crash": "@abort",
        f"{PAGES}/model": "@model",
        f"{PAGES}/legacy": page(b"legacy"),
        f"{PAGES}/older": page(b"older"),
        f"{PAGES}/v0/resource/plugins/other/x": page(b"mine after all"),
    },
)
BESIDE = Site(
    id="beside",
    priority=9,
    routes=[{"Method": "GET", "Path": "/shared"}],
    resources=[{"Path": "/status"}],
    pages={
        "/v0/management/shared": page(b"beside"),
        "/v0/resource/plugins/beside/status": page(b"beside"),
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both plugins, built."""
    made = tmp_path_factory.mktemp("plugins")
    for site in (ACME, BESIDE):
        build(made, site)
    return made


async def entries(client: httpx.AsyncClient) -> dict[str, Any]:
    """The operator's list by id."""
    reply = await client.get(LIST)
    assert reply.status_code == 200
    return {entry["id"]: entry for entry in reply.json()["plugins"]}


# --- the list ---------------------------------------------------------------------------------------------------------


async def test_the_list_is_the_contracts_and_tells_more(folder: Path) -> None:
    """Members and order of the contract, strings escaped, then ours."""
    async with proxy_with(folder, ACME, BESIDE) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.get(LIST)
            body = reply.json()
            assert list(body) == ["plugins_enabled", "plugins_dir", "plugins"]
            assert (body["plugins_enabled"], body["plugins_dir"]) == (True, str(folder))
            assert [entry["id"] for entry in body["plugins"]] == ["acme", "beside"]
            acme = body["plugins"][0]
            fields = [
                {
                    "name": "mode",
                    "type": "enum",
                    "enum_values": ["slow", "&lt;quick&gt;"],
                    "description": "How &#39;careful&#39; to be",
                }
            ]
            pid = acme["pid"]
            assert pid > 0
            expected = {
                "id": "acme",
                "path": str(folder / "acme.so"),
                "configured": True,
                "registered": True,
                "enabled": True,
                "effective_enabled": True,
                "supports_oauth": False,
                "oauth_provider": "",
                "logo": "&lt;logo&gt;",
                "config_fields": fields,
                "menus": [
                    {"path": f"{PAGES}/legacy", "menu": "Old &lt;b&gt;", "description": "the old way"},
                    {"path": f"{PAGES}/older", "menu": "Older", "description": ""},
                    {"path": f"{PAGES}/status", "menu": "Acme", "description": "Acme&#39;s status"},
                ],
                "metadata": {
                    "name": "acme",
                    "version": "1.0.0",
                    "author": "Acme Ltd",
                    "github_repository": "none",
                    "logo": "&lt;logo&gt;",
                    "config_fields": fields,
                },
                "state": "registered",
                "reason": "",
                "generation": 1,
                "isolation": "process",
                "pid": pid,
                "priority": 5,
                "on_error": "skip",
                "config-path": "plugins.configs.acme",
                "version": "",
                "schema_version": 3,
                "capabilities": ["management_api"],
            }
            assert acme == expected
            assert list(acme) == list(expected)


async def test_the_list_has_what_is_found_configured_or_loaded(folder: Path) -> None:
    """Also files that nobody asked for, and plugins whose files are missing."""
    missing = Site(id="Missing", priority=3, isolation="inline")
    async with proxy_with(folder, BESIDE, missing) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            found = await entries(client)
            assert list(found) == ["Missing", "acme", "beside"]
            absent, idle = found["Missing"], found["acme"]
            assert (absent["configured"], absent["registered"], absent["enabled"]) == (True, False, True)
            assert (absent["effective_enabled"], absent["metadata"], absent["path"]) == (False, None, "")
            assert (absent["state"], absent["isolation"], absent["priority"]) == ("failed", "inline", 3)
            assert "no library" in absent["reason"]
            assert (idle["configured"], idle["registered"], idle["enabled"]) == (False, False, False)
            assert (idle["state"], idle["pid"], idle["generation"]) == ("disabled", 0, 0)
            assert (idle["metadata"], idle["config_fields"], idle["menus"], idle["logo"]) == (None, [], [], "")
            assert idle["path"] == str(folder / "acme.so")


async def test_with_plugins_off_the_list_still_shows_the_files(folder: Path) -> None:
    """That is when an operator wants to know what there is to switch on."""
    async with proxy_with(folder, BESIDE, enabled=False) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.get(LIST)
            assert reply.json()["plugins_enabled"] is False
            found = await entries(client)
            assert list(found) == ["acme", "beside"]
            assert found["beside"]["enabled"] is True
            assert found["beside"]["effective_enabled"] is False
            assert {entry["reason"] for entry in found.values()} == {"plugins.enabled is false"}


async def test_an_unreadable_folder_has_no_plugins(tmp_path: Path) -> None:
    """Nothing fails because of it."""
    async with proxy_with(tmp_path / "nowhere") as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            assert list(await entries(client)) == ["nobody"]


async def test_a_fused_plugin_is_shown_and_can_be_rearmed(folder: Path) -> None:
    """Its pages and routes are gone until then."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            entry = (await entries(client))["acme"]
            while entry["state"] != "fused":
                if entry["pid"]:
                    assert (await client.get(f"{PAGES}/crash")).status_code == 502
                entry = (await entries(client))["acme"]
            assert "crashed" in entry["reason"]
            assert (entry["registered"], entry["effective_enabled"], entry["metadata"]) == (False, False, None)
            assert (await client.get(f"{PAGES}/status")).status_code == 404
            assert (await client.get("/v0/management/acme/json")).status_code == 404
            reply = await client.post(f"{LIST}/acme/rearm")
            assert (reply.status_code, reply.json()) == (202, {"status": "ok"})
            while (await client.get(f"{PAGES}/status")).status_code != 200:
                pass
            assert (await entries(client))["acme"]["state"] == "registered"
            reply = await client.post(f"{LIST}/nobody/rearm")
            assert reply.status_code == 404
            assert set(reply.json()) == {"error", "message"}
            assert reply.json()["error"] == "plugin_not_found"


# --- management routes (7.3) ------------------------------------------------------------------------------------------


async def test_the_plugin_gets_method_path_query_body_and_headers_but_no_key(folder: Path) -> None:
    """In the contract's names; neither the key nor cookies."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.post(
                "/v0/management/acme/echo?b=2&a=1&a=&c",
                content=b"\x00body",
                headers={"x-management-key": KEY, "cookie": "session=1", "x-MANY": "1", "content-type": "a/b"},
            )
            assert reply.status_code == 200
            seen = json.loads(reply.content)
            assert set(seen) == {"Method", "Path", "Headers", "Query", "Body", "host_callback_id"}
            assert (seen["Method"], seen["Path"]) == ("POST", "/v0/management/acme/echo")
            assert seen["Query"] == {"a": ["1", ""], "b": ["2"], "c": [""]}
            assert base64.b64decode(seen["Body"]) == b"\x00body"
            assert seen["Headers"]["X-Many"] == ["1"]
            assert seen["Headers"]["Content-Type"] == ["a/b"]
            assert not {"Authorization", "X-Management-Key", "Cookie", "Host"} & set(seen["Headers"])
            assert KEY not in reply.text
            assert len(seen["host_callback_id"]) >= 16


async def test_entries_are_normalised(folder: Path) -> None:
    """Methods and paths in any spelling that has a meaning; matching is exact."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.post("/v0/management/acme/echo")).status_code == 200
            assert (await client.get("/v0/management/acme/json")).status_code == 201
            for method, path in (
                ("GET", "/v0/management/acme/echo"),
                ("POST", "/v0/management/acme/echo/"),
                ("POST", "/v0/management/Acme/echo"),
                ("HEAD", "/v0/management/acme/json"),
                ("GET", "/v0/management/acme/with%20blank"),
                ("GET", "/v0/management/acme/:id"),
                ("GET", "/v0/management/acme/*"),
                ("GET", "/v0/management/acme/method"),
                ("GET", "/v0/management/plugins/acme/legacy"),
            ):
                assert (await client.request(method, path)).status_code == 404, path


async def test_json_answers_are_escaped(folder: Path) -> None:
    """By type or first character; keys sorted, numbers kept, what does not parse left alone."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.get("/v0/management/acme/json")
            assert reply.status_code == 201
            assert reply.text == (
                '{"<k>":null,"a":["&#34;&amp;&#34;",1.5,12345678901234567890],'
                '"z":"&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"}'
            )
            assert (await client.get("/v0/management/acme/typed")).text == '"&lt;b&gt;"'
            assert (await client.get("/v0/management/acme/broken")).text == '{"a": <b>}'
            assert (await client.get("/v0/management/acme/html")).text == "<p>'hello'</p>"


async def test_native_routes_cannot_be_taken_but_other_methods_of_them_can(folder: Path) -> None:
    """Reserved is method and pattern."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            assert "plugins_enabled" in (await client.get(LIST)).json()
            assert (await client.post(f"{LIST}/acme/rearm")).json() == {"status": "ok"}
            assert (await client.put(LIST)).text == "mine"


async def test_the_higher_priority_has_a_route_that_two_want(folder: Path) -> None:
    """And the other one when that is gone."""
    async with proxy_with(folder, ACME, BESIDE) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get("/v0/management/shared")).text == "beside"
            config = proxy.app.state.runtime.config.plugins
            await proxy.app.plugins.apply(attrs.evolve(config, configs={"acme": config.configs["acme"]}))
            assert (await client.get("/v0/management/shared")).text == "acme"


async def test_headers_of_plugins_are_added_without_those_that_are_not_theirs(folder: Path) -> None:
    """Connection, cookies, CORS and our own names stay ours; nothing can be smuggled in a value."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.get("/v0/management/acme/headers")
            assert (reply.status_code, reply.text) == (200, "ok")
            told = reply.headers
            assert told["x-kept"] == "yes"
            assert told["cache-control"] == "max-age=5"
            assert told["x-cpa-version"] != "mine"
            assert told["content-length"] == "2"
            assert told["x-split"] == "a  Set-Cookie: c=d"
            for name in ("set-cookie", "x-hop", "transfer-encoding", "access-control-allow-origin", "x-control"):
                assert name not in told, name
            reply = await client.delete("/v0/management/acme/nothing")
            assert (reply.status_code, reply.content) == (204, b"")


async def test_failures_of_route_handlers_say_nothing_of_why(folder: Path) -> None:
    """The plugin's message is for the log; a status that HTTP does not have is a failure too."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            for path in ("/v0/management/acme/fails", "/v0/management/acme/strange"):
                reply = await client.get(path)
                assert (reply.status_code, reply.text) == (502, "plugin management handler failed")
                assert reply.headers["content-type"] == "text/plain; charset=utf-8"


async def test_route_bodies_have_the_configured_limit(folder: Path) -> None:
    """And broken ones the contract's answer."""
    async with proxy_with(folder, ACME, extra="limits: {body-bytes: 1000}") as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            url = "/v0/management/acme/echo"
            assert (await client.post(url, content=bytes(1000))).status_code == 200
            assert (await client.post(url, content=bytes(1001))).status_code == 413
            reply = await client.post(url, content=b"\x00\x01no gzip", headers={"content-encoding": "gzip"})
            assert reply.status_code == 400
            assert reply.json() == {"error": "failed to read plugin management request body"}


async def test_large_json_is_escaped_as_well(folder: Path) -> None:
    """Away from the event loop."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.post("/v0/management/acme/echo", content=bytes(200_000))
            assert reply.status_code == 200
            assert list(reply.json()) == sorted(reply.json())
            assert base64.b64decode(reply.json()["Body"]) == bytes(200_000)


async def test_a_client_that_leaves_its_upload_is_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plugin never hears of it."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                head = f"POST /v0/management/acme/echo HTTP/1.1\r\nhost: localhost\r\nauthorization: {KEY}\r\n"
                await wire.send(f"{head}content-length: 1000\r\n\r\nhalf".encode())
                await wire.stream.aclose()
            while proxy.app.server.connections:
                await trio.lowlevel.checkpoint()
            assert (await client.get(f"{PAGES}/status")).status_code == 200
    assert "crashed" not in capsys.readouterr().out


async def test_too_many_requests_to_one_plugin_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages in text, routes in the shape of management errors."""
    monkeypatch.setattr(management, "MAX_CALLS", 0)
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.get(f"{PAGES}/status")
            assert reply.status_code == 503
            assert reply.headers["content-type"] == "text/plain; charset=utf-8"
            reply = await client.get("/v0/management/acme/json")
            assert (reply.status_code, reply.json()["error"]) == (503, "plugin_busy")


# --- pages (7.4, 7.5) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [KEY, ""], ids=["management", "no management"])
async def test_pages_need_no_key_and_no_management(folder: Path, secret: str) -> None:
    """Status, headers and body as the plugin gave them."""
    async with proxy_with(folder, ACME, secret=secret) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.get(f"{PAGES}/status?any=thing")
            assert (reply.status_code, reply.text) == (200, "<p>ok</p>")
            assert reply.headers["content-type"] == HTML
            # Not escaped, whatever it is.
            assert (await client.get(f"{PAGES}/data.json")).text == '{"b": "<x>", "a": 1}'
            assert len(proxy.app.state.keys.bans) == 0


async def test_page_paths_are_normalised_and_match_exactly(folder: Path) -> None:
    """Under the id of the file; GET and nothing else."""
    async with proxy_with(folder, ACME, BESIDE) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            for path in ("/echo", "/own-policy", "/v0/resource/plugins/other/x", "/legacy", "/older"):
                assert (await client.get(f"{PAGES}{path}")).status_code == 200, path
            assert (await client.get("/v0/resource/plugins/beside/status")).text == "beside"
            for method, path in (
                ("HEAD", f"{PAGES}/status"),
                ("POST", f"{PAGES}/status"),
                ("GET", f"{PAGES}/status/"),
                ("GET", f"{PAGES}/Status"),
                ("GET", PAGES),
                ("GET", f"{PAGES}/"),
                ("GET", f"{PAGES}/b"),
                ("GET", f"{PAGES}/a%20b"),
                ("GET", f"{PAGES}/a:b"),
                ("GET", f"{PAGES}/a*"),
                ("GET", f"{PAGES}/no-legacy"),
                ("GET", "/v0/resource/plugins/Acme/status"),
                ("GET", "/v0/resource/plugins/nobody/status"),
                ("GET", "/v0/resource/plugins"),
                ("GET", "/v0/resource"),
            ):
                reply = await client.request(method, path)
                assert (reply.status_code, reply.content) == (404, b""), path


async def test_legacy_menu_routes_are_pages_and_only_pages(folder: Path) -> None:
    """GET with a menu; another method with a menu stays a route."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get(f"{PAGES}/legacy")).text == "legacy"
            assert (await client.get("/v0/management/older")).status_code == 404
            assert (await client.post("/v0/management/acme/no-legacy")).text == "a route"


async def test_pages_see_headers_and_query_but_no_body_and_no_secrets(folder: Path) -> None:
    """A browser that has cookies of another port must not hand them on."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            reply = await client.request(
                "GET",
                f"{PAGES}/echo?q=1&q=2",
                headers={"cookie": "a=b", "x-management-key": KEY, "accept": HTML},
                content=b"body",
            )
            seen = json.loads(reply.content)
            assert list(seen) == ["Method", "Path", "Headers", "Query", "Body", "host_callback_id"]
            assert seen["Body"] is None
            assert (seen["Method"], seen["Path"], seen["Query"]) == ("GET", f"{PAGES}/echo", {"q": ["1", "2"]})
            assert seen["Headers"]["Accept"] == [HTML]
            assert not {"Authorization", "X-Management-Key", "Cookie"} & set(seen["Headers"])


async def test_pages_get_a_policy_unless_they_have_one(folder: Path) -> None:
    """The default takes their origin away; with a policy of their own they keep it, framed by us only."""
    async with proxy_with(folder, ACME) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            told = (await client.get(f"{PAGES}/status")).headers
            assert told.get_list("content-security-policy") == [POLICY.decode()]
            assert "sandbox allow-scripts" in POLICY.decode()
            assert "allow-same-origin" not in POLICY.decode()
            assert "cross-origin-opener-policy" not in told
            own = (await client.get(f"{PAGES}/own-policy")).headers
            assert own.get_list("content-security-policy") == ["default-src *", FRAMED_BY_US.decode()]
            assert own["cross-origin-opener-policy"] == "same-origin-allow-popups"
            data = (await client.get(f"{PAGES}/data.json")).headers
            for headers in (told, own, data):
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["referrer-policy"] == "no-referrer"
                assert "set-cookie" not in headers
                assert "service-worker-allowed" not in headers
            # Only where the plugin says so.
            assert data["access-control-allow-origin"] == "*"
            assert "access-control-allow-origin" not in told


async def test_pages_without_a_type_get_one(folder: Path) -> None:
    """As Go's server does; with nosniff, browsers would show source text otherwise."""
    async with proxy_with(folder, ACME) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get(f"{PAGES}/bare")).headers["content-type"] == HTML
            assert (await client.get(f"{PAGES}/legacy")).headers["content-type"] == "text/plain; charset=utf-8"
            assert (await client.get(f"{PAGES}/picture")).headers["content-type"] == "image/png"


async def test_failures_of_page_handlers_say_nothing_of_why(folder: Path) -> None:
    """Pages are for everybody who can reach the port."""
    async with proxy_with(folder, ACME) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            for path in ("/fails", "/strange", "/crash"):
                reply = await client.get(f"{PAGES}{path}")
                assert (reply.status_code, reply.text) == (502, "plugin resource handler failed"), path


async def test_pages_of_rebound_names_are_refused(folder: Path) -> None:
    """They need no key, so that names are all that protects them from foreign sites."""
    async with proxy_with(folder, ACME) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get(f"{PAGES}/status", headers={"host": "evil.example"})).status_code == 403
            assert (await client.get(f"{PAGES}/status", headers={"host": "localhost:1"})).status_code == 200


@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_a_page_may_call_a_model(folder: Path, isolation: str) -> None:
    """Under its own scope, with the page's headers; the caller's key goes nowhere."""
    async with (
        proxy_with(folder, attrs.evolve(ACME, isolation=isolation)) as proxy,
        proxy.client(key=None, headers={"x-mock-status": "418"}) as teapot,
        operator(proxy) as client,
    ):
        with trio.fail_after(FAIL_S):
            envelope: Any = decode((await client.get(f"{PAGES}/model")).content)
            assert envelope["ok"] is True
            assert envelope["result"]["status_code"] == 200
            assert b'"chat.completion"' in base64.b64decode(envelope["result"]["body"])
            envelope = decode((await teapot.get(f"{PAGES}/model")).content)
            assert envelope["error"]["http_status"] == 418
            assert KEY not in str(proxy.mock.requests)


async def test_a_browser_that_leaves_ends_what_its_page_does(folder: Path) -> None:
    """The plugin's model call is cancelled, the plugin returns and serves the next one."""
    async with proxy_with(folder, ACME) as proxy, proxy.client(key=None) as client:
        with trio.fail_after(FAIL_S):
            request = f"GET {PAGES}/model HTTP/1.1\r\nhost: localhost\r\nx-mock-first-byte: 3600\r\n\r\n"
            async with connect(proxy.url) as wire:
                await wire.send(request.encode())
                await proxy.mock.wait_requests(1)
                assert proxy.app.plugins.management.running(acme_id(proxy)) == 1
            await proxy.mock.wait_for(no_responses)
            while proxy.app.plugins.management.running(acme_id(proxy)):
                await client.get("/healthz")
            assert len(proxy.app.plugins.services.scopes) == 0
            assert (await client.get(f"{PAGES}/status")).status_code == 200


def acme_id(proxy: RunningProxy) -> Any:
    """As the host knows it."""
    [plugin] = proxy.app.plugins.manager.snapshot()
    return plugin.id


def no_responses(mock: MockProvider) -> bool:
    """Nobody waits for the provider any more."""
    return mock.active_responses == 0


async def test_a_plugin_that_starts_again_is_down_for_a_moment(folder: Path) -> None:
    """Its pages fail meanwhile and are back with it."""
    async with proxy_with(folder, ACME) as proxy, operator(proxy) as client:
        with trio.fail_after(FAIL_S):
            os.kill((await entries(client))["acme"]["pid"], signal.SIGKILL)
            seen = set()
            while (await entries(client))["acme"]["generation"] != 2:
                seen.add((await client.get(f"{PAGES}/status")).status_code)
            assert seen <= {200, 502}
            assert (await client.get(f"{PAGES}/status")).status_code == 200
