"""Tool definitions that were read and written before (2.6).

Agents send the same dozens of definitions with each turn, tens of kilobytes of JSON. What was made of a list of them is
kept beside the list as it came, per tenant: nobody's definitions are ever looked up for somebody else. A list counts as
the same if all its bytes are.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import msgspec

from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.ir import ChoiceMode, IRRequest, Tool, ToolKind
from cpa.translation.loss import Loss

MAX_BYTES: Final = 32 << 20
MAX_LIST_BYTES: Final = 1 << 20
"""A longer list is read anew each time."""
SIZE_FACTOR: Final = 4
"""What a kept list takes, in multiples of itself: it, what was read of it, and what was written for some providers."""
_SAMPLE: Final = 64
_copy: Final[Callable[[Tool], Tool]] = Tool.__copy__  # type: ignore[attr-defined] # what `copy.copy` calls

_Key = tuple[bytes, str, str, int, bytes]


@attrs.define(eq=False)
class Toolset:
    """One list of definitions.

    Attributes:
      raw: as it came. *tools*: what it says; to be copied before it is given to anybody.
      written: for a provider, by all that this depends on: the definitions, and what was lost of them.
      chars: how many ASCII and other characters they are (`counting`), if it was asked.
      names: their names, and whether all can be sent as they are, by whose rule that was asked (`tool_names`).
    """

    raw: bytes
    tools: tuple[Tool, ...]
    written: dict[str, tuple[tuple[msgspec.Raw, ...], tuple[Loss, ...]]] = attrs.field(factory=dict)
    chars: tuple[int, int] | None = None
    names: dict[str, tuple[frozenset[tuple[str, str]], bool]] = attrs.field(factory=dict)


class ToolCache:
    """Least recently used goes first.

    Large bodies are translated on worker threads. Each step here is one atomic operation of the dict, and what two
    threads can do to each other in between is to read a list twice, or to count one wrongly until it is dropped.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._sets: OrderedDict[_Key, Toolset] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What is held, about."""
        return self._size_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._sets.clear()
        self._size_bytes = 0

    def get(self, key: _Key, raw: bytes) -> Toolset | None:
        """What was kept of *raw*."""
        found = self._sets.pop(key, None)
        if found is None:
            return None
        self._sets[key] = found  # its last place
        return found if found.raw == raw else None

    def put(self, key: _Key, found: Toolset) -> None:
        """Keep *found*, in the place of another of the same key."""
        old = self._sets.pop(key, None)
        if old is not None:
            self._size_bytes -= SIZE_FACTOR * len(old.raw)
        self._sets[key] = found
        self._size_bytes += SIZE_FACTOR * len(found.raw)
        while self._size_bytes > self._max_bytes and self._sets:
            _, dropped = self._sets.popitem(last=False)
            self._size_bytes -= SIZE_FACTOR * len(dropped.raw)


cache: Final = ToolCache()


def read_once(raw: msgspec.Raw, ctx: Context, read: Callable[[], list[Tool]]) -> tuple[list[Tool], Toolset | None]:
    """The tools in *raw*, the undecoded list of a client's request, and what is kept of it.

    Args:
      read: reads them, if they are not known yet; may depend on *raw*, and on client and provider of *ctx*.

    Raises: whatever *read* raises.
    """
    if len(raw) > MAX_LIST_BYTES:
        return read(), None
    data = bytes(raw)
    middle = len(data) // 2
    sample = data[:_SAMPLE] + data[middle : middle + _SAMPLE] + data[-_SAMPLE:]
    # Not a hash of all of it: that would take longer than to compare it with what is known.
    key = (ctx.tenant, ctx.client.value, ctx.provider.value, len(data), sample)
    known = cache.get(key, data)
    if known is None:
        losses = len(ctx.losses)
        tools = read()
        if len(ctx.losses) != losses:
            return tools, None
        known = Toolset(data, tuple(map(_copy, tools)))
        cache.put(key, known)
        return tools, known
    return [*map(_copy, known.tools)], known


def write_once(request: IRRequest, ctx: Context, write: Callable[[], Sequence[Any]], *, dialect: str = "") -> list[Any]:
    """The definitions of *request* in the provider's spelling: objects, or JSON text that was kept.

    Args:
      write: writes them; may depend on the tools, on client and provider of *ctx*, and on *dialect*.
    """
    known = request.toolset
    if not isinstance(known, Toolset) or not _is_plain(request, ctx):
        return list(write())
    kept = known.written.get(dialect)
    if kept is not None:
        ctx.losses.extend(kept[1])
        return list(kept[0])
    losses = len(ctx.losses)
    written = write()
    known.written[dialect] = tuple(msgspec.Raw(encode(tool)) for tool in written), tuple(ctx.losses[losses:])
    return list(written)


_FUNCTION: Final = ToolKind.FUNCTION
_OF_SOME: Final = (ChoiceMode.SUBSET, ChoiceMode.SERVER)


def _is_plain(request: IRRequest, ctx: Context) -> bool:
    """How the tools are written depends on nothing but themselves."""
    choice = request.tool_choice
    marks = ctx.provider is not Format.CLAUDE
    return (
        ctx.names.unchanged
        and (choice is None or choice.mode not in _OF_SOME)
        # Which markers Claude gets depends on all others of the request.
        and all(tool.kind is _FUNCTION and (marks or not tool.cache) for tool in request.tools)
    )
