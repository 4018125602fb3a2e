"""Which credentials one execution tries, in which order, and when it gives up (proxy 4.1, 4.6, 4.8, 4.10).

::

    pick ── a candidate ── succeeded                                  the end
      │                 └─ failed ── may rotate ── pick ── …
      │                           └─ request fault, "stop"            the end: refusal()
      └─ None: the round is over ── pause() ── seconds ── pick ── …   another round, each credential once more
                                            └─ None                   the end: refusal()

Synchronous and without a loop of its own: who drives it does the waiting.
"""

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from cpa.config.schema import Strategy
from cpa.errors import CpaError, NoCredential, UpstreamError
from cpa.jsontypes import JsonObject, JsonValue
from cpa.scheduling.affinity import DERIVED, MIXED, Bindings, SessionIds
from cpa.scheduling.failures import Kind, Verdict, classify
from cpa.scheduling.health import Health, HealthBook
from cpa.scheduling.pools import Pool, is_mild
from cpa.scheduling.settings import SchedulingSettings
from cpa.scheduling.strategies import Member
from cpa.types import Candidate, SelectionAsk

ROUND_STATUSES: Final = frozenset({403, 408, 429, 500, 502, 503, 504})
"""After a failure with one of these another round may help."""
RESTART_STATUSES: Final = frozenset({0, 401, 402, 403, 408, 429})
"""After one of these, or 5xx, a stream's selection may start anew."""
MAX_JITTER_S: Final = 2.0
JITTER_PART: Final = 0.25
MIN_RETRY_AFTER_S: Final = 1.0
STRATEGIES: Final = {strategy.value: strategy for strategy in Strategy}


@attrs.frozen(kw_only=True)
class Session:
    """The session of an execution, as bindings know it."""

    scope: str
    id: str
    model: str


