"""One record that is able to call one provider."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import attrs

from cpa.config.schema import ModelEntry, OAuthModelAlias, RequestScopedError
from cpa.jsontypes import JsonObject

FROM_CONFIG: Final = "config"
FROM_FILE: Final = "file"
"""Values of `Credential.source`."""
API_KEY: Final = "apikey"
OAUTH: Final = "oauth"
"""Values of `Credential.kind`."""


@attrs.frozen(kw_only=True, eq=False)
class Credential:
    """A key (or none) for one endpoint of one provider.

    Attributes:
      id: stable over restarts and reordering, never contains the key; empty = see `anonymous`.
      provider: provider key in lower case; credentials of one key share an executor.
      base_url: without a trailing slash; empty = the vendor's own.
      proxy_url: ``http``, ``https``, ``socks5`` URL, ``direct``, or empty = inherit.
      headers: sent last with every request; a value ``$Name`` copies the client's header of that name.
      weight: 0..1,000,000; 0 = never chosen by weighted round-robin.
      models: the operator's entries, with aliases; empty = the provider's catalogue.
      aliases: ``model_aliases`` of its file; they come before those of ``oauth-model-alias``.
      disable_cooling, request_retry: its own setting; None = inherit the global one. *request_retry* is >= 0.
      error_rules: its own ``request-scoped-errors``, in order; the first that matches counts. For credentials of files
        (`source`) they come before ``oauth-request-scoped-errors`` of its provider.
      source: `FROM_CONFIG` or `FROM_FILE`.
      kind: `API_KEY`, or `OAUTH` for what others issue and renew; the tables of the configuration whose names begin
        with ``oauth-`` are for the latter (aliases) or for whatever is in files (exclusions, error rules).
      note: the operator's own words.
      path: absolute, of the file that it was read from; empty without one.
      virtual: one of several that a plugin made of one file; cannot be edited on its own.
      storage_json: for plugins: the JSON object that is kept for it; empty without one.
      metadata, attributes: for plugins. Not to be changed.
      next_refresh_after: a plugin's wish, with zone; None without one.
      project, location: of Google's cloud, for credentials that call models by the path of a project, with `api_key`
        as an access token; empty for all others.
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
    aliases: tuple[OAuthModelAlias, ...] = ()
    disable_cooling: bool | None = None
    request_retry: int | None = None
    error_rules: tuple[RequestScopedError, ...] = ()
    disabled: bool = False
    index: str = ""
    source: str = FROM_CONFIG
    kind: str = API_KEY
    note: str = ""
    path: str = ""
    virtual: bool = False
    storage_json: bytes = attrs.field(default=b"", repr=False)
    metadata: JsonObject = attrs.field(factory=dict, repr=False)
    attributes: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    next_refresh_after: datetime | None = None
    project: str = ""
    location: str = ""
    hidden: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def anonymous(self) -> bool:
        """It stands for none: an executor that is addressed without a credential."""
        return not self.id

    def secrets(self) -> tuple[str, ...]:
        """What a provider was given and nobody else may see, should the provider repeat it."""
        return (self.api_key, *(value for value in self.headers.values() if not value.startswith("$")), *self.hidden)
