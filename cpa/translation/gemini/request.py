"""A Gemini client's request, read into the intermediate representation (translation Part 2).

The model, and whether the answer is to be streamed, stand in the path: the body has neither.
"""

from typing import Final, NoReturn

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode_members
from cpa.formats.names import Format
from cpa.translation.context import Context, family
from cpa.translation.gemini import wire
from cpa.translation.gemini.contents import ContentReader, Spans, read_system
from cpa.translation.gemini.tool_defs import read_choice, read_tools
from cpa.translation.gemini.wire import Body
from cpa.translation.ir import (
    IRRequest,
    OutputKind,
    OutputSpec,
    Raw,
    ReasoningIntent,
    Sampling,
)
from cpa.translation.literals import sound
from cpa.translation.reasoning import intent_from_budget, intent_from_effort
from cpa.translation.tool_cache import read_once

ORIGIN: Final = Format.GEMINI.value
CONFIG: Final = "generationConfig"
THINKING: Final = f"{CONFIG}.thinkingConfig"
TIERS: Final = frozenset({"standard", "flex", "priority"})
_KNOWN: Final = frozenset(map(wire.camel, Body.__struct_fields__))
_NOT_AN_OBJECT: Final = "the request body is not a JSON object"

_Config = dict[str, msgspec.Raw]


def parse_request(body: bytes, ctx: Context) -> IRRequest:
    """Read a client's request, or that of a token count. See `spoke.ParseRequest`."""
    body = sound(body)
    native = family(ctx.provider) == family(Format.GEMINI)
    plain = None if native else wire.read_plain_body(body)
    found: Body
    if plain is not None and plain.contents:
        found = plain
        reader = ContentReader(ctx, _spans(body), native=native)
        reader.feed_plain(plain.contents)
    else:
        plain = None
        found, body = _body(body)
        reader = ContentReader(ctx, _spans(body), native=native)
        contents = found.contents
        if contents is not None:
            reader.feed(contents if isinstance(contents, list) else [contents])
    choice, extras = read_choice(_either(found.toolConfig, found.tool_config))
    raw = _either(found.generationConfig, found.generation_config)
    if wire.given(raw) and bytes(memoryview(raw)[:1]) != b"{":
        _bad(CONFIG, "an object")
    config = wire.members(raw) if wire.given(raw) else {}
    tools, toolset = (
        (read_tools(found.tools, native=native), None)
        if native or not wire.given(found.tools)
        else read_once(found.tools, ctx, lambda: read_tools(found.tools, native=native))
    )
    request = IRRequest(
        client_format=ORIGIN,
        client_model=ctx.client_model,
        model=ctx.model,
        stream=ctx.stream,
        system=read_system(_either(found.systemInstruction, found.system_instruction), ctx),
        turns=reader.finish(),
        tools=tools,
        toolset=toolset,
        tool_choice=choice,
        sampling=_sampling(config),
        output=_output(config),
        reasoning=_reasoning(config.pop("thinkingConfig", None), ctx),
        safety=wire.raw_of(_either(found.safetySettings, found.safety_settings)),
    )
    request.state.store = wire.boolean_of(found.store) if wire.given(found.store) else None
    tier = (wire.text_of(_either(found.serviceTier, found.service_tier)) or "").lower()
    if tier in TIERS:
        request.tier = tier
    extras.update({f"{CONFIG}.{name}": bytes(value) for name, value in config.items()})
    if plain is None:
        extras.update({name: bytes(value) for name, value in wire.members(body).items() if name not in _KNOWN})
    if extras:
        request.extras[ORIGIN] = extras
    return request


def _body(body: bytes) -> tuple[Body, bytes]:
    """The request in *body*, and its bytes: a token count may hold it one level down (Part 6)."""
    found = _read(body)
    inner = _either(found.generateContentRequest, found.generate_content_request)
    if found.contents is None and wire.given(inner):
        body = bytes(inner)
        found = _read(body)
    return found, body


def _read(body: bytes) -> Body:
    try:
        return wire.read_body(body)
    except JsonError:
        raise MalformedRequest(_NOT_AN_OBJECT) from None
    except ValueError as exc:
        message = str(exc)
        raise MalformedRequest(message, param=message.partition(":")[0]) from None


def _either(camel: msgspec.Raw, snake: msgspec.Raw) -> msgspec.Raw:
    return camel if wire.given(camel) else snake


