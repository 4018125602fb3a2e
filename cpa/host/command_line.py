"""Flags that plugins add to the command line (plugin-abi 4.13): what they declare, what was given, what they do.

Values and calls; the program's own arguments are parsed elsewhere. Flags are Go's: ``-name`` and ``--name`` mean the
same, ``-name=value`` and ``-name value`` too, a bool takes a value only behind ``=``.
"""

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final, Protocol, TypeVar

import attrs
import trio

from cpa.abi import methods, wire
from cpa.abi.methods import Method
from cpa.credentials.files import CredentialFiles
from cpa.errors import CpaError
from cpa.host.auth_data import save_auth_data
from cpa.types import PluginId

Q = TypeVar("Q")
R = TypeVar("R")

MAX_FLAGS: Final = 256
"""Of one plugin: they are listed in the help."""
MAX_NAME_CHARS: Final = 128
MAX_EXIT_CODE: Final = 255
"""What a process can say."""
FLAGS_S: Final = 10.0
"""For a plugin to say which flags it has; the help waits for it."""
FAILED: Final = 1
_BAD_NAME: Final = re.compile(r"[\s=\x00-\x1f\x7f-\x9f]")
_RESERVED: Final = frozenset({"help", "h"})
_BOOLS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), "true"),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), "false"),
}
_INT64: Final = 1 << 63


class FlagError(CpaError):
    """The command line does not fit the flags; the text says what was wrong, for the usage message."""

    http_status = 400
    code = "flag_error"


# --- values ----------------------------------------------------------------------------------------------------------


def canonical_bool(text: str) -> str:
    """``true`` or ``false``. Raises: ValueError."""
    if text not in _BOOLS:
        raise ValueError("expected a bool: true, false, t, f, 1 or 0")
    return _BOOLS[text]


_INT: Final = re.compile(r"([+-]?)(0[xX]_?[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*|0[bB]_?[01]+(?:_[01]+)*|"
                         r"0[oO]?_?[0-7]+(?:_[0-7]+)*|0|[1-9][0-9]*(?:_[0-9]+)*)", re.ASCII)  # fmt: skip


def canonical_int(text: str) -> str:
    """A 64-bit integer in decimal; hexadecimal, octal (also ``017``) and binary are accepted. Raises: ValueError."""
    found = _INT.fullmatch(text) if len(text) <= MAX_NAME_CHARS else None
    if found is None:
        raise ValueError("expected an integer")
    digits = found[2].replace("_", "")
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567":
        digits = "0o" + digits[1:]
    number = int(found[1] + digits, 0)
    if not -_INT64 <= number < _INT64:
        raise ValueError("expected an integer of 64 bits")
    return str(number)


_DIGITS: Final = r"[0-9](?:_?[0-9])*"
_FLOAT: Final = re.compile(rf"[+-]?(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][+-]?[0-9]+)?", re.ASCII)
_HEX_FLOAT: Final = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+", re.ASCII)
_SPECIAL: Final[Mapping[str, str]] = {
    "inf": "+Inf",
    "+inf": "+Inf",
    "-inf": "-Inf",
    "infinity": "+Inf",
    "+infinity": "+Inf",
    "-infinity": "-Inf",
    "nan": "NaN",
}
_SCIENTIFIC_FROM: Final = 6
_SCIENTIFIC_BELOW: Final = -4


def canonical_float(text: str) -> str:
    """A float64 in its shortest form, as Go's flags write it. Raises: ValueError."""
    special = _SPECIAL.get(text.lower())
    if special is not None:
        return special
    is_hex = _HEX_FLOAT.fullmatch(text) is not None
    if len(text) > MAX_NAME_CHARS or not (is_hex or _FLOAT.fullmatch(text)):
        raise ValueError("expected a number")
    try:
        value = float.fromhex(text) if is_hex else float(text)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise ValueError("expected a number of 64 bits")
    return go_float(value)


def go_float(value: float) -> str:
    """*value* (finite) with as few digits as tell it from others: ``0.5``, ``100000``, ``1e+06``, ``1e-05``."""
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent_text = f"{abs(value):e}".partition("e")
    # repr has the shortest digits; only their place is to be found.
    digits = re.sub(r"e.*", "", repr(abs(value))).replace(".", "").lstrip("0").rstrip("0") or mantissa[0]
    exponent = int(exponent_text)
    if float(f"{digits[0]}.{digits[1:] or '0'}e{exponent}") != abs(value):
        exponent += 1  # the six digits of %e were rounded up to the next power
    if exponent < _SCIENTIFIC_BELOW or exponent >= _SCIENTIFIC_FROM:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


