"""Ids, values and Protocols that several layers share."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Final, NewType, Protocol, runtime_checkable

import attrs
import msgspec

from cpa.credentials.model import Credential
from cpa.errors import CpaError, RawHeaders, UpstreamError
from cpa.formats.members import Members
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject as JsonObject
from cpa.jsontypes import JsonValue as JsonValue

RequestId = NewType("RequestId", str)
"""Random UUID of one execution."""
TraceId = NewType("TraceId", str)
"""8 lower-case hex digits of one inbound HTTP request; empty for executions that none started."""
PluginId = NewType("PluginId", str)
"""Base name of a plugin's library, ``[A-Za-z0-9][A-Za-z0-9._-]{0,127}``."""


NESTED_CALLS: Final = "nested calls"
"""Set in `Execution.memory` once a plugin has started an execution inside this one, which then has its own account."""


class Operation(StrEnum):
    """What a client wants of a model."""

    GENERATE = "generate"
    COUNT_TOKENS = "count_tokens"
    COMPACT = "compact"
    """OpenAI Responses: a conversation in fewer tokens, readable by its vendor only."""
    EMBED = "embed"
    """OpenAI's embeddings."""


@attrs.frozen(kw_only=True, slots=False)  # made for every request: without slots in two thirds of the time
class Execution:
    """What every call of one execution has in common.

    Attributes:
      callers: plugins whose nested calls led here, outermost first.
      metadata: plugin-abi 6.11; a stage that wants to keep or change it takes a copy.
      headers, query, path, principal, peer: of the client's request, which nested calls of a stage inherit.
      memory: what adapters keep for the length of the execution, e.g. the encoded form of a body that several plugins
        get.
    """

    request_id: RequestId
    trace_id: TraceId
    callers: tuple[PluginId, ...] = ()
    metadata: JsonObject = attrs.field(factory=dict)
    headers: RawHeaders = attrs.field(default=(), repr=False)
    query: bytes = attrs.field(default=b"", repr=False)
    path: str = ""
    principal: str = attrs.field(default="", repr=False)
    peer: str = ""
    memory: dict[object, object] = attrs.field(factory=dict, repr=False, eq=False)


class WireLog(Protocol):
    """Hears what attempts send and get on the wire; keeps references, never delays."""

    def attempt(
        self, *, url: str, method: str, headers: RawHeaders, body: Sequence[bytes] = (), auth: str = ""
    ) -> None:
        """A request goes out. *auth* is a label, never a key."""

    def attempt_response(self, status: int, headers: RawHeaders) -> None:
        """The head of the answer is here."""

    def attempt_body(self, chunk: bytes) -> None:
        """A piece of the answer's body is here, decoded."""

    def attempt_error(self, text: str) -> None:
        """The attempt ended without a (complete) answer."""


class AttemptObserver(Protocol):
    """Is told of every attempt of an execution."""

    def attempt_started(self, credential: Credential) -> None:
        """*credential* was selected."""

    def attempt_ended(self, credential: Credential, error: CpaError | None) -> None:
        """The attempt with *credential* has its answer in hand, or failed."""


class AttemptAccount(Protocol):
    """Notes what one attempt cost. Nothing in here raises or waits, and all of it may be called in any state.

    Attributes:
      response_headers: of the provider's answer, lower-case names; set when they are there.
    """

    response_headers: RawHeaders

    @property
    def counted(self) -> tuple[int, int]:
        """Tokens of the request and of the answer; once it has ended with what had to be estimated."""
        ...

    def feed(self, block: bytes) -> None:
        """Whole events of a streamed answer, in the provider's protocol."""

    def delivered(self) -> None:
        """The client has taken all that was fed so far."""

    def body(self, data: bytes) -> None:
        """A whole answer, in the provider's protocol."""

    def finish(self, error: CpaError | None, *, complete: bool) -> None:
        """The attempt has ended; only the first call counts. *error*: None also for a client that left."""


