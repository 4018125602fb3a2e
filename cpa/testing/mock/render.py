"""From a request to the exact bytes of its answer, faults included. Pure: no sockets, no clock.

An answer is a sequence of writes. Index 0 of a stream is its opening (role chunk, ``message_start``,
``response.created``; Gemini and legacy completions have none, there it is the first piece of content), then comes one
write per piece of content, then one with all that ends the stream. `Scenario.fault_at` counts these.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from itertools import cycle

import attrs

from cpa.formats.names import Format
from cpa.testing.mock import chat, claude, extras, gemini, responses
from cpa.testing.mock.asks import FORMAT_OF, Ask, AskError, Endpoint, Route, parse_ask, parse_route
from cpa.testing.mock.errors import error_body, error_frame
from cpa.testing.mock.scenario import Fault, Scenario, apply_headers, parse_model
from cpa.testing.mock.script import Script, write_script

MERGED_BYTES = 64 << 10
"""Size to which ``merge-frames`` collects writes."""
GARBAGE_FRAME = b'data: {"mock garbage": \xff\xfe"\n\n'
GARBAGE_BODY = b"<html><body>mock garbage \xff\xfe</body></html>"
_INBAND_MESSAGE = "mock in-band error"
_SPLIT_SIZES = (1, 2, 3, 5, 8, 13, 21, 34)
_LEAD_BYTE = re.compile(rb"[\xc0-\xff]")
_SLOW_DELAY_S = 0.001

_StreamOf = Callable[..., Iterator[bytes]]
_FullOf = Callable[[Script, Ask], bytes]

_STREAMS: dict[Endpoint, _StreamOf] = {
    Endpoint.CHAT: chat.chat_stream,
    Endpoint.COMPLETIONS: chat.completions_stream,
    Endpoint.RESPONSES: responses.responses_stream,
    Endpoint.MESSAGES: claude.claude_stream,
    Endpoint.STREAM_GENERATE: gemini.gemini_stream,
}
_FULL: dict[Endpoint, _FullOf] = {
    Endpoint.CHAT: chat.chat_full,
    Endpoint.COMPLETIONS: chat.completions_full,
    Endpoint.RESPONSES: responses.responses_full,
    Endpoint.MESSAGES: claude.claude_full,
    Endpoint.GENERATE: gemini.gemini_full,
    Endpoint.COMPACT: responses.compact_full,
    Endpoint.COUNT_TOKENS: lambda script, ask: extras.count_full(Format.CLAUDE, ask),
    Endpoint.GEMINI_COUNT: lambda script, ask: extras.count_full(Format.GEMINI, ask),
    Endpoint.INPUT_TOKENS: lambda script, ask: extras.count_full(Format.OPENAI_RESPONSE, ask),
}
_OF_BODY: dict[Endpoint, Callable[[bytes], bytes]] = {
    Endpoint.EMBEDDINGS: extras.embeddings_full,
    Endpoint.EMBED: extras.gemini_embed_full,
    Endpoint.BATCH_EMBED: extras.gemini_batch_embed_full,
}
_ENDPOINTS = {
    Format.OPENAI: (Endpoint.CHAT, Endpoint.CHAT),
    Format.OPENAI_RESPONSE: (Endpoint.RESPONSES, Endpoint.RESPONSES),
    Format.CODEX: (Endpoint.RESPONSES, Endpoint.RESPONSES),
    Format.CLAUDE: (Endpoint.MESSAGES, Endpoint.MESSAGES),
    Format.GEMINI: (Endpoint.STREAM_GENERATE, Endpoint.GENERATE),
}


class Ending(Enum):
    """How the connection behaves after the last write."""

    COMPLETE = auto()
    """The answer ends as HTTP says."""
    CLOSE = auto()
    """Orderly close (FIN) in the middle of the body."""
    RESET = auto()
    """RST in the middle of the body."""
    STALL = auto()
    """Nothing more comes until the client leaves."""
    CLOSE_BEFORE_HEADERS = auto()
    """Orderly close instead of an answer."""
    RESET_HEADERS = auto()
    """RST in the middle of the headers."""


@attrs.frozen(kw_only=True)
class Answer:
    """A response before HTTP framing.

    Attributes:
      headers: besides content-type and framing.
      writes: pieces of the body, one send each; empty ones do not occur.
      length: bytes of the complete body, for ``Content-Length``; None = streamed.
      reusable: `writes` can be walked repeatedly and is small.
    """

    status: int = 200
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    writes: Iterable[bytes] = ()
    length: int | None = None
    ending: Ending = Ending.COMPLETE
    first_byte_s: float = 0.0
    delay_s: float = 0.0
    reusable: bool = True


def _before(chunks: Iterator[bytes], at: int) -> Iterator[tuple[bytes, bool]]:
    """Chunks with a mark: True for number *at*, or for the last one if there are not so many."""
    held: bytes | None = None
    for index, chunk in enumerate(chunks):
        if held is not None:
            yield held, index - 1 == at
        held = chunk
        if index - 1 == at:
            at = -1  # marked once
    if held is not None:
        yield held, at >= 0


def _stopping(chunks: Iterator[bytes], at: int, last: Callable[[bytes, int], bytes]) -> Iterator[bytes]:
    """What comes before the marked chunk, then *last*(that chunk, events so far)."""
    events = 0
    for chunk, marked in _before(chunks, at):
        if marked:
            if final := last(chunk, events):
                yield final
            return
        events += chunk.count(b"\n\n")
        yield chunk


def _with_garbage(chunks: Iterator[bytes], at: int) -> Iterator[bytes]:
    for chunk, marked in _before(chunks, at):
        if marked:
            yield GARBAGE_FRAME
        yield chunk


def split_utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut behind the first byte of every character that has several."""
    for chunk in chunks:
        start = 0
        for match in _LEAD_BYTE.finditer(chunk):
            yield chunk[start : match.end()]
            start = match.end()
        if start < len(chunk):
            yield chunk[start:]


