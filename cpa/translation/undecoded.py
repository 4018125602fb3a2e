"""Values that are read when somebody asks for them (translation 0.6).

Most of a request goes from one body into another as it came: a text between its quotes, a tool's arguments. The structs
of `ir` keep such things in a member ``written``, and what they mean in a member that looks like any other and is made
of ``written`` at the first look.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

UNREAD: Final[Any] = msgspec.UNSET
"""Stands in a member that is read on demand."""
NOT_COMPARED: Final = frozenset({"written", "prose", "plain", "thinks", "toolset"})
"""Members that say how a value came, or what is known of it, not what it is."""


class Comparable(msgspec.Struct, gc=False, eq=False):
    """A value that equals one that means the same, however the two came."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _compared(self))

    def __ne__(self, other: object) -> bool:  # the base has one that knows nothing of the above
        return not self == other

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in _compared(self))})"


def _compared(value: Comparable) -> list[str]:
    return [name for name in value.__struct_fields__ if name not in NOT_COMPARED]


def read_on_demand(cls: type[Comparable], name: str, read: Callable[[Any], object]) -> None:
    """Make *name* of *cls* a member that may be `UNREAD`, and is then what *read* makes of ``written``.

    Not done by ``__getattr__``, which would make every other member of the struct slower as well.
    """
    slot: Any = vars(cls)[name]
    get, keep = slot.__get__, slot.__set__

    def value_of(part: Any) -> object:
        value = get(part)
        if value is UNREAD:
            value = read(part.written)
            keep(part, value)
        return value

    def assign(part: Any, value: object) -> None:
        part.written = None  # it said something else
        keep(part, value)

    setattr(cls, name, property(value_of, assign))
