"""Cooldowns on disk (proxy 4.9): the format, the names, the task that writes."""

import json
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.scheduling.failures import Kind, Verdict
from cpa.scheduling.health import WHOLE, HealthBook
from cpa.scheduling.saved import cooldown_file, file_name, open_saver, read_cooldowns, restore
from cpa.scheduling.settings import SchedulingSettings
from cpa.scheduling.store import MemoryStore
from tests.scheduling.support import Clock, credential

SETTINGS = SchedulingSettings()
ID = "gemini:apikey:0a1b2c3d4e5f"


def book() -> tuple[HealthBook, Clock]:
    """An empty one."""
    clock = Clock()
    return HealthBook(MemoryStore(clock), clock), clock


def files(directory: Path) -> list[str]:
    """Names in *directory*."""
    return sorted(path.name for path in directory.iterdir())


def fail(health: HealthBook, name: str = ID, model: str = "m", kind: Kind = Kind.QUOTA, hint_s: float = 300) -> None:
    """Open a window."""
    verdict = Verdict(kind=kind, status=429, hint_s=hint_s, message="slow down")
    health.failed(credential(name, provider="gemini"), model, verdict, SETTINGS)


def test_the_file_is_as_upstream_writes_it() -> None:
    """Member by member."""
    health, clock = book()
    clock.now = 1_790_848_800.0  # 2026-10-01T10:00:00Z
    fail(health, model="gemini-2.5-pro")
    data = json.loads(cooldown_file(ID, health.of(ID), now_unix=clock.now))
    assert data == {
        "version": 1,
        "auth_id": ID,
        "provider": "gemini",
        "updated_at": "2026-10-01T10:00:00.000Z",
        "records": [
            {
                "provider": "gemini",
                "auth_id": ID,
                "model": "gemini-2.5-pro",
                "status": "cooling",
                "next_retry_after": "2026-10-01T10:05:00.000Z",
                "reason": "quota",
                "quota": {
                    "exceeded": True,
                    "reason": "quota",
                    "next_recover_at": "2026-10-01T10:05:00.000Z",
                    "backoff_level": 1,
                },
                "last_error": {"code": "", "message": "slow down", "retryable": False, "http_status": 429},
                "updated_at": "2026-10-01T10:00:00.000Z",
            }
        ],
    }


@pytest.mark.parametrize(
    "kind", [Kind.QUOTA, Kind.UNAUTHORIZED, Kind.NOT_FOUND, Kind.TRANSIENT, Kind.MODEL_UNSUPPORTED]
)
def test_what_is_written_is_read(kind: Kind) -> None:
    """All that counts."""
    health, clock = book()
    fail(health, kind=kind)
    fail(health, model=WHOLE)
    data = cooldown_file(ID, health.of(ID), now_unix=clock.now)
    assert {(model, record) for _, model, record in read_cooldowns(data, now_unix=clock.now)} == {
        (model, record) for model, record in health.of(ID).items()
    }
    clock.advance(100_000)
    assert list(read_cooldowns(data, now_unix=clock.now)) == []


def test_upstreams_own_file_is_read() -> None:
    """Nanoseconds, other offsets, reasons of its own."""
    data = json.dumps(
        {
            "version": 1,
            "auth_id": "x.json",
            "records": [
                {"model": "m", "next_retry_after": "2027-01-15T10:05:00+02:00", "reason": "payment_required"},
                {
                    "model": "n",
                    "next_retry_after": "2027-01-15T08:05:00.123Z",
                    "reason": "something",
                    "quota": {"exceeded": True},
                },
                {"model": "o", "next_retry_after": "2999-01-01T00:00:00Z", "reason": "quota"},
                {"model": "p", "next_retry_after": "yesterday"},
            ],
        }
    ).encode()
    now = 1_800_000_000.0
    found = {model: record for _, model, record in read_cooldowns(data, now_unix=now)}
    assert {model: record.kind for model, record in found.items()} == {
        "m": Kind.PAYMENT,
        "n": Kind.QUOTA,
        "o": Kind.QUOTA,
    }
    assert found["o"].until_unix == now + 12 * 3600  # nobody is locked out for years


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "auth_id", "records", "model", "quota", "next_retry_after"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
@settings(max_examples=50, deadline=None)
def test_what_is_no_such_file_holds_nothing_or_something_sane(data: bytes) -> None:
    """Never an error."""
    assert all(record.until_unix > 5 for _, _, record in read_cooldowns(data, now_unix=5.0))


@pytest.mark.parametrize(
    ("credential_id", "name"),
    [
        (ID, "gemini%3Aapikey%3A0a1b2c3d4e5f.cds"),
        ("x.json", "x.json.cds"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.cds"),
        ("a\\b\x00c", "a%5Cb%00c.cds"),
    ],
)
def test_names_are_legal_everywhere(credential_id: str, name: str) -> None:
    """And stay in their directory."""
    assert file_name(credential_id) == name


def test_long_names_are_cut_and_stay_apart() -> None:
    """Names of files end somewhere."""
    names = {file_name("ü" * 300 + str(number)) for number in range(10)}
    assert len(names) == 10
    assert all(len(name) < 255 for name in names)


async def test_windows_are_saved_removed_and_restored(tmp_path: Path) -> None:
    """Over a restart; what has ended goes."""
    health, clock = book()
    with trio.fail_after(30):
        async with open_saver(health, lambda: tmp_path) as saver:
            fail(health)
            fail(health, "x.json", hint_s=50)
            await saver.flush()
            assert files(tmp_path) == [file_name(ID), "x.json.cds"]
            health.succeeded("x.json", "m")
            await saver.flush()
            assert files(tmp_path) == [file_name(ID)]
            health.failed(credential("late"), "m", Verdict(kind=Kind.UNAUTHORIZED), SETTINGS)
        assert (tmp_path / "late.cds").exists()  # written at the end
        (tmp_path / "broken.cds").write_bytes(b"{")
        other = HealthBook(MemoryStore(clock), clock)
        async with open_saver(other, lambda: tmp_path):
            assert other.of(ID) == health.of(ID)
            assert other.blocked("late", "m") is not None
        assert not (tmp_path / "broken.cds").exists()
        clock.advance(100_000)
        assert restore(HealthBook(MemoryStore(clock), clock), tmp_path) == 0
        assert files(tmp_path) == []


async def test_switched_off_nothing_is_written_or_read(tmp_path: Path) -> None:
    """`save-cooldown-status: false`."""
    health, _ = book()
    (tmp_path / "x.json.cds").write_bytes(b"{}")
    with trio.fail_after(30):
        async with open_saver(health, lambda: None) as saver:
            fail(health)
            await saver.flush()
    assert files(tmp_path) == ["x.json.cds"]


def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    """The first start."""
    health, _ = book()
    assert restore(health, tmp_path / "none") == 0
