"""Builds `cpa.abi._native`: the plugin shim for Python, in cffi's API mode.

Run by setuptools from the root of the source tree, never imported. The declarations come out of the C headers, so there
is no second copy of them to keep in step.
"""

from pathlib import Path

from cffi import FFI

FOLDER = Path("cpa/abi")
"""Relative: setuptools refuses absolute paths of sources."""

C_FLAGS = ("-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra")
MACROS = (("_GNU_SOURCE", None),)

_BEGIN, _END = "/* cffi: begin */", "/* cffi: end */"


def declarations(header: Path) -> str:
    """What stands between the marks of *header*. Raises: ValueError when a mark is missing."""
    text = header.read_text(encoding="utf-8")
    return text[text.index(_BEGIN) + len(_BEGIN) : text.index(_END)]


ffibuilder = FFI()
ffibuilder.cdef(declarations(FOLDER / "shim.h") + declarations(FOLDER / "inline.h"))
ffibuilder.set_source(
    "cpa.abi._native",
    '#include "inline.h"',
    sources=[str(FOLDER / "shim.c"), str(FOLDER / "inline.c")],
    depends=[str(FOLDER / name) for name in ("cpa_plugin.h", "shim.h", "inline.h")],
    include_dirs=[str(FOLDER)],
    define_macros=list(MACROS),
    extra_compile_args=list(C_FLAGS),
    libraries=["dl"],
)
