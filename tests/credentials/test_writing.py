"""Writing credential files: killed, raced, edited at the same time. Nothing is torn, nobody's edit is lost."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from cpa.config import exchanging
from cpa.credentials import writing
from cpa.credentials.writing import (
    MAX_FILE_BYTES,
    CredentialFileError,
    UnfinishedText,
    UnreadableFile,
    combined,
    locked,
    read_regular,
    rewrite,
    write_atomically,
)

WAIT_S = 60.0


def load(path: Path) -> dict[str, Any]:
    """The object in a file, which must be whole."""
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def setting(**members: Any) -> Callable[[bytes], bytes]:
    """A change that sets members, as a refresh does."""

    def change(data: bytes) -> bytes:
        try:
            return json.dumps({**json.loads(data), **members}).encode()
        except ValueError as exc:
            raise UnfinishedText(str(exc)) from exc

    return change


def no_scratch(directory: Path) -> bool:
    """Nothing was left over."""
    return not [name for name in os.listdir(directory) if name.endswith(".tmp")]


@pytest.fixture(params=["exchange", "rename"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the exchange of files, and as on systems that have none."""
    if request.param == "rename":
        monkeypatch.setattr(exchanging, "renameat2", lambda: None)
    return str(request.param)


def test_a_file_is_rewritten_whole(tmp_path: Path, way: str) -> None:
    """And is private then."""
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "token": "old"}')
    path.chmod(0o644)
    content = rewrite(path, setting(token="new"))
    assert path.read_bytes() == content
    assert load(path) == {"a": 1, "token": "new"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert no_scratch(tmp_path)


def test_nothing_is_written_without_need(tmp_path: Path) -> None:
    """The watcher would only wake up for it."""
    path = tmp_path / "a.json"
    path.write_text("{}")
    before = path.stat()
    assert rewrite(path, lambda data: data) == b"{}"
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_link_stays_a_link(tmp_path: Path, way: str) -> None:
    """Mounted secrets are links within their folder."""
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / "a.json"
    target.write_text('{"token": "old"}')
    link = tmp_path / "a.json"
    link.symlink_to(target)
    rewrite(link, setting(token="new"))
    assert link.is_symlink()
    assert load(target) == {"token": "new"}


def test_a_removed_file_is_not_brought_back(tmp_path: Path, way: str) -> None:
    """Neither one that was never there nor one that goes during the change."""
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError):
        rewrite(path, setting(a=1))
    path.write_text("{}")

    def change(data: bytes) -> bytes:
        path.unlink(missing_ok=True)
        return b'{"a":1}'

    with pytest.raises(FileNotFoundError):
        rewrite(path, change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "directory", "huge"])
