"""Schemas in the dialects of the providers (translation 2.5a)."""

import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.profile import SchemaTier, default_profile
from cpa.translation.schema import (
    clean_claude_output,
    clean_gemini,
    from_openapi,
    is_strict,
    repair_root,
)
from cpa.translation.schema_walk import MAX_DEPTH, MAX_NODES
from cpa.types import JsonObject, JsonValue

Clean = Callable[[bytes], bytes]
EMPTY: JsonObject = {"type": "object", "properties": {}}


def dump(value: JsonValue) -> bytes:
    return json.dumps(value).encode()


def through(clean: Clean, schema: JsonValue) -> JsonObject:
    cleaned = json.loads(clean(dump(schema)))
    assert isinstance(cleaned, dict)
    return cleaned


def json_tier(schema: bytes) -> bytes:
    return clean_gemini(schema, SchemaTier.JSON)


def openapi_tier(schema: bytes) -> bytes:
    return clean_gemini(schema, SchemaTier.OPENAPI)


def json_output(schema: bytes) -> bytes:
    return clean_gemini(schema, SchemaTier.JSON, root_object=False)


def openapi_output(schema: bytes) -> bytes:
    return clean_gemini(schema, SchemaTier.OPENAPI, root_object=False)


ALL: list[Clean] = [
    json_tier,
    openapi_tier,
    json_output,
    openapi_output,
    clean_claude_output,
    repair_root,
    from_openapi,
]


def obj(**properties: JsonValue) -> JsonObject:
    return {"type": "object", "properties": properties}


def prop(clean: Clean, schema: JsonValue) -> JsonValue:
    """*schema* cleaned as a property, where no rule for roots applies."""
    properties = through(clean, obj(p=schema))["properties"]
    assert isinstance(properties, dict)
    return properties["p"]


# --- tier json -------------------------------------------------------------------------------------------------------

