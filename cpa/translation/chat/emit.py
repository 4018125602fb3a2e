"""A request for a provider that speaks Chat, the vendor or a compatible host (translation Part 2, 2.18)."""

import re
from hashlib import sha256
from typing import Final

import msgspec

from cpa.formats.json import JsonError, decode, decode_members, encode
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.chat.emit_messages import Message, write_messages
from cpa.translation.chat.parts import OPENAI, ORIGIN
from cpa.translation.chat.tool_defs import write_choice, write_tools
from cpa.translation.context import Context
from cpa.translation.ir import IRRequest, OutputKind
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import SamplingRule
from cpa.translation.reasoning import openai_effort
from cpa.translation.schema import from_openapi, is_strict, repair_root
from cpa.translation.system import drop_prefill, fixups
from cpa.translation.tool_cache import write_once
from cpa.translation.tools import NameRule, RepairTarget, build_names, check_choice, repair, survey

MAX_STOPS: Final = 4
MAX_IDENTITY: Final = 64
MAX_METADATA: Final = 16
MAX_NAME: Final = 64
TIERS: Final = {
    "auto": "auto",
    "standard": "default",
    "flex": "flex",
    "priority": "priority",
    "fast": "fast",
    "ultrafast": "fast",
}
_SHARED: Final = frozenset({"prompt_cache_retention", "prompt_cache_options", "moderation"})
"""Members that Responses has as well, under the same names."""
_SPELLED: Final = frozenset({"user", "safety_identifier", "stream_options"})
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]+")


def emit_request(request: IRRequest, ctx: Context) -> bytes:
    """Write a request; see `spoke.EmitRequest`."""
    if "cachedContent" in request.extras.get(Format.GEMINI.value, {}):
        raise Untranslatable("cachedContent", "the cached content, a part of the prompt, is only known to its provider")
    own = request.client_format == ORIGIN
    fixups(request, ctx)
    check_choice(request)
    # Free-text tools are the vendor's; whoever speaks this protocol himself knows what his host takes.
    seen = survey(request, RepairTarget.CHAT, ctx)
    ctx.names = build_names(request, NameRule.OPENAI, seen=seen, wrap_custom=not own and not ctx.profile.vendor_host)
    repair(request, RepairTarget.CHAT, ctx, seen)
    drop_prefill(request, ctx)

    messages = write_messages(request, ctx)
    body: JsonObject = {"model": request.model, "messages": messages}  # type: ignore[dict-item] # structs among them
    if request.stream:
        body["stream"] = True
        # Always, for the accounts; clients that did not ask do not see it (2.18).
        body["stream_options"] = _stream_options(request) | {"include_usage": True}
    tools = write_once(request, ctx, lambda: write_tools(request, ctx, body, own=own))
    if tools:
        body["tools"] = tools
        choice = write_choice(request, ctx, own=own)
        if choice is not None:
            body["tool_choice"] = choice
        if request.parallel is not None:
            body["parallel_tool_calls"] = request.parallel
    effort = openai_effort(request, ctx)
    if effort:
        body["reasoning_effort"] = effort
    _sampling(request, ctx, body)
    _output(request, ctx, body, messages)
    _identity(request, ctx, body, own=own)
    _extras(request, ctx, body, own=own)
    if not messages:
        raise Untranslatable("messages", "there is nothing to answer")
    return encode(body)


def _stream_options(request: IRRequest) -> JsonObject:
    raw = request.extras.get(ORIGIN, {}).get("stream_options", b"")
    try:
        found = decode(raw) if raw else {}
    except JsonError:
        return {}
    return found if isinstance(found, dict) else {}


# --- members ---------------------------------------------------------------------------------------------------------


def _sampling(request: IRRequest, ctx: Context, body: JsonObject) -> None:
    sampling, profile = request.sampling, ctx.profile
    if sampling.max_out is not None:
        body["max_completion_tokens" if profile.vendor_host else "max_tokens"] = sampling.max_out
    temperature, top_p = sampling.temperature, sampling.top_p
    if profile.sampling is SamplingRule.ONE_OF_TEMP_TOP_P and temperature is not None and top_p is not None:
        ctx.lose("top_p", "the model takes one of temperature and top_p", dropped=True)
        top_p = None
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if value is None:
            continue
        if profile.sampling is SamplingRule.NONE:
            ctx.lose(name, "the model takes none", dropped=True)
        else:
            body[name] = value
    if sampling.top_k is not None:
        if profile.vendor_host or not profile.native_extras or profile.sampling is SamplingRule.NONE:
            ctx.lose("top_k", dropped=True)
        else:
            body["top_k"] = sampling.top_k
    numbers = (
        ("seed", sampling.seed),
        ("presence_penalty", sampling.presence),
        ("frequency_penalty", sampling.frequency),
        ("n", sampling.n),
    )
    body.update({name: number for name, number in numbers if number is not None})
    if sampling.logit_bias:
        body["logit_bias"] = _raw(sampling.logit_bias)
    if sampling.logprobs:
        body["logprobs"] = True
        if sampling.top_logprobs is not None:
            body["top_logprobs"] = sampling.top_logprobs
    stops = [stop for stop in sampling.stop if stop]
    if len(stops) > MAX_STOPS:
        ctx.lose("stop", f"only {MAX_STOPS} are taken")
    if stops:
        body["stop"] = list[JsonValue](stops[:MAX_STOPS])


