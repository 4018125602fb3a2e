"""A Responses client's request, read into the intermediate representation (translation Part 2, 2.16)."""

from collections.abc import Callable
from typing import Final, NoReturn

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode_members, repair
from cpa.formats.names import Format
from cpa.translation.context import Context, family
from cpa.translation.ir import (
    IRRequest,
    OutputKind,
    OutputSpec,
    ReasoningIntent,
    ReasoningMode,
    Sampling,
    StateSpec,
)
from cpa.translation.literals import sound
from cpa.translation.loss import Untranslatable
from cpa.translation.responses import wire
from cpa.translation.responses.items import ItemReader, system_texts
from cpa.translation.responses.tool_defs import read_choice, read_tools
from cpa.translation.responses.wire import Body, KnownBody, given, number_of, raw_of, text_of
from cpa.translation.tool_cache import read_once

ORIGIN: Final = Format.OPENAI_RESPONSE.value
ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"

ECHOED: Final = (
    "instructions",
    "metadata",
    "parallel_tool_calls",
    "tool_choice",
    "tools",
    "temperature",
    "top_p",
    "max_output_tokens",
    "previous_response_id",
    "reasoning",
    "text",
    "truncation",
    "store",
    "service_tier",
    "user",
    "prompt_cache_key",
    "safety_identifier",
    "max_tool_calls",
    "top_logprobs",
)
"""Members that an answer repeats (3.1)."""

_KNOWN: Final = frozenset(Body.__struct_fields__)
"""Of these ``stream_options`` is ignored: obfuscation is never emitted (2.16)."""

LEVELS: Final = frozenset({"minimal", "low", "medium", "high", "xhigh", "max"})
TIERS: Final = {
    "auto": "auto",
    "default": "standard",
    "flex": "flex",
    "priority": "priority",
    "scale": "priority",
    "fast": "fast",
    "ultrafast": "ultrafast",
}
_NOT_AN_OBJECT: Final = "the request body is not a JSON object"
_decode_body = msgspec.json.Decoder(Body).decode
_decode_known = msgspec.json.Decoder(KnownBody).decode
_decode_words = msgspec.json.Decoder(list[str]).decode


def parse_request(body: bytes, ctx: Context) -> IRRequest:
    """Read a client's request; also fills ``ctx.echo``. See `spoke.ParseRequest`."""
    body = sound(body)
    found = _body(body)
    for name in ECHOED:
        raw = getattr(found, name)
        if given(raw):
            ctx.echo[name] = bytes(raw)
    native = family(ctx.provider) == family(Format.OPENAI_RESPONSE) and ctx.provider is not Format.OPENAI
    state = _state(found)
    include = set(state.include)
    request = IRRequest(
        client_format=ORIGIN,
        client_model=ctx.client_model,
        model=ctx.model,
        stream=ctx.stream,
        parallel=_boolean(found.parallel_tool_calls, "parallel_tool_calls"),
        sampling=_sampling(found, include),
        output=_output(found.text),
        reasoning=_reasoning(found.reasoning),
        state=state,
        tier=_tier(found.service_tier, ctx),
    )
    request.reasoning.carry = ENCRYPTED in include or state.store is False
    _identity(found, request)
    _refuse_state(state, ctx, native=native)

    reader = ItemReader(ctx, native=native)
    if given(found.instructions):
        request.system.extend(system_texts(found.instructions, ctx))
    previous = state.previous_id
    if previous and ctx.provider is not Format.OPENAI_RESPONSE:
        # Never ignored: the model would answer without its history (2.16). The codex dialect has no such member.
        items = ctx.responses.items(previous) if ctx.responses is not None else None
        if items is None:
            raise Untranslatable(
                "previous_response_id",
                f"Previous response with id '{previous[:128]}' not found.",
                code="previous_response_not_found",
            )
        state.previous_id = ""
        reader.feed_stored(items)
    if isinstance(found.input, str):
        reader.feed_text(found.input)
    elif found.input is not None:
        reader.feed_items(found.input, _once(body))
    request.system.extend(reader.system)
    request.turns = reader.finish()
    if native or reader.more_tools or not given(found.tools):
        request.tools = read_tools(found.tools, reader.more_tools, ctx, native=native)
    else:
        request.tools, request.toolset = read_once(
            found.tools, ctx, lambda: read_tools(found.tools, (), ctx, native=native)
        )
    request.tool_choice = read_choice(found.tool_choice, request.tools)
    if native and ctx.profile.native_extras:
        request.extras[ORIGIN] = _extras(body, found)
    return request


def _body(body: bytes) -> Body:
    try:
        return _decode_known(body)
    except (ValueError, RecursionError):
        pass  # an unknown member, or anything worse
    try:
        return _decode_body(body)
    except (ValueError, RecursionError):
        pass
    try:
        sent = given(decode_members(body).get("input", wire.ABSENT))
        found = wire.read(Body, repair(body))
    except (JsonError, RecursionError):
        found = None
    if found is None:
        raise MalformedRequest(_NOT_AN_OBJECT)
    if found.input is None and sent:
        _bad("input", "a string or a list of items")
    return found


class _Input(msgspec.Struct, gc=False):
    input: list[msgspec.Raw] = []


def _once(body: bytes) -> Callable[[], list[msgspec.Raw]]:
    kept: list[list[msgspec.Raw]] = []

    def spans() -> list[msgspec.Raw]:
        if not kept:
            kept.append(_input_spans(body))
        return kept[0]

    return spans


def _input_spans(body: bytes) -> list[msgspec.Raw]:
    """The items of the input undecoded, for those that have to be kept as they are."""
    decode = msgspec.json.Decoder(_Input).decode
    try:
        return decode(body).input
    except (ValueError, RecursionError):
        try:
            return decode(repair(body)).input
        except (ValueError, RecursionError):
            return []


