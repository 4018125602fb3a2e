"""The configuration as values: one frozen class per section of the YAML file.

A YAML key ``some-key`` is the attribute ``some_key``. Absent keys have the defaults written here, which are the
documented ones of CLIProxyAPI (its code uses other ones for absent keys). Lists are tuples, mappings are read-only,
secrets stay out of every repr. ``load.py`` is what reads a file; it has already normalised and judged all values, so
that whoever holds a `Config` needs no checks of its own. Nothing here reads files or the environment, apart from ``~``
in paths, which is expanded.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs

FrozenJson: TypeAlias = "bool | int | float | str | tuple[FrozenJson, ...] | Mapping[str, FrozenJson] | None"
"""A JSON-like value that nobody can change: lists are tuples, objects read-only mappings."""


def freeze(value: Any) -> FrozenJson:
    """A read-only deep copy of a JSON-like *value* (None, bool, int, float, str, list or tuple, mapping with str keys).

    Raises: TypeError for anything else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, Mapping):
        return MappingProxyType({str(key): freeze(item) for key, item in value.items()})
    raise TypeError(f"not a JSON-like value: {type(value).__name__}")


def thaw(value: FrozenJson) -> Any:
    """The reverse of `freeze`: fresh dicts and lists, for an encoder or for code that changes them."""
    if isinstance(value, tuple):
        return [thaw(item) for item in value]
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    return value


