"""Chat providers' answers as events (translation 4.3, 3.3, 3.4)."""

import json
from typing import Any

import pytest

from cpa.errors import UpstreamProtocolError
from cpa.translation.chat import SPOKE
from cpa.translation.context import Names
from cpa.translation.ir import (
    Ann,
    BlockKind,
    Channel,
    Close,
    Delta,
    End,
    Err,
    Meta,
    Open,
    Provenance,
    Sampling,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    Usage,
)
from cpa.translation.signatures import wrap
from tests.translation.chat.support import (
    CHAT,
    CLAUDE,
    GPT,
    PNG,
    blocks,
    chunk,
    context,
    lost,
    opened,
    raw_events,
    read,
    read_full,
    reason,
    request,
    tool,
)


def test_the_worked_stream() -> None:
    """4.11: interleaved calls, late arguments, usage after the end."""
    found = read(
        chunk({"role": "assistant", "reasoning_content": "plan"}),
        chunk(tool(0, id="c0", type="function", name="read", arguments="")),
        chunk(tool(1, id="c1", type="function", name="list", arguments='{"d"')),
        chunk(
            {
                "tool_calls": [
                    {"index": 0, "function": {"arguments": '{"p":"a"}'}},
                    {"index": 1, "function": {"arguments": ":1}"}},
                ]
            }
        ),
        chunk(finish="tool_calls"),
        {
            "id": "x",
            "choices": [],
            "usage": {
                "prompt_tokens": 50,
                "completion_tokens": 20,
                "total_tokens": 70,
                "prompt_tokens_details": {"cached_tokens": 30},
            },
        },
    )
    assert found[0] == Start(id="chatcmpl-x1", model="m", created_unix=7)
    assert blocks(found) == [("reasoning", "plan"), ("tool", '{"p":"a"}'), ("tool", '{"d":1}')]
    assert [(meta.call_id, meta.name) for meta in opened(found)] == [("c0", "read"), ("c1", "list")]
    assert reason(found) is StopReason.TOOL_USE
    usage = next(event.tokens for event in found if isinstance(event, Usage))
    assert (usage.input, usage.cached, usage.output) == (50, 30, 20)
    assert found[-1] == End()
    # The first call's name was told as soon as the second began.
    kinds = [(type(event).__name__, getattr(event, "b", None)) for event in found]
    assert kinds.index(("Open", 1)) < kinds.index(("Open", 2)) < kinds.index(("Delta", 2))


# --- text and reasoning ---


def test_content_and_finish_in_one_chunk() -> None:
    """Cases 111 and 112: null and empty reasons are none."""
    found = read(
        chunk({"content": "a"}),
        {**chunk({"content": "b"}), "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": ""}]},
        chunk({"content": "c"}, finish="stop"),
    )
    assert blocks(found) == [("text", "abc")]
    assert [type(event) for event in found if isinstance(event, Stop | Close)] == [Close, Stop]


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "r"},
        {"reasoning": "r"},
        {"reasoning_content": "r", "reasoning": "r"},
        {"reasoning": "r", "reasoning_details": [{"type": "reasoning.text", "text": "r", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "r", "index": 0}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "r"}]}]},
    ],
)
def test_reasoning_in_all_spellings(delta: Any) -> None:
    found = read(chunk(delta), chunk({"content": "a"}, finish="stop"))
    assert blocks(found) == [("reasoning", "r"), ("text", "a")]
    assert opened(found, BlockKind.REASONING)[0].channel is Channel.RAW
    kinds = [type(event) for event in found]
    assert kinds.index(Close) < kinds.index(Open, 2)


def test_reasoning_after_text_is_a_block_of_its_own() -> None:
    """Case 151."""
    deltas = [{"reasoning_content": "r"}, {"content": "a"}, {"reasoning_content": "s"}, {"content": "b"}]
    assert blocks(read(*map(chunk, deltas), chunk(finish="stop"))) == [
        ("reasoning", "r"),
        ("text", "a"),
        ("reasoning", "s"),
        ("text", "b"),
    ]


