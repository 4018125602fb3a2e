"""Turns as Gemini takes them (translation 2.2, 2.3, 2.5, 2.8, 2.10, 2.15, 2.18).

Two steps. `adapt` replaces, in the intermediate representation, whatever Gemini cannot read: afterwards each part can
be written, and the shared passes over turns see what will be sent. `write_contents` writes them.
"""

from typing import Final

import msgspec

from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.gemini.media_parts import ORIGIN, Members, readable, write_media
from cpa.translation.ir import (
    Call,
    Compaction,
    IRRequest,
    Media,
    Native,
    Part,
    Provenance,
    Reasoning,
    Refusal,
    Result,
    Role,
    ServerCall,
    ServerResult,
    Sig,
    Text,
    Turn,
)
from cpa.translation.literals import is_blank
from cpa.translation.loss import Untranslatable
from cpa.translation.media import document_text, foreign_items_text
from cpa.translation.signatures import GEMINI_BYPASS, for_family
from cpa.translation.tools import args_object, media_intro, split_result_media

SUMMARY_INTRO: Final = "Summary of earlier conversation: "


# --- what Gemini can read --------------------------------------------------------------------------------------------


def adapt(request: IRRequest, ctx: Context) -> None:
    """Replace what Gemini cannot read, in place. Raises: Untranslatable."""
    last_user = next((turn for turn in reversed(request.turns) if turn.role is Role.USER), None)
    for number, turn in enumerate(request.turns):
        if turn is last_user:
            _refuse_unreadable(turn, number)
        for part in turn.parts:
            if not _fits(part, turn.role):
                break
        else:
            continue  # as of nearly all turns
        kept: list[Part] = []
        for place, part in enumerate(turn.parts):
            if _fits(part, turn.role):
                kept.append(part)
            else:
                kept.extend(_adapted(part, turn.role, f"messages[{number}].content[{place}]", ctx))
        turn.parts = kept
    request.turns = [turn for turn in request.turns if turn.parts]


def _refuse_unreadable(turn: Turn, number: int) -> None:
    """A file of another vendor that is all that the user says now (0.7)."""
    said = [part for part in turn.parts if not isinstance(part, Text) or not is_blank(part)]
    if said and all(isinstance(part, Media) and part.file_id and part.issuer != ORIGIN for part in said):
        raise Untranslatable(f"messages[{number}]", "this model's provider cannot read the file")


def _fits(part: Part, role: Role) -> bool:
    """Nothing is to be done, as for nearly all parts."""
    if isinstance(part, Call):
        return role is Role.ASSISTANT
    if isinstance(part, Result):
        only = part.parts[0] if len(part.parts) == 1 else None
        return isinstance(only, Text) and not part.cache
    return isinstance(part, Text) and not part.cache and bool(part.literal or part.text)


def _adapted(part: Part, role: Role, path: str, ctx: Context) -> list[Part]:
    match part:
        case Text():
            _lose_cache(part, path, ctx)
            signed = role is Role.ASSISTANT and bool(_own(part.sigs))
            return [part] if part.text or signed else []
        case Media():
            _lose_cache(part, path, ctx)
            if role is Role.SYSTEM:
                return [part]  # told by `system.system_as_user`
            return _media(part, path, ctx)
        case Call():
            if role is Role.ASSISTANT:
                return [part]
            return [Text(text=f"{part.name}({args_object(part).decode('utf-8', 'replace')})")]
        case Result():
            _lose_cache(part, path, ctx)
            part.parts = [
                inner if isinstance(inner, Text) or inner.text else readable(inner, path, ctx) for inner in part.parts
            ]
            return [part]
        case Reasoning():
            if role is Role.ASSISTANT and _own(part.sigs):
                return [part]
            ctx.lose(path, "reasoning without a signature of this provider", dropped=True)
            return []
        case Refusal():
            return [Text(text=part.text)] if part.text else []
        case Compaction():
            if not part.text:
                raise Untranslatable(path, "the compacted history can only be read by the provider that compacted it")
            return [Text(text=SUMMARY_INTRO + part.text)]
        case ServerCall() | ServerResult() | Native():
            return _provider_step(part, path, ctx)


def _lose_cache(part: Text | Media | Result, path: str, ctx: Context) -> None:
    if part.cache:
        ctx.lose(f"{path}.cache_control", dropped=True)


def _media(part: Media, path: str, ctx: Context) -> list[Part]:
    if part.text:
        return [Text(text=document_text(part))]
    found = readable(part, path, ctx)
    if isinstance(found, Media) and found.context:
        # What a Claude client says of its document has no member of its own.
        header = f"[document: {found.name or found.title}]" if found.name or found.title else "[document]"
        return [Text(text=f"{header}\n{found.context}"), found]
    return [found]


def _provider_step(part: ServerCall | ServerResult | Native, path: str, ctx: Context) -> list[Part]:
    if part.origin == ORIGIN:
        return [part]
    text = foreign_items_text(part)
    if text:
        ctx.lose(path, "a step of another provider's tool became text")
        return [Text(text=text)]
    ctx.lose(path, "an item that only its provider can read", dropped=True)
    return []


def _own(sigs: list[Sig]) -> str:
    """The signature among *sigs* that Gemini takes back; empty = none."""
    found = for_family(sigs, Provenance.GEMINI) if sigs else []
    return found[-1].data if found else ""


