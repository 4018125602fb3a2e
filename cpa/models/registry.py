"""Which model names clients may use, and who serves each of them (proxy 2.1 to 2.4)."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import attrs

from cpa.config.schema import ModelEntry
from cpa.credentials.model import FROM_FILE, Credential
from cpa.errors import NoCredential, UnknownModel
from cpa.formats.models import ModelCard
from cpa.models.catalogue import catalogue
from cpa.models.plugins import PluginModels
from cpa.types import Candidate, Executor

CHANNELS: Mapping[str, str] = {"xai": "codex", "gemini-interactions": "gemini", "vertex": "gemini"}
"""Providers that share another one's catalogue."""

NOTHING_EXCLUDED: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})
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
        plugin_models: Sequence[PluginModels] = (),
        excluded_by_provider: Mapping[str, Sequence[str]] = NOTHING_EXCLUDED,
        force_prefix: bool = False,
        created_unix: int = 0,
    ) -> None:
        """A registry of those *credentials* whose provider has one of *executors*.

        Args:
          plugin_models: in the plugins' order.
          excluded_by_provider: patterns for credentials that were read from files, beside their own.
          created_unix: stands for the age of models whose own nobody knows; strict clients want one. 0 = left out.
        """
        self._created_unix = created_unix
        self._candidates: dict[str, list[Candidate]] = {}
        self._cards: dict[str, ModelCard] = {}
        self._ages: dict[str, int] = {}  # as the catalogue knows them, nothing made up
        self._providers: set[str] = set()
        self._unpaid: dict[str, str] = {}  # listed models without candidates, and whose credential they need
        credentials = tuple(credentials)
        own, shared = sorted_out(plugin_models)
        for credential in credentials:
            executor = executors.get(credential.provider)
            of_file = credential.source == FROM_FILE
            without = tuple(excluded_by_provider.get(credential.provider, ())) if of_file else ()
            if credential.disabled or executor is None or "*" in (*credential.excluded_models, *without):
                continue
            self._providers.add(credential.provider)
            added = shared.get(credential.provider, ())
            for offer in offers(credential, own=own.get(credential.id), shared=added):
                if excluded(offer.id, without):
                    continue
                candidate = Candidate(credential=credential, model=offer.upstream_name, executor=executor)
                for name in visible_names(offer.id, credential.prefix, force_prefix=force_prefix):
                    self._register(name, candidate, offer.card)
        self._list_claims(plugin_models, executors, excluded_by_provider, {c.provider for c in credentials})
        for candidates in self._candidates.values():
            candidates.sort(key=provider_order(candidates))

    def _list_claims(
        self,
        plugin_models: Sequence[PluginModels],
        executors: Mapping[str, Executor],
        excluded_by_provider: Mapping[str, Sequence[str]],
        with_credentials: Set[str],
    ) -> None:
        """Models of plugins' executors for whose providers there is no usable credential."""
        for group in plugin_models:
            executor = executors.get(group.provider)
            if not group.claimed or executor is None or group.provider in self._providers:
                continue
            for card in group.cards:
                if card.id in self._candidates or excluded(card.id, excluded_by_provider.get(group.provider, ())):
                    continue
                if group.direct and group.provider not in with_credentials:
                    nobody = Credential(id="", provider=group.provider, label=group.plugin_id)
                    self._register(card.id, Candidate(credential=nobody, model=card.id, executor=executor), card)
                else:
                    self._unpaid.setdefault(card.id, group.provider)
                    self._list(card.id, card, group.plugin_id)
        self._providers |= {c.credential.provider for found in self._candidates.values() for c in found}

    def _register(self, name: str, candidate: Candidate, card: ModelCard) -> None:
        known = self._candidates.setdefault(name, [])
        # A second entry of one credential under one name is a pool; until pools rotate, its first entry serves.
        if all(other.credential is not candidate.credential for other in known):
            known.append(candidate)
            self._list(name, card, candidate.credential.label)

    def _list(self, name: str, card: ModelCard, owner: str) -> None:
        if name not in self._cards:
            created = card.created or self._created_unix
            self._cards[name] = attrs.evolve(card, id=name, created=created, owned_by=card.owned_by or owner)
            self._ages[name] = card.created

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """All listed models."""
        return tuple(self._cards.values())

    def card(self, name: str) -> ModelCard | None:
        """The model of that exact name."""
        return self._cards.get(name)

    def providers(self) -> tuple[str, ...]:
        """Sorted keys of the providers with a usable credential, or that need none."""
        return tuple(sorted(self._providers))

    def resolve(self, model: str, *, provider: str = "") -> tuple[Candidate, ...]:
        """See `cpa.types.ModelResolver`. ``auto``, unless a model is called so, is the newest one that writes text."""
        if model == "auto" and model not in self._candidates:
            texts = [name for name in self._candidates if self._cards[name].type != IMAGE_TYPE]
            model = max(texts, key=lambda name: (self._ages.get(name, 0), name), default=model)
        candidates = self._candidates.get(model)
        if not candidates:
            if model in self._unpaid:
                raise no_credential(provider or self._unpaid[model], model)
            raise UnknownModel(model)
        if not provider:
            return tuple(candidates)
        of_provider = tuple(c for c in candidates if c.credential.provider == provider)
        if not of_provider:
            raise no_credential(provider, model)
        return of_provider


def no_credential(provider: str, model: str) -> NoCredential:
    """Nobody can pay for *model*."""
    return NoCredential(f"auth_not_found: no auth available (providers={provider}, model={model})")


def provider_order(candidates: Iterable[Candidate]) -> Callable[[Candidate], tuple[int, str]]:
    """Providers with more credentials first, ties by name (proxy 2.4 step 4)."""
    counts: dict[str, int] = {}
    for candidate in candidates:
        counts[candidate.credential.provider] = counts.get(candidate.credential.provider, 0) + 1
    return lambda candidate: (-counts[candidate.credential.provider], candidate.credential.provider)


def offers(
    credential: Credential, *, own: Sequence[ModelCard] | None = None, shared: Sequence[ModelCard] = ()
) -> Iterator[Offer]:
    """The models that *credential* serves, its exclusions applied, before prefixes; of equal ids the first counts.

    Args:
      own: what a plugin says that it serves; None = no plugin said anything.
      shared: what plugins add to all credentials of its provider.
    """
    base = catalogue_offers(credential) if own is None else map(offer_of, own)
    for offer in (*base, *map(offer_of, shared)):
        if not excluded(offer.id, credential.excluded_models):
            yield offer


def sorted_out(
    plugin_models: Iterable[PluginModels],
) -> tuple[dict[str, list[ModelCard]], dict[str, list[ModelCard]]]:
    """Models by the id of the one credential that serves them, and by provider."""
    own: dict[str, list[ModelCard]] = {}
    shared: dict[str, list[ModelCard]] = {}
    for group in plugin_models:
        if group.credential_id:
            own.setdefault(group.credential_id, []).extend(group.cards)
        else:
            shared.setdefault(group.provider, []).extend(group.cards)
    return own, shared


def offer_of(card: ModelCard) -> Offer:
    """A model under its own name."""
    return Offer(id=card.id, upstream_name=card.id, card=card)


def catalogue_offers(credential: Credential) -> Iterable[Offer]:
    """What the operator configured for *credential*, else what is known of its provider."""
    known = {card.id: card for card in catalogue().get(CHANNELS.get(credential.provider, credential.provider), ())}
    if not credential.models:
        return map(offer_of, known.values())
    return [
        Offer(id=entry.alias or entry.name, upstream_name=entry.name, card=described(entry, known.get(entry.name)))
        for entry in credential.models
    ]


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
