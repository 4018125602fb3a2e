"""Where everything stands in a configuration's text: nodes with spans, comments, lines.

Unlike `cpa.config.nodes`, which is what a file means, this is how it is written: aliases and merge keys are not written
out. Spans count characters; those of values begin with anchor and tag.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Final, TypeAlias

import attrs
import yaml

from cpa.config.document import new_events, read_scalar
from cpa.config.nodes import ScalarNode
from cpa.config.tree import tree_of
from cpa.jsontypes import JsonValue

_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_COMMENT: Final = re.compile("#[^\n\r\x85\u2028\u2029]*")
_HEADER_COMMENT: Final = re.compile(r"[|>][-+0-9]*[ \t]+(#[^\n\r]*)")
_SCANNER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@attrs.define(eq=False, kw_only=True)
class ScalarAt:
    """A scalar; an absent value has no width."""

    start: int
    end: int
    node: ScalarNode


@attrs.define(eq=False, kw_only=True)
class AliasAt:
    """``*name``."""

    start: int
    end: int
    target: "At"


@attrs.define(eq=False, kw_only=True)
class ListAt:
    """A list; in block style it ends where its last item does."""

    start: int
    end: int
    flow: bool
    items: "list[At]" = attrs.field(factory=list)


@attrs.define(eq=False, kw_only=True)
class MapAt:
    """A mapping, merge keys among its entries."""

    start: int
    end: int
    flow: bool
    entries: "list[EntryAt]" = attrs.field(factory=list)


@attrs.define(eq=False, kw_only=True)
class EntryAt:
    """``key: value``."""

    key: ScalarAt
    value: "At"

    @property
    def merge(self) -> bool:
        """It is ``<<``."""
        return self.key.node.style == "" and self.key.node.text == "<<"

    @property
    def name(self) -> str:
        """The key."""
        return self.key.node.text


At: TypeAlias = ScalarAt | AliasAt | ListAt | MapAt


def value_of(at: At) -> JsonValue:
    """What stands there, as `cpa.config.tree.tree_of` has it."""
    match at:
        case ScalarAt():
            return tree_of(at.node)
        case AliasAt():
            return value_of(at.target)
        case ListAt():
            return [value_of(item) for item in at.items]
        case MapAt():
            own = {entry.name: value_of(entry.value) for entry in at.entries if not entry.merge}
            for entry in at.entries:
                for found in _merged(entry.value) if entry.merge else ():
                    own = found | own  # own keys before all, then the first of those merged
            return own


def _merged(at: At) -> Iterator[dict[str, JsonValue]]:
    value = value_of(at)
    yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict))


@attrs.define(eq=False)
class Layout:
    """A text and where its parts are."""

    text: str

    @cached_property
    def root(self) -> At | None:
        """The document's value; None when there is none. The text was read by the loader before: it is valid."""
        return _build(self.text)

    @cached_property
    def newline(self) -> str:
        """What ends lines: as the first one of the text does."""
        found = _BREAK.search(self.text)
        return "\r\n" if found is not None and found[0] == "\r\n" else "\n"

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(found.end() for found in _BREAK.finditer(self.text))]

    def line_start(self, position: int) -> int:
        """Where the line of *position* begins."""
        return self._line_starts[bisect_right(self._line_starts, position) - 1]

    def next_line(self, position: int) -> int:
        """Where the line after that of *position* begins; the end of the text when there is none."""
        index = bisect_right(self._line_starts, position)
        return self._line_starts[index] if index < len(self._line_starts) else len(self.text)

    def line_end(self, position: int) -> int:
        """Where the line of *position* ends, without its break."""
        end = self.next_line(position)
        found = _BREAK.search(self.text, position, end)
        return found.start() if found is not None else end

    def column(self, position: int) -> int:
        """Characters before *position* in its line."""
        return position - self.line_start(position)

    @cached_property
    def _tokens(self) -> list[yaml.Token]:
        return list(yaml.scan(self.text, Loader=_SCANNER))

    @cached_property
    def _comments(self) -> list[tuple[int, int]]:
        """Spans of all comments: they stand between tokens, and behind the sign of a block scalar."""
        found: list[tuple[int, int]] = []
        end = 0
        for token in self._tokens:
            start = token.start_mark.index
            if start > end:
                found.extend(comment.span() for comment in _COMMENT.finditer(self.text, end, start))
            end = max(end, token.end_mark.index)
            if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">"):
                header = _HEADER_COMMENT.match(self.text, start)
                if header is not None:
                    found.append(header.span(1))
        found.extend(comment.span() for comment in _COMMENT.finditer(self.text, end))
        return found

    def comments(self, start: int, end: int) -> list[str]:
        """The comments that begin from *start* to before *end*."""
        if "#" not in self.text[start:end]:
            return []
        first, last = bisect_left(self._comments, (start, 0)), bisect_left(self._comments, (end, 0))
        return [self.text[a:b].rstrip() for a, b in self._comments[first:last]]

    @cached_property
    def _dashes(self) -> list[int]:
        return [token.start_mark.index for token in self._tokens if isinstance(token, yaml.BlockEntryToken)]

    def dash(self, item: At) -> int:
        """Where the dash of *item*, of a list in block style, stands."""
        return self._dashes[bisect_left(self._dashes, item.start) - 1]


@attrs.define(eq=False)
class _Builder:
    """Puts nodes together from events, bottom up."""

    text: str
    root: At | None = None
    stack: list[tuple[MapAt | ListAt, str | None, list[At]]] = attrs.field(factory=list)
    anchors: dict[str, At] = attrs.field(factory=dict)

    def feed(self, event: yaml.Event) -> None:
        assert event.start_mark is not None  # the parser always sets them
        assert event.end_mark is not None
        start, end = event.start_mark.index, event.end_mark.index
        match event:
            case yaml.ScalarEvent():
                node = read_scalar(event, event.start_mark.line + 1)
                self._add(ScalarAt(start=start, end=self._trimmed(event, start, end), node=node), event.anchor)
            case yaml.AliasEvent():
                self._add(AliasAt(start=start, end=end, target=self.anchors[event.anchor or ""]), None)
            case yaml.MappingStartEvent():
                at = MapAt(start=start, end=end, flow=bool(event.flow_style))
                self.stack.append((at, event.anchor, []))
            case yaml.SequenceStartEvent():
                self.stack.append((ListAt(start=start, end=end, flow=bool(event.flow_style)), event.anchor, []))
            case yaml.CollectionEndEvent():
                self._close(end)

    def _trimmed(self, event: yaml.ScalarEvent, start: int, end: int) -> int:
        """The end of a scalar's text; blank lines behind a block scalar that does not keep them are not its own."""
        if event.style not in ("|", ">") or "+" in self.text[start:end].splitlines()[0]:
            return end
        return start + len(self.text[start:end].rstrip())

    def _close(self, end: int) -> None:
        at, anchor, children = self.stack.pop()
        if isinstance(at, ListAt):
            at.items = children
        else:
            for key, value in zip(children[::2], children[1::2], strict=True):
                assert isinstance(key, ScalarAt)  # the loader refuses others
                at.entries.append(EntryAt(key=key, value=value))
        at.end = end if at.flow or not children else children[-1].end
        self._add(at, anchor)

    def _add(self, at: At, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = at
        if self.stack:
            self.stack[-1][2].append(at)
        else:
            self.root = at


def _build(text: str) -> At | None:
    builder = _Builder(text)
    for event in new_events(text):
        builder.feed(event)
    return builder.root
