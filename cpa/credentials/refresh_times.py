"""When a credential wants to be refreshed: pure functions of what it holds (plugin-abi 4.3.4, proxy 3.7)."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from cpa.config.kinds import duration_seconds
from cpa.credentials.model import Credential
from cpa.types import JsonValue

MIN_INTERVAL_S: Final = 5.0
"""However short a plugin wants its interval to be."""
MIN_EXPIRY_SPACING_S: Final = 60.0
"""Between refreshes that only the expiry asks for: a token that lives shorter than the interval is always about to."""
MAX_INTERVAL_S: Final = 10 * 365 * 86_400.0

EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Times beyond these are taken for none; they leave room for sums."""

_INTERVALS: Final = ("refresh_interval", "refresh_interval_seconds", "refreshInterval", "refreshIntervalSeconds")
_EXPIRIES: Final = ("expired", "expire", "expires_at", "expiresAt", "expiry", "expires")
_LAST: Final = ("last_refresh", "lastRefresh")
_FIRST_MILLISECONDS: Final = 1e11
"""Unix times from here on are in milliseconds: as seconds it is the year 5138, as milliseconds it is 1973."""


@attrs.frozen(kw_only=True)
class RefreshRecord:
    """What is remembered of a credential's refreshes. All times are wall clock, with zone.

    Attributes:
      succeeded: when a refresh succeeded last; None = not since the start.
      tried: when one was begun last.
      wanted: the plugin's ``NextRefreshAfter``.
      not_before: after a failure.
      stopped: refreshing is pointless until the credential changes.
    """

    succeeded: datetime | None = None
    tried: datetime | None = None
    wanted: datetime | None = None
    not_before: datetime | None = None
    stopped: bool = False


NEVER_REFRESHED: Final = RefreshRecord()


def due_at(credential: Credential, record: RefreshRecord, *, read_at: datetime) -> datetime | None:
    """When *credential* shall be refreshed; in the past means now, None means never.

    ``NextRefreshAfter`` decides if the plugin gave one that no refresh has followed yet. Else it is the interval since
    the last refresh, or when the credential will expire within one interval.

    Args:
      read_at: when its file was written; stands for the last refresh as long as nobody knows better.
    """
    if record.stopped or credential.disabled:
        return None
    wanted = record.wanted or credential.next_refresh_after
    if wanted is not None and (record.succeeded is None or wanted > record.succeeded):
        due: datetime | None = wanted
    else:
        due = _by_interval(credential, record, read_at)
    if due is None:
        return None
    if record.tried is not None:
        due = max(due, record.tried + timedelta(seconds=MIN_INTERVAL_S))
    return due if record.not_before is None else max(due, record.not_before)


def _by_interval(credential: Credential, record: RefreshRecord, read_at: datetime) -> datetime | None:
    seconds = interval_s(credential)
    if seconds is None:
        return None
    interval = timedelta(seconds=seconds)
    known = [moment for moment in (record.succeeded, last_refresh(credential)) if moment is not None]
    due = max(known, default=read_at) + interval
    expiry = expires_at(credential)
    if expiry is not None:
        early = expiry - min(interval, expiry - EARLIEST)
        if record.tried is not None:
            early = max(early, record.tried + timedelta(seconds=MIN_EXPIRY_SPACING_S))
        due = min(due, early)
    return due


def interval_s(credential: Credential) -> float | None:
    """Seconds between refreshes; None = it asks for none."""
    for value in _values(credential, _INTERVALS):
        seconds = _seconds(value)
        if seconds is not None and seconds > 0:
            return min(max(seconds, MIN_INTERVAL_S), MAX_INTERVAL_S)
    return None


def expires_at(credential: Credential) -> datetime | None:
    """When it says that it expires."""
    return next(_moments(credential, _EXPIRIES), None)


def last_refresh(credential: Credential) -> datetime | None:
    """When it says that it was refreshed last."""
    return next(_moments(credential, _LAST), None)


def _values(credential: Credential, names: tuple[str, ...]) -> Iterator[JsonValue]:
    """Members of those names: of metadata, then of attributes, then inside ``token``."""
    token = credential.metadata.get("token")
    places: tuple[Mapping[str, JsonValue], ...] = (credential.metadata, dict(credential.attributes))
    for place in (*places, token if isinstance(token, dict) else {}):
        for name in names:
            if name in place:
                yield place[name]


def _moments(credential: Credential, names: tuple[str, ...]) -> Iterator[datetime]:
    for value in _values(credential, names):
        moment = _moment(value)
        if moment is not None:
            yield moment


def _number(value: JsonValue) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _seconds(value: JsonValue) -> float | None:
    """A number, also written as a string, or a Go duration."""
    number = _number(value)
    if number is None and isinstance(value, str):
        return duration_seconds(value.strip())
    return number


def _moment(value: JsonValue) -> datetime | None:
    """RFC 3339, or Unix seconds or milliseconds."""
    number = _number(value)
    try:
        if number is not None:
            moment = datetime.fromtimestamp(number / 1000 if abs(number) >= _FIRST_MILLISECONDS else number, UTC)
        elif isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment if EARLIEST < moment < LATEST else None
