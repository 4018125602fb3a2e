"""What one look at a history finds."""

import attrs
import msgspec
import pytest

from cpa.formats.names import Format
from cpa.translation.counting import MEDIA_TOKENS, estimate
from cpa.translation.ir import Call, Media, MediaKind, Part, Reasoning, Result, Role, SysBlock, Text, Turn
from cpa.translation.literals import read_text
from cpa.translation.tool_survey import RepairTarget, Survey, survey, without_reasoning
from tests.translation.support import make_context, make_request


def seen(*turns: Turn, target: RepairTarget = RepairTarget.CLAUDE) -> Survey:
    request = make_request()
    request.turns = [*turns]
    return survey(request, target)


def user(*parts: Part) -> Turn:
    return Turn(role=Role.USER, parts=[*parts])


def model(*parts: Part, ordered: bool = True) -> Turn:
    return Turn(role=Role.ASSISTANT, parts=[*parts], ordered=ordered)


def result(call_id: str, *parts: Text, name: str = "") -> Result:
    return Result(call_id=call_id, name=name, parts=[*parts])


def test_a_turn_that_thinks_is_plain_when_nobody_reads_its_reasoning() -> None:
    """Foreign reasoning is in every third turn of a session, and all that is to be done is to drop it."""
    thought = Reasoning(texts=["hm"])
    turn = model(thought, Text(text="yo"), Call("a", "f"))
    found = seen(turn, user(result("a", Text(text="1"))))
    assert found.turns is not None
    assert (turn.thinks, turn.plain) == (True, False)

    assert without_reasoning(turn, lambda part: True) == []
    assert (turn.thinks, turn.plain, len(turn.parts)) == (True, False, 3)

    assert without_reasoning(turn, lambda part: False) == [(0, thought)]
    assert (turn.thinks, turn.plain, len(turn.parts)) == (False, True, 2)


def test_only_what_else_would_be_plain_thinks() -> None:
    """Not what says nothing, nor what has to be looked at for other reasons."""
    turns = [
        model(Reasoning(texts=["hm"])),
        model(Reasoning(texts=["hm"]), Text(text="x", cache=b"{}")),
        model(Reasoning(texts=["hm"]), Text(text=" ")),
        Turn(role=Role.ASSISTANT, parts=[Reasoning(texts=["hm"]), Text(text="x")], name="bob"),
    ]
    assert seen(*turns).turns == turns
    assert not any(turn.thinks or turn.plain for turn in turns)


@pytest.mark.parametrize("intact", [True, False])
def test_the_estimate_is_that_of_all_parts(intact: bool) -> None:
    """It is made on the way, for Claude's streams; whoever counts tokens makes it alone, and says the same."""
    disguised = '[{"type":"text","text":"a"},{"type":"image","data":"iVBORw0KGgo=","mimeType":"image/png"}]'
    long = msgspec.json.decode(b'["%b"]' % ("größer als \\n" * 900).encode(), type=list[msgspec.Raw])[0]
    turns = [
        user(Text(text="hi"), Media(media=MediaKind.IMAGE, b64="iVBORw0KGgo=")),
        model(Reasoning(texts=["hm"]), Text(text="yo"), Call("a", "f", b'{"x":1}'), Call("b", "g", b"{}")),
        user(result("a", read_text(long) or Text(text="")), result("b", Text(text="2"), Text(text="3"))),
        model(Call("c", "f", b'{"y":1}')),
        user(result("c" if intact else "d", Text(text="[1]")), Text(text="and?")),
    ]
    request = make_request()
    request.system = [SysBlock(text="be brief")]
    request.turns = turns
    ctx = attrs.evolve(make_context(Format.CLAUDE, Format.GEMINI), stream=True)
    expected = estimate(request)

    assert (survey(request, RepairTarget.GEMINI, ctx).turns is not None) is intact
    assert ctx.estimated_input == expected > 2000

    request.turns = [model(Call("c", "f")), user(result("c", Text(text=disguised)))]
    survey(request, RepairTarget.GEMINI, ctx)
    assert MEDIA_TOKENS[MediaKind.IMAGE] < ctx.estimated_input < 2 * MEDIA_TOKENS[MediaKind.IMAGE]

    for evolved in (attrs.evolve(ctx, stream=False), attrs.evolve(ctx, client=Format.OPENAI)):
        evolved.estimated_input = 0
        survey(request, RepairTarget.GEMINI, evolved)
        assert evolved.estimated_input == 0


