"""Debian's Chromium, driven by Playwright from a thread of its own, in front of a running panel.

Whatever the page complains of fails the test: errors of scripts, violations of its policy, requests to anywhere else.
"""

import sys
import traceback
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import attrs
import trio
from playwright.sync_api import ConsoleMessage, Error, Locator, Page, Request, expect, sync_playwright

from tests.proxy import RunningProxy

KEY = "management-key-of-the-tests"
DESKTOP = (1280, 800)
PHONE = (360, 740)
WAIT_MS = 60_000.0
"""For anything to appear; machines under load are slow, and what does not come is waited for once."""
ARGUMENTS = (
    "--no-sandbox",  # its sandbox cannot be had by root or in most containers; it meets our pages only
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
STATUS_TOLD = "Failed to load resource: the server responded with a status of"
"""The browser's own line about answers that are errors. The panel shows those, and tests look there."""
BLOCKED = "Failed to load resource: net::ERR_FAILED"
"""Its line about answers that a script is not shown."""


@attrs.define(eq=False, slots=False)  # Playwright keeps things in whom it calls back
class Visit:
    """An operator with the panel open.

    Attributes:
      complaints: of the browser; the test fails with them.
      quiet_below: paths whose scripts may fail: pages of plugins that try what they may not.
    """

    page: Page
    url: str
    complaints: list[str] = attrs.field(factory=list)
    quiet_below: str = "\0"

    def enter(self, key: str = KEY, *, keep: bool = False) -> None:
        """Give the key."""
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_label("Management key").fill(key)
        if keep:
            dialog.get_by_label("Keep for this tab").check()
        dialog.get_by_role("button", name="Open").click()

    def open(self, *, keep: bool = False) -> None:
        """Load the panel and give the right key."""
        self.page.goto(f"{self.url}/management.html")
        self.enter(keep=keep)
        expect(self.page.get_by_role("dialog")).to_have_count(0)

    def go(self, name: str) -> None:
        """To the page of that name, as by its link."""
        self.page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(self.page.get_by_role("heading", level=1, name=name)).to_be_visible()

    def says(self, text: str) -> None:
        """Wait until a notice says that."""
        expect(self.notices).to_contain_text(text)

    @property
    def notices(self) -> Locator:
        """Where the panel tells what happened."""
        return self.page.locator(".notices")

    def watch(self) -> None:
        """Note everything that should not be."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("request", self._request)
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page.on("websocket", lambda socket: self.complaints.append(f"websocket: {socket.url}"))

    def _console(self, message: ConsoleMessage) -> None:
        where = urlsplit(message.location.get("url", "")).path
        expected = STATUS_TOLD if self.quiet_below == "\0" else (STATUS_TOLD, BLOCKED)
        told = message.type in ("error", "warning") and not message.text.startswith(expected)
        if told and not where.startswith(self.quiet_below):
            self.complaints.append(f"console: {message.text} ({where})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", "data:")):
            self.complaints.append(f"request to elsewhere: {request.url}")
        if KEY in request.url:
            self.complaints.append(f"the key in an address: {request.url}")


Script = Callable[[Visit], None]


async def visit(
    proxy: RunningProxy, chromium: str, script: Script, *, size: tuple[int, int] = DESKTOP, quiet_below: str = "\0"
) -> None:
    """Run *script*, which blocks, in a thread; the proxy goes on meanwhile.

    What goes wrong in it is printed: an error that has come through all nurseries of a proxy is hard to read.
    """
    await trio.to_thread.run_sync(
        partial(_visit, proxy.url, chromium, script, size, quiet_below), abandon_on_cancel=True
    )


def _visit(url: str, chromium: str, script: Script, size: tuple[int, int], quiet_below: str) -> None:
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS), timeout=WAIT_MS)
        try:
            context = browser.new_context(viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce")
            context.set_default_timeout(WAIT_MS)
            seen = Visit(context.new_page(), url, quiet_below=quiet_below)
            try:
                seen.watch()
                script(seen)
                assert not seen.complaints
            except BaseException:
                traceback.print_exc()
                print(f"complaints: {seen.complaints}\n{body_text(seen.page)}", file=sys.stderr)
                raise
        finally:
            browser.close()


def body_text(page: Page) -> str:
    """What stood on the page when something went wrong."""
    try:
        return page.locator("body").inner_text(timeout=1000)
    except Error as exc:
        return str(exc)
