"""7.5, from Claude's and Chat's providers: rows 106 to 125, 143 to 153, 156 to 165 as far as they are of those."""

import json
from typing import Any

from tests.e2e.corpus.rig import Rig, frames, plain, sse
from tests.e2e.corpus.table import a_tool, call, row

USAGE = {
    "prompt_tokens": 50,
    "completion_tokens": 20,
    "total_tokens": 70,
    "prompt_tokens_details": {"cached_tokens": 30},
}
STOPPED = {"type": "message_stop"}
ASK_USAGE = {"stream_options": {"include_usage": True}}


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of Chat."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "x1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def chat(*chunks: Any, done: bool = True) -> bytes:
    """A stream of Chat."""
    return sse(*chunks, done=done)


def piece(index: int, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    """A delta of a call of Chat."""
    function = {key: more.pop(key) for key in ("name",) if key in more}
    if arguments is not None:
        function["arguments"] = arguments
    return {"tool_calls": [{"index": index, "function": function, **more}]}


def started(**usage: int) -> dict[str, Any]:
    """Claude's first event."""
    message: dict[str, Any] = {
        "id": "msg_9",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
    }
    return {"type": "message_start", "message": {**message, "usage": {"input_tokens": 1, "output_tokens": 0, **usage}}}


def block(index: int, opened: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """Events of one of Claude's blocks."""
    return [
        {"type": "content_block_start", "index": index, "content_block": opened},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text_block(index: int, *texts: str) -> list[dict[str, Any]]:
    """One of text."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in texts))


def tool_block(index: int, *pieces: str, name: str = "f") -> list[dict[str, Any]]:
    """One of a call."""
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return block(index, {"type": "tool_use", "id": f"t{index}", "name": name, "input": {}}, *deltas)


def ended(reason: str | None = "end_turn", **more: Any) -> dict[str, Any]:
    """Claude's last event but one."""
    return {"type": "message_delta", "delta": {"stop_reason": reason, **more}, "usage": {"output_tokens": 2}}


def claude(*events: Any, end: Any = None) -> bytes:
    """A stream of Claude."""
    return sse(started(), *events, end or ended(), STOPPED)


# --- what clients read -----------------------------------------------------------------------------------------------


def deltas(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of Chat."""
    return [choice["delta"] for frame in found for choice in frame.get("choices", ())]


def finishes(found: list[dict[str, Any]]) -> list[str]:
    """Of Chat."""
    given = [choice.get("finish_reason") for frame in found for choice in frame.get("choices", ())]
    return [one for one in given if one]


def calls(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Names and arguments of Chat's calls, by index."""
    whole: dict[int, list[str]] = {}
    for delta in deltas(found):
        for one in delta.get("tool_calls", ()):
            made = whole.setdefault(one["index"], ["", ""])
            made[0] += one["function"].get("name") or ""
            made[1] += one["function"].get("arguments") or ""
    assert sorted(whole) == list(range(len(whole)))
    return [(name, arguments) for _, (name, arguments) in sorted(whole.items())]


def content(found: list[dict[str, Any]]) -> str:
    """Chat's text."""
    return "".join(delta.get("content") or "" for delta in deltas(found))


def blocks(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Claude's blocks, types and what was streamed in them; one at a time, numbered from 0."""
    whole: list[tuple[str, str]] = []
    is_open = False
    for frame in found:
        if frame["type"] == "content_block_start":
            assert not is_open
            assert frame["index"] == len(whole)
            is_open = True
            whole.append((frame["content_block"]["type"], ""))
        elif frame["type"] == "content_block_delta":
            assert is_open
            assert frame["index"] == len(whole) - 1
            delta = frame["delta"]
            written = delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
            whole[-1] = (whole[-1][0], whole[-1][1] + written)
        elif frame["type"] == "content_block_stop":
            is_open = False
    return whole


def stop_of(found: list[dict[str, Any]]) -> str:
    """Claude's reason."""
    [delta] = [frame for frame in found if frame["type"] == "message_delta"]
    assert found[-1] == STOPPED
    reason: str = delta["delta"]["stop_reason"]
    return reason


def output(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items of Responses' last event; its events are numbered without a gap."""
    assert [frame["sequence_number"] for frame in found] == list(range(len(found)))
    last: list[dict[str, Any]] = found[-1]["response"]["output"]
    done = [frame["item"] for frame in found if frame["type"] == "response.output_item.done"]
    assert done == last
    return last


def parts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of Gemini, without the empty one at the end."""
    return [
        part
        for frame in found
        for candidate in frame.get("candidates", ())
        for part in candidate["content"]["parts"]
        if part != {"text": ""}
    ]


# --- rows ------------------------------------------------------------------------------------------------------------


@row(106)
def index_of_tools(rig: Rig) -> None:
    """Of tools, not of blocks."""
    found = rig.streamed("chat", "claude", claude(*text_block(0, "hi"), *tool_block(1, "{}"), end=ended("tool_use")))
    assert calls(found) == [("f", "{}")]
    assert finishes(found) == ["tool_calls"]


@row(108)
def two_calls_of_index_0(rig: Rig) -> None:
    """Two calls."""
    stream = chat(
        chunk(piece(0, "{}", id="a", name="f")), chunk(piece(0, '{"x":1}', id="b", name="g")), chunk(None, "tool_calls")
    )
    assert blocks(rig.streamed("claude", "gpt", stream)) == [("tool_use", "{}"), ("tool_use", '{"x":1}')]


@row(109)
def late_and_repeated_names(rig: Rig) -> None:
    """One name."""
    stream = chat(
        chunk(piece(0, "", id="a", name="")),
        chunk(piece(0, None, name="read")),
        chunk(piece(0, "{}", name="read")),
        chunk(None, "tool_calls"),
    )
    found = rig.streamed("claude", "gpt", stream, tools=[a_tool("read")])
    [start] = [frame for frame in found if frame["type"] == "content_block_start"]
    assert (start["content_block"]["name"], start["content_block"]["id"]) == ("read", "a")


@row(110)
def ids_that_are_none(rig: Rig) -> None:
    """Made up, once."""
    for identity in (None, 7, ""):
        stream = chat(
            chunk(piece(0, "{", id=identity, name="f")), chunk(piece(0, "}", id=identity)), chunk(None, "tool_calls")
        )
        found = rig.streamed("claude", "gpt", stream)
        [start] = [frame for frame in found if frame["type"] == "content_block_start"]
        assert start["content_block"]["id"].startswith("toolu_")
        [item] = output(rig.streamed("responses", "gpt", stream))
        assert item["call_id"].startswith("call_")
        assert item["arguments"] == "{}"


@row(111)
def null_is_no_finish(rig: Rig) -> None:
    """Presence is not value."""
    found = rig.streamed(
        "gemini", "gpt", chat(chunk({"content": "a"}), chunk({"content": "b"}, ""), chunk(None, "stop"))
    )
    assert [part["text"] for part in parts(found)] == ["a", "b"]
    ends = [frame["candidates"][0].get("finishReason") for frame in found]
    assert ends == [None] * (len(ends) - 1) + ["STOP"]


@row(112)
def content_and_finish_at_once(rig: Rig) -> None:
    """Both."""
    stream = chat(chunk({"content": "a"}), chunk({"content": "b"}, "length", usage=USAGE))
    found = rig.streamed("gemini", "gpt", stream)
    assert "".join(part["text"] for part in parts(found)) == "ab"
    assert found[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert found[-1]["usageMetadata"]["promptTokenCount"] == 50


@row(113)
def usage_on_its_own(rig: Rig) -> None:
    """In each protocol's place."""
    stream = chat(chunk({"content": "a"}), chunk(None, "stop"), {**chunk(), "choices": [], "usage": USAGE})
    [delta] = [frame for frame in rig.streamed("claude", "gpt", stream) if frame["type"] == "message_delta"]
    assert delta["usage"]["output_tokens"] == 20
    assert rig.streamed("responses", "gpt", stream)[-1]["response"]["usage"]["total_tokens"] == 70
    assert rig.streamed("gemini", "gpt", stream)[-1]["usageMetadata"]["totalTokenCount"] == 70


@row(114)
def usage_on_every_chunk(rig: Rig) -> None:
    """The last one."""
    first = {"prompt_tokens": 50, "completion_tokens": 1, "total_tokens": 51}
    stream = chat(chunk({"content": "a"}, usage=first), chunk({"content": "b"}, usage=USAGE), chunk(None, "stop"))
    found = rig.streamed("gemini", "gpt", stream)
    assert [frame["usageMetadata"]["totalTokenCount"] for frame in found if "usageMetadata" in frame][-1] == 70
    [delta] = [frame for frame in rig.streamed("claude", "gpt", stream) if frame["type"] == "message_delta"]
    assert delta["usage"]["output_tokens"] == 20


@row(115)
def after_the_end(rig: Rig) -> None:
    """Ignored."""
    stream = chat(chunk({"content": "a"}), chunk(None, "stop")) + sse(chunk({"content": "no"}))
    assert blocks(rig.streamed("claude", "gpt", stream)) == [("text", "a")]


def failed(rig: Rig, client: str, model: str, stream: bytes) -> tuple[int, dict[str, Any]]:
    """Status and error of a stream that fails before anything was sent."""
    rig.provider.says(stream)
    answer = rig.ask(client, model, plain(client), stream=True)
    error: dict[str, Any] = answer.json()["error"]
    return answer.status_code, error


@row(116)
def done_at_once(rig: Rig) -> None:
    """No empty success."""
    for client in ("claude", "gemini", "responses"):
        assert failed(rig, client, "gpt", b"data: [DONE]\n\n")[0] == 502


BEGUN = {
    "gpt": sse(chunk({"role": "assistant", "content": "Hel"})),
    "claude": sse(started(), *text_block(0, "Hel")[:2]),
    "gemini": sse({"candidates": [{"content": {"parts": [{"text": "Hel"}]}}]}),
    "responses": sse(
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"id": "m", "type": "message"}},
        {
            "type": "response.output_text.delta",
            "item_id": "m",
            "output_index": 0,
            "content_index": 0,
            "delta": "Hel",
        },
    ),
}
HOME = {"gpt": "chat", "claude": "claude", "gemini": "gemini", "responses": "responses"}


def assert_error(client: str, found: list[dict[str, Any]]) -> None:
    """The stream ends with *client*'s error, and nothing in it looks like an end."""
    last = found[-1]
    if client == "claude":
        assert (last["type"], last["error"]["type"]) == ("error", "api_error")
        assert not [
            frame for frame in found if frame["type"] in ("message_delta", "message_stop", "content_block_stop")
        ]
    elif client == "chat":
        assert last["error"]["type"] == "server_error"
        assert {"done": True} not in found
        assert not finishes(found)
    elif client == "responses":
        assert last["type"] in ("error", "response.failed")
        assert not [frame for frame in found if frame["type"] == "response.completed"]
    else:
        assert (last["error"]["code"], last["error"]["status"]) == (502, "UNAVAILABLE")
        assert not any(one.get("finishReason") for frame in found for one in frame.get("candidates", ()))


@row(117)
def cut_after_text(rig: Rig) -> None:
    """Truncated is not done."""
    for model, stream in BEGUN.items():
        for client in HOME.values():
            if client != HOME[model]:
                found = rig.streamed(client, model, stream)
                assert "Hel" in json.dumps(found)
                assert_error(client, found)


@row(118)
def nothing_at_all(rig: Rig) -> None:
    """Clients would hang."""
    for model in HOME:
        for client in HOME.values():
            assert failed(rig, client, model, b"")[0] == 502


@row(119)
def error_as_second_frame(rig: Rig) -> None:
    """Its own status, so that the SDK tries again."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    status, found = failed(rig, "chat", "claude", sse(started(), error))
    assert (status, found["code"], found["message"]) == (503, "overloaded", "busy")
    status, found = failed(rig, "gemini", "claude", sse(started(), error))
    assert (status, found["status"]) == (503, "UNAVAILABLE")


TWO = chat(
    chunk(piece(0, "", id="c0", name="read")),
    chunk(piece(1, '{"d"', id="c1", name="list")),
    chunk(
        {
            "tool_calls": [
                {"index": 0, "function": {"arguments": '{"p":"a"}'}},
                {"index": 1, "function": {"arguments": ":1}"}},
            ]
        }
    ),
    chunk(None, "tool_calls"),
)


@row(120)
def interleaved_calls(rig: Rig) -> None:
    """One block at a time."""
    assert blocks(rig.streamed("claude", "gpt", TWO)) == [("tool_use", '{"p":"a"}'), ("tool_use", '{"d":1}')]


@row(122)
def arguments_before_the_name(rig: Rig) -> None:
    """They wait for it."""
    stream = chat(chunk(piece(0, '{"a"', id="c")), chunk(piece(0, ":1}", name="f")), chunk(None, "tool_calls"))
    assert blocks(rig.streamed("claude", "gpt", stream)) == [("tool_use", '{"a":1}')]


@row(123)
def no_arguments(rig: Rig) -> None:
    """Each parser's own nothing."""
    stream = chat(chunk(piece(0, id="c", name="f")), chunk(None, "tool_calls"))
    assert blocks(rig.streamed("claude", "gpt", stream)) == [("tool_use", "")]
    assert output(rig.streamed("responses", "gpt", stream))[0]["arguments"] == "{}"
    assert parts(rig.streamed("gemini", "gpt", stream))[0]["functionCall"]["args"] == {}
    found = rig.streamed("chat", "claude", claude(*tool_block(0), end=ended("tool_use")))
    assert calls(found) == [("f", "{}")]


@row(124)
def python_is_no_json(rig: Rig) -> None:
    """The SDK would raise."""
    stream = chat(chunk(piece(0, "{'a'", id="c", name="f")), chunk(piece(0, ":1}")), chunk(None, "tool_calls"))
    [(_, written)] = blocks(rig.streamed("claude", "gpt", stream))
    assert json.loads(written) == {"a": 1}
    assert parts(rig.streamed("gemini", "gpt", stream))[0]["functionCall"]["args"] == {"a": 1}
    message = {"role": "assistant", "content": None, "tool_calls": [call("c", "f", "{'a':1}")]}
    answer = rig.whole(
        "claude", "gpt", json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    )
    assert answer["content"][0]["input"] == {"a": 1}


@row(125)
def arguments_cut_by_the_limit(rig: Rig) -> None:
    """The client sees how far they came."""
    stream = chat(chunk(piece(0, '{"a": "lo', id="c", name="f")), chunk(None, "length"))
    found = rig.streamed("claude", "gpt", stream)
    assert (blocks(found), stop_of(found)) == ([("tool_use", '{"a": "lo')], "max_tokens")
    [item] = output(rig.streamed("responses", "gpt", stream))
    assert (item["status"], item["arguments"]) == ("incomplete", '{"a": "lo')


@row(143)
def redacted_thinking(rig: Rig) -> None:
    """There and back again."""
    stream = claude(*block(0, {"type": "redacted_thinking", "data": "EsRedacted"}), *text_block(1, "hi"))
    items = output(rig.streamed("responses", "claude", stream, include=["reasoning.encrypted_content"]))
    assert items[0]["summary"] == []
    sent = rig.sent("responses", "claude", {"input": [*plain("chat")["messages"], *items, *plain("chat")["messages"]]})
    assert sent["messages"][1]["content"][0] == {"type": "redacted_thinking", "data": "EsRedacted"}


@row(144)
def pings(rig: Rig) -> None:
    """Google's SDK falls over comments."""
    rig.provider.says(sse(started(), {"type": "ping"}, *text_block(0, "hi"), {"type": "ping"}, ended(), STOPPED))
    answer = rig.ask("gemini", "claude", plain("gemini"), stream=True)
    assert {line[:6] for line in answer.text.split("\n")} <= {"data: ", ""}


@row(145)
def no_reason_yet(rig: Rig) -> None:
    """One finish."""
    stream = sse(started(), ended(None), *text_block(0, "hi"), ended("max_tokens"), STOPPED)
    found = rig.streamed("chat", "claude", stream)
    assert (content(found), finishes(found)) == ("hi", ["length"])


@row(146)
def usage_in_two_places(rig: Rig) -> None:
    """Nothing is erased."""
    last = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": None, "output_tokens": 9},
    }
    stream = sse(started(input_tokens=5, cache_read_input_tokens=7), *text_block(0, "hi"), last, STOPPED)
    usage = rig.streamed("chat", "claude", stream, **ASK_USAGE)[-2]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (12, 9)


@row(147)
def cached_usage(rig: Rig) -> None:
    """Claude counts them apart."""
    stream = chat(chunk({"content": "a"}), chunk(None, "stop"), {**chunk(), "choices": [], "usage": USAGE})
    [delta] = [frame for frame in rig.streamed("claude", "gpt", stream) if frame["type"] == "message_delta"]
    assert delta["usage"] == {"input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 20}


@row(149)
def only_reasoning(rig: Rig) -> None:
    """It completes."""
    found = rig.streamed("responses", "gpt", chat(chunk({"reasoning_content": "hm"}), chunk(None, "stop")))
    [item] = output(found)
    assert (item["type"], found[-1]["type"]) == ("reasoning", "response.completed")


@row(150)
def text_after_a_call(rig: Rig) -> None:
    """A new message."""
    stream = chat(
        chunk({"content": "1"}),
        chunk(piece(0, "{}", id="c", name="f")),
        chunk({"content": "2"}),
        chunk(None, "tool_calls"),
    )
    items = output(rig.streamed("responses", "gpt", stream))
    assert [item["type"] for item in items] == ["message", "function_call", "message"]
    assert len({item["id"] for item in items}) == 3


@row(151)
def second_reasoning(rig: Rig) -> None:
    """A new id."""
    stream = chat(
        chunk({"reasoning_content": "1"}),
        chunk({"content": "a"}),
        chunk({"reasoning_content": "2"}),
        chunk(None, "stop"),
    )
    items = output(rig.streamed("responses", "gpt", stream))
    assert [item["type"] for item in items] == ["reasoning", "message", "reasoning"]
    assert len({item["id"] for item in items}) == 3


@row(153)
def index_of_details(rig: Rig) -> None:
    """The SDK wants one, without gaps."""
    deltas_of = [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "EsSig="}]
    stream = claude(
        *block(0, {"type": "thinking", "thinking": "", "signature": ""}, *deltas_of),
        *block(1, {"type": "redacted_thinking", "data": "EsRedacted"}),
        *text_block(2, "hi"),
    )
    found = [
        one for delta in deltas(rig.streamed("chat", "claude", stream)) for one in delta.get("reasoning_details", ())
    ]
    assert [one["index"] for one in found] == [0, 1]
    assert (found[0]["signature"], found[1]["data"]) == ("EsSig=", "EsRedacted")


@row(158)
def stop_sequences(rig: Rig) -> None:
    """Chat knows one kind of stop."""
    stream = claude(*text_block(0, "hi"), end=ended("stop_sequence", stop_sequence="END"))
    assert finishes(rig.streamed("chat", "claude", stream)) == ["stop"]


@row(159)
def usage_missing(rig: Rig) -> None:
    """Zeros, which the type demands."""
    usage = rig.streamed("responses", "gpt", chat(chunk({"content": "a"}), chunk(None, "stop")))[-1]["response"][
        "usage"
    ]
    assert usage == {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }


@row(161)
def a_body_where_a_stream_was_asked_for(rig: Rig) -> None:
    """Compatible servers do that."""
    message = {"role": "assistant", "content": "Hello", "tool_calls": [call("c", "f")]}
    body = {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
    }
    rig.provider.says(json.dumps(body).encode(), content_type="application/json")
    answer = rig.ask("claude", "gpt", plain("claude"), stream=True)
    found = frames(answer.text)
    assert blocks(found)[0] == ("text", "Hello")
    assert stop_of(found) == "tool_use"


@row(163)
def the_name_that_was_asked_for(rig: Rig) -> None:
    """Clients compare it."""
    stream = claude(*text_block(0, "hi"))
    assert {frame["model"] for frame in rig.streamed("chat", "claude(low)", stream) if "model" in frame} == {"claude"}
    assert rig.streamed("gemini", "claude", stream)[0]["modelVersion"] == "claude"
    assert rig.streamed("responses", "claude", stream)[0]["response"]["model"] == "claude"


@row(164)
def errors_for_gemini(rig: Rig) -> None:
    """Its SDK reads code and status."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    rig.provider.says(json.dumps(error).encode(), status=529, content_type="application/json")
    answer = rig.ask("gemini", "claude", plain("gemini"))
    found = answer.json()["error"]
    assert (answer.status_code, found["code"], found["status"], found["message"]) == (503, 503, "UNAVAILABLE", "busy")


@row(165)
def pages_for_errors(rig: Rig) -> None:
    """A short text."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
    rig.provider.says(page, status=502, content_type="text/html")
    answer = rig.ask("claude", "gpt", plain("claude"))
    found = answer.json()
    assert (answer.status_code, found["type"], found["error"]["type"]) == (502, "error", "api_error")
    assert "<" not in found["error"]["message"]
    assert len(found["error"]["message"]) < 200
