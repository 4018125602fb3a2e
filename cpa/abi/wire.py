"""What the host sends to plugins and what they answer: the messages of plugin-abi.md chapters 3 and 4.

Values only; `codec.py` reads and writes them. Fields stand in wire order, which is part of the contract: plugins in C
search for the first occurrence of a name. Two members are not here because they belong to a call and not to what it
says: ``stream_id`` and ``host_callback_id``, which `envelope.encode_request` puts at the end.

Ids and names of enumerations are plain strings: a plugin may send any, and what an unknown one means is the host's
decision. Secrets (credentials, bodies, client headers) are kept out of `repr`. It is long because the contract is.
"""

from datetime import datetime

from cpa.abi.codec import (
    Message,
    any_map,
    blob,
    blobs,
    data,
    error_text,
    flag,
    list_map,
    moment,
    nothing,
    number,
    optional,
    string_map,
    strings,
    struct,
    struct_map,
    structs,
    structs_map,
    text,
)
from cpa.abi.kinds import B64
from cpa.formats.headers import HeaderMap
from cpa.types import JsonObject


class Empty(Message):
    """``{}``: nothing to say, or an answer that nobody reads."""


class CallIds(Message):
    """The two members that a call adds to its request; for those who play the plugin.

    Attributes:
      stream_id: where the chunks of `executor.execute_stream` go.
      scope_id: names the call in host calls.
    """

    stream_id: str = text("stream_id", omit=True)
    scope_id: str = text("host_callback_id", omit=True)


# --- shared objects (4.0) --------------------------------------------------------------------------------------------


class ConfigField(Message):
    """One setting that a plugin understands; shown to operators, never validated."""

    name: str = text("Name")
    type: str = text("Type")
    enum_values: tuple[str, ...] = strings("EnumValues")
    description: str = text("Description")


class PluginMetadata(Message):
    """What a plugin says of itself (3.3). The first four must not be blank."""

    name: str = text("Name")
    version: str = text("Version")
    author: str = text("Author")
    repository: str = text("GitHubRepository")
    logo: str = text("Logo")
    config_fields: tuple[ConfigField, ...] = structs("ConfigFields", ConfigField)


class ModelAlias(Message):
    """Another name for a provider's model."""

    name: str = text("Name")
    alias: str = text("Alias")


class HostSummary(Message):
    """The part of the host's configuration that plugins see."""

    auth_dir: str = text("AuthDir")
    proxy_url: str = text("ProxyURL", secret=True)
    force_model_prefix: bool = flag("ForceModelPrefix")
    oauth_model_alias: dict[str, tuple[ModelAlias, ...]] = structs_map("OAuthModelAlias", ModelAlias)
    excluded_models: dict[str, list[str]] = list_map("ExcludedModels")


class AuthData(Message):
    """One credential as exchanged with plugins."""

    provider: str = text("Provider")
    id: str = text("ID")
    file_name: str = text("FileName")
    label: str = text("Label")
    prefix: str = text("Prefix")
    proxy_url: str = text("ProxyURL", secret=True)
    disabled: bool = flag("Disabled")
    storage_json: bytes = data("StorageJSON", secret=True)
    metadata: JsonObject = any_map("Metadata", secret=True)
    attributes: dict[str, str] = string_map("Attributes", secret=True)
    next_refresh_after: datetime = moment("NextRefreshAfter")


class ThinkingSupport(Message):
    """Reasoning budgets (tokens) or levels that a model takes."""

    min: int = number("Min")
    max: int = number("Max")
    zero_allowed: bool = flag("ZeroAllowed")
    dynamic_allowed: bool = flag("DynamicAllowed")
    levels: tuple[str, ...] = strings("Levels")


class ModelInfo(Message):
    """One model of a provider. *created* is in Unix seconds, limits are in tokens."""

    id: str = text("ID")
    object: str = text("Object")
    created: int = number("Created")
    owned_by: str = text("OwnedBy")
    type: str = text("Type")
    display_name: str = text("DisplayName")
    name: str = text("Name")
    version: str = text("Version")
    description: str = text("Description")
    input_token_limit: int = number("InputTokenLimit")
    output_token_limit: int = number("OutputTokenLimit")
    generation_methods: tuple[str, ...] = strings("SupportedGenerationMethods")
    context_length: int = number("ContextLength")
    max_completion_tokens: int = number("MaxCompletionTokens")
    parameters: tuple[str, ...] = strings("SupportedParameters")
    input_modalities: tuple[str, ...] = strings("SupportedInputModalities")
    output_modalities: tuple[str, ...] = strings("SupportedOutputModalities")
    thinking: ThinkingSupport | None = optional("Thinking", ThinkingSupport)
    user_defined: bool = flag("UserDefined")


