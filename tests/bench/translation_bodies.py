"""What coding agents send late in a session, in the words of all four client protocols, and streams of their answers.

One session is made up first, the same for everybody: a long system text, dozens of tools with schemas, and rounds of
text, reasoning, one to three calls and their results, which are code, listings and logs. Then each protocol writes it
as its clients do. The text has quotes, tabs, backslashes and other scripts in the proportions of source code: decoders
and encoders slow down at them.
"""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

import attrs
import msgspec

from cpa.formats.names import Format
from cpa.formats.sse import split_events
from cpa.translation.context import Context
from cpa.translation.ir import BlockKind, Close, Delta, End, IREvent, Meta, Open, Start, Stop, StopReason, Tokens, Usage
from cpa.translation.profile import default_profile
from cpa.translation.registry import spoke
from cpa.translation.signatures import SignatureCache

CLIENTS: Final = (Format.OPENAI, Format.OPENAI_RESPONSE, Format.CLAUDE, Format.GEMINI)
SIZES: Final = {"300 KB": 300 << 10, "1 MB": 1 << 20}
TOOLS: Final = {"300 KB": 24, "1 MB": 60}
MODEL: Final = "bench-model"
TEXT_DELTAS, ARGUMENT_DELTAS = 200, 100
_SIGNATURES: Final = SignatureCache().of_tenant("bench")
"""Empty, but asked."""

_LINES: Final = (
    "def handle(request: Request, *, limit: int = {n}) -> Response:\n",
    '    """Answer *request*; see {w}."""\n',
    "    if request.method not in (\"GET\", 'HEAD') or limit > {n}:\n",
    '        raise HTTPError(405, f"{w} {{request.method!r}} is not allowed here")\n',
    "\tfor (size_t i = 0; i < {n}; i++) {{ buffer[i] = '\\\\0'; }}  /* {w} */\n",
    "    return Response(body=json.dumps(payload).encode(), headers=headers)\n",
    "\n",
    "  // größer als {n}: {w} — see the übersicht\n",
    "src/{w}/{w}_{n}.py:{n}:5: E501 line too long ({n} > 120 characters)\n",
    '{{"level":"info","ts":{n},"msg":"{w} started","path":"/srv/{w}/{n}"}}\n',
    "-rw-r--r-- 1 build build {n} Nov 21 11:{n} {w}.tar.gz\n",
    "        self._{w} = {{key: value for key, value in self._items.items() if value is not None}}\n",
    '  <div className="{w}" onClick={{() => setOpen(!open)}}>{w}</div>\n',
    "assert re.fullmatch(r'\\d+\\.\\d+', version), f'{w}: {{version}}'\n",
    '      - name: {w}\n        run: make {w} ARGS="--limit {n}"\n',
)
_PROSE: Final = (
    "Before you edit a file, read it, and keep to the conventions that it already follows. ",
    'Never claim that a test passes unless you ran it in this session and saw "{n} passed". ',
    "When `{w}` fails, look at the first error, not at the last one. ",
    "- Prefer small commits; explain *why* in the message, the diff says what.\n",
    "The user’s preferences come before the {w} guide’s. ",
)
_WORDS: Final = ("cache", "router", "stream", "session", "ledger", "parser", "index", "worker", "schema", "token")


@attrs.frozen
class Invocation:
    """A tool call with its result."""

    call_id: str
    name: str
    args: dict[str, Any]
    result: str
    failed: bool


@attrs.frozen
class Round:
    """One turn of the model. *user*: what was said before it, often nothing. *state*: opaque, with *thought*."""

    user: str
    thought: str
    state: str
    text: str
    calls: Sequence[Invocation]


@attrs.frozen
class Session:
    """All of it, whoever writes it down."""

    system: str
    tools: Sequence[dict[str, Any]]
    rounds: Sequence[Round]
    question: str


