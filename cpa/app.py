"""The composition root: builds everything from a configuration, owns the top nurseries, swaps snapshots."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from time import time
from typing import Any

import attrs
import trio

from cpa.config.load import Loaded, parse_config
from cpa.config.schema import Config
from cpa.config.watch import describe_changes, reload, restart_keys_changed, watch_config
from cpa.credentials.from_config import credentials_from_config, provider_key
from cpa.credentials.model import FROM_CONFIG, Credential
from cpa.errors import ConfigError, CpaError
from cpa.formats.redaction import is_secret_header_name
from cpa.host.plugin_models import Native
from cpa.host.plugins import PluginHost, open_plugin_host
from cpa.models.profiles import profile_of
from cpa.models.registry import ModelRegistry
from cpa.observability.log import configure_logging, get_logger
from cpa.observability.metrics import Metrics, NullMetrics, PrometheusMetrics
from cpa.observability.redact import KnownSecrets
from cpa.observability.request_log import RequestLogs, RequestLogSettings, open_request_logs
from cpa.observability.sink import FileDestination, LogSink, StreamDestination, log_directory, open_sink
from cpa.pipeline.chains import Chain, Compiled, of_config
from cpa.pipeline.compiling import compile_chains
from cpa.pipeline.completions import Completions, open_completions
from cpa.pipeline.payload import payload_of
from cpa.pipeline.plan import Plan
from cpa.pipeline.runner import Services
from cpa.pipeline.stage import Registration, StageKind
from cpa.pipeline.translating import TranslationServices
from cpa.scheduling.round_robin import RoundRobin
from cpa.server.access import Access
from cpa.server.http import make_app
from cpa.server.listener import (
    ClientServer,
    Listeners,
    inherited_listeners,
    listen_addresses,
    make_server,
    open_listeners,
)
from cpa.server.management.keys import ManagementKeys
from cpa.server.management.routes import is_reserved
from cpa.server.state import Runtime, ServerState
from cpa.testing.mock import serve_mock
from cpa.translation.context import TranslationSettings
from cpa.translation.signatures import SignatureCache
from cpa.translation.store import ResponseStore
from cpa.types import Accounts, Executor, Scheduler
from cpa.upstream.client import UpstreamClients, open_clients
from cpa.upstream.executor import UpstreamSettings, executors
from cpa.upstream.proxies import DIRECT_VALUES
from cpa.usage.collector import open_collector
from cpa.version import VERSION
from cpa.workers import Place, follow_supervisor

log = get_logger()

DEMO_PROVIDER = "http://127.0.0.1:8318"
"""Where the demo configuration expects the mock provider; the demo puts its real address there."""
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
COMPATIBLE_PROVIDER = provider_key("")
"""Provider key of endpoints that speak OpenAI's protocol and have no name."""
MANAGEMENT_PASSWORD = "MANAGEMENT_PASSWORD"
"""Environment variable: a management key beside the configured one; it also lets in those who come from elsewhere."""
MIN_RANDOM_CHARS = 12
"""Shorter values under harmless names are taken for settings; real keys have 20 and more."""
FORCED_EXIT = 130
"""Exit code when a second signal ended the program at once."""


class StartError(CpaError):
    """The server cannot start: address in use, unreadable certificate, …"""


@attrs.frozen(kw_only=True)
class Options:
    """What the command line may override.

    Attributes:
      config: the file to serve and to watch; None = the demo.
      place: among the workers of one port; None = alone.
    """

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    place: Place | None = None


