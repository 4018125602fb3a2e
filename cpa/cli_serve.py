"""`cpa serve` and `cpa worker`."""

import argparse
from functools import partial

import trio

from cpa.config.load import load_config
from cpa.starting import Options


def run_serve(options: argparse.Namespace) -> int:
    """`cpa serve`. Imports what is run: a supervisor needs no proxy, and a proxy no supervisor; few want the demo."""
    path = None if options.demo else options.config
    if path is None:
        from cpa.demo import load_demo

        loaded = load_demo()
    else:
        loaded = load_config(path)
    chosen = Options(config=path, host=options.host, port=options.port, place=options.place)
    announce = partial(print, flush=True)
    if loaded.config.workers > 1 and chosen.place is None:
        from cpa.supervisor import supervise

        return trio.run(partial(supervise, loaded, chosen, announce=announce))
    from cpa.app import serve

    return trio.run(partial(serve, loaded, chosen, announce=announce))