def test_odd_files_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A pipe would never answer."""
    path = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(UnreadableFile, match="expected"):
        rewrite(path, setting(a=1))
    with pytest.raises(UnreadableFile, match="expected"):
        read_regular(path)


def test_an_unfinished_text_is_waited_for(tmp_path: Path, way: str) -> None:
    """Programs that write into the file come to their end; one that never does is left alone."""
    path = tmp_path / "a.json"
    path.write_text('{"a": ')
    looks = 0

    def change(data: bytes) -> bytes:
        nonlocal looks
        looks += 1
        if looks == 3:
            path.write_text('{"a": 1}')
        return setting(token="new")(data)

    rewrite(path, change)
    assert load(path) == {"a": 1, "token": "new"}
    path.write_text('{"a": ')
    with pytest.raises(UnfinishedText):
        rewrite(path, setting(token="x"))
    assert path.read_text() == '{"a": '
    assert no_scratch(tmp_path)


@pytest.mark.parametrize("how", ["replaced", "in place"])
def test_an_edit_during_the_change_is_merged(tmp_path: Path, way: str, how: str) -> None:
    """What the new text was made of is compared with what is there."""
    path = tmp_path / "a.json"
    path.write_text('{"token": "old"}')
    looks = 0

    def change(data: bytes) -> bytes:
        nonlocal looks
        looks += 1
        merged = setting(token="new")(data)
        if looks == 1:
            edit(path, how, {"token": "old", "note": "mine"})
        return merged

    rewrite(path, change)
    assert load(path) == {"token": "new", "note": "mine"}
    assert looks == 2
    assert no_scratch(tmp_path)


def edit(path: Path, how: str, members: dict[str, Any]) -> None:
    """As programs of others do it."""
    if how == "in place":
        path.write_text(json.dumps(members))
    else:
        scratch = path.with_name("editor.new")
        scratch.write_text(json.dumps(members))
        scratch.rename(path)


@pytest.mark.parametrize("how", ["replaced", "in place"])
@pytest.mark.parametrize("edits", [1, 3])
def test_an_edit_in_the_last_moment_is_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, edits: int
) -> None:
    """Between the last look and the exchange, even if it happens again and again."""
    path = tmp_path / "a.json"
    path.write_text('{"token": "old"}')
    exchange, left = writing._exchange, list(range(edits))

    def late(one: Path, other: Path) -> bool:
        if left:
            number = left.pop(0)
            edit(path, how, {**load(path), f"note{number}": number})
        return exchange(one, other)

    monkeypatch.setattr(writing, "_exchange", late)
    assert json.loads(rewrite(path, setting(token="new"))) == load(path)
    assert load(path) == {"token": "new", **{f"note{number}": number for number in range(edits)}}
    assert no_scratch(tmp_path)


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        ({"a": 1}, {"a": 2}, {"a": 1, "b": 1}, {"a": 2, "b": 1}),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}),
        ({"a": 1}, {"a": 1, "c": 1}, {"b": 1}, {"b": 1, "c": 1}),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2}),
        ({"a": 1}, {}, {}, {}),
    ],
)
def test_two_versions_become_one(base: Any, ours: Any, theirs: Any, expected: Any) -> None:
    """Where both changed a member, theirs counts; text that is no object is left to them."""
    texts = {name: json.dumps(value).encode() for name, value in (("base", base), ("ours", ours), ("theirs", theirs))}
    assert json.loads(combined(**texts)) == expected
    assert combined(base=texts["base"], ours=texts["ours"], theirs=b"{ broken") == b"{ broken"


def test_a_broken_edit_in_the_last_moment_is_left_to_its_author(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back to its place."""
    path = tmp_path / "a.json"
    path.write_text('{"token": "old"}')
    exchange = writing._exchange
    done: list[bool] = []

    def late(one: Path, other: Path) -> bool:
        if not done:
            done.append(True)
            scratch = path.with_name("editor.new")
            scratch.write_text("{ broken")
            scratch.rename(path)
        return exchange(one, other)

    monkeypatch.setattr(writing, "_exchange", late)
    with pytest.raises(UnfinishedText):
        rewrite(path, setting(token="new"))
    assert path.read_text() == "{ broken"
    assert no_scratch(tmp_path)


def test_a_file_that_never_rests_is_given_up(tmp_path: Path) -> None:
    """After a bounded number of rounds, as its editors left it."""
    path = tmp_path / "a.json"
    path.write_text('{"n": 0}')

    def change(data: bytes) -> bytes:
        merged = setting(token="new")(data)
        edit(path, "replaced", {"n": load(path)["n"] + 1})
        return merged

    with pytest.raises(CredentialFileError, match="all the time"):
        rewrite(path, change)
    assert "token" not in load(path)