@attrs.define(kw_only=True, eq=False)
class App:
    """A running proxy; made by `open_app`.

    Attributes:
      addresses: where it listens, ``http://HOST:PORT``.
      loaded: the configuration in force.
    """

    options: Options
    loaded: Loaded
    state: ServerState
    server: ClientServer
    addresses: tuple[str, ...]
    _clients: UpstreamClients
    _builder: "RuntimeBuilder"
    plugins: PluginHost
    _secrets: "Secrets"
    _sink: LogSink | None
    _reloading: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def reload(self) -> None:
        """Read the configuration again and swap it in whole; a broken one changes nothing and is reported.

        One at a time: a file that was read earlier never replaces one that was read later.
        """
        if self.options.config is not None:
            async with self._reloading:
                await self._reload(self.options.config)

    async def _reload(self, path: Path) -> None:
        try:
            loaded = await reload(path, self.loaded)
        except ConfigError as exc:
            self.state.metrics.config_reloaded(ok=False)
            log.error("config.refused", problems=exc.problems, hint="the previous configuration stays in force")
            return
        if loaded is None:
            await self.plugins.apply(self.loaded.config.plugins)  # whoever asks may have put a library there
            return
        old, new = self.loaded.config, loaded.config
        # Requests that run on use the old ones, and a key that was taken out of use here is still a key.
        self._secrets.configs = (old, new)
        self._secrets.renew(self.plugins)
        self.state.runtime = self._builder.build(new)
        self.server.limits = new.limits
        self.state.request_logs.configure(request_log_settings(new))
        if self._sink is not None:
            try:
                apply_logging(new, self._sink, self._secrets.known)
            except StartError as exc:
                log.error("log.unchanged", error=str(exc))
        self.loaded = loaded
        await self._clients.retire_unused(proxy_settings(new, self.plugins.accounts.snapshot.credentials))
        await self.plugins.apply(new.plugins)
        self.state.metrics.config_reloaded(ok=True)
        for setting in restart_needed(old, new):
            log.warning("config.restart_needed", setting=setting)
        log.info("config.reloaded", changes=describe_changes(old, new))
        report(loaded)

    def drain(self) -> None:
        """Accept nobody any more and let what runs finish within the grace time."""
        log.info("server.draining", connections=len(self.server.connections))
        self.server.drain()


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


@attrs.define(kw_only=True, eq=False)
class RuntimeBuilder:
    """Makes snapshots; holds what survives a reload.

    Attributes:
      registrations: stages of in-process Python code.
      chains: of in-process Python code; they come before those of configurations.
      plugins: whose stages join them.
      signatures, responses: what translation keeps for clients that cannot, or do not want to.
    """

    clients: UpstreamClients
    completions: Completions
    scheduler: Scheduler
    plugins: PluginHost
    accounts: Accounts
    registrations: tuple[Registration, ...] = ()
    chains: tuple[Compiled, ...] = ()
    signatures: SignatureCache = attrs.field(factory=SignatureCache)
    responses: ResponseStore = attrs.field(factory=ResponseStore)

    def build(self, config: Config) -> Runtime:
        """The snapshot of *config*."""
        accounts = self.plugins.accounts.snapshot
        credentials = (*credentials_from_config(config), *accounts.credentials)
        native = native_executors(self.clients, config, credentials)
        by_provider = {**self.plugins.executors(), **native}
        for credential in accounts.credentials:
            if credential.base_url:  # of a plugin that leaves the execution to us (plugin-abi 4.3.4)
                by_provider.setdefault(credential.provider, native[COMPATIBLE_PROVIDER])
        for provider in {c.provider for c in credentials if c.source == FROM_CONFIG} - set(by_provider):
            log.warning("provider.unsupported", provider=provider, hint="its credentials are not used yet")
        models = ModelRegistry(
            credentials,
            by_provider,
            plugin_models=accounts.models,
            excluded_by_provider=config.oauth_excluded_models,
            aliases_by_provider=config.oauth_model_alias,
            force_prefix=config.force_model_prefix,
            created_unix=int(time()),
        )
        # They were judged when the configuration was read: this raises nothing.
        configured = compile_chains(map(of_config, config.pipeline.chains), where="pipeline.chains")
        plan = Plan.build(self.registrations + self.plugins.registrations(), (*self.chains, *configured))
        return Runtime(
            config=config,
            access=self._access(config, plan),
            models=models,
            services=Services(
                plan=plan,
                models=models,
                scheduler=self.scheduler,
                completions=self.completions,
                passthrough_headers=config.passthrough_headers,
                max_event_bytes=config.limits.sse_event_bytes,
                nested_depth=config.limits.nested_depth,
                translation=TranslationServices(
                    settings=TranslationSettings(
                        strict=config.translation.strict, report_losses=config.translation.report_losses
                    ),
                    profile_of=profile_of,
                    signatures=self.signatures.of_tenant,
                    responses=self.responses.of_tenant,
                ),
                accounts=self.accounts,
                direct=self.plugins.direct(),
                payload=payload_of(config),
                thinking_of=models.thinking,
                answer_name=models.answer_name,
            ),
        )

    def _access(self, config: Config, plan: Plan) -> Access:
        """Keys, then plugins; an exclusive plugin decides alone."""
        providers = plan.of(StageKind.FRONTEND_AUTH)
        exclusive = self.plugins.exclusive_auth()
        if exclusive is None:
            return Access(config.api_keys, providers)
        return Access((), tuple(entry for entry in providers if entry.plugin_id == exclusive))


