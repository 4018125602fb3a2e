"""Steps on what is said, and by whom: cache markers, roles, the system prompt, images, identity."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from cpa.config.schema import FrozenJson
from cpa.formats.names import Format
from cpa.pipeline.steps.tree import (
    Members,
    Tree,
    change,
    drop,
    edit_items,
    edit_member,
    edit_objects,
    given,
    items_of,
    members_of,
    put,
    text_of,
)
from cpa.pipeline.steps.values import BuiltIn, StepContext, WrongSetting, for_formats, mapping, text_pairs

TURNS: Final[Mapping[str, str]] = {
    Format.OPENAI: "messages",
    Format.OPENAI_RESPONSE: "input",
    Format.CODEX: "input",
    Format.CLAUDE: "messages",
    Format.GEMINI: "contents",
}
"""Where a protocol keeps the conversation."""
_ESCAPE: Final = b"\\u"
"""A body without it spells its members' names plainly, so that they can be looked for."""

# --- strip-cache-control ---------------------------------------------------------------------------------------------


def strip_cache_control(body: bytes, context: StepContext) -> bytes:
    """Remove the cache markers of Claude's protocol, which Chat clients send too."""
    if b'"cache_control"' not in body and _ESCAPE not in body:
        return body
    return change(body, _unmarked)


def _unmarked(members: Members) -> bool:
    changed = drop(members, "cache_control")
    changed |= edit_objects(members, "system", _unmarked_part)
    changed |= edit_objects(members, "tools", _unmarked_tool)
    return edit_objects(members, "messages", _unmarked_message) or changed


def _unmarked_part(part: Members) -> bool:
    return drop(part, "cache_control")


def _unmarked_tool(tool: Members) -> bool:
    return drop(tool, "cache_control") | edit_member(tool, "function", _unmarked_part)


def _unmarked_message(message: Members) -> bool:
    return drop(message, "cache_control") | edit_objects(message, "content", _unmarked_block)


def _unmarked_block(block: Members) -> bool:
    # Tool results hold parts themselves; nothing nests deeper.
    return drop(block, "cache_control") | edit_objects(block, "content", _unmarked_part)


# --- map-roles -------------------------------------------------------------------------------------------------------

ROLES: Final = "a mapping of roles to roles"


def make_map_roles(setting: FrozenJson) -> BuiltIn:
    """``map-roles: {from: to}``."""
    roles = dict(text_pairs(setting, ROLES))
    for name, role in roles.items():
        if not role:
            raise WrongSetting("a role", role, path=f".{name}")

    def renamed(message: Members) -> bool:
        role = roles.get(text_of(message.get("role")))
        return role is not None and put(message, "role", role)

    def step(body: bytes, context: StepContext) -> bytes:
        turns = TURNS.get(context.format)
        return body if turns is None else change(body, lambda members: edit_objects(members, turns, renamed))

    return step


# --- system-prompt ---------------------------------------------------------------------------------------------------


class Placing(StrEnum):
    """What becomes of the present system text."""

    PREPEND = "prepend"
    APPEND = "append"
    REPLACE = "replace"


PROMPT: Final = "a mapping with one of prepend, append, replace to a text"
BETWEEN: Final = "\n\n"
_SYSTEM_ROLES: Final = frozenset({"system", "developer"})


def make_system_prompt(setting: FrozenJson) -> BuiltIn:
    """``system-prompt: {prepend: text}``, likewise ``append``, ``replace``."""
    wanted = mapping(setting, PROMPT)
    if len(wanted) != 1 or next(iter(wanted)) not in tuple(Placing):
        raise WrongSetting(PROMPT, setting if len(wanted) != 1 else next(iter(wanted)))
    (word, text), *_ = wanted.items()
    if not isinstance(text, str) or not text.strip():
        raise WrongSetting("a text", text, path=f".{word}")
    placing = Placing(word)

    def of(edit: Callable[[Members, Placing, str], bool]) -> BuiltIn:
        return lambda body, context: change(body, lambda members: edit(members, placing, text))

    return for_formats(
        {
            Format.OPENAI: of(_chat_prompt),
            Format.OPENAI_RESPONSE: of(_responses_prompt),
            Format.CODEX: of(_responses_prompt),
            Format.CLAUDE: of(_claude_prompt),
            Format.GEMINI: of(_gemini_prompt),
        }
    )


def _joined(present: str, text: str, placing: Placing) -> str:
    if placing is Placing.REPLACE or not present:
        return text
    return text + BETWEEN + present if placing is Placing.PREPEND else present + BETWEEN + text


def _with_part(parts: list[Tree], part: Tree, placing: Placing) -> list[Tree]:
    if placing is Placing.REPLACE:
        return [part]
    return [part, *parts] if placing is Placing.PREPEND else [*parts, part]


def _is_system(node: Tree) -> bool:
    message = members_of(node)
    return message is not None and text_of(message.get("role")) in _SYSTEM_ROLES


