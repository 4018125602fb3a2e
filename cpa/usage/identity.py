"""What stands for a client wherever its key may not: a digest that finds it again, and a label for people."""

import hashlib
from functools import lru_cache
from typing import Final

import attrs

from cpa.formats.redaction import mask

CLIENT_DIGITS: Final = 16
"""Of the digest: 64 bits tell all keys of an installation apart and give none of them away."""
NOBODY: Final = "anonymous"
"""Stands for clients where no key is asked for."""


@attrs.frozen
class ClientId:
    """Attributes:
    id: first digits of the key's SHA-256, so that ``printf %s KEY | sha256sum`` finds a client's rows.
    label: the ends of the key.
    """

    id: str
    label: str

    def __str__(self) -> str:
        return f"{self.label}[{self.id[:8]}]" if self.label != self.id else self.id


@lru_cache(maxsize=4096)
def client_id(principal: str) -> ClientId:
    """Of a client's key, or of what a plugin named it."""
    if not principal:
        return ClientId(NOBODY, NOBODY)
    digest = hashlib.sha256(principal.encode("utf-8", "surrogateescape")).hexdigest()[:CLIENT_DIGITS]
    return ClientId(digest, mask(principal))