def test_a_plain_history_stays_as_it_is() -> None:
    """Its turns are known as plain; results are told what their calls were."""
    turns = user(Text(text="hi")), model(Text(text="yo"), Call("a", "f")), user(result("a", Text(text="1")))
    found = seen(*turns)
    assert found.turns == [*turns]
    assert all(turn.plain for turn in turns)
    assert found.called == {("", "f")}
    assert turns[2].parts[0].name == "f"  # type: ignore[union-attr]


def test_other_turns_are_not_plain() -> None:
    """Whatever some target has to adapt: blanks, markers, reasoning, names, text behind calls where order is none."""
    turns = [
        user(Text(text=" \n")),
        user(Text(text="x", cache=b"{}")),
        model(Reasoning(texts=["hm"])),
        Turn(role=Role.USER, parts=[Text(text="x")], name="bob"),
        Turn(role=Role.SYSTEM, parts=[Text(text="x")]),
        model(Call("a", "f"), Text(text="x"), ordered=False),
        user(result("a", Text(text=""))),
    ]
    found = seen(*turns)
    assert found.turns == turns
    assert not any(turn.plain for turn in turns)


def test_media_in_disguise_are_found() -> None:
    """A text that is the JSON of parts with media among them is no text."""
    disguised = '[{"type":"image","data":"iVBORw0KGgo=","mimeType":"image/png"}]'
    turns = (
        model(Call("a", "f"), Call("b", "f")),
        user(result("a", Text(text=disguised)), result("b", Text(text="[1]"))),
    )
    found = seen(*turns)
    assert found.turns is not None
    assert not turns[1].plain
    assert type(turns[1].parts[0].parts[0]).__name__ == "Media"  # type: ignore[union-attr]


def test_what_follows_results_becomes_a_turn_of_its_own() -> None:
    """The strictest placement, see `tool_repair`."""
    found = seen(model(Call("a", "f")), user(result("a", Text(text="1")), Text(text="and?")))
    assert found.turns is not None
    assert [len(turn.parts) for turn in found.turns] == [1, 1, 1]
    assert all(turn.plain for turn in found.turns)


def test_histories_that_need_repair_are_left_alone() -> None:
    """Nothing is changed before all of it was seen, and names are those that stood there."""
    for turns in (
        [model(Call("a", "f"))],
        [user(result("a", Text(text="1"), name="g"))],
        [model(Call("a", "f")), user(Text(text="x"), result("a", Text(text="1"), name="g"))],
        [model(Call("a", "f")), user(result("b", Text(text="1"), name="g"))],
        [model(Call("", "f")), user(result("", Text(text="1"), name="g"))],
        [model(Call("a", "f"), Call("a", "f")), user(result("a", Text(text="1"), name="g"), result("a"))],
        [model(Call("a!", "f")), user(result("a!", Text(text="1"), name="g"))],
    ):
        found = seen(*turns)
        assert found.turns is None
        assert found.called == {
            ("", part.name) for turn in turns for part in turn.parts if isinstance(part, Call | Result) and part.name
        }
        assert not any(turn.plain for turn in turns)
        assert all(part.name != "f" for turn in turns for part in turn.parts if isinstance(part, Result))


def test_a_name_that_a_result_has_of_its_own_is_a_tools_name() -> None:
    """Both need one for the provider."""
    found = seen(model(Call("a", "f")), user(result("a", Text(text="1"), name="g")), target=RepairTarget.GEMINI)
    assert found.called == {("", "f"), ("", "g")}
