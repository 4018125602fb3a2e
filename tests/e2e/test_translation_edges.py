"""What the driver of translation does around it: folding, unfolding, envelopes at home, the operator's choices."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cpa.translation.ir import Provenance, Sig, SigKind
from cpa.translation.signatures import wrap
from tests.e2e.corpus.rig import WHOLE, Rig, frames, open_rig, plain
from tests.e2e.corpus.table import a_tool, chat_tool, g, said, text, told, tool_result, tool_use, u
from tests.e2e.corpus.table import call as chat_call
from tests.translation.answers import STREAMS, sse

STRICT = """translation:
  strict: true
  gemini-default-safety: false
  claude-auto-cache: false
  gemini-url-media: placeholder
  report-provider-model: true
  responses-default-summary: auto
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One proxy, with what the operator gets who says nothing."""
    with open_rig() as found:
        yield found


@pytest.fixture(scope="module")
def strict() -> Iterator[Rig]:
    """One whose operator has an opinion."""
    with open_rig(STRICT) as found:
        yield found


# --- folding and unfolding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "streams"), [(16_000, False), (16_001, True), (None, True)])
@pytest.mark.parametrize("as_stream", [False, True])
def test_long_answers_of_claude_are_folded(rig: Rig, limit: int | None, streams: bool, as_stream: bool) -> None:
    """Silent requests that take minutes die in middleboxes. A server that answers with a body all the same is read."""
    if as_stream and streams:
        rig.provider.says(sse("claude", STREAMS["claude"]))
    else:
        rig.provider.says(WHOLE["/v1/messages"], content_type="application/json")
    body = said(u()) if limit is None else said(u(), max_tokens=limit)
    answer = rig.ask("chat", "claude", body)
    assert answer.status_code == 200, answer.text
    assert ("stream" in rig.asked().json) is streams
    message = answer.json()["choices"][0]["message"]
    assert message["content"] == ("Hello" if as_stream and streams else "ok")


def test_claudes_own_clients_are_not_folded(rig: Rig) -> None:
    """Their bytes pass."""
    assert "stream" not in rig.sent("claude", "claude", said(u(), max_tokens=64_000))


RESPONSE = (
    b'{"id":"resp_1","object":"response","status":"completed","model":"m","output":[{"id":"m1","type":"message",'
    b'"role":"assistant","status":"completed","content":[{"type":"output_text","text":"ok","annotations":[]}]}]}'
)
BODIES = {
    "gpt": WHOLE["/chat/completions"],
    "claude": WHOLE["/v1/messages"],
    "gemini": WHOLE[":generateContent"],
    "responses": RESPONSE,
}


@pytest.mark.parametrize("model", list(BODIES))
@pytest.mark.parametrize("client", ["chat", "responses", "claude", "gemini"])
def test_bodies_become_streams(rig: Rig, client: str, model: str) -> None:
    """In all sixteen directions (corpus 161)."""
    rig.provider.says(BODIES[model], content_type="application/json")
    answer = rig.ask(client, model, plain(client), stream=True)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    found = frames(answer.text)
    assert '"ok"' in answer.text
    last: dict[str, Any] = found[-1]
    ends = {
        "chat": last == {"done": True},
        "responses": last.get("type") == "response.completed",
        "claude": last.get("type") == "message_stop",
        "gemini": "candidates" in last,
    }
    assert ends[client]


def test_a_list_of_chunks_becomes_a_stream(rig: Rig) -> None:
    """Gemini's other form."""
    chunks = [json.loads(WHOLE[":generateContent"]), {"usageMetadata": {"totalTokenCount": 3, "promptTokenCount": 3}}]
    rig.provider.says(json.dumps(chunks).encode(), content_type="application/json")
    found = frames(rig.ask("chat", "gemini", plain("chat"), stream=True).text)
    assert [one["choices"][0]["delta"].get("content") for one in found[:-2]] == ["", "ok"]


@pytest.mark.parametrize(
    ("body", "status"), [(b'{"error":{"message":"no","code":429}}', 429), (b'{"x":1}', 502), (b"{", 502), (b"[1]", 502)]
)
@pytest.mark.parametrize("model", list(BODIES))
def test_what_is_no_answer_is_an_error(rig: Rig, model: str, body: bytes, status: int) -> None:
    """Also with status 200."""
    rig.provider.says(body, content_type="application/json")
    for client in ("chat", "claude"):
        answer = rig.ask(client, model, plain(client), stream=True)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"]


# --- envelopes -------------------------------------------------------------------------------------------------------


