"""L1, L2, L3 and L5, and garbage, by Hypothesis."""

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import MalformedRequest, UpstreamProtocolError
from cpa.translation.gemini import SPOKE
from cpa.translation.ir import Err, IREvent
from cpa.translation.loss import Untranslatable
from cpa.translation.normalizer import Normalizer
from tests.translation.gemini.support import (
    CHAT,
    CLAUDE,
    GEM,
    GEM2,
    GEMINI,
    RESPONSES,
    fold,
    frame,
    frames_of,
    make_ctx,
    read_full,
    read_stream,
    round_trip,
    written,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
SIGNATURE = st.sampled_from([GEM, GEM2])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
BLOB = st.fixed_dictionaries(
    {"mimeType": st.sampled_from(["image/png", "audio/wav", "application/pdf"]), "data": st.just("AAAA")}
)
MEDIA = st.fixed_dictionaries({"inlineData": BLOB})
SAID = st.fixed_dictionaries({"text": TEXT})
SIGNED = st.fixed_dictionaries({"text": TEXT, "thoughtSignature": SIGNATURE})
THOUGHT = st.fixed_dictionaries({"text": TEXT, "thought": st.just(True), "thoughtSignature": SIGNATURE})


# --- L1: requests ----------------------------------------------------------------------------------------------------


@st.composite
def contents(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Well-formed conversations: alternating, every call answered, the first call of a turn signed."""
    turns: list[dict[str, Any]] = []
    number = 0
    said = draw(st.lists(SAID | MEDIA, min_size=1, max_size=2))
    for _ in range(draw(st.integers(0, 3))):
        turns.append({"role": "user", "parts": said})
        parts = _apart(draw(st.lists(SAID | SIGNED | THOUGHT, min_size=1, max_size=3)))
        responses = []
        for place in range(draw(st.integers(0, 2))):
            number += 1
            call: dict[str, Any] = {"functionCall": {"id": f"i{number}", "name": draw(NAME), "args": draw(OBJECT)}}
            if not place:
                call["thoughtSignature"] = draw(SIGNATURE)
            parts.append(call)
            response = {"id": f"i{number}", "name": call["functionCall"]["name"], "response": draw(OBJECT)}
            responses.append({"functionResponse": response})
        turns.append({"role": "model", "parts": parts})
        said = responses + draw(st.lists(SAID | MEDIA, min_size=0 if responses else 1, max_size=2))
    return [*turns, {"role": "user", "parts": said}]


def _apart(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without adjacent plain texts, which are one."""
    return [part for n, part in enumerate(parts) if not (n and set(part) == set(parts[n - 1]) == {"text"})]


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = {"contents": draw(contents())}
    names = draw(st.lists(NAME, max_size=3, unique=True))
    if names:
        declared = [
            {
                "name": name,
                "description": "d",
                draw(st.sampled_from(["parameters", "parametersJsonSchema"])): draw(OBJECT),
            }
            for name in names
        ]
        body["tools"] = [{"functionDeclarations": declared}]
        calling = draw(
            st.sampled_from(
                [
                    None,
                    {"mode": "AUTO"},
                    {"mode": "NONE"},
                    {"mode": "ANY"},
                    {"mode": "VALIDATED"},
                    {"mode": "ANY", "allowedFunctionNames": names},
                ]
            )
        )
        if calling:
            body["toolConfig"] = {"functionCallingConfig": calling}
    optional = {
        "systemInstruction": st.builds(
            lambda texts: {"parts": [{"text": t} for t in texts]}, st.lists(TEXT, min_size=1, max_size=2)
        ),
        "safetySettings": st.just([{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]),
        "serviceTier": st.sampled_from(["standard", "flex", "priority"]),
        "cachedContent": st.just("cachedContents/1"),
        "labels": st.just({"a": "b"}),
        "store": st.booleans(),
        "generationConfig": st.fixed_dictionaries(
            {"temperature": st.floats(0, 2, allow_nan=False)},
            optional={
                "topP": st.floats(0, 1),
                "topK": st.integers(1, 100),
                "candidateCount": st.integers(1, 4),
                "maxOutputTokens": st.integers(1, 9999),
                "stopSequences": st.lists(TEXT, min_size=1, max_size=5),
                "seed": st.integers(-(2**31), 2**31 - 1),
                "presencePenalty": st.floats(-2, 2),
                "frequencyPenalty": st.floats(-2, 2),
                "responseLogprobs": st.just(True),
                "logprobs": st.integers(0, 5),
                "responseModalities": st.sampled_from([["TEXT"], ["TEXT", "IMAGE"], ["AUDIO"]]),
                "imageConfig": st.just({"aspectRatio": "1:1"}),
                "speechConfig": st.just({"languageCode": "de"}),
                "mediaResolution": st.just("MEDIA_RESOLUTION_LOW"),
                "thinkingConfig": st.sampled_from(
                    [{"thinkingBudget": 0}, {"thinkingBudget": -1}, {"thinkingLevel": "HIGH", "includeThoughts": True}]
                ),
                "responseMimeType": st.just("application/json"),
            },
        ),
    }
    return {**body, **draw(st.fixed_dictionaries({}, optional=optional))}


@settings(max_examples=60, deadline=None)
@given(bodies())
def test_l1_a_request_comes_back_as_it_was(body: dict[str, Any]) -> None:
    """Round trip inside the protocol, and nothing is lost."""
    ctx = make_ctx()
    assert round_trip(body, ctx) == body
    assert ctx.losses == []


MEMBERS = (
    "contents",
    "role",
    "parts",
    "text",
    "thought",
    "thoughtSignature",
    "functionCall",
    "functionResponse",
    "name",
    "args",
    "id",
    "response",
    "inlineData",
    "data",
    "mimeType",
    "fileData",
    "fileUri",
    "tools",
    "functionDeclarations",
    "parameters",
    "toolConfig",
    "mode",
    "generationConfig",
    "functionCallingConfig",
    "allowedFunctionNames",
    "systemInstruction",
    "thinkingConfig",
    "thinkingBudget",
    "candidates",
    "content",
    "finishReason",
    "groundingMetadata",
    "groundingSupports",
    "segment",
    "usageMetadata",
    "promptFeedback",
    "blockReason",
    "error",
    "code",
    "message",
    "partialArgs",
    "jsonPath",
    "willContinue",
    "index",
    "executableCode",
)
SLOPPY = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x", "model", "AFRTUDEA", "f"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=15,
)
PARTS = st.lists(SLOPPY, max_size=4)


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "contents": st.lists(
                st.fixed_dictionaries({"role": st.sampled_from(["user", "model"]), "parts": PARTS}), max_size=4
            )
        },
        optional={"tools": SLOPPY, "generationConfig": SLOPPY, "toolConfig": SLOPPY, "systemInstruction": SLOPPY},
    )
    | SLOPPY,
    st.sampled_from([GEMINI, CHAT]),
)
def test_garbage_from_clients(body: object, provider: Any) -> None:
    """Is a request or a clear error; and what was read can be written, with roles in turn and counts equal."""
    ctx = make_ctx(provider=provider)
    data = json.dumps(body).encode()
    try:
        request = SPOKE.parse_request(data, ctx)
        out = json.loads(SPOKE.emit_request(request, ctx))
    except (MalformedRequest, Untranslatable):
        return
    assert_sound(out)
    again = make_ctx(provider=provider)
    assert json.loads(SPOKE.emit_request(SPOKE.parse_request(data, again), again)) == out