_UNITS: Final[Mapping[str, int]] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5
    "μs": 1_000,  # U+03BC
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def canonical_duration(text: str) -> str:
    """A duration as Go writes it: ``90s`` → ``1m30s``, ``1500us`` → ``1.5ms``, ``0`` → ``0s``. Raises: ValueError."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if len(text) > MAX_NAME_CHARS:
        raise ValueError("expected a duration such as 1m30s")
    total, at = Fraction(0), 0
    if body != "0":
        while (found := _PART.match(body, at)) is not None:
            total += Fraction(found[1] if found[1][-1] != "." else found[1][:-1]) * _UNITS[found[2]]
            at = found.end()
        if at != len(body) or not body:
            raise ValueError("expected a duration such as 1m30s")
    nanoseconds = int(total)
    negative = text.startswith("-")
    if nanoseconds > (_INT64 if negative else _INT64 - 1):
        raise ValueError("expected a duration below 292 years")
    return go_duration(-nanoseconds if negative else nanoseconds)


def go_duration(nanoseconds: int) -> str:
    """The text of a duration in Go."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < size * 1_000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    seconds, fraction = divmod(rest, _UNITS["s"])
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds * _UNITS['s'] + fraction, _UNITS['s'])}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    digits = str(part).rjust(len(str(size)) - 1, "0").rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)


def _text(text: str) -> str:
    return text


CANONICAL: Final[Mapping[str, Callable[[str], str]]] = {
    "bool": canonical_bool,
    "string": _text,
    "int": canonical_int,
    "int64": canonical_int,
    "float64": canonical_float,
    "duration": canonical_duration,
}
"""Type of a flag to what makes its values canonical."""
ZERO: Final[Mapping[str, str]] = {
    "bool": "false",
    "string": "",
    "int": "0",
    "int64": "0",
    "float64": "0",
    "duration": "0s",
}
"""What a flag is without a default."""


# --- flags -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class PluginFlag:
    """One flag of a plugin. *default* is canonical."""

    plugin_id: PluginId
    name: str
    type: str
    usage: str
    default: str


class CommandLinePlugin(Protocol):
    """What is needed of a plugin; `plugin.LivePlugin` is one."""

    @property
    def id(self) -> PluginId:
        """Its id."""
        ...

    @property
    def metadata(self) -> wire.PluginMetadata:
        """As it registered."""
        ...

    @property
    def capabilities(self) -> wire.Capabilities:
        """As it registered."""
        ...

    def call(self, method: Method[Q, R], request: Q, /) -> Awaitable[R]:
        """Call it. Raises: CpaError."""
        ...


@attrs.frozen(kw_only=True)
class FlagSet:
    """The flags of all plugins, in priority order.

    Attributes:
      warnings: what was wrong with flags that are not in here, one line each.
    """

    flags: tuple[PluginFlag, ...] = ()
    warnings: tuple[str, ...] = ()

    def find(self, name: str) -> PluginFlag | None:
        """The flag called *name*."""
        return next((flag for flag in self.flags if flag.name == name), None)

    def parse(self, arguments: Sequence[str]) -> Mapping[str, str]:
        """Names and canonical values of the flags given in *arguments*; the last of several counts.

        Raises: FlagError for anything that is not one of the flags, and for wrong values.
        """
        given: dict[str, str] = {}
        at = 0
        while at < len(arguments):
            word = arguments[at]
            at += 1
            name, equals, value = word.lstrip("-").partition("=")
            dashes = len(word) - len(word.lstrip("-"))
            flag = self.find(name) if dashes in (1, 2) else None
            if flag is None:
                raise FlagError(f"unrecognized arguments: {word}")
            if not equals:
                if flag.type == "bool":
                    value = "true"
                elif at == len(arguments):
                    raise FlagError(f"argument -{name}: expected one argument")
                else:
                    value = arguments[at]
                    at += 1
            try:
                given[name] = CANONICAL[flag.type](value)
            except ValueError as exc:
                raise FlagError(f"argument -{name}: {exc}, got {value[:MAX_NAME_CHARS]!r}") from exc
        return given


async def collect_flags(plugins: Sequence[CommandLinePlugin], *, taken: frozenset[str]) -> FlagSet:
    """Ask *plugins*, in priority order, for their flags.

    Args:
      taken: names of the program's own flags, without dashes.

    A plugin that fails, and a flag that cannot be, are warnings; what else there is counts.
    """
    flags: list[PluginFlag] = []
    warnings: list[str] = []
    names: dict[str, str] = dict.fromkeys(taken, "cpa itself")
    for plugin in plugins:
        if not plugin.capabilities.command_line_plugin:
            continue
        reply: wire.FlagsReply | None = None
        try:
            with trio.move_on_after(FLAGS_S):
                reply = await plugin.call(methods.COMMAND_LINE_REGISTER, wire.PluginRequest(plugin=plugin.metadata))
        except CpaError as exc:
            warnings.append(f"plugin {plugin.id} declares no flags: {exc.message}")
            continue
        if reply is None:
            warnings.append(f"plugin {plugin.id} declares no flags: no answer within {FLAGS_S:g} s")
            continue
        for spec in reply.flags[:MAX_FLAGS]:
            try:
                flag = checked(plugin.id, spec)
            except ValueError as exc:
                warnings.append(f"plugin {plugin.id}: flag {spec.name[:MAX_NAME_CHARS]!r} is left out: {exc}")
                continue
            if flag.name in names:
                owner = names[flag.name]
                warnings.append(f"plugin {plugin.id}: flag {flag.name!r} is left out: {owner} has one of that name")
                continue
            names[flag.name] = f"plugin {plugin.id}"
            flags.append(flag)
        if len(reply.flags) > MAX_FLAGS:
            warnings.append(f"plugin {plugin.id}: only the first {MAX_FLAGS} of {len(reply.flags)} flags count")
    return FlagSet(flags=tuple(flags), warnings=tuple(warnings))


