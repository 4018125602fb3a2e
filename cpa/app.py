"""The composition root: builds everything from a configuration, owns the top nurseries, swaps snapshots."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from cpa.config.changes import describe_changes, restart_needed
from cpa.config.editing import open_editor
from cpa.config.load import Loaded
from cpa.config.schema import Config, StateBackend
from cpa.config.sealing import HASH_PREFIXES
from cpa.config.watch import reload, watch_config
from cpa.credentials.files import DIRECTORY_MODE
from cpa.credentials.from_config import credentials_from_config
from cpa.credentials.model import Credential
from cpa.errors import ConfigError, CpaError, StartError
from cpa.garbage import settle
from cpa.host.plugins import PluginHost, open_plugin_host
from cpa.masking import Secrets, environment_secrets
from cpa.observability.live import Live
from cpa.observability.log import get_logger
from cpa.observability.metrics import Metrics, NullMetrics, PrometheusMetrics
from cpa.observability.request_log import RequestLogs, RequestLogSettings, open_request_logs
from cpa.observability.sink import LogSink, StreamDestination, log_directory, open_sink
from cpa.pipeline.chains import Chain
from cpa.pipeline.compiling import compile_chains
from cpa.pipeline.completions import open_completions
from cpa.pipeline.stage import Registration
from cpa.runtime import RuntimeBuilder, native_parts
from cpa.scheduling.saved import open_saver
from cpa.scheduling.scheduler import Scheduling
from cpa.scheduling.store import StateStore
from cpa.server.gateway import Gateway
from cpa.server.listener import ClientServer, make_server
from cpa.server.management.keys import ManagementKeys
from cpa.server.resp import serve_resp
from cpa.server.sockets import Listeners, listen_addresses
from cpa.server.state import ServerState
from cpa.starting import DEFAULTS, FORCED_EXIT, Options, apply_logging, bind
from cpa.upstream.client import UpstreamClients, open_clients
from cpa.upstream.outbound import OutboundCalls
from cpa.usage.collector import open_collector
from cpa.usage.identity import client_id
from cpa.usage.limit_store import MemoryLimitStore
from cpa.usage.service import UsageServices, open_usage
from cpa.version import VERSION
from cpa.workers import Place, follow_supervisor

log = get_logger()

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


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
        try:
            if not await self._read_again():
                await self.plugins.apply(self.loaded.config.plugins)  # whoever asks may have put a library there
        except ConfigError as exc:
            self.state.metrics.config_reloaded(ok=False)
            log.error("config.refused", problems=exc.problems, hint="the previous configuration stays in force")
            return
        await self.seal_key()

    async def take_edit(self) -> None:
        """As `reload`, for the editor, which has just written the file. Raises: ConfigError."""
        await self._read_again()

    async def seal_key(self) -> None:
        """Replace a management key that stands in the file in clear by its hash, or say why that cannot be done."""
        editor = self.state.editor
        secret = self.loaded.config.remote_management.secret_key
        if editor is None or not secret or secret.startswith(HASH_PREFIXES):
            return
        try:
            await editor.seal()
        except CpaError as exc:
            log.warning("management.key_in_clear", file=str(editor.path), error=str(exc), hint="it works all the same")

    async def _read_again(self) -> bool:
        """Swap in what the file says by now. Returns: whether that was anything new. Raises: ConfigError."""
        if self.options.config is None:
            return False
        async with self._reloading:
            loaded = await reload(self.options.config, self.loaded)
            if loaded is not None:
                await self._adopt(loaded)
            return loaded is not None

    async def _adopt(self, loaded: Loaded) -> None:
        old, new = self.loaded.config, loaded.config
        # Requests that run on use the old ones, and a key that was taken out of use here is still a key.
        self._secrets.configs = (old, new)
        self._secrets.renew(self.plugins)
        managed = self.state.keys.enabled(new.remote_management)
        self.state.live.enabled = managed
        await self.state.usage.configure(new, managed=managed)
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
        self.state.draining.set()
        self.server.drain()


@asynccontextmanager
async def open_app(
    loaded: Loaded,
    *,
    options: Options = DEFAULTS,
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
    await require_auth_dir(config)
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
        clients = await stack.enter_async_context(
            open_clients(connect_seconds=config.limits.connect_seconds, tls_at_once=wants_tls(config))
        )
        keys = ManagementKeys("".join(environment_secrets()))
        usage = await stack.enter_async_context(open_usage(config, managed=keys.enabled(config.remote_management)))

        def plugins_changed() -> None:
            secrets.renew(plugins)
            state.runtime = builder.build(state.runtime.config)
            usage.queue.refreshed()

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
        scheduling = Scheduling(store=await open_state(config, usage, stack))
        live = Live(
            enabled=keys.enabled(config.remote_management),
            label=lambda principal: client_id(principal).label,
            redact=secrets.known.redact_text,
        )
        accounts = await stack.enter_async_context(
            # Tokens are counted for who watches, too.
            open_collector(plugins.usage_sinks, current_taps=lambda: usage.current_taps() or live.taps)
        )
        builder = RuntimeBuilder(
            clients=clients,
            completions=completions,
            scheduling=scheduling,
            plugins=plugins,
            accounts=accounts,
            watcher=live,
            registrations=tuple(registrations),
            chains=own_chains,
        )
        state = ServerState(
            runtime=builder.build(config),
            metrics=make_metrics(config, clients, sink, request_logs),
            request_logs=request_logs,
            plugins=plugins,
            keys=keys,
            usage=usage,
            live=live,
            log_sink=sink,
            outbound=OutboundCalls(clients=clients),
        )

        def cooldown_directory() -> Path | None:
            present = state.runtime.config
            return present.auth_dir if present.save_cooldown_status else None

        await stack.enter_async_context(open_saver(scheduling.health, cooldown_directory))
        if options.config is not None:
            state.editor = await stack.enter_async_context(
                open_editor(options.config, current=lambda: app.loaded, apply=lambda: app.take_edit())
            )
        server = make_server(Gateway(state), config)
        server.foreign = partial(serve_resp, state)
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
        await app.seal_key()
        state.ready = True
        try:
            yield app
        finally:
            state.ready = False
            nursery.cancel_scope.cancel()


def is_reserved(method: str, path: str) -> bool:
    """Whether a native management endpoint has this method and full path: no plugin can have it.

    Only plugins with routes of their own ask, and the endpoints are fifty modules.
    """
    from cpa.server.management.routes import is_reserved as found

    return found(method, path)


async def require_auth_dir(config: Config) -> None:
    """Make the folder of credentials. Raises: StartError when that fails and somebody asked for that folder.

    Without the default one a proxy still serves the keys of its configuration: containers have homes that cannot be
    written.
    """
    if config.auth_dir == Config().auth_dir:
        await trio.lowlevel.checkpoint()
        return
    make = partial(config.auth_dir.mkdir, mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    try:
        await trio.to_thread.run_sync(make)
    except OSError as exc:
        raise StartError(f"auth-dir: cannot make {config.auth_dir}: {exc.strerror}") from exc


async def open_state(config: Config, usage: UsageServices, stack: AsyncExitStack) -> StateStore | None:
    """The store that *config* wants, closed with *stack*; None = the memory of this process."""
    if config.state.backend is not StateBackend.REDIS:
        return None
    from cpa.state.service import open_shared_state  # its client library takes a third of a start

    counters = usage.limiter.store
    limits = counters if isinstance(counters, MemoryLimitStore) else None
    return await stack.enter_async_context(open_shared_state(config.state.url, limits))


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
            from cpa.demo import with_demo_provider  # a whole provider, for demos only

            loaded = await with_demo_provider(loaded, stack)
        sink = LogSink(StreamDestination(sys.stdout.fileno()))
        app = await stack.enter_async_context(
            open_app(loaded, options=options, listeners=listeners, registrations=registrations, sink=sink)
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        if options.config is not None:

            async def watch(task_status: trio.TaskStatus[None]) -> None:
                assert options.config is not None
                known = app.loaded.digest  # not that of *loaded*: a key may have been sealed since
                await watch_config(options.config, on_change=app.reload, digest=known, task_status=task_status)

            await nursery.start(watch)
        settle()
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


def wants_tls(config: Config) -> bool:
    """Whether a configured provider is reached by ``https``."""
    return any(not found.base_url.lower().startswith("http://") for found in credentials_from_config(config))


def proxy_settings(config: Config, from_files: Iterable[Credential] = ()) -> Iterator[tuple[str, str]]:
    """(credential, global) proxy settings that *config* and the credentials *from_files* can lead to."""
    for credential in (*credentials_from_config(config), *from_files):
        yield credential.proxy_url, config.proxy_url


def report(loaded: Loaded) -> None:
    """Log what the configuration's reader had to say."""
    for warning in loaded.warnings:
        log.warning("config.ignored", detail=warning)


def warn_if_open(config: Config, options: Options) -> None:
    """An open proxy on a public address spends its owner's money for anybody."""
    host = config.host if options.host is None else options.host
    if not config.api_keys and host not in LOOPBACK_HOSTS:
        log.warning("access.open", host=host or "*", hint="api-keys is empty: everybody who reaches this may use it")
