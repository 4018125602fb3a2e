"""Credential files: what is found, and that nothing is written in half or elsewhere."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cpa.credentials.files import MAX_FILE_BYTES, CredentialFileError, CredentialFiles
from cpa.credentials.from_config import auth_index

ACME = b'{"type":"Acme","token":"t","label":"me","priority":"7"}'


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_saved_file_is_found_again(tmp_path: Path) -> None:
    """By name, and by an index that survives restarts."""
    files = CredentialFiles(tmp_path)
    path = files.save("acme-me.json", ACME)
    (file,) = files.list()
    assert (file.name, file.path, file.type, file.provider) == ("acme-me.json", path, "Acme", "acme")
    assert file.index == auth_index(f"acme:{tmp_path}/acme-me.json")
    assert (file.size_bytes, file.text("label"), file.integer("priority")) == (len(ACME), "me", 7)
    assert CredentialFiles(tmp_path).find(file.index) == file
    assert files.read(file.index) == (path, ACME)
    assert "token" not in repr(file)


def test_files_and_directory_are_private(tmp_path: Path) -> None:
    """Whatever the umask and whatever was there before."""
    directory = tmp_path / "auths"
    files = CredentialFiles(directory)
    old = os.umask(0)
    try:
        path = files.save("a.json", ACME)
        path.chmod(0o644)
        files.save("a.json", ACME)
    finally:
        os.umask(old)
    assert mode(directory) == 0o700
    assert mode(path) == 0o600


def test_content_is_written_as_given(tmp_path: Path) -> None:
    """Unknown members, spelling and white space are the plugin's."""
    data = b'{ "type" : "acme",\n "n": 12345678901234567890, "u": "\xc3\xa9" }'
    path = CredentialFiles(tmp_path).save("a.JSON", data)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "name",
    ["", "a/b.json", "/etc/a.json", "../a.json", "a\\b.json", "C:a.json", "a\0.json", "a\n.json", " a.json"],
)
def test_names_cannot_leave_the_directory(tmp_path: Path, name: str) -> None:
    """Nothing but a bare file name will do."""
    directory = tmp_path / "auths"
    with pytest.raises(CredentialFileError, match="invalid auth file name") as caught:
        CredentialFiles(directory).save(name, ACME)
    assert caught.value.http_status == 400
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".json", "..json", "...json", "\ud800.json", "x" * 300 + ".json"])
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    """No file system or listing could hold them well."""
    with pytest.raises(CredentialFileError, match="invalid auth file name"):
        CredentialFiles(tmp_path).save(name, ACME)


@pytest.mark.parametrize("name", ["x.txt", "x", ".", "..", "json", "x.json.bak"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    """They would never be found again."""
    with pytest.raises(CredentialFileError, match=r"auth file name must end with \.json"):
        CredentialFiles(tmp_path).save(name, ACME)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "json is required"),
        (b"null", "json is required"),
        (b"[1]", "invalid auth json: expected a JSON object"),
        (b'"x"', "invalid auth json: expected a JSON object"),
        (b"{", "invalid auth json: "),
        (b'{"type":NaN}', "invalid auth json: "),
        (b'{"weight":"x"}', "invalid auth weight: expected an integer"),
        (b'{"weight":1.5}', "invalid auth weight: expected an integer"),
        (b'{"weight":true}', "invalid auth weight: expected an integer"),
        (b'{"weight":1000001}', "invalid auth weight: expected at most 1000000, got 1000001"),
        (b"[" * 100_000, "invalid auth json: "),
        (b'{"a":"%b"}' % (b"x" * MAX_FILE_BYTES), "invalid auth json: larger than"),
    ],
    ids=str,
)
def test_what_is_no_credential_is_refused(tmp_path: Path, data: bytes, text: str) -> None:
    """An existing file stays as it is."""
    files = CredentialFiles(tmp_path)
    path = files.save("a.json", ACME)
    with pytest.raises(CredentialFileError) as caught:
        files.save("a.json", data)
    assert caught.value.message.startswith(text)
    assert path.read_bytes() == ACME


