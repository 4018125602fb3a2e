"""Programs import what they need: a start is mostly imports, and what is imported stays in memory.

By module names, in processes of their own, never by time: a name says which line undid it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAT = """
openai-compatibility:
  - {name: near, base-url: "http://127.0.0.1:9/v1", api-key-entries: [{api-key: k}], models: [{name: m}]}
"""
REPORT = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(code: str, *, cwd: Path) -> frozenset[str]:
    """What a fresh interpreter has imported when it has run *code*."""
    command = [sys.executable, "-c", code + REPORT]
    found = subprocess.run(command, stdout=subprocess.PIPE, cwd=cwd, timeout=120, check=True)
    return frozenset(json.loads(found.stdout.splitlines()[-1]))


def there(modules: frozenset[str], *names: str) -> list[str]:
    """Those of *names* that are there."""
    return [name for name in names if name in modules]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """Of a server that is ready, has said so, and was asked nothing else."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "config.yaml").write_text(f"auth-dir: {folder}\nport: 0\n{CHAT}")
    code = """
from http.client import HTTPConnection
from pathlib import Path
import trio
from cpa import cli_serve, open_app
from cpa.config.load import load_config

def status(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/healthz")
    return connection.getresponse().status

async def main():
    async with open_app(load_config(Path("config.yaml"))) as app:
        port = int(app.addresses[0].rpartition(":")[2])
        assert await trio.to_thread.run_sync(status, port) == 200

trio.run(main)
"""
    return modules_after(code, cwd=folder)


def test_a_server_has_no_demo(server: frozenset[str]) -> None:
    """A whole provider and its scripts."""
    assert not [name for name in server if name.startswith("cpa.testing")]
    assert not there(server, "cpa.demo", "cpa.supervisor")


def test_a_server_meets_plain_requests_without_a_framework(server: frozenset[str]) -> None:
    """Hypercorn comes with the first upgrade or HTTP/2, Quart with the first page."""
    assert not there(server, "hypercorn", "quart", "quart_trio", "werkzeug", "jinja2", "wsproto", "cpa.server.http")
    assert not there(server, "cpa.server.protocols", "cpa.server.websocket", "cpa.server.exchanges")


def test_a_server_that_nobody_manages_has_no_management(server: frozenset[str]) -> None:
    """Fifty modules."""
    assert not there(server, "cpa.server.management.site", "cpa.server.management.routes")


def test_a_server_without_plugins_and_shared_state_has_neither(server: frozenset[str]) -> None:
    """Their libraries are the largest after those of the server."""
    assert not there(server, "cpa.abi._native", "cpa.abi.process", "coredis", "cpa.state.service", "cffi")


def test_a_server_that_reaches_its_providers_directly_has_nothing_for_proxies(server: frozenset[str]) -> None:
    """Our own transport serves direct connections; httpx's and its HTTP/2 are for proxies."""
    assert not there(server, "httpcore", "h2", "h11", "socksio", "cpa.upstream.proxied")


def test_a_server_that_has_translated_nothing_has_no_protocols(server: frozenset[str]) -> None:
    """Most exchanges pass through; what one protocol needs comes with the first that does not."""
    spokes = [f"cpa.translation.{name}" for name in ("chat", "responses", "claude", "gemini")]
    assert not there(server, *spokes)


def test_the_version_needs_nothing(tmp_path: Path) -> None:
    """Scripts ask for it."""
    code = "from cpa.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass"
    assert not there(modules_after(code, cwd=tmp_path), "trio", "httpx", "attrs", "yaml", "msgspec")


def test_a_check_needs_no_server(tmp_path: Path) -> None:
    """`cpa check` runs in hooks and scripts."""
    (tmp_path / "config.yaml").write_text(f"auth-dir: {tmp_path}\n{CHAT}")
    code = "from cpa.cli import main\nassert main(['check', '--config', 'config.yaml']) == 0"
    modules = modules_after(code, cwd=tmp_path)
    assert not there(modules, "httpx", "quart", "hypercorn", "cpa.app", "cpa.host.plugins", "cpa.translation.ir")
    assert "yaml" in modules


def test_a_supervisor_needs_no_proxy(tmp_path: Path) -> None:
    """It binds and starts workers; each megabyte of it is one more beside theirs."""
    modules = modules_after("import cpa.supervisor", cwd=tmp_path)
    assert not there(modules, "cpa.app", "httpx", "quart", "hypercorn", "cpa.pipeline.runner", "cpa.abi.wire")
