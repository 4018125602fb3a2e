"""`cpa mock-provider`."""

import argparse
import sys
from functools import partial

import trio

from cpa.errors import StartError
from cpa.testing.mock.main import main


def run_mock(options: argparse.Namespace) -> int:
    """`cpa mock-provider`."""
    try:
        trio.run(
            partial(
                main,
                host=options.host,
                port=options.port,
                announce=partial(print, flush=True),
                require_key=options.require_key,
            )
        )
    except OSError as exc:
        raise StartError(f"cannot listen on {options.host}:{options.port}: {exc}") from exc
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0
