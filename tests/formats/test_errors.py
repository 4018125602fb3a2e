"""Errors read from any protocol and written in any other; redaction."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import MalformedRequest, NoCredential, UnknownModel, UpstreamProtocolError, UpstreamStatusError
from cpa.formats.errors import (
    from_exception,
    read_error,
    redact,
    redact_json,
    render_error,
    render_upstream_error,
    status_text,
)
from cpa.formats.names import SAME_WIRE, Format

OPENAI_ROWS = [
    (400, 400, "invalid_request_error", None),
    (401, 401, "authentication_error", "invalid_api_key"),
    (402, 429, "insufficient_quota", "insufficient_quota"),
    (403, 403, "permission_error", "permission_denied"),
    (404, 404, "invalid_request_error", "not_found"),
    (408, 408, "timeout_error", "request_timeout"),
    (409, 409, "invalid_request_error", "conflict"),
    (413, 413, "invalid_request_error", "request_too_large"),
    (422, 422, "invalid_request_error", None),
    (429, 429, "rate_limit_error", "rate_limit_exceeded"),
    (500, 500, "server_error", "internal_server_error"),
    (501, 501, "invalid_request_error", "not_implemented"),
    (502, 502, "server_error", "upstream_error"),
    (503, 503, "server_error", "service_unavailable"),
    (504, 504, "server_error", "timeout"),
    (520, 520, "server_error", "internal_server_error"),
    (529, 503, "server_error", "overloaded"),
    (302, 502, "server_error", "upstream_error"),
]
CLAUDE_ROWS = [
    (400, 400, "invalid_request_error"),
    (401, 401, "authentication_error"),
    (402, 402, "billing_error"),
    (403, 403, "permission_error"),
    (404, 404, "not_found_error"),
    (408, 408, "timeout_error"),
    (409, 409, "conflict_error"),
    (413, 413, "request_too_large"),
    (422, 400, "invalid_request_error"),
    (429, 429, "rate_limit_error"),
    (500, 500, "api_error"),
    (501, 501, "invalid_request_error"),
    (502, 502, "api_error"),
    (503, 529, "overloaded_error"),
    (504, 504, "timeout_error"),
    (529, 529, "overloaded_error"),
]
GOOGLE_ROWS = [
    (400, 400, "INVALID_ARGUMENT"),
    (401, 401, "UNAUTHENTICATED"),
    (402, 429, "RESOURCE_EXHAUSTED"),
    (403, 403, "PERMISSION_DENIED"),
    (404, 404, "NOT_FOUND"),
    (408, 408, "DEADLINE_EXCEEDED"),
    (409, 409, "ABORTED"),
    (413, 413, "INVALID_ARGUMENT"),
    (422, 400, "INVALID_ARGUMENT"),
    (429, 429, "RESOURCE_EXHAUSTED"),
    (499, 499, "CANCELLED"),
    (500, 500, "INTERNAL"),
    (501, 501, "UNIMPLEMENTED"),
    (502, 502, "UNAVAILABLE"),
    (503, 503, "UNAVAILABLE"),
    (504, 504, "DEADLINE_EXCEEDED"),
    (529, 503, "UNAVAILABLE"),
]


@pytest.mark.parametrize(("given_status", "status", "kind", "code"), OPENAI_ROWS)
def test_openai_shape(given_status: int, status: int, kind: str, code: str | None) -> None:
    expected = {"message": "m", "type": kind} | ({"code": code} if code else {})
    for fmt in (Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX):
        found, body = render_error(fmt, status=given_status, message="m")
        assert (found, json.loads(body)) == (status, {"error": expected})


@pytest.mark.parametrize(("given_status", "status", "kind"), CLAUDE_ROWS)
def test_claude_shape(given_status: int, status: int, kind: str) -> None:
    found, body = render_error(Format.CLAUDE, status=given_status, message="m")
    assert (found, json.loads(body)) == (status, {"type": "error", "error": {"type": kind, "message": "m"}})


@pytest.mark.parametrize(("given_status", "status", "name"), GOOGLE_ROWS)
def test_google_shape(given_status: int, status: int, name: str) -> None:
    found, body = render_error(Format.GEMINI, status=given_status, message="m")
    assert (found, json.loads(body)) == (status, {"error": {"code": status, "message": "m", "status": name}})


def test_own_names_win_where_the_protocol_knows_them() -> None:
    error = from_exception(UnknownModel("gpt-9"))
    _, body = render_error(
        Format.OPENAI, status=error.status, message=error.message, code=error.code, param=error.param
    )
    assert json.loads(body)["error"] == {
        "message": "unknown provider for model gpt-9",
        "type": "invalid_request_error",
        "code": "model_not_found",
        "param": "model",
    }
    _, body = render_error(Format.OPENAI, status=400, message="m", type="not_a_type_of_ours")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    status, body = render_error(Format.OPENAI, status=529, message="m", code="overloaded_error")
    assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")


def test_claude_agents_are_told_when_to_compact() -> None:
    _, body = render_error(Format.CLAUDE, status=400, message="too many tokens", code="context_length_exceeded")
    assert json.loads(body)["error"]["message"] == "prompt is too long: too many tokens"


def test_google_clients_learn_when_to_retry() -> None:
    _, body = render_error(Format.GEMINI, status=429, message="m", retry_after_s=17)
    assert json.loads(body)["error"]["details"] == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}
    ]


def test_errors_of_ours_have_a_neutral_form() -> None:
    assert from_exception(NoCredential("cooling", retry_after_s=3.5)).retry_after_s == 3.5
    assert from_exception(MalformedRequest("bad", param="x")).param == "x"
    assert from_exception(UpstreamProtocolError("cut")).status == 502
    exc = UpstreamStatusError(
        status=429, headers=((b"retry-after", b"7"),), body=b'{"detail":"slow"}', provider_format=Format.CODEX
    )
    found = from_exception(exc)
    assert (found.status, found.message, found.retry_after_s) == (429, "slow", 7)


@pytest.mark.parametrize(
    ("body", "message", "code", "kind"),
    [
        (b'{"error":{"message":"m","type":"t","code":"c","param":"p"}}', "m", "c", "t"),
        (b'{"type":"error","error":{"type":"t","message":"m"},"request_id":"r"}', "m", "", "t"),
        (b'{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}', "m", "", "RESOURCE_EXHAUSTED"),
        (b'[{"error":{"code":429,"message":"m","status":"S"}}]', "m", "", "S"),
        (b'{"error":"m"}', "m", "", ""),
        (b'{"message":"m","code":"c","type":"t"}', "m", "c", "t"),
        (b'{"detail":"m"}', "m", "", ""),
        (b'{"detail":{"message":"m"}}', "m", "", ""),
        (b'{"detail":[{"loc":["body"]}]}', '[{"loc":["body"]}]', "", ""),
        (b'{"error":{"message":"{\\"error\\":{\\"message\\":\\"m\\",\\"code\\":\\"c\\"}}"}}', "m", "c", ""),
        (b'{"error":{"message":"{not json"}}', "{not json", "", ""),
        (b"plain text", "plain text", "", ""),
        (b"<html><body>gateway</body></html>", "Too Many Requests", "", ""),
        (b"", "Too Many Requests", "", ""),
        (b"{}", "Too Many Requests", "", ""),
        (b"[]", "Too Many Requests", "", ""),
        (b"5", "Too Many Requests", "", ""),
        (b'"m"', "m", "", ""),
        (b"\xff\xfe", "\ufffd\ufffd", "", ""),
    ],
)
def test_every_shape_is_read(body: bytes, message: str, code: str, kind: str) -> None:
    error = read_error(429, (), body)
    assert (error.status, error.message, error.code, error.type) == (429, message, code, kind)


@settings(max_examples=100, deadline=None)
@given(st.integers(100, 700), st.binary(max_size=60) | st.text('{}[]":,errormsgcode1', max_size=40).map(str.encode))
def test_any_body_becomes_an_error_in_any_protocol(status: int, body: bytes) -> None:
    for client in (Format.OPENAI, Format.CLAUDE, Format.GEMINI):
        for provider in Format:
            reply = render_upstream_error(client, provider, status, (), body)
            assert 400 <= reply.status <= 599
            assert any(name == b"content-type" for name, _ in reply.headers)
            json.loads(reply.body.decode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("client", "provider", "body"),
    [
        (Format.OPENAI, Format.OPENAI, b'{"error": {"message": "keep\\u0020 as it is", "x": 1.0}}'),
        (Format.OPENAI_RESPONSE, Format.CODEX, b'{"detail":"Unsupported"}'),
        (Format.CLAUDE, Format.CLAUDE, b'{"type":"error","error":{"type":"new_error","message":"m"},"request_id":"r"}'),
        (Format.GEMINI, Format.GEMINI, b'[{"error":{"code":418,"message":"m"}}\n]'),
    ],
)
def test_errors_of_the_same_protocol_pass_byte_for_byte(client: Format, provider: Format, body: bytes) -> None:
    headers = ((b"content-type", b"application/json; charset=UTF-8"), (b"retry-after", b"5"), (b"x-other", b"1"))
    reply = render_upstream_error(client, provider, 529, headers, body)
    assert reply.status == 529
    assert reply.body is body
    assert reply.headers == headers[:2]


@pytest.mark.parametrize(
    ("client", "provider", "body", "expected"),
    [
        (
            Format.GEMINI,
            Format.OPENAI,
            b'{"error":{"message":"m","code":"x"}}',
            {"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}},
        ),
        (
            Format.CLAUDE,
            Format.CLAUDE,
            b'{"message":"m"}',
            {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
        ),
        (
            Format.OPENAI,
            Format.CLAUDE,
            b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}',
            {"error": {"message": "m", "type": "server_error", "code": "overloaded"}},
        ),
        (
            Format.OPENAI,
            Format.OPENAI,
            b"<html>",
            {"error": {"message": "Overloaded", "type": "server_error", "code": "overloaded"}},
        ),
    ],
)
def test_errors_of_another_protocol_are_written_anew(
    client: Format, provider: Format, body: bytes, expected: dict[str, object]
) -> None:
    reply = render_upstream_error(client, provider, 529, ((b"content-type", b"text/html"),), body)
    assert json.loads(reply.body) == expected
    assert reply.headers == ((b"content-type", b"application/json"),)


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'{"error":{"details":[{"x":1},{"retryDelay":"16.2s"}]}}', (), b"17"),
        (b'{"error":{"resets_in_seconds":90}}', (), b"90"),
        (b"{}", ((b"retry-after", b"3"),), b"3"),
        (b"{}", ((b"retry-after", b"Wed, 21 Oct 2026 07:28:00 GMT"),), b"Wed, 21 Oct 2026 07:28:00 GMT"),
        (b'{"error":{"details":[{"retryDelay":"soon"}]}}', (), b"1"),
        (b"{}", ((b"retry-after-ms", b"300"),), None),
    ],
)
def test_retry_hints_reach_the_client(
    body: bytes, headers: tuple[tuple[bytes, bytes], ...], expected: bytes | None
) -> None:
    """Codex gives up at once on a 429 without one."""
    for client in (Format.OPENAI, Format.CLAUDE):
        reply = render_upstream_error(client, Format.GEMINI, 429, headers, body)
        assert dict(reply.headers).get(b"retry-after") == expected


@pytest.mark.parametrize(
    ("client", "provider", "status", "expected"),
    [
        (Format.OPENAI_RESPONSE, Format.CODEX, 429, b"1"),
        (Format.CLAUDE, Format.CLAUDE, 429, b"1"),
        (Format.OPENAI, Format.CLAUDE, 402, b"1"),
        (Format.OPENAI, Format.OPENAI, 503, None),
        (Format.OPENAI, Format.CLAUDE, 529, None),
    ],
)
def test_each_429_says_when_to_try_again(client: Format, provider: Format, status: int, expected: bytes | None) -> None:
    """Also those that pass as they are, and those that are 429 in the client's protocol only (clients.md 2)."""
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"m"}}'
    reply = render_upstream_error(client, provider, status, (), body)
    assert [value for name, value in reply.headers if name == b"retry-after"] == [expected] * (expected is not None)
    assert (reply.body is body) == ((client, provider) in SAME_WIRE)


