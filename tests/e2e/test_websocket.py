"""Responses over WebSocket from the outside: every provider, real clients, and what becomes of those who leave."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import openai
import pytest
import trio
from websockets.exceptions import InvalidStatus

from cpa.pipeline.stage import CompletionCall, Outcome, Registration, StageKind
from cpa.types import PluginId
from tests.e2e.sdk import with_proxy
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy
from tests.server.wire import FAIL_S, Serving, serving
from tests.server.ws_client import (
    ENDS,
    Event,
    ask,
    close_code,
    create,
    events_of,
    frame,
    raw_socket,
    real_socket,
    settled,
    text_of,
    user,
)
from tests.upstream.scripted import Peer, RawRequest, open_server

MODELS = ("responses", "gpt", "claude", "gemini")
NOTICED_S = 0.1
"""Between a client's leaving and its provider's knowing it; the issue's own number."""
TOOL = {
    "type": "function",
    "name": "look_up",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def asked(proxy: RunningProxy | Serving, at: int = -1) -> Event:
    """The body of a request that reached the provider."""
    body: Event = json.loads(proxy.mock.requests[at].body)
    return body


@pytest.mark.parametrize("model", MODELS)
async def test_three_turns_with_a_tool_on_every_provider(model: str) -> None:
    """Text, a tool round and a last word; the client sends what is new, the provider gets all of it."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url, headers={"X-Mock-Tool": "1"}) as socket:
                events = await ask(socket, user("Where to?"), model=model, tools=[TOOL], instructions="Be brief.")
                assert [event["sequence_number"] for event in events] == list(range(len(events)))
                assert events[0]["type"] == "response.created"
                done = events[-1]["response"]
                assert (done["status"], done["id"]) == ("completed", events[0]["response"]["id"])
                [call] = [item for item in done["output"] if item["type"] == "function_call"]
                assert json.loads(call["arguments"]) == {"city": "Paris"}
                result = {"type": "function_call_output", "call_id": call["call_id"], "output": "It rains."}
                events = await ask(socket, result, previous_response_id=done["id"], tools=[TOOL])
                assert text_of(events).startswith("The tool answered: ")
                assert "It rains." in text_of(events)
                await socket.send(json.dumps({"type": "response.append", "input": [user("And now?")]}))
                events = await events_of(socket)
                assert events[-1]["type"] == "response.completed"
        assert proxy.mock.total_requests == 3
        last = proxy.mock.requests[-1].body.decode()
        places = [last.find(text) for text in ("Be brief.", "Where to?", "It rains.", "The tool answered", "And now?")]
        assert -1 not in places
        if model != "gemini":  # which has its system instruction last
            assert places == sorted(places)
        assert "previous_response_id" not in last
        assert last.count("look_up") >= 2  # an append has its tools from the turn before


async def test_the_provider_gets_what_it_would_get_over_http() -> None:
    """Input in order, without the envelope's members, and with `stream`."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                first = await ask(
                    socket, user("a"), model="responses", instructions="i", store=False, temperature=0.5, stream=False
                )
                assert asked(proxy) == {
                    "model": "mock-responses",
                    "input": [user("a")],
                    "instructions": "i",
                    "store": False,
                    "temperature": 0.5,
                    "stream": True,
                }
                [said] = first[-1]["response"]["output"]
                await ask(socket, user("b"))
                assert asked(proxy) == {
                    "model": "mock-responses",
                    "input": [user("a"), said, user("b")],
                    "instructions": "i",
                    "stream": True,
                }
                await ask(socket, user("c"), {"role": "assistant", "content": "d"}, user("e"), instructions="j")
                assert [item.get("role") for item in asked(proxy)["input"]] == ["user", "assistant", "user"]
                assert asked(proxy)["instructions"] == "j"


