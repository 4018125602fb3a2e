"""The official Anthropic client against the running proxy: Messages, token counts, models, and every failure.

Synchronous clients run in a thread, asynchronous ones on the test's own Trio loop, all with strict validation.
"""

from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from tests.e2e.sdk import (
    ARGUMENTS,
    BROKEN,
    HELLO,
    RECUT,
    SCHEMA,
    TEXT,
    TOOLS,
    assert_key_was_exchanged,
    leaves_generators,
    proxy_for_async_client,
    said,
    with_fault,
    with_proxy,
)
from tests.proxy import CLIENT_KEY, PROVIDER_KEY, RunningProxy

TOOL: Any = {"name": "weather", "description": "The weather.", "input_schema": SCHEMA}
THINK = {"X-Mock-Think": "1"}
Read = Callable[[anthropic.Anthropic, dict[str, str], list[object]], None]


def sync_client(proxy: RunningProxy, *, key: str = CLIENT_KEY) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=proxy.url, api_key=key, max_retries=0, timeout=15, _strict_response_validation=True
    )


def async_client(proxy: RunningProxy, *, key: str = CLIENT_KEY) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=proxy.url, api_key=key, max_retries=0, timeout=15, _strict_response_validation=True
    )


def order(text: str = "x", **more: object) -> Any:
    return {"model": "claude", "max_tokens": 99, "messages": said(text), **more}


async def test_messages_whole_streamed_and_by_helper() -> None:
    """All three ways give the same answer, thinking included; the alias becomes the provider's name."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            whole = client.messages.create(**order(HELLO, extra_headers=THINK))
            events = list(client.messages.create(**order(HELLO, extra_headers=THINK), stream=True))
            with client.messages.stream(**order(HELLO, extra_headers=THINK)) as stream:
                text = "".join(stream.text_stream)
                final = stream.get_final_message()
            raw = client.messages.with_raw_response.create(**order(HELLO))
        assert [block.type for block in whole.content] == ["thinking", "text"]
        expected = [block.model_dump() for block in whole.content]
        assert [block.model_dump(exclude={"parsed_output"}) for block in final.content] == expected
        assert text == expected[1]["text"]
        assert text.startswith(TEXT)
        assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", whole.usage.output_tokens)
        assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
        assert raw.headers["x-cpa-trace-id"]
        assert b'"model":"mock-claude"' in proxy.mock.requests[-1].body
        assert_key_was_exchanged(proxy, b"authorization", b"Bearer " + PROVIDER_KEY.encode())

    await with_proxy(use)


@pytest.mark.parametrize("name", ["x-api-key", "Authorization"])
async def test_the_key_may_be_in_either_header(name: str) -> None:
    """Older clients send x-api-key, newer ones a bearer token: both are this client's own places."""

    def use(proxy: RunningProxy) -> None:
        value = CLIENT_KEY if name == "x-api-key" else f"Bearer {CLIENT_KEY}"
        with anthropic.Anthropic(
            base_url=proxy.url,
            api_key=None,
            auth_token="none" if name == "x-api-key" else None,
            default_headers={name: value},
            max_retries=0,
            timeout=15,
        ) as client:
            assert client.messages.create(**order()).stop_reason == "end_turn"
        assert_key_was_exchanged(proxy, b"authorization", b"Bearer " + PROVIDER_KEY.encode())

    await with_proxy(use)


async def test_tool_round() -> None:
    """The helper collects the call, and its result goes back with the thinking before it."""

    def use(proxy: RunningProxy) -> None:
        headers = {**TOOLS, **THINK}
        wanted = order(HELLO, tools=[TOOL], extra_headers=headers)
        with sync_client(proxy) as client:
            with client.messages.stream(**wanted) as stream:
                message = stream.get_final_message()
            call: Any = message.content[-1]
            assert (message.stop_reason, call.name, call.input) == ("tool_use", "weather", ARGUMENTS)
            wanted["messages"].append(message.to_param())
            result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
            wanted["messages"].append({"role": "user", "content": [result]})
            answer: Any = client.messages.create(**wanted)
        assert "rain" in answer.content[-1].text

    await with_proxy(use)


