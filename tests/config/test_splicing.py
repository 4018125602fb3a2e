"""Edits of a text: exactly what is wanted changes, no comment is lost, nothing else moves."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.document import parse_document
from cpa.config.nodes import Findings
from cpa.config.splicing import respelled
from cpa.config.tree import ConfigTree, same, tree_of
from cpa.errors import EditError


def read(text: str) -> ConfigTree:
    """What *text* says to the loader."""
    findings = Findings(file="test.yaml")
    document = parse_document(text, findings)
    assert document is not None, findings.problems
    assert not findings.problems
    tree = tree_of(document.root) or {}
    assert isinstance(tree, dict)
    return tree


def edited(text: str, change: Callable[[Any], object]) -> str:
    """*text* after *change*."""
    wanted = read(text)
    change(wanted)
    result = respelled(text, wanted)
    assert same(read(result), wanted)
    return result


def put(**members: object) -> Callable[[Any], object]:
    """Sets members at the top; underscores are hyphens."""
    return lambda tree: tree.update({name.replace("_", "-"): value for name, value in members.items()})


TEXT = """\
# head
debug: true  # eol
# keys
api-keys:   # of clients
  - alpha  # first
  # about beta
  - 'beta'   # second
  # - gamma (off)

claude-api-key:
  - api-key: a  # the key
    # its weight
    weight: 2
    models: [{name: x, alias: y}, {name: z}]
  - {api-key: b, prefix: p}   # flow
empty:
  # nothing here
