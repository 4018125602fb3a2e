"""An MCP server without I/O: lines of JSON-RPC from the agent and frames from the plugin in, both of them out.

Source: the Model Context Protocol, revisions 2024-11-05 to 2025-06-18: ``initialize``, ``ping``, ``tools/list``,
``tools/call`` and notifications, over lines of a standard input and output.
"""

from typing import Any, Final, TypeAlias

import attrs
import msgspec

from cpa.jsontypes import JsonObject, JsonValue
from cpa.mcp.frames import VERSION as FRAME_VERSION
from cpa.mcp.frames import Frame, FrameError, encode_frame
from cpa.version import VERSION

MAX_LINE_BYTES: Final = 16 << 20
"""Of the agent's: arguments of a call may be a whole file."""
MAX_CALLS: Final = 128
"""That wait for the client at once; the plugin takes as many."""
REVISIONS: Final = ("2025-06-18", "2025-03-26", "2024-11-05")
"""Of the protocol that we can speak, the newest first: what we use of it is the same in all."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
NO_SUCH_METHOD: Final = -32601
INVALID_PARAMS: Final = -32602
TOO_MANY: Final = -32000

RequestId: TypeAlias = str | int


@attrs.frozen
class Said:
    """What is to be sent on: *lines* to the agent, *frames* to the plugin, each with its end."""

    lines: bytes = b""
    frames: bytes = b""


NOTHING: Final = Said()


class _Refusal(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@attrs.define(eq=False)
class McpServer:
    """One agent's session. `connected` is false while there is no plugin: then there are no tools."""

    agent_id: str
    connected: bool = False
    _tools: list[JsonValue] = attrs.field(factory=list, init=False)
    _calls: dict[int, RequestId] = attrs.field(factory=dict, init=False)  # frame id to the agent's
    _last: int = attrs.field(default=0, init=False)

    def hello(self) -> bytes:
        """The frame that opens the connection to the plugin."""
        return encode_frame(Frame(type="hello", version=FRAME_VERSION, agent_id=self.agent_id))

    # ---- from the plugin ----

    def receive_frame(self, frame: Frame) -> Said:
        """What follows from a frame of the plugin; unknown ones are ignored."""
        if frame.type == "welcome":
            self.connected = True
            self._tools = frame.tools
        elif frame.type == "result" and frame.id in self._calls:
            return Said(lines=self._result(self._calls.pop(frame.id), frame.content, is_error=frame.is_error))
        return NOTHING

    def disconnect(self, reason: str) -> Said:
        """The plugin is gone: whoever waits for it gets an error."""
        self.connected = False
        waiting, self._calls = self._calls, {}
        return Said(lines=b"".join(self._failed(request_id, reason) for request_id in waiting.values()))

    # ---- from the agent ----

    def receive_line(self, line: bytes) -> Said:
        """What follows from a line of the agent; every request in it gets an answer, now or later."""
        if not line.strip():
            return NOTHING
        try:
            message = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            return Said(lines=_error(None, PARSE_ERROR, f"expected a line of JSON: {exc}"))
        if not isinstance(message, dict):
            return Said(lines=_error(None, INVALID_REQUEST, "expected one object per line"))
        request_id, method = message.get("id"), message.get("method")
        if method is None and ("result" in message or "error" in message):
            return NOTHING  # an answer: we ask nothing
        identified = isinstance(request_id, str | int) and not isinstance(request_id, bool)
        if not isinstance(method, str) or ("id" in message and not identified):
            known = request_id if identified else None
            return Said(
                lines=_error(known, INVALID_REQUEST, "expected a method, and an id that is a string or integer")
            )
        params = message.get("params", {})
        if "id" not in message:
            return self._notified(method, params)
        assert request_id is not None
        try:
            if not isinstance(params, dict):
                raise _Refusal(INVALID_PARAMS, "params: expected an object")
            return self._asked(request_id, method, params)
        except _Refusal as refusal:
            return Said(lines=_error(request_id, refusal.code, str(refusal)))

    def too_long(self) -> Said:
        """A line had more than `MAX_LINE_BYTES` and was left out."""
        return Said(lines=_error(None, INVALID_REQUEST, f"a line may have {MAX_LINE_BYTES} bytes"))

    def _notified(self, method: str, params: object) -> Said:
        if method != "notifications/cancelled" or not isinstance(params, dict):
            return NOTHING
        for number, request_id in self._calls.items():
            if request_id == params.get("requestId"):
                del self._calls[number]
                return Said(frames=encode_frame(Frame(type="cancel", id=number)))
        return NOTHING

    def _asked(self, request_id: RequestId, method: str, params: JsonObject) -> Said:
        match method:
            case "initialize":
                return Said(lines=_answer(request_id, self._introduced(params)))
            case "ping":
                return Said(lines=_answer(request_id, {}))
            case "tools/list":
                return Said(lines=_answer(request_id, {"tools": self._tools}))
            case "tools/call":
                return self._call(request_id, params)
        raise _Refusal(NO_SUCH_METHOD, f"unknown method {method[:100]!r}")

    def _introduced(self, params: JsonObject) -> JsonObject:
        wanted = params.get("protocolVersion")
        return {
            "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[0],
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": "cpa", "title": "Tools of the client", "version": VERSION},
        }

    def _call(self, request_id: RequestId, params: JsonObject) -> Said:
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str):
            raise _Refusal(INVALID_PARAMS, "name: expected a string")
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            raise _Refusal(INVALID_PARAMS, "arguments: expected an object")
        if request_id in self._calls.values():
            raise _Refusal(INVALID_REQUEST, "a call with this id is waiting already")
        if len(self._calls) >= MAX_CALLS:
            raise _Refusal(TOO_MANY, f"more than {MAX_CALLS} calls wait for the client")
        if not self.connected:
            return Said(lines=self._failed(request_id, "no turn of a client is running"))
        self._last += 1
        try:
            encoded = msgspec.Raw(msgspec.json.encode(arguments))
            frame = encode_frame(Frame(type="call", id=self._last, name=name, arguments=encoded))
        except FrameError as exc:
            raise _Refusal(INVALID_PARAMS, str(exc)) from exc
        self._calls[self._last] = request_id
        return Said(frames=frame)

    def _failed(self, request_id: RequestId, reason: str) -> bytes:
        # A tool that failed is an answer that the model reads; an error of the protocol would end its turn.
        return self._result(request_id, [{"type": "text", "text": reason}], is_error=True)

    def _result(self, request_id: RequestId, content: list[JsonValue], *, is_error: bool) -> bytes:
        return _answer(request_id, {"content": content, "isError": is_error})


def _line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", **message}) + b"\n"


def _answer(request_id: RequestId, result: JsonObject) -> bytes:
    return _line({"id": request_id, "result": result})


def _error(request_id: RequestId | None, code: int, message: str) -> bytes:
    return _line({"id": request_id, "error": {"code": code, "message": message}})
