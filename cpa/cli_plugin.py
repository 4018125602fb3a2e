"""`cpa plugin …` and plugins in `cpa plan`: what is read, loaded and printed."""

import argparse
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from cpa.abi import methods, wire
from cpa.abi.codec import Message, codec, flag, undecoded
from cpa.abi.envelope import (
    EMPTY_RESULT,
    HostCallError,
    PluginCallError,
    decode_host_request,
    decode_reply,
    encode_host_error,
    find_host_method,
)
from cpa.abi.errors import PluginError
from cpa.abi.gojson import GoJsonError, Tree
from cpa.abi.methods import DEFAULT_TIMEOUT_S, METHODS, Direction, Method
from cpa.abi.transport import HostCallHandler, LogLine, LogStream, PluginReply, PluginTransport
from cpa.abi.wire_host import LogRequest
from cpa.cli_new import add_new_command
from cpa.config.load import Loaded, load_config
from cpa.config.schema import Config, Isolation, PluginsConfig
from cpa.errors import ConfigError, CpaError
from cpa.host.adapters import registrations
from cpa.host.discovery import discover, split_name
from cpa.host.generation import TransportOpener
from cpa.host.manager import PluginManager, open_plugins
from cpa.host.plugin import PluginState, PluginStatus
from cpa.host.plugins import lazy_opener
from cpa.host.registration import greet
from cpa.host.services import HostServices, open_host_services
from cpa.observability.log import configure_logging
from cpa.observability.sink import LogSink
from cpa.pipeline.stage import Registration
from cpa.types import PluginId
from cpa.upstream.client import open_clients

if TYPE_CHECKING:
    from cpa.testing.conformance import Check, Planned

FAILED: Final = 1
WRONG_USAGE: Final = 2
NO_PROXY: Final = "there is no proxy here: cpa plugin call answers only host.log"
DEFAULT_CONFIG_YAML: Final = b"enabled: true\npriority: 0\n"
"""What the host sends to a plugin whose entry says no more than that it is enabled."""
CHECK_TIMEOUT_S: Final = 10.0

LIST_EPILOG = """\
Loads every enabled plugin in a process of its own, says what became of it, and ends it again.

examples:
  cpa plugin list --config config.yaml
  cpa plugin list --json | jq '.plugins[] | select(.state == "failed")'

exit codes: 0, 1 when an enabled plugin could not be registered, 2 for a wrong configuration
"""
CALL_EPILOG = """\
The request on standard input goes to the plugin as it is, byte for byte; none at all stands for {}. The result of the
reply's envelope is printed, an error goes to standard error. Any method may be called, also one of your own. Of the
plugin's own host calls only host.log is answered; there is no proxy behind the others.

examples:
  cpa plugin call acme.so executor.identifier < /dev/null
  cpa plugin call acme.so request.normalize < request.json
  echo '{"ChunkIndex":-1}' | cpa plugin call acme.so response.intercept_stream_chunk --raw

exit codes: 0, 1 when the plugin could not be loaded or the call failed, 2 for wrong usage
"""
CHECK_EPILOG = """\
The conformance kit for authors of plugins: drives every method of every capability that the plugin declares, with good,
empty, broken, wrongly typed and oversized requests, several at once, and from within its own host calls; looks for
replies that cannot be freed, registrations that change, and an end that does not come. Unusual answers are warnings.
A crash or a hang fails the check that it happens in, and the kit goes on with a new process.

examples:
  cpa plugin check acme.so
  cpa plugin check acme.so --isolation both --config-yaml acme.yaml --timeout 3
  cpa plugin check acme.so --json > report.json

exit codes: 0, 1 when a check failed, 2 for wrong usage
"""


# --- arguments -------------------------------------------------------------------------------------------------------


