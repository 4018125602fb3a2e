"""7.5, from providers that speak Responses: rows 107, 121, 126 to 135, 152, 155, 160."""

from typing import Any

from tests.e2e.corpus.answers import (
    block,
    blocks,
    calls,
    chat,
    chunk,
    claude,
    content,
    deltas,
    ended,
    failed,
    finishes,
    output,
    parts,
    stop_of,
    text_block,
    tool_block,
)
from tests.e2e.corpus.rig import Rig, plain, sse
from tests.e2e.corpus.settings import FERNET
from tests.e2e.corpus.table import row

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m", "created_at": 5, "output": []}}
INCLUDE = {"include": ["reasoning.encrypted_content"]}


def text_item(identity: str, text: str, kind: str = "output_text") -> dict[str, Any]:
    """A message of one part."""
    part = {"type": kind, "text": text, "annotations": []} if kind == "output_text" else {"type": kind, "refusal": text}
    return {"id": identity, "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def call_item(identity: str, arguments: str = "{}") -> dict[str, Any]:
    """A call."""
    return {
        "id": identity,
        "type": "function_call",
        "call_id": f"c{identity}",
        "name": "f",
        "arguments": arguments,
        "status": "completed",
    }


def added(place: int, item: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """An item begins."""
    return {"type": "response.output_item.added", "output_index": place, "item": {**item, **changed}}


def done(place: int, item: dict[str, Any]) -> dict[str, Any]:
    """An item is there."""
    return {"type": "response.output_item.done", "output_index": place, "item": item}


def delta(kind: str, identity: str, place: int, piece: str, **more: int) -> dict[str, Any]:
    """Some of it."""
    return {"type": f"response.{kind}.delta", "item_id": identity, "output_index": place, "delta": piece, **more}


def text_events(place: int, identity: str, *pieces: str) -> list[dict[str, Any]]:
    """A message of one text, streamed."""
    item = text_item(identity, "".join(pieces))
    at = {"item_id": identity, "output_index": place, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    return [
        added(place, item, content=[], status="in_progress"),
        {"type": "response.content_part.added", **at, "part": empty},
        *(delta("output_text", identity, place, piece, content_index=0) for piece in pieces),
        {"type": "response.output_text.done", **at, "text": "".join(pieces)},
        {"type": "response.content_part.done", **at, "part": item["content"][0]},
        done(place, item),
    ]


def terminal(kind: str = "completed", items: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """The end."""
    return {"type": f"response.{kind}", "response": {"id": "resp_1", "status": kind, "output": items or [], **more}}


def responses(*events: Any, end: Any = None) -> bytes:
    """A stream of Responses."""
    return sse(CREATED, *events, end or terminal())


@row(107)
def the_role_once(rig: Rig) -> None:
    """SDKs concatenate."""
    found = rig.streamed("chat", "responses", responses(*text_events(0, "m", "a", "b", "c")))
    assert ["role" in one for one in deltas(found)] == [True] + [False] * (len(deltas(found)) - 1)
    assert content(found) == "abc"


@row(121)
def text_while_a_call_is_open(rig: Rig) -> None:
    """Behind it."""
    one = call_item("f1", '{"a":1}')
    stream = responses(
        added(0, one, arguments="", status="in_progress"),
        delta("function_call_arguments", "f1", 0, '{"a"'),
        *text_events(1, "m", "hi"),
        delta("function_call_arguments", "f1", 0, ":1}"),
        done(0, one),
    )
    assert blocks(rig.streamed("claude", "responses", stream)) == [("tool_use", '{"a":1}'), ("text", "hi")]


def reasoning_item(*summaries: str, encrypted: str = FERNET) -> dict[str, Any]:
    """Reasoning."""
    summary = [{"type": "summary_text", "text": text} for text in summaries]
    return {"id": "rs", "type": "reasoning", "summary": summary, "encrypted_content": encrypted}


@row(126)
def parts_of_summaries(rig: Rig) -> None:
    """A blank line between them, none behind."""
    events: list[Any] = [added(0, reasoning_item(), summary=[])]
    for number, text in enumerate(("one", "two", "")):
        at = {"item_id": "rs", "output_index": 0, "summary_index": number}
        empty = {"type": "summary_text", "text": ""}
        events.append({"type": "response.reasoning_summary_part.added", **at, "part": empty})
        if text:
            events.append({"type": "response.reasoning_summary_text.delta", **at, "delta": text})
        events.append({"type": "response.reasoning_summary_text.done", **at, "text": text})
    stream = responses(*events, done(0, reasoning_item("one", "two", "")), *text_events(1, "m", "hi"))
    assert blocks(rig.streamed("claude", "responses", stream)) == [("thinking", "one\n\ntwo"), ("text", "hi")]
    found = rig.streamed("chat", "responses", stream)
    assert "".join(one.get("reasoning_content") or "" for one in deltas(found)) == "one\n\ntwo"


@row(127)
def provisional_encrypted_content(rig: Rig) -> None:
    """Not what counts."""
    item = {key: value for key, value in reasoning_item("x").items() if key != "encrypted_content"}
    stream = responses(added(0, reasoning_item(encrypted=FERNET)), done(0, item), *text_events(1, "m", "hi"))
    for client in ("claude", "chat", "gemini"):
        rig.provider.says(stream)
        answer = rig.ask(client, "responses", plain(client), stream=True)
        assert FERNET not in answer.text
        assert "AFRTUDEA" not in answer.text


@row(128)
def only_a_signature(rig: Rig) -> None:
    """It survives, and goes back as it came."""
    stream = responses(added(0, reasoning_item()), done(0, reasoning_item()), *text_events(1, "m", "hi"))
    found = rig.streamed("claude", "responses", stream)
    assert blocks(found) == [("thinking", ""), ("text", "hi")]
    [signed] = [one["delta"]["signature"] for one in found if one.get("delta", {}).get("type") == "signature_delta"]
    turn = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "", "signature": signed}, {"type": "text", "text": "hi"}],
    }
    ask = plain("claude")["messages"]
    sent = rig.sent("claude", "responses", {"messages": [*ask, turn, *ask]})["input"]
    assert sent[1] == {"type": "reasoning", "summary": [], "encrypted_content": FERNET}
    details = [
        one for each in deltas(rig.streamed("chat", "responses", stream)) for one in each.get("reasoning_details", ())
    ]
    assert [one["data"] for one in details] == [FERNET]


@row(129)
def completed_without_output(rig: Rig) -> None:
    """From the items' own events."""
    stream = responses(*text_events(0, "m", "hi"), done(1, call_item("f1")))
    answer = rig.whole("chat", "responses", stream)
    assert answer["choices"][0]["message"]["content"] == "hi"
    assert len(answer["choices"][0]["message"]["tool_calls"]) == 1
    assert finishes(rig.streamed("chat", "responses", stream)) == ["tool_calls"]


@row(130)
def only_in_completed(rig: Rig) -> None:
    """Once."""
    found = rig.streamed(
        "chat", "responses", responses(end=terminal(items=[text_item("m", "hi"), call_item("f1", '{"a":1}')]))
    )
    assert (content(found), calls(found)) == ("hi", [("f", '{"a":1}')])


@row(131)
def in_done_and_completed(rig: Rig) -> None:
    """Once."""
    items = [text_item("m", "hi"), call_item("f1")]
    stream = responses(*text_events(0, "m", "hi"), done(1, call_item("f1")), end=terminal(items=items))
    found = rig.streamed("chat", "responses", stream)
    assert (content(found), calls(found)) == ("hi", [("f", "{}")])
    assert blocks(rig.streamed("claude", "responses", stream)) == [("text", "hi"), ("tool_use", "{}")] or blocks(
        rig.streamed("claude", "responses", stream)
    ) == [("text", "hi"), ("tool_use", "")]


@row(132)
def failures(rig: Rig) -> None:
    """Each client's own error, at once and later."""
    failure = terminal("failed", error={"code": "rate_limit_exceeded", "message": "slow down"})
    for client, wanted in (("chat", 429), ("claude", 429), ("gemini", 429)):
        status, error = failed(rig, client, "responses", responses(end=failure))
        assert (status, error["message"]) == (wanted, "slow down")
    later = responses(*text_events(0, "m", "hi")[:-2], end=failure)
    assert rig.streamed("chat", "responses", later)[-1]["error"]["type"] == "rate_limit_error"
    assert rig.streamed("claude", "responses", later)[-1]["error"]["type"] == "rate_limit_error"
    assert rig.streamed("gemini", "responses", later)[-1]["error"]["status"] == "RESOURCE_EXHAUSTED"


@row(133)
def incomplete_with_a_call(rig: Rig) -> None:
    """Not one that may be made."""
    item = {**call_item("f1", '{"a'), "status": "incomplete"}
    end = terminal("incomplete", items=[item], incomplete_details={"reason": "max_output_tokens"})
    stream = responses(added(0, item, arguments=""), delta("function_call_arguments", "f1", 0, '{"a'), end=end)
    assert stop_of(rig.streamed("claude", "responses", stream)) == "max_tokens"
    assert finishes(rig.streamed("chat", "responses", stream)) == ["length"]


@row(134)
def refusals(rig: Rig) -> None:
    """As the vendor says them."""
    stream = responses(
        added(0, text_item("m", "", "refusal"), content=[]),
        {
            "type": "response.content_part.added",
            "item_id": "m",
            "output_index": 0,
            "content_index": 0,
            "part": {"type": "refusal", "refusal": ""},
        },
        delta("refusal", "m", 0, "I won't", content_index=0),
        done(0, text_item("m", "I won't", "refusal")),
    )
    found = rig.streamed("chat", "responses", stream)
    assert "".join(one.get("refusal") or "" for one in deltas(found)) == "I won't"
    assert (content(found), finishes(found)) == ("", ["stop"])
    found = rig.streamed("claude", "responses", stream)
    assert (blocks(found), stop_of(found)) == ([("text", "I won't")], "refusal")
    found = rig.streamed("gemini", "responses", stream)
    assert (parts(found)[0]["text"], found[-1]["candidates"][0]["finishReason"]) == ("I won't", "SAFETY")


@row(135)
def refusal_as_a_stop(rig: Rig) -> None:
    """The filter's."""
    last = rig.streamed("responses", "claude", claude(*text_block(0, "no"), end=ended("refusal")))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "content_filter"}


