"""System text and the order of turns (translation 0.8, 2.2, 2.3; cases 3, 5, 11, 13 to 16)."""

import pytest

from cpa.formats.names import Format
from cpa.translation.ir import (
    Authority,
    Call,
    Media,
    MediaKind,
    Part,
    Provenance,
    Role,
    Sig,
    SigKind,
    SysBlock,
    Text,
    Turn,
)
from cpa.translation.profile import ModelProfile
from cpa.translation.system import (
    drop_empty_texts,
    drop_prefill,
    ensure_user_turn,
    fixups,
    merge_turns,
    reminder,
    system_as_user,
    system_texts,
)
from tests.translation.support import make_context, make_request


def user(*parts: Part | str) -> Turn:
    return Turn(role=Role.USER, parts=[Text(part) if isinstance(part, str) else part for part in parts])


def model(*parts: Part | str) -> Turn:
    return Turn(role=Role.ASSISTANT, parts=[Text(part) if isinstance(part, str) else part for part in parts])


def system(*parts: Part | str) -> Turn:
    return Turn(role=Role.SYSTEM, parts=[Text(part) if isinstance(part, str) else part for part in parts])


CALL = Call(call_id="1", name="f")


@pytest.mark.parametrize("provider", [Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX, Format.GEMINI])
def test_accounting_text_is_for_claude_only(provider: Format) -> None:
    """Case 11: it changes with each request, and with it the prompt that providers cache."""
    header = SysBlock(text="x-anthropic-billing-header: cc_version=1")
    for client, left in ((Format.CLAUDE, ["Be brief."]), (Format.OPENAI, [header.text, "Be brief."])):
        request = make_request()
        request.system = [header, SysBlock(text="Be brief.")]
        ctx = make_context(client, provider)
        fixups(request, ctx)
        assert [block.text for block in request.system] == left
        assert len(ctx.losses) == 2 - len(left)


def test_accounting_text_stays_with_claude() -> None:
    """Its own provider wants it."""
    request = make_request()
    request.system = [SysBlock(text="x-anthropic-billing-header: 1")]
    fixups(request, make_context(Format.CLAUDE, Format.CLAUDE))
    assert len(request.system) == 1


def test_system_text_in_the_middle() -> None:
    """Case 5 and the example of 2.2: wrapped, and merged with what is around it."""
    ctx = make_context()
    turns = [user("hi"), system("Answer in French from now on."), user("who?"), model("moi"), system(" ")]
    assert merge_turns(system_as_user(turns, ctx)) == [
        user("hi", "<system-reminder>\nAnswer in French from now on.\n</system-reminder>", "who?"),
        model("moi"),
    ]
    assert len(ctx.losses) == 1
    assert reminder("x") == "<system-reminder>\nx\n</system-reminder>"


def test_media_in_system_text_are_told() -> None:
    """No protocol takes them there."""
    picture = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR")
    notes = Media(media=MediaKind.FILE, text="T", name="n.txt")
    assert system_texts(system("a", picture, notes)) == [
        Text("a"),
        Text("[attachment not available to this model: image/png]"),
        Text("[document: n.txt]\nT"),
    ]


@pytest.mark.parametrize(
    ("turns", "ensured", "losses"),
    [
        ([], [user("Continue.")], 1),
        ([user("hi")], [user("hi")], 0),
        ([user()], [user(), user("Continue.")], 1),
        ([model("a"), user("b")], [user("…"), model("a"), user("b")], 1),
        ([system("s"), model("a"), user("b")], [user("…"), system("s"), model("a"), user("b")], 1),
        ([system("s")], [system("s"), user("Continue.")], 1),
        ([model(CALL)], [user("…"), model(CALL), user("Continue.")], 2),
    ],
)
def test_a_user_s_turn_is_there_and_first(turns: list[Turn], ensured: list[Turn], losses: int) -> None:
    """Cases 3 and 13: Claude and Gemini demand it; empty text would be rejected."""
    request = make_request()
    request.turns = turns
    ctx = make_context()
    ensure_user_turn(request, ctx)
    assert request.turns == ensured
    assert [loss.note for loss in ctx.losses] == ["synthetic_user_turn"] * losses


def test_turns_are_merged() -> None:
    """Case 15; system turns stay by themselves, empty ones go, the order of parts counts only if it did in both."""
    loose = Turn(role=Role.ASSISTANT, parts=[Text("c")], ordered=False, name="n", phase="commentary")
    before = [user("a"), user(), user("b"), model("x"), loose, system("s"), system("t"), user("d")]
    copy = [*before]
    merged = merge_turns(before)
    both = Turn(role=Role.ASSISTANT, parts=[Text("x"), Text("c")], ordered=False, name="n", phase="commentary")
    assert merged == [user("a", "b"), both, system("s"), system("t"), user("d")]
    assert before == copy
    assert user("a") == before[0]
    assert merge_turns(merged) == merged


def test_empty_texts_go() -> None:
    """Case 16, but for those that carry a signature."""
    signed = Text("", sigs=[Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="d")])
    developer = Turn(role=Role.SYSTEM, parts=[Text(""), Text("x")], authority=Authority.DEVELOPER)
    turns = [user(""), user("", "a"), model(signed), developer]
    assert drop_empty_texts(turns) == [
        user("a"),
        model(signed),
        Turn(role=Role.SYSTEM, parts=[Text("x")], authority=Authority.DEVELOPER),
    ]


@pytest.mark.parametrize(
    ("turns", "left"),
    [
        ([user("a"), model("b")], [user("a")]),
        ([user("a"), model("b"), model("c"), user()], [user("a")]),
        ([user("a"), model("b", CALL)], [user("a"), model("b", CALL)]),
        ([user("a")], [user("a")]),
        ([model("a")], []),
    ],
)
def test_prefill_is_dropped_where_it_is_not_taken(turns: list[Turn], left: list[Turn]) -> None:
    """Case 14; a turn that calls is none."""
    request = make_request()
    request.turns = [*turns]
    ctx = make_context(profile=ModelProfile(prefill=False))
    drop_prefill(request, ctx)
    assert request.turns == left
    assert len(ctx.losses) == sum(turn.role is Role.ASSISTANT for turn in turns) - sum(
        turn.role is Role.ASSISTANT for turn in left
    )


@pytest.mark.parametrize(
    ("provider", "turns", "left"),
    [
        (Format.CLAUDE, [user("a"), model("b \n")], [user("a"), model("b")]),
        (Format.CLAUDE, [user("a"), model("b", " ")], [user("a"), model("b")]),
        (Format.CLAUDE, [user("a"), model(" ")], [user("a")]),
        (Format.CLAUDE, [user("a"), model("b"), model("\n")], [user("a"), model("b")]),
        (Format.OPENAI, [user("a"), model("b \n")], [user("a"), model("b \n")]),
    ],
)
def test_prefill_ends_without_space_for_claude(provider: Format, turns: list[Turn], left: list[Turn]) -> None:
    """Which rejects white space there."""
    request = make_request()
    request.turns = turns
    ctx = make_context(Format.OPENAI, provider, profile=ModelProfile(prefill=True))
    drop_prefill(request, ctx)
    assert request.turns == left
    assert ctx.losses == []
