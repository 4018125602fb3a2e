"""What the members of credential files mean, and what is said of those that mean nothing."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.schema import ErrorAction, ModelEntry, OAuthModelAlias
from cpa.credentials.members import MAX_ITEMS, FileSettings, renamed, settings_of
from cpa.types import JsonValue

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KNOWN = (
    *("api_key", "base_url", "label", "email", "prefix", "note", "proxy_url", "disabled", "priority", "weight"),
    *("headers", "models", "model_aliases", "excluded_models", "disable_cooling", "request_retry"),
    *("request_scoped_errors", "model-aliases", "proxy-url", "unknown"),
)


def settings_from(**members: Any) -> FileSettings:
    """Of a file with those members."""
    return settings_of(renamed(members))


def test_the_example_of_the_contract() -> None:
    """Proxy 3.4, all of it."""
    found = settings_from(
        type="myplugin",
        label="team account",
        email="ops@example.com",
        prefix="team",
        proxy_url="socks5://127.0.0.1:1080",
        disabled=False,
        priority=10,
        weight=3,
        note="expires in March",
        headers={"X-Team": "blue"},
        excluded_models=["*-Preview"],
        model_aliases=[
            {"name": "big-model", "alias": "big", "fork": True, "display-name": "Big", "force-mapping": False}
        ],
        disable_cooling=False,
        request_retry=2,
        request_scoped_errors=[{"status": 400, "match": ["overloaded"], "action": "continue-and-cooldown"}],
        websockets=False,
        refresh_interval_seconds=1800,
        access_token="…",
    )
    assert found.problems == ()
    assert (found.label, found.prefix, found.note) == ("team account", "team", "expires in March")
    assert (found.proxy_url, found.disabled) == ("socks5://127.0.0.1:1080", False)
    assert (found.priority, found.weight, found.request_retry, found.disable_cooling) == (10, 3, 2, False)
    assert found.headers == {"X-Team": "blue"}
    assert found.excluded_models == ("*-preview",)
    assert found.aliases == (OAuthModelAlias(name="big-model", alias="big", fork=True, display_name="Big"),)
    (rule,) = found.error_rules
    assert (rule.status, rule.match, rule.action) == (400, ("overloaded",), ErrorAction.CONTINUE_AND_COOLDOWN)


def test_an_empty_file_asks_for_nothing() -> None:
    """Defaults: and a credential inherits what it does not say."""
    assert settings_from() == FileSettings()
    assert settings_from(**dict.fromkeys(KNOWN)) == FileSettings()
    assert (FileSettings().request_retry, FileSettings().disable_cooling, FileSettings().weight) == (None, None, 1)


def test_label_falls_back_on_the_address() -> None:
    """Proxy 3.4; the provider is the last resort of whoever makes the credential."""
    assert settings_from(email=" me@x.test ").label == "me@x.test"
    assert settings_from(email="me@x.test", label="me").label == "me"


@pytest.mark.parametrize(
    ("written", "priority", "weight"),
    [
        (7, 7, 7),
        ("7", 7, 7),
        (" 7 ", 7, 7),
        (7.0, 7, 7),
        (-3, -3, 0),
        ("-3", -3, 0),
        (1_000_000, 1_000_000, 1_000_000),
    ],
)
def test_numbers_may_be_written_as_text(written: JsonValue, priority: int, weight: int) -> None:
    """A weight below 1 is stored as 0: never chosen by weighted round-robin."""
    found = settings_from(priority=written, weight=written)
    assert (found.priority, found.weight, found.problems) == (priority, weight, ())


@pytest.mark.parametrize("written", [True, 1.5, "x", "1.5", [1], {}, 10**30, "9" * 40, float("inf")], ids=repr)
def test_what_is_no_number_is_named_and_ignored(written: JsonValue) -> None:
    """One member at a time; the credential is used all the same."""
    found = settings_from(priority=written, weight=written, request_retry=written)
    assert (found.priority, found.weight, found.request_retry) == (0, 1, None)
    assert {problem.member for problem in found.problems} == {"priority", "weight", "request_retry"}
    assert all(" got " in problem.text and "expected " in problem.text for problem in found.problems)
    assert not found.unusable


def test_old_spellings_are_renamed() -> None:
    """Proxy 3.4; today's spelling counts where both are given."""
    old: dict[str, JsonValue] = {
        "api-key": "k",
        "base-url": "https://gw.test/v1/",
        "disable-cooling": True,
        "excluded-models": ["a"],
        "model-aliases": [{"name": "n", "alias": "a"}],
        "proxy-url": "direct",
        "request-retry": 1,
        "request-scoped-errors": [{"status": 500, "match": ["x"], "action": "stop"}],
        "tool-prefix-disabled": True,
        "x-other": 1,
    }
    now = renamed(old)
    assert set(now) == {name.replace("-", "_") for name in old} - {"x_other"} | {"x-other"}
    found = settings_of(now)
    assert (found.api_key, found.base_url, found.proxy_url) == ("k", "https://gw.test/v1", "direct")
    assert (found.disable_cooling, found.request_retry, found.excluded_models) == (True, 1, ("a",))
    assert (len(found.aliases), len(found.error_rules)) == (1, 1)
    assert settings_from(**{"api-key": "old", "api_key": "new"}).api_key == "new"


