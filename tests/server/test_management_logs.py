"""The log endpoints: the application log's file, its last lines in memory, and what requests left behind."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trio

from cpa.observability import log as log_module
from cpa.observability.log import get_logger
from cpa.observability.sink import LogSink, StreamDestination
from tests.observability.test_log_files import BASE, numbers_of, rotate, write
from tests.proxy import running_proxy
from tests.server.sites import KEY, operator

FAIL_S = 120
MANAGED = f"remote-management: {{secret-key: {KEY}}}\n"
TO_FILE = f"{MANAGED}logging-to-file: true\n"
LOGS = "/v0/management/logs"
ENDPOINTS = (
    ("GET", "/logs"),
    ("DELETE", "/logs"),
    ("GET", "/logs/recent"),
    ("GET", "/request-error-logs"),
    ("GET", "/request-error-logs/error-a.log"),
    ("GET", "/request-log-by-id/abc"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where logs go."""
    monkeypatch.setenv("WRITABLE_PATH", str(tmp_path))
    made = tmp_path / "logs"
    made.mkdir()
    return made


@pytest.fixture
def global_logging() -> Iterator[None]:
    """Logging is global by nature: what a test sets up must be gone afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sink = log_module._renderer.sink
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    log_module._renderer.sink = sink
    structlog.reset_defaults()


async def get(client: httpx.AsyncClient, **query: Any) -> Any:
    """What ``GET /logs`` says."""
    reply = await client.get(LOGS, params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_the_file_from_the_end_and_then_on(folder: Path) -> None:
    """The panel's way: the end first, then what is new, over a rotation."""
    write(folder / "main.log", 1, 2, 3)
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=TO_FILE) as proxy, operator(proxy) as client:
            found = await get(client, limit=2)
            assert numbers_of(found["lines"]) == [2, 3]
            assert set(found) == {"lines", "line-count", "latest-timestamp", "next-cursor"}
            assert (found["line-count"], found["latest-timestamp"]) == (2, BASE + 3)
            write(folder / "main.log", 4, mode="a")
            rotate(folder, "2026-10-01T10-00-00.000")
            write(folder / "main.log", 5)
            found = await get(client, cursor=found["next-cursor"], limit=100)
            assert numbers_of(found["lines"]) == [4, 5]
            assert "cursor-reset" not in found
            assert (await get(client, cursor=found["next-cursor"]))["lines"] == []
            found = await get(client, cursor="nonsense", limit=1)
            assert (numbers_of(found["lines"]), found["cursor-reset"]) == ([5], True)
            assert numbers_of((await get(client, after=BASE + 3))["lines"]) == [4, 5]
            for nonsense in ("x", "-5", "", "1e9"):
                assert numbers_of((await get(client, after=nonsense))["lines"]) == [1, 2, 3, 4, 5]
            assert numbers_of((await get(client, after=BASE + 1, limit=2))["lines"]) == [4, 5]
            nothing = await get(client, after=BASE + 9)
            assert (nothing["lines"], nothing["line-count"], nothing["latest-timestamp"]) == ([], 0, BASE + 9)


