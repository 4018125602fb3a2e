"""Compiled plugins and transports for the tests of `cpa.abi`."""

import hashlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from cpa.abi.frames import Frame, FrameDecoder
from cpa.abi.inline import open_inline
from cpa.abi.process import open_process
from cpa.abi.transport import LogStream, PluginTransport, TransportLimits
from cpa.config.schema import Isolation

SOURCES = Path(__file__).with_name("plugins")
HEADERS = Path(__file__).parents[2] / "cpa" / "abi"
TEST_S = 20.0
"""A hung test ends with an error; nothing here waits for it otherwise."""


class Compiler:
    """Builds plugins into *folder*, each content once per session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, *flags: str) -> str:
        """Path of the library made of ``plugins/<name>.c``."""
        source = SOURCES / f"{name}.c"
        material = b"\0".join([source.read_bytes(), (HEADERS / "cpa_plugin.h").read_bytes(), " ".join(flags).encode()])
        target = self._folder / f"{name}-{hashlib.sha256(material).hexdigest()[:16]}.so"
        if not target.exists():
            command = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-pthread"]
            subprocess.run([*command, *flags, f"-I{HEADERS}", str(source), "-o", str(target)], check=True)
        return str(target)


def feed(decoder: FrameDecoder, data: bytes) -> Iterator[Frame]:
    """Frames that are complete after *data*."""
    while data:
        space = decoder.space
        part, data = data[: len(space)], data[len(space) :]
        space[: len(part)] = part
        yield from decoder.received(len(part))


Answer = Callable[[bytes, bytes], Awaitable[bytes]]


async def echo(method: bytes, payload: bytes) -> bytes:
    """A host that answers with the request."""
    await trio.lowlevel.checkpoint()
    return payload


@attrs.define(eq=False)
class Log:
    """What a transport logged."""

    lines: list[tuple[str, str]] = attrs.field(factory=list)

    def __call__(self, stream: LogStream, text: str) -> None:
        self.lines.append((stream, text))

    def of(self, stream: LogStream) -> list[str]:
        """Texts of one stream."""
        return [text for name, text in self.lines if name == stream]


@attrs.define(eq=False)
class Harness:
    """Opens plugins of one isolation, with a host-call nursery around each."""

    isolation: Isolation
    log: Log = attrs.field(factory=Log)

    @asynccontextmanager
    async def __call__(
        self,
        path: str,
        *,
        handler: Answer = echo,
        limits: TransportLimits | None = None,
        plugin_id: str = "acme",
    ) -> AsyncIterator[PluginTransport]:
        """A loaded plugin; groups of one error are unwrapped, so that tests can name it."""
        try:
            async with trio.open_nursery() as nursery:
                async with self._open(path, handler, nursery, limits, plugin_id) as transport:
                    with trio.fail_after(TEST_S):
                        yield transport
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None

    def _open(
        self,
        path: str,
        handler: Answer,
        nursery: trio.Nursery,
        limits: TransportLimits | None,
        plugin_id: str,
    ) -> AbstractAsyncContextManager[PluginTransport]:
        if self.isolation is Isolation.INLINE:
            return open_inline(
                path, plugin_id=plugin_id, handler=handler, nursery=nursery, log_line=self.log, limits=limits
            )
        return open_process(
            path,
            plugin_id=plugin_id,
            config_path="/etc/cpa.yaml",
            handler=handler,
            nursery=nursery,
            log_line=self.log,
            limits=limits,
        )
