"""Errors in the four protocols: read from any of them, written in any of them.

A provider's error becomes a neutral `WireError`; `render_error` writes one in the protocol of a client. The tables say
which status, type and code each protocol has for a kind of failure, so a status may change on the way: OpenAI clients
know no 529, Google clients no 402, and official SDKs decide by the status whether they try again.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

import attrs

from cpa.errors import CpaError, LimitExceeded, NoCredential, RawHeaders, RequestError, UpstreamStatusError
from cpa.formats.json import JsonError, decode, encode, is_json
from cpa.formats.names import SAME_WIRE, Format
from cpa.types import JsonObject, JsonValue

MAX_MESSAGE_CHARS = 2048
"""Longest message that reaches a client, as deployed proxies cut it."""
MAX_FIELD_CHARS = 256
DEFAULT_RETRY_AFTER_S = 1
"""Told to clients with a 429 for which the provider names no time: without one Codex gives up for good."""
_MAX_REDACTED_INPUT = 8 * MAX_MESSAGE_CHARS

JSON_TYPE = b"application/json"
NO_DETAILS: Mapping[str, JsonValue] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class WireError:
    """An error without a protocol.

    Attributes:
      status: 400..599, as the failing side meant it.
      message: text for people, not yet redacted.
      code, type: names as the failing side wrote them, or empty.
      param: member of the request that is at fault, or None.
      retry_after_s: seconds, or None.
      details: further members for OpenAI's shape, which has room for them; texts in them are redacted.
    """

    status: int
    message: str
    code: str = ""
    type: str = ""
    param: str | None = None
    retry_after_s: float | None = None
    details: Mapping[str, JsonValue] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class ErrorReply:
    """A complete error answer for a client. `headers` always has ``content-type``; names in lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


# --- tables: translation.md 5.3 --------------------------------------------------------------------------------------

_OPENAI: Mapping[int, tuple[int, str, str]] = {
    401: (401, "authentication_error", "invalid_api_key"),
    402: (429, "insufficient_quota", "insufficient_quota"),
    403: (403, "permission_error", "permission_denied"),
    404: (404, "invalid_request_error", "not_found"),
    408: (408, "timeout_error", "request_timeout"),
    409: (409, "invalid_request_error", "conflict"),
    413: (413, "invalid_request_error", "request_too_large"),
    429: (429, "rate_limit_error", "rate_limit_exceeded"),
    500: (500, "server_error", "internal_server_error"),
    501: (501, "invalid_request_error", "not_implemented"),
    502: (502, "server_error", "upstream_error"),
    503: (503, "server_error", "service_unavailable"),
    504: (504, "server_error", "timeout"),
    529: (503, "server_error", "overloaded"),
}
_CLAUDE: Mapping[int, tuple[int, str]] = {
    401: (401, "authentication_error"),
    402: (402, "billing_error"),
    403: (403, "permission_error"),
    404: (404, "not_found_error"),
    408: (408, "timeout_error"),
    409: (409, "conflict_error"),
    413: (413, "request_too_large"),
    422: (400, "invalid_request_error"),
    429: (429, "rate_limit_error"),
    501: (501, "invalid_request_error"),
    503: (529, "overloaded_error"),
    504: (504, "timeout_error"),
    529: (529, "overloaded_error"),
}
_GOOGLE: Mapping[int, tuple[int, str]] = {
    401: (401, "UNAUTHENTICATED"),
    402: (429, "RESOURCE_EXHAUSTED"),
    403: (403, "PERMISSION_DENIED"),
    404: (404, "NOT_FOUND"),
    408: (408, "DEADLINE_EXCEEDED"),
    409: (409, "ABORTED"),
    422: (400, "INVALID_ARGUMENT"),
    429: (429, "RESOURCE_EXHAUSTED"),
    499: (499, "CANCELLED"),
    500: (500, "INTERNAL"),
    501: (501, "UNIMPLEMENTED"),
    502: (502, "UNAVAILABLE"),
    503: (503, "UNAVAILABLE"),
    504: (504, "DEADLINE_EXCEEDED"),
    529: (503, "UNAVAILABLE"),
}
_CLAUDE_TYPES = frozenset(kind for _, kind in _CLAUDE.values()) | {"api_error"}
_OPENAI_TYPES = frozenset(kind for _, kind, _ in _OPENAI.values())

