"""The built-in scheduler: each ready credential in turn."""

from collections import OrderedDict
from collections.abc import Sequence

from cpa.credentials.model import Credential

MAX_CURSORS = 4096
"""One cursor per (providers, model); clients choose model names, so the table is bounded and forgets the eldest."""


class RoundRobin:
    """Advances one cursor per set of providers and model over candidates in the order of their ids.

    Strategies, cooldowns and affinity arrive with the credentials part; until then every strategy means this one.
    """

    def __init__(self) -> None:
        self._cursors: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def pick(self, candidates: Sequence[Credential], *, model: str, strategy: str = "") -> Credential:
        """See `cpa.types.Scheduler`."""
        if len(candidates) == 1:
            return candidates[0]
        ordered = sorted(candidates, key=lambda credential: credential.id)
        key = (model, *sorted({credential.provider for credential in ordered}))
        cursor = self._cursors.pop(key, 0)
        self._cursors[key] = cursor + 1
        if len(self._cursors) > MAX_CURSORS:
            self._cursors.popitem(last=False)
        return ordered[cursor % len(ordered)]
