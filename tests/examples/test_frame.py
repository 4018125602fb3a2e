"""The frame around the examples: what builds them, what is listed, what happens without a compiler, CMake."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cpa.config.load import parse_config
from cpa.config.schema import Isolation
from cpa.testing.conformance import Settings, Verdict, check_plugin
from tests.examples.building import EXAMPLES, ROOT, TOOLS, Example, Library, all_examples
from tests.native.build import needed

STANDARD = {
    "simple",
    "model",
    "auth",
    "frontend-auth",
    "frontend-auth-exclusive",
    "executor",
    "protocol-format",
    "request-translator",
    "request-normalizer",
    "response-translator",
    "response-normalizer",
    "thinking",
    "usage",
    "cli",
    "management-api",
    "host-callback",
}


def make(*arguments: str, path: Path | None = None, ci: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the examples' Makefile, with only the tools in *path* if that is given."""
    kept = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    env = {**kept, "CI": ci, **({"PATH": str(path)} if path is not None else {})}
    command = [needed("make"), "-C", str(EXAMPLES), "--no-print-directory", *arguments]
    return subprocess.run(command, env=env, timeout=240, capture_output=True, text=True, check=False)


def bare_tools(folder: Path, *more: str) -> Path:
    """A folder with what the Makefile needs, and no compilers but *more*."""
    for tool in ("sh", "sed", "uname", "mkdir", "cp", "mv", "rm", "rmdir", *more):
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return folder


def test_every_standard_example_is_there_in_c() -> None:
    """As the documents of the examples promise."""
    assert {example.name for example in all_examples() if example.language == "c"} == STANDARD


def test_every_standard_example_is_there_in_rust() -> None:
    """And one more, which is no example of a capability but of use."""
    assert {example.name for example in all_examples() if example.language == "rust"} == STANDARD | {"redact"}


def test_list_names_what_build_makes() -> None:
    """One line per library, in bin/, with the ids that configurations use."""
    languages = [language for language, tool in TOOLS.items() if shutil.which(tool)]
    listed = make("list", f"LANGUAGES={' '.join(languages)}")
    expected = {f"bin/{example.id}.so" for example in all_examples() if example.language in languages}
    assert (listed.returncode, set(listed.stdout.splitlines())) == (0, expected)
    assert len(listed.stdout.splitlines()) == len(expected)


@pytest.mark.parametrize("goal", ["list", "build"])
def test_a_language_that_is_not_installed_is_skipped_with_a_line(tmp_path: Path, goal: str) -> None:
    """And everything else is done."""
    path = tmp_path / "tools"
    path.mkdir()
    done = make(goal, f"BIN={tmp_path / 'bin'}", path=bare_tools(path))
    assert done.returncode == 0, done.stderr
    assert "skipped: no go on this machine: examples in go are not built (" in done.stderr
    assert "host-model-callback" in done.stderr
    assert "skipped: no gcc on this machine: examples in c are not built (auth cli executor " in done.stderr
    assert ".so" not in done.stdout


def test_continuous_integration_skips_nothing(tmp_path: Path) -> None:
    """A missing compiler is an error there."""
    done = make("build", "LANGUAGES=c", path=bare_tools(tmp_path), ci="true")
    assert done.returncode == 2
    assert "no gcc on this machine" in done.stderr


def test_one_example_can_be_built_and_only_its_own_files_are_cleaned(tmp_path: Path) -> None:
    """The folder may hold other people's plugins."""
    folders = [f"BIN={tmp_path / 'bin'}", f"BUILD={tmp_path / 'work'}", "LANGUAGES=c", "EXAMPLES=usage cli"]
    done = make("build", *folders)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "bin").iterdir()} == {"usage-c.so", "cli-c.so"}
    again = make("build", *folders)
    assert (again.returncode, again.stdout) == (0, "")
    (tmp_path / "bin" / "other.so").write_bytes(b"")
    assert make("clean", *folders).returncode == 0
    assert {path.name for path in (tmp_path / "bin").iterdir()} == {"other.so"}
    assert not (tmp_path / "work").exists()


def test_an_error_of_a_compiler_ends_the_build(tmp_path: Path) -> None:
    """With what it said, and without a library."""
    folders = [f"BIN={tmp_path / 'bin'}", f"BUILD={tmp_path / 'work'}", "LANGUAGES=c", "EXAMPLES=usage"]
    done = make("build", *folders, "CFLAGS=-fno-such-flag")
    assert done.returncode == 2
    assert "no-such-flag" in done.stderr
    assert not list((tmp_path / "bin").glob("*.so*"))


def test_the_cmake_lines_of_the_documents_work(tmp_path: Path) -> None:
    """Into the folder that they name, under the plugin's id."""
    output = tmp_path / "plugins" / "linux"
    source = ["-S", str(EXAMPLES / "simple" / "c"), "-B", str(tmp_path / "build")]
    for arguments in ([*source, f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}"], ["--build", str(tmp_path / "build")]):
        done = subprocess.run(["cmake", *arguments], cwd=ROOT, timeout=120, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in output.iterdir()] == ["simple-c.so"]


def test_every_c_example_has_a_cmake_file() -> None:
    """For those who build with it."""
    for name in STANDARD:
        text = (EXAMPLES / name / "c" / "CMakeLists.txt").read_text(encoding="utf-8")
        assert f"cpa_plugin({name})" in text


@pytest.mark.parametrize("plugin", all_examples(), ids=str)
async def test_every_example_passes_the_conformance_kit(library: Library, plugin: Example) -> None:
    """Without even a warning; inline too where there is much to check or where the host is called."""
    inline = (Isolation.INLINE,) if plugin.name in {"simple", "host-callback"} else ()
    report = await check_plugin(
        Settings(path=library[plugin], plugin_id=plugin.id, isolations=(Isolation.PROCESS, *inline))
    )
    wrong = [check for check in report.checks if check.verdict not in (Verdict.PASS, Verdict.SKIP)]
    if plugin.name == "protocol-format":  # executes whole answers only, as its description says
        others = {"executor.execute_stream", "executor.count_tokens", "executor.http_request", ""}
        assert {check.method for check in wrong} == others
        assert {check.verdict for check in wrong} == {Verdict.WARN}
        assert all(check.got.startswith("error: unknown method") for check in wrong)  # Go names it
    else:
        assert not wrong, wrong
    assert report.plugin is not None
    assert report.plugin.name == plugin.says or plugin.name not in STANDARD - {"simple"}
    assert (report.plugin.version, report.plugin.author) == ("0.1.0", "router-for-me") or plugin.name not in STANDARD


def test_the_readme_names_every_example_with_its_languages() -> None:
    """What is there, no more and no less; each has a text of its own."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([a-z-]+)\]\(([^)]+)\) \| [^|]+ \| ([a-z, ]+) \|$", text, re.MULTILINE)
    written: dict[str, set[str]] = {}
    for example in all_examples():
        written.setdefault(example.name, set()).add(example.language)
    assert {name: set(languages.split(", ")) for name, _, languages in rows} == written
    for name, link, _ in rows:
        assert link.startswith(f"{name}/")
        assert (EXAMPLES / link).is_file()


def test_the_settings_in_the_readmes_are_good() -> None:
    """Every YAML block of them is a configuration that has nothing wrong with it."""
    blocks = 0
    for path in sorted(EXAMPLES.glob("**/README.md")):
        for block in re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            parse_config(block, file=path.name)
            blocks += 1
    assert blocks > len(STANDARD)
