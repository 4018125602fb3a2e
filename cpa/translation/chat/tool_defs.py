"""Tools and tool choice of Chat, both ways (translation 2.6, 2.7, 2.15)."""

from typing import Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.chat import wire
from cpa.translation.chat.wire import Allowed, Body, Choice, Grammar, ToolBody, ToolDef, given, raw_of, text_of
from cpa.translation.context import Context
from cpa.translation.ir import NO_RAW, ChoiceMode, IRRequest, Raw, Tool, ToolChoice, ToolKind
from cpa.translation.loss import Untranslatable
from cpa.translation.schema import from_openapi, is_strict, repair_root
from cpa.translation.tools import EMPTY_SCHEMA, allowed_tools, descriptions, merge_tools, wrapped_schema

ORIGIN: Final = Format.OPENAI.value
_RESPONSES: Final = frozenset({Format.OPENAI_RESPONSE.value, Format.CODEX.value})
SEARCH: Final = "web_search"
_SEARCH_TYPES: Final = frozenset(
    {"web_search", "web_search_preview", "web_search_preview_2025_03_11", "web_search_2025_08_26"}
)
"""Tools of Responses that clients of compatible hosts send to Chat as well."""


# --- reading ---------------------------------------------------------------------------------------------------------


def read_tools(body: Body, ctx: Context) -> list[Tool]:
    """The tools of a request: ``tools``, legacy ``functions``, ``web_search_options``. Raises: MalformedRequest."""
    tools: list[Tool] = []
    for name in ("tools", "functions"):
        raw = getattr(body, name)
        if not given(raw):
            continue
        if bytes(raw)[:1] != b"[":
            raise MalformedRequest(f"{name}: expected a list", param=name)
        definitions = wire.read_all(ToolDef, raw)
        if definitions is None:
            raise MalformedRequest(f"{name}: expected objects", param=name)
        for place, found in enumerate(definitions):
            tool = _read_tool(found, raw, place, name, ctx)
            if tool is not None:
                tools.append(tool)
    if given(body.web_search_options):
        config = raw_of(body.web_search_options)
        tools.append(Tool(kind=ToolKind.SERVER, name=SEARCH, server=SEARCH, config=config, origin=ORIGIN))
    return merge_tools(tools)


def _read_tool(found: ToolDef, raw: msgspec.Raw, place: int, member: str, ctx: Context) -> Tool | None:
    path = f"{member}[{place}]"
    kind = found.type or ("custom" if found.custom is not None else "function")
    if member == "functions":
        kind = "function"
    if kind == "custom":
        body = found.custom or ToolBody()
        return Tool(
            kind=ToolKind.CUSTOM,
            name=_name(body.name, f"{path}.custom.name"),
            description=body.description or "",
            grammar=_flat_grammar(body.format),
            cache=raw_of(found.cache_control),
            origin=ORIGIN,
        )
    if kind != "function":
        return _read_server_tool(kind, wire.spans(raw)[place], path, ctx)
    body = found.function or ToolBody(
        name=found.name, description=found.description, parameters=found.parameters, strict=found.strict
    )
    return Tool(
        kind=ToolKind.FUNCTION,
        name=_name(body.name, f"{path}.function.name"),
        description=body.description or "",
        schema=raw_of(body.parameters),
        strict=body.strict if body.strict is not None else found.strict,
        cache=raw_of(found.cache_control),
        defer_loading=found.defer_loading or False,
        origin=ORIGIN,
    )


def _read_server_tool(kind: str, span: msgspec.Raw, path: str, ctx: Context) -> Tool | None:
    """What is no tool of Chat: a search that other protocols know, or a host's own, for this protocol only."""
    if kind in _SEARCH_TYPES:
        return Tool(kind=ToolKind.SERVER, name=kind, server=SEARCH, config=bytes(span), origin=ORIGIN)
    if ctx.provider is not Format.OPENAI:
        ctx.lose(path, f"unknown tool type '{kind[:64]}'", dropped=True)
        return None
    return Tool(kind=ToolKind.SERVER, name=kind, server="other", config=bytes(span), origin=ORIGIN)


def _name(name: str | None, param: str) -> str:
    if not name:
        raise MalformedRequest(f"{param}: a tool needs a name", param=param)
    return name


