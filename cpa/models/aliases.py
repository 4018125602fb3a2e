"""What stands between the name that a client writes and the name that its provider gets (proxy 2.3 to 2.5).

An `Offer` is one model as one credential serves it. Names come about in this order: the operator's ``alias`` of a
configured model, or the catalogue's or a plugin's own id; then, for credentials that were read from files, the aliases
of the file or of ``oauth-model-alias``; prefixes last (`registry`). Several configured models under one alias are a
pool: several offers of one id.

A name that the operator configured may end with a thinking suffix, ``gpt-5(high)``. It is a setting and not part of
the provider's name, and counts more than what the client asks for. Only suffixes that say something are taken so: a
model that is really called ``x(beta)`` stays that.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs

from cpa.config.schema import ModelEntry, OAuthModelAlias
from cpa.credentials.model import OAUTH, Credential
from cpa.formats.models import ModelCard
from cpa.formats.thinking import Thinking, split_suffix

NO_ALIASES: Final[Mapping[str, Sequence[OAuthModelAlias]]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Offer:
    """A model as one credential serves it.

    Attributes:
      id: what clients write, without prefix.
      upstream_name: what the provider gets, without suffix.
      thinking: what the suffix of the configured name says; None without one.
      configured: by an entry of the operator: then others of the same id join it in a pool.
      forced: answers carry `answer_name` instead of the provider's name.
    """

    id: str
    upstream_name: str
    card: ModelCard
    thinking: Thinking | None = None
    configured: bool = False
    forced: bool = False

    @property
    def answer_name(self) -> str:
        """What answers are called by: the alias, without prefix and suffix."""
        return split_configured(self.id)[0]

    @property
    def renamed(self) -> bool:
        """Clients write something else than the provider reads, so that a suffix of `id` is not part of a name."""
        return self.id != self.upstream_name


def split_configured(name: str) -> tuple[str, Thinking | None]:
    """The provider's part of a configured name, and the setting in its suffix; None when it has none that says one."""
    split = split_suffix(name)
    if split is None or split[1] is None:
        return name, None
    return split


def offer_of(card: ModelCard) -> Offer:
    """A model under its own name."""
    return Offer(id=card.id, upstream_name=card.id, card=card)


def offer_of_entry(entry: ModelEntry, card: ModelCard) -> Offer:
    """A configured model. *card*: what is known of it."""
    name, thinking = split_configured(entry.name)
    return Offer(
        id=entry.alias or entry.name,
        upstream_name=name,
        card=card,
        thinking=thinking,
        configured=True,
        forced=entry.force_mapping,
    )


def entry_of(credential: Credential, model: str) -> ModelEntry | None:
    """The operator's entry for what *credential*'s provider calls *model* (a `Candidate.model`), if there is one."""
    return next((entry for entry in credential.models if split_configured(entry.name)[0] == model), None)


def aliases_of(
    credential: Credential, by_channel: Mapping[str, Sequence[OAuthModelAlias]]
) -> tuple[OAuthModelAlias, ...]:
    """The aliases that hold for *credential*: those of its file, then, unless it is a key, those of its channel for
    whatever models and aliases the file does not mention."""
    own = credential.aliases
    if credential.kind != OAUTH:
        return own
    names = {entry.name.casefold() for entry in own}
    taken = {entry.alias.casefold() for entry in own}
    shared = (
        entry
        for entry in by_channel.get(credential.provider, ())
        if entry.name.casefold() not in names and entry.alias.casefold() not in taken
    )
    return (*own, *shared)


def with_aliases(offers: Iterable[Offer], aliases: Sequence[OAuthModelAlias]) -> Iterator[Offer]:
    """*offers* under the names that *aliases* give them.

    A model goes by its own id no more unless one of its aliases is a fork. Case does not count in an alias' ``name``,
    and its suffix is a setting. An alias that only repeats the id means something with ``force-mapping`` alone; one
    that is the id of another model gives way to it.
    """
    if not aliases:
        yield from offers
        return
    offers = tuple(offers)
    ids = {offer.id for offer in offers}
    for offer in offers:
        meant = [entry for entry in aliases if _means(entry, offer)]
        same = [entry for entry in meant if entry.alias == offer.id and entry.force_mapping]
        others = [entry for entry in meant if entry.alias not in ids]
        if not same and (not others or any(entry.fork for entry in others)):
            yield offer
        for entry in (*same, *others):
            yield _renamed(offer, entry)


def _means(entry: OAuthModelAlias, offer: Offer) -> bool:
    return offer.id.casefold() in (entry.name.casefold(), split_configured(entry.name)[0].casefold())


def _renamed(offer: Offer, entry: OAuthModelAlias) -> Offer:
    literal = entry.name.casefold() == offer.id.casefold()
    return attrs.evolve(
        offer,
        id=entry.alias,
        card=attrs.evolve(offer.card, display_name=entry.display_name or offer.card.display_name),
        thinking=(None if literal else split_configured(entry.name)[1]) or offer.thinking,
        forced=entry.force_mapping,
    )