# --- writing ---------------------------------------------------------------------------------------------------------


def write_contents(turns: list[Turn], ctx: Context) -> list[Members]:
    """``contents`` of turns that `adapt` has seen, of alternating roles, beginning with the user's."""
    loop = _loop_start(turns)
    contents: list[Members] = []
    for place, turn in enumerate(turns):
        if turn.role is Role.ASSISTANT:
            parts = _model_parts(turn, ctx, in_loop=place >= loop)
        else:
            parts = _user_parts(turn, ctx)
        contents.append({"role": "model" if turn.role is Role.ASSISTANT else "user", "parts": parts})
    return contents


def _loop_start(turns: list[Turn]) -> int:
    """Where the running tool loop begins: behind the last turn of the user that brings no results. Agents add texts of
    their own to results, which do not end the loop."""
    for place in range(len(turns) - 1, -1, -1):
        turn = turns[place]
        if turn.role is Role.USER and not any(isinstance(part, Result) for part in turn.parts):
            return place + 1
    return 0


def _model_parts(turn: Turn, ctx: Context, *, in_loop: bool) -> list[Members | msgspec.Raw]:
    parts: list[Members | msgspec.Raw] = []
    first_call = True
    for part in turn.parts:
        match part:
            case Text():
                written: Members = {"text": part.literal or part.text}
                if part.sigs or ctx.signatures is not None:
                    _sign(written, _own(part.sigs) or _remembered_text(part, ctx))
                parts.append(written)
            case Reasoning():
                written = {"text": "\n\n".join(part.texts), "thought": True}
                _sign(written, _own(part.sigs))
                parts.append(written)
            case Call():
                signature = ""
                if part.sigs or ctx.signatures is not None:
                    signature = _own(part.sigs) or _remembered_call(part, ctx)
                if not signature and first_call and in_loop:
                    signature = GEMINI_BYPASS  # siblings stay unsigned (2.10)
                first_call = False
                parts.append(_call(part, signature, ctx))
            case _:
                parts.extend(_common(part))
    return parts


def _user_parts(turn: Turn, ctx: Context) -> list[Members | msgspec.Raw]:
    """Responses to functions first, as many as there were calls; then what else the user says."""
    if len(turn.parts) == 1 and isinstance(only := turn.parts[0], Text):
        return [{"text": only.literal or only.text}]
    responses: list[Members | msgspec.Raw] = []
    returned: list[Members | msgspec.Raw] = []
    said: list[Members | msgspec.Raw] = []
    for part in turn.parts:
        if isinstance(part, Result):
            responses.append(_response(part, returned, ctx))
        elif isinstance(part, Text):
            said.append({"text": part.literal or part.text})
        else:
            said.extend(_common(part))
    return responses + returned + said


def _common(part: Part) -> list[Members | msgspec.Raw]:
    match part:
        case Media():
            written = write_media(part)
            _sign(written, _own(part.sigs))
            return [written]
        case Native() | ServerCall() | ServerResult():
            return [msgspec.Raw(part.raw)]
        case _:
            return []


def _sign(part: Members, signature: str) -> None:
    if signature:
        part["thoughtSignature"] = signature


def _call(call: Call, signature: str, ctx: Context) -> Members:
    # An object that another body held is not read once more.
    args = call.args if not call.args_text and call.args.startswith(b"{") else args_object(call)
    part: Members = {
        "functionCall": {
            "id": call.call_id,
            "name": ctx.names.to_wire(call.name, call.namespace),
            "args": msgspec.Raw(args),
        }
    }
    _sign(part, signature)
    return part


def _response(result: Result, returned: list[Members | msgspec.Raw], ctx: Context) -> Members:
    """A ``functionResponse``. Media that cannot stand in it go to *returned*, introduced by a text."""
    response: Members | msgspec.Raw
    media: list[Media] = []
    only = result.parts[0] if len(result.parts) == 1 and not result.json else None
    if isinstance(only, Text):
        response = {"error" if result.is_error else "output": only.literal or only.text}
    elif result.json:
        media = [part for part in result.parts if isinstance(part, Media)]
        raw = msgspec.Raw(result.json)
        own = ctx.client is Format.GEMINI and result.json.startswith(b"{")
        response = raw if own else {"error" if result.is_error else "output": raw}
    else:
        text, media = split_result_media(result)
        response = {"error" if result.is_error else "output": text}
    function: Members = {
        "id": result.call_id,
        "name": ctx.names.to_wire(result.name, result.namespace),
        "response": response,
    }
    if media and ctx.profile.tool_result_media:
        function["parts"] = [write_media(part) for part in media]
    elif media:
        returned.append({"text": media_intro(result).text})
        returned.extend(write_media(part) for part in media)
    return {"functionResponse": function}


def _remembered_call(call: Call, ctx: Context) -> str:
    """Of clients that lose signatures (2.10)."""
    found = ctx.signatures.of_call(call.call_id) if ctx.signatures is not None else ()
    return _own(list(found)) if found else ""


def _remembered_text(part: Text, ctx: Context) -> str:
    if ctx.signatures is None or ctx.client is not Format.OPENAI or not (part.literal or part.text):
        return ""
    return _own(list(ctx.signatures.of_text(part.text)))
