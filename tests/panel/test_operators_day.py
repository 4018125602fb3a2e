"""An operator's day in the control panel (issue 7), in a real browser, on a real proxy."""

import re
from pathlib import Path
from typing import cast

import pytest
import trio
import yaml
from playwright.sync_api import expect

from tests.panel.browser import Visit, visit
from tests.panel.site import ask, build, operated
from tests.proxy import PROVIDER_KEY, RunningProxy

FAIL_S = 300


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two compiled plugins."""
    folder = tmp_path_factory.mktemp("plugins")
    for name in ("first", "second"):
        build(folder / f"{name}.so", html="<h1>Notes of the day</h1>")
    return folder


async def test_the_day(plugins: Path, chromium: str) -> None:
    """Everything that the issue lists, one after the other."""
    with trio.fail_after(FAIL_S):
        async with operated(plugins) as proxy:

            def day(seen: Visit) -> None:
                seen.open()
                expect(seen.page.get_by_text("No requests yet in this time.")).to_be_visible()
                add_a_credential(seen, proxy)
                enable_a_plugin(seen, proxy)
                change_its_settings(seen, proxy)
                change_its_priority(seen, proxy)
                look_at_its_page(seen)
                watch_a_request(seen)
                see_a_cooldown(seen)
                fix_a_broken_configuration(seen, proxy)
                upload_and_delete(seen, proxy)
                seen.go("Overview")
                expect(seen.page.locator("figure.chart")).to_have_count(3)
                expect(seen.page.locator("figure.chart canvas").first).to_be_visible()
                seen.go("Log")
                expect(seen.page.get_by_text("They appear as they come.")).to_be_visible()  # tests have no log

            await visit(proxy, chromium, day)


def saved(proxy: RunningProxy) -> dict[str, object]:
    """What is in the file now, whose first comment has to be there still."""
    text = proxy.config_file.read_text()
    assert text.startswith("# The operator's notes stay.\n")
    content = yaml.safe_load(text)
    assert isinstance(content, dict)
    return content


def add_a_credential(seen: Visit, proxy: RunningProxy) -> None:
    """A second provider, whose model is served at once; a mistake is told inside the dialog."""
    seen.go("Credentials")
    seen.page.get_by_role("button", name="Add…").click()
    dialog = seen.page.get_by_role("dialog")
    dialog.get_by_label("Provider", exact=True).select_option(label="OpenAI-compatible")
    dialog.get_by_label("Name", exact=True).fill("second-provider")
    dialog.get_by_label("API key", exact=True).fill(PROVIDER_KEY)
    dialog.get_by_role("button", name="Add the key").click()
    expect(dialog.get_by_role("alert")).to_contain_text("A base URL is needed")
    dialog.get_by_label("Base URL").fill(f"{proxy.mock.url}/v1")
    dialog.get_by_label("Models").fill("mock-gpt = gpt\nmock-gpt-tool")
    dialog.get_by_role("button", name="Add the key").click()
    seen.says("key is added")
    expect(dialog).to_have_count(0)
    group = seen.page.get_by_role("region", name="openai-compatible-second-provider")
    expect(group.get_by_role("button", name=re.compile("^gpt ready"))).to_be_visible()
    answer = ask(seen.url, "gpt")
    assert answer.status_code == 200, answer.text
    assert PROVIDER_KEY not in seen.page.content()
    # Off and on again.
    switch = group.get_by_role("switch")
    switch.click()
    expect(group.get_by_text("disabled", exact=True).first).to_be_visible()
    assert ask(seen.url, "gpt").status_code != 200
    switch.click()
    expect(group.get_by_role("button", name=re.compile("^gpt ready"))).to_be_visible()


def enable_a_plugin(seen: Visit, proxy: RunningProxy) -> None:
    """The switch in the list."""
    seen.go("Plugins")
    row = seen.page.get_by_role("listitem").filter(has_text="second")
    expect(row.get_by_text("disabled", exact=True)).to_be_visible()
    row.get_by_role("switch", name="second enabled").click()
    expect(row.get_by_text("registered", exact=True)).to_be_visible()
    assert "enabled: true, priority: 10}  # not yet" in proxy.config_file.read_text()


def change_its_settings(seen: Visit, proxy: RunningProxy) -> None:
    """The form knows the kinds of the plugin's settings."""
    seen.page.get_by_role("link", name="second", exact=True).click()
    form = seen.page.locator("form.settings")
    form.get_by_label("most").fill("many")
    expect(form.get_by_text("Expected a whole number, like 3.")).to_be_visible()
    expect(form.get_by_role("button", name="Save")).to_be_disabled()
    form.get_by_label("most").fill("7")
    form.get_by_label("mode").select_option("quick")
    form.get_by_label("words").fill('["a", "b"]')
    form.get_by_label("loud").select_option("false")
    form.get_by_role("button", name="Save 4 changed").click()
    seen.says("Settings saved.")
    plugins = saved(proxy)["plugins"]
    assert isinstance(plugins, dict)
    assert plugins["configs"]["second"] == {
        **{"enabled": True, "priority": 10, "most": 7, "mode": "quick", "loud": False, "words": ["a", "b"]}
    }
    expect(form.get_by_label("most")).to_have_value("7")


