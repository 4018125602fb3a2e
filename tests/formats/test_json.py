"""Reading heads of bodies, and edits that keep every other byte."""

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import MalformedRequest
from cpa.formats.json import (
    BOM,
    MAX_SCANNED_BYTES,
    Head,
    JsonError,
    StreamFlag,
    _read_odd_head,
    chat_streams,
    claude_streams,
    decode,
    encode,
    has_member,
    is_json,
    pop_member,
    read_head,
    repair,
    splice_model,
)

KEYS = st.sampled_from(["model", "stream", "messages", "a", 'mo"del', "\\model", "é", ""])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(['"model":"x"', "model", "\ud83d", "}{]["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.tuples(KEYS, VALUES), max_size=6)


def written(members: list[tuple[str, object]], *, ascii_only: bool, spaced: bool) -> bytes:
    """An object with repeated names, which no dumper writes."""
    comma, colon = (" ,\n", " :\t") if spaced else (",", ":")
    parts = [
        json.dumps(name, ensure_ascii=ascii_only) + colon + json.dumps(value, ensure_ascii=ascii_only)
        for name, value in members
    ]
    return ("{" + comma.join(parts) + "}").encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model":"m","stream":true}', "m", StreamFlag.TRUE),
        (b' { "stream" : false , "model" : "m" } ', "m", StreamFlag.FALSE),
        (b'{"messages":[{"model":"nested","stream":true}],"model":"m"}', "m", StreamFlag.ABSENT),
        (b'{"model":"first","model":"last"}', "last", StreamFlag.ABSENT),
        (b'{"mod\\u0065l":"m","stream":null}', "m", StreamFlag.OTHER),
        (b'{"model":5,"stream":1}', "", StreamFlag.OTHER),
        (b'{"model":null,"stream":"true"}', "", StreamFlag.OTHER),
        (b"{}", "", StreamFlag.ABSENT),
        ('{"model":"模型"}'.encode(), "模型", StreamFlag.ABSENT),
        (b'{"model":"a\\"b\\\\"}', 'a"b\\', StreamFlag.ABSENT),
        (b'{"n":123456789012345678901234567890,"model":"m"}', "m", StreamFlag.ABSENT),
    ],
)
def test_the_head_is_that_of_the_top_level(body: bytes, model: str, stream: StreamFlag) -> None:
    head = read_head(body)
    assert (head.model, head.stream) == (model, stream)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'\xef\xbb\xbf{"model":"m","stream":true}', "m"),
        (b'{"text":"\\ud83d","model":"m","stream":true}', "m"),
        (b'{"model":"m\\ud83d","stream":true}', "m�"),
        (b'{"x":NaN,"model":"m","stream":true}', "m"),
        (b'{"x":"\x01","model":"m","stream":true}', "m"),
        (b'{"x":' + b"[" * 50000 + b"]" * 50000 + b',"model":"m","stream":true}', "m"),
        (b'{"x":{"a":[1,{"model":"no"}]},"y":"\\"}","model":"m","stream":true,"z":NaN}', "m"),
        (b'{"model":"first","x":NaN,"model":"m","stream":true}', "m"),
    ],
)
def test_what_strict_decoders_refuse_is_read_all_the_same(body: bytes, model: str) -> None:
    """A vendor may accept it, so passthrough must."""
    assert read_head(body).model == model
    assert read_head(body).stream is StreamFlag.TRUE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"model"',
        b'{"model":"m"',
        b'{"model":"m"} x',
        b'{"model"}',
        b'{"model":}',
        b"{,}",
        b'{"a":1,}',
        b'{"a":[}',
        b"\xff\xfe",
        b"{'a':1}",
        b"[" * 50000,
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_head(body)
    with pytest.raises(MalformedRequest):
        splice_model(body, "new")
    with pytest.raises(MalformedRequest):
        pop_member(body, "model")
    assert not has_member(body, "model")


