"""What the tests of this protocol share."""

import json
from typing import Any

from cpa.formats.names import Format
from cpa.formats.sse import event_data, split_events
from cpa.translation.context import Context, TranslationSettings
from cpa.translation.gemini import SPOKE
from cpa.translation.ir import IREvent, IRRequest
from cpa.translation.normalizer import Normalizer
from cpa.translation.profile import Capability, CapabilityKind, ModelProfile, default_profile
from tests.translation.support import counting_ids

CHAT, RESPONSES, CLAUDE, GEMINI = Format.OPENAI, Format.OPENAI_RESPONSE, Format.CLAUDE, Format.GEMINI
GEM = "EgUKAwEBAQ=="
"""Looks like a signature of Gemini's: one field 2 that holds one field 1, which begins with a byte 1."""
GEM2 = "EgUKAwECAg=="
BYPASS = "skip_thought_signature_validator"
LEVELS = Capability(kind=CapabilityKind.LEVEL, levels=("minimal", "low", "medium", "high"))
BUDGET = Capability(kind=CapabilityKind.BUDGET, min=128, max=32768, zero_ok=False)


def make_ctx(
    client: Format = GEMINI,
    provider: Format = GEMINI,
    *,
    profile: ModelProfile | None = None,
    request: IRRequest | None = None,
    settings: TranslationSettings | None = None,
    **more: Any,
) -> Context:
    """One exchange; made-up ids and times are the same in every run."""
    return Context(
        client=client,
        provider=provider,
        client_model="client-name",
        model="gemini-x",
        stream=False,
        profile=profile or default_profile(provider),
        request=request,
        settings=settings or TranslationSettings(),
        new_id=counting_ids(),
        now_unix=lambda: 1_700_000_000.0,
        **more,
    )


def parse(body: dict[str, Any], ctx: Context | None = None) -> IRRequest:
    """A Gemini client's *body*, for a Claude provider unless *ctx* says otherwise."""
    return SPOKE.parse_request(json.dumps(body).encode(), ctx or make_ctx(provider=CLAUDE))


def emit(request: IRRequest, ctx: Context | None = None) -> dict[str, Any]:
    """What a Gemini provider gets, by default from a Chat client."""
    return json.loads(SPOKE.emit_request(request, ctx or make_ctx(client=CHAT)))


def ir(client: Format = CHAT, **members: Any) -> IRRequest:
    """A request."""
    return IRRequest(client_format=client.value, client_model="client-name", model="gemini-x", stream=False, **members)


def round_trip(body: dict[str, Any], ctx: Context | None = None) -> dict[str, Any]:
    """Parsed and written again, inside the protocol."""
    ctx = ctx or make_ctx()
    return emit(parse(body, ctx), ctx)


def lost(ctx: Context) -> list[str]:
    """Paths of what was lost."""
    return [loss.path for loss in ctx.losses]


# --- answers ---------------------------------------------------------------------------------------------------------


def frame(*parts: dict[str, Any], finish: str = "", **members: Any) -> dict[str, Any]:
    """A frame of a stream, or a whole answer."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    candidate.update({name: members.pop(name) for name in ("finishMessage", "groundingMetadata") if name in members})
    return {"candidates": [candidate], **members}


def read_stream(frames: list[dict[str, Any]], ctx: Context | None = None) -> list[IREvent]:
    """The normal events of a stream of *frames*."""
    ctx = ctx or make_ctx(client=CHAT)
    parser, normalizer = SPOKE.open_parser(ctx), Normalizer(ctx)
    events = [event for one in frames for event in normalizer.feed(parser.feed("", json.dumps(one).encode()))]
    events += normalizer.feed(parser.finish())
    return events + normalizer.finish()


def read_full(body: dict[str, Any], ctx: Context | None = None) -> list[IREvent]:
    """The normal events of a whole answer."""
    ctx = ctx or make_ctx(client=CHAT)
    normalizer = Normalizer(ctx)
    return normalizer.feed(SPOKE.parse_full(json.dumps(body).encode(), ctx)) + normalizer.finish()


def written(events: list[IREvent], ctx: Context | None = None) -> bytes:
    """The stream that a client gets."""
    emitter = SPOKE.open_emitter(ctx or make_ctx(provider=CLAUDE))
    return b"".join(emitter.feed(event) for event in events)


def frames_of(stream: bytes) -> list[dict[str, Any]]:
    """The frames of a stream."""
    found = []
    for event in split_events(stream):
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        data = event_data(event)
        assert data is not None
        found.append(json.loads(data))
    return found


def fold(frames: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client has that puts the frames of a stream together: adjacent texts of one kind are one."""
    whole: dict[str, Any] = {}
    candidates: dict[int, dict[str, Any]] = {}
    for one in frames:
        for candidate in one.get("candidates", []):
            kept = candidates.setdefault(candidate["index"], {"content": {"role": "model", "parts": []}})
            for part in candidate["content"]["parts"]:
                _add(kept["content"]["parts"], part)
            kept.update({name: value for name, value in candidate.items() if name != "content"})
        whole.update({name: value for name, value in one.items() if name != "candidates"})
    if candidates:
        for kept in candidates.values():
            kept["content"]["parts"] = kept["content"]["parts"] or [{"text": ""}]
        whole["candidates"] = [candidates[index] for index in sorted(candidates)]
    return whole


def _add(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    if part == {"text": ""}:
        return
    last = parts[-1] if parts else {}
    plain = [set(one) - {"thought"} == {"text"} for one in (last, part)]
    if all(plain) and last.get("thought") == part.get("thought"):
        last["text"] += part["text"]
    else:
        parts.append(dict(part))
