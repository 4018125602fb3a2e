"""Model lists in the shape that the asking client understands (proxy 1.10)."""

from collections.abc import Callable, Iterable

from cpa.formats import models
from cpa.formats.errors import render_error
from cpa.formats.names import Format
from cpa.models.registry import ModelRegistry
from cpa.server.routes import ClientHead

Permits = Callable[[str], bool]
"""Whether the client may use a model."""


def list_format(head: ClientHead) -> Format:
    """Whose list to answer on ``/v1/models``: told by the headers that only one vendor's clients send."""
    if head.header(b"anthropic-version") or head.header(b"user-agent").startswith(b"claude-cli"):
        return Format.CLAUDE
    if head.header(b"x-goog-api-client") or head.header(b"x-goog-api-key"):
        return Format.GEMINI
    return Format.OPENAI


def model_list(fmt: Format, cards: Iterable[models.ModelCard]) -> bytes:
    """All listed models."""
    if fmt is Format.CLAUDE:
        return models.claude_list(cards)
    if fmt is Format.GEMINI:
        return models.gemini_list(cards)
    return models.openai_list(cards)


def one_model(fmt: Format, registry: ModelRegistry, name: str, permits: Permits) -> tuple[int, bytes]:
    """Status and body for a single model; Gemini clients may write ``models/`` before its name.

    One that the client may not use does not exist for it.
    """
    card = registry.card(name) or registry.card(name.removeprefix("models/"))
    if card is not None and not permits(card.id):
        card = None
    if card is None:
        if fmt is Format.GEMINI:
            return 404, models.gemini_not_found()
        return render_error(fmt, status=404, message=f"model {name} not found", code="model_not_found", param="model")
    if fmt is Format.CLAUDE:
        return 200, models.claude_model(card)
    if fmt is Format.GEMINI:
        return 200, models.gemini_model(card)
    return 200, models.openai_model(card)