class Probes:
    """Who is being asked although its window is open: one request at a time for each credential and model."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()

    def taken(self, member: Member, model: str) -> bool:
        """Somebody is asking."""
        return (member.id, model) in self._taken

    def take(self, member: Member, model: str) -> tuple[str, str]:
        """Ask. Returns: what to give back."""
        self._taken.add((member.id, model))
        return member.id, model

    def give_back(self, probe: tuple[str, str]) -> None:
        """The answer is there, or nobody wants it any more."""
        self._taken.discard(probe)

    def __len__(self) -> int:
        """Probes on their way."""
        return len(self._taken)


class Rounds:
    """One execution's selection; see `cpa.types.Selection`."""

    def __init__(
        self,
        pool: Pool,
        ask: SelectionAsk,
        settings: SchedulingSettings,
        *,
        health: HealthBook,
        bindings: Bindings,
        probes: Probes,
        jitter: Callable[[], float],
        ids: SessionIds | None,
    ) -> None:
        """*jitter*: 0..1. *ids*: of the session that shall stay where it is; None = it need not."""
        self._pool = pool
        self._ask = ask
        self._settings = settings
        self._health = health
        self._bindings = bindings
        self._probes = probes
        self._jitter = jitter
        self._session: Session | None = None
        self._derived = ""
        if ids is not None:
            scope = pool.providers[0] if len(pool.providers) == 1 else MIXED
            self._session = Session(scope=scope, id=bindings.session(ids), model=pool.model)
            self._derived = ids.id if ids.id.startswith(DERIVED) else ""
        self._round = 0
        self._restarts = settings.bootstrap_retries if ask.stream else 0
        self._tried: set[str] = set()
        self._queue: list[tuple[Candidate, str]] = []
        self._current: tuple[Member, str] | None = None
        self._probe: tuple[str, str] | None = None
        self._last: tuple[UpstreamError, Verdict] | None = None

    # --- choosing ----------------------------------------------------------------------------------------------------

    @property
    def metadata(self) -> JsonObject:
        """See `Selection`."""
        if self._session is None:
            return {}
        told: JsonObject = {
            "session_affinity_provider": self._session.scope,
            "session_affinity_model": self._session.model,
        }
        return told | {"derived_session_id": self._derived} if self._derived else told

    @property
    def settled(self) -> bool:
        """See `Selection`."""
        return bool(self._queue)

    def choices(self) -> Sequence[Candidate]:
        """See `Selection`."""
        preferred = None if self._full() else self._preferred()
        if preferred is not None:
            return [preferred.candidates[0]]
        return [] if self._full() else [member.candidates[0] for member in self._pool.best(self._skip)]

    def pick(self, *, credential_id: str = "", strategy: str = "") -> Candidate | None:
        """See `Selection`."""
        while self._queue:
            candidate, key = self._queue.pop(0)
            assert self._current is not None
            member = self._current[0]
            if self._pool.block(member, key) is None:
                self._current = (member, key)
                return candidate
        if self._probe is not None:
            self._give_back()
        self._current = None
        if self._settings.max_retry_credentials and self._full():
            return None
        named = self._pool.member(credential_id) if credential_id else None
        if named is not None and not self._skip(named) and self._pool.ready(named):
            return self._take(named)
        bound: Member | None = None
        if not strategy:
            if self._ask.preferred:
                bound = self._preferred()
            if bound is None and self._session is not None:
                bound = self._bound()
        picked = bound or self._pool.pick(STRATEGIES.get(strategy, self._settings.strategy), self._skip)
        return self._take(picked) if picked is not None else self._ask_the_blocked()

    def _full(self) -> bool:
        """As many credentials as one round may use have been used."""
        most = self._settings.max_retry_credentials
        return bool(most) and len(self._tried) >= most

    def _skip(self, member: Member) -> bool:
        """Not for this request, or not in this round."""
        if member.id in self._tried or (self._ask.pin and member.id != self._ask.pin):
            return True
        return self._round > 0 and self._settings.retries_of(member.credential) < self._round

    def _preferred(self) -> Member | None:
        """The member that whoever keeps a session with a provider wants, if it can be used now."""
        for credential_id in self._ask.preferred.values():
            member = self._pool.member(credential_id)
            if member is not None and not self._skip(member) and self._pool.ready(member):
                return member
        return None

    def _bound(self) -> Member | None:
        """The member to which the session is bound, if it can be used now."""
        if self._session is None:
            return None
        session = self._session
        member = self._pool.member(self._bindings.bound(session.scope, session.id, session.model))
        if member is None or self._skip(member) or not self._pool.ready(member):
            return None
        if self._settings.affinity_failback:
            best = self._pool.best_priority(self._skip)
            if best is not None and best > member.credential.priority:
                return None
        return member

    def _take(self, member: Member) -> Candidate:
        self._tried.add(member.id)
        if len(member.keys) == 1:
            self._current = (member, member.keys[0])
            return member.candidates[0]
        ready = [
            (candidate, key)
            for candidate, key in zip(member.candidates, member.keys, strict=True)
            if self._pool.block(member, key) is None
        ]
        (candidate, key), *self._queue = ready
        self._current = (member, key)
        return candidate

    def _ask_the_blocked(self) -> Candidate | None:
        """Nobody is ready. Whoever is kept away by a failure that may have passed is asked all the same, by one request
        at a time: one error must not be an outage of a minute ([B])."""
        if self._round > 0:
            return None
        member = self._pool.probe(self._skip, lambda member: self._probes.taken(member, self._pool.model))
        if member is None:
            return None
        self._tried.add(member.id)
        self._probe = self._probes.take(member, self._pool.model)
        choices = list(zip(member.candidates, member.keys, strict=True))
        windows = {key: self._pool.block(member, key) for key in member.keys}
        mild = [pair for pair in choices if (window := windows[pair[1]]) is None or is_mild(window)]
        (candidate, key), *_ = mild or choices
        self._current = (member, key)
        return candidate

    # --- learning ----------------------------------------------------------------------------------------------------

    def refreshable(self, error: UpstreamError) -> bool:
        """See `Selection`."""
        verdict = self._verdict(error)
        return verdict.kind is Kind.UNAUTHORIZED and not verdict.ruled

    def failed(self, error: UpstreamError, *, committed: bool = False) -> bool:
        """See `Selection`."""
        if self._current is None:
            return False
        member, key = self._current
        verdict = self._verdict(error)
        window = self._health.failed(member.credential, key, verdict, self._settings)
        if window is not None and self._session is not None:
            session = self._session
            self._bindings.unbind(session.scope, session.id, session.model, member.id)
        self._give_back()
        self._last = (error, verdict)
        if committed or not verdict.rotate:
            self._queue.clear()
            return False
        return True

    def succeeded(self) -> None:
        """See `Selection`."""
        if self._current is None:
            return
        member, key = self._current
        if member.id in self._health.ids:
            self._health.succeeded(member.id, key)
        if self._session is not None:
            session, ttl_s = self._session, self._settings.affinity_ttl_s
            self._bindings.bind(session.scope, session.id, session.model, member.id, ttl_s=ttl_s)
        if self._probe is not None:
            self._give_back()

    def close(self) -> None:
        """See `Selection`."""
        if self._probe is not None:
            self._give_back()
        if self._queue:
            self._queue.clear()

    def _give_back(self) -> None:
        if self._probe is not None:
            self._probes.give_back(self._probe)
            self._probe = None

    def _verdict(self, error: UpstreamError) -> Verdict:
        if self._last is not None and self._last[0] is error:
            return self._last[1]
        rules = () if self._current is None else self._settings.rules_of(self._current[0].credential)
        return classify(error, rules, operation=self._ask.operation, now_unix=self._health.now())

    # --- rounds ------------------------------------------------------------------------------------------------------

    def pause(self) -> float | None:
        """See `Selection`."""
        wait_s = self._next_round()
        if wait_s is None and self._may_restart():
            self._restarts -= 1
            self._round, wait_s = 0, 0.0
            self._tried.clear()
        return wait_s

    def _next_round(self) -> float | None:
        if self._last is not None:
            verdict = self._last[1]
            if not verdict.rotate or verdict.status not in ROUND_STATUSES:
                return None
        if max(self._settings.request_retry, self._pool.most_retries) <= self._round:
            return None  # nobody has another round: no need to look at each one
        wait_s = self._wait_s()
        longest_s = self._settings.max_retry_interval_s
        if wait_s is None or (wait_s > 0 and wait_s > longest_s):
            return None
        self._round += 1
        self._tried.clear()
        return min(wait_s + self._jitter() * min(wait_s * JITTER_PART, MAX_JITTER_S), longest_s) if wait_s else 0.0

    def _wait_s(self) -> float | None:
        """Seconds until somebody of the next round is ready; None when the next round has nobody."""
        following = self._round + 1

        def left_out(member: Member) -> bool:
            pinned = bool(self._ask.pin) and member.id != self._ask.pin
            return pinned or self._settings.retries_of(member.credential) < following

        now = self._health.now()
        ends = [record.until_unix for member, record in self._pool.windows() if not left_out(member)]
        ready = self._pool.any_ready(left_out)
        if ready is None:
            return max(0.0, min(ends) - now) if ends else None
        if self._last is None:
            return None  # somebody is ready, and yet nobody was picked: it would be the same again
        fresh = (
            ready
            if ready.id not in self._tried
            else self._pool.any_ready(lambda member: left_out(member) or member.id in self._tried)
        )
        hint_s = self._last[1].hint_s
        return 0.0 if fresh is not None or ends or hint_s is None else hint_s

    def _may_restart(self) -> bool:
        if not self._restarts or self._last is None:
            return False
        verdict = self._last[1]
        return verdict.rotate and (verdict.status in RESTART_STATUSES or verdict.status >= 500)

    # --- the end -----------------------------------------------------------------------------------------------------

    def refusal(self) -> CpaError:
        """See `Selection`."""
        if self._last is not None:
            return self._last[0]
        concerned = [
            (member, record)
            for member, record in self._pool.windows()
            if not self._ask.pin or member.id == self._ask.pin
        ]
        return no_credential(self._pool, concerned, model=self._ask.model, now_unix=self._health.now())


