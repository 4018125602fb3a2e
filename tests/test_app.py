"""The composition root: what a configuration becomes, and how a reload swaps it under running requests."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import httpx
import pytest
import structlog
import trio

from cpa import app as app_module
from cpa.app import App, open_app, proxy_settings
from cpa.config import watch
from cpa.config.load import Loaded, load_config, parse_config
from cpa.config.schema import Config, ModelEntry
from cpa.credentials.model import FROM_FILE, Credential
from cpa.demo import load_demo, with_demo_provider
from cpa.errors import StartError
from cpa.formats.models import ModelCard
from cpa.host.account_snapshot import AccountsSnapshot
from cpa.host.plugins import open_plugin_host
from cpa.masking import secrets_of
from cpa.models.plugins import PluginModels
from cpa.observability.log import get_logger
from cpa.observability.redact import KnownSecrets
from cpa.observability.sink import LogSink
from cpa.pipeline.completions import open_completions
from cpa.runtime import RuntimeBuilder, native_parts
from cpa.scheduling.scheduler import ConfiguredScheduler, Scheduling
from cpa.starting import Options, bind
from cpa.testing.mock import MockProvider, expected_body, open_mock
from cpa.types import PluginId
from cpa.upstream.client import ClientStats, UpstreamClients, open_clients
from cpa.usage.collector import open_collector
from tests.upstream.proxies_fake import open_http_proxy

FIRST, SECOND = "client-key-number-one", "client-key-number-two"
PROVIDER_FIRST, PROVIDER_SECOND = "provider-canary-number-one", "provider-canary-number-two"


class Memory:
    """A log destination that keeps everything; complete when the app has ended, until then lines may be queued."""

    def __init__(self) -> None:
        self.data = b""

    def write_nowait(self, data: bytes | memoryview) -> int:
        """See `cpa.observability.sink.Destination`."""
        self.data += bytes(data)
        return len(data)

    async def wait_writable(self) -> None:
        """See `cpa.observability.sink.Destination`."""
        await trio.lowlevel.checkpoint()

    def wait_writable_blocking(self, timeout_s: float) -> None:
        """See `cpa.observability.sink.Destination`."""

    def sweep(self) -> None:
        """See `cpa.observability.sink.Destination`."""

    def close(self) -> None:
        """See `cpa.observability.sink.Destination`."""

    def events(self, name: str) -> list[dict[str, object]]:
        """The lines of that event."""
        lines = [json.loads(line) for line in self.data.splitlines()]
        return [line for line in lines if name in line.values()]


@pytest.fixture(autouse=True)
def global_logging() -> Iterator[None]:
    """Logging is global by nature: what a test sets up must be gone afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


@attrs.define(eq=False)
class Proxy:
    """A proxy that serves a file, in front of a mock provider."""

    app: App
    mock: MockProvider
    file: Path
    log: Memory

    async def rewrite(self, text: str) -> None:
        """Give the file new content and reload."""
        self.file.write_text(text)
        await self.app.reload()

    def client(self, key: str = FIRST) -> httpx.AsyncClient:
        """An HTTP client with that key."""
        return httpx.AsyncClient(
            base_url=self.app.addresses[0],
            headers={"authorization": f"Bearer {key}"},
            timeout=None,
            trust_env=False,
        )

    async def status(self, *, key: str = FIRST, model: str = "one", text: str = "hi") -> int:
        """What a chat request of one message is answered."""
        async with self.client(key) as client:
            response = await client.post("/v1/chat/completions", content=chat(model, text))
            return response.status_code


def chat(model: str, text: str = "hi", *, stream: bool = False) -> bytes:
    """The body of a request."""
    return json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}).encode()


def config(
    mock: MockProvider,
    auth_dir: Path,
    *,
    key: str = FIRST,
    provider_key: str = PROVIDER_FIRST,
    models: str = "one",
    proxy_url: str = "direct",
    extra: str = "",
) -> str:
    """A configuration with one compatible provider; *models* are aliases of mock models of the same names."""
    entries = ", ".join(f"{{name: mock-{model}, alias: {model}}}" for model in models.split())
    return f"""
host: 127.0.0.1
port: 0
auth-dir: {auth_dir}
logging: {{format: json}}
api-keys: [{key}]
openai-compatibility:
  - name: farm
    base-url: {mock.url}/v1
    api-key-entries: [{{api-key: {provider_key}, proxy-url: '{proxy_url}'}}]
    models: [{entries}]
{extra}
"""


