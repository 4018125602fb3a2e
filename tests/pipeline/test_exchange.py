"""The state table of an execution."""

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import sampled_from

from cpa.errors import IllegalTransition
from cpa.pipeline.exchange import OUTCOMES, TRANSITIONS, Event, Exchange, State


class ExchangeMachine(RuleBasedStateMachine):
    """Any order of events either follows the table or is refused and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.exchange = Exchange()
        self.endings = 0
        self.attempts = 0

    @rule(event=sampled_from(Event))
    def happen(self, event: Event) -> None:
        """One event."""
        before = self.exchange.state
        expected = TRANSITIONS.get((before, event))
        if expected is None:
            with pytest.raises(IllegalTransition) as caught:
                self.exchange.advance(event)
            assert (caught.value.state, caught.value.event) == (before, event)
            assert self.exchange.state is before
        else:
            self.exchange.advance(event)
            assert self.exchange.state is expected
            self.endings += self.exchange.ended
            self.attempts += event is Event.ATTEMPT

    @precondition(lambda self: self.exchange.ended)
    @rule(event=sampled_from(Event))
    def nothing_follows_an_end(self, event: Event) -> None:
        """Terminal states have no way out."""
        with pytest.raises(IllegalTransition):
            self.exchange.advance(event)

    @invariant()
    def ends_once(self) -> None:
        """So the completion event happens exactly once."""
        assert self.endings <= 1

    @invariant()
    def commits_only_after_an_attempt(self) -> None:
        """An answer needs a credential."""
        assert self.exchange.state is not State.COMMITTED or self.attempts


TestExchange = ExchangeMachine.TestCase
TestExchange.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_every_state_can_be_reached_and_left_unless_terminal() -> None:
    """A state nobody reaches, or a dead end that is no outcome, is a hole in the table."""
    reached = set(TRANSITIONS.values()) | {State.RECEIVED}
    left = {state for state, _ in TRANSITIONS}
    assert reached == set(State)
    assert set(State) - left == set(OUTCOMES)


def test_a_committed_answer_cannot_be_retried_or_rejected() -> None:
    """After the first byte nothing is retried."""
    exchange = Exchange(State.COMMITTED)
    for event in (Event.RETRY, Event.ATTEMPT, Event.REJECT):
        with pytest.raises(IllegalTransition, match="committed"):
            exchange.advance(event)
