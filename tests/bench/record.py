"""What a run has measured so far, and how it says where it is."""

import sys
from time import monotonic

Samples = dict[str, dict[str, list[float]]]
"""Figure key → system → one value per round."""


class Record:
    """The values of one run. *rounds* is what progress is told of."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.samples: Samples = {}
        self._started = monotonic()

    def keep(self, key: str, system: str, value: float) -> None:
        """Remember one value."""
        self.samples.setdefault(key, {}).setdefault(system, []).append(value)

    def say(self, what: str, number: int | None = None) -> None:
        """One line of progress; *number* is that of the round, from 0."""
        of = "" if number is None else f"round {number + 1} of {self.rounds}: "
        print(f"[{monotonic() - self._started:5.0f} s] {of}{what}", file=sys.stderr, flush=True)