async def test_events_are_those_of_the_stream_over_http() -> None:
    """One text frame each: the data, without server-sent framing."""
    async with running_proxy() as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                events = await ask(socket, user("same"), model="responses")
            body = {"model": "responses", "stream": True, "input": [user("same")]}
            plain = (await client.post("/v1/responses", json=body)).text
        datas = [json.loads(line[6:]) for line in plain.splitlines() if line.startswith("data: {")]
        assert events == datas


async def test_two_messages_at_once_are_answered_one_after_the_other() -> None:
    """The second goes on from the first, though it was sent before that had an answer."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                for text in ("one", "two"):
                    await socket.send(create(input=[user(text)]).decode())
                first, second = await events_of(socket), await events_of(socket)
                assert first[-1]["type"] == second[-1]["type"] == "response.completed"
                assert asked(proxy)["input"] == [user("one"), *first[-1]["response"]["output"], user("two")]


class TestWarmUp:
    """`generate: false`: the way Codex begins."""

    async def test_is_answered_here_and_known_afterwards(self) -> None:
        """No call of the provider; the next message goes on by its id with what is new."""
        async with running_proxy() as proxy:
            with trio.fail_after(FAIL_S):
                async with real_socket(proxy.url) as socket:
                    events = await ask(socket, user("context"), model="responses", generate=False, instructions="i")
                    assert [event["type"] for event in events] == ["response.created", "response.completed"]
                    response = events[-1]["response"]
                    assert response["id"] == events[0]["response"]["id"]
                    assert response["id"].startswith("resp_prewarm_")
                    assert (response["status"], response["output"], response["usage"]["total_tokens"]) == (
                        "completed", [], 0
                    )  # fmt: skip
                    assert proxy.mock.total_requests == 0
                    await ask(socket, user("question"), previous_response_id=response["id"])
                    assert asked(proxy)["input"] == [user("context"), user("question")]
                    assert asked(proxy)["instructions"] == "i"
                    assert "generate" not in asked(proxy)

    async def test_may_be_followed_by_everything_again(self) -> None:
        """A client that does not go on by id is not told twice."""
        async with running_proxy() as proxy:
            with trio.fail_after(FAIL_S):
                async with real_socket(proxy.url) as socket:
                    await ask(socket, model="responses", generate=False)
                    await ask(socket, user("context"), generate=False)
                    await ask(socket, user("context"), user("question"))
                    assert asked(proxy)["input"] == [user("context"), user("question")]


FAULTS: tuple[tuple[object, str, str | None], ...] = (
    ("no JSON", "invalid_request", None),
    ("[]", "invalid_request", None),
    ('"text"', "invalid_request", None),
    ("{" * 50_000, "invalid_request", None),
    ({}, "invalid_request", "type"),
    ({"type": "response.cancel"}, "invalid_request", "type"),
    ({"type": 7}, "invalid_request", "type"),
    ({"type": "response.append", "input": []}, "invalid_request", "type"),
    ({"type": "response.create", "input": []}, "missing_model", "model"),
    ({"type": "response.create", "model": 5, "input": []}, "invalid_request", "model"),
    ({"type": "response.create", "model": "responses", "input": "text"}, "invalid_request", "input"),
    ({"type": "response.create", "model": "responses", "input": {}}, "invalid_request", "input"),
    (
        {"type": "response.create", "model": "responses", "input": [], "previous_response_id": "resp_x"},
        "previous_response_not_found",
        "previous_response_id",
    ),
    (
        {"type": "response.create", "model": "responses", "input": [], "previous_response_id": 5},
        "invalid_request",
        "previous_response_id",
    ),
    ({"type": "response.create", "model": "nobody's", "input": [user("a")]}, "model_not_found", "model"),
)


async def test_faults_of_requests_are_told_and_the_session_goes_on() -> None:
    """In the shape of this transport: status and error object; nothing reached the provider."""
    async with running_proxy() as proxy:
        for message, code, param in FAULTS:
            with trio.fail_after(FAIL_S):
                before = proxy.mock.total_requests
                async with real_socket(proxy.url) as socket:
                    await socket.send(message if isinstance(message, str) else json.dumps(message))
                    [event] = await events_of(socket)
                    assert event["type"] == "error"
                    assert event["status"] == (409 if code == "previous_response_not_found" else 400), message
                    assert (event["error"]["type"], event["error"]["code"]) == ("invalid_request_error", code), message
                    assert event["error"].get("param") == param, message
                    assert event["error"]["message"]
                    assert event["headers"] == {}
                    assert proxy.mock.total_requests == before
                    assert (await ask(socket, user("and now"), model="responses"))[-1]["type"] == "response.completed"


async def test_later_messages_need_an_array_too() -> None:
    """The first may leave its input out; one that goes on has to bring something."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a"), model="responses")
                await socket.send('{"type":"response.append"}')
                [event] = await events_of(socket)
                assert (event["status"], event["error"]["param"]) == (400, "input")


