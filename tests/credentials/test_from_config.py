"""Credentials of the configuration file: their ids, their indexes, and what they take over from their entries."""

import hashlib
import re

import pytest

from cpa.config.load import parse_config
from cpa.config.schema import ModelEntry
from cpa.credentials.from_config import auth_index, credentials_from_config, provider_key
from cpa.credentials.model import Credential

SECRET = "sk-canary-0123456789"


def credentials(text: str) -> tuple[Credential, ...]:
    """What the configuration *text* names."""
    return credentials_from_config(parse_config(text, file="test.yaml").config)


def one(text: str) -> Credential:
    """The only credential of *text*."""
    (credential,) = credentials(text)
    return credential


def digest(*parts: str, length: int = 12) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


# -- ids --


@pytest.mark.parametrize(
    ("key", "provider"),
    [
        ("gemini-api-key", "gemini"),
        ("interactions-api-key", "gemini-interactions"),
        ("claude-api-key", "claude"),
        ("codex-api-key", "codex"),
        ("xai-api-key", "xai"),
        ("vertex-api-key", "vertex"),
    ],
)
def test_each_list_has_its_provider_and_its_form_of_id(key: str, provider: str) -> None:
    """Ids are a contract: cooldowns and management calls name credentials by them."""
    credential = one(f"{key}: [{{api-key: {SECRET}, base-url: 'https://gw.test/v1'}}]")
    assert credential.provider == provider
    assert re.fullmatch(rf"{provider}:apikey:[0-9a-f]{{12}}", credential.id)
    assert credential.label == f"{provider}-apikey"
    assert credential.api_key == SECRET
    assert credential.base_url == "https://gw.test/v1"
    assert re.fullmatch(r"[0-9a-f]{16}", credential.index)


def test_ids_are_digests_of_the_identity_and_nothing_else() -> None:
    """The same configuration gives the same ids after a restart, on every machine and Python: the digest is spelled."""
    gemini = one("gemini-api-key: [{api-key: k1, base-url: 'https://a.test', prefix: p, headers: {X-B: 2, X-A: 1}}]")
    assert gemini.id == "gemini:apikey:" + digest("gemini", "k1", "https://a.test", "", "p", "X-A:1\nX-B:2")
    vertex = one("vertex-api-key: [{api-key: k1, proxy-url: direct, prefix: p, headers: {X-A: 1}}]")
    assert vertex.id == "vertex:apikey:" + digest("vertex", "k1", "", "direct")
    farm = one("openai-compatibility: [{name: Farm, base-url: 'https://f.test/v1', api-key-entries: [{api-key: k1}]}]")
    expected = digest("openai-compatibility", "k1", "https://f.test/v1", "")
    assert farm.id == f"openai-compatibility:Farm:{expected}"


ENTRIES = (
    "{api-key: k1, base-url: 'https://a.test'}",
    "{api-key: k2, base-url: 'https://a.test'}",
    "{api-key: k1, base-url: 'https://b.test'}",
    "{api-key: k1, base-url: 'https://a.test', prefix: team}",
    "{api-key: k1, base-url: 'https://a.test', proxy-url: 'http://proxy.test:1'}",
    "{api-key: k1, base-url: 'https://a.test', headers: {X-Team: a}}",
)


@pytest.mark.parametrize("key", ["gemini-api-key", "claude-api-key", "codex-api-key", "xai-api-key"])
def test_order_of_entries_does_not_matter_to_ids(key: str) -> None:
    """An operator who sorts the file must not reset cooldowns and affinities."""
    forward = credentials(f"{key}: [{', '.join(ENTRIES)}]")
    backward = credentials(f"{key}: [{', '.join(reversed(ENTRIES))}]")
    assert [c.id for c in forward] == [c.id for c in reversed(backward)]
    assert [c.index for c in forward] == [c.index for c in reversed(backward)]
    assert len({c.id for c in forward}) == len(ENTRIES)  # and every part of the identity counts


