"""The one door to translation: requests, whole answers, streams, between any two protocols (translation 1.1)."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Final

from cpa.errors import UpstreamStreamError
from cpa.formats.errors import WireError
from cpa.formats.names import Format
from cpa.formats.sse import named_data, split_events
from cpa.translation.context import Context
from cpa.translation.filters import StopGuard, open_stop_guard
from cpa.translation.ir import Close, Delta, End, Err, IREvent, IRRequest, Ping, Start, Usage
from cpa.translation.loss import StrictLoss
from cpa.translation.normalizer import Normalizer
from cpa.translation.reasoning import intent_from_suffix, with_suffix
from cpa.translation.spoke import Spoke

_PACKAGES: Final = {
    Format.OPENAI: "chat",
    Format.OPENAI_RESPONSE: "responses",
    Format.CODEX: "responses",
    Format.CLAUDE: "claude",
    Format.GEMINI: "gemini",
}


@cache
def spoke(fmt: Format) -> Spoke:
    """The protocol *fmt*; loaded when it is first needed, as most exchanges are not translated."""
    found: Spoke = import_module(f"cpa.translation.{_PACKAGES[fmt]}").SPOKE
    return found


def translate_request(body: bytes, ctx: Context) -> bytes:
    """A client's request as its provider reads it; *ctx* learns what the answer's translation needs.

    Raises: MalformedRequest, Untranslatable; StrictLoss when something was lost and ``translation.strict`` is on.
    """
    return write_request(read_request(body, ctx), ctx)


def read_request(body: bytes, ctx: Context) -> IRRequest:
    """The first half of `translate_request`, for whoever has to do something in between. Raises: likewise."""
    request = spoke(ctx.client).parse_request(body, ctx)
    ctx.request = request
    if ctx.thinking is not None:
        wish = intent_from_suffix(str(ctx.thinking.budget) if ctx.thinking.budget else ctx.thinking.effort)
        if wish is not None:
            request.reasoning = with_suffix(request.reasoning, wish)
    if ctx.responses is not None and ctx.client is Format.OPENAI_RESPONSE:
        ctx.client_body = body
    return request


def write_request(request: IRRequest, ctx: Context) -> bytes:
    """The second half. Raises: Untranslatable, StrictLoss."""
    translated = spoke(ctx.provider).emit_request(request, ctx)
    if ctx.settings.strict and ctx.losses:
        raise StrictLoss(tuple(ctx.losses))
    return translated


def translate_full(body: bytes, ctx: Context) -> bytes:
    """A provider's whole answer as the client reads it. Raises: UpstreamProtocolError."""
    normalizer = Normalizer(ctx)
    events = normalizer.feed(spoke(ctx.provider).parse_full(body, ctx))
    events += normalizer.finish()
    guard = _guard(ctx)
    if guard is not None:
        events = [passed for event in events for passed in guard.feed(event)]
    return _remembered(ctx, spoke(ctx.client).emit_full(events, ctx))


class Fold:
    """Reads a provider's stream for a client that wants a whole answer (translation 3, 2.19)."""

    __slots__ = ("_ctx", "_events", "_guard", "_normalizer", "_parser")

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._parser = spoke(ctx.provider).open_parser(ctx)
        self._normalizer = Normalizer(ctx)
        self._guard = _guard(ctx)
        self._events: list[IREvent] = []

    def feed(self, block: bytes) -> None:
        """Take *block*, whole events of the provider."""
        for event in split_events(block):
            name, data = named_data(event)
            if data is not None and data.strip():
                self._take(self._normalizer.feed(self._parser.feed(name, data)))

    def result(self) -> bytes:
        """The whole answer, when the stream has ended. Raises: UpstreamStreamError for one that ended badly."""
        self._take(self._normalizer.feed(self._parser.finish()))
        self._take(self._normalizer.finish())
        for event in self._events:
            if isinstance(event, Err):
                raise UpstreamStreamError(event.message, status=event.status, code=event.code, frame=b"")
        return _remembered(self._ctx, spoke(self._ctx.client).emit_full(self._events, self._ctx))

    def _take(self, events: list[IREvent]) -> None:
        if self._guard is None:
            self._events += events
        else:
            self._events += [passed for event in events for passed in self._guard.feed(event)]


