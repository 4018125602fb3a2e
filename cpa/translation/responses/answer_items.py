"""Output items of an answer as blocks of events (translation 4.4). `parser.Parser` says which item an event is about.

Each text, refusal or reasoning of an item is a block of its own, and so is any other item. Whatever deltas left out,
the item's whole object fills in: `ItemBlocks.complete`.
"""

from typing import Final

import attrs
import msgspec

from cpa.formats.names import Format
from cpa.translation.annotations import from_openai
from cpa.translation.context import Context
from cpa.translation.ir import (
    Ann,
    BlockKind,
    Channel,
    Close,
    Delta,
    IREvent,
    Meta,
    Open,
    PartBreak,
    Provenance,
    SigEvent,
    SigKind,
    TokenProb,
)
from cpa.translation.logprobs import read_openai
from cpa.translation.responses.wire import ABSENT, Item, Part
from cpa.translation.signatures import unwrap

ORIGIN: Final = Format.OPENAI_RESPONSE.value

_EMPTY_LIST: Final = len(b"null")
"""``logprobs`` that are no longer than this say nothing."""
TOOL_KINDS: Final = {"function_call": BlockKind.TOOL, "custom_tool_call": BlockKind.CUSTOM_TOOL}
_SERVER_KINDS: Final = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcp",
    "mcp_approval_request": "mcp",
    "local_shell_call": "other",
    "shell_call": "other",
    "apply_patch_call": "other",
    "computer_call": "other",
    "tool_search_call": "other",
}


@attrs.define(eq=False)
class Block:
    """One block of the answer.

    Attributes:
      final: all of its text, as its own ``done`` event said.
      pieces: of the part that is being read, for reasoning only. *cited*: a citation came by itself.
      weighed: its tokens' probabilities came with its text. *probs*: those of all of it, for when they did not.
    """

    b: int
    open: bool = True
    final: str | None = None
    pieces: list[str] = attrs.field(factory=list)
    cited: bool = False
    weighed: bool = False
    probs: tuple[TokenProb, ...] = ()


@attrs.define(eq=False)
class AnswerItem:
    """One item of the output.

    Attributes:
      blocks: of a message by ``content_index``; of anything else one, at 0.
      waiting: argument text that came before the call's name; *final*: all of it, as its own ``done`` event said.
      part: number of the reasoning part that is being read.
    """

    index: int
    kind: str = ""
    id: str = ""
    call_id: str = ""
    phase: str = ""
    name: str = ""
    namespace: str = ""
    blocks: dict[int, Block] = attrs.field(factory=dict)
    waiting: list[str] = attrs.field(factory=list)
    final: str | None = None
    channel: Channel | None = None
    part: int = -1
    done: bool = False


