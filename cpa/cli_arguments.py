"""Which arguments of `cpa serve` are its own. Apart from cli_flags.py: every start asks, few have flags of plugins."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

CONFIG_FLAGS: Final = ("--config", "-config")
VALUED_FLAGS: Final = ("--host", "--port")
BARE_FLAGS: Final = ("--demo", "--help", "-h")
"""Of `cpa serve`, with those above."""


class Flag(Protocol):
    """One flag of a plugin."""

    @property
    def type(self) -> str:
        """``bool`` for those without a value."""


class Flags(Protocol):
    """Those of all plugins: `cpa.host.command_line.FlagSet`."""

    def find(self, name: str) -> Flag | None:
        """The flag called *name*."""


class Split(NamedTuple):
    """Arguments of `cpa serve`: its own, and those that only a plugin can know."""

    native: tuple[str, ...]
    foreign: tuple[str, ...]


def split_arguments(arguments: Sequence[str], flags: Flags | None = None) -> Split:
    """Which of *arguments* are the program's own.

    Args:
      flags: of the plugins; None while they are not known: then everything that looks like a flag and is not ours is
        taken for one of theirs, and a word behind it for its value.
    """
    native: list[str] = []
    foreign: list[str] = []
    waiting = iter(arguments)
    may_have_value = False
    for word in waiting:
        name, equals, _ = word.partition("=")
        if name in (*CONFIG_FLAGS, *VALUED_FLAGS, *BARE_FLAGS):
            native.append(word)
            if not equals and name not in BARE_FLAGS:
                native += [value for value in [next(waiting, None)] if value is not None]
            may_have_value = False
        elif flags is None:
            is_flag = word.startswith("-") and word.strip("-") != ""
            (foreign if is_flag or may_have_value else native).append(word)
            may_have_value = is_flag and not equals
        else:
            known = flags.find(name.lstrip("-")) if len(name) - len(name.lstrip("-")) in (1, 2) else None
            if known is None:
                native.append(word)
                continue
            foreign.append(word)
            if not equals and known.type != "bool":
                foreign += [value for value in [next(waiting, None)] if value is not None]
    return Split(native=tuple(native), foreign=tuple(foreign))


def config_named_in(arguments: Sequence[str]) -> Path | None:
    """The configuration that *arguments* name; the last one counts."""
    found: Path | None = None
    native = split_arguments(arguments).native
    for word, following in zip(native, [*native[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name in CONFIG_FLAGS and (value or following):
            found = Path(value if equals else following)
    return found
