# ruff: noqa: T201  (an example shows what it does)
"""Google's client through CPA: generateContent, whole, streamed, with a function, and counted.

Run it against the demo (`cpa serve --demo`): python examples/clients/google_genai.py
CPA_URL and CPA_KEY name another proxy and a client key of it.
"""

import os

from google import genai
from google.genai import types

URL = os.environ.get("CPA_URL", "http://127.0.0.1:8317")
KEY = os.environ.get("CPA_KEY", "the-demo-needs-none")
QUESTION = "What is the weather in Paris?"


def weather(city: str) -> str:
    """The weather of a city."""
    print("calls: weather", city)
    return "sunny, 24 degrees"


def main() -> None:
    with genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=URL)) as client:
        answer = client.models.generate_content(model="demo-gemini", contents=QUESTION)
        print("whole:", answer.text)

        print("streamed:", end=" ")
        for chunk in client.models.generate_content_stream(model="demo-gemini", contents=QUESTION):
            print(chunk.text or "", end="", flush=True)
        print()

        config = types.GenerateContentConfig(tools=[weather])
        answer = client.chats.create(model="demo-gemini-tool", config=config).send_message(QUESTION)
        print("with the tool's result:", answer.text)

        count = client.models.count_tokens(model="demo-gemini", contents=QUESTION)
        print("tokens:", count.total_tokens)


if __name__ == "__main__":
    main()
