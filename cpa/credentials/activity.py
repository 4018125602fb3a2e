"""How often credentials served, and how often they failed: totals and the last hours in steps (proxy 3.1). In memory.

The numbers belong to the credential's id: an edit keeps them, a credential that is removed and comes again starts with
none. What is noted of a credential that is gone already (a stream that ran on) is dropped.
"""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import attrs

BUCKET_S: Final = 600
BUCKETS: Final = 20
"""Both contract: 20 × 10 minutes."""


@attrs.frozen(kw_only=True)
class Bucket:
    """Ten minutes. *label*: ``HH:MM-HH:MM``, local time."""

    label: str
    success: int = 0
    failed: int = 0


@attrs.frozen(kw_only=True)
class Counts:
    """Attributes:
    recent: `BUCKETS` of them, the oldest first, the running one last.
    """

    success: int
    failed: int
    recent: tuple[Bucket, ...]


@attrs.define(eq=False, slots=True)
class _Account:
    success: int = 0
    failed: int = 0
    ring: dict[int, list[int]] = attrs.field(factory=dict)  # number of the bucket to [success, failed]


class Activity:
    """See the module. *clock*: Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account | None] = {}  # None = nothing happened yet, which goes for most
        self._nothing: tuple[int, Counts] | None = None  # what these have; with the number of the newest bucket

    def present(self, credential_ids: Iterable[str]) -> None:
        """These are all credentials that there are; the others' numbers are forgotten."""
        known = self._accounts
        self._accounts = {credential_id: known.get(credential_id) for credential_id in credential_ids}

    def note(self, credential_id: str, *, ok: bool) -> None:
        """An attempt with that credential has ended. Cheap: on the path of every request."""
        if credential_id not in self._accounts:
            return
        account = self._accounts[credential_id]
        if account is None:
            account = self._accounts[credential_id] = _Account()
        number = int(self._clock()) // BUCKET_S
        bucket = account.ring.get(number)
        if bucket is None:
            for old in [other for other in account.ring if not number - BUCKETS < other <= number]:
                del account.ring[old]
            bucket = account.ring[number] = [0, 0]
        if ok:
            account.success += 1
            bucket[0] += 1
        else:
            account.failed += 1
            bucket[1] += 1

    def of(self, credential_id: str) -> Counts:
        """The numbers of that credential; nothing but zeros for one that did nothing, or is none."""
        newest = int(self._clock()) // BUCKET_S
        if self._nothing is None or self._nothing[0] != newest:
            empty = tuple(Bucket(label=label_of(number)) for number in range(newest - BUCKETS + 1, newest + 1))
            self._nothing = (newest, Counts(success=0, failed=0, recent=empty))
        nothing = self._nothing[1]
        account = self._accounts.get(credential_id)
        if account is None:
            return nothing
        recent = list(nothing.recent)
        for number, (success, failed) in account.ring.items():
            place = number - newest + BUCKETS - 1
            if 0 <= place < BUCKETS:
                recent[place] = attrs.evolve(recent[place], success=success, failed=failed)
        return Counts(success=account.success, failed=account.failed, recent=tuple(recent))


def label_of(number: int) -> str:
    """The local time of a bucket, ``10:00-10:10``."""
    begin, end = (datetime.fromtimestamp(number * BUCKET_S + add) for add in (0, BUCKET_S))
    return f"{begin:%H:%M}-{end:%H:%M}"
