"""Taking keys of the configuration out of use: ``*`` among their excluded models (proxy 6.7, 2.3)."""

from typing import Final

from cpa.config.editing import ConfigTree
from cpa.config.tree import text_of
from cpa.credentials.from_config import COMPATIBILITY, ConfigPlace, placed_credentials
from cpa.credentials.model import Credential
from cpa.errors import CpaError, EditError
from cpa.server.management.calls import ManagementCall
from cpa.types import JsonValue

EXCLUDED: Final = "*"
"""The pattern that takes every model, and with it the credential, out of use."""
_KEY: Final = "excluded-models"


class NoConfigFile(CpaError):
    """The proxy runs without a file that could be edited."""

    http_status = 503
    default_message = "the configuration cannot be edited: the proxy was not started from a file"


async def switch_config_key(call: ManagementCall, credential: Credential, *, disabled: bool) -> None:
    """Add `EXCLUDED` to the excluded models of the entry that *credential* stands in, or take it away.

    All keys of an entry of ``openai-compatibility`` share its exclusions. In force when this returns.
    Raises: CpaError; ConfigError.
    """
    if call.editor is None:
        raise NoConfigFile
    place = next(at for found, at in placed_credentials(call.runtime.config) if found.id == credential.id)

    def change(tree: ConfigTree) -> None:
        entry = _entry(tree, place, credential)
        patterns = entry.get(_KEY)
        present = patterns if isinstance(patterns, list) else []
        if disabled and not any(text_of(item) == EXCLUDED for item in present):
            entry[_KEY] = [*present, EXCLUDED]
        elif not disabled:
            left = [item for item in present if text_of(item) != EXCLUDED]
            if len(left) < len(present):
                entry[_KEY] = left
            if not left:
                entry.pop(_KEY, None)

    await call.editor.edit(change, author=call.author)


def _entry(tree: ConfigTree, place: ConfigPlace, credential: Credential) -> dict[str, JsonValue]:
    """The entry at *place*, if it is still that of *credential*. Raises: EditError."""
    entry = _at(tree.get(place.section), place.index)
    if isinstance(entry, dict):
        holder: JsonValue = entry
        if place.section == COMPATIBILITY and place.key is not None:
            holder = _at(entry.get("api-key-entries"), place.key)
        url = text_of(entry.get("base-url")).rstrip("/")
        same_key = isinstance(holder, dict) and text_of(holder.get("api-key")) == credential.api_key
        if same_key and url == credential.base_url:
            return entry
    raise EditError("the file names another key at that place by now, try again", code="conflict", http_status=409)


def _at(items: JsonValue, index: int) -> JsonValue:
    return items[index] if isinstance(items, list) and index < len(items) else None
