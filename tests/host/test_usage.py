"""Records of attempts on their way to plugins: exact members, compiled plugins, failures."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from msgspec import structs
from structlog.testing import capture_logs

from cpa.abi import methods
from cpa.abi.envelope import encode_request
from cpa.abi.transport import HostCallHandler
from cpa.config.schema import Isolation, PluginEntry, PluginsConfig
from cpa.credentials.model import Credential
from cpa.errors import UpstreamStatusError
from cpa.formats.names import Format
from cpa.host.manager import PluginManager, open_plugins
from cpa.host.opening import native_opener
from cpa.host.usage import nanoseconds, usage_request, usage_sink
from cpa.types import PluginId
from cpa.usage.collector import Sink, UsageCollector, open_collector
from cpa.usage.record import Failure, Tokens
from tests.abi.support import HEADERS
from tests.usage.support import RECORD

TEST_S = 20.0
SOURCE = Path(__file__).with_name("plugins") / "usage.c"
BOTH = pytest.mark.parametrize("isolation", list(Isolation), ids=str)

EXAMPLE = (
    b'{"Provider":"codex","ExecutorType":"codex","Model":"gpt-5.5","Alias":"fast","APIKey":"team-a","AuthID":"a.json",'
    b'"AuthIndex":"0f3a9c77d1e2b845","AuthType":"oauth","Source":"me@example.org","ReasoningEffort":"",'
    b'"ServiceTier":"auto","Generate":true,"RequestedAt":"2026-08-22T10:00:00Z","Latency":1900000000,'
    b'"TTFT":400000000,"Failed":false,"Failure":{"StatusCode":0,"Body":""},"Detail":{"InputTokens":10,'
    b'"OutputTokens":5,"ReasoningTokens":0,"CachedTokens":0,"CacheReadTokens":0,"CacheCreationTokens":0,'
    b'"TotalTokens":15},"ResponseHeaders":null}'
)
"""As the contract has it (plugin-abi 4.12)."""
EXAMPLE_RECORD = structs.replace(
    RECORD,
    provider="codex",
    executor_type="codex",
    model="gpt-5.5",
    alias="fast",
    principal="team-a",
    credential_id="a.json",
    credential_index="0f3a9c77d1e2b845",
    auth_type="oauth",
    source="me@example.org",
    tokens=Tokens(input_tokens=10, output_tokens=5, total_tokens=15),
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """usage.c, compiled, in a folder of its own."""
    target = tmp_path_factory.mktemp("usage") / "counts.so"
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", f"-I{HEADERS}"]
    subprocess.run(["gcc", *flags, str(SOURCE), "-o", str(target)], check=True)
    return target


@attrs.frozen
class Counting:
    """A collector in front of a plugin that hands back what it is told."""

    collector: UsageCollector
    manager: PluginManager
    seen: list[bytes]


@asynccontextmanager
async def counting(library: Path, isolation: Isolation) -> AsyncIterator[Counting]:
    """The collector ends before the plugins do."""
    seen: list[bytes] = []

    def handler_for(plugin_id: PluginId, generation: int) -> HostCallHandler:
        async def answer(method: bytes, payload: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            assert method == b"seen"
            seen.append(payload)
            return b'{"ok":true,"result":{}}'

        return answer

    def sinks() -> list[Sink]:
        return [usage_sink(plugin) for plugin in manager.snapshot() if plugin.capabilities.usage_plugin]

    with trio.fail_after(TEST_S):
        async with open_plugins(native_opener(Path("conf/cpa.yaml")), handler_for=handler_for) as manager:
            config = PluginEntry(enabled=True, config_yaml="enabled: true\n")
            await manager.apply(
                PluginsConfig(enabled=True, dir=library.parent, isolation=isolation, configs={"counts": config})
            )
            async with open_collector(sinks) as collector:
                assert collector.wanted
                yield Counting(collector, manager, seen)


def test_a_record_is_sent_as_the_contract_has_it() -> None:
    """Byte for byte the example of the contract."""
    assert encode_request(methods.USAGE_HANDLE, usage_request(EXAMPLE_RECORD)) == EXAMPLE


def test_everything_of_a_record_is_in_the_request() -> None:
    """Failures, headers by canonical name, all kinds of tokens; times with nanoseconds as integers."""
    record = structs.replace(
        EXAMPLE_RECORD,
        generate=False,
        reasoning_effort="high",
        service_tier="flex",
        latency_s=1.2345678904,
        ttft_s=0,
        failed=True,
        failure=Failure(status=429, body="slow down"),
        tokens=Tokens(
            input_tokens=1,
            output_tokens=2,
            reasoning_tokens=3,
            cache_read_tokens=0,
            cache_creation_tokens=5,
            total_tokens=6,
        ),
        response_headers=((b"x-request-id", b"r1"), (b"retry-after", b"1"), (b"retry-after", b"2")),
    )
    sent = json.loads(encode_request(methods.USAGE_HANDLE, usage_request(record)))
    assert sent == json.loads(EXAMPLE) | {
        "Generate": False,
        "ReasoningEffort": "high",
        "ServiceTier": "flex",
        "Latency": 1234567890,
        "TTFT": 0,
        "Failed": True,
        "Failure": {"StatusCode": 429, "Body": "slow down"},
        "Detail": {
            "InputTokens": 1,
            "OutputTokens": 2,
            "ReasoningTokens": 3,
            "CachedTokens": 5,
            "CacheReadTokens": 0,
            "CacheCreationTokens": 5,
            "TotalTokens": 6,
        },
        "ResponseHeaders": {"Retry-After": ["1", "2"], "X-Request-Id": ["r1"]},
    }


def test_durations_are_whole_nanoseconds() -> None:
    """And never negative, whatever a clock did."""
    assert [nanoseconds(seconds) for seconds in (0.0, 1e-9, 0.1, 3.0, -0.5)] == [0, 1, 100_000_000, 3_000_000_000, 0]


@BOTH
async def test_a_compiled_plugin_is_told_of_an_attempt(library: Path, isolation: Isolation) -> None:
    """From the attempt's first moment to the plugin's own eyes: exactly the contract's members, in its order."""
    credential = Credential(
        id="a.json",
        provider="codex",
        label="codex",
        index="0f3a9c77d1e2b845",
        source="file",
        metadata={"email": "me@example.org"},
    )
    async with counting(library, isolation) as stage:
        usage = stage.collector.attempt(
            credential=credential,
            model="gpt-5.5",
            alias="fast",
            principal="team-a",
            request_format=Format.OPENAI,
            provider_format=Format.CODEX,
            request_body=b'{"model":"fast"}',
            request_id="r1",
            trace_id="",
            executor_type="codex",
        )
        usage.body(b'{"usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15}}')
        usage.finish(None, complete=True)
    [payload] = stage.seen
    sent, expected = json.loads(payload), json.loads(EXAMPLE)
    assert list(sent) == list(expected)
    assert sent["Latency"] >= sent["TTFT"] > 0
    assert sent["RequestedAt"].endswith("Z")
    for varying in ("Latency", "TTFT", "RequestedAt"):
        del sent[varying], expected[varying]
    assert sent == expected


