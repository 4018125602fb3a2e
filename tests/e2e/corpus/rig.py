"""What rows of the corpus are tried on: one running proxy, in front of a provider that says what the row wants.

Rows are synchronous and many, and a proxy takes longer to start than all of them take: it runs in a thread of its own,
on its own loop, for as long as the module's tests do.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import httpx
import trio
import trio.from_thread

from tests.e2e.scripted import Asked, ScriptedProvider, scripted_provider
from tests.e2e.vendor_types import assert_vendors
from tests.proxy import CLIENT_KEY, running_proxy

TIMEOUT_S = 30.0

CONFIG = """
host: 127.0.0.1
port: 0
proxy-url: direct
auth-dir: {auth_dir}
api-keys: [{client_key}]
disable-cooling: true
request-retry: 0
openai-compatibility:
  - name: corpus
    base-url: {provider}/v1
    api-key-entries: [{{api-key: {provider_key}}}]
    models: [{{name: mock-gpt, alias: gpt}}, {{name: deepseek-x}}]
codex-api-key:
  - api-key: {provider_key}
    base-url: {provider}/v1
    models: [{{name: mock-responses, alias: responses}}, {{name: gpt-5.5}}]
claude-api-key:
  - api-key: {provider_key}
    base-url: {provider}
    models:
      - {{name: mock-claude, alias: claude}}
      - {{name: claude-opus-4-7}}
      - {{name: claude-opus-4-6}}
      - {{name: claude-sonnet-4-5}}
      - {{name: claude-opus-5}}
