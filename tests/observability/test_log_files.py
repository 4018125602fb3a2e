"""Reading log files: the end, since a time, since a cursor; over rotations, truncations, half lines and huge ones."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cpa.observability import log_files
from cpa.observability.log_files import MAX_LINE_BYTES, LogSlice, clear, continued, since, tail

BASE = 1_790_000_000


def line(number: int, text: str = "") -> str:
    """A line of the console format, one second after the one before."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(BASE + number))
    return f"[{stamp}] [--------] [info ] [a.py:1] line {number}{text}"


def write(path: Path, *numbers: int, mode: str = "w") -> None:
    """A file of lines."""
    with path.open(mode) as file:
        file.writelines(line(number) + "\n" for number in numbers)


def rotate(folder: Path, name: str) -> None:
    """As the log does it."""
    (folder / "main.log").rename(folder / f"main-{name}.log")


def numbers(found: LogSlice | None) -> list[int]:
    """Which lines these are."""
    assert found is not None
    return numbers_of(found.lines)


def numbers_of(lines: Sequence[str]) -> list[int]:
    """The numbers that `line` gave them."""
    return [int(text.rpartition(" ")[2]) for text in lines]


def follow(folder: Path, cursor: str, limit: int = 1000) -> LogSlice:
    """What is new."""
    found = continued(folder, cursor, limit)
    assert found is not None
    return found


def test_nothing_there(tmp_path: Path) -> None:
    """No folder, no file, an empty file: no lines, and a cursor that begins at the beginning."""
    for folder in (tmp_path / "missing", tmp_path):
        for found in (tail(folder, 5), since(folder, 0, 5)):
            assert (found.lines, found.latest_unix) == ((), 0)
    cursor = tail(tmp_path, 5).cursor
    assert follow(tmp_path, cursor).lines == ()
    write(tmp_path / "main.log", 1, 2)
    assert numbers(follow(tmp_path, cursor)) == [1, 2]
    (tmp_path / "main.log").write_text("")
    assert tail(tmp_path, 5).lines == ()
    assert clear(tmp_path / "missing") == 0


