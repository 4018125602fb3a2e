"""Token counts of all protocols, whole and streamed."""

import json
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from cpa.formats.names import Format
from cpa.formats.streams import open_reader
from cpa.formats.units import provider_units
from cpa.usage.record import NO_TOKENS, Tokens
from cpa.usage.tokens import MAX_COUNT, MAX_USAGE_BYTES, RULES, TokenMeter, tokens_of_body

SAME_TURN: dict[Format, tuple[dict[str, Any], Tokens]] = {
    Format.CLAUDE: (
        {
            "input_tokens": 120,
            "cache_read_input_tokens": 800,
            "cache_creation_input_tokens": 80,
            "output_tokens": 60,
            "output_tokens_details": {"thinking_tokens": 25},
        },
        Tokens(
            input_tokens=120,
            output_tokens=60,
            reasoning_tokens=25,
            cache_read_tokens=800,
            cache_creation_tokens=80,
            total_tokens=1060,
        ),
    ),
    Format.OPENAI: (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 60,
            "total_tokens": 1060,
            "prompt_tokens_details": {"cached_tokens": 800, "cache_write_tokens": 80},
            "completion_tokens_details": {"reasoning_tokens": 25},
        },
        Tokens(
            input_tokens=1000,
            output_tokens=60,
            reasoning_tokens=25,
            cache_read_tokens=800,
            cache_creation_tokens=80,
            total_tokens=1060,
        ),
    ),
    Format.OPENAI_RESPONSE: (
        {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 800, "cache_write_tokens": 80},
            "output_tokens": 60,
            "output_tokens_details": {"reasoning_tokens": 25},
            "total_tokens": 1060,
        },
        Tokens(
            input_tokens=1000,
            output_tokens=60,
            reasoning_tokens=25,
            cache_read_tokens=800,
            cache_creation_tokens=80,
            total_tokens=1060,
        ),
    ),
    Format.GEMINI: (
        {
            "promptTokenCount": 1000,
            "cachedContentTokenCount": 800,
            "candidatesTokenCount": 35,
            "thoughtsTokenCount": 25,
            "totalTokenCount": 1060,
        },
        Tokens(
            input_tokens=1000,
            output_tokens=35,
            reasoning_tokens=25,
            cache_read_tokens=800,
            total_tokens=1060,
        ),
    ),
}
SAME_TURN[Format.CODEX] = SAME_TURN[Format.OPENAI_RESPONSE]
"""The same turn in every dialect (translation 3.4): usage objects and what they mean (proxy 7.3)."""
MEMBER = {fmt: "usageMetadata" if fmt is Format.GEMINI else "usage" for fmt in Format}
FORMATS = pytest.mark.parametrize("fmt", list(Format), ids=str)


def compact(value: Any) -> bytes:
    """JSON as providers write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def sse(*events: Any, named: bool = False, line: bytes = b"\n") -> bytes:
    """Events of a provider's stream."""
    out = b""
    for event in events:
        if named:
            out += b"event: " + event["type"].encode() + line
        out += b"data: " + (event if isinstance(event, bytes) else compact(event)) + line * 2
    return out


