"""`cpa plugin new`: what it writes builds, keeps the contract without a warning, and does what it says.

`request_interceptor` alone is built and checked in every language by the ten-minute guide: see tests/docs.
"""

import argparse
import json
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from cpa.abi import wire
from cpa.cli_plugin import DEFAULT_CONFIG_YAML, call_plugin
from cpa.scaffold.capabilities import DESCRIPTIONS
from cpa.scaffold.plugin import Language, Scaffold, parse_capabilities, write_plugin
from cpa.testing.conformance import Report, Settings, check_plugin
from cpa.testing.conformance.report import Verdict
from tests.e2e.program import environment, run
from tests.native.build import go_cache, needed

TOOLS = {Language.C: "gcc", Language.RUST: "cargo", Language.GO: "go"}
BUILD_S = 400.0
CHECK_S = 200.0
ALONE = ("response_stream_interceptor", "executor,model_provider", "usage_plugin")

Variables: TypeAlias = dict[str, str]


@pytest.fixture
def variables(tmp_path_factory: pytest.TempPathFactory) -> Variables:
    """For compilers: a warning is an error, Go's cache is the session's."""
    found = environment({"RUSTFLAGS": "-D warnings", "GOCACHE": go_cache(tmp_path_factory.getbasetemp())})
    return {key: value for key, value in found.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


async def tool(command: list[str], folder: Path, variables: Variables) -> None:
    """Run a compiler, which has nothing to say."""
    with trio.fail_after(BUILD_S):
        done = await trio.run_process(
            command, cwd=folder, env=variables, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    assert "warning" not in said.lower(), said


def made(folder: Path, name: str, language: Language, capabilities: str) -> Path:
    """The folder of a new plugin."""
    needed(TOOLS[language])
    return write_plugin(Scaffold(name=name, language=language, capabilities=parse_capabilities(capabilities)), folder)


async def built(folder: Path, variables: Variables) -> Path:
    """The library, by the plugin's own Makefile."""
    # What stands on make's command line wins over the environment.
    await tool([needed("make"), "CFLAGS=-O1 -Werror"], folder, variables)
    return folder / f"{folder.name}.so"


async def checked(library: Path, capabilities: str) -> Report:
    """The conformance kit's report, which has no warning in it."""
    with trio.fail_after(CHECK_S):
        report = await check_plugin(Settings(path=library, timeout_s=30))
    counts = report.counts()
    assert (counts[Verdict.WARN], counts[Verdict.FAIL]) == (0, 0), report.as_text()
    assert report.plugin is not None
    assert report.plugin.capabilities == parse_capabilities(capabilities)
    return report


@pytest.mark.parametrize("language", list(Language))
async def test_all_capabilities_together(language: Language, tmp_path: Path, variables: Variables) -> None:
    library = await built(made(tmp_path, "Every.thing", language, "all"), variables)
    report = await checked(library, "all")
    assert {check.capability for check in report.checks} >= set(wire.SWITCHES)
    assert "host.log" in report.as_text()


@pytest.mark.parametrize("capabilities", ALONE)
async def test_some_alone_in_c(capabilities: str, tmp_path: Path, variables: Variables) -> None:
    """Nothing is left over that only others need: a warning of the compiler ends the build."""
    await checked(await built(made(tmp_path, "alone", Language.C, capabilities), variables), capabilities)


@pytest.mark.parametrize("capabilities", ALONE)
async def test_some_alone_in_rust(capabilities: str, tmp_path: Path, variables: Variables) -> None:
    """Likewise, as far as the compiler judges it without making the library."""
    folder = made(tmp_path, "alone", Language.RUST, capabilities)
    command = [needed("rustc"), "--edition", "2021", "--crate-type", "cdylib", "--emit=metadata", "-D", "warnings"]
    await tool([*command, "src/lib.rs"], folder, variables)


@pytest.mark.parametrize("capabilities", ALONE)
async def test_some_alone_in_go(capabilities: str, tmp_path: Path, variables: Variables) -> None:
    """Likewise; the source is formatted as Go's people want it."""
    folder = made(tmp_path, "alone", Language.GO, capabilities)
    offline = {"GOFLAGS": "-buildvcs=false -trimpath", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOPROXY": "off"}
    await tool([needed("go"), "vet", "."], folder, {**variables, **offline})
    gofmt = shutil.which("gofmt")
    if gofmt is not None:
        done = await trio.run_process([gofmt, "-l", "main.go"], cwd=folder, capture_stdout=True)
        assert done.stdout == b""


async def test_it_does_what_it_says(tmp_path: Path, variables: Variables) -> None:
    """Calls of the example in C, whose bodies the other languages have as well."""
    capabilities = "request_interceptor,request_normalizer,response_interceptor,management_api"
    library = await built(made(tmp_path, "shout", Language.C, capabilities), variables)

    async def call(method: str, request: str) -> Any:
        options = argparse.Namespace(
            file=library, method=method, isolation="process", no_register=False, raw=False, timeout=30.0
        )
        with trio.fail_after(CHECK_S):
            reply = await call_plugin(options, DEFAULT_CONFIG_YAML, request.encode())
        return json.loads(reply.body)["result"]

    refused = await call("request.intercept_before", asking("please, open sesame"))
    assert (refused["Terminate"], refused["StatusCode"]) == (True, 403)
    assert json.loads(b64decode(refused["ResponseBody"]))["error"]["message"] == "shout does not let this pass"
    assert await call("request.intercept_before", asking("hello")) == {}
    named = await call("request.normalize", asking("hello", ToFormat="openai"))
    assert json.loads(b64decode(named["Body"])) == {"user": "shout", "input": "hello"}
    assert await call("request.normalize", asking("hello", ToFormat="claude")) == {"Body": ""}
    seen = await call("response.intercept_after", asking("hello"))
    assert b64decode(seen["Body"]) == b'{"seen_by":"shout","input": "hello"}'
    assert seen["Headers"] == {"X-Plugin": ["shout"]}
    page = await call("management.handle", "{}")
    assert b"shout is running" in b64decode(page["Body"])


def asking(text: str, **more: str) -> str:
    """A request with a body."""
    return json.dumps({"Body": b64encode(json.dumps({"input": text}).encode()).decode(), **more})


# --- the command -----------------------------------------------------------------------------------------------------


async def test_the_command_says_what_is_next(tmp_path: Path) -> None:
    """And the folder is the one that the functions above make."""
    (tmp_path / "src").mkdir()
    arguments = ["--language", "go", "--capability", "executor, model_provider", "--directory", "src"]
    done = await run("plugin", "new", "acme", *arguments, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "src/acme: a plugin in go; next:",
        "  make -C src/acme",
        "  cpa plugin check src/acme/acme.so",
    ]
    (tmp_path / "other").mkdir()
    scaffold = Scaffold(name="acme", language=Language.GO, capabilities=("model_provider", "executor"))
    other = write_plugin(scaffold, tmp_path / "other")
    assert contents(tmp_path / "src" / "acme") == contents(other) == scaffold.files()


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files below *folder*."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def existing_folder(place: Path) -> None:
    place.mkdir()
    (place / "plugin.c").write_text("precious")


def dangling_link(place: Path) -> None:
    place.symlink_to(place.with_name("nowhere"))


@pytest.mark.parametrize("prepare", [existing_folder, dangling_link])
async def test_nothing_is_overwritten(prepare: Callable[[Path], None], tmp_path: Path) -> None:
    prepare(tmp_path / "mine")
    before = contents(tmp_path)
    done = await run("plugin", "new", "mine", "--language", "c", "--capability", "executor", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == "cpa: mine: expected a folder that does not exist yet, got one that does\n"
    assert contents(tmp_path) == before


async def test_help_lists_every_capability() -> None:
    done = await run("plugin", "new", "--help")
    assert done.code == 0
    for key, text in DESCRIPTIONS.items():
        assert any(line.split() == [key, *text.split()] for line in done.out.splitlines()), key
