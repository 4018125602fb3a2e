"""What docs/ say of the code is in the code: files, names, capabilities, methods, limits."""

import ast
import re
from collections.abc import Iterator

import pytest

from cpa.abi import wire
from cpa.abi.methods import HOST_METHODS, PLUGIN_METHODS
from cpa.abi.transport import DEFAULT_MAX_CALLS
from cpa.config.schema import LimitsConfig
from cpa.host import generation, restarts, scopes, services, services_http, streams
from cpa.server.management import keys
from tests.docs.page import DOCS
from tests.docs.test_pages import PAGES
from tests.e2e.program import ROOT

POINTER = re.compile(r"`(?P<file>[\w/.-]+\.py):(?P<name>\w+)`")
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")


def names_in(source: str) -> Iterator[str]:
    """What a module defines at its top level."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_security_points_at_code_that_is_there() -> None:
    pointers = list(POINTER.finditer(text_of("security.md")))
    missing = [
        found[0]
        for found in pointers
        if not (ROOT / found["file"]).is_file() or found["name"] not in names_in((ROOT / found["file"]).read_text())
    ]
    assert (missing, len(pointers) > 20) == ([], True)


def test_every_threat_has_a_pointer() -> None:
    threats = text_of("security.md").partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ")][1:]
    assert [row for row in rows if not POINTER.search(row)] == []
    assert len(rows) >= 20


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    targets = [found["target"] for found in LINK.finditer(text_of(name)) if "://" not in found["target"]]
    assert [target for target in targets if not (DOCS / target).exists()] == []


def test_plugins_page_has_every_method_under_its_capability() -> None:
    """Each in the row of the capability that it belongs to."""
    rows = {row[1]: row[0] for row in re.finditer(r"^\| `(\w+)` \| `.*$", text_of("plugins.md"), re.MULTILINE)}
    assert tuple(rows) == wire.SWITCHES
    for method in PLUGIN_METHODS:
        if method.capability:
            assert f"`{method.name}`" in rows[method.capability]


def test_host_callbacks_page_has_every_method() -> None:
    page = text_of("host-callbacks.md")
    rows = re.findall(r"^\| `(host\.[\w.]+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(HOST_METHODS)
    scoped = page.partition("Have a scope:")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"`([\w.]+)`", scoped)) == sorted(row.name for row in PLUGIN_METHODS if row.scoped)


def test_numbers_are_those_of_the_code() -> None:
    """A page that names another limit than the code has is worse than none."""
    limits = generation.DEFAULT_LIMITS
    assert (services.MAX_HOST_CALLS, streams.MAX_READ_STREAMS, streams.QUEUED_CHUNKS) == (2048, 1024, 16)
    assert (streams.MAX_QUEUED_BYTES, services.MAX_LOG_CHARS, services.MAX_LOG_FIELDS) == (8 << 20, 8192, 32)
    assert (services_http.MAX_REDIRECTS, services_http.BLOCK_BYTES) == (10, 32 << 10)
    assert (restarts.FIRST_BACKOFF_S, restarts.MAX_BACKOFF_S) == (0.1, 30.0)
    assert (restarts.FUSE_CRASHES, restarts.FUSE_WINDOW_S) == (5, 60.0)
    assert (scopes.UNWIND_S, limits.hang_grace_s, limits.stuck_calls) == (0.5, 5.0, 32)
    assert (keys.MAX_FAILURES, keys.BAN_S) == (5, 1800.0)
    assert LimitsConfig().nested_depth == 8
    assert limits.stuck_calls < DEFAULT_MAX_CALLS
