"""Sections of the file other than providers and payload rules, and the whole file."""

from pathlib import Path

import attrs

from cpa.config import kinds, providers
from cpa.config.chains import read_pipeline
from cpa.config.document import Document
from cpa.config.fields import (
    At,
    Kind,
    Section,
    boolean,
    integer,
    json_value,
    list_of,
    map_of,
    one_of,
    seconds,
    section,
    text,
)
from cpa.config.nodes import Findings, MappingNode, ScalarNode, is_null, to_json
from cpa.config.payload import read_payload
from cpa.config.schema import (
    ClientLimits,
    Config,
    FrozenJson,
    ImageGeneration,
    Isolation,
    LedgerConfig,
    LimitsConfig,
    LogFormat,
    LoggingConfig,
    MetricsConfig,
    OnError,
    PluginEntry,
    PluginsConfig,
    PprofConfig,
    QuotaExceededConfig,
    RemoteManagementConfig,
    RoutingConfig,
    StateBackend,
    StateConfig,
    Strategy,
    StreamingConfig,
    TlsConfig,
    TranslationConfig,
    UsageConfig,
)

MAX_SECONDS = 86_400 * 365
"""A year: bound of every interval that is a whole number of seconds."""
MAX_BYTES = 2**40
"""1 TiB: bound of every size."""
MAX_WORKERS = 256
"""More processes than any machine this runs on has cores."""
MAX_NESTED_DEPTH = 64
"""Nested model calls hold one exchange each; deeper is a loop."""

MAX_DAYS = 36_500
"""A century: bound of every retention."""
MAX_COUNT = 2**53
"""Bound of every count of requests and tokens."""

_ISOLATION = {item.value: item for item in Isolation}
_ON_ERROR = {item.value: item for item in OnError}
STRATEGIES = {
    **dict.fromkeys(("round-robin", "roundrobin", "rr"), Strategy.ROUND_ROBIN),
    **dict.fromkeys(("weighted-round-robin", "weightedroundrobin", "wrr"), Strategy.WEIGHTED_ROUND_ROBIN),
    **dict.fromkeys(("fill-first", "fillfirst", "ff"), Strategy.FILL_FIRST),
}
"""Spellings of ``routing.strategy``, in lower case."""


def _at_least_zero(high: int) -> Kind[int]:
    # The contract reads negative numbers as 0 (= off) in these places.
    read = integer(-high, high)
    return lambda at: max(read(at), 0)


_INTERVAL = _at_least_zero(MAX_SECONDS)
_SIZE = integer(1, MAX_BYTES)


def _tls(keys: Section) -> TlsConfig:
    enable = keys.get("enable", boolean, False)
    cert = keys.get("cert", text("a path"), "")
    key = keys.get("key", text("a path"), "")
    for name in ("cert", "key"):
        if enable and providers.is_blank(keys, name):
            keys.reject(name, "the path of a PEM file, since tls.enable is true")
    return TlsConfig(enable=enable, cert=cert, key=key)


def _remote_management(keys: Section) -> RemoteManagementConfig:
    return RemoteManagementConfig(
        allow_remote=keys.get("allow-remote", boolean, False),
        secret_key=keys.get("secret-key", text("a key", secret=True), ""),
        disable_control_panel=keys.get("disable-control-panel", boolean, False),
        disable_auto_update_panel=keys.get("disable-auto-update-panel", boolean, False),
        panel_github_repository=keys.get("panel-github-repository", text("a URL", secret=True), ""),
    )


def _streaming(keys: Section) -> StreamingConfig:
    return StreamingConfig(
        keepalive_seconds=keys.get("keepalive-seconds", _INTERVAL, 0),
        bootstrap_retries=keys.get("bootstrap-retries", _at_least_zero(providers.MAX_RETRIES), 0),
        keepalive_before_first_chunk=keys.get("keepalive-before-first-chunk", boolean, False),
        gemini_json_array=keys.get("gemini-json-array", boolean, False),
    )


def _strategy(at: At) -> Strategy:
    if not isinstance(at.node, ScalarNode):
        raise at.reject(f"one of {', '.join(Strategy)}")
    found = STRATEGIES.get(at.node.text.strip().lower())
    if found is None:
        # The contract: unknown values behave like round-robin.
        at.warn(f"expected one of {', '.join(Strategy)}; round-robin is used")
        return Strategy.ROUND_ROBIN
    return found


def _routing(keys: Section) -> RoutingConfig:
    default = RoutingConfig()
    return RoutingConfig(
        strategy=keys.get("strategy", _strategy, default.strategy),
        session_affinity=keys.get("session-affinity", boolean, False),
        session_affinity_ttl_s=keys.get(
            "session-affinity-ttl", kinds.positive_duration, default.session_affinity_ttl_s
        ),
        session_affinity_priority_failback=keys.get("session-affinity-priority-failback", boolean, False),
    )


