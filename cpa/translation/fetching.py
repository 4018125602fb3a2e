"""Media that a client names by address and that its provider takes as bytes only (2.5): which they are, and what
becomes of the request when somebody has fetched them. Who does the fetching does it between reading and writing."""

import base64
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs

from cpa.errors import MalformedRequest
from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.ir import IRRequest, Media, Result
from cpa.translation.media import is_googles, media_kind
from cpa.types import FetchedMedia

FETCH: Final = "fetch"
"""``gemini-url-media`` of operators who want it."""
_WEB: Final = ("http://", "https://")
_MAX_HOST_CHARS: Final = 100


@attrs.frozen
class Wanted:
    """One medium to be fetched, and where it stands in the client's body."""

    path: str
    media: Media


def fetches(ctx: Context) -> bool:
    """Whether addresses in the requests of *ctx* are to be fetched. Google's own clients mean what they say."""
    return ctx.settings.gemini_url_media == FETCH and ctx.provider is Format.GEMINI and ctx.client is not Format.GEMINI


def wanted(request: IRRequest) -> list[Wanted]:
    """The media of *request* that stand at an address which Google cannot read by itself."""
    return [
        Wanted(f"messages[{number}].content[{place}]", media)
        for number, turn in enumerate(request.turns)
        for place, part in enumerate(turn.parts)
        for media in (part.parts if isinstance(part, Result) else (part,))
        if isinstance(media, Media) and media.url.startswith(_WEB) and not is_googles(media.url)
    ]


def fill(places: list[Wanted], found: Mapping[str, FetchedMedia]) -> None:
    """Put what was *found* at each address in its place. Raises: MalformedRequest, which names the field."""
    for place in places:
        media, got = place.media, found[place.media.url]
        if got.problem:
            what = f"the {media.media.value} at {_host(media.url)}"
            raise MalformedRequest(f"{place.path}: {what} cannot be fetched: {got.problem}", param=place.path)
        media.url, media.b64, media.mime = "", base64.b64encode(got.data).decode("ascii"), got.mime
        media.media = media_kind(got.mime)


def _host(url: str) -> str:
    """Its path and query may hold a secret."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return host[:_MAX_HOST_CHARS] or "its address"
