"""Records and credentials for the tests of usage."""

from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from cpa.credentials.model import Credential
from cpa.usage.record import UsageRecord

CREDENTIAL = Credential(
    id="gemini:apikey:0a1b2c3d4e5f",
    provider="gemini",
    label="gemini-apikey",
    api_key="provider-key-of-the-tests",
    index="9f86d081884c7d65",
)

RECORD = UsageRecord(
    request_id="r0",
    trace_id="a1b2c3d4",
    provider="gemini",
    executor_type="GeminiExecutor",
    model="gemini-2.5-pro",
    alias="pro",
    principal="client-key-of-the-tests",
    credential_id=CREDENTIAL.id,
    credential_index=CREDENTIAL.index,
    auth_type="apikey",
    source="gemini-apikey[9f86d081]",
    reasoning_effort="",
    service_tier="auto",
    generate=True,
    requested_at=datetime(2026, 8, 22, 10, tzinfo=UTC),
    latency_s=1.9,
    ttft_s=0.4,
    failed=False,
    complete=True,
    provider_format="gemini",
)


def record(number: int, **changes: Any) -> UsageRecord:
    """`RECORD` as request *number*."""
    return structs.replace(RECORD, request_id=f"r{number}", **changes)
