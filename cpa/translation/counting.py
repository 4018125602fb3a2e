"""Token counts across protocols, and the estimate where nobody counts (translation Part 6).

Of texts it is `cpa.formats.estimate`'s: stable, which is what clients that trim their history need.
"""

from typing import Final

import msgspec

from cpa.errors import MalformedRequest, UpstreamProtocolError
from cpa.formats.estimate import count_chars, estimate_chars
from cpa.formats.json import decode_members, encode
from cpa.formats.names import Format
from cpa.translation.ir import (
    Call,
    Compaction,
    IRRequest,
    Media,
    MediaKind,
    Native,
    Part,
    Reasoning,
    Refusal,
    Result,
    ServerCall,
    ServerResult,
    Text,
)

TOKENS_PER_MESSAGE: Final = 4
SAMPLE_BYTES: Final = 1024
MAX_SAMPLES: Final = 24
MEDIA_TOKENS: Final = {MediaKind.IMAGE: 1500, MediaKind.FILE: 3000, MediaKind.AUDIO: 500, MediaKind.VIDEO: 3000}

COUNTED_BY_PROVIDER: Final = frozenset({Format.CLAUDE, Format.GEMINI})
"""Protocols with a counting endpoint that a foreign request can be translated for."""
_NOT_COUNTED: Final = frozenset({"max_tokens", "stream", "metadata", "stop_sequences", "service_tier", "temperature"})
"""Members that the Claude endpoint refuses or that cost nothing."""


def estimate(request: IRRequest) -> int:
    """How many tokens *request* is, roughly; the same for the same request."""
    texts = [block.text for block in request.system]
    literals: list[msgspec.Raw] = []
    plain = extra = 0
    for turn in request.turns:
        extra += TOKENS_PER_MESSAGE
        for part in turn.parts:
            if type(part) is Result:
                plain += len(part.json)
            for inner in part.parts if type(part) is Result else (part,):
                if type(inner) is Text and inner.literal:
                    literals.append(inner.literal)
                elif type(inner) is Call:
                    plain += len(inner.name) + len(inner.args)
                else:
                    extra += _media_tokens(inner)
                    texts.extend(_texts(inner))
    for tool in request.tools:
        texts += (tool.name, tool.description)
        plain += len(tool.schema or tool.grammar or tool.config)
    counts = [count_chars("\n".join(texts)), _of_literals(literals)]
    plain += sum(ascii_chars for ascii_chars, _ in counts)
    return estimate_chars(plain, sum(wide for _, wide in counts)) + extra + TOKENS_PER_MESSAGE


def _of_literals(literals: list[msgspec.Raw]) -> tuple[int, int]:
    """ASCII characters and others in long texts, of which some are looked at, and stand for all: to decode a session's
    files and logs for an estimate costs more than the translation."""
    sizes = [len(literal) - 2 for literal in literals]
    ascii_chars = wide = seen = 0
    for place in range(0, len(literals), max(1, len(literals) // MAX_SAMPLES)):
        sample = bytes(memoryview(literals[place])[1 : 1 + min(sizes[place], SAMPLE_BYTES)])
        counted = count_chars(sample.decode("utf-8", "ignore"))
        ascii_chars += counted[0] - sample.count(b"\\")  # an escape is two bytes for one character, nearly always
        wide += counted[1]
        seen += len(sample)
    size = sum(sizes)
    return (ascii_chars * size // seen, wide * size // seen) if seen else (0, 0)


def _texts(part: Part) -> list[str]:
    match part:
        case Text() | Refusal() | Media():
            return [part.text]
        case Reasoning():
            return part.texts
        case ServerCall() | ServerResult() | Native():
            return [part.raw.decode("utf-8", "replace")]
        case Call() | Result() | Compaction():
            return []


def _media_tokens(part: Part) -> int:
    return MEDIA_TOKENS[part.media] if isinstance(part, Media) and not part.text else 0


def unwrap_count_request(client: Format, body: bytes) -> bytes:
    """The request whose tokens a client asks for; Gemini clients may wrap it. Raises: MalformedRequest."""
    if client is not Format.GEMINI:
        return body
    try:
        members = decode_members(body)
    except ValueError as exc:
        raise MalformedRequest(f"the body is not a JSON object: {exc}") from exc
    wrapped = members.get("generateContentRequest", members.get("generate_content_request"))
    return body if wrapped is None else bytes(wrapped)


def count_request(provider: Format, body: bytes, model: str) -> bytes:
    """A translated request as *provider*'s counting endpoint takes it."""
    members = decode_members(body)
    if provider is Format.GEMINI:
        name = msgspec.Raw(encode(f"models/{model}"))
        return encode({"generateContentRequest": {"model": name, **members}})
    return encode({name: value for name, value in members.items() if name not in _NOT_COUNTED})


_COUNT_NAMES: Final = ("input_tokens", "totalTokens", "total_tokens")
_COUNT_DIGITS: Final = 15
"""More cannot be meant."""


def read_count(provider: Format, body: bytes) -> int:
    """The number in a provider's answer. Raises: UpstreamProtocolError."""
    name = "totalTokens" if provider is Format.GEMINI else "input_tokens"
    try:
        number = bytes(decode_members(body)[name])
    except (ValueError, KeyError):
        number = b""
    if not number.isdigit() or len(number) > _COUNT_DIGITS:
        raise UpstreamProtocolError("the provider's token count has no number in it")
    return int(number)


def find_count(body: bytes) -> int | None:
    """The number in a plugin's answer, in whichever protocol's words it is; None when there is none.

    Plugins' executors count in the words of their output format or in none's (plugin-abi 4.7.5 has ``total_tokens``).
    """
    try:
        members = decode_members(body)
    except ValueError:
        return None
    for name in _COUNT_NAMES:
        number = bytes(members[name]) if name in members else b""
        if number.isdigit() and len(number) <= _COUNT_DIGITS:
            return int(number)
    return None


def count_reply(client: Format, tokens: int) -> bytes:
    """*tokens* as a client wants to hear them."""
    match client:
        case Format.GEMINI:
            details = [{"modality": "TEXT", "tokenCount": tokens}]
            return encode({"totalTokens": tokens, "promptTokensDetails": details})
        case Format.OPENAI_RESPONSE:
            return encode({"object": "response.input_tokens", "input_tokens": tokens})
        case _:
            return encode({"input_tokens": tokens})
