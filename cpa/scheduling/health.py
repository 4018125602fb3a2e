"""How credentials are: cooldowns per (credential, model) and per credential (proxy 4.4, 4.5).

A failure opens a window in which the credential is not asked for that model. Its length follows from the kind of the
failure; quota without a hint, challenges and 404s grow from window to window. Failures inside an open window are those
of concurrent requests: they neither raise the level nor prolong the window, unless they say something new. When a
window is over, the record stays for a while, because the next failure has to know the level; a success forgets it.

Times are Unix seconds of an injected clock. Nothing here waits. The records are in a `StateStore`.
"""

from collections.abc import Callable, Iterator, KeysView
from typing import Any, Final

import attrs
import msgspec

from cpa.credentials.model import Credential
from cpa.formats.errors import redact
from cpa.formats.redaction import hide
from cpa.scheduling.failures import QUOTA_KINDS, Kind, Verdict
from cpa.scheduling.settings import SchedulingSettings
from cpa.scheduling.store import Clock, Entry, Key, Space, StateStore

WHOLE: Final = ""
"""In place of a model: all models of the credential."""
BACKOFF_BASE_S: Final = 1.0
BACKOFF_CAP_S: Final = 30 * 60.0
CHALLENGE_MIN_S: Final = 10.0
REFUSED_S: Final = 30 * 60.0
"""401, 402, 403 and invalid_grant."""
UNSUPPORTED_S: Final = 12 * 3600.0
NOT_FOUND_BASE_S: Final = 60.0
"""A 404 may be a blip: a minute, growing to `BACKOFF_CAP_S` ([B]; upstream keeps away for 12 h)."""
FORCED_MIN_S: Final = 60.0
REMEMBER_S: Final = 3600.0
"""How long after its window the level of a record counts."""
MAX_LEVEL: Final = 24
MAX_RECORDS: Final = 200_000
MAX_MESSAGE: Final = 300


@attrs.frozen(kw_only=True)
class Health:
    """Why and until when.

    Attributes:
      until_unix: end of the window; in the past when only the level still counts.
      level: windows in a row so far, for what grows.
      status: HTTP status of the failure, 0 = none.
      message: of the provider, one line, redacted.
      updated_unix: when the window was opened.
    """

    until_unix: float
    kind: Kind
    level: int = 0
    status: int = 0
    message: str = ""
    updated_unix: float = 0.0
    forced: bool = False
    provider: str = ""

    @property
    def quota(self) -> bool:
        """It counts as exhausted quota, not as out of order."""
        return self.kind in QUOTA_KINDS


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(attrs.asdict(value))


def _decode(data: bytes) -> Health:
    return msgspec.json.decode(data, type=Health)  # msgspec's errors are ValueErrors


HEALTH: Final = Space(name="health", encode=_encode, decode=_decode, max_entries=MAX_RECORDS)

Changed = Callable[[str], None]
"""Hears the id of a credential of which a record has changed."""


