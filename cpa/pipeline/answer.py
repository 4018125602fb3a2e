"""What an execution gives: a whole body, or a stream of wire frames with the provider's connection behind it."""

from contextlib import suppress

import attrs
import trio

from cpa.credentials.model import Credential
from cpa.errors import CpaError, RawHeaders, UpstreamError, UpstreamStatusError, UpstreamStreamError
from cpa.formats.errors import WireError
from cpa.formats.names import Format
from cpa.formats.redaction import hide
from cpa.formats.streams import StreamReader
from cpa.pipeline.exchange import Event, Exchange
from cpa.pipeline.payload import force_model_events
from cpa.pipeline.stream import ChunkStages
from cpa.types import AttemptAccount, Selection, UpstreamAnswer

START_HOLD_S = 2.0
"""How long start events wait for what follows them (translation 4.1)."""
TAIL_S = 10.0
"""How long an answered stream may be silent before it counts as ended. Longer than translation 4.1's 2 s: when several
choices were asked for, the first one's end is seen while others still think."""
JSON_HEADERS: RawHeaders = ((b"content-type", b"application/json"),)


@attrs.define(kw_only=True, eq=False)
class Answer:
    """What the client gets: either a whole *body* or a *stream* of wire frames.

    Attributes:
      headers: for the client, lower-case names, without those of the connection.
      credential: who served it.
      format: the client's protocol; ``stream`` raises CpaError on failures after its first frames.
    """

    format: Format
    headers: RawHeaders
    credential: Credential
    body: bytes = attrs.field(default=b"", repr=False)
    stream: "AnswerStream | None" = None


class AnswerStream:
    """Wire frames for the client, whole events at a time.

    Iterating raises CpaError when the provider fails midway, after which there is nothing more. Frames are a provider's
    own bytes unless a stage changed them.

    Attributes:
      reader: knows the state of the provider's stream.
      failure: what ended the stream after its first frames, None = nothing did.
    """

    def __init__(
        self,
        *,
        answer: UpstreamAnswer,
        reader: StreamReader,
        exchange: Exchange,
        stages: ChunkStages | None,
        source: str,
        translated: bool,
        credential: Credential,
        account: AttemptAccount | None,
        forced_model: str = "",
        selection: Selection | None = None,
    ) -> None:
        self._answer = answer
        self._chunks = answer.chunks()
        self._exchange = exchange
        self._stages = stages
        self._source = source
        self._translated = translated
        self._credential = credential
        self._account = account
        self._forced_model = forced_model
        self._passing = stages is None and not forced_model
        self._first = b""
        self._ended = False
        self._selection = selection
        self.reader = reader
        self.failure: CpaError | None = None

    def next_sequence(self) -> int:
        """`sequence_number` of the next event of a Responses stream; 0 elsewhere."""
        ours = None if self._stages is None else self._stages.next_sequence
        return self.reader.next_sequence() if ours is None else ours

    def failure_frames(self, error: WireError) -> bytes:
        """*error* as the client's last event, where that tells what the answer was so far; empty where it does not."""
        frames = b"" if self._stages is None else self._stages.failure(error)
        return force_model_events(frames, self._forced_model) if frames and self._forced_model else frames

    async def prefetch(self) -> None:
        """Have the first deliverable frames in hand. Raises: UpstreamError, when another attempt may still be made.

        Start events say nothing yet: many failures come right behind them. As long as they are all there is, they are
        held back for a moment, so that such a failure is answered with its own status.
        """
        block = await self._read()
        with trio.move_on_after(START_HOLD_S):
            while not (self.reader.substantial or self._ended or self.reader.fault):
                block += await self._read()
        fault = self.reader.fault
        if fault is not None and not self.reader.substantial:
            body = hide(fault.body, self._credential.secrets())
            raise UpstreamStatusError(
                status=fault.status, headers=JSON_HEADERS, body=body, provider_format=self._source
            )
        self._first = await self._through(block) or await self._advance()

    def __aiter__(self) -> "AnswerStream":
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        account, reader = self._account, self.reader
        if account is not None:
            account.delivered()  # whoever asks for more has taken what there was
        try:
            if self._passing:
                # Nearly all blocks of nearly all streams come this way, which is `_advance` without its turnings.
                while not (reader.terminal or reader.fault is not None or self._ended):
                    try:
                        block = reader.feed(await self._chunks.__anext__())
                    except StopAsyncIteration:
                        break
                    if block:
                        if account is not None:
                            account.feed(block)
                        return block
            block = await self._advance()
        except CpaError as exc:
            self._exchange.advance(Event.FAIL)
            self.failure = exc
            if self._selection is not None and isinstance(exc, UpstreamError):
                self._selection.failed(exc, committed=True)  # nothing else is tried, but the credential is marked
            raise
        if block:
            return block
        if not self._exchange.ended:
            self._exchange.advance(Event.SUCCEED)
        raise StopAsyncIteration

    async def _advance(self) -> bytes:
        """The next frames, or empty at a clean end. Raises: UpstreamError, StageError."""
        while not self._ended:
            fault = self.reader.fault
            if fault is not None:
                if self._account is not None:
                    self._account.feed(fault.frame)  # a failed answer may have been paid for, and says so
                # Clients understand events of their own protocol only.
                frame = b"" if self._translated else hide(fault.frame, self._credential.secrets())
                raise UpstreamStreamError(fault.message, status=fault.status, code=fault.code, frame=frame)
            block = await self._through(await self._read())
            if self._stages is not None and self._stages.ended:
                self._ended = True
            if block:
                return block
        return b""

    async def _read(self) -> bytes:
        """The provider's next whole events; sets `_ended` at a clean end. Raises: UpstreamError."""
        block = await self._next()
        if block and self._account is not None:
            self._account.feed(block)
        return block

    async def _next(self) -> bytes:
        reader = self.reader
        if reader.done:
            await self._answer.drain()
        elif reader.terminal:
            # What may follow is an end mark or the usage. The answer is complete without: neither a provider that
            # keeps the connection open nor one that breaks it can spoil it any more.
            with trio.move_on_after(TAIL_S), suppress(StopAsyncIteration, UpstreamError):
                return reader.feed(await self._chunks.__anext__())
        else:
            with suppress(StopAsyncIteration):
                return reader.feed(await self._chunks.__anext__())
        block = reader.finish()
        self._ended = reader.fault is None
        return block

    async def _through(self, block: bytes) -> bytes:
        """What the client gets of *block*: after the chunk stages, and under the name that answers shall carry."""
        block = await self._staged(block)
        return force_model_events(block, self._forced_model) if self._forced_model else block

    async def _staged(self, block: bytes) -> bytes:
        """*block* after the chunk stages, with the client's end mark where they own it."""
        if self._stages is None:
            return block
        block = await self._stages.feed(block) if block else b""
        return block + await self._stages.finish() if self._ended else block
