"""Tools and tool choice of Responses, both ways (translation 2.6, 2.7, 2.15)."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode, decode_members
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.context import Context, Names
from cpa.translation.ir import ChoiceMode, IRRequest, Raw, Tool, ToolChoice, ToolKind
from cpa.translation.loss import Untranslatable
from cpa.translation.responses import wire
from cpa.translation.responses.wire import Choice, ToolDef, given, raw_of, text_of
from cpa.translation.schema import from_openapi
from cpa.translation.tools import EMPTY_SCHEMA, merge_tools

ORIGIN: Final = Format.OPENAI_RESPONSE.value
FAMILY: Final = frozenset({Format.OPENAI_RESPONSE.value, Format.CODEX.value})

_SEARCH_NAMES: Final = frozenset(
    {"web_search", "web_search_preview", "web_search_preview_2025_03_11", "web_search_2025_08_26"}
)
_SERVER_KINDS: Final = {
    **dict.fromkeys(_SEARCH_NAMES, "web_search"),
    "code_interpreter": "code",
    "image_generation": "image_gen",
    "file_search": "file_search",
    "mcp": "mcp",
}
_CHOICE_TYPES: Final = {
    "web_search": "web_search_preview",  # the choice type knows no other spelling
    "code": "code_interpreter",
    "image_gen": "image_generation",
    "file_search": "file_search",
}
_decode_known = msgspec.json.Decoder(wire.KnownTool).decode
_OWN_MEMBERS: Final = frozenset(
    {"type", "name", "description", "parameters", "strict", "format", "tools", "defer_loading", "cache_control"}
)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_tools(raw: msgspec.Raw, more: Iterable[msgspec.Raw], ctx: Context, *, native: bool) -> list[Tool]:
    """The tools of a request: of the member, then of items ``additional_tools``; the first of a name counts.

    Args:
      native: the provider speaks Responses too, so that its own tools and extras are kept.
    """
    if given(raw) and not bytes(raw).startswith(b"["):
        raise MalformedRequest("tools: expected a list", param="tools")
    tools: list[Tool] = []
    for source in (raw, *more):
        for place, span in enumerate(wire.spans(source)):
            found = _definition(span)
            if found is not None:
                tools.extend(_tool(found, span, f"tools[{place}]", ctx, native=native))
    return merge_tools(tools)


def _definition(span: msgspec.Raw) -> ToolDef | None:
    try:
        return _decode_known(span)
    except (ValueError, RecursionError):
        return wire.read(ToolDef, span)


def _tool(found: ToolDef, span: msgspec.Raw, path: str, ctx: Context, *, native: bool) -> list[Tool]:
    kind = found.type or "function"
    if kind == "namespace":
        inner = [(child, span) for span in wire.spans(found.tools) if (child := _definition(span)) is not None]
        children = [_client_tool(child, child_span, path, native=native) for child, child_span in inner]
        return [_within(child, found) for child in children if child is not None]
    if kind in ("function", "custom"):
        tool = _client_tool(found, span, path, native=native)
        return [] if tool is None else [tool]
    if not native and found.external_web_access is False:
        # It means: cached pages only. That has no counterpart (2.15).
        ctx.lose(path, "web search without external access", dropped=True)
        return []
    server = _SERVER_KINDS.get(kind, "other")
    return [Tool(kind=ToolKind.SERVER, name=kind, server=server, config=bytes(span), origin=ORIGIN)]


def _client_tool(found: ToolDef, span: msgspec.Raw, path: str, *, native: bool) -> Tool | None:
    kind = found.type or "function"
    if kind not in ("function", "custom"):
        return None
    if not found.name:
        raise MalformedRequest("a tool needs a name", param=f"{path}.name")
    tool = Tool(
        kind=ToolKind.CUSTOM if kind == "custom" else ToolKind.FUNCTION,
        name=found.name,
        description=found.description or "",
        strict=found.strict,
        cache=raw_of(found.cache_control),
        defer_loading=found.defer_loading or False,
        origin=ORIGIN,
    )
    if kind == "custom":
        tool.grammar = raw_of(found.format)
    else:
        tool.schema = raw_of(found.parameters)
    if native and not isinstance(found, wire.KnownTool):
        tool.extras = {name: bytes(raw) for name, raw in _members(span).items() if name not in _OWN_MEMBERS}
    return tool


def _within(tool: Tool, namespace: ToolDef) -> Tool:
    tool.namespace = namespace.name or ""
    tool.namespace_description = namespace.description or ""
    return tool


def _members(span: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return decode_members(bytes(span))
    except JsonError:
        return {}


def read_choice(raw: msgspec.Raw, tools: list[Tool]) -> ToolChoice | None:
    """``tool_choice``, a word or an object. Raises: MalformedRequest."""
    if not given(raw):
        return None
    word = text_of(raw)
    if word is not None:
        if word not in ("auto", "none", "required"):
            raise MalformedRequest("tool_choice: expected auto, none, required or an object", param="tool_choice")
        return ToolChoice(mode=ChoiceMode(word))
    found = wire.read(Choice, raw)
    if found is None or not found.type:
        raise MalformedRequest("tool_choice: expected a word or an object with a type", param="tool_choice")
    if found.type in ("function", "custom"):
        if not found.name:
            raise MalformedRequest("tool_choice names no tool", param="tool_choice.name")
        names = [(found.namespace or "", found.name)]
        return ToolChoice(mode=ChoiceMode.NAMED, names=names, custom=found.type == "custom")
    if found.type == "allowed_tools":
        return _subset(found, raw)
    server = _SERVER_KINDS.get(found.type, found.type)
    return ToolChoice(mode=ChoiceMode.SERVER, names=[("", server)], raw=bytes(raw))


def _subset(found: Choice, raw: msgspec.Raw) -> ToolChoice:
    names: list[tuple[str, str]] = []
    plain = True
    for tool, _ in wire.read_list(Choice, found.tools):
        if tool.type in (None, "function", "custom") and tool.name:
            names.append((tool.namespace or "", tool.name))
        else:
            names.append(("", _SERVER_KINDS.get(tool.type or "", tool.type or "")))
            plain = False
    return ToolChoice(
        mode=ChoiceMode.SUBSET,
        names=names,
        required=found.mode == "required",
        raw=b"" if plain else bytes(raw),
    )


# --- writing ---------------------------------------------------------------------------------------------------------


def write_tools(request: IRRequest, ctx: Context) -> list[JsonObject]:
    """The tools in Responses' spelling; namespaces come back together where their first child stood."""
    out: list[JsonObject] = []
    spaces: dict[str, list[JsonValue]] = {}
    for place, tool in enumerate(request.tools):
        path = f"tools[{place}]"
        if tool.cache and tool.kind is not ToolKind.SERVER:
            ctx.lose(f"{path}.cache_control", dropped=True)
        if tool.kind is ToolKind.SERVER:
            server = _server_tool(tool, path, request, ctx)
            if server is not None:
                out.append(server)
            continue
        written = _written(tool, ctx)
        if not tool.namespace:
            out.append(written)
            continue
        if tool.namespace not in spaces:
            spaces[tool.namespace] = []
            out.append(
                {
                    "type": "namespace",
                    "name": tool.namespace,
                    "description": tool.namespace_description,
                    "tools": spaces[tool.namespace],
                }
            )
        spaces[tool.namespace].append(written)
    return out


