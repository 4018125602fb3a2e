"""Texts that pass through undecoded."""

import json
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import RequestError
from cpa.formats.estimate import estimate_text
from cpa.formats.names import Format
from cpa.formats.scan import is_utf8
from cpa.translation.ir import Text
from cpa.translation.literals import LONG_BYTES, first_of, is_blank, read_text, sound
from cpa.translation.registry import translate_request
from tests.translation.support import make_context

PROTOCOLS = (Format.OPENAI, Format.OPENAI_RESPONSE, Format.CLAUDE, Format.GEMINI)
FOREIGN = list(permutations(PROTOCOLS, 2))
LONG = LONG_BYTES * 2


def raw(text: str) -> msgspec.Raw:
    """*text* as a part of a body."""
    [found] = msgspec.json.decode(msgspec.json.encode([text]), type=list[msgspec.Raw])
    return found


@given(st.text(max_size=80), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_literal_is_the_same_text(text: str, long: bool) -> None:
    """Whoever asks for the text gets it; whoever writes the literal writes it."""
    whole = text + "x" * LONG if long else text
    part = read_text(raw(whole))

    assert part is not None
    assert msgspec.json.decode(msgspec.json.encode(part.written)) == whole
    assert isinstance(part.written, msgspec.Raw) is (len(raw(whole)) >= LONG_BYTES)
    assert not part.prose or whole.lstrip(" \t\n\r")[:1].isprintable()
    assert part.text == whole
    assert part == Text(text=whole)
    assert repr(part) == repr(Text(text=whole))
    assert part != Text(text=whole + ".")


@pytest.mark.parametrize("value", [None, 1, [], {}, True, ["a" * LONG]])
def test_other_values_are_no_text(value: object) -> None:
    """A list of parts is read by others."""
    [found] = msgspec.json.decode(msgspec.json.encode([value]), type=list[msgspec.Raw])

    assert read_text(found) is None
    assert first_of(found) == msgspec.json.encode(value)[:1]


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("", True),
        (" \n", True),
        ("a", False),
        (" " * LONG, True),
        ("\n\t\r " * LONG, True),
        ("\u3000" * LONG, True),
        ("\x1f" * LONG, True),
        (" " * LONG + "a", False),
        ("\\" * LONG, False),
        ('"' * LONG, False),
        ("\u00a0" * LONG + "ä", False),
        ("\u0001" * LONG, False),
    ],
)
def test_blank_is_what_shows_nothing(text: str, blank: bool) -> None:
    """As `str.isspace`, however the text was escaped."""
    assert blank is (not text or text.isspace())
    for part in (Text(text=text), read_text(raw(text)), read_text(msgspec.Raw(json.dumps(text).encode()))):
        assert part is not None
        assert is_blank(part) is blank


@given(st.binary(max_size=40), st.integers(0, 40), st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_utf8_is_judged_as_python_does_wherever_the_pieces_are_cut(data: bytes, at: int, text: str) -> None:
    """Bodies are looked at piece by piece; characters lie across the seams."""
    body = b"a" * (8192 - at) + text.encode() + "ä€😀".encode() * 5000 + data
    try:
        body.decode()
        expected = True
    except UnicodeDecodeError:
        expected = False

    assert is_utf8(body) is expected
    assert sound(body) == body.decode("utf-8", "replace").encode()
    assert is_utf8(body[: len(body) - 1]) is is_utf8(body[8000 : len(body) - 1])


def session(client: Format, said: bytes, returned: bytes) -> bytes:
    """A body with a tool round. *said*, *returned*: the user's text and the tool's, JSON strings as they are."""
    tools: Any = {"type": "object", "properties": {"path": {"type": "string"}}}
    arguments = '{"path":"a"}'
    match client:
        case Format.OPENAI:
            call = {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": arguments}}
            body: Any = {
                "model": "m",
                "messages": [
                    {"role": "user", "content": msgspec.Raw(said)},
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "call_1", "content": msgspec.Raw(returned)},
                ],
                "tools": [{"type": "function", "function": {"name": "read", "parameters": tools}}],
            }
        case Format.OPENAI_RESPONSE:
            content = [{"type": "input_text", "text": msgspec.Raw(said)}]
            body = {
                "model": "m",
                "input": [
                    {"type": "message", "role": "user", "content": content},
                    {"type": "function_call", "call_id": "call_1", "name": "read", "arguments": arguments},
                    {"type": "function_call_output", "call_id": "call_1", "output": msgspec.Raw(returned)},
                ],
                "tools": [{"type": "function", "name": "read", "parameters": tools}],
            }
        case Format.CLAUDE:
            use = {"type": "tool_use", "id": "call_1", "name": "read", "input": {"path": "a"}}
            result = {"type": "tool_result", "tool_use_id": "call_1", "content": msgspec.Raw(returned)}
            body = {
                "model": "m",
                "max_tokens": 5,
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": msgspec.Raw(said)}]},
                    {"role": "assistant", "content": [use]},
                    {"role": "user", "content": [result]},
                ],
                "tools": [{"name": "read", "input_schema": tools}],
            }
        case _:
            response = {"name": "read", "id": "call_1", "response": {"output": msgspec.Raw(returned)}}
            body = {
                "contents": [
                    {"role": "user", "parts": [{"text": msgspec.Raw(said)}]},
                    {
                        "role": "model",
                        "parts": [{"functionCall": {"name": "read", "id": "call_1", "args": {"path": "a"}}}],
                    },
                    {"role": "user", "parts": [{"functionResponse": response}]},
                ],
                "tools": [{"functionDeclarations": [{"name": "read", "parametersJsonSchema": tools}]}],
            }
    return msgspec.json.encode(body)


