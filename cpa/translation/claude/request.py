"""A Claude client's request, read into the intermediate representation (translation Part 2).

The body is cut into its top-level members first, undecoded: what is not known stays as it came (`IRRequest.extras`),
and each known member is decoded once. Token counts come without ``max_tokens``, which is therefore not demanded here.
"""

import re
from typing import Any, Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode_members
from cpa.formats.scan import is_utf8
from cpa.translation.claude import wire
from cpa.translation.claude.messages import ORIGIN, read_messages, read_system, read_turns
from cpa.translation.claude.server_kinds import server_kind
from cpa.translation.claude.wire import given, raw_of
from cpa.translation.context import Context
from cpa.translation.ir import (
    ChoiceMode,
    Identity,
    IRRequest,
    OutputKind,
    OutputSpec,
    ReasoningIntent,
    ReasoningMode,
    Sampling,
    Tool,
    ToolChoice,
    ToolKind,
)
from cpa.translation.literals import sound
from cpa.translation.reasoning import intent_from_budget, intent_from_effort
from cpa.translation.tool_cache import Toolset, read_once

_KNOWN: Final = frozenset(wire.KnownBody.__struct_fields__)
_RAW_MEMBERS: Final = tuple(sorted(_KNOWN - {"messages"}))
_TOOL_EXTRAS: Final = ("allowed_callers", "input_examples", "eager_input_streaming")
_CUSTOM: Final = (None, "", "custom")
_TIERS: Final = {"auto": "auto", "standard_only": "standard"}
_SESSION = re.compile(r"_session_([A-Za-z0-9-]{1,64})$")
_SESSION_MEMBER: Final = "session_id"
MAX_USER_ID_JSON: Final = 4096
"""Longer ids are not looked into."""

Members = dict[str, msgspec.Raw]


def parse_request(body: bytes, ctx: Context) -> IRRequest:
    """See `spoke.ParseRequest`."""
    if not is_utf8(body):
        _refuse_broken(body)
        body = sound(body)
    messages, members = _read(body)
    tools, toolset = _tools(members, ctx)
    choice, parallel = _choice(members, tools)
    return IRRequest(
        client_format=ORIGIN,
        client_model=ctx.client_model,
        model=ctx.model,
        stream=ctx.stream,
        system=read_system(members.get("system", wire.ABSENT)),
        turns=read_turns(messages, body, ctx),
        tools=tools,
        toolset=toolset,
        tool_choice=choice,
        parallel=parallel,
        sampling=_sampling(members),
        output=_output(members),
        reasoning=_reasoning(members),
        identity=_identity(members),
        tier=_tier(members, ctx),
        cache_hint=raw_of(members.get("cache_control")),
        extras={ORIGIN: {name: bytes(raw) for name, raw in members.items() if name not in _KNOWN}},
    )


def _refuse_broken(body: bytes) -> None:
    """Name the message that is not UTF-8; elsewhere it is nothing that a model sees. Raises: MalformedRequest."""
    try:
        spans = wire.spans(decode_members(body).get("messages", wire.ABSENT))
    except JsonError:
        return  # told by whoever reads it
    for number, span in enumerate(spans or ()):
        if not is_utf8(bytes(span)):
            raise _wrong(f"messages[{number}].content", "UTF-8")


def _read(body: bytes) -> tuple[list[wire.Message], Members]:
    """The messages, and the other members undecoded. Raises: MalformedRequest."""
    try:
        found = wire.decode_known(body)
    except (ValueError, RecursionError):
        pass  # an unknown member, or anything worse
    else:
        named = ((name, getattr(found, name)) for name in _RAW_MEMBERS)
        return found.messages, {name: raw for name, raw in named if raw is not wire.ABSENT}
    try:
        members = decode_members(body)
    except JsonError as exc:
        raise MalformedRequest("the request body is not a JSON object") from exc
    return read_messages(members.pop("messages", wire.ABSENT)), members


# --- tools -----------------------------------------------------------------------------------------------------------


def _tools(members: Members, ctx: Context) -> tuple[list[Tool], Toolset | None]:
    raw = members.get("tools")
    if raw is None or not given(raw):
        return [], None
    return read_once(raw, ctx, lambda: _read_tools(raw))


