"""Edits of the configuration over HTTP: every endpoint, what it refuses, and whom."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bcrypt
import httpx
import pytest
import structlog
import trio
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config import replacing
from cpa.config.changes import describe_changes
from cpa.config.document import MAX_DOCUMENT_BYTES
from cpa.config.load import digest_of, load_config
from cpa.server.management import keys as keys_module
from cpa.server.management.maps import TABLES
from cpa.server.management.provider_lists import LISTS
from cpa.server.management.routes import CONFIGURATION
from cpa.server.management.scalars import SCALARS
from tests.server.configured import BASE, KEY, KEY_HASH, configured

FAIL_S = 120
OK = (200, {"status": "ok"})
INVALID = (400, {"error": "invalid body"})

VALUES: dict[str, tuple[Any, Any]] = {
    "/logs-max-total-size-mb": (7, -5),
    "/error-logs-max-files": (3, -1),
    "/request-retry": (5, 1),
    "/max-retry-credentials": (2, 1),
    "/max-retry-interval": (60, 1),
    "/proxy-url": ("socks5h://user:secret@127.0.0.1:1080", "direct"),
    "/routing/strategy": ("WRR", "ff"),
}
"""Two values for each setting that is no switch."""
STORED = {-5: 0, -1: 10, "WRR": "weighted-round-robin", "ff": "fill-first"}
"""What is kept of values that are not kept as they are."""

LISTED = """\
# --- clients
api-keys:   # of friends
  - alpha  # the first
  - 'beta'
# --- providers
gemini-api-key: [{api-key: g1, base-url: "http://a.example"}, {api-key: g1, base-url: "http://b.example"}]  # two
interactions-api-key: [{api-key: i1}]
claude-api-key:
  # the main one
  - api-key: c1
    weight: 2  # heavy
    excluded-models: ["*haiku*"]
  - api-key: c2
codex-api-key: [{api-key: x1, base-url: "http://x.example"}]
xai-api-key: [{api-key: x2, base-url: "http://x.example"}]
vertex-api-key: [{api-key: v1}]
openai-compatibility:
  - name: farm  # ours
    base-url: http://farm.example/v1
    api-key-entries: [{api-key: f1}, {api-key: f2}]
    models: [{name: m, alias: n}]
# --- tables
oauth-excluded-models: {vertex: [a]}
oauth-model-alias: {vertex: [{name: a, alias: b}]}
oauth-request-scoped-errors: {vertex: [{status: 400, match: [x], action: stop}]}
"""
RULE = {"status": 418, "match": ["tea"], "action": "continue"}
TABLE_ITEMS: dict[str, list[Any]] = {
    "oauth-excluded-models": ["b", "c*"],
    "oauth-model-alias": [{"name": "c", "alias": "d"}],
    "oauth-request-scoped-errors": [RULE],
}


def test_every_endpoint_is_documented() -> None:
    """With an example, or in a table."""
    page = Path("docs/management.md").read_text(encoding="utf-8")
    assert [route.path for route in CONFIGURATION if route.path not in page] == []


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_nobody_without_the_key_and_nobody_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every endpoint alike, before its body is looked at."""
    monkeypatch.setattr(keys_module, "MAX_FAILURES", 10_000)
    with trio.fail_after(FAIL_S):
        async with configured(tmp_path) as proxy:
            before = proxy.text
            wrong = {"authorization": "Bearer wrong"}
            for route in CONFIGURATION:
                reply = await proxy.client.request(route.method, BASE + route.path, content=b"{}", headers=wrong)
                assert (reply.status_code, reply.json()) == (401, {"error": "invalid management key"}), route
            monkeypatch.setattr(keys_module, "is_loopback", lambda address: False)
            for route in CONFIGURATION:
                reply = await proxy.client.request(route.method, BASE + route.path, content=b"{}")
                assert (reply.status_code, reply.json()) == (403, {"error": "remote management disabled"}), route
            assert proxy.text == before


NO_BODIES = (b"", b"{", b"null", b'{"a":"\\')
"""For every endpoint."""
NO_LISTS = (b'"text"', b"[1]", b'{"items": []}')
"""For those of lists."""


