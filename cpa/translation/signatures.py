"""Opaque provider state on its way through clients (translation 2.10).

Theory of operation. A vendor's state must come back to that vendor unchanged, and must never reach another one. A
client of the same family carries it bare. Any other carries it in an envelope: base64 that says whose it is, in a place
where that client's protocol has room for opaque data. Clients may send anything, so what is unwrapped is judged again
like bare data. Chat clients lose what they do not know: for them `SignatureCache` remembers.
"""

import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from time import monotonic
from typing import Final

import attrs

from cpa.formats.names import Format
from cpa.translation.context import Signatures
from cpa.translation.ir import Provenance, Sig, SigKind
from cpa.translation.provenance import GEMINI_BYPASS as GEMINI_BYPASS
from cpa.translation.provenance import GEMINI_BYPASSES as GEMINI_BYPASSES
from cpa.translation.provenance import is_replayable, without_prefix
from cpa.translation.provenance import provenance_of as provenance_of

ENVELOPE_PREFIX: Final = "AFRTUDEA"
"""What the first six bytes of every envelope are in base64."""
MAX_ENVELOPE_CHARS: Final = 1024 * 1024

_MAGIC: Final = b"\x00TSP1\x00"
_HEAD_BYTES: Final = 9
_DECODED, _PRECEDING = 1, 2
_MAX_PLAIN_CHARS: Final = 64
"""Longer payloads are stored decoded where that loses nothing, against growth by a third."""
_PROVENANCES: Final = (Provenance.UNKNOWN, Provenance.CLAUDE, Provenance.GEMINI, Provenance.OPENAI, Provenance.KIMI)
_KINDS: Final[Mapping[int, SigKind]] = {
    1: SigKind.THINKING,
    2: SigKind.REDACTED,
    3: SigKind.ENCRYPTED,
    4: SigKind.PART,
    5: SigKind.PART,
}
_OF_CALL, _COMPACTION = 5, 6
_UNKNOWN: Final = Provenance.UNKNOWN  # looking into an enumeration takes long
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items() if number != _OF_CALL}
_OWN: Final[Mapping[Format, Provenance]] = {
    Format.CLAUDE: Provenance.CLAUDE,
    Format.GEMINI: Provenance.GEMINI,
    Format.OPENAI: Provenance.OPENAI,
    Format.OPENAI_RESPONSE: Provenance.OPENAI,
    Format.CODEX: Provenance.OPENAI,
}


def own_provenance(fmt: Format) -> Provenance:
    """Whose signatures a protocol carries bare, and its providers take."""
    return _OWN[fmt]


def is_envelope(text: str) -> bool:
    """Whether *text* means to be an envelope; such text must never reach a vendor."""
    return text.startswith(ENVELOPE_PREFIX)


def wrap(sig: Sig) -> str:
    """*sig* as an envelope: valid standard base64, which Google's SDK demands of a signature."""
    number = _OF_CALL if sig.kind is SigKind.PART and sig.of_call else _NUMBERS[sig.kind]
    return _envelope(
        _PROVENANCES.index(sig.provenance),
        number,
        _PRECEDING if sig.preceding else 0,
        sig.data.encode("utf-8", "replace"),
    )


def unwrap(text: str, *, bare: Provenance, kind: SigKind) -> Sig | None:
    """What a client sent back.

    Args:
      bare: whose *text* is when it is no envelope and its structure says nothing: the client's own family, or
        `Provenance.UNKNOWN` where that proves nothing (compatible Chat hosts).
      kind: of bare data.

    Returns: None for what nobody can use: nothing, or a broken envelope.
    """
    if not text:
        return None
    if not is_envelope(text):
        return _judged(text, bare, kind)
    opened = _open(text)
    if opened is None or opened[1] == _COMPACTION:
        return None
    claimed, number, flags, payload = opened
    try:
        data = payload.decode("ascii")
    except UnicodeDecodeError:
        return None
    if not data.isprintable() or " " in data or is_envelope(data):
        return None
    # Clients can write envelopes as well: the payload is no better than bare data of that vendor.
    sig = _judged(data, claimed, _KINDS[number])
    sig.preceding = bool(flags & _PRECEDING)
    sig.of_call = number == _OF_CALL
    return sig


def carry(sig: Sig, client: Format) -> str:
    """What a client gets: bare data if it is of the client's own family, else an envelope."""
    return sig.data if sig.provenance is own_provenance(client) else wrap(sig)


def for_family(sigs: Iterable[Sig], provenance: Provenance) -> list[Sig]:
    """Those that a provider of that family takes back."""
    return [
        sig
        for sig in sigs
        if sig.provenance is provenance and not is_envelope(sig.data) and is_replayable(sig.data, provenance)
    ]


def wrap_compaction(text: str) -> str:
    """A compaction item's ``encrypted_content`` that holds a summary of our own."""
    return _envelope(0, _COMPACTION, 0, text.encode("utf-8", "replace"))


def unwrap_compaction(data: str) -> str | None:
    """The summary in it; None = it is not ours."""
    opened = _open(data) if is_envelope(data) else None
    if opened is None or opened[1] != _COMPACTION:
        return None
    try:
        return opened[3].decode("utf-8")
    except UnicodeDecodeError:
        return None


def _judged(data: str, claimed: Provenance, kind: SigKind) -> Sig:
    found = provenance_of(data)
    return Sig(claimed if found is _UNKNOWN else found, kind, without_prefix(data))


