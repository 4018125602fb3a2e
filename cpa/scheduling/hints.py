"""When a provider wants to be asked again: every place where one may say so (proxy 4.4 [B]).

Of several hints the longest counts: whoever comes back before the last of its windows opens is refused again. What
makes no sense (negative, not a number, a date in the past) counts as not said. Callers cap what is left.
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from cpa.errors import RawHeaders
from cpa.jsontypes import JsonObject, JsonValue

MAX_HINT_S: Final = 366 * 86400.0
"""Longer ones are no hints."""
MAX_DETAILS: Final = 32
MILLISECONDS_FROM: Final = 1e11
"""Unix times above this are milliseconds."""
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ns|us|µs|ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,12})?")


def retry_after_s(headers: RawHeaders, body: JsonValue, *, now_unix: float) -> float | None:
    """Seconds to wait, > 0, as a provider's error says; None when it does not.

    Args:
      headers: lower-case names.
      body: decoded JSON of the error, or None.
    """
    found = [hint for hint in (*_of_headers(headers, now_unix), *_of_body(body, now_unix)) if 0 < hint <= MAX_HINT_S]
    return max(found, default=None)


def _of_headers(headers: RawHeaders, now_unix: float) -> Iterator[float]:
    exhausted = _exhausted(headers)
    for name, raw in headers:
        if not name.startswith((b"retry-after", b"x-ratelimit-reset", b"anthropic-ratelimit-")):
            continue
        value = raw.decode("latin-1").strip()
        hint: float | None = None
        if name == b"retry-after":
            hint = _number(value) if _NUMBER.fullmatch(value) else _until_date(value, now_unix)
        elif name == b"retry-after-ms":
            milliseconds = _number(value)
            hint = None if milliseconds is None else milliseconds / 1000
        elif name.startswith(b"x-ratelimit-reset"):
            # OpenAI sends both resets with every answer; only that of an exhausted window is a reason to wait.
            window = name.removeprefix(b"x-ratelimit-reset").lstrip(b"-")
            hint = duration_s(value) if not exhausted or window in exhausted else None
            if hint is None and (not exhausted or window in exhausted):
                hint = _until_unix(value, now_unix)
        elif name.endswith(b"-reset"):
            window = name.removeprefix(b"anthropic-ratelimit-").removesuffix(b"-reset")
            if window.startswith(b"unified") or not exhausted or window in exhausted:
                hint = _until_unix(value, now_unix) or _until_rfc3339(value, now_unix)
        if hint is not None:
            yield hint


def _exhausted(headers: RawHeaders) -> frozenset[bytes]:
    """The windows of which nothing remains, e.g. ``requests``; empty when no header says so of any."""
    found = set()
    for name, value in headers:
        if value.strip() == b"0":
            if name.startswith(b"x-ratelimit-remaining"):
                found.add(name.removeprefix(b"x-ratelimit-remaining").lstrip(b"-"))
            elif name.startswith(b"anthropic-ratelimit-") and name.endswith(b"-remaining"):
                found.add(name.removeprefix(b"anthropic-ratelimit-").removesuffix(b"-remaining"))
    return frozenset(found)


def _of_body(body: JsonValue, now_unix: float) -> Iterator[float]:
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return
    inner = body.get("error")
    for place in (body, inner if isinstance(inner, dict) else {}):
        yield from _of_object(place, now_unix)


def _of_object(place: JsonObject, now_unix: float) -> Iterator[float]:
    for name in ("resets_in_seconds", "retry_after", "retry_after_seconds"):
        value = place.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield float(value)
    for name in ("resets_at", "reset_at"):
        value = place.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield _since(float(value), now_unix)
    details = place.get("details")
    for detail in details[:MAX_DETAILS] if isinstance(details, list) else []:
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str):
            seconds = duration_s(delay)
            if seconds is not None:
                yield seconds
        elif isinstance(delay, dict):  # protobuf's other spelling
            value = delay.get("seconds")
            number = _number(value.strip()) if isinstance(value, str) else value
            if isinstance(number, int | float) and not isinstance(number, bool):
                yield float(number)


def duration_s(text: str) -> float | None:
    """Seconds of ``1s``, ``6m0s``, ``1h2m3.5s``, ``250ms`` or a bare number; None when it is none of these."""
    text = text.strip()
    if len(text) > 64:
        return None
    if _NUMBER.fullmatch(text):
        number = float(text)
        return None if number > MAX_HINT_S else number  # a point in time, not a time
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _since(unix: float, now_unix: float) -> float:
    return (unix / 1000 if unix > MILLISECONDS_FROM else unix) - now_unix


def _until_unix(text: str, now_unix: float) -> float | None:
    number = _number(text)
    return None if number is None else _since(number, now_unix)


def _until_date(text: str, now_unix: float) -> float | None:
    try:
        when = parsedate_to_datetime(text[:64])
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now_unix
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _until_rfc3339(text: str, now_unix: float) -> float | None:
    try:
        when = datetime.fromisoformat(text[:64])
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now_unix
    except (ValueError, OverflowError):
        return None
