"""Carriers of opaque state, whose it is, and the cache (translation 2.10)."""

import base64
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpa.formats.names import Format
from cpa.translation import signatures
from cpa.translation.ir import Provenance as P
from cpa.translation.ir import Sig, SigKind
from cpa.translation.signatures import (
    ENVELOPE_PREFIX,
    GEMINI_BYPASS,
    MAX_ENVELOPE_CHARS,
    SignatureCache,
    carry,
    for_family,
    is_envelope,
    provenance_of,
    unwrap,
    unwrap_compaction,
    wrap,
    wrap_compaction,
)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def fernet(blocks: int = 1) -> str:
    token = b"\x80" + (1_790_000_000).to_bytes(8, "big") + bytes(16) + bytes(range(16)) * blocks + bytes(32)
    return base64.urlsafe_b64encode(token).decode()


def claude_1(size: int = 200, *, after: bytes = field(3, 2)) -> str:
    block = field(1, 11) + field(2, 2) + field(6, b"claude-x") + field(5, bytes(range(256)) * (size // 256 + 1))
    return b64(field(2, field(1, block) + field(2, b"abc")) + after)


def claude_2() -> str:
    return b64(field(1, 2) + field(2, field(1, 3) + field(4, b"claude-opus-x") + field(9, bytes(64))))


def gemini(inner: bytes = b"\x01" + bytes(range(200))) -> str:
    return b64(field(2, field(1, inner)))


UUID_TEXT = str(UUID(int=7))
REAL = {
    P.OPENAI: [fernet(), fernet(5), fernet(400), fernet().rstrip("=")],
    P.CLAUDE: [
        claude_1(),
        claude_1(10),
        claude_1(100_000),
        b64(claude_1().encode()),
        claude_2(),
        claude_1().rstrip("="),
        "claude#EsXyz",
    ],
    P.GEMINI: [
        gemini(),
        gemini(b"\x01"),
        gemini(b"\x01" + bytes(50_000)),
        gemini(UUID_TEXT.encode()),
        gemini().replace("+", "-").replace("/", "_").rstrip("="),
        GEMINI_BYPASS,
        "context_engineering_is_the_way_to_go",
        "gemini#abc",
    ],
}


@pytest.mark.parametrize(
    ("provenance", "data"), [(provenance, data) for provenance, all_data in REAL.items() for data in all_data]
)
def test_whose_a_signature_is(provenance: P, data: str) -> None:
    """By its structure: Claude's and Gemini's begin with the same letter."""
    assert provenance_of(data) is provenance


@pytest.mark.parametrize(
    "data",
    [
        "",
        "E",
        "R",
        "=",
        "EsClaudeSignature",
        "Q0FGRQ==",
        "gAAAA",
        "gAAAA" + "A" * 300,  # the version byte alone does not do
        fernet()[:-6],  # not whole blocks
        "gAAAAAB" + "!" * 97,
        b64(field(2, field(1, b"\x02" + bytes(20)))),  # Gemini's with another beginning
        b64(field(2, field(1, b"\x01abc") + field(1, b"\x01abc"))),  # two fields
        b64(field(2, field(1, b"\x01abc") + b"\xff")),  # something after the inner one
        claude_1(after=b""),  # neither: one field, but not Gemini's
        b64(field(2, field(2, b"abc")) + field(3, 2)),  # no channel block
        b64(field(2, field(1, field(2, b"x"))) + field(3, 2)),  # no channel
        b64(claude_1().encode() * 2)[:40],
        b64(b64(claude_1().encode()).encode()),  # three layers
        b64(field(1, 2) + field(2, field(4, b"gpt-x"))),
        b64(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        b64(b"\x12\x7f"),
        b64(b"\x08"),
        "xyz#abc",
        "#abc",
        "Claude#abc",
        "\ud800",
        "é" * 40,
        "E\x00" * 40,
    ],
)
def test_what_looks_like_nobodys(data: str) -> None:
    """A filter against obviously foreign data, and never an error."""
    assert provenance_of(data) is P.UNKNOWN


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=120),
        st.binary(max_size=120).map(b64),
        st.binary(max_size=80).map(lambda tail: b64(b"\x12" + tail)),
        st.binary(max_size=80).map(lambda tail: b64(b"\x08\x02\x12" + tail)),
        st.binary(max_size=80).map(lambda tail: b64(field(2, field(1, tail)))),
    )
)
def test_anything_is_judged(data: str) -> None:
    """Clients send what they like: garbage is read, wrapped and unwrapped without an error."""
    found = provenance_of(data)
    assert found in P
    sig = unwrap(data, bare=P.CLAUDE, kind=SigKind.THINKING)
    assert (sig is None) is (not data or is_envelope(data))  # none of these envelopes is whole
    if sig is not None:
        assert all(kept.provenance is P.GEMINI for kept in for_family([sig], P.GEMINI))