def checked(plugin_id: PluginId, spec: wire.FlagSpec) -> PluginFlag:
    """*spec* with what it leaves out. Raises: ValueError saying what is wrong (plugin-abi 4.13.1)."""
    name, kind = spec.name.strip(), spec.type.strip() or "bool"
    if not name:
        raise ValueError("its name is empty")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(f"its name is longer than {MAX_NAME_CHARS} characters")
    if name.startswith("-") or _BAD_NAME.search(name):
        raise ValueError("a name must not begin with '-' nor contain blanks or '='")
    if name in _RESERVED:
        raise ValueError("the name is reserved")
    if kind not in CANONICAL:
        raise ValueError(f"expected a type of {', '.join(CANONICAL)}, got {kind[:MAX_NAME_CHARS]!r}")
    try:
        default = CANONICAL[kind](spec.default_value) if spec.default_value else ZERO[kind]
    except ValueError as exc:
        raise ValueError(f"its default value is wrong: {exc}") from exc
    return PluginFlag(plugin_id=plugin_id, name=name, type=kind, usage=spec.usage, default=default)


# --- execution -------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Invocation:
    """A command line with flags of plugins on it.

    Attributes:
      program: argv[0]; *args* are all arguments behind it, native ones included.
      native: values of the program's own flags, by name without dashes.
      given: canonical values of the plugins' flags that were given.
    """

    program: str
    args: tuple[str, ...]
    config_path: str
    host: wire.HostSummary
    native: Mapping[str, str]
    given: Mapping[str, str]


class Output(Protocol):
    """Where the output of plugins goes: bytes, to one of the process's two streams. Must not raise."""

    def __call__(self, stream: str, data: bytes, /) -> None:
        """*stream* is ``stdout`` or ``stderr``."""
        ...


async def execute(
    plugins: Sequence[CommandLinePlugin],
    flags: FlagSet,
    invocation: Invocation,
    *,
    output: Output,
    files: CredentialFiles,
) -> int:
    """Let every plugin of which a flag was given do its work, in priority order.

    Credentials of those that report success are saved; what plugins write is written. Returns: the exit code, the
    first that is not 0. Cancellation: between the steps; a file is saved whole or not at all.
    """
    code = 0
    values = {
        **{name: wire.FlagValue(name=name, value=value) for name, value in invocation.native.items()},
        **{flag.name: _value(flag, invocation.given) for flag in flags.flags},
    }
    for plugin in plugins:
        triggered = {
            flag.name: values[flag.name]
            for flag in flags.flags
            if flag.plugin_id == plugin.id and flag.name in invocation.given
        }
        if triggered:
            request = wire.CommandLineRequest(
                plugin=plugin.metadata,
                program=invocation.program,
                args=invocation.args,
                config_path=invocation.config_path,
                host=invocation.host,
                flags=values,
                triggered_flags=triggered,
            )
            its_code = await _execute_one(plugin, request, output, files)
            code = code or its_code
    return code


def _value(flag: PluginFlag, given: Mapping[str, str]) -> wire.FlagValue:
    return wire.FlagValue(
        name=flag.name, type=flag.type, value=given.get(flag.name, flag.default), set=flag.name in given
    )


async def _execute_one(
    plugin: CommandLinePlugin, request: wire.CommandLineRequest, output: Output, files: CredentialFiles
) -> int:
    """One plugin. Returns: its exit code."""
    try:
        reply = await plugin.call(methods.COMMAND_LINE_EXECUTE, request)
    except CpaError as exc:
        output("stderr", f"plugin {plugin.id} failed: {exc.message}\n".encode())
        return FAILED
    code = reply.exit_code
    stdout, stderr = reply.stdout, reply.stderr
    if code == 0:
        for auth in reply.auths:
            try:
                path = await trio.to_thread.run_sync(save_auth_data, files, auth)
            except CpaError as exc:
                stderr = _line(stderr, f"Failed to save authentication: {exc.message}")
                code = FAILED
                break
            stdout = _line(stdout, f"Authentication saved to {path}")
    output("stdout", stdout)
    output("stderr", stderr)
    # What the shell would cut to 0 must not look like success.
    return code if 0 <= code <= MAX_EXIT_CODE else (code & MAX_EXIT_CODE) or FAILED


def _line(text: bytes, line: str) -> bytes:
    """*text* and *line*, which begins on a line of its own."""
    return text + (b"\n" if text and not text.endswith(b"\n") else b"") + line.encode("utf-8", "replace") + b"\n"