async def test_bodies_that_are_none(tmp_path: Path) -> None:
    """Nothing is written of them."""
    with trio.fail_after(FAIL_S):
        async with configured(tmp_path) as proxy:
            before = proxy.text
            for route in CONFIGURATION:
                if route.method not in ("PUT", "PATCH") or route.path == "/config.yaml":
                    continue
                if route.path in SCALARS:
                    bodies = NO_BODIES[1:2] if route.method == "PATCH" else NO_BODIES
                else:
                    bodies = (*NO_BODIES, *(NO_LISTS if route.path not in TABLES else NO_LISTS[:2]))
                for body in bodies:
                    reply = await proxy.send(route.method, route.path, body)
                    assert reply.status_code == 400, (route, body, reply.content)
                    assert reply.json()["error"], route
            assert proxy.text == before


# --- settings --------------------------------------------------------------------------------------------------------


async def test_settings(tmp_path: Path) -> None:
    """What is set is in the file, and in force when the answer is there."""
    with trio.fail_after(FAIL_S):
        async with configured(tmp_path, "debug: false  # quiet\n") as proxy:
            for path, scalar in SCALARS.items():
                for method, value in zip(("PUT", "PATCH"), VALUES.get(path, (True, False)), strict=True):
                    assert await proxy.ask(method, path, {"value": value}) == OK, path
                    wanted = STORED.get(value, value) if not isinstance(value, bool) else value
                    assert await proxy.ask("GET", path) == (200, {scalar.member: wanted})
                    assert scalar.current(load_config(proxy.file).config) == wanted
            assert "debug: false  # quiet\n" in proxy.text
            load_config(proxy.file)


async def test_values_of_another_kind(tmp_path: Path) -> None:
    """The contract's words for JSON types, the loader's for the rest."""
    with trio.fail_after(FAIL_S):
        async with configured(tmp_path) as proxy:
            before = proxy.text
            for path, scalar in SCALARS.items():
                texts = isinstance(VALUES.get(path, (True,))[0], str)
                numbers = path in VALUES and not texts
                others = (*(() if texts else ("1",)), *((True,) if texts or numbers else (1, 0)))
                for value in ([], {}, None, 1.5, *others):
                    assert await proxy.ask("PUT", path, {"value": value}) == INVALID, value
                if numbers:
                    status, told = await proxy.ask("PUT", path, {"value": 10**30})
                    assert status == 400
                    assert isinstance(told, dict)
                    assert told["error"].startswith(f"{'.'.join(scalar.keys)}: expected an integer")
                    assert told["problems"][0]["path"] == ".".join(scalar.keys)
            assert proxy.text == before


