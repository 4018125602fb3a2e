"""Content parts of Chat messages, both ways (translation 2.5)."""

from typing import Final

from cpa.errors import MalformedRequest
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject
from cpa.translation.chat.wire import FileData, Link, Part, raw_of
from cpa.translation.context import Context
from cpa.translation.ir import Media, MediaKind, Raw, Refusal, Text
from cpa.translation.loss import Untranslatable
from cpa.translation.media import (
    clean_mime,
    data_url,
    document_text,
    file_mime,
    mime_of_name,
    parse_data_url,
    placeholder,
    sniff_mime,
)

ORIGIN: Final = Format.OPENAI.value
OPENAI: Final = frozenset({Format.OPENAI.value, Format.OPENAI_RESPONSE.value, Format.CODEX.value})
"""Formats of one vendor, which knows the file ids of all of them."""
TEXTS: Final = frozenset({"text", "input_text", "output_text"})
"""Clients of both OpenAI protocols mix these up."""
_IMAGES: Final = frozenset({"image_url", "input_image"})
_FILES: Final = frozenset({"file", "input_file"})
_AUDIO_MIMES: Final = {"mp3": "audio/mpeg", "pcm16": "audio/pcm"}
_AUDIO_FORMATS: Final = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/pcm": "pcm16",
}
VENDOR_AUDIO: Final = frozenset({"wav", "mp3"})
_FILE_NAMES: Final = {"application/pdf": "document.pdf", "text/plain": "document.txt"}


# --- reading ---------------------------------------------------------------------------------------------------------


def read_part(part: Part, path: str) -> Text | Media | Refusal | None:
    """A content part; None for a type that is not known. Raises: MalformedRequest for one that says nothing."""
    kind = part.type or ("text" if part.text is not None else "image_url" if part.image_url is not None else "")
    cache = raw_of(part.cache_control)
    if kind in TEXTS:
        if part.text is None:
            raise _bad(f"{path}.text", "a string")
        return Text(text=part.text, cache=cache)
    if kind == "refusal":
        return Refusal(text=part.refusal or part.text or "")
    if kind in _IMAGES:
        return _linked(MediaKind.IMAGE, part, f"{path}.image_url", cache)
    if kind == "video_url":
        return _linked(MediaKind.VIDEO, part, f"{path}.video_url", cache)
    if kind == "input_audio":
        return _audio(part, f"{path}.input_audio", cache)
    if kind in _FILES:
        flat = FileData(filename=part.filename, file_data=part.file_data, file_id=part.file_id, file_url=part.file_url)
        return _file(part.file or flat, f"{path}.file", cache)
    return None


def read_image(link: str | Link | None) -> Media | None:
    """An image by its URL; None without one."""
    url = link.url if isinstance(link, Link) else link
    if not url:
        return None
    inline = parse_data_url(url)
    if inline is not None:
        return Media(media=MediaKind.IMAGE, mime=inline[0], b64=inline[1])
    return Media(media=MediaKind.IMAGE, url=url, mime=mime_of_name(url))


def _linked(kind: MediaKind, part: Part, path: str, cache: Raw) -> Media:
    link = part.image_url if kind is MediaKind.IMAGE else part.video_url
    media = read_image(link)
    if media is None:
        if not part.file_id:
            raise _bad(path, "an address")
        media = Media(media=kind, file_id=part.file_id, issuer=ORIGIN)
    media.media = kind
    media.cache = cache
    media.detail = (link.detail if isinstance(link, Link) else None) or part.detail or ""
    return media


def _audio(part: Part, path: str, cache: Raw) -> Media:
    audio = part.input_audio
    if audio is None or not audio.data:
        raise _bad(f"{path}.data", "base64 data")
    inline = parse_data_url(audio.data)
    if inline is not None:
        mime, b64 = inline
    else:
        form = (audio.format or "").lower()
        mime, b64 = _AUDIO_MIMES.get(form, f"audio/{form or 'wav'}"), audio.data
    return Media(media=MediaKind.AUDIO, mime=mime, b64=b64, cache=cache)


def _file(file: FileData, path: str, cache: Raw) -> Media:
    name = file.filename or ""
    if file.file_data:
        # Clients write a data URL or bare base64, both are seen.
        mime, b64 = parse_data_url(file.file_data) or (file_mime(name, file.file_data), file.file_data)
        kind = MediaKind.IMAGE if mime.startswith("image/") else MediaKind.FILE
        return Media(media=kind, mime=mime, b64=b64, name=name, cache=cache)
    if file.file_id:
        return Media(media=MediaKind.FILE, file_id=file.file_id, issuer=ORIGIN, name=name, cache=cache)
    if file.file_url:
        mime = mime_of_name(file.file_url) or mime_of_name(name)
        return Media(media=MediaKind.FILE, url=file.file_url, mime=mime, name=name, cache=cache)
    raise _bad(path, "file_data or file_id")


def _bad(param: str, expected: str) -> MalformedRequest:
    return MalformedRequest(f"{param}: expected {expected}", param=param)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_media(media: Media, path: str, ctx: Context, *, own: bool) -> JsonObject:
    """A content part of a user's message for *media*, or the placeholder that stands for it.

    Args:
      own: the client speaks Chat too, and knows what its host takes.
    """
    vendor = ctx.profile.vendor_host
    if media.text:
        return {"type": "text", "text": document_text(media)}
    if media.file_id and media.issuer not in OPENAI:
        return _unavailable(media, path, ctx)
    match media.media:
        case MediaKind.IMAGE if media.url or media.b64:
            return _write_image(media, vendor=vendor)
        case MediaKind.VIDEO if media.url or media.b64:
            if not vendor:
                return {"type": "video_url", "video_url": {"url": media.url or data_url(media)}}
        case MediaKind.AUDIO if media.b64:
            form = _AUDIO_FORMATS.get(media.mime) or media.mime.removeprefix("audio/")
            if form in VENDOR_AUDIO or own:
                return {"type": "input_audio", "input_audio": {"data": media.b64, "format": form}}
        case MediaKind.FILE if media.file_id:
            return {"type": "file", "file": {"file_id": media.file_id}}
        case MediaKind.FILE if media.b64:
            return _write_file(media, path, ctx)
        case _:
            pass
    return _unavailable(media, path, ctx)


def _write_image(media: Media, *, vendor: bool) -> JsonObject:
    link: JsonObject = {"url": media.url or data_url(media)}
    detail = "high" if media.detail == "original" and not vendor else media.detail
    if detail:
        link["detail"] = detail
    return {"type": "image_url", "image_url": link}


def _write_file(media: Media, path: str, ctx: Context) -> JsonObject:
    if media.context:
        ctx.lose(f"{path}.context", dropped=True)
    mime = clean_mime(media.mime) or sniff_mime(media.b64)
    name = media.name or media.title or _FILE_NAMES.get(mime, "document")
    return {"type": "file", "file": {"filename": name, "file_data": data_url(media)}}


def _unavailable(media: Media, path: str, ctx: Context) -> JsonObject:
    what = media.mime or media.media.value
    if ctx.settings.strict_content:
        raise Untranslatable(path, f"this model cannot take {what[:64]}")
    ctx.lose(path, f"{what[:64]} not available to this model")
    return {"type": "text", "text": placeholder(what[:128]).text}
