"""What real agents sent, trimmed, through the proxy to providers of all four protocols.

The recordings are second requests of a conversation: the agent has run tools and sends back what they returned. Their
first requests are the same without that. Each provider must get every call, result, tool and picture, in a request
that its own SDK could have sent, and the agent an answer of its own protocol that ends properly.
`make test-agents` runs the agents themselves.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from cpa.config.load import parse_config
from cpa.formats.sse import event_data, split_events
from tests.agents.documented import PAGE, REHEARSAL, documented
from tests.e2e.vendor_types import assert_vendors
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy

RECORDINGS = Path(__file__).with_name("agent_recordings")
WORD = "heliotrope"
"""Of the note that every agent reads."""
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQ"
AGENTS = ("Claude Code", "Codex", "Gemini CLI")
JsonDict = dict[str, Any]

PROVIDERS = {
    "gpt": "/chat/completions",
    "responses": "/responses",
    "claude": "/v1/messages",
    "gemini": ":streamGenerateContent",
}
"""Models of `running_proxy`, and where their requests arrive."""


@attrs.frozen(kw_only=True)
class Expected:
    """What a recording says, whatever the protocol.

    Attributes:
      calls: names and arguments, in order; names without namespace; free text as such.
      kinds: how the agent itself writes those calls.
      picture: whether one is among the results.
    """

    calls: tuple[tuple[str, object], ...]
    kinds: tuple[str, ...]
    picture: bool = False


CAT = {"command": "cat note.txt"}
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+hello\n*** End Patch"
SCRIPT = 'text((await tools.exec_command({cmd: "cat note.txt"})).output)'
WORK = "/home/user/work"
EXPECTED = {
    "claude-code-opus": Expected(
        calls=(
            ("ToolSearch", {"query": "select:WebFetch", "max_results": 3}),
            ("Read", {"file_path": f"{WORK}/pic.png"}),
            ("Read", {"file_path": f"{WORK}/note.txt"}),
        ),
        kinds=("tool_use",) * 3,
        picture=True,
    ),
    "claude-code-4-5": Expected(calls=(("Bash", {**CAT, "description": "Read the note"}),), kinds=("tool_use",)),
    "codex-patch": Expected(
        calls=(("apply_patch", PATCH), ("exec_command", {"cmd": "cat note.txt"})),
        kinds=("custom_tool_call", "function_call"),
    ),
    "codex-lite": Expected(calls=(("exec", SCRIPT),), kinds=("custom_tool_call",)),
    "gemini-cli": Expected(
        calls=(("run_shell_command", CAT), ("read_file", {"file_path": "pic.png"})),
        kinds=("functionCall",) * 2,
        picture=True,
    ),
}


@attrs.frozen(kw_only=True)
class Recording:
    """A request of an agent, without its key."""

    target: str
    headers: dict[str, str]
    body: JsonDict

    def to_model(self, model: str) -> "Recording":
        """The same for *model*, which stands in the body or in the path."""
        if "contents" in self.body:
            before, _, action = self.target.rpartition(":")
            return attrs.evolve(self, target=f"{before.rpartition('/')[0]}/{model}:{action}")
        return attrs.evolve(self, body={**self.body, "model": model})

    def first_turn(self) -> "Recording":
        """What the agent had sent before its tools ran: nothing that the model has said yet."""
        name = next(name for name in ("messages", "contents", "input") if name in self.body)
        kept = []
        for entry in self.body[name]:
            if entry.get("role") in ("assistant", "model") or entry.get("type") in ("reasoning", *CALL_TYPES):
                break
            kept.append(entry)
        return attrs.evolve(self, body={**self.body, name: kept})


CALL_TYPES = ("function_call", "custom_tool_call")


def read_recording(name: str) -> Recording:
    found = json.loads((RECORDINGS / f"{name}.json").read_text())
    return Recording(target=found["target"], headers=found["headers"], body=found["body"])


async def send(proxy: RunningProxy, recording: Recording) -> list[JsonDict]:
    """The events of the proxy's answer to a streaming request, decoded."""
    async with proxy.client() as client:
        headers = {**recording.headers, "authorization": f"Bearer {CLIENT_KEY}"}
        reply = await client.post(recording.target, headers=headers, content=json.dumps(recording.body).encode())
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return [json.loads(data) for event in split_events(reply.content) if (data := event_data(event))]


# --- what providers get -------------------------------------------------------------------------------------------


@attrs.define
class Seen:
    """A provider's request, as far as tools are concerned: calls by id, with names and arguments, and their results."""

    calls: dict[str, tuple[str, object]] = attrs.field(factory=dict)
    results: dict[str, str] = attrs.field(factory=dict)
    tools: list[str] = attrs.field(factory=list)


def flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def seen_chat(body: JsonDict) -> Seen:
    seen = Seen(tools=[tool[tool["type"]]["name"] for tool in body["tools"]])
    for message in body["messages"]:
        for call in message.get("tool_calls") or ():
            seen.calls[call["id"]] = (call["function"]["name"], json.loads(call["function"]["arguments"]))
        if message["role"] == "tool":
            seen.results[message["tool_call_id"]] = flat(message["content"])
    return seen


def response_tools(tools: list[JsonDict]) -> Iterator[str]:
    for tool in tools:
        if tool["type"] == "namespace":
            yield from response_tools(tool["tools"])
        else:
            yield str(tool.get("name", tool["type"]))


def seen_responses(body: JsonDict) -> Seen:
    seen = Seen(tools=list(response_tools(body.get("tools", []))))
    for item in body["input"]:
        if item["type"] == "additional_tools":
            seen.tools += response_tools(item["tools"])
        elif item["type"] in CALL_TYPES:
            given = item["input"] if item["type"] == "custom_tool_call" else json.loads(item["arguments"])
            seen.calls[item["call_id"]] = (item["name"], given)
        elif item["type"].endswith("_call_output"):
            seen.results[item["call_id"]] = flat(item["output"])
    return seen


def seen_claude(body: JsonDict) -> Seen:
    seen = Seen(tools=[tool["name"] for tool in body["tools"]])
    for message in body["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_use":
                seen.calls[block["id"]] = (block["name"], block["input"])
            elif block["type"] == "tool_result":
                seen.results[block["tool_use_id"]] = flat(block["content"])
    return seen


def seen_gemini(body: JsonDict) -> Seen:
    declared = [entry for tool in body["tools"] for entry in tool.get("functionDeclarations", ())]
    seen = Seen(tools=[entry["name"] for entry in declared])
    for content in body["contents"]:
        for part in content["parts"]:
            if call := part.get("functionCall"):
                seen.calls[call["id"]] = (call["name"], call["args"])
            elif answer := part.get("functionResponse"):
                seen.results[answer["id"]] = flat(answer)
    return seen


READERS = {"gpt": seen_chat, "responses": seen_responses, "claude": seen_claude, "gemini": seen_gemini}


def same_name(name: str, own: str) -> bool:
    """Whether *name* is the agent's *own* one, which providers without namespaces see behind that of the namespace."""
    return name == own or name.endswith(f"__{own}")


def same_call(found: tuple[str, object], wanted: tuple[str, object]) -> bool:
    """Free text is wrapped where a protocol has none."""
    return same_name(found[0], wanted[0]) and found[1] in (wanted[1], {"input": wanted[1]})


def own_tools(recording: Recording) -> list[str]:
    """Names of the tools that the agent offers and runs itself."""
    body = recording.body
    if "contents" in body:
        return seen_gemini(body).tools
    if "input" in body:
        hosted = ("web_search", "tool_search")
        return [name for name in seen_responses(body).tools if name not in hosted]
    return seen_claude(body).tools


# --- what agents get ----------------------------------------------------------------------------------------------


def answer_claude(events: list[JsonDict]) -> tuple[list[tuple[str, str]], str]:
    """(kinds and names of calls, text) of a finished answer."""
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert sum(event["type"] == "content_block_stop" for event in events) == len(blocks)
    calls = [(block["type"], block["name"]) for block in blocks if block["type"] == "tool_use"]
    assert events[-2]["delta"]["stop_reason"] == ("tool_use" if calls else "end_turn")
    text = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    return calls, text


def answer_responses(events: list[JsonDict]) -> tuple[list[tuple[str, str]], str]:
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert items == events[-1]["response"]["output"]
    assert events[-1]["response"]["usage"]["total_tokens"] > 0
    calls = [(item["type"], item["name"]) for item in items if item["type"] in CALL_TYPES]
    texts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
    return calls, "".join(texts)


def answer_gemini(events: list[JsonDict]) -> tuple[list[tuple[str, str]], str]:
    assert events[-1]["candidates"][0]["finishReason"] == "STOP"
    assert events[-1]["usageMetadata"]["totalTokenCount"] > 0
    parts = [part for event in events for part in event["candidates"][0]["content"].get("parts", ())]
    calls = [("functionCall", part["functionCall"]["name"]) for part in parts if "functionCall" in part]
    return calls, "".join(part.get("text", "") for part in parts if not part.get("thought"))


def answer_of(recording: Recording, events: list[JsonDict]) -> tuple[list[tuple[str, str]], str]:
    if "contents" in recording.body:
        return answer_gemini(events)
    return answer_responses(events) if "input" in recording.body else answer_claude(events)


# --- tests ----------------------------------------------------------------------------------------------------------


def test_configuration_for_a_rehearsal_is_sound() -> None:
    """docs/clients.md tells users to start with it; `make test-agents` runs agents on it."""
    loaded = parse_config(documented(REHEARSAL, "yaml"), file="clients.yaml")
    assert loaded.warnings == ()
    assert [agent for agent in AGENTS if f"[{agent}](#{agent.lower().replace(' ', '-')})" not in PAGE.read_text()] == []


def test_recordings_are_all_used() -> None:
    assert {path.stem for path in RECORDINGS.iterdir()} == {*EXPECTED, "gemini-cli-count"}


async def second_turn(proxy: RunningProxy, recording: Recording, expected: Expected, model: str) -> None:
    """The provider gets every call, result, tool and picture, and the agent what the provider says to them."""
    proxy.mock.forget()
    events = await send(proxy, recording)
    (request,) = proxy.mock.requests
    assert request.target.split("?")[0].endswith(PROVIDERS[model])
    if PROVIDERS[model] not in recording.target:  # agents send their vendors more than the SDKs of today know
        assert_vendors(request.target, request.body)
    seen = READERS[model](json.loads(request.body))
    assert len(seen.calls) == len(expected.calls)
    assert all(map(same_call, seen.calls.values(), expected.calls)), seen.calls
    assert set(seen.results) == set(seen.calls)
    assert any(WORD in result for result in seen.results.values())
    offered = own_tools(recording)
    assert len(offered) > 1
    assert [own for own in offered if not any(same_name(name, own) for name in seen.tools)] == []
    assert b"attachment not available" not in request.body
    assert (PICTURE.encode() in request.body) == expected.picture
    calls, text = answer_of(recording, events)
    assert (calls, bool(text)) == ([], True)


async def first_turn(proxy: RunningProxy, recording: Recording, expected: Expected, model: str) -> None:
    """Calls come without what translation puts before their names, free-text tools as such, whoever made them."""
    proxy.mock.forget()
    events = await send(proxy, recording.first_turn())
    (request,) = proxy.mock.requests
    if PROVIDERS[model] not in recording.target:
        assert_vendors(request.target, request.body)
    calls, _ = answer_of(recording, events)
    assert calls == [(kind, name) for kind, (name, _) in zip(expected.kinds, expected.calls, strict=True)]


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("name", EXPECTED)
async def test_both_turns_of_an_agent(name: str, model: str) -> None:
    recording = read_recording(name).to_model(model)
    with trio.fail_after(60):
        async with running_proxy() as proxy:
            await first_turn(proxy, recording, EXPECTED[name], model)
            await second_turn(proxy, recording, EXPECTED[name], model)


async def test_calls_into_a_namespace_come_back_with_it() -> None:
    """Without it Codex answers "unsupported call"."""
    with trio.fail_after(60):
        async with running_proxy() as proxy:
            for model in PROVIDERS:
                events = await send(proxy, read_recording("codex-lite").to_model(model).first_turn())
                items = [item for item in events[-1]["response"]["output"] if item["type"] == "custom_tool_call"]
                found = [(item["namespace"], item["name"], item["input"]) for item in items]
                assert found == [("functions", "exec", SCRIPT)], model


async def test_found_tools_are_named_to_models_that_know_no_references() -> None:
    """Claude Code searches for tools that it holds back, and the provider hears which one it may call now."""
    with trio.fail_after(60):
        async with running_proxy() as proxy:
            for model in PROVIDERS:
                proxy.mock.forget()
                await send(proxy, read_recording("claude-code-opus").to_model(model))
                (request,) = proxy.mock.requests
                first = next(iter(READERS[model](json.loads(request.body)).results.values()))
                assert ("tool_reference" in first) == (model == "claude"), model
                assert ("[tool available: WebFetch]" in first) == (model != "claude"), model


async def test_tokens_of_results_are_counted() -> None:
    """Gemini CLI counts what a tool returned, with a picture, before it sends it."""
    with trio.fail_after(60):
        async with running_proxy() as proxy, proxy.client() as client:
            for model in PROVIDERS:
                recording = read_recording("gemini-cli-count").to_model(model)
                reply = await client.post(recording.target, headers=recording.headers, json=recording.body)
                assert reply.status_code == 200, (model, reply.text)
                assert reply.json()["totalTokens"] > 0, model
