"""What a model API route is, and which path leads to which."""

from collections.abc import Callable, Mapping
from typing import Protocol

import attrs

from cpa.config.schema import Config
from cpa.errors import MalformedRequest, RawHeaders
from cpa.formats.json import Head, StreamFlag, read_head
from cpa.formats.members import Members
from cpa.formats.names import Format
from cpa.pipeline.exchange import NO_TRACE, ModelRequest
from cpa.types import Operation, TraceId


@attrs.define(kw_only=True, eq=False)
class ClientHead:
    """A client's request without its body.

    Attributes:
      path: percent-decoded; ``query``: raw, without ``?``.
      headers: lower-case names, in order.
      peer: address of the socket's other end, never of a header.
      http_version: ``1.0``, ``1.1`` or ``2``.
      pattern, principal, trace_id: of the model request that it is going to be, see `ModelRequest`; set by who knows.
    """

    method: str
    path: str
    query: bytes = attrs.field(default=b"", repr=False)
    headers: RawHeaders = attrs.field(default=(), repr=False)
    peer: str = ""
    http_version: str = "1.1"
    pattern: str = ""
    principal: str = attrs.field(default="", repr=False)
    trace_id: TraceId = NO_TRACE

    def request(
        self,
        fmt: Format,
        operation: Operation,
        body: bytes,
        *,
        model: str,
        stream: bool,
        alt: str = "",
        members: Members | None = None,
    ) -> ModelRequest:
        """What the pipeline is to execute for it. Without Host, which header maps of plugins do not have either."""
        return ModelRequest(
            format=fmt,
            operation=operation,
            model=model,
            stream=stream,
            body=body,
            members=members,
            headers=tuple([pair for pair in self.headers if pair[0] != b"host"]),
            query=self.query,
            path=self.pattern,
            alt=alt,
            principal=self.principal,
            peer=self.peer,
            trace_id=self.trace_id,
        )

    def header(self, name: bytes) -> bytes:
        """The first header of that lower-case *name*, or empty."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""


class Reshape(Protocol):
    """Turns answers of the protocol that served a request into those that its client expects."""

    def full(self, body: bytes) -> bytes:
        """A complete body."""
        ...

    def frames(self, block: bytes) -> bytes:
        """Whole events of a stream; empty when nothing is left to say."""
        ...


class Framing(Protocol):
    """Carries the events of a stream to the client in another way than as server-sent events.

    Attributes:
      headers: of the answer.
    """

    headers: RawHeaders

    def frames(self, block: bytes) -> bytes:
        """Whole events, framed; empty when there is nothing to say. Raises: UpstreamProtocolError."""
        ...

    def end(self) -> bytes:
        """What ends a stream that is complete."""
        ...

    def failure(self, block: bytes, *, told: bool) -> bytes:
        """The event that tells of an error, and what ends the stream then.

        Args:
          told: the provider itself said so; otherwise its answer was cut off.
        """
        ...


Parse = Callable[[ClientHead, bytes], ModelRequest]


@attrs.frozen(kw_only=True)
class ModelRoute:
    """A path that executes a model.

    Attributes:
      pattern: for logs, metrics and plugins.
      format: protocol of requests, answers and errors.
      parse: from head and decoded body to what the pipeline executes. Raises: RequestError.
      reshape: None when the pipeline's answers are what the client expects.
      framing: for one stream; None = server-sent events, as nearly everywhere.
    """

    pattern: str
    format: Format
    parse: Parse
    reshape: Callable[[], Reshape] | None = None
    framing: Callable[[ClientHead, Config], Framing | None] = lambda head, config: None


def model_head(body: bytes) -> Head:
    """Model and stream flag of *body*. Raises: MalformedRequest when there is no model."""
    head = read_head(body)
    if not head.model:
        raise MalformedRequest("model: expected a non-empty string, got none", param="model", code="missing_model")
    return head


def generation(fmt: Format, streams: Callable[[StreamFlag], bool]) -> Parse:
    """A parser for protocols whose bodies name the model and say whether to stream; *streams* reads that flag."""

    def parse(head: ClientHead, body: bytes) -> ModelRequest:
        found = model_head(body)
        return head.request(
            fmt, Operation.GENERATE, body, model=found.model, stream=streams(found.stream), members=found.members
        )

    return parse


Routes = Mapping[str, ModelRoute]
