"""Ids, values and Protocols that several layers share."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import NewType, Protocol, TypeAlias, runtime_checkable

import attrs

from cpa.credentials.model import Credential
from cpa.errors import CpaError, RawHeaders
from cpa.formats.names import Format

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""Anything that JSON can say."""
JsonObject: TypeAlias = dict[str, JsonValue]
"""A JSON object."""

RequestId = NewType("RequestId", str)
"""Random UUID of one execution."""
TraceId = NewType("TraceId", str)
"""8 lower-case hex digits of one inbound HTTP request; empty for executions that none started."""
PluginId = NewType("PluginId", str)
"""Base name of a plugin's library, ``[A-Za-z0-9][A-Za-z0-9._-]{0,127}``."""


class Operation(StrEnum):
    """What a client wants of a model."""

    GENERATE = "generate"
    COUNT_TOKENS = "count_tokens"


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


@attrs.frozen(kw_only=True)
class UpstreamCall:
    """One attempt, ready to be sent.

    Attributes:
      credential: who pays.
      model: the provider's name of the model.
      body: the request body in pieces; joined they are what the provider receives.
      client_headers: as the client sent them; executors forward only what their contract names.
      query: raw query string of the client's request, without ``?``.
      log: told of every step, or None.
    """

    credential: Credential
    operation: Operation
    model: str
    stream: bool
    body: tuple[bytes, ...]
    client_headers: RawHeaders
    query: bytes = b""
    log: WireLog | None = None


class UpstreamAnswer(Protocol):
    """A provider's successful answer; belongs to the context of `Executor.open`."""

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
    """Talks to one kind of provider.

    Attributes:
      format: protocol that the provider speaks.
    """

    format: Format

    def open(self, call: UpstreamCall) -> AbstractAsyncContextManager[UpstreamAnswer]:
        """Send *call* and wait for the head of the answer.

        Raises: UpstreamStatusError for status >= 300, with the body read; UpstreamError otherwise.
        Cancellation: closes the provider's connection at once.
        """
        ...


class Scheduler(Protocol):
    """Picks the credential of an attempt."""

    def pick(self, candidates: Sequence[Credential], *, model: str, strategy: str = "") -> Credential:
        """Choose one of *candidates* (1..n, none tried before in this round).

        *strategy* names a built-in one for this pick only; empty = as configured.
        Synchronous on purpose: nothing can change between the look and the choice. Raises: NoCredential.
        """
        ...


@attrs.frozen(kw_only=True)
class Candidate:
    """One way to serve a model: whose key, under which name, by which executor."""

    credential: Credential
    model: str
    executor: Executor


class ModelResolver(Protocol):
    """Knows who serves what."""

    def resolve(self, model: str, *, provider: str = "") -> tuple[Candidate, ...]:
        """1..n candidates in provider order; *provider* restricts them. Raises: UnknownModel, NoCredential."""
        ...

    def providers(self) -> tuple[str, ...]:
        """Sorted keys of the providers that have a usable credential."""
        ...
