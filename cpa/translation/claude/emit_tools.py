"""Tools and tool choice as Claude takes them (translation 2.6, 2.7, 2.15)."""

from typing import Any, Final

import msgspec

from cpa.formats.json import JsonError, decode, pop_member
from cpa.translation.claude.messages import ORIGIN
from cpa.translation.claude.server_kinds import CODE_NAME, CODE_TYPE, SEARCH_NAME, SEARCH_TYPE
from cpa.translation.context import Context
from cpa.translation.ir import ChoiceMode, IRRequest, Tool, ToolKind
from cpa.translation.loss import Untranslatable
from cpa.translation.schema import from_openapi, repair_root
from cpa.translation.tools import allowed_tools, descriptions, wrapped_schema

JsonMembers = dict[str, Any]
"""Members of an object that is to be encoded, with `msgspec.Raw` leaves."""

_MAX_SHOWN: Final = 64


def write_tools(request: IRRequest, ctx: Context) -> list[JsonMembers]:
    """``tools``: those that the choice allows, with the names of ``ctx.names``. Raises: Untranslatable."""
    tools = allowed_tools(request)
    texts = descriptions(tools)
    written = []
    servers: set[str] = set()
    clients = {ctx.names.to_wire(tool.name, tool.namespace) for tool in tools if tool.kind is not ToolKind.SERVER}
    for place, (tool, text) in enumerate(zip(tools, texts, strict=True)):
        path = f"tools[{place}]"
        if tool.kind is not ToolKind.SERVER:
            written.append(_client_tool(tool, text, path, ctx))
            continue
        server = _server_tool(tool, path, request, ctx)
        if server is None:
            continue
        name = server.get("name")
        if tool.origin != ORIGIN and (name in clients or name in servers):
            ctx.lose(path, f"a tool of the name {name} exists", dropped=True)
            continue
        servers.add(str(name))
        written.append(server)
    return written


def _client_tool(tool: Tool, description: str, path: str, ctx: Context) -> JsonMembers:
    out: JsonMembers = {"name": ctx.names.to_wire(tool.name, tool.namespace)}
    if tool.kind is ToolKind.CUSTOM:
        description, schema = wrapped_schema(tool, description)
        ctx.lose(path, "a free-text tool takes an object")
    else:
        schema = from_openapi(tool.schema) if tool.schema_openapi and tool.schema else tool.schema
        schema = repair_root(schema)
    if description:
        out["description"] = description
    out["input_schema"] = msgspec.Raw(schema)
    own = tool.origin == ORIGIN
    if own and tool.strict is not None:
        out["strict"] = tool.strict
    elif tool.strict:
        ctx.lose(f"{path}.strict", dropped=True)
    if own:
        if tool.defer_loading:
            out["defer_loading"] = True
        out.update({name: msgspec.Raw(raw) for name, raw in tool.extras.items()})
    if tool.cache:
        out["cache_control"] = msgspec.Raw(tool.cache)
    return out


def _server_tool(tool: Tool, path: str, request: IRRequest, ctx: Context) -> JsonMembers | None:
    """A tool that the provider runs; of other vendors' only search and code mean the same here (2.15)."""
    if tool.origin == ORIGIN:
        config, _ = pop_member(tool.config, "cache_control")
        members: JsonMembers = dict(msgspec.json.decode(config, type=dict[str, msgspec.Raw]))
        if "name" in members:  # toolsets have none
            members["name"] = tool.name
        if tool.cache:
            members["cache_control"] = msgspec.Raw(tool.cache)
        return members
    if tool.server == "web_search":
        return _search(tool, path, request, ctx)
    if tool.server == "code":
        return {"type": CODE_TYPE, "name": CODE_NAME}
    ctx.lose(path, f"no counterpart of {tool.name[:_MAX_SHOWN]}", dropped=True)
    return None


