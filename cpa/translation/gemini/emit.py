"""A request for a provider that speaks Gemini (translation Part 2, its finaliser 2.18 included).

What the finaliser demands holds by construction: `system.ensure_user_turn` and `merge_turns` make the roles alternate,
beginning with the user's; `tools.repair` makes calls and responses equal in number and order and names them; a
declaration has one schema; limits are clamped.
"""

from typing import Final

import msgspec

from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.gemini.emit_contents import adapt, write_contents
from cpa.translation.gemini.media_parts import ORIGIN, Members
from cpa.translation.gemini.tool_defs import write_choice, write_tools
from cpa.translation.ir import ChoiceMode, IRRequest, OutputKind
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import SchemaTier
from cpa.translation.reasoning import gemini_thinking
from cpa.translation.schema import clean_gemini
from cpa.translation.system import (
    drop_empty_texts,
    drop_prefill,
    ensure_user_turn,
    fixups,
    merge_turns,
    system_as_user,
)
from cpa.translation.tools import NameRule, RepairTarget, build_names, check_choice, repair, survey

MAX_STOPS: Final = 5
MAX_SEED: Final = 2**31
"""Seeds are 32-bit integers; others are an error."""
JSON_HINT: Final = "Reply with one JSON object and nothing else."
SCHEMA_HINT: Final = "Reply with one JSON value that satisfies this JSON Schema, and nothing else:\n"
TIERS: Final = {
    "standard": "standard",
    "flex": "flex",
    "priority": "priority",
    "fast": "priority",
    "ultrafast": "priority",
}
DEFAULT_SAFETY: Final = encode(
    [
        {"category": f"HARM_CATEGORY_{name}", "threshold": threshold}
        for name, threshold in (
            ("HARASSMENT", "OFF"),
            ("HATE_SPEECH", "OFF"),
            ("SEXUALLY_EXPLICIT", "OFF"),
            ("DANGEROUS_CONTENT", "OFF"),
            ("CIVIC_INTEGRITY", "BLOCK_NONE"),
        )
    ]
)
"""For clients whose protocols cannot say it (2.17)."""


def emit_request(request: IRRequest, ctx: Context) -> bytes:
    """Write a request; model and streaming stand in its path. See `spoke.EmitRequest`."""
    own = ctx.client is Format.GEMINI
    _refuse(request)
    fixups(request, ctx)
    check_choice(request)
    seen = survey(request, RepairTarget.GEMINI, ctx)
    ctx.names = build_names(request, NameRule.GEMINI, seen=seen, wrap_custom=True)
    repair(request, RepairTarget.GEMINI, ctx, seen)
    adapt(request, ctx)
    request.turns = drop_empty_texts(system_as_user(request.turns, ctx))
    drop_prefill(request, ctx)
    ensure_user_turn(request, ctx)
    contents = write_contents(merge_turns(request.turns), ctx)

    tools = write_tools(request, ctx)
    config: Members = {}
    _sampling(request, ctx, config)
    hint = _output(request, ctx, config, has_functions=any("functionDeclarations" in tool for tool in tools))
    thinking = gemini_thinking(request, ctx)
    if thinking:
        config["thinkingConfig"] = thinking

    body: Members = {}
    system = _system(request, ctx)
    if hint:
        system.append({"text": hint})
    if system:
        body["systemInstruction"] = {"parts": system}
    body["contents"] = contents
    if tools:
        body["tools"] = tools
    choice = write_choice(request, ctx, has_tools=bool(tools))
    if choice is not None:
        body["toolConfig"] = choice
    if config:
        body["generationConfig"] = config
    if request.safety:
        body["safetySettings"] = msgspec.Raw(request.safety)
    elif not own and ctx.settings.gemini_default_safety:
        body["safetySettings"] = msgspec.Raw(DEFAULT_SAFETY)
    _service(request, ctx, body)
    _extras(request, ctx, body)
    return encode(body)


def _refuse(request: IRRequest) -> None:
    """What would change the question unnoticed (0.7)."""
    for param, there in (
        ("previous_response_id", request.state.previous_id),
        ("conversation", request.state.conversation),
        ("prompt", request.state.prompt),
        ("background", request.state.background),
    ):
        if there:
            raise Untranslatable(param, f"this model's provider does not support '{param}'")


def _system(request: IRRequest, ctx: Context) -> list[Members]:
    if any(block.cache for block in request.system):
        ctx.lose("system.cache_control", dropped=True)
    return [{"text": text} for block in request.system if (text := block.written or block.text)]


# --- members ---------------------------------------------------------------------------------------------------------


