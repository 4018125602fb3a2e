"""The credential folder: what is read, what stays in force, what is said of the rest."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from cpa.credentials.files import STALE_S
from cpa.host.account_folder import FOREIGN_TOKENS, Folder, WatchedFolder

FAIL_S = 20


def write(folder: Path, name: str, **members: Any) -> Path:
    """A file, replaced whole."""
    scratch = folder / f"{name}.new"
    scratch.write_text(json.dumps(members))
    return scratch.rename(folder / name)


def test_files_that_did_not_change_give_the_same_objects(tmp_path: Path) -> None:
    """Also in the seconds in which a file's time alone says nothing."""
    folder = Folder(tmp_path)
    write(tmp_path, "a.json", type="claude", api_key="k")
    path = write(tmp_path, "B.json", type="claude", api_key="k")
    before = folder.look().entries
    assert [entry.file.name for entry in before] == ["a.json", "B.json"]
    assert all(one is other for one, other in zip(before, folder.look().entries, strict=True))
    times = path.stat()
    path.write_text(path.read_text().replace('"k"', '"q"'))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time, same inode
    after = folder.look().entries
    assert after[0] is before[0]
    assert after[1].credential is not None
    assert after[1].credential.api_key == "q"


def test_a_broken_text_keeps_what_the_file_said_before(tmp_path: Path) -> None:
    """Until it is whole again, or gone; a file that never was whole is none."""
    folder = Folder(tmp_path)
    path = write(tmp_path, "a.json", type="claude", api_key="k")
    (before,) = folder.look().entries
    path.write_text('{"type": "cl')
    (tmp_path / "new.json").write_text("{")
    look = folder.look()
    assert look.entries == (before,)
    complaints = dict(look.complaints)
    assert complaints["a.json"].endswith("what it said before stays in force")
    assert complaints["new.json"].startswith("expected a JSON object, got: ")
    path.write_text(json.dumps({"type": "claude", "api_key": "new"}))
    (after,) = folder.look().entries
    assert after.credential is not None
    assert after.credential.api_key == "new"
    path.write_text("{")
    folder.look()
    path.unlink()
    assert folder.look().entries == ()


@pytest.mark.parametrize("kind", ["pipe", "link", "socket-like"])
def test_a_file_that_becomes_something_else_is_gone(tmp_path: Path, kind: str) -> None:
    """That is no editor at work."""
    folder = Folder(tmp_path)
    path = write(tmp_path, "a.json", type="claude", api_key="k")
    assert len(folder.look().entries) == 1
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    else:
        path.mkdir()
    assert folder.look().entries == ()


def test_links_within_the_folder_are_files(tmp_path: Path) -> None:
    """As Kubernetes mounts them; what is swapped behind the link is seen."""
    (tmp_path / "..1").mkdir()
    (tmp_path / "..2").mkdir()
    write(tmp_path / "..1", "a.json", type="claude", api_key="one")
    write(tmp_path / "..2", "a.json", type="claude", api_key="two")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.json").symlink_to("..data/a.json")
    folder = Folder(tmp_path)
    (entry,) = folder.look().entries
    assert entry.credential is not None
    assert (entry.credential.api_key, entry.credential.id) == ("one", "a.json")
    (tmp_path / "..swap").symlink_to("..2")
    (tmp_path / "..swap").rename(tmp_path / "..data")
    (entry,) = folder.look().entries
    assert entry.credential is not None
    assert entry.credential.api_key == "two"


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    """Those of plugins do not."""
    write(tmp_path, "acme.json", type="acme")
    write(tmp_path, "none.json", type="claude")
    write(tmp_path, "proxy.json", type="claude", api_key="k", proxy_url="nonsense://x")
    write(tmp_path, "token.json", type="codex", access_token="x")
    why_not = {entry.file.name: entry.why_not for entry in Folder(tmp_path).look().entries}
    assert why_not["acme.json"] == ""
    assert why_not["none.json"] == "api_key: expected a key, got nothing"
    assert why_not["proxy.json"].startswith("proxy_url: expected ")
    assert why_not["token.json"] == FOREIGN_TOKENS


def test_scratch_files_of_killed_processes_are_removed_when_they_are_old(tmp_path: Path) -> None:
    """They hold secrets. A young one is somebody's who is about to rename it; others' files are theirs."""
    old, young, other = (tmp_path / name for name in (f".{'a' * 16}.tmp", f".{'b' * 16}.tmp", ".other.tmp"))
    for path in (old, young, other):
        path.write_text("{}")
    for path in (old, other):
        os.utime(path, (path.stat().st_mtime - STALE_S - 10,) * 2)
    Folder(tmp_path).look()
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, other.name]


async def test_the_watch_follows_the_folder(tmp_path: Path) -> None:
    """The old one is not looked at any more, a missing one is made, and one that cannot be made is said to be so."""
    changes = 0
    changed = trio.Event()

    def note() -> None:
        nonlocal changes
        changes += 1
        changed.set()

    with trio.fail_after(FAIL_S):
        async with trio.open_nursery() as nursery:
            watched = WatchedFolder(nursery=nursery, on_change=note)
            one, two = tmp_path / "one", tmp_path / "two" / "deep"
            await watched.look(one)
            write(one, "a.json", type="claude", api_key="k")
            await changed.wait()
            await watched.look(one)
            assert [entry.file.name for entry in watched.seen.entries] == ["a.json"]
            assert watched.entry(str(one / "a.json")) is not None
            await watched.look(two)
            assert not watched.seen.entries
            assert watched.entry(str(one / "a.json")) is None
            before, changed = changes, trio.Event()
            write(one, "b.json", type="claude", api_key="k")
            write(two, "c.json", type="claude", api_key="k")
            await changed.wait()
            await watched.look(two)
            assert [entry.file.name for entry in watched.seen.entries] == ["c.json"]
            assert changes == before + 1
            (tmp_path / "file").write_text("")
            await watched.look(tmp_path / "file" / "below")
            assert not watched.seen.entries
            nursery.cancel_scope.cancel()
