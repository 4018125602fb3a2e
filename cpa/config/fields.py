"""Reading typed values out of nodes, and saying what is wrong with all that cannot be read.

A *kind* is a function from a place (`At`) to a value: it returns the value or raises what `At.reject` gives back, after
the problem was noted. `Section` asks a mapping for its keys; the keys that it was asked for are the known ones, so that
there is no second list to keep. A value that cannot be used is replaced by its default and reading goes on: this is how
every problem of a file comes out at once.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias, TypeVar

import attrs

from cpa.config.document import Document
from cpa.config.inactive import inactive
from cpa.config.nodes import (
    Entry,
    Findings,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    describe,
    is_null,
    shown_key,
    shown_unknown_key,
    to_json,
)
from cpa.config.schema import FrozenJson

T = TypeVar("T")

_SIMPLE_KEY = re.compile(r"[A-Za-z0-9_$*/-][A-Za-z0-9_$*/.-]{0,63}")

MAX_INTEGER = 2**63 - 1
"""What Go's int holds, the type behind every number in these files."""


class UnusableValue(Exception):
    """A value cannot be used; the problem is already noted. Never leaves this package."""


@attrs.frozen(kw_only=True)
class At:
    """A place in the file: the node, the path that leads there, and where problems go."""

    document: Document = attrs.field(repr=False)
    findings: Findings
    path: str
    node: Node

    def reject(self, expected: str, *, got: str | None = None, secret: bool = False) -> UnusableValue:
        """Note ``expected …, got …`` for this place. *secret*: say what kind of thing stands there, not which."""
        seen = describe(self.node, secret=secret) if got is None else got
        self.findings.problem(self.node.line, self.path, f"expected {expected}, got {seen}")
        return UnusableValue()

    def warn(self, text: str) -> None:
        """Note something that does no harm."""
        self.findings.warning(self.node.line, self.path, text)

    def member(self, entry: Entry) -> "At":
        """The value of a mapping's *entry*."""
        if not _SIMPLE_KEY.fullmatch(entry.key):
            path = f"{self.path}[{shown_key(entry.key)}]"
        else:
            path = f"{self.path}.{entry.key}" if self.path else entry.key
        return attrs.evolve(self, path=path, node=entry.node)

    def item(self, index: int, node: Node) -> "At":
        """An item of a list."""
        return attrs.evolve(self, path=f"{self.path}[{index}]", node=node)


Kind: TypeAlias = Callable[[At], T]
"""Reads one value at a place. Raises: UnusableValue, once the problem is noted."""


@attrs.define(eq=False)
class Section:
    """The keys of one mapping."""

    at: At
    node: MappingNode
    known: list[str] = attrs.field(factory=list)

    def get(self, key: str, kind: Kind[T], default: T) -> T:
        """The value of *key*; *default* when it is absent, null or unusable.

        A key that nothing obeys yet gets a warning when its value is another than *default*.
        """
        entry = self._entry(key)
        if entry is None:
            return default
        place = self.at.member(entry)
        try:
            value = kind(place)
        except UnusableValue:
            return default
        warning = inactive(place.path)
        if warning is not None and value != default:
            self.at.findings.warning(entry.line, place.path, warning)
        return value

    def _entry(self, key: str) -> Entry | None:
        self.known.append(key)
        for entry in self.node.entries:
            if entry.key == key and not is_null(entry.node):
                return entry
        return None

    def has(self, key: str) -> bool:
        """True when the file gives *key* a value, usable or not."""
        return any(entry.key == key and not is_null(entry.node) for entry in self.node.entries)

    def require(self, key: str, kind: Kind[T], expected: str, default: T) -> T:
        """As `get`, and a problem when *key* is absent or null."""
        if not self.has(key):
            self.reject(key, expected)
        return self.get(key, kind, default)

    def reject(self, key: str, expected: str) -> None:
        """Note that *key* is wrong, or has to be there."""
        for entry in self.node.entries:
            if entry.key == key:
                self.at.member(entry).reject(expected)
                return
        path = f"{self.at.path}.{key}" if self.at.path else key
        self.at.findings.problem(self.at.node.line, path, f"expected {expected}, got nothing")

    def finish(self, *, ignored: Callable[[str], bool] = lambda _key: False) -> None:
        """Note every key that nobody asked for; *ignored* ones (CLIProxyAPI's, out of scope) as warnings."""
        for entry in self.node.entries:
            if entry.key in self.known:
                continue
            if ignored(entry.key):
                text = f"{shown_key(entry.key)} belongs to a part of CLIProxyAPI that CPA does not have; ignored"
                self.at.findings.warning(entry.line, self.at.path, text)
                continue
            close = difflib.get_close_matches(entry.key[:64], self.known, n=1, cutoff=0.7)
            hint = f" did you mean {close[0]!r}?" if close else ""
            text = f"unknown key {shown_unknown_key(entry.key)};{hint} known keys: {', '.join(self.known)}"
            self.at.findings.problem(entry.line, self.at.path, text)


