"""Sessions that stay with one credential, for the sake of its prompt cache (proxy 4.10, 10.11).

`session_ids` finds out which session a request belongs to; `Bindings` knows which credential serves it. Ids from
different places live in name spaces of their own: a header can never claim what a body said. What is kept is digests.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject, JsonValue
from cpa.scheduling.store import Clock, Space, StateStore
from cpa.types import Operation, SelectionAsk

MAX_ID_BYTES: Final = 256
MAX_ALIASES: Final = 64
MAX_BINDINGS: Final = 100_000
MAX_ALIAS_ENTRIES: Final = 20_000
INSTRUCTION_CHARS: Final = 50
INSTRUCTION_MEMBERS: Final = ("system", "instructions", "systemInstruction", "system_instruction")
FALLBACK_CHARS: Final = 100
MIXED: Final = "mixed"
"""Scope of bindings where several providers serve a model."""
DERIVED: Final = "ctx:v1:"
"""How ids begin that are made of how a conversation begins."""
CLAUDE_HEADER: Final = b"x-claude-code-session-id"
HEADERS: Final = (b"session-id", b"session_id", b"x-session-id", b"x-session-affinity", b"x-client-request-id")
_CLAUDE_SUFFIX = re.compile(r"_session_([0-9A-Fa-f-]{1,64})$")
_FNV_OFFSET, _FNV_PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


@attrs.frozen(kw_only=True)
class SessionIds:
    """Attributes:
    id: name space and value.
    alias: another name under which the same session may come back; empty = none.
    """

    id: str
    alias: str = ""


def session_ids(ask: SelectionAsk) -> SessionIds | None:
    """The session of a request, by the first place that names one; None for what has no conversation at all."""
    if ask.operation is Operation.EMBED:
        return None
    headers: dict[bytes, str] = {}
    for header, raw in ask.headers:
        headers.setdefault(header, raw.decode("utf-8", "replace"))
    claude = explicit(headers.get(CLAUDE_HEADER))
    if claude:
        return SessionIds(id=f"claude:{claude}")
    try:
        decoded = decode(ask.body)
    except JsonError:
        decoded = None
    body: JsonObject = decoded if isinstance(decoded, dict) else {}
    user_id = _user_id(body)
    session = explicit(_claude_session(user_id))
    if session:
        return SessionIds(id=f"claude:{session}")
    for header in HEADERS:
        if value := explicit(headers.get(header)):
            return SessionIds(id=f"header:{header.decode()}:{value}")
    named = _of_body(body, user_id)
    if named is None and ask.session:
        return SessionIds(id=f"connection:{ask.session}")
    return named or _derived(ask, body)


def _of_body(body: JsonObject, user_id: str) -> SessionIds | None:
    """Ids that a body names (places 4 to 8)."""
    conversation = _conversation(body)
    for name in ("session_id", "sessionId"):
        if value := explicit(body.get(name)):
            return SessionIds(id=f"body:session:{value}")
    if value := explicit(body.get("prompt_cache_key")):
        return SessionIds(id=f"cache:{value}", alias=f"conversation:{conversation}" if conversation else "")
    if conversation:
        return SessionIds(id=f"conversation:{conversation}")
    if value := explicit(user_id):
        return SessionIds(id=f"user:{value}")
    if value := explicit(body.get("conversation_id")):
        return SessionIds(id=f"conversation_id:{value}")
    return None


def explicit(value: JsonValue) -> str:
    """*value* as an id that somebody chose: printable, trimmed, 1 to 256 bytes; else empty."""
    if not isinstance(value, str):
        return ""
    text = value.strip()
    return text if text and text.isprintable() and len(text.encode("utf-8", "replace")) <= MAX_ID_BYTES else ""


def _conversation(body: JsonObject) -> str:
    found = body.get("conversation")
    return explicit(found.get("id") if isinstance(found, dict) else found)


def _user_id(body: JsonObject) -> str:
    metadata = body.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    return user_id.strip() if isinstance(user_id, str) and len(user_id) <= 4096 else ""


def _claude_session(user_id: str) -> str:
    """The session inside what Claude Code sends as the user's id, in both of its forms."""
    if user_id.startswith("{"):
        try:
            value = decode(user_id.encode("utf-8", "replace"))
        except JsonError:
            return ""
        found = value.get("session_id") if isinstance(value, dict) else None
        return found if isinstance(found, str) else ""
    match = _CLAUDE_SUFFIX.search(user_id)
    return match[1] if match else ""


# --- the derived id --------------------------------------------------------------------------------------------------


def _derived(ask: SelectionAsk, body: JsonObject) -> SessionIds | None:
    """An id made of how a conversation begins: the same in all of its turns, another one for every caller."""
    if not body:
        return None
    caller = hashlib.sha256(f"cpa-affinity:{ask.principal}".encode("utf-8", "replace")).hexdigest()
    instructions, first = _beginning(ask.format, body)
    if first is None:
        text = "".join(_texts(body))[:FALLBACK_CHARS]
        return SessionIds(id=f"fnv:{caller[:16]}:{_fnv(text)}") if text else None
    known = {
        "protocol": ask.format.value,
        "caller": caller,
        "instructions": [text[:INSTRUCTION_CHARS] for text in instructions],
        "input": first,
    }
    return SessionIds(id=f"{DERIVED}{hashlib.sha256(encode(_sorted(known))).hexdigest()}")


