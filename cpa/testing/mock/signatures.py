"""Opaque values in the structure that each vendor's have, so that provenance checks recognise them.

The content is made from a digest: stable, and nothing that a vendor would accept.
"""

from base64 import b64encode, urlsafe_b64encode
from hashlib import blake2b


def _bytes_of(seed: str, size: int) -> bytes:
    stream = b""
    while len(stream) < size:
        stream += blake2b(stream[-64:] + seed.encode(), digest_size=64).digest()
    return stream[:size]


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field; *value* shorter than 128 bytes."""
    return bytes((number << 3 | 2, len(value))) + value


def claude_signature(seed: str) -> str:
    """Field 2 holding a channel block (varint field 1, model in field 6), then another top-level field."""
    block = b"\x08\x0b" + _field(5, _bytes_of(seed, 32)) + _field(6, b"claude-mock")
    return b64encode(_field(2, _field(1, block)) + b"\x18\x01").decode()


def gemini_signature(seed: str) -> str:
    """Exactly one field 2 holding exactly one field 1 whose value begins with 0x01."""
    return b64encode(_field(2, _field(1, b"\x01" + _bytes_of(seed, 40)))).decode()


def openai_encrypted(seed: str) -> str:
    """A Fernet token: version, time, IV, four blocks, MAC."""
    return urlsafe_b64encode(b"\x80" + bytes(8) + _bytes_of(seed, 16 + 64 + 32)).decode()