JSON_TIER: list[tuple[str, JsonValue, JsonValue]] = [
    (
        "supported keywords stay",
        {
            "type": "array",
            "title": "t",
            "format": "f",
            "description": "d",
            "items": {"type": "string", "enum": ["a", "b"]},
            "minItems": 1,
            "maxItems": 2,
        },
        {
            "type": "array",
            "title": "t",
            "format": "f",
            "description": "d",
            "items": {"type": "string", "enum": ["a", "b"]},
            "minItems": 1,
            "maxItems": 2,
        },
    ),
    ("78: nullable type list stays", {"type": ["string", "null"]}, {"type": ["string", "null"]}),
    ("upper-case types", {"type": "INTEGER"}, {"type": "integer"}),
    ("upper-case type lists", {"type": ["STRING", "NULL"]}, {"type": ["string", "null"]}),
    ("unknown type", {"type": "any"}, {}),
    ("nullable", {"type": "string", "nullable": True}, {"type": ["string", "null"]}),
    (
        "nullable union",
        {"anyOf": [{"type": "string"}], "nullable": True},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
    ),
    ("nullable false", {"type": "string", "nullable": False}, {"type": "string"}),
    ("const string", {"const": "a"}, {"enum": ["a"]}),
    ("const number", {"type": "number", "const": 1.5}, {"type": "number", "enum": [1.5]}),
    ("const object", {"const": {"a": 1}}, {"description": '(const: {"a":1})'}),
    (
        "const boolean is no number",
        {"type": "boolean", "const": True},
        {"type": "boolean", "description": "(const: true)"},
    ),
    ("const null", {"const": None}, {"type": ["null"]}),
    ("77: numeric enum", {"type": "integer", "enum": [1, 2]}, {"type": "integer", "enum": [1, 2]}),
    ("enum with null", {"type": "string", "enum": ["a", None]}, {"type": ["string", "null"], "enum": ["a"]}),
    ("untyped enum with null", {"enum": ["a", None]}, {"type": ["string", "null"], "enum": ["a"]}),
    (
        "enum of booleans",
        {"type": "boolean", "enum": [True]},
        {"type": "boolean", "description": "(Allowed: true)"},
    ),
    ("enum that is none", {"type": "string", "enum": "a"}, {"type": "string"}),
    (
        "exclusive bounds of integers",
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9},
        {"type": "integer", "minimum": 1, "maximum": 8},
    ),
    ("the stricter bound", {"type": "integer", "minimum": 5, "exclusiveMinimum": 1}, {"type": "integer", "minimum": 5}),
    (
        "exclusive bound of a number",
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "number", "description": "(exclusiveMinimum: 0)"},
    ),
    (
        "draft 4 bound",
        {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
        {"type": "integer", "minimum": 1},
    ),
    (
        "draft 4 flag off",
        {"type": "integer", "minimum": 0, "exclusiveMinimum": False},
        {"type": "integer", "minimum": 0},
    ),
    (
        "hints in one parenthesis",
        {"type": "string", "description": "D", "minLength": 1, "pattern": "^a"},
        {"type": "string", "description": "D (minLength: 1; pattern: ^a)"},
    ),
    (
        "hint without description",
        {"type": "string", "minLength": 1},
        {"type": "string", "description": "(minLength: 1)"},
    ),
    (
        "hint that is there",
        {"type": "string", "minLength": 1, "description": "D (minLength: 1)"},
        {"type": "string", "description": "D (minLength: 1)"},
    ),
    (
        "hint that only looks so",
        {"type": "string", "minLength": 1, "description": "D (minLength: 12)"},
        {"type": "string", "description": "D (minLength: 12) (minLength: 1)"},
    ),
    (
        "other hinted keywords",
        {"type": "array", "uniqueItems": True, "contains": {"type": "string"}, "default": [], "examples": [["a"]]},
        {
            "type": "array",
            "description": '(uniqueItems: true; contains: {"type":"string"}; default: []; examples: [["a"]])',
        },
    ),
    (
        "conditions",
        {"type": "string", "if": {"const": 1}, "then": {"const": 2}},
        {"type": "string", "description": '(if: {"const":1}; then: {"const":2})'},
    ),
    (
        "dropped keywords",
        {
            "type": "string",
            "not": {},
            "$comment": "c",
            "deprecated": True,
            "readOnly": True,
            "writeOnly": True,
            "x-order": 1,
            "propertyNames": {},
            "unevaluatedProperties": False,
        },
        {"type": "string"},
    ),
    ("no HTML escapes", {"type": "string", "pattern": "<a>&"}, {"type": "string", "description": "(pattern: <a>&)"}),
    (
        "draft 4 tuple",
        {"type": "array", "items": [{"type": "string"}]},
        {"type": "array", "prefixItems": [{"type": "string"}]},
    ),
    ("boolean schema", True, {}),
    (
        "additional properties",
        {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
        {"type": "object", "additionalProperties": {"type": "string", "description": "(minLength: 1)"}},
    ),
    (
        "closed object",
        {"type": "object", "additionalProperties": False},
        {"type": "object", "additionalProperties": False},
    ),
    (
        "76: properties named like keywords",
        {
            "type": "object",
            "properties": {"type": {"type": "string"}, "default": {"type": "string"}, "pattern": {"type": "string"}},
            "required": ["type", "default"],
        },
        {
            "type": "object",
            "properties": {"type": {"type": "string"}, "default": {"type": "string"}, "pattern": {"type": "string"}},
            "required": ["type", "default"],
        },
    ),
    (
        "required names that do not exist",
        {"type": "object", "properties": {"a": {}}, "required": ["a", "b", 3]},
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    ),
    (
        "81: draft 3",
        {"type": "object", "properties": {"a": {"type": "string", "required": True}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    ),
    (
        "allOf",
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                {"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b"], "description": "D"},
            ]
        },
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {}},
            "required": ["a", "b"],
            "description": "D",
        },
    ),
    (
        "allOf of one reference",
        {"allOf": [{"$ref": "#/properties/p"}], "description": "again"},
        {"$ref": "#/properties/p"},
    ),
    ("oneOf stays", {"oneOf": [{"type": "string"}]}, {"oneOf": [{"type": "string"}]}),
    ("foreign reference", {"$ref": "https://x/y.json#/Z"}, {"type": "object", "description": "See: Z"}),
    (
        "broken reference",
        {"$ref": "#/$defs/Nope", "description": "D"},
        {"type": "object", "description": "D (See: Nope)"},
    ),
    (
        "big integers",
        {"type": "integer", "enum": [12345678901234567890123]},
        {"type": "integer", "enum": [12345678901234567890123]},
    ),
]


@pytest.mark.parametrize(("schema", "cleaned"), [row[1:] for row in JSON_TIER], ids=[row[0] for row in JSON_TIER])
def test_json_tier(schema: JsonValue, cleaned: JsonValue) -> None:
    """Each row of the table for Gemini's JSON Schema."""
    assert prop(json_tier, schema) == cleaned
    assert prop(json_tier, cleaned) == cleaned


