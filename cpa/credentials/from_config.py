"""Credentials that the configuration file names (proxy 3.2 and 3.3)."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs

from cpa.config.schema import Config, OpenAICompatibility, ProviderKeyEntry
from cpa.credentials.model import Credential

KINDS: Mapping[str, str] = {
    "gemini": "gemini_api_key",
    "gemini-interactions": "interactions_api_key",
    "claude": "claude_api_key",
    "codex": "codex_api_key",
    "xai": "xai_api_key",
    "vertex": "vertex_api_key",
}
"""Provider key to the attribute of `Config` that lists its credentials."""
COMPATIBILITY: Final = "openai-compatibility"


@attrs.frozen(kw_only=True)
class ConfigPlace:
    """Where the configuration file names a credential.

    Attributes:
      section: key of the list, ``claude-api-key``.
      index: of the entry in it.
      key: of the key in ``api-key-entries`` of that entry; None where there is no such list.
    """

    section: str
    index: int
    key: int | None = None

    def __str__(self) -> str:
        entry = f"{self.section}[{self.index}]"
        return entry if self.key is None else f"{entry}.api-key-entries[{self.key}]"


def credentials_from_config(config: Config) -> tuple[Credential, ...]:
    """Every credential of *config* in file order, ids unique."""
    return tuple(credential for credential, _ in placed_credentials(config))


def placed_credentials(config: Config) -> Iterator[tuple[Credential, ConfigPlace]]:
    """`credentials_from_config`, each with its place."""
    return _numbered(_placed(config))


def _placed(config: Config) -> Iterator[tuple[Credential, ConfigPlace]]:
    for provider, attribute in KINDS.items():
        entries: tuple[ProviderKeyEntry, ...] = getattr(config, attribute)
        for index, entry in enumerate(entries):
            yield _from_key_entry(provider, entry), ConfigPlace(section=attribute.replace("_", "-"), index=index)
    for index, compat in enumerate(config.openai_compatibility):
        if compat.disabled:
            continue
        for number, credential in enumerate(_from_compat(compat)):
            key = number if compat.api_key_entries else None
            yield credential, ConfigPlace(section=COMPATIBILITY, index=index, key=key)


def provider_key(name: str) -> str:
    """Provider key of an openai-compatibility entry (proxy 2.7)."""
    return f"openai-compatible-{name.lower()}" if name else "openai-compatibility"


def _from_key_entry(provider: str, entry: ProviderKeyEntry) -> Credential:
    headers = "\n".join(sorted(f"{name}:{value}" for name, value in entry.headers.items()))
    parts = [entry.api_key, entry.base_url, entry.proxy_url]
    if provider != "vertex":
        parts += [entry.prefix, headers]
    index = ""
    if provider in ("gemini", "claude", "codex", "xai"):
        index = auth_index(f"{provider}-api-key:{entry.base_url}+{entry.api_key}")
    elif provider == "gemini-interactions":
        index = auth_index(f"interactions-api-key:{entry.base_url}+{entry.api_key}")
    return Credential(
        id=f"{provider}:apikey:{_digest(provider, *parts)}",
        provider=provider,
        label=f"{provider}-apikey",
        api_key=entry.api_key,
        base_url=entry.base_url,
        prefix=entry.prefix,
        proxy_url=entry.proxy_url,
        priority=entry.priority,
        weight=entry.weight,
        headers=entry.headers,
        models=entry.models,
        excluded_models=entry.excluded_models,
        disable_cooling=entry.disable_cooling,
        request_retry=entry.request_retry,
        error_rules=entry.request_scoped_errors,
        index=index,
    )


def _from_compat(entry: OpenAICompatibility) -> Iterator[Credential]:
    shared = Credential(
        id="",
        provider=provider_key(entry.name),
        label=entry.name or "openai-compatibility",
        base_url=entry.base_url,
        prefix=entry.prefix,
        priority=entry.priority,
        headers=entry.headers,
        models=entry.models,
        excluded_models=entry.excluded_models,
        disable_cooling=entry.disable_cooling,
        request_retry=entry.request_retry,
        error_rules=entry.request_scoped_errors,
    )
    keys = [(key.api_key, key.weight, key.proxy_url) for key in entry.api_key_entries] or [("", 1, "")]
    for api_key, weight, proxy_url in keys:
        digest = _digest("openai-compatibility", api_key, entry.base_url, proxy_url)
        yield attrs.evolve(
            shared,
            id=f"openai-compatibility:{entry.name}:{digest}",
            api_key=api_key,
            weight=weight,
            proxy_url=proxy_url,
            index=auth_index(f"openai-compatibility:{entry.base_url}+{api_key}"),
        )


def _digest(*parts: str) -> str:
    """First 12 hex digits over the kind and the identity, so that an id is stable and never holds the key."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def auth_index(seed: str) -> str:
    """The 16 hex digits by which management calls, trace ids and records name a credential."""
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


def _numbered(found: Iterable[tuple[Credential, ConfigPlace]]) -> Iterator[tuple[Credential, ConfigPlace]]:
    """Unique ids for equal identities; indexes for those whose index is made of the id."""
    seen: dict[str, int] = {}
    for credential, place in found:
        count = seen.get(credential.id, 0)
        seen[credential.id] = count + 1
        if count and credential.provider == "gemini":  # the contract: of equal entries the first counts
            continue
        identifier = f"{credential.id}-{count}" if count else credential.id
        index = credential.index or auth_index(f"id:{identifier}")
        yield attrs.evolve(credential, id=identifier, index=index), place
