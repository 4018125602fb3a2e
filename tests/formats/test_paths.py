"""Paths into JSON bodies: what they find, what they change, and that nothing else changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.formats.json import JsonError
from cpa.formats.paths import MAX_STEPS, Document, Glob, PathError, compile_path

BODY = (
    b'{"model":"m","n":12345678901234567890123,"f":1.10,"nil":null,"yes":true,"no":false,"a.b":{"c":1},"0":"zero",'
    b'"tools":[{"type":"web_search","k":1,"id":"5"},{"type":"function","name":"x","function":{"name":"deep"}},'
    b'{"type":"web_search","k":2,"id":5},"bare",7,null],"empty":{},"none":[]}'
)


def get(path: str, body: bytes = BODY) -> Any:
    """What is at *path*, as text; None when nothing is."""
    found = Document(body).get(compile_path(path))
    return None if found is None else found.decode()


def after(body: bytes, path: str, value: Any) -> Any:
    """*body* with *value* set."""
    document = Document(body)
    document.set(compile_path(path), json.dumps(value).encode())
    return json.loads(document.dump())


def without(body: bytes, path: str) -> bytes:
    """*body* with *path* deleted."""
    document = Document(body)
    document.delete(compile_path(path))
    return document.dump()


# -- getting --


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model", '"m"'),
        ("n", "12345678901234567890123"),
        ("f", "1.10"),
        ("nil", "null"),
        ("nil.x", None),
        ("model.x", None),
        ("nope", None),
        ("nope.x", None),
        (r"a\.b.c", "1"),
        (r"\m\odel", '"m"'),
        ("0", '"zero"'),
        ("empty", "{}"),
        ("none", "[]"),
        ("none.0", None),
        ("tools.0.k", "1"),
        ("tools.1.function.name", '"deep"'),
        ("tools.3", '"bare"'),
        ("tools.6", None),
        ("tools.-1", None),
        ("tools.-1.x", None),
        ("tools.01", None),
        ("tools.type", None),
        ("tools.0.0", None),
    ],
)
def test_members_and_indexes(path: str, expected: str | None) -> None:
    """A number is an index in an array and a name in an object; values come back as they were written."""
    assert get(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *(("model", True), ("nil", False), ("nope", False), ("empty", True), ("no", True), ("tools.5", False)),
        *(("tools.#(k==2)", True), ("tools.#(k>0)#.id", True), ("tools.#(k==3)#", False), ("nil.x", False)),
    ],
)
def test_null_does_not_exist(path: str, expected: bool) -> None:
    """Unlike everything else that is there."""
    assert Document(BODY).exists(compile_path(path)) is expected


@pytest.mark.parametrize(
    ("query", "hits"),
    [
        ('type=="web_search"', [0, 2]),
        ('type = "web_search"', [0, 2]),
        ("type==web_search", [0, 2]),
        ('type!="web_search"', [1]),
        ('type%"web*"', [0, 2]),
        ('type%"*"', [0, 1, 2]),
        ('type!%"web*"', [1]),
        ('type%"web"', []),
        ('type>"g"', [0, 2]),
        ('type<="function"', [1]),
        ("k==2", [2]),
        ('k=="2"', [2]),
        ("k==2.0", [2]),
        ("k!=2", [0]),
        ("k>1", [2]),
        ("k>=1", [0, 2]),
        ("k<2", [0]),
        ("k<=0", []),
        ("k>x", []),
        ("k!=x", [0, 2]),
        ("k%1", []),
        ("id==5", [0, 2]),
        ('id=="5"', [0, 2]),
        ("function.name==deep", [1]),
        ("function==deep", []),
        ("function", [1]),
        ("nope", []),
        ("nope!=1", []),
        ('=="bare"', [3]),
        ("==7", [4]),
        (">6", [3, 4]),
        (">c", []),
        ("==null", [5]),
        ("!=null", [3, 4]),
        ('type=="web_search" && k==2', [2]),
        ('type=="function" || k==2', [1, 2]),
        ("k==1 || type==function && name==x", [0, 1]),
        ("k==1 || type==function && name==y", [0]),
        (r"type==web\_search", [0, 2]),
        (r'type=="web\u005fsearch"', [0, 2]),
        ("  k  ==  1  ", [0]),
    ],
)
def test_queries_find_elements(query: str, hits: list[int]) -> None:
    """As gjson has them: the kind of the value found decides, and who lacks the member never matches."""
    document = Document(BODY)
    assert document.places(compile_path(f"tools.#({query})#")) == [("tools", index) for index in hits]
    assert document.places(compile_path(f"tools.#({query})")) == [("tools", index) for index in hits[:1]]


@pytest.mark.parametrize(
    ("query", "hits"),
    [
        ("on==true", [0]),
        ("on==false", [1]),
        ("on!=true", [1, 2]),
        ("on>false", []),
        ("on", [0, 1, 2]),
        ("on==null", [2]),
    ],
)
def test_queries_know_words(query: str, hits: list[int]) -> None:
    """They are equal to themselves and have no order."""
    body = b'{"l":[{"on":true},{"on":false},{"on":null},{}]}'
    assert Document(body).places(compile_path(f"l.#({query})#")) == [("l", index) for index in hits]


def test_values_may_contain_what_has_a_meaning_elsewhere() -> None:
    """Within quotes."""
    body = b'{"l":[{"n":"a) && b || c == \\"d\\".#("},{"n":1}]}'
    assert get(r'l.#(n=="a) && b || c == \"d\".#(").n', body) == json.dumps('a) && b || c == "d".#(')


def test_queries_go_on_and_nest_one_after_another() -> None:
    """Through arrays in arrays; all that is there is one array."""
    body = b'{"m":[{"r":"u","c":[{"t":"x","v":1},{"t":"y"}]},{"r":"u","c":[{"t":"x","v":2}]},{"r":"s","c":5}]}'
    assert get("m.#(r==u)#.c.#(t==x)#.v", body) == "[1,2]"
    assert get("m.#(r==u).c.#(t==y)", body) == '{"t":"y"}'
    assert get("m.#(r==s)#.c.#(t==x)#.v", body) is None
    assert get("m.#(r==nobody)#", body) is None
    assert get("nope.#(r==u)", body) is None


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "a.", ".a", "a..b", "a\\", "#", "a.#", "a.#.b", "a*", "a?b", "a|b", "a#"),
        *("a.#(", "a.#(b", "a.#()", "a.#()#", "a.#(b==)", "a.#(b==1 c)", "a.#(b==1 &&)", "a.#(&& b)", "a.#(b==1)c"),
        *("a.#(b.#(c==1))", 'a.#(b=="x)', "a.#(==)", "a.#(b==1==2)", "a.#(.b==1)", "a.#(b*==1)", 'a.#(b=="\\x")'),
        ".".join("a" * (MAX_STEPS + 1)),
    ],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    """With a reason, when it is compiled, and never misread."""
    with pytest.raises(PathError) as caught:
        compile_path(path)
    assert str(caught.value)


@given(st.text(alphabet='ab.#()\\"*|&=!<>%-10 \n', max_size=30), st.sampled_from([BODY, b'{"a":[{"b":1},[]]}']))
def test_any_text_is_a_path_or_refused(text: str, body: bytes) -> None:
    """And what a path does to a body is harmless."""
    try:
        path = compile_path(text)
    except PathError:
        return
    document = Document(body)
    document.get(path)
    document.set(path, b'{"new":1}')
    assert isinstance(json.loads(document.dump()), dict)
    document.delete(path)
    assert isinstance(json.loads(document.dump()), dict)


# -- setting --


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        ({}, "a", {"a": 9}),
        ({"a": 1}, "a", {"a": 9}),
        ({"a": {"b": 1}}, "a", {"a": 9}),
        ({}, "a.b.c", {"a": {"b": {"c": 9}}}),
        ({"a": {}}, "a.b.c", {"a": {"b": {"c": 9}}}),
        ({"a": {"x": 1}}, "a.b", {"a": {"x": 1, "b": 9}}),
        ({"a": None}, "a.b", {"a": {"b": 9}}),
        ({"a": [None]}, "a.0.b", {"a": [{"b": 9}]}),
        ({}, r"a\.b.c", {"a.b": {"c": 9}}),
        ({}, "a.0", {"a": [9]}),
        ({}, "a.2", {"a": [None, None, 9]}),
        ({}, "a.-1", {"a": [9]}),
        ({}, "a.-1.b", {"a": [{"b": 9}]}),
        ({"a": [1]}, "a.-1", {"a": [1, 9]}),
        ({"a": [1]}, "a.-1.b.0", {"a": [1, {"b": [9]}]}),
        ({"a": [1, 2]}, "a.1", {"a": [1, 9]}),
        ({"a": [1]}, "a.3", {"a": [1, None, None, 9]}),
        ({"a": []}, "a.0.b", {"a": [{"b": 9}]}),
        ({"a": {}}, "a.0", {"a": {"0": 9}}),
        ({"a": {}}, "a.-1", {"a": {"-1": 9}}),
        ({}, "logit_bias.50256", {"logit_bias": {"50256": 9}}),
        ({"a": []}, "a.50256", {"a": []}),
        ({"a": 5}, "a.b", {"a": 5}),
        ({"a": "text"}, "a.0", {"a": "text"}),
        ({"a": [1]}, "a.b", {"a": [1]}),
        ({"a": [1]}, "a.b.c", {"a": [1]}),
        ({"a": {"b": False}}, "a.b.c.d", {"a": {"b": False}}),
        ({"l": [{"t": 1}, {"t": 2}, {"t": 1}]}, "l.#(t==1).x", {"l": [{"t": 1, "x": 9}, {"t": 2}, {"t": 1}]}),
        ({"l": [{"t": 1}, {"t": 2}, {"t": 1}]}, "l.#(t==1)#.x.y", {"l": [{"t": 1, "x": {"y": 9}}, {"t": 2}] * 2}),
        ({"l": [{"t": 1}]}, "l.#(t==2)#.x", {"l": [{"t": 1}]}),
        ({"l": [1, 2, 1]}, "l.#(==1)#", {"l": [9, 2, 9]}),
        ({}, "l.#(t==1).x", {}),
    ],
)
def test_setting_makes_what_is_missing_and_breaks_nothing(body: Any, path: str, expected: Any) -> None:
    """As sjson has it; a parent that is something else than the path needs is left alone."""
    if path.startswith("l.#(t==1)#"):
        expected = {"l": expected["l"][:3]}
    assert after(json.dumps(body).encode(), path, 9) == expected


def test_everything_else_keeps_its_bytes() -> None:
    """Numbers of any size, escapes, white space inside values, order."""
    kept = b'{"z":{ "k" : 1.10E+2 },"n":123456789012345678901234567890,"s":"\\u00e9\\/","l":[1e3, 2],'
    document = Document(kept + b'"t":{"x":[ 0 ],"y":1}}')
    document.set(compile_path("t.y"), b" [1.0,\n2] ")
    assert document.dump() == kept + b'"t":{"x":[ 0 ],"y":[1.0,\n2]}}'


def test_a_document_that_did_not_change_is_the_same_object() -> None:
    """However much it was asked."""
    document = Document(BODY)
    for path in ("tools.#(type==function)#.function.name", "a\\.b.c", "nope.x"):
        document.get(compile_path(path))
    document.delete(compile_path("nope.x"))
    document.delete(compile_path("tools.#(k==3)#"))
    document.set(compile_path("model.x"), b"1")
    assert document.dump() is BODY


def test_what_was_set_can_be_asked_and_gone_into() -> None:
    """Rules see what earlier ones have made."""
    document = Document(b"{}")
    document.set(compile_path("a"), b' {"l": [ {"t": "x"} ] } ')
    document.set(compile_path("a.l.#(t==x).n"), b"1")
    document.set(compile_path("a.l.-1"), b"null")
    assert document.get(compile_path("a.l")) == b'[{"t":"x","n":1},null]'


# -- deleting --


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (b'{"a":1,"b":2}', "a", b'{"b":2}'),
        (b'{"a":null}', "a", b"{}"),
        (b'{"a":{"b":1,"c":{}}}', "a.b", b'{"a":{"c":{}}}'),
        (b'{"a":[1,2,3]}', "a.1", b'{"a":[1,3]}'),
        (b'{"a":[1,2,3]}', "a.-1", b'{"a":[1,2]}'),
        (b'{"a":[]}', "a.-1", b'{"a":[]}'),
        (b'{"a":[1]}', "a.1", b'{"a":[1]}'),
        (b'{"a":[1]}', "a.b", b'{"a":[1]}'),
        (b'{"a":5}', "a.b", b'{"a":5}'),
        (b'{"l":[{"t":1,"x":1},{"t":2,"x":1},{"t":1}]}', "l.#(t==1)#.x", b'{"l":[{"t":1},{"t":2,"x":1},{"t":1}]}'),
        (b'{"l":[{"t":1},{"t":1},{"t":2},{"t":1}]}', "l.#(t==1)#", b'{"l":[{"t":2}]}'),
        (b'{"l":[{"t":1},{"t":2},{"t":1}]}', "l.#(t==1)", b'{"l":[{"t":2},{"t":1}]}'),
    ],
)
def test_deleting(body: bytes, path: str, expected: bytes) -> None:
    """Of several matches the last goes first, so that none takes another's place."""
    assert without(body, path) == expected


