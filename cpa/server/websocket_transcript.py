"""What a WebSocket session has said so far, and how a new message goes on from there (proxy 1.12). Pure.

Items are kept as the bytes they came as, with the few members that decide where they belong. A `Conversation` knows the
last few turns by the id of their answer; turns share their items.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs
import msgspec

from cpa.errors import MalformedRequest, RequestError
from cpa.formats.json import repair

MAX_TURNS: Final = 4
"""Answers that a client may go on from; agents go on from the last, or from the one before after a failure."""
MAX_TOOL_CALLS: Final = 256
"""Of a session, for the repair of outputs (proxy, Appendix B)."""
MAX_SESSIONS: Final = 4096
MAX_CALL_BYTES: Final = 8 << 20
"""Of a session's calls together; they have some KiB each, patches and files among them."""
MAX_ALL_CALL_BYTES: Final = 64 << 20
"""Of all sessions' calls together."""
MAX_HELD_BYTES: Final = 256 << 20
"""Of all conversations together; 256 agents with a MiB each. The least recently used is dropped, and its client told to
send its input whole."""
REPLACING: Final = frozenset({"compaction", "compaction_summary"})
"""Beside calls and assistant messages: what only a client sends that tells its whole conversation anew."""

_ABSENT = msgspec.Raw(b"")


class _Members(msgspec.Struct, gc=False):
    type: msgspec.Raw = _ABSENT
    id: msgspec.Raw = _ABSENT
    call_id: msgspec.Raw = _ABSENT
    role: msgspec.Raw = _ABSENT


_decode_members = msgspec.json.Decoder(_Members).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


@attrs.frozen(kw_only=True, eq=False)
class Item:
    """One item of an input or an output.

    Attributes:
      raw: as it came, JSON.
      call, output: the call's id if it is a tool call, or the output of one.
      id: its own, or empty.
      reference: it stands for the item of that id.
      of_model: only a model makes such items, so that whoever sends one tells the whole conversation.
    """

    raw: bytes
    call: str = ""
    output: str = ""
    id: str = ""
    reference: bool = False
    of_model: bool = False


def read_items(raw: bytes) -> tuple[Item, ...]:
    """The items of a JSON array. Raises: MalformedRequest when it is none."""
    try:
        spans = _decode_list(raw)
    except (ValueError, RecursionError):
        try:
            spans = _decode_list(repair(raw))
        except (ValueError, RecursionError):
            raise MalformedRequest("input: expected an array of items", param="input") from None
    return tuple(read_item(bytes(span)) for span in spans)


def read_item(raw: bytes) -> Item:
    """One item; one that is no object belongs nowhere in particular, and the provider is to judge it."""
    try:
        members = _decode_members(raw)
    except (ValueError, RecursionError):
        return Item(raw=raw)
    kind = _text(members.type)
    call_id = _text(members.call_id)
    is_call = kind.endswith("_call")
    is_output = kind.endswith("_output")
    assistant = kind in ("", "message") and _text(members.role) == "assistant"
    return Item(
        raw=raw,
        call=call_id if is_call else "",
        output=call_id if is_output else "",
        id=_text(members.id),
        reference=kind == "item_reference",
        of_model=is_call or assistant or kind in REPLACING,
    )


def _text(raw: msgspec.Raw) -> str:
    try:
        return _decode_text(raw)
    except ValueError:
        return ""


def deduplicated(items: Iterable[Item]) -> Iterator[Item]:
    """*items* without later copies: tool calls by `call_id`, all items by `id`; references go with what they mean."""
    calls: set[str] = set()
    ids: set[str] = set()
    for item in items:
        if (item.call and item.call in calls) or (item.id and item.id in ids):
            continue
        if item.call:
            calls.add(item.call)
        if item.id:
            ids.add(item.id)
        yield item


