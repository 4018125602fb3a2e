"""Turns as Gemini takes them (translation 2.2, 2.3, 2.5, 2.8, 2.10, 2.15, 2.18).

Two steps. `adapt` replaces, in the intermediate representation, whatever Gemini cannot read: afterwards each part can
be written, and the shared passes over turns see what will be sent. `write_contents` writes them.
"""

from collections.abc import Sequence
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
    Written,
)
from cpa.translation.literals import is_blank
from cpa.translation.loss import Untranslatable
from cpa.translation.media import document_text, foreign_items_text
from cpa.translation.signatures import GEMINI_BYPASS, for_family
from cpa.translation.tools import args_object, media_intro, split_result_media, without_reasoning, written_object

SUMMARY_INTRO: Final = "Summary of earlier conversation: "
_FOREIGN_REASONING: Final = "reasoning without a signature of this provider"
_GEMINI: Final = Provenance.GEMINI
_USER, _ASSISTANT, _SYSTEM = Role  # looking into an enumeration takes long


# --- what Gemini can read --------------------------------------------------------------------------------------------


def adapt(request: IRRequest, ctx: Context) -> None:
    """Replace what Gemini cannot read, in place. Raises: Untranslatable."""
    last_user = next((turn for turn in reversed(request.turns) if turn.role is _USER), None)
    for number, turn in enumerate(request.turns):
        if turn.plain:  # as nearly all are
            continue
        if turn.thinks:
            thoughts = without_reasoning(turn, lambda part: bool(_own(part.sigs)))
            for place, _ in thoughts:
                ctx.lose(f"messages[{number}].content[{place}]", _FOREIGN_REASONING, dropped=True)
            if thoughts:
                continue
        if turn is last_user:
            _refuse_unreadable(turn, number)
        kept: list[Part] = []
        for place, part in enumerate(turn.parts):
            if type(part) is Reasoning:
                kept.extend(_reasoning(part, turn.role, f"messages[{number}].content[{place}]", ctx))
            elif _fits(part, turn.role):
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
        return role is _ASSISTANT
    if isinstance(part, Result):
        only = part.parts[0] if len(part.parts) == 1 else None
        return isinstance(only, Text) and not part.cache
    return isinstance(part, Text) and not part.cache and bool(part.written or part.text)


def _adapted(part: Part, role: Role, path: str, ctx: Context) -> list[Part]:
    match part:
        case Text():
            _lose_cache(part, path, ctx)
            signed = role is _ASSISTANT and bool(_own(part.sigs))
            return [part] if part.text or signed else []
        case Media():
            _lose_cache(part, path, ctx)
            if role is _SYSTEM:
                return [part]  # told by `system.system_as_user`
            return _media(part, path, ctx)
        case Call():
            if role is _ASSISTANT:
                return [part]
            return [Text(text=f"{part.name}({args_object(part).decode('utf-8', 'replace')})")]
        case Result():
            _lose_cache(part, path, ctx)
            part.parts = [
                inner if isinstance(inner, Text) or inner.text else readable(inner, path, ctx) for inner in part.parts
            ]
            return [part]
        case Reasoning():
            return _reasoning(part, role, path, ctx)
        case Refusal():
            return [Text(text=part.text)] if part.text else []
        case Compaction():
            if not part.text:
                raise Untranslatable(path, "the compacted history can only be read by the provider that compacted it")
            return [Text(text=SUMMARY_INTRO + part.text)]
        case ServerCall() | ServerResult() | Native():
            return _provider_step(part, path, ctx)


def _reasoning(part: Reasoning, role: Role, path: str, ctx: Context) -> list[Part]:
    if role is _ASSISTANT and _own(part.sigs):
        return [part]
    ctx.lose(path, _FOREIGN_REASONING, dropped=True)
    return []


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


def _own(sigs: Sequence[Sig]) -> str:
    """The signature among *sigs* that Gemini takes back; empty = none."""
    found = for_family(sigs, _GEMINI) if sigs else []
    return found[-1].data if found else ""


# --- writing ---------------------------------------------------------------------------------------------------------


class TextPart(msgspec.Struct, gc=False):
    """A text. What nearly all parts are has structs, which cost half of what a dict does."""

    text: Written


class FunctionCall(msgspec.Struct, gc=False):
    """``functionCall``."""

    id: str
    name: str
    args: msgspec.Raw


class CallPart(msgspec.Struct, gc=False):
    """A call."""

    functionCall: FunctionCall


class SignedCallPart(msgspec.Struct, gc=False):
    """A call with its signature."""

    functionCall: FunctionCall
    thoughtSignature: str


class Output(msgspec.Struct, gc=False):
    """What a function returned."""

    output: Written


class Failure(msgspec.Struct, gc=False):
    """How a function failed."""

    error: Written


class FunctionResponse(msgspec.Struct, gc=False):
    """``functionResponse`` without media."""

    id: str
    name: str
    response: Output | Failure


