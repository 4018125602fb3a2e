"""A plugin's output to lines for the log, in bounded memory."""

from collections.abc import Iterator

MAX_LINE_BYTES = 16 * 1024
"""A line of the log; what is longer comes in pieces, so that a plugin that never ends its line costs no memory."""


class LineSplitter:
    """Bytes as they come to lines, without their ends."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """Lines that are complete now; must be exhausted. What is not UTF-8 is replaced."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._rest = rest
        for line in lines:
            for at in range(0, max(len(line), 1), MAX_LINE_BYTES):
                yield _text(line[at : at + MAX_LINE_BYTES])

    def end(self) -> Iterator[str]:
        """The last line, if it had no end."""
        if self._rest:
            yield _text(self._rest)
        self._rest = b""


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
