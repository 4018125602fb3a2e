"""A request for a provider that speaks Responses, the codex dialect included (translation Part 2, 2.16, 2.18, 2.19)."""

import re
from hashlib import sha256
from typing import Final

import msgspec

from cpa.formats.json import JsonError, decode_members, encode
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.context import Context
from cpa.translation.ir import Authority, IRRequest, OutputKind, ReasoningMode, SysBlock, Written
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import CapabilityKind
from cpa.translation.reasoning import responses_reasoning
from cpa.translation.responses.emit_items import write_turns
from cpa.translation.responses.tool_defs import FAMILY, write_choice, write_tools
from cpa.translation.schema import from_openapi, is_strict
from cpa.translation.system import fixups
from cpa.translation.tool_cache import write_once
from cpa.translation.tools import NameRule, RepairTarget, build_names, check_choice, repair, survey

ORIGIN: Final = Format.OPENAI_RESPONSE.value
ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
MIN_OUTPUT_TOKENS: Final = 16
"""The vendor rejects less."""
MAX_IDENTITY: Final = 64
MAX_METADATA: Final = 16
MAX_NAME: Final = 64

TIERS: Final = {
    "auto": "auto",
    "standard": "default",
    "flex": "flex",
    "priority": "priority",
    "fast": "fast",
    "ultrafast": "ultrafast",
}
_CODEX_TIERS: Final = {"priority": "priority", "fast": "priority"}
_SHARED_WITH_CHAT: Final = frozenset({"prompt_cache_retention", "prompt_cache_options", "moderation"})
_REMOVED_BY_CODEX: Final = frozenset(
    {
        "max_tokens",
        "user",
        "safety_identifier",
        "prompt_cache_retention",
        "prompt_cache_options",
        "prompt_cache_breakpoint",
        "stream_options",
    }
)
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]+")


def emit_request(request: IRRequest, ctx: Context) -> bytes:
    """Write a request; see `spoke.EmitRequest`."""
    _refuse(request)
    fixups(request, ctx)
    if request.tool_choice is None or not request.tool_choice.raw:
        check_choice(request)
    codex = ctx.profile.codex
    own = request.client_format in FAMILY
    seen = survey(request, RepairTarget.RESPONSES, ctx)
    ctx.names = build_names(request, NameRule.OPENAI, seen=seen, flatten=False)
    repair(request, RepairTarget.RESPONSES, ctx, seen)

    body: JsonObject = {"model": request.model}
    if codex or request.stream:
        body["stream"] = True
    instructions, leading = _system(request, ctx)
    if instructions or codex:
        body["instructions"] = instructions
    body["input"] = [*leading, *write_turns(request, ctx)]  # type: ignore[list-item] # structs among them
    tools = write_once(request, ctx, lambda: write_tools(request, ctx))
    if tools:
        body["tools"] = list(tools)
    choice = write_choice(request, ctx.names)
    if choice is not None and (tools or (own and not codex)):
        body["tool_choice"] = choice
    if request.parallel is not None and (tools or not codex):
        body["parallel_tool_calls"] = request.parallel
    elif codex and tools:
        body["parallel_tool_calls"] = True

    reasoning = responses_reasoning(request, ctx)
    if reasoning:
        body["reasoning"] = dict(reasoning)  # type: ignore[arg-type]
    _sampling(request, ctx, body)
    _output(request, ctx, body)
    _state(request, ctx, body, own=own)
    _identity(request, ctx, body)
    _extras(request, ctx, body)
    return encode(body)


def _refuse(request: IRRequest) -> None:
    if request.sampling.n is not None and request.sampling.n > 1:
        raise Untranslatable("n", "this model's provider gives one answer per request")
    if "cachedContent" in request.extras.get(Format.GEMINI.value, {}):
        raise Untranslatable("cachedContent", "the cached content, a part of the prompt, is only known to its provider")


# --- system text -----------------------------------------------------------------------------------------------------


