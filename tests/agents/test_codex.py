"""What Codex offers to its vendor's own models, and its WebSocket, on providers of all four protocols."""

import secrets
from pathlib import Path

import attrs
import pytest

from tests.agents.agent import CODEX, CODEX_BUILT_IN, prepare, run_agent, work_of
from tests.agents.documented import PAGE, page_config
from tests.agents.outside import open_outside
from tests.agents.test_tool_round import ENDS
from tests.proxy import CLIENT_KEY, running_proxy

PATCH = r'[mock:call apply_patch "*** Begin Patch\n*** Add File: made.txt\n+by a patch\n*** End Patch"]'
SCRIPT = r'[mock:call exec "text((await tools.exec_command({cmd: \"cat note.txt\"})).output)"]'


@pytest.mark.parametrize("model", ENDS)
async def test_free_text_tool_beside_a_function(model: str, tmp_path: Path) -> None:
    """`gpt-5.5` gets `apply_patch` as a free-text tool; both calls come in one turn."""
    prepare(tmp_path, note="nothing")
    config = page_config().replace(f"alias: {model}", "alias: gpt-5.5")
    order = f"{PATCH} {CODEX.reads_note}"
    async with running_proxy(config=config) as proxy, open_outside() as outside:
        done = await run_agent(CODEX, tmp_path, outside, url=proxy.url, key=CLIENT_KEY, model="gpt-5.5", order=order)
        targets = [request.target.partition("?")[0] for request in proxy.mock.requests]
    assert (work_of(tmp_path) / "made.txt").read_text() == "by a patch\n", done.shown
    assert "A made.txt" in done.out, done.shown
    assert len(targets) == 2
    assert all(target.endswith(ENDS[model]) for target in targets), targets
    assert (done.code, done.wanted) == (0, ())


@pytest.mark.parametrize("model", ENDS)
async def test_script_tool_in_a_namespace(model: str, tmp_path: Path) -> None:
    """`gpt-6-sol` gets no list of tools but an input item that holds one, and the work is done by JavaScript."""
    word = secrets.token_hex(8)
    prepare(tmp_path, note=f"the word is {word}")
    config = page_config().replace(f"alias: {model}", "alias: gpt-6-sol")
    async with running_proxy(config=config) as proxy, open_outside() as outside:
        done = await run_agent(CODEX, tmp_path, outside, url=proxy.url, key=CLIENT_KEY, model="gpt-6-sol", order=SCRIPT)
        total = proxy.mock.total_requests
    assert word in done.out, done.shown
    assert (done.code, total, done.wanted) == (0, 2, ())


@pytest.mark.parametrize("searches", [True, False])
async def test_web_search_can_be_switched_off(searches: bool, tmp_path: Path) -> None:
    """By the setting that the page names."""
    prepare(tmp_path, note="nothing")
    setting = 'web_search = "disabled"'
    assert setting in PAGE.read_text()
    ((line, more),) = ((old, new) for old, new in CODEX.edits.items() if "sandbox_mode" in new)
    agent = CODEX if searches else attrs.evolve(CODEX, edits={**CODEX.edits, line: f"{more}{setting}\n"})
    async with running_proxy(config=page_config()) as proxy, open_outside() as outside:
        done = await run_agent(agent, tmp_path, outside, url=proxy.url, key=CLIENT_KEY, model="on-chat", order="")
        bodies = [request.body for request in proxy.mock.requests]
    assert done.code == 0, done.shown
    assert [b'"web_search_options"' in body for body in bodies] == [searches]


@pytest.mark.parametrize("model", ENDS)
async def test_websocket(model: str, tmp_path: Path) -> None:
    """The built-in provider connects by WebSocket, and would say so if it had to fall back."""
    word = secrets.token_hex(8)
    prepare(tmp_path, note=f"the word is {word}")
    async with running_proxy(config=page_config()) as proxy, open_outside() as outside:
        done = await run_agent(
            CODEX_BUILT_IN, tmp_path, outside, url=proxy.url, key=CLIENT_KEY, model=model, order=CODEX.reads_note
        )
        targets = [request.target.partition("?")[0] for request in proxy.mock.requests]
    assert word in done.out, done.shown
    assert "WebSocket" not in done.err, done.shown
    assert len(targets) == 2
    assert all(target.endswith(ENDS[model]) for target in targets), targets
    assert (done.code, done.wanted) == (0, ())