@pytest.mark.parametrize("weight", [b"0", b"-3", b"1000000", b'"12"', b"null"])
def test_usable_weights_pass(tmp_path: Path, weight: bytes) -> None:
    """Numbers may be strings; negative ones count as 0."""
    CredentialFiles(tmp_path).save("a.json", b'{"weight":%b}' % weight)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no scratch file; the disk is full at the worst moment."""
    files = CredentialFiles(tmp_path)
    path = files.save("a.json", ACME)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CredentialFileError, match="failed to write auth file: No space left on device"):
        files.save("a.json", b'{"type":"other"}')
    assert path.read_bytes() == ACME
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    """A link in the directory must not make a plugin's save overwrite a file elsewhere."""
    outside, directory = tmp_path / "outside", tmp_path / "auths"
    outside.write_bytes(b"precious")
    directory.mkdir()
    (directory / "a.json").symlink_to(outside)
    CredentialFiles(directory).save("a.json", ACME)
    assert outside.read_bytes() == b"precious"
    assert (directory / "a.json").read_bytes() == ACME


def test_readers_see_whole_files_only(tmp_path: Path) -> None:
    """Saves of one name in many threads: one of them wins, and nobody reads a mixture."""
    files = CredentialFiles(tmp_path)
    contents = [b'{"type":"acme","n":"%b"}' % (b"%d" % number * 5000) for number in range(8)]
    index = auth_index(f"acme:{tmp_path}/a.json")
    files.save("a.json", contents[0])

    def read(_: bytes) -> bytes:
        return files.read(index)[1]

    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(files.save, "a.json", content) for content in contents * 4]
        assert all(data in contents for data in pool.map(read, contents * 8))
        for future in writing:
            future.result()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_listing_takes_what_is_a_credential(tmp_path: Path) -> None:
    """Sorted without regard to case; what cannot be read is left out, not in the way."""
    for name in ("b.json", "A.json", "c.JSON"):
        (tmp_path / name).write_bytes(ACME)
    (tmp_path / "broken.json").write_bytes(b"{")
    (tmp_path / "empty.json").write_bytes(b"")
    (tmp_path / "list.json").write_bytes(b"[]")
    (tmp_path / "huge.json").write_bytes(b" " * (MAX_FILE_BYTES + 1))
    (tmp_path / "x.txt").write_bytes(ACME)
    (tmp_path / "dir.json").mkdir()
    (tmp_path / "dangling.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.json")
    assert [file.name for file in CredentialFiles(tmp_path).list()] == ["A.json", "b.json", "c.JSON"]


def test_a_missing_directory_has_no_files(tmp_path: Path) -> None:
    """It is made by the first save."""
    assert CredentialFiles(tmp_path / "none").list() == ()


def test_a_directory_that_is_none_is_reported(tmp_path: Path) -> None:
    """Rather than taken for empty."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CredentialFileError, match="failed to read auth dir: "):
        CredentialFiles(tmp_path / "file").list()


def test_changes_are_seen(tmp_path: Path) -> None:
    """Unchanged files are not read again, changed ones are."""
    files = CredentialFiles(tmp_path)
    files.save("a.json", ACME)
    (first,) = files.list()
    assert files.list()[0] is first
    files.save("a.json", b'{"type":"acme","label":"you"}')
    assert files.list()[0].text("label") == "you"
    (tmp_path / "a.json").unlink()
    assert files.list() == ()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b" \n", "auth file is empty for auth_index {}"),
        (b"{", "invalid auth file for auth_index {}: "),
        (b"[]", "invalid auth file for auth_index {}: expected a JSON object"),
        (None, "auth not found for auth_index {}"),
    ],
    ids=str,
)
def test_a_file_that_went_bad_says_so(tmp_path: Path, content: bytes | None, text: str) -> None:
    """Its index was handed out while it was good."""
    files = CredentialFiles(tmp_path)
    path = files.save("a.json", ACME)
    (file,) = files.list()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CredentialFileError) as caught:
        files.read(file.index)
    assert caught.value.message.startswith(text.format(file.index))


def test_an_unknown_index_is_reported(tmp_path: Path) -> None:
    """With the contract's text."""
    with pytest.raises(CredentialFileError, match="auth not found for auth_index 00") as caught:
        CredentialFiles(tmp_path).read("00")
    assert caught.value.http_status == 404
