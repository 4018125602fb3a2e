"""Which names clients may use, who serves each of them, and under which name the provider knows it."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.config.load import parse_config
from cpa.config.schema import ModelEntry, OAuthModelAlias
from cpa.credentials.from_config import credentials_from_config
from cpa.credentials.model import FROM_FILE, OAUTH, Credential
from cpa.errors import NoCredential, UnknownModel
from cpa.formats.models import ModelCard, claude_list, gemini_model, openai_list
from cpa.formats.names import Format
from cpa.formats.thinking import Mode, Thinking
from cpa.models.catalogue import catalogue
from cpa.models.plugins import PluginModels
from cpa.models.registry import ModelRegistry, excluded
from cpa.testing.fakes import FakeAnswer, FakeExecutor
from cpa.types import Candidate, ModelResolver, PluginId

EXECUTOR = FakeExecutor(format=Format.OPENAI, answer=lambda call: FakeAnswer(()))


def registry(text: str, *, without: Iterable[str] = ()) -> ModelRegistry:
    """The models of the configuration *text*; providers in *without* have no executor."""
    config = parse_config(text, file="test.yaml").config
    credentials = credentials_from_config(config)
    executors = {c.provider: EXECUTOR for c in credentials if c.provider not in without}
    return ModelRegistry(credentials, executors, force_prefix=config.force_model_prefix)


def compatible(name: str, *, keys: int = 1, extra: str = "", models: str) -> str:
    """An entry of openai-compatibility with that many keys."""
    entries = ", ".join(f"{{api-key: {name}-{index}}}" for index in range(keys))
    return (
        f"{{name: {name}, base-url: 'https://{name}.test', {extra} api-key-entries: [{entries}], models: [{models}]}}"
    )


def names(models: ModelRegistry) -> set[str]:
    """What is listed."""
    return {card.id for card in models.cards}


def keys(candidates: Iterable[Candidate]) -> list[str]:
    """Whose they are."""
    return [candidate.credential.api_key for candidate in candidates]


def served_as(models: ModelRegistry, name: str) -> list[str]:
    """The provider's names of the model *name*."""
    return [candidate.model for candidate in models.resolve(name)]


# -- what a credential registers --


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("claude-api-key: [{api-key: k}]", "claude"),
        ("gemini-api-key: [{api-key: k}]", "gemini"),
        ("interactions-api-key: [{api-key: k}]", "gemini"),
        ("vertex-api-key: [{api-key: k}]", "gemini"),
        ("codex-api-key: [{api-key: k, base-url: 'https://a.test'}]", "codex"),
        ("xai-api-key: [{api-key: k, base-url: 'https://a.test'}]", "codex"),
    ],
)
def test_key_without_models_serves_the_catalogue(text: str, channel: str) -> None:
    """A key alone is a usable configuration."""
    models = registry(text)
    assert names(models) == {card.id for card in catalogue()[channel]}
    for name in names(models):
        assert served_as(models, name) == [name]


def test_key_with_models_serves_exactly_those() -> None:
    """The operator's list replaces the catalogue, it does not extend it."""
    models = registry("claude-api-key: [{api-key: k, models: [{name: claude-sonnet-4-6, alias: sonnet}, {name: m}]}]")
    assert names(models) == {"sonnet", "m"}
    assert served_as(models, "sonnet") == ["claude-sonnet-4-6"]
    assert served_as(models, "m") == ["m"]
    with pytest.raises(UnknownModel):
        models.resolve("claude-sonnet-4-6")  # its alias took its place


def test_compatible_provider_without_models_serves_nothing() -> None:
    """Nothing is known of it: there is no catalogue of it, and nobody asks it."""
    models = registry(f"openai-compatibility: [{compatible('f', models='')}]")
    assert models.cards == ()


def test_several_entries_serve_one_upstream_model_under_several_names() -> None:
    """Aliases are many to one."""
    models = registry(
        "openai-compatibility: ["
        + compatible("f", models="{name: big, alias: a}, {name: big, alias: b}, {name: big}")
        + "]"
    )
    assert names(models) == {"a", "b", "big"}
    assert served_as(models, "a") == served_as(models, "b") == served_as(models, "big") == ["big"]


def test_one_name_at_two_credentials_may_mean_two_upstream_models() -> None:
    """The alias belongs to the credential, so the request's model is settled with it."""
    models = registry(
        "openai-compatibility: ["
        + compatible("f", models="{name: x-large, alias: big}")
        + ","
        + compatible("g", models="{name: 'vendor/y:free', alias: big}")
        + "]"
    )
    assert {c.credential.label: c.model for c in models.resolve("big")} == {"f": "x-large", "g": "vendor/y:free"}