def test_threads_lose_nothing(tmp_path: Path, way: str) -> None:
    """Each with a member of its own; the lock is between them as well."""
    path = tmp_path / "a.json"
    path.write_text("{}")

    def writer(name: str) -> None:
        for number in range(15):
            rewrite(path, setting(**{name: number}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(writer, "abcd"))
    assert load(path) == dict.fromkeys("abcd", 14)
    assert no_scratch(tmp_path)


def test_a_lock_without_an_owner_that_moves_is_not_waited_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the middle must not stop this one."""
    monkeypatch.setattr(writing, "LOCK_WAIT_S", 0.05)
    begin = monotonic()
    with locked(tmp_path), locked(tmp_path):
        assert 0.04 < monotonic() - begin < WAIT_S


WRITER = """
import json, sys
from pathlib import Path
from cpa.credentials.writing import rewrite
path, name = Path(sys.argv[1]), sys.argv[2]
def change(data):
    members = json.loads(data)
    members[name] = members.get(name, 0) + 1
    members[name + "-copy"] = members[name]
    members["padding"] = "x" * 20000
    return json.dumps(members).encode()
print("ready", flush=True)
while True:
    rewrite(path, change)
"""
"""Writes as long as it lives."""
EDITOR = """
import json, os, sys, time
from pathlib import Path
path, rounds = Path(sys.argv[1]), int(sys.argv[2])
for number in range(1, rounds + 1):
    until = time.monotonic() + 10
    while True:  # an editor reads, works, and replaces the file only if nobody else did meanwhile
        before = path.read_bytes()
        members = json.loads(before)
        # For the moment between two exchanges the file may look as it did before the last edits; a lost one stays lost.
        if members.get("edit", 0) < number - 1 and time.monotonic() < until:
            continue
        assert members.get("edit", 0) == number - 1, (members.get("edit"), number)
        members["edit"] = number
        scratch = path.with_name("editor.new")
        scratch.write_text(json.dumps(members))
        if path.read_bytes() == before:
            os.replace(scratch, path)
            break
print("done", flush=True)
"""
"""Edits a member of its own, and looks each time whether its last edit is still there."""


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process of its own."""
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


def test_processes_that_are_killed_leave_whole_files(tmp_path: Path) -> None:
    """kill -9 at some twenty moments, two writers at a time: every file that anybody sees is one that was written."""
    path = tmp_path / "a.json"
    path.write_text('{"kept": "for ever"}')
    moments = random.Random(20261121)
    before = {"w0": 0, "w1": 0}
    for _ in range(4):
        writers = [start(WRITER, str(path), f"w{number}") for number in range(2)]
        try:
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == "ready\n"
            for _ in range(5):
                seen = load(path)
                assert seen["kept"] == "for ever"
                os.stat(path)
            for writer in writers:
                until = monotonic() + moments.random() * 0.08
                while monotonic() < until:
                    assert load(path)["kept"] == "for ever"
                writer.send_signal(signal.SIGKILL)
                writer.wait(WAIT_S)
                found = load(path)
                for name in before:
                    assert found.get(name, 0) == found.get(f"{name}-copy", 0)
                    assert found.get(name, 0) >= before[name]
                    before[name] = found.get(name, 0)
        finally:
            for writer in writers:
                writer.kill()
                writer.wait(WAIT_S)
                assert writer.stdout is not None
                writer.stdout.close()
    assert min(before.values()) > 0


def test_an_editor_beside_a_writer_loses_no_edit(tmp_path: Path) -> None:
    """A program that knows nothing of locks replaces the file while refreshes are kept in it."""
    path = tmp_path / "a.json"
    path.write_text("{}")
    editor = start(EDITOR, str(path), "150")
    assert editor.stdout is not None
    try:
        number = 0
        while editor.poll() is None:
            number += 1
            rewrite(path, setting(token=number))
        assert editor.stdout.read() == "done\n"
        assert load(path)["edit"] == 150
    finally:
        editor.kill()
        editor.wait(WAIT_S)
        editor.stdout.close()


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """The scratch file is removed, the old one stays."""
    path = tmp_path / "a.json"
    path.write_text('{"token": "old"}')

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        rewrite(path, setting(token="new"))
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"{}")
    assert load(path) == {"token": "old"}
    assert no_scratch(tmp_path)
