"""Where ``cache_control`` may stand in a request to Claude (translation 2.13).

The vendor takes four markers, in the order tools, system, messages, and no marker of an hour behind one of five
minutes. The last ones are worth most: they cover the longest prefix.
"""

from collections.abc import Iterator
from typing import Final

from cpa.formats.json import JsonError
from cpa.translation.claude import wire
from cpa.translation.context import Context
from cpa.translation.ir import NO_RAW, Call, IRRequest, Media, Result, SysBlock, Text, Tool
from cpa.translation.tools import allowed_tools

MAX_MARKERS: Final = 4
EPHEMERAL: Final = b'{"type":"ephemeral"}'
_SHORT: Final = b'{"type":"ephemeral","ttl":"5m"}'
_HOUR: Final = "1h"

_PARTS: Final = (Text, Call, Result, Media)
Marked = Tool | SysBlock | Text | Media | Call | Result
"""Whatever can carry a marker."""


def settle(request: IRRequest, ctx: Context) -> None:
    """Make the markers of *request* acceptable, in place, ``cache_hint`` included. To be called on what will be sent.

    A client that knows nothing of markers gets one for the request as a whole when there are tools: agents send the
    same prefix over and over.
    """
    marked = []
    for item in _marked(request):
        if _ttl(item.cache) is None:
            item.cache = NO_RAW
        else:
            marked.append(item)
    if request.cache_hint and _ttl(request.cache_hint) is None:
        request.cache_hint = NO_RAW
    room = MAX_MARKERS - bool(request.cache_hint)  # the request's own marker takes one of the places
    surplus = len(marked) - room
    for item in marked[:surplus] if surplus > 0 else ():
        item.cache = NO_RAW
        ctx.lose("cache_control", "more than four markers", dropped=True)
    _order(marked[max(surplus, 0) :], request, ctx)
    if (
        not marked
        and not request.cache_hint
        and request.tools
        and ctx.settings.claude_auto_cache
        and request.client_format != "claude"
    ):
        request.cache_hint = EPHEMERAL


def _order(marked: list[Marked], request: IRRequest, ctx: Context) -> None:
    """No hour behind five minutes."""
    short = False
    for item in marked:
        if _ttl(item.cache) != _HOUR:
            short = True
        elif short:
            item.cache = _SHORT
            ctx.lose("cache_control.ttl", "1h behind 5m")
    if short and request.cache_hint and _ttl(request.cache_hint) == _HOUR:
        request.cache_hint = _SHORT
        ctx.lose("cache_control.ttl", "1h behind 5m")


def _ttl(raw: bytes) -> str | None:
    """``5m`` or ``1h``; None for what is no marker."""
    try:
        found = wire.read_cache_control(raw)
    except JsonError:
        return None
    if found.type != "ephemeral":
        return None
    return _HOUR if found.ttl == _HOUR else "5m"


def _marked(request: IRRequest) -> Iterator[Marked]:
    """What carries a marker, in the order of the wire."""
    yield from (tool for tool in allowed_tools(request) if tool.cache)
    yield from (block for block in request.system if block.cache)
    for turn in request.turns:
        if turn.plain:
            continue
        for part in turn.parts:
            if type(part) is Result:
                for inner in part.parts:
                    if inner.cache:
                        yield inner
            if getattr(part, "cache", NO_RAW):
                assert isinstance(part, _PARTS)
                yield part
