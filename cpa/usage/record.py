"""What is known of one attempt to be served by a provider, for whoever counts.

One record per attempt, failures included (proxy 7.3): a request with two failed credentials and one success makes
three. Wire names of the members are not here: plugins' are in `cpa.abi.wire`.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Final

import attrs
import msgspec

from cpa.credentials.model import FROM_CONFIG, Credential
from cpa.errors import CpaError, RawHeaders, UpstreamStatusError
from cpa.formats.redaction import hide, redact_text

API_KEY: Final = "apikey"
OAUTH: Final = "oauth"
"""Values of `UsageRecord.auth_type`."""

MAX_FAILURE_BYTES: Final = 2048
"""Of a failure's text: providers say in the first sentence what is wrong, and thousands of records may wait."""
MAX_HEADER_BYTES: Final = 16 * 1024
"""Of response headers in one record: four times what real providers send, a quarter of what a hostile one may."""
NOT_SHOWN: Final = frozenset({"principal", "source", "response_headers"})
"""Members of a record that no log may show by accident."""
MAX_FACT_CHARS: Final = 256
"""Of a header that records repeat."""
MAX_PAYERS: Final = 1024
"""Credentials whose part of a record is kept; that of others is put together for each record."""
INDEX_DIGITS: Final = 8
"""Of a credential's index in `source_of`: enough to tell the keys of one label apart."""

EXECUTOR_TYPES: Mapping[str, str] = {
    "claude": "ClaudeExecutor",
    "codex": "CodexExecutor",
    "gemini": "GeminiExecutor",
    "vertex": "GeminiVertexExecutor",
    "xai": "XAIExecutor",
}
"""Provider key to the name by which records call its executor; `OPENAI_COMPATIBLE` keys share one."""
OPENAI_COMPATIBLE: Final = ("openai-compatible-", "openai-compatibility")


