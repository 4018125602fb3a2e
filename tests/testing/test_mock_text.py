"""Deterministic text, opaque values and arguments."""

from base64 import b64decode, urlsafe_b64decode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.testing.mock.arguments import plausible_arguments
from cpa.testing.mock.signatures import claude_signature, gemini_signature, openai_encrypted
from cpa.testing.mock.text import digest_of, in_pieces, in_words, pseudo_pieces, pseudo_text


@given(st.integers(0, 1_000_000), st.integers(1, 5_000))
def test_piece_has_exactly_its_size(index: int, size: int) -> None:
    assert len(pseudo_text(index, size).encode()) == size


def test_pieces_differ_and_are_not_ascii() -> None:
    """A lost, repeated or swapped piece must be visible, and so must a broken character."""
    pieces = list(pseudo_pieces(500, 40))
    assert len(set(pieces)) == 500
    assert sum(not piece.isascii() for piece in pieces) > 250


def test_text_is_the_same_forever() -> None:
    assert pseudo_text(300, 24) == "12c  Maß und Ärger; na"
    assert digest_of("a", "b") == digest_of("a", "b") != digest_of("ab")
    assert len(digest_of("\ud800")) == 12


@given(st.text(max_size=80))
def test_cut_texts_join_again(text: str) -> None:
    assert "".join(in_words(text)) == text
    assert "".join(in_pieces(text)) == text


def test_arguments_come_in_several_pieces() -> None:
    assert in_pieces("{}") == ("{", "}")
    assert len(in_pieces('{"city":"Paris"}')) == 2


def test_signatures_have_their_vendors_structure() -> None:
    claude = b64decode(claude_signature("x"))
    assert claude[0] == 0x12
    assert b"claude-mock" in claude
    assert len(claude) > 2 + claude[1]  # other fields follow the container
    gemini = b64decode(gemini_signature("x"))
    assert gemini[0] == 0x12
    assert len(gemini) == 2 + gemini[1]
    assert gemini[4] == 0x01
    token = urlsafe_b64decode(openai_encrypted("x"))
    assert openai_encrypted("x").startswith("gAAAA")
    assert len(token) >= 73
    assert (len(token) - 57) % 16 == 0


SCHEMAS = [
    ({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}, {"city": "Paris"}),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 1}),
    ({"properties": {"n": {"type": "number", "minimum": 3}}, "required": ["n"]}, {"n": 3}),
    ({"properties": {"n": {"type": "integer", "exclusiveMinimum": 3}}, "required": ["n"]}, {"n": 4}),
    ({"properties": {"n": {"type": "integer", "maximum": 0}}, "required": ["n"]}, {"n": 0}),
    ({"properties": {"u": {"enum": ["c", "f"]}}, "required": ["u"]}, {"u": "c"}),
    ({"properties": {"u": {"const": 5}}, "required": ["u"]}, {"u": 5}),
    ({"properties": {"b": {"type": "boolean"}}, "required": ["b"]}, {"b": True}),
    ({"properties": {"b": {"type": ["null", "boolean"]}}, "required": ["b"]}, {"b": True}),
    ({"properties": {"x": {"anyOf": [{"type": "null"}, {"type": "integer"}]}}, "required": ["x"]}, {"x": 1}),
    ({"type": "OBJECT", "properties": {"x": {"type": "STRING"}}, "required": ["x"]}, {"x": "mock x"}),
    (
        {"properties": {"p": {"type": "array", "minItems": 2, "items": {"type": "integer"}}}, "required": ["p"]},
        {"p": [1, 1]},
    ),
    (
        {"$defs": {"P": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}}}
        | {"properties": {"p": {"$ref": "#/$defs/P"}}, "required": ["p"]},
        {"p": {"url": "https://example.com/"}},
    ),
    ({"properties": {"s": {"type": "string", "minLength": 8}}, "required": ["s"]}, {"s": "mock sxx"}),
    ({"properties": {"s": {"type": "string", "maxLength": 2}}, "required": ["s"]}, {"s": "mo"}),
    ({"properties": {"s": {"type": "string", "format": "date"}}, "required": ["s"]}, {"s": "2026-01-31"}),
    ({"required": ["undeclared"]}, {"undeclared": "mock undeclared"}),
    ({}, {}),
    (None, {}),
    ([], {}),
]


@pytest.mark.parametrize(("schema", "expected"), SCHEMAS)
def test_arguments_fit_the_schema(schema: object, expected: object) -> None:
    assert plausible_arguments(schema) == expected


def test_schema_that_refers_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    arguments = plausible_arguments(node)
    assert msgspec.json.encode(arguments).count(b"next") == 6
    assert plausible_arguments({"$ref": "#"}) == {}


_KEYS = ("type", "properties", "required", "items", "anyOf", "$ref", "enum", "minItems", "minLength", "maximum", "x")
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_any_schema_gives_an_object(schema: object) -> None:
    try:
        arguments = plausible_arguments(schema)
    except OverflowError:  # an integer that shall be at least 1e308: the server answers 400
        return
    assert isinstance(arguments, dict)
