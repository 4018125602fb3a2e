"""Where each kind of provider wants its requests, and what it wants in their heads (proxy appendix A).

Pure: a dialect turns an `UpstreamCall` into a URL, headers and a body. Nothing of the client's head goes to a provider
except what is named here and what the operator configured.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from cpa.credentials.model import Credential
from cpa.errors import MalformedRequest, UnknownRoute, UpstreamStatusError
from cpa.formats.json import has_member, pop_member
from cpa.formats.names import Format
from cpa.types import Operation, UpstreamCall
from cpa.version import VERSION

USER_AGENT = f"cpa/{VERSION}".encode()
ANTHROPIC_HOST = "api.anthropic.com"
ANTHROPIC_BASE = f"https://{ANTHROPIC_HOST}"
ANTHROPIC_VERSION = b"2023-06-01"
GEMINI_BASE = "https://generativelanguage.googleapis.com"
VERTEX_BASE = "https://aiplatform.googleapis.com"
XAI_BASE = "https://api.x.ai/v1"

CHAT_PATHS: Mapping[Operation, str] = {Operation.GENERATE: "/chat/completions", Operation.EMBED: "/embeddings"}
RESPONSES_PATHS: Mapping[Operation, str] = {
    Operation.GENERATE: "/responses",
    Operation.COMPACT: "/responses/compact",
    Operation.COUNT_TOKENS: "/responses/input_tokens",
}
MESSAGES_PATHS: Mapping[Operation, str] = {
    Operation.GENERATE: "/v1/messages",
    Operation.COUNT_TOKENS: "/v1/messages/count_tokens",
}
GEMINI_ACTIONS: Mapping[Operation, str] = {
    Operation.GENERATE: "generateContent",
    Operation.COUNT_TOKENS: "countTokens",
}

HeaderDict = dict[bytes, bytes]
"""Lower-case name to value; providers' requests need no repeated names."""

Distinct = tuple[object, ...]
"""Immutable values that can be compared and hashed."""

CLAUDE_HEADERS = frozenset({b"anthropic-version", b"anthropic-beta", b"user-agent"})
"""Those of the client's that providers of Claude get."""

_BETA = re.compile(r"[!-~]+")
"""One name of `anthropic-beta`; what comes from a body could hold line breaks and end the header."""


class Dialect(Protocol):
    """One provider's way to be asked.

    Attributes:
      format: protocol of its bodies.
    """

    format: Format

    def distinct(self, call: UpstreamCall) -> Distinct | None:
        """What URL and headers follow from, beside the call's credential, operation and `stream`.

        Two calls that are alike in all of these have the same head, and `body` leaves their bodies alone. None: the
        head follows from the body as well.
        """
        ...

    def url(self, call: UpstreamCall) -> str:
        """Absolute URL. Raises: UnknownRoute when the provider has no such operation."""
        ...

    def headers(self, call: UpstreamCall) -> HeaderDict:
        """Authentication and protocol headers."""
        ...

    def body(self, call: UpstreamCall, headers: HeaderDict) -> tuple[bytes, ...]:
        """The body in pieces; may move members of it into *headers*."""
        ...


class OpenAIDialect:
    """Chat Completions at any compatible base URL."""

    format = Format.OPENAI

    def distinct(self, call: UpstreamCall) -> Distinct:
        """See `Dialect`."""
        return ()

    def url(self, call: UpstreamCall) -> str:
        """See `Dialect`."""
        return f"{call.credential.base_url}{path_of(call, CHAT_PATHS)}"

    def headers(self, call: UpstreamCall) -> HeaderDict:
        """See `Dialect`."""
        headers = bearer(call.credential)
        if call.stream:
            headers[b"cache-control"] = b"no-cache"
        return headers

    def body(self, call: UpstreamCall, headers: HeaderDict) -> tuple[bytes, ...]:
        """See `Dialect`."""
        return call.body


