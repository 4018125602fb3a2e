"""Names of the protocols, as configuration, plugins and logs write them."""

from collections.abc import Mapping
from enum import StrEnum


class Format(StrEnum):
    """A wire protocol. `CODEX` is the Responses dialect that keyed Responses providers speak."""

    OPENAI = "openai"
    OPENAI_RESPONSE = "openai-response"
    CLAUDE = "claude"
    GEMINI = "gemini"
    CODEX = "codex"


ALIASES: Mapping[str, Format] = {
    **dict.fromkeys(
        ("chat-completions", "chat_completions", "openai-chat-completions", "openai_chat_completions"), Format.OPENAI
    ),
    **dict.fromkeys(("responses", "openai-responses", "openai_responses"), Format.OPENAI_RESPONSE),
    "anthropic": Format.CLAUDE,
}
"""Other names that plugins use, in lower case (plugin-abi 4.7.2)."""

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


TRANSLATED: frozenset[Format] = frozenset(Format)
"""Protocols that can be translated into one another."""


def translates(client: str, provider: str) -> bool:
    """Whether bodies have to be, and can be, carried from a client's protocol to a provider's and back."""
    known = client in TRANSLATED and provider in TRANSLATED and client != Format.CODEX
    return known and (client, provider) not in SAME_WIRE


def carries(client: str, provider: str) -> bool:
    """Whether bodies get from one to the other at all, translated or as they are."""
    return client == provider or (client, provider) in SAME_WIRE or translates(client, provider)