def test_a_signature_belongs_to_the_reasoning_before_it() -> None:
    detail = {"type": "reasoning.text", "signature": "EsSig", "format": "anthropic-claude-v1", "index": 0}
    found = read(
        chunk({"reasoning": "r"}),
        chunk({"reasoning_details": [detail]}),
        chunk({"reasoning": "s"}),
        chunk({"reasoning_details": [detail | {"signature": "EsTwo"}], "content": "a"}, finish="stop"),
    )
    assert blocks(found) == [("reasoning", "r"), ("reasoning", "s"), ("text", "a")]
    assert [(event.b, event.sig) for event in found if isinstance(event, SigEvent)] == [
        (0, Sig(Provenance.CLAUDE, SigKind.THINKING, "EsSig")),
        (1, Sig(Provenance.CLAUDE, SigKind.THINKING, "EsTwo")),
    ]


def test_encrypted_and_redacted_reasoning() -> None:
    details = [
        {"type": "reasoning.summary", "summary": "s", "index": 0},
        {"type": "reasoning.encrypted", "data": GPT, "format": "openai-responses-v1", "index": 1},
        {"type": "reasoning.encrypted", "data": "EsRedacted", "format": "anthropic-claude-v1", "index": 2},
    ]
    found = read(chunk({"reasoning_details": details}), chunk({"content": "a"}, finish="stop"))
    assert blocks(found) == [("reasoning", "s"), ("reasoning", ""), ("text", "a")]
    first, second = opened(found, BlockKind.REASONING)
    assert (first.channel, first.redacted, second.redacted) == (Channel.SUMMARY, False, True)
    sigs = [event.sig for event in found if isinstance(event, SigEvent)]
    assert [(sig.kind, sig.data) for sig in sigs] == [(SigKind.ENCRYPTED, GPT), (SigKind.REDACTED, "EsRedacted")]


def test_a_signature_without_reasoning_is_kept() -> None:
    """Case 128."""
    detail = {"type": "reasoning.encrypted", "data": GPT, "format": "openai-responses-v1", "index": 0}
    found = read(chunk({"reasoning_details": [detail]}), chunk({"content": "a"}, finish="stop"))
    assert blocks(found) == [("reasoning", ""), ("text", "a")]


def test_carriers_of_ours_come_back() -> None:
    """A provider that is another proxy of this kind."""
    sig = Sig(Provenance.GEMINI, SigKind.PART, "Q0FGRQ==", preceding=True)
    detail = {"type": "reasoning.encrypted", "data": wrap(sig), "index": 0}
    found = read(chunk({"content": "a"}), chunk({"reasoning_details": [detail]}), chunk(finish="stop"))
    assert [event for event in found if isinstance(event, SigEvent)] == [SigEvent(b=0, sig=sig)]


def test_refusal() -> None:
    """Case 134 and 3.3."""
    found = read(chunk({"refusal": "I "}), chunk({"refusal": "won't"}, finish="stop"))
    assert blocks(found) == [("refusal", "I won't")]
    assert reason(found) is StopReason.REFUSAL
    assert reason(read(chunk({"refusal": "x", "content": "y"}, finish="stop"))) is StopReason.STOP


def test_images_and_audio() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    found = read(
        chunk({"images": [image]}),
        chunk({"images": [image]}),
        chunk({"audio": {"id": "audio_1", "data": "AAAA"}}),
        chunk({"audio": {"data": "BBBB"}}),
        chunk({"audio": {"transcript": "hey"}}, finish="stop"),
    )
    assert blocks(found) == [("image", PNG), ("audio", "AAAABBBB"), ("text", "hey")]
    assert opened(found, BlockKind.IMAGE)[0].mime == "image/png"


def test_citations_count_from_their_block() -> None:
    """3.5: Chat counts from the message's beginning; they come when the text closes."""
    cite = {
        "type": "url_citation",
        "url_citation": {"url": "https://x", "title": "X", "start_index": 3, "end_index": 5},
    }
    found = read(
        chunk({"content": "abc", "annotations": []}),
        chunk({"reasoning_content": "r"}),
        chunk({"content": "def"}),
        chunk({"annotations": [cite]}, finish="stop"),
    )
    [annotation] = [event for event in found if isinstance(event, Ann)]
    assert (annotation.b, annotation.annotation.start, annotation.annotation.end) == (2, 0, 2)
    ctx = context(CLAUDE, CHAT)
    read(chunk({"annotations": [cite]}), chunk({"refusal": "a"}, finish="stop"), ctx=ctx)
    assert lost(ctx) == ["annotations"]


# --- calls ---


