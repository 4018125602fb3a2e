"""The plugin as a library: the contract, the form of its source, its own unit tests."""

import os
import subprocess
from pathlib import Path

import pytest
import trio

from cpa.testing.conformance import Settings, Verdict, check_plugin
from tests.codex_cli.hosting import FAIL_S, PLUGIN, Built
from tests.examples.building import ROOT
from tests.native.build import go_cache, needed

SOURCE = ROOT / "plugins" / PLUGIN


async def test_contract(built: Built, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `cpa plugin check` tries it, on a machine without the program, where every turn is refused."""
    for variable in ("HOME", "XDG_STATE_HOME", "PATH"):
        monkeypatch.setenv(variable, str(tmp_path))
    with trio.fail_after(FAIL_S):
        report = await check_plugin(Settings(path=built.library))
    assert report.plugin is not None
    assert set(report.plugin.capabilities) == {"model_provider", "executor", "usage_plugin", "management_api"}
    assert not [check for check in report.checks if check.verdict is Verdict.FAIL]


def test_source_is_formatted_and_its_own_tests_pass(tmp_path_factory: pytest.TempPathFactory) -> None:
    formatted = subprocess.run([needed("gofmt"), "-l", str(SOURCE)], capture_output=True, timeout=60, check=False)
    assert (formatted.returncode, formatted.stdout) == (0, b"")
    needed("go")
    env = {**os.environ, "GOCACHE": go_cache(tmp_path_factory.getbasetemp())}
    command = [needed("make"), "-C", str(ROOT / "plugins"), "test"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=FAIL_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_go_the_message_says_so(tmp_path: Path) -> None:
    """And nothing else is tried."""
    command = [needed("make"), "-C", str(ROOT / "plugins"), "build", "GO=no-such-go", f"BIN={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "there is no go on this machine" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.[ch]")), ids=lambda path: path.name)
def test_c_without_warnings(path: Path) -> None:
    command = [needed("gcc"), "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
