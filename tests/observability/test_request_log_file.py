"""The file of one request: name, sections, decoding, masking."""

import gzip
import os
import stat
import zlib
from datetime import datetime
from pathlib import Path

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.observability.redact import KnownSecrets
from cpa.observability.request_log_file import (
    WINDOW_BYTES,
    Attempt,
    Capture,
    RecordData,
    file_name,
    prune_errors,
    write_record,
)

AT = datetime(2026, 10, 1, 10, 0, 0).timestamp()
SECRET = "Zq8hunter2Zq8hunter2x"


def capture(*chunks: bytes) -> Capture:
    made = Capture()
    for chunk in chunks:
        made.add(chunk, 1 << 30)
    return made


def record(**changes: object) -> RecordData:
    data = RecordData(
        started_unix=AT,
        method="POST",
        path="/v1/chat/completions",
        query="",
        headers=((b"content-type", b"application/json"),),
        trace_id="a1b2c3d4",
        transport="http",
    )
    for name, value in changes.items():
        setattr(data, name, value)
    return data


def written(directory: Path, data: RecordData, secrets: KnownSecrets | None = None) -> bytes:
    path = write_record(data, directory=directory, version="1.2", error=False, secrets=secrets or KnownSecrets())
    return path.read_bytes()


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("/v1/chat/completions", "v1-chat-completions"),
        ("/v1beta/models/gemini-2.5-pro:generateContent", "v1beta-models-gemini-2.5-pro-generateContent"),
        ("/", "root"),
        ("/../../etc/passwd", "etc-passwd"),
        ("/..", "root"),
        ("/a\0b\nc d", "a-b-c-d"),
        ("/é/日本", "root"),
        ("/" + "x" * 500, "x" * 119),
    ],
)
def test_file_names_follow_the_contract(path: str, stem: str) -> None:
    """Paths are made by strangers: no separators, no dots in front, no endless names."""
    assert file_name(path, AT, "a1b2c3d4", error=False) == f"{stem}-2026-10-01T100000-a1b2c3d4.log"
    assert file_name(path, AT, "../x", error=True) == f"error-{stem}-2026-10-01T100000-x.log"


@given(st.text(max_size=300), st.text(max_size=50))
@settings(max_examples=200)
def test_no_name_leaves_the_directory(path: str, trace_id: str) -> None:
    """Whatever was requested."""
    name = file_name(path, AT, trace_id, error=False)
    assert os.path.basename(name) == name
    assert not name.startswith(".")
    assert len(name.encode()) < 200


def test_sections_are_in_order(tmp_path: Path) -> None:
    """The whole file, as the specification has it."""
    retry = Attempt(
        started_unix=AT,
        url="https://up.example/v1/messages?key=abcdefghijkl",
        method="POST",
        headers=((b"x-api-key", SECRET.encode()),),
        auth="claude-api-key (label)",
        body=capture(b'{"m":', b"1}"),
        responded_unix=AT + 1,
        status=500,
        response_headers=((b"content-type", b"text/plain"),),
        response=capture(b"oops"),
    )
    silent = Attempt(started_unix=AT, url="https://up", method="POST", headers=(), auth="", body=capture())
    data = record(
        query="key=abcdefghijkl&a=1",
        headers=((b"Authorization", f"Bearer {SECRET}".encode()), (b"Cookie", f"s={SECRET}".encode())),
        body=capture(b'{"model":', b'"m"}'),
        attempts=[retry, silent],
        errors=[(AT, f"connection to http://u:{SECRET}@proxy refused")],
        status=502,
        response_headers=((b"content-type", b"application/json"),),
        response=capture(b'{"error":1}'),
    )
    stamp = datetime.fromtimestamp(AT).astimezone().isoformat(timespec="milliseconds")
    assert written(tmp_path, data).decode() == (
        "=== REQUEST INFO ===\n"
        "Version: 1.2\n"
        "URL: /v1/chat/completions?key=abcd...ijkl&a=1\n"
        "Method: POST\n"
        "Downstream Transport: http\n"
        "Upstream Transport: http\n"
        f"Timestamp: {stamp}\n"
        "\n=== HEADERS ===\n"
        "Authorization: Bearer Zq8h...er2x\n"
        "Cookie: s=Zq8h...er2x\n"
        "\n=== REQUEST BODY ===\n"
        '{"model":"m"}\n'
        "\n=== API REQUEST 1 ===\n"
        f"Timestamp: {stamp}\n"
        "Upstream URL: https://up.example/v1/messages?key=abcd...ijkl\n"
        "HTTP Method: POST\n"
        "Auth: claude-api-key (label)\n"
        "\nHeaders:\n"
        "x-api-key: Zq8h...er2x\n"
        "\nBody:\n"
        '{"m":1}\n'
        "\n=== API RESPONSE 1 ===\n"
        f"Timestamp: {stamp.replace('10:00:00', '10:00:01')}\n"
        "Status: 500\n"
        "Headers:\n"
        "content-type: text/plain\n"
        "\nBody:\n"
        "oops\n"
        "\n=== API REQUEST 2 ===\n"
        f"Timestamp: {stamp}\n"
        "Upstream URL: https://up\n"
        "HTTP Method: POST\n"
        "Auth: \n"
        "\nHeaders:\n"
        "\nBody:\n"
        "\n"
        "\n=== API ERROR RESPONSE ===\n"
        f"Timestamp: {stamp}\n"
        "connection to http://proxy refused\n"
        "\n=== RESPONSE ===\n"
        "Status: 502\n"
        "content-type: application/json\n"
        "\n"
        '{"error":1}\n'
    )