@asynccontextmanager
async def running(
    tmp_path: Path, *, require_key: str | None = None, extra: str = "", **kwargs: str
) -> AsyncIterator[Proxy]:
    """A mock provider and a proxy that serves ``config.yaml`` in *tmp_path*."""
    file = tmp_path / "config.yaml"
    memory = Memory()
    with trio.fail_after(30):
        async with open_mock(require_key=require_key) as mock:
            file.write_text(config(mock, tmp_path, extra=extra, **kwargs))
            opened = open_app(
                load_config(file), options=Options(config=file, host="127.0.0.1", port=0), sink=LogSink(memory)
            )
            async with opened as app:
                yield Proxy(app, mock, file, memory)


# -- secrets --


def test_secrets_are_what_reprs_keep_to_themselves() -> None:
    """Keys of clients and providers, proxies with passwords, headers, management keys; nothing that is shown anyway."""
    text = """
api-keys: [client-aaaa]
proxy-url: http://user:pw-bbbb@proxy.test:1
remote-management: {secret-key: management-cccc}
claude-api-key:
  - api-key: claude-dddd
    base-url: https://shown.test
    prefix: shown
    headers: {X-Key: header-eeee}
    proxy-url: socks5://u:pw-ffff@h.test
openai-compatibility:
  - name: shown
    base-url: https://shown.test
    headers: {X-Key: header-gggg}
    api-key-entries: [{api-key: compat-hhhh, proxy-url: "http://u:pw-iiii@h.test"}]
plugins: {configs: {shown: {enabled: true, token: plugin-jjjj, n: {list: [plugin-kkkk-01], mode: careful-and-slow}}}}
"""
    found = {secret for secret in secrets_of(parse_config(text, file="test.yaml").config) if secret}
    assert {
        "client-aaaa",
        "http://user:pw-bbbb@proxy.test:1",
        "management-cccc",
        "claude-dddd",
        "header-eeee",
        "socks5://u:pw-ffff@h.test",
        "header-gggg",
        "compat-hhhh",
        "http://u:pw-iiii@h.test",
        "plugin-jjjj",
        "plugin-kkkk-01",
    } <= found
    assert "careful-and-slow" not in found
    assert not any(secret in ("shown", "https://shown.test", "X-Key") for secret in found)


def test_words_of_the_configuration_language_are_no_secrets() -> None:
    """Masking them would mangle every line that has ``redirect`` or the name of a header in it."""
    text = """
proxy-url: direct
claude-api-key: [{api-key: $key-with-dollar, proxy-url: none, headers: {X-Team: $X-Team-Name}}]
"""
    found = {secret for secret in secrets_of(parse_config(text, file="test.yaml").config) if secret}
    assert found == {"$key-with-dollar"}
    assert KnownSecrets(found).mask_in(b"redirect of $X-Team-Name") == b"redirect of $X-Team-Name"


def test_proxy_settings_are_pairs_of_credential_and_global() -> None:
    """What may still be used after a reload."""
    text = """
proxy-url: http://all.test:1
claude-api-key: [{api-key: k}, {api-key: l, proxy-url: direct}]
openai-compatibility:
  - {name: f, base-url: https://f.test, api-key-entries: [{api-key: m, proxy-url: http://own.test:1}]}
"""
    assert list(proxy_settings(parse_config(text, file="test.yaml").config)) == [
        ("", "http://all.test:1"),
        ("direct", "http://all.test:1"),
        ("http://own.test:1", "http://all.test:1"),
    ]


# -- snapshots --


@asynccontextmanager
async def open_builder() -> AsyncIterator[RuntimeBuilder]:
    """A builder without a server."""
    with trio.fail_after(10):
        async with (
            open_clients() as clients,
            open_completions() as completions,
            open_collector(tuple) as usage,
            open_plugin_host(
                clients=clients,
                config=Config,
                current=lambda: None,
                on_change=lambda: None,
                config_path=Path("config.yaml"),
            ) as plugins,
        ):
            yield RuntimeBuilder(
                clients=clients, completions=completions, scheduling=Scheduling(), plugins=plugins, accounts=usage
            )