async def test_a_refused_message_changes_nothing() -> None:
    """Neither the transcript nor what the next message inherits."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a"), model="responses")
                assert (await ask(socket, user("lost"), model="nobody's"))[0]["status"] == 400
                await ask(socket, user("b"))
                assert [item["role"] for item in asked(proxy)["input"]] == ["user", "assistant", "user"]
                assert "lost" not in json.dumps(asked(proxy))


async def test_orphans_are_repaired_from_the_session_and_across_connections() -> None:
    """By the name that the client gives its session; without one, or with another key, they are dropped."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            session = {"Session-Id": "s1"}
            call = {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"}
            output = {"type": "function_call_output", "call_id": "c1", "output": "done"}
            async with real_socket(proxy.url, headers=session) as socket:
                await ask(socket, user("a"), call, output, model="responses")
            async with real_socket(proxy.url, headers=session) as socket:
                await ask(socket, user("b"), output, model="responses")
                assert asked(proxy)["input"] == [user("b"), call, output]
            for headers in ({}, {"Session-Id": "s2"}):
                async with real_socket(proxy.url, headers=headers) as socket:
                    await ask(socket, user("b"), output, model="responses")
                    assert asked(proxy)["input"] == [user("b")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"X-Client-Request-Id": "x"}, {"X-Client-Request-Id": "x", "Session-Id": "other"}),
        ({"X-Codex-Turn-Metadata": '{"session_id":"x"}'}, {"Session-Id": "x"}),
        ({"Session_id": "x"}, {"X-Codex-Turn-Metadata": "no JSON", "Session_id": "x"}),
    ],
    ids=["request id", "metadata", "underscore"],
)
async def test_sessions_are_named_by_these_headers(first: dict[str, str], second: dict[str, str]) -> None:
    """In this order; what cannot be read does not count."""
    output = {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"}
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url, headers=first) as socket:
                call = {"type": "custom_tool_call", "call_id": "c1", "name": "exec", "input": "1"}
                await ask(socket, call, output, model="responses")
            async with real_socket(proxy.url, headers=second) as socket:
                await ask(socket, output, model="responses")
                assert asked(proxy)["input"] == [call, output]


# --- the handshake ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/responses", "/backend-api/codex/responses"])
async def test_keys_are_asked_for_before_the_handshake(path: str) -> None:
    """401 over HTTP in OpenAI's shape; every place of a key will do, query included."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            for key, said in ((None, "Missing API key"), ("wrong", "Invalid API key")):
                with pytest.raises(InvalidStatus) as caught:
                    async with real_socket(proxy.url, path=path, key=key):
                        pass
                assert caught.value.response.status_code == 401
                assert json.loads(caught.value.response.body)["error"]["message"] == said
            for where, headers in ((f"{path}?key={CLIENT_KEY}", {}), (path, {"x-api-key": CLIENT_KEY})):
                async with real_socket(proxy.url, path=where, key=None, headers=headers) as socket:
                    assert (await ask(socket, user("a"), model="responses"))[-1]["type"] == "response.completed"


async def test_example_keys_shut_the_door() -> None:
    """403 as for any other model route."""
    async with running_proxy(config="api-keys: [your-api-key-1]\nauth-dir: {auth_dir}\n") as proxy:
        with trio.fail_after(FAIL_S):
            with pytest.raises(InvalidStatus) as caught:
                async with real_socket(proxy.url, key="your-api-key-1"):
                    pass
            response = caught.value.response
            assert response.status_code == 403
            assert response.headers["X-CPA-SAFE-MODE"] == "example-api-key"
            assert json.loads(response.body)["error"] == "unsafe_example_api_key"


async def test_other_paths_offer_no_websocket() -> None:
    """426, after which Codex falls back at once; a slash too much is a redirect."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            for path, status in (("/v1/chat/completions", 426), ("/nowhere", 426)):
                with pytest.raises(InvalidStatus) as caught:
                    async with real_socket(proxy.url, path=path):
                        pass
                assert caught.value.response.status_code == status
            async with real_socket(proxy.url, path="/v1/responses/") as socket:  # the client follows
                assert (await ask(socket, user("a"), model="responses"))[-1]["type"] == "response.completed"


