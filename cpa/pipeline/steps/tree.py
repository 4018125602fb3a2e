"""Bodies as trees that are opened only where a step goes; all the rest keeps its bytes.

An opened object is a dict, an opened array a list; everything else is a `msgspec.Raw` or a plain value that a step has
put there. Functions that change something say whether they did, so that untouched bodies are not written anew.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from cpa.formats.json import decode_members, encode, repair

Tree: TypeAlias = "msgspec.Raw | str | int | float | bool | dict[str, Tree] | list[Tree] | None"
Members: TypeAlias = dict[str, Tree]

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode


def change(body: bytes, edit: Callable[[Members], bool]) -> bytes:
    """*body* after *edit* of its top level; the same object when that returns False, or the body cannot be read."""
    try:
        members: Members = dict(decode_members(body))
        return encode(members) if edit(members) else body
    except (ValueError, RecursionError):
        return body


def members_of(node: Tree) -> Members | None:
    """*node* as an object, None when it is none. Raises: ValueError when it cannot be read."""
    if isinstance(node, dict):
        return node
    if not isinstance(node, msgspec.Raw) or bytes(memoryview(node)[:1]) != b"{":
        return None
    try:
        return dict(_decode_object(node))
    except ValueError:
        return dict(_decode_object(repair(bytes(node))))


def items_of(node: Tree) -> list[Tree] | None:
    """*node* as an array, likewise."""
    if isinstance(node, list):
        return node
    if not isinstance(node, msgspec.Raw) or bytes(memoryview(node)[:1]) != b"[":
        return None
    try:
        return list(_decode_array(node))
    except ValueError:
        return list(_decode_array(repair(bytes(node))))


def scalar_of(node: Tree) -> str | int | float | bool | None:
    """The value of *node*; None also for objects, arrays and what is not there."""
    if not isinstance(node, msgspec.Raw):
        return None if isinstance(node, dict | list) else node
    if bytes(memoryview(node)[:1]) in (b"{", b"["):
        return None
    try:
        value: str | int | float | bool | None = _decode_any(node)
    except ValueError:
        value = _decode_any(repair(bytes(node)))
    return value


def text_of(node: Tree) -> str:
    """The text that *node* is, "" for everything else."""
    value = scalar_of(node)
    return value if isinstance(value, str) else ""


def number_of(node: Tree) -> int | float | None:
    """The number that *node* is."""
    value = scalar_of(node)
    return None if isinstance(value, str | bool) else value


def given(members: Members, name: str) -> bool:
    """The member is there and not null."""
    node = members.get(name)
    return node is not None and not (isinstance(node, msgspec.Raw) and bytes(memoryview(node)[:4]) == b"null")


def drop(members: Members, *names: str) -> bool:
    """Remove members. Returns: one was there."""
    found = [name for name in names if name in members]
    for name in found:
        del members[name]
    return bool(found)


def put(members: Members, name: str, value: Tree) -> bool:
    """Set a member. Returns: it was something else."""
    if name in members and encode(members[name]) == encode(value):
        return False
    members[name] = value
    return True


def edit_member(holder: Members, name: str, edit: Callable[[Members], bool]) -> bool:
    """Edit the object under *name*, if one is there."""
    inner = members_of(holder.get(name))
    if inner is None or not edit(inner):
        return False
    holder[name] = inner
    return True


def edit_objects(holder: Members, name: str, edit: Callable[[Members], bool]) -> bool:
    """Edit the objects of the array under *name*, if one is there."""

    def one(node: Tree) -> Tree:
        inner = members_of(node)
        return inner if inner is not None and edit(inner) else node

    return edit_items(holder, name, one)


def keep_objects(holder: Members, name: str, wanted: Callable[[Members], bool]) -> bool:
    """Remove the objects of the array under *name* that are not *wanted*; what is no object stays."""

    def one(node: Tree) -> Tree:
        inner = members_of(node)
        return node if inner is None or wanted(inner) else None

    return edit_items(holder, name, one)


def edit_items(holder: Members, name: str, edit: Callable[[Tree], Tree]) -> bool:
    """Replace the items of the array under *name* by what *edit* makes of them; None removes one."""
    items = items_of(holder.get(name))
    if items is None:
        return False
    edited = [edit(item) for item in items]
    kept: list[Tree] = [item for item in edited if item is not None]
    if len(kept) == len(items) and all(new is old for new, old in zip(kept, items, strict=True)):
        return False
    holder[name] = kept
    return True
