"""No secret gets out: unusual ones in every place that takes one, traffic of every kind, then a look at all that was
written: output, logs, request logs, metrics, and whatever clients were told."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import trio

from cpa.testing.mock import open_mock, refusing_port
from tests.e2e.program import TIMEOUT_S, serving
from tests.e2e.sdk import with_fault
from tests.e2e.wire import CHAT, RESPONSES, WIRES
from tests.proxy import MOCK_HEADERS, running_proxy

SECRETS = {
    "client": "kanarie.client~7Q/x+y=",
    "wrong": "kanarie wrong~5T",
    "query": "kanarie&query=8;Z",
    "provider": "kanarie:provider|9K",
    "header": "kanarie-header^3W",
    "proxy": "kanarie@proxy#2M",
    "management": "kanarie*management!4J",
}
"""None has a form by which it could be known (sk-…, Bearer …): only what the program knows can hide them."""
HEADERS = MOCK_HEADERS.replace("}", f', X-Team-Pass: "{SECRETS["header"]}"}}')
CONFIG = """\
host: 127.0.0.1
port: 0
disable-cooling: true
request-retry: 0
proxy-url: direct
auth-dir: {directory}
api-keys: ["{client}", "{query}"]
debug: true
request-log: true
metrics: {{enabled: true}}
logging: {{format: {log_format}}}
passthrough-headers: true
remote-management: {{secret-key: "{management}"}}
openai-compatibility:
  - name: mock
    base-url: {provider_url}/v1
    api-key-entries: [{{api-key: "{provider}"}}]
    headers: {headers}
    models: [{{name: mock-gpt, alias: gpt}}]
  - name: gossip
    base-url: {gossip_url}/v1
    api-key-entries: [{{api-key: "{provider}"}}]
    headers: {headers}
    models: [{{name: gossip}}]
  - name: proxied
    base-url: http://192.0.2.1/v1
    api-key-entries: [{{api-key: "{provider}", proxy-url: "http://user:{quoted}@127.0.0.1:{refusing}"}}]
    models: [{{name: proxied}}]
  - name: socks
    base-url: http://192.0.2.1/v1
    api-key-entries: [{{api-key: "{provider}", proxy-url: "socks5://user:{quoted}@127.0.0.1:{refusing}"}}]
    models: [{{name: socks}}]
codex-api-key:
  - {{api-key: "{provider}", base-url: "{provider_url}/v1", headers: {headers},
     models: [{{name: mock-responses, alias: responses}}]}}
claude-api-key:
  - {{api-key: "{provider}", base-url: "{provider_url}", headers: {headers},
     models: [{{name: mock-claude, alias: claude}}]}}
gemini-api-key:
  - {{api-key: "{provider}", base-url: "{provider_url}", headers: {headers},
     models: [{{name: mock-gemini, alias: gemini}}]}}
"""


def forms(secret: str) -> Iterator[bytes]:
    """How a secret may look where it should not be."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")
    yield base64.b64encode(b"user:" + secret.encode()).rstrip(b"=")