async def test_the_turn_state_is_echoed() -> None:
    """To the client that brings one; a provider's own goes with the turns that follow."""
    seen: list[bytes | None] = []

    async def provider(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request.header(b"x-codex-turn-state"))
            await peer.send(sse(created("r"), completed("r"), headers=b"x-codex-turn-state: from-provider\r\n"))

    config = CODEX.replace(
        "{keys}",
        "{{api-key: k, base-url: '{provider}/v1', models: [{{name: m}}], "
        "headers: {{X-Codex-Turn-State: $X-Codex-Turn-State}}}}",
    )
    async with (
        open_server(provider) as server,
        running_proxy(config=config, provider_url=server.url("")) as proxy,
        real_socket(proxy.url, headers={"X-Codex-Turn-State": "mine"}) as socket,
    ):
        assert socket.response is not None
        assert socket.response.headers["x-codex-turn-state"] == "mine"
        for text in "ab":
            await ask(socket, user(text), model="m")
    assert seen == [b"mine", b"from-provider"]


# --- scripted providers ----------------------------------------------------------------------------------------------

CODEX = """
host: 127.0.0.1
port: 0
proxy-url: direct
auth-dir: {auth_dir}
api-keys: [{client_key}]
request-retry: 0
codex-api-key: [{keys}]
"""
ONE = CODEX.replace("{keys}", "{{api-key: k, base-url: '{provider}/v1', models: [{{name: m}}]}}")


