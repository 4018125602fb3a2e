"""The official Google client against the running proxy: generateContent, token counts, models, and every failure.

Synchronous clients run in a thread. The asynchronous client cannot run on Trio: it needs a running asyncio loop, so it
gets one of its own in the thread.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from tests.e2e.sdk import (
    ARGUMENTS,
    BROKEN,
    HELLO,
    RECUT,
    TEXT,
    TOOLS,
    assert_key_was_exchanged,
    with_fault,
    with_proxy,
)
from tests.proxy import CLIENT_KEY, PROVIDER_KEY, RunningProxy

THINK = {"X-Mock-Think": "1"}
WEATHER = types.FunctionDeclaration(
    name="weather",
    description="The weather.",
    parameters=types.Schema(
        type=types.Type.OBJECT,
        properties={"city": types.Schema(type=types.Type.STRING), "days": types.Schema(type=types.Type.INTEGER)},
        required=["city", "days"],
    ),
)


def client_of(proxy: RunningProxy, *, key: str = CLIENT_KEY, version: str | None = None) -> genai.Client:
    options = types.HttpOptions(base_url=proxy.url, timeout=15_000)
    if version is not None:
        options.api_version = version
    return genai.Client(api_key=key, http_options=options)


def config(headers: dict[str, str] | None = None, *, tools: bool = False) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(
        http_options=types.HttpOptions(headers=headers or {}),
        tools=[types.Tool(function_declarations=[WEATHER])] if tools else None,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )


def text_of(chunks: list[types.GenerateContentResponse]) -> str:
    return "".join(chunk.text or "" for chunk in chunks)


def run_asyncio(main: Awaitable[None]) -> None:
    """Run *main* on an asyncio loop of its own; only for this client, CPA itself knows no asyncio."""
    import asyncio  # noqa: TID251  # the client under test needs it

    asyncio.run(main)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [None, "v1", "v1beta"])
async def test_content_whole_and_streamed(version: str | None) -> None:
    """Under the client's default path and both versions; the alias in the path becomes the provider's name."""

    def use(proxy: RunningProxy) -> None:
        with client_of(proxy, version=version) as client:
            whole = client.models.generate_content(model="gemini", contents=HELLO, config=config(THINK))
            chunks = list(client.models.generate_content_stream(model="gemini", contents=HELLO, config=config(THINK)))
        assert (whole.text or "").startswith(TEXT)
        assert text_of(chunks) == whole.text
        assert whole.usage_metadata is not None
        [candidate] = chunks[-1].candidates or []
        assert candidate.finish_reason is types.FinishReason.STOP
        assert [request.target for request in proxy.mock.requests] == [
            "/v1beta/models/mock-gemini:generateContent",
            "/v1beta/models/mock-gemini:streamGenerateContent?alt=sse",
        ]
        assert_key_was_exchanged(proxy, b"x-goog-api-key", PROVIDER_KEY.encode())

    await with_proxy(use)


async def test_tool_round() -> None:
    """The call is streamed, answered by hand and goes back with its thought signature."""

    def use(proxy: RunningProxy) -> None:
        wanted = config({**TOOLS, **THINK}, tools=True)
        with client_of(proxy) as client:
            chunks = list(client.models.generate_content_stream(model="gemini", contents=HELLO, config=wanted))
            parts = [part for chunk in chunks for part in chunk.parts or []]
            [called] = [part for part in parts if part.function_call is not None]
            assert called.function_call is not None
            assert (called.function_call.name, called.function_call.args) == ("weather", ARGUMENTS)
            answered = types.Part.from_function_response(name="weather", response={"result": "rain"})
            history: Any = [
                types.Content(role="user", parts=[types.Part.from_text(text=HELLO)]),
                types.Content(role="model", parts=[called]),
                types.Content(role="user", parts=[answered]),
            ]
            answer = client.models.generate_content(model="gemini", contents=history, config=wanted)
        assert "rain" in (answer.text or "")
        assert b"thoughtSignature" in proxy.mock.requests[-1].body

    await with_proxy(use)


async def test_functions_are_called_automatically() -> None:
    """The client's own loop of calls and answers runs through the proxy."""
    called: list[tuple[str, int]] = []

    def weather(city: str, days: int) -> str:
        """The weather."""
        called.append((city, days))
        return f"rain in {city}"

    def use(proxy: RunningProxy) -> None:
        wanted = types.GenerateContentConfig(tools=[weather], http_options=types.HttpOptions(headers=TOOLS))
        with client_of(proxy) as client:
            answer = client.models.generate_content(model="gemini", contents=HELLO, config=wanted)
        assert "rain in Paris" in (answer.text or "")
        assert proxy.mock.total_requests == 2

    await with_proxy(use)
    assert called == [("Paris", 1)]


