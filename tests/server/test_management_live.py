"""What operators see of requests: the list, one in full, the stream, the overview, the routes; over real HTTP."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from cpa.app import App
from cpa.pipeline.stage import (
    InterceptRequestCall,
    InterceptRequestResult,
    Registration,
    StageKind,
    TransformCall,
)
from cpa.server.management import keys as keys_module
from cpa.server.management import live as live_module
from cpa.types import PluginId
from tests.e2e.wire import CHAT, CLAUDE, WIRES
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy
from tests.server.sites import Site, build
from tests.server.wire import Wire, connect, post

FAIL_S = 120
KEY = "management-key-of-the-tests"
BASE = "/v0/management"
SECRET = "the cat sat on the mat"
EXTRA = f"""
remote-management: {{secret-key: '{KEY}'}}
pipeline:
  chains:
    - name: capped
      match: {{from: claude, to: openai, keys: ["{CLIENT_KEY}", "*"]}}
      request: [strip-cache-control, {{plugin: ghost}}, {{translate: native}}, {{cap-output-tokens: 50}}]
"""
MEMBERS = (
    *("id", "time", "client", "protocol", "model", "provider", "provider-format", "provider-model", "credential"),
    *("stream", "state", "status", "error", "duration-ms", "first-byte-ms", "input-tokens", "output-tokens"),
    *("stages", "losses", "nested"),
)
PATHS = ("/overview", "/requests", "/requests/stream", "/requests/abc", "/routes")


async def tag(call: InterceptRequestCall) -> InterceptRequestResult:
    """An interceptor that adds a member, changes a text and sets a header."""
    body = json.loads(call.body)
    body["seed"] = 7
    body["messages"][0]["content"] = "another text"
    return InterceptRequestResult(headers={"X-Team": ["blue"]}, body=json.dumps(body).encode())


async def fail(call: TransformCall) -> bytes:
    """A normalizer that does not work."""
    raise ValueError(SECRET)


STAGES = (
    Registration(kind=StageKind.INTERCEPT_BEFORE, plugin_id=PluginId("tagger"), stage=tag, priority=9),
    Registration(kind=StageKind.REQUEST_NORMALIZE, plugin_id=PluginId("broken"), stage=fail),
)


@attrs.frozen(kw_only=True)
class View:
    """A proxy, its client and its operator."""

    proxy: RunningProxy
    client: httpx.AsyncClient
    operator: httpx.AsyncClient

    @property
    def app(self) -> App:
        """The running program."""
        return self.proxy.app

    async def get(self, path: str) -> Any:
        """A management answer."""
        reply = await self.operator.get(BASE + path)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def until(self, wanted: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The list as soon as it is as *wanted*: a request ends a moment after its client has the last byte."""
        while not wanted(found := (await self.get("/requests"))["requests"]):
            await trio.lowlevel.checkpoint()
        return list(found)


@asynccontextmanager
async def view(*, stages: tuple[Registration, ...] = (), extra: str = EXTRA) -> AsyncIterator[View]:
    """All of it while the block runs."""
    with trio.fail_after(FAIL_S):
        async with (
            running_proxy(extra=extra, registrations=stages) as proxy,
            proxy.client() as client,
            proxy.client(key=KEY) as operator,
        ):
            yield View(proxy=proxy, client=client, operator=operator)


def over(count: int) -> Callable[[list[dict[str, Any]]], bool]:
    """So many requests have ended."""
    return lambda found: sum(one["state"] != "running" for one in found) == count


@attrs.define
class Events:
    """The stream as a panel reads it."""

    wire: Wire
    text: str = ""

    async def next(self) -> tuple[str, Any]:
        """Name and data of the next event, comments left out; an empty name at the end of the stream."""
        while True:
            while "\n\n" not in self.text:
                piece = await self.wire.chunk()
                if not piece:
                    return "", None
                self.text += piece.decode()
            event, _, self.text = self.text.partition("\n\n")
            if not event.startswith(":"):
                name, data = event.split("\n")
                return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@asynccontextmanager
async def events(run: View) -> AsyncIterator[Events]:
    """Someone who reads the stream while the block runs."""
    async with connect(run.proxy.url) as wire:
        # No name but one of this machine is taken for it, so the head of other tests will not do.
        lines = (f"GET {BASE}/requests/stream HTTP/1.1", "host: 127.0.0.1", f"x-management-key: {KEY}", "", "")
        await wire.send("\r\n".join(lines).encode())
        reply = await wire.head()
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
        assert await wire.chunk() == live_module.HELLO
        yield Events(wire)