# --- lifecycle (3.1–3.5) ---------------------------------------------------------------------------------------------


class RegisterRequest(Message):
    """`plugin.register`, `plugin.reconfigure`. *config_yaml*: the plugin's own section, one YAML document."""

    config_yaml: B64 = blob("config_yaml", secret=True)
    schema_version: int = number("schema_version")


class Capabilities(Message):
    """The 20 switches, in the order of plugin-abi.md 3.5, and four modifiers that count as none."""

    model_registrar: bool = flag("model_registrar")
    model_provider: bool = flag("model_provider")
    auth_provider: bool = flag("auth_provider")
    frontend_auth_provider: bool = flag("frontend_auth_provider")
    scheduler: bool = flag("scheduler")
    model_router: bool = flag("model_router")
    executor: bool = flag("executor")
    request_translator: bool = flag("request_translator")
    request_normalizer: bool = flag("request_normalizer")
    request_interceptor: bool = flag("request_interceptor")
    request_lifecycle_plugin: bool = flag("request_lifecycle_plugin")
    response_translator: bool = flag("response_translator")
    response_before_translator: bool = flag("response_before_translator")
    response_after_translator: bool = flag("response_after_translator")
    response_interceptor: bool = flag("response_interceptor")
    response_stream_interceptor: bool = flag("response_stream_interceptor")
    thinking_applier: bool = flag("thinking_applier")
    usage_plugin: bool = flag("usage_plugin")
    command_line_plugin: bool = flag("command_line_plugin")
    management_api: bool = flag("management_api")
    frontend_auth_provider_exclusive: bool = flag("frontend_auth_provider_exclusive")
    executor_model_scope: str = text("executor_model_scope")
    executor_input_formats: tuple[str, ...] = strings("executor_input_formats", omit=True)
    executor_output_formats: tuple[str, ...] = strings("executor_output_formats", omit=True)

    def declared(self) -> frozenset[str]:
        """Names of the switches that are on."""
        return frozenset(name for name in SWITCHES if getattr(self, name))


SWITCHES = tuple(
    name
    for name, kind in Capabilities.__annotations__.items()
    if kind is bool and name != "frontend_auth_provider_exclusive"
)
"""The 20 capabilities."""


class RegisterReply(Message):
    """*schema_version* 0 (absent) means 1."""

    schema_version: int = number("schema_version")
    metadata: PluginMetadata = struct("metadata", PluginMetadata)
    capabilities: Capabilities = struct("capabilities", Capabilities)


class IdentifierReply(Message):
    """All four ``*.identifier`` methods: a provider key."""

    identifier: str = text("identifier")


# --- models (4.2) ----------------------------------------------------------------------------------------------------


class PluginRequest(Message):
    """`model.register`, `command_line.register`: the plugin's own metadata and nothing else."""

    plugin: PluginMetadata = struct("Plugin", PluginMetadata)


class StaticModelsRequest(Message):
    """`model.static`."""

    plugin: PluginMetadata = struct("Plugin", PluginMetadata)
    host: HostSummary = struct("Host", HostSummary)


class RegisteredModelsReply(Message):
    """`model.register`."""

    provider: str = text("Provider")
    models: tuple[ModelInfo, ...] = structs("Models", ModelInfo)


class ModelsReply(Message):
    """`model.static` (where *auth_update* means nothing), `model.for_auth`."""

    provider: str = text("Provider")
    models: tuple[ModelInfo, ...] = structs("Models", ModelInfo)
    auth_update: AuthData = struct("AuthUpdate", AuthData)


class AuthModelsRequest(Message):
    """`model.for_auth`: which models does this credential open?"""

    plugin: PluginMetadata = struct("Plugin", PluginMetadata)
    auth_id: str = text("AuthID")
    auth_provider: str = text("AuthProvider")
    storage_json: B64 = blob("StorageJSON", secret=True)
    metadata: JsonObject = any_map("Metadata", secret=True)
    attributes: dict[str, str] = string_map("Attributes", secret=True)
    host: HostSummary = struct("Host", HostSummary)


# --- provider credentials (4.3) --------------------------------------------------------------------------------------


