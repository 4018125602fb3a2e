"""The client's tools inside the agent: its calls become the client's, its turn waits, and the results go on with it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
import trio

from cpa.config.schema import Isolation
from tests.codex_cli.hosting import TURN, Built, Codex, Step, chunks, codex_proxy, gone, said

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": PARAMETERS}}]
ROME, PARIS = ({"name": "weather", "arguments": {"city": city}} for city in ("Rome", "Paris"))


def asked(answer: httpx.Response) -> list[dict[str, Any]]:
    """The calls that a whole answer ends with."""
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls", answer.text
    calls = choice["message"]["tool_calls"]
    assert isinstance(calls, list)
    return calls


def answered(calls: Sequence[Mapping[str, Any]], *results: str) -> list[dict[str, object]]:
    """The messages that follow: the calls, and their results."""
    replies = [
        {"role": "tool", "tool_call_id": call["id"], "content": result}
        for call, result in zip(calls, results, strict=True)
    ]
    return [{"role": "assistant", "content": None, "tool_calls": list(calls)}, *replies]


def pids(codex: Codex) -> list[int]:
    """The agent's processes."""
    return [run["pid"] for run in codex.seen()]


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_a_round_of_tools(isolation: Isolation, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls at once, then one more, each from the one turn that goes on; then the conversation does."""
    async with codex_proxy(built, monkeypatch, isolation=isolation) as codex:
        steps: Sequence[Step] = (
            {"thread": None},
            {"say": "wait"},
            {"calls": [ROME, PARIS]},
            {"calls": [ROME]},
            {"done": {}},
        )
        codex.script(steps, TURN)
        first = await codex.chat("how is it?", tools=TOOLS)
        calls = asked(first)
        assert first.json()["choices"][0]["message"]["content"] == "wait"
        assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == ["Rome", "Paris"]
        assert len({call["id"] for call in calls}) == 2
        history = ["how is it?", *answered(calls, "sunny", "rain")]
        second = await codex.chat(*history, stream=True, tools=TOOLS)
        parts = chunks(second)
        text = "".join(part["choices"][0]["delta"].get("content") or "" for part in parts)
        assert text == "False:sunny\n\nFalse:rain"
        [delta] = [part["choices"][0]["delta"] for part in parts if "tool_calls" in part["choices"][0]["delta"]]
        assert parts[-1]["choices"][0]["finish_reason"] == "tool_calls"
        [again] = delta["tool_calls"]
        assert (again["index"], again["type"], again["function"]["name"]) == (0, "function", "weather")
        again = {key: value for key, value in again.items() if key != "index"}
        history += [{"role": "assistant", "content": text, "tool_calls": [again]}]
        history += [{"role": "tool", "tool_call_id": again["id"], "content": "still sunny"}]
        last = await codex.chat(*history, {"role": "user", "content": "hurry"}, tools=TOOLS)
        assert said(last) == "False:still sunny|[the user adds] hurry"
        assert last.json()["usage"]["total_tokens"] == 15
        history += [{"role": "user", "content": "hurry"}, {"role": "assistant", "content": said(last)}]
        await codex.chat(*history, {"role": "user", "content": "thanks"}, tools=TOOLS)
        runs = codex.seen()
        assert [("resume" in run["argv"], run["prompt"]) for run in runs] == [(False, "how is it?"), (True, "thanks")]
        assert (codex.home / "registrations").read_text().count("\n") == 1
        registered = json.loads((codex.home / "registered.json").read_text())
        assert registered["name"].startswith("cpa-host-work-")
        assert registered["command"][-1] == "mcp-host"
        assert set(registered["env"]) == {"CPA_MCP_SOCKET", "CPA_MCP_AGENT_ID"}
        [socket] = (codex.home.parent / "run").rglob("*.sock")
        assert (str(socket), socket.stat().st_mode & 0o777) == (registered["env"]["CPA_MCP_SOCKET"], 0o600)
        assert socket.parent.stat().st_mode & 0o777 == 0o700


async def test_tools_of_claude_clients(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same by another protocol; the agent sees what the client declared."""
    async with codex_proxy(built, monkeypatch) as codex:
        codex.script(({"thread": None}, {"tools": None}, {"calls": [ROME]}, {"done": {}}))
        tools = [{"name": "weather", "description": "of a city", "input_schema": PARAMETERS}]
        question = {"role": "user", "content": "how is it?"}
        body = {"model": "codex", "max_tokens": 9, "tools": tools}
        first = (await codex.client.post("/v1/messages", json={**body, "messages": [question]})).json()
        assert first["stop_reason"] == "tool_use"
        text, use = first["content"]
        assert json.loads(text["text"]) == [{"name": "weather", "description": "of a city", "inputSchema": PARAMETERS}]
        assert (use["name"], use["input"]) == ("weather", {"city": "Rome"})
        result = {"type": "tool_result", "tool_use_id": use["id"], "content": "sunny"}
        messages = [question, {"role": "assistant", "content": first["content"]}, {"role": "user", "content": [result]}]
        last = (await codex.client.post("/v1/messages", json={**body, "messages": messages})).json()
        assert last["content"] == [{"type": "text", "text": "False:sunny"}]
        assert len(codex.seen()) == 1


async def test_what_clients_leave_open(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing result is an error to the agent; other words instead of any end the turn that waits."""
    async with codex_proxy(built, monkeypatch, settings="max_concurrent_turns: 1") as codex:
        codex.script(({"thread": None}, {"calls": [ROME, PARIS]}, {"done": {}}), TURN)
        calls = asked(await codex.chat("how is it?", tools=TOOLS))
        only = answered(calls[1:], "rain")
        only[0]["tool_calls"] = calls
        done = said(await codex.chat("how is it?", *only, tools=TOOLS))
        assert done == "True:the client gave no result\n\nFalse:rain"
        codex.script(({"thread": None}, {"calls": [ROME]}, {"done": {}}), TURN)
        session = {"X-Session-ID": "one"}
        asked(await codex.chat("how is it?", tools=TOOLS, headers=session))
        assert (await codex.chat("somebody else's")).status_code == 429  # the waiting turn counts
        [waiting] = pids(codex)
        assert said(await codex.chat("never mind", headers=session)) == "you said: never mind"
        await gone(waiting)


async def test_a_turn_that_waits_in_vain_ends(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """And late results begin a new one, which is told what there was."""
    async with codex_proxy(built, monkeypatch, settings="turn_timeout: 6") as codex:
        codex.script(({"thread": None}, {"calls": [ROME]}, {"done": {}}), TURN)
        calls = asked(await codex.chat("how is it?", tools=TOOLS))
        await gone(pids(codex)[0])
        late = said(await codex.chat("how is it?", *answered(calls, "sunny"), tools=TOOLS))
        assert "<tool_result>\nsunny\n</tool_result>" in late
        assert "resume" not in codex.seen()[1]["argv"]


async def test_turns_at_the_same_time_keep_their_tools_apart(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although all of them start the same registered server."""
    async with codex_proxy(built, monkeypatch) as codex:
        codex.script(({"thread": None}, {"wait": "go"}, {"tools": None}, {"calls": [ROME]}, {"done": {}}))
        names = {"red": "", "green": "", "blue": ""}

        async def one(name: str) -> None:
            tool = {"type": "function", "function": {"name": name, "parameters": PARAMETERS}}
            names[name] = said(await codex.chat(name, tools=[tool]))

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(one, name)
            while len(codex.seen()) < len(names):  # noqa: ASYNC110 - other programs write it
                await trio.sleep(0.01)
            (codex.workspace / "go").touch()
        for name, text in names.items():
            tools, _, call = text.partition("\n\n")
            assert [tool["name"] for tool in json.loads(tools)] == [name]
            assert call == 'True:the client has no tool "weather"'