async def test_tokens_are_counted_by_the_provider() -> None:
    """count_tokens reaches the provider's own endpoint under the provider's name of the model."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            count = client.messages.count_tokens(model="claude", messages=said(HELLO))
        assert count.input_tokens > 0
        [request] = proxy.mock.requests
        assert request.target == "/v1/messages/count_tokens"
        assert b'"model":"mock-claude"' in request.body

    await with_proxy(use)


async def test_models_are_listed_and_retrieved() -> None:
    """In Anthropic's shape, under the names that clients use."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            assert {model.id for model in client.models.list()} >= {"gpt", "responses", "claude", "gemini"}
            assert client.models.retrieve("claude").display_name == "claude"
            with pytest.raises(anthropic.NotFoundError):
                client.models.retrieve("nobody-knows")

    await with_proxy(use)


@leaves_generators
async def test_messages_asynchronously() -> None:
    """Whole, streamed, by helper, with a tool round and a count, on Trio."""
    async with proxy_for_async_client() as proxy, async_client(proxy) as client:
        whole: Any = await client.messages.create(**order(HELLO))
        stream = await client.messages.create(**order(HELLO), stream=True)
        kinds = [event.type async for event in stream]
        wanted = order(HELLO, tools=[TOOL], extra_headers=TOOLS)
        async with client.messages.stream(**wanted) as helper:
            message = await helper.get_final_message()
        call: Any = message.content[-1]
        wanted["messages"].append(message.to_param())
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        wanted["messages"].append({"role": "user", "content": [result]})
        answer: Any = await client.messages.create(**wanted)
        count = await client.messages.count_tokens(model="claude", messages=said(HELLO))
        listed = [model.id async for model in client.models.list()]
        assert whole.content[0].text.startswith(TEXT)
        assert kinds[-1] == "message_stop"
        assert call.input == ARGUMENTS
        assert "rain" in answer.content[-1].text
        assert count.input_tokens > 0
        assert "claude" in listed


# --- failures before the answer ------------------------------------------------------------------------------------

FAILURES: list[tuple[dict[str, str], type[anthropic.APIStatusError], int]] = [
    ({"X-Mock-Status": "400"}, anthropic.BadRequestError, 400),
    ({"X-Mock-Status": "401"}, anthropic.AuthenticationError, 401),
    ({"X-Mock-Status": "429", "X-Mock-Retry-After": "7"}, anthropic.RateLimitError, 429),
    ({"X-Mock-Status": "500"}, anthropic.InternalServerError, 500),
    ({"X-Mock-Status": "529"}, anthropic.APIStatusError, 529),
    ({"X-Mock-Fault": "close-before-headers"}, anthropic.InternalServerError, 502),
    ({"X-Mock-Fault": "reset-headers"}, anthropic.InternalServerError, 502),
]
STREAM_FAILURES: list[tuple[dict[str, str], type[anthropic.APIStatusError], int]] = [
    ({"X-Mock-Fault": "empty"}, anthropic.InternalServerError, 502),
    (with_fault("inband-error", 0), anthropic.InternalServerError, 502),
]


@pytest.mark.parametrize(
    ("stream", "headers", "error", "status"),
    [
        *((False, *failure) for failure in FAILURES),
        *((True, *failure) for failure in [*FAILURES, *STREAM_FAILURES]),
    ],
)
async def test_provider_failures_are_typed_errors(
    stream: bool, headers: dict[str, str], error: type[anthropic.APIStatusError], status: int
) -> None:
    """The class of the provider's status, with Anthropic's error body; Retry-After arrives."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client, pytest.raises(error) as raised:
            client.messages.create(**order(extra_headers=headers), stream=stream)
        assert raised.value.status_code == status
        assert raised.value.response.headers.get("retry-after") == headers.get("X-Mock-Retry-After")
        body: Any = raised.value.body
        assert body["type"] == "error"
        assert body["error"]["message"]

    await with_proxy(use)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_key_is_an_authentication_error(stream: bool) -> None:
    """Nothing reaches the provider."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy, key="wrong") as client:
            with pytest.raises(anthropic.AuthenticationError):
                client.messages.create(**order(), stream=stream)
            with pytest.raises(anthropic.AuthenticationError):
                client.messages.count_tokens(model="claude", messages=said("x"))
            with pytest.raises(anthropic.AuthenticationError):
                client.models.list()
        assert proxy.mock.total_requests == 0

    await with_proxy(use)


