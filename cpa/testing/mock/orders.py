"""Tool calls that a conversation orders: ``[mock:call NAME ARGUMENTS]`` in the user's text.

A prompt reaches the provider through every client and every proxy, whatever model they name, so this is how a real
agent is made to run one of its own tools. *ARGUMENTS* is a JSON object, or a JSON string: the text of a free-text tool,
or the value of the one property that a function requires (what free-text tools become in other protocols).
"""

import json
import re
from collections.abc import Mapping, Sequence

import attrs
import msgspec

from cpa.testing.mock.asks import AskError, Tool
from cpa.testing.mock.scenario import MAX_CALLS

_START = re.compile(r"\[mock:call\s+(?P<name>[^\s\]]+)\s*")
_END = re.compile(r"\s*\]")
_SHOWN_TEXT = 60
"""Characters of a broken order that its error repeats."""


@attrs.frozen(kw_only=True)
class Order:
    """One call that the text asks for.

    Attributes:
      name: of the tool, without namespace.
      arguments: a decoded JSON object, or a text.
    """

    name: str
    arguments: Mapping[str, object] | str

    def text_for(self, tool: Tool) -> str:
        """The arguments as *tool* takes them: compact JSON of an object, or plain text for a custom tool."""
        if isinstance(self.arguments, str):
            if tool.kind == "custom":
                return self.arguments
            return msgspec.json.encode({_only_property(tool): self.arguments}).decode()
        return msgspec.json.encode(self.arguments).decode()


def _only_property(tool: Tool) -> str:
    """The property that holds the text of a free-text tool after translation."""
    schema = msgspec.json.decode(tool.schema) if tool.schema else None
    required = schema.get("required") if isinstance(schema, dict) else None
    first = required[0] if isinstance(required, list) and required else "input"
    return first if isinstance(first, str) else "input"


def orders_in(text: str) -> tuple[Order, ...]:
    """The orders that *text* holds, in its order, at most `MAX_CALLS`; several are parallel calls.

    Raises: AskError: an order that begins well and is not one.
    """
    orders: list[Order] = []
    at = 0
    while len(orders) < MAX_CALLS and (start := _START.search(text, at)) is not None:
        shown = text[start.start() : start.start() + _SHOWN_TEXT]
        try:
            arguments, end = json.JSONDecoder().raw_decode(text, start.end())
        except ValueError as exc:
            raise AskError(f"expected [mock:call NAME ARGUMENTS] with JSON as ARGUMENTS, got {shown!r}: {exc}") from exc
        closed = _END.match(text, end)
        if closed is None or not isinstance(arguments, dict | str):
            raise AskError(f"expected [mock:call NAME ARGUMENTS] with a JSON object or string, got {shown!r}")
        orders.append(Order(name=start["name"], arguments=arguments))
        at = closed.end()
    return tuple(orders)


def find_tool(tools: Sequence[Tool], name: str) -> Tool | None:
    """The offered tool that *name* means: of that very name, or of that name behind a namespace and ``__``."""
    behind = f"__{name}"
    return next((tool for tool in tools if tool.name == name), None) or next(
        (tool for tool in tools if tool.name.endswith(behind)), None
    )
