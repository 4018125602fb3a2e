"""Model lists in three shapes."""

import json

from cpa.formats.models import (
    ModelCard,
    claude_list,
    claude_model,
    gemini_list,
    gemini_model,
    gemini_not_found,
    openai_list,
    openai_model,
)

SONNET = ModelCard(
    id="claude-sonnet-4-6",
    created=1771286400,
    owned_by="anthropic",
    display_name="Claude Sonnet 4.6",
    context_length=1_000_000,
    max_completion_tokens=64_000,
)
FLASH = ModelCard(
    id="gemini-2.5-flash",
    version="2.5",
    display_name="Gemini 2.5 Flash",
    description="fast",
    input_token_limit=1_048_576,
    output_token_limit=65_536,
    methods=("generateContent", "countTokens"),
    input_modalities=("TEXT", "IMAGE"),
    output_modalities=("TEXT",),
)
PLAIN = ModelCard(id="aaa")
CARDS = [SONNET, FLASH, PLAIN]


def test_openai_shape_is_sorted_and_leaves_out_what_is_unknown() -> None:
    assert json.loads(openai_list(CARDS)) == {
        "object": "list",
        "data": [
            {"id": "aaa", "object": "model"},
            {
                "id": "claude-sonnet-4-6",
                "object": "model",
                "created": 1771286400,
                "owned_by": "anthropic",
                "display_name": "Claude Sonnet 4.6",
                "context_length": 1_000_000,
                "max_completion_tokens": 64_000,
            },
            {
                "id": "gemini-2.5-flash",
                "object": "model",
                "display_name": "Gemini 2.5 Flash",
                "context_length": 1_048_576,
                "max_completion_tokens": 65_536,
            },
        ],
    }
    assert json.loads(openai_model(PLAIN)) == {"id": "aaa", "object": "model"}


def test_claude_shape_is_sorted_by_display_name() -> None:
    listed = json.loads(claude_list(CARDS))
    assert [entry["id"] for entry in listed["data"]] == ["claude-sonnet-4-6", "gemini-2.5-flash", "aaa"]
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "claude-sonnet-4-6", "aaa")
    assert listed["data"][0] == {
        "id": "claude-sonnet-4-6",
        "object": "model",
        "type": "model",
        "owned_by": "anthropic",
        "display_name": "Claude Sonnet 4.6",
        "created_at": "2026-02-17T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 1_000_000,
        "max_tokens": 64_000,
    }
    assert json.loads(claude_model(PLAIN)) == {
        "id": "aaa",
        "object": "model",
        "type": "model",
        "display_name": "aaa",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


def test_gemini_shape_is_sorted_by_id() -> None:
    listed = json.loads(gemini_list(CARDS))
    assert [entry["name"] for entry in listed["models"]] == [
        "models/aaa",
        "models/claude-sonnet-4-6",
        "models/gemini-2.5-flash",
    ]
    assert json.loads(gemini_model(FLASH)) == {
        "name": "models/gemini-2.5-flash",
        "version": "2.5",
        "displayName": "Gemini 2.5 Flash",
        "description": "fast",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
        "supportedInputModalities": ["TEXT", "IMAGE"],
        "supportedOutputModalities": ["TEXT"],
    }
    assert listed["models"][0] == {
        "name": "models/aaa",
        "displayName": "aaa",
        "supportedGenerationMethods": ["generateContent"],
    }


def test_empty_lists_are_lists() -> None:
    assert json.loads(openai_list([])) == {"object": "list", "data": []}
    assert json.loads(claude_list([])) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert json.loads(gemini_list([])) == {"models": []}


def test_an_unknown_gemini_model_is_told_so() -> None:
    assert json.loads(gemini_not_found()) == {"error": {"message": "Not Found", "type": "not_found"}}