def test_two_ids_at_index_zero_are_two_calls() -> None:
    """Case 108."""
    found = read(
        chunk(tool(0, id="a", name="f", arguments="{}")),
        chunk(tool(0, id="b", name="g", arguments='{"x"')),
        chunk(tool(0, arguments=":1}"), finish="tool_calls"),
    )
    assert blocks(found) == [("tool", "{}"), ("tool", '{"x":1}')]
    assert [meta.call_id for meta in opened(found)] == ["a", "b"]


def test_late_and_repeated_names() -> None:
    """Cases 109 and 122: arguments wait for the name."""
    found = read(
        chunk(tool(0, id="a", name="", arguments='{"x"')),
        chunk(tool(0, name="f", arguments=":")),
        chunk(tool(0, name="f", arguments="1}"), finish="tool_calls"),
    )
    assert blocks(found) == [("tool", '{"x":1}')]
    assert [meta.name for meta in opened(found)] == ["f"]


def test_a_name_in_pieces_is_put_together_only_if_the_whole_is_declared() -> None:
    ctx = context(CLAUDE, CHAT)
    ctx.names = Names(client={"get_weather": ("", "get_weather")})
    pieces = [chunk(tool(0, id="a", name="get_")), chunk(tool(0, name="weather", arguments="{}"), finish="tool_calls")]
    assert [meta.name for meta in opened(read(*pieces, ctx=ctx))] == ["get_weather"]
    assert [meta.name for meta in opened(read(*pieces))] == ["get_"]


@pytest.mark.parametrize("call_id", [None, 5, "", {"a": 1}])
def test_ids_that_are_none_are_made(call_id: Any) -> None:
    """Case 110: once, and stable."""
    found = read(
        chunk(tool(0, id=call_id, name="f", arguments="{")),
        chunk(tool(0, id=call_id, arguments="}"), finish="tool_calls"),
    )
    assert [meta.call_id for meta in opened(found)] == ["toolu_" + f"{1:024d}"]
    assert blocks(found) == [("tool", "{}")]


def test_entries_without_an_index() -> None:
    found = read(
        chunk(tool(None, id="a", name="f", arguments="{")),
        chunk(tool(None, id="b", name="g", arguments="[")),
        chunk(tool(None, id="a", arguments="}")),
        chunk(tool(None, arguments="]"), finish="tool_calls"),
    )
    assert blocks(found) == [("tool", "{}"), ("tool", "[]")]


@pytest.mark.parametrize(
    ("arguments", "text"), [({"a": [1]}, '{"a": [1]}'), (None, ""), ("", ""), (5, "5"), ([], "[]")]
)
def test_arguments_that_are_no_string(arguments: Any, text: str) -> None:
    assert blocks(read(chunk(tool(0, id="a", name="f", arguments=arguments), finish="tool_calls"))) == [("tool", text)]


def test_calls_without_a_name() -> None:
    ctx = context(CLAUDE, CHAT)
    found = read(chunk(tool(0, id="a", arguments="{}")), chunk(tool(1, id="b")), chunk(finish="tool_calls"), ctx=ctx)
    assert [meta.name for meta in opened(found)] == ["unknown_tool"]
    assert lost(ctx) == ["tool_calls"]


def test_legacy_function_calls() -> None:
    found = read(
        chunk({"function_call": {"name": "f", "arguments": "{"}}),
        chunk({"function_call": {"arguments": "}"}}),
        chunk(finish="function_call"),
    )
    assert blocks(found) == [("tool", "{}")]
    assert reason(found) is StopReason.TOOL_USE


