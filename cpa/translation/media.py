"""Non-text content: data URLs, MIME types, placeholders (2.5). Base64 is moved, never decoded."""

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from cpa.translation.ir import Media, MediaKind, Native, ServerCall, ServerResult, Text
from cpa.translation.server_text import summary

OCTETS: Final = "application/octet-stream"

GOOGLES_FILE: Final = re.compile(r"gs://|files/|https://[a-z0-9.-]*\.googleapis\.com/", re.IGNORECASE)
_YOUTUBE: Final = re.compile(r"https?://(?:(?:www|m|music)\.)?(?:youtube\.com|youtu\.be)/", re.IGNORECASE)

_SNIFFED: Final = (
    ("/9j/", "image/jpeg"),
    ("iVBOR", "image/png"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBER", "application/pdf"),
)

_BY_EXTENSION: Final = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "bmp": "image/bmp",
    "svg": "image/svg+xml",
    "tiff": "image/tiff",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "html": "text/html",
    "htm": "text/html",
    "css": "text/css",
    "xml": "application/xml",
    "json": "application/json",
    "js": "text/javascript",
    "ts": "text/x-typescript",
    "py": "text/x-python",
    "rtf": "application/rtf",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "zip": "application/zip",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "avi": "video/x-msvideo",
}

_ALIASES: Final = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "application/x-pdf": "application/pdf"}
_DATA = re.compile(r"\s*data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
MAX_HEADER_CHARS: Final = 1024
"""Of a data URL, before its comma."""


def parse_data_url(url: str) -> tuple[str, str] | None:
    """(MIME type, base64) of a data URL; None if *url* is none. What is not base64 is encoded.

    The type is in lower case without parameters, ``image/jpg`` put right, and sniffed where it is missing.
    """
    match = _DATA.match(url, 0, MAX_HEADER_CHARS)
    if match is None:
        return None
    payload = url[match.end() :]
    if "base64" in (parameter.strip().lower() for parameter in match[2].split(";")):
        if "%" in payload[:64] or payload.endswith(("%3D", "%3d")):
            payload = unquote_to_bytes(payload).decode("ascii", "ignore")
        b64 = payload
    else:
        b64 = base64.b64encode(unquote_to_bytes(payload)).decode("ascii")
    return clean_mime(match[1]) or sniff_mime(b64), b64


def data_url(media: Media) -> str:
    """*media*, which has base64, as a data URL."""
    return f"data:{media.mime or sniff_mime(media.b64)};base64,{media.b64}"


def clean_mime(mime: str) -> str:
    """*mime* in lower case, without parameters, aliases put right."""
    bare = mime.partition(";")[0].strip().lower()
    return _ALIASES.get(bare, bare)


def sniff_mime(b64: str) -> str:
    """The type of what begins so, or ``application/octet-stream``."""
    start = b64[:64].lstrip()
    return next((mime for prefix, mime in _SNIFFED if start.startswith(prefix)), OCTETS)


def mime_of_name(name: str) -> str:
    """The type that a file name's or URL's extension tells; empty if it tells none."""
    path = name
    if "://" in name:
        try:
            path = urlsplit(name).path
        except ValueError:
            return ""
    stem, dot, extension = path.rpartition(".")
    return _BY_EXTENSION.get(extension.lower(), "") if dot and stem else ""


def file_mime(name: str, b64: str) -> str:
    """The type of bare base64: by the file's name, else by its first bytes."""
    return mime_of_name(name) or sniff_mime(b64)


def is_text_mime(mime: str) -> bool:
    """Whether content of this type can be shown as text."""
    bare = clean_mime(mime)
    return bare.startswith("text/") or bare.endswith(("+json", "+xml")) or bare in _TEXTUAL


_TEXTUAL: Final = {"application/json", "application/xml", "application/csv", "application/yaml", "application/x-yaml"}


def placeholder(what: str) -> Text:
    """What stands for content that the model cannot take. *what*: its type, never content."""
    return Text(text=f"[attachment not available to this model: {what}]")


def document_text(media: Media) -> str:
    """A plain-text document as text: a line that names it, what the client says of it, and the text itself."""
    name = media.name or media.title
    header = f"[document: {name}]" if name else "[document]"
    return "\n".join(filter(None, (header, media.context, media.text)))


def foreign_items_text(part: ServerCall | ServerResult | Native) -> str:
    """A step of a provider's own tool for a model of another provider (2.15); empty if there is nothing to tell."""
    return summary(part)


def media_kind(mime: str) -> MediaKind:
    """By type."""
    word = mime.partition("/")[0]
    return MediaKind(word) if word in ("image", "audio", "video") else MediaKind.FILE


def is_googles(url: str) -> bool:
    """Whether Google reads this address by itself: its own files, and videos of YouTube."""
    return bool(GOOGLES_FILE.match(url) or _YOUTUBE.match(url))
