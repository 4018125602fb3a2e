"""Which model names clients may use, and who serves each of them (proxy 2.1 to 2.5).

What names there are is known when a registry has been made; who serves a name is put together when it is first asked
for, and kept. So a registry of ten thousand credentials is made in milliseconds, which matters because each change of a
credential makes a new one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import lcm
from typing import Final

import attrs

from cpa.config.schema import OAuthModelAlias
from cpa.credentials.model import FROM_FILE, Credential
from cpa.errors import NoCredential, UnknownModel
from cpa.formats.models import ModelCard
from cpa.formats.thinking import Thinking, split_suffix
from cpa.models.aliases import NO_ALIASES, Offer, offer_of, split_configured
from cpa.models.plugins import PluginModels
from cpa.models.shapes import (
    CHANNELS,
    IMAGE_TYPE,
    NOTHING_EXCLUDED,
    Names,
    Shape,
    Shaper,
    excluded,
    offers,
    sorted_out,
)
from cpa.types import Candidate, Executor

__all__ = ["CHANNELS", "IMAGE_TYPE", "ModelRegistry", "Served", "excluded", "no_credential", "offers"]

MAX_TURNS: Final = 64
"""Orders of one pool that are kept; pools have a handful of models."""
MAX_ASKED: Final = 4096
"""Names whose candidates are kept; with more models than that they are put together again now and then."""


class Served:
    """Who serves one name: for each credential its candidates, several where they are a pool.

    Whoever indexes candidates may do so by the tuples' identity: equal resolutions are the same object.

    Attributes:
      turns: how often a pool was resolved. The only thing in a registry that changes, and it starts anew with each.
      fixed: all candidates, where nothing turns: what `candidates` gives each time. None with pools.
    """

    __slots__ = ("_groups", "_orders", "_period", "fixed", "turns")

    def __init__(self, groups: Iterable[Sequence[Candidate]]) -> None:
        """*groups*: of one credential each, not empty, best first."""
        self._groups = tuple(map(tuple, groups))
        self._period = lcm(*{len(group) for group in self._groups})
        self._orders: dict[int, tuple[Candidate, ...]] = {}
        self.turns = 0
        self.fixed: tuple[Candidate, ...] | None = None
        if self._period == 1:
            self.fixed = tuple(candidate for group in self._groups for candidate in group)

    def candidates(self) -> tuple[Candidate, ...]:
        """Those of every credential next to each other, each pool from the place where it is its turn.

        Pools turn once when every credential has had a request, not with each request: credentials take turns as well,
        and both in step would tie every credential to one model.
        """
        if self.fixed is not None:
            return self.fixed
        offset, self.turns = self.turns // len(self._groups) % self._period, self.turns + 1
        order = self._orders.get(offset)
        if order is None:
            order = tuple(candidate for group in self._groups for candidate in turned(group, offset))
            if len(self._orders) < MAX_TURNS:
                self._orders[offset] = order
        return order

    def of(self, provider: str) -> "Served | None":
        """The part of one provider; None when it has none in this."""
        groups = [group for group in self._groups if group[0].credential.provider == provider]
        return Served(groups) if groups else None


@attrs.frozen
class _Terms:
    """What the names say of one candidate, see `ModelRegistry.thinking` and `ModelRegistry.answer_name`."""

    thinking: Thinking | None = None
    answer_name: str = ""


NO_TERMS: Final = _Terms()


def turned(group: Sequence[Candidate], offset: int) -> Sequence[Candidate]:
    """*group* from the place *offset* on, and around."""
    start = offset % len(group)
    return (*group[start:], *group[:start]) if start else group


class ModelRegistry:
    """One configuration's models; a reload makes a new one. See `cpa.types.ModelResolver`.

    It does not change, except that pools turn: `Served`.
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
        self._executors = executors
        self._by_name: dict[str, list[Shape]] = {}
        self._shape_of: dict[tuple[str, str], Shape] = {}  # by credential and provider
        self._served: dict[tuple[str, str], Served | None] = {}  # by name and provider, as far as it was asked for
        self._terms_of: dict[tuple[str, str, str, str], _Terms] = {}
        self._listed: dict[str, tuple[ModelCard, str]] = {}  # card and owner
        self._cards: dict[str, ModelCard] = {}  # as far as they were asked for
        self._providers: set[str] = set()
        self._unpaid: dict[str, str] = {}  # listed models without candidates, and whose credential they need
        own, shared = sorted_out(plugin_models)
        shaper = Shaper(
            own=own,
            shared=shared,
            excluded=excluded_by_provider,
            aliases=aliases_by_provider,
            force_prefix=force_prefix,
        )
        shut = {provider for provider, patterns in excluded_by_provider.items() if "*" in patterns}
        with_credentials: set[str] = set()
        for place, credential in enumerate(credentials):
            provider = credential.provider
            with_credentials.add(provider)
            if credential.disabled or executors.get(provider) is None or "*" in credential.excluded_models:
                continue
            if provider in shut and credential.source == FROM_FILE:
                continue
            self._providers.add(provider)
            shaper.add(place, credential)
        for shape in shaper.shapes():
            self._register(shape)
        self._list_claims(plugin_models, excluded_by_provider, with_credentials)

    def _register(self, shape: Shape) -> None:
        owner = shape.members[0][1].label
        for _, credential in shape.members:
            self._shape_of[credential.id, credential.provider] = shape
        for name, found in shape.names.items():
            self._by_name.setdefault(name, []).append(shape)
            self._listed.setdefault(name, (found[0].card, owner))

    def _list_claims(
        self,
        plugin_models: Sequence[PluginModels],
        excluded_by_provider: Mapping[str, Sequence[str]],
        with_credentials: set[str],
    ) -> None:
        """Models of plugins' executors for whose providers there is no usable credential."""
        direct: dict[str, dict[str, list[Offer]]] = {}
        nobody: dict[str, Credential] = {}
        for group in plugin_models:
            if not group.claimed or self._executors.get(group.provider) is None or group.provider in self._providers:
                continue
            for card in group.cards:
                if card.id in self._by_name or excluded(card.id, excluded_by_provider.get(group.provider, ())):
                    continue
                self._listed.setdefault(card.id, (card, group.plugin_id))
                if group.direct and group.provider not in with_credentials:
                    nobody.setdefault(group.provider, Credential(id="", provider=group.provider, label=group.plugin_id))
                    direct.setdefault(group.provider, {}).setdefault(card.id, [offer_of(card)])
                else:
                    self._unpaid.setdefault(card.id, group.provider)
        taken: set[str] = set()
        for provider, names in direct.items():  # of several plugins that offer one model the first counts
            left = {name: found for name, found in names.items() if name not in taken}
            taken |= left.keys()
            self._register(Shape(provider, left, [(0, nobody[provider])]))
        self._providers |= direct.keys()

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """All listed models, one per id, in no particular order."""
        return tuple(self._card(name) for name in self._listed)

    def card(self, name: str) -> ModelCard | None:
        """The model of that exact name."""
        return self._card(name) if name in self._listed else None

    def _card(self, name: str) -> ModelCard:
        found = self._cards.get(name)
        if found is None:
            card, owner = self._listed[name]
            created = card.created or self._created_unix
            found = attrs.evolve(card, id=name, created=created, owned_by=card.owned_by or owner)
            self._cards[name] = found
        return found

    def models_of(self, credential: Credential) -> tuple[ModelCard, ...]:
        """What *credential* serves, under clients' names, by name; nothing when it is out of use."""
        shape = self._shape_of.get((credential.id, credential.provider))
        return tuple(self._card(name) for name in sorted(shape.names)) if shape is not None else ()

    def shapes_of(self, name: str) -> Sequence[Shape]:
        """Who serves exactly *name*, by what they serve; none for a model whose provider has no usable credential."""
        return tuple(self._by_name.get(name, ()))

    def executor_of(self, provider: str) -> Executor | None:
        """Who executes for *provider*."""
        return self._executors.get(provider)

    def names_of(self, credential: Credential) -> Names:
        """The same names, with the models behind each; several are a pool."""
        shape = self._shape_of.get((credential.id, credential.provider))
        return shape.names if shape is not None else {}

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
        known = self._served.get((model, provider))  # under that very name, which most clients write
        if known is not None:
            return known.fixed or known.candidates()
        needed = ""
        for name in self._names(model):
            found = self._served_by(name, provider)
            if found is not None:
                return found.candidates()
            if name in self._by_name or name in self._unpaid:
                needed = needed or provider or self._unpaid[name]
        if needed:
            raise no_credential(needed, model)
        raise UnknownModel(model)

    def _served_by(self, name: str, provider: str = "") -> Served | None:
        """Who serves exactly *name*, of *provider* if one is given; providers with more credentials first, then by key
        (proxy 2.4 step 4)."""
        key = (name, provider)
        if key in self._served:
            return self._served[key]
        shapes = self._by_name.get(name)
        found: Served | None = None
        if provider and shapes:
            everybody = self._served_by(name)
            found = everybody.of(provider) if everybody is not None else None
        elif shapes:
            found = Served(self._groups(name, shapes))
        if shapes:  # what nobody serves is not remembered: clients may ask for anything
            if len(self._served) >= MAX_ASKED:
                self._served.clear()
            self._served[key] = found
        return found

    def _groups(self, name: str, shapes: Sequence[Shape]) -> Iterator[tuple[Candidate, ...]]:
        counts: dict[str, int] = {}
        for shape in shapes:
            counts[shape.provider] = counts.get(shape.provider, 0) + len(shape.members)
        for provider in sorted(counts, key=lambda provider: (-counts[provider], provider)):
            executor = self._executors[provider]
            members = [
                (place, credential, shape.names[name])
                for shape in shapes
                if shape.provider == provider
                for place, credential in shape.members
            ]
            members.sort(key=lambda member: member[0])
            for _, credential, found in members:
                yield tuple(
                    Candidate(credential=credential, model=offer.upstream_name, executor=executor) for offer in found
                )

    def thinking(self, candidate: Candidate, model: str) -> Thinking | None:
        """What the names say of reasoning when *candidate* serves *model*, from whose resolution it comes.

        The suffix of the configured name, else that of *model*; None when neither says anything, and when the suffix is
        part of the name that the provider knows.
        """
        return self._known_terms(candidate, model).thinking

    def answer_name(self, candidate: Candidate, model: str) -> str:
        """The name that answers shall carry when *candidate* serves *model*; empty = the provider's (proxy 2.4)."""
        return self._known_terms(candidate, model).answer_name

    def _known_terms(self, candidate: Candidate, model: str) -> _Terms:
        """`_terms`, which are kept for names that are registered: clients may write any suffix behind them."""
        key = (candidate.credential.id, candidate.credential.provider, candidate.model, model)
        found = self._terms_of.get(key)
        if found is None:
            found = self._terms(candidate, model)
            if model in self._by_name:
                if len(self._terms_of) >= MAX_ASKED:
                    self._terms_of.clear()
                self._terms_of[key] = found
        return found

    def _terms(self, candidate: Candidate, model: str) -> _Terms:
        name, offer = self._offer(candidate, model)
        if offer is None:
            return NO_TERMS
        thinking = offer.thinking
        if thinking is None and (name != model or offer.renamed):
            thinking = split_configured(model)[1]
        return _Terms(thinking, offer.answer_name if offer.forced else "")

    def _offer(self, candidate: Candidate, model: str) -> tuple[str, Offer | None]:
        """What *candidate* was made of, and the name under which *model* was found."""
        shape = self._shape_of.get((candidate.credential.id, candidate.credential.provider))
        names = shape.names if shape is not None else {}
        for name in self._names(model):
            for offer in names.get(name, ()):
                if offer.upstream_name == candidate.model:
                    return name, offer
        return model, None

    def _names(self, model: str) -> Iterator[str]:
        """Names under which *model* may be registered, best first."""
        yield model
        split = split_suffix(model)
        if split is not None:
            yield split[0]
        if "auto" in (model, split and split[0]) and "auto" not in self._by_name:
            texts = [name for name in self._by_name if self._listed[name][0].type != IMAGE_TYPE]
            if texts:
                # As the catalogue knows their ages, nothing made up.
                yield max(texts, key=lambda name: (self._listed[name][0].created, name))


def no_credential(provider: str, model: str) -> NoCredential:
    """Nobody can pay for *model*."""
    return NoCredential(f"auth_not_found: no auth available (providers={provider}, model={model})")
