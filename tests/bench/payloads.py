"""The requests of the benchmark as complete bytes, the same for all systems."""

import msgspec

CLIENT_KEY = "bench-client-key"
PROVIDER_KEY = "bench-provider-key"
PATH = "/v1/chat/completions"
CLAUDE_PATH = "/v1/messages"

STREAM_CHUNKS = 200
CHUNK_PAUSE_MS = 10
BIG_PIECES, BIG_PIECE_BYTES = 640, 16 << 10
"""10 MiB of text."""
AGENT_BODY_BYTES = 300 << 10

SMALL_MODEL = "mock-gpt"
PACED_MODEL = f"mock-chunks-{STREAM_CHUNKS}-chunk-bytes-24-delay-ms-{CHUNK_PAUSE_MS}"
BURST_MODEL = f"mock-chunks-{STREAM_CHUNKS}-chunk-bytes-24"
IDLE_MODEL = "mock-chunks-8-fault-stall-at-2"
"""Sends its opening and one piece, then nothing until the client leaves."""
IDLE_EVENTS = 2
BIG_MODEL = f"mock-chunks-{BIG_PIECES}-chunk-bytes-{BIG_PIECE_BYTES}"
PLUGIN_CHUNKS = 100
PLUGIN_PACED_MODEL = f"mock-chunks-{PLUGIN_CHUNKS}-chunk-bytes-24-delay-ms-{CHUNK_PAUSE_MS}"
PLUGIN_BURST_MODEL = f"mock-chunks-{PLUGIN_CHUNKS}-chunk-bytes-24"
"""Shorter ones for proxies with plugins, whose chunks take many times as long."""
PLUGIN_BODY_BYTES = 25_000
"""For `agent_body`, which then gives 21 KB. Plugins of schema 1 get the request twice with every chunk."""
STALL_MODEL = "mock-chunks-100-chunk-bytes-24-delay-ms-40"
"""25 chunks a second for four seconds."""
MESSAGES_MODEL = f"{SMALL_MODEL}-messages"
MESSAGES_PACED_MODEL = f"{PACED_MODEL}-messages"
"""As the ones before, for clients that speak Messages: LiteLLM has to be told by the model that the provider does not
have OpenAI's other protocol, Responses."""
CLAUDE_MODEL = "mock-claude"
GEMINI_MODEL = "mock-gemini"
"""Models of providers that speak these protocols; all others are Chat Completions."""
MODELS = (
    SMALL_MODEL,
    PACED_MODEL,
    BURST_MODEL,
    IDLE_MODEL,
    BIG_MODEL,
    PLUGIN_PACED_MODEL,
    PLUGIN_BURST_MODEL,
    STALL_MODEL,
    MESSAGES_MODEL,
    MESSAGES_PACED_MODEL,
)

CLIENT_HEAD = (
    "host: 127.0.0.1",
    "accept-encoding: gzip, deflate",
    "connection: keep-alive",
    "accept: application/json",
    "content-type: application/json",
    "user-agent: OpenAI/Python 2.8.1",
    "x-stainless-lang: python",
    "x-stainless-package-version: 2.8.1",
    "x-stainless-os: Linux",
    "x-stainless-arch: x64",
    "x-stainless-runtime: CPython",
    "x-stainless-runtime-version: 3.11.9",
    "x-stainless-async: false",
    "x-stainless-retry-count: 0",
    "x-stainless-read-timeout: 600",
    f"authorization: Bearer {CLIENT_KEY}",
)
"""What the OpenAI SDK sends."""

QUESTION = "Summarise the change below in one sentence and name the riskiest line. "


def http_request(body: bytes, path: str = PATH) -> bytes:
    """A client's POST with *body*."""
    version = ("anthropic-version: 2023-06-01",) if path == CLAUDE_PATH else ()
    head = "\r\n".join((f"POST {path} HTTP/1.1", *CLIENT_HEAD, *version, f"content-length: {len(body)}", "", ""))
    return head.encode() + body


def chat_body(model: str, *, stream: bool) -> bytes:
    """A small chat request, about 500 bytes."""
    return msgspec.json.encode(
        {
            "model": model,
            "messages": [
                {"role": "system", "content": "You are a terse reviewer of code changes."},
                {"role": "user", "content": QUESTION * 4},
            ],
            "temperature": 0.2,
            "stream": stream,
        }
    )


def agent_body(model: str, size_bytes: int = AGENT_BODY_BYTES, *, stream: bool = False) -> bytes:
    """What a coding agent sends late in a session: tools, and rounds of tool calls with long results."""
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"tool_{number}",
                "description": "Reads, searches or edits files below the working directory. " * 6,
                "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
            },
        }
        for number in range(20)
    ]
    result = 'def answer(x: int) -> str:\n\treturn f"größe \\"{x}\\""  # as measured\n' * 55
    messages: list[dict[str, object]] = [{"role": "system", "content": "You are a coding agent. " * 60}]
    written = 20_000
    while written < size_bytes:
        call = {
            "id": f"call_{written}",
            "type": "function",
            "function": {"name": "tool_1", "arguments": '{"path":"a"}'},
        }
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{written}", "content": result})
        written += len(result) + 450
    messages.append({"role": "user", "content": QUESTION})
    return msgspec.json.encode({"model": model, "messages": messages, "tools": tools, "stream": stream})


def claude_body(model: str, *, stream: bool) -> bytes:
    """What `chat_body` says, in the words of Messages."""
    return msgspec.json.encode(
        {
            "model": model,
            "max_tokens": 4096,
            "system": "You are a terse reviewer of code changes.",
            "messages": [{"role": "user", "content": QUESTION * 4}],
            "temperature": 0.2,
            "stream": stream,
        }
    )


def config_text(provider_port: int, auth_dir: str, plugins: str = "") -> str:
    """CPA's configuration: client keys, a provider of each protocol, everything else as shipped.

    *plugins* is more of its text, usually the section of that name.
    """
    models = "".join(f"      - {{name: {model}}}\n" for model in MODELS)
    return (
        f"host: 127.0.0.1\nport: 0\nauth-dir: {auth_dir}\nproxy-url: direct\n"
        f"api-keys: [{CLIENT_KEY}, another-key]\n"
        "openai-compatibility:\n"
        "  - name: mock\n"
        f"    base-url: http://127.0.0.1:{provider_port}/v1\n"
        f"    api-key-entries: [{{api-key: {PROVIDER_KEY}}}]\n"
        f"    models:\n{models}"
        f"claude-api-key:\n  - {{api-key: {PROVIDER_KEY}, base-url: 'http://127.0.0.1:{provider_port}', "
        f"models: [{{name: {CLAUDE_MODEL}, alias: {CLAUDE_MODEL}}}]}}\n"
        f"gemini-api-key:\n  - {{api-key: {PROVIDER_KEY}, base-url: 'http://127.0.0.1:{provider_port}', "
        f"models: [{{name: {GEMINI_MODEL}, alias: {GEMINI_MODEL}}}]}}\n"
        f"{plugins}"
    )
