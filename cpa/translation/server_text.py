"""Steps of server tools as text for other providers (2.15)."""

from cpa.translation.ir import Native, ServerCall, ServerResult


def summary(part: ServerCall | ServerResult | Native) -> str:
    """What the step did, in a few lines; empty if nothing is known of it."""
    return ""