@BOTH
async def test_records_are_delivered_before_the_plugins_end(library: Path, isolation: Isolation) -> None:
    """In order, and all of them, also those of the last moment."""
    async with counting(library, isolation) as stage:
        for number in range(100):
            stage.collector.submit(structs.replace(RECORD, model=f"m{number}"))
        assert not stage.seen
    assert [json.loads(payload)["Model"] for payload in stage.seen] == [f"m{number}" for number in range(100)]
    assert stage.collector.dropped == 0


@BOTH
async def test_a_plugin_that_refuses_a_record_gets_the_next_one(library: Path, isolation: Isolation) -> None:
    """Its error is logged with its name."""
    with capture_logs() as lines:
        async with counting(library, isolation) as stage:
            error = UpstreamStatusError(status=429, headers=(), body=b"slow down", provider_format="openai")
            failed = structs.replace(RECORD, failed=True, failure=Failure(status=error.status, body="slow down"))
            stage.collector.submit(failed)
            stage.collector.submit(RECORD)
    assert [json.loads(payload)["Failed"] for payload in stage.seen] == [True, False]
    [line] = [line for line in lines if line["event"] == "usage.not_delivered"]
    assert (line["log_level"], line["request_id"]) == ("warning", RECORD.request_id)
    assert "no failures please" in line["error"]


async def test_a_plugin_that_is_switched_off_is_told_nothing(library: Path) -> None:
    """Sinks follow the plugins."""
    async with counting(library, Isolation.PROCESS) as stage:
        await stage.manager.apply(PluginsConfig(enabled=False, dir=library.parent))
        assert not stage.collector.wanted
        stage.collector.submit(RECORD)
    assert stage.seen == []
