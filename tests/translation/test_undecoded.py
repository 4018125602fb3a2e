"""Members that are read when somebody asks for them."""

import msgspec
import pytest

from cpa.translation.ir import Call, IRRequest, SysBlock, Text, Turn
from cpa.translation.undecoded import UNREAD
from tests.translation.support import make_request


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def test_what_came_undecoded_reads_like_anything_else() -> None:
    """Whoever looks at a value need not know how it came."""
    assert Text(text=UNREAD, written=raw("a\nb")).text == "a\nb"
    assert SysBlock(text=UNREAD, written="a").text == "a"
    assert Call("c", "f", UNREAD, written=raw({"a": 1})).args == b'{"a":1}'
    assert Call("c", "f", UNREAD, True, written="ä").args == "ä".encode()


def test_how_a_value_came_makes_no_difference() -> None:
    """Neither for comparisons nor for what is shown; both directions of a comparison agree."""
    came, made = Text(text=UNREAD, written=raw("x"), prose=True), Text(text="x")
    assert came == made
    assert not came.__ne__(made)  # what `!=` calls, which the base class has an opinion of its own on
    assert repr(came) == repr(made) == "Text(text='x', annotations=(), sigs=(), cache=b'', phase='')"
    assert came != Text(text="y")
    assert came != "x"
    assert Turn(role=make_turn().role, parts=[came], plain=True) == make_turn(made)


def make_turn(*parts: Text) -> Turn:
    [turn] = [Turn(role=role, parts=[*parts]) for role in ["user"]]  # type: ignore[arg-type] # any will do
    return turn


def test_another_value_is_not_what_came() -> None:
    """Else writers would go on to write the old one."""
    call = Call("c", "f", UNREAD, written=raw({"a": 1}))
    call.args = b"{}"
    assert call.written is None
    assert call.args == b"{}"


def test_what_is_known_of_tools_is_no_part_of_a_request() -> None:
    """Two requests that say the same are equal, whether their tools were seen before or not."""
    known: IRRequest = make_request()
    known.toolset = object()
    assert known == make_request()


def test_mutable_values_have_no_hash() -> None:
    """They could not be found again."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(Text(text="x"))
