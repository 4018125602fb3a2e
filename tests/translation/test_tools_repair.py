"""Calls and results in the history, repaired (translation 2.8; cases 28 to 31 and 58 to 70)."""

import copy
import json
import re
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.ir import (
    Call,
    IRRequest,
    Media,
    MediaKind,
    Part,
    Provenance,
    Reasoning,
    Result,
    Role,
    Shape,
    Sig,
    SigKind,
    Text,
    Turn,
)
from cpa.translation.profile import ModelProfile
from cpa.translation.tools import RepairTarget, repair
from tests.translation.support import make_context, make_request

NONE = "No result was recorded for this tool call."
CHAT, RESPONSES, CLAUDE, GEMINI = RepairTarget
TARGETS = list(RepairTarget)


def call(call_id: str, name: str = "f") -> Call:
    return Call(call_id=call_id, name=name, args=b"{}")


def result(call_id: str, text: str = "ok", name: str = "") -> Result:
    return Result(call_id=call_id, name=name, parts=[Text(text=text)])


def user(*parts: Part) -> Turn:
    return Turn(role=Role.USER, parts=[*parts])


def model(*parts: Part) -> Turn:
    return Turn(role=Role.ASSISTANT, parts=[*parts])


def texts(found: Result) -> str:
    return "".join(part.text for part in found.parts)


def shown(turns: list[Turn]) -> list[str]:
    """Turns in short: ``m: f#c1`` calls, ``u: =c1 ok`` results, ``u: 'hi'`` texts, ``!`` errors."""
    lines = []
    for turn in turns:
        words = []
        for part in turn.parts:
            match part:
                case Call():
                    words.append(f"{part.name}#{part.call_id}")
                case Result():
                    words.append(f"={part.call_id}{'!' if part.is_error else ''} {texts(part)}")
                case Text():
                    words.append(repr(part.text))
                case _:
                    words.append(type(part).__name__)
        lines.append(f"{turn.role[0].replace('a', 'm')}: {', '.join(words)}")
    return lines


def repaired(turns: list[Turn], target: RepairTarget = CHAT, ctx: Context | None = None) -> list[str]:
    request = make_request()
    request.turns = turns
    repair(request, target, ctx or make_context())
    return shown(request.turns)


def hashed(prefix: str, text: str, digits: int = 24) -> str:
    return prefix + sha256(text.encode()).hexdigest()[:digits]