class HealthBook:
    """All records. `blocked` is on the path of every request: two lookups.

    Attributes:
      ids: of the credentials of which there are records; a view, always of the present. Most have none.
    """

    def __init__(self, store: StateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._models: dict[str, set[str]] = {}  # of each credential with records
        self.ids: KeysView[str] = self._models.keys()
        self._listeners: list[Changed] = []
        for key, _ in store.items(HEALTH):
            self._models.setdefault(key[0], set()).add(key[1])
        store.subscribe(HEALTH, self._changed)

    def subscribe(self, listener: Changed) -> None:
        """Call *listener* after every change of a record, wherever it came from; not when a window ends by itself."""
        self._listeners.append(listener)

    def _changed(self, key: Key, entry: Entry) -> None:
        credential_id, model = key
        if entry.value is not None:
            self._models.setdefault(credential_id, set()).add(model)
        elif (models := self._models.get(credential_id)) is not None:
            models.discard(model)
        for listener in self._listeners:
            listener(credential_id)

    def now(self) -> float:
        """Unix seconds."""
        return self._clock()

    def known(self, credential_id: str) -> bool:
        """There are records of it; most have none."""
        return credential_id in self._models

    def blocked(self, credential_id: str, model: str) -> Health | None:
        """The open window that lasts longest, of the model's and the credential's; None = it may be asked."""
        models = self._models.get(credential_id)
        if models is None:
            return None
        now = self._clock()
        worst: Health | None = None
        for name in (model, WHOLE):
            record: Health | None = self._store.get(HEALTH, (credential_id, name))
            if record is None:
                models.discard(name)  # it has expired
            elif record.until_unix > now and (worst is None or record.until_unix > worst.until_unix):
                worst = record
        if not models:
            del self._models[credential_id]
        return worst

    def record(self, credential_id: str, model: str) -> Health | None:
        """What is remembered, open or not."""
        record: Health | None = self._store.get(HEALTH, (credential_id, model))
        return record

    def failed(
        self, credential: Credential, model: str, verdict: Verdict, settings: SchedulingSettings
    ) -> Health | None:
        """Open a window as *verdict* wants it. Returns: the record that counts now, None = no cooldown."""
        if not verdict.cools:
            return None
        name = WHOLE if verdict.whole_credential else model
        now, old = self._clock(), self.record(credential.id, name)
        level = old.level if old is not None and old.kind is verdict.kind else 0
        length_s = cooldown_s(verdict, level, settings, cooling=settings.cools(credential))
        if length_s is None:
            return None
        until = now + length_s
        if old is not None and old.until_unix > now:
            # A concurrent request: only what says something new may prolong the window, and nothing shortens it.
            told = verdict.hint_s is not None and verdict.kind is Kind.QUOTA
            if until <= old.until_unix or (old.kind is verdict.kind and not told and not verdict.forced):
                return old
            level = max(old.level, level)
        else:
            level = min(level + 1, MAX_LEVEL)
        new = Health(
            until_unix=until,
            kind=verdict.kind,
            level=level,
            status=verdict.status,
            message=told_by(verdict.message, credential),
            updated_unix=now,
            forced=verdict.forced,
            provider=credential.provider,
        )
        self._store.put(HEALTH, (credential.id, name), new, expires_unix=until + REMEMBER_S)
        return new

    def succeeded(self, credential_id: str, model: str) -> bool:
        """Forget what is remembered of *model*; an open window of the whole credential stays.

        Returns: there was something.
        """
        models = self._models.get(credential_id)
        if models is None:
            return False
        found = model in models
        if found:
            self._store.drop(HEALTH, (credential_id, model))
        whole = self.record(credential_id, WHOLE)
        if whole is not None and whole.until_unix <= self._clock():
            self._store.drop(HEALTH, (credential_id, WHOLE))
        return found

    def reset(self, credential_id: str) -> tuple[str, ...]:
        """Forget everything of a credential. Returns: the models concerned, sorted; `WHOLE` among them."""
        names = tuple(sorted(self._models.get(credential_id, ())))
        for name in names:
            self._store.drop(HEALTH, (credential_id, name))
        self._models.pop(credential_id, None)
        return names

    def renewed(self, credential_id: str) -> None:
        """It has another token: forget that the old one was refused."""
        for name in tuple(self._models.get(credential_id, ())):
            record = self.record(credential_id, name)
            if record is not None and record.kind in (Kind.UNAUTHORIZED, Kind.INVALID_GRANT):
                self._store.drop(HEALTH, (credential_id, name))

    def restore(self, credential_id: str, model: str, record: Health) -> None:
        """Take a record from a file unless something is known already."""
        if self.record(credential_id, model) is None:
            self._store.put(HEALTH, (credential_id, model), record, expires_unix=record.until_unix + REMEMBER_S)

    def of(self, credential_id: str) -> dict[str, Health]:
        """Open windows by model; `WHOLE` for the credential's own."""
        now = self._clock()
        found = {name: self.record(credential_id, name) for name in sorted(self._models.get(credential_id, ()))}
        return {name: record for name, record in found.items() if record is not None and record.until_unix > now}

    def open_windows(self) -> Iterator[tuple[str, str, Health]]:
        """(credential id, model, record) of every open window."""
        now = self._clock()
        for (credential_id, model), record in self._store.items(HEALTH):
            if record.until_unix > now:
                yield credential_id, model, record


def cooldown_s(verdict: Verdict, level: int, settings: SchedulingSettings, *, cooling: bool) -> float | None:
    """How long a credential is kept away after a failure; None = not at all (proxy 4.4).

    Args:
      level: windows in a row before this one.
      cooling: False where ``disable-cooling`` applies; operator rules and unsupported models cool all the same.
    """
    kind = verdict.kind
    if not cooling and not verdict.forced and kind is not Kind.MODEL_UNSUPPORTED:
        return None
    length_s = _natural_s(verdict, level, settings)
    if verdict.forced:
        return max(length_s or 0.0, FORCED_MIN_S)
    return length_s


def _natural_s(verdict: Verdict, level: int, settings: SchedulingSettings) -> float | None:
    hint_s = None if verdict.hint_s is None else min(verdict.hint_s, settings.max_cooldown_s)
    match verdict.kind:
        case Kind.MODEL_UNSUPPORTED:
            return UNSUPPORTED_S
        case Kind.CHALLENGE:
            return max(backoff_s(level), CHALLENGE_MIN_S)
        case Kind.INVALID_GRANT | Kind.UNAUTHORIZED | Kind.PAYMENT:
            return REFUSED_S
        case Kind.NOT_FOUND:
            return min(NOT_FOUND_BASE_S * 2.0 ** min(level, MAX_LEVEL), BACKOFF_CAP_S)
        case Kind.QUOTA:
            return backoff_s(level) if hint_s is None else hint_s
        case Kind.TRANSIENT:
            if hint_s is not None and settings.transient_default and settings.transient_s is not None:
                return max(hint_s, BACKOFF_BASE_S)  # what the provider says is better than a number nobody chose
            return settings.transient_s
        case Kind.REQUEST_FAULT | Kind.LIFECYCLE:
            return None


def backoff_s(level: int) -> float:
    """1 s, 2 s, 4 s, … to 30 min."""
    return min(BACKOFF_BASE_S * 2.0 ** min(level, MAX_LEVEL), BACKOFF_CAP_S)


def told_by(message: str, credential: Credential) -> str:
    """*message* as operators may read it: one short line without secrets."""
    hidden = hide(message[:4096].encode("utf-8", "replace"), credential.secrets()).decode("utf-8", "replace")
    text = redact(" ".join(hidden.split()))
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
