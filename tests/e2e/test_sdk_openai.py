"""The official OpenAI client against the running proxy: Chat, Responses, text completions, models, and every failure.

Synchronous clients run in a thread, asynchronous ones on the test's own Trio loop. Validation is strict: a field that
the client's types do not know fails the test.
"""

from collections.abc import Callable
from typing import Any

import openai
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

CHAT_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
RESPONSES_TOOL: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}


def sync_client(proxy: RunningProxy, *, key: str = CLIENT_KEY, strict: bool = True) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{proxy.url}/v1", api_key=key, max_retries=0, timeout=15, _strict_response_validation=strict
    )


def async_client(proxy: RunningProxy, *, key: str = CLIENT_KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{proxy.url}/v1", api_key=key, max_retries=0, timeout=15, _strict_response_validation=True
    )


def assert_forwarded(proxy: RunningProxy, model: str) -> None:
    """The latest request reached the provider under its own model name and key."""
    assert b'"model":"%s"' % model.encode() in proxy.mock.requests[-1].body
    assert_key_was_exchanged(proxy, b"authorization", b"Bearer " + PROVIDER_KEY.encode())


# --- Chat ----------------------------------------------------------------------------------------------------------


async def test_chat_whole() -> None:
    """The alias becomes the provider's name, the client's key the provider's."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            answer = client.chat.completions.create(model="gpt", messages=said(HELLO))
        assert (answer.choices[0].message.content or "").startswith(TEXT)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert_forwarded(proxy, "mock-gpt")

    await with_proxy(use)


async def test_chat_streamed_and_raw() -> None:
    """Chunks come with usage; the raw response shows the proxy's own headers."""

    def use(proxy: RunningProxy) -> None:
        options: Any = {"include_usage": True}
        with sync_client(proxy) as client:
            chunks = list(
                client.chat.completions.create(model="gpt", messages=said(HELLO), stream=True, stream_options=options)
            )
            raw = client.chat.completions.with_raw_response.create(model="gpt", messages=said(HELLO))
            with client.chat.completions.with_streaming_response.create(
                model="gpt", messages=said(HELLO), stream=True
            ) as streaming:
                lines = [line for line in streaming.iter_lines() if line]
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == raw.parse().choices[0].message.content
        assert chunks[-1].usage is not None
        assert raw.headers["x-cpa-trace-id"]
        assert lines[-1] == "data: [DONE]"
        assert_forwarded(proxy, "mock-gpt")

    await with_proxy(use)


async def test_chat_tool_round() -> None:
    """The helper collects the call, and its result goes back."""

    def use(proxy: RunningProxy) -> None:
        messages = said(HELLO)
        with sync_client(proxy) as client:
            with client.chat.completions.stream(
                model="gpt", messages=messages, tools=[CHAT_TOOL], extra_headers=TOOLS
            ) as stream:
                message = stream.get_final_completion().choices[0].message
            [call] = message.tool_calls or []
            assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Paris","days":1}')
            messages.append(
                {"role": "assistant", "tool_calls": [call.model_dump(exclude={"function": {"parsed_arguments"}})]}
            )
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
            answer = client.chat.completions.create(
                model="gpt", messages=messages, tools=[CHAT_TOOL], extra_headers=TOOLS
            )
        assert "rain" in (answer.choices[0].message.content or "")

    await with_proxy(use)


@leaves_generators
async def test_chat_asynchronously() -> None:
    """Whole, streamed, by helper and with a tool round, on Trio."""
    async with proxy_for_async_client() as proxy, async_client(proxy) as client:
        messages = said(HELLO)
        whole = await client.chat.completions.create(model="gpt", messages=messages)
        stream = await client.chat.completions.create(model="gpt", messages=messages, stream=True)
        pieces = [choice.delta.content or "" async for chunk in stream for choice in chunk.choices]
        async with client.chat.completions.stream(
            model="gpt", messages=messages, tools=[CHAT_TOOL], extra_headers=TOOLS
        ) as helper:
            message = (await helper.get_final_completion()).choices[0].message
        [call] = message.tool_calls or []
        messages.append(
            {"role": "assistant", "tool_calls": [call.model_dump(exclude={"function": {"parsed_arguments"}})]}
        )
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
        answer = await client.chat.completions.create(model="gpt", messages=messages, extra_headers=TOOLS)
        assert "".join(pieces) == whole.choices[0].message.content
        assert "rain" in (answer.choices[0].message.content or "")


# --- Responses -----------------------------------------------------------------------------------------------------


async def test_responses_whole_streamed_and_by_helper() -> None:
    """All three ways give the same answer, reasoning included."""

    def use(proxy: RunningProxy) -> None:
        order: Any = {
            "model": "responses",
            "input": HELLO,
            "include": ["reasoning.encrypted_content"],
            "extra_headers": {"X-Mock-Think": "1"},
        }
        with sync_client(proxy) as client:
            whole = client.responses.create(**order)
            events = list(client.responses.create(stream=True, **order))
            with client.responses.stream(**order) as stream:
                kinds = [event.type for event in stream]
                final = stream.get_final_response()
        assert whole.output_text == final.output_text
        assert whole.output_text.startswith(TEXT)
        assert [item.type for item in final.output] == ["reasoning", "message"]
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert final.usage is not None
        assert_forwarded(proxy, "mock-responses")

    await with_proxy(use)