def test_custom_calls() -> None:
    found = read(
        chunk({"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "edit", "input": "fr"}}]}),
        chunk({"tool_calls": [{"index": 0, "custom": {"input": "ee"}}]}, finish="tool_calls"),
    )
    assert blocks(found) == [("custom_tool", "free")]


def test_signatures_of_googles_own_host() -> None:
    extra = {"google": {"thought_signature": "Q0FGRQ=="}}
    found = read(chunk(tool(0, id="a", name="f", arguments="{}", extra_content=extra), finish="stop"))
    sig = Sig(Provenance.GEMINI, SigKind.PART, "Q0FGRQ==", of_call=True)
    assert [event for event in found if isinstance(event, SigEvent)] == [SigEvent(b=0, sig=sig)]


def test_text_after_a_call_is_another_block() -> None:
    """Case 150."""
    found = read(
        chunk({"content": "a"}),
        chunk(tool(0, id="a", name="f", arguments="{}")),
        chunk({"content": "b"}, finish="tool_calls"),
    )
    assert blocks(found) == [("text", "a"), ("tool", "{}"), ("text", "b")]


# --- ends ---


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", StopReason.STOP),
        ("length", StopReason.MAX_TOKENS),
        ("max_tokens", StopReason.MAX_TOKENS),
        ("content_filter", StopReason.REFUSAL),
        ("tool_calls", StopReason.STOP),
        ("eos", StopReason.STOP),
        ("weird", StopReason.OTHER),
    ],
)
def test_finish_reasons(finish: str, expected: StopReason) -> None:
    assert reason(read(chunk({"content": "a"}, finish=finish))) is expected


def test_calls_make_a_plain_stop_a_tool_stop_and_a_limit_stays_one() -> None:
    """3.3 rules 1 and E8, case 125."""
    called = chunk(tool(0, id="a", name="f", arguments='{"x'))
    assert reason(read(called, chunk(finish="stop"))) is StopReason.TOOL_USE
    found = read(called, chunk(finish="length"))
    assert reason(found) is StopReason.MAX_TOKENS
    assert [event.incomplete for event in found if isinstance(event, Close)] == [True]


def test_a_stop_sequence_that_the_host_names() -> None:
    ctx = context(CLAUDE, CHAT)
    ctx.request = request(sampling=Sampling(stop=["END"]))
    ended = chunk({"content": "a"}, finish="stop")
    ended["choices"][0]["stop_reason"] = "END"
    [stop] = [event for event in read(ended, ctx=ctx) if isinstance(event, Stop)]
    assert (stop.reason, stop.sequence) == (StopReason.STOP_SEQUENCE, "END")


def test_done_first_is_an_empty_answer_and_frames_after_it_are_ignored() -> None:
    """Cases 115 and 116."""
    [error] = read(done=True)
    assert isinstance(error, Err)
    assert (error.status, error.code) == (502, "empty_stream")
    found = raw_events(chunk({"content": "a"}, finish="stop"), b"[DONE]", chunk({"content": "b"}), b"not json")
    assert blocks(found) == [("text", "a")]
    assert found[-1] == End()


def test_the_end_without_a_finish_is_a_truncation() -> None:
    """Case 117; ``[DONE]`` says that it was all."""
    found = read(chunk({"content": "a"}), done=False)
    assert isinstance(found[-1], Err)
    assert found[-1].status == 502
    assert isinstance(read(chunk({"content": "a"}, finish="stop"), done=False)[-1], End)
    assert isinstance(read(chunk({"content": "a"}), done=True)[-1], End)


def test_usage_on_every_chunk_and_where_hosts_put_it() -> None:
    """Cases 113 and 114: the last counts."""
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    found = read(
        {**chunk({"content": "a"}), "usage": None},
        {**chunk({"content": "b"}), "usage": usage},
        {**chunk(finish="stop"), "usage": usage | {"completion_tokens": 2}, "service_tier": "default"},
    )
    last = [event.tokens for event in found if isinstance(event, Usage)][-1]
    assert (last.input, last.output, last.tier) == (5, 2, "standard")
    ended = chunk({"content": "a"}, finish="stop")
    ended["choices"][0]["usage"] = usage
    assert [event.tokens.output for event in read(ended) if isinstance(event, Usage)] == [1]


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        ({"error": {"message": "slow", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}, 429, None),
        ({"error": {"message": "slow", "code": 429}, "choices": []}, 429, None),
        ({"error": "slow"}, 502, None),
        ({"type": "error", "message": "slow"}, 502, None),
        ({"message": "slow", "status": 503}, 503, None),
        ({"detail": "slow"}, 502, None),
        ([{"error": {"code": 400, "message": "slow", "status": "INVALID_ARGUMENT"}}], 400, None),
    ],
)
def test_errors_in_a_stream(data: Any, status: int, code: str | None) -> None:
    found = read(chunk({"content": "a"}), data)
    assert isinstance(found[-1], Err)
    assert (found[-1].status, found[-1].message) == (status, "slow")


def test_an_answer_that_ends_with_an_error() -> None:
    found = read(chunk({"content": "a"}), chunk(finish="error"))
    assert isinstance(found[-1], Err)