def test_a_deeply_nested_message_is_no_trap() -> None:
    """Bounded in depth and in fields."""
    nested = b"x"
    for _ in range(2000):
        nested = field(2, nested)
    assert provenance_of(b64(field(1, 2) + nested)) is P.UNKNOWN
    assert provenance_of(b64(field(1, 2) + field(3, 1) * 100_000)) is P.UNKNOWN


# --- envelopes -------------------------------------------------------------------------------------------------------

SIGS = [
    Sig(provenance=provenance, kind=kind, data=data, preceding=preceding, of_call=of_call)
    for provenance, data in [
        (P.CLAUDE, claude_1()),
        (P.GEMINI, gemini()),
        (P.GEMINI, "short+/=="),
        (P.OPENAI, fernet()),
        (P.KIMI, "k" * 99),
        (P.UNKNOWN, "???"),
    ]
    for kind, of_call in [
        (SigKind.THINKING, False),
        (SigKind.REDACTED, False),
        (SigKind.ENCRYPTED, False),
        (SigKind.PART, False),
        (SigKind.PART, True),
    ]
    for preceding in (False, True)
]


@pytest.mark.parametrize("sig", SIGS, ids=repr)
def test_an_envelope_gives_back_what_it_was_given(sig: Sig) -> None:
    """All flags, kinds and vendors; it is standard base64 and known by its beginning."""
    envelope = wrap(sig)
    assert envelope.startswith(ENVELOPE_PREFIX)
    assert is_envelope(envelope)
    assert base64.b64decode(envelope, validate=True).startswith(b"\x00TSP1\x00")
    assert unwrap(envelope, bare=P.CLAUDE, kind=SigKind.THINKING) == sig


def test_bytes_of_an_envelope() -> None:
    """The layout is fixed: clients keep envelopes over updates."""
    sig = Sig(provenance=P.GEMINI, kind=SigKind.PART, data="Q0FGRQ==", preceding=True)
    assert base64.b64decode(wrap(sig)) == b"\x00TSP1\x00" + bytes((2, 4, 2)) + b"Q0FGRQ=="
    sig.of_call = True
    assert base64.b64decode(wrap(sig))[6:9] == bytes((2, 5, 2))
    long = Sig(provenance=P.CLAUDE, kind=SigKind.THINKING, data=b64(bytes(100)))
    assert base64.b64decode(wrap(long)) == b"\x00TSP1\x00" + bytes((1, 1, 1)) + bytes(100)


def test_long_data_in_another_alphabet_stays_as_it_is() -> None:
    """It must come back character by character."""
    data = base64.urlsafe_b64encode(b"\xff\xfe" * 99).decode()
    assert "_" in data
    sig = Sig(provenance=P.OPENAI, kind=SigKind.ENCRYPTED, data=data)
    assert unwrap(wrap(sig), bare=P.CLAUDE, kind=SigKind.THINKING) == sig


