"""Client keys (proxy 6.4): ``/api-keys``."""

from typing import Final

from cpa.config.editing import ConfigTree
from cpa.config.tree import text_of
from cpa.errors import EditError
from cpa.server.management.calls import Answer, ManagementCall, json_answer
from cpa.server.management.saving import body_of, object_of, save
from cpa.types import JsonValue

_NAME: Final = "api-keys"


async def get(call: ManagementCall) -> Answer:
    """``GET``: all keys, in clear: whoever manages needs them."""
    return json_answer({_NAME: list(call.runtime.config.api_keys)})


async def put(call: ManagementCall) -> Answer:
    """``PUT``: the whole list, or ``{"items": […]}``, which may not be empty."""
    keys = list(dict.fromkeys(key for key in map(_key, items_of(body_of(call))) if key))

    def replace(tree: ConfigTree) -> None:
        tree[_NAME] = [*keys]

    return await save(call, replace)


async def patch(call: ManagementCall) -> Answer:
    """``PATCH``: ``{"index", "value"}`` or ``{"old", "new"}``; an unknown old key means: add the new one."""
    body = object_of(call)
    index, value = body.get("index"), body.get("value")
    old, new = body.get("old"), body.get("new")

    def change(tree: ConfigTree) -> None:
        keys = _keys(tree)
        if _is_index(index, keys) and isinstance(index, int) and isinstance(value, str) and value.strip():
            keys[index] = value.strip()
        elif isinstance(old, str) and isinstance(new, str) and new.strip():
            at = next((place for place, key in enumerate(keys) if text_of(key) == old.strip()), None)
            if at is None:
                keys.append(new.strip())
            else:
                keys[at] = new.strip()
        else:
            raise EditError("missing fields", http_status=400)
        tree[_NAME] = keys

    return await save(call, change)


async def delete(call: ManagementCall) -> Answer:
    """``DELETE``: ``?index=`` or ``?value=``."""
    index, value = call.query("index"), call.query("value")

    def change(tree: ConfigTree) -> None:
        keys = _keys(tree)
        if index.isascii() and index.isdigit() and len(index) < 10 and int(index) < len(keys):
            del keys[int(index)]
        elif value:
            keys[:] = [key for key in keys if text_of(key) != value]
        else:
            raise EditError("missing index or value", http_status=400)
        if keys or _NAME in tree:
            tree[_NAME] = keys

    return await save(call, change)


def items_of(body: JsonValue) -> list[JsonValue]:
    """The list that a ``PUT`` brings. Raises: EditError, 400."""
    if isinstance(body, dict):
        body = body.get("items") or None
    if not isinstance(body, list):
        raise EditError("invalid body", http_status=400)
    return body


def _key(value: JsonValue) -> str:
    if not isinstance(value, str):
        raise EditError("invalid body", http_status=400)
    return value.strip()


def _keys(tree: ConfigTree) -> list[JsonValue]:
    """The list as the configuration in force numbers it: without what the loader leaves out.

    Nothing of the file's is lost: what is left out there says nothing.
    """
    keys = tree.get(_NAME)
    found: dict[str, JsonValue] = {}
    for key in keys if isinstance(keys, list) else ():
        if text_of(key):
            found.setdefault(text_of(key), key)
    return list(found.values())


def _is_index(index: JsonValue, keys: list[JsonValue]) -> bool:
    return isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(keys)