def add_plugin_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    add_config: Callable[[argparse.ArgumentParser], None],
    *,
    summary: str,
) -> None:
    """`cpa plugin list | call | check | new`.

    Args:
      add_config: adds the option that names the configuration.
      summary: the line of all of them in the list of commands.
    """
    plugin = commands.add_parser("plugin", help=summary)
    actions = plugin.add_subparsers(dest="action", metavar="ACTION", required=True)

    command = _add(actions, "list", "every plugin that was found or is configured, and its state", LIST_EPILOG)
    add_config(command)
    command.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    command.set_defaults(run=run_list)

    command = _add(actions, "call", "call one method of a library", CALL_EPILOG)
    command.add_argument("file", type=Path, metavar="FILE.so", help="the library")
    command.add_argument("method", metavar="METHOD", type=method_name, help="wire name, e.g. request.normalize")
    _add_isolation(command, ("process", "inline"))
    _add_settings(command)
    command.add_argument("--no-register", action="store_true", help="do not call plugin.register first")
    command.add_argument("--raw", action="store_true", help="print the reply as it came, envelope and all")
    command.add_argument(
        "--timeout", type=seconds, default=DEFAULT_TIMEOUT_S, metavar="S", help="for each call (default: %(default)g)"
    )
    command.set_defaults(run=run_call)

    command = _add(actions, "check", "test a library against the contract", CHECK_EPILOG)
    command.add_argument("file", type=Path, metavar="FILE.so", help="the library")
    _add_isolation(command, ("process", "inline", "both"))
    _add_settings(command)
    command.add_argument(
        "--timeout",
        type=seconds,
        default=CHECK_TIMEOUT_S,
        metavar="S",
        help="for each call (default: %(default)g)",
    )
    command.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    command.set_defaults(run=run_check)

    add_new_command(actions)


def _add(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str, epilog: str
) -> argparse.ArgumentParser:
    return actions.add_parser(
        name, help=what, description=what, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _add_isolation(command: argparse.ArgumentParser, choices: Sequence[str]) -> None:
    command.add_argument(
        "--isolation",
        choices=choices,
        default="process",
        help="where the plugin runs: in a process of its own, as servers run it unless told otherwise, or within "
        "this kind of program (default: %(default)s)",
    )


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config-yaml",
        type=Path,
        metavar="FILE",
        help="the plugin's own settings, as they would stand in plugins.configs.<id>",
    )


def seconds(text: str) -> float:
    """A positive duration. Raises: argparse.ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")


def method_name(text: str) -> str:
    """What can be a method. Raises: argparse.ArgumentTypeError."""
    if 0 < len(text.encode("utf-8", "replace")) < 256 and "\0" not in text:
        return text
    raise argparse.ArgumentTypeError("expected a method name of 1 to 255 bytes")


def settings_of(options: argparse.Namespace) -> bytes:
    """What ``--config-yaml`` names, else what a plugin gets that is merely enabled. Raises: ConfigError."""
    path: Path | None = options.config_yaml
    if path is None:
        return DEFAULT_CONFIG_YAML
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError([f"{path}:1: expected a readable file, got {exc.strerror}"]) from exc


# --- loading ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class LoadedPlugins:
    """The plugins of a configuration, loaded without a server around them."""

    manager: PluginManager
    services: HostServices

    def registrations(self) -> tuple[Registration, ...]:
        """The stages that they fill."""
        scopes = self.services.scopes
        return tuple(entry for plugin in self.manager.snapshot() for entry in registrations(plugin, scopes))


@asynccontextmanager
async def load_plugins(
    config: Config, config_path: Path, *, hear: LogLine | None = None
) -> AsyncIterator[LoadedPlugins]:
    """The enabled plugins of *config*, each in a process of its own, while the block runs.

    Args:
      hear: gets what plugins print; None = the log.

    Plugins that cannot be loaded are in `PluginManager.states`. What the block raises arrives in a group.
    """
    async with (
        open_clients(connect_seconds=config.limits.connect_seconds) as clients,
        open_host_services(clients=clients, config=lambda: config, current=lambda: None) as services,
        open_plugins(
            _hearing(lazy_opener(config_path), hear),
            handler_for=lambda plugin_id, number: partial(services.handle, plugin_id, generation=number),
        ) as manager,
    ):
        await manager.apply(isolated(config.plugins))
        yield LoadedPlugins(manager=manager, services=services)


def isolated(config: PluginsConfig) -> PluginsConfig:
    """*config* with a process for each plugin: a tool outlives what it looks at.

    A plugin that works for a person at the keyboard has no deadline, unless it is configured.
    """
    entries = {
        plugin_id: attrs.evolve(
            entry, isolation=Isolation.PROCESS, timeout=0 if entry.timeout is None else entry.timeout
        )
        for plugin_id, entry in config.configs.items()
    }
    return attrs.evolve(config, isolation=Isolation.PROCESS, configs=entries)


def _hearing(opener: TransportOpener, hear: LogLine | None) -> TransportOpener:
    """*opener*, with the plugins' output going to *hear*."""
    if hear is None:
        return opener

    def heard(
        path: str,
        *,
        plugin_id: str,
        isolation: Isolation,
        handler: HostCallHandler,
        nursery: trio.Nursery,
        log_line: LogLine,
    ) -> AbstractAsyncContextManager[PluginTransport]:
        return opener(path, plugin_id=plugin_id, isolation=isolation, handler=handler, nursery=nursery, log_line=hear)

    return heard


