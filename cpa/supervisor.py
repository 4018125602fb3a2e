"""``workers: N``: several processes behind one port, each a whole proxy.

The supervisor binds, starts the workers, which inherit the listening sockets, and serves nobody itself. Whichever
worker is free takes the next connection. A worker that ends by itself is started again; connections that come meanwhile
go to the others, or wait in the queue of the socket, which stays open here. Signals are passed on: SIGTERM and SIGINT
drain all workers, a second one ends them at once, SIGHUP reloads each. Workers watch the configuration themselves. If
the supervisor dies, its workers drain and end.
"""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import trio

from cpa.config.load import Loaded
from cpa.errors import StartError
from cpa.observability.log import get_logger
from cpa.observability.metrics import SHARED_DIRECTORY, forget_process
from cpa.observability.redact import KnownSecrets
from cpa.observability.sink import LogSink, StreamDestination, open_sink
from cpa.server.sockets import Listeners, listen_addresses
from cpa.starting import FORCED_EXIT, Options, apply_logging, bind
from cpa.workers import READY, Place

log = get_logger()

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 30.0
STEADY_S = 60.0
"""A worker that ran this long is started again as if it were the first time."""
LATE_S = 5.0
"""What a worker may take beyond the grace of its own drain, before it is killed."""


async def supervise(loaded: Loaded, options: Options, *, announce: Callable[[str], None]) -> int:
    """Serve *loaded* with its number of workers until a signal says to stop. Returns: the exit code.

    Raises: StartError when the port cannot be bound, or a worker could not start.
    """
    config = loaded.config
    assert options.config is not None, "the demo has one worker"
    listeners = await bind(config, options)
    failure: StartError | None = None
    async with AsyncExitStack() as stack:
        for listener in listeners:
            await stack.enter_async_context(listener)
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        sink = LogSink(StreamDestination(sys.stdout.fileno()))
        apply_logging(config, sink, KnownSecrets())
        await stack.enter_async_context(open_sink(sink))
        shared = stack.enter_context(TemporaryDirectory(prefix="cpa-metrics-")) if config.metrics.enabled else ""
        group = Group(
            config=options.config,
            listeners=listeners,
            grace_s=config.limits.shutdown_grace_seconds + LATE_S,
            metrics=shared,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.obey, signals)
            try:
                # The first one alone: what is wrong for all is said once.
                await nursery.start(group.keep, 1)
                async with trio.open_nursery() as starting:
                    for number in range(2, config.workers + 1):
                        starting.start_soon(partial(nursery.start, group.keep, number))
            except* StartError as found:
                failure = StartError("; ".join(str(each) for each in found.exceptions))
            else:
                for address in listen_addresses(listeners, tls=config.tls.enable):
                    announce(f"listening on {address}")
                await group.ended(config.workers)
            nursery.cancel_scope.cancel()
    # Not before: nurseries would make a group of it.
    if failure is not None:
        raise failure
    return group.code


@attrs.define(kw_only=True, eq=False)
class Group:
    """The workers of one port.

    Attributes:
      config: the file that they serve.
      grace_s: from the signal to drain until the rest is killed.
      metrics: directory where workers keep the metrics of all; empty = they keep none.
      code: of this program's exit.
    """

    config: Path
    listeners: Listeners
    grace_s: float
    metrics: str = ""
    code: int = 0
    _running: dict[int, trio.Process] = attrs.field(factory=dict)
    _stopping: trio.Event = attrs.field(factory=trio.Event)
    _finished: int = 0
    _change: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def ended(self, count: int) -> None:
        """Wait until *count* workers are gone for good."""
        while self._finished < count:
            await self._change.park()

    async def obey(self, signals: AsyncIterator[int]) -> None:
        """Pass on *signals*."""
        async with trio.open_nursery() as nursery:
            async for number in signals:
                if number == signal.SIGHUP:
                    self._send(signal.SIGHUP)
                elif not self._stopping.is_set():
                    log.info("workers.draining", workers=len(self._running))
                    self._stopping.set()
                    self._send(signal.SIGTERM)
                    nursery.start_soon(self._kill_late)
                else:
                    self.code = FORCED_EXIT
                    self._send(signal.SIGKILL)

    async def _kill_late(self) -> None:
        await trio.sleep(self.grace_s)
        log.warning("workers.killed", workers=len(self._running), hint="they did not end within their grace time")
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running.values():
            process.send_signal(number)

    async def keep(self, number: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run worker *number*, again and again until the group stops. Started when it serves for the first time.

        Raises: StartError when it ended before that. Cancellation kills it.
        """
        wait_s, first = FIRST_WAIT_S, True
        try:
            while not self._stopping.is_set():
                began = trio.current_time()
                served, code = await self._run(number, task_status if first else trio.TASK_STATUS_IGNORED)
                first = first and not served
                if self._stopping.is_set():
                    break
                if first:
                    raise StartError(f"worker {number} could not start (exit code {code})")
                if trio.current_time() - began >= STEADY_S:
                    wait_s = FIRST_WAIT_S
                log.error("worker.ended", worker=number, code=code, again_in_s=wait_s)
                with trio.move_on_after(wait_s):
                    await self._stopping.wait()
                wait_s = min(2 * wait_s, MAX_WAIT_S)
            if first:
                task_status.started()
        finally:
            self._finished += 1
            self._change.unpark_all()

    async def _run(self, number: int, task_status: trio.TaskStatus[None]) -> tuple[bool, int]:
        """One life of worker *number*. Returns: whether it ever served, and its exit code."""
        ours, theirs = socket.socketpair()
        with theirs:
            place = Place(number=number, control=theirs.fileno(), listening=descriptors_of(self.listeners))
            process = await trio.lowlevel.open_process(
                [*python(), "worker", "--config", str(self.config), "--place", place.text()],
                pass_fds=(place.control, *place.listening),
                # A key on the terminal that stops programs is for the supervisor, which passes it on once.
                start_new_session=True,
                env=environment(os.environ, metrics=self.metrics),
            )
        self._running[number] = process
        if self._stopping.is_set():
            process.terminate()
        served = False
        try:
            async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as control:
                with suppress(trio.BrokenResourceError):
                    served = await control.receive_some(1) == READY
                if served:
                    task_status.started()
                    log.info("worker.ready", worker=number, pid=process.pid)
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
            del self._running[number]
            if self.metrics:
                forget_process(self.metrics, process.pid)
        return served, code


def descriptors_of(listeners: Listeners) -> tuple[int, ...]:
    """The sockets behind *listeners*, with or without TLS."""
    plain: list[Any] = [item.transport_listener if isinstance(item, trio.SSLListener) else item for item in listeners]
    return tuple(item.socket.fileno() for item in plain)


def python() -> tuple[str, ...]:
    """How to run this very program, without looking for it in the current directory."""
    return sys.executable, "-P", "-m", "cpa"


def environment(given: Mapping[str, str], *, metrics: str) -> Mapping[str, str]:
    """*given*, so that this very package is found, and the directory of *metrics* if there is one."""
    root = str(Path(__file__).parent.parent)
    paths = given.get("PYTHONPATH", "")
    found = {**given, "PYTHONPATH": f"{root}{os.pathsep}{paths}" if paths else root}
    return {**found, SHARED_DIRECTORY: metrics} if metrics else found
