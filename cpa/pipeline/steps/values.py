"""What a built-in step is, what it is told, and how its setting is read.

A step is made once, when the configuration is read: its setting is judged and compiled into a function. What runs for
every request is that function: bytes in, bytes out, the very object when there is nothing to change. None of them ever
raises: a body that a step cannot read passes as it is, others will judge it.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Final, TypeAlias

import attrs

from cpa.config.schema import FrozenJson
from cpa.formats.names import Format
from cpa.types import Execution, Operation

MAX_SHOWN_CHARS: Final = 24
"""Longest text of a setting that a message repeats: prompts are long, and a key may stand where a word belongs."""
EVERY_FORMAT: Final = frozenset(Format)
RESPONSES: Final = frozenset({Format.OPENAI_RESPONSE, Format.CODEX})


class Side(StrEnum):
    """Which way a body goes."""

    REQUEST = "request"
    RESPONSE = "response"


@attrs.frozen(kw_only=True)
class StepContext:
    """What a step knows beside the body.

    Attributes:
      format: protocol of the body at this place of the chain, usually a `Format`; a plugin's may be its own invention.
      client, provider: protocols at the ends of the chain.
      model: the provider's name of it; requested_model: the client's.
      stream: the answer is a stream; then a response step gets one event's data at a time.
      memory: belongs to this step and this exchange alone; for what a step has to remember between events.
      execution: the request behind it; None on the command line.
    """

    format: str
    side: Side
    client: str
    provider: str
    model: str
    requested_model: str
    stream: bool
    operation: Operation = Operation.GENERATE
    memory: dict[str, object] = attrs.field(factory=dict, repr=False)
    execution: Execution | None = attrs.field(default=None, repr=False)


BuiltIn: TypeAlias = Callable[[bytes, StepContext], bytes]
"""``(body, context) -> body``. Of an event of a stream an empty answer removes the event."""
StepFunction: TypeAlias = Callable[[bytes, StepContext], "bytes | Awaitable[bytes | None] | None"]
"""What embedders may give as a step: the same, sync or async; None leaves the body as it is."""


class WrongSetting(Exception):
    """A setting that a step cannot do with. Becomes a line of a `ConfigError`.

    Attributes:
      path: below the step, e.g. ``.replace``; text: ``expected …, got …``.
    """

    def __init__(self, expected: str, got: object, *, path: str = "") -> None:
        super().__init__(expected)
        self.text = f"expected {expected}, got {shown(got)}"
        self.path = path


@attrs.frozen(kw_only=True)
class Definition:
    """One built-in step.

    Attributes:
      sides: where it may stand. formats: protocols that it knows something about.
      make: the function for a setting. Raises: WrongSetting. Its argument is None for a step without a setting.
      setting: what the setting is, in words, for messages and help; empty = it has none.
    """

    name: str
    sides: frozenset[Side]
    formats: frozenset[Format]
    setting: str
    make: Callable[[FrozenJson], BuiltIn]
    summary: str


REQUEST_ONLY: Final = frozenset({Side.REQUEST})
RESPONSE_ONLY: Final = frozenset({Side.RESPONSE})
BOTH_SIDES: Final = frozenset(Side)


def shown(value: object) -> str:
    """*value* for ``got …``: its kind, and itself only when it is short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool | int | float):
        return f"{str(value).lower()} ({type(value).__name__})"
    if isinstance(value, str):
        return f"{value!r} (str)" if len(value) <= MAX_SHOWN_CHARS else f"a string of {len(value)} characters"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, tuple | list):
        return f"a list of {len(value)}"
    return type(value).__name__


def texts(value: FrozenJson, expected: str) -> tuple[str, ...]:
    """A list of texts, at least one. Raises: WrongSetting."""
    if not isinstance(value, tuple) or not value:
        raise WrongSetting(expected, value)
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item:
            raise WrongSetting("a string", item, path=f"[{index}]")
    return tuple(str(item) for item in value)


def mapping(value: FrozenJson, expected: str) -> Mapping[str, FrozenJson]:
    """A mapping with at least one entry. Raises: WrongSetting."""
    if not isinstance(value, Mapping) or not value:
        raise WrongSetting(expected, value)
    return value


def positive(value: FrozenJson, expected: str) -> int:
    """A whole number above zero. Raises: WrongSetting."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise WrongSetting(expected, value)
    return value


def text_pairs(value: FrozenJson, expected: str) -> tuple[tuple[str, str], ...]:
    """A mapping of texts to texts, the first ones not empty. Raises: WrongSetting."""
    pairs = []
    for name, other in mapping(value, expected).items():
        if not name:
            raise WrongSetting("a text that is not empty", name)
        if not isinstance(other, str):
            raise WrongSetting("a string", other, path=f".{name}")
        pairs.append((name, other))
    return tuple(pairs)


def for_formats(by_format: Mapping[str, BuiltIn]) -> BuiltIn:
    """A step that does something else in every protocol, and nothing in those that it does not know."""

    def step(body: bytes, context: StepContext) -> bytes:
        known = by_format.get(context.format)
        return body if known is None else known(body, context)

    return step
