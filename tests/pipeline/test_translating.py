"""Native translation inside the pipeline: where plugins meet it, what clients hear of losses, counts, folds."""

import json
from collections.abc import Iterable
from typing import Any

import attrs
import pytest

from cpa.errors import CpaError
from cpa.formats.names import Format
from cpa.pipeline.completions import open_completions
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.runner import open_answer
from cpa.pipeline.stage import InterceptChunkResult, Registration, StageKind
from cpa.pipeline.translating import TranslationServices
from cpa.testing.fakes import FakeAnswer, FakeExecutor, candidate, services
from cpa.translation.context import TranslationSettings
from cpa.translation.loss import StrictLoss
from cpa.types import Operation, UpstreamCall
from tests.pipeline.support import register, request

HELLO = b'{"model":"m1","messages":[{"role":"user","content":"hi"}]}'
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "real",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
FRAMES = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in EVENTS]


def claude(calls: list[UpstreamCall] | None = None) -> FakeExecutor:
    """A Claude provider that says Hello."""

    def answer(call: UpstreamCall) -> FakeAnswer:
        return FakeAnswer(FRAMES if call.stream else [json.dumps(MESSAGE).encode()])

    return FakeExecutor(Format.CLAUDE, answer)


async def run(
    executor: FakeExecutor,
    ask: ModelRequest,
    stages: Iterable[Registration] = (),
    *,
    settings: TranslationSettings | None = None,
) -> tuple[bytes, dict[bytes, bytes]]:
    """Body and headers for the client."""
    error: CpaError | None = None
    async with open_completions() as completions:
        made = services([candidate(executor, model="real")], completions, stages)
        made = attrs.evolve(made, translation=TranslationServices(settings=settings or TranslationSettings()))
        try:
            async with open_answer(ask, made) as answer:
                frames = [] if answer.stream is None else [frame async for frame in answer.stream]
                return answer.body + b"".join(frames), dict(answer.headers)
        except CpaError as exc:
            error = exc
    assert error is not None
    raise error


def chunks(body: bytes) -> list[Any]:
    """The JSON of a Chat stream, which has to end as one."""
    *events, done, rest = body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


async def test_normalizers_see_the_providers_protocol_around_the_translation() -> None:
    """plugin-abi 6.3 and 6.4: after the request's translation, before and after the answer's."""
    seen: list[Any] = []
    executor = claude()
    stages = [
        register(StageKind.REQUEST_NORMALIZE, "n", lambda call: call.body.replace(b'"hi"', b'"ho"'), seen=seen),
        register(StageKind.REQUEST_TRANSLATE, "n", seen=seen),
        register(StageKind.RESPONSE_NORMALIZE_BEFORE, "n", lambda call: call.body.replace(b"Hello", b"HEY"), seen=seen),
        register(StageKind.RESPONSE_TRANSLATE, "n", seen=seen),
        register(StageKind.RESPONSE_NORMALIZE_AFTER, "n", lambda call: call.body.replace(b"HEY", b"Good"), seen=seen),
    ]
    body, _ = await run(executor, request(body=HELLO), stages)
    assert json.loads(body)["choices"][0]["message"]["content"] == "Good"
    sent = json.loads(b"".join(executor.calls[0].body))
    assert (sent["model"], sent["messages"][0]["content"][0]["text"]) == ("real", "ho")
    normalized, before, after = (call for _, call in seen)
    assert (normalized.from_format, normalized.to_format) == ("openai", "claude")
    assert (before.from_format, before.to_format) == ("claude", "openai")
    assert b'"stop_reason"' in before.body
    assert b'"chat.completion"' in after.body


async def test_stream_stages_see_units_of_both_sides() -> None:
    """Lines of the provider before, bare chunks of the client after; the end mark stays ours."""
    seen: list[Any] = []

    def shout(call: Any) -> InterceptChunkResult:
        return InterceptChunkResult(body=call.body.replace(b'"Hel"', b'"HEL"'))

    stages = [
        register(StageKind.RESPONSE_NORMALIZE_BEFORE, "n", seen=seen),
        register(StageKind.INTERCEPT_CHUNK, "i", shout),
    ]
    body, _ = await run(claude(), request(stream=True, body=HELLO), stages)
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks(body) for choice in chunk["choices"])
    assert text == "HELlo"
    assert {call.body[:6] for _, call in seen} >= {b"event:", b"data: ", b""}


async def test_without_stages_a_stream_is_translated_too() -> None:
    """And ends as the client's do."""
    body, _ = await run(claude(), request(stream=True, body=HELLO))
    found = chunks(body)
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert {chunk["model"] for chunk in found} == {"m1"}


async def test_losses_are_named_where_the_operator_wants_it() -> None:
    """In a header, or as a refusal that names the members; else nobody is bothered."""
    ask = request(body=HELLO[:-1] + b',"seed":7,"logit_bias":{"1":1}}')
    _, headers = await run(claude(), ask)
    assert b"x-cpa-loss" not in headers
    _, headers = await run(claude(), ask, settings=TranslationSettings(report_losses=True))
    assert b"seed" in headers[b"x-cpa-loss"]
    assert b"logit_bias" in headers[b"x-cpa-loss"]
    with pytest.raises(StrictLoss) as caught:
        await run(claude(), ask, settings=TranslationSettings(strict=True))
    assert {loss.path for loss in caught.value.losses} == {"seed", "logit_bias"}
    assert caught.value.http_status == 400


async def test_counts_come_from_the_provider_or_are_estimated() -> None:
    """A provider that counts is asked in its own words; for others the answer says that it is an estimate."""
    counting = FakeExecutor(Format.GEMINI, lambda call: FakeAnswer([b'{"totalTokens":42}']))
    ask = request(format=Format.CLAUDE, body=HELLO, operation=Operation.COUNT_TOKENS)
    body, headers = await run(counting, ask)
    assert (json.loads(body), headers) == ({"input_tokens": 42}, {})
    wrapped = json.loads(b"".join(counting.calls[0].body))["generateContentRequest"]
    assert wrapped["model"] == "models/real"
    chat = FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([b"{}"]))
    body, headers = await run(chat, ask)
    assert 0 < json.loads(body)["input_tokens"] < 20
    assert headers[b"x-token-count"] == b"estimate"
    assert not chat.calls


async def test_a_provider_that_only_streams_answers_whole_to_those_who_do_not() -> None:
    """The codex dialect (translation 2.19)."""
    created = {
        "type": "response.created",
        "response": {"id": "resp_1", "model": "real", "output": [], "status": "in_progress"},
    }
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    item["content"] = [{"type": "output_text", "text": "Hello", "annotations": []}]  # type: ignore[assignment]
    done = {"id": "resp_1", "model": "real", "status": "completed", "output": [item]}
    done["usage"] = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    events = [created, {"type": "response.output_item.done", "output_index": 0, "item": item}]
    events.append({"type": "response.completed", "response": done})
    frames = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    executor = FakeExecutor(Format.CODEX, lambda call: FakeAnswer(frames))
    body, _ = await run(executor, request(body=HELLO))
    assert executor.calls[0].stream
    answer = json.loads(body)
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert answer["usage"]["total_tokens"] == 5
