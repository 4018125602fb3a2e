"""The control panel's page and files over HTTP: who gets them, with which protection, and what is said without them."""

import gzip
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx
import pytest
import trio

from cpa.server import gateway
from cpa.server.management.panel import POLICY, is_panel
from cpa.server.management.panel_files import TYPES, PanelFiles
from cpa.server.management.paths import PANEL_PAGE
from cpa.server.routes import ClientHead
from tests.proxy import RunningProxy, running_proxy

FAIL_S = 60
SECRET = "\nremote-management: {secret-key: 'management-key'}\n"
SCRIPT = "/management/assets/panel-Ab12.js"
TEXT = b"export const nothing = 0;\n" * 20


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as the build leaves it."""
    assets = tmp_path / "assets"
    assets.mkdir()
    (tmp_path / "management.html").write_bytes(b"<!doctype html><title>panel</title>")
    (assets / "panel-Ab12.js").write_bytes(TEXT)
    (assets / "panel-Ab12.js.gz").write_bytes(gzip.compress(TEXT))
    (assets / "panel-Ab12.css").write_bytes(b"body {}")
    (assets / "notes.txt").write_bytes(b"no kind of file that a panel has")
    (tmp_path / ".built").write_bytes(b"")
    return tmp_path


@asynccontextmanager
async def served(folder: Path, extra: str = SECRET) -> AsyncIterator[tuple[RunningProxy, httpx.AsyncClient]]:
    """A proxy with the files in *folder*, and a client without any key."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=extra) as proxy, proxy.client(key=None) as client:
            proxy.app.state.panel = PanelFiles(folder)
            yield proxy, client


def move(built: Path, to: Path) -> None:
    """As a build that is done."""
    built.rename(to)


