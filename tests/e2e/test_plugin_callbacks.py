"""Host calls of plugins in Go, from goroutines of their own, in a running proxy; and the example that is shipped."""

import html
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from cpa.abi import methods, wire
from cpa.abi.kinds import B64
from cpa.config.schema import Isolation
from cpa.formats.headers import HeaderMap
from cpa.host.plugin import PluginState
from cpa.testing.mock import open_mock
from tests.e2e.program import serving
from tests.e2e.wire import CHAT
from tests.native.build import NativeBuilder
from tests.native.hosting import BOTH, PluginFolder, ask_page, live, status, until
from tests.proxy import CLIENT_KEY, RunningProxy

FAIL_S = 120
ACTS = "nest nest-stream late wait storm"

Event = dict[str, Any]


@asynccontextmanager
async def taggers(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation, **acts: str
) -> AsyncIterator[tuple[RunningProxy, httpx.AsyncClient]]:
    """A proxy with one tagger per keyword, which acts on those words; the first has the highest priority."""
    folder = PluginFolder(tmp_path)
    for index, (plugin_id, words) in enumerate(acts.items()):
        folder.add(plugin_id, native.go("tagger"), marker=f"x_{plugin_id}", acts=words, priority=9 - index)
    with trio.fail_after(FAIL_S):
        async with folder.proxy(isolation) as proxy, proxy.client() as client:
            yield proxy, client


async def seen(proxy: RunningProxy, plugin_id: str, *only: str) -> list[Event]:
    """What a tagger wrote down, of these methods."""
    events: list[Event] = await ask_page(proxy, plugin_id) or []
    return [event for event in events if not only or event["method"] in only]


async def until_seen(proxy: RunningProxy, plugin_id: str, method: str, count: int = 1) -> list[Event]:
    """The events of that method, once there are *count*."""
    while len(events := await seen(proxy, plugin_id, method)) < count:
        pass
    return events


async def counts(proxy: RunningProxy, plugin_id: str) -> Counter[str]:
    """How often each method was called, once all of a request is over."""
    return Counter(event["method"] for event in await seen(proxy, plugin_id))


def says(answer: httpx.Response) -> str:
    """The text of a Chat answer."""
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


# ---- nested executions ----


