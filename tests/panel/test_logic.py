"""The panel's own tests of what needs no browser."""

import os
import subprocess
from pathlib import Path

from tests.panel.conftest import missing


def test_logic() -> None:
    """As `npm test` in panel/ runs them."""
    if not Path("panel/node_modules/.installed").is_file():
        missing("the packages of the control panel are not installed: run `make panel`, which needs npm")
    done = subprocess.run(
        ["npm", "test", "--silent", "--prefix", "panel"],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
