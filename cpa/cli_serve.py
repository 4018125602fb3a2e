"""`cpa serve` and `cpa worker`."""

import argparse
from functools import partial

import trio

from cpa.app import Options, serve
from cpa.config.load import load_config
from cpa.demo import load_demo
from cpa.supervisor import supervise


def run_serve(options: argparse.Namespace) -> int:
    """`cpa serve`."""
    path = None if options.demo else options.config
    loaded = load_demo() if path is None else load_config(path)
    chosen = Options(config=path, host=options.host, port=options.port, place=options.place)
    several = loaded.config.workers > 1 and chosen.place is None
    return trio.run(partial(supervise if several else serve, loaded, chosen, announce=partial(print, flush=True)))
