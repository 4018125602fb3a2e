"""The table of cooldowns (proxy 4.4), row by row, and how windows open, grow and close."""

import pytest

from cpa.scheduling.failures import Kind, Verdict
from cpa.scheduling.health import HEALTH, WHOLE, HealthBook
from cpa.scheduling.settings import SchedulingSettings
from cpa.scheduling.store import MemoryStore
from tests.scheduling.support import Clock, World, candidates, credential, failure

DEFAULT = SchedulingSettings()
OFF = SchedulingSettings(disable_cooling=True)


def book() -> tuple[HealthBook, Clock]:
    """An empty one."""
    clock = Clock()
    return HealthBook(MemoryStore(clock), clock), clock


def length(verdict: Verdict, settings: SchedulingSettings = DEFAULT) -> float | None:
    """Seconds of the first window."""
    health, clock = book()
    record = health.failed(credential("a"), "m", verdict, settings)
    return None if record is None else record.until_unix - clock.now


@pytest.mark.parametrize(
    ("kind", "seconds", "with_cooling_off"),
    [
        (Kind.MODEL_UNSUPPORTED, 12 * 3600, 12 * 3600),
        (Kind.CHALLENGE, 10, None),
        (Kind.INVALID_GRANT, 1800, None),
        (Kind.UNAUTHORIZED, 1800, None),
        (Kind.PAYMENT, 1800, None),
        (Kind.NOT_FOUND, 60, None),
        (Kind.QUOTA, 1, None),
        (Kind.TRANSIENT, 60, None),
        (Kind.LIFECYCLE, None, None),
        (Kind.REQUEST_FAULT, None, None),
    ],
)
def test_each_kind_has_its_window(kind: Kind, seconds: float | None, with_cooling_off: float | None) -> None:
    """First window."""
    assert length(Verdict(kind=kind)) == seconds
    assert length(Verdict(kind=kind), OFF) == with_cooling_off


@pytest.mark.parametrize("kind", list(Kind))
def test_forced_by_a_rule_is_at_least_a_minute_also_with_cooling_off(kind: Kind) -> None:
    """4.7."""
    for settings in (DEFAULT, OFF):
        seconds = length(Verdict(kind=kind, forced=True), settings)
        assert seconds is not None
        assert seconds >= 60


@pytest.mark.parametrize(("setting", "seconds"), [(None, None), (7.0, 7), (600.0, 600)])
def test_the_operator_chooses_how_long_transient_errors_cool(setting: float | None, seconds: float | None) -> None:
    """Negative = none."""
    chosen = SchedulingSettings(transient_s=setting, transient_default=False)
    assert length(Verdict(kind=Kind.TRANSIENT, hint_s=3), chosen) == seconds


def test_hints_replace_the_windows_of_quota_and_are_capped() -> None:
    """Days-long locks are the most reported defect (10.1)."""
    assert length(Verdict(kind=Kind.QUOTA, hint_s=17)) == 17
    assert length(Verdict(kind=Kind.QUOTA, hint_s=18 * 86400)) == 3600
    assert length(Verdict(kind=Kind.QUOTA, hint_s=100), SchedulingSettings(max_cooldown_s=50)) == 50
    assert length(Verdict(kind=Kind.TRANSIENT, hint_s=5)) == 5


def grown(kind: Kind, count: int) -> list[float]:
    """Windows in a row, each failure just after the one before it has ended."""
    health, clock = book()
    found = []
    for _ in range(count):
        record = health.failed(credential("a"), "m", Verdict(kind=kind), DEFAULT)
        assert record is not None
        found.append(record.until_unix - clock.now)
        clock.now = record.until_unix
    return found


def test_quota_doubles_to_half_an_hour() -> None:
    """1 s · 2^level."""
    assert grown(Kind.QUOTA, 13) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1800, 1800]


def test_not_found_doubles_from_a_minute() -> None:
    """[B] instead of twelve hours."""
    assert grown(Kind.NOT_FOUND, 7) == [60, 120, 240, 480, 960, 1800, 1800]


def test_challenges_grow_from_ten_seconds() -> None:
    """As quota does, with a minimum."""
    assert grown(Kind.CHALLENGE, 6) == [10, 10, 10, 10, 16, 32]


