"""The helper for plugins in Rust and the crates that have tests of their own, and the plugin in the helper's head."""

import re
from pathlib import Path

import pytest

from cpa.testing.conformance import Settings, Verdict, check_plugin
from tests.examples.building import EXAMPLES, run, session_library
from tests.native.build import needed

HELPER = EXAMPLES / "lib" / "rust" / "src" / "lib.rs"


@pytest.mark.parametrize("crate", ["lib/rust", "redact/rust"])
def test_a_crate_passes_its_own_tests(tmp_path_factory: pytest.TempPathFactory, crate: str) -> None:
    """Hostile input, the C boundary; placeholders that are cut in three anywhere."""
    target = session_library(tmp_path_factory).folder / "cargo-test"
    cargo = [needed("cargo"), "test", "--quiet", "--locked", "--offline"]
    run([*cargo, "--manifest-path", str(EXAMPLES / crate / "Cargo.toml")], CARGO_TARGET_DIR=str(target))


async def test_the_plugin_in_its_head_is_one(tmp_path: Path) -> None:
    """With the helper copied as a module beside it, by the compiler alone; it passes the conformance kit."""
    text = HELPER.read_text(encoding="utf-8")
    [plugin] = re.findall(r"^//! ```\n(.*?)^//! ```$", text, re.MULTILINE | re.DOTALL)
    source = tmp_path / "shout.rs"
    source.write_text("mod cpa_plugin;\n" + re.sub(r"^//! ?", "", plugin, flags=re.MULTILINE), encoding="utf-8")
    (tmp_path / "cpa_plugin.rs").write_text(text, encoding="utf-8")
    library = tmp_path / "shout.so"
    strict = ["--edition", "2021", "--crate-type", "cdylib", "-D", "warnings"]
    run([needed("rustc"), *strict, str(source), "-o", str(library)])
    report = await check_plugin(Settings(path=library))
    assert report.plugin is not None
    assert (report.plugin.name, report.plugin.capabilities) == ("shout", ("request_normalizer",))
    wrong = [check for check in report.checks if check.verdict not in (Verdict.PASS, Verdict.SKIP)]
    assert not wrong, wrong
