"""What a provider's failure means for the credential, the request and the next attempt (proxy 4.3 and 4.7).

Pure: an error and the operator's rules in, a `Verdict` out. The order of the checks is the contract's, with its better
reading of [B]: 401, 402, 403 and 429 always speak of the credential, whatever type their bodies claim; a 404 that names
the model is the model's; the names of errors count only where the status alone does not decide.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import attrs

from cpa.config.schema import ErrorAction, RequestScopedError
from cpa.errors import (
    ExecutorError,
    UpstreamError,
    UpstreamHungUp,
    UpstreamStatusError,
    UpstreamStreamError,
    UpstreamTimeout,
)
from cpa.formats.json import JsonError, decode
from cpa.formats.sse import parse_event
from cpa.jsontypes import JsonObject, JsonValue
from cpa.scheduling.hints import retry_after_s
from cpa.scheduling.patterns import found
from cpa.types import Operation

MAX_TEXT_BYTES: Final = 64 << 10
"""Of an error's body that is looked at: errors say what they are at their beginning."""


class Kind(StrEnum):
    """What went wrong. The values are the reasons that operators read, and that files keep."""

    REQUEST_FAULT = "request_fault"
    LIFECYCLE = "lifecycle"
    MODEL_UNSUPPORTED = "model_not_supported"
    CHALLENGE = "challenge"
    INVALID_GRANT = "invalid_grant"
    UNAUTHORIZED = "unauthorized"
    PAYMENT = "payment_required"
    NOT_FOUND = "not_found"
    QUOTA = "quota"
    TRANSIENT = "transient"


QUOTA_KINDS: Final = frozenset({Kind.QUOTA, Kind.CHALLENGE})
"""Reasons that make an exhausted pool a 429 instead of a 503 (proxy 4.1)."""
HARMLESS: Final = frozenset({Kind.REQUEST_FAULT, Kind.LIFECYCLE})
"""Kinds that say nothing of the credential."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What follows from one failure.

    Attributes:
      status: HTTP status of the failure; 0 when the provider gave none.
      rotate: another credential, or model of a pool, may be tried.
      cools: the credential is kept from this model for a while, as its kind says.
      forced: by an operator's rule: at least a minute, also where cooling is off.
      ruled: an operator's rule decided; nothing is renewed or restarted on top of that.
      hint_s: seconds after which the provider wants to be asked again, not capped; None = it did not say.
      whole_credential: all models of the credential are meant, not just this one.
      message: one line of what the provider said, not redacted.
    """

    kind: Kind
    status: int = 0
    rotate: bool = True
    cools: bool = True
    forced: bool = False
    ruled: bool = False
    hint_s: float | None = None
    whole_credential: bool = False
    message: str = attrs.field(default="", repr=False)

    @property
    def reason(self) -> str:
        """A short name."""
        return self.kind.value


_CHALLENGES: Final = ("challenge-platform", "cf-mitigated", "cloudflare challenge")
_UNSUPPORTED: Final = (
    "model_not_supported",
    "requested model is not supported",
    "requested model is unsupported",
    "requested model is unavailable",
    "model is not supported",
    "model not supported",
    "unsupported model",
    "model unavailable",
    "not available for your plan",
    "not available for your account",
)
_FAULT_CODES: Final = frozenset(
    {
        "cyber_policy",
        "context_length_exceeded",
        "message_too_big",
        "string_above_max_length",
        "invalid_prompt",
        "invalid_value",
        "unsupported_value",
        "invalid_request_error",
        "previous_response_not_found",
    }
)
_FAULT_TYPES: Final = frozenset({"invalid_request", "invalid_request_error", "bad_request_error", "invalid_prompt"})
_MODEL_CODES: Final = frozenset({"model_not_found", "model_not_available", "not_found_error", "deployment_not_found"})
"""Codes and types of a 404 that mean the model."""
_FAULT_STATUSES: Final = frozenset({400, 409, 413, 422})
_CREDENTIAL_STATUSES: Final = frozenset({401, 402, 403, 429})
_ACCOUNT_NAMES: Final = frozenset(
    {"usage_limit_reached", "insufficient_quota", "billing_hard_limit_reached", "account_quota_exceeded"}
)
"""With a 429: the account's window is exhausted, not that of one model."""
_BY_STATUS: Final = {
    401: Kind.UNAUTHORIZED,
    402: Kind.PAYMENT,
    403: Kind.PAYMENT,
    404: Kind.NOT_FOUND,
    429: Kind.QUOTA,
}
_NO_COUNTING: Final = frozenset({404, 405, 501})


@attrs.frozen(kw_only=True)
class _Seen:
    """A failure as the checks look at it. *lower*: the text in lower case; *names*: codes and types, lower case."""

    status: int
    text: str
    lower: str
    codes: frozenset[str]
    types: frozenset[str]
    value: JsonValue


def classify(
    error: UpstreamError,
    rules: Sequence[RequestScopedError] = (),
    *,
    operation: Operation = Operation.GENERATE,
    now_unix: float = 0.0,
) -> Verdict:
    """What *error* means. Never raises, whatever the provider sent.

    Args:
      rules: the operator's, in order; the first that matches decides.
      now_unix: to read dates in hints against.
    """
    seen = _look(error)
    headers = error.headers if isinstance(error, UpstreamStatusError) else ()
    hint_s = retry_after_s(headers, seen.value, now_unix=now_unix)
    verdict = attrs.evolve(_natural(error, seen), hint_s=hint_s, message=_message(error, seen))
    if verdict.kind is Kind.QUOTA and (_is_account(seen) or _claude_account(error)):
        verdict = attrs.evolve(verdict, whole_credential=True)
    rule = _matching(rules, seen)
    if rule is not None:
        return attrs.evolve(
            verdict,
            rotate=rule.action in (ErrorAction.CONTINUE, ErrorAction.CONTINUE_AND_COOLDOWN),
            cools=(cooldown := rule.action in (ErrorAction.STOP_AND_COOLDOWN, ErrorAction.CONTINUE_AND_COOLDOWN)),
            forced=cooldown,
            ruled=True,
        )
    if _is_neutral(verdict, operation):
        return attrs.evolve(verdict, cools=False)
    return verdict