_STATUS_OF_NAME: Mapping[str, int] = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "not_found": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "insufficient_quota": 429,
    "usage_limit_reached": 429,
    "resource_exhausted": 429,
    "overloaded_error": 529,
    "overloaded": 529,
    "service_unavailable": 503,
    "unavailable": 503,
    "timeout_error": 504,
    "deadline_exceeded": 504,
    "invalid_prompt": 400,
    "invalid_argument": 400,
    "context_length_exceeded": 400,
    "invalid_encrypted_content": 400,
    "previous_response_not_found": 400,
}
_STATUS_OF_PREFIX = (("rate_limit", 429), ("cyber_policy", 400), ("invalid_request", 400))


# --- writing ---------------------------------------------------------------------------------------------------------


def render_error(
    fmt: Format,
    *,
    status: int,
    message: str,
    code: str = "",
    type: str = "",
    param: str | None = None,
    retry_after_s: float | None = None,
    details: Mapping[str, JsonValue] = NO_DETAILS,
) -> tuple[int, bytes]:
    """Write an error in the protocol *fmt* of a client.

    Args:
      status: what happened, 400..599; anything else counts as 502.
      code, type: of the failing side; used where the protocol knows them, else taken from the status.
      retry_after_s: only Google's shape has room for it; the caller sends the header.
      details: only OpenAI's shape has room for them.

    Returns: the status that this protocol uses for it, and the JSON body. The message is redacted.
    """
    error = WireError(
        status=status,
        message=message,
        code=code,
        type=type,
        param=param,
        retry_after_s=retry_after_s,
        details=details,
    )
    status, body = error_object(fmt, error)
    return status, encode(body)


def error_object(fmt: Format, error: WireError) -> tuple[int, JsonObject]:
    """As `render_error`, before encoding."""
    if not 400 <= error.status <= 599:
        error = attrs.evolve(error, status=502)
    message = redact(error.message) or status_text(error.status)
    if fmt is Format.CLAUDE:
        return _claude_object(error, message)
    if fmt is Format.GEMINI:
        return _google_object(error, message)
    return _openai_object(error, message)


def _openai_object(error: WireError, message: str) -> tuple[int, JsonObject]:
    default_type = "server_error" if error.status >= 500 else "invalid_request_error"
    default_code = "internal_server_error" if error.status >= 500 else ""
    status, kind, code = _OPENAI.get(error.status, (error.status, default_type, default_code))
    if error.code and status == error.status:
        # A code of a remapped status would contradict it.
        code = error.code
    if error.type in _OPENAI_TYPES:
        kind = error.type
    body: JsonObject = {"message": message, "type": kind}
    if code:
        body["code"] = _field(code)
    if error.param is not None:
        body["param"] = _field(error.param)
    for name, value in error.details.items():
        body[name] = redact(value) if isinstance(value, str) else value
    return status, {"error": body}


def _claude_object(error: WireError, message: str) -> tuple[int, JsonObject]:
    default_type = "api_error" if error.status >= 500 else "invalid_request_error"
    status, kind = _CLAUDE.get(error.status, (error.status, default_type))
    if error.type in _CLAUDE_TYPES and error.type != "api_error":
        kind = error.type
    if error.code == "context_length_exceeded" and "prompt is too long" not in message:
        # Agents look for these words to start compacting their context.
        message = f"prompt is too long: {message}"
    return status, {"type": "error", "error": {"type": kind, "message": message}}


def _google_object(error: WireError, message: str) -> tuple[int, JsonObject]:
    default = "INTERNAL" if error.status >= 500 else "INVALID_ARGUMENT"
    status, name = _GOOGLE.get(error.status, (error.status, default))
    body: JsonObject = {"code": status, "message": message, "status": name}
    if error.retry_after_s is not None:
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{error.retry_after_s:g}s"}
        body["details"] = [dict[str, JsonValue](delay)]
    return status, {"error": body}


def stream_code(error: WireError) -> str:
    """The code of an error inside a Responses stream, by status (proxy.md 1.11, 403 and 404 by translation.md 5.3)."""
    if error.status >= 500:
        return "internal_server_error"
    return error.code or _OPENAI.get(error.status, (0, "", ""))[2] or "invalid_request_error"


# --- reading ---------------------------------------------------------------------------------------------------------


def from_exception(exc: CpaError) -> WireError:
    """The neutral form of one of our own errors; a provider's error body inside is read."""
    if isinstance(exc, UpstreamStatusError):
        return read_error(exc.status, exc.headers, exc.body)
    return WireError(
        status=exc.http_status,
        message=exc.message,
        code=exc.code,
        param=exc.param if isinstance(exc, RequestError) else None,
        retry_after_s=exc.retry_after_s if isinstance(exc, NoCredential | LimitExceeded) else None,
        details=exc.details if isinstance(exc, NoCredential) else NO_DETAILS,
    )