def test_a_redirect_is_a_bad_gateway() -> None:
    assert render_upstream_error(Format.OPENAI, Format.OPENAI, 302, (), b"{}").status == 502


def test_status_texts() -> None:
    assert [status_text(status) for status in (404, 529, 599)] == ["Not Found", "Overloaded", "upstream error 599"]


# --- redaction ---


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Incorrect API key provided: sk-proj-abcDEF123456_7-x.", "abcDEF123456"),
        ("key sk-ant-api03-AAAABBBB", "AAAABBBB"),
        ("Authorization: Bearer eyJhbGciOi.abc.def", "eyJhbGciOi"),
        ("bearer abc.def~ghi+/=", "abc.def"),
        ("API key AIzaSyA1234567890abcdefg not valid", "AIzaSyA12345"),
        ("https://user:hunter2@host/path", "hunter2"),
        ("GET https://host/v1?alt=sse&key=Canary1234&x=1", "Canary1234"),
        ("https://host/?api_key=Canary1234", "Canary1234"),
        ("x-api-key: Canary1234", "Canary1234"),
        ('{"api_key":"Canary1234"}', "Canary1234"),
        ("x-goog-api-key='Canary1234'", "Canary1234"),
        ("account jane.doe+test@mail.example.com is over quota", "jane.doe"),
        ("token ya29.a0AfH6SMBx", "a0AfH6"),
        ("ghp_abcdefghijklmnop", "abcdefgh"),
    ],
)
def test_secrets_are_blanked(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "[redacted]" in redact(text)
    assert redact(redact(text)) == redact(text)
    for fmt in Format:
        assert secret.encode() not in render_error(fmt, status=400, message=text, code=secret and text, param=text)[1]


@pytest.mark.parametrize(
    "text",
    [
        "unknown provider for model gpt-5.2-codex",
        "max_tokens: 128000 > 64000, which is the maximum for this model",
        "monkey=banana is not a key",
        "task-runner failed at 10:30",
        "see https://example.org/docs?page=2#errors",
        "tokens: 12 of 10 used",
    ],
)
def test_ordinary_texts_stay(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"message":"bad key sk-abcDEF123456","x":[1.5]}}', {"message": "bad key [redacted]", "x": [1.5]}),
        (b'{"error":{"message":"api_key: \\"abcdef\\""}}', {"message": 'api_key: "[redacted]"'}),
        (b'{"error":{"message":"m","api_key":"hunter2"}}', {"message": "m", "api_key": "[redacted]"}),
        (b'{"error":{"message":"m","url":"https://u:hunter2@h/"}}', {"message": "m", "url": "https://[redacted]@h/"}),
        (b'{"error":{"message":"m","a":[{"b":"Bearer\\u0020hunter22"}]}}', None),
    ],
)
def test_errors_of_the_same_protocol_pass_without_secrets(body: bytes, expected: dict[str, object] | None) -> None:
    """translation.md 5.1: relayed as received, minus redaction. JSON stays JSON."""
    reply = render_upstream_error(Format.OPENAI, Format.OPENAI, 400, (), body)
    assert b"hunter2" not in reply.body
    found = json.loads(reply.body)["error"]
    assert expected is None or found == expected
    assert render_upstream_error(Format.OPENAI, Format.OPENAI, 400, (), reply.body).body is reply.body


def test_redacting_texts_that_are_no_json() -> None:
    assert redact_json(b"\xff no secret") == b"\xff no secret"
    assert redact_json(b"\xff sk-abcDEF123456") == b"\xff [redacted]"
    assert (
        redact_json(b'{"max_tokens":1,"prompt_token":"a","n":1e400}')
        == b'{"max_tokens":1,"prompt_token":"a","n":1e400}'
    )


def test_deep_bodies_are_redacted_too() -> None:
    deep = b'{"error":{"message":"m","x":' + b"[" * 900 + b"]" * 900 + b"}}"
    assert redact_json(deep) is deep
    assert b"abcDEF" not in redact_json(deep.replace(b"[]", b'["sk-abcDEF123456"]'))


def test_texts_are_cut() -> None:
    assert redact("a " * 2000) == ("a " * 1024)[:2047] + "…"
    assert len(redact("x" * 10_000_000)) == 2048


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=100))
def test_any_text_can_be_redacted(text: str) -> None:
    assert len(redact(text)) <= 2048
