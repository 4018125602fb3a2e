"""Edits of a configuration's text: what changed is cut out and put in, everything else stays as its author wrote it.

Theory of operation. The tree that is wanted is compared with what stands in the text. Each difference becomes a splice:
a span and the text that takes its place. Comments within a span are put back as lines of their own, so that none is
ever lost. The result is read by the loader and has to mean exactly what is wanted; where it does not (an alias refers
to what was changed), the same is tried with aliases and merge keys written out, then with whole top-level keys written
anew. What does not work then either is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import attrs

from cpa.config.document import parse_document
from cpa.config.layout import AliasAt, At, EntryAt, Layout, ListAt, MapAt, ScalarAt, value_of
from cpa.config.matching import matched
from cpa.config.nodes import Findings
from cpa.config.spelling import entry_lines, item_lines, lines_of, spelled, spelled_text
from cpa.config.splices import Splice, Splices, Unspliceable
from cpa.config.tree import ConfigTree, same, tree_of
from cpa.errors import EditError
from cpa.jsontypes import JsonValue


def respelled(text: str, wanted: ConfigTree) -> str:
    """*text*, which the loader reads without problems, changed so that it means *wanted*.

    Raises: EditError when that cannot be done without guessing.
    """
    for expand, whole in ((False, False), (True, False), (True, True)):
        try:
            base = _expanded(text) if expand else text
            found = _Splicer(Splices(Layout(base))).document(wanted, whole=whole)
        except Unspliceable:
            continue
        if _means(found, wanted):
            return found
    raise EditError("the file is written in a way that this edit cannot keep; edit it by hand")


def _means(text: str, wanted: ConfigTree) -> bool:
    findings = Findings(file="")
    document = parse_document(text, findings)
    if document is None or findings.problems:
        return False
    return same(tree_of(document.root) or {}, wanted)


def _expanded(text: str) -> str:
    """*text* with the value of each alias and merge key in its place. Raises: Unspliceable."""
    splicer = _Splicer(Splices(Layout(text)))
    root = splicer.splices.layout.root
    if root is not None:
        splicer.expand(root, indent=0, flow=False)
    return splicer.splices.result()


@attrs.define(eq=False)
class _Splicer:
    """Turns differences into splices."""

    splices: Splices
    layout: Layout = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.layout = self.splices.layout

    def document(self, wanted: ConfigTree, *, whole: bool) -> str:
        """The text that means *wanted*; *whole*: top-level keys that differ are written anew. Raises: Unspliceable."""
        root, end = self.layout.root, len(self.layout.text)
        if isinstance(root, ListAt | AliasAt):
            raise Unspliceable
        if not isinstance(root, MapAt):
            if root is not None:
                self.splices.put(root.start, root.end, "")  # null
            self.splices.put_lines(end, self._lines(wanted), column=0)
        elif whole:
            self._whole_entries(root, wanted)
        else:
            self._change(root, wanted, indent=0)
        return self.splices.result()

    def _whole_entries(self, root: MapAt, wanted: ConfigTree) -> None:
        if root.flow:
            self._rewrite(root, wanted)
            return
        for entry in root.entries:
            if not self.splices.own_line(entry.key.start):
                raise Unspliceable
            if entry.name in wanted and not same(value_of(entry.value), wanted[entry.name]):
                start, end = self.layout.line_start(entry.key.start), self.splices.after(entry.value)
                lines = [*self._entry(entry.name, wanted[entry.name]), *self.layout.comments(start, end)]
                self.splices.put(start, end, "".join(line + self.layout.newline for line in lines))
        self._remove_and_add(root, wanted)

    def _lines(self, value: JsonValue) -> list[str]:
        return list(lines_of(value, step=self.splices.step, offset=self.splices.offset))

    def _entry(self, name: str, value: JsonValue) -> Iterable[str]:
        return entry_lines(name, value, step=self.splices.step, offset=self.splices.offset)

    def _item(self, value: JsonValue) -> Iterable[str]:
        return item_lines(value, step=self.splices.step, offset=self.splices.offset)

    # --- values ---

    def _change(self, at: At, new: JsonValue, *, indent: int, flow: bool = False) -> None:
        """Let *at* mean *new*. *indent*: the column of the key or dash that it belongs to; *flow*: within brackets."""
        if same(value_of(at), new):
            return
        if isinstance(at, MapAt) and isinstance(new, dict) and new:
            self._change_mapping(at, new)
        elif isinstance(at, ListAt) and isinstance(new, list) and new:
            self._change_list(at, new)
        else:
            self._replace(at, new, indent=indent, flow=flow)

    def _replace(self, at: At, new: JsonValue, *, indent: int, flow: bool) -> None:
        """Write *new* in the place of something of another kind."""
        dashed = self.splices.dashed(at)
        collection = isinstance(new, list | dict) and bool(new)
        if not collection or flow or (dashed and isinstance(new, list)):
            self._replace_inline(at, new, indent=indent, flow=flow, dashed=dashed)
        elif dashed:
            self._replace_item(at, new)
        else:
            self._replace_below(at, new, indent=indent)

    def _replace_inline(self, at: At, new: JsonValue, *, indent: int, flow: bool, dashed: bool) -> None:
        written = spelled(new, style=at.node.style if isinstance(at, ScalarAt) else "")
        pad = indent + self.splices.step
        if _is_block(at):
            start, end = at.start, self.splices.line_end(at)
            if not dashed:
                start, written = self.splices.after_colon(at.start), f" {written}"
            comments = self.layout.comments(start, end)
            self.splices.put_to_line_end(start, end, written + self.splices.remarks(comments, pad))
            return
        gap = " " if self.layout.text[at.start - 1 : at.start] in (":", "-", ",") else ""
        tail = self.splices.remarks(self.layout.comments(at.start, at.end), pad)
        if tail and (flow or self.layout.text[at.end : self.layout.line_end(at.end)].strip()):
            tail += self.layout.newline + " " * pad  # what follows is not part of the comment
        self.splices.put(at.start, at.end, gap + written + tail)

    def _replace_item(self, at: At, new: JsonValue) -> None:
        """A mapping behind a dash."""
        end = self.splices.line_end(at) if _is_block(at) else at.end
        gap = " " if self.layout.text[at.start - 1 : at.start] == "-" else ""
        lines = [*self.layout.comments(at.start, end), *self._lines(new)]
        self.splices.put_to_line_end(
            at.start, end, gap + self.splices.stacked(lines, self.layout.column(at.start) + len(gap))
        )

    def _replace_below(self, at: At, new: JsonValue, *, indent: int) -> None:
        """A list or mapping below its key."""
        pad = indent + (self.splices.offset if isinstance(new, list) else self.splices.step)
        start = self.splices.after_colon(at.start)
        end = self.splices.line_end(at) if _is_block(at) else at.end
        lines = [*self.layout.comments(start, end), *self._lines(new)]
        block = self.layout.newline + " " * pad + self.splices.stacked(lines, pad)
        if _is_block(at):
            self.splices.put_to_line_end(start, end, block)
            return
        self.splices.put(start, end, "")
        line_end = self.layout.line_end(end)
        self.splices.put(line_end, line_end, block)

    def _rewrite(self, at: MapAt | ListAt, new: JsonValue) -> None:
        """Write a list or mapping of the same kind anew."""
        if at.flow:
            comments = self.layout.comments(at.start, at.end)
            tail = f"{self.splices.remarks(comments, 2)}{self.layout.newline}  " if comments else ""
            self.splices.put(at.start, at.end, spelled(new) + tail)
            return
        end = self.splices.line_end(at)
        lines = [*self.layout.comments(at.start, end), *self._lines(new)]
        self.splices.put_to_line_end(at.start, end, self.splices.stacked(lines, self.layout.column(at.start)))

    # --- mappings ---

    def _change_mapping(self, at: MapAt, new: dict[str, JsonValue]) -> None:
        own = {entry.name for entry in at.entries if not entry.merge}
        old = value_of(at)
        assert isinstance(old, dict)
        if any(name not in new and name not in own for name in old):
            raise Unspliceable  # what was merged cannot be taken out
        kept = [entry for entry in at.entries if entry.merge or entry.name in new]
        if not kept:
            self._rewrite(at, new) if at.entries else self._fill(at, new)
            return
        mark = len(self.splices.made)
        column = self.layout.column(at.entries[0].key.start)
        for entry in kept:
            if not entry.merge:
                self._change(entry.value, new[entry.name], indent=column, flow=at.flow)
        if not at.flow:
            self._remove_and_add(at, new)
        elif len(kept) < len(at.entries) or _added(at, new):
            pieces = [(entry.key.start, entry.value.end) for entry in at.entries]
            texts = [pieces[at.entries.index(entry)] for entry in kept]
            fresh = [f"{spelled_text(name)}: {spelled(value)}" for name, value in _added(at, new).items()]
            self._flow(at, new, pieces, [*texts, *fresh], mark)

    def _fill(self, at: MapAt | ListAt, new: JsonValue) -> None:
        """Something in the place of empty brackets."""
        if self.layout.text[at.start] not in "[{" or not self._in_block(at):
            self._rewrite(at, new)
        elif self.splices.dashed(at):
            self._replace_item(at, new) if isinstance(new, dict) else self._rewrite(at, new)
        else:
            self._replace_below(at, new, indent=self._indent_of_line(at.start))

    def _in_block(self, at: At) -> bool:
        """Before *at*, in its line, there is its key and nothing else, or its dash."""
        before = self.layout.text[self.layout.line_start(at.start) : at.start].rstrip()
        return before.endswith((":", "-")) and not {"{", "[", ","} & set(before)

    def _indent_of_line(self, position: int) -> int:
        """The column of the key in that line, dashes before it skipped."""
        line = self.layout.text[self.layout.line_start(position) : position]
        return len(line) - len(line.lstrip(" -"))

    def _remove_and_add(self, at: MapAt, new: Mapping[str, JsonValue]) -> None:
        """Entries of a mapping in block style, of which some are kept."""
        column = self.layout.column(at.entries[0].key.start)
        kept = [entry for entry in at.entries if entry.merge or entry.name in new]
        gone = [entry for entry in at.entries if entry not in kept]
        if gone and not self.splices.own_line(at.entries[0].key.start):
            self._check_dash(at.entries[0])
            if at.entries[0] in gone:
                # "- a: 1" with b on the next line: b moves up behind the dash.
                start, end = at.entries[0].key.start, kept[0].key.start
                comments = self.layout.comments(start, end)
                self.splices.put(start, end, self.splices.stacked([*comments, ""], column))
                gone = [entry for entry in gone if entry.key.start > end]
        for entry in gone:
            if not self.splices.own_line(entry.key.start):
                raise Unspliceable
            start, end = self.layout.line_start(entry.key.start), self.splices.after(entry.value)
            self.splices.remove_lines(start, end, column=column)
        lines = [line for name, value in _added(at, new).items() for line in self._entry(name, value)]
        if lines:
            position = self.splices.below(at.entries[-1].value, column)
            self.splices.put_lines(position, lines, column=column)

    def _check_dash(self, entry: EntryAt) -> None:
        line = self.layout.text[self.layout.line_start(entry.key.start) : entry.key.start]
        if line.strip("- "):
            raise Unspliceable

    # --- lists ---

    def _change_list(self, at: ListAt, new: list[JsonValue]) -> None:
        pairs = matched([value_of(item) for item in at.items], new)
        if not at.items:
            self._fill(at, new)
        elif not pairs:
            self._rewrite(at, new)
        elif at.flow:
            self._change_flow_list(at, new, pairs)
        elif not all(self.splices.own_line(self.layout.dash(item)) for item in at.items):
            self._change_compact_list(at, new, pairs)
        else:
            self._change_block_list(at, new, pairs)

    def _change_flow_list(self, at: ListAt, new: list[JsonValue], pairs: Mapping[int, int]) -> None:
        mark = len(self.splices.made)
        for index, old in pairs.items():
            self._change(at.items[old], new[index], indent=self.layout.column(at.start), flow=True)
        if [pairs.get(index) for index in range(len(new))] != list(range(len(at.items))):
            pieces = [(item.start, item.end) for item in at.items]
            texts = [pieces[pairs[index]] if index in pairs else spelled(value) for index, value in enumerate(new)]
            self._flow(at, new, pieces, texts, mark)

    def _flow(
        self,
        at: MapAt | ListAt,
        new: JsonValue,
        old: Sequence[tuple[int, int]],
        parts: Sequence[tuple[int, int] | str],
        mark: int,
    ) -> None:
        """Put a collection in brackets together from spans of *old* ones and new texts. *mark*: where their splices
        begin."""
        inner = self.splices.made[mark:]
        del self.splices.made[mark:]
        if self.layout.comments(at.start, at.end):
            self._rewrite(at, new)
            return
        between = self.layout.text[old[0][1] : old[1][0]] if len(old) > 1 else ", "
        texts = [
            part
            if isinstance(part, str)
            else self.splices.patched(*part, [s for s in inner if part[0] <= s.start and s.end <= part[1]])
            for part in parts
        ]
        self.splices.put(old[0][0], old[-1][1], (between if between.strip() == "," else ", ").join(texts))

    def _change_compact_list(self, at: ListAt, new: list[JsonValue], pairs: Mapping[int, int]) -> None:
        """The inner one of ``- - a``: only its items change in their places, or all of it is written anew."""
        if [pairs.get(index) for index in range(len(new))] != list(range(len(at.items))):
            self._rewrite(at, new)
            return
        for index, old in pairs.items():
            self._change(at.items[old], new[index], indent=self.layout.column(at.start))

    def _change_block_list(self, at: ListAt, new: list[JsonValue], pairs: Mapping[int, int]) -> None:
        """Change, remove, add and move items, of which some are kept."""
        column = self.layout.column(self.layout.dash(at.items[0]))
        mark = len(self.splices.made)
        for index, old in pairs.items():
            self._change(at.items[old], new[index], indent=column)
        order = [pairs[index] for index in sorted(pairs)]
        if order != sorted(order):
            self._reorder(at, new, pairs, mark)
            return
        for index, item in enumerate(at.items):
            if index not in order:
                start = self.layout.line_start(self.layout.dash(item))
                self.splices.remove_lines(start, self.splices.after(item), column=column)
        before = self.layout.line_start(self.layout.dash(at.items[0]))
        waiting: list[str] = []
        for index, value in enumerate(new):
            if index not in pairs:
                waiting.extend(self._item(value))
                continue
            if waiting:
                self.splices.put_lines(before, waiting, column=column)
                waiting = []
            before = self.splices.below(at.items[pairs[index]], column + 1)
        if waiting:
            self.splices.put_lines(self.splices.below(at.items[-1], column), waiting, column=column)

    def _reorder(self, at: ListAt, new: list[JsonValue], pairs: Mapping[int, int], mark: int) -> None:
        """Items move with their lines, the comments above them, and the comments below that are theirs."""
        inner = self.splices.made[mark:]
        del self.splices.made[mark:]
        column, newline = self.layout.column(self.layout.dash(at.items[0])), self.layout.newline
        bounds = [self.layout.line_start(self.layout.dash(at.items[0]))]
        bounds += [self.splices.below(item, column + 1) for item in at.items]
        chunks = []
        for index, (start, end) in enumerate(pairwise(bounds)):
            if index not in pairs.values():
                comments = self.layout.comments(start, end)
                chunks.append("".join(f"{' ' * column}{comment}{newline}" for comment in comments))
                continue
            text = self.splices.patched(start, end, [splice for splice in inner if _belongs(splice, start, end)])
            chunks.append(text if text.endswith(("\n", "\r")) else text + newline)
        pieces = []
        for index, value in enumerate(new):
            if index in pairs:
                pieces.append(chunks[pairs[index]])
            else:
                pieces.extend(f"{' ' * column}{line}{newline}" for line in self._item(value))
        pieces.extend(chunk for index, chunk in enumerate(chunks) if index not in pairs.values())
        self.splices.put(bounds[0], bounds[-1], "".join(pieces))

    # --- aliases ---

    def expand(self, at: At, *, indent: int, flow: bool) -> None:
        """Write aliases and merge keys out. Raises: Unspliceable."""
        match at:
            case AliasAt():
                self._replace(at, value_of(at), indent=indent, flow=flow)
            case ListAt():
                for item in at.items:
                    self.expand(item, indent=self.layout.column(at.start), flow=at.flow)
            case MapAt():
                column = self.layout.column(at.entries[0].key.start) if at.entries else 0
                for entry in at.entries:
                    if not entry.merge:
                        self.expand(entry.value, indent=column, flow=at.flow)
                self._expand_merges(at, column)

    def _expand_merges(self, at: MapAt, column: int) -> None:
        merges = [entry for entry in at.entries if entry.merge]
        if not merges:
            return
        own = {entry.name for entry in at.entries if not entry.merge}
        value = value_of(at)
        assert isinstance(value, dict)
        rest = {name: item for name, item in value.items() if name not in own}
        for entry, found in zip(merges, (rest, *({} for _ in merges[1:])), strict=True):
            if not found:
                if at.flow or not self.splices.own_line(entry.key.start):
                    raise Unspliceable
                start, end = self.layout.line_start(entry.key.start), self.splices.after(entry.value)
                self.splices.remove_lines(start, end, column=column)
            elif at.flow:
                written = spelled(found)
                self.splices.put(entry.key.start, entry.value.end, written[1:-1])
            else:
                lines = [line for name, item in found.items() for line in self._entry(name, item)]
                end = self.splices.line_end(entry.value) if _is_block(entry.value) else entry.value.end
                comments = self.layout.comments(entry.key.start, end)
                text = self.splices.stacked([*comments, *lines], column)
                self.splices.put_to_line_end(entry.key.start, end, text)


def _is_block(at: At) -> bool:
    return isinstance(at, ListAt | MapAt) and not at.flow


def _added(at: MapAt, new: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What of *new* has to be written: neither an entry of *at* nor merged into it as it is wanted."""
    own = {entry.name for entry in at.entries if not entry.merge}
    old = value_of(at)
    assert isinstance(old, dict)
    return {
        name: value for name, value in new.items() if name not in own and not (name in old and same(old[name], value))
    }


def _belongs(splice: Splice, start: int, end: int) -> bool:
    """A splice is of the lines from *start* to *end*; what is put in between two chunks is of the first."""
    return (start < splice.start or (splice.start == start and splice.end > start)) and splice.end <= end
