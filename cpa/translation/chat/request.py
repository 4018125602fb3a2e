"""A Chat client's request, read into the intermediate representation (translation Part 2)."""

from typing import Final, NoReturn

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode_members, repair
from cpa.formats.names import Format
from cpa.formats.scan import is_utf8
from cpa.translation.chat import wire
from cpa.translation.chat.messages import MessageReader
from cpa.translation.chat.parts import ORIGIN
from cpa.translation.chat.thinking import read_reasoning
from cpa.translation.chat.tool_defs import read_choice, read_tools
from cpa.translation.chat.wire import Body, given, number_of, raw_of, text_of
from cpa.translation.context import Context
from cpa.translation.ir import Identity, IRRequest, OutputKind, OutputSpec, Sampling, StateSpec
from cpa.translation.tool_cache import read_once

TIERS: Final = {
    "auto": "auto",
    "default": "standard",
    "flex": "flex",
    "priority": "priority",
    "scale": "priority",
    "fast": "fast",
    "ultrafast": "ultrafast",
}
_KNOWN: Final = frozenset(Body.__struct_fields__)
_SPELLED: Final = ("user", "safety_identifier", "stream_options")
"""Members whose spelling the IR does not keep; for hosts of the same protocol."""
_NOT_AN_OBJECT: Final = "the request body is not a JSON object"


class _PlainBody(Body, forbid_unknown_fields=True):
    """A body without members that the IR does not know: nearly all are, and need no second look for them."""


_decode_plain = msgspec.json.Decoder(_PlainBody).decode
_decode_body = msgspec.json.Decoder(Body).decode


def parse_request(body: bytes, ctx: Context) -> IRRequest:
    """Read a client's request; see `spoke.ParseRequest`."""
    found, text = _read_body(body)
    if found.messages is None:
        raise MalformedRequest("messages: expected a list", param="messages")
    if not found.messages:
        raise MalformedRequest("messages: expected at least one message", param="messages")
    reader = MessageReader(ctx, _PartSpans(text).of_message)
    for place, message in enumerate(found.messages):
        reader.feed(message, place)
    plain_tools = given(found.tools) and not given(found.functions) and not given(found.web_search_options)
    tools, toolset = (
        read_once(found.tools, ctx, lambda: read_tools(found, ctx)) if plain_tools else (read_tools(found, ctx), None)
    )
    request = IRRequest(
        client_format=ORIGIN,
        client_model=ctx.client_model,
        model=ctx.model,
        stream=ctx.stream,
        system=reader.system,
        turns=reader.turns,
        tools=tools,
        toolset=toolset,
        tool_choice=read_choice(found),
        parallel=_boolean(found.parallel_tool_calls, "parallel_tool_calls"),
        sampling=_sampling(found),
        output=_output(found),
        reasoning=read_reasoning(found),
        identity=Identity(
            end_user=_text(found.safety_identifier, "safety_identifier") or _text(found.user, "user"),
            cache_key=_text(found.prompt_cache_key, "prompt_cache_key"),
            metadata=_object(found.metadata, "metadata"),
        ),
        tier=_tier(found.service_tier, ctx),
        state=StateSpec(store=_boolean(found.store, "store")),
        cache_hint=raw_of(found.cache_control),
        include_usage=_include_usage(found.stream_options),
        legacy_functions=given(found.functions) and not given(found.tools),
    )
    extras = _extras(text, found, ctx)
    if extras:
        request.extras[ORIGIN] = extras
    return request


# --- the body --------------------------------------------------------------------------------------------------------


class _Messages(msgspec.Struct, gc=False):
    messages: msgspec.Raw = wire.ABSENT


class _Content(msgspec.Struct, gc=False):
    content: msgspec.Raw = wire.ABSENT


def _read_body(body: bytes) -> tuple[Body, bytes]:
    """(what was read, the text that it was read from: repaired if need be)."""
    if is_utf8(body):
        for decode in (_decode_plain, _decode_body):
            try:
                return decode(body), body
            except (ValueError, RecursionError):
                continue
    else:
        body = body.decode("utf-8", "replace").encode()
    body = repair(body)
    try:
        members = decode_members(body)
    except JsonError:
        raise MalformedRequest(_NOT_AN_OBJECT) from None
    messages = members.pop("messages", wire.ABSENT)
    if given(messages) and bytes(messages)[:1] != b"[":
        raise MalformedRequest("messages: expected a list", param="messages")
    found = Body()
    for name, value in members.items():
        if name in _KNOWN:
            setattr(found, name, value)
    if given(messages):
        found.messages = [_message(span, place) for place, span in enumerate(wire.spans(messages))]
    return found, body


