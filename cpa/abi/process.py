"""A plugin in a process of its own.

Theory of operation. `cpa-plugin-worker` is started with one end of a socket pair as descriptor 0 and pipes as 1 and 2.
A supervising task owns everything that belongs to the process: it reads frames and output, writes what a full socket
left over, and waits for the exit on a pidfd. It is shielded from cancellation, because the process must be drained and
reaped whatever happens around it; what ends it is the end of the process, which `aclose` guarantees by SIGKILL.

A call costs no task: it writes its frame, if the socket takes it, and sleeps until the reading task has its reply.
Whoever writes a frame hands it over whole, so a cancelled call cannot leave half a frame behind.

The worker asks the kernel to be killed when its parent *thread* ends (that is how Linux means it). So processes are
started on Trio's own thread and not, as `trio.lowlevel.open_process` does, on a thread of the cache, which would take
its workers with it when it has idled. Starting takes one to two milliseconds; loading happens in the worker.
"""

import contextlib
import itertools
import math
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from cpa.abi import frames
from cpa.abi.errors import (
    AbiMismatch,
    PluginClosed,
    PluginCrashed,
    PluginError,
    PluginLoadError,
    PluginReplyTooLarge,
    PluginRequestTooLarge,
)
from cpa.abi.frames import Frame, FrameDecoder, FrameError, Kind, LoadFailure, Refusal
from cpa.abi.lines import LineSplitter
from cpa.abi.transport import (
    HostCallHandler,
    LeftBehind,
    LogLine,
    LogStream,
    PluginReply,
    TransportLimits,
    Unwind,
    method_name,
)
from cpa.config.schema import Isolation

WORKER = Path(__file__).with_name("cpa-plugin-worker")
"""Built with the extension; see setup.py."""

INIT = "cliproxy_plugin_init"

KILL_MARGIN_S = 0.25
"""After the grace, before SIGKILL: the worker keeps the deadline itself and says goodbye if it is given the chance."""

EXIT_AFTER_EOF_S = 1.0
"""A process that closed its socket is about to be gone; core dumps take longer than everything else."""

SETTLE_S = 1.0
"""For reading what a process wrote before it ended: it is all in our buffers already."""

EOF_GRACE_S = 5.0
"""What a worker gives the plugin when our end of the socket closes without a farewell."""

SOCKET_BUFFER_BYTES = 1024 * 1024
"""Asked of the kernel, which may give less: a body goes over in fewer turns."""

READS_PER_TURN = 16
"""Receive calls before the reading task lets others run."""

OUTPUT_BYTES = 64 * 1024
"""One read of the plugin's output: what a pipe holds."""

WITHHELD = frozenset({"MANAGEMENT_PASSWORD"})
"""Variables of our environment that are none of a plugin's business: what they open is."""

MAX_IOVECS = min(64, os.sysconf("SC_IOV_MAX"))

_CLOSING_EXITS = {0: "closed", 71: "did not end in time"}
"""Exits of the worker that answer a SHUTDOWN; 71 is EXIT_LATE of worker.c."""

_LOAD_ERRORS: dict[int, type[PluginLoadError]] = {LoadFailure.ABI_MISMATCH: AbiMismatch}


