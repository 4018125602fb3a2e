"""Plugin-abi 4.2.4, sentence by sentence."""

from typing import Any

import pytest

from cpa.abi.wire import Capabilities, ModelInfo
from cpa.host.plugin import LivePlugin
from cpa.host.plugin_models import (
    MAX_MODELS,
    NO_MODELS,
    ModelScope,
    Native,
    StaticModels,
    card_of,
    claims,
    has_static_models,
    scope_of,
    sensible_models,
    serves_credentials_of,
    static_models,
)
from cpa.models.plugins import PluginModels
from tests.host.plugin_fakes import live, models


def offering(plugin: LivePlugin, provider: str, *names: str) -> tuple[LivePlugin, StaticModels]:
    """A plugin and its static models."""
    return plugin, static_models(provider, models(*names))


def shown(groups: tuple[PluginModels, ...]) -> list[tuple[str, str, list[str], bool]]:
    """(plugin, provider, model ids, claimed) of each group."""
    return [(group.plugin_id, group.provider, [card.id for card in group.cards], group.claimed) for group in groups]


def test_without_executor_models_are_added_to_the_provider() -> None:
    """Whoever executes it; also to several plugins' worth."""
    found = claims(
        [offering(live("a", model_provider=True), "Claude", "m", "n"), offering(live("b"), "claude", "m")],
        Native(providers=frozenset({"claude"}), models=frozenset({"m"})),
    )
    assert found.executors == {}
    assert shown(found.models) == [("a", "claude", ["m", "n"], False), ("b", "claude", ["m"], False)]


def test_an_executor_claims_its_models_once() -> None:
    """In the order of the plugins; the provider is that of the models, else the identifier."""
    found = claims(
        [
            offering(live("a", executor="ignored"), "acme", "one", "two"),
            offering(live("b", executor="other"), "other", "two", "three"),
            offering(live("c", executor="Third"), ""),
        ],
        Native(models=frozenset({"one"})),
    )
    assert found.executors == {"acme": "a", "other": "b", "third": "c"}
    assert shown(found.models) == [("a", "acme", ["two"], True), ("b", "other", ["three"], True)]


def test_a_provider_key_has_one_plugin() -> None:
    """Later ones are ignored, with their models."""
    found = claims(
        [offering(live("a", executor="x"), "acme", "one"), offering(live("b", executor="x"), "acme", "two")], Native()
    )
    assert found.executors == {"acme": "a"}
    assert shown(found.models) == [("a", "acme", ["one"], True)]


def test_native_executors_win() -> None:
    """The plugin's models are merely added."""
    found = claims([offering(live("a", executor="claude"), "claude", "m")], Native(providers=frozenset({"claude"})))
    assert found.executors == {}
    assert shown(found.models) == [("a", "claude", ["m"], False)]


def test_whoever_can_claim_nothing_does_not_execute() -> None:
    """So another plugin may have the key; one without any models is registered."""
    found = claims(
        [
            offering(live("a", executor="x"), "acme", "native"),
            offering(live("b", executor="acme"), ""),
            offering(live("c", executor="acme"), "acme", "late"),
        ],
        Native(models=frozenset({"native"})),
    )
    assert found.executors == {"acme": "b"}
    assert found.models == ()


def test_an_executor_without_key_is_none() -> None:
    """It has neither models nor identifier."""
    assert claims([(live("a", executor=" ".strip(), model_provider=True), NO_MODELS)], Native()).executors == {}
    plugin = live("a", executor="")
    assert claims([(plugin, NO_MODELS)], Native()).executors == {}


def test_only_a_plugin_without_credentials_of_its_own_serves_directly() -> None:
    """One that declares `auth_provider` has said that it wants to be paid."""
    found = claims(
        [
            offering(live("a", executor="one"), "one", "m"),
            offering(live("b", executor="two", auth="two"), "two", "n"),
            offering(live("c"), "three", "o"),
        ],
        Native(),
    )
    assert [group.direct for group in found.models] == [True, False, False]