def parsed(text: str) -> Config:
    return parse_config(text, file="test.yaml").config


async def test_snapshot_has_what_its_configuration_says() -> None:
    """One value per request decides everything about it."""
    text = """
api-keys: [client-aaaa]
force-model-prefix: true
passthrough-headers: true
limits: {sse-event-bytes: 12345}
claude-api-key: [{api-key: k, prefix: team, models: [{name: m}]}]
"""
    async with open_builder() as builder:
        runtime = builder.build(parsed(text))
        assert {card.id for card in runtime.models.cards} == {"team/m"}
        assert runtime.services.models is runtime.models
        assert isinstance(runtime.services.scheduler, ConfiguredScheduler)
        assert runtime.services.scheduler.scheduling is builder.scheduling
        assert runtime.services.passthrough_headers
        assert runtime.services.max_event_bytes == 12345
        assert runtime.access.check([(b"x-api-key", b"client-aaaa")], b"")
        assert not runtime.access.check([(b"x-api-key", b"client-bbbb")], b"")
        assert not runtime.guarded
        assert builder.build(parsed("api-keys: [your-api-key-1]")).guarded


async def test_provider_without_executor_does_not_keep_the_others_from_working() -> None:
    """One unusable credential must never prevent the start."""
    async with open_builder() as builder:
        with structlog.testing.capture_logs() as lines:
            runtime = builder.build(parsed("interactions-api-key: [{api-key: k}]\nclaude-api-key: [{api-key: k}]"))
        assert runtime.models.providers() == ("claude",)
        assert [line["provider"] for line in lines if line["event"] == "provider.unsupported"] == [
            "gemini-interactions"
        ]


async def test_empty_configuration_is_a_snapshot_as_well() -> None:
    """Somebody starts with nothing and adds keys while it runs."""
    async with open_builder() as builder:
        runtime = builder.build(Config())
        assert runtime.models.cards == ()
        assert runtime.access.open


# -- starting and ending --


async def test_app_serves_and_ends_with_its_block(tmp_path: Path) -> None:
    """Nothing of it is left: neither its listener nor its connections to the provider."""
    async with open_mock() as mock:
        loaded = parse_config(config(mock, tmp_path), file="test.yaml")
        with trio.fail_after(20):
            async with open_app(loaded, options=Options(port=0)) as app:
                proxy = Proxy(app, mock, tmp_path / "none.yaml", Memory())
                assert (app.state.ready, await proxy.status()) == (True, 200)
                assert mock.open_connections == 1
                await app.reload()  # there is no file: nothing to do
                assert app.loaded is loaded
            assert not app.state.ready
            await mock.wait_idle()
            with pytest.raises(httpx.ConnectError):
                await proxy.status()


async def test_address_in_use_is_a_plain_error(tmp_path: Path) -> None:
    """Before anything was started, with the address in it."""
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"127.0.0.1:{port}"):
            await bind(Config(), Options(host="127.0.0.1", port=port))


async def test_demo_needs_nothing() -> None:
    """All models of the shipped demo answer, by a mock provider of its own."""
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            loaded = await with_demo_provider(load_demo(), stack)
            app = await stack.enter_async_context(open_app(loaded, options=Options(port=0)))
            async with httpx.AsyncClient(base_url=app.addresses[0], timeout=None, trust_env=False) as client:
                listed = [card["id"] for card in (await client.get("/v1/models")).json()["data"]]
                assert {"demo-gpt", "demo-responses", "demo-claude", "demo-gemini"} <= set(listed)
                answer = await client.post("/v1/chat/completions", content=chat("demo-gpt"))
                assert answer.status_code == 200


# -- reload --


async def test_reload_swaps_keys_of_clients(tmp_path: Path) -> None:
    """The old one is worth nothing from the next request on."""
    async with running(tmp_path) as proxy:
        assert (await proxy.status(key=FIRST), await proxy.status(key=SECOND)) == (200, 401)
        await proxy.rewrite(config(proxy.mock, tmp_path, key=SECOND))
        assert (await proxy.status(key=FIRST), await proxy.status(key=SECOND)) == (401, 200)


