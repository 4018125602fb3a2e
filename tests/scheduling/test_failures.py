"""The table of failures (proxy 4.3 with its [B]) and the operator's rules (4.7)."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.schema import ErrorAction, RequestScopedError
from cpa.errors import (
    ExecutorError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamHungUp,
    UpstreamProtocolError,
    UpstreamStreamError,
    UpstreamTimeout,
)
from cpa.scheduling.failures import Kind, classify
from cpa.types import Operation
from tests.scheduling.support import failure

OPENAI_KEY = b'{"error":{"message":"Incorrect API key","type":"invalid_request_error","code":"invalid_api_key"}}'
OPENAI_MODEL = b'{"error":{"message":"no such model","type":"invalid_request_error","code":"model_not_found"}}'
FAULT = b'{"error":{"message":"x","type":"invalid_request_error"}}'
STORE = b"Item with id 'rs_1' not found. Items are not persisted when `store` is set to false."


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"{}", Kind.REQUEST_FAULT),
        (409, b"{}", Kind.REQUEST_FAULT),
        (413, b"{}", Kind.REQUEST_FAULT),
        (422, b"{}", Kind.REQUEST_FAULT),
        (401, b"{}", Kind.UNAUTHORIZED),
        (402, b"{}", Kind.PAYMENT),
        (403, b"{}", Kind.PAYMENT),
        (404, b"{}", Kind.NOT_FOUND),
        (429, b"{}", Kind.QUOTA),
        (405, b"{}", Kind.TRANSIENT),
        (408, b"{}", Kind.TRANSIENT),
        (500, b"{}", Kind.TRANSIENT),
        (529, b"{}", Kind.TRANSIENT),
        # [B]: credentials' statuses stay credentials' failures, whatever the type says.
        (401, OPENAI_KEY, Kind.UNAUTHORIZED),
        (402, FAULT, Kind.PAYMENT),
        (403, FAULT, Kind.PAYMENT),
        (429, FAULT, Kind.QUOTA),
        (500, FAULT, Kind.TRANSIENT),
        (401, b'{"type":"error","error":{"type":"authentication_error"}}', Kind.UNAUTHORIZED),
        # 404: the model's, or the request's.
        (404, OPENAI_MODEL, Kind.NOT_FOUND),
        (404, b'{"type":"error","error":{"type":"not_found_error","message":"model: x"}}', Kind.NOT_FOUND),
        (404, b'{"error":{"code":404,"status":"NOT_FOUND"}}', Kind.NOT_FOUND),
        (404, FAULT, Kind.REQUEST_FAULT),
        (404, b'{"code":"previous_response_not_found"}', Kind.REQUEST_FAULT),
        (404, b'{"response":{"error":{"code":"invalid_prompt"}}}', Kind.REQUEST_FAULT),
        (404, b'{"body":{"error":{"type":"bad_request_error"}}}', Kind.REQUEST_FAULT),
        (404, STORE, Kind.REQUEST_FAULT),
        # Before all that: challenges, grants, unsupported models.
        (403, b"<HTML>... Cloudflare ...", Kind.CHALLENGE),
        (503, b"<script src=/cdn-cgi/challenge-platform/x>", Kind.CHALLENGE),
        (400, b"cf-mitigated", Kind.CHALLENGE),
        (403, b"<html>nginx</html>", Kind.PAYMENT),
        (400, b'{"error":"invalid_grant"}', Kind.INVALID_GRANT),
        (401, b"Invalid_Grant", Kind.INVALID_GRANT),
        (403, b"invalid_grant", Kind.PAYMENT),
        (400, b'{"error":{"code":"model_not_supported"}}', Kind.MODEL_UNSUPPORTED),
        (422, b"The requested model is unavailable", Kind.MODEL_UNSUPPORTED),
        (400, b"Model X is not available for your plan", Kind.MODEL_UNSUPPORTED),
        (404, b"unsupported model", Kind.NOT_FOUND),
    ],
)
def test_statuses_and_bodies_mean(status: int, body: bytes, kind: Kind) -> None:
    """In the order of the contract."""
    verdict = classify(failure(status, body))
    assert (verdict.kind, verdict.status) == (kind, status)
    assert verdict.rotate is (kind is not Kind.REQUEST_FAULT)
    assert verdict.cools is (kind is not Kind.REQUEST_FAULT)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (UpstreamHungUp("EOF"), Kind.LIFECYCLE, 0),
        (UpstreamTimeout("slow"), Kind.LIFECYCLE, 0),
        (UpstreamConnectError("refused"), Kind.TRANSIENT, 502),
        (UpstreamProtocolError("closed before first payload", code="empty_stream"), Kind.TRANSIENT, 502),
        (ExecutorError("unexpected EOF"), Kind.TRANSIENT, 500),
        (ExecutorError("no", http_status=401), Kind.UNAUTHORIZED, 401),
        (ExecutorError('{"error":{"type":"invalid_request_error"}}', http_status=400), Kind.REQUEST_FAULT, 400),
        (UpstreamStreamError("over", status=529, code="overloaded", frame=b"data: {}\n\n"), Kind.TRANSIENT, 529),
        (UpstreamStreamError("long", status=400, code="context_length_exceeded", frame=b""), Kind.REQUEST_FAULT, 400),
    ],
)
def test_errors_of_other_kinds_mean(error: UpstreamError, kind: Kind, status: int) -> None:
    """Text of a lifecycle error with a status is no lifecycle error (checklist 30)."""
    verdict = classify(error)
    assert (verdict.kind, verdict.status) == (kind, status)


def test_a_cloudflare_header_is_enough() -> None:
    """Its pages change, its header does not."""
    assert classify(failure(403, b"<html></html>", cf_mitigated="challenge")).kind is Kind.CHALLENGE


@pytest.mark.parametrize(
    ("body", "headers", "whole"),
    [
        (b'{"error":{"type":"usage_limit_reached"}}', {}, True),
        (b'{"error":{"code":"insufficient_quota"}}', {}, True),
        (b"{}", {"anthropic_ratelimit_unified_status": "rejected"}, True),
        (b'{"error":{"code":"rate_limit_exceeded"}}', {}, False),
    ],
)
def test_quota_of_the_account_is_told_from_that_of_a_model(body: bytes, headers: dict[str, str], whole: bool) -> None:
    """4.4: credential-wide."""
    assert classify(failure(429, body, **headers)).whole_credential is whole


@pytest.mark.parametrize(
    ("operation", "status", "cools"),
    [
        (Operation.COMPACT, 500, False),
        (Operation.COMPACT, 401, True),
        (Operation.COMPACT, 403, True),
        (Operation.COMPACT, 429, True),
        (Operation.COUNT_TOKENS, 404, False),
        (Operation.COUNT_TOKENS, 500, True),
        (Operation.GENERATE, 404, True),
    ],
)
def test_neutral_failures_rotate_without_a_trace(operation: Operation, status: int, cools: bool) -> None:
    """Transient ones of compact calls, missing endpoints for counting."""
    verdict = classify(failure(status), operation=operation)
    assert (verdict.rotate, verdict.cools) == (True, cools)


# --- rules -----------------------------------------------------------------------------------------------------------


def rule(action: ErrorAction, *match: str, status: int = 400, regex: tuple[str, ...] = ()) -> RequestScopedError:
    return RequestScopedError(status=status, match=match, match_regexr=tuple(map(re.compile, regex)), action=action)


@pytest.mark.parametrize(
    ("action", "rotate", "forced"),
    [
        (ErrorAction.STOP, False, False),
        (ErrorAction.STOP_AND_COOLDOWN, False, True),
        (ErrorAction.CONTINUE, True, False),
        (ErrorAction.CONTINUE_AND_COOLDOWN, True, True),
    ],
)
def test_actions_of_rules(action: ErrorAction, rotate: bool, forced: bool) -> None:
    """Over whatever the error means otherwise."""
    for status in (400, 401, 500):
        verdict = classify(failure(status, b"low balance"), [rule(action, "low", status=status)])
        assert (verdict.rotate, verdict.cools, verdict.forced, verdict.ruled) == (rotate, forced, forced, True)


def test_the_first_rule_that_matches_decides() -> None:
    """Status and one of the texts or expressions; texts are case-sensitive."""
    rules = [
        rule(ErrorAction.STOP, "low", status=401),
        rule(ErrorAction.STOP, "LOW"),
        rule(ErrorAction.CONTINUE, "nothing", regex=(r"(?i)BAL\w+ is",)),
        rule(ErrorAction.STOP, "low"),
    ]
    assert classify(failure(400, b"your balance is low"), rules).rotate
    assert not classify(failure(400, b"low"), rules).rotate
    assert not classify(failure(400, b"other"), rules).ruled


@given(st.integers(300, 599), st.binary(max_size=300))
@settings(max_examples=80, deadline=None)
def test_no_body_can_break_it(status: int, body: bytes) -> None:
    """Every byte of a provider is hostile."""
    verdict = classify(failure(status, body))
    assert verdict.status == status
    assert "\n" not in verdict.message


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"error":' * 50_000, b'{"error":[1,2,{"code":{}}]}', b"[[]]", b"9" * 9999]
)
def test_hostile_json_is_just_a_text(body: bytes) -> None:
    """Deep, wrong, of another shape."""
    assert classify(failure(503, body)).kind is Kind.TRANSIENT
