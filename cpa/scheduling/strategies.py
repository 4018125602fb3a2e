"""How one of several ready credentials is chosen: turns, weights, the first (proxy 4.2).

A `Tier` holds those of one priority that are ready now. Whoever is blocked is not in it, so that a pick looks at few
entries, however many credentials there are: lists of ids in order, searched by halving.
"""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import attrs

from cpa.config.schema import Strategy
from cpa.credentials.model import Credential
from cpa.types import Candidate

MAX_CURSORS: Final = 4096
"""One cursor per (providers, model, tier); names of models come from outside, so the eldest are forgotten."""

CursorKey = tuple[str | int, ...]


@attrs.define(eq=False, slots=True)
class Member:
    """One credential within a pool.

    Attributes:
      candidates: how it serves the model; several where the operator configured a pool of models.
      keys: for each candidate the name under which its health is kept.
      id: the credential's.
    """

    credential: Credential
    candidates: tuple[Candidate, ...]
    keys: tuple[str, ...]
    id: str = attrs.field(init=False)

    @id.default
    def _credential_id(self) -> str:
        return self.credential.id


class Cursors:
    """Whose turn it was; outlives reloads, bounded."""

    def __init__(self) -> None:
        self._table: OrderedDict[CursorKey, str] = OrderedDict()
        self._slots: OrderedDict[CursorKey, int] = OrderedDict()

    def last(self, key: CursorKey) -> str:
        """The id picked last; empty = none."""
        return self._table.get(key, "")

    def picked(self, key: CursorKey, member_id: str) -> None:
        """It was the turn of *member_id*."""
        self._table[key] = member_id
        self._table.move_to_end(key)
        if len(self._table) > MAX_CURSORS:
            self._table.popitem(last=False)

    def slot(self, key: CursorKey) -> int:
        """The next slot over several providers; advances."""
        at = self._slots.get(key, 0)
        self._slots[key] = at + 1
        self._slots.move_to_end(key)
        if len(self._slots) > MAX_CURSORS:
            self._slots.popitem(last=False)
        return at

    def __len__(self) -> int:
        """Cursors held."""
        return len(self._table) + len(self._slots)


Usable = Callable[[Member], bool]
"""Whether a member may be picked now; may take it out of its tier, and says False then."""


