"""Operators' work on the files of a folder: names that lead nowhere else, links, all or nothing."""

import os
import threading
from pathlib import Path

import pytest

from cpa.config.exchanging import exchange
from cpa.credentials.editing import (
    checked_new_name,
    content_of,
    delete_all,
    delete_each,
    delete_file,
    patch_file,
    save_all,
    save_new,
)
from cpa.credentials.files import CredentialFileError, CredentialFiles

HOSTILE = (
    *("", " ", ".json", "..json", "...json", "../x.json", "a/b.json", "/etc/x.json", "..\\x.json", "C:\\x.json"),
    *("C:x.json", "x.json:stream.json", "a\x00.json", "a\n.json", "a\x7f.json", "\ud800.json", "é" * 126 + ".json"),
    *("x" * 251 + ".json", " x.json", "x.json ", "x.txt", "x.json.exe", "x", ".."),
)
NEW_ONLY = ("CON.json", "nul.JSON", "com1.a.json", "a\u202ejson.json", "a\u2028.json")


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    """Nothing is read, written or removed under them; the texts are the contract's."""
    folder = tmp_path / "auths"
    folder.mkdir()
    (tmp_path / "x.json").write_text("{}")
    for work in (
        lambda: save_new(CredentialFiles(folder), name, b"{}"),
        lambda: content_of(folder, name),
        lambda: patch_file(folder, name, {"note": "a"}),
        lambda: delete_file(folder, name),
    ):
        with pytest.raises(CredentialFileError) as refused:
            work()
        assert refused.value.http_status == 400
        assert refused.value.message in ("invalid name", "file must be .json")
    assert (tmp_path / "x.json").read_text() == "{}"
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", NEW_ONLY, ids=ascii)
def test_names_that_no_new_file_gets(name: str) -> None:
    """Devices of other systems, and what cannot be shown as it is."""
    with pytest.raises(CredentialFileError, match="invalid name"):
        checked_new_name(name)
    assert checked_new_name("console.json") == "console.json"
    assert checked_new_name("ops@example.com (é).JSON")


def test_an_upload_is_whole_or_nothing(tmp_path: Path) -> None:
    """A text that is no JSON object replaces nothing; one of several that fails harms none of the others."""
    files = CredentialFiles(tmp_path)
    save_new(files, "a.json", b'\xef\xbb\xbf{"type": "x"}')
    assert (tmp_path / "a.json").read_bytes() == b'{"type": "x"}'
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600
    bad = (b"", b"null", b"[]", b'{"a":', b'{"weight": "much"}', b"[" * 100_000, b'{"a":"' + b"x" * (1 << 20) + b'"}')
    for data in bad:
        with pytest.raises(CredentialFileError) as refused:
            save_new(files, "a.json", data)
        assert refused.value.http_status == 400
    assert (tmp_path / "a.json").read_bytes() == b'{"type": "x"}'
    (tmp_path / "folder.json").mkdir()
    failed = save_all(files, {"b.json": b"{}", "c.txt": b"{}", "a.json": b"{", "folder.json": b"{}", "d.json": b"{}"})
    assert [(failure.name, failure.status) for failure in failed] == [
        ("c.txt", 400),
        ("a.json", 400),
        ("folder.json", 500),
    ]
    assert failed[0].error == "file must be .json"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json", "d.json", "folder.json"]


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    """Not for reading, not for editing; removing and replacing concern the link."""
    folder, outside = tmp_path / "auths", tmp_path / "secret.json"
    folder.mkdir()
    outside.write_text('{"type": "x"}')
    (folder / "out.json").symlink_to(outside)
    (folder / "ring.json").symlink_to("ring.json")
    (folder / "inner").mkdir()
    (folder / "inner" / "a.json").write_text('{"type": "x"}')
    (folder / "in.json").symlink_to("inner/a.json")
    os.mkfifo(folder / "pipe.json")
    for name in ("out.json", "ring.json", "pipe.json", "inner.json", "gone.json"):
        for work in (
            lambda name=name: content_of(folder, name),
            lambda name=name: patch_file(folder, name, {"note": "a"}),
        ):
            with pytest.raises(CredentialFileError) as refused:
                work()
            assert (refused.value.http_status, refused.value.message) == (404, "auth file not found")
    assert content_of(folder, "in.json") == b'{"type": "x"}'
    assert patch_file(folder, "in.json", {"note": "a"})
    assert (folder / "in.json").is_symlink()
    assert b"note" in (folder / "inner" / "a.json").read_bytes()
    save_new(CredentialFiles(folder), "out.json", b'{"type": "new"}')
    assert not (folder / "out.json").is_symlink()
    assert outside.read_text() == '{"type": "x"}'
    (folder / "out.json").unlink()
    (folder / "out.json").symlink_to(outside)
    delete_file(folder, "out.json")
    assert outside.exists()
    assert not (folder / "out.json").is_symlink()
    delete_file(folder, "ring.json")


def test_deleting(tmp_path: Path) -> None:
    """Some, all; folders and other files stay; nothing there is not an error for all."""
    assert delete_all(tmp_path / "missing") == (0, ())
    for name in ("a.json", "b.JSON", "c.json", "keep.txt", "odd:name.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "folder.json").mkdir()
    failed = delete_each(tmp_path, ("a.json", "gone.json", "folder.json", "../x.json"))
    assert [(failure.name, failure.status) for failure in failed] == [
        ("gone.json", 404),
        ("folder.json", 404),
        ("../x.json", 400),
    ]
    assert delete_all(tmp_path) == (3, ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.json", "keep.txt"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """500, with what the system says and no path."""
    (tmp_path / "file").write_text("")
    for work in (
        lambda: save_new(CredentialFiles(tmp_path / "file"), "a.json", b"{}"),
        lambda: delete_all(tmp_path / "file"),
    ):
        with pytest.raises(CredentialFileError) as refused:
            work()
        assert refused.value.http_status == 500
        assert str(tmp_path) not in refused.value.message


def test_many_edits_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each of eight threads changes members of its own; in the end all are there."""
    (tmp_path / "a.json").write_text('{"type": "x"}')

    def work(number: int) -> None:
        for step in range(5):
            patch_file(tmp_path, "a.json", {f"own{number}": step})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = content_of(tmp_path, "a.json")
    assert all(b'"own%d": 4' % number in found for number in range(8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json"]


def test_an_edit_between_reading_and_replacing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody replaces the file at the last moment."""
    path = tmp_path / "a.json"
    path.write_text('{"type": "x"}')
    calls: list[Path] = []

    def interrupted(one: Path, other: Path) -> bool:
        if not calls:
            theirs = tmp_path / "theirs"
            theirs.write_text('{"type": "x", "theirs": 1}')
            theirs.rename(path)
        calls.append(one)
        return exchange(one, other)

    monkeypatch.setattr("cpa.credentials.writing._exchange", interrupted)
    assert patch_file(tmp_path, "a.json", {"ours": 2})
    assert path.read_text() == '{"type": "x", "theirs": 1, "ours": 2}'
