"""What is read from paths and bodies."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cpa.formats.names import Format
from cpa.testing.mock import Ask, AskError, Endpoint, Route, Tool, parse_ask, parse_route

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SCHEMA_JSON = json.dumps(SCHEMA, separators=(",", ":")).encode()
WEATHER = Tool(name="weather", schema=SCHEMA_JSON)

ROUTES = [
    ("/v1/chat/completions", Route(Endpoint.CHAT)),
    ("/any/prefix/chat/completions?x=1", Route(Endpoint.CHAT)),
    ("http://host:1/openai/v1/chat/completions", Route(Endpoint.CHAT)),
    ("/v1/completions", Route(Endpoint.COMPLETIONS)),
    ("/v1/responses", Route(Endpoint.RESPONSES)),
    ("/backend-api/codex/responses/compact", Route(Endpoint.COMPACT)),
    ("/v1/responses/input_tokens", Route(Endpoint.INPUT_TOKENS)),
    ("/v1/messages?beta=true", Route(Endpoint.MESSAGES)),
    ("/v1/messages/count_tokens", Route(Endpoint.COUNT_TOKENS)),
    ("/v1/embeddings", Route(Endpoint.EMBEDDINGS)),
    ("/v1beta/models/m:generateContent", Route(Endpoint.GENERATE, "m", sse=False)),
    ("/v1/models/m:streamGenerateContent?alt=sse", Route(Endpoint.STREAM_GENERATE, "m")),
    ("/v1beta/models/m:streamGenerateContent?%24alt=sse", Route(Endpoint.STREAM_GENERATE, "m")),
    ("/v1beta/models/m:streamGenerateContent", Route(Endpoint.STREAM_GENERATE, "m", sse=False)),
    ("/v1beta/models/a%2Fb:c:countTokens", Route(Endpoint.GEMINI_COUNT, "a/b:c", sse=False)),
    ("/v1/publishers/google/models/m:generateContent", Route(Endpoint.GENERATE, "m", sse=False)),
    ("/v1beta/models/m:embedContent", Route(Endpoint.EMBED, "m", sse=False)),
    ("/v1/models", Route(Endpoint.MODELS)),
    ("/v1/models/gpt-x", Route(Endpoint.MODELS, "gpt-x")),
    ("/healthz", Route(Endpoint.HEALTH)),
    ("/v1beta/models/m:unknownAction", None),
    ("/v1/files", None),
    ("*", None),
]


@pytest.mark.parametrize(("target", "route"), ROUTES, ids=[target for target, _ in ROUTES])
def test_path_leads_to_endpoint(target: str, route: Route | None) -> None:
    assert parse_route(target) == route


def ask(endpoint: Endpoint, body: object, model: str = "") -> Ask:
    return parse_ask(Route(endpoint, model), json.dumps(body).encode())


CHAT_TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]


def test_chat_request() -> None:
    body = {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ],
        "tools": [*CHAT_TOOLS, {"type": "custom", "custom": {"name": "patch"}}, {"type": "web_search"}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }
    tools = (WEATHER, Tool(name="patch", kind="custom"))
    expected = Ask(model="m", stream=True, text="ab", turns=2, tools=tools, chosen_tool="weather", include_usage=True)
    assert ask(Endpoint.CHAT, body) == expected


def test_chat_tool_results_at_the_end() -> None:
    messages = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "sun"}]},
    ]
    assert ask(Endpoint.CHAT, {"model": "m", "messages": messages}).tool_result == "rain\nsun"
    later = [*messages, {"role": "assistant", "content": "x"}, {"role": "user", "content": "next"}]
    assert ask(Endpoint.CHAT, {"model": "m", "messages": later}).tool_result is None
    noted = [*messages, {"role": "system", "content": "note"}]
    assert ask(Endpoint.CHAT, {"model": "m", "messages": noted}).tool_result == "rain\nsun"


def test_calls_can_be_forbidden() -> None:
    messages = [{"role": "user", "content": "u"}]
    body = {"model": "m", "messages": messages, "tools": CHAT_TOOLS, "tool_choice": "none"}
    assert ask(Endpoint.CHAT, body).tools == ()
    claude = {"model": "m", "messages": messages, "tools": [{"name": "w", "input_schema": {}}]}
    assert len(ask(Endpoint.MESSAGES, claude).tools) == 1
    assert ask(Endpoint.MESSAGES, {**claude, "tool_choice": {"type": "none"}}).tools == ()


def test_messages_request() -> None:
    body = {
        "model": "m",
        "max_tokens": 1,
        "messages": [
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "rain"}]},
            {"role": "system", "content": "note"},
        ],
        "tools": [
            {"name": "weather", "input_schema": SCHEMA},
            {"name": "later", "input_schema": SCHEMA, "defer_loading": True},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "tool_choice": {"type": "tool", "name": "weather"},
    }
    expected = Ask(model="m", text="u", turns=4, tool_result="rain", tools=(WEATHER,), chosen_tool="weather")
    assert ask(Endpoint.MESSAGES, body) == expected


def test_responses_request() -> None:
    body = {
        "model": "m",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "custom", "name": "exec"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]},
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "rain"},
            {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "sun"}]},
        ],
        "tools": [
            {"type": "function", "name": "weather", "parameters": SCHEMA},
            {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "inner"}]},
            {"type": "web_search"},
        ],
    }
    got = ask(Endpoint.RESPONSES, body)
    assert (got.text, got.tool_result, got.turns, got.stream, got.encrypted) == ("u", "rain\nsun", 5, True, True)
    assert got.tools == (WEATHER, Tool(name="inner", namespace="ns"), Tool(name="exec", kind="custom"))
    assert got.echo["store"] == b"false"
    assert set(got.echo) == {"store", "tools"}
    assert ask(Endpoint.RESPONSES, {"model": "m", "input": "plain"}).text == "plain"


@pytest.mark.parametrize("snake", [False, True])
def test_gemini_request(snake: bool) -> None:
    """Some clients write snake case, the schema under any of its names."""
    declarations, response = (
        ("function_declarations", "function_response")
        if snake
        else (
            "functionDeclarations",
            "functionResponse",
        )
    )
    config = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}
    if snake:
        config = {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["weather"]}}
    body = {
        "contents": [
            {"parts": [{"text": "u"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {}}}]},
            {"role": "user", "parts": [{response: {"name": "weather", "response": {"result": "rain"}}}]},
        ],
        "tools": [{declarations: [{"name": "weather", "parameters_json_schema": SCHEMA}]}, {"googleSearch": {}}],
        "tool_config" if snake else "toolConfig": config,
    }
    expected = Ask(
        model="m", text="u", turns=3, tool_result='{"result":"rain"}', tools=(WEATHER,), chosen_tool="weather"
    )
    assert ask(Endpoint.GENERATE, body, "models/m") == expected
    assert ask(Endpoint.GEMINI_COUNT, {"generateContentRequest": body}, "m").text == "u"


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (Endpoint.CHAT, b""),
        (Endpoint.CHAT, b"[]"),
        (Endpoint.CHAT, b'{"model":"m"}'),
        (Endpoint.CHAT, b'{"messages":[{}]}'),
        (Endpoint.CHAT, b'{"model":5,"messages":[{}]}'),
        (Endpoint.CHAT, b'{"model":"m","messages":[{}]'),
        (Endpoint.CHAT, b'{"model":"\xff","messages":[{}]}'),
        (Endpoint.CHAT, b"[" * 100_000),
        (Endpoint.MESSAGES, b'{"model":"m","messages":[]}'),
        (Endpoint.RESPONSES, b'{"model":"m"}'),
        (Endpoint.RESPONSES, b'{"input":"x"}'),
        (Endpoint.GENERATE, b"{}"),
        (Endpoint.GENERATE, b'{"contents":"x"}'),
    ],
)
def test_unusable_body_is_the_clients_fault(endpoint: Endpoint, body: bytes) -> None:
    with pytest.raises(AskError):
        parse_ask(Route(endpoint, "m"), body)


def test_lone_surrogate_does_no_harm() -> None:
    """Clients cut strings between the halves of a pair and send what is left."""
    body = b'{"model":"m","messages":[{"role":"user","content":"a\\ud83d"}]}'
    assert parse_ask(Route(Endpoint.CHAT), body).text == "a\ufffd"


@pytest.mark.parametrize("endpoint", Endpoint)
@given(body=st.binary(max_size=40) | st.sampled_from([b"null", b"{}", b'{"model":"m","messages":[null,1,"x",[]]}']))
@example(body=b'{"model":"m","input":[null,{"role":"user","content":[null]}],"contents":[7],"messages":[[]]}')
def test_any_body_is_an_ask_or_an_error(endpoint: Endpoint, body: bytes) -> None:
    try:
        got = parse_ask(Route(endpoint, "m"), body)
    except AskError:
        return
    assert isinstance(got, Ask)


def test_every_endpoint_has_a_protocol() -> None:
    formats = {endpoint: Route(endpoint).format for endpoint in Endpoint}
    assert formats[Endpoint.CHAT] is formats[Endpoint.EMBEDDINGS] is Format.OPENAI
    assert formats[Endpoint.COUNT_TOKENS] is Format.CLAUDE
    assert formats[Endpoint.GEMINI_COUNT] is Format.GEMINI
    assert formats[Endpoint.COMPACT] is Format.OPENAI_RESPONSE
