"""Messages of a Chat request, read into turns (translation 2.2, 2.3, 2.5, 2.8, 2.10)."""

from collections.abc import Callable

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.names import Format
from cpa.translation.chat.details import read_details
from cpa.translation.chat.parts import ORIGIN, read_image, read_part
from cpa.translation.chat.wire import ABSENT, Custom, Function, Message, Part, ToolCall, raw_of, read_parts
from cpa.translation.context import Context
from cpa.translation.ir import (
    Authority,
    Call,
    Channel,
    Media,
    MediaKind,
    Native,
    Provenance,
    Reasoning,
    Refusal,
    Result,
    Role,
    Shape,
    Sig,
    SigKind,
    SysBlock,
    Text,
    Turn,
)
from cpa.translation.ir import Part as IRPart
from cpa.translation.literals import first_of, read_text, system_block
from cpa.translation.signatures import unwrap
from cpa.translation.undecoded import UNREAD

_USER, _ASSISTANT, _ = Role  # looking into an enumeration takes long
Spans = Callable[[int], list[msgspec.Raw]]
"""Gives the content parts of a message undecoded; costs a pass over the body, so it is asked for only when needed."""


class MessageReader:
    """Makes turns of messages.

    Attributes:
      system: leading system text. *turns*: all that follows.
    """

    def __init__(self, ctx: Context, spans: Spans) -> None:
        self.system: list[SysBlock] = []
        self.turns: list[Turn] = []
        self._ctx = ctx
        self._spans = spans
        # What no parser knows may go on to the same protocol only (0.3).
        self._native = ctx.provider is Format.OPENAI

    def feed(self, message: Message, place: int) -> None:
        """The next message. Raises: MalformedRequest."""
        role, content = message.role, message.content
        # Histories are long, and nearly all of them is this: what is plain gets by with the least work.
        if message.cache_control is ABSENT and content is not ABSENT and not message.name:
            text = read_text(content)
            if role == "tool":
                if text is not None:
                    self._add_result(Result(message.tool_call_id or "", parts=[text]))
                    return
            elif role == "user":
                if text is not None:
                    self.turns.append(Turn(_USER, [text]))
                    return
            elif role == "assistant" and message.tool_calls and _only_calls(message, text):
                parts: list[IRPart] = [] if text is None or not (text.written or text.text) else [text]
                for number, call in enumerate(message.tool_calls):
                    parts.append(self._call(call, place, number))
                self.turns.append(Turn(_ASSISTANT, parts, ordered=False))
                return
        match role:
            case "user":
                self._add(Role.USER, self._parts(message, place), message)
            case "assistant":
                self._assistant(message, place)
            case "tool":
                self._result(message, place, call_id=message.tool_call_id or "")
            case "function":
                self._result(message, place, call_id="")
            case "system" | "developer":
                self._system(message, place)
            case _:
                path = f"messages[{place}].role"
                said = "none" if role is None else f"'{role[:32]}'"
                expected = "system, developer, user, assistant, tool or function"
                raise MalformedRequest(f"{path}: expected {expected}, got {said}", param=path)

    # --- content ---

    def _parts(self, message: Message, place: int) -> list[IRPart]:
        content = _content(message.content, place)
        parts: list[IRPart] = []
        if isinstance(content, Text):
            parts.append(content)
        for number, part in enumerate(content if isinstance(content, list) else ()):
            path = f"messages[{place}].content[{number}]"
            found = read_part(part, path)
            if found is not None:
                parts.append(found)
            elif self._native:
                spans = self._spans(place)
                if number < len(spans):
                    parts.append(Native(origin=ORIGIN, raw=bytes(spans[number]), inner=True))
            else:
                self._ctx.lose(path, f"unknown part type '{(part.type or '')[:64]}'", dropped=True)
        _spread_cache(parts, raw_of(message.cache_control))
        return parts

    def _add(self, role: Role, parts: list[IRPart], message: Message) -> None:
        if parts:
            # Chat has one place for text and one for calls, so their order says nothing.
            self.turns.append(Turn(role=role, parts=parts, name=message.name or "", ordered=role is not Role.ASSISTANT))

    # --- system ---

    def _system(self, message: Message, place: int) -> None:
        parts = self._parts(message, place)
        authority = Authority.DEVELOPER if message.role == "developer" else Authority.SYSTEM
        if not self.turns:
            if message.name:
                self._ctx.lose(f"messages[{place}].name", dropped=True)
            self.system.extend(system_block(part, authority) for part in parts if isinstance(part, Text))
            parts = [part for part in parts if not isinstance(part, Text)]
        if parts:
            self.turns.append(Turn(role=Role.SYSTEM, parts=parts, name=message.name or "", authority=authority))

    # --- assistant ---

    def _assistant(self, message: Message, place: int) -> None:
        said = self._parts(message, place)
        calls = [self._call(call, place, number) for number, call in enumerate(message.tool_calls or ())]
        if message.function_call is not None:
            calls.append(_function(message.function_call, "", [], f"messages[{place}].function_call"))
        parts: list[IRPart] = said
        if message.reasoning_details or message.reasoning_content or message.reasoning:
            reasoning, of_parts = _reasoning(message)
            _attach(of_parts, said, calls, reasoning)
            parts = [*reasoning, *said]
        if message.refusal:
            parts.append(Refusal(text=message.refusal))
        for image in message.images or ():
            media = read_image(image.image_url)
            if media is not None:
                parts.append(media)
        if message.audio is not None and message.audio.id:
            parts.append(Media(media=MediaKind.AUDIO, file_id=message.audio.id, issuer=ORIGIN))
        if calls and bytes(message.content) == b'""':
            parts = [part for part in parts if not isinstance(part, Text) or part.text or part.sigs]
        self._add(Role.ASSISTANT, [*parts, *calls], message)

    def _call(self, call: ToolCall, place: int, number: int) -> Call:
        function = call.function
        if function is not None and function.name and call.custom is None and call.extra_content is None:
            call_id, args = call.id, function.arguments
            if type(call_id) is not str:
                call_id = ""
            return (
                Call(call_id, function.name, UNREAD, True, written=args)
                if args
                else Call(call_id, function.name, b"", True)
            )
        sigs: list[Sig] = []
        google = call.extra_content.google if call.extra_content is not None else None
        if google is not None and google.thought_signature:
            sig = unwrap(google.thought_signature, bare=Provenance.GEMINI, kind=SigKind.PART)
            if sig is not None:
                sig.of_call = True
                sigs.append(sig)
        call_id = call.id if isinstance(call.id, str) else ""
        path = f"messages[{place}].tool_calls[{number}]"
        if call.custom is not None or call.type == "custom":
            return _custom(call.custom or Custom(), call_id, sigs, f"{path}.custom")
        return _function(function or Function(), call_id, sigs, f"{path}.function")

    # --- results ---

    def _result(self, message: Message, place: int, *, call_id: str) -> None:
        parts: list[Text | Media] = []
        for number, part in enumerate(self._parts(message, place)):
            if isinstance(part, Text | Media):
                parts.append(part)
                continue
            # A tool's own words, whatever they are: as text, not lost.
            self._ctx.lose(f"messages[{place}].content[{number}]", "unknown part type became text")
            raw = part.raw.decode("utf-8", "replace") if isinstance(part, Native) else ""
            parts.append(Text(text=part.text if isinstance(part, Refusal) else raw))
        cache = b""
        if parts:
            cache, parts[-1].cache = parts[-1].cache, b""  # a marker at its end is the result's
        self._add_result(Result(call_id=call_id, name=message.name or "", parts=parts, cache=cache))

    def _add_result(self, result: Result) -> None:
        last = self.turns[-1] if self.turns else None
        if last is not None and type(last.parts[-1]) is Result:
            last.parts.append(result)  # results of one group are one turn, here they only cannot be one message
        else:
            self.turns.append(Turn(_USER, [result]))