# -- bodies of strangers --


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"x"', b"1", b"{", b'{"a":}', b"\xff", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """By the one documented error."""
    with pytest.raises(JsonError):
        Document(body)


def test_odd_json_is_read() -> None:
    """As everywhere: a byte order mark and lone surrogates are repaired, of repeated members the last counts."""
    document = Document(b'\xef\xbb\xbf {"a":{"b":"\\ud800","a":1,"a":2},"l":[{"t":"\\udc00"}]}')
    document.set(compile_path("a.c"), b"1")
    assert json.loads(document.dump()) == {"a": {"b": "�", "a": 2, "c": 1}, "l": [{"t": "�"}]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(st.sampled_from(["a", "b", "0", "1"]), min_size=1, max_size=3)


def plain_get(value: Any, steps: list[str]) -> Any:
    """What a path means, said in the simplest way; KeyError or IndexError when nothing is there."""
    for step in steps:
        if isinstance(value, list) and step.isdigit():
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value[step]
        else:
            raise KeyError(step)
    return value


@given(st.dictionaries(st.sampled_from(["a", "b", "0"]), JSON, max_size=3), STEPS)
def test_get_agrees_with_plain_python(body: dict[str, Any], steps: list[str]) -> None:
    """On any body."""
    found = get(".".join(steps), json.dumps(body).encode())
    try:
        expected = plain_get(body, steps)
    except (KeyError, IndexError):
        assert found is None
    else:
        assert json.loads(found) == expected


@given(st.dictionaries(st.sampled_from(["a", "b", "0"]), JSON, max_size=3), STEPS)
def test_what_is_set_is_there_and_what_is_deleted_is_not(body: dict[str, Any], steps: list[str]) -> None:
    """Unless something stands in the way; then nothing changes."""
    data, path = json.dumps(body).encode(), compile_path(".".join(steps))
    document = Document(data)
    (place,) = document.places(path)
    if document.put(place, b'"new"'):
        assert plain_get(json.loads(document.dump()), steps) == "new"
        steps_left = document.drop(place)
        assert steps_left
        if not isinstance(plain_get(json.loads(document.dump()), steps[:-1]), list):
            assert document.get(path) is None
    else:
        assert document.dump() is data


# -- patterns --


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "", True),
        ("", "x", False),
        ("abc", "abc", True),
        ("abc", "ABC", False),
        ("*", "", True),
        ("*", "any\nthing", True),
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*a", "ba", True),
        ("*b*", "abc", True),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
        ("a**b", "ab", True),
        ("a.c", "abc", False),
        ("a?c", "abc", False),
        ("a*bc*d", "abbcd", True),
    ],
)
def test_patterns(pattern: str, text: str, expected: bool) -> None:
    """Only ``*`` is special, and the whole text has to match."""
    assert Glob(pattern).matches(text) is expected


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab", max_size=10))
def test_patterns_agree_with_the_simplest_definition(pattern: str, text: str) -> None:
    """Which takes too long for what strangers send."""

    def matches(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return matches(pattern[1:], text) or (bool(text) and matches(pattern, text[1:]))
        return text[:1] == pattern[0] and matches(pattern[1:], text[1:])

    assert Glob(pattern).matches(text) is matches(pattern, text)
