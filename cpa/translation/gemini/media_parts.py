"""Media of Gemini's parts, both ways (translation 2.5). Base64 is moved, never decoded."""

from typing import Any, Final

from cpa.errors import MalformedRequest
from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.gemini import wire
from cpa.translation.ir import Media, MediaKind, Text
from cpa.translation.loss import Untranslatable
from cpa.translation.media import GOOGLES_FILE, clean_mime, media_kind, mime_of_name, placeholder, sniff_mime

ORIGIN: Final = Format.GEMINI.value
Members = dict[str, Any]
"""A part to be encoded, raw leaves included."""

_WEB = ("http://", "https://")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_blob(blob: wire.Blob, path: str, *, native: bool) -> Media:
    """``inlineData``. *native*: the type keeps its parameters. Raises: MalformedRequest."""
    data = blob.data
    if not data:
        raise MalformedRequest("inlineData needs data", param=path)
    mime = blob.mimeType or blob.mime_type or ""
    mime = (mime if native else clean_mime(mime)) or sniff_mime(data)
    kind = media_kind(clean_mime(mime))
    return Media(media=kind, mime=mime, b64=data, name=blob.displayName or blob.display_name or "")


def read_file(raw: bytes, path: str) -> Media:
    """``fileData``: a file that Google keeps, or an address. Raises: MalformedRequest."""
    found = wire.members(raw)
    uri = wire.text_of(found.get("fileUri"))
    if not uri:
        raise MalformedRequest("fileData needs fileUri", param=path)
    mime = wire.text_of(found.get("mimeType")) or mime_of_name(uri)
    media = Media(media=media_kind(clean_mime(mime)), mime=mime, name=wire.text_of(found.get("displayName")) or "")
    if GOOGLES_FILE.match(uri) or not uri.startswith(_WEB):
        media.file_id, media.issuer = uri, ORIGIN
    else:
        media.url = uri
    return media


# --- writing ---------------------------------------------------------------------------------------------------------


def readable(media: Media, path: str, ctx: Context) -> Media | Text:
    """*media* as Gemini can read it, or what stands for it. Raises: Untranslatable under ``strict-content``."""
    if media.text or media.b64 or (media.file_id and media.issuer == ORIGIN):
        return media
    if media.url.startswith((*_WEB, "gs://")) and ctx.settings.gemini_url_media != "placeholder":
        # `fetch` is the work of whoever does I/O (see `fetching`); what it left as an address is tried as one.
        return media
    what = media.mime or media.media.value
    if ctx.settings.strict_content:
        raise Untranslatable(path, f"this model's provider cannot read the attachment ({what})")
    ctx.lose(path, "attachment became a placeholder")
    return placeholder(what)


def write_media(media: Media) -> Members:
    """A part with ``inlineData`` or ``fileData``; *media* has been asked by `readable` and has no plain text."""
    if media.b64:
        inline: Members = {"mimeType": media.mime or sniff_mime(media.b64), "data": media.b64}
        return {"inlineData": inline}
    uri = media.url or media.file_id
    out: Members = {"fileUri": uri}
    mime = media.mime or mime_of_name(uri) or ("" if media.file_id else _DEFAULTS[media.media])
    if mime:
        out["mimeType"] = mime
    return {"fileData": out}


_DEFAULTS: Final = {
    MediaKind.IMAGE: "image/jpeg",
    MediaKind.FILE: "application/pdf",  # the only type that the others read from an address
    MediaKind.AUDIO: "audio/mpeg",
    MediaKind.VIDEO: "",  # addresses of YouTube have none
}
