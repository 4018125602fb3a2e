"""Which plugin is asked about what, in which order things stand, and what is told of changes. Pure but for logs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from cpa.abi.wire import ModelInfo
from cpa.credentials.files import CredentialFile
from cpa.credentials.model import Credential
from cpa.host.account_calls import PRESENTED_AS
from cpa.host.account_snapshot import AccountsSnapshot
from cpa.host.plugin import LivePlugin
from cpa.host.plugin_models import StaticModels
from cpa.models.plugins import PluginModels
from cpa.observability.log import get_logger

log = get_logger()

NAMES_TOLD: Final = 5
"""Ids in one line of the log."""


def tell_changes(old: AccountsSnapshot, new: AccountsSnapshot) -> None:
    """Log which credentials came, changed and went, by id."""
    before = {credential.id: credential for credential in old.credentials}
    now = {credential.id: credential for credential in new.credentials}
    groups = {
        "added": [name for name in now if name not in before],
        "changed": [name for name, found in now.items() if name in before and before[name] is not found],
        "removed": [name for name in before if name not in now],
    }
    told = {what: names_of(names) for what, names in groups.items() if names}
    if told:
        log.info("credentials changed", total=len(now), **told)


def names_of(names: Sequence[str]) -> str:
    """Some of them; thousands may come at once."""
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return ", ".join(names[:NAMES_TOLD]) + more


def concerned(plugin: LivePlugin) -> bool:
    """Whether *plugin* has to do with credentials, models or providers."""
    can = plugin.capabilities
    return can.auth_provider or can.model_provider or can.model_registrar or can.executor


def identity(plugin: LivePlugin) -> LivePlugin:
    """Stands for the copy and the settings of *plugin*, whatever its place among others."""
    return attrs.evolve(plugin, priority=0)


def parsers(plugins: Iterable[LivePlugin], file: CredentialFile) -> Iterator[LivePlugin]:
    """Who to ask about *file*: the owner of its type; all in turn if it has none (4.3.1)."""
    wanted = PRESENTED_AS.get(file.provider, file.provider) if file.type else ""
    for plugin in plugins:
        key = plugin.identifiers.auth.lower()
        if plugin.capabilities.auth_provider and key and wanted in ("", key):
            yield plugin
            if wanted:
                return


def by_path(credential: Credential) -> tuple[str, str]:
    """The order of files: by name, case not counting."""
    name = credential.path.rpartition("/")[2]
    return name.lower(), name


def infos_of(
    groups: Iterable[PluginModels], statics: Iterable[tuple[LivePlugin, StaticModels]]
) -> Iterator[tuple[PluginModels, ModelInfo]]:
    """The models of *groups* as their plugins described them; of a provider's equal names the first counts, last."""
    by_plugin = {plugin.id: static.infos for plugin, static in statics}
    for group in reversed(list(groups)):
        names = {card.id for card in group.cards}
        for info in by_plugin[group.plugin_id]:
            if info.id in names:
                yield group, info
