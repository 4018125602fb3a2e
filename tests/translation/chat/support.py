"""What the tests of the Chat spoke share."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
from openai.types.chat.completion_create_params import CompletionCreateParams
from pydantic import TypeAdapter

from cpa.formats.names import Format
from cpa.formats.sse import event_data, split_events
from cpa.translation.chat import SPOKE
from cpa.translation.context import Context, TranslationSettings
from cpa.translation.ir import (
    BlockKind,
    Call,
    Close,
    Delta,
    End,
    IREvent,
    IRRequest,
    Meta,
    Open,
    Part,
    Result,
    Role,
    Shape,
    Start,
    Stop,
    StopReason,
    Text,
    Turn,
)
from cpa.translation.normalizer import Normalizer
from cpa.translation.profile import ModelProfile, default_profile
from tests.translation.support import make_context

CHAT, CLAUDE, GEMINI, RESPONSES = Format.OPENAI, Format.CLAUDE, Format.GEMINI, Format.OPENAI_RESPONSE
VENDOR = ModelProfile(vendor_host=True, tool_result_media=False)
GPT = "gAAAA" + "A" * 95
"""Looks like OpenAI's encrypted reasoning: Fernet with one block of ciphertext."""
PNG = "iVBORw0KGgo="
PARAMS: TypeAdapter[Any] = TypeAdapter(CompletionCreateParams)


# --- requests --------------------------------------------------------------------------------------------------------


def context(
    client: Format = CHAT,
    provider: Format = CLAUDE,
    *,
    profile: ModelProfile | None = None,
    settings: TranslationSettings | None = None,
) -> Context:
    """A context with fixed ids and times."""
    return make_context(client, provider, profile=profile or default_profile(provider), settings=settings)


def parse(body: Any, ctx: Context | None = None) -> IRRequest:
    """A client's request; *body* bytes, or anything that JSON can say."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SPOKE.parse_request(data, ctx or context())


def parse_with(ctx: Context | None = None, **members: Any) -> IRRequest:
    """A request of one message with these members."""
    return parse({"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}, ctx)


def parse_messages(*messages: Any, ctx: Context | None = None) -> IRRequest:
    """A request of these messages."""
    return parse({"model": "m", "messages": list(messages)}, ctx)


def parse_parts(*parts: Any, role: str = "user", ctx: Context | None = None) -> list[Part]:
    """Parts of one message."""
    return parse_messages({"role": role, "content": list(parts)}, ctx=ctx).turns[0].parts


def request(*turns: Turn, client: Format = CLAUDE, **members: Any) -> IRRequest:
    """A request as another protocol's parser would make it."""
    return IRRequest(
        client_format=client.value,
        client_model="client-name",
        model="provider-name",
        stream=False,
        turns=list(turns) or [user("hi")],
        **members,
    )


def user(*parts: Part | str) -> Turn:
    """A user's turn."""
    return _turn(Role.USER, parts)


def assistant(*parts: Part | str) -> Turn:
    """An assistant's turn of a protocol that orders its parts."""
    return _turn(Role.ASSISTANT, parts)


def system(*parts: Part | str) -> Turn:
    """System text in mid-conversation."""
    return _turn(Role.SYSTEM, parts)


def _turn(role: Role, parts: Iterable[Part | str]) -> Turn:
    return Turn(role=role, parts=[Text(text=part) if isinstance(part, str) else part for part in parts])


def call(call_id: str = "c1", name: str = "f", args: bytes = b"{}", **members: Any) -> Call:
    """A call in the history."""
    return Call(call_id=call_id, name=name, args=args, **members)


def custom_call(call_id: str, name: str, text: str) -> Call:
    """A call of a free-text tool."""
    return Call(call_id=call_id, name=name, args=text.encode(), args_text=True, shape=Shape.TEXT)


def result(call_id: str = "c1", *parts: Any, **members: Any) -> Result:
    """A result in the history."""
    return Result(
        call_id=call_id, parts=[Text(text=part) if isinstance(part, str) else part for part in parts], **members
    )


def emit(sent: IRRequest, ctx: Context | None = None, *, valid: bool = True) -> dict[str, Any]:
    """What the provider gets, by default valid by the vendor's own types."""
    found: dict[str, Any] = json.loads(SPOKE.emit_request(sent, ctx or context(CLAUDE, CHAT)))
    if valid:
        PARAMS.validate_python(found)
    return found


def emit_messages(*turns: Turn, ctx: Context | None = None, **members: Any) -> list[Any]:
    """The messages that the provider gets."""
    messages: list[Any] = emit(request(*turns, **members), ctx)["messages"]
    return messages


def through(body: Any, ctx: Context | None = None) -> dict[str, Any]:
    """*body* from a Chat client to a Chat provider, the vendor unless *ctx* says otherwise."""
    ctx = ctx or context(CHAT, CHAT, profile=VENDOR)
    return emit(parse(body, ctx), ctx, valid=False)


def lost(ctx: Context) -> list[str]:
    """Paths of all losses, in order, without repetitions."""
    return list(dict.fromkeys(loss.path for loss in ctx.losses))


# --- a provider's answers --------------------------------------------------------------------------------------------