def _output(request: IRRequest, ctx: Context, body: JsonObject, messages: list[Message]) -> None:
    output = request.output
    if output.enum_text:
        # An object around the values would be another format (2.11).
        values = _enum(output.schema)
        if values:
            hint = "Reply with exactly one of these values and nothing else: " + ", ".join(values)
            messages.insert(0, {"role": "system", "content": hint})
        ctx.lose("generationConfig.responseMimeType", "text/x.enum became a hint")
    elif output.kind is OutputKind.JSON_OBJECT:
        body["response_format"] = {"type": "json_object"}
    elif output.kind is OutputKind.JSON_SCHEMA:
        body["response_format"] = {"type": "json_schema", "json_schema": _json_schema(request)}
    if output.verbosity:
        body["verbosity"] = output.verbosity
    _modalities(request, ctx, body)


def _json_schema(request: IRRequest) -> JsonObject:
    output = request.output
    schema = output.schema or b"{}"
    if output.schema_openapi:
        schema = from_openapi(schema)
    strict = output.strict
    if strict is None and request.client_format not in OPENAI:
        # Claude and Gemini mean it to be enforced, which OpenAI does for some schemas only (2.11).
        strict = is_strict(schema)
    out: JsonObject = {"name": _format_name(output.name, schema)}
    if output.description:
        out["description"] = output.description
    out["schema"] = _raw(repair_root(schema) if strict else schema)
    if strict is not None:
        out["strict"] = strict
    return out


def _format_name(name: str, schema: bytes) -> str:
    if not name:
        try:
            title = decode_members(schema).get("title")
            name = msgspec.json.decode(title, type=str) if title is not None else ""
        except (JsonError, ValueError):
            name = ""
    return _FORBIDDEN.sub("_", name)[:MAX_NAME] or "response"


def _enum(schema: bytes) -> list[str]:
    try:
        found = decode(schema) if schema else {}
    except JsonError:
        return []
    values = found.get("enum") if isinstance(found, dict) else None
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _modalities(request: IRRequest, ctx: Context, body: JsonObject) -> None:
    """What comes beside text: audio needs a voice, which only clients of this protocol state."""
    output = request.output
    if request.client_format == ORIGIN:
        if output.modalities:
            body["modalities"] = list[JsonValue](output.modalities)
        if output.audio:
            body["audio"] = _raw(output.audio)
        return
    kinds: list[JsonValue] = []
    for kind in (word.lower() for word in output.modalities):
        if kind == "text" or (kind == "image" and not ctx.profile.vendor_host):
            kinds.append(kind)
        else:
            ctx.lose("modalities", f"no {kind[:32]} output", dropped=True)
    if "image" in kinds:
        body["modalities"] = kinds
    if output.image:
        ctx.lose("generationConfig.imageConfig", dropped=True)


def _identity(request: IRRequest, ctx: Context, body: JsonObject, *, own: bool) -> None:
    identity, vendor = request.identity, ctx.profile.vendor_host
    spelled = request.extras.get(ORIGIN, {}) if own else {}
    if "user" in spelled or "safety_identifier" in spelled:
        for name in ("safety_identifier", "user"):
            if name in spelled:
                body[name] = _raw(spelled[name])
    elif identity.end_user:
        body["safety_identifier" if vendor else "user"] = _short(identity.end_user)
    key = identity.cache_key or identity.session
    if key:
        if vendor or request.client_format in OPENAI:
            body["prompt_cache_key"] = key if own else _short(key)
        else:
            ctx.lose("metadata", "the session is of no use to this host", dropped=True)
    if identity.metadata and request.client_format in OPENAI:
        body["metadata"] = _raw(_pairs(identity.metadata, ctx))
    if request.state.store is not None and own:
        body["store"] = request.state.store
    if request.state.max_tool_calls is not None:
        ctx.lose("max_tool_calls", dropped=True)
    word = TIERS.get(request.tier)
    if word:
        body["service_tier"] = "priority" if word == "fast" and not vendor else word


def _pairs(raw: bytes, ctx: Context) -> bytes:
    try:
        pairs = decode_members(raw)
    except JsonError:
        return b"{}"
    if len(pairs) <= MAX_METADATA:
        return raw
    ctx.lose("metadata", f"more than {MAX_METADATA} pairs", dropped=True)
    return encode({name: pairs[name] for name in list(pairs)[:MAX_METADATA]})


def _short(text: str) -> str:
    return text if len(text) <= MAX_IDENTITY else sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _extras(request: IRRequest, ctx: Context, body: JsonObject, *, own: bool) -> None:
    """Members of the own protocol that only it knows, and those that Responses shares; others are lost."""
    for origin, members in request.extras.items():
        for name, raw in members.items():
            if own and name in _SPELLED:
                continue
            allowed = origin == ORIGIN or (origin in OPENAI and name in _SHARED and ctx.profile.vendor_host)
            if not allowed or not ctx.profile.native_extras:
                ctx.lose(name, dropped=True)
            elif name not in body:
                body[name] = _raw(raw)
    if request.safety:
        ctx.lose("safetySettings", dropped=True)
    if request.cache_hint:
        ctx.lose("cache_control", dropped=True)


def _raw(data: bytes) -> JsonValue:
    """JSON text as a leaf, which msgspec writes as it is."""
    return msgspec.Raw(data)  # type: ignore[return-value]
