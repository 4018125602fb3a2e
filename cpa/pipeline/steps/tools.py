"""Steps on tools: ``force-tool-choice`` and ``only-tools``."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cpa.config.schema import FrozenJson
from cpa.formats.names import Format
from cpa.formats.paths import Glob
from cpa.pipeline.steps.tree import (
    Members,
    Tree,
    change,
    drop,
    edit_items,
    edit_member,
    given,
    items_of,
    keep_objects,
    members_of,
    put,
    text_of,
)
from cpa.pipeline.steps.values import BuiltIn, WrongSetting, for_formats, texts

CHOICE: Final = "auto, none, required or {name: TOOL}"
PATTERNS: Final = "a list of patterns for tool names"
_MODES: Final[Mapping[str, str]] = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_CLAUDE_TYPES: Final[Mapping[str, str]] = {"auto": "auto", "none": "none", "required": "any"}
_CHOICE_MEMBERS: Final = ("tool_choice", "parallel_tool_calls", "function_call")
"""Providers refuse them alone."""

# --- names -----------------------------------------------------------------------------------------------------------


def tool_names(tool: Members) -> tuple[str, ...]:
    """What a tool of an OpenAI protocol or of Claude is called; of a built-in one also its type."""
    function = members_of(tool.get("function")) or {}
    kind = text_of(tool.get("type"))
    built_in = kind if kind not in ("function", "custom", "namespace") else ""
    return tuple(filter(None, (text_of(tool.get("name")), text_of(function.get("name")), built_in)))


def _declared(members: Members) -> set[str]:
    """Names of all tools of a request."""
    found: set[str] = set()
    for node in items_of(members.get("tools")) or []:
        tool = members_of(node)
        if tool is None:
            continue
        found.update(tool_names(tool))
        for holder in ("functionDeclarations", "function_declarations"):
            for inner in items_of(tool.get(holder)) or []:
                found.add(text_of((members_of(inner) or {}).get("name")))
    return found


# --- force-tool-choice -----------------------------------------------------------------------------------------------


def make_force_tool_choice(setting: FrozenJson) -> BuiltIn:
    """``force-tool-choice: auto|none|required|{name: TOOL}``; requests without tools, or that tool, stay."""
    word, name = "", ""
    if isinstance(setting, Mapping) and tuple(setting) == ("name",):
        value = setting["name"]
        if not isinstance(value, str) or not value:
            raise WrongSetting("the name of a tool", value, path=".name")
        name = value
    elif isinstance(setting, str) and setting in _MODES:
        word = setting
    else:
        raise WrongSetting(CHOICE, setting)

    def of(write: Callable[[Members, str, str], bool]) -> BuiltIn:
        def edit(members: Members) -> bool:
            declared = _declared(members)
            if not declared or (name and name not in declared):
                return False
            return write(members, word, name)

        return lambda body, context: change(body, edit)

    return for_formats(
        {
            Format.OPENAI: of(_chat_choice),
            Format.OPENAI_RESPONSE: of(_responses_choice),
            Format.CODEX: of(_responses_choice),
            Format.CLAUDE: of(_claude_choice),
            Format.GEMINI: of(_gemini_choice),
        }
    )


def _chat_choice(members: Members, word: str, name: str) -> bool:
    named: Tree = {"type": "function", "function": {"name": name}}
    return put(members, "tool_choice", named if name else word)


def _responses_choice(members: Members, word: str, name: str) -> bool:
    for node in items_of(members.get("tools")) or []:
        tool = members_of(node)
        if name and tool is not None and name in tool_names(tool):
            kind = text_of(tool.get("type"))
            own: Tree = {"type": kind, "name": name} if kind in ("function", "custom") else {"type": kind}
            return put(members, "tool_choice", own)
    return False if name else put(members, "tool_choice", word)


def _claude_choice(members: Members, word: str, name: str) -> bool:
    choice: Members = {"type": "tool", "name": name} if name else {"type": _CLAUDE_TYPES[word]}
    before = members_of(members.get("tool_choice")) or {}
    if word != "none" and given(before, "disable_parallel_tool_use"):
        choice["disable_parallel_tool_use"] = before["disable_parallel_tool_use"]
    return put(members, "tool_choice", choice)


def _gemini_choice(members: Members, word: str, name: str) -> bool:
    holder = "tool_config" if given(members, "tool_config") else "toolConfig"
    config = members_of(members.get(holder)) or {}
    inner = "function_calling_config" if given(config, "function_calling_config") else "functionCallingConfig"
    calling: Members = {"mode": "ANY", "allowedFunctionNames": [name]} if name else {"mode": _MODES[word]}
    config[inner] = calling
    return put(members, holder, config)


# --- only-tools ------------------------------------------------------------------------------------------------------


def make_only_tools(setting: FrozenJson) -> BuiltIn:
    """``only-tools: [pattern, …]``: names with ``*``; built-in tools go by their type as well."""
    patterns = tuple(Glob(text) for text in texts(setting, PATTERNS))

    def wanted(names: Iterable[str]) -> bool:
        return any(pattern.matches(name) for name in names for pattern in patterns)

    def edit(members: Members) -> bool:
        changed = keep_objects(members, "functions", lambda tool: wanted(tool_names(tool)))
        changed |= keep_objects(members, "tools", lambda tool: wanted(tool_names(tool)))
        return changed and _without_lost_choice(members)

    def edit_gemini(members: Members) -> bool:
        changed = edit_items(members, "tools", lambda node: _gemini_tools(node, wanted))
        if changed and not items_of(members.get("tools")):
            drop(members, "tools", "toolConfig", "tool_config")
        elif changed:
            for holder in ("toolConfig", "tool_config"):
                edit_member(members, holder, lambda config: _allowed(config, wanted))
        return changed

    return for_formats(
        {
            **dict.fromkeys(
                (Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX, Format.CLAUDE),
                lambda body, context: change(body, edit),
            ),
            Format.GEMINI: lambda body, context: change(body, edit_gemini),
        }
    )


def _without_lost_choice(members: Members) -> bool:
    """Remove what speaks of tools that are gone. Returns: True, tools are gone."""
    left = _declared(members) | {
        text_of((members_of(node) or {}).get("name")) for node in items_of(members.get("functions")) or []
    }
    for holder in ("tools", "functions"):
        if items_of(members.get(holder)) == []:
            drop(members, holder)
    if not left:
        drop(members, *_CHOICE_MEMBERS)
        return True
    choice = members_of(members.get("tool_choice")) or {}
    named = set(tool_names(choice))
    if text_of(choice.get("type")) == "tool":
        named.discard("tool")
    if named - {"auto", "any", "none"} - left:  # a subset of tools goes too: it may name some that are gone
        drop(members, "tool_choice")
    return True


def _gemini_tools(node: Tree, wanted: Callable[[Iterable[str]], bool]) -> Tree:
    tool = members_of(node)
    if tool is None:
        return node
    changed = False
    for name in list(tool):
        if name not in ("functionDeclarations", "function_declarations"):
            if not wanted((name,)):
                changed |= drop(tool, name)
            continue
        changed |= keep_objects(tool, name, lambda one: wanted((text_of(one.get("name")),)))
        if not items_of(tool.get(name)):
            changed |= drop(tool, name)
    if not changed:
        return node
    return tool or None


def _allowed(config: Members, wanted: Callable[[Iterable[str]], bool]) -> bool:
    changed = False
    for inner in ("functionCallingConfig", "function_calling_config"):
        for name in ("allowedFunctionNames", "allowed_function_names"):
            changed |= edit_member(config, inner, lambda calling, name=name: _allowed_names(calling, name, wanted))  # type: ignore[misc]
    return changed


def _allowed_names(calling: Members, name: str, wanted: Callable[[Iterable[str]], bool]) -> bool:
    changed = edit_items(calling, name, lambda node: node if wanted((text_of(node),)) else None)
    if changed and not items_of(calling.get(name)):
        drop(calling, name)
        put(calling, "mode", "AUTO")
    return changed
