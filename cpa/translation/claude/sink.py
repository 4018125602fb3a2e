"""What is told of an answer for a Claude client, whether it becomes a stream or a whole message (translation 4.6)."""

from typing import Any, Protocol

import msgspec

Members = dict[str, Any]
"""A JSON object with `msgspec.Raw` leaves."""


class Sink(Protocol):
    """What a message is told to. Exactly one block is open at a time."""

    def start(self, answer: str, model: str, usage: Members) -> None:
        """The message begins. *answer*: its id."""
        ...

    def open_block(self, block: Members | msgspec.Raw) -> None:
        """The next block begins, with what ``content_block_start`` says of it."""
        ...

    def text(self, text: str) -> None:
        """More text of the open block."""
        ...

    def thinking(self, text: str) -> None:
        """More thinking."""
        ...

    def input(self, text: str) -> None:
        """More JSON text of a tool's input."""
        ...

    def signature(self, data: str) -> None:
        """The thinking block's signature."""
        ...

    def citation(self, citation: Members) -> None:
        """One more citation of the text."""
        ...

    def close_block(self) -> None:
        """The open block ends."""
        ...

    def ping(self) -> None:
        """A sign of life."""
        ...

    def finish(self, reason: str, sequence: str | None, details: Members | None, usage: Members) -> None:
        """The message ends."""
        ...
