"""Which files serve which plugin."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cpa.config.schema import PluginEntry, freeze
from cpa.host.discovery import (
    FileStamp,
    Platform,
    cpu_flags,
    cpu_variant,
    discover,
    folders,
    pinned_version,
    split_name,
    this_platform,
    version_is_higher,
)

LINUX = Platform(goos="linux", goarch="amd64", variant="v3")
V2 = {"pni", "ssse3", "sse4_1", "sse4_2", "popcnt"}
V3 = {"avx", "avx2", "bmi1", "bmi2", "fma"}
V4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def put(root: Path, *names: str) -> None:
    """Empty files, with their folders."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def pin(**store: object) -> PluginEntry:
    """An entry that the plugin store wrote."""
    raw: Any = freeze({"enabled": True, "store": store})
    return PluginEntry(enabled=True, raw=raw)


def chosen(root: Path, configs: Mapping[str, PluginEntry] | None = None, machine: Platform = LINUX) -> dict[str, str]:
    """Id to path, relative to *root*."""
    return {file.id: str(file.path.relative_to(root)) for file in discover(root, configs or {}, machine).selected}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("simple-go", ("simple-go", "")),
        ("acme-v1.2.3", ("acme", "1.2.3")),
        ("acme-v2-beta", ("acme", "2-beta")),
        ("acme-vision", ("acme-vision", "")),
        ("acme-v1-v2", ("acme-v1", "2")),
        ("acme-v1-vx", ("acme-v1-vx", "")),
        ("-v1", None),
        ("-bad", None),
        ("a b", None),
        ("", None),
        ("x" * 128, ("x" * 128, "")),
        ("x" * 129, None),
        ("acme\n", None),
        ("acme-v1\n", None),
        ("ümlaut", None),
    ],
)
def test_a_file_name_gives_id_and_version(name: str, expected: tuple[str, str] | None) -> None:
    """The table of plugin-abi 1.3 and its edges."""
    assert split_name(name) == expected


@pytest.mark.parametrize(
    ("one", "other", "higher"),
    [
        ("1.10", "1.9", True),
        ("1.9", "1.10", False),
        ("1.0", "1", False),
        ("1", "1.0", False),
        ("1.0.1", "1", True),
        ("2", "1.9-beta", True),
        ("1.0-rc2", "1.0-rc1", True),
        ("1.0-rc1", "1.0", True),
        ("01", "1", False),
    ],
)
def test_versions_are_compared_by_numbers_else_bytewise(one: str, other: str, higher: bool) -> None:
    """The first segment that differs decides (plugin-abi 1.4)."""
    assert version_is_higher(one, other) is higher


@pytest.mark.parametrize(
    ("flags", "variant"),
    [
        (set(), "v1"),
        (V2, "v2"),
        (V2 - {"popcnt"}, "v1"),
        (V2 | V3, "v3"),
        (V2 | V3 | V4 - {"avx512vl"}, "v3"),
        (V2 | V3 | V4, "v4"),
    ],
)
def test_the_highest_variant_is_the_one(flags: set[str], variant: str) -> None:
    """Only that folder is looked at."""
    assert cpu_variant(frozenset(flags)) == variant


def test_flags_are_those_of_the_first_processor() -> None:
    """Machines with different processors do not exist; files without flags do (arm64)."""
    assert cpu_flags("processor\t: 0\nflags\t\t: fpu avx\n\nprocessor: 1\nflags: sse\n") == {"fpu", "avx"}
    assert cpu_flags("Features : fp asimd\n") == frozenset()


def test_folders_have_an_order() -> None:
    """Most specific first; without variant two."""
    root = Path("p")
    assert folders(root, LINUX) == (root / "linux/amd64-v3", root / "linux/amd64", root)
    assert folders(root, Platform(goos="linux", goarch="arm64")) == (root / "linux/arm64", root)


def test_this_machine_has_gos_names() -> None:
    """A variant belongs to amd64 and to nothing else."""
    here = this_platform()
    assert (here.variant in {"v1", "v2", "v3", "v4"}) == (here.goarch == "amd64")
    assert here.extension == {"darwin": ".dylib", "windows": ".dll"}.get(here.goos, ".so")


def test_all_folders_are_searched_and_the_first_found_wins_among_equals(tmp_path: Path) -> None:
    """Other variants are not looked at; neither are folders within."""
    put(tmp_path, "a.so", "linux/amd64/a.so", "linux/amd64-v3/a.so", "linux/amd64-v2/b.so", "deep/c.so", "d.SO", "e.so")
    assert chosen(tmp_path) == {"a": "linux/amd64-v3/a.so", "d": "d.SO", "e": "e.so"}


def test_a_version_beats_none_wherever_it_lies(tmp_path: Path) -> None:
    """Directory order only decides between equals (plugin-abi 1.4, appendix D)."""
    put(tmp_path, "x-v1.2.so", "linux/amd64/x.so", "linux/amd64/y-v1.so", "y-v2.so", "z-v2.so", "z.so")
    assert chosen(tmp_path) == {"x": "x-v1.2.so", "y": "y-v2.so", "z": "z-v2.so"}