def test_websocket_sessions_have_a_timeline_instead_of_a_response(tmp_path: Path) -> None:
    """As the specification has it."""
    text = written(tmp_path, record(timeline=capture(b"Event: client\n{}\n\n"), status=101))
    assert b"=== WEBSOCKET TIMELINE ===\nEvent: client\n{}\n" in text
    assert b"=== RESPONSE ===" not in text


def test_files_are_private_and_never_overwritten(tmp_path: Path) -> None:
    """Mode 0600 in a 0700 directory; twins get a number; a planted link is not followed."""
    directory = tmp_path / "logs"
    name = file_name("/v1/chat/completions", AT, "a1b2c3d4", error=False)
    paths = [
        write_record(record(), directory=directory, version="1", error=False, secrets=KnownSecrets()) for _ in range(3)
    ]
    assert [path.name for path in paths] == [
        name,
        name.replace("-a1b2", "-2-a1b2"),
        name.replace("-a1b2", "-3-a1b2"),
    ]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    error_name = file_name("/v1/chat/completions", AT, "a1b2c3d4", error=True)
    (directory / error_name).symlink_to(victim)
    other = write_record(record(), directory=directory, version="1", error=True, secrets=KnownSecrets())
    assert other.name != error_name
    assert victim.read_bytes() == b"keep"


PLAIN = b'{"messages":["' + b"words " * 100 + b'"]}'


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(PLAIN, mtime=0)),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", raw_deflate(PLAIN)),
        ("br", brotli.compress(PLAIN)),
        ("zstd", zstandard.compress(PLAIN)),
        ("gzip, zstd", zstandard.compress(gzip.compress(PLAIN, mtime=0))),
        ("gzip", PLAIN),
        ("br", PLAIN),
        ("unknown", PLAIN),
        ("identity", PLAIN),
    ],
)
def test_compressed_bodies_are_readable(tmp_path: Path, coding: str, data: bytes) -> None:
    """Logs are read by people; bodies that somebody decoded already are left alone."""
    headers = ((b"Content-Encoding", coding.encode()),)
    pieces = capture(data[:10], data[10:])
    text = written(tmp_path, record(headers=headers, body=pieces))
    assert b"=== REQUEST BODY ===\n" + PLAIN + b"\n" in text


def test_decompression_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small bomb must not become a big file."""
    monkeypatch.setattr("cpa.observability.request_log_file.MAX_CAPTURE_BYTES", 1 << 20)
    bomb = zstandard.compress(b"\0" * (64 << 20))
    text = written(tmp_path, record(headers=((b"content-encoding", b"zstd"),), body=capture(bomb)))
    assert len(text) < (1 << 20) + 10_000
    assert b"decoded body cut" in text


def test_truncation_and_multipart_leave_a_note(tmp_path: Path) -> None:
    """Nobody should look for a bug in what is only a cut."""
    cut = Capture()
    cut.add(b"x" * 60, 100)
    cut.add(b"y" * 60, 100)
    cut.add(b"z" * 60, 100)
    text = written(tmp_path, record(body=cut))
    assert b"x" * 60 + b"y" * 40 + b"\n[truncated: 80 of 180 bytes not captured]\n" in text
    assert b"z" not in text.partition(b"REQUEST BODY")[2]
    multipart, form = Capture(seen_bytes=4711), ((b"content-type", b"multipart/form-data; boundary=x"),)
    assert b"[multipart body of 4711 bytes not captured]" in written(tmp_path, record(headers=form, body=multipart))


@pytest.mark.parametrize("chunk", [1000, WINDOW_BYTES, 10 * WINDOW_BYTES])
def test_secrets_across_windows_are_masked(tmp_path: Path, chunk: int) -> None:
    """Bodies are searched in pieces, keys may lie across their borders."""
    key = "sk-CANARYCANARYCANARYCANARY"
    member = f'{{"a":"{key}","pad":"{"p" * 301}","team":"my-team-CANARY"}},'.encode()
    body = member * 3000
    pieces = capture(*(body[start : start + chunk] for start in range(0, len(body), chunk)))
    text = written(tmp_path, record(body=pieces), KnownSecrets(["my-team-CANARY"]))
    assert b"CANARY" not in text
    assert text.count(b'"sk-C...NARY"') == 3000
    assert text.count(b'"my-t...NARY"') == 3000


def test_a_body_without_any_border_is_written_whole(tmp_path: Path) -> None:
    """Base64 of a picture: megabytes without a comma."""
    body = b"A" * (5 * WINDOW_BYTES + 7)
    assert body + b"\n" in written(tmp_path, record(body=capture(body)))


def test_headers_cannot_forge_lines(tmp_path: Path) -> None:
    """Parsers refuse line ends; this file does not rely on them."""
    text = written(tmp_path, record(headers=((b"x\n=== RESPONSE ===", b"a\r\n=== RESPONSE ==="),)))
    assert text.count(b"\n=== RESPONSE ===") == 1


def test_only_the_newest_error_logs_are_kept(tmp_path: Path) -> None:
    """Zero keeps all; other files are none of our business."""
    for age in range(6):
        path = tmp_path / f"error-{age}.log"
        path.write_bytes(b"")
        os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / "v1-x.log").write_bytes(b"")
    prune_errors(tmp_path, 0)
    assert len(list(tmp_path.iterdir())) == 7
    prune_errors(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["error-4.log", "error-5.log", "v1-x.log"]
