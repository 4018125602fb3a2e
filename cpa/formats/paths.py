r"""Paths into JSON bodies: the part of the language of gjson and sjson that payload rules use (proxy 2.8).

``tools.0.function.name``: members and indexes. ``\.`` is a dot that belongs to a name, a backslash takes any sign's
meaning away. ``-1`` is the place behind the last element when setting and the last element when deleting.
``tools.#(type=="web_search").user_location`` goes through the first element that the query hits, ``#(…)#`` through all.
A query compares a member (or, without one, the element) by ``==  !=  <  <=  >  >=  %  !%``, the last two with a
pattern; a member alone asks whether it is there; ``&&`` binds stronger than ``||``. What gjson knows beyond
(modifiers, pipes, wildcards in names, a bare ``#``) is refused when the path is compiled, never misread.

Theory of operation. A `Document` is a tree that is opened only along the paths that are asked for: its nodes are dicts
and lists where somebody went, and undecoded spans everywhere else. Writing it therefore gives back the very bytes of
all that was not touched, numbers of any size included; only white space between the members of opened objects goes.
Bodies come from strangers: one that cannot be read raises `JsonError`, one that has something else than a path expects
simply does not have that path. No work is done twice as deep as a path is long, whatever a body nests.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeAlias

import attrs
import msgspec

from cpa.formats.json import JsonError, decode, decode_members, encode, repair
from cpa.types import JsonValue

MAX_STEPS: Final = 64
"""Of one path: what it creates must stay far from the limits of recursion of whoever reads it."""
_INDEX = re.compile(r"-1|0|[1-9][0-9]{0,3}")
"""At most 9999: setting an index fills up what is missing before it with nulls, which must not cost gigabytes. Larger
numbers are names, as in ``logit_bias.50256``."""

Node: TypeAlias = "msgspec.Raw | dict[str, Node] | list[Node]"
"""A value of a document: undecoded, or opened."""
Place: TypeAlias = tuple["str | int", ...]
"""Where a value is, or would be: names in objects, indexes in arrays, `APPEND` behind the last element."""

APPEND: Final = -1

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class PathError(ValueError):
    """A path that is none, or that asks for more than this language has. The message says what is wrong."""


class Compare(StrEnum):
    """What a query does with a value."""

    EXISTS = ""
    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    MORE = ">"
    MORE_OR_EQUAL = ">="
    LIKE = "%"
    UNLIKE = "!%"


class Glob:
    """A pattern in which ``*`` stands for any run of characters; everything else is literal, case included.

    Not a regular expression: texts come from strangers, and this takes time in proportion to their length.
    """

    __slots__ = ("_first", "_last", "_middle", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._first, *rest = pattern.split("*")
        self._last = rest.pop() if rest else None
        self._middle = [part for part in rest if part]

    def matches(self, text: str) -> bool:
        """The whole *text* is what the pattern says."""
        if self._last is None:
            return text == self._first
        end = len(text) - len(self._last)
        position = len(self._first)
        if end < position or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        for part in self._middle:
            position = text.find(part, position, end)
            if position < 0:
                return False
            position += len(part)
        return True


NOTHING: Final = Glob("")


@attrs.frozen
class Condition:
    """One comparison of a query. *number* is what *text* says as a number, None when it says none."""

    place: Place
    compare: Compare = Compare.EXISTS
    text: str = ""
    number: float | None = None
    glob: Glob = NOTHING

    def holds(self, element: Node) -> bool:
        """An element without the member never matches, not even ``!=``; the kind of the value found decides how the
        text is read, so that ``"5"`` and ``5`` both equal it. Objects and arrays equal nothing."""
        found = _descend(element, self.place)
        if found is None:
            return False
        if self.compare is Compare.EXISTS:
            return True
        if _opens(found):
            return False
        value = _scalar(found)
        if isinstance(value, str):
            return self._holds_text(value)
        if isinstance(value, bool):
            return self._holds_word("true" if value else "false")
        return self._holds_number(value) if isinstance(value, int | float) else self._holds_word("null")

    def _holds_text(self, value: str) -> bool:
        match self.compare:
            case Compare.EQUAL:
                return value == self.text
            case Compare.UNEQUAL:
                return value != self.text
            case Compare.LIKE:
                return self.glob.matches(value)
            case Compare.UNLIKE:
                return not self.glob.matches(value)
        return _ordered(self.compare, (value > self.text) - (value < self.text))

    def _holds_word(self, word: str) -> bool:
        if self.compare is Compare.EQUAL:
            return word == self.text
        return self.compare is Compare.UNEQUAL and word != self.text

    def _holds_number(self, value: float) -> bool:
        if self.number is None:
            return self.compare is Compare.UNEQUAL
        if self.compare is Compare.EQUAL:
            return value == self.number
        if self.compare is Compare.UNEQUAL:
            return value != self.number
        return _ordered(self.compare, (value > self.number) - (value < self.number))


@attrs.frozen
class Query:
    """A step through an array. *ways*: conditions that hold together, any of the groups will do."""

    ways: tuple[tuple[Condition, ...], ...]
    all: bool

    def hits(self, element: Node) -> bool:
        """*element* is meant."""
        return any(all(condition.holds(element) for condition in way) for way in self.ways)


@attrs.frozen
class Path:
    """A compiled path. *several*: it may mean more than one place."""

    text: str
    steps: tuple[str | Query, ...]
    several: bool


# --- documents --------------------------------------------------------------------------------------------------------


class Document:
    """A JSON object that can be asked and changed by paths.

    Raises: JsonError when *body* is not a JSON object.
    """

    __slots__ = ("_body", "_changed", "_root")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._root: dict[str, Node] | list[Node] = dict(decode_members(body))
        self._changed = False

    def dump(self) -> bytes:
        """The document; the very object that it was made of, if nothing has changed."""
        return encode(self._root) if self._changed else self._body

    def places(self, path: Path) -> list[Place]:
        """Where *path* leads, whether something is there or not; queries that hit nothing lead nowhere."""
        found: list[Place] = [()]
        for step in path.steps:
            if isinstance(step, str):
                found = [(*place, step) for place in found]
                continue
            found = [(*place, index) for place in found for index in self._hits(place, step)]
        return found

    def _hits(self, place: Place, query: Query) -> Iterator[int]:
        elements = self._opened(place)
        if isinstance(elements, list):
            for index, element in enumerate(elements):
                if query.hits(element):
                    yield index
                    if not query.all:
                        return

    def get(self, path: Path) -> bytes | None:
        """The value at *path* as JSON text, None when nothing is there. Of ``#(…)#``, an array of what is there."""
        found = [node for place in self.places(path) if (node := self._at(place)) is not None]
        if not found:
            return None
        return encode(found) if path.several else encode(found[0])

    def has(self, place: Place) -> bool:
        """Something is there, if only a null."""
        return self._at(place) is not None

    def exists(self, path: Path) -> bool:
        """Something else than a null is where *path* leads."""
        nodes = (self._at(place) for place in self.places(path))
        return any(node is not None and not _is_null(node) for node in nodes)

    def set(self, path: Path, value: bytes) -> None:
        """Put the JSON text *value* wherever *path* leads, see `put`."""
        for place in self.places(path):
            self.put(place, value)

    def delete(self, path: Path) -> None:
        """Remove what *path* leads to."""
        for place in reversed(self.places(path)):  # from behind: the places of earlier elements stay what they are
            self.drop(place)

    def put(self, place: Place, value: bytes) -> bool:
        """Put the JSON text *value* at *place*, which is not the document itself. Parents that are missing or null come
        into being: objects, or arrays where an index follows. One that is something else is left alone.

        Returns: it could be put.
        """
        node: Node = self._root
        depth = 0
        for step in place[:-1]:
            child = _child(node, step)
            if child is None or _is_null(child):
                break
            opened = _open(child)
            if opened is None:
                return False
            _store(node, step, opened)
            node, depth = opened, depth + 1
        if not place or not (isinstance(node, dict) or _position(place[depth]) is not None):
            return False
        new: Node = msgspec.Raw(value.strip())
        for step in reversed(place[depth + 1 :]):
            parent: Node = {} if _position(step) is None else []
            _store(parent, step, new)
            new = parent
        _store(node, place[depth], new)
        self._changed = True
        return True

    def drop(self, place: Place) -> bool:
        """Remove what is at *place*. Returns: something was."""
        parent = self._opened(place[:-1]) if place else None
        if isinstance(parent, dict):
            removed = parent.pop(str(place[-1]), None) is not None
        elif isinstance(parent, list):
            index = _position(place[-1])
            removed = index is not None and index < len(parent) and bool(parent)
            if removed and index is not None:
                del parent[index]
        else:
            return False
        self._changed = self._changed or removed
        return removed

    def _at(self, place: Place) -> "Node | None":
        """The node at *place*, None when there is none."""
        if not place:
            return self._root
        parent = self._opened(place[:-1])
        return None if parent is None else _child(parent, place[-1])

    def _opened(self, place: Place) -> "dict[str, Node] | list[Node] | None":
        """The object or array at *place*, opened and kept so together with all above it; None when there is none."""
        node = self._root
        for step in place:
            child = _child(node, step)
            opened = None if child is None else _open(child)
            if opened is None:
                return None
            _store(node, step, opened)
            node = opened
        return node


