"""Chat streams for clients (translation 4.7)."""

from typing import Final

from cpa.formats.errors import WireError
from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.formats.streams import DONE_FRAME, error_frames
from cpa.jsontypes import JsonObject
from cpa.translation import ids
from cpa.translation.chat.deltas import Deltas, Piece
from cpa.translation.context import Context
from cpa.translation.ir import End, Err, IREvent, Start, Stop, StopReason, Tokens, Usage
from cpa.translation.usage import answer_tier, to_chat

END_MARK: Final = DONE_FRAME
"""What follows the last chunk of a complete stream."""


def envelope(start: Start, ctx: Context, kind: str) -> JsonObject:
    """The members that all chunks of an answer share, and a whole one (3.1)."""
    model = start.model if ctx.settings.report_provider_model and start.model else ctx.client_model
    return {
        "id": ids.answer_id(start.id, Format.OPENAI, ctx),
        "object": kind,
        "created": ids.created_unix(start.created_unix, ctx),
        "model": model,
    }


class ChatEmitter:
    """Writes one stream; see `spoke.StreamEmitter`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._deltas = Deltas(ctx)
        self._tokens: Tokens | None = None
        self._usage = ctx.request is not None and ctx.request.include_usage is True
        # Clients that asked for usage find the member on all chunks, and counts on the last.
        self._tail = b'}],"usage":null}\n\n' if self._usage else b"}]}\n\n"
        self._head = b""
        self._shared: JsonObject = {}

    def feed(self, event: IREvent) -> bytes:
        """See `spoke.StreamEmitter.feed`."""
        match event:
            case Start():
                self._begin(event)
                return self._write(self._deltas.begin())
            case Usage():
                self._tokens = event.tokens
                return b""
            case End():
                return self._end()
            case Err():
                error = WireError(
                    status=event.status,
                    message=event.message,
                    code=event.code,
                    retry_after_s=event.retry_after_s,
                )
                return error_frames(Format.OPENAI, error)
            case _:
                return self._write(self._deltas.feed(event))

    def _begin(self, event: Start) -> None:
        if not self._head:
            self._shared = envelope(event, self._ctx, "chat.completion.chunk")
            self._head = b"data: " + encode(self._shared)[:-1] + b',"choices":[{"index":'

    def _write(self, pieces: list[Piece]) -> bytes:
        if not pieces:
            return b""
        if not self._head:
            self._begin(Start())
        if len(pieces) == 1:
            return self._chunk(pieces[0])
        return b"".join(self._chunk(piece) for piece in pieces)

    def _chunk(self, piece: Piece) -> bytes:
        if piece.logprobs is not None:
            return b'%b%d,"delta":%b,"logprobs":%b,"finish_reason":null%b' % (
                self._head,
                piece.choice,
                encode(piece.delta),
                encode(piece.logprobs),
                self._tail,
            )
        finish = b'"' + piece.finish.encode() + b'"' if piece.finish else b"null"
        return b'%b%d,"delta":%b,"finish_reason":%b%b' % (
            self._head,
            piece.choice,
            encode(piece.delta),
            finish,
            self._tail,
        )

    def _end(self) -> bytes:
        if not self._head:
            self._begin(Start())
        pieces = self._deltas.begin()
        for number in self._deltas.unfinished():
            pieces += self._deltas.finish(Stop(reason=StopReason.STOP, choice=number))
        out = self._write(pieces)
        if self._usage:
            tokens = self._tokens or Tokens()
            last = self._shared | {"choices": [], "usage": to_chat(tokens)}
            tier = answer_tier(tokens)
            if tier:
                last["service_tier"] = tier
            out += b"data: " + encode(last) + b"\n\n"
        return out + END_MARK