class CodexDialect:
    """Responses at a base URL with a key; *default_base* for vendors that have one."""

    format = Format.CODEX

    def __init__(self, default_base: str = "") -> None:
        self._default_base = default_base

    def distinct(self, call: UpstreamCall) -> Distinct:
        """See `Dialect`."""
        return ()

    def url(self, call: UpstreamCall) -> str:
        """See `Dialect`."""
        return f"{call.credential.base_url or self._default_base}{path_of(call, RESPONSES_PATHS)}"

    def headers(self, call: UpstreamCall) -> HeaderDict:
        """See `Dialect`."""
        return bearer(call.credential)

    def body(self, call: UpstreamCall, headers: HeaderDict) -> tuple[bytes, ...]:
        """See `Dialect`."""
        return call.body


class ClaudeDialect:
    """Anthropic Messages. The vendor's own host takes ``x-api-key``, other hosts a bearer token."""

    format = Format.CLAUDE

    def distinct(self, call: UpstreamCall) -> Distinct | None:
        """See `Dialect`; names of ``betas`` become a header."""
        # A search, because nearly no body has it.
        for piece in call.body:
            if b'"betas"' in piece:
                return None
        return tuple([header for header in call.client_headers if header[0] in CLAUDE_HEADERS])

    def url(self, call: UpstreamCall) -> str:
        """See `Dialect`."""
        return f"{call.credential.base_url or ANTHROPIC_BASE}{path_of(call, MESSAGES_PATHS)}"

    def headers(self, call: UpstreamCall) -> HeaderDict:
        """See `Dialect`."""
        credential = call.credential
        headers = bearer(credential)
        if headers and is_anthropic(credential.base_url):
            headers = {b"x-api-key": credential.api_key.encode()}
        headers[b"anthropic-version"] = client_header(call, b"anthropic-version") or ANTHROPIC_VERSION
        for name in (b"anthropic-beta", b"user-agent"):
            value = client_header(call, name)
            if value:
                headers[name] = value
        return headers

    def body(self, call: UpstreamCall, headers: HeaderDict) -> tuple[bytes, ...]:
        """``betas`` is no member of the wire format: its names join the header that means the same."""
        # The pieces of a body are no JSON, only all of them together.
        if not any(b'"betas"' in piece for piece in call.body):
            return call.body
        whole = b"".join(call.body)
        if not has_member(whole, "betas"):
            return call.body
        body, raw = pop_member(whole, "betas")
        known = headers.get(b"anthropic-beta", b"")
        listed = {name.strip() for name in known.split(b",")}
        merged = b",".join(filter(None, (known, *(name for name in beta_names(raw or b"") if name not in listed))))
        if merged:
            headers[b"anthropic-beta"] = merged
        return (body,)


class GeminiDialect:
    """Gemini's generateContent family; the model and the action are in the path."""

    format = Format.GEMINI

    def __init__(self, default_base: str = GEMINI_BASE, models_path: str = "/v1beta/models") -> None:
        self._default_base = default_base
        self._models_path = models_path

    def distinct(self, call: UpstreamCall) -> Distinct:
        """See `Dialect`."""
        return (call.model, "" if call.stream else _alt(call.query))

    def url(self, call: UpstreamCall) -> str:
        """See `Dialect`."""
        action = "streamGenerateContent?alt=sse" if call.stream else path_of(call, GEMINI_ACTIONS)
        # A model's name comes from a client or from the configuration: quoted, it cannot leave its place in the path.
        model = quote(call.model, safe="")
        url = f"{self._models_url(call.credential)}/{model}:{action}"
        alt = "" if call.stream else _alt(call.query)
        return f"{url}?$alt={quote(alt, safe='')}" if alt else url

    def _models_url(self, credential: Credential) -> str:
        return f"{credential.base_url or self._default_base}{self._models_path}"

    def headers(self, call: UpstreamCall) -> HeaderDict:
        """See `Dialect`."""
        return {b"x-goog-api-key": call.credential.api_key.encode()} if call.credential.api_key else {}

    def body(self, call: UpstreamCall, headers: HeaderDict) -> tuple[bytes, ...]:
        """See `Dialect`."""
        return call.body