def test_failures_inside_a_window_neither_raise_nor_prolong() -> None:
    """They are those of concurrent requests."""
    health, clock = book()
    quota = Verdict(kind=Kind.QUOTA)
    first = health.failed(credential("a"), "m", quota, DEFAULT)
    for _ in range(20):
        clock.advance(0.04)
        assert health.failed(credential("a"), "m", quota, DEFAULT) == first
    clock.advance(1)
    second = health.failed(credential("a"), "m", quota, DEFAULT)
    assert second is not None
    assert second.until_unix - clock.now == 2


def test_nothing_shortens_a_window() -> None:
    """A longer reason replaces a shorter one, not the other way round."""
    health, clock = book()
    health.failed(credential("a"), "m", Verdict(kind=Kind.QUOTA), DEFAULT)
    health.failed(credential("a"), "m", Verdict(kind=Kind.UNAUTHORIZED), DEFAULT)
    health.failed(credential("a"), "m", Verdict(kind=Kind.TRANSIENT), DEFAULT)
    record = health.blocked("a", "m")
    assert record is not None
    assert (record.kind, record.until_unix - clock.now) == (Kind.UNAUTHORIZED, 1800)


def test_a_success_forgets_the_level() -> None:
    """And opens the model at once."""
    health, clock = book()
    for _ in range(3):
        health.failed(credential("a"), "m", Verdict(kind=Kind.QUOTA), DEFAULT)
        clock.advance(10)
    assert health.succeeded("a", "m")
    record = health.failed(credential("a"), "m", Verdict(kind=Kind.QUOTA), DEFAULT)
    assert record is not None
    assert record.until_unix - clock.now == 1


def test_a_whole_credential_cools_for_all_models_and_survives_a_success() -> None:
    """A concurrent one."""
    health, _ = book()
    health.failed(credential("a"), "m", Verdict(kind=Kind.QUOTA, hint_s=100, whole_credential=True), DEFAULT)
    assert health.blocked("a", "other") is not None
    health.succeeded("a", "m")
    assert health.blocked("a", "m") is not None
    assert health.reset("a") == (WHOLE,)
    assert health.blocked("a", "m") is None


def test_one_models_quota_leaves_its_siblings_alone() -> None:
    """Per credential and model."""
    health, _ = book()
    health.failed(credential("a"), "m", Verdict(kind=Kind.QUOTA), DEFAULT)
    assert health.blocked("a", "n") is None
    assert health.blocked("b", "m") is None


@pytest.mark.parametrize(
    ("own", "everywhere", "cools"), [(None, True, False), (False, True, True), (True, False, False)]
)
def test_a_credentials_own_setting_comes_first(own: bool | None, everywhere: bool, cools: bool) -> None:
    """Also an explicit false."""
    health, _ = book()
    one = credential("a", disable_cooling=own)
    record = health.failed(one, "m", Verdict(kind=Kind.QUOTA), SchedulingSettings(disable_cooling=everywhere))
    assert (record is not None) is cools


def test_messages_are_kept_without_secrets() -> None:
    """Operators read them, and files keep them."""
    health, _ = book()
    verdict = Verdict(kind=Kind.QUOTA, message="secret-key-of-a is over quota " + "x" * 1000)
    record = health.failed(credential("a"), "m", verdict, DEFAULT)
    assert record is not None
    assert "secret" not in record.message
    assert len(record.message) <= 300


def test_records_travel_as_bytes() -> None:
    """For stores that replicate."""
    health, _ = book()
    record = health.failed(credential("a"), "m", Verdict(kind=Kind.QUOTA, status=429, message="slow"), DEFAULT)
    assert HEALTH.decode(HEALTH.encode(record)) == record
    with pytest.raises(ValueError, match="Expected"):
        HEALTH.decode(b"[]")


def test_windows_outlive_reloads_and_those_who_leave_start_clean() -> None:
    """3.5 [B]: re-registration keeps what has not ended; 4.5: disabling and deleting forget."""
    world = World(candidates("a", "b"))
    world.scheduling.present(["a", "b"])
    world.fail(failure(401))
    world.configure(candidates("a", "b"))
    world.scheduling.present(["a", "b"])
    assert world.served(2) == ["b", "b"]
    world.scheduling.present(["b"])
    world.scheduling.present(["a", "b"])
    assert sorted(world.served(2)) == ["a", "b"]


def test_the_book_forgets_what_has_ended() -> None:
    """Memory is bounded by what is still of use."""
    health, clock = book()
    for number in range(100):
        health.failed(credential(f"c{number}"), "m", Verdict(kind=Kind.QUOTA), DEFAULT)
    clock.advance(100_000)
    for number in range(100):
        assert health.blocked(f"c{number}", "m") is None
        assert not health.known(f"c{number}")
