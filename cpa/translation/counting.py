"""Token counts across protocols, and the estimate where nobody counts (translation Part 6).

The estimate is not a tokenizer: those need vocabularies of megabytes, and no two vendors share one. It is stable, which
is what clients that trim their history need, and errs by some ten percent on prose and code.
"""

import math
from typing import Final

import msgspec

from cpa.errors import MalformedRequest, UpstreamProtocolError
from cpa.formats.json import decode_members, encode
from cpa.formats.names import Format
from cpa.translation.ir import Call, IRRequest, Media, MediaKind, Part, Reasoning, Refusal, Result, Text

ASCII_CHARS_PER_TOKEN: Final = 3.9
TOKENS_PER_WIDE_CHAR: Final = 0.85
"""Of other scripts: Cyrillic and Greek need half a token a letter, Chinese one or a little more."""
TOKENS_PER_MESSAGE: Final = 4
MEDIA_TOKENS: Final = {MediaKind.IMAGE: 1500, MediaKind.FILE: 3000, MediaKind.AUDIO: 500, MediaKind.VIDEO: 3000}

COUNTED_BY_PROVIDER: Final = frozenset({Format.CLAUDE, Format.GEMINI})
"""Protocols with a counting endpoint that a foreign request can be translated for."""
_NOT_COUNTED: Final = frozenset({"max_tokens", "stream", "metadata", "stop_sequences", "service_tier", "temperature"})
"""Members that the Claude endpoint refuses or that cost nothing."""


def estimate(request: IRRequest) -> int:
    """How many tokens *request* is, roughly; the same for the same request."""
    texts = [block.text for block in request.system]
    extra = 0
    for turn in request.turns:
        extra += TOKENS_PER_MESSAGE
        for part in turn.parts:
            extra += _media_tokens(part)
            texts.extend(_texts(part))
    for tool in request.tools:
        texts += [tool.name, tool.description, (tool.schema or tool.grammar or tool.config).decode("utf-8", "replace")]
    return estimate_text("\n".join(texts)) + extra + TOKENS_PER_MESSAGE


def estimate_text(text: str) -> int:
    """How many tokens *text* is, roughly."""
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return math.ceil(plain / ASCII_CHARS_PER_TOKEN + (len(text) - plain) * TOKENS_PER_WIDE_CHAR)


def _texts(part: Part) -> list[str]:
    match part:
        case Text() | Refusal():
            return [part.text]
        case Media():
            return [part.text]
        case Call():
            return [part.name, part.args.decode("utf-8", "replace")]
        case Result():
            return [part.json.decode("utf-8", "replace"), *(text for inner in part.parts for text in _texts(inner))]
        case Reasoning():
            return part.texts
        case _:
            return [part.raw.decode("utf-8", "replace")] if hasattr(part, "raw") else []


def _media_tokens(part: Part) -> int:
    if isinstance(part, Result):
        return sum(_media_tokens(inner) for inner in part.parts)
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


def read_count(provider: Format, body: bytes) -> int:
    """The number in a provider's answer. Raises: UpstreamProtocolError."""
    name = "totalTokens" if provider is Format.GEMINI else "input_tokens"
    try:
        number = bytes(decode_members(body)[name])
    except (ValueError, KeyError):
        number = b""
    if not number.isdigit() or len(number) > 15:
        raise UpstreamProtocolError("the provider's token count has no number in it")
    return int(number)


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
