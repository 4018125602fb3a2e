"""Messages: Go's rules for members, against a slow reference; encoding in order."""

import typing
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.abi import methods, wire, wire_host
from cpa.abi.codec import Codec, Message, codec, fold
from cpa.abi.gojson import GoJsonError, Members, parse
from cpa.abi.kinds import B64, NO_BYTES
from tests.abi import go_reference
from tests.abi.go_reference import Everything, Inner
from tests.abi.strategies import TEXTS, messages

MESSAGES = sorted(
    {
        value
        for module in (wire, wire_host)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Message) and value is not Message
    }
    | {Everything},
    key=lambda cls: cls.__name__,
)

ACCEPTED = [
    (b"{}", Everything()),
    (b"null", Everything()),
    (b'{"StatusCode":7}', Everything(number=7)),
    (b'{"statuscode":7}', Everything(number=7)),
    (b'{"STATUSCODE":-0}', Everything()),
    (b'{"status_code":7,"Status":"x","unknown":{"a":[1e999]}}', Everything()),
    ('{"\u017ftatusCode":7,"\u212a":1}'.encode(), Everything(number=7)),
    (b'{"StatusCode":1,"statuscode":2}', Everything(number=2)),
    (b'{"statuscode":2,"StatusCode":1}', Everything(number=1)),
    (b'{"StatusCode":1,"StatusCode":2,"statuscode":3,"StatusCode":4}', Everything(number=4)),
    (b'{"StatusCode":200,"statuscode":null}', Everything(number=200)),
    (b'{"Text":"a","text":null,"Flag":true,"flag":null}', Everything(text="a", flag=True)),
    (b'{"Body":"YQ==","body":null}', Everything()),
    (b'{"Body":[1,null,255]}', Everything(body=b"\x01\x00\xff")),
    (b'{"Body":[]}', Everything()),
    (
        b'{"Blob":"YWI=","HistoryChunks":["YQ==",null,""]}',
        Everything(blob=B64(b"ab"), blobs=(B64(b"a"), NO_BYTES, NO_BYTES)),
    ),
    (b'{"Names":["a",null]}', Everything(names=("a", ""))),
    (b'{"Headers":{"A":["b",null],"C":null}}', Everything(headers={"A": ["b", ""], "C": []})),
    (b'{"Headers":{"A":["1"]},"headers":{"B":["2"],"A":null}}', Everything(headers={"A": [], "B": ["2"]})),
    (b'{"Headers":{"A":["1"]},"headers":null}', Everything()),
    (b'{"Query":{}}', Everything(query={})),
    (b'{"Query":{},"query":null}', Everything()),
    (b'{"Labels":{"a":"b","c":null,"a":"d"}}', Everything(labels={"a": "d", "c": ""})),
    (b'{"Metadata":{"a":{"b":1},"a":{"c":1.5}}}', Everything(bag={"a": {"c": 1.5}})),
    (
        b'{"Metadata":{"a":[null,true,{"b":1,"b":2}]},"metadata":{"d":1}}',
        Everything(bag={"a": [None, True, {"b": 2}], "d": 1}),
    ),
    (b'{"Err":null,"StartedAt":null}', Everything()),
    (b'{"Inner":{"A":"x"},"Inner":null,"inner":{"n":1}}', Everything(inner=Inner(a="x", n=1))),
    (b'{"Pointer":{}}', Everything(pointer=Inner())),
    (b'{"Pointer":{"A":"x"},"pointer":{"N":3}}', Everything(pointer=Inner(a="x", n=3))),
    (b'{"Pointer":{"A":"x"},"pointer":null}', Everything()),
    (b'{"Items":[{"A":"x"},null],"items":[{"N":1}]}', Everything(items=(Inner(n=1),))),
    (
        b'{"ByName":{"k":{"A":"x"},"j":null},"byname":{"k":{"N":1}}}',
        Everything(by_name={"k": Inner(n=1), "j": Inner()}),
    ),
    (b'{"Lists":{"k":[{"A":"x"}],"j":null}}', Everything(lists={"k": (Inner(a="x"),), "j": ()})),
]

