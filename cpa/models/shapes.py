"""What credentials serve, worked out once for all that serve the same (proxy 2.3). Pure.

Ten thousand keys of one provider differ in their keys, not in their models: they are one `Shape`. What a registry costs
depends on how many shapes there are; who the credentials are is only asked when somebody wants a model.
"""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs

from cpa.config.schema import ModelEntry, OAuthModelAlias
from cpa.credentials.model import FROM_FILE, Credential
from cpa.formats.models import ModelCard
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

CHANNELS: Mapping[str, str] = {"xai": "codex", "gemini-interactions": "gemini", "vertex": "gemini"}
"""Providers that share another one's catalogue."""
NOTHING_EXCLUDED: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})
IMAGE_TYPE: Final = "openai-image"
"""Type of models that make pictures; text routes do not offer them."""

Names: TypeAlias = Mapping[str, Sequence[Offer]]
"""What clients write, to the models behind it: several of one credential are a pool."""


@attrs.define(eq=False)
class Shape:
    """Credentials of one provider that serve the same models under the same names.

    Attributes:
      members: (place among all credentials, credential), in that order.
    """

    provider: str
    names: Names
    members: list[tuple[int, Credential]] = attrs.field(factory=list)


@attrs.define(eq=False, kw_only=True)
class Shaper:
    """Sorts credentials into shapes.

    Args:
      own: models of one credential, by its id. shared: models for all credentials of a provider.
      excluded, aliases: by provider, for what was read from files.
    """

    _own: Mapping[str, Sequence[ModelCard]]
    _shared: Mapping[str, Sequence[ModelCard]]
    _excluded: Mapping[str, Sequence[str]] = NOTHING_EXCLUDED
    _aliases: Mapping[str, Sequence[OAuthModelAlias]] = NO_ALIASES
    _force_prefix: bool = False
    _shapes: dict[Hashable, Shape] = attrs.field(factory=dict, init=False)
    _served: dict[Hashable, tuple[Offer, ...]] = attrs.field(factory=dict, init=False)
    _interned: dict[int, tuple[object, int]] = attrs.field(factory=dict, init=False)
    _places: dict[Hashable, int] = attrs.field(factory=dict, init=False)

    def add(self, place: int, credential: Credential) -> None:
        """One more credential that is in use."""
        served = (
            credential.provider,
            credential.source,
            credential.kind,
            self._intern(credential.models),
            self._intern(credential.excluded_models),
            self._intern(credential.aliases),
            self._intern(self._own.get(credential.id)),
        )
        key = (served, credential.prefix)
        shape = self._shapes.get(key)
        if shape is None:
            offers = self._served.get(served)
            if offers is None:
                offers = self._served[served] = tuple(self._offers(credential))
            names = names_of(offers, credential.prefix, force_prefix=self._force_prefix)
            shape = self._shapes[key] = Shape(credential.provider, names)
        shape.members.append((place, credential))

    def shapes(self) -> tuple[Shape, ...]:
        """In the order of their first members."""
        return tuple(self._shapes.values())

    def _intern(self, value: Sequence[object] | None) -> int:
        """A number that equal values share. Comparing long lists by content is done once for each object."""
        if not value:
            return -1 if value is None else 0
        known = self._interned.get(id(value))
        if known is None:
            content = tuple(value)
            number = self._places.setdefault(content, len(self._places) + 1)
            known = self._interned[id(value)] = (value, number)  # kept, so that its id stays its own
        return known[1]

    def _offers(self, credential: Credential) -> Iterator[Offer]:
        of_file = credential.source == FROM_FILE
        without = tuple(self._excluded.get(credential.provider, ())) if of_file else ()
        found = offers(credential, own=self._own.get(credential.id), shared=self._shared.get(credential.provider, ()))
        left = (offer for offer in found if not excluded(offer.id, without))
        return with_aliases(left, aliases_of(credential, self._aliases))


def names_of(found: Iterable[Offer], prefix: str, *, force_prefix: bool) -> Names:
    """*found* by the names that clients write. Of several offers under one name the first counts; those that the
    operator configured under one id are a pool, in which every model of the provider stands once."""
    names: dict[str, list[Offer]] = {}
    for offer in found:
        for name in visible_names(offer.id, prefix, force_prefix=force_prefix):
            group = names.setdefault(name, [])
            if group:
                joins = offer.configured and group[0].configured and offer.id == group[0].id
                if not joins or any(offer.upstream_name == other.upstream_name for other in group):
                    continue
            group.append(offer)
    return names


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