def section(
    read: Callable[[Section], T], *, ignored: Callable[[str], bool] = lambda _key: False, secret: bool = True
) -> Kind[T]:
    """A mapping with fixed keys. *secret* is the default since people put bare keys where an entry belongs."""

    def kind(at: At) -> T:
        if not isinstance(at.node, MappingNode):
            raise at.reject("a mapping", secret=secret)
        opened = Section(at=at, node=at.node)
        try:
            return read(opened)
        finally:
            opened.finish(ignored=ignored)

    return kind


def list_of(kind: Kind[T], what: str) -> Kind[tuple[T, ...]]:
    """A list whose usable items are kept; *what* names it in messages."""

    def read(at: At) -> tuple[T, ...]:
        if not isinstance(at.node, SequenceNode):
            raise at.reject(f"a list of {what}", secret=True)
        items: list[T] = []
        for index, node in enumerate(at.node.items):
            try:
                items.append(kind(at.item(index, node)))
            except UnusableValue:
                continue
        return tuple(items)

    return read


def map_of(kind: Kind[T], what: str, *, key: Callable[[At, Entry], str]) -> Kind[Mapping[str, T]]:
    """A mapping with free keys. *key* judges and normalises them (it may raise UnusableValue, having noted why)."""

    def read(at: At) -> Mapping[str, T]:
        if not isinstance(at.node, MappingNode):
            raise at.reject(f"a mapping of {what}", secret=True)
        values: dict[str, T] = {}
        for entry in at.node.entries:
            try:
                name = key(at, entry)
                if not is_null(entry.node):
                    values[name] = kind(at.member(entry))
            except UnusableValue:
                continue
        return MappingProxyType(values)

    return read


def boolean(at: At) -> bool:
    """``true`` or ``false``; plain ``yes``, ``no``, ``on`` and ``off`` as Go's reader takes them."""
    node = at.node
    if isinstance(node, ScalarNode):
        if isinstance(node.value, bool):
            return node.value
        if node.style == "" and node.text.lower() in _OLD_BOOLEANS:
            return _OLD_BOOLEANS[node.text.lower()]
    raise at.reject("true or false")


_OLD_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}


def integer(low: int = -MAX_INTEGER, high: int = MAX_INTEGER) -> Kind[int]:
    """A whole number from *low* to *high*; neither text nor a boolean."""
    if low == -MAX_INTEGER:
        expected = "an integer" if high == MAX_INTEGER else f"an integer of at most {high}"
    else:
        expected = f"an integer of at least {low}" if high == MAX_INTEGER else f"an integer from {low} to {high}"

    def kind(at: At) -> int:
        value = at.node.value if isinstance(at.node, ScalarNode) else None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise at.reject(expected)
        return value

    return kind


def seconds(high: float = 1e9) -> Kind[float]:
    """A number of seconds from 0 to *high*, fractions allowed."""

    def kind(at: At) -> float:
        value = at.node.value if isinstance(at.node, ScalarNode) else None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise at.reject("a number of seconds, 0 = off")
        if math.isnan(value) or not 0 <= value <= high:
            raise at.reject(f"a number of seconds from 0 to {high:g}")
        return float(value)

    return kind


def text(what: str = "a string", *, secret: bool = False, allow_empty: bool = True) -> Kind[str]:
    """Text, trimmed. An unquoted number or boolean counts as the text that it was written with, as in Go."""

    def kind(at: At) -> str:
        if not isinstance(at.node, ScalarNode) or at.node.value is None:
            raise at.reject(what, secret=secret)
        value = at.node.text.strip()
        if not value and not allow_empty:
            raise at.reject(what, got="an empty string")
        if _CONTROL.search(value):
            raise at.reject(what, got="a string with control characters")
        return value

    return kind


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def one_of(choices: Mapping[str, T], *, secret: bool = False) -> Kind[T]:
    """One of some words, any case; *choices* maps lower-case words to values."""
    listed = ", ".join(choices)

    def kind(at: At) -> T:
        word = at.node.text.strip().lower() if isinstance(at.node, ScalarNode) else None
        if word is None or word not in choices:
            raise at.reject(f"one of {listed}", secret=secret)
        return choices[word]

    return kind


def json_value(at: At) -> FrozenJson:
    """Any value, as it is."""
    return to_json(at.node)


def any_key(_at: At, entry: Entry) -> str:
    """A free key, as it is."""
    return entry.key
