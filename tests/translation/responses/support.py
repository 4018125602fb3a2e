"""What the tests of this protocol share."""

import json
from typing import Any

from cpa.formats.names import Format
from cpa.formats.sse import event_data, parse_event, split_events
from cpa.translation.context import Context, TranslationSettings
from cpa.translation.ir import IREvent, IRRequest
from cpa.translation.normalizer import Normalizer
from cpa.translation.profile import Capability, CapabilityKind, ModelProfile, default_profile
from cpa.translation.responses import SPOKE

RESPONSES, CODEX, CHAT, CLAUDE, GEMINI = (
    Format.OPENAI_RESPONSE,
    Format.CODEX,
    Format.OPENAI,
    Format.CLAUDE,
    Format.GEMINI,
)
GPT = "gAAAA" + "A" * 95
"""Looks like OpenAI's encrypted reasoning: Fernet with one block of ciphertext."""
LEVELS = Capability(
    kind=CapabilityKind.LEVEL, levels=("none", "minimal", "low", "medium", "high", "xhigh", "max"), zero_ok=True
)


def make_ctx(
    client: Format = RESPONSES,
    provider: Format = RESPONSES,
    *,
    profile: ModelProfile | None = None,
    stream: bool = False,
    request: IRRequest | None = None,
    settings: TranslationSettings | None = None,
    **more: Any,
) -> Context:
    """One exchange; made-up ids and times are constants."""
    return Context(
        client=client,
        provider=provider,
        client_model="client-name",
        model="gpt-x",
        stream=stream,
        profile=profile or default_profile(provider),
        request=request,
        settings=settings or TranslationSettings(),
        new_id=lambda: "made",
        now_unix=lambda: 1_700_000_000.0,
        **more,
    )


def parse(body: dict[str, Any], ctx: Context | None = None) -> IRRequest:
    """A client's *body*, for a Claude provider unless *ctx* says otherwise."""
    return SPOKE.parse_request(json.dumps(body).encode(), ctx or make_ctx(provider=CLAUDE))


def emit(request: IRRequest, ctx: Context | None = None) -> dict[str, Any]:
    """What the provider gets."""
    found: dict[str, Any] = json.loads(SPOKE.emit_request(request, ctx or make_ctx(CLAUDE)))
    return found


def through(body: dict[str, Any], ctx: Context | None = None) -> dict[str, Any]:
    """*body* from a Responses client to a Responses provider."""
    ctx = ctx or make_ctx()
    return emit(parse(body, ctx), ctx)


def new_request(client: Format = CLAUDE, **members: Any) -> IRRequest:
    """A request of a client with another protocol."""
    return IRRequest(client_format=client.value, client_model="client-name", model="gpt-x", stream=False, **members)


def frames(*events: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Provider events as (name, data), with sequence numbers."""
    return [
        (event["type"], json.dumps({**event, "sequence_number": number}).encode())
        for number, event in enumerate(events)
    ]


def read(events: list[tuple[str, bytes]], ctx: Context | None = None) -> list[IREvent]:
    """What the parser alone makes of a provider's events."""
    parser = SPOKE.open_parser(ctx or make_ctx(CHAT))
    out = [found for name, data in events for found in parser.feed(name, data)]
    return out + parser.finish()


def normal(events: list[IREvent], ctx: Context) -> list[IREvent]:
    """What emitters get."""
    normalizer = Normalizer(ctx)
    return [*normalizer.feed(events), *normalizer.finish()]


def write(events: list[IREvent], ctx: Context | None = None) -> bytes:
    """The stream that a Responses client gets."""
    emitter = SPOKE.open_emitter(ctx or make_ctx(provider=CLAUDE))
    return b"".join(emitter.feed(event) for event in events)


def decoded(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each checked for its name and number."""
    out = []
    for number, event in enumerate(split_events(stream)):
        data = event_data(event)
        assert data is not None
        value = json.loads(data)
        assert parse_event(event).event == value["type"]
        assert value["sequence_number"] == number
        out.append(value)
    return out


def response_of(stream: bytes) -> dict[str, Any]:
    """The object in the last event."""
    found: dict[str, Any] = decoded(stream)[-1]["response"]
    return found
