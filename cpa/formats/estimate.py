"""How many tokens a text is, roughly: one rule for everybody who has to say so without asking a provider.

The estimate is not a tokenizer: those need vocabularies of megabytes, and no two vendors share one. It is stable, the
same text is always as many, and errs by some ten percent on prose and code.
"""

import math
from typing import Final

ASCII_CHARS_PER_TOKEN: Final = 3.9
TOKENS_PER_WIDE_CHAR: Final = 0.85
"""Of other scripts: Cyrillic and Greek need half a token a letter, Chinese one or a little more."""


def estimate_text(text: str) -> int:
    """How many tokens *text* is, roughly."""
    return estimate_chars(*count_chars(text))


def count_chars(text: str) -> tuple[int, int]:
    """ASCII characters and others in *text*: these add up over the pieces of a text, tokens do not."""
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return plain, len(text) - plain


def estimate_chars(plain: int, wide: int) -> int:
    """How many tokens a text of so many ASCII and other characters is."""
    return math.ceil(plain / ASCII_CHARS_PER_TOKEN + wide * TOKENS_PER_WIDE_CHAR)
