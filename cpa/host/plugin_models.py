"""Which plugin's models count, and which plugin executes a provider key (plugin-abi 4.2.4, 4.7.1). Pure.

The contract in short: native executors win, a provider key has one plugin, a model is claimed once, and the plugins are
taken in the order of their priority.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

import attrs
import msgspec

from cpa.abi.wire import Capabilities, ModelInfo
from cpa.formats.models import ModelCard
from cpa.host.auth_data import sensible
from cpa.host.plugin import LivePlugin
from cpa.models.plugins import PluginModels
from cpa.types import PluginId

MAX_MODELS: Final = 2000
"""Of one answer; the largest aggregator lists some 500."""
MAX_CREATED_UNIX: Final = 253_402_300_799
"""The end of the year 9999; what is beyond (milliseconds, mostly) cannot be shown as a date."""
MAX_NAME_CHARS: Final = 256
MAX_DESCRIPTION_CHARS: Final = 4096
MAX_WORDS: Final = 64
"""What is repeated in every list of models is bounded."""


class ModelScope(StrEnum):
    """``executor_model_scope``: which of a plugin's models its executor is for."""

    BOTH = "both"
    STATIC = "static"
    OAUTH = "oauth"


@attrs.frozen(kw_only=True)
class Native:
    """What needs no plugin.

    Attributes:
      providers: keys that have a native executor.
      models: names that those serve.
      credential_ids: of the configuration's credentials.
    """

    providers: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    credential_ids: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class StaticModels:
    """What a plugin said of its models that need no credential. *provider* is in lower case, empty with no models."""

    provider: str = ""
    infos: tuple[ModelInfo, ...] = ()


NO_MODELS: Final = StaticModels()


@attrs.frozen(kw_only=True)
class Claims:
    """Who serves what.

    Attributes:
      executors: provider key to the plugin that executes it.
      models: static models, claimed or added to others' providers.
    """

    executors: Mapping[str, PluginId]
    models: tuple[PluginModels, ...]


def scope_of(can: Capabilities) -> ModelScope:
    """The scope of a plugin's executor; a plugin without one has no restriction."""
    written = can.executor_model_scope.strip().lower()
    return ModelScope(written) if can.executor and written in set(ModelScope) else ModelScope.BOTH


def has_static_models(can: Capabilities) -> bool:
    """Whether to ask for models that belong to no credential."""
    return (can.model_provider or can.model_registrar) and scope_of(can) is not ModelScope.OAUTH


def serves_credentials_of(plugin: LivePlugin, provider: str, static: StaticModels) -> bool:
    """Whether to ask *plugin* for the models of a credential of *provider* (4.2.3)."""
    can = plugin.capabilities
    if not can.model_provider or scope_of(can) is ModelScope.STATIC:
        return False
    if can.auth_provider:
        return plugin.identifiers.auth.lower() == provider
    return (static.provider or plugin.identifiers.executor.lower()) == provider


def sensible_models(infos: Iterable[ModelInfo]) -> tuple[ModelInfo, ...]:
    """*infos* with trimmed ids; without blank, repeated and senseless ones, at most `MAX_MODELS`."""
    found: dict[str, ModelInfo] = {}
    for info in infos:
        name = info.id.strip()
        if sensible(name) and name not in found:
            found[name] = info if name == info.id else msgspec.structs.replace(info, id=name)
            if len(found) == MAX_MODELS:
                break
    return tuple(found.values())


def static_models(provider: str, infos: Iterable[ModelInfo]) -> StaticModels:
    """What an answer to `model.static` or `model.register` is worth."""
    provider = provider.strip().lower()
    models = sensible_models(infos)
    return StaticModels(provider=provider, infos=models) if models and sensible(provider) else NO_MODELS


def claims(plugins: Sequence[tuple[LivePlugin, StaticModels]], native: Native) -> Claims:
    """Who serves what, of *plugins* in the order of priority."""
    executors: dict[str, PluginId] = {}
    claimed: set[str] = set()
    models: list[PluginModels] = []
    for plugin, static in plugins:
        can = plugin.capabilities
        provider = static.provider or plugin.identifiers.executor.lower()
        infos = static.infos
        executes = can.executor and bool(provider) and provider not in native.providers
        if executes:
            if provider in executors:
                continue  # one plugin per provider key
            infos = tuple(info for info in infos if info.id not in claimed and info.id not in native.models)
            if static.infos and not infos:
                continue  # others serve all that it offers
            executors[provider] = plugin.id
            claimed.update(info.id for info in infos)
        if infos:
            models.append(
                PluginModels(
                    plugin_id=plugin.id,
                    provider=provider,
                    cards=cards_of(infos),
                    claimed=executes,
                    direct=executes and not can.auth_provider,
                )
            )
    return Claims(executors=executors, models=tuple(models))


def cards_of(infos: Iterable[ModelInfo]) -> tuple[ModelCard, ...]:
    """What clients may know of *infos*."""
    return tuple(map(card_of, infos))


def card_of(info: ModelInfo) -> ModelCard:
    """What clients may know of *info*. Negative numbers are unknown ones."""
    return ModelCard(
        id=info.id,
        created=info.created if 0 <= info.created <= MAX_CREATED_UNIX else 0,
        owned_by=info.owned_by.strip()[:MAX_NAME_CHARS],
        display_name=(info.display_name.strip() or info.name.strip().removeprefix("models/"))[:MAX_NAME_CHARS],
        description=info.description.strip()[:MAX_DESCRIPTION_CHARS],
        version=info.version.strip()[:MAX_NAME_CHARS],
        context_length=max(0, info.context_length),
        max_completion_tokens=max(0, info.max_completion_tokens),
        input_token_limit=max(0, info.input_token_limit),
        output_token_limit=max(0, info.output_token_limit),
        methods=tuple(_words(info.generation_methods)),
        input_modalities=tuple(_words(info.input_modalities)),
        output_modalities=tuple(_words(info.output_modalities)),
        type=info.type.strip()[:MAX_NAME_CHARS],
    )


def _words(values: Sequence[str]) -> Iterator[str]:
    return (value for value in values[:MAX_WORDS] if sensible(value))
