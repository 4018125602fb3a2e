"""Providers that answer a request for a stream with a plain body, as some compatible servers do (corpus 161)."""

from collections.abc import AsyncIterator, Iterable

import attrs
import msgspec

from cpa.errors import RawHeaders, UpstreamProtocolError
from cpa.formats.faults import has_error, probe
from cpa.formats.names import Format
from cpa.translation.unfold import unfold
from cpa.types import UpstreamAnswer

CONTENT_TYPE = b"content-type"
STREAM_TYPE = b"event-stream"
EVENT_STREAM = b"text/event-stream"
ANSWERS = {
    Format.OPENAI: ("choices",),
    Format.OPENAI_RESPONSE: ("output",),
    Format.CODEX: ("output",),
    Format.CLAUDE: ("content",),
    Format.GEMINI: ("candidates", "promptFeedback"),
}
"""Members that answers have and errors have not."""


@attrs.define(kw_only=True, eq=False)
class Replayed:
    """An `UpstreamAnswer` whose *first* piece has been read, or made; *rest* follows it."""

    answer: UpstreamAnswer
    headers: RawHeaders
    status: int
    first: bytes
    rest: AsyncIterator[bytes] | None

    async def read(self) -> bytes:
        """See `UpstreamAnswer.read`."""
        first, self.first = self.first, b""
        return first + (await self.answer.read() if self.rest is not None else b"")

    def chunks(self) -> "Replayed":
        """See `UpstreamAnswer.chunks`."""
        return self

    def __aiter__(self) -> "Replayed":
        return self

    async def __anext__(self) -> bytes:
        first, self.first = self.first, b""
        if first:
            return first
        if self.rest is None:
            raise StopAsyncIteration
        return await anext(self.rest)

    async def drain(self) -> None:
        """See `UpstreamAnswer.drain`."""
        await self.answer.drain()


async def as_stream(answer: UpstreamAnswer, provider: str, request: Iterable[bytes]) -> UpstreamAnswer:
    """*answer*, as a stream also where a body came; what is neither stays as it is, and is judged as a stream.

    Args:
      request: pieces of the body that the provider got; it may ask for usage.

    Raises: UpstreamError.
    """
    kind = next((value for name, value in answer.headers if name == CONTENT_TYPE), b"")
    if STREAM_TYPE in kind.lower() or provider not in ANSWERS:
        return answer
    chunks = answer.chunks()
    head = b""
    while not head.strip():
        try:
            head += await anext(chunks)
        except StopAsyncIteration:
            return _replayed(answer, head, None)
    if head.lstrip()[:1] not in (b"{", b"["):
        return _replayed(answer, head, chunks)
    body = head + await answer.read()
    made = _unfolded(body, Format(provider), usage=any(b"include_usage" in piece for piece in request))
    return _replayed(answer, made or body, None)


def with_stream(body: Iterable[bytes]) -> tuple[bytes, ...]:
    """*body*, a JSON object in pieces, that asks for a stream: of equal members the last one counts."""
    whole = b"".join(body).rstrip()
    return (whole[:-1], b',"stream":true}') if whole.endswith(b"}") else (whole,)


def _replayed(answer: UpstreamAnswer, head: bytes, rest: AsyncIterator[bytes] | None) -> Replayed:
    others = tuple((name, value) for name, value in answer.headers if name != CONTENT_TYPE)
    headers = (*others, (CONTENT_TYPE, EVENT_STREAM))
    return Replayed(answer=answer, headers=headers, status=answer.status, first=head, rest=rest)


def _unfolded(body: bytes, provider: Format, *, usage: bool) -> bytes:
    """The stream that says what *body* says; empty when it is no answer."""
    seen = probe(body) if body.lstrip().startswith(b"{") else None
    if seen is not None and (has_error(seen, "") or not _answers(body, provider)):
        return b""
    try:
        return unfold(body, provider, usage=usage)
    except UpstreamProtocolError:
        return b""


def _answers(body: bytes, provider: Format) -> bool:
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except ValueError:
        return False
    return any(name in members for name in ANSWERS[provider])