def _message(span: msgspec.Raw, place: int) -> wire.Message:
    message = wire.read(wire.Message, span)
    if message is None:
        raise MalformedRequest(f"messages[{place}]: expected an object", param=f"messages[{place}]")
    return message


class _PartSpans:
    """Content parts undecoded, for those that are kept as they came."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._messages: list[msgspec.Raw] | None = None

    def of_message(self, place: int) -> list[msgspec.Raw]:
        if self._messages is None:
            try:
                found = msgspec.json.decode(self._body, type=_Messages)
            except (ValueError, RecursionError):
                return []
            self._messages = wire.spans(found.messages)
        if place >= len(self._messages):
            return []
        return wire.spans(msgspec.json.decode(self._messages[place], type=_Content).content)


def _extras(body: bytes, found: Body, ctx: Context) -> dict[str, bytes]:
    """What the IR does not know."""
    extras = {}
    if not isinstance(found, _PlainBody):
        members = decode_members(body)
        extras = {name: bytes(raw) for name, raw in members.items() if name not in _KNOWN and given(raw)}
    if ctx.provider is Format.OPENAI:
        for name in _SPELLED:
            raw = getattr(found, name)
            if given(raw):
                extras[name] = bytes(raw)
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


def _object(raw: msgspec.Raw, param: str) -> bytes:
    data = raw_of(raw)
    return data if data[:1] in (b"", b"{") else _bad(param, "an object")


def _sampling(found: Body) -> Sampling:
    completion = _integer(found.max_completion_tokens, "max_completion_tokens")
    older = _integer(found.max_tokens, "max_tokens")
    count = _integer(found.n, "n")
    if count is not None and count < 1:
        _bad("n", "at least 1")
    return Sampling(
        temperature=_number(found.temperature, "temperature"),
        top_p=_number(found.top_p, "top_p"),
        top_k=_integer(found.top_k, "top_k"),
        seed=_integer(found.seed, "seed"),
        presence=_number(found.presence_penalty, "presence_penalty"),
        frequency=_number(found.frequency_penalty, "frequency_penalty"),
        logit_bias=_object(found.logit_bias, "logit_bias"),
        stop=_stop(found.stop),
        max_out=completion if completion is not None else older,
        n=count,
        logprobs=_boolean(found.logprobs, "logprobs") or False,
        top_logprobs=_integer(found.top_logprobs, "top_logprobs"),
    )


def _stop(raw: msgspec.Raw) -> list[str]:
    if not given(raw):
        return []
    word = text_of(raw)
    if word is not None:
        return [word] if word else []
    try:
        return [stop for stop in msgspec.json.decode(raw, type=list[str]) if stop]
    except (ValueError, RecursionError):
        _bad("stop", "a string or a list of strings")


def _output(found: Body) -> OutputSpec:
    output = OutputSpec(
        verbosity=_text(found.verbosity, "verbosity"),
        audio=_object(found.audio, "audio"),
        modalities=_modalities(found),
    )
    if not given(found.response_format):
        return output
    form = wire.read(wire.ResponseFormat, found.response_format)
    if form is None:
        _bad("response_format", "an object")
    match form.type:
        case None | "text":
            pass
        case "json_object":
            output.kind = OutputKind.JSON_OBJECT
        case "json_schema":
            spec = form.json_schema
            if spec is None or not given(spec.schema):
                # Without a schema it asks for JSON and no more.
                output.kind = OutputKind.JSON_OBJECT
                return output
            output.kind = OutputKind.JSON_SCHEMA
            output.name = spec.name or ""
            output.description = spec.description or ""
            output.schema = raw_of(spec.schema)
            output.strict = spec.strict
        case _:
            _bad("response_format.type", "text, json_object or json_schema")
    return output


def _modalities(found: Body) -> list[str]:
    if not given(found.modalities):
        return []
    try:
        return msgspec.json.decode(found.modalities, type=list[str])
    except (ValueError, RecursionError):
        _bad("modalities", "a list of strings")


def _tier(raw: msgspec.Raw, ctx: Context) -> str:
    word = _text(raw, "service_tier")
    if word and word not in TIERS:
        ctx.lose("service_tier", "unknown tier", dropped=True)
    return TIERS.get(word, "")


def _include_usage(raw: msgspec.Raw) -> bool | None:
    options = wire.read(wire.StreamOptions, raw) if given(raw) else None
    return options.include_usage if options is not None else None
