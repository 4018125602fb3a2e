"""What a request will cost before anybody has counted: the size of its prompt, and the most it wants written."""

from collections.abc import Iterator
from typing import Final

import attrs
import msgspec

from cpa.formats.estimate import count_chars, estimate_chars
from cpa.formats.json import repair

TOKENS_PER_MESSAGE: Final = 4
MEDIA_TOKENS: Final = 1500
"""Of an image or a file in the body; the same for all, since nothing here looks into them."""
MEDIA_CHARS: Final = 1000
"""A longer text without any blank is encoded data."""
MAX_STATED: Final = 1 << 30
"""More output than that nobody means."""

_CONVERSATION: Final = ("system", "instructions", "systemInstruction", "system_instruction", "tools", "prompt")
_TURNS: Final = ("messages", "input", "contents")
_NOT_PROMPT: Final = frozenset(
    {"role", "type", "id", "call_id", "tool_call_id", "tool_use_id", "signature", "encrypted_content", "mimeType"}
    | {"thoughtSignature", "thought_signature", "media_type", "mime_type", "detail", "status"}
)
"""Members whose texts no model reads."""
_OUTPUT_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_GENERATION: Final = ("generationConfig", "generation_config")
_GENERATION_LIMITS: Final = ("maxOutputTokens", "max_output_tokens")

_decode = msgspec.json.Decoder().decode


@attrs.frozen(kw_only=True)
class Asked:
    """Attributes:
    input_tokens: roughly, of the whole conversation.
    output_tokens: the most that the client allows to be written; None = it does not say.
    """

    input_tokens: int = 0
    output_tokens: int | None = None


def read_asked(body: bytes) -> Asked:
    """What *body*, a client's request in any protocol, asks for. Never raises: what cannot be read asks nothing."""
    try:
        value = _decode(body)
    except (ValueError, RecursionError):
        try:
            value = _decode(repair(body))
        except (ValueError, RecursionError):
            return Asked()
    if not isinstance(value, dict):
        return Asked()
    return Asked(input_tokens=_input(value), output_tokens=_output(value))


def _input(body: dict[str, object]) -> int:
    plain = wide = extra = 0
    for name in (*_CONVERSATION, *_TURNS):
        value = body.get(name)
        if name in _TURNS and isinstance(value, list):
            extra += TOKENS_PER_MESSAGE * len(value)
        for text in _strings(value):
            if len(text) > MEDIA_CHARS and " " not in text[:MEDIA_CHARS]:
                extra += MEDIA_TOKENS
                continue
            more_plain, more_wide = count_chars(text)
            plain += more_plain
            wide += more_wide
    return estimate_chars(plain, wide) + extra


def _strings(value: object) -> Iterator[str]:
    """All texts in *value* that a model may read."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            left += (inner for name, inner in item.items() if name not in _NOT_PROMPT or not isinstance(inner, str))


def _output(body: dict[str, object]) -> int | None:
    stated = [body.get(name) for name in _OUTPUT_LIMITS]
    for outer in _GENERATION:
        generation = body.get(outer)
        if isinstance(generation, dict):
            stated += [generation.get(name) for name in _GENERATION_LIMITS]
    counts = [count for count in stated if type(count) is int and 0 <= count <= MAX_STATED]
    return max(counts, default=None)