async def test_reload_swaps_providers_and_keeps_their_connections(tmp_path: Path) -> None:
    """Keys and models change between two requests on one connection to the provider."""
    async with running(tmp_path) as proxy:
        assert await proxy.status(model="one") == 200
        await proxy.rewrite(config(proxy.mock, tmp_path, provider_key=PROVIDER_SECOND, models="two"))
        assert (await proxy.status(model="one"), await proxy.status(model="two")) == (400, 200)
        sent = [request.header(b"authorization") for request in proxy.mock.requests]
        assert sent == [f"Bearer {PROVIDER_FIRST}".encode(), f"Bearer {PROVIDER_SECOND}".encode()]
        assert proxy.mock.total_connections == 1


async def test_reload_swaps_limits(tmp_path: Path) -> None:
    """For requests, and for connections that are open already."""
    async with running(tmp_path) as proxy, proxy.client() as client:
        body = chat("one", "x" * 5000)
        assert (await client.post("/v1/chat/completions", content=body)).status_code == 200
        await proxy.rewrite(config(proxy.mock, tmp_path, extra="limits: {body-bytes: 1000, header-seconds: 3}"))
        assert (await client.post("/v1/chat/completions", content=body)).status_code == 413
        assert (await client.post("/v1/chat/completions", content=chat("one"))).status_code == 200
        assert proxy.app.server.limits.header_seconds == 3


async def test_reload_swaps_deadlines_of_providers(tmp_path: Path) -> None:
    """The executors are new ones."""
    async with running(tmp_path, models="one first-byte-60000") as proxy:
        extra = "first-byte-timeout-seconds: 0.05"
        await proxy.rewrite(config(proxy.mock, tmp_path, models="one first-byte-60000", extra=extra))
        assert await proxy.status(model="first-byte-60000") == 504


@pytest.mark.parametrize(
    "broken", ["port: [", "port: many\nunknown-key: 1\n", "api-keys: 5", "a: &a [*a]", "\0", "claude-api-key: [{}]"]
)
async def test_broken_file_changes_nothing_and_is_reported(tmp_path: Path, broken: str) -> None:
    """The old configuration stays whole; the repaired file is taken up."""
    async with running(tmp_path, extra="metrics: {enabled: true}") as proxy:
        before = (proxy.app.loaded, proxy.app.state.runtime, proxy.app.server.limits)
        await proxy.rewrite(broken)
        assert (proxy.app.loaded, proxy.app.state.runtime, proxy.app.server.limits) == before
        assert proxy.app.state.runtime is before[1]
        assert await proxy.status() == 200
        await proxy.rewrite(config(proxy.mock, tmp_path, key=SECOND, extra="metrics: {enabled: true}"))
        assert await proxy.status(key=SECOND) == 200
        async with proxy.client() as client:
            metrics = (await client.get("/metrics")).text
        assert 'cpa_config_reloads_total{result="failed"} 1.0' in metrics
        assert 'cpa_config_reloads_total{result="ok"} 1.0' in metrics
    (line,) = proxy.log.events("config.refused")
    assert str(proxy.file) in str(line["problems"])


async def test_problems_of_a_broken_file_show_no_secrets(tmp_path: Path) -> None:
    """They are logged."""
    async with running(tmp_path) as proxy:
        await proxy.rewrite(
            "api-keys: {brand-new-secret-1: brand-new-secret-2}\nproxy-url: ftp://u:brand-new-secret-3@h"
        )
    assert proxy.log.events("config.refused")
    assert b"brand-new-secret" not in proxy.log.data


async def test_missing_file_is_reported_and_an_empty_one_ignored(tmp_path: Path) -> None:
    """Editors truncate before they write, and move before they replace."""
    async with running(tmp_path) as proxy:
        before = proxy.app.state.runtime
        await proxy.rewrite("")
        assert proxy.app.state.runtime is before
        proxy.file.unlink()
        await proxy.app.reload()
        assert proxy.app.state.runtime is before
        assert await proxy.status() == 200
    assert len(proxy.log.events("config.refused")) == 1


async def test_unchanged_file_is_no_reload(tmp_path: Path) -> None:
    """SIGHUP to be on the safe side costs nothing."""
    async with running(tmp_path) as proxy:
        before = proxy.app.state.runtime
        await proxy.app.reload()
        assert proxy.app.state.runtime is before
    assert not proxy.log.events("config.reloaded")


