"""The part of a configuration that scheduling obeys."""

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from cpa.config.schema import Config, RequestScopedError, Strategy
from cpa.credentials.model import FROM_FILE, Credential

DEFAULT_TRANSIENT_S = 60.0


@attrs.frozen(kw_only=True)
class SchedulingSettings:
    """Attributes:
    strategy: how one of several ready credentials is chosen.
    request_retry: rounds after the first one, for credentials that do not say otherwise.
    max_retry_credentials: distinct credentials in one round, 0 = all.
    max_retry_interval_s: longest wait between two rounds, 0 = never wait.
    bootstrap_retries: how often a stream's selection starts anew while nothing has reached the client.
    transient_s: after failures that may pass; None = no cooldown. *transient_default*: nobody chose that number.
    max_cooldown_s: ceiling of what a provider's hint may cost.
    affinity: sessions stay with their credentials, for *affinity_ttl_s* after their last success.
    affinity_failback: unless one of a better tier is ready.
    file_rules: provider to ``oauth-request-scoped-errors``, for credentials of files.
    """

    strategy: Strategy = Strategy.ROUND_ROBIN
    request_retry: int = 3
    max_retry_credentials: int = 0
    max_retry_interval_s: float = 30.0
    bootstrap_retries: int = 0
    disable_cooling: bool = False
    transient_s: float | None = DEFAULT_TRANSIENT_S
    transient_default: bool = True
    max_cooldown_s: float = 3600.0
    affinity: bool = False
    affinity_ttl_s: float = 3600.0
    affinity_failback: bool = False
    file_rules: Mapping[str, tuple[RequestScopedError, ...]] = MappingProxyType({})

    @classmethod
    def of(cls, config: Config) -> "SchedulingSettings":
        """Those of *config*."""
        transient = config.transient_error_cooldown_seconds
        return cls(
            strategy=config.routing.strategy,
            request_retry=max(0, config.request_retry),
            max_retry_credentials=max(0, config.max_retry_credentials),
            max_retry_interval_s=max(0, config.max_retry_interval),
            bootstrap_retries=max(0, config.streaming.bootstrap_retries),
            disable_cooling=config.disable_cooling,
            transient_s=None if transient < 0 else float(transient or DEFAULT_TRANSIENT_S),
            transient_default=transient == 0,
            max_cooldown_s=config.max_cooldown_seconds,
            affinity=config.routing.session_affinity,
            affinity_ttl_s=config.routing.session_affinity_ttl_s,
            affinity_failback=config.routing.session_affinity_priority_failback,
            file_rules=config.oauth_request_scoped_errors,
        )

    def retries_of(self, credential: Credential) -> int:
        """Rounds after the first one in which *credential* takes part."""
        return self.request_retry if credential.request_retry is None else credential.request_retry

    def cools(self, credential: Credential) -> bool:
        """Cooldowns apply to *credential* (its own setting, also an explicit false, before the global one)."""
        disabled = self.disable_cooling if credential.disable_cooling is None else credential.disable_cooling
        return not disabled

    def rules_of(self, credential: Credential) -> tuple[RequestScopedError, ...]:
        """The operator's rules for failures of *credential*, in order: its own come first (proxy 4.7)."""
        if credential.source != FROM_FILE:
            return credential.error_rules
        return (*credential.error_rules, *self.file_rules.get(credential.provider, ()))
