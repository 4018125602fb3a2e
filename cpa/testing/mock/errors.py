"""Error bodies of the four protocols."""

from msgspec.json import encode

from cpa.formats.names import Format

_OPENAI = {
    400: ("invalid_request_error", None),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "permission_denied"),
    404: ("invalid_request_error", "not_found"),
    408: ("timeout_error", "request_timeout"),
    409: ("invalid_request_error", "conflict"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "timeout"),
}
_CLAUDE = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_GEMINI = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}


def error_body(fmt: Format, status: int, message: str, *, retry_after_s: int | None = None) -> bytes:
    """A JSON error as a provider of *fmt* writes it."""
    if fmt is Format.CLAUDE:
        kind = _CLAUDE.get(status, "invalid_request_error" if status < 500 else "api_error")
        return encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_mock"})
    if fmt is Format.GEMINI:
        name = _GEMINI.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        error: dict[str, object] = {"code": status, "message": message, "status": name}
        if retry_after_s is not None:
            retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after_s}s"}
            error["details"] = [retry]
        return encode({"error": error})
    plain = ("invalid_request_error", None) if status < 500 else ("server_error", "internal_server_error")
    kind, code = _OPENAI.get(status, plain)
    return encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def error_frame(fmt: Format, message: str) -> bytes:
    """An error inside a stream, as SSE bytes; Responses streams need `responses.failed_event` instead."""
    body = error_body(fmt, 500, message)
    if fmt is Format.CLAUDE:
        return b"event: error\ndata: " + body + b"\n\n"
    return b"data: " + body + b"\n\n"