class ResponsePart(msgspec.Struct, gc=False):
    """A response to a call."""

    functionResponse: FunctionResponse


WrittenPart = TextPart | CallPart | SignedCallPart | ResponsePart | Members | msgspec.Raw


class Content(msgspec.Struct, gc=False):
    """A turn as it is sent."""

    role: str
    parts: list[WrittenPart]


def write_contents(turns: list[Turn], ctx: Context) -> list[Content]:
    """``contents`` of turns that `adapt` has seen, of alternating roles, beginning with the user's."""
    loop = _loop_start(turns)
    writer = _Writer(ctx)
    return [
        Content("model", writer.of_model(turn.parts, in_loop=place >= loop))
        if turn.role is _ASSISTANT
        else Content("user", writer.of_user(turn.parts))
        for place, turn in enumerate(turns)
    ]


def _loop_start(turns: list[Turn]) -> int:
    """Where the running tool loop begins: behind the last turn of the user that brings no results. Agents add texts of
    their own to results, which do not end the loop."""
    for place in range(len(turns) - 1, -1, -1):
        turn = turns[place]
        if turn.role is _USER and not any(isinstance(part, Result) for part in turn.parts):
            return place + 1
    return 0


class _Writer:
    """Writes the parts of turns."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._names = ctx.names
        self._remembered = ctx.signatures
        # Of Chat's clients, which lose them, texts are looked up as well (2.10).
        self._with_texts = ctx.signatures is not None and ctx.client is Format.OPENAI

    def of_model(self, parts: list[Part], *, in_loop: bool) -> list[WrittenPart]:
        """A turn of the model's. *in_loop*: it belongs to the running tool loop."""
        written: list[WrittenPart] = []
        unsigned = in_loop  # the first call has to be signed, its siblings stay as they are (2.10)
        for part in parts:
            if type(part) is Text:
                signature = ""
                if part.sigs or self._with_texts:
                    signature = _own(part.sigs) or self._remembered_text(part)
                text = part.written or part.text
                written.append({"text": text, "thoughtSignature": signature} if signature else TextPart(text))
            elif type(part) is Call:
                signature = _own(part.sigs) if part.sigs else ""
                if not signature and self._remembered is not None:  # of clients that lose them (2.10)
                    kept = self._remembered.of_call(part.call_id)
                    signature = _own(kept) if kept else ""
                if unsigned:
                    unsigned = False
                    signature = signature or GEMINI_BYPASS
                name = part.name if self._names.unchanged else self._names.to_wire(part.name, part.namespace)
                call = FunctionCall(part.call_id, name, written_object(part))
                written.append(SignedCallPart(call, signature) if signature else CallPart(call))
            elif type(part) is Reasoning:
                thought: Members = {"text": "\n\n".join(part.texts), "thought": True}
                _sign(thought, _own(part.sigs))
                written.append(thought)
            else:
                written.extend(_common(part))
        return written

    def of_user(self, parts: list[Part]) -> list[WrittenPart]:
        """Anybody else's turn: responses to functions first, as many as there were calls; then what else is said."""
        responses: list[WrittenPart] = []
        returned: list[WrittenPart] = []
        said: list[WrittenPart] = []
        for part in parts:
            if type(part) is Result:
                responses.append(self._response(part, returned))
            elif type(part) is Text:
                said.append(TextPart(part.written or part.text))
            else:
                said.extend(_common(part))
        return responses + returned + said if returned or said else responses

    def _response(self, result: Result, returned: list[WrittenPart]) -> ResponsePart | Members:
        """A ``functionResponse``. Media that cannot stand in it go to *returned*, introduced by a text."""
        name = result.name if self._names.unchanged else self._names.to_wire(result.name, result.namespace)
        only = result.parts[0] if len(result.parts) == 1 and not result.json else None
        if type(only) is Text:
            text = only.written or only.text
            told = Failure(text) if result.is_error else Output(text)
            return ResponsePart(FunctionResponse(result.call_id, name, told))
        response: Members | msgspec.Raw
        media: list[Media] = []
        if result.json:
            media = [part for part in result.parts if isinstance(part, Media)]
            raw = msgspec.Raw(result.json)
            own = self._ctx.client is Format.GEMINI and result.json.startswith(b"{")
            response = raw if own else {"error" if result.is_error else "output": raw}
        else:
            joined, media = split_result_media(result)
            response = {"error" if result.is_error else "output": joined}
        function: Members = {"id": result.call_id, "name": name, "response": response}
        if media and self._ctx.profile.tool_result_media:
            function["parts"] = [write_media(part) for part in media]
        elif media:
            returned.append({"text": media_intro(result).text})
            returned.extend(write_media(part) for part in media)
        return {"functionResponse": function}

    def _remembered_text(self, part: Text) -> str:
        if not self._with_texts or self._remembered is None or not (part.written or part.text):
            return ""
        return _own(self._remembered.of_text(part.text))


def _common(part: Part) -> list[WrittenPart]:
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
