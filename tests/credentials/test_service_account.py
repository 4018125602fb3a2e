"""Tokens of service accounts: what is signed, what is believed."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pybase64
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cpa.credentials.service_account import (
    GOOGLE_TOKENS,
    SCOPE,
    ServiceAccount,
    Token,
    TokenError,
    parse_service_account,
    renew_at,
    token_of,
    token_request,
)
from cpa.types import JsonObject

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEY = generate_private_key(65537, 2048)


def pem(key: Any) -> str:
    """PEM text of a key."""
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data.decode()


def account(**changes: Any) -> ServiceAccount:
    """Google's JSON, read."""
    members = {"client_email": "robot@p.test", "private_key": pem(KEY), "private_key_id": "kid", "project_id": "p"}
    found = parse_service_account({**members, **changes})
    assert isinstance(found, ServiceAccount), found
    return found


def unpacked(part: str) -> Any:
    """A part of a JSON web token."""
    return json.loads(pybase64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_the_assertion_is_what_the_issuer_wants() -> None:
    """RFC 7523; the signature is the key's."""
    form = parse_qs(token_request(account(), now=NOW).decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    head, claims, signature = form["assertion"][0].split(".")
    assert unpacked(head) == {"alg": "RS256", "typ": "JWT", "kid": "kid"}
    assert unpacked(claims) == {
        "iss": "robot@p.test",
        "scope": SCOPE,
        "aud": GOOGLE_TOKENS,
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
    }
    raw = pybase64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    KEY.public_key().verify(raw, f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
    assert "PRIVATE" not in repr(account())


@pytest.mark.parametrize(
    "key", ["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", pem(ec_key(SECP256R1()))]
)
def test_a_key_that_is_none_says_so(key: str) -> None:
    """Without showing it; trying again is pointless."""
    with pytest.raises(TokenError, match="private_key") as caught:
        token_request(account(private_key=key), now=NOW)
    assert caught.value.http_status == 401
    assert "AAAA" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "good"),
    [
        ("https://oauth2.googleapis.com/token", True),
        ("https://issuer.test:8443/token", True),
        ("http://127.0.0.1:1/token", True),
        ("http://[::1]:1/token", True),
        ("http://localhost/token", True),
        ("http://issuer.test/token", False),
        ("http://127.0.0.1.evil.test/token", False),
        ("ftp://issuer.test", False),
        ("https://", False),
        ("https://user@issuer.test/", False),
        ("https://issuer.test:99999/", False),
        ("https://issuer.test/a b", False),
        ("https://issuer.test/\r\nX: y", False),
        ("token", False),
    ],
)
def test_assertions_go_to_safe_places_only(uri: str, good: bool) -> None:
    """https, or this machine."""
    members: JsonObject = {"client_email": "a@b.test", "private_key": "PRIVATE KEY", "token_uri": uri}
    assert isinstance(parse_service_account(members), ServiceAccount) is good


def test_the_account_may_be_text() -> None:
    """Some programs keep the vendor's file as it was."""
    text = json.dumps({"client_email": "a@b.test", "private_key": "PRIVATE KEY"})
    assert isinstance(parse_service_account(text), ServiceAccount)
    assert not isinstance(parse_service_account("{"), ServiceAccount)
    assert not isinstance(parse_service_account("[" * 100_000), ServiceAccount)


@pytest.mark.parametrize(
    ("life", "seconds"),
    [(3600, 3600), (1.5e3, 1500), (None, 3600), ("3600", 3600), (True, 3600), (-5, 60), (0, 60), (10**30, 86400)],
)
def test_a_tokens_life_is_believed_within_bounds(life: Any, seconds: float) -> None:
    """One that never ends, or is over, would be asked for never or always."""
    token = token_of(200, json.dumps({"access_token": "ya29.x", "expires_in": life}).encode(), now=NOW)
    assert (token.value, token.expires_unix) == ("ya29.x", NOW.timestamp() + seconds)
    assert "ya29" not in repr(token)


@pytest.mark.parametrize(
    ("status", "body", "http_status", "text"),
    [
        (400, b'{"error":"invalid_grant","error_description":"secret"}', 401, "invalid_grant"),
        (401, b"{}", 401, "HTTP status 401"),
        (403, b'{"error":{"code":403}}', 503, "HTTP status 403"),
        (500, b"<html>", 503, "HTTP status 500"),
        (302, b"", 503, "HTTP status 302"),
        (400, b'{"error":"a b\\nc"}', 503, "HTTP status 400"),
        (200, b"", 503, "without a token"),
        (200, b"[1]", 503, "without a token"),
        (200, b'{"access_token":""}', 503, "without a token"),
        (200, b'{"access_token":"a\\r\\nX: y"}', 503, "without a token"),
        (200, b'{"access_token":"%b"}' % (b"x" * 20_000), 503, "without a token"),
        (200, b"[" * 100_000, 503, "without a token"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_answers_without_token_are_errors(status: int, body: bytes, http_status: int, text: str) -> None:
    """401 when the account itself is refused: then it is not asked again before it changes."""
    with pytest.raises(TokenError, match=text) as caught:
        token_of(status, body, now=NOW)
    assert caught.value.http_status == http_status
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("life_s", "after_s"), [(3600, 3300), (600, 300), (400, 200), (60, 30)])
def test_tokens_are_replaced_before_their_end(life_s: int, after_s: int) -> None:
    """Five minutes, but not before half their life."""
    token = Token(value="x", expires_unix=NOW.timestamp() + life_s)
    assert renew_at(token, now=NOW) == NOW + timedelta(seconds=after_s)
