"""Data URLs, MIME types, placeholders, and foreign server tools as text (translation 2.5, 2.15)."""

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.translation.ir import Media, MediaKind, Native, ServerCall, ServerResult, Text
from cpa.translation.media import (
    clean_mime,
    data_url,
    document_text,
    file_mime,
    foreign_items_text,
    is_text_mime,
    mime_of_name,
    parse_data_url,
    placeholder,
    sniff_mime,
)

OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("data:image/png;base64,iVBOR", ("image/png", "iVBOR")),
        ("data:image/jpg;base64,/9j/", ("image/jpeg", "/9j/")),
        ("DATA:Image/PNG;charset=x;BASE64,iVBOR", ("image/png", "iVBOR")),
        ("data:application/pdf;name=a%2Cb.pdf;base64,JVBER", ("application/pdf", "JVBER")),
        ("data:;base64,/9j/4AAQ", ("image/jpeg", "/9j/4AAQ")),
        ("data:;base64,QUJD", (OCTETS, "QUJD")),
        ("data:text/plain,a%20b", ("text/plain", "YSBi")),
        ("data:text/plain;base64,QQ%3D%3D", ("text/plain", "QQ==")),
        ("data:image/png;base64,not base64!", ("image/png", "not base64!")),
        (" data:image/png;base64,x", ("image/png", "x")),
        ("https://h/a.png", None),
        ("data:image/png", None),
        ("data:" + "x" * 2000 + ",y", None),
        ("", None),
    ],
)
def test_data_urls(url: str, parsed: tuple[str, str] | None) -> None:
    """Base64 is moved as it is; what is not base64 is encoded. Case 23: the alias of JPEG."""
    assert parse_data_url(url) == parsed


@given(st.binary(max_size=50), st.sampled_from(["image/png", "application/pdf", "text/plain"]))
def test_data_urls_and_back(content: bytes, mime: str) -> None:
    """Always whole."""
    b64 = b64encode(content).decode()
    assert parse_data_url(data_url(Media(media=MediaKind.FILE, mime=mime, b64=b64))) == (mime, b64)


@given(st.text(max_size=40) | st.text("data:;base64,%/ x", max_size=60))
def test_any_text_is_read(url: str) -> None:
    """A data URL or none."""
    parsed = parse_data_url(url)
    assert parsed is None or all(isinstance(part, str) for part in parsed)


def test_a_data_url_always_has_a_type() -> None:
    """Sniffed when it is not known."""
    assert data_url(Media(media=MediaKind.IMAGE, b64="R0lGODlh")) == "data:image/gif;base64,R0lGODlh"


@pytest.mark.parametrize(
    ("b64", "mime"),
    [
        ("/9j/4A", "image/jpeg"),
        ("iVBORw", "image/png"),
        ("R0lGODlh", "image/gif"),
        ("UklGRg", "image/webp"),
        ("JVBERi0", "application/pdf"),
        ("AAAA", OCTETS),
        ("", OCTETS),
    ],
)
def test_sniffing(b64: str, mime: str) -> None:
    """By the first characters of base64."""
    assert sniff_mime(b64) == mime


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.PDF", "application/pdf"),
        ("https://h/x/a.png?size=1.gif#y.jpg", "image/png"),
        ("https://h.png", ""),
        ("https://[bad/a.png", ""),
        ("archive.tar.unknown", ""),
        ("noextension", ""),
        (".pdf", ""),
        ("report.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ],
)
def test_types_of_names(name: str, mime: str) -> None:
    """Of file names and of URLs."""
    assert mime_of_name(name) == mime


def test_types_of_bare_base64() -> None:
    """Case 25: the file's name first."""
    assert file_mime("a.pdf", "AAAA") == "application/pdf"
    assert file_mime("a", "JVBERi0") == "application/pdf"
    assert clean_mime(" Image/JPG; q=1") == "image/jpeg"


@pytest.mark.parametrize("mime", ["text/x-python", "application/json", "application/xml", "text/csv", "image/svg+xml"])
def test_text_types(mime: str) -> None:
    """What can be shown to a model as text."""
    assert is_text_mime(mime)
    assert not is_text_mime("application/zip")


def test_placeholder() -> None:
    """The words of 0.7."""
    assert placeholder("audio/wav") == Text("[attachment not available to this model: audio/wav]")


@pytest.mark.parametrize(
    ("media", "text"),
    [
        (Media(media=MediaKind.FILE, text="T", name="notes.txt"), "[document: notes.txt]\nT"),
        (Media(media=MediaKind.FILE, text="T", title="Notes", context="C"), "[document: Notes]\nC\nT"),
        (Media(media=MediaKind.FILE, text="T"), "[document]\nT"),
    ],
)
def test_documents_as_text(media: Media, text: str) -> None:
    """A line that names it, what is said of it, the text."""
    assert document_text(media) == text


