"""Which libraries lie in the plugins folder, and which file serves which plugin (plugin-abi.md 1.2–1.6).

Directory reads and nothing else: no file is opened, loaded or deleted. All candidates of one id, wherever they lie,
compete; a folder that cannot be read counts as empty and is reported, so that it cannot take the others' plugins away.
"""

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from cpa.config.schema import PluginEntry
from cpa.types import PluginId

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z.+-]*")

_GOOS: Final[Mapping[str, str]] = {"linux": "linux", "darwin": "darwin", "win32": "windows"}
_GOARCH: Final[Mapping[str, str]] = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "i386": "386",
    "i686": "386",
    "armv6l": "arm",
    "armv7l": "arm",
}
"""Names of `platform.machine`, in lower case; other machines have the same name in Go."""
_EXTENSIONS: Final[Mapping[str, str]] = {"darwin": ".dylib", "windows": ".dll"}

_VARIANTS: Final = (
    ("v4", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})),
    ("v3", frozenset({"avx", "avx2", "bmi1", "bmi2", "fma"})),
    ("v2", frozenset({"pni", "ssse3", "sse4_1", "sse4_2", "popcnt"})),
)
"""Best first, with the flags that Linux has for them (``pni`` is SSE3)."""

HASH_PIECE_BYTES: Final = 1024 * 1024


@attrs.frozen(kw_only=True)
class Platform:
    """What this machine is called in folder names. *variant* is empty except on amd64."""

    goos: str
    goarch: str
    variant: str = ""

    @property
    def extension(self) -> str:
        """Of dynamic libraries, lower case."""
        return _EXTENSIONS.get(self.goos, ".so")


def cpu_variant(flags: frozenset[str]) -> str:
    """The highest amd64 variant that a processor with these Linux *flags* has: ``v1`` to ``v4``."""
    return next((name for name, needed in _VARIANTS if needed <= flags), "v1")


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Flags of the first processor in the text of ``/proc/cpuinfo``; none when there are none."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def this_platform() -> Platform:
    """The machine that we run on. Reads ``/proc/cpuinfo``; where that is missing the variant is ``v1``."""
    goos = _GOOS.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    goarch = _GOARCH.get(machine, machine)
    if goarch != "amd64":
        return Platform(goos=goos, goarch=goarch)
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    return Platform(goos=goos, goarch=goarch, variant=cpu_variant(cpu_flags(cpuinfo)))


def folders(root: Path, machine: Platform) -> tuple[Path, ...]:
    """Where libraries are looked for, most specific first; none of them recursively."""
    system = root / machine.goos
    plain = (system / machine.goarch, root)
    return (system / f"{machine.goarch}-{machine.variant}", *plain) if machine.variant else plain


@attrs.frozen(kw_only=True)
class FileStamp:
    """Tells whether a file is still the same without reading it. Every write changes the last field (nanoseconds)."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileStamp":
        """The stamp in a stat result."""
        return cls(
            device=status.st_dev,
            inode=status.st_ino,
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            changed_ns=status.st_ctime_ns,
        )


@attrs.frozen(kw_only=True)
class PluginFile:
    """One library.

    Attributes:
      path: as the configuration writes the folder: relative to the working directory if that is.
      version: from the file name; may be empty.
      stamp: when it was found.
    """

    id: PluginId
    path: Path
    version: str
    stamp: FileStamp

    def sha256(self) -> str:
        """Digest of the content as it is now, 64 hex digits. Reads the whole file. Raises: OSError."""
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while piece := stream.read(HASH_PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()


@attrs.frozen(kw_only=True)
class IgnoredFile:
    """A file with the extension of a library that serves no plugin. *id* is empty when its name gives none."""

    path: Path
    id: str
    reason: str


@attrs.frozen(kw_only=True)
class Discovery:
    """What was found.

    Attributes:
      selected: one file per plugin, in order of first discovery.
      warnings: one line for each folder that could not be read.
    """

    selected: tuple[PluginFile, ...] = ()
    ignored: tuple[IgnoredFile, ...] = ()
    warnings: tuple[str, ...] = ()

    def file_of(self, plugin_id: str) -> PluginFile | None:
        """The file that serves *plugin_id*."""
        return next((file for file in self.selected if file.id == plugin_id), None)

    def why_not(self, plugin_id: str) -> str:
        """Why files of *plugin_id* were ignored, the last one's reason; empty when there are none."""
        return next((file.reason for file in reversed(self.ignored) if file.id == plugin_id), "")


