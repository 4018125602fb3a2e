"""Every command of docs/ does what the page says; see `tests.docs.page` for what is run, and how."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.page import DOCS, blocks_of, open_reader, parse_blocks
from tests.native.build import go_cache, needed

PAGES = (
    "chains.md",
    "configuration.md",
    "host-callbacks.md",
    "isolation.md",
    "management.md",
    "mock-provider.md",
    "plugins.md",
    "protocols.md",
    "quick-start.md",
    "security.md",
)
ELSEWHERE = {
    "clients.md": "tests/agents",
    "codex-cli.md": "tests/codex_cli, and tests/agents with the real program",
    "decisions.md": "has no commands",
    "dependencies.md": "has no commands",
    "panel.md": "tests/panel",
    "performance.md": "its commands are benchmarks",
}
"""Pages of others, and where their commands are tried."""
GUIDE = "From zero to a running interceptor"
NOT_RUN = 2
"""Blocks that need what a test has not."""


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listened a moment ago: pages tell several programs of them."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [bound.getsockname()[1] for bound in sockets]


def test_every_page_is_known() -> None:
    assert {path.name for path in DOCS.glob("*.md")} == {*PAGES, *ELSEWHERE}


def test_nearly_every_block_is_run() -> None:
    """What is left out says why, in the page itself."""
    left_out = [block for name in PAGES for block in parse_blocks((DOCS / name).read_text()) if block.key == "not run"]
    assert len(left_out) <= NOT_RUN
    assert all(len(block.value) > 20 for block in left_out)


@pytest.mark.parametrize("name", PAGES)
async def test_page(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From top to bottom, by a reader who writes C."""
    for tool in ("bash", "curl", "make", "gcc"):
        needed(tool)
    cache = go_cache(tmp_path_factory.getbasetemp())
    async with open_reader(name, tmp_path, ports=free_ports(2), go_cache=cache) as reader:
        await reader.follow(blocks_of(name))


@pytest.mark.parametrize(("language", "tool"), [("rust", "cargo"), ("go", "go")])
async def test_ten_minute_guide(
    language: str, tool: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In the other two languages."""
    needed(tool)
    cache = go_cache(tmp_path_factory.getbasetemp())
    async with open_reader("plugins.md", tmp_path, ports=free_ports(2), go_cache=cache) as reader:
        await reader.follow(blocks_of("plugins.md", reader=language, section=GUIDE))