class AuthParseRequest(Message):
    """`auth.parse`: is this credential file yours?"""

    provider: str = text("Provider")
    path: str = text("Path")
    file_name: str = text("FileName")
    raw_json: B64 = blob("RawJSON", secret=True)
    host: HostSummary = struct("Host", HostSummary)


class AuthParseReply(Message):
    """*auths*, when there are any, count instead of *auth*."""

    handled: bool = flag("Handled")
    auth: AuthData = struct("Auth", AuthData)
    auths: tuple[AuthData, ...] = structs("Auths", AuthData)


class LoginStartRequest(Message):
    """`auth.login.start`."""

    provider: str = text("Provider")
    base_url: str = text("BaseURL")
    host: HostSummary = struct("Host", HostSummary)
    metadata: JsonObject = any_map("Metadata", secret=True)


class LoginStartReply(Message):
    """Where the operator signs in, and the key under which the host remembers *metadata*."""

    provider: str = text("Provider")
    url: str = text("URL", secret=True)
    state: str = text("State", secret=True)
    expires_at: datetime = moment("ExpiresAt")
    metadata: JsonObject = any_map("Metadata", secret=True)


class LoginPollRequest(Message):
    """`auth.login.poll`. *metadata* is what start returned."""

    provider: str = text("Provider")
    state: str = text("State", secret=True)
    host: HostSummary = struct("Host", HostSummary)
    metadata: JsonObject = any_map("Metadata", secret=True)


class LoginPollReply(Message):
    """*status*: ``pending``, ``success`` or ``error``; anything else is ``pending``."""

    status: str = text("Status")
    message: str = text("Message")
    auth: AuthData = struct("Auth", AuthData)
    auths: tuple[AuthData, ...] = structs("Auths", AuthData)


class RefreshRequest(Message):
    """`auth.refresh`."""

    auth_id: str = text("AuthID")
    auth_provider: str = text("AuthProvider")
    storage_json: B64 = blob("StorageJSON", secret=True)
    metadata: JsonObject = any_map("Metadata", secret=True)
    attributes: dict[str, str] = string_map("Attributes", secret=True)
    host: HostSummary = struct("Host", HostSummary)


class RefreshReply(Message):
    """The credential's new state; its empty fields keep the old ones."""

    auth: AuthData = struct("Auth", AuthData)
    next_refresh_after: datetime = moment("NextRefreshAfter")


# --- client authentication, scheduling, routing (4.4–4.6) ------------------------------------------------------------


class FrontendAuthRequest(Message):
    """`frontend_auth.authenticate`: may this client use the proxy?"""

    method: str = text("Method")
    path: str = text("Path")
    headers: HeaderMap = list_map("Headers", secret=True)
    query: HeaderMap = list_map("Query", secret=True)
    body: B64 = blob("Body")


class FrontendAuthReply(Message):
    """*principal* stands for the client's key in records."""

    authenticated: bool = flag("Authenticated")
    principal: str = text("Principal")
    metadata: dict[str, str] = string_map("Metadata")


class PickOptions(Message):
    """What a scheduler may look at of the request."""

    headers: HeaderMap = list_map("Headers", secret=True)
    metadata: JsonObject = any_map("Metadata")


class PickCandidate(Message):
    """A credential as a scheduler may see it: nothing secret; *metadata* is always empty."""

    id: str = text("ID")
    provider: str = text("Provider")
    priority: int = number("Priority")
    status: str = text("Status")
    attributes: dict[str, str] = string_map("Attributes")
    metadata: JsonObject = any_map("Metadata")


class PickRequest(Message):
    """`scheduler.pick`. *provider* is empty when several compete."""

    plugin: PluginMetadata = struct("Plugin", PluginMetadata)
    provider: str = text("Provider")
    providers: tuple[str, ...] = strings("Providers")
    model: str = text("Model")
    stream: bool = flag("Stream")
    options: PickOptions = struct("Options", PickOptions)
    candidates: tuple[PickCandidate, ...] = structs("Candidates", PickCandidate)


class PickReply(Message):
    """*auth_id* wins over *delegate*, the name of a built-in strategy."""

    auth_id: str = text("AuthID")
    delegate: str = text("DelegateBuiltin")
    handled: bool = flag("Handled")