async def test_chats_keep_their_history() -> None:
    """Both turns arrive, the first one streamed."""

    def use(proxy: RunningProxy) -> None:
        with client_of(proxy) as client:
            chat = client.chats.create(model="gemini", config=config())
            first = text_of(list(chat.send_message_stream(HELLO)))
            chat.send_message("more")
        assert first.startswith(TEXT)
        assert b"Mock answer " in proxy.mock.requests[-1].body

    await with_proxy(use)


async def test_tokens_are_counted_by_the_provider() -> None:
    """countTokens reaches the provider's own endpoint."""

    def use(proxy: RunningProxy) -> None:
        with client_of(proxy) as client:
            count = client.models.count_tokens(model="gemini", contents=HELLO)
        assert count.total_tokens
        assert [request.target for request in proxy.mock.requests] == ["/v1beta/models/mock-gemini:countTokens"]

    await with_proxy(use)


async def test_models_are_listed_and_retrieved() -> None:
    """In Google's shape, with and without ``models/``, under both versions of the path."""

    def use(proxy: RunningProxy) -> None:
        for version in (None, "v1beta"):
            with client_of(proxy, version=version) as client:
                names = {model.name for model in client.models.list()}
                assert names >= {"models/gpt", "models/responses", "models/claude", "models/gemini"}
                assert client.models.get(model="gemini").name == "models/gemini"
                assert client.models.get(model="models/gemini").name == "models/gemini"
                with pytest.raises(errors.ClientError) as raised:
                    client.models.get(model="nobody-knows")
                assert raised.value.code == 404

    await with_proxy(use)


async def test_content_asynchronously() -> None:
    """Whole, streamed, with a tool call, counted, and a failure, on the client's own loop."""

    def use(proxy: RunningProxy) -> None:
        async def main() -> None:
            async with client_of(proxy).aio as client:
                whole = await client.models.generate_content(model="gemini", contents=HELLO, config=config())
                stream = await client.models.generate_content_stream(model="gemini", contents=HELLO, config=config())
                chunks = [chunk async for chunk in stream]
                called = await client.models.generate_content(
                    model="gemini", contents=HELLO, config=config(TOOLS, tools=True)
                )
                count = await client.models.count_tokens(model="gemini", contents=HELLO)
                assert text_of(chunks) == whole.text
                assert [call.args for call in called.function_calls or []] == [ARGUMENTS]
                assert count.total_tokens
                for fault in (*BROKEN, "inband-error"):
                    broken = await client.models.generate_content_stream(
                        model="gemini", contents="x", config=config(with_fault(fault))
                    )
                    with pytest.raises(errors.APIError):
                        [chunk async for chunk in broken]
                with pytest.raises(errors.ClientError):
                    await client.models.generate_content(model="nobody-knows", contents="x")

        run_asyncio(main())

    await with_proxy(use)


# --- failures before the answer ------------------------------------------------------------------------------------

