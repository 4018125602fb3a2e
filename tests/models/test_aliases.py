"""Names between clients and providers: suffixes in configured names, aliases of credential files, forced names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.config.schema import ModelEntry, OAuthModelAlias
from cpa.credentials.members import MAX_ITEMS, settings_of
from cpa.credentials.model import FROM_FILE, OAUTH, Credential
from cpa.formats.models import ModelCard
from cpa.formats.thinking import DYNAMIC, OFF, Mode, Thinking
from cpa.models.aliases import (
    Offer,
    aliases_of,
    entry_of,
    offer_of,
    offer_of_entry,
    split_configured,
    with_aliases,
)

HIGH = Thinking(mode=Mode.LEVEL, level="high")
LOW = Thinking(mode=Mode.LEVEL, level="low")


def alias(name: str, to: str, **fields: Any) -> OAuthModelAlias:
    """One item of the table."""
    return OAuthModelAlias(name=name, alias=to, **fields)


def of_file(*items: Any, provider: str = "acme") -> Credential:
    """A credential whose file has *items* as its aliases."""
    aliases = settings_of({"model_aliases": list(items)}).aliases
    return Credential(id="f", provider=provider, label="f", source=FROM_FILE, kind=OAUTH, aliases=aliases)


def renamed(ids: list[str], *aliases: OAuthModelAlias) -> list[tuple[str, str]]:
    """(client's name, provider's name) of models under *aliases*."""
    found = with_aliases([offer_of(ModelCard(id=name)) for name in ids], aliases)
    return [(offer.id, offer.upstream_name) for offer in found]


# -- configured names --


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-5", ("gpt-5", None)),
        ("gpt-5(high)", ("gpt-5", HIGH)),
        ("gpt-5(HIGH)", ("gpt-5", HIGH)),
        ("gpt-5(none)", ("gpt-5", OFF)),
        ("gpt-5(-1)", ("gpt-5", DYNAMIC)),
        ("x(a)(8192)", ("x(a)", Thinking(mode=Mode.BUDGET, budget=8192))),
        ("x(beta)", ("x(beta)", None)),
        ("x()", ("x()", None)),
        ("(high)", ("(high)", None)),
    ],
)
def test_suffix_of_a_configured_name_is_a_setting_if_it_says_something(
    name: str, expected: tuple[str, Thinking | None]
) -> None:
    """Otherwise the operator wrote down what the model is called."""
    assert split_configured(name) == expected
    offer = offer_of_entry(ModelEntry(name=name), ModelCard(id=name))
    assert (offer.upstream_name, offer.thinking, offer.id) == (*expected, name)


@pytest.mark.parametrize(
    ("id", "answer"), [("quick", "quick"), ("quick(low)", "quick"), ("quick(beta)", "quick(beta)"), ("a/b", "a/b")]
)
def test_forced_name_is_the_alias_without_suffix(id: str, answer: str) -> None:
    """Proxy 2.4 and 9.18: answers carry the bare alias."""
    offer = offer_of_entry(ModelEntry(name="up", alias=id, force_mapping=True), ModelCard(id="up"))
    assert (offer.forced, offer.answer_name) == (True, answer)


def test_entry_is_found_by_what_the_provider_calls_the_model() -> None:
    """Its suffix does not stand in a candidate's name."""
    entries = (ModelEntry(name="a(high)", alias="x"), ModelEntry(name="b", alias="a"))
    credential = Credential(id="k", provider="claude", label="k", models=entries)
    assert entry_of(credential, "a") is entries[0]
    assert entry_of(credential, "b") is entries[1]
    assert entry_of(credential, "x") is None


# -- aliases of credential files --


@pytest.mark.parametrize(
    ("aliases", "expected"),
    [
        ([], [("big", "big"), ("small", "small")]),
        ([alias("big", "b")], [("b", "big"), ("small", "small")]),
        ([alias("BIG", "b")], [("b", "big"), ("small", "small")]),
        ([alias("big", "b", fork=True)], [("big", "big"), ("b", "big"), ("small", "small")]),
        ([alias("big", "b"), alias("big", "c")], [("b", "big"), ("c", "big"), ("small", "small")]),
        (
            [alias("big", "b"), alias("big", "c", fork=True)],
            [("big", "big"), ("b", "big"), ("c", "big"), ("small", "small")],
        ),
        ([alias("other", "o")], [("big", "big"), ("small", "small")]),
        ([alias("big", "big")], [("big", "big"), ("small", "small")]),
        ([alias("big", "big", force_mapping=True)], [("big", "big"), ("small", "small")]),
        ([alias("big", "big"), alias("big", "b")], [("b", "big"), ("small", "small")]),
        ([alias("big", "small")], [("big", "big"), ("small", "small")]),
        ([alias("big", "Big")], [("Big", "big"), ("small", "small")]),
        ([alias("big(high)", "b")], [("b", "big"), ("small", "small")]),
    ],
)
def test_models_go_by_their_aliases(aliases: list[OAuthModelAlias], expected: list[tuple[str, str]]) -> None:
    """Proxy 2.3 step 2: in place of their ids, unless one is a fork; never in place of another model."""
    assert renamed(["big", "small"], *aliases) == expected


