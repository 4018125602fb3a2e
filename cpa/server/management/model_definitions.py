"""``GET /model-definitions/{channel}``: what is known of a provider's models without asking it (proxy 6.7)."""

from collections.abc import Sequence

import trio

from cpa.formats.models import ModelCard
from cpa.models.catalogue import catalogue
from cpa.models.shapes import CHANNELS
from cpa.server.management.calls import Answer, ManagementCall, error_answer, json_answer
from cpa.types import JsonObject, JsonValue


async def definitions(call: ManagementCall) -> Answer:
    """The shipped catalogue of a channel, or what plugins say that their provider has."""
    await trio.lowlevel.checkpoint()
    channel = call.params["channel"].strip().lower()
    cards = _cards(call, channel)
    if not cards:
        return error_answer(400, "unknown channel")
    models: list[JsonValue] = [definition(card) for card in sorted(cards, key=lambda card: card.id)]
    return json_answer({"channel": channel, "models": models})


def _cards(call: ManagementCall, channel: str) -> Sequence[ModelCard]:
    known = catalogue().get(CHANNELS.get(channel, channel), ())
    if known or call.plugins is None:
        return known
    of_plugins = (group for group in call.plugins.accounts.snapshot.models if group.provider == channel)
    return tuple({card.id: card for group in of_plugins for card in group.cards}.values())


def definition(card: ModelCard) -> JsonObject:
    """A model with every fact that somebody stated (proxy 2.1)."""
    known: JsonObject = {
        "created": card.created,
        "owned_by": card.owned_by,
        "type": card.type,
        "display_name": card.display_name,
        "version": card.version,
        "description": card.description,
        "inputTokenLimit": card.input_token_limit,
        "outputTokenLimit": card.output_token_limit,
        "supportedGenerationMethods": [*card.methods],
        "context_length": card.context_length,
        "max_completion_tokens": card.max_completion_tokens,
    }
    return {"id": card.id, "object": "model", **{name: value for name, value in known.items() if value}}
