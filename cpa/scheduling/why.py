"""Why a credential is, or is not, used for a model: now, and next."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import attrs

from cpa.config.schema import Strategy
from cpa.credentials.model import Credential
from cpa.scheduling.failures import Kind
from cpa.scheduling.health import WHOLE, Health
from cpa.scheduling.pools import Pool
from cpa.scheduling.scheduler import ConfiguredScheduler, route_model
from cpa.scheduling.strategies import Member
from cpa.types import Candidate

NAMES_SHOWN: Final = 3


class State(StrEnum):
    """In one word."""

    READY = "ready"
    """it takes its turn"""
    STANDBY = "standby"
    """it can be asked, but others come before it"""
    COOLING = "cooling"
    """it is kept away until a known time"""
    NEVER = "never"
    """it is configured so that it is not chosen"""
    DISABLED = "disabled"
    NOT_SERVING = "not_serving"
    """it does not serve the model"""


_WHAT: Final = {
    Kind.QUOTA: "its quota is exhausted",
    Kind.CHALLENGE: "the provider's network asks for a proof of being human",
    Kind.UNAUTHORIZED: "the provider does not accept it",
    Kind.INVALID_GRANT: "its grant was withdrawn",
    Kind.PAYMENT: "the provider wants payment or denies access",
    Kind.NOT_FOUND: "the provider does not know the model",
    Kind.MODEL_UNSUPPORTED: "the provider does not offer the model to it",
    Kind.TRANSIENT: "the provider failed",
    Kind.REQUEST_FAULT: "an operator's rule wants it",
    Kind.LIFECYCLE: "an operator's rule wants it",
}


@attrs.frozen(kw_only=True)
class Explanation:
    """Attributes:
    model: under which health is kept.
    used: the next request may get it.
    reason: one sentence. next: what comes after, one sentence.
    window: what keeps it away, with the time; None = nothing does.
    windows: all that is open, by model; an empty name is the whole credential.
    """

    model: str
    state: State
    reason: str
    next: str
    window: Health | None = None
    windows: dict[str, Health] = attrs.field(factory=dict)

    @property
    def used(self) -> bool:
        """See above."""
        return self.state in (State.READY, State.STANDBY)


def explain(
    scheduler: ConfiguredScheduler, credential: Credential, candidates: Sequence[Candidate], model: str
) -> Explanation:
    """Why *credential* is or is not used for *model*, which *candidates* serve (empty = nobody does)."""
    health = scheduler.scheduling.health
    name = route_model(model)
    windows = health.of(credential.id)

    def told(state: State, reason: str, following: str, window: Health | None = None) -> Explanation:
        return Explanation(model=name, state=state, reason=reason, next=following, window=window, windows=windows)

    if credential.disabled:
        return told(State.DISABLED, "the operator has disabled it", "nothing until it is enabled")
    if not any(candidate.credential.id == credential.id for candidate in candidates):
        return told(
            State.NOT_SERVING,
            f"it does not serve {model}" if candidates else f"nobody serves {model}",
            "nothing until its models, aliases, exclusions or prefix change",
        )
    pool = scheduler.scheduling.pool(candidates, scheduler.executors(candidates), name)
    member = pool.member(credential.id)
    assert member is not None
    window = pool.window(member)
    if window is not None:
        return _cooling(scheduler, pool, member, window, told_windows=windows, name=name)
    settings = scheduler.settings
    weighted = settings.strategy is Strategy.WEIGHTED_ROUND_ROBIN
    if weighted and credential.weight == 0:
        return told(State.NEVER, "its weight is 0", "nothing until its weight changes; pins and sessions may use it")
    best = pool.best(lambda other: weighted and other.credential.weight == 0)
    if best and best[0].credential.priority > credential.priority:
        first = best[0].credential.priority
        return told(
            State.STANDBY,
            f"its priority is {credential.priority}, and {_names(best)} of priority {first} can be asked",
            f"it is used as soon as all of priority {first} have been tried or are cooling",
        )
    if settings.strategy is Strategy.FILL_FIRST and best and best[0].id != credential.id and len(pool.providers) == 1:
        return told(
            State.STANDBY,
            f"fill-first uses {best[0].id} as long as it can be asked",
            "it is used when those before it have been tried or are cooling",
        )
    turn = f"by weight {credential.weight}" if weighted else "in turn"
    return told(State.READY, f"it can be asked, {turn} with {len(best) - 1} others", "it is used when its turn comes")


def _cooling(
    scheduler: ConfiguredScheduler,
    pool: Pool,
    member: Member,
    window: Health,
    *,
    told_windows: dict[str, Health],
    name: str,
) -> Explanation:
    left_s = window.until_unix - scheduler.scheduling.health.now()
    what = _WHAT[window.kind]
    status = f" (status {window.status})" if window.status else ""
    whole = WHOLE in told_windows and told_windows[WHOLE].until_unix == window.until_unix
    scope = "all models" if whole else f"model {name}"
    following = f"in {left_s:.0f} s it takes its turn again; a success forgets the failure, another one waits longer"
    if window.kind is Kind.TRANSIENT and not window.forced:
        following = f"in {left_s:.0f} s it takes its turn again; before that it is probed when nobody else is ready"
        if scheduler.scheduling.probes.taken(member, pool.model):
            following = "one request is probing it at this moment; its success ends the cooldown"
    rule = ", as an operator's rule wants it" if window.forced else ""
    return Explanation(
        model=name,
        state=State.COOLING,
        reason=f"cooling for {scope}: {what}{status}{rule}",
        next=following,
        window=window,
        windows=told_windows,
    )


def _names(members: Sequence[Member]) -> str:
    shown = ", ".join(member.id for member in members[:NAMES_SHOWN])
    return shown if len(members) <= NAMES_SHOWN else f"{shown} and {len(members) - NAMES_SHOWN} more"
