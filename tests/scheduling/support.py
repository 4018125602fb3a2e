"""What the tests of scheduling share: a clock that stands still, credentials, candidates, failures."""

from collections.abc import Sequence
from typing import Any

import attrs

from cpa.credentials.model import Credential
from cpa.errors import UpstreamStatusError
from cpa.formats.names import Format
from cpa.scheduling.rounds import Rounds
from cpa.scheduling.scheduler import ConfiguredScheduler, Scheduling
from cpa.scheduling.settings import SchedulingSettings
from cpa.testing.fakes import FakeAnswer, FakeExecutor
from cpa.types import Candidate, SelectionAsk

EXECUTOR = FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([b"{}"]))


@attrs.define(eq=False)
class Clock:
    """Unix seconds that pass when a test says so."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.now += seconds


def credential(name: str, *, provider: str = "p", **fields: Any) -> Credential:
    """One that is called *name*."""
    return Credential(
        id=name, provider=provider, label=name, index=f"index-{name}", api_key=f"secret-key-of-{name}", **fields
    )


def candidates(*credentials: Credential | str, model: str = "up") -> tuple[Candidate, ...]:
    """How *credentials* serve a model."""
    made = [credential(one) if isinstance(one, str) else one for one in credentials]
    return tuple(Candidate(credential=one, model=model, executor=EXECUTOR) for one in made)


def failure(status: int, body: bytes = b"{}", **headers: str) -> UpstreamStatusError:
    """A provider's error answer; names of *headers* with underscores."""
    raw = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return UpstreamStatusError(status=status, headers=raw, body=body, provider_format="openai")


@attrs.define(eq=False)
class World:
    """A scheduler under one configuration, with its clock.

    Attributes:
      pool: what every selection is made among.
    """

    pool: Sequence[Candidate]
    settings: SchedulingSettings = attrs.field(factory=SchedulingSettings)
    clock: Clock = attrs.field(factory=Clock)
    scheduling: Scheduling = attrs.field(init=False)
    scheduler: ConfiguredScheduler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.scheduling = Scheduling(clock=self.clock, jitter=lambda: 0.0)
        self.configure()

    def configure(self, pool: Sequence[Candidate] | None = None, **changes: Any) -> None:
        """A reload."""
        self.pool = self.pool if pool is None else pool
        self.settings = attrs.evolve(self.settings, **changes)
        self.scheduler = self.scheduling.configured(self.settings)

    def select(self, model: str = "m", **ask: Any) -> Rounds:
        """A new request."""
        asked = SelectionAsk(model=model, format=Format.OPENAI, **ask)
        return self.scheduler.select(self.pool, asked, executors=[EXECUTOR])

    def serve(self, model: str = "m", **ask: Any) -> str:
        """A request that succeeds at once. Returns: who served it; empty = nobody could be asked."""
        selection = self.select(model, **ask)
        picked = selection.pick()
        if picked is None:
            selection.close()
            return ""
        selection.succeeded()
        selection.close()
        return picked.credential.id

    def fail(self, error: UpstreamStatusError, model: str = "m", **ask: Any) -> str:
        """A request whose first attempt fails. Returns: whose it was."""
        selection = self.select(model, **ask)
        picked = selection.pick()
        assert picked is not None
        selection.failed(error)
        selection.close()
        return picked.credential.id

    def served(self, count: int, model: str = "m", **ask: Any) -> list[str]:
        """So many requests in a row."""
        return [self.serve(model, **ask) for _ in range(count)]


def tried(selection: Rounds, error: UpstreamStatusError) -> list[str]:
    """Who is asked until nobody is left in this round, when everybody fails with *error*."""
    found = []
    while (picked := selection.pick()) is not None:
        found.append(picked.credential.id)
        if not selection.failed(error):
            break
    return found
