"""The last lines in memory: bounded, by level, by cursor; from any thread."""

import threading

from cpa.observability.recent import RecentLog, RecentSlice


def events(found: RecentSlice) -> list[str]:
    """Which lines these are."""
    return [line.event for line in found.lines]


def filled(count: int, **limits: int) -> RecentLog:
    """With lines of 10 bytes, every third a warning."""
    log = RecentLog(**limits)
    for number in range(count):
        log.add("warn" if number % 3 == 2 else "info", str(number), b"%09d\n" % number)
    return log


def test_the_last_lines_and_what_comes_then() -> None:
    """A cursor tells what is new; without news it stays where it is."""
    log = filled(5)
    found = log.read(limit=2)
    assert (events(found), found.reset) == (["3", "4"], False)
    assert events(log.read(cursor=found.cursor, limit=9)) == []
    log.add("debug", "5", b"5\n")
    log.add("error", "6", b"6\n")
    found = log.read(cursor=found.cursor, limit=1)
    assert events(found) == ["5"]
    found = log.read(cursor=found.cursor, limit=9)
    assert (events(found), found.reset) == (["6"], False)
    assert events(log.read(limit=9, level="warn")) == ["2", "6"]
    assert events(log.read(limit=9, level="error")) == ["6"]


def test_a_cursor_goes_on_behind_lines_of_no_interest() -> None:
    """Or it would be too old after a while of nothing but debugging."""
    log = filled(3)
    found = log.read(limit=9, level="error")
    assert found.lines == ()
    log.add("error", "3", b"3\n")
    assert events(log.read(cursor=found.cursor, limit=9)) == ["3"]


def test_cursors_that_mean_nothing_here() -> None:
    """Of another process, too old, or nonsense: the last lines, and a word of it."""
    log, other = filled(100, max_lines=10), filled(100)
    old = filled(1, max_lines=10)
    cursor = old.read(limit=1).cursor
    for number in range(20):
        old.add("info", str(number), b"x\n")
    assert old.read(cursor=cursor, limit=3).reset
    for nonsense in (other.read(limit=1).cursor, "x", "-", log.read(limit=1).cursor + "9", "a-" + "9" * 5000):
        found = log.read(cursor=nonsense, limit=3)
        assert (events(found), found.reset) == (["97", "98", "99"], True)
    assert log.read(cursor=log.read(limit=1).cursor, limit=3).reset is False


def test_memory_is_bounded() -> None:
    """By lines and by bytes; even one line may be too much."""
    assert events(filled(100, max_lines=3).read(limit=100)) == ["97", "98", "99"]
    assert events(filled(100, max_bytes=25).read(limit=100)) == ["98", "99"]
    log = RecentLog(max_bytes=5)
    log.add("info", "long", b"x" * 6)
    assert log.read(limit=5).lines == ()
    assert repr(log) == "<RecentLog lines=0>"


def test_threads_lose_nothing() -> None:
    """Plugins' workers log from threads of their own."""
    log = RecentLog()

    def work() -> None:
        for _ in range(500):
            log.add("info", "x", b"x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [line.number for line in log.read(limit=5000).lines] == list(range(1, 2001))
