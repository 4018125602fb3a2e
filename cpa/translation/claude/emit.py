"""A request for a provider that speaks Claude (translation Part 2, finaliser of 2.18)."""

from typing import Any, Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import Format
from cpa.translation.claude import cache
from cpa.translation.claude.emit_tools import write_choice, write_tools
from cpa.translation.claude.emit_turns import adapt, write_messages
from cpa.translation.claude.messages import ORIGIN
from cpa.translation.context import Context
from cpa.translation.ir import IRRequest, OutputKind, SysBlock
from cpa.translation.literals import is_blank
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import SamplingRule
from cpa.translation.reasoning import ClaudeThinking, claude_thinking
from cpa.translation.schema import clean_claude_output, from_openapi
from cpa.translation.system import drop_prefill, ensure_user_turn, fixups, merge_turns, system_as_user
from cpa.translation.tool_cache import write_once
from cpa.translation.tools import NameRule, RepairTarget, build_names, check_choice, repair, survey

DEFAULT_MAX_TOKENS: Final = 32_000
"""Where neither client nor model profile says anything; the vendor demands the member."""
MAX_ASSUMED_OUTPUT: Final = 64_000
"""A larger limit of a model is not used unasked."""
MAX_SILENT_TOKENS: Final = 16_000
"""Longer answers come as a stream, which is folded: silent requests that take minutes die in middleboxes, and the
vendor's SDK refuses to send them (translation Part 3)."""
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The vendor answers larger requests with 413."""
MIN_TOP_P_THINKING: Final = 0.95
JSON_HINT: Final = "Reply with one JSON object and nothing else."
_ENUM_HINT: Final = "Reply with exactly one of these values and nothing else: "

Members = dict[str, Any]


def emit_request(request: IRRequest, ctx: Context) -> bytes:
    """See `spoke.EmitRequest`."""
    _refuse(request)
    fixups(request, ctx)
    check_choice(request)
    seen = survey(request, RepairTarget.CLAUDE, ctx)
    ctx.names = build_names(request, NameRule.CLAUDE, seen=seen, wrap_custom=True)
    repair(request, RepairTarget.CLAUDE, ctx, seen)
    adapt(request, ctx)
    drop_prefill(request, ctx)
    if not ctx.profile.mid_system:
        request.turns = system_as_user(request.turns, ctx)
    ensure_user_turn(request, ctx)
    request.turns = merge_turns(request.turns)
    _hint_output(request, ctx)
    request.system = [block for block in request.system if not is_blank(block)]
    cache.settle(request, ctx)

    thinking = claude_thinking(request, ctx, max_tokens=_max_tokens(request, ctx))
    out: Members = {"model": request.model, "max_tokens": thinking.max_tokens}
    if request.system:
        out["system"] = [_system_block(block) for block in request.system]
    out["messages"] = write_messages(request, ctx)
    tools = write_once(request, ctx, lambda: write_tools(request, ctx))
    if tools:
        out["tools"] = tools
    choice = write_choice(request, tools, ctx)
    if choice is not None:
        out["tool_choice"] = choice
    if thinking.thinking is not None:
        out["thinking"] = thinking.thinking
    output = _output_config(request, thinking, ctx)
    if output:
        out["output_config"] = output
    _sampling(request, thinking, out, ctx)
    _identity(request, out, ctx)
    _tier(request, out, ctx)
    if request.cache_hint:
        out["cache_control"] = msgspec.Raw(request.cache_hint)
    _extras(request, out, ctx)
    silent = not request.stream and ctx.client is not Format.CLAUDE and thinking.max_tokens > MAX_SILENT_TOKENS
    ctx.folds = silent and not ctx.whole
    if request.stream:
        out["stream"] = True
    body = encode(out)
    if len(body) > MAX_BODY_BYTES:
        raise MalformedRequest(
            f"the request is larger than {MAX_BODY_BYTES} bytes", code="request_too_large", http_status=413
        )
    return body


def _refuse(request: IRRequest) -> None:
    """What cannot be dropped without changing what was asked (0.7)."""
    if request.sampling.n is not None and request.sampling.n > 1:
        raise Untranslatable("n", "this model's provider gives one answer only")
    state = request.state
    for param, there in (
        ("previous_response_id", state.previous_id),
        ("conversation", state.conversation),
        ("prompt", state.prompt),
        ("background", state.background),
    ):
        if there:
            raise Untranslatable(param, f"this model's provider does not support '{param}'")
    if "cachedContent" in request.extras.get("gemini", {}):
        raise Untranslatable("cachedContent", "the cached content can only be read by the provider that keeps it")


def _system_block(block: SysBlock) -> Members:
    out: Members = {"type": "text", "text": block.written or block.text}
    if block.cache:
        out["cache_control"] = msgspec.Raw(block.cache)
    return out


def _max_tokens(request: IRRequest, ctx: Context) -> int:
    asked, limit = request.sampling.max_out, ctx.profile.max_output
    if asked is None:
        return limit if 0 < limit <= MAX_ASSUMED_OUTPUT else DEFAULT_MAX_TOKENS
    if limit and asked > limit:
        ctx.lose("max_tokens", f"{asked} became {limit}")
        return limit
    return asked


# --- output ----------------------------------------------------------------------------------------------------------


def _hint_output(request: IRRequest, ctx: Context) -> None:
    """What the protocol has no member for is asked for in words (2.11)."""
    output = request.output
    if output.enum_text:
        values = _enum(output.schema)
        ctx.lose("response_format", "the values are asked for in the system text")
        if values:
            request.system.append(SysBlock(text=_ENUM_HINT + ", ".join(values)))
    elif output.kind is OutputKind.JSON_OBJECT or (output.kind is OutputKind.JSON_SCHEMA and not output.schema):
        ctx.lose("response_format", "JSON is asked for in the system text")
        request.system.append(SysBlock(text=JSON_HINT))


def _enum(schema: bytes) -> list[str]:
    try:
        found = decode(schema) if schema else None
    except JsonError:
        return []
    values = found.get("enum") if isinstance(found, dict) else None
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _output_config(request: IRRequest, thinking: ClaudeThinking, ctx: Context) -> Members:
    output = request.output
    config: Members = {}
    if thinking.effort:
        config["effort"] = thinking.effort
    if output.kind is OutputKind.JSON_SCHEMA and output.schema and not output.enum_text:
        schema = from_openapi(output.schema) if output.schema_openapi else output.schema
        if request.client_format != ORIGIN:
            schema = clean_claude_output(schema, ctx)
        config["format"] = {"type": "json_schema", "schema": msgspec.Raw(schema)}
    if output.verbosity:
        ctx.lose("verbosity", dropped=True)
    if any(modality.lower() != "text" for modality in output.modalities):
        ctx.lose("modalities", "the provider answers in text", dropped=True)
    return config


# --- sampling --------------------------------------------------------------------------------------------------------


def _sampling(request: IRRequest, thinking: ClaudeThinking, out: Members, ctx: Context) -> None:
    """Temperature and its kin as the model takes them (2.4); everything else that only tunes is lost."""
    asked = request.sampling
    rule = ctx.profile.sampling
    temperature, top_p, top_k = asked.temperature, asked.top_p, asked.top_k
    if temperature is not None and temperature > 1:
        ctx.lose("temperature", "became 1")
        temperature = 1
    dropped: dict[str, bool] = {}
    if rule is SamplingRule.NONE:
        dropped = {"temperature": True, "top_p": True, "top_k": True}
    elif thinking.active:
        dropped = {
            "temperature": temperature != 1,
            "top_p": top_p is not None and top_p < MIN_TOP_P_THINKING,
            "top_k": True,
        }
    if rule is SamplingRule.ONE_OF_TEMP_TOP_P:
        kept_temperature = temperature is not None and not dropped.get("temperature")
        dropped["top_p"] = dropped.get("top_p", False) or kept_temperature
    for name, value in (("temperature", temperature), ("top_p", top_p), ("top_k", top_k)):
        if value is None:
            continue
        if dropped.get(name):
            ctx.lose(name, dropped=True)
        else:
            out[name] = value
    stops = [stop for stop in asked.stop if stop.strip()]
    if len(stops) < len([stop for stop in asked.stop if stop]):
        ctx.lose("stop", "sequences of white space", dropped=True)
    if stops:
        out["stop_sequences"] = stops
    for name, there in (
        ("seed", asked.seed is not None),
        ("presence_penalty", asked.presence is not None),
        ("frequency_penalty", asked.frequency is not None),
        ("logit_bias", bool(asked.logit_bias)),
        ("logprobs", asked.logprobs or bool(asked.top_logprobs)),
    ):
        if there:
            ctx.lose(name, dropped=True)


# --- who, how, and the rest ------------------------------------------------------------------------------------------


def _identity(request: IRRequest, out: Members, ctx: Context) -> None:
    identity = request.identity
    members: Members = {}
    try:
        found = decode(identity.metadata) if identity.metadata else None
    except JsonError:
        found = None
    if isinstance(found, dict):
        members = dict(found)
    stated = members.pop("user_id", None)
    user = identity.end_user or (stated if isinstance(stated, str) else "")
    if user:
        out["metadata"] = {"user_id": user}
    if members:
        ctx.lose("metadata", "the provider takes a user id only", dropped=True)
    if identity.cache_key and request.client_format != ORIGIN:
        ctx.lose("prompt_cache_key", dropped=True)


def _tier(request: IRRequest, out: Members, ctx: Context) -> None:
    match request.tier:
        case "auto" | "priority":
            out["service_tier"] = "auto"
        case "standard":
            out["service_tier"] = "standard_only"
        case "fast" if request.client_format == ORIGIN:
            out["speed"] = "fast"  # a model that lacks it is the client's own choice
        case "":
            pass
        case _:
            ctx.lose("service_tier", request.tier, dropped=True)


def _extras(request: IRRequest, out: Members, ctx: Context) -> None:
    for origin, members in request.extras.items():
        for name, raw in members.items():
            if origin == ORIGIN and ctx.profile.native_extras and name not in out:
                out[name] = msgspec.Raw(raw)
            else:
                ctx.lose(name, dropped=True)