def test_googles_sdk_changes_the_alphabet() -> None:
    """It decodes a signature and encodes it for URLs."""
    sig = Sig(provenance=P.CLAUDE, kind=SigKind.THINKING, data=claude_1())
    sent = base64.urlsafe_b64encode(base64.b64decode(wrap(sig))).decode()
    assert sent != wrap(sig)
    assert unwrap(sent, bare=P.GEMINI, kind=SigKind.PART) == sig
    assert unwrap(sent.rstrip("="), bare=P.GEMINI, kind=SigKind.PART) == sig


@settings(max_examples=100, deadline=None)
@given(data=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200))
@example(data="A" * 65)
@example(data="A" * 68)
@example(data="#")
def test_any_data_survives(data: str) -> None:
    """Whatever vendors will invent, as long as it can stand in a header."""
    sig = unwrap(wrap(Sig(provenance=P.KIMI, kind=SigKind.THINKING, data=data)), bare=P.CLAUDE, kind=SigKind.PART)
    if is_envelope(data):
        assert sig is None
    else:
        assert sig is not None
        assert data.endswith(sig.data)


def forge(head: bytes, payload: bytes = b"abc", magic: bytes = b"\x00TSP1\x00") -> str:
    return b64(magic + head + payload)


@pytest.mark.parametrize(
    "envelope",
    [
        ENVELOPE_PREFIX,
        ENVELOPE_PREFIX + "!!!",
        ENVELOPE_PREFIX + "é",
        ENVELOPE_PREFIX + "A",
        forge(b""),
        forge(bytes((1, 1))),
        forge(bytes((1, 1, 0)), b""),
        forge(bytes((9, 1, 0))),
        forge(bytes((1, 0, 0))),
        forge(bytes((1, 9, 0))),
        forge(bytes((1, 6, 0))),  # a compaction summary is no signature
        forge(bytes((1, 1, 4))),
        forge(bytes((1, 1, 0)), b"with blanks"),
        forge(bytes((1, 1, 0)), b"\xff\xfe"),
        forge(bytes((1, 1, 0)), b"line\nbreak"),
        forge(bytes((1, 1, 0)), wrap(SIGS[0]).encode()),  # an envelope in an envelope would reach a vendor
        forge(bytes((1, 1, 0)), b"a" * MAX_ENVELOPE_CHARS),
    ],
    ids=lambda envelope: envelope[:24],
)
def test_a_broken_envelope_is_nothing(envelope: str) -> None:
    """Corpus 98: hostile input."""
    assert unwrap(envelope, bare=P.CLAUDE, kind=SigKind.THINKING) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_forged_envelopes_never_break_anything(tail: bytes) -> None:
    """Corpus 98."""
    sig = unwrap(b64(b"\x00TSP1\x00" + tail), bare=P.CLAUDE, kind=SigKind.THINKING)
    assert sig is None or (sig.data and not is_envelope(sig.data))


def test_an_envelope_does_not_decide_whose_its_payload_is() -> None:
    """Its payload is judged like bare data: no client passes a foreign signature to a vendor by claiming."""
    forged = wrap(Sig(provenance=P.CLAUDE, kind=SigKind.THINKING, data=fernet()))
    sig = unwrap(forged, bare=P.CLAUDE, kind=SigKind.THINKING)
    assert sig is not None
    assert sig.provenance is P.OPENAI
    assert for_family([sig], P.CLAUDE) == []


