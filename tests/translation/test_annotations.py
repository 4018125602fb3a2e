"""Citations and searches in four dialects (translation 3.5)."""

import msgspec
import pytest
from anthropic.types import CitationsWebSearchResultLocation, ServerToolUseBlock, WebSearchToolResultBlock
from google.genai.types import GroundingMetadata
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.chat_completion_message import Annotation as ChatAnnotation
from openai.types.responses import ResponseFunctionWebSearch
from openai.types.responses.response_output_text import AnnotationFileCitation, AnnotationURLCitation

from cpa.jsontypes import JsonObject
from cpa.translation import annotations as a
from cpa.translation.annotations import Search
from cpa.translation.ir import Annotation

MIXED = "aé終🛑b"  # 1, 2, 3, 4 and 1 bytes


def raw(value: object) -> bytes:
    return msgspec.json.encode(value)


# --- offsets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "offsets", "points"),
    [
        (MIXED, [0, 1, 3, 6, 10, 11], [0, 1, 2, 3, 4, 5]),
        (MIXED, [11, 0, 6, 6], [5, 0, 3, 3]),
        (MIXED, [2, 4, 5, 7, 9], [1, 2, 2, 3, 3]),  # inside characters
        (MIXED, [-1, 99], [0, 5]),
        ("abc", [-1, 0, 2, 9], [0, 0, 2, 3]),
        ("", [0, 5], [0, 0]),
        (MIXED, [], []),
    ],
)
def test_bytes_to_code_points(text: str, offsets: list[int], points: list[int]) -> None:
    """Gemini counts bytes."""
    assert a.code_points(text, offsets) == points


@pytest.mark.parametrize(
    ("text", "points", "offsets"),
    [
        (MIXED, [0, 1, 2, 3, 4, 5], [0, 1, 3, 6, 10, 11]),
        (MIXED, [5, 0, 9, -3], [11, 0, 11, 0]),
        ("abc", [1, 9, -1], [1, 3, 0]),
    ],
)
def test_code_points_to_bytes(text: str, points: list[int], offsets: list[int]) -> None:
    """And the way back."""
    assert a.byte_offsets(text, points) == offsets


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.lists(st.integers(-2, 40), max_size=8))
def test_offsets_agree_with_the_plain_way(text: str, points: list[int]) -> None:
    """Of any text, in any order, repeated."""
    inside = [min(max(point, 0), len(text)) for point in points]
    offsets = a.byte_offsets(text, points)
    assert offsets == [len(text[:point].encode()) for point in inside]
    assert a.code_points(text, offsets) == inside


# --- reading ---------------------------------------------------------------------------------------------------------


CHAT_CITATION = {
    "type": "url_citation",
    "url_citation": {"start_index": 2, "end_index": 5, "url": "https://u", "title": "T"},
}
RESPONSES_CITATION = {"type": "url_citation", "start_index": 2, "end_index": 5, "url": "https://u", "title": "T"}


@pytest.mark.parametrize("obj", [CHAT_CITATION, RESPONSES_CITATION])
def test_url_citations_of_openai(obj: JsonObject) -> None:
    """Nested in Chat, flat in Responses."""
    found = a.from_openai(raw(obj), origin="openai")
    assert found == Annotation(kind="url", url="https://u", title="T", start=2, end=5, origin="openai", raw=raw(obj))


@pytest.mark.parametrize(
    "obj",
    [
        {"type": "file_citation", "file_id": "f", "filename": "a.pdf", "index": 3},
        {"type": "container_file_citation", "container_id": "c", "file_id": "f", "filename": "a.pdf"},
        {"type": "file_path", "file_id": "f", "filename": "a.pdf", "index": 1},
    ],
)
def test_file_citations_of_openai(obj: JsonObject) -> None:
    """Their name is what others can show."""
    found = a.from_openai(raw(obj), origin="openai-response")
    assert found is not None
    assert (found.kind, found.title, found.start, found.end) == ("file", "a.pdf", -1, -1)


@pytest.mark.parametrize(
    ("obj", "kind", "url", "title"),
    [
        (
            {
                "type": "web_search_result_location",
                "url": "https://u",
                "title": "T",
                "cited_text": "c",
                "encrypted_index": "E",
            },
            "url",
            "https://u",
            "T",
        ),
        (
            {"type": "search_result_location", "source": "https://s", "title": "T", "cited_text": "c"},
            "search",
            "https://s",
            "T",
        ),
        ({"type": "char_location", "document_title": "D", "cited_text": "c"}, "doc", "", "D"),
        ({"type": "page_location", "document_title": "D", "cited_text": "c"}, "doc", "", "D"),
        ({"type": "content_block_location", "document_title": None, "cited_text": "c"}, "doc", "", ""),
    ],
)
def test_citations_of_claude(obj: JsonObject, kind: str, url: str, title: str) -> None:
    """They cite their whole block, whose end the normalizer writes."""
    found = a.from_claude(raw(obj))
    assert found is not None
    assert (found.kind, found.url, found.title, found.cited_text) == (kind, url, title, "c")
    assert (found.start, found.end) == a.WHOLE_BLOCK