def _sampling(request: IRRequest, ctx: Context, config: Members) -> None:
    sampling, own = request.sampling, ctx.client is Format.GEMINI
    for name, value in (
        ("temperature", sampling.temperature),
        ("topP", sampling.top_p),
        ("topK", sampling.top_k),
        ("candidateCount", sampling.n),
    ):
        if value is not None:
            config[name] = value
    # Many models reject penalties, which clients of others send as zeros.
    for name, penalty in (("presencePenalty", sampling.presence), ("frequencyPenalty", sampling.frequency)):
        if penalty or (own and penalty is not None):
            config[name] = penalty
    if sampling.seed is not None:
        if -MAX_SEED <= sampling.seed < MAX_SEED:
            config["seed"] = sampling.seed
        else:
            ctx.lose("seed", "not a 32-bit integer", dropped=True)
    if sampling.max_out is not None:
        limit = ctx.profile.max_output
        if limit and sampling.max_out > limit:
            ctx.lose("max_tokens", f"lowered to {limit}")
        config["maxOutputTokens"] = min(sampling.max_out, limit) if limit else sampling.max_out
    stops = [stop for stop in sampling.stop if stop]
    if len(stops) > MAX_STOPS:
        ctx.lose("stop", f"only the first {MAX_STOPS} are used")
    if stops:
        config["stopSequences"] = stops[:MAX_STOPS]
    if sampling.logprobs:
        config["responseLogprobs"] = True
    if sampling.top_logprobs is not None and (sampling.logprobs or own):
        config["logprobs"] = sampling.top_logprobs
    if sampling.logit_bias and sampling.logit_bias != b"{}":
        ctx.lose("logit_bias", dropped=True)


def _output(request: IRRequest, ctx: Context, config: Members, *, has_functions: bool) -> str:
    """Also returns what the model is to be told where it cannot be made to (2.11)."""
    output, own = request.output, ctx.client is Format.GEMINI
    _modalities(request, ctx, config)
    if output.verbosity:
        ctx.lose("verbosity", dropped=True)
    if output.kind is OutputKind.TEXT:
        return ""
    if has_functions and not own and not ctx.profile.json_with_functions:
        ctx.lose("response_format", "this model takes no response format beside functions; it is asked in words")
        if output.kind is OutputKind.JSON_OBJECT or not output.schema:
            return JSON_HINT
        return SCHEMA_HINT + output.schema.decode("utf-8", "replace")
    config["responseMimeType"] = "text/x.enum" if output.enum_text else "application/json"
    if output.kind is OutputKind.JSON_SCHEMA and output.schema:
        tier = SchemaTier.OPENAPI if output.schema_openapi else SchemaTier.JSON if own else ctx.profile.schema_tier
        schema = output.schema
        if not own:
            schema = clean_gemini(schema, tier, ctx, "response_format", root_object=False)
        config["responseJsonSchema" if tier is SchemaTier.JSON else "responseSchema"] = msgspec.Raw(schema)
    return ""


def _modalities(request: IRRequest, ctx: Context, config: Members) -> None:
    output, own = request.output, ctx.client is Format.GEMINI
    kinds = [kind.upper() for kind in output.modalities]
    if any(tool.server == "image_gen" for tool in request.tools) and "IMAGE" not in kinds:
        kinds = [*(kinds or ["TEXT"]), "IMAGE"]
    if kinds and (own or kinds != ["TEXT"]):
        config["responseModalities"] = kinds
    for name, param, raw in (("imageConfig", "image", output.image), ("speechConfig", "audio", output.audio)):
        if raw and own:
            config[name] = msgspec.Raw(raw)
        elif raw:
            ctx.lose(param, "voices and formats of another provider", dropped=True)


def _service(request: IRRequest, ctx: Context, body: Members) -> None:
    if request.tier in TIERS:
        body["serviceTier"] = TIERS[request.tier]
    # Clients of Responses say it in each request, and mean their own provider's store (2.16).
    if request.state.store is not None and ctx.client in (Format.GEMINI, Format.OPENAI):
        body["store"] = request.state.store


def _extras(request: IRRequest, ctx: Context, body: Members) -> None:
    """Members of the own family that only it knows, by their paths; those of others are lost, and all else that Gemini
    has no word for."""
    for origin, members in request.extras.items():
        for path, raw in members.items():
            if origin == ORIGIN and ctx.client is Format.GEMINI and ctx.profile.native_extras:
                _put(body, path.split("."), raw)
            else:
                ctx.lose(path, dropped=True)
    identity, state = request.identity, request.state
    choice = request.tool_choice
    for path, there in (
        ("parallel_tool_calls", request.parallel is False and (choice is None or choice.mode is not ChoiceMode.NONE)),
        ("metadata.user_id" if ctx.client is Format.CLAUDE else "user", bool(identity.end_user)),
        ("prompt_cache_key", bool(identity.cache_key)),
        ("metadata", bool(identity.metadata) and ctx.client is not Format.CLAUDE),
        ("cache_control", bool(request.cache_hint)),
        ("max_tool_calls", state.max_tool_calls is not None),
    ):
        if there:
            ctx.lose(path, dropped=True)


def _put(body: Members, path: list[str], raw: bytes) -> None:
    for name in path[:-1]:
        inner = body.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        body = inner
    body[path[-1]] = msgspec.Raw(raw)
