"""From a handler's change of the configuration to its answer: what all endpoints that edit the file share."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from cpa.config.editing import Change
from cpa.errors import ConfigError, ConfigProblem, EditError
from cpa.formats.json import JsonError, decode
from cpa.server.management.calls import Answer, ManagementCall, error_answer, json_answer
from cpa.types import JsonObject, JsonValue

T = TypeVar("T")

OK: Final = json_answer({"status": "ok"})
LIST_BODY_BYTES: Final = 4 << 20
"""For lists and maps of the configuration: what a whole file may have."""


def ok(_value: object) -> Answer:
    """The answer of most."""
    return OK


def body_of(call: ManagementCall) -> JsonValue:
    """The body as JSON. Raises: EditError, 400."""
    try:
        return decode(call.body)
    except JsonError:
        raise EditError("invalid body", http_status=400) from None


def object_of(call: ManagementCall) -> JsonObject:
    """The body as a JSON object. Raises: EditError, 400."""
    body = body_of(call)
    if not isinstance(body, dict):
        raise EditError("invalid body", http_status=400)
    return body


async def save(call: ManagementCall, change: Change[T], *, answer: Callable[[T], Answer] = ok) -> Answer:
    """Edit the file and put it in force, then *answer* with what *change* returned; errors as the contract has them.

    See `cpa.config.editing.Change` for what a change may do. It refuses by `EditError` with a status and a text.
    """
    if call.editor is None:
        return error_answer(500, "failed to save config: this proxy runs without a configuration file")
    try:
        edited = await call.editor.edit(change, author=call.author)
    except ConfigError as exc:
        return refused(exc)
    except EditError as exc:
        text = exc.message if exc.http_status < 500 else f"failed to save config: {exc.message}"
        return error_answer(exc.http_status, text)
    return answer(edited.value)


def refused(error: ConfigError) -> Answer:
    """What ``cpa check`` says of the file as it would be, without the file's name."""
    return json_answer({"error": spoken(error.details[0]), "problems": listed(error.details)}, status=400)


def spoken(problem: ConfigProblem) -> str:
    """``gemini-api-key[0].weight: expected …, got …``."""
    return f"{problem.path}: {problem.text}" if problem.path else problem.text


def listed(problems: Sequence[ConfigProblem]) -> JsonValue:
    """Problems in parts, for editors that show them in their places."""
    return [
        {"line": problem.line, "column": problem.column, "path": problem.path, "message": problem.text}
        for problem in problems
    ]