class _Author:
    """Makes up text; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def _fill(self, line: str) -> str:
        return line.format(n=self.random.randrange(1, 900), w=self.random.choice(_WORDS))

    def code(self, size: int) -> str:
        """About *size* characters of source code and logs."""
        lines, written = [], 0
        while written < size:
            lines.append(self._fill(self.random.choice(_LINES)))
            written += len(lines[-1])
        return "".join(lines)

    def prose(self, size: int) -> str:
        """About *size* characters of instructions."""
        sentences, written = [], 0
        while written < size:
            sentences.append(self._fill(self.random.choice(_PROSE)))
            written += len(sentences[-1])
        return "".join(sentences)

    def opaque(self, size: int) -> str:
        """Base64 of nobody's state."""
        return "".join(self.random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=size))

    def schema(self) -> dict[str, Any]:
        """What a tool takes: as agents and MCP servers write it."""
        properties: dict[str, Any] = {}
        for number in range(self.random.randrange(2, 8)):
            name = f"{self.random.choice(_WORDS)}_{number}"
            text = self.prose(self.random.randrange(40, 200))
            properties[name] = self.random.choice(
                (
                    {"type": "string", "description": text},
                    {"type": "integer", "description": text, "minimum": 0, "maximum": 1000},
                    {"type": "boolean", "description": text, "default": False},
                    {"type": "string", "enum": list(_WORDS[:5]), "description": text},
                    {
                        "type": "array",
                        "description": text,
                        "items": {
                            "type": "object",
                            "properties": {"path": {"type": "string"}, "line": {"type": "integer"}},
                            "required": ["path"],
                            "additionalProperties": False,
                        },
                    },
                )
            )
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": properties,
            "required": list(properties)[:2],
            "additionalProperties": False,
        }

    def tool(self, number: int) -> dict[str, Any]:
        """A definition: name, description, schema."""
        return {
            "name": f"{self.random.choice(_WORDS)}_tool_{number}",
            "description": self.prose(self.random.randrange(100, 900)),
            "schema": self.schema(),
        }

    def round(self, number: int, tools: Sequence[dict[str, Any]]) -> Round:
        """One turn."""
        random = self.random
        calls = [
            Invocation(
                call_id=f"call_{number:04d}{place}{random.getrandbits(64):016x}",
                name=random.choice(tools)["name"],
                args=self._args(),
                result=self.code(int(random.lognormvariate(7.6, 0.8))),
                failed=random.random() < 0.05,
            )
            for place in range(random.choice((1, 1, 1, 1, 1, 1, 1, 2, 2, 3)))
        ]
        thinks = number % 3 == 0
        return Round(
            user=self.prose(200) if number % 8 == 0 else "",
            thought=self.prose(400) if thinks else "",
            state=self.opaque(random.randrange(400, 1600)) if thinks else "",
            text=self.prose(random.randrange(60, 300)) if random.random() < 0.7 else "",
            calls=calls,
        )

    def _args(self) -> dict[str, Any]:
        path = f"/srv/project/src/{self.random.choice(_WORDS)}.py"
        kind = self.random.random()
        if kind < 0.5:
            return {"path": path, "offset": self.random.randrange(900), "limit": 200}
        if kind < 0.75:
            return {"command": self.prose(80), "timeout": 120000, "description": "Runs the tests"}
        return {"file_path": path, "old_string": self.code(400), "new_string": self.code(500), "replace_all": False}


def make_session(size_bytes: int, tools: int, *, seed: int = 7) -> Session:
    """A session that is about *size_bytes* in any protocol."""
    author = _Author(seed)
    definitions = [author.tool(number) for number in range(tools)]
    system = author.prose(12_000)
    rounds: list[Round] = []
    written = len(msgspec.json.encode(definitions)) + len(system)
    while written < size_bytes:
        rounds.append(author.round(len(rounds), definitions))
        written += len(msgspec.json.encode(attrs.asdict(rounds[-1])))
    return Session(system=system, tools=definitions, rounds=rounds, question=author.prose(300))


def write_body(session: Session, client: Format) -> bytes:
    """*session* as a client of *client* sends it: compact JSON, as SDKs write it."""
    match client:
        case Format.OPENAI:
            body = _chat(session)
        case Format.OPENAI_RESPONSE:
            body = _responses(session)
        case Format.CLAUDE:
            body = _claude(session)
        case _:
            body = _gemini(session)
    return msgspec.json.encode(body)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _chat(session: Session) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": session.system}]
    for turn in session.rounds:
        if turn.user:
            messages.append({"role": "user", "content": turn.user})
        calls = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": _json(call.args)}}
            for call in turn.calls
        ]
        messages.append({"role": "assistant", "content": turn.text or None, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call.call_id, "content": call.result} for call in turn.calls]
    messages.append({"role": "user", "content": session.question})
    tools = [
        {
            "type": "function",
            "function": {"name": tool["name"], "description": tool["description"], "parameters": tool["schema"]},
        }
        for tool in session.tools
    ]
    return {"model": MODEL, "messages": messages, "tools": tools, "stream": True, "temperature": 0.2}