def _only_calls(message: Message, text: Text | None) -> bool:
    """An assistant's message has nothing but calls, and perhaps *text* before them."""
    return (
        message.reasoning_content is None
        and message.reasoning is None
        and message.reasoning_details is None
        and message.refusal is None
        and message.function_call is None
        and message.images is None
        and message.audio is None
        and (text is not None or first_of(message.content) == b"n")
    )


def _content(raw: msgspec.Raw, place: int) -> Text | list[Part] | None:
    """``content``: text, or content parts. Raises: MalformedRequest."""
    if raw is ABSENT:
        return None
    match first_of(raw):
        case b'"':
            return read_text(raw)
        case b"[":
            return read_parts(raw)
        case b"n":
            return None
        case b"{":
            path = f"messages[{place}].content"
            raise MalformedRequest(f"{path}: expected a string or a list of parts", param=path)
    return Text(text=bytes(raw).decode())  # a number, or a truth value: its JSON text


def _spread_cache(parts: list[IRPart], cache: bytes) -> None:
    """A message's own ``cache_control`` counts for its last part that has none (2.2, cases 7 and 8)."""
    last = parts[-1] if parts else None
    if cache and isinstance(last, Text | Media) and not last.cache:
        last.cache = cache


def _function(function: Function, call_id: str, sigs: list[Sig], path: str) -> Call:
    if not function.name:
        raise MalformedRequest(f"{path}.name: a call needs a name", param=f"{path}.name")
    args = (function.arguments or "").encode()
    return Call(call_id=call_id, name=function.name, args=args, args_text=True, sigs=sigs or ())


def _custom(custom: Custom, call_id: str, sigs: list[Sig], path: str) -> Call:
    if not custom.name:
        raise MalformedRequest(f"{path}.name: a call needs a name", param=f"{path}.name")
    return Call(
        call_id=call_id,
        name=custom.name,
        args=(custom.input or "").encode(),
        args_text=True,
        shape=Shape.TEXT,
        sigs=sigs or (),
    )


def _reasoning(message: Message) -> tuple[list[Reasoning], list[tuple[Sig, str]]]:
    """Reasoning that a client sent back: details, and where they have no text the plain members of compatible hosts."""
    plain = message.reasoning_content or message.reasoning or ""
    blocks, of_parts = read_details(message.reasoning_details or ())
    if plain and not any(block.texts for block in blocks):
        carrier = next((block for block in blocks if not block.redacted), None)
        if carrier is not None:
            carrier.texts = [plain]
        else:
            blocks.insert(0, Reasoning(texts=[plain], channel=Channel.RAW))
    return blocks, of_parts


def _attach(of_parts: list[tuple[Sig, str]], said: list[IRPart], calls: list[Call], reasoning: list[Reasoning]) -> None:
    """Give signatures of parts back to them: by the call's id, else the first call, else the text, else alone."""
    for sig, call_id in of_parts:
        call = next((call for call in calls if call_id and call.call_id == call_id), None)
        if call is None and sig.of_call:
            call = next((call for call in calls if not call.sigs), None)
        if call is not None:
            sig.of_call = True
            call.sigs = [*call.sigs, sig]
            continue
        text = next((part for part in reversed(said) if isinstance(part, Text)), None)
        if text is None and not sig.of_call:
            text = Text(text="")
            said.append(text)
        if text is not None and not sig.of_call:
            text.sigs = [*text.sigs, sig]
        elif sig.of_call:
            reasoning.append(Reasoning(sigs=[sig]))
