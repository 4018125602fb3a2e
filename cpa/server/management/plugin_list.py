"""The operator's list of plugins (plugin-abi 7.2), and what else concerns plugins as a whole."""

import re
from typing import Any, Final

import attrs

from cpa.host.management import PluginOverview
from cpa.server.management.calls import Answer, ManagementCall, coded_error, json_answer
from cpa.server.management.escaping import escaped_values
from cpa.types import JsonObject, JsonValue

BAD_ID: Final = coded_error(400, "invalid_plugin_id", "an id is letters, digits, dots, underscores and hyphens")
NO_HOST: Final = coded_error(503, "plugins_unavailable", "the plugin host is not running yet")

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_id(text: str) -> bool:
    """Whether *text* may be a plugin's id (plugin-abi 1.3)."""
    return _ID.fullmatch(text) is not None


async def list_plugins(call: ManagementCall) -> Answer:
    """``GET /plugins``: every plugin found, configured or loaded, by id. All strings are HTML-escaped."""
    if call.plugins is None:
        return NO_HOST
    config = call.runtime.config.plugins
    plugins = [_entry(overview) for overview in await call.plugins.management.overview()]
    listed = {"plugins_enabled": config.enabled, "plugins_dir": str(config.dir), "plugins": plugins}
    return json_answer(escaped_values(listed))


async def rearm(call: ManagementCall) -> Answer:
    """``POST /plugins/{id}/rearm``: start a fused, failed or waiting plugin now; the list says what became of it."""
    plugin_id = call.params["id"]
    if not is_id(plugin_id):
        return BAD_ID
    if call.plugins is None or not call.plugins.management.rearm(plugin_id):
        return coded_error(404, "plugin_not_found", "there is no such plugin")
    return json_answer({"status": "ok"}, status=202)


def _entry(overview: PluginOverview) -> JsonObject:
    """The contract's members in its order, then ours."""
    status, live = overview.status, overview.live
    oauth = live is not None and live.capabilities.auth_provider
    fields: list[JsonValue] = [] if live is None else _config_fields(live.metadata.config_fields)
    metadata: JsonObject | None = None
    if live is not None:
        metadata = {
            "name": live.metadata.name,
            "version": live.metadata.version,
            "author": live.metadata.author,
            "github_repository": live.metadata.repository,
            "logo": live.metadata.logo,
            "config_fields": fields,
        }
    return {
        "id": status.id,
        "path": status.path,
        "configured": overview.configured,
        "registered": live is not None,
        "enabled": status.enabled,
        "effective_enabled": overview.effective,
        "supports_oauth": oauth,
        "oauth_provider": live.identifiers.auth.lower() if live is not None and oauth else "",
        "logo": live.metadata.logo if live is not None else "",
        "config_fields": fields,
        "menus": [attrs.asdict(menu) for menu in overview.menus],
        "metadata": metadata,
        "state": status.state.value,
        "reason": status.reason,
        "generation": status.generation,
        "isolation": status.isolation.value,
        "pid": status.pid,
        "priority": status.priority,
        "on_error": overview.on_error.value,
        "config-path": f"plugins.configs.{status.id}" if overview.configured else None,
        "version": status.version,
        "schema_version": status.schema_version,
        "capabilities": list(sorted(live.capabilities.declared()) if live is not None else ()),
    }


def _config_fields(fields: tuple[Any, ...]) -> list[JsonValue]:
    """Of a plugin's metadata (`cpa.abi.wire.ConfigField`, which the server does not import)."""
    return [
        {
            "name": field.name,
            "type": field.type,
            "enum_values": list(field.enum_values),
            "description": field.description,
        }
        for field in fields
    ]