def native_executors(
    clients: UpstreamClients, config: Config, credentials: Iterable[Credential]
) -> Mapping[str, Executor]:
    """Who serves *credentials* without a plugin, by provider key."""
    found = {credential.provider for credential in credentials}
    return executors(clients, UpstreamSettings.of(config), {*found, COMPATIBLE_PROVIDER})


def native_parts(clients: UpstreamClients, config: Config, from_files: Sequence[Credential]) -> Native:
    """What needs no plugin, of *config* and the credentials that plugins read *from_files*."""
    configured = credentials_from_config(config)
    credentials = (*configured, *from_files)
    by_provider = native_executors(clients, config, credentials)
    models = ModelRegistry(credentials, by_provider, force_prefix=config.force_model_prefix)
    return Native(
        providers=frozenset(by_provider),
        models=frozenset(card.id for card in models.cards),
        credential_ids=frozenset(credential.id for credential in configured),
    )


@asynccontextmanager
async def open_app(
    loaded: Loaded,
    *,
    options: Options = Options(),
    listeners: Listeners | None = None,
    registrations: Iterable[Registration] = (),
    chains: Iterable[Chain] = (),
    sink: LogSink | None = None,
) -> AsyncIterator[App]:
    """Run a proxy while the block runs.

    Args:
      listeners: bound and listening; None = bind as *loaded* and *options* say.
      registrations: stages of in-process Python code; plugins add theirs.
      chains: steps for some requests and their answers; the first that matches is used, before those of *loaded*.
      sink: where the log goes; None leaves logging alone, for embedders.

    Raises: StartError; ConfigError for a chain that makes no sense. Cancellation and the end of the block close
      everything at once; call `App.drain` and let `serve` finish for a graceful end.
    """
    config = loaded.config
    own_chains = compile_chains(chains)
    secrets = Secrets((config,))
    secrets.renew()
    listeners = listeners or await bind(config, options)
    async with AsyncExitStack() as stack:
        if sink is not None:
            apply_logging(config, sink, secrets.known)
            await stack.enter_async_context(open_sink(sink))
        request_logs: RequestLogs = await stack.enter_async_context(
            open_request_logs(request_log_settings(config), secrets=secrets.known)
        )
        clients = await stack.enter_async_context(open_clients(connect_seconds=config.limits.connect_seconds))

        def plugins_changed() -> None:
            secrets.renew(plugins)
            state.runtime = builder.build(state.runtime.config)

        # First in, last out: what the others still have to tell plugins at the end finds them alive.
        plugins = await stack.enter_async_context(
            open_plugin_host(
                clients=clients,
                config=lambda: state.runtime.config,
                current=lambda: state.runtime.services,
                on_change=plugins_changed,
                config_path=options.config or Path("demo.yaml"),
                reserved_route=is_reserved,
                native=partial(native_parts, clients),
            )
        )
        completions = await stack.enter_async_context(open_completions())
        usage = await stack.enter_async_context(open_collector(plugins.usage_sinks))
        builder = RuntimeBuilder(
            clients=clients,
            completions=completions,
            scheduler=RoundRobin(),
            plugins=plugins,
            accounts=usage,
            registrations=tuple(registrations),
            chains=own_chains,
        )
        state = ServerState(
            runtime=builder.build(config),
            metrics=make_metrics(config, clients, sink, request_logs),
            request_logs=request_logs,
            plugins=plugins,
            keys=ManagementKeys("".join(environment_secrets())),
        )
        server = make_server(make_app(state), config)
        await plugins.apply(config.plugins)
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(server.serve, listeners)
        report(loaded)
        warn_if_open(config, options)
        app = App(
            options=options,
            loaded=loaded,
            state=state,
            server=server,
            addresses=listen_addresses(listeners, tls=config.tls.enable),
            clients=clients,
            builder=builder,
            plugins=plugins,
            secrets=secrets,
            sink=sink,
        )
        state.ready = True
        try:
            yield app
        finally:
            state.ready = False
            nursery.cancel_scope.cancel()


