"""Settings, order, reload and removal of plugins through management: compiled plugins, a configuration in a file."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import yaml

from cpa.host.discovery import discover
from cpa.host.plugin import PluginStatus
from cpa.host.removal import RemovalRefused, remove_library
from cpa.server.management import keys as keys_module
from cpa.server.management.plugin_edits import ordered
from cpa.server.management.plugin_settings import problems
from tests.proxy import RunningProxy
from tests.server.sites import Site, build, operator, proxy_with

FAIL_S = 120
PLUGINS = "/v0/management/plugins"
FIELDS = [
    {"Name": "mode", "Type": "enum", "EnumValues": ["slow", "quick"], "Description": "How careful to be"},
    {"Name": "label", "Type": "string"},
    {"Name": "share", "Type": "number"},
    {"Name": "count", "Type": "integer"},
    {"Name": "loud", "Type": "boolean"},
    {"Name": "words", "Type": "array"},
    {"Name": "map", "Type": "object"},
]
ACME = Site(id="acme", priority=5, metadata={"ConfigFields": FIELDS})
BETA = Site(id="beta", priority=5)
REQUESTS = (
    ("POST", "/acme/reload"),
    ("POST", "/order"),
    ("POST", "/acme/rearm"),
    ("PATCH", "/acme/enabled"),
    ("GET", "/acme/config"),
    ("PUT", "/acme/config"),
    ("PATCH", "/acme/config"),
    ("DELETE", "/acme"),
    ("GET", ""),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the libraries are, compiled once."""
    folder = tmp_path_factory.mktemp("built")
    for site in (ACME, BETA):
        build(folder, site)
    return folder


@attrs.frozen(kw_only=True)
class Edits:
    """A proxy whose plugins are edited."""

    proxy: RunningProxy
    folder: Path
    client: httpx.AsyncClient

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and body."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        reply = await self.client.request(method, PLUGINS + path, content=content)
        return reply.status_code, reply.json()

    def settings(self, plugin_id: str = "acme") -> Any:
        """Of a plugin in the file."""
        return yaml.safe_load(self.proxy.config_file.read_text())["plugins"]["configs"].get(plugin_id)

    def status(self, plugin_id: str = "acme") -> PluginStatus:
        """Of a plugin."""
        return next(status for status in self.proxy.app.plugins.manager.states() if status.id == plugin_id)


@asynccontextmanager
async def edits(folder: Path, built: Path, *sites: Site, in_file: bool = True) -> AsyncIterator[Edits]:
    """A proxy with *sites* in a folder of its own."""
    for site in sites:
        (folder / f"{site.id}.so").write_bytes((built / f"{site.id}.so").read_bytes())
    with trio.fail_after(FAIL_S):
        async with proxy_with(folder, *sites, in_file=in_file) as proxy, operator(proxy) as client:
            yield Edits(proxy=proxy, folder=folder, client=client)


async def test_settings_are_read_replaced_and_merged(built: Path, tmp_path: Path) -> None:
    """In the file and in force by the time of the answer; comments of the file stay."""
    async with edits(tmp_path, built, ACME) as run:
        (tmp_path / "unused.so").write_bytes(b"no library")
        assert await run.ask("GET", "/acme/config") == (200, run.settings())
        assert await run.ask("GET", "/unused/config") == (200, {})
        assert await run.ask("GET", "/ghost/config") == (404, {"error": "plugin_not_found", "message": Anything()})
        assert await run.ask("PATCH", "/acme/config", {"mode": "quick", "own": {"a": [1]}}) == (200, {"status": "ok"})
        first = {"enabled": True, "priority": 5, "isolation": "process", "mode": "quick", "own": {"a": [1]}}
        assert run.settings() == first
        assert (await run.ask("GET", "/acme/config"))[1] == first
        assert await run.ask("PATCH", "/acme/config", {"own": {"b": 2}, "mode": None, "priority": 7}) == ok()
        assert run.settings() == {"enabled": True, "priority": 7, "isolation": "process", "own": {"b": 2}}
        assert run.status().priority == 7
        assert run.proxy.app.plugins.manager.snapshot()[0].priority == 7
        assert await run.ask("PUT", "/acme/config", {"z": 1, "enabled": True, "label": "x"}) == ok()
        assert list(run.settings()) == ["enabled", "label", "z"]
        assert run.status().state == "registered"
        assert await run.ask("PUT", "/acme/config", {"label": "x"}) == ok()
        assert (run.status().state, run.status().enabled) == ("disabled", False)
        assert await run.ask("PUT", "/later/config", {"enabled": False}) == ok()  # configuring ahead
        assert run.settings("later") == {"enabled": False}
        assert "# what one request does to a provider" in run.proxy.config_file.read_text()


