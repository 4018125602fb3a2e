"""What a log may show of a value: by the name it is logged under, by its shape, and by the secrets we were told of.

Three nets, because each has holes: names catch `api_key=…`, shapes (`cpa.formats.redaction`) catch keys inside error
texts, and the known secrets catch an operator's home-made key wherever it turns up. A value is made plain here (JSON
types only), so nothing that is logged can hide a secret behind its own ``__repr__``.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote

from cpa.formats.redaction import HIDDEN, mask, mask_header, mask_query, mask_url, redact_body, redact_text

Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None
"""JSON types; integers fit 64 bits."""

MAX_VALUE_CHARS = 8 * 1024
"""Longest text of one value: a log line is for reading, and redaction costs time per character."""
MAX_ITEMS = 64
"""Most members of a logged list or mapping, for the same reason."""
MAX_DEPTH = 4
MIN_KNOWN_CHARS = 6
"""Shorter known secrets are not searched for: they would mask ordinary words."""
_LOOP_LIMIT = 16
"""Up to here one substring search per secret and line is cheaper than cutting the line into words (about 5 µs)."""

_HIDDEN_PARTS = ("password", "passwd", "passphrase", "cookie", "private_key")
_MASKED_PARTS = ("authorization", "api_key", "apikey", "secret", "access_key", "management_key")
_WORDS = re.compile(rb"[A-Za-z0-9]{4,}")


@lru_cache(maxsize=2048)
def secrecy(name: str) -> str:
    """``hide``, ``mask``, ``url``, ``query``, ``headers`` or nothing: what to do with values logged as *name*."""
    low = name.lower().replace("-", "_")
    if any(part in low for part in _HIDDEN_PARTS):
        return "hide"
    if low in ("key", "token") or low.endswith(("_key", "_token")) or any(part in low for part in _MASKED_PARTS):
        return "mask"
    if low == "url" or low.endswith(("_url", "_uri")):
        return "url"
    if low in ("query", "query_string"):
        return "query"
    return "headers" if low.endswith("headers") else ""


class KnownSecrets:
    """The secrets of the running configuration, masked wherever they occur. Replaced whole at a reload."""

    __slots__ = ("_by_word", "_direct", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: tuple[tuple[bytes, bytes], ...] = ()
        self._direct: tuple[tuple[bytes, bytes], ...] = ()
        self._by_word: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self.replace(secrets)

    def __repr__(self) -> str:
        return f"<KnownSecrets: {len(self._secrets)}>"

    def replace(self, secrets: Iterable[str]) -> None:
        """Forget all, remember *secrets*; empty and very short ones are ignored."""
        pairs: dict[bytes, bytes] = {}
        for secret in secrets:
            if len(secret) < MIN_KNOWN_CHARS:
                continue
            shown = mask(secret).encode("ascii", "replace").replace(b'"', b"?").replace(b"\\", b"?")
            escaped = secret.replace("\\", "\\\\")
            # As it is, in a Python repr, in JSON or between quotes, in a URL.
            for form in (
                secret,
                escaped,
                escaped.replace('"', '\\"'),
                escaped.replace("'", "\\'"),
                quote(secret, safe=""),
            ):
                pairs[form.encode("utf-8", "backslashreplace")] = shown
        # Longest first, so that a secret that contains another one is replaced as a whole.
        ordered = tuple(sorted(pairs.items(), key=lambda pair: -len(pair[0])))
        by_word: dict[bytes, list[tuple[bytes, bytes]]] = {}
        direct: list[tuple[bytes, bytes]] = []
        for pair in ordered:
            word = max(_WORDS.findall(pair[0]), key=len, default=b"")
            if word and len(ordered) > _LOOP_LIMIT:
                by_word.setdefault(word, []).append(pair)
            else:
                direct.append(pair)
        self._secrets, self._direct, self._by_word = ordered, tuple(direct), by_word

    def mask_in(self, line: bytes) -> bytes:
        """*line* (UTF-8, plain or JSON) with every known secret masked."""
        for secret, shown in self._direct:
            if secret in line:
                line = line.replace(secret, shown)
        if self._by_word:
            hits = self._by_word.keys() & set(_WORDS.findall(line))
            found = [pair for word in hits for pair in self._by_word[word]]
            for secret, shown in sorted(found, key=lambda pair: -len(pair[0])):
                line = line.replace(secret, shown)
        return line

    def mask_text(self, text: str) -> str:
        """*text* with every known secret masked."""
        if not self._secrets:
            return text
        return self.mask_in(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def redact_text(self, text: str) -> str:
        """*text* without known secrets and without what looks like one.

        In this order: a pattern may end in the middle of a key with odd characters and leave its rest unrecognisable.
        """
        return redact_text(self.mask_text(text))

    def mask_body(self, body: bytes) -> bytes:
        """A body as a request log may show it: without known secrets and keys of known shape."""
        return redact_body(self.mask_in(body))


NO_SECRETS = KnownSecrets()


def plain(name: str, value: object, known: KnownSecrets = NO_SECRETS, depth: int = 0) -> Plain:
    """*value* as a log line may carry it under *name*: JSON types, bounded, without secrets.

    Strings without any sign of a secret are not searched for *known* ones: the caller does that once per line.
    """
    kind = secrecy(name)
    if type(value) is str and not kind and len(value) <= MAX_VALUE_CHARS:  # the usual case first
        shown = redact_text(value)
        return value if shown == value else known.redact_text(value)
    if value is None or value is True or value is False:
        return value
    if isinstance(value, (int, float)):
        if kind == "hide" or (kind == "mask" and not name.lower().endswith("token")):
            return HIDDEN
        if isinstance(value, int):
            return int(value) if -(2**63) <= value < 2**63 else hex(value)[:MAX_VALUE_CHARS]  # str() may refuse
        return float(value) if abs(value) != float("inf") else str(value)
    if isinstance(value, (list, tuple, set, frozenset, Mapping)):
        if kind in ("hide", "mask"):
            return HIDDEN
        return "…" if depth >= MAX_DEPTH else _plain_container(kind, value, known, depth)
    return _plain_text(kind, _text(value), known)


def _text(value: object) -> str:
    if isinstance(value, str):
        text = str(value)
    elif isinstance(value, (bytes, bytearray)):
        text = bytes(value[: MAX_VALUE_CHARS + 1]).decode("utf-8", "backslashreplace")
    elif isinstance(value, BaseException):
        text = f"{type(value).__name__}: {value}" if str(value) else type(value).__name__
    else:
        text = repr(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "…"


def _plain_text(kind: str, text: str, known: KnownSecrets) -> str:
    if kind == "hide":
        return HIDDEN
    if kind == "mask":
        scheme, space, rest = text.partition(" ")
        return f"{scheme} {mask(rest)}" if space and scheme.lower() in ("bearer", "basic") else mask(text)
    text = known.mask_text(text)
    if kind == "url":
        return mask_url(text)
    return mask_query(text) if kind == "query" else redact_text(text)


def _plain_container(kind: str, value: object, known: KnownSecrets, depth: int) -> Plain:
    if isinstance(value, Mapping):
        result: dict[str, Plain] = {}
        for key, member in list(value.items())[:MAX_ITEMS]:
            label = _text(key)
            # The label is a text like any other: a key may have been used as one.
            result[known.redact_text(label)] = (
                _plain_header(label, member, known)
                if kind == "headers" and isinstance(member, (str, bytes))
                else plain(label, member, known, depth + 1)
            )
        return result
    items: list[Plain] = []
    for member in list(value)[:MAX_ITEMS] if isinstance(value, (list, tuple, set, frozenset)) else ():
        if isinstance(member, tuple) and len(member) == 2 and isinstance(member[0], (str, bytes)):
            label, inner = _text(member[0]), member[1]  # a header, or anything else that comes as (name, value)
            is_text = isinstance(inner, (str, bytes))
            shown = _plain_header(label, inner, known) if is_text else plain(label, inner, known, depth + 1)
            items.append([known.redact_text(label), shown])
        else:
            items.append(plain("", member, known, depth + 1))
    return items


def _plain_header(name: str, value: object, known: KnownSecrets) -> str:
    return mask_header(name, known.mask_text(_text(value)))