class RouteRequest(Message):
    """`model.route`: before model and credential resolution."""

    plugin: PluginMetadata = struct("Plugin", PluginMetadata)
    plugin_id: str = text("PluginID")
    source_format: str = text("SourceFormat")
    requested_model: str = text("RequestedModel")
    stream: bool = flag("Stream")
    headers: HeaderMap = list_map("Headers", secret=True)
    query: HeaderMap = list_map("Query", secret=True)
    body: B64 = blob("Body")
    metadata: JsonObject = any_map("Metadata")
    available_providers: tuple[str, ...] = strings("AvailableProviders")


class RouteReply(Message):
    """*target_kind*: ``self``, ``executor`` or ``provider``; others are invalid."""

    handled: bool = flag("Handled")
    target_kind: str = text("TargetKind")
    target: str = text("Target")
    model: str = text("TargetModel")
    reason: str = text("Reason")


# --- executor (4.7) --------------------------------------------------------------------------------------------------


class ExecuteRequest(Message):
    """`executor.execute`, `executor.execute_stream`, `executor.count_tokens`.

    Attributes:
      format: what the reply's payload is to be in.
      source_format: what *payload* is in; not the client's protocol.
      original_request: the client's body, in the client's protocol.
    """

    auth_id: str = text("AuthID")
    auth_provider: str = text("AuthProvider")
    model: str = text("Model")
    format: str = text("Format")
    stream: bool = flag("Stream")
    alt: str = text("Alt")
    headers: HeaderMap = list_map("Headers", secret=True)
    query: HeaderMap = list_map("Query", secret=True)
    original_request: B64 = blob("OriginalRequest")
    source_format: str = text("SourceFormat")
    payload: B64 = blob("Payload")
    metadata: JsonObject = any_map("Metadata")
    storage_json: B64 = blob("StorageJSON", secret=True)
    auth_metadata: JsonObject = any_map("AuthMetadata", secret=True)
    auth_attributes: dict[str, str] = string_map("AuthAttributes", secret=True)


class ExecuteReply(Message):
    """`executor.execute`, `executor.count_tokens`."""

    payload: bytes = data("Payload", secret=True)
    headers: HeaderMap = list_map("Headers")
    metadata: JsonObject = any_map("Metadata")


class StreamChunk(Message):
    """One chunk of an inline stream, or with *err* its end by an error, whose payload does not count.

    More than the contract has: there, anything but ``null`` fails the call (plugin-abi 10, no. 20).
    """

    payload: bytes = data("Payload", secret=True)
    err: str = error_text("Err")


class ExecuteStreamReply(Message):
    """Without *chunks* the stream stays open, and the plugin sends them by `host.stream.emit`."""

    headers: HeaderMap = list_map("headers", omit=True)
    chunks: tuple[StreamChunk, ...] = structs("chunks", StreamChunk, omit=True)


class ExecutorHttpRequest(Message):
    """`executor.http_request`: a raw request to the provider with this credential."""

    auth_id: str = text("AuthID")
    auth_provider: str = text("AuthProvider")
    method: str = text("Method")
    url: str = text("URL")
    headers: HeaderMap = list_map("Headers", secret=True)
    body: B64 = blob("Body")
    storage_json: B64 = blob("StorageJSON", secret=True)
    metadata: JsonObject = any_map("Metadata", secret=True)
    attributes: dict[str, str] = string_map("Attributes", secret=True)


class HttpReply(Message):
    """`executor.http_request`, `management.handle`. Status 0 means 200."""

    status_code: int = number("StatusCode")
    headers: HeaderMap = list_map("Headers")
    body: bytes = data("Body", secret=True)


# --- transforms (4.8) ------------------------------------------------------------------------------------------------


class RequestTransformRequest(Message):
    """`request.translate`, `request.normalize`."""

    from_format: str = text("FromFormat")
    to_format: str = text("ToFormat")
    model: str = text("Model")
    stream: bool = flag("Stream")
    body: B64 = blob("Body")


class ResponseTransformRequest(Message):
    """`response.normalize_before`, `response.translate`, `response.normalize_after`."""

    from_format: str = text("FromFormat")
    to_format: str = text("ToFormat")
    model: str = text("Model")
    stream: bool = flag("Stream")
    original_request: B64 = blob("OriginalRequest")
    translated_request: B64 = blob("TranslatedRequest")
    body: B64 = blob("Body")


class BodyReply(Message):
    """The five transforms and `thinking.apply`. Empty means "no change"."""

    body: bytes = data("Body", secret=True)


# --- interceptors and completion (4.9, 4.10) -------------------------------------------------------------------------