def _read_tools(raw: msgspec.Raw) -> list[Tool]:
    try:
        definitions = wire.decode_tools(raw)
    except (ValueError, RecursionError):
        definitions = [_read_tool(span, f"tools[{place}]") for place, span in enumerate(_tool_spans(raw))]
    return [_tool(found, raw, place) for place, found in enumerate(definitions)]


def _tool_spans(raw: msgspec.Raw) -> list[msgspec.Raw]:
    found = wire.spans(raw)
    if found is None:
        raise _wrong("tools", "a list")
    return found


def _read_tool(span: msgspec.Raw, path: str) -> wire.ToolDef:
    try:
        return wire.read_tool(span)
    except JsonError:
        raise _wrong(path, "an object") from None


def _tool(found: wire.ToolDef, raw: msgspec.Raw, place: int) -> Tool:
    cache = raw_of(found.cache_control)
    if found.type not in _CUSTOM:
        kind = found.type or ""
        return Tool(
            kind=ToolKind.SERVER,
            name=found.name or kind,
            server=server_kind(kind),
            config=bytes(_tool_spans(raw)[place]),
            cache=cache,
            origin=ORIGIN,
        )
    if not found.name:
        raise _wrong(f"tools[{place}].name", "a name")
    return Tool(
        kind=ToolKind.FUNCTION,
        name=found.name,
        description=found.description or "",
        schema=raw_of(found.input_schema),
        strict=found.strict,
        cache=cache,
        defer_loading=found.defer_loading or False,
        extras={name: bytes(value) for name in _TOOL_EXTRAS if (value := getattr(found, name)) is not wire.ABSENT},
        origin=ORIGIN,
    )


def _choice(members: Members, tools: list[Tool]) -> tuple[ToolChoice | None, bool | None]:
    """(choice, whether parallel calls are allowed)."""
    raw = members.get("tool_choice")
    if raw is None or not given(raw):
        return None, None
    try:
        found = wire.read_choice(raw)
    except JsonError:
        raise _wrong("tool_choice", "an object") from None
    parallel = None if found.disable_parallel_tool_use is None else not found.disable_parallel_tool_use
    match found.type:
        case "auto":
            return ToolChoice(mode=ChoiceMode.AUTO), parallel
        case "none":
            return ToolChoice(mode=ChoiceMode.NONE), parallel
        case "any":
            return ToolChoice(mode=ChoiceMode.REQUIRED), parallel
        case "tool":
            name = found.name
            if not name:
                raise _wrong("tool_choice.name", "a name")
            servers = {tool.name: tool.server for tool in tools if tool.kind is ToolKind.SERVER}
            if name in servers and all(tool.name != name or tool.kind is ToolKind.SERVER for tool in tools):
                kind = servers[name] if servers[name] != "other" else name
                return ToolChoice(mode=ChoiceMode.SERVER, names=[("", kind)]), parallel
            return ToolChoice(mode=ChoiceMode.NAMED, names=[("", name)]), parallel
    raise _wrong("tool_choice.type", "auto, any, tool or none")


# --- members ---------------------------------------------------------------------------------------------------------


def _wrong(param: str, expected: str) -> MalformedRequest:
    return MalformedRequest(f"{param}: expected {expected}", param=param)


def _number(members: Members, name: str) -> float | None:
    raw = members.get(name)
    if raw is None or not given(raw):
        return None
    try:
        value = wire.value_of(raw)
    except JsonError:
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "a number")
    return value


def _integer(members: Members, name: str) -> int | None:
    value = _number(members, name)
    if value is None or isinstance(value, int):
        return value
    if not value.is_integer():
        raise _wrong(name, "an integer")
    return int(value)


def _sampling(members: Members) -> Sampling:
    stop: list[str] = []
    raw = members.get("stop_sequences")
    if raw is not None and given(raw):
        try:
            stop = wire.decode_strings(raw)
        except ValueError:
            raise _wrong("stop_sequences", "a list of strings") from None
    return Sampling(
        temperature=_number(members, "temperature"),
        top_p=_number(members, "top_p"),
        top_k=_integer(members, "top_k"),
        stop=stop,
        max_out=_integer(members, "max_tokens"),
    )


