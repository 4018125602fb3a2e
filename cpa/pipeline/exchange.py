"""The state machine of one execution: a model request and its answer.

The table below is all there is to know about order: the runner reports events, and an event that the table does not
allow in the present state is a bug in CPA, reported with both names. Terminal states have no way out, which is what
makes the completion event happen exactly once.
"""

from collections.abc import Mapping
from enum import StrEnum

import attrs

from cpa.errors import IllegalTransition, RawHeaders
from cpa.formats.members import Members
from cpa.formats.names import Format
from cpa.pipeline.stage import Outcome
from cpa.types import JsonValue, Operation, PluginId, TraceId


class State(StrEnum):
    """Where an execution stands."""

    RECEIVED = "received"
    RUNNING = "running"
    ATTEMPTING = "attempting"
    COMMITTED = "committed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"


class Event(StrEnum):
    """What may happen to it."""

    START = "start"
    """routed to a provider: from here on a completion event is owed"""
    ATTEMPT = "attempt"
    """a credential was selected"""
    RETRY = "retry"
    """the attempt failed and another credential may be tried"""
    COMMIT = "commit"
    """the first byte of the answer is in hand: no other attempt will follow"""
    SUCCEED = "succeed"
    FAIL = "fail"
    REJECT = "reject"
    CANCEL = "cancel"


NO_TRACE = TraceId("")

TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.RECEIVED, Event.START): State.RUNNING,
    (State.RUNNING, Event.ATTEMPT): State.ATTEMPTING,
    (State.RUNNING, Event.REJECT): State.REJECTED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.CANCEL): State.CANCELED,
    (State.ATTEMPTING, Event.RETRY): State.RUNNING,
    (State.ATTEMPTING, Event.COMMIT): State.COMMITTED,
    (State.ATTEMPTING, Event.REJECT): State.REJECTED,
    (State.ATTEMPTING, Event.FAIL): State.FAILED,
    (State.ATTEMPTING, Event.CANCEL): State.CANCELED,
    (State.COMMITTED, Event.SUCCEED): State.SUCCEEDED,
    (State.COMMITTED, Event.FAIL): State.FAILED,
    (State.COMMITTED, Event.CANCEL): State.CANCELED,
}

OUTCOMES: Mapping[State, Outcome] = {
    State.SUCCEEDED: Outcome.SUCCEEDED,
    State.FAILED: Outcome.FAILED,
    State.REJECTED: Outcome.REJECTED,
    State.CANCELED: Outcome.CANCELED,
}


@attrs.frozen(kw_only=True, slots=False)  # made for every request: without slots in two thirds of the time
class ModelRequest:
    """What a client asks, as its protocol's route understood it.

    Attributes:
      model: as the client wrote it.
      body: decoded (no content coding), otherwise byte for byte.
      headers: all of the client's; ``query``: raw, without ``?``.
      path: route pattern for logs and plugins, e.g. ``/v1/chat/completions``.
      principal: the client's key after authentication, or empty.
      peer: address of the client's socket; empty as below.
      trace_id: empty for executions that no HTTP request started.
      callers: plugins whose nested calls led here, outermost first.
      exit_format: protocol of the answer, where a plugin wants another one; None = the request's.
      members: of *body*, as far as somebody has read them already.
      extra_metadata: joins the metadata that plugins see, e.g. where a nested execution comes from.
      pins: provider key to the id of the credential that is to be used as long as it is usable (proxy 4.1): who keeps a
        session with a provider wants the same one each time.
    """

    format: Format
    operation: Operation
    model: str
    stream: bool
    body: bytes = attrs.field(repr=False)
    headers: RawHeaders = attrs.field(default=(), repr=False)
    query: bytes = attrs.field(default=b"", repr=False)
    path: str = ""
    alt: str = ""
    principal: str = attrs.field(default="", repr=False)
    peer: str = ""
    trace_id: TraceId = NO_TRACE
    callers: tuple[PluginId, ...] = ()
    exit_format: Format | None = None
    members: Members | None = attrs.field(default=None, repr=False, eq=False)
    extra_metadata: Mapping[str, JsonValue] = attrs.field(factory=dict)
    pins: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def answer_format(self) -> Format:
        """Protocol of the answer."""
        return self.exit_format or self.format


@attrs.define(eq=False)
class Exchange:
    """The state of one execution; `advance` is the only way to change it."""

    state: State = State.RECEIVED

    def advance(self, event: Event) -> None:
        """Follow the table. Raises: IllegalTransition."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise IllegalTransition(state=self.state, event=event) from None

    @property
    def ended(self) -> bool:
        """No event is allowed any more."""
        return self.state in OUTCOMES
