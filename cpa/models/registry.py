"""Which model names clients may use, and who serves each of them (proxy 2.1 to 2.5)."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import attrs

from cpa.config.schema import ModelEntry, OAuthModelAlias
from cpa.credentials.model import FROM_FILE, Credential
from cpa.errors import NoCredential, UnknownModel
from cpa.formats.models import ModelCard
from cpa.formats.thinking import Thinking, split_suffix
from cpa.models.aliases import (
    NO_ALIASES,
    Offer,
    aliases_of,
    offer_of,
    offer_of_entry,
    split_configured,
    with_aliases,
)
from cpa.models.catalogue import catalogue
from cpa.models.plugins import PluginModels
from cpa.types import Candidate, Executor

CHANNELS: Mapping[str, str] = {"xai": "codex", "gemini-interactions": "gemini", "vertex": "gemini"}
"""Providers that share another one's catalogue."""

NOTHING_EXCLUDED: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})
IMAGE_TYPE = "openai-image"
"""Type of models that make pictures; text routes do not offer them."""


class Served:
    """Who serves one name: for each credential its candidates, several where they are a pool.

    Attributes:
      turns: how often a pool was resolved. The only thing in a registry that changes, and it starts anew with each.
    """

    __slots__ = ("groups", "pooled", "turns")

    def __init__(self) -> None:
        self.groups: dict[str, list[Candidate]] = {}
        self.pooled = False
        self.turns = 0

    def add(self, candidate: Candidate) -> None:
        """One more candidate; of a credential that is here already, the next one of its pool."""
        group = self.groups.setdefault(candidate.credential.id, [])
        group.append(candidate)
        self.pooled = self.pooled or len(group) > 1

    def order(self) -> None:
        """Providers with more credentials first, ties by name (proxy 2.4 step 4)."""
        self.groups = dict(sorted(self.groups.items(), key=provider_order(self.groups.values())))

    def turned(self) -> Iterator[Candidate]:
        """The candidates of every credential next to each other, each pool from the place where it is its turn.

        Pools turn once when every credential has had a request, not with each request: credentials take turns as well,
        and both in step would tie every credential to one model.
        """
        offset, self.turns = self.turns // len(self.groups), self.turns + 1
        for group in self.groups.values():
            start = offset % len(group)
            yield from group[start:]
            yield from group[:start]