@asynccontextmanager
async def open_gossip() -> AsyncIterator[str]:
    """A provider that repeats the head of every request in an error, keys included, as some really do."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            got = b""
            while b"\r\n\r\n" not in got:
                data = await stream.receive_some()
                if not data:
                    return
                got += data
            told = got.partition(b"\r\n\r\n")[0].decode("latin-1")
            body = json.dumps({"error": {"message": f"wrong key in {told}", "type": "authentication_error"}}).encode()
            head = (
                b"HTTP/1.1 401 No\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            )
            await stream.send_all(head % len(body) + body)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def traffic(url: str, told: bytearray) -> None:
    """Requests that succeed, fail, break off and make no sense; *told* is all that clients got to see."""
    known = {"authorization": f"Bearer {SECRETS['client']}"}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=TIMEOUT_S) as client:

        async def ask(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> int:
            answer = await client.request(method, target, headers=headers, content=body)
            told.extend(repr(answer.headers.raw).encode() + answer.content + b"\n")
            return answer.status_code

        for wire in WIRES:
            for stream in (False, True):
                target, body = wire.url(stream=stream), wire.body(stream=stream)
                assert await ask("POST", target, known, body) == 200
                assert await ask("POST", target, known | {"X-Mock-Status": "500"}, body) == 500
                assert await ask("POST", target, known | {"X-Mock-Fault": "reset-headers"}, body) == 502
                for name, value in (
                    ("authorization", f"Bearer {SECRETS['wrong']}"),
                    ("authorization", SECRETS["wrong"]),
                    ("x-api-key", SECRETS["wrong"]),
                    ("x-goog-api-key", SECRETS["wrong"]),
                ):
                    assert await ask("POST", target, {name: value}, body) == 401
                mark = "&" if "?" in target else "?"
                for field in ("key", "auth_token"):
                    asked = f"{target}{mark}{field}={quote(SECRETS['query'], safe='')}"
                    assert await ask("POST", asked, {}, body) == 200
                    asked = f"{target}{mark}{field}={quote(SECRETS['wrong'], safe='')}"
                    assert await ask("POST", asked, {}, body) == 401
            assert await ask("POST", wire.url(stream=True), known | with_fault("cut"), wire.body(stream=True)) == 200
            assert await ask("POST", wire.url(stream=False), known, b"no json") == 400
        for name in ("proxied", "socks"):
            assert await ask("POST", CHAT.path, known, CHAT.body(model=name)) == 502
        for stream in (False, True):
            # Its answer is the matter of a test of its own; here it is about what is written of it.
            body = CHAT.body(model="gossip", stream=stream)
            assert (await client.post(CHAT.path, headers=known, content=body)).status_code == 401
        assert await ask("POST", CHAT.path, known, CHAT.body(model="nobody-knows")) == 400
        assert await ask("GET", "/v1/models", known) == 200
        assert await ask("GET", f"/v1/models?key={quote(SECRETS['query'], safe='')}", {}) == 200
        assert await ask("GET", "/v1beta/models", {"x-goog-api-key": SECRETS["wrong"]}) == 401
        management = {"X-Management-Key": SECRETS["management"], "authorization": f"Bearer {SECRETS['management']}"}
        assert await ask("GET", "/metrics", management) == 200
        assert await ask("GET", "/v0/management/config?redact=1", management) == 200
        new = {"old": SECRETS["wrong"], "new": SECRETS["wrong"]}
        edit = await client.patch("/v0/management/api-keys", headers=management, json=new)
        assert edit.status_code == 200
        gone = await client.delete("/v0/management/api-keys", headers=management, params={"value": SECRETS["wrong"]})
        assert gone.status_code == 200
        assert await ask("GET", "/nowhere", known | {"cookie": f"session={SECRETS['wrong']}"}) == 404


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_repeats_its_key_does_not_betray_it(stream: bool) -> None:
    """Its error body passes, without the credential's key and headers in it (translation.md 5.1: minus redaction)."""
    with trio.fail_after(TIMEOUT_S):
        async with open_gossip() as gossip:
            key = SECRETS["provider"]
            extra = f'xai-api-key: [{{api-key: "{key}", base-url: "{gossip}", models: [{{name: gossip}}]}}]'
            async with running_proxy(extra=extra) as proxy, proxy.client() as client:
                answer = await client.post(RESPONSES.path, content=RESPONSES.body(model="gossip", stream=stream))
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
        assert [form for form in forms(SECRETS["provider"]) if form in answer.content] == []


def files_below(directory: Path) -> dict[str, bytes]:
    """Everything that was written to files, by name."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_no_secret_is_written_anywhere(tmp_path: Path, log_format: str) -> None:
    """With debug logging, request logs and metrics on, and a provider that tells what it was sent."""
    config = tmp_path / "config.yaml"
    data = tmp_path / "data"
    data.mkdir()
    told = bytearray()
    with trio.fail_after(TIMEOUT_S):
        async with open_mock() as mock, open_gossip() as gossip, refusing_port() as refusing:
            text = CONFIG.format(
                directory=data,
                log_format=log_format,
                provider_url=mock.url,
                gossip_url=gossip,
                refusing=refusing,
                headers=HEADERS,
                quoted=quote(SECRETS["proxy"], safe=""),
                **SECRETS,
            )
            config.write_text(text, encoding="utf-8")
            async with serving("serve", "--config", str(config), cwd=data) as program:
                await traffic(program.url, told)
                assert await program.stop() == 0
            # The providers did get what the rest of the world must not.
            assert mock.requests[0].header(b"x-team-pass") == SECRETS["header"].encode()
            assert mock.requests[0].header(b"authorization") == b"Bearer " + SECRETS["provider"].encode()
    written = {"output": bytes(program.output), "told to clients": bytes(told), **files_below(data)}
    assert sum(name.endswith(".log") for name in written) > 50
    assert b"/v1/messages" in written["output"]
    assert b"cpa_" in written["told to clients"]
    found = [
        (kind, form, name, content[max(0, content.find(form) - 80) : content.find(form) + 80])
        for name, content in written.items()
        for kind, secret in SECRETS.items()
        for form in forms(secret)
        if form in content
    ]
    assert found == []