def event(kind: str, **members: object) -> bytes:
    """As a provider sends it."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def created(response_id: str) -> bytes:
    return event("response.created", sequence_number=0, response={"id": response_id, "object": "response"})


def delta(text: str) -> bytes:
    return event("response.output_text.delta", sequence_number=1, item_id="i", delta=text)


def completed(response_id: str, *output: object) -> bytes:
    response = {"id": response_id, "object": "response", "status": "completed", "output": output}
    return event("response.completed", sequence_number=2, response=response)


def sse(*events: bytes, headers: bytes = b"", cut: int = 0) -> bytes:
    """An answer; *cut*: bytes that its length promises and that do not come."""
    body = b"".join(events)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%bcontent-length: %d\r\n\r\n"
        % (headers, len(body) + cut)
        + body
    )


def failing(status: int, body: object, headers: bytes = b"") -> bytes:
    """An error answer."""
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b" % (
        status, headers, len(data), data
    )  # fmt: skip


@attrs.define
class Provider:
    """Answers requests one after the other with what it was given."""

    answers: Iterator[bytes]
    requests: list[RawRequest] = attrs.field(factory=list)

    async def __call__(self, peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            self.requests.append(request)
            await peer.send(next(self.answers))


@asynccontextmanager
async def provider_of(*answers: bytes, config: str = ONE) -> AsyncIterator[tuple[RunningProxy, Provider]]:
    """A proxy in front of a provider that answers with *answers*."""
    provider = Provider(iter(answers))
    async with (
        open_server(provider) as server,
        running_proxy(config=config, provider_url=server.url("")) as proxy,
    ):
        yield proxy, provider


@pytest.mark.parametrize(
    ("answer", "told", "goes_on"),
    [
        (failing(400, {"error": {"message": "bad", "type": "invalid_request_error", "code": "c", "more": 1}}),
         {"status": 400, "error": {"message": "bad", "type": "invalid_request_error", "code": "c", "more": 1}}, True),
        (failing(404, {"error": {"message": "none"}}), {"status": 404}, True),
        (failing(422, {"error": {"message": "no"}}), {"status": 422}, True),
        (failing(401, {"error": {"message": "key"}}), {"status": 401}, False),
        (failing(403, {"error": {"message": "no"}}), {"status": 403}, False),
        (failing(429, {"error": {"message": "slow", "type": "usage_limit_reached", "resets_at": 7}},
                 b"retry-after: 3\r\n"),
         {"status": 429, "headers": {"retry-after": "3"}}, False),
        (failing(500, {"error": {"message": "oops"}}), {"status": 500}, False),
        (failing(503, "text"), {"status": 503}, False),
        (sse(), {"status": 502}, False),
        (b"garbage", {"status": 502}, False),
    ],
    ids=["400", "404", "422", "401", "403", "429", "500", "503", "empty", "garbage"],
)  # fmt: skip
async def test_failures_before_the_answer(answer: bytes, told: Event, goes_on: bool) -> None:
    """All are told; faults of credentials and servers close with 1011 after that."""
    async with provider_of(answer, answer, sse(created("r"), completed("r"))) as (proxy, _):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                [found] = await ask(socket, user("a"), model="m")
                assert found["type"] == "error"
                trace = found["headers"].pop("x-cpa-trace-id", "")
                assert trace or "headers" not in told
                assert {name: found[name] for name in told} == told
                assert isinstance(found["error"]["type"], str)
                assert found["error"]["message"]
                if not goes_on:
                    assert await close_code(socket) == 1011


async def test_a_request_fault_leaves_the_session_as_it_was() -> None:
    """The next message is served, from the state before."""
    bad = failing(400, {"error": {"message": "bad"}})
    async with provider_of(sse(created("r"), completed("r")), bad, sse(created("s"), completed("s"))) as (proxy, known):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a"), model="m")
                assert (await ask(socket, user("b"), temperature=99))[0]["status"] == 400
                assert (await ask(socket, user("c"), previous_response_id="r"))[-1]["response"]["id"] == "s"
        assert json.loads(known.requests[-1].body)["input"] == [user("a"), user("c")]


@pytest.mark.parametrize("model", MODELS)
async def test_a_cut_stream_is_an_error_and_the_end(model: str) -> None:
    """It never looks complete; 1011 makes clients try again."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url, headers={"x-mock-fault": "cut", "x-mock-at": "4"}) as socket:
                events = await ask(socket, user("a"), model=model)
                assert events[0]["type"] == "response.created"
                assert [event["type"] for event in events].count("error") == 1
                assert events[-1]["status"] == 502
                assert events[-1]["error"]["type"] == "server_error"
                assert events[-1]["sequence_number"] == len(events) - 1
                assert await close_code(socket) == 1011


@pytest.mark.parametrize("codex", [False, True], ids=["plain", "codex"])
async def test_failures_inside_the_answer(codex: bool) -> None:
    """An `error` event gets the shape of this transport; a response that failed is an event like any other."""
    error = event("error", code="server_error", message="late", sequence_number=2)
    failed = event(
        "response.failed",
        sequence_number=2,
        response={"id": "r", "status": "failed", "error": {"code": "server_error", "message": "late"}},
    )
    headers = {"originator": "codex_cli_rs"} if codex else {}
    async with provider_of(sse(created("r"), delta("x"), failed), sse(created("s"), delta("x"), error), sse()) as (
        proxy,
        known,
    ):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url, headers=headers) as socket:
                events = await ask(socket, user("a"), model="m")
                assert events[-1]["type"] == "response.failed"
                assert events[-1]["response"]["id"] == "r"
                events = await ask(socket, user("b"), model="m")  # which is not the end
                assert json.loads(known.requests[-1].body)["input"] == [user("b")]
                assert (events[-1]["type"], events[-1]["error"]["message"]) == ("error", "late")
                assert events[-1]["status"] >= 500
                assert await close_code(socket) == 1011


