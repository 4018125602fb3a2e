"""Which model names clients may use, and who serves each of them (proxy 2.1 to 2.4)."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import attrs

from cpa.config.schema import ModelEntry
from cpa.credentials.model import Credential
from cpa.errors import NoCredential, UnknownModel
from cpa.formats.models import ModelCard
from cpa.models.catalogue import catalogue
from cpa.types import Candidate, Executor

CHANNELS: Mapping[str, str] = {"xai": "codex", "gemini-interactions": "gemini", "vertex": "gemini"}
"""Providers that share another one's catalogue."""

IMAGE_TYPE = "openai-image"
"""Type of models that make pictures; text routes do not offer them."""


@attrs.frozen(kw_only=True)
class Offer:
    """A model as one credential serves it. *id* is what clients write, without prefix."""

    id: str
    upstream_name: str
    card: ModelCard


class ModelRegistry:
    """One configuration's models; immutable, a reload makes a new one. See `cpa.types.ModelResolver`.

    Attributes:
      cards: one per listed id, in no particular order.
    """

    def __init__(
        self,
        credentials: Iterable[Credential],
        executors: Mapping[str, Executor],
        *,
        force_prefix: bool = False,
        created_unix: int = 0,
    ) -> None:
        """*created_unix* stands for the age of models whose own nobody knows; strict clients want one. 0 = left out."""
        self._created_unix = created_unix
        self._candidates: dict[str, list[Candidate]] = {}
        self._cards: dict[str, ModelCard] = {}
        self._ages: dict[str, int] = {}  # as the catalogue knows them, nothing made up
        self._providers: set[str] = set()
        for credential in credentials:
            executor = executors.get(credential.provider)
            if credential.disabled or executor is None or "*" in credential.excluded_models:
                continue
            self._providers.add(credential.provider)
            for offer in offers(credential):
                candidate = Candidate(credential=credential, model=offer.upstream_name, executor=executor)
                for name in visible_names(offer.id, credential.prefix, force_prefix=force_prefix):
                    self._register(name, candidate, offer.card)
        for candidates in self._candidates.values():
            candidates.sort(key=provider_order(candidates))

    def _register(self, name: str, candidate: Candidate, card: ModelCard) -> None:
        known = self._candidates.setdefault(name, [])
        # A second entry of one credential under one name is a pool; until pools rotate, its first entry serves.
        if all(other.credential is not candidate.credential for other in known):
            known.append(candidate)
            known_card = attrs.evolve(
                card,
                id=name,
                created=card.created or self._created_unix,
                owned_by=card.owned_by or candidate.credential.label,
            )
            self._cards.setdefault(name, known_card)
            self._ages.setdefault(name, card.created)

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """All listed models."""
        return tuple(self._cards.values())

    def card(self, name: str) -> ModelCard | None:
        """The model of that exact name."""
        return self._cards.get(name)

    def providers(self) -> tuple[str, ...]:
        """Sorted keys of the providers with a usable credential."""
        return tuple(sorted(self._providers))

    def resolve(self, model: str, *, provider: str = "") -> tuple[Candidate, ...]:
        """See `cpa.types.ModelResolver`. ``auto``, unless a model is called so, is the newest one that writes text."""
        if model == "auto" and model not in self._candidates:
            texts = [name for name, card in self._cards.items() if card.type != IMAGE_TYPE]
            model = max(texts, key=lambda name: (self._ages.get(name, 0), name), default=model)
        candidates = self._candidates.get(model)
        if not candidates:
            raise UnknownModel(model)
        if not provider:
            return tuple(candidates)
        of_provider = tuple(c for c in candidates if c.credential.provider == provider)
        if not of_provider:
            raise NoCredential(f"auth_not_found: no auth available (providers={provider}, model={model})")
        return of_provider


def provider_order(candidates: Iterable[Candidate]) -> Callable[[Candidate], tuple[int, str]]:
    """Providers with more credentials first, ties by name (proxy 2.4 step 4)."""
    counts: dict[str, int] = {}
    for candidate in candidates:
        counts[candidate.credential.provider] = counts.get(candidate.credential.provider, 0) + 1
    return lambda candidate: (-counts[candidate.credential.provider], candidate.credential.provider)


def offers(credential: Credential) -> Iterable[Offer]:
    """The models that *credential* serves, exclusions applied, before prefixes."""
    known = {card.id: card for card in catalogue().get(CHANNELS.get(credential.provider, credential.provider), ())}
    if credential.models:
        found = [
            Offer(id=entry.alias or entry.name, upstream_name=entry.name, card=described(entry, known.get(entry.name)))
            for entry in credential.models
        ]
    else:
        found = [Offer(id=card.id, upstream_name=card.id, card=card) for card in known.values()]
    return [offer for offer in found if not excluded(offer.id, credential.excluded_models)]


def described(entry: ModelEntry, known: ModelCard | None) -> ModelCard:
    """What is known of a configured model: the catalogue's facts with the operator's on top."""
    card = known or ModelCard(id=entry.name)
    return attrs.evolve(
        card,
        display_name=entry.display_name or card.display_name,
        context_length=entry.max_context_length or card.context_length,
        input_token_limit=0 if entry.max_context_length else card.input_token_limit,
        input_modalities=entry.input_modalities or card.input_modalities,
        output_modalities=entry.output_modalities or card.output_modalities,
        type=IMAGE_TYPE if entry.image else card.type,
    )


def visible_names(model_id: str, prefix: str, *, force_prefix: bool) -> tuple[str, ...]:
    """The names under which clients find a model."""
    if not prefix:
        return (model_id,)
    prefixed = f"{prefix}/{model_id}"
    return (prefixed,) if force_prefix and prefix != model_id else (prefixed, model_id)


def excluded(model_id: str, patterns: Iterable[str]) -> bool:
    """*model_id* matches one of the lower-case *patterns*, in which ``*`` stands for any run of characters."""
    return any(compiled(pattern).fullmatch(model_id.lower()) for pattern in patterns)


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression of a ``*`` pattern."""
    return re.compile(".*".join(re.escape(part) for part in pattern.lower().split("*")), re.DOTALL)