class Tier:
    """The ready members of one priority.

    Attributes:
      ready: for each provider, in the registry's order, the ids of its ready members, sorted.
    """

    def __init__(self, priority: int, members: Sequence[Member], model: str, cursors: Cursors) -> None:
        self.priority = priority
        self.ready: dict[str, list[str]] = {}
        self._members: Mapping[str, Member] = {member.id: member for member in members}
        self._cursors = cursors
        self._weights: WeightedTurns | None = None
        for member in members:
            self.ready.setdefault(member.credential.provider, []).append(member.id)
        for ids in self.ready.values():
            ids.sort()
        self._order = tuple(sorted(self.ready))
        self._keys: dict[str, CursorKey] = {provider: (model, priority, provider) for provider in self._order}
        # One cursor for the set of providers that serve the model, not of those that happen to be ready.
        self._mixed_key: CursorKey = (model, priority, *self._order)

    def leave(self, member: Member) -> None:
        """*member* is not ready any more."""
        ids = self.ready[member.credential.provider]
        at = bisect_left(ids, member.id)
        if at < len(ids) and ids[at] == member.id:
            del ids[at]
            self._weights = None

    def join(self, member: Member) -> None:
        """*member* is ready again."""
        ids = self.ready[member.credential.provider]
        at = bisect_left(ids, member.id)
        if at == len(ids) or ids[at] != member.id:
            insort(ids, member.id)
            self._weights = None

    def members(self) -> Iterator[Member]:
        """All that are ready, by id."""
        lists = [ids for ids in self.ready.values() if ids]
        for member_id in heapq.merge(*lists) if len(lists) > 1 else (lists[0] if lists else ()):
            yield self._members[member_id]

    def pick(self, strategy: Strategy, usable: Usable) -> Member | None:
        """The one whose turn it is among those that are *usable*; None = there is none."""
        match strategy:
            case Strategy.FILL_FIRST:
                return self._first(usable)
            case Strategy.WEIGHTED_ROUND_ROBIN:
                return self._weighted(usable)
            case Strategy.ROUND_ROBIN:
                return self._in_turn(usable)

    def _first(self, usable: Usable) -> Member | None:
        """Of the first provider that has one, the first by id."""
        for ids in self.ready.values():
            at = 0
            while at < len(ids):
                member = self._members[ids[at]]
                if usable(member):
                    return member
                at += 1 if at < len(ids) and ids[at] == member.id else 0
        return None

    def _in_turn(self, usable: Usable) -> Member | None:
        """Slots go round over all providers, one for each ready credential; within a provider, its own cursor."""
        order = self._order
        if len(order) == 1:
            return self._next_of(order[0], usable)
        sizes = [len(self.ready[provider]) for provider in order]
        total = sum(sizes)
        if not total:
            return None
        slot, start = self._cursors.slot(self._mixed_key) % total, 0
        while slot >= sizes[start]:
            slot -= sizes[start]
            start += 1
        for at in range(start, start + len(order)):
            member = self._next_of(order[at % len(order)], usable)
            if member is not None:
                return member
        return None

    def _next_of(self, provider: str, usable: Usable) -> Member | None:
        key = self._keys[provider]
        ids, last = self.ready[provider], self._cursors.last(key)
        for _ in range(len(ids)):
            if not ids:
                return None
            at = bisect_right(ids, last)
            last = ids[at if at < len(ids) else 0]
            member = self._members[last]
            if usable(member):
                if len(self._members) > 1:
                    self._cursors.picked(key, last)
                return member
        return None

    def _weighted(self, usable: Usable) -> Member | None:
        while True:
            turns = self._weights
            if turns is None:
                turns = self._weights = WeightedTurns(
                    [(member.credential.weight, member.id) for member in self.members() if member.credential.weight > 0]
                )
            picked = turns.pick(lambda member_id: usable(self._members[member_id]), partial(self._counts, turns))
            if self._weights is turns:
                return None if picked is None else self._members[picked]
            # Somebody was found not to be ready: other weights, another beginning.

    def _counts(self, turns: "WeightedTurns") -> bool:
        """*turns* are still those of the ready members."""
        return self._weights is turns


class WeightedTurns:
    """Smooth weighted round-robin over a fixed set.

    Every pick adds each one's weight to its counter, takes the largest (ties by id) and subtracts the total. Members of
    one weight gain the same with each pick, so that is kept once for all of them, and only the best of each weight is
    looked at: a pick costs the number of different weights, not of members.
    """

    def __init__(self, weights: Sequence[tuple[int, str]]) -> None:
        """*weights*: (weight > 0, id), ids ascending."""
        self._total = sum(weight for weight, _ in weights)
        self._heaps: dict[int, list[tuple[int, str]]] = {}
        self._gained: dict[int, int] = {}
        for weight, member_id in weights:
            self._heaps.setdefault(weight, []).append((0, member_id))  # equal counters in id order are a heap
            self._gained[weight] = 0

    def pick(self, usable: Callable[[str], bool], valid: Callable[[], bool]) -> str | None:
        """The next one that is *usable*; None when none is, or as soon as the set is not *valid* any more."""
        if not self._heaps:
            return None
        for weight in self._gained:
            self._gained[weight] += weight
        passed: list[tuple[int, tuple[int, str]]] = []
        picked: str | None = None
        while picked is None:
            best = min(
                (
                    (heap[0][0] - self._gained[weight], heap[0][1], weight)
                    for weight, heap in self._heaps.items()
                    if heap
                ),
                default=None,
            )
            if best is None:
                break
            _, member_id, weight = best
            item = heapq.heappop(self._heaps[weight])
            if usable(member_id):
                picked = member_id
                heapq.heappush(self._heaps[weight], (item[0] + self._total, member_id))
            else:
                passed.append((weight, item))
                if not valid():
                    break
        for weight, item in passed:
            heapq.heappush(self._heaps[weight], item)
        if picked is None:
            for weight in self._gained:
                self._gained[weight] -= weight
        return picked
