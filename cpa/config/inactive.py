"""Keys that are read and judged, but that nothing obeys in this version, each with the part that will make it work.

The loader warns where such a key asks for something else than its default, and ``conf/config.example.yaml`` says
"no effect yet" at each of them; tests compare both with this table, and the table with what the code reads. Whoever
makes a key work removes its row here, its mark there, and its line in the README.

Keys that never will have an effect (``ws-auth``, ``pprof``, ``quota-exceeded``, ``websockets`` and the panel's download
settings: the contract says to accept and ignore them) are not in here.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

EXAMPLE_MARK: Final = "no effect yet"
"""What the comment of such a key says in the example file."""

_TRANSLATION: Final = "translation"

_KEY_LISTS = ("gemini-api-key", "claude-api-key", "codex-api-key", "xai-api-key", "vertex-api-key")
_PROVIDER_LISTS = (*_KEY_LISTS, "openai-compatibility")

INACTIVE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "interactions-api-key": _TRANSLATION,
        "claude-api-key[].rebuild-mid-system-message": _TRANSLATION,
        "openai-compatibility[].support-prompt-cache-key": _TRANSLATION,
        **{f"{name}[].models[].image": _TRANSLATION for name in _PROVIDER_LISTS},
    }
)
"""Key path to the part that it comes with. ``[]`` stands for every item of a list; keys below a listed one count as
listed."""

_INDEX = re.compile(r"\[\d+\]")


def inactive(path: str) -> str | None:
    """What to warn of when the key at *path* (``claude-api-key[0].weight``) is set; None when it works."""
    key = _INDEX.sub("[]", path)
    part = INACTIVE.get(key)
    if part is None:
        return None
    return f"accepted, but has no effect in this version (comes with {part})"
