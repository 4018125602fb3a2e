"""A text and the splices that are to be made in it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from cpa.config.layout import At, Layout, ListAt, MapAt

DEFAULT_STEP: Final = 2
"""Columns of indentation where the file gives no example."""


class Unspliceable(Exception):
    """The text is written in a way that a change here cannot keep. Never leaves this package."""


@attrs.frozen
class Splice:
    """*text* for what stands from *start* to before *end*."""

    start: int
    end: int
    text: str


@attrs.define(eq=False)
class Splices:
    """Collects the splices of one text.

    Attributes:
      step: columns by which the file indents mappings; *offset*: dashes below their key.
    """

    layout: Layout
    made: list[Splice] = attrs.field(factory=list)
    step: int = attrs.field(init=False)
    offset: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.step, self.offset = _habits(self.layout)

    def result(self) -> str:
        """The text with all splices made. Raises: Unspliceable."""
        return self.patched(0, len(self.layout.text), self.made)

    def patched(self, start: int, end: int, made: Sequence[Splice]) -> str:
        """What stands from *start* to *end*, with all of *made* in it. Raises: Unspliceable when these overlap."""
        pieces, at = [], start
        for splice in sorted(made, key=lambda splice: (splice.start, splice.end)):
            if splice.start < at:
                raise Unspliceable
            pieces += [self.layout.text[at : splice.start], splice.text]
            at = splice.end
        return "".join((*pieces, self.layout.text[at:end]))

    def put(self, start: int, end: int, text: str) -> None:
        """Put *text* in the place of a span."""
        self.made.append(Splice(start, end, text))

    def put_to_line_end(self, start: int, end: int, text: str) -> None:
        """As `put`; when the span takes the break of its last line with it, *text* gets one."""
        self.put(start, end, text + self.layout.newline if self.is_line_start(end) else text)

    def put_lines(self, position: int, lines: Iterable[str], *, column: int) -> None:
        """Put *lines* in at *position*, which is the beginning of a line or the end of the text."""
        newline = self.layout.newline
        text = "".join(f"{' ' * column}{line}{newline}" for line in lines)
        unended = position == len(self.layout.text) and self.layout.column(position) > 0
        self.put(position, position, newline + text if unended else text)

    def remove_lines(self, start: int, end: int, *, column: int) -> None:
        """Take whole lines out, but for their comments."""
        comments = self.layout.comments(start, end)
        self.put(start, end, "".join(f"{' ' * column}{comment}{self.layout.newline}" for comment in comments))

    def stacked(self, lines: Sequence[str], column: int) -> str:
        """*lines*, of which the first follows what is there already."""
        return (self.layout.newline + " " * column).join(lines)

    def remarks(self, comments: Sequence[str], column: int) -> str:
        """*comments* behind a value: the first on its line, the others below."""
        return "  " + self.stacked(comments, column) if comments else ""

    def is_line_start(self, position: int) -> bool:
        """A line begins at *position*, and it is not the first."""
        return position > 0 and self.layout.column(position) == 0

    def own_line(self, position: int) -> bool:
        """Nothing but blanks stands before *position* in its line."""
        return not self.layout.text[self.layout.line_start(position) : position].strip(" ")

    def dashed(self, at: At) -> bool:
        """*at* is an item of a list in block style, on the line of its dash."""
        before = self.layout.text[self.layout.line_start(at.start) : at.start].strip()
        return bool(before) and not before.strip("- ")

    def line_end(self, at: At) -> int:
        """Where the last line of *at* ends, its remark included."""
        return at.end if self.is_line_start(at.end) else self.layout.line_end(at.end)

    def after(self, at: At) -> int:
        """The beginning of the line behind *at*."""
        return at.end if self.is_line_start(at.end) else self.layout.next_line(at.end)

    def below(self, at: At, column: int) -> int:
        """The beginning of the line behind *at* and the comments below it that are indented by *column* or more.

        Those at the left edge never belong to what is above them.
        """
        position = found = self.after(at)
        while position < len(self.layout.text):
            line = self.layout.text[position : self.layout.line_end(position)]
            stripped = line.lstrip(" ")
            if stripped.strip() and (stripped[0] != "#" or len(line) - len(stripped) < max(column, 1)):
                break
            position = self.layout.next_line(position)
            found = position if stripped.strip() else found
        return found

    def after_colon(self, position: int) -> int:
        """Behind the colon or dash before *position*; blanks, breaks and comments may stand between them.

        Raises: Unspliceable when something else does (an explicit key).
        """
        start = self.layout.line_start(position)
        while True:
            before = self.layout.text[start:position]
            for comment in self.layout.comments(start, position):
                before = before[: before.index(comment)]
            before = before.rstrip()
            if before:
                if before[-1] not in ":-" or before.lstrip().startswith(("?", ": ")):
                    raise Unspliceable
                return start + len(before)
            if start == 0:
                raise Unspliceable
            position, start = start, self.layout.line_start(start - 1)


def _habits(layout: Layout) -> tuple[int, int]:
    """How the file indents mappings in mappings, and dashes below keys: as it does first."""
    steps = {True: 0, False: -1}
    for column, at in _blocks(layout.root, layout):
        inner = layout.column(at.start) - column
        if isinstance(at, MapAt) and not steps[True] and inner > 0:
            steps[True] = inner
        elif isinstance(at, ListAt) and steps[False] < 0 <= inner:
            steps[False] = inner
    return steps[True] or DEFAULT_STEP, steps[False] if steps[False] >= 0 else DEFAULT_STEP


def _blocks(at: At | None, layout: Layout) -> Iterator[tuple[int, MapAt | ListAt]]:
    """Collections in block style below keys of mappings, with the column of the key."""
    if isinstance(at, MapAt) and not at.flow:
        for entry in at.entries:
            value = entry.value
            if isinstance(value, MapAt | ListAt) and not value.flow:
                yield layout.column(entry.key.start), value
            yield from _blocks(value, layout)
    elif isinstance(at, ListAt) and not at.flow:
        for item in at.items:
            yield from _blocks(item, layout)
