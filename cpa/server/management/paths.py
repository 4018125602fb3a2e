"""Which paths are the management API's, the control panel's and plugins' pages', without what serves them."""

from typing import Final

from cpa.host.paths import MANAGEMENT, RESOURCES

BELOW: Final = f"{MANAGEMENT}/"
PANEL_PAGE: Final = "/management.html"
PANEL_BELOW: Final = "/management/"
"""Where the page's files are."""
CALLBACK: Final = f"{MANAGEMENT}/oauth-callback"
CLIENT_KEYS: Final = f"{MANAGEMENT}/api-keys"
"""Queries of which name keys in clear."""

SECRET_QUERIES: Final = frozenset({CALLBACK, CLIENT_KEYS})
"""Whose parameters may be secret without being called so: the code of a sign-in, a client key that is deleted."""
POLLED: Final = frozenset(
    f"{MANAGEMENT}/{name}"
    for name in (
        *("overview", "requests", "requests/stream", "routes", "limits", "credentials", "plugins", "logs/recent"),
        "cooldowns",
    )
)
"""Asked every few seconds by the control panel, which shows the log too. Refusals are written."""

_SERVED: Final = (BELOW, f"{RESOURCES}/", PANEL_BELOW)
_SERVED_EXACTLY: Final = frozenset({MANAGEMENT, PANEL_PAGE})


def is_management(path: str) -> bool:
    """Whether *path* is the management API's."""
    return path.startswith(BELOW) or path == MANAGEMENT


def is_served(path: str) -> bool:
    """Whether `ManagementSite` serves *path*, which then is closed to pages of other sites. Asked for every request."""
    return path.startswith(_SERVED) or path in _SERVED_EXACTLY
