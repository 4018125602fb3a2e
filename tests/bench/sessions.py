"""A coding agent's session as a request's body; apart from payloads.py because forwarders do not need it."""

from functools import cache
from typing import Any

import msgspec

from cpa.formats.names import Format
from tests.bench.translation_bodies import make_session, write_body

TOOLS = 24


@cache
def session_body(client: Format, model: str, size_bytes: int, *, cache_marks: bool = True) -> bytes:
    """A request as clients of *client* write it: the session of the translation's benchmark, without streaming.

    Without *cache_marks* a Messages body has no ``cache_control``: for a Gemini provider LiteLLM makes those into calls
    of another API, which would be other work than CPA's.
    """
    body: dict[str, Any] = msgspec.json.decode(write_body(make_session(size_bytes, TOOLS), client))
    if client is Format.CLAUDE and not cache_marks:
        for block in (*body["system"], *(block for message in body["messages"] for block in message["content"])):
            block.pop("cache_control", None)
    return msgspec.json.encode({**body, "model": model, "stream": False})