def _envelope(provenance: int, number: int, flags: int, payload: bytes) -> str:
    if len(payload) > _MAX_PLAIN_CHARS:
        try:
            decoded = binascii.a2b_base64(payload, strict_mode=True)
        except ValueError:
            decoded = b""
        if binascii.b2a_base64(decoded, newline=False) == payload:
            flags, payload = flags | _DECODED, decoded
    return base64.b64encode(_MAGIC + bytes((provenance, number, flags)) + payload).decode("ascii")


def _open(text: str) -> tuple[Provenance, int, int, bytes] | None:
    """Provenance, kind number, flags and payload of an envelope; None for anything broken.

    Google's SDK sends base64 back in the alphabet for URLs.
    """
    if len(text) > MAX_ENVELOPE_CHARS or not text.isascii():
        return None
    stripped = text.rstrip("=")
    try:
        data = base64.b64decode(
            stripped + "=" * (-len(stripped) % 4), altchars=b"-_" if _is_urlsafe(text) else None, validate=True
        )
    except ValueError:
        return None
    if len(data) <= _HEAD_BYTES or not data.startswith(_MAGIC):
        return None
    provenance, number, flags = data[6:_HEAD_BYTES]
    if provenance >= len(_PROVENANCES) or not 1 <= number <= _COMPACTION or flags & ~(_DECODED | _PRECEDING):
        return None
    payload = data[_HEAD_BYTES:]
    if flags & _DECODED:
        payload = binascii.b2a_base64(payload, newline=False)
    return _PROVENANCES[provenance], number, flags, payload


def _is_urlsafe(text: str) -> bool:
    return "-" in text or "_" in text


# --- the cache -------------------------------------------------------------------------------------------------------

MAX_CACHE_BYTES: Final = 64 * 1024 * 1024
CACHE_TTL_S: Final = 3600.0
MAX_SIGS_PER_KEY: Final = 4
"""A call has one signature, a text one of each family at most."""
ENTRY_OVERHEAD_BYTES: Final = 400
"""What an entry takes beside its data, about."""

_Key = tuple[bytes, str, bytes]


@attrs.define(eq=False)
class _Entry:
    sigs: tuple[Sig, ...]
    size_bytes: int
    deadline: float


class SignatureCache:
    """Remembers signatures for clients that lose them: the least recently used goes first.

    Args:
      clock: seconds, of any origin.
      lock: for one that several threads use: large bodies are translated on workers (0.6 rule 9).
    """

    def __init__(
        self,
        max_bytes: int = MAX_CACHE_BYTES,
        ttl_s: float = CACHE_TTL_S,
        clock: Callable[[], float] = monotonic,
        *,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._size_bytes = 0
        self._lock: AbstractContextManager[object] = lock or nullcontext()

    @property
    def size_bytes(self) -> int:
        """What is held, never more than allowed."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def of_tenant(self, tenant: str) -> Signatures:
        """The part that belongs to one tenant, whose name, often a key, is not kept."""
        return _TenantSignatures(self, self._entries, sha256(tenant.encode("utf-8", "replace")).digest())

    def get(self, key: _Key) -> tuple[Sig, ...]:
        """What is kept, if it is not too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return ()
            if entry.deadline <= self._clock():
                self._drop(key)
                return ()
            self._entries.move_to_end(key)
            return entry.sigs

    def put(self, key: _Key, sig: Sig) -> None:
        """Keep *sig* beside others of its key, of which those of the same vendor and kind are replaced."""
        with self._lock:
            now = self._clock()
            old = self._entries.get(key)
            others: list[Sig] = []
            if old is not None:
                if old.deadline > now:
                    others = [kept for kept in old.sigs if (kept.provenance, kept.kind) != (sig.provenance, sig.kind)]
                self._drop(key)
            sigs = (*others[-(MAX_SIGS_PER_KEY - 1) :], sig)
            size_bytes = ENTRY_OVERHEAD_BYTES + len(key[2]) + sum(len(kept.data) for kept in sigs)
            if size_bytes > self._max_bytes:
                return
            self._entries[key] = _Entry(sigs, size_bytes, now + self._ttl_s)
            self._size_bytes += size_bytes
            while self._size_bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: _Key) -> None:
        self._size_bytes -= self._entries.pop(key).size_bytes


class _TenantSignatures:
    """`Signatures` of one tenant."""

    def __init__(self, cache: SignatureCache, entries: Mapping[_Key, _Entry], tenant: bytes) -> None:
        self._cache = cache
        self._entries = entries
        self._tenant = tenant

    def of_call(self, call_id: str) -> tuple[Sig, ...]:
        # Asked for each call of a history, mostly in vain.
        return self._cache.get(self._key("call", call_id)) if self._entries and call_id else ()

    def of_text(self, text: str) -> tuple[Sig, ...]:
        return self._cache.get(self._key("text", text)) if self._entries and text else ()

    def keep_call(self, call_id: str, sig: Sig) -> None:
        if call_id:
            self._cache.put(self._key("call", call_id), sig)

    def keep_text(self, text: str, sig: Sig) -> None:
        if text:
            self._cache.put(self._key("text", text), sig)

    def _key(self, what: str, of: str) -> _Key:
        # Hashed: neither long ids nor answers are kept.
        return self._tenant, what, sha256(of.encode("utf-8", "replace")).digest()
