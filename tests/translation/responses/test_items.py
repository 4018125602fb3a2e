"""The two ways to read items give the same turns: the usual ones in one step, and all of them with care."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import MalformedRequest
from cpa.translation.ir import SysBlock, Turn
from cpa.translation.responses import wire
from cpa.translation.responses.items import ItemReader
from cpa.translation.responses.wire import InputItem
from tests.translation.responses.support import CLAUDE, GPT, make_ctx

_LONG = "a line of a log\n" * 20
_words = st.sampled_from(["", "x", "[1]", _LONG])
_part = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "text", "refusal"]), "text": st.one_of(_words, st.none())},
    optional={
        "annotations": st.sampled_from([[], [{"type": "url_citation", "url": "https://a.test"}], None]),
        "cache_control": st.just({"type": "ephemeral"}),
        "prompt_cache_breakpoint": st.just({}),
    },
)
_odd = {
    "id": _words,
    "status": st.sampled_from(["completed", "incomplete"]),
    "namespace": _words,
    "phase": st.just("commentary"),
    "cache_control": st.just({"type": "ephemeral"}),
}
_message = st.fixed_dictionaries(
    {
        "type": st.just("message"),
        "role": st.sampled_from(["user", "assistant", "system", "developer", "somebody"]),
        "content": st.one_of(_words, st.lists(_part, max_size=2)),
    },
    optional=_odd,
)
_call = st.fixed_dictionaries(
    {"type": st.just("function_call"), "call_id": _words, "name": st.sampled_from(["f", "g"])},
    optional={**_odd, "arguments": st.sampled_from(["", "{}", '{"a":1}', _LONG, None, {"a": 1}, 7])},
)
_output = st.fixed_dictionaries(
    {"type": st.sampled_from(["function_call_output", "custom_tool_call_output"]), "call_id": _words},
    optional={**_odd, "name": _words, "output": st.one_of(_words, st.none(), st.lists(_part, max_size=2), st.just(5))},
)
_reasoning = st.fixed_dictionaries(
    {"type": st.just("reasoning")},
    optional={
        "id": _words,
        "summary": st.lists(st.fixed_dictionaries({"type": st.just("summary_text"), "text": _words}), max_size=2),
        "content": st.lists(st.fixed_dictionaries({"type": st.just("reasoning_text"), "text": _words}), max_size=2),
        "encrypted_content": st.sampled_from(["", GPT]),
    },
)


def read(items: list[dict[str, Any]], *, usual: bool) -> tuple[list[Turn], list[SysBlock], list[str]] | str:
    """Turns, system text and losses of *items*, or why they cannot be read."""
    ctx = make_ctx(provider=CLAUDE)
    reader = ItemReader(ctx, native=False)
    raws = [json.dumps(item).encode() for item in items]
    try:
        if usual:
            found = [item for raw in raws if (item := wire.read(InputItem, raw)) is not None]
            reader.feed_items(found, lambda: wire.spans(b"[" + b",".join(raws) + b"]"))
        else:
            reader.feed_stored(raws)
    except MalformedRequest as exc:
        return str(exc).rpartition("]")[2]  # stored items have no places
    return reader.finish(), reader.system, [loss.note for loss in ctx.losses]


@settings(max_examples=300, deadline=None)
@given(st.lists(_message | _call | _output | _reasoning, max_size=6))
def test_the_quick_way_reads_what_the_careful_one_does(items: list[dict[str, Any]]) -> None:
    """The quick one knows only what clients nearly always send."""
    assert read(items, usual=True) == read(items, usual=False)
