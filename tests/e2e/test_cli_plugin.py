"""`cpa plugin …`, `cpa plan` with plugins, and flags of plugins: the program and compiled plugins."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from cpa.cli import main
from tests.e2e.program import CPA, ROOT, TIMEOUT_S, Result, environment, run, serving
from tests.testing.conformance_support import Compiler

STANDALONE = "no proxy here"


@pytest.fixture(scope="module")
def kit_plugin(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Compiles the kit's test plugins."""
    return Compiler(tmp_path_factory.mktemp("kit"))


async def run_with_input(data: bytes, *arguments: str) -> Result:
    """As `run`, with something on standard input."""
    with trio.fail_after(TIMEOUT_S):
        done = await trio.run_process(
            [*CPA, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=data,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def configuration(
    folder: Path, plugins: Mapping[str, tuple[Path, int]], *, enabled: bool = True, more: str = ""
) -> Path:
    """A configuration with *plugins*: id to library and priority."""
    libraries = folder / "plugins"
    libraries.mkdir(exist_ok=True)
    lines = [
        "host: 127.0.0.1",
        "port: 0",
        f"auth-dir: {folder / 'auths'}",
        "plugins:",
        f"  enabled: {str(enabled).lower()}",
        f"  dir: {libraries}",
        "  configs:",
    ]
    for name, (library, priority) in plugins.items():
        (libraries / f"{name}.so").write_bytes(library.read_bytes())
        lines.append(f"    {name}: {{enabled: true, priority: {priority}}}")
    path = folder / "config.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def saved_credentials(config: Path) -> list[str]:
    """Names of the files in the credential folder of a configuration made by `configuration`."""
    return sorted(path.name for path in (config.parent / "auths").glob("*.json"))


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "options"),
    [
        ("list", ["--config", "--json"]),
        ("call", ["FILE.so", "METHOD", "--isolation", "--config-yaml", "--no-register", "--raw", "--timeout"]),
        ("check", ["FILE.so", "--isolation", "--config-yaml", "--timeout", "--json"]),
    ],
)
def test_help_shows_options_and_examples(action: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit codes, for scripts."""
    with pytest.raises(SystemExit) as ended:
        main(["plugin", action, "--help"])
    written = capsys.readouterr()
    assert (ended.value.code, written.err) == (0, "")
    for text in (*options, f"cpa plugin {action} ", "exit codes: 0, 1 "):
        assert text in written.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("plugin",),
        ("plugin", "bogus"),
        ("plugin", "call", "x.so"),
        ("plugin", "call", "x.so", ""),
        ("plugin", "check", "x.so", "--timeout", "0"),
        ("plugin", "check", "x.so", "--isolation", "none"),
    ],
)
def test_wrong_usage_exits_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """With nothing on standard output."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    written = capsys.readouterr()
    assert (ended.value.code, written.out) == (2, "")
    assert "usage: cpa plugin" in written.err


async def test_a_library_that_is_not_there_is_wrong_usage_of_check(tmp_path: Path) -> None:
    """Nothing was checked."""
    done = await run("plugin", "check", str(tmp_path / "x.so"))
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("x.so: expected a library, got no such file\n")


# --- list ------------------------------------------------------------------------------------------------------------


async def test_list_loads_plugins_and_says_how_they_are(kit_plugin: Compiler, tmp_path: Path) -> None:
    """Also those that are not configured, and those that are not there."""
    path = configuration(tmp_path, {"kit": (kit_plugin(), 3), "bad": (kit_plugin("NO_AUTHOR"), 0)})
    (tmp_path / "plugins" / "idle-v1.2.so").write_bytes(b"never opened")
    with path.open("a") as file:
        file.write("    gone: {enabled: true, isolation: inline}\n")
    done = await run("plugin", "list", "--config", str(path), "--json")
    assert (done.code, done.err) == (1, "")
    plugins = {plugin["id"]: plugin for plugin in json.loads(done.out)["plugins"]}
    assert list(plugins) == ["bad", "gone", "idle", "kit"]
    kit = plugins["kit"]
    assert len(kit.pop("capabilities")) == 20
    assert kit == {
        "id": "kit",
        "file": str(tmp_path / "plugins" / "kit.so"),
        "version": "1.0.0",
        "enabled": True,
        "isolation": "process",
        "state": "registered",
        "reason": "",
        "schema_version": 3,
        "priority": 3,
    }
    assert (plugins["bad"]["state"], plugins["bad"]["capabilities"]) == ("failed", [])
    assert "Author blank" in plugins["bad"]["reason"]
    assert (plugins["gone"]["state"], plugins["gone"]["isolation"]) == ("failed", "inline")
    assert plugins["idle"]["version"] == "1.2"
    assert (plugins["idle"]["state"], plugins["idle"]["enabled"]) == ("disabled", False)

    table = await run("plugin", "list", "--config", str(path))
    assert (table.code, table.err) == (1, "")
    rows = {line.split()[0]: line.split()[1:4] for line in table.out.splitlines() if not line.startswith(" ")}
    assert rows["kit"] == ["1.0.0", "registered", "yes"]
    assert rows["idle"] == ["1.2", "disabled", "no"]


async def test_list_succeeds_when_nothing_failed(kit_plugin: Compiler, tmp_path: Path) -> None:
    """Switched off is not failed, and shows what lies there."""
    path = configuration(tmp_path, {"kit": (kit_plugin(), 3)}, enabled=False)
    (tmp_path / "plugins" / "other.so").write_bytes(b"never opened")
    done = await run("plugin", "list", "--config", str(path), "--json")
    assert (done.code, done.err) == (0, "")
    assert [(p["id"], p["state"], p["reason"]) for p in json.loads(done.out)["plugins"]] == [
        ("kit", "disabled", "plugins.enabled is false"),
        ("other", "disabled", "plugins.enabled is false"),
    ]


async def test_list_without_plugins(tmp_path: Path) -> None:
    """A sentence."""
    path = tmp_path / "config.yaml"
    path.write_text("port: 0\n")
    done = await run("plugin", "list", "--config", str(path))
    assert (done.code, done.out) == (0, "no plugins in plugins, and none configured\n")


# --- call ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["process", "inline"])
async def test_call_prints_the_result(kit_plugin: Compiler, isolation: str) -> None:
    """Of the request on standard input, as it is."""
    arguments = ("plugin", "call", str(kit_plugin()), "request.normalize", "--isolation", isolation)
    done = await run_with_input(b'{"Body":"e30="}', *arguments)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"Body": "eyJub3JtYWxpemVkIjp0cnVlfQ=="}
    assert done.out.startswith('{\n  "Body"')
    refused = await run_with_input(b"no JSON", *arguments)
    assert (refused.code, refused.out, refused.err) == (1, "", "cpa: no object\n")