def test_who_streams() -> None:
    assert [chat_streams(flag) for flag in StreamFlag] == [False, True, False, False]
    assert [claude_streams(flag) for flag in StreamFlag] == [False, True, False, True]


@pytest.mark.parametrize(
    ("body", "before", "after"),
    [
        (b'{"model":"a","x":1}', b'{"model":', b',"x":1}'),
        (b'{ "x" : [1 , 2] ,\n "model" :\t"a" }', b'{ "x" : [1 , 2] ,\n "model" :\t', b" }"),
        (b'{"x":{"model":"a"},"model":"b"}', b'{"x":{"model":"a"},"model":', b"}"),
        (b'{"x":"\\"model\\":\\"a\\"","model":"b"}', b'{"x":"\\"model\\":\\"a\\"","model":', b"}"),
        (b'{"model":"a","model":"b"}', b'{"model":"a","model":', b"}"),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":', b"}"),
        (b'{"model":"a\\"b"}', b'{"model":', b"}"),
        (b'{"model":12345678901234567890123}', b'{"model":', b"}"),
        (b'{"model":["model"]}', b'{"model":', b"}"),
        (b'\xef\xbb\xbf{"model":"a","x":"\\ud83d"}', b'\xef\xbb\xbf{"model":', b',"x":"\\ud83d"}'),
        (
            b'{"x":[' + b'{"model":"n"},' * 20 + b'0],"model":"a"}',
            b'{"x":[' + b'{"model":"n"},' * 20 + b'0],"model":',
            b"}",
        ),
    ],
)
def test_only_the_model_is_replaced(body: bytes, before: bytes, after: bytes) -> None:
    assert splice_model(body, "näme") == (before, '"näme"'.encode(), after)


def test_a_missing_model_is_put_in_front() -> None:
    assert b"".join(splice_model(b'{"x":1}', "m")) == b'{"model":"m","x":1}'
    assert b"".join(splice_model(b" { } ", "m")) == b' {"model":"m" } '


def test_the_same_model_costs_no_copy() -> None:
    body = b'{"model":"m","n":1}'
    (piece,) = splice_model(body, "m")
    assert piece is body


def test_a_large_body_is_spliced_at_its_end() -> None:
    body = b'{"messages":["' + b"x" * 1_000_000 + b'"],"model":"a"}'
    assert b"".join(splice_model(body, "b")) == body[:-4] + b'"b"}'


@settings(max_examples=150, deadline=None)
@given(OBJECTS, st.booleans(), st.booleans(), st.text(min_size=1, max_size=8))
def test_splicing_changes_the_model_and_nothing_else(
    members: list[tuple[str, object]], ascii_only: bool, spaced: bool, new: str
) -> None:
    """splice, then decode = decode, then assign."""
    body = written(members, ascii_only=ascii_only, spaced=spaced)
    expected = json.loads(body.decode("utf-8", "surrogatepass"))
    spliced = b"".join(splice_model(body, new))
    found = json.loads(spliced.decode("utf-8", "surrogatepass"))
    assert found == {**expected, "model": new}
    assert read_head(spliced).model == new


@settings(max_examples=150, deadline=None)
@given(OBJECTS, st.booleans(), st.booleans())
def test_popping_removes_one_member_and_nothing_else(
    members: list[tuple[str, object]], ascii_only: bool, spaced: bool
) -> None:
    body = written(members, ascii_only=ascii_only, spaced=spaced)
    expected = json.loads(body.decode("utf-8", "surrogatepass"))
    rest, value = pop_member(body, "stream")
    assert (value is not None) == ("stream" in expected) == has_member(body, "stream")
    if value is None:
        assert rest is body
    else:
        assert json.loads(value.decode("utf-8", "surrogatepass")) == expected.pop("stream")
    assert json.loads(rest.decode("utf-8", "surrogatepass")) == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40) | st.text('{}[]":,\\ model1ud8', max_size=30).map(str.encode))