def _responses(session: Session) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for turn in session.rounds:
        if turn.user:
            items.append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": turn.user}]})
        if turn.thought:
            summary = [{"type": "summary_text", "text": turn.thought}]
            items.append({"type": "reasoning", "summary": summary, "encrypted_content": "gAAAA" + turn.state})
        if turn.text:
            content = [{"type": "output_text", "text": turn.text, "annotations": []}]
            items.append({"type": "message", "role": "assistant", "content": content})
        items += [
            {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": _json(call.args)}
            for call in turn.calls
        ]
        items += [
            {"type": "function_call_output", "call_id": call.call_id, "output": call.result} for call in turn.calls
        ]
    question = [{"type": "input_text", "text": session.question}]
    items.append({"type": "message", "role": "user", "content": question})
    tools = [
        {
            "type": "function",
            "name": tool["name"],
            "description": tool["description"],
            "strict": False,
            "parameters": tool["schema"],
        }
        for tool in session.tools
    ]
    return {
        "model": MODEL,
        "instructions": session.system,
        "input": items,
        "tools": tools,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
    }


def _claude(session: Session) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for turn in session.rounds:
        if turn.user:
            _say(messages, [{"type": "text", "text": turn.user}])
        content: list[dict[str, Any]] = []
        if turn.thought:
            content.append({"type": "thinking", "thinking": turn.thought, "signature": "EqQB" + turn.state})
        if turn.text:
            content.append({"type": "text", "text": turn.text})
        content += [
            {"type": "tool_use", "id": call.call_id, "name": call.name, "input": call.args} for call in turn.calls
        ]
        messages.append({"role": "assistant", "content": content})
        _say(messages, [_tool_result(call) for call in turn.calls])
    marker = {"type": "ephemeral"}
    _say(messages, [{"type": "text", "text": session.question, "cache_control": marker}])
    tools = [
        {"name": tool["name"], "description": tool["description"], "input_schema": tool["schema"]}
        for tool in session.tools
    ]
    return {
        "model": MODEL,
        "max_tokens": 32000,
        "system": [{"type": "text", "text": session.system, "cache_control": marker}],
        "messages": messages,
        "tools": tools,
        "metadata": {"user_id": "user_1_account__session_00000000-0000-0000-0000-000000000000"},
        "stream": True,
    }


def _say(messages: list[dict[str, Any]], blocks: list[dict[str, Any]]) -> None:
    """The user's blocks, in one message with those before."""
    if messages and messages[-1]["role"] == "user":
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": "user", "content": blocks})


def _tool_result(call: Invocation) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": call.call_id, "content": call.result}
    return {**block, "is_error": True} if call.failed else block


def _gemini(session: Session) -> dict[str, Any]:
    contents: list[dict[str, Any]] = []
    for turn in session.rounds:
        if turn.user:
            contents.append({"role": "user", "parts": [{"text": turn.user}]})
        parts: list[dict[str, Any]] = []
        if turn.text:
            parts.append({"text": turn.text})
        for place, call in enumerate(turn.calls):
            part: dict[str, Any] = {"functionCall": {"id": call.call_id, "name": call.name, "args": call.args}}
            if turn.state and not place:
                part["thoughtSignature"] = turn.state
            parts.append(part)
        contents.append({"role": "model", "parts": parts})
        contents.append({"role": "user", "parts": [_function_response(call) for call in turn.calls]})
    contents.append({"role": "user", "parts": [{"text": session.question}]})
    declarations = [
        {"name": tool["name"], "description": tool["description"], "parametersJsonSchema": tool["schema"]}
        for tool in session.tools
    ]
    return {
        "systemInstruction": {"role": "user", "parts": [{"text": session.system}]},
        "contents": contents,
        "tools": [{"functionDeclarations": declarations}],
        "generationConfig": {"temperature": 0.2, "thinkingConfig": {"includeThoughts": True}},
    }


def _function_response(call: Invocation) -> dict[str, Any]:
    response = {"error" if call.failed else "output": call.result}
    return {"functionResponse": {"id": call.call_id, "name": call.name, "response": response}}


# --- contexts and streams --------------------------------------------------------------------------------------------


def make_context(client: Format, provider: Format) -> Context:
    """As the pipeline makes one for a model that nobody knows anything of."""
    return Context(
        client=client,
        provider=provider,
        client_model=MODEL,
        model="provider-model",
        stream=True,
        profile=default_profile(provider),
        signatures=_SIGNATURES,
    )


def stream_events(provider: Format) -> list[bytes]:
    """A provider's stream, one event each: a paragraph of text in small pieces, then a call's arguments."""
    emitter = spoke(provider).open_emitter(make_context(provider, provider))
    wire = b"".join(emitter.feed(event) for event in _answer(_Author(11)))
    return [event for event in split_events(wire) if event.strip()]


def _answer(author: _Author) -> Iterator[IREvent]:
    yield Start(id="answer-1", model="provider-model", created_unix=1_790_000_000)
    yield Open(b=0, kind=BlockKind.TEXT, meta=Meta())
    for _ in range(TEXT_DELTAS):
        yield Delta(b=0, s=author.code(1)[:24])
    yield Close(b=0)
    yield Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="call_1", name="edit_tool"))
    yield Delta(b=1, s='{"text":"')
    for number in range(ARGUMENT_DELTAS):
        yield Delta(b=1, s=f"piece {number} of it, ")
    yield Delta(b=1, s='"}')
    yield Close(b=1)
    yield Usage(tokens=Tokens(input=1000, output=300, total=1300))
    yield Stop(reason=StopReason.TOOL_USE)
    yield End()