async def test_requests_of_all_protocols_are_listed_with_what_became_of_them() -> None:
    async with view() as run:
        assert await run.get("/requests") == {"requests": [], "cursor": f"{run.app.state.live._instance}-0"}
        for wire in WIRES:
            for stream in (False, True):
                assert (await wire.post(run.client, stream=stream, headers={})).status_code == 200
        found = await run.until(over(8))
        assert all(tuple(one) == MEMBERS for one in found)
        assert [(one["protocol"], one["stream"]) for one in found] == [
            (str(wire.format), stream) for wire in WIRES for stream in (False, True)
        ]
        for one in found:
            assert (one["state"], one["status"], one["error"], one["nested"]) == ("done", 200, None, False)
            assert one["output-tokens"] > 0
            assert one["input-tokens"] > 0
            assert 0 < one["first-byte-ms"] <= one["duration-ms"]
            assert one["provider-model"] == f"mock-{one['model']}"
            assert one["credential"]
            assert CLIENT_KEY not in json.dumps(one)
            assert one["client"]


async def test_refused_and_failed_requests_say_why() -> None:
    """Also those that never got to a provider."""
    async with view() as run:
        assert (await run.client.post(CHAT.path, json={"model": "ghost", "messages": []})).status_code == 400
        assert (await run.client.post(CHAT.path, headers={"authorization": "Bearer x"})).status_code == 401
        failed = await CHAT.post(run.client, headers={"x-mock-status": "500"})
        assert failed.status_code == 500
        found = await run.until(over(3))
        assert [(one["status"], one["state"], one["model"]) for one in found] == [
            (400, "failed", "ghost"),
            (401, "failed", ""),
            (500, "failed", "gpt"),
        ]
        assert "ghost" in found[0]["error"]
        [attempt] = (await run.get(f"/requests/{found[2]['id']}"))["attempts"]
        assert (attempt["status"], attempt["provider"]) == (500, "openai-compatible-mock")
        assert attempt["why"]
        assert attempt["error"]


async def test_a_cursor_gives_what_has_changed_since() -> None:
    async with view() as run:
        await CHAT.post(run.client, headers={})
        await run.until(over(1))
        first = await run.get("/requests")
        assert (await run.get(f"/requests?after={first['cursor']}"))["requests"] == []
        for _ in range(3):
            await CHAT.post(run.client, headers={})
        await run.until(over(4))
        page = await run.get(f"/requests?limit=2&after={first['cursor']}")
        assert len(page["requests"]) == 2
        rest = await run.get(f"/requests?limit=2&after={page['cursor']}")
        ids = [one["id"] for one in (*page["requests"], *rest["requests"])]
        everything = (await run.get("/requests"))["requests"]
        assert ids == [one["id"] for one in everything[1:]]
        assert (await run.get("/requests?limit=1"))["requests"] == everything[-1:]
        # Of another process, or nonsense: from the beginning.
        for strange in ("0-5", "x", f"{first['cursor']}9x", "%00"):
            assert len((await run.get(f"/requests?after={strange}"))["requests"]) == 4
        for limit in ("0", "-1", "501", "x", "1e3"):
            assert (await run.operator.get(f"{BASE}/requests?limit={limit}")).status_code == 400


async def test_the_stream_tells_of_beginning_first_byte_and_end() -> None:
    async with view() as run, events(run) as told:
        answer = await CHAT.post(run.client, stream=True, headers={})
        assert answer.status_code == 200
        three = [await told.next() for _ in range(3)]
        assert [name for name, _ in three] == ["request"] * 3
        begun, spoken, ended = (data for _, data in three)
        assert all(tuple(data) == MEMBERS for data in (begun, spoken, ended))
        assert begun["id"] == spoken["id"] == ended["id"]
        assert (begun["state"], begun["first-byte-ms"]) == ("running", None)
        assert spoken["state"] == "running"
        assert spoken["first-byte-ms"] > 0
        assert (ended["state"], ended["status"]) == ("done", 200)


