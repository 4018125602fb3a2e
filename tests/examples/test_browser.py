"""The pages of the examples in a real browser: what somebody in front of it sees (issue 6, seed 000)."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest

from cpa.config.schema import Isolation
from tests.examples.browser import Browser, Programs, Seen, open_browser, programs
from tests.examples.building import Example, Library
from tests.examples.hosting import Run, example, running
from tests.proxy import CONFIG

EXPLICIT = "explicit close through host.model.stream_close"
IMPLICIT = "implicit close at management.handle return"

# The default model of the page, behind the mock.
DEFAULT_MODEL = CONFIG.replace("name: mock-gpt, alias: gpt}", "name: mock-gpt, alias: gpt-5.5}")


@attrs.frozen
class Window:
    """A browser in front of a proxy with an example."""

    run: Run
    browser: Browser

    async def open(self, **query: str) -> Seen:
        """The example's page."""
        path = f"/v0/resource/plugins/{self.run.plugin.id}/status"
        return await self.browser.open(str(httpx.URL(self.run.proxy.url + path, params=query)))

    @property
    def asked(self) -> dict[str, object]:
        """What the provider was asked for last."""
        body = json.loads(self.run.sent()[-1])
        assert isinstance(body, dict)
        return body


@pytest.fixture(scope="module")
def using() -> Programs:
    """Looked for before anything is started, so that a skip says why."""
    return programs()


@asynccontextmanager
async def window(
    using: Programs, library: Library, plugin: Example, isolation: Isolation, config: str = CONFIG
) -> AsyncIterator[Window]:
    """Both, while the block runs."""
    async with open_browser(using) as browser, running(library, plugin, isolation, config=config) as run:
        yield Window(run, browser)


def rows(
    model: str = "gpt-5.5", stream: bool = False, protocols: tuple[str, str] = ("openai", "openai"), close: str = ""
) -> list[tuple[str, str]]:
    """The list on the page of model calls, with status 200 at its end."""
    return [
        ("model", model),
        ("mode", "stream" if stream else "non-stream"),
        ("entry_protocol", protocols[0]),
        ("exit_protocol", protocols[1]),
        ("stream", str(stream).lower()),
        ("implicit_close", str(close == IMPLICIT).lower()),
        *([("close", close)] if close else []),
        ("status", "200"),
    ]


@example("host-model-callback")
async def test_model_calls_in_a_browser(
    using: Programs, library: Library, plugin: Example, isolation: Isolation
) -> None:
    """Every parameter of its document: seen on the page, and by the provider."""
    async with window(using, library, plugin, isolation, DEFAULT_MODEL) as page:
        shown = await page.open()
        assert (shown.status, shown.title, shown.heading) == (200, "Host Model Callback", "Host Model Callback")
        assert shown.rows == rows()
        answer = json.loads(shown.sections["Body"])
        assert answer["object"] == "chat.completion"
        assert answer["choices"][0]["message"]["content"] in shown.text
        prompt = "Summarize host model callbacks in one short sentence."
        assert page.asked["messages"] == [{"role": "user", "content": prompt}]
        assert (page.asked["stream"], page.asked["model"]) == (False, "mock-gpt")

        hostile = "<script>document.title = 'mine'</script> & \u00fc"
        shown = await page.open(
            model="mock-gpt-unrenamed", entry_protocol="openai", exit_protocol="claude", prompt=hostile
        )
        assert shown.rows == rows("mock-gpt-unrenamed", protocols=("openai", "claude"))
        assert json.loads(shown.sections["Body"])["type"] == "message"
        assert page.asked["messages"] == [{"role": "user", "content": hostile}]

        own = {"model": "x", "max_tokens": 99, "messages": [{"role": "user", "content": "my own"}]}
        shown = await page.open(model="claude", entry_protocol="claude", exit_protocol="claude", body=json.dumps(own))
        assert shown.rows == rows("claude", protocols=("claude", "claude"))
        assert (page.asked["messages"], page.asked["max_tokens"]) == (own["messages"], 99)

        shown = await page.open(stream="true", prompt="Write three short tokens", alt="sse")
        assert shown.rows == rows(stream=True, close=EXPLICIT)
        assert chunks(shown)
        assert page.asked["stream"] is True
        shown = await page.open(mode="stream", implicit_close="true")
        assert shown.rows == rows(stream=True, close=IMPLICIT)
        assert chunks(shown)
        shown = await page.open(stream="1", exit_protocol="claude")
        assert shown.rows == rows(stream=True, protocols=("openai", "claude"), close=EXPLICIT)
        assert "event: message_start" in shown.sections["Stream Chunks"]
        assert "event: message_stop" in shown.sections["Stream Chunks"]
        assert not len(page.run.proxy.app.plugins.services.model_streams)

        before = len(page.run.sent())
        markup = await page.open(model="<img src=x onerror=document.title='mine'>", stream="true")
        assert (markup.status, markup.title) == (200, "Host Model Callback")
        assert markup.rows[0] == ("model", "<img src=x onerror=document.title='mine'>")
        assert markup.rows[-1] == ("status", "0")
        assert markup.sections["Error"].startswith("host_call_failed: ")
        shown = await page.open(stream="perhaps")
        assert shown.status == 400
        assert shown.text.startswith("stream must be a boolean: ")
        shown = await page.open(body="{")
        assert (shown.status, shown.text.strip()) == (400, "query body must be valid JSON")
        assert len(page.run.sent()) == before


def chunks(shown: Seen) -> str:
    """The text of a streamed chat completion, put together from the chunks on the page."""
    decoder, text, at, content = json.JSONDecoder(), shown.sections["Stream Chunks"], 0, ""
    while at < len(text):
        chunk, at = decoder.raw_decode(text, at)
        assert chunk["object"] == "chat.completion.chunk"
        content += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
    return content


@example("host-callback-auth-files", isolations=[Isolation.PROCESS])
async def test_credential_files_in_a_browser(
    using: Programs, library: Library, plugin: Example, isolation: Isolation
) -> None:
    """Save, list, get, get what is known at run time, and mistakes."""
    async with window(using, library, plugin, isolation) as page:
        content = {"type": "acme", "token": "<b>bold</b>"}
        shown = await page.open(op="save", name="acme.json", json=json.dumps(content))
        assert (shown.status, shown.title, shown.heading) == (200, "Host Auth Files", "Host Auth Files")
        assert shown.rows == [("op", "save"), ("name", "acme.json")]
        assert json.loads((page.run.proxy.directory / "acme.json").read_text()) == content
        shown = await page.open()
        assert (shown.rows, list(shown.sections)) == ([("op", "list")], ["Result", "Usage"])
        [file] = [file for file in json.loads(shown.sections["Result"])["files"] if file["name"] == "acme.json"]
        shown = await page.open(op="get", auth_index=file["auth_index"])
        assert shown.rows == [("op", "get"), ("auth_index", file["auth_index"])]
        assert json.loads(shown.sections["Result"])["json"] == content
        assert "?op=save&name=<file>.json" in shown.sections["Usage"]
        shown = await page.open(op="runtime", auth_index=file["auth_index"])
        assert json.loads(shown.sections["Result"])["auth"]["provider"] == "acme"
        shown = await page.open(op="<i>drop</i>")
        assert shown.sections["Error"] == 'unknown op "<i>drop</i>": use list, get, runtime, or save'
        shown = await page.open(op="save", name="x.json", json="{")
        assert (shown.status, shown.text.strip()) == (400, "query json must be valid JSON")
