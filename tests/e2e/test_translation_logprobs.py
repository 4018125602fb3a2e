"""Log probabilities through the proxy, as the vendors' clients ask for them and read them."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from google import genai
from google.genai import types

from cpa.formats.names import Format
from tests.e2e.corpus.rig import Rig, open_rig
from tests.proxy import CLIENT_KEY
from tests.translation.test_logprobs import EXPECTED, PIECES, google_tokens, plainly, provider_answer, provider_stream

SPEAKS = {"gpt": Format.OPENAI, "gemini": Format.GEMINI}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One proxy."""
    with open_rig() as found:
        yield found


@pytest.fixture(scope="module")
def client(rig: Rig) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai.OpenAI(api_key=CLIENT_KEY, base_url=f"{rig.url}/v1", max_retries=0) as found:
        yield found


def says(rig: Rig, model: str, *, stream: bool) -> None:
    rig.provider.requests.clear()
    if stream:
        rig.provider.says(provider_stream(SPEAKS[model]))
    else:
        rig.provider.says(provider_answer(SPEAKS[model]), content_type="application/json")


def asked(rig: Rig, model: str) -> Any:
    """What the provider was asked for."""
    body = rig.asked().json
    if model == "gpt":
        return body["logprobs"], body["top_logprobs"]
    return body["generationConfig"]["responseLogprobs"], body["generationConfig"]["logprobs"]


def test_chat(rig: Rig, client: openai.OpenAI) -> None:
    """In front of Gemini: whole, and by the accumulator of streams."""
    model = "gemini"
    ask: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "hi"}],
        "logprobs": True,
        "top_logprobs": 2,
    }
    says(rig, model, stream=False)
    choice = client.chat.completions.create(**ask).choices[0]
    assert choice.logprobs is not None
    assert plainly(choice.logprobs.content) == EXPECTED
    assert asked(rig, model) == (True, 2)
    says(rig, model, stream=True)
    with client.chat.completions.stream(**ask) as stream:
        kinds = [event.type for event in stream]
        choice = stream.get_final_completion().choices[0]
    assert kinds.count("logprobs.content.delta") == len(PIECES)
    assert choice.logprobs is not None
    assert plainly(choice.logprobs.content) == EXPECTED


@pytest.mark.parametrize("model", SPEAKS)
def test_responses(rig: Rig, client: openai.OpenAI, model: str) -> None:
    """Likewise."""
    ask: dict[str, Any] = {
        "model": model,
        "input": "hi",
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    says(rig, model, stream=False)
    message: Any = client.responses.create(**ask).output[0]
    assert plainly(message.content[0].logprobs) == EXPECTED
    assert asked(rig, model) == (True, 2)
    says(rig, model, stream=True)
    with client.responses.stream(**ask) as stream:
        deltas = [event for event in stream if event.type == "response.output_text.delta"]
        message = stream.get_final_response().output[0]
    assert [len(event.logprobs) for event in deltas] == [1, 1, 1]
    assert plainly(message.content[0].logprobs) == EXPECTED


def test_gemini(rig: Rig) -> None:
    """Google's client in front of Chat."""
    config = types.GenerateContentConfig(response_logprobs=True, logprobs=2)
    with genai.Client(api_key=CLIENT_KEY, http_options=types.HttpOptions(base_url=rig.url)) as client:
        says(rig, "gpt", stream=False)
        answer = client.models.generate_content(model="gpt", contents="hi", config=config)
        assert google_tokens(answer) == EXPECTED
        assert asked(rig, "gpt") == (True, 2)
        says(rig, "gpt", stream=True)
        frames = list(client.models.generate_content_stream(model="gpt", contents="hi", config=config))
    assert [one for frame in frames for one in google_tokens(frame)] == EXPECTED
