"""A proxy in front of a mock provider, for tests from the outside: real sockets, everything else on the test's loop."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import httpx

from cpa.app import App, open_app
from cpa.config.load import load_config, parse_config
from cpa.observability.sink import LogSink
from cpa.pipeline.stage import Registration
from cpa.starting import Options
from cpa.testing.mock import MockProvider, open_mock

CLIENT_KEY = "client-key-of-the-tests"
PROVIDER_KEY = "provider-key-of-the-tests"
CONFIG_FILE = "cpa.yaml"
"""In the directory of a proxy; nothing takes it for a credential."""

MOCK_HEADERS = (
    "{"
    + ", ".join(
        f"{name}: ${name}"
        for name in (
            "X-Mock-At",
            "X-Mock-Body",
            "X-Mock-Calls",
            "X-Mock-Chunk-Bytes",
            "X-Mock-Chunks",
            "X-Mock-Delay",
            "X-Mock-Fault",
            "X-Mock-First-Byte",
            "X-Mock-Retry-After",
            "X-Mock-Status",
            "X-Mock-Think",
            "X-Mock-Tool",
        )
    )
    + "}"
)
"""Credential headers that hand a client's orders for the mock on, so that few models do for all scenarios."""

CONFIG = """
host: 127.0.0.1
port: 0
proxy-url: direct
auth-dir: {auth_dir}
api-keys: [{client_key}]
disable-cooling: true  # what one request does to a provider must not decide about the next one
request-retry: 0
openai-compatibility:
  - name: mock
    base-url: {provider}/v1
    api-key-entries: [{{api-key: {provider_key}}}]
    headers: {headers}
    models:
      - {{name: mock-gpt, alias: gpt}}
      - {{name: mock-gpt-unrenamed}}
codex-api-key:
  - api-key: {provider_key}
    base-url: {provider}/v1
    headers: {headers}
    models:
      - {{name: mock-responses, alias: responses}}
      - {{name: mock-responses-unrenamed}}
claude-api-key:
  - api-key: {provider_key}
    base-url: {provider}
    headers: {headers}
    models:
      - {{name: mock-claude, alias: claude}}
      - {{name: mock-claude-unrenamed}}
gemini-api-key:
  - api-key: {provider_key}
    base-url: {provider}
    headers: {headers}
    models:
      - {{name: mock-gemini, alias: gemini}}
      - {{name: mock-gemini-unrenamed}}
{extra}
"""


@attrs.frozen(kw_only=True)
class RunningProxy:
    """Made by `running_proxy`.

    Attributes:
      url: ``http://127.0.0.1:PORT``, without a path.
      mock: behind all four kinds of credentials; it wants `PROVIDER_KEY`.
      directory: what the proxy calls its auth-dir; logs go below it.
    """

    app: App
    mock: MockProvider
    url: str
    directory: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for plain sockets."""
        parsed = httpx.URL(self.url)
        assert parsed.port is not None
        return parsed.host, parsed.port

    @property
    def config_file(self) -> Path:
        """Where the configuration is, if it is in a file."""
        return self.directory / CONFIG_FILE

    def client(self, *, key: str | None = CLIENT_KEY, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
        """A plain HTTP client of the proxy, with *key* as its bearer token (None = without)."""
        sent = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers={**sent, **(headers or {})}, timeout=None, trust_env=False)


@asynccontextmanager
async def running_proxy(
    *,
    config: str = "",
    extra: str = "",
    provider_url: str | None = None,
    registrations: Iterable[Registration] = (),
    keyless: bool = False,
    in_file: bool = False,
    sink: LogSink | None = None,
) -> AsyncIterator[RunningProxy]:
    """A mock provider and a proxy in front of it while the block runs.

    Models ``gpt``, ``responses``, ``claude`` and ``gemini`` are renamed to ``mock-…`` on their way, those named
    ``mock-…-unrenamed`` keep their names. ``X-Mock-*`` headers of clients reach the mock.

    Args:
      config: the whole configuration instead of `CONFIG`, with the same fields in braces.
      extra: YAML to append to it.
      provider_url: where the providers are instead of the mock.
      registrations: stages of the pipeline.
      keyless: the mock takes any key.
      in_file: the configuration is in a file, `RunningProxy.config_file`, and can be edited.
      sink: for the application log, which is global: whoever gives one puts things back in order.
    """
    with TemporaryDirectory(prefix="cpa-test-") as directory:
        async with open_mock(require_key=None if keyless else PROVIDER_KEY) as mock:
            text = (config or CONFIG).format(
                auth_dir=directory,
                client_key=CLIENT_KEY,
                provider=provider_url or mock.url,
                provider_key=PROVIDER_KEY,
                headers=MOCK_HEADERS,
                extra=extra,
            )
            loaded, options = parse_config(text, file="test.yaml"), Options(port=0)
            if in_file:
                file = Path(directory) / CONFIG_FILE
                file.write_text(text)
                loaded, options = load_config(file), Options(port=0, config=file)
            async with open_app(loaded, options=options, registrations=registrations, sink=sink) as app:
                yield RunningProxy(app=app, mock=mock, url=app.addresses[0], directory=Path(directory))
