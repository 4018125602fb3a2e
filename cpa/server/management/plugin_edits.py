"""Settings of plugins, their order and their removal (plugin-abi 7.2, proxy 6.10)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import structlog
import trio

from cpa.config.editing import Change, ConfigTree
from cpa.config.schema import thaw
from cpa.errors import ConfigError, CpaError, EditError
from cpa.formats.json import JsonError, decode
from cpa.host.manager import PluginManager, find_plugins
from cpa.host.plugin import PluginState, PluginStatus
from cpa.host.plugins import PluginHost
from cpa.host.removal import RemovalRefused, remove_library
from cpa.server.management.calls import Answer, ManagementCall, coded_error, json_answer
from cpa.server.management.config_toggles import NoConfigFile
from cpa.server.management.plugin_list import BAD_ID, NO_HOST, is_id
from cpa.server.management.plugin_settings import problems
from cpa.server.management.saving import listed, spoken
from cpa.types import JsonObject, JsonValue

log = structlog.get_logger(__name__)

OK: Final = json_answer({"status": "ok"})
NOT_FOUND: Final = coded_error(404, "plugin_not_found", "there is no such plugin")
UNLOAD_S: Final = 5.0
"""How long a deletion waits for running calls; they finish on their own copy of the library all the same."""
MAX_IDS: Final = 1000
MAX_TOLD: Final = 8
"""Problems in one message; all of them are in its list."""


class _Bad(Exception):
    """The request cannot be understood; *answer* says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


async def read_config(call: ManagementCall) -> Answer:
    """``GET /plugins/{id}/config``: its settings; ``{}`` for a plugin that is there but not configured."""
    plugin_id = call.params["id"]
    if not is_id(plugin_id):
        return BAD_ID
    config = call.runtime.config.plugins
    entry = config.configs.get(plugin_id)
    if entry is not None:
        settings = thaw(entry.raw)
        return json_answer(settings if isinstance(settings, dict) else {})
    found = await find_plugins(config.dir, config.configs)
    known = found.file_of(plugin_id) is not None or any(item.id == plugin_id for item in found.ignored)
    return json_answer({}) if known else NOT_FOUND


async def replace_config(call: ManagementCall) -> Answer:
    """``PUT /plugins/{id}/config`` with all settings; without ``enabled`` the plugin is off (as it always was)."""
    try:
        plugin_id, given = _id(call), _object(call)
        _judge(call, plugin_id, given)
    except _Bad as exc:
        return exc.answer

    def change(tree: ConfigTree) -> None:
        configs_of(tree)[plugin_id] = {name: given[name] for name in sorted(given)}

    return await _edit(call, change)


async def merge_config(call: ManagementCall) -> Answer:
    """``PATCH /plugins/{id}/config``: each member replaces the old one, null deletes it."""
    try:
        plugin_id, given = _id(call), _object(call)
        _judge(call, plugin_id, given)
    except _Bad as exc:
        return exc.answer

    def change(tree: ConfigTree) -> None:
        entry = entry_of(tree, plugin_id)
        for name, value in given.items():
            if value is None:
                entry.pop(name, None)
            else:
                entry[name] = value

    return await _edit(call, change)


async def switch(call: ManagementCall) -> Answer:
    """``PATCH /plugins/{id}/enabled`` with ``enabled``."""
    try:
        plugin_id = _id(call)
        enabled = _object(call, "enabled is required").get("enabled")
    except _Bad as exc:
        return exc.answer
    if not isinstance(enabled, bool):
        return coded_error(400, "invalid_body", "enabled is required")

    def change(tree: ConfigTree) -> None:
        entry_of(tree, plugin_id)["enabled"] = enabled

    return await _edit(call, change)