async def bind(config: Config, options: Options) -> Listeners:
    """Listening sockets for *config*, as *options* override it. Raises: StartError."""
    host = config.host if options.host is None else options.host
    port = config.port if options.port is None else options.port
    try:
        if options.place is not None:
            return inherited_listeners(config, options.place.listening)
        return await open_listeners(config, host=host, port=port)
    except OSError as exc:  # ssl.SSLError is one
        raise StartError(f"cannot listen on {host or '*'}:{port}: {exc}") from exc


async def serve(
    loaded: Loaded,
    options: Options,
    *,
    announce: Callable[[str], None],
    registrations: Iterable[Registration] = (),
) -> int:
    """Serve *loaded* in this process until a signal says to stop. Returns: the exit code. Raises: StartError.

    SIGTERM and SIGINT drain, a second one ends at once, SIGHUP and a change of the file reload.
    """
    # Before any nursery: what cannot start says so plainly, not in a group of exceptions.
    listeners = await bind(loaded.config, options)
    async with AsyncExitStack() as stack:
        # First of all: who sees the server ready may send a signal at once, and SIGHUP kills whoever is unprepared.
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        if options.config is None:
            loaded = await with_demo_provider(loaded, stack)
        sink = LogSink(StreamDestination(sys.stdout.fileno()))
        app = await stack.enter_async_context(
            open_app(loaded, options=options, listeners=listeners, registrations=registrations, sink=sink)
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        if options.config is not None:

            async def watch(task_status: trio.TaskStatus[None]) -> None:
                assert options.config is not None
                await watch_config(options.config, on_change=app.reload, digest=loaded.digest, task_status=task_status)

            await nursery.start(watch)
        if options.place is None:
            for address in app.addresses:
                announce(f"listening on {address}")
        else:
            nursery.start_soon(work_for, options.place, app)
        code = await until_stopped(app, signals)
        nursery.cancel_scope.cancel()
        return code


async def work_for(place: Place, app: App) -> None:
    """Serve as long as there is a supervisor: nobody else starts this process again or passes on signals."""
    await follow_supervisor(place)
    if not app.server.draining:
        log.warning("supervisor.gone", hint="this worker ends")
        app.drain()


async def until_stopped(app: App, signals: AsyncIterator[int]) -> int:
    """Act on *signals* until the server has ended. Returns: the exit code."""
    code = 0
    async with trio.open_nursery() as nursery:

        async def wait_for_end() -> None:
            await app.server.ended.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_for_end)
        async for number in signals:
            if number == signal.SIGHUP:
                await app.reload()
            elif not app.server.draining:
                app.drain()
            else:
                log.warning("server.stopped_at_once", signal=signal.Signals(number).name)
                code = FORCED_EXIT
                nursery.cancel_scope.cancel()
    return code


