"""A YAML document as plain values that know their line.

Three frozen node classes and the list of problems found so far; PyYAML stays in ``document.py``. Nodes are shared where
the document uses an alias, so a tree may be a graph without cycles; ``size`` counts what it would be when written out,
which is how documents that explode are refused before anything walks them.
"""

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import TypeAlias

import attrs

from cpa.config.schema import FrozenJson
from cpa.errors import ConfigProblem

MAX_SHOWN_CHARS = 24
"""Longest scalar that a message repeats. Keys and tokens are longer, and one may stand where a number belongs."""
MAX_SHOWN_KEY_CHARS = 64
"""Longest mapping key that a message repeats whole."""
MAX_SHOWN_UNKNOWN_CHARS = 4
"""What a message shows of an unknown key that does not look like a name."""


@attrs.frozen(kw_only=True)
class ScalarNode:
    """A scalar.

    Attributes:
      line: 1-based.
      value: as YAML 1.2's core schema reads it; text for everything that is quoted.
      text: the characters as written, quotes and escapes resolved.
      style: "" when plain, else one of ``' " | >``.
    """

    line: int
    value: bool | int | float | str | None = attrs.field(repr=False)
    text: str = attrs.field(repr=False)
    style: str = ""
    size: int = 1


@attrs.frozen(kw_only=True)
class SequenceNode:
    """A list; *flow* = written in brackets."""

    line: int
    items: "tuple[Node, ...]" = attrs.field(repr=False)
    flow: bool = False
    size: int = 1


@attrs.frozen(kw_only=True)
class Entry:
    """One ``key: value`` of a mapping; *line* is that of the key."""

    line: int
    key: str
    node: "Node"


@attrs.frozen(kw_only=True)
class MappingNode:
    """A mapping in the order of the file, merge keys resolved, no key twice.

    Attributes:
      span: (start, end) of its source text in characters when that text stands for itself: block style, neither
        anchors nor aliases nor tags inside. Otherwise None.
    """

    line: int
    entries: tuple[Entry, ...] = attrs.field(repr=False)
    flow: bool = False
    size: int = 1
    span: tuple[int, int] | None = None

    def get(self, key: str) -> "Node | None":
        """The value of *key*, None when absent."""
        for entry in self.entries:
            if entry.key == key:
                return entry.node
        return None


Node: TypeAlias = ScalarNode | SequenceNode | MappingNode


def to_json(node: Node) -> FrozenJson:
    """The value of *node*, read-only."""
    match node:
        case ScalarNode():
            return node.value
        case SequenceNode():
            return tuple(to_json(item) for item in node.items)
        case MappingNode():
            return MappingProxyType({entry.key: to_json(entry.node) for entry in node.entries})


def is_null(node: Node) -> bool:
    """True for ``~``, ``null`` and nothing at all."""
    return isinstance(node, ScalarNode) and node.value is None


def describe(node: Node, *, secret: bool) -> str:
    """What stands there, for ``got …``. A *secret* place never shows the value, nor does any long text."""
    if isinstance(node, SequenceNode):
        return f"a list of {len(node.items)}"
    if isinstance(node, MappingNode):
        return "a mapping"
    if node.value is None:
        return "nothing (null)"
    kind = _KINDS[type(node.value)]
    if secret or len(node.text) > MAX_SHOWN_CHARS:
        return f"a {kind}" if secret else f"a {kind} of {len(node.text)} characters"
    shown = repr(node.text) if isinstance(node.value, str) else node.text
    return f"{shown} ({type(node.value).__name__})"


_KINDS = {bool: "boolean", int: "number", float: "number", str: "string"}


def shown_key(key: str) -> str:
    """A mapping key for messages: quoted, escaped, bounded."""
    return repr(key if len(key) <= MAX_SHOWN_KEY_CHARS else key[:MAX_SHOWN_KEY_CHARS] + "…")


def shown_unknown_key(key: str) -> str:
    """A key that nobody knows: in full only when it looks like a name, since it may be a secret in the wrong place."""
    return repr(key) if _NAME.fullmatch(key) else repr(key[:MAX_SHOWN_UNKNOWN_CHARS] + "…")


_NAME = re.compile(r"[A-Za-z]{1,20}([-_.][A-Za-z]{1,20}){0,8}")


@attrs.define(eq=False)
class Findings:
    """Problems and warnings of one file, collected while it is read."""

    file: str
    _problems: list[ConfigProblem] = attrs.field(factory=list)
    _warnings: list[ConfigProblem] = attrs.field(factory=list)

    def problem(self, line: int, path: str, text: str, *, column: int | None = None) -> None:
        """Note that the file is wrong at *line*; *path* is the key path, empty for the document itself."""
        self._problems.append(ConfigProblem(line, path, text, column))

    def warning(self, line: int, path: str, text: str) -> None:
        """Note something that does not keep the file from being used."""
        self._warnings.append(ConfigProblem(line, path, text))

    def _render(self, found: ConfigProblem) -> str:
        place = f"{self.file}:{found.line}"
        return f"{place}: {found.path}: {found.text}" if found.path else f"{place}: {found.text}"

    @property
    def details(self) -> tuple[ConfigProblem, ...]:
        """The problems in file order, in parts."""
        return _in_order(self._problems)

    @property
    def problems(self) -> tuple[str, ...]:
        """In file order."""
        return tuple(map(self._render, self.details))

    @property
    def warnings(self) -> tuple[str, ...]:
        """In file order."""
        return tuple(map(self._render, _in_order(self._warnings)))


def _in_order(found: Sequence[ConfigProblem]) -> tuple[ConfigProblem, ...]:
    # An anchored mistake is met once per alias; one line is enough. sorted() is stable, dict keeps the first.
    return tuple(dict.fromkeys(sorted(found, key=lambda item: item.line)))
