"""What is assumed of models."""

import attrs
import pytest

from cpa.config.schema import ModelEntry, ThinkingSpec
from cpa.credentials.model import Credential
from cpa.formats.names import Format
from cpa.models.catalogue import catalogue
from cpa.models.profiles import capability, known_profile, profile_of
from cpa.testing.fakes import FakeAnswer, FakeExecutor
from cpa.translation.profile import CapabilityKind, SamplingRule
from cpa.types import Candidate

EXECUTOR = FakeExecutor(Format.CLAUDE, lambda call: FakeAnswer([]))


def candidate(model: str, provider: str = "claude", **credential: object) -> Candidate:
    made = Credential(id="c", provider=provider, label="l", **credential)  # type: ignore[arg-type]
    return Candidate(credential=made, model=model, executor=EXECUTOR)


@pytest.mark.parametrize(
    ("model", "fmt", "kind"),
    [
        ("claude-sonnet-4-5-20250929", Format.CLAUDE, CapabilityKind.BUDGET),
        ("claude-sonnet-4-6", Format.CLAUDE, CapabilityKind.HYBRID),
        ("claude-opus-5", Format.CLAUDE, CapabilityKind.LEVEL),
        ("claude-3-5-haiku-20241022", Format.CLAUDE, CapabilityKind.NONE),
        ("gemini-2.5-flash-lite", Format.GEMINI, CapabilityKind.BUDGET),
        ("gemini-3.6-flash", Format.GEMINI, CapabilityKind.LEVEL),
        ("gpt-5.6", Format.CODEX, CapabilityKind.LEVEL),
        ("something-else", Format.OPENAI, CapabilityKind.UNKNOWN),
    ],
)
def test_known_names_have_capabilities(model: str, fmt: Format, kind: CapabilityKind) -> None:
    """The most special pattern counts; others are not judged."""
    assert known_profile(model, fmt).reasoning.kind is kind


def test_every_model_of_the_catalogue_is_known() -> None:
    """A new one must not be forgotten here."""
    formats = {"claude": Format.CLAUDE, "gemini": Format.GEMINI, "codex": Format.CODEX}
    unknown = [
        card.id
        for provider, cards in catalogue().items()
        for card in cards
        if known_profile(card.id, formats[provider]).reasoning.kind is CapabilityKind.UNKNOWN
    ]
    assert unknown == []


def test_newer_claude_models_take_no_sampling() -> None:
    """They answer 400 to it (translation 2.0)."""
    assert known_profile("claude-opus-4-7", Format.CLAUDE).sampling is SamplingRule.NONE
    assert known_profile("claude-sonnet-4-5", Format.CLAUDE).sampling is SamplingRule.ONE_OF_TEMP_TOP_P


def test_the_operators_word_counts() -> None:
    """And a host of its own is not the vendor's."""
    spec = ThinkingSpec(min=0, max=0, levels=("low", "high"), zero_allowed=True)
    entry = ModelEntry(name="claude-sonnet-4-5", thinking=spec, is_compat=True)
    profile = profile_of(candidate("claude-sonnet-4-5", models=(entry,)), Format.CLAUDE)
    assert profile.reasoning == capability(spec)
    assert profile.reasoning.kind is CapabilityKind.LEVEL
    assert not profile.vendor_host
    assert not profile.native_extras
    assert profile_of(candidate("claude-sonnet-4-5"), Format.CLAUDE).vendor_host
    assert not profile_of(candidate("m", base_url="http://127.0.0.1:1"), Format.CLAUDE).vendor_host
    assert capability(attrs.evolve(spec, levels=())).kind is CapabilityKind.NONE
