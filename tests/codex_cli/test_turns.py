"""One request is one turn of the agent: what it is given, what becomes of what it says, how it fails."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from cpa.config.schema import Isolation
from tests.codex_cli.hosting import TURN, Built, Step, chunks, codex_proxy, gone, said, streamed

EVENTS: tuple[Mapping[str, object], ...] = (
    {"thread": None},
    {"event": {"type": "turn.started"}},
    {"event": {"type": "item.completed", "item": {"id": "1", "type": "reasoning", "text": "let me see"}}},
    {"event": {"type": "item.started", "item": {"id": "2", "type": "command_execution", "command": "ls"}}},
    {"event": {"type": "item.completed", "item": {"id": "2", "type": "command_execution", "command": "ls",
               "aggregated_output": "a.txt\n", "exit_code": 3, "status": "failed"}}},
    {"event": {"type": "item.completed", "item": {"id": "3", "type": "file_change",
               "changes": [{"path": "a.txt", "kind": "update"}], "status": "completed"}}},
    {"event": {"type": "item.completed", "item": {"id": "4", "type": "mcp_tool_call", "server": "s", "tool": "t",
               "arguments": {"x": 1}, "status": "completed"}}},
    {"event": {"type": "item.completed", "item": {"id": "5", "type": "web_search", "query": "weather"}}},
    {"event": {"type": "item.updated", "item": {"id": "6", "type": "todo_list",
               "items": [{"text": "one", "completed": True}]}}},
    {"event": {"type": "item.completed", "item": {"id": "6", "type": "todo_list",
               "items": [{"text": "one", "completed": True}]}}},
    {"event": {"type": "item.completed", "item": {"id": "7", "type": "error", "message": "model metadata not found"}}},
    {"raw": "this is not JSON\n[1, 2]\n{\"no\": \"type\"}\n\n"},
    {"event": {"type": "something.new", "item": 7}},
    {"event": {"type": "item.updated", "item": {"id": "8", "type": "agent_message", "text": "It is"}}},
    {"event": {"type": "item.completed", "item": {"id": "8", "type": "agent_message", "text": "It is sunny."}}},
    {"event": {"type": "item.completed", "item": {"id": "9", "type": "agent_message", "text": "Enjoy!"}}},
    {"done": {}},
)  # fmt: skip
WORK = """[command] ls (exit code 3)
```
a.txt
```

[files]
- update a.txt

[tool] s.t {"x": 1}

[search] weather

[plan]
- [x] one

[notice] model metadata not found