def split_frames(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut into 1 to 34 bytes, over the borders of frames."""
    sizes = cycle(_SPLIT_SIZES)
    size, carry = next(sizes), b""
    for chunk in chunks:
        data, start = carry + chunk, 0
        while len(data) - start >= size:
            yield data[start : start + size]
            start += size
            size = next(sizes)
        carry = data[start:]
    if carry:
        yield carry


def merge_frames(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Collect writes up to `MERGED_BYTES`."""
    group: list[bytes] = []
    size = 0
    for chunk in chunks:
        group.append(chunk)
        size += len(chunk)
        if size >= MERGED_BYTES:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)


def single_bytes(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """One byte per write."""
    for chunk in chunks:
        for at in range(len(chunk)):
            yield chunk[at : at + 1]


_RECUTS: dict[Fault, Callable[[Iterable[bytes]], Iterator[bytes]]] = {
    Fault.SPLIT_UTF8: split_utf8,
    Fault.SPLIT_FRAMES: split_frames,
    Fault.MERGE_FRAMES: merge_frames,
    Fault.SLOW_BYTES: single_bytes,
}
_ENDINGS = {
    Fault.RESET: Ending.RESET,
    Fault.RESET_HEADERS: Ending.RESET_HEADERS,
    Fault.CLOSE_BEFORE_HEADERS: Ending.CLOSE_BEFORE_HEADERS,
    Fault.CUT: Ending.CLOSE,
    Fault.STALL: Ending.STALL,
}


def _half(chunk: bytes, _events: int) -> bytes:
    return chunk[: len(chunk) // 2]


def _nothing(_chunk: bytes, _events: int) -> bytes:
    return b""


def _stream_error(endpoint: Endpoint, script: Script, ask: Ask) -> Callable[[bytes, int], bytes]:
    """What replaces a chunk by an in-band error."""

    def frame(_chunk: bytes, events: int) -> bytes:
        fmt = FORMAT_OF.get(endpoint, Format.OPENAI)
        if fmt is Format.OPENAI_RESPONSE:
            return responses.failed_event(script, ask, sequence=events, message=_INBAND_MESSAGE)
        if not ask.sse:
            return (b"," if _chunk[:1] == b"," else b"[") + error_body(fmt, 500, _INBAND_MESSAGE) + b"]"
        return error_frame(fmt, _INBAND_MESSAGE)

    return frame


def _stream_writes(endpoint: Endpoint, scenario: Scenario, script: Script, ask: Ask) -> Iterator[bytes]:
    """The writes of a stream with the scenario's fault in them."""
    fault, at = scenario.fault, scenario.fault_at
    chunks = _STREAMS[endpoint](script, ask, done=fault is not Fault.NO_DONE)
    match fault:
        case Fault.RESET | Fault.CUT:
            return _stopping(chunks, at, _half)
        case Fault.STALL | Fault.EOF:
            return _stopping(chunks, at, _nothing)
        case Fault.INBAND_ERROR:
            return _stopping(chunks, at, _stream_error(endpoint, script, ask))
        case Fault.EMPTY | Fault.RESET_HEADERS | Fault.CLOSE_BEFORE_HEADERS:
            return iter(())
        case Fault.GARBAGE:
            return _with_garbage(chunks, at)
        case Fault.CRLF:
            return (chunk.replace(b"\n", b"\r\n") for chunk in chunks)
        case Fault.SPLIT_UTF8 | Fault.SPLIT_FRAMES | Fault.MERGE_FRAMES | Fault.SLOW_BYTES:
            return _RECUTS[fault](chunks)
        case Fault.NO_DONE | None:
            return chunks


def render_stream(fmt: Format, scenario: Scenario, ask: Ask) -> list[bytes]:
    """The exact bytes of a streamed answer, one entry per write; joined they are the body.

    With a fault that breaks off (``reset``, ``cut``, ``stall``, ``eof``) the list ends where the answer does.
    """
    endpoint = _ENDPOINTS[fmt][0]
    return list(_stream_writes(endpoint, scenario, write_script(scenario, ask), ask))


def render_full(fmt: Format, scenario: Scenario, ask: Ask) -> bytes:
    """The exact JSON body of an answer that is not streamed; faults are not in it."""
    return _FULL[_ENDPOINTS[fmt][1]](write_script(scenario, ask), ask)


_REUSABLE_BYTES = 128 << 10


def _stream_answer(route: Route, scenario: Scenario, ask: Ask) -> Answer:
    script = write_script(scenario, ask)
    writes: Iterable[bytes] = _stream_writes(route.endpoint, scenario, script, ask)
    reusable = script.size_bytes <= _REUSABLE_BYTES
    return Answer(
        content_type=b"text/event-stream" if ask.sse else b"application/json",
        headers=((b"cache-control", b"no-cache"), *_request_id(route.format, script.key)),
        writes=tuple(writes) if reusable else writes,
        ending=_ENDINGS.get(scenario.fault, Ending.COMPLETE) if scenario.fault else Ending.COMPLETE,
        first_byte_s=scenario.first_byte_s,
        delay_s=_delay(scenario),
        reusable=reusable,
    )


def _request_id(fmt: Format, key: str) -> tuple[tuple[bytes, bytes], ...]:
    name = b"request-id" if fmt is Format.CLAUDE else b"x-request-id"
    return ((name, b"req_" + key.encode()),)


def _delay(scenario: Scenario) -> float:
    if scenario.delay_s is not None:
        return scenario.delay_s
    return _SLOW_DELAY_S if scenario.fault is Fault.SLOW_BYTES else 0.0


def _plain_answer(
    body: bytes,
    scenario: Scenario,
    *,
    fmt: Format,
    status: int = 200,
    content_type: bytes = b"application/json",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> Answer:
    """A body with ``Content-Length``, with the scenario's fault in it."""
    fault = scenario.fault
    if fault is Fault.EMPTY:
        body = b""
    elif fault is Fault.GARBAGE:
        body = GARBAGE_BODY
    elif fault is Fault.INBAND_ERROR:
        body = error_body(fmt, 500, _INBAND_MESSAGE)
    length = len(body)
    writes: tuple[bytes, ...] = (body,) if body else ()
    if fault in (Fault.RESET, Fault.CUT, Fault.EOF, Fault.STALL):
        writes = (body[: length // 2],) if length > 1 else ()
    elif fault in _RECUTS:
        writes = tuple(_RECUTS[fault](writes))
    ending = Ending.COMPLETE
    if fault is not None:
        ending = Ending.CLOSE if fault is Fault.EOF else _ENDINGS.get(fault, Ending.COMPLETE)
    return Answer(
        status=status,
        content_type=content_type,
        headers=tuple(headers),
        writes=writes,
        length=length,
        ending=ending,
        first_byte_s=scenario.first_byte_s,
        delay_s=_delay(scenario),
        reusable=length <= _REUSABLE_BYTES,
    )


def error_answer(fmt: Format, status: int, message: str, *, headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """An error of the mock itself, in the protocol's shape."""
    return _plain_answer(error_body(fmt, status, message), Scenario(), fmt=fmt, status=status, headers=headers)


def _scripted_status(fmt: Format, scenario: Scenario) -> Answer:
    status = scenario.status or 200
    message = f"mock error {status}"
    body = error_body(fmt, status, message, retry_after_s=scenario.retry_after)
    content_type = b"application/json"
    if scenario.body is not None:
        body = scenario.body.encode()
        content_type = b"application/json" if body[:1] in (b"{", b"[") else b"text/plain; charset=utf-8"
    headers: list[tuple[bytes, bytes]] = list(_request_id(fmt, "mock"))
    if scenario.retry_after is not None:
        headers.append((b"retry-after", b"%d" % scenario.retry_after))
    if 300 <= status < 400:
        headers.append((b"location", b"/elsewhere"))
    if status in (204, 304):
        body = b""
    return _plain_answer(body, scenario, fmt=fmt, status=status, content_type=content_type, headers=headers)


def make_answer(route: Route, scenario: Scenario, ask: Ask, body: bytes) -> Answer:
    """The answer to *ask*, which came as *body* to *route*. Raises: AskError."""
    fmt = route.format
    if scenario.status is not None or scenario.body is not None:
        return _scripted_status(fmt, scenario)
    if ask.stream and route.endpoint in _STREAMS:
        return _stream_answer(route, scenario, ask)
    of_body = _OF_BODY.get(route.endpoint)
    if of_body is not None:
        try:
            full = of_body(body)
        except ValueError as exc:
            raise AskError(str(exc)) from exc
        return _plain_answer(full, scenario, fmt=fmt)
    script = write_script(scenario, ask)
    full = _FULL[route.endpoint](script, ask)
    return _plain_answer(full, scenario, fmt=fmt, headers=_request_id(fmt, script.key))


def expected_body(target: str, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """What the mock answers to a POST, as far as its fault lets it come; for byte-for-byte comparisons.

    Args:
      headers: lower-case names; only ``x-mock-*`` matter.

    Raises: AskError, BadDirective; ValueError: the mock has no such path.
    """
    route = parse_route(target)
    if route is None:
        raise ValueError(f"the mock provider has no {target}")
    ask = parse_ask(route, body)
    scenario = apply_headers(parse_model(ask.model), headers)
    return b"".join(make_answer(route, scenario, ask, body).writes)