def chat_chunk(delta: Any, **members: Any) -> dict[str, Any]:
    """A chunk with one choice."""
    choices = [{"index": 0, "delta": delta, "finish_reason": members.pop("finish", None)}]
    return {"id": "x1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **members}


def gemini_frame(text: str, usage: Any, **candidate: Any) -> dict[str, Any]:
    """A frame; Google's all carry usage."""
    content = {"role": "model", "parts": [{"text": text}]}
    return {"candidates": [{"content": content, "index": 0, **candidate}], "usageMetadata": usage}


def response(kind: str, usage: Any, **members: Any) -> dict[str, Any]:
    """A Responses event with the response in it."""
    full = {"id": "resp_1", "status": "completed", "max_output_tokens": None, "output": [], "usage": usage, **members}
    return {"type": f"response.{kind}", "sequence_number": 1, "response": full}


@attrs.frozen(kw_only=True)
class Case:
    """A provider's stream and what it cost."""

    fmt: Format
    stream: bytes
    tokens: Tokens


TRAP = 'she said "usage" and {"usage":{"prompt_tokens":9999999}} and "usageMetadata":{"promptTokenCount":9}'
CHAT_USAGE, CHAT_TOKENS = SAME_TURN[Format.OPENAI]
R_USAGE, R_TOKENS = SAME_TURN[Format.OPENAI_RESPONSE]
A_USAGE, A_TOKENS = SAME_TURN[Format.CLAUDE]
G_USAGE, G_TOKENS = SAME_TURN[Format.GEMINI]

STREAMS: dict[str, Case] = {
    "chat, usage in the last chunk": Case(
        fmt=Format.OPENAI,
        stream=sse(
            chat_chunk({"role": "assistant", "content": ""}, usage=None),
            chat_chunk({"content": TRAP}, usage=None),
            chat_chunk({"content": "usage"}, usage=None),
            chat_chunk({}, finish="stop", usage=None),
            {"id": "x1", "choices": [], "usage": CHAT_USAGE},
            b"[DONE]",
        ),
        tokens=CHAT_TOKENS,
    ),
    "chat, usage in every chunk": Case(
        fmt=Format.OPENAI,
        stream=sse(
            chat_chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}),
            chat_chunk({"content": "b"}, usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}),
            chat_chunk({}, finish="stop", usage={"prompt_tokens": 5, "completion_tokens": 3}),
            b"[DONE]",
        ),
        tokens=Tokens(input_tokens=5, output_tokens=3, total_tokens=8),
    ),
    "chat, no usage at all": Case(
        fmt=Format.OPENAI,
        stream=sse(chat_chunk({"content": TRAP}), chat_chunk({}, finish="stop"), b"[DONE]"),
        tokens=NO_TOKENS,
    ),
    "responses, completed": Case(
        fmt=Format.OPENAI_RESPONSE,
        stream=sse(
            response("created", None, status="in_progress"),
            response("in_progress", None, status="in_progress"),
            {"type": "response.output_text.delta", "delta": TRAP},
            response("completed", R_USAGE),
            named=True,
        ),
        tokens=R_TOKENS,
    ),
    "codex, incomplete": Case(
        fmt=Format.CODEX,
        stream=sse(
            response("created", None, status="in_progress"),
            {"type": "response.output_text.delta", "delta": "x"},
            response("incomplete", R_USAGE, status="incomplete"),
            named=True,
        ),
        tokens=R_TOKENS,
    ),
    "claude, input first and output last": Case(
        fmt=Format.CLAUDE,
        stream=sse(
            {"type": "message_start", "message": {"id": "m", "usage": {**A_USAGE, "output_tokens": 1}}},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TRAP}},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 60, "input_tokens": None, "cache_read_input_tokens": None},
            },
            {"type": "message_stop"},
            named=True,
        ),
        tokens=A_TOKENS,
    ),
    "claude, everything twice, the last one counts": Case(
        fmt=Format.CLAUDE,
        stream=sse(
            {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 0}}},
            {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 7, "output_tokens": 20}},
            {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 9, "output_tokens": 31}},
            {"type": "message_stop"},
            named=True,
            line=b"\r\n",
        ),
        tokens=Tokens(input_tokens=9, output_tokens=31, total_tokens=40),
    ),
    "gemini, usage in every frame": Case(
        fmt=Format.GEMINI,
        stream=sse(
            gemini_frame("look", {"promptTokenCount": 1000, "totalTokenCount": 1000}),
            gemini_frame(TRAP, {"promptTokenCount": 1000, "candidatesTokenCount": 7, "totalTokenCount": 1007}),
            gemini_frame("", G_USAGE, finishReason="STOP"),
        ),
        tokens=G_TOKENS,
    ),
    "gemini, usage before the end, tools read and no total": Case(
        fmt=Format.GEMINI,
        stream=sse(
            gemini_frame("x", {"trafficType": "ON_DEMAND"}),
            gemini_frame(
                "y",
                {
                    "promptTokenCount": 10,
                    "toolUsePromptTokenCount": 3,
                    "candidatesTokenCount": 4,
                    "thoughtsTokenCount": 5,
                },
            ),
            gemini_frame("", {"trafficType": "ON_DEMAND"}, finishReason="STOP"),
        ),
        tokens=Tokens(input_tokens=13, output_tokens=4, reasoning_tokens=5, total_tokens=22),
    ),
}
CASES = pytest.mark.parametrize("case", STREAMS.values(), ids=STREAMS.keys())


def metered(fmt: str, blocks: Sequence[bytes]) -> Tokens:
    """What a meter makes of *blocks*."""
    meter = TokenMeter(fmt)
    for block in blocks:
        meter.feed(block)
    return meter.tokens


