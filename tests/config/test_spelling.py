"""Values are written so that nobody takes them for something else."""

import math

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cpa.config.document import parse_document
from cpa.config.nodes import Findings
from cpa.config.spelling import entry_lines, lines_of, spelled, spelled_text
from cpa.config.tree import same, tree_of
from cpa.jsontypes import JsonValue

printable = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def read(text: str) -> JsonValue:
    """What the loader takes *text* for."""
    findings = Findings(file="")
    document = parse_document(text, findings)
    assert document is not None, findings.problems
    return tree_of(document.root)


@given(text=printable, style=st.sampled_from(["", "'", '"', "|", ">"]))
@example(text="\ufeff\u2028\x85\x7f", style="'")
@example(text="2024-01-01", style="")
@example(text="a: b # c", style="")
@example(text="\U0010ffff\ufffe\uffff", style="")
def test_texts_are_texts_to_everybody(text: str, style: str) -> None:
    """Also to readers of YAML 1.1, and inside brackets, as keys, and in one line."""
    written = spelled_text(text, style=style)
    assert not set("\n\r\x85\u2028\u2029") & set(written)
    for whole, value in (
        (f"a: {written}\n", {"a": text}),
        (f"{written}: [{written}, {{{written}: {written}}}]\n", {text: [text, {text: text}]}),
        (f"- {written}  # c\n", [text]),
    ):
        assert read(whole) == value
        assert yaml.safe_load(whole) == value


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("sk-ant-one", "sk-ant-one"),
        ("http://a.example:8080/v1?x=1", '"http://a.example:8080/v1?x=1"'),
        ("http://a.example:8080/v1", "http://a.example:8080/v1"),
        ("my models", "my models"),
        ("claude-*", "claude-*"),
        ("*-preview", '"*-preview"'),
        ("yes", '"yes"'),
        ("", '""'),
        ("$2a$10$x", '"$2a$10$x"'),
        ("é", '"é"'),
        ("-1", '"-1"'),
    ],
)
def test_usual_texts_have_no_quotes(text: str, written: str) -> None:
    """As people write them."""
    assert spelled_text(text) == written


@pytest.mark.parametrize("value", [None, True, False, 0, -7, 10**25, 1.5, 1e300, 5e-324, math.inf, -math.inf, math.nan])
def test_other_scalars(value: JsonValue) -> None:
    """They come back as they are, kind included."""
    assert same(read(f"a: {spelled(value)}"), {"a": value})


def test_blocks() -> None:
    """Lists of mappings as people write them; what is empty in brackets."""
    value: JsonValue = {"a": [{"b": 1, "c": [1, [2, {}]]}, [], "x"], "d": {"e": {}}}
    lines = list(lines_of(value, step=2, offset=0))
    assert lines == [
        *("a:", "- b: 1", "  c:", "  - 1", "  - [2, {}]", "- []", "- x"),
        *("d:", "  e: {}"),
    ]
    assert read("\n".join(lines)) == value
    assert list(entry_lines("k", [1], step=4, offset=2)) == ["k:", "  - 1"]
