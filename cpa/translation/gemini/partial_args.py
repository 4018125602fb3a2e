"""Arguments that arrive piece by piece, each with its JSON path (translation 4.5; Vertex streams them so).

A piece is a number, a truth value, null or more characters of a string. Paths come from a provider and may be
anything: what cannot be followed is left out, and lists do not grow further than their next element.
"""

import re
from itertools import pairwise
from typing import Any, Final

import msgspec

from cpa.formats.json import encode
from cpa.translation.gemini import wire

MAX_DEPTH: Final = 64
MAX_PIECES: Final = 100_000
"""Of one call; more is no call of a tool."""

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\[(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\]")
_ESCAPED = re.compile(r"\\(.)")


class _Text:
    """A string that grows."""

    def __init__(self) -> None:
        self.pieces: list[str] = []


class PartialArgs:
    """The arguments of one call."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}
        self._pieces = 0

    def feed(self, raw: bytes | msgspec.Raw) -> None:
        """The pieces in one ``partialArgs``."""
        for span in wire.spans(raw):
            self._pieces += 1
            if self._pieces > MAX_PIECES:
                return
            found = wire.members(span)
            steps = parse_path(wire.text_of(found.get("jsonPath")) or "")
            if not steps:
                continue
            text = wire.text_of(found.get("stringValue"))
            if text is not None:
                place = self._place(steps, _Text())
                if isinstance(place, _Text):
                    place.pieces.append(text)
            elif "numberValue" in found:
                self._place(steps, msgspec.Raw(bytes(found["numberValue"])))
            elif "boolValue" in found:
                self._place(steps, wire.boolean_of(found["boolValue"]) or False)
            elif "nullValue" in found:
                self._place(steps, None)

    def json(self) -> bytes:
        """The arguments so far."""
        return encode(_plain(self._root))

    def _place(self, steps: list[str | int], value: Any) -> Any:
        """Put *value* there, unless a string that grows is there already; returns what is there."""
        node: Any = self._root
        for step, following in pairwise(steps):
            empty: Any = [] if isinstance(following, int) else {}
            node = _enter(node, step, empty)
            if node is None:
                return None
        last = steps[-1]
        if isinstance(value, _Text):
            return _enter(node, last, value)
        _enter(node, last, value)
        return value


def _enter(node: Any, step: str | int, default: Any) -> Any:
    """What stands at *step* of *node*, *default* put there if there is nothing; None where the path cannot lead."""
    if isinstance(node, dict) and isinstance(step, str):
        return node.setdefault(step, default)
    if isinstance(node, list) and isinstance(step, int) and step <= len(node):
        if step == len(node):
            node.append(default)
        return node[step]
    return None


def _plain(node: Any) -> Any:
    if isinstance(node, _Text):
        return "".join(node.pieces)
    if isinstance(node, dict):
        return {name: _plain(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node


def parse_path(path: str) -> list[str | int]:
    """The steps of a JSON path (RFC 9535, names and indices only); empty for any other."""
    if not path.startswith("$"):
        return []
    steps: list[str | int] = []
    place = 1
    while place < len(path):
        match = _STEP.match(path, place)
        if match is None or len(steps) >= MAX_DEPTH:
            return []
        name, index, *quoted = match.groups()
        if name is not None:
            steps.append(name)
        elif index is not None:
            steps.append(int(index))
        else:
            steps.append(_ESCAPED.sub(r"\1", next(text for text in quoted if text is not None)))
        place = match.end()
    return steps if steps and isinstance(steps[0], str) else []
