"""What is shipped: the published header, and one truth for both sides of it."""

import subprocess
from pathlib import Path

import pytest

from cpa.abi._native import lib
from cpa.abi.frames import MAX_METHOD_BYTES, LoadFailure
from tests.abi.support import HEADERS

LAYOUT = """
#include "cpa_plugin.h"
#define CHECK(what) static_assert(what, #what)
#include <assert.h>
CHECK(sizeof(cliproxy_buffer) == 16 && offsetof(cliproxy_buffer, len) == 8);
CHECK(sizeof(cliproxy_host_api) == 32 && offsetof(cliproxy_host_api, host_ctx) == 8);
CHECK(offsetof(cliproxy_host_api, call) == 16 && offsetof(cliproxy_host_api, free_buffer) == 24);
CHECK(sizeof(cliproxy_plugin_api) == 32 && offsetof(cliproxy_plugin_api, call) == 8);
CHECK(offsetof(cliproxy_plugin_api, free_buffer) == 16 && offsetof(cliproxy_plugin_api, shutdown) == 24);
CHECK(CPA_MAX_METHOD_BYTES == %d && CLIPROXY_ABI_VERSION == 1);
"""


@pytest.mark.parametrize(("language", "standard"), [("c", "c11"), ("c++", "c++11")])
def test_the_header_has_the_layout_of_the_contract(tmp_path: Path, language: str, standard: str) -> None:
    """In C and in C++, without a warning (plugin-abi 1.8)."""
    source = tmp_path / "layout.c"
    source.write_text(LAYOUT % MAX_METHOD_BYTES)
    command = ["gcc", "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{HEADERS}"]
    subprocess.run([*command, "-fsyntax-only", str(source)], check=True)


def test_load_results_have_one_numbering() -> None:
    """The worker sends the numbers of the shim."""
    for failure in LoadFailure:
        assert getattr(lib, f"CPA_{failure.name}") == failure