def test_alias_carries_its_label_force_and_suffix() -> None:
    """What the client's lists and answers show, and what it settles on behalf of the client."""
    card = ModelCard(id="big", display_name="Big One")
    shown, plain = with_aliases(
        [offer_of(card)], [alias("big(low)", "b", display_name="B", force_mapping=True), alias("big", "c")]
    )
    assert (shown.card.display_name, shown.forced, shown.thinking) == ("B", True, LOW)
    assert (plain.card.display_name, plain.forced, plain.thinking) == ("Big One", False, None)


def test_identity_alias_forces_the_name() -> None:
    """Proxy 2.4 step 4: the one thing that such an entry is good for."""
    (offer,) = with_aliases([offer_of(ModelCard(id="big"))], [alias("big", "big", force_mapping=True)])
    assert (offer.forced, offer.answer_name) == (True, "big")
    (offer,) = with_aliases([offer_of(ModelCard(id="big"))], [alias("big", "big")])
    assert not offer.forced


def test_a_model_that_is_really_called_so_keeps_its_suffix() -> None:
    """An alias for its literal name sets nothing."""
    (offer,) = with_aliases([offer_of(ModelCard(id="x(high)"))], [alias("x(high)", "y")])
    assert (offer.id, offer.upstream_name, offer.thinking) == ("y", "x(high)", None)


@given(
    st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True),
    st.lists(
        st.builds(
            alias, st.sampled_from(["a", "B", "c", "x"]), st.sampled_from(["a", "b", "y", "z"]), fork=st.booleans()
        ),
        max_size=4,
        unique_by=lambda entry: entry.alias.casefold(),
    ),
)
def test_no_model_is_lost_and_no_name_means_two(ids: list[str], aliases: list[OAuthModelAlias]) -> None:
    """Whatever the table says."""
    found = renamed(ids, *aliases)
    names = [name for name, _ in found]
    assert len(names) == len(set(names))
    assert {upstream for _, upstream in found} == set(ids)


# -- whose aliases --


def test_keys_of_the_configuration_ignore_the_table() -> None:
    """Proxy 2.3: they have aliases of their own."""
    key = Credential(id="k", provider="acme", label="k")
    assert aliases_of(key, {"acme": [alias("big", "b")]}) == ()


def test_table_holds_for_files_of_its_channel() -> None:
    """And for no others."""
    entry = alias("big", "b")
    assert aliases_of(of_file(), {"acme": [entry], "other": [alias("big", "c")]}) == (entry,)


def test_what_a_file_says_comes_first() -> None:
    """Per model and per alias; the table still holds for what the file does not mention."""
    table = {"acme": [alias("Big", "theirs"), alias("mid", "B"), alias("small", "s")]}
    own = {"name": "big", "alias": "b"}
    assert aliases_of(of_file(own), table) == (alias("big", "b"), alias("small", "s"))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"name": "big", "alias": "b"}, [alias("big", "b")]),
        ({"name": " big ", "alias": " b "}, [alias("big", "b")]),
        (
            {"name": "a", "alias": "b", "fork": True, "display-name": "B", "force-mapping": True},
            [alias("a", "b", fork=True, display_name="B", force_mapping=True)],
        ),
        (
            {"name": "a", "alias": "b", "display_name": "B", "force_mapping": True},
            [alias("a", "b", display_name="B", force_mapping=True)],
        ),
        ({"name": "a", "alias": "b", "fork": "yes"}, []),
        ({"name": "a"}, []),
        ({"alias": "a"}, []),
        ({"name": ["x"], "alias": "a"}, []),
        ("text", []),
        (None, []),
    ],
)
def test_items_of_a_file_are_read_for_what_they_are_worth(item: Any, expected: list[OAuthModelAlias]) -> None:
    """Plugins and people write files."""
    assert aliases_of(of_file(item), {}) == tuple(expected)


@pytest.mark.parametrize("value", [None, [], {}, "x", 7, [None]], ids=repr)
def test_files_without_aliases_have_none(value: Any) -> None:
    """Nor have broken ones."""
    assert settings_of({"model_aliases": value}).aliases == ()


def test_keys_in_files_ignore_the_table() -> None:
    """As those of the configuration do; what their file says holds."""
    own = Credential(id="k", provider="acme", label="k", source=FROM_FILE, aliases=(alias("big", "mine"),))
    assert aliases_of(own, {"acme": [alias("small", "s")]}) == (alias("big", "mine"),)


def test_of_equal_aliases_in_a_file_the_first_counts() -> None:
    """An alias means one model. And there is an end to them."""
    items = [{"name": "a", "alias": "x"}, {"name": "b", "alias": "X"}]
    assert aliases_of(of_file(*items), {}) == (alias("a", "x"),)
    many = [{"name": "a", "alias": f"x{index}"} for index in range(MAX_ITEMS + 5)]
    assert len(aliases_of(of_file(*many), {})) == MAX_ITEMS


def test_offers_know_whether_their_name_is_the_providers() -> None:
    """Only then a suffix may be part of it."""
    assert not Offer(id="x", upstream_name="x", card=ModelCard(id="x")).renamed
    assert Offer(id="y", upstream_name="x", card=ModelCard(id="x")).renamed