class ToolCalls:
    """Tool calls of one session by `call_id`, the latest `MAX_TOOL_CALLS`."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._calls: OrderedDict[str, Item] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, call_id: str) -> Item | None:
        """The call, or None when it is not known any more."""
        return self._calls.get(call_id)

    def add(self, items: Iterable[Item]) -> None:
        """Remember the calls among *items*."""
        for item in items:
            if not item.call:
                continue
            known = self._calls.pop(item.call, None)
            self.size_bytes += len(item.raw) - (0 if known is None else len(known.raw))
            self._calls[item.call] = item
            while len(self._calls) > MAX_TOOL_CALLS or self.size_bytes > MAX_CALL_BYTES:
                _, oldest = self._calls.popitem(last=False)
                self.size_bytes -= len(oldest.raw)


def repaired(items: Sequence[Item], calls: ToolCalls) -> Iterator[Item]:
    """*items* with the call before each output that lacks one; outputs whose call nobody knows are left out."""
    known = {item.call for item in items if item.call}
    for item in items:
        if item.output and item.output not in known:
            call = calls.get(item.output)
            if call is None:
                continue
            known.add(item.output)
            yield call
        yield item


@attrs.define(eq=False)
class Conversation:
    """What one WebSocket has said and heard; made and kept by `SessionMemory`.

    Attributes:
      size_bytes: of all items that are held.
      lost: it was dropped to save memory, and nothing has been said since.
      warmed: the input of a warm-up that nothing followed yet.
    """

    size_bytes: int = 0
    lost: bool = False
    warmed: tuple[Item, ...] = ()
    _turns: OrderedDict[str, tuple[Item, ...]] = attrs.field(factory=OrderedDict)
    _last: tuple[Item, ...] | None = None

    def extended(self, new: tuple[Item, ...], *, previous: str) -> tuple[Item, ...]:
        """The whole input of a turn that brings *new*, in order, without duplicates.

        Args:
          previous: id of the answer that the client goes on from; empty = it says nothing about that.

        Raises: RequestError 409 when that, or what was said before, is not known (any more).
        """
        if previous:
            if previous not in self._turns:
                raise not_found(f"Previous response with id '{previous}' not found.")
            base = self._turns[previous]
        elif any(item.of_model for item in new) or self._repeats_warm_up(new):
            base, new = (), self._resolved(new)
        elif self.lost:
            raise not_found("The conversation of this connection is not kept any more: send the whole input.")
        else:
            base = self._last or ()
        return tuple(deduplicated((*base, *new)))

    def _resolved(self, new: tuple[Item, ...]) -> tuple[Item, ...]:
        """*new* with the items that it refers to instead of the references, as far as they were said here."""
        if not any(item.reference for item in new):
            return new
        known = {item.id: item for item in self._last or () if not item.reference}
        return tuple(known.get(item.id, item) if item.reference else item for item in new)

    def _repeats_warm_up(self, new: tuple[Item, ...]) -> bool:
        warmed = self.warmed
        return bool(warmed) and [item.raw for item in new[: len(warmed)]] == [item.raw for item in warmed]

    def keep(self, response_id: str, items: tuple[Item, ...], *, warmed: tuple[Item, ...] = ()) -> None:
        """An answer is complete: *items* are what led to it and what it said."""
        self.lost = False
        self.warmed = warmed
        self._last = items
        if response_id:
            self._turns[response_id] = items
            self._turns.move_to_end(response_id)
            if len(self._turns) > MAX_TURNS:
                self._turns.popitem(last=False)
        held = {id(item): len(item.raw) for turn in (*self._turns.values(), items) for item in turn}
        self.size_bytes = sum(held.values())

    def forget(self) -> None:
        """Let all of it go."""
        self.lost = self._last is not None or self.lost
        self.size_bytes = 0
        self.warmed = ()
        self._last = None
        self._turns.clear()


def not_found(message: str) -> RequestError:
    """The error that makes clients send everything again."""
    return RequestError(message, code="previous_response_not_found", http_status=409, param="previous_response_id")


@attrs.define(eq=False)
class SessionMemory:
    """What sessions of all clients keep, within bounds; survives reloads.

    Attributes:
      size_bytes: of all conversations.
    """

    max_bytes: int = MAX_HELD_BYTES
    size_bytes: int = 0
    _conversations: OrderedDict[Conversation, int] = attrs.field(factory=OrderedDict)
    _sessions: OrderedDict[tuple[str, str], ToolCalls] = attrs.field(factory=OrderedDict)

    def begin(self) -> Conversation:
        """The conversation of a new connection; `end` it."""
        conversation = Conversation()
        self._conversations[conversation] = 0
        return conversation

    def end(self, conversation: Conversation) -> None:
        """Its connection has ended."""
        self.size_bytes -= self._conversations.pop(conversation, 0)

    def touch(self, conversation: Conversation) -> None:
        """*conversation* has grown: if that is too much for all together, those that rested longest are dropped."""
        self.size_bytes += conversation.size_bytes - self._conversations[conversation]
        self._conversations[conversation] = conversation.size_bytes
        self._conversations.move_to_end(conversation)
        while self.size_bytes > self.max_bytes:
            other = next(other for other, held in self._conversations.items() if held)
            self.size_bytes -= self._conversations[other]
            self._conversations[other] = 0
            other.forget()

    def tool_calls(self, tenant: str, session: str) -> ToolCalls:
        """Those of a client's session, over all its connections; of no session (empty), fresh ones."""
        if not session:
            return ToolCalls()
        calls = self._sessions.setdefault((tenant, session), ToolCalls())
        self._sessions.move_to_end((tenant, session))
        size_bytes = sum(kept.size_bytes for kept in self._sessions.values())
        while len(self._sessions) > MAX_SESSIONS or (size_bytes > MAX_ALL_CALL_BYTES and len(self._sessions) > 1):
            _, oldest = self._sessions.popitem(last=False)
            size_bytes -= oldest.size_bytes
        return calls