@attrs.define(eq=False, slots=True)
class _Pending:
    """A call without an answer. `task` is None while nobody waits: for a moment, or because it was left behind."""

    method: str
    task: trio.lowlevel.Task | None
    started: float
    reply: PluginReply | None = None
    error: PluginError | None = None

    @property
    def answered(self) -> bool:
        """The plugin has come back, or never will."""
        return self.reply is not None or self.error is not None

    def resume(self) -> None:
        """Let the caller look at what there is, if it waits right now."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)


@attrs.define(eq=False, slots=True, kw_only=True)
class ProcessTransport:
    """See `PluginTransport`; the context of `open_process` owns process, socket, pipes and task."""

    plugin_id: str
    _popen: subprocess.Popen[bytes]
    _pidfd: int
    _sock: socket.socket
    _outputs: Sequence[tuple[LogStream, int]]
    _handler: HostCallHandler
    _host_nursery: trio.Nursery
    _log_line: LogLine
    _limits: TransportLimits

    isolation: Isolation = Isolation.PROCESS
    pid: int = attrs.field(init=False)
    max_calls: int | None = attrs.field(init=False)
    died: trio.Event = attrs.field(factory=trio.Event)
    death: str | None = None
    late_replies: int = 0

    _loaded: trio.Event = attrs.field(factory=trio.Event)  # or failed to
    _load_error: PluginError | None = None
    _closing: bool = False
    _said_goodbye: bool = False
    _verdict: str = ""  # why we ended the process, if it was us
    _pending: dict[int, _Pending] = attrs.field(factory=dict)
    _left_behind: dict[int, LeftBehind] = attrs.field(factory=dict)  # by the ids of those in _pending
    _next_id: int = 1
    _unsent: deque[memoryview | bytes] = attrs.field(factory=deque)
    _flush: trio.Event = attrs.field(factory=trio.Event)
    _read_all: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.pid = self._popen.pid
        self.max_calls = self._limits.max_calls

    # ---- for callers ----

    @property
    def in_flight(self) -> int:
        """Calls without a reply."""
        return len(self._pending)

    @property
    def abandoned(self) -> int:
        """Those of them that nobody waits for."""
        return len(self._left_behind)

    def left_behind(self) -> Sequence[LeftBehind]:
        """See `PluginTransport.left_behind`."""
        return tuple(self._left_behind.values())

    async def call(self, method: str, payload: bytes, *, unwind: Unwind | None = None) -> PluginReply:
        """See `PluginTransport.call`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        name = method_name(method)
        limit = self._limits.max_body_bytes
        if len(payload) > limit:
            raise PluginRequestTooLarge(
                plugin_id=self.plugin_id, method=method, size_bytes=len(payload), limit_bytes=limit
            )
        if self._closing or self.death is not None:
            raise self._gone(method)
        call_id = self._next_id
        self._next_id += 1
        pending = self._pending[call_id] = _Pending(method, trio.lowlevel.current_task(), trio.current_time())
        self._send(frames.header(Kind.CALL, id=call_id, method=name, body_len=len(payload)), name, payload)

        def abandon(_: object) -> trio.lowlevel.Abort:
            pending.task = None
            now = trio.current_time()
            self._left_behind[call_id] = LeftBehind(method=method, started=pending.started, since=now)
            return trio.lowlevel.Abort.SUCCEEDED

        def stop_waiting(_: object) -> trio.lowlevel.Abort:
            pending.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        if unwind is None:
            await trio.lowlevel.wait_task_rescheduled(abandon)
        else:
            try:
                await trio.lowlevel.wait_task_rescheduled(stop_waiting)
            except trio.Cancelled:
                grace_s = unwind()
                if pending.answered:
                    raise
                with trio.CancelScope(shield=True, deadline=trio.current_time() + grace_s):
                    pending.task = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(abandon)
                raise
        if pending.error is not None:
            raise pending.error
        assert pending.reply is not None
        return pending.reply

    async def aclose(self, grace_s: float) -> None:
        """See `PluginTransport.aclose`."""
        with trio.CancelScope(shield=True):
            if not self._closing:
                self._closing = True
                self._send(frames.header(Kind.SHUTDOWN, status=math.ceil(grace_s * 1000)))
                with trio.move_on_after(grace_s + KILL_MARGIN_S):
                    await self.died.wait()
                self.kill(f"did not end within {grace_s:g} s")
            await self.died.wait()

    def kill(self, reason: str) -> None:
        """See `PluginTransport.kill`."""
        if self._popen.returncode is None:
            self._verdict = self._verdict or reason
            self._popen.kill()

    # ---- loading ----

    async def loaded(self) -> PluginError | None:
        """Wait for the end of init; what went wrong, or None."""
        with trio.move_on_after(self._limits.start_s):
            await self._loaded.wait()
        if not self._loaded.is_set():
            text = f"{INIT} did not return within {self._limits.start_s:g} s"
            self._load_error = PluginLoadError(text, plugin_id=self.plugin_id)
            self.kill(text)
        return self._load_error

    def send_hello(self, path: str) -> None:
        """The first frame; see frames.py."""
        self._send(
            frames.hello(
                plugin_id=self.plugin_id,
                path=path,
                max_body=self._limits.max_body_bytes,
                max_calls=self._limits.max_calls,
                parent_pid=os.getpid(),
                eof_grace_ms=math.ceil(EOF_GRACE_S * 1000),
            )
        )

    # ---- writing ----

    def _send(self, *parts: bytes) -> None:
        """Send one frame, or queue what the socket does not take. The queue holds references, no copies."""
        if self.death is not None:
            return
        left: Sequence[memoryview | bytes] = [part for part in parts if part]
        if not self._unsent:
            left = self._write_some(left)
        if left:
            self._unsent.extend(left)
            self._flush.set()

    def _write_some(self, parts: Sequence[memoryview | bytes]) -> tuple[memoryview | bytes, ...]:
        """One write call; what is left of *parts*."""
        try:
            sent = self._sock.sendmsg(parts)
        except BlockingIOError:
            return tuple(parts)
        except (BrokenPipeError, ConnectionResetError):
            return ()  # the process is gone: the supervisor hears of it and fails what waits
        for index, part in enumerate(parts):
            if sent < len(part):
                return (memoryview(part)[sent:], *parts[index + 1 :])
            sent -= len(part)
        return ()

    async def _write(self) -> None:
        while True:
            await self._flush.wait()
            while self._unsent:
                await trio.lowlevel.wait_writable(self._sock)
                batch = list(itertools.islice(self._unsent, MAX_IOVECS))
                left = self._write_some(batch)
                for _ in batch:
                    self._unsent.popleft()
                self._unsent.extendleft(reversed(left))
            self._flush = trio.Event()

    # ---- reading ----

    async def _read(self) -> None:
        decoder = FrameDecoder(max_body=self._limits.max_body_bytes)
        try:
            while await self._read_turn(decoder):
                pass
        except FrameError as exc:
            self.kill(f"broke the framing: {exc}")
        self._read_all.set()

    async def _read_turn(self, decoder: FrameDecoder) -> bool:
        """Wait until there is something and take it; False at the end of the stream."""
        await trio.lowlevel.wait_readable(self._sock)
        for _ in range(READS_PER_TURN):
            space = decoder.space
            try:
                size = self._sock.recv_into(space)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                size = 0
            if not size:
                return False  # in the middle of a frame too: the exit says why
            for frame in decoder.received(size):
                self._take(frame)
            if size < len(space):
                return True  # the socket was emptied; asking again would only tell us so
        return True

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.REPLY | Kind.REFUSED:
                self._take_reply(frame)
            case Kind.HOST_CALL:
                name = f"host call {frame.method.decode('utf-8', 'replace')} of {self.plugin_id}"
                self._host_nursery.start_soon(self._answer, frame, name=name)
            case Kind.READY if not self._loaded.is_set():
                self._loaded.set()
            case Kind.FAILED if not self._loaded.is_set():
                error = _LOAD_ERRORS.get(frame.status, PluginLoadError)
                self._load_error = error(frame.body.decode("utf-8", "replace"), plugin_id=self.plugin_id)
                self._loaded.set()
            case Kind.BYE if self._closing:
                self._said_goodbye = True  # the exit follows
            case _:
                raise FrameError(f"unexpected frame of kind {frame.kind}")

    def _take_reply(self, frame: Frame) -> None:
        pending = self._pending.pop(frame.id, None)
        if pending is None:
            raise FrameError(f"reply to unknown call {frame.id}")
        if self._left_behind.pop(frame.id, None) is not None:
            self.late_replies += 1
            return
        if frame.kind == Kind.REPLY:
            pending.reply = PluginReply(rc=frame.status, body=frame.body)
        else:
            pending.error = self._refusal(pending.method, frame)
        pending.resume()

    def _refusal(self, method: str, frame: Frame) -> PluginError:
        text = frame.body.decode("utf-8", "replace")
        if frame.status == Refusal.TOO_LARGE and text.isdecimal():
            return PluginReplyTooLarge(
                plugin_id=self.plugin_id,
                method=method,
                size_bytes=int(text),
                limit_bytes=self._limits.max_body_bytes,
            )
        if frame.status == Refusal.CLOSED:
            return PluginClosed(plugin_id=self.plugin_id)
        return PluginError(f"worker of plugin {self.plugin_id} cannot run {method}: {text}", plugin_id=self.plugin_id)

    async def _answer(self, frame: Frame) -> None:
        """One host call: a task of the nursery that was passed in."""
        status, body = 1, b""
        try:
            answer = await self._handler(frame.method, frame.body)
            if len(answer) <= self._limits.max_body_bytes:
                status, body = 0, answer
            else:
                self._log_line("transport", f"answer of {len(answer)} bytes to a host call is too large: dropped")
        finally:
            self._send(frames.header(Kind.HOST_REPLY, id=frame.id, status=status, body_len=len(body)), body)

    # ---- the process ----

    async def supervise(self) -> None:
        """Serve the process until it has ended, then fail what waits. Runs in the nursery of `open_process`."""
        splitters = {stream: LineSplitter() for stream, _ in self._outputs}
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, name=f"frames of {self.plugin_id}")
                    nursery.start_soon(self._write, name=f"frames to {self.plugin_id}")
                    for stream, fd in self._outputs:
                        nursery.start_soon(
                            self._drain, stream, fd, splitters[stream], name=f"{stream}:{self.plugin_id}"
                        )
                    nursery.start_soon(self._await_exit_after_eof)
                    await trio.lowlevel.wait_readable(self._pidfd)
                    # A process of the plugin's own may hold the socket: there is no end of stream to wait for.
                    with contextlib.suppress(OSError):
                        self._sock.shutdown(socket.SHUT_RDWR)
                    with trio.move_on_after(SETTLE_S):
                        await self._read_all.wait()
                    nursery.cancel_scope.cancel()
        finally:
            self._popen.kill()  # has ended already, unless one of the tasks failed
            self._popen.wait()
            for stream, fd in self._outputs:
                self._drain_rest(stream, fd, splitters[stream])
            self._finish()

    async def _await_exit_after_eof(self) -> None:
        await self._read_all.wait()
        await trio.sleep(EXIT_AFTER_EOF_S)
        self.kill("closed its connection to the proxy")

    async def _drain(self, stream: LogStream, fd: int, splitter: LineSplitter) -> None:
        while True:
            await trio.lowlevel.wait_readable(fd)
            data = os.read(fd, OUTPUT_BYTES)
            if not data:
                return
            for line in splitter.feed(data):
                self._log_line(stream, line)

    def _drain_rest(self, stream: LogStream, fd: int, splitter: LineSplitter) -> None:
        """What the process printed before its end; at most as much as a pipe holds."""
        with contextlib.suppress(BlockingIOError):
            for line in splitter.feed(os.read(fd, OUTPUT_BYTES)):
                self._log_line(stream, line)
        for line in splitter.end():
            self._log_line(stream, line)

    def _finish(self) -> None:
        self._sock.close()
        os.close(self._pidfd)
        for _, fd in self._outputs:
            os.close(fd)
        self._unsent.clear()
        self.death = self._cause()
        if not self._loaded.is_set():
            self._load_error = self._gone(INIT)
            self._loaded.set()
        for call_id, pending in self._pending.items():
            if call_id not in self._left_behind:
                pending.error = self._gone(pending.method)
                pending.resume()
        self._pending.clear()
        self._left_behind.clear()
        self.died.set()

    def _cause(self) -> str:
        status = self._popen.returncode
        if self._verdict:
            return self._verdict
        # Only the worker says goodbye: a plugin that calls exit(0) in its shutdown does not.
        if self._closing and status in _CLOSING_EXITS and (status or self._said_goodbye):
            return _CLOSING_EXITS[status]
        if status >= 0:
            return f"exited with status {status}"
        try:
            return f"killed by signal {-status} ({signal.Signals(-status).name})"
        except ValueError:  # real-time signals have no names
            return f"killed by signal {-status}"

    def _gone(self, method: str) -> PluginError:
        if self._closing or self.death is None:
            return PluginClosed(plugin_id=self.plugin_id)
        return PluginCrashed(plugin_id=self.plugin_id, reason=self.death, method=method)