@pytest.mark.parametrize("block", [7, 1 << 18])
def test_the_end_goes_over_files(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a read; a half line is left out until it is whole."""
    monkeypatch.setattr(log_files, "_BLOCK_BYTES", block)
    write(tmp_path / "main.log", 1, 2)
    rotate(tmp_path, "a")
    os.utime(tmp_path / "main-a.log", (BASE, BASE))
    write(tmp_path / "main.log", 3, 4)
    rotate(tmp_path, "b")
    write(tmp_path / "main.log", 5)
    with (tmp_path / "main.log").open("a") as file:
        file.write(line(6))
    assert numbers(tail(tmp_path, 2)) == [4, 5]
    assert numbers(tail(tmp_path, 3)) == [3, 4, 5]
    found = tail(tmp_path, 100)
    assert (numbers(found), found.latest_unix, found.cut) == ([1, 2, 3, 4, 5], BASE + 5, False)
    with (tmp_path / "main.log").open("a") as file:
        file.write("\n" + line(7) + "\n")
    assert numbers(follow(tmp_path, found.cursor)) == [6, 7]


@pytest.mark.parametrize("block", [11, 1 << 18])
def test_since_a_time(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer than, not as old as; lines without a time belong to the line before; 0 is everything."""
    monkeypatch.setattr(log_files, "_BLOCK_BYTES", block)
    (tmp_path / "main-a.log").write_text(f"no time at all 0\n{line(1)}\n    traceback 1\n{line(2)}\n    traceback 2\n")
    os.utime(tmp_path / "main-a.log", (BASE + 2, BASE + 2))
    write(tmp_path / "main.log", 3)
    assert numbers(since(tmp_path, 0, 100)) == [0, 1, 1, 2, 2, 3]
    found = since(tmp_path, BASE + 1, 100)
    assert (numbers(found), found.latest_unix) == ([2, 2, 3], BASE + 3)
    assert numbers(since(tmp_path, BASE + 2, 100)) == [3]
    assert since(tmp_path, BASE + 3, 100).lines == ()
    cut = since(tmp_path, 0, 2)
    assert (numbers(cut), cut.cut) == ([2, 3], True)
    write(tmp_path / "main.log", 4, mode="a")
    assert numbers(follow(tmp_path, found.cursor)) == [4]


def test_json_lines_have_times_as_well(tmp_path: Path) -> None:
    """UTC, with fractions."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(BASE))
    (tmp_path / "main.log").write_text(f'{{"ts":"{stamp}.123Z","level":"info"}}\n')
    assert since(tmp_path, BASE - 1, 5).latest_unix == BASE
    assert since(tmp_path, BASE, 5).lines == ()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_cursor_survives_rotations(tmp_path: Path, times: int) -> None:
    """As long as its file is there, nothing is lost and nothing told twice."""
    write(tmp_path / "main.log", 1, 2)
    cursor = tail(tmp_path, 1).cursor
    write(tmp_path / "main.log", 3, mode="a")
    for number in range(times):
        rotate(tmp_path, f"r{number}")
        os.utime(tmp_path / f"main-r{number}.log", (BASE + number, BASE + number))
        write(tmp_path / "main.log", 10 + number)
    expected = [3, *(10 + number for number in range(times))]
    found = follow(tmp_path, cursor)
    assert (numbers(found), found.latest_unix) == (expected, BASE + 9 + times)
    assert follow(tmp_path, found.cursor).lines == ()
    told: list[int] = []
    while part := numbers(found := follow(tmp_path, cursor, 1)):
        told += part
        cursor = found.cursor
    assert told == expected


def test_cursors_that_cannot_be_honoured(tmp_path: Path) -> None:
    """Nonsense, a file that is gone, cleared, or another one that got its number."""
    write(tmp_path / "main.log", 1, 2, 3)
    cursor = tail(tmp_path, 1).cursor
    for nonsense in ("", "x", "1-", cursor + "0", cursor.replace("1-", "2-", 1), "1-ffffffffffffffff-0-", "1-1-g-"):
        assert continued(tmp_path, nonsense, 5) is None
    assert clear(tmp_path) == 0
    assert continued(tmp_path, cursor, 5) is None
    write(tmp_path / "main.log", *range(10, 20))  # the same file, longer than before
    assert continued(tmp_path, cursor, 5) is None
    cursor = tail(tmp_path, 1).cursor
    (tmp_path / "main.log").unlink()
    write(tmp_path / "other", 1)
    write(tmp_path / "main.log", *range(30, 50))
    assert continued(tmp_path, cursor, 5) is None


def test_clearing_removes_what_was_rotated(tmp_path: Path) -> None:
    """The active file stays, empty, with its writer; other files are none of it."""
    write(tmp_path / "main.log", 1)
    rotate(tmp_path, "a")
    write(tmp_path / "main.log", 2)
    (tmp_path / "error-x.log").write_text("")
    (tmp_path / "main.log.txt").write_text("")
    descriptor = os.open(tmp_path / "main.log", os.O_WRONLY | os.O_APPEND)
    try:
        assert clear(tmp_path) == 1
        os.write(descriptor, line(3).encode() + b"\n")
    finally:
        os.close(descriptor)
    assert numbers(tail(tmp_path, 10)) == [3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["error-x.log", "main.log", "main.log.txt"]


def test_huge_lines_are_cut_and_bytes_that_are_no_text_shown(tmp_path: Path) -> None:
    """A line of megabytes harms neither the memory nor the lines around it."""
    with (tmp_path / "main.log").open("wb") as file:
        file.write(line(1).encode() + b"\n")
        cursor = "1-0-0-"
        file.write(b"x" * (3 << 20) + b"\n")
        file.write(b"\xff\xfe\x00bad 2\r\n")
    for found in (tail(tmp_path, 10), since(tmp_path, 0, 10), follow(tmp_path, cursor)):
        first, second, third = found.lines
        assert first == line(1)
        assert len(second) < MAX_LINE_BYTES + 100
        assert second.endswith("… (line cut)")
        assert third == "\ufffd\ufffd\x00bad 2"


def test_answers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes: the end keeps the newest lines and says that some are missing; a cursor goes on where it stopped."""
    monkeypatch.setattr(log_files, "MAX_TEXT_BYTES", 500)
    monkeypatch.setattr(log_files, "_BLOCK_BYTES", 100)
    write(tmp_path / "main.log", *range(100))
    for found in (tail(tmp_path, 1000), since(tmp_path, 0, 1000)):
        assert found.cut
        assert 3 < len(found.lines) < 15
        assert numbers(found)[-1] == 99
    cursor, told = "1-0-0-", []
    while part := numbers(found := follow(tmp_path, cursor)):
        assert len(part) < 15
        told += part
        cursor = found.cursor
    assert told == list(range(100))


def test_links_and_pipes_are_no_logs(tmp_path: Path) -> None:
    """Nobody reads other files through the log."""
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "main.log").symlink_to(tmp_path / "secret")
    (tmp_path / "main-x.log").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "main-y.log")
    assert tail(tmp_path, 5).lines == ()
    assert since(tmp_path, 0, 5).lines == ()
