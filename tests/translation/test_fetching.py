"""Which media are fetched for Gemini, and what the request is afterwards."""

import json
from typing import Any

import pytest

from cpa.errors import MalformedRequest
from cpa.formats.names import Format
from cpa.translation.context import Context, TranslationSettings
from cpa.translation.fetching import fetches, fill, wanted
from cpa.translation.registry import read_request, write_request
from cpa.types import FetchedMedia
from tests.translation.support import make_context

CHAT, RESPONSES, CLAUDE, GEMINI = Format.OPENAI, Format.OPENAI_RESPONSE, Format.CLAUDE, Format.GEMINI
URL = "https://cdn.example/a/cat.png?sig=secret"
FETCH = TranslationSettings(gemini_url_media="fetch")
CAT = FetchedMedia(mime="image/webp", data=b"cat")
INLINE = {"inlineData": {"mimeType": "image/webp", "data": "Y2F0"}}


def context(client: Format) -> Context:
    return make_context(client, GEMINI, settings=FETCH)


def chat(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": [*parts]}]}


BODIES: dict[Format, dict[str, Any]] = {
    CHAT: chat(URL),
    RESPONSES: {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL, "detail": "auto"}]}],
    },
    CLAUDE: {
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": URL}}]}],
    },
}


def translated(body: dict[str, Any], ctx: Context, found: dict[str, FetchedMedia]) -> Any:
    request = read_request(json.dumps({"model": "m", **body}).encode(), ctx)
    fill(wanted(request), found)
    return json.loads(write_request(request, ctx))


@pytest.mark.parametrize("client", BODIES)
def test_bytes_take_the_place_of_addresses(client: Format) -> None:
    """With the type that the server told, whatever the address looks like."""
    sent = translated(BODIES[client], context(client), {URL: CAT})
    assert sent["contents"][-1]["parts"] == [INLINE]


def test_of_tool_results_too() -> None:
    """Claude's may hold images."""
    image = {"type": "image", "source": {"type": "url", "url": URL}}
    body = {
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [image]}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    }
    sent = json.dumps(translated(body, context(CLAUDE), {URL: CAT}))
    assert ("Y2F0" in sent, URL in sent) == (True, False)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,iVBORw0KGgo=",
        "https://www.youtube.com/watch?v=x",
        "https://youtu.be/x",
        "https://generativelanguage.googleapis.com/v1beta/files/x",
        "gs://bucket/x.png",
    ],
)
def test_what_google_reads_by_itself_is_not_fetched(url: str) -> None:
    """Nor what is there already."""
    request = read_request(json.dumps({"model": "m", **chat(url)}).encode(), context(CHAT))
    assert wanted(request) == []


def test_failures_name_the_field() -> None:
    """And the host, but not the path, which may hold a secret."""
    with pytest.raises(MalformedRequest) as caught:
        translated(chat(URL), context(CHAT), {URL: FetchedMedia(problem="it is empty")})
    said = "messages[0].content[0]: the image at cdn.example cannot be fetched: it is empty"
    assert (str(caught.value), caught.value.param) == (said, "messages[0].content[0]")


def test_only_when_the_operator_wants_it() -> None:
    """And only for Gemini, whose own clients mean what they say."""
    assert fetches(context(CHAT))
    assert not fetches(make_context(CHAT, GEMINI))
    assert not fetches(make_context(CHAT, CLAUDE, settings=FETCH))
    assert not fetches(context(GEMINI))
