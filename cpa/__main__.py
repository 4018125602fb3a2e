"""`python -m cpa` is the same program as `cpa`."""

import os
import sys

from cpa.cli import main


def run() -> None:
    """Run the program and leave with its exit code."""
    code = main()
    native = sys.modules.get("cpa.abi.native")
    if native is not None and native.loaded_here():
        # Threads of libraries live on in this process; they must not meet an interpreter that takes itself apart.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