async def test_page_and_files(built: Path) -> None:
    """Types, caching and protection; nothing else of the folder or beyond it."""
    async with served(built) as (_, client):
        page = await client.get(PANEL_PAGE)
        assert (page.status_code, page.text) == (200, "<!doctype html><title>panel</title>")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-cache"
        bare = await client.head(PANEL_PAGE)
        assert (bare.headers["content-length"], bare.content) == (page.headers["content-length"], b"")
        script = await client.get(SCRIPT)
        assert (script.status_code, script.content) == (200, TEXT)
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        for answer in (page, script):
            assert answer.headers["content-security-policy"] == POLICY.decode()
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert "access-control-allow-origin" not in answer.headers
        head = await client.head(SCRIPT)
        assert (head.status_code, head.content) == (200, b"")
        for path in (
            *("/management/", "/management", "/management/assets/", "/management/management.html"),
            *("/management/assets/notes.txt", "/management/.built", "/management/assets/panel-Ab12.js.gz"),
            *("/management/../state.py", "/management/%2e%2e/state.py", "/management/assets/..%2f..%2fstate.py"),
        ):
            assert (await client.get(path)).status_code == 404, path
        refused = await client.post(PANEL_PAGE, content=b"x")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_packed_files(built: Path) -> None:
    """To who takes them."""
    async with served(built) as (_, client):
        for accepted, packed in (
            *((value, True) for value in ("gzip", "br, gzip;q=0.5", "*", "GZIP", "deflate, gzip ; q=1")),
            *((value, False) for value in ("identity", "br", "x-gzip", "gzip;q=0", "gzip;q=0.000, br", "")),
        ):
            answer = await client.get(SCRIPT, headers={"accept-encoding": accepted})
            assert answer.content == TEXT
            assert answer.headers.get("content-encoding") == ("gzip" if packed else None), accepted
            assert answer.headers["vary"] == "accept-encoding"
        plain = await client.get("/management/assets/panel-Ab12.css", headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in plain.headers


async def test_not_built_then_built_then_built_anew(built: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The page says how; a proxy that runs takes up what is built."""
    folder = tmp_path_factory.mktemp("panel") / "out"
    async with served(folder) as (_, client):
        page = await client.get(PANEL_PAGE)
        assert page.status_code == 200
        assert "make panel" in page.text
        assert page.headers["content-security-policy"] == POLICY.decode()
        assert (await client.get(SCRIPT)).status_code == 404
        move(built, folder)
        assert "panel</title>" in (await client.get(PANEL_PAGE)).text
        assert (await client.get(SCRIPT)).content == TEXT
        (folder / "assets" / "panel-Ab12.js").rename(folder / "assets" / "panel-Cd34.js")
        (folder / "management.html").unlink()
        (folder / "management.html").write_bytes(b"<title>newer</title>")
        assert (await client.get(PANEL_PAGE)).text == "<title>newer</title>"
        assert (await client.get(SCRIPT)).status_code == 404
        assert (await client.get("/management/assets/panel-Cd34.js")).content == TEXT


async def test_only_where_there_is_management(built: Path) -> None:
    """Without a key there is no panel; foreign names are refused as those of the API."""
    for without in ("", SECRET.replace("{", "{disable-control-panel: true, ")):
        async with served(built, extra=without) as (_, client):
            assert [(await client.get(path)).status_code for path in (PANEL_PAGE, SCRIPT)] == [404, 404]
    async with served(built) as (_, client):
        for path in (PANEL_PAGE, SCRIPT):
            refused = await client.get(path, headers={"host": "rebound.example"})
            assert (refused.status_code, refused.headers["content-type"]) == (403, "text/plain; charset=utf-8")
            # A link on another site may lead here, but no page may show it.
            assert (await client.get(path, headers={"sec-fetch-site": "cross-site"})).status_code == 200


async def test_remote_clients(built: Path) -> None:
    """As for the API: only where that is allowed."""
    async with served(built) as (proxy, _):
        keys, config = proxy.app.state.keys, proxy.app.state.runtime.config.remote_management
        for peer, allowed, welcome in (
            *(("127.0.0.1", False, True), ("::1", False, True)),
            *(("192.0.2.7", False, False), ("192.0.2.7", True, True)),
        ):
            head = ClientHead(method="GET", path=PANEL_PAGE, query=b"", headers=[], peer=peer)
            assert keys.reachable(attrs.evolve(config, allow_remote=allowed), head) is welcome


async def test_what_the_panel_asks_again_and_again_is_not_in_the_log(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows the log too; refusals and everything that is asked once are written."""
    paths: list[object] = []
    monkeypatch.setattr(gateway, "log_access", lambda **line: paths.append(line["path"]))
    async with served(built) as (_, client):
        key = {"authorization": "Bearer management-key"}
        for path in ("overview?minutes=15", "requests", "credentials", "logs/recent", "api-keys"):
            assert (await client.get(f"/v0/management/{path}", headers=key)).status_code == 200
        assert (await client.get("/v0/management/overview")).status_code == 401
        await wait_until(lambda: len(paths) >= 2)
        assert paths == ["/v0/management/api-keys", "/v0/management/overview"]


async def wait_until(there: Callable[[], bool]) -> None:
    """Lines are written when the client has its answer already."""
    while True:
        if there():
            return
        await trio.sleep(0.01)


def test_paths() -> None:
    """Asked for each request: the page, and what is below its folder."""
    assert [is_panel(path) for path in (PANEL_PAGE, SCRIPT)] == [True, True]
    assert not any(is_panel(path) for path in ("/", "/management", "/management.htm", "/v0/management/x"))


def test_packages_have_the_panel() -> None:
    """What is built is package data, and of kinds that are served."""
    project = tomllib.loads(Path("pyproject.toml").read_text())
    assert "server/panel/**/*" in project["tool"]["setuptools"]["package-data"]["cpa"]
    found = [path for path in Path("cpa/server/panel").rglob("[!.]*") if path.is_file() and path.suffix != ".gz"]
    assert {path.suffix for path in found} <= set(TYPES)
