"""Contents of Gemini's requests, read into turns (translation 2.3, 2.5, 2.8, 2.10).

Clients that stream keep what they got: an answer comes back as many contents of the model, each with a few characters
of text or thought. Consecutive contents of the model are one turn by the protocol's own rule, and here their pieces of
text and thought are put together again: a signature covers the whole thought, which has to come back to its vendor
unchanged. A signature ends the part that it stands on.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode_members, encode
from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.gemini import wire
from cpa.translation.gemini.media_parts import read_blob, read_file
from cpa.translation.gemini.wire import (
    Content,
    FunctionCall,
    FunctionResponse,
    Part,
    PlainCall,
    PlainContent,
    PlainPart,
    PlainResponse,
)
from cpa.translation.ir import (
    Call,
    Media,
    Native,
    Provenance,
    Raw,
    Reasoning,
    Result,
    Role,
    ServerCall,
    ServerResult,
    Sig,
    SigKind,
    SysBlock,
    Text,
    Turn,
)
from cpa.translation.ir import Part as IRPart
from cpa.translation.literals import object_call, read_text
from cpa.translation.signatures import unwrap

ORIGIN: Final = Format.GEMINI.value
_ABSENT: Final = wire.ABSENT
_USER, _ASSISTANT, _SYSTEM = Role  # looking into an enumeration takes long
_OPERATOR: Final = frozenset({"system", "developer"})
_PLAIN_KEYS: Final = frozenset({"output", "result", "content"})
"""Members of a function's response that hold nothing but its text (2.8)."""
_OF_REASONING: Final = frozenset({SigKind.THINKING, SigKind.REDACTED, SigKind.ENCRYPTED})

_Place = tuple[int, int]
"""Numbers of a content and of a part in it."""
Spans = Callable[[int, int], Raw]
"""Gives part *j* of content *i* undecoded; costs a pass over the body, so it is asked for only when one is needed."""


