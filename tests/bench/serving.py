"""What the servers of the benchmark have in common: how they start."""

import argparse
from collections.abc import Sequence


def provider_port(argv: Sequence[str] | None = None) -> int:
    """The one argument of the forwarders."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--provider-port", type=int, required=True)
    return int(parser.parse_args(argv).provider_port)


def announce(host: str, port: int) -> None:
    """The line that the harness waits for."""
    print(f"listening on http://{host}:{port}", flush=True)
