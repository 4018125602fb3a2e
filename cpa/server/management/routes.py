"""The table of native management endpoints. A new one is a row here and a handler in a module by its subject."""

from collections.abc import Mapping
from typing import Final

import attrs

from cpa.host.paths import MANAGEMENT
from cpa.server.management import (
    api_call,
    auth_file_edits,
    auth_files,
    auth_uploads,
    client_keys,
    credentials_list,
    live,
    logins,
    logs,
    maps,
    model_definitions,
    overview,
    plugin_edits,
    plugin_list,
    provider_lists,
    routes_view,
    saving,
    scalars,
    scheduling,
    usage,
    whole_config,
)
from cpa.server.management.calls import Handler

SMALL_BODY_BYTES: Final = 64 << 10
"""For endpoints whose body is a form or nothing at all."""
FILE_BODY_BYTES: Final = 2 << 20
"""For one credential file and what a form adds to it, or the members of one."""
NAMES_BODY_BYTES: Final = 2 << 20
"""For the names of thousands of files."""
CALL_BODY_BYTES: Final = 8 << 20
"""For what an operator sends to a provider."""


@attrs.frozen(kw_only=True)
class NativeRoute:
    """One endpoint.

    Attributes:
      path: below `MANAGEMENT`; a part ``{name}`` stands for one segment, ``{name+}`` for all that are left.
      body_bytes: largest body; 0 = what the configuration allows for requests.
      public: no key, and pages of other sites may send here. It must be protected by something else.
    """

    method: str
    path: str
    handler: Handler
    body_bytes: int = SMALL_BODY_BYTES
    public: bool = False

    @property
    def segments(self) -> tuple[str, ...]:
        """Of the path."""
        return tuple(self.path.split("/"))


CONFIGURATION: Final = (
    *(
        NativeRoute(method=method, path=path, handler=handler)
        for path in scalars.SCALARS
        for method, handler in (("GET", scalars.get), ("PUT", scalars.put), ("PATCH", scalars.put))
    ),
    *(
        NativeRoute(method="DELETE", path=path, handler=scalars.delete)
        for path, scalar in scalars.SCALARS.items()
        if scalar.removable
    ),
    *(
        NativeRoute(method=method, path=path, handler=handler, body_bytes=saving.LIST_BODY_BYTES)
        for paths, module in (
            (("/api-keys",), client_keys),
            (provider_lists.LISTS, provider_lists),
            (maps.TABLES, maps),
        )
        for path in paths
        for method, handler in (
            ("GET", module.get),
            ("PUT", module.put),
            ("PATCH", module.patch),
            ("DELETE", module.delete),
        )
    ),
    NativeRoute(method="GET", path="/config", handler=whole_config.get_config),
    NativeRoute(method="GET", path="/config.yaml", handler=whole_config.get_file),
    NativeRoute(method="PUT", path="/config.yaml", handler=whole_config.put_file, body_bytes=whole_config.BODY_BYTES),
    NativeRoute(
        method="POST", path="/config.yaml/check", handler=whole_config.check, body_bytes=whole_config.BODY_BYTES
    ),
    NativeRoute(method="GET", path="/latest-version", handler=whole_config.latest_version),
)
"""Edits of the configuration file, and what it says."""

