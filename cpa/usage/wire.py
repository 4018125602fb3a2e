"""Records as collectors get them (proxy 7.3 and 7.5). Neither a provider's nor a client's key is ever in one."""

from datetime import datetime
from typing import Final

from cpa.formats import headers as http
from cpa.formats.headers import HeaderMap
from cpa.formats.json import encode
from cpa.jsontypes import JsonObject, JsonValue
from cpa.usage.breakdown import Quality, breakdown
from cpa.usage.identity import client_id
from cpa.usage.record import UsageRecord

SCHEMA_VERSION: Final = 2
"""``accounting_version`` and that of the breakdown: input and output mean the same for every provider there."""
RETRYABLE: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


def queue_record(record: UsageRecord) -> bytes:
    """*record* as one JSON object. The client stands in it as label and digest (7.3 [B]), which can be grouped by."""
    client = record.client
    members: JsonObject = {
        "timestamp": timestamp(record.requested_at),
        "latency_ms": round(record.latency_s * 1000),
        "ttft_ms": round(record.ttft_s * 1000),
        "source": record.source,
        "auth_index": record.credential_index,
        "client_ip": client.address,
        "x_forwarded_for": client.forwarded_for,
        "user_agent": client.user_agent,
        "tokens": _tokens(record),
        "failed": record.failed,
        "generate": record.generate,
        "fail": {"status_code": record.failure.status, "body": record.failure.body},
        "accounting_version": SCHEMA_VERSION,
        "token_breakdown": _breakdown(record),
        "provider": record.provider,
        "executor_type": record.executor_type,
        "model": record.model,
        "alias": record.alias,
        "endpoint": client.endpoint,
        "auth_type": record.auth_type,
        "api_key": str(client_id(record.principal)) if record.principal else "",
        "request_id": record.trace_id or record.request_id,
        "reasoning_effort": record.reasoning_effort,
        "service_tier": record.service_tier,
    }
    if record.response_headers:
        members["response_headers"] = _headers(http.to_map(record.response_headers))
    if record.estimated.total_tokens:
        members["estimated_tokens"] = {
            "input_tokens": record.estimated.input_tokens,
            "output_tokens": record.estimated.output_tokens,
            "total_tokens": record.estimated.total_tokens,
        }
    return encode(members)


def error_event(record: UsageRecord) -> bytes:
    """What subscribers to errors hear of a failed attempt."""
    status = record.failure.status
    return encode(
        {
            "timestamp": timestamp(record.requested_at),
            "provider": record.provider,
            "model": record.model,
            "auth_id": record.credential_id,
            "auth_index": record.credential_index,
            "status_code": status,
            "body": record.failure.body,
            "code": "",
            "retryable": status in RETRYABLE,
            "auth_status": {"status": "error"},
        }
    )


def timestamp(at: datetime) -> str:
    """RFC 3339 with milliseconds, UTC."""
    return f"{at.strftime('%Y-%m-%dT%H:%M:%S')}.{at.microsecond // 1000:03d}Z"


def _tokens(record: UsageRecord) -> JsonObject:
    tokens = record.tokens
    return {
        "input_tokens": tokens.input_tokens,
        "output_tokens": tokens.output_tokens,
        "reasoning_tokens": tokens.reasoning_tokens,
        "cached_tokens": tokens.cached_tokens,
        "cache_read_tokens": tokens.cache_read_tokens,
        "cache_read_tokens_present": tokens.cache_read_tokens > 0,
        "cache_creation_tokens": tokens.cache_creation_tokens,
        "total_tokens": tokens.total_tokens,
    }


def _breakdown(record: UsageRecord) -> JsonObject:
    parts = breakdown(record.provider_format, record.tokens)
    known = parts.quality is not Quality.UNCLASSIFIED
    return {
        "schema_version": SCHEMA_VERSION,
        "quality": parts.quality.value,
        "total_tokens": parts.total_tokens,
        "input": {
            "total": parts.input_tokens,
            "uncached": parts.uncached_tokens,
            "cache_read": parts.cache_read_tokens,
            "cache_write": parts.cache_creation_tokens,
        },
        "output": {
            "total": parts.output_tokens,
            "non_reasoning": max(0, parts.output_tokens - parts.reasoning_tokens),
            "reasoning": parts.reasoning_tokens,
        },
        "unclassified_tokens": 0 if known else parts.total_tokens,
    }


def _headers(found: HeaderMap) -> dict[str, JsonValue]:
    return {name: list[JsonValue](values) for name, values in found.items()}