def _child(node: Node, step: str | int) -> "Node | None":
    """What stands under *step* in an opened *node*; behind the last element there is nothing."""
    if isinstance(node, dict):
        return node.get(str(step))
    index = _position(step)
    if not isinstance(node, list) or index is None or not 0 <= index < len(node):
        return None
    return node[index]


def _store(node: Node, step: str | int, value: Node) -> None:
    """Put *value* under *step* of an opened *node*; missing elements before it become null."""
    if isinstance(node, dict):
        node[str(step)] = value
        return
    index = _position(step)
    if not isinstance(node, list) or index is None:
        return
    if index == APPEND:
        node.append(value)
        return
    node.extend(msgspec.Raw(b"null") for _ in range(index + 1 - len(node)))
    node[index] = value


def _position(step: str | int) -> int | None:
    """The index in an array that *step* means, None for a name."""
    if isinstance(step, int):
        return step
    return int(step) if _INDEX.fullmatch(step) else None


def _descend(node: Node, place: Place) -> "Node | None":
    """The node at *place* below *node*; nothing is kept open."""
    for step in place:
        opened = _open(node)
        child = None if opened is None else _child(opened, step)
        if child is None:
            return None
        node = child
    return node


def _opens(node: Node) -> bool:
    """*node* is an object or an array."""
    return not isinstance(node, msgspec.Raw) or memoryview(node)[0] in b"{["


