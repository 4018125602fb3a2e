"""The official SDKs over three turns of calls and results, on providers that say a little of everything.

What an SDK has accumulated of a stream goes back with the results, as programs do it; whatever the provider is sent has
to be what its vendor's own SDK could have sent.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.e2e.corpus.rig import Rig, open_rig
from tests.proxy import CLIENT_KEY
from tests.translation.answers import STREAMS, sse

MODELS = {"openai": "gpt", "codex": "responses", "claude": "claude", "gemini": "gemini"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ASKED = "Hello"


def _without(value: Any, *names: str) -> Any:
    """*value* without members that only exist in the SDK."""
    if isinstance(value, dict):
        return {key: _without(inner, *names) for key, inner in value.items() if key not in names}
    return [_without(inner, *names) for inner in value] if isinstance(value, list) else value


class Chat:
    """The openai SDK on Chat Completions."""

    def __init__(self, url: str) -> None:
        self.client = openai.OpenAI(api_key=CLIENT_KEY, base_url=f"{url}/v1", max_retries=0)
        self.history: list[Any] = [{"role": "user", "content": ASKED}]
        self.tools: Any = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]

    def turn(self, model: str) -> tuple[str, int]:
        """Text and number of calls; they go into the history, with results."""
        with self.client.chat.completions.stream(
            model=model, messages=self.history, tools=self.tools, stream_options={"include_usage": True}
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        assert final.usage is not None
        assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (5, 7)
        assert final.choices[0].finish_reason == "tool_calls"
        message = final.choices[0].message
        calls = message.tool_calls or []
        assert all(isinstance(json.loads(call.function.arguments), dict) for call in calls)
        said = _without(message.model_dump(exclude_none=True), "parsed", "parsed_arguments")
        said["tool_calls"] = [_without(call, "index") for call in said["tool_calls"]]
        self.history.append(said)
        self.history += [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in calls]
        return str(message.content), len(calls)


class Responses:
    """The openai SDK on Responses."""

    def __init__(self, url: str) -> None:
        self.client = openai.OpenAI(api_key=CLIENT_KEY, base_url=f"{url}/v1", max_retries=0)
        self.history: list[Any] = [{"role": "user", "content": ASKED}]
        self.tools: Any = [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}]

    def turn(self, model: str) -> tuple[str, int]:
        """See `Chat.turn`."""
        with self.client.responses.stream(
            model=model, input=self.history, tools=self.tools, include=["reasoning.encrypted_content"], store=False
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_response()
        assert final.usage is not None
        assert (final.usage.input_tokens, final.usage.output_tokens) == (5, 7)
        calls = [item for item in final.output if item.type == "function_call"]
        assert all(isinstance(json.loads(call.arguments), dict) for call in calls)
        self.history += [
            _without(item.model_dump(exclude_none=True), "parsed", "parsed_arguments") for item in final.output
        ]
        self.history += [{"type": "function_call_output", "call_id": call.call_id, "output": "done"} for call in calls]
        return final.output_text, len(calls)


class Claude:
    """The anthropic SDK."""

    def __init__(self, url: str) -> None:
        self.client = anthropic.Anthropic(api_key=CLIENT_KEY, base_url=url, max_retries=0)
        self.history: list[Any] = [{"role": "user", "content": ASKED}]
        self.tools: Any = [{"name": "f", "input_schema": SCHEMA}]

    def turn(self, model: str) -> tuple[str, int]:
        """See `Chat.turn`."""
        with self.client.messages.stream(
            model=model, max_tokens=999, messages=self.history, tools=self.tools
        ) as stream:
            final = stream.get_final_message()
        assert final.stop_reason == "tool_use"
        assert final.usage.output_tokens == 7
        calls = [block for block in final.content if block.type == "tool_use"]
        assert all(isinstance(call.input, dict) for call in calls)
        content = [_without(block.model_dump(exclude_none=True), "parsed_output") for block in final.content]
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "done"} for call in calls]
        self.history += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
        return "".join(block.text for block in final.content if block.type == "text"), len(calls)


class Gemini:
    """The google-genai SDK."""

    def __init__(self, url: str) -> None:
        self.client = genai.Client(api_key=CLIENT_KEY, http_options=types.HttpOptions(base_url=url))
        self.history = [types.Content(role="user", parts=[types.Part(text=ASKED)])]
        declaration = types.FunctionDeclaration(name="f", parameters_json_schema=SCHEMA)
        self.config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declaration])])

    def turn(self, model: str) -> tuple[str, int]:
        """See `Chat.turn`."""
        parts: list[types.Part] = []
        contents: Any = self.history
        total = None
        for chunk in self.client.models.generate_content_stream(model=model, contents=contents, config=self.config):
            for candidate in chunk.candidates or ():
                parts += (candidate.content.parts or ()) if candidate.content else ()
            if chunk.usage_metadata is not None:
                total = chunk.usage_metadata.total_token_count
        assert total == 12
        calls = [part.function_call for part in parts if part.function_call]
        assert all(isinstance(call.args or {}, dict) for call in calls)
        results = [
            types.Part(
                function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": "done"})
            )
            for call in calls
        ]
        self.history += [types.Content(role="model", parts=parts), types.Content(role="user", parts=results)]
        return "".join(part.text or "" for part in parts if not part.thought), len(calls)


SDKS: dict[str, Callable[[str], Any]] = {"chat": Chat, "responses": Responses, "claude": Claude, "gemini": Gemini}
CALLS = {"openai": 2, "codex": 1, "claude": 1, "gemini": 2}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One proxy for all: it takes longer to start than a conversation."""
    with open_rig() as found:
        yield found


@pytest.mark.parametrize("provider", list(STREAMS))
@pytest.mark.parametrize("client", list(SDKS))
def test_three_turns(rig: Rig, client: str, provider: str) -> None:
    """All of the text, all of the calls, each turn, and a history that the vendor takes."""
    rig.provider.says(sse(provider, STREAMS[provider]))
    sdk = SDKS[client](rig.url)
    try:
        for turn in range(3):
            rig.provider.requests.clear()
            text, calls = sdk.turn(MODELS[provider])
            assert (text.partition("[")[0], calls) == ("Hello", CALLS[provider])
            request = rig.asked()
            assert request.body.count(b"done") >= turn * CALLS[provider]
    finally:
        sdk.client.close()