async def order(call: ManagementCall) -> Answer:
    """``POST /plugins/order`` with ``ids``, the one that runs first first: gives them priorities of that order.

    Those that are not named keep theirs, and with them their place among the others as far as that is possible.
    """
    try:
        ids = _object(call).get("ids")
    except _Bad as exc:
        return exc.answer
    if not isinstance(ids, list) or not 0 < len(ids) <= MAX_IDS or len({str(item) for item in ids}) != len(ids):
        return coded_error(400, "invalid_body", "ids must be a list of different plugin ids")
    names = [item for item in ids if isinstance(item, str) and is_id(item)]
    if len(names) != len(ids):
        return BAD_ID
    if call.plugins is None:
        return NO_HOST
    known = {overview.status.id for overview in await call.plugins.management.overview()}
    unknown = [name for name in names if name not in known]
    if unknown:
        return coded_error(404, "plugin_not_found", f"there is no plugin {unknown[0]}")

    def change(tree: ConfigTree) -> None:
        configs = configs_of(tree)
        present = []
        for name in names:
            entry = configs.get(name)
            value = entry.get("priority") if isinstance(entry, dict) else None
            present.append(value if isinstance(value, int) and not isinstance(value, bool) else 0)
        for name, old, new in zip(names, present, ordered(present), strict=True):
            if old != new:
                entry_of(tree, name)["priority"] = new

    return await _edit(call, change)


def ordered(present: Sequence[int]) -> list[int]:
    """Strictly falling numbers, as near to *present* as that goes."""
    made: list[int] = []
    for value in sorted(present, reverse=True):
        made.append(value if not made else min(value, made[-1] - 1))
    return list(present) if all(one > other for one, other in pairwise(present)) else made


async def reload(call: ManagementCall) -> Answer:
    """``POST /plugins/{id}/reload``: load the library once more; the copy that runs stays until the new one works."""
    plugin_id = call.params["id"]
    if not is_id(plugin_id):
        return BAD_ID
    if call.plugins is None:
        return NO_HOST
    manager = call.plugins.manager
    before = _status(manager, plugin_id)
    if before is None:
        return NOT_FOUND
    if not await manager.reload(plugin_id):
        return coded_error(409, "plugin_not_enabled", f"plugin {plugin_id} is not switched on: {before.reason}")
    await call.plugins.management.settle()
    after = _status(manager, plugin_id)
    if after is None:
        return NOT_FOUND
    if after.state is not PluginState.REGISTERED or after.generation <= before.generation:
        return coded_error(502, "plugin_reload_failed", after.reason or f"plugin {plugin_id} is {after.state.value}")
    return json_answer({"status": "ok", "generation": after.generation})


async def delete(call: ManagementCall) -> Answer:
    """``DELETE /plugins/{id}``: end it, delete its library, take its entry out of the configuration."""
    plugin_id = call.params["id"]
    if not is_id(plugin_id):
        return BAD_ID
    plugins, config = call.plugins, call.runtime.config.plugins
    if plugins is None:
        return NO_HOST
    file = (await find_plugins(config.dir, config.configs)).file_of(plugin_id)
    configured = plugin_id in config.configs
    told: JsonObject = {
        "id": plugin_id,
        "path": "" if file is None else str(file.path),
        "file_deleted": False,
        "configured_removed": False,
        "restart_required": False,
    }
    if file is None and not configured:
        return NOT_FOUND
    if plugins.manager.stays_loaded(plugin_id):
        text = "the library is part of the proxy's process until that ends: switch the plugin off, restart, delete then"
        return _refused(409, "plugin_delete_requires_restart", text, {**told, "restart_required": True})
    if configured and call.editor is None:
        return _refused(503, "config_save_failed", NoConfigFile.default_message, told)
    await plugins.manager.unload(plugin_id, patience_s=UNLOAD_S)
    try:
        if file is not None:
            told["file_deleted"] = await trio.to_thread.run_sync(remove_library, config.dir, file)
            log.info("plugin.deleted", plugin=plugin_id, path=str(file.path), client=call.author.client)
    except (OSError, RemovalRefused) as exc:
        await plugins.apply(config)
        reason = exc.message if isinstance(exc, CpaError) else f"cannot delete {told['path']}: {exc.strerror or exc}"
        return _refused(500, "plugin_delete_failed", reason, told)
    return await _forget(call, plugins, plugin_id, told, configured=configured)


