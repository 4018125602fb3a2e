"""Tool names that a provider accepts, and the way back (2.6).

The map depends on nothing but the set of names: not on their order, not on the turn in which a name first occurs.
The providers' prompt caches live from that.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from enum import Enum
from hashlib import sha256
from typing import Final

import attrs

from cpa.translation.context import Names
from cpa.translation.ir import ChoiceMode, IRRequest, Tool, ToolKind
from cpa.translation.tool_cache import Toolset
from cpa.translation.tool_survey import Key, Survey, called_in

MAX_NAME: Final = 64
"""Newer Claude and Gemini models take 128, but not all hosts do."""
KEPT_CHARS: Final = 51
HASH_DIGITS: Final = 12

_FUNCTION, _CUSTOM, _SERVER = ToolKind  # looking into an enumeration takes long


class NameRule(Enum):
    """Whose tool names; Claude and OpenAI agree."""

    OPENAI = "openai"
    CLAUDE = "claude"
    GEMINI = "gemini"

    def accepts(self, name: str) -> bool:
        """Whether *name* can be sent as it is."""
        return _PATTERNS[self].whole.fullmatch(name) is not None

    def sanitise(self, name: str) -> str:
        """*name* with acceptable characters; possibly too long."""
        pattern = _PATTERNS[self]
        clean = pattern.forbidden.sub("_", name)
        return clean if pattern.first.match(clean) else "_" + clean


@attrs.frozen(kw_only=True)
class _Pattern:
    whole: re.Pattern[str]
    forbidden: re.Pattern[str]
    first: re.Pattern[str]


_PLAIN = _Pattern(
    whole=re.compile(r"[A-Za-z0-9_-]{1,64}"),
    forbidden=re.compile(r"[^A-Za-z0-9_-]"),
    first=re.compile(r"[A-Za-z0-9_-]"),
)
_PATTERNS: Final = {
    NameRule.OPENAI: _PLAIN,
    NameRule.CLAUDE: _PLAIN,
    NameRule.GEMINI: _Pattern(
        whole=re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}"),
        forbidden=re.compile(r"[^A-Za-z0-9_.:-]"),
        first=re.compile(r"[A-Za-z_]"),
    ),
}


def flat_name(namespace: str, name: str) -> str:
    """A namespace's child as one name; not prefixed twice."""
    if not namespace or name.startswith((f"{namespace}__", "mcp__")):
        return name
    return f"{namespace}__{name}"


def build_names(
    request: IRRequest, rule: NameRule, *, seen: Survey | None = None, wrap_custom: bool = False, flatten: bool = True
) -> Names:
    """Names of all tools that *request* declares, chooses or has in its history.

    Args:
      seen: what `tool_survey.survey` found in the history, if it was asked.
      wrap_custom: the target has no free text; `Names.custom` gets the wire names of the custom tools.
      flatten: the target has no namespaces. Otherwise children keep names of their own, which only have to be unique
        within their namespace; the way back then needs the namespace that the answer states.
    """
    declared, fit = _declared(request, rule)
    others = (called_in(request.turns) if seen is None else seen.called) | _chosen(request)
    others -= declared
    keys = declared | others
    names = Names()
    if fit and _fit(others, rule):  # as nearly always
        names.wire = {key: key[1] for key in keys}
        names.client = {key[1]: key for key in keys}
        names.unchanged = True
    else:
        _name_anew(names, keys, rule, flatten=flatten)
    custom = [(tool.namespace, tool.name) for tool in request.tools if tool.kind is _CUSTOM] if wrap_custom else []
    if custom:
        functions = {(tool.namespace, tool.name) for tool in request.tools if tool.kind is _FUNCTION}
        names.custom = {names.wire[key] for key in custom if key not in functions}
    return names


def _name_anew(names: Names, keys: Set[Key], rule: NameRule, *, flatten: bool) -> None:
    """Names that had to be changed somewhere."""
    if flatten:
        names.wire = _assign({key: flat_name(*key) for key in keys}, rule)
    else:
        for namespace in sorted({key[0] for key in keys}):
            names.wire.update(_assign({key: key[1] for key in keys if key[0] == namespace}, rule))
    # Direct tools last: where two namespaces share a child's name, a bare wire name means the direct tool.
    names.client = {names.wire[key]: key for key in sorted(names.wire, reverse=True)}