def _extras(body: bytes, found: Body) -> dict[str, bytes]:
    """What this version does not know, and ``user``, which has a successor; with it, if both were said."""
    extras: dict[str, bytes] = {}
    if not isinstance(found, KnownBody):
        extras = {name: bytes(raw) for name, raw in decode_members(body).items() if name not in _KNOWN}
    if given(found.user):
        extras["user"] = bytes(found.user)
        if given(found.safety_identifier):
            extras["safety_identifier"] = bytes(found.safety_identifier)
    return extras


# --- members ---------------------------------------------------------------------------------------------------------


def _bad(param: str, expected: str) -> NoReturn:
    raise MalformedRequest(f"{param}: expected {expected}", param=param)


def _boolean(raw: msgspec.Raw, param: str) -> bool | None:
    match raw_of(raw):
        case b"":
            return None
        case b"true":
            return True
        case b"false":
            return False
    _bad(param, "true or false")


def _number(raw: msgspec.Raw, param: str) -> float | None:
    if not given(raw):
        return None
    value = number_of(raw)
    return value if value is not None else _bad(param, "a number")


def _integer(raw: msgspec.Raw, param: str) -> int | None:
    value = _number(raw, param)
    if value is None or isinstance(value, int):
        return value
    return int(value) if value.is_integer() else _bad(param, "an integer")


def _text(raw: msgspec.Raw, param: str) -> str:
    if not given(raw):
        return ""
    value = text_of(raw)
    return value if value is not None else _bad(param, "a string")


def _object(cls: type[wire.S], raw: msgspec.Raw, param: str) -> wire.S | None:
    if not given(raw):
        return None
    value = wire.read(cls, raw)
    return value if value is not None else _bad(param, "an object")


def _sampling(found: Body, include: set[str]) -> Sampling:
    top_logprobs = _integer(found.top_logprobs, "top_logprobs")
    return Sampling(
        temperature=_number(found.temperature, "temperature"),
        top_p=_number(found.top_p, "top_p"),
        max_out=_integer(found.max_output_tokens, "max_output_tokens"),
        logprobs=LOGPROBS in include or bool(top_logprobs),
        top_logprobs=top_logprobs,
    )


def _output(raw: msgspec.Raw) -> OutputSpec:
    config = _object(wire.TextConfig, raw, "text")
    if config is None:
        return OutputSpec()
    output = OutputSpec(verbosity=config.verbosity or "")
    form = _object(wire.Format, config.format, "text.format")
    if form is None or form.type in (None, "text"):
        return output
    if form.type == "json_object":
        output.kind = OutputKind.JSON_OBJECT
        return output
    if form.type != "json_schema":
        _bad("text.format.type", "text, json_object or json_schema")
    output.kind = OutputKind.JSON_SCHEMA
    output.name = form.name or ""
    output.description = form.description or ""
    output.schema = raw_of(form.schema)
    output.strict = form.strict
    return output


def _reasoning(raw: msgspec.Raw) -> ReasoningIntent:
    config = _object(wire.ReasoningConfig, raw, "reasoning")
    intent = ReasoningIntent()
    if config is None:
        return intent
    effort = (config.effort or "").lower()
    if effort == "none":
        intent.mode = ReasoningMode.OFF
    elif effort == "auto":
        intent.mode = ReasoningMode.AUTO
    elif effort in LEVELS:
        intent.mode, intent.level = ReasoningMode.LEVEL, effort
    elif effort:
        _bad("reasoning.effort", "none, minimal, low, medium, high, xhigh or max")
    detail = config.summary or config.generate_summary or ""
    if detail == "none":
        intent.visible = False
    elif detail:
        intent.visible, intent.detail = True, detail
    intent.extra = {
        name: bytes(value) for name, value in (("context", config.context), ("mode", config.mode)) if given(value)
    }
    return intent


def _tier(raw: msgspec.Raw, ctx: Context) -> str:
    word = _text(raw, "service_tier")
    if word and word not in TIERS:
        ctx.lose("service_tier", "unknown tier", dropped=True)
    return TIERS.get(word, "")


def _state(found: Body) -> StateSpec:
    include: list[str] = []
    if given(found.include):
        try:
            include = _decode_words(found.include)
        except (ValueError, RecursionError):
            _bad("include", "a list of strings")
    return StateSpec(
        previous_id=_text(found.previous_response_id, "previous_response_id"),
        conversation=raw_of(found.conversation),
        store=_boolean(found.store, "store"),
        background=_boolean(found.background, "background") or False,
        truncation=_text(found.truncation, "truncation"),
        include=include,
        prompt=raw_of(found.prompt),
        context_management=raw_of(found.context_management),
        max_tool_calls=_integer(found.max_tool_calls, "max_tool_calls"),
    )


def _refuse_state(state: StateSpec, ctx: Context, *, native: bool) -> None:
    """What only a provider with state can do (2.16); what merely tunes is lost."""
    if native:
        return
    for param, there in (
        ("conversation", state.conversation),
        ("prompt", state.prompt),
        ("background", state.background),
    ):
        if there:
            raise Untranslatable(param, f"this model's provider does not support '{param}'")
    if state.truncation == "auto":
        ctx.lose("truncation", "the provider does not truncate", dropped=True)
    if state.context_management:
        ctx.lose("context_management", "the provider does not compact", dropped=True)


def _identity(found: Body, request: IRRequest) -> None:
    identity = request.identity
    identity.end_user = _text(found.safety_identifier, "safety_identifier") or _text(found.user, "user")
    identity.cache_key = _text(found.prompt_cache_key, "prompt_cache_key")
    identity.metadata = raw_of(found.metadata)
