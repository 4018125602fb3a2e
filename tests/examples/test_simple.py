"""What `simple`, the example with (nearly) all capabilities, does through a running proxy (plugin-abi 8.4)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from cpa.abi import methods, wire
from cpa.abi.codec import Message, number
from cpa.abi.envelope import PluginCallError
from cpa.abi.kinds import B64
from cpa.abi.methods import Direction, Method
from cpa.config.schema import Isolation
from tests.e2e.program import run as run_program
from tests.examples.building import Example, Library, install
from tests.examples.hosting import CHAT, Run, configuration, credentials, example, live, running

NOT_GO = ("c", "rust")
"""Upstream's example in Go parses and writes bodies anew, counts in silence, and echoes what is not there."""


@attrs.frozen(kw_only=True)
class Words:
    """What differs between the languages."""

    name: str
    provider: str
    display: str
    label: str
    menu: str
    command: str
    says: str

    @property
    def model(self) -> str:
        """Its one model."""
        return f"{self.provider}-model"


WORDS: Mapping[str, Words] = {
    "go": Words(
        name="example",
        provider="plugin-example",
        display="Plugin Example Model",
        label="Plugin Example",
        menu="Example Plugin",
        command="plugin-example-command",
        says="plugin example command\n",
    ),
    "c": Words(
        name="example-simple-c",
        provider="plugin-example-c",
        display="Plugin Example C Model",
        label="Plugin Example C",
        menu="Example C Plugin",
        command="plugin-example-c-command",
        says="plugin example c command\n",
    ),
    "rust": Words(
        name="example-simple-rust",
        provider="plugin-example-rust",
        display="Plugin Example Rust Model",
        label="Plugin Example Rust",
        menu="Example Rust Plugin",
        command="plugin-example-rust-command",
        says="plugin example rust command\n",
    ),
}


class Counted(Message):
    """What C and Rust answer to a record, where the host expects nothing."""

    count: int = number("Count")


COUNTING = Method(
    name=methods.USAGE_HANDLE.name,
    direction=Direction.PLUGIN_CALL,
    capability=methods.USAGE_HANDLE.capability,
    request=wire.UsageRequest,
    reply=Counted,
)


async def sign_in(run: Run, words: Words) -> None:
    """A credential file of the example's provider."""
    scratch = run.proxy.directory / "mine.new"
    scratch.write_text(json.dumps({"type": words.provider, "token": "x"}))
    scratch.rename(run.proxy.directory / "mine.json")
    await credentials(run, 1)


@example("simple")
async def test_simple_is_listed(library: Library, plugin: Example, isolation: Isolation) -> None:
    """With its settings, its page and its sign-in; its model is there from the start."""
    words = WORDS[plugin.language]
    async with running(library, plugin, isolation, settings='config1: true\nconfig2: "string"\nmode: "safe"') as run:
        entry: Any = await run.entry()
        assert (entry["state"], entry["registered"]) == ("registered", True)
        metadata = entry["metadata"]
        assert (metadata["name"], metadata["version"], metadata["author"]) == (words.name, "0.1.0", "router-for-me")
        assert metadata["github_repository"] == "https://github.com/router-for-me/CLIProxyAPI"
        assert metadata["logo"].endswith("/docs/logo.png")
        fields = {field["name"]: (field["type"], field.get("enum_values") or []) for field in entry["config_fields"]}
        assert fields == {
            "config1": ("boolean", []),
            "config2": ("string", []),
            "config3": ("integer", []),
            "mode": ("enum", ["safe", "fast"]),
        }
        assert all(field["description"] for field in entry["config_fields"])
        assert [(menu["path"], menu["menu"]) for menu in entry["menus"]] == [
            (f"/v0/resource/plugins/{plugin.id}/status", words.menu)
        ]
        assert (entry["supports_oauth"], entry["oauth_provider"]) == (True, words.provider)
        model = (await run.listed())[words.model]
        assert (model["owned_by"], model["context_length"]) == (words.provider, 8192)
        assert len(live(run).capabilities.declared()) == 14