def alive(pid: int) -> bool:
    """There is such a process."""
    return Path(f"/proc/{pid}").exists()


def ok() -> tuple[int, Any]:
    """The answer to an edit."""
    return 200, {"status": "ok"}


class Anything(str):
    """Equals every text."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other)

    __hash__ = str.__hash__


async def test_the_switch_is_in_force_when_it_answers(built: Path, tmp_path: Path) -> None:
    async with edits(tmp_path, built, ACME) as run:
        assert await run.ask("PATCH", "/acme/enabled", {"enabled": False}) == ok()
        assert run.status().state == "disabled"
        assert await run.ask("PATCH", "/acme/enabled", {"enabled": True}) == ok()
        assert run.status().state == "registered"
        wrong = {"error": "invalid_body", "message": "enabled is required"}
        bodies: tuple[Any, ...] = ({}, {"enabled": "yes"}, {"enabled": 1}, [], b"nonsense", b"")
        for body in bodies:
            assert await run.ask("PATCH", "/acme/enabled", body) == (400, wrong)
        assert await run.ask("PATCH", "/new/enabled", {"enabled": False}) == ok()
        assert run.settings("new") == {"enabled": False}


async def test_what_a_plugin_says_of_its_settings_is_held_against_them(built: Path, tmp_path: Path) -> None:
    """Each wrong member is named with what it should be; nothing is written. Unknown ones are the plugin's business."""
    async with edits(tmp_path, built, ACME) as run:
        before = run.proxy.config_file.read_bytes()
        status, told = await run.ask("PATCH", "/acme/config", {"mode": "loud", "count": 1.5, "words": "x", "more": 1})
        assert (status, told["error"]) == (400, "invalid_config")
        assert told["message"].split("; ") == [
            "mode: expected one of slow, quick, got 'loud' (a string)",
            "count: expected an integer, got a number",
            "words: expected a list, got a string",
        ]
        assert told["problems"][1] == {
            "line": None,
            "column": None,
            "path": "plugins.configs.acme.count",
            "message": "expected an integer, got a number",
        }
        for body in ({"enabled": "perhaps"}, {"priority": "high"}, {"isolation": "none"}, {"on-error": "maybe"}):
            status, told = await run.ask("PUT", "/acme/config", body)
            assert (status, told["error"]) == (400, "invalid_config"), body
            assert f"plugins.configs.acme.{next(iter(body))}: expected" in told["message"]
            assert told["problems"][0]["path"] == f"plugins.configs.acme.{next(iter(body))}"
        for method in ("PUT", "PATCH"):
            for raw in (b"[]", b"x", b"", b'"a"'):
                assert (await run.ask(method, "/acme/config", raw))[0] == 400
        assert run.proxy.config_file.read_bytes() == before
        good = {"mode": "slow", "label": "", "share": 1, "count": 3, "loud": False, "words": [], "map": {}, "x": "y"}
        assert await run.ask("PATCH", "/acme/config", good) == ok()


@attrs.frozen
class Field:
    """As plugins declare them."""

    name: str
    type: str
    enum_values: tuple[str, ...] = ()


