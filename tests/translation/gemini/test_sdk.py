"""Google's own client reads what the emitter writes (L4), from a transport that is not the network."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types

from cpa.formats.streams import keepalive_frame
from cpa.translation.gemini import SPOKE, array_frames
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Meta,
    Open,
    Provenance,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)
from tests.translation.gemini.support import CLAUDE, GEM, GEMINI, make_ctx, written

CLAUDE_SIG = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EqQBCkYIBhgCKkCsig" * 10)
OWN_SIG = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data=GEM)
EVENTS: list[IREvent] = [
    Start(id="msg_9", model="p", created_unix=1),
    Open(b=0, kind=BlockKind.REASONING),
    Delta(b=0, s="hm"),
    SigEvent(b=0, sig=CLAUDE_SIG),
    Close(b=0),
    Open(b=1, kind=BlockKind.TEXT),
    Delta(b=1, s="Hä"),
    Delta(b=1, s="llo"),
    Ann(b=1, annotation=Annotation(kind="url", url="https://a.b", title="A", start=0, end=5)),
    Close(b=1),
    Open(b=2, kind=BlockKind.TOOL, meta=Meta(call_id="c1", name="f")),
    SigEvent(b=2, sig=OWN_SIG),
    Delta(b=2, s='{"a": [1]}'),
    Close(b=2),
    Open(b=3, kind=BlockKind.TOOL, meta=Meta(call_id="c2", name="g")),
    Close(b=3),
    Open(b=4, kind=BlockKind.IMAGE, meta=Meta(mime="image/png")),
    Delta(b=4, s="iVBORw0KGgo="),
    Close(b=4),
    Usage(tokens=Tokens(input=9, cached=1, output=10, reasoning=6)),
    Stop(reason=StopReason.MAX_TOKENS),
    End(),
]


class Body(httpx.SyncByteStream):
    """Bytes, a few at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = data, size

    def __iter__(self) -> Iterator[bytes]:
        for place in range(0, len(self._data), self._size):
            yield self._data[place : place + self._size]


def client(data: bytes, *, status: int = 200, size: int = 7) -> genai.Client:
    """A client that gets *data* whatever it asks for."""

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"content-type": "text/event-stream"}, stream=Body(data, size))

    transport = httpx.MockTransport(handle)
    options = types.HttpOptions(base_url="http://provider.invalid", client_args={"transport": transport})
    return genai.Client(api_key="k", http_options=options)


def chunks(data: bytes, **more: Any) -> list[types.GenerateContentResponse]:
    with client(data, **more) as connected:
        return list(connected.models.generate_content_stream(model="m", contents="hi"))


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_stream(size: int) -> None:
    """Every frame is one of the vendor's answers."""
    found = chunks(written(EVENTS), size=size)
    parts = [part for one in found for part in one.candidates[0].content.parts]
    assert "".join(part.text or "" for part in parts if not part.thought) == "Hällo"
    assert "".join(part.text or "" for part in parts if part.thought) == "hm"
    calls = [part.function_call for part in parts if part.function_call]
    assert [(one.id, one.name, one.args) for one in calls] == [("c1", "f", {"a": [1]}), ("c2", "g", {})]
    assert [part.thought_signature is not None for part in parts if part.function_call] == [True, False]
    assert [part.inline_data.mime_type for part in parts if part.inline_data] == ["image/png"]
    assert found[-1].candidates[0].finish_reason is types.FinishReason.MAX_TOKENS
    assert found[-1].usage_metadata.thoughts_token_count == 6
    assert found[-1].candidates[0].grounding_metadata.grounding_supports[0].segment.end_index == 6
    assert {one.model_version for one in found} == {"client-name"}
    assert {one.response_id for one in found} == {"9"}


def test_a_whole_answer() -> None:
    """The same, in one body."""
    body = SPOKE.emit_full(EVENTS, make_ctx(provider=CLAUDE))
    with client(body) as connected:
        found = connected.models.generate_content(model="m", contents="hi")
    assert [part.text for part in found.candidates[0].content.parts if part.text] == ["hm", "Hällo"]
    assert [(one.name, one.args) for one in found.function_calls] == [("f", {"a": [1]}), ("g", {})]
    assert found.usage_metadata.prompt_token_count == 9


def test_what_the_client_sends_back_is_understood() -> None:
    """Signatures survive its base64: the next request holds them as they were."""
    parts = [part for one in chunks(written(EVENTS)) for part in one.candidates[0].content.parts]
    sent: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200, json={})

    options = types.HttpOptions(base_url="http://p.invalid", client_args={"transport": httpx.MockTransport(handle)})
    history = [types.UserContent("hi"), types.ModelContent(parts), types.UserContent("and?")]
    with genai.Client(api_key="k", http_options=options) as connected:
        connected.models.generate_content(model="m", contents=history)
    turn = SPOKE.parse_request(sent[0], make_ctx(provider=CLAUDE)).turns[1]
    sigs = [sig for part in turn.parts for sig in getattr(part, "sigs", [])]
    assert [(sig.provenance, sig.kind, sig.data) for sig in sigs] == [
        (Provenance.CLAUDE, SigKind.THINKING, CLAUDE_SIG.data),
        (Provenance.GEMINI, SigKind.PART, GEM),
    ]
    texts = getattr(turn.parts[0], "texts", None)
    assert texts == ["hm"]


def test_a_keep_alive_between_frames() -> None:
    """A blank line, and nothing else, is harmless."""
    data = written(EVENTS).replace(b"\n\n", b"\n\n" + keepalive_frame(GEMINI))
    assert len(chunks(data)) == len(chunks(written(EVENTS)))


def test_a_refused_prompt_and_an_empty_answer() -> None:
    """Both are answers."""
    start = Start(id="x")
    (refused,) = chunks(written([start, Stop(reason=StopReason.REFUSAL, detail="no"), End()]))
    assert refused.prompt_feedback.block_reason is types.BlockedReason.OTHER
    assert refused.prompt_feedback.block_reason_message == "no"
    (empty,) = chunks(written([start, Stop(reason=StopReason.STOP), End()]))
    assert empty.text == ""


@pytest.mark.parametrize(("status", "error"), [(429, errors.ClientError), (503, errors.ServerError)])
def test_an_error_inside_a_stream(status: int, error: type[errors.APIError]) -> None:
    """The SDK raises its own error, with the code."""
    data = written([*EVENTS[:7], Err(status=status, message="so sorry")])
    with pytest.raises(error) as caught:
        chunks(data)
    assert caught.value.code == status
    assert caught.value.message == "so sorry"


def test_the_array_is_what_the_vendor_sends_without_alt_sse() -> None:
    """Each element is an answer."""
    emitter = array_frames(make_ctx(provider=CLAUDE))
    body = json.loads(b"".join(emitter.feed(event) for event in EVENTS))
    found = [types.GenerateContentResponse.model_validate(one) for one in body]
    assert found[-1].candidates[0].finish_reason is types.FinishReason.MAX_TOKENS
