"""Legacy text completions over Chat: the request one way, answer and chunks the other (proxy.md 1.8)."""

import msgspec

from cpa.errors import MalformedRequest, UpstreamProtocolError
from cpa.formats.json import JsonError, decode, decode_members, encode, has_member
from cpa.types import JsonValue

_COPIED = (
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "stream",
    "logprobs",
    "top_logprobs",
    "echo",
)


def to_chat(body: bytes) -> bytes:
    """The Chat request for a completions request.

    The prompt becomes one user message; several prompts are joined by line breaks.
    Raises: MalformedRequest for a body that is not a JSON object, and for a prompt that is missing, empty or made of
      token numbers, which no Chat provider can read.
    """
    try:
        members = decode_members(body)
        prompt = decode(bytes(members["prompt"])) if "prompt" in members else None
    except JsonError as exc:
        raise MalformedRequest(f"the request body is not a JSON object: {exc}") from exc
    chat: dict[str, object] = {name: members[name] for name in _COPIED if name in members}
    chat["messages"] = [{"role": "user", "content": _prompt_text(prompt)}]
    return encode(chat)


def from_chat(body: bytes) -> bytes:
    """The `text_completion` object for a Chat answer. Raises: UpstreamProtocolError when *body* is not an object."""
    return _convert(body, "message")[0]


def from_chat_chunk(chunk: bytes) -> bytes | None:
    """The `text_completion` chunk for a Chat chunk (bare JSON); None when it says nothing.

    An error passes as it is. Raises: UpstreamProtocolError when *chunk* is not an object.
    """
    if b'"error"' in chunk and has_member(chunk, "error") and not has_member(chunk, "choices"):
        return chunk
    converted, telling = _convert(chunk, "delta")
    return converted if telling else None


def _prompt_text(prompt: JsonValue) -> str:
    if isinstance(prompt, list):
        parts = [part for part in prompt if isinstance(part, str)]
        if len(parts) != len(prompt):
            raise MalformedRequest("prompt: expected text, got token numbers", param="prompt")
        prompt = "\n".join(parts)
    if not isinstance(prompt, str) or not prompt.strip():
        raise MalformedRequest("prompt: expected a text that is not empty", param="prompt")
    return prompt


def _convert(body: bytes, source: str) -> tuple[bytes, bool]:
    """The converted object, and whether it has text, a finish reason or usage."""
    try:
        members = decode_members(body)
        listed = decode(bytes(members["choices"])) if "choices" in members else []
    except JsonError as exc:
        raise UpstreamProtocolError(f"upstream sent an answer that is not a JSON object: {exc}") from exc
    choices: list[JsonValue] = []
    telling = False
    for position, choice in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(choice, dict):
            continue
        inner = choice.get(source)
        text = _content(inner.get("content")) if isinstance(inner, dict) else ""
        finish = choice.get("finish_reason") or None
        telling = telling or bool(text) or finish is not None
        choices.append(
            {
                "index": choice.get("index", position),
                "text": text,
                "finish_reason": finish,
                "logprobs": choice.get("logprobs"),
            }
        )
    result: dict[str, object] = {
        "id": members.get("id", ""),
        "object": "text_completion",
        "created": members.get("created", 0),
        "model": members.get("model", ""),
        "choices": choices,
    }
    usage = members.get("usage", msgspec.Raw(b"null"))
    if bytes(usage) != b"null":
        result["usage"] = usage
        telling = True
    return encode(result), telling


def _content(content: JsonValue) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))
