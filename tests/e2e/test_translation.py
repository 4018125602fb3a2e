"""Official SDKs on every protocol in front of providers of every other one: text, streams, tools, errors, counts."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from tests.e2e.sdk import ARGUMENTS, HELLO, SCHEMA, TEXT, TOOLS, said, with_proxy
from tests.e2e.vendor_types import assert_vendors
from tests.proxy import CLIENT_KEY, RunningProxy

T = TypeVar("T")
CLIENTS = ("chat", "responses", "claude", "gemini")
MODELS = {"chat": "gpt", "responses": "responses", "claude": "claude", "gemini": "gemini"}
"""Client protocol to the model whose provider speaks the same."""
DIRECTIONS = [(client, model) for client in CLIENTS for name, model in MODELS.items() if name != client]
NO_RETRY = 0


class Chat:
    """The openai SDK on Chat Completions."""

    def __init__(self, proxy: RunningProxy, headers: dict[str, str] | None = None) -> None:
        self.client = openai.OpenAI(
            api_key=CLIENT_KEY, base_url=f"{proxy.url}/v1", max_retries=NO_RETRY, default_headers=headers or {}
        )

    def text(self, model: str) -> tuple[str, str]:
        """Text and why it ended."""
        answer = self.client.chat.completions.create(model=model, messages=said(HELLO))
        assert answer.model == model
        assert answer.usage is not None
        assert answer.usage.total_tokens > 0
        return str(answer.choices[0].message.content), str(answer.choices[0].finish_reason)

    def stream(self, model: str) -> tuple[str, str]:
        """The same, streamed."""
        with self.client.chat.completions.stream(
            model=model, messages=said(HELLO), stream_options={"include_usage": True}
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        assert final.usage is not None
        assert final.usage.total_tokens > 0
        return str(final.choices[0].message.content), str(final.choices[0].finish_reason)

    def tools(self, model: str) -> str:
        """One round: call, result, answer."""
        tools: Any = [{"type": "function", "function": {"name": "forecast", "parameters": SCHEMA}}]
        messages = said(HELLO)
        answer = self.client.chat.completions.create(model=model, messages=messages, tools=tools, extra_headers=TOOLS)
        message = answer.choices[0].message
        assert answer.choices[0].finish_reason == "tool_calls"
        assert message.tool_calls is not None
        [call] = message.tool_calls
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("forecast", ARGUMENTS)
        messages += [
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        answer = self.client.chat.completions.create(model=model, messages=messages, tools=tools)
        return str(answer.choices[0].message.content)

    def fail(self, model: str) -> int:
        """Status of a typed error."""
        with pytest.raises(openai.RateLimitError) as caught:
            self.client.chat.completions.create(model=model, messages=said(HELLO))
        assert caught.value.type == "rate_limit_error"
        return caught.value.status_code


class Responses:
    """The openai SDK on Responses."""

    def __init__(self, proxy: RunningProxy, headers: dict[str, str] | None = None) -> None:
        self.client = Chat(proxy, headers).client

    def text(self, model: str) -> tuple[str, str]:
        """Text and status."""
        answer = self.client.responses.create(model=model, input=HELLO)
        assert answer.model == model
        assert answer.usage is not None
        assert answer.usage.total_tokens > 0
        return answer.output_text, str(answer.status)

    def stream(self, model: str) -> tuple[str, str]:
        """The same, streamed."""
        with self.client.responses.stream(model=model, input=HELLO) as stream:
            numbers = [event.sequence_number for event in stream]
            final = stream.get_final_response()
        assert numbers == list(range(len(numbers)))
        return final.output_text, str(final.status)

    def tools(self, model: str) -> str:
        """One round: call, result, answer."""
        tools: Any = [{"type": "function", "name": "forecast", "parameters": SCHEMA, "strict": False}]
        items: list[Any] = said(HELLO)
        answer = self.client.responses.create(model=model, input=items, tools=tools, extra_headers=TOOLS)
        [call] = [item for item in answer.output if item.type == "function_call"]
        assert (call.name, json.loads(call.arguments)) == ("forecast", ARGUMENTS)
        items += [item.model_dump(exclude_none=True) for item in answer.output]
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        return self.client.responses.create(model=model, input=items, tools=tools).output_text

    def fail(self, model: str) -> int:
        """Status of a typed error."""
        with pytest.raises(openai.RateLimitError) as caught:
            self.client.responses.create(model=model, input=HELLO)
        return caught.value.status_code


class Claude:
    """The anthropic SDK."""

    def __init__(self, proxy: RunningProxy, headers: dict[str, str] | None = None) -> None:
        self.client = anthropic.Anthropic(
            api_key=CLIENT_KEY, base_url=proxy.url, max_retries=NO_RETRY, default_headers=headers or {}
        )

    def text(self, model: str) -> tuple[str, str]:
        """Text and why it ended."""
        answer = self.client.messages.create(model=model, max_tokens=99, messages=said(HELLO))
        assert answer.model == model
        assert answer.usage.output_tokens > 0
        [block] = answer.content
        assert block.type == "text"
        return block.text, str(answer.stop_reason)

    def stream(self, model: str) -> tuple[str, str]:
        """The same, streamed."""
        with self.client.messages.stream(model=model, max_tokens=99, messages=said(HELLO)) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert final.usage.output_tokens > 0
        return text, str(final.stop_reason)

    def tools(self, model: str) -> str:
        """One round: call, result, answer."""
        tools: Any = [{"name": "forecast", "input_schema": SCHEMA}]
        messages = said(HELLO)
        answer = self.client.messages.create(
            model=model, max_tokens=99, messages=messages, tools=tools, extra_headers=TOOLS
        )
        assert answer.stop_reason == "tool_use"
        [call] = [block for block in answer.content if block.type == "tool_use"]
        assert (call.name, call.input) == ("forecast", ARGUMENTS)
        messages += [
            {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
        ]
        answer = self.client.messages.create(model=model, max_tokens=99, messages=messages, tools=tools)
        return "".join(block.text for block in answer.content if block.type == "text")

    def fail(self, model: str) -> int:
        """Status of a typed error."""
        with pytest.raises(anthropic.RateLimitError) as caught:
            self.client.messages.create(model=model, max_tokens=99, messages=said(HELLO))
        assert caught.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index,call-overload]
        return caught.value.status_code


class Gemini:
    """The google-genai SDK."""

    def __init__(self, proxy: RunningProxy, headers: dict[str, str] | None = None) -> None:
        options = types.HttpOptions(base_url=proxy.url, headers=headers or {})
        self.client = genai.Client(api_key=CLIENT_KEY, http_options=options)

    def text(self, model: str) -> tuple[str, str]:
        """Text and why it ended."""
        answer = self.client.models.generate_content(model=model, contents=HELLO)
        assert answer.usage_metadata is not None
        assert (answer.usage_metadata.total_token_count or 0) > 0
        return str(answer.text), str(answer.candidates[0].finish_reason.value)  # type: ignore[index,union-attr]

    def stream(self, model: str) -> tuple[str, str]:
        """The same, streamed."""
        text, reason = "", ""
        for chunk in self.client.models.generate_content_stream(model=model, contents=HELLO):
            text += chunk.text or ""
            if chunk.candidates and chunk.candidates[0].finish_reason:
                reason = str(chunk.candidates[0].finish_reason.value)
        return text, reason

    def tools(self, model: str) -> str:
        """One round: call, result, answer."""
        declaration = types.FunctionDeclaration(name="forecast", parameters_json_schema=SCHEMA)
        tools = [types.Tool(function_declarations=[declaration])]
        asked = types.Content(role="user", parts=[types.Part(text=HELLO)])
        config = types.GenerateContentConfig(tools=tools, http_options=types.HttpOptions(headers=TOOLS))
        answer = self.client.models.generate_content(model=model, contents=[asked], config=config)
        assert answer.function_calls is not None
        [call] = answer.function_calls
        assert (call.name, call.args) == ("forecast", ARGUMENTS)
        said_so = answer.candidates[0].content  # type: ignore[index]
        told = types.Part.from_function_response(name="forecast", response={"output": "sunny"})
        history = [asked, said_so, types.Content(role="user", parts=[told])]
        plain = types.GenerateContentConfig(tools=tools)
        return str(self.client.models.generate_content(model=model, contents=history, config=plain).text)  # type: ignore[arg-type]

    def fail(self, model: str) -> int:
        """Status of a typed error."""
        with pytest.raises(genai_errors.ClientError) as caught:
            self.client.models.generate_content(model=model, contents=HELLO)
        assert caught.value.status == "RESOURCE_EXHAUSTED"
        return int(caught.value.code)


def using(name: str, proxy: RunningProxy, use: Callable[[Any], T], headers: dict[str, str] | None = None) -> T:
    """What *use* makes of the SDK *name*, which leaves no connection behind. The providers were asked as their vendors'
    own SDKs would have asked."""
    sdk = SDKS[name](proxy, headers)
    try:
        made = use(sdk)
    finally:
        sdk.client.close()
    for request in proxy.mock.requests:
        assert_vendors(request.target, request.body)
    return made


SDKS: dict[str, Callable[..., Any]] = {"chat": Chat, "responses": Responses, "claude": Claude, "gemini": Gemini}
ENDS = {"chat": "stop", "responses": "completed", "claude": "end_turn", "gemini": "STOP"}


@pytest.mark.parametrize(("client", "model"), DIRECTIONS)
async def test_whole_answers(client: str, model: str) -> None:
    """Text, the reason of the end, usage, the name that the client asked for."""
    text, end = await with_proxy(lambda proxy: using(client, proxy, lambda sdk: sdk.text(model)))
    assert text.startswith(TEXT)
    assert end == ENDS[client]


@pytest.mark.parametrize(("client", "model"), DIRECTIONS)
async def test_streams(client: str, model: str) -> None:
    """Through the vendors' high-level helpers, which raise on what they do not expect."""

    streamed, whole = await with_proxy(
        lambda proxy: using(client, proxy, lambda sdk: (sdk.stream(model), sdk.text(model)))
    )
    assert streamed == whole


@pytest.mark.parametrize(("client", "model"), DIRECTIONS)
async def test_tool_rounds(client: str, model: str) -> None:
    """The call comes back with its arguments, the result goes out, the answer follows."""
    answer = await with_proxy(lambda proxy: using(client, proxy, lambda sdk: sdk.tools(model)))
    assert "sunny" in answer


@pytest.mark.parametrize(("client", "model"), DIRECTIONS)
async def test_errors_are_the_clients_own(client: str, model: str) -> None:
    """A provider's 429 raises what the vendor's SDK raises for it."""
    headers = {"X-Mock-Status": "429"}
    assert await with_proxy(lambda proxy: using(client, proxy, lambda sdk: sdk.fail(model), headers)) == 429
