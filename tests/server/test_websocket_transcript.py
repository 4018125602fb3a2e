"""How a session's input goes on: merging, replacing, duplicates, repair, and the bounds of what is kept."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import MalformedRequest, RequestError
from cpa.server import websocket_transcript as transcript
from cpa.server.websocket_transcript import (
    MAX_TOOL_CALLS,
    MAX_TURNS,
    Conversation,
    Item,
    SessionMemory,
    ToolCalls,
    deduplicated,
    read_items,
    repaired,
)


def items(*values: object) -> tuple[Item, ...]:
    """Items of plain values."""
    return read_items(json.dumps(values).encode())


def plain(found: Iterable[Item]) -> list[object]:
    """The values of items."""
    return [json.loads(item.raw) for item in found]


def user(text: str, **more: object) -> dict[str, object]:
    return {"type": "message", "role": "user", "content": text, **more}


def said(text: str, **more: object) -> dict[str, object]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **more}


def call(call_id: str, kind: str = "function_call", **more: object) -> dict[str, object]:
    return {"type": kind, "call_id": call_id, "name": "f", "arguments": "{}", **more}


def output(call_id: str, kind: str = "function_call_output", **more: object) -> dict[str, object]:
    return {"type": kind, "call_id": call_id, "output": "done", **more}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (user("a", id="m1"), ("", "", "m1", False)),
        (said("a"), ("", "", "", True)),
        ({"role": "assistant", "content": "a"}, ("", "", "", True)),
        (call("c"), ("c", "", "", True)),
        (call("c", "custom_tool_call", id="i"), ("c", "", "i", True)),
        (call("c", "local_shell_call"), ("c", "", "", True)),
        ({"type": "web_search_call", "id": "w"}, ("", "", "w", True)),
        ({"type": "compaction", "encrypted_content": "x"}, ("", "", "", True)),
        ({"type": "reasoning", "id": "r"}, ("", "", "r", False)),
        (output("c"), ("", "c", "", False)),
        (output("c", "custom_tool_call_output"), ("", "c", "", False)),
        ({"type": "tool_search_output", "call_id": None}, ("", "", "", False)),
        ({"type": 7, "id": ["x"], "call_id": {}, "role": 1}, ("", "", "", False)),
        ("text", ("", "", "", False)),
        (None, ("", "", "", False)),
    ],
    ids=lambda value: value.get("type", "none") if isinstance(value, dict) else "",
)
def test_items_are_known_by_the_members_that_place_them(value: object, wanted: tuple[str, str, str, bool]) -> None:
    """Members of wrong types, and items that are no objects, place nothing and harm nothing."""
    [item] = items(value)
    assert (item.call, item.output, item.id, item.of_model) == wanted
    assert json.loads(item.raw) == value


@pytest.mark.parametrize("raw", [b"{}", b'"text"', b"null", b"7", b"[1,", b"", b"[" * 100_000], ids=range(7))
def test_an_input_that_is_no_array_is_refused(raw: bytes) -> None:
    """The member is named, since the client has to mend it."""
    with pytest.raises(MalformedRequest, match=r"^input: expected an array") as caught:
        read_items(raw)
    assert caught.value.param == "input"


def test_lone_surrogates_do_not_spoil_an_input() -> None:
    """Clients cut texts anywhere."""
    [item] = read_items(b'[{"role":"user","content":"\\ud83d"}]')
    assert b'"content"' in item.raw


def test_later_copies_go_by_call_id_and_by_id() -> None:
    """The first stays, in its place; outputs are not calls, and items without a name are never copies."""
    given_items = items(
        user("a"), user("a"), call("c1", id="f1"), output("c1"), call("c1", id="f2"), said("x", id="m1"),
        said("y", id="m1"), {"type": "item_reference", "id": "m1"}, output("c1"), call("c1", "custom_tool_call"),
    )  # fmt: skip
    assert plain(deduplicated(given_items)) == [
        user("a"), user("a"), call("c1", id="f1"), output("c1"), said("x", id="m1"), output("c1")
    ]  # fmt: skip


def test_orphans_get_their_call_from_the_session_and_go_without_one() -> None:
    """A call is put right before its output, once; known calls anywhere in the input will do."""
    calls = ToolCalls()
    calls.add(items(call("old"), user("x"), call("older", "custom_tool_call")))
    found = repaired(
        items(user("a"), output("old"), output("nobody"), output("old"), call("here"), output("here")), calls
    )
    assert plain(found) == [user("a"), call("old"), output("old"), output("old"), call("here"), output("here")]
    assert plain(repaired(items(output("older", "custom_tool_call_output")), calls))[0] == call(
        "older", "custom_tool_call"
    )


def test_tool_calls_are_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; one that is seen again is young."""
    calls = ToolCalls()
    calls.add(items(*(call(f"c{number}") for number in range(MAX_TOOL_CALLS))))
    calls.add(items(call("c0"), call("new")))
    assert len(calls) == MAX_TOOL_CALLS
    assert calls.get("c0") is not None
    assert calls.get("c1") is None
    monkeypatch.setattr(transcript, "MAX_CALL_BYTES", 500)
    calls.add(items(call("big", arguments="x" * 300)))
    assert calls.size_bytes <= 500
    assert calls.get("big") is not None
    calls.add(items(call("huge", arguments="x" * 501)))
    assert (len(calls), calls.size_bytes) == (0, 0)