def _system(request: IRRequest, ctx: Context) -> tuple[Written, list[JsonObject]]:
    """(instructions, leading items): OpenAI's clients keep their items, of others all is instructions (2.2)."""
    codex = ctx.profile.codex
    items_from_client = request.client_format in FAMILY or request.client_format == Format.OPENAI
    texts: list[SysBlock] = []
    items: list[JsonObject] = []
    lost = False
    for block in request.system:
        lost = lost or bool(block.cache)
        if not (block.written or block.text):
            continue
        if codex or (items_from_client and not block.instructions):
            items.append(_system_item(block, codex=codex))
        else:
            texts.append(block)
    if lost:
        ctx.lose("system.cache_control", dropped=True)
    if len(texts) == 1:
        return texts[0].written or texts[0].text, items
    return "\n\n".join(block.text for block in texts), items


def _system_item(block: SysBlock, *, codex: bool) -> JsonObject:
    role = Authority.DEVELOPER if codex else block.authority
    content: list[JsonValue] = [{"type": "input_text", "text": block.written or block.text}]
    return {"type": "message", "role": role.value, "content": content}


# --- members ---------------------------------------------------------------------------------------------------------


def _sampling(request: IRRequest, ctx: Context, body: JsonObject) -> None:
    sampling = request.sampling
    codex = ctx.profile.codex
    if sampling.max_out is not None:
        if codex:
            ctx.lose("max_output_tokens", dropped=True)
        else:
            if sampling.max_out < MIN_OUTPUT_TOKENS:
                ctx.lose("max_output_tokens", f"raised to {MIN_OUTPUT_TOKENS}")
            body["max_output_tokens"] = max(sampling.max_out, MIN_OUTPUT_TOKENS)
    for name, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p)):
        if value is None:
            continue
        if codex:
            ctx.lose(name, dropped=True)
        else:
            body[name] = value
    for name, tuned in (
        ("top_k", sampling.top_k is not None),
        ("seed", sampling.seed is not None),
        ("presence_penalty", bool(sampling.presence)),
        ("frequency_penalty", bool(sampling.frequency)),
        ("logit_bias", bool(sampling.logit_bias) and sampling.logit_bias != b"{}"),
    ):
        if tuned:
            ctx.lose(name, dropped=True)
    if ctx.profile.codex:  # whose `include` has no place for them (2.19)
        if sampling.logprobs:
            ctx.lose("logprobs", dropped=True)
    elif sampling.top_logprobs is not None:
        body["top_logprobs"] = sampling.top_logprobs


def _output(request: IRRequest, ctx: Context, body: JsonObject) -> None:
    output = request.output
    text: JsonObject = {}
    if output.enum_text:
        # An object around the values would be another format (2.11).
        ctx.lose("responseMimeType", "text/x.enum: the provider cannot be held to a list of values")
    elif output.kind is OutputKind.JSON_OBJECT:
        text["format"] = {"type": "json_object"}
    elif output.kind is OutputKind.JSON_SCHEMA:
        text["format"] = _schema_format(request)
    if output.verbosity:
        text["verbosity"] = output.verbosity
    if text:
        body["text"] = text
    for kind in output.modalities:
        if kind.lower() == "image" and not any(tool.server == "image_gen" for tool in request.tools):
            tools = body.setdefault("tools", [])
            assert isinstance(tools, list)
            tools.append({"type": "image_generation"})
        elif kind.lower() not in ("text", "image"):
            ctx.lose("modalities", f"no {kind[:32].lower()} output", dropped=True)


def _schema_format(request: IRRequest) -> JsonObject:
    output = request.output
    schema = output.schema or b"{}"
    if output.schema_openapi:
        schema = from_openapi(schema)
    out: JsonObject = {"type": "json_schema", "name": _format_name(output.name, schema)}
    if output.description:
        out["description"] = output.description
    out["schema"] = msgspec.Raw(schema)  # type: ignore[assignment]
    openai = request.client_format in FAMILY or request.client_format == Format.OPENAI
    if output.strict is not None:
        out["strict"] = output.strict
    elif not openai:
        # Claude and Gemini mean it to be enforced, which OpenAI does for some schemas only (2.11).
        out["strict"] = is_strict(schema)
    return out


