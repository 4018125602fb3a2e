"""Counts that mean the same for every provider, out of counts as the providers' protocols mean them (proxy 7.3)."""

from enum import StrEnum

import attrs

from cpa.usage.record import Tokens
from cpa.usage.tokens import RULES


class Quality(StrEnum):
    """How well the parts explain the total."""

    COMPLETE = "complete"
    INCONSISTENT = "inconsistent"
    UNCLASSIFIED = "unclassified"


@attrs.frozen(kw_only=True, slots=False)  # made for every attempt, see `cpa.usage.record`
class Breakdown:
    """Attributes:
    input_tokens: cache reads and writes included.
    output_tokens: reasoning included.
    total_tokens: as the provider said, else the sum of both.
    """

    input_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int

    @property
    def quality(self) -> Quality:
        """See `Quality`."""
        if self.input_tokens + self.output_tokens == self.total_tokens:
            return Quality.COMPLETE
        return Quality.INCONSISTENT if self.input_tokens or self.output_tokens else Quality.UNCLASSIFIED

    @property
    def uncached_tokens(self) -> int:
        """Of the input, what came from no cache and went into none."""
        return max(0, self.input_tokens - self.cache_read_tokens - self.cache_creation_tokens)


def breakdown(fmt: str, tokens: Tokens) -> Breakdown:
    """*tokens* as the protocol *fmt* counts them, in common terms. Of unknown protocols nothing is outside the sums."""
    whole_input, read, written, whole_output, reasoning, total = common_counts(fmt, tokens)
    return Breakdown(
        input_tokens=whole_input,
        cache_read_tokens=read,
        cache_creation_tokens=written,
        output_tokens=whole_output,
        reasoning_tokens=reasoning,
        total_tokens=total,
    )


def common_counts(fmt: str, tokens: Tokens) -> tuple[int, int, int, int, int, int]:
    """The members of `breakdown` in their order, for whoever writes thousands of them."""
    rule = RULES.get(fmt)
    outside = () if rule is None else rule.outside
    whole_input, whole_output = tokens.input_tokens, tokens.output_tokens
    read, written, reasoning = tokens.cache_read_tokens, tokens.cache_creation_tokens, tokens.reasoning_tokens
    if outside:
        whole_input += ("cache_read" in outside) * read + ("cache_creation" in outside) * written
        whole_output += ("reasoning" in outside) * reasoning
    return whole_input, read, written, whole_output, reasoning, tokens.total_tokens or whole_input + whole_output