CASES: list[tuple[str, list[Turn], list[str]]] = [
    (
        "nothing to repair",
        [user(Text("hi")), model(Text("a"), call("1")), user(result("1")), model(Text("b"))],
        ["u: 'hi'", "m: 'a', f#1", "u: =1 ok", "m: 'b'"],
    ),
    (
        "61: several results, the last content",
        [model(call("1")), user(result("1", "a")), user(result("1", "b"))],
        ["m: f#1", "u: =1 b"],
    ),
    (
        "62: results in the order of the calls",
        [model(call("a"), call("b")), user(result("b", "B")), user(result("a", "A"))],
        ["m: f#a, f#b", "u: =a A, =b B"],
    ),
    (
        "63: text between call and result",
        [model(call("1")), user(Text("wait")), user(result("1"))],
        ["m: f#1", "u: =1 ok", "u: 'wait'"],
    ),
    (
        "text before the result in one turn",
        [model(call("1")), user(Text("wait"), result("1"), Text("and"))],
        ["m: f#1", "u: =1 ok", "u: 'wait', 'and'"],
    ),
    (
        "system text between call and result",
        [model(call("1")), Turn(role=Role.SYSTEM, parts=[Text("s")]), user(result("1"))],
        ["m: f#1", "u: =1 ok", "s: 's'"],
    ),
    (
        "64: missing result",
        [model(call("1")), user(Text("go on"))],
        ["m: f#1", f"u: =1! {NONE}", "u: 'go on'"],
    ),
    ("missing result at the end", [model(call("1"))], ["m: f#1", f"u: =1! {NONE}"]),
    (
        "one of two missing",
        [model(call("1"), call("2")), user(result("2"))],
        ["m: f#1, f#2", f"u: =1! {NONE}, =2 ok"],
    ),
    (
        "65: orphan",
        [user(Text("hi")), user(result("x", "old", "g"))],
        ["u: 'hi'", "u: '[result of an earlier tool call g]: old'"],
    ),
    ("orphan without a name", [user(result("x", "old"))], ["u: '[result of an earlier tool call]: old'"]),
    (
        "result before its call",
        [user(result("1", "early")), model(call("1"))],
        ["m: f#1", "u: =1 early"],
    ),
    (
        "a later turn's result",
        [model(call("1")), user(Text("x")), model(Text("y")), user(result("1"))],
        ["m: f#1", "u: =1 ok", "u: 'x'", "m: 'y'"],
    ),
    (
        "67: no id, oldest pending of the name",
        [model(call("1", "g"), call("2", "f"), call("3", "f")), user(result("", "a", "f"), result("", "b", "f"))],
        ["m: g#1, f#2, f#3", f"u: =1! {NONE}, =2 a, =3 b"],
    ),
    (
        "no id and no name",
        [model(call("1", "g"), call("2")), user(result("", "a"), result("", "b"))],
        ["m: g#1, f#2", "u: =1 a, =2 b"],
    ),
    (
        "69: explicit before implicit",
        [model(call("1"), call("2")), user(result("", "implicit", "f"), result("1", "explicit"))],
        ["m: f#1, f#2", "u: =1 explicit, =2 implicit"],
    ),
    (
        "70: more results than calls",
        [model(call("1")), user(result("", "a", "f"), result("", "b", "f"))],
        ["m: f#1", "u: =1 a", "u: '[result of an earlier tool call f]: b'"],
    ),
    (
        "no id reaches no further back than the nearest calls, but for its name",
        [model(call("1", "g")), user(Text("x")), model(call("2")), user(result("2"), result("", "b"))],
        ["m: g#1", f"u: =1! {NONE}", "u: 'x'", "m: f#2", "u: =2 ok", "u: '[result of an earlier tool call]: b'"],
    ),
    (
        "pieces of one model turn",
        [model(call("1")), model(Text("t"), call("2")), user(result("1"), result("2"))],
        ["m: f#1, 't', f#2", "u: =1 ok, =2 ok"],
    ),
    (
        "text after the calls is a turn of its own",
        [model(call("1")), model(Text("t")), user(result("1"))],
        ["m: f#1", "u: =1 ok", "m: 't'"],
    ),
    (
        "result among the assistant's parts",
        [model(call("1"), result("1"), Text("t"))],
        ["m: f#1, 't'", "u: =1 ok"],
    ),
    (
        "orphan among the assistant's parts",
        [model(Text("t"), result("9", "x"))],
        ["m: 't'", "u: '[result of an earlier tool call]: x'"],
    ),
    ("empty turns", [user(), model(), user(Text("x"))], ["u: 'x'"]),
]


