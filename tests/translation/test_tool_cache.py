"""Tool definitions are read and written once, and nobody notices."""

import json
from itertools import permutations
from typing import Any

import attrs
import pytest

from cpa.formats.names import Format
from cpa.translation import tool_cache
from cpa.translation.context import Context
from cpa.translation.ir import Tool, ToolKind
from cpa.translation.registry import translate_request
from cpa.translation.tool_cache import SIZE_FACTOR, ToolCache, Toolset
from tests.bench import translation_bodies as bodies
from tests.translation.support import make_context

SESSION = bodies.make_session(8_000, 3)
DIRECTIONS = list(permutations(bodies.CLIENTS, 2))


def translated(body: bytes, client: Format, provider: Format, tenant: bytes = b"t") -> tuple[bytes, Context]:
    ctx = attrs.evolve(make_context(client, provider), tenant=tenant)
    return translate_request(body, ctx), ctx


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
def test_the_second_time_is_like_the_first(client: Format, provider: Format) -> None:
    """Bytes, losses and names are the same, also for another tenant, who finds nothing."""
    tool_cache.cache.clear()
    body = bodies.write_body(SESSION, client)
    first, ctx = translated(body, client, provider)
    assert tool_cache.cache.size_bytes > 0
    for tenant in (b"t", b"t", b"another"):
        again, other = translated(body, client, provider, tenant)
        assert again == first
        assert (other.losses, other.names.wire, other.names.client) == (ctx.losses, ctx.names.wire, ctx.names.client)


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
def test_one_byte_makes_another_list(client: Format, provider: Format) -> None:
    """Samples of a list only say where to look; all of it is compared."""
    tool_cache.cache.clear()
    body = bodies.write_body(SESSION, client)
    translated(body, client, provider)
    word = SESSION.tools[1]["description"].split()[3].encode()
    place = body.index(b'"tools"')
    changed = body[:place] + body[place:].replace(word, word[::-1])
    assert len(changed) == len(body)
    assert changed != body
    known, _ = translated(changed, client, provider)
    tool_cache.cache.clear()
    assert known == translated(changed, client, provider)[0]


def test_markers_and_choices_are_those_of_each_request() -> None:
    """Claude gets four markers at most, whatever an earlier request with the same tools had."""
    tool = {"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
    block: Any = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    for blocks, kept in ((4, False), (1, True), (4, False)):
        messages = [{"role": "user", "content": [block] * blocks}]
        body = json.dumps({"model": "m", "max_tokens": 9, "messages": messages, "tools": [tool]}).encode()
        sent = json.loads(translated(body, Format.CLAUDE, Format.CLAUDE)[0])
        assert ("cache_control" in sent["tools"][0]) is kept


def test_memory_is_bounded() -> None:
    """The least recently used goes first; one that takes another's place is not counted twice."""
    cache = ToolCache(max_bytes=SIZE_FACTOR * 250)

    def key(name: str) -> tuple[bytes, str, str, int, bytes]:
        return b"", "claude", "gemini", 100, name.encode()

    def toolset(fill: bytes) -> Toolset:
        return Toolset(fill * 100, (Tool(kind=ToolKind.FUNCTION, name="f"),))

    cache.put(key("a"), toolset(b"a"))
    cache.put(key("b"), toolset(b"b"))
    cache.put(key("b"), toolset(b"c"))
    assert cache.size_bytes == SIZE_FACTOR * 200
    assert cache.get(key("a"), b"a" * 100) is not None
    cache.put(key("d"), toolset(b"d"))
    assert cache.get(key("b"), b"c" * 100) is None
    assert cache.get(key("a"), b"x" * 100) is None
    assert cache.get(key("a"), b"a" * 100) is not None
    assert cache.size_bytes == SIZE_FACTOR * 200
