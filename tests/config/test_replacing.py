"""A file is replaced whole or not at all, and never over somebody else's edit."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cpa.config import exchanging, replacing
from cpa.config.document import MAX_DOCUMENT_BYTES
from cpa.config.replacing import held, read_file, replace_file
from cpa.errors import EditError


@pytest.fixture(params=["exchange", "rename"])
def file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """With the exchange of files, and as on systems that have none."""
    if request.param == "rename":
        monkeypatch.setattr(exchanging, "renameat2", lambda: None)
    path = tmp_path / "config.yaml"
    path.write_bytes(b"old")
    return path


def alone(path: Path) -> bool:
    """No scratch files are left."""
    return [name for name in os.listdir(path.parent) if name.startswith(".")] == []


def test_the_content_changes_and_the_mode_stays(file: Path) -> None:
    """Whoever may read it may do so afterwards, nobody else."""
    file.chmod(0o640)
    assert replace_file(file, expected=b"old", data=b"new")
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert alone(file)


def test_what_is_not_expected_stays(file: Path) -> None:
    """It is somebody else's edit."""
    assert not replace_file(file, expected=b"older", data=b"new")
    assert not replace_file(file, expected=None, data=b"new")
    assert file.read_bytes() == b"old"
    assert alone(file)


def test_a_new_file_is_private_and_never_over_another(file: Path) -> None:
    """It holds keys."""
    path = file.with_name("other.yaml")
    assert not replace_file(path, expected=b"", data=b"new")
    assert replace_file(path, expected=None, data=b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not replace_file(path, expected=None, data=b"newer")
    assert alone(file)


def test_links_are_followed(file: Path, tmp_path: Path) -> None:
    """Kubernetes mounts ``config.yaml -> ..data/config.yaml`` and swaps ``..data``."""
    mount = tmp_path / "mount"
    (mount / "..1").mkdir(parents=True)
    (mount / "..data").symlink_to("..1")
    (mount / "..1" / "config.yaml").write_bytes(b"old")
    (mount / "config.yaml").symlink_to("..data/config.yaml")
    assert replace_file(mount / "config.yaml", expected=b"old", data=b"new")
    assert (mount / "config.yaml").is_symlink()
    assert (mount / "..1" / "config.yaml").read_bytes() == b"new"


def racing(monkeypatch: pytest.MonkeyPatch, edits: list[Callable[[Path], object]]) -> None:
    """Let others edit right before each exchange."""
    exchange = replacing.exchange

    def late(one: Path, other: Path) -> bool:
        if edits:
            edits.pop(0)(other)
        return exchange(one, other)

    monkeypatch.setattr(replacing, "exchange", late)


@pytest.mark.parametrize("in_place", [True, False])
def test_an_edit_in_the_same_instant_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool) -> None:
    """Two of them: the later one is in place at the end."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"old")

    def writes(content: bytes) -> Callable[[Path], object]:
        def edit(target: Path) -> None:
            if in_place:
                target.write_bytes(content)
            else:
                other = tmp_path / "theirs"
                other.write_bytes(content)
                other.rename(target)

        return edit

    racing(monkeypatch, [writes(b"theirs"), writes(b"theirs again")])
    assert not replace_file(path, expected=b"old", data=b"new")
    assert path.read_bytes() == b"theirs again"
    assert alone(path)


def test_a_mount_point_is_written_in_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a container has mounted cannot be renamed."""

    def busy(*_: object) -> bool:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(replacing, "exchange", busy)
    inode = file.stat().st_ino
    assert replace_file(file, expected=b"old", data=b"n")
    assert (file.read_bytes(), file.stat().st_ino) == (b"n", inode)
    assert alone(file)


def test_where_nothing_can_be_written(file: Path) -> None:
    """The error says where and why. No file can be made in /proc, by nobody."""
    path = Path("/proc/version")
    with pytest.raises(EditError, match="cannot write /proc/version: ") as caught:
        replace_file(path, expected=path.read_bytes(), data=b"x")
    assert caught.value.http_status == 500
    if os.geteuid():  # nothing is read-only to root
        file.chmod(0o400)
        with pytest.raises(EditError, match="Permission denied"):
            replace_file(file, expected=b"old", data=b"new")
        assert file.read_bytes() == b"old"
    with pytest.raises(EditError, match=r"cannot write .*: No such file"):
        replace_file(file.parent / "nowhere" / "a", expected=None, data=b"new")
    with pytest.raises(EditError, match=r"cannot write .*: No such file"), held(file.parent / "nowhere" / "a"):
        pass


def test_reading(tmp_path: Path) -> None:
    """No more than a configuration may have, and one."""
    assert read_file(tmp_path / "a") is None
    with pytest.raises(EditError, match="cannot read"):
        read_file(tmp_path)
    with (tmp_path / "big").open("wb") as big:
        big.truncate(MAX_DOCUMENT_BYTES * 2)
    assert len(read_file(tmp_path / "big") or b"") == MAX_DOCUMENT_BYTES + 1
