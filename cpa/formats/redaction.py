"""Taking secrets out of texts: masking by name (headers, queries) and by shape (anything else).

Pure functions, shared by logs, request logs and error bodies. Two habits keep them cheap and safe on hostile input:
texts without any tell-tale piece are returned after a few substring searches, and no pattern can rescan what it
already looked at (bounded or always-consuming repeats), so the time is linear in the length of the text.

The masking rule is the contract's: more than 8 characters → first 4, ``...``, last 4; more than 4 → 2 and 2; more
than 2 → 1 and 1. Shorter secrets show nothing.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import unquote_plus

HIDDEN = "***"
"""Stands for values of which not even the ends are shown: passwords, private keys."""

MIN_HIDDEN_CHARS = 6
"""Shorter secrets would be found everywhere."""
MAX_PASSES = 8
"""Of all patterns over one text, should one pass make work for the next."""

_SECRET_QUERY_PARTS = ("api-key", "apikey", "api_key", "token", "secret", "password", "passwd")
_SECRET_HEADER_PARTS = ("api-key", "apikey", "api_key", "token", "secret", "password", "credential")


def mask(value: str) -> str:
    """Show only the ends of *value*; an empty value stays empty."""
    size = len(value)
    if size > 8:
        return f"{value[:4]}...{value[-4:]}"
    if size > 4:
        return f"{value[:2]}...{value[-2:]}"
    if size > 2:
        return f"{value[:1]}...{value[-1:]}"
    return "..." if value else ""


@lru_cache(maxsize=1024)
def is_secret_query_name(name: str) -> bool:
    """Whether values of the query parameter *name* (percent-decoded) are secret."""
    low = name.lower()
    return low == "key" or any(part in low for part in _SECRET_QUERY_PARTS)


@lru_cache(maxsize=1024)
def is_secret_header_name(name: str) -> bool:
    """Whether values of the header *name* are secret. Rate-limit headers count tokens and are not."""
    low = name.lower()
    if "authorization" in low or "cookie" in low:
        return True
    if "ratelimit" in low or "rate-limit" in low:
        return False
    return low == "key" or low.endswith(("-key", "_key")) or any(part in low for part in _SECRET_HEADER_PARTS)


def mask_query(query: str) -> str:
    """Mask the secret values of a raw query string (without ``?``); order, names and encoding stay as they are."""
    if not query:
        return ""
    pieces = []
    for piece in query.split("&"):
        name, equals, value = piece.partition("=")
        if equals and is_secret_query_name(unquote_plus(name)):
            pieces.append(f"{name}={mask(value)}")
        else:
            pieces.append(redact_text(piece))
    return "&".join(pieces)


def mask_url(url: str) -> str:
    """*url* without user info and with masked query; never raises, also on what is no URL."""
    head, question, query = url.partition("?")
    query, hash_, fragment = query.partition("#")
    scheme, separator, rest = head.partition("://")
    if separator:
        # Up to the *last* @: a password may hold an unescaped one, or a slash. Only a path that contains @ after a
        # well-formed authority is kept.
        authority, slash, path = rest.partition("/")
        if "@" in authority:
            rest = authority.rpartition("@")[2] + slash + path
        elif "@" in rest and ":" in authority and not authority.rpartition(":")[2].isdigit():
            rest = rest.rpartition("@")[2]
        head = scheme + separator + rest
    masked = redact_text(head)
    if question:
        masked += "?" + mask_query(query)
    if hash_:
        masked += "#" + mask_query(fragment)
    return masked


def mask_header(name: str, value: str) -> str:
    """The value of a header as it may be written down; an authorization keeps its scheme, cookies their names."""
    if not is_secret_header_name(name):
        return mask_url(value) if "://" in value and " " not in value else redact_text(value)
    low = name.lower()
    if "authorization" in low:
        scheme, space, rest = value.partition(" ")
        return f"{redact_text(scheme)} {mask(rest.strip())}" if space and rest.strip() else mask(value)
    if "set-cookie" in low:
        first, semicolon, attributes = value.partition(";")
        return _mask_cookie(first) + semicolon + redact_text(attributes)
    if "cookie" in low:
        return "; ".join(_mask_cookie(piece.strip()) for piece in value.split(";"))
    return mask(value)


def _mask_cookie(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return f"{redact_text(name)}={mask(value)}" if equals else mask(pair)


# --- by shape ---------------------------------------------------------------------------------------------------------

_Replace = Callable[[re.Match[str]], str]

_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{8,}"  # OpenAI, Anthropic, OpenRouter and many that imitate them
    r"|AIza[A-Za-z0-9_-]{16,}"  # Google API keys
    r"|AQ\.[A-Za-z0-9_-]{20,}"
    r"|ya29\.[A-Za-z0-9._-]{8,}"  # Google OAuth access and refresh tokens
    r"|1//0[A-Za-z0-9_-]{16,}"
    r"|(?:gsk|xai|hf|r8|pplx|nvapi|csk|tgp|fw|ghp|gho|ghs|ghu|ghr|github_pat|glpat)[_-][A-Za-z0-9_-]{16,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"  # AWS
    r"|eyJ[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]+){0,2}"  # JSON Web Tokens, and base64 of JSON alike
    r")",
    re.ASCII,
)
# fmt: off
_SHAPE_HINTS = (
    "sk-", "aiza", "aq.", "ya29", "1//0", "gsk", "xai", "hf_", "hf-", "r8_", "r8-", "pplx", "nvapi", "csk", "tgp",
    "fw_", "fw-", "gh", "github", "glpat", "akia", "asia", "eyj",
)
# fmt: on

_SCHEMES = re.compile(
    r"\b(bearer[ \t]{1,8})([^\s\"',;<>\\]{6,})|\b(basic[ \t]{1,8})(?=[^\s\"']{0,64}[0-9A-Z=])([A-Za-z0-9+/]{8,}={0,2})",
    re.ASCII | re.IGNORECASE,
)
_PRIVATE_KEYS = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.S
)
_USER_INFO = re.compile(
    r"(://)(?:[^\s\"'<>/?#@]{1,512}@|[^\s\"'<>/@:]{1,256}:(?!\d{1,5}(?:[/?#]|$))[^\s\"'<>@]{1,256}@)", re.ASCII
)

# A separator between a name and its value: `name=`, `name: `, `"name": "`, `('name', b'`, also with escaped quotes.
_SEPARATOR = r"(?:\\?[\"'])?[ \t]{0,8}[:=][ \t]{0,8}(?:b?\\?[\"'])?|\\?[\"'][ \t]{0,8},[ \t]{0,8}b?\\?[\"']"
_LINE_NAMES = re.compile(
    rf"(authorization(?:{_SEPARATOR}))((?:[A-Za-z][A-Za-z0-9-]{{1,20}}[ \t]{{1,8}})?)([^\r\n\"'\\]+)"
    rf"|(cookie(?:{_SEPARATOR}))()([^\r\n\"'\\]+)",
    re.ASCII | re.IGNORECASE,
)
# Not plurals (`max_tokens=4096`) and not compounds (`token_count=3`): the name ends where the separator begins.
# What follows a colon in our own messages about configuration is no value.
_NAMES = re.compile(
    r"((?:api[-_ ]?keys?|(?:access|secret|private|management|session|signing)[-_]?key|token|secret|password|passwd|"
    rf"passphrase|openai-insecure-api-key\.|(?<![A-Za-z0-9_-])key(?==|[\"'\\]))(?:{_SEPARATOR}|(?<=\.)))"
    r"(?!(?:expected|required|missing|invalid|unknown|must|true|false|null|none)\b)"
    r"((?:\\?[^\s\"'&,;()}\]<>\\])+)",
    re.ASCII | re.IGNORECASE,
)
_BODY_NAMES = re.compile(
    r"(\\?\"(?:api[-_]?key|client_secret|(?:access|refresh|id|auth|bearer)_token|password|private_key|authorization)\\?\""
    r"\s{0,8}:\s{0,8}\\?\")((?:bearer )?)([^\"\\]+)",
    re.ASCII | re.IGNORECASE,
)
_NAME_HINTS = ("key", "token", "secret", "passw", "passph")
_BODY_NAME_HINTS = ("key", "_token", "_secret", "password", "authorization")


def _mask_once(value: str) -> str:
    # Texts pass here twice now and then; a value that is masked already keeps its form.
    return value if value == HIDDEN or (len(value) <= 11 and "..." in value) else mask(value)


def _shape(match: re.Match[str]) -> str:
    return mask(match[0])


def _scheme(match: re.Match[str]) -> str:
    return (match[1] or match[3]) + _mask_once(match[2] or match[4])


def _line_name(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1] + match[2] + _mask_once(match[3])
    return match[4] + _mask_once(match[6])


def _name(match: re.Match[str]) -> str:
    return match[1] + _mask_once(match[2])


def _body_name(match: re.Match[str]) -> str:
    return match[1] + match[2] + _mask_once(match[3])


def _found(hints: tuple[str, ...], low: str) -> bool:
    for hint in hints:  # noqa: SIM110 - any() with a generator costs three times as much
        if hint in low:
            return True
    return False


def _redact_shapes(text: str, low: str) -> str:
    if "private key" in low:
        text = _PRIVATE_KEYS.sub("[private key]", text)
    if "bearer" in low or "basic" in low:
        text = _SCHEMES.sub(_scheme, text)
    if _found(_SHAPE_HINTS, low):
        text = _SHAPES.sub(_shape, text)
    return text


def redact_text(text: str) -> str:
    """*text* without anything that looks like a secret: keys of known shape, bearer tokens, ``name=value`` pairs with
    a telling name, user info in URLs, private keys. What is not secret stays as it was.

    It errs on the side of masking; use it on messages, never on data that must survive. Idempotent.
    """
    if len(text) < 6:
        return text
    # What one pattern leaves may be what another looks for; every pass shortens or keeps, and few are ever needed.
    for _ in range(MAX_PASSES):
        redacted = _redact_once(text)
        if redacted == text:
            break
        text = redacted
    return text


def _redact_once(text: str) -> str:
    low = text.lower()
    if "://" in text:
        text = _USER_INFO.sub(r"\1", text)
    if "authorization" in low or "cookie" in low:
        text = _LINE_NAMES.sub(_line_name, text)
    if _found(_NAME_HINTS, low):
        text = _NAMES.sub(_name, text)
    return _redact_shapes(text, low)


def hide(data: bytes, secrets: Iterable[str]) -> bytes:
    """*data* with each of *secrets* masked, as it is and as JSON writes it; short ones are left alone."""
    for secret in secrets:
        if len(secret) < MIN_HIDDEN_CHARS:
            continue
        raw = secret.encode()
        for form in (raw, raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"')):
            if form in data:
                data = data.replace(form, mask(secret).encode())
    return data


def redact_body(body: bytes) -> bytes:
    """A request or response body as it may be written to a request log.

    Only keys of known shape and string members with an unmistakable name (``"api_key": "…"``) are masked: bodies are
    full of harmless words like ``token``. Any bytes; those that are not part of a secret stay as they are.
    """
    text = body.decode("latin-1")  # one character per byte: nothing is lost on the way back
    low = text.lower()
    if _found(_BODY_NAME_HINTS, low):
        text = _BODY_NAMES.sub(_body_name, text)
    return _redact_shapes(text, low).encode("latin-1")