def _pprof(keys: Section) -> PprofConfig:
    return PprofConfig(
        enable=keys.get("enable", boolean, False), addr=keys.get("addr", text("host:port"), PprofConfig().addr)
    )


def _quota_exceeded(keys: Section) -> QuotaExceededConfig:
    return QuotaExceededConfig(
        switch_project=keys.get("switch-project", boolean, True),
        switch_preview_model=keys.get("switch-preview-model", boolean, True),
    )


def _plugin(at: At) -> PluginEntry:
    yaml_text = at.document.yaml_of(at.node)
    if not isinstance(at.node, MappingNode):
        # A bare value is the plugin's own business; without `enabled` the plugin is not loaded.
        return PluginEntry(raw=to_json(at.node), config_yaml=yaml_text)
    keys = Section(at=at, node=at.node)
    enabled = keys.get("enabled", boolean, False)
    priority = keys.get("priority", providers.PRIORITY, 0)
    isolation = keys.get("isolation", one_of(_ISOLATION), None)
    timeout = keys.get("timeout", kinds.timeout_seconds, None)
    on_error = keys.get("on-error", one_of(_ON_ERROR), OnError.SKIP)
    effective = {"enabled": str(enabled).lower(), "priority": str(priority)}
    absent = [f"{key}: {value}\n" for key, value in effective.items() if at.node.get(key) is None]
    if absent and at.node.flow:
        yaml_text = at.document.yaml_of(attrs.evolve(at.node, flow=False))
    if not at.node.entries:
        yaml_text = ""
    return PluginEntry(
        enabled=enabled,
        priority=priority,
        isolation=isolation,
        timeout=timeout,
        on_error=on_error,
        raw=to_json(at.node),
        config_yaml=yaml_text + "".join(absent),
    )


def _plugins(keys: Section) -> PluginsConfig:
    anything: Kind[tuple[FrozenJson, ...]] = list_of(json_value, "values")
    keys.get("auth-revision", json_value, None)
    return PluginsConfig(
        enabled=keys.get("enabled", boolean, False),
        dir=keys.get("dir", text("a path"), "") or "plugins",
        isolation=keys.get("isolation", one_of(_ISOLATION), Isolation.PROCESS),
        configs=keys.get("configs", map_of(_plugin, "plugin ids to settings", key=kinds.plugin_id), {}),
        store_sources=keys.get("store-sources", anything, ()),
        store_auth=keys.get("store-auth", anything, ()),
    )


def _client_limits(keys: Section) -> ClientLimits:
    count = integer(0, MAX_COUNT)
    limits = ClientLimits(
        keys=keys.get("keys", kinds.client_keys, ()),
        requests_per_minute=keys.get("requests-per-minute", count, 0),
        requests_per_day=keys.get("requests-per-day", count, 0),
        requests_total=keys.get("requests-total", count, 0),
        tokens_per_minute=keys.get("tokens-per-minute", count, 0),
        tokens_per_day=keys.get("tokens-per-day", count, 0),
        tokens_total=keys.get("tokens-total", count, 0),
        max_concurrent=keys.get("max-concurrent", count, 0),
        allowed_models=keys.get("allowed-models", kinds.excluded_models, ()),
    )
    if keys.has("keys") and not limits.keys:
        keys.reject("keys", "a list of client keys or patterns; leave it out for all clients")
    if keys.has("allowed-models") and not limits.allowed_models:
        keys.reject("allowed-models", "a list of models or patterns; leave it out for all models")
    return limits


def _limits(keys: Section) -> LimitsConfig:
    default = LimitsConfig()
    return LimitsConfig(
        clients=keys.get("clients", list_of(section(_client_limits), "limits of clients"), ()),
        body_bytes=keys.get("body-bytes", _SIZE, default.body_bytes),
        decompression_ratio=keys.get("decompression-ratio", integer(1, 1_000_000), default.decompression_ratio),
        header_seconds=keys.get("header-seconds", seconds(), default.header_seconds),
        body_seconds=keys.get("body-seconds", seconds(), default.body_seconds),
        send_idle_seconds=keys.get("send-idle-seconds", seconds(), default.send_idle_seconds),
        keepalive_idle_seconds=keys.get("keepalive-idle-seconds", seconds(), default.keepalive_idle_seconds),
        websocket_idle_seconds=keys.get("websocket-idle-seconds", seconds(), default.websocket_idle_seconds),
        connections=keys.get("connections", integer(0, 10_000_000), default.connections),
        connect_seconds=keys.get("connect-seconds", seconds(), default.connect_seconds),
        response_bytes=keys.get("response-bytes", _SIZE, default.response_bytes),
        error_body_bytes=keys.get("error-body-bytes", _SIZE, default.error_body_bytes),
        sse_event_bytes=keys.get("sse-event-bytes", _SIZE, default.sse_event_bytes),
        shutdown_grace_seconds=keys.get("shutdown-grace-seconds", seconds(), default.shutdown_grace_seconds),
        nested_depth=keys.get("nested-depth", integer(1, MAX_NESTED_DEPTH), default.nested_depth),
    )