"""
ANSWER = "It is sunny.\n\nEnjoy!"


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_a_turn(isolation: Isolation, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of event, streamed and not; and what the agent was started with."""
    async with codex_proxy(
        built, monkeypatch, isolation=isolation, settings="extra_args: [--sandbox, read-only]"
    ) as codex:
        codex.script(EVENTS)
        whole = await codex.chat("hello `$(id)` -- ü")
        assert said(whole) == ANSWER
        message = whole.json()["choices"][0]
        assert message["finish_reason"] == "stop"
        assert message["message"]["reasoning_content"] == "let me see"
        assert whole.json()["usage"] == {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
        shown = await codex.chat("hello", headers={"X-Codex-Commands": "true"})
        assert said(shown) == WORK + ANSWER
        stream = await codex.chat("hello", stream=True, stream_options={"include_usage": True})
        assert streamed(stream) == ANSWER
        parts = chunks(stream)
        assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
        assert [c["choices"][0]["finish_reason"] for c in parts[:-1]] == [None] * (len(parts) - 2) + ["stop"]
        assert (parts[-1]["choices"], parts[-1]["usage"]["total_tokens"]) == ([], 15)
        first = codex.seen()[0]
        assert first["argv"] == ["exec", "--json", "--skip-git-repo-check", "--sandbox", "read-only", "-"]
        assert first["prompt"] == "hello `$(id)` -- ü"
        assert first["cwd"] == str(codex.workspace)
        assert "SOMEBODY_ELSES_SECRET" not in first["env"]
        assert first["env"]["CODEX_HOME"] == str(codex.home)
        while "<dt>tokens</dt><dd><code>30 in, 15 out</code></dd>" not in (page := await codex.page()):  # noqa: ASYNC110
            await trio.sleep(0.01)  # records come after the answers
        assert "<dt>requests</dt><dd><code>3, 0 failed</code></dd>" in page
        assert "fake-codex 9.9.9" in page
        assert "0199aaaa-0000-7000-8000-000000000001 · codex · 1 turns" in page
        assert "<dt>lines of output that were no events</dt><dd><code>9</code></dd>" in page  # three runs, three each


async def test_other_protocols(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, Gemini and Responses, streamed and not."""
    async with codex_proxy(built, monkeypatch) as codex:
        claude: dict[str, Any] = {"model": "codex", "max_tokens": 9, "messages": [{"role": "user", "content": "one"}]}
        gemini = {"contents": [{"role": "user", "parts": [{"text": "two"}]}]}
        responses = {"model": "codex", "input": "three"}
        whole = (await codex.client.post("/v1/messages", json=claude)).json()
        assert whole["content"] == [{"type": "text", "text": "you said: one"}]
        assert (whole["stop_reason"], whole["usage"]["output_tokens"]) == ("end_turn", 5)
        stream = await codex.client.post("/v1/messages", json={**claude, "stream": True})
        assert '"text":"you said: one"' in stream.text
        assert "event: message_stop" in stream.text
        assert '"output_tokens":5' in stream.text  # asked for by the translation
        whole = (await codex.client.post("/v1beta/models/codex:generateContent", json=gemini)).json()
        assert whole["candidates"][0]["content"]["parts"] == [{"text": "you said: two"}]
        assert whole["usageMetadata"]["totalTokenCount"] == 15
        stream = await codex.client.post("/v1beta/models/codex:streamGenerateContent?alt=sse", json=gemini)
        assert '"text":"you said: two"' in stream.text
        assert '"finishReason":"STOP"' in stream.text
        whole = (await codex.client.post("/v1/responses", json=responses)).json()
        assert whole["output"][0]["content"][0]["text"] == "you said: three"
        stream = await codex.client.post("/v1/responses", json={**responses, "stream": True})
        assert "you said: three" in stream.text
        assert "response.completed" in stream.text
        assert [run["prompt"] for run in codex.seen()] == ["one", "one", "two", "two", "three", "three"]


async def test_models_and_what_else_arguments_carry(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped, passed through, and none for `codex`; reasoning effort, schema and pictures."""
    settings = "supported_models:\n  - codex\n  - fast\n  - gpt-5\nmodel_args: {fast: gpt-5-mini}"
    async with codex_proxy(built, monkeypatch, settings=settings) as codex:
        listed = {model["id"] for model in (await codex.client.get("/v1/models")).json()["data"]}
        assert {"codex", "fast", "gpt-5"} <= listed
        picture = "data:image/png;base64,iVBORw0KGgo="
        parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": picture}}]
        schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
        await codex.chat("a", model="fast", reasoning_effort="high")
        await codex.chat({"role": "user", "content": parts}, model="gpt-5", response_format=schema)
        await codex.chat({"role": "system", "content": "be brief"}, {"role": "user", "content": "b"})
        fast, other, plain = codex.seen()
        assert fast["argv"][3:] == ["--model", "gpt-5-mini", "-c", 'model_reasoning_effort="high"', "-"]
        assert other["argv"][-3:] == ["--model", "gpt-5", "-"]
        assert other["argv"][3].startswith("--image=")
        assert other["argv"][3].endswith("image-1.png")
        assert other["argv"][4] == "--output-schema"
        assert not Path(other["argv"][5]).parent.exists()  # gone with the turn
        assert other["prompt"] == "look"
        assert plain["prompt"] == "<instructions>\nbe brief\n</instructions>\n\nb"


async def test_failures(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say what the agent said, with the end of what it complained about, and no secret of it."""
    async with codex_proxy(built, monkeypatch) as codex:
        codex.script(
            ({"thread": None}, {"stderr": "key sk-abcdefghijklmnop is wrong\nlog in first\n"}, {"exit": 7}),
            ({"thread": None}, {"event": {"type": "turn.failed", "error": {"message": "quota used up"}}}, {"exit": 1}),
            ({"event": {"type": "error", "message": "no network"}}, {"event": {"type": "turn.failed"}}),
            ({"thread": None},),
        )
        exited = await codex.chat("a")
        assert exited.status_code == 502
        text = exited.text
        assert "exit code 7" in text
        assert "log in first" in text
        assert "[masked]" in text
        assert "sk-abc" not in text
        failed = await codex.chat("a")
        assert (failed.status_code, "quota used up" in failed.text) == (502, True)
        assert "the turn failed" in (await codex.chat("a")).text
        assert "it ended without an answer" in (await codex.chat("a")).text
        codex.script(
            ({"thread": None}, {"stderr": "log in first"}, {"exit": 7}),
            ({"thread": None}, {"say": "half"}, {"exit": 1}),
        )
        early = await codex.chat("a", stream=True)
        assert (early.status_code, "log in first" in early.text) == (502, True)
        cut = await codex.chat("a", stream=True)
        assert '"content":"half"' in cut.text
        assert "exit code 1" in cut.text
        assert "[DONE]" not in cut.text
        page = await codex.page()
        assert "quota used up" in page
        assert "sk-abc" not in page


async def test_huge_and_endless_output(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without end costs neither memory nor the turn; a long answer comes whole."""
    async with codex_proxy(built, monkeypatch) as codex:
        long = "ä" * 300_000
        codex.script(({"thread": None}, {"big": 17 << 20}, {"say": long}, {"done": {}}))
        assert said(await codex.chat("a")) == long
        assert streamed(await codex.chat("a", stream=True)) == long
        assert "<dt>lines of output that were no events</dt><dd><code>2</code></dd>" in await codex.page()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_leaves_nothing_running(
    stream: bool, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what the agent started in a session of its own and what does not listen to SIGTERM."""
    async with codex_proxy(built, monkeypatch) as codex:
        mute: Sequence[Step] = ({"mute": None},) if stream else ()
        codex.script(({"thread": None}, {"spawn": None}, {"stubborn": None}, *mute, {"hang": None}), TURN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: codex.chat("a", stream=stream))
            agent, child = await codex.appears("hangs"), await codex.appears("spawned")
            nursery.cancel_scope.cancel()
        await gone(agent)
        await gone(child)
        assert said(await codex.chat("b")) == "you said: b"


async def test_nothing_outlives_the_plugin(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose process may be killed at any time."""
    async with codex_proxy(built, monkeypatch) as codex:
        codex.script(({"thread": None}, {"spawn": None}, {"hang": None}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: codex.chat("a", stream=True))
            agent, child = await codex.appears("hangs"), await codex.appears("spawned")
            os.kill((await codex.entry())["pid"], signal.SIGKILL)
            await gone(agent)
            await gone(child)
            nursery.cancel_scope.cancel()


async def test_what_an_agent_leaves_behind_ends_with_its_turn(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    async with codex_proxy(built, monkeypatch) as codex:
        codex.script(({"thread": None}, {"spawn": None}, {"say": "started a server"}, {"done": {}}))
        assert said(await codex.chat("a")) == "started a server"
        await gone(await codex.appears("spawned"))


async def test_limits(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many turns are refused at once, too long ones end."""
    settings = "max_concurrent_turns: 1\nturn_timeout: 5"
    async with codex_proxy(built, monkeypatch, settings=settings) as codex:
        codex.script(({"thread": None}, {"hang": None}), TURN)
        async with trio.open_nursery() as nursery:
            late: list[Any] = []

            async def slow() -> None:
                late.append(await codex.chat("a"))

            nursery.start_soon(slow)
            await codex.appears("hangs")
            refused = await codex.chat("b")
            assert refused.status_code == 429
            assert "max_concurrent_turns" in refused.text
        assert late[0].status_code == 504
        assert "turn_timeout" in late[0].text
        assert said(await codex.chat("b")) == "you said: b"


async def test_without_the_program(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin registers, says so on its page, and answers with the reason."""
    async with codex_proxy(built, monkeypatch, binary="no-such-agent") as codex:
        assert (await codex.entry())["state"] == "registered"
        for stream in (False, True):
            refused = await codex.chat("a", stream=stream)
            assert refused.status_code == 503
            assert "no-such-agent" in json.dumps(refused.json(), ensure_ascii=False)
        assert (
            "not available: codex-cli: the agent&#39;s program &#34;no-such-agent&#34; cannot be run"
            in await codex.page()
        )


async def test_bad_settings_are_named(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the list of plugins; the plugin's own tests have the other kinds."""
    async with codex_proxy(built, monkeypatch, settings="model_args: {a: --yolo}") as codex:
        while (entry := await codex.entry())["state"] != "failed":  # noqa: ASYNC110 - it is told nowhere else
            await trio.sleep(0.01)  # it is being tried once more
        reason = 'model_args.a: expected a value for --model, got "--yolo"'
        assert reason in entry["reason"].replace("&#34;", '"')
