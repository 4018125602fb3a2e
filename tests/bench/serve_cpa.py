"""`cpa serve --config PATH` with its log on /dev/null: only the readiness line still reaches the harness.

The program itself prints both to standard output, where a reader that has to keep up would be part of the measurement.
"""

import os
import sys
from pathlib import Path

import trio

from cpa.app import Options, serve
from cpa.config.load import load_config


def main() -> int:
    """Serve until stopped."""
    ready = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)

    async def run() -> int:
        config = Path(sys.argv[1])
        return await serve(load_config(config), Options(config=config), announce=lambda line: print(line, file=ready))

    return trio.run(run)


if __name__ == "__main__":
    sys.exit(main())
