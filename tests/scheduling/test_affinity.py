"""Sessions: which one a request belongs to, and who serves it (proxy 4.10)."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.formats.names import Format
from cpa.scheduling.affinity import AFFINITY, MAX_ALIASES, Binding, Bindings, SessionIds, session_ids
from cpa.scheduling.settings import SchedulingSettings
from cpa.scheduling.store import MemoryStore
from cpa.types import Operation, SelectionAsk
from tests.scheduling.support import Clock, World, candidates, credential, failure

ON = SchedulingSettings(affinity=True, max_retry_interval_s=0)


def ask(
    body: Any = None, fmt: Format = Format.OPENAI, principal: str = "", session: str = "", **headers: str
) -> SelectionAsk:
    """A request."""
    raw = tuple((name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items())
    data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    return SelectionAsk(model="m", format=fmt, headers=raw, body=data, principal=principal, session=session)


def found(*args: Any, **kwargs: Any) -> str:
    """The id of a request's session."""
    ids = session_ids(ask(*args, **kwargs))
    return "" if ids is None else ids.id


BODY = {
    "metadata": {"user_id": "somebody"},
    "session_id": "s4",
    "prompt_cache_key": "k5",
    "conversation": {"id": "c6"},
    "conversation_id": "c8",
}


def test_the_first_place_that_names_a_session_counts() -> None:
    """All places in their order; each one gone shows the next."""
    headers = {
        "X_Claude_Code_Session_Id": "h1",
        "Session_Id": "h3a",
        "X_Session_ID": "h3c",
        "X_Session_Affinity": "h3d",
        "X_Client_Request_Id": "h3e",
    }
    body: dict[str, Any] = {**BODY, "metadata": {"user_id": '{"device_id":"d","session_id":"c2"}'}}
    places = [
        ("claude:h1", lambda: headers.pop("X_Claude_Code_Session_Id")),
        ("claude:c2", lambda: body.update(metadata={"user_id": "user_1_account__session_0a1b-2c"})),
        ("claude:0a1b-2c", lambda: body.update(metadata={"user_id": "somebody"})),
        ("header:session-id:h3a", lambda: headers.pop("Session_Id")),
        ("header:x-session-id:h3c", lambda: headers.pop("X_Session_ID")),
        ("header:x-session-affinity:h3d", lambda: headers.pop("X_Session_Affinity")),
        ("header:x-client-request-id:h3e", lambda: headers.pop("X_Client_Request_Id")),
        ("body:session:s4", lambda: body.pop("session_id")),
        ("cache:k5", lambda: body.pop("prompt_cache_key")),
        ("conversation:c6", lambda: body.pop("conversation")),
        ("user:somebody", lambda: body.pop("metadata")),
        ("conversation_id:c8", lambda: body.pop("conversation_id")),
    ]
    for expected, remove in places:
        assert found(body, session="ws", **headers) == expected
        remove()  # type: ignore[no-untyped-call]
    assert found(body, session="ws") == "connection:ws"


def test_ids_of_different_places_never_meet() -> None:
    """A header cannot claim a session that a body named."""
    same = "one"
    ids = [
        found({}, Session_Id=same),
        found({}, X_Session_ID=same),
        found({"session_id": same}),
        found({"prompt_cache_key": same}),
        found({"conversation_id": same}),
        found({"metadata": {"user_id": same}}),
        found({}, session=same),
    ]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("value", ["", "   ", "x" * 257, "ü" * 129, "a\x00b", "a\nb", 7, None, ["a"]])
def test_ids_that_are_none_are_passed_over(value: Any) -> None:
    """Printable, trimmed, at most 256 bytes."""
    assert found({"session_id": value, "conversation_id": "next"}) == "conversation_id:next"


def test_ids_are_trimmed() -> None:
    """Blanks around them are no part of them."""
    assert found({"sessionId": "  s  "}) == "body:session:s"


@pytest.mark.parametrize(
    ("fmt", "first", "later", "other"),
    [
        (
            Format.OPENAI,
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]},
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": "x"},
                    {"role": "user", "content": "more"},
                ]
            },
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi!"}]},
        ),
        (
            Format.CLAUDE,
            {"system": [{"type": "text", "text": "s"}], "messages": [{"role": "user", "content": "hi"}]},
            {
                "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
                "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}],
            },
            {"system": [{"type": "text", "text": "t"}], "messages": [{"role": "user", "content": "hi"}]},
        ),
        (
            Format.OPENAI_RESPONSE,
            {"instructions": "i", "input": [{"role": "user", "content": "hi"}]},
            {"instructions": "i", "input": [{"role": "user", "content": "hi"}, {"type": "reasoning"}]},
            {"instructions": "i", "input": "hi there"},
        ),
        (
            Format.GEMINI,
            {"contents": [{"parts": [{"text": "hi"}]}]},
            {"contents": [{"parts": [{"text": "hi"}]}, {"role": "model", "parts": [{"text": "x"}]}]},
            {"contents": [{"parts": [{"text": "ho"}]}]},
        ),
    ],
)
def test_a_derived_id_is_the_same_in_all_turns(fmt: Format, first: Any, later: Any, other: Any) -> None:
    """And another one for another beginning, caller or protocol."""
    made = found(first, fmt)
    assert made.startswith("ctx:v1:")
    assert found(later, fmt) == made
    assert found(other, fmt) != made
    assert found(first, fmt, principal="somebody else") != made
    assert "somebody" not in found(first, fmt, principal="somebody else")


