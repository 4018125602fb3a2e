"""Log probabilities of an answer's tokens, in the three dialects that know them (translation 2.4). Claude has none.

They travel with the text that they are of (`ir.Delta.probs`). OpenAI's two protocols say the same of a token; Gemini
has two lists beside each other, what was chosen and what might have been, and no bytes. A token need not be whole
characters, so that what belongs to a piece of text is told by bytes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.ir import TokenProb

UNLIKELY: Final = -9999.0
"""What the vendors write for a token that can as good as not come; JSON has no word for minus infinity."""
_BYTE: Final = range(256)


class _Openai(msgspec.Struct, gc=False):
    """One token of Chat or Responses, or an alternative to one."""

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None
    top_logprobs: "list[_Openai] | None" = None


class _Gemini(msgspec.Struct, gc=False):
    """One candidate; Google leaves out what is zero or empty."""

    token: str = ""
    logProbability: float = 0.0
    tokenId: int = -1


class _Step(msgspec.Struct, gc=False):
    candidates: list[_Gemini] | None = None


class _Result(msgspec.Struct, gc=False):
    """``logprobsResult``."""

    chosenCandidates: list[_Gemini] | None = None
    topCandidates: list[_Step] | None = None


_decode_openai: Final = msgspec.json.Decoder(list[_Openai]).decode
_decode_one: Final = msgspec.json.Decoder(_Openai).decode
_decode_spans: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_result: Final = msgspec.json.Decoder(_Result).decode


def read_openai(raw: bytes | msgspec.Raw) -> tuple[TokenProb, ...]:
    """The tokens in the list *raw*; those that cannot be read are left out."""
    if len(raw) < len(b"[{}]"):
        return ()
    try:
        found = _decode_openai(raw)
    except (ValueError, RecursionError):
        found = _one_by_one(raw)
    return tuple(_from_openai(token) for token in found if token.logprob is not None)


def _one_by_one(raw: bytes | msgspec.Raw) -> list[_Openai]:
    try:
        spans = _decode_spans(raw)
    except (ValueError, RecursionError):
        return []
    found = []
    for span in spans:
        try:
            found.append(_decode_one(span))
        except (ValueError, RecursionError):
            continue
    return found


def _from_openai(found: _Openai) -> TokenProb:
    stated = found.bytes
    if stated is not None and not all(value in _BYTE for value in stated):
        stated = None
    return TokenProb(
        token=found.token,
        logprob=_finite(found.logprob),
        bytes=stated,
        top=tuple(_from_openai(other) for other in found.top_logprobs or () if other.logprob is not None),
    )


def read_gemini(raw: bytes | msgspec.Raw) -> tuple[TokenProb, ...]:
    """The tokens of a ``logprobsResult``; nothing when it cannot be read."""
    try:
        found = _decode_result(raw)
    except (ValueError, RecursionError):
        return ()
    steps = found.topCandidates or []
    return tuple(
        TokenProb(
            token=chosen.token,
            logprob=_finite(chosen.logProbability),
            token_id=chosen.tokenId,
            top=tuple(_from_gemini(other) for other in (steps[place].candidates if place < len(steps) else None) or ()),
        )
        for place, chosen in enumerate(found.chosenCandidates or ())
    )


def _from_gemini(found: _Gemini) -> TokenProb:
    return TokenProb(token=found.token, logprob=_finite(found.logProbability), token_id=found.tokenId)


def write_openai(probs: Iterable[TokenProb]) -> list[JsonValue]:
    """As Chat and Responses spell them, with all members that either of the two requires."""
    return [_entry(found) | {"top_logprobs": [_entry(other) for other in found.top]} for found in probs]


def _entry(found: TokenProb) -> JsonObject:
    return {"token": found.token, "logprob": found.logprob, "bytes": list[JsonValue](_bytes(found))}


def write_gemini(probs: Sequence[TokenProb]) -> JsonObject:
    """``logprobsResult``."""
    out: JsonObject = {"chosenCandidates": [_candidate(found) for found in probs]}
    if any(found.top for found in probs):
        out["topCandidates"] = [{"candidates": [_candidate(other) for other in found.top]} for found in probs]
    return out


def _candidate(found: TokenProb) -> JsonObject:
    out: JsonObject = {"token": found.token, "logProbability": found.logprob}
    if found.token_id >= 0:
        out["tokenId"] = found.token_id
    return out


def covered(probs: Sequence[TokenProb], text: str) -> int:
    """How many of *probs*, from the first one, are of *text* alone, which begins where they do."""
    room = len(text.encode("utf-8", "replace"))
    for place, found in enumerate(probs):
        room -= len(_bytes(found))
        if room < 0:
            return place
    return len(probs)


def _bytes(found: TokenProb) -> Sequence[int]:
    return found.bytes if found.bytes is not None else found.token.encode("utf-8", "replace")


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else UNLIKELY
