"""What records say of credentials and failures."""

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from msgspec import structs

from cpa.config.schema import Config
from cpa.credentials.from_config import KINDS, provider_key
from cpa.credentials.model import FROM_FILE, Credential
from cpa.errors import (
    CpaError,
    NoTranslator,
    UpstreamConnectError,
    UpstreamStatusError,
    UpstreamStreamError,
    UpstreamTimeout,
)
from cpa.usage.record import (
    API_KEY,
    EXECUTOR_TYPES,
    MAX_FAILURE_BYTES,
    MAX_HEADER_BYTES,
    OAUTH,
    Failure,
    Payer,
    auth_type_of,
    executor_type_of,
    failure_of,
    kept_headers,
    payer_of,
    source_of,
)
from tests.usage.support import CREDENTIAL, RECORD

KEY = CREDENTIAL.api_key


def status_error(body: bytes, status: int = 429) -> UpstreamStatusError:
    """A provider's answer."""
    return UpstreamStatusError(status=status, headers=(), body=body, provider_format="openai")


def test_executors_are_called_as_collectors_know_them() -> None:
    """All openai-compatible ones share a name; what a plugin serves is called as its provider."""
    assert executor_type_of("openai-compatible-openrouter") == "OpenAICompatExecutor"
    assert executor_type_of(provider_key("")) == executor_type_of(provider_key("Mock")) == "OpenAICompatExecutor"
    assert executor_type_of("claude") == "ClaudeExecutor"
    assert executor_type_of("acme") == "acme"
    assert set(EXECUTOR_TYPES) == set(KINDS) - {"gemini-interactions"}
    assert all(hasattr(Config(), attribute) for attribute in KINDS.values())


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, API_KEY),
        ({"api_key": ""}, API_KEY),
        ({"source": FROM_FILE, "api_key": ""}, OAUTH),
        ({"source": FROM_FILE}, API_KEY),
        ({"source": FROM_FILE, "attributes": {"auth_kind": "oauth"}}, OAUTH),
        ({"source": FROM_FILE, "api_key": "", "attributes": {"auth_kind": "apikey"}}, API_KEY),
        ({"source": FROM_FILE, "api_key": "", "attributes": {"auth_kind": "sorcery"}}, OAUTH),
        ({"id": ""}, ""),
    ],
)
def test_credentials_are_keys_or_accounts(changes: dict[str, Any], kind: str) -> None:
    """A file with a plain key is a key."""
    assert auth_type_of(attrs.evolve(CREDENTIAL, **changes)) == kind


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({}, "gemini-apikey[9f86d081]"),
        ({"index": ""}, "gemini-apikey"),
        ({"metadata": {"email": " ops@example.com "}}, "ops@example.com"),
        ({"metadata": {"email": "", "project_id": "p"}}, "gemini-apikey[9f86d081]"),
        ({"metadata": {"email": 7}}, "gemini-apikey[9f86d081]"),
        ({"provider": "vertex", "metadata": {"email": "ops@example.com", "project_id": "p"}}, "p"),
        ({"provider": "vertex", "metadata": {"email": "ops@example.com"}}, "ops@example.com"),
    ],
)
def test_the_source_is_an_account_never_a_key(changes: dict[str, Any], source: str) -> None:
    """What people recognise a credential by."""
    assert source_of(attrs.evolve(CREDENTIAL, **changes)) == source
    assert KEY not in source


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (status_error(b'{"error":{"message":"slow down"}}'), 429, '{"error":{"message":"slow down"}}'),
        (status_error(b" \xff busy\n", 503), 503, "\ufffd busy"),
        (status_error(b""), 429, ""),
        (UpstreamTimeout("provider did not answer within 5 s"), 504, "provider did not answer within 5 s"),
        (UpstreamConnectError("cannot reach 127.0.0.1"), 502, "cannot reach 127.0.0.1"),
        (UpstreamStreamError("overloaded", status=529, code="overloaded_error", frame=b"x"), 529, "overloaded"),
        (CpaError(), 500, "internal error"),
    ],
)
def test_failures_say_what_happened(error: CpaError, status: int, text: str) -> None:
    """The provider's own words and status where it had some."""
    assert failure_of(error, ()) == Failure(status=status, body=text)