async def test_a_slow_reader_is_told_what_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffer is bounded; the newest are kept."""
    monkeypatch.setattr("cpa.observability.live.MAX_WAITING", 2)
    async with view() as run:
        live = run.app.state.live
        with live.read() as reader:
            for _ in range(2):
                await CHAT.post(run.client, headers={})
            await run.until(over(2))
            told = live_module.events(reader).split(b"\n\n")
            assert told[0] == b'event: lost\ndata: {"count":4}'
            assert len(told) == 4
            assert json.loads(told[2].split(b"data: ")[1])["state"] == "done"


async def test_what_stages_did_is_told_without_content() -> None:
    """Paths, sizes and settings, in the order in which they ran; neither texts nor what a failing stage raised."""
    async with view(stages=STAGES) as run, events(run):
        answer = await CHAT.post(run.client, text=SECRET, headers={})
        assert answer.status_code == 200
        [one] = await run.until(over(1))
        whole = await run.get(f"/requests/{one['id']}")
        stages = {row["stage"]: row for row in whole["stages"]}
        assert [row["stage"] for row in whole["stages"]] == ["request.intercept_before", "step", "request.normalize"]
        assert stages["request.intercept_before"] == {
            "stage": "request.intercept_before",
            "plugin": "tagger",
            "step": None,
            "chain": None,
            "side": "request",
            "calls": 1,
            "duration-us": stages["request.intercept_before"]["duration-us"],
            "outcome": "complete",
            "reason": "",
            "changed": 1,
            "changes": [
                "+ header x-team",
                f"body.messages[0].content: {len(SECRET)} -> 12 characters",
                "+ body.seed: 7",
            ],
        }
        broken = stages["request.normalize"]
        assert (broken["plugin"], broken["outcome"], broken["reason"]) == ("broken", "failed", "ValueError")
        assert SECRET not in json.dumps(whole)
        assert "another text" not in json.dumps(whole)
        assert "blue" not in json.dumps(whole)


async def test_chains_losses_and_skipped_steps_are_shown() -> None:
    async with view() as run, events(run):
        body = json.loads(CLAUDE.body(model="gpt"))
        body |= {"max_tokens": 999}
        body["messages"][0]["content"] = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
        assert (await run.client.post(CLAUDE.path, json=body)).status_code == 200
        [one] = await run.until(over(1))
        whole = await run.get(f"/requests/{one['id']}")
        rows = [(row["step"], row["chain"], row["side"], row["outcome"]) for row in whole["stages"]]
        assert rows == [
            ("strip-cache-control", "capped", "request", "complete"),
            ("plugin: ghost", "capped", "request", "skipped"),
            ("translate: native", "capped", "request", "complete"),
            ("cap-output-tokens: 50", "capped", "request", "complete"),
            ("translate: native", "capped", "response", "complete"),
        ]
        assert whole["stages"][0]["changes"] == ["- body.messages[0].content[0].cache_control"]
        assert whole["stages"][3]["changes"] == ["body.max_tokens: 999 -> 50"]
        assert whole["stages"][1]["reason"] == "the plugin is not there"
        assert whole["provider-format"] == "openai"
        assert (await run.client.post(CHAT.path, content=CHAT.body(model="claude", logit_bias={"1": 5}))).is_success
        found = await run.until(over(2))
        losses = (await run.get(f"/requests/{found[1]['id']}"))["losses"]
        assert [(loss["path"], loss["reason"].partition(":")[0]) for loss in losses] == [("logit_bias", "dropped")]
        assert found[1]["losses"] == 1


async def test_nothing_is_kept_while_nobody_watches() -> None:
    """Not a byte of a body; a look at a request makes the next ones worth keeping."""
    async with view(stages=STAGES) as run:
        await CHAT.post(run.client, headers={})
        [one] = await run.until(over(1))
        [kept] = run.app.state.live._ended
        assert (kept.trace.room, kept.trace.kept_bytes) == (None, 0)
        whole = await run.get(f"/requests/{one['id']}")
        assert whole["stages"][0]["changed"] == 1
        assert whole["stages"][0]["changes"] == []
        await CHAT.post(run.client, headers={})
        found = await run.until(over(2))
        assert (await run.get(f"/requests/{found[1]['id']}"))["stages"][0]["changes"]
        assert (await run.operator.get(f"{BASE}/requests/nobody")).status_code == 404


async def test_executions_that_a_plugin_starts_are_shown_as_such(tmp_path: Path) -> None:
    """Without a client's request around them, here: somebody has opened a page of the plugin."""
    path = "/v0/resource/plugins/asks/model"
    site = Site(id="asks", resources=[{"Path": "/model"}], pages={path: "@model"})
    build(tmp_path, site)
    plugins = f"\nplugins: {{enabled: true, dir: {tmp_path}, configs: {{asks: {{enabled: true}}}}}}"
    async with view(extra=EXTRA + plugins) as run:
        assert (await run.client.get(path)).status_code == 200
        [one] = await run.until(over(1))
        assert (one["nested"], one["state"], one["model"], one["protocol"]) == (True, "done", "gpt", "openai")
        assert one["output-tokens"] > 0
        overview = await run.get("/overview")
        assert overview["totals"]["requests"] == 0
        assert overview["totals"]["output-tokens"] == one["output-tokens"]
        assert overview["plugins"] == {"registered": 1, "failed": 0}