def chunk(delta: Any = None, *, finish: str | None = None, index: int = 0, **members: Any) -> dict[str, Any]:
    """A provider's chunk."""
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "chatcmpl-x1", "created": 7, "model": "m", "choices": [choice], **members}


def tool(index: Any = 0, **members: Any) -> dict[str, Any]:
    """A delta with one entry of ``tool_calls``; *name* and *arguments* go into the function."""
    function = {key: members.pop(key) for key in ("name", "arguments") if key in members}
    entry = {"index": index, **members}
    if index is None:
        del entry["index"]
    return {"tool_calls": [entry | ({"function": function} if function else {})]}


def raw_events(*chunks: Any, ctx: Context | None = None) -> list[IREvent]:
    """What the parser alone makes of chunks: bytes, or anything that JSON can say."""
    parser = SPOKE.open_parser(ctx or context(CLAUDE, CHAT))
    out: list[IREvent] = []
    for data in chunks:
        out += parser.feed("", data if isinstance(data, bytes) else json.dumps(data).encode())
    return out + parser.finish()


def read(*chunks: Any, ctx: Context | None = None, done: bool = True) -> list[IREvent]:
    """What emitters get of a provider's stream."""
    ctx = ctx or context(CLAUDE, CHAT)
    normalizer = Normalizer(ctx)
    found = raw_events(*chunks, *([b"[DONE]"] if done else []), ctx=ctx)
    return normalizer.feed(found) + normalizer.finish()


def read_full(body: Any, ctx: Context | None = None) -> list[IREvent]:
    """What emitters get of a provider's whole answer."""
    ctx = ctx or context(CLAUDE, CHAT)
    normalizer = Normalizer(ctx)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return normalizer.feed(SPOKE.parse_full(data, ctx)) + normalizer.finish()


def blocks(events: list[IREvent], choice: int = 0) -> list[tuple[str, str]]:
    """(kind, all its text) of each block in the order of their opening."""
    order = [event for event in events if isinstance(event, Open) and event.choice == choice]
    return [
        (opened.kind.value, "".join(e.s for e in events if isinstance(e, Delta) and e.b == opened.b))
        for opened in order
    ]


def opened(events: list[IREvent], kind: BlockKind = BlockKind.TOOL) -> list[Meta]:
    """What is known of the blocks of a kind."""
    return [event.meta for event in events if isinstance(event, Open) and event.kind is kind]


def reason(events: list[IREvent]) -> StopReason:
    """Why the first choice ended."""
    return next(event.reason for event in events if isinstance(event, Stop))


# --- answers for clients ---------------------------------------------------------------------------------------------


def answer(*events: IREvent, why: StopReason = StopReason.STOP) -> list[IREvent]:
    """A whole answer of one choice."""
    return [Start(id="msg_1", created_unix=17), *events, Stop(reason=why), End()]


def block(b: int, kind: BlockKind, *pieces: str, **meta: Any) -> list[IREvent]:
    """A block as the normalizer gives it."""
    return [Open(b=b, kind=kind, meta=Meta(**meta)), *(Delta(b=b, s=piece) for piece in pieces), Close(b=b)]


def write(events: Iterable[IREvent], ctx: Context | None = None) -> bytes:
    """A client's stream."""
    emitter = SPOKE.open_emitter(ctx or context())
    return b"".join(emitter.feed(event) for event in events)


def write_full(events: list[IREvent], ctx: Context | None = None) -> dict[str, Any]:
    """A client's whole answer."""
    found: dict[str, Any] = json.loads(SPOKE.emit_full(events, ctx or context()))
    return found


def chunks(data: bytes) -> list[Any]:
    """The payloads of a client's stream, ``[DONE]`` as text; each frame is one data line and one blank line."""
    found: list[Any] = []
    for event in split_events(data):
        payload = event_data(event)
        assert payload is not None
        assert event == b"data: " + payload + b"\n\n"
        found.append("[DONE]" if payload == b"[DONE]" else json.loads(payload))
    return found


def deltas(data: bytes, choice: int = 0) -> list[Any]:
    """The deltas of one choice, without the first, the role's, and without empty ones."""
    found = [
        entry["delta"]
        for payload in chunks(data)
        if payload != "[DONE]"
        for entry in payload.get("choices", ())
        if entry["index"] == choice and entry["delta"]
    ]
    assert found[0] == {"role": "assistant", "content": ""}
    assert all("role" not in delta for delta in found[1:])
    return found[1:]


@contextmanager
def vendor_client(body: bytes, content_type: str = "text/event-stream") -> Iterator[openai.OpenAI]:
    """The official client; every request is answered with *body*."""

    def reply(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": content_type}, content=body)

    with (
        httpx2.Client(transport=httpx2.MockTransport(reply)) as http,
        openai.OpenAI(api_key="none", base_url="http://local/v1", http_client=http, max_retries=0) as client,
    ):
        yield client


def accumulated(data: bytes) -> dict[str, Any]:
    """What the vendor's own streaming helper adds a stream up to."""
    with (
        vendor_client(data) as client,
        client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "hi"}]) as stream,
    ):
        found: dict[str, Any] = stream.get_final_completion().to_dict(mode="json")
    return found
