"""The command line. Exit codes: 0 = fine, 1 = could not start, 2 = wrong arguments or configuration."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from cpa import cli_flags, cli_plugin, cli_translate
from cpa.app import Options, StartError, serve
from cpa.config.load import load_config
from cpa.credentials.from_config import credentials_from_config
from cpa.credentials.judging import judge_folder
from cpa.demo import load_demo
from cpa.errors import ConfigError
from cpa.formats.names import SAME_WIRE, Format, translates
from cpa.models.registry import offers
from cpa.pipeline.chains import NATIVE_IDENTITY
from cpa.pipeline.plan import Plan
from cpa.pipeline.stage import POLICIES, StageKind
from cpa.server.listener import tls_context
from cpa.supervisor import supervise
from cpa.testing.mock import main as mock
from cpa.upstream.dialects import dialect_of
from cpa.version import VERSION
from cpa.workers import Place

CANNOT_START = 1
WRONG_INPUT = 2
DEFAULT_CONFIG = "config.yaml"

EPILOG = """\
examples:
  cpa serve --demo                      try it: built-in mock provider, no keys, http://127.0.0.1:8317
  cpa check --config config.yaml        every problem of the file, with its line
  cpa serve --config config.yaml        the real thing; SIGHUP or saving the file reloads it
  cpa mock-provider --port 8318         a provider that answers by script and fails on demand
  cpa plan --config config.yaml --from claude --to gemini
  cpa translate --from claude --to gemini < request.json
  cpa plugin list --config config.yaml  which plugins there are, and how they are
  cpa plugin check acme.so              test a plugin against the contract
"""

MOCK_EPILOG = """\
the model's name says how to answer, and X-Mock-* headers do:
  mock-chunks-20-delay-100  mock-think-tool  mock-status-429-retry-after-7  mock-fault-cut-at-3
