"""``gemini-url-media: fetch``: images by address reach Gemini as bytes, and nothing else does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest
import trio

from tests.e2e.corpus.rig import CONFIG, WHOLE
from tests.e2e.scripted import ScriptedProvider, scripted_provider
from tests.e2e.vendor_types import assert_vendors
from tests.proxy import RunningProxy, running_proxy

PNG = b"\x89PNG\r\n\x1a\ncat"
INLINE = {"mimeType": "image/png", "data": "iVBORw0KGgpjYXQ="}
ALLOWED = "translation: {gemini-url-media: fetch, gemini-url-media-allow: [127.0.0.1]}"
SECOND = "  - {{api-key: another-key, base-url: '{provider}', models: [{{name: mock-gemini, alias: gemini}}]}}\n"
TIMEOUT_S = 60.0


@attrs.frozen
class Scene:
    """A proxy between a provider and a server with images."""

    proxy: RunningProxy
    provider: ScriptedProvider
    images: ScriptedProvider

    async def ask(self, client: str, body: dict[str, Any]) -> httpx.Response:
        path = {"chat": "/v1/chat/completions", "claude": "/v1/messages", "responses": "/v1/responses"}[client]
        async with self.proxy.client() as http:
            return await http.post(path, json=body)

    @property
    def sent(self) -> Any:
        [request] = self.provider.requests
        assert_vendors(request.target, request.body)
        return request.json


@asynccontextmanager
async def scene(settings: str = ALLOWED, *, config: str = CONFIG) -> AsyncIterator[Scene]:
    with trio.fail_after(TIMEOUT_S):
        async with scripted_provider() as provider, scripted_provider() as images:
            provider.says(WHOLE[":generateContent"], content_type="application/json")
            images.says(PNG, content_type="image/png")
            async with running_proxy(config=config, extra=settings, provider_url=provider.url) as proxy:
                yield Scene(proxy, provider, images)


def bodies(url: str) -> dict[str, dict[str, Any]]:
    """An image by address, in each protocol."""
    image = {"type": "image", "source": {"type": "url", "url": url}}
    return {
        "chat": {
            "model": "gemini",
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        },
        "claude": {"model": "gemini", "max_tokens": 9, "messages": [{"role": "user", "content": [image]}]},
        "responses": {
            "model": "gemini",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url, "detail": "auto"}]}],
        },
    }


async def test_images_reach_gemini_as_bytes() -> None:
    """From clients of all protocols; the server with the image learns nothing of the client."""
    async with scene() as here:
        for client, body in bodies(f"{here.images.url}/cat?sig=1").items():
            here.provider.requests.clear()
            answer = await here.ask(client, body)
            assert answer.status_code == 200, answer.text
            assert here.sent["contents"][0]["parts"] == [{"inlineData": INLINE}]
        assert [asked.target for asked in here.images.requests] == ["/cat?sig=1"] * 3
        for asked in here.images.requests:
            assert {"authorization", "cookie", "x-api-key", "x-goog-api-key", "user-agent"}.isdisjoint(asked.headers)


@pytest.mark.parametrize("client", ["chat", "claude", "responses"])
async def test_what_is_inside_is_not_fetched(client: str) -> None:
    """Unless the operator allows it: a 400 in the client's protocol, which names the field and not the path."""
    async with scene("translation: {gemini-url-media: fetch}") as here:
        answer = await here.ask(client, bodies(f"{here.images.url}/secret/cat")[client])
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        expected = "messages[0].content[0]: the image at 127.0.0.1 cannot be fetched: its host is not on the public "
        assert message == expected + "internet"
        assert (here.images.requests, here.provider.requests) == ([], [])


async def test_it_is_off_by_default() -> None:
    """The address goes on as it is."""
    async with scene("") as here:
        url = f"{here.images.url}/cat.png"
        assert (await here.ask("chat", bodies(url)["chat"])).status_code == 200
        assert here.sent["contents"][0]["parts"] == [{"fileData": {"fileUri": url, "mimeType": "image/png"}}]
        assert here.images.requests == []


async def test_others_get_the_address() -> None:
    """They fetch by themselves."""
    async with scene() as here:
        here.provider.says(WHOLE["/v1/messages"], content_type="application/json")
        body = {**bodies(f"{here.images.url}/cat")["chat"], "model": "claude"}
        assert (await here.ask("chat", body)).status_code == 200
        assert here.images.requests == []


async def test_attempts_share_what_was_fetched() -> None:
    """Another credential is no reason to fetch again."""
    async with scene(config=CONFIG.replace("gemini-api-key:\n", f"gemini-api-key:\n{SECOND}")) as here:
        here.provider.says(b'{"error":{"code":503,"message":"busy"}}', status=503, content_type="application/json")
        body = bodies(f"{here.images.url}/cat")["chat"]
        answer = await here.ask("chat", body)
        assert answer.status_code == 503
        assert (len(here.provider.requests), len(here.images.requests)) == (2, 1)
