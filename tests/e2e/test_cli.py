"""The command line as its user meets it: a process, its output, its exit code, its signals."""

import os
import re
import signal
from pathlib import Path

import httpx
import pytest
import trio

from cpa.testing.mock import open_mock
from tests.e2e.program import CPA, MODULE, ROOT, TIMEOUT_S, run, serving
from tests.e2e.wire import CHAT

TEN_MISTAKES = """\
host: [127.0.0.1]
port: 70000
debug: perhaps
api-keys: one-key
proxy-url: gopher://example.test
request-retry: -1
claude-api-key:
  - api-key: a-claude-key
    priority: high
    modles: []
logging:
  format: xml
limits:
  body-bytes: 1.5
"""
MISTAKEN_LINES = {
    1: "host",
    2: "port",
    3: "debug",
    4: "api-keys",
    5: "proxy-url",
    6: "request-retry",
    9: "claude-api-key[0].priority",
    10: "claude-api-key[0]",
    12: "logging.format",
    14: "limits.body-bytes",
}
SERVING = """\
host: 127.0.0.1
port: 0
auth-dir: {directory}
proxy-url: direct
openai-compatibility:
  - name: mock
    base-url: {provider}/v1
    models:
      - {{name: mock-gpt, alias: gpt}}
      - {{name: mock-chunks-3-delay-300, alias: slow}}
      - {{name: mock-fault-stall, alias: stalls}}
"""


def config_in(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
async def test_help_shows_all_commands(arguments: tuple[str, ...]) -> None:
    """Also when nothing was asked for."""
    done = await run(*arguments)
    assert (done.code, done.err) == (0, "")
    for command in ("serve", "check", "plan", "mock-provider"):
        assert re.search(rf"^ +{command}( |$)", done.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("serve", ["--config", "--demo", "--host", "--port"]),
        ("check", ["--config"]),
        ("plan", ["--config", "--demo", "--from", "--to"]),
        ("mock-provider", ["--host", "--port", "--require-key"]),
    ],
)
async def test_help_of_a_command_shows_its_options(command: str, options: list[str]) -> None:
    """Each with a word on what it does."""
    done = await run(command, "--help")
    assert (done.code, done.err) == (0, "")
    for option in options:
        assert option in done.out


async def test_the_version_is_shown_by_program_and_module() -> None:
    """`python -m cpa` is the same program."""
    program, module = await run("--version"), await run("--version", command=MODULE)
    assert (program.code, module.code) == (0, 0)
    assert re.fullmatch(r"cpa \d+\.\d+\.\d+\S*\n", program.out)
    assert module.out == program.out


@pytest.mark.parametrize(
    "arguments", [("bogus",), ("serve", "--port", "70000"), ("serve", "--port", "x"), ("plan", "--from", "klingon")]
)
async def test_wrong_arguments_exit_2(arguments: tuple[str, ...]) -> None:
    """With the usage, and nothing on standard output."""
    done = await run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "usage: cpa" in done.err


# --- check ---------------------------------------------------------------------------------------------------------


async def test_check_prints_every_mistake_with_its_line(tmp_path: Path) -> None:
    """Ten mistakes, ten lines on standard output, exit 2."""
    path = config_in(tmp_path, TEN_MISTAKES)
    done = await run("check", "--config", str(path))
    assert (done.code, done.err) == (2, "")
    found = re.findall(rf"^{re.escape(str(path))}:(\d+): ([^ ]+): (.+)$", done.out, re.MULTILINE)
    assert {int(line): key for line, key, _ in found} == MISTAKEN_LINES
    assert len(done.out.splitlines()) == 10
    for _, _, text in found:
        assert re.match(r"expected .+, got |unknown key 'modles'", text)
    assert "one-key" not in done.out


async def test_check_accepts_the_files_that_we_ship() -> None:
    """Exit 0, without warnings."""
    for name in ("config.example.yaml", "demo.yaml"):
        done = await run("check", "--config", f"conf/{name}")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"conf/{name}: ok")
        assert "warning" not in done.out


