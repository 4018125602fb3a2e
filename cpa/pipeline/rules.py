"""The runner's decisions that need no waiting: which failure rotates, what a client may see."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qs

from cpa.credentials.model import Credential
from cpa.errors import (
    ExecutorError,
    RawHeaders,
    Rejected,
    RequestError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
)
from cpa.formats import headers as http
from cpa.formats.faults import bare_fault
from cpa.formats.headers import HeaderMap
from cpa.formats.names import Format
from cpa.formats.redaction import hide
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.stage import InterceptRequestResult, Outcome, Registration, StageKind
from cpa.types import JsonObject, Operation, Wire

OPERATION_FORMATS: Mapping[Operation, frozenset[str]] = {
    Operation.COMPACT: frozenset({Format.OPENAI_RESPONSE, Format.CODEX}),
    Operation.EMBED: frozenset({Format.OPENAI}),
}
"""What only providers of some protocols can do. Nothing is translated: a compacted conversation is ciphertext that one
vendor reads, so a provider that gets the next request in translation could do nothing with it."""
TRANSFORMS = frozenset(
    {
        StageKind.REQUEST_NORMALIZE,
        StageKind.REQUEST_TRANSLATE,
        StageKind.RESPONSE_NORMALIZE_BEFORE,
        StageKind.RESPONSE_TRANSLATE,
        StageKind.RESPONSE_NORMALIZE_AFTER,
    }
)
"""Stages that take bodies for conversations. Embeddings are none, although they go under the same protocol's name."""
ROTATING_STATUSES = frozenset({401, 402, 403, 408, 429})
"""Statuses below 500 that speak of the credential, not of the request: another credential may do (proxy 4.3 [B])."""
COMPLETION_STATUS = {Outcome.SUCCEEDED: 200, Outcome.CANCELED: 0}
"""Completion events of these outcomes carry a fixed status; the others that of their error."""
SECRET_WORDS = (
    "api_key",
    "apikey",
    "token",
    "secret",
    "cookie",
    "credential",
    "password",
    "storage",
    "authorization",
    "auth_header",
    "proxy_url",
)
"""Attributes whose names hold one of these are nobody's business but the executor's."""
DEFAULT_REJECTION_STATUS = 403
ANSWER_HEAD_BYTES = 256
ERROR_FIRST = re.compile(rb'\{\s*"error"\s*:\s*[{"]')
"""An answer whose first member is a filled ``error`` is none; errors of the Responses protocol come later and null."""
JSON_CONTENT_TYPE = (b"content-type", b"application/json")


def can(operation: Operation, wire: Wire) -> bool:
    """Whether an executor that speaks *wire* can be asked for *operation*.

    A plugin's gets compactions (their mode is in its contract), but no embeddings, which it would take for a chat.
    """
    formats = OPERATION_FORMATS.get(operation)
    return formats is None or (wire.input in formats and (wire.native or operation is not Operation.EMBED))


def cannot(operation: Operation, model: str) -> RequestError:
    """The error when no provider of *model* can do *operation*."""
    if operation is Operation.EMBED:
        text = f"model {model} has no embeddings: they are passed to providers of openai-compatibility only"
        return RequestError(text, code="unsupported", param="model")
    text = f"/responses/compact not supported: the provider of model {model} does not speak Responses"
    return RequestError(text, code="not_implemented", http_status=501, param="model")


def may_rotate(error: UpstreamError) -> bool:
    """Another credential may be tried after *error*; a fault of the request is the client's to hear at once."""
    if isinstance(error, UpstreamStatusError | ExecutorError):
        return error.http_status >= 500 or error.http_status in ROTATING_STATUSES
    return True


def check_answer(fmt: Format, body: bytes, credential: Credential) -> None:
    """Judge a complete answer that came with status 200.

    Raises: UpstreamProtocolError when it is empty or no JSON; UpstreamStatusError when it is an error after all, which
    some gateways send with 200.
    """
    head = body[:ANSWER_HEAD_BYTES]
    if head[:1] == b"{" and b'"error"' not in head:
        return  # what nearly every answer is
    start = head.lstrip()
    if not start:
        raise UpstreamProtocolError("upstream answered with an empty body", code="empty_response")
    if not start.startswith((b"{", b"[")):
        raise UpstreamProtocolError("upstream answered with something else than JSON")
    if ERROR_FIRST.match(start):
        fault = bare_fault(fmt, body)
        told = hide(fault.body, credential.secrets())
        raise UpstreamStatusError(status=fault.status, headers=(JSON_CONTENT_TYPE,), body=told, provider_format=fmt)


def harmless(credential: Credential) -> dict[str, str]:
    """A credential's attributes as schedulers may see them (plugin-abi 4.5)."""
    return {
        name: value
        for name, value in credential.attributes.items()
        if not any(word in name.lower() for word in SECRET_WORDS)
    }


def rejection(result: InterceptRequestResult, entry: Registration) -> Rejected:
    """The end of an exchange as an interceptor wants it (plugin-abi 6.7)."""
    status = result.status_code if 200 <= result.status_code <= 599 else DEFAULT_REJECTION_STATUS
    headers = http.filter_response(http.to_raw(result.response_headers))
    if not any(name == b"content-type" for name, _ in headers):
        headers = (*headers, JSON_CONTENT_TYPE)
    return Rejected(status=status, headers=headers, body=result.response_body, plugin_id=entry.plugin_id)


def client_headers(upstream: RawHeaders, intercepted: HeaderMap | None, *, passthrough: bool) -> RawHeaders:
    """Response headers for the client (plugin-abi 6.8).

    With *passthrough* all of the final ones, else only those that interceptors added or changed; never those of the
    connection. *intercepted* is None when no interceptor ran.
    """
    if passthrough:
        return http.filter_response(upstream if intercepted is None else http.to_raw(intercepted))
    if intercepted is None:
        return ()
    original = http.to_map(upstream)
    changed = {name: values for name, values in intercepted.items() if original.get(name) != values}
    return http.filter_response(http.to_raw(changed))


def base_metadata(request: ModelRequest) -> JsonObject:
    """The bag of plugin-abi 6.11 as it is known before routing."""
    metadata: JsonObject = {"requested_model": request.model, "request_path": request.path}
    for name, value in request.headers:
        if name == b"idempotency-key":
            metadata["idempotency_key"] = value.decode("latin-1")
    return metadata | dict(request.extra_metadata) if request.extra_metadata else metadata


def query_map(query: bytes) -> HeaderMap:
    """A raw query string as name to values, blank values kept."""
    return parse_qs(query.decode("latin-1"), keep_blank_values=True)