@FORMATS
def test_the_same_turn_costs_what_each_protocol_says(fmt: Format) -> None:
    """What includes what differs; the columns are those of proxy 7.3."""
    usage, tokens = SAME_TURN[fmt]
    body = {"id": "x", "text": TRAP, MEMBER[fmt]: usage}
    assert tokens_of_body(fmt, compact(body)) == tokens
    assert tokens_of_body(fmt, json.dumps(body, indent=2).encode()) == tokens


@FORMATS
def test_a_missing_total_is_the_sum_that_the_protocol_means(fmt: Format) -> None:
    """Claude's cache and Gemini's thoughts are outside, the others' are not."""
    usage, tokens = SAME_TURN[fmt]
    rest = {name: value for name, value in usage.items() if name not in ("total_tokens", "totalTokenCount")}
    assert tokens_of_body(fmt, compact({MEMBER[fmt]: rest})) == tokens


def test_only_a_total_is_kept_as_it_is() -> None:
    """Some gateways say no more."""
    assert tokens_of_body(Format.OPENAI, b'{"usage":{"total_tokens":12}}') == Tokens(total_tokens=12)


def test_cached_tokens_are_reads_or_else_writes() -> None:
    """The one number that collectors have known for long."""
    assert Tokens(cache_read_tokens=3, cache_creation_tokens=4).cached_tokens == 3
    assert Tokens(cache_creation_tokens=4).cached_tokens == 4
    assert NO_TOKENS.cached_tokens == 0


@pytest.mark.parametrize("fmt", ["", "acme-protocol", "interactions"])
def test_a_protocol_that_nobody_knows_has_no_counts(fmt: str) -> None:
    """Plugins may invent some."""
    body = compact({"usage": CHAT_USAGE})
    assert tokens_of_body(fmt, body) == metered(fmt, [b"data: " + body + b"\n\n"]) == NO_TOKENS


def test_wrapped_gemini_answers_are_unwrapped() -> None:
    """Some hosts put the answer under a root of its own."""
    wrapped = {"response": {"candidates": [], "usageMetadata": G_USAGE}}
    assert tokens_of_body(Format.GEMINI, compact(wrapped)) == G_TOKENS
    assert metered(Format.GEMINI, [sse(wrapped)]) == G_TOKENS


@CASES
def test_streams_are_metered_wherever_they_are_cut(case: Case) -> None:
    """Through the reader that relays them, whole, byte by byte and at every single place."""

    def relayed(chunks: Sequence[bytes]) -> Tokens:
        reader = open_reader(case.fmt)
        return metered(case.fmt, [*[reader.feed(chunk) for chunk in chunks], reader.finish()])

    stream = case.stream
    assert relayed([stream]) == case.tokens
    assert relayed([stream[at : at + 1] for at in range(len(stream))]) == case.tokens
    for at in range(1, len(stream)):
        assert relayed([stream[:at], stream[at:]]) == case.tokens


@CASES
def test_units_of_plugins_are_metered_as_well(case: Case) -> None:
    """A plugin's executor answers with units instead of wire events (plugin-abi 6.16)."""
    assert metered(case.fmt, provider_units(case.fmt, case.stream)) == case.tokens


def test_counts_of_a_stream_that_breaks_off_are_those_so_far() -> None:
    """What had been stated, and nothing made up."""
    start, *_ = STREAMS["claude, input first and output last"].stream.split(b"\n\n")
    assert metered(Format.CLAUDE, [start + b"\n\n"]) == Tokens(
        input_tokens=120,
        output_tokens=1,
        reasoning_tokens=25,
        cache_read_tokens=800,
        cache_creation_tokens=80,
        total_tokens=1001,
    )
    frames = STREAMS["gemini, usage in every frame"].stream.split(b"\n\n")
    assert metered(Format.GEMINI, [frames[0] + b"\n\n", frames[1] + b"\n\n"]) == Tokens(
        input_tokens=1000, output_tokens=7, total_tokens=1007
    )


def test_a_failed_response_says_what_it_cost() -> None:
    """Readers keep that event back; whoever meters feeds its frame."""
    reader = open_reader(Format.CODEX)
    failed = response("failed", R_USAGE, status="failed", error={"code": "server_error", "message": "broken"})
    stream = sse(response("created", None, status="in_progress"), failed, named=True)
    block = reader.feed(stream)
    assert reader.fault is not None
    assert metered(Format.CODEX, [block]) == NO_TOKENS
    assert metered(Format.CODEX, [block, reader.fault.frame]) == R_TOKENS