def test_definitions_are_renamed_and_descriptions_move_to_the_parent() -> None:
    """Beside a reference nothing but ``$`` members may stand."""
    schema: JsonObject = {
        "type": "object",
        "properties": {"a": {"$ref": "#/definitions/X", "description": "the a", "default": 1}},
        "definitions": {"X": {"type": "string"}},
        "description": "D",
    }
    assert through(json_tier, schema) == {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/X"}},
        "$defs": {"X": {"type": "string"}},
        "description": "D (a: the a)",
    }


def test_recursion_is_never_required() -> None:
    """Gemini unrolls recursion under optional properties only; a reference from outside of it may be required."""
    node: JsonObject = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/Node"}, "value": {"$ref": "#/$defs/V"}},
        "required": ["next", "value"],
    }
    schema: JsonObject = {
        "type": "object",
        "properties": {"list": {"$ref": "#/$defs/Node"}},
        "required": ["list"],
        "$defs": {"Node": node, "V": {"type": "string"}},
    }
    cleaned = through(json_tier, schema)
    assert cleaned["required"] == ["list"]
    assert cleaned["$defs"] == {"Node": {**node, "required": ["value"]}, "V": {"type": "string"}}


def test_recursion_through_others_and_through_the_root() -> None:
    """A leads to B and back; the root leads to itself through a list."""
    schema: JsonObject = {
        "type": "object",
        "properties": {
            "again": {"type": "array", "items": {"$ref": "#"}},
            "deep": {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]},
            "a": {"$ref": "#/$defs/A"},
        },
        "required": ["again", "deep", "a"],
        "$defs": {
            "A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}, "required": ["b"]},
            "B": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]},
        },
    }
    cleaned = through(json_tier, schema)
    assert cleaned["required"] == ["deep", "a"]
    properties = cleaned["properties"]
    assert isinstance(properties, dict)
    assert properties["deep"] == {"type": "object", "properties": {"me": {"$ref": "#"}}}
    assert cleaned["$defs"] == {
        "A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}},
        "B": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}},
    }


@pytest.mark.parametrize("clean", ALL)
def test_recursion_through_all_of_ends(clean: Clean) -> None:
    """A branch that leads back to the schema around it is told by its name."""
    node: JsonObject = {"allOf": [{"$ref": "#/$defs/Node"}, {"properties": {"more": {"type": "string"}}}]}
    schema = {**obj(root={"$ref": "#/$defs/Node"}), "$defs": {"Node": obj(next=node, value={"type": "string"})}}
    once = clean(dump(schema))
    assert len(once) < 1500
    assert b'"more"' in once
    if clean not in (repair_root, from_openapi):
        assert b"See: Node" in once
    assert clean(once) == once


def test_references_that_cleaning_cuts_are_told() -> None:
    """What a pointer went through is gone, and with it the reference."""
    schema = obj(a={"$ref": "#/patternProperties/x"}, b={"type": "string", "not": {"$ref": "#/properties/b"}})
    schema["patternProperties"] = {"x": {"type": "string"}}
    cleaned = through(json_tier, schema)
    assert cleaned["properties"] == {"a": {"type": "object", "description": "See: x"}, "b": {"type": "string"}}


# --- tier openapi ----------------------------------------------------------------------------------------------------