async def test_check_judges_credential_files(tmp_path: Path) -> None:
    """File, member, what was expected, what came; without their secrets."""
    folder = tmp_path / "auths"
    folder.mkdir()
    config = tmp_path / "c.yaml"
    config.write_text(f"auth-dir: {folder}\n")
    (folder / "good.json").write_text('{"type": "claude", "api_key": "sk-secret"}')
    (folder / "acme.json").write_text('{"type": "acme"}')
    done = await run("check", "--config", str(config))
    assert done.code == 0, done.out
    assert f"{folder}: ok, 1 credentials" in done.out
    assert f"warning: {folder}/acme.json: type: only a plugin can use 'acme'" in done.out
    (folder / "bad.json").write_text('{"type": "codex", "api_key": "sk-secret", "priority": "high"}')
    done = await run("check", "--config", str(config))
    assert done.code == 2
    assert f"{folder}/bad.json: base_url: expected an http or https URL with a host, got nothing" in done.out
    assert f"{folder}/bad.json: priority: expected an integer from " in done.out
    assert "sk-secret" not in done.out


@pytest.mark.parametrize("command", ["check", "serve", "plan"])
async def test_a_missing_file_is_named(tmp_path: Path, command: str) -> None:
    """With exit 2, the code of a wrong configuration, and without a traceback."""
    path = tmp_path / "nowhere.yaml"
    done = await run(command, "--config", str(path))
    assert done.code == 2
    assert f"{path}:1: " in done.out + done.err
    assert "Traceback" not in done.out + done.err


@pytest.mark.parametrize("text", ["a: [1\n", "\tport: 1\n", "- a list\n", "port: 1\nport: 2\n", "\x00\n"])
async def test_what_is_no_configuration_at_all_is_said_with_its_line(tmp_path: Path, text: str) -> None:
    """Broken YAML is a mistake like others."""
    path = config_in(tmp_path, text)
    done = await run("check", "--config", str(path))
    assert done.code == 2
    assert re.match(rf"{re.escape(str(path))}:[1-9]\d*: ", done.out)
    assert "Traceback" not in done.out + done.err


async def test_serve_refuses_what_check_refuses(tmp_path: Path) -> None:
    """The same ten lines, on standard error."""
    path = config_in(tmp_path, TEN_MISTAKES)
    done = await run("serve", "--config", str(path))
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 10


async def test_the_configuration_may_come_from_the_environment(tmp_path: Path) -> None:
    """CPA_CONFIG, for containers."""
    path = config_in(tmp_path, "port: 8400\n")
    done = await run("check", env={"CPA_CONFIG": str(path)})
    assert done.code == 0
    assert done.out.startswith(f"{path}: ok")


# --- plan ----------------------------------------------------------------------------------------------------------


async def test_plan_shows_stages_and_routes() -> None:
    """In the order of the request path; routes for the asked pair only."""
    done = await run("plan", "--config", "conf/demo.yaml", "--from", "claude", "--to", "claude")
    assert (done.code, done.err) == (0, "")
    stages = re.findall(r"^  ([a-z_]+\.[a-z_]+) ", done.out, re.MULTILINE)
    for earlier, later in (
        ("model.route", "request.intercept_before"),
        ("request.intercept_before", "request.normalize"),
        ("request.normalize", "response.normalize_before"),
        ("response.normalize_before", "request.complete"),
    ):
        assert stages.index(earlier) < stages.index(later)
    routes, _, providers = done.out.partition("routes:\n")[2].partition("providers:\n")
    assert [route.split()[:3] for route in routes.splitlines()] == [["claude", "->", "claude"]]
    assert "bytes" in routes
    [line] = providers.splitlines()
    assert line.split()[1:] == ["claude", "demo-claude,", "demo-claude-tool,", "demo-claude-think"]


# --- mock-provider -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_mock_provider_serves_until_stopped(number: int) -> None:
    """Its readiness line names the address; a demanded key is demanded."""
    async with (
        serving("mock-provider", "--port", "0", "--require-key", "kanarie") as mock,
        httpx.AsyncClient(base_url=mock.url, trust_env=False) as client,
    ):
        assert mock.lines[0] == f"mock provider listening on {mock.url}"
        body = CHAT.body(model="mock")
        assert (await client.post(CHAT.path, content=body)).status_code == 401
        headers = {"authorization": "Bearer kanarie"}
        assert (await client.post(CHAT.path, content=body, headers=headers)).status_code == 200
        assert await mock.stop(number) == 0
        assert len(mock.lines) == 1


@pytest.mark.parametrize("command", ["serve --demo", "mock-provider"])
async def test_a_port_in_use_ends_the_start_plainly(command: str) -> None:
    """One line that says which address, exit 1, no traceback."""
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await run(*command.split(), "--port", str(port))
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(rf"cpa: cannot listen on 127\.0\.0\.1:{port}: .+\n", done.err)


