"""The demo with the example plugins in it."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from cpa.app import App, open_app
from cpa.config.schema import Config
from cpa.demo import load_demo, with_demo_provider
from cpa.starting import Options
from tests.examples.building import Example, Library, all_examples
from tests.examples.hosting import CHAT, FAIL_S

DISTURBING = {
    "request-normalizer-c",
    "request-translator-c",
    "response-normalizer-c",
    "response-translator-c",
    "frontend-auth-exclusive-c",
}
ASKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {**CHAT, "model": "demo-gpt"}),
    ("/v1/chat/completions", {**CHAT, "model": "demo-claude", "stream": True}),
    ("/v1/responses", {"model": "demo-responses", "input": "hello"}),
    ("/v1/responses", {"model": "demo-responses", "input": "hello", "stream": True}),
    ("/v1/messages", {**CHAT, "model": "demo-claude", "max_tokens": 256}),
    ("/v1/messages", {**CHAT, "model": "demo-claude", "max_tokens": 256, "stream": True}),
    ("/v1beta/models/demo-gemini:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
)


@asynccontextmanager
async def demo(libraries: Path, credentials: Path) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    """The demo with the plugins in a folder, and a client without a key."""
    with trio.fail_after(FAIL_S):
        async with AsyncExitStack() as stack:
            loaded = await with_demo_provider(load_demo(libraries), stack)
            loaded = attrs.evolve(loaded, config=attrs.evolve(loaded.config, auth_dir=credentials))
            app = await stack.enter_async_context(open_app(loaded, options=Options(port=0)))
            client = httpx.AsyncClient(base_url=app.addresses[0], timeout=None, trust_env=False)
            yield app, await stack.enter_async_context(client)


async def answers(client: httpx.AsyncClient) -> list[tuple[int, str]]:
    """What the demo says to `ASKS`, without the time at which it says it and blank lines at the end."""
    said = []
    for path, body in ASKS:
        answer = await client.post(path, json=body)
        said.append((answer.status_code, re.sub(r'"created":\d+', '"created":0', answer.text).rstrip("\n")))
    return said


def states(app: App) -> dict[str, tuple[str, int]]:
    """State and process of every plugin."""
    return {item.id: (str(item.state), item.pid) for item in app.plugins.manager.states()}


async def test_the_demo_loads_the_c_examples_and_answers_as_without_them(library: Library, tmp_path: Path) -> None:
    """All but those that would replace what passes; no answer differs."""
    folder = library[Example("simple", "c")].parent
    c_examples = {example.id for example in all_examples() if example.language == "c"}
    async with demo(tmp_path / "none", tmp_path) as (app, client):
        assert not states(app)
        expected = await answers(client)
    assert [status for status, _ in expected] == [200] * len(ASKS)
    async with demo(folder, tmp_path) as (app, client):
        found = states(app)
        assert set(found) >= c_examples
        assert {name for name in c_examples if found[name][0] == "disabled"} == DISTURBING
        assert {found[name][0] for name in c_examples - DISTURBING} == {"registered"}
        assert await answers(client) == expected
        page = await client.get("/v0/resource/plugins/management-api-c/status")
        assert "Management API resource" in page.text


async def test_the_demo_survives_the_death_of_any_of_its_plugins(library: Library, tmp_path: Path) -> None:
    """One after the other, also of one that lets clients in; nobody has to wait for its return."""
    folder = library[Example("simple", "c")].parent
    async with demo(folder, tmp_path) as (app, client):
        for name in ("simple-c", "usage-c", "management-api-c"):
            state, pid = states(app)[name]
            assert state == "registered"
            os.kill(pid, signal.SIGKILL)
            assert [status for status, _ in await answers(client)] == [200] * len(ASKS)
            while states(app)[name][0] != "registered":  # noqa: ASYNC110 - it is restarted behind our back
                await trio.sleep(0.02)


def test_without_libraries_the_demo_has_no_plugins(tmp_path: Path) -> None:
    """And says nothing of it: who installed a package has no examples."""
    config: Config = load_demo(tmp_path).config
    assert (config.plugins.enabled, dict(config.plugins.configs)) == (False, {})
    (tmp_path / "usage-c.so").write_bytes(b"")
    plugins = load_demo(tmp_path).config.plugins
    assert (plugins.enabled, plugins.dir, list(plugins.configs)) == (True, tmp_path, ["usage-c"])