# tail
"""
NONE_OF_THEM = "expected no change there"

CASES = {
    "a scalar": (put(debug=False), "debug: true  # eol", "debug: false  # eol"),
    "a quoted scalar keeps its quotes": (
        lambda tree: tree["api-keys"].__setitem__(1, "it's"),
        "- 'beta'   # second",
        "- 'it''s'   # second",
    ),
    "a new key goes behind the last one": (
        put(request_log=True),
        "  # nothing here\n",
        "  # nothing here\nrequest-log: true\n",
    ),
    "a new item goes below remarks of the list": (
        lambda tree: tree["api-keys"].append("yes"),
        "  # - gamma (off)\n",
        '  # - gamma (off)\n  - "yes"\n',
    ),
    "an item goes, its remark stays": (
        lambda tree: tree["api-keys"].pop(0),
        "  - alpha  # first\n",
        "  # first\n",
    ),
    "items move with what stands above them": (
        lambda tree: tree["api-keys"].reverse(),
        "  - alpha  # first\n  # about beta\n  - 'beta'   # second\n",
        "  # about beta\n  - 'beta'   # second\n  - alpha  # first\n",
    ),
    "a list becomes empty": (
        put(api_keys=[]),
        "api-keys:   # of clients\n  - alpha  # first\n  # about beta\n  - 'beta'   # second\n",
        "api-keys: []  # of clients\n  # first\n  # about beta\n  # second\n",
    ),
    "the first key behind a dash goes": (
        lambda tree: tree["claude-api-key"][0].pop("api-key"),
        "  - api-key: a  # the key\n    # its weight\n    weight",
        "  - # the key\n    # its weight\n    weight",
    ),
    "inside brackets": (
        lambda tree: tree["claude-api-key"][0]["models"].append({"name": "é: #"}),
        "{name: z}]",
        '{name: z}, {name: "é: #"}]',
    ),
    "an item in between": (
        lambda tree: tree["claude-api-key"].insert(1, {"api-key": "n", "models": [{"name": "m"}]}),
        "  - {api-key: b",
        "  - api-key: n\n    models:\n      - name: m\n  - {api-key: b",
    ),
    "a mapping where nothing was": (
        put(empty={"a": [1, {"b": []}]}),
        "empty:\n",
        "empty:\n  a:\n    - 1\n    - b: []\n",
    ),
    "a text of several lines": (put(debug="a\nb\t\x00\u2028"), "debug: true ", 'debug: "a\\nb\\t\\x00\\u2028" '),
}


@pytest.mark.parametrize("name", CASES)
def test_one_place_changes(name: str) -> None:
    """The text differs in one place, byte for byte."""
    change, before, after = CASES[name]
    assert TEXT.count(before) == 1
    assert edited(TEXT, change) == TEXT.replace(before, after)


FORMS = {
    "nothing": ("", put(a=1), "a: 1\n"),
    "only comments": ("# a\n# b", put(a={"b": [1]}), "# a\n# b\na:\n  b:\n    - 1\n"),
    "null": ("~  # x\n", put(a=1), "  # x\na: 1\n"),
    "Windows": (
        "a: 1\r\nb:\r\n- x # c\r\n- y",
        lambda tree: (tree["b"].append("z"), tree["b"].pop(0), tree.update(a=2)),
        "a: 2\r\nb:\r\n# c\r\n- y\r\n- z\r\n",
    ),
    "no final newline": ("a: 1", put(b=2), "a: 1\nb: 2\n"),
    "brackets": (
        "{a: 1, b: [1,2]}\n",
        lambda tree: (tree["b"].append("z"), tree.update(c={"d": 1})),
        "{a: 1, b: [1,2,z], c: {d: 1}}\n",
    ),
    "brackets over lines, with remarks": (
        "a: [\n  1, # one\n  2,\n]\nb: 3\n",
        lambda tree: tree["a"].pop(0),
        "a: [2]  # one\n  \nb: 3\n",
    ),
    "an end of the document": ("---\na: 1\n...\n", put(b=1), "---\na: 1\nb: 1\n...\n"),
    "a block scalar": ("a: | # why\n  t\n\n# x\nb: 1\n", put(a="n"), "a: n  # why\n\n# x\nb: 1\n"),
    "a block scalar that keeps its end": ("a: |+\n  t\n\n\n", put(b=1), "a: |+\n  t\n\n\nb: 1\n"),
    "wide indentation": (
        "a:\n    b: 1\nc:\n- x\n",
        put(d={"e": {"f": [1]}}),
        "a:\n    b: 1\nc:\n- x\nd:\n    e:\n        f:\n        - 1\n",
    ),
    "an alias is written out when its anchor changes": (
        "a: &x {b: 1}\nc: *x  # c\n",
        lambda tree: tree["a"].update(b=2),
        "a: &x {b: 2}\nc:  # c\n  b: 1\n",
    ),
    "an alias stays when something else changes": (
        "a: &x {b: 1}\nc: *x\n",
        put(d=1),
        "a: &x {b: 1}\nc: *x\nd: 1\n",
    ),
    "an alias is replaced": ("a: &x {b: 1}\nc: *x\n", put(c={"b": 2}), "a: &x {b: 1}\nc:\n  b: 2\n"),
    "a merged key is overridden": (
        "a: &x {b: 1}\nc:\n  <<: *x  # m\n  e: 2\n",
        lambda tree: tree["c"].update(b=3),
        "a: &x {b: 1}\nc:\n  <<: *x  # m\n  e: 2\n  b: 3\n",
    ),
    "a merged key is taken out": (
        "a: &x {b: 1, f: 2}\nc:\n  <<: *x\n  e: 2\n",
        lambda tree: tree["c"].pop("b"),
        "a: &x {b: 1, f: 2}\nc:\n  f: 2\n  e: 2\n",
    ),
    "empty brackets are filled": (
        "a: {}  # x\nb: []\nd:\n  - []\n  - {}\n",
        lambda tree: (tree["a"].update(q={"r": 1}), tree["b"].append({"s": 1}), tree["d"][1].update(v=1)),
        "a:  # x\n  q:\n    r: 1\nb:\n  - s: 1\nd:\n  - []\n  - v: 1\n",
    ),
    "a number that is a text": ("a: [0123, 1.50]\n", lambda tree: tree["a"].append(7), "a: [0123, 1.50, 7]\n"),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_files(name: str) -> None:
    """Whatever people write."""
    text, change, after = FORMS[name]
    assert edited(text, change) == after


def test_what_cannot_be_kept_is_refused() -> None:
    """Rather no edit than a guess."""
    with pytest.raises(EditError, match="by hand"):
        edited("? a\n: b\n", put(c=1))


# --- any text, any edits -------------------------------------------------------------------------------------------

WORDS = (
    *("a", "yes", "no", "on", "1:30", "0123", "0x1F", "1e3", "2024-01-01", "*x", "&x", "- x", "# x", "a: b", "a #b"),
    *("", " ", "~", "null", "=", "<<", "!tag", "%x", "@x", "`x`", "{", "]", "é😀", "it's", 'say "x"', "a\nb", "\\n"),
    *("\t", "\x07", "\x85", "\u2028", "\ufeff", "\U0001f600", "---", "...", "?", ":", "-", "a:", ":a", "x,y", "[x]"),
)
texts = st.sampled_from(WORDS) | st.text(max_size=6)
scalars = st.none() | st.booleans() | st.integers(-99, 10**20) | st.floats(allow_nan=True) | texts
keys = st.sampled_from("abcdefgh") | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@attrs.define(eq=False)
class Writer:
    """Writes a tree as somebody with habits of their own would, a remark wherever one can stand."""

    data: st.DataObject
    newline: str
    step: int
    offset: int
    remarks: int = 0
    lines: list[str] = attrs.field(factory=list)

    def remark(self) -> str:
        """A remark nobody else has."""
        self.remarks += 1
        return f"# r{self.remarks}."

    def flip(self) -> bool:
        """Any decision."""
        return self.data.draw(st.booleans())

    def say(self, column: int, text: str) -> None:
        """One line, with remarks above and behind it."""
        if self.flip():
            self.lines.append(" " * column + self.remark())
        if self.data.draw(st.integers(0, 5)) == 0:
            self.lines.append("")
        self.lines.append(" " * column + text + (f"  {self.remark()}" if self.flip() else ""))

    def write(self, value: Any, column: int, before: str = "") -> None:
        """*before*: what stands in front of the first line."""
        block = isinstance(value, dict | list) and value and self.flip()
        if not block:
            self.say(column, f"{before}{' ' if before and before[-1] != ' ' else ''}{self.inline(value)}")
            return
        inner = column + (self.step if isinstance(value, dict) else self.offset)
        if before.endswith("- "):
            inner = column + len(before)
        elif before:
            self.say(column, before)
        first = before if before.endswith("- ") else ""
        for key, item in value.items() if isinstance(value, dict) else ((None, item) for item in value):
            name = "- " if key is None else f"{self.inline(key)}:"
            if first:
                self.write(item, column, first + name)
                first = ""
            else:
                self.write(item, inner, name)

    def inline(self, value: Any) -> str:
        """In brackets or quotes."""
        from cpa.config.spelling import spelled

        if isinstance(value, str):
            return spelled(value, style=self.data.draw(st.sampled_from(["", "'", '"'])))
        return spelled(value)


def chosen_edit(data: st.DataObject, tree: Any) -> None:
    """Change something somewhere in *tree*."""
    at = tree
    while True:
        inner = [
            item for item in (at.values() if isinstance(at, dict) else at) if isinstance(item, dict | list) and item
        ]
        if not inner or data.draw(st.integers(0, 2)) == 0:
            break
        at = data.draw(st.sampled_from(inner))
    places = list(at) if isinstance(at, dict) else list(range(len(at)))
    what = data.draw(st.sampled_from(["set", "add", "remove", "move", "insert"]))
    if what == "add" or not places:
        value = data.draw(values)
        at.update({data.draw(keys): value}) if isinstance(at, dict) else at.append(value)
    elif what == "set":
        at[data.draw(st.sampled_from(places))] = data.draw(values)
    elif what == "remove":
        del at[data.draw(st.sampled_from(places))]
    elif isinstance(at, list):
        if what == "move":
            at.append(at.pop(data.draw(st.sampled_from(places))))
        else:
            at.insert(data.draw(st.sampled_from(places)), data.draw(values))


def in_order(before: Sequence[str], after: Sequence[str]) -> bool:
    """Keys that stayed are in the order that they had."""
    stayed = [key for key in before if key in after]
    return [key for key in after if key in stayed] == stayed


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_sequence_of_edits_loses_anything(data: st.DataObject) -> None:
    """The text always means what is wanted, every remark is still there, and keys keep their order."""
    writer = Writer(
        data,
        newline=data.draw(st.sampled_from(["\n", "\r\n"])),
        step=data.draw(st.sampled_from([2, 3, 4])),
        offset=data.draw(st.sampled_from([0, 2])),
    )
    for key, value in data.draw(st.dictionaries(keys, values, max_size=4)).items():
        writer.write(value, 0, f"{writer.inline(key)}:")
    if writer.flip():
        writer.lines.append(writer.remark())
    text = writer.newline.join(writer.lines) + (writer.newline if writer.flip() else "")
    for _ in range(data.draw(st.integers(1, 4))):
        wanted = read(text)
        before = list(wanted)
        chosen_edit(data, wanted)
        text = respelled(text, wanted)
        assert same(read(text), wanted)
        for number in range(1, writer.remarks + 1):
            assert re.search(rf"# r{number}\.", text), (number, text)
        assert in_order(before, list(read(text)))
