"""What an answer says, before any protocol."""

from collections.abc import Iterator, Sequence

import attrs
import msgspec

from cpa.testing.mock.arguments import plausible_arguments
from cpa.testing.mock.asks import Ask, Tool
from cpa.testing.mock.orders import Order, find_tool, orders_in
from cpa.testing.mock.scenario import Scenario
from cpa.testing.mock.text import digest_of, in_pieces, in_words, pseudo_pieces

CREATED_UNIX = 1_767_225_600
"""2026-01-01T00:00:00Z, the time of every answer: answers are functions of requests."""
CREATED_ISO = "2026-01-01T00:00:00Z"
_SHOWN_RESULT = 200
"""Characters of a tool's result that the answer repeats."""
_SHOWN_TOOLS = 40
"""Names that are listed when a tool was ordered that nobody offers."""


@attrs.frozen(kw_only=True)
class Call:
    """One tool call.

    Attributes:
      key: unique within a conversation; protocols put their own prefix before it.
      arguments: compact JSON object; for custom tools plain text.
    """

    key: str
    tool: Tool
    arguments: str


@attrs.frozen(kw_only=True)
class Usage:
    """Token counts. `cached` is part of `input`, `reasoning` part of `output`."""

    input: int
    cached: int
    output: int
    reasoning: int

    @property
    def total(self) -> int:
        """All tokens read and written."""
        return self.input + self.output


@attrs.frozen(kw_only=True)
class Script:
    """An answer.

    Attributes:
      key: 12 hex digits; ids are made of it.
      reasoning: pieces, empty = none.
      words: pieces of the scripted text; empty when there are calls or pseudo-text.
      pseudo: (pieces, bytes of each) of pseudo-text, None = `words`.
      calls: empty = the answer is text.
    """

    key: str
    model: str
    reasoning: tuple[str, ...]
    words: tuple[str, ...]
    pseudo: tuple[int, int] | None
    calls: tuple[Call, ...]
    usage: Usage

    def pieces(self) -> Iterator[str]:
        """The text, piece by piece."""
        return iter(self.words) if self.pseudo is None else pseudo_pieces(*self.pseudo)

    @property
    def text(self) -> str:
        """The whole text, empty when there are calls."""
        return "".join(self.pieces())

    @property
    def size_bytes(self) -> int:
        """Roughly the size of the streamed answer, framing included."""
        frame = 300
        if self.pseudo is not None:
            return self.pseudo[0] * (self.pseudo[1] + frame)
        return sum(len(piece) + frame for piece in (*self.words, *self.reasoning))


def _tokens(characters: int) -> int:
    return (characters + 3) // 4


def count_input(ask: Ask) -> int:
    """Tokens of a request: stable, > 0, no tokenizer."""
    return 7 + 3 * ask.turns + _tokens(len(ask.text) + len(ask.tool_result or ""))


def _call(tool: Tool, key: str) -> Call:
    if tool.kind == "custom":
        return Call(key=key, tool=tool, arguments=f"mock input for {tool.name} ✓")
    arguments = plausible_arguments(msgspec.json.decode(tool.schema) if tool.schema else None)
    return Call(key=key, tool=tool, arguments=msgspec.json.encode(arguments).decode())


def _ordered(orders: Sequence[Order], ask: Ask, key: str) -> Iterator[Call]:
    for at, order in enumerate(orders):
        if (tool := find_tool(ask.tools, order.name)) is not None:
            yield Call(key=f"{key}{at:02d}", tool=tool, arguments=order.text_for(tool))


def _calls(scenario: Scenario, ask: Ask, orders: Sequence[Order], key: str) -> tuple[Call, ...]:
    if orders:
        return tuple(_ordered(orders, ask, key))
    if not scenario.tool or ask.tool_result is not None or not ask.tools:
        return ()
    tools = [tool for tool in ask.tools if tool.name == ask.chosen_tool] or list(ask.tools)
    return tuple(_call(tools[at % len(tools)], f"{key}{at:02d}") for at in range(scenario.calls))


def _scripted(ask: Ask, orders: Sequence[Order]) -> str:
    digest = digest_of(ask.text)
    if ask.tool_result is not None:
        return f"The tool answered: {ask.tool_result[:_SHOWN_RESULT]} That settles it ✓ (digest {digest})."
    if orders and ask.tools:
        offered = ", ".join(tool.name for tool in ask.tools[:_SHOWN_TOOLS])
        return f"No tool {orders[0].name!r} is offered; there are: {offered}"
    return f"Mock answer to {len(ask.text)} characters, digest {digest}: grüße, 你好, all is well 🙂"


def write_script(scenario: Scenario, ask: Ask) -> Script:
    """The answer to *ask*. Pure. Raises: AskError: its text orders a call in a form that is none."""
    key = digest_of(ask.model, str(ask.turns), ask.text, ask.tool_result or "")
    orders = orders_in(ask.text) if ask.tool_result is None else ()
    calls = _calls(scenario, ask, orders, key)
    chunks = scenario.text_chunks
    pseudo = None if calls or chunks is None else (chunks, scenario.text_chunk_bytes)
    words = () if calls or pseudo else in_words(_scripted(ask, orders))
    if pseudo is not None:
        written = pseudo[0] * pseudo[1]
    else:
        written = sum(map(len, (*words, *(call.arguments for call in calls))))
    reasoning: tuple[str, ...] = ()
    if scenario.think:
        reasoning = in_pieces(f"Thinking about {digest_of(ask.text)}: is ½ + ½ = 1? Yes, … so be it.", 16)
    thought = _tokens(sum(len(piece) for piece in reasoning))
    tokens_in = count_input(ask)
    usage = Usage(input=tokens_in, cached=tokens_in // 4, output=max(1, _tokens(written)) + thought, reasoning=thought)
    return Script(key=key, model=ask.model, reasoning=reasoning, words=words, pseudo=pseudo, calls=calls, usage=usage)