OPENAPI_TIER: list[tuple[str, JsonValue, JsonValue]] = [
    ("78: null in the type", {"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
    (
        "several types",
        {"type": ["string", "integer"], "minLength": 2, "description": "D"},
        {"description": "D", "anyOf": [{"type": "STRING", "minLength": 2}, {"type": "INTEGER"}]},
    ),
    (
        "oneOf",
        {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]},
    ),
    (
        "null branch",
        {"anyOf": [{"type": "string", "description": "D"}, {"type": "null"}]},
        {"nullable": True, "type": "STRING", "description": "D"},
    ),
    (
        "null branch of three",
        {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "integer"}]},
        {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}], "nullable": True},
    ),
    (
        "77: numeric enum",
        {"type": "integer", "enum": [1, 2, 3]},
        {"type": "INTEGER", "description": "(Allowed: 1, 2, 3)"},
    ),
    ("string enum", {"enum": ["a"]}, {"enum": ["a"], "type": "STRING"}),
    ("enum with null", {"type": "string", "enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}),
    ("const string", {"const": "v"}, {"enum": ["v"], "type": "STRING"}),
    ("const number", {"const": 3}, {"type": "INTEGER", "description": "(const: 3)"}),
    (
        "closed object",
        {"type": "object", "additionalProperties": False},
        {"type": "OBJECT", "description": "(No extra properties allowed)"},
    ),
    (
        "closed object of many words",
        {"type": "object", "description": "x" * 500, "additionalProperties": False},
        {"type": "OBJECT", "description": "x" * 500},
    ),
    (
        "map",
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "OBJECT", "description": "(Values: integer)"},
    ),
    (
        "tuple",
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}, {"type": "string"}]},
        {
            "type": "ARRAY",
            "items": {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]},
            "minItems": 3,
            "maxItems": 3,
        },
    ),
    ("known format", {"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}),
    ("other format", {"type": "string", "format": "uri"}, {"type": "STRING", "description": "(format: uri)"}),
    (
        "what this dialect has and the other has not",
        {
            "type": "string",
            "minLength": 1,
            "maxLength": 2,
            "pattern": "a",
            "default": "a",
            "example": "a",
            "title": "T",
        },
        {
            "type": "STRING",
            "minLength": 1,
            "maxLength": 2,
            "pattern": "a",
            "default": "a",
            "example": "a",
            "title": "T",
        },
    ),
    ("exclusive bound", {"type": "integer", "exclusiveMaximum": 4}, {"type": "INTEGER", "maximum": 3}),
    ("multipleOf", {"type": "number", "multipleOf": 2}, {"type": "NUMBER", "description": "(multipleOf: 2)"}),
    ("foreign reference", {"$ref": "other.json"}, {"type": "OBJECT", "description": "See: other.json"}),
    ("boolean schema", True, {}),
]


@pytest.mark.parametrize(("schema", "cleaned"), [row[1:] for row in OPENAPI_TIER], ids=[row[0] for row in OPENAPI_TIER])
def test_openapi_tier(schema: JsonValue, cleaned: JsonValue) -> None:
    """Each row of the table for Gemini's own dialect."""
    assert prop(openapi_tier, schema) == cleaned
    assert prop(openapi_tier, cleaned) == cleaned


def test_openapi_unfolds_references_and_cuts_cycles() -> None:
    """Case 79; a description beside a reference beats the one behind it."""
    node: JsonObject = obj(v={"type": "string"}, kids={"type": "array", "items": {"$ref": "#/$defs/Node"}})
    schema = {**obj(tree={"$ref": "#/$defs/Node", "description": "T"}), "$defs": {"Node": node}}
    assert through(openapi_tier, schema) == {
        "type": "OBJECT",
        "properties": {
            "tree": {
                "type": "OBJECT",
                "description": "T",
                "properties": {
                    "v": {"type": "STRING"},
                    "kids": {"type": "ARRAY", "items": {"type": "OBJECT", "description": "See: Node"}},
                },
            }
        },
    }


# --- roots -----------------------------------------------------------------------------------------------------------

ROOTS: list[tuple[str, JsonValue, JsonObject]] = [
    ("null", None, EMPTY),
    ("not an object", [1], EMPTY),
    ("a boolean", True, EMPTY),
    ("type missing", {"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
    ("type list", {"type": ["null", "object"], "properties": {}}, EMPTY),
    ("properties missing", {"type": "object"}, EMPTY),
    ("upper case", {"type": "OBJECT", "properties": {}}, EMPTY),
    (
        "82: anyOf",
        {
            "anyOf": [
                {"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a", "b"]},
                {"properties": {"a": {"type": "integer"}, "c": {}}, "required": ["a", "c"]},
            ]
        },
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {}, "c": {}},
            "required": ["a"],
            "description": "(Any of: a, b | a, c)",
        },
    ),
    (
        "oneOf by titles",
        {"type": "object", "properties": {}, "oneOf": [{"title": "One"}, {"title": "Two"}]},
        {"type": "object", "properties": {}, "description": "(One of: One | Two)"},
    ),
    (
        "allOf",
        {"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]},
        {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]},
    ),
    (
        "root reference",
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {}}}}},
        {"type": "object", "properties": {"a": {}}, "$defs": {"A": {"type": "object", "properties": {"a": {}}}}},
    ),
    ("80: property map", {"city": {"type": "string"}}, {"type": "object", "properties": {"city": {"type": "string"}}}),
    (
        "81: draft 3, deep",
        {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"required": True}}}}},
        {
            "type": "object",
            "properties": {"a": {"type": "object", "properties": {"b": {}}, "required": ["b"]}},
        },
    ),
    ("required is no list", {"type": "object", "properties": {}, "required": "a"}, EMPTY),
    (
        "required with other things",
        {"type": "object", "properties": {"a": {}}, "required": ["a", 1, "a"]},
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    ),
    (
        "a value",
        {"type": "array"},
        {"type": "object", "properties": {"value": {"type": "array"}}, "required": ["value"]},
    ),
]


