"""What each standard example does through a running proxy, in every language and transport (plugin-abi 8.2–8.5)."""

import json
from functools import partial
from pathlib import Path

import httpx
import structlog
import trio

from cpa.abi import methods, wire
from cpa.config.schema import Isolation
from tests.e2e.program import run as run_program
from tests.examples.building import Example, Library, install
from tests.examples.hosting import CHAT, configuration, credentials, example, heard, running
from tests.proxy import CONFIG

PROBE = "probe-provider"
LATER = "2030-01-01T00:00:00Z"


def chain(source: str, target: str, step: str, request: str = "native", response: str = "native") -> str:
    """A chain in which plugins translate what CPA itself could."""
    return f"""
pipeline:
  chains:
    - name: {step}
      match: {{from: {source}, to: {target}}}
      request: [{{translate: {request}}}]
      response: [{{translate: {response}}}]
"""


# --- models and credentials ------------------------------------------------------------------------------------------


@example("model")
async def test_model(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Its model belongs to its provider, which somebody else executes: listed with its limits, and served."""
    async with running(library, plugin, isolation, probe=plugin.says) as run:
        name = f"{plugin.says}-model"
        scratch = run.proxy.directory / "account.new"
        scratch.write_text(json.dumps({"type": plugin.says, "token": "x"}))
        scratch.rename(run.proxy.directory / "account.json")
        await credentials(run, 1)
        model = (await run.listed())[name]
        assert model["owned_by"] == plugin.says
        assert model["context_length"] == 8192
        assert model["max_completion_tokens"] == 1024
        gemini = (await run.client.get("/v1beta/models")).json()["models"]
        [shown] = [model for model in gemini if model["name"] == f"models/{name}"]
        assert shown["displayName"] == "Model Example Model"
        answer = await run.chat(name)
        assert answer.status_code == 200, answer.text
        assert json.loads(answer.json()["payload"])["model"] == name
        assert run.sent() == []


@example("auth")
async def test_auth(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Signing in through the management API leaves its credential in the folder; a file of its type is its own."""
    async with running(library, plugin, isolation) as run:
        started = await run.manage("GET", f"{plugin.says}-auth-url")
        assert started.json() == {"status": "ok", "url": "https://example.invalid/login", "state": "example-state"}
        polled = await run.manage("GET", "get-auth-status?state=example-state")
        assert polled.json() == {"status": "ok"}
        saved = run.proxy.directory / f"{plugin.says}.json"
        assert json.loads(saved.read_text()) == {"type": plugin.says, "token": "example-token"}
        [credential] = await credentials(run, 1)
        assert (credential.provider, credential.label) == (plugin.says, "Auth Example")
        entry = await run.entry()
        assert (entry["supports_oauth"], entry["oauth_provider"]) == (True, plugin.says)


# --- clients ---------------------------------------------------------------------------------------------------------


@example("frontend-auth")
async def test_frontend_auth(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Nobody needs a key any more."""
    async with running(library, plugin, isolation) as run, run.proxy.client(key=None) as anybody:
        answer = await anybody.post("/v1/chat/completions", json={**CHAT, "model": "gpt"})
        assert answer.status_code == 200
        assert (await run.chat("gpt")).status_code == 200  # keys open as before


@example("frontend-auth-exclusive")
async def test_frontend_auth_exclusive(library: Library, plugin: Example, isolation: Isolation) -> None:
    """The header opens, and nothing else does: neither a configured key nor another value."""
    async with running(library, plugin, isolation) as run, run.proxy.client(key=None) as anybody:

        async def status(client: httpx.AsyncClient, **headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await client.get("/v1/models", headers=sent)).status_code

        assert await status(anybody, x_example_frontend_auth="exclusive") == 200
        assert await status(anybody, X_EXAMPLE_FRONTEND_AUTH="exclusive") == 200
        assert await status(anybody) == 401
        assert await status(anybody, x_example_frontend_auth="Exclusive") == 401
        assert await status(anybody, x_example_frontend_auth="") == 401
        assert await status(run.client) == 401
        assert (await run.manage("GET", "plugins")).status_code == 200  # has a key of its own


# --- executors -------------------------------------------------------------------------------------------------------


@example("executor")
async def test_executor(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Whole, streamed, counted; requests get to it by a router, as it has no models."""
    async with running(library, plugin, isolation, probe=PROBE) as run:
        model = f"via-{plugin.id}"
        whole = await run.chat(model)
        assert (whole.status_code, whole.json()) == (200, {"id": plugin.says, "object": "chat.completion"})
        assert whole.headers["content-type"].startswith("application/json")
        streamed = await run.chat(model, stream=True)
        assert streamed.status_code == 200
        assert streamed.headers["content-type"].startswith("text/event-stream")
        # The chunk is a JSON string with the text of an event in it, as upstream's example has it.
        assert streamed.text == f'data: "data: {plugin.says}\\n\\n"\n\ndata: [DONE]\n\n'
        assert run.sent() == []


@example("protocol-format")
async def test_protocol_format(library: Library, plugin: Example, isolation: Isolation) -> None:
    """It answers clients of Responses; those of Chat Completions cannot be served from its output."""
    async with running(library, plugin, isolation, probe=PROBE) as run:
        model = f"via-{plugin.id}"
        answer = await run.client.post("/v1/responses", json={"model": model, "input": "hello"})
        assert answer.status_code == 200
        assert {"id": plugin.says, "object": "chat.completion"}.items() <= answer.json().items()
        streamed = await run.client.post("/v1/responses", json={"model": model, "input": "hello", "stream": True})
        assert streamed.status_code >= 400
        assert "unknown method" in streamed.text
        assert run.sent() == []


# --- transforms ------------------------------------------------------------------------------------------------------


@example("request-translator")
async def test_request_translator(library: Library, plugin: Example, isolation: Isolation) -> None:
    """It translates where a chain says so; where CPA can translate itself and nobody says so, it is not asked."""
    extra = chain("openai", "claude", "mine", request=plugin.id)
    async with running(library, plugin, isolation, extra=extra) as run:
        await run.chat("claude")
        assert [json.loads(body) for body in run.sent()] == [{"translated_by": plugin.says}]
        run.mock.forget()
        assert (await run.chat("gemini")).status_code == 200
        [body] = run.sent()
        assert json.loads(body)["contents"][0]["parts"] == [{"text": "hello"}]
        run.mock.forget()
        await run.client.post("/v1/messages", json={**CHAT, "model": "claude", "max_tokens": 9})
        # From Claude to Claude there is nothing that CPA would translate, so plugins may (plugin-abi 6.3).
        assert [json.loads(body) for body in run.sent()] == [{"translated_by": plugin.says}]


@example("request-normalizer")
async def test_request_normalizer(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Providers get its body instead of every request's."""
    async with running(library, plugin, isolation) as run:
        await run.chat("gpt")
        await run.chat("claude", stream=True)
        assert [json.loads(body) for body in run.sent()] == [{"normalized_by": plugin.says}] * 2


@example("response-translator")
async def test_response_translator(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Likewise for answers: in a chain that names it, and nowhere else."""
    extra = chain("openai", "claude", "mine", response=plugin.id)
    async with running(library, plugin, isolation, extra=extra) as run:
        answer = await run.chat("claude")
        assert (answer.status_code, answer.json()) == (200, {"response_translated_by": plugin.says})
        assert (await run.chat("gemini")).json()["object"] == "chat.completion"


@example("response-normalizer")
async def test_response_normalizer(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Clients get its body: the one after translation, which is the last word."""
    async with running(library, plugin, isolation) as run:
        expected = {"response_normalized_after_by": plugin.says}
        assert (await run.chat("gpt")).json() == expected
        streamed = await run.chat("gpt", stream=True)
        frames = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line.startswith("data: {")]
        assert frames
        assert [json.loads(frame) for frame in frames] == [expected] * len(frames)


@example("thinking")
async def test_thinking(library: Library, plugin: Example, isolation: Isolation) -> None:
    """A suffix of the model's name, for the provider that it is responsible for, makes it write the body."""
    async with running(library, plugin, isolation, probe=plugin.says) as run:
        plain = await run.chat("probe-model")
        assert plain.status_code == 200
        assert json.loads(plain.json()["payload"])["messages"] == CHAT["messages"]
        thought = await run.chat("probe-model(high)")
        assert json.loads(thought.json()["payload"]) == {"thinking_applied_by": plugin.says}


# --- observers and others --------------------------------------------------------------------------------------------


@example("usage")
async def test_usage(library: Library, plugin: Example, isolation: Isolation) -> None:
    """It takes the record of every execution without a complaint, and answers go on as ever."""
    async with running(library, plugin, isolation) as run, heard(run, "usage.handle") as calls:
        answer = await run.chat("gpt")
        assert answer.status_code == 200
        record = await calls.receive()
        assert isinstance(record, wire.UsageRequest)
        assert record.alias == "gpt"
        assert record.detail.total_tokens == answer.json()["usage"]["total_tokens"]


@example("management-api")
async def test_management_api(library: Library, plugin: Example, isolation: Isolation) -> None:
    """A page that anybody may see, and that the list of plugins names."""
    async with running(library, plugin, isolation) as run:
        page = await run.page()
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.text == "<!doctype html><title>Management API</title><main>Management API resource</main>"
        entry = await run.entry()
        [menu] = entry["menus"]
        assert (menu["path"], menu["menu"]) == (f"/v0/resource/plugins/{plugin.id}/status", "Management API")
        assert f"/v0/resource/plugins/{plugin.says}/status" in menu["description"]
        assert (await run.manage("GET", "status")).status_code == 404


@example("host-callback")
async def test_host_callback(library: Library, plugin: Example, isolation: Isolation) -> None:
    """The page comes after a line in the log and a fetch through the host, whatever came of them."""
    asked: list[bytes] = []
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, partial(refuse, asked), [listener]))
        config = CONFIG.replace("proxy-url: direct", f"proxy-url: http://127.0.0.1:{port}")
        async with running(library, plugin, isolation, config=config) as run:
            with structlog.testing.capture_logs() as lines:
                page = await run.page()
            [line] = [line for line in lines if line["event"] == "plugin.log"]
            assert (line["message"], line["log_level"]) == (f"{plugin.says} host callback log", "info")
            assert line["fields"] == {"plugin": plugin.says}
            assert page.status_code == 200
            assert page.text == "<!doctype html><title>Host Callback</title><main>Host Callback resource</main>"
            assert [head.split(b"\r\n")[0] for head in asked] == [b"CONNECT example.com:443 HTTP/1.1"]
        nursery.cancel_scope.cancel()


async def refuse(asked: list[bytes], stream: trio.SocketStream) -> None:
    """An HTTP proxy that lets nobody through."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    asked.append(head)
    await stream.send_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")


@example("cli")
async def test_cli(library: Library, plugin: Example, isolation: Isolation, tmp_path: Path) -> None:
    """Its flag is the program's; giving it runs the command and ends the program."""
    install(library[plugin], tmp_path, plugin.id)
    config = tmp_path / "config.yaml"
    lines = f"host: 127.0.0.1\nport: 0\nauth-dir: {tmp_path}\n{configuration([plugin.id], tmp_path, isolation)}\n"
    config.write_text(lines, encoding="utf-8")
    done = await run_program("-config", str(config), f"-{plugin.says}-command")
    assert (done.code, done.out) == (0, f'"{plugin.says} command executed\\\\n"'), done.err
    async with running(library, plugin, isolation) as run:  # the program's help shows these
        [live] = run.proxy.app.plugins.manager.snapshot()
        [flag] = (await live.call(methods.COMMAND_LINE_REGISTER, wire.PluginRequest())).flags
    assert (flag.name, flag.type) == (f"{plugin.says}-command", "bool")
    assert flag.usage == "Run the example plugin command"
