"""Values become plain, bounded, and free of secrets."""

import math

import attrs
import pytest

from cpa.observability.redact import MAX_ITEMS, MAX_VALUE_CHARS, KnownSecrets, plain, secrecy

SECRET = "Zq8hunter2Zq8hunter2x"


@attrs.frozen
class Thing:
    name: str
    key: str = attrs.field(repr=False)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", 3, 3),
        ("ok", True, True),
        ("none", None, None),
        ("ratio", 0.5, 0.5),
        ("huge", 2**80, hex(2**80)),
        ("endless", math.inf, "inf"),
        ("text", "hello", "hello"),
        ("raw", b"h\xff", "h\\xff"),
        ("error", ValueError("bad"), "ValueError: bad"),
        ("thing", Thing("n", SECRET), "Thing(name='n')"),
        ("api_key", SECRET, "Zq8h...er2x"),
        ("apikey", SECRET, "Zq8h...er2x"),
        ("key", SECRET, "Zq8h...er2x"),
        ("refresh_token", SECRET, "Zq8h...er2x"),
        ("client_secret", SECRET, "Zq8h...er2x"),
        ("authorization", f"Bearer {SECRET}", "Bearer Zq8h...er2x"),
        ("X-Api-Key", SECRET.encode(), "Zq8h...er2x"),
        ("password", SECRET, "***"),
        ("cookie", f"a={SECRET}", "***"),
        ("key", [SECRET], "***"),
        ("password", 1234, "***"),
        ("max_tokens", 4096, 4096),
        ("url", f"https://u:{SECRET}@h/?key={SECRET}", "https://h/?key=Zq8h...er2x"),
        ("proxy_url", f"socks5://u:{SECRET}@h", "socks5://h"),
        ("query", f"key={SECRET}", "key=Zq8h...er2x"),
        ("headers", {"x-api-key": SECRET, "a": "b"}, {"x-api-key": "Zq8h...er2x", "a": "b"}),
        ("headers", [(b"x-api-key", SECRET.encode())], [["x-api-key", "Zq8h...er2x"]]),
        ("data", {"inner": {"password": SECRET}}, {"inner": {"password": "***"}}),
        ("data", {"inner": [f"Bearer {SECRET}"]}, {"inner": ["Bearer Zq8h...er2x"]}),
        ("data", [[[[["deep"]]]]], [[[["…"]]]]),
    ],
)
def test_values_become_plain(name: str, value: object, expected: object) -> None:
    """Name first, then shape; JSON types only."""
    assert plain(name, value) == expected


def test_values_are_bounded() -> None:
    """A log line is not a place for a body."""
    assert len(str(plain("text", "a" * 100_000))) == MAX_VALUE_CHARS + 1
    assert len(str(plain("raw", b"a" * 100_000))) == MAX_VALUE_CHARS + 1
    many = plain("list", list(range(1000)))
    assert isinstance(many, list)
    assert len(many) == MAX_ITEMS


def test_names_are_read_whatever_their_spelling() -> None:
    """Headers, YAML keys and Python names write the same thing differently."""
    assert [secrecy(name) for name in ("X-API-Key", "api_key", "apiKey", "ApiKeys")] == ["mask"] * 4
    assert [secrecy(name) for name in ("tokens", "status", "monkey", "keys_total")] == [""] * 4


@pytest.mark.parametrize("others", [0, 200])
def test_known_secrets_are_masked_anywhere(others: int) -> None:
    """Home-made keys have no shape; few are searched one by one, many by their words."""
    secrets = [f"other-key-{number:04}-xyz" for number in range(others)]
    known = KnownSecrets(
        ["team-key-0815", 'quote"back\\slash', "team-key-0815-longer", "päss-wörter-8", "x", "", *secrets]
    )
    assert known.mask_in(b"see team-key-0815, team-key-0815-longer.") == b"see team...0815, team...nger."
    assert known.mask_in(b'{"a":"quote\\"back\\\\slash"}') == b'{"a":"quot...lash"}'
    assert "päss-wörter-8".encode() not in known.mask_in("päss-wörter-8 x".encode())
    assert known.mask_in(b"nothing here x") == b"nothing here x"
    assert known.mask_body(b"body team-key-0815 sk-abcdefghijklmnop") == b"body team...0815 sk-a...mnop"
    if others:
        assert known.mask_in(b"a=other-key-0042-xyz;") == b"a=othe...-xyz;"


def test_known_secrets_are_replaced_whole_and_never_shown() -> None:
    """After a reload the old keys are words like any others."""
    known = KnownSecrets(["first-secret"])
    known.replace(["second-secret"])
    assert known.mask_in(b"first-secret second-secret") == b"first-secret seco...cret"
    assert "secret" not in repr(known).replace("KnownSecrets", "")
