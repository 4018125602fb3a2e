"""`cpa serve --config PATH` with its log on /dev/null: only the readiness line still reaches the harness.

The program itself prints both to standard output, where a reader that has to keep up would be part of the measurement.
With ``--sampled`` the harness can ask on standard input where the CPU time goes; see sampling.py.
"""

import os
import sys
from pathlib import Path
from typing import Final, TextIO

import trio

from cpa.app import serve
from cpa.config.load import load_config
from cpa.server import gateway
from cpa.starting import Options
from cpa.supervisor import supervise

WITHOUT: Final = "CPA_BENCH_WITHOUT"
"""Environment variable: what to leave out that has no switch. Only ``access-log``."""
SAMPLED: Final = "--sampled"


def main() -> int:
    """Serve until stopped."""
    ready = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    if os.environ.get(WITHOUT) == "access-log":
        gateway.__dict__["log_access"] = lambda **_: None
    return trio.run(run, Path(sys.argv[1]), ready)


async def run(config: Path, ready: TextIO) -> int:
    """Serve; say on *ready* when, and there answer the harness as well."""
    loaded = load_config(config)
    serving = supervise if loaded.config.workers > 1 else serve
    async with trio.open_nursery() as nursery:
        if SAMPLED in sys.argv:
            from tests.bench.sampling import answer_harness

            nursery.start_soon(answer_harness, ready)
        code = await serving(loaded, Options(config=config), announce=lambda line: print(line, file=ready))
        nursery.cancel_scope.cancel()
    return code


if __name__ == "__main__":
    sys.exit(main())
