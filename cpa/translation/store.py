"""Answers that Responses clients refer to by id, for providers that keep none (translation 2.16).

A conversation is stored whole with each answer: what was sent and what came back, as the client saw it. That costs
memory, which is bounded, and makes a look-up one step however long the chain of answers is. Nothing is stored for
requests with ``store: false``, as agents send them.
"""

from collections import OrderedDict
from typing import Final

import attrs
import msgspec

from cpa.formats.json import decode_members
from cpa.translation.ir import Raw

MAX_STORE_BYTES: Final = 64 << 20
MAX_CONVERSATION_BYTES: Final = 8 << 20
"""Larger ones are not kept: one client must not push out all others."""

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


@attrs.frozen
class _Conversation:
    items: tuple[Raw, ...]
    size_bytes: int
    item_ids: tuple[str, ...]


class ResponseStore:
    """The answers of all tenants; the least recently used go first."""

    def __init__(self, max_bytes: int = MAX_STORE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._conversations: OrderedDict[tuple[str, str], _Conversation] = OrderedDict()
        self._items: dict[tuple[str, str], Raw] = {}
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What is held, never more than allowed."""
        return self._size_bytes

    def of_tenant(self, tenant: str) -> "TenantResponses":
        """What the client *tenant* sees: its own answers only."""
        return TenantResponses(self, tenant)

    def get(self, tenant: str, response_id: str) -> list[Raw] | None:
        """The items of a conversation, oldest first; None = unknown."""
        found = self._conversations.get((tenant, response_id))
        if found is None:
            return None
        self._conversations.move_to_end((tenant, response_id))
        return list(found.items)

    def get_item(self, tenant: str, item_id: str) -> Raw | None:
        """One item of an answer; None = unknown."""
        return self._items.get((tenant, item_id))

    def put(self, tenant: str, response_id: str, items: list[Raw], *, answered: list[Raw]) -> None:
        """Keep *items* and then *answered*, the items of the answer itself, which can be referred to one by one."""
        everything = (*items, *answered)
        size_bytes = sum(map(len, everything))
        if size_bytes > MAX_CONVERSATION_BYTES or (tenant, response_id) in self._conversations:
            return
        named = {item_id: item for item in answered if (item_id := _id_of(item))}
        self._items |= {(tenant, item_id): item for item_id, item in named.items()}
        self._conversations[tenant, response_id] = _Conversation(everything, size_bytes, tuple(named))
        self._size_bytes += size_bytes
        while self._size_bytes > self._max_bytes:
            (owner, _), oldest = self._conversations.popitem(last=False)
            self._size_bytes -= oldest.size_bytes
            for item_id in oldest.item_ids:
                self._items.pop((owner, item_id), None)


@attrs.frozen
class TenantResponses:
    """See `context.StoredResponses`."""

    _store: ResponseStore
    _tenant: str

    def items(self, response_id: str) -> list[Raw] | None:
        """Input and output items of an answer, oldest first; None = unknown."""
        return self._store.get(self._tenant, response_id)

    def item(self, item_id: str) -> Raw | None:
        """One item; None = unknown."""
        return self._store.get_item(self._tenant, item_id)

    def keep(self, body: bytes, response: bytes) -> None:
        """Remember the answer *response* to the request *body*, unless that says otherwise. Never raises."""
        try:
            asked, answer = decode_members(body), decode_members(response)
            if bytes(asked.get("store", b"")) == b"false":
                return
            items = self.items(_text(asked.get("previous_response_id"))) or []
            items += _input_items(asked.get("input"))
            answered = [bytes(item) for item in _decode_list(answer["output"])]
            response_id = _text(answer.get("id"))
        except (ValueError, KeyError, RecursionError):
            return
        if response_id:
            self._store.put(self._tenant, response_id, items, answered=answered)


def _input_items(raw: msgspec.Raw | None) -> list[Raw]:
    if raw is None:
        return []
    data = bytes(raw)
    if data.lstrip().startswith(b'"'):
        return [b'{"type":"message","role":"user","content":%b}' % data]
    return [bytes(item) for item in _decode_list(data)]


def _text(raw: msgspec.Raw | None) -> str:
    if raw is None:
        return ""
    try:
        return _decode_text(raw)
    except ValueError:
        return ""


def _id_of(item: Raw) -> str:
    try:
        return _text(decode_members(item).get("id"))
    except ValueError:
        return ""