async def test_a_strategy_nobody_knows(tmp_path: Path) -> None:
    """The loader would take it for round-robin."""
    async with configured(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            assert await proxy.ask("PUT", "/routing/strategy", {"value": "best"}) == (
                400,
                {"error": "invalid strategy"},
            )


async def test_a_proxy_address_is_judged_without_being_told(tmp_path: Path) -> None:
    """It may hold a password."""
    async with configured(tmp_path, "proxy-url: direct  # why\n") as proxy:
        with trio.fail_after(FAIL_S):
            reply = await proxy.send("PUT", "/proxy-url", {"value": "ftp://u:hidden-password@h"})
            assert reply.status_code == 400
            assert "hidden-password" not in reply.text
            assert await proxy.ask("DELETE", "/proxy-url") == OK
            assert await proxy.ask("GET", "/proxy-url") == (200, {"proxy-url": ""})
            assert 'proxy-url: ""  # why\n' in proxy.text


# --- client keys -----------------------------------------------------------------------------------------------------


async def test_client_keys(tmp_path: Path) -> None:
    """All ways to change them; each is in force at once, remarks stay."""
    async with configured(tmp_path, LISTED) as proxy:
        with trio.fail_after(FAIL_S):

            async def keys() -> Any:
                status, told = await proxy.ask("GET", "/api-keys")
                assert status == 200
                assert isinstance(told, dict)
                assert list(proxy.app.state.runtime.config.api_keys) == told["api-keys"]
                return told["api-keys"]

            path = "/api-keys"
            assert await keys() == ["alpha", "beta"]
            assert await proxy.ask("PATCH", path, {"index": 1, "value": "gamma"}) == OK
            assert await proxy.ask("PATCH", path, {"old": "alpha", "new": "0123"}) == OK
            assert await proxy.ask("PATCH", path, {"old": "unknown", "new": "delta"}) == OK
            assert await keys() == ["0123", "gamma", "delta"]
            assert "  - \"0123\"  # the first\n  - 'gamma'\n  - delta\n# --- providers" in proxy.text
            for body in (
                {},
                {"index": 9, "value": "x"},
                {"old": "delta"},
                {"index": True, "value": "x"},
                {"value": "x"},
            ):
                assert await proxy.ask("PATCH", path, body) == (400, {"error": "missing fields"}), body
            assert await proxy.ask("DELETE", path, index="0") == OK
            assert await proxy.ask("DELETE", path, value="delta") == OK
            assert await keys() == ["gamma"]
            for query in ({}, {"index": "9"}, {"index": "-1"}, {"index": "9" * 5000}):
                answer = (400, {"error": "missing index or value"})
                assert await proxy.ask("DELETE", path, **query) == answer
            assert await proxy.ask("PUT", path, {"items": ["a", " b ", "a"]}) == OK
            assert await keys() == ["a", "b"]
            assert await proxy.ask("PUT", path, []) == OK
            assert await keys() == []
            assert "# the first" in proxy.text


async def test_a_key_that_is_written_as_a_number(tmp_path: Path) -> None:
    """The loader takes it for the text that stands there."""
    async with configured(tmp_path, "api-keys: [0123, 1.50]\n") as proxy:
        with trio.fail_after(FAIL_S):
            assert await proxy.ask("PATCH", "/api-keys", {"old": "0123", "new": "x"}) == OK
            assert await proxy.ask("DELETE", "/api-keys", value="1.50") == OK
            assert await proxy.ask("GET", "/api-keys") == (200, {"api-keys": ["x"]})


# --- provider lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LISTS)
async def test_provider_lists(tmp_path: Path, path: str) -> None:
    """What is got can be put back; entries are found by key or name, or by their place."""
    asked = LISTS[path]
    by, member = ("name", "name") if asked.named else ("match", "api-key")
    async with configured(tmp_path, LISTED) as proxy:
        with trio.fail_after(FAIL_S):

            async def entries() -> Any:
                status, told = await proxy.ask("GET", path)
                assert status == 200
                assert isinstance(told, dict)
                return told[asked.name]

            before, text = await entries(), proxy.text
            assert before
            holder = before[-1]["api-key-entries"][-1] if asked.named else before[-1]
            assert len(holder["auth-index"]) == 16
            assert holder["auth-index"] in {c.index for c in proxy.app.state.runtime.credentials}
            assert await proxy.ask("PUT", path, {"items": before}) == OK
            assert proxy.text == text
            assert await entries() == before

            new = {member: "fresh", "base-url": "http://new.example/", "models": None, "headers": {}, "prefix": ""}
            assert await proxy.ask("PUT", path, [*before, new, {"weight": 3}]) == OK
            assert (await entries())[-1][member] == "fresh"
            assert len(await entries()) == len(before) + 1

            change = {"prefix": "team", "priority": 4, "excluded-models": ["*X*"], "headers": {"X-A": "b"}}
            change |= {"models": [{"name": "q", "alias": "r"}], "request-retry": 2, "disable-cooling": True}
            assert await proxy.ask("PATCH", path, {by: "fresh", "value": change}) == OK
            changed = (await entries())[-1]
            assert {key: changed[key] for key in change} == change | {"excluded-models": ["*x*"]}
            gone = dict.fromkeys(("prefix", "priority", "headers", "models", "request-retry", "disable-cooling"))
            index = len(before)
            assert await proxy.ask("PATCH", path, {"index": index, "value": gone | {"excluded-models": []}}) == OK
            left = (await entries())[-1]
            assert {key for key in left if key in change} <= {"models"}
            assert left["models"] == []

            for body in ({"index": 99, "value": {}}, {by: "unknown", "value": {}}, {"index": -1, "value": {}}):
                assert await proxy.ask("PATCH", path, body) == (404, {"error": "item not found"})
            missing = (400, {"error": f"missing {by} or index"})
            assert await proxy.ask("PATCH", path, {"value": {"prefix": "a"}}) == missing
            assert await proxy.ask("PATCH", path, {by: "fresh", "value": []}) == INVALID
            assert await proxy.ask("PATCH", path, {"index": "0", "value": {}}) == INVALID
            status, told = await proxy.ask("PATCH", path, {"index": 0, "value": {"priority": "high"}})
            assert status == 400
            assert isinstance(told, dict)
            assert (
                told["error"] == f"{asked.name}[0].priority: expected an integer from -1000000000 to 1000000000, "
                "got 'high' (str)"
            )

            empty = dict.fromkeys(asked.needed, "")
            assert await proxy.ask("PATCH", path, {by: "fresh", "value": empty}) == OK
            assert await entries() == before

            parameter = "name" if asked.named else "api-key"
            assert await proxy.ask("DELETE", path) == (400, {"error": f"missing {parameter} or index"})
            assert await proxy.ask("DELETE", path, index="99") == (404, {"error": "item not found"})
            unknown = OK if asked.named else (404, {"error": "item not found"})
            assert await proxy.ask("DELETE", path, **{parameter: "unknown"}) == unknown
            assert await proxy.ask("DELETE", path, index="0") == OK
            assert await entries() == before[1:]
            if before[1:]:
                assert await proxy.ask("DELETE", path, **{parameter: before[1][member]}) == OK
            assert await entries() == []
            load_config(proxy.file)


async def test_weights_and_unknown_members_are_refused_with_their_place(tmp_path: Path) -> None:
    """As the contract has it for weights."""
    async with configured(tmp_path, LISTED) as proxy:
        with trio.fail_after(FAIL_S):
            before = proxy.text
            for weight in (1_000_001, 1.5, True):
                entries = [{"api-key": "ok"}, {"api-key": "k", "weight": weight}]
                status, told = await proxy.ask("PUT", "/gemini-api-key", entries)
                assert status == 400
                assert isinstance(told, dict)
                assert told["error"].startswith(
                    "gemini-api-key[1].weight: expected an integer of at most 1000000, got "
                )
            status, told = await proxy.ask("PUT", "/claude-api-key", [{"api-key": "k", "wieght": 1}])
            assert (status, "unknown key 'wieght'; did you mean 'weight'?" in str(told)) == (400, True)
            assert proxy.text == before


async def test_several_entries_of_one_key(tmp_path: Path) -> None:
    """The address of the provider tells them apart, or their place."""
    async with configured(tmp_path, LISTED) as proxy:
        with trio.fail_after(FAIL_S):
            path, body = "/gemini-api-key", {"match": "g1", "value": {"prefix": "p"}}
            several = (400, {"error": "multiple items match; index is required"})
            assert await proxy.ask("PATCH", path, body) == several
            assert await proxy.ask("PATCH", path, body, base_url="http://b.example/") == OK
            assert await proxy.ask("PATCH", path, body, base_url="") == (404, {"error": "item not found"})
            several = (400, {"error": "multiple items match api-key; base-url is required"})
            assert await proxy.ask("DELETE", path, api_key="g1") == several
            assert await proxy.ask("DELETE", path, api_key="g1", base_url="http://a.example") == OK
            _, told = await proxy.ask("GET", path)
            assert isinstance(told, dict)
            assert [(entry["base-url"], entry["prefix"]) for entry in told["gemini-api-key"]] == [
                ("http://b.example", "p")
            ]
            twice = [{"api-key": "k", "weight": 1}, {"api-key": "k", "weight": 2}]
            assert await proxy.ask("PUT", path, twice) == OK
            _, told = await proxy.ask("GET", path)
            assert isinstance(told, dict)
            assert len(told["gemini-api-key"]) == 1


async def test_an_entry_keeps_its_remarks(tmp_path: Path) -> None:
    """An edit touches what it names."""
    async with configured(tmp_path, LISTED) as proxy:
        with trio.fail_after(FAIL_S):
            before = proxy.text
            value = {"prefix": "team", "weight": 3}
            assert await proxy.ask("PATCH", "/claude-api-key", {"match": "c1", "value": value}) == OK
            assert proxy.text == before.replace("weight: 2  # heavy", "weight: 3  # heavy").replace(
                '["*haiku*"]\n', '["*haiku*"]\n    prefix: team\n'
            )


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TABLES)
async def test_tables(tmp_path: Path, path: str) -> None:
    """By provider or channel, whichever the client says."""
    table = TABLES[path]
    items = TABLE_ITEMS[table.name]
    async with configured(tmp_path, LISTED) as proxy:
        with trio.fail_after(FAIL_S):

            async def whole() -> Any:
                status, told = await proxy.ask("GET", path)
                assert status == 200
                assert isinstance(told, dict)
                return told[table.name]

            assert set(await whole()) == {"vertex"}
            for key in table.keys:
                assert await proxy.ask("PATCH", path, {key: " Other ", table.member: items}) == OK
                assert (await whole())["other"] == items
                assert await proxy.ask("PATCH", path, {key: "other", table.member: []}) == OK
                assert set(await whole()) == {"vertex"}
                answer = (404, {"error": f"{table.keys[0]} not found"})
                assert await proxy.ask("PATCH", path, {key: "other", table.member: []}) == answer
                assert await proxy.ask("DELETE", path, **{key: "other"}) == answer
            missing = (400, {"error": f"missing {table.keys[0]}"})
            assert await proxy.ask("PATCH", path, {table.member: items}) == missing
            assert await proxy.ask("DELETE", path) == missing
            assert await proxy.ask("PATCH", path, {"provider": "vertex", table.member: "x"}) == INVALID
            assert (await proxy.ask("PATCH", path, {"provider": "vertex", table.member: [{}]}))[0] == 400
            assert await proxy.ask("DELETE", path, provider="VERTEX") == OK
            assert await whole() == {}
            assert await proxy.ask("PUT", path, {"items": {"a": items, "b": []}}) == OK
            assert await whole() == {"a": items}
            assert await proxy.ask("PUT", path, {"c": items}) == OK
            assert await whole() == {"c": items}
            load_config(proxy.file)