def _ledger(keys: Section) -> LedgerConfig:
    default = LedgerConfig()
    return LedgerConfig(
        enabled=keys.get("enabled", boolean, default.enabled),
        path=keys.get("path", text("a path"), None),
        retention_days=keys.get("retention-days", integer(0, MAX_DAYS), default.retention_days),
        max_megabytes=keys.get("max-megabytes", integer(0, MAX_BYTES >> 20), default.max_megabytes),
    )


def _usage(keys: Section) -> UsageConfig:
    return UsageConfig(ledger=keys.get("ledger", section(_ledger), LedgerConfig()))


def _logging(keys: Section) -> LoggingConfig:
    formats = {item.value: item for item in LogFormat}
    return LoggingConfig(format=keys.get("format", one_of(formats), LogFormat.CONSOLE))


def _metrics(keys: Section) -> MetricsConfig:
    return MetricsConfig(enabled=keys.get("enabled", boolean, False))


def _state(keys: Section) -> StateConfig:
    backends = {item.value: item for item in StateBackend}
    backend = keys.get("backend", one_of(backends), StateBackend.MEMORY)
    url = keys.get("url", kinds.state_url, "")
    if backend is StateBackend.REDIS and providers.is_blank(keys, "url"):
        keys.reject("url", "a URL such as redis://127.0.0.1:6379/0, since state.backend is redis")
    return StateConfig(backend=backend, url=url)


def _translation(keys: Section) -> TranslationConfig:
    media = one_of({word: word for word in ("file_uri", "fetch", "placeholder")})
    summary = one_of({word: word for word in ("none", "auto", "concise", "detailed")})
    return TranslationConfig(
        report_losses=keys.get("report-losses", boolean, False),
        strict=keys.get("strict", boolean, False),
        strict_content=keys.get("strict-content", boolean, False),
        foreign_reasoning_as_text=keys.get("foreign-reasoning-as-text", boolean, False),
        chat_reasoning_details=keys.get("chat-reasoning-details", boolean, True),
        claude_auto_cache=keys.get("claude-auto-cache", boolean, True),
        gemini_default_safety=keys.get("gemini-default-safety", boolean, True),
        gemini_url_media=keys.get("gemini-url-media", media, "file_uri"),
        gemini_url_media_allow=keys.get("gemini-url-media-allow", list_of(kinds.network, "addresses"), ()),
        responses_default_summary=keys.get("responses-default-summary", summary, "none"),
        report_provider_model=keys.get("report-provider-model", boolean, False),
    )


def _auth_dir(at: At) -> Path:
    # Through the schema, so that the default is recognised as such when the file spells it out.
    written = text("a path")(at)
    return Config(auth_dir=Path(written)).auth_dir if written else Config().auth_dir


def _image_generation(at: At) -> ImageGeneration:
    words = {item.value: item for item in ImageGeneration}
    return one_of(words)(at)


def _replaced(read: Kind[int], *, below: int, by: int) -> Kind[int]:
    def kind(at: At) -> int:
        value = read(at)
        return by if value < below else value

    return kind