FAILURES: list[tuple[dict[str, str], type[errors.APIError], int, str]] = [
    ({"X-Mock-Status": "400"}, errors.ClientError, 400, "INVALID_ARGUMENT"),
    ({"X-Mock-Status": "401"}, errors.ClientError, 401, "UNAUTHENTICATED"),
    ({"X-Mock-Status": "429", "X-Mock-Retry-After": "7"}, errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
    ({"X-Mock-Status": "500"}, errors.ServerError, 500, "INTERNAL"),
    ({"X-Mock-Status": "503"}, errors.ServerError, 503, "UNAVAILABLE"),
    ({"X-Mock-Fault": "close-before-headers"}, errors.ServerError, 502, "UNAVAILABLE"),
    ({"X-Mock-Fault": "reset-headers"}, errors.ServerError, 502, "UNAVAILABLE"),
]
STREAM_FAILURES: list[tuple[dict[str, str], type[errors.APIError], int, str]] = [
    ({"X-Mock-Fault": "empty"}, errors.ServerError, 502, "UNAVAILABLE"),
    (with_fault("inband-error", 0), errors.ServerError, 500, "INTERNAL"),
]


@pytest.mark.parametrize(
    ("stream", "headers", "error", "code", "status"),
    [
        *((False, *failure) for failure in FAILURES),
        *((True, *failure) for failure in [*FAILURES, *STREAM_FAILURES]),
    ],
)
async def test_provider_failures_are_typed_errors(
    stream: bool, headers: dict[str, str], error: type[errors.APIError], code: int, status: str
) -> None:
    """The class of the provider's status, with Google's error body; Retry-After arrives."""

    def use(proxy: RunningProxy) -> None:
        with client_of(proxy) as client:
            call = client.models.generate_content_stream if stream else client.models.generate_content
            with pytest.raises(error) as raised:
                list(call(model="gemini", contents="x", config=config(headers)))
        assert (raised.value.code, raised.value.status) == (code, status)
        assert raised.value.message
        response: Any = raised.value.response
        assert response.headers.get("retry-after") == headers.get("X-Mock-Retry-After")

    await with_proxy(use)


async def test_a_wrong_key_is_a_client_error() -> None:
    """Nothing reaches the provider."""

    def use(proxy: RunningProxy) -> None:
        with client_of(proxy, key="wrong") as client:
            with pytest.raises(errors.ClientError) as whole:
                client.models.generate_content(model="gemini", contents="x")
            with pytest.raises(errors.ClientError) as streamed:
                list(client.models.generate_content_stream(model="gemini", contents="x"))
            with pytest.raises(errors.ClientError) as listed:
                client.models.list()
        for raised in (whole, streamed, listed):
            assert (raised.value.code, raised.value.status) == (401, "UNAUTHENTICATED")
        assert proxy.mock.total_requests == 0

    await with_proxy(use)


async def test_an_unknown_model_is_a_client_error() -> None:
    """And the error names it."""

    def use(proxy: RunningProxy) -> None:
        with client_of(proxy) as client, pytest.raises(errors.ClientError, match="nobody-knows") as raised:
            client.models.generate_content(model="nobody-knows", contents="x")
        assert (raised.value.code, raised.value.status) == (400, "INVALID_ARGUMENT")

    await with_proxy(use)


# --- failures inside the answer ------------------------------------------------------------------------------------


def read_stream(client: genai.Client, headers: dict[str, str], seen: list[object]) -> None:
    for chunk in client.models.generate_content_stream(model="gemini", contents="x", config=config(headers)):
        seen.append(chunk)


def read_chat(client: genai.Client, headers: dict[str, str], seen: list[object]) -> None:
    for chunk in client.chats.create(model="gemini", config=config(headers)).send_message_stream("x"):
        seen.append(chunk)


@pytest.mark.parametrize("fault", [*BROKEN, "inband-error"])
@pytest.mark.parametrize("read", [read_stream, read_chat])
async def test_a_stream_that_breaks_raises(
    read: Callable[[genai.Client, dict[str, str], list[object]], None], fault: str
) -> None:
    """Never silently truncated, and never taken for data: what came before arrives, then the client raises."""
    seen: list[object] = []

    def use(proxy: RunningProxy) -> None:
        with client_of(proxy) as client, pytest.raises(errors.APIError):
            read(client, with_fault(fault), seen)
        assert proxy.mock.total_requests == 1

    await with_proxy(use)
    assert seen


@pytest.mark.parametrize("fault", RECUT)
async def test_recut_streams_read_the_same(fault: str) -> None:
    """How a provider cuts its bytes is nothing that a client could notice."""

    def use(proxy: RunningProxy) -> None:
        with client_of(proxy) as client:
            whole = client.models.generate_content(model="gemini", contents="x", config=config())
            chunks = list(
                client.models.generate_content_stream(
                    model="gemini", contents="x", config=config({"X-Mock-Fault": fault})
                )
            )
        assert text_of(chunks) == whole.text

    await with_proxy(use)