def test_models_are_those_of_the_configuration() -> None:
    """With both spellings of their members."""
    found = settings_from(
        models=[
            {"name": "up", "alias": "down", "force-mapping": True},
            {"name": "two", "display_name": "Two", "thinking": {"levels": ["low", "high"]}},
        ]
    )
    first, second = found.models
    assert first == ModelEntry(name="up", alias="down", force_mapping=True)
    assert (second.display_name, second.thinking and second.thinking.levels) == ("Two", ("low", "high"))


@pytest.mark.parametrize(
    ("members", "member"),
    [
        ({"models": "gpt"}, "models"),
        ({"models": [{"name": "ok"}, 7, {"alias": ""}, {"name": "x", "typo": 1}]}, "models[1]"),
        ({"model_aliases": [{"name": "x"}]}, "model_aliases[0].alias"),
        (
            {"request_scoped_errors": [{"status": 1, "match": ["x"], "action": "stop"}]},
            "request_scoped_errors[0].status",
        ),
        (
            {"request_scoped_errors": [{"status": 400, "match": ["x"], "action": "?"}]},
            "request_scoped_errors[0].action",
        ),
        ({"request_scoped_errors": [{"status": 400, "action": "stop"}]}, "request_scoped_errors[0].match"),
        (
            {"request_scoped_errors": [{"status": 400, "match_regexr": ["("], "action": "stop"}]},
            "request_scoped_errors",
        ),
        ({"headers": {"Bad Name": "x"}}, "headers"),
        ({"headers": ["x"]}, "headers"),
        ({"prefix": "a/b"}, "prefix"),
        ({"label": ["x"]}, "label"),
        ({"disable_cooling": "maybe"}, "disable_cooling"),
    ],
    ids=repr,
)
def test_wrong_members_are_named(members: dict[str, Any], member: str) -> None:
    """By their path in the file. Half a rule is no rule."""
    found = settings_of(renamed(members))
    assert any(problem.member.startswith(member) for problem in found.problems), found.problems
    assert (found.error_rules, found.aliases, found.headers) == ((), (), {})
    assert not found.unusable


@pytest.mark.parametrize(
    "members",
    [
        {"disabled": "yes"},
        {"disabled": 1},
        {"proxy_url": "ftp://x"},
        {"proxy_url": ["direct"]},
        {"proxy_url": "http://h\r\nx"},
        {"base_url": "gw.test"},
        {"base_url": "https://user:secret-word@gw.test"},
        {"api_key": {"k": 1}},
        {"api_key": "a\nb"},
        {"excluded_models": "*"},
        {"excluded_models": [{"x": 1}]},
    ],
    ids=repr,
)
def test_limits_that_cannot_be_understood_make_a_file_unusable(members: dict[str, Any]) -> None:
    """A key must not go to another host, another way, or be used although somebody said no."""
    found = settings_of(members)
    assert found.unusable
    assert "secret-word" not in str(found.problems)


@pytest.mark.parametrize("name", ["api_key", "proxy_url", "base_url", "headers"])
def test_secrets_are_in_no_message(name: str) -> None:
    """Whatever is wrong with them."""
    found = settings_of({name: ["sk-very-secret"]})
    assert found.problems
    assert "sk-very-secret" not in repr(found) + str(found.problems)
    good = settings_of({"api_key": "sk-very-secret", "headers": {"X": "sk-very-secret"}})
    assert "sk-very-secret" not in repr(good)


def test_of_an_alias_that_is_given_twice_the_first_counts() -> None:
    """As in the configuration, where it is an error."""
    found = settings_from(model_aliases=[{"name": "a", "alias": "x"}, {"name": "b", "alias": "X"}])
    assert [alias.name for alias in found.aliases] == ["a"]
    assert found.problems


def test_lists_have_an_end() -> None:
    """Programs write files, too."""
    found = settings_from(models=[{"name": f"m{number}"} for number in range(MAX_ITEMS + 5)])
    assert len(found.models) == MAX_ITEMS


def test_deep_values_are_not_followed() -> None:
    """A thousand brackets are no way to end a program."""
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    found = settings_of({"models": deep, "headers": {"X": deep}, "excluded_models": deep})
    assert (found.models, found.headers) == ((), {})


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KNOWN), JSON, max_size=6))
def test_any_file_has_settings(members: dict[str, Any]) -> None:
    """Nothing in one raises, and what comes out keeps its bounds."""
    found = settings_of(renamed(members))
    assert 0 <= found.weight <= 1_000_000
    assert found.request_retry is None or found.request_retry >= 0
    assert "/" not in found.prefix
    assert not found.base_url or found.base_url.startswith(("http://", "https://"))
    assert all("\n" not in value and "\r" not in value for value in found.headers.values())