def _flat_grammar(raw: msgspec.Raw) -> Raw:
    """A custom tool's ``format`` in the spelling of Responses, which the IR keeps (2.6)."""
    grammar = wire.read(Grammar, raw) if given(raw) else None
    if grammar is None:
        return NO_RAW
    inner = wire.read(Grammar, grammar.grammar) if given(grammar.grammar) else None
    if grammar.type != "grammar" or inner is None:
        return raw_of(raw)
    return encode({"type": "grammar", "syntax": inner.syntax or "", "definition": inner.definition or ""})


def _nested_grammar(raw: Raw) -> JsonValue:
    grammar = wire.read(Grammar, raw)
    if grammar is None or grammar.type != "grammar" or grammar.definition is None:
        return _raw(raw)
    return {"type": "grammar", "grammar": {"syntax": grammar.syntax or "", "definition": grammar.definition}}


def read_choice(body: Body) -> ToolChoice | None:
    """``tool_choice`` or legacy ``function_call``, a word or an object. Raises: MalformedRequest."""
    param = "tool_choice" if given(body.tool_choice) else "function_call"
    raw = getattr(body, param)
    if not given(raw):
        return None
    word = text_of(raw)
    if word is not None:
        if word not in ("auto", "none", "required", "any"):
            raise MalformedRequest(f"{param}: expected auto, none, required or an object", param=param)
        return ToolChoice(mode=ChoiceMode.REQUIRED if word == "any" else ChoiceMode(word))
    found = wire.read(Choice, raw)
    if found is None:
        raise MalformedRequest(f"{param}: expected a word or an object", param=param)
    if found.type == "allowed_tools":
        allowed = found.allowed_tools or Allowed(mode=found.mode, tools=found.tools)
        names = [_chosen(choice) for choice, _ in wire.read_list(Choice, allowed.tools)]
        required = allowed.mode == "required"
        return ToolChoice(mode=ChoiceMode.SUBSET, names=[("", name) for name in names if name], required=required)
    name = _chosen(found)
    if not name:
        raise MalformedRequest(f"{param}: it names no tool", param=param)
    return ToolChoice(
        mode=ChoiceMode.NAMED, names=[("", name)], custom=found.type == "custom" or found.custom is not None
    )


def _chosen(choice: Choice) -> str:
    inner = choice.function or choice.custom
    return (inner.name if inner is not None else choice.name) or ""


# --- writing ---------------------------------------------------------------------------------------------------------


def write_tools(request: IRRequest, ctx: Context, body: JsonObject, *, own: bool) -> list[JsonValue]:
    """The tools in Chat's spelling; a web search becomes a member of *body*.

    Args:
      own: the client speaks Chat too. Otherwise compatible hosts are not asked for what only the vendor knows.
    """
    out: list[JsonValue] = []
    tools = request.tools if own or ctx.profile.vendor_host else allowed_tools(request)
    texts = descriptions(tools)
    places = {id(tool): place for place, tool in enumerate(request.tools)}
    for tool, text in zip(tools, texts, strict=True):
        path = f"tools[{places[id(tool)]}]"
        if tool.cache:
            ctx.lose(f"{path}.cache_control", dropped=True)
        match tool.kind:
            case ToolKind.SERVER:
                _write_server(tool, path, request, ctx, body, out)
            case ToolKind.CUSTOM if ctx.names.to_wire(tool.name, tool.namespace) not in ctx.names.custom:
                out.append(_write_custom(tool, text, ctx))
            case _:
                out.append(_write_function(tool, text, path, ctx))
    return out


def _write_function(tool: Tool, text: str, path: str, ctx: Context) -> JsonObject:
    function: JsonObject = {"name": ctx.names.to_wire(tool.name, tool.namespace)}
    if tool.kind is ToolKind.CUSTOM:
        text, schema = wrapped_schema(tool, text)
    else:
        schema = from_openapi(tool.schema) if tool.schema_openapi and tool.schema else tool.schema or EMPTY_SCHEMA
    if text:
        function["description"] = text
    strict = tool.strict if tool.kind is ToolKind.FUNCTION else None
    if tool.kind is ToolKind.FUNCTION and strict is None and tool.origin in _RESPONSES:
        # Absent means true in Responses and false here (2.6).
        if is_strict(schema):
            strict = True
        else:
            ctx.lose(f"{path}.strict", "the schema does not satisfy strict rules")
    function["parameters"] = _raw(repair_root(schema) if strict or schema[:1] != b"{" else schema)
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}


