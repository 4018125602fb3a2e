"""Tool calls that a prompt orders: read, matched with what is offered, answered in all four protocols."""

import contextlib
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.testing.mock import AskError, Tool, open_mock
from cpa.testing.mock.orders import Order, find_tool, orders_in
from cpa.testing.mock.scenario import MAX_CALLS

CUSTOM = Tool(name="apply_patch", kind="custom")
FUNCTION = Tool(name="apply_patch", schema=b'{"type":"object","properties":{"patch":{}},"required":["patch"]}')
BARE = Tool(name="apply_patch")


def one(text: str) -> Order:
    (order,) = orders_in(text)
    return order


def test_order_among_other_words() -> None:
    order = one('Please look. [mock:call Bash {"command": "cat [a]"}] Thank you.')
    assert order == Order(name="Bash", arguments={"command": "cat [a]"})


def test_several_orders_are_in_their_order() -> None:
    text = '[mock:call a {}]\n[mock:call b "x]"]and [mock:call   a   {"n": 1}  ]'
    assert [(order.name, order.arguments) for order in orders_in(text)] == [("a", {}), ("b", "x]"), ("a", {"n": 1})]


@pytest.mark.parametrize(
    "text", ["", "no order", "[mock:call]", "[mock:call ]", "[mock:calls a {}]", "[mock: call a {}]"]
)
def test_text_that_begins_no_order(text: str) -> None:
    assert orders_in(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "[mock:call a]",
        "[mock:call a {]",
        "[mock:call a 7]",
        "[mock:call a [1]]",
        "[mock:call a null]",
        "[mock:call a {} b]",
    ],
)
def test_broken_order_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(AskError, match=r"expected \[mock:call NAME ARGUMENTS\].*got '\[mock:call a"):
        orders_in(f"do this: {text}")


def test_no_more_orders_than_calls_are_allowed() -> None:
    assert len(orders_in("[mock:call a {}]" * (MAX_CALLS + 1))) == MAX_CALLS


@given(st.text())
def test_any_text_gives_orders_or_an_error(text: str) -> None:
    """Nothing else comes out, however broken the order."""
    with contextlib.suppress(AskError):
        assert all(order.name for order in orders_in("[mock:call a " + text))


def test_free_text_for_a_free_text_tool_and_for_what_it_becomes_elsewhere() -> None:
    order = one('[mock:call apply_patch "*** Begin\\n"]')
    assert order.text_for(CUSTOM) == "*** Begin\n"
    assert json.loads(order.text_for(FUNCTION)) == {"patch": "*** Begin\n"}
    assert json.loads(order.text_for(BARE)) == {"input": "*** Begin\n"}


def test_name_finds_the_tool_itself_or_one_in_a_namespace() -> None:
    flat, inside = Tool(name="spawn"), Tool(name="agents__spawn")
    assert find_tool((inside, flat), "spawn") is flat
    assert find_tool((inside,), "spawn") is inside
    assert find_tool((inside,), "pawn") is None


SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
PROMPT = 'Read it. [mock:call shell {"command": "cat a"}] [mock:call shell {"command": "cat b"}]'
CALLED = [("shell", {"command": "cat a"}), ("shell", {"command": "cat b"})]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": PROMPT}],
            "tools": [{"type": "function", "function": {"name": "shell", "parameters": SCHEMA}}],
        },
    ),
    "responses": (
        "/v1/responses",
        {"input": PROMPT, "tools": [{"type": "function", "name": "shell", "parameters": SCHEMA}]},
    ),
    "claude": (
        "/v1/messages",
        {
            "max_tokens": 99,
            "messages": [{"role": "user", "content": PROMPT}],
            "tools": [{"name": "shell", "input_schema": SCHEMA}],
        },
    ),
    "gemini": (
        "/v1beta/models/plain:generateContent",
        {
            "contents": [{"role": "user", "parts": [{"text": PROMPT}]}],
            "tools": [{"functionDeclarations": [{"name": "shell", "parametersJsonSchema": SCHEMA}]}],
        },
    ),
}


