"""The panel without a mouse, and with a key that is wrong, kept, or no longer good."""

from pathlib import Path

import trio
from playwright.sync_api import expect

from tests.panel.browser import KEY, Visit, visit
from tests.panel.site import build, operated
from tests.proxy import RunningProxy

FAIL_S = 300
NEW_KEY = "another-key-of-the-tests"
PAGES = ("Overview", "Requests", "Plugins", "Credentials", "Models and routes", "Configuration", "Log")
MOST_STOPS = 60
FOCUS = """() => {
  const on = document.activeElement;
  const style = getComputedStyle(on.closest(".editor") ?? on);
  return {
    name: on.getAttribute("aria-label") || on.textContent.trim() || on.id || on.tagName,
    inDialog: on.closest("dialog") !== null,
    atEnd: on === document.body,
    outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
  };
}"""


async def test_keyboard_and_keys(tmp_path: Path, chromium: str) -> None:
    """Each page is reached, each control is reached and seen to be, dialogs keep the focus and give it back.

    Then the key is changed: the question comes back above the page, and with the new one everything goes on.
    """
    build(tmp_path / "first.so")
    with trio.fail_after(FAIL_S):
        async with operated(tmp_path) as proxy:

            def walk(seen: Visit) -> None:
                keyboard = seen.page.keyboard
                seen.page.goto(f"{seen.url}/management.html")
                keyboard.type("a wrong key")
                keyboard.press("Enter")
                expect(seen.page.get_by_role("dialog")).to_contain_text("This key is not right.")
                keyboard.press("Escape")
                keyboard.press("Escape")
                expect(seen.page.get_by_role("dialog")).to_be_visible()
                keyboard.press("Control+a")
                keyboard.type(KEY)
                keyboard.press("Enter")
                expect(seen.page.get_by_role("dialog")).to_have_count(0)
                for name in PAGES:
                    follow(seen, name)
                    stops = walk_through(seen)
                    assert stops[0] == "Skip to the page"
                    assert len(stops) == len(PAGES) + 2 + CONTROLS[name], (name, stops)
                a_dialog(seen)
                change_the_key(seen, proxy)

            await visit(proxy, chromium, walk)


CONTROLS = {
    "Overview": 1,
    "Requests": 3,
    "Plugins": 6,  # handles, links and switches of two plugins
    "Credentials": 5,  # search, add, switch, model, delete
    "Models and routes": 2,  # search, a link to the configuration
    "Configuration": 1,  # nothing to save, nothing to undo
    "Log": 3,
}
"""Stops on a page beside the navigation."""


def follow(seen: Visit, name: str) -> None:
    """Tab to the link of a page and follow it: reading goes on at its heading."""
    seen.page.locator("body").evaluate("() => document.activeElement.blur()")
    for _ in range(MOST_STOPS):
        if seen.page.evaluate(FOCUS)["name"] == name:
            break
        seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Enter")
    heading = seen.page.get_by_role("heading", level=1, name=name)
    expect(heading).to_be_visible()
    if name != "Overview":  # where we were already
        expect(heading).to_be_focused()
    expect(seen.page.get_by_text("Loading…")).to_have_count(0)


def walk_through(seen: Visit) -> list[str]:
    """Names of all stops, from the top; each one is outlined."""
    # A link that nobody sees, but where the keyboard starts.
    seen.page.get_by_text("Skip to the page").focus()
    stops: list[str] = []
    for _ in range(MOST_STOPS):
        focus = seen.page.evaluate(FOCUS)
        if focus["atEnd"] or stops[:1] == [focus["name"]]:  # browsers may begin again without a stop between
            break
        assert focus["outlined"], focus
        stops.append(focus["name"])
        seen.page.keyboard.press("Tab")
    return stops


def a_dialog(seen: Visit) -> None:
    """Opened, walked through twice, closed."""
    keyboard = seen.page.keyboard
    seen.go("Credentials")
    add = seen.page.get_by_role("button", name="Add…")
    add.focus()
    keyboard.press("Enter")
    expect(seen.page.get_by_role("dialog", name="Add a credential")).to_be_visible()
    for _ in range(20):
        keyboard.press("Tab")
        focus = seen.page.evaluate(FOCUS)
        assert focus["inDialog"] or focus["atEnd"], focus  # between the last and the first comes the browser itself
    keyboard.press("Escape")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    expect(add).to_be_focused()


def change_the_key(seen: Visit, proxy: RunningProxy) -> None:
    """While the configuration is being edited. A kept key survives a reload."""
    seen.page.reload()
    seen.enter(keep=True)
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    seen.page.goto(f"{seen.url}/management.html#/overview")
    seen.page.reload()
    expect(seen.page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    seen.go("Configuration")
    editor = seen.page.get_by_label("Configuration file")
    expect(seen.page.get_by_text("no problems")).to_be_visible()
    text = proxy.config_file.read_text()
    edited = text.replace("request-retry: 0", "request-retry: 1")
    # The file has the hash of the old key.
    old_hash = text.partition("secret-key: ")[2].partition("}")[0]
    proxy.config_file.write_text(text.replace(old_hash, f"'{NEW_KEY}'"))
    editor.fill(edited)
    seen.go("Overview")  # which asks four things, again and again
    expect(seen.page.get_by_text("Loading…")).to_have_count(0)
    refused: list[str] = []
    seen.page.on("response", lambda answer: refused.append(answer.url) if answer.status == 401 else None)
    trio.from_thread.run(proxy.app.reload)
    dialog = seen.page.get_by_role("dialog")
    expect(dialog).to_contain_text("This key is not right.")
    seen.enter(NEW_KEY)
    expect(dialog).to_have_count(0)
    assert len(refused) == 1, refused  # five would close management to everybody here
    seen.go("Configuration")
    expect(editor).to_have_value(edited)
    expect(seen.page.get_by_text("no problems")).to_be_visible()
    assert seen.page.evaluate("sessionStorage.length") == 0  # this one was not to be kept
