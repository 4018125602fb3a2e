"""The management key at rest: a bcrypt hash instead of what the operator typed (proxy 5.1)."""

from typing import Final

import bcrypt

from cpa.config.tree import ConfigTree, text_of

HASH_PREFIXES: Final = ("$2a$", "$2b$", "$2y$")
"""What begins so is a hash already."""
COST: Final = 10
"""The contract's: 50 ms."""
MAX_BCRYPT_BYTES: Final = 72
"""What the algorithm looks at."""

_SECTION: Final = "remote-management"
_KEY: Final = "secret-key"


def unsealed(tree: ConfigTree) -> str:
    """The management key that stands in *tree* in clear; empty = none does."""
    section = tree.get(_SECTION)
    key = text_of(section.get(_KEY)) if isinstance(section, dict) else ""
    return "" if key.startswith(HASH_PREFIXES) else key


def seal(tree: ConfigTree) -> ConfigTree:
    """*tree* with the hash of the key that stands there in clear. Changed in place. Takes 50 ms then."""
    key = unsealed(tree)
    section = tree.get(_SECTION)
    if key and isinstance(section, dict):
        section[_KEY] = hashed(key)
    return tree


def hashed(key: str) -> str:
    """The bcrypt hash of *key*."""
    return bcrypt.hashpw(key.encode()[:MAX_BCRYPT_BYTES], bcrypt.gensalt(COST, prefix=b"2a")).decode()
