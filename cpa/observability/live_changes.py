"""What a stage changed, in words: paths of members, sizes of texts, and values only where these cannot be content.

Bodies hold what people write and, now and then, secrets. So a string is shown only under a name that protocols use for
settings (`SHOWN`), a number or a boolean only outside of what tools and users fill (`OPAQUE`), and everything else is
told by its size. Work is bounded: a comparison ends after `MAX_VISITS` values or `MAX_LINES` lines, whichever is first.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from cpa.formats.headers import HeaderMap
from cpa.formats.json import JsonError, decode
from cpa.formats.redaction import redact_text
from cpa.formats.sse import event_data, split_events
from cpa.pipeline.trace import Kept

MAX_LINES: Final = 40
MAX_VISITS: Final = 20_000
MAX_DEPTH: Final = 24
MAX_NAME_CHARS: Final = 48
MAX_VALUE_CHARS: Final = 64
SHOWN: Final = frozenset(
    {
        *("model", "role", "type", "status", "object", "service_tier", "effort", "reasoning_effort", "verbosity"),
        *("tool_choice", "finish_reason", "stop_reason", "finishReason", "media_type", "mime_type", "mimeType"),
        *("detail", "mode", "level", "thinkingLevel", "thinking_level", "encoding_format", "display", "ttl", "format"),
        *("responseMimeType", "modelVersion", "truncation", "summary_mode"),
    }
)
"""Members whose strings are words of a protocol."""
OPAQUE: Final = frozenset(
    {"input", "arguments", "args", "response", "output", "metadata", "result", "env", "headers", "data", "user"}
)
"""What stands below these is a client's, a tool's or a user's."""
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_$@][\w$@.+-]*", re.ASCII)
_SSE: Final = re.compile(rb"\s*(?:event|data|id|retry)?:")


def describe(kept: Kept) -> list[str]:
    """The lines of one change; empty when nothing can be said."""
    before, after = kept.before, kept.after
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return _headers(before, after)
    if isinstance(before, bytes) and isinstance(after, bytes):
        return _bodies(before, after)
    assert isinstance(before, int)
    assert isinstance(after, int)
    return [f"body: {before} -> {after} bytes (too large to compare)"]


def _headers(before: HeaderMap, after: HeaderMap) -> list[str]:
    lines = []
    for name in sorted({*before, *after}, key=str.lower):
        if before.get(name) == after.get(name):
            continue
        sign = "+" if name not in before else "-" if name not in after else "~"
        lines.append(f"{sign} header {_name(name.lower())}")
    return lines[:MAX_LINES]


def _bodies(before: bytes, after: bytes) -> list[str]:
    if not after:
        return [f"body: {len(before)} bytes dropped"]
    old, new = _decoded(before), _decoded(after)
    if old is _UNREAD or new is _UNREAD:
        return [f"body: {len(before)} -> {len(after)} bytes"]
    comparison = _Comparison()
    try:
        comparison.compare("body", old, new, shown=True)
    except RecursionError:  # of comparing what is nested very deeply
        comparison.cut = True
    if comparison.cut:
        comparison.lines.append("… and more")
    return comparison.lines or ["body: written otherwise, the same content"]


_UNREAD: Final = object()


def _decoded(body: bytes) -> object:
    """The JSON of a body, or of the one event that it is."""
    if _SSE.match(body):
        data = [found for event in split_events(body) if (found := event_data(event)) is not None]
        if len(data) != 1:
            return _UNREAD
        body = data[0]
    try:
        return decode(body)
    except JsonError:
        return _UNREAD


