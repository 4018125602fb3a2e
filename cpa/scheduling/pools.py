"""Which credentials of one model are ready: an index that changes when they change, not when somebody asks.

A pool is made of one resolution of a model, with the first request for it. Blocked members are outside their tiers, in
a heap by the time at which they come back; the book of health tells of every change, so that a member leaves and comes
back at once. What a pick costs does not depend on how many there are.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence, Set

from cpa.config.schema import Strategy
from cpa.scheduling.failures import Kind
from cpa.scheduling.health import Health, HealthBook
from cpa.scheduling.strategies import Cursors, Member, Tier
from cpa.types import Candidate, Executor

Skip = Callable[[Member], bool]
"""Whether a member must not be picked by this request, or not now."""


def is_mild(record: Health) -> bool:
    """What happened may have passed: its credential may be probed while the window is open."""
    return record.kind is Kind.TRANSIENT and not record.forced


class Pool:
    """The members that serve one model, best tier first.

    Attributes:
      source: the resolution that it was made of.
      model: route name without suffix, under which health is kept.
      providers: sorted.
      most_retries: the largest `request_retry` of a member's own; -1 = none has one.
    """

    def __init__(
        self,
        source: Sequence[Candidate],
        executors: Set[Executor],
        model: str,
        *,
        health: HealthBook,
        cursors: Cursors,
    ) -> None:
        """*executors*: only candidates of these take part."""
        self.source = source
        self.model = model
        self._health = health
        self._members: dict[str, Member] = {}
        self._known = health.ids
        self._tier_of: dict[int, Tier] = {}
        self._blocked: dict[str, float] = {}
        self._waking: list[tuple[float, str]] = []
        groups: dict[str, list[Candidate]] = {}
        for candidate in source:
            if candidate.executor in executors:
                credential_id = candidate.credential.id
                if credential_id in groups:
                    groups[credential_id].append(candidate)
                else:
                    groups[credential_id] = [candidate]
        by_priority: dict[int, list[Member]] = {}
        for credential_id, group in groups.items():
            # Models of a pool fail one by one, others under the name that clients use (proxy 2.4).
            keys = (model,) if len(group) == 1 else tuple(candidate.model for candidate in group)
            member = Member(group[0].credential, tuple(group), keys)
            self._members[credential_id] = member
            by_priority.setdefault(member.credential.priority, []).append(member)
        for priority in sorted(by_priority, reverse=True):
            self._tier_of[priority] = Tier(priority, by_priority[priority], model, cursors)
        self.providers = tuple(sorted({member.credential.provider for member in self._members.values()}))
        own = (member.credential.request_retry for member in self._members.values())
        self.most_retries = max((retries for retries in own if retries is not None), default=-1)
        for member in self._members.values():
            if member.id in self._known:
                self._usable(member)
        # The usual installation: nobody to take turns with. A weight of 0 is never chosen by weight.
        only = next(iter(self._members.values()), None) if len(self._members) == 1 else None
        self._only = only if only is not None and only.credential.weight > 0 else None

    def __len__(self) -> int:
        return len(self._members)

    def member(self, credential_id: str) -> Member | None:
        """The one of that credential."""
        return self._members.get(credential_id)

    def members(self) -> Iterator[Member]:
        """All, blocked or not."""
        return iter(self._members.values())

    def changed(self, credential_id: str) -> None:
        """The health of a credential has changed: it leaves or comes back."""
        member = self._members.get(credential_id)
        if member is None:
            return
        if self._usable(member) and credential_id in self._blocked:
            del self._blocked[credential_id]
            self._tier_of[member.credential.priority].join(member)

    def block(self, member: Member, key: str) -> Health | None:
        """The open window of *member* for what is kept under *key*."""
        return self._health.blocked(member.id, key)

    def window(self, member: Member) -> Health | None:
        """Why *member* is not ready, and until when: of several models, the one that comes back first."""
        first: Health | None = None
        for key in member.keys:
            found = self._health.blocked(member.id, key)
            if found is None:
                return None
            if first is None or found.until_unix < first.until_unix:
                first = found
        return first

    def ready(self, member: Member) -> bool:
        """Nothing keeps it away at this moment."""
        return self.window(member) is None

    def pick(self, strategy: Strategy, skip: Skip) -> Member | None:
        """The next one by *strategy*, of the best tier that has one; None when all are blocked or skipped."""
        if self._waking:
            self.wake()
        only = self._only
        if only is not None:  # whatever the strategy
            return only if not skip(only) and self._usable(only) else None
        for tier in self._tier_of.values():
            member = tier.pick(strategy, lambda member: not skip(member) and self._usable(member))
            if member is not None:
                return member
        return None

    def best(self, skip: Skip) -> list[Member]:
        """All that could be picked, of the best tier that has one, by id."""
        self.wake()
        for tier in self._tier_of.values():
            found = [member for member in tier.members() if not skip(member) and self.ready(member)]
            if found:
                return found
        return []

    def best_priority(self, skip: Skip) -> int | None:
        """The priority of the tier that `pick` would choose from."""
        self.wake()
        for priority, tier in self._tier_of.items():
            if any(not skip(member) and self.ready(member) for member in tier.members()):
                return priority
        return None

    def probe(self, skip: Skip, taken: Callable[[Member], bool]) -> Member | None:
        """A member that only a failure that may pass keeps away, best tier and smallest id first."""
        found = [
            member
            for credential_id in self._blocked
            if not skip(member := self._members[credential_id])
            and not taken(member)
            and (record := self.window(member)) is not None
            and is_mild(record)
        ]
        return min(found, key=lambda member: (-member.credential.priority, member.id), default=None)

    def windows(self) -> Iterator[tuple[Member, Health]]:
        """Whoever is blocked, with the reason."""
        self.wake()
        for credential_id in tuple(self._blocked):
            member = self._members[credential_id]
            record = self.window(member)
            if record is not None:
                yield member, record

    def any_ready(self, skip: Skip) -> Member | None:
        """Somebody who is ready; nobody's turn changes."""
        self.wake()
        for tier in self._tier_of.values():
            for member in tier.members():
                if not skip(member) and self.ready(member):
                    return member
        return None

    def wake(self) -> None:
        """Let those join again whose windows are over."""
        waking = self._waking
        if not waking:
            return
        now = self._health.now()
        while waking and waking[0][0] <= now:
            until, credential_id = heapq.heappop(waking)
            if self._blocked.get(credential_id) == until:
                del self._blocked[credential_id]
                member = self._members[credential_id]
                self._tier_of[member.credential.priority].join(member)
                self._usable(member)

    def _usable(self, member: Member) -> bool:
        """Whether *member* is ready; if not, it leaves its tier until its window ends."""
        if member.id not in self._known:
            return True
        record = self.window(member)
        if record is None:
            return True
        if self._blocked.get(member.id) != record.until_unix:
            self._blocked[member.id] = record.until_unix
            heapq.heappush(self._waking, (record.until_unix, member.id))
            if len(self._waking) > 64 + 4 * len(self._members):  # ends that have moved meanwhile
                self._waking = [(until, member_id) for member_id, until in self._blocked.items()]
                heapq.heapify(self._waking)
        self._tier_of[member.credential.priority].leave(member)
        return False
