"""What is known of credentials and models at one moment, as values."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

import attrs

from cpa.abi.wire import ModelInfo
from cpa.credentials.model import Credential
from cpa.models.plugins import PluginModels
from cpa.types import PluginId


@attrs.frozen(kw_only=True, eq=False)
class AccountsSnapshot:
    """Replaced as a whole, never changed.

    Attributes:
      credentials: read from files, disabled ones included, in the order of file names; ids are unique.
      models: what plugins serve beside the catalogue, in their order.
      executors: provider key to the plugin that executes it.
      infos: (provider, model) to what the plugin said of the model.
    """

    credentials: tuple[Credential, ...] = ()
    models: tuple[PluginModels, ...] = ()
    executors: Mapping[str, PluginId] = MappingProxyType({})
    infos: Mapping[tuple[str, str], ModelInfo] = MappingProxyType({})
    _by_id: Mapping[str, Credential] = attrs.field(init=False, repr=False)

    @_by_id.default
    def _index(self) -> Mapping[str, Credential]:
        return {found.id: found for found in self.credentials}

    def credential(self, credential_id: str) -> Credential | None:
        """The credential of that id."""
        return self._by_id.get(credential_id)

    def info(self, provider: str, model: str) -> ModelInfo | None:
        """What a plugin said of *model*, by the name that its provider knows."""
        return self.infos.get((provider, model))

    def same(self, other: "AccountsSnapshot") -> bool:
        """Whether nobody could tell the two apart."""
        return (
            len(self.credentials) == len(other.credentials)
            and all(mine is theirs for mine, theirs in zip(self.credentials, other.credentials, strict=True))
            and (self.models, self.executors, self.infos) == (other.models, other.executors, other.infos)
        )


@attrs.frozen(kw_only=True)
class AccountState:
    """How a credential is.

    Attributes:
      status: ``active``, ``disabled``, ``refreshing`` or ``error``.
      unavailable: whoever issued it has withdrawn it; it is not refreshed any more until it changes.
      last_refresh, next_retry_after: with zone; None = never, not at all.
    """

    status: str
    message: str = ""
    unavailable: bool = False
    last_refresh: datetime | None = None
    next_retry_after: datetime | None = None
