"""Forms with files: what browsers, curl and libraries send, and what strangers do."""

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import MalformedRequest, RequestTooLarge
from cpa.server.management import multipart
from cpa.server.management.multipart import Part, is_form, parse_form

TYPE = b'multipart/form-data; boundary="b"'
HEAD = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.json"\r\n\r\n'


def encoded(files: list[tuple[str, tuple[str, bytes]]], **fields: str) -> tuple[bytes, bytes]:
    """A form as httpx writes it."""
    request = httpx.Request("POST", "http://h", files=files, data=fields)
    return request.headers["content-type"].encode(), request.read()


def test_files_and_fields_in_order() -> None:
    """Contents byte for byte, line breaks and something like a boundary included."""
    contents = (b"", b"\r\n", b"--b\r\n\r\n--", b"x" * 100_000, bytes(range(256)))
    names = ("a.json", "ü 😀.json", 'quo"ted.json', "b;c=d.json", "C:\\x\\y.json")
    form = encoded([("f", pair) for pair in zip(names, contents, strict=True)], location="eu")
    assert parse_form(*form) == (
        Part(name="location", data=b"eu"),
        *(Part(name="f", filename=name, data=data) for name, data in zip(names, contents, strict=True)),
    )


def test_other_ways_to_write_a_form() -> None:
    """Bare line feeds, text around it, encoded names, no end of line at the end."""
    body = HEAD.replace(b"\r\n", b"\n") + b"{}\n--b--"
    assert parse_form(TYPE, body) == (Part(name="f", filename="a.json", data=b"{}"),)
    body = b"preamble\r\n" + HEAD + b"{}\r\n--b--\r\nepilogue"
    assert parse_form(TYPE, body) == (Part(name="f", filename="a.json", data=b"{}"),)
    named = HEAD.replace(b'filename="a.json"', b"filename*=UTF-8''%C3%BC.json")
    assert parse_form(TYPE, named + b"{}\r\n--b--")[0].filename == "ü.json"
    assert parse_form(TYPE, b"--b--\r\n") == ()


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (rb"..\..\evil.json", r"..\..\evil.json"),
        (rb"C:\x\evil.json", r"C:\x\evil.json"),
        (rb"..\\evil.json", r"..\evil.json"),
        (rb"a\"b\".json", 'a"b".json'),
    ],
)
def test_backslashes_of_names(written: bytes, name: str) -> None:
    """As browsers write them, and as libraries escape them: a separator stays one."""
    body = HEAD.replace(b"a.json", written) + b"{}\r\n--b--"
    assert parse_form(TYPE, body)[0].filename == name


def test_what_is_a_form() -> None:
    """By the content type alone."""
    assert is_form(b"Multipart/Form-Data ; boundary=x")
    assert not is_form(b"multipart/mixed; boundary=x")
    assert not is_form(b"")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"multipart/form-data", HEAD + b"{}\r\n--b--"),
        (b"multipart/form-data; boundary=" + b"b" * 300, b""),
        (b"multipart/form-data; boundary=\xff", b""),
        (TYPE, b""),
        (TYPE, HEAD),
        (TYPE, HEAD + b"{}\r\n--b"),
        (TYPE, HEAD + b"{}\r\n--c--"),
        (TYPE, b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--"),
        (TYPE, b"--b\r\nContent-Disposition: form-data; name=\xff\xfe\r\n\r\nx\r\n--b--"),
        (TYPE, b"x" * 100_000),
        (TYPE, b"--b\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"),
        (TYPE, b"--b\r\nContent-Disposition: form-data; name=" + b"x" * 100_000),
    ],
    ids=range(12),
)
def test_what_is_no_whole_form(content_type: bytes, body: bytes) -> None:
    """A form that ends too early has no parts: none of its files may be kept."""
    with pytest.raises(MalformedRequest, match="invalid multipart body"):
        parse_form(content_type, body)


def test_parts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there may be, and not one more."""
    monkeypatch.setattr(multipart, "MAX_PARTS", 3)
    assert len(parse_form(TYPE, (HEAD + b"{}\r\n") * 3 + b"--b--")) == 3
    with pytest.raises(RequestTooLarge):
        parse_form(TYPE, (HEAD + b"{}\r\n") * 4 + b"--b--")


@given(st.lists(st.sampled_from((HEAD, b"--b", b"--b--", b"\r\n", b"\n", b"\r", b"--", b"{}", b"\xff", b"; name="))))
def test_any_bytes_are_a_form_or_refused(pieces: list[bytes]) -> None:
    """Nothing else happens."""
    try:
        parts = parse_form(TYPE, b"".join(pieces))
    except MalformedRequest:
        return
    assert sum(len(part.data) for part in parts) <= sum(map(len, pieces))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), st.binary())))
def test_what_is_sent_comes_out(files: list[tuple[str, bytes]]) -> None:
    """Whatever the contents."""
    if files:
        found = parse_form(*encoded([("f", file) for file in files]))
        assert [(part.filename, part.data) for part in found] == files
