"""Steps of the provider's own tools, and images, as output items (translation 3.2, 3.5)."""

from typing import Final

import msgspec

from cpa.formats.json import JsonError, decode_members, encode, is_json
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject
from cpa.translation.annotations import (
    Search,
    search_from_claude,
    search_from_gemini,
    search_from_responses,
    search_to_responses,
)
from cpa.translation.ir import BlockKind, Meta, ServerCall, ServerResult
from cpa.translation.media import foreign_items_text
from cpa.translation.responses.blocks import ADDED, Place
from cpa.translation.responses.frames import Frames
from cpa.translation.responses.tool_defs import FAMILY

WEB_SEARCH: Final = "web_search"
_PREFIXES: Final = {
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "compaction": "cmp",
}


def is_own(meta: Meta) -> bool:
    """Whether the block is an item as it came."""
    return meta.origin in FAMILY and bool(meta.raw)


def own_item(data: bytes, place: Place, status: str) -> bytes:
    """An item of the own family, under an id that is unique here."""
    try:
        members = decode_members(data)
    except JsonError:
        return data
    kind = bytes(members.get("type", msgspec.Raw(b""))).strip(b'"').decode("utf-8", "replace")
    members["id"] = msgspec.Raw(encode(place.item_id(_PREFIXES.get(kind, "it"))))
    if "status" in members and status != "completed":
        members["status"] = msgspec.Raw(encode(status))
    return encode(members)


class ServerStep:
    """A call of a server tool, or what it gave."""

    def __init__(self, meta: Meta, kind: BlockKind) -> None:
        self.meta = meta
        self.kind = kind
        self.place: Place | None = None
        self.pieces: list[str] = []

    @property
    def is_search(self) -> bool:
        """It is a web search, which this protocol has an item for."""
        return self.kind is BlockKind.SERVER_CALL and self.meta.server == WEB_SEARCH

    def begin(self, frames: Frames) -> bytes:
        """The events of a search that has begun."""
        assert self.place is not None
        item = search_to_responses(Search(), self.place.item_id("ws"), status="in_progress")
        index = self.place.index
        return frames.event(ADDED, output_index=index, item=item) + b"".join(
            frames.event(f"response.web_search_call.{name}", output_index=index, item_id=self.place.item_id("ws"))
            for name in ("in_progress", "searching")
        )

    def end(self, frames: Frames) -> bytes:
        """The event of a search that has found something."""
        assert self.place is not None
        where: JsonObject = {"output_index": self.place.index, "item_id": self.place.item_id("ws")}
        return frames.event("response.web_search_call.completed", **where)

    def search_item(self, result: bytes) -> bytes:
        """The item of a search. *result*: Claude's block of what was found."""
        assert self.place is not None
        if is_own(self.meta):
            return own_item(self.meta.raw, self.place, "completed")
        if self.meta.origin == Format.CLAUDE.value:
            search = search_from_claude(self.json(), result)
        elif self.meta.origin == Format.GEMINI.value:
            search = search_from_gemini(self.meta.raw)
        else:
            search = search_from_responses(self.meta.raw)
        return encode(search_to_responses(search, self.place.item_id("ws")))

    def json(self) -> bytes:
        """The block as it came, with the input that was streamed after it."""
        streamed = "".join(self.pieces).encode("utf-8", "replace")
        if not streamed or not is_json(streamed):
            return self.meta.raw
        try:
            members = decode_members(self.meta.raw or b"{}")
        except JsonError:
            return self.meta.raw
        members["input"] = msgspec.Raw(streamed)
        return encode(members)

    def text(self) -> str:
        """What it says to those who do not know the tool."""
        step = ServerResult if self.kind is BlockKind.SERVER_RESULT else ServerCall
        if self.kind is BlockKind.OPAQUE:
            return ""
        return foreign_items_text(step(self.meta.server or "other", self.meta.origin, self.json(), self.meta.call_id))


class ImageStep:
    """An image or audio; base64 that is only passed on."""

    def __init__(self, meta: Meta, kind: BlockKind) -> None:
        self.meta = meta
        self.kind = kind
        self.pieces: list[str] = []

    def item(self, place: Place) -> bytes:
        """The ``image_generation_call``."""
        form = self.meta.mime.removeprefix("image/").partition("+")[0] or "png"
        item = self._object(place, "completed")
        item["result"] = "".join(self.pieces)
        item["output_format"] = form
        return encode(item)

    def events(self, frames: Frames, place: Place) -> bytes:
        """All but the last event."""
        begun = self._object(place, "in_progress")
        begun["result"] = None
        where: JsonObject = {"output_index": place.index, "item_id": place.item_id("ig")}
        return frames.event(ADDED, output_index=place.index, item=begun) + b"".join(
            frames.event(f"response.image_generation_call.{name}", **where)
            for name in ("in_progress", "generating", "completed")
        )

    def _object(self, place: Place, status: str) -> JsonObject:
        return {"id": place.item_id("ig"), "type": "image_generation_call", "status": status}
