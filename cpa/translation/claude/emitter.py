"""Answers for Claude clients: the frames of a stream, and whole messages (translation 3.1, 3.2, 4.6).

Both are sinks of the same `compose.Composer`, so a whole message is what the stream's frames add up to.
"""

import re
from typing import Any, Final

import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import WireError
from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.formats.streams import error_frames
from cpa.translation.claude.compose import Composer
from cpa.translation.claude.sink import Members
from cpa.translation.context import Context
from cpa.translation.ir import Err, IREvent
from cpa.translation.tools import repair_arguments

END_MARK: Final = b""
"""What closes a stream beyond its last event: nothing, ``message_stop`` says it."""

_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":'
_LINE_END: Final = re.compile(rb"[\r\n]")
_END: Final = b"}}\n\n"
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOPPED: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class Emitter:
    """Writes one stream; see `spoke.StreamEmitter`."""

    def __init__(self, ctx: Context) -> None:
        self._frames = _Frames()
        self._composer = Composer(ctx, self._frames)

    def feed(self, event: IREvent) -> bytes:
        """See `spoke.StreamEmitter.feed`. Raises: UpstreamProtocolError when too much has to be put in order."""
        composer, out = self._composer, self._frames.out
        if type(event) is Err and not composer.ended:
            composer.feed(event)
            return error_frames(Format.CLAUDE, wire_error(event))
        composer.feed(event)
        if not out:
            return b""
        frames = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return frames


def wire_error(event: Err) -> WireError:
    """The neutral form of an error event."""
    return WireError(status=event.status, message=event.message, code=event.code, retry_after_s=event.retry_after_s)


class _Frames:
    """Writes frames, whole events, into *out*."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self._index = -1
        self._text = self._thinking = self._input = b""

    def start(self, answer: str, model: str, usage: Members) -> None:
        message: Members = {
            "id": answer,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        self._event("message_start", {"message": message})

    def open_block(self, block: Members | msgspec.Raw) -> None:
        self._index += 1
        prefix = _DELTA + b"%d" % self._index
        self._text = prefix + b',"delta":{"type":"text_delta","text":'
        self._thinking = prefix + b',"delta":{"type":"thinking_delta","thinking":'
        self._input = prefix + b',"delta":{"type":"input_json_delta","partial_json":'
        if isinstance(block, msgspec.Raw) and _LINE_END.search(bytes(block)):
            block = msgspec.Raw(msgspec.json.format(bytes(block), indent=-1))  # of an answer that was printed prettily
        self._event("content_block_start", {"index": self._index, "content_block": block})

    def text(self, text: str) -> None:
        self.out.append(self._text + encode(text) + _END)

    def thinking(self, text: str) -> None:
        self.out.append(self._thinking + encode(text) + _END)

    def input(self, text: str) -> None:
        self.out.append(self._input + encode(text) + _END)

    def signature(self, data: str) -> None:
        self._delta({"type": "signature_delta", "signature": data})

    def citation(self, citation: Members) -> None:
        self._delta({"type": "citations_delta", "citation": citation})

    def close_block(self) -> None:
        self._event("content_block_stop", {"index": self._index})

    def ping(self) -> None:
        self.out.append(_PING)

    def finish(self, reason: str, sequence: str | None, details: Members | None, usage: Members) -> None:
        delta: Members = {"stop_reason": reason, "stop_sequence": sequence}
        if details is not None:
            delta["stop_details"] = details
        self._event("message_delta", {"delta": delta, "usage": usage})
        self.out.append(_STOPPED)

    def _delta(self, delta: Members) -> None:
        self._event("content_block_delta", {"index": self._index, "delta": delta})

    def _event(self, name: str, members: Members) -> None:
        self.out.append(b"event: " + name.encode() + b"\ndata: " + encode({"type": name, **members}) + b"\n\n")


class _Whole:
    """Adds the same up to one message."""

    def __init__(self) -> None:
        self.message: Members = {}
        self._content: list[Any] = []
        self._block: Members | msgspec.Raw = {}
        self._pieces: list[str] = []

    def start(self, answer: str, model: str, usage: Members) -> None:
        self.message = {
            "id": answer,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": self._content,
        }

    def open_block(self, block: Members | msgspec.Raw) -> None:
        self._block = block
        self._pieces = []
        self._content.append(block)

    def text(self, text: str) -> None:
        self._pieces.append(text)

    thinking = input = text

    def signature(self, data: str) -> None:
        if isinstance(self._block, dict):
            self._block["signature"] = data

    def citation(self, citation: Members) -> None:
        if isinstance(self._block, dict):
            self._block.setdefault("citations", []).append(citation)

    def close_block(self) -> None:
        block, text = self._block, "".join(self._pieces)
        if not isinstance(block, dict) or not text:
            return
        if "input" in block:
            block["input"] = msgspec.Raw(repair_arguments(text))
        else:
            block[block["type"]] = text  # text and thinking are called as their blocks

    def ping(self) -> None:
        pass

    def finish(self, reason: str, sequence: str | None, details: Members | None, usage: Members) -> None:
        self.message["stop_reason"] = reason
        self.message["stop_sequence"] = sequence
        if details is not None:
            self.message["stop_details"] = details
        self.message["usage"] = usage


def emit_full(events: list[IREvent], ctx: Context) -> bytes:
    """See `spoke.EmitFull`. Raises: UpstreamProtocolError for an answer that failed, or did not end."""
    whole = _Whole()
    composer = Composer(ctx, whole)
    for event in events:
        if isinstance(event, Err):
            raise UpstreamProtocolError(event.message, code=event.code or None, http_status=event.status)
        composer.feed(event)
    if "usage" not in whole.message:
        raise UpstreamProtocolError("upstream's answer has no end")
    return encode(whole.message)
