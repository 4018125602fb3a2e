# ruff: noqa: T201  (an example shows what it does)
"""OpenAI's client through CPA: Chat Completions, whole, streamed, and with a tool.

Run it against the demo (`cpa serve --demo`): python examples/clients/openai_chat.py
CPA_URL and CPA_KEY name another proxy and a client key of it.
"""

import os

from openai import OpenAI

URL = os.environ.get("CPA_URL", "http://127.0.0.1:8317")
KEY = os.environ.get("CPA_KEY", "the-demo-needs-none")
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def main() -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    with OpenAI(base_url=f"{URL}/v1", api_key=KEY) as client:
        answer = client.chat.completions.create(model="demo-gpt", messages=messages)
        print("whole:", answer.choices[0].message.content)

        print("streamed:", end=" ")
        for chunk in client.chat.completions.create(model="demo-gpt", messages=messages, stream=True):
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
        print()

        asked = client.chat.completions.create(model="demo-gpt-tool", messages=messages, tools=[WEATHER])
        message = asked.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls or []:
            print("calls:", call.function.name, call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny, 24 degrees"})
        answer = client.chat.completions.create(model="demo-gpt-tool", messages=messages, tools=[WEATHER])
        print("with the tool's result:", answer.choices[0].message.content)


if __name__ == "__main__":
    main()