def _read_only(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return value if isinstance(value, MappingProxyType) else MappingProxyType(dict(value))


def _home(value: Path | str) -> Path:
    # Path.expanduser raises when there is no home directory at all; the unexpanded path then fails where it is used.
    path = Path(value)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _optional_home(value: Path | str | None) -> Path | None:
    return None if value is None or value == "" else _home(value)


def _mapping(*, repr: bool = True) -> Any:
    return attrs.field(factory=dict, converter=_read_only, repr=repr)


class Isolation(StrEnum):
    """Where a plugin's library runs."""

    PROCESS = "process"
    INLINE = "inline"


class OnError(StrEnum):
    """What a failing stage means for its exchange: it is passed over, or the exchange fails."""

    SKIP = "skip"
    FAIL = "fail"


class Strategy(StrEnum):
    """How one of several ready credentials is chosen."""

    ROUND_ROBIN = "round-robin"
    WEIGHTED_ROUND_ROBIN = "weighted-round-robin"
    FILL_FIRST = "fill-first"


class ErrorAction(StrEnum):
    """What an operator's error rule does with the attempt that it matched."""

    STOP = "stop"
    STOP_AND_COOLDOWN = "stop-and-cooldown"
    CONTINUE = "continue"
    CONTINUE_AND_COOLDOWN = "continue-and-cooldown"


class ImageGeneration(StrEnum):
    """Values of ``disable-image-generation``, as YAML writes them.

    ALLOW removes nothing; DISABLE strips image tools everywhere; CHAT only outside ``/v1/images/*``; PASSTHROUGH
    leaves client bodies alone.
    """

    ALLOW = "false"
    DISABLE = "true"
    CHAT = "chat"
    PASSTHROUGH = "passthrough"


class LogFormat(StrEnum):
    """Shape of the application log's lines."""

    CONSOLE = "console"
    JSON = "json"


class StateBackend(StrEnum):
    """Where cooldowns, cursors, affinity and usage live."""

    MEMORY = "memory"
    REDIS = "redis"


@attrs.frozen(kw_only=True)
class TlsConfig:
    """``tls``: HTTPS on the listening socket. With ``enable`` both files are set."""

    enable: bool = False
    cert: Path | None = attrs.field(default=None, converter=_optional_home)
    key: Path | None = attrs.field(default=None, converter=_optional_home)


@attrs.frozen(kw_only=True)
class RemoteManagementConfig:
    """``remote-management``.

    Attributes:
      secret_key: plaintext or a bcrypt hash (``$2a$``, ``$2b$``, ``$2y$``); empty = management is off.
    """

    allow_remote: bool = False
    secret_key: str = attrs.field(default="", repr=False)
    disable_control_panel: bool = False
    disable_auto_update_panel: bool = False
    panel_github_repository: str = ""


@attrs.frozen(kw_only=True)
class StreamingConfig:
    """``streaming``: keep-alive comments (seconds, 0 = off) and restarts before the first byte."""

    keepalive_seconds: int = 0
    bootstrap_retries: int = 0
    keepalive_before_first_chunk: bool = False
    gemini_json_array: bool = False


@attrs.frozen(kw_only=True)
class RoutingConfig:
    """``routing``: choice among ready credentials."""

    strategy: Strategy = Strategy.ROUND_ROBIN
    session_affinity: bool = False
    session_affinity_ttl_s: float = 3600.0
    session_affinity_priority_failback: bool = False


@attrs.frozen(kw_only=True)
class PprofConfig:
    """``pprof``: accepted for compatibility; CPA has no such server."""

    enable: bool = False
    addr: str = "127.0.0.1:8316"


@attrs.frozen(kw_only=True)
class QuotaExceededConfig:
    """``quota-exceeded``: no effect, kept for management round trips."""

    switch_project: bool = True
    switch_preview_model: bool = True


@attrs.frozen(kw_only=True)
class PluginEntry:
    """``plugins.configs.<id>``.

    Attributes:
      enabled: a plugin without entry, or with this key missing, is not loaded.
      priority: larger runs earlier.
      isolation: None = ``plugins.isolation``.
      timeout: hard limit of one call in seconds, 0 = none; None = the host's default (30, executors none).
      on_error: what it means for a request that the plugin, which should have seen it, is away or fails.
      raw: the whole subtree as a value, the keys above included.
      config_yaml: the same as the YAML text that the plugin receives: source text with comments, quoting and key order
        where possible, ``enabled`` and ``priority`` appended when the file has them not, one final newline. May hold
        the plugin's secrets.
    """

    enabled: bool = False
    priority: int = 0
    isolation: Isolation | None = None
    timeout: float | None = None
    on_error: OnError = OnError.SKIP
    raw: FrozenJson = attrs.field(factory=lambda: MappingProxyType({}), repr=False)
    config_yaml: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class PluginsConfig:
    """``plugins``. Store keys are kept as they are; the plugin store is optional."""

    enabled: bool = False
    dir: Path = attrs.field(default=Path("plugins"), converter=_home)
    isolation: Isolation = Isolation.PROCESS
    configs: Mapping[str, PluginEntry] = _mapping()
    store_sources: tuple[FrozenJson, ...] = attrs.field(default=(), repr=False)
    store_auth: tuple[FrozenJson, ...] = attrs.field(default=(), repr=False)


@attrs.frozen(kw_only=True)
class ThinkingSpec:
    """What a model's reasoning accepts.

    Attributes:
      min, max: budget in tokens; both 0 = the model takes no budget.
      levels: lower case, without ``none`` and ``auto``: these set the two flags instead.
    """

    min: int = 0
    max: int = 0
    zero_allowed: bool = False
    dynamic_allowed: bool = False
    levels: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class ModelEntry:
    """One model of a provider.

    Attributes:
      name: what the provider calls it, never empty.
      alias: what clients call it; empty = *name*. Several entries may share one alias: a pool.
      force_mapping: answers carry the client's name instead of the provider's.
      max_context_length: tokens, 0 = unknown.
      is_compat: a third-party gateway without the vendor's extensions.
      thinking: None = unknown; the setting of a client then passes unjudged.
    """

    name: str
    alias: str = ""
    display_name: str = ""
    force_mapping: bool = False
    thinking: ThinkingSpec | None = None
    max_context_length: int = 0
    is_compat: bool = False
    image: bool = False
    input_modalities: tuple[str, ...] = ()
    output_modalities: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class RequestScopedError:
    """An operator's rule for one kind of failure.

    It hits when the provider's status equals *status* and its raw body contains one of *match* (case-sensitive) or
    one of *match_regexr* is found in it. At least one of both is not empty.
    """

    status: int
    match: tuple[str, ...] = ()
    match_regexr: tuple[re.Pattern[str], ...] = ()
    action: ErrorAction


@attrs.frozen(kw_only=True)
class ProviderKeyEntry:
    """One item of ``gemini-``, ``interactions-``, ``claude-``, ``codex-``, ``xai-`` or ``vertex-api-key``.

    Attributes:
      base_url: http(s) URL without a trailing slash; empty = the vendor's own.
      weight: 0..1,000,000; 0 = never chosen by weighted round-robin.
      prefix: without blanks and slashes around it and never with one inside.
      proxy_url: URL, ``direct``, or empty = inherit.
      headers: a value ``$Name`` copies the client's header of that name.
      excluded_models: lower-case patterns with ``*`` against the name that clients see; a single ``*`` disables.
      disable_cooling, request_retry: None = inherit the global setting.
      rebuild_mid_system_message: claude only.
      websockets: codex and xai only; no effect.
    """

    api_key: str = attrs.field(default="", repr=False)
    base_url: str = ""
    priority: int = 0
    weight: int = 1
    prefix: str = ""
    proxy_url: str = attrs.field(default="", repr=False)
    headers: Mapping[str, str] = _mapping(repr=False)
    models: tuple[ModelEntry, ...] = ()
    excluded_models: tuple[str, ...] = ()
    disable_cooling: bool | None = None
    request_retry: int | None = None
    request_scoped_errors: tuple[RequestScopedError, ...] = ()
    rebuild_mid_system_message: bool = False
    websockets: bool = False


@attrs.frozen(kw_only=True)
class ApiKeyEntry:
    """One key of an `OpenAICompatibility` entry; an empty key sends no ``Authorization``."""

    api_key: str = attrs.field(default="", repr=False)
    weight: int = 1
    proxy_url: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class OpenAICompatibility:
    """One item of ``openai-compatibility``: a Chat Completions provider with its keys and models.

    Attributes:
      name: trimmed, case kept; may be empty.
      base_url: with ``/v1``, without a trailing slash; empty only when *disabled*.
      api_key_entries: empty = one credential without key.
    """

    name: str = ""
    priority: int = 0
    disabled: bool = False
    prefix: str = ""
    base_url: str = ""
    headers: Mapping[str, str] = _mapping(repr=False)
    api_key_entries: tuple[ApiKeyEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    excluded_models: tuple[str, ...] = ()
    support_prompt_cache_key: bool = False
    disable_cooling: bool | None = None
    request_retry: int | None = None
    request_scoped_errors: tuple[RequestScopedError, ...] = ()


@attrs.frozen(kw_only=True)
class OAuthModelAlias:
    """One item of ``oauth-model-alias.<channel>``; *alias* is unique within its channel."""

    name: str
    alias: str
    fork: bool = False
    display_name: str = ""
    force_mapping: bool = False


@attrs.frozen(kw_only=True)
class PathValue:
    """A JSON path of a body and the value that must (or must not) stand there."""

    path: str
    value: FrozenJson


@attrs.frozen(kw_only=True)
class PayloadMatch:
    """When a payload rule fires; all that is given must hold.

    Attributes:
      name: pattern with ``*``, case-sensitive; empty never matches.
      protocol: protocol sent upstream, lower case; empty = any.
      from_protocol: protocol that the client spoke, lower case; all spellings of Responses are ``openai-response``;
        empty = any.
      headers: client header name in lower case to pattern with ``*``.
      match, not_match: deep equality; exist: present and not null; not_exist: absent or null.
    """

    name: str = ""
    protocol: str = ""
    from_protocol: str = ""
    headers: Mapping[str, str] = _mapping(repr=False)
    match: tuple[PathValue, ...] = ()
    not_match: tuple[PathValue, ...] = ()
    exist: tuple[str, ...] = ()
    not_exist: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class PayloadRule:
    """Sets *params* (path to value) where one of *models* matches."""

    models: tuple[PayloadMatch, ...] = ()
    params: Mapping[str, FrozenJson] = _mapping()


@attrs.frozen(kw_only=True)
class PayloadRawRule:
    """As `PayloadRule`; values are JSON texts, already known to be valid."""

    models: tuple[PayloadMatch, ...] = ()
    params: Mapping[str, str] = _mapping()


@attrs.frozen(kw_only=True)
class PayloadFilterRule:
    """Deletes the paths *params* where one of *models* matches."""

    models: tuple[PayloadMatch, ...] = ()
    params: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class PayloadRules:
    """``payload``, applied in the order of the attributes."""

    default: tuple[PayloadRule, ...] = ()
    default_raw: tuple[PayloadRawRule, ...] = ()
    override: tuple[PayloadRule, ...] = ()
    override_raw: tuple[PayloadRawRule, ...] = ()
    filter: tuple[PayloadFilterRule, ...] = ()


@attrs.frozen(kw_only=True)
class ClientLimits:
    """One item of ``limits.clients``: what each of some clients may use up. 0 = no limit.

    Attributes:
      keys: client keys or patterns with ``*``; empty = all. Every key that matches has these limits for itself.
      requests_per_minute, tokens_per_minute: within 60 s that begin with the first request.
      requests_per_day, tokens_per_day: within a day of UTC.
      requests_total, tokens_total: for ever.
      max_concurrent: requests that run at the same time.
      allowed_models: patterns with ``*`` in lower case, of names as clients write them; empty = all.
    """

    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    requests_per_minute: int = 0
    requests_per_day: int = 0
    requests_total: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    tokens_total: int = 0
    max_concurrent: int = 0
    allowed_models: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class LimitsConfig:
    """``limits``: what one client or one provider may cost. Seconds: 0 = no limit.

    Attributes:
      clients: limits of client keys; the first item that has a key counts for it.
      body_bytes: largest request body, as sent and after decompression.
      decompression_ratio: decompressed to sent size, judged once the output passes 1 MiB.
      header_seconds, body_seconds: time to send the head, and the body.
      send_idle_seconds: a client that takes nothing of its answer that long is dropped.
      keepalive_idle_seconds: an idle connection is closed after that long.
      websocket_idle_seconds: a WebSocket on which nothing is asked and nothing answered is closed after that long.
      connections: open client connections, 0 = unlimited.
      connect_seconds: connecting to a provider.
      response_bytes: largest answer of a provider that is held whole.
      error_body_bytes: kept of a provider's error body.
      sse_event_bytes: largest single event of a provider's stream.
      shutdown_grace_seconds: running exchanges may finish that long after SIGTERM.
      nested_depth: model calls that plugins make within model calls.
    """

    clients: tuple[ClientLimits, ...] = ()
    body_bytes: int = 256 * 1024 * 1024
    decompression_ratio: int = 200
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    send_idle_seconds: float = 60.0
    keepalive_idle_seconds: float = 75.0
    websocket_idle_seconds: float = 600.0
    connections: int = 0
    connect_seconds: float = 30.0
    response_bytes: int = 256 * 1024 * 1024
    error_body_bytes: int = 1024 * 1024
    sse_event_bytes: int = 50 * 1024 * 1024
    shutdown_grace_seconds: float = 30.0
    nested_depth: int = 8


@attrs.frozen(kw_only=True)
class LoggingConfig:
    """``logging``: shape of the application log."""

    format: LogFormat = LogFormat.CONSOLE


@attrs.frozen(kw_only=True)
class MetricsConfig:
    """``metrics``: Prometheus text at ``/metrics``."""

    enabled: bool = False


@attrs.frozen(kw_only=True)
class StateConfig:
    """``state``: the store behind cooldowns, cursors, affinity and usage. *url* is set for redis."""

    backend: StateBackend = StateBackend.MEMORY
    url: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class LedgerConfig:
    """``usage.ledger``: the record of what every attempt cost, in a file that survives restarts.

    Attributes:
      path: of the SQLite file; None = ``usage/ledger.sqlite3`` below ``WRITABLE_PATH`` or else the auth directory.
      retention_days: records are kept that long, 0 = for ever; sums per day ten times as long.
      max_megabytes: of the file; the oldest records make room. 0 = no limit.
    """

    enabled: bool = True
    path: Path | None = attrs.field(default=None, converter=_optional_home)
    retention_days: int = 90
    max_megabytes: int = 1024


@attrs.frozen(kw_only=True)
class UsageConfig:
    """``usage``."""

    ledger: LedgerConfig = LedgerConfig()


@attrs.frozen(kw_only=True)
class TranslationConfig:
    """``translation``: what becomes of a request that the provider's protocol cannot carry whole.

    Attributes:
      strict_content: strict about attachments, which else become a text that says so.
      foreign_reasoning_as_text: Claude is shown what another provider's model has thought.
      chat_reasoning_details: Chat clients get signatures, in ``reasoning_details``.
      claude_auto_cache: requests with tools of clients that mark nothing are marked for Claude's prompt cache.
      gemini_default_safety: Gemini's filters are off for clients whose protocol cannot configure them.
      gemini_url_media: what Gemini gets of an image's address, ``file_uri``, ``fetch`` (what is there) or
        ``placeholder``.
      gemini_url_media_allow: networks from which ``fetch`` may get something although they are not public.
      responses_default_summary: of reasoning, for clients that do not say; ``none``, ``auto``, ``concise`` or
        ``detailed``.
      report_provider_model: answers carry the provider's name of the model instead of the client's.
    """

    report_losses: bool = False
    strict: bool = False
    strict_content: bool = False
    foreign_reasoning_as_text: bool = False
    chat_reasoning_details: bool = True
    claude_auto_cache: bool = True
    gemini_default_safety: bool = True
    gemini_url_media: str = "file_uri"
    gemini_url_media_allow: tuple[str, ...] = ()
    responses_default_summary: str = "none"
    report_provider_model: bool = False


@attrs.frozen(kw_only=True)
class ChainMatch:
    """When a chain applies; empty members match everything.

    Attributes:
      source: YAML ``from``, the client's protocol; target: YAML ``to``, the provider's.
      models: patterns with ``*`` on the name that the client asked for.
      keys: client keys, by name or pattern.
    """

    source: str = ""
    target: str = ""
    models: tuple[str, ...] = ()
    keys: tuple[str, ...] = attrs.field(default=(), repr=False)


@attrs.frozen(kw_only=True)
class ChainConfig:
    """``pipeline.chains[]``. A step is a name or a mapping of one key; what they mean is the plan's business."""

    name: str
    match: ChainMatch = ChainMatch()
    request: tuple[FrozenJson, ...] = ()
    response: tuple[FrozenJson, ...] = ()


@attrs.frozen(kw_only=True)
class PipelineConfig:
    """``pipeline``: chains in order, the first that matches is used; none = the standard order."""

    chains: tuple[ChainConfig, ...] = ()


@attrs.frozen(kw_only=True)
class Config:
    """A whole configuration file.

    Attributes:
      host: bind address; ``""`` = all interfaces. (CLIProxyAPI binds everywhere when the key is absent; CPA does not.)
      api_keys: client keys, trimmed, none empty, none twice; no keys = no client authentication.
      transient_error_cooldown_seconds: 0 = 60 s, negative = none.
      max_cooldown_seconds: ceiling of what a provider's retry hint may cost.
      request_timeout_seconds, first_byte_timeout_seconds, stream_idle_timeout_seconds: for providers, 0 = off.
      trusted_proxies: addresses or networks whose ``X-Forwarded-For`` is believed.
      workers: processes on one port.
    """

    host: str = "127.0.0.1"
    port: int = 8317
    tls: TlsConfig = TlsConfig()
    workers: int = 1
    trusted_proxies: tuple[str, ...] = ()

    api_keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    auth_dir: Path = attrs.field(default=Path("~/.cli-proxy-api"), converter=_home)
    remote_management: RemoteManagementConfig = RemoteManagementConfig()
    ws_auth: bool = True

    debug: bool = False
    commercial_mode: bool = False
    logging: LoggingConfig = LoggingConfig()
    logging_to_file: bool = False
    logs_max_total_size_mb: int = 0
    error_logs_max_files: int = 10
    request_log: bool = False
    usage_statistics_enabled: bool = False
    redis_usage_queue_retention_seconds: int = 60
    metrics: MetricsConfig = MetricsConfig()
    pprof: PprofConfig = PprofConfig()

    proxy_url: str = attrs.field(default="", repr=False)
    force_model_prefix: bool = False
    passthrough_headers: bool = False
    request_retry: int = 3
    max_retry_credentials: int = 0
    max_retry_interval: int = 30
    disable_cooling: bool = False
    save_cooldown_status: bool = False
    transient_error_cooldown_seconds: int = 0
    max_cooldown_seconds: int = 3600
    auth_auto_refresh_workers: int = 16
    quota_exceeded: QuotaExceededConfig = QuotaExceededConfig()
    routing: RoutingConfig = RoutingConfig()

    request_timeout_seconds: float = 0.0
    first_byte_timeout_seconds: float = 0.0
    stream_idle_timeout_seconds: float = 0.0
    nonstream_keepalive_interval: int = 0
    streaming: StreamingConfig = StreamingConfig()
    disable_image_generation: ImageGeneration = ImageGeneration.ALLOW

    plugins: PluginsConfig = PluginsConfig()
    gemini_api_key: tuple[ProviderKeyEntry, ...] = ()
    interactions_api_key: tuple[ProviderKeyEntry, ...] = ()
    claude_api_key: tuple[ProviderKeyEntry, ...] = ()
    codex_api_key: tuple[ProviderKeyEntry, ...] = ()
    xai_api_key: tuple[ProviderKeyEntry, ...] = ()
    vertex_api_key: tuple[ProviderKeyEntry, ...] = ()
    openai_compatibility: tuple[OpenAICompatibility, ...] = ()
    oauth_model_alias: Mapping[str, tuple[OAuthModelAlias, ...]] = _mapping()
    oauth_excluded_models: Mapping[str, tuple[str, ...]] = _mapping()
    oauth_request_scoped_errors: Mapping[str, tuple[RequestScopedError, ...]] = _mapping()
    payload: PayloadRules = PayloadRules()

    limits: LimitsConfig = LimitsConfig()
    usage: UsageConfig = UsageConfig()
    state: StateConfig = StateConfig()
    translation: TranslationConfig = TranslationConfig()
    pipeline: PipelineConfig = PipelineConfig()