def _written(tool: Tool, ctx: Context) -> JsonObject:
    own = tool.origin in FAMILY
    out: JsonObject = {
        "type": "custom" if tool.kind is ToolKind.CUSTOM else "function",
        "name": ctx.names.to_wire(tool.name, tool.namespace),
    }
    if tool.description:
        out["description"] = tool.description
    if tool.kind is ToolKind.CUSTOM:
        if tool.grammar:
            out["format"] = _raw(tool.grammar)
    else:
        # Absent means true at the vendor, and the schemas of others rarely satisfy its rules (2.6).
        if tool.strict is not None or not own:
            out["strict"] = bool(tool.strict)
        schema = from_openapi(tool.schema) if tool.schema_openapi and tool.schema else tool.schema
        out["parameters"] = _raw(schema or EMPTY_SCHEMA)
    if own:
        if tool.defer_loading:
            out["defer_loading"] = True
        if ctx.profile.native_extras:
            out.update({name: _raw(value) for name, value in tool.extras.items()})
    return out


def _raw(data: Raw) -> JsonValue:
    """JSON text as a leaf of what is encoded; msgspec writes it as it is, which `JsonValue` cannot say."""
    return msgspec.Raw(data)  # type: ignore[return-value]


def _server_tool(tool: Tool, path: str, request: IRRequest, ctx: Context) -> JsonObject | None:
    """A tool that the provider runs; of other vendors' only search and code mean the same here (2.15)."""
    if tool.origin in FAMILY:
        out: JsonObject = {name: _raw(bytes(value)) for name, value in _members(tool.config).items()}
        if ctx.profile.codex and tool.server == "web_search":
            out["type"] = "web_search"
        return out
    if tool.server == "web_search":
        return _search(tool, path, ctx)
    if tool.server == "code":
        return {"type": "code_interpreter", "container": {"type": "auto"}}
    choice = request.tool_choice
    if choice is not None and not {("", tool.server), ("", tool.name)}.isdisjoint(choice.names):
        raise Untranslatable("tool_choice", f"this model's provider has no tool '{tool.name[:64]}'")
    ctx.lose(path, f"no counterpart of {tool.name[:64]}", dropped=True)
    return None