# --- the whole -------------------------------------------------------------------------------------------------------


async def test_the_configuration_in_force(tmp_path: Path) -> None:
    """Keys of the file, without those that are nobody's business; secrets only to those who want them."""
    extra = LISTED + "plugins: {configs: {p: {enabled: false, token: plugin-secret}}}\nproxy-url: direct\n"
    async with configured(tmp_path, extra) as proxy:
        with trio.fail_after(FAIL_S):
            status, told = await proxy.ask("GET", "/config")
            assert status == 200
            assert isinstance(told, dict)
            assert not {"host", "port", "auth-dir", "remote-management"} & set(told)
            assert told["api-keys"] == ["alpha", "beta"]
            assert told["claude-api-key"][0]["api-key"] == "c1"
            assert told["disable-image-generation"] is False
            assert told["routing"]["session-affinity-ttl"] == "3600s"
            assert told["plugins"]["configs"] == {"p": {"enabled": False, "token": "plugin-secret"}}
            reply = await proxy.send("GET", "/config", redact="1")
            for secret in ("alpha", "beta", "c1", "g1", "f1", "plugin-secret", "direct"):
                assert f'"{secret}"' not in reply.text
            hidden = reply.json()
            assert hidden["plugins"]["configs"] == {"p": {"enabled": False, "token": "***"}}
            assert hidden["claude-api-key"][0]["api-key"] == "***"
            assert hidden["api-keys"] == ["***", "***"]


