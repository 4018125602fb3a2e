# ruff: noqa: T201  (an example shows what it does)
"""OpenAI's client through CPA: Responses, whole, streamed, and with a tool.

Run it against the demo (`cpa serve --demo`): python examples/clients/openai_responses.py
CPA_URL and CPA_KEY name another proxy and a client key of it.
"""

import os

from openai import OpenAI

URL = os.environ.get("CPA_URL", "http://127.0.0.1:8317")
KEY = os.environ.get("CPA_KEY", "the-demo-needs-none")
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def main() -> None:
    history = [{"role": "user", "content": "What is the weather in Paris?"}]
    with OpenAI(base_url=f"{URL}/v1", api_key=KEY) as client:
        answer = client.responses.create(model="demo-responses", input=history)
        print("whole:", answer.output_text)

        print("streamed:", end=" ")
        with client.responses.stream(model="demo-responses", input=history) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    print(event.delta, end="", flush=True)
        print()

        asked = client.responses.create(model="demo-responses-tool", input=history, tools=[WEATHER])
        for item in asked.output:
            history.append(item.model_dump(exclude_none=True))
            if item.type == "function_call":
                print("calls:", item.name, item.arguments)
                result = {"type": "function_call_output", "call_id": item.call_id, "output": "sunny, 24 degrees"}
                history.append(result)
        answer = client.responses.create(model="demo-responses-tool", input=history, tools=[WEATHER])
        print("with the tool's result:", answer.output_text)


if __name__ == "__main__":
    main()
