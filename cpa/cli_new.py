"""`cpa plugin new`: a folder with a plugin to start from."""

import argparse
import sys
import textwrap
from pathlib import Path

from cpa.scaffold.capabilities import DESCRIPTIONS
from cpa.scaffold.plugin import Language, Scaffold, ScaffoldError, parse_capabilities, write_plugin

WRONG_USAGE = 2
WIDTH = max(map(len, DESCRIPTIONS))
EPILOG = f"""\
The folder has the source, a Makefile that builds the library with one `make`, the helper of the language, and a README
with all commands. C needs a C compiler, Rust cargo, Go go and a C compiler; nothing is fetched. What exists is left
alone.

capabilities:
{textwrap.indent(chr(10).join(f"{key:<{WIDTH}}  {text}" for key, text in DESCRIPTIONS.items()), "  ")}
  {"all":<{WIDTH}}  every one of them, to look around in

examples:
  cpa plugin new guard --language c --capability request_interceptor
  cpa plugin new acme --language go --capability model_provider,auth_provider,executor --directory ~/src

exit codes: 0, 2 for a name, a capability or a place that will not do
"""


def add_new_command(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`cpa plugin new`, among the other actions of `cpa plugin`."""
    what = "make a folder with a plugin to start from, in C, Rust or Go"
    command = actions.add_parser(
        "new", help=what, description=what, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("name", metavar="NAME", help="of the plugin: its id, its folder and its library")
    command.add_argument("--language", required=True, choices=[language.value for language in Language])
    command.add_argument(
        "--capability",
        required=True,
        metavar="LIST",
        help="what it can do: some of the list below, with commas between",
    )
    command.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="where the folder goes (default: here)"
    )
    command.set_defaults(run=run_new)


def run_new(options: argparse.Namespace) -> int:
    """`cpa plugin new`."""
    try:
        scaffold = Scaffold(
            name=options.name,
            language=Language(options.language),
            capabilities=parse_capabilities(options.capability),
        )
        folder = write_plugin(scaffold, options.directory)
    except ScaffoldError as exc:
        print(f"cpa: {exc.message}", file=sys.stderr)
        return WRONG_USAGE
    print(f"{folder}: a plugin in {options.language}; next:")
    print(f"  make -C {folder}")
    print(f"  cpa plugin check {folder / scaffold.name}.so")
    return 0