class TestConversation:
    """Effective input of the next turn."""

    def test_goes_on_from_input_and_output(self) -> None:
        """Previous input, previous output, new input."""
        conversation = Conversation()
        first = conversation.extended(items(user("a")), previous="")
        conversation.keep("r1", (*first, *items(said("b", id="m1"))))
        assert plain(conversation.extended(items(user("c")), previous="")) == [user("a"), said("b", id="m1"), user("c")]

    @pytest.mark.parametrize("new", [call("x"), call("x", "custom_tool_call"), said("z"), {"type": "compaction"}])
    def test_what_only_a_model_says_replaces_the_transcript(self, new: dict[str, object]) -> None:
        """Such a client tells everything anew; unless it says what it goes on from."""
        conversation = Conversation()
        conversation.keep("r1", items(user("a"), said("b")))
        assert plain(conversation.extended(items(user("q"), new), previous="")) == [user("q"), new]
        assert len(conversation.extended(items(user("q"), new), previous="r1")) == 4

    def test_references_in_a_new_transcript_are_resolved(self) -> None:
        """What they mean was said here, and the provider does not know it; what was not is left to the provider."""
        conversation = Conversation()
        conversation.keep("r1", items(user("a", id="u1"), said("b", id="m1")))
        new = items({"type": "item_reference", "id": "u1"}, {"type": "item_reference", "id": "x"}, call("c"))
        assert plain(conversation.extended(new, previous="")) == [
            user("a", id="u1"), {"type": "item_reference", "id": "x"}, call("c")
        ]  # fmt: skip
        assert len(conversation.extended(items({"type": "item_reference", "id": "m1"}), previous="r1")) == 2

    def test_knows_the_last_answers_by_id(self) -> None:
        """Also older ones, so that a client may fork; not all of them."""
        conversation = Conversation()
        for number in range(MAX_TURNS + 1):
            conversation.keep(f"r{number}", items(*(user(f"{at}") for at in range(number + 1))))
        assert plain(conversation.extended(items(user("x")), previous="r1")) == [user("0"), user("1"), user("x")]
        with pytest.raises(RequestError) as caught:
            conversation.extended(items(user("x")), previous="r0")
        assert (caught.value.code, caught.value.http_status) == ("previous_response_not_found", 409)
        assert caught.value.param == "previous_response_id"

    def test_a_client_that_repeats_its_warm_up_does_not_say_it_twice(self) -> None:
        """Some go on by the warm-up's id with what is new, some send everything again."""
        conversation = Conversation()
        warm = items(user("a"), user("b"))
        conversation.keep("w", warm, warmed=warm)
        assert plain(conversation.extended(items(user("a"), user("b"), user("c")), previous="")) == [
            user("a"), user("b"), user("c")
        ]  # fmt: skip
        assert plain(conversation.extended(items(user("c")), previous="")) == [user("a"), user("b"), user("c")]
        assert plain(conversation.extended(items(user("c")), previous="w")) == [user("a"), user("b"), user("c")]
        conversation.keep("r", items(user("a"), said("x")))
        assert len(conversation.extended(items(user("a")), previous="")) == 3  # after an answer it is news again


