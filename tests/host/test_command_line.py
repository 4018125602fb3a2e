"""Flags of plugins: Go's notation, what a plugin may declare, and what happens when a flag is given."""

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from cpa.abi import methods, wire
from cpa.abi.envelope import PluginCallError
from cpa.abi.methods import Method
from cpa.credentials.files import CredentialFiles
from cpa.host.command_line import (
    FLAGS_S,
    MAX_FLAGS,
    FlagError,
    FlagSet,
    Invocation,
    PluginFlag,
    canonical_bool,
    canonical_duration,
    canonical_float,
    canonical_int,
    collect_flags,
    execute,
)
from cpa.types import PluginId

METADATA = wire.PluginMetadata(name="acme", version="1", author="a", repository="r")

# --- values: every expected text is what Go 1.26 printed -------------------------------------------------------------


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_bools_that_are_true(text: str) -> None:
    """As Go's strconv reads them."""
    assert canonical_bool(text) == "true"


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_bools_that_are_false(text: str) -> None:
    """As Go's strconv reads them."""
    assert canonical_bool(text) == "false"


@pytest.mark.parametrize("text", ["", "yes", "tRUE", " true", "2"])
def test_other_words_are_no_bools(text: str) -> None:
    """Not even those that YAML likes."""
    with pytest.raises(ValueError, match="expected a bool"):
        canonical_bool(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("+5", "5"),
        ("-0", "0"),
        ("017", "15"),
        ("0o17", "15"),
        ("0x1F", "31"),
        ("0X_ff", "255"),
        ("0b101", "5"),
        ("1_000", "1000"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
    ],
)
def test_integers(text: str, expected: str) -> None:
    """Decimal, hexadecimal, octal, binary."""
    assert canonical_int(text) == expected


@pytest.mark.parametrize("text", ["", "x", "08", "1.0", "1e3", "_1", "1__0", "0x", str(1 << 63), "٣", "9" * 999])
def test_what_is_no_integer(text: str) -> None:
    """Among it what Python would take."""
    with pytest.raises(ValueError, match="expected an integer"):
        canonical_int(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("-0", "-0"),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("100000", "100000"),
        ("1e6", "1e+06"),
        ("123456789", "1.23456789e+08"),
        ("0.0001", "0.0001"),
        ("1e-5", "1e-05"),
        ("9.9999995e-5", "9.9999995e-05"),
        ("999999.99999999999", "1e+06"),
        ("1.5e300", "1.5e+300"),
        ("1_0", "10"),
        ("0x1p4", "16"),
        ("inf", "+Inf"),
        ("-Infinity", "-Inf"),
        ("nan", "NaN"),
    ],
)
def test_floats(text: str, expected: str) -> None:
    """The shortest form."""
    assert canonical_float(text) == expected


@pytest.mark.parametrize("text", ["", ".", "1e400", "0x1p9999", "1,5", " 1", "1e", "0x1"])
def test_what_is_no_float(text: str) -> None:
    """Nor what would be infinite by accident."""
    with pytest.raises(ValueError, match="expected a number"):
        canonical_float(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0s"),
        ("90s", "1m30s"),
        ("1.5h", "1h30m0s"),
        ("1h30m", "1h30m0s"),
        ("1500us", "1.5ms"),
        ("1500µs", "1.5ms"),
        ("1500μs", "1.5ms"),
        ("999ns", "999ns"),
        ("1000ns", "1µs"),
        ("0.9ns", "0s"),
        ("-1m", "-1m0s"),
        ("+2s", "2s"),
        (".5s", "500ms"),
        ("1.s", "1s"),
        ("3h0m0.5s", "3h0m0.5s"),
        ("2562047h47m16.854775807s", "2562047h47m16.854775807s"),
        ("-2562047h47m16.854775808s", "-2562047h47m16.854775808s"),
    ],
)
def test_durations(text: str, expected: str) -> None:
    """In Go's notation, in and out."""
    assert canonical_duration(text) == expected


@pytest.mark.parametrize("text", ["", "1", "s", ".s", "1d", "1m1", "1e3s", "--1s", "2562048h", "1s" * 99])
def test_what_is_no_duration(text: str) -> None:
    """A unit is needed, and room in 64 bits of nanoseconds."""
    with pytest.raises(ValueError, match="expected a duration"):
        canonical_duration(text)


# --- flags -----------------------------------------------------------------------------------------------------------