a prompt can order tool calls, whatever the model, so that real agents run their tools:
  [mock:call Bash {"command": "cat note.txt"}]
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command *argv* (default: the process's own). Returns: the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"):
        arguments.insert(0, "serve")  # `cpa -config PATH` is how deployed scripts start a server
    serving = arguments[:1] == ["serve"]
    try:
        if serving and cli_flags.split_arguments(arguments[1:]).foreign and not asks_for_help(arguments):
            return cli_flags.run_plugin_flags(
                arguments[1:],
                program=sys.argv[0],
                given=sys.argv[1:] if argv is None else argv,
                default=default_config(),
                parse=lambda native: make_parser().parse_args(["serve", *native]),
            )
        for_help = serving or arguments[:1] in (["-h"], ["--help"])
        wanted = for_help and asks_for_help(arguments)
        parser = make_parser(cli_flags.plugin_help(arguments[1:], default_config()) if wanted else "")
        # What only plugins know is no mistake in front of a question for help.
        split = cli_flags.split_arguments(arguments[1:]) if wanted and serving else None
        options = parser.parse_args(arguments if split is None else ["serve", *split.native])
        if options.command is None:
            parser.print_help()
            return 0
        code: int = options.run(options)
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        code = WRONG_INPUT
    except StartError as exc:
        print(f"cpa: {exc}", file=sys.stderr)
        code = CANNOT_START
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not complain when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the help is wanted, and nothing else."""
    return "-h" in arguments or "--help" in arguments


def default_config() -> Path:
    """The configuration when the command line names none."""
    return Path(os.environ.get("CPA_CONFIG") or DEFAULT_CONFIG)


def make_parser(plugin_flags: str = "") -> argparse.ArgumentParser:
    """All commands and their arguments. *plugin_flags*: what the help says of flags that plugins add."""
    parser = argparse.ArgumentParser(
        prog="cpa",
        description="CPA, an LLM API proxy: OpenAI Chat and Responses, Anthropic Messages and Gemini on both sides.",
        epilog=EPILOG + plugin_flags,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cpa {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    command = commands.add_parser(
        "serve",
        help="run the proxy",
        epilog=plugin_flags,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # Half a name of ours could be the whole name of a plugin's.
        allow_abbrev=False,
    )
    add_config(command, demo="a ready configuration with the built-in mock provider")
    command.add_argument("--host", help="address to bind instead of the configured one")
    command.add_argument("--port", type=port, help="port to bind instead of the configured one; 0 = any free one")
    command.set_defaults(run=run_serve, usage_error=command.error, place=None)

    # Not in the help: supervisors start it, with sockets that nobody else has.
    command = commands.add_parser("worker", description="one of several processes that serve one port; for supervisors")
    add_config(command)
    command.add_argument("--place", type=Place.parse, required=True, help="number and inherited descriptors")
    command.set_defaults(run=run_serve, demo=False, host=None, port=None)

    command = commands.add_parser("check", help="check a configuration: exit 0, or 2 with every problem")
    add_config(command)
    command.set_defaults(run=run_check)

    command = commands.add_parser("plan", help="show what a request passes through, stage by stage")
    add_config(command, demo="of the demo instead of a file")
    formats = [fmt.value for fmt in Format]
    command.add_argument(
        "--from", dest="source", choices=formats, metavar="FORMAT", help=f"client: {', '.join(formats)}"
    )
    command.add_argument("--to", dest="target", choices=formats, metavar="FORMAT", help="provider, likewise")
    command.add_argument("--no-plugins", action="store_true", help="do not load the configured plugins")
    command.set_defaults(run=run_plan)

    cli_translate.add_translate_command(commands, add_config)
    cli_plugin.add_plugin_commands(commands, add_config)

    command = commands.add_parser(
        "mock-provider",
        help="run a provider that answers by script and fails on demand",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=MOCK_EPILOG,
    )
    command.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    command.add_argument("--port", type=port, default=8318, help="port to bind (default: %(default)s; 0 = any)")
    command.add_argument("--require-key", metavar="KEY", help="answer 401 to requests without this key")
    command.set_defaults(run=run_mock)
    return parser


def add_config(command: argparse.ArgumentParser, *, demo: str = "") -> None:
    """The option that names the configuration file; with *demo*, its help text, also the one to do without."""
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--config",
        "-config",
        type=Path,
        default=default_config(),
        metavar="PATH",
        help=f"configuration file (default: $CPA_CONFIG, else {DEFAULT_CONFIG})",
    )
    if demo:
        group.add_argument("--demo", action="store_true", help=demo)


def port(text: str) -> int:
    """A TCP port. Raises: argparse.ArgumentTypeError."""
    if text.isascii() and text.isdigit() and int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")


def announce(line: str) -> None:
    """A line that scripts wait for."""
    print(line, flush=True)


def run_serve(options: argparse.Namespace) -> int:
    """`cpa serve`."""
    path = None if options.demo else options.config
    loaded = load_demo() if path is None else load_config(path)
    chosen = Options(config=path, host=options.host, port=options.port, place=options.place)
    several = loaded.config.workers > 1 and chosen.place is None
    return trio.run(partial(supervise if several else serve, loaded, chosen, announce=announce))


def run_check(options: argparse.Namespace) -> int:
    """`cpa check`. Problems go to standard output: they are what was asked for."""
    try:
        loaded = load_config(options.config)
    except ConfigError as exc:
        print(exc)
        return WRONG_INPUT
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    if loaded.config.tls.enable:
        try:
            tls_context(loaded.config)
        except OSError as exc:
            print(f"{options.config}: tls: expected a certificate and its key, got files that do not do: {exc}")
            return WRONG_INPUT
    folder = judge_folder(loaded.config.auth_dir)
    for warning in folder.warnings:
        print(f"warning: {warning}")
    if folder.problems:
        print("\n".join(folder.problems))
        return WRONG_INPUT
    credentials = credentials_from_config(loaded.config)
    print(f"{options.config}: ok, {len(credentials)} credentials of {len({c.provider for c in credentials})} providers")
    if folder.usable:
        print(f"{loaded.config.auth_dir}: ok, {folder.usable} credentials")
    return 0


def run_plan(options: argparse.Namespace) -> int:
    """`cpa plan`."""
    loaded = load_demo() if options.demo else load_config(options.config)
    stages, missing = cli_plugin.plan_of_plugins(loaded, options.config, load=not options.no_plugins)
    print("stages, in the order of the request path:")
    plan = Plan.build(stages)
    for kind in StageKind:
        entries = ", ".join(f"{entry.plugin_id} ({entry.priority})" for entry in plan.of(kind)) or "-"
        print(f"  {kind:<34} {POLICIES[kind]:<13} {entries}")
    if missing:
        print("plugins that take no part:")
        for line in missing:
            print(f"  {line}")
    chains = list(cli_translate.chains_text(loaded.config, stages, source=options.source, target=options.target))
    if chains:
        print("chains, the first that matches is used:")
        for line in chains:
            print(line)
    print("routes:")
    for source in Format:
        for target in Format:
            if options.source in (None, source) and options.target in (None, target):
                print(f"  {source:<16} -> {target:<16} {route_text(source, target)}")
    print("providers:")
    for credential in credentials_from_config(loaded.config):
        dialect = dialect_of(credential.provider)
        if dialect is None:
            print(f"  {credential.id:<44} not supported yet")
        elif options.target in (None, dialect.format):
            models = ", ".join(offer.id for offer in offers(credential)) or "no models"
            print(f"  {credential.id:<44} {dialect.format:<8} {models}")
    return 0


def route_text(source: Format, target: Format) -> str:
    """How bodies get from a client's protocol to a provider's."""
    if (source, target) in NATIVE_IDENTITY:
        return "passes as bytes"
    if (source, target) in SAME_WIRE:
        return "passes as bytes, unless a plugin translates"
    return "translated" if translates(source, target) else "no translator"


def run_mock(options: argparse.Namespace) -> int:
    """`cpa mock-provider`."""
    try:
        trio.run(
            partial(
                mock.main,
                host=options.host,
                port=options.port,
                announce=announce,
                require_key=options.require_key,
            )
        )
    except OSError as exc:
        raise StartError(f"cannot listen on {options.host}:{options.port}: {exc}") from exc
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0
