"""The vendors' own clients accept every answer: OpenAI and Anthropic with strict response validation.

The clients are synchronous and run in a thread; the mock runs on the test's loop.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import anthropic
import openai
import pytest
import trio
from google import genai
from google.genai import types

from cpa.testing.mock import MockProvider, open_mock

T = TypeVar("T")
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
ARGUMENTS = {"city": "Paris", "days": 1}
HELLO = "Hello, Wörld"


async def with_mock(use: Callable[[MockProvider], T]) -> T:
    """Run the blocking *use* against a mock provider."""
    async with open_mock() as mock:
        with trio.fail_after(20):
            return await trio.to_thread.run_sync(use, mock)


def openai_client(mock: MockProvider, *, strict: bool = True) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{mock.url}/v1", api_key="k", max_retries=0, timeout=10, _strict_response_validation=strict
    )


def anthropic_client(mock: MockProvider) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=mock.url, api_key="k", max_retries=0, timeout=10, _strict_response_validation=True
    )


def google_client(mock: MockProvider) -> genai.Client:
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=mock.url, timeout=10_000))


# --- OpenAI Chat ---------------------------------------------------------------------------------------------------

CHAT_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


async def test_openai_chat_whole() -> None:
    def use(mock: MockProvider) -> None:
        with openai_client(mock) as client:
            answer = client.chat.completions.create(model="mock", messages=[{"role": "user", "content": HELLO}])
        assert (answer.choices[0].message.content or "").startswith("Mock answer to 12 characters")
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    await with_mock(use)


async def test_openai_chat_streamed() -> None:
    def use(mock: MockProvider) -> None:
        with openai_client(mock) as client:
            chunks = list(
                client.chat.completions.create(
                    model="mock-think",
                    messages=[{"role": "user", "content": HELLO}],
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text.endswith("all is well 🙂")
        assert chunks[-1].usage is not None
        assert len({chunk.id for chunk in chunks}) == 1

    await with_mock(use)


async def test_openai_chat_tool_round() -> None:
    def use(mock: MockProvider) -> None:
        messages: list[Any] = [{"role": "user", "content": HELLO}]
        with openai_client(mock) as client:
            with client.chat.completions.stream(model="mock-tool-think", messages=messages, tools=[CHAT_TOOL]) as got:
                message = got.get_final_completion().choices[0].message
            [call] = message.tool_calls or []
            assert (call.function.name, call.function.parsed_arguments or ARGUMENTS) == ("weather", ARGUMENTS)
            messages.append(
                {"role": "assistant", "tool_calls": [call.model_dump(exclude={"function": {"parsed_arguments"}})]}
            )
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
            answer = client.chat.completions.create(model="mock-tool-think", messages=messages, tools=[CHAT_TOOL])
        assert "rain" in (answer.choices[0].message.content or "")

    await with_mock(use)


async def test_openai_completions_and_embeddings() -> None:
    def use(mock: MockProvider) -> None:
        with openai_client(mock) as client:
            assert client.completions.create(model="mock", prompt="x").choices[0].text.startswith("Mock answer")
            assert "mock-tool" in [model.id for model in client.models.list()]
            assert client.models.retrieve("whatever").id == "whatever"
            floats = client.embeddings.create(model="m", input=["a", "b"], encoding_format="float", dimensions=3)
        # Strict validation refuses what the client itself asks for (base64), and the null of the vendor's own stream.
        with openai_client(mock, strict=False) as client:
            pieces = list(client.completions.create(model="mock", prompt="x", stream=True))
            assert pieces[-1].choices[0].finish_reason == "stop"
            packed = client.embeddings.create(model="m", input=["a", "b"], dimensions=3)
        assert [len(entry.embedding) for entry in floats.data] == [3, 3]
        assert [entry.index for entry in packed.data] == [0, 1]
        assert len(packed.data[0].embedding) == 3

    await with_mock(use)


# --- OpenAI Responses ----------------------------------------------------------------------------------------------

RESPONSES_TOOL: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}


async def test_openai_responses_whole_and_streamed() -> None:
    def use(mock: MockProvider) -> None:
        with openai_client(mock) as client:
            whole = client.responses.create(model="mock-think", input=HELLO, include=["reasoning.encrypted_content"])
            with client.responses.stream(
                model="mock-think", input=HELLO, include=["reasoning.encrypted_content"]
            ) as stream:
                kinds = [event.type for event in stream]
                final = stream.get_final_response()
        assert whole.output_text == final.output_text
        assert whole.output_text.startswith("Mock answer to 12 characters")
        assert [item.model_dump() for item in whole.output] == [
            item.model_dump(exclude={"content": {0: {"parsed"}}}) for item in final.output
        ]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"

    await with_mock(use)


async def test_openai_responses_tool_round_and_compaction() -> None:
    def use(mock: MockProvider) -> None:
        with openai_client(mock) as client:
            with client.responses.stream(model="mock-tool-calls-2", input=HELLO, tools=[RESPONSES_TOOL]) as stream:
                list(stream)
                calls: list[Any] = list(stream.get_final_response().output)
            assert [call.parsed_arguments for call in calls] == [ARGUMENTS, ARGUMENTS]
            assert len({call.call_id for call in calls}) == 2
            history: list[Any] = [{"role": "user", "content": HELLO}]
            for call in calls:
                history.append(
                    {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
                )
            for call in calls:
                history.append({"type": "function_call_output", "call_id": call.call_id, "output": "rain"})
            answer = client.responses.create(model="mock-tool-calls-2", input=history, tools=[RESPONSES_TOOL])
            compact = client.responses.compact(model="mock", input=HELLO)
        assert "rain\nrain" in answer.output_text
        assert compact.output[0].type == "compaction"

    await with_mock(use)


# --- Anthropic -----------------------------------------------------------------------------------------------------

CLAUDE_TOOL: Any = {"name": "weather", "input_schema": SCHEMA}


async def test_anthropic_whole_and_streamed() -> None:
    def use(mock: MockProvider) -> None:
        messages: list[Any] = [{"role": "user", "content": HELLO}]
        with anthropic_client(mock) as client:
            whole = client.messages.create(model="mock-think", max_tokens=99, messages=messages)
            with client.messages.stream(model="mock-think", max_tokens=99, messages=messages) as stream:
                text = "".join(stream.text_stream)
                final = stream.get_final_message()
            count = client.messages.count_tokens(model="mock-think", messages=messages)
            assert client.models.list().data[0].id == "mock"
            beta = client.beta.messages.create(model="mock", max_tokens=99, messages=messages)
        assert [block.type for block in whole.content] == ["thinking", "text"]
        expected = [block.model_dump() for block in whole.content]
        assert [block.model_dump(exclude={"parsed_output"}) for block in final.content] == expected
        assert text == expected[1]["text"]
        assert final.stop_reason == "end_turn"
        assert count.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
        assert whole.usage.output_tokens == final.usage.output_tokens
        assert beta.content[0].type == "text"

    await with_mock(use)


async def test_anthropic_tool_round() -> None:
    def use(mock: MockProvider) -> None:
        messages: list[Any] = [{"role": "user", "content": HELLO}]
        order: Any = {"model": "mock-tool-think", "max_tokens": 99, "messages": messages, "tools": [CLAUDE_TOOL]}
        with anthropic_client(mock) as client:
            with client.messages.stream(**order) as stream:
                message = stream.get_final_message()
            call: Any = message.content[-1]
            assert (message.stop_reason, call.name, call.input) == ("tool_use", "weather", ARGUMENTS)
            messages.append(message.to_param())
            result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
            messages.append({"role": "user", "content": [result]})
            answer: Any = client.messages.create(**order)
        assert "rain" in answer.content[-1].text

    await with_mock(use)


# --- Google --------------------------------------------------------------------------------------------------------


async def test_google_whole_and_streamed() -> None:
    def use(mock: MockProvider) -> None:
        with google_client(mock) as client:
            whole = client.models.generate_content(model="mock-think", contents=HELLO)
            chunks = list(client.models.generate_content_stream(model="mock-think", contents=HELLO))
            count = client.models.count_tokens(model="mock-think", contents=HELLO)
            embedded = client.models.embed_content(model="mock", contents=HELLO)
            names = [model.name for model in client.models.list()]
        assert whole.text == "".join(chunk.text or "" for chunk in chunks)
        assert (whole.text or "").startswith("Mock answer to 12 characters")
        assert chunks[-1].candidates is not None
        assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP
        assert whole.usage_metadata is not None
        assert count.total_tokens == whole.usage_metadata.prompt_token_count
        assert embedded.embeddings
        assert "models/mock" in names

    await with_mock(use)


async def test_google_tool_round() -> None:
    called = []

    def weather(city: str, days: int) -> str:
        """The weather."""
        called.append((city, days))
        return f"rain in {city}"

    def use(mock: MockProvider) -> None:
        config = types.GenerateContentConfig(tools=[weather])
        with google_client(mock) as client:
            answer = client.models.generate_content(model="mock-tool-think", contents=HELLO, config=config)
        assert called == [("Paris", 1)]
        assert "rain in Paris" in (answer.text or "")
        assert mock.total_requests == 2
        assert b"thoughtSignature" in mock.requests[-1].body

    await with_mock(use)


# --- faults as the clients see them --------------------------------------------------------------------------------


def openai_events(client: openai.OpenAI, model: str) -> Iterator[Any]:
    yield from client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], stream=True)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("mock-status-429-retry-after-1", openai.RateLimitError),
        ("mock-status-503", openai.InternalServerError),
        ("mock-fault-close-before-headers", openai.APIConnectionError),
        ("mock-fault-reset-headers", openai.APIConnectionError),
        ("mock-fault-inband-error", openai.APIError),
    ],
)
async def test_openai_reports_the_fault(model: str, error: type[Exception]) -> None:
    def use(mock: MockProvider) -> None:
        with openai_client(mock) as client, pytest.raises(error):
            list(openai_events(client, model))
        assert mock.total_requests == 1

    await with_mock(use)


@pytest.mark.parametrize("fault", ["crlf", "split-utf8", "split-frames", "merge-frames"])
async def test_recut_streams_do_not_disturb_clients(fault: str) -> None:
    def use(mock: MockProvider) -> None:
        model = f"mock-fault-{fault}"
        with openai_client(mock) as client:
            chunks = list(openai_events(client, model))
        with anthropic_client(mock) as claude:
            messages: list[Any] = [{"role": "user", "content": "x"}]
            with claude.messages.stream(model=model, max_tokens=9, messages=messages) as stream:
                text = stream.get_final_text()
        with google_client(mock) as google:
            parts = [chunk.text or "" for chunk in google.models.generate_content_stream(model=model, contents="x")]
        assert text == "".join(parts) == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text.endswith("🙂")

    await with_mock(use)


async def test_anthropic_reports_an_inband_error() -> None:
    def use(mock: MockProvider) -> None:
        messages: list[Any] = [{"role": "user", "content": "x"}]
        with (
            anthropic_client(mock) as client,
            client.messages.stream(model="mock-fault-inband-error", max_tokens=9, messages=messages) as stream,
            pytest.raises(anthropic.APIStatusError, match="mock in-band error"),
        ):
            stream.get_final_message()

    await with_mock(use)


async def test_google_reports_an_inband_error() -> None:
    def use(mock: MockProvider) -> None:
        with google_client(mock) as client, pytest.raises(genai.errors.ServerError, match="mock in-band error"):
            list(client.models.generate_content_stream(model="mock-fault-inband-error", contents="x"))

    await with_mock(use)
