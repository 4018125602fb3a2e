"""The smaller endpoints of the OpenAI API: embeddings, compaction, token counts, and requests on the wrong path."""

import json
from typing import Any

import httpx
import openai
import pytest
import trio

from cpa.errors import RequestError
from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.stage import InterceptRequestResult, StageKind
from cpa.server.routes_openai import is_chat
from cpa.testing.fakes import FakeAnswer, FakeExecutor, candidate
from cpa.types import Operation
from tests.e2e.sdk import HELLO, TEXT, with_proxy
from tests.pipeline.support import execute, full, register, request
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy

FAIL_S = 120
MODELS = ("gpt", "responses", "claude", "gemini")
each_model = pytest.mark.parametrize("model", MODELS)
TRANSFORM_KINDS = (
    StageKind.REQUEST_NORMALIZE,
    StageKind.REQUEST_TRANSLATE,
    StageKind.RESPONSE_NORMALIZE_BEFORE,
    StageKind.RESPONSE_TRANSLATE,
    StageKind.RESPONSE_NORMALIZE_AFTER,
)


def sdk(proxy: RunningProxy) -> openai.OpenAI:
    """The vendor's client."""
    return openai.OpenAI(api_key=CLIENT_KEY, base_url=f"{proxy.url}/v1", max_retries=0)


async def post(client: httpx.AsyncClient, path: str, body: bytes, **headers: str) -> httpx.Response:
    """*body* as it is; underscores in names of headers are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(path, content=body, headers={"content-type": "application/json", **named})


# --- embeddings ------------------------------------------------------------------------------------------------------


async def test_embeddings_pass_but_for_the_models_name() -> None:
    """Every other byte stays: white space, order, members that nobody knows."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = b'{ "input":["a", "\\u00e9"],"model" : "gpt","stream":true,\n"x":1.0 }'
            answer = await post(client, "/v1/embeddings", body)
            [sent] = proxy.mock.recorder.requests
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 2
    assert sent.target == "/v1/embeddings"
    assert sent.body == body.replace(b'"gpt"', b'"mock-gpt"')
    assert sent.header(b"accept") == b"application/json"


async def test_the_sdk_reads_embeddings() -> None:
    """In its own encoding, base64, as well as in numbers."""

    def use(proxy: RunningProxy) -> None:
        for options in ({}, {"encoding_format": "float"}):
            answer = sdk(proxy).embeddings.create(model="gpt", input=["a", "b"], **options)  # type: ignore[arg-type]
            assert [entry.index for entry in answer.data] == [0, 1]
            assert all(isinstance(number, float) for entry in answer.data for number in entry.embedding)
            assert answer.usage.prompt_tokens > 0

    await with_proxy(use)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "gpt"])
async def test_nobody_else_has_embeddings(model: str) -> None:
    """Told at once, in the client's shape, and not asked of anybody."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await client.post("/v1/embeddings", json={"model": model, "input": "a"})
            assert not proxy.mock.recorder.requests
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == ("unsupported", "model", "invalid_request_error")
    assert model in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"input":"a"}', 400, "missing_model"),
        (b'{"model":"nothing","input":"a"}', 400, "model_not_found"),
        (b"[]", 400, None),
        (b"", 400, None),
    ],
)
async def test_wrong_embeddings_requests(body: bytes, status: int, code: str | None) -> None:
    """They are errors of the OpenAI API."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await post(client, "/v1/embeddings", body)
            refused = await client.get("/v1/embeddings")
    assert answer.status_code == status
    assert code is None or answer.json()["error"]["code"] == code
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


