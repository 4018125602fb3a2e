"""What a run has measured so far, and how it says where it is."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from time import monotonic

from tests.bench.client import LoadError
from tests.bench.processes import StartError

Samples = dict[str, dict[str, list[float]]]
"""Figure key → system → one value per round."""


class PartsFailed(Exception):
    """Some parts of a run failed. *samples* are those of the others."""

    def __init__(self, samples: Samples, failures: Sequence[str]) -> None:
        super().__init__("; ".join(failures))
        self.samples = samples


class Record:
    """The values of one run of so many rounds. After *limit_s* no further round begins: a slow machine has fewer."""

    def __init__(self, rounds: int, *, limit_s: float = inf) -> None:
        self.rounds = rounds
        self.samples: Samples = {}
        self.failures: list[str] = []
        self._limit_s = limit_s
        self._started = monotonic()

    def numbers(self, most: int | None = None) -> Iterator[int]:
        """Of the rounds, from 0, at most so many; one at least."""
        rounds = self.rounds if most is None else min(self.rounds, most)
        for number in range(rounds):
            if number and monotonic() - self._started > self._limit_s:
                self.say(f"time is up: {number} of {rounds} rounds")
                return
            yield number

    @contextmanager
    def surviving(self, what: str) -> Iterator[None]:
        """The block may fail: that is told, and remembered in `failures`. What was measured before stays."""
        try:
            yield
        except (LoadError, StartError) as exc:
            self.failures.append(f"{what}: {exc}")
            self.say(f"FAILED: {self.failures[-1]}")

    def done(self) -> Samples:
        """What was measured. Raises: PartsFailed."""
        if self.failures:
            raise PartsFailed(self.samples, self.failures)
        return self.samples

    def keep(self, key: str, system: str, value: float) -> None:
        """Remember one value."""
        self.samples.setdefault(key, {}).setdefault(system, []).append(value)

    def say(self, what: str, number: int | None = None) -> None:
        """One line of progress; *number* is that of the round, from 0."""
        of = "" if number is None else f"round {number + 1}: "
        print(f"[{monotonic() - self._started:5.0f} s] {of}{what}", file=sys.stderr, flush=True)
