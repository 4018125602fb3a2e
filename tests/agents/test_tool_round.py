"""Every agent completes a prompt with a tool round on providers of all four protocols."""

import secrets
from pathlib import Path

import pytest

from tests.agents.agent import CLAUDE_CODE, CODEX, GEMINI_CLI, Agent, prepare, run_agent
from tests.agents.documented import page_config
from tests.agents.outside import open_outside
from tests.proxy import CLIENT_KEY, running_proxy

ENDS = {
    "on-messages": "/v1/messages",
    "on-responses": "/v1/responses",
    "on-gemini": ":streamGenerateContent",
    "on-chat": "/v1/chat/completions",
}
"""Aliases of the page's configuration, and where their requests arrive."""
AGENTS = {agent.section: agent for agent in (CLAUDE_CODE, CODEX, GEMINI_CLI)}


@pytest.mark.parametrize("model", ENDS)
@pytest.mark.parametrize("section", AGENTS)
@pytest.mark.parametrize("mock", ["mock", "mock-think"])
async def test_prompt_and_tool_round(section: str, model: str, mock: str, tmp_path: Path) -> None:
    """The note's word gets from the agent's command to the provider, and from its answer to the user."""
    agent: Agent = AGENTS[section]
    word = secrets.token_hex(8)
    prepare(tmp_path, note=f"the word is {word}")
    async with running_proxy(config=page_config(mock=mock)) as proxy, open_outside() as outside:
        done = await run_agent(
            agent, tmp_path, outside, url=proxy.url, key=CLIENT_KEY, model=model, order=agent.reads_note
        )
        targets = [request.target.partition("?")[0] for request in proxy.mock.requests]
        bodies = [request.body for request in proxy.mock.requests]
    assert word in done.out, done.shown
    assert done.code == 0, done.shown
    assert len(targets) == 2, (targets, done.shown)
    assert all(target.endswith(ENDS[model]) for target in targets), targets
    assert [word.encode() in body for body in bodies] == [False, True]
    assert done.wanted == (), done.wanted
