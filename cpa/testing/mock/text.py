"""Deterministic text: the same parameters give the same bytes, in every process and version of Python."""

from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b

_PASSAGE = (
    "The quick proxy relays every byte it reads. Größe, Maß und Ärger; "  # two-byte letters
    "naïve café, señor, Ελληνικά, русский текст. "
    "敏捷的代理转发每一个字节。すばやいプロキシ。"  # three bytes each
    'quotes " and \\ backslashes, <tags> & a\ttab, a\nnew line; '  # what JSON has to escape
    "🙂🚀👩‍💻 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 "  # four bytes, a joined sequence
    "{not json} data: [DONE] event: message_stop "  # what a careless parser takes for framing
).encode()
_STRIDE = 7919
"""Prime, so that neighbouring pieces begin far apart in the passage."""


def digest_of(*parts: str) -> str:
    """12 hex digits that stand for *parts*. Lone surrogates are allowed."""
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return blake2b(joined, digest_size=6).hexdigest()


@lru_cache(maxsize=32)
def _repeated(size: int) -> bytes:
    return _PASSAGE * (size // len(_PASSAGE) + 2)


def pseudo_text(index: int, size_bytes: int) -> str:
    """Piece *index* of a long text: exactly *size_bytes* of UTF-8, begins with its index in hex where that fits."""
    mark = b"%x " % index
    if len(mark) > size_bytes:
        mark = b""
    room = size_bytes - len(mark)
    source = _repeated(room)
    start = index * _STRIDE % len(_PASSAGE)
    while source[start] & 0xC0 == 0x80:  # inside a character
        start += 1
    body = source[start : start + room].decode("utf-8", "ignore")
    padding = room - len(body.encode())
    return mark.decode() + body + "." * padding


def pseudo_pieces(count: int, size_bytes: int) -> Iterator[str]:
    """*count* pieces of *size_bytes* each."""
    for index in range(count):
        yield pseudo_text(index, size_bytes)


def in_words(text: str, words: int = 2) -> tuple[str, ...]:
    """*text* cut after every so many words; joined they are *text*."""
    parts = text.split(" ")
    groups = [" ".join(parts[at : at + words]) for at in range(0, len(parts), words)]
    return (*(group + " " for group in groups[:-1]), groups[-1])


def in_pieces(text: str, size: int = 9) -> tuple[str, ...]:
    """*text* cut into at most *size* characters each, at least two pieces where it has two characters."""
    size = max(1, min(size, (len(text) + 1) // 2))
    return tuple(text[at : at + size] for at in range(0, len(text), size))
