"""Worker processes: how long many of them take to start, and what one of them weighs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import trio
from structlog.testing import capture_logs

from cpa.config.schema import Isolation
from cpa.host.manager import open_plugins
from cpa.host.opening import native_opener
from tests.bench import machine
from tests.bench.libraries import Language
from tests.bench.plugin_calls import CONFIG, absent, handler_for, plugins_config
from tests.bench.processes import START_S, StartError, running


@contextmanager
def folder_of(path: Path, libraries: Sequence[Path], count: int) -> Iterator[Path]:
    """*path* as a plugins folder of *count* plugins, made of *libraries* in turn; its files are removed again."""
    path.mkdir()
    for number in range(count):
        (path / f"p{number}.so").hardlink_to(libraries[number % len(libraries)])
    try:
        yield path
    finally:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


def start_seconds(folder: Path, count: int) -> float:
    """From nothing to *count* registered plugins, each in a worker of its own. Raises: StartError."""

    async def start() -> tuple[float, str]:
        config = plugins_config(folder, {f"p{number}": Isolation.PROCESS for number in range(count)})
        started = perf_counter()
        async with open_plugins(native_opener(CONFIG), handler_for=handler_for) as manager:
            await manager.apply(config)
            return perf_counter() - started, absent(manager)

    with capture_logs():
        seconds, problem = trio.run(start)
    if problem:
        raise StartError(problem)
    return seconds


def worker_memory(folder: Path, languages: Sequence[Language]) -> Mapping[Language, machine.Memory]:
    """Of freshly registered workers, all alive at once; plugin number n of *folder* is in ``languages[n]``.

    Raises: StartError.
    """
    ids = [f"p{number}" for number in range(len(languages))]

    async def measure() -> tuple[Mapping[str, machine.Memory], str]:
        async with open_plugins(native_opener(CONFIG), handler_for=handler_for) as manager:
            await manager.apply(plugins_config(folder, dict.fromkeys(ids, Isolation.PROCESS)))
            return {state.id: machine.memory_of(state.pid) for state in manager.states() if state.pid}, absent(manager)

    with capture_logs():
        found, problem = trio.run(measure)
    if problem:
        raise StartError(problem)
    return {language: found[plugin_id] for plugin_id, language in zip(ids, languages, strict=True)}


def loader_memory(loader: Path, library: Path) -> machine.Memory:
    """Of the least process that has *library* loaded. Raises: StartError."""
    with running("loader", (str(loader), str(library)), core=None) as child:
        child.line(START_S)
        return machine.memory_of(child.pid)
