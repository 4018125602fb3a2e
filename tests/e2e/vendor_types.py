"""Requests as the providers' own SDKs type them: what a provider is sent must be of these types, and nothing beyond.

The types of the openai and anthropic SDKs are ``TypedDict``s full of ``Iterable``, which pydantic checks only when they
are read, and whose unknown members it drops: so everything is read, and what was dropped is an error.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from anthropic.types import MessageCreateParams
from google.genai import types
from openai.types.chat import CompletionCreateParams
from openai.types.responses import ResponseCreateParams
from pydantic import BaseModel, TypeAdapter, ValidationError

OUR_OWN: Mapping[str, frozenset[str]] = {
    "chat": frozenset(
        # What compatible hosts take beside the vendor's members (translation 2.10, Google's and OpenRouter's customs).
        {"reasoning_content", "reasoning_details", "extra_content", "top_k"}
    ),
    "responses": frozenset(),
    "claude": frozenset(),
}


class NotOfTheVendor(AssertionError):
    """A request that the vendor's SDK could not have sent."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _unread(given: Any, read: Any, own: frozenset[str], path: str) -> Iterator[str]:
    """Reads all of *read*, which checks it; paths of what is in *given* only."""
    if isinstance(given, dict):
        if not isinstance(read, Mapping):
            return
        for name, value in given.items():
            if name in read:
                yield from _unread(value, read[name], own, f"{path}.{name}")
            elif name not in own:
                yield f"{path}.{name}"
    elif isinstance(given, list) and isinstance(read, Iterable) and not isinstance(read, str | bytes):
        for at, (value, checked) in enumerate(zip(given, read, strict=True)):
            yield from _unread(value, checked, own, f"{path}[{at}]")


def _typed(kind: object, body: Any, own: frozenset[str]) -> None:
    try:
        unknown = list(_unread(body, _adapter(kind).validate_python(body), own, ""))
    except ValidationError as exc:
        raise NotOfTheVendor(f"{_places(exc)} in {json.dumps(body)[:3000]}") from None
    if unknown:
        raise NotOfTheVendor(f"the vendor knows no {', '.join(unknown)}: {json.dumps(body)[:3000]}")


def _places(exc: ValidationError) -> str:
    return "; ".join(sorted({f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()}))[:2000]


def _chat(body: dict[str, Any]) -> None:
    _typed(CompletionCreateParams, body, OUR_OWN["chat"])


def _claude(body: dict[str, Any]) -> None:
    # Older API versions have the sampling members, which this SDK no longer types.
    older = {"temperature": float, "top_p": float, "top_k": int}
    for name, kind in older.items():
        assert isinstance(body.get(name, kind()), int | float), f"{name}: {body[name]!r}"
    _typed(MessageCreateParams, {name: value for name, value in body.items() if name not in older}, OUR_OWN["claude"])


def _responses(body: dict[str, Any]) -> None:
    # The type demands ids where the vendor's own agent sends none (translation 2.16).
    body = json.loads(json.dumps(body))
    for item in body["input"] if isinstance(body.get("input"), list) else ():
        listed = isinstance(item.get("content"), list)
        if item.get("type") == "reasoning" or (item.get("role") == "assistant" and listed):
            item.setdefault("id", "x_1")
        if item.get("role") == "assistant" and listed:
            item.setdefault("status", "completed")
            for part in item["content"]:
                if part["type"] == "output_text":
                    part.setdefault("annotations", [])
    _typed(ResponseCreateParams, body, OUR_OWN["responses"])


GEMINI_MEMBERS: Mapping[str, object] = {
    "contents": list[types.Content],
    "systemInstruction": types.Content,
    "tools": list[types.Tool],
    "toolConfig": types.ToolConfig,
    "safetySettings": list[types.SafetySetting],
    "generationConfig": types.GenerationConfig,
    "cachedContent": str,
    "labels": dict[str, str],
    "serviceTier": types.ServiceTier,
    "store": bool,
}


def _gemini(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name not in GEMINI_MEMBERS:
            raise NotOfTheVendor(f"the vendor knows no {name}: {json.dumps(body)[:3000]}")
        try:
            read = _adapter(GEMINI_MEMBERS[name]).validate_python(value)
        except ValidationError as exc:
            raise NotOfTheVendor(f"{name}: {_places(exc)} in {json.dumps(body)[:3000]}") from None
        for model in read if isinstance(read, list) else [read]:
            assert not isinstance(model, BaseModel) or not model.model_extra, model.model_extra
    assert body.get("contents"), "contents: expected at least one"
    for content in body["contents"]:
        assert content.get("parts"), "parts: expected at least one"
        assert content.get("role") in ("user", "model"), content


CHECKS: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "/chat/completions": _chat,
    "/responses": _responses,
    "/v1/messages": _claude,
    "enerateContent": _gemini,
    "treamGenerateContent": _gemini,
}


def assert_vendors(target: str, body: bytes) -> None:
    """The vendor's SDK could have sent *body* to *target*. Raises: NotOfTheVendor."""
    path = target.split("?")[0]
    [check] = {check for ending, check in CHECKS.items() if path.endswith(ending)}
    check(json.loads(body))
