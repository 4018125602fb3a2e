"""`cpa serve --demo`, with the very lines of the README: what a stranger does first."""

import json
import re
import shlex
import signal

import httpx
import pytest
import trio

from tests.e2e.program import ROOT, Running, run, serving

PORT = "127.0.0.1:8317"
PATHS = {
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1beta/models/demo-gemini:generateContent",
    "/v1beta/models/demo-gemini:streamGenerateContent?alt=sse",
}


def readme_commands() -> list[list[str]]:
    """Every curl command of the README, as arguments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("curl ")]


async def curl(demo: Running, command: list[str]) -> str:
    """What one of the README's commands prints when the demo is where *demo* is."""
    program, *arguments = [word.replace(f"http://{PORT}", demo.url) for word in command]
    done = await run(*arguments, command=(program, "-sS", "--fail-with-body"))
    assert done.code == 0, done
    return done.out


async def test_the_readmes_lines_answer_in_all_four_protocols() -> None:
    """Streamed and not; nothing needs a key."""
    commands = readme_commands()
    urls = [word for command in commands for word in command if word.startswith("http://")]
    assert {url.removeprefix(f"http://{PORT}") for url in urls} == PATHS
    async with serving("serve", "--demo", "--port", "0") as demo:
        streamed = 0
        for command in commands:
            out = await curl(demo, command)
            assert "Mock" in out
            if "-N" in command:
                streamed += 1
                assert re.match(r"(event: \S+\n)?data: \{", out)
                assert out.endswith("\n\n")
            else:
                assert isinstance(json.loads(out), dict)
        assert (len(commands), streamed) == (8, 4)


async def test_the_demo_lists_its_models_and_is_healthy() -> None:
    """All demo models in every vendor's shape, and every one of them answers under its own protocol."""
    async with (
        serving("serve", "--demo", "--port", "0") as demo,
        httpx.AsyncClient(base_url=demo.url, trust_env=False) as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/")).status_code == 200
        listed = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
        kinds = ("gpt", "responses", "claude", "gemini")
        demo = {f"demo-{kind}{more}" for kind in kinds for more in ("", "-tool", "-think")}
        assert demo <= listed <= demo | {"plugin-example-c-model"}  # of an example plugin, where it has been built
        for kind, path, body in (
            ("gpt", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("responses", "/v1/responses", {"input": "x"}),
            ("claude", "/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}),
        ):
            for more in ("", "-tool", "-think"):
                answer = await client.post(path, json={"model": f"demo-{kind}{more}", **body})
                assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_well(number: int) -> None:
    """Exit code 0, one readiness line, and the port is free again."""
    async with serving("serve", "--demo", "--port", "0") as demo:
        assert await demo.stop(number) == 0
        assert [line for line in demo.lines if line.startswith("listening on ")] == [f"listening on {demo.url}"]
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", demo.url)
        host, _, port = demo.url.removeprefix("http://").partition(":")
        with pytest.raises(OSError, match="127"):
            await trio.open_tcp_stream(host, int(port))