async def test_a_providers_error_for_embeddings() -> None:
    """As it came."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await post(client, "/v1/embeddings", b'{"model":"gpt","input":"a"}', x_mock_status="429")
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"


def embedding_request() -> ModelRequest:
    """As the route makes it."""
    return request(body=b'{"model":"m1","input":"a"}', operation=Operation.EMBED, path="/v1/embeddings")


def compact_request() -> ModelRequest:
    """As the route makes it."""
    return request(
        format=Format.OPENAI_RESPONSE,
        body=b'{"model":"m1","input":"a"}',
        operation=Operation.COMPACT,
        path="/v1/responses/compact",
        alt="responses/compact",
    )


def answering(fmt: Format, *, native: bool = True) -> FakeExecutor:
    """A provider of that protocol, or a plugin that plays one."""
    return FakeExecutor(fmt, lambda call: FakeAnswer([b'{"id":"r1"}']), native=native)


async def test_transforms_never_see_embeddings() -> None:
    """They take bodies of conversations, and would take these for some; interceptors see every request."""
    seen: list[Any] = []
    stages = [register(kind, "transformer", lambda call: b"{}", seen=seen) for kind in TRANSFORM_KINDS]
    asked: list[Any] = []
    stages.append(register(StageKind.INTERCEPT_BEFORE, "guard", lambda call: InterceptRequestResult(), seen=asked))
    executor = full(b'{"data":[]}')
    result = await execute(executor, stages, ask=embedding_request())
    assert result.body == b'{"data":[]}'
    assert not seen
    assert len(asked) == 1
    assert b"".join(executor.calls[0].body) == b'{"model":"m1","input":"a"}'


async def test_plugins_executors_get_no_embeddings() -> None:
    """Their contract has no such operation: they would take the body for a chat."""
    executor = answering(Format.OPENAI, native=False)
    with pytest.raises(RequestError) as caught:
        await execute(executor, ask=embedding_request())
    assert (caught.value.code, caught.value.http_status) == ("unsupported", 400)
    assert not executor.calls


async def test_embeddings_find_the_provider_that_has_them() -> None:
    """Where several serve a model, those that cannot are passed over."""
    claude, chat = answering(Format.CLAUDE), answering(Format.OPENAI)
    await execute([candidate(claude, name="a"), candidate(chat, name="b")], ask=embedding_request())
    assert (len(claude.calls), len(chat.calls)) == (0, 1)


# --- compaction ------------------------------------------------------------------------------------------------------

COMPACT_PATHS = ("/v1/responses/compact", "/backend-api/codex/responses/compact")


@pytest.mark.parametrize("path", COMPACT_PATHS)
async def test_compactions_pass_but_for_the_models_name(path: str) -> None:
    """To the provider's own endpoint; the answer comes back as it is."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = b'{ "input":[{"role":"user","content":"a"}],"model" : "responses","x":1.0 }'
            answer = await post(client, path, body)
            [sent] = proxy.mock.recorder.requests
    assert answer.status_code == 200
    assert answer.json()["object"] == "response.compaction"
    assert sent.target == "/v1/responses/compact"
    assert sent.body == body.replace(b'"responses"', b'"mock-responses"')


async def test_the_sdk_reads_compactions() -> None:
    """And what they hold can be sent in the next request."""

    def use(proxy: RunningProxy) -> None:
        client = sdk(proxy)
        compacted = client.responses.compact(model="responses", input=HELLO)
        assert compacted.object == "response.compaction"
        items: Any = [item.model_dump(exclude_none=True) for item in compacted.output]
        assert any(item["type"] == "compaction" for item in items)
        items.append({"role": "user", "content": HELLO})
        assert client.responses.create(model="responses", input=items).output_text.startswith(TEXT)

    await with_proxy(use)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "responses"])
async def test_nobody_else_compacts(model: str) -> None:
    """501 in the client's shape; agents then compact by themselves."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await client.post("/v1/responses/compact", json={"model": model, "input": "a"})
            assert not proxy.mock.recorder.requests
    assert answer.status_code == 501
    error = answer.json()["error"]
    assert "/responses/compact not supported" in error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "not_implemented")


async def test_compactions_are_not_streamed() -> None:
    """Refused where asked for; any other value of the member does not reach the provider."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            refused = await post(client, COMPACT_PATHS[0], b'{"model":"responses","stream":true,"input":"a"}')
            assert not proxy.mock.recorder.requests
            for flag in (b"false", b"null"):
                body = b'{"model":"responses","stream":' + flag + b',"input":"a"}'
                assert (await post(client, COMPACT_PATHS[0], body)).status_code == 200
            sent = [json.loads(request.body) for request in proxy.mock.recorder.requests]
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["message"], error["type"]) == (
        "Streaming not supported for compact responses",
        "invalid_request_error",
    )
    assert sent == [{"model": "mock-responses", "input": "a"}] * 2


