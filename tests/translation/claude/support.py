"""What the tests of Claude's spoke share."""

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

import anthropic
import httpx2
from anthropic.types import MessageCreateParams
from pydantic import TypeAdapter

from cpa.formats.names import Format
from cpa.formats.sse import event_data, parse_event, split_events
from cpa.translation.claude import SPOKE
from cpa.translation.context import Context, TranslationSettings
from cpa.translation.ir import IREvent, IRRequest, Part, Role, Text, Turn
from cpa.translation.normalizer import Normalizer
from cpa.translation.profile import ModelProfile
from tests.translation.support import make_context

CLAUDE_SIGNATURE = "EsClaudeSignature"
PARAMS: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)


def context(
    client: Format = Format.CLAUDE,
    provider: Format = Format.CLAUDE,
    *,
    profile: ModelProfile | None = None,
    settings: TranslationSettings | None = None,
) -> Context:
    """A context; by default Claude on both sides."""
    return make_context(client, provider, profile=profile or ModelProfile(), settings=settings)


def parse(body: Any, ctx: Context | None = None) -> IRRequest:
    """A request as parsed; *body* bytes or anything that JSON can say."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SPOKE.parse_request(data, ctx or context())


def parse_messages(*messages: Any) -> list[Turn]:
    """Turns of *messages*."""
    return parse({"model": "m", "max_tokens": 1, "messages": list(messages)}).turns


def parse_parts(*blocks: Any, role: str = "user") -> list[Part]:
    """Parts of one message with *blocks*."""
    return parse_messages({"role": role, "content": list(blocks)})[0].parts


def request(*turns: Turn, client: Format = Format.OPENAI, **members: Any) -> IRRequest:
    """A request as another protocol's parser would make it."""
    return IRRequest(
        client_format=client.value,
        client_model="client-name",
        model="provider-name",
        stream=False,
        turns=list(turns),
        **members,
    )


def user(*parts: Part | str) -> Turn:
    """A user's turn."""
    return _turn(Role.USER, parts)


def assistant(*parts: Part | str, ordered: bool = True) -> Turn:
    """An assistant's turn."""
    turn = _turn(Role.ASSISTANT, parts)
    turn.ordered = ordered
    return turn


def system(*parts: Part | str) -> Turn:
    """A system turn in mid-conversation."""
    return _turn(Role.SYSTEM, parts)


def _turn(role: Role, parts: Iterable[Part | str]) -> Turn:
    return Turn(role=role, parts=[Text(text=part) if isinstance(part, str) else part for part in parts])


def emit(request: IRRequest, ctx: Context | None = None, *, valid: bool = True) -> Any:
    """A request as it goes to the provider, decoded, and by default valid by the vendor's own types."""
    found = json.loads(SPOKE.emit_request(request, ctx or context(Format.OPENAI)))
    if valid:
        PARAMS.validate_python(found)
    return found


def lost(ctx: Context) -> list[str]:
    """Paths of all losses, in order, without repetitions."""
    return list(dict.fromkeys(loss.path for loss in ctx.losses))


# --- answers ---------------------------------------------------------------------------------------------------------


def sse(*events: dict[str, Any]) -> bytes:
    """A provider's stream."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def read_stream(data: bytes, ctx: Context | None = None) -> list[IREvent]:
    """Events of a provider's stream, as the emitters get them."""
    ctx = ctx or context()
    parser, normalizer = SPOKE.open_parser(ctx), Normalizer(ctx)
    out: list[IREvent] = []
    for event in split_events(data):
        payload = event_data(event)
        if payload is not None and payload.strip():
            out += normalizer.feed(parser.feed(parse_event(event).event, payload))
    return out + normalizer.feed(parser.finish()) + normalizer.finish()


def read_full(body: Any, ctx: Context | None = None) -> list[IREvent]:
    """Events of a provider's whole answer, as the emitters get them."""
    ctx = ctx or context()
    normalizer = Normalizer(ctx)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return normalizer.feed(SPOKE.parse_full(data, ctx)) + normalizer.finish()


def write_stream(events: Iterable[IREvent], ctx: Context | None = None) -> bytes:
    """A client's stream."""
    emitter = SPOKE.open_emitter(ctx or context())
    return b"".join(emitter.feed(event) for event in events)


def write_full(events: list[IREvent], ctx: Context | None = None) -> Any:
    """A client's whole answer, decoded."""
    return json.loads(SPOKE.emit_full(events, ctx or context()))


def frames(data: bytes) -> list[Any]:
    """The payloads of a client's stream; each frame names its event and ends with one blank line."""
    found = []
    for event in split_events(data):
        read = parse_event(event)
        assert event.endswith(b"\n\n")
        assert not event.endswith(b"\n\n\n")
        assert read.data is not None
        payload = json.loads(read.data)
        assert read.event == payload["type"]
        found.append(payload)
    return found


_served: list[bytes] = []


@cache
def _client() -> anthropic.Anthropic:
    """One client for all tests, because its making is slow; it holds no connection."""

    def handler(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=_served[-1])

    http = httpx2.Client(transport=httpx2.MockTransport(handler))
    return anthropic.Anthropic(api_key="none", http_client=http, max_retries=0)


def sdk_message(data: bytes) -> Any:
    """What the vendor's own streaming helper adds *data* up to."""
    _served[:] = [data]
    with _client().messages.stream(
        model="client-name", max_tokens=10, messages=[{"role": "user", "content": "hi"}]
    ) as stream:
        return stream.get_final_message()
