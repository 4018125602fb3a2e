"""From an attempt's course to its record."""

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from cpa.errors import UpstreamProtocolError, UpstreamStatusError
from cpa.formats.estimate import estimate_text
from cpa.formats.names import Format
from cpa.usage.attempt import AttemptUsage
from cpa.usage.record import NO_FAILURE, NO_TOKENS, Failure, Tokens, UsageRecord
from tests.usage.support import CREDENTIAL

FRAMES = tuple(
    b'data: {"candidates":[],"usageMetadata":%b}\n\n' % usage
    for usage in (
        b'{"promptTokenCount":10,"totalTokenCount":10}',
        b'{"promptTokenCount":10,"candidatesTokenCount":3,"totalTokenCount":13}',
        b'{"promptTokenCount":10,"candidatesTokenCount":5,"totalTokenCount":15}',
    )
)
AFTER = (
    Tokens(input_tokens=10, total_tokens=10),
    Tokens(input_tokens=10, output_tokens=3, total_tokens=13),
    Tokens(input_tokens=10, output_tokens=5, total_tokens=15),
)


def attempt(records: list[UsageRecord], **changes: Any) -> AttemptUsage:
    """One that began now; its record goes to *records*."""
    given: dict[str, Any] = {
        "submit": records.append,
        "credential": CREDENTIAL,
        "model": "gemini-2.5-pro",
        "alias": "pro",
        "principal": "client-key-of-the-tests",
        "request_format": Format.GEMINI,
        "provider_format": "gemini",
        "request_body": b'{"generationConfig":{"thinkingConfig":{"thinkingLevel":"HIGH"}},"service_tier":"flex"}',
        "request_id": "r1",
        "trace_id": "a1b2c3d4",
        "executor_type": "GeminiExecutor",
    }
    return AttemptUsage(**{**given, **changes})


async def test_a_whole_answer_makes_a_record(autojump_clock: trio.testing.MockClock) -> None:
    """Every member, with times from beginning to first byte and end."""
    records: list[UsageRecord] = []
    usage = attempt(records)
    await trio.sleep(0.25)
    usage.response_headers = ((b"x-request-id", b"r1"),)
    usage.body(FRAMES[2][6:])
    await trio.sleep(0.5)
    usage.finish(None, complete=True)
    assert records == [
        UsageRecord(
            request_id="r1",
            trace_id="a1b2c3d4",
            provider="gemini",
            executor_type="GeminiExecutor",
            model="gemini-2.5-pro",
            alias="pro",
            principal="client-key-of-the-tests",
            credential_id="gemini:apikey:0a1b2c3d4e5f",
            credential_index="9f86d081884c7d65",
            auth_type="apikey",
            source="gemini-apikey[9f86d081]",
            reasoning_effort="high",
            service_tier="flex",
            generate=True,
            requested_at=usage.requested_at,
            latency_s=records[0].latency_s,
            ttft_s=records[0].ttft_s,
            failed=False,
            failure=NO_FAILURE,
            complete=True,
            provider_format="gemini",
            tokens=AFTER[2],
            response_headers=((b"x-request-id", b"r1"),),
        )
    ]
    assert records[0].latency_s == pytest.approx(0.75)
    assert records[0].ttft_s == pytest.approx(0.25)
    assert usage.requested_at.utcoffset() is not None


@pytest.mark.parametrize("delivered", range(4))
async def test_a_stream_that_is_cut_counts_what_was_delivered(
    autojump_clock: trio.testing.MockClock, delivered: int
) -> None:
    """At every chunk; a client that leaves is no failure, but the counts are marked."""
    records: list[UsageRecord] = []
    usage = attempt(records)
    for frame in FRAMES[:delivered]:
        await trio.sleep(1)
        usage.feed(frame)
    usage.finish(None, complete=False)
    [record] = records
    assert record.tokens == (AFTER[delivered - 1] if delivered else NO_TOKENS)
    assert (record.complete, record.failed, record.failure) == (False, False, NO_FAILURE)
    assert record.ttft_s == pytest.approx(1 if delivered else 0)
    assert record.latency_s == pytest.approx(delivered)


CHAT_DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"twelve chars"}}]}\n\n'
CHAT_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}\n\n'
CHAT_BODY = b'{"messages":[{"role":"user","content":"hello there"}]}'