@example("simple")
async def test_simple_opens_the_proxy(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Nobody needs a key."""
    async with running(library, plugin, isolation) as run, run.proxy.client(key=None) as anybody:
        assert (await anybody.post("/v1/chat/completions", json={**CHAT, "model": "gpt"})).status_code == 200


@example("simple")
async def test_simple_changes_nothing_on_the_way(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Its transforms echo bodies: what passes is what passes without it, byte for byte."""
    async with running(library, plugin, isolation) as run:
        body = b'{"model":"mock-gpt-unrenamed",  "messages":[{"role":"user","content":"gr\xc3\xbc\xc3\x9fe \\u00fc"}] }'
        answer = await run.client.post("/v1/chat/completions", content=body)
        assert answer.status_code == 200
        assert run.sent() == [body]
        assert answer.json()["object"] == "chat.completion"
        streamed = await run.chat("claude", stream=True)
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"stop"' in streamed.text


@example("simple")
async def test_simple_executes_its_model(library: Library, plugin: Example, isolation: Isolation) -> None:
    """With a credential of its provider, which it takes over from the file as it came."""
    words = WORDS[plugin.language]
    async with running(library, plugin, isolation) as run:
        await sign_in(run, words)
        [credential] = await credentials(run, 1)
        assert (credential.provider, credential.label) == (words.provider, words.label)
        stored = json.loads(credential.storage_json)
        assert stored["FileName"] == "mine.json"  # the request that it was asked with
        answer = await run.chat(words.model)
        said = {"id": words.provider, "object": "chat.completion"}
        more = {} if plugin.language == "go" else {"model": words.model, "format": "openai"}
        assert (answer.status_code, answer.json()) == (200, {**said, **more})
        streamed = await run.chat(words.model, stream=True)
        assert words.provider in streamed.text
        counted = await run.client.post("/v1/messages/count_tokens", json={**CHAT, "model": words.model})
        assert counted.status_code == 200, counted.text
        assert counted.json()["input_tokens"] == 0 if plugin.language == "go" else counted.json()["input_tokens"] > 9


@example("simple")
async def test_simple_answers_its_page(library: Library, plugin: Example, isolation: Isolation) -> None:
    """And says what was asked for."""
    async with running(library, plugin, isolation) as run:
        page = await run.page("?q=1")
        assert page.status_code == 200
        if plugin.language == "go":
            assert page.text == "<!doctype html><title>Example Plugin</title><main>Example Plugin</main>"
        else:
            target = f"/v0/resource/plugins/{plugin.id}/status"
            assert page.json() == {"plugin": f"example-{plugin.language}", "method": "GET", "target": target}


@example("simple")
async def test_simple_has_no_sign_in(library: Library, plugin: Example, isolation: Isolation) -> None:
    """It begins one, and says then that there is none."""
    words = WORDS[plugin.language]
    async with running(library, plugin, isolation) as run:
        started = (await run.manage("GET", f"{words.provider}-auth-url")).json()
        assert (started["url"], started["state"]) == ("https://example.invalid/plugin-login", "example-state")
        polled = (await run.manage("GET", "get-auth-status?state=example-state")).json()
        assert polled == {"status": "error", "error": "example plugin has no interactive login"}


@example("simple")
async def test_simple_notes_thinking(library: Library, plugin: Example, isolation: Isolation) -> None:
    """In the body of requests to its provider; what else is in there stays."""
    words = WORDS[plugin.language]
    async with running(library, plugin, isolation, probe=words.provider) as run:  # comes first, and so executes
        plain = json.loads((await run.chat("probe-model")).json()["payload"])
        assert "plugin_example_thinking" not in plain
        thought = json.loads((await run.chat("probe-model(high)")).json()["payload"])
        assert thought["plugin_example_thinking"]["mode"] == "level"
        assert thought["plugin_example_thinking"]["level"] == "high"
        assert thought["messages"] == CHAT["messages"]


@example("simple", languages=NOT_GO)
async def test_simple_writes_thinking_where_it_belongs(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Whatever the body is; to the byte in C and Rust."""
    note = '"plugin_example_thinking":{"mode":"budget","budget":1024,"level":""}}'
    blank = " " if plugin.language == "rust" else ""
    note_behind = note[:-1] + blank + "}"
    config = wire.ThinkingConfig(mode="budget", budget=1024, level="")
    async with running(library, plugin, isolation) as run:
        for body, expected in (
            (b'{"model":"m1"}', '{"model":"m1",' + note_behind),
            (b' \n{"model":"m1"}\t ', '{"model":"m1",' + note_behind),
            (b'{"a":{"b":[1]}}', '{"a":{"b":[1]},' + note_behind),
            (b"{}", "{" + note),
            (b"{ }", "{" + note),
            (b"", "{" + note),
            (b'[1,"x"]', '{"original_body":"[1,\\"x\\"]",' + note),
            (b"no JSON \n", '{"original_body":"no JSON",' + note),
        ):
            request = wire.ThinkingRequest(provider="p", config=config, body=B64(body))
            reply = await live(run).call(methods.THINKING_APPLY, request)
            assert bytes(reply.body).decode() == expected, body


@example("simple", languages=NOT_GO)
async def test_simple_counts_records(library: Library, plugin: Example, isolation: Isolation) -> None:
    """One for each execution; C and Rust say how many there were."""
    async with running(library, plugin, isolation) as run:
        for _ in range(3):
            assert (await run.chat("gpt")).status_code == 200
        counted = asked = 0
        while counted - asked < 3:  # records reach plugins behind the answers
            asked += 1
            counted = (await live(run).call(COUNTING, wire.UsageRequest())).count
        assert counted - asked == 3


@example("simple", languages=NOT_GO)
async def test_simple_wants_a_body(library: Library, plugin: Example, isolation: Isolation) -> None:
    """C and Rust refuse transforms without one; an empty one is a body."""
    async with running(library, plugin, isolation) as run:
        for row in (methods.REQUEST_TRANSLATE, methods.REQUEST_NORMALIZE):
            with pytest.raises(PluginCallError, match="request body field is required"):
                await live(run).call(row, wire.RequestTransformRequest())
        for answer in (methods.RESPONSE_NORMALIZE_BEFORE, methods.RESPONSE_TRANSLATE, methods.RESPONSE_NORMALIZE_AFTER):
            with pytest.raises(PluginCallError, match="request body field is required"):
                await live(run).call(answer, wire.ResponseTransformRequest())
            reply = await live(run).call(answer, wire.ResponseTransformRequest(body=B64(present=True)))
            assert reply.body == b""


@example("simple", isolations=[Isolation.PROCESS])
async def test_simple_has_a_command(library: Library, plugin: Example, isolation: Isolation, tmp_path: Path) -> None:
    """Its flag is the program's; that of `cli` is tested in both transports."""
    words = WORDS[plugin.language]
    install(library[plugin], tmp_path, plugin.id)
    config = tmp_path / "config.yaml"
    lines = f"host: 127.0.0.1\nport: 0\nauth-dir: {tmp_path}\n{configuration([plugin.id], tmp_path, isolation)}\n"
    config.write_text(lines, encoding="utf-8")
    done = await run_program("-config", str(config), f"-{words.command}")
    assert (done.code, done.out) == (0, words.says), done.err
