"""JSON texts as Go's encoding/json reads them: bytes to trees.

Theory of operation. A message is read in two steps. `parse` turns its bytes into a tree of dicts, lists and scalars,
here; `kinds.py` and `codec.py` judge the tree. `parse` has two ways that give the same tree: msgspec when it is certain
that nothing was lost (it drops repeated keys without a word), else the standard library with a hook that sees repeated
keys.

Not as Go, on purpose: integers keep all digits (Go's free-form values round to float64), nesting ends at `MAX_DEPTH`.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

MAX_MESSAGE_BYTES: Final = 256 * 1024 * 1024
"""Larger messages are refused unread. Go's only limit is 2 GiB; ours lets any image or document through and keeps a
plugin from making the proxy hold its text, its tree and its decoded bytes of several GiB at once."""
MAX_DEPTH: Final = 256
"""Nested arrays and objects, the outermost counted. Go stops at 10,000, Python's stack at 1,000 less what the caller
has used; no message of the contract needs more than 10."""
MAX_NUMBER_CHARS: Final = 310
"""Longer integers are out of the range of any Go number (float64 ends at 1.8e308) and are never converted, because
Python's conversion is quadratic."""

Tree = Any
"""What `parse` gives: None, bool, int, float, str, list, dict, `Members` and `OUT_OF_RANGE`."""


class GoJsonError(ValueError):
    """Bytes that Go would not decode. The text names members and JSON types, never contents."""


class Members(list[tuple[str, Tree]]):
    """An object that repeats a key: all its members in order of the text."""

    def items(self) -> Iterable[tuple[str, Tree]]:
        """As of a dict, repeated keys included."""
        return self


class _Mark:
    """A value that no text has."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


OUT_OF_RANGE: Final = _Mark("OUT_OF_RANGE")
"""A number beyond float64: an error where it is used, nothing where its member is ignored."""


# --- parsing ---------------------------------------------------------------------------------------------------------

_DECLINED: Final = _Mark("DECLINED")
_LARGEST_PLAIN_INT: Final = 2**64

_quick = msgspec.json.Decoder().decode
_SHORT: Final = 2048  # bytes, up to which bytes.count, a plain loop, beats repeated find, which is vectorised
_WHITE_SPACE: Final = b" \t\r\n"
_QUOTE: Final = 0x22
_LOOK_BACK: Final = 32  # bytes of white space before a colon that are looked through


def parse(data: bytes) -> Tree:
    """Read one JSON text. Invalid UTF-8 and lone surrogates become U+FFFD, as many as Go would write.

    Raises: GoJsonError for what Go's decoder refuses and for what exceeds a limit above.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise GoJsonError(f"message of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    tree = parse_quick(data)
    return parse_strict(data) if tree is _DECLINED else tree


def parse_quick(data: bytes) -> Tree:
    """`parse` by msgspec, or `declined` where that could differ from `parse_strict`.

    msgspec keeps the last of repeated keys. There was none if the text has no more keys than the tree. In a valid text
    each key brings a colon, and one with a quote before it (and perhaps white space between): so the tree is complete
    if there are as many colons, or as many such colons, as it has keys. Others of the kind stand in strings; then it
    may be complete, too, but that is left to the strict parser.
    """
    try:
        tree = _quick(data)
        if type(tree) is not dict and type(tree) is not list:
            return _DECLINED  # no message of the contract
        keys = _count_keys(tree, 1)
    except (ValueError, RecursionError):  # msgspec's and UTF-8 errors are ValueErrors
        return _DECLINED
    complete = (len(data) <= _SHORT and data.count(b":") == keys) or not _has_more_keys(data, keys)
    return tree if complete else _DECLINED


def _has_more_keys(data: bytes, keys: int) -> bool:
    """Whether more than *keys* colons of *data* could be those of keys."""
    position = data.find(b":")
    while position >= 0:
        before = data[position - 1]  # a valid text does not begin with a colon
        if before in _WHITE_SPACE:
            # Nothing but white space in sight counts as a key: a wrong guess costs time only.
            before = (data[max(0, position - _LOOK_BACK) : position].rstrip(_WHITE_SPACE) or b'"')[-1]
        if before == _QUOTE:
            keys -= 1
            if keys < 0:
                return True
        position = data.find(b":", position + 1)
    return False