class InterceptRequest(Message):
    """`request.intercept_before` (``to_format`` empty), `request.intercept_after`."""

    request_id: str = text("RequestID")
    trace_id: str = text("TraceID")
    source_format: str = text("SourceFormat")
    to_format: str = text("ToFormat")
    model: str = text("Model")
    requested_model: str = text("RequestedModel")
    stream: bool = flag("Stream")
    headers: HeaderMap = list_map("Headers", secret=True)
    body: B64 = blob("Body")
    metadata: JsonObject = any_map("Metadata")


class InterceptReply(Message):
    """Header changes, a new body (empty = unchanged), or the end of the exchange."""

    headers: HeaderMap = list_map("Headers", secret=True)
    body: bytes = data("Body", secret=True)
    clear_headers: tuple[str, ...] = strings("ClearHeaders")
    terminate: bool = flag("Terminate")
    status_code: int = number("StatusCode")
    response_headers: HeaderMap = list_map("ResponseHeaders", secret=True)
    response_body: bytes = data("ResponseBody", secret=True)


class InterceptResponseRequest(Message):
    """`response.intercept_after`: a successful, complete answer; *source_format* is the exit protocol."""

    request_id: str = text("RequestID")
    source_format: str = text("SourceFormat")
    model: str = text("Model")
    requested_model: str = text("RequestedModel")
    stream: bool = flag("Stream")
    request_headers: HeaderMap = list_map("RequestHeaders", secret=True)
    response_headers: HeaderMap = list_map("ResponseHeaders", secret=True)
    original_request: B64 = blob("OriginalRequest")
    request_body: B64 = blob("RequestBody")
    body: B64 = blob("Body")
    status_code: int = number("StatusCode")
    metadata: JsonObject = any_map("Metadata")


class InterceptResponseReply(Message):
    """Header changes and a new body (empty = unchanged)."""

    headers: HeaderMap = list_map("Headers", secret=True)
    body: bytes = data("Body", secret=True)
    clear_headers: tuple[str, ...] = strings("ClearHeaders")


class InterceptChunkRequest(Message):
    """`response.intercept_stream_chunk`: index -1 for the head (no body), then 0, 1, 2 …

    Attributes:
      original_request, request_body: for plugins of schema 3 only at -1.
      history: chunks already delivered, oldest first.
    """

    request_id: str = text("RequestID")
    source_format: str = text("SourceFormat")
    model: str = text("Model")
    requested_model: str = text("RequestedModel")
    request_headers: HeaderMap = list_map("RequestHeaders", secret=True)
    response_headers: HeaderMap = list_map("ResponseHeaders", secret=True)
    original_request: B64 = blob("OriginalRequest")
    request_body: B64 = blob("RequestBody")
    body: B64 = blob("Body")
    history: tuple[B64, ...] = blobs("HistoryChunks")
    chunk_index: int = number("ChunkIndex")
    metadata: JsonObject = any_map("Metadata")


class InterceptChunkReply(Message):
    """Header changes, a new chunk (empty = unchanged), or its removal."""

    headers: HeaderMap = list_map("Headers", secret=True)
    body: bytes = data("Body", secret=True)
    clear_headers: tuple[str, ...] = strings("ClearHeaders")
    drop: bool = flag("DropChunk")


class CompletionRequest(Message):
    """`request.complete`. *outcome*: ``succeeded``, ``failed``, ``rejected`` or ``canceled`` (status 0)."""

    request_id: str = text("RequestID")
    trace_id: str = text("TraceID")
    source_format: str = text("SourceFormat")
    model: str = text("Model")
    requested_model: str = text("RequestedModel")
    stream: bool = flag("Stream")
    outcome: str = text("Outcome")
    status_code: int = number("StatusCode")
    error: str = text("Error")
    started_at: datetime = moment("StartedAt")
    completed_at: datetime = moment("CompletedAt")
    metadata: JsonObject = any_map("Metadata")


# --- thinking and usage (4.11, 4.12) ---------------------------------------------------------------------------------


class ThinkingConfig(Message):
    """What the client asked for. *mode*: ``budget`` (tokens), ``level``, ``none`` or ``auto``."""

    mode: str = text("Mode")
    budget: int = number("Budget")
    level: str = text("Level")


class ThinkingRequest(Message):
    """`thinking.apply`."""

    provider: str = text("Provider")
    model: ModelInfo = struct("Model", ModelInfo)
    config: ThinkingConfig = struct("Config", ThinkingConfig)
    body: B64 = blob("Body")