def test_credential_whose_provider_has_no_executor_serves_nothing() -> None:
    """A later part brings it; listing its models now would promise what fails."""
    models = registry(
        "interactions-api-key: [{api-key: k}]\nclaude-api-key: [{api-key: k}]", without=["gemini-interactions"]
    )
    assert models.providers() == ("claude",)
    assert names(models) == {card.id for card in catalogue()["claude"]}


# -- exclusions --


@pytest.mark.parametrize(
    ("model", "pattern", "expected"),
    [
        ("gpt-5", "gpt-5", True),
        ("GPT-5", "gpt-5", True),
        ("gpt-5.1", "gpt-5", False),
        ("my-gpt-5", "gpt-5", False),
        ("gpt-5.1", "gpt-*", True),
        ("x-Preview", "*-preview", True),
        ("x-preview-1", "*-preview", False),
        ("a-haiku-b", "*haiku*", True),
        ("haiku", "*haiku*", True),
        ("a1b2c", "a*b*c", True),
        ("acb", "a*b*c", False),
        ("axb", "a.b", False),
        ("a+b(c)", "a+b(c)", True),
        ("line\nbreak", "line*", True),
        ("", "", True),
        ("x", "", False),
    ],
)
def test_exclusion_patterns_match_whole_names_whatever_their_case(model: str, pattern: str, expected: bool) -> None:
    """Only ``*`` is special."""
    assert excluded(model, [pattern]) is expected
    assert excluded(model, ["nothing", pattern]) is expected


@given(st.text(max_size=20))
def test_every_name_is_excluded_by_itself(model: str) -> None:
    """Whatever characters it has; stars in it match themselves too."""
    assert excluded(model, [model.lower()])


def test_patterns_see_the_name_of_the_client_without_its_prefix() -> None:
    """Proxy 2.3: after the alias, before the prefix."""
    models = registry(
        "claude-api-key: [{api-key: k, prefix: team, excluded-models: ['Hidden-*', 'upstream', 'team/*'],"
        " models: [{name: a, alias: hidden-a}, {name: upstream, alias: shown}]}]"
    )
    assert names(models) == {"shown", "team/shown"}


def test_catalogue_can_be_narrowed() -> None:
    """The usual case: a key that is not allowed to use expensive models."""
    models = registry("claude-api-key: [{api-key: k, excluded-models: ['*OPUS*']}]")
    assert names(models) == {card.id for card in catalogue()["claude"] if "opus" not in card.id}


@pytest.mark.parametrize(
    "text", ["claude-api-key: [{%s}]", "openai-compatibility: [{name: f, %s, models: [{name: m}]}]"]
)
def test_star_alone_switches_a_credential_off(text: str) -> None:
    """How management switches keys of the configuration off; its provider is not available then either."""
    models = registry(text % "base-url: 'https://a.test', excluded-models: [x, '*']")
    assert models.cards == ()
    assert models.providers() == ()


def test_exclusion_concerns_its_own_credential_only() -> None:
    """Another key still serves the model."""
    models = registry("claude-api-key: [{api-key: k1, excluded-models: ['*opus*']}, {api-key: k2}]")
    assert keys(models.resolve("claude-opus-5")) == ["k2"]
    assert keys(models.resolve("claude-sonnet-5")) == ["k1", "k2"]


# -- prefixes --


def test_prefix_adds_a_name_and_keeps_the_bare_one() -> None:
    """Both are listed and mean the same upstream model."""
    models = registry("claude-api-key: [{api-key: k, prefix: team, models: [{name: up, alias: a}]}]")
    assert names(models) == {"team/a", "a"}
    assert served_as(models, "team/a") == served_as(models, "a") == ["up"]


def test_forced_prefix_removes_the_bare_name() -> None:
    """Then only who knows the prefix can spend that credential's money; others are not concerned."""
    text = (
        "force-model-prefix: true\n"
        "claude-api-key: [{api-key: k1, prefix: team, models: [{name: a}]}, {api-key: k2, models: [{name: b}]}]"
    )
    models = registry(text)
    assert names(models) == {"team/a", "b"}
    with pytest.raises(UnknownModel):
        models.resolve("a")


def test_forced_prefix_keeps_a_bare_name_that_equals_it() -> None:
    """Proxy 2.3 says so."""
    models = registry(
        "force-model-prefix: true\nclaude-api-key: [{api-key: k, prefix: solo, models: [{name: solo}, {name: b}]}]"
    )
    assert names(models) == {"solo/solo", "solo", "solo/b"}


