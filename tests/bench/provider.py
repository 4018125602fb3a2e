"""The benchmark's provider: Chat Completions, Messages and Gemini's API, from answers that are written beforehand.

It shares a core with the load generator, so what it spends bounds what can be measured: one thread, sockets under
epoll, no HTTP library, a model's name and whether to stream are found by searching the body. What it does with a
request is in the model's name, as with `cpa mock-provider`: ``mock-chunks-200-chunk-bytes-24-delay-ms-10``.

Each chunk's text begins with the time at which it was written, ``@`` and 19 digits of nanoseconds of CLOCK_MONOTONIC,
which all processes of a machine share: whoever reads the chunk at the other end knows how long it took.
"""

import gc
import heapq
import re
import select
import socket
from collections.abc import Callable
from itertools import count
from time import monotonic, monotonic_ns

import attrs

from tests.bench import serving
from tests.bench.timing import precise_timers, wait

RECEIVE_BYTES = 256 << 10
BURST_CHUNKS = 16
"""Chunks in one write of a stream without pauses; then it is another stream's turn."""
STAMP_BYTES = 20
SMALL_TEXT = "The change renames one function; the riskiest line is the one that is not there. "

_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]+)"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_PATH = re.compile(rb"/(chat/completions|messages)[? ]")
_PROTOCOLS = {b"chat/completions": "chat", b"messages": "claude"}
_GEMINI = re.compile(rb"/models/([^:/? ]+):(stream)?generateContent", re.IGNORECASE)
REFUSAL = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
MODEL_LIST = (
    b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n{"object":"list","data":[]}'
)
"""For peers that ask before they use a provider."""
_ORDERS = {
    name: re.compile(rf"-{name}-(\d+)(?:-|$)") for name in ("chunks", "chunk-bytes", "delay-ms", "fault-stall-at")
}


@attrs.frozen(kw_only=True)
class Orders:
    """What a model's name asks for; *stall_at*: after so many events nothing more comes, 0 = never."""

    chunks: int
    chunk_bytes: int
    delay_s: float
    stall_at: int

    @classmethod
    def of(cls, model: str) -> "Orders":
        """From its name."""
        found = {name: int(match[1]) for name, order in _ORDERS.items() if (match := order.search(model))}
        return cls(
            chunks=found.get("chunks", 5),
            chunk_bytes=max(found.get("chunk-bytes", 24), STAMP_BYTES),
            delay_s=found.get("delay-ms", 0) / 1000,
            stall_at=found.get("fault-stall-at", 0),
        )


@attrs.frozen(kw_only=True)
class Script:
    """An answer as it goes over the wire. *chunk* has one place for the time, in the way of ``%``."""

    orders: Orders
    opening: bytes
    chunk: bytes
    closing: bytes


