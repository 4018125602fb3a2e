"""`cpa translate` and chains in `cpa plan`, as people run them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.program import CPA, ROOT, TIMEOUT_S, Result, environment, run

CLAUDE = {
    "model": "claude-x",
    "max_tokens": 500,
    "seed": 3,
    "system": "S",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}],
}
CONFIG = """\
payload:
  override: [{models: [{name: "*"}], params: {generationConfig.topP: 0.5}}]
pipeline:
  chains:
    - name: short
      match: {from: claude, to: gemini}
      request: [strip-cache-control, {plugin: ghost}, {translate: native}, {cap-output-tokens: 100}, payload]
      response: [{translate: native}, {replace-text: {foo: bar}}]
    - name: strict-ghost
      match: {from: claude, to: gemini}
      request: [{plugin: ghost, required: true}, {translate: native}]
    - name: any
      request: [{translate: native}, strip-identity]
"""
CHUNKS = (
    b'data: {"id":"x","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":'
    b'{"role":"assistant","content":"foo"}}]}\n\n'
    b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n'
)


async def translated(*arguments: str, body: object, config: Path | None = None) -> Result:
    """Run `cpa translate` with *body* on its standard input."""
    extra: Sequence[str] = () if config is None else ("--config", str(config))
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with trio.fail_after(TIMEOUT_S):
        done = await trio.run_process(
            [*CPA, "translate", *arguments, *extra],
            stdin=data,
            cwd=ROOT,
            env=environment(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with chains."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


async def test_a_request_goes_to_standard_output_and_its_losses_to_standard_error() -> None:
    """So that the result can be piped on."""
    done = await translated("--from", "claude", "--to", "openai", body=CLAUDE)
    assert done.code == 0
    assert json.loads(done.out)["messages"] == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "hi"},
    ]
    assert done.out.startswith('{\n  "model": "claude-x"')
    assert done.err.splitlines() == ["loss: messages[0].cache_control dropped", "loss: seed dropped"]


async def test_options_for_model_and_stream_reach_the_body() -> None:
    """The provider's name of the model, and the wish to have a stream."""
    done = await translated("--from", "claude", "--to", "openai", "--model", "gpt-x", "--stream", body=CLAUDE)
    body = json.loads(done.out)
    assert (body["model"], body["stream"]) == ("gpt-x", True)