async def test_incomplete_answers_are_gone_on_from() -> None:
    """They are ends like any other."""
    response = {
        "id": "r",
        "object": "response",
        "status": "incomplete",
        "output": [{"type": "message", "role": "assistant", "id": "m1", "content": []}],
    }
    short = event("response.incomplete", sequence_number=2, response=response)
    async with provider_of(sse(created("r"), short), sse(created("s"), completed("s"))) as (proxy, known):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                assert (await ask(socket, user("a"), model="m"))[-1]["type"] == "response.incomplete"
                await ask(socket, user("b"), previous_response_id="r")
        assert [item.get("id", "") for item in json.loads(known.requests[-1].body)["input"]] == ["", "m1", ""]


async def test_an_output_that_is_only_announced_counts() -> None:
    """Items come in events of their own, and some providers leave the final output empty."""
    item = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "look_up", "arguments": "{}"}
    done = event("response.output_item.done", sequence_number=1, output_index=0, item=item)
    async with provider_of(sse(created("r"), done, completed("r")), sse(created("s"), completed("s"))) as (
        proxy,
        known,
    ):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a"), model="m")
                await ask(socket, {"type": "function_call_output", "call_id": "c1", "output": "x"})
        assert [found["type"] for found in json.loads(known.requests[-1].body)["input"]] == [
            "message", "function_call", "function_call_output"
        ]  # fmt: skip


async def test_a_conversation_that_the_provider_keeps_is_not_kept_here() -> None:
    """Its items would be there twice; and an output's call is known there."""
    output = {"type": "function_call_output", "call_id": "c1", "output": "x"}
    answers = [sse(created(name), completed(name)) for name in "rst"]
    async with provider_of(*answers) as (proxy, known):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a"), model="m", conversation="conv_1")
                await ask(socket, output, conversation="conv_1")
                await ask(socket, user("b"))
        assert [json.loads(request.body)["input"] for request in known.requests] == [[user("a")], [output], [user("b")]]


async def test_events_carry_the_name_that_the_client_gave_them() -> None:
    """`stream_id` is of the envelope: it is repeated in every event, errors and warm-ups too, and goes no further."""
    async with provider_of(sse(created("r"), delta("x"), completed("r"))) as (proxy, known):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                events = await ask(socket, user("a"), model="m", generate=False, stream_id='l"1')
                events += await ask(socket, user("a"), model="m", stream_id='l"1')
                events += await ask(socket, user("a"), model="nobody's", stream_id='l"1')
                assert [found["stream_id"] for found in events] == ['l"1'] * 6
        assert "stream_id" not in json.loads(known.requests[-1].body)


async def test_the_credential_of_the_first_turn_is_kept_while_it_works() -> None:
    """Turns of one session stay with one credential although others take turns; a broken one is left, for good."""
    keys = ", ".join(
        f"{{{{api-key: k{number}, base-url: '{{provider}}/v1', models: [{{{{name: m}}}}]}}}}" for number in range(3)
    )
    good = [sse(created(f"r{number}"), completed(f"r{number}")) for number in range(8)]
    answers = [*good[:4], failing(401, {"error": {"message": "no"}}), *good[4:6]]
    async with provider_of(*answers, config=CODEX.replace("{keys}", keys)) as (proxy, known):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as one, real_socket(proxy.url) as two:
                for socket in (one, two, one, two, one, one):
                    assert (await ask(socket, user("a"), model="m"))[-1]["type"] == "response.completed"
    used = [request.header(b"authorization") for request in known.requests]
    assert used[0] == used[2] == used[4]
    assert used[1] == used[3] != used[0]
    assert used[5] == used[6] != used[0]