async def test_a_client_that_leaves_and_one_that_waits() -> None:
    async with view() as run, connect(run.proxy.url) as client:
        await client.send(post(CHAT.body(stream=True), headers=["x-mock-delay: 30"]))
        [running] = await run.until(lambda found: len(found) == 1)
        assert (running["state"], running["status"]) == ("running", None)
        assert (await run.get("/overview"))["running"] == 1
        assert (await run.get(f"/requests/{running['id']}"))["state"] == "running"
        await client.stream.aclose()
        [left] = await run.until(over(1))
        assert (left["state"], left["status"]) == ("aborted", 499)
        overview = await run.get("/overview")
        assert (overview["running"], overview["totals"]["requests"], overview["totals"]["errors"]) == (0, 1, 0)


async def test_the_overview_counts() -> None:
    async with view() as run:
        for _ in range(3):
            await CHAT.post(run.client, headers={})
        await run.client.post(CHAT.path, json={"model": "ghost", "messages": []})
        await run.until(over(4))
        told = await run.get("/overview?minutes=5")
        assert list(told) == [
            *("version", "uptime-s", "started-at", "running", "step-s", "points", "totals", "plugins", "credentials")
        ]
        assert told["step-s"] == 10
        assert sum(point["requests"] for point in told["points"]) == told["totals"]["requests"] == 4
        assert told["totals"]["errors"] == 1
        assert told["totals"]["output-tokens"] == sum(point["output-tokens"] for point in told["points"])
        assert told["totals"]["output-tokens"] > 0
        assert told["points"][0]["latency-p50-ms"] > 0
        assert told["credentials"] == {"ready": 4, "cooling": 0, "disabled": 0}
        assert told["plugins"] == {"registered": 0, "failed": 0}
        assert (await run.get("/overview?minutes=1440"))["step-s"] == 240
        for minutes in ("0", "1441", "x", "-5"):
            assert (await run.operator.get(f"{BASE}/overview?minutes={minutes}")).status_code == 400


async def test_routes_show_who_serves_what_and_hide_keys() -> None:
    async with view() as run:
        told = await run.get("/routes")
        models = {model["id"]: model for model in told["models"]}
        assert list(models) == sorted(models)
        [provider] = models["gpt"]["providers"]
        assert (provider["provider"], provider["format"], provider["model"]) == (
            *("openai-compatible-mock", "openai", "mock-gpt"),
        )
        [credential] = provider["credentials"]
        assert (credential["label"], credential["state"], credential["until"]) == ("mock", "ready", None)
        [chain] = told["chains"]
        assert (chain["name"], chain["from"], chain["to"]) == ("capped", "claude", "openai")
        assert chain["request"][0] == "strip-cache-control"
        assert chain["keys"][1] == "*"
        assert CLIENT_KEY not in json.dumps(told)


async def test_keys_are_needed_and_have_to_come_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async with view() as run:
        for path in PATHS[:4]:
            reply = await run.operator.get(BASE + path, headers={"authorization": "Bearer wrong"})
            assert (reply.status_code, reply.json()) == (401, {"error": "invalid management key"})
        monkeypatch.setattr(keys_module, "is_loopback", lambda address: False)
        for path in PATHS:
            reply = await run.operator.get(BASE + path)
            assert (reply.status_code, reply.json()) == (403, {"error": "remote management disabled"})


async def test_without_management_nothing_is_noted() -> None:
    async with view(extra="") as run:
        assert (await CHAT.post(run.client, headers={})).status_code == 200
        live = run.app.state.live
        assert not live.enabled
        assert not live.running
        assert not list(live._all())


async def test_readers_are_few_and_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_READERS", 1)
    async with view() as run:
        live = run.app.state.live
        async with events(run):
            assert len(live._readers) == 1
            assert (await run.operator.get(f"{BASE}/requests/stream")).status_code == 503
        while live.readers:
            await trio.lowlevel.checkpoint()
        async with events(run):
            assert [live.readers] == [1]


async def test_the_stream_ends_when_the_server_drains() -> None:
    """In order, at once: a panel that stays open does not hold up a restart."""
    async with view() as run, events(run) as told:
        run.app.drain()
        assert await told.next() == ("", None)
        await run.app.server.ended.wait()