async def with_demo_provider(loaded: Loaded, stack: AsyncExitStack) -> Loaded:
    """Run a mock provider in *stack* and return the demo's configuration with its address."""
    nursery = await stack.enter_async_context(trio.open_nursery())
    stack.callback(nursery.cancel_scope.cancel)

    async def provider(task_status: trio.TaskStatus[int]) -> None:
        await serve_mock(host="127.0.0.1", port=0, task_status=task_status)

    port: int = await nursery.start(provider)
    text = demo_text().replace(DEMO_PROVIDER, f"http://127.0.0.1:{port}")
    return attrs.evolve(loaded, config=parse_config(text, file="demo.yaml").config)


def load_demo() -> Loaded:
    """The demo's configuration as it is shipped."""
    return parse_config(demo_text(), file="demo.yaml")


def demo_text() -> str:
    """The file behind ``--demo``."""
    return files("cpa").joinpath("demo.yaml").read_text(encoding="utf-8")


def apply_logging(config: Config, sink: LogSink, secrets: KnownSecrets) -> None:
    """Point the application log where *config* wants it. Raises: StartError when no file can be written there."""
    total_bytes = config.logs_max_total_size_mb << 20
    present = sink.destination
    if not config.logging_to_file:
        if isinstance(present, FileDestination):
            sink.redirect(StreamDestination(sys.stdout.fileno()))
    elif isinstance(present, FileDestination):
        present.max_total_bytes = total_bytes
    else:
        directory = log_directory(os.environ, config.auth_dir)
        try:
            sink.redirect(FileDestination(directory, max_total_bytes=total_bytes))
        except OSError as exc:
            raise StartError(f"logging-to-file: cannot write to {directory}: {exc}") from exc
    configure_logging(format=config.logging.format.value, debug=config.debug, sink=sink, secrets=secrets)


def request_log_settings(config: Config) -> RequestLogSettings:
    """The part of *config* that request logs need."""
    return RequestLogSettings(
        directory=log_directory(os.environ, config.auth_dir),
        enabled=config.request_log,
        commercial=config.commercial_mode,
        error_files=config.error_logs_max_files,
        version=VERSION,
    )


def make_metrics(config: Config, clients: UpstreamClients, sink: LogSink | None, request_logs: RequestLogs) -> Metrics:
    """Metrics, or nothing that looks like them."""
    if not config.metrics.enabled:
        return NullMetrics()
    metrics = PrometheusMetrics()
    metrics.watch_connections(lambda: clients.stats().open_connections, lambda: clients.stats().idle_connections)
    metrics.watch_dropped(lambda: 0 if sink is None else sink.dropped, lambda: request_logs.dropped)
    return metrics


def proxy_settings(config: Config, from_files: Iterable[Credential] = ()) -> Iterator[tuple[str, str]]:
    """(credential, global) proxy settings that *config* and the credentials *from_files* can lead to."""
    for credential in (*credentials_from_config(config), *from_files):
        yield credential.proxy_url, config.proxy_url


def restart_needed(old: Config, new: Config) -> Iterator[str]:
    """Keys whose new values are not in force: what depends on them was built once and outlives reloads."""
    yield from restart_keys_changed(old, new)
    if old.limits.connect_seconds != new.limits.connect_seconds:
        yield "limits.connect-seconds"
    if old.metrics.enabled != new.metrics.enabled:
        yield "metrics.enabled"


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


def environment_secrets() -> tuple[str, ...]:
    """The management password of the environment, if there is one."""
    password = os.environ.get(MANAGEMENT_PASSWORD, "").strip()
    return (password,) if password else ()


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


def report(loaded: Loaded) -> None:
    """Log what the configuration's reader had to say."""
    for warning in loaded.warnings:
        log.warning("config.ignored", detail=warning)


def warn_if_open(config: Config, options: Options) -> None:
    """An open proxy on a public address spends its owner's money for anybody."""
    host = config.host if options.host is None else options.host
    if not config.api_keys and host not in LOOPBACK_HOSTS:
        log.warning("access.open", host=host or "*", hint="api-keys is empty: everybody who reaches this may use it")
