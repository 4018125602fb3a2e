"""Answers of the small endpoints: token counts, embeddings, lists of models."""

import struct
from base64 import b64encode
from collections.abc import Sequence

import msgspec
from msgspec.json import encode

from cpa.formats.names import Format
from cpa.testing.mock.asks import Ask
from cpa.testing.mock.script import CREATED_ISO, CREATED_UNIX, count_input
from cpa.testing.mock.text import digest_of

MODELS = (
    "mock",
    "mock-chunks-200-delay-20",
    "mock-fault-cut",
    "mock-fault-inband-error",
    "mock-fault-reset-at-3",
    "mock-fault-stall",
    "mock-first-byte-1500",
    "mock-status-429-retry-after-7",
    "mock-think",
    "mock-tool",
    "mock-tool-think",
)
"""What the lists show, sorted. Every other name works as well."""
_DIMENSIONS = 8
_MAX_DIMENSIONS = 4096
_MAX_INPUTS = 2048
_MAX_VALUES = 65_536
"""Of one answer: each costs a hash, and nobody else is served meanwhile."""


def count_full(fmt: Format, ask: Ask) -> bytes:
    """The answer of a token count in *fmt*."""
    tokens = count_input(ask)
    if fmt is Format.CLAUDE:
        return encode({"input_tokens": tokens})
    if fmt is Format.GEMINI:
        details = [{"modality": "TEXT", "tokenCount": tokens}]
        return encode({"totalTokens": tokens, "promptTokensDetails": details})
    return encode({"object": "response.input_tokens", "input_tokens": tokens})


def _vector(text: str, dimensions: int) -> list[float]:
    """Values in [-1, 1), a function of *text*, exact in single precision."""
    return [int(digest_of(text, str(at))[:4], 16) / 32768 - 1 for at in range(dimensions)]


class _EmbeddingsBody(msgspec.Struct):
    input: str | list[msgspec.Raw]
    model: str = ""
    encoding_format: str | None = None
    dimensions: int | None = None


def embeddings_full(body: bytes) -> bytes:
    """The answer of ``/embeddings``. Raises: ValueError."""
    fields = msgspec.json.decode(body, type=_EmbeddingsBody)
    dimensions = fields.dimensions or _DIMENSIONS
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"dimensions: expected 1 to {_MAX_DIMENSIONS}, got {dimensions}")
    inputs = [fields.input] if isinstance(fields.input, str) else [bytes(raw).decode() for raw in fields.input]
    if len(inputs) > _MAX_INPUTS or len(inputs) * dimensions > _MAX_VALUES:
        raise ValueError(f"input: expected at most {_MAX_INPUTS} entries and {_MAX_VALUES} values in all")
    data = []
    for index, text in enumerate(inputs):
        vector: object = _vector(text, dimensions)
        if fields.encoding_format == "base64":
            vector = b64encode(struct.pack(f"<{dimensions}f", *_vector(text, dimensions))).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(len(text) for text in inputs) // 4 + 1
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode({"object": "list", "data": data, "model": fields.model, "usage": usage})


class _BatchEmbedBody(msgspec.Struct):
    requests: list[msgspec.Raw]


def gemini_embed_full(body: bytes) -> bytes:
    """The answer of ``:embedContent``."""
    return encode({"embedding": {"values": _vector(body.decode(), _DIMENSIONS)}})


def gemini_batch_embed_full(body: bytes) -> bytes:
    """The answer of ``:batchEmbedContents``. Raises: ValueError."""
    requests = msgspec.json.decode(body, type=_BatchEmbedBody).requests
    if len(requests) > _MAX_INPUTS:
        raise ValueError(f"requests: expected at most {_MAX_INPUTS} entries, got {len(requests)}")
    return encode({"embeddings": [{"values": _vector(bytes(raw).decode(), _DIMENSIONS)} for raw in requests]})


def _openai_model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": CREATED_UNIX, "owned_by": "mock"}


def _claude_model(name: str) -> dict[str, object]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": CREATED_ISO,
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


def _gemini_model(name: str) -> dict[str, object]:
    return {
        "name": f"models/{name}",
        "version": "1",
        "displayName": name,
        "description": "A scripted model.",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    }


def models_format(target: str, headers: Sequence[tuple[bytes, bytes]]) -> Format:
    """The shape in which a model list was asked for."""
    names = {name for name, _ in headers}
    if b"anthropic-version" in names:
        return Format.CLAUDE
    if b"x-goog-api-key" in names or "/v1beta/" in target:
        return Format.GEMINI
    return Format.OPENAI


def models_full(fmt: Format, model: str) -> bytes:
    """The list, or one model if *model* is not empty; any name exists."""
    model = model.removeprefix("models/")
    if fmt is Format.CLAUDE:
        if model:
            return encode(_claude_model(model))
        data = [_claude_model(name) for name in MODELS]
        return encode({"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})
    if fmt is Format.GEMINI:
        return encode(_gemini_model(model) if model else {"models": [_gemini_model(name) for name in MODELS]})
    return encode(_openai_model(model) if model else {"object": "list", "data": [_openai_model(n) for n in MODELS]})