async def test_limits_that_are_none_and_logs_that_are_not_there(folder: Path) -> None:
    """400, or nothing to see."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=TO_FILE) as proxy, operator(proxy) as client:
            for limit in ("0", "-1", "x", "1.5", "١"):
                reply = await client.get(LOGS, params={"limit": limit})
                assert reply.status_code == 400
                assert reply.json()["error"].startswith("invalid limit: ")
            await trio.Path(folder).rmdir()
            found = await get(client)
            assert (found["lines"], found["line-count"], found["latest-timestamp"]) == ([], 0, 0)
            assert (await client.get("/v0/management/request-error-logs")).json() == {"files": []}
            reply = await client.delete(LOGS)
            assert reply.json() == {"success": True, "message": "Logs cleared successfully", "removed": 0}
        async with running_proxy(extra=MANAGED) as proxy, operator(proxy) as client:
            for method in ("GET", "DELETE"):
                reply = await client.request(method, LOGS)
                assert (reply.status_code, reply.json()) == (400, {"error": "logging to file disabled"})


async def test_clearing(folder: Path) -> None:
    """Rotated files go, the active one is empty, and a cursor of before knows it."""
    write(folder / "main.log", 1)
    rotate(folder, "a")
    write(folder / "main.log", 2)
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=TO_FILE) as proxy, operator(proxy) as client:
            cursor = (await get(client, limit=1))["next-cursor"]
            reply = await client.delete(LOGS)
            assert reply.json() == {"success": True, "message": "Logs cleared successfully", "removed": 1}
            assert (folder / "main.log").read_bytes() == b""
            assert (await get(client, cursor=cursor))["cursor-reset"] is True


@pytest.mark.usefixtures("global_logging")
async def test_the_log_of_a_running_proxy(folder: Path) -> None:
    """File and memory say the same, without the keys that were in it."""
    reader, writer = os.pipe()
    with trio.fail_after(FAIL_S):
        sink = LogSink(StreamDestination(writer))
        async with running_proxy(extra=TO_FILE, sink=sink) as proxy, operator(proxy) as client:
            log = get_logger()
            log.warning("something odd", detail="provider-key-of-the-tests")
            recent = (await client.get(f"{LOGS}/recent", params={"limit": 1, "level": "warning"})).json()
            [line] = recent["lines"]
            assert (line["level"], line["event"]) == ("warn", "something odd")
            assert "something odd detail=" in line["text"]
            assert "provider-key-of-the-tests" not in line["text"]
            while not any("something odd" in text for text in (await get(client))["lines"]):
                await trio.lowlevel.checkpoint()
            assert line["text"] in (await get(client))["lines"]
            log.error("worse")
            query = {"cursor": recent["next-cursor"], "level": "error"}
            found = (await client.get(f"{LOGS}/recent", params=query)).json()
            assert [line["event"] for line in found["lines"]] == ["worse"]
            assert "cursor-reset" not in found
            found = (await client.get(f"{LOGS}/recent", params={"cursor": "x-1", "limit": 1})).json()
            assert (len(found["lines"]), found["cursor-reset"]) == (1, True)
            content = b'{"type": "claude", "api_key": "key-that-nobody-may-see"}'
            files = "/v0/management/auth-files"
            assert (await client.post(files, params={"name": "k.json"}, content=content)).status_code == 200
            assert (await client.delete(files, params={"name": "k.json"})).status_code == 200
            found = (await client.get(f"{LOGS}/recent")).json()
            audit = [line["text"] for line in found["lines"] if line["event"].startswith("management.auth_")]
            assert ["k.json" in text and "client=127.0.0.1 known_by=configuration" in text for text in audit] == [
                True
            ] * 2
            assert not any("key-that-nobody" in line["text"] for line in found["lines"])
            for query in ({"limit": "0"}, {"level": "loud"}):
                assert (await client.get(f"{LOGS}/recent", params=query)).status_code == 400
    os.close(reader)
    os.close(writer)


async def test_without_a_log_of_its_own_there_are_no_recent_lines() -> None:
    """Embedders keep theirs."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy, operator(proxy) as client:
            assert (await client.get(f"{LOGS}/recent")).json() == {"lines": [], "next-cursor": ""}


