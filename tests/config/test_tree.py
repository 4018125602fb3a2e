"""What a file says as dicts and lists, and what of such a tree a file can say."""

import math

import pytest

from cpa.config.document import parse_document
from cpa.config.nodes import Findings
from cpa.config.tree import checked, same, text_of, tree_of
from cpa.errors import EditError


def value(text: str) -> object:
    """The value of ``a`` in a file."""
    document = parse_document(f"a: {text}\n", Findings(file=""))
    assert document is not None
    tree = tree_of(document.root)
    assert isinstance(tree, dict)
    return tree["a"]


@pytest.mark.parametrize(
    ("written", "read", "text"),
    [
        ("0123", 123, "0123"),
        ("1.50", 1.5, "1.50"),
        ("0x1F", 31, "0x1F"),
        ("7", 7, "7"),
        ("yes", "yes", "yes"),
        ("1:30", "1:30", "1:30"),
        ("' a '", " a ", "a"),
        ("True", True, "true"),
        ("~", None, ""),
        ("[a]", ["a"], ""),
    ],
)
def test_values_and_their_spelling(written: str, read: object, text: str) -> None:
    """Keys that people write without quotes are texts to those who want texts."""
    found = value(written)
    assert found == read
    assert text_of(found) == text  # type: ignore[arg-type]


def test_trees_stand_for_themselves() -> None:
    """An edit of one place is no edit of another."""
    document = parse_document("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n", Findings(file=""))
    assert document is not None
    tree = tree_of(document.root)
    assert isinstance(tree, dict)
    assert tree == {"a": {"b": 1}, "c": {"b": 1}, "d": {"e": 2, "b": 1}}
    assert tree["a"] is not tree["c"]


def test_equality_knows_kinds() -> None:
    """As YAML does, unlike Python."""
    assert same({"a": [1, None], "b": math.nan}, {"b": math.nan, "a": [1, None]})
    for one, other in ((1, True), (1, 1.0), (0, False), ("1", 1), ([], {}), (None, False), ([1], [1, 2])):
        assert not same(one, other)  # type: ignore[arg-type]
        assert not same({"a": other}, {"a": one})  # type: ignore[dict-item]


def test_what_a_file_can_say() -> None:
    """Tuples are lists; what is too deep is refused before anybody recurses into it."""
    assert checked({"a": (1, {"b": ()})}) == {"a": [1, {"b": []}]}
    deep: object = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(EditError, match="nesting"):
        checked({"a": deep})
    with pytest.raises(EditError, match="mapping"):
        checked([])