class ContentReader:
    """Makes turns of contents."""

    def __init__(self, ctx: Context, spans: Spans, *, native: bool) -> None:
        """*native*: the provider speaks Gemini, so that what only Gemini knows may stay as it is."""
        self._ctx = ctx
        self._spans = spans
        self._native = native
        self._turns: list[Turn] = []
        self._parts: list[IRPart] = []
        self._texts: list[Text] = []
        self._thoughts: list[str] = []

    def feed(self, contents: list[Content]) -> None:
        """All contents of a request. Raises: MalformedRequest."""
        for place, content in enumerate(contents):
            parts = content.parts if isinstance(content.parts, list) else [content.parts] if content.parts else []
            role = content.role or "user"
            if role == "model":
                self._join_turn(Role.ASSISTANT)
            else:
                self._begin_turn(Role.SYSTEM if role in _OPERATOR else Role.USER)
            read = self._of_model if role == "model" else self._of_user
            for number, part in enumerate(parts):
                read(part, (place, number))

    def feed_plain(self, contents: list[PlainContent]) -> None:
        """The same for contents of plain parts, for providers of other protocols. Raises: MalformedRequest."""
        for place, content in enumerate(contents):
            if content.role == "model":
                self._join_turn(_ASSISTANT)
                for number, part in enumerate(content.parts):
                    self._plain_of_model(part, (place, number))
            else:
                self._begin_turn(_SYSTEM if content.role in _OPERATOR else _USER)
                for number, part in enumerate(content.parts):
                    self._plain_of_user(part, (place, number))

    def _plain_of_model(self, part: PlainPart, place: _Place) -> None:
        call = part.functionCall
        if part.thought or part.functionResponse is not None:
            self._of_model(self._whole(part, place), place)
        elif call is not None and part.text is _ABSENT:
            if self._texts or self._thoughts:
                self._flush()
            self._parts.append(read_call(call, part.thoughtSignature or "", place))
        else:
            text = read_text(part.text)
            if text is None or not text.written or part.thoughtSignature or call is not None:
                self._of_model(self._whole(part, place), place)
                return
            if self._thoughts:
                self._flush()
            self._texts.append(text)

    def _plain_of_user(self, part: PlainPart, place: _Place) -> None:
        response = part.functionResponse
        if part.thought or part.functionCall is not None or part.thoughtSignature:
            self._of_user(self._whole(part, place), place)
        elif response is not None and part.text is _ABSENT:
            result = _plain_result(response)
            if result is None:
                self._of_user(self._whole(part, place), place)
            else:
                self._parts.append(result)
        else:
            text = read_text(part.text)
            if text is None or not text.written or response is not None:
                self._of_user(self._whole(part, place), place)
            else:
                self._parts.append(text)

    def _whole(self, part: PlainPart, place: _Place) -> Part:
        """*part* as one that may hold anything."""
        if part.functionResponse is not None:
            return wire.read_part(self._spans(*place))
        call = part.functionCall
        return Part(
            text=wire.as_text(part.text) if wire.given(part.text) else None,
            thought=part.thought,
            thoughtSignature=part.thoughtSignature,
            functionCall=None if call is None else FunctionCall(id=call.id, name=call.name, args=call.args),
        )

    def finish(self) -> list[Turn]:
        """The turns."""
        self._flush()
        return [turn for turn in self._turns if turn.parts]

    def _begin_turn(self, role: Role) -> None:
        self._flush()
        self._parts = []
        self._turns.append(Turn(role=role, parts=self._parts))

    def _join_turn(self, role: Role) -> None:
        if not self._turns or self._turns[-1].role is not role:
            self._begin_turn(role)

    def _flush(self) -> None:
        """The pieces of text or thought that wait: only one kind does at a time."""
        if self._texts:
            pieces, self._texts = self._texts, []
            self._parts.append(pieces[0] if len(pieces) == 1 else Text(text="".join(piece.text for piece in pieces)))
        if self._thoughts:
            self._parts.append(Reasoning(texts=["".join(self._thoughts)]))
            self._thoughts = []

    # --- the model's ---

    def _of_model(self, part: Part, place: _Place) -> None:
        text, signature = part.text, part.thoughtSignature or part.thought_signature or ""
        if text and not signature:
            if not part.thought:
                if self._thoughts:
                    self._flush()
                self._texts.append(Text(text=text, written=text))
            else:
                self._thought(text, None)
        call = part.functionCall or part.function_call
        if call is not None:
            self._flush()
            self._parts.append(read_call(call, signature, place))
        elif text and not signature:
            return
        elif not self._others(part, place):
            if signature:
                self._signed(part, signature)
            elif text is None:
                self._unknown(place)

    def _signed(self, part: Part, signature: str) -> None:
        text = part.text or ""
        sig = unwrap(signature, bare=Provenance.GEMINI, kind=SigKind.THINKING if part.thought else SigKind.PART)
        if part.thought or (sig is not None and not text and sig.kind in _OF_REASONING):
            self._thought(text, sig)
        elif sig is not None or text:
            self._flush()
            self._parts.append(Text(text=text, sigs=[sig] if sig is not None else ()))

    def _thought(self, text: str, sig: Sig | None) -> None:
        if self._texts or (sig is not None and sig.kind is SigKind.REDACTED):
            self._flush()
        if text:
            self._thoughts.append(text)
        if sig is not None:
            whole = "".join(self._thoughts)
            self._thoughts = []
            redacted = sig.kind is SigKind.REDACTED
            self._parts.append(Reasoning(texts=[whole] if whole else [], sigs=[sig], redacted=redacted))

    # --- everybody else's ---

    def _of_user(self, part: Part, place: _Place) -> None:
        if part.text and not part.thought:
            self._parts.append(Text(text=part.text))
        elif part.functionCall is not None or part.function_call is not None:
            # Only the model calls; what a user says about calls is text (2.8).
            call = wire.raw_of(wire.members(self._spans(*place)).get("functionCall"))
            self._parts.append(Text(text=call.decode("utf-8", "replace")))
        elif self._others(part, place):
            return
        elif part.text:
            # Hidden text must not become visible.
            self._ctx.lose(path_of(place), "a thought of the user's", dropped=True)
        elif part.text is None and not part.signature:
            self._unknown(place)

    def _others(self, part: Part, place: _Place) -> bool:
        """Parts that mean the same in every role; whether *part* is one."""
        found = self._other(part, place)
        if found is None:
            return False
        self._flush()
        self._parts.append(found)
        return True

    def _other(self, part: Part, place: _Place) -> IRPart | None:
        response = part.functionResponse or part.function_response
        if response is not None:
            return read_response(response, path_of(place), native=self._native)
        blob = part.inlineData or part.inline_data
        file = part.file if blob is None else b""
        if blob is not None or file:
            if part.thought or part.tuned:
                if self._native:
                    return Native(origin=ORIGIN, raw=self._spans(*place))
                self._ctx.lose(path_of(place), "how the media is to be read", dropped=True)
            path = path_of(place)
            media = read_file(file, path) if blob is None else read_blob(blob, path, native=self._native)
            if part.signature:
                sig = unwrap(part.signature, bare=Provenance.GEMINI, kind=SigKind.PART)
                media.sigs = [sig] if sig is not None else []
            return media
        if code := part.code:
            return ServerCall(kind="code", origin=ORIGIN, raw=b'{"executableCode":' + code + b"}")
        if result := part.code_result:
            return ServerResult(kind="code", origin=ORIGIN, raw=b'{"codeExecutionResult":' + result + b"}")
        return None

    def _unknown(self, place: _Place) -> None:
        span = self._spans(*place)
        members = wire.members(span)
        names = ", ".join(members)
        if not names:
            return  # an empty part says nothing
        if self._native:
            if len(members) < len(decode_members(span)):
                span = encode(members)  # `functionCall: null` is no call
            self._flush()
            self._parts.append(Native(origin=ORIGIN, raw=span))
        else:
            self._ctx.lose(path_of(place), f"unknown part: {names[:64]}", dropped=True)


