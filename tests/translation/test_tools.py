"""Arguments, choice and results of tools (translation 2.6 to 2.8, 3.2)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.translation.ir import (
    Call,
    ChoiceMode,
    IRRequest,
    Media,
    MediaKind,
    Result,
    Shape,
    Text,
    Tool,
    ToolChoice,
    ToolKind,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.tools import (
    allowed_tools,
    args_object,
    args_string,
    check_choice,
    error_text,
    media_intro,
    repair_arguments,
    result_text,
    split_result_media,
    unwrap_custom,
    wrapped_schema,
)
from tests.translation.support import make_request

# --- arguments -------------------------------------------------------------------------------------------------------


def written(text: str, shape: Shape = Shape.JSON) -> Call:
    """A call whose arguments are a string (Chat, Responses)."""
    return Call(call_id="1", name="f", args=text.encode("utf-8", "surrogatepass"), args_text=True, shape=shape)


def given_as(raw: bytes) -> Call:
    """A call whose arguments are an object (Claude, Gemini)."""
    return Call(call_id="1", name="f", args=raw)


STRINGS = [
    ("", b"{}"),
    (" \n", b"{}"),
    ("null", b"{}"),
    ('{"a":1}', b'{"a":1}'),
    (' {"a": 1} ', b'{"a": 1}'),
    ("{bad", b'{"_raw_arguments":"{bad"}'),
    ("[1]", b'{"value":[1]}'),
    ("3", b'{"value":3}'),
    ('"x"', b'{"value":"x"}'),
    ('{"id":12345678901234567890123}', b'{"id":12345678901234567890123}'),
    ("{'a':1}", b'{"_raw_arguments":"{\'a\':1}"}'),
    ('{"a":"\\ud83d"}', b'{"a":"\\ufffd"}'),
    ('{"a":1} {"b":2}', b'{"_raw_arguments":"{\\"a\\":1} {\\"b\\":2}"}'),
    ('{"a":NaN}', b'{"_raw_arguments":"{\\"a\\":NaN}"}'),
]


@pytest.mark.parametrize(("text", "wire"), STRINGS)
def test_strings_become_objects(text: str, wire: bytes) -> None:
    """Cases 54 to 57: nothing is hidden from the model, digits stay."""
    assert args_object(written(text)) == wire


@pytest.mark.parametrize(
    ("raw", "wire"),
    [(b"", b"{}"), (b"null", b"{}"), (b'{ "a" : 1 }', b'{ "a" : 1 }'), (b"[1]", b'{"value":[1]}')],
)
def test_objects_stay_as_they_are(raw: bytes, wire: bytes) -> None:
    """Undecoded, white space included."""
    assert args_object(given_as(raw)) == wire


def test_objects_become_strings_as_they_are() -> None:
    """Also text that is no JSON; an absent object is an empty one."""
    assert args_string(given_as(b'{ "a" : 1.0 }')) == '{ "a" : 1.0 }'
    assert args_string(given_as(b"")) == "{}"
    assert args_string(written("{bad")) == "{bad"
    assert args_string(written("")) == ""


def test_free_text() -> None:
    """Case 49: as it is where there is free text, wrapped elsewhere."""
    call = written('*** "Begin"\n', Shape.TEXT)
    assert args_string(call) == '*** "Begin"\n'
    assert args_object(call) == b'{"input":"*** \\"Begin\\"\\n"}'
    assert args_string(call, wrapped=True) == '{"input":"*** \\"Begin\\"\\n"}'
    assert args_object(written("", Shape.TEXT)) == b'{"input":""}'


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ('{"input":"x"}', "x"),
        (' {"input": "a\\nb", "more": 1} ', "a\nb"),
        ('"text"', "text"),
        ('{"input":1}', '{"input":1}'),
        ('{"other":"x"}', '{"other":"x"}'),
        ("*** Begin", "*** Begin"),
        ('{"input":"x', '{"input":"x'),
        ('"open', '"open'),
        ("", ""),
        ("[1]", "[1]"),
    ],
)
def test_unwrapping(args: str, text: str) -> None:
    """Case 50: what was wrapped, else the text itself."""
    assert unwrap_custom(args) == text


@given(st.text())
def test_wrapping_and_back(text: str) -> None:
    """Any text survives."""
    assert unwrap_custom(args_object(written(text, Shape.TEXT)).decode()) == text


def test_wrapped_schema() -> None:
    """The example of 2.6."""
    tool = Tool(
        kind=ToolKind.CUSTOM,
        name="apply_patch",
        description="Edit files",
        grammar=b'{"type":"grammar","syntax":"lark","definition":"start: x"}',
    )
    description, schema = wrapped_schema(tool)
    assert description == "Edit files\n\nThe `input` string must follow this lark grammar:\nstart: x"
    assert json.loads(schema) == {
        "type": "object",
        "properties": {"input": {"type": "string", "description": "Raw text input of the tool"}},
        "required": ["input"],
        "additionalProperties": False,
    }
    assert wrapped_schema(tool, "Other")[0].startswith("Other\n\n")


@pytest.mark.parametrize("grammar", [b"", b'{"type":"text"}', b"[]", b'{"definition":3}', b"{"])
def test_no_grammar(grammar: bytes) -> None:
    """Free text without rules."""
    assert wrapped_schema(Tool(kind=ToolKind.CUSTOM, name="t", description="D", grammar=grammar))[0] == "D"


def test_a_long_grammar_is_only_mentioned() -> None:
    """More than 4 KB."""
    grammar = json.dumps({"type": "grammar", "syntax": "regex", "definition": "a" * 4097}).encode()
    description = wrapped_schema(Tool(kind=ToolKind.CUSTOM, name="t", grammar=grammar))[0]
    assert description == "The `input` string must follow a regex grammar that is too long to be shown here."


MENDED = [
    ('{"a":1}', {"a": 1}),
    ("", {}),
    ("null", {}),
    ("[1]", {"value": [1]}),
    ('```json\n{"a":1}\n```', {"a": 1}),
    ('``` {"a":1}```', {"a": 1}),
    ("{'a':1}", {"a": 1}),
    (
        "{'a': True, 'b': None, 'c': (1, -2.5), 'd': 'it\\'s', 'e': \"x\"}",
        {"a": True, "b": None, "c": [1, -2.5], "d": "it's", "e": "x"},
    ),
    ("```python\n{'a': [1, 2,]}\n```", {"a": [1, 2]}),
    ("{1: 2}", {"1": 2}),
    ("{'a': open('x')}", {"_raw_arguments": "{'a': open('x')}"}),
    ("{'a': 1 + 1}", {"_raw_arguments": "{'a': 1 + 1}"}),
    ("{'a'}", {"_raw_arguments": "{'a'}"}),
    ("{None: 1}", {"_raw_arguments": "{None: 1}"}),
    ("{'a': 1", {"_raw_arguments": "{'a': 1"}),
    ("{'a': " + "-" * 5000 + "1}", {"_raw_arguments": "{'a': " + "-" * 5000 + "1}"}),
    ("{'a': " + "[" * 500 + "]" * 500 + "}", {"_raw_arguments": "{'a': " + "[" * 500 + "]" * 500 + "}"}),
    ("{'a': " + "9" * 5000 + "}", {"_raw_arguments": "{'a': " + "9" * 5000 + "}"}),
]


@pytest.mark.parametrize(("text", "value"), MENDED)
def test_mending_of_answers(text: str, value: object) -> None:
    """Case 124, within bounds: literals only, never code."""
    assert json.loads(repair_arguments(text)) == value


def test_long_answers_are_not_mended() -> None:
    """What is that long is no slip."""
    text = "{'a': '" + "x" * 70_000 + "'}"
    assert json.loads(repair_arguments(text)) == {"_raw_arguments": text}


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text("{}[]'\",:1aTrue\\\n`-. ", max_size=40))
def test_arguments_are_always_objects(text: str) -> None:
    """Whatever a model or a client writes."""
    assert isinstance(json.loads(repair_arguments(text)), dict)
    assert isinstance(json.loads(args_object(written(text))), dict)
    assert isinstance(unwrap_custom(text), str)


# --- choice ----------------------------------------------------------------------------------------------------------

A = Tool(kind=ToolKind.FUNCTION, name="a")
B = Tool(kind=ToolKind.FUNCTION, name="b")
CHILD = Tool(kind=ToolKind.FUNCTION, name="log", namespace="git")
SEARCH = Tool(kind=ToolKind.SERVER, name="web_search_x", server="web_search")


def choosing(mode: ChoiceMode, *names: tuple[str, str], tools: tuple[Tool, ...] = (A, B, CHILD, SEARCH)) -> IRRequest:
    request = make_request()
    request.tools = [*tools]
    request.tool_choice = ToolChoice(mode=mode, names=[*names])
    return request


def test_subset() -> None:
    """Case 42: only what was allowed is sent where there are no subsets."""
    assert allowed_tools(choosing(ChoiceMode.SUBSET, ("", "a"))) == [A]
    assert allowed_tools(choosing(ChoiceMode.SUBSET, ("", "web_search"), ("git", "log"))) == [CHILD, SEARCH]
    assert allowed_tools(choosing(ChoiceMode.NAMED, ("", "a"))) == [A, B, CHILD, SEARCH]
    assert allowed_tools(make_request()) == []


@pytest.mark.parametrize(
    "request_",
    [
        make_request(),
        choosing(ChoiceMode.AUTO, tools=()),
        choosing(ChoiceMode.REQUIRED, tools=()),
        choosing(ChoiceMode.NAMED, ("", "a")),
        choosing(ChoiceMode.SUBSET, ("", "a"), ("git", "log")),
        choosing(ChoiceMode.SERVER, ("", "web_search")),
    ],
)
def test_choices_that_exist(request_: IRRequest) -> None:
    """Nothing is said of them."""
    before = request_.tool_choice and list(request_.tool_choice.names)
    check_choice(request_)
    assert (request_.tool_choice and request_.tool_choice.names) == before


def test_a_bare_name_of_one_namespace_is_completed() -> None:
    """Clients name a child without its namespace."""
    request = choosing(ChoiceMode.NAMED, ("", "log"))
    check_choice(request)
    assert request.tool_choice is not None
    assert request.tool_choice.names == [("git", "log")]


@pytest.mark.parametrize(
    "request_",
    [
        choosing(ChoiceMode.NAMED, ("", "c")),
        choosing(ChoiceMode.NAMED, ("", "a"), tools=()),
        choosing(ChoiceMode.NAMED),
        choosing(ChoiceMode.SUBSET, ("", "a"), ("", "c")),
        choosing(ChoiceMode.SERVER, ("", "code")),
        choosing(ChoiceMode.NAMED, ("svn", "log")),
        choosing(
            ChoiceMode.NAMED, ("", "log"), tools=(CHILD, Tool(kind=ToolKind.FUNCTION, name="log", namespace="svn"))
        ),
    ],
)
def test_choices_that_do_not_exist(request_: IRRequest) -> None:
    """A 400 for the client, naming the member."""
    with pytest.raises(Untranslatable) as caught:
        check_choice(request_)
    assert caught.value.param == "tool_choice"
    assert caught.value.http_status == 400


# --- results ---------------------------------------------------------------------------------------------------------

PICTURE = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR")
NOTES = Media(media=MediaKind.FILE, mime="text/plain", text="T", name="notes.txt")


@pytest.mark.parametrize(
    ("result", "text", "media"),
    [
        (Result(call_id="1", parts=[Text("a"), Text("b")]), "a\nb", []),
        (Result(call_id="1"), "", []),
        (Result(call_id="1", json=b'{"k":[1]}'), '{"k":[1]}', []),
        (Result(call_id="1", parts=[Text("a"), PICTURE]), "a", [PICTURE]),
        (Result(call_id="1", parts=[NOTES, PICTURE]), "[document: notes.txt]\nT", [PICTURE]),
    ],
)
def test_text_and_media(result: Result, text: str, media: list[Media]) -> None:
    """Case 28: targets whose results are text get the media apart."""
    assert split_result_media(result) == (text, media)
    if not media:
        assert result_text(result) == text


def test_results_as_text_only() -> None:
    """Media are told, never dropped."""
    result = Result(call_id="c", parts=[Text("a"), PICTURE])
    assert result_text(result) == "a\n[attachment not available to this model: image/png]"
    assert media_intro(result) == Text("[media returned by tool call c]")


def test_errors_are_marked_once() -> None:
    """For targets without a flag."""
    result = Result(call_id="1", parts=[Text("no such file")], is_error=True)
    assert result_text(result) == "no such file"
    assert result_text(result, mark_error=True) == "Error: no such file"
    assert split_result_media(result, mark_error=True) == ("Error: no such file", [])
    assert error_text("Error: x") == "Error: x"
    fine = Result(call_id="1", parts=[Text("x")])
    assert result_text(fine, mark_error=True) == "x"