def test_any_bytes_give_a_head_or_a_malformed_request(body: bytes) -> None:
    try:
        read_head(body)
    except MalformedRequest:
        return
    spliced = b"".join(splice_model(body, "new"))
    assert read_head(spliced).model == "new"
    assert not has_member(pop_member(body, "model")[0], "model")


@pytest.mark.parametrize(
    ("body", "rest", "value"),
    [
        (b'{"stream":true,"x":1.50}', b'{"x":1.50}', b"true"),
        (b'{"x":12345678901234567890123,"stream":true}', b'{"x":12345678901234567890123}', b"true"),
        (b'{"stream":[1, 2]}', b"{}", b"[1, 2]"),
        (b'{"x":NaN, "stream":1, "y":2 }', b'{"x":NaN, "y":2 }', b"1"),
        (b'{"x":NaN, "stream":1 }', b'{"x":NaN }', b"1"),
        (b'{"stream":NaN}', b"{}", b"NaN"),
    ],
)
def test_popped_values_and_the_others_keep_their_bytes(body: bytes, rest: bytes, value: bytes) -> None:
    assert pop_member(body, "stream") == (rest, value)


# --- bodies that strict decoders refuse: bounded work ---

BAD_ENDS = [b'"\\ud83d"]}', b'"\\ude00\\ud83d\\ud83d"]}']