SERVER_ITEMS: list[tuple[object, str]] = [
    (
        {
            "type": "web_search_call",
            "action": {"type": "search", "query": "cats", "sources": [{"type": "url", "url": "https://a"}]},
        },
        "[web search: cats]\nhttps://a",
    ),
    ({"type": "web_search_call", "action": {"type": "search", "queries": ["a", "b"]}}, "[web search: a, b]"),
    ({"type": "web_search_call", "action": {"type": "open_page", "url": "https://a"}}, "[web page: https://a]"),
    (
        {"type": "web_search_call", "action": {"type": "find", "url": "https://a", "pattern": "p"}},
        "[web page: https://a, searched for: p]",
    ),
    ({"type": "server_tool_use", "name": "web_search", "input": {"query": "cats"}}, "[web search: cats]"),
    (
        {
            "type": "web_search_tool_result",
            "content": [
                {"type": "web_search_result", "title": "T", "url": "https://a", "encrypted_content": "secret"},
                {"type": "web_search_result", "url": "https://b"},
            ],
        },
        "T — https://a\nhttps://b",
    ),
    (
        {"type": "web_search_tool_result", "content": {"error_code": "max_uses_exceeded"}},
        "[web search failed: max_uses_exceeded]",
    ),
    (
        {
            "type": "web_fetch_tool_result",
            "content": {
                "url": "https://a",
                "content": {"title": "T", "source": {"type": "text", "data": "body"}},
            },
        },
        "T — https://a\n```\nbody\n```",
    ),
    ({"type": "server_tool_use", "name": "code_execution", "input": {"code": "1+1"}}, "```python\n1+1\n```"),
    ({"type": "server_tool_use", "name": "bash_code_execution", "input": {"command": "ls"}}, "```sh\nls\n```"),
    (
        {"type": "bash_code_execution_tool_result", "content": {"stdout": "a", "stderr": "b", "return_code": 1}},
        "```\na\nb\n```\n[exit code 1]",
    ),
    (
        {"type": "code_interpreter_call", "code": "x", "outputs": [{"type": "logs", "logs": "y"}]},
        "```python\nx\n```\n```\ny\n```",
    ),
    (
        {"type": "file_search_call", "queries": ["q"], "results": [{"filename": "f.txt", "text": "t"}]},
        "[file search: q]\nf.txt — t",
    ),
    (
        {"type": "mcp_call", "server_label": "s", "name": "n", "arguments": "{}", "output": "o"},
        "[tool s.n: {}]\n```\no\n```",
    ),
    ({"type": "local_shell_call", "action": {"command": ["ls", "-l"]}}, "```sh\nls -l\n```"),
    ({"type": "shell_call_output", "output": [{"stdout": "a", "stderr": ""}]}, "```\na\n```"),
    (
        {"type": "apply_patch_call", "operation": {"type": "update_file", "path": "a.py", "diff": "+x"}},
        "[update_file: a.py]\n```diff\n+x\n```",
    ),
    ({"executableCode": {"language": "PYTHON", "code": "print(1)"}}, "```python\nprint(1)\n```"),
    ({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}}, "```\n1\n```"),
    (
        {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "e"}},
        "[code execution: failed]\n```\ne\n```",
    ),
    ({"executableCode": {"code": "a ``` b"}}, "````\na ``` b\n````"),
    ({"type": "future_thing", "text": "x"}, ""),
    ({}, ""),
    ([1], ""),
    ({"type": "web_search_tool_result", "content": 3}, ""),
]


@pytest.mark.parametrize(("item", "text"), SERVER_ITEMS)
def test_foreign_server_items(item: object, text: str) -> None:
    """Case 35 and 2.15: told in a few lines, encrypted contents gone."""
    raw = json.dumps(item).encode()
    assert foreign_items_text(ServerCall(kind="other", origin="x", raw=raw)) == text
    assert foreign_items_text(ServerResult(kind="other", origin="x", raw=raw)) == text
    assert foreign_items_text(Native(origin="x", raw=raw)) == text


@given(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                [row[0]["type"] for row in SERVER_ITEMS if isinstance(row[0], dict) and "type" in row[0]]
            )
        },
        optional={
            key: st.none() | st.integers() | st.text(max_size=3) | st.lists(st.none() | st.text(max_size=2), max_size=2)
            for key in ("action", "content", "input", "output", "outputs", "queries", "results", "operation", "name")
        },
    )
)
def test_hostile_server_items(item: dict[str, object]) -> None:
    """Any member may be anything."""
    assert isinstance(foreign_items_text(Native(origin="x", raw=json.dumps(item).encode())), str)


def test_garbage_is_no_item() -> None:
    """Nothing to tell."""
    assert foreign_items_text(Native(origin="x", raw=b"{")) == ""
