"""The example plugins as their own Makefile builds them: once per session, by whichever of its processes is first."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.native.build import go_cache, needed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples" / "plugin"
HEADERS = (f"-I{ROOT / 'cpa' / 'abi'}", f"-I{EXAMPLES / 'lib' / 'c'}")
SOURCES = {"c": "c/plugin.c", "go": "go/main.go", "rust": "rust/Cargo.toml"}
TOOLS = {"c": "gcc", "go": "go", "rust": "cargo"}
BARE = frozenset(
    {
        "codex-service-tier",
        "host-callback-auth-files",
        "host-model-callback",
        "redact",
        "request-lifecycle",
        "scheduler",
    }
)
"""Examples of one language only, which go by their own names."""
BUILD_S = 540.0


@attrs.frozen
class Example:
    """One example in one language.

    Attributes:
      name: of its folder.
      language: ``c``, ``go`` or ``rust``.
    """

    name: str
    language: str

    @property
    def id(self) -> str:
        """Of the plugin: the library's name."""
        return self.name if self.name in BARE else f"{self.name}-{self.language}"

    @property
    def says(self) -> str:
        """What single-capability examples call themselves in their metadata and answers."""
        return f"example-{self.name}-{self.language}"

    def __str__(self) -> str:
        return f"{self.name}-{self.language}"


def languages_of(name: str) -> tuple[str, ...]:
    """In which languages an example is there."""
    return tuple(language for language, source in SOURCES.items() if (EXAMPLES / name / source).exists())


def all_examples() -> tuple[Example, ...]:
    """Every example in every language that it is written in."""
    folders = (path for path in EXAMPLES.iterdir() if path.is_dir())
    names = sorted(path.name for path in folders if path.name not in {"bin", "build", "lib"})
    return tuple(Example(name, language) for name in names for language in languages_of(name))


@attrs.frozen
class Library:
    """Compiled examples in *folder*, made on demand by language: all of a language at a time, in parallel.

    Attributes:
      folder: one for all processes of a session.
      go_cache: likewise.
    """

    folder: Path
    go_cache: str

    def __getitem__(self, example: Example) -> Path:
        """The library. Without the language's tools the test is skipped, or fails where nothing may be skipped."""
        needed(TOOLS[example.language])
        path = self.folder / "bin" / f"{example.id}.so"
        if not path.exists():
            with self._locked(example.language):
                if not path.exists():
                    self._make(example.language)
        return path

    def probe(self) -> Path:
        """The tests' own plugin, made with the helper of the examples."""
        path = self.folder / "probe.so"
        with self._locked("probe"):
            if not path.exists():
                flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", *HEADERS]
                scratch = path.with_suffix(".new")
                run([needed("gcc"), *flags, str(HERE / "probe.c"), "-o", str(scratch)])
                scratch.rename(path)
        return path

    def _make(self, language: str) -> None:
        makefile = [needed("make"), "-C", str(EXAMPLES), "-j2", "build"]
        folders = [f"BIN={self.folder / 'bin'}", f"BUILD={self.folder / 'build'}"]
        run([*makefile, f"LANGUAGES={language}", *folders, "CFLAGS=-O1 -Werror"], GOCACHE=self.go_cache)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Only one process of the session builds; the others wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def run(command: list[str], **more: str) -> None:
    """A build step; what it says is shown when it fails."""
    # MAKEFLAGS and MAKELEVEL come from the `make test` around us and mean its jobs, not ours.
    kept = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    done = subprocess.run(command, env={**kept, **more}, timeout=BUILD_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def session_library(factory: pytest.TempPathFactory) -> Library:
    """The same for all processes of a session."""
    base = factory.getbasetemp()
    session = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return Library(session / "examples", go_cache(base))


def install(library: Path, folder: Path, plugin_id: str) -> None:
    """Put a library into a plugins folder."""
    shutil.copyfile(library, folder / f"{plugin_id}.so")