def no_credential(pool: Pool, windows: Sequence[tuple[Member, Health]], *, model: str, now_unix: float) -> NoCredential:
    """Why nobody of *pool* could be asked (proxy 4.1, 1.15)."""
    providers = pool.providers
    # A window that may be probed ends with the next success: whoever comes back soon may be served, or probe itself.
    ends = [now_unix if is_mild(record) else record.until_unix for _, record in windows]
    wait_s = max(MIN_RETRY_AFTER_S, min(ends, default=now_unix) - now_unix)
    last = max((record for _, record in windows), key=lambda record: record.updated_unix, default=None)
    told = f"{last.status} {last.message}".strip() if last is not None and last.message else ""
    if windows and all(record.quota for _, record in windows):
        seconds = -int(-wait_s // 1)
        via = f" via provider {providers[0]}" if len(providers) == 1 else ""
        details: dict[str, JsonValue] = {"model": model}
        if len(providers) == 1:
            details["provider"] = providers[0]
        details |= {"reset_time": go_seconds(seconds), "reset_seconds": seconds}
        if told:
            details["last_upstream_error"] = told
        return NoCredential(
            f"All credentials for model {model} are cooling down{via}",
            code="model_cooldown",
            http_status=429,
            retry_after_s=wait_s,
            details=details,
        )
    return NoCredential(
        f"auth_unavailable: no auth available (providers={','.join(providers)}, model={model})",
        retry_after_s=wait_s if windows else None,
        details={"last_upstream_error": told} if told else {},
    )


def go_seconds(seconds: int) -> str:
    """Whole seconds as Go prints durations: ``59s``, ``1m0s``, ``1h2m3s``."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