def _chat_prompt(members: Members, placing: Placing, text: str) -> bool:
    messages = items_of(members.get("messages"))
    if messages is None:
        return False
    if placing is Placing.REPLACE:
        rest = [node for node in messages if not _is_system(node)]
        members["messages"] = [{"role": "system", "content": text}, *rest]
        return True
    at = next((index for index, node in enumerate(messages) if _is_system(node)), None)
    first = None if at is None else members_of(messages[at])
    if at is None or first is None:
        members["messages"] = [{"role": "system", "content": text}, *messages]
        return True
    parts = items_of(first.get("content"))
    if parts is None:
        first["content"] = _joined(text_of(first.get("content")), text, placing)
    else:
        first["content"] = _with_part(parts, {"type": "text", "text": text}, placing)
    members["messages"] = [*messages[:at], first, *messages[at + 1 :]]
    return True


def _responses_prompt(members: Members, placing: Placing, text: str) -> bool:
    changed = put(members, "instructions", _joined(text_of(members.get("instructions")), text, placing))
    if placing is Placing.REPLACE:
        changed |= edit_items(members, "input", lambda node: None if _is_system(node) else node)
    return changed


def _claude_prompt(members: Members, placing: Placing, text: str) -> bool:
    parts = items_of(members.get("system"))
    changed = False
    if placing is Placing.REPLACE:
        changed = edit_items(members, "messages", lambda node: None if _is_system(node) else node)
        parts = None
    if parts is None:
        return put(members, "system", _joined(text_of(members.get("system")), text, placing)) or changed
    return put(members, "system", _with_part(parts, {"type": "text", "text": text}, placing))


def _gemini_prompt(members: Members, placing: Placing, text: str) -> bool:
    name = "system_instruction" if given(members, "system_instruction") else "systemInstruction"
    content = members_of(members.get(name)) or {}
    parts = items_of(content.get("parts"))
    if parts is None:  # one part without its list, and a bare text, are accepted there too
        present = text_of(members.get(name))
        one: Tree = content.get("parts") if given(content, "parts") else None
        parts = [{"text": present}] if present else ([one] if one is not None else [])
    content["parts"] = _with_part(parts, {"text": text}, placing)
    return put(members, name, content)


# --- strip-images ----------------------------------------------------------------------------------------------------

IMAGE_NOTE: Final = "[image removed]"
"""Stands where an image was: what comes before and after may speak of it, and no message may become empty."""


def strip_images(body: bytes, context: StepContext) -> bytes:
    """Replace images of the conversation by `IMAGE_NOTE`."""
    turns, edit = TURNS.get(context.format), _WITHOUT_IMAGES.get(context.format)
    if turns is None or edit is None:
        return body
    return change(body, lambda members: edit_objects(members, turns, edit))


def _chat_images(message: Members) -> bool:
    return edit_items(message, "content", _noted({"image_url", "image", "input_image"}, "text"))


def _responses_images(item: Members) -> bool:
    noted = _noted({"input_image", "image_url"}, "input_text")
    return edit_items(item, "content", noted) | edit_items(item, "output", noted)


def _claude_images(message: Members) -> bool:
    noted = _noted({"image"}, "text")
    inside = edit_objects(message, "content", lambda block: edit_items(block, "content", noted))
    return edit_items(message, "content", noted) or inside


def _noted(types: set[str], text_type: str) -> Callable[[Tree], Tree]:
    def one(node: Tree) -> Tree:
        part = members_of(node)
        if part is None or text_of(part.get("type")) not in types:
            return node
        return {"type": text_type, "text": IMAGE_NOTE}

    return one


def _gemini_images(content: Members) -> bool:
    def one(node: Tree) -> Tree:
        part = members_of(node)
        for name in ("inlineData", "inline_data", "fileData", "file_data"):
            data = None if part is None else members_of(part.get(name))
            mime = "" if data is None else text_of(data.get("mimeType")) or text_of(data.get("mime_type"))
            if mime.lower().startswith("image/"):
                return {"text": IMAGE_NOTE}
        return node

    return edit_items(content, "parts", one)


_WITHOUT_IMAGES: Final[Mapping[str, Callable[[Members], bool]]] = {
    Format.OPENAI: _chat_images,
    Format.OPENAI_RESPONSE: _responses_images,
    Format.CODEX: _responses_images,
    Format.CLAUDE: _claude_images,
    Format.GEMINI: _gemini_images,
}

# --- strip-identity --------------------------------------------------------------------------------------------------

_OPENAI_IDENTITY: Final = ("user", "safety_identifier", "prompt_cache_key", "metadata", "client_metadata")
IDENTITY: Final[Mapping[str, tuple[str, ...]]] = {
    Format.OPENAI: _OPENAI_IDENTITY,
    Format.OPENAI_RESPONSE: _OPENAI_IDENTITY,
    Format.CODEX: _OPENAI_IDENTITY,
    Format.CLAUDE: ("metadata",),
    Format.GEMINI: ("labels",),
}
"""Members that say who is behind a request; cache keys are made of accounts and sessions (translation 2.14)."""


def strip_identity(body: bytes, context: StepContext) -> bytes:
    """Remove what tells users apart."""
    names = IDENTITY.get(context.format, ())
    return change(body, lambda members: drop(members, *names)) if names else body
