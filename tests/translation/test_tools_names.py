"""Tool names on both sides (translation 2.6; cases 43 to 48)."""

import random
import re
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.translation.context import Names
from cpa.translation.ir import Call, ChoiceMode, Result, Role, Tool, ToolChoice, ToolKind, Turn
from cpa.translation.tools import NameRule, build_names, descriptions, flat_name, merge_tools
from tests.translation.support import make_request

OPENAI, CLAUDE, GEMINI = NameRule


def function(name: str, namespace: str = "", description: str = "") -> Tool:
    return Tool(kind=ToolKind.FUNCTION, name=name, namespace=namespace, description=description)


def custom(name: str, namespace: str = "") -> Tool:
    return Tool(kind=ToolKind.CUSTOM, name=name, namespace=namespace)


def names_of(tools: list[Tool], rule: NameRule = OPENAI, *, flatten: bool = True) -> Names:
    request = make_request()
    request.tools = tools
    return build_names(request, rule, wrap_custom=True, flatten=flatten)


def hashed(form: str, full: str) -> str:
    return f"{form[:51]}_{sha256(full.encode()).hexdigest()[:12]}"


LONG = "mcp__server__" + "x" * 67


@pytest.mark.parametrize(
    ("rule", "name", "wire"),
    [
        (OPENAI, "get-weather_2", "get-weather_2"),
        (OPENAI, "a.b", "a_b"),
        (CLAUDE, "büro", "b_ro"),
        (OPENAI, LONG, hashed(LONG, LONG)),
        (OPENAI, "x" * 64, "x" * 64),
        (OPENAI, "3d_view", "3d_view"),
        (GEMINI, "3d_view", "_3d_view"),
        (GEMINI, "a.b:c-d", "a.b:c-d"),
        (GEMINI, "-x", "_-x"),
        (GEMINI, "a b", "a_b"),
        (GEMINI, "é", "_"),
        (OPENAI, "", "_"),
    ],
)
def test_one_name(rule: NameRule, name: str, wire: str) -> None:
    """Cases 43 and 45, and back."""
    names = names_of([function(name)], rule)
    assert names.to_wire(name) == wire
    assert names.to_client(wire) == ("", name)


def test_eighty_characters() -> None:
    """Case 43: 51 characters, an underscore, twelve digits."""
    assert len(LONG) == 80
    assert re.fullmatch(r"mcp__server__x{38}_[0-9a-f]{12}", names_of([function(LONG)]).to_wire(LONG))


def test_collisions() -> None:
    """Case 44: a valid name is never given away; others that would be equal all get hashes."""
    names = names_of([function("a.b"), function("a_b"), function("c.d"), function("c:d")])
    assert names.to_wire("a_b") == "a_b"
    assert names.to_wire("a.b") == hashed("a_b", "a.b")
    assert names.to_wire("c.d") == hashed("c_d", "c.d")
    assert names.to_wire("c:d") == hashed("c_d", "c:d")
    assert {names.to_client(names.to_wire(n)) for n in ("a.b", "a_b", "c.d", "c:d")} == {
        ("", "a.b"),
        ("", "a_b"),
        ("", "c.d"),
        ("", "c:d"),
    }


def test_a_name_that_is_somebody_s_hash() -> None:
    """By chance never, by malice possibly."""
    taken = hashed("a_b", "a.b")
    names = names_of([function("a.b"), function("a_b"), function(taken)])
    assert names.to_wire(taken) == taken
    assert names.to_wire("a.b") not in (taken, "a_b")


@pytest.mark.parametrize(
    ("namespace", "name", "flat"),
    [("git", "log", "git__log"), ("git", "git__log", "git__log"), ("x", "mcp__y", "mcp__y"), ("", "log", "log")],
)
def test_namespaces_are_flattened(namespace: str, name: str, flat: str) -> None:
    """Cases 46 and 47."""
    assert flat_name(namespace, name) == flat
    names = names_of([function(name, namespace)])
    assert names.to_wire(name, namespace) == flat
    assert names.to_client(flat) == (namespace, name)


def test_a_direct_tool_owns_its_flat_name() -> None:
    """A child of the same flat name is still told apart."""
    names = names_of([function("log", "git"), function("git__log"), function("mcp__y", "a"), function("mcp__y", "b")])
    assert names.to_wire("git__log") == "git__log"
    assert names.to_wire("log", "git") == hashed("git__log", "git\0log")
    assert names.to_client("git__log") == ("", "git__log")
    assert names.to_client(names.to_wire("mcp__y", "b")) == ("b", "mcp__y")