def test_conversations_may_change_their_provider(rig: Rig) -> None:
    """Our envelopes never reach a vendor, not even by a client of its own protocol, whose bytes would else pass."""
    sealed = wrap(Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==", of_call=True))
    thought = {"type": "thinking", "thinking": "", "signature": sealed}
    body = said(
        u(),
        {"role": "assistant", "content": [thought, tool_use("t1")]},
        u([tool_result("t1")]),
        tools=[a_tool()],
    )
    sent = rig.sent("claude", "claude", body)
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["tool_use"]
    assert sealed not in json.dumps(sent)
    items = [
        u(),
        {"type": "reasoning", "summary": [], "encrypted_content": sealed},
        {"role": "assistant", "content": "x"},
        u(),
    ]
    assert sealed not in json.dumps(rig.sent("responses", "responses", {"input": items}, stream=True))
    details = [{"type": "reasoning.encrypted", "index": 0, "data": sealed}]
    turn = {"role": "assistant", "content": None, "tool_calls": [chat_call("c1")], "reasoning_details": details}
    assert sealed not in json.dumps(rig.sent("chat", "gpt", said(u(), turn, told("c1"), tools=[chat_tool()])))
    parts = [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": sealed}]
    turns = [
        g("user", {"text": "hi"}),
        g("model", *parts),
        g("user", {"functionResponse": {"name": "f", "response": {}}}),
    ]
    [_, model, _] = rig.sent("gemini", "gemini", {"contents": turns})["contents"]
    assert model["parts"][0]["thoughtSignature"] == "Q0FGRQ=="


# --- the operator's choices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "model", "body", "named"),
    [
        ("chat", "claude", said(u(), seed=5), "seed"),
        ("chat", "gemini", said(u(), logit_bias={"1": 2}), "logit_bias"),
        ("responses", "gpt", {"input": "hi", "truncation": "auto"}, "truncation"),
        ("claude", "gpt", said(u([{**text("hi"), "cache_control": {"type": "ephemeral"}}])), "cache_control"),
        ("gemini", "claude", {"contents": [g("user", {"text": "x"})], "generationConfig": {"seed": 1}}, "seed"),
    ],
)
def test_strict_refuses_and_says_what(strict: Rig, client: str, model: str, body: Any, named: str) -> None:
    """A 400 of the client's own, which names the member."""
    assert named in strict.refused(client, model, body)["message"]


def test_choices_are_heard(strict: Rig) -> None:
    """Each of them changes what is sent, or what comes back."""
    assert "safetySettings" not in strict.sent("chat", "gemini", said(u()))
    assert "cache_control" not in strict.sent("chat", "claude", said(u(), tools=[chat_tool()]))
    assert strict.sent("chat", "responses", said(u(), reasoning_effort="low"))["reasoning"]["summary"] == "auto"
    strict.provider.says(WHOLE["/chat/completions"], content_type="application/json")
    assert strict.ask("claude", "gpt", said(u())).json()["model"] == "m"
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    assert "messages[0]" in strict.refused("chat", "gemini", said(u([image, text("hi")])))["message"]


def test_losses_are_named_in_a_header(rig: Rig) -> None:
    """Streamed and not."""
    for stream in (False, True):
        rig.sent("chat", "claude", said(u(), seed=5, presence_penalty=0.5), stream=stream)
        assert "seed dropped" in rig.losses
        assert "presence_penalty dropped" in rig.losses
    rig.sent("chat", "claude", said(u()))
    assert rig.losses == ""


@pytest.mark.parametrize(("model", "asks"), [("gpt", True), ("gemini", True), ("responses", False), ("claude", False)])
def test_log_probabilities_are_not_lost_in_silence(rig: Rig, model: str, asks: bool) -> None:
    """They are asked for where they can be: Claude knows none, codex gives none out."""
    sent = json.dumps(rig.sent("chat", model, said(u(), logprobs=True, top_logprobs=2)))
    assert ("logprobs dropped" in rig.losses) is not asks
    assert ("logprobs" in sent) is asks


@pytest.mark.parametrize(("model", "status"), [("gemini", 200), ("responses", 400), ("claude", 400)])
def test_under_strict_they_are_refused_where_there_are_none(strict: Rig, model: str, status: int) -> None:
    """And nowhere else."""
    strict.answer_anything(model)
    answer = strict.ask("chat", model, said(u(), logprobs=True))
    assert answer.status_code == status, answer.text
    assert status == 200 or "logprobs" in answer.json()["error"]["message"]
