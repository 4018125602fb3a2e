"""What every protocol supplies (translation 0.1). Nothing else knows two protocols at once."""

from typing import Protocol

import attrs

from cpa.translation.context import Context
from cpa.translation.ir import IREvent, IRRequest


class StreamParser(Protocol):
    """Reads one stream of a provider. Its events still have to pass `normalizer.Normalizer`."""

    def feed(self, name: str, data: bytes) -> list[IREvent]:
        """The events of one SSE frame: its event name (may be empty) and its data, which may be anything."""
        ...

    def finish(self) -> list[IREvent]:
        """The stream has ended: what is left. The normalizer makes `End` or a truncation of it."""
        ...


class StreamEmitter(Protocol):
    """Writes one stream for a client: wire bytes, whole events at a time. Events keep the invariants E1 to E9."""

    def feed(self, event: IREvent) -> bytes:
        """What the client gets for *event*, often nothing. For `Err`: the error inside the stream, and the end."""
        ...


class ParseRequest(Protocol):
    """``parse_request(body, ctx)``."""

    def __call__(self, body: bytes, ctx: Context) -> IRRequest:
        """Read a client's request. Raises: MalformedRequest, Untranslatable."""
        ...


class EmitRequest(Protocol):
    """``emit_request(request, ctx)``."""

    def __call__(self, request: IRRequest, ctx: Context) -> bytes:
        """Write a request for a provider, by ``ctx.profile``; *request* may be changed. Raises: Untranslatable."""
        ...


class ParseFull(Protocol):
    """``parse_full(body, ctx)``."""

    def __call__(self, body: bytes, ctx: Context) -> list[IREvent]:
        """The events of a provider's whole answer. Raises: UpstreamProtocolError."""
        ...


class EmitFull(Protocol):
    """``emit_full(events, ctx)``."""

    def __call__(self, events: list[IREvent], ctx: Context) -> bytes:
        """A whole answer for a client, of events that keep E1 to E9 and end with `End`."""
        ...


class OpenParser(Protocol):
    """``open_parser(ctx)``."""

    def __call__(self, ctx: Context) -> StreamParser:
        """For one stream."""
        ...


class OpenEmitter(Protocol):
    """``open_emitter(ctx)``."""

    def __call__(self, ctx: Context) -> StreamEmitter:
        """For one stream."""
        ...


@attrs.frozen(kw_only=True)
class Spoke:
    """One protocol."""

    parse_request: ParseRequest
    emit_request: EmitRequest
    parse_full: ParseFull
    emit_full: EmitFull
    open_parser: OpenParser
    open_emitter: OpenEmitter