class StreamSession:
    """One stream on its way from a provider's protocol to the client's.

    Attributes:
      ended: the client has all that it will get; what the provider still sends is of no interest (a stop sequence was
        found on its behalf).
      error: the provider reported one inside its stream.
    """

    __slots__ = ("_ctx", "_emitter", "_guard", "_normalizer", "_opening", "_parser", "_said", "_sent", "ended", "error")

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._parser = spoke(ctx.provider).open_parser(ctx)
        self._normalizer = Normalizer(ctx)
        self._guard = _guard(ctx)
        self._emitter = spoke(ctx.client).open_emitter(ctx)
        self._opening = b""
        self._said = False
        self._sent = False
        self.ended = False
        self.error: Err | None = None

    @property
    def next_sequence(self) -> int:
        """`sequence_number` of the next event of a Responses stream; 0 elsewhere."""
        number: int = getattr(self._emitter, "next_sequence", 0) if self._sent else 0
        return number

    def failure(self, error: WireError) -> bytes:
        """*error*, of whatever kind, as the last event of a Responses stream that has begun: ``response.failed`` with
        all that was said so far (4.9a). Empty where errors need nothing of what was said."""
        if not self._sent or self._ctx.client is not Format.OPENAI_RESPONSE:
            return b""
        said = Err(status=error.status, message=error.message, code=error.code, retry_after_s=error.retry_after_s)
        return self._emitter.feed(said)

    def feed(self, block: bytes) -> bytes:
        """Wire bytes for the client from *block*, whole events of the provider."""
        out = b""
        for event in split_events(block):
            name, data = named_data(event)
            if data is not None and data.strip():
                out += self._pass(self._parser.feed(name, data))
        return out

    def feed_unit(self, unit: bytes) -> bytes:
        """The same for one unit of a plugin's executor: JSON with or without its framing (plugin-abi 6.16)."""
        if unit.lstrip()[:1] in (b"{", b"["):
            return self._pass(self._parser.feed("", unit))
        return self.feed(unit)

    def finish(self) -> bytes:
        """The provider's stream has ended cleanly: what is left for the client, its end mark included."""
        return self._pass([*self._parser.finish()], last=True)

    def _pass(self, events: list[IREvent], *, last: bool = False) -> bytes:
        out = self._passed(events, last=last)
        self._sent = self._sent or bool(out)
        return out

    def _passed(self, events: list[IREvent], *, last: bool) -> bytes:
        if self.ended:
            return b""
        normal = self._normalizer.feed(events)
        if last:
            normal += self._normalizer.finish()
        out = b""
        emit: Callable[[IREvent], bytes] = self._emitter.feed
        for event in normal if self._guard is None else (e for found in normal for e in self._guarded(found)):
            if type(event) is Delta:  # as nearly all are; the questions below take longer than to write it
                out += emit(event)
                self._said = True
                continue
            if isinstance(event, Err):
                # How errors look depends on whether anything was sent, which whoever writes to the client knows.
                self.error = event
                self.ended = True
                self._opening = b""
                break
            if isinstance(event, Close) and event.failed:
                continue  # on the wire a block that an error cut off stays open: half its arguments are no call (4.9a)
            out += emit(event)
            if isinstance(event, End):
                self.ended = True
                _remembered(self._ctx, getattr(self._emitter, "response", b""))
                break
            self._said = self._said or not isinstance(event, Start | Usage | Ping)
        if self._said:
            opening, self._opening = self._opening, b""
            return opening + out if opening else out
        return self._opened(out)

    def _opened(self, out: bytes) -> bytes:
        """*out*, unless the provider has stopped without having said anything: that may yet turn out to be an error,
        which gets a status of its own as long as the client has heard nothing (4.1)."""
        if self.error is not None:
            return b""
        self._opening += out
        if self._normalizer.stopped and not self.ended:
            return b""
        opening, self._opening = self._opening, b""
        return opening

    def _guarded(self, event: IREvent) -> list[IREvent]:
        assert self._guard is not None
        return self._guard.feed(event)


def _remembered(ctx: Context, answer: bytes) -> bytes:
    """*answer*, kept for clients that will refer to it."""
    if answer and ctx.responses is not None and ctx.client_body and ctx.client is Format.OPENAI_RESPONSE:
        ctx.responses.keep(ctx.client_body, answer)
    return answer


def _guard(ctx: Context) -> StopGuard | None:
    """Providers without stop sequences get them from us (translation 2.4)."""
    if ctx.request is None or ctx.provider not in (Format.OPENAI_RESPONSE, Format.CODEX):
        return None
    return open_stop_guard(ctx.request, ctx)
