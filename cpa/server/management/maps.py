"""Tables by provider or channel (proxy 6.6): exclusions, aliases and error rules of credentials in files."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from cpa.config.editing import ConfigTree
from cpa.config.encoding import value_json
from cpa.errors import EditError
from cpa.host.paths import MANAGEMENT
from cpa.server.management.calls import Answer, ManagementCall, json_answer
from cpa.server.management.provider_lists import pruned
from cpa.server.management.saving import object_of, save
from cpa.types import JsonObject


@attrs.frozen(kw_only=True)
class Table:
    """One map of lists.

    Attributes:
      name: its key in the file and its path.
      keys: what bodies and queries may call its keys, the usual one first.
      member: what a ``PATCH`` calls its lists.
    """

    name: str
    keys: tuple[str, ...]
    member: str


TABLES: Final[Mapping[str, Table]] = MappingProxyType(
    {
        f"/{table.name}": table
        for table in (
            Table(name="oauth-excluded-models", keys=("provider", "channel"), member="models"),
            Table(name="oauth-model-alias", keys=("channel", "provider"), member="aliases"),
            Table(name="oauth-request-scoped-errors", keys=("provider", "channel"), member="rules"),
        )
    }
)
"""Path below the management API to the table."""


def _asked(call: ManagementCall) -> Table:
    return TABLES[call.head.path.removeprefix(MANAGEMENT)]


async def get(call: ManagementCall) -> Answer:
    """``GET``: the whole table, as it is in force."""
    table = _asked(call)
    return json_answer({table.name: value_json(getattr(call.runtime.config, table.name.replace("-", "_")))})


async def put(call: ManagementCall) -> Answer:
    """``PUT``: the whole table, or ``{"items": {…}}``."""
    table, body = _asked(call), object_of(call)
    items = body["items"] if isinstance(body.get("items"), dict) else body
    assert isinstance(items, dict)
    # Keys without anything in their lists say nothing.
    said = {key: pruned(value) for key, value in items.items()}
    kept: JsonObject = {key: value for key, value in said.items() if value not in (None, [])}

    def replace(tree: ConfigTree) -> None:
        if kept or table.name in tree:
            tree[table.name] = kept

    return await save(call, replace)


async def patch(call: ManagementCall) -> Answer:
    """``PATCH``: the list of one key; an empty one removes the key."""
    table, body = _asked(call), object_of(call)
    name = _name(table, {key: str(value) for key, value in body.items() if isinstance(value, str)})
    items = pruned(body.get(table.member))
    if items is None:
        items = []
    if not isinstance(items, list):
        raise EditError("invalid body", http_status=400)

    def change(tree: ConfigTree) -> None:
        if items:
            found = tree.get(table.name)
            inner = found if isinstance(found, dict) else {}
            inner[_spelling(inner, name) or name] = items
            tree[table.name] = inner
        else:
            _remove(tree, table, name)

    return await save(call, change)


async def delete(call: ManagementCall) -> Answer:
    """``DELETE``: ``?provider=`` or ``?channel=``."""
    table = _asked(call)
    name = _name(table, {key: call.query(key) for key in table.keys})
    return await save(call, lambda tree: _remove(tree, table, name))


def _name(table: Table, given: Mapping[str, str]) -> str:
    """The key that is meant, in lower case as the loader has it. Raises: EditError, 400."""
    for key in table.keys:
        name = given.get(key, "").strip().lower()
        if name:
            return name
    raise EditError(f"missing {table.keys[0]}", http_status=400)


def _spelling(inner: JsonObject, name: str) -> str | None:
    """How the file writes the key *name*."""
    return next((key for key in inner if key.strip().lower() == name), None)


def _remove(tree: ConfigTree, table: Table, name: str) -> None:
    inner = tree.get(table.name)
    spelling = _spelling(inner, name) if isinstance(inner, dict) else None
    if spelling is None or not isinstance(inner, dict):
        raise EditError(f"{table.keys[0]} not found", http_status=404)
    del inner[spelling]