ROUTES: Final = (
    *CONFIGURATION,
    NativeRoute(method="GET", path="/plugins", handler=plugin_list.list_plugins),
    NativeRoute(method="POST", path="/plugins/{id}/rearm", handler=plugin_list.rearm),
    NativeRoute(method="POST", path="/plugins/{id}/reload", handler=plugin_edits.reload),
    NativeRoute(method="POST", path="/plugins/order", handler=plugin_edits.order),
    NativeRoute(method="PATCH", path="/plugins/{id}/enabled", handler=plugin_edits.switch),
    NativeRoute(method="GET", path="/plugins/{id}/config", handler=plugin_edits.read_config),
    NativeRoute(method="PUT", path="/plugins/{id}/config", handler=plugin_edits.replace_config, body_bytes=1 << 20),
    NativeRoute(method="PATCH", path="/plugins/{id}/config", handler=plugin_edits.merge_config, body_bytes=1 << 20),
    NativeRoute(method="DELETE", path="/plugins/{id}", handler=plugin_edits.delete),
    NativeRoute(method="GET", path="/overview", handler=overview.overview),
    NativeRoute(method="GET", path="/requests", handler=live.requests),
    NativeRoute(method="GET", path="/requests/stream", handler=live.stream),
    NativeRoute(method="GET", path="/requests/{id}", handler=live.request),
    NativeRoute(method="GET", path="/routes", handler=routes_view.routes),
    NativeRoute(method="GET", path="/auth-files", handler=auth_files.list_files),
    NativeRoute(method="GET", path="/auth-files/models", handler=auth_files.models),
    NativeRoute(method="GET", path="/auth-files/download", handler=auth_file_edits.download),
    NativeRoute(method="POST", path="/auth-files", handler=auth_uploads.upload, body_bytes=auth_uploads.FILES_BYTES),
    NativeRoute(method="DELETE", path="/auth-files", handler=auth_file_edits.delete, body_bytes=NAMES_BODY_BYTES),
    NativeRoute(method="PATCH", path="/auth-files/status", handler=auth_file_edits.status),
    NativeRoute(method="PATCH", path="/auth-files/fields", handler=auth_file_edits.fields, body_bytes=FILE_BODY_BYTES),
    NativeRoute(method="POST", path="/vertex/import", handler=auth_uploads.import_vertex, body_bytes=FILE_BODY_BYTES),
    NativeRoute(method="GET", path="/get-auth-status", handler=logins.status),
    NativeRoute(method="GET", path="/oauth-callback", handler=logins.callback, public=True),
    NativeRoute(method="POST", path="/oauth-callback", handler=logins.callback, public=True),
    NativeRoute(method="GET", path="/usage", handler=usage.usage),
    NativeRoute(method="GET", path="/usage/attempts", handler=usage.records),
    NativeRoute(method="GET", path="/usage-queue", handler=usage.pop_queue),
    NativeRoute(method="GET", path="/limits", handler=usage.limits),
    NativeRoute(method="GET", path="/model-definitions/{channel}", handler=model_definitions.definitions),
    NativeRoute(method="GET", path="/api-key-usage", handler=credentials_list.api_key_usage),
    NativeRoute(method="POST", path="/api-call", handler=api_call.api_call, body_bytes=CALL_BODY_BYTES),
    NativeRoute(method="GET", path="/logs", handler=logs.read),
    NativeRoute(method="DELETE", path="/logs", handler=logs.delete),
    NativeRoute(method="GET", path="/logs/recent", handler=logs.recent),
    NativeRoute(method="GET", path="/request-error-logs", handler=logs.list_errors),
    NativeRoute(method="GET", path="/request-error-logs/{name+}", handler=logs.error_log),
    NativeRoute(method="GET", path="/request-log-by-id/{id}", handler=logs.log_of_request),
    NativeRoute(method="GET", path="/credentials", handler=credentials_list.list_credentials),
    NativeRoute(method="GET", path="/credentials/{id}/why", handler=scheduling.why),
    NativeRoute(method="GET", path="/cooldowns", handler=scheduling.cooldowns),
    NativeRoute(method="POST", path="/reset-quota", handler=scheduling.reset_quota),
    NativeRoute(method="DELETE", path="/oauth-session", handler=logins.forget),
)


def find_native(method: str, path: str) -> tuple[NativeRoute, Mapping[str, str]] | None:
    """The endpoint of that method and full, decoded *path*, with the values of its parameters."""
    if not path.startswith(f"{MANAGEMENT}/"):
        return None
    whole = path.removeprefix(MANAGEMENT)
    for route in ROUTES:
        segments = route.segments
        last = len(segments) - 1 if segments[-1].endswith("+}") else -1
        given = whole.split("/", last)
        if route.method != method or len(segments) != len(given):
            continue
        params: dict[str, str] = {}
        for pattern, value in zip(segments, given, strict=True):
            if pattern.startswith("{") and value:
                params[pattern[1:-1].rstrip("+")] = value
            elif pattern != value:
                break
        else:
            return route, params
    return None


def is_reserved(method: str, path: str) -> bool:
    """Whether a native endpoint has that method and full path, so that no plugin can."""
    return find_native(method, path) is not None