def _beginning(fmt: Format, body: JsonObject) -> tuple[list[str], JsonValue]:
    """Texts of the leading instructions, and the first thing that the user said, whole; None = cannot be read."""
    instructions = ["".join(_texts(body[name])) for name in INSTRUCTION_MEMBERS if name in body]
    if fmt is Format.GEMINI:
        turns = body.get("contents")
    elif fmt in (Format.OPENAI_RESPONSE, Format.CODEX):
        turns = body.get("input")
        if isinstance(turns, str):
            return instructions, turns
    else:
        turns = body.get("messages")
        if turns is None and isinstance(body.get("prompt"), str):
            return instructions, body["prompt"]
    for turn in turns if isinstance(turns, list) else ():
        if not isinstance(turn, dict):
            return instructions, None
        role = turn.get("role", "user")
        content = turn.get("content", turn.get("parts"))
        if role in ("system", "developer"):
            instructions.append("".join(_texts(content)))
        elif role == "user":
            return instructions, _without_marks(content)
        # what an assistant said first, or an item of another kind, is not what makes a session
    return instructions, None


def _without_marks(value: JsonValue, depth: int = 0) -> JsonValue:
    """*value* without cache marks, which wander from turn to turn."""
    if depth > 32:
        return None
    if isinstance(value, dict):
        return {name: _without_marks(item, depth + 1) for name, item in value.items() if name != "cache_control"}
    if isinstance(value, list):
        return [_without_marks(item, depth + 1) for item in value]
    return value


def _sorted(value: Any, depth: int = 0) -> Any:
    """*value* with members in order, so that equal things are equal bytes."""
    if depth > 40:
        return None
    if isinstance(value, Mapping):
        return {name: _sorted(value[name], depth + 1) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item, depth + 1) for item in value]
    return value


def _texts(value: JsonValue, depth: int = 0) -> Iterator[str]:
    """All that is text in a message, in order."""
    if depth > 16:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, dict):
        for name in ("text", "content", "parts", "system", "instructions", "messages", "input", "contents", "prompt"):
            if name in value:
                yield from _texts(value[name], depth + 1)


def _fnv(text: str) -> str:
    """FNV-1a, 64 bits, as hex."""
    value = _FNV_OFFSET
    for byte in text.encode("utf-8", "replace"):
        value = ((value ^ byte) * _FNV_PRIME) & _MASK
    return f"{value:016x}"


# --- bindings --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Binding:
    """*credential_id* serves the session since *since_unix*."""

    credential_id: str
    since_unix: float


def _encode(value: Any) -> bytes:
    return encode(attrs.asdict(value))


def _decode(data: bytes) -> Binding:
    try:
        value = decode(data)
    except JsonError as exc:
        raise ValueError("not a binding") from exc
    if not isinstance(value, dict):
        raise ValueError("not a binding")
    credential_id, since = value.get("credential_id"), value.get("since_unix")
    if not isinstance(credential_id, str) or not isinstance(since, int | float):
        raise ValueError("not a binding")
    return Binding(credential_id=credential_id, since_unix=float(since))


AFFINITY: Final = Space(name="affinity", encode=_encode, decode=_decode, max_entries=MAX_BINDINGS)


class Bindings:
    """Which credential serves which session: (scope, session, model) to an id, until it was idle for too long."""

    def __init__(self, store: StateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._aliases: OrderedDict[str, str] = OrderedDict()  # alias to the session that has it
        self._counts: dict[str, int] = {}

    def session(self, ids: SessionIds) -> str:
        """The digest under which a session is known, whichever of its names the request used."""
        own, alias = _digest(ids.id), _digest(ids.alias) if ids.alias else ""
        known = self._aliases.get(own) or self._aliases.get(alias) or own
        if alias and alias != known and self._counts.get(known, 0) < MAX_ALIASES and alias not in self._aliases:
            self._aliases[alias] = known
            self._counts[known] = self._counts.get(known, 0) + 1
            if len(self._aliases) > MAX_ALIAS_ENTRIES:
                _, session = self._aliases.popitem(last=False)
                self._counts[session] -= 1
                if not self._counts[session]:
                    del self._counts[session]
        return known

    def bound(self, scope: str, session: str, model: str) -> str:
        """Id of the credential, empty = none."""
        binding: Binding | None = self._store.get(AFFINITY, (scope, session, model))
        return "" if binding is None else binding.credential_id

    def bind(self, scope: str, session: str, model: str, credential_id: str, *, ttl_s: float) -> None:
        """*credential_id* has served the session: it stays there for another *ttl_s*."""
        now = self._clock()
        known: Binding | None = self._store.get(AFFINITY, (scope, session, model))
        since = known.since_unix if known is not None and known.credential_id == credential_id else now
        binding = Binding(credential_id=credential_id, since_unix=since)
        self._store.put(AFFINITY, (scope, session, model), binding, expires_unix=now + ttl_s)

    def unbind(self, scope: str, session: str, model: str, credential_id: str) -> None:
        """The credential fails: the session is free, unless it has moved on already."""
        if self.bound(scope, session, model) == credential_id:
            self._store.drop(AFFINITY, (scope, session, model))

    def count(self) -> int:
        """Live bindings."""
        return sum(1 for _ in self._store.items(AFFINITY))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