async def test_the_file_as_it_is(tmp_path: Path) -> None:
    """Bytes, with a tag by which its next version is written only over this one."""
    async with configured(tmp_path, LISTED) as proxy:
        with trio.fail_after(FAIL_S):
            reply = await proxy.send("GET", "/config.yaml")
            assert reply.status_code == 200
            assert reply.content == proxy.file.read_bytes()
            assert reply.headers["content-type"] == "application/yaml; charset=utf-8"
            assert reply.headers["cache-control"] == "no-store"
            assert reply.headers["x-content-type-options"] == "nosniff"
            tag = reply.headers["etag"]
            assert tag == f'"{digest_of(proxy.file.read_bytes())}"'

            new = (proxy.text + "debug: true\n").encode()
            url = f"{BASE}/config.yaml"
            written = await proxy.client.put(url, content=new, headers={"if-match": f'"other", {tag}'})
            assert (written.status_code, written.json()) == (200, {"ok": True, "changed": ["config"]})
            assert proxy.file.read_bytes() == new
            assert written.headers["etag"] == f'"{digest_of(new)}"'
            assert proxy.app.state.runtime.config.debug
            stale = await proxy.client.put(url, content=b"debug: false\n", headers={"if-match": tag})
            assert (stale.status_code, stale.json()["error"]) == (412, "precondition_failed")
            assert proxy.file.read_bytes() == new
            assert (await proxy.client.get(url, headers={"if-match": tag})).status_code == 412
            assert (await proxy.client.get(url, headers={"if-match": "*"})).status_code == 200
            proxy.file.unlink()
            gone = await proxy.client.get(url)
            assert (gone.status_code, gone.json()["error"]) == (404, "not_found")