def assert_sound(body: dict[str, Any]) -> None:
    """What the finaliser of 2.18 demands."""
    turns = body["contents"]
    assert [turn["role"] for turn in turns] == [("user", "model")[n % 2] for n in range(len(turns))]
    assert turns[-1]["role"] == "user"
    for place, turn in enumerate(turns):
        assert turn["parts"]
        calls = [part["functionCall"] for part in turn["parts"] if "functionCall" in part]
        if turn["role"] == "user":
            assert calls == []
            continue
        answers = [part["functionResponse"] for part in turns[place + 1]["parts"] if "functionResponse" in part]
        assert [(one["id"], one["name"]) for one in calls] == [(one["id"], one["name"]) for one in answers]
        assert all(one["name"] and isinstance(one["args"], dict) for one in calls)
        assert all(isinstance(one["response"], dict) for one in answers)
    for tool in body.get("tools", []):
        for declared in tool.get("functionDeclarations", []):
            assert not {"parameters", "parametersJsonSchema"} <= declared.keys()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_bytes_from_clients(data: bytes) -> None:
    """No other exception."""
    with suppress(MalformedRequest, Untranslatable):
        SPOKE.parse_request(data, make_ctx(provider=CLAUDE))


# --- L2 and L3: answers ----------------------------------------------------------------------------------------------

