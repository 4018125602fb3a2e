"""Nothing that looks like a secret survives; everything else does."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.formats.redaction import mask, mask_header, mask_query, mask_url, redact_body, redact_text

SECRET = "Zq8hunter2Zq8hunter2x"
KEY = "sk-ant-api03-CANARYCANARYCANARY"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", ""),
        ("a", "..."),
        ("ab", "..."),
        ("abc", "a...c"),
        ("abcd", "a...d"),
        ("abcde", "ab...de"),
        ("abcdefgh", "ab...gh"),
        ("abcdefghi", "abcd...fghi"),
        ("abcdefghijklmnop", "abcd...mnop"),
    ],
)
def test_mask_follows_the_contract(value: str, shown: str) -> None:
    """The rule of the specification, at each of its borders."""
    assert mask(value) == shown


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ""),
        ("alt=sse", "alt=sse"),
        (f"key={SECRET}&alt=sse", "key=Zq8h...er2x&alt=sse"),
        (f"k%65y={SECRET}", "k%65y=Zq8h...er2x"),
        (f"auth_token={SECRET}", "auth_token=Zq8h...er2x"),
        (f"my-API-KEY={SECRET}", "my-API-KEY=Zq8h...er2x"),
        (f"client_secret={SECRET}&&x", "client_secret=Zq8h...er2x&&x"),
        (f"a=1;key={SECRET}", "a=1;key=Zq8h...er2x"),
        ("key", "key"),
        ("key=", "key="),
        ("monkey=banana", "monkey=banana"),
        (f"x={KEY}", "x=sk-a...NARY"),
    ],
)
def test_query_values_are_masked_by_name(query: str, shown: str) -> None:
    """Names decide after percent-decoding; order and encoding of the rest stay."""
    assert mask_query(query) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", f"Bearer {SECRET}", "Bearer Zq8h...er2x"),
        ("authorization", SECRET, "Zq8h...er2x"),
        ("Proxy-Authorization", f"Basic {SECRET}", "Basic Zq8h...er2x"),
        ("x-api-key", SECRET, "Zq8h...er2x"),
        ("x-goog-api-key", SECRET, "Zq8h...er2x"),
        ("X-Management-Key", SECRET, "Zq8h...er2x"),
        ("x-auth-token", SECRET, "Zq8h...er2x"),
        ("Cookie", f"a={SECRET}; b={SECRET}", "a=Zq8h...er2x; b=Zq8h...er2x"),
        ("Set-Cookie", f"a={SECRET}; Path=/; HttpOnly", "a=Zq8h...er2x; Path=/; HttpOnly"),
        ("referer", f"https://u:{SECRET}@h/p?key={SECRET}", "https://h/p?key=Zq8h...er2x"),
        ("sec-websocket-protocol", f"realtime, openai-insecure-api-key.{SECRET}", None),
        ("x-custom", f"Bearer {SECRET}", "Bearer Zq8h...er2x"),
        ("content-type", "application/json", "application/json"),
        ("x-ratelimit-remaining-tokens", "39000", "39000"),
        ("user-agent", "OpenAI/Python 2.0", "OpenAI/Python 2.0"),
    ],
)
def test_header_values_are_masked_by_name(name: str, value: str, shown: str | None) -> None:
    """Scheme and cookie names stay readable, secrets do not."""
    masked = mask_header(name, value)
    assert SECRET not in masked
    if shown is not None:
        assert masked == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("socks5://u:p@h:1080", "socks5://h:1080"),
        (f"http://u:p/{SECRET}@h/x", "http://h/x"),
        (f"http://u:{SECRET}@x@h", "http://h"),
        ("https://h:8080/a@b", "https://h:8080/a@b"),
        (
            f"https://h/a?x=1&key={SECRET}#access_token={SECRET}",
            "https://h/a?x=1&key=Zq8h...er2x#access_token=Zq8h...er2x",
        ),
        ("no url at all", "no url at all"),
        ("://", "://"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_urls_lose_user_info_and_query_secrets(url: str, shown: str) -> None:
    """Also malformed ones, which is what error messages quote."""
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        f"authorization: Bearer {SECRET}",
        f"AUTHORIZATION={SECRET}",
        f"Proxy-Authorization: Digest {SECRET}",
        f"('authorization', b'Bearer {SECRET}')",
        f"(b'x-api-key', b'{SECRET}')",
        f'{{"api_key": "{SECRET}"}}',
        f'{{\\"api_key\\": \\"{SECRET}\\"}}',
        f'{{"key":"{SECRET}"}}',
        f"POST https://h/v1?key={SECRET}&a=1",
        f"proxy http://user:{SECRET}@h:8080 refused",
        f"proxy http://user:a/{SECRET}@h refused",
        f"cookie: session={SECRET}; other={SECRET}",
        f"password={SECRET}",
        f"client_secret: '{SECRET}'",
        f"access_token={SECRET}",
        f"Api-Key {SECRET}".replace(" ", "="),
        f"openai-insecure-api-key.{SECRET}",
        f"bearer {SECRET}",
        "Basic dXNlcjpwYXNzd29yZA==",
        "AIzaSyA-CANARYCANARYCANARYCANARYCANARY",
        "ya29.CANARYCANARYCANARY",
        "gsk_CANARYCANARYCANARYCANARY",
        "xai-CANARYCANARYCANARYCANARY",
        "github_pat_CANARYCANARYCANARY",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJDQU5BUlkifQ.CANARYCANARY",
        "-----BEGIN RSA PRIVATE KEY-----\nCANARYCANARY\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nCANARYCANARY cut",
    ],
)
def test_text_secrets_are_masked(text: str) -> None:
    """Every shape in which a secret reaches an error message."""
    shown = redact_text(text)
    for secret in (SECRET, KEY, "CANARYCANARY", "dXNlcjpwYXNzd29yZA"):
        assert secret not in shown
    assert redact_text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max_tokens=4096 token_count=3",
        "remote-management.secret-key: expected a string, got 5",
        "task-force-of-something-long",
        "connect to https://host:8080/path@x failed",
        "basic usage of things",
        "unknown provider for model gpt-5",
        "donkey: 5",
        "日本語のテキスト、鍵なし",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    """Masking that hits ordinary words makes logs useless."""
    assert redact_text(text) == text


def test_bodies_keep_words_but_not_keys() -> None:
    """Log probabilities are full of members named token."""
    body = b'{"token":"Hello","max_tokens":5,"note":"my api_key = \\u00e9","api_key":"%s","x":"%s"}' % (
        SECRET.encode(),
        KEY.encode(),
    )
    expected = body.replace(SECRET.encode(), b"Zq8h...er2x").replace(KEY.encode(), b"sk-a...NARY")
    assert redact_body(body) == expected


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_bytes_without_letters_pass_a_body_unharmed(data: bytes) -> None:
    """Bodies need not be text in any encoding; every pattern needs a letter or ``1//0``."""
    body = bytes(byte for byte in data if not chr(byte).isalpha() or byte >= 128).replace(b"/", b"")
    assert redact_body(body) == body


PIECES = [
    "key",
    "=",
    ":",
    " ",
    "bearer ",
    "sk-",
    "authorization",
    "cookie",
    "token",
    '"',
    "'",
    ",",
    "://",
    "@",
    "a",
    "B2",
]
PIECES += ["...", "***", "\n", "&", "?", "password", "-----BEGIN PRIVATE KEY-----", "eyJ", "\\", "é", SECRET]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@settings(max_examples=400)
def test_redaction_is_idempotent_and_total(text: str) -> None:
    """Texts pass several layers, and strangers write them."""
    once = redact_text(text)
    assert redact_text(once) == once
    for function in (mask_url, mask_query):
        assert isinstance(function(text), str)
    assert isinstance(mask_header(text, text), str)


@pytest.mark.parametrize(
    "piece",
    [
        "-eyJ",
        "://a:b",
        "key=",
        "sk-",
        "authorization ",
        "bearer ",
        "cookie:",
        "-----BEGIN PRIVATE KEY-----",
        '\\"',
        "token ",
    ],
)
def test_time_is_linear(piece: str) -> None:
    """Hostile repeats of 200 KB: what looks at each of them from each other one would take minutes, not moments."""
    started = time.process_time()
    redact_text(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 10
