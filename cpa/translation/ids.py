"""Ids and times of answers (translation 3.1): the prefix always belongs to the client's protocol."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cpa.formats.names import Format
from cpa.translation.context import Context

PREFIXES: Final[Mapping[Format, str]] = {
    Format.OPENAI: "chatcmpl-",
    Format.OPENAI_RESPONSE: "resp_",
    Format.CODEX: "resp_",
    Format.CLAUDE: "msg_",
    Format.GEMINI: "",
}
"""What an answer's id begins with, by the client's protocol."""
PROVIDER_PREFIXES: Final = ("chatcmpl-", "resp_", "msg_", "gen-")
MAX_ID_CHARS: Final = 60
MILLISECONDS_FROM: Final = 100_000_000_000
"""Larger times are in milliseconds, as some compatible servers state them; in seconds it is the year 5138."""

_FOREIGN = re.compile(r"[^A-Za-z0-9_-]+")


def answer_id(provider_id: str, client: Format, ctx: Context) -> str:
    """The id of an answer for a *client*, made of the provider's. Random without one: to be asked once per answer."""
    return PREFIXES[client] + id_core(provider_id, ctx)


def id_core(provider_id: str, ctx: Context) -> str:
    """The same without a prefix: 1..60 of ``[A-Za-z0-9_-]``, for ids that are built upon it (``msg_<core>_0``)."""
    for prefix in PROVIDER_PREFIXES:
        if provider_id.startswith(prefix):
            provider_id = provider_id[len(prefix) :]
            break
    return _FOREIGN.sub("", provider_id[: 4 * MAX_ID_CHARS])[:MAX_ID_CHARS] or ctx.new_id()


def call_id(ctx: Context) -> str:
    """An id for a tool call to which the provider gave none. Random: counters of two turns would collide (2.8)."""
    return ("toolu_" if ctx.client is Format.CLAUDE else "call_") + ctx.new_id()


def created_unix(stated: float, ctx: Context) -> int:
    """When the answer was made, in seconds: as the provider says, else now. Never 0."""
    if not 0 < stated < MILLISECONDS_FROM * 1000:
        return max(1, int(ctx.now_unix()))
    return max(1, int(stated / 1000 if stated >= MILLISECONDS_FROM else stated))


def parse_time(text: str) -> int:
    """Seconds since 1970 of an RFC 3339 time, Gemini's ``createTime``; 0 for anything else."""
    try:
        # Python reads at most six digits of a second; Google writes up to nine.
        at = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text[:64]).upper().replace("Z", "+00:00"))
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return 0


def format_time(created: int) -> str:
    """RFC 3339 in UTC of seconds since 1970."""
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