async def test_a_suffix_of_the_model_leaves_compactions_alone() -> None:
    """It would write the body anew, which has to pass as it is."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await post(client, COMPACT_PATHS[0], b'{"model":"responses(high)","input":"a","x":1}')
            [sent] = proxy.mock.recorder.requests
    assert answer.status_code == 200
    assert sent.body == b'{"model":"mock-responses","input":"a","x":1}'


@pytest.mark.parametrize("native", [True, False])
async def test_whoever_speaks_responses_compacts(native: bool) -> None:
    """Plugins' executors are told by the mode of the call."""
    executor = answering(Format.OPENAI_RESPONSE, native=native)
    await execute(executor, ask=compact_request())
    [call] = executor.calls
    assert (call.operation, call.alt, call.stream) == (Operation.COMPACT, "responses/compact", False)


# --- token counts ----------------------------------------------------------------------------------------------------


@each_model
async def test_input_tokens_of_every_provider(model: str) -> None:
    """The provider's number where it counts (translation Part 6), else an estimate that says so."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await client.post("/v1/responses/input_tokens", json={"model": model, "input": HELLO})
            targets = [sent.target for sent in proxy.mock.recorder.requests]
    assert answer.status_code == 200
    assert answer.json()["object"] == "response.input_tokens"
    assert answer.json()["input_tokens"] > 0
    wanted = {
        "gpt": [],
        "responses": ["/v1/responses/input_tokens"],
        "claude": ["/v1/messages/count_tokens"],
        "gemini": ["/v1beta/models/mock-gemini:countTokens"],
    }[model]
    assert targets == wanted
    assert answer.headers.get("x-token-count") == (None if wanted else "estimate")


async def test_the_sdk_reads_input_tokens() -> None:
    """With all that a request may have."""

    def use(proxy: RunningProxy) -> None:
        client = sdk(proxy)
        for model in MODELS:
            plain = client.responses.input_tokens.count(model=model, input=HELLO)
            longer = client.responses.input_tokens.count(model=model, input=HELLO * 50, instructions="Be brief.")
            assert plain.object == "response.input_tokens"
            assert 0 < plain.input_tokens < longer.input_tokens

    await with_proxy(use)


@pytest.mark.parametrize("status", ["404", "405", "501"])
async def test_hosts_without_the_endpoint_are_no_error(status: str) -> None:
    """The same request, the same estimate."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = b'{"model":"responses","input":"how many are these?"}'
            path = "/v1/responses/input_tokens"
            answers = [await post(client, path, body, x_mock_status=status) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["x-token-count"] == "estimate"
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["input_tokens"] > 0


async def test_other_errors_of_counting_are_told() -> None:
    """A wrong key is the operator's to hear of."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = b'{"model":"responses","input":"a"}'
            answer = await post(client, "/v1/responses/input_tokens", body, x_mock_status="401")
            missing = await post(client, "/v1/responses/input_tokens", b'{"input":"a"}')
    assert answer.status_code == 401
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "missing_model")


# --- Responses requests at the Chat endpoint -------------------------------------------------------------------------

MIXED_UP: list[tuple[bytes, bool]] = [
    (b'{"model":"m","messages":[]}', True),
    (b'{"messages":[],"input":"a"}', True),
    (b'{"input":"a","messages":[]}', True),
    (b'{"tools":[{"messages":1}],"messages":[]}', True),
    (b'{"model":"m"}', True),
    (b'{"model":"m","prompt":"a"}', True),
    (b"[]", True),
    (b"", True),
    (b"nonsense", True),
    (b'{"model":"m","input":"a"}', False),
    (b'{"model":"m","input":[]}', False),
    (b'\xef\xbb\xbf {"model":"m","input":"a"}', False),
    (b'{"instructions":"a","model":"m"}', False),
    (b'{"model":"messages","input":"a"}', False),
    (b'{"user":"messages" , "input":"a"}', False),
    (b'{"input":"say \\"messages\\": now"}', False),
    (b'{"instructions":"a","tools":[{"name":"f","parameters":{"messages":{"x":1}}}]}', False),
    (b'{"tools":[{"parameters":{"messages": 1}}],"input":"a"}', False),
    (b'{"metadata":{"messages":"1"},"input":"a"}', False),
    (b'{"input":"' + b"a" * 2000 + b'"}', False),
    (b'{"x":"' + b"a" * 2000 + b'","messages":[]}', True),
    (b'{"\\u006dessages":[],"input":"a"}', True),
]


@pytest.mark.parametrize(("body", "chat"), MIXED_UP)
def test_what_tells_the_two_apart(body: bytes, chat: bool) -> None:
    """Members of the body itself, not of what is in it (translation 1.3)."""
    assert is_chat(body) is chat


async def test_a_responses_request_at_the_chat_endpoint() -> None:
    """It is answered as the chat that the client takes it for, by every provider, streamed and not."""

    def use(proxy: RunningProxy) -> None:
        client: Any = sdk(proxy).chat.completions
        wrong = {"input": HELLO, "instructions": "Be brief."}
        for model in MODELS:
            answer = client.create(model=model, messages=openai.omit, extra_body=wrong)
            assert answer.object == "chat.completion"
            assert answer.choices[0].message.content.startswith(TEXT)
            assert answer.choices[0].finish_reason == "stop"
            chunks = list(client.create(model=model, messages=openai.omit, stream=True, extra_body=wrong))
            assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            assert text == answer.choices[0].message.content
            assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]

    await with_proxy(use)


async def test_what_the_providers_get_of_it() -> None:
    """Its own bytes where they speak Responses, a translation elsewhere."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = b'{ "model":"%b","input":"a","instructions":"b" }'
            for model in (b"responses", b"gpt", b"claude"):
                assert (await post(client, "/v1/chat/completions", body % model)).status_code == 200
            native, chat, claude = proxy.mock.recorder.requests
    assert (native.target, native.body) == ("/v1/responses", body % b"mock-responses")
    assert chat.target == "/v1/chat/completions"
    assert [message["role"] for message in json.loads(chat.body)["messages"]] == ["system", "user"]
    assert claude.target == "/v1/messages"
    assert json.loads(claude.body)["messages"][0]["role"] == "user"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_suffix_at_the_chat_endpoint(stream: bool) -> None:
    """It makes the provider's request ours, which streams in that dialect whatever the client wants."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = {"model": "responses(high)", "input": HELLO, "stream": stream}
            answer = await client.post("/v1/chat/completions", json=body)
            [sent] = proxy.mock.recorder.requests
    assert answer.status_code == 200
    assert json.loads(sent.body)["reasoning"]["effort"] == "high"
    if stream:
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        assert answer.json()["choices"][0]["message"]["content"].startswith(TEXT)


async def test_a_suffix_for_whole_responses() -> None:
    """The same where the client speaks Responses itself."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            answer = await client.post("/v1/responses", json={"model": "responses(high)", "input": HELLO})
    assert answer.status_code == 200
    assert answer.json()["object"] == "response"
    assert answer.json()["status"] == "completed"
    assert answer.json()["output"][-1]["content"][0]["text"].startswith(TEXT)


@each_model
@pytest.mark.parametrize("stream", [True, False])
async def test_its_errors_are_a_chats(model: str, stream: bool) -> None:
    """Before the stream by status, inside it as an event of Chat."""
    with trio.fail_after(FAIL_S):
        async with running_proxy() as proxy, proxy.client() as client:
            body = json.dumps({"model": model, "input": HELLO, "stream": stream}).encode()
            limited = await post(client, "/v1/chat/completions", body, x_mock_status="429")
            orders = {"x_mock_fault": "inband-error", "x_mock_at": "4"}
            broken = await post(client, "/v1/chat/completions", body, **orders) if stream else None
    assert limited.status_code == 429
    assert limited.json()["error"]["type"] == "rate_limit_error"
    if broken is not None:
        assert broken.status_code == 200
        last = broken.text.strip().split("\n\n")[-1]
        assert last.startswith('data: {"error":')
        assert "[DONE]" not in broken.text
