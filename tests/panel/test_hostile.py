"""A plugin that means ill: its names are text, its page reaches nobody. And all of it on a phone."""

from pathlib import Path

import trio
from playwright.sync_api import expect

from tests.panel.browser import KEY, PHONE, Visit, visit
from tests.panel.site import ask, build, operated

FAIL_S = 300
MARKUP = "<img src=x onerror=alert(1)>"
FIELDS = (
    {"Name": f"a{MARKUP}", "Type": "string", "Description": f"b{MARKUP}"},
    {"Name": "kind", "Type": "enum", "EnumValues": [MARKUP, "</select><script>alert(2)</script>"]},
    {"Name": "kind", "Type": "integer", "Description": "the same name again"},
    {"Name": "later", "Type": f"unheard-of{MARKUP}"},
    {"Name": "api_key", "Type": "string", "Description": "x" * 400},
)
PAGES = ("Overview", "Requests", "Plugins", "Credentials", "Models and routes", "Configuration", "Log")
ATTACK = """<!doctype html><pre id="told"></pre><script>
const told = [];
const attempt = (name, reach) => {
  try { told.push(`${name}: ${reach()}`); } catch (error) { told.push(`${name} refused: ${error.name}`); }
};
attempt("parent", () => parent.document.title);
attempt("key", () => sessionStorage.getItem("cpa-management-key"));
attempt("cookie", () => document.cookie);
attempt("top", () => (top.location = "/v0/resource/plugins/evil/page"));
attempt("popup", () => window.open("/management.html"));
fetch("/v0/management/config")
  .then(answer => answer.text())
  .then(text => told.push(`api: ${text}`), error => told.push(`api refused: ${error.name}`))
  .then(() => { document.getElementById("told").textContent = told.join("\\n"); });
</script>"""
REFUSED = (
    "parent refused: SecurityError\nkey refused: SecurityError\ncookie refused: SecurityError\n"
    "top refused: SecurityError\npopup: null\napi refused: TypeError"
)


async def test_a_hostile_plugin_on_a_phone(tmp_path: Path, chromium: str) -> None:
    """The key is kept for the tab, which is where the plugin looks for it."""
    build(tmp_path / "first.so", menu=MARKUP, fields=FIELDS, html=ATTACK)
    with trio.fail_after(FAIL_S):
        async with operated(tmp_path) as proxy:

            def meet(seen: Visit) -> None:
                seen.open(keep=True)
                assert seen.page.evaluate("sessionStorage.getItem('cpa-management-key')") == KEY
                assert ask(seen.url, MARKUP).status_code == 400
                assert ask(seen.url).status_code == 200
                for name in PAGES:
                    seen.page.get_by_role("button", name="Menu").click()
                    seen.go(name)
                    expect(seen.page.get_by_text("Loading…")).to_have_count(0)
                    fits(seen)
                look_at_the_plugin(seen)
                look_at_a_request(seen)

            await visit(proxy, chromium, meet, size=PHONE, quiet_below="/v0/resource/")


def fits(seen: Visit) -> None:
    """Nothing is wider than the screen, and nothing of what was sent is markup."""
    width = seen.page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE[0], (seen.page.url, width)
    assert seen.page.locator("main img, main script").count() == 0


def look_at_the_plugin(seen: Visit) -> None:
    """Its names, its form, its page."""
    seen.page.goto(f"{seen.url}/management.html#/plugins/first")
    expect(seen.page.get_by_role("heading", level=2, name="first")).to_be_visible()
    expect(seen.page.get_by_text(f"{MARKUP} 1 by tests")).to_be_visible()
    form = seen.page.locator("form.settings")
    expect(form.get_by_label(f"a{MARKUP}")).to_be_visible()
    expect(form.get_by_text(f"b{MARKUP}")).to_be_visible()
    assert form.get_by_label("kind").locator("option").all_inner_texts()[1] == MARKUP
    assert form.get_by_label("api_key").get_attribute("type") == "password"
    fits(seen)
    seen.page.get_by_role("link", name=MARKUP).click()
    frame = seen.page.frame_locator("iframe.plugin-page")
    expect(frame.locator("#told")).to_have_text(REFUSED)
    assert seen.page.locator("iframe").get_attribute("sandbox") == "allow-scripts allow-forms"
    fits(seen)
    # Addresses of the panel's own making only.
    seen.page.goto(f"{seen.url}/management.html#/plugins/first/javascript%3Aalert(3)")
    expect(seen.page.get_by_text("The plugin has no such page.")).to_be_visible()


def look_at_a_request(seen: Visit) -> None:
    """The list gives way to the one."""
    seen.page.goto(f"{seen.url}/management.html#/requests")
    seen.page.get_by_role("link", name="claude").first.click()
    expect(seen.page.get_by_role("region", name="claude")).to_contain_text("request.intercept_before")
    fits(seen)
    seen.page.get_by_role("button", name="Close").click()
    expect(seen.page.get_by_role("heading", level=1, name="Requests")).to_be_visible()
