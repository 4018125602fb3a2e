"""Which models there are and who serves them, and which chains lead there."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final

import trio

from cpa.credentials.model import Credential
from cpa.errors import UnsupportedFormat
from cpa.formats.models import ModelCard
from cpa.formats.names import Format
from cpa.formats.redaction import mask
from cpa.models.registry import ModelRegistry
from cpa.models.shapes import Shape
from cpa.pipeline.chains import Compiled
from cpa.scheduling.health import HealthBook
from cpa.scheduling.scheduler import route_model
from cpa.server.management.calls import Answer, ManagementCall, json_answer
from cpa.types import Executor, JsonObject, JsonValue

MAX_CREDENTIALS: Final = 50
"""Listed of one model and provider; the rest is a number."""
CHEAP: Final = 64
"""Models between two looks at what else there is to do."""


async def routes(call: ManagementCall) -> Answer:
    """``GET /routes``: every listed model with its other names and its providers, and the chains in their order.

    A credential is ``cooling`` while it is not asked for that model; disabled ones serve nothing and are left out.
    """
    runtime = call.runtime
    registry, scheduler = runtime.models, runtime.scheduler
    health = None if scheduler is None else scheduler.scheduling.health
    cards = sorted(registry.cards, key=lambda card: card.id)
    same = _same(registry, cards)
    models: list[JsonValue] = []
    for number, card in enumerate(cards):
        if number % CHEAP == CHEAP - 1:
            await trio.lowlevel.checkpoint()
        models.append(
            {
                "id": card.id,
                "display-name": card.title,
                "owned-by": card.owned_by,
                "kind": card.type,
                "aliases": [name for name in same.get(_key(registry, card.id), ()) if name != card.id],
                "providers": list(_providers(registry, card.id, health)),
            }
        )
    chains: list[JsonValue] = [_chain(chain) for chain in runtime.services.plan.chains]
    return json_answer({"models": models, "chains": chains})


def _key(registry: ModelRegistry, name: str) -> Hashable:
    """What a name stands for: the same for its aliases."""
    return frozenset(
        (id(shape), tuple(offer.upstream_name for offer in shape.names[name])) for shape in registry.shapes_of(name)
    )


def _same(registry: ModelRegistry, cards: Iterable[ModelCard]) -> Mapping[Hashable, list[str]]:
    found: dict[Hashable, list[str]] = {}
    for card in cards:
        key = _key(registry, card.id)
        if key:
            found.setdefault(key, []).append(card.id)
    return found


def _providers(registry: ModelRegistry, name: str, health: HealthBook | None) -> Iterable[JsonObject]:
    for shape in registry.shapes_of(name):
        executor = registry.executor_of(shape.provider)
        listed = [member for _, member in shape.members[:MAX_CREDENTIALS]]
        state = _state_of(health, route_model(name))
        for upstream in dict.fromkeys(offer.upstream_name for offer in shape.names[name]):
            yield {
                "provider": shape.provider,
                "format": _format(executor),
                "model": upstream,
                "credentials": [state(credential) for credential in listed if not credential.anonymous],
                "more": _more(shape),
            }


def _more(shape: Shape) -> int:
    """Credentials that are not listed."""
    return max(0, len(shape.members) - MAX_CREDENTIALS)


def _format(executor: Executor | None) -> str:
    """What the provider is spoken to in; for a plugin's, what an OpenAI client's requests become."""
    for client in (Format.OPENAI, Format.CLAUDE, Format.GEMINI, Format.OPENAI_RESPONSE):
        try:
            return "" if executor is None else executor.wire(client).input
        except UnsupportedFormat:
            continue
    return ""


def _state_of(health: HealthBook | None, model: str) -> Callable[[Credential], JsonObject]:
    def told(credential: Credential) -> JsonObject:
        window = None if health is None else health.blocked(credential.id, model)
        return {
            "id": credential.id,
            "label": credential.label,
            "state": "ready" if window is None else "cooling",
            "until": None if window is None else round(window.until_unix, 3),
        }

    return told


def _chain(chain: Compiled) -> JsonObject:
    """A chain as it was written; keys are masked, and empty lists of steps are the standard ones."""
    match = chain.match
    return {
        "name": chain.name,
        "from": match.source,
        "to": match.target,
        "models": [pattern.pattern for pattern in match.models],
        "keys": [pattern.pattern if pattern.pattern == "*" else mask(pattern.pattern) for pattern in match.keys],
        "request": [step.label for step in chain.request],
        "response": [step.label for step in chain.response],
    }