async def test_changes_are_logged_in_words_without_secrets(tmp_path: Path) -> None:
    """Who reads the log sees what the new file did."""
    async with running(tmp_path) as proxy:
        await proxy.rewrite(
            config(
                proxy.mock, tmp_path, key=SECOND, provider_key=PROVIDER_SECOND, models="one two", extra="debug: true"
            )
        )
    (line,) = proxy.log.events("config.reloaded")
    changes = str(line["changes"])
    assert "debug: false -> true" in changes
    assert "farm" in changes
    assert "models 1 -> 2" in changes
    for secret in (FIRST, SECOND, PROVIDER_FIRST, PROVIDER_SECOND):
        assert secret.encode() not in proxy.log.data


async def test_what_needs_a_restart_is_said(tmp_path: Path) -> None:
    """The value is in the file and not in force: silence would be a lie."""
    async with running(tmp_path) as proxy:
        changed = config(
            proxy.mock, tmp_path, extra="limits: {connect-seconds: 3}\nmetrics: {enabled: true}\nworkers: 2"
        )
        await proxy.rewrite(changed.replace("port: 0", "port: 8317"))
        assert await proxy.status() == 200
    named = {line["setting"] for line in proxy.log.events("config.restart_needed")}
    assert named == {"port", "workers", "limits.connect-seconds", "metrics.enabled"}


async def test_warnings_of_the_new_file_are_logged(tmp_path: Path) -> None:
    """As they are at the start."""
    async with running(tmp_path) as proxy:
        await proxy.rewrite(config(proxy.mock, tmp_path, extra="claude-header-defaults: {}"))
    assert any("claude-header-defaults" in str(line) for line in proxy.log.events("config.ignored"))


async def test_running_stream_keeps_its_snapshot(tmp_path: Path) -> None:
    """It ends as it began, though its model, its provider's key and its client's key are gone."""
    async with (
        running(tmp_path, models="chunks-5-delay-50", require_key=PROVIDER_FIRST) as proxy,
        proxy.client() as client,
    ):
        body = chat("chunks-5-delay-50", stream=True)
        async with client.stream("POST", "/v1/chat/completions", content=body) as response:
            pieces = response.aiter_raw()
            received = await anext(pieces)
            await proxy.rewrite(config(proxy.mock, tmp_path, key=SECOND, provider_key=PROVIDER_SECOND, models="two"))
            received += b"".join([piece async for piece in pieces])
        (request,) = proxy.mock.requests
        assert received == expected_body(request.target, request.body)
        assert await proxy.status(key=FIRST) == 401
        assert await proxy.status(key=SECOND, model="chunks-5-delay-50") == 400


