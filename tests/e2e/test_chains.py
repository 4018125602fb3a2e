"""A user's chain from a fresh file: Claude's clients at Gemini's provider, by normalizers, a plugin, a payload rule."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
import trio

import cpa
from cpa.app import open_app
from cpa.config.load import parse_config
from cpa.errors import ConfigError
from cpa.pipeline.steps.values import StepContext
from cpa.starting import Options
from cpa.testing.mock import open_mock
from tests.e2e.sdk import TIMEOUT_S
from tests.e2e.wire import CLAUDE, GEMINI
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy

SOURCE = Path(__file__).parent / "plugins" / "redact.c"
HEADERS = ("cpa/abi", "tests/native/c")

REQUEST = "[strip-cache-control, {plugin: redact}, {translate: native}, {cap-output-tokens: 50}, payload]"
RESPONSE = "[{translate: native}, {replace-text: {Mock: hushed}}, plugins]"


@pytest.fixture(scope="module")
def plugin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin, as an operator would have it."""
    folder = tmp_path_factory.mktemp("plugins")
    command = ["gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", *(f"-I{path}" for path in HEADERS), str(SOURCE)]
    subprocess.run([*command, "-o", str(folder / "redact.so")], check=True)
    return folder


@asynccontextmanager
async def proxy_with(
    folder: Path | None, *, request: str = REQUEST, response: str = RESPONSE, more: str = ""
) -> AsyncIterator[RunningProxy]:
    """A proxy with one chain, and with the plugin if there is a *folder* of it."""
    plugins = (
        "" if folder is None else f"plugins: {{enabled: true, dir: {folder}, configs: {{redact: {{enabled: true}}}}}}"
    )
    extra = f"""
{plugins}
payload:
  override: [{{models: [{{name: "*", protocol: gemini}}], params: {{generationConfig.topP: 0.25}}}}]
pipeline:
  chains:
    - name: claude-on-gemini
      match: {{from: claude, to: gemini, models: ["gem*"], keys: ["client-*"]}}
      request: {request}
      response: {response}
{more}
"""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy(extra=extra) as proxy:
            yield proxy


MESSAGES: list[Any] = [
    {"role": "user", "content": [{"type": "text", "text": "say hushed", "cache_control": {"type": "ephemeral"}}]}
]


async def asked(proxy: RunningProxy, *, stream: bool, model: str = "gemini") -> str:
    """What Anthropic's client reads."""

    def ask() -> str:
        client = anthropic.Anthropic(api_key=CLIENT_KEY, base_url=proxy.url, max_retries=0)
        given: Any = {"model": model, "max_tokens": 400, "messages": MESSAGES, "system": "hushed too"}
        with client:
            if not stream:
                answer = client.messages.create(**given)
                return "".join(block.text for block in answer.content if block.type == "text")
            with client.messages.stream(**given) as events:
                final = events.get_final_message()
            assert final.stop_reason == "end_turn"
            return "".join(block.text for block in final.content if block.type == "text")

    return await trio.to_thread.run_sync(ask)


def sent(proxy: RunningProxy) -> Any:
    """The latest body that the provider got."""
    return json.loads(proxy.mock.requests[-1].body)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_chain_does_what_it_says(plugin_dir: Path, stream: bool) -> None:
    """Every step has left its trace in what the provider got, and in what the client reads."""
    async with proxy_with(plugin_dir) as proxy:
        text = await asked(proxy, stream=stream)
        assert text.startswith("[gone] answer")
        body = sent(proxy)
        assert body["contents"] == [{"role": "user", "parts": [{"text": "say [gone]"}]}]
        assert body["systemInstruction"]["parts"] == [{"text": "[gone] too"}]
        assert (body["generationConfig"]["maxOutputTokens"], body["generationConfig"]["topP"]) == (50, 0.25)
        assert b"cache_control" not in proxy.mock.requests[-1].body


