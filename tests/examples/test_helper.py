"""The helper for plugins in C: its own tests, the plugin in its head, and its JSON beside Python's."""

import ctypes
import json
import re
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.testing.conformance import Settings, Verdict, check_plugin
from tests.examples.building import EXAMPLES, HEADERS, HERE
from tests.native.build import needed

HELPER = EXAMPLES / "lib" / "c" / "cpa_helper.h"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic")
LIBRARY = ("-O1", "-fPIC", "-shared", "-fvisibility=hidden")


def compile_c(*arguments: str) -> None:
    """Run the compiler. What it says is shown when it fails."""
    command = [needed("gcc"), *STRICT, *HEADERS, *arguments]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_helper_holds_against_hostile_input(tmp_path: Path) -> None:
    """Its own tests, with the sanitizers of the compiler."""
    program = tmp_path / "helper"
    sanitizers = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compile_c(*sanitizers, str(HELPER.with_name("test_helper.c")), "-o", str(program))
    done = subprocess.run([str(program)], timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" checks passed")


async def test_the_plugin_in_its_head_is_one(tmp_path: Path) -> None:
    """It compiles as it stands there, and passes the conformance kit."""
    comment = HELPER.read_text(encoding="utf-8").partition("A whole plugin:")[2].partition("* MEMORY.")[0]
    source = tmp_path / "shout.c"
    source.write_text(re.sub(r"^ \*( {5})?", "", comment, flags=re.MULTILINE), encoding="utf-8")
    compile_c(*LIBRARY, str(source), "-o", str(source.with_suffix(".so")))
    report = await check_plugin(Settings(path=source.with_suffix(".so")))
    assert report.plugin is not None
    assert (report.plugin.name, report.plugin.capabilities) == ("shout", ("request_normalizer",))
    wrong = [check for check in report.checks if check.verdict not in (Verdict.PASS, Verdict.SKIP)]
    assert not wrong, wrong


class Reader:
    """The helper's reader and writer, one after the other."""

    def __init__(self, library: Path) -> None:
        self._rewrite = ctypes.CDLL(str(library)).rewrite
        self._rewrite.restype = ctypes.c_size_t
        self._rewrite.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)

    def __call__(self, document: bytes) -> bytes | None:
        """The document as it was understood; None when it was refused."""
        room = ctypes.create_string_buffer(1 << 16)
        made = self._rewrite(document, len(document), room, len(room))
        return room.raw[:made] if made else None


@pytest.fixture(scope="module")
def rewrite(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Compiled for this module."""
    target = tmp_path_factory.mktemp("helper") / "helper_json.so"
    compile_c(*LIBRARY, str(HERE / "helper_json.c"), "-o", str(target))
    return Reader(target)


def python_reads(document: str) -> tuple[bool, Any]:
    """What Python makes of a document, without the constants that JSON does not have."""

    def no_constant(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        return True, json.loads(document, parse_constant=no_constant)
    except ValueError:
        return False, None


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(value=VALUES, escaped=st.booleans())
def test_what_python_writes_is_read(rewrite: Reader, value: Any, escaped: bool) -> None:
    """With escapes and as plain UTF-8, to the same values."""
    made = rewrite(json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass"))
    assert made is not None
    assert json.loads(made) == value


@settings(max_examples=300, deadline=None)
@given(document=st.text(alphabet='{}[]:,"\\\\/ntuf0159.eE+- \t\ntruefalsl', max_size=16))
def test_what_python_refuses_is_refused(rewrite: Reader, document: str) -> None:
    """And nothing else is."""
    good, value = python_reads(document)
    made = rewrite(document.encode())
    assert (made is not None) == good
    if made is not None and "\\ud" not in document.lower():
        assert json.loads(made) == value
