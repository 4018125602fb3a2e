"""Builds the test plugins in C, Go and Rust, each content once per session, without network.

Go's first build compiles its runtime for shared libraries, 15 s on two cores; that happens in a cache of the session's
own, which all its processes share, unless the environment names one.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HEADERS = ROOT / "cpa" / "abi"
CALLBACK_EXAMPLE = ROOT / "examples" / "plugin" / "host-model-callback" / "go"

C_FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-unused", "-O1", "-shared", "-fPIC", "-pthread")
Arguments: TypeAlias = Callable[[str], Sequence[str]]
"""``arguments(out)``: a compiler's, to make the library *out*."""

TOOL_S = 300.0
"""A compiler that waits for something would otherwise stop the whole run."""


@attrs.define(eq=False)
class NativeBuilder:
    """Compiles into *folder*, which it may fill as it likes.

    All methods return the path of a library. A missing compiler skips the test with its name, except under
    continuous integration (``CI=true``), where it fails it.
    """

    folder: Path
    _built: dict[str, Path] = attrs.field(factory=dict)

    def c(self, name: str, *flags: str) -> Path:
        """``c/<name>.c``."""
        source = HERE / "c" / f"{name}.c"
        return self._once(
            "gcc", f"{name}{''.join(flags)}", lambda out: [*C_FLAGS, *flags, f"-I{HEADERS}", str(source), "-o", out]
        )

    def rust(self, name: str) -> Path:
        """``rust/<name>.rs``, by the compiler alone."""
        source = HERE / "rust" / f"{name}.rs"
        return self._once(
            "rustc", name, lambda out: ["--edition", "2021", "--crate-type", "cdylib", "-O", str(source), "-o", out]
        )

    def go(self, name: str) -> Path:
        """``go/<name>``; all of them are one module, whose shared part is compiled once."""
        return self._go(name, HERE / "go", f"./{name}")

    def callback_example(self) -> Path:
        """The example that is shipped: a page which calls models."""
        return self._go("host-model-callback", CALLBACK_EXAMPLE, ".")

    def _go(self, name: str, module: Path, package: str) -> Path:
        # Without what debuggers need, which is a third of the time.
        flags = ("build", "-buildmode=c-shared", "-ldflags=-s -w")
        return self._once("go", name, lambda out: [*flags, "-o", out, package], cwd=module)

    def _once(self, tool: str, name: str, arguments: Arguments, *, cwd: Path | None = None) -> Path:
        key = f"{tool} {name}"
        if key not in self._built:
            target = self.folder / f"{len(self._built)}.so"
            self._run([needed(tool), *arguments(str(target))], cwd)
            self._built[key] = target
        return self._built[key]

    def _run(self, command: Sequence[str], cwd: Path | None) -> None:
        # Nothing may be fetched: not a toolchain because of a version in go.mod, not a module.
        go = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
        cache = {"GOCACHE": go_cache(self.folder.parent)}
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **go, **cache},
            timeout=TOOL_S,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def go_cache(base: Path) -> str:
    """Go's build cache for a session whose temporary folders are in *base*; it may be used by many at a time."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent  # that of this process is in that of the session
    return os.environ.get("GOCACHE") or str(base / "go-cache")


def needed(tool: str) -> str:
    """Path of a compiler. Without it the test is skipped, or fails where nothing may be skipped."""
    found = shutil.which(tool)
    if found is None:
        reason = f"no {tool} on this machine: plugins that need it are not tested"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
