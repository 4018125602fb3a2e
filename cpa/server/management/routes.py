"""The table of native management endpoints. A new one is a row here and a handler in a module by its subject."""

from collections.abc import Mapping
from typing import Final

import attrs

from cpa.host.management import MANAGEMENT
from cpa.server.management import auth_files, logins, plugin_list, scheduling, usage
from cpa.server.management.calls import Handler

SMALL_BODY_BYTES: Final = 64 << 10
"""For endpoints whose body is a form or nothing at all."""


@attrs.frozen(kw_only=True)
class NativeRoute:
    """One endpoint.

    Attributes:
      path: below `MANAGEMENT`; a part ``{name}`` stands for one segment.
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


ROUTES: Final = (
    NativeRoute(method="GET", path="/plugins", handler=plugin_list.list_plugins),
    NativeRoute(method="POST", path="/plugins/{id}/rearm", handler=plugin_list.rearm),
    NativeRoute(method="GET", path="/auth-files", handler=auth_files.list_files),
    NativeRoute(method="GET", path="/auth-files/models", handler=auth_files.models),
    NativeRoute(method="GET", path="/get-auth-status", handler=logins.status),
    NativeRoute(method="GET", path="/oauth-callback", handler=logins.callback, public=True),
    NativeRoute(method="POST", path="/oauth-callback", handler=logins.callback, public=True),
    NativeRoute(method="GET", path="/usage", handler=usage.usage),
    NativeRoute(method="GET", path="/usage/attempts", handler=usage.records),
    NativeRoute(method="GET", path="/usage-queue", handler=usage.pop_queue),
    NativeRoute(method="GET", path="/limits", handler=usage.limits),
    NativeRoute(method="GET", path="/credentials/{id}/why", handler=scheduling.why),
    NativeRoute(method="GET", path="/cooldowns", handler=scheduling.cooldowns),
    NativeRoute(method="POST", path="/reset-quota", handler=scheduling.reset_quota),
    NativeRoute(method="DELETE", path="/oauth-session", handler=logins.forget),
)


def find_native(method: str, path: str) -> tuple[NativeRoute, Mapping[str, str]] | None:
    """The endpoint of that method and full, decoded *path*, with the values of its parameters."""
    if not path.startswith(f"{MANAGEMENT}/"):
        return None
    given = path.removeprefix(MANAGEMENT).split("/")
    for route in ROUTES:
        segments = route.segments
        if route.method != method or len(segments) != len(given):
            continue
        params: dict[str, str] = {}
        for pattern, value in zip(segments, given, strict=True):
            if pattern.startswith("{") and value:
                params[pattern[1:-1]] = value
            elif pattern != value:
                break
        else:
            return route, params
    return None


def is_reserved(method: str, path: str) -> bool:
    """Whether a native endpoint has that method and full path, so that no plugin can."""
    return find_native(method, path) is not None