REFUSED = [
    *(
        b"[]",
        b"1",
        b'""',
        b"true",
        b'{"Text":1}',
        b'{"Text":["a"]}',
        b'{"Text":true}',
        b'{"Flag":"true"}',
        b'{"Flag":1}',
    ),
    *(b'{"StatusCode":200.0}', b'{"StatusCode":2e2}', b'{"StatusCode":"200"}', b'{"StatusCode":true}'),
    *(b'{"StatusCode":9223372036854775808}', b'{"StatusCode":1e999}', b'{"StatusCode":"x","StatusCode":1}'),
    *(b'{"Body":"Y-Q="}', b'{"Body":"YQ"}', b'{"Body":[256]}', b'{"Body":[-1]}', b'{"Body":[1.0]}', b'{"Body":["a"]}'),
    *(b'{"Body":[true]}', b'{"Body":{}}', b'{"Body":1}', b'{"HistoryChunks":"YQ=="}', b'{"HistoryChunks":{}}'),
    *(b'{"Names":"a"}', b'{"Names":[1]}', b'{"Names":{}}', b'{"Labels":{"a":1}}', b'{"Labels":[]}'),
    *(b'{"Headers":{"A":"b"}}', b'{"Headers":{"A":[1]}}', b'{"Headers":[]}', b'{"Query":""}'),
    *(b'{"Metadata":[]}', b'{"Metadata":{"a":[1e999]}}', b'{"StartedAt":""}', b'{"StartedAt":5}'),
    *(b'{"Err":"x"}', b'{"Err":{}}', b'{"Inner":[]}', b'{"Inner":{"N":"1"}}', b'{"Pointer":1}', b'{"Items":{}}'),
    *(b'{"Items":[1]}', b'{"ByName":[]}', b'{"ByName":{"k":1}}', b'{"Lists":{"k":{}}}', b'{"Text":"a"'),
]


@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_reads_as_go_does(text: bytes, value: Everything) -> None:
    """Names, repeats, nulls; the reference agrees."""
    assert codec(Everything).read(text) == value
    assert go_reference.decode(Everything, text) == value


@pytest.mark.parametrize("text", REFUSED)
def test_refuses_as_go_does(text: bytes) -> None:
    """No type is converted into another; the reference agrees."""
    with pytest.raises(GoJsonError):
        codec(Everything).read(text)
    with pytest.raises(go_reference.Refused):
        go_reference.decode(Everything, text)


@settings(max_examples=300)
@given(TEXTS)
def test_agrees_with_the_reference(text: bytes) -> None:
    """Same value or both refuse, for any text."""
    try:
        expected = go_reference.decode(Everything, text)
    except go_reference.Refused:
        with pytest.raises(GoJsonError):
            codec(Everything).read(text)
    else:
        assert codec(Everything).read(text) == expected


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_refusal(text: bytes) -> None:
    """No other exception leaves the decoder."""
    with suppress(GoJsonError):
        codec(Everything).read(text)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_what_is_written_is_read_back(cls: type[Any], data: st.DataObject) -> None:
    """For every message: same value, and the reference reads the same."""
    value = data.draw(messages(cls))
    table = codec(cls)
    text = table.encode(value)
    back = table.read(text)
    if table.has_embedded:
        assert table.encode(back) == text  # an absent text comes back as null
        return
    # Empty and missing are one on the wire.
    assert back == _normal(value)
    assert go_reference.decode(cls, text) == _normal(value)