def test_failures_of_the_proxy_itself_have_a_status_too() -> None:
    """Whatever ended the attempt."""
    found = failure_of(NoTranslator(source="openai", target="claude", model="m"), ())
    assert (found.status, "translates" in found.body) == (501, True)


@pytest.mark.parametrize("secret", [KEY, "sk-abcdefghijklmnopqrstuvwxyz0123456789"])
def test_failures_hold_no_secrets_wherever_they_stand(secret: str) -> None:
    """Also where the text is cut: half a key is a key that nobody recognises."""
    for pad in (0, 100, *range(MAX_FAILURE_BYTES - 80, MAX_FAILURE_BYTES + 20)):
        body = b"x " * (pad // 2) + b'"bad key ' + secret.encode() + b'" ' + b"y " * 4000
        text = failure_of(status_error(body), (KEY,)).body
        assert len(text.encode()) <= MAX_FAILURE_BYTES
        assert secret[:10] not in text
    assert KEY not in failure_of(UpstreamTimeout(f"no answer to {KEY}"), (KEY,)).body


def test_failures_are_cut_between_characters() -> None:
    """And never longer than said."""
    for lead in range(4):
        text = failure_of(status_error(b"a" * lead + "ü€😀 ".encode() * 3000), ()).body
        assert MAX_FAILURE_BYTES - 12 <= len(text.encode()) <= MAX_FAILURE_BYTES
        assert "\ufffd" not in text
    assert len(failure_of(status_error(b"\xff " * 9000), ()).body.encode()) <= MAX_FAILURE_BYTES
    assert failure_of(status_error(b"x" * 100_000), ()).body == ""


def test_headers_of_a_record_are_bounded() -> None:
    """Real ones all fit; the records that wait must not grow with what a provider sends."""
    real = ((b"content-type", b"application/json"), (b"x-request-id", b"r1"))
    assert kept_headers(real) is real
    many = tuple((b"x-%d" % number, b"v" * 1000) for number in range(60))
    kept = kept_headers(many)
    assert kept == many[: len(kept)]
    assert MAX_HEADER_BYTES - 1010 < sum(len(name) + len(value) for name, value in kept) <= MAX_HEADER_BYTES
    assert kept_headers(((b"x", b"v" * MAX_HEADER_BYTES), *real)) == ()


def test_records_print_no_secrets() -> None:
    """A record ends up in a log sooner or later."""
    spoken = structs.replace(
        RECORD,
        principal="client-key",
        source="ops@example.com",
        failure=Failure(status=401, body="bad body"),
        response_headers=((b"set-cookie", b"crumbs"),),
        requested_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    text = repr(spoken)
    for secret in ("client-key", "ops@example.com", "bad body", "crumbs"):
        assert secret not in text
    assert "gemini-2.5-pro" in text


def test_a_credential_without_anything_has_a_source() -> None:
    """Plugins' executors may run without one."""
    nobody = Credential(id="", provider="acme", label="")
    assert (source_of(nobody), auth_type_of(nobody)) == ("", "")


def test_what_records_say_of_a_credential_is_made_once() -> None:
    """For each credential; an edited one is another."""
    other = attrs.evolve(CREDENTIAL, provider="openai-compatible-x", metadata={"email": "ops@example.com"})
    for one in (CREDENTIAL, other):
        found = payer_of(one)
        assert found == Payer(executor_type_of(one.provider), auth_type_of(one), source_of(one))
        assert payer_of(one) is found
    assert "ops@example.com" not in repr(payer_of(other))
