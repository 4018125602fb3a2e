"""Flags of plugins on the command line of `cpa serve`: found among its own, shown in the help, carried out.

Values and calls are in `cpa.host.command_line`; here are arguments, usage errors and streams.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from cpa.cli_arguments import config_named_in, split_arguments
from cpa.cli_plugin import clean, load_plugins, print_line, quiet, write_out
from cpa.config.load import load_config
from cpa.config.schema import Config
from cpa.credentials.files import CredentialFiles
from cpa.host.auth_data import host_summary
from cpa.host.command_line import FlagError, FlagSet, Invocation, collect_flags, execute
from cpa.host.plugin import PluginState

WRONG_USAGE: Final = 2
HELP_S: Final = 15.0
"""For everything that plugins contribute to a help text; without them it comes at once."""
NATIVE_NAMES: Final = frozenset({"config", "host", "port", "demo", "help", "h", "version"})
"""Names that no flag of a plugin can have."""


def plugin_help(path: Path) -> str:
    """The flags of the plugins of the configuration *path* as a part of a help text.

    Empty when there are none, or anything is wrong.
    """
    try:
        config = load_config(path).config
        if not config.plugins.enabled:
            return ""
        quiet()
        flags = trio.run(_flags_in_time, config, path)
    except Exception:  # noqa: BLE001 - the edge of the command line: help comes in any case
        return ""
    lines: list[str] = []
    for plugin_id in dict.fromkeys(each.plugin_id for each in flags.flags):
        lines += ["", f"flags of plugin {plugin_id}:"]
        for each in flags.flags:
            if each.plugin_id == plugin_id:
                left = f"  --{each.name}" + ("" if each.type == "bool" else f" {each.type.upper()}")
                usage = clean(each.usage) + (f" (default: {clean(each.default)})" if each.default else "")
                wrapped = textwrap.wrap(usage, 100, initial_indent=f"{left:<28}  ", subsequent_indent=" " * 30)
                lines += wrapped or [left]
    return "\n".join(lines)


async def _flags_in_time(config: Config, config_path: Path) -> FlagSet:
    with trio.move_on_after(HELP_S):
        async with load_plugins(config, config_path) as plugins:
            return await collect_flags(plugins.manager.snapshot(), taken=NATIVE_NAMES)
    return FlagSet()


def run_plugin_flags(
    arguments: Sequence[str],
    *,
    program: str,
    given: Sequence[str],
    default: Path,
    parse: Callable[[Sequence[str]], argparse.Namespace],
) -> int:
    """`cpa serve` with flags that are not its own: let the plugins that declare them do their work.

    Args:
      arguments: those behind ``serve``. *given*: all of the process.
      default: the configuration when *arguments* name none.
      parse: judges arguments of `cpa serve`; for others it ends the process with the usage.

    Returns: the exit code. Raises: ConfigError.
    """
    named = config_named_in(arguments)
    path = named or default
    if named is None and not path.exists():
        return _judged(parse, arguments)  # there is nobody who could know the flags
    config = load_config(path).config
    if not config.plugins.enabled:
        return _judged(parse, arguments)
    quiet()
    command = PluginCommand(
        config=config, path=path, program=program, arguments=tuple(arguments), given=tuple(given), parse=parse
    )
    return trio.run(command.run)


def _judged(parse: Callable[[Sequence[str]], argparse.Namespace], arguments: Sequence[str], complaint: str = "") -> int:
    """The exit code of *arguments*, which are wrong, or of *complaint* about them; prints the usage."""
    try:
        options = parse(arguments)
        options.usage_error(complaint or "unrecognized arguments")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else WRONG_USAGE
    return WRONG_USAGE


@attrs.frozen(kw_only=True)
class PluginCommand:
    """One command line with flags that only plugins know; see `run_plugin_flags`."""

    config: Config
    path: Path
    program: str
    arguments: tuple[str, ...]
    given: tuple[str, ...]
    parse: Callable[[Sequence[str]], argparse.Namespace]

    async def run(self) -> int:
        """Load the plugins, let those work whose flags were given. Returns: the exit code."""
        async with load_plugins(self.config, self.path, hear=print_line) as plugins:
            snapshot = plugins.manager.snapshot()
            flags = await collect_flags(snapshot, taken=NATIVE_NAMES)
            for status in plugins.manager.states():
                if status.enabled and status.state is not PluginState.REGISTERED:
                    line = clean(f"warning: plugin {status.id} is {status.state.value}: {status.reason}")
                    print(line, file=sys.stderr)
            for warning in flags.warnings:
                print(f"warning: {clean(warning)}", file=sys.stderr)
            split = split_arguments(self.arguments, flags)
            # A SystemExit must not rise in here: it would arrive in a group.
            try:
                options = self.parse(split.native)
            except SystemExit as exc:
                return exc.code if isinstance(exc.code, int) else WRONG_USAGE
            try:
                values = flags.parse(split.foreign)
            except FlagError as exc:
                return _judged(self.parse, split.native, exc.message)
            return await execute(
                snapshot,
                flags,
                Invocation(
                    program=self.program,
                    args=self.given,
                    config_path=str(self.path),
                    host=host_summary(self.config),
                    native={
                        "config": str(self.path),
                        "demo": "true" if options.demo else "false",
                        "host": options.host or "",
                        "port": "" if options.port is None else str(options.port),
                    },
                    given=values,
                ),
                output=write_out,
                files=CredentialFiles(self.config.auth_dir),
            )