@pytest.mark.parametrize(("turns", "expected"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
@pytest.mark.parametrize("target", TARGETS)
def test_repair(turns: list[Turn], expected: list[str], target: RepairTarget) -> None:
    """Each call is answered once, directly after its turn; nothing is deleted."""
    assert repaired(copy.deepcopy(turns), target) == expected


def test_a_reused_id_is_renamed_together_with_its_result() -> None:
    """Case 60: clients that count anew in each turn."""
    again = hashed("1_", "1\0" + "1", 8)
    turns = [model(call("1")), user(result("1", "a")), model(call("1")), user(result("1", "b"))]
    assert repaired(turns) == ["m: f#1", "u: =1 a", f"m: f#{again}", f"u: ={again} b"]


def test_a_third_use_does_not_rename_the_second_again() -> None:
    """What was sent once stays: the provider caches prompts by their beginning."""
    turns = [model(call("1")), user(result("1", "a")), model(call("1")), user(result("1", "b"))]
    before = repaired(copy.deepcopy(turns))
    assert repaired([*turns, model(call("1")), user(result("1", "c"))])[:4] == before


def test_equal_ids_in_one_turn_pair_in_order() -> None:
    """By position, calls and results alike."""
    again = hashed("1_", "1\0" + "1", 8)
    turns = [model(call("1", "f"), call("1", "g")), user(result("1", "a"), result("1", "b"), result("1", "c"))]
    assert repaired(turns) == [f"m: f#1, g#{again}", f"u: =1 a, ={again} c"]


def test_a_made_up_id_never_meets_one_that_is_there() -> None:
    """A client may call its ids what it likes."""
    again = hashed("1_", "1\0" + "1", 8)
    turns = [model(call("1"), call("1"), call(again)), user()]
    ids = re.findall(r"#([^,]+)", repaired(turns)[0])
    assert len(set(ids)) == 3
    assert ids[0] == "1"
    assert ids[2] == again


def test_missing_ids_come_from_the_position() -> None:
    """Case 68 and the example of 2.8: two calls of one name, no ids, paired first in, first out."""
    ids = [hashed("call_", f"1\0{place}\0a") for place in (0, 1)]
    turns = [
        user(Text("hi")),
        model(call("", "a"), call("", "a")),
        user(result("", "one", "a"), result("", "two", "a")),
    ]
    assert repaired(turns) == ["u: 'hi'", f"m: a#{ids[0]}, a#{ids[1]}", f"u: ={ids[0]} one, ={ids[1]} two"]


def test_a_result_may_have_an_id_that_its_call_lacks() -> None:
    """Gemini clients that echo only half of the ids; an id that others could own pairs with nothing."""
    turns = [model(call("", "a"), call("x", "b")), user(result("r", "one", "a"), result("s", "two", "b"))]
    made = hashed("call_", "0\0" + "0\0a")
    assert repaired(turns) == [
        f"m: a#{made}, b#x",
        f"u: ={made} one, =x! {NONE}",
        "u: '[result of an earlier tool call b]: two'",
    ]


def test_results_learn_of_their_calls() -> None:
    """Case 73: Gemini wants the function's name, and it is not cut out of an id."""
    request = make_request()
    made = Call(call_id="toolu_a-b-c", name="log", namespace="git", args=b"x", args_text=True, shape=Shape.TEXT)
    request.turns = [model(made), user(result("toolu_a-b-c", name="wrong"))]
    repair(request, GEMINI, make_context())
    found = request.turns[1].parts[0]
    assert isinstance(found, Result)
    assert (found.call_id, found.name, found.namespace, found.shape) == ("toolu_a-b-c", "log", "git", Shape.TEXT)


LONG = "x" * 65
IDS = [
    (CLAUDE, "call:1/2", hashed("toolu_", "call:1/2")),
    (CLAUDE, "a-b_C9" * 20, "a-b_C9" * 20),
    (CHAT, "x" * 40, "x" * 40),
    (CHAT, "x" * 41, hashed("call_", "x" * 41)),
    (RESPONSES, "x" * 64, "x" * 64),
    (RESPONSES, LONG, hashed("call_", LONG)),
    (GEMINI, "é:" * 99, "é:" * 99),
]


@pytest.mark.parametrize(("target", "call_id", "wire"), IDS)
def test_ids_follow_the_rule_of_the_target(target: RepairTarget, call_id: str, wire: str) -> None:
    """Cases 58 and 59: on both sides."""
    assert repaired([model(call(call_id)), user(result(call_id))], target) == [f"m: f#{wire}", f"u: ={wire} ok"]


def test_ids_that_look_alike_stay_apart() -> None:
    """Replacing bad characters would make one of them."""
    turns = [model(call("a.b"), call("a:b"), call("a_b")), user(result("a:b", "2"), result("a.b", "1"))]
    ids = [hashed("toolu_", "a.b"), hashed("toolu_", "a:b"), "a_b"]
    assert repaired(turns, CLAUDE)[0] == "m: " + ", ".join(f"f#{each}" for each in ids)


def responses_context(*, codex: bool = False) -> Context:
    return make_context(Format.OPENAI_RESPONSE, Format.CODEX, profile=ModelProfile(codex=codex))


def test_the_provider_may_know_an_orphan_s_call() -> None:
    """Case 66: an earlier answer that the provider keeps has the call. Other targets, and codex, have no such state."""

    def request() -> IRRequest:
        made = make_request()
        made.state.previous_id = "resp_1"
        made.turns = [user(result(LONG, "x"), Text("t"))]
        return made

    kept = request()
    repair(kept, RESPONSES, responses_context())
    assert shown(kept.turns) == [f"u: ={hashed('call_', LONG)} x, 't'"]
    for target, ctx in ((RESPONSES, responses_context(codex=True)), (CLAUDE, make_context())):
        told = request()
        repair(told, target, ctx)
        assert shown(told.turns) == ["u: '[result of an earlier tool call]: x', 't'"]


def test_an_orphan_s_media_stay() -> None:
    """Text and media, the error told."""
    picture = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR")
    orphan = Result(call_id="x", name="shot", parts=[Text("boom"), picture], is_error=True)
    request = make_request()
    request.turns = [user(orphan)]
    repair(request, CLAUDE, make_context())
    assert request.turns[0].parts == [Text("[result of an earlier tool call shot]: Error: boom"), picture]


def test_losses() -> None:
    """What was made up or left out is told; an intact history loses nothing."""
    ctx = make_context()
    repaired([model(call("1")), user(result("1"))], ctx=ctx)
    assert ctx.losses == []
    repaired([model(call("1"), call("2")), user(result("1"), result("1"), result("3"))], ctx=ctx)
    assert len(ctx.losses) == 3


# --- stringified media -----------------------------------------------------------------------------------------------

PNG = "data:image/png;base64,iVBORw0KGgo="
IMAGE = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBORw0KGgo=")

UNPACKED: list[tuple[object, list[Part]]] = [
    (
        [{"type": "input_image", "image_url": PNG, "detail": "high"}],
        [Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBORw0KGgo=", detail="high")],
    ),
    ([{"type": "input_text", "text": "t"}, {"type": "image_url", "image_url": {"url": PNG}}], [Text("t"), IMAGE]),
    (
        [{"type": "image", "source": {"type": "base64", "media_type": "image/jpg", "data": "/9j/"}}],
        [Media(media=MediaKind.IMAGE, mime="image/jpeg", b64="/9j/")],
    ),
    ([{"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"}], [IMAGE]),
    (
        [{"type": "image", "source": {"type": "url", "url": "https://h/a.gif"}}],
        [Media(media=MediaKind.IMAGE, mime="image/gif", url="https://h/a.gif")],
    ),
    (
        [{"type": "input_file", "filename": "a.pdf", "file_data": "JVBER"}],
        [Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBER", name="a.pdf")],
    ),
    (
        [{"type": "file", "file": {"file_id": "file-1"}}],
        [Media(media=MediaKind.FILE, file_id="file-1", issuer="openai")],
    ),
    (
        [{"type": "document", "source": {"type": "text", "data": "x"}, "title": "T"}],
        [Media(media=MediaKind.FILE, mime="text/plain", text="x", title="T")],
    ),
]


@pytest.mark.parametrize(("packed", "parts"), UNPACKED)
def test_a_string_of_media_is_unpacked(packed: object, parts: list[Part]) -> None:
    """Case 31: as text, base64 would cost megabytes of tokens."""
    request = make_request()
    request.turns = [model(call("1")), user(result("1", json.dumps(packed)))]
    repair(request, RESPONSES, make_context())
    found = request.turns[1].parts[0]
    assert isinstance(found, Result)
    assert found.parts == parts


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '[{"type":"text","text":"no media"}]',
        '[{"type":"input_image","image_url":"x"},{"type":"row"}]',
        '[{"type":"input_image","image_url":3}]',
        '[{"type":"input_image"}]',
        '[{"type":"image","source":{"type":"base64"}}]',
        '[{"type":"input_image","image_url":"data:image/png;base64,xx"}] and more',
        '{"type":"input_image","image_url":"data:image/png;base64,xx"}',
        "[{",
        '"[{\\"type\\":\\"input_image\\"}]"',
    ],
)
def test_other_text_stays(text: str) -> None:
    """Whatever is not wholly a list of known parts with media is what the tool said."""
    assert repaired([model(call("1")), user(result("1", text))])[1] == f"u: =1 {text}"


# --- reasoning -------------------------------------------------------------------------------------------------------


def reasoning(provenance: Provenance = Provenance.OPENAI, kind: SigKind = SigKind.ENCRYPTED) -> Reasoning:
    return Reasoning(texts=["r"], sigs=[Sig(provenance=provenance, kind=kind, data="d")])


def test_reasoning_goes_with_what_it_led_to() -> None:
    """Case 101: the vendor wants the item that followed; other reasoning, and other targets, do not mind."""

    def turns() -> list[Turn]:
        return [model(reasoning(), call("1")), user(result("1")), model(Text("t"), reasoning()), user(Text("x"))]

    kept = ["m: Reasoning, f#1", "u: =1 ok", "m: 't', Reasoning", "u: 'x'"]
    assert repaired(turns(), RESPONSES) == [*kept[:2], "m: 't'", "u: 'x'"]
    assert repaired(turns(), CLAUDE) == kept
    assert repaired([model(reasoning()), user(Text("x"))], RESPONSES) == ["u: 'x'"]
    assert repaired([model(reasoning()), model(Text("t"))], RESPONSES) == ["m: Reasoning", "m: 't'"]
    foreign = [model(reasoning(Provenance.CLAUDE, SigKind.THINKING)), user(Text("x"))]
    assert repaired(foreign, RESPONSES) == ["m: Reasoning", "u: 'x'"]


# --- laws ------------------------------------------------------------------------------------------------------------

SOME_IDS = st.sampled_from(["", "1", "2", "a:b", "a.b", "x" * 70, "call_1"])
SOME_NAMES = st.sampled_from(["", "f", "g"])
CALLS = st.builds(lambda i, n: Call(call_id=i, name=n, args=b"{}"), SOME_IDS, SOME_NAMES)
RESULTS = st.builds(lambda i, n, t: result(i, t, n), SOME_IDS, SOME_NAMES, st.sampled_from(["one", "two"]))
TEXTS = st.builds(Text, st.sampled_from(["x", "y"]))
TURNS = st.lists(
    st.one_of(
        st.builds(lambda parts: model(*parts), st.lists(CALLS | TEXTS, max_size=4)),
        st.builds(lambda parts: user(*parts), st.lists(RESULTS | TEXTS, max_size=4)),
        st.builds(lambda parts: model(*parts), st.lists(CALLS | RESULTS | TEXTS, max_size=3)),
    ),
    max_size=7,
)


@settings(max_examples=300, deadline=None)
@given(TURNS, st.sampled_from(TARGETS), st.booleans())
def test_laws_of_repair(turns: list[Turn], target: RepairTarget, remembered: bool) -> None:
    """After it: ids unique and accepted, each call answered once and directly, no text lost, nothing left to repair."""
    request = make_request()
    request.turns = copy.deepcopy(turns)
    request.state.previous_id = "resp_1" if remembered else ""
    same = copy.deepcopy(request)
    repair(request, target, make_context())
    repair(same, target, make_context())
    assert request == same

    calls = [part for turn in request.turns for part in turn.parts if isinstance(part, Call)]
    ids = [made.call_id for made in calls]
    assert len(set(ids)) == len(ids) == sum(isinstance(part, Call) for turn in turns for part in turn.parts)
    assert all(target.accepts_id(each) and each for each in ids)

    free = []
    for number, turn in enumerate(request.turns):
        made = [part for part in turn.parts if isinstance(part, Call)]
        if made:
            answers = request.turns[number + 1]
            assert answers.role is Role.USER
            assert [(p.call_id, p.name) for p in answers.parts if isinstance(p, Result)] == [
                (part.call_id, part.name) for part in made
            ]
            assert len(answers.parts) == len(made)
        elif not (number and any(isinstance(part, Call) for part in request.turns[number - 1].parts)):
            free += [part for part in turn.parts if isinstance(part, Result)]
    assert not free or (remembered and target is RESPONSES)
    assert all(part.call_id not in ids for part in free)

    def said(found: list[Turn]) -> list[str]:
        parts = [part.text for turn in found for part in turn.parts if isinstance(part, Text)]
        return sorted(text for text in parts if not text.startswith("[result"))

    assert said(request.turns) == said(turns)

    once = copy.deepcopy(request)
    ctx = make_context()
    repair(request, target, ctx)
    assert request == once
    assert ctx.losses == []


EXCHANGES = st.lists(
    st.tuples(st.integers(0, 3), st.lists(TEXTS, max_size=2), st.lists(TEXTS, max_size=2), st.booleans()), max_size=5
)


@settings(max_examples=100, deadline=None)
@given(EXCHANGES, st.sampled_from(TARGETS))
def test_intact_histories_come_out_as_if_repaired(
    exchanges: list[tuple[int, list[Text], list[Text], bool]], target: RepairTarget
) -> None:
    """They take a shorter way, which an orphan at their end forbids; what was before it must be the same bytes."""
    turns: list[Turn] = []
    for number, (count, said, answered, apart) in enumerate(exchanges):
        ids = [f"{number}_{place}" for place in range(count)]
        turns.append(model(*said, *(call(each) for each in ids)))
        results = [result(each, name="?") for each in ids]
        turns += [user(*results), user(*answered)] if apart else [user(*results, *answered)]
    short, long = make_request(), make_request()
    short.turns = copy.deepcopy(turns)
    long.turns = [*copy.deepcopy(turns), user(result("none"))]
    ctx = make_context()
    repair(short, target, ctx)
    repair(long, target, make_context())
    assert short.turns == long.turns[:-1]
    assert ctx.losses == []


def test_long_histories_take_linear_time() -> None:
    """Strangers write histories: ten thousand calls of one id, and as many results without one."""
    count = 10_000
    request = make_request()
    request.turns = [turn for _ in range(count) for turn in (model(call("1")), user(result("1"), result("", "x", "f")))]
    repair(request, CLAUDE, make_context())
    calls = [part for turn in request.turns for part in turn.parts if isinstance(part, Call)]
    assert len({made.call_id for made in calls}) == count