def test_memory_of_all_conversations_is_bounded() -> None:
    """Who rested longest is dropped, and is told so instead of being answered out of context."""
    memory = SessionMemory(max_bytes=1000)
    first, second = memory.begin(), memory.begin()
    first.keep("r1", items(user("a" * 500)))
    memory.touch(first)
    second.keep("r2", items(user("b" * 500)))
    memory.touch(second)
    assert memory.size_bytes <= 1000
    assert (first.size_bytes, first.lost, second.lost) == (0, True, False)
    for previous in ("", "r1"):
        with pytest.raises(RequestError) as caught:
            first.extended(items(user("x")), previous=previous)
        assert caught.value.code == "previous_response_not_found"
    assert plain(first.extended(items(user("x"), said("y")), previous="")) == [user("x"), said("y")]
    second.keep("r3", items(user("c" * 2000)))
    memory.touch(second)
    assert (memory.size_bytes, second.lost) == (0, True)
    memory.end(first)
    memory.end(second)
    memory.end(second)
    assert memory.size_bytes == 0


def test_shared_items_count_once() -> None:
    """Turns of one conversation hold the same bytes."""
    conversation = Conversation()
    held = items(user("a" * 100))
    conversation.keep("r1", held)
    size_bytes = conversation.size_bytes
    conversation.keep("r2", held)
    assert conversation.size_bytes == size_bytes


def test_sessions_are_a_clients_own_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same name of another client is another session; without a name there is none."""
    memory = SessionMemory()
    mine = memory.tool_calls("me", "s")
    mine.add(items(call("c")))
    assert memory.tool_calls("me", "s") is mine
    assert memory.tool_calls("you", "s").get("c") is None
    assert memory.tool_calls("me", "") is not memory.tool_calls("me", "")
    monkeypatch.setattr(transcript, "MAX_SESSIONS", 2)
    memory.tool_calls("me", "t")
    memory.tool_calls("me", "u")
    assert memory.tool_calls("me", "s").get("c") is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "id", "call_id", "role", "content"]), inner, max_size=4)
    ),
    max_leaves=6,
)
kinds = st.sampled_from(["function_call", "function_call_output", "message", "custom_tool_call", "item_reference"])
named = st.fixed_dictionaries(
    {"type": kinds}, optional={"id": st.sampled_from("ab"), "call_id": st.sampled_from("xy"), "role": st.text()}
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(named | anything, max_size=4), max_size=5))
def test_no_items_break_the_transcript(turns: list[list[object]]) -> None:
    """After any turns: no call twice, no output without a call, and nothing invented."""
    conversation, calls = Conversation(), ToolCalls()
    everything: list[object] = []
    for number, turn in enumerate(turns):
        new = items(*turn)
        everything += turn
        calls.add(new)
        found = tuple(repaired(conversation.extended(new, previous=""), calls))
        ids = [item.call for item in found if item.call]
        assert len(ids) == len(set(ids))
        assert {item.output for item in found if item.output} <= set(ids)
        assert all(value in everything for value in plain(found))
        conversation.keep(f"r{number}", found)
