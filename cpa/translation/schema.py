"""JSON Schema between the dialects (2.5a)."""

from cpa.translation.context import Context
from cpa.translation.profile import SchemaTier


def clean_gemini(schema: bytes, tier: SchemaTier, ctx: Context | None = None, path: str = "tools") -> bytes:
    """*schema* in the dialect of a Gemini tier."""
    return schema


def clean_claude_output(schema: bytes, ctx: Context | None = None, path: str = "response_format") -> bytes:
    """*schema* as Claude's structured output takes it."""
    return schema


def repair_root(schema: bytes) -> bytes:
    """*schema* with an object at its root."""
    return schema or b'{"type":"object","properties":{}}'


def from_openapi(schema: bytes) -> bytes:
    """Gemini's dialect (upper-case types) as JSON Schema."""
    return schema


def is_strict(schema: bytes) -> bool:
    """Whether *schema* satisfies OpenAI's strict rules."""
    return False