def _write_custom(tool: Tool, text: str, ctx: Context) -> JsonObject:
    custom: JsonObject = {"name": ctx.names.to_wire(tool.name, tool.namespace)}
    if text:
        custom["description"] = text
    if tool.grammar:
        custom["format"] = _nested_grammar(tool.grammar)
    return {"type": "custom", "custom": custom}


def _write_server(
    tool: Tool, path: str, request: IRRequest, ctx: Context, body: JsonObject, out: list[JsonValue]
) -> None:
    """A tool that the provider runs. Never a function: the client could not execute it (2.15)."""
    if tool.origin == ORIGIN and tool.name != SEARCH:
        if ctx.profile.native_extras:
            out.append(_raw(tool.config))
        else:
            ctx.lose(path, "unknown tool type", dropped=True)
        return
    if tool.server == SEARCH:
        body["web_search_options"] = _raw(tool.config) if tool.origin == ORIGIN else _search_options(tool, path, ctx)
        return
    choice = request.tool_choice
    if choice is not None and not {("", tool.server), ("", tool.name)}.isdisjoint(choice.names):
        raise Untranslatable("tool_choice", f"this model's provider has no tool '{tool.name[:64]}'")
    ctx.lose(path, f"no counterpart of {tool.name[:64]}", dropped=True)


def _search_options(tool: Tool, path: str, ctx: Context) -> JsonObject:
    """Web search as Responses, Claude or Gemini configured it."""
    try:
        config = decode(tool.config) if tool.config else {}
    except JsonError:
        config = {}
    out: JsonObject = {}
    if not isinstance(config, dict):
        return out
    inner = config.get("googleSearch", config.get("google_search"))
    if isinstance(inner, dict):
        config = inner
    size = config.get("search_context_size")
    if size in ("low", "medium", "high"):
        out["search_context_size"] = size
    location = config.get("user_location")
    if isinstance(location, dict):
        kept: JsonObject = {
            name: location[name]
            for name in ("city", "country", "region", "timezone")
            if isinstance(location.get(name), str)
        }
        out["user_location"] = {"type": "approximate", "approximate": kept}
    filters = config.get("filters")
    if isinstance(filters, dict) and filters.get("allowed_domains"):
        ctx.lose(f"{path}.filters.allowed_domains", dropped=True)
    for name in ("allowed_domains", "blocked_domains", "excludeDomains", "exclude_domains", "max_uses"):
        if config.get(name):
            ctx.lose(f"{path}.{name}", dropped=True)
    return out


def write_choice(request: IRRequest, ctx: Context, *, own: bool) -> JsonValue:
    """``tool_choice``; None = not to be sent. `tools.check_choice` has been asked before."""
    choice = request.tool_choice
    if choice is None:
        return None
    match choice.mode:
        case ChoiceMode.AUTO | ChoiceMode.NONE | ChoiceMode.REQUIRED:
            return choice.mode.value
        case ChoiceMode.NAMED:
            return _named(choice.names[0], request, ctx, custom=choice.custom)
        case ChoiceMode.SUBSET:
            mode = "required" if choice.required else "auto"
            if not own and not ctx.profile.vendor_host:
                return mode  # only the tools of the subset are sent
            servers = {tool.name for tool in request.tools if tool.kind is ToolKind.SERVER}
            servers |= {tool.server for tool in request.tools if tool.kind is ToolKind.SERVER}
            named: list[JsonValue] = [
                _named(key, request, ctx) for key in choice.names if key[0] or key[1] not in servers
            ]
            if not named:
                return None
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
        case ChoiceMode.SERVER:
            ctx.lose("tool_choice", "a provider's own tool cannot be chosen", dropped=True)
            return None


def _named(key: tuple[str, str], request: IRRequest, ctx: Context, *, custom: bool = False) -> JsonObject:
    namespace, name = key
    kind = next((tool.kind for tool in request.tools if (tool.namespace, tool.name) == key), None)
    wire_name = ctx.names.to_wire(name, namespace)
    free = (kind is ToolKind.CUSTOM or (kind is None and custom)) and wire_name not in ctx.names.custom
    word = "custom" if free else "function"
    return {"type": word, word: {"name": wire_name}}


def _raw(data: Raw) -> JsonValue:
    """JSON text as a leaf of what is encoded; msgspec writes it as it is, which `JsonValue` cannot say."""
    return msgspec.Raw(data)  # type: ignore[return-value]