def change_its_priority(seen: Visit, proxy: RunningProxy) -> None:
    """By keys first, undone; then by dragging, saved."""
    ids = seen.page.locator("ol.plugins .what > a")
    expect(ids).to_have_text(["first", "second"])
    handle = seen.page.get_by_role("button", name="Move second")
    handle.focus()
    seen.page.keyboard.press("ArrowUp")
    expect(ids).to_have_text(["second", "first"])
    expect(handle).to_be_focused()
    seen.page.get_by_role("button", name="Undo", exact=True).first.click()
    expect(ids).to_have_text(["first", "second"])

    start, end = handle.bounding_box(), seen.page.get_by_role("button", name="Move first").bounding_box()
    assert start is not None
    assert end is not None
    seen.page.mouse.move(start["x"] + 8, start["y"] + 8)
    seen.page.mouse.down()
    seen.page.mouse.move(end["x"] + 8, end["y"] - 4, steps=4)
    seen.page.mouse.up()
    expect(ids).to_have_text(["second", "first"])
    seen.page.get_by_role("button", name="Save order").click()
    seen.says("Order saved.")
    expect(seen.page.get_by_role("button", name="Save order")).to_have_count(0)
    expect(ids).to_have_text(["second", "first"])
    plugins = saved(proxy)["plugins"]
    assert isinstance(plugins, dict)
    assert plugins["configs"]["second"]["priority"] > plugins["configs"]["first"]["priority"]


def look_at_its_page(seen: Visit) -> None:
    """In a frame."""
    seen.page.get_by_role("link", name="Notes", exact=True).click()
    frame = seen.page.frame_locator("iframe.plugin-page")
    expect(frame.get_by_role("heading", name="Notes of the day")).to_be_visible()


def watch_a_request(seen: Visit) -> None:
    """It appears by itself, and so does what the plugins did to it, in their new order."""
    seen.go("Requests")
    expect(seen.page.get_by_text("live", exact=True)).to_be_visible()
    before = seen.page.get_by_role("link", name="claude").count()
    assert ask(seen.url).status_code == 200
    link = seen.page.get_by_role("link", name="claude")
    expect(link).to_have_count(before + 1)
    link.first.click()
    view = seen.page.get_by_role("region", name="claude")
    expect(view.get_by_text("openai → claude")).to_be_visible()
    stages = view.get_by_role("listitem").filter(has_text="request.intercept_before")
    expect(stages).to_have_count(2)
    expect(stages.nth(0).get_by_role("link")).to_have_text("second")
    expect(stages.nth(1).get_by_role("link")).to_have_text("first")
    expect(stages.nth(0)).to_contain_text("+ header")
    expect(stages.nth(0)).to_contain_text(re.compile("x-noted", re.IGNORECASE))
    expect(view.get_by_text("1 attempt at providers")).to_be_visible()
    expect(view.get_by_text("hello")).to_have_count(0)  # no text of messages


def see_a_cooldown(seen: Visit) -> None:
    """With its reason and what remains of it; it can be ended."""
    assert ask(seen.url, status="429", retry_after="600").status_code == 429
    seen.go("Overview")
    expect(seen.page.get_by_role("link", name=re.compile("cools down for claude"))).to_be_visible()
    seen.go("Credentials")
    group = seen.page.get_by_role("region", name="claude", exact=True)
    state = group.get_by_role("button", name=re.compile(r"^claude cooling (9 min \d+|10 min)"))
    expect(state).to_be_visible()
    state.click()
    dialog = seen.page.get_by_role("dialog")
    expect(dialog.get_by_text("not used")).to_be_visible()
    expect(dialog.get_by_text("429")).to_be_visible()
    dialog.get_by_role("button", name="Close").last.click()
    group.get_by_role("button", name="End the cooldown").click()
    expect(group.get_by_role("button", name=re.compile("^claude ready"))).to_be_visible()
    assert ask(seen.url).status_code == 200