@pytest.mark.parametrize(("schema", "repaired"), [row[1:] for row in ROOTS], ids=[row[0] for row in ROOTS])
def test_root_repair(schema: JsonValue, repaired: JsonObject) -> None:
    """Each defect of the table."""
    assert through(repair_root, schema) == repaired
    assert through(repair_root, repaired) == repaired


def test_missing_schema_takes_nothing() -> None:
    """A tool without a schema has no arguments."""
    assert json.loads(repair_root(b"")) == EMPTY
    assert json.loads(json_tier(b"")) == EMPTY


def test_sound_schemas_keep_their_bytes() -> None:
    """Claude's tools take all of JSON Schema: nothing but roots is repaired, white space included."""
    schema = b'{ "type":"object", "properties": {"a":{"type":"string","minLength":1}}, "additionalProperties":true }'
    assert repair_root(schema) is schema


def test_a_property_called_required_is_no_flag() -> None:
    """Only schema positions are walked, also by repairs."""
    schema = obj(required={"type": "boolean", "default": True})
    assert through(repair_root, schema) == schema
    schema = obj(a={"type": "object", "default": {"required": True}, "enum": [{"required": True}]})
    assert through(repair_root, schema) == schema


def test_root_unions_of_themselves_end() -> None:
    """A root that is any of itself must not be unfolded for ever."""
    schema: JsonObject = {"anyOf": [{"$ref": "#"}, {"properties": {"a": {}}}], "properties": {"b": {}}}
    repaired = through(repair_root, schema)
    assert repaired["type"] == "object"
    assert repaired["properties"] == {"b": {}, "a": {}}
    assert "anyOf" not in repaired


def test_output_roots_need_no_object() -> None:
    """A list is a fine answer."""
    schema: JsonObject = {"type": "array", "items": {"type": "string"}}
    assert through(json_output, schema) == schema
    assert through(openapi_output, schema) == {"type": "ARRAY", "items": {"type": "STRING"}}


# --- Claude's structured output --------------------------------------------------------------------------------------

CLAUDE_OUTPUT: list[tuple[str, JsonValue, JsonValue]] = [
    (
        "104: closed, and what is unsupported told",
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "additionalProperties": True},
        {
            "type": "object",
            "properties": {"n": {"type": "integer", "description": "(minimum: 1)"}},
            "additionalProperties": False,
        },
    ),
    ("known format", {"type": "string", "format": "uuid"}, {"type": "string", "format": "uuid"}),
    ("other format", {"type": "string", "format": "regex"}, {"type": "string", "description": "(format: regex)"}),
    ("literals without type", {"type": "string", "enum": ["a"]}, {"enum": ["a"]}),
    ("const without type", {"type": "integer", "const": 1}, {"const": 1}),
    ("null is a literal", {"enum": [None, "a"]}, {"enum": [None, "a"]}),
    (
        "enum of objects",
        {"type": "object", "enum": [{}]},
        {"type": "object", "properties": {}, "additionalProperties": False, "description": "(Allowed: {})"},
    ),
    (
        "minItems 1",
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ),
    ("minItems 2", {"type": "array", "minItems": 2}, {"type": "array", "description": "(minItems: 2)"}),
    ("oneOf", {"oneOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}]}),
    ("type list", {"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ("nullable", {"type": "STRING", "nullable": True}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
    (
        "allOf is merged, or nothing would be valid",
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "string"}}},
                {"properties": {"b": {"type": "null"}}},
            ]
        },
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "null"}},
            "additionalProperties": False,
        },
    ),
]


@pytest.mark.parametrize(("schema", "cleaned"), [r[1:] for r in CLAUDE_OUTPUT], ids=[row[0] for row in CLAUDE_OUTPUT])
def test_claude_output(schema: JsonValue, cleaned: JsonValue) -> None:
    """The rules of the vendor's transformer."""
    assert prop(clean_claude_output, schema) == cleaned
    assert prop(clean_claude_output, cleaned) == cleaned


def test_claude_output_references() -> None:
    """A reference stands alone; its definitions are cleaned."""
    schema = {
        **obj(a={"$ref": "#/definitions/A", "description": "the a"}),
        "definitions": {"A": obj(b={"type": "string", "maxLength": 3})},
    }
    assert through(clean_claude_output, schema) == {
        "type": "object",
        "description": "(a: the a)",
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "additionalProperties": False,
        "$defs": {
            "A": {
                "type": "object",
                "properties": {"b": {"type": "string", "description": "(maxLength: 3)"}},
                "additionalProperties": False,
            }
        },
    }


