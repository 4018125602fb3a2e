"""Tools and tool choice of Gemini, both ways (translation 2.6, 2.7, 2.15)."""

from typing import Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject
from cpa.translation.context import Context
from cpa.translation.gemini import wire
from cpa.translation.gemini.media_parts import Members
from cpa.translation.ir import ChoiceMode, IRRequest, Raw, Tool, ToolChoice, ToolKind
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import SchemaTier
from cpa.translation.schema import clean_gemini
from cpa.translation.tool_cache import write_once
from cpa.translation.tools import EMPTY_SCHEMA, allowed_tools, descriptions, merge_tools, wrapped_schema

ORIGIN: Final = Format.GEMINI.value
DECLARATIONS: Final = "functionDeclarations"
_SERVER_KINDS: Final = {
    "googleSearch": "web_search",
    "googleSearchRetrieval": "web_search",
    "enterpriseWebSearch": "web_search",
    "urlContext": "web_fetch",
    "codeExecution": "code",
    "fileSearch": "file_search",
    "mcpServers": "mcp",
}
_OWN_MEMBERS: Final = frozenset({"name", "description", "parameters", "parametersJsonSchema"})
_MODES: Final = {
    ChoiceMode.AUTO: "AUTO",
    ChoiceMode.NONE: "NONE",
    ChoiceMode.REQUIRED: "ANY",
    ChoiceMode.NAMED: "ANY",
}


# --- reading ---------------------------------------------------------------------------------------------------------


def read_tools(raw: msgspec.Raw, *, native: bool) -> list[Tool]:
    """The tools of a request: several entries, each with declarations and tools of Google's. Raises: MalformedRequest.

    Args:
      native: the provider speaks Gemini too, so that members that only it knows are kept.
    """
    if not wire.given(raw):
        return []
    if bytes(memoryview(raw)[:1]) not in (b"[", b"{"):
        raise MalformedRequest("tools: expected a list", param="tools")
    tools: list[Tool] = []
    for place, span in enumerate(wire.spans(raw)):
        for name, value in wire.members(span).items():
            if name == DECLARATIONS:
                declared = wire.spans(value)
                tools.extend(
                    _function(inner, f"tools[{place}].{DECLARATIONS}[{number}]", native=native)
                    for number, inner in enumerate(declared)
                )
            else:
                config = encode({name: value})
                kind = _SERVER_KINDS.get(name, "other")
                tools.append(Tool(kind=ToolKind.SERVER, name=name, server=kind, config=config, origin=ORIGIN))
    return merge_tools(tools)


def _function(raw: msgspec.Raw, path: str, *, native: bool) -> Tool:
    found = wire.read_declaration(raw)
    if not found.name:
        raise MalformedRequest("a function needs a name", param=path)
    schema = wire.raw_of(found.parametersJsonSchema) or wire.raw_of(found.parameters_json_schema)
    openapi = b"" if schema else wire.raw_of(found.parameters)
    tool = Tool(
        kind=ToolKind.FUNCTION,
        name=found.name,
        description=found.description or "",
        schema=schema or openapi,
        schema_openapi=bool(openapi),
        origin=ORIGIN,
    )
    if native:
        tool.extras = {key: bytes(value) for key, value in wire.members(raw).items() if key not in _OWN_MEMBERS}
    return tool


def read_choice(raw: msgspec.Raw) -> tuple[ToolChoice | None, dict[str, Raw]]:
    """``toolConfig``, and what of it only Gemini knows, by path. Raises: MalformedRequest."""
    extras: dict[str, Raw] = {}
    found = wire.members(raw) if wire.given(raw) else {}
    calling = wire.members(found.pop("functionCallingConfig", wire.ABSENT))
    extras.update({f"toolConfig.{name}": bytes(value) for name, value in found.items()})
    mode = (wire.text_of(calling.pop("mode", None)) or "").upper()
    names = wire.strings_of(calling.pop("allowedFunctionNames", None)) or []
    if mode == "VALIDATED":  # it holds the model to the schemas: nobody else can be told
        calling["mode"] = msgspec.Raw(b'"VALIDATED"')
    prefix = "toolConfig.functionCallingConfig"
    extras.update({f"{prefix}.{name}": bytes(value) for name, value in calling.items()})
    keys = [("", name) for name in names]
    match mode:
        case "":
            choice = ToolChoice(mode=ChoiceMode.SUBSET, names=keys) if keys else None
        case "NONE":
            choice = ToolChoice(mode=ChoiceMode.NONE)
        case "ANY" if len(keys) == 1:
            choice = ToolChoice(mode=ChoiceMode.NAMED, names=keys)
        case "ANY" if keys:
            choice = ToolChoice(mode=ChoiceMode.SUBSET, names=keys, required=True)
        case "ANY":
            choice = ToolChoice(mode=ChoiceMode.REQUIRED)
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            choice = ToolChoice(mode=ChoiceMode.SUBSET, names=keys) if keys else ToolChoice(mode=ChoiceMode.AUTO)
        case _:
            raise MalformedRequest(f"{prefix}.mode: expected AUTO, ANY, NONE or VALIDATED", param=f"{prefix}.mode")
    return choice, extras


# --- writing ---------------------------------------------------------------------------------------------------------