@attrs.frozen(kw_only=True)
class FetchedMedia:
    """What was found at an address: *data* of the type *mime*, or else *problem* says why there is nothing."""

    mime: str = ""
    data: bytes = attrs.field(default=b"", repr=False)
    problem: str = ""


class MediaFetcher(Protocol):
    """Fetches media that a client names by address, for providers that take bytes only."""

    async def fetch(self, urls: Sequence[str], *, allowed: Sequence[str] = ()) -> Sequence[FetchedMedia]:
        """What is at each of *urls*, in their order. *allowed*: networks in CIDR form that need not be public."""
        ...


class Accounts(Protocol):
    """Keeps the accounts of attempts."""

    @property
    def wanted(self) -> bool:
        """Somebody will read them."""
        ...

    def attempt(
        self,
        *,
        credential: Credential,
        model: str,
        alias: str,
        principal: str,
        request_format: Format,
        provider_format: str,
        request_body: bytes,
        request_id: str,
        trace_id: str,
        execution: Execution | None = None,
        members: Members | None = None,
    ) -> AttemptAccount:
        """Begin the account of an attempt that starts now. *model*, *alias*: the provider's name and the client's.

        *execution*: which it belongs to, for what records tell of the client. *members*: of *request_body*, if they are
        known.
        """
        ...


@attrs.frozen(kw_only=True)
class Wire:
    """What one executor speaks when it serves a client of some protocol.

    Attributes:
      input, output: protocols of the request that it takes and of the answer that it gives. A plugin's may be of its
        own invention.
      native: it is built in: it answers with wire bytes, and its bodies meet the transforms even where the protocols
        are the client's. Plugin executors answer with units (plugin-abi 6.16), and meet transforms only on translation.
    """

    input: str
    output: str
    native: bool = True


@attrs.frozen(kw_only=True, slots=False)  # made for every request: without slots in two thirds of the time
class UpstreamCall:
    """One attempt, ready to be sent.

    Attributes:
      credential: who pays.
      execution: which the attempt belongs to.
      wire: as the executor chose it for this client.
      model: the provider's name of the model.
      body: the request body in pieces; joined they are what the provider receives.
      original: the client's body, in its own protocol, as interceptors left it.
      client_headers: as the client sent them; executors forward only what their contract names.
      query: raw query string of the client's request, without ``?``.
      alt: alternate mode of the client's protocol, e.g. ``responses/compact``.
      log: told of every step, or None.
    """

    credential: Credential
    execution: Execution
    wire: Wire
    operation: Operation
    model: str
    stream: bool
    body: tuple[bytes, ...]
    client_headers: RawHeaders
    original: bytes = attrs.field(default=b"", repr=False)
    query: bytes = b""
    alt: str = ""
    log: WireLog | None = None


class UpstreamAnswer(Protocol):
    """A provider's successful answer; belongs to the context of `Executor.open`. A plugin's pieces are units."""

    status: int
    headers: RawHeaders

    async def read(self) -> bytes:
        """The whole body. Raises: UpstreamError."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, decoded, never empty pieces. Raises: UpstreamError."""
        ...

    async def drain(self) -> None:
        """Read what little may follow the end of a stream, so that the connection can be used again; gives up soon."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Talks to one kind of provider."""

    def wire(self, client: Format) -> Wire:
        """What it speaks for a client of that protocol. Raises: UnsupportedFormat."""
        ...

    def open(self, call: UpstreamCall) -> AbstractAsyncContextManager[UpstreamAnswer]:
        """Send *call* and wait for the head of the answer.

        Raises: UpstreamStatusError for status >= 300, with the body read; UpstreamError otherwise.
        Cancellation: closes the provider's connection at once.
        """
        ...


class SelectionAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What a scheduler may know of an execution.

    Attributes:
      model: as routed, alias and suffix kept.
      format: the client's protocol.
      body: the client's, for ids of sessions in it.
      principal: the client's key, which never leaves the scheduler but as a digest.
      session: id of the connection that turns of one conversation share, e.g. a WebSocket's; empty = none.
      pin: id of the only credential that may be used; empty = any.
      preferred: provider key to the id of the credential that is used as long as it can be.
    """

    model: str
    format: Format
    operation: Operation = Operation.GENERATE
    stream: bool = False
    headers: RawHeaders = ()
    body: bytes = b""
    principal: str = ""
    session: str = ""
    pin: str = ""
    preferred: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"SelectionAsk(model={self.model!r}, format={self.format!r})"  # nothing of the client


class Selection(Protocol):
    """The credentials that one execution tries, in rounds (proxy 4.6). Synchronous on purpose: nothing can change
    between the look and the choice. Every `pick` is followed by one of `succeeded`, `failed` and `close`."""

    @property
    def metadata(self) -> JsonObject:
        """What plugins may know of the session that the execution belongs to (plugin-abi 6.11); empty without one."""
        ...

    @property
    def settled(self) -> bool:
        """The next pick is the next model of the same credential's pool; nobody is asked for it."""
        ...

    def choices(self) -> "Sequence[Candidate]":
        """One for each credential that could be picked now, best priority only, by id; for plugins that choose."""
        ...

    def pick(self, *, credential_id: str = "", strategy: str = "") -> "Candidate | None":
        """What to try next; None = nobody is left in this round.

        *credential_id*: of one of `choices`, which is taken then. *strategy*: a built-in one for this pick only.
        """
        ...

    def refreshable(self, error: UpstreamError) -> bool:
        """The picked credential was refused in a way that a new token may mend, and no operator's rule decides."""
        ...

    def failed(self, error: UpstreamError, *, committed: bool = False) -> bool:
        """What was picked last failed. *committed*: after the first byte. Returns: something else may be tried."""
        ...

    def succeeded(self) -> None:
        """What was picked last has given its first byte, or its whole answer."""
        ...

    def pause(self) -> float | None:
        """Begin another round. Returns: seconds to wait before its first `pick`; None = no more rounds."""
        ...

    def refusal(self) -> CpaError:
        """Why the execution fails: the last provider's error, else why nobody could be asked."""
        ...

    def close(self) -> None:
        """Give back what the execution holds; nothing is learnt from a client that left."""
        ...


class Scheduler(Protocol):
    """Decides which credentials executions use, and learns from how they fare."""

    def executors(self, candidates: "Sequence[Candidate]") -> Sequence[Executor]:
        """The distinct executors of *candidates*, which is the registry's own tuple."""
        ...

    def select(
        self, candidates: "Sequence[Candidate]", ask: SelectionAsk, *, executors: Sequence[Executor]
    ) -> Selection:
        """Begin the selection among those of *candidates* (1..n) that *executors* serve."""
        ...


class Refresher(Protocol):
    """Renews credentials that a provider refused (proxy 3.7)."""

    async def refresh(self, credential: Credential) -> Credential | None:
        """Renew *credential*, whose token got a 401; many at once share one attempt.

        Returns: the same credential (same id) with another token, to be tried once; also when somebody renewed it
          since *credential* was taken. None: nobody can renew it, it is disabled or gone, or renewing it failed.
        Raises nothing. Cancellation: what was begun goes on, so that what is issued is kept.
        """
        ...


@attrs.frozen(kw_only=True)
class Candidate:
    """One way to serve a model: whose key, under which name, by which executor.

    Attributes:
      executor_key: provider key of the executor; empty = the credential's.
    """

    credential: Credential
    model: str
    executor: Executor
    executor_key: str = ""

    @property
    def provider(self) -> str:
        """The provider key under which stages know it."""
        return self.executor_key or self.credential.provider


class ModelResolver(Protocol):
    """Knows who serves what."""

    def resolve(self, model: str, *, provider: str = "") -> tuple[Candidate, ...]:
        """1..n candidates in provider order; *provider* restricts them. Raises: UnknownModel, NoCredential."""
        ...

    def providers(self) -> tuple[str, ...]:
        """Sorted keys of the providers that have a usable credential."""
        ...