def _search(tool: Tool, path: str, request: IRRequest, ctx: Context) -> JsonMembers | None:
    """Web search as Chat, Responses or Gemini configured it."""
    config = _config(tool)
    if config.get("external_web_access") is False:
        ctx.lose(path, "web search without external access", dropped=True)
        return None
    out: JsonMembers = {"type": SEARCH_TYPE, "name": SEARCH_NAME}
    filters = config.get("filters")
    allowed = _strings(filters.get("allowed_domains") if isinstance(filters, dict) else None)
    blocked = _strings(config.get("excludeDomains") or config.get("exclude_domains"))
    if allowed:
        out["allowed_domains"] = allowed
    elif blocked:  # Claude takes one list or the other
        out["blocked_domains"] = blocked
    location = config.get("user_location")
    if isinstance(location, dict):
        nested = location.get("approximate")
        fields = nested if isinstance(nested, dict) else location
        kept = {name: fields[name] for name in ("city", "region", "country", "timezone") if fields.get(name)}
        if kept:
            out["user_location"] = {"type": "approximate", **kept}
    if config.get("search_context_size"):
        ctx.lose(f"{path}.search_context_size", dropped=True)
    limit = request.state.max_tool_calls
    if limit is not None and [t.server for t in request.tools if t.kind is ToolKind.SERVER] == ["web_search"]:
        out["max_uses"] = limit
    return out


def _config(tool: Tool) -> JsonMembers:
    try:
        config = decode(tool.config) if tool.config else None
    except JsonError:
        config = None
    if not isinstance(config, dict):
        return {}
    for name in ("googleSearch", "google_search", "web_search_options"):
        inner = config.get(name)
        if isinstance(inner, dict):
            return inner
    return config


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def write_choice(request: IRRequest, tools: list[JsonMembers], ctx: Context) -> JsonMembers | None:
    """``tool_choice`` with the prohibition of parallel calls, which lives in it; None = not to be sent.

    Args:
      tools: as `write_tools` wrote them.

    Raises: Untranslatable for a tool that had to be dropped.
    """
    if not tools:  # Claude rejects a choice without tools
        if request.tool_choice is not None and request.tool_choice.mode is ChoiceMode.SERVER:
            raise _missing(request)
        return None
    choice = request.tool_choice
    out: JsonMembers = {"type": "auto"}
    if choice is None:
        if request.parallel is not False:
            return None
    else:
        match choice.mode:
            case ChoiceMode.AUTO:
                pass
            case ChoiceMode.NONE:
                return {"type": "none"}  # the prohibition is not allowed here
            case ChoiceMode.REQUIRED:
                out = {"type": "any"}
            case ChoiceMode.NAMED:
                namespace, name = choice.names[0]
                out = {"type": "tool", "name": ctx.names.to_wire(name, namespace)}
            case ChoiceMode.SUBSET:
                ctx.lose("tool_choice", "other tools are not sent")
                out = {"type": "any" if choice.required else "auto"}
            case ChoiceMode.SERVER:
                out = {"type": "tool", "name": _server_name(request, tools)}
    if request.parallel is not None and (request.parallel is False or request.client_format == ORIGIN):
        out["disable_parallel_tool_use"] = not request.parallel
    return out


def _server_name(request: IRRequest, tools: list[JsonMembers]) -> str:
    assert request.tool_choice is not None
    kind = request.tool_choice.names[0][1]
    spelled = {"web_search": SEARCH_NAME, "code": CODE_NAME}.get(kind, kind)
    for tool in request.tools:
        if tool.kind is ToolKind.SERVER and kind in (tool.server, tool.name):
            own = tool.name if tool.origin == ORIGIN else spelled
            if any(written.get("name") == own for written in tools):
                return own
    raise _missing(request)


def _missing(request: IRRequest) -> Untranslatable:
    kind = request.tool_choice.names[0][1] if request.tool_choice and request.tool_choice.names else ""
    return Untranslatable("tool_choice", f"this model's provider has no tool '{kind[:_MAX_SHOWN]}'")
