"""How credentials fare, in totals and in steps of ten minutes."""

import re

import attrs

from cpa.credentials.activity import BUCKET_S, BUCKETS, Activity


@attrs.define
class Clock:
    """Unix seconds."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_attempts_are_counted_by_credential() -> None:
    """In totals and in the running step."""
    activity = Activity(Clock())
    activity.present(["a", "b"])
    for ok in (True, True, False):
        activity.note("a", ok=ok)
    counts = activity.of("a")
    assert (counts.success, counts.failed) == (2, 1)
    assert (counts.recent[-1].success, counts.recent[-1].failed) == (2, 1)
    assert (activity.of("b").success, activity.of("unknown").failed) == (0, 0)


def test_there_are_always_twenty_steps_with_their_times() -> None:
    """The oldest first; what is older is in the totals only."""
    clock = Clock()
    activity = Activity(clock)
    activity.present(["a"])
    for _ in range(BUCKETS + 5):
        activity.note("a", ok=True)
        clock.now += BUCKET_S
    counts = activity.of("a")
    assert counts.success == BUCKETS + 5
    assert [bucket.success for bucket in counts.recent] == [1] * (BUCKETS - 1) + [0]
    labels = [bucket.label for bucket in counts.recent]
    assert all(re.fullmatch(r"\d\d:\d0-\d\d:\d0", label) for label in labels)
    assert len(set(labels)) == BUCKETS
    assert [label[6:] for label in labels[:-1]] == [label[:5] for label in labels[1:]]
    clock.now += 10 * BUCKETS * BUCKET_S
    assert sum(bucket.success for bucket in activity.of("a").recent) == 0


def test_an_edit_keeps_the_numbers_and_a_removal_forgets_them() -> None:
    """Proxy 3.5: deleting and adding again starts clean; late ends of attempts count for nobody."""
    activity = Activity(Clock())
    activity.present(["a", "b"])
    activity.note("a", ok=True)
    activity.present(["a"])
    assert activity.of("a").success == 1
    activity.present(["b"])
    activity.note("a", ok=True)
    assert activity.of("a").success == 0
    activity.present(["a"])
    assert activity.of("a").success == 0


def test_a_clock_that_is_set_back_harms_nobody() -> None:
    """Totals go on."""
    clock = Clock()
    activity = Activity(clock)
    activity.present(["a"])
    activity.note("a", ok=True)
    clock.now -= 100 * BUCKET_S
    activity.note("a", ok=False)
    counts = activity.of("a")
    assert (counts.success, counts.failed, counts.recent[-1].failed) == (1, 1, 1)