@BOTH
async def test_a_nested_execution_meets_all_interceptors_but_its_callers(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """Before, after, in the answer and at the end; it says where it came from, and has an id of its own."""
    async with taggers(tmp_path, native, isolation, alice=ACTS, bob="") as (proxy, client):
        answer = await CHAT.post(client, headers={"X-Go": "nest"})
        assert answer.status_code == 200
        assert {"x_alice", "x_bob"} <= answer.json().keys()
        [nested] = await until_seen(proxy, "alice", "nested")
        inner = json.loads(nested["note"])
        assert inner["x_bob"] == 1
        assert "x_alice" not in inner
        await until_seen(proxy, "bob", "request.complete", 2)
        alice, bob = await counts(proxy, "alice"), await counts(proxy, "bob")
        for method in ("request.intercept_before", "request.intercept_after", "response.intercept_after"):
            assert (alice[method], bob[method]) == (1, 2), method
        await until_seen(proxy, "alice", "request.complete")
        assert (await counts(proxy, "alice"))["request.complete"] == 1
        before = await seen(proxy, "bob", "request.intercept_before")
        assert sorted(event.get("source", "") for event in before) == ["", "plugin_host_model_callback"]
        assert len({event["request_id"] for event in before}) == 2
        assert len({event["trace_id"] for event in before}) == 1
        # Interceptors mark requests once, normalizers, which nobody is spared, once more.
        bodies = [request.body for request in proxy.mock.requests]
        assert sorted((body.count(b'"x_alice":1'), body.count(b'"x_bob":1')) for body in bodies) == [(1, 2), (2, 2)]


@BOTH
async def test_a_nested_stream_meets_all_interceptors_but_its_callers(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """Units are bare objects without a terminal; the stream is over when it says so."""
    async with taggers(tmp_path, native, isolation, alice=ACTS, bob="") as (proxy, client):
        assert (await CHAT.post(client, headers={"X-Go": "nest-stream"})).status_code == 200
        [nested] = await until_seen(proxy, "alice", "nested stream")
        units = [json.loads(line) for line in nested["note"].splitlines() if line]
        assert len(units) >= 3
        assert all(unit["x_bob"] == 1 and "x_alice" not in unit for unit in units)
        assert await seen(proxy, "alice", "response.intercept_stream_chunk") == []
        chunks = await seen(proxy, "bob", "response.intercept_stream_chunk")
        assert [chunk["index"] for chunk in chunks] == list(range(-1, len(units)))
        assert [chunk.get("bodies", False) for chunk in chunks] == [True] + [False] * len(units)
        [closed] = await seen(proxy, "alice", "stream_close")
        assert closed["note"] == "{}"
        assert not len(proxy.app.plugins.services.model_streams)


@BOTH
async def test_plugins_that_nest_within_each_other_come_to_an_end(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """A asks, B asks while it handles that, and A is not asked again: the whole chain is skipped."""
    async with taggers(tmp_path, native, isolation, alice=ACTS, bob=ACTS) as (proxy, client):
        assert (await CHAT.post(client, headers={"X-Go": "nest"})).status_code == 200
        # alice(outer) → bob(nested) → nobody;  bob(outer) → alice(nested) → nobody.
        assert len(await until_seen(proxy, "alice", "nested", 2)) == 2
        assert len(await until_seen(proxy, "bob", "nested", 2)) == 2
        assert not [event for event in await seen(proxy, "alice", "nested") if "error" in event["note"]]
        assert proxy.mock.total_requests == 5


@BOTH
async def test_many_nested_executions_run_at_once(tmp_path: Path, native: NativeBuilder, isolation: Isolation) -> None:
    """More than any pool of threads has room for, while their callers wait inside calls."""
    async with taggers(tmp_path, native, isolation, alice=ACTS, bob="") as (proxy, client):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(lambda: CHAT.post(client, headers={"X-Go": "storm"}))
        nested = await seen(proxy, "alice", "nested")
        assert len(nested) == 96
        assert all(json.loads(event["note"])["x_bob"] == 1 for event in nested)
        assert proxy.mock.total_requests == 100


# ---- after the call ----


@BOTH
async def test_a_goroutine_outlives_its_call_but_not_its_scope(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """What the call opened is closed; what names its scope is refused or has no context; nothing blocks for ever."""
    async with taggers(tmp_path, native, isolation, alice=ACTS) as (proxy, client):
        assert (await CHAT.post(client, headers={"X-Go": "late", "X-Mock-Delay": "200"})).status_code == 200
        await until_seen(proxy, "alice", "late end")
        notes = {event["method"]: event.get("note", "") for event in await seen(proxy, "alice")}
        assert notes["opened"] == "true"
        assert notes["late read"] == "true" or "canceled" in notes["late read"]
        assert notes["late close"] == "{}"
        assert "unknown or has expired" in notes["late stream"]
        assert notes["late execute"] == "200"
        assert notes["late log"] == "{}"
        assert notes["late emit"] == "error: host_call_failed: stream 7 is not open"
        services = proxy.app.plugins.services
        assert not len(services.model_streams)
        await until(lambda: len(services.scopes) == 0)


@BOTH
async def test_a_plugin_that_waits_for_the_host_hears_of_a_client_that_left(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """As an error envelope, long before the provider would have answered, and without losing the plugin."""
    async with taggers(tmp_path, native, isolation, alice=ACTS) as (proxy, client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: CHAT.post(client, headers={"X-Go": "wait"}))
            await until_seen(proxy, "alice", "waits")
            await proxy.mock.wait_requests(1)
            left = trio.current_time()
            nursery.cancel_scope.cancel()
        [waited] = await until_seen(proxy, "alice", "waited")
        assert trio.current_time() - left < 2
        assert waited["note"].startswith("error: host_call_failed: canceled")
        assert live(proxy, "alice").generation == 1
        await until_seen(proxy, "alice", "request.complete")
        assert (await CHAT.post(client, headers={})).status_code == 200


# ---- many runtimes ----


@BOTH
async def test_many_go_runtimes_and_others_share_a_proxy(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """Six of Go, two of Rust and one of C in every stream and answer at once, each with a state of its own."""
    folder = PluginFolder(tmp_path)
    ids = [f"go{index}" for index in range(6)]
    for plugin_id in ids:
        folder.add(plugin_id, native.go("tagger"), marker=f"x_{plugin_id}")
    capabilities = "request_interceptor request_normalizer response_interceptor response_stream_interceptor"
    for plugin_id, library in (
        ("rust0", native.rust("rusty")),
        ("rust1", native.rust("rusty")),
        ("c0", native.c("marker")),
    ):
        folder.add(plugin_id, library, marker=f"x_{plugin_id}", capabilities=capabilities)
    marks = {f"x_{plugin_id}" for plugin_id in (*ids, "rust0", "rust1", "c0")}
    with trio.fail_after(FAIL_S):
        async with folder.proxy(isolation) as proxy, proxy.client() as client:

            async def talk(stream: bool) -> None:
                answer = await CHAT.post(client, stream=stream, headers={})
                assert answer.status_code == 200
                texts = re.findall(r"data: (\{.*\})", answer.text) if stream else [answer.text]
                assert texts
                for text in texts:
                    assert marks <= json.loads(text).keys()

            async with trio.open_nursery() as nursery:
                for index in range(24):
                    nursery.start_soon(talk, index % 2 == 0)
            for request in proxy.mock.requests:
                assert marks <= json.loads(request.body).keys()
            for plugin_id in ids:
                await until_seen(proxy, plugin_id, "request.complete", 24)
                assert (await counts(proxy, plugin_id))["request.intercept_before"] == 24
        # Every tagger prints in its C shutdown; that the proxy has ended says that all of them returned from it.


# ---- the shipped example ----


@attrs.frozen
class Page:
    """The page of host-model-callback, taken apart."""

    status: int
    text: str

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Names and values of the list."""
        return [
            (html.unescape(name), html.unescape(value))
            for name, value in re.findall(r"<dt>(.*?)</dt><dd><code>(.*?)</code></dd>", self.text, re.DOTALL)
        ]

    @property
    def sections(self) -> dict[str, str]:
        """Headings and texts."""
        return {
            name: html.unescape(text)
            for name, text in re.findall(r"<h2>(.*?)</h2><pre[^>]*>(.*?)</pre>", self.text, re.DOTALL)
        }


STATUS = "/v0/resource/plugins/host-model-callback/status"


@attrs.frozen
class Example:
    """The example in a running proxy, beside a tagger that is called bob."""

    proxy: RunningProxy

    async def call(self, query: Mapping[str, str] | None = None, body: bytes = b"") -> Page:
        """Its handler without the HTTP surface, in a scope as the surface opens one."""
        asked: HeaderMap = {name: [value] for name, value in (query or {}).items()}
        plugin = live(self.proxy, "host-model-callback")
        async with self.proxy.app.plugins.services.scopes.open(plugin.id) as scope:
            reply = await plugin.call(
                methods.MANAGEMENT_HANDLE,
                wire.ManagementRequest(method="GET", path=STATUS, query=asked, body=B64(body)),
                scope_id=scope.id,
            )
        return Page(reply.status_code, reply.body.decode())


@asynccontextmanager
async def example(tmp_path: Path, native: NativeBuilder, isolation: Isolation) -> AsyncIterator[Example]:
    """Under its own name, as its README says."""
    folder = PluginFolder(tmp_path)
    folder.add("host-model-callback", native.callback_example(), priority=1)
    folder.add("bob", native.go("tagger"), marker="x_bob")
    with trio.fail_after(FAIL_S):
        async with folder.proxy(isolation) as proxy:
            yield Example(proxy)


@BOTH
async def test_the_example_runs_a_model_and_shows_the_answer(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """With its defaults except the model: those name one that this proxy does not route."""
    async with example(tmp_path, native, isolation) as page:
        shown = await page.call({"model": "gpt"})
        assert shown.status == 200
        assert "<title>Host Model Callback</title>" in shown.text
        assert "<h1>Host Model Callback</h1>" in shown.text
        assert shown.rows == [
            ("model", "gpt"),
            ("mode", "non-stream"),
            ("entry_protocol", "openai"),
            ("exit_protocol", "openai"),
            ("stream", "false"),
            ("implicit_close", "false"),
            ("status", "200"),
        ]
        assert {"Body"} <= shown.sections.keys() <= {"Body", "Headers"}
        assert json.loads(shown.sections["Body"])["x_bob"] == 1
        assert shown.sections["Body"].startswith('{\n  "')
        body = json.loads(page.proxy.mock.requests[-1].body)
        assert body["stream"] is False
        [message] = body["messages"]
        assert message == {"role": "user", "content": "Summarize host model callbacks in one short sentence."}


@BOTH
@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
async def test_the_example_streams_and_closes_or_leaves_that_to_the_host(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation, implicit: bool
) -> None:
    """Either way nothing stays open."""
    async with example(tmp_path, native, isolation) as page:
        shown = await page.call({"model": "gpt", "mode": "Streaming", "implicit_close": "T" if implicit else "0"})
        closing = (
            "implicit close at management.handle return"
            if implicit
            else "explicit close through host.model.stream_close"
        )
        assert shown.rows[1] == ("mode", "stream")
        assert shown.rows[4:] == [
            ("stream", "true"),
            ("implicit_close", "true" if implicit else "false"),
            ("close", closing),
            ("status", "200"),
        ]
        assert {"Stream Chunks"} <= shown.sections.keys() <= {"Stream Chunks", "Headers"}
        assert shown.sections["Stream Chunks"].count('"x_bob":1') >= 3
        assert "data:" not in shown.sections["Stream Chunks"]
        assert not len(page.proxy.app.plugins.services.model_streams)
        await until(lambda: len(page.proxy.app.plugins.services.scopes) == 0)  # those of completion events


async def test_the_parameters_of_the_example(tmp_path: Path, native: NativeBuilder) -> None:
    """Query and JSON body, their order, Go's booleans, and what makes no sense."""
    async with example(tmp_path, native, Isolation.PROCESS) as page:
        for query, row in (
            ({"model": "gpt", "mode": "stream", "stream": "false"}, ("stream", "false")),
            ({"model": "gpt", "mode": "sync", "stream": "TRUE"}, ("stream", "true")),
            ({"model": "gpt", "mode": "nonsense"}, ("mode", "non-stream")),
        ):
            assert row in (await page.call(query)).rows, query
        for query, text in (
            ({"stream": "yes"}, "stream must be a boolean: "),
            ({"implicit_close": "2"}, "implicit_close must be a boolean: "),
            ({"body": "{"}, "query body must be valid JSON"),
        ):
            refused = await page.call(query)
            assert (refused.status, refused.text.startswith(text)) == (400, True), query
        own = {"model": "gpt", "messages": [{"role": "user", "content": "<b>own</b>"}]}
        await page.call({"model": "gpt", "body": json.dumps(own), "prompt": "not used"})
        assert json.loads(page.proxy.mock.requests[-1].body)["messages"] == own["messages"]
        claude = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        members = {"model": "claude", "entry_protocol": "claude", "exit_protocol": "claude", "body": claude}
        shown = await page.call({"exit_protocol": "claude"}, json.dumps(members).encode())
        assert shown.rows[2:4] == [("entry_protocol", "claude"), ("exit_protocol", "claude")]
        assert json.loads(shown.sections["Body"])["type"] == "message"


async def test_the_example_shows_errors(tmp_path: Path, native: NativeBuilder) -> None:
    """Of the host and of providers, whole and streamed, without letting them write HTML."""
    async with example(tmp_path, native, Isolation.PROCESS) as page:
        for query in ({}, {"stream": "1"}):
            shown = await page.call(query)
            assert shown.status == 200
            assert shown.rows[-1] == ("status", "0")
            assert shown.sections["Error"].startswith("host_call_failed: ")
            assert "gpt-5.5" in shown.sections["Error"]
        shown = await page.call({"model": "<script>", "stream": "1"})
        assert "<script>" not in shown.text
        assert shown.rows[0] == ("model", "<script>")
        shown = await page.call({"entry_protocol": "morse"})
        assert "unknown entry_protocol 'morse'" in shown.sections["Error"]


BROWSER = {"accept": "text/html", "sec-fetch-mode": "navigate"}


@BOTH
async def test_the_example_works_in_a_browser(tmp_path: Path, native: NativeBuilder, isolation: Isolation) -> None:
    """Without any key, at the address of its README."""
    async with example(tmp_path, native, isolation) as page, page.proxy.client(key=None, headers=BROWSER) as browser:
        answer = await browser.get(STATUS, params={"model": "gpt", "prompt": "hello <there>"})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        shown = Page(answer.status_code, answer.text)
        assert shown.rows[-1] == ("status", "200")
        assert json.loads(shown.sections["Body"])["x_bob"] == 1
        answer = await browser.get(STATUS, params={"model": "gpt", "stream": "true", "implicit_close": "true"})
        shown = Page(answer.status_code, answer.text)
        assert shown.sections["Stream Chunks"].count('"x_bob":1') >= 3
        assert (await browser.get(STATUS, params={"stream": "perhaps"})).status_code == 400
        assert (await browser.post(STATUS)).status_code == 404
        answer = await browser.get("/v0/resource/plugins/bob/seen")
        assert answer.headers["content-type"] == "application/json"
        before = [event for event in answer.json() if event["method"] == "request.intercept_before"]
        assert {event["source"] for event in before} == {"plugin_host_model_callback"}


async def test_a_nested_execution_is_accounted_for_once(tmp_path: Path, native: NativeBuilder) -> None:
    """The page's model call makes one usage record, not one for itself and one for the model."""
    async with example(tmp_path, native, Isolation.PROCESS) as page:
        await page.call({"model": "gpt"})
        [usage] = await until_seen(page.proxy, "bob", "usage.handle")
        assert usage["note"].startswith("openai-compatibility") or "mock-gpt" in usage["note"]
        assert usage["note"].endswith("failed=false")
        # Another one after it: had the first call made two records, three would be here now.
        await page.call({"model": "gpt"})
        assert len(await until_seen(page.proxy, "bob", "usage.handle", 2)) == 2


# ---- an executor ----


@asynccontextmanager
async def executor(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation, **settings: str
) -> AsyncIterator[tuple[RunningProxy, httpx.AsyncClient]]:
    """Executors in Go (asynchronous, with *settings*) and Rust (inline chunks), which each route a model to itself."""
    folder = PluginFolder(tmp_path)
    folder.add("async", native.go("asyncexec"), provider="acme", route="acme-routed", **settings)
    folder.add("rusty", native.rust("rusty"), provider="rust-routed", capabilities="executor model_router")
    folder.add("bob", native.go("tagger"), marker="x_bob", priority=5)
    with trio.fail_after(FAIL_S):
        async with folder.proxy(isolation) as proxy, proxy.client() as client:
            yield proxy, client


def chat_body(model: str, *, stream: bool = False) -> dict[str, object]:
    """A request to a model of the executors."""
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}


def deltas(answer: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a streamed Chat answer."""
    return [json.loads(text) for text in re.findall(r"data: (\{.*\})", answer.text)]


@BOTH
async def test_executors_answer_whole_and_in_streams(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """Without a credential; interceptors see their answers like any others."""
    async with executor(tmp_path, native, isolation) as (proxy, client):
        for model, text in (("acme-routed", "async"), ("rust-routed", "rust")):
            answer = await client.post(CHAT.path, json=chat_body(model))
            assert answer.status_code == 200, answer.text
            assert says(answer) == text
            assert answer.json()["x_bob"] == 1
        assert proxy.mock.total_requests == 0
        answer = await client.post(CHAT.path, json=chat_body("acme-routed", stream=True))
        chunks = deltas(answer)
        said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert said == "".join(f"{index} " for index in range(39))
        assert all(chunk["x_bob"] == 1 for chunk in chunks)
        assert answer.text.endswith("data: [DONE]\n\n")
        answer = await client.post(CHAT.path, json=chat_body("rust-routed", stream=True))
        assert [chunk["choices"][0]["delta"].get("content") for chunk in deltas(answer)] == ["", "rust", None]


@BOTH
async def test_many_asynchronous_streams_at_once(tmp_path: Path, native: NativeBuilder, isolation: Isolation) -> None:
    """Goroutines fill them after their calls have returned; each gets its own chunks in order; nothing is left."""
    async with executor(tmp_path, native, isolation) as (proxy, client):

        async def one(chunks: int) -> None:
            answer = await client.post(
                CHAT.path, json=chat_body("acme-routed", stream=True), headers={"X-Chunks": str(chunks)}
            )
            said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in deltas(answer))
            assert said == "".join(f"{index} " for index in range(chunks - 1))

        async with trio.open_nursery() as nursery:
            for index in range(40):
                nursery.start_soon(one, 20 + index)
        assert await ask_page(proxy, "async", "/state") == {"running": 0, "refused": 0}
        services = proxy.app.plugins.services
        assert not len(services.executor_streams)
        await until(lambda: len(services.scopes) == 0)


@BOTH
async def test_an_asynchronous_stream_that_fails_says_so(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """In the stream when it has begun, else with a status."""
    async with executor(tmp_path, native, isolation) as (_, client):
        ask = chat_body("acme-routed", stream=True)
        answer = await client.post(CHAT.path, json=ask, headers={"X-Chunks": "30", "X-Fail": "20"})
        assert answer.status_code == 200
        assert "backend vanished" in answer.text
        assert "[DONE]" not in answer.text
        answer = await client.post(CHAT.path, json=ask, headers={"X-Fail": "0"})
        assert answer.status_code == 500
        assert "backend vanished" in answer.text


@BOTH
async def test_a_client_that_leaves_wakes_the_goroutine_that_emits(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """Its emit fails, so that it stops: a million chunks for nobody would be a leak."""
    async with executor(tmp_path, native, isolation) as (proxy, client):
        ask = chat_body("acme-routed", stream=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.post(CHAT.path, json=ask, headers={"X-Chunks": "1000000"}))
            while not (await ask_page(proxy, "async", "/state"))["running"]:
                pass
            nursery.cancel_scope.cancel()
        while (state := await ask_page(proxy, "async", "/state"))["running"]:
            pass
        assert state == {"running": 0, "refused": 1}
        assert not len(proxy.app.plugins.services.executor_streams)


async def test_an_executor_whose_process_is_killed_ends_its_streams(tmp_path: Path, native: NativeBuilder) -> None:
    """With an error in the stream and not in silence; streams of others go on; the plugin comes back and works."""
    async with executor(tmp_path, native, Isolation.PROCESS) as (proxy, client):
        broken: list[str] = []
        whole: list[str] = []

        async def endless() -> None:
            ask = chat_body("acme-routed", stream=True)
            answer = await client.post(CHAT.path, json=ask, headers={"X-Chunks": "1000000"})
            broken.append(answer.text)

        async def other() -> None:
            whole.append((await CHAT.post(client, stream=True, headers={"X-Mock-Delay": "200"})).text)

        pid = status(proxy, "async").pid
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(endless)
                nursery.start_soon(other)
            await proxy.mock.wait_requests(3)
            while (await ask_page(proxy, "async", "/state"))["running"] < 3:
                pass
            os.kill(pid, signal.SIGKILL)
        assert len(broken) == len(whole) == 3
        for text in broken:
            assert "[DONE]" not in text
            assert "error" in text[-500:]
        assert all(text.endswith("data: [DONE]\n\n") for text in whole)
        await until(lambda: status(proxy, "async").state is PluginState.REGISTERED)
        assert says(await client.post(CHAT.path, json=chat_body("acme-routed"))) == "async"
        services = proxy.app.plugins.services
        assert not len(services.executor_streams)
        await until(lambda: len(services.scopes) == 0)


async def test_an_executor_counts_tokens_in_the_clients_format(tmp_path: Path, native: NativeBuilder) -> None:
    """An executor that speaks Messages, asked by a client that does."""
    async with executor(tmp_path, native, Isolation.PROCESS, input="claude", output="anthropic") as (_, client):
        body = {"model": "acme-routed", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        answer = await client.post("/v1/messages/count_tokens", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["input_tokens"] > 40
        answer = await client.post("/v1/messages", json=body)
        assert answer.json()["content"] == [{"type": "text", "text": "async"}]


async def test_a_model_of_an_executor_is_listed_and_served(tmp_path: Path, native: NativeBuilder) -> None:
    """Without a router and without a credential: the plugin is not a credential provider, so it needs none."""
    async with executor(tmp_path, native, Isolation.PROCESS, model="acme-1") as (_, client):
        listed = await client.get("/v1/models")
        assert "acme-1" in {model["id"] for model in listed.json()["data"]}
        answer = await client.post(CHAT.path, json=chat_body("acme-1"))
        assert answer.status_code == 200, answer.text
        assert says(answer) == "async"
        assert answer.json()["x_bob"] == 1


@BOTH
async def test_the_program_serves_and_ends_with_go_runtimes_in_it(
    tmp_path: Path, native: NativeBuilder, isolation: Isolation
) -> None:
    """Go takes over signals of its process; SIGTERM still drains the proxy, broken pipes still do not end it."""
    folder = PluginFolder(tmp_path)
    for index in range(5):
        folder.add(f"go{index}", native.go("tagger"), marker=f"x_go{index}")
    config = tmp_path / "config.yaml"
    async with open_mock() as mock:
        config.write_text(
            f"port: 0\napi-keys: [{CLIENT_KEY}]\nauth-dir: {tmp_path}\nproxy-url: direct\n"
            f"openai-compatibility:\n  - name: mock\n    base-url: {mock.url}/v1\n"
            f"    api-key-entries: [{{api-key: any}}]\n"
            f"    models: [{{name: mock-gpt, alias: gpt}}, {{name: mock-chunks-99-delay-50, alias: slow}}]\n"
            + folder.yaml(isolation)
        )
        async with (
            serving("serve", "--config", str(config)) as program,
            httpx.AsyncClient(base_url=program.url, trust_env=False) as client,
        ):
            key = {"authorization": f"Bearer {CLIENT_KEY}"}
            for _ in range(3):
                with trio.move_on_after(0.2):  # leaves in the middle of a stream
                    await client.post(CHAT.path, json=chat_body("slow", stream=True), headers=key)
                answer = await client.post(CHAT.path, json=chat_body("gpt"), headers=key)
                assert {f"x_go{index}" for index in range(5)} <= answer.json().keys()
            with trio.fail_after(10):
                assert await program.stop() == 0