def test_only_the_beginning_of_instructions_counts() -> None:
    """Dates and the like stand further down."""
    one, two = ({"system": "i" * 50 + end, "messages": [{"role": "user", "content": "hi"}]} for end in "ab")
    assert found(one, Format.CLAUDE) == found(two, Format.CLAUDE)


def test_bodies_that_cannot_be_read_have_a_simple_id_or_none() -> None:
    """FNV of what text there is."""
    assert found({"messages": ["text only"]}).startswith("fnv:")
    assert found(b"not json") == ""
    assert session_ids(SelectionAsk(model="m", format=Format.OPENAI, operation=Operation.EMBED)) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["metadata", "messages", "input", "contents", "system", "conversation", "session_id", "prompt"]
        ),
        json_values,
    ),
    st.sampled_from(list(Format)),
)
@settings(max_examples=60, deadline=None)
def test_any_body_has_an_id_or_none(body: Any, fmt: Format) -> None:
    """Never an error; and the same one each time."""
    assert session_ids(ask(body, fmt)) == session_ids(ask(body, fmt))


# --- bindings ------------------------------------------------------------------------------------------------------


def talk(world: World, session: str) -> str:
    """A request of that session."""
    return world.serve(headers=((b"session-id", session.encode()),))


def test_sessions_stay_and_others_take_turns() -> None:
    """A bound one does not turn the others' cursor."""
    world = World(candidates("a", "b", "c"), ON)
    assert [talk(world, "one") for _ in range(4)] == ["a"] * 4
    assert [talk(world, "two") for _ in range(3)] == ["b"] * 3
    assert talk(world, "one") == "a"


def test_sessions_stay_over_a_reload_and_end_when_idle() -> None:
    """A success begins the time anew."""
    world = World(candidates("a", "b"), SchedulingSettings(affinity=True, affinity_ttl_s=100))
    assert talk(world, "one") == "a"
    world.configure(candidates("a", "b"))
    for _ in range(3):
        world.clock.advance(90)
        assert talk(world, "one") == "a"
    world.clock.advance(101)
    assert talk(world, "one") == "b"


def test_a_failure_moves_the_session_for_good() -> None:
    """It does not come back when the first one recovers."""
    world = World(candidates("a", "b"), ON)
    assert talk(world, "one") == "a"
    assert world.fail(failure(429, retry_after="10"), headers=((b"session-id", b"one"),)) == "a"
    assert talk(world, "one") == "b"
    world.clock.advance(11)
    assert talk(world, "one") == "b"


def test_a_request_that_fails_over_binds_to_who_served_it() -> None:
    """Within one request."""
    world = World(candidates("a", "b"), ON)
    selection = world.select(headers=((b"session-id", b"one"),))
    selection.pick()
    selection.failed(failure(403))
    selection.pick()
    selection.succeeded()
    assert [talk(world, "one") for _ in range(2)] == ["b", "b"]


def test_a_fault_of_the_request_keeps_the_session() -> None:
    """Nothing is wrong with the credential."""
    world = World(candidates("a", "b"), ON)
    assert talk(world, "one") == "a"
    world.fail(failure(400), headers=((b"session-id", b"one"),))
    assert talk(world, "one") == "a"


def test_sessions_survive_the_recovery_of_a_higher_priority_unless_failback_is_wanted() -> None:
    """[C], and [B] where the operator says so."""
    pool = candidates(credential("high", priority=5), "low")
    for failback, expected in ((False, "low"), (True, "high")):
        world = World(pool, SchedulingSettings(affinity=True, affinity_failback=failback))
        world.fail(failure(429, retry_after="10"))
        assert talk(world, "one") == "low"
        world.clock.advance(11)
        assert talk(world, "one") == expected
        assert talk(world, "one") == expected


def test_models_and_sets_of_providers_are_bound_apart() -> None:
    """(provider or mixed, session, model)."""
    world = World(candidates("a", "b"), ON)
    headers = ((b"session-id", b"one"),)
    assert world.serve("first", headers=headers) == "a"
    assert world.serve("second", headers=headers) == "a"
    assert world.serve("second", headers=((b"session-id", b"two"),)) == "b"
    world.configure(candidates("b", credential("z", provider="q")))
    assert world.serve("first", headers=headers) in ("b", "z")


def test_without_the_key_nothing_is_bound() -> None:
    """Why off by default: it starves accounts (10.11)."""
    world = World(candidates("a", "b"))
    assert [talk(world, "one") for _ in range(3)] == list("aba")
    assert world.scheduling.bindings.count() == 0


def test_aliases_find_the_session_and_are_bounded() -> None:
    """A cache key with the conversation as its other name."""
    clock = Clock()
    bindings = Bindings(MemoryStore(clock), clock)
    key = SessionIds(id="cache:k", alias="conversation:c")
    session = bindings.session(key)
    assert bindings.session(SessionIds(id="conversation:c")) == session
    for number in range(3 * MAX_ALIASES):
        bindings.session(SessionIds(id="cache:k", alias=f"conversation:{number}"))
    known = sum(
        bindings.session(SessionIds(id=f"conversation:{number}")) == session for number in range(3 * MAX_ALIASES)
    )
    assert known == MAX_ALIASES - 1


def test_bindings_travel_as_bytes() -> None:
    """For stores that replicate."""
    binding = Binding(credential_id="a", since_unix=5.0)
    assert AFFINITY.decode(AFFINITY.encode(binding)) == binding
    for data in (b"[]", b"{", b'{"credential_id":1,"since_unix":2}'):
        with pytest.raises(ValueError, match="not a binding"):
            AFFINITY.decode(data)