GROUNDING = {
    "webSearchQueries": ["q1", "q2"],
    "groundingChunks": [
        {"web": {"uri": "https://a", "title": "A"}},
        {"web": {"uri": "https://b", "title": "B"}},
        {"web": {}},
    ],
    "groundingSupports": [
        {"segment": {"endIndex": 6, "text": "aé終"}, "groundingChunkIndices": [0, 1]},
        {"segment": {"startIndex": 6, "endIndex": 10}, "groundingChunkIndices": [1, 2, 7, "x"]},
        {"segment": {"startIndex": 10}, "groundingChunkIndices": [0]},
        {"groundingChunkIndices": []},
    ],
}


def spans(found: list[tuple[int, Annotation]]) -> list[tuple[int, str, int, int]]:
    return [(part, entry.url, entry.start, entry.end) for part, entry in found]


def test_grounding_of_gemini() -> None:
    """One citation for each source of each support, in code points; zeros are left out on the wire."""
    found = a.from_gemini(raw(GROUNDING), [MIXED])
    assert spans(found) == [
        (0, "https://a", 0, 3),
        (0, "https://b", 0, 3),
        (0, "https://b", 3, 4),
        (0, "https://a", 4, 5),
    ]
    assert found[0][1].cited_text == "aé終"
    assert found[0][1].title == "A"


def support(start: int, end: int, part: int | None = None) -> JsonObject:
    segment: JsonObject = {"startIndex": start, "endIndex": end}
    if part is not None:
        segment["partIndex"] = part
    return {
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
        "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}],
    }


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (support(0, 3, part=1), (1, "https://a", 0, 1)),
        (support(1, 3), (0, "https://a", 1, 2)),
        # Beyond the first text: places in all texts together, of which parts of frames were joined.
        (support(6, 9), (1, "https://a", 0, 1)),
        (support(9, 13), (1, "https://a", 1, 2)),
        (support(6, 9, part=5), (1, "https://a", 0, 1)),
        (support(9_999, 10_000), (1, "https://a", 2, 2)),
    ],
)
def test_supports_of_several_parts(metadata: JsonObject, expected: tuple[int, str, int, int]) -> None:
    """By their part, or by the whole text."""
    assert spans(a.from_gemini(raw(metadata), ["aé終", "終🛑"])) == [expected]


GARBAGE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff",
    b'{"type":"future"}',
    b'{"type":5}',
    b'{"type":"url_citation"}',
    b'{"type":"url_citation","url_citation":[]}',
    b'{"groundingSupports":5,"groundingChunks":{}}',
    b'{"groundingSupports":[1,{"segment":[]},{"segment":{"startIndex":"x"},"groundingChunkIndices":[true,-1]}]}',
    b'{"action":[],"content":{"type":"web_search_tool_result_error"},"input":"x"}',
]


@pytest.mark.parametrize("data", GARBAGE)
def test_what_cannot_be_read_is_no_citation(data: bytes) -> None:
    """No answer fails for one."""
    assert a.from_openai(data, origin="openai") is None
    assert a.from_claude(data) is None
    assert a.from_gemini(data, ["x", "y"]) == []
    assert a.search_from_gemini(data) == Search()
    assert a.search_from_responses(data) == Search()
    assert a.search_from_claude(data, data) == Search()


def test_many_supports_cost_what_they_are() -> None:
    """A long answer with thousands of citations is decoded once, not once for each; their number is bounded."""
    text = MIXED * 20_000
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 11 * n, "endIndex": 11 * n + 11}, "groundingChunkIndices": [0]}
            for n in range(12_000)
        ],
    }
    found = a.from_gemini(raw(grounding), [text])
    assert len(found) == a.MAX_CITATIONS
    assert all((entry.start, entry.end) == (5 * n, 5 * n + 5) for n, (_, entry) in enumerate(found))


# --- writing ---------------------------------------------------------------------------------------------------------

URL = Annotation(kind="url", url="https://u", title="T", start=2, end=5, cited_text="éab")
DOC = Annotation(kind="doc", title="notes.txt", start=0, end=3)
FILE = Annotation(kind="file", title="a.pdf")


def test_citations_for_chat() -> None:
    """Offsets count from the beginning of the message."""
    found = a.to_chat(URL, 10)
    assert found == {
        "type": "url_citation",
        "url_citation": {"start_index": 12, "end_index": 15, "url": "https://u", "title": "T"},
    }
    ChatAnnotation.model_validate(found, strict=True)
    assert a.to_chat(DOC) is None
    assert a.to_chat(FILE) is None


def test_citations_for_responses() -> None:
    """Files only by their name."""
    found = a.to_responses(URL, 1)
    assert found == {"type": "url_citation", "start_index": 3, "end_index": 6, "url": "https://u", "title": "T"}
    AnnotationURLCitation.model_validate(found, strict=True)
    file = a.to_responses(FILE, index=4)
    assert file == {"type": "file_citation", "file_id": "", "filename": "a.pdf", "index": 4}
    AnnotationFileCitation.model_validate(file, strict=True)
    assert a.to_responses(DOC) == {"type": "file_citation", "file_id": "", "filename": "notes.txt", "index": 0}
    assert a.to_responses(Annotation(kind="doc")) is None