@pytest.fixture
def no_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token loop is synchronous Python: to enter it with a large value freezes everybody."""

    def refuse(body: bytes, start: int, limit: int) -> int:
        raise AssertionError(f"the scanner was entered for {len(body) - start} bytes")

    monkeypatch.setattr("cpa.formats.json._value_end", refuse)


@pytest.mark.usefixtures("no_scanner")
@pytest.mark.parametrize("end", BAD_ENDS)
@pytest.mark.parametrize("start", [b"", BOM])
def test_large_bodies_with_lone_surrogates_are_read_without_the_scanner(start: bytes, end: bytes) -> None:
    """48 MiB of brackets in front of one kept the proxy busy for 18 seconds."""
    messages = b'"messages":[' + b"[]," * 200_000 + b'"\\\\ud83d\\ud83d\\ude00",' + end
    body = start + b'{"model":"g","stream":true,' + messages
    head = read_head(body)
    assert (head.model, head.stream) == ("g", StreamFlag.TRUE)
    assert splice_model(body, "n") == (start + b'{"model":', b'"n"', b',"stream":true,' + messages)
    assert has_member(body, "stream")
    assert not has_member(body, "other")
    assert pop_member(body, "stream") == (start + b'{"model":"g",' + messages, b"true")


@pytest.mark.usefixtures("no_scanner")
def test_a_valid_body_is_never_scanned() -> None:
    """Neither when many nested members are called like the model, nor when the name is written with escapes."""
    nested = b'{"x":[' + b'{"model":"n"},' * 100_000 + b'0],"mod\\u0065l":"g"}'
    assert splice_model(nested, "m")[0] == nested[:-4]
    assert b"".join(splice_model(b'{"x":[' + b'{"model":"n"},' * 20 + b"0]}", "m")).startswith(b'{"model":"m","x":[')


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"g","x":NaN,"m":[' + b"[]," * 200_000 + b"0]}",
        b'{"model":"g","m":[' + b"[]," * 200_000,
        b'{"model":"g","m":' + b"[" * 400_000,
        b'{"model":"g","x":NaN' + (b',"m":[' + b"[]," * 20_000 + b"0]") * 5 + b"}",
        b'{"x":NaN,' + b'"":1,' * 100_000 + b'"model":"g"}',
    ],
)
def test_what_only_the_scanner_reads_has_a_limit(body: bytes) -> None:
    assert len(body) > MAX_SCANNED_BYTES
    with pytest.raises(MalformedRequest):
        read_head(body)
    with pytest.raises(MalformedRequest):
        splice_model(body, "new")
    with pytest.raises(MalformedRequest):
        pop_member(body, "model")
    assert not has_member(body, "model")


def test_large_strings_and_repeats_are_no_burden() -> None:
    """Only brackets cost time, so text of any length may stand beside what no strict decoder reads."""
    body = b'{"x":NaN,"m":"' + b"x" * 1_000_000 + b'","model":"g"}'
    assert read_head(body).model == "g"
    assert splice_model(body, "n") == (body[:-4], b'"n"', b"}")
    repeated = b'{"a":12,"a":"x","a":1,"mod\\u0065l":"g","s":"\\ud83d"}'
    assert splice_model(repeated, "n")[0] == repeated[: repeated.index(b'"g"')]
    assert pop_member(repeated, "a") == (b'{"mod\\u0065l":"g","s":"\\ud83d"}', b"1")


@given(
    st.lists(
        st.sampled_from(["\\\\", "\\ud83d", "\\ude00", "\\uD83D\\uDE00", "\\n", "a", "ud83d", "\\u0041"]), max_size=8
    )
)
def test_repairing_keeps_every_place(pieces: list[str]) -> None:
    """Places found in the copy are used in the original, and pairs stay pairs."""
    for start in (b"", BOM):
        data = start + b'"' + "".join(pieces).encode() + b'"'
        repaired = repair(data)
        assert len(repaired) == len(data)
        meant = json.loads(data.removeprefix(start))
        assert decode(repaired) == meant.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_one_policy_of_decoding() -> None:
    """Exact integers, repaired surrogates and byte order marks, one class of error."""
    assert decode(b"123456789012345678901234567890") == 123456789012345678901234567890
    assert decode(b'\xef\xbb\xbf["\\ud83d","\\\\ud83d","\\ud83d\\ude00"]') == ["�", "\\ud83d", "😀"]
    for bad in (b"", b"{", b"\xff", b'"\xff"', b"[" * 100000, b"NaN"):
        with pytest.raises(JsonError):
            decode(bad)
        assert not is_json(bad)


def test_one_policy_of_encoding() -> None:
    value = {"é": [1, 10**25, None, True, msgspec.Raw(b'{"b": 1}')]}
    assert encode(value) == '{"é":[1,10000000000000000000000000,null,true,{"b": 1}]}'.encode()
    assert encode({"a": ["x\ud83d"], "b\ud83d": 1}) == '{"a":["x\ufffd"],"b\ufffd":1}'.encode()


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(['"model"', '"stream"', '"mod\\u0065l"', '"x"', '"Model"']),
        st.one_of(
            st.sampled_from(
                [
                    *(
                        "true",
                        "false",
                        "null",
                        "0",
                        "1",
                        '"true"',
                        '""',
                        '"gpt-5"',
                        '"m\\ud83d"',
                        '"\\u6a21"',
                        "[]",
                        "NaN",
                    ),
                    *('{"model":"inner","stream":true}', '"模型"', '"a\\"b"', "[1,{}]", "1e999", '"\x01"'),
                ]
            ),
            st.text(max_size=8).map(lambda text: json.dumps(text)),
        ),
    ),
    max_size=5,
)


@given(MEMBERS, st.sampled_from(["", " ", "\ufeff", "}", ","]), st.sampled_from([b"", b"\xff", b"\xed\xa0\x80"]))
def test_the_quick_look_at_a_head_says_what_the_long_one_says(
    members: list[tuple[str, str]], beside: str, bytes_beside: bytes
) -> None:
    """Nearly all heads are read by types; whatever has another one is read with care, and errors are the same."""
    text = beside + "{" + ",".join(f"{name}: {value}" for name, value in members) + "}"
    body = text.encode("utf-8", "surrogatepass").replace(b"inner", b"inner" + bytes_beside)

    def read(by: Callable[[bytes], Head]) -> tuple[str, StreamFlag] | str:
        try:
            head = by(body)
        except MalformedRequest as exc:
            return str(exc)
        return head.model, head.stream

    assert read(read_head) == read(_read_odd_head)
