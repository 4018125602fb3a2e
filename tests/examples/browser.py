"""A headless Chromium, driven by the WebDriver protocol of its driver: as much of it as the tests of pages need."""

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import httpx
import pytest
import trio

START_S = 90.0
"""A cold start of Chromium on a machine with other work; an idle one takes two seconds."""

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # its sandbox cannot be had by root or in most containers; it meets our pages only
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

LOOK = """
const text = element => element.innerText;
return {
  title: document.title,
  heading: [...document.querySelectorAll("h1")].map(text).join("|"),
  rows: [...document.querySelectorAll("dl dt")].map(name => [text(name), text(name.nextElementSibling)]),
  sections: [...document.querySelectorAll("h2")].map(name => [text(name), text(name.nextElementSibling)]),
  text: text(document.body),
  status: performance.getEntriesByType("navigation")[0].responseStatus,
};
"""


@attrs.frozen(kw_only=True)
class Seen:
    """What somebody in front of the browser sees.

    Attributes:
      status: of the HTTP answer.
      rows: of the definition list.
      sections: second-level headings and what stands below them.
      text: of the whole page, as it is rendered.
    """

    status: int
    title: str
    heading: str
    rows: list[tuple[str, str]]
    sections: Mapping[str, str]
    text: str


@attrs.frozen
class Browser:
    """One window of it."""

    driver: httpx.AsyncClient
    session: str

    async def open(self, url: str) -> Seen:
        """Go to an address as by its bar, and look at the page once it is loaded."""
        await post(self.driver, f"/session/{self.session}/url", {"url": url})
        found = await post(self.driver, f"/session/{self.session}/execute/sync", {"script": LOOK, "args": []})
        assert isinstance(found, dict)
        return Seen(
            status=found["status"],
            title=found["title"],
            heading=found["heading"],
            rows=[(name, value) for name, value in found["rows"]],
            sections=dict(found["sections"]),
            text=found["text"],
        )


async def post(driver: httpx.AsyncClient, path: str, body: Mapping[str, object]) -> Any:
    """One command."""
    answer = await driver.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["value"]


def installed(*names: str) -> str:
    """Path of the program that goes by one of these names."""
    for name in names:
        if found := shutil.which(name):
            return found
    reason = f"no {names[0]} on this machine: pages of plugins are not tested in a browser"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@attrs.frozen(kw_only=True)
class Programs:
    """Paths of what it takes."""

    chromium: str
    chromedriver: str


def programs() -> Programs:
    """Without them the test is skipped, or fails where nothing may be skipped."""
    return Programs(
        chromium=installed("chromium", "chromium-browser", "google-chrome"), chromedriver=installed("chromedriver")
    )


@asynccontextmanager
async def open_browser(using: Programs) -> AsyncIterator[Browser]:
    """A browser with a profile of its own, gone with all its processes after the block."""
    with TemporaryDirectory(prefix="cpa-browser-", ignore_cleanup_errors=True) as home:
        environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
        log = trio.Path(home) / "driver.log"
        async with trio.open_nursery() as nursery:
            async with await log.open("wb") as output:
                start = partial(
                    trio.run_process,
                    [using.chromedriver, "--port=0"],
                    stdout=output.fileno(),
                    stderr=output.fileno(),
                    env=environment,
                    start_new_session=True,  # the browser's processes are ended with the driver
                    check=False,
                    deliver_cancel=kill_all,
                )
                await nursery.start(start)
            url = f"http://127.0.0.1:{await port_in(log)}"
            async with httpx.AsyncClient(base_url=url, timeout=START_S, trust_env=False) as driver:
                options = {"binary": using.chromium, "args": [*ARGUMENTS, f"--user-data-dir={home}/profile"]}
                wanted = {"browserName": "chrome", "goog:chromeOptions": options}
                made = await post(driver, "/session", {"capabilities": {"alwaysMatch": wanted}})
                yield Browser(driver, made["sessionId"])
                await driver.delete(f"/session/{made['sessionId']}")
            nursery.cancel_scope.cancel()


async def kill_all(driver: trio.Process) -> None:
    """The driver and everything that it started."""
    os.killpg(driver.pid, signal.SIGKILL)


async def port_in(log: trio.Path) -> int:
    """Where the driver listens, once it says so."""
    with trio.fail_after(START_S):
        while True:
            found = re.search(r"started successfully on port (\d+)", await log.read_text(errors="replace"))
            if found is not None:
                return int(found[1])
            await trio.sleep(0.02)
