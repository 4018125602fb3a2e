"""The control panel over HTTP: one page and its files (`panel_files`).

The page is public, as a form to sign in is: it asks for the management key itself, and everything that it shows comes
from the management API. Who may reach that API at all (a key is configured; from
other machines only where that is allowed) may have the page.
"""

import re
from typing import Final

import attrs

from cpa.errors import RawHeaders
from cpa.server.management.calls import Answer, text_answer
from cpa.server.management.panel_files import TYPES, PanelFile, PanelFiles
from cpa.server.management.paths import PANEL_BELOW, PANEL_PAGE
from cpa.server.routes import ClientHead

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"font-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Files of ours only, nothing inline, no page around it. Frames are for pages of plugins, which bring a sandbox."""
PROTECTION: Final = (
    (b"content-security-policy", POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
FOR_EVER: Final = (b"cache-control", b"public, max-age=31536000, immutable")
"""Of files whose names hold a digest of their content."""
ASKED_AGAIN: Final = (b"cache-control", b"no-cache")

_GZIP = re.compile(rb"(?:^|,)\s*(?:gzip|\*)\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[\d.]+\s*)?(?=,|$)", re.IGNORECASE)

UNBUILT: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CPA control panel: not built</title>
<h1>The control panel is not built</h1>
<p>This CPA runs from its sources, and the panel's files are not there. With node 18 or newer and npm installed, run
<code>make panel</code> in the checkout and load this page again; CPA need not be restarted.</p>
<p>Packages of CPA contain the panel. The management API below <code>/v0/management</code> works without it.</p>
</html>
"""
REMOTE_REFUSED: Final = text_answer(
    "remote management disabled: open this page on the proxy's own machine, or set remote-management.allow-remote\n",
    status=403,
)


def is_panel(path: str) -> bool:
    """Whether *path* is the page's or one of its files'."""
    return path == PANEL_PAGE or path.startswith(PANEL_BELOW)


async def serve_panel(panel: PanelFiles, head: ClientHead) -> Answer:
    """The answer to a request for the page or a file of it."""
    if head.method not in ("GET", "HEAD"):
        return attrs.evolve(text_answer("use GET\n", status=405), headers=((b"allow", b"GET, HEAD"),))
    found = await panel.get(head.path)
    if found is not None:
        return _answer(found, head)
    if head.path == PANEL_PAGE:
        return Answer(headers=((b"content-type", TYPES[".html"]), ASKED_AGAIN, *PROTECTION), body=UNBUILT)
    return Answer(status=404)


def _answer(found: PanelFile, head: ClientHead) -> Answer:
    packed = bool(found.packed) and _GZIP.search(head.header(b"accept-encoding")) is not None
    headers: RawHeaders = (
        (b"content-type", found.kind),
        (b"vary", b"accept-encoding"),
        ASKED_AGAIN if head.path == PANEL_PAGE else FOR_EVER,
        *PROTECTION,
    )
    if packed:
        headers = (*headers, (b"content-encoding", b"gzip"))
    return Answer(headers=headers, body=found.packed if packed else found.plain)