def test_several_credentials_share_a_prefix() -> None:
    """A prefix names a group; the bare name reaches the others as well."""
    models = registry(
        "claude-api-key: [{api-key: k1, prefix: team, models: [{name: a}]}, {api-key: k2, prefix: team,"
        " models: [{name: a}]}, {api-key: k3, models: [{name: a}]}]"
    )
    assert keys(models.resolve("team/a")) == ["k1", "k2"]
    assert keys(models.resolve("a")) == ["k1", "k2", "k3"]


def test_prefix_belongs_to_its_credential_only() -> None:
    """Nobody else answers to it."""
    models = registry(
        "claude-api-key: [{api-key: k1, prefix: team, models: [{name: a}]}, {api-key: k2, models: [{name: b}]}]"
    )
    with pytest.raises(UnknownModel):
        models.resolve("team/b")


# -- resolution --


def test_names_are_case_sensitive() -> None:
    """Proxy 2.1; upstream names differ by case only at some gateways."""
    models = registry("claude-api-key: [{api-key: k, models: [{name: Big}]}]")
    assert served_as(models, "Big") == ["Big"]
    with pytest.raises(UnknownModel):
        models.resolve("big")


def test_unknown_model_is_named() -> None:
    """The client sees which of its models nobody serves."""
    with pytest.raises(UnknownModel) as caught:
        registry("{}").resolve("nope")
    assert caught.value.model == "nope"
    assert caught.value.http_status == 400


def test_providers_with_more_credentials_come_first_and_names_settle_ties() -> None:
    """Proxy 2.4 step 4; within a provider the order of the file stays."""
    models = registry(
        "openai-compatibility: ["
        + ", ".join(compatible(name, keys=count, models="{name: m}") for name, count in [("b", 1), ("c", 2), ("a", 1)])
        + "]\nclaude-api-key: [{api-key: k, models: [{name: m}]}]"
    )
    assert keys(models.resolve("m")) == ["c-0", "c-1", "k", "a-0", "b-0"]


def test_order_is_counted_per_model() -> None:
    """A provider with many keys that do not serve this model is not large for it."""
    models = registry(
        "openai-compatibility: ["
        + compatible("big", keys=3, models="{name: other}")
        + ","
        + compatible("big", models="{name: m}")
        + ","
        + compatible("small", keys=2, models="{name: m}")
        + "]"
    )
    assert [c.credential.label for c in models.resolve("m")] == ["small", "small", "big"]


def test_resolution_can_be_restricted_to_a_provider() -> None:
    """Routers do that."""
    models = registry(
        "openai-compatibility: ["
        + compatible("f", models="{name: m}")
        + "]\nclaude-api-key: [{api-key: k, models: [{name: m}, {name: n}]}]"
    )
    assert keys(models.resolve("m", provider="claude")) == ["k"]
    assert keys(models.resolve("m", provider="openai-compatible-f")) == ["f-0"]
    with pytest.raises(NoCredential, match="auth_not_found"):
        models.resolve("n", provider="openai-compatible-f")
    with pytest.raises(UnknownModel):
        models.resolve("nope", provider="claude")


def test_providers_are_sorted_and_only_those_that_can_be_used() -> None:
    """Plugins get this list."""
    models = registry(
        "openai-compatibility: ["
        + compatible("z", models="{name: m}")
        + ","
        + compatible("off", extra="disabled: true,", models="{name: m}")
        + "]\ngemini-api-key: [{api-key: k, excluded-models: ['*']}]\nclaude-api-key: [{api-key: k}]"
    )
    assert models.providers() == ("claude", "openai-compatible-z")


def test_auto_is_the_newest_listed_model() -> None:
    """Names settle ties, so that two runs agree."""
    models = registry("claude-api-key: [{api-key: k}]\ngemini-api-key: [{api-key: k}]")
    newest = max(models.cards, key=lambda card: (card.created, card.id))
    assert newest.created > 0
    assert models.resolve("auto") == models.resolve(newest.id)


def test_auto_of_models_without_a_date_is_some_model() -> None:
    """Compatible providers state none."""
    models = registry("openai-compatibility: [" + compatible("f", models="{name: a}, {name: b}") + "]")
    assert served_as(models, "auto") == ["b"]


def test_auto_without_models_is_unknown() -> None:
    """There is nothing to choose from."""
    with pytest.raises(UnknownModel):
        registry("{}").resolve("auto")


def test_registry_does_not_change_with_what_it_was_made_of() -> None:
    """It is a snapshot: running exchanges keep theirs over reloads."""
    config = parse_config("claude-api-key: [{api-key: k, models: [{name: m}]}]", file="test.yaml").config
    credentials = list(credentials_from_config(config))
    executors = {"claude": EXECUTOR}
    models = ModelRegistry(credentials, executors)
    before = (models.cards, models.resolve("m"), models.providers())
    credentials.clear()
    executors.clear()
    assert (models.cards, models.resolve("m"), models.providers()) == before
    assert isinstance(models.cards, tuple)
    assert isinstance(models.resolve("m"), tuple)
    resolver: ModelResolver = models
    assert resolver.resolve("m") == before[1]