def _is_null(node: Node) -> bool:
    return isinstance(node, msgspec.Raw) and bytes(memoryview(node)[:5]).strip() == b"null"


def _open(node: Node) -> "dict[str, Node] | list[Node] | None":
    """*node* as an object or array of undecoded spans, None when it is neither. Raises: JsonError."""
    if not isinstance(node, msgspec.Raw):
        return node
    if not _opens(node):
        return None
    is_object = memoryview(node)[0] == _BRACE
    try:
        return _spans(node, is_object=is_object)
    except (ValueError, RecursionError):
        try:
            return _spans(msgspec.Raw(repair(bytes(node))), is_object=is_object)
        except (ValueError, RecursionError) as exc:
            raise JsonError(str(exc)) from exc


_BRACE: Final = ord("{")


def _spans(raw: msgspec.Raw, *, is_object: bool) -> "dict[str, Node] | list[Node]":
    return dict(_decode_object(raw)) if is_object else list(_decode_array(raw))


def _scalar(node: Node) -> JsonValue:
    """The value of a span that is neither object nor array; one that nobody can read is null."""
    try:
        return decode(bytes(node)) if isinstance(node, msgspec.Raw) else None
    except JsonError:
        return None


def _ordered(compare: Compare, sign: int) -> bool:
    """Whether *sign* (of the left side minus the right one) is what *compare* asks for."""
    match compare:
        case Compare.LESS:
            return sign < 0
        case Compare.LESS_OR_EQUAL:
            return sign <= 0
        case Compare.MORE:
            return sign > 0
        case Compare.MORE_OR_EQUAL:
            return sign >= 0
    return False