def _format_name(name: str, schema: bytes) -> str:
    if not name:
        try:
            title = decode_members(schema).get("title")
            name = msgspec.json.decode(title, type=str) if title is not None else ""
        except (JsonError, ValueError):
            name = ""
    return _FORBIDDEN.sub("_", name)[:MAX_NAME] or "response"


def _state(request: IRRequest, ctx: Context, body: JsonObject, *, own: bool) -> None:
    state = request.state
    codex = ctx.profile.codex
    include: list[str] = [name for name in state.include if isinstance(name, str)] if own else []
    if codex:
        body["store"] = False
        include = [ENCRYPTED]
    elif own:
        if state.store is not None:
            body["store"] = state.store
    else:
        body["store"] = state.store or False
        if _reasons(request, ctx):
            include = [ENCRYPTED]
        if request.sampling.logprobs:
            include.append(LOGPROBS)
    if include:
        body["include"] = list[JsonValue](include)
    if state.previous_id and not codex:
        body["previous_response_id"] = state.previous_id
    if state.max_tool_calls is not None:
        body["max_tool_calls"] = state.max_tool_calls
    if not own:
        return
    for name, value in (("conversation", state.conversation), ("prompt", state.prompt)):
        if value:
            body[name] = msgspec.Raw(value)  # type: ignore[assignment]
    if state.background:
        body["background"] = True
    if not codex:
        if state.truncation:
            body["truncation"] = state.truncation
        if state.context_management:
            body["context_management"] = msgspec.Raw(state.context_management)  # type: ignore[assignment]


def _reasons(request: IRRequest, ctx: Context) -> bool:
    """Whether the model reasons in this request; others reject the member that carries their state."""
    kind = ctx.profile.reasoning.kind
    if kind is CapabilityKind.NONE:
        return False
    return kind is not CapabilityKind.UNKNOWN or request.reasoning.mode not in (ReasoningMode.UNSET, ReasoningMode.OFF)


def _identity(request: IRRequest, ctx: Context, body: JsonObject) -> None:
    identity = request.identity
    codex = ctx.profile.codex
    # An end user who was only said in the old spelling is sent as he came, by `_extras`.
    own = request.extras.get(ORIGIN, {})
    if identity.end_user and not codex and not ("user" in own and "safety_identifier" not in own):
        body["safety_identifier" if ctx.profile.vendor_host else "user"] = _short(identity.end_user)
    key = identity.cache_key or identity.session
    if key:
        body["prompt_cache_key"] = _short(key)
    if identity.metadata and request.client_format in (*FAMILY, Format.OPENAI.value) and not codex:
        pairs = _pairs(identity.metadata)
        if len(pairs) > MAX_METADATA:
            ctx.lose("metadata", f"more than {MAX_METADATA} pairs", dropped=True)
        if pairs:
            body["metadata"] = {name: msgspec.Raw(pairs[name]) for name in list(pairs)[:MAX_METADATA]}  # type: ignore[misc]
    tier = request.tier
    if tier:
        word = (_CODEX_TIERS if codex else TIERS).get(tier)
        if word:
            body["service_tier"] = word
        else:
            ctx.lose("service_tier", dropped=True)


def _pairs(raw: bytes) -> dict[str, bytes]:
    try:
        return {name: bytes(value) for name, value in decode_members(raw).items()}
    except JsonError:
        return {}


def _short(text: str) -> str:
    return text if len(text) <= MAX_IDENTITY else sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _extras(request: IRRequest, ctx: Context, body: JsonObject) -> None:
    """Members of the own family that only it knows; those of others are lost."""
    for origin, members in request.extras.items():
        for name, raw in members.items():
            allowed = origin in FAMILY or (origin == Format.OPENAI and name in _SHARED_WITH_CHAT)
            if not allowed or not ctx.profile.native_extras or (ctx.profile.codex and name in _REMOVED_BY_CODEX):
                ctx.lose(name, dropped=True)
            elif name not in body:
                body[name] = msgspec.Raw(raw)  # type: ignore[assignment]
    if request.safety:
        ctx.lose("safetySettings", dropped=True)
    if request.cache_hint:
        ctx.lose("cache_control", dropped=True)
