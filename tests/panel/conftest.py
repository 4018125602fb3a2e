"""What every test of the panel needs: its files, built from the sources as they are, and a browser."""

import os
import shutil
from pathlib import Path

import pytest

BUILT = Path("cpa/server/panel/management.html")
SOURCES = Path("panel")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser; without it, or without the panel's files, tests are skipped, or fail in CI."""
    newest = max(path.stat().st_mtime for path in (*SOURCES.glob("*.*"), *SOURCES.glob("src/**/*.*")))
    if not BUILT.is_file():
        missing("the control panel is not built: run `make panel`, which needs npm")
    if BUILT.stat().st_mtime < newest:
        missing("the control panel was built from older sources: run `make panel`")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        missing("no chromium on this machine: the control panel is not tested in a browser")
    return str(found)


def missing(reason: str) -> None:
    """Skip, but not where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