async def test_files_of_failed_requests(folder: Path) -> None:
    """Listed, fetched by name and by trace id; nothing else in the folder can be had."""
    (folder / "error-v1-chat-2026-10-01T100000-aaaa1111.log").write_text("first")
    (folder / "error-v1-chat-2026-10-01T100001-bbbb2222.log").write_text("second")
    os.utime(folder / "error-v1-chat-2026-10-01T100000-aaaa1111.log", (BASE, BASE))
    (folder / "v1-chat-2026-10-01T100002-cccc3333.log").write_text("third")
    write(folder / "main.log", 1)
    rotate(folder, "2026-dddd4444")
    (folder / "error-link-eeee5555.log").symlink_to(folder / "main-2026-dddd4444.log")
    (folder / "error-dir-ffff6666.log").mkdir()
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy, operator(proxy) as client:
            base = "/v0/management/request-error-logs"
            files = (await client.get(base)).json()["files"]
            assert [file["name"][-12:] for file in files] == ["bbbb2222.log", "aaaa1111.log"]
            assert files[1] == {
                "name": "error-v1-chat-2026-10-01T100000-aaaa1111.log",
                "size": 5,
                "modified": BASE,
            }
            reply = await client.get(f"{base}/{files[0]['name']}")
            assert (reply.status_code, reply.text) == (200, "second")
            assert reply.headers["content-disposition"].startswith(f'attachment; filename="{files[0]["name"]}"')
            for name, status in (
                ("main-2026-dddd4444.log", 404),
                ("v1-chat-2026-10-01T100002-cccc3333.log", 404),
                ("error-link-eeee5555.log", 404),
                ("error-dir-ffff6666.log", 404),
                ("error-none.log", 404),
                ("error-.log.txt", 404),
                ("..%2Ferror-x.log", 400),
                ("..%5Cerror-x.log", 400),
                ("error-a%2F..%2F..%2Fx.log", 400),
                ("error-%00.log", 404),
            ):
                assert (await client.get(f"{base}/{name}")).status_code == status, name
            long = bytes(range(256)) * (3 << 12)
            (folder / "error-long-77777777.log").write_bytes(long)
            assert (await client.get(f"{base}/error-long-77777777.log")).content == long
            by_id = "/v0/management/request-log-by-id"
            for trace_id, text in (("aaaa1111", "first"), ("cccc3333", "third")):
                assert (await client.get(f"{by_id}/{trace_id}")).text == text
            for trace_id in ("dddd4444", "eeee5555", "ffff6666", "00000000", "*", "%2e%2e", "a%00b", "x" * 500):
                assert (await client.get(f"{by_id}/{trace_id}")).status_code == 404, trace_id
        async with running_proxy(extra=f"{MANAGED}request-log: true\n") as proxy, operator(proxy) as client:
            assert (await client.get(base)).json() == {"files": []}
            assert (await client.get(f"{base}/{files[0]['name']}")).status_code == 200


async def test_a_failed_request_can_be_looked_up(folder: Path) -> None:
    """By its trace id, which stands in the name of its file."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy, operator(proxy) as client:
            async with proxy.client() as anybody:
                asked = await anybody.post("/v1/chat/completions", json={"model": "nobody", "messages": []})
                assert asked.status_code == 400
            files: list[Any] = []
            while not files:
                files = (await client.get("/v0/management/request-error-logs")).json()["files"]
            [file] = files
            trace_id = file["name"].removesuffix(".log").rpartition("-")[2]
            reply = await client.get(f"/v0/management/request-log-by-id/{trace_id}")
            assert file["name"] in reply.headers["content-disposition"]
            assert "=== REQUEST INFO ===" in reply.text


async def test_nobody_without_the_key_and_nobody_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each endpoint for itself."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy, operator(proxy) as client:
            for method, path in ENDPOINTS:
                wrong = await client.request(method, f"/v0/management{path}", headers={"authorization": "Bearer wrong"})
                assert (wrong.status_code, wrong.json()) == (401, {"error": "invalid management key"}), path
                assert (await client.get("/v0/management/cooldowns")).status_code == 200
            monkeypatch.setattr("cpa.server.management.keys.is_loopback", lambda address: False)
            for method, path in ENDPOINTS:
                refused = await client.request(method, f"/v0/management{path}")
                assert (refused.status_code, refused.json()) == (403, {"error": "remote management disabled"}), path
