"""What a candidate's model takes: what is known of its name, its credential's host, and what the operator says."""

from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final

import attrs
import msgspec

from cpa.config.schema import ThinkingSpec
from cpa.formats.names import Format
from cpa.models.aliases import entry_of
from cpa.models.shapes import excluded
from cpa.translation.profile import Capability, CapabilityKind, ModelProfile, SamplingRule, default_profile
from cpa.types import Candidate

VENDOR_KEYS: Final = frozenset({"claude", "gemini", "vertex", "codex", "xai"})
"""Providers that are the vendor itself unless a credential names another host."""


def profile_of(candidate: Candidate, provider: Format) -> ModelProfile:
    """The profile of *candidate*, whose executor speaks *provider*."""
    credential = candidate.credential
    profile = known_profile(candidate.model, provider)
    vendor = credential.provider in VENDOR_KEYS and not credential.base_url
    entry = entry_of(credential, candidate.model)
    if entry is not None and entry.thinking is not None:
        profile = attrs.evolve(profile, reasoning=capability(entry.thinking))
    compatible = entry is not None and entry.is_compat
    return attrs.evolve(profile, vendor_host=vendor and not compatible, native_extras=not compatible)


def capability(spec: ThinkingSpec) -> Capability:
    """What the operator says of a model's reasoning."""
    budget, levels = spec.max > 0, bool(spec.levels)
    kind = CapabilityKind.NONE
    if budget and levels:
        kind = CapabilityKind.HYBRID
    elif budget or levels:
        kind = CapabilityKind.BUDGET if budget else CapabilityKind.LEVEL
    return Capability(
        kind=kind,
        min=spec.min,
        max=spec.max,
        zero_ok=spec.zero_allowed,
        dynamic_ok=spec.dynamic_allowed,
        levels=spec.levels,
    )


@lru_cache(maxsize=1024)
def known_profile(model: str, provider: Format) -> ModelProfile:
    """What is known of a model of that name; the protocol's defaults for others."""
    base = default_profile(provider)
    for rule in _rules():
        if excluded(model, rule["match"]):
            return attrs.evolve(base, **_members(rule))
    return base


@cache
def _rules() -> list[dict[str, Any]]:
    """The shipped list; the first that matches counts."""
    rules: list[dict[str, Any]] = msgspec.json.decode(files("cpa.models").joinpath("profiles.json").read_bytes())
    return rules


def _members(rule: Mapping[str, Any]) -> dict[str, Any]:
    members = {name: value for name, value in rule.items() if name != "match"}
    if "sampling" in members:
        members["sampling"] = SamplingRule(members["sampling"])
    if "reasoning" in members:
        stated = dict(members["reasoning"])
        stated["kind"] = CapabilityKind(stated["kind"])
        stated["levels"] = tuple(stated.get("levels", ()))
        members["reasoning"] = Capability(**stated)
    return members
