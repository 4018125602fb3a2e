"""One record that is able to call one provider."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import attrs

from cpa.config.schema import ModelEntry
from cpa.jsontypes import JsonObject

FROM_CONFIG: Final = "config"
FROM_FILE: Final = "file"
"""Values of `Credential.source`."""


@attrs.frozen(kw_only=True, eq=False)
class Credential:
    """A key (or none) for one endpoint of one provider.

    Attributes:
      id: stable over restarts and reordering, never contains the key; empty = see `anonymous`.
      provider: provider key in lower case; credentials of one key share an executor.
      base_url: without a trailing slash; empty = the vendor's own.
      proxy_url: ``http``, ``https``, ``socks5`` URL, ``direct``, or empty = inherit.
      headers: sent last with every request; a value ``$Name`` copies the client's header of that name.
      models: the operator's entries, with aliases; empty = the provider's catalogue.
      source: `FROM_CONFIG` or `FROM_FILE`.
      path: absolute, of the file that it was read from; empty without one.
      virtual: one of several that a plugin made of one file; cannot be edited on its own.
      storage_json: for plugins: the JSON object that is kept for it; empty without one.
      metadata, attributes: for plugins. Not to be changed.
      next_refresh_after: a plugin's wish, with zone; None without one.
      hidden: secrets of other kinds than keys and headers.
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
    source: str = FROM_CONFIG
    path: str = ""
    virtual: bool = False
    storage_json: bytes = attrs.field(default=b"", repr=False)
    metadata: JsonObject = attrs.field(factory=dict, repr=False)
    attributes: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    next_refresh_after: datetime | None = None
    hidden: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def anonymous(self) -> bool:
        """It stands for none: an executor that is addressed without a credential."""
        return not self.id

    def secrets(self) -> tuple[str, ...]:
        """What a provider was given and nobody else may see, should the provider repeat it."""
        return (self.api_key, *(value for value in self.headers.values() if not value.startswith("$")), *self.hidden)