def write_tools(request: IRRequest, ctx: Context) -> list[Members]:
    """``tools``: one entry with all declarations, then one for each tool of Google's."""
    choice = request.tool_choice
    required_subset = choice is not None and choice.mode is ChoiceMode.SUBSET and choice.required
    tools = request.tools if required_subset else allowed_tools(request)
    places = {id(tool): place for place, tool in enumerate(request.tools)}
    clients = [tool for tool in tools if tool.kind is not ToolKind.SERVER]

    def declare() -> list[Members]:
        return [
            _declaration(tool, text, f"tools[{places[id(tool)]}]", ctx)
            for tool, text in zip(clients, descriptions(clients), strict=True)
        ]

    declared = write_once(request, ctx, declare, dialect=ctx.profile.schema_tier.value)
    out: list[Members] = [{DECLARATIONS: declared}] if declared else []
    for tool in tools:
        if tool.kind is ToolKind.SERVER:
            path = f"tools[{places[id(tool)]}]"
            server = _server_tool(tool, path, request, ctx)
            if server is None:
                continue
            if declared and tool.origin != ORIGIN and not ctx.profile.search_with_functions:
                ctx.lose(path, "this model takes no tools of the provider beside functions", dropped=True)
                continue
            out.append(server)
    return out


def _declaration(tool: Tool, description: str, path: str, ctx: Context) -> Members:
    out: Members = {"name": ctx.names.to_wire(tool.name, tool.namespace)}
    schema = tool.schema
    if tool.kind is ToolKind.CUSTOM:
        description, schema = wrapped_schema(tool, description)
    if description:
        out["description"] = description
    if tool.cache:
        ctx.lose(f"{path}.cache_control", dropped=True)
    if tool.strict:
        ctx.lose(f"{path}.strict", dropped=True)
    if tool.defer_loading:
        ctx.lose(f"{path}.defer_loading", dropped=True)
    if tool.origin == ORIGIN:
        # As it came: its client knows what its model takes.
        if schema:
            out["parameters" if tool.schema_openapi else "parametersJsonSchema"] = msgspec.Raw(schema)
        if ctx.profile.native_extras:
            out.update({name: msgspec.Raw(value) for name, value in tool.extras.items()})
        return out
    for name in tool.extras:
        ctx.lose(f"{path}.{name}", dropped=True)
    tier = ctx.profile.schema_tier
    cleaned = clean_gemini(schema or EMPTY_SCHEMA, tier, ctx, path)
    if tier is SchemaTier.JSON:
        out["parametersJsonSchema"] = msgspec.Raw(cleaned)
    elif not _is_empty(cleaned):
        out["parameters"] = msgspec.Raw(cleaned)
    return out


def _is_empty(schema: Raw) -> bool:
    """Older endpoints reject an object without properties; a function without arguments has no parameters there."""
    found = wire.members(schema)
    properties = found.get("properties")
    return (properties is None or bytes(properties) == b"{}") and "anyOf" not in found


def _server_tool(tool: Tool, path: str, request: IRRequest, ctx: Context) -> Members | None:
    """A tool that the provider runs; of other vendors' only search and code mean the same here (2.15)."""
    if tool.origin == ORIGIN:
        return {name: msgspec.Raw(bytes(value)) for name, value in wire.members(tool.config).items()}
    if tool.server == "web_search":
        return {"googleSearch": _search(tool, path, ctx)}
    if tool.server == "code":
        return {"codeExecution": {}}
    if tool.server == "image_gen":
        return None  # said by `responseModalities`
    choice = request.tool_choice
    if (
        choice is not None
        and choice.mode is ChoiceMode.SERVER
        and {("", tool.server), ("", tool.name)} & {*choice.names}
    ):
        raise Untranslatable("tool_choice", f"this model's provider has no tool '{tool.name[:64]}'")
    ctx.lose(path, f"no counterpart of {tool.name[:64]}", dropped=True)
    return None


def _search(tool: Tool, path: str, ctx: Context) -> JsonObject:
    """Web search as Chat, Responses or Claude configured it."""
    try:
        config = decode(tool.config) if tool.config else {}
    except JsonError:
        config = {}
    if not isinstance(config, dict):
        return {}
    filters = config.get("filters")
    for name in ("user_location", "search_context_size", "max_uses", "allowed_domains"):
        if config.get(name) or (isinstance(filters, dict) and filters.get(name)):
            ctx.lose(f"{path}.{name}", dropped=True)
    blocked = config.get("blocked_domains")
    if not isinstance(blocked, list) or not blocked:
        return {}
    return {"excludeDomains": [domain for domain in blocked if isinstance(domain, str)]}


def write_choice(request: IRRequest, ctx: Context, *, has_tools: bool) -> Members | None:
    """``toolConfig``; None = not to be sent. `tools.check_choice` has been asked before."""
    choice = request.tool_choice
    calling: Members = {}
    if choice is not None and has_tools:
        if choice.mode is ChoiceMode.SERVER:
            ctx.lose("tool_choice", "a tool of the provider cannot be demanded", dropped=True)
        elif choice.mode is ChoiceMode.SUBSET:
            calling["mode"] = "ANY" if choice.required else "AUTO"
        else:
            calling["mode"] = _MODES[choice.mode]
        if calling.get("mode") == "ANY" and choice.names:
            known = {(tool.namespace, tool.name) for tool in request.tools if tool.kind is not ToolKind.SERVER}
            names = [
                ctx.names.to_wire(name, namespace) for namespace, name in choice.names if (namespace, name) in known
            ]
            if names:
                calling["allowedFunctionNames"] = names
    return {"functionCallingConfig": calling} if calling else None
