"""Answers that fail after their beginning, as Responses clients hear of it: ``response.failed`` (translation 4.9a)."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.corpus.answers import BEGUN
from tests.e2e.corpus.rig import Rig, frames, open_rig, plain
from tests.proxy import CLIENT_KEY

PROVIDERS = ("gpt", "claude", "gemini")
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One proxy."""
    with open_rig() as found:
        yield found


def assert_failed(found: list[dict[str, Any]], *, code: str = "server_error") -> dict[str, Any]:
    """The stream tells at its end what it was, and that it was not all."""
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    first, last = found[0], found[-1]
    assert (first["type"], last["type"]) == ("response.created", "response.failed")
    response: dict[str, Any] = last["response"]
    assert (response["id"], response["model"]) == (first["response"]["id"], first["response"]["model"])
    assert (response["status"], response["error"]["code"]) == ("failed", code)
    assert response["error"]["message"]
    [item] = response["output"]
    assert (item["type"], item["status"], item["content"][0]["text"]) == ("message", "incomplete", "Hel")
    # Nothing that was open looks as if it were complete.
    assert not [event for event in found if event["type"].endswith(".done") or event["type"] == "response.completed"]
    return response


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("broken", [False, True], ids=["ended", "cut"])
def test_streams_that_end_too_early(rig: Rig, model: str, broken: bool) -> None:
    """Cleanly or not."""
    rig.provider.says(BEGUN[model], broken=broken)
    answer = rig.ask("responses", model, plain("responses"), stream=True)
    assert answer.status_code == 200
    assert_failed(frames(answer.text))
    event, data = answer.text.strip().rpartition("\n\n")[2].split("\n")
    assert event == "event: response.failed"
    assert data.startswith('data: {"type":"response.failed"')


def test_errors_that_the_provider_tells(rig: Rig) -> None:
    """With their code, in the vendor's words, and their text."""
    rig.provider.says(BEGUN["claude"], OVERLOADED)
    response = assert_failed(frames(rig.ask("responses", "claude", plain("responses"), stream=True).text))
    assert response["error"]["message"] == "busy"


@pytest.mark.parametrize("agent", ["codex_cli_rs/0.50.0", "OpenAI/Python 2.0"])
def test_codex_gets_the_same(rig: Rig, agent: str) -> None:
    """It acts on nothing else; there is no reason to tell others less."""
    rig.provider.says(BEGUN["gpt"])
    body = {"model": "gpt", "input": "hi", "stream": True}
    answer = rig.http.post("/v1/responses", json=body, headers={"user-agent": agent})
    assert_failed(frames(answer.text))


def test_before_anything_was_said_there_is_a_status(rig: Rig) -> None:
    """Beginnings are held back."""
    rig.provider.says(OVERLOADED)
    answer = rig.ask("responses", "claude", plain("responses"), stream=True)
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "busy")


def test_the_vendors_client_knows_what_it_has(rig: Rig) -> None:
    """The accumulator reads the failed answer; nobody gets it for a whole one."""
    rig.provider.says(BEGUN["claude"], broken=True)
    client = openai.OpenAI(api_key=CLIENT_KEY, base_url=f"{rig.url}/v1", max_retries=0)
    with client, client.responses.stream(model="claude", input="hi") as stream:
        events = list(stream)
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            stream.get_final_response()
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.output_text == "Hel"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
