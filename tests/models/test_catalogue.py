"""The shipped lists of models: clients see them, and `auto` compares their dates."""

from datetime import UTC, datetime

import pytest

from cpa.formats.models import ModelCard
from cpa.models.catalogue import catalogue
from cpa.models.registry import CHANNELS

CARDS = [(channel, card) for channel, cards in catalogue().items() for card in cards]


def test_channels_are_those_that_credentials_look_up() -> None:
    """A misspelt channel would leave a kind of key without models."""
    assert set(catalogue()) == {"claude", "gemini", "codex"}
    assert set(CHANNELS.values()) <= set(catalogue())
    assert not set(CHANNELS) & set(catalogue())


@pytest.mark.parametrize("channel", sorted(catalogue()))
def test_ids_are_unique_within_a_channel(channel: str) -> None:
    """The second one of two would never be seen."""
    ids = [card.id for card in catalogue()[channel]]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(model and model == model.strip() and model.isascii() and "/" not in model for model in ids)


@pytest.mark.parametrize(("channel", "card"), CARDS, ids=[card.id for _, card in CARDS])
def test_facts_of_a_model_are_plausible(channel: str, card: ModelCard) -> None:
    """Limits are positive or unknown, an answer fits the context, dates lie between the first such models and now."""
    limits = (card.context_length, card.max_completion_tokens, card.input_token_limit, card.output_token_limit)
    assert all(limit == 0 or 1_000 <= limit <= 10_000_000 for limit in limits)
    if card.input_tokens and card.output_tokens:
        assert card.output_tokens <= card.input_tokens
    earliest, latest = datetime(2023, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    assert card.created == 0 or earliest.timestamp() < card.created < latest.timestamp()
    assert card.display_name
    assert card.owned_by
    assert card.type == channel


def test_aliases_of_dated_models_agree_with_them() -> None:
    """``claude-x`` and ``claude-x-20250101`` are one model."""
    by_id = {card.id: card for card in catalogue()["claude"]}
    pairs = [(by_id[dated[:-9]], by_id[dated]) for dated in by_id if dated[-8:].isdigit() and dated[:-9] in by_id]
    assert pairs
    for alias, dated in pairs:
        assert (alias.created, alias.input_tokens, alias.output_tokens) == (
            dated.created,
            dated.input_tokens,
            dated.output_tokens,
        )


def test_catalogue_is_read_once_and_cannot_be_changed() -> None:
    """All registries share it."""
    assert catalogue() is catalogue()
    assert all(isinstance(cards, tuple) for cards in catalogue().values())