def _fit(keys: Set[Key], rule: NameRule) -> bool:
    """Whether all of *keys* can be sent as they are."""
    fits = _PATTERNS[rule].whole.fullmatch
    return all(not namespace and fits(name) for namespace, name in keys)


def _declared(request: IRRequest, rule: NameRule) -> tuple[frozenset[Key], bool]:
    """Names of all tools that are declared, and whether all can be sent as they are. Looked at once per list."""
    toolset = request.toolset
    known = toolset.names.get(rule.value) if isinstance(toolset, Toolset) else None
    if known is None:
        keys = frozenset([(tool.namespace, tool.name) for tool in request.tools if tool.kind is not _SERVER])
        known = keys, _fit(keys, rule)
        if isinstance(toolset, Toolset):
            toolset.names[rule.value] = known
    return known


def _chosen(request: IRRequest) -> set[Key]:
    """Names of the tools that the choice names."""
    choice = request.tool_choice
    if choice is None or choice.mode not in (ChoiceMode.NAMED, ChoiceMode.SUBSET):
        return set()
    servers = {tool.server for tool in request.tools if tool.kind is _SERVER}
    return {(namespace, name) for namespace, name in choice.names if namespace or name not in servers}


def _assign(full: dict[Key, str], rule: NameRule) -> dict[Key, str]:
    """A wire name for each key. *full*: its client-side name, flattened if need be; may be shared by several keys."""
    owners: defaultdict[str, list[Key]] = defaultdict(list)
    for key in sorted(full):
        owners[full[key]].append(key)
    wire: dict[Key, str] = {}
    for name, keys in owners.items():
        if rule.accepts(name):  # identity first; a direct tool before a namespace's child of the same flat name
            wire[next((key for key in keys if not key[0]), keys[0])] = name
    used = set(wire.values())
    rest = [key for key in sorted(full) if key not in wire]
    forms: defaultdict[str, list[Key]] = defaultdict(list)
    for key in rest:
        forms[rule.sanitise(full[key])].append(key)
    for form, keys in sorted(forms.items()):
        if len(keys) == 1 and len(form) <= MAX_NAME and form not in used:
            wire[keys[0]] = form
    used.update(wire.values())
    for key in rest:
        if key not in wire:
            seed = full[key] if len(owners[full[key]]) == 1 or not key[0] else "\0".join(key)
            wire[key] = _hashed(rule.sanitise(full[key]), seed, used)
            used.add(wire[key])
    return wire


def _hashed(form: str, seed: str, used: set[str]) -> str:
    while True:
        digest = sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]
        candidate = f"{form[:KEPT_CHARS]}_{digest}"
        if candidate not in used:
            return candidate
        seed += "\0"  # somebody's tool is called so


def descriptions(tools: Sequence[Tool]) -> list[str]:
    """What each of *tools* is described by where there are no namespaces: the first child tells of its namespace."""
    told: set[str] = set()
    texts = []
    for tool in tools:
        text = tool.description
        if tool.namespace and tool.namespace not in told:
            told.add(tool.namespace)
            text = "\n\n".join(filter(None, (tool.namespace_description, text)))
        texts.append(text)
    return texts


def merge_tools(tools: Iterable[Tool]) -> list[Tool]:
    """*tools* without repetitions (2.6): the first of a name stays, but a function before a custom tool, and a direct
    tool before a namespace's child of the same flat name."""
    kept: dict[Key, Tool] = {}
    servers: list[tuple[int, Tool]] = []
    places: dict[Key, int] = {}
    for place, tool in enumerate(tools):
        key = (tool.namespace, tool.name)
        if tool.kind is ToolKind.SERVER:
            servers.append((place, tool))
        elif key not in kept:
            kept[key] = tool
            places[key] = place
        elif kept[key].kind is ToolKind.CUSTOM and tool.kind is ToolKind.FUNCTION:
            kept[key] = tool
    direct = {name for namespace, name in kept if not namespace}
    merged = servers + [
        (places[key], tool) for key, tool in kept.items() if not key[0] or flat_name(*key) not in direct
    ]
    return [tool for _, tool in sorted(merged, key=lambda entry: entry[0])]
