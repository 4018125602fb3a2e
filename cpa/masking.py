"""Which texts logs must not show: those of the configuration, the environment and the credentials."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cpa.config.schema import Config
from cpa.formats.redaction import is_secret_header_name
from cpa.host.plugins import PluginHost
from cpa.observability.redact import KnownSecrets
from cpa.upstream.proxies import DIRECT_VALUES

MANAGEMENT_PASSWORD = "MANAGEMENT_PASSWORD"
"""Environment variable: a management key beside the configured one; it also lets in those who come from elsewhere."""
MIN_RANDOM_CHARS = 12
"""Shorter values under harmless names are taken for settings; real keys have 20 and more."""


@attrs.define(eq=False)
class Secrets:
    """What logs must not show.

    Attributes:
      configs: whose secrets these are.
    """

    configs: tuple[Config, ...]
    known: KnownSecrets = attrs.field(factory=KnownSecrets)

    def renew(self, plugins: PluginHost | None = None) -> None:
        """Know those of `configs`, of the environment and of the credentials that *plugins* have to do with."""
        accounts = plugins.accounts.snapshot.credentials if plugins is not None else ()
        self.known.replace(
            (
                *(secret for config in self.configs for secret in secrets_of(config)),
                *environment_secrets(),
                *(secret for credential in accounts for secret in credential.secrets()),
            )
        )


def secrets_of(value: object) -> Iterator[str]:
    """Every text of a configuration that its own repr keeps to itself, to be masked wherever it may turn up."""
    cls: Any = type(value)
    if attrs.has(cls):
        for field in attrs.fields(cls):
            inner = getattr(value, field.name)
            if field.repr is False:
                yield from (text for text in texts(inner) if text not in DIRECT_VALUES)
            else:
                yield from secrets_of(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from secrets_of(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from secrets_of(inner)


def texts(value: object) -> Iterator[str]:
    """The strings inside *value* that may be secret; of mappings (headers, plugin settings) not every one is."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (text for text in texts(inner) if is_secret_header_name(key) or looks_random(text))
    elif isinstance(value, tuple):
        for inner in value:
            yield from texts(inner)


def looks_random(text: str) -> bool:
    """Long and of letters and digits, as keys are; words, paths of types and the like are not worth mangling logs."""
    return len(text) >= MIN_RANDOM_CHARS and any(map(str.isdigit, text)) and any(map(str.isalpha, text))


def environment_secrets() -> tuple[str, ...]:
    """The management password of the environment, if there is one."""
    password = os.environ.get(MANAGEMENT_PASSWORD, "").strip()
    return (password,) if password else ()