gemini-api-key:
  - api-key: {provider_key}
    base-url: {provider}
    models:
      - {{name: mock-gemini, alias: gemini}}
      - {{name: gemini-2.5-pro}}
      - {{name: gemini-3-flash}}
{extra}
"""

WHOLE: dict[str, bytes] = {
    "/chat/completions": b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}',
    "/v1/messages": b'{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text",'
    b'"text":"ok"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}',
    ":generateContent": b'{"candidates":[{"content":{"role":"model","parts":[{"text":"ok"}]},"finishReason":"STOP",'
    b'"index":0}]}',
    "/responses": b'data: {"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[{"id":'
    b'"msg_1","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"ok",'
    b'"annotations":[]}]}]}}\n\n',
}
"""What a provider says to a request of which only the request matters."""

ANY_STREAM: dict[str, bytes] = {
    "chat": b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n",
    "claude": b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":'
    b'"assistant","model":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    "gemini": b'data: {"candidates":[{"content":{"parts":[{"text":"ok"}]},"finishReason":"STOP"}]}\n\n',
}
"""The same, streamed."""


@attrs.define(eq=False)
class Rig:
    """A running proxy. All of it is called from the tests' thread.

    Attributes:
      losses: ``X-CPA-Loss`` of the latest answer.
    """

    url: str
    provider: ScriptedProvider
    token: trio.lowlevel.TrioToken
    http: httpx.Client
    losses: str = ""

    def ask(self, client: str, model: str, body: Any, *, stream: bool = False) -> httpx.Response:
        """Post *body* (JSON, or bytes) as a client of the protocol *client*."""
        self.provider.requests.clear()
        content = body if isinstance(body, bytes) else json.dumps(whole_body(client, model, body, stream)).encode()
        answer = self.http.post(path_of(client, model, stream), content=content)
        self.losses = answer.headers.get("x-cpa-loss", "")
        return answer

    def asked(self) -> Asked:
        """The one request that the provider got, which the vendor's SDK could have sent."""
        [request] = self.provider.requests
        assert_vendors(request.target, request.body)
        return request

    def sent(self, client: str, model: str, body: Any, *, stream: bool = False) -> Any:
        """What the provider gets for *body*; its answer is of no interest."""
        self.answer_anything(model, stream=stream, home=client == provider_of(model))
        answer = self.ask(client, model, body, stream=stream)
        assert answer.status_code == 200, answer.text
        return self.asked().json

    def refused(self, client: str, model: str, body: Any, *, status: int = 400) -> dict[str, Any]:
        """The error object of a request that never reaches the provider."""
        answer = self.ask(client, model, body)
        assert answer.status_code == status, answer.text
        assert not self.provider.requests
        error: dict[str, Any] = answer.json()["error"]
        return error

    def whole(self, client: str, model: str, said: bytes, **more: Any) -> Any:
        """The client's whole answer when the provider has *said* this: JSON, or a stream where it always streams."""
        kind = "text/event-stream" if provider_of(model) == "responses" else "application/json"
        self.provider.says(said, content_type=kind)
        answer = self.ask(client, model, {**plain(client), **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def streamed(self, client: str, model: str, said: bytes, **more: Any) -> list[dict[str, Any]]:
        """The JSON of every frame of the client's stream when the provider has *said* this stream."""
        self.provider.says(said)
        answer = self.ask(client, model, {**plain(client), **more}, stream=True)
        assert answer.status_code == 200, answer.text
        return frames(answer.text)

    def answer_anything(self, model: str, *, stream: bool = False, home: bool = False) -> None:
        """The provider says something, whatever it is asked. *home*: by a client of its own protocol."""
        if provider_of(model) == "responses":
            if home and not stream:
                self.provider.says(b'{"id":"resp_1","status":"completed","output":[]}', content_type="application/json")
            else:
                self.provider.says(WHOLE["/responses"])
        elif stream:
            self.provider.says(ANY_STREAM[provider_of(model)])
        else:
            ending = {"chat": "/chat/completions", "claude": "/v1/messages", "gemini": ":generateContent"}
            self.provider.says(WHOLE[ending[provider_of(model)]], content_type="application/json")

    def run(self, function: Callable[[], Any]) -> Any:
        """*function*, asynchronous, on the proxy's loop."""
        return trio.from_thread.run(function, trio_token=self.token)


def provider_of(model: str) -> str:
    """Its protocol."""
    if model.startswith(("claude", "gem")):
        return "claude" if model.startswith("claude") else "gemini"
    return "responses" if model in ("responses", "gpt-5.5") else "chat"


def path_of(client: str, model: str, stream: bool) -> str:
    """Where clients post."""
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    paths = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "claude": "/v1/messages"}
    return paths.get(client) or f"/v1beta/models/{model}:{verb}"


def whole_body(client: str, model: str, body: dict[str, Any], stream: bool) -> dict[str, Any]:
    """*body* with what every request of *client* has."""
    if client == "gemini":
        return body
    more: dict[str, Any] = {"model": model}
    if client == "claude":
        more["max_tokens"] = 4096
    if stream:
        more["stream"] = True
    return {**more, **body}


def plain(client: str) -> dict[str, Any]:
    """A question."""
    if client == "gemini":
        return {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    if client == "responses":
        return {"input": "hi"}
    return {"messages": [{"role": "user", "content": "hi"}]}


def frames(text: str) -> list[dict[str, Any]]:
    """The JSON of every event of a stream; ``[DONE]`` as ``{"done": True}``."""
    found = []
    for event in text.split("\n\n"):
        data = [line[6:] for line in event.split("\n") if line.startswith("data: ")]
        if data:
            found.append({"done": True} if data == ["[DONE]"] else json.loads("\n".join(data)))
    return found


def sse(*events: Any, done: bool = False) -> bytes:
    """A stream of *events*; Claude's and Responses' get their names."""
    out = b""
    for event in events:
        if isinstance(event, bytes):
            out += event
            continue
        if "type" in event:
            out += b"event: " + event["type"].encode() + b"\n"
        out += b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
    return out + (b"data: [DONE]\n\n" if done else b"")


@contextmanager
def open_rig(extra: str = "translation: {report-losses: true}") -> Iterator[Rig]:
    """One that runs while the block does."""
    ready = threading.Event()
    found: list[Any] = []

    async def serve() -> None:
        stop = trio.Event()
        async with (
            scripted_provider() as provider,
            running_proxy(config=CONFIG, extra=extra, provider_url=provider.url) as proxy,
        ):
            found.extend((proxy.url, provider, trio.lowlevel.current_trio_token(), stop))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            trio.run(serve)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="corpus-proxy")
    thread.start()
    try:
        assert ready.wait(TIMEOUT_S)
        assert found, "the proxy did not start"
        url, provider, token, stop = found
        headers = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json"}
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as http:
                yield Rig(url=url, provider=provider, token=token, http=http)
        finally:
            token.run_sync_soon(stop.set)
    finally:
        thread.join(TIMEOUT_S)