CALL = st.builds(
    lambda name, args, sig: (
        {"functionCall": {"id": f"id_{name}", "name": name, "args": args}} | ({"thoughtSignature": sig} if sig else {})
    ),
    NAME,
    OBJECT,
    st.none() | SIGNATURE,
)
PLAIN_THOUGHT = st.fixed_dictionaries({"text": TEXT, "thought": st.just(True)})
LONE = st.fixed_dictionaries({"text": st.just(""), "thoughtSignature": SIGNATURE})
CODE = st.fixed_dictionaries({"executableCode": st.just({"code": "1"})})
ANSWER_PARTS = st.lists(SAID | SIGNED | THOUGHT | PLAIN_THOUGHT | LONE | CALL | MEDIA | CODE, max_size=8)
FINISH = st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER"])
USAGE = st.fixed_dictionaries(
    {"promptTokenCount": st.integers(0, 99), "candidatesTokenCount": st.integers(0, 99)},
    optional={"thoughtsTokenCount": st.integers(0, 99), "cachedContentTokenCount": st.integers(0, 9)},
)


@settings(max_examples=80, deadline=None)
@given(ANSWER_PARTS, FINISH, USAGE, st.lists(st.integers(0, 8), max_size=4))
def test_l2_a_whole_answer_equals_the_fold_of_its_stream(
    parts: list[dict[str, Any]], finish: str, usage: dict[str, int], cuts: list[int]
) -> None:
    """In Gemini's own protocol, however the provider spread its parts over frames (L3)."""
    body = frame(*parts, finish=finish, usageMetadata=usage, responseId="r", modelVersion="m")
    places = sorted({0, len(parts), *(cut for cut in cuts if cut < len(parts))})
    frames = [frame(*parts[a:b], responseId="r") for a, b in pairwise(places)]
    frames.append(frame(finish=finish, usageMetadata=usage, responseId="r"))
    ctx = make_ctx()
    full = SPOKE.emit_full(read_full(body, make_ctx()), ctx)
    assert json.loads(full) == fold(frames_of(written(read_stream(frames, make_ctx()), make_ctx())))
    kept = json.loads(full)
    if "candidates" in kept:
        assert kept["candidates"][0]["finishReason"] == finish
    assert kept["usageMetadata"]["promptTokenCount"] == usage["promptTokenCount"]