def _search(tool: Tool, path: str, ctx: Context) -> JsonObject:
    """Web search as Chat, Claude or Gemini configured it."""
    try:
        config = decode(tool.config) if tool.config else {}
    except JsonError:
        config = {}
    out: JsonObject = {"type": "web_search"}
    if not isinstance(config, dict):
        return out
    inner = config.get("googleSearch", config.get("google_search"))
    if isinstance(inner, dict):
        config = inner
    domains = config.get("allowed_domains")
    if isinstance(domains, list) and domains:
        out["filters"] = {"allowed_domains": domains}
    location = config.get("user_location")
    if isinstance(location, dict):
        nested = location.get("approximate")
        fields = nested if isinstance(nested, dict) else location
        kept = ("city", "country", "region", "timezone")
        out["user_location"] = {"type": "approximate", **{name: fields[name] for name in kept if name in fields}}
    size = config.get("search_context_size")
    if isinstance(size, str):
        out["search_context_size"] = size
    for name in ("blocked_domains", "excludeDomains", "exclude_domains", "max_uses"):
        if config.get(name):
            ctx.lose(f"{path}.{name}", dropped=True)
    return out


def write_choice(request: IRRequest, names: Names) -> JsonValue:
    """``tool_choice``; None = not to be sent. `tools.check_choice` has been asked before."""
    choice = request.tool_choice
    if choice is None:
        return None
    if choice.raw:
        return _raw(choice.raw)
    kinds = {(tool.namespace, tool.name): tool.kind for tool in request.tools if tool.kind is not ToolKind.SERVER}
    match choice.mode:
        case ChoiceMode.AUTO | ChoiceMode.NONE | ChoiceMode.REQUIRED:
            return choice.mode.value
        case ChoiceMode.NAMED:
            return _named(choice.names[0], kinds, names, custom=choice.custom)
        case ChoiceMode.SUBSET:
            return {
                "type": "allowed_tools",
                "mode": "required" if choice.required else "auto",
                "tools": [_named(key, kinds, names) for key in choice.names],
            }
        case ChoiceMode.SERVER:
            kind = choice.names[0][1] if choice.names else ""
            return {"type": _CHOICE_TYPES.get(kind, kind)}


def _named(
    key: tuple[str, str], kinds: Mapping[tuple[str, str], ToolKind], names: Names, *, custom: bool = False
) -> JsonObject:
    namespace, name = key
    if key not in kinds and name in _CHOICE_TYPES:
        return {"type": _CHOICE_TYPES[name]}
    kind = kinds.get(key, ToolKind.CUSTOM if custom else ToolKind.FUNCTION)
    out: JsonObject = {
        "type": "custom" if kind is ToolKind.CUSTOM else "function",
        "name": names.to_wire(name, namespace),
    }
    if namespace:
        out["namespace"] = namespace
    return out
