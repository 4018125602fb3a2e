"""What an execution needs of everybody else: one immutable snapshot per configuration."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import attrs

from cpa.credentials.model import Credential
from cpa.formats.thinking import Thinking, split_suffix
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.payload import Payload
from cpa.pipeline.plan import Plan
from cpa.pipeline.stage import CompletionCall, Outcome, Registration
from cpa.pipeline.trace import Trace
from cpa.pipeline.translating import TranslationServices
from cpa.types import Accounts, Candidate, ModelResolver, PluginId, Refresher, RequestId, Scheduler


class CompletionSink(Protocol):
    """Runs completion events outside the exchange that caused them, so that its client does not wait."""

    async def submit(self, call: CompletionCall, entries: Sequence[Registration]) -> None:
        """Take *call* over; waits only while too many are running."""
        ...


class Watched(Protocol):
    """One execution that somebody may look at.

    Attributes:
      trace: where the execution notes what it does.
    """

    trace: Trace

    def first_byte(self) -> None:
        """The answer begins."""
        ...

    def ended(self, outcome: Outcome, error: BaseException | None) -> None:
        """It is over. Must not raise."""
        ...


class Watcher(Protocol):
    """Is told of executions that no client's request accounts for: those that plugins start."""

    def begun(self, request: ModelRequest, request_id: RequestId) -> Watched | None:
        """One begins; None = nobody wants to know. Must not raise."""
        ...


def suffix_wish(candidate: Candidate, model: str) -> Thinking | None:
    """A `Services.thinking_of` that knows no configured names."""
    split = split_suffix(model)
    return None if split is None else split[1]


def no_forced_name(candidate: Candidate, model: str) -> str:
    """A `Services.answer_name` that knows no configured names."""
    return ""


@attrs.frozen(kw_only=True)
class Services:
    """All that an execution needs; one immutable snapshot per configuration, kept by the executions it started.

    Attributes:
      passthrough_headers: a provider's response headers reach the client.
      max_event_bytes: largest event of a provider's stream.
      nested_depth: executions inside one another; deeper ones are a loop.
      translation: what translating needs.
      refresher: renews what a provider refused; None = nothing can be renewed.
      attempted: hears of the end of every attempt with a credential, and whether it had an answer; must not raise.
      accounts: told of every attempt that generates something.
      payload: the operator's rules for bodies that go to native providers.
      thinking_of: what names say of reasoning when a candidate serves the model of that name.
      answer_name: how answers of a candidate call the model of that name; empty = as the provider does.
      direct: plugins whose executor a router may choose, each with what it runs on: no credential.
      watcher: None = nobody watches.
    """

    plan: Plan
    models: ModelResolver
    scheduler: Scheduler
    completions: CompletionSink
    passthrough_headers: bool = False
    max_event_bytes: int = 50 << 20
    nested_depth: int = 8
    translation: TranslationServices = attrs.field(factory=TranslationServices)
    accounts: Accounts | None = None
    refresher: Refresher | None = None
    attempted: Callable[[Credential, bool], None] | None = None
    direct: Mapping[PluginId, Candidate] = attrs.field(factory=dict)
    payload: Payload = attrs.field(factory=Payload)
    thinking_of: Callable[[Candidate, str], Thinking | None] = suffix_wish
    answer_name: Callable[[Candidate, str], str] = no_forced_name
    watcher: Watcher | None = None

    @cached_property
    def untouched(self) -> bool:
        """Nobody takes part in executions: neither plugins nor chains nor payload rules."""
        return self.plan.empty and not self.plan.chains and not self.payload
