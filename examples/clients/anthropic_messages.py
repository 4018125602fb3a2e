# ruff: noqa: T201  (an example shows what it does)
"""Anthropic's client through CPA: Messages, whole, streamed, with a tool, and counted.

Run it against the demo (`cpa serve --demo`): python examples/clients/anthropic_messages.py
CPA_URL and CPA_KEY name another proxy and a client key of it.
"""

import os

from anthropic import Anthropic

URL = os.environ.get("CPA_URL", "http://127.0.0.1:8317")
KEY = os.environ.get("CPA_KEY", "the-demo-needs-none")
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def text_of(message) -> str:  # noqa: ANN001  # an example shows the client's names, not its types
    return "".join(block.text for block in message.content if block.type == "text")


def main() -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    with Anthropic(base_url=URL, api_key=KEY) as client:
        answer = client.messages.create(model="demo-claude", max_tokens=256, messages=messages)
        print("whole:", text_of(answer))

        print("streamed:", end=" ")
        with client.messages.stream(model="demo-claude", max_tokens=256, messages=messages) as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
        print()

        asked = client.messages.create(model="demo-claude-tool", max_tokens=256, messages=messages, tools=[WEATHER])
        messages.append({"role": "assistant", "content": [block.model_dump() for block in asked.content]})
        results = []
        for block in asked.content:
            if block.type == "tool_use":
                print("calls:", block.name, block.input)
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": "sunny, 24 degrees"})
        messages.append({"role": "user", "content": results})
        answer = client.messages.create(model="demo-claude-tool", max_tokens=256, messages=messages, tools=[WEATHER])
        print("with the tool's result:", text_of(answer))

        count = client.messages.count_tokens(model="demo-claude", messages=messages)
        print("tokens:", count.input_tokens)


if __name__ == "__main__":
    main()