async def test_call_sends_an_empty_object_for_nothing(kit_plugin: Compiler) -> None:
    """And prints the raw reply when told."""
    done = await run_with_input(b"", "plugin", "call", str(kit_plugin()), "executor.identifier", "--raw")
    assert (done.code, done.out, done.err) == (0, '{"ok":true,"result":{"identifier":"kit"}}', "")


async def test_call_answers_the_log_and_nothing_else(kit_plugin: Compiler) -> None:
    """Host calls are shown on standard error."""
    done = await run_with_input(b"{}", "plugin", "call", str(kit_plugin()), "management.handle")
    assert done.code == 0
    log, http = done.err.splitlines()
    assert log == 'host.log: info: a page was asked for {"n": 1}'
    assert http.startswith("host.http.do: ")
    assert STANDALONE in http


async def test_call_of_a_method_that_nobody_knows(kit_plugin: Compiler) -> None:
    """The plugin decides."""
    done = await run_with_input(b"{}", "plugin", "call", str(kit_plugin()), "my.own")
    assert (done.code, done.out, done.err) == (1, "", "cpa: unknown method\n")


@pytest.mark.parametrize(
    ("switch", "method", "text"),
    [
        ('ABORT_IN="model.route"', "model.route", "crashed in model.route: killed by signal 6 (SIGABRT)"),
        ('HANG_IN="model.route"', "model.route", "model.route did not return within 0.5 s"),
        ("NO_AUTHOR", "model.route", "Author blank"),
    ],
)
async def test_call_of_a_plugin_that_fails(kit_plugin: Compiler, switch: str, method: str, text: str) -> None:
    """One line, exit 1."""
    done = await run_with_input(b"{}", "plugin", "call", str(kit_plugin(switch)), method, "--timeout", "0.5")
    assert (done.code, done.out) == (1, "")
    assert text in done.err
    assert "Traceback" not in done.err