async def test_responses_tool_round() -> None:
    """Two calls in one turn, and both results go back."""

    def use(proxy: RunningProxy) -> None:
        headers = {**TOOLS, "X-Mock-Calls": "2"}
        with sync_client(proxy) as client:
            with client.responses.stream(
                model="responses", input=HELLO, tools=[RESPONSES_TOOL], extra_headers=headers
            ) as stream:
                calls: list[Any] = list(stream.get_final_response().output)
            assert [call.parsed_arguments for call in calls] == [ARGUMENTS, ARGUMENTS]
            history: list[Any] = said(HELLO)
            for call in calls:
                history.append(
                    {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
                )
                history.append({"type": "function_call_output", "call_id": call.call_id, "output": "rain"})
            answer = client.responses.create(
                model="responses", input=history, tools=[RESPONSES_TOOL], extra_headers=headers
            )
        assert "rain" in answer.output_text

    await with_proxy(use)


@leaves_generators
async def test_responses_asynchronously() -> None:
    """Whole, streamed and by helper, on Trio."""
    async with proxy_for_async_client() as proxy, async_client(proxy) as client:
        whole = await client.responses.create(model="responses", input=HELLO)
        stream = await client.responses.create(model="responses", input=HELLO, stream=True)
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        async with client.responses.stream(
            model="responses", input=HELLO, tools=[RESPONSES_TOOL], extra_headers=TOOLS
        ) as helper:
            final = await helper.get_final_response()
        assert "".join(deltas) == whole.output_text
        assert [item.type for item in final.output] == ["function_call"]


# --- text completions, models --------------------------------------------------------------------------------------


async def test_text_completions_are_served_by_chat() -> None:
    """The older protocol, mapped both ways, streamed and not."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy, strict=False) as client:
            whole = client.completions.create(model="gpt", prompt=HELLO)
            chunks = list(client.completions.create(model="gpt", prompt=HELLO, stream=True))
        assert whole.object == "text_completion"
        assert whole.choices[0].text.startswith(TEXT)
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert [request.target for request in proxy.mock.requests] == ["/v1/chat/completions"] * 2

    await with_proxy(use)


async def test_models_are_listed_and_retrieved() -> None:
    """All four providers' models under the names that clients use; unknown ones are a 404."""

    def use(proxy: RunningProxy) -> None:
        # Not strict: what nobody told the proxy of a model (created, owned_by) it leaves out, as the original does.
        with sync_client(proxy, strict=False) as client:
            listed = {model.id for model in client.models.list()}
            assert listed >= {"gpt", "responses", "claude", "gemini", "mock-gpt-unrenamed"}
            assert client.models.retrieve("gpt").id == "gpt"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("nobody-knows")

    await with_proxy(use)


# --- failures before the answer ------------------------------------------------------------------------------------

FAILURES: list[tuple[dict[str, str], type[openai.APIStatusError], int]] = [
    ({"X-Mock-Status": "400"}, openai.BadRequestError, 400),
    ({"X-Mock-Status": "401"}, openai.AuthenticationError, 401),
    ({"X-Mock-Status": "429", "X-Mock-Retry-After": "7"}, openai.RateLimitError, 429),
    ({"X-Mock-Status": "500"}, openai.InternalServerError, 500),
    ({"X-Mock-Status": "503"}, openai.InternalServerError, 503),
    ({"X-Mock-Fault": "close-before-headers"}, openai.InternalServerError, 502),
    ({"X-Mock-Fault": "reset-headers"}, openai.InternalServerError, 502),
]
STREAM_FAILURES: list[tuple[dict[str, str], type[openai.APIStatusError], int]] = [
    ({"X-Mock-Fault": "empty"}, openai.InternalServerError, 502),
    (with_fault("inband-error", 0), openai.InternalServerError, 502),
]


@pytest.mark.parametrize(
    ("stream", "headers", "error", "status"),
    [
        *((False, *failure) for failure in FAILURES),
        *((True, *failure) for failure in [*FAILURES, *STREAM_FAILURES]),
    ],
)
async def test_provider_failures_are_typed_errors(
    stream: bool, headers: dict[str, str], error: type[openai.APIStatusError], status: int
) -> None:
    """Chat and Responses alike get the class of the provider's status; Retry-After arrives."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            with pytest.raises(error) as chat:
                client.chat.completions.create(model="gpt", messages=said("x"), stream=stream, extra_headers=headers)
            with pytest.raises(error) as responses:
                client.responses.create(model="responses", input="x", stream=stream, extra_headers=headers)
        for raised in (chat.value, responses.value):
            assert raised.status_code == status
            assert raised.response.headers.get("retry-after") == headers.get("X-Mock-Retry-After")
            assert isinstance(raised.body, dict)
            assert raised.body["message"]

    await with_proxy(use)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_key_is_an_authentication_error(stream: bool) -> None:
    """Nothing reaches the provider."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy, key="wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                client.chat.completions.create(model="gpt", messages=said("x"), stream=stream)
            with pytest.raises(openai.AuthenticationError):
                client.responses.create(model="responses", input="x", stream=stream)
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
        assert proxy.mock.total_requests == 0

    await with_proxy(use)


async def test_an_unknown_model_is_a_bad_request() -> None:
    """Clients retry neither 400 nor 404; deployed proxies answer 400, and the error names the model."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            with pytest.raises(openai.BadRequestError, match="nobody-knows"):
                client.chat.completions.create(model="nobody-knows", messages=said("x"))
            with pytest.raises(openai.BadRequestError, match="nobody-knows"):
                client.responses.create(model="nobody-knows", input="x", stream=True)

    await with_proxy(use)


@leaves_generators
async def test_failures_are_typed_errors_asynchronously() -> None:
    """The same classes on Trio."""
    async with proxy_for_async_client() as proxy:
        async with async_client(proxy, key="wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="gpt", messages=said("x"))
        async with async_client(proxy) as client:
            with pytest.raises(openai.BadRequestError):
                await client.responses.create(model="nobody-knows", input="x")
            for headers, error, _ in FAILURES[:5]:
                with pytest.raises(error):
                    await client.chat.completions.create(
                        model="gpt", messages=said("x"), stream=True, extra_headers=headers
                    )


# --- failures inside the answer ------------------------------------------------------------------------------------


def read_chat(client: openai.OpenAI, headers: dict[str, str], seen: list[object]) -> None:
    for chunk in client.chat.completions.create(model="gpt", messages=said("x"), stream=True, extra_headers=headers):
        seen.append(chunk)


def read_chat_helper(client: openai.OpenAI, headers: dict[str, str], seen: list[object]) -> None:
    with client.chat.completions.stream(model="gpt", messages=said("x"), extra_headers=headers) as stream:
        for event in stream:
            seen.append(event)
        stream.get_final_completion()


def read_responses(client: openai.OpenAI, headers: dict[str, str], seen: list[object]) -> None:
    for event in client.responses.create(model="responses", input="x", stream=True, extra_headers=headers):
        if event.type in ("error", "response.failed"):
            raise openai.APIError(event.type, request=None, body=None)  # type: ignore[arg-type]
        seen.append(event)


def read_responses_helper(client: openai.OpenAI, headers: dict[str, str], seen: list[object]) -> None:
    with client.responses.stream(model="responses", input="x", extra_headers=headers) as stream:
        for event in stream:
            seen.append(event)
        stream.get_final_response()


def read_completions(client: openai.OpenAI, headers: dict[str, str], seen: list[object]) -> None:
    for chunk in client.completions.create(model="gpt", prompt="x", stream=True, extra_headers=headers):
        seen.append(chunk)


@pytest.mark.parametrize("fault", [*BROKEN, "inband-error"])
@pytest.mark.parametrize("read", [read_chat, read_chat_helper, read_responses, read_responses_helper, read_completions])
async def test_a_stream_that_breaks_raises(
    read: Callable[[openai.OpenAI, dict[str, str], list[object]], None], fault: str
) -> None:
    """Never silently truncated: what came before arrives, then the client raises."""
    seen: list[object] = []

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy, strict=False) as client, pytest.raises((openai.APIError, RuntimeError)):
            read(client, with_fault(fault), seen)
        assert proxy.mock.total_requests == 1

    await with_proxy(use)
    assert seen


@leaves_generators
@pytest.mark.parametrize("fault", [*BROKEN, "inband-error"])
async def test_a_stream_that_breaks_raises_asynchronously(fault: str) -> None:
    """The same on Trio, streams and helpers."""
    headers = with_fault(fault)
    async with proxy_for_async_client() as proxy, async_client(proxy) as client:
        stream = await client.chat.completions.create(
            model="gpt", messages=said("x"), stream=True, extra_headers=headers
        )
        with pytest.raises(openai.APIError):
            [chunk async for chunk in stream]
        with pytest.raises(openai.APIError):
            async with client.chat.completions.stream(model="gpt", messages=said("x"), extra_headers=headers) as helper:
                await helper.get_final_completion()


@pytest.mark.parametrize("fault", RECUT)
async def test_recut_streams_read_the_same(fault: str) -> None:
    """How a provider cuts its bytes is nothing that a client could notice."""

    def use(proxy: RunningProxy) -> None:
        with sync_client(proxy) as client:
            whole = client.chat.completions.create(model="gpt", messages=said("x"))
            chunks = client.chat.completions.create(
                model="gpt", messages=said("x"), stream=True, extra_headers={"X-Mock-Fault": fault}
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            with client.responses.stream(model="responses", input="x", extra_headers={"X-Mock-Fault": fault}) as stream:
                answer = stream.get_final_response().output_text
        assert text == answer == whole.choices[0].message.content

    await with_proxy(use)