@pytest.mark.parametrize("stream", [False, True])
async def test_steps_in_another_order_do_something_else(plugin_dir: Path, stream: bool) -> None:
    """Rules before the translation meet Claude's body, the set undoes the cap, the plugin comes before the text."""
    async with proxy_with(
        plugin_dir,
        request="[payload, {cap-output-tokens: 50}, {set: {max_tokens: 77}}, {translate: native}]",
        response="[{translate: native}, plugins, {replace-text: {Mock: hushed}}]",
    ) as proxy:
        assert (await asked(proxy, stream=stream)).startswith("hushed answer")
        body = sent(proxy)
        assert body["generationConfig"]["maxOutputTokens"] == 77
        assert "topP" not in body["generationConfig"]
        assert body["contents"][0]["parts"] == [{"text": "say hushed"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chain_may_go_through_a_third_protocol(plugin_dir: Path, stream: bool) -> None:
    """Two translations there and two back, with the plugin on the client's side of them."""
    via = "{translate: {via: openai}}"
    async with proxy_with(plugin_dir, request=f"[{{plugin: redact}}, {via}]", response=f"[{via}, plugins]") as proxy:
        assert (await asked(proxy, stream=stream)).startswith("Mock answer")
        body = sent(proxy)
        assert body["contents"] == [{"role": "user", "parts": [{"text": "say [gone]"}]}]
        assert body["generationConfig"]["maxOutputTokens"] == 400


async def test_tools_come_back_under_their_names_through_a_third_protocol() -> None:
    """Names that the provider cannot take are mapped on the way there, twice, and back, twice."""
    via = "[{translate: {via: openai}}]"
    tool = {"name": "mcp__files__read", "description": "d", "input_schema": {"type": "object", "properties": {}}}
    async with proxy_with(None, request=via, response=via) as proxy, proxy.client() as client:
        body = CLAUDE.body(model="gemini", tools=[tool])
        answer = (await client.post(CLAUDE.path, content=body, headers={"X-Mock-Tool": "1"})).json()
        [call] = [block for block in answer["content"] if block["type"] == "tool_use"]
        assert call["name"] == "mcp__files__read"
        assert answer["stop_reason"] == "tool_use"


async def test_who_does_not_match_goes_the_standard_way(plugin_dir: Path) -> None:
    """Gemini's own clients, on the same provider: rules at the end, no cap, the plugin last."""
    async with proxy_with(plugin_dir) as proxy, proxy.client() as client:
        answer = await client.post(GEMINI.url(stream=False), content=GEMINI.body(text="say hushed"))
        assert answer.status_code == 200
        assert "Mock answer" in answer.text
        assert sent(proxy)["generationConfig"] == {"topP": 0.25}
        assert sent(proxy)["contents"][0]["parts"] == [{"text": "say [gone]"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_plugin_that_is_not_there_is_skipped_unless_required(stream: bool) -> None:
    """503, which Claude's protocol calls 529, and the provider hears nothing."""
    async with proxy_with(None) as proxy:
        assert (await asked(proxy, stream=stream)).startswith("hushed answer")
        assert sent(proxy)["contents"][0]["parts"] == [{"text": "say hushed"}]
    async with proxy_with(None, request="[{plugin: redact, required: true}, {translate: native}]") as proxy:
        async with proxy.client() as client:
            body = CLAUDE.body(model="gemini", stream=stream)
            answer = await client.post(CLAUDE.path, content=body)
        assert answer.status_code == 529
        assert "redact" in CLAUDE.error_of(answer.content)["message"]
        assert not proxy.mock.requests


async def test_losses_of_both_translations_are_told() -> None:
    """What the first hop drops is named, as are those of the second."""
    via = "[{translate: {via: openai}}]"
    extra = "translation: {report-losses: true}"
    async with proxy_with(None, request=via, response=via, more=extra) as proxy, proxy.client() as client:
        answer = await client.post(CLAUDE.path, content=CLAUDE.body(model="gemini", seed=5))
        assert "seed" in answer.headers["x-cpa-loss"]


# --- reloading and code ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def embedded(chains: Iterable[cpa.Chain]) -> AsyncIterator[tuple[cpa.App, Any]]:
    """An app as an embedder starts it, and the mock behind it."""
    with trio.fail_after(TIMEOUT_S):
        async with open_mock() as mock:
            text = f"""
port: 0
proxy-url: direct
openai-compatibility:
  - {{name: m, base-url: "{mock.url}/v1", api-key-entries: [{{api-key: k}}], models: [{{name: mock-gpt}}]}}
usage: {{ledger: {{enabled: false}}}}
"""
            loaded = parse_config(text, file="e.yaml")
            async with open_app(loaded, options=Options(port=0), chains=chains) as app:
                yield app, mock


async def test_an_embedder_builds_chains_in_code() -> None:
    """Functions of both kinds beside built-in steps."""
    seen: list[StepContext] = []

    def stamp(body: bytes, context: StepContext) -> bytes:
        seen.append(context)
        return json.dumps({**json.loads(body), "user": "stamped"}).encode()

    async def shout(body: bytes, context: StepContext) -> bytes:
        await trio.lowlevel.checkpoint()
        return body.replace(b"Mock", b"MOCK")

    chain = cpa.Chain(
        name="code",
        match={"from": "openai", "to": "openai", "models": ["mock-*"]},
        request=[stamp, {"cap-output-tokens": 9}],
        response=[shout],
    )
    async with embedded([chain]) as (app, mock), httpx.AsyncClient(trust_env=False) as client:
        body = {"model": "mock-gpt", "messages": [{"role": "user", "content": "x"}]}
        url = f"{app.addresses[0]}/v1/chat/completions"
        whole = await client.post(url, json=body)
        streamed = await client.post(url, json={**body, "stream": True})
        assert "MOCK answer" in whole.text
        assert "MOCK" in streamed.text
        sent_body = json.loads(mock.requests[-1].body)
        assert (sent_body["user"], sent_body["max_completion_tokens"]) == ("stamped", 9)
        assert (seen[0].model, seen[0].client, seen[0].provider) == ("mock-gpt", "openai", "openai")


async def test_a_wrong_chain_in_code_keeps_the_app_from_starting() -> None:
    """Before anything is bound or started."""
    with pytest.raises(ConfigError) as caught:
        async with open_app(parse_config("port: 0", file="e"), chains=[cpa.Chain(name="x", request=["plugins"])]):
            pytest.fail("it must not start")
    [problem] = caught.value.problems
    assert problem.startswith("chains[0].request: expected one translate step")