async def test_call_without_registration(kit_plugin: Compiler) -> None:
    """For plugins that do not register yet."""
    arguments = ("plugin", "call", str(kit_plugin("NO_AUTHOR")), "executor.identifier", "--no-register")
    done = await run_with_input(b"", *arguments)
    assert (done.code, json.loads(done.out)) == (0, {"identifier": "kit"})


async def test_call_of_what_is_no_library(tmp_path: Path) -> None:
    """The loader's words."""
    path = tmp_path / "x.so"
    path.write_bytes(b"no library")
    done = await run_with_input(b"", "plugin", "call", str(path), "x")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("cpa: dlopen ")


# --- check -----------------------------------------------------------------------------------------------------------


async def test_check_of_a_good_plugin(kit_plugin: Compiler) -> None:
    """In both isolations; nothing on standard error when that is no terminal."""
    done = await run("plugin", "check", str(kit_plugin("FEW")), "--isolation", "both")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].startswith("OK: ")
    assert "\nisolation: process\n" in done.out
    assert "\nisolation: inline\n" in done.out


async def test_check_of_a_plugin_that_crashes(kit_plugin: Compiler) -> None:
    """Exit 1, and the report says in which check."""
    done = await run("plugin", "check", str(kit_plugin("FEW", "SEGV_ON_BROKEN")), "--json")
    assert (done.code, done.err) == (1, "")
    report = json.loads(done.out)
    assert not report["ok"]
    [check] = [check for check in report["checks"] if check["verdict"] == "fail"]
    assert (check["method"], check["name"]) == ("request.normalize", "broken request")
    assert "SIGSEGV" in check["got"]


# --- plan ------------------------------------------------------------------------------------------------------------


async def test_plan_shows_plugins_in_order_and_why_others_are_missing(kit_plugin: Compiler, tmp_path: Path) -> None:
    """Without loading them when told."""
    path = configuration(
        tmp_path,
        {"low": (kit_plugin(), 1), "high": (kit_plugin(), 9), "bad": (kit_plugin("NO_AUTHOR"), 5)},
    )
    done = await run("plan", "--config", str(path))
    assert (done.code, done.err) == (0, "")
    [line] = [line for line in done.out.splitlines() if line.startswith("  request.normalize ")]
    assert line.split(maxsplit=2)[2] == "high (9), low (1)"
    assert "plugins that take no part:\n  bad: failed: " in done.out
    assert "Author blank" in done.out
    without = await run("plan", "--config", str(path), "--no-plugins")
    assert (without.code, without.err) == (0, "")
    assert "high" not in without.out
    assert "take no part" not in without.out


# --- flags of plugins ------------------------------------------------------------------------------------------------

EXECUTE = json.dumps(
    {
        "Stdout": "c2lnbmVkIGlu",
        "Stderr": "bm90ZQo=",
        "Auths": [{"Provider": "acme", "FileName": "acme-me.json", "StorageJSON": "eyJ0b2tlbiI6InQifQ=="}],
    },
    separators=(",", ":"),
).replace('"', '\\"')


