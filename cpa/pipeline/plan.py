"""Registrations, ordered once and frozen."""

from collections.abc import Container, Iterable, Mapping
from functools import cached_property

import attrs

from cpa.pipeline.chains import Compiled
from cpa.pipeline.stage import SKIPPED_FOR_CALLERS, Registration, StageKind
from cpa.types import PluginId


@attrs.frozen(kw_only=True)
class Plan:
    """The stages of every kind in the order in which they run, and the chains that lead through some of them.

    A reload builds a new plan and swaps one reference; running exchanges keep the one they started with.
    """

    stages: Mapping[StageKind, tuple[Registration, ...]]
    chains: tuple[Compiled, ...] = ()

    @classmethod
    def build(cls, registrations: Iterable[Registration] = (), chains: Iterable[Compiled] = ()) -> "Plan":
        """Order *registrations*: priority descending, then plugin id bytewise ascending. Chains keep their order."""
        ordered = sorted(registrations, key=lambda entry: (-entry.priority, entry.plugin_id.encode()))
        return cls(
            stages={kind: tuple(entry for entry in ordered if entry.kind is kind) for kind in StageKind},
            chains=tuple(chains),
        )

    @cached_property
    def empty(self) -> bool:
        """Nobody takes part."""
        return not any(self.stages.values())

    def without(self, kinds: Container[StageKind]) -> "Plan":
        """The same but for the stages of *kinds*."""
        stages = {kind: () if kind in kinds else entries for kind, entries in self.stages.items()}
        return attrs.evolve(self, stages=stages)

    def thinking(self, provider: str) -> Registration | None:
        """The one that writes thinking settings for *provider*."""
        return next((entry for entry in self.stages[StageKind.THINKING_APPLY] if entry.provider == provider), None)

    def of(self, kind: StageKind, callers: tuple[PluginId, ...] = ()) -> tuple[Registration, ...]:
        """Stages of *kind*; those of SKIPPED_FOR_CALLERS do not meet the executions that their own plugin started."""
        entries = self.stages[kind]
        if callers and kind in SKIPPED_FOR_CALLERS:
            return tuple(entry for entry in entries if entry.plugin_id not in callers)
        return entries
