"""``reasoning_details``: how Chat carries what only the model's vendor can read (translation 2.10).

The convention is OpenRouter's: a list of entries with a dense ``index``, because the vendor's client merges such lists
by it. An entry holds text with its signature, or encrypted data, and ``format`` says whose it is. What has no place in
that convention, signatures of text and calls, travels as an envelope in encrypted data.
"""

from collections.abc import Iterable
from typing import Final

from cpa.jsontypes import JsonObject
from cpa.translation.chat.wire import Detail
from cpa.translation.ir import Channel, Provenance, Reasoning, Sig, SigKind
from cpa.translation.signatures import unwrap, wrap

TEXT: Final = "reasoning.text"
SUMMARY: Final = "reasoning.summary"
ENCRYPTED: Final = "reasoning.encrypted"

FORMATS: Final = {
    Provenance.CLAUDE: "anthropic-claude-v1",
    Provenance.GEMINI: "google-gemini-v1",
    Provenance.OPENAI: "openai-responses-v1",
}
_WORDS: Final = (
    ("anthropic", Provenance.CLAUDE),
    ("google", Provenance.GEMINI),
    ("openai", Provenance.OPENAI),
    ("azure-openai", Provenance.OPENAI),
)


def provenance_of_format(form: str | None) -> Provenance:
    """Whose data ``format`` says that it is."""
    return next((found for word, found in _WORDS if form and form.startswith(word)), Provenance.UNKNOWN)


def signature_of(detail: Detail) -> Sig | None:
    """The opaque state in an entry; None without any."""
    claimed = provenance_of_format(detail.format)
    if detail.signature:
        return unwrap(detail.signature, bare=claimed, kind=SigKind.THINKING)
    if not detail.data:
        return None
    sig = unwrap(detail.data, bare=claimed, kind=SigKind.ENCRYPTED)
    if sig is not None and sig.kind is SigKind.ENCRYPTED:
        if sig.provenance is Provenance.CLAUDE:
            sig.kind = SigKind.REDACTED
        elif sig.provenance is Provenance.GEMINI:
            # Google signs parts; hosts put the signature of a call here, with the call's id.
            sig.kind, sig.of_call = SigKind.PART, True
    return sig


def read_details(details: Iterable[Detail]) -> tuple[list[Reasoning], list[tuple[Sig, str]]]:
    """(blocks of reasoning, signatures of other parts each with the call's id or ""), as a client sent them back."""
    blocks: list[Reasoning] = []
    of_parts: list[tuple[Sig, str]] = []
    pending: Reasoning | None = None  # text whose encrypted data follows
    for detail in details:
        sig = signature_of(detail)
        text = detail.text or detail.summary or ""
        if sig is not None and sig.kind is SigKind.PART:
            of_parts.append((sig, detail.id or ""))
            sig = None
            if not text:
                continue
        if sig is not None and sig.kind is SigKind.REDACTED:
            blocks.append(Reasoning(sigs=[sig], redacted=True))
            pending = None
        elif sig is not None and not text and pending is not None:
            pending.sigs.append(sig)
            pending = None
        elif text or sig is not None:
            channel = Channel.SUMMARY if detail.type == SUMMARY or sig is not None else Channel.RAW
            if pending is not None and sig is None and pending.channel is channel:
                pending.texts.append(text)
                continue
            block = Reasoning(texts=[text] if text else [], channel=channel, sigs=[sig] if sig is not None else [])
            blocks.append(block)
            pending = block if sig is None else None
    return blocks, of_parts


def write_details(texts: list[str], sig: Sig, first_index: int) -> list[JsonObject]:
    """The entries of one block of reasoning that is signed. *texts*: its parts, none when they are not to be seen."""
    entries: list[JsonObject] = []
    if sig.kind is SigKind.THINKING and sig.provenance in FORMATS:
        entries.append(
            {
                "type": TEXT,
                "index": first_index,
                "text": "\n\n".join(texts),
                "signature": sig.data,
                "format": FORMATS[sig.provenance],
            }
        )
        return entries
    shown = [text for text in texts if text]
    entries += [{"type": SUMMARY, "index": first_index + number, "summary": text} for number, text in enumerate(shown)]
    entries.append(write_carrier(sig, first_index + len(entries)))
    return entries


def write_carrier(sig: Sig, index: int) -> JsonObject:
    """The entry of opaque data."""
    entry: JsonObject = {"type": ENCRYPTED, "index": index}
    bare = sig.kind in (SigKind.ENCRYPTED, SigKind.REDACTED) and sig.provenance in (
        Provenance.CLAUDE,
        Provenance.OPENAI,
    )
    if bare:
        entry["data"] = sig.data
        entry["format"] = FORMATS[sig.provenance]
    else:
        entry["data"] = wrap(sig)
    return entry
