"""The process in which inline checks run; see `separate`. Started as ``-m … FD ORDERS``, never by people."""

import json
import os
import sys
from base64 import b64decode
from functools import partial
from pathlib import Path

import trio

from cpa.config.schema import Isolation
from cpa.testing.conformance.bench import Planned
from cpa.testing.conformance.report import Check
from cpa.testing.conformance.run import Settings, run_here


class Teller:
    """Writes a line for everything that happens, at once: the next moment may be the last."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tell(self, kind: str, value: object) -> None:
        """One line."""
        line = json.dumps({kind: value}).encode() + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]

    def began(self, planned: Planned, isolation: Isolation) -> None:
        """See `Observer`."""
        self.tell(
            "began",
            {
                "name": planned.name,
                "capability": planned.capability,
                "method": planned.method,
                "expected": planned.expected,
            },
        )

    def calling(self, method: str) -> None:
        """See `Observer`."""
        self.tell("calling", method)

    def ended(self, check: Check) -> None:
        """See `Observer`."""
        self.tell("ended", check.as_json())


def main(fd: int, orders: str) -> None:
    """Do as *orders* say and leave, whatever the plugin's threads are doing."""
    os.set_inheritable(fd, False)
    wanted = json.loads(orders)
    teller = Teller(fd)
    settings = Settings(
        path=Path(wanted["path"]),
        plugin_id=wanted["plugin_id"],
        timeout_s=wanted["timeout_s"],
        config_yaml=b64decode(wanted["config_yaml"]),
        config_path=Path(wanted["config_path"]),
    )
    done = frozenset((name, method) for name, method in wanted["done"])
    known_to_fail = frozenset(wanted["known_to_fail"])
    run = partial(run_here, settings, Isolation.INLINE, teller, done=done, known_to_fail=known_to_fail)
    _, plugin = trio.run(run)
    teller.tell("plugin", plugin.as_json() if plugin is not None else None)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