def test_counts_may_be_asked_for_at_any_time() -> None:
    """Looking changes nothing, also between blocks."""
    case = STREAMS["gemini, usage in every frame"]
    meter = TokenMeter(case.fmt)
    for frame in case.stream.split(b"\n\n"):
        meter.feed(frame + b"\n\n")
        assert meter.tokens == meter.tokens
    assert meter.tokens == case.tokens


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ('{"prompt_tokens":12.0,"completion_tokens":3}', Tokens(input_tokens=12, output_tokens=3, total_tokens=15)),
        ('{"prompt_tokens":-12,"completion_tokens":3}', Tokens(output_tokens=3, total_tokens=3)),
        ('{"prompt_tokens":"12","completion_tokens":true}', NO_TOKENS),
        ('{"prompt_tokens":1.5,"completion_tokens":null}', NO_TOKENS),
        ('{"prompt_tokens":123456789012345678901234567890}', NO_TOKENS),
        (f'{{"prompt_tokens":{MAX_COUNT}}}', Tokens(input_tokens=MAX_COUNT, total_tokens=MAX_COUNT)),
        ('{"prompt_tokens":7,"prompt_tokens_details":[1]}', Tokens(input_tokens=7, total_tokens=7)),
        ('{"prompt_tokens":7,"prompt_tokens_details":{"cached_tokens":{}}}', Tokens(input_tokens=7, total_tokens=7)),
        ('{"prompt_tokens":1,"prompt_tokens":2}', Tokens(input_tokens=2, total_tokens=2)),
        ("[1]", NO_TOKENS),
        ('"x_tokens"', NO_TOKENS),
        ("1e999", NO_TOKENS),
        ("{", NO_TOKENS),
        ('{"prompt_tokens":7,"pad":"' + "x" * MAX_USAGE_BYTES + '"}', NO_TOKENS),
        ('{"a":' + "[" * 5000 + "]" * 5000 + ',"prompt_tokens":1}', NO_TOKENS),
    ],
)
def test_nonsense_is_the_same_as_nothing(usage: str, tokens: Tokens) -> None:
    """A provider's usage is information, never a reason to fail."""
    body = b'{"id":"x","usage":' + usage.encode() + b"}"
    assert tokens_of_body(Format.OPENAI, body) == tokens
    assert metered(Format.OPENAI, [b"data: " + body + b"\n\n"]) == tokens


def test_what_strict_decoders_refuse_is_read_all_the_same() -> None:
    """A byte order mark, and half a surrogate pair in the text."""
    body = rb'{"text":"\ud83d","usage":{"prompt_tokens":3}}'
    assert tokens_of_body(Format.OPENAI, b"\xef\xbb\xbf" + body).input_tokens == 3
    assert metered(Format.OPENAI, [b"data: " + body + b"\n\n"]).input_tokens == 3


_NUMBERS = st.one_of(st.integers(), st.floats(), st.none(), st.booleans(), st.text(max_size=4), st.just({}))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_comes_counts_are_never_negative_and_fit(data: st.DataObject) -> None:
    """Objects that look like usage, with anything in them, in any place of any protocol."""
    fmt = data.draw(st.sampled_from(list(Format)))
    rule = RULES[fmt]
    usage: dict[str, Any] = {}
    for path in data.draw(st.lists(st.sampled_from(list(rule.paths.values())))):
        value = data.draw(_NUMBERS)
        usage[path[0]] = value if len(path) == 1 else {path[1]: value}
    event: Any = {rule.member: data.draw(st.one_of(st.just(usage), _NUMBERS))}
    if rule.inside and data.draw(st.booleans()):
        event = {rule.inside: data.draw(st.one_of(st.just(event), _NUMBERS))}
    body = compact(event)
    for tokens in (tokens_of_body(fmt, body), metered(fmt, [b"data: " + body + b"\n\n"])):
        assert all(0 <= count < 2**63 for count in structs.astuple(tokens))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(Format)),
    st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from(
                [b'{"usage":', b'"usageMetadata":{', b'"prompt_tokens":1', b'"TokenCount":', b"data: ", b"\n\n", b"}"]
            ),
        ),
        max_size=12,
    ),
)
def test_bytes_never_raise(fmt: Format, pieces: list[bytes]) -> None:
    """Whole, and as blocks."""
    joined = b"".join(pieces)
    for tokens in (tokens_of_body(fmt, joined), metered(fmt, pieces), metered(fmt, [joined])):
        assert min(structs.astuple(tokens)) >= 0
