"""The account of one attempt while it runs."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import attrs
import trio

from cpa.credentials.model import Credential
from cpa.errors import CpaError, RawHeaders
from cpa.formats.facts import NO_FACTS, request_facts
from cpa.formats.members import Members
from cpa.formats.names import Format
from cpa.types import Execution
from cpa.usage.asked import read_asked
from cpa.usage.delivered import DeliveredText
from cpa.usage.record import (
    NO_CLIENT,
    NO_FAILURE,
    NO_TOKENS,
    ClientFacts,
    Tokens,
    UsageRecord,
    failure_of,
    kept_headers,
    payer_of,
)
from cpa.usage.tokens import TokenMeter


@attrs.define(kw_only=True, eq=False)
class AttemptUsage:
    """What is noted of an attempt, and its record at the end; made by `UsageCollector.attempt`.

    Nothing in here raises or waits, and all of it may be called in any state.

    Attributes:
      executor_type: empty = that of the credential's provider.
      execution: which the attempt belongs to; None = nobody knows where it came from.
      members: of *request_body*, if somebody has read them.
      response_headers: of the provider's answer, lower-case names; set them when they are there.
      clock: Trio's; seconds.
      requested_at, started: when the attempt began, by the wall clock and by Trio's.
    """

    submit: Callable[[UsageRecord], None]
    credential: Credential
    model: str
    alias: str
    principal: str = attrs.field(repr=False)
    request_format: Format
    provider_format: str
    request_body: bytes = attrs.field(repr=False)
    request_id: str
    trace_id: str
    executor_type: str = ""
    execution: Execution | None = attrs.field(default=None, repr=False)
    members: Members | None = attrs.field(default=None, repr=False)
    response_headers: RawHeaders = attrs.field(default=(), repr=False)
    clock: Callable[[], float] = attrs.field(default=trio.current_time, repr=False)
    requested_at: datetime = attrs.field(factory=partial(datetime.now, UTC), init=False)
    started: float = attrs.field(init=False)
    _first_byte: float | None = attrs.field(default=None, init=False)
    _meter: TokenMeter = attrs.field(init=False)
    _text: DeliveredText | None = attrs.field(default=None, init=False)  # of answers that come in pieces
    _whole: bytes = attrs.field(default=b"", init=False, repr=False)
    _finished: bool = attrs.field(default=False, init=False)
    _stated: Tokens | None = attrs.field(default=None, init=False)  # in the end
    _estimate: Tokens = attrs.field(default=NO_TOKENS, init=False)

    def __attrs_post_init__(self) -> None:
        self.started = self.clock()
        self._meter = TokenMeter(self.provider_format)

    @property
    def counted(self) -> tuple[int, int]:
        """See `cpa.types.AttemptAccount`."""
        stated, guessed = self._stated or self._meter.tokens, self._estimate
        return stated.input_tokens + guessed.input_tokens, stated.output_tokens + guessed.output_tokens

    def first_byte(self) -> None:
        """The first byte of the answer's body is here; only the first call counts."""
        if self._first_byte is None:
            self._first_byte = self.clock()

    def feed(self, block: bytes) -> None:
        """*block*: whole events of a streamed answer, as the provider sent them."""
        if self._first_byte is None and block:
            self._first_byte = self.clock()
        meter, text = self._meter, self._text
        if meter.marker in block:
            meter.feed(block)
        if text is None:
            text = self._text = DeliveredText(self.provider_format)
        text.feed(block)

    def delivered(self) -> None:
        """The client has taken all that was fed so far."""
        if self._text is not None:
            self._text.deliver()

    def body(self, data: bytes) -> None:
        """*data*: the whole answer, as the provider sent it."""
        if self._first_byte is None and data:
            self._first_byte = self.clock()
        self._meter.read(data)
        self._whole = data

    def finish(self, error: CpaError | None, *, complete: bool) -> None:
        """The attempt has ended: make the record and submit it. Only the first call counts.

        Args:
          error: what ended it; None for success and for a client that left.
          complete: the whole answer had arrived.
        """
        if self._finished:
            return
        self._finished = True
        now = self.clock()
        credential, execution = self.credential, self.execution
        payer = payer_of(credential)
        facts = request_facts(self.request_format, self.request_body, self.members)
        tokens = self._stated = self._meter.tokens
        if not (complete and self._meter.says_something):
            self._estimate = self._estimated(tokens, complete=complete)
        elif self._text is not None:
            self._text.drop()
        self.submit(
            UsageRecord(
                request_id=self.request_id,
                trace_id=self.trace_id,
                provider=credential.provider,
                executor_type=self.executor_type or payer.executor_type,
                model=self.model,
                alias=self.alias,
                principal=self.principal,
                credential_id=credential.id,
                credential_index=credential.index,
                auth_type=payer.auth_type,
                source=payer.source,
                reasoning_effort="" if facts is NO_FACTS else facts.reasoning_effort,
                service_tier=facts.service_tier,
                generate=facts.generate,
                requested_at=self.requested_at,
                latency_s=now - self.started,
                ttft_s=0.0 if self._first_byte is None else self._first_byte - self.started,
                failed=error is not None,
                failure=NO_FAILURE if error is None else failure_of(error, (*credential.secrets(), self.principal)),
                complete=complete,
                provider_format=self.provider_format,
                tokens=tokens,
                estimated=self._estimate,
                response_headers=kept_headers(self.response_headers),
                client=NO_CLIENT
                if execution is None
                else ClientFacts(address=execution.peer, path=execution.path, headers=execution.headers),
            )
        )

    def _estimated(self, stated: Tokens, *, complete: bool) -> Tokens:
        """What the client got and the provider did not count: of an answer that was cut, or that never says."""
        text = self._text or DeliveredText(self.provider_format)
        if complete:
            text.deliver()
            text.read_whole(self._whole)
        written = text.unstated(stated.output_tokens)
        if not written and not complete:
            return NO_TOKENS  # nothing reached the client
        asked = 0 if self._meter.states("input") else read_asked(self.request_body).input_tokens
        return Tokens(input_tokens=asked, output_tokens=written, total_tokens=asked + written)