def read_error(status: int, headers: RawHeaders, body: bytes) -> WireError:
    """Read a provider's error answer in any shape: the protocols' own, texts, pages, nothing at all. Never raises."""
    retry_after_s = _retry_header(headers)
    if not 400 <= status <= 599:
        status = 502
    try:
        error = read_error_value(decode(body), status=status)
    except JsonError:
        text = body[:_MAX_REDACTED_INPUT].decode("utf-8", "replace").strip()
        error = WireError(status=status, message="" if text.startswith("<") else text)
    if not error.message:
        error = attrs.evolve(error, message=status_text(status))
    return error if retry_after_s is None else attrs.evolve(error, retry_after_s=retry_after_s)


def read_error_value(value: JsonValue, *, status: int | None = None) -> WireError:
    """Read decoded JSON as an error; the status is *status*, or what *value* says, else 502."""
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, dict)), {})
    outer: JsonObject = value if isinstance(value, dict) else {"message": value}
    response = outer.get("response")
    found = outer.get("error") or (response.get("error") if isinstance(response, dict) else None)
    inner: JsonObject = found if isinstance(found, dict) else {}
    if isinstance(found, str):
        inner = {"message": found}
    message = _message(inner) or _message(outer)
    nested = _nested(message)
    if nested is not None:
        # One level: gateways put the provider's JSON into their own message.
        inner = {**inner, **{name: item for name, item in nested.items() if item is not None}}
        message = _message(nested) or message
    kind = _name(inner.get("type")) or _name(inner.get("status"))
    if not inner:
        kind = _name(outer.get("type"))
    code = _name(inner.get("code")) or ("" if inner else _name(outer.get("code")))
    return WireError(
        status=status or _status(outer, inner, response, code, kind),
        message=message,
        code=code,
        type="" if kind in ("error", "response.error", "response.failed") else kind,
        param=_name(inner.get("param") or outer.get("param")) or None,
        retry_after_s=_retry_details(inner),
    )


