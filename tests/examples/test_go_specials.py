"""The examples that exist in Go only, each through a running proxy in both transports (plugin-abi 8.6 to 8.9)."""

import html
import json
import re
from collections.abc import Mapping
from typing import Any

import attrs
import httpx
import pytest
import trio

from cpa.abi import methods, wire
from cpa.abi.envelope import PluginCallError
from cpa.abi.kinds import B64
from cpa.config.schema import Isolation
from tests.examples.building import Example, Library
from tests.examples.hosting import Run, example, heard, live, reconfigure, running
from tests.proxy import CONFIG


async def refusal(run: Run, text: str, *, schema: int = 3) -> str:
    """Why it does not take these settings."""
    with pytest.raises(PluginCallError) as caught:
        await reconfigure(run, text, schema=schema)
    return str(caught.value)


# --- codex-service-tier ----------------------------------------------------------------------------------------------

GPT = CONFIG.replace(
    "      - {{name: mock-responses-unrenamed}}\n", "      - {{name: gpt-5.5}}\n      - {{name: gpt-5.6}}\n"
)


@example("codex-service-tier")
async def test_codex_service_tier(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Codex requests for the one model get the tier, whoever they come from; other models and providers do not."""
    async with running(library, plugin, isolation, settings="fast: true", config=GPT) as run:

        async def sent(path: str, body: Mapping[str, object]) -> Any:
            run.mock.forget()
            await run.client.post(path, json=body)
            [request] = run.sent()
            return json.loads(request)

        chat = {"messages": [{"role": "user", "content": "hello"}]}
        assert (await sent("/v1/responses", {"model": "gpt-5.5", "input": "x"}))["service_tier"] == "priority"
        other = {"model": "gpt-5.5", "input": "x", "service_tier": "flex"}
        assert (await sent("/v1/responses", other))["service_tier"] == "priority"
        assert (await sent("/v1/chat/completions", {**chat, "model": "gpt-5.5"}))["service_tier"] == "priority"
        assert "service_tier" not in await sent("/v1/responses", {"model": "gpt-5.6", "input": "x"})
        assert "service_tier" not in await sent("/v1/chat/completions", {**chat, "model": "gpt"})
        await reconfigure(run, "fast: false")
        assert "service_tier" not in await sent("/v1/responses", {"model": "gpt-5.5", "input": "x"})
        assert (await run.entry())["config_fields"][0]["name"] == "fast"


@example("codex-service-tier", isolations=[Isolation.PROCESS])
async def test_the_rest_of_the_body_stays(library: Library, plugin: Example, isolation: Isolation) -> None:
    """To the byte; so does what is no object."""
    tier = b'"service_tier":"priority"'
    async with running(library, plugin, isolation, settings="fast: true") as run:

        async def normalized(body: bytes, to_format: str = "codex", model: str = "gpt-5.5") -> bytes:
            request = wire.RequestTransformRequest(to_format=to_format, model=model, body=B64(body))
            return bytes((await live(run).call(methods.REQUEST_NORMALIZE, request)).body)

        for body, expected in (
            (b"{}", b"{" + tier + b"}"),
            (b' { "a" : [1e400, "\\u00fc"] } \n', b' { "a" : [1e400, "\\u00fc"],' + tier + b" } \n"),
            (b'{"service_tier" : {"x":1} ,"b":2}', b'{"service_tier" : "priority" ,"b":2}'),
            (b'{"service_tier":1,"service_tier":2}', b"{" + tier + b"," + tier + b"}"),
            (b'{"x":{"service_tier":1}}', b'{"x":{"service_tier":1},' + tier + b"}"),
            (b'{"Service_Tier":1}', b'{"Service_Tier":1,' + tier + b"}"),
            *((other, other) for other in (b"", b"[]", b'"x"', b"null", b"{", b'{"a":1} {}', b"\xff")),
        ):
            assert await normalized(body) == expected, body
        assert await normalized(b"{}", "CODEX") == b"{" + tier + b"}"
        assert await normalized(b"{}", "openai") == b"{}"
        assert await normalized(b"{}", model="gpt-5.5-codex") == b"{}"
        assert await normalized(b"{}", model="GPT-5.5") == b"{}"


@example("codex-service-tier", isolations=[Isolation.PROCESS])
async def test_bad_settings_leave_the_good_ones_in_force(
    library: Library, plugin: Example, isolation: Isolation
) -> None:
    """A refusal says what is wrong."""
    async with running(library, plugin, isolation, settings="fast: true") as run:
        for text, why in (
            ("fast: maybe", 'fast: expected a boolean, got "maybe"'),
            ("fast: 'true'", "fast: expected a boolean"),
            ("fast: [true]", "fast: expected a boolean, got a list or a mapping"),
            ("fast: [true", "line 1: expected a comma or ']'"),
            ('fast: "true', "line 1: a quote is not closed"),
            ("enabled: true\nfast: {a: 1", "line 2: "),
            ("fast: true\n  other: 1", "line 2: wrong indentation"),
            ("\tfast: true", "line 1: "),
            ("fast: true\nfast: false", 'line 2: "fast" is there twice'),
            ("fast: a: b", "line 1: a mapping cannot begin behind a key"),
            ("- fast", "expected a mapping of settings"),
            ("just words", "expected a mapping of settings"),
            ("[" * 200, "nested too deeply"),
            ("{a: " + "[" * 200, "nested too deeply"),
        ):
            found = await refusal(run, text)
            assert why in found or (text.startswith("[") and "expected a mapping" in found), (text, found)
        request = wire.RequestTransformRequest(to_format="codex", model="gpt-5.5", body=B64(b"{}"))
        assert (await live(run).call(methods.REQUEST_NORMALIZE, request)).body == b'{"service_tier":"priority"}'


# --- scheduler -------------------------------------------------------------------------------------------------------

TWO = CONFIG.replace(
    "codex-api-key:",
    """  - name: second
    base-url: {provider}/v1
    api-key-entries: [{{api-key: {provider_key}}}]
    headers: {{X-Account: second}}
    models:
      - {{name: mock-gpt, alias: gpt}}
codex-api-key:""",
    1,
)


@example("scheduler")
async def test_scheduler(library: Library, plugin: Example, isolation: Isolation) -> None:
    """It picks the credential of its settings, lets the host pick, or refuses, in the order of the document."""
    async with running(library, plugin, isolation, config=TWO) as run:
        accounts = run.mock.requests

        async def served_by(number: int) -> list[bool]:
            run.mock.forget()
            for _ in range(number):
                assert (await run.chat("gpt")).status_code == 200
            return [(b"x-account", b"second") in request.headers for request in accounts]

        async with heard(run, "scheduler.pick") as picks:
            assert sorted(await served_by(2)) == [False, True]  # declined: round robin, the host's default
            request = await picks.receive()
            assert isinstance(request, wire.PickRequest)
            ids = [candidate.id for candidate in request.candidates]
            assert len(ids) == 2
        served = []
        for name in ids:
            await reconfigure(run, f"auth_id: ' {name} '")
            [only] = set(await served_by(3))
            served.append(only)
        assert sorted(served) == [False, True]
        await reconfigure(run, "delegate: fill-first")
        assert len(set(await served_by(3))) == 1
        await reconfigure(run, f"delegate: round-robin\nauth_id: {ids[0]}")
        assert len(set(await served_by(4))) == 2
        await reconfigure(run, f"delegate: random\nauth_id: {ids[0]}")
        assert len(set(await served_by(4))) == 2
        await reconfigure(run, "auth_id: nobody")
        assert len(set(await served_by(4))) == 2
        await reconfigure(run, f"deny: yes\nauth_id: {ids[0]}\ndelegate: fill-first")
        run.mock.forget()
        denied = await run.chat("gpt")
        assert denied.status_code == 500
        assert "scheduler pick denied by plugin configuration" in denied.text
        assert run.sent() == []


@example("scheduler", isolations=[Isolation.PROCESS])
async def test_scheduler_denies_from_the_start(library: Library, plugin: Example, isolation: Isolation) -> None:
    """With the settings of the configuration, as its document has them."""
    async with running(library, plugin, isolation, settings='auth_id: ""\ndelegate: ""\ndeny: true') as run:
        assert "scheduler pick denied" in (await run.chat("claude")).text
        fields = {field["name"]: field for field in (await run.entry())["config_fields"]}
        assert list(fields) == ["auth_id", "delegate", "deny"]
        assert fields["delegate"]["enum_values"] == ["", "fill-first", "round-robin"]


# --- request-lifecycle -----------------------------------------------------------------------------------------------


def rejected(message: str) -> Mapping[str, object]:
    """What a refused client gets."""
    return {"error": {"message": message, "type": "plugin_request_rejected"}}


@example("request-lifecycle")
async def test_request_lifecycle(library: Library, plugin: Example, isolation: Isolation) -> None:
    """One too many and one with the word are refused; whoever leaves makes room."""
    settings = "max_concurrency: 1\nreject_keyword: forbidden fruit"
    async with running(library, plugin, isolation, settings=settings) as run:
        for _ in range(3):  # each is over before the next: none is left behind
            while (answer := await run.chat("gpt")).status_code == 429:  # noqa: ASYNC110
                await trio.sleep(0.01)  # the end of the one before is told behind its answer
            assert answer.status_code == 200
        run.mock.forget()
        refused = await ends(run, 403, content="some forbidden fruit")
        assert refused.json() == rejected("request blocked by plugin policy")
        assert refused.headers["content-type"] == "application/json"
        assert run.sent() == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang, run)
            while not run.sent():  # noqa: ASYNC110 - by the mock, elsewhere
                await trio.sleep(0.01)
            full = await run.chat("claude")
            assert (full.status_code, full.headers["retry-after"]) == (429, "1")
            assert full.json() == rejected("plugin concurrency limit reached")
            nursery.cancel_scope.cancel()
        assert (await ends(run, 200)).json()["object"] == "chat.completion"


async def hang(run: Run) -> None:
    """A request that does not end by itself."""
    await run.client.post(
        "/v1/chat/completions",
        json={"model": "gpt", "stream": True, "messages": [{"role": "user", "content": "x"}]},
        headers={"X-Mock-Fault": "stall"},
    )


async def ends(run: Run, status: int, content: str = "x") -> httpx.Response:
    """The answer, once the requests before have been seen to end."""
    while True:
        answer = await run.chat("gpt", messages=[{"role": "user", "content": content}])
        if answer.status_code != 429:
            assert answer.status_code == status, answer.text
            return answer
        await trio.sleep(0.01)


@example("request-lifecycle", isolations=[Isolation.PROCESS])
async def test_request_lifecycle_rules(library: Library, plugin: Example, isolation: Isolation) -> None:
    """In their order, and what settings it takes."""
    async with running(library, plugin, isolation) as run:

        async def enter(request_id: str, body: bytes = b"x") -> wire.InterceptReply:
            request = wire.InterceptRequest(request_id=request_id, headers={"X-A": ["1"]}, body=B64(body))
            return await live(run).call(methods.REQUEST_INTERCEPT_BEFORE, request)

        with pytest.raises(PluginCallError, match="request ID is required"):
            await enter("")
        assert await enter("a") == wire.InterceptReply(headers={"X-A": ["1"]}, body=b"x")
        assert (await enter("b")).terminate is False
        assert (await enter("a", b"blocked")).terminate is False  # is in already
        third = await enter("c")
        assert (third.terminate, third.status_code, third.response_headers["Retry-After"]) == (True, 429, ["1"])
        assert (await enter("c", b"a blocked word")).status_code == 403  # looked at first
        await live(run).call(methods.REQUEST_COMPLETE, wire.CompletionRequest(request_id="a"))
        assert (await enter("c")).terminate is False
        await reconfigure(run, "reject_keyword: ' '\nmax_concurrency: 4")
        assert (await enter("d", b"blocked")).terminate is False
        after = wire.InterceptRequest(body=B64(b"blocked"))
        assert (await live(run).call(methods.REQUEST_INTERCEPT_AFTER, after)).body == b"blocked"
        for text, why in (
            ("max_concurrency: 0", "max_concurrency must be greater than zero"),
            ("max_concurrency: -3", "max_concurrency must be greater than zero"),
            ("max_concurrency: many", 'max_concurrency: expected an integer, got "many"'),
            ("max_concurrency: 1.5", "expected an integer"),
            ("max_concurrency: '2'", "expected an integer"),
            ("max_concurrency: 99999999999999999999", "expected an integer"),
        ):
            assert why in await refusal(run, text), text
        old = await refusal(run, "", schema=1)
        assert "request lifecycle plugin requires host schema version 2 or newer" in old
        assert (await enter("e")).status_code == 0  # four of four: refused settings changed nothing
        assert (await enter("f")).status_code == 429


# --- host-callback-auth-files ----------------------------------------------------------------------------------------


@attrs.frozen
class Shown:
    """The page, taken apart."""

    text: str

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Names and values of the list."""
        found = re.findall(r"<dt>(.*?)</dt><dd><code>(.*?)</code></dd>", self.text, re.DOTALL)
        return [(html.unescape(name), html.unescape(value)) for name, value in found]

    @property
    def sections(self) -> dict[str, str]:
        """Headings and texts."""
        found = re.findall(r"<h2>(.*?)</h2><(?:pre|ul)[^>]*>(.*?)</(?:pre|ul)>", self.text, re.DOTALL)
        return {name: html.unescape(text) for name, text in found}

    @property
    def result(self) -> Any:
        """What the host said; it is indented by two blanks."""
        text = self.sections["Result"]
        assert text.startswith('{\n  "')
        return json.loads(text)


@example("host-callback-auth-files")
async def test_host_callback_auth_files(library: Library, plugin: Example, isolation: Isolation) -> None:
    """All four calls by their addresses, without a key, and every mistake."""
    async with running(library, plugin, isolation) as run, run.proxy.client(key=None) as browser:

        async def page(expected: int = 200, /, **query: str) -> Shown:
            answer = await browser.get(f"/v0/resource/plugins/{plugin.id}/status", params=query)
            assert answer.status_code == expected, answer.text
            return Shown(answer.text)

        first = await page()
        assert "<title>Host Auth Files</title>" in first.text
        assert "<h1>Host Auth Files</h1>" in first.text
        assert (first.rows, list(first.sections)) == ([("op", "list")], ["Result", "Usage"])
        assert first.sections["Usage"].count("<li>") == 4
        assert first.result["files"] is None or not [
            file for file in first.result["files"] if file["name"] == "acme.json"
        ]

        content = {"type": "acme", "token": "<secret>", "n": 12345678901234567890}
        saved = await page(op="SAVE", name="acme.json", json=json.dumps(content))
        assert saved.rows == [("op", "save"), ("name", "acme.json")]
        assert saved.result["name"] == "acme.json"
        assert json.loads((run.proxy.directory / "acme.json").read_text()) == content

        [file] = [file for file in (await page(op="list")).result["files"] if file["name"] == "acme.json"]
        index = file["auth_index"]
        got = await page(op="get", auth_index=index)
        assert got.rows == [("op", "get"), ("auth_index", index)]
        assert (got.result["auth_index"], got.result["json"]) == (index, content)
        assert "<secret>" not in got.text
        for op in ("runtime", "get_runtime"):
            assert (await page(op=op, auth_index=index)).result["auth"]["name"] == "acme.json"

        for query, error in (
            ({"op": "get"}, "auth_index is required for op=get"),
            ({"op": "runtime"}, "auth_index is required for op=runtime"),
            ({"op": "get_runtime"}, "auth_index is required for op=runtime"),
            ({"op": "save", "json": "{}"}, "name is required for op=save"),
            ({"op": "save", "name": "x.json"}, "json is required for op=save"),
            ({"op": "<b>"}, 'unknown op "<b>": use list, get, runtime, or save'),
            ({"op": "get", "auth_index": "nobody"}, "host_call_failed: auth not found for auth_index nobody"),
            ({"op": "save", "name": "../x.json", "json": "{}"}, "host_call_failed: invalid auth file name"),
            ({"op": "save", "name": "x.json", "json": "[]"}, "host_call_failed: invalid auth json"),
        ):
            shown = await page(**query)
            assert shown.sections["Error"].startswith(error), query
            assert '<pre class="error">' in shown.text
            assert list(shown.sections) == ["Error", "Usage"]
            assert "<b>" not in shown.text
        assert (await page(400, op="save", name="x.json", json="{")).text.startswith("query json must be valid JSON")
        assert [path.name for path in run.proxy.directory.glob("*.json")] == ["acme.json"]


@example("host-callback-auth-files", isolations=[Isolation.PROCESS])
async def test_auth_files_by_a_json_body(library: Library, plugin: Example, isolation: Isolation) -> None:
    """As far as requests have one; the query wins."""
    async with running(library, plugin, isolation) as run:

        async def ask(body: bytes, **query: str) -> tuple[int, Shown]:
            asked = wire.ManagementRequest(query={name: [value] for name, value in query.items()}, body=B64(body))
            reply = await live(run).call(methods.MANAGEMENT_HANDLE, asked)
            return reply.status_code, Shown(reply.body.decode())

        status, shown = await ask(b'{"OP":"save","name":"a.json","json":{"type":"acme"}}', name="b.json")
        assert (status, shown.rows) == (200, [("op", "save"), ("name", "b.json")])
        assert json.loads((run.proxy.directory / "b.json").read_text()) == {"type": "acme"}
        status, shown = await ask(b'{"op":"get","AUTHINDEX":"i"}')
        assert shown.rows == [("op", "get"), ("auth_index", "i")]
        assert (await ask(b"{"))[0] == 400