def split_name(name: str) -> tuple[PluginId, str] | None:
    """Id and version in the base *name* of a library, without extension; None when it gives no valid id."""
    at = name.rfind("-v")
    if at > 0:
        plugin_id, version = name[:at], name[at + 2 :]
        if _ID.fullmatch(plugin_id) and _VERSION.fullmatch(version):
            return PluginId(plugin_id), version
    return (PluginId(name), "") if _ID.fullmatch(name) else None


def pinned_version(entry: PluginEntry | None) -> str:
    """The file version that the plugin store wants for a plugin; empty when it wants none, or writes nonsense."""
    if entry is None or not isinstance(entry.raw, Mapping):
        return ""
    store = entry.raw.get("store")
    if not isinstance(store, Mapping):
        return ""
    for key in ("version", "release-tag"):
        value = store.get(key)
        # YAML reads an unquoted 1.2 as a number.
        usable = isinstance(value, str | int | float) and not isinstance(value, bool)
        text = str(value).strip() if usable else ""
        if text:
            text = text[1:] if text[0] in "vV" else text
            return text if _VERSION.fullmatch(text) else ""
    return ""


def version_is_higher(one: str, other: str) -> bool:
    """Whether version *one* is above *other*: by segments that are numbers, else bytewise (plugin-abi 1.4)."""
    ours, theirs = one.split("."), other.split(".")
    for at in range(max(len(ours), len(theirs))):
        left = ours[at] if at < len(ours) else "0"
        right = theirs[at] if at < len(theirs) else "0"
        if not (_is_number(left) and _is_number(right)):
            return one.encode() > other.encode()
        if int(left) != int(right):
            return int(left) > int(right)
    return False


def _is_number(segment: str) -> bool:
    return segment.isascii() and segment.isdigit()


def _preferred(new: PluginFile, current: PluginFile, pin: str) -> bool:
    """Whether *new*, found later, takes the place of *current*."""
    if pin and (new.version == pin) != (current.version == pin):
        return new.version == pin
    if not new.version or not current.version:
        return bool(new.version) and not current.version
    return version_is_higher(new.version, current.version)


def discover(root: Path, configs: Mapping[str, PluginEntry], machine: Platform | None = None) -> Discovery:
    """Look for libraries below *root*; blocks for as long as the file system does.

    Args:
      configs: ``plugins.configs``; only pinned versions matter here.
      machine: None = this one.

    Never raises for what it finds; see `Discovery.warnings`.
    """
    machine = machine or this_platform()
    chosen: dict[str, PluginFile] = {}
    ignored: list[IgnoredFile] = []
    warnings: list[str] = []
    for folder in folders(root, machine):
        for path, found in _libraries(folder, machine.extension, warnings):
            if isinstance(found, str):
                ignored.append(IgnoredFile(path=path, id="", reason=found))
                continue
            current = chosen.get(found.id)
            if current is None:
                chosen[found.id] = found
                continue
            winner, loser = (
                (found, current)
                if _preferred(found, current, pinned_version(configs.get(found.id)))
                else (current, found)
            )
            chosen[found.id] = winner
            ignored.append(IgnoredFile(path=loser.path, id=loser.id, reason=f"{winner.path} is preferred"))
    for plugin_id, file in list(chosen.items()):
        pin = pinned_version(configs.get(plugin_id))
        if pin and file.version != pin:
            del chosen[plugin_id]
            reason = f"version {pin} is pinned in plugins.configs.{plugin_id}.store"
            ignored.append(IgnoredFile(path=file.path, id=plugin_id, reason=reason))
    return Discovery(selected=tuple(chosen.values()), ignored=tuple(ignored), warnings=tuple(warnings))


def _libraries(folder: Path, extension: str, warnings: list[str]) -> Iterator[tuple[Path, PluginFile | str]]:
    """Files of *folder* with the extension, in byte order: the library, or why it is none."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except FileNotFoundError:
        return
    except OSError as exc:
        warnings.append(f"{folder}: cannot be read and counts as empty: {exc.strerror or exc}")
        return
    for entry in found:
        name, ending = entry.name[: -len(extension)], entry.name[-len(extension) :]
        if ending.lower() != extension:
            continue
        path = folder / entry.name
        try:
            if not entry.is_file(follow_symlinks=False):
                yield path, "symbolic link" if entry.is_symlink() else "not a regular file"
                continue
            split = split_name(name)
            if split is None:
                yield path, "its name gives no valid plugin id"
                continue
            stamp = FileStamp.of(entry.stat(follow_symlinks=False))
        except OSError as exc:  # removed while we looked
            yield path, f"cannot be examined: {exc.strerror or exc}"
            continue
        yield path, PluginFile(id=split[0], path=path, version=split[1], stamp=stamp)
