"""What happens without a compiler."""

from pathlib import Path

import pytest

from tests.native.build import NativeBuilder


@pytest.mark.parametrize("ci", ["", "true"])
@pytest.mark.parametrize("tool", ["gcc", "rustc", "go"])
def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, ci: str) -> None:
    """As the reason to skip a test, or to fail it where nothing may be skipped."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    builder = NativeBuilder(tmp_path)
    build = {"gcc": lambda: builder.c("marker"), "rustc": lambda: builder.rust("rusty"), "go": builder.callback_example}
    expected = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(expected, match=f"no {tool} on this machine"):
        build[tool]()


def test_what_a_compiler_says_is_shown(tmp_path: Path) -> None:
    """Otherwise a typing error in a plugin would be a riddle."""
    with pytest.raises(AssertionError, match="no-such-flag"):
        NativeBuilder(tmp_path).c("marker", "-fno-such-flag")