# --- leaving, slowness, ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["waiting", "stalled", "streaming"])
async def test_a_client_that_leaves_frees_its_provider(point: str) -> None:
    """Within 100 ms, with a proper goodbye or without; the execution ends as cancelled, once."""
    orders = {
        "waiting": ["x-mock-first-byte: 600000"],
        "stalled": ["x-mock-fault: stall", "x-mock-chunks: 5"],
        "streaming": ["x-mock-chunks: 10000", "x-mock-delay: 2"],
    }[point]
    outcomes: list[Outcome] = []
    noticed_s: list[float] = []
    told = trio.Event()

    async def complete(call: CompletionCall) -> None:
        outcomes.append(call.outcome)
        told.set()

    observer = Registration(kind=StageKind.REQUEST_COMPLETE, plugin_id=PluginId("observer"), stage=complete)
    async with serving(registrations=[observer]) as proxy:
        for number, how in enumerate(("close", "reset", "eof"), 1):
            told = trio.Event()
            with trio.fail_after(FAIL_S):
                async with raw_socket(proxy, *orders) as socket:
                    await socket.send(frame(1, create()))
                    await proxy.mock.wait_requests(number)
                    request = proxy.mock.requests[-1]
                    if point != "waiting":
                        await socket.next()
                    if how == "close":
                        await socket.send(frame(8, b"\x03\xe8"))
                    elif how == "eof":
                        assert isinstance(socket.wire.stream, trio.SocketStream)
                        await socket.wire.stream.send_eof()
                    left_at = trio.current_time()
                    if how != "reset":
                        await request.wait_closed_by_client()
                await request.wait_closed_by_client()
                assert request.closed_at is not None
                noticed_s.append(request.closed_at - left_at)
                await told.wait()
                await settled(proxy)
    assert outcomes == [Outcome.CANCELED] * 3
    assert min(noticed_s) < NOTICED_S  # the quickest: others have the machine's mercy


async def test_a_slow_client_slows_the_provider_down_and_is_dropped() -> None:
    """Nothing piles up in between; a client that takes nothing for too long loses its connection."""
    async with serving(extra="limits: {send-idle-seconds: 0.5}") as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy, "x-mock-chunks: 4000", "x-mock-chunk-bytes: 20000") as socket:
                await socket.send(frame(1, create()))
                await proxy.mock.wait_requests(1)
                request = proxy.mock.requests[0]
                await request.wait_closed_by_client()
                assert not request.answered
            await settled(proxy)


async def test_an_idle_session_is_closed() -> None:
    """1001, which clients take for a reason to connect again; an answer in progress is no idleness."""
    async with serving(extra="limits: {websocket-idle-seconds: 0.3}") as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url, headers={"x-mock-first-byte": "700"}) as socket:
                assert (await ask(socket, user("a"), model="responses"))[-1]["type"] == "response.completed"
                assert await close_code(socket) == 1001
            await settled(proxy)


async def test_draining_lets_answers_end_and_closes_idle_sessions() -> None:
    """1001 for both, after the last event of the one that runs."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with (
                real_socket(proxy.url) as idle,
                real_socket(proxy.url, headers={"x-mock-chunks": "20", "x-mock-delay": "20"}) as busy,
            ):
                await ask(idle, user("a"), model="responses")
                await busy.send(create().decode())
                await busy.recv()
                proxy.app.drain()
                assert await close_code(idle) == 1001
                assert (await events_of(busy))[-1]["type"] == "response.completed"
                assert await close_code(busy) == 1001
            await proxy.app.server.ended.wait()


async def test_signs_of_life_are_pings() -> None:
    """Where the configuration asks for them."""
    async with serving(extra="streaming: {keepalive-seconds: 1, keepalive-before-first-chunk: true}") as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy, "x-mock-first-byte: 1500") as socket:
                await socket.send(frame(1, create()))
                assert await socket.next() == (9, b"")
                while (found := await socket.next()) == (9, b""):
                    pass
                assert json.loads(found[1])["type"] == "response.created"


async def test_a_key_that_is_taken_out_of_use_ends_with_the_next_message() -> None:
    """Each message is a request, and asked for its key."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a"), model="responses")
                state = proxy.app.state
                config = attrs.evolve(state.runtime.config, api_keys=("another",))
                state.runtime = proxy.app._builder.build(config)
                [found] = await ask(socket, user("b"))
                assert (found["status"], found["error"]["message"]) == (401, "Invalid API key")
                assert await close_code(socket) == 1008