async def test_an_unknown_model_is_a_bad_request() -> None:
    """In Anthropic's shape, and the error names the model."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            with pytest.raises(anthropic.BadRequestError, match="nobody-knows"):
                client.messages.create(**{**order(), "model": "nobody-knows"})
            with pytest.raises(anthropic.BadRequestError, match="nobody-knows"):
                client.messages.count_tokens(model="nobody-knows", messages=said("x"))

    await with_proxy(use)


@leaves_generators
async def test_failures_are_typed_errors_asynchronously() -> None:
    """The same classes on Trio."""
    async with proxy_for_async_client() as proxy:
        async with async_client(proxy, key="wrong") as client:
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.create(**order())
        async with async_client(proxy) as client:
            for headers, error, _ in FAILURES[:5]:
                with pytest.raises(error):
                    await client.messages.create(**order(extra_headers=headers), stream=True)


# --- failures inside the answer ------------------------------------------------------------------------------------


def read_events(client: anthropic.Anthropic, headers: dict[str, str], seen: list[object]) -> None:
    for event in client.messages.create(**order(extra_headers=headers), stream=True):
        seen.append(event)


def read_helper(client: anthropic.Anthropic, headers: dict[str, str], seen: list[object]) -> None:
    with client.messages.stream(**order(extra_headers=headers)) as stream:
        for event in stream:
            seen.append(event)
        stream.get_final_message()


def read_text(client: anthropic.Anthropic, headers: dict[str, str], seen: list[object]) -> None:
    with client.messages.stream(**order(extra_headers=headers)) as stream:
        for text in stream.text_stream:
            seen.append(text)


def read_tool_runner(client: anthropic.Anthropic, headers: dict[str, str], seen: list[object]) -> None:
    @anthropic.beta_tool
    def weather(city: str, days: int) -> str:
        """The weather.

        Args:
            city: where.
            days: how many.
        """
        return f"{days} days of rain in {city}"

    runner = client.beta.messages.tool_runner(
        model="claude", max_tokens=99, messages=said("x"), tools=[weather], stream=True, extra_headers=headers
    )
    for stream in runner:
        for event in stream:
            seen.append(event)


@pytest.mark.parametrize("fault", [*BROKEN, "inband-error"])
@pytest.mark.parametrize("read", [read_events, read_helper, read_text, read_tool_runner])
async def test_a_stream_that_breaks_raises(read: Read, fault: str) -> None:
    """Never silently truncated: what came before arrives, then the client raises."""
    seen: list[object] = []

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client, pytest.raises(anthropic.APIError):
            read(client, with_fault(fault), seen)
        assert proxy.mock.total_requests == 1

    await with_proxy(use)
    assert seen


@leaves_generators
@pytest.mark.parametrize("fault", [*BROKEN, "inband-error"])
async def test_a_stream_that_breaks_raises_asynchronously(fault: str) -> None:
    """The same on Trio, streams and helper."""
    headers = with_fault(fault)
    async with proxy_for_async_client() as proxy, async_client(proxy) as client:
        stream = await client.messages.create(**order(extra_headers=headers), stream=True)
        with pytest.raises(anthropic.APIError):
            [event async for event in stream]
        with pytest.raises(anthropic.APIError):
            async with client.messages.stream(**order(extra_headers=headers)) as helper:
                await helper.get_final_message()


@pytest.mark.parametrize("fault", RECUT)
async def test_recut_streams_read_the_same(fault: str) -> None:
    """How a provider cuts its bytes is nothing that a client could notice."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            whole: Any = client.messages.create(**order())
            with client.messages.stream(**order(extra_headers={"X-Mock-Fault": fault})) as stream:
                text = stream.get_final_text()
        assert text == whole.content[0].text

    await with_proxy(use)