def _output(members: Members) -> OutputSpec:
    raw = members.get("output_format")  # of the time when it was a beta
    config = members.get("output_config")
    if config is not None and given(config):
        try:
            found = wire.read_output_config(config)
        except JsonError:
            raise _wrong("output_config", "an object") from None
        raw = found.format if given(found.format) else raw
    if raw is None or not given(raw):
        return OutputSpec()
    try:
        form = wire.read_output_format(raw)
    except JsonError:
        raise _wrong("output_config.format", "an object") from None
    if form.type != "json_schema":
        raise _wrong("output_config.format.type", "json_schema")
    return OutputSpec(kind=OutputKind.JSON_SCHEMA, schema=raw_of(form.schema))


def _reasoning(members: Members) -> ReasoningIntent:
    """``thinking`` and ``output_config.effort`` (2.9)."""
    effort = _effort(members)
    raw = members.get("thinking")
    if raw is None or not given(raw):
        intent = effort or ReasoningIntent()
        intent.effort_only = effort is not None
        intent.carry = True
        return intent
    try:
        found = wire.read_thinking(raw)
    except JsonError:
        raise _wrong("thinking", "an object") from None
    match found.type:
        case "enabled":
            budget = _integer({"thinking.budget_tokens": found.budget_tokens}, "thinking.budget_tokens")
            if budget is None:
                raise _wrong("thinking.budget_tokens", "an integer")
            intent = intent_from_budget(budget, param="thinking.budget_tokens")
        case "disabled":
            intent = ReasoningIntent(mode=ReasoningMode.OFF)
        case "adaptive":
            intent = ReasoningIntent(mode=ReasoningMode.AUTO if effort is None else ReasoningMode.LEVEL)
        case "between_tools":
            intent = ReasoningIntent(mode=ReasoningMode.BETWEEN_TOOLS)
        case _:
            raise _wrong("thinking.type", "enabled, disabled, adaptive or between_tools")
    intent.level = "" if effort is None else effort.level
    intent.carry = True
    if found.display in ("summarized", "omitted"):
        intent.visible = found.display == "summarized"
        intent.detail = found.display
    return intent


def _effort(members: Members) -> ReasoningIntent | None:
    raw = members.get("output_config")
    if raw is None or not given(raw):
        return None
    try:
        word = wire.read_output_config(raw).effort
    except JsonError:
        raise _wrong("output_config", "an object") from None
    if not word:
        return None
    intent = intent_from_effort(word)
    if intent is None or intent.mode is not ReasoningMode.LEVEL:
        raise _wrong("output_config.effort", "low, medium, high, xhigh or max")
    return intent


def _identity(members: Members) -> Identity:
    raw = members.get("metadata")
    if raw is None or not given(raw):
        return Identity()
    try:
        user = decode_members(bytes(raw)).get("user_id", wire.ABSENT)
    except JsonError:
        raise _wrong("metadata", "an object") from None
    end_user = (wire.text_of(user) if given(user) else None) or ""
    session = session_of(end_user)
    return Identity(end_user=end_user, session=session, cache_key=session, metadata=raw_of(raw))


def session_of(user_id: str) -> str:
    """The session that Claude Code writes into its user id, as a suffix or as a member of JSON; empty without one."""
    match = _SESSION.search(user_id)
    if match:
        return match[1]
    if user_id.startswith("{") and len(user_id) <= MAX_USER_ID_JSON:
        try:
            found: Any = decode_members(user_id.encode()).get(_SESSION_MEMBER)
        except (JsonError, UnicodeError):
            return ""
        text = wire.text_of(found) if found is not None else None
        return (text or "")[:64]
    return ""


def _tier(members: Members, ctx: Context) -> str:
    if _word(members, "speed") == "fast":
        return "fast"
    word = _word(members, "service_tier")
    if word and word not in _TIERS:
        ctx.lose("service_tier", "unknown tier", dropped=True)
    return _TIERS.get(word, "")


def _word(members: Members, name: str) -> str:
    raw = members.get(name)
    if raw is None or not given(raw):
        return ""
    text = wire.text_of(raw)
    if text is None:
        raise _wrong(name, "a string")
    return text
