"""The built-in scheduler: each ready credential in turn."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from cpa.credentials.model import Credential

MAX_CURSORS = 4096
"""One cursor per (providers, model); clients choose model names, so the table is bounded and forgets the eldest."""


FILL_FIRST = "fill-first"


class RoundRobin:
    """Advances one cursor per set of providers and model over candidates in the order of their ids.

    A cursor is the id picked last, not a number: candidates come and go, and the turn goes on where it was.

    A plugin may ask for ``fill-first`` in its place: the first by id, again and again. Cooldowns and affinity arrive
    with the credentials part.
    """

    def __init__(self) -> None:
        self._cursors: OrderedDict[tuple[str, ...], str] = OrderedDict()

    def pick(self, candidates: Sequence[Credential], *, model: str, strategy: str = "") -> Credential:
        """See `cpa.types.Scheduler`."""
        if len(candidates) == 1:
            return candidates[0]
        ordered = sorted(candidates, key=lambda credential: credential.id)
        if strategy == FILL_FIRST:
            return ordered[0]
        key = (model, *sorted({credential.provider for credential in ordered}))
        after = bisect_right(ordered, self._cursors.pop(key, ""), key=lambda credential: credential.id)
        picked = ordered[after % len(ordered)]
        self._cursors[key] = picked.id
        if len(self._cursors) > MAX_CURSORS:
            self._cursors.popitem(last=False)
        return picked
