"""System text, and the order of turns that targets demand (0.8, 2.2, 2.3)."""

import re

import msgspec

from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.ir import IRRequest, Media, Part, Reasoning, Refusal, Role, SysBlock, Text, Turn
from cpa.translation.media import document_text, placeholder

BILLING_HEADER = "x-anthropic-billing-header"
CONTINUE = "Continue."
ELLIPSIS = "…"
_BILLING_LITERAL = re.compile(rb'"(?:[ \t]|\\[nrt])*+' + BILLING_HEADER.encode()).match
_USER, _SYSTEM = Role.USER, Role.SYSTEM  # looking into an enumeration takes long


def fixups(request: IRRequest, ctx: Context) -> None:
    """What one pair of protocols needs (0.8): Claude Code's accounting text goes to Claude only.

    It changes with each request, which would make every provider's prompt cache useless.
    """
    if ctx.client is not Format.CLAUDE or ctx.provider is Format.CLAUDE:
        return
    kept = [block for block in request.system if not _is_billing(block)]
    if len(kept) != len(request.system):
        request.system = kept
        ctx.lose("system", "billing header removed", dropped=True)


def _is_billing(block: SysBlock) -> bool:
    if block.prose and type(block.written) is msgspec.Raw:
        return _BILLING_LITERAL(block.written) is not None
    return block.text.lstrip().startswith(BILLING_HEADER)


def reminder(text: str) -> str:
    """Operator's text inside a user turn."""
    return f"<system-reminder>\n{text}\n</system-reminder>"


def system_as_user(turns: list[Turn], ctx: Context) -> list[Turn]:
    """*turns* for a target without system text in mid-conversation (Gemini, most of Claude): wrapped user turns."""
    if all(turn.plain or turn.role is not _SYSTEM for turn in turns):
        return turns
    result = []
    for turn in turns:
        if turn.role is _SYSTEM:
            texts = [part.text for part in system_texts(turn) if part.text.strip()]
            if not texts:
                continue
            ctx.lose("messages", "system text in mid-conversation became user text")
            result.append(Turn(role=Role.USER, parts=[Text(text=reminder(text)) for text in texts]))
        else:
            result.append(turn)
    return result


def system_texts(turn: Turn) -> list[Text]:
    """A system turn as texts: media cannot be there, and become placeholders (2.2)."""
    texts = []
    for part in turn.parts:
        if isinstance(part, Text):
            texts.append(part)
        elif isinstance(part, Media):
            text = document_text(part) if part.text else placeholder(part.mime or part.media.value).text
            texts.append(Text(text=text, cache=part.cache))
    return texts


def ensure_user_turn(request: IRRequest, ctx: Context) -> None:
    """Claude and Gemini need a user's turn, and need it first (2.2, 2.3). To be called after `drop_prefill`."""
    if not any(turn.role is _USER and turn.parts for turn in request.turns):
        request.turns.append(Turn(role=Role.USER, parts=[Text(text=CONTINUE)]))
        ctx.lose("messages", "synthetic_user_turn")
    first = next((turn for turn in request.turns if turn.role is not Role.SYSTEM and turn.parts), None)
    if first is not None and first.role is Role.ASSISTANT:
        request.turns.insert(0, Turn(role=Role.USER, parts=[Text(text=ELLIPSIS)]))
        ctx.lose("messages", "synthetic_user_turn")


def merge_turns(turns: list[Turn]) -> list[Turn]:
    """*turns* with adjacent ones of the user or of the assistant made one, and empty ones removed (2.3).

    System turns stay by themselves. The given turns are not changed.
    """
    merged: list[Turn] = []
    before = None
    for turn in turns:
        if not turn.parts:
            continue
        role = turn.role
        if role is before and role is not _SYSTEM:
            merged[-1] = join_turns(merged[-1], turn)
        else:
            merged.append(turn)
        before = role
    return merged


def join_turns(first: Turn, second: Turn) -> Turn:
    """Both as one. Their order of text and calls means something only if it does in both."""
    return Turn(
        role=first.role,
        parts=[*first.parts, *second.parts],
        name=first.name or second.name,
        phase=first.phase or second.phase,
        authority=first.authority,
        ordered=first.ordered and second.ordered,
        plain=first.plain and second.plain,
    )


def drop_empty_texts(turns: list[Turn]) -> list[Turn]:
    """*turns* without texts of no characters, which Claude and Gemini reject, and without turns that had no more.

    A text that carries a signature stays: the emitter knows what to do with it.
    """
    result = []
    for turn in turns:
        if turn.plain:
            result.append(turn)
            continue
        parts: list[Part] = [part for part in turn.parts if not isinstance(part, Text) or not _is_empty(part)]
        if parts:
            result.append(with_parts(turn, parts))
    return result


def _is_empty(part: Text) -> bool:
    return not (part.written or part.text or part.sigs)


def with_parts(turn: Turn, parts: list[Part]) -> Turn:
    """*turn* with other parts."""
    return Turn(
        role=turn.role,
        parts=parts,
        name=turn.name,
        phase=turn.phase,
        authority=turn.authority,
        ordered=turn.ordered,
    )


def drop_prefill(request: IRRequest, ctx: Context) -> None:
    """Remove a last turn of the assistant that only says something, where the model takes none (2.3).

    Where it does take one, Claude rejects white space at its end. To be called after `tools.repair`.
    """
    turns = request.turns
    while turns and (not turns[-1].parts or (turns[-1].role is Role.ASSISTANT and _only_says(turns[-1]))):
        if turns[-1].parts:
            if ctx.profile.prefill:
                if ctx.provider is Format.CLAUDE:
                    _strip_end(turns[-1])
                if turns[-1].parts:
                    return
            else:
                ctx.lose("messages", "assistant prefill dropped", dropped=True)
        turns.pop()


def _only_says(turn: Turn) -> bool:
    return all(isinstance(part, Text | Refusal | Reasoning | Media) for part in turn.parts)


def _strip_end(turn: Turn) -> None:
    last = turn.parts[-1]
    while isinstance(last, Text):
        text = last.text.rstrip()
        if text:
            if text != last.text:
                turn.parts[-1] = Text(text=text, annotations=last.annotations, sigs=last.sigs, cache=last.cache)
            return
        turn.parts.pop()
        if not turn.parts:
            return
        last = turn.parts[-1]
