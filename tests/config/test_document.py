"""Documents keep their values and their text."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.document import Document, parse_document, to_yaml
from cpa.config.nodes import Findings, MappingNode, ScalarNode, describe, to_json
from cpa.config.schema import thaw

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn", "Zl", "Zp")), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


def read(text: str) -> Document:
    findings = Findings(file="d")
    document = parse_document(text, findings)
    assert findings.problems == ()
    assert document is not None
    return document


@given(JSON)
@settings(max_examples=100)
def test_json_is_read_as_json_and_written_back(value: Any) -> None:
    """JSON is YAML; what is written as YAML reads the same."""
    node = read(json.dumps(value, ensure_ascii=False)).root
    assert node is not None
    assert thaw(to_json(node)) == value
    again = read(to_yaml(node)).root
    assert again is not None
    assert thaw(to_json(again)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("~", None), ("Null", None), ("TRUE", True), ("yes", "yes"), ("on", "on"), ("y", "y"), ("1:30", "1:30")],
        *[("0x1f", 31), ("0o17", 15), ("0b11", 3), ("1_000", 1000), ("-5", -5), ("017", 17), ("1e3", 1000.0)],
        *[(".5", 0.5), ("1.", 1.0), ("2026-01-01", "2026-01-01"), ('"1"', "1"), ("'~'", "~"), ("!!str 1", "1")],
        *[('!!int "7"', 7), ("!foo bar", "bar"), ("1.2.3", "1.2.3"), ("0x", "0x"), ("9" * 101, "9" * 101)],
    ],
)
def test_scalars(text: str, value: object) -> None:
    node = read(f"- {text}\n").root
    assert node is not None
    (found,) = thaw(to_json(node))
    assert found == value
    assert type(found) is type(value)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), JSON, min_size=1, max_size=3), st.integers(1, 6))
@settings(max_examples=60)
def test_a_part_reads_the_same_on_its_own(value: dict[str, Any], indent: int) -> None:
    body = "".join(
        f"{' ' * indent}{key}: {json.dumps(item, ensure_ascii=False)}  # remark\n" for key, item in value.items()
    )
    document = read(f"é:\n{body}# end\nz: 1\n")
    assert isinstance(document.root, MappingNode)
    node = document.root.get("é")
    assert node is not None
    source = document.yaml_of(node)
    assert source.count("# remark") == len(value)
    assert "# end" not in source
    again = read(source).root
    assert again is not None
    assert thaw(to_json(again)) == value


def test_descriptions_are_bounded_and_discreet() -> None:
    def scalar(value: Any, text: str) -> ScalarNode:
        return ScalarNode(line=1, value=value, text=text)

    assert describe(scalar("a", "a"), secret=False) == "'a' (str)"
    assert describe(scalar("a", "a"), secret=True) == "a string"
    assert describe(scalar("a" * 25, "a" * 25), secret=False) == "a string of 25 characters"
    assert describe(scalar(1, "1"), secret=True) == "a number"
    assert describe(scalar(None, ""), secret=True) == "nothing (null)"
