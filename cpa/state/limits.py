"""Counters of clients' limits over Redis: sums that everybody adds to.

Each process judges by its local view: what Redis said last, plus what was added here since. What was added travels at
once, and Redis answers with the sum of all. When Redis has forgotten (it was restarted without its data), the first who
comes tells it what was known; when it is away, everybody counts alone and adds up later.
"""

from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any, Final

import attrs

from cpa.scheduling.store import Clock
from cpa.state.link import MAX_BATCH, Client, answered
from cpa.usage.limit_store import Count, MemoryLimitStore, Span, span_end
from cpa.usage.writing import Charge

ADD: Final = """
local start, length, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'start', 'requests', 'tokens')
local s, r, t = tonumber(known[1]), tonumber(known[2]), tonumber(known[3])
if not (s and r and t) or (length > 0 and now >= s + length) then
  s, r, t = start, tonumber(ARGV[4]), tonumber(ARGV[5])
elseif s == start then
  r, t = math.max(r, tonumber(ARGV[4])), math.max(t, tonumber(ARGV[5]))
end
r, t = r + tonumber(ARGV[6]), t + tonumber(ARGV[7])
local sum = {string.format('%d', s), string.format('%d', r), string.format('%d', t)}
redis.call('HSET', KEYS[1], 'start', sum[1], 'requests', sum[2], 'tokens', sum[3])
if length > 0 then redis.call('EXPIREAT', KEYS[1], string.format('%d', s + length + 60)) end
redis.call('PUBLISH', ARGV[8], table.concat({ARGV[9], ARGV[10], sum[1], sum[2], sum[3]}, ' '))
return sum
"""
MAX_COUNT: Final = 1 << 53
"""Lua counts in doubles."""

_Place = tuple[str, Span]


@attrs.frozen(kw_only=True)
class _Added:
    requests: int = 0
    tokens: int = 0


class SharedLimits:
    """Keeps the counters of a `MemoryLimitStore` in step with those of others; a `Part` of a link.

    Args:
      store: the local view; give `charged` what is added to it.
      changed: called when there is something to send.
    """

    name = "limits"

    def __init__(self, store: MemoryLimitStore, *, clock: Clock, prefix: str, changed: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._prefix = prefix
        self._changed = changed
        self._origin = token_hex(8)
        self._unsent: dict[_Place, _Added] = {}

    def charged(self, charges: Sequence[Charge]) -> None:
        """Something was added to the local view."""
        for charge in charges:
            self._add((charge.client, Span(charge.span)), charge.requests, charge.tokens)
        self._changed()

    def _add(self, place: _Place, requests: int, tokens: int) -> None:
        before = self._unsent.get(place, _Added())
        self._unsent[place] = _Added(requests=before.requests + requests, tokens=before.tokens + tokens)

    async def begin(self, client: Client) -> None:
        """See `Part`."""
        head = f"{self._prefix}:{self.name}:"
        keys = [key async for key in client.scan_iter(match=f"{head}*", count=MAX_BATCH)]
        for start in range(0, len(keys), MAX_BATCH):
            batch = keys[start : start + MAX_BATCH]
            async with client.pipeline(transaction=False, raise_on_error=False) as pipeline:
                answers = [pipeline.hmget(key, ["start", "requests", "tokens"]) for key in batch]
            for key, answer in zip(batch, answers, strict=True):
                self._take(_text(key).removeprefix(head), await answered(answer))
        # Whoever lost its memory meanwhile is told.
        for name, span, _ in self._store.counts(self._clock()):
            self._add((name, span), 0, 0)

    async def send(self, client: Client) -> None:
        """See `Part`."""
        script = client.register_script(ADD)
        while self._unsent:
            batch = list(self._unsent.items())[:MAX_BATCH]
            async with client.pipeline(transaction=False, raise_on_error=False) as pipeline:
                answers: list[Any] = [
                    script([self._key(place)], self._arguments(place, added), client=pipeline) for place, added in batch
                ]
            for (place, added), answer in zip(batch, answers, strict=True):
                later = self._unsent.pop(place)
                rest = _Added(requests=later.requests - added.requests, tokens=later.tokens - added.tokens)
                if rest != _Added():
                    self._unsent[place] = rest
                self._take(_name(place), await answered(answer))

    def _key(self, place: _Place) -> str:
        return f"{self._prefix}:{self.name}:{_name(place)}"

    def _arguments(self, place: _Place, added: _Added) -> list[str | int]:
        client, span = place
        now = self._clock()
        count = self._store.count(client, span, now)
        unsent = self._unsent[place]
        end = span_end(span, count.start_s)
        return [
            count.start_s,
            0 if end == float("inf") else int(end - count.start_s),
            int(now),
            max(0, count.requests - unsent.requests),
            max(0, count.tokens - unsent.tokens),
            added.requests,
            added.tokens,
            f"{self._prefix}:{self.name}",
            self._origin,
            _name(place),
        ]

    def hear(self, message: bytes) -> None:
        """See `Part`."""
        origin, *rest = _text(message).split(" ")
        if origin != self._origin and len(rest) == 4:
            self._take(rest[0], rest[1:])

    def _take(self, name: str, sums: object) -> None:
        """Redis knows *sums* (start, requests, tokens) for *name*."""
        span_name, _, client = name.partition(":")
        try:
            span = Span(span_name)
            start_s, requests, tokens = (_count(each) for each in (sums if isinstance(sums, list | tuple) else ()))
        except (TypeError, ValueError):
            return  # of another version, or not ours
        now = self._clock()
        if not client or now >= span_end(span, start_s) or start_s > now + 60:
            return
        unsent = self._unsent.get((client, span), _Added())
        known = self._store.count(client, span, now)
        requests, tokens = requests + unsent.requests, tokens + unsent.tokens
        if known.start_s == start_s:  # messages overtake answers; sums only grow
            requests, tokens = max(requests, known.requests), max(tokens, known.tokens)
        self._store.adopt(client, span, Count(start_s=start_s, requests=requests, tokens=tokens))


def _name(place: _Place) -> str:
    return f"{place[1].value}:{place[0]}"


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _count(value: object) -> int:
    """Raises: ValueError."""
    text = _text(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= MAX_COUNT):
        raise ValueError(text)
    return int(text)
