"""Log probabilities: read, written, cut with their text, and the same in every dialect that knows them."""

import json
from typing import Any

import pytest
from google.genai import types as google
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseTextDeltaEvent, ResponseTextDoneEvent

from cpa.formats.names import Format
from cpa.translation.filters import StopGuard
from cpa.translation.ir import BlockKind, Close, Delta, End, IREvent, Open, Start, Stop, StopReason, TokenProb
from cpa.translation.logprobs import UNLIKELY, covered, read_gemini, read_openai, write_gemini, write_openai
from cpa.translation.normalizer import Normalizer
from cpa.translation.registry import StreamSession, translate_full, translate_request
from tests.translation.answers import events_of
from tests.translation.support import make_context, make_request

CHAT, RESPONSES, GEMINI, CLAUDE = Format.OPENAI, Format.OPENAI_RESPONSE, Format.GEMINI, Format.CLAUDE
KNOWING = (CHAT, RESPONSES, GEMINI)
PIECES = ("Gr", "üße", "!")
LOGPROBS = (-0.5, -1.25, -0.25)


def openai_token(text: str, logprob: float) -> dict[str, Any]:
    other = {"token": "x", "logprob": -9.5, "bytes": [120]}
    same = {"token": text, "logprob": logprob, "bytes": list(text.encode())}
    return {**same, "top_logprobs": [same, other]}


TOKENS = [openai_token(text, logprob) for text, logprob in zip(PIECES, LOGPROBS, strict=True)]