async def test_unused_proxies_are_retired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of proxies that the new file does not name close; those it names stay."""
    calls: list[tuple[set[tuple[str, str]], ClientStats]] = []
    retire = UpstreamClients.retire_unused

    async def spy(self: UpstreamClients, in_use: Iterator[tuple[str, str]]) -> None:
        pairs = set(in_use)
        await retire(self, pairs)
        calls.append((pairs, self.stats()))

    monkeypatch.setattr(UpstreamClients, "retire_unused", spy)
    async with open_mock() as target, open_http_proxy(target.port) as first, open_http_proxy(target.port) as second:
        one, two = (f"http://127.0.0.1:{fake.port}" for fake in (first, second))
        async with running(tmp_path, proxy_url=one) as proxy:
            assert await proxy.status() == 200
            await proxy.rewrite(config(proxy.mock, tmp_path, proxy_url=two))
            assert await proxy.status() == 200
            await proxy.rewrite(config(proxy.mock, tmp_path, proxy_url=two, models="one two"))
            assert (len(first.targets), len(second.targets)) == (1, 1)
    assert [pairs for pairs, _ in calls] == [{(two, "")}, {(two, "")}]
    clients = [stats.clients for _, stats in calls]
    assert clients[1] == clients[0] + 1  # the second proxy came into use after the first reload, the first one was gone


async def test_secrets_are_masked_after_a_reload_old_and_new(tmp_path: Path) -> None:
    """What still runs with the old keys logs as well, and a key that left the file is still a key."""
    async with running(tmp_path, extra="request-log: true") as proxy:
        get_logger().info("before", detail=f"uses {PROVIDER_FIRST}")
        await proxy.rewrite(
            config(proxy.mock, tmp_path, key=SECOND, provider_key=PROVIDER_SECOND, extra="request-log: true")
        )
        get_logger().info("after", detail=f"uses {PROVIDER_FIRST} {PROVIDER_SECOND} {FIRST} {SECOND}")
        assert await proxy.status(key=SECOND, text=f"say {PROVIDER_FIRST} {PROVIDER_SECOND}") == 200
        assert await proxy.status(key=FIRST) == 401
    assert proxy.log.events("after")
    files = [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]
    assert files
    written = proxy.log.data + b"".join(path.read_bytes() for path in files)
    assert b"say " in written
    for secret in (FIRST, SECOND, PROVIDER_FIRST, PROVIDER_SECOND):
        assert secret.encode() not in written


async def test_an_older_file_never_replaces_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal and the watcher may reload at the same time, and the first to read may be the last to finish."""
    first_reads, second_asks = trio.Event(), trio.Event()
    read = watch.reload
    reads = 0

    async def slow_first(path: Path, previous: Loaded) -> Loaded | None:
        nonlocal reads
        reads += 1
        number = reads
        loaded = await read(path, previous)
        if number == 1:
            first_reads.set()
            await second_asks.wait()
            # As long as the second one takes, if it does not wait for its turn.
            with trio.move_on_after(0.2):
                await trio.sleep_forever()
        return loaded

    async with running(tmp_path) as proxy:
        monkeypatch.setattr(app_module, "reload", slow_first)
        async with trio.open_nursery() as nursery:
            proxy.file.write_text(config(proxy.mock, tmp_path, models="older"))
            nursery.start_soon(proxy.app.reload)
            await first_reads.wait()
            proxy.file.write_text(config(proxy.mock, tmp_path, models="newer"))
            nursery.start_soon(proxy.app.reload)
            second_asks.set()
        assert reads == 2
        assert [card.id for card in proxy.app.state.runtime.models.cards] == ["newer"]
        assert await proxy.status(model="newer") == 200


async def test_cancelled_reload_is_all_or_nothing(tmp_path: Path) -> None:
    """A reload that is cancelled while it reads has changed nothing, and the next one works."""
    async with running(tmp_path) as proxy:
        before = proxy.app.state.runtime
        with trio.CancelScope() as scope:
            scope.cancel()
            await proxy.rewrite(config(proxy.mock, tmp_path, models="two"))
        assert scope.cancelled_caught
        assert proxy.app.state.runtime is before
        await proxy.app.reload()
        assert [card.id for card in proxy.app.state.runtime.models.cards] == ["two"]


async def test_what_is_native_is_not_for_plugins_to_claim() -> None:
    """Keys with an executor, names that are served, ids that are taken; credentials that plugins read count, too."""
    config = parsed("claude-api-key: [{api-key: k, models: [{name: m}]}]")
    async with open_clients() as clients:
        from_file = Credential(id="f", provider="claude", label="f", models=(ModelEntry(name="n"),))
        native = native_parts(clients, config, [from_file])
    assert {"claude", "gemini"} <= native.providers
    assert native.models == {"m", "n"}
    (credential_id,) = native.credential_ids
    assert credential_id.startswith("claude:apikey:")


async def test_plugins_may_leave_the_execution_to_us() -> None:
    """A credential with an endpoint, of a provider that nobody executes (plugin-abi 4.3.4)."""
    async with open_builder() as builder:
        there = Credential(id="f", provider="acme", label="f", base_url="http://h/v1", source=FROM_FILE, path="/f")
        builder.plugins.accounts.snapshot = AccountsSnapshot(
            credentials=(there, attrs.evolve(there, id="g", provider="other", base_url="")),
            models=(
                PluginModels(plugin_id=PluginId("p"), provider="acme", cards=(ModelCard(id="acme-1"),)),
                PluginModels(plugin_id=PluginId("p"), provider="other", cards=(ModelCard(id="other-1"),)),
            ),
        )
        models = builder.build(Config()).models
        assert {card.id for card in models.cards} == {"acme-1"}
        (candidate,) = models.resolve("acme-1")
        assert candidate.credential is there
        own = attrs.evolve(there, proxy_url="direct")
        assert list(proxy_settings(Config(), [there, own])) == [("", ""), ("direct", "")]
