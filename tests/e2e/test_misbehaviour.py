"""Plugins that do everything wrong, in a running proxy: each costs its own calls, and nothing else."""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from cpa.config.schema import Isolation
from cpa.host.plugin import PluginState
from cpa.testing.mock import MockProvider, open_mock
from tests.e2e.program import serving
from tests.e2e.wire import CHAT
from tests.native.build import NativeBuilder
from tests.native.hosting import (
    BOTH,
    PluginFolder,
    live,
    nothing_left,
    status,
    until,
    until_state,
)
from tests.proxy import CLIENT_KEY, RunningProxy

FAIL_S = 120
MARK = "x_good"
"""The member that the plugin which works puts into every object."""


@pytest.fixture
def folder(tmp_path: Path, native: NativeBuilder) -> PluginFolder:
    """With one plugin that works."""
    made = PluginFolder(tmp_path)
    words = "request_interceptor response_interceptor response_stream_interceptor"
    made.add("good", native.c("marker"), marker=MARK, capabilities=words)
    return made


@pytest.fixture
async def mock() -> AsyncIterator[MockProvider]:
    """A provider for programs of their own."""
    async with open_mock() as provider:
        yield provider


@pytest.fixture
def reasons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why plugins were started again or given up, as the log says it: states pass too quickly to be seen for sure."""
    noted: list[str] = []

    def note(event: str, *, reason: str = "", **fields: object) -> None:
        noted.append(reason)

    monkeypatch.setattr("cpa.host.slot.log.warning", note, raising=False)
    monkeypatch.setattr("cpa.host.slot.log.error", note, raising=False)
    return noted


@asynccontextmanager
async def proxy_with_bad(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation, **settings: object
) -> AsyncIterator[tuple[RunningProxy, httpx.AsyncClient]]:
    """A proxy with the good plugin and a bad one, whose settings these are."""
    folder.add("bad", native.c("misbehave"), priority=5, **settings)
    with trio.fail_after(FAIL_S):
        async with folder.proxy(isolation) as proxy, proxy.client() as client:
            yield proxy, client


async def ask(client: httpx.AsyncClient, *, stream: bool = False, **headers: str) -> httpx.Response:
    """A request whose headers tell the bad plugin what to do; the good one has to be seen in the answer."""
    answer = await CHAT.post(client, stream=stream, headers={name.replace("_", "-"): v for name, v in headers.items()})
    assert answer.status_code == 200, answer.text
    if stream:
        assert CHAT.terminal in answer.content
        events = answer.text.split("\n\n")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
        assert len(chunks) >= 3
    else:
        chunks = [json.loads(answer.content)]
    assert all(chunk[MARK] == 1 for chunk in chunks)
    return answer


# ---- crashes: only a process of its own can contain them ----

CRASHES = [
    ("segv", "signal 11 (SIGSEGV)"),
    ("segv-thread", "signal 11 (SIGSEGV)"),
    ("overflow", "signal 11 (SIGSEGV)"),
    ("abort", "signal 6 (SIGABRT)"),
    ("exit", "exited with status 3"),
    ("exit-0-thread", "exited with status 0"),
    ("exit-group", "exited with status 7"),
    ("stop-kill", "signal 9 (SIGKILL)"),
    ("alarm", "signal 14 (SIGALRM)"),
    ("unreadable", "unreadable"),
    ("close-all", "exited with status 70"),
    ("free-twice", "signal 6 (SIGABRT)"),
]


@pytest.mark.parametrize(("word", "reason"), CRASHES, ids=[word for word, _ in CRASHES])
async def test_a_crash_costs_only_the_calls_of_its_plugin(
    folder: PluginFolder, native: NativeBuilder, reasons: list[str], word: str, reason: str
) -> None:
    """The request passes it over, the reason is told, and the plugin is back in another process."""
    async with nothing_left(), proxy_with_bad(folder, native, Isolation.PROCESS) as (proxy, client):
        pid = status(proxy, "bad").pid
        assert (await ask(client)).headers["x-alive"] == str(pid)
        await ask(client, x_do=word)
        await until(lambda: bool(reasons))
        assert reason in reasons[0] or word == "unreadable"
        back = await until_state(proxy, "bad", PluginState.REGISTERED)
        assert (back.reason, back.generation) == ("", 2)
        assert back.pid != pid
        assert (await ask(client)).headers["x-alive"] == str(back.pid)
        assert status(proxy, "good").generation == 1


@pytest.mark.parametrize("stage", ["x_do_response", "x_do_chunk"])
async def test_a_crash_in_an_answer_leaves_the_answer_whole(
    folder: PluginFolder, native: NativeBuilder, stage: str
) -> None:
    """In the middle of a stream too."""
    async with proxy_with_bad(folder, native, Isolation.PROCESS) as (proxy, client):
        await ask(client, stream=stage == "x_do_chunk", **{stage: "segv"})
        await until(lambda: status(proxy, "bad").generation > 1)


async def test_a_plugin_that_crashes_over_and_over_is_fused_and_can_be_armed_again(
    folder: PluginFolder, native: NativeBuilder
) -> None:
    """It does not cost restarts for ever, and its state says why."""
    async with proxy_with_bad(folder, native, Isolation.PROCESS) as (proxy, client):
        while status(proxy, "bad").state is not PluginState.FUSED:
            await until(lambda: status(proxy, "bad").state in (PluginState.REGISTERED, PluginState.FUSED))
            await ask(client, x_do="segv")
        fused = status(proxy, "bad")
        assert (fused.pid, fused.generation) == (0, 0)
        assert fused.reason.startswith("crashed 5 times within 60 s")
        assert "SIGSEGV" in fused.reason
        assert "x-alive" not in (await ask(client, x_do="segv")).headers
        assert proxy.app.plugins.manager.rearm("bad")
        armed = await until_state(proxy, "bad", PluginState.REGISTERED)
        assert (await ask(client)).headers["x-alive"] == str(armed.pid)


async def test_crashes_after_the_answer_are_nobodys_but_the_plugins(
    folder: PluginFolder, native: NativeBuilder
) -> None:
    """`request.complete` runs when the client has gone."""
    async with proxy_with_bad(folder, native, Isolation.PROCESS, complete="abort") as (proxy, client):
        for _ in range(3):
            await ask(client)
        await until(lambda: status(proxy, "bad").generation > 1)
        await ask(client)


# ---- replies ----

REFUSED = (
    "garbage",
    "page",
    "trailing",
    "null",
    "array",
    "number",
    "ok-text",
    "not-ok",
    "result-text",
    "header-text",
    "body-number",
    "body-base64",
    "surrogate",
    "error",
    "huge",
    "longer",
    "shorter",
    "zero",
    "longest",
    "no-pointer",
    "silent",
    "rc",
    "deep",
)
"""Replies of which nothing is used; those that end a request come below."""


@BOTH
@pytest.mark.parametrize("stage", ["x_do", "x_do_response", "x_do_chunk"])
async def test_no_reply_harms_more_than_its_own_call(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation, stage: str
) -> None:
    """Garbage, wrong types, wrong lengths, a gigabyte, two hundred thousand brackets: as if it had said nothing."""
    async with proxy_with_bad(folder, native, isolation) as (proxy, client):
        pid = str(status(proxy, "bad").pid)
        for word in (*REFUSED, "bool-text", "integer-float"):
            stream = stage == "x_do_chunk"
            answer = await ask(client, stream=stream, **{stage: word})
            assert ("x-alive" in answer.headers) == (stage == "x_do"), word
            assert "x-evil" not in answer.headers
            assert "x-split" not in answer.headers
        assert (await ask(client)).headers["x-alive"] == pid
        assert status(proxy, "bad").generation == 1


@BOTH
async def test_an_answer_of_a_plugin_cannot_break_the_protocol(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """Line breaks in headers, impossible names, a length and a framing that are not true, an impossible status."""
    async with proxy_with_bad(folder, native, isolation) as (_, client):
        answer = await CHAT.post(client, headers={"X-Do": "split"})
        assert (answer.status_code, answer.content) == (403, b"no")
        assert answer.headers["x-fine"] == "1"
        assert "x-evil" not in answer.headers
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["content-length"] == "2"
        assert "\n" not in "".join(answer.headers.values())
        answer = await CHAT.post(client, headers={"X-Do": "status"})
        assert (answer.status_code, answer.content) == (403, b"")
        await ask(client)


# ---- hanging ----


@BOTH
async def test_a_plugin_that_hangs_costs_a_request_its_deadline_and_others_nothing(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """And the end of the proxy no more than its grace period."""
    async with proxy_with_bad(folder, native, isolation, timeout=0.6) as (proxy, client):
        began = trio.current_time()
        ended: list[float] = []

        async def hang() -> None:
            answer = await ask(client, x_do="hang")
            assert answer.headers["x-alive"] == str(status(proxy, "bad").pid)
            ended.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            # The plugin itself answers others meanwhile: one call hangs, not the plugin.
            for _ in range(5):
                assert "x-alive" in (await ask(client)).headers
            assert not ended
        assert 0.6 <= ended[0] < 5
        leaving = trio.current_time()
    assert trio.current_time() - leaving < 8


@pytest.mark.parametrize("word", ["spin", "stop-self"])
async def test_a_plugin_that_cannot_even_be_stopped_costs_its_deadline(
    folder: PluginFolder, native: NativeBuilder, word: str
) -> None:
    """One that burns a processor, and one that has stopped its own process."""
    async with nothing_left(), proxy_with_bad(folder, native, Isolation.PROCESS, timeout=0.2) as (_, client):
        began = trio.current_time()
        await ask(client, x_do=word)
        assert 0.2 <= trio.current_time() - began < 5
        leaving = trio.current_time()
    assert trio.current_time() - leaving < 8


@BOTH
async def test_a_client_need_not_wait_for_a_plugin_that_hangs(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """Whoever leaves has left, although the plugin's call has no end and its deadline is far away."""
    async with proxy_with_bad(folder, native, isolation) as (proxy, client):
        with trio.move_on_after(0.3) as left:
            await ask(client, x_do="hang")
        assert left.cancelled_caught
        await until(lambda: len(proxy.app.plugins.services.scopes) == 0)
        await ask(client)