def gemini_result(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    def candidate(token: dict[str, Any]) -> dict[str, Any]:
        return {"token": token["token"], "logProbability": token["logprob"]}

    return {
        "chosenCandidates": [candidate(token) for token in tokens],
        "topCandidates": [{"candidates": [candidate(other) for other in token["top_logprobs"]]} for token in tokens],
    }


def data(events: list[dict[str, Any]]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def provider_stream(provider: Format) -> bytes:
    """An answer of `PIECES`, a token each."""
    if provider is CHAT:
        shared = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

        def chunk(delta: Any, tokens: Any, finish: str | None = None) -> dict[str, Any]:
            logprobs = None if tokens is None else {"content": tokens, "refusal": None}
            return {
                **shared,
                "choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}],
            }

        said = [chunk({"content": text}, [token]) for text, token in zip(PIECES, TOKENS, strict=True)]
        first = chunk({"role": "assistant", "content": ""}, {"content": []})
        return data([first, *said, chunk({}, None, "stop")]) + b"data: [DONE]\n\n"
    if provider is GEMINI:
        frames = [
            {
                "candidates": [
                    {"content": {"role": "model", "parts": [{"text": text}]}, "logprobsResult": gemini_result([token])}
                ],
                "responseId": "g1",
            }
            for text, token in zip(PIECES, TOKENS, strict=True)
        ]
        return data([*frames, {"candidates": [{"finishReason": "STOP", "index": 0}]}])
    where = {"item_id": "m1", "output_index": 0, "content_index": 0}
    item = whole_response()["output"][0]
    text = "".join(PIECES)
    return data(
        [
            {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
            *(
                {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": [token]}
                for piece, token in zip(PIECES, TOKENS, strict=True)
            ),
            {"type": "response.output_text.done", **where, "text": text, "logprobs": TOKENS},
            {"type": "response.content_part.done", **where, "part": item["content"][0]},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": whole_response()},
        ]
    )


def whole_response() -> dict[str, Any]:
    part = {"type": "output_text", "text": "".join(PIECES), "annotations": [], "logprobs": TOKENS}
    message = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": [message]}


def provider_answer(provider: Format) -> bytes:
    """The same, whole."""
    text = "".join(PIECES)
    if provider is CHAT:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": {"content": TOKENS, "refusal": None},
            "finish_reason": "stop",
        }
        return json.dumps({"id": "c1", "object": "chat.completion", "model": "m", "choices": [choice]}).encode()
    if provider is GEMINI:
        candidate = {
            "content": {"role": "model", "parts": [{"text": text}]},
            "finishReason": "STOP",
            "avgLogprobs": -0.66,
            "logprobsResult": gemini_result(TOKENS),
        }
        return json.dumps({"candidates": [candidate]}).encode()
    return json.dumps(whole_response()).encode()


def plainly(tokens: Any) -> list[tuple[str, float, list[tuple[str, float]]]]:
    """Tokens of a client's types, as `TOKENS` say them."""
    return [
        (token.token, token.logprob, [(other.token, other.logprob) for other in token.top_logprobs]) for token in tokens
    ]


EXPECTED = [(text, logprob, [(text, logprob), ("x", -9.5)]) for text, logprob in zip(PIECES, LOGPROBS, strict=True)]
DIRECTIONS = [(provider, client) for provider in KNOWING for client in KNOWING]


@pytest.mark.parametrize(("provider", "client"), DIRECTIONS)
def test_streams_carry_them(provider: Format, client: Format) -> None:
    """Each beside its text; the vendor's own accumulator adds them up."""
    session = StreamSession(make_context(client, provider))
    out = session.feed(provider_stream(provider)) + session.finish()
    found = [event for _, event in events_of(out) if isinstance(event, dict) and "done" not in event]
    if client is CHAT:
        state = ChatCompletionStreamState()
        for event in found:
            state.handle_chunk(ChatCompletionChunk.model_validate(event))
        choice = state.get_final_completion().choices[0]
        assert choice.message.content == "".join(PIECES)
        assert choice.logprobs is not None
        assert plainly(choice.logprobs.content) == EXPECTED
    elif client is RESPONSES:
        deltas = [e for e in found if e["type"] == "response.output_text.delta"]
        told = [ResponseTextDeltaEvent.model_validate(event) for event in deltas]
        assert [event.delta for event in told] == list(PIECES)
        assert [one for event in told for one in plainly(event.logprobs)] == EXPECTED
        [done] = [e for e in found if e["type"] == "response.output_text.done"]
        assert plainly(ResponseTextDoneEvent.model_validate(done).logprobs) == EXPECTED
        part: Any = Response.model_validate(found[-1]["response"]).output[0]
        assert plainly(part.content[0].logprobs) == EXPECTED
    else:
        frames = [google.GenerateContentResponse.model_validate(event) for event in found]
        assert [frame.text for frame in frames] == [*PIECES, ""]
        assert [one for frame in frames for one in google_tokens(frame)] == EXPECTED
        last = frames[-1].candidates
        assert last
        assert last[0].avg_logprobs == pytest.approx(sum(LOGPROBS) / 3)


@pytest.mark.parametrize(("provider", "client"), DIRECTIONS)
def test_whole_answers_carry_them(provider: Format, client: Format) -> None:
    """As the vendor's types want them."""
    answer = json.loads(translate_full(provider_answer(provider), make_context(client, provider)))
    if client is CHAT:
        choice = ChatCompletion.model_validate(answer).choices[0]
        assert choice.logprobs is not None
        assert plainly(choice.logprobs.content) == EXPECTED
        assert choice.logprobs.content is not None
        assert choice.logprobs.content[1].bytes == list("üße".encode())
    elif client is RESPONSES:
        part: Any = Response.model_validate(answer).output[0]
        assert plainly(part.content[0].logprobs) == EXPECTED
    else:
        found = google.GenerateContentResponse.model_validate(answer)
        assert google_tokens(found) == EXPECTED
        assert found.candidates
        assert found.candidates[0].avg_logprobs == pytest.approx(sum(LOGPROBS) / 3)


def google_tokens(found: google.GenerateContentResponse) -> list[tuple[str, float, list[tuple[str, float]]]]:
    [candidate] = found.candidates or []
    result: Any = candidate.logprobs_result
    if result is None:
        return []
    return [
        (
            chosen.token,
            chosen.log_probability,
            [(other.token, other.log_probability) for other in step.candidates],
        )
        for chosen, step in zip(result.chosen_candidates, result.top_candidates, strict=True)
    ]


@pytest.mark.parametrize("provider", KNOWING)
def test_claude_clients_do_not_hear_of_them(provider: Format) -> None:
    """Their protocol has no place, and nothing of them breaks it."""
    session = StreamSession(make_context(CLAUDE, provider))
    assert b"logprob" not in session.feed(provider_stream(provider)) + session.finish()
    assert b"logprob" not in translate_full(provider_answer(provider), make_context(CLAUDE, provider))


@pytest.mark.parametrize("client", KNOWING)
def test_who_does_not_get_them_is_told(client: Format) -> None:
    """Claude has none, codex does not give them out; everybody else is asked, and nothing is lost."""
    bodies: dict[Format, dict[str, Any]] = {
        CHAT: {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 2},
        RESPONSES: {"input": "hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2},
        GEMINI: {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "generationConfig": {"responseLogprobs": True, "logprobs": 2},
        },
    }
    body = json.dumps({"model": "m", **bodies[client]}).encode()
    for provider in (CHAT, RESPONSES, GEMINI, CLAUDE):
        ctx = make_context(client, provider)
        sent = json.loads(translate_request(body, ctx))
        lost = [loss.path for loss in ctx.losses]
        assert ("logprobs" in lost) is (provider is CLAUDE), (provider, lost)
        asked = {
            CHAT: (sent.get("logprobs"), sent.get("top_logprobs")),
            RESPONSES: ("message.output_text.logprobs" in sent.get("include", ()), sent.get("top_logprobs")),
            GEMINI: tuple(sent.get("generationConfig", {}).get(name) for name in ("responseLogprobs", "logprobs")),
        }
        assert provider is CLAUDE or asked[provider] == (True, 2)


# --- odd ones --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_left_out() -> None:
    """Never the text beside it."""
    good = json.dumps(TOKENS[0])
    odd = '{"token": 7, "logprob": 1}, null, {"token": "no"}, {"token": "b", "logprob": -1, "bytes": [300]}'
    assert [found.token for found in read_openai(f"[{good}, {odd}]".encode())] == ["Gr", "b"]
    assert [read_openai(raw) for raw in (b"", b"null", b"[]", b"{}", b"[[[[", b'"x"')] == [()] * 6
    assert [read_gemini(raw) for raw in (b"null", b"[]", b"{}", b'{"chosenCandidates":7}')] == [()] * 4
    assert read_gemini(b'{"chosenCandidates":[{}]}') == (TokenProb(token="", logprob=0.0),)  # Google leaves zeros out
    assert write_openai(read_gemini(b'{"chosenCandidates":[{"token":"a","tokenId":5,"logProbability":-1}]}')) == [
        {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    ]


def test_dialects_keep_what_they_know() -> None:
    """There and back."""
    assert write_openai(read_openai(json.dumps(TOKENS).encode())) == TOKENS
    told = {"chosenCandidates": [{"token": "a", "logProbability": -1.0, "tokenId": 5}]}
    assert write_gemini(read_gemini(json.dumps(told).encode())) == told
    assert UNLIKELY < -1000


@given(st.lists(st.text(max_size=3), max_size=6), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_tokens_are_cut_where_their_text_is(texts: list[str], place: int) -> None:
    """A token that the cut goes through belongs to neither side's beginning."""
    probs = [TokenProb(token=text, logprob=-1.0) for text in texts]
    whole = "".join(texts)
    count = covered(probs, whole[:place])
    assert whole[:place].startswith("".join(texts[:count]))
    assert count == len(probs) or len("".join(texts[: count + 1])) > len(whole[:place])


def events(*deltas: Delta) -> list[IREvent]:
    return [
        Start(),
        Open(b=0, kind=BlockKind.TEXT),
        *deltas,
        Close(b=0),
        Stop(reason=StopReason.STOP),
        End(),
    ]


def prob(token: str) -> TokenProb:
    return TokenProb(token=token, logprob=-1.0)


def told(found: list[IREvent]) -> list[tuple[str, list[str]]]:
    return [(event.s, [one.token for one in event.probs]) for event in found if isinstance(event, Delta)]


def test_those_that_come_without_text_wait_for_it() -> None:
    """Pieces of a character come as tokens without text; and some hosts tell all at the end."""
    early = Normalizer(make_context()).feed(
        events(Delta(b=0, s="", probs=(prob("a"),)), Delta(b=0, s="ab", probs=(prob("b"),)))
    )
    assert told(early) == [("ab", ["a", "b"])]
    late = Normalizer(make_context()).feed(events(Delta(b=0, s="ab"), Delta(b=0, s="", probs=(prob("ab"),))))
    assert told(late) == [("ab", []), ("", ["ab"])]
    nothing = Normalizer(make_context()).feed(events(Delta(b=0, s="", probs=(prob("ab"),))))
    assert told(nothing) == []


def test_a_stop_sequence_takes_its_tokens_with_it() -> None:
    """What the client does not see it does not hear the odds of."""
    guard = StopGuard(["END"])
    deltas = [Delta(b=0, s=text, probs=(prob(text),)) for text in ("so ", "E", "x", " E", "ND", " no")]
    found = [passed for event in events(*deltas) for passed in guard.feed(event)]
    assert "".join(text for text, _ in told(found)) == "so Ex "
    assert [token for _, tokens in told(found) for token in tokens] == ["so ", "E", "x"]
    kept = StopGuard(["END"])
    found = [passed for event in events(*deltas[:2]) for passed in kept.feed(event)]
    assert told(found) == [("so ", ["so "]), ("E", ["E"])]


def test_those_of_reasoning_and_calls_are_nobodys() -> None:
    """Some hosts tell them in the place of the text's."""
    chunks: list[dict[str, Any]] = [
        {"reasoning_content": "hm"},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
        {"content": "ok"},
    ]
    frames = [
        {"id": "c", "choices": [{"index": 0, "delta": delta, "logprobs": {"content": [TOKENS[0]]}}]} for delta in chunks
    ]
    ctx = make_context(RESPONSES, CHAT)
    ctx.request = make_request(RESPONSES)
    session = StreamSession(ctx)
    out = session.feed(data(frames)) + session.feed(
        b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n'
    )
    out += session.finish()
    told_with = [
        (event["delta"], len(event["logprobs"])) for _, event in events_of(out) if event.get("logprobs") is not None
        and "delta" in event
    ]  # fmt: skip
    assert told_with == [("ok", 1)]


def test_a_refusals_are_the_refusals() -> None:
    """In Chat; Responses has no place for them."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": "no"},
        "logprobs": {"content": None, "refusal": [TOKENS[0]]},
        "finish_reason": "stop",
    }
    body = json.dumps({"id": "c", "choices": [choice]}).encode()
    found = json.loads(translate_full(body, make_context(CHAT, CHAT)))["choices"][0]["logprobs"]
    assert found == {"content": None, "refusal": [TOKENS[0]]}
    assert b"logprobs" not in translate_full(body, make_context(RESPONSES, CHAT))


def test_late_ones_of_responses_count_once() -> None:
    """Hosts that tell them in the finished part only."""
    stream = provider_stream(RESPONSES)
    bare = stream.replace(b'"logprobs": [' + json.dumps(TOKENS[0]).encode() + b"]}", b'"logprobs": []}')
    for token in TOKENS[1:]:
        bare = bare.replace(b'"logprobs": [' + json.dumps(token).encode() + b"]}", b'"logprobs": []}')
    session = StreamSession(make_context(CHAT, RESPONSES))
    out = session.feed(bare) + session.finish()
    state = ChatCompletionStreamState()
    for _, event in events_of(out):
        if "done" not in event:
            state.handle_chunk(ChatCompletionChunk.model_validate(event))
    logprobs = state.get_final_completion().choices[0].logprobs
    assert logprobs is not None
    assert plainly(logprobs.content) == EXPECTED