# --- compiling --------------------------------------------------------------------------------------------------------

_PIECE = re.compile(r"\\(?P<escaped>.)|(?P<end>\.)|(?P<refused>[*?|#\\])|(?P<plain>[^\\.*?|#]+)", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<join>&&|\|\|)|(?P<compare>==|!=|<=|>=|!%|=|<|>|%)"""
    r"""|(?P<word>(?:"(?:[^"\\]|\\.)*"|\\.|[^\s"\\&|=!<>%()]|[&|!](?![&|=%]))+)|(?P<close>\)))""",
    re.DOTALL,
)


@lru_cache(maxsize=1024)
def compile_path(text: str) -> Path:
    """Read a path. Raises: PathError."""
    steps: list[str | Query] = []
    position = 0
    while True:
        if text.startswith("#(", position):
            query, position = _query(text, position + 2)
            steps.append(query)
            if position < len(text) and text[position] != ".":
                raise PathError(f"a dot is missing after the query that ends at {position}")
            more = position < len(text)
            position += more
        else:
            name, position, more = _name(text, position)
            steps.append(name)
        if len(steps) > MAX_STEPS:
            raise PathError(f"more than {MAX_STEPS} steps")
        if not more:
            break
    return Path(text, tuple(steps), any(isinstance(step, Query) and step.all for step in steps))


def _name(text: str, position: int) -> tuple[str, int, bool]:
    """A member or index from *position* on, where it ends, and whether a dot has ended it."""
    parts: list[str] = []
    more = False
    while position < len(text) and not more:
        piece = _PIECE.match(text, position)
        if piece is None or piece["refused"]:
            raise PathError(f"{text[position]!r} at {position} means nothing here; with a backslash it is literal")
        more = piece["end"] is not None
        parts.append(piece["escaped"] or piece["plain"] or "")
        position = piece.end()
    name = "".join(parts)
    if not name:
        raise PathError(f"a name is missing at {position}")
    return name, position, more


def _query(text: str, position: int) -> tuple[Query, int]:
    """What stands in ``#(…)`` from *position* on, and where it ends, a second ``#`` included."""
    ways: list[tuple[Condition, ...]] = []
    together: list[Condition] = []
    tokens: list[tuple[str, str]] = []
    while True:
        token = _TOKEN.match(text, position)
        if token is None or token.lastgroup is None:
            raise PathError(f"the query is not understood at {position}")
        position = token.end()
        if token.lastgroup not in ("join", "close"):
            tokens.append((token.lastgroup, token[token.lastgroup]))
            continue
        together.append(_condition(tokens, position))
        tokens = []
        if token["join"] != "&&":
            ways.append(tuple(together))
            together = []
        if token["close"]:
            break
    several = text.startswith("#", position)
    return Query(tuple(ways), several), position + several


def _condition(tokens: list[tuple[str, str]], position: int) -> Condition:
    """The comparison of *tokens*, which end at *position*."""
    kinds = [kind for kind, _ in tokens]
    if kinds == ["compare", "word"]:  # of the element itself
        tokens = [("word", ""), *tokens]
    elif kinds == ["word"]:
        return Condition(_member(tokens[0][1]))
    elif kinds != ["word", "compare", "word"]:
        raise PathError(f"a query needs a member, a comparison and a value before {position}")
    sign = tokens[1][1]
    value = _literal(tokens[2][1])
    return Condition(
        place=_member(tokens[0][1]),
        compare=Compare.EQUAL if sign == "=" else Compare(sign),
        text=value,
        number=_number(value),
        glob=Glob(value),
    )


def _member(text: str) -> Place:
    """The place that a query looks at; none for the element itself."""
    if not text:
        return ()
    names = []
    position, more = 0, True
    while more:
        name, position, more = _name(text, position)
        names.append(name)
    return tuple(names)


def _literal(text: str) -> str:
    """A value as it is compared: a JSON string without its quotes, anything else as it is written."""
    if not text.startswith('"'):
        return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
    try:
        value = decode(text.encode("utf-8", "surrogatepass"))
    except JsonError:
        raise PathError(f"{text} is no JSON string") from None
    return value if isinstance(value, str) else text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
