"""When a credential is due, by all the ways in which plugins say it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.credentials.model import Credential
from cpa.credentials.refresh_times import (
    MAX_INTERVAL_S,
    MIN_EXPIRY_SPACING_S,
    MIN_INTERVAL_S,
    NEVER_REFRESHED,
    RefreshRecord,
    due_at,
    expires_at,
    interval_s,
    last_refresh,
)

READ = datetime(2026, 1, 1, 12, tzinfo=UTC)


def credential(metadata: Any = None, **fields: Any) -> Credential:
    return Credential(id="c", provider="acme", label="c", metadata=metadata or {}, **fields)


def after(seconds: float) -> datetime:
    """So long after the file was written."""
    return READ + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        ({"refresh_interval": 60}, 60),
        ({"refresh_interval": "30m"}, 1800),
        ({"refresh_interval": " 1h30m "}, 5400),
        ({"refresh_interval_seconds": "90"}, 90),
        ({"refreshInterval": 7.5}, 7.5),
        ({"refreshIntervalSeconds": 1800}, 1800),
        ({"token": {"refresh_interval": 70}}, 70),
        ({"refresh_interval": 1e-9}, MIN_INTERVAL_S),
        ({"refresh_interval": 1e300}, MAX_INTERVAL_S),
        ({"refresh_interval": "never", "refresh_interval_seconds": 60}, 60),
        ({"refresh_interval": 0}, None),
        ({"refresh_interval": -5}, None),
        ({"refresh_interval": True}, None),
        ({"refresh_interval": "nan"}, None),
        ({"refresh_interval": [60]}, None),
        ({"refresh_interval": 10**400}, None),
        ({}, None),
    ],
)
def test_intervals(metadata: Any, seconds: float | None) -> None:
    """Seconds as number or text, or a Go duration; never so short that it would be an attack."""
    assert interval_s(credential(metadata)) == seconds


def test_attributes_say_it_as_well() -> None:
    """After the metadata."""
    assert interval_s(credential(attributes={"refresh_interval": "2m"})) == 120
    assert interval_s(credential({"refresh_interval": 60}, attributes={"refresh_interval": "2m"})) == 60


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-01-01T12:00:00Z", READ),
        ("2026-01-01T14:00:00+02:00", READ),
        ("2026-01-01T12:00:00", READ),
        (1767268800, READ),
        (1767268800000, READ),
        ("1767268800", READ),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-12:00", None),
        (10**30, None),
        ("soon", None),
        (None, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("name", ["expired", "expires_at", "expiry"])
def test_moments(name: str, value: Any, moment: datetime | None) -> None:
    """RFC 3339, Unix seconds, milliseconds; whatever else is none."""
    assert expires_at(credential({name: value})) == moment
    assert expires_at(credential({"token": {name: value}})) == moment


def test_without_a_word_of_it_nothing_is_ever_refreshed() -> None:
    """Also if it expires: whoever issued it did not say that we should."""
    assert due_at(credential({"expired": READ.isoformat()}), NEVER_REFRESHED, read_at=READ) is None


def test_the_interval_counts_from_the_last_refresh() -> None:
    """Ours, the one that the file tells of, or when it was written."""
    one = credential({"refresh_interval": 100})
    assert due_at(one, NEVER_REFRESHED, read_at=READ) == after(100)
    assert due_at(one, RefreshRecord(succeeded=after(30), tried=after(29)), read_at=READ) == after(130)
    told = credential({"refresh_interval": 100, "last_refresh": after(50).isoformat()})
    assert last_refresh(told) == after(50)
    assert due_at(told, NEVER_REFRESHED, read_at=READ) == after(150)


def test_it_is_due_when_it_will_not_live_for_another_interval() -> None:
    """Once; a token that always lives shorter is spared."""
    short = credential({"refresh_interval": 100, "expired": after(150).isoformat()})
    assert due_at(short, NEVER_REFRESHED, read_at=READ) == after(50)
    record = RefreshRecord(succeeded=after(50), tried=after(50))
    assert due_at(short, record, read_at=READ) == after(50 + MIN_EXPIRY_SPACING_S)


def test_a_wish_decides_and_is_honoured_once() -> None:
    """Plugin-abi 10, 34: it delays, and it triggers."""
    one = credential({"refresh_interval": 100}, next_refresh_after=after(500))
    assert due_at(one, NEVER_REFRESHED, read_at=READ) == after(500)
    assert due_at(credential(next_refresh_after=after(7)), NEVER_REFRESHED, read_at=READ) == after(7)
    followed = RefreshRecord(succeeded=after(501), tried=after(500))
    assert due_at(one, followed, read_at=READ) == after(601)
    assert due_at(credential(next_refresh_after=after(7)), followed, read_at=READ) is None
    assert due_at(one, attrs.evolve(followed, wanted=after(510)), read_at=READ) == after(510)


def test_failures_and_haste_delay() -> None:
    """A plugin that wants the past gets it at most every few seconds."""
    one = credential({"refresh_interval": 100})
    failed = RefreshRecord(tried=after(100), not_before=after(400))
    assert due_at(one, failed, read_at=READ) == after(400)
    hasty = RefreshRecord(succeeded=after(0), tried=after(0), wanted=after(1))
    assert due_at(one, hasty, read_at=READ) == after(MIN_INTERVAL_S)


def test_some_are_never_due() -> None:
    """Out of use, or withdrawn."""
    one = credential({"refresh_interval": 100})
    assert due_at(attrs.evolve(one, disabled=True), NEVER_REFRESHED, read_at=READ) is None
    assert due_at(one, RefreshRecord(stopped=True), read_at=READ) is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["expires", "refresh_interval"]), inner)
    ),
    max_leaves=3,
)


@settings(max_examples=200)
@given(
    metadata=st.dictionaries(st.sampled_from(["refresh_interval", "expires", "token", "last_refresh"]), ANYTHING),
    record=st.builds(RefreshRecord, succeeded=st.none() | st.just(after(5)), tried=st.none() | st.just(after(4))),
)
def test_nothing_that_a_plugin_writes_breaks_it(metadata: Any, record: RefreshRecord) -> None:
    """Metadata are free-form."""
    due = due_at(credential(metadata), record, read_at=READ)
    assert due is None or due.tzinfo is not None