@pytest.fixture(scope="module")
def flagged(kit_plugin: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with two plugins that have flags."""
    signing = kit_plugin(f'EXECUTE="{EXECUTE}"', name="acme")
    failing = kit_plugin('EXECUTE="{\\"ExitCode\\":7}"', name="fail")
    return configuration(tmp_path_factory.mktemp("flagged"), {"acme": (signing, 1), "fail": (failing, 9)})


@pytest.mark.parametrize(
    "arguments", [("serve", "--config", "PATH", "--acme-login"), ("-config", "PATH", "-acme-login")]
)
async def test_a_plugins_flag_makes_it_do_its_work(flagged: Path, arguments: tuple[str, ...]) -> None:
    """And the program does not serve: it writes, saves and ends."""
    done = await run(*(str(flagged) if word == "PATH" else word for word in arguments))
    saved = flagged.parent / "auths" / "acme-me.json"
    assert (done.code, done.err) == (0, "note\n")
    assert done.out == f"signed in\nAuthentication saved to {saved}\n"
    assert json.loads(saved.read_bytes()) == {"token": "t", "type": "acme"}
    saved.unlink()


async def test_the_exit_code_is_that_of_the_plugin(flagged: Path) -> None:
    """Both run, the higher priority first."""
    done = await run("-config", str(flagged), "-fail-login", "-acme-wait=5m")
    assert done.code == 7
    assert done.out.startswith("signed in\n")
    (flagged.parent / "auths" / "acme-me.json").unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nobody-knows"], "unrecognized arguments: --nobody-knows"),
        (["-acme-login", "-nobody-knows"], "unrecognized arguments: -nobody-knows"),
        (["-acme-login=perhaps"], "argument -acme-login: expected a bool"),
        (["-acme-wait"], "argument -acme-wait: expected one argument"),
        (["-acme-login", "--port", "x"], "argument --port: expected a port"),
    ],
)
async def test_wrong_flags_exit_2_and_run_nothing(flagged: Path, arguments: list[str], message: str) -> None:
    """With the usage."""
    done = await run("serve", "--config", str(flagged), *arguments)
    assert (done.code, done.out) == (2, "")
    assert "usage: cpa" in done.err
    assert message in done.err
    assert saved_credentials(flagged) == []


async def test_an_unknown_flag_without_a_configuration_is_a_usage_error(tmp_path: Path) -> None:
    """There is nobody who could know it."""
    done = await run("serve", "--nobody-knows", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "unrecognized arguments: --nobody-knows" in done.err


async def test_no_plugin_is_loaded_for_known_flags(tmp_path: Path) -> None:
    """A mistake in them is told at once: not even the configuration is read."""
    done = await run("serve", "--config", str(tmp_path / "nowhere.yaml"), "--port", "x")
    assert (done.code, done.out) == (2, "")
    assert "nowhere.yaml" not in done.err
    assert "argument --port: expected a port" in done.err


@pytest.mark.parametrize("arguments", [("serve", "--config", "PATH", "--help"), ("-config", "PATH", "-h"), ("--help",)])
async def test_help_lists_the_flags_of_plugins(flagged: Path, arguments: tuple[str, ...]) -> None:
    """Under the plugin's id, highest priority first; `cpa --help` takes the configuration from the environment."""
    done = await run(
        *(str(flagged) if word == "PATH" else word for word in arguments), env={"CPA_CONFIG": str(flagged)}
    )
    assert (done.code, done.err) == (0, "")
    assert "\nflags of plugin fail:\n  --fail-login " in done.out
    assert "\nflags of plugin acme:\n  --acme-login " in done.out
    assert done.out.index("plugin fail:") < done.out.index("plugin acme:")
    assert "--acme-wait DURATION" in done.out
    assert "How long (default: 1m30s)" in done.out


@pytest.mark.parametrize("content", ["port: [", "plugins: 7\n"])
async def test_a_broken_configuration_does_not_break_help(tmp_path: Path, content: str) -> None:
    """It is the next thing that people need."""
    (tmp_path / "config.yaml").write_text(content)
    done = await run("serve", "--help", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "usage: cpa" in done.out


@pytest.mark.parametrize("switch", ['ABORT_IN="command_line.register"', 'ABORT_IN="plugin.register"', "NO_AUTHOR"])
async def test_a_broken_plugin_does_not_break_help(kit_plugin: Compiler, tmp_path: Path, switch: str) -> None:
    """The others' flags are shown."""
    path = configuration(tmp_path, {"bad": (kit_plugin(switch), 0), "acme": (kit_plugin(name="acme"), 0)})
    done = await run("serve", "--config", str(path), "--help")
    assert (done.code, done.err) == (0, "")
    assert "flags of plugin acme:" in done.out
    assert "flags of plugin bad:" not in done.out


async def test_flags_that_clash_are_warned_of(kit_plugin: Compiler, tmp_path: Path) -> None:
    """The plugin of higher priority has it, and ours cannot be taken."""
    clashing = kit_plugin(
        'FLAGS="{\\"Name\\":\\"port\\"},{\\"Name\\":\\"acme-login\\"},{\\"Name\\":\\"own\\"}"', name="clash"
    )
    path = configuration(tmp_path, {"acme": (kit_plugin(name="acme"), 9), "clash": (clashing, 1)})
    done = await run("serve", "--config", str(path), "-own")
    assert (done.code, done.out) == (0, "done\n")
    assert "warning: plugin clash: flag 'port' is left out: cpa itself has one of that name\n" in done.err
    assert "warning: plugin clash: flag 'acme-login' is left out: plugin acme has one of that name\n" in done.err


async def test_known_flags_serve_as_ever(flagged: Path) -> None:
    """With the plugins of the configuration in force."""
    async with serving("serve", "--config", str(flagged), "--host=127.0.0.1", "--port", "0") as program:
        assert program.url.startswith("http://127.0.0.1:")
        assert await program.stop(signal.SIGTERM) == 0