@settings(max_examples=80, deadline=None)
@given(ANSWER_PARTS.filter(bool), USAGE)
def test_an_answer_comes_back_as_it_was(parts: list[dict[str, Any]], usage: dict[str, int]) -> None:
    """Same text, same calls, same signatures: only their place in a part of their own may differ."""
    body = frame(*parts, finish="STOP", usageMetadata=usage)
    kept = json.loads(SPOKE.emit_full(read_full(body, make_ctx()), make_ctx()))["candidates"][0]["content"]["parts"]

    def said(found: list[dict[str, Any]], *, thought: bool) -> str:
        return "".join(part.get("text", "") for part in found if bool(part.get("thought")) is thought)

    def others(found: list[dict[str, Any]]) -> list[Any]:
        return [
            part[name] for part in found for name in ("functionCall", "inlineData", "executableCode") if name in part
        ]

    def signatures(found: list[dict[str, Any]]) -> list[str]:
        return [part["thoughtSignature"] for part in found if "thoughtSignature" in part]

    opaque = [part for part in parts if part.get("inlineData", {}).get("mimeType") == "application/pdf"]
    assert said(kept, thought=False) == said(parts, thought=False)
    assert said(kept, thought=True) == said(parts, thought=True)
    assert [one for one in others(kept) if "args" not in one] == [one for one in others(parts) if "args" not in one]
    assert [one["args"] for one in others(kept) if "args" in one] == [
        one["args"] for one in others(parts) if "args" in one
    ]
    assert signatures(kept) == signatures(parts)
    assert all(part in kept for part in opaque)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "candidates": st.lists(
                    st.fixed_dictionaries(
                        {"content": st.fixed_dictionaries({"parts": PARTS})},
                        optional={"finishReason": SLOPPY, "groundingMetadata": SLOPPY, "index": SLOPPY},
                    ),
                    max_size=3,
                )
                | SLOPPY,
                "promptFeedback": SLOPPY,
                "usageMetadata": SLOPPY,
                "response": SLOPPY,
                "error": SLOPPY,
            },
        )
        | SLOPPY,
        max_size=4,
    )
)
def test_garbage_from_providers(frames: list[Any]) -> None:
    """Events or an error of the provider's; and what a client gets of it is well-formed and ends."""
    ctx = make_ctx(client=GEMINI, provider=GEMINI)
    try:
        events = read_stream(frames, ctx)
    except UpstreamProtocolError:
        return
    found = frames_of(written(events, ctx))
    assert "error" in found[-1] or "finishReason" in json.dumps(found[-1]) or "promptFeedback" in found[-1]
    if not isinstance(events[-1], Err):
        assert json.loads(SPOKE.emit_full(events, make_ctx())) == {
            **fold(found),
            "responseId": json.loads(SPOKE.emit_full(events, make_ctx()))["responseId"],
        }


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_bytes_from_providers(data: bytes) -> None:
    """No other exception."""
    for read in (SPOKE.open_parser(make_ctx(client=CHAT)).feed, lambda name, body: SPOKE.parse_full(body, make_ctx())):
        with suppress(UpstreamProtocolError):
            read("", data)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_deep_nesting(depth: int) -> None:
    """Neither crashes nor takes long."""
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    for body in (
        b'{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f","args":' + nested + b"}}]}]}",
        nested,
    ):
        with suppress(MalformedRequest, Untranslatable):
            SPOKE.parse_request(body, make_ctx(provider=CLAUDE))
    for body in (
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":' + nested + b"}}]}}]}",
        nested,
    ):
        with suppress(UpstreamProtocolError):
            SPOKE.parse_full(body, make_ctx(client=RESPONSES))


def test_removing_any_frame_never_looks_worse_than_an_error() -> None:
    """Whatever is missing, the client's stream ends well or with an error."""
    frames = [
        frame({"text": "t", "thought": True}),
        frame({"text": "a"}),
        frame({"functionCall": {"name": "f", "args": {}}}),
        frame(finish="STOP"),
    ]
    for missing in range(len(frames)):
        ctx = make_ctx()
        events: list[IREvent] = read_stream(frames[:missing] + frames[missing + 1 :], ctx)
        last = frames_of(written(events, ctx))[-1]
        assert ("error" in last) is (missing == 3)
    assert isinstance(Normalizer(make_ctx()).finish()[-1], Err)