@pytest.mark.parametrize(
    ("data", "bare", "provenance", "kept"),
    [
        (claude_1(), P.CLAUDE, P.CLAUDE, claude_1()),
        ("EsClaudeSignature", P.CLAUDE, P.CLAUDE, "EsClaudeSignature"),
        ("EsClaudeSignature", P.UNKNOWN, P.UNKNOWN, "EsClaudeSignature"),
        (fernet(), P.CLAUDE, P.OPENAI, fernet()),  # corpus 99
        (claude_1(), P.OPENAI, P.CLAUDE, claude_1()),  # corpus 95: through reasoning_details
        ("gemini#abc", P.CLAUDE, P.GEMINI, "abc"),
        ("gemini#", P.CLAUDE, P.GEMINI, "gemini#"),
        ("other#abc", P.CLAUDE, P.CLAUDE, "other#abc"),
    ],
)
def test_bare_data(data: str, bare: P, provenance: P, kept: str) -> None:
    """Known to be foreign, or else the client's own."""
    assert unwrap(data, bare=bare, kind=SigKind.THINKING) == Sig(
        provenance=provenance, kind=SigKind.THINKING, data=kept
    )


def test_nothing_is_nothing() -> None:
    """Claude clients send empty signatures of foreign thinking."""
    assert unwrap("", bare=P.CLAUDE, kind=SigKind.THINKING) is None


@pytest.mark.parametrize(
    ("client", "bare_for"),
    [
        (Format.CLAUDE, P.CLAUDE),
        (Format.GEMINI, P.GEMINI),
        (Format.OPENAI, P.OPENAI),
        (Format.OPENAI_RESPONSE, P.OPENAI),
        (Format.CODEX, P.OPENAI),
    ],
)
def test_only_its_own_family_is_carried_bare(client: Format, bare_for: P) -> None:
    """A client may talk to its vendor directly later; and an envelope always comes back."""
    for sig in SIGS:
        carried = carry(sig, client)
        assert (carried == sig.data) is (sig.provenance is bare_for)
        again = unwrap(carried, bare=bare_for, kind=sig.kind)
        assert again is not None
        assert (again.provenance, again.data, again.kind) == (sig.provenance, sig.data, sig.kind)
    assert signatures.own_provenance(client) is bare_for


def test_a_vendor_gets_its_own_only() -> None:
    """Corpus 96: foreign signatures are a 400. Neither empty ones, nor Gemini's bare UUIDs, nor envelopes."""
    own = Sig(provenance=P.GEMINI, kind=SigKind.PART, data=gemini())
    bypass = Sig(provenance=P.GEMINI, kind=SigKind.PART, data=GEMINI_BYPASS)
    others = [
        Sig(provenance=P.CLAUDE, kind=SigKind.THINKING, data=claude_1()),
        Sig(provenance=P.UNKNOWN, kind=SigKind.PART, data="x"),
        Sig(provenance=P.GEMINI, kind=SigKind.PART, data=""),
        Sig(provenance=P.GEMINI, kind=SigKind.PART, data=gemini(UUID_TEXT.encode())),
        Sig(provenance=P.GEMINI, kind=SigKind.PART, data=UUID_TEXT),
        Sig(provenance=P.GEMINI, kind=SigKind.PART, data=wrap(own)),
    ]
    assert for_family([*others, own, bypass], P.GEMINI) == [own, bypass]
    assert for_family(others, P.CLAUDE) == others[:1]


def test_compaction_summaries() -> None:
    """Ours can be read again, others' cannot."""
    text = "We agreed on 終止 🛑.\n" * 20
    data = wrap_compaction(text)
    assert is_envelope(data)
    assert unwrap_compaction(data) == text
    assert unwrap_compaction(fernet()) is None
    assert unwrap_compaction(wrap(SIGS[0])) is None
    assert unwrap_compaction(forge(bytes((0, 6, 0)), b"\xff")) is None
    assert unwrap_compaction("") is None


# --- the cache -------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def sig(data: str = "s", provenance: P = P.GEMINI, kind: SigKind = SigKind.PART) -> Sig:
    return Sig(provenance=provenance, kind=kind, data=data)