def _spans(body: bytes) -> Spans:
    kept: list[list[msgspec.Raw]] = []

    def part(place: int, number: int) -> Raw:
        if not kept:
            try:
                contents = wire.spans(decode_members(body).get("contents", wire.ABSENT))
            except JsonError:
                contents = []
            kept.extend(wire.spans(wire.members(content).get("parts", wire.ABSENT)) for content in contents)
        found = kept[place] if place < len(kept) else []
        return bytes(found[number]) if number < len(found) else b"{}"

    return part


# --- members ---------------------------------------------------------------------------------------------------------


def _bad(param: str, expected: str) -> NoReturn:
    raise MalformedRequest(f"{param}: expected {expected}", param=param)


def _number(config: _Config, name: str) -> float | None:
    raw = config.pop(name, None)
    if raw is None:
        return None
    value = wire.number_of(raw)
    return value if value is not None else _bad(f"{CONFIG}.{name}", "a number")


def _integer(config: _Config, name: str) -> int | None:
    raw = config.pop(name, None)
    if raw is None:
        return None
    value = wire.integer_of(raw)
    return value if value is not None else _bad(f"{CONFIG}.{name}", "an integer")


def _flag(config: _Config, name: str) -> bool | None:
    raw = config.pop(name, None)
    if raw is None:
        return None
    value = wire.boolean_of(raw)
    return value if value is not None else _bad(f"{CONFIG}.{name}", "true or false")


def _strings(config: _Config, name: str) -> list[str]:
    raw = config.pop(name, None)
    if raw is None:
        return []
    value = wire.strings_of(raw)
    return value if value is not None else _bad(f"{CONFIG}.{name}", "a list of strings")


def _sampling(config: _Config) -> Sampling:
    return Sampling(
        temperature=_number(config, "temperature"),
        top_p=_number(config, "topP"),
        top_k=_integer(config, "topK"),
        seed=_integer(config, "seed"),
        presence=_number(config, "presencePenalty"),
        frequency=_number(config, "frequencyPenalty"),
        stop=_strings(config, "stopSequences"),
        max_out=_integer(config, "maxOutputTokens"),
        n=_integer(config, "candidateCount"),
        logprobs=_flag(config, "responseLogprobs") or False,
        top_logprobs=_integer(config, "logprobs"),
    )


def _output(config: _Config) -> OutputSpec:
    output = OutputSpec(
        modalities=_strings(config, "responseModalities"),
        image=wire.raw_of(config.pop("imageConfig", None)),
        audio=wire.raw_of(config.pop("speechConfig", None)),
    )
    raw = config.pop("responseMimeType", None)
    mime = "" if raw is None else wire.text_of(raw)
    if mime is None:
        _bad(f"{CONFIG}.responseMimeType", "a string")
    schema = wire.raw_of(config.pop("responseJsonSchema", None))
    openapi = wire.raw_of(config.pop("responseSchema", None))
    if schema or openapi:
        output.kind = OutputKind.JSON_SCHEMA
        output.schema, output.schema_openapi = schema or openapi, not schema
        output.enum_text = mime == "text/x.enum"
    elif mime == "application/json":
        output.kind = OutputKind.JSON_OBJECT
    elif mime not in ("", "text/plain"):
        config["responseMimeType"] = msgspec.Raw(wire.raw_of(raw))
    return output


def _reasoning(raw: msgspec.Raw | None, ctx: Context) -> ReasoningIntent:
    if raw is None:
        return ReasoningIntent()
    found = wire.members(raw)
    intent = ReasoningIntent()
    if "thinkingBudget" in found:
        budget = wire.integer_of(found["thinkingBudget"])
        if budget is None:
            _bad(f"{THINKING}.thinkingBudget", "an integer")
        intent = intent_from_budget(budget, param=f"{THINKING}.thinkingBudget")
    word = wire.text_of(found.get("thinkingLevel")) or ""
    level = intent_from_effort(word.removeprefix("THINKING_LEVEL_"))
    if level is not None:
        level.budget = intent.budget
        intent = level
    elif word and "UNSPECIFIED" not in word.upper():
        ctx.lose(f"{THINKING}.thinkingLevel", f"unknown level {word[:32]!r}", dropped=True)
    visible = found.get("includeThoughts")
    intent.visible = wire.boolean_of(visible) if visible is not None else None
    return intent