def calls_of(answer: dict[str, Any]) -> list[tuple[str, object]]:
    """(name, arguments) of all calls of an answer that is not streamed, in any protocol."""
    if "choices" in answer:
        calls = [call["function"] for call in answer["choices"][0]["message"]["tool_calls"]]
        return [(call["name"], json.loads(call["arguments"])) for call in calls]
    if "output" in answer:
        items = [item for item in answer["output"] if item["type"] == "function_call"]
        return [(item["name"], json.loads(item["arguments"])) for item in items]
    if "candidates" in answer:
        parts = [part["functionCall"] for part in answer["candidates"][0]["content"]["parts"] if "functionCall" in part]
        return [(part["name"], part["args"]) for part in parts]
    return [(part["name"], part["input"]) for part in answer["content"] if part["type"] == "tool_use"]


@pytest.mark.parametrize("fmt", BODIES)
async def test_ordered_calls_come_whatever_the_model_is_called(fmt: str) -> None:
    path, body = BODIES[fmt]
    async with open_mock() as mock, httpx.AsyncClient(base_url=mock.url, trust_env=False, timeout=20) as client:
        reply = await client.post(path, json={"model": "plain", **body})
    assert reply.status_code == 200, reply.text
    assert calls_of(reply.json()) == CALLED


async def test_unknown_tool_is_answered_with_the_names_of_those_that_exist() -> None:
    path, body = BODIES["chat"]
    message = {"role": "user", "content": "[mock:call Shell {}]"}
    async with open_mock() as mock, httpx.AsyncClient(base_url=mock.url, trust_env=False, timeout=20) as client:
        reply = await client.post(path, json={**body, "model": "plain", "messages": [message]})
    answer = reply.json()["choices"][0]
    assert answer["finish_reason"] == "stop"
    assert answer["message"]["content"] == "No tool 'Shell' is offered; there are: shell"


async def test_broken_order_is_a_400() -> None:
    path, body = BODIES["claude"]
    message = {"role": "user", "content": "[mock:call shell nonsense]"}
    async with open_mock() as mock, httpx.AsyncClient(base_url=mock.url, trust_env=False, timeout=20) as client:
        reply = await client.post(path, json={**body, "model": "plain", "messages": [message]})
    assert reply.status_code == 400
    assert "expected [mock:call NAME ARGUMENTS]" in reply.json()["error"]["message"]


async def test_after_the_result_comes_text_that_repeats_it() -> None:
    path, body = BODIES["chat"]
    call = {"id": "c", "type": "function", "function": {"name": "shell", "arguments": "{}"}}
    turn = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "forty-two"},
    ]
    async with open_mock() as mock, httpx.AsyncClient(base_url=mock.url, trust_env=False, timeout=20) as client:
        reply = await client.post(path, json={**body, "model": "plain", "messages": [*body["messages"], *turn]})
    message = reply.json()["choices"][0]["message"]
    assert "The tool answered: forty-two" in message["content"]
    assert not message.get("tool_calls")


PICTURE = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("path", "name", "history"),
    [
        (
            "/v1/chat/completions",
            "messages",
            [
                {"role": "user", "content": "[mock:call shell {}]"},
                {"role": "tool", "tool_call_id": "c", "content": "forty-two"},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]},
            ],
        ),
        (
            "/v1/responses",
            "input",
            [
                {"role": "user", "content": "[mock:call shell {}]"},
                {"type": "function_call_output", "call_id": "c", "output": "forty-two"},
                {"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]},
            ],
        ),
    ],
    ids=["chat", "responses"],
)
async def test_a_picture_behind_the_result_is_part_of_it(path: str, name: str, history: list[Any]) -> None:
    """Or an agent whose tool returned one would be told to run it again, for ever."""
    body = {**BODIES["responses" if name == "input" else "chat"][1], "model": "plain", name: history}
    async with open_mock() as mock, httpx.AsyncClient(base_url=mock.url, trust_env=False, timeout=20) as client:
        reply = await client.post(path, json=body)
    assert "The tool answered: forty-two" in reply.text


async def test_without_tools_an_order_is_just_text() -> None:
    path, body = BODIES["claude"]
    plain = {name: value for name, value in body.items() if name != "tools"}
    async with open_mock() as mock, httpx.AsyncClient(base_url=mock.url, trust_env=False, timeout=20) as client:
        reply = await client.post(path, json={**plain, "model": "plain"})
    assert [part["type"] for part in reply.json()["content"]] == ["text"]
    assert reply.json()["stop_reason"] == "end_turn"