def _normal(value: Any) -> Any:
    """Floats without fraction are integers on the wire."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(Decimal(repr(value)))  # shortest digits, then zeros
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_normal(item) for item in value)
    if isinstance(value, Message):
        return type(value)(**{name: _normal(getattr(value, name)) for name in value.declared_members})
    return value


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_annotations_and_kinds_agree(cls: type[Any]) -> None:
    """The zero value of each member is one of the annotated type; names are unique, also ignoring case."""
    zero = cls()
    names = [member.name for member in cls.declared_members.values()]
    assert len({fold(name) for name in names}) == len(names)
    for name, hint in cls.__annotations__.items():
        kinds = (
            [type(None)]
            if hint is None
            else [typing.get_origin(kind) or kind for kind in (typing.get_args(hint) if _is_union(hint) else [hint])]
        )
        assert type(getattr(zero, name)) in kinds


def _is_union(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def test_zero_values_do_not_share_maps() -> None:
    """A caller that fills one must not fill all."""
    first, second = codec(Everything).read(b"{}"), codec(Everything).read(b"{}")
    assert first.headers is not second.headers
    assert codec(Everything).read(b'{"Headers":null}').headers is not first.headers


def test_errors_name_the_member() -> None:
    """And JSON types, never values."""
    with pytest.raises(GoJsonError, match=r"^Lists: N: cannot unmarshal string into int$"):
        codec(Everything).read(b'{"Lists":{"k":[{"n":"secret"}]}}')


def test_order_and_nulls() -> None:
    """All members, in order of declaration."""
    assert codec(Everything).encode(Everything()) == (
        b'{"Text":"","Flag":false,"StatusCode":0,"Body":null,"Blob":null,"HistoryChunks":null,"Names":null,'
        b'"Labels":null,"Headers":null,"Query":null,"Metadata":null,"StartedAt":"0001-01-01T00:00:00Z","Err":null,'
        b'"Inner":{"A":"","N":0},"Pointer":null,"Items":null,"ByName":null,"Lists":null}'
    )


def test_text_is_raw_and_maps_are_sorted() -> None:
    """Plugins in C decode no escapes and take the first occurrence."""
    value = Everything(text='é"\\\ud800', headers={"b": ["ü"], "a": []}, query={}, by_name={"é": Inner(), "z": Inner()})
    text = codec(Everything).encode(value)
    assert '"Text":"é\\"\\\\\ufffd"'.encode() in text
    assert '"Headers":{"a":[],"b":["ü"]},"Query":{},'.encode() in text
    assert '"ByName":{"z":{"A":"","N":0},"é":{"A":"","N":0}}'.encode() in text


def test_lone_surrogates_in_headers() -> None:
    """The quick map encoder refuses them; the slow one replaces them."""
    assert b'"Headers":{"a":["\xef\xbf\xbd"]}' in codec(Everything).encode(Everything(headers={"a": ["\udcff"]}))


@pytest.mark.parametrize(
    ("value", "tail", "text"),
    [
        (wire.Empty(), b"", b"{}"),
        (wire.Empty(), b',"a":1', b'{"a":1}'),
        (wire_host.HttpStreamReadReply(), b',"a":1', b'{"a":1}'),
        (wire_host.HttpStreamReadReply(error="x", done=True), b"", b'{"error":"x","done":true}'),
        (wire.BodyReply(), b',"a":1', b'{"Body":null,"a":1}'),
        (wire.RegisterRequest(config_yaml=B64(b"a")), b',"a":1', b'{"config_yaml":"YQ==","schema_version":0,"a":1}'),
    ],
)
def test_tails_and_omissions(value: Any, tail: bytes, text: bytes) -> None:
    """Commas where they belong, with all, some or no members."""
    assert codec(type(value)).encode(value, tail) == text


def test_embedded_json_keeps_its_text() -> None:
    """Also beside repeated and odd names; trees have no text to give."""
    table = codec(wire_host.AuthSaveRequest)
    assert table.read(b'{"json":1,"JSON": {"a":1.0 , "a":2}, "Name":"x"}') == wire_host.AuthSaveRequest(
        name="x", json=b'{"a":1.0 , "a":2}'
    )
    assert table.read(b"{}").json == b""
    assert table.read(b'{"json":null}').json == b"null"
    with pytest.raises(GoJsonError):
        table.decode(parse(b'{"json":{}}'))
    with pytest.raises(GoJsonError, match="name"):
        table.read(b'{"json":{},"name":5}')


PREPARED = codec(wire.InterceptChunkRequest)


@given(
    messages(wire.InterceptChunkRequest),
    st.sets(st.sampled_from([*wire.InterceptChunkRequest.declared_members])),
)
def test_prepared_messages_are_the_same_bytes(value: wire.InterceptChunkRequest, varying: set[str]) -> None:
    """Whichever attributes are left open."""
    prepared = PREPARED.prepare(value, varying)
    values = {name: getattr(value, name) for name in varying}
    assert prepared.encode(values, b',"t":1') == PREPARED.encode(value, b',"t":1')
    assert prepared.encode(values) == PREPARED.encode(value)


def test_prepared_messages_need_their_values() -> None:
    """A missing one is a mistake of ours."""
    with pytest.raises(KeyError):
        PREPARED.prepare(wire.InterceptChunkRequest(), ["body"]).encode({})
    with pytest.raises(ValueError, match="nonsense"):
        PREPARED.prepare(wire.InterceptChunkRequest(), ["nonsense"])
    with pytest.raises(ValueError, match="HttpStreamReadReply"):
        codec(wire_host.HttpStreamReadReply).prepare(wire_host.HttpStreamReadReply(), [])


def test_codecs_are_made_once() -> None:
    """They are looked up at every call."""
    assert codec(Everything) is codec(Everything)
    assert isinstance(codec(Everything), Codec)


def test_repeats_come_as_members() -> None:
    """The tree's own type is accepted where a dict is."""
    assert codec(Inner).decode(Members([("A", "x"), ("a", "y")])) == Inner(a="y")


def test_every_message_of_a_method_is_checked_here() -> None:
    """The list above is complete."""
    used = {cls for row in methods.METHODS.values() for cls in (row.request, row.reply)}
    assert used <= set(MESSAGES)
