"""Streams as one JSON array, which Gemini clients get that do not ask for events, where the operator wants it so."""

import json
from typing import Any

import attrs
import httpx
import pytest
import trio
from google import genai
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.schema import StreamingConfig
from cpa.errors import UpstreamProtocolError
from cpa.formats.names import Format
from cpa.server.routes_gemini import ArrayFraming
from cpa.translation.context import Context
from cpa.translation.gemini.emitter import array_frames, open_emitter
from cpa.translation.gemini.frames import ARRAY_END
from cpa.translation.ir import BlockKind, Close, Delta, End, IREvent, Open, Start, Stop, StopReason
from cpa.translation.profile import default_profile
from tests.e2e.sdk import BROKEN, HELLO
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy

FAIL_S = 120
ON = "streaming: {gemini-json-array: true}"
ASK = {"contents": [{"role": "user", "parts": [{"text": HELLO}]}]}
MODELS = ("gemini", "gpt", "claude", "responses")
each_model = pytest.mark.parametrize("model", MODELS)
DATA = b'data: {"a":1}\n\n'


async def stream(client: httpx.AsyncClient, model: str, query: str = "", **headers: str) -> httpx.Response:
    """A streamed answer, read to its end; underscores in names of headers are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(f"/v1beta/models/{model}:streamGenerateContent{query}", json=ASK, headers=named)


def events(body: str) -> list[Any]:
    """The JSON of each event."""
    return [json.loads(block.removeprefix("data: ")) for block in body.split("\n\n") if block.strip()]


@each_model
async def test_the_array_holds_what_the_events_say(model: str) -> None:
    """Whoever serves the model: a Gemini provider's bytes, or a translation."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=ON) as proxy, proxy.client() as client:
            array = await stream(client, model)
            plain = await stream(client, model, "?alt=sse")
    assert array.headers["content-type"] == "application/json"
    assert plain.headers["content-type"] == "text/event-stream"
    assert len(array.json()) > 2
    assert array.json() == events(plain.text)
    assert array.text.startswith('[{"candidates"')
    assert array.text.count(",\n{") == len(array.json()) - 1


@pytest.mark.parametrize("query", ["", "?alt=json", "?$alt=json", "?key=x"])
async def test_without_the_setting_everything_is_events(query: str) -> None:
    """As deployed proxies do it; clients that know no better rely on it."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await stream(client, "gemini", query)
    assert answer.headers["content-type"] == "text/event-stream"
    assert "finishReason" in events(answer.text)[-1]["candidates"][0]


@pytest.mark.parametrize(
    ("query", "array"),
    [
        ("", True),
        ("?alt=json", True),
        ("?alt=sse", False),
        ("?$alt=sse", False),
        ("?%24alt=sse", False),
        ("?key=x&alt=sse", False),
        ("?alt=ssee", True),
        ("?salt=sse", True),
    ],
)
async def test_who_asks_for_events_gets_them(query: str, array: bool) -> None:
    """Both names of the option count."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=ON) as proxy, proxy.client() as client:
            answer = await stream(client, "gemini", query)
    assert answer.headers["content-type"] == ("application/json" if array else "text/event-stream")


async def test_official_sdk_stays_as_it_is() -> None:
    """It always asks for events."""

    def use(proxy: RunningProxy) -> str:
        options = genai.types.HttpOptions(base_url=proxy.url)
        client = genai.Client(api_key=CLIENT_KEY, http_options=options)
        return "".join(c.text or "" for c in client.models.generate_content_stream(model="gemini", contents=HELLO))

    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=ON) as proxy, proxy.client() as client:
            text = await trio.to_thread.run_sync(use, proxy)
            array = (await stream(client, "gemini")).json()
    assert text
    assert text == "".join(part["candidates"][0]["content"]["parts"][0].get("text", "") for part in array)


async def test_other_actions_are_not_concerned() -> None:
    """Only streams come in pieces."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=ON) as proxy, proxy.client() as client:
            whole = (await client.post("/v1beta/models/gemini:generateContent", json=ASK)).json()
            count = (await client.post("/v1beta/models/gemini:countTokens", json=ASK)).json()
    assert whole["candidates"][0]["finishReason"] == "STOP"
    assert count["totalTokens"] > 0


@each_model
async def test_errors_of_the_provider_end_the_array(model: str) -> None:
    """The last element says what happened."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=ON) as proxy, proxy.client() as client:
            answer = await stream(client, model, x_mock_fault="inband-error", x_mock_at="3")
    *parts, last = answer.json()
    assert parts
    assert all("candidates" in part for part in parts)
    assert list(last) == ["error"]
    assert (last["error"]["message"], last["error"]["code"] >= 500) == ("mock in-band error", True)


