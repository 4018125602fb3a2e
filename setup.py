"""The compiled parts of CPA; everything else is in pyproject.toml.

Two things are built from one C shim (`cpa/abi/shim.c`): the extension `cpa.abi._native`, for plugins inside the proxy's
process, and the executable `cpa/abi/cpa-plugin-worker`, for plugins in processes of their own. setuptools has no notion
of an executable as package data, so the command that builds extensions also links it, to where the extension goes.

The extension `cpa.formats._scan` makes translation faster, on any system, and can be done without.
"""

import os
import runpy
import sys
import sysconfig
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

STRICT = os.environ.get("CI") == "true"
ABI = Path("cpa/abi")
WORKER = "cpa-plugin-worker"
WORKER_SOURCES = (ABI / "worker.c", ABI / "shim.c")
HARDENED = ("-pie", "-Wl,-z,relro,-z,now")
SCAN = Extension(
    "cpa.formats._scan",
    sources=["cpa/formats/_scan.c"],
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    extra_compile_args=[] if sys.platform == "win32" else ["-std=c11", "-O3", "-fvisibility=hidden"],
    py_limited_api=True,
    optional=True,
)


class BuildWithWorker(build_ext):
    """Extensions first, then the worker."""

    def run(self) -> None:
        # The proxy runs without its plugin host, so what cannot be built is no reason not to install it; continuous
        # integration wants all of it. Workers, the default, need no Python headers.
        headers = Path(sysconfig.get_path("include"), "Python.h").exists()
        for extension in self.extensions:
            extension.optional = not STRICT
        if not headers and not STRICT:
            warnings.warn(
                "no Python.h: plugins will run in worker processes only, not inline, and translation is slower",
                stacklevel=1,
            )
            self.extensions = []
        super().run()
        try:
            self.build_worker()
        except (CompileError, LinkError) as exc:
            if STRICT:
                raise
            warnings.warn(f"no C compiler that works: native plugins cannot be loaded ({exc})", stacklevel=1)

    def build_worker(self) -> None:
        """Compile and link the worker to where the extension goes."""
        flags = runpy.run_path(str(ABI / "_build.py"))
        folder = ABI if self.inplace else Path(self.build_lib) / ABI
        folder.mkdir(parents=True, exist_ok=True)
        objects = self.compiler.compile(
            [str(source) for source in WORKER_SOURCES],
            output_dir=str(Path(self.build_temp) / "worker"),
            include_dirs=[str(ABI)],
            macros=list(flags["MACROS"]),
            extra_postargs=[*flags["C_FLAGS"], "-fPIE", "-pthread"],
            depends=[str(header) for header in sorted(ABI.glob("*.h"))],
        )
        # Linked under another name and renamed: a worker that runs from the old file keeps it.
        fresh = f".{WORKER}.new"
        self.compiler.link_executable(
            objects,
            fresh,
            output_dir=str(folder),
            libraries=["dl"],
            extra_postargs=["-pthread", *HARDENED],
        )
        (folder / fresh).replace(folder / WORKER)

    def get_outputs(self) -> list[str]:
        """Of the build tree; setuptools asks when it makes wheels."""
        return [*super().get_outputs(), *([] if self.inplace else [str(Path(self.build_lib) / ABI / WORKER)])]


if sys.platform == "linux":
    setup(
        cmdclass={"build_ext": BuildWithWorker},
        cffi_modules=["cpa/abi/_build.py:ffibuilder"],
        ext_modules=[SCAN],
    )
else:
    # memfd, pidfd, eventfd and the parent-death signal are Linux; elsewhere the proxy comes without plugin host.
    setup(ext_modules=[SCAN])
