"""What a request asks, the same for all protocols.

Bodies are decoded only as far as needed: the list of messages stays raw but for its last entries, so that a large agent
body costs little more than a scan. What is wrong with a body is an `AskError`, the mock's 400.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar
from urllib.parse import parse_qs, unquote

import attrs
import msgspec

from cpa.formats.names import Format

_ENDPOINT_SUFFIXES = (
    ("/chat/completions", "chat"),
    ("/responses/compact", "compact"),
    ("/responses/input_tokens", "input_tokens"),
    ("/responses", "responses"),
    ("/messages/count_tokens", "count_tokens"),
    ("/messages", "messages"),
    ("/completions", "completions"),
    ("/embeddings", "embeddings"),
)
_GEMINI_PATH = re.compile(r"/models/(?P<model>.+):(?P<action>[A-Za-z]+)$")
_MODELS_PATH = re.compile(r"/models(?:/(?P<model>.+))?$")


class Endpoint(StrEnum):
    """What a path means, whatever prefix it carries."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    COMPACT = "compact"
    INPUT_TOKENS = "input_tokens"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    GENERATE = "generateContent"
    STREAM_GENERATE = "streamGenerateContent"
    GEMINI_COUNT = "countTokens"
    EMBED = "embedContent"
    BATCH_EMBED = "batchEmbedContents"
    EMBEDDINGS = "embeddings"
    MODELS = "models"
    HEALTH = "health"


FORMAT_OF = {
    Endpoint.MESSAGES: Format.CLAUDE,
    Endpoint.COUNT_TOKENS: Format.CLAUDE,
    Endpoint.RESPONSES: Format.OPENAI_RESPONSE,
    Endpoint.COMPACT: Format.OPENAI_RESPONSE,
    Endpoint.INPUT_TOKENS: Format.OPENAI_RESPONSE,
    Endpoint.GENERATE: Format.GEMINI,
    Endpoint.STREAM_GENERATE: Format.GEMINI,
    Endpoint.GEMINI_COUNT: Format.GEMINI,
    Endpoint.EMBED: Format.GEMINI,
    Endpoint.BATCH_EMBED: Format.GEMINI,
}
"""Protocol of an endpoint's answers and errors; absent = `Format.OPENAI`."""


@attrs.frozen
class Route:
    """A request line, understood.

    Attributes:
      model: from the path, percent-decoded; empty where the body names it.
      sse: Gemini streams: the query asks ``alt=sse``, else the answer is one JSON array.
    """

    endpoint: Endpoint
    model: str = ""
    sse: bool = True

    @property
    def format(self) -> Format:
        """Protocol of the answer."""
        return FORMAT_OF.get(self.endpoint, Format.OPENAI)


def parse_route(target: str) -> Route | None:
    """What *target* (origin form or absolute form) leads to; None = 404."""
    path, _, query = target.partition("?")
    if "://" in path:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    for suffix, name in _ENDPOINT_SUFFIXES:
        if path.endswith(suffix):
            return Route(Endpoint(name))
    if (match := _GEMINI_PATH.search(path)) is not None:
        try:
            endpoint = Endpoint(match["action"])
        except ValueError:
            return None
        options = parse_qs(query)
        sse = "sse" in (options.get("alt") or options.get("$alt") or ())
        return Route(endpoint, unquote(match["model"]), sse)
    if (match := _MODELS_PATH.search(path)) is not None:
        return Route(Endpoint.MODELS, unquote(match["model"] or ""))
    if path in ("/", "/healthz"):
        return Route(Endpoint.HEALTH)
    return None


class AskError(Exception):
    """The request cannot be answered; a provider would say 400."""


@attrs.frozen(kw_only=True)
class Tool:
    """A tool that the request offers.

    Attributes:
      kind: ``function``, or ``custom`` for free-text tools.
      schema: JSON Schema of the arguments, undecoded; empty = none.
      namespace: Responses only, empty = none.
    """

    name: str
    kind: str = "function"
    schema: bytes = b""
    namespace: str = ""