# --- from Gemini, and strictness -------------------------------------------------------------------------------------


def test_from_openapi() -> None:
    """Types in lower case at schema positions, ``nullable`` in the type, counts as numbers."""
    schema: JsonObject = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "nullable": True, "example": "STRING"},
            "kind": {"type": "STRING", "format": "enum", "enum": ["STRING"], "nullable": True},
            "list": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "2"},
            "any": {"anyOf": [{"type": "NUMBER"}], "nullable": True},
            "odd": {"type": "TYPE_UNSPECIFIED"},
        },
        "propertyOrdering": ["type"],
        "required": ["type"],
        "default": {"type": "OBJECT"},
    }
    assert through(from_openapi, schema) == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"], "examples": ["STRING"]},
            "kind": {"type": ["string", "null"], "enum": ["STRING", None]},
            "list": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
            "any": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "odd": {},
        },
        "required": ["type"],
        "default": {"type": "OBJECT"},
    }


CLOSED: JsonObject = {**obj(a={"type": "string"}), "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        ({**CLOSED, "properties": {"a": CLOSED}}, True),
        ({**CLOSED, "properties": {"a": {"type": "array", "items": CLOSED}}}, True),
        ({**CLOSED, "properties": {"a": {"anyOf": [CLOSED, {"type": "null"}]}}}, True),
        ({**CLOSED, "properties": {"a": {"$ref": "#/$defs/B"}}, "$defs": {"B": CLOSED}}, True),
        ({**CLOSED, "properties": {"a": {"$ref": "#/$defs/B"}}, "$defs": {"B": obj()}}, False),
        ({**CLOSED, "properties": {"a": {"type": "array", "items": obj()}}}, False),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "additionalProperties": True}, False),
        ({**CLOSED, "properties": {"a": {}}}, False),
        ({**CLOSED, "properties": {"a": {"type": "string", "not": {}}}}, False),
        ({"type": "array", "items": CLOSED}, False),
        (EMPTY, False),
        (None, False),
    ],
)
def test_strictness(schema: JsonValue, strict: bool) -> None:
    """Closed, and everything required, all the way down."""
    assert is_strict(dump(schema)) is strict


# --- limits, losses and laws -----------------------------------------------------------------------------------------


def deep(levels: int) -> JsonObject:
    schema: JsonObject = {"type": "string", "minLength": 1}
    for _ in range(levels):
        schema = obj(x=schema)
    return schema


def doubling(levels: int) -> JsonObject:
    """A small schema that unfolds to 2**levels."""
    definitions: JsonObject = {
        f"D{n}": {
            "type": "object",
            "properties": {"a": {"$ref": f"#/$defs/D{n + 1}"}, "b": {"$ref": f"#/$defs/D{n + 1}"}},
        }
        for n in range(levels)
    }
    definitions[f"D{levels}"] = {"type": "string"}
    return {**obj(a={"$ref": "#/$defs/D0"}), "$defs": definitions}


def doubling_unions(levels: int) -> JsonObject:
    definitions: JsonObject = {
        f"D{n}": {"allOf": [{"$ref": f"#/$defs/D{n + 1}"}, {"$ref": f"#/$defs/D{n + 1}"}]} for n in range(levels)
    }
    definitions[f"D{levels}"] = {"type": "object"}
    return {**obj(a={"$ref": "#/$defs/D0"}), "$defs": definitions}


TOO_BIG = [
    (deep(MAX_DEPTH + 1), json_tier),
    (deep(MAX_DEPTH + 1), openapi_tier),
    (deep(MAX_DEPTH + 1), clean_claude_output),
    (obj(**{f"p{n}": {"type": "STRING"} for n in range(MAX_NODES + 1)}), json_tier),
    (doubling(40), openapi_tier),
    (doubling_unions(40), json_tier),
    (doubling_unions(40), clean_claude_output),
]


@pytest.mark.parametrize(("schema", "clean"), TOO_BIG)
def test_what_is_too_big_passes_unchanged(schema: JsonObject, clean: Clean) -> None:
    """Also what is small and only unfolds to much; quickly."""
    assert clean(dump(schema)) == dump(schema)


def test_depth_within_the_limit_is_cleaned() -> None:
    """Sixty levels are fine."""
    assert b"minLength: 1" in json_tier(dump(deep(60)))


