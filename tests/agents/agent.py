"""The agents as their users run them: a home, a folder, the commands of docs/clients.md."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from tests.agents.conftest import AGENTS
from tests.agents.documented import KEY, MODEL, PROMPT, URL, documented
from tests.agents.outside import Outside

RUN_S = 150.0
"""For one run. An idle machine needs two or three; agents that retry for ever would need all they get."""
NOTE = "note.txt"


@attrs.frozen(kw_only=True)
class Agent:
    """An agent as the tests know it.

    Attributes:
      section: of the page.
      path: where its requests go at a provider of its own protocol, without query.
      reads_note: the order (see docs/mock-provider.md) that makes it read `NOTE` by a command.
      files: where in the home the page's file goes, by the block's language.
      edits: what the tests change in those files: for machines on which nobody sits.
      quiet: environment that the tests add: no retries, so that failures show.
    """

    section: str
    path: str
    reads_note: str
    files: Mapping[str, str] = attrs.field(factory=dict)
    edits: Mapping[str, str] = attrs.field(factory=dict)
    quiet: Mapping[str, str] = attrs.field(factory=dict)


CLAUDE_CODE = Agent(
    section="Claude Code",
    path="/v1/messages",
    reads_note='[mock:call Bash {"command": "cat note.txt", "description": "Read the note"}]',
    quiet={
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    },
)
_CODEX_MODEL = f'model = "{MODEL}"\n'
_CODEX_WIRE = 'wire_api = "responses"\n'
# The sandbox needs namespaces of the kernel, which machines for tests rarely give.
_NO_SANDBOX = {_CODEX_MODEL: _CODEX_MODEL + 'sandbox_mode = "danger-full-access"\n'}
CODEX = Agent(
    section="Codex",
    path="/v1/responses",
    reads_note='[mock:call exec_command {"cmd": "cat note.txt"}]',
    files={"toml": ".codex/config.toml"},
    edits={**_NO_SANDBOX, _CODEX_WIRE: _CODEX_WIRE + "request_max_retries = 0\nstream_max_retries = 0\n"},
)
CODEX_BUILT_IN = attrs.evolve(CODEX, section="Codex over WebSocket", edits=_NO_SANDBOX)
GEMINI_CLI = Agent(
    section="Gemini CLI",
    path=":streamGenerateContent",
    reads_note='[mock:call run_shell_command {"command": "cat note.txt"}]',
    files={"json": ".gemini/settings.json"},
)


@attrs.frozen(kw_only=True)
class Finished:
    """A run that has ended.

    Attributes:
      home: what was its home; its files are still there.
      wanted: what it would have sent beyond loopback.
    """

    code: int
    out: str
    err: str
    home: Path
    wanted: tuple[str, ...]

    @property
    def shown(self) -> str:
        """All that it wrote, for messages of failed assertions."""
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def work_of(home: Path) -> Path:
    """The folder in which an agent with *home* works."""
    return home / "work"


def prepare(home: Path, *, note: str) -> None:
    """Make a home in which nothing was ever done, with a folder to work in that holds `NOTE`."""
    work_of(home).mkdir(parents=True)
    (home / "tmp").mkdir()
    (work_of(home) / NOTE).write_text(note + "\n")


def filled_in(text: str, *, url: str, key: str, model: str, prompt: str) -> str:
    """*text* of the page with other values for its address, key, model and prompt."""
    for old, new in ((URL, url), (KEY, key), (MODEL, model), (PROMPT, prompt)):
        text = text.replace(old, new)
    return text


def environment(home: Path, outside: Outside, more: Mapping[str, str]) -> dict[str, str]:
    """Nothing of this process's environment but the path, before which the installed agents stand."""
    installed = Path(os.environ[AGENTS]) / "node_modules" / ".bin"
    return {
        "PATH": f"{installed}:{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "NO_COLOR": "1",
        **outside.environment,
        **more,
    }


async def end_group(process: trio.Process) -> None:
    """Kill *process* and all that it has started and that is still there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def run_script(script: str, *, home: Path, outside: Outside, more: Mapping[str, str]) -> Finished:
    """Run lines of shell to their end, in a group of processes of their own of which nothing is left.

    Raises: trio.TooSlowError: after `RUN_S`.
    """
    out, err = home / "stdout", home / "stderr"
    with trio.fail_after(RUN_S), out.open("wb") as to_out, err.open("wb") as to_err:
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process,
                ["bash", "-euc", script],
                cwd=work_of(home),
                env=environment(home, outside, more),
                stdin=subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
                check=False,
                start_new_session=True,
                deliver_cancel=end_group,
            )
            process: trio.Process = await nursery.start(start)
            await process.wait()
            await end_group(process)
    assert process.returncode is not None
    return Finished(
        code=process.returncode,
        out=out.read_text(errors="replace"),
        err=err.read_text(errors="replace"),
        home=home,
        wanted=tuple(outside.wanted),
    )


async def run_agent(
    agent: Agent, home: Path, outside: Outside, *, url: str, key: str, model: str, order: str, script: str = ""
) -> Finished:
    """Ask *agent* in a prepared *home* what the note says.

    Args:
      order: what the prompt orders from the mock provider besides.
      script: lines to run instead of the page's, with the same values to fill in.
    """
    assert "'" not in order, "the page quotes its prompts with '"
    values = {"url": url, "key": key, "model": model, "prompt": f"{PROMPT} {order}"}
    for language, place in agent.files.items():
        text = documented(agent.section, language)
        for old, new in agent.edits.items():
            assert old in text, old
            text = text.replace(old, new)
        path = home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(filled_in(text, **values))
    lines = filled_in(script or documented(agent.section, "sh"), **values)
    return await run_script(lines, home=home, outside=outside, more=agent.quiet)