# --- serve ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments"), [(CPA, ("serve", "--config")), (CPA, ("-config",)), (MODULE, ("-config",))]
)
async def test_serving_a_file(tmp_path: Path, command: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    """`-config PATH` is how deployed scripts start it."""
    async with open_mock() as mock:
        path = config_in(tmp_path, SERVING.format(directory=tmp_path, provider=mock.url))
        async with (
            serving(*arguments, str(path), command=command, cwd=tmp_path) as program,
            httpx.AsyncClient(base_url=program.url, trust_env=False) as client,
        ):
            answer = await client.post(CHAT.path, content=CHAT.body())
            assert answer.status_code == 200
            assert await program.stop() == 0


async def test_host_and_port_of_the_command_line_win(tmp_path: Path) -> None:
    """Over those of the file."""
    path = config_in(tmp_path, f"host: 192.0.2.1\nport: 1\nauth-dir: {tmp_path}\n")
    async with serving("serve", "--config", str(path), "--host", "127.0.0.1", "--port", "0", cwd=tmp_path) as program:
        assert program.url.startswith("http://127.0.0.1:")


async def test_sigterm_lets_a_stream_finish(tmp_path: Path) -> None:
    """And refuses new clients meanwhile."""
    async with open_mock() as mock:
        path = config_in(tmp_path, SERVING.format(directory=tmp_path, provider=mock.url))
        async with (
            serving("serve", "--config", str(path), cwd=tmp_path) as program,
            httpx.AsyncClient(base_url=program.url, trust_env=False, timeout=TIMEOUT_S) as client,
        ):
            async with client.stream("POST", CHAT.path, content=CHAT.body(model="slow", stream=True)) as answer:
                got = b""
                async for piece in answer.aiter_raw():
                    if not got:
                        program.process.send_signal(signal.SIGTERM)
                        await program.wait_line("draining")
                    got += piece
            assert CHAT.terminal in got
            assert await program.process.wait() == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever does not want to wait for a hanging stream need not; the exit code says that it was forced."""
    async with open_mock() as mock:
        path = config_in(tmp_path, SERVING.format(directory=tmp_path, provider=mock.url))
        async with (
            serving("serve", "--config", str(path), cwd=tmp_path) as program,
            httpx.AsyncClient(base_url=program.url, trust_env=False, timeout=TIMEOUT_S) as client,
            trio.open_nursery() as nursery,
        ):

            async def hang() -> None:
                with pytest.raises(httpx.TransportError):
                    await client.post(CHAT.path, content=CHAT.body(model="stalls", stream=True))

            nursery.start_soon(hang)
            await mock.wait_requests(1)
            program.process.send_signal(signal.SIGTERM)
            await program.wait_line("draining")
            assert await program.stop() == 130
            await mock.wait_idle()


async def test_sighup_and_saving_the_file_reload(tmp_path: Path) -> None:
    """A broken file changes nothing and is reported with its line; a mended one is taken up."""
    async with open_mock() as mock:
        text = SERVING.format(directory=tmp_path, provider=mock.url)
        path = config_in(tmp_path, text)
        async with (
            serving("serve", "--config", str(path), cwd=tmp_path) as program,
            httpx.AsyncClient(base_url=program.url, trust_env=False, timeout=TIMEOUT_S) as client,
        ):
            path.write_text(text + "debug: perhaps\n", encoding="utf-8")
            program.process.send_signal(signal.SIGHUP)
            line = await program.wait_line("config.refused")
            assert f"{path}:{text.count(chr(10)) + 1}: debug: expected true or false" in line
            assert (await client.post(CHAT.path, content=CHAT.body())).status_code == 200
            path.write_text(text.replace("alias: gpt", "alias: renamed"), encoding="utf-8")
            await program.wait_line("config.reloaded")
            assert (await client.post(CHAT.path, content=CHAT.body())).status_code == 400
            assert (await client.post(CHAT.path, content=CHAT.body(model="renamed"))).status_code == 200
            assert await program.stop() == 0


async def test_a_working_directory_elsewhere_is_fine(tmp_path: Path) -> None:
    """Nothing is looked for in the source tree: the demo is part of the package."""
    assert tmp_path != ROOT
    async with serving("serve", "--demo", "--port", "0", cwd=tmp_path) as program:
        assert await program.stop() == 0
    assert os.listdir(tmp_path) == []