def test_types_are_those_of_the_contract() -> None:
    values: dict[str, Any] = {
        "string": "x",
        "number": 1.5,
        "integer": 1,
        "boolean": True,
        "array": [1],
        "object": {"a": 1},
    }
    fits = {("number", "integer")}
    for kind in values:
        for name, value in values.items():
            wrong = problems({"m": value}, [Field("m", f" {kind.upper()}")])
            assert bool(wrong) is (kind != name and (kind, name) not in fits), (kind, name)
            assert problems({"m": value}, [Field("m", "colour")]) == []
        assert problems({"m": None, "enabled": 1}, [Field("m", kind), Field("enabled", kind)]) == []
    levels = Field("m", "enum", ("1", "true", "a"))
    assert [problems({"m": value}, [levels]) for value in (1, True, "a")] == [[], [], []]
    assert problems({"m": ["a"]}, [levels]) == [("m", "expected one of 1, true, a, got a list")]
    assert problems({"m": "b"}, [Field("m", "enum")]) == []


async def test_order_is_one_edit_of_few_priorities(built: Path, tmp_path: Path) -> None:
    async with edits(tmp_path, built, ACME, BETA) as run:
        assert [plugin.id for plugin in run.proxy.app.plugins.manager.snapshot()] == ["acme", "beta"]
        assert await run.ask("POST", "/order", {"ids": ["beta", "acme"]}) == ok()
        assert [plugin.id for plugin in run.proxy.app.plugins.manager.snapshot()] == ["beta", "acme"]
        assert (run.settings("beta")["priority"], run.settings()["priority"]) == (5, 4)
        before = run.proxy.config_file.read_bytes()
        assert await run.ask("POST", "/order", {"ids": ["beta", "acme"]}) == ok()
        assert run.proxy.config_file.read_bytes() == before
        bad: tuple[Any, ...] = ({}, {"ids": []}, {"ids": ["acme", "acme"]}, {"ids": "acme"}, b"x")
        for wrong in bad:
            assert (await run.ask("POST", "/order", wrong))[0] == 400
        assert (await run.ask("POST", "/order", {"ids": ["acme", "../x"]}))[1]["error"] == "invalid_plugin_id"
        assert (await run.ask("POST", "/order", {"ids": ["acme", "ghost"]}))[0] == 404


@pytest.mark.parametrize(
    ("present", "expected"),
    [([3, 2, 1], [3, 2, 1]), ([1, 2, 3], [3, 2, 1]), ([5, 5, 5], [5, 4, 3]), ([0, 9], [9, 0]), ([7], [7]), ([], [])],
)
def test_priorities_change_no_more_than_they_have_to(present: list[int], expected: list[int]) -> None:
    assert ordered(present) == expected


async def test_a_reload_is_another_copy_of_the_same_file(built: Path, tmp_path: Path) -> None:
    """The old one serves until the new one works; one that cannot be loaded leaves it in force."""
    async with edits(tmp_path, built, ACME) as run:
        before = run.status()
        assert await run.ask("POST", "/acme/reload") == (200, {"status": "ok", "generation": before.generation + 1})
        assert run.status().pid != before.pid
        assert await run.ask("PATCH", "/acme/enabled", {"enabled": False}) == ok()
        assert (await run.ask("POST", "/acme/reload"))[1]["error"] == "plugin_not_enabled"
        assert (await run.ask("POST", "/ghost/reload"))[0] == 404


async def test_a_reload_that_fails_says_why_and_leaves_the_old_copy(built: Path, tmp_path: Path) -> None:
    async with edits(tmp_path, built, ACME) as run:
        before = run.status()
        # Written over in place: what is loaded is a private copy, and stays what it was.
        (tmp_path / "acme.so").write_bytes(b"\x7fELF no more")
        status, told = await run.ask("POST", "/acme/reload")
        assert (status, told["error"]) == (502, "plugin_reload_failed")
        assert told["message"]
        assert (run.status().pid, run.status().state) == (before.pid, "registered")