def strings(value: Any) -> set[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {found for each in inner for found in strings(each)}


@pytest.mark.parametrize(("client", "provider"), FOREIGN)
def test_texts_arrive_however_they_were_escaped(client: Format, provider: Format) -> None:
    """What stands between two quotes is any spelling that JSON allows."""
    said = 'He said "größer — 😀\u2028\\n" \x00\x7f/' * 20
    returned = "Error: [1, {]}\n\t" + "line\n" * 100
    escaped = [json.dumps(text).replace("/", "\\/").encode() for text in (said, returned)]
    plain = [msgspec.json.encode(text) for text in (said, returned)]
    for spelled in (escaped, plain):
        body = session(client, *spelled)

        translated = translate_request(body, make_context(client, provider))

        assert {said, returned} <= strings(json.loads(translated))


@pytest.mark.parametrize(
    ("written", "text", "read"),
    [
        (json.dumps('{"a":"größer \\n😀"}').encode(), '{"a":"größer \\n😀"}', {"a": "größer \n😀"}),
        (
            '"{\\"a\\": \\"ä\\/\\", \\"b\\":\\t12345678901234567890}"'.encode(),
            None,
            {"a": "ä/", "b": 12345678901234567890},
        ),
        (b'"{\\"a\\":\\"\\ud800\\"}"', '{"a":"\ufffd"}', {"a": "\ufffd"}),
        (b'"{\\"a\\":\\"\\\\ud83d\\\\ude00\\"}"', '{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
        (b'""', "", {}),
        (b'" "', " ", {}),
        (b"null", "", {}),
        (b'{"a":1}', '{"a":1}', {"a": 1}),
        (b"5", "5", {"value": 5}),
        (b'"[1]"', "[1]", {"value": [1]}),
        (b'"{\\"a\\":"', '{"a":', {"_raw_arguments": '{"a":'}),
    ],
)
def test_arguments_arrive_however_they_were_written(written: bytes, text: str | None, read: Any) -> None:
    """They go from one of OpenAI's protocols to the other undecoded, and are read for all others."""
    body = session(Format.OPENAI_RESPONSE, b'"go"', b'"done"').replace(json.dumps('{"path":"a"}').encode(), written)
    sent = {
        provider: json.loads(translate_request(body, make_context(Format.OPENAI_RESPONSE, provider)))
        for provider in (Format.OPENAI, Format.CLAUDE, Format.GEMINI)
    }

    assert sent[Format.OPENAI]["messages"][1]["tool_calls"][0]["function"]["arguments"] == (
        '{"a": "ä/", "b":\t12345678901234567890}' if text is None else text
    )
    assert sent[Format.CLAUDE]["messages"][1]["content"][0]["input"] == read
    assert sent[Format.GEMINI]["contents"][1]["parts"][0]["functionCall"]["args"] == read


@pytest.mark.parametrize(("client", "provider"), FOREIGN)
@pytest.mark.parametrize("place", ["said", "returned"])
def test_no_provider_gets_what_is_not_utf8(client: Format, provider: Format, place: str) -> None:
    """A string that is skipped was not checked; it must not get through for that."""
    broken = b'"' + b"x" * LONG + b"\xff\xed\xa0\x80" + b'"'
    whole = b'"' + b"y" * LONG + b'"'
    body = session(client, *((broken, whole) if place == "said" else (whole, broken)))

    try:
        translated = translate_request(body, make_context(client, provider))
    except RequestError as exc:
        assert exc.http_status == 400  # noqa: PT017 - either will do
    else:
        assert "x" * LONG in translated.decode()


@pytest.mark.parametrize("client", [Format.OPENAI, Format.OPENAI_RESPONSE, Format.GEMINI])
def test_long_results_of_nothing_are_not_sent_to_claude_as_texts(client: Format) -> None:
    """The vendor rejects texts of white space, whatever their length."""
    blank = msgspec.json.encode(" \n" * LONG)
    body = session(client, blank, msgspec.json.encode("fine"))

    translated = translate_request(body, make_context(client, Format.CLAUDE))

    assert not any(text.isspace() for text in strings(json.loads(translated)))


def test_errors_of_tools_are_marked_in_long_texts_too() -> None:
    """Chat has no flag for them."""
    text = "no such file\n" * 40
    body = json.loads(session(Format.CLAUDE, b'"go"', msgspec.json.encode(text)))
    body["messages"][2]["content"][0]["is_error"] = True

    translated = translate_request(json.dumps(body).encode(), make_context(Format.CLAUDE, Format.OPENAI))

    assert f"Error: {text}" in strings(json.loads(translated))


@pytest.mark.parametrize("text", ["def f(x):\n\treturn 'ä'\n" * 500, "Текст по-русски. " * 300, "plain words " * 2000])
def test_long_texts_are_estimated_like_short_ones(text: str) -> None:
    """What is looked at is a sample; clients trim their history by the number."""
    whole = session(Format.CLAUDE, b'"go"', msgspec.json.encode(text))
    ctx = make_context(Format.CLAUDE, Format.OPENAI)

    translate_request(whole, ctx)

    assert ctx.estimated_input == pytest.approx(estimate_text(text), rel=0.1, abs=60)
