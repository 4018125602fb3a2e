"""Names of the protocols, as configuration, plugins and logs write them."""

from enum import StrEnum


class Format(StrEnum):
    """A wire protocol. `CODEX` is the Responses dialect that keyed Responses providers speak."""

    OPENAI = "openai"
    OPENAI_RESPONSE = "openai-response"
    CLAUDE = "claude"
    GEMINI = "gemini"
    CODEX = "codex"


SAME_WIRE = frozenset(
    {
        (Format.OPENAI, Format.OPENAI),
        (Format.OPENAI_RESPONSE, Format.OPENAI_RESPONSE),
        (Format.OPENAI_RESPONSE, Format.CODEX),
        (Format.CLAUDE, Format.CLAUDE),
        (Format.GEMINI, Format.GEMINI),
    }
)
"""(client, provider) pairs whose bodies pass as bytes."""