@each_model
@pytest.mark.parametrize("fault", BROKEN)
async def test_a_truncated_stream_never_looks_complete(model: str, fault: str) -> None:
    """Who reads the elements one by one sees the error; who reads the array as a whole finds that it has no end."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=ON) as proxy, proxy.client() as client:
            answer = await stream(client, model, x_mock_fault=fault, x_mock_at="3")
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    *parts, last = json.loads(answer.text + "]")
    assert parts
    assert all("finishReason" not in part["candidates"][0] for part in parts)
    assert (last["error"]["code"], last["error"]["status"]) == (502, "UNAVAILABLE")


@each_model
async def test_failures_before_the_stream_have_their_status(model: str) -> None:
    """They are answers of their own, no arrays."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=ON) as proxy, proxy.client() as client:
            answer = await stream(client, model, x_mock_status="429")
    assert answer.status_code == 429
    assert answer.json()["error"]["status"] == "RESOURCE_EXHAUSTED"


def keep_alive(proxy: RunningProxy) -> None:
    """Signs of life from the beginning, faster than the configuration can say."""
    state = proxy.app.state
    streaming = StreamingConfig(
        keepalive_seconds=0.05,  # type: ignore[arg-type]
        keepalive_before_first_chunk=True,
        gemini_json_array=True,
    )
    state.runtime = attrs.evolve(state.runtime, config=attrs.evolve(state.runtime.config, streaming=streaming))


async def test_signs_of_life_are_white_space() -> None:
    """Before the array and between its elements."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            keep_alive(proxy)
            answer = await stream(client, "gemini", x_mock_first_byte="200", x_mock_delay="120", x_mock_chunks="3")
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.startswith("\n")
    assert answer.json()[-1]["candidates"][0]["finishReason"] == "STOP"
    assert answer.text.count("\n") > len(answer.json()) + 2


async def test_failures_behind_a_sign_of_life_are_the_only_element() -> None:
    """The status is out, and nothing was said that could look like a part of an answer."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            keep_alive(proxy)
            answer = await stream(client, "gemini", x_mock_first_byte="200", x_mock_status="429")
    assert answer.headers["content-type"] == "application/json"
    [only] = answer.json()
    assert only["error"]["status"] == "RESOURCE_EXHAUSTED"


# --- the framing alone -----------------------------------------------------------------------------------------------


def test_it_writes_what_the_translation_would() -> None:
    """Both ways to an array give the same bytes."""
    steps: list[IREvent] = [
        Start(id="r1", model="m"),
        Open(b=0, kind=BlockKind.TEXT),
        Delta(b=0, s="a"),
        Delta(b=0, s='"b"\n'),
        Close(b=0),
        Stop(reason=StopReason.STOP),
        End(),
    ]

    def context() -> Context:
        return Context(
            client=Format.GEMINI,
            provider=Format.OPENAI,
            client_model="m",
            model="m",
            stream=True,
            profile=default_profile(Format.OPENAI),
            new_id=lambda: "id",
            now_unix=lambda: 0.0,
        )

    emitter, array, framing = open_emitter(context()), array_frames(context()), ArrayFraming()
    wanted = b"".join(array.feed(step) for step in steps)
    got = b"".join(framing.frames(emitter.feed(step)) for step in steps) + framing.end()
    assert got == wanted
    assert wanted.endswith(ARRAY_END)


@settings(max_examples=60)
@given(
    groups=st.lists(
        st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=2), max_size=3), max_size=4
    ),
    ending=st.sampled_from(["\n\n", "\r\n\r\n"]),
)
def test_any_grouping_of_events_is_one_array(groups: list[list[Any]], ending: str) -> None:
    """Comments and blank events are no elements."""
    framing = ArrayFraming()
    out = b""
    for group in groups:
        block = ": sign of life" + ending + "".join(f"data: {json.dumps(value)}{ending}" for value in group)
        out += framing.frames(block.encode())
    assert json.loads(out + framing.end()) == [value for group in groups for value in group]


def test_one_bad_event_does_not_spoil_the_array() -> None:
    """Raised instead, and then told as an error."""
    framing = ArrayFraming()
    first = framing.frames(DATA)
    for bad in (b"data: {\n\n", b'data: {"a":1},{"b":2}\n\n', b"data: ]\n\n"):
        with pytest.raises(UpstreamProtocolError):
            framing.frames(bad)
    rest = framing.failure(b'data: {"error":{}}\n\n', told=False)
    assert json.loads(first + rest + b"]") == [{"a": 1}, {"error": {}}]


@pytest.mark.parametrize(
    ("said", "block", "told", "wanted"),
    [
        (b"", DATA, False, b'[{"a":1}]'),
        (b"", DATA, True, b'[{"a":1}]'),
        (DATA, DATA, True, b'[{"a":1},\n{"a":1}]'),
        (DATA, DATA, False, b'[{"a":1},\n{"a":1}'),
        (DATA, b"data: {nonsense\n\n", True, b'[{"a":1}'),
        (b"", b"data: {nonsense\n\n", True, b""),
    ],
)
def test_how_an_array_ends_with_an_error(said: bytes, block: bytes, told: bool, wanted: bytes) -> None:
    """Closed if somebody said what is wrong, or if there was no answer at all; open after a cut."""
    framing = ArrayFraming()
    assert framing.frames(said) + framing.failure(block, told=told) == wanted


def test_an_empty_stream_is_an_empty_array() -> None:
    """Plugins may drop every event."""
    framing = ArrayFraming()
    assert framing.frames(b"") + framing.frames(b": nothing\n\n") + framing.end() == b"[]"