@attrs.define(eq=False, kw_only=True)
class FakePlugin:
    """A plugin with flags; *answer* is a reply, an error or something to await."""

    id: PluginId
    flags: tuple[wire.FlagSpec, ...] = ()
    register: Callable[[], Awaitable[None]] | Exception | None = None
    reply: wire.CommandLineReply | Exception = attrs.field(factory=wire.CommandLineReply)
    metadata: wire.PluginMetadata = METADATA
    capabilities: wire.Capabilities = attrs.field(factory=lambda: wire.Capabilities(command_line_plugin=True))
    requests: list[wire.CommandLineRequest] = attrs.field(factory=list)

    async def call(self, method: Method[Any, Any], request: Any, /) -> Any:
        """By script."""
        await trio.lowlevel.checkpoint()
        if method is methods.COMMAND_LINE_REGISTER:
            assert request == wire.PluginRequest(plugin=self.metadata)
            if isinstance(self.register, Exception):
                raise self.register
            if self.register is not None:
                await self.register()
            return wire.FlagsReply(flags=self.flags)
        assert method is methods.COMMAND_LINE_EXECUTE
        self.requests.append(request)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def spec(name: str, kind: str = "", default: str = "", usage: str = "") -> wire.FlagSpec:
    return wire.FlagSpec(name=name, type=kind, default_value=default, usage=usage)


def acme(*flags: wire.FlagSpec, id: str = "acme", **more: Any) -> FakePlugin:
    return FakePlugin(id=PluginId(id), flags=flags, **more)


async def collected(*plugins: FakePlugin, taken: frozenset[str] = frozenset({"config"})) -> FlagSet:
    return await collect_flags(plugins, taken=taken)


async def test_flags_have_the_types_and_defaults_of_the_contract() -> None:
    """Names are trimmed, an empty type is a bool, an empty default is the type's zero."""
    found = await collected(
        acme(
            spec(" acme-login ", usage="Sign in"),
            spec("s", "string", "x y"),
            spec("i", "int"),
            spec("l", "int64", "0x10"),
            spec("f", "float64", "0.50"),
            spec("d", "duration", "90s"),
        )
    )
    assert found.warnings == ()
    assert [(flag.name, flag.type, flag.default) for flag in found.flags] == [
        ("acme-login", "bool", "false"),
        ("s", "string", "x y"),
        ("i", "int", "0"),
        ("l", "int64", "16"),
        ("f", "float64", "0.5"),
        ("d", "duration", "1m30s"),
    ]
    assert found.flags[0].usage == "Sign in"
    assert {flag.plugin_id for flag in found.flags} == {"acme"}


@pytest.mark.parametrize(
    "bad",
    [
        spec(""),
        spec("  "),
        spec("-x"),
        spec("help"),
        spec("h"),
        spec("a b"),
        spec("a\tb"),
        spec("a=b"),
        spec("a\x1bb"),
        spec("x" * 129),
        spec("x", "integer"),
        spec("x", "int", "many"),
        spec("x", "bool", "perhaps"),
        spec("x", "duration", "5"),
        spec("config"),
    ],
)
async def test_a_flag_that_cannot_be_costs_only_itself(bad: wire.FlagSpec) -> None:
    """It is named in a warning; the plugin's other flags count."""
    found = await collected(acme(bad, spec("good")))
    assert [flag.name for flag in found.flags] == ["good"]
    [warning] = found.warnings
    assert warning.startswith("plugin acme: flag ")


async def test_of_two_plugins_with_one_flag_the_first_has_it() -> None:
    """They come in priority order."""
    found = await collected(acme(spec("login"), id="first"), acme(spec("login", "string"), spec("x"), id="second"))
    assert [(flag.plugin_id, flag.name, flag.type) for flag in found.flags] == [
        ("first", "login", "bool"),
        ("second", "x", "bool"),
    ]
    assert found.warnings == ("plugin second: flag 'login' is left out: plugin first has one of that name",)


async def test_plugins_without_the_capability_are_not_asked() -> None:
    """Whatever they would say."""
    silent = acme(spec("x"), capabilities=wire.Capabilities(usage_plugin=True))
    assert (await collected(silent)).flags == ()