def _start(config_path: str, plugin_id: str) -> tuple[subprocess.Popen[bytes], socket.socket, tuple[int, int]]:
    """The process, our end of its socket, the reading ends of its output. Raises: PluginLoadError."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        sock, their_sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.callback(sock.close)
        theirs.callback(their_sock.close)
        for end in (sock, their_sock):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        pipes = []
        for _ in range(2):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            ours.callback(os.close, reading)
            theirs.callback(os.close, writing)
            os.set_blocking(reading, False)
            pipes.append((reading, writing))
        sock.setblocking(False)
        try:
            popen = subprocess.Popen(
                ["cpa", "-config", config_path],
                executable=WORKER,
                stdin=their_sock.fileno(),
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                env={name: value for name, value in os.environ.items() if name not in WITHHELD},
            )
        except OSError as exc:
            raise PluginLoadError(f"cannot start {WORKER.name}: {exc}", plugin_id=plugin_id) from exc
        ours.pop_all()
    return popen, sock, (pipes[0][0], pipes[1][0])


@asynccontextmanager
async def open_process(
    path: str,
    *,
    plugin_id: str,
    config_path: str,
    handler: HostCallHandler,
    nursery: trio.Nursery,
    log_line: LogLine,
    limits: TransportLimits | None = None,
) -> AsyncIterator[ProcessTransport]:
    """Run the library *path* (absolute) in a worker process and end it with the block.

    Args:
      config_path: absolute; becomes the last argument of the worker's command line, which plugins read.
      nursery: where host calls run; it must outlive the block.

    Raises:
      PluginLoadError, AbiMismatch: with the texts of plugin-abi 1.9.
      PluginCrashed: the process ended before init had returned.
    What the block raises arrives in a group: there is a nursery around it.
    Ownership: process, socket and pipes are gone when the block has been left.
    Concurrency: must run on a thread that lives as long as the plugin: Trio's.
    """
    limits = limits or TransportLimits()
    popen, sock, outputs = _start(config_path, plugin_id)
    transport = ProcessTransport(
        plugin_id=plugin_id,
        popen=popen,
        pidfd=os.pidfd_open(popen.pid),
        sock=sock,
        outputs=(("stdout", outputs[0]), ("stderr", outputs[1])),
        handler=handler,
        host_nursery=nursery,
        log_line=log_line,
        limits=limits,
    )
    failure: PluginError | None = None
    loaded = False
    async with trio.open_nursery() as tasks:
        tasks.start_soon(transport.supervise, name=f"worker of {plugin_id}")
        try:
            transport.send_hello(path)
            failure = await transport.loaded()
            if failure is None:
                loaded = True
                yield transport
        finally:
            if not loaded:
                transport.kill("did not load")
            await transport.aclose(limits.close_grace_s)
    if failure is not None:
        raise failure
