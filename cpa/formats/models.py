"""Model lists and single models in the shapes of OpenAI, Claude and Gemini clients (proxy.md 1.10)."""

from collections.abc import Iterable
from datetime import UTC, datetime

import attrs

from cpa.formats.json import encode
from cpa.types import JsonObject, JsonValue

DEFAULT_INPUT_TOKENS = 200_000
DEFAULT_OUTPUT_TOKENS = 64_000
"""What Claude clients are told of models whose limits nobody stated."""
DEFAULT_METHODS = ("generateContent",)


@attrs.frozen(kw_only=True)
class ModelCard:
    """What a client may know of one model.

    Attributes:
      id: the name that clients request.
      created: Unix seconds, 0 = unknown.
      context_length, max_completion_tokens: in tokens, as OpenAI-like sources state them; 0 = unknown.
      input_token_limit, output_token_limit: in tokens, as Gemini states them; 0 = take the two above.
      methods: Gemini's `supportedGenerationMethods`; empty = its default.
      input_modalities, output_modalities: e.g. ``("TEXT", "IMAGE")``; empty = unknown.
      type: kind of source, e.g. ``claude``; informative.
    """

    id: str
    created: int = 0
    owned_by: str = ""
    display_name: str = ""
    description: str = ""
    version: str = ""
    context_length: int = 0
    max_completion_tokens: int = 0
    input_token_limit: int = 0
    output_token_limit: int = 0
    methods: tuple[str, ...] = ()
    input_modalities: tuple[str, ...] = ()
    output_modalities: tuple[str, ...] = ()
    type: str = ""

    @property
    def input_tokens(self) -> int:
        """The larger context that any source stated; 0 = unknown."""
        return self.context_length or self.input_token_limit

    @property
    def output_tokens(self) -> int:
        """The limit of an answer; 0 = unknown."""
        return self.max_completion_tokens or self.output_token_limit

    @property
    def title(self) -> str:
        """Name for people."""
        return self.display_name or self.id


def openai_list(cards: Iterable[ModelCard]) -> bytes:
    """`GET /v1/models` for OpenAI clients, by id."""
    data: list[JsonValue] = [_openai(card) for card in sorted(cards, key=_by_id)]
    return encode({"object": "list", "data": data})


def openai_model(card: ModelCard) -> bytes:
    """`GET /v1/models/{id}` for OpenAI clients."""
    return encode(_openai(card))


def claude_list(cards: Iterable[ModelCard]) -> bytes:
    """`GET /v1/models` for Claude clients, by display name, then id; always one page."""
    ordered = sorted(cards, key=lambda card: (card.title, card.id))
    data: list[JsonValue] = [_claude(card) for card in ordered]
    first, last = (ordered[0].id, ordered[-1].id) if ordered else (None, None)
    return encode({"data": data, "has_more": False, "first_id": first, "last_id": last})


def claude_model(card: ModelCard) -> bytes:
    """`GET /v1/models/{id}` for Claude clients."""
    return encode(_claude(card))


def gemini_list(cards: Iterable[ModelCard]) -> bytes:
    """`GET /v1beta/models`, by id."""
    models: list[JsonValue] = [_gemini(card) for card in sorted(cards, key=_by_id)]
    return encode({"models": models})


def gemini_model(card: ModelCard) -> bytes:
    """`GET /v1beta/models/{name}`."""
    return encode(_gemini(card))


def gemini_not_found() -> bytes:
    """Body of the 404 for a name that `GET /v1beta/models/{name}` does not know."""
    return b'{"error":{"message":"Not Found","type":"not_found"}}'


def _by_id(card: ModelCard) -> str:
    return card.id


def _openai(card: ModelCard) -> JsonObject:
    model: JsonObject = {"id": card.id, "object": "model"}
    known: JsonObject = {
        "created": card.created,
        "owned_by": card.owned_by,
        "display_name": card.display_name,
        "context_length": card.input_tokens,
        "max_completion_tokens": card.output_tokens,
    }
    model.update({name: value for name, value in known.items() if value})
    return model


def _claude(card: ModelCard) -> JsonObject:
    model: JsonObject = {"id": card.id, "object": "model", "type": "model"}
    if card.owned_by:
        model["owned_by"] = card.owned_by
    model["display_name"] = card.title
    # Required by the vendor's client library, so the epoch stands for "unknown".
    model["created_at"] = datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    model["lifecycle"] = "active"  # required likewise; whoever configured a model means to use it
    model["max_input_tokens"] = card.input_tokens or DEFAULT_INPUT_TOKENS
    model["max_tokens"] = card.output_tokens or DEFAULT_OUTPUT_TOKENS
    return model


def _gemini(card: ModelCard) -> JsonObject:
    model: JsonObject = {"name": f"models/{card.id.removeprefix('models/')}"}
    known: JsonObject = {
        "version": card.version,
        "displayName": card.title,
        "description": card.description,
        "inputTokenLimit": card.input_token_limit or card.context_length,
        "outputTokenLimit": card.output_token_limit or card.max_completion_tokens,
    }
    model.update({name: value for name, value in known.items() if value})
    model["supportedGenerationMethods"] = list(card.methods or DEFAULT_METHODS)
    if card.input_modalities:
        model["supportedInputModalities"] = list(card.input_modalities)
    if card.output_modalities:
        model["supportedOutputModalities"] = list(card.output_modalities)
    return model