async def _forget(
    call: ManagementCall, plugins: PluginHost, plugin_id: str, told: JsonObject, *, configured: bool
) -> Answer:
    """The last steps of a deletion: entry and slot."""
    if configured and call.editor is not None:

        def change(tree: ConfigTree) -> bool:
            return configs_of(tree).pop(plugin_id, None) is not None

        try:
            told["configured_removed"] = (await call.editor.edit(change, author=call.author)).value
        except CpaError as exc:
            await plugins.apply(call.runtime.config.plugins)
            return _refused(500, "config_save_failed", f"failed to save config: {exc}", told)
    else:
        await plugins.apply(call.runtime.config.plugins)
    return json_answer({"status": "deleted", **told})


def _refused(status: int, code: str, message: str, told: JsonObject) -> Answer:
    return json_answer({"error": code, "message": message, **told}, status=status)


# ---- what they share ----


def _status(manager: PluginManager, plugin_id: str) -> PluginStatus | None:
    return next((status for status in manager.states() if status.id == plugin_id), None)


def configs_of(tree: ConfigTree) -> JsonObject:
    """``plugins.configs`` of a file, made if need be. Raises: EditError."""
    plugins = tree.setdefault("plugins", {})
    if plugins is None:
        plugins = tree["plugins"] = {}
    if isinstance(plugins, dict):
        configs = plugins.setdefault("configs", {})
        if configs is None:
            configs = plugins["configs"] = {}
        if isinstance(configs, dict):
            return configs
    raise EditError("plugins.configs is not a mapping", http_status=409)


def entry_of(tree: ConfigTree, plugin_id: str) -> JsonObject:
    """The entry of a plugin, made if need be. Raises: EditError."""
    configs = configs_of(tree)
    entry = configs.get(plugin_id)
    if not isinstance(entry, dict):
        entry = configs[plugin_id] = {}
    return entry


def _id(call: ManagementCall) -> str:
    """Raises: _Bad."""
    plugin_id = call.params["id"]
    if not is_id(plugin_id):
        raise _Bad(BAD_ID)
    return plugin_id


def _object(call: ManagementCall, expected: str = "the body must be a JSON object") -> JsonObject:
    """Raises: _Bad."""
    try:
        body = decode(call.body)
    except JsonError:
        body = None
    if not isinstance(body, dict):
        raise _Bad(coded_error(400, "invalid_body", expected))
    return body


def _judge(call: ManagementCall, plugin_id: str, settings: JsonObject) -> None:
    """Hold *settings* against what the plugin says it takes, if it takes part. Raises: _Bad."""
    live = () if call.plugins is None else call.plugins.manager.snapshot()
    for plugin in live:
        if plugin.id == plugin_id:
            wrong = problems(settings, plugin.metadata.config_fields)
            if wrong:
                places: list[JsonValue] = [
                    {"line": None, "column": None, "path": f"plugins.configs.{plugin_id}.{name}", "message": text}
                    for name, text in wrong
                ]
                raise _Bad(_invalid([f"{name}: {text}" for name, text in wrong], places))


def _invalid(messages: Sequence[str], places: JsonValue) -> Answer:
    told: JsonObject = {"error": "invalid_config", "message": "; ".join(messages[:MAX_TOLD]), "problems": places}
    return json_answer(told, status=400)


async def _edit(call: ManagementCall, change: Change[None]) -> Answer:
    """Edit the configuration; what is changed is in force when the answer goes out."""
    if call.editor is None:
        return coded_error(503, "config_save_failed", NoConfigFile.default_message)
    try:
        await call.editor.edit(change, author=call.author)
    except ConfigError as exc:
        return _invalid([spoken(problem) for problem in exc.details], listed(exc.details))
    except CpaError as exc:
        return coded_error(exc.http_status, "config_save_failed", f"failed to save config: {exc}")
    return OK
