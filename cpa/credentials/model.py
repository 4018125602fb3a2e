"""One record that is able to call one provider."""

from collections.abc import Mapping

import attrs

from cpa.config.schema import ModelEntry


@attrs.frozen(kw_only=True, eq=False)
class Credential:
    """A key (or none) for one endpoint of one provider.

    Attributes:
      id: stable over restarts and reordering, never contains the key.
      provider: provider key in lower case; credentials of one key share an executor.
      base_url: without a trailing slash; empty = the vendor's own.
      proxy_url: ``http``, ``https``, ``socks5`` URL, ``direct``, or empty = inherit.
      headers: sent last with every request; a value ``$Name`` copies the client's header of that name.
      models: the operator's entries, with aliases; empty = the provider's catalogue.
    """

    id: str
    provider: str
    label: str
    api_key: str = attrs.field(default="", repr=False)
    base_url: str = ""
    prefix: str = ""
    proxy_url: str = attrs.field(default="", repr=False)
    priority: int = 0
    weight: int = 1
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    models: tuple[ModelEntry, ...] = ()
    excluded_models: tuple[str, ...] = ()
    disabled: bool = False
    index: str = ""

    def secrets(self) -> tuple[str, ...]:
        """What a provider was given and nobody else may see, should the provider repeat it."""
        return (self.api_key, *(value for value in self.headers.values() if not value.startswith("$")))