class UsageFailure(Message):
    """How an attempt failed; zero when it did not."""

    status_code: int = number("StatusCode")
    body: str = text("Body", secret=True)


class UsageDetail(Message):
    """Tokens."""

    input_tokens: int = number("InputTokens")
    output_tokens: int = number("OutputTokens")
    reasoning_tokens: int = number("ReasoningTokens")
    cached_tokens: int = number("CachedTokens")
    cache_read_tokens: int = number("CacheReadTokens")
    cache_creation_tokens: int = number("CacheCreationTokens")
    total_tokens: int = number("TotalTokens")


class UsageRequest(Message):
    """`usage.handle`: one upstream attempt. *api_key* is the client's principal. Durations are in nanoseconds."""

    provider: str = text("Provider")
    executor_type: str = text("ExecutorType")
    model: str = text("Model")
    alias: str = text("Alias")
    api_key: str = text("APIKey", secret=True)
    auth_id: str = text("AuthID")
    auth_index: str = text("AuthIndex")
    auth_type: str = text("AuthType")
    source: str = text("Source")
    reasoning_effort: str = text("ReasoningEffort")
    service_tier: str = text("ServiceTier")
    generate: bool = flag("Generate")
    requested_at: datetime = moment("RequestedAt")
    latency_ns: int = number("Latency")
    ttft_ns: int = number("TTFT")
    failed: bool = flag("Failed")
    failure: UsageFailure = struct("Failure", UsageFailure)
    detail: UsageDetail = struct("Detail", UsageDetail)
    response_headers: HeaderMap = list_map("ResponseHeaders")


# --- command line (4.13) ---------------------------------------------------------------------------------------------


class FlagSpec(Message):
    """A flag that a plugin wants. *type*: empty = ``bool``."""

    name: str = text("Name")
    usage: str = text("Usage")
    type: str = text("Type")
    default_value: str = text("DefaultValue")


class FlagsReply(Message):
    """`command_line.register`."""

    flags: tuple[FlagSpec, ...] = structs("Flags", FlagSpec)


class FlagValue(Message):
    """A flag of the process as parsed; *type* is empty for the host's own."""

    name: str = text("Name")
    type: str = text("Type")
    value: str = text("Value")
    set: bool = flag("Set")


class CommandLineRequest(Message):
    """`command_line.execute`. *flags*: all of the process; *triggered_flags*: this plugin's that were given."""

    plugin: PluginMetadata = struct("Plugin", PluginMetadata)
    program: str = text("Program")
    args: tuple[str, ...] = strings("Args")
    config_path: str = text("ConfigPath")
    host: HostSummary = struct("Host", HostSummary)
    flags: dict[str, FlagValue] = struct_map("Flags", FlagValue)
    triggered_flags: dict[str, FlagValue] = struct_map("TriggeredFlags", FlagValue)


class CommandLineReply(Message):
    """Output for the process, credentials to save, exit code."""

    stdout: bytes = data("Stdout")
    stderr: bytes = data("Stderr")
    auths: tuple[AuthData, ...] = structs("Auths", AuthData)
    exit_code: int = number("ExitCode")


# --- management (4.14) -----------------------------------------------------------------------------------------------


class ManagementRegisterRequest(Message):
    """`management.register`."""

    plugin: PluginMetadata = struct("Plugin", PluginMetadata)
    base_path: str = text("BasePath")
    resource_base_path: str = text("ResourceBasePath")


class ManagementRoute(Message):
    """A route behind the management key. *handler* cannot travel."""

    method: str = text("Method")
    path: str = text("Path")
    menu: str = text("Menu")
    description: str = text("Description")
    handler: None = nothing("Handler")


class ManagementResource(Message):
    """A page without key. *handler* cannot travel."""

    path: str = text("Path")
    menu: str = text("Menu")
    description: str = text("Description")
    handler: None = nothing("Handler")


class ManagementRegisterReply(Message):
    """What a plugin serves."""

    routes: tuple[ManagementRoute, ...] = structs("routes", ManagementRoute, omit=True)
    resources: tuple[ManagementResource, ...] = structs("resources", ManagementResource, omit=True)


class ManagementRequest(Message):
    """`management.handle`. *path* is the full path."""

    method: str = text("Method")
    path: str = text("Path")
    headers: HeaderMap = list_map("Headers", secret=True)
    query: HeaderMap = list_map("Query", secret=True)
    body: B64 = blob("Body")