@attrs.frozen(kw_only=True)
class Ask:
    """A request, as far as the answer depends on it.

    Attributes:
      stream: of the body; for Gemini of the path.
      sse: Gemini streams only, as in `Route`.
      text: the last text that the user wrote, empty if none.
      turns: messages in the request.
      tool_result: text of the tool results that end the request; None = it does not end with one.
      tools: callable ones, in order; empty also if the request forbids calls.
      chosen_tool: name that the request demands, empty = none.
      include_usage: Chat streams: append a chunk with usage.
      encrypted: Responses: reasoning items carry encrypted content.
      echo: Responses: members of the request that the answer repeats, undecoded JSON.
    """

    model: str
    stream: bool = False
    sse: bool = True
    text: str = ""
    turns: int = 0
    tool_result: str | None = None
    tools: tuple[Tool, ...] = ()
    chosen_tool: str = ""
    include_usage: bool = False
    encrypted: bool = False
    echo: Mapping[str, bytes] = attrs.field(factory=dict)


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _ChatBody(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw] = []
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: msgspec.Raw = msgspec.Raw(b"null")


class _MessagesBody(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: msgspec.Raw = msgspec.Raw(b"null")


class _GeminiBody(msgspec.Struct):
    contents: list[msgspec.Raw] = []
    tools: msgspec.Raw = msgspec.Raw(b"null")
    toolConfig: msgspec.Raw = msgspec.Raw(b"null")
    tool_config: msgspec.Raw = msgspec.Raw(b"null")
    generateContentRequest: msgspec.Raw = msgspec.Raw(b"null")


T = TypeVar("T")

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _decode(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    return msgspec.json.decode(raw, type=kind)


def _mended(body: bytes) -> bytes:
    """*body* without lone surrogates: JSON of real clients has them, strict decoders refuse them."""
    text = json.dumps(json.loads(body), ensure_ascii=False)
    return _SURROGATE.sub("\ufffd", text).encode()


def _value(raw: bytes | msgspec.Raw) -> object:
    value: object = msgspec.json.decode(raw)
    return value


def _member(value: object, *names: str) -> object:
    """The first of *names* that the object *value* has; None if it has none or is no object."""
    if isinstance(value, dict):
        for name in names:
            if name in value:
                found: object = value[name]
                return found
    return None


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text_of(content: object) -> str:
    """Text of a message's content: a string, or the texts of its parts."""
    if isinstance(content, str):
        return content
    return "".join(_string(_member(part, "text")) for part in _items(content))


def _from_end(messages: Sequence[msgspec.Raw]) -> Iterator[object]:
    for raw in reversed(messages):
        yield _value(raw)


def _is_note(message: object) -> bool:
    """Instructions that clients add behind the last turn."""
    return _member(message, "role") in ("system", "developer")


def _is_picture(message: object) -> bool:
    """A user's message without words: what a tool returned, where results hold text only."""
    return _member(message, "role") == "user" and not _text_of(_member(message, "content"))


def _encoded(value: object) -> bytes:
    return b"" if value is None else msgspec.json.encode(value)


# --- Chat Completions and legacy completions ---------------------------------------------------------------------


def _chat_tools(raw: msgspec.Raw) -> Iterator[Tool]:
    for entry in _items(_value(raw)):
        kind = _string(_member(entry, "type")) or "function"
        inner = _member(entry, kind)
        if name := _string(_member(inner, "name")):
            yield Tool(name=name, kind=kind, schema=_encoded(_member(inner, "parameters")))


def _choice_name(choice: object) -> str:
    return _string(_member(choice, "name")) or next(
        (name for key in ("function", "custom") if (name := _string(_member(_member(choice, key), "name")))), ""
    )


def _forbids(choice: object) -> bool:
    return choice == "none" or _member(choice, "type") == "none"


def _chat(body: bytes) -> Ask:
    fields = _decode(body, _ChatBody)
    if not fields.messages:
        raise AskError("messages: expected a non-empty array")
    text, results, ended = "", [], False
    for message in _from_end(fields.messages):
        role = _member(message, "role")
        if role == "tool" and not ended:
            results.append(_text_of(_member(message, "content")))
        elif not _is_note(message) and not _is_picture(message):
            ended = True
        if role == "user" and (text := _text_of(_member(message, "content"))):
            break
    choice = _value(fields.tool_choice)
    return Ask(
        model=fields.model,
        stream=bool(fields.stream),
        text=text,
        turns=len(fields.messages),
        tool_result="\n".join(reversed(results)) if results else None,
        tools=() if _forbids(choice) else tuple(_chat_tools(fields.tools)),
        chosen_tool=_choice_name(choice),
        include_usage=bool(fields.stream_options and fields.stream_options.include_usage),
    )


def _completions(body: bytes) -> Ask:
    fields = _decode(body, _ChatBody)
    prompt = _value(fields.prompt)
    text = prompt if isinstance(prompt, str) else "\n".join(_string(entry) for entry in _items(prompt))
    include_usage = bool(fields.stream_options and fields.stream_options.include_usage)
    return Ask(model=fields.model, stream=bool(fields.stream), text=text, turns=1, include_usage=include_usage)


# --- Messages -----------------------------------------------------------------------------------------------------


def _claude_tools(raw: msgspec.Raw) -> Iterator[Tool]:
    for entry in _items(_value(raw)):
        schema = _member(entry, "input_schema")
        name = _string(_member(entry, "name"))
        if name and schema is not None and _member(entry, "defer_loading") is not True:
            yield Tool(name=name, schema=_encoded(schema))


def _claude(body: bytes) -> Ask:
    fields = _decode(body, _MessagesBody)
    if not fields.messages:
        raise AskError("messages: at least one message is required")
    text, result, last = "", None, True
    for message in _from_end(fields.messages):
        content = _member(message, "content")
        if last and not _is_note(message):
            last = False
            results = [part for part in _items(content) if _member(part, "type") == "tool_result"]
            if results:
                result = "\n".join(_text_of(_member(part, "content")) for part in results)
        if _member(message, "role") == "user" and (text := _text_of(content)):
            break
    choice = _value(fields.tool_choice)
    return Ask(
        model=fields.model,
        stream=bool(fields.stream),
        text=text,
        turns=len(fields.messages),
        tool_result=result,
        tools=() if _forbids(choice) else tuple(_claude_tools(fields.tools)),
        chosen_tool=_choice_name(choice),
    )


# --- Responses ----------------------------------------------------------------------------------------------------

ECHOED = (
    "background",
    "frequency_penalty",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)
"""Members of a Responses request that its answer repeats."""


def _responses_tools(entries: Sequence[object], namespace: str = "") -> Iterator[Tool]:
    for entry in entries:
        kind = _string(_member(entry, "type"))
        name = _string(_member(entry, "name"))
        if kind == "namespace" and not namespace:
            yield from _responses_tools(_items(_member(entry, "tools")), name)
        elif kind in ("function", "custom") and name:
            schema = _encoded(_member(entry, "parameters"))
            yield Tool(name=name, kind=kind, schema=schema, namespace=namespace)


def _read_input(items: Sequence[object]) -> tuple[str, str | None]:
    """The last user text, and the text of the results that end *items*."""
    text, results, ended = "", [], False
    for item in reversed(items):
        if _string(_member(item, "type")) in ("function_call_output", "custom_tool_call_output"):
            if not ended:
                results.append(_text_of(_member(item, "output")))
        elif not _is_note(item) and not _is_picture(item):
            ended = True
        if _member(item, "role") == "user" and (text := _text_of(_member(item, "content"))):
            break
    return text, "\n".join(reversed(results)) if results else None


def _responses(body: bytes) -> Ask:
    fields = _decode(body, dict[str, msgspec.Raw])
    model = _string(_value(fields.get("model", msgspec.Raw(b"null"))))
    if not model:
        raise AskError("model: expected a non-empty string")
    given = _value(fields.get("input", msgspec.Raw(b"null")))
    if given is None and "previous_response_id" not in fields and "prompt" not in fields:
        raise AskError("input: missing required parameter")
    items = _items(given)
    text, result = (given, None) if isinstance(given, str) else _read_input(items)
    choice = _value(fields.get("tool_choice", msgspec.Raw(b"null")))
    tools = list(_responses_tools(_items(_value(fields.get("tools", msgspec.Raw(b"null"))))))
    for item in items:
        if _member(item, "type") == "additional_tools":
            tools += _responses_tools(_items(_member(item, "tools")))
    include = _items(_value(fields.get("include", msgspec.Raw(b"null"))))
    return Ask(
        model=model,
        stream=bytes(fields.get("stream", b"")) == b"true",
        text=text,
        turns=len(items) or 1,
        tool_result=result,
        tools=() if _forbids(choice) else tuple(tools),
        chosen_tool=_choice_name(choice),
        encrypted="reasoning.encrypted_content" in include,
        echo={name: bytes(fields[name]) for name in ECHOED if name in fields},
    )


# --- Gemini -------------------------------------------------------------------------------------------------------


def _gemini_tools(raw: msgspec.Raw) -> Iterator[Tool]:
    for group in _items(_value(raw)):
        for entry in _items(_member(group, "functionDeclarations", "function_declarations")):
            schema = _member(entry, "parametersJsonSchema", "parameters_json_schema", "parameters")
            if name := _string(_member(entry, "name")):
                yield Tool(name=name, schema=_encoded(schema))


def _gemini(body: bytes, route: Route) -> Ask:
    fields = _decode(body, _GeminiBody)
    if bytes(fields.generateContentRequest) != b"null":
        fields = _decode(fields.generateContentRequest, _GeminiBody)
    if not fields.contents:
        raise AskError("* GenerateContentRequest.contents: contents is not specified")
    text, result = "", None
    for position, content in enumerate(_from_end(fields.contents)):
        parts = _items(_member(content, "parts"))
        answers = [answer for part in parts if (answer := _member(part, "functionResponse", "function_response"))]
        if answers and position == 0:
            result = "\n".join(_encoded(_member(answer, "response")).decode() for answer in answers)
        if _member(content, "role") in ("user", None) and (text := _text_of(list(parts))):
            break
    config = _value(fields.toolConfig) or _value(fields.tool_config)
    calling = _member(config, "functionCallingConfig", "function_calling_config")
    allowed = _items(_member(calling, "allowedFunctionNames", "allowed_function_names"))
    return Ask(
        model=route.model.removeprefix("models/"),
        stream=route.endpoint is Endpoint.STREAM_GENERATE,
        sse=route.sse,
        text=text,
        turns=len(fields.contents),
        tool_result=result,
        tools=() if _member(calling, "mode") == "NONE" else tuple(_gemini_tools(fields.tools)),
        chosen_tool=_string(allowed[0]) if allowed else "",
    )


class _ModelOnly(msgspec.Struct):
    model: str = ""


def _parse(route: Route, body: bytes) -> Ask:
    match route.endpoint:
        case Endpoint.CHAT:
            return _chat(body)
        case Endpoint.COMPLETIONS:
            return _completions(body)
        case Endpoint.MESSAGES | Endpoint.COUNT_TOKENS:
            return _claude(body)
        case Endpoint.RESPONSES | Endpoint.COMPACT | Endpoint.INPUT_TOKENS:
            return _responses(body)
        case Endpoint.GENERATE | Endpoint.STREAM_GENERATE | Endpoint.GEMINI_COUNT:
            return _gemini(body, route)
        case _:
            return Ask(model=route.model or _decode(body, _ModelOnly).model, text=body.decode())


def parse_ask(route: Route, body: bytes) -> Ask:
    """What *body*, sent to *route*, asks.

    Raises: AskError: no JSON, not the protocol's shape, or nested too deeply.
    """
    try:
        try:
            return _parse(route, body)
        except msgspec.ValidationError as exc:
            raise AskError(str(exc)) from exc
        except msgspec.DecodeError:
            return _parse(route, _mended(body))
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors too
        raise AskError(f"the body is not usable JSON: {exc}") from exc
