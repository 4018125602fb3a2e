"""The command line. Exit codes: 0 = fine, 1 = could not start, 2 = wrong arguments or configuration.

Commands are imported when they are run: `cpa check` in a script must not wait for a server's libraries.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from cpa.cli_arguments import config_named_in, split_arguments
from cpa.errors import ConfigError, StartError
from cpa.formats.names import Format
from cpa.version import VERSION

CANNOT_START = 1
WRONG_INPUT = 2
DEFAULT_CONFIG = "config.yaml"

TRANSLATE = "translate a body from standard input, through a chain if wanted, and show what is lost"
PLUGIN = "list, call, check and make native plugins"

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
    chosen = arguments[0] if arguments else ""
    serving = chosen == "serve"
    try:
        if serving and split_arguments(arguments[1:]).foreign and not asks_for_help(arguments):
            from cpa.cli_flags import run_plugin_flags  # perhaps plugins know them

            return run_plugin_flags(
                arguments[1:],
                program=sys.argv[0],
                given=sys.argv[1:] if argv is None else argv,
                default=default_config(),
                parse=lambda native: make_parser(chosen).parse_args(["serve", *native]),
            )
        for_help = serving or chosen in ("-h", "--help")
        wanted = for_help and asks_for_help(arguments)
        parser = make_parser(chosen, plugin_help(arguments[1:]) if wanted else "")
        # What only plugins know is no mistake in front of a question for help.
        split = split_arguments(arguments[1:]) if wanted and serving else None
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


def plugin_help(arguments: Sequence[str]) -> str:
    """What plugins add to the help; nothing without a configuration that has some."""
    path = config_named_in(arguments) or default_config()
    if not path.is_file():
        return ""
    from cpa.config.load import load_config

    try:
        if not load_config(path).config.plugins.enabled:
            return ""
    except ConfigError:  # help comes in any case
        return ""
    from cpa.cli_flags import plugin_help as found

    return found(path)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the help is wanted, and nothing else."""
    return "-h" in arguments or "--help" in arguments


def default_config() -> Path:
    """The configuration when the command line names none."""
    return Path(os.environ.get("CPA_CONFIG") or DEFAULT_CONFIG)


def make_parser(chosen: str, plugin_flags: str = "") -> argparse.ArgumentParser:
    """All commands, and the arguments of most.

    Args:
      chosen: the command that is about to be run; what takes long to import has its arguments only then.
      plugin_flags: what the help says of flags that plugins add.
    """
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
    command.set_defaults(run=later("cpa.cli_serve", "run_serve"), usage_error=command.error, place=None)

    # Not in the help: supervisors start it, with sockets that nobody else has.
    command = commands.add_parser("worker", description="one of several processes that serve one port; for supervisors")
    add_config(command)
    command.add_argument("--place", type=place, required=True, help="number and inherited descriptors")
    command.set_defaults(run=later("cpa.cli_serve", "run_serve"), demo=False, host=None, port=None)

    command = commands.add_parser("check", help="check a configuration: exit 0, or 2 with every problem")
    add_config(command)
    command.set_defaults(run=later("cpa.cli_check", "run_check"))

    command = commands.add_parser("plan", help="show what a request passes through, stage by stage")
    add_config(command, demo="of the demo instead of a file")
    formats = [fmt.value for fmt in Format]
    command.add_argument(
        "--from", dest="source", choices=formats, metavar="FORMAT", help=f"client: {', '.join(formats)}"
    )
    command.add_argument("--to", dest="target", choices=formats, metavar="FORMAT", help="provider, likewise")
    command.add_argument("--no-plugins", action="store_true", help="do not load the configured plugins")
    command.set_defaults(run=later("cpa.cli_plan", "run_plan"))

    if chosen == "translate":
        from cpa.cli_translate import add_translate_command

        add_translate_command(commands, add_config, summary=TRANSLATE)
    else:
        commands.add_parser("translate", help=TRANSLATE)
    if chosen == "plugin":
        from cpa.cli_plugin import add_plugin_commands

        add_plugin_commands(commands, add_config, summary=PLUGIN)
    else:
        commands.add_parser("plugin", help=PLUGIN)

    command = commands.add_parser(
        "mock-provider",
        help="run a provider that answers by script and fails on demand",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=MOCK_EPILOG,
    )
    command.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    command.add_argument("--port", type=port, default=8318, help="port to bind (default: %(default)s; 0 = any)")
    command.add_argument("--require-key", metavar="KEY", help="answer 401 to requests without this key")
    command.set_defaults(run=later("cpa.cli_mock", "run_mock"))

    command = commands.add_parser(
        "mcp-host",
        help="give a command-line agent the tools of the client that it works for (MCP on standard input and output)",
        allow_abbrev=False,
    )
    command.add_argument("--socket", metavar="PATH", help="of the plugin that runs it (default: $CPA_MCP_SOCKET)")
    command.add_argument("--agent-id", metavar="ID", help="which agent this is (default: $CPA_MCP_AGENT_ID)")
    command.set_defaults(run=later("cpa.cli_mcp", "run_mcp_host"), usage_error=command.error)
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


def place(text: str) -> object:
    """Where a worker stands. Raises: ValueError."""
    from cpa.workers import Place

    return Place.parse(text)


def later(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    """The function *name* of *module*, which is imported when the function is called."""

    def run(options: argparse.Namespace) -> int:
        code: int = getattr(import_module(module), name)(options)
        return code

    return run