def framed(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(content_type: str, length: int | None = None) -> bytes:
    """Of every answer."""
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{size}\r\n\r\n".encode()


def chat_events(model: str, text: str, *, usage: bool) -> tuple[str, str, str]:
    """Opening, piece and end of a Chat Completions stream."""
    start = (
        f'{{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1790000000,"model":"{model}","choices":'
    )
    tokens = '"usage":{"prompt_tokens":80,"completion_tokens":40,"total_tokens":120}'
    end = f'data: {start}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
    return (
        f'data: {start}[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}\n\n',
        f'data: {start}[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}\n\n',
        end + (f"data: {start}[],{tokens}}}\n\n" if usage else "") + "data: [DONE]\n\n",
    )


def claude_events(model: str, text: str) -> tuple[str, str, str]:
    """Opening, piece and end of a Messages stream."""

    def event(name: str, rest: str) -> str:
        return f'event: {name}\ndata: {{"type":"{name}"{rest}}}\n\n'

    message = (
        f',"message":{{"id":"msg_bench","type":"message","role":"assistant","model":"{model}","content":[],'
        '"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":80,"output_tokens":1}}'
    )
    delta = ',"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":40}'
    return (
        event("message_start", message)
        + event("content_block_start", ',"index":0,"content_block":{"type":"text","text":""}'),
        event("content_block_delta", f',"index":0,"delta":{{"type":"text_delta","text":"{text}"}}'),
        event("content_block_stop", ',"index":0') + event("message_delta", delta) + event("message_stop", ""),
    )


def gemini_events(model: str, text: str) -> tuple[str, str, str]:
    """Opening (there is none), piece and end of a Gemini stream."""
    usage = '"usageMetadata":{"promptTokenCount":80,"candidatesTokenCount":40,"totalTokenCount":120}'

    def event(part: str, finish: str) -> str:
        content = f'"content":{{"role":"model","parts":[{{"text":"{part}"}}]}}{finish},"index":0'
        return f'data: {{"candidates":[{{{content}}}],{usage},"modelVersion":"{model}","responseId":"bench"}}\n\n'

    return "", event(text, ""), event("", ',"finishReason":"STOP"')


def whole(protocol: str, model: str, text: str) -> str:
    """The answer without a stream."""
    if protocol == "chat":
        choice = f'{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}'
        usage = '{"prompt_tokens":80,"completion_tokens":40,"total_tokens":120}'
        start = '{"id":"chatcmpl-bench","object":"chat.completion","created":1790000000'
        return f'{start},"model":"{model}","choices":[{choice}],"usage":{usage}}}'
    if protocol == "claude":
        content = f'[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null'
        start = f'{{"id":"msg_bench","type":"message","role":"assistant","model":"{model}","content":{content}'
        return f'{start},"usage":{{"input_tokens":80,"output_tokens":40}}}}'
    content = f'{{"content":{{"role":"model","parts":[{{"text":"{text}"}}]}},"finishReason":"STOP","index":0}}'
    usage = '{"promptTokenCount":80,"candidatesTokenCount":40,"totalTokenCount":120}'
    return f'{{"candidates":[{content}],"usageMetadata":{usage},"modelVersion":"{model}","responseId":"bench"}}'


def script_for(protocol: str, model: str, *, stream: bool, usage: bool) -> Script:
    """What is answered to a request. *usage*: it asks for the tokens of a Chat Completions stream."""
    orders = Orders.of(model)
    if not stream:
        body = whole(protocol, model, SMALL_TEXT * 2).encode()
        return Script(orders=orders, opening=head("application/json", len(body)) + body, chunk=b"", closing=b"")
    mark = "@" + "0" * (STAMP_BYTES - 1)
    text = (mark + " " + "word " * (orders.chunk_bytes // 5 + 1))[: orders.chunk_bytes]
    match protocol:
        case "chat":
            opening, piece, closing = chat_events(model, text, usage=usage)
        case "claude":
            opening, piece, closing = claude_events(model, text)
        case _:
            opening, piece, closing = gemini_events(model, text)
    start = framed(opening.encode()) if opening else b""
    chunk = framed(piece.encode()).replace(b"%", b"%%").replace(mark.encode(), b"@%019d")
    end = framed(closing.encode()) + b"0\r\n\r\n"
    return Script(orders=orders, opening=head("text/event-stream") + start, chunk=chunk, closing=end)


class Connection:
    """A client's connection; at most one answer at a time, as HTTP/1.1 clients do."""

    __slots__ = ("at", "buffer", "fd", "open", "script", "sock", "unsent", "wanted")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.buffer = bytearray()
        self.wanted = 0  # bytes of the whole request, as far as known
        self.unsent = bytearray()
        self.script: Script | None = None
        self.at = 0
        self.open = True


class Provider:
    """All connections, and when which stream goes on."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._scripts: dict[tuple[str, bytes, bool, bool], Script] = {}
        self._due: list[tuple[float, int, Connection]] = []
        self._busy: list[Connection] = []
        self._numbers = count()

    def run(self) -> None:
        """Serve until killed."""
        while True:
            pause = 0.0 if self._busy else self._due[0][0] - monotonic() if self._due else None
            for fd, mask in wait(self._epoll, pause):
                if fd == self._listener.fileno():
                    self._accept()
                elif (connection := self._connections.get(fd)) is not None:
                    self._serve(connection, mask)
            self._go_on()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock)
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        if connection.open:
            connection.open = False
            del self._connections[connection.fd]
            self._epoll.unregister(connection.fd)
            connection.sock.close()

    def _serve(self, connection: Connection, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._send(connection, b"")
            if (script := connection.script) is not None and not script.orders.delay_s and not connection.unsent:
                self._busy.append(connection)
        if mask & ~select.EPOLLOUT and connection.open:
            try:
                data = connection.sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close(connection)
                return
            connection.buffer += data
            if len(connection.buffer) >= connection.wanted:
                self._read(connection)

    def _read(self, connection: Connection) -> None:
        """Answer the request that is complete, if one is."""
        buffer = connection.buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        top = bytes(buffer[: end + 2])
        length = _LENGTH.search(top)
        connection.wanted = end + 4 + (int(length[1]) if length else 0)
        if len(buffer) < connection.wanted:
            return
        target = top[: top.index(b"\r\n")]
        script = self._script(target, buffer[end + 4 :])
        buffer.clear()
        connection.wanted = 0
        if script is None:
            self._send(connection, MODEL_LIST if target.startswith(b"GET /v1/models ") else REFUSAL)
            return
        self._send(connection, script.opening)
        if script.chunk and script.orders.stall_at != 1:
            connection.script, connection.at = script, 0
            if script.orders.delay_s:
                self._plan(connection, monotonic() + script.orders.delay_s)
            else:
                self._busy.append(connection)

    def _script(self, target: bytes, body: bytearray) -> Script | None:
        """What to answer; None to what is no request of the three protocols."""
        gemini = _GEMINI.search(target)
        if gemini is not None:
            key = ("gemini", gemini[1], gemini[2] is not None, False)
        else:
            model = _MODEL.search(body)
            path = _PATH.search(target)
            if model is None or path is None:
                return None
            stream = _STREAM.search(body) is not None
            key = (_PROTOCOLS[path[1]], model[1], stream, stream and _USAGE.search(body) is not None)
        found = self._scripts.get(key)
        if found is None:
            found = script_for(key[0], key[1].decode(), stream=key[2], usage=key[3])
            self._scripts[key] = found
        return found

    def _plan(self, connection: Connection, due: float) -> None:
        heapq.heappush(self._due, (due, next(self._numbers), connection))

    def _go_on(self) -> None:
        """Write what is due."""
        due = self._due
        while due and due[0][0] <= monotonic():
            at, _, connection = heapq.heappop(due)
            if (script := connection.script) is not None and connection.open and self._chunk(connection, script, 1):
                self._plan(connection, at + script.orders.delay_s)
        busy, self._busy = self._busy, []
        for connection in busy:
            if not connection.open or (script := connection.script) is None:
                continue
            # A full socket waits for its reader: `_serve` comes back to it.
            if self._chunk(connection, script, BURST_CHUNKS) and not connection.unsent:
                self._busy.append(connection)

    def _chunk(self, connection: Connection, script: Script, most: int) -> bool:
        """Write the next chunks, at most so many. Returns: there is more to come."""
        orders = script.orders
        number = min(most, orders.chunks - connection.at)
        if orders.stall_at:
            number = min(number, orders.stall_at - 1 - connection.at)
        connection.at += number
        stamp = monotonic_ns()
        data = script.chunk % stamp if number == 1 else b"".join([script.chunk % stamp for _ in range(number)])
        stalled = orders.stall_at > 0 and connection.at >= orders.stall_at - 1
        done = connection.at >= orders.chunks
        if done or stalled:
            connection.script = None
        self._send(connection, data + script.closing if done and not stalled else data)
        return connection.script is not None

    def _send(self, connection: Connection, data: bytes) -> None:
        unsent = connection.unsent
        waiting = len(unsent) > 0
        if waiting:
            unsent += data
            data = bytes(unsent)
            unsent.clear()
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            unsent += data[sent:]
        if (len(unsent) > 0) != waiting:
            mask = select.EPOLLIN | select.EPOLLOUT if unsent else select.EPOLLIN
            self._epoll.modify(connection.fd, mask)


def main(announce: Callable[[str, int], None] = serving.announce) -> None:
    """Serve on a free port until killed."""
    gc.disable()  # no cycles are made; a pause would be taken for somebody's delay
    precise_timers()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        announce(*listener.getsockname())
        Provider(listener).run()


if __name__ == "__main__":
    main()