class ItemBlocks:
    """Makes events of items.

    Attributes:
      out: the events, for the parser to take.
      has_calls, has_text, has_refusal: what the answer holds so far.
    """

    def __init__(self, ctx: Context) -> None:
        self.out: list[IREvent] = []
        self.has_calls = False
        self.has_text = False
        self.has_refusal = False
        self._ctx = ctx
        self._count = 0
        self._images: set[int] = set()

    def complete(self, item: AnswerItem, found: Item, raw: bytes) -> None:
        """All of *item* is known: what is missing of its blocks, and their ends."""
        item.done = True
        incomplete = found.status == "incomplete"
        match item.kind:
            case "message":
                self._complete_message(item, found, incomplete=incomplete)
            case "reasoning":
                self._complete_reasoning(item, found)
            case "function_call" | "custom_tool_call":
                self.complete_call(item, found, incomplete=incomplete)
            case "image_generation_call":
                self._complete_image(item, found)
            case _:
                server = _SERVER_KINDS.get(item.kind, "")
                kind = BlockKind.SERVER_CALL if server else BlockKind.OPAQUE
                meta = Meta(item_id=item.id, call_id=item.call_id or item.id, server=server, origin=ORIGIN, raw=raw)
                self._close(self._open(item, 0, kind, meta))

    def settle(self, item: AnswerItem) -> None:
        """No object ever told of *item*: its own events have to do."""
        if item.kind in TOOL_KINDS and (item.final is not None or item.waiting or not item.blocks):
            item.done = True
            custom = item.kind == "custom_tool_call"
            self.complete_call(item, Item(input=item.final) if custom else Item(arguments=item.final))
        for block in item.blocks.values():
            if block.final is not None:
                self._close(block, block.final)

    def _open(self, item: AnswerItem, place: int, kind: BlockKind, meta: Meta) -> Block:
        block = Block(b=self._count)
        self._count += 1
        item.blocks[place] = block
        self.out.append(Open(b=block.b, kind=kind, meta=meta))
        return block

    def _close(self, block: Block, final: str | None = None, *, incomplete: bool = False) -> None:
        if block.open:
            block.open = False
            if block.probs and not block.weighed:
                self.out.append(Delta(b=block.b, s="", probs=block.probs))
            self.out.append(Close(b=block.b, final=final, incomplete=incomplete))

    # --- messages ---

    def content(self, item: AnswerItem, place: int, kind: BlockKind) -> Block:
        """The text or refusal at *place* of a message, opened if need be."""
        block = item.blocks.get(place)
        if block is None:
            item.kind = item.kind or "message"
            block = self._open(item, place, kind, Meta(item_id=item.id, phase=item.phase))
            self.has_refusal = self.has_refusal or kind is BlockKind.REFUSAL
        return block

    def text_delta(
        self, item: AnswerItem, place: int, kind: BlockKind, text: str, logprobs: msgspec.Raw = ABSENT
    ) -> None:
        """More of a text or refusal."""
        block = self.content(item, place, kind)
        if block.open:
            self.has_text = self.has_text or kind is BlockKind.TEXT
            probs = read_openai(logprobs) if len(logprobs) > _EMPTY_LIST else ()
            block.weighed = block.weighed or bool(probs)
            self.out.append(Delta(b=block.b, s=text, probs=probs))

    def text_final(
        self, item: AnswerItem, place: int, kind: BlockKind, text: str, logprobs: msgspec.Raw = ABSENT
    ) -> None:
        """All of a text or refusal. Not its end: citations may follow."""
        block = self.content(item, place, kind)
        block.final = text
        if len(logprobs) > _EMPTY_LIST:
            block.probs = read_openai(logprobs)
        self.has_text = self.has_text or kind is BlockKind.TEXT

    def finish_part(self, item: AnswerItem, place: int, part: Part, *, incomplete: bool = False) -> None:
        """A content part is complete."""
        if part.type not in ("output_text", "text", "refusal"):
            return
        refused = part.type == "refusal"
        final = (part.refusal if refused else part.text) or ""
        block = item.blocks.get(place)
        if block is None:
            if not final:
                return
            block = self.content(item, place, BlockKind.REFUSAL if refused else BlockKind.TEXT)
        if not block.open:
            return
        self.has_text = self.has_text or bool(final and not refused)
        if len(part.logprobs) > _EMPTY_LIST:
            block.probs = read_openai(part.logprobs) or block.probs
        if not block.cited:
            for raw in part.annotations or ():
                self._cite(block, raw)
        self._close(block, final, incomplete=incomplete)

    def cite(self, item: AnswerItem, place: int, raw: msgspec.Raw) -> None:
        """A citation that came by itself."""
        block = self.content(item, place, BlockKind.TEXT)
        if block.open:
            block.cited = True
            self._cite(block, raw)

    def _cite(self, block: Block, raw: msgspec.Raw) -> None:
        annotation = from_openai(bytes(raw), origin=ORIGIN)
        if annotation is not None:
            self.out.append(Ann(b=block.b, annotation=annotation))

    def _complete_message(self, item: AnswerItem, found: Item, *, incomplete: bool) -> None:
        parts = [Part(type="output_text", text=found.content)] if isinstance(found.content, str) else found.content
        for place, part in enumerate(parts or ()):
            self.finish_part(item, place, part, incomplete=incomplete)
        for block in item.blocks.values():
            self._close(block, block.final, incomplete=incomplete)

    # --- calls ---

    def open_call(self, item: AnswerItem) -> Block:
        """The block of a call whose name is known; what came before its name follows."""
        self.has_calls = True
        kind = TOOL_KINDS.get(item.kind, BlockKind.TOOL)
        meta = Meta(item_id=item.id, call_id=item.call_id, name=item.name, namespace=item.namespace)
        block = item.blocks.get(0) or self._open(item, 0, kind, meta)
        self.out.extend(Delta(b=block.b, s=piece) for piece in item.waiting)
        item.waiting.clear()
        return block

    def arguments_delta(self, item: AnswerItem, text: str) -> None:
        """More arguments."""
        block = item.blocks.get(0)
        if block is None:
            item.waiting.append(text)
        elif block.open:
            self.out.append(Delta(b=block.b, s=text))

    def complete_call(self, item: AnswerItem, found: Item, *, incomplete: bool = False) -> None:
        """A call is complete; one that never got a name is told only if it says something (4.3)."""
        final = found.input if item.kind == "custom_tool_call" else found.arguments
        if not item.name:
            if not item.waiting and not final:
                self._ctx.lose("output", "a call without name or arguments", dropped=True)
                return
            item.name = "unknown_tool"
        self._close(self.open_call(item), final, incomplete=incomplete)

    # --- reasoning ---

    def reasoning_delta(self, item: AnswerItem, channel: Channel, part: int, text: str) -> None:
        """More of a part of reasoning."""
        block = self._reasoning(item, channel)
        if block is not None and block.open:
            self._more(item, block, part, text)

    def reasoning_final(self, item: AnswerItem, channel: Channel, part: int, text: str) -> None:
        """All of a part of reasoning."""
        block = self._reasoning(item, channel)
        if block is not None and block.open:
            self._rest(item, block, part, text)

    def _reasoning(self, item: AnswerItem, channel: Channel) -> Block | None:
        """The item's block, if *channel* is the one that it shows: the one that came first."""
        if item.channel is None:
            item.kind = item.kind or "reasoning"
            item.channel = channel
            return self._open(item, 0, BlockKind.REASONING, Meta(item_id=item.id, channel=channel))
        return item.blocks[0] if item.channel is channel else None

    def _more(self, item: AnswerItem, block: Block, part: int, text: str) -> None:
        if part != item.part:
            if item.part >= 0:
                # Only now, so that no boundary stands at the end.
                self.out.append(PartBreak(b=block.b))
            item.part = part
            block.pieces.clear()
        block.pieces.append(text)
        self.out.append(Delta(b=block.b, s=text))

    def _rest(self, item: AnswerItem, block: Block, part: int, text: str) -> None:
        """What a whole part has beyond what was streamed of it; parts that are over are not looked at again."""
        if part < item.part:
            return
        streamed = "".join(block.pieces) if part == item.part else ""
        if text.startswith(streamed) and len(text) > len(streamed):
            self._more(item, block, part, text[len(streamed) :])

    def _complete_reasoning(self, item: AnswerItem, found: Item) -> None:
        summary = [part.text or "" for part in found.summary or ()]
        raw = [part.text or "" for part in found.content] if isinstance(found.content, list) else []
        channel = item.channel or (Channel.SUMMARY if any(summary) or not any(raw) else Channel.RAW)
        texts = summary if channel is Channel.SUMMARY else raw
        # Only of a finished item: what its announcement holds is provisional.
        data = found.encrypted_content
        sig = unwrap(data, bare=Provenance.OPENAI, kind=SigKind.ENCRYPTED) if data else None
        if not any(texts) and sig is None and item.channel is None:
            return
        block = self._reasoning(item, channel)
        if block is None or not block.open:
            return
        for place, text in enumerate(texts):
            if text:
                self._rest(item, block, place, text)
        if sig is not None:
            self.out.append(SigEvent(b=block.b, sig=sig))
        self._close(block, incomplete=found.status == "incomplete")

    # --- images ---

    def _complete_image(self, item: AnswerItem, found: Item) -> None:
        if not found.result:
            return
        digest = hash(found.result)
        if digest in self._images:
            return
        self._images.add(digest)
        form = found.output_format or "png"
        mime = "image/svg+xml" if form == "svg" else f"image/{form}"
        block = self._open(item, 0, BlockKind.IMAGE, Meta(item_id=item.id, mime=mime))
        self.out.append(Delta(b=block.b, s=found.result))
        self._close(block)
