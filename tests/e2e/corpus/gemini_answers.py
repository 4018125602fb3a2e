"""7.5, from Gemini's providers, and what all have in common: rows 136 to 142, 148, 154, 156, 157, 162."""

import base64
import json
from typing import Any

from tests.e2e.corpus.answers import (
    blocks,
    calls,
    chat,
    chunk,
    claude,
    content,
    ended,
    failed,
    finishes,
    output,
    stop_of,
    text_block,
    tool_block,
)
from tests.e2e.corpus.responses_answers import call_item, done, responses, text_events
from tests.e2e.corpus.rig import Rig, frames, plain, sse
from tests.e2e.corpus.table import row

USAGE = {"promptTokenCount": 1000, "cachedContentTokenCount": 800, "candidatesTokenCount": 35, "thoughtsTokenCount": 25}


def frame(*parts: Any, finish: str = "", **more: Any) -> dict[str, Any]:
    """A chunk of Gemini."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "g1", "modelVersion": "gm", **more}


def called(name: str = "f", **args: Any) -> dict[str, Any]:
    """A call of Gemini."""
    return {"functionCall": {"name": name, "args": args}}


@row(136)
def signed_text(rig: Rig) -> None:
    """It stays text, and takes its signature along."""
    stream = sse(frame({"text": "Hel"}), frame({"text": "lo", "thoughtSignature": "Q0FGRQ=="}, finish="STOP"))
    found = rig.streamed("claude", "gemini", stream)
    assert [one for one in blocks(found) if one[0] == "text"] == [("text", "Hello")]
    [signed] = [one["delta"]["signature"] for one in found if one.get("delta", {}).get("type") == "signature_delta"]
    ask = plain("claude")["messages"]
    content_back = [
        {"type": "text", "text": "Hello"}
        if kind == "text"
        else {"type": "thinking", "thinking": "", "signature": signed}
        for kind, _ in blocks(found)
    ]
    sent = rig.sent("claude", "gemini", {"messages": [*ask, {"role": "assistant", "content": content_back}, *ask]})
    assert sent["contents"][1]["parts"] == [{"text": "Hello", "thoughtSignature": "Q0FGRQ=="}]


@row(137)
def two_texts_at_once(rig: Rig) -> None:
    """Both."""
    assert content(rig.streamed("chat", "gemini", sse(frame({"text": "a"}, {"text": "b"}, finish="STOP")))) == "ab"


@row(138)
def calls_in_several_frames(rig: Rig) -> None:
    """0, 1, 2."""
    stream = sse(frame(called("a")), frame(called("b"), called("c", x=1), finish="STOP"))
    found = calls(rig.streamed("chat", "gemini", stream))
    assert [(name, json.loads(arguments)) for name, arguments in found] == [("a", {}), ("b", {}), ("c", {"x": 1})]


@row(139)
def usage_behind_the_finish(rig: Rig) -> None:
    """It is waited for."""
    stream = sse(frame({"text": "a"}, finish="STOP"), {"usageMetadata": USAGE})
    usage = rig.streamed("responses", "gemini", stream)[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (1000, 60)


@row(140)
def only_feedback(rig: Rig) -> None:
    """A refusal."""
    stream = sse({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}})
    assert finishes(rig.streamed("chat", "gemini", stream)) == ["content_filter"]
    assert stop_of(rig.streamed("claude", "gemini", stream)) == "refusal"
    assert rig.streamed("responses", "gemini", stream)[-1]["type"] == "response.incomplete"


@row(141)
def wrapped(rig: Rig) -> None:
    """A dialect."""
    stream = sse({"response": frame({"text": "a"})}, {"response": frame({"text": "b"}, finish="STOP")})
    assert content(rig.streamed("chat", "gemini", stream)) == "ab"


@row(142)
def malformed_calls(rig: Rig) -> None:
    """An empty success would hide them."""
    stream = sse({"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}]})
    for client in ("chat", "claude", "responses"):
        assert failed(rig, client, "gemini", stream)[0] == 502
    after = sse(frame({"text": "a"}, finish="MALFORMED_FUNCTION_CALL"))
    assert finishes(rig.streamed("chat", "gemini", after)) == ["stop"]


@row(148)
def usage_of_thoughts(rig: Rig) -> None:
    """Gemini's candidates are without them."""
    stream = sse(frame({"text": "a"}, finish="STOP", usageMetadata=USAGE))
    usage = rig.streamed("chat", "gemini", stream, stream_options={"include_usage": True})[-2]["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (60, 25)
    assert (usage["prompt_tokens"], usage["total_tokens"]) == (1000, 1060)


@row(154)
def images(rig: Rig) -> None:
    """Each client's own, or a word about them."""
    data = base64.b64encode(b"\x89PNG" + b"\x00" * 40).decode()
    stream = sse(frame({"inlineData": {"mimeType": "image/png", "data": data}}, finish="STOP"))
    [item] = output(rig.streamed("responses", "gemini", stream))
    assert (item["type"], item["status"], item["result"]) == ("image_generation_call", "completed", data)
    [(kind, written)] = blocks(rig.streamed("claude", "gemini", stream))
    assert kind == "text"
    assert written.startswith("[image generated: image/png")
    rig.provider.says(stream)
    answer = rig.ask("chat", "gemini", plain("chat"), stream=True)
    assert f"data:image/png;base64,{data}" in answer.text


STREAMS = {
    "claude": claude(*text_block(0, "grüße", "🙂"), *tool_block(1, '{"a"', ":1}"), end=ended("tool_use")),
    "gpt": chat(chunk({"content": "grü"}), chunk({"content": "ße🙂"}), chunk(None, "stop")),
    "gemini": sse(frame({"text": "grüße"}), frame({"text": "🙂"}, finish="STOP", usageMetadata=USAGE)),
    "responses": responses(*text_events(0, "m", "grüße", "🙂"), done(1, call_item("f1", '{"a":1}'))),
}
HOME = {"gpt": "chat", "claude": "claude", "gemini": "gemini", "responses": "responses"}


def _without_names(answer: Any) -> str:
    """What is the same each time: nothing that is made of chance or of the clock."""
    found = frames(answer.text)
    for one in found:
        for holder in (one, one.get("response", {})):
            for name in ("created", "created_at", "completed_at"):
                holder.pop(name, None)
    return json.dumps(found)


@row(156)
def cut_anywhere(rig: Rig) -> None:
    """The same bytes in other pieces; every cut of each is in `test_fuzz_streams`."""
    for model, stream in STREAMS.items():
        for client in HOME.values():
            if client == HOME[model]:
                continue
            seen = set()
            for size in (len(stream), 5):
                rig.provider.says(*(stream[at : at + size] for at in range(0, len(stream), size)))
                seen.add(_without_names(rig.ask(client, model, plain(client), stream=True)))
            assert len(seen) == 1
            assert "gr" in seen.pop()


@row(157)
def data_in_several_lines(rig: Rig) -> None:
    """Joined."""
    written = json.dumps(chunk({"content": "a"}), indent=1).replace("\n", "\r\ndata:").encode()
    stream = b"data:" + written + b"\r\n\r\n" + chat(chunk(None, "stop"))
    assert blocks(rig.streamed("claude", "gpt", stream)) == [("text", "a")]


@row(162)
def created(rig: Rig) -> None:
    """Not in 1970."""
    stream = sse(frame({"text": "a"}, finish="STOP"))
    assert rig.streamed("chat", "gemini", stream)[0]["created"] > 1_700_000_000
    assert (
        rig.whole("chat", "gemini", json.dumps(frame({"text": "a"}, finish="STOP")).encode())["created"] > 1_700_000_000
    )
