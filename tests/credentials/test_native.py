"""Which files the proxy serves by itself, and what it says of the others."""

from typing import Any

import pytest

from cpa.credentials.members import renamed, settings_of
from cpa.credentials.model import API_KEY, OAUTH
from cpa.credentials.native import NativeParts, compatible_provider, is_native, native_parts

GOOGLE = {"client_email": "a@b.test", "private_key": "-----BEGIN PRIVATE KEY-----", "project_id": "p-1"}
URL = "https://gw.test"


def parts(kind: str, **members: Any) -> NativeParts | tuple[str, ...]:
    """Of a file of that type; problems as text."""
    found = native_parts(kind, renamed(members), settings_of(renamed(members)))
    return found if isinstance(found, NativeParts) else tuple(map(str, found))


@pytest.mark.parametrize(
    ("kind", "members", "provider"),
    [
        ("claude", {"api_key": "k"}, "claude"),
        ("claude", {"base_url": URL}, "claude"),
        ("gemini", {"api-key": "k"}, "gemini"),
        ("gemini-interactions", {"api_key": "k"}, "gemini-interactions"),
        ("codex", {"api_key": "k", "base_url": URL}, "codex"),
        ("xai", {"api_key": "k"}, "xai"),
        ("vertex", {"api_key": "k"}, "vertex"),
        ("openai-compatible", {"base_url": URL}, "openai-compatibility"),
        ("openai-compatible", {"base_url": URL, "name": " My GW "}, "openai-compatible-my gw"),
        ("openai-compatible", {"base_url": URL, "name": "a\nb"}, "openai-compatibility"),
        ("openai-compatibility", {"base_url": URL}, "openai-compatibility"),
        ("openai-compatible-farm", {"base_url": URL, "name": "other"}, "openai-compatible-farm"),
    ],
)
def test_keys_of_known_providers_are_credentials(kind: str, members: dict[str, Any], provider: str) -> None:
    """Each with what the configuration's lists ask for (proxy 3.2)."""
    assert parts(kind, **members) == NativeParts(provider=provider, kind=API_KEY)
    assert is_native(kind)


@pytest.mark.parametrize(
    ("kind", "members", "missing"),
    [
        ("claude", {}, "api_key"),
        ("codex", {"api_key": "k"}, "base_url"),
        ("xai", {"base_url": URL}, "api_key"),
        ("vertex", {}, "api_key"),
        ("openai-compatible", {"api_key": "k"}, "base_url"),
        ("openai-compatible-farm", {"api_key": "k", "base_url": "gw"}, "base_url"),
    ],
)
def test_what_is_missing_is_said(kind: str, members: dict[str, Any], missing: str) -> None:
    """By its name."""
    found = parts(kind, **members)
    assert isinstance(found, tuple)
    assert [text.partition(":")[0] for text in found] == [missing]


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("", {"api_key": "k"}),
        ("acme", {"api_key": "k"}),
        ("gemini", {}),
        ("gemini", {"token": {"access_token": "x"}}),
        ("claude", {"access_token": "x", "refresh_token": "y"}),
        ("codex", {"access_token": "x"}),
        ("openai", {"api_key": "k"}),
    ],
)
def test_other_files_are_for_plugins(kind: str, members: dict[str, Any]) -> None:
    """Unknown types, and what vendors' own programs keep."""
    assert parts(kind, **members) == ()


def test_a_service_account_has_a_project_and_a_place() -> None:
    """The file's own members count before the account's."""
    found = parts("vertex", service_account=GOOGLE)
    assert isinstance(found, NativeParts)
    assert (found.provider, found.kind, found.project, found.location) == ("vertex", OAUTH, "p-1", "us-central1")
    assert found.service_account is not None
    assert "PRIVATE KEY" not in repr(found)
    other = parts("vertex", service_account=GOOGLE, project_id="p-2", location="global")
    assert isinstance(other, NativeParts)
    assert (other.project, other.location) == ("p-2", "global")


@pytest.mark.parametrize(
    "members",
    [
        {"service_account": {}},
        {"service_account": "x"},
        {"service_account": [1]},
        {"service_account": {**GOOGLE, "private_key": 7}},
        {"service_account": {**GOOGLE, "project_id": ""}},
        {"service_account": GOOGLE, "project_id": "a/../b"},
        {"service_account": GOOGLE, "location": "evil.test/x?"},
        {"service_account": GOOGLE, "location": ["x"]},
        {"service_account": {**GOOGLE, "token_uri": "http://evil.test/token"}},
    ],
    ids=repr,
)
def test_accounts_that_lead_elsewhere_are_refused(members: dict[str, Any]) -> None:
    """A location is part of a host name, a token endpoint gets what opens the account."""
    found = parts("vertex", **members)
    assert isinstance(found, tuple)
    assert len(found) == 1
    assert "expected" in found[0]


def test_provider_keys_of_compatible_endpoints() -> None:
    """As those of the configuration (proxy 2.7), so that credentials of both places are one pool."""
    assert compatible_provider("openai-compatible", {"name": "Farm"}) == "openai-compatible-farm"
    assert compatible_provider("openai-compatible", {}) == "openai-compatibility"
