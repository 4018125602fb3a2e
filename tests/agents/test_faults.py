"""A provider whose stream breaks off: the agent says so, and never takes half an answer for a whole one."""

from pathlib import Path

import pytest

from tests.agents.agent import CLAUDE_CODE, CODEX, prepare, run_agent
from tests.agents.documented import page_config
from tests.agents.outside import open_outside
from tests.agents.test_tool_round import ENDS
from tests.proxy import CLIENT_KEY, running_proxy

# Gemini CLI repeats failed requests for minutes and cannot be told not to.
AGENTS = {agent.section: agent for agent in (CLAUDE_CODE, CODEX)}


@pytest.mark.parametrize("model", ENDS)
@pytest.mark.parametrize("section", AGENTS)
async def test_stream_that_ends_early_is_an_error(section: str, model: str, tmp_path: Path) -> None:
    """Half of the answer's text has come by then, and the HTTP body ends as if nothing were wrong."""
    prepare(tmp_path, note="nothing")
    config = page_config(mock="mock-chunks-9-delay-10-fault-eof-at-5")
    async with running_proxy(config=config) as proxy, open_outside() as outside:
        done = await run_agent(AGENTS[section], tmp_path, outside, url=proxy.url, key=CLIENT_KEY, model=model, order="")
        total = proxy.mock.total_requests
    assert "upstream stream closed before a terminal event" in done.out + done.err, done.shown
    assert done.code != 0, done.shown
    assert total == 1