async def test_a_plugin_that_fails_costs_only_its_own_flags() -> None:
    """An error is a warning."""
    broken = acme(spec("x"), id="broken", register=PluginCallError(method="command_line.register", message="no"))
    found = await collected(broken, acme(spec("y")))
    assert [flag.name for flag in found.flags] == ["y"]
    assert found.warnings == ("plugin broken declares no flags: no",)


async def test_a_plugin_that_does_not_answer_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The help would never come."""
    found = await collected(acme(spec("x"), id="hung", register=trio.sleep_forever), acme(spec("y")))
    assert [flag.name for flag in found.flags] == ["y"]
    assert trio.current_time() == pytest.approx(FLAGS_S)
    assert found.warnings == (f"plugin hung declares no flags: no answer within {FLAGS_S:g} s",)


async def test_the_number_of_flags_is_bounded() -> None:
    """The rest is mentioned."""
    found = await collected(acme(*(spec(f"f{n}") for n in range(MAX_FLAGS + 3))))
    assert len(found.flags) == MAX_FLAGS
    assert found.warnings == (f"plugin acme: only the first {MAX_FLAGS} of {MAX_FLAGS + 3} flags count",)


def flag_set() -> FlagSet:
    def one(name: str, kind: str) -> PluginFlag:
        return PluginFlag(plugin_id=PluginId("acme"), name=name, type=kind, usage="", default="")

    return FlagSet(flags=(one("b", "bool"), one("s", "string"), one("n", "int"), one("d", "duration")))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {}),
        (("-b",), {"b": "true"}),
        (("--b",), {"b": "true"}),
        (("-b=F",), {"b": "false"}),
        (("-s", "x"), {"s": "x"}),
        (("--s=x",), {"s": "x"}),
        (("-s=",), {"s": ""}),
        (("-s=a=b",), {"s": "a=b"}),
        (("-s", "-b"), {"s": "-b"}),
        (("-n", "-5", "-b"), {"n": "-5", "b": "true"}),
        (("-d", "90s"), {"d": "1m30s"}),
        (("-n=1", "--n=2"), {"n": "2"}),
    ],
)
def test_flags_are_written_as_in_go(arguments: Sequence[str], expected: dict[str, str]) -> None:
    """One dash or two, values behind '=' or a blank, bools without."""
    assert flag_set().parse(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-x",), "unrecognized arguments: -x"),
        (("---b",), "unrecognized arguments: ---b"),
        (("b",), "unrecognized arguments: b"),
        (("-",), "unrecognized arguments: -"),
        (("-s",), "argument -s: expected one argument"),
        (("-b=perhaps",), "argument -b: expected a bool: true, false, t, f, 1 or 0, got 'perhaps'"),
        (("-n", "many"), "argument -n: expected an integer, got 'many'"),
        (("-b", "false"), "unrecognized arguments: false"),
    ],
)
def test_what_does_not_fit_the_flags_is_said(arguments: Sequence[str], message: str) -> None:
    """In the words of a usage error."""
    with pytest.raises(FlagError) as caught:
        flag_set().parse(arguments)
    assert caught.value.message == message


# --- execution -------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Streams:
    """What was written."""

    stdout: bytes = b""
    stderr: bytes = b""

    def __call__(self, stream: str, data: bytes, /) -> None:
        if stream == "stdout":
            self.stdout += data
        else:
            self.stderr += data


async def executed(
    folder: Path, *plugins: FakePlugin, given: dict[str, str], args: tuple[str, ...] = ("-x",)
) -> tuple[int, Streams]:
    flags = await collected(*plugins)
    streams = Streams()
    invocation = Invocation(
        program="cpa",
        args=args,
        config_path="config.yaml",
        host=wire.HostSummary(auth_dir=str(folder)),
        native={"config": "config.yaml"},
        given=given,
    )
    return await execute(plugins, flags, invocation, output=streams, files=CredentialFiles(folder)), streams


async def test_a_plugin_whose_flag_was_given_is_told_everything(tmp_path: Path) -> None:
    """Members as in plugin-abi 4.13.2: native flags have neither type nor are they set."""
    plugin = acme(spec("acme-login"), spec("acme-port", "int", "7"))
    code, streams = await executed(tmp_path, plugin, given={"acme-login": "true"}, args=("-acme-login",))
    assert (code, streams.stdout, streams.stderr) == (0, b"", b"")
    login = wire.FlagValue(name="acme-login", type="bool", value="true", set=True)
    assert plugin.requests == [
        wire.CommandLineRequest(
            plugin=METADATA,
            program="cpa",
            args=("-acme-login",),
            config_path="config.yaml",
            host=wire.HostSummary(auth_dir=str(tmp_path)),
            flags={
                "config": wire.FlagValue(name="config", type="", value="config.yaml", set=False),
                "acme-login": login,
                "acme-port": wire.FlagValue(name="acme-port", type="int", value="7", set=False),
            },
            triggered_flags={"acme-login": login},
        )
    ]


async def test_only_plugins_with_a_given_flag_run_and_in_order(tmp_path: Path) -> None:
    """The first exit code that is not 0 counts, and does not keep the others from their work."""
    first = acme(spec("a"), id="one", reply=wire.CommandLineReply(stdout=b"1\n", exit_code=0))
    second = acme(spec("b"), id="two", reply=wire.CommandLineReply(stdout=b"2\n", stderr=b"no\n", exit_code=3))
    third = acme(spec("c"), id="three", reply=wire.CommandLineReply(stdout=b"3\n", exit_code=4))
    idle = acme(spec("d"), id="four")
    given = {"c": "true", "a": "true", "b": "true"}
    code, streams = await executed(tmp_path, first, second, third, idle, given=given)
    assert code == 3
    assert (streams.stdout, streams.stderr) == (b"1\n2\n3\n", b"no\n")
    assert [len(plugin.requests) for plugin in (first, second, third, idle)] == [1, 1, 1, 0]
    assert set(second.requests[0].flags) == {"config", "a", "b", "c", "d"}
    assert set(second.requests[0].triggered_flags) == {"b"}


async def test_credentials_of_success_are_saved_and_mentioned(tmp_path: Path) -> None:
    """On a line of their own, whether or not the plugin ended its own."""
    auths = tuple(
        wire.AuthData(provider="acme", file_name=name, storage_json=b'{"token":"t"}') for name in ("a.json", "b.json")
    )
    plugin = acme(spec("x"), reply=wire.CommandLineReply(stdout=b"signed in", auths=auths))
    code, streams = await executed(tmp_path, plugin, given={"x": "true"})
    assert code == 0
    lines = streams.stdout.decode().splitlines()
    assert lines == [
        "signed in",
        f"Authentication saved to {tmp_path / 'a.json'}",
        f"Authentication saved to {tmp_path / 'b.json'}",
    ]
    assert (tmp_path / "a.json").read_bytes() == b'{"token":"t","type":"acme"}'


async def test_credentials_of_failure_are_not_saved(tmp_path: Path) -> None:
    """They may be half of something."""
    reply = wire.CommandLineReply(auths=(wire.AuthData(provider="acme", file_name="a.json"),), exit_code=1)
    code, streams = await executed(tmp_path, acme(spec("x"), reply=reply), given={"x": "true"})
    assert (code, streams.stdout) == (1, b"")
    assert os.listdir(tmp_path) == []


async def test_what_cannot_be_saved_is_said(tmp_path: Path) -> None:
    """A name that leads out of the folder, for instance."""
    reply = wire.CommandLineReply(auths=(wire.AuthData(provider="acme", file_name="../a.json"),))
    code, streams = await executed(tmp_path / "auths", acme(spec("x"), reply=reply), given={"x": "true"})
    assert code == 1
    assert streams.stderr.startswith(b"Failed to save authentication: ")
    assert not (tmp_path / "a.json").exists()


async def test_a_plugin_that_fails_is_named_and_others_run(tmp_path: Path) -> None:
    """Exit code 1."""
    broken = acme(spec("a"), id="one", reply=PluginCallError(method="command_line.execute", message="no network"))
    fine = acme(spec("b"), id="two", reply=wire.CommandLineReply(stdout=b"ok\n"))
    code, streams = await executed(tmp_path, broken, fine, given={"a": "true", "b": "true"})
    assert code == 1
    assert (streams.stdout, streams.stderr) == (b"ok\n", b"plugin one failed: no network\n")


@pytest.mark.parametrize(("said", "code"), [(256, 1), (-1, 255), (257, 1), (3, 3)])
async def test_no_failure_looks_like_success_to_the_shell(tmp_path: Path, said: int, code: int) -> None:
    """A process has eight bits for it."""
    plugin = acme(spec("x"), reply=wire.CommandLineReply(exit_code=said))
    assert (await executed(tmp_path, plugin, given={"x": "true"}))[0] == code
