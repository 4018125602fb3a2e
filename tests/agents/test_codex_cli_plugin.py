"""The `codex-cli` plugin with the real program, whose model provider is this very proxy in front of the mock."""

import json
import os
import secrets
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.agents.conftest import AGENTS
from tests.agents.outside import open_outside
from tests.codex_cli.hosting import Built, Codex, build, chunks, codex_proxy, gone, said, streamed
from tests.proxy import CLIENT_KEY

SETTINGS = "extra_args: [--sandbox, danger-full-access]\nturn_timeout: 100"
"""The sandbox needs namespaces of the kernel, which machines for tests rarely give."""
CONFIG = """
model = "responses"
model_provider = "cpa"
[model_providers.cpa]
name = "cpa"
base_url = "{url}/v1"
env_key = "KEY_OF_THE_TESTS"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
SESSIONS = "plugins/codex-cli/sessions"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
DONE = "That settles it"
"""How the mock ends an answer after a tool's result, which it repeats."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The compiled plugin."""
    return build(tmp_path_factory)


@asynccontextmanager
async def real(built: Built, patch: pytest.MonkeyPatch) -> AsyncIterator[Codex]:
    """A proxy with the plugin, set up for the installed program; what that wants beyond loopback is refused."""
    binary = Path(os.environ[AGENTS]) / "node_modules" / ".bin" / "codex"
    patch.setenv("KEY_OF_THE_TESTS", CLIENT_KEY)
    async with open_outside() as outside:
        for name, value in outside.environment.items():
            patch.setenv(name, value)
        async with codex_proxy(built, patch, binary=str(binary), settings=SETTINGS) as codex:
            (codex.home / "config.toml").write_text(CONFIG.format(url=codex.proxy.url))
            yield codex


def order(command: str) -> str:
    """What makes the mock order a command."""
    return f"[mock:call exec_command {json.dumps({'cmd': command})}]"


async def test_prompts_by_all_protocols(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    async with real(built, monkeypatch) as codex:
        word = secrets.token_hex(8)
        (codex.workspace / "note.txt").write_text(word)
        shown = await codex.chat(f"read it {order('cat note.txt')}", stream=True, headers={"X-Codex-Commands": "1"})
        assert word in streamed(shown)
        assert "[command]" in streamed(shown)
        whole = await codex.chat("hello")
        assert said(whole).startswith("Mock answer to 5 characters")
        assert whole.json()["usage"]["total_tokens"] > 0
        claude = {
            "model": "codex",
            "max_tokens": 99,
            "stream": True,
            "messages": [{"role": "user", "content": "hello"}],
        }
        answer = await codex.client.post("/v1/messages", json=claude)
        assert "Mock answer to 5 characters" in answer.text
        assert "event: message_stop" in answer.text
        gemini = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
        answer = await codex.client.post("/v1beta/models/codex:streamGenerateContent?alt=sse", json=gemini)
        assert "Mock answer to 5 characters" in answer.text
        assert '"finishReason":"STOP"' in answer.text
        assert "codex-cli 0." in await codex.page()


async def test_resumed_and_mutated(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second turn knows the first; what is taken out is not told to the model any more."""
    async with real(built, monkeypatch) as codex:
        word = secrets.token_hex(8)
        (codex.workspace / "note.txt").write_text(word)
        asked = f"read it {order('cat note.txt')}"
        first = await codex.chat(asked)
        [session] = (await codex.manage("GET", SESSIONS)).json()["sessions"]
        [called, result] = session["events"]
        assert (called["name"], called["block_id"]) == ("exec_command", result["block_id"])
        assert word in result["output"]
        mutation = {"block_id": called["block_id"], "op": "heavy"}
        body = {"workspace": str(codex.workspace), "mutations": [mutation]}
        done = await codex.manage("POST", f"{SESSIONS}/mutate", body)
        assert (done.json()["asked"], done.json()["touched"]) == (1, 1), done.text
        second = await codex.chat(asked, said(first), "and now?")
        assert second.status_code == 200, second.text
        [session] = (await codex.manage("GET", SESSIONS)).json()["sessions"]
        assert session["turns"] == 2
        sent = json.loads(codex.proxy.mock.requests[-1].body)["input"]
        [output] = [item for item in sent if item["type"] == "function_call_output"]
        [call] = [item for item in sent if item["type"] == "function_call"]
        assert "...(tool called)" in json.dumps(output)
        assert word not in json.dumps(output)
        assert call["arguments"] == "{}"
        used = [answer.json()["usage"]["prompt_tokens"] for answer in (first, second)]
        assert 0 < used[1] < used[0], used  # of this turn, not of the thread


async def test_a_client_tool(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls at once by the agent, answered by the client, in one turn."""
    async with real(built, monkeypatch) as codex:
        question = 'how is it? [mock:call weather {"city": "Rome"}] [mock:call weather {"city": "Paris"}]'
        parts = chunks(await codex.chat(question, stream=True, tools=[TOOL]))
        calls: list[dict[str, Any]] = [
            call for part in parts for call in part["choices"][0]["delta"].get("tool_calls", ())
        ]
        assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == ["Rome", "Paris"]
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": word}
            for call, word in zip(calls, ("sunny", "rain"), strict=True)
        ]
        asking = {"role": "assistant", "tool_calls": calls}
        answer = said(await codex.chat(question, asking, *results, tools=[TOOL]))
        assert "sunny" in answer
        assert "rain" in answer
        assert DONE in answer
        again = await codex.chat(
            question, asking, *results, {"role": "assistant", "content": answer}, {"role": "user", "content": "thanks"}
        )
        assert said(again)
        [session] = (await codex.manage("GET", SESSIONS)).json()["sessions"]
        assert session["turns"] == 2


async def test_cancelled_in_the_middle(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the program is left, nor the command that it ran."""
    async with real(built, monkeypatch) as codex:
        place = shlex.quote(str(codex.workspace / "sleeps"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: codex.chat(order(f"echo $$ $PPID > {place}.new; mv {place}.new {place}; exec sleep 600"))
            )
            path = codex.workspace / "sleeps"
            while not path.exists():  # noqa: ASYNC110 - another program writes it
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        for pid in path.read_text().split():
            await gone(int(pid))