@attrs.define(eq=False)
class _Comparison:
    lines: list[str] = attrs.field(factory=list)
    cut: bool = False
    _visits: int = 0

    def compare(self, path: str, old: object, new: object, *, shown: bool, depth: int = 0) -> None:
        """Note how *old* became *new*. *shown*: values may be told here."""
        if self._full():
            return
        if _same(old, new):
            return
        if isinstance(old, dict) and isinstance(new, dict) and depth < MAX_DEPTH:
            self._objects(path, old, new, shown=shown, depth=depth)
        elif isinstance(old, list) and isinstance(new, list) and depth < MAX_DEPTH:
            self._lists(path, old, new, shown=shown, depth=depth)
        else:
            self.lines.append(f"{path}: {_change(path, old, new, shown=shown)}")

    def _full(self) -> bool:
        self._visits += 1
        if self._visits > MAX_VISITS or len(self.lines) >= MAX_LINES:
            self.cut = True
        return self.cut

    def _objects(self, path: str, old: dict[str, object], new: dict[str, object], *, shown: bool, depth: int) -> None:
        for name in (*old, *(name for name in new if name not in old)):
            inner = f"{path}.{_name(name)}"
            below = shown and (name not in OPAQUE or isinstance(new.get(name, old.get(name)), list))
            if name not in new:
                self._say(f"- {inner}")
            elif name not in old:
                self._say(f"+ {inner}{_told(name, new[name], shown=below)}")
            else:
                self.compare(inner, old[name], new[name], shown=below, depth=depth + 1)
            if self.cut:
                return

    def _lists(self, path: str, old: list[object], new: list[object], *, shown: bool, depth: int) -> None:
        """Without what is the same at both ends: what was put in front of a conversation does not change all of it."""
        shorter = min(len(old), len(new))
        front = next((at for at in range(shorter) if not _same(old[at], new[at])), shorter)
        back = next((at for at in range(shorter - front) if not _same(old[-1 - at], new[-1 - at])), shorter - front)
        gone, come = old[front : len(old) - back], new[front : len(new) - back]
        if len(gone) == len(come):
            for at, (one, other) in enumerate(zip(gone, come, strict=True), front):
                self.compare(f"{path}[{at}]", one, other, shown=shown, depth=depth + 1)
        elif not gone:
            self._say(f"+ {path}[{front}]" + (f" to [{front + len(come) - 1}]" if len(come) > 1 else ""))
        elif not come:
            self._say(f"- {path}[{front}]" + (f" to [{front + len(gone) - 1}]" if len(gone) > 1 else ""))
        else:
            self._say(f"{path}: {len(old)} -> {len(new)} items")

    def _say(self, line: str) -> None:
        if not self._full():
            self.lines.append(line)


def _same(one: object, other: object) -> bool:
    """Equality, in which true is not 1; inside of what is otherwise the same it is, which is worth the speed."""
    return type(one) is type(other) and one == other


def _name(name: str) -> str:
    """A member's name, which is a client's or a plugin's word: short, printable, without secrets."""
    text = redact_text(name)
    if len(text) > MAX_NAME_CHARS:
        text = text[:MAX_NAME_CHARS] + "…"
    return text if _PLAIN_NAME.fullmatch(text) else ascii(text)


def _change(path: str, old: object, new: object, *, shown: bool) -> str:
    if isinstance(old, str) and isinstance(new, str):
        if _may_be_told(path, old, shown=shown) and _may_be_told(path, new, shown=shown):
            return f"{_short(old)} -> {_short(new)}"
        return f"{len(old)} -> {len(new)} characters"
    return f"{_value(path, old, shown=shown)} -> {_value(path, new, shown=shown)}"


def _told(name: str, value: object, *, shown: bool) -> str:
    return f": {_value(name, value, shown=shown)}"


def _value(path: str, value: object, *, shown: bool) -> str:
    """One value in a few words."""
    if isinstance(value, str):
        return _short(value) if _may_be_told(path, value, shown=shown) else f"{len(value)} characters"
    if isinstance(value, dict):
        return f"{len(value)} members"
    if isinstance(value, list):
        return f"{len(value)} items"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if not isinstance(value, int) or abs(value) < 1 << 63 else "a number"
    return text if shown and len(text) <= MAX_VALUE_CHARS else "a number"


def _may_be_told(path: str, value: str, *, shown: bool) -> bool:
    last = path.rsplit(".", 1)[-1]
    return shown and last in SHOWN and len(value) <= MAX_VALUE_CHARS and value.isprintable()


def _short(value: str) -> str:
    return redact_text(value)


Redact = Callable[[str], str]


def lines_of(kept: Sequence[Kept], *, redact: Redact, limit: int = MAX_LINES) -> list[str]:
    """The lines of several changes, at most *limit*."""
    lines: list[str] = []
    for change in kept:
        lines += describe(change)
        if len(lines) >= limit:
            lines = [*lines[:limit], "… and more"]
            break
    return [redact(line) for line in lines]
