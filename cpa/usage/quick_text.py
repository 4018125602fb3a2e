"""The text of usual stream events, read ten times as fast as any event can be; see `cpa.usage.delivered`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from cpa.formats.names import Format

_NONE = msgspec.Raw(b"")


class _ChatDelta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = _NONE
    function_call: msgspec.Raw = _NONE


class _ChatChoice(msgspec.Struct, gc=False):
    delta: _ChatDelta | None = None
    message: msgspec.Raw = _NONE
    text: msgspec.Raw = _NONE


class _ChatEvent(msgspec.Struct, gc=False):
    choices: list[_ChatChoice] = []


class _ClaudeDelta(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _ClaudeEvent(msgspec.Struct, gc=False):
    delta: _ClaudeDelta | None = None
    content_block: msgspec.Raw = _NONE
    content: msgspec.Raw = _NONE


class _ResponsesEvent(msgspec.Struct, gc=False):
    delta: str | None = None
    output: msgspec.Raw = _NONE


class _GeminiPart(msgspec.Struct, gc=False):
    text: str | None = None
    functionCall: msgspec.Raw = _NONE
    executableCode: msgspec.Raw = _NONE


class _GeminiContent(msgspec.Struct, gc=False):
    parts: list[_GeminiPart] | None = None


class _GeminiCandidate(msgspec.Struct, gc=False):
    content: _GeminiContent | None = None


class _GeminiEvent(msgspec.Struct, gc=False):
    candidates: list[_GeminiCandidate] | None = None
    response: msgspec.Raw = _NONE


_chat = msgspec.json.Decoder(list[_ChatEvent]).decode
_claude = msgspec.json.Decoder(list[_ClaudeEvent]).decode
_responses = msgspec.json.Decoder(list[_ResponsesEvent]).decode
_gemini = msgspec.json.Decoder(list[_GeminiEvent]).decode


class Unusual(ValueError):
    """There is an event that has to be read in the slow way."""


def _chat_text(data: bytes) -> list[str | None]:
    texts: list[str | None] = []
    for event in _chat(data):
        for choice in event.choices:
            delta = choice.delta
            if delta is None or choice.message is not _NONE or choice.text is not _NONE:
                raise Unusual
            if delta.tool_calls is not _NONE or delta.function_call is not _NONE:
                raise Unusual
            texts.append(delta.content)
            if delta.reasoning_content or delta.reasoning or delta.refusal:
                texts += (delta.reasoning_content, delta.reasoning, delta.refusal)
    return texts


def _claude_text(data: bytes) -> list[str | None]:
    texts: list[str | None] = []
    for event in _claude(data):
        if event.content_block is not _NONE or event.content is not _NONE:
            raise Unusual
        delta = event.delta
        if delta is not None:
            texts += (delta.text, delta.thinking, delta.partial_json)
    return texts


def _responses_text(data: bytes) -> list[str | None]:
    texts: list[str | None] = []
    for event in _responses(data):
        if event.output is not _NONE:
            raise Unusual
        texts.append(event.delta)
    return texts


def _gemini_text(data: bytes) -> list[str | None]:
    texts: list[str | None] = []
    for event in _gemini(data):
        if event.response is not _NONE:
            raise Unusual
        for candidate in event.candidates or ():
            for part in (candidate.content and candidate.content.parts) or ():
                if part.functionCall is not _NONE or part.executableCode is not _NONE:
                    raise Unusual
                texts.append(part.text)
    return texts


_TEXTS: Final[Mapping[str, Callable[[bytes], list[str | None]]]] = {
    Format.OPENAI: _chat_text,
    Format.OPENAI_RESPONSE: _responses_text,
    Format.CODEX: _responses_text,
    Format.CLAUDE: _claude_text,
    Format.GEMINI: _gemini_text,
}


def quick_text(fmt: str, events: Sequence[bytes]) -> str:
    """What a model wrote in *events*, the data of each, all in the protocol *fmt*.

    Raises: ValueError, RecursionError, KeyError where one of them is not usual, or the protocol is unknown.
    """
    return "".join(filter(None, _TEXTS[fmt](b"[" + b",".join(events) + b"]")))