class VertexDialect(GeminiDialect):
    """Gemini on Google's cloud: with a key, or with the token of a service account below the path of its project."""

    def __init__(self) -> None:
        super().__init__(VERTEX_BASE, "/v1/publishers/google/models")

    def _models_url(self, credential: Credential) -> str:
        if not credential.project:
            return super()._models_url(credential)
        place = credential.location
        base = credential.base_url or (
            VERTEX_BASE if place == GLOBAL else f"https://{place}-{urlsplit(VERTEX_BASE).netloc}"
        )
        return f"{base}/v1/projects/{quote(credential.project)}/locations/{place}/publishers/google/models"

    def headers(self, call: UpstreamCall) -> HeaderDict:
        """See `Dialect`. Raises: UpstreamStatusError 401 for an account whose first token has not come yet."""
        if not call.credential.project:
            return super().headers(call)
        if not call.credential.api_key:
            # As the provider would say it, so that the token is fetched and the request tried again; but nothing
            # of the request leaves without one.
            raise UpstreamStatusError(status=401, headers=(), body=NO_TOKEN, provider_format=self.format)
        return bearer(call.credential)


GLOBAL = "global"
"""The location whose host has no prefix."""
NO_TOKEN = b'{"error":{"code":401,"message":"the service account has no token yet","status":"UNAUTHENTICATED"}}'

DIALECTS: Mapping[str, Dialect] = {
    "claude": ClaudeDialect(),
    "codex": CodexDialect(),
    "gemini": GeminiDialect(),
    "vertex": VertexDialect(),
    "xai": CodexDialect(XAI_BASE),
}
"""Provider key to its dialect; keys of openai-compatibility entries have `COMPATIBLE`."""
COMPATIBLE: Dialect = OpenAIDialect()


def dialect_of(provider: str) -> Dialect | None:
    """How *provider* is asked; None for those that nobody here can ask."""
    return COMPATIBLE if provider.startswith("openai-compat") else DIALECTS.get(provider)


@lru_cache(maxsize=256)
def is_anthropic(base_url: str) -> bool:
    """Whether *base_url* is the vendor's own host, which takes another header than gateways do."""
    return urlsplit(base_url or ANTHROPIC_BASE).hostname == ANTHROPIC_HOST


def beta_names(raw: bytes) -> tuple[bytes, ...]:
    """The names in the JSON list *raw*, each once. Raises: MalformedRequest."""
    try:
        betas = msgspec.json.decode(raw, type=list[str])
    except ValueError:
        raise MalformedRequest("betas: expected a list of strings", param="betas") from None
    names = dict.fromkeys(name for beta in betas for part in beta.split(",") if (name := part.strip(" ")))
    if not all(map(_BETA.fullmatch, names)):
        raise MalformedRequest("betas: expected names without blanks and control characters", param="betas")
    return tuple(name.encode() for name in names)


def _alt(query: bytes) -> str:
    """The representation that a client of Gemini asks for, empty without one."""
    if not query:
        return ""
    fields = parse_qs(query.decode("latin-1"))
    return (fields.get("$alt") or fields.get("alt") or [""])[0]


def path_of(call: UpstreamCall, paths: Mapping[Operation, str]) -> str:
    """Where a provider does what is asked. Raises: UnknownRoute when it has no such endpoint."""
    path = paths.get(call.operation)
    if path is None:
        raise UnknownRoute(
            f"the provider of model {call.model} has no {call.operation} endpoint",
            code="not_implemented",
            http_status=501,
        )
    return path


def bearer(credential: Credential) -> HeaderDict:
    """The ``Authorization`` header, or nothing for a credential without key."""
    return {b"authorization": b"Bearer " + credential.api_key.encode()} if credential.api_key else {}


def client_header(call: UpstreamCall, name: bytes) -> bytes:
    """The client's header of that lower-case *name*, repeats joined as HTTP allows; empty when absent."""
    return b",".join(value for key, value in call.client_headers if key == name)


def configured_headers(call: UpstreamCall) -> HeaderDict:
    """The operator's own headers. ``$Name`` copies the client's; a client that has not sent it leaves it out."""
    headers: HeaderDict = {}
    for name, value in call.credential.headers.items():
        copied = client_header(call, value[1:].lower().encode()) if value.startswith("$") else value.encode()
        if copied:
            headers[name.lower().encode()] = copied
    return headers


def copied_headers(call: UpstreamCall) -> tuple[bytes, ...]:
    """What `configured_headers` copies from the client, in order; empty values for what it has not sent."""
    return tuple(
        [client_header(call, v[1:].lower().encode()) for v in call.credential.headers.values() if v.startswith("$")]
    )