def test_paths_come_in_byte_order(tmp_path: Path) -> None:
    """Order of first discovery is kept."""
    put(tmp_path, "b.so", "a.so", "B.so", "a-b.so")
    assert list(chosen(tmp_path)) == ["B", "a-b", "a", "b"]


def test_only_regular_files_with_good_names_count(tmp_path: Path) -> None:
    """Everything else is named with its reason; files without the extension are not even that."""
    put(tmp_path, "a.so", "-bad.so", "a b.so", ".so", "notes.txt", "a.so.bak")
    (tmp_path / "link.so").symlink_to(tmp_path / "a.so")
    (tmp_path / "folder.so").mkdir()
    found = discover(tmp_path, {}, LINUX)
    assert [file.id for file in found.selected] == ["a"]
    assert {file.path.name: file.reason for file in found.ignored} == {
        "-bad.so": "its name gives no valid plugin id",
        "a b.so": "its name gives no valid plugin id",
        ".so": "its name gives no valid plugin id",
        "link.so": "symbolic link",
        "folder.so": "not a regular file",
    }


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ({"version": "1.0"}, "a-v1.0.so"),
        ({"version": " v1.0 "}, "a-v1.0.so"),
        ({"release-tag": "V1.0"}, "a-v1.0.so"),
        ({"version": "2.0", "release-tag": "1.0"}, "a-v2.0.so"),
        ({"version": "", "release-tag": "1.0"}, "a-v1.0.so"),
        ({"version": 1.0}, "a-v1.0.so"),
        ({"version": "latest"}, "a-v2.0.so"),
        ({"version": True}, "a-v2.0.so"),
        ({}, "a-v2.0.so"),
    ],
)
def test_a_pinned_version_is_taken(tmp_path: Path, store: dict[str, object], expected: str) -> None:
    """Whatever is no version pins nothing (plugin-abi 1.5)."""
    put(tmp_path, "a-v1.0.so", "a-v2.0.so", "a.so")
    assert chosen(tmp_path, {"a": pin(**store)}) == {"a": expected}


def test_without_its_pinned_version_a_plugin_is_left_out(tmp_path: Path) -> None:
    """And the reason says so."""
    put(tmp_path, "a-v1.0.so", "b.so")
    found = discover(tmp_path, {"a": pin(version="3.0")}, LINUX)
    assert [file.id for file in found.selected] == ["b"]
    assert found.file_of("a") is None
    assert found.why_not("a") == "version 3.0 is pinned in plugins.configs.a.store"
    assert found.why_not("b") == ""


def test_settings_that_are_no_mapping_pin_nothing() -> None:
    """They are the plugin's own business."""
    assert pinned_version(PluginEntry(raw="text")) == ""
    assert pinned_version(PluginEntry(raw=freeze({"store": "1.0"}))) == ""
    assert pinned_version(None) == ""


def test_nothing_is_deleted(tmp_path: Path) -> None:
    """Duplicates stay and are named (plugin-abi 10, 6)."""
    put(tmp_path, "a-v1.so", "a-v2.so", "a.so", "linux/amd64/a-v1.so")
    found = discover(tmp_path, {}, LINUX)
    assert sorted(str(file.path.relative_to(tmp_path)) for file in found.ignored) == [
        "a-v1.so",
        "a.so",
        "linux/amd64/a-v1.so",
    ]
    assert {file.reason for file in found.ignored} <= {
        f"{tmp_path / 'a-v2.so'} is preferred",
        f"{tmp_path / 'linux/amd64/a-v1.so'} is preferred",
    }
    assert len(list(tmp_path.rglob("*.so"))) == 4


def test_a_missing_folder_is_no_news(tmp_path: Path) -> None:
    """The default folder need not exist."""
    assert discover(tmp_path / "none", {}, LINUX) == discover(tmp_path, {}, LINUX)
    assert discover(tmp_path / "none", {}, LINUX).warnings == ()


def test_a_folder_that_cannot_be_read_counts_as_empty(tmp_path: Path) -> None:
    """It must not take the others' plugins away (plugin-abi 10, 11)."""
    put(tmp_path, "a.so", "linux/amd64")
    found = discover(tmp_path, {}, LINUX)
    assert [file.id for file in found.selected] == ["a"]
    assert len(found.warnings) == 1
    assert str(tmp_path / "linux/amd64") in found.warnings[0]


def test_a_stamp_changes_with_every_write(tmp_path: Path) -> None:
    """Also when size and modification time are made the same again: nobody has to read the file to see that."""
    put(tmp_path, "a.so")
    path = tmp_path / "a.so"
    (before,) = discover(tmp_path, {}, LINUX).selected
    assert discover(tmp_path, {}, LINUX).selected == (before,)
    assert before.sha256() == hashlib.sha256(b"a.so").hexdigest()
    path.write_bytes(b"b.so")
    os.utime(path, ns=(before.stamp.modified_ns, before.stamp.modified_ns))
    (after,) = discover(tmp_path, {}, LINUX).selected
    assert (after.stamp.size_bytes, after.stamp.modified_ns) == (before.stamp.size_bytes, before.stamp.modified_ns)
    assert after != before
    assert after.stamp == FileStamp.of(path.stat())