def test_what_does_not_make_the_identity_keeps_the_id() -> None:
    """Priorities, weights, models and exclusions are settings of a credential, not another credential."""
    plain = one("claude-api-key: [{api-key: k1}]")
    tuned = one(
        "claude-api-key: [{api-key: k1, priority: 5, weight: 3, models: [{name: m}], excluded-models: ['*-preview']}]"
    )
    assert tuned.id == plain.id
    assert tuned.index == plain.index


def test_parts_of_an_identity_are_not_run_together() -> None:
    """Key and address are separate parts: moving characters from one to the other makes another credential."""
    one_way, other_way = credentials(
        "codex-api-key: [{api-key: a, base-url: 'http://b.test'}, {api-key: 'ahttp:', base-url: 'http://b.test'}]"
    )
    assert one_way.id != other_way.id
    assert one_way.index != other_way.index


@pytest.mark.parametrize("key", ["interactions-api-key", "claude-api-key", "codex-api-key", "vertex-api-key"])
def test_equal_identities_are_numbered(key: str) -> None:
    """Two entries for one key are two credentials: say, with different models."""
    entry = "{api-key: k1, base-url: 'https://a.test'}"
    other = "{api-key: k2, base-url: 'https://a.test'}"
    first, _, second, third = credentials(f"{key}: [{entry}, {other}, {entry}, {entry}]")
    assert second.id == f"{first.id}-1"
    assert third.id == f"{first.id}-2"


def test_equal_keys_of_one_compatible_provider_are_numbered() -> None:
    """Ids stay unique whatever the file says: the pipeline finds candidates by them."""
    found = credentials(
        "openai-compatibility: [{name: f, base-url: 'https://f.test', api-key-entries: [{api-key: k}, {api-key: k}]}]"
    )
    assert [c.id for c in found] == [found[0].id, f"{found[0].id}-1"]


def test_equal_gemini_entries_collapse_to_the_first() -> None:
    """The contract reads repeated entries of this list as one; two copies would get twice the share of requests."""
    found = credentials("gemini-api-key: [{api-key: k1, priority: 1}, {api-key: k2}, {api-key: k1, priority: 2}]")
    assert [(c.api_key, c.priority) for c in found] == [("k1", 1), ("k2", 0)]


def test_ids_labels_indexes_and_reprs_never_hold_secrets() -> None:
    """They are shown by listing endpoints, response headers and logs."""
    lists = [
        f"{key}: [{{api-key: {SECRET}, base-url: 'https://gw.test', headers: {{X-Key: '{SECRET}-header'}},"
        f" proxy-url: 'http://user:{SECRET}-proxy@proxy.test:1'}}]"
        for key in ("gemini-api-key", "claude-api-key", "codex-api-key", "xai-api-key", "vertex-api-key")
    ]
    compatible = (
        f"openai-compatibility: [{{name: farm, base-url: 'https://gw.test', headers: {{X-Key: {SECRET}}},"
        f" api-key-entries: [{{api-key: {SECRET}, proxy-url: 'http://user:{SECRET}@proxy.test:1'}}]}}]"
    )
    found = credentials("\n".join([*lists, compatible]))
    assert len(found) == 6
    for credential in found:
        shown = f"{credential.id} {credential.index} {credential.label} {credential.provider} {credential!r}"
        assert SECRET not in shown
        assert "user" not in shown


# -- indexes --


def test_one_key_at_two_gateways_has_two_indexes() -> None:
    """Management calls name a credential by its index: the key alone would be ambiguous."""
    found = credentials(
        "claude-api-key: [{api-key: k1}, {api-key: k1, base-url: 'https://a.test'}, {api-key: k1, base-url:"
        " 'https://b.test'}]\nopenai-compatibility: [{name: f, base-url: 'https://a.test', api-key-entries: [{api-key:"
        " k1}]}]\ncodex-api-key: [{api-key: k1, base-url: 'https://a.test'}]"
    )
    assert len({c.index for c in found}) == len(found) == 5


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("gemini-api-key", "gemini-api-key"),
        ("interactions-api-key", "interactions-api-key"),
        ("claude-api-key", "claude-api-key"),
        ("codex-api-key", "codex-api-key"),
        ("xai-api-key", "xai-api-key"),
    ],
)
def test_index_is_derived_from_kind_address_and_key(key: str, kind: str) -> None:
    """Stable over everything else that an operator may change."""
    credential = one(f"{key}: [{{api-key: k1, base-url: 'https://a.test', prefix: p, proxy-url: direct}}]")
    assert credential.index == digest(f"{kind}:https://a.test+k1", length=16)


