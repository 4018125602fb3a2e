"""The lists of providers' keys and of compatible providers (proxy 6.5).

Entries are told as they stand in the file, with the ``auth-index`` by which other endpoints name their credentials; in
what is sent, that member is ignored, so that whatever was got can be put back.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from cpa.config.editing import ConfigTree
from cpa.config.encoding import entry_json
from cpa.config.schema import Config
from cpa.config.tree import text_of
from cpa.credentials.from_config import ConfigPlace, placed_credentials
from cpa.errors import EditError
from cpa.host.paths import MANAGEMENT
from cpa.pipeline.rules import query_map
from cpa.server.management.calls import Answer, ManagementCall, json_answer
from cpa.server.management.client_keys import items_of
from cpa.server.management.saving import body_of, object_of, save
from cpa.types import JsonObject, JsonValue

INDEX: Final = "auth-index"
COMPATIBILITY: Final = "openai-compatibility"
KEYS: Final = "api-key-entries"


@attrs.frozen(kw_only=True)
class ProviderList:
    """One list.

    Attributes:
      name: its key in the file and its path.
      needed: members of which an entry has at least one; without, it is left out (proxy 3.2).
      named: entries are told apart by ``name`` instead of ``api-key``.
      once: equal entries are one.
    """

    name: str
    needed: tuple[str, ...]
    named: bool = False
    once: bool = False

    def accepts(self, entry: Mapping[str, JsonValue]) -> bool:
        """Whether *entry* can be a credential at all."""
        return any(text_of(entry.get(key)) for key in self.needed)


_KEY_OR_URL: Final = ("api-key", "base-url")
LISTS: Final[Mapping[str, ProviderList]] = MappingProxyType(
    {
        f"/{found.name}": found
        for found in (
            ProviderList(name="gemini-api-key", needed=_KEY_OR_URL, once=True),
            ProviderList(name="interactions-api-key", needed=_KEY_OR_URL),
            ProviderList(name="claude-api-key", needed=_KEY_OR_URL),
            ProviderList(name="codex-api-key", needed=("base-url",)),
            ProviderList(name="xai-api-key", needed=("base-url",)),
            ProviderList(name="vertex-api-key", needed=("api-key",)),
            ProviderList(name=COMPATIBILITY, needed=("base-url",), named=True),
        )
    }
)
"""Path below the management API to the list."""


def _asked(call: ManagementCall) -> ProviderList:
    return LISTS[call.head.path.removeprefix(MANAGEMENT)]


async def get(call: ManagementCall) -> Answer:
    """``GET``: ``{"claude-api-key": [entry…]}``, as in force, secrets in clear."""
    asked = _asked(call)
    return json_answer({asked.name: told_entries(call.runtime.config, asked)})


def told_entries(config: Config, asked: ProviderList) -> list[JsonValue]:
    """The entries of a list as answers have them."""
    indexes = {place: credential.index for credential, place in placed_credentials(config)}
    told: list[JsonValue] = []
    for number, entry in enumerate(getattr(config, asked.name.replace("-", "_"))):
        shown = entry_json(entry)
        found = indexes.get(ConfigPlace(section=asked.name, index=number))
        if found is not None:
            shown[INDEX] = found
        keys = shown.get(KEYS)
        for at, key in enumerate(keys if isinstance(keys, list) else ()):
            found = indexes.get(ConfigPlace(section=asked.name, index=number, key=at))
            if found is not None and isinstance(key, dict):
                key[INDEX] = found
        told.append(shown)
    return told


async def put(call: ManagementCall) -> Answer:
    """``PUT``: the whole list, or ``{"items": […]}``. Entries that cannot be credentials are left out."""
    asked = _asked(call)
    entries: list[JsonValue] = []
    seen: list[JsonObject] = []
    for item in items_of(body_of(call)):
        entry = pruned(item)
        if not isinstance(entry, dict):
            raise EditError("invalid body", http_status=400)
        identity: JsonObject = {key: entry.get(key) for key in (*_KEY_OR_URL, "proxy-url", "prefix", "headers")}
        if asked.accepts(entry) and not (asked.once and identity in seen):
            entries.append(entry)
            seen.append(identity)

    def replace(tree: ConfigTree) -> None:
        if entries or asked.name in tree:
            tree[asked.name] = entries

    return await save(call, replace)


async def patch(call: ManagementCall) -> Answer:
    """``PATCH``: some members of one entry, which ``index``, ``match`` or ``name`` names; empty ones are removed.

    An entry that cannot be a credential any more is removed as well.
    """
    asked, body = _asked(call), object_of(call)
    value = body.get("value")
    if not isinstance(value, dict):
        raise EditError("invalid body", http_status=400)
    members = {key: pruned(item) for key, item in value.items() if key != INDEX}
    wanted = _wanted_index(body.get("index"))
    name = body.get("name" if asked.named else "match")
    base_url = _base_url(call)

    def change(tree: ConfigTree) -> None:
        entries = _entries(tree, asked)
        if wanted is not None:
            at = _at(entries, wanted)
        elif isinstance(name, str) and name.strip():
            at = _only(_matching(entries, asked, name, base_url), "multiple items match; index is required")
        else:
            raise EditError(f"missing {'name' if asked.named else 'match'} or index", http_status=400)
        entry = entries[at]
        for key, item in members.items():
            if _is_blank(item):
                entry.pop(key, None)
            else:
                entry[key] = item
        if not asked.accepts(entry):
            del entries[at]
        tree[asked.name] = [*entries]

    return await save(call, change)


async def delete(call: ManagementCall) -> Answer:
    """``DELETE``: the entry that ``?index=`` names, or ``?api-key=`` with ``&base-url=``, or ``?name=``."""
    asked = _asked(call)
    index, base_url = call.query("index"), _base_url(call)
    parameter = "name" if asked.named else "api-key"
    given = call.query(parameter)

    def change(tree: ConfigTree) -> None:
        entries = _entries(tree, asked)
        if given:
            found = _matching(entries, asked, given, base_url)
            several = "multiple items match api-key; base-url is required"
            gone = set(found) if asked.named else {_only(found, several)}  # unknown names are fine
        elif index.isascii() and index.isdigit() and len(index) < 10:
            gone = {_at(entries, int(index))}
        else:
            raise EditError(f"missing {parameter} or index", http_status=400)
        if gone:
            tree[asked.name] = [entry for number, entry in enumerate(entries) if number not in gone]

    return await save(call, change)


def pruned(value: JsonValue, *, inside: bool = False) -> JsonValue:
    """*value* without members that say nothing, and without ``auth-index``; *inside* lists and mappings as well.

    Other programs write empty members for all that they know. Items of lists stay.
    """
    if isinstance(value, dict):
        members = {key: pruned(item, inside=True) for key, item in value.items() if key != INDEX}
        return {key: item for key, item in members.items() if not _is_blank(item)}
    if isinstance(value, list):
        return [pruned(item, inside=True) for item in value]
    return value


def _is_blank(value: JsonValue) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _entries(tree: ConfigTree, asked: ProviderList) -> list[JsonObject]:
    """The entries, all of them mappings: the file was judged before."""
    entries = tree.get(asked.name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _matching(entries: list[JsonObject], asked: ProviderList, name: str, base_url: str | None) -> list[int]:
    key = "name" if asked.named else "api-key"
    return [
        number
        for number, entry in enumerate(entries)
        if text_of(entry.get(key)) == name.strip()
        and (asked.named or base_url is None or text_of(entry.get("base-url")).rstrip("/") == base_url)
    ]


def _only(found: list[int], several: str) -> int:
    if not found:
        raise EditError("item not found", http_status=404)
    if len(found) > 1:
        raise EditError(several, http_status=400)
    return found[0]


def _at(entries: list[JsonObject], index: int) -> int:
    if not 0 <= index < len(entries):
        raise EditError("item not found", http_status=404)
    return index


def _wanted_index(value: JsonValue) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise EditError("invalid body", http_status=400)
    return value


def _base_url(call: ManagementCall) -> str | None:
    """``?base-url=``; an empty one means entries without, none means all."""
    values = query_map(call.head.query).get("base-url")
    return None if values is None else values[0].strip().rstrip("/")