# --- published clients -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context manager:DeprecationWarning")
async def test_openai_sdk_connects_asks_and_goes_on() -> None:
    """`client.responses.connect()`: its types take our events, errors included."""

    def use(proxy: RunningProxy) -> None:
        client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=CLIENT_KEY, max_retries=0)
        with client, client.responses.connect() as connection:

            def answer(text: str, **more: Any) -> list[Any]:
                """The SDK's events."""
                connection.response.create(model="claude", input=[cast("Any", user(text))], **more)
                events: list[Any] = []
                while not events or events[-1].type not in ENDS:
                    events.append(connection.recv())
                return events

            first = answer("Hello")
            kinds = [type(found).__name__ for found in first]
            assert (kinds[0], kinds[-1]) == ("ResponseWsCreated", "ResponseWsCompleted")
            assert "ResponseTextWsDelta" in kinds
            second = answer("More", previous_response_id=first[-1].response.id)
            assert second[-1].type == "response.completed"
            [error] = answer("?", previous_response_id="resp_nowhere")
            assert type(error).__name__ == "ResponseWsError"
            assert (error.status, error.error.code) == (409, "previous_response_not_found")
        last = [message["content"][0]["text"] for message in asked(proxy)["messages"]]
        assert (last[0], last[-1], len(last)) == ("Hello", "More", 3)

    await with_proxy(use)


async def test_codex_way_of_asking() -> None:
    """Handshake with its headers and compression, a warm-up, deltas by id, a custom tool, then a whole new context."""
    headers = {
        "openai-beta": "responses_websockets=2026-02-06",
        "originator": "codex_cli_rs",
        "session-id": "0199",
        "x-client-request-id": "0199",
        "User-Agent": "codex_cli_rs/0.169.0",
    }
    common = {
        "model": "responses",
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "prompt_cache_key": "0199",
        "client_metadata": {"x-codex-installation-id": "i"},
        "tools": [{"type": "custom", "name": "exec", "description": "Run.", "format": {"type": "text"}}],
    }
    developer = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]}
    call = {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "call_id": "call_1",
        "name": "exec",
        "input": "1+1",
        "status": "completed",
    }
    output = {"type": "custom_tool_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "2"}]}
    config = ONE.replace("name: m", "name: responses")
    answers = [
        sse(created("r1"), event("response.output_item.done", item=call, output_index=0), completed("r1", call)),
        sse(created("r2"), completed("r2")),
        sse(created("r3"), completed("r3")),
    ]
    async with provider_of(*answers, config=config) as (proxy, known):
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url, headers=headers, compression="deflate") as socket:
                assert socket.response is not None
                assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
                warm = (await ask(socket, developer, user("task"), **common, generate=False))[-1]["response"]["id"]
                done = (await ask(socket, **common, previous_response_id=warm))[-1]["response"]
                assert done["output"] == [call]
                await ask(socket, output, **common, previous_response_id=done["id"])
                await ask(socket, developer, {"type": "compaction", "encrypted_content": "x"}, **common)
        bodies = [json.loads(request.body) for request in known.requests]
        assert [body["input"] for body in bodies] == [
            [developer, user("task")],
            [developer, user("task"), call, output],
            [developer, {"type": "compaction", "encrypted_content": "x"}],
        ]
        for body in bodies:
            assert {name: body[name] for name in common} == common
            assert set(body) == {*common, "input", "stream"}
