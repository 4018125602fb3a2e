"""`usage.handle`: records of attempts for plugins that count (plugin-abi 4.12)."""

from typing import Final

from cpa.abi import methods, wire
from cpa.formats import headers as http
from cpa.host.adapters import PluginClient
from cpa.usage.collector import Sink
from cpa.usage.record import UsageRecord

NS_PER_S: Final = 1_000_000_000


def usage_sink(plugin: PluginClient) -> Sink:
    """A sink that tells *plugin*. What it raises (CpaError) is for the collector to log; the answer says nothing."""

    async def tell(record: UsageRecord) -> None:
        await plugin.call(methods.USAGE_HANDLE, usage_request(record))

    return tell


def usage_request(record: UsageRecord) -> wire.UsageRequest:
    """*record* as plugins get it."""
    tokens = record.tokens
    return wire.UsageRequest(
        provider=record.provider,
        executor_type=record.executor_type,
        model=record.model,
        alias=record.alias,
        api_key=record.principal,
        auth_id=record.credential_id,
        auth_index=record.credential_index,
        auth_type=record.auth_type,
        source=record.source,
        reasoning_effort=record.reasoning_effort,
        service_tier=record.service_tier,
        generate=record.generate,
        requested_at=record.requested_at,
        latency_ns=nanoseconds(record.latency_s),
        ttft_ns=nanoseconds(record.ttft_s),
        failed=record.failed,
        failure=wire.UsageFailure(status_code=record.failure.status, body=record.failure.body),
        detail=wire.UsageDetail(
            input_tokens=tokens.input_tokens,
            output_tokens=tokens.output_tokens,
            reasoning_tokens=tokens.reasoning_tokens,
            cached_tokens=tokens.cached_tokens,
            cache_read_tokens=tokens.cache_read_tokens,
            cache_creation_tokens=tokens.cache_creation_tokens,
            total_tokens=tokens.total_tokens,
        ),
        response_headers=http.to_map(record.response_headers),
    )


def nanoseconds(seconds: float) -> int:
    """A duration on the wire, never negative."""
    return max(0, round(seconds * NS_PER_S))