class ModelRegistry:
    """One configuration's models; a reload makes a new one. See `cpa.types.ModelResolver`.

    It does not change, except that pools turn: `Served`.

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
        aliases_by_provider: Mapping[str, Sequence[OAuthModelAlias]] = NO_ALIASES,
        force_prefix: bool = False,
        created_unix: int = 0,
    ) -> None:
        """A registry of those *credentials* whose provider has one of *executors*.

        Args:
          plugin_models: in the plugins' order.
          excluded_by_provider: patterns for credentials that were read from files, beside their own.
          aliases_by_provider: names for models of these credentials; what a file says of a model comes first.
          created_unix: stands for the age of models whose own nobody knows; strict clients want one. 0 = left out.
        """
        self._created_unix = created_unix
        self._served: dict[str, Served] = {}
        self._resolved: dict[str, tuple[Candidate, ...]] = {}  # of names that are no pools
        self._offers: dict[tuple[str, str, str], Offer] = {}  # by name, credential and provider's name
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
            found = offers(credential, own=own.get(credential.id), shared=added)
            left = (offer for offer in found if not excluded(offer.id, without))
            for offer in with_aliases(left, aliases_of(credential, aliases_by_provider)):
                candidate = Candidate(credential=credential, model=offer.upstream_name, executor=executor)
                for name in visible_names(offer.id, credential.prefix, force_prefix=force_prefix):
                    self._register(name, candidate, offer)
        self._list_claims(plugin_models, executors, excluded_by_provider, {c.provider for c in credentials})
        for name, served in self._served.items():
            served.order()
            if not served.pooled:
                self._resolved[name] = tuple(served.turned())

    def _list_claims(
        self,
        plugin_models: Sequence[PluginModels],
        executors: Mapping[str, Executor],
        excluded_by_provider: Mapping[str, Sequence[str]],
        with_credentials: Set[str],
    ) -> None:
        """Models of plugins' executors for whose providers there is no usable credential."""
        direct: set[str] = set()
        for group in plugin_models:
            executor = executors.get(group.provider)
            if not group.claimed or executor is None or group.provider in self._providers:
                continue
            for card in group.cards:
                if card.id in self._served or excluded(card.id, excluded_by_provider.get(group.provider, ())):
                    continue
                if group.direct and group.provider not in with_credentials:
                    nobody = Credential(id="", provider=group.provider, label=group.plugin_id)
                    candidate = Candidate(credential=nobody, model=card.id, executor=executor)
                    self._register(card.id, candidate, offer_of(card))
                    direct.add(group.provider)
                else:
                    self._unpaid.setdefault(card.id, group.provider)
                    self._list(card.id, card, group.plugin_id)
        # Only now: a provider without credential may have several groups.
        self._providers |= direct

    def _register(self, name: str, candidate: Candidate, offer: Offer) -> None:
        """Let *candidate* serve *name*. Of several offers of one credential under one name the first counts; those that
        the operator configured under one id are a pool, in which every model of the provider stands once."""
        served = self._served.setdefault(name, Served())
        group = served.groups.get(candidate.credential.id, ())
        key = (name, candidate.credential.id, candidate.model)
        if group:
            first = self._offers[name, candidate.credential.id, group[0].model]
            if key in self._offers or not (offer.configured and first.configured and offer.id == first.id):
                return
        self._offers[key] = offer
        served.add(candidate)
        self._list(name, offer.card, candidate.credential.label)

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
        """See `cpa.types.ModelResolver`. The exact name counts first, then the one before a thinking suffix. ``auto``,
        unless a model is called so, is the newest one that writes text.

        Candidates have the provider's name of the model, without suffix: `thinking` has what suffixes say. Those of one
        credential stand next to each other; where there are several of one, they are a pool, to be tried in that order
        before the credential is given up.
        """
        needed = ""
        for name in self._names(model):
            found = self._resolved.get(name)
            if found is None and (served := self._served.get(name)) is not None:
                found = tuple(served.turned())
            if found is not None and provider:
                found = tuple(candidate for candidate in found if candidate.credential.provider == provider)
            if found:
                return found
            if found is not None or name in self._unpaid:
                needed = needed or provider or self._unpaid[name]
        if needed:
            raise no_credential(needed, model)
        raise UnknownModel(model)

    def thinking(self, candidate: Candidate, model: str) -> Thinking | None:
        """What the names say of reasoning when *candidate* serves *model*, from whose resolution it comes.

        The suffix of the configured name, else that of *model*; None when neither says anything, and when the suffix is
        part of the name that the provider knows.
        """
        name, offer = self._offer(candidate, model)
        if offer is not None and offer.thinking is not None:
            return offer.thinking
        if offer is None or (name == model and not offer.renamed):
            return None
        return split_configured(model)[1]

    def answer_name(self, candidate: Candidate, model: str) -> str:
        """The name that answers shall carry when *candidate* serves *model*; empty = the provider's (proxy 2.4)."""
        _, offer = self._offer(candidate, model)
        return offer.answer_name if offer is not None and offer.forced else ""

    def _offer(self, candidate: Candidate, model: str) -> tuple[str, Offer | None]:
        """What *candidate* was made of, and the name under which *model* was found."""
        for name in self._names(model):
            offer = self._offers.get((name, candidate.credential.id, candidate.model))
            if offer is not None:
                return name, offer
        return model, None

    def _names(self, model: str) -> Iterator[str]:
        """Names under which *model* may be registered, best first."""
        yield model
        split = split_suffix(model)
        if split is not None:
            yield split[0]
        if "auto" in (model, split and split[0]) and "auto" not in self._served:
            texts = [name for name in self._served if self._cards[name].type != IMAGE_TYPE]
            if texts:
                yield max(texts, key=lambda name: (self._ages.get(name, 0), name))


def no_credential(provider: str, model: str) -> NoCredential:
    """Nobody can pay for *model*."""
    return NoCredential(f"auth_not_found: no auth available (providers={provider}, model={model})")


def provider_order(groups: Iterable[Sequence[Candidate]]) -> Callable[[tuple[str, list[Candidate]]], tuple[int, str]]:
    """The key by which credentials with their candidates are sorted."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[group[0].credential.provider] = counts.get(group[0].credential.provider, 0) + 1
    return lambda item: (-counts[item[1][0].credential.provider], item[1][0].credential.provider)


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


def catalogue_offers(credential: Credential) -> Iterable[Offer]:
    """What the operator configured for *credential*, else what is known of its provider."""
    known = {card.id: card for card in catalogue().get(CHANNELS.get(credential.provider, credential.provider), ())}
    if not credential.models:
        return map(offer_of, known.values())
    return [
        offer_of_entry(entry, described(entry, known.get(split_configured(entry.name)[0])))
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
