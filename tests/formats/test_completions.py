"""Legacy completions over Chat."""

import json

import pytest

from cpa.errors import MalformedRequest, UpstreamProtocolError
from cpa.formats.completions import from_chat, from_chat_chunk, to_chat


def test_a_prompt_becomes_one_user_message() -> None:
    body = (
        b'{"prompt":"Say hi","model":"m","max_tokens":12345678901234567890123,"temperature":0.10,"top_p":1,'
        b'"frequency_penalty":0,"presence_penalty":0,"stop":["a"],"stream":true,"logprobs":2,"top_logprobs":3,'
        b'"echo":false,"suffix":"x","best_of":2}'
    )
    chat = to_chat(body)
    assert b'"max_tokens":12345678901234567890123,"temperature":0.10' in chat
    assert json.loads(chat) == {
        "model": "m",
        "max_tokens": 12345678901234567890123,
        "temperature": 0.1,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "stop": ["a"],
        "stream": True,
        "logprobs": 2,
        "top_logprobs": 3,
        "echo": False,
        "messages": [{"role": "user", "content": "Say hi"}],
    }


def test_several_prompts_are_joined() -> None:
    assert json.loads(to_chat(b'{"prompt":["a","b"]}'))["messages"] == [{"role": "user", "content": "a\nb"}]


@pytest.mark.parametrize(
    "prompt",
    ["", ',"prompt":""', ',"prompt":" \\n"', ',"prompt":[]', ',"prompt":null', ',"prompt":[1,2]', ',"prompt":[[1]]'],
)
def test_a_prompt_without_text_is_refused(prompt: str) -> None:
    """No made-up sentence takes its place."""
    with pytest.raises(MalformedRequest) as caught:
        to_chat(f'{{"model":"m"{prompt}}}'.encode())
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"prompt":"a"', b"\xff"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        to_chat(body)


def test_an_answer_becomes_a_text_completion() -> None:
    answer = (
        b'{"id":"c1","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":'
        b'{"role":"assistant","content":"hi"},"finish_reason":"stop"},{"index":1,"message":{"content":[{"type":"text",'
        b'"text":"a"},{"text":"b"},5]}}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
    )
    assert from_chat(answer) == (
        b'{"id":"c1","object":"text_completion","created":7,"model":"m","choices":['
        b'{"index":0,"text":"hi","finish_reason":"stop","logprobs":null},'
        b'{"index":1,"text":"ab","finish_reason":null,"logprobs":null}],'
        b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
    )


@pytest.mark.parametrize(
    ("chunk", "choices", "usage"),
    [
        (b'{"choices":[{"index":0,"delta":{"content":"x"}}]}', [("x", None)], None),
        (b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}', [("", "stop")], None),
        (b'{"choices":[],"usage":{"total_tokens":3}}', [], {"total_tokens": 3}),
    ],
)
def test_chunks_become_chunks(
    chunk: bytes, choices: list[tuple[str, str | None]], usage: dict[str, int] | None
) -> None:
    converted = from_chat_chunk(chunk)
    assert converted is not None
    found = json.loads(converted)
    assert found["object"] == "text_completion"
    assert [(choice["text"], choice["finish_reason"]) for choice in found["choices"]] == choices
    assert found.get("usage") == usage


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}',
        b'{"choices":[{"delta":{"reasoning_content":"hm"}}]}',
        b"{}",
        b'{"choices":null}',
        b'{"choices":[5,{"delta":null}]}',
    ],
)
def test_chunks_that_say_nothing_are_dropped(chunk: bytes) -> None:
    assert from_chat_chunk(chunk) is None


def test_errors_pass_as_they_are() -> None:
    chunk = b'{"error":{"message":"m"}}'
    assert from_chat_chunk(chunk) is chunk


@pytest.mark.parametrize("body", [b"", b"[]", b"{"])
def test_an_answer_that_is_no_object_is_the_provider_s_fault(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        from_chat(body)
    with pytest.raises(UpstreamProtocolError):
        from_chat_chunk(body)