class Nowhere:
    """A `Destination` that forgets."""

    def write_nowait(self, data: bytes | memoryview) -> int:
        """Everything fits."""
        return len(data)

    async def wait_writable(self) -> None:
        """At once."""
        await trio.lowlevel.checkpoint()

    def wait_writable_blocking(self, timeout_s: float) -> None:
        """At once."""

    def sweep(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def quiet() -> None:
    """Keep the log away from the terminal: what matters is printed, and states carry their reasons."""
    configure_logging(sink=LogSink(Nowhere()))


def clean(text: str) -> str:
    """*text*, which a plugin may have written, on one line and without what could drive a terminal."""
    return "".join(char if char.isprintable() else " " if char in "\r\n\t" else "·" for char in text)


def write_out(stream: str, data: bytes) -> None:
    """Bytes to one of the process's streams."""
    target = sys.stderr if stream == "stderr" else sys.stdout
    target.flush()
    target.buffer.write(data)
    target.buffer.flush()


def print_line(stream: LogStream, text: str) -> None:
    """What a plugin prints, as if this program had printed it."""
    write_out("stdout" if stream == "stdout" else "stderr", text.encode("utf-8", "replace") + b"\n")


# --- list ------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Row:
    """One plugin of the list."""

    id: str
    file: str
    version: str
    enabled: bool
    isolation: Isolation
    state: PluginState
    reason: str
    schema_version: int
    capabilities: tuple[str, ...]
    priority: int

    @property
    def failed(self) -> bool:
        """It should be there and is not."""
        return self.state not in (PluginState.REGISTERED, PluginState.DISABLED)


def run_list(options: argparse.Namespace) -> int:
    """`cpa plugin list`."""
    loaded = load_config(options.config)
    quiet()
    rows, warnings = trio.run(list_plugins, loaded.config, options.config)
    if options.json:
        found = [{**attrs.asdict(row), "isolation": row.isolation.value, "state": row.state.value} for row in rows]
        print(json.dumps({"plugins": found, "warnings": warnings}, indent=2, ensure_ascii=False))
    else:
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(table(rows) if rows else f"no plugins in {loaded.config.plugins.dir}, and none configured")
    return FAILED if any(row.failed for row in rows) else 0


async def list_plugins(config: Config, config_path: Path) -> tuple[list[Row], list[str]]:
    """Every plugin that was found or is configured, by id, and what was wrong with folders."""
    rows: list[Row] = []
    # The manager does not look at the folder while plugins are switched off; whoever asks for a list wants to know.
    found = await trio.to_thread.run_sync(discover, config.plugins.dir, config.plugins.configs)
    async with load_plugins(config, config_path) as plugins:
        live = {plugin.id: plugin for plugin in plugins.manager.snapshot()}
        for status in plugins.manager.states():
            switches = live[status.id].capabilities.declared() if status.id in live else frozenset[str]()
            rows.append(_row(status, switches, config.plugins))
    known = {row.id for row in rows}
    rows += [
        Row(
            id=file.id,
            file=str(file.path),
            version=file.version,
            enabled=False,
            isolation=config.plugins.isolation,
            state=PluginState.DISABLED,
            reason="plugins.enabled is false",
            schema_version=0,
            capabilities=(),
            priority=0,
        )
        for file in found.selected
        if file.id not in known
    ]
    return sorted(rows, key=lambda row: row.id), list(found.warnings)


def _row(status: PluginStatus, switches: frozenset[str], config: PluginsConfig) -> Row:
    entry = config.configs.get(status.id)
    return Row(
        id=status.id,
        file=status.path,
        version=status.version or (status.metadata.version if status.metadata else ""),
        enabled=status.enabled,
        isolation=(entry.isolation if entry else None) or config.isolation,
        state=status.state,
        reason=status.reason,
        schema_version=status.schema_version,
        capabilities=tuple(switch for switch in wire.SWITCHES if switch in switches),
        priority=status.priority,
    )


def table(rows: Sequence[Row]) -> str:
    """*rows* for people; long things stand below their plugin."""
    head = ("ID", "VERSION", "STATE", "ENABLED", "ISOLATION", "PRIORITY", "SCHEMA")
    cells = [
        (
            row.id,
            row.version or "-",
            row.state.value,
            "yes" if row.enabled else "no",
            row.isolation.value,
            str(row.priority),
            str(row.schema_version or "-"),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)).rstrip()]
    for row, line in zip(rows, cells, strict=True):
        lines.append("  ".join(clean(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        for name, text in (("file", row.file), ("reason", row.reason), ("does", ", ".join(row.capabilities))):
            lines += [f"    {name}: {clean(text)}"] if text else []
    return "\n".join(lines)


# --- plan ------------------------------------------------------------------------------------------------------------


def plan_of_plugins(loaded: Loaded, config_path: Path, *, load: bool) -> tuple[tuple[Registration, ...], list[str]]:
    """The stages of the configured plugins, and a line for each that should be there and is not; none unless *load*."""
    if not load or not loaded.config.plugins.enabled:
        return (), []
    quiet()

    async def run() -> tuple[tuple[Registration, ...], list[str]]:
        async with load_plugins(loaded.config, config_path) as plugins:
            missing = [
                clean(f"{status.id}: {status.state.value}: {status.reason}")
                for status in plugins.manager.states()
                if status.enabled and status.state is not PluginState.REGISTERED
            ]
            return plugins.registrations(), missing

    return trio.run(run)


# --- call ------------------------------------------------------------------------------------------------------------


class _Envelope(Message):
    ok: bool = flag("ok")
    result: Tree = undecoded("result")


def run_call(options: argparse.Namespace) -> int:
    """`cpa plugin call`."""
    config_yaml = settings_of(options)
    request = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    try:
        reply = trio.run(call_plugin, options, config_yaml, request if request.strip() else b"{}")
        if options.raw:
            write_out("stdout", reply.body)
            return 0 if reply.rc == 0 else FAILED
        print(result_text(options.method, reply))
    except CpaError as exc:
        print(f"cpa: {clean(exc.message)}", file=sys.stderr)
        return FAILED
    return 0


def result_text(name: str, reply: PluginReply) -> str:
    """The result in *reply*, on several lines. Raises: PluginCallError."""
    row = METHODS.get(name) or Method(name=name, direction=Direction.PLUGIN_CALL, request=wire.Empty, reply=wire.Empty)
    try:
        succeeded = reply.rc == 0 and codec(_Envelope).read(reply.body).ok
    except GoJsonError:
        succeeded = False
    if not succeeded:
        decode_reply(row, reply.rc, reply.body)
        raise PluginCallError(method=name)
    members = json.loads(reply.body)
    result = [value for key, value in members.items() if key.lower() == "result"]
    return json.dumps(result[-1] if result else None, indent=2, ensure_ascii=False)


async def call_plugin(options: argparse.Namespace, config_yaml: bytes, request: bytes) -> PluginReply:
    """Load, register unless told not to, call. Raises: PluginError, PluginCallError."""
    found = split_name(options.file.stem)
    plugin_id = found[0] if found else PluginId("plugin")
    reply: PluginReply | None = None
    failure: CpaError | None = None
    async with trio.open_nursery() as host_calls:
        try:
            async with lazy_opener(Path("config.yaml"))(
                str(options.file.absolute()),
                plugin_id=plugin_id,
                isolation=Isolation(options.isolation),
                handler=answer_host_call,
                nursery=host_calls,
                log_line=lambda stream, text: print(f"{stream}: {clean(text)}", file=sys.stderr),
            ) as transport:
                try:
                    if not options.no_register:
                        await register(transport, config_yaml, options.timeout)
                    reply = await call_in_time(transport, options.method, request, options.timeout)
                except CpaError as exc:  # what rises in here is grouped
                    failure = exc
        except PluginError as exc:
            failure = exc
        host_calls.cancel_scope.cancel()
    if reply is None:
        raise failure or PluginError("the plugin ended", plugin_id=plugin_id)
    return reply


async def register(transport: PluginTransport, config_yaml: bytes, timeout_s: float) -> None:
    """Greet the plugin as the host does. Raises: PluginError, PluginCallError."""

    async def call(method: Method[Any, Any], request: Any, /) -> Any:
        payload = codec(method.request).encode(request)
        reply = await call_in_time(transport, method.name, payload, timeout_s)
        return decode_reply(method, reply.rc, reply.body)

    await greet(call, methods.PLUGIN_REGISTER, config_yaml, plugin_id=transport.plugin_id)


async def call_in_time(transport: PluginTransport, method: str, payload: bytes, timeout_s: float) -> PluginReply:
    """One call; a plugin that does not answer is killed. Raises: PluginError."""
    with trio.move_on_after(timeout_s):
        return await transport.call(method, payload)
    transport.kill("hung")
    raise PluginError(f"{method} did not return within {timeout_s:g} s", plugin_id=transport.plugin_id)


async def answer_host_call(method: bytes, payload: bytes) -> bytes:
    """A `HostCallHandler` for plugins without a proxy."""
    await trio.lowlevel.checkpoint()
    name = method.decode("utf-8", "replace")
    try:
        row = find_host_method(name)
        request = decode_host_request(row, payload)
    except HostCallError as exc:
        print(f"{clean(name)}: {clean(exc.message)}", file=sys.stderr)
        return encode_host_error(exc.message)
    if isinstance(request, LogRequest):
        fields = f" {json.dumps(request.fields, ensure_ascii=False)}" if request.fields else ""
        print(clean(f"host.log: {request.level or 'debug'}: {request.message}{fields}"), file=sys.stderr)
        return EMPTY_RESULT
    print(f"{clean(name)}: answered with an error: {NO_PROXY}", file=sys.stderr)
    return encode_host_error(NO_PROXY, http_status=503)


# --- check -----------------------------------------------------------------------------------------------------------


class Progress:
    """Says on standard error how far a run is; an `Observer`."""

    def __init__(self) -> None:
        self._done = self._failed = 0

    def began(self, planned: "Planned", isolation: Isolation) -> None:
        """See `Observer`."""
        what = clean(f"{isolation.value}: {planned.method or planned.capability}: {planned.name}")
        failed = f", {self._failed} failed" if self._failed else ""
        print(f"\r\x1b[K{self._done} checks{failed}; {what}"[:100], end="", file=sys.stderr, flush=True)

    def calling(self, method: str) -> None:
        """See `Observer`."""

    def ended(self, check: "Check") -> None:
        """See `Observer`."""
        self._done += 1
        self._failed += check.verdict.value == "fail"

    def close(self) -> None:
        """Leave a clean line."""
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run_check(options: argparse.Namespace) -> int:
    """`cpa plugin check`."""
    if not options.file.is_file():
        print(f"cpa: {options.file}: expected a library, got no such file", file=sys.stderr)
        return WRONG_USAGE
    try:
        # Not above: it needs what is compiled, and most commands are not this one.
        from cpa.testing import conformance
    except ImportError as exc:
        print(f"cpa: the plugin host was not built on this machine: {exc}", file=sys.stderr)
        return FAILED
    isolations = tuple(Isolation) if options.isolation == "both" else (Isolation(options.isolation),)
    settings = conformance.Settings(
        path=options.file,
        isolations=isolations,
        timeout_s=options.timeout,
        config_yaml=settings_of(options),
    )
    quiet()
    progress = Progress() if sys.stderr.isatty() else None
    try:
        report = trio.run(partial(conformance.check_plugin, settings, observer=progress))
    finally:
        if progress is not None:
            progress.close()
    print(json.dumps(report.as_json(), indent=2, ensure_ascii=False) if options.json else report.as_text(), end="")
    if options.json:
        print()
    return 0 if report.ok else FAILED
