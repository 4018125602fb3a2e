"""Tool results that are a string of JSON with media in it (2.8, case 31).

Some agents hand their tool's list of parts over as a string. As text it would cost megabytes of base64 in tokens.
"""

import re

import msgspec

from cpa.translation.ir import Media, MediaKind, Result, Text
from cpa.translation.media import clean_mime, file_mime, mime_of_name, parse_data_url, sniff_mime

MAX_UNPACKED_PARTS = 1000
"""More parts than any tool returns; so many are left as the text that they are."""


class _Source(msgspec.Struct, gc=False):
    type: str = ""
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""


class _Url(msgspec.Struct, gc=False):
    url: str = ""
    detail: str | None = None


class _File(msgspec.Struct, gc=False):
    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class _Part(msgspec.Struct, gc=False):
    """Any part of the protocols' tool results, and of MCP's."""

    type: str
    text: str | None = None
    image_url: str | _Url | None = None
    detail: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    file: _File | None = None
    source: _Source | None = None
    data: str | None = None
    mime: str | None = msgspec.field(default=None, name="mimeType")
    title: str | None = None


_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_LOOKS_LIKE_PARTS = re.compile(r'\s*\[\s*\{\s*"')
_TEXTS = frozenset({"text", "input_text", "output_text"})


def unpack_media(result: Result, issuer: str) -> None:
    """Replace a result's only text by the parts that it is the JSON of, if all of them are known and some are media.

    Args:
      issuer: format of the client, for file ids.
    """
    if len(result.parts) != 1 or result.json:
        return
    only = result.parts[0]
    if type(only) is not Text or only.prose:
        return
    if _LOOKS_LIKE_PARTS.match(only.text) is None:
        return
    try:
        found = _decode_parts(only.text)
    except (ValueError, RecursionError):
        return
    parts = [_read(part, issuer) for part in found[:MAX_UNPACKED_PARTS]]
    known = [part for part in parts if part is not None]
    if len(known) == len(found) and any(isinstance(part, Media) for part in known):
        result.parts = known


def _read(part: _Part, issuer: str) -> Text | Media | None:
    if part.type in _TEXTS:
        return None if part.text is None else Text(text=part.text)
    match part.type:
        case "input_image" | "image_url":
            link = part.image_url if isinstance(part.image_url, _Url) else _Url(url=part.image_url or "")
            media = _by_reference(MediaKind.IMAGE, link.url, part.file_id or "", issuer)
            if media is not None:
                media.detail = part.detail or link.detail or ""
            return media
        case "image" | "document":
            kind = MediaKind.IMAGE if part.type == "image" else MediaKind.FILE
            if part.source is None:  # MCP
                if not part.data:
                    return None
                return Media(media=kind, mime=clean_mime(part.mime or "") or sniff_mime(part.data), b64=part.data)
            return _by_source(kind, part.source, part.title or "", issuer)
        case "input_file" | "file":
            file = part.file or _File(filename=part.filename, file_data=part.file_data, file_id=part.file_id)
            return _by_file(file, part.file_url or "", issuer)
        case _:
            return None


def _by_reference(kind: MediaKind, url: str, file_id: str, issuer: str) -> Media | None:
    if url:
        inline = parse_data_url(url)
        if inline is not None:
            return Media(media=kind, mime=inline[0], b64=inline[1])
        return Media(media=kind, url=url, mime=mime_of_name(url))
    return Media(media=kind, file_id=file_id, issuer=issuer) if file_id else None


def _by_source(kind: MediaKind, source: _Source, title: str, issuer: str) -> Media | None:
    match source.type:
        case "base64" if source.data:
            mime = clean_mime(source.media_type) or sniff_mime(source.data)
            return Media(media=kind, mime=mime, b64=source.data, title=title)
        case "text" if source.data:
            return Media(media=kind, mime="text/plain", text=source.data, title=title)
        case "url" | "file":
            return _by_reference(kind, source.url, source.file_id, issuer)
        case _:
            return None


def _by_file(file: _File, url: str, issuer: str) -> Media | None:
    name = file.filename or ""
    if file.file_data:
        mime, b64 = parse_data_url(file.file_data) or (file_mime(name, file.file_data), file.file_data)
        return Media(media=MediaKind.FILE, mime=mime, b64=b64, name=name)
    media = _by_reference(MediaKind.FILE, url, file.file_id or "", issuer)
    if media is not None:
        media.name = name
    return media
