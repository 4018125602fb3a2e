"""Compiles the benchmark's plugins, in C always, in Rust and Go where the compilers are."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from tests.bench.processes import ROOT, StartError

SOURCES = Path(__file__).with_name("plugins")
C_FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-O2")
LIBRARY_FLAGS = ("-shared", "-fPIC", f"-I{ROOT / 'cpa' / 'abi'}")
COMPILER_S = 120.0
"""Go compiles its runtime at the first build."""


class Language(StrEnum):
    """What plugins are written in; each brings a runtime of another size."""

    C = "C"
    RUST = "Rust"
    GO = "Go"


def compile_echo(
    target: Path, *, schema: int = 3, mark: str = "", intercepts: bool = False, record: Path | None = None
) -> Path:
    """``plugins/echo.c`` as *target*, which writes sizes of requests and replies to *record*. Raises: StartError."""
    flags = [f"-DSCHEMA={schema}", f'-DMARK="{mark}"', *(["-DINTERCEPTS"] if intercepts else [])]
    if record is not None:
        flags.append(f'-DRECORD="{record}"')
    run(["gcc", *C_FLAGS, *LIBRARY_FLAGS, *flags, str(SOURCES / "echo.c"), "-o", str(target)])
    return target


def compile_loader(target: Path) -> Path:
    """``plugins/loader.c`` as the program *target*. Raises: StartError."""
    run(["gcc", *C_FLAGS, str(SOURCES / "loader.c"), "-o", str(target), "-ldl"])
    return target


def compile_pong(target: Path) -> Path:
    """``plugins/pong.c`` as the program *target*. Raises: StartError."""
    run(["gcc", *C_FLAGS, str(SOURCES / "pong.c"), "-o", str(target)])
    return target


def compile_empty(folder: Path, languages: Sequence[Language] = tuple(Language)) -> Mapping[Language, Path]:
    """A plugin that does nothing, in each of *languages* that has a compiler here. Raises: StartError."""
    found: dict[Language, Path] = {}
    for language in languages:
        target = folder / f"empty-{language.lower()}.so"
        if language is Language.C:
            found[language] = compile_echo(target)
        elif language is Language.RUST and shutil.which("rustc"):
            options = ("--edition", "2021", "--crate-type", "cdylib", "-O")
            run(["rustc", *options, str(SOURCES / "empty.rs"), "-o", str(target)])
            found[language] = target
        elif language is Language.GO and shutil.which("go"):
            run(["go", "build", "-buildmode=c-shared", "-o", str(target), "."], cwd=SOURCES / "go")
            found[language] = target
    return found


def run(command: Sequence[str], cwd: Path | None = None) -> None:
    """Run a compiler. Raises: StartError with what it said."""
    # Nothing may be fetched: not a toolchain because of a version in go.mod, not a module.
    offline = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **offline},
            timeout=COMPILER_S,
            capture_output=True,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StartError(f"{command[0]}: {exc}") from exc
    if done.returncode:
        raise StartError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