async def test_an_answer_goes_from_the_provider_to_the_client() -> None:
    """With --response; whole, and as a stream."""
    answer = {
        "id": "x",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "foo"}, "finish_reason": "stop"}],
    }
    whole = await translated("--response", "--from", "openai", "--to", "claude", body=answer)
    assert whole.code == 0
    assert json.loads(whole.out)["content"] == [{"type": "text", "text": "foo"}]
    stream = await translated("--response", "--stream", "--from", "openai", "--to", "claude", body=CHUNKS)
    assert stream.code == 0
    names = [line.removeprefix("event: ") for line in stream.out.splitlines() if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("message_start", "message_stop")


async def test_a_chain_is_gone_through_and_its_absent_plugin_named(config: Path) -> None:
    """Its match says the protocols; payload rules are those of the file."""
    done = await translated("--chain", "short", body=CLAUDE, config=config)
    assert done.code == 0
    assert json.loads(done.out)["generationConfig"] == {"maxOutputTokens": 100, "topP": 0.5}
    assert "skipped: request step plugin: ghost: the plugin is not there" in done.err.splitlines()
    body: Any = {"candidates": [{"content": {"parts": [{"text": "a foo"}]}, "finishReason": "STOP"}]}
    answer = await translated("--chain", "short", "--response", body=body, config=config)
    assert json.loads(answer.out)["content"] == [{"type": "text", "text": "a bar"}]


async def test_steps_are_shown_as_diffs(config: Path) -> None:
    """In their order, each with what it changed, and the result behind them."""
    done = await translated("--chain", "short", "--steps", body=CLAUDE, config=config)
    assert done.code == 0
    headings = [line for line in done.out.splitlines() if line.startswith("== ")]
    assert headings == [
        "== request: strip-cache-control",
        "== request: plugin: ghost",
        "== request: translate: native",
        "== request: cap-output-tokens: 100",
        "== request: payload",
        "== result",
    ]
    assert '-    "maxOutputTokens": 500\n+    "maxOutputTokens": 100\n' in done.out
    assert '-          "cache_control": {' in done.out
    result = done.out.partition("== result\n")[2]
    assert json.loads(result)["generationConfig"]["maxOutputTokens"] == 100


async def test_steps_of_a_stream_are_shown_too(config: Path) -> None:
    """One heading for each, however many events it has seen."""
    arguments = ("--chain", "any", "--from", "openai", "--to", "claude", "--response", "--stream", "--steps")
    done = await translated(*arguments, body=CHUNKS, config=config)
    assert done.code == 0
    assert "== response: translate: native" in done.out
    assert "event: message_stop" in done.out.partition("== result\n")[2]


@pytest.mark.parametrize(
    ("body", "text"), [(b"", "JSON"), (b"[1]", "JSON"), ({"messages": 3, "model": "m"}, "messages")]
)
async def test_a_body_that_cannot_be_translated_is_exit_1(body: object, text: str) -> None:
    """With the words that a client would get."""
    done = await translated("--from", "claude", "--to", "gemini", body=body)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("cpa: ")
    assert text in done.err


async def test_a_required_plugin_that_is_absent_is_exit_1(config: Path) -> None:
    """As it would be a 503."""
    done = await translated("--chain", "strict-ghost", body=CLAUDE, config=config)
    assert (done.code, done.err) == (1, "cpa: plugin ghost is required and not available\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--from", "claude"), "--to is needed"),
        ((), "--from is needed"),
        (("--from", "klingon", "--to", "claude"), "invalid choice"),
        (("--from", "codex", "--to", "claude"), "no client speaks codex"),
        (("--chain", "nobody"), "expected a chain named 'nobody', got short, strict-ghost, any"),
        (("--chain", "short", "--from", "openai"), "the chain is for claude there"),
        (("--chain", "any"), "--from is needed"),
    ],
)
async def test_wrong_arguments_are_exit_2(arguments: tuple[str, ...], text: str, config: Path) -> None:
    """And nothing on standard output."""
    done = await translated(*arguments, body=b"{}", config=config)
    assert (done.code, done.out) == (2, "")
    assert text in done.err


async def test_help_has_examples() -> None:
    """The command explains itself."""
    done = await run("translate", "--help")
    assert (done.code, done.err) == (0, "")
    for option in ("--from", "--to", "--chain", "--config", "--stream", "--response", "--model", "--steps"):
        assert option in done.out
    assert "examples:" in done.out


async def test_plan_shows_chains_and_the_standard_order(config: Path) -> None:
    """Those that may serve the pair, step by step, with plugins that are not there."""
    done = await run("plan", "--config", str(config), "--from", "claude", "--to", "gemini")
    assert (done.code, done.err) == (0, "")
    assert "claude           -> gemini           translated" in done.out
    _, _, chains = done.out.partition("chains, the first that matches is used:\n")
    lines = [line.strip() for line in chains.splitlines()]
    assert lines[:3] == [
        "short: claude -> gemini, any model",
        "request   strip-cache-control | plugin: ghost (not there) | translate: native | cap-output-tokens: 100 "
        "| payload",
        "response  translate: native | replace-text: foo",
    ]
    assert "(standard order): claude -> gemini" in lines
    assert "request   translate: native | plugins (none) | payload" in lines
    other = await run("plan", "--config", str(config), "--from", "openai", "--to", "openai")
    assert "short" not in other.out
    assert "any: any client -> any provider, any model" in other.out


async def test_check_names_the_step_of_a_wrong_chain(tmp_path: Path) -> None:
    """File, line and path, exit 2."""
    path = tmp_path / "c.yaml"
    path.write_text("pipeline:\n  chains:\n    - name: c\n      request:\n        - {translate: klingon!}\n", "utf-8")
    done = await run("check", "--config", str(path))
    assert done.code == 2
    assert done.out.startswith(
        f"{path}:5: pipeline.chains[0].request[0].translate: expected native, the id of a plugin"
    )