def test_citations_for_claude() -> None:
    """The index that its provider wants back cannot be known, so it is told from a real one."""
    found = a.to_claude(URL)
    assert found == {
        "type": "web_search_result_location",
        "url": "https://u",
        "title": "T",
        "cited_text": "éab",
        "encrypted_index": "",
    }
    CitationsWebSearchResultLocation.model_validate(found, strict=True)
    assert a.to_claude(DOC) is None
    assert not a.claude_takes(raw(found))
    assert a.claude_takes(raw(found | {"encrypted_index": "E"}))
    assert a.claude_takes(b'{"type":"char_location","cited_text":"x"}')
    assert not a.claude_takes(b"null")


def test_grounding_for_gemini() -> None:
    """Each source once; offsets in bytes, within each part."""
    other = Annotation(kind="url", url="https://v", title="V", start=1, end=99)
    whole = Annotation(kind="url", url="https://u", title="T")
    found = a.to_gemini([(MIXED, [URL, DOC, whole]), ("é", [other])], ["q"])
    assert found == {
        "groundingChunks": [
            {"web": {"uri": "https://u", "title": "T"}},
            {"web": {"uri": "https://v", "title": "V"}},
        ],
        "groundingSupports": [
            {"segment": {"startIndex": 3, "endIndex": 11, "text": "終🛑b"}, "groundingChunkIndices": [0]},
            {"segment": {"startIndex": 0, "endIndex": 11, "text": MIXED}, "groundingChunkIndices": [0]},
            {"segment": {"startIndex": 2, "endIndex": 2, "partIndex": 1, "text": ""}, "groundingChunkIndices": [1]},
        ],
        "webSearchQueries": ["q"],
    }
    GroundingMetadata.model_validate(found)
    assert a.to_gemini([("x", [DOC])]) is None
    assert a.to_gemini([], ["q"]) == {"webSearchQueries": ["q"]}


def test_sources_of_the_client_are_linked_only_if_they_are_links() -> None:
    """A search result that the client passed in has any source that it likes."""
    linked = Annotation(kind="search", url="https://s", start=0, end=1)
    assert a.to_chat(linked) is not None
    assert a.to_chat(Annotation(kind="search", url="internal-7", start=0, end=1)) is None


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_citations_survive_gemini_and_openai(text: str, one: int, two: int) -> None:
    """L1: what is written is read again as it was."""
    start, end = sorted((min(one, len(text)), min(two, len(text))))
    citation = Annotation(kind="url", url="https://u", title="T", start=start, end=end)
    metadata = a.to_gemini([(text, [citation])])
    (part, found), *rest = a.from_gemini(raw(metadata), [text])
    assert (part, rest, found.start, found.end, found.url) == (0, [], start, end, "https://u")
    for written in (a.to_chat(citation), a.to_responses(citation)):
        again = a.from_openai(raw(written), origin="openai")
        assert again is not None
        assert (again.start, again.end, again.url, again.title) == (start, end, "https://u", "T")


# --- searches --------------------------------------------------------------------------------------------------------

SEARCH = Search(queries=("q1", "q2"), sources=(("https://a", "A"), ("https://b", "")))


def test_searches_of_responses() -> None:
    """Both ways; titles have no place there."""
    item = a.search_to_responses(SEARCH, "ws_1")
    assert item == {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {
            "type": "search",
            "query": "q1",
            "queries": ["q1", "q2"],
            "sources": [{"type": "url", "url": "https://a"}, {"type": "url", "url": "https://b"}],
        },
    }
    ResponseFunctionWebSearch.model_validate(item, strict=True)
    assert a.search_from_responses(raw(item)) == Search(
        queries=("q1", "q2"), sources=(("https://a", ""), ("https://b", ""))
    )
    assert a.search_from_responses(b'{"action":{"type":"search","query":"q"}}').queries == ("q",)
    ResponseFunctionWebSearch.model_validate(a.search_to_responses(Search(), "ws_1"), strict=True)


def test_searches_of_claude() -> None:
    """Both ways; what is encrypted is required and cannot be known."""
    use, result = a.search_to_claude(SEARCH, "srvtoolu_1")
    ServerToolUseBlock.model_validate(use | {"caller": None})
    WebSearchToolResultBlock.model_validate(result | {"caller": None})
    assert use == {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q1"}}
    assert result == {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [
            {"type": "web_search_result", "url": "https://a", "title": "A", "encrypted_content": "", "page_age": None},
            {"type": "web_search_result", "url": "https://b", "title": "", "encrypted_content": "", "page_age": None},
        ],
    }
    assert a.search_from_claude(raw(use), raw(result)) == Search(queries=("q1",), sources=SEARCH.sources)
    assert a.search_from_claude(raw(use)) == Search(queries=("q1",))


def test_searches_of_gemini() -> None:
    """Queries and chunks."""
    assert a.search_from_gemini(raw(GROUNDING)) == Search(
        queries=("q1", "q2"), sources=(("https://a", "A"), ("https://b", "B"))
    )
