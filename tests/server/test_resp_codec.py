"""The Redis protocol, as far as it is spoken here: any cut gives the same commands, any bytes an end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.server import resp_codec as resp
from cpa.server.resp_codec import MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, RespError, RespReader

COMMANDS = [
    (b"*2\r\n$4\r\nAUTH\r\n$3\r\nkey\r\n", [(b"AUTH", b"key")]),
    (b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nLPOP\r\n$5\r\nusage\r\n", [(b"PING",), (b"LPOP", b"usage")]),
    (b"*2\r\n$4\r\nAUTH\r\n$6\r\na\r\nb\r\n\r\n", [(b"AUTH", b"a\r\nb\r\n")]),
    (b"*2\r\n$4\r\nAUTH\r\n$0\r\n\r\n", [(b"AUTH", b"")]),
    (b"PING\r\nLPOP usage  3\r\n", [(b"PING",), (b"LPOP", b"usage", b"3")]),
    (b"*0\r\n\r\n*1\r\n$4\r\nQUIT\r\n", [(b"QUIT",)]),
]


@pytest.mark.parametrize(("data", "expected"), COMMANDS, ids=range(len(COMMANDS)))
def test_any_cut_gives_the_same_commands(data: bytes, expected: list[tuple[bytes, ...]]) -> None:
    """Whole, byte by byte, and in halves."""
    assert RespReader().feed(data) == expected
    reader = RespReader()
    assert [command for byte in data for command in reader.feed(bytes([byte]))] == expected
    for cut in range(len(data)):
        reader = RespReader()
        assert reader.feed(data[:cut]) + reader.feed(data[cut:]) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"$4\r\nPING\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"*x\r\n",
        b"*-1\r\n",
        b"*%d\r\n" % (MAX_ARGUMENTS + 1),
        b"*1\r\n+PING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$%d\r\n" % (MAX_ARGUMENT_BYTES + 1),
        b"*1\r\n$3\r\nabcd\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*" + b"1" * 2000,
        b"PING" * 1000,
    ],
    ids=range(13),
)
def test_nonsense_ends_the_conversation(data: bytes) -> None:
    """Before anything was kept that somebody else chose the size of."""
    reader = RespReader()
    with pytest.raises(RespError):
        reader.feed(data)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_commands_or_an_error(pieces: list[bytes]) -> None:
    """And nothing grows without bound."""
    reader = RespReader()
    try:
        for piece in pieces:
            for command in reader.feed(piece):
                assert command
                assert all(len(argument) <= MAX_ARGUMENT_BYTES for argument in command)
    except RespError:
        return


def test_replies() -> None:
    """As clients read them."""
    assert resp.array([resp.bulk(b"a\r\n"), resp.integer(-1), resp.NIL]) == b"*3\r\n$3\r\na\r\n\r\n:-1\r\n$-1\r\n"
    assert resp.array([]) == b"*0\r\n"
    assert resp.error("no\r\nway") == b"-ERR no way\r\n"
