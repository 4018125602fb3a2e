"""Libraries that are replaced inside the proxy, in the languages of plugins."""

import subprocess
import sys

import pytest

from tests.native.build import ROOT, NativeBuilder

COPIES = 50


@pytest.mark.parametrize("language", ["c", "rust", "go"])
def test_each_copy_inside_the_proxy_is_new_and_holds_no_descriptor(native: NativeBuilder, language: str) -> None:
    """However often the number of a descriptor comes again."""
    build = {"c": lambda: native.c("marker"), "rust": lambda: native.rust("rusty"), "go": lambda: native.go("tagger")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.native.generations", str(build[language]()), str(COPIES)],
        cwd=ROOT,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