@pytest.mark.parametrize(
    ("can", "scope", "static"),
    [
        (Capabilities(model_provider=True), ModelScope.BOTH, True),
        (Capabilities(model_registrar=True), ModelScope.BOTH, True),
        (Capabilities(executor=True), ModelScope.BOTH, False),
        (Capabilities(executor=True, model_provider=True, executor_model_scope=" OAuth "), ModelScope.OAUTH, False),
        (Capabilities(executor=True, model_provider=True, executor_model_scope="static"), ModelScope.STATIC, True),
        (Capabilities(executor=True, model_provider=True, executor_model_scope="?"), ModelScope.BOTH, True),
        (Capabilities(model_provider=True, executor_model_scope="oauth"), ModelScope.BOTH, True),
    ],
)
def test_scopes(can: Capabilities, scope: ModelScope, static: bool) -> None:
    """Plugin-abi 4.7.1; without an executor the scope says nothing."""
    assert scope_of(can) is scope
    assert has_static_models(can) is static


@pytest.mark.parametrize(
    ("fields", "static", "matches"),
    [
        ({"model_provider": True, "auth": "Acme"}, "", True),
        ({"model_provider": True, "auth": "other"}, "acme", False),
        ({"model_provider": True}, "acme", True),
        ({"model_provider": True, "executor": "Acme"}, "", True),
        ({"model_provider": True, "executor": "acme"}, "other", False),
        ({"model_provider": True, "executor": "acme", "executor_model_scope": "static"}, "", False),
        ({"model_registrar": True, "auth": "acme"}, "", False),
        ({"model_provider": True}, "", False),
    ],
)
def test_who_is_asked_about_a_credential(fields: dict[str, Any], static: str, matches: bool) -> None:
    """Plugin-abi 4.2.3."""
    models_of = static_models(static, models("m")) if static else NO_MODELS
    assert serves_credentials_of(live("a", **fields), "acme", models_of) is matches


def test_hostile_lists_of_models() -> None:
    """Blank, repeated, giant and unreadable names are none, and there is an end."""
    names = [" m ", "m", "", "  ", "x" * 1_000_000, "a\nb", "a\0", "n"]
    assert [info.id for info in sensible_models(models(*names))] == ["m", "n"]
    assert len(sensible_models(models(*map(str, range(MAX_MODELS + 5))))) == MAX_MODELS
    assert static_models("", models("m")) == NO_MODELS
    assert static_models("acme", ()) == NO_MODELS
    assert static_models("x" * 1_000_000, models("m")) == NO_MODELS


def test_what_clients_see_of_a_model() -> None:
    """Everything that a card has; nonsense becomes unknown, and long texts end."""
    info = ModelInfo(
        id="m",
        created=1767268800,
        owned_by=" Acme ",
        display_name="Acme One",
        description="d" * 10_000,
        version="1",
        input_token_limit=1,
        output_token_limit=2,
        context_length=3,
        max_completion_tokens=4,
        generation_methods=("generateContent", "x" * 1000),
        input_modalities=("TEXT",),
        output_modalities=("IMAGE",),
        type="acme",
    )
    card = card_of(info)
    assert (card.id, card.created, card.owned_by, card.display_name) == ("m", 1767268800, "Acme", "Acme One")
    assert (card.input_token_limit, card.output_token_limit, card.context_length) == (1, 2, 3)
    assert (card.max_completion_tokens, card.methods, card.type) == (4, ("generateContent",), "acme")
    assert (card.input_modalities, card.output_modalities, card.version) == (("TEXT",), ("IMAGE",), "1")
    assert len(card.description) == 4096
    odd = card_of(ModelInfo(id="m", created=1767268800000, context_length=-1, name="models/nice"))
    assert (odd.created, odd.context_length, odd.display_name) == (0, 0, "nice")