REFUSED: tuple[tuple[bytes, int, dict[str, object]], ...] = (
    (b"debug: ]", 400, {"line": 1, "path": "", "column": 8}),
    (b"just text", 400, {"line": 1, "column": None, "path": ""}),
    (b"- a", 400, {"line": 1, "path": ""}),
    (b"", 400, {"line": 1, "message": "expected a configuration, got nothing"}),
    (b"debug: true\n\xff", 400, {"line": 2}),
    (b"a: 1\n---\nb: 1\n", 400, {"line": 2}),
    (b"a: &x [*x]", 400, {"line": 1}),
    (
        b"\ndebug: maybe\n",
        422,
        {"line": 2, "column": None, "path": "debug", "message": "expected true or false, got 'maybe' (str)"},
    ),
    (b"debug: true\ndebug: true\n", 422, {"line": 2, "path": ""}),
    (b"tls: {enable: true, cert: /nowhere, key: /nowhere}\n", 422, {"line": 1, "path": "tls"}),
    (b"# " + b"x" * (MAX_DOCUMENT_BYTES - 1), 400, {"line": 1}),
)


async def test_files_that_are_refused(tmp_path: Path) -> None:
    """With every problem in its place; `check` says the same and writes nothing either."""
    async with configured(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            before = proxy.text
            for body, status, problem in REFUSED:
                reply = await proxy.send("PUT", "/config.yaml", body)
                code = "invalid_yaml" if status == 400 else "invalid_config"
                assert (reply.status_code, reply.json()["error"]) == (status, code), body[:99]
                assert reply.json()["message"]
                found = reply.json()["problems"][0]
                assert set(found) == {"line", "column", "path", "message"}
                assert found | problem == found
                checked = await proxy.send("POST", "/config.yaml/check", body)
                assert checked.status_code == 200
                told = {"ok": False, "problems": reply.json()["problems"], "changes": [], "restart": []}
                assert checked.json() == told
            assert (await proxy.send("PUT", "/config.yaml", b"# " + b"x" * 2 * MAX_DOCUMENT_BYTES)).status_code == 413
            assert proxy.text == before


async def test_what_a_file_would_change(tmp_path: Path) -> None:
    """Compared with what is in force."""
    async with configured(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            before = proxy.text
            text = before.replace("port: 0", "port: 9") + "debug: true\napi-keys: [hidden-key]\n"
            told = {"ok": True, "problems": [], "restart": ["port"]}
            told["changes"] = ["port: 0 -> 9", "api-keys: 1 added", "debug: false -> true"]
            assert await proxy.ask("POST", "/config.yaml/check", text.encode()) == (200, told)
            assert proxy.text == before
            assert not proxy.app.state.runtime.config.debug


async def test_a_file_without_key_ends_management(tmp_path: Path) -> None:
    """In force before the answer, which is the last one."""
    async with configured(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            assert (await proxy.send("PUT", "/config.yaml", b"port: 0\n")).status_code == 200
            reply = await proxy.send("GET", "/config.yaml")
            assert (reply.status_code, reply.content) == (404, b"")


async def test_newer_versions_are_not_looked_for(tmp_path: Path) -> None:
    """No request that nobody asked for."""
    async with configured(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            status, told = await proxy.ask("GET", "/latest-version")
            assert isinstance(told, dict)
            assert (status, told["error"]) == (502, "request_failed")


# --- the file --------------------------------------------------------------------------------------------------------


async def test_an_edit_goes_on_what_others_wrote(tmp_path: Path) -> None:
    """Also when nobody has told the proxy of it."""
    async with configured(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            proxy.file.write_text(proxy.text + "request-retry: 7  # theirs\n")
            assert await proxy.ask("PUT", "/debug", {"value": True}) == OK
            assert proxy.text.endswith("request-retry: 7  # theirs\ndebug: true\n")
            assert await proxy.ask("GET", "/request-retry") == (200, {"request-retry": 7})


async def test_a_file_that_others_broke_is_left_alone(tmp_path: Path) -> None:
    """What they meant is theirs to say."""
    async with configured(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            proxy.file.write_text("port: x\n")
            status, told = await proxy.ask("PUT", "/debug", {"value": True})
            assert status == 500
            assert isinstance(told, dict)
            assert told["error"].startswith("failed to save config: the file has problems of its own: ")
            assert proxy.text == "port: x\n"
            assert await proxy.ask("GET", "/debug") == (200, {"debug": False})


async def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear answer; nothing changes, in the file or in force."""

    def refuse(*_: object, **__: object) -> Path:
        raise OSError(30, "Read-only file system")

    async with configured(tmp_path) as proxy:
        with trio.fail_after(FAIL_S):
            before = proxy.text
            monkeypatch.setattr(replacing, "scratch_file", refuse)
            message = f"cannot write {proxy.file}: Read-only file system"
            for method, path, body in (
                ("PUT", "/debug", {"value": True}),
                ("PUT", "/api-keys", ["a"]),
                ("PUT", "/claude-api-key", [{"api-key": "a"}]),
                ("PATCH", "/oauth-excluded-models", {"provider": "a", "models": ["b"]}),
            ):
                told = (500, {"error": f"failed to save config: {message}"})
                assert await proxy.ask(method, path, body) == told
            whole = await proxy.ask("PUT", "/config.yaml", b"debug: true\n")
            assert whole == (500, {"error": "write_failed", "message": message})
            assert proxy.text == before
            assert await proxy.ask("GET", "/debug") == (200, {"debug": False})


async def test_every_edit_is_logged_with_its_author(tmp_path: Path) -> None:
    """And without what it says of keys."""
    async with configured(tmp_path, LISTED) as proxy:
        with trio.fail_after(FAIL_S), structlog.testing.capture_logs() as lines:
            await proxy.ask("PUT", "/debug", {"value": True})
            await proxy.ask("PATCH", "/api-keys", {"old": "alpha", "new": "brand-new-key"})
            await proxy.ask("DELETE", "/api-keys", value="brand-new-key")
            await proxy.ask("PUT", "/debug", {"value": True})
            await proxy.ask("PUT", "/debug", {"value": 1})
    edits = [line for line in lines if line["event"] == "config.edited"]
    who = {"event": "config.edited", "log_level": "info", "client": "127.0.0.1", "known_by": "configuration"}
    assert edits == [
        who | {"endpoint": "PUT /v0/management/debug", "changes": ["debug: false -> true"]},
        who | {"endpoint": "PATCH /v0/management/api-keys", "changes": ["api-keys: 1 added, 1 removed"]},
        who | {"endpoint": "DELETE /v0/management/api-keys", "changes": ["api-keys: 1 removed"]},
    ]
    assert "brand-new-key" not in json.dumps(lines, default=str)


async def test_without_a_file_there_is_nothing_to_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo, and proxies inside other programs."""
    async with configured(tmp_path) as proxy:
        monkeypatch.setattr(proxy.app.state, "editor", None)
        with trio.fail_after(FAIL_S):
            told = (500, {"error": "failed to save config: this proxy runs without a configuration file"})
            assert await proxy.ask("PUT", "/debug", {"value": True}) == told
            assert (await proxy.send("PUT", "/config.yaml", b"debug: true\n")).status_code == 500
            assert (await proxy.send("GET", "/config.yaml")).status_code == 404
            assert (await proxy.send("POST", "/config.yaml/check", b"debug: true\n")).json()["ok"]


# --- the management key at rest --------------------------------------------------------------------------------------


async def test_a_typed_key_is_hashed_at_the_start_and_at_reloads(tmp_path: Path) -> None:
    """The client notices nothing."""
    async with configured(tmp_path, secret=KEY) as proxy:
        with trio.fail_after(FAIL_S):
            assert KEY not in proxy.text
            secret = proxy.app.loaded.config.remote_management.secret_key
            assert f"secret-key: '{secret}'}}  # who may manage\n" in proxy.text
            assert bcrypt.checkpw(KEY.encode(), secret.encode())
            assert await proxy.ask("GET", "/debug") == (200, {"debug": False})
            proxy.file.write_text(proxy.text.replace(secret, "another-key"))
            await proxy.app.reload()
            assert "another-key" not in proxy.text
            proxy.client.headers["authorization"] = "Bearer another-key"
            assert await proxy.ask("GET", "/debug") == (200, {"debug": False})


async def test_a_typed_key_that_cannot_be_hashed_works_and_is_complained_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only mounts are usual."""

    def refuse(*_: object, **__: object) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(replacing, "scratch_file", refuse)
    with trio.fail_after(FAIL_S), structlog.testing.capture_logs() as lines:
        async with configured(tmp_path, secret=KEY) as proxy:
            assert await proxy.ask("GET", "/debug") == (200, {"debug": False})
            assert KEY in proxy.text
    (line,) = [line for line in lines if line["event"] == "management.key_in_clear"]
    assert "Read-only file system" in line["error"]


async def test_edits_at_the_same_time_all_count(tmp_path: Path) -> None:
    """From as many clients as there are."""
    async with configured(tmp_path, "api-keys: []\n") as proxy:
        with trio.fail_after(FAIL_S):

            async def add(number: int) -> None:
                async with httpx.AsyncClient(base_url=proxy.app.addresses[0], trust_env=False, timeout=None) as client:
                    reply = await client.patch(
                        f"{BASE}/api-keys",
                        json={"old": "", "new": f"k{number}"},
                        headers={"authorization": f"Bearer {KEY}"},
                    )
                    assert reply.status_code == 200

            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(add, number)
            assert set(load_config(proxy.file).config.api_keys) == {f"k{number}" for number in range(6)}
    assert KEY_HASH in (tmp_path / "config.yaml").read_text()


# --- any sequence ---------------------------------------------------------------------------------------------------

EDITS: tuple[tuple[str, str, Any, dict[str, str]], ...] = (
    ("PUT", "/debug", {"value": True}, {}),
    ("PUT", "/debug", {"value": False}, {}),
    ("PATCH", "/request-retry", {"value": 7}, {}),
    ("PUT", "/routing/strategy", {"value": "ff"}, {}),
    ("PUT", "/quota-exceeded/switch-project", {"value": False}, {}),
    ("PUT", "/proxy-url", {"value": "direct"}, {}),
    ("DELETE", "/proxy-url", None, {}),
    ("PUT", "/api-keys", ["yes", "0123", "beta"], {}),
    ("PUT", "/api-keys", [], {}),
    ("PATCH", "/api-keys", {"old": "alpha", "new": "* x # y"}, {}),
    ("DELETE", "/api-keys", None, {"index": "0"}),
    ("PATCH", "/claude-api-key", {"index": 0, "value": {"prefix": "p", "weight": None, "headers": {"X": "1:30"}}}, {}),
    ("PATCH", "/claude-api-key", {"match": "c2", "value": {"excluded-models": ["*"], "models": [{"name": "m"}]}}, {}),
    ("DELETE", "/claude-api-key", None, {"index": "0"}),
    ("PUT", "/claude-api-key", [{"api-key": "c2"}, {"api-key": "c1", "weight": 2}], {}),
    ("PUT", "/gemini-api-key", [], {}),
    ("PATCH", "/openai-compatibility", {"name": "farm", "value": {"api-key-entries": [{"api-key": "f2"}]}}, {}),
    ("PATCH", "/openai-compatibility", {"index": 0, "value": {"name": "ranch", "models": None}}, {}),
    ("DELETE", "/openai-compatibility", None, {"index": "0"}),
    ("PATCH", "/oauth-excluded-models", {"provider": "kiro", "models": ["a"]}, {}),
    ("DELETE", "/oauth-excluded-models", None, {"provider": "vertex"}),
    ("PUT", "/oauth-model-alias", {"a": [{"name": "b", "alias": "c"}]}, {}),
    ("PUT", "/oauth-request-scoped-errors", {}, {}),
)


@settings(max_examples=4, deadline=None)
@given(edits=st.lists(st.sampled_from(EDITS), min_size=4, max_size=10))
async def test_no_sequence_of_edits_harms_the_file(edits: list[tuple[str, str, Any, dict[str, str]]]) -> None:
    """It stays readable, to the loader and to others, keeps every remark and the order of its keys, and is in force."""
    with TemporaryDirectory(prefix="cpa-test-") as folder, trio.fail_after(FAIL_S):
        async with configured(Path(folder), LISTED) as proxy:
            before = proxy.text
            order = list(yaml.safe_load(before))
            for method, path, body, query in edits:
                reply = await proxy.send(method, path, body, **query)
                assert reply.status_code in (200, 400, 404), reply.text
            for remark in re.findall("#[^\n]*", before):
                assert remark in proxy.text
            read = yaml.safe_load(proxy.text)
            assert list(read)[: len(order)] == order
            assert describe_changes(load_config(proxy.file).config, proxy.app.state.runtime.config) == []