def test_no_error_is_none() -> None:
    found = read({**chunk({"content": "a"}, finish="stop"), "error": None})
    assert found[-1] == End()


@pytest.mark.parametrize("data", [b"hello", b"{", b"5", b'"a"', b"\xff", b"[1]", b"[]", b"null"])
def test_what_is_no_json_object_is_an_error(data: bytes) -> None:
    found = read(chunk({"content": "a"}), data)
    assert isinstance(found[-1], Err)
    assert found[-1].status == 502


@pytest.mark.parametrize(
    "data",
    [
        {"choices": 5},
        {"choices": [5, None, {"index": "x", "delta": 7}]},
        {"choices": [{"index": -1, "delta": {"content": "z"}}, {"index": 9999, "delta": {"content": "z"}}]},
        {"id": 7, "model": [], "created": "x", "choices": [{"delta": {"tool_calls": [5, {"function": 5}]}}]},
        {"choices": [{"delta": {"reasoning_details": [5, {"signature": 5}], "annotations": [5], "images": [{}]}}]},
        {"usage": [1]},
        {},
    ],
)
def test_nonsense_in_members_costs_nothing_else(data: Any) -> None:
    found = read(chunk({"content": "a"}), data, chunk({"content": "b"}, finish="stop"))
    assert blocks(found) == [("text", "ab")]
    assert found[-1] == End()


def test_content_of_another_type_is_kept() -> None:
    found = read(chunk({"content": 5}), chunk({"content": [{"type": "text", "text": "b"}]}, finish="stop"))
    assert blocks(found) == [("text", "5b")]


def test_a_first_chunk_of_nothing_does_not_name_the_answer() -> None:
    found = read({"id": "", "choices": []}, chunk({"content": "a"}, finish="stop"))
    assert found[0] == Start(id="chatcmpl-x1", model="m", created_unix=7)


def test_several_choices() -> None:
    found = read(
        chunk({"content": "a"}, index=1),
        chunk({"content": "b"}, index=0, finish="stop"),
        chunk({"content": "c"}, index=1, finish="length"),
    )
    assert blocks(found, 0) == [("text", "b")]
    assert blocks(found, 1) == [("text", "ac")]
    assert [(e.choice, e.reason) for e in found if isinstance(e, Stop)] == [
        (0, StopReason.STOP),
        (1, StopReason.MAX_TOKENS),
    ]


# --- whole answers ---


def whole(message: Any, finish: str | None = "stop", **members: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-x1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        **members,
    }


def test_a_whole_answer() -> None:
    found = read_full(
        whole(
            {
                "content": "a",
                "refusal": None,
                "reasoning_content": "r",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            },
            "tool_calls",
        )
    )
    assert blocks(found) == [("reasoning", "r"), ("text", "a"), ("tool", "{}"), ("tool", "")]
    assert opened(found) == [Meta(call_id="a", name="f"), Meta(call_id="b", name="g")]
    assert reason(found) is StopReason.TOOL_USE
    assert found[-1] == End()


def test_a_whole_answer_without_a_reason_is_complete() -> None:
    assert reason(read_full(whole({"content": "a"}, None))) is StopReason.STOP


def test_a_whole_answer_inside_a_stream() -> None:
    """Case 161, half of it: some hosts send it as their only event."""
    assert blocks(read(whole({"content": "a"}))) == [("text", "a")]


def test_an_error_instead_of_an_answer() -> None:
    [error] = SPOKE.parse_full(b'{"error":{"message":"no","code":"model_not_found"}}', context(CLAUDE, CHAT))
    assert isinstance(error, Err)
    assert (error.status, error.code) == (404, "model_not_found")


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b"7", b'{"id":"x"}', b"\xff\xfe"])
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        SPOKE.parse_full(body, context(CLAUDE, CHAT))


def test_no_choices_are_no_answer() -> None:
    assert isinstance(read_full({"id": "x", "choices": []})[-1], Err)


def test_many_deltas_cost_the_same_each() -> None:
    """0.6: no work proportional to what has accumulated."""
    parser = SPOKE.open_parser(context(CLAUDE, CHAT))
    data = json.dumps(chunk({"content": "word "})).encode()
    parser.feed("", data)
    assert all(parser.feed("", data) == [Delta(b=0, s="word ")] for _ in range(1000))