def _natural(error: UpstreamError, seen: _Seen) -> Verdict:
    """The verdict without rules."""
    status, lower = seen.status, seen.lower
    if isinstance(error, UpstreamHungUp | UpstreamTimeout):
        return Verdict(kind=Kind.LIFECYCLE, cools=False)
    if _is_challenge(error, lower):
        return Verdict(kind=Kind.CHALLENGE, status=status)
    if status in (400, 401) and "invalid_grant" in lower:
        return Verdict(kind=Kind.INVALID_GRANT, status=status)
    if status in (400, 422) and any(text in lower for text in _UNSUPPORTED):
        return Verdict(kind=Kind.MODEL_UNSUPPORTED, status=status)
    if _is_request_fault(seen):
        return Verdict(kind=Kind.REQUEST_FAULT, status=status, rotate=False, cools=False)
    return Verdict(kind=_BY_STATUS.get(status, Kind.TRANSIENT), status=status)


def _is_challenge(error: UpstreamError, lower: str) -> bool:
    if isinstance(error, UpstreamStatusError) and error.header(b"cf-mitigated") is not None:
        return True
    return any(text in lower for text in _CHALLENGES) or ("cloudflare" in lower and "<html" in lower)


def _is_request_fault(seen: _Seen) -> bool:
    status = seen.status
    if status in _CREDENTIAL_STATUSES:
        return False
    if status in _FAULT_STATUSES:
        return True
    if status != 404 or not seen.codes.isdisjoint(_MODEL_CODES) or not seen.types.isdisjoint(_MODEL_CODES):
        return False
    if not seen.codes.isdisjoint(_FAULT_CODES) or not seen.types.isdisjoint(_FAULT_TYPES):
        return True
    return "item with id" in seen.lower and "not found" in seen.lower and "store` is set to false" in seen.lower


def _is_account(seen: _Seen) -> bool:
    return not seen.codes.isdisjoint(_ACCOUNT_NAMES) or not seen.types.isdisjoint(_ACCOUNT_NAMES)


def _claude_account(error: UpstreamError) -> bool:
    """Claude's subscriptions share one window over all models, and say so in a header."""
    if not isinstance(error, UpstreamStatusError):
        return False
    return (error.header(b"anthropic-ratelimit-unified-status") or b"").strip().lower() == b"rejected"


def _is_neutral(verdict: Verdict, operation: Operation) -> bool:
    """Failures that rotate and leave no trace (proxy 4.4)."""
    if operation is Operation.COMPACT:
        return verdict.kind is Kind.TRANSIENT
    return operation is Operation.COUNT_TOKENS and verdict.status in _NO_COUNTING


def _matching(rules: Sequence[RequestScopedError], seen: _Seen) -> RequestScopedError | None:
    for rule in rules:
        if rule.status != seen.status:
            continue
        if any(text in seen.text for text in rule.match):
            return rule
        if any(found(pattern, seen.text) for pattern in rule.match_regexr):
            return rule
    return None


def _look(error: UpstreamError) -> _Seen:
    """The parts of *error* that decide."""
    if isinstance(error, UpstreamStatusError):
        status, body = error.status, error.body[:MAX_TEXT_BYTES]
    elif isinstance(error, UpstreamStreamError):
        status, body = error.http_status, parse_event(error.frame[:MAX_TEXT_BYTES]).data or b""
    elif isinstance(error, ExecutorError):
        status, body = error.http_status, error.message.encode("utf-8", "replace")[:MAX_TEXT_BYTES]
    else:
        status, body = error.http_status, b""
    text = body.decode("utf-8", "replace")
    value: JsonValue = None
    if body.lstrip()[:1] in (b"{", b"["):
        try:
            value = decode(body)
        except JsonError:
            value = None
    codes, types = _names(value)
    if error.code and isinstance(error, UpstreamStreamError):
        codes |= {error.code.lower()}
    return _Seen(status=status, text=text, lower=text.lower(), codes=codes, types=types, value=value)


def _names(value: JsonValue) -> tuple[frozenset[str], frozenset[str]]:
    """Codes and types of an error at all the places where providers and gateways put them."""
    codes: set[str] = set()
    types: set[str] = set()
    for place in _places(value):
        for name, names in (("code", codes), ("type", types)):
            item = place.get(name)
            if isinstance(item, str):
                names.add(item.strip().lower())
    return frozenset(codes), frozenset(types)


def _places(value: JsonValue) -> Iterator[JsonObject]:
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return
    yield value
    for outer in (value, value.get("response"), value.get("body")):
        inner = outer.get("error") if isinstance(outer, dict) else None
        if isinstance(inner, dict):
            yield inner


def _message(error: UpstreamError, seen: _Seen) -> str:
    """One line for people."""
    for place in _places(seen.value):
        item = place.get("message")
        if isinstance(item, str) and item.strip():
            return " ".join(item.split())
    if isinstance(error, UpstreamStatusError):
        text = "" if seen.text.lstrip().startswith("<") else " ".join(seen.text[:1024].split())
        return text or error.message
    return " ".join((error.public_message or error.message).split())