def render_upstream_error(
    client: Format, provider: Format, status: int, headers: RawHeaders, body: bytes
) -> ErrorReply:
    """A provider's error answer for a client.

    Same protocol on both sides, and a body that is JSON: status and body pass byte for byte, unless there are secrets
    in the body. Otherwise the error is read and written again in the client's protocol; Claude clients always get
    Claude's shape. Retry hints are kept, or made from what the body says; a 429 always has one.
    """
    error = read_error(status, headers, body)
    kept = [(name, value) for name, value in headers if name in _KEPT_HEADERS]
    hinted = any(name.startswith(b"retry-after") for name, _ in kept)
    if error.retry_after_s is not None and not hinted:
        kept.append((b"retry-after", b"%d" % -(-error.retry_after_s // 1)))
        hinted = True
    if 400 <= status <= 599 and (client, provider) in SAME_WIRE and _fits(client, body):
        content_type = next((value for name, value in headers if name == b"content-type"), JSON_TYPE)
        body = redact_json(body)
    else:
        content_type = JSON_TYPE
        status, rendered = error_object(client, error)
        body = encode(rendered)
    if status == HTTPStatus.TOO_MANY_REQUESTS and not hinted:
        kept.append((b"retry-after", b"%d" % DEFAULT_RETRY_AFTER_S))
    return ErrorReply(status=status, headers=((b"content-type", content_type), *kept), body=body)


_KEPT_HEADERS = frozenset({b"retry-after", b"retry-after-ms", b"x-should-retry"})


def _fits(client: Format, body: bytes) -> bool:
    """Whether a body of the client's own protocol can pass as it is."""
    if client is not Format.CLAUDE:
        return is_json(body)
    try:
        value = decode(body)
    except JsonError:
        return False
    return isinstance(value, dict) and value.get("type") == "error" and isinstance(value.get("error"), dict)


def _message(value: JsonObject) -> str:
    for name in ("message", "detail", "error_description", "error_message"):
        item = value.get(name)
        if isinstance(item, str) and item:
            return item
        if isinstance(item, dict):
            return _message(item)
        if item and name == "detail":
            return encode(item).decode()
    return ""


def _nested(message: str) -> JsonObject | None:
    if not message.lstrip().startswith("{"):
        return None
    try:
        value = decode(message.encode("utf-8", "replace"))
    except JsonError:
        return None
    inner = value.get("error") if isinstance(value, dict) else None
    if isinstance(inner, dict):
        return inner
    return value if isinstance(value, dict) else None


def _name(value: JsonValue) -> str:
    return value[:MAX_FIELD_CHARS] if isinstance(value, str) else ""


def _status(outer: JsonObject, inner: JsonObject, response: JsonValue, code: str, kind: str) -> int:
    places = [outer, inner] + ([response] if isinstance(response, dict) else [])
    for place in places:
        for name in ("status", "status_code", "code"):
            number = _number(place.get(name))
            if number is not None and 400 <= number <= 599:
                return int(number)
    for name in (code.lower(), kind.lower()):
        if name in _STATUS_OF_NAME:
            return _STATUS_OF_NAME[name]
        for prefix, status in _STATUS_OF_PREFIX:
            if name.startswith(prefix):
                return status
    return 502


def _number(value: JsonValue) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e12 else None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", value):
        return float(value)
    return None


def _retry_header(headers: RawHeaders) -> float | None:
    for name, value in headers:
        number = _number(value.decode("latin-1").strip())
        if number is None:
            # Retry-After may be a date; it is forwarded, not read.
            continue
        if name == b"retry-after":
            return number
        if name == b"retry-after-ms":
            return number / 1000
    return None


def _retry_details(inner: JsonObject) -> float | None:
    """Seconds to wait, from Google's RetryInfo or the member that ChatGPT's backend uses."""
    seconds = _number(inner.get("resets_in_seconds"))
    if seconds is not None:
        return seconds
    details = inner.get("details")
    for detail in details if isinstance(details, list) else []:
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str):
            return _number(delay.removesuffix("s"))
    return None


def status_text(status: int) -> str:
    """``Too Many Requests`` for 429."""
    if status == 529:
        return "Overloaded"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"upstream error {status}"


# --- redaction -------------------------------------------------------------------------------------------------------

_SECRETS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=\-]{4,}"), r"\1 [redacted]"),
    (
        re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|ghp|gho|ghu|ghs|ghr|glpat|xox[abprs])[-_][A-Za-z0-9_*\-]{6,}"),
        "[redacted]",
    ),
    (re.compile(r"\bAIza[A-Za-z0-9_\-]{8,}"), "[redacted]"),
    (re.compile(r"\bya29\.[A-Za-z0-9_\-.]+"), "[redacted]"),
    (re.compile(r"\bAKIA[A-Z0-9]{12,}"), "[redacted]"),
    (re.compile(r"\beyJ[A-Za-z0-9_\-]{6,}(?:\.[A-Za-z0-9_\-.]+)?"), "[redacted]"),
    (re.compile(r"://[^\s/@\"'<>]{1,256}@"), "://[redacted]@"),
    (
        re.compile(
            r"(?i)([?&](?:api[-_]?key|key|token|access[-_]token|auth|secret|password|sig(?:nature)?)=)[^&\s\"'#<>]+"
        ),
        r"\1[redacted]",
    ),
    (
        re.compile(
            r"(?i)((?:x-api-key|x-goog-api-key|api[-_ ]?key|access[-_]token|refresh[-_]token|authorization|"
            r"client[-_]secret|password)[\"']?\s*[:=]\s*[\"']?)(?!\[redacted\]|bearer |basic )[^\s\"',;&}]+"
        ),
        r"\1[redacted]",
    ),
    (
        re.compile(r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]++@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63})+"),
        "[redacted]",
    ),
)
_SECRET_NAME = re.compile(
    r"(?i)(?:x-|x-goog-)?(?:api|access|private|secret)[-_ ]?key|(?:access|refresh|id|auth|bearer)[-_]token"
    r"|(?:proxy-)?authorization|client[-_]secret|password|passwd"
)


def redact(text: str) -> str:
    """Blank what looks like a key, a bearer token, credentials in an address or an e-mail address; cut to 2,048.

    Cheap enough for errors (some 10 µs), not meant for the hot path.
    """
    text = _blank(text[:_MAX_REDACTED_INPUT])
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 1] + "…"


def redact_json(data: bytes) -> bytes:
    """JSON, or a text, without what `redact` finds in its strings: the same object when there is nothing to hide.

    Strings are looked at one by one, so that JSON stays JSON. Members with a telling name lose their text whole.
    """
    try:
        value = decode(data)
    except JsonError:
        text = data.decode("utf-8", "surrogateescape")
        blanked = _blank(text)
        return data if blanked == text else blanked.encode("utf-8", "surrogateescape")
    try:
        cleaned = _cleaned(value)
    except RecursionError:
        text = data.decode("utf-8", "replace")
        return data if _blank(text) == text else encode({"error": {"message": "[redacted]"}})
    return data if cleaned == value else encode(cleaned)


def _cleaned(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return _blank(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {
            _blank(name): "[redacted]"
            if isinstance(item, str) and item and _SECRET_NAME.fullmatch(name)
            else _cleaned(item)
            for name, item in value.items()
        }
    return value


def _blank(text: str) -> str:
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _field(text: str) -> str:
    return redact(text)[:MAX_FIELD_CHARS]
