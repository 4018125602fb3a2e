"""Google service accounts: a signed assertion for a short-lived token (RFC 7523). Pure, no I/O.

The signature needs the library ``cryptography``; without it such files are refused with a clear text, and everything
else works.
"""

import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode, urlsplit

import attrs
import msgspec
import pybase64

from cpa.credentials.members import Problem
from cpa.errors import CredentialError
from cpa.types import JsonValue

GOOGLE_TOKENS: Final = "https://oauth2.googleapis.com/token"
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEFAULT_LOCATION: Final = "us-central1"
ASSERTION_S: Final = 3600
"""The longest that the endpoint accepts."""
MAX_LIFE_S: Final = 24 * 3600.0
"""Tokens live for an hour; an endpoint that says much more is not believed."""
MIN_LIFE_S: Final = 60.0
LEAD_S: Final = 300.0
"""How long before its end a token is replaced: requests that run on with it take minutes."""
MAX_TOKEN_CHARS: Final = 16 << 10
MAX_KEY_CHARS: Final = 32 << 10


class TokenError(CredentialError):
    """A token cannot be had; `http_status` 401 when the issuer refuses the account itself."""

    http_status = 503
    code = "token_refused"


@attrs.frozen(kw_only=True)
class ServiceAccount:
    """Who signs. *token_uri*: https, or http on loopback."""

    email: str
    private_key: str = attrs.field(repr=False)
    key_id: str = ""
    project: str = ""
    token_uri: str = GOOGLE_TOKENS


@attrs.frozen(kw_only=True)
class Token:
    """What the issuer gave. *expires_unix*: wall clock."""

    value: str = attrs.field(repr=False)
    expires_unix: float


def parse_service_account(value: JsonValue) -> ServiceAccount | Problem:
    """The account in *value*, Google's JSON as an object or as its text; or what is wrong with it."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (ValueError, RecursionError):
            return Problem("service_account", "expected Google's JSON, got a text that is none")
    if not isinstance(value, dict):
        return Problem("service_account", "expected Google's JSON object")
    email, key = _text(value, "client_email"), _text(value, "private_key")
    if "@" not in email or "/" in email or not email.isprintable():
        return Problem("service_account.client_email", "expected an address")
    if "PRIVATE KEY" not in key or len(key) > MAX_KEY_CHARS:
        return Problem("service_account.private_key", "expected a private key in PEM form")
    uri = _text(value, "token_uri") or GOOGLE_TOKENS
    if not _trusted(uri):
        return Problem("service_account.token_uri", "expected an https URL")
    return ServiceAccount(
        email=email,
        private_key=key,
        key_id=_text(value, "private_key_id"),
        project=_text(value, "project_id"),
        token_uri=uri,
    )


def _text(value: Mapping[str, JsonValue], name: str) -> str:
    found = value.get(name)
    return found.strip() if isinstance(found, str) else ""


def _trusted(uri: str) -> bool:
    """Whether an assertion may be sent there: it opens the account to whoever sees it."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or not uri.isprintable() or " " in uri:
        return False
    if parts.scheme == "https":
        return True
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    return parts.scheme == "http" and loopback


def token_request(account: ServiceAccount, *, now: datetime) -> bytes:
    """The form to be sent to the account's `token_uri`. Takes milliseconds of computing: call it in a thread.

    Raises: TokenError when the key is none, or ``cryptography`` is not installed.
    """
    header = {"alg": "RS256", "typ": "JWT"} | ({"kid": account.key_id} if account.key_id else {})
    claims = {
        "iss": account.email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": int(now.timestamp()),
        "exp": int((now + timedelta(seconds=ASSERTION_S)).timestamp()),
    }
    signed = b".".join(_base64url(msgspec.json.encode(part)) for part in (header, claims))
    assertion = signed + b"." + _base64url(_signature(account.private_key, signed))
    return urlencode({"grant_type": GRANT, "assertion": assertion.decode()}).encode()


def token_of(status: int, body: bytes, *, now: datetime) -> Token:
    """The token in an answer of the endpoint. Raises: TokenError; its text never shows a token."""
    try:
        answer: JsonValue = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        answer = None
    members = answer if isinstance(answer, dict) else {}
    if status != 200:
        reason = _text(members, "error")
        reason = reason if reason.isidentifier() and len(reason) <= 64 else f"HTTP status {status}"
        refused = status == 401 or reason in ("invalid_grant", "invalid_client", "unauthorized_client")
        raise TokenError(f"the token endpoint refuses: {reason}", http_status=401 if refused else None)
    token, life = _text(members, "access_token"), members.get("expires_in")
    if not token or len(token) > MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenError("the token endpoint answered without a token")
    seconds = float(life) if isinstance(life, int | float) and not isinstance(life, bool) else float(ASSERTION_S)
    seconds = min(max(seconds, MIN_LIFE_S), MAX_LIFE_S)
    return Token(value=token, expires_unix=now.timestamp() + seconds)


def renew_at(token: Token, *, now: datetime) -> datetime:
    """When *token* shall be replaced: before its end, but not sooner than after half its life."""
    left_s = token.expires_unix - now.timestamp()
    return datetime.fromtimestamp(token.expires_unix - min(LEAD_S, left_s / 2), UTC)


def _base64url(data: bytes) -> bytes:
    return pybase64.urlsafe_b64encode(data).rstrip(b"=")


def _signature(pem: str, data: bytes) -> bytes:
    """RS256. Raises: TokenError."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as exc:
        raise TokenError(
            "service_account needs the Python package cryptography, which is not installed", http_status=401
        ) from exc
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise TokenError("service_account.private_key is no private key in PEM form", http_status=401) from exc
    if not isinstance(key, RSAPrivateKey):
        raise TokenError("service_account.private_key is no RSA key", http_status=401)
    return key.sign(data, PKCS1v15(), SHA256())