def test_index_of_a_compatible_provider_is_derived_from_address_and_key() -> None:
    """Renaming the provider keeps its indexes."""
    text = "openai-compatibility: [{{name: {}, base-url: 'https://a.test', api-key-entries: [{{api-key: k1}}]}}]"
    assert one(text.format("a")).index == one(text.format("b")).index
    assert one(text.format("a")).index == digest("openai-compatibility:https://a.test+k1", length=16)


def test_index_of_a_vertex_key_is_derived_from_its_id() -> None:
    """Also of a numbered one, which would share an index with its twin otherwise."""
    found = credentials("vertex-api-key: [{api-key: k1}, {api-key: k1}]")
    assert [c.index for c in found] == [auth_index(f"id:{c.id}") for c in found]
    assert found[0].index != found[1].index


# -- contents --


def test_settings_of_an_entry_are_taken_over() -> None:
    """What schedulers, registry and executors look at."""
    credential = one(
        "claude-api-key: [{api-key: k1, base-url: 'https://a.test///', prefix: ' /team/ ', proxy-url: none,"
        " priority: 7, weight: -4, headers: {X-A: $X-B}, models: [{name: m, alias: a}],"
        " excluded-models: [' *-Preview ', '*-preview']}]"
    )
    assert credential.base_url == "https://a.test"
    assert credential.prefix == "team"
    assert credential.proxy_url == "direct"
    assert (credential.priority, credential.weight) == (7, 0)
    assert credential.headers == {"X-A": "$X-B"}
    assert credential.models == (ModelEntry(name="m", alias="a"),)
    assert credential.excluded_models == ("*-preview",)
    assert not credential.disabled


def test_compatible_provider_has_a_credential_per_key() -> None:
    """All of them share the provider's key, and with it an executor."""
    found = credentials(
        "openai-compatibility: [{name: My GW, base-url: 'https://a.test/v1/', prefix: p, priority: 2,"
        " headers: {X-A: b}, models: [{name: m}], excluded-models: [x],"
        " api-key-entries: [{api-key: k1, weight: 5}, {api-key: k2, proxy-url: 'socks5://proxy.test:1080'}]}]"
    )
    assert [(c.api_key, c.weight, c.proxy_url) for c in found] == [("k1", 5, ""), ("k2", 1, "socks5://proxy.test:1080")]
    for credential in found:
        assert credential.provider == "openai-compatible-my gw"
        assert credential.label == "My GW"
        assert credential.base_url == "https://a.test/v1"
        assert (credential.prefix, credential.priority, credential.headers) == ("p", 2, {"X-A": "b"})
        assert credential.models == (ModelEntry(name="m"),)
        assert credential.excluded_models == ("x",)


def test_compatible_provider_without_keys_has_one_without() -> None:
    """A server in one's own network often wants none."""
    credential = one("openai-compatibility: [{name: local, base-url: 'http://127.0.0.1:1/v1'}]")
    assert credential.api_key == ""
    assert re.fullmatch(r"openai-compatibility:local:[0-9a-f]{12}", credential.id)


def test_disabled_compatible_provider_has_none() -> None:
    """Switched off is as good as not there."""
    assert credentials("openai-compatibility: [{name: f, disabled: true, base-url: 'https://a.test'}]") == ()


def test_key_of_a_provider_without_a_name() -> None:
    """Proxy 2.7."""
    assert provider_key("") == "openai-compatibility"
    assert provider_key("Zeta AI") == "openai-compatible-zeta ai"


def test_credentials_come_in_the_order_of_the_file() -> None:
    """Ties are broken by it where nothing else decides."""
    found = credentials("claude-api-key: [{api-key: c}, {api-key: a}, {api-key: b}]")
    assert [c.api_key for c in found] == ["c", "a", "b"]
    assert credentials("{}") == ()
