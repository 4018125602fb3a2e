"""A proxy with the `codex-cli` plugin in front of an agent that follows a script."""

import fcntl
import json
import os
import shutil
import stat
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import attrs
import httpx
import pytest
import trio

from cpa.config.schema import Isolation
from tests.examples.building import ROOT, run
from tests.examples.hosting import MANAGING, configuration
from tests.native.build import go_cache, needed
from tests.proxy import RunningProxy, running_proxy

FAIL_S: Final = 120
PLUGIN: Final = "codex-cli"
FAKE: Final = Path(__file__).with_name("fake_codex.py")
Step = Mapping[str, object]
TURN: Final[Sequence[Step]] = ({"thread": None}, {"echo": None}, {"done": {}})
"""What agents do when nothing else is asked of them."""


@attrs.frozen
class Built:
    """The compiled plugin of a session."""

    library: Path


def build(factory: pytest.TempPathFactory) -> Built:
    """As its own Makefile builds it, once per session, by whichever of its processes is first."""
    base = factory.getbasetemp()
    session = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = session / PLUGIN
    folder.mkdir(exist_ok=True)
    library = folder / f"{PLUGIN}.so"
    needed("gcc")
    needed("go")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            make = [needed("make"), "-C", str(ROOT / "plugins"), "build", f"BIN={folder}", f"BUILD={folder / 'build'}"]
            run(make, GOCACHE=go_cache(base))
    return Built(library)


@attrs.frozen(kw_only=True)
class Codex:
    """A running proxy with the plugin.

    Attributes:
      client: has the key of a client.
      workspace: the agent's folder; the script is in there, and what it saw.
      home: what is ``CODEX_HOME``.
    """

    proxy: RunningProxy
    client: httpx.AsyncClient
    workspace: Path
    home: Path

    def script(self, *runs: Sequence[Step]) -> None:
        """What the agent does in its next runs; the last one is for all that follow."""
        (self.workspace / "scenario.json").write_text(json.dumps(runs))
        (self.workspace / "seen.jsonl").unlink(missing_ok=True)

    def seen(self) -> list[dict[str, Any]]:
        """What each run of the agent was given since `script`."""
        path = self.workspace / "seen.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def chat(self, *messages: object, headers: Mapping[str, str] | None = None, **more: object) -> httpx.Response:
        """A chat completion; strings are words of the user and of the assistant, in turn."""
        listed = [
            {"role": ("user", "assistant")[at % 2], "content": message} if isinstance(message, str) else message
            for at, message in enumerate(messages)
        ]
        body = {"model": "codex", "messages": listed, **more}
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)

    async def manage(self, method: str, path: str, body: object = None) -> httpx.Response:
        """A call of the management API."""
        return await self.client.request(method, f"/v0/management/{path}", headers=MANAGING, json=body)

    async def page(self) -> str:
        """The plugin's page, which needs no key."""
        async with self.proxy.client(key=None) as anybody:
            found = await anybody.get(f"/v0/resource/plugins/{PLUGIN}/status")
        assert found.status_code == 200
        return found.text

    async def entry(self) -> dict[str, Any]:
        """What operators see of the plugin."""
        listed = (await self.manage("GET", "plugins")).json()["plugins"]
        [entry] = [entry for entry in listed if entry["id"] == PLUGIN]
        assert isinstance(entry, dict)
        return entry

    async def appears(self, name: str) -> int:
        """The process id in a file of the workspace, once it is there."""
        path = self.workspace / name
        while not (path.exists() and path.read_text()):  # noqa: ASYNC110 - another program writes it
            await trio.sleep(0.01)
        return int(path.read_text())


async def gone(pid: int) -> None:
    """Returns when there is no such process any more; one that nobody has waited for counts as gone."""
    while alive(pid):  # noqa: ASYNC110 - not our child
        await trio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone, or going while it is read
        return False


def said(answer: httpx.Response) -> str:
    """The text of a whole chat answer."""
    assert answer.status_code == 200, answer.text
    content = answer.json()["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """Those of a streamed chat answer that ended well."""
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]", answer.text
    return [json.loads(line) for line in lines[:-1]]


def streamed(answer: httpx.Response) -> str:
    """The text of a streamed chat answer."""
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(answer) if c["choices"])


@asynccontextmanager
async def codex_proxy(
    built: Built,
    patch: pytest.MonkeyPatch,
    *,
    isolation: Isolation = Isolation.PROCESS,
    settings: str = "",
    binary: str | None = None,
    workspace: Path | None = None,
) -> AsyncIterator[Codex]:
    """A proxy with the plugin while the block runs, all under a deadline.

    Args:
      settings: YAML lines of the plugin's own section.
      binary: another program than the scripted one.
    """
    with TemporaryDirectory(prefix="cpa-codex-") as name, trio.fail_after(FAIL_S):
        base = Path(name)
        folders = {part: base / part for part in ("plugins", "home", "run", "work", "state")}
        for folder in folders.values():
            folder.mkdir(mode=0o700)
        shutil.copyfile(built.library, folders["plugins"] / f"{PLUGIN}.so")
        fake = base / "codex"
        fake.write_text(f"#!{sys.executable} -S\n" + FAKE.read_text())
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        for variable, part in (("HOME", "home"), ("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state")):
            patch.setenv(variable, str(folders[part]))
        patch.setenv("CODEX_HOME", str(folders["home"]))
        patch.setenv("SOMEBODY_ELSES_SECRET", "must not get to the agent")
        work = workspace or folders["work"]
        lines = f"binary: {binary or fake}\nworkspace: {work}\n{settings}"
        extra = configuration([PLUGIN], folders["plugins"], isolation, settings={PLUGIN: lines})
        try:
            async with running_proxy(extra=extra) as proxy, proxy.client() as client:
                codex = Codex(proxy=proxy, client=client, workspace=work, home=folders["home"])
                codex.script(TURN)
                yield codex
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None  # a dozen nested groups are more than what is printed of one
