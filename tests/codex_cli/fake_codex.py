"""A command-line agent that does what a scenario says, in the place of `codex`. Runs alone, without this package.

Its working folder holds ``scenario.json``, a list of steps for each run in turn (the last one repeats), and gets
``seen.jsonl``: arguments, prompt, environment and process of every run. ``CODEX_HOME`` holds what was registered.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ["CODEX_HOME"])
REGISTERED = HOME / "registered.json"
THREAD = "0199aaaa-0000-7000-8000-%012d"


def say(event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Mcp:
    """The registered server, as an agent uses it: started for one turn, spoken to by lines."""

    def __init__(self) -> None:
        server = json.loads(REGISTERED.read_text())
        self.process = subprocess.Popen(
            server["command"],
            env={"PATH": os.environ["PATH"], **server["env"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.last = 0
        self.answers: dict[int, Any] = {}
        self.ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "fake"}})
        self.send({"method": "notifications/initialized"})
        self.tools = self.ask("tools/list", {})["result"]["tools"]

    def send(self, message: dict[str, object]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def begin(self, method: str, params: object) -> int:
        self.last += 1
        self.send({"id": self.last, "method": method, "params": params})
        return self.last

    def wait(self, number: int) -> Any:
        assert self.process.stdout is not None
        while number not in self.answers:
            answer = json.loads(self.process.stdout.readline())
            self.answers[answer["id"]] = answer
        return self.answers.pop(number)

    def ask(self, method: str, params: object) -> Any:
        return self.wait(self.begin(method, params))


def rollout(thread: str, lines: list[object]) -> None:
    folder = HOME / "sessions" / "2026" / "11" / "21"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rollout-2026-11-21T10-00-00-{thread}.jsonl"
    with path.open("a") as out:
        out.write("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


def play(steps: list[dict[str, Any]], thread: str, prompt: str) -> None:
    mcp: Mcp | None = None
    for step in steps:
        ((kind, value),) = step.items()
        if kind == "event":
            say(value)
        elif kind == "say":
            say({"type": "item.completed", "item": {"id": "m", "type": "agent_message", "text": value}})
        elif kind == "echo":
            say({"type": "item.completed", "item": {"id": "e", "type": "agent_message", "text": f"you said: {prompt}"}})
        elif kind == "thread":
            say({"type": "thread.started", "thread_id": thread})
        elif kind == "done":
            usage = {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 5, "reasoning_output_tokens": 2}
            say({"type": "turn.completed", "usage": {**usage, **value}})
        elif kind == "raw":
            sys.stdout.write(value)
            sys.stdout.flush()
        elif kind == "big":
            sys.stdout.write("x" * value + "\n")
        elif kind == "stderr":
            sys.stderr.write(value)
            sys.stderr.flush()
        elif kind == "spawn":  # a process in a session of its own that does not want to end
            code = (
                "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
            )
            child = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True, stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()  # it ignores the signal now
            Path("spawned").write_text(str(child.pid))
        elif kind == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif kind == "wait":
            while not Path(value).exists():
                time.sleep(0.01)
        elif kind == "mute":
            os.close(1)
        elif kind == "hang":
            Path("hangs").write_text(str(os.getpid()))
            time.sleep(600)
        elif kind == "rollout":
            rollout(thread, value)
        elif kind == "calls":
            mcp = mcp or Mcp()
            begun = [mcp.begin("tools/call", call) for call in value]
            for number in begun:
                result = mcp.wait(number)["result"]
                text = "|".join(part.get("text", part["type"]) for part in result["content"])
                say(
                    {
                        "type": "item.completed",
                        "item": {"id": f"r{number}", "type": "agent_message", "text": f"{result['isError']}:{text}"},
                    }
                )
        elif kind == "tools":
            mcp = mcp or Mcp()
            say(
                {
                    "type": "item.completed",
                    "item": {"id": "t", "type": "agent_message", "text": json.dumps(mcp.tools, sort_keys=True)},
                }
            )
        elif kind == "exit":
            sys.exit(value)


def main() -> None:
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print("fake-codex 9.9.9")
        return
    if arguments[:2] == ["mcp", "add"]:
        split = arguments.index("--")
        options = arguments[3:split]
        given = zip(options[::2], options[1::2], strict=True)
        env = dict(pair.split("=", 1) for flag, pair in given if flag == "--env")
        with (HOME / "registrations").open("a") as out:
            out.write(arguments[2] + "\n")
        REGISTERED.write_text(json.dumps({"name": arguments[2], "command": arguments[split + 1 :], "env": env}))
        return
    assert (arguments[:2], arguments[-1]) == (["exec", "--json"], "-"), arguments
    prompt = sys.stdin.read()
    seen = Path("seen.jsonl")
    runs = len(seen.read_text().splitlines()) if seen.exists() else 0
    with seen.open("a") as out:
        record = {"argv": arguments, "prompt": prompt, "env": dict(os.environ), "pid": os.getpid(), "cwd": os.getcwd()}
        out.write(json.dumps(record) + "\n")
    thread = arguments[arguments.index("resume") + 1] if "resume" in arguments else THREAD % runs
    scenarios = json.loads(Path("scenario.json").read_text())
    play(scenarios[min(runs, len(scenarios) - 1)], thread, prompt)


main()
