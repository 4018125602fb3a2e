"""A running proxy with example plugins in it, and what tests ask of it."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import httpx
import pytest
import trio

from cpa.abi import methods, wire
from cpa.abi.kinds import B64
from cpa.abi.methods import Method
from cpa.config.schema import Isolation
from cpa.credentials.model import Credential
from cpa.host.plugin import LivePlugin
from cpa.testing.mock import MockProvider
from tests.examples.building import SOURCES, Example, Library, install, languages_of
from tests.proxy import CONFIG, RunningProxy, running_proxy

FAIL_S = 120
MANAGEMENT_KEY = "management-key-of-the-tests"
MANAGING = {"X-Management-Key": MANAGEMENT_KEY}
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def example(
    name: str,
    *,
    languages: Collection[str] = tuple(SOURCES),
    isolations: Iterable[Isolation] = tuple(Isolation),
) -> pytest.MarkDecorator:
    """Runs a test for one example in those *languages* that it is written in, in all *isolations*."""
    cases = [
        pytest.param(Example(name, language), isolation, id=f"{language}-{isolation}")
        for language in languages_of(name)
        if language in languages
        for isolation in isolations
    ]
    assert cases, f"no example {name}"
    return pytest.mark.parametrize(("plugin", "isolation"), cases)


@attrs.frozen
class Run:
    """A proxy with an example.

    Attributes:
      client: has the key of a client.
    """

    proxy: RunningProxy
    client: httpx.AsyncClient
    plugin: Example

    @property
    def mock(self) -> MockProvider:
        """Behind the four native models ``gpt``, ``responses``, ``claude``, ``gemini``."""
        return self.proxy.mock

    async def chat(self, model: str, **more: object) -> httpx.Response:
        """A chat completion."""
        return await self.client.post("/v1/chat/completions", json={**CHAT, "model": model, **more})

    async def page(self, query: str = "") -> httpx.Response:
        """The plugin's page, which needs no key."""
        async with self.proxy.client(key=None) as anybody:
            return await anybody.get(f"/v0/resource/plugins/{self.plugin.id}/status{query}")

    async def manage(self, method: str, path: str) -> httpx.Response:
        """A call of the management API."""
        return await self.client.request(method, f"/v0/management/{path}", headers=MANAGING)

    async def listed(self) -> Mapping[str, Mapping[str, Any]]:
        """Models by name, as OpenAI clients see them."""
        return {model["id"]: model for model in (await self.client.get("/v1/models")).json()["data"]}

    async def entry(self) -> Mapping[str, Any]:
        """What operators see of the plugin."""
        found = (await self.manage("GET", "plugins")).json()["plugins"]
        [entry] = [entry for entry in found if entry["id"] == self.plugin.id]
        assert isinstance(entry, dict)
        return entry

    def sent(self) -> list[bytes]:
        """Bodies that reached the provider."""
        return [request.body for request in self.mock.requests if request.method == "POST"]


async def credentials(run: Run, number: int) -> tuple[Credential, ...]:
    """The plugins' credentials in force, once there are *number* of them."""
    accounts = run.proxy.app.plugins.accounts
    while len(accounts.snapshot.credentials) != number:  # noqa: ASYNC110 - files are noticed by a watcher
        await trio.sleep(0.02)
    return accounts.snapshot.credentials


@asynccontextmanager
async def heard(run: Run, method: str) -> AsyncIterator["trio.MemoryReceiveChannel[object]"]:
    """Requests of one method that the example answered well while the block runs; nothing else shows them."""
    send, receive = trio.open_memory_channel[object](16)
    call = LivePlugin.call

    async def listening(self: LivePlugin, called: Method[Any, Any], request: object, **more: Any) -> object:
        reply = await call(self, called, request, **more)
        if (self.id, called.name) == (run.plugin.id, method):
            send.send_nowait(request)
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LivePlugin, "call", listening)
        yield receive


def live(run: Run) -> LivePlugin:
    """The example, to be called without the HTTP surface in between."""
    [found] = [item for item in run.proxy.app.plugins.manager.snapshot() if item.id == run.plugin.id]
    return found


async def reconfigure(run: Run, text: str, *, schema: int = 3) -> wire.RegisterReply:
    """What a changed configuration makes the host do."""
    request = wire.RegisterRequest(config_yaml=B64(text.encode()), schema_version=schema)
    return await live(run).call(methods.PLUGIN_RECONFIGURE, request)


def configuration(
    plugins: Iterable[str], folder: Path, isolation: Isolation, *, settings: Mapping[str, str] | None = None
) -> str:
    """The part about plugins, with further *settings* of some of them in YAML's flow style."""
    lines = [
        "remote-management:",
        f"  secret-key: {MANAGEMENT_KEY}",
        "plugins:",
        "  enabled: true",
        f"  dir: {folder}",
        f"  isolation: {isolation}",
        "  configs:",
    ]
    for plugin_id in plugins:
        lines += [f"    {plugin_id}:", "      enabled: true", "      priority: 1"]
        lines += [f"      {line}" for line in (settings or {}).get(plugin_id, "").splitlines()]
    return "\n".join(lines)


@asynccontextmanager
async def running(
    library: Library,
    plugin: Example,
    isolation: Isolation,
    *,
    settings: str = "",
    probe: str | None = None,
    extra: str = "",
    config: str = CONFIG,
) -> AsyncIterator[Run]:
    """A proxy with *plugin* in it, ready, while the block runs; all under a deadline.

    Args:
      settings: YAML lines of the plugin's own section.
      probe: the provider that the tests' own plugin executes; None = without that plugin.
    """
    with TemporaryDirectory(prefix="cpa-examples-") as name, trio.fail_after(FAIL_S):
        folder = Path(name)
        install(library[plugin], folder, plugin.id)
        ids = [plugin.id]
        own = {plugin.id: settings}
        if probe is not None:
            install(library.probe(), folder, "probe")
            ids.append("probe")
            own["probe"] = f"provider: {probe}"
        more = f"{configuration(ids, folder, isolation, settings=own)}\n{extra}"
        try:
            async with running_proxy(config=config, extra=more) as proxy, proxy.client() as client:
                yield Run(proxy, client, plugin)
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None  # a dozen nested groups are more than what is printed of one
