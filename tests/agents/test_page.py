"""docs/clients.md as a whole: nothing on it is left untried."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.agents.agent import (
    CLAUDE_CODE,
    CODEX,
    CODEX_BUILT_IN,
    GEMINI_CLI,
    Agent,
    end_group,
    filled_in,
    prepare,
    run_agent,
    run_script,
    work_of,
)
from tests.agents.documented import KEY, PAGE, PROVIDER_URL, REHEARSAL, URL, documented, page_config, parse_blocks
from tests.agents.outside import open_outside
from tests.agents.test_tool_round import ENDS
from tests.e2e.program import environment
from tests.proxy import CLIENT_KEY, running_proxy

AGENTS = (CLAUDE_CODE, CODEX, CODEX_BUILT_IN, GEMINI_CLI)
START_S = 60.0


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listened a moment ago: two programs are told of them by a configuration file."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [bound.getsockname()[1] for bound in sockets]


def test_every_block_is_run() -> None:
    """By the tests here and by those that run agents."""
    run = {(agent.section, language) for agent in AGENTS for language in ("sh", *agent.files)}
    blocks = [(block.section, block.language) for block in parse_blocks(PAGE.read_text())]
    assert set(blocks) == run | {("", "sh"), (REHEARSAL, "sh"), (REHEARSAL, "yaml")}
    assert len(blocks) == len(set(blocks))


@pytest.mark.parametrize("agent", [CLAUDE_CODE, CODEX, GEMINI_CLI], ids=lambda agent: agent.section)
def test_prompts_of_the_page_are_those_of_the_tests(agent: Agent) -> None:
    assert f"| {agent.section} | `What does note.txt say? {agent.reads_note}` |" in PAGE.read_text()


async def test_models_are_listed(tmp_path: Path) -> None:
    prepare(tmp_path, note="nothing")
    async with running_proxy(config=page_config()) as proxy, open_outside() as outside:
        script = filled_in(documented("", "sh"), url=proxy.url, key=CLIENT_KEY, model="", prompt="")
        done = await run_script(script, home=tmp_path, outside=outside, more={})
    assert done.code == 0, done.shown
    assert [alias for alias in ENDS if f'"{alias}"' not in done.out] == []


async def test_rehearsal_with_the_programs_themselves(tmp_path: Path) -> None:
    """The configuration and both commands as they stand on the page, but for the ports."""
    prepare(tmp_path, note="the word is rehearsed")
    ours, theirs = free_ports(2)

    def moved(text: str) -> str:
        return text.replace("8317", str(ours)).replace("8318", str(theirs))

    (work_of(tmp_path) / "clients.yaml").write_text(moved(documented(REHEARSAL, "yaml")))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with trio.fail_after(START_S + 150):
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process,
                ["bash", "-euc", moved(documented(REHEARSAL, "sh"))],
                cwd=work_of(tmp_path),
                env=environment({"PATH": path, "HOME": str(tmp_path)}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                start_new_session=True,
                deliver_cancel=end_group,
            )
            process: trio.Process = await nursery.start(start)
            assert process.stdout is not None
            output = b""
            with trio.fail_after(START_S):
                while not all(f"listening on {moved(url)}".encode() in output for url in (URL, PROVIDER_URL)):
                    data = await process.stdout.receive_some()
                    assert data, output.decode()
                    output += data
            async with open_outside() as outside:
                done = await run_agent(
                    CLAUDE_CODE,
                    tmp_path,
                    outside,
                    url=moved(URL),
                    key=KEY,
                    model="on-gemini",
                    order=CLAUDE_CODE.reads_note,
                )
            nursery.cancel_scope.cancel()
    assert "the word is rehearsed" in done.out, done.shown
    assert (done.code, done.wanted) == (0, ())