# What is made for every attempt is a struct of msgspec's: made in a third of the time, and in a fifth of the memory.
class Tokens(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counts as the columns of proxy 7.3 define them, ≥ 0; what includes what differs between providers' protocols.

    Attributes:
      input_tokens: Chat, Responses, Gemini: cached ones included; Claude: neither cache reads nor cache writes.
      output_tokens: reasoning included, but not for Gemini.
      cache_creation_tokens: written to the provider's cache.
      total_tokens: as the provider said, else the sum that its protocol means.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    total_tokens: int = 0

    @property
    def cached_tokens(self) -> int:
        """Cache reads, or where there are none cache writes: one number, as collectors know it."""
        return self.cache_read_tokens or self.cache_creation_tokens

    def plus(self, other: "Tokens") -> "Tokens":
        """Both together."""
        return Tokens(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_creation_tokens=self.cache_creation_tokens + other.cache_creation_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


NO_TOKENS: Final = Tokens()


class ClientFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a request came from.

    Attributes:
      address: of the socket's other end; empty for executions that no connection started.
      path: pattern of the route, e.g. ``/v1/chat/completions``; empty as above.
      headers: the client's; what they say is looked for when somebody asks.
    """

    address: str = ""
    path: str = ""
    headers: RawHeaders = ()

    def __repr__(self) -> str:
        return f"ClientFacts(address={self.address!r}, path={self.path!r})"  # no headers: there are keys in them

    @property
    def endpoint(self) -> str:
        """Method and route."""
        return f"POST {self.path}" if self.path else ""

    @property
    def forwarded_for(self) -> str:
        """What a proxy in between says of the client's address; anybody may write anything there."""
        return self._header(b"x-forwarded-for")

    @property
    def user_agent(self) -> str:
        """What the client calls itself."""
        return self._header(b"user-agent")

    def _header(self, wanted: bytes) -> str:
        for name, value in self.headers:
            if name == wanted:
                return value.decode("latin-1")[:MAX_FACT_CHARS]
        return ""


NO_CLIENT: Final = ClientFacts()


@attrs.frozen(kw_only=True)
class Failure:
    """How an attempt failed.

    Attributes:
      status: the provider's own, else what the error means for a client; 0 when nothing failed.
      body: what the provider or the error said, at most `MAX_FAILURE_BYTES`, secrets masked.
    """

    status: int = 0
    body: str = attrs.field(default="", repr=False)


NO_FAILURE: Final = Failure()


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt.

    Attributes:
      provider: key of the provider, of a directly addressed plugin its id.
      executor_type: who spoke to the provider, see `executor_type_of`.
      model, alias: the provider's name of the model, and the client's.
      principal: the client: its key, or what a plugin named it; may be empty.
      credential_id, credential_index: who paid; neither tells anything of the key.
      auth_type: `API_KEY`, `OAUTH` or empty.
      source: the account behind the credential, never a key: see `source_of`.
      reasoning_effort, service_tier, generate: see `cpa.formats.facts`.
      requested_at: when the attempt began, UTC.
      latency_s: from there to the end.
      ttft_s: from there to the first byte of the answer's body; 0 when none came.
      failed: an error ended it. A client that leaves is none.
      complete: False when the answer was cut off, by whomever: the counts are those of what had arrived.
      provider_format: protocol whose rules `tokens` follow; a plugin's may be of its own invention.
      tokens: what the provider said.
      estimated: what the client got beyond that, as far as one can tell; all zero where the provider said everything.
      response_headers: of the provider, at most `MAX_HEADER_BYTES`.
      client: who asked, and what.
    """

    request_id: str
    trace_id: str
    provider: str
    executor_type: str
    model: str
    alias: str
    principal: str
    credential_id: str
    credential_index: str
    auth_type: str
    source: str
    reasoning_effort: str
    service_tier: str
    generate: bool
    requested_at: datetime
    latency_s: float
    ttft_s: float
    failed: bool
    failure: Failure = NO_FAILURE
    complete: bool
    provider_format: str
    tokens: Tokens = NO_TOKENS
    estimated: Tokens = NO_TOKENS
    response_headers: RawHeaders = ()
    client: ClientFacts = NO_CLIENT

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in NOT_SHOWN)
        return f"UsageRecord({', '.join(shown)})"

    @property
    def counted(self) -> Tokens:
        """What counts against limits and in sums."""
        return self.tokens if self.estimated is NO_TOKENS else self.tokens.plus(self.estimated)


@attrs.frozen
class Payer:
    """What every record of one credential says of it; see the members of `UsageRecord`."""

    executor_type: str
    auth_type: str
    source: str = attrs.field(repr=False)


@lru_cache(maxsize=MAX_PAYERS)
def payer_of(credential: Credential) -> Payer:
    """Of *credential*, made once for as long as it is used."""
    return Payer(executor_type_of(credential.provider), auth_type_of(credential), source_of(credential))


def executor_type_of(provider: str) -> str:
    """What records call the executor of the provider key *provider*; a plugin's is called as its provider."""
    if provider.startswith(OPENAI_COMPATIBLE):
        return "OpenAICompatExecutor"
    return EXECUTOR_TYPES.get(provider, provider)


def auth_type_of(credential: Credential) -> str:
    """`API_KEY` or `OAUTH`; empty for an attempt without credential. A file with a plain key is a key (proxy 3.4)."""
    if credential.anonymous:
        return ""
    kind = credential.attributes.get("auth_kind", "")
    if kind in (API_KEY, OAUTH):
        return kind
    return API_KEY if credential.source == FROM_CONFIG or credential.api_key else OAUTH


def source_of(credential: Credential) -> str:
    """The account behind *credential*: its project, its e-mail address, else its label with a short digest.

    Never the key itself, which deployed proxies put here (proxy 7.3 [B]).
    """
    for name in ("project_id", "email") if credential.provider == "vertex" else ("email",):
        account = credential.metadata.get(name)
        if isinstance(account, str) and account.strip():
            return account.strip()
    index = credential.index[:INDEX_DIGITS]
    return f"{credential.label}[{index}]" if index else credential.label


def failure_of(error: CpaError, secrets: tuple[str, ...]) -> Failure:
    """*error* as a record tells it. *secrets* are masked wherever they stand, beside all that looks like one."""
    body, status = error.message.encode("utf-8", "replace"), error.http_status
    if isinstance(error, UpstreamStatusError):
        body, status = error.body, error.status
    # Cut first: masking takes milliseconds for the largest bodies that are kept of errors.
    text = redact_text(_beginning(hide(body, secrets)).decode("utf-8", "replace"))
    return Failure(status=status, body=text.encode()[:MAX_FAILURE_BYTES].decode("utf-8", "ignore").strip())


def kept_headers(headers: RawHeaders) -> RawHeaders:
    """The first of *headers*, as many as a record holds."""
    # Nearly always all of them are kept, and then this is all there is to do.
    if len(b"".join(chain.from_iterable(headers))) <= MAX_HEADER_BYTES:
        return headers
    left = MAX_HEADER_BYTES
    for index, (name, value) in enumerate(headers):
        left -= len(name) + len(value)
        if left < 0:
            return tuple(headers[:index])
    return headers


def _beginning(data: bytes) -> bytes:
    """As much of *data* as is told, without the word that the cut went through: half a secret is not recognised."""
    if len(data) <= MAX_FAILURE_BYTES:
        return data
    data = data[:MAX_FAILURE_BYTES]
    return data[: max(data.rfind(mark) for mark in (b" ", b'"', b"\n", b",")) + 1]
