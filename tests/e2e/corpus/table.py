"""The table that the rows of the corpus are in: number to what tries it."""

from collections.abc import Callable
from typing import Any

from tests.e2e.corpus.rig import Rig

Try = Callable[[Rig], None]
ROWS: dict[int, Try] = {}
"""Translation, Part 7: each row by its number."""


def row(number: int) -> Callable[[Try], Try]:
    """The decorated function is row *number*."""

    def put(function: Try) -> Try:
        assert number not in ROWS, number
        ROWS[number] = function
        return function

    return put


def u(content: Any = "hi") -> dict[str, Any]:
    """A user's message, of Chat, Responses and Messages."""
    return {"role": "user", "content": content}


def a(content: Any = "ok", **more: Any) -> dict[str, Any]:
    """An assistant's."""
    return {"role": "assistant", "content": content, **more}


def said(*messages: Any, **more: Any) -> dict[str, Any]:
    """A body of Chat or Messages."""
    return {"messages": list(messages), **more}


def items(*found: Any, **more: Any) -> dict[str, Any]:
    """A body of Responses."""
    return {"input": list(found), **more}


def contents(*found: Any, **more: Any) -> dict[str, Any]:
    """A body of Gemini."""
    return {"contents": list(found), **more}


def g(role: str, *parts: Any) -> dict[str, Any]:
    """A turn of Gemini."""
    return {"role": role, "parts": list(parts)}


def call(identity: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    """A call of Chat."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def told(identity: str, content: Any = "done") -> dict[str, Any]:
    """A result of Chat."""
    return {"role": "tool", "tool_call_id": identity, "content": content}


def tool_use(identity: str, name: str = "f", given: Any = None) -> dict[str, Any]:
    """A call of Messages."""
    return {"type": "tool_use", "id": identity, "name": name, "input": given or {}}


def tool_result(identity: str, content: Any = "done", **more: Any) -> dict[str, Any]:
    """A result of Messages."""
    return {"type": "tool_result", "tool_use_id": identity, "content": content, **more}


SCHEMA: dict[str, Any] = {"type": "object", "properties": {}}


def chat_tool(name: str = "f", schema: Any = None) -> dict[str, Any]:
    """A tool of Chat."""
    return {"type": "function", "function": {"name": name, "parameters": schema or SCHEMA}}


def r_tool(name: str = "f", schema: Any = None, **more: Any) -> dict[str, Any]:
    """A tool of Responses."""
    return {"type": "function", "name": name, "parameters": schema or SCHEMA, **more}


def a_tool(name: str = "f", schema: Any = None) -> dict[str, Any]:
    """A tool of Messages."""
    return {"name": name, "input_schema": schema or SCHEMA}


def g_tool(name: str = "f", schema: Any = None) -> dict[str, Any]:
    """A tool of Gemini."""
    return {"functionDeclarations": [{"name": name, "parametersJsonSchema": schema or SCHEMA}]}


def text(said_so: str) -> dict[str, Any]:
    """A text block of Messages."""
    return {"type": "text", "text": said_so}