def test_losses_are_noted_each_time() -> None:
    """Also when the cleaned schema comes from the cache."""
    schema = dump(obj(a={"type": "string", "minLength": 7}))
    for _ in range(2):
        ctx = Context(
            client=Format.CLAUDE,
            provider=Format.GEMINI,
            client_model="m",
            model="m",
            stream=False,
            profile=default_profile(Format.GEMINI),
        )
        clean_gemini(schema, SchemaTier.JSON, ctx, "tools[0].input_schema")
        assert [str(loss) for loss in ctx.losses] == ["tools[0].input_schema degraded (schema: minLength)"]
    clean_gemini(dump(obj(a={"type": "string"})), SchemaTier.JSON, ctx)
    assert len(ctx.losses) == 1


@pytest.mark.parametrize("clean", ALL)
@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b"1", b'"x"', b"\xff", b'{"a":1e999}', b'{"type":"\\ud83d"}', b"[" * 3000]
)
def test_garbage_never_raises(clean: Clean, garbage: bytes) -> None:
    """Bytes in, bytes out; what is not JSON is the provider's to judge."""
    assert isinstance(clean(garbage), bytes)
    assert is_strict(garbage) is False


NAMES = st.sampled_from(
    ["a", "b", "type", "format", "default", "properties", "title", "required", "$ref", "enum", "a/b~"]
)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.text("ab(;:) ", max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
REFS = st.sampled_from(
    ["#", "#/$defs/a", "#/definitions/b", "#/properties/a", "#/properties/a~1b~0", "#/$defs/type/items", "#x", "x.json"]
)
TYPE_NAMES = st.sampled_from(["string", "integer", "number", "object", "array", "null", "boolean", "STRING", "any"])


def nodes(inner: st.SearchStrategy[JsonValue]) -> st.SearchStrategy[JsonValue]:
    maps = st.dictionaries(NAMES, inner, max_size=3)
    lists = st.lists(inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPE_NAMES | st.lists(TYPE_NAMES, max_size=3) | DATA,
            "description": st.sampled_from(["D", "D (minLength: 1)", ""]) | DATA,
            "title": st.just("T"),
            "format": st.sampled_from(["date-time", "uri"]),
            "enum": st.lists(DATA, max_size=3) | DATA,
            "const": DATA,
            "default": DATA,
            "minLength": st.just(1),
            "minItems": st.integers(0, 2),
            "minimum": st.integers(0, 3) | DATA,
            "exclusiveMinimum": st.integers(0, 3) | st.booleans(),
            "nullable": st.booleans(),
            "required": st.lists(NAMES, max_size=3) | st.booleans(),
            "properties": maps | DATA,
            "$defs": maps,
            "definitions": maps,
            "patternProperties": maps,
            "additionalProperties": inner | st.booleans(),
            "items": inner | lists,
            "prefixItems": lists,
            "anyOf": lists,
            "oneOf": lists,
            "allOf": lists,
            "not": inner,
            "if": inner,
            "$anchor": st.just("x"),
            "$ref": REFS,
            "x-y": DATA,
        },
    )


SCHEMAS: st.SearchStrategy[JsonValue] = st.recursive(DATA | nodes(DATA), nodes, max_leaves=12)
LAWS = settings(max_examples=25, deadline=None)

JSON_SUBSET = {
    *("$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems"),
    *("minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required"),
    "propertyOrdering",
}
OPENAPI_SUBSET = {
    *("type", "format", "title", "description", "nullable", "enum", "items", "minItems", "maxItems", "properties"),
    *("required", "minProperties", "maxProperties", "minLength", "maxLength", "pattern", "example", "anyOf"),
    *("propertyOrdering", "default", "minimum", "maximum"),
}


def inside(node: JsonValue) -> Iterator[JsonObject]:
    """All schemas of a cleaned schema; written apart from the code under test."""
    if not isinstance(node, dict):
        assert isinstance(node, bool)
        return
    yield node
    for key in ("properties", "$defs"):
        found = node.get(key, {})
        assert isinstance(found, dict)
        for child in found.values():
            yield from inside(child)
    for key in ("anyOf", "oneOf", "prefixItems"):
        listed = node.get(key, [])
        assert isinstance(listed, list)
        for child in listed:
            yield from inside(child)
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from inside(node[key])


def is_plain(value: JsonValue) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


