"""Stream chunks as plugins see them (plugin-abi.md 6.16), and the way back to bytes.

A *unit* is what one plugin call gets. On the client's side: bare JSON for Chat and Gemini, SSE text for the others. On
the provider's side the framing is older and differs: SSE lines. The two never mix: `to_units` and `frame_unit` for the
client's format, `provider_units` and `from_provider_units` for the provider's.
"""

from collections.abc import Iterable

from cpa.errors import UpstreamProtocolError
from cpa.formats.faults import probe
from cpa.formats.json import is_json
from cpa.formats.names import Format
from cpa.formats.responses_stream import separate
from cpa.formats.sse import event_data, split_events

_BARE_UNITS = frozenset({Format.OPENAI, Format.GEMINI})
_DONE = b"[DONE]"
_DONE_FRAME = b"data: [DONE]\n\n"
_SSE_STARTS = (b"data:", b"event:")


def to_units(fmt: Format, block: bytes) -> list[bytes]:
    """The units of *block*, complete wire events in the client's format *fmt*.

    Comments and blank lines are none, nor is ``[DONE]``.
    """
    units: list[bytes] = []
    for event in split_events(block):
        data = event_data(event)
        if data is None:
            continue
        if fmt not in _BARE_UNITS:
            units.append(event)
        elif data.strip() not in (b"", _DONE):
            units.append(data)
    return units


def frame_unit(fmt: Format, unit: bytes) -> bytes:
    """Wire bytes of one unit, which a plugin may have written; b"" for an empty one.

    Raises: UpstreamProtocolError when the data of a Responses event is not JSON. Units in which a plugin cuts its
      events differently have to pass a `ResponsesReader` instead.
    """
    if not unit:
        return b""
    if fmt is Format.CLAUDE:
        return unit
    if fmt in _BARE_UNITS:
        if unit.startswith(_SSE_STARTS):
            # A plugin that wrote the framing itself; doubling it would break every client.
            return _ended(unit)
        if b"\n" in unit and b"\n\ndata:" not in unit:
            # JSON has line breaks only between its tokens. Several events in one unit keep theirs.
            unit = unit.replace(b"\r", b"").replace(b"\n", b" ")
        return b"data: " + unit.rstrip(b"\r\n") + b"\n\n"
    framed = b"".join(
        _ended(frame) for event in split_events(_with_field(unit)) for frame in separate(event) if frame.strip()
    )
    for event in split_events(framed):
        data = event_data(event)
        if data is not None and not is_json(data):
            raise UpstreamProtocolError("a stream event is not valid JSON")
    return framed


def end_frame(fmt: Format) -> bytes:
    """What ends a clean stream of units in the client's format."""
    if fmt is Format.OPENAI:
        return _DONE_FRAME
    if fmt in (Format.OPENAI_RESPONSE, Format.CODEX):
        return b"\n"
    return b""


def ends_stream(fmt: Format, block: bytes) -> bool:
    """Whether *block*, complete wire events, holds the mark that ends a stream, whatever its lines end with.

    Only Chat has one; the others end with an event that is a unit, or without a word.
    """
    if fmt is not Format.OPENAI or b"[DONE]" not in block:
        return False
    return any((event_data(event) or b"").strip() == _DONE for event in split_events(block))


def provider_units(fmt: str, block: bytes) -> list[bytes]:
    """The units of *block*, complete wire events of a provider that speaks *fmt*, for `response.normalize_before`.

    Chat and Responses: one line ``data: {…}`` an event, ``data: [DONE]`` included. Claude: every line on its own,
    blank lines too. Gemini: bare JSON.
    """
    if fmt == Format.CLAUDE:
        return block.splitlines()
    units: list[bytes] = []
    for event in split_events(block):
        data = event_data(event)
        if data is None or not data.strip():
            continue
        data = data.replace(b"\n", b" ")
        if fmt != Format.GEMINI:
            units.append(b"data: " + data)
        elif data.strip() != _DONE:
            units.append(data)
    return units


def provider_end_unit(fmt: str, *, units: bool = False) -> bytes | None:
    """The unit that plugins get when the stream has ended; None where the provider's own last event says it.

    Of the streams of plugin executors, which have no end mark, only Chat gets one (plugin-abi 6.16).
    """
    if units:
        return b"data: " + _DONE if fmt == Format.OPENAI else None
    return _DONE if fmt == Format.GEMINI else None


def from_provider_units(fmt: str, units: Iterable[bytes]) -> bytes:
    """Wire bytes of units that normalizers may have changed; empty units and a bare end marker vanish.

    The inverse of `provider_units`, except for comments, and for the `event:` lines of Responses, which are made anew.
    """
    if fmt == Format.CLAUDE:
        return b"".join(unit + b"\n" for unit in units)
    out: list[bytes] = []
    for unit in units:
        data = unit.removeprefix(b"data:").strip()
        if not data or (data == _DONE and fmt != Format.OPENAI):
            continue
        data = data.replace(b"\r", b"").replace(b"\n", b" ")
        if fmt in (Format.OPENAI_RESPONSE, Format.CODEX):
            seen = probe(data)
            if seen is not None and seen.name:
                out.append(b"event: " + seen.name.encode() + b"\n")
        out.append(b"data: " + data + b"\n\n")
    return b"".join(out)


def _with_field(unit: bytes) -> bytes:
    """A Responses unit without any SSE field is taken for its JSON."""
    return b"data: " + unit if unit.startswith(b"{") else unit


def _ended(event: bytes) -> bytes:
    """*event* with a blank line at its end."""
    if event.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        return event
    return event.rstrip(b"\r\n") + b"\n\n"
