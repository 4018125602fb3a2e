"""The scheduler: what lives as long as the process, and its view by one configuration."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from cpa.formats.thinking import split_suffix
from cpa.scheduling.affinity import Bindings, session_ids
from cpa.scheduling.health import HealthBook
from cpa.scheduling.pools import Pool
from cpa.scheduling.rounds import Probes, Rounds
from cpa.scheduling.settings import SchedulingSettings
from cpa.scheduling.store import Clock, MemoryStore, StateStore
from cpa.scheduling.strategies import Cursors
from cpa.types import Candidate, Executor, SelectionAsk

MAX_POOLS: Final = 1024
"""Models with an index. The eldest goes for a new one, and is made anew in milliseconds if somebody asks for it."""

_PoolKey = tuple[object, ...]


class Scheduling:
    """The state of scheduling, for the life of the process; `configured` gives what executions use.

    Attributes:
      health: how credentials are.
      bindings: which session stays where.
    """

    def __init__(
        self,
        *,
        store: StateStore | None = None,
        clock: Clock = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """*clock*: Unix seconds. *jitter*: 0..1. *store*: None = in memory."""
        self.store: StateStore = MemoryStore(clock) if store is None else store
        self.clock = clock
        self.health = HealthBook(self.store, clock)
        self.bindings = Bindings(self.store, clock)
        self.probes = Probes()
        self.cursors = Cursors()
        self.jitter = jitter
        self._pools: dict[_PoolKey, Pool] = {}
        self._executors: dict[int, tuple[Sequence[Candidate], tuple[Executor, ...]]] = {}
        self._present: frozenset[str] = frozenset()
        self.health.subscribe(self._changed)

    def configured(self, settings: SchedulingSettings) -> "ConfiguredScheduler":
        """The scheduler of one configuration. Indexes of earlier ones are let go, states stay."""
        self._pools.clear()
        self._executors.clear()
        return ConfiguredScheduler(scheduling=self, settings=settings)

    def present(self, credential_ids: Iterable[str]) -> None:
        """These credentials are there and enabled. Those that were and are not any more start clean if they come back;
        whoever stays keeps its windows over every reload (proxy 3.5 [B], 4.5)."""
        now_there = frozenset(credential_ids)
        for credential_id in self._present - now_there:
            self.health.reset(credential_id)
        self._present = now_there

    def pool(self, candidates: Sequence[Candidate], executors: Sequence[Executor], model: str) -> Pool:
        """The index of those *candidates* that *executors* serve, as *model*."""
        # Executors come in the order of `executors`, so that the same ones are the same key.
        key = (id(candidates), model, *map(id, executors))
        pool = self._pools.get(key)
        if pool is None or pool.source is not candidates:
            pool = Pool(candidates, frozenset(executors), model, health=self.health, cursors=self.cursors)
            self._pools[key] = pool
            if len(self._pools) > MAX_POOLS:
                del self._pools[next(iter(self._pools))]
        return pool

    def executors(self, candidates: Sequence[Candidate]) -> tuple[Executor, ...]:
        """The distinct executors of *candidates*, in order."""
        known = self._executors.get(id(candidates))
        if known is None or known[0] is not candidates:
            found = {id(candidate.executor): candidate.executor for candidate in candidates}
            known = (candidates, tuple(found.values()))
            self._executors[id(candidates)] = known
            if len(self._executors) > MAX_POOLS:
                del self._executors[next(iter(self._executors))]
        return known[1]

    def _changed(self, credential_id: str) -> None:
        for pool in self._pools.values():
            pool.changed(credential_id)


@attrs.frozen(kw_only=True, eq=False)
class ConfiguredScheduler:
    """See `cpa.types.Scheduler`."""

    scheduling: Scheduling
    settings: SchedulingSettings

    def executors(self, candidates: Sequence[Candidate]) -> Sequence[Executor]:
        """See `cpa.types.Scheduler`."""
        return self.scheduling.executors(candidates)

    def select(self, candidates: Sequence[Candidate], ask: SelectionAsk, *, executors: Sequence[Executor]) -> Rounds:
        """See `cpa.types.Scheduler`."""
        scheduling, model = self.scheduling, ask.model
        return Rounds(
            scheduling.pool(candidates, executors, route_model(model) if model.endswith(")") else model),
            ask,
            self.settings,
            health=scheduling.health,
            bindings=scheduling.bindings,
            probes=scheduling.probes,
            jitter=scheduling.jitter,
            ids=session_ids(ask) if self.settings.affinity else None,
        )


def route_model(model: str) -> str:
    """The name under which health is kept: without a thinking suffix (proxy 4.1)."""
    split = split_suffix(model)
    return model if split is None else split[0]