def test_namespaces_that_stay() -> None:
    """For targets that have them, children keep names that are unique within."""
    names = names_of([function("log", "git"), function("log", "svn"), function("lo.g", "git")], flatten=False)
    assert names.to_wire("log", "git") == "log"
    assert names.to_wire("log", "svn") == "log"
    assert names.to_wire("lo.g", "git") == "lo_g"


def test_names_of_history_and_choice() -> None:
    """Undeclared ones go through the same function; server tools have no names of ours."""
    request = make_request()
    request.tools = [function("a"), Tool(kind=ToolKind.SERVER, name="web.search", server="web_search")]
    request.turns = [
        Turn(role=Role.ASSISTANT, parts=[Call(call_id="1", name="old.tool")]),
        Turn(role=Role.USER, parts=[Result(call_id="1", name="re.sult"), Result(call_id="2")]),
    ]
    request.tool_choice = ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "cho.ice"), ("", "web_search")])
    names = build_names(request, OPENAI)
    assert names.wire == {
        ("", "a"): "a",
        ("", "old.tool"): "old_tool",
        ("", "re.sult"): "re_sult",
        ("", "cho.ice"): "cho_ice",
    }
    assert names.to_client("never heard") == ("", "never heard")
    assert names.to_wire("never.heard") == "never.heard"


def test_wrapped_tools_are_known_by_wire_name() -> None:
    """So that answers are unwrapped; of equal names the function counts."""
    names = names_of([custom("apply.patch"), custom("edit"), function("edit")])
    assert names.custom == {"apply_patch"}
    request = make_request()
    request.tools = [custom("apply.patch")]
    assert build_names(request, OPENAI).custom == set()


def test_merging_definitions() -> None:
    """Case 48: the first of a name, a function before a custom tool, a direct tool before a namespace's child."""
    server = Tool(kind=ToolKind.SERVER, name="", server="web_search")
    first, second = function("a", description="1"), function("a", description="2")
    tools = [
        custom("edit"),
        first,
        server,
        function("log", "git"),
        second,
        function("edit"),
        function("git__log"),
        server,
    ]
    assert merge_tools(tools) == [function("edit"), first, server, function("git__log"), server]


def test_a_namespace_is_described_once() -> None:
    """By its first child, where there are no namespaces."""
    tools = [function("a", "n", "A"), function("b", "n", "B"), function("c", "m")]
    for tool in tools:
        tool.namespace_description = f"About {tool.namespace}"
    assert descriptions(tools) == ["About n\n\nA", "B", "About m"]


CHARACTERS = st.sampled_from(["a", "b", "_", "-", ".", ":", "3", "é", "😀", "\ud800", " "])
SOME_NAMES = st.text(CHARACTERS, max_size=4) | st.sampled_from(["x" * 64, "x" * 65, "x" * 65 + ".", "a_b", "n__a"])
KEYS = st.lists(st.tuples(st.sampled_from(["", "", "n", "a_", "a.", "n__"]), SOME_NAMES), max_size=12, unique=True)
PATTERNS = {
    OPENAI: r"[A-Za-z0-9_-]{1,64}",
    CLAUDE: r"[A-Za-z0-9_-]{1,64}",
    GEMINI: r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}",
}


@settings(max_examples=200, deadline=None)
@given(KEYS, st.sampled_from(list(NameRule)), st.randoms(use_true_random=False))
def test_laws_of_names(keys: list[tuple[str, str]], rule: NameRule, order: random.Random) -> None:
    """Accepted, injective, invertible, and the same in any order; what is accepted is not changed."""
    tools = [function(name, namespace) for namespace, name in keys]
    names = names_of(tools, rule)
    assert set(names.wire) == set(keys)
    assert all(re.fullmatch(PATTERNS[rule], wire) for wire in names.wire.values())
    assert len(set(names.wire.values())) == len(keys)
    assert all(names.to_client(names.to_wire(name, namespace)) == (namespace, name) for namespace, name in keys)
    assert all(names.wire["", name] == name for space, name in keys if not space and re.fullmatch(PATTERNS[rule], name))
    order.shuffle(tools)
    again = names_of(tools, rule)
    assert again.wire == names.wire
    assert again.client == names.client