def test_what_is_kept_is_found() -> None:
    """By call and by text, of one tenant."""
    cache = SignatureCache(1 << 20, 60, Clock())
    tenant = cache.of_tenant("key-1")
    tenant.keep_call("c1", sig("a"))
    tenant.keep_text("hello", sig("b"))
    assert tenant.of_call("c1") == (sig("a"),)
    assert tenant.of_text("hello") == (sig("b"),)
    assert cache.of_tenant("key-1").of_call("c1") == (sig("a"),)
    assert tenant.of_call("hello") == tenant.of_text("c1") == tenant.of_call("c2") == ()


def test_tenants_do_not_see_each_other() -> None:
    """Call ids are chosen by clients."""
    cache = SignatureCache(1 << 20, 60, Clock())
    cache.of_tenant("key-1").keep_call("c1", sig())
    assert cache.of_tenant("key-2").of_call("c1") == ()


def test_a_later_signature_replaces_an_earlier_one() -> None:
    """Of the same vendor and kind; others stay beside it."""
    tenant = SignatureCache(1 << 20, 60, Clock()).of_tenant("t")
    tenant.keep_call("c", sig("old"))
    tenant.keep_call("c", sig("claude", P.CLAUDE))
    tenant.keep_call("c", sig("new"))
    assert tenant.of_call("c") == (sig("claude", P.CLAUDE), sig("new"))


def test_nothing_is_kept_for_nothing() -> None:
    """Calls without an id, empty texts."""
    cache = SignatureCache(1 << 20, 60, Clock())
    cache.of_tenant("t").keep_call("", sig())
    cache.of_tenant("t").keep_text("", sig())
    assert len(cache) == 0


def test_old_entries_are_forgotten() -> None:
    """After their time to live, and not by being asked for."""
    clock = Clock()
    cache = SignatureCache(1 << 20, 60, clock)
    tenant = cache.of_tenant("t")
    tenant.keep_call("c", sig("a"))
    clock.now = 59.9
    assert tenant.of_call("c") == (sig("a"),)
    clock.now = 60.0
    assert tenant.of_call("c") == ()
    assert (len(cache), cache.size_bytes) == (0, 0)
    tenant.keep_call("c", sig("b"))
    clock.now = 130.0
    tenant.keep_call("c", sig("d", P.CLAUDE))
    assert tenant.of_call("c") == (sig("d", P.CLAUDE),)


def test_the_least_recently_used_goes_first() -> None:
    """Memory is bounded."""
    cache = SignatureCache(3_000, 60, Clock())
    tenant = cache.of_tenant("t")
    for name in "abc":
        tenant.keep_call(name, sig("x" * 500))
    assert len(cache) == 3
    assert tenant.of_call("a")
    tenant.keep_call("d", sig("x" * 500))
    assert tenant.of_call("b") == ()
    assert tenant.of_call("a")
    assert tenant.of_call("d")
    assert cache.size_bytes <= 3_000


def test_one_signature_cannot_push_out_all_others() -> None:
    """What does not fit is not kept."""
    cache = SignatureCache(3_000, 60, Clock())
    tenant = cache.of_tenant("t")
    tenant.keep_call("a", sig())
    tenant.keep_call("b", sig("x" * 5_000))
    assert tenant.of_call("b") == ()
    assert tenant.of_call("a") == (sig(),)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 900), st.sampled_from(list(P)), st.floats(0, 30)),
        max_size=40,
    )
)
def test_size_is_what_is_held(puts: list[tuple[str, int, P, float]]) -> None:
    """The account is exact, and within its bound, at any time."""
    clock = Clock()
    cache = SignatureCache(2_500, 60, clock)
    tenant = cache.of_tenant("t")
    for name, size, provenance, pause in puts:
        clock.now += pause
        tenant.keep_text(name, sig("x" * size, provenance))
        assert 0 <= cache.size_bytes <= 2_500
        assert (cache.size_bytes == 0) is (len(cache) == 0)
    clock.now += 61
    for name in "abcdef":
        assert tenant.of_text(name) == ()
    assert (len(cache), cache.size_bytes) == (0, 0)