def upload_and_delete(seen: Visit, proxy: RunningProxy) -> None:
    """A file comes and goes, then the provider that was added; each only after a question."""
    seen.go("Credentials")
    seen.page.get_by_role("button", name="Add…").click()
    dialog = seen.page.get_by_role("dialog")
    dialog.get_by_label("A credential file").check()
    files = [
        {"name": "strange.json", "mimeType": "application/json", "buffer": b'{"type": "strange"}'},
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not a credential"},
    ]
    dialog.get_by_label("Files").set_input_files(files)  # type: ignore[arg-type]  # dicts are what it documents
    dialog.get_by_role("button", name="Upload").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Not taken: notes.txt")
    dialog.get_by_role("button", name="Cancel").click()
    assert (proxy.directory / "strange.json").is_file()
    one_more_key_and_one_less(seen, proxy)
    for group, question in (
        ("strange", "strange.json"),
        ("openai-compatible-second-provider", "openai-compatibility[0]"),
    ):
        region = seen.page.get_by_role("region", name=group)
        region.get_by_role("button", name="Delete…").click()
        expect(dialog).to_contain_text(question)
        dialog.get_by_role("button", name="Cancel").click()
        region.get_by_role("button", name="Delete…").click()
        dialog.get_by_role("button", name="Delete the credential").click()
        expect(region).to_have_count(0)
    assert not (proxy.directory / "strange.json").exists()
    assert not saved(proxy).get("openai-compatibility")
    assert ask(seen.url).status_code == 200


def one_more_key_and_one_less(seen: Visit, proxy: RunningProxy) -> None:
    """Of a provider that is there: its entry keeps the other key."""
    seen.page.get_by_role("button", name="Add…").click()
    dialog = seen.page.get_by_role("dialog")
    dialog.get_by_label("Provider", exact=True).select_option(label="OpenAI-compatible")
    dialog.get_by_label("Name", exact=True).fill("second-provider")
    dialog.get_by_label("API key", exact=True).fill("one more key")
    dialog.get_by_role("button", name="Add the key").click()
    delete = seen.page.get_by_role("region", name="openai-compatible-second-provider").get_by_role(
        "button", name="Delete…"
    )
    expect(delete).to_have_count(2)
    delete.last.click()
    expect(dialog).to_contain_text("openai-compatibility[0].api-key-entries[1]")
    dialog.get_by_role("button", name="Delete the credential").click()
    expect(delete).to_have_count(1)
    [entry] = cast("list[dict[str, object]]", saved(proxy)["openai-compatibility"])
    assert entry["api-key-entries"] == [{"api-key": PROVIDER_KEY}]
    assert ask(seen.url, "gpt").status_code == 200


def fix_a_broken_configuration(seen: Visit, proxy: RunningProxy) -> None:
    """Problems while typing; what would change before it is saved; somebody else's edit is noticed."""
    seen.go("Configuration")
    editor = seen.page.get_by_label("Configuration file")
    expect(editor).to_have_value(proxy.config_file.read_text())
    whole = proxy.config_file.read_text()
    line = whole.splitlines().index("request-retry: 0") + 1
    editor.fill(whole.replace("request-retry: 0", "request-retry: many"))
    expect(seen.page.get_by_text("1 problem", exact=True).first).to_be_visible()
    expect(seen.page.get_by_role("button", name="Review and save…")).to_be_disabled()
    problem = seen.page.get_by_role("button", name=re.compile(f"line {line}.*request-retry.*expected an integer"))
    problem.click()
    expect(editor).to_be_focused()
    seen.go("Models and routes")  # edits survive a look elsewhere
    seen.go("Configuration")
    expect(editor).to_have_value(re.compile("request-retry: many"))

    editor.fill(whole.replace("request-retry: 0", "request-retry: 2"))
    expect(seen.page.get_by_text("no problems")).to_be_visible()
    proxy.config_file.write_text(whole + "# somebody else was here\n")
    seen.page.keyboard.press("Control+s")
    dialog = seen.page.get_by_role("dialog")
    expect(dialog.get_by_text("request-retry: 0 -> 2")).to_be_visible()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody changed the file meanwhile.")
    expect(dialog.locator(".removed")).to_contain_text(["request-retry: 0", "# somebody else was here"])
    dialog.get_by_role("button", name="Go on editing").click()
    editor.fill(f"{whole.replace('request-retry: 0', 'request-retry: 2')}# somebody else was here\n")
    expect(seen.page.get_by_text("no problems")).to_be_visible()
    seen.page.get_by_role("button", name="Review and save…").click()
    dialog.get_by_role("button", name="Save").click()
    seen.says("The configuration is saved and in use.")
    assert saved(proxy)["request-retry"] == 2
    assert proxy.config_file.read_text().endswith("# somebody else was here\n")
    assert proxy.app.state.runtime.config.request_retry == 2