def declined(tree: Tree) -> bool:
    """Whether `parse_quick` left the text to `parse_strict`."""
    return tree is _DECLINED


def _count_keys(tree: Tree, depth: int) -> int:
    """Keys in *tree*, an object or array. Raises: ValueError for what the strict parser knows more about."""
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    is_object = type(tree) is dict
    count = len(tree) if is_object else 0
    for value in tree.values() if is_object else tree:
        kind = type(value)
        if kind is dict or kind is list:
            count += _count_keys(value, depth + 1)
        elif kind is int and not -_LARGEST_PLAIN_INT < value < _LARGEST_PLAIN_INT:
            raise ValueError("perhaps out of range")
    return count


def parse_strict(data: bytes) -> Tree:
    """`parse` by the standard library, which shows repeated keys. Raises: GoJsonError."""
    text = to_text(data)
    if not data.strip(_WHITE_SPACE):
        raise GoJsonError("unexpected end of JSON input")
    try:
        return _strict.decode(text)
    except json.JSONDecodeError as exc:
        raise GoJsonError(f"{_lower_first(exc.msg)} at character {exc.pos}") from None
    except RecursionError:
        raise GoJsonError("exceeded max depth") from None


def to_text(data: bytes) -> str:
    """*data* as text that has neither invalid nor surrogate characters nor escapes of such, and no forbidden nesting.

    Raises: GoJsonError when it is nested too deeply.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # Go replaces each wrong byte, Python's "replace" handler each wrong sequence.
        text = _SURROGATES.sub("\ufffd", data.decode("utf-8", "surrogateescape"))
    if "\\ud" in text or "\\uD" in text:
        text = _SURROGATE_ESCAPES.sub(lambda m: m[0] if len(m[0]) != _ESCAPE_CHARS else "\\ufffd", text)
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    return text


_ESCAPE_CHARS = 6
_SURROGATES = re.compile("[\ud800-\udfff]")
# An escaped backslash is consumed as a pair, so that only real escapes are looked at.
_SURROGATE_ESCAPES = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _check_depth(text: str) -> None:
    depth = 0
    for token in _BRACKETS.finditer(text):
        kind = text[token.start()]
        if kind in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise GoJsonError("exceeded max depth")
        elif kind != '"':
            depth -= 1


def _object(pairs: list[tuple[str, Tree]]) -> Tree:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Members(pairs)


def _integer(digits: str) -> Tree:
    if len(digits) > MAX_NUMBER_CHARS:
        return OUT_OF_RANGE
    value = int(digits)
    try:
        float(value)
    except OverflowError:
        return OUT_OF_RANGE
    return value


def _float(digits: str) -> Tree:
    value = float(digits)
    return OUT_OF_RANGE if value in (float("inf"), float("-inf")) else value


def _refuse_constant(name: str) -> Tree:
    raise GoJsonError(f"invalid literal {name}")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


_strict = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
)


def parse_members(data: bytes) -> list[tuple[str, str]]:
    """The members of one object, in order, repeated ones included, each with the text of its value.

    Raises: GoJsonError when *data* is no JSON or no object; ``null`` has no members.
    """
    tree = parse(data)
    if tree is None:
        return []
    if not isinstance(tree, dict | Members):
        raise mismatch(tree, "object")
    text = to_text(data)  # valid from here on: the loop only has to find the ends
    members: list[tuple[str, str]] = []
    position = text.index("{") + 1
    while (position := _skip(text, position)) < len(text) and text[position] != "}":
        if text[position] == ",":
            position = _skip(text, position + 1)
        name, position = _strict.raw_decode(text, position)
        start = _skip(text, _skip(text, position) + 1)
        _, position = _strict.raw_decode(text, start)
        members.append((name, text[start:position]))
    return members


_SPACE = re.compile(r"[ \t\r\n]*+")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def mismatch(tree: Tree, expected: str) -> GoJsonError:
    return GoJsonError(f"cannot unmarshal {_json_type(tree)} into {expected}")


def _json_type(tree: Tree) -> str:
    match tree:
        case None:
            return "null"
        case bool():
            return "bool"
        case str():
            return "string"
        case dict() | Members():
            return "object"
        case list():
            return "array"
        case _:
            return "number"


def without_surrogates(text: str) -> str:
    """*text* as UTF-8 can carry it."""
    return _SURROGATES.sub("\ufffd", text)