# -- pools --

POOL = "{name: one, alias: smart}, {name: two, alias: smart}, {name: three, alias: smart}, {name: four}"


def test_several_entries_under_one_alias_take_turns() -> None:
    """Proxy 2.4: a request starts with the next one of the pool, and has the others to fall back on."""
    models = registry("openai-compatibility: [" + compatible("f", models=POOL) + "]")
    assert [served_as(models, "smart") for _ in range(4)] == [
        ["one", "two", "three"],
        ["two", "three", "one"],
        ["three", "one", "two"],
        ["one", "two", "three"],
    ]
    assert served_as(models, "four") == ["four"]
    assert names(models) == {"smart", "four"}


def test_pool_of_each_credential_stands_together_and_turns_when_all_had_a_request() -> None:
    """So that credentials and models, which both take turns, meet in all combinations."""
    models = registry("openai-compatibility: [" + compatible("f", keys=2, models=POOL) + "]")
    found = [[(c.credential.api_key, c.model) for c in models.resolve("smart")] for _ in range(3)]
    first = [(key, model) for key in ("f-0", "f-1") for model in ("one", "two", "three")]
    second = [(key, model) for key in ("f-0", "f-1") for model in ("two", "three", "one")]
    assert found == [first, first, second]


@pytest.mark.parametrize("credentials", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_credentials_in_turn_meet_all_models_of_a_pool(credentials: int, size: int) -> None:
    """Equally often, whatever the two numbers have in common."""
    pool = ", ".join(f"{{name: m{index}, alias: smart}}" for index in range(size))
    models = registry("openai-compatibility: [" + compatible("f", keys=credentials, models=pool) + "]")
    used: dict[tuple[str, str], int] = {}
    for request in range(credentials * size):
        key = f"f-{request % credentials}"
        first = next(c for c in models.resolve("smart") if c.credential.api_key == key)
        used[key, first.model] = used.get((key, first.model), 0) + 1
    assert len(used) == credentials * size
    assert set(used.values()) == {1}


def test_pools_of_several_names_turn_on_their_own() -> None:
    """One name's requests do not disturb another's turn."""
    models = registry(
        "openai-compatibility: [" + compatible("f", extra="prefix: p,", models=POOL + ", {name: x, alias: y}") + "]"
    )
    assert served_as(models, "smart")[0] == "one"
    assert served_as(models, "p/smart")[0] == "one"
    assert served_as(models, "smart(high)")[0] == "two"
    assert served_as(models, "y") == ["x"]
    assert served_as(models, "smart")[0] == "three"


def test_a_new_registry_begins_anew() -> None:
    """A reload may have changed the pool; its order is what the file says."""
    text = "openai-compatibility: [" + compatible("f", models=POOL) + "]"
    assert served_as(registry(text), "smart") == served_as(registry(text), "smart")


def test_pool_has_every_model_once() -> None:
    """A repeated entry is a slip, and is no second chance: the first one's settings count."""
    models = registry(
        "openai-compatibility: ["
        + compatible("f", models="{name: one, alias: s}, {name: one, alias: s}, {name: 'one(high)', alias: s}")
        + "]"
    )
    (found,) = models.resolve("s")
    assert found.model == "one"
    assert models.thinking(found, "s") is None


def test_pools_do_not_make_a_provider_larger() -> None:
    """Providers are ordered by credentials (proxy 2.4 step 4)."""
    models = registry(
        "openai-compatibility: ["
        + compatible("a", models=POOL.replace("smart", "m"))
        + ","
        + compatible("b", keys=2, models="{name: x, alias: m}")
        + "]"
    )
    assert keys(models.resolve("m")) == ["b-0", "b-1", "a-0", "a-0", "a-0"]
    assert keys(models.resolve("m", provider="openai-compatible-a")) == ["a-0", "a-0", "a-0"]


def test_different_ids_that_meet_by_a_prefix_are_no_pool() -> None:
    """``p/x`` is one model's alias and another's prefixed name; the first counts."""
    models = registry(
        "openai-compatibility: ["
        + compatible("f", extra="prefix: p,", models="{name: one, alias: p/x}, {name: two, alias: x}")
        + "]"
    )
    assert served_as(models, "p/x") == ["one"]
    assert served_as(models, "x") == ["two"]


def test_models_that_plugins_add_join_no_pool() -> None:
    """They are the same model, described twice."""
    key = Credential(id="k", provider="claude", label="k", models=(ModelEntry(name="up", alias="m"),))
    found = of_plugins([key], plugin_models("m", provider="claude"))
    assert served_as(found, "m") == ["up"]


# -- thinking suffixes --

HIGH = Thinking(mode=Mode.LEVEL, level="high")
SUFFIXED = (
    "claude-api-key: [{api-key: k, prefix: team, models: [{name: up, alias: a}, {name: set(high), alias: fixed},"
    " {name: bare(8192)}, {name: up, alias: fast(low)}, {name: odd(beta)}]}]"
)


def budget(tokens: int) -> Thinking:
    """A wish in tokens."""
    return Thinking(mode=Mode.BUDGET, budget=tokens)


@pytest.mark.parametrize(
    ("model", "upstream", "expected"),
    [
        ("a", "up", None),
        ("a(high)", "up", HIGH),
        ("a(HIGH)", "up", HIGH),
        ("a(16384)", "up", budget(16384)),
        ("team/a(16384)", "up", budget(16384)),
        ("a(whatever)", "up", None),
        ("a()", "up", None),
        ("fixed", "set", HIGH),
        ("fixed(low)", "set", HIGH),
        ("team/fixed(0)", "set", HIGH),
        ("bare(8192)", "bare", budget(8192)),
        ("fast(low)", "up", Thinking(mode=Mode.LEVEL, level="low")),
        ("odd(beta)", "odd(beta)", None),
        ("odd(beta)(high)", "odd(beta)", HIGH),
    ],
)
def test_suffixes_are_settings_and_not_names(model: str, upstream: str, expected: Thinking | None) -> None:
    """Proxy 2.4 and 2.5: with prefixes and aliases; what the operator settled counts more than what clients ask."""
    models = registry(SUFFIXED)
    (found,) = models.resolve(model)
    assert found.model == upstream
    assert models.thinking(found, model) == expected


@pytest.mark.parametrize("model", ["fast(high)", "nope(high)", "other/a(high)", "a(high)(low)", "A(high)", "(high)"])
def test_names_that_nobody_serves_without_their_suffix_are_unknown(model: str) -> None:
    """One suffix only, and the rest of the name is case-sensitive as ever."""
    with pytest.raises(UnknownModel) as caught:
        registry(SUFFIXED).resolve(model)
    assert caught.value.model == model


def test_suffixes_are_not_listed() -> None:
    """The lists are what they were."""
    models = registry(SUFFIXED)
    before = names(models)
    models.resolve("a(high)")
    assert (
        names(models)
        == before
        == {
            *("a", "fixed", "bare(8192)", "fast(low)", "odd(beta)"),
            *("team/a", "team/fixed", "team/bare(8192)", "team/fast(low)", "team/odd(beta)"),
        }
    )


def test_a_model_that_is_really_called_so_has_no_setting() -> None:
    """A plugin knows what its models are called; the name before the suffix is still another one's."""
    found = of_plugins([account("a")], plugin_models("x(high)", "x"))
    (really,) = found.resolve("x(high)")
    assert really.model == "x(high)"
    assert found.thinking(really, "x(high)") is None
    (other,) = found.resolve("x(low)")
    assert other.model == "x"
    assert found.thinking(other, "x(low)") == Thinking(mode=Mode.LEVEL, level="low")


def test_the_exact_name_of_a_provider_counts_before_its_base_name() -> None:
    """Restricted to a provider, its own names count."""
    both = registry(
        "openai-compatibility: ["
        + compatible("f", models="{name: up, alias: m(high)}")
        + ","
        + compatible("g", models="{name: m}")
        + "]"
    )
    assert keys(both.resolve("m(high)")) == ["f-0"]
    assert keys(both.resolve("m(high)", provider="openai-compatible-g")) == ["g-0"]
    with pytest.raises(NoCredential):
        both.resolve("m", provider="openai-compatible-f")


def test_auto_takes_a_suffix() -> None:
    """It is a name like any other in this."""
    models = registry("openai-compatibility: [" + compatible("f", models="{name: b}") + "]")
    (found,) = models.resolve("auto(high)")
    assert found.model == "b"
    assert models.thinking(found, "auto(high)") == HIGH


def test_models_of_executors_without_credentials_take_suffixes() -> None:
    """Those that want none, and those that still need one."""
    direct = of_plugins([], plugin_models("acme-1", claimed=True, direct=True))
    (found,) = direct.resolve("acme-1(high)")
    assert direct.thinking(found, "acme-1(high)") == HIGH
    with pytest.raises(NoCredential):
        of_plugins([], plugin_models("acme-1", claimed=True)).resolve("acme-1(high)")


def test_foreign_candidates_have_no_setting_and_no_name() -> None:
    """A router may bring its own."""
    models = registry(SUFFIXED)
    other = Candidate(credential=account("z"), model="up", executor=EXECUTOR)
    assert models.thinking(other, "a(high)") is None
    assert models.answer_name(other, "a(high)") == ""


def test_facts_of_the_catalogue_are_found_behind_a_suffix() -> None:
    """They are those of the model, however much it thinks."""
    models = registry("claude-api-key: [{api-key: k, models: [{name: claude-sonnet-4-5(high), alias: deep}]}]")
    known = next(card for card in catalogue()["claude"] if card.id == "claude-sonnet-4-5")
    card = models.card("deep")
    assert card is not None
    assert card.input_tokens == known.input_tokens > 0


# -- forced names --


@pytest.mark.parametrize("model", ["quick", "quick(high)", "p/quick", "p/quick(0)"])
def test_forced_mapping_names_the_bare_alias(model: str) -> None:
    """Proxy 2.4: without prefix and suffix; others show the provider's name."""
    models = registry(
        "openai-compatibility: ["
        + compatible(
            "f", extra="prefix: p,", models="{name: up, alias: quick, force-mapping: true}, {name: up, alias: b}"
        )
        + "]"
    )
    (found,) = models.resolve(model)
    assert models.answer_name(found, model) == "quick"
    (found,) = models.resolve("b")
    assert models.answer_name(found, "b") == ""


def test_in_a_pool_each_entry_says_whether_it_is_forced() -> None:
    """It is the entry's own setting."""
    models = registry(
        "openai-compatibility: ["
        + compatible("f", models="{name: one, alias: s, force-mapping: true}, {name: two, alias: s}")
        + "]"
    )
    assert {c.model: models.answer_name(c, "s") for c in models.resolve("s")} == {"one": "s", "two": ""}


# -- aliases of credential files --


def test_aliases_rename_models_of_files_before_the_prefix() -> None:
    """Proxy 2.3: exclusions see the old name, prefixes the new one."""
    table = {
        "acme": [
            OAuthModelAlias(name="big", alias="b", force_mapping=True, display_name="B"),
            OAuthModelAlias(name="mid", alias="m", fork=True),
            OAuthModelAlias(name="old", alias="new"),
        ]
    }
    files = [account("a", prefix="team", excluded_models=("old", "b"))]
    found = of_plugins(files, plugin_models("big", "mid", "old", "rest"), aliases_by_provider=table)
    bare = {"b", "m", "mid", "rest"}
    assert {card.id for card in found.cards} == bare | {f"team/{name}" for name in bare}
    (candidate,) = found.resolve("team/b(high)")
    assert candidate.model == "big"
    assert found.answer_name(candidate, "team/b(high)") == "b"
    assert found.thinking(candidate, "team/b(high)") == HIGH
    card = found.card("b")
    assert card is not None
    assert card.display_name == "B"
    with pytest.raises(UnknownModel):
        found.resolve("big")


def test_aliases_leave_configured_keys_alone() -> None:
    """Proxy 9.20."""
    key = Credential(id="k", provider="claude", label="k", models=(ModelEntry(name="m"),))
    table = {"claude": [OAuthModelAlias(name="m", alias="other")]}
    assert {card.id for card in of_plugins([key], aliases_by_provider=table).cards} == {"m"}


def test_a_file_has_aliases_of_its_own() -> None:
    """They hold for that file only."""
    own = account("a", aliases=(OAuthModelAlias(name="big", alias="mine"),))
    found = of_plugins([own, account("b")], plugin_models("big"))
    assert [c.credential.id for c in found.resolve("mine")] == ["a"]
    assert [c.credential.id for c in found.resolve("big")] == ["b"]


# -- cards --


def test_cards_carry_the_catalogues_facts_under_the_clients_name() -> None:
    """Limits are those of the model behind the alias."""
    models = registry("claude-api-key: [{api-key: k, prefix: p, models: [{name: claude-sonnet-4-5, alias: sonnet}]}]")
    known = next(card for card in catalogue()["claude"] if card.id == "claude-sonnet-4-5")
    for name in ("sonnet", "p/sonnet"):
        card = models.card(name)
        assert card is not None
        assert card.id == name
        assert (card.display_name, card.created) == (known.display_name, known.created)
        assert (card.input_tokens, card.output_tokens) == (known.input_tokens, known.output_tokens)
    assert models.card("claude-sonnet-4-5") is None


def test_what_the_operator_says_of_a_model_wins() -> None:
    """In all three shapes of the listing, whichever of its numbers the catalogue states."""
    models = registry(
        "gemini-api-key: [{api-key: k, models: [{name: gemini-2.5-pro, alias: g, display-name: Ours,"
        " max-context-length: 5000, input-modalities: [TEXT], output-modalities: [TEXT, IMAGE]}]}]"
    )
    card = models.card("g")
    assert card is not None
    assert card.display_name == "Ours"
    assert card.output_modalities == ("TEXT", "IMAGE")
    (listed,) = json.loads(openai_list(models.cards))["data"]
    assert (listed["id"], listed["context_length"]) == ("g", 5000)
    (listed,) = json.loads(claude_list(models.cards))["data"]
    assert (listed["display_name"], listed["max_input_tokens"]) == ("Ours", 5000)
    listed = json.loads(gemini_model(card))
    assert (listed["name"], listed["displayName"], listed["inputTokenLimit"]) == ("models/g", "Ours", 5000)
    assert listed["supportedInputModalities"] == ["TEXT"]


def test_image_models_have_a_type_of_their_own() -> None:
    """Proxy 2.3."""
    models = registry("openai-compatibility: [" + compatible("f", models="{name: i, image: true}, {name: t}") + "]")
    assert {card.id: card.type for card in models.cards} == {"i": "openai-image", "t": ""}


def test_a_name_that_several_credentials_serve_is_listed_once() -> None:
    """The first one's card, in the order of the file."""
    models = registry(
        "openai-compatibility: ["
        + compatible("f", models="{name: m, display-name: First}")
        + ","
        + compatible("g", models="{name: m, display-name: Second}")
        + "]"
    )
    assert [card.display_name for card in models.cards] == ["First"]


# -- plugins --


def plugin_models(*names: str, provider: str = "acme", **fields: Any) -> PluginModels:
    """Models of plugin ``plug``."""
    cards = tuple(ModelCard(id=name) for name in names)
    return PluginModels(plugin_id=PluginId("plug"), provider=provider, cards=cards, **fields)


def account(name: str, provider: str = "acme", **fields: Any) -> Credential:
    """A credential from a file."""
    return Credential(id=name, provider=provider, label=name, source=FROM_FILE, kind=OAUTH, **fields)


def of_plugins(credentials: Iterable[Credential], *groups: PluginModels, **options: Any) -> ModelRegistry:
    """A registry in which *acme* and *claude* have executors."""
    executors = dict.fromkeys(("acme", "claude"), EXECUTOR)
    return ModelRegistry(credentials, executors, plugin_models=groups, **options)


def test_added_models_are_served_by_every_credential_of_the_provider() -> None:
    """Beside the catalogue or the operator's list, native or not."""
    key = Credential(id="k", provider="claude", label="k", models=(ModelEntry(name="mine"),))
    found = of_plugins([key, account("a")], plugin_models("extra", provider="claude"), plugin_models("own"))
    assert {card.id for card in found.cards} == {"mine", "extra", "own"}
    assert [candidate.credential.id for candidate in found.resolve("extra")] == ["k"]
    assert [candidate.credential.id for candidate in found.resolve("own")] == ["a"]


def test_models_of_one_credential_are_its_own_and_all_that_it_has() -> None:
    """In place of the catalogue, also when there are none of them."""
    one, two = account("one", "claude"), account("two", "claude")
    found = of_plugins(
        [one, two],
        plugin_models("pro", provider="claude", credential_id="one"),
        plugin_models(provider="claude", credential_id="two"),
    )
    assert {card.id for card in found.cards} == {"pro"}
    assert [candidate.credential for candidate in found.resolve("pro")] == [one]


def test_claimed_models_are_listed_before_anybody_can_pay() -> None:
    """Whoever asks for one is told what is missing (proxy 4.1)."""
    found = of_plugins([], plugin_models("acme-1", claimed=True))
    assert [card.id for card in found.cards] == ["acme-1"]
    assert found.providers() == ()
    with pytest.raises(NoCredential) as caught:
        found.resolve("acme-1")
    assert caught.value.message == "auth_not_found: no auth available (providers=acme, model=acme-1)"
    with pytest.raises(UnknownModel):
        found.resolve("auto")


def test_claimed_models_need_a_usable_credential() -> None:
    """A disabled one keeps them in the list, an able one serves them."""
    group = plugin_models("acme-1", claimed=True, direct=True)
    found = of_plugins([account("a", disabled=True)], group)
    with pytest.raises(NoCredential):
        found.resolve("acme-1")
    able = account("b")
    (candidate,) = of_plugins([account("a", disabled=True), able], group).resolve("acme-1")
    assert candidate.credential is able


def test_a_plugin_that_wants_no_credential_gets_none() -> None:
    """As long as its provider has none at all."""
    found = of_plugins([], plugin_models("acme-1", claimed=True, direct=True), created_unix=7)
    (candidate,) = found.resolve("acme-1")
    assert candidate.credential.anonymous
    assert (candidate.credential.provider, candidate.credential.label, candidate.model) == ("acme", "plug", "acme-1")
    assert found.providers() == ("acme",)
    card = found.card("acme-1")
    assert card is not None
    assert (card.owned_by, card.created) == ("plug", 7)
    assert found.resolve("acme-1", provider="acme") == (candidate,)


def test_what_nobody_executes_is_not_listed() -> None:
    """The plugin that claims it is just gone."""
    assert of_plugins([account("z", "other")], plugin_models("m", provider="other", claimed=True)).cards == ()


def test_prefixes_and_exclusions_hold_for_models_of_plugins() -> None:
    """The file's own, and the operator's for all files of a provider."""
    files = [account("a", prefix="team", excluded_models=("hidden-*",)), account("b")]
    group = plugin_models("m", "hidden-1", "secret", claimed=True)
    found = of_plugins(files, group, excluded_by_provider={"acme": ("secret",)})
    assert {card.id for card in found.cards} == {"m", "team/m", "hidden-1"}
    assert [candidate.credential.id for candidate in found.resolve("hidden-1")] == ["b"]
    forced = of_plugins(files[:1], group, force_prefix=True)
    assert {card.id for card in forced.cards} == {"team/m", "team/secret"}
    unpaid = of_plugins([], group, excluded_by_provider={"acme": ("secret",)})
    assert {card.id for card in unpaid.cards} == {"m", "hidden-1"}


def test_exclusions_for_files_leave_configured_keys_alone() -> None:
    """They have lists of their own."""
    key = Credential(id="k", provider="claude", label="k", models=(ModelEntry(name="m"),))
    found = of_plugins([key, account("f", "claude")], excluded_by_provider={"claude": ("*",)})
    assert [candidate.credential for candidate in found.resolve("m")] == [key]
    assert {card.id for card in found.cards} == {"m"}


def test_equal_resolutions_are_one_object() -> None:
    """Whoever indexes candidates may do so by identity; pools turn through a fixed set of orders."""
    models = registry(
        """
openai-compatibility:
  - name: f
    base-url: http://f
    api-key-entries: [{api-key: k1}, {api-key: k2}]
    models: [{name: a, alias: pool}, {name: b, alias: pool}, {name: c}]
claude-api-key: [{api-key: k, models: [{name: c}]}]
"""
    )
    assert models.resolve("c") is models.resolve("c")
    assert models.resolve("c", provider="claude") is models.resolve("c", provider="claude")
    orders = [models.resolve("pool") for _ in range(8)]
    assert len({id(order) for order in orders}) == 2
    assert [order[0].model for order in orders] == ["a", "a", "b", "b", "a", "a", "b", "b"]


def test_models_of_a_credential() -> None:
    """Under the names that clients use; a credential that is out of use has none."""
    models = registry("claude-api-key: [{api-key: k, prefix: p, models: [{name: b}, {name: a, alias: x}]}]")
    (candidate,) = models.resolve("x")
    assert [card.id for card in models.models_of(candidate.credential)] == ["b", "p/b", "p/x", "x"]
    assert models.models_of(Credential(id="other", provider="claude", label="o")) == ()


def test_credentials_of_one_shape_keep_their_order_and_each_has_its_own_key() -> None:
    """Ten thousand of them are made in no time, because they are worked out once."""
    count = 10_000
    credentials = [
        Credential(id=f"k{number}", provider="claude", label="k", api_key=str(number), prefix="p" if number % 2 else "")
        for number in range(count)
    ]
    models = ModelRegistry(credentials, {"claude": EXECUTOR})
    found = models.resolve("claude-sonnet-4-5")
    assert [candidate.credential.api_key for candidate in found] == [str(number) for number in range(count)]
    assert len(models.resolve("p/claude-sonnet-4-5")) == count // 2
    assert len({card.id for card in models.cards}) == len(models.cards) == 2 * len(catalogue()["claude"])


def test_what_names_say_is_remembered_for_registered_names_only() -> None:
    """Each request asks for it; suffixes are written by strangers, and would fill the memory."""
    models = registry(
        f"openai-compatibility: [{compatible('p', keys=2, models='{name: m, alias: a(high)}, {name: b, alias: c}')}]"
    )
    for _ in range(2):
        for name in ("a(high)", "c", "c(low)"):
            for candidate in models.resolve(name):
                terms = models._terms(candidate, name)
                assert models.thinking(candidate, name) == terms.thinking
                assert models.answer_name(candidate, name) == terms.answer_name
    [candidate, _] = models.resolve("c")
    for number in range(100):
        assert models.thinking(candidate, f"c({number})") is not None or number == 0
    assert {key[3] for key in models._terms_of} == {"a(high)", "c"}
    assert len(models._terms_of) == 4