def _config(keys: Section) -> Config:
    default = Config()
    get = keys.get
    return Config(
        host=get("host", kinds.bind_host, default.host),
        port=get("port", integer(0, 65535), default.port),
        tls=get("tls", section(_tls), default.tls),
        workers=get("workers", integer(1, MAX_WORKERS), default.workers),
        trusted_proxies=get("trusted-proxies", list_of(kinds.network, "addresses"), ()),
        api_keys=get("api-keys", kinds.client_keys, ()),
        auth_dir=get("auth-dir", _auth_dir, default.auth_dir),
        remote_management=get("remote-management", section(_remote_management), default.remote_management),
        ws_auth=get("ws-auth", boolean, default.ws_auth),
        debug=get("debug", boolean, default.debug),
        commercial_mode=get("commercial-mode", boolean, default.commercial_mode),
        logging=get("logging", section(_logging), default.logging),
        logging_to_file=get("logging-to-file", boolean, default.logging_to_file),
        logs_max_total_size_mb=get("logs-max-total-size-mb", _at_least_zero(MAX_BYTES), 0),
        error_logs_max_files=get("error-logs-max-files", _replaced(integer(), below=0, by=10), 10),
        request_log=get("request-log", boolean, default.request_log),
        usage_statistics_enabled=get("usage-statistics-enabled", boolean, default.usage_statistics_enabled),
        redis_usage_queue_retention_seconds=get("redis-usage-queue-retention-seconds", _retention, 60),
        metrics=get("metrics", section(_metrics), default.metrics),
        pprof=get("pprof", section(_pprof), default.pprof),
        proxy_url=get("proxy-url", kinds.proxy_url, ""),
        force_model_prefix=get("force-model-prefix", boolean, default.force_model_prefix),
        passthrough_headers=get("passthrough-headers", boolean, default.passthrough_headers),
        request_retry=get("request-retry", integer(0, providers.MAX_RETRIES), default.request_retry),
        max_retry_credentials=get("max-retry-credentials", _at_least_zero(1_000_000), 0),
        max_retry_interval=get("max-retry-interval", _INTERVAL, default.max_retry_interval),
        disable_cooling=get("disable-cooling", boolean, default.disable_cooling),
        save_cooldown_status=get("save-cooldown-status", boolean, default.save_cooldown_status),
        transient_error_cooldown_seconds=get("transient-error-cooldown-seconds", integer(-MAX_SECONDS, MAX_SECONDS), 0),
        max_cooldown_seconds=get("max-cooldown-seconds", integer(1, MAX_SECONDS), default.max_cooldown_seconds),
        auth_auto_refresh_workers=get("auth-auto-refresh-workers", _replaced(integer(-1000, 1000), below=1, by=16), 16),
        quota_exceeded=get(
            "quota-exceeded", section(_quota_exceeded, ignored=providers.out_of_scope), default.quota_exceeded
        ),
        routing=get("routing", section(_routing), default.routing),
        request_timeout_seconds=get("request-timeout-seconds", seconds(), 0.0),
        first_byte_timeout_seconds=get("first-byte-timeout-seconds", seconds(), 0.0),
        stream_idle_timeout_seconds=get("stream-idle-timeout-seconds", seconds(), 0.0),
        nonstream_keepalive_interval=get("nonstream-keepalive-interval", _INTERVAL, 0),
        streaming=get("streaming", section(_streaming), default.streaming),
        disable_image_generation=get("disable-image-generation", _image_generation, ImageGeneration.ALLOW),
        plugins=get("plugins", section(_plugins), default.plugins),
        gemini_api_key=get("gemini-api-key", providers.provider_keys(providers.GEMINI), ()),
        interactions_api_key=get("interactions-api-key", providers.provider_keys(providers.GEMINI), ()),
        claude_api_key=get("claude-api-key", providers.provider_keys(providers.CLAUDE), ()),
        codex_api_key=get("codex-api-key", providers.provider_keys(providers.CODEX), ()),
        xai_api_key=get("xai-api-key", providers.provider_keys(providers.CODEX), ()),
        vertex_api_key=get("vertex-api-key", providers.provider_keys(providers.VERTEX), ()),
        openai_compatibility=get("openai-compatibility", providers.OPENAI_COMPATIBILITY, ()),
        oauth_model_alias=get("oauth-model-alias", providers.OAUTH_MODEL_ALIAS, {}),
        oauth_excluded_models=get("oauth-excluded-models", providers.OAUTH_EXCLUDED_MODELS, {}),
        oauth_request_scoped_errors=get("oauth-request-scoped-errors", providers.OAUTH_REQUEST_SCOPED_ERRORS, {}),
        payload=get("payload", section(read_payload), default.payload),
        limits=get("limits", section(_limits), default.limits),
        usage=get("usage", section(_usage), default.usage),
        state=get("state", section(_state), default.state),
        translation=get("translation", section(_translation), default.translation),
        pipeline=get("pipeline", section(read_pipeline), default.pipeline),
    )


def _retention(at: At) -> int:
    value = integer()(at)
    return min(value, 3600) if value > 0 else 60


def read_config(document: Document, findings: Findings) -> Config:
    """The configuration in *document*; what is wrong with it goes to *findings*, and the result is then for nobody.

    An empty document is all defaults.
    """
    if document.root is None or is_null(document.root):
        return Config()
    root = At(document=document, findings=findings, path="", node=document.root)
    if not isinstance(document.root, MappingNode):
        root.reject("a mapping of keys to values", secret=True)
        return Config()
    keys = Section(at=root, node=document.root)
    config = _config(keys)
    keys.finish(ignored=providers.out_of_scope)
    return config
