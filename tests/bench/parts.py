"""The parts of the bench that issue 8 added: what they are, and running them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench import ablations, budgets, capacity, interceptors, multicore, startup, steady_memory
from tests.bench.machine import Cores
from tests.bench.plugins import Environment, run_part
from tests.bench.processes import Child, Generator
from tests.bench.record import Record
from tests.bench.scenarios import Scale

PARTS: Final = (
    startup.PART,
    capacity.PART,
    multicore.PART,
    interceptors.PART,
    ablations.PART,
    budgets.PART,
    steady_memory.PART,
)
SECTIONS: Final = tuple(part.section for part in PARTS)
LONG: Final = frozenset({steady_memory.NAME})
"""Take minutes; only when asked for."""


def wanted(name: str, only: str, *, long: bool) -> bool:
    """The part called *name* is to be run."""
    return only in name and (long or name not in LONG or bool(only))


def measure(
    scale: Scale, cores: Cores, generator: Generator, provider: Child, record: Record, *, only: str = ""
) -> None:
    """All parts whose names contain *only*. Raises: LoadError, StartError."""
    with TemporaryDirectory(prefix="cpa-bench-") as directory:
        env = Environment(
            scale=scale,
            cores=cores,
            generator=generator,
            provider_port=provider.port,
            provider_pid=provider.pid,
            record=record,
            folder=Path(directory),
        )
        for part in PARTS:
            if wanted(part.name, only, long=scale.long):
                run_part(env, part)
