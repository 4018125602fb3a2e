"""How much of an answer got to the client, where its provider did not say (issue 5: what was delivered is counted).

Theory of operation. Providers state counts at the end of a stream, so a stream that is cut or left early has none.
Nobody knows beforehand which stream that will be: therefore blocks are only kept, and read when somebody asks, or when
`HELD_BYTES` of them are there. A stream that ends well has usually paid one append per block.

A count that was stated in the middle (Gemini does so in every frame) covers the text in front of it; only what came
behind is estimated. A block counts as delivered when the client took it, not when it was read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from cpa.formats.estimate import count_chars, estimate_chars
from cpa.formats.json import repair
from cpa.formats.names import Format
from cpa.formats.sse import event_data, split_events
from cpa.usage.quick_text import quick_text
from cpa.usage.tokens import RULES, states_output

HELD_BYTES: Final = 64 << 10
"""Of blocks that were not read yet, per stream: most streams end before, and have cost nothing."""

MAX_PENDING_BYTES: Final = 1 << 20
"""Of blocks that were read and not delivered; more are believed to be, rather than held: steps may swallow them."""

_Path: TypeAlias = tuple[str, ...]
EACH: Final = "*"
"""Every item of a list."""

_CHAT_MESSAGE: tuple[_Path, ...] = (
    ("content",),
    ("reasoning_content",),
    ("reasoning",),
    ("refusal",),
    ("tool_calls", EACH, "function", "name"),
    ("tool_calls", EACH, "function", "arguments"),
    ("function_call", "name"),
    ("function_call", "arguments"),
)
_CLAUDE_BLOCK: tuple[_Path, ...] = (("text",), ("thinking",), ("name",), ("input",))
_GEMINI_PART: tuple[_Path, ...] = (("text",), ("functionCall", "name"), ("functionCall", "args"), ("executableCode",))
_RESPONSES: tuple[_Path, ...] = (
    ("delta",),  # of every event whose type ends so; other events repeat what these said
    *(
        ("output", EACH, *path)
        for path in (
            *(("content", EACH, "text"), ("content", EACH, "refusal"), ("summary", EACH, "text")),
            *(("name",), ("arguments",), ("input",)),
        )
    ),
)
TEXTS: Mapping[str, tuple[_Path, ...]] = {
    Format.OPENAI: (
        *(("choices", EACH, "delta", *path) for path in _CHAT_MESSAGE),
        *(("choices", EACH, "message", *path) for path in _CHAT_MESSAGE),
        ("choices", EACH, "text"),
    ),
    Format.OPENAI_RESPONSE: _RESPONSES,
    Format.CODEX: _RESPONSES,
    Format.CLAUDE: (
        ("delta", "text"),
        ("delta", "thinking"),
        ("delta", "partial_json"),
        *(("content_block", *path) for path in _CLAUDE_BLOCK[:-1]),
        *(("content", EACH, *path) for path in _CLAUDE_BLOCK),
    ),
    Format.GEMINI: tuple(
        (*wrapped, "candidates", EACH, "content", "parts", EACH, *path)
        for wrapped in ((), ("response",))
        for path in _GEMINI_PART
    ),
}
"""Where a protocol's events and whole answers hold what a model wrote. A plugin's own protocol has no row."""

_decode = msgspec.json.Decoder().decode


class DeliveredText:
    """Reads along with one answer in the protocol *fmt*."""

    __slots__ = ("_before", "_fmt", "_held", "_held_bytes", "_pending", "_pending_bytes", "_plain", "_wide")

    def __init__(self, fmt: str) -> None:
        self._fmt = fmt
        self._pending: list[bytes] = []
        self._held: list[bytes] = []
        self._held_bytes = self._pending_bytes = 0
        self._plain = self._wide = 0
        self._before = False  # text stood in front of the last count that was stated

    def feed(self, block: bytes) -> None:
        """*block*: whole wire events, or units of a plugin's executor, on their way to the client."""
        self._pending.append(block)
        self._pending_bytes += len(block)
        if self._pending_bytes > MAX_PENDING_BYTES:
            self.deliver()

    def deliver(self) -> None:
        """The client took all that was fed so far."""
        pending = self._pending
        if not pending:
            return
        self._held += pending
        self._held_bytes += self._pending_bytes
        self._pending_bytes = 0
        pending.clear()
        if self._held_bytes > HELD_BYTES:
            self._read()

    def drop(self) -> None:
        """Nobody will ask: forget all."""
        self._pending.clear()
        self._held.clear()

    def unstated(self, stated: int) -> int:
        """Tokens that were delivered beyond the *stated* ones, which are all that the provider told of its output."""
        self._read()
        for data in self._data(self._pending):
            if states_output(self._fmt, data):
                return 0  # covers all that was delivered, although it came too late itself
        tokens = estimate_chars(self._plain, self._wide)
        # A count in front of all text (Claude begins with one) covers none of it.
        return tokens if self._before else max(0, tokens - stated)

    def read_whole(self, body: bytes) -> None:
        """*body*: a whole JSON answer that the client got."""
        if self._fmt in TEXTS:
            self._take_slowly(body)

    def _read(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        events = self._data(held)
        marker = RULES[self._fmt].marker if events else b""
        stated = any(marker in block for block in held)  # most say nothing, which is found out at once
        for last in range(len(events) - 1, -1, -1) if stated else ():
            if states_output(self._fmt, events[last]):
                self._covered(events[: last + 1])
                del events[: last + 1]
                break
        self._take(events)

    def _covered(self, events: Sequence[bytes]) -> None:
        """A count stands in the last of *events*, for all the text so far."""
        if not self._before and not (self._plain or self._wide):
            self._take(events)
        self._before = self._before or bool(self._plain or self._wide)
        self._plain = self._wide = 0

    def _data(self, blocks: Sequence[bytes]) -> list[bytes]:
        """What all events in *blocks* hold: JSON objects; anything else says nothing."""
        if self._fmt not in RULES:
            return []
        joined = b"\n\n".join(blocks)  # between units of plugins' executors there is nothing
        if b"\r" in joined:
            data = [event_data(event) for block in blocks for event in split_events(block)]
        else:
            # One line with one object is nearly all there is: nothing is called for it.
            data = [
                event[6:] if event[:7] == b"data: {" and b"\n" not in event else _data_of(event)
                for event in joined.split(b"\n\n")
                if event
            ]
        return [value for value in data if value and value[:1] == b"{"]

    def _take(self, events: Sequence[bytes]) -> None:
        if not events:
            return
        try:
            self._count(quick_text(self._fmt, events))
        except (ValueError, RecursionError):
            for data in events:
                self._take_slowly(data)

    def _take_slowly(self, data: bytes) -> None:
        value = _value(data)
        if isinstance(value, dict):
            for path in TEXTS[self._fmt]:
                for text in _texts(value, path):
                    self._count(text)

    def _count(self, text: str) -> None:
        plain, wide = count_chars(text)
        self._plain += plain
        self._wide += wide


def _data_of(event: bytes) -> bytes | None:
    """As `event_data`, of an event without its blank line: one line of data is nearly all there is."""
    start = 6 if event.startswith(b"data: ") else event.find(b"\ndata: ") + 7
    if start == 6 and not event.startswith(b"data: "):
        return event_data(event)
    return event_data(event) if event.find(b"\n", start) >= 0 else event[start:]


def _value(data: bytes) -> object:
    try:
        return _decode(data)
    except (ValueError, RecursionError):
        try:
            return _decode(repair(data))
        except (ValueError, RecursionError):
            return None


def _texts(value: object, path: _Path) -> Iterator[str]:
    """The texts at *path*; what is no text counts as the JSON that it is."""
    for index, name in enumerate(path):
        if name == EACH:
            if isinstance(value, list):
                for item in value:
                    yield from _texts(item, path[index + 1 :])
            return
        if not isinstance(value, dict):
            return
        value = value.get(name)
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list) and value:
        yield msgspec.json.encode(value).decode()