@BOTH
@pytest.mark.parametrize("word", ["hang", "storm", "storm-for-ever"])
async def test_a_plugin_cannot_prolong_the_end_of_the_proxy(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation, word: str
) -> None:
    """shutdown() that never returns, or calls the host from all sides."""
    async with proxy_with_bad(folder, native, isolation, shutdown=word) as (_, client):
        await ask(client)
        leaving = trio.current_time()
    assert trio.current_time() - leaving < 8


@pytest.mark.parametrize("word", ["segv", "exit", "stop-kill", "close-all"])
async def test_a_plugin_that_dies_in_shutdown_has_ended(folder: PluginFolder, native: NativeBuilder, word: str) -> None:
    """However it does so."""
    async with nothing_left(), proxy_with_bad(folder, native, Isolation.PROCESS, shutdown=word) as (_, client):
        await ask(client)
        leaving = trio.current_time()
    assert trio.current_time() - leaving < 8


# ---- host calls ----


def numbers(answer: httpx.Response) -> tuple[int, int]:
    """Host calls of the plugin's own threads that were answered, and that were refused."""
    return int(answer.headers["x-answered"]), int(answer.headers["x-refused"])


@BOTH
async def test_storms_of_host_calls_are_answered(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """From eight threads of the plugin, inside a call; others are served meanwhile."""
    async with proxy_with_bad(folder, native, isolation) as (_, client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ask(client, x_do="storm"))
            for _ in range(3):
                await ask(client)
        assert numbers(await CHAT.post(client, headers={"X-Do": "count"})) == (1600, 0)


@BOTH
async def test_a_storm_without_end_leaves_room_for_others(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """Threads that call the host for ever, in a plugin that was told to stop by nobody."""
    async with proxy_with_bad(folder, native, isolation) as (_, client):
        await ask(client, x_do="storm-for-ever")
        for stream in (False, True) * 3:
            await ask(client, stream=stream)
        answered, refused = numbers(await CHAT.post(client, headers={"X-Do": "count"}))
        assert answered > 0
        assert refused == 0
        leaving = trio.current_time()
    assert trio.current_time() - leaving < 8


@BOTH
async def test_host_calls_after_the_return_find_an_ended_scope(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """All are answered, with garbage or a foreign stream in them as well; nothing is opened."""
    async with proxy_with_bad(folder, native, isolation) as (proxy, client):
        for _ in range(4):
            await ask(client, x_do="late")
        answered = 0
        while answered < 24:
            answer = await CHAT.post(client, headers={"X-Do": "count"})
            answered, refused = numbers(answer)
            assert refused == 0
        services = proxy.app.plugins.services
        assert not len(services.model_streams)
        await until(lambda: len(services.scopes) == 0)
        await ask(client)


# ---- the process ----


@pytest.mark.parametrize("word", ["signals", "chdir", "close-output", "environment", "no-files"])
async def test_what_a_plugin_does_to_its_process_is_its_own_affair(
    folder: PluginFolder, native: NativeBuilder, word: str
) -> None:
    """Signals, directory, output, environment, limits: it goes on, and ends in order like the others."""
    async with nothing_left(), proxy_with_bad(folder, native, Isolation.PROCESS) as (proxy, client):
        here, variables = os.getcwd(), dict(os.environ)
        pid = status(proxy, "bad").pid
        await ask(client, x_do=word)
        os.kill(pid, signal.SIGTERM)  # as a terminal or supervisor does to the whole group
        await ask(client, x_do="print")
        assert (await ask(client)).headers["x-alive"] == str(pid)
        if word == "chdir":
            where = await CHAT.post(client, headers={"X-Do": "where"})
            assert where.headers["x-where"] == "/"
        assert os.getcwd() == here
        assert dict(os.environ) == variables
        leaving = trio.current_time()
    assert trio.current_time() - leaving < 5


async def test_a_plugin_inside_the_proxy_may_change_its_directory(
    folder: PluginFolder, native: NativeBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is the proxy's then, which depends on no relative path once it runs."""
    mask = os.umask(0o022)
    monkeypatch.chdir(tmp_path)  # brings the old one back
    try:
        async with proxy_with_bad(folder, native, Isolation.INLINE) as (_, client):
            await ask(client, x_do="chdir")
            assert os.getcwd() == "/"
            for stream in (False, True):
                await ask(client, stream=stream)
    finally:
        os.umask(mask)


async def test_a_plugin_inside_the_proxy_may_close_its_output(
    tmp_path: Path, folder: PluginFolder, native: NativeBuilder, mock: MockProvider
) -> None:
    """The proxy loses its log, not its clients; it still ends when it is told to."""
    folder.add("bad", native.c("misbehave"))
    config = tmp_path / "config.yaml"
    config.write_text(
        f"port: 0\napi-keys: [{CLIENT_KEY}]\nauth-dir: {tmp_path}\nproxy-url: direct\n"
        f"openai-compatibility:\n  - name: mock\n    base-url: {mock.url}/v1\n    api-key-entries: [{{api-key: any}}]\n"
        f"    models: [{{name: mock-gpt, alias: gpt}}]\n" + folder.yaml(Isolation.INLINE)
    )
    async with (
        serving("serve", "--config", str(config)) as program,
        httpx.AsyncClient(base_url=program.url, trust_env=False) as client,
    ):
        key = {"authorization": f"Bearer {CLIENT_KEY}"}
        for word in ("close-output", "print", ""):
            body = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}
            answer = await client.post(CHAT.path, json=body, headers={**key, "X-Do": word})
            assert answer.status_code == 200
            assert answer.headers["x-alive"]
        assert await program.stop() == 0


# ---- the start ----

UNUSABLE: list[tuple[str, str]] = [
    ("-DRETURNS", "returned 5"),
    ("-DABI", "ABI version 2 is not supported"),
    ("-DNO_CALL", "function table is incomplete"),
    ("-DNO_FREE", "function table is incomplete"),
    ("-DNO_ENTRY", "missing cliproxy_plugin_init"),
]
DYING: list[tuple[str, str]] = [("-DCRASHES", "SIGSEGV"), ("-DEXITS", "exited with status 4")]


@BOTH
async def test_what_cannot_be_loaded_is_named_and_left_out(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """Each with its reason, in its own words; the rest of the folder works."""
    expected: dict[str, str] = {}
    for flag, reason in UNUSABLE + (DYING if isolation is Isolation.PROCESS else []):
        plugin_id = flag.removeprefix("-D").lower()
        folder.add(plugin_id, native.c("refused", flag))
        expected[plugin_id] = reason
    whole = native.c("marker").read_bytes()
    for plugin_id, content in (("empty", b""), ("text", b"#!/bin/sh\n"), ("cut", whole[: len(whole) // 2])):
        library = folder.path / f"{plugin_id}.bin"
        library.write_bytes(content)
        folder.add(plugin_id, library)
        expected[plugin_id] = plugin_id
    with trio.fail_after(FAIL_S):
        async with nothing_left_of(isolation), folder.proxy(isolation) as proxy, proxy.client() as client:
            for plugin_id, reason in expected.items():
                # It may just be tried once more, and say that for a moment.
                while reason not in (seen := status(proxy, plugin_id)).reason:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.01)
                assert seen.state in (PluginState.FAILED, PluginState.RESTARTING, PluginState.FUSED), plugin_id
                assert (seen.pid, seen.generation) == (0, 0)
            await ask(client)
            for plugin_id in ("crashes", "exits") if isolation is Isolation.PROCESS else ():
                fused = await until_state(proxy, plugin_id, PluginState.FUSED)
                assert expected[plugin_id] in fused.reason
            await ask(client)


@asynccontextmanager
async def nothing_left_of(isolation: Isolation) -> AsyncIterator[None]:
    """What inline plugins leave in memory is not looked for."""
    if isolation is Isolation.INLINE:
        yield
        return
    async with nothing_left():
        yield


REGISTRATIONS = ("garbage", "null", "not-ok", "result-text", "huge", "longer", "longest", "silent", "deep", "number")


@BOTH
async def test_a_registration_that_makes_no_sense_is_a_failed_plugin(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """All at once in one folder."""
    for word in REGISTRATIONS:
        folder.add(word, native.c("misbehave"), register=word)
    with trio.fail_after(FAIL_S):
        async with folder.proxy(isolation) as proxy, proxy.client() as client:
            for word in REGISTRATIONS:
                seen = status(proxy, word)
                assert seen.state is PluginState.FAILED, word
                assert seen.reason, word
            assert "x-alive" not in (await ask(client)).headers


@BOTH
async def test_a_registration_that_never_returns_delays_the_start_by_its_deadline(
    folder: PluginFolder, native: NativeBuilder, isolation: Isolation
) -> None:
    """The proxy serves then, without the plugin."""
    began = trio.current_time()
    async with proxy_with_bad(folder, native, isolation, register="hang", timeout=0.5) as (proxy, client):
        assert trio.current_time() - began < 10
        bad = status(proxy, "bad")
        assert bad.state is PluginState.FAILED
        assert "did not answer plugin.register within 0.5 s" in bad.reason
        await ask(client)
        leaving = trio.current_time()
    assert trio.current_time() - leaving < 8


# ---- Go ----


async def test_a_panic_in_go_is_a_crash_like_others(
    folder: PluginFolder, native: NativeBuilder, reasons: list[str]
) -> None:
    """In a goroutine, where nothing can recover it."""
    folder.add("go", native.go("tagger"), acts="panic exit", capabilities="request_interceptor response_interceptor")
    with trio.fail_after(FAIL_S):
        async with folder.proxy(Isolation.PROCESS) as proxy, proxy.client() as client:
            for word, reason in (("panic", "signal 6 (SIGABRT)"), ("exit", "exited with status 3")):
                reasons.clear()
                await ask(client, x_go=word)
                await until(lambda: bool(reasons))
                assert reason in reasons[0]
                await until_state(proxy, "go", PluginState.REGISTERED)
                assert (await ask(client)).json()["x_go"] == 1
            assert live(proxy, "go").generation == 3