@row(152)
def annotations(rig: Rig) -> None:
    """In one chunk."""
    events = text_events(0, "m", "see here")
    cite = {"type": "url_citation", "url": "https://x.test", "title": "X", "start_index": 0, "end_index": 3}
    for number in range(2):
        events.insert(
            3 + number,
            {
                "type": "response.output_text.annotation.added",
                "item_id": "m",
                "output_index": 0,
                "content_index": 0,
                "annotation_index": number,
                "annotation": cite,
            },
        )
    events[-1]["item"]["content"][0]["annotations"] = [cite, cite]
    found = [
        one["annotations"]
        for one in deltas(rig.streamed("chat", "responses", responses(*events)))
        if "annotations" in one
    ]
    assert len(found) == 1
    assert found[0][0]["url_citation"]["url"] == "https://x.test"


@row(155)
def sequence_numbers(rig: Rig) -> None:
    """From 0, without a gap, whoever answers."""
    thinking = block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm"})
    streams = {
        "claude": claude(*thinking, *text_block(1, "a"), *tool_block(2, "{}"), end=ended("tool_use")),
        "gpt": chat(chunk({"content": "a"}), chunk(None, "stop")),
        "gemini": sse({"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}),
    }
    for model, stream in streams.items():
        assert output(rig.streamed("responses", model, stream))


@row(160)
def whole_answers_of_a_provider_that_streams(rig: Rig) -> None:
    """Folded."""
    stream = responses(
        *text_events(0, "m", "a", "b"), end=terminal(usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
    )
    assert rig.whole("claude", "responses", stream)["content"] == [{"type": "text", "text": "ab"}]
    assert rig.asked().json["stream"] is True
    assert rig.whole("gemini", "responses", stream)["candidates"][0]["content"]["parts"] == [{"text": "ab"}]