@pytest.mark.parametrize("taken", range(4))
async def test_what_the_client_took_and_nobody_counted_is_estimated(taken: int) -> None:
    """Prompt and text, apart from the provider's own counts; a block that was not asked past is not taken."""
    records: list[UsageRecord] = []
    usage = attempt(records, provider_format="openai", request_format=Format.OPENAI, request_body=CHAT_BODY)
    for _ in range(taken):
        usage.feed(CHAT_DELTA)
        usage.delivered()
    usage.feed(CHAT_DELTA)
    usage.finish(None, complete=False)
    output = estimate_text("twelve chars" * taken)
    asked = estimate_text("hello there") + 4 if taken else 0
    assert records[0].tokens == NO_TOKENS
    assert records[0].estimated == Tokens(input_tokens=asked, output_tokens=output, total_tokens=asked + output)
    assert records[0].counted == records[0].estimated


async def test_what_the_provider_counted_is_not_estimated() -> None:
    """Neither at a good end, nor when the client leaves behind it."""
    for complete in (True, False):
        records: list[UsageRecord] = []
        usage = attempt(records, provider_format="openai", request_format=Format.OPENAI, request_body=CHAT_BODY)
        for block in (CHAT_DELTA, CHAT_USAGE):
            usage.feed(block)
            usage.delivered()
        usage.finish(None, complete=complete)
        assert records[0].estimated == NO_TOKENS
        assert records[0].counted == Tokens(input_tokens=9, output_tokens=4, total_tokens=13)


async def test_whole_streams_and_answers_without_counts_are_estimated() -> None:
    """Otherwise leaving out the usage would be a way around limits."""
    records: list[UsageRecord] = []
    kinds = {"provider_format": "openai", "request_format": Format.OPENAI, "request_body": CHAT_BODY}
    streamed, whole = attempt(records, **kinds), attempt(records, **kinds)
    streamed.feed(CHAT_DELTA)
    streamed.finish(None, complete=True)
    whole.body(b'{"choices":[{"message":{"content":"twelve chars"}}]}')
    whole.finish(None, complete=True)
    expected = Tokens(input_tokens=7, output_tokens=4, total_tokens=11)
    assert [record.estimated for record in records] == [expected, expected]


async def test_a_failure_without_an_answer_costs_nothing() -> None:
    """Nobody is charged for a 500."""
    records: list[UsageRecord] = []
    usage = attempt(records, provider_format="openai", request_format=Format.OPENAI, request_body=CHAT_BODY)
    usage.finish(UpstreamProtocolError("cut short"), complete=False)
    assert records[0].counted == NO_TOKENS


async def test_the_first_byte_is_noted_once(autojump_clock: trio.testing.MockClock) -> None:
    """By whoever sees it first; blocks without bytes are none."""
    records: list[UsageRecord] = []
    usage = attempt(records)
    usage.feed(b"")
    usage.body(b"")
    await trio.sleep(1)
    usage.first_byte()
    await trio.sleep(1)
    usage.first_byte()
    usage.feed(FRAMES[0])
    usage.finish(None, complete=True)
    assert records[0].ttft_s == pytest.approx(1)


async def test_a_failure_is_told_without_the_secrets_in_it() -> None:
    """Neither the provider's key nor the client's."""
    records: list[UsageRecord] = []
    body = b'{"error":"key provider-key-of-the-tests for client-key-of-the-tests is wrong"}'
    error = UpstreamStatusError(status=401, headers=(), body=body, provider_format="gemini")
    attempt(records).finish(error, complete=False)
    assert (records[0].failed, records[0].failure.status) == (True, 401)
    assert records[0].failure.body == '{"error":"key prov...ests for clie...ests is wrong"}'
    assert records[0].tokens == NO_TOKENS


async def test_an_attempt_has_one_record_however_often_it_ends() -> None:
    """Clean-up code may end it again."""
    records: list[UsageRecord] = []
    usage = attempt(records)
    usage.finish(UpstreamProtocolError("cut short"), complete=False)
    usage.feed(FRAMES[0])
    usage.finish(None, complete=True)
    assert [(record.failed, record.failure) for record in records] == [(True, Failure(status=502, body="cut short"))]


async def test_a_request_that_nobody_can_read_has_a_record_too() -> None:
    """Passthrough sends what it does not understand."""
    records: list[UsageRecord] = []
    attempt(records, request_body=b"\xff{", provider_format="acme").finish(None, complete=True)
    assert (records[0].service_tier, records[0].reasoning_effort, records[0].generate) == ("auto", "", True)


def test_nothing_secret_is_printed() -> None:
    """Attempts are in tracebacks' locals."""
    hidden = {field.name for field in attrs.fields(AttemptUsage) if not field.repr}
    assert {"principal", "request_body", "response_headers"} <= hidden