# --- calls and responses ---------------------------------------------------------------------------------------------


def path_of(place: _Place) -> str:
    """Of a part, for people."""
    return f"contents[{place[0]}].parts[{place[1]}]"


def read_call(found: FunctionCall | PlainCall, signature: str, place: _Place) -> Call:
    """A ``functionCall``. Raises: MalformedRequest."""
    if not found.name:
        raise MalformedRequest("functionCall needs a name", param=path_of(place))
    call = object_call(found.id or "", found.name, found.args)
    sig = unwrap(signature, bare=Provenance.GEMINI, kind=SigKind.PART) if signature else None
    if sig is not None:
        sig.of_call = sig.kind is SigKind.PART
        call.sigs = [sig]
    return call


def read_response(found: FunctionResponse, path: str, *, native: bool) -> Result:
    """A ``functionResponse``: for Gemini as it is, for others its text if it is nothing else (2.8)."""
    result = Result(call_id=found.id or "", name=found.name or "")
    media: list[Text | Media] = []
    for number, span in enumerate(wire.spans(found.parts) if wire.given(found.parts) else ()):
        inner = wire.members(span)
        inner_path = f"{path}.functionResponse.parts[{number}]"
        if "inlineData" in inner:
            media.append(_inner_blob(inner["inlineData"], inner_path, native=native))
        elif "fileData" in inner:
            media.append(read_file(bytes(inner["fileData"]), inner_path))
    response = wire.raw_of(found.response)
    said, result.is_error = _plain(response)
    if native and response.startswith(b"{"):
        result.json, result.parts = response, media
    elif said is not None:
        result.parts = [*([Text(text=said)] if said or not media else []), *media]
    elif media:
        result.parts = [Text(text=response.decode("utf-8", "replace")), *media]
    else:
        result.json = response
    return result


def _inner_blob(raw: msgspec.Raw, path: str, *, native: bool) -> Media:
    try:
        return read_blob(wire.read_blob(raw), path, native=native)
    except ValueError:
        raise MalformedRequest("inlineData: expected an object", param=path) from None


def _plain_result(found: PlainResponse) -> Result | None:
    """A response that is one text and nothing else; None for any other."""
    output = found.response
    text = None
    for raw in (output.output, output.result, output.content):
        if raw is not _ABSENT:
            if text is not None:
                return None
            text = read_text(raw)
            if text is None:
                return None
    if output.error is _ABSENT:
        return None if text is None else Result(found.id or "", found.name or "", [text])
    text = read_text(output.error) if text is None else None
    if text is None or not text.written:
        return None
    return Result(found.id or "", found.name or "", [text], is_error=True)


def _plain(response: Raw) -> tuple[str | None, bool]:
    """(the text that is all of a response, or None; whether it tells of an error)."""
    if not response:
        return "", False
    if not response.startswith(b"{"):
        return wire.text_of(response), False
    try:
        found = {name: value for name, value in decode_members(response).items() if wire.given(value)}
    except JsonError:
        return None, False
    error = "error" in found and bytes(found["error"]) not in (b"false", b'""')
    if len(found) != 1:
        return (None, error) if found else ("{}", False)
    name, value = next(iter(found.items()))
    return (wire.text_of(value) if name in _PLAIN_KEYS or error else None), error


# --- system text -----------------------------------------------------------------------------------------------------


def read_system(raw: msgspec.Raw, ctx: Context) -> list[SysBlock]:
    """``systemInstruction``: a content, whose role means nothing, or a string. Raises: MalformedRequest."""
    if not wire.given(raw):
        return []
    alone = wire.text_of(raw)
    if alone is not None:
        return [SysBlock(text=alone)] if alone else []
    try:
        content = wire.read_content(raw)
    except ValueError:
        raise MalformedRequest("systemInstruction: expected a content", param="systemInstruction") from None
    parts = content.parts if isinstance(content.parts, list) else [content.parts] if content.parts else []
    blocks = []
    for number, part in enumerate(parts):
        if part.text is None:
            ctx.lose(f"systemInstruction.parts[{number}]", "no text", dropped=True)
        elif part.text:
            blocks.append(SysBlock(text=part.text))
    return blocks