@LAWS
@given(SCHEMAS)
def test_json_tier_stays_in_the_subset(schema: JsonValue) -> None:
    """Whatever comes, what goes is what the vendor documents."""
    for clean in (json_tier, json_output):
        root = through(clean, schema)
        for node in inside(root):
            assert node.keys() <= JSON_SUBSET
            if "$ref" in node:
                assert all(key.startswith("$") for key in node)
            values = node.get("enum", ["x"])
            assert isinstance(values, list)
            assert values
            assert all(is_plain(value) for value in values)
            required = node.get("required", [])
            properties = node.get("properties", {})
            assert isinstance(required, list)
            assert isinstance(properties, dict)
            assert set(required) <= set(properties)


@LAWS
@given(SCHEMAS)
def test_openapi_tier_stays_in_the_subset(schema: JsonValue) -> None:
    """No lists of types, no references."""
    for clean in (openapi_tier, openapi_output):
        for node in inside(through(clean, schema)):
            assert node.keys() <= OPENAPI_SUBSET
            assert node.get("type", "OBJECT") in ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "OBJECT", "ARRAY")
            values = node.get("enum", [])
            assert isinstance(values, list)
            assert all(isinstance(value, str) for value in values)


@LAWS
@given(SCHEMAS)
def test_claude_output_stays_in_the_subset(schema: JsonValue) -> None:
    """Objects are closed, references stand alone."""
    allowed = {"type", "anyOf", "enum", "const", "description", "title", "format", "items", "minItems"}
    allowed |= {"properties", "required", "additionalProperties", "$defs", "$ref"}
    for node in inside(through(clean_claude_output, schema)):
        assert node.keys() <= allowed
        assert node.get("minItems", 0) in (0, 1)
        assert isinstance(node.get("type", ""), str)
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
        if "$ref" in node:
            assert node.keys() <= {"$ref", "$defs"}


@LAWS
@example({"nullable": True})
@example({"const": None})
@example({"items": []})
@example({"type": "string", "required": False})
@example({"enum": [], "type": ["string", "integer"]})
@example({"enum": [True], "type": ["string", "integer"]})
@example({"anyOf": [{"$ref": ""}]})
@example({"type": "string", "properties": {"a/b~": {}}, "$defs": {"a": {"$ref": "#/properties/a~1b~0"}}})
@given(SCHEMAS)
def test_cleaning_is_idempotent(schema: JsonValue) -> None:
    """Case 83: clients resend what they were given, and prompt caches compare bytes."""
    for clean in ALL:
        once = clean(dump(schema))
        assert clean(once) == once, clean


@settings(LAWS, max_examples=15)
@given(SCHEMAS)
def test_schemas_without_references_are_cleaned_as_those_with(schema: JsonValue) -> None:
    """The former are looked at with less care, which must not show."""
    assume(b"$ref" not in dump(schema))
    linked = {"p": schema, "r": {"$ref": "#/$defs/d"}}
    definitions = {"d": {"type": "string"}}
    for clean in (json_tier, openapi_tier):
        alone = through(clean, {"type": "object", "properties": {"p": schema}})["properties"]
        beside = through(clean, {"type": "object", "properties": linked, "$defs": definitions})["properties"]
        assert isinstance(alone, dict)
        assert isinstance(beside, dict)
        assert alone["p"] == beside["p"]


@pytest.mark.parametrize("escaped", [b"$ref", b"\\u0024ref", b"$\\u0072ef"])
def test_references_are_seen_however_they_are_spelled(escaped: bytes) -> None:
    """JSON lets clients escape what they like."""
    schema = b'{"type":"object","properties":{"a":{"%b":"#/$defs/d"}},"$defs":{"d":{"type":"string"}}}' % escaped

    assert json.loads(json_tier(schema))["properties"]["a"] == {"$ref": "#/$defs/d"}
    assert json.loads(openapi_tier(schema))["properties"]["a"] == {"type": "STRING"}


def test_a_format_that_is_no_word_is_told() -> None:
    """Strangers write schemas; this one ended a request with an error of ours."""
    cleaned = through(clean_claude_output, obj(a={"type": "string", "format": {"x": 1}}))

    assert isinstance(properties := cleaned["properties"], dict)
    assert isinstance(found := properties["a"], dict)
    assert "format" not in found
    assert found["type"] == "string"


@LAWS
@given(st.lists(NAMES, min_size=1, unique=True))
def test_names_of_properties_survive(names: list[str]) -> None:
    """A property may be called anything."""
    schema = obj(**{name: {"type": "string"} for name in names})
    for clean in (json_tier, openapi_tier, clean_claude_output, repair_root, from_openapi):
        properties = through(clean, schema)["properties"]
        assert isinstance(properties, dict)
        assert list(properties) == names
