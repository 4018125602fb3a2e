"""Citations and searches, in four dialects (translation 3.5).

In the IR offsets count code points of the block's text. Chat and Responses count them in the whole message, Gemini
counts bytes of UTF-8, and Claude does not count: it cuts its blocks around what is cited. Nothing here raises: a
citation that cannot be read is none.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

import attrs

from cpa.formats.json import JsonError, decode
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.ir import Annotation

URL: Final = "url"
FILE: Final = "file"
DOC: Final = "doc"
SEARCH: Final = "search"
WHOLE_BLOCK: Final = 0, -1
"""*start* and *end* of a citation of its whole block; the length is known when it closes: the normalizer writes it."""

MAX_METADATA_BYTES: Final = 4 * 1024 * 1024
MAX_CITATIONS: Final = 10_000
"""Of one ``groundingMetadata``."""

_CLAUDE_KINDS: Final[Mapping[str, str]] = {
    "web_search_result_location": URL,
    "search_result_location": SEARCH,
    "char_location": DOC,
    "page_location": DOC,
    "content_block_location": DOC,
}
_OPENAI_FILES: Final = frozenset({"file_citation", "container_file_citation", "file_path"})


# --- offsets ---------------------------------------------------------------------------------------------------------


def code_points(text: str, offsets: Sequence[int]) -> list[int]:
    """Byte offsets into the UTF-8 of *text* as code points, each within it; inside a character means before it."""
    if text.isascii():
        return [min(max(offset, 0), len(text)) for offset in offsets]
    data = text.encode("utf-8", "surrogatepass")
    found: dict[int, int] = {}
    place = count = 0
    for offset in sorted(set(offsets)):
        end = min(max(offset, 0), len(data))
        while place < end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        # Each stretch is decoded once, however many offsets there are.
        count += len(data[place:end].decode("utf-8", "surrogatepass"))
        place = end
        found[offset] = count
    return [found[offset] for offset in offsets]


def byte_offsets(text: str, offsets: Sequence[int]) -> list[int]:
    """Offsets in code points of *text* as bytes of its UTF-8, each within it."""
    if text.isascii():
        return [min(max(offset, 0), len(text)) for offset in offsets]
    found: dict[int, int] = {}
    place = count = 0
    for offset in sorted(set(offsets)):
        end = max(place, min(offset, len(text)))
        count += len(text[place:end].encode("utf-8", "surrogatepass"))
        place = end
        found[offset] = count
    return [found[offset] for offset in offsets]


# --- citations: reading ----------------------------------------------------------------------------------------------


def from_openai(obj: bytes, *, origin: str) -> Annotation | None:
    """One of Chat's (nested) or Responses' (flat) ``annotations``; None = not readable, or of no use."""
    entry = _object(_value(obj))
    kind = entry.get("type")
    if kind == "url_citation":
        inner = _object(entry.get("url_citation")) or entry
        url = _text(inner.get("url"))
        if not url:
            return None
        return Annotation(
            kind=URL,
            url=url,
            title=_text(inner.get("title")),
            start=_offset(inner.get("start_index")),
            end=_offset(inner.get("end_index")),
            origin=origin,
            raw=bytes(obj),
        )
    if isinstance(kind, str) and kind in _OPENAI_FILES:
        return Annotation(
            kind=FILE,
            title=_text(entry.get("filename")),
            start=_offset(entry.get("start_index")),
            end=_offset(entry.get("end_index")),
            origin=origin,
            raw=bytes(obj),
        )
    return None


def from_claude(obj: bytes) -> Annotation | None:
    """One of ``citations``; None = not readable. It cites its whole block (`WHOLE_BLOCK`)."""
    entry = _object(_value(obj))
    kind = _CLAUDE_KINDS.get(_text(entry.get("type")))
    if kind is None:
        return None
    start, end = WHOLE_BLOCK
    return Annotation(
        kind=kind,
        url=_text(entry.get("url" if kind == URL else "source")),
        title=_text(entry.get("title")) or _text(entry.get("document_title")),
        start=start,
        end=end,
        cited_text=_text(entry.get("cited_text")),
        origin=Format.CLAUDE,
        raw=bytes(obj),
    )


def from_gemini(metadata: bytes, texts: Sequence[str]) -> list[tuple[int, Annotation]]:
    """(index of the text, annotation) of ``groundingMetadata``, in its order.

    Args:
      texts: of the answer's parts in order, whole: supports refer to the complete text. A part of a stream that is
        unknown here (parts of frames were joined) is taken for a place in all texts together.
    """
    if len(metadata) > MAX_METADATA_BYTES or not texts:
        return []
    grounding = _object(_value(metadata))
    chunks = [_source(chunk) for chunk in _list(grounding.get("groundingChunks"))]
    wanted: list[tuple[int, int, int, str, tuple[str, str]]] = []
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    starts = list(accumulate(sizes, initial=0))
    for support in map(_object, _list(grounding.get("groundingSupports"))):
        segment = _object(support.get("segment"))
        # Proto JSON leaves out zeros.
        part = max(0, _offset(segment.get("partIndex"), 0))
        begin, stop = _offset(segment.get("startIndex"), 0), _offset(segment.get("endIndex"))
        if part >= len(texts) or (len(texts) > 1 and part == 0 and stop > sizes[0]):
            part = min(bisect_right(starts, begin), len(texts)) - 1
            begin, stop = begin - starts[part], stop - starts[part] if stop >= 0 else stop
        stop = stop if stop >= 0 else sizes[part]
        for index in _list(support.get("groundingChunkIndices")):
            if isinstance(index, int) and 0 <= index < len(chunks) and chunks[index][0] and len(wanted) < MAX_CITATIONS:
                wanted.append((part, begin, max(begin, stop), _text(segment.get("text")), chunks[index]))
    found: list[tuple[int, Annotation]] = []
    places: dict[int, dict[int, int]] = {}
    for part in {entry[0] for entry in wanted}:
        offsets = [offset for entry in wanted if entry[0] == part for offset in entry[1:3]]
        places[part] = dict(zip(offsets, code_points(texts[part], offsets), strict=True))
    for part, begin, stop, cited, (url, title) in wanted:
        annotation = Annotation(
            kind=URL,
            url=url,
            title=title,
            start=places[part][begin],
            end=places[part][stop],
            cited_text=cited,
            origin=Format.GEMINI,
        )
        found.append((part, annotation))
    return found


# --- citations: writing ----------------------------------------------------------------------------------------------


def to_chat(annotation: Annotation, offset: int = 0) -> JsonObject | None:
    """One of ``annotations``; *offset*: where the block begins in ``content``. None = Chat cannot say it."""
    if not _has_link(annotation):
        return None
    return {"type": "url_citation", "url_citation": _citation(annotation, offset)}


def to_responses(annotation: Annotation, offset: int = 0, index: int = 0) -> JsonObject | None:
    """One of ``annotations`` of an ``output_text`` part. None = Responses cannot say it.

    Args:
      offset: where the block begins in the part. *index*: of a file citation among the part's annotations.
    """
    if _has_link(annotation):
        return {"type": "url_citation", **_citation(annotation, offset)}
    if annotation.kind in (FILE, DOC) and annotation.title:
        return {"type": "file_citation", "file_id": "", "filename": annotation.title, "index": index}
    return None


def to_claude(annotation: Annotation) -> JsonObject | None:
    """One of ``citations``. None = Claude cannot say it.

    ``encrypted_index`` is required and cannot be known: empty ones are told from real ones by `claude_takes`.
    """
    if not _has_link(annotation):
        return None
    return {
        "type": "web_search_result_location",
        "url": annotation.url,
        "title": annotation.title or None,
        "cited_text": annotation.cited_text,
        "encrypted_index": "",
    }


def claude_takes(citation: bytes) -> bool:
    """Whether a Claude provider would take this citation back: not one that `to_claude` made."""
    entry = _object(_value(citation))
    if entry.get("type") != "web_search_result_location":
        return bool(entry)
    return bool(_text(entry.get("encrypted_index")))


def to_gemini(blocks: Sequence[tuple[str, Sequence[Annotation]]], queries: Sequence[str] = ()) -> JsonObject | None:
    """``groundingMetadata`` of (text, annotations) of the text parts, in order; None = nothing to say."""
    sources: dict[tuple[str, str], int] = {}
    supports: list[JsonValue] = []
    for part, (text, annotations) in enumerate(blocks):
        linked = [annotation for annotation in annotations if _has_link(annotation)]
        spans = [_span(annotation, len(text)) for annotation in linked]
        offsets = byte_offsets(text, [offset for span in spans for offset in span])
        for place, (annotation, (start, end)) in enumerate(zip(linked, spans, strict=True)):
            source = sources.setdefault((annotation.url, annotation.title), len(sources))
            segment: JsonObject = {"startIndex": offsets[2 * place], "endIndex": offsets[2 * place + 1]}
            if part:
                segment["partIndex"] = part
            segment["text"] = text[start:end]
            supports.append({"segment": segment, "groundingChunkIndices": [source]})
    if not supports and not queries:
        return None
    metadata: JsonObject = {}
    if sources:
        metadata["groundingChunks"] = [{"web": {"uri": url, "title": title}} for url, title in sources]
        metadata["groundingSupports"] = supports
    if queries:
        metadata["webSearchQueries"] = list(queries)
    return metadata


def _has_link(annotation: Annotation) -> bool:
    if annotation.kind == SEARCH:  # whose source is the client's own word for it
        return annotation.url.startswith(("http://", "https://"))
    return annotation.kind == URL and bool(annotation.url)


def _citation(annotation: Annotation, offset: int) -> JsonObject:
    start = max(0, annotation.start)
    return {
        "start_index": start + offset,
        "end_index": max(start, annotation.end) + offset,
        "url": annotation.url,
        "title": annotation.title,
    }


def _span(annotation: Annotation, length: int) -> tuple[int, int]:
    start = min(max(0, annotation.start), length)
    end = length if annotation.end < 0 else min(annotation.end, length)
    return start, max(start, end)


# --- searches --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Search:
    """A web search that the provider made: *queries* and, as (url, title), what it found."""

    queries: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()


def search_from_responses(item: bytes) -> Search:
    """Of a ``web_search_call`` item."""
    action = _object(_object(_value(item)).get("action"))
    queries = [_text(query) for query in _list(action.get("queries"))] or [_text(action.get("query"))]
    sources = [(_text(source.get("url")), _text(source.get("title"))) for source in _objects(action.get("sources"))]
    return _search(queries, sources)


def search_from_claude(call: bytes, result: bytes = b"") -> Search:
    """Of a ``server_tool_use`` block and, either may be empty, its ``web_search_tool_result`` block."""
    query = _text(_object(_object(_value(call)).get("input")).get("query")) if call else ""
    content = _object(_value(result)).get("content") if result else None
    found = _objects(content)  # an error is an object, not a list
    return _search([query], [(_text(entry.get("url")), _text(entry.get("title"))) for entry in found])


def search_from_gemini(metadata: bytes) -> Search:
    """Of ``groundingMetadata``."""
    grounding = _object(_value(metadata)) if len(metadata) <= MAX_METADATA_BYTES else {}
    queries = [_text(query) for query in _list(grounding.get("webSearchQueries"))]
    return _search(queries, [_source(chunk) for chunk in _list(grounding.get("groundingChunks"))])


def search_to_responses(search: Search, item_id: str, *, status: str = "completed") -> JsonObject:
    """A ``web_search_call`` item."""
    action: JsonObject = {"type": "search", "query": search.queries[0] if search.queries else ""}
    if search.queries:
        action["queries"] = list(search.queries)
    if search.sources:
        action["sources"] = [{"type": "url", "url": url} for url, _ in search.sources]
    return {"id": item_id, "type": "web_search_call", "status": status, "action": action}


def search_to_claude(search: Search, call_id: str) -> tuple[JsonObject, JsonObject]:
    """A ``server_tool_use`` block and its ``web_search_tool_result`` block. *call_id* begins with ``srvtoolu_``."""
    use: JsonObject = {
        "type": "server_tool_use",
        "id": call_id,
        "name": "web_search",
        "input": {"query": search.queries[0] if search.queries else ""},
    }
    content: list[JsonValue] = [
        {"type": "web_search_result", "url": url, "title": title, "encrypted_content": "", "page_age": None}
        for url, title in search.sources
    ]
    return use, {"type": "web_search_tool_result", "tool_use_id": call_id, "content": content}


def _search(queries: Sequence[str], sources: Sequence[tuple[str, str]]) -> Search:
    return Search(
        queries=tuple(dict.fromkeys(query for query in queries if query)),
        sources=tuple(dict.fromkeys(source for source in sources if source[0])),
    )


# --- values ----------------------------------------------------------------------------------------------------------


def _value(data: bytes) -> JsonValue:
    try:
        return decode(data)
    except JsonError:
        return None


def _source(chunk: JsonValue) -> tuple[str, str]:
    """(url, title) of a grounding chunk; no url if it has none."""
    entry = _object(chunk)
    web = _object(entry.get("web")) or _object(entry.get("retrievedContext")) or _object(entry.get("maps"))
    return _text(web.get("uri")), _text(web.get("title"))


def _objects(value: JsonValue) -> list[JsonObject]:
    return [entry for entry in _list(value) if isinstance(entry, dict)]


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def _offset(value: JsonValue, default: int = -1) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else default
