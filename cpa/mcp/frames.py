"""What goes over the socket between `cpa mcp-host` and the plugin that runs the agent.

A frame is four bytes of length, big-endian, and a JSON object with a ``type``::

    host:   hello {version, agent_id} · call {id, name, arguments} · cancel {id}
    plugin: welcome {tools} · result {id, content, is_error}

plugins/codex-cli/bridge.go is the other side.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 32 << 20
"""A result may be a file that the client has read; more than this is a fault."""
_LENGTH_BYTES: Final = 4


class FrameError(ValueError):
    """The other side broke a rule of the framing. Nothing after it can be trusted."""


class Frame(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message; which members it has depends on its type."""

    type: str
    version: int = 0
    agent_id: str = ""
    tools: list[Any] = msgspec.field(default_factory=list)
    id: int = 0
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw()
    content: list[Any] = msgspec.field(default_factory=list)
    is_error: bool = False


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame. Raises: FrameError: it is too large."""
    body = msgspec.json.encode(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame may have {MAX_FRAME_BYTES} bytes, got {len(body)}")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class FrameReader:
    """Frames out of any pieces of a stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that *data* completes. Raises: FrameError."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            size = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame may have {MAX_FRAME_BYTES} bytes, got {size}")
            if len(self._buffer) < _LENGTH_BYTES + size:
                return
            body = bytes(self._buffer[_LENGTH_BYTES : _LENGTH_BYTES + size])
            del self._buffer[: _LENGTH_BYTES + size]
            try:
                yield msgspec.json.decode(body, type=Frame)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                raise FrameError(f"expected a frame, got {body[:80]!r}: {exc}") from exc
