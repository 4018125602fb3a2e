"""Steps on answers: ``strip-reasoning`` and ``replace-text``, for whole bodies and for the data of single events.

What a body is, whole or an event, its own shape says. Blocks and items are numbered in two of the protocols: who takes
some out of a stream has to number the others anew, which is what the memory of a step is for.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from typing import Final, cast

from cpa.config.schema import FrozenJson
from cpa.formats.names import Format
from cpa.pipeline.steps.dials import CHAT_REASONING, is_thought, is_thought_part
from cpa.pipeline.steps.tree import (
    Members,
    change,
    drop,
    edit_member,
    edit_objects,
    given,
    items_of,
    keep_objects,
    members_of,
    number_of,
    put,
    text_of,
)
from cpa.pipeline.steps.values import BuiltIn, StepContext, for_formats, text_pairs

DROPPED: Final = b""
"""What a step says of an event that the client is not to get."""
PAIRS: Final = "a mapping of texts to their replacements"

# --- strip-reasoning -------------------------------------------------------------------------------------------------


def _chat(body: bytes, context: StepContext) -> bytes:
    if b"reasoning" not in body and b"\\u" not in body:
        return body
    dropped = False

    def choice(members: Members) -> bool:
        nonlocal dropped
        changed = edit_member(members, "message", lambda message: drop(message, *CHAT_REASONING))
        if edit_member(members, "delta", lambda delta: drop(delta, *CHAT_REASONING)):
            dropped = not members_of(members.get("delta")) and not given(members, "finish_reason")
            changed = True
        return changed

    def edit(members: Members) -> bool:
        changed = edit_objects(members, "choices", choice)
        nonlocal dropped
        dropped = dropped and len(items_of(members.get("choices")) or []) == 1 and not given(members, "usage")
        return changed

    changed = change(body, edit)
    return DROPPED if dropped else changed


def _gone(context: StepContext) -> list[int]:
    """Numbers of what was taken out of this stream, in order."""
    return cast("list[int]", context.memory.setdefault("gone", []))


def _renumbered(members: Members, name: str, gone: list[int]) -> bool:
    number = number_of(members.get(name))
    if not gone or not isinstance(number, int):
        return False
    return put(members, name, number - bisect_left(gone, number))


def _claude(body: bytes, context: StepContext) -> bytes:
    gone = _gone(context)
    dropped = False

    def edit(members: Members) -> bool:
        nonlocal dropped
        if not text_of(members.get("type")).startswith("content_block_"):
            return keep_objects(members, "content", lambda block: not is_thought(block))
        index = number_of(members.get("index"))
        block = members_of(members.get("content_block"))
        if isinstance(index, int) and block is not None and is_thought(block) and index not in gone[-1:]:
            insort(gone, index)
        at = bisect_left(gone, index) if isinstance(index, int) else len(gone)
        dropped = at < len(gone) and gone[at] == index
        return not dropped and _renumbered(members, "index", gone)

    if not gone and b"thinking" not in body and b"\\u" not in body:
        return body
    changed = change(body, edit)
    return DROPPED if dropped else changed


def _responses(body: bytes, context: StepContext) -> bytes:
    gone = _gone(context)
    dropped = False

    def no_reasoning(item: Members) -> bool:
        return text_of(item.get("type")) != "reasoning"

    def edit(members: Members) -> bool:
        nonlocal dropped
        if text_of(members.get("type")).startswith("response.reasoning"):
            dropped = True
            return False
        item = members_of(members.get("item"))
        if item is not None and not no_reasoning(item):
            index = number_of(members.get("output_index"))
            if isinstance(index, int) and index not in gone[-1:]:
                insort(gone, index)
            dropped = True
            return False
        changed = keep_objects(members, "output", no_reasoning)
        changed |= edit_member(members, "response", lambda inner: keep_objects(inner, "output", no_reasoning))
        return _renumbered(members, "output_index", gone) or changed

    if not gone and b"reasoning" not in body and b"\\u" not in body:
        return body
    changed = change(body, edit)
    return DROPPED if dropped else changed


def _gemini(body: bytes, context: StepContext) -> bytes:
    if b'"thought"' not in body and b"\\u" not in body:
        return body
    dropped = False

    def candidate(members: Members) -> bool:
        nonlocal dropped
        changed = edit_member(
            members, "content", lambda content: keep_objects(content, "parts", lambda part: not is_thought_part(part))
        )
        if changed:
            parts = items_of((members_of(members.get("content")) or {}).get("parts"))
            dropped = not parts and not given(members, "finishReason")
        return changed

    def edit(members: Members) -> bool:
        nonlocal dropped
        changed = edit_objects(members, "candidates", candidate)
        alone = len(items_of(members.get("candidates")) or []) == 1
        dropped = dropped and context.stream and alone
        return changed

    changed = change(body, edit)
    return DROPPED if dropped else changed


strip_reasoning: Final[Mapping[str, BuiltIn]] = {
    Format.OPENAI: _chat,
    Format.OPENAI_RESPONSE: _responses,
    Format.CODEX: _responses,
    Format.CLAUDE: _claude,
    Format.GEMINI: _gemini,
}
"""``strip-reasoning`` of answers, by protocol."""

# --- replace-text ----------------------------------------------------------------------------------------------------

Rewrite = Callable[[str], str]


def make_replace_text(setting: FrozenJson) -> BuiltIn:
    """``replace-text: {text: replacement}``, in what the model says to the client, one pair after the other.

    Plain strings. In a stream every delta is looked at alone: a text that two of them share is not found.
    """
    pairs = text_pairs(setting, PAIRS)

    def rewrite(text: str) -> str:
        for old, new in pairs:
            text = text.replace(old, new)
        return text

    def of(edit: Callable[[Members, Rewrite], bool]) -> BuiltIn:
        return lambda body, context: change(body, lambda members: edit(members, rewrite))

    return for_formats(
        {
            Format.OPENAI: of(_chat_texts),
            Format.OPENAI_RESPONSE: of(_responses_texts),
            Format.CODEX: of(_responses_texts),
            Format.CLAUDE: of(_claude_texts),
            Format.GEMINI: of(_gemini_texts),
        }
    )


def _rewritten(holder: Members, name: str, rewrite: Rewrite) -> bool:
    text = text_of(holder.get(name))
    new = rewrite(text) if text else text
    if new == text:
        return False
    holder[name] = new
    return True


def _chat_texts(members: Members, rewrite: Rewrite) -> bool:
    def message(inner: Members) -> bool:
        parts = edit_objects(inner, "content", lambda part: _rewritten(part, "text", rewrite))
        return _rewritten(inner, "content", rewrite) or parts

    return edit_objects(
        members,
        "choices",
        lambda choice: edit_member(choice, "message", message) | edit_member(choice, "delta", message),
    )


def _claude_texts(members: Members, rewrite: Rewrite) -> bool:
    def block(inner: Members) -> bool:
        return text_of(inner.get("type")) in ("text", "text_delta") and _rewritten(inner, "text", rewrite)

    changed = edit_objects(members, "content", block)
    return changed | edit_member(members, "delta", block) | edit_member(members, "content_block", block)


def _responses_texts(members: Members, rewrite: Rewrite) -> bool:
    def part(inner: Members) -> bool:
        return text_of(inner.get("type")) == "output_text" and _rewritten(inner, "text", rewrite)

    def item(inner: Members) -> bool:
        return text_of(inner.get("type")) == "message" and edit_objects(inner, "content", part)

    def answer(inner: Members) -> bool:
        texts = _rewritten(inner, "output_text", rewrite)
        return edit_objects(inner, "output", item) or texts

    kind = text_of(members.get("type"))
    if kind == "response.output_text.delta":
        return _rewritten(members, "delta", rewrite)
    if kind == "response.output_text.done":
        return _rewritten(members, "text", rewrite)
    changed = answer(members) | edit_member(members, "response", answer)
    return changed | edit_member(members, "part", part) | edit_member(members, "item", item)


def _gemini_texts(members: Members, rewrite: Rewrite) -> bool:
    def part(inner: Members) -> bool:
        return not is_thought_part(inner) and _rewritten(inner, "text", rewrite)

    return edit_objects(
        members, "candidates", lambda one: edit_member(one, "content", lambda inner: edit_objects(inner, "parts", part))
    )