async def test_a_deleted_plugin_leaves_neither_file_nor_entry_nor_process(built: Path, tmp_path: Path) -> None:
    async with edits(tmp_path, built, ACME, BETA) as run:
        pid = run.status().pid
        path = str(tmp_path / "acme.so")
        told = {"status": "deleted", "id": "acme", "path": path, "file_deleted": True, "configured_removed": True}
        assert await run.ask("DELETE", "/acme") == (200, {**told, "restart_required": False})
        assert not (tmp_path / "acme.so").exists()
        assert run.settings() is None
        while alive(pid):  # a busy machine may need more than the patience of the deletion
            await trio.lowlevel.checkpoint()
        assert [plugin["id"] for plugin in (await run.ask("GET", ""))[1]["plugins"]] == ["beta"]
        assert await run.ask("DELETE", "/acme") == (404, {"error": "plugin_not_found", "message": Anything()})
        (tmp_path / "beta.so").unlink()
        status, told = await run.ask("DELETE", "/beta")
        assert (status, told["file_deleted"], told["configured_removed"]) == (200, False, True)


async def test_a_library_inside_the_proxy_cannot_be_deleted(built: Path, tmp_path: Path) -> None:
    """Nothing is done then."""
    async with edits(tmp_path, built, attrs.evolve(ACME, isolation="inline")) as run:
        status, told = await run.ask("DELETE", "/acme")
        assert (status, told["error"], told["restart_required"]) == (409, "plugin_delete_requires_restart", True)
        assert (tmp_path / "acme.so").exists()
        assert run.status().state == "registered"


async def test_without_a_file_nothing_can_be_edited(built: Path, tmp_path: Path) -> None:
    async with edits(tmp_path, built, ACME, in_file=False) as run:
        assert (await run.ask("PUT", "/acme/config", {}))[0] == 503
        status, told = await run.ask("DELETE", "/acme")
        assert (status, told["error"], told["file_deleted"]) == (503, "config_save_failed", False)
        assert run.status().state == "registered"


async def test_ids_are_judged_first(built: Path, tmp_path: Path) -> None:
    async with edits(tmp_path, built) as run:
        for method, path in REQUESTS:
            for bad in ("-x", "a%20b", "a" * 129, "ä") if "acme" in path else ():
                status, told = await run.ask(method, path.replace("acme", bad), {"enabled": True})
                assert (status, told["error"]) == (400, "invalid_plugin_id"), (method, path)


async def test_keys_are_needed_and_have_to_come_from_here(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edits(tmp_path, built) as run:
        for method, path in REQUESTS[:4]:
            reply = await run.client.request(method, PLUGINS + path, headers={"authorization": "Bearer wrong"})
            assert (reply.status_code, reply.json()) == (401, {"error": "invalid management key"})
        monkeypatch.setattr(keys_module, "is_loopback", lambda address: False)
        for method, path in REQUESTS:
            reply = await run.client.request(method, PLUGINS + path)
            assert (reply.status_code, reply.json()) == (403, {"error": "remote management disabled"})


def test_only_the_library_that_was_found_is_deleted(tmp_path: Path) -> None:
    """Not what took its place, not what lies outside of the folder, not what a link leads to."""
    root, outside = tmp_path / "plugins", tmp_path / "outside"
    (outside / "amd64").mkdir(parents=True)
    root.mkdir()
    (root / "a.so").write_bytes(b"a")
    (outside / "amd64" / "b.so").write_bytes(b"b")
    (root / "link.so").symlink_to(outside / "amd64" / "b.so")
    (root / "linux").symlink_to(outside)
    found = {str(file.id): file for file in discover(root, {}).selected}
    assert set(found) <= {"a", "b"}  # the second only on a machine of that kind
    if "b" in found:
        with pytest.raises(RemovalRefused, match="lies outside"):
            remove_library(root, found["b"])
    (root / "a.so").write_bytes(b"other")
    with pytest.raises(RemovalRefused, match="has changed"):
        remove_library(root, found["a"])
    (root / "a.so").unlink()
    (root / "a.so").symlink_to(outside / "amd64" / "b.so")
    with pytest.raises(RemovalRefused, match="has changed"):
        remove_library(root, found["a"])
    (root / "a.so").unlink()
    assert not remove_library(root, found["a"])
    assert (outside / "amd64" / "b.so").read_bytes() == b"b"
    (root / "a.so").write_bytes(b"a")
    [file] = [file for file in discover(root, {}).selected if file.id == "a"]
    assert remove_library(root, file)
    assert not (root / "a.so").exists()
